//! One packet or connection from one place to another, and what became of it. Called from within the namespace
//! of the sender.

use std::io::{BufRead, BufReader, ErrorKind, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use socket2::{Domain, Socket, Type};

/// What became of a probe.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Outcome {
    /// Someone answered, from the address that was called.
    Answered(Answer),
    /// TCP reset, or ICMP port unreachable.
    Refused,
    /// Nothing came back in time.
    Silence,
    /// Anything else, as no route to the host.
    Odd(String),
}

/// What the endpoint said, and what the client knows of itself.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Answer {
    /// The address and port of the endpoint that answered.
    pub endpoint: SocketAddr,
    /// The source that the endpoint saw.
    pub seen: SocketAddr,
    /// The client's own address and port.
    pub own: SocketAddr,
}

/// How long to wait for an answer and how often to try: generous where one is expected, since only failures wait.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    pub wait: Duration,
    pub tries: u32,
}

impl Patience {
    pub const GENEROUS: Self = Self { wait: Duration::from_secs(4), tries: 2 };
    /// Where silence is expected, it has to end some time.
    pub const SHORT: Self = Self { wait: Duration::from_millis(300), tries: 2 };
}

/// Source ports of a lab, each used once: the conntrack entry of an earlier UDP probe from the same port would
/// decide where a later one goes.
pub struct Ports(AtomicU16);

/// Above the NodePorts.
const FIRST_PORT: u16 = 33_000;
const LAST_PORT: u16 = 60_999;

impl Ports {
    pub const fn new() -> Self {
        Self(AtomicU16::new(FIRST_PORT))
    }

    pub fn next(&self) -> u16 {
        let advance = |port| Some(if port == LAST_PORT { FIRST_PORT } else { port + 1 });
        self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, advance).unwrap_or(FIRST_PORT)
    }
}

/// An open TCP connection.
pub struct Connection {
    stream: BufReader<TcpStream>,
}

impl Connection {
    /// # Errors
    /// What became of the attempt instead of an answer.
    pub fn open(
        from: Option<IpAddr>,
        to: SocketAddr,
        ports: &Ports,
        wait: Duration,
    ) -> Result<(Self, Answer), Outcome> {
        let socket = bound(Type::STREAM, from, to, ports);
        // closing sends a reset: no TIME_WAIT on either side that later probes could meet
        socket.set_linger(Some(Duration::ZERO)).expect("SO_LINGER");
        socket.connect_timeout(&to.into(), wait).map_err(|error| outcome_of(&error))?;
        let stream = TcpStream::from(socket);
        stream.set_read_timeout(Some(wait)).expect("SO_RCVTIMEO");
        let mut connection = Self { stream: BufReader::new(stream) };
        let answer = connection.hear()?;
        Ok((connection, answer))
    }

    /// Sends something and hears who answers.
    ///
    /// # Errors
    /// What came instead of an answer.
    pub fn ask(&mut self) -> Result<Answer, Outcome> {
        self.stream.get_mut().write_all(b"?").map_err(|error| outcome_of(&error))?;
        self.hear()
    }

    fn hear(&mut self) -> Result<Answer, Outcome> {
        let mut line = String::new();
        self.stream.read_line(&mut line).map_err(|error| outcome_of(&error))?;
        let own = self.stream.get_ref().local_addr().map_err(|error| outcome_of(&error))?;
        parse(&line, own)
    }
}

/// A UDP flow: one source port, so one conntrack entry.
pub struct Exchange {
    socket: UdpSocket,
}

impl Exchange {
    pub fn open(from: Option<IpAddr>, to: SocketAddr, ports: &Ports) -> std::io::Result<Self> {
        let socket = UdpSocket::from(bound(Type::DGRAM, from, to, ports));
        // connected: only answers from the address that was called are heard
        socket.connect(to)?;
        Ok(Self { socket })
    }

    pub fn ask(&self, patience: Patience) -> Outcome {
        self.socket.set_read_timeout(Some(patience.wait)).expect("SO_RCVTIMEO");
        for _ in 0..patience.tries {
            match self.ask_once() {
                Outcome::Silence => {}
                outcome => return outcome,
            }
        }
        Outcome::Silence
    }

    fn ask_once(&self) -> Outcome {
        let mut buffer = [0; 256];
        let length = match send_unless_vetoed(&self.socket, b"?").and_then(|()| self.socket.recv(&mut buffer))
        {
            Ok(length) => length,
            Err(error) => return outcome_of(&error),
        };
        let own = self.socket.local_addr().expect("the address of a connected socket");
        match parse(&String::from_utf8_lossy(&buffer[..length]), own) {
            Ok(answer) => Outcome::Answered(answer),
            Err(outcome) => outcome,
        }
    }
}

/// One TCP connection, closed again.
pub fn tcp(from: Option<IpAddr>, to: SocketAddr, ports: &Ports, patience: Patience) -> Outcome {
    for _ in 0..patience.tries {
        match Connection::open(from, to, ports, patience.wait) {
            Ok((_, answer)) => return Outcome::Answered(answer),
            Err(Outcome::Silence) => {}
            Err(outcome) => return outcome,
        }
    }
    Outcome::Silence
}

/// One UDP flow of a single packet.
pub fn udp(from: Option<IpAddr>, to: SocketAddr, ports: &Ports, patience: Patience) -> Outcome {
    match Exchange::open(from, to, ports) {
        Ok(exchange) => exchange.ask(patience),
        Err(error) => outcome_of(&error),
    }
}

/// The node's own send fails with EPERM when an output chain drops or rejects the packet; which of both it was shows
/// only afterwards.
pub fn send_unless_vetoed(socket: &UdpSocket, bytes: &[u8]) -> std::io::Result<()> {
    match socket.send(bytes) {
        Err(error) if error.kind() != ErrorKind::PermissionDenied => Err(error),
        _ => Ok(()),
    }
}

/// A socket with a source port of its own; `from: None` leaves the choice of the address to the kernel.
fn bound(kind: Type, from: Option<IpAddr>, to: SocketAddr, ports: &Ports) -> Socket {
    let from = from.unwrap_or(match to {
        SocketAddr::V4(_) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        SocketAddr::V6(_) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
    });
    let socket = Socket::new(Domain::for_address(to), kind, None).expect("a socket");
    for _ in 0..1000 {
        match socket.bind(&SocketAddr::new(from, ports.next()).into()) {
            Ok(()) => return socket,
            Err(error) if error.kind() == ErrorKind::AddrInUse => {}
            Err(error) => panic!("bind to {from}: {error}"),
        }
    }
    panic!("no free source port on {from}")
}

fn parse(line: &str, own: SocketAddr) -> Result<Answer, Outcome> {
    let odd = || Outcome::Odd(format!("answer {line:?}"));
    let (endpoint, seen) = line.trim().split_once(' ').ok_or_else(odd)?;
    let endpoint = endpoint.parse().map_err(|_| odd())?;
    let seen = seen.parse().map_err(|_| odd())?;
    Ok(Answer { endpoint, seen, own })
}

pub fn outcome_of(error: &std::io::Error) -> Outcome {
    match error.kind() {
        ErrorKind::ConnectionRefused => Outcome::Refused,
        ErrorKind::TimedOut | ErrorKind::WouldBlock => Outcome::Silence,
        _ => Outcome::Odd(error.to_string()),
    }
}
