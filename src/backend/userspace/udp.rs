//! UDP flows of one worker: one for each client of a frontend, each with a socket to its endpoint. EDGE.
//!
//! Answers leave by the frontend's socket, so they come from the address that the client called. A flow
//! ends when it has been idle for as long as conntrack would keep it: 30 s, and 120 s once both sides
//! have spoken and the client again.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use mio::net::UdpSocket;
use mio::{Interest, Registry, Token};

use super::batch::{AT_ONCE, Batch};
use super::limits::Room;
use super::slab::Slab;
use super::slot::{Attempt, Chooser, Listening, ServedPort, Slot};
use super::table::Binding;
use super::token::{Kind, token};
use crate::policy::endpoints::Target;

/// `net.netfilter.nf_conntrack_udp_timeout`.
const IDLE: Duration = Duration::from_secs(30);
/// `net.netfilter.nf_conntrack_udp_timeout_stream`.
const IDLE_STREAM: Duration = Duration::from_secs(120);
/// Batches handled on one socket before others get their turn.
const TURN: usize = 2;

/// All flows of a worker.
#[derive(Debug, Default)]
pub struct Flows {
    frontends: Slab<Frontend>,
    bindings: HashMap<Binding, usize>,
    all: Slab<Flow>,
    /// When to look whether a flow is idle; each flow stands here once, not later than when it ends.
    looks: BinaryHeap<Reverse<(Instant, usize, u64)>>,
    /// Flows so far: tells a flow from a later one in the same place.
    begun: u64,
    /// Most flows at a time.
    most: usize,
    batch: Batch,
}

#[derive(Debug)]
struct Frontend {
    slot: Arc<Slot>,
    by_client: HashMap<SocketAddr, usize>,
}

#[derive(Debug)]
struct Flow {
    number: u64,
    frontend: usize,
    client: SocketAddr,
    socket: UdpSocket,
    target: Target,
    attempt: Attempt,
    last: Instant,
    answered: bool,
    /// The client has spoken after an answer.
    stream: bool,
}

impl Flow {
    fn ends(&self) -> Instant {
        self.last + if self.stream { IDLE_STREAM } else { IDLE }
    }
}

impl Flows {
    /// How many there may be from now on.
    pub const fn resize(&mut self, room: Room) {
        self.most = room.flows;
    }

    /// Serves a socket.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn open(&mut self, slot: &Arc<Slot>, registry: &Registry) -> io::Result<()> {
        let Listening::Udp(socket) = &slot.socket else { return Ok(()) };
        let frontend = Frontend { slot: slot.clone(), by_client: HashMap::new() };
        let at = self.frontends.insert(frontend);
        self.bindings.insert(slot.binding, at);
        super::worker::watch(registry, socket, token(Kind::Datagrams, at))
    }

    /// Serves a socket no longer: its flows end.
    pub fn close(&mut self, binding: Binding) {
        let Some(frontend) = self.bindings.remove(&binding).and_then(|at| self.frontends.remove(at)) else {
            return;
        };
        frontend.by_client.values().for_each(|at| self.forget(*at));
    }

    /// Ends flows of a socket that lead where they may not any longer.
    pub fn review(&mut self, binding: Binding) {
        let Some(at) = self.bindings.get(&binding).copied() else { return };
        let Some(frontend) = self.frontends.get_mut(at) else { return };
        let serving = frontend.slot.serving();
        let mut stale: Vec<usize> = frontend.by_client.values().copied().collect();
        stale.retain(|at| self.all.get_mut(*at).is_none_or(|flow| !serving.still_leads_to(flow.target)));
        for at in stale {
            self.end(at);
        }
    }

    /// Ends what is left of a ServicePort that is gone.
    pub fn end_all_of(&mut self, port: &Arc<ServedPort>) {
        let of_port = |flow: &Flow| Arc::ptr_eq(&flow.attempt.serving.port, port);
        let ends: Vec<usize> = self.all.iter().filter(|(_, flow)| of_port(flow)).map(|(at, _)| at).collect();
        for at in ends {
            self.end(at);
        }
    }

    /// Takes datagrams from clients. Returns a token to come back to, where the turn was cut short.
    pub fn hear_clients(
        &mut self,
        at: usize,
        chooser: &mut Chooser,
        registry: &Registry,
        now: Instant,
    ) -> Option<Token> {
        let slot = self.frontends.get_mut(at)?.slot.clone();
        let Listening::Udp(socket) = &slot.socket else { return None };
        for _ in 0..TURN {
            let count = match self.batch.receive(socket, slot.binding.at.is_ipv4()) {
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return None,
                // An answer of ours that could not be delivered: that client is told nothing.
                Err(_) => continue,
            };
            for (client, datagrams) in self.batch.by_sender() {
                let mut rest = &datagrams[..];
                while !rest.is_empty() {
                    let known = self.frontends.get_mut(at)?.by_client.get(&client).copied();
                    let flow = known.or_else(|| self.begin(at, &slot, client, chooser, registry, now));
                    let Some(flow) = flow else { break };
                    rest = &rest[self.send(flow, rest, chooser, registry, now)..];
                }
            }
            if count < AT_ONCE {
                return None;
            }
        }
        Some(token(Kind::Datagrams, at))
    }

    /// Sends datagrams of the batch to the endpoint of a flow; to another one if it refuses. Returns how many are
    /// gone, one way or another: fewer than all of them if the flow has ended.
    fn send(
        &mut self,
        at: usize,
        datagrams: &[usize],
        chooser: &mut Chooser,
        registry: &Registry,
        now: Instant,
    ) -> usize {
        let mut gone = 0;
        if let Some(flow) = self.all.get_mut(at) {
            flow.last = now;
            flow.stream |= flow.answered;
        }
        while gone < datagrams.len() {
            let Some(flow) = self.all.get_mut(at) else { return gone + 1 };
            match self.batch.send(&flow.socket, &datagrams[gone..], None) {
                Ok((count, bytes)) => {
                    flow.attempt.serving.port.counters.sent(bytes);
                    gone += count;
                }
                // The queue is full, or the datagram too long for the way: lost, as on any other router.
                Err(error) if is_no_refusal(&error) => gone += 1,
                // Each endpoint is tried once, so this comes to an end.
                Err(_) => self.replace(at, chooser, registry, now),
            }
        }
        gone
    }

    /// Takes datagrams from the endpoint of a flow. Returns a token as above.
    pub fn hear_endpoint(
        &mut self,
        at: usize,
        chooser: &mut Chooser,
        registry: &Registry,
        now: Instant,
    ) -> Option<Token> {
        for _ in 0..TURN {
            let flow = self.all.get_mut(at)?;
            match self.batch.receive(&flow.socket, flow.target.address.is_ipv4()) {
                Ok(count) => {
                    (flow.last, flow.answered) = (now, true);
                    let slot = &self.frontends.get_mut(flow.frontend)?.slot;
                    answer(&self.batch, count, slot, flow);
                    if count < AT_ONCE {
                        return None;
                    }
                }
                Err(error) if is_no_refusal(&error) => return None,
                Err(_) => {
                    // The client sends again, as it must over UDP, and gets another endpoint.
                    self.replace(at, chooser, registry, now);
                    return None;
                }
            }
        }
        Some(token(Kind::Flow, at))
    }

    /// Begins a flow; `None` where nobody answers this client.
    fn begin(
        &mut self,
        frontend: usize,
        slot: &Slot,
        client: SocketAddr,
        chooser: &mut Chooser,
        registry: &Registry,
        now: Instant,
    ) -> Option<usize> {
        let mut attempt = chooser.admit(slot.serving(), client.ip(), slot.binding.at.ip())?;
        let target = chooser.next(&mut attempt, now)?;
        if self.all.len() >= self.most {
            self.end_idlest();
        }
        let socket = match dial(target) {
            Err(error) if matches!(error.raw_os_error(), Some(nix::libc::EMFILE | nix::libc::ENFILE)) => {
                self.end_idlest();
                dial(target)
            }
            result => result,
        }
        .ok()?;
        self.begun += 1;
        let counters = attempt.serving.port.counters.clone();
        let flow = Flow {
            number: self.begun,
            frontend,
            client,
            socket,
            target,
            attempt,
            last: now,
            answered: false,
            stream: false,
        };
        let ends = flow.ends();
        let at = self.all.insert(flow);
        self.looks.push(Reverse((ends, at, self.begun)));
        self.tidy();
        self.frontends.get_mut(frontend)?.by_client.insert(client, at);
        counters.begun();
        let flow = self.all.get_mut(at)?;
        if registry.register(&mut flow.socket, token(Kind::Flow, at), Interest::READABLE).is_err() {
            self.end(at);
            return None;
        }
        Some(at)
    }

    /// Gives a flow another endpoint, or ends it where there is no other.
    fn replace(&mut self, at: usize, chooser: &mut Chooser, registry: &Registry, now: Instant) {
        let Some(flow) = self.all.get_mut(at) else { return };
        let other = chooser.next(&mut flow.attempt, now);
        let Some((target, mut socket)) = other.and_then(|target| Some((target, dial(target).ok()?))) else {
            flow.attempt.serving.port.counters.failed();
            self.end(at);
            return;
        };
        flow.attempt.serving.port.counters.retried();
        let watched = registry.register(&mut socket, token(Kind::Flow, at), Interest::READABLE);
        (flow.target, flow.socket) = (target, socket);
        if watched.is_err() {
            self.end(at);
        }
    }

    /// How many looks are noted.
    #[cfg(test)]
    pub fn looks(&self) -> usize {
        self.looks.len()
    }

    /// Ends the flow that would be the next to end.
    fn end_idlest(&mut self) {
        while let Some(Reverse((look, at, number))) = self.looks.pop() {
            let Some(flow) = self.all.get_mut(at).filter(|flow| flow.number == number) else { continue };
            let ends = flow.ends();
            if ends <= look {
                return self.end(at);
            }
            // Something has come since.
            self.looks.push(Reverse((ends, at, number)));
        }
    }

    /// Forgets flows that have ended before their time where they are more than those that there are.
    fn tidy(&mut self) {
        if self.looks.len() > self.all.len() * 2 {
            let all = &mut self.all;
            self.looks.retain(|Reverse((_, at, number))| {
                all.get_mut(*at).is_some_and(|flow| flow.number == *number)
            });
        }
    }

    /// Ends a flow.
    fn end(&mut self, at: usize) {
        let Some(flow) = self.all.get_mut(at) else { return };
        let (frontend, client) = (flow.frontend, flow.client);
        if let Some(frontend) = self.frontends.get_mut(frontend) {
            frontend.by_client.remove(&client);
        }
        self.forget(at);
    }

    fn forget(&mut self, at: usize) {
        if let Some(flow) = self.all.remove(at) {
            flow.attempt.serving.port.counters.ended();
        }
    }

    /// Ends flows that have been idle for too long; returns when to look again.
    pub fn expire(&mut self, now: Instant) -> Option<Instant> {
        while let Some(Reverse((look, at, number))) = self.looks.peek().copied() {
            if look > now {
                return Some(look);
            }
            self.looks.pop();
            let Some(flow) = self.all.get_mut(at).filter(|flow| flow.number == number) else { continue };
            let ends = flow.ends();
            if ends <= now {
                self.end(at);
            } else {
                self.looks.push(Reverse((ends, at, number)));
            }
        }
        None
    }
}

/// Sends a whole batch to the client of a flow.
fn answer(batch: &Batch, count: usize, slot: &Slot, flow: &Flow) {
    let Listening::Udp(socket) = &slot.socket else { return };
    let datagrams: Vec<usize> = (0..count).collect();
    let mut rest = &datagrams[..];
    while !rest.is_empty() {
        // Where the client's way is full one is lost, as on any other router.
        let (count, bytes) = batch.send(socket, rest, Some(flow.client)).unwrap_or((1, 0));
        flow.attempt.serving.port.counters.received(bytes);
        rest = &rest[count..];
    }
}

/// A socket that hears nobody but the endpoint.
fn dial(target: Target) -> io::Result<UdpSocket> {
    let any: SocketAddr = match target.address {
        std::net::IpAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        std::net::IpAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    let socket = UdpSocket::bind(any)?;
    socket.connect(SocketAddr::new(target.address, target.port.number()))?;
    Ok(socket)
}

/// Whether an error says nothing about the endpoint.
fn is_no_refusal(error: &io::Error) -> bool {
    use nix::libc::{EMSGSIZE, ENOBUFS, ENOMEM, EPERM};
    error.kind() == io::ErrorKind::WouldBlock
        || matches!(error.raw_os_error(), Some(EMSGSIZE | ENOBUFS | ENOMEM | EPERM))
}
