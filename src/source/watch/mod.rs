//! The Kubernetes API as a source: lists, watches, and patience. EDGE.
//!
//! In: a [`Server`], and what to select. Out: batches of [`Update`]s. Each kind is listed completely
//! before anything of it is handed over, as one [`Update::Reset`]; then come `Set` and `Delete`, one batch
//! for all that has arrived. A list is streamed where the server can (KEP-3157), else read in pages; each
//! object is converted as it comes and dropped. `reader.rs` does that for one connection, `watcher.rs`
//! decides what to do when it ends, `kinds.rs` says what is asked for.
//!
//! Why not `kube::runtime::watcher` (5.0): it asks for a streamed list at resource version 0, which may
//! be older than what this node has programmed already (kubernetes/kubernetes 59848); it does not fall
//! back where the server refuses to stream; it connects again without a pause when a stream ends or
//! breaks, so that a server that cuts every stream is asked in a tight loop; one list page with one
//! object that cannot be read fails the whole list for ever; and `Retry-After` is lost. kube does the rest:
//! credentials, TLS, requests.

mod backoff;
mod connect;
mod exchange;
mod failure;
mod kinds;
mod reader;
mod report;
mod watcher;

use std::sync::Mutex;
use std::time::Duration;

use futures::future::{BoxFuture, FutureExt, select_all};

pub use backoff::Limits;
pub use connect::{ConnectError, Server, connect};

use super::Sink;
use super::convert::Context;
use super::objects::{EndpointSlice, Endpoints, Node, Service, ServiceCidr};
use crate::metrics::Metrics;
#[cfg(doc)]
use crate::model::Update;
use report::Report;
use watcher::Watcher;

/// What is watched, and how patiently.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Watch legacy Endpoints too. Default: no.
    pub endpoints: bool,
    /// Objects on one page of a list that is not streamed. Default: 500, as in client-go.
    pub page_size: u32,
    /// The pauses after failures.
    pub backoff: Limits,
    /// How long the server may be silent while it owes an answer. Default: 60 s, the server's own limit
    /// for a list.
    pub patience: Duration,
    /// How long one watch lasts, less up to a fifth: then the server ends it and we go on with the next
    /// one. A connection that has died silently is noticed 15 s after that. Default: 290 s.
    pub watch: Duration,
    /// When to ask again for an API that the server does not have. Default: 5 min.
    pub absent: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            endpoints: false,
            page_size: 500,
            backoff: Limits::default(),
            patience: Duration::from_secs(60),
            watch: Duration::from_secs(290),
            absent: Duration::from_secs(300),
        }
    }
}

/// What the watchers of all kinds have in common.
struct Shared {
    server: Server,
    context: Context,
    options: Options,
    metrics: Metrics,
    /// One for all watchers; they take turns, since none is at work while another one is.
    sink: Mutex<Sink>,
    report: Report,
}

/// Follows the API server until `sink` says that nobody listens any more. Whatever fails is tried again:
/// a server that is not there yet is waited for, and while it is away nothing is handed over.
pub async fn run(server: Server, context: Context, options: Options, metrics: Metrics, sink: Sink) {
    let report = Report::default();
    let shared = &Shared { server, context, options, metrics, sink: Mutex::new(sink), report };
    let mut watchers: Vec<BoxFuture<'_, ()>> = vec![
        Watcher::<Node>::new(shared).run().boxed(),
        Watcher::<ServiceCidr>::new(shared).run().boxed(),
        Watcher::<Service>::new(shared).run().boxed(),
        Watcher::<EndpointSlice>::new(shared).run().boxed(),
    ];
    if options.endpoints {
        watchers.push(Watcher::<Endpoints>::new(shared).run().boxed());
    }
    // a watcher ends only when the sink is closed, and then it is closed for all
    select_all(watchers).await;
}
