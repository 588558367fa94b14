//! A small Kubernetes API server for tests, which misbehaves as it is told to.
//!
//! Plain HTTP/1.1 on 127.0.0.1 over blocking sockets, so that a response can be cut at any byte. It keeps
//! objects as JSON values, remembers what happened to them, and serves lists (in pages, with selectors),
//! watches, and watches that begin with a list. Faults are data: [`Server::script`] queues them for one
//! resource and verb, and each request takes the next. A new fault is a new variant of [`Fault`], and a
//! line in `serve.rs` that acts on it.
//!
//! ```text
//!  test ── put, delete, expire, script ──▶ store.rs (objects, history, scripts, requests seen)
//!  client ◀── wire.rs (bytes, cuts, pace) ◀── serve.rs (list, watch) ◀──┘
//! ```
#![allow(dead_code, reason = "shared by several test crates; none of them needs everything")]
#![allow(clippy::unwrap_used, reason = "this is a test")]

mod events;
mod serve;
mod store;
pub mod tls;
mod wire;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use serde_json::Value;
use store::Store;
pub use store::{Expiry, Seen, Streams};

/// What the server has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Resource {
    Services,
    EndpointSlices,
    Endpoints,
    Nodes,
    ServiceCidrs,
}

/// How a resource is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verb {
    /// A list, or one page of it.
    List,
    /// A watch from a resource version.
    Watch,
    /// A watch that begins with a list (`sendInitialEvents=true`).
    Stream,
    /// Something is written.
    Write,
}

/// What goes wrong with one request.
#[derive(Clone, Debug, PartialEq)]
pub enum Fault {
    /// Nothing: for a script in which only a later request fails.
    None,
    /// This status, with `Retry-After: seconds`.
    Status(u16, Option<u32>),
    /// The connection is closed when this many bytes of the response, header included, are out.
    CutAfterBytes(usize),
    /// No answer for this long, then a normal one.
    Delay(Duration),
    /// The answer comes in pieces of this many bytes, with a pause before each.
    Trickle(usize, Duration),
    /// What comes first is not JSON at all.
    Garbage,
    /// This value comes first among the objects.
    Malformed(Value),
    /// A watch's only event is ERROR with status 410.
    GoneInStream,
    /// A watch ends at once, in good order; a streamed list before it says that it is complete.
    End,
    /// These events come in a streamed list before the bookmark that ends it, as happens when something
    /// changes while the server sends it.
    Meanwhile(Vec<(&'static str, Value)>),
    /// A streamed list never says that it is complete.
    Endless,
}

/// The server. Dropping it closes every connection and ends every thread.
pub struct Server {
    address: SocketAddr,
    shared: Arc<Shared>,
    listening: Option<(Arc<AtomicBool>, JoinHandle<()>)>,
}

/// What the threads of a server share.
struct Shared {
    store: Mutex<Store>,
    /// Notified at each change of the store.
    changed: Condvar,
    connections: Mutex<Vec<(TcpStream, JoinHandle<()>)>>,
}

impl Shared {
    fn store(&self) -> MutexGuard<'_, Store> {
        self.store.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn connections(&self) -> MutexGuard<'_, Vec<(TcpStream, JoinHandle<()>)>> {
        self.connections.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Server {
    /// Starts an empty server.
    pub fn start() -> Self {
        let mut server = Self::down();
        server.up();
        server
    }

    /// A server that has an address but does not listen yet.
    pub fn down() -> Self {
        let probe = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        Self {
            address: probe.local_addr().unwrap(),
            shared: Arc::new(Shared {
                store: Mutex::new(Store { version: 1, ..Store::default() }),
                changed: Condvar::new(),
                connections: Mutex::default(),
            }),
            listening: None,
        }
    }

    /// Starts to listen.
    pub fn up(&mut self) {
        self.change(|store| store.stopping = false);
        let listener = TcpListener::bind(self.address).unwrap();
        let stop = Arc::new(AtomicBool::new(false));
        let (stopped, shared) = (Arc::clone(&stop), Arc::clone(&self.shared));
        let thread = std::thread::spawn(move || {
            while let Ok((stream, _)) = listener.accept() {
                if stopped.load(Ordering::SeqCst) {
                    break;
                }
                let (shared_too, socket) = (Arc::clone(&shared), stream.try_clone().unwrap());
                let thread = std::thread::spawn(move || serve::connection(&shared_too, &stream));
                let mut connections = shared.connections();
                connections.retain(|(_, thread)| !thread.is_finished());
                connections.push((socket, thread));
            }
        });
        self.listening = Some((stop, thread));
    }

    /// Stops listening and closes every connection; what it has and what it remembers stays.
    pub fn stop(&mut self) {
        let Some((stop, thread)) = self.listening.take() else { return };
        stop.store(true, Ordering::SeqCst);
        drop(TcpStream::connect(self.address)); // wakes accept
        thread.join().unwrap();
        self.change(|store| store.stopping = true);
        let connections = std::mem::take(&mut *self.shared.connections());
        for (socket, thread) in connections {
            let _ = socket.shutdown(Shutdown::Both);
            thread.join().unwrap();
        }
    }

    /// `http://127.0.0.1:port`.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Adds or replaces an object; its resource version is the server's business.
    pub fn put(&self, resource: Resource, object: Value) {
        self.change(|store| store.put(resource, object));
    }

    /// Removes an object that exists.
    pub fn delete(&self, resource: Resource, namespace: &str, name: &str) {
        self.change(|store| store.delete(resource, namespace, name));
    }

    /// Sends a bookmark to everyone who watches the resource and wants bookmarks.
    pub fn bookmark(&self, resource: Resource) {
        self.change(|store| store.bookmark(resource));
    }

    /// Goes back to an earlier version, as with etcd restored from a backup.
    pub fn rewind(&self, version: u64) {
        self.change(|store| store.rewind(version));
    }

    /// Forgets history: every older resource version and continue token is refused from now on.
    pub fn expire(&self, expiry: Expiry) {
        self.change(|store| store.expire(expiry));
    }

    /// Closes every watch in the middle, as a server that is killed does.
    pub fn cut(&self) {
        self.change(|store| store.cuts += 1);
    }

    /// Makes the server one without this API.
    pub fn without(&self, resource: Resource) {
        self.change(|store| store.absent.push(resource));
    }

    /// Refuses every request for the resource with 403, or no longer.
    pub fn forbid(&self, resource: Resource, forbidden: bool) {
        self.change(|store| {
            store.forbidden.retain(|other| *other != resource);
            store.forbidden.extend(forbidden.then_some(resource));
        });
    }

    /// Answers 401 to whoever does not bring one of these tokens, and closes what is open.
    pub fn accept_tokens(&self, tokens: &[&str]) {
        let tokens = tokens.iter().map(ToString::to_string).collect();
        self.change(|store| {
            store.tokens = Some(tokens);
            store.cuts += 1;
        });
    }

    /// Every Event that was created, by path.
    pub fn events(&self) -> BTreeMap<String, Value> {
        self.shared.store().events.clone()
    }

    /// Which rights the requests so far have used: API group, resource, verb.
    pub fn rights(&self) -> BTreeSet<(String, String, String)> {
        self.shared.store().seen.iter().map(|seen| seen.right.clone()).collect()
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Gives the server this API back.
    pub fn with(&self, resource: Resource) {
        self.change(|store| store.absent.retain(|absent| *absent != resource));
    }

    /// How the server takes `sendInitialEvents`.
    pub fn streams(&self, streams: Streams) {
        self.change(|store| store.streams = streams);
    }

    /// Queues faults: each request of this kind takes the next one.
    pub fn script(&self, resource: Resource, verb: Verb, faults: impl IntoIterator<Item = Fault>) {
        self.change(|store| store.scripts.entry((resource, verb)).or_default().extend(faults));
    }

    /// How many faults are still queued.
    pub fn scripted(&self) -> usize {
        self.shared.store().scripts.values().map(std::collections::VecDeque::len).sum()
    }

    /// Every request so far, in order.
    pub fn seen(&self) -> Vec<Seen> {
        self.shared.store().seen.clone()
    }

    /// How many bytes the last response of this kind took, header included.
    pub fn bytes_of_last(&self, resource: Resource, verb: Verb) -> usize {
        let store = self.shared.store();
        let last = store.seen.iter().rfind(|seen| seen.resource == Some(resource) && seen.verb == verb);
        last.map_or(0, |seen| seen.bytes)
    }

    /// How many watches of the resource are open and have been told everything that there is.
    pub fn watchers(&self, resource: Resource) -> usize {
        self.shared.store().watchers.iter().filter(|watched| **watched == resource).count()
    }

    fn change<T>(&self, change: impl FnOnce(&mut Store) -> T) -> T {
        let answer = change(&mut self.shared.store());
        self.shared.changed.notify_all();
        answer
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop();
    }
}
