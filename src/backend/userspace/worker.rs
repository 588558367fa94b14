//! A worker: a thread with a poll of its own, which serves sockets as it is ordered to. EDGE.
//!
//! All workers watch every TCP socket, and whoever comes first accepts; a UDP socket belongs to one of
//! them. A worker owns its connections and flows: nothing is locked on the way of a byte.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, TryRecvError, channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Registry, Token, Waker};
use tracing::{info, warn};

use super::limits::Room;
use super::slab::Slab;
use super::slot::{Chooser, Listening, ServedPort, Slot};
use super::table::Binding;
use super::tcp::{Accepted, Connections};
use super::token::{Kind, names, token};
use super::udp::Flows;

/// How long nobody is accepted after descriptors or memory ran short.
const PAUSE: Duration = Duration::from_millis(100);

/// What has changed; carried out between two events, as one.
#[derive(Debug, Default)]
pub struct Orders {
    /// Sockets to serve.
    pub open: Vec<Arc<Slot>>,
    /// Sockets to let go of.
    pub close: Vec<Binding>,
    /// UDP sockets that lead elsewhere now.
    pub changed: Vec<Binding>,
    /// ServicePorts that are gone, and until when their connections may stay.
    pub gone: Vec<(Arc<ServedPort>, Instant)>,
    /// How much each worker may have open from now on.
    pub room: Room,
}

/// All workers.
#[derive(Debug)]
pub struct Workers(Vec<Handle>);

#[derive(Debug)]
struct Handle {
    orders: Sender<(Arc<Orders>, Sender<()>)>,
    waker: Waker,
    thread: JoinHandle<()>,
}

impl Workers {
    /// Starts so many; `chooser` makes what each of them chooses endpoints with.
    ///
    /// # Errors
    /// No thread, or no epoll.
    pub fn start(count: usize, chooser: impl Fn() -> Chooser + Clone + Send + 'static) -> io::Result<Self> {
        let start = |index| {
            let poll = Poll::new()?;
            let waker = Waker::new(poll.registry(), token(Kind::Orders, 0))?;
            let (orders, receiver) = channel();
            let chooser = chooser.clone();
            let run = move || Worker::new(index, count, poll, receiver, chooser()).run();
            let thread = thread::Builder::new().name(format!("relay-{index}")).spawn(run)?;
            Ok(Handle { orders, waker, thread })
        };
        (0..count).map(start).collect::<io::Result<Vec<Handle>>>().map(Self)
    }

    /// Gives orders to all workers, and returns when all have carried them out.
    ///
    /// # Errors
    /// A worker is gone.
    pub fn order(&self, orders: Orders) -> io::Result<()> {
        let orders = Arc::new(orders);
        let (done, all_done) = channel();
        for handle in &self.0 {
            let gone = |_| io::Error::other("a relay thread has ended");
            handle.orders.send((orders.clone(), done.clone())).map_err(gone)?;
            handle.waker.wake()?;
        }
        drop(done);
        for _ in &self.0 {
            all_done.recv().map_err(|_| io::Error::other("a relay thread has ended"))?;
        }
        Ok(())
    }
}

impl Drop for Workers {
    /// Returns when all connections are broken off: should the process end before, the kernel would finish them in
    /// order, and half an answer would look like a whole one.
    fn drop(&mut self) {
        // All of them first: none shall take connections that the next moment breaks off.
        let wake = |Handle { orders, waker, thread }| {
            drop(orders);
            (waker.wake().is_ok(), waker, thread)
        };
        let ending: Vec<_> = self.0.drain(..).map(wake).collect();
        // A waker that is dropped before the thread has woken wakes nobody.
        for (woken, _waker, thread) in ending {
            if woken {
                let _ = thread.join();
            }
        }
    }
}

/// Watches for what can be read, urgent data included, by the edge.
///
/// # Errors
/// What the kernel says.
pub fn watch(registry: &Registry, socket: &impl AsFd, token: Token) -> io::Result<()> {
    registry.register(
        &mut SourceFd(&socket.as_fd().as_raw_fd()),
        token,
        Interest::READABLE | Interest::PRIORITY,
    )
}

struct Worker {
    index: usize,
    count: usize,
    poll: Poll,
    orders: Receiver<(Arc<Orders>, Sender<()>)>,
    listeners: Slab<Arc<Slot>>,
    bindings: BTreeMap<Binding, usize>,
    connections: Connections,
    flows: Flows,
    chooser: Chooser,
    /// What was cut short to give others their turn.
    again: BTreeSet<Token>,
    /// Nobody is accepted before.
    paused: Option<Instant>,
    /// Sockets at which clients wait for the end of the pause.
    waiting: BTreeSet<usize>,
    /// It was said that descriptors or memory are short.
    short: bool,
    gone: VecDeque<(Arc<ServedPort>, Instant)>,
}

impl Worker {
    fn new(
        index: usize,
        count: usize,
        poll: Poll,
        orders: Receiver<(Arc<Orders>, Sender<()>)>,
        chooser: Chooser,
    ) -> Self {
        Self {
            index,
            count,
            poll,
            orders,
            listeners: Slab::default(),
            bindings: BTreeMap::new(),
            connections: Connections::default(),
            flows: Flows::default(),
            chooser,
            again: BTreeSet::new(),
            paused: None,
            waiting: BTreeSet::new(),
            short: false,
            gone: VecDeque::new(),
        }
    }

    fn run(mut self) {
        let mut events = Events::with_capacity(1024);
        let mut next = None;
        loop {
            let now = Instant::now();
            let timeout = match next {
                _ if !self.again.is_empty() => Some(Duration::ZERO),
                next => next.into_iter().chain(self.paused).min().map(|at: Instant| at - now.min(at)),
            };
            match self.poll.poll(&mut events, timeout) {
                Err(error) if error.kind() != io::ErrorKind::Interrupted => {
                    warn!("a relay thread cannot wait for events: {error}");
                    thread::sleep(PAUSE);
                }
                _ => {}
            }
            let now = Instant::now();
            if !self.turn(&events, now) {
                return self.connections.end_all();
            }
            next = self.expire(now);
        }
    }

    /// Handles events and what was cut short before; false when there will be no more orders.
    fn turn(&mut self, events: &Events, now: Instant) -> bool {
        if self.paused.is_some_and(|until| until <= now) {
            self.paused = None;
            let waiting = std::mem::take(&mut self.waiting);
            self.again.extend(waiting.into_iter().map(|at| token(Kind::Listener, at)));
        }
        // What is open goes on while nobody is accepted.
        let again = std::mem::take(&mut self.again);
        let mut ordered = false;
        for event in events {
            let (kind, at) = names(event.token());
            let more = match kind {
                Kind::Orders => {
                    ordered = true;
                    None
                }
                Kind::Client | Kind::Endpoint => {
                    let (chooser, registry) = (&mut self.chooser, self.poll.registry());
                    self.connections.handle(kind, at, event, chooser, registry, now)
                }
                _ => self.serve(kind, at, now),
            };
            self.again.extend(more);
        }
        for token in again {
            let (kind, at) = names(token);
            let more = match kind {
                Kind::Client | Kind::Endpoint => self.connections.resume(at),
                _ => self.serve(kind, at, now),
            };
            self.again.extend(more);
        }
        !ordered || self.obey()
    }

    /// Serves a socket at which clients wait, or a flow's.
    fn serve(&mut self, kind: Kind, at: usize, now: Instant) -> Option<Token> {
        let (chooser, registry) = (&mut self.chooser, self.poll.registry());
        match kind {
            Kind::Datagrams => self.flows.hear_clients(at, chooser, registry, now),
            Kind::Flow => self.flows.hear_endpoint(at, chooser, registry, now),
            Kind::Listener => {
                let slot = self.listeners.get_mut(at)?;
                let Listening::Tcp(listener) = &slot.socket else { return None };
                if self.paused.is_some() {
                    self.waiting.insert(at);
                    return None;
                }
                match self.connections.accept(listener, slot, chooser, registry, now) {
                    Accepted::All => {
                        self.enough();
                        None
                    }
                    Accepted::TurnOver => Some(token(kind, at)),
                    Accepted::Short(error) => {
                        self.waiting.insert(at);
                        self.too_little(&error, now);
                        None
                    }
                }
            }
            _ => None,
        }
    }

    fn too_little(&mut self, error: &io::Error, now: Instant) {
        self.paused = Some(now + PAUSE);
        if !std::mem::replace(&mut self.short, true) {
            warn!(
                "new connections have to wait: {error}. The limit of open files (ulimit -n, LimitNOFILE) is \
                 what bounds connections: each takes two descriptors, and up to six while it moves much"
            );
        }
    }

    fn enough(&mut self) {
        if std::mem::take(&mut self.short) {
            info!("new connections are accepted again");
        }
    }

    /// Carries out orders; false when there will be no more.
    fn obey(&mut self) -> bool {
        loop {
            match self.orders.try_recv() {
                Ok((orders, done)) => {
                    self.carry_out(&orders);
                    let _ = done.send(());
                }
                Err(TryRecvError::Empty) => return true,
                Err(TryRecvError::Disconnected) => return false,
            }
        }
    }

    fn carry_out(&mut self, orders: &Orders) {
        self.connections.resize(orders.room);
        self.flows.resize(orders.room);
        for binding in &orders.close {
            self.chooser.own.remove(binding);
            let at = self.bindings.remove(binding);
            let slot = at.and_then(|at| {
                self.waiting.remove(&at);
                self.listeners.remove(at)
            });
            if let Some(Listening::Tcp(listener)) = slot.as_ref().map(|slot| &slot.socket) {
                let _ = self.poll.registry().deregister(&mut SourceFd(&listener.as_raw_fd()));
            }
            self.flows.close(*binding);
        }
        for slot in &orders.open {
            self.chooser.own.insert(slot.binding);
            let opened = match &slot.socket {
                Listening::Tcp(listener) => {
                    let at = self.listeners.insert(slot.clone());
                    self.bindings.insert(slot.binding, at);
                    watch(self.poll.registry(), listener, token(Kind::Listener, at))
                }
                Listening::Udp(_) if self.is_ours(slot.binding) => {
                    self.flows.open(slot, self.poll.registry())
                }
                Listening::Udp(_) => Ok(()),
            };
            if let Err(error) = opened {
                warn!("{} is not served: its socket cannot be watched: {error}", slot.binding);
            }
        }
        orders.changed.iter().for_each(|binding| self.flows.review(*binding));
        self.gone.extend(orders.gone.iter().cloned());
    }

    /// UDP sockets are spread over the workers by where they are bound.
    fn is_ours(&self, binding: Binding) -> bool {
        let octets = match binding.at.ip() {
            std::net::IpAddr::V4(address) => address.octets().to_vec(),
            std::net::IpAddr::V6(address) => address.octets().to_vec(),
        };
        let sum =
            octets.iter().map(|octet| usize::from(*octet)).sum::<usize>() + usize::from(binding.at.port());
        sum % self.count == self.index
    }

    /// Looks what has taken too long; returns when to look again.
    fn expire(&mut self, now: Instant) -> Option<Instant> {
        while let Some((port, until)) = self.gone.front().cloned() {
            if until > now {
                break;
            }
            self.gone.pop_front();
            self.connections.end_all_of(&port);
            self.flows.end_all_of(&port);
        }
        let attempts = self.connections.expire(&mut self.chooser, self.poll.registry(), now);
        let gone = self.gone.front().map(|(_, until)| *until);
        [attempts, self.flows.expire(now), gone].into_iter().flatten().min()
    }
}

#[cfg(test)]
mod tests;
