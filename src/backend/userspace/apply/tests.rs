//! A NodePort on loopback, which needs neither a route nor a right.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::thread::sleep;

use super::*;
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
        mode.lanes.iter_mut().for_each(|lane| lane.unread = false);
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

    fn endpoints(&self) -> Option<Choice> {
        let Row::Frontend(_, forwarding) =
            frontend_row(":1", &self.endpoint.local_addr().unwrap().to_string())
        else {
            panic!("a frontend")
        };
        Some(forwarding.to)
    }

    /// A connection: the client's side and the endpoint's.
    fn connect(&self) -> [TcpStream; 2] {
        let client = TcpStream::connect(self.at).unwrap();
        let sides = [client, self.endpoint.accept().unwrap().0];
        sides.iter().for_each(|side| side.set_read_timeout(Some(PATIENCE)).unwrap());
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
    fixture.set(fixture.endpoints());
    let mut sides = fixture.connect();
    exchange(&mut sides);
    let port = fixture.mode.sockets.values().next().unwrap().slot.serving().port.clone();
    fixture.set(Some(Choice::Reject));
    assert_eq!(TcpStream::connect(fixture.at).unwrap_err().kind(), io::ErrorKind::ConnectionRefused);
    sleep(DRAIN * 2);
    exchange(&mut sides);
    fixture.set(fixture.endpoints());
    sleep(DRAIN * 2);
    exchange(&mut sides);
    exchange(&mut fixture.connect());
    let now = fixture.mode.sockets.values().next().unwrap().slot.serving().port.clone();
    assert!(Arc::ptr_eq(&port, &now), "so clients keep their endpoints");
    fixture.set(None);
    let error = sides[0].read(&mut [0]).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::ConnectionReset, "the Service has gone");
}
