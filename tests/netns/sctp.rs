//! SCTP without an SCTP stack: raw sockets that send INIT and answer INIT ACK.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use socket2::{Domain, Protocol, Socket, Type};

use super::probe::{Answer, Outcome, Patience, Ports, outcome_of, send_unless_vetoed};

const INIT: u8 = 1;
const INIT_ACK: u8 = 2;
/// Common header, INIT chunk, and in an INIT ACK the state cookie.
const INIT_LENGTH: usize = 32;

/// What the servers of a lab saw, by the initiate tag of the INIT: (endpoint, source).
pub type Seen = Arc<Mutex<HashMap<u32, (SocketAddr, SocketAddr)>>>;

/// Every probe has a tag of its own.
static NEXT_TAG: AtomicU32 = AtomicU32::new(1);

/// Answers on every port of one address.
pub struct SctpServer {
    socket: UdpSocket,
    own: IpAddr,
    seen: Seen,
}

impl SctpServer {
    pub fn bind(own: IpAddr, seen: Seen) -> std::io::Result<Self> {
        let socket = raw(own)?;
        socket.set_nonblocking(true)?;
        Ok(Self { socket, own, seen })
    }

    pub fn serve(&mut self) {
        let mut buffer = [0; 512];
        while let Ok((length, peer)) = self.socket.recv_from(&mut buffer) {
            let Some(init) = Packet::parse(payload(&buffer[..length], peer.ip())) else { continue };
            if init.kind != INIT {
                continue;
            }
            let own = SocketAddr::new(self.own, init.to);
            let client = SocketAddr::new(peer.ip(), init.from);
            self.seen.lock().expect("no panic in the responder").insert(init.tag, (own, client));
            let answer =
                Packet { from: init.to, to: init.from, peer_tag: init.tag, kind: INIT_ACK, tag: !init.tag };
            let _ = self.socket.send_to(&answer.bytes(), SocketAddr::new(peer.ip(), 0));
        }
    }
}

impl AsFd for SctpServer {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// One INIT from a new port, and what became of it.
pub fn probe(
    from: Option<IpAddr>,
    to: SocketAddr,
    ports: &Ports,
    patience: Patience,
    seen: &Seen,
) -> Outcome {
    match try_probe(from, to, ports, patience, seen) {
        Ok(outcome) => outcome,
        Err(error) => outcome_of(&error),
    }
}

fn try_probe(
    from: Option<IpAddr>,
    to: SocketAddr,
    ports: &Ports,
    patience: Patience,
    seen: &Seen,
) -> std::io::Result<Outcome> {
    let unspecified = if to.is_ipv4() { "0.0.0.0" } else { "::" }.parse().expect("an address");
    let socket = raw(from.unwrap_or(unspecified))?;
    socket.connect(SocketAddr::new(to.ip(), 0))?;
    let own = SocketAddr::new(socket.local_addr()?.ip(), ports.next());
    let tag = NEXT_TAG.fetch_add(1, Ordering::Relaxed);
    let init = Packet { from: own.port(), to: to.port(), peer_tag: 0, kind: INIT, tag };
    for _ in 0..patience.tries {
        send_unless_vetoed(&socket, &init.bytes())?;
        match hear(&socket, to, tag, patience) {
            Err(error) if outcome_of(&error) == Outcome::Silence => {}
            Err(error) => return Err(error),
            Ok(()) => {
                let place = seen.lock().expect("no panic in the responder").get(&tag).copied();
                let (endpoint, seen) = place.expect("who answers has noted it");
                return Ok(Outcome::Answered(Answer { endpoint, seen, own }));
            }
        }
    }
    Ok(Outcome::Silence)
}

/// Waits for the INIT ACK to our tag, from the address and port that were called.
fn hear(socket: &UdpSocket, to: SocketAddr, tag: u32, patience: Patience) -> std::io::Result<()> {
    let deadline = Instant::now() + patience.wait;
    let mut buffer = [0; 512];
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(std::io::ErrorKind::TimedOut.into());
        }
        socket.set_read_timeout(Some(left))?;
        let length = socket.recv(&mut buffer)?;
        let packet = Packet::parse(payload(&buffer[..length], to.ip()));
        if packet.is_some_and(|packet| {
            packet.kind == INIT_ACK && packet.peer_tag == tag && packet.from == to.port()
        }) {
            return Ok(());
        }
    }
}

/// A raw socket in the clothes of a UDP socket, for its safe `recv_from`.
fn raw(own: IpAddr) -> std::io::Result<UdpSocket> {
    let own = SocketAddr::new(own, 0);
    let socket = Socket::new(Domain::for_address(own), Type::RAW, Some(Protocol::SCTP))?;
    socket.bind(&own.into())?;
    Ok(UdpSocket::from(socket))
}

/// IPv4 raw sockets deliver the IP header too.
fn payload(packet: &[u8], peer: IpAddr) -> &[u8] {
    let header =
        if peer.is_ipv4() { usize::from(packet.first().map_or(0, |byte| byte & 0xf)) * 4 } else { 0 };
    packet.get(header..).unwrap_or_default()
}

/// The fields in use of an SCTP packet with an INIT or INIT ACK chunk (RFC 9260, 3.3.2).
struct Packet {
    from: u16,
    to: u16,
    /// The verification tag: the initiate tag of the receiver.
    peer_tag: u32,
    kind: u8,
    /// The initiate tag of the sender.
    tag: u32,
}

impl Packet {
    fn parse(bytes: &[u8]) -> Option<Self> {
        let word = |at: usize| bytes.get(at..at + 4)?.try_into().ok().map(u32::from_be_bytes);
        let half = |at: usize| bytes.get(at..at + 2)?.try_into().ok().map(u16::from_be_bytes);
        let kind = *bytes.get(12)?;
        Some(Self { from: half(0)?, to: half(2)?, peer_tag: word(4)?, kind, tag: word(16)? })
    }

    fn bytes(&self) -> Vec<u8> {
        let cookie: &[u8] = if self.kind == INIT_ACK { &[0, 7, 0, 8, 1, 2, 3, 4] } else { &[] };
        let chunk_length = u16::try_from(INIT_LENGTH - 12 + cookie.len()).expect("a small chunk");
        let mut bytes = Vec::with_capacity(INIT_LENGTH + cookie.len());
        bytes.extend(self.from.to_be_bytes());
        bytes.extend(self.to.to_be_bytes());
        bytes.extend(self.peer_tag.to_be_bytes());
        bytes.extend([0; 4]);
        bytes.extend([self.kind, 0]);
        bytes.extend(chunk_length.to_be_bytes());
        bytes.extend(self.tag.to_be_bytes());
        bytes.extend(65_536_u32.to_be_bytes());
        bytes.extend([0, 1, 0, 1]);
        bytes.extend(self.tag.to_be_bytes());
        bytes.extend(cookie);
        let checksum = crc32c(&bytes).to_le_bytes();
        bytes[8..12].copy_from_slice(&checksum);
        bytes
    }
}

/// CRC-32C, reflected, as SCTP wants it; conntrack ignores packets where it is wrong.
fn crc32c(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc: u32, _| (crc >> 1) ^ (0x82f6_3b78 * (crc & 1)))
    })
}
