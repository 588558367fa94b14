//! TCP connections of one worker: from accept over the choice of an endpoint to the end. EDGE.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use mio::event::Event;
use mio::net::{TcpListener, TcpStream};
use mio::{Interest, Registry, Token};
use socket2::SockRef;

use super::limits::Room;
use super::listen::set_keepalive;
use super::proxy_protocol;
use super::relay::{Direction, Moved, Shared, break_off};
use super::slab::Slab;
use super::slot::{Attempt, Chooser, ServedPort, Slot};
use super::token::{Kind, token};

/// How long an endpoint may take to answer: two repeated SYNs fit into it. A connection that is older than this
/// gets its keepalive: most are not, and it takes four system calls.
const PATIENCE: Duration = Duration::from_secs(5);
/// Endpoints that are tried for one connection.
const MOST_ATTEMPTS: usize = 8;
/// Connections accepted on one socket before others get their turn.
const TURN: usize = 16;

/// All connections of a worker.
#[derive(Debug, Default)]
pub struct Connections {
    all: Slab<Connection>,
    /// When [`PATIENCE`] with each attempt to connect ends; in order.
    deadlines: VecDeque<(Instant, usize, u64)>,
    /// Attempts so far: tells an attempt from a later one in the same place.
    attempts: u64,
    /// What connections share.
    shared: Shared,
    /// Most of them at a time.
    most: usize,
}

#[derive(Debug)]
struct Connection {
    client: TcpStream,
    /// Where it called, for the endpoint to be told.
    peers: (SocketAddr, SocketAddr),
    endpoint: Option<TcpStream>,
    attempt: Attempt,
    /// The last attempt to connect.
    number: u64,
    connected: bool,
    up: Direction,
    down: Direction,
}

/// How accepting ended.
#[derive(Debug)]
pub enum Accepted {
    /// Nobody waits any more.
    All,
    /// Others may wait: the turn is over.
    TurnOver,
    /// Descriptors or memory are short.
    Short(io::Error),
}

impl Connections {
    /// How many there may be from now on.
    pub const fn resize(&mut self, room: Room) {
        self.most = room.connections;
        self.shared.most_pipes = room.pipes;
    }

    /// Takes in who waits at a socket.
    pub fn accept(
        &mut self,
        listener: &TcpListener,
        slot: &Slot,
        chooser: &mut Chooser,
        registry: &Registry,
        now: Instant,
    ) -> Accepted {
        for _ in 0..TURN {
            if self.all.len() >= self.most {
                return Accepted::Short(io::Error::from_raw_os_error(nix::libc::EMFILE));
            }
            match listener.accept() {
                Ok((client, peer)) => {
                    let Some(attempt) = chooser.admit(slot.serving(), peer.ip(), slot.binding.at.ip()) else {
                        break_off(&client);
                        continue;
                    };
                    let at = self.all.insert(Connection {
                        client,
                        peers: (peer, slot.binding.at),
                        endpoint: None,
                        attempt,
                        number: 0,
                        connected: false,
                        up: Direction::default(),
                        down: Direction::default(),
                    });
                    self.connect(at, chooser, registry, now);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Accepted::All,
                Err(error) => match error.raw_os_error() {
                    Some(nix::libc::EMFILE | nix::libc::ENFILE | nix::libc::ENOBUFS | nix::libc::ENOMEM) => {
                        return Accepted::Short(error);
                    }
                    // That client is gone already; EINVAL: the socket no longer listens.
                    Some(nix::libc::EINVAL) => return Accepted::All,
                    _ => {}
                },
            }
        }
        Accepted::TurnOver
    }

    /// Tries the next endpoint, and ends the connection when there is none.
    fn connect(&mut self, at: usize, chooser: &mut Chooser, registry: &Registry, now: Instant) {
        let Some(connection) = self.all.get_mut(at) else { return };
        let counters = connection.attempt.serving.port.counters.clone();
        loop {
            let more = connection.attempt.count() < MOST_ATTEMPTS;
            let Some(target) = chooser.next(&mut connection.attempt, now).filter(|_| more) else {
                counters.failed();
                break_off(&connection.client);
                self.all.remove(at);
                return;
            };
            if connection.attempt.count() > 1 {
                counters.retried();
            }
            let to = SocketAddr::new(target.address, target.port.number());
            let Ok(mut endpoint) = TcpStream::connect(to) else { continue };
            let _ = endpoint.set_nodelay(true);
            let interest = Interest::READABLE | Interest::WRITABLE;
            if registry.register(&mut endpoint, token(Kind::Endpoint, at), interest).is_err() {
                continue;
            }
            self.attempts += 1;
            connection.endpoint = Some(endpoint);
            connection.number = self.attempts;
            self.deadlines.push_back((now + PATIENCE, at, self.attempts));
            return;
        }
    }

    /// Something happened on one side. Returns a token to come back to, where a turn was cut short.
    pub fn handle(
        &mut self,
        kind: Kind,
        at: usize,
        event: &Event,
        chooser: &mut Chooser,
        registry: &Registry,
        now: Instant,
    ) -> Option<Token> {
        let connection = self.all.get_mut(at)?;
        let ends = event.is_read_closed() || event.is_error();
        let readable = event.is_readable() || ends;
        let writable = event.is_writable() || event.is_write_closed() || event.is_error();
        let (from, to) = match kind {
            Kind::Client => (&mut connection.up, &connection.down),
            _ => (&mut connection.down, &connection.up),
        };
        // A read stops short of urgent data, too: what stands behind it has come already.
        if ends || event.is_priority() {
            from.expect_end();
        }
        if !connection.connected {
            return if kind == Kind::Endpoint {
                self.attempt_ended(at, readable, chooser, registry, now)
            } else {
                None
            };
        }
        if event.is_error() && from.is_blocked() {
            // Reset by the sender, while the receiver takes nothing.
            self.end(at, true);
            return None;
        }
        let (reads, writes) = (readable && !from.is_blocked(), writable && to.is_blocked());
        let (up, down) = if kind == Kind::Client { (reads, writes) } else { (writes, reads) };
        self.pump(at, up, down)
    }

    /// Goes on where a turn was cut short.
    pub fn resume(&mut self, at: usize) -> Option<Token> {
        self.pump(at, true, true)
    }

    /// Looks what has become of an attempt; `readable` if the endpoint may have said something already.
    fn attempt_ended(
        &mut self,
        at: usize,
        readable: bool,
        chooser: &mut Chooser,
        registry: &Registry,
        now: Instant,
    ) -> Option<Token> {
        let connection = self.all.get_mut(at)?;
        let endpoint = connection.endpoint.as_ref()?;
        if endpoint.peer_addr().is_err() {
            // Without an error: not yet, that was an event of the socket that had this token before.
            if !matches!(endpoint.take_error(), Ok(None)) {
                self.connect(at, chooser, registry, now);
            }
            return None;
        }
        connection.connected = true;
        let serving = &connection.attempt.serving;
        serving.port.counters.begun();
        if serving.forwarding().is_some_and(|forwarding| forwarding.proxy_protocol) {
            let (client, own) = connection.peers;
            connection.up = Direction::beginning_with(proxy_protocol::header(client, own));
        }
        let interest = Interest::READABLE | Interest::WRITABLE;
        if registry.register(&mut connection.client, token(Kind::Client, at), interest).is_err() {
            self.end(at, true);
            return None;
        }
        self.pump(at, true, readable)
    }

    /// Moves bytes in the directions that are asked for.
    fn pump(&mut self, at: usize, up: bool, down: bool) -> Option<Token> {
        // A token may be of an earlier connection with this number: this one may not be connected yet.
        let connection = self.all.get_mut(at).filter(|connection| connection.connected)?;
        let Connection { client, endpoint, up: upwards, down: downwards, attempt, .. } = connection;
        let endpoint = endpoint.as_ref()?;
        let counters = &attempt.serving.port.counters;
        let mut turn_over = false;
        let mut broken = false;
        if up {
            let moved = upwards.pump(client, endpoint, &mut self.shared, downwards.is_finished(), |bytes| {
                counters.sent(bytes);
            });
            turn_over |= matches!(moved, Ok(Moved::TurnOver));
            broken |= moved.is_err();
        }
        if down && !broken {
            let moved = downwards.pump(endpoint, client, &mut self.shared, upwards.is_finished(), |bytes| {
                counters.received(bytes);
            });
            turn_over |= matches!(moved, Ok(Moved::TurnOver));
            broken |= moved.is_err();
        }
        if broken || (upwards.is_finished() && downwards.is_finished()) {
            self.end(at, broken);
            return None;
        }
        turn_over.then(|| token(Kind::Client, at))
    }

    /// Ends a connection, in order or not.
    fn end(&mut self, at: usize, broken: bool) {
        let Some(mut connection) = self.all.remove(at) else { return };
        if broken {
            break_off(&connection.client);
            connection.endpoint.iter().for_each(break_off);
        }
        connection.up.release(&mut self.shared);
        connection.down.release(&mut self.shared);
        if connection.connected {
            connection.attempt.serving.port.counters.ended();
        }
    }

    /// Gives up attempts that have taken too long, and has an eye on connections that last; returns when to look
    /// again.
    pub fn expire(&mut self, chooser: &mut Chooser, registry: &Registry, now: Instant) -> Option<Instant> {
        while let Some((deadline, at, attempt)) = self.deadlines.front().copied() {
            let there = self.all.get_mut(at).filter(|connection| connection.number == attempt);
            if there.is_some() && deadline > now {
                return Some(deadline);
            }
            self.deadlines.pop_front();
            match there {
                Some(Connection { connected: true, endpoint: Some(endpoint), .. }) => {
                    let _ = set_keepalive(&SockRef::from(&*endpoint));
                }
                Some(_) => self.connect(at, chooser, registry, now),
                None => {}
            }
        }
        None
    }

    /// Breaks off what is left of a ServicePort that is gone.
    pub fn end_all_of(&mut self, port: &Arc<ServedPort>) {
        self.end_those(|connection| Arc::ptr_eq(&connection.attempt.serving.port, port));
    }

    /// Breaks everything off.
    pub fn end_all(&mut self) {
        self.end_those(|_| true);
    }

    fn end_those(&mut self, which: impl Fn(&Connection) -> bool) {
        let those = self.all.iter().filter(|(_, connection)| which(connection));
        let those: Vec<usize> = those.map(|(at, _)| at).collect();
        for at in those {
            self.end(at, true);
        }
    }
}
