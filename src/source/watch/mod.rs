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

mod access;
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

pub use access::Access;
pub use backoff::Limits;
pub use connect::{ConnectError, Server, connect};

use super::Sink;
use super::convert::Context;
use super::objects::{EndpointSlice, Endpoints, Node, Service, ServiceCidr};
use crate::metrics::Metrics;
#[cfg(doc)]
use crate::model::Update;
use crate::notices::Recorder;
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
    /// How long the server may be silent while it owes an answer, or the rest of one. Default: 30 s.
    pub patience: Duration,
    /// How long one watch lasts, less up to a fifth: then the server ends it and we go on with the next
    /// one. What has died behind a proxy that keeps the connection up is noticed 15 s after that; a dead
    /// connection sooner, see [`Access::silence`]. Default: 290 s.
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
            patience: Duration::from_secs(30),
            watch: Duration::from_secs(290),
            absent: Duration::from_secs(300),
        }
    }
}

/// After so long without the first lists the log says so.
const WAITING: Duration = Duration::from_secs(5);
/// And again at most after so long.
const LONGEST_WAITING: Duration = Duration::from_secs(600);

/// What the watchers of all kinds have in common.
struct Shared {
    server: Server,
    context: Context,
    options: Options,
    metrics: Metrics,
    recorder: Recorder,
    /// One for all watchers; they take turns, since none is at work while another one is.
    sink: Mutex<Sink>,
    report: Report,
}

/// Follows the API server until `sink` says that nobody listens any more. Whatever fails is tried again:
/// a server that is not there yet is waited for, and while it is away nothing is handed over.
pub async fn run(
    server: Server,
    context: Context,
    options: Options,
    metrics: Metrics,
    recorder: Recorder,
    sink: Sink,
) {
    let report = Report::new(server.is_by_service());
    let shared = &Shared { server, context, options, metrics, recorder, sink: Mutex::new(sink), report };
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
    watchers.push(tell_while_waiting(shared).boxed());
    select_all(watchers).await;
}

/// Says what is waited for while nothing can be programmed yet: a server that takes connections and never
/// answers causes no failure for a while. Never ends.
async fn tell_while_waiting(shared: &Shared) {
    let mut pause = WAITING;
    loop {
        tokio::time::sleep(pause).await;
        let missing = shared.report.missing();
        if missing.is_empty() {
            return std::future::pending().await;
        }
        tracing::warn!(
            "waiting for the first complete list of {} from the API server at {}: nothing is programmed before, and \
             --once and --dry-run do not end",
            missing.join(" and "),
            shared.server.url().await
        );
        pause = (pause * 4).min(LONGEST_WAITING);
    }
}
