//! Relays on loopback, with real sockets.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket};

use super::*;
use crate::backend::userspace::counters::{Counters, PortName, Traffic};
use crate::backend::userspace::listen::open;
use crate::backend::userspace::locality::Locality;
use crate::backend::userspace::slot::Serving;
use crate::config::DetectLocal;
use crate::desired::{Row, ServicePortName};
use crate::model::Protocol;
use crate::testing::frontend_row;

/// Nothing here takes that long unless it hangs.
const PATIENCE: Duration = Duration::from_secs(20);
const ROOM: Room = Room { connections: 100, pipes: 100, flows: 100 };

/// One worker that serves one frontend on loopback.
struct Fixture {
    workers: Workers,
    slot: Arc<Slot>,
    port: Arc<ServedPort>,
    counters: Arc<Counters>,
}

impl Fixture {
    fn new(protocol: Protocol, to: &[SocketAddr], room: Room) -> Self {
        let fixture = Self::unwatched(protocol, to);
        let open = vec![fixture.slot.clone()];
        fixture.workers.order(Orders { open, room, ..Orders::default() }).unwrap();
        fixture
    }

    /// One whose socket the worker knows nothing of: the test serves it.
    fn unwatched(protocol: Protocol, to: &[SocketAddr]) -> Self {
        let workers = Workers::start(1, chooser).unwrap();
        let binding = Binding { protocol, at: "127.0.0.1:0".parse().unwrap() };
        let (socket, _) = open(binding, None).unwrap();
        let at = match &socket {
            Listening::Tcp(socket) => socket.local_addr(),
            Listening::Udp(socket) => socket.local_addr(),
        };
        let name = PortName { name: ServicePortName::parse("shop/web:http").unwrap(), protocol };
        let counters = Traffic::default().of(&name);
        let port = Arc::new(ServedPort::new(name, counters.clone()));
        let binding = Binding { protocol, at: at.unwrap() };
        let slot = Arc::new(Slot::new(binding, socket, serving(to, &port, false)));
        Self { workers, slot, port, counters }
    }

    fn tcp(to: &[SocketAddr]) -> Self {
        Self::new(Protocol::Tcp, to, ROOM)
    }

    fn at(&self) -> SocketAddr {
        self.slot.binding.at
    }

    fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.at()).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream
    }

    /// A UDP client of the frontend.
    fn client(&self) -> UdpSocket {
        let client = udp();
        client.connect(self.at()).unwrap();
        client
    }

    fn serve(&self, to: &[SocketAddr], proxy_protocol: bool) {
        self.slot.serve(serving(to, &self.port, proxy_protocol));
        let changed = vec![self.slot.binding];
        self.workers.order(Orders { changed, room: ROOM, ..Orders::default() }).unwrap();
    }
}

fn chooser() -> Chooser {
    Chooser::new(Locality::new(DetectLocal::None, Arc::default()), 100, Arc::default())
}

fn serving(to: &[SocketAddr], port: &Arc<ServedPort>, proxy_protocol: bool) -> Arc<Serving> {
    let to: Vec<String> = to.iter().map(ToString::to_string).collect();
    let Row::Frontend(frontend, mut forwarding) = frontend_row("127.0.0.1:1", &to.join(" ")) else {
        panic!("a frontend")
    };
    forwarding.proxy_protocol = proxy_protocol;
    Arc::new(Serving::new(Row::Frontend(frontend, forwarding).into(), port.clone(), true).unwrap())
}

fn listener() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let at = listener.local_addr().unwrap();
    (listener, at)
}

/// An address on which nobody listens. The socket keeps it for us.
fn nobody() -> (socket2::Socket, SocketAddr) {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
    let at = socket.local_addr().unwrap().as_socket().unwrap();
    (socket, at)
}

/// An endpoint that sends back what it gets, when it has all of it.
fn echo_all() -> SocketAddr {
    let (listener, at) = listener();
    thread::spawn(move || {
        for client in listener.incoming() {
            let mut client = client.unwrap();
            thread::spawn(move || {
                let mut all = Vec::new();
                // A client that breaks off gets nothing back.
                if client.read_to_end(&mut all).is_ok() {
                    let _ = client.write_all(&all);
                }
            });
        }
    });
    at
}

fn pattern(length: usize) -> Vec<u8> {
    (0..length).map(|at| u8::try_from(at * 7 % 251).unwrap()).collect()
}

fn udp() -> UdpSocket {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket
}

fn eventually(holds: impl Fn() -> bool) -> bool {
    let end = Instant::now() + PATIENCE;
    while !holds() {
        if Instant::now() > end {
            return false;
        }
        thread::sleep(Duration::from_millis(1));
    }
    true
}

/// Short ones are copied, long ones go through a pipe; without pipes all are copied.
#[test]
fn one_side_may_finish_before_the_other() {
    let to = [echo_all()];
    for room in [ROOM, Room { pipes: 0, ..ROOM }] {
        let fixture = Fixture::new(Protocol::Tcp, &to, room);
        for length in [0, 1, 60_000, 3_000_000] {
            let mut client = fixture.connect();
            let mut reader = client.try_clone().unwrap();
            let sent = pattern(length);
            let expected = sent.clone();
            let writer = thread::spawn(move || {
                client.write_all(&sent).unwrap();
                client.shutdown(Shutdown::Write).unwrap();
            });
            let mut got = Vec::new();
            reader.read_to_end(&mut got).unwrap();
            writer.join().unwrap();
            assert!(got == expected, "{length} bytes, {room:?}: {} came back", got.len());
        }
        assert!(eventually(|| fixture.counters.active() == 0), "all have ended: {room:?}");
    }
}

#[test]
fn who_does_not_read_holds_the_sender_up() {
    let (listener, at) = listener();
    let fixture = Fixture::tcp(&[at]);
    let mut client = fixture.connect();
    client.set_write_timeout(Some(Duration::from_millis(300))).unwrap();
    let (mut endpoint, _) = listener.accept().unwrap();
    // What the buffers of four sockets and a pipe hold is a few megabytes.
    let chunk = pattern(251 * 1000);
    let mut sent = 0;
    while let Ok(written) = client.write(&chunk[sent % 251..]) {
        sent += written;
        assert!(sent < 256 << 20, "{sent} bytes for somebody who does not read");
    }
    client.shutdown(Shutdown::Write).unwrap();
    let mut got = Vec::new();
    endpoint.read_to_end(&mut got).unwrap();
    assert!(got == pattern(sent), "{} of {sent} bytes arrive, in order", got.len());
}

#[test]
fn an_endpoint_that_refuses_is_replaced() {
    let (_kept, refuses) = nobody();
    let fixture = Fixture::tcp(&[refuses, echo_all()]);
    for round in 0..40 {
        let mut client = fixture.connect();
        client.write_all(b"hello").unwrap();
        client.shutdown(Shutdown::Write).unwrap();
        let mut got = String::new();
        client.read_to_string(&mut got).unwrap();
        assert_eq!(got, "hello", "round {round}");
    }
    // Never in 40 rounds: once in 10^12 runs.
    assert!(fixture.counters.numbers()["retries"] > 0, "{:?}", fixture.counters);
    assert_eq!(fixture.counters.numbers()["failed"], 0);
    fixture.serve(&[refuses], false);
    let error = fixture.connect().read(&mut [0]).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
    assert_eq!(fixture.counters.numbers()["failed"], 1);
}

/// Numbers are used again, and a turn may have been left to the connection that had this one before.
#[test]
fn a_turn_left_over_disturbs_no_attempt() {
    let (_kept, refuses) = nobody();
    let fixture = Fixture::unwatched(Protocol::Tcp, &[refuses]);
    let mut client = fixture.connect();
    client.set_nonblocking(true).unwrap();
    let Listening::Tcp(listener) = &fixture.slot.socket else { panic!("TCP") };
    let (mut connections, mut chooser, poll) = (Connections::default(), chooser(), Poll::new().unwrap());
    connections.resize(ROOM);
    let now = Instant::now();
    connections.accept(listener, &fixture.slot, &mut chooser, poll.registry(), now);
    assert_eq!(connections.resume(0), None);
    let error = client.read(&mut [0]).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::WouldBlock, "it still waits for an endpoint");
    connections.expire(&mut chooser, poll.registry(), now + PATIENCE);
    assert_eq!(fixture.counters.numbers()["failed"], 1, "the attempt has run to its end");
}

/// Anybody may write a slice that names a ClusterIP.
#[test]
fn a_frontend_is_no_endpoint_of_itself() {
    let to = echo_all();
    let fixture = Fixture::tcp(&[to]);
    fixture.serve(&[fixture.at()], false);
    assert_eq!(fixture.connect().read(&mut [0]).unwrap_err().kind(), io::ErrorKind::ConnectionReset);
    fixture.serve(&[fixture.at(), to], false);
    for _ in 0..20 {
        let mut client = fixture.connect();
        client.shutdown(Shutdown::Write).unwrap();
        assert_eq!(client.read(&mut [0]).unwrap(), 0);
    }
}

#[test]
fn who_breaks_off_breaks_the_other_side_off() {
    let (listener, at) = listener();
    let fixture = Fixture::tcp(&[at]);
    let client = fixture.connect();
    let (mut endpoint, _) = listener.accept().unwrap();
    socket2::SockRef::from(&client).set_linger(Some(Duration::ZERO)).unwrap();
    drop(client);
    endpoint.set_read_timeout(Some(PATIENCE)).unwrap();
    assert_eq!(endpoint.read(&mut [0]).unwrap_err().kind(), io::ErrorKind::ConnectionReset);

    let mut client = fixture.connect();
    let (endpoint, _) = listener.accept().unwrap();
    socket2::SockRef::from(&endpoint).set_linger(Some(Duration::ZERO)).unwrap();
    drop(endpoint);
    assert_eq!(client.read(&mut [0]).unwrap_err().kind(), io::ErrorKind::ConnectionReset);
}

/// The same path that `EMFILE` takes: who does not fit in waits, and nobody else is disturbed.
#[test]
fn who_does_not_fit_in_waits() {
    let (listener, at) = listener();
    let fixture = Fixture::new(Protocol::Tcp, &[at], Room { connections: 2, ..ROOM });
    let mut clients: Vec<TcpStream> = (0..3).map(|_| fixture.connect()).collect();
    let mut endpoints: Vec<TcpStream> = (0..2).map(|_| listener.accept().unwrap().0).collect();
    listener.set_nonblocking(true).unwrap();
    thread::sleep(PAUSE * 2);
    assert_eq!(listener.accept().unwrap_err().kind(), io::ErrorKind::WouldBlock, "no third one");
    for (client, endpoint) in clients.iter_mut().zip(&mut endpoints) {
        endpoint.write_all(b"x").unwrap();
        client.read_exact(&mut [0]).unwrap();
    }
    drop((clients.remove(0), endpoints.remove(0)));
    listener.set_nonblocking(false).unwrap();
    let (mut third, _) = listener.accept().unwrap();
    third.write_all(b"x").unwrap();
    clients[1].read_exact(&mut [0]).unwrap();
}

#[test]
fn only_who_would_come_in_waits_while_descriptors_are_short() {
    let (listener, at) = listener();
    let fixture = Fixture::unwatched(Protocol::Tcp, &[at]);
    let (_sender, receiver) = channel();
    let mut worker = Worker::new(0, 1, Poll::new().unwrap(), receiver, chooser());
    let room = Room { connections: 1, ..ROOM };
    worker.carry_out(&Orders { open: vec![fixture.slot.clone()], room, ..Orders::default() });
    let mut clients = [fixture.connect(), fixture.connect()];
    let mut events = Events::with_capacity(16);
    let now = Instant::now();
    // One comes in, the other one has to wait.
    while fixture.counters.active() == 0 || worker.paused.is_none() {
        worker.poll.poll(&mut events, Some(Duration::from_millis(10))).unwrap();
        worker.turn(&events, now);
        assert!(now.elapsed() < PATIENCE, "{:?}", worker.waiting);
    }
    assert_eq!(Vec::from_iter(worker.waiting.clone()), [0]);
    // Many events at a socket are one wait, and no turn.
    for _ in 0..3 {
        assert_eq!(worker.serve(Kind::Listener, 0, now), None);
    }
    assert_eq!((worker.waiting.len(), worker.again.len()), (1, 0));
    // A turn left to the connection is taken within the pause.
    let (mut endpoint, _) = listener.accept().unwrap();
    clients[0].write_all(b"x").unwrap();
    worker.again.insert(token(Kind::Client, 0));
    events.clear();
    worker.turn(&events, now);
    endpoint.set_nonblocking(true).unwrap();
    assert_eq!(endpoint.read(&mut [0]).unwrap(), 1);
    assert!(worker.again.is_empty() && worker.paused.is_some());
    // The pause is over.
    worker.turn(&events, now + PAUSE);
    assert_eq!(Vec::from_iter(worker.waiting.clone()), [0], "it has tried, and waits again");
    assert_eq!(worker.paused, Some(now + PAUSE * 2));
}

#[test]
fn a_closed_socket_refuses_and_its_connections_stay_until_they_may_not() {
    let (listener, at) = listener();
    let fixture = Fixture::tcp(&[at]);
    let mut client = fixture.connect();
    let (mut endpoint, _) = listener.accept().unwrap();
    let at = fixture.at();
    let Fixture { workers, slot, port, .. } = fixture;
    let until = Instant::now() + Duration::from_millis(500);
    let (binding, gone) = (slot.binding, vec![(port, until)]);
    drop(slot);
    workers.order(Orders { close: vec![binding], gone, room: ROOM, ..Orders::default() }).unwrap();
    assert_eq!(TcpStream::connect(at).unwrap_err().kind(), io::ErrorKind::ConnectionRefused);
    endpoint.write_all(b"x").unwrap();
    client.read_exact(&mut [0]).unwrap();
    assert_eq!(client.read(&mut [0]).unwrap_err().kind(), io::ErrorKind::ConnectionReset);
    assert!(Instant::now() >= until, "not before its time");
}

/// Half an answer must not look like a whole one.
#[test]
fn the_end_breaks_connections_off() {
    let (listener, at) = listener();
    let fixture = Fixture::tcp(&[at]);
    let mut client = fixture.connect();
    client.write_all(b"half a request").unwrap();
    let (mut endpoint, _) = listener.accept().unwrap();
    endpoint.read_exact(&mut [0; 14]).unwrap();
    endpoint.write_all(b"half an answer").unwrap();
    client.read_exact(&mut [0; 14]).unwrap();
    drop(fixture);
    for side in [&mut client, &mut endpoint] {
        assert_eq!(side.read(&mut [0]).unwrap_err().kind(), io::ErrorKind::ConnectionReset);
    }
}

#[test]
fn an_endpoint_is_told_who_called() {
    let (listener, at) = listener();
    let fixture = Fixture::tcp(&[at]);
    fixture.serve(&[at], true);
    let mut client = fixture.connect();
    client.write_all(b"hello").unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    let mut got = Vec::new();
    listener.accept().unwrap().0.read_to_end(&mut got).unwrap();
    let mut expected =
        crate::backend::userspace::proxy_protocol::header(client.local_addr().unwrap(), fixture.at());
    expected.extend(b"hello");
    assert_eq!(got, expected);
}

/// Sends a datagram to the frontend and answers it as the endpoint; returns whom the endpoint saw.
fn round_trip(client: &UdpSocket, endpoint: &UdpSocket) -> SocketAddr {
    let mut buffer = [0; 16];
    client.send(b"ping").unwrap();
    let (length, from) = endpoint.recv_from(&mut buffer).unwrap();
    assert_eq!(&buffer[..length], b"ping");
    endpoint.send_to(b"pong", from).unwrap();
    // The client is connected: it hears only the address that it called.
    let length = client.recv(&mut buffer).unwrap();
    assert_eq!(&buffer[..length], b"pong");
    from
}

#[test]
fn a_flow_for_each_client_until_its_endpoint_goes() {
    let [one, two] = [udp(), udp()];
    let [to_one, to_two] = [&one, &two].map(|endpoint| endpoint.local_addr().unwrap());
    let fixture = Fixture::new(Protocol::Udp, &[to_one], ROOM);
    let [a, b] = [fixture.client(), fixture.client()];
    let seen = round_trip(&a, &one);
    assert_eq!(round_trip(&a, &one), seen, "the same flow");
    assert_ne!(round_trip(&b, &one), seen, "another client, another flow");
    fixture.serve(&[to_one, to_two], false);
    assert_eq!(round_trip(&a, &one), seen, "another endpoint disturbs no flow");
    fixture.serve(&[to_two], false);
    round_trip(&a, &two);
    assert_eq!(fixture.counters.active(), 1, "the other flow has ended as well");
}

#[test]
fn a_flow_leaves_an_endpoint_that_refuses() {
    let answers = udp();
    let to = answers.local_addr().unwrap();
    let refuses = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let fixture = Fixture::new(Protocol::Udp, &[refuses], ROOM);
    let client = fixture.client();
    client.send(b"lost").unwrap();
    assert!(eventually(|| fixture.counters.numbers()["failed"] == 1), "{:?}", fixture.counters);
    fixture.serve(&[refuses, to], false);
    client.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
    answers.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
    // A client repeats what is not answered, as resolvers do.
    assert!(eventually(|| {
        client.send(b"ping").unwrap();
        answers.recv(&mut [0; 16]).is_ok()
    }));
}

#[test]
fn the_idlest_flow_makes_room() {
    let endpoint = udp();
    let to = endpoint.local_addr().unwrap();
    let fixture = Fixture::new(Protocol::Udp, &[to], Room { flows: 3, ..ROOM });
    let clients: Vec<UdpSocket> = (0..10).map(|_| fixture.client()).collect();
    for client in &clients {
        round_trip(client, &endpoint);
    }
    assert_eq!(fixture.counters.active(), 3);
    round_trip(&clients[0], &endpoint);
}

#[test]
fn a_flow_that_is_used_is_not_the_idlest() {
    let endpoint = udp();
    let to = endpoint.local_addr().unwrap();
    let fixture = Fixture::new(Protocol::Udp, &[to], Room { flows: 3, ..ROOM });
    let clients: Vec<UdpSocket> = (0..4).map(|_| fixture.client()).collect();
    let seen: Vec<SocketAddr> = clients[..3].iter().map(|client| round_trip(client, &endpoint)).collect();
    assert_eq!(round_trip(&clients[0], &endpoint), seen[0]);
    round_trip(&clients[3], &endpoint);
    assert_eq!(fixture.counters.active(), 3);
    assert_eq!(round_trip(&clients[0], &endpoint), seen[0], "the oldest, but not the idlest");
    assert_eq!(round_trip(&clients[2], &endpoint), seen[2]);
}

#[test]
fn flows_that_have_ended_leave_nothing_to_look_at() {
    let endpoint = udp();
    let to = [endpoint.local_addr().unwrap()];
    let fixture = Fixture::unwatched(Protocol::Udp, &to);
    let (mut flows, mut chooser, poll) = (Flows::default(), chooser(), Poll::new().unwrap());
    flows.resize(ROOM);
    flows.open(&fixture.slot, poll.registry()).unwrap();
    let client = fixture.client();
    for round in 0..50 {
        fixture.slot.serve(serving(&to, &fixture.port, false));
        client.send(b"ping").unwrap();
        flows.hear_clients(0, &mut chooser, poll.registry(), Instant::now());
        assert_eq!(fixture.counters.active(), 1, "round {round}");
        assert!(flows.looks() <= 2, "round {round}: {}", flows.looks());
        fixture.slot.serve(serving(&[], &fixture.port, false));
        flows.review(fixture.slot.binding);
        assert_eq!(fixture.counters.active(), 0, "round {round}");
    }
}

/// Sockets that the test serves by hand: what is sent before a turn comes in one batch.
struct ByHand {
    fixture: Fixture,
    flows: Flows,
    chooser: Chooser,
    poll: Poll,
}

impl ByHand {
    fn new(to: &[SocketAddr]) -> Self {
        let fixture = Fixture::unwatched(Protocol::Udp, to);
        let (mut flows, poll) = (Flows::default(), Poll::new().unwrap());
        flows.resize(ROOM);
        flows.open(&fixture.slot, poll.registry()).unwrap();
        Self { fixture, flows, chooser: chooser(), poll }
    }

    fn hear_clients(&mut self) {
        while self.flows.hear_clients(0, &mut self.chooser, self.poll.registry(), Instant::now()).is_some() {}
    }

    fn hear_endpoints(&mut self) {
        for flow in 0..ROOM.flows {
            while self
                .flows
                .hear_endpoint(flow, &mut self.chooser, self.poll.registry(), Instant::now())
                .is_some()
            {}
        }
    }
}

/// What waits at a socket, with who has sent it.
fn waiting(socket: &UdpSocket) -> Vec<(Vec<u8>, SocketAddr)> {
    socket.set_nonblocking(true).unwrap();
    let mut buffer = vec![0; 65_536];
    std::iter::from_fn(|| {
        socket.recv_from(&mut buffer).ok().map(|(length, from)| (buffer[..length].to_vec(), from))
    })
    .collect()
}

/// Some of these go together, and nobody can tell.
#[test]
fn a_batch_changes_neither_datagrams_nor_their_order() {
    let endpoint = udp();
    let mut by_hand = ByHand::new(&[endpoint.local_addr().unwrap()]);
    let clients: Vec<UdpSocket> = (0..3).map(|_| by_hand.fixture.client()).collect();
    let lengths = [1200, 1200, 1200, 7, 0, 0, 7, 1200, 1200, 2000, 2000, 2000, 1, 30_000];
    for (at, length) in (1..).zip(lengths) {
        for (client, number) in clients.iter().zip(1..) {
            client.send(&vec![at * 8 + number; length]).unwrap();
        }
    }
    by_hand.hear_clients();
    let seen = waiting(&endpoint);
    assert_eq!(seen.len(), lengths.len() * clients.len());
    let mut flows: Vec<SocketAddr> = seen.iter().map(|(_, from)| *from).collect();
    flows.sort_unstable();
    flows.dedup();
    assert_eq!(flows.len(), clients.len(), "one for each client");
    for (datagram, from) in &seen {
        endpoint.send_to(datagram, from).unwrap();
    }
    by_hand.hear_endpoints();
    for (client, number) in clients.iter().zip(1_u8..) {
        // They are connected: they hear only the address that they called.
        let got: Vec<Vec<u8>> = waiting(client).into_iter().map(|(datagram, _)| datagram).collect();
        let sent = (1..).zip(lengths).map(|(at, length)| vec![at * 8 + number; length]);
        assert!(
            got.iter().eq(sent.collect::<Vec<_>>().iter()),
            "client {number}: {:?}",
            got.iter().map(Vec::len)
        );
    }
}

#[test]
fn a_refusal_loses_one_datagram_and_not_the_batch() {
    let answers = udp();
    let refuses = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let mut by_hand = ByHand::new(&[refuses]);
    let [client, other] = [by_hand.fixture.client(), by_hand.fixture.client()];
    client.send(b"lost").unwrap();
    by_hand.hear_clients();
    let to = [answers.local_addr().unwrap()];
    by_hand.fixture.slot.serve(serving(&to, &by_hand.fixture.port, false));
    for number in 1..=3 {
        client.send(&[number]).unwrap();
        other.send(&[number + 10]).unwrap();
    }
    by_hand.hear_clients();
    let got: Vec<u8> = waiting(&answers).iter().map(|(datagram, _)| datagram[0]).collect();
    assert_eq!(got, [2, 3, 11, 12, 13], "the first one has ended a flow that knew no other endpoint");
}
