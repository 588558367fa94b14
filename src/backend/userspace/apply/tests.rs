//! A NodePort on loopback, which needs neither a route nor a right.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::thread::sleep;

use super::*;
use crate::backend::userspace::filter::NOBODY;
use crate::desired::Choice;
use crate::diff::{Change, RowRef};
use crate::testing::{frontend_row, name};

const DRAIN: Duration = Duration::from_millis(200);
/// Nothing here takes that long unless it hangs.
const PATIENCE: Duration = Duration::from_secs(20);

/// The userspace mode with one NodePort, and an endpoint.
struct Fixture {
    mode: Userspace,
    at: SocketAddr,
    /// Keeps the port for us; it does not listen.
    _kept: socket2::Socket,
    endpoint: TcpListener,
    row: Option<RowRef>,
}

impl Fixture {
    fn new() -> Self {
        let config = Config { userspace_drain: DRAIN, detect_local: DetectLocal::None, ..Config::default() };
        let mut mode = Userspace::open(&config, Traffic::default()).unwrap();
        // The routes of the machine that runs the tests are none of our business.
        mode.families.iter_mut().for_each(|family_state| family_state.unread = false);
        let kept = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
        kept.set_reuse_address(true).unwrap();
        kept.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
        let at = kept.local_addr().unwrap().as_socket().unwrap();
        let endpoint = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut fixture = Self { mode, at, _kept: kept, endpoint, row: None };
        fixture.apply(&Owner::Node, None, Some(Row::NodePortAddress(at.ip()).into()));
        fixture
    }

    fn apply(&mut self, owner: &Owner, before: Option<RowRef>, after: Option<RowRef>) {
        let change = Change { owner: owner.clone(), before, after };
        self.mode.apply(&Plan { family: Family::V4, changes: vec![change] }).unwrap();
    }

    /// The NodePort becomes this; `None`: it goes.
    fn set(&mut self, to: Option<Choice>) {
        let after = to.map(|to| self.row(to));
        let before = std::mem::replace(&mut self.row, after.clone());
        self.apply(&Owner::Service(name("shop/web")), before, after);
    }

    fn row(&self, to: Choice) -> RowRef {
        let Row::Frontend(frontend, mut forwarding) = frontend_row(&format!(":{}", self.at.port()), "")
        else {
            panic!("a frontend")
        };
        forwarding.to = to;
        Row::Frontend(frontend, forwarding).into()
    }

    /// What stands on the socket: its filter, and whether the relay trusts it.
    fn filter(&self) -> (Option<Vec<Instruction>>, bool) {
        let open = self.mode.sockets.values().next().unwrap();
        (open.filter.clone(), open.slot.serving().filtered)
    }

    /// Has the open socket take another filter.
    fn refit(&mut self, filter: &[Instruction]) {
        let endpoints = self.row(self.endpoints());
        let open = self.mode.sockets.values_mut().next().unwrap();
        let port = open.slot.serving().port.clone();
        let serving = Serving::new(endpoints, port, true).unwrap();
        refit(open, serving, Some(filter.to_vec()), &mut Orders::default()).unwrap();
    }

    fn endpoints(&self) -> Choice {
        let Row::Frontend(_, forwarding) =
            frontend_row(":1", &self.endpoint.local_addr().unwrap().to_string())
        else {
            panic!("a frontend")
        };
        forwarding.to
    }

    /// A connection: the client's side and the endpoint's.
    fn connect(&self) -> [TcpStream; 2] {
        let client = TcpStream::connect(self.at).unwrap();
        let sides = [client, self.endpoint.accept().unwrap().0];
        for side in &sides {
            side.set_read_timeout(Some(PATIENCE)).unwrap();
        }
        sides
    }
}

fn exchange([client, endpoint]: &mut [TcpStream; 2]) {
    client.write_all(b"x").unwrap();
    endpoint.read_exact(&mut [0]).unwrap();
    endpoint.write_all(b"y").unwrap();
    client.read_exact(&mut [0]).unwrap();
}

#[test]
fn connections_outlive_a_moment_without_endpoints_but_not_their_service() {
    let mut fixture = Fixture::new();
    fixture.set(Some(fixture.endpoints()));
    let mut sides = fixture.connect();
    exchange(&mut sides);
    let port = fixture.mode.sockets.values().next().unwrap().slot.serving().port.clone();
    fixture.set(Some(Choice::Reject));
    assert_eq!(TcpStream::connect(fixture.at).unwrap_err().kind(), io::ErrorKind::ConnectionRefused);
    sleep(DRAIN * 2);
    exchange(&mut sides);
    fixture.set(Some(fixture.endpoints()));
    sleep(DRAIN * 2);
    exchange(&mut sides);
    exchange(&mut fixture.connect());
    let now = fixture.mode.sockets.values().next().unwrap().slot.serving().port.clone();
    assert!(Arc::ptr_eq(&port, &now), "so clients keep their endpoints");
    fixture.set(None);
    let error = sides[0].read(&mut [0]).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::ConnectionReset, "the Service has gone");
}

/// What a long list meets where `net.core.optmem_max` is low; here the kernel refuses for another reason.
#[test]
fn a_filter_that_the_kernel_refuses_is_done_without() {
    const ALL: &[Instruction] = &[(0x06, 0, 0, u32::MAX)];
    const NO_RETURN: &[Instruction] = &[(0x20, 0, 0, 0)];
    let mut fixture = Fixture::new();
    fixture.set(Some(fixture.endpoints()));
    assert_eq!(fixture.filter(), (None, true));
    let table = [
        (ALL, (Some(ALL.to_vec()), true)),
        (NO_RETURN, (None, false)),
        (NO_RETURN, (None, false)),
        (&NOBODY, (Some(NOBODY.to_vec()), true)),
        (NO_RETURN, (None, false)),
    ];
    for (filter, expected) in table {
        fixture.refit(filter);
        assert_eq!(fixture.filter(), expected);
    }
    // The one that let nobody in is not left behind.
    exchange(&mut fixture.connect());
    let binding = Binding { protocol: Protocol::Tcp, at: "127.0.0.1:0".parse().unwrap() };
    let (_, filtered) = open(binding, Some(NO_RETURN)).unwrap();
    assert!(filtered.is_err(), "open all the same");
}

#[test]
fn a_frontend_that_could_be_opened_at_last_is_no_problem_any_more() {
    let mut fixture = Fixture::new();
    let other = TcpListener::bind((fixture.at.ip(), 0)).unwrap();
    fixture.at = other.local_addr().unwrap();
    fixture.set(Some(fixture.endpoints()));
    let binding = Binding { protocol: Protocol::Tcp, at: fixture.at };
    assert_eq!(fixture.mode.unserved.bindings(), [binding]);
    assert_eq!(fixture.mode.unserved.news().len(), 0, "told when it happened");
    fixture.mode.retry(Family::V4).unwrap();
    assert_eq!(fixture.mode.unserved.bindings(), [binding], "tried again, in vain");
    drop(other);
    fixture.mode.retry(Family::V4).unwrap();
    assert!(fixture.mode.unserved.bindings().is_empty());
    exchange(&mut fixture.connect());
    // A change that fails on an open socket, and then does not.
    let serving = fixture.mode.sockets[&binding].slot.serving();
    let why = Why::Other("its filter cannot be removed".into());
    let owner = Owner::Service(name("shop/web"));
    fixture.mode.unserved.note(binding, Unserved { owner, port: serving.port.clone(), why });
    fixture.mode.retry(Family::V4).unwrap();
    assert!(fixture.mode.unserved.bindings().is_empty());
}
