//! What the main thread and the workers share: open sockets, and what is served on each. EDGE.

use std::collections::HashSet;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use mio::net::{TcpListener, UdpSocket};

use super::choose::{Dice, Memory, Origin, list, pick};
use super::counters::{Counters, PortName};
use super::locality::Locality;
use super::table::Binding;
use crate::desired::{Forwarding, Row};
use crate::diff::RowRef;
use crate::model::TrafficPolicy;
use crate::policy::endpoints::Target;

/// An open socket. It closes when the last worker has let go of it.
#[derive(Debug)]
pub struct Slot {
    /// Where it is bound.
    pub binding: Binding,
    /// The socket.
    pub socket: Listening,
    serving: Mutex<Arc<Serving>>,
}

/// A socket that clients talk to, by its protocol.
#[derive(Debug)]
pub enum Listening {
    /// Accepts connections.
    Tcp(TcpListener),
    /// Takes datagrams.
    Udp(UdpSocket),
}

/// What is served on a socket.
#[derive(Debug)]
pub struct Serving {
    /// A row of kind [`Row::Frontend`].
    row: RowRef,
    /// The ServicePort.
    pub port: Arc<ServedPort>,
    /// The kernel keeps out who may not call.
    pub filtered: bool,
}

/// A ServicePort that is served: what its frontends share.
#[derive(Debug)]
pub struct ServedPort {
    /// Its name.
    pub name: PortName,
    /// What is counted.
    pub counters: Arc<Counters>,
    cluster: Mutex<Memory>,
    local: Mutex<Memory>,
}

impl ServedPort {
    /// A ServicePort that nobody has called yet.
    #[must_use]
    pub fn new(name: PortName, counters: Arc<Counters>) -> Self {
        Self { name, counters, cluster: Mutex::default(), local: Mutex::default() }
    }
}

impl Slot {
    /// A socket and what is served on it.
    #[must_use]
    pub const fn new(binding: Binding, socket: Listening, serving: Arc<Serving>) -> Self {
        Self { binding, socket, serving: Mutex::new(serving) }
    }

    /// What is served now.
    #[must_use]
    pub fn serving(&self) -> Arc<Serving> {
        self.lock().clone()
    }

    /// Serves something else from now on.
    pub fn serve(&self, serving: Arc<Serving>) {
        *self.lock() = serving;
    }

    fn lock(&self) -> MutexGuard<'_, Arc<Serving>> {
        self.serving.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Serving {
    /// What is served by a row; `None` where that is no frontend.
    #[must_use]
    pub fn new(row: RowRef, port: Arc<ServedPort>, filtered: bool) -> Option<Self> {
        matches!(&*row, Row::Frontend(..)).then_some(Self { row, port, filtered })
    }

    /// Where connections go.
    #[must_use]
    pub fn forwarding(&self) -> Option<&Forwarding> {
        match &*self.row {
            Row::Frontend(_, forwarding) => Some(forwarding),
            _ => None,
        }
    }

    /// Whether a flow that began with this target may go on.
    #[must_use]
    pub fn still_leads_to(&self, target: Target) -> bool {
        let Some(forwarding) = self.forwarding() else { return false };
        let outside = forwarding.from_outside.iter();
        let mut all = outside.chain([&forwarding.to]).flat_map(|choice| choice.targets().iter());
        all.any(|other| other.address == target.address && other.port == target.port)
    }
}

/// What a worker needs to choose endpoints.
#[derive(Debug)]
pub struct Chooser {
    dice: Dice,
    locality: Locality,
    /// Where we listen ourselves: an endpoint there would call us, and we again, until descriptors end.
    pub own: HashSet<Binding>,
    /// Most clients that one [`Memory`] remembers.
    most_clients: usize,
    not_remembered: NotRemembered,
}

/// Clients that should have been remembered and were not, for IPv4 and IPv6.
pub type NotRemembered = Arc<[AtomicU64; 2]>;

/// One client's way through the endpoints of a frontend.
#[derive(Debug)]
pub struct Attempt {
    /// What was served when the client came.
    pub serving: Arc<Serving>,
    client: IpAddr,
    origin: Origin,
    tried: Vec<Target>,
}

impl Chooser {
    /// A chooser.
    #[must_use]
    pub fn new(locality: Locality, most_clients: usize, not_remembered: NotRemembered) -> Self {
        Self { dice: Dice::new(), locality, own: HashSet::new(), most_clients, not_remembered }
    }

    /// Looks at a client that has called; `None` where it may not. `own` is the address that it called.
    #[must_use]
    pub fn admit(&mut self, serving: Arc<Serving>, client: IpAddr, own: IpAddr) -> Option<Attempt> {
        let forwarding = serving.forwarding()?;
        let admitted = serving.filtered
            || forwarding.allowed_sources.iter().all(|nets| nets.iter().any(|net| net.contains(&client)));
        let origin = match forwarding.from_outside {
            Some(_) => self.locality.origin(client, own),
            None => Origin::Outside,
        };
        admitted.then_some(Attempt { serving, client, origin, tried: Vec::new() })
    }

    /// The next endpoint for a client; `None` when there is none left.
    #[must_use]
    pub fn next(&mut self, attempt: &mut Attempt, now: Instant) -> Option<Target> {
        let protocol = attempt.serving.port.name.protocol;
        loop {
            let target = self.draw(attempt, now)?;
            let at = SocketAddr::new(target.address, target.port.number());
            if !self.own.contains(&Binding { protocol, at }) {
                return Some(target);
            }
        }
    }

    /// One that was not tried yet; it counts as tried.
    fn draw(&mut self, attempt: &mut Attempt, now: Instant) -> Option<Target> {
        let serving = attempt.serving.clone();
        let forwarding = serving.forwarding()?;
        let (choice, name) = list(forwarding, attempt.origin);
        let Some(affinity) = forwarding.affinity else {
            let target = pick(choice.targets(), &attempt.tried, &mut self.dice)?;
            attempt.tried.push(target);
            return Some(target);
        };
        let memory = match name {
            TrafficPolicy::Cluster => &serving.port.cluster,
            TrafficPolicy::Local => &serving.port.local,
        };
        let mut memory = memory.lock().unwrap_or_else(PoisonError::into_inner);
        let timeout = Duration::from_secs(affinity.seconds.into());
        let known = memory.recall(attempt.client, choice.targets(), timeout, now);
        let target = match known.filter(|target| !attempt.tried.contains(target)) {
            Some(target) => target,
            None => pick(choice.targets(), &attempt.tried, &mut self.dice)?,
        };
        if !memory.remember(attempt.client, target, timeout, self.most_clients, now) {
            let [four, six] = &*self.not_remembered;
            let count = if attempt.client.is_ipv4() { four } else { six };
            count.fetch_add(1, Ordering::Relaxed);
        }
        attempt.tried.push(target);
        Some(target)
    }
}

impl Attempt {
    /// How many endpoints were tried.
    #[must_use]
    pub fn count(&self) -> usize {
        self.tried.len()
    }
}
