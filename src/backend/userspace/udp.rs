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

use super::limits::Room;
use super::slab::Slab;
use super::slot::{Attempt, Chooser, Listening, ServedPort, Slot};
use super::table::Place;
use super::token::{Kind, token};
use crate::policy::endpoints::Target;

/// `net.netfilter.nf_conntrack_udp_timeout`.
const IDLE: Duration = Duration::from_secs(30);
/// `net.netfilter.nf_conntrack_udp_timeout_stream`.
const IDLE_STREAM: Duration = Duration::from_secs(120);
/// Datagrams handled on one socket before others get their turn.
const TURN: usize = 64;
/// The longest datagram.
const LONGEST: usize = 65_536;

/// All flows of a worker.
#[derive(Debug, Default)]
pub struct Flows {
    frontends: Slab<Frontend>,
    places: HashMap<Place, usize>,
    all: Slab<Flow>,
    /// When to look whether a flow is idle; each flow stands here once, not later than when it ends.
    looks: BinaryHeap<Reverse<(Instant, usize, u64)>>,
    /// Flows so far: tells a flow from a later one in the same place.
    begun: u64,
    /// Most flows at a time.
    most: usize,
    buffer: Vec<u8>,
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
        self.buffer.resize(LONGEST, 0);
        let at = self.frontends.insert(frontend);
        self.places.insert(slot.place, at);
        super::worker::watch(registry, socket, token(Kind::Datagrams, at))
    }

    /// Serves a socket no longer: its flows end.
    pub fn close(&mut self, place: Place) {
        let Some(frontend) = self.places.remove(&place).and_then(|at| self.frontends.remove(at)) else {
            return;
        };
        frontend.by_client.values().for_each(|at| self.forget(*at));
    }

    /// Ends flows of a socket that lead where they may not any longer.
    pub fn review(&mut self, place: Place) {
        let Some(at) = self.places.get(&place).copied() else { return };
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
            let (length, client) = match socket.recv_from(&mut self.buffer) {
                Ok(received) => received,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return None,
                // An answer of ours that could not be delivered: that client is told nothing.
                Err(_) => continue,
            };
            let known = self.frontends.get_mut(at)?.by_client.get(&client).copied();
            let flow = known.or_else(|| self.begin(at, &slot, client, chooser, registry, now));
            if let Some(flow) = flow {
                self.send(flow, length, chooser, registry, now);
            }
        }
        Some(token(Kind::Datagrams, at))
    }

    /// Sends what stands in the buffer to the endpoint of a flow; to another one if it refuses.
    fn send(&mut self, at: usize, length: usize, chooser: &mut Chooser, registry: &Registry, now: Instant) {
        let Some(flow) = self.all.get_mut(at) else { return };
        flow.last = now;
        flow.stream |= flow.answered;
        for _ in 0..2 {
            let Some(flow) = self.all.get_mut(at) else { return };
            match flow.socket.send(&self.buffer[..length]) {
                Ok(sent) => {
                    flow.attempt.serving.port.counters.sent(sent);
                    return;
                }
                // The queue is full, or the datagram too long for the way: lost, as on any other router.
                Err(error) if is_no_refusal(&error) => return,
                Err(_) => self.replace(at, chooser, registry, now),
            }
        }
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
            match flow.socket.recv(&mut self.buffer) {
                Ok(length) => {
                    (flow.last, flow.answered) = (now, true);
                    flow.attempt.serving.port.counters.received(length);
                    let (frontend, client) = (flow.frontend, flow.client);
                    let slot = &self.frontends.get_mut(frontend)?.slot;
                    if let Listening::Udp(socket) = &slot.socket {
                        // Where the client's way is full it is lost, as on any other router.
                        let _ = socket.send_to(&self.buffer[..length], client);
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
        let mut attempt = chooser.admit(slot.serving(), client.ip(), slot.place.at.ip())?;
        let target = chooser.next(&mut attempt, now)?;
        if self.all.len() >= self.most {
            self.end_idlest();
        }
        let socket = match connected(target) {
            Err(error) if matches!(error.raw_os_error(), Some(nix::libc::EMFILE | nix::libc::ENFILE)) => {
                self.end_idlest();
                connected(target)
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
        let Some((target, mut socket)) = other.and_then(|target| Some((target, connected(target).ok()?)))
        else {
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

/// A socket that hears nobody but the endpoint.
fn connected(target: Target) -> io::Result<UdpSocket> {
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
