use super::*;
use crate::testing::{udp_flow as flow, udp_frontend as frontend};

/// What there is: `frontend = endpoint endpoint`, one a line.
struct World {
    family: Family,
    valid: HashMap<Frontend, Valid>,
    node_ports: NodePortAddresses,
}

impl World {
    fn new(family: Family, lines: &[&str], anywhere: bool) -> Self {
        let line = |line: &&str| {
            let (key, endpoints) = line.split_once(" =").unwrap();
            let mut valid: Vec<SocketAddr> =
                endpoints.split_whitespace().map(|e| e.parse().unwrap()).collect();
            valid.sort();
            (frontend(key, family), valid.into())
        };
        let node: IpAddr = match family {
            Family::V4 => "192.168.0.2".parse().unwrap(),
            Family::V6 => "2001:db8::2".parse().unwrap(),
        };
        let node_ports = NodePortAddresses { listed: BTreeSet::from([node]), anywhere };
        Self { family, valid: lines.iter().map(line).collect(), node_ports }
    }

    fn review(&self, of: &[&str]) -> Review {
        let frontends: Vec<Frontend> = of.iter().map(|text| frontend(text, self.family)).collect();
        Review::new(self.family, frontends.iter(), |f| self.valid.get(f).cloned(), &self.node_ports)
    }
}

const V4: [&str; 4] = [
    "10.96.0.1:53 = 10.1.0.1:8053 10.1.0.2:8053",
    "203.0.113.7:53 = 10.1.0.1:8053 10.1.0.2:8053",
    "np:30053 = 10.1.0.1:8053 10.1.0.2:8053",
    "10.96.0.2:53 =",
];

#[test]
fn flows_to_frontends() {
    let world = World::new(Family::V4, &V4, false);
    let review = world.review(&[
        "10.96.0.1:53",
        "203.0.113.7:53",
        "np:30053",
        "10.96.0.2:53",
        "10.96.0.3:53",
        "np:30054",
    ]);
    let table = [
        ("10.96.0.1:53", "10.1.0.1:8053", false, "a valid endpoint"),
        ("10.96.0.1:53", "10.1.0.3:8053", true, "an endpoint that has gone"),
        ("10.96.0.1:53", "10.1.0.1:53", true, "another port of a valid endpoint's address"),
        ("10.96.0.1:53", "10.96.0.1:53", true, "older than the frontend"),
        ("10.96.0.1:54", "10.1.0.3:8053", false, "a port that is no frontend"),
        ("203.0.113.7:53", "10.1.0.2:8053", false, "external, valid"),
        ("203.0.113.7:53", "10.1.0.3:8053", true, "external, gone"),
        ("203.0.113.7:53", "203.0.113.7:53", true, "external, older than the frontend"),
        ("192.168.0.2:30053", "10.1.0.2:8053", false, "NodePort, valid"),
        ("192.168.0.2:30053", "10.1.0.3:8053", true, "NodePort, gone"),
        ("192.168.0.2:30053", "192.168.0.2:30053", true, "NodePort, older than it"),
        ("192.168.0.9:30053", "192.168.0.9:30053", false, "the same port of another node"),
        ("192.168.0.9:30053", "10.1.0.9:8053", false, "somebody else's NAT"),
        ("10.96.0.2:53", "10.1.0.1:8053", true, "the last endpoint has gone"),
        ("10.96.0.2:53", "10.96.0.2:53", false, "not translated, and nowhere to go"),
        ("10.96.0.3:53", "10.1.0.1:8053", true, "the frontend has gone"),
        ("10.96.0.3:53", "10.96.0.3:53", false, "not ours any more"),
        ("192.168.0.2:30054", "10.1.0.1:8053", true, "the NodePort has gone"),
        ("192.168.0.2:30054", "192.168.0.2:30054", false, "a server on the node itself"),
        ("192.0.2.1:53", "192.0.2.1:53", false, "nobody's"),
        ("192.0.2.1:53", "10.1.0.9:53", false, "somebody else's NAT"),
    ];
    for (dialled, reaches, stale, why) in table {
        assert_eq!(review.is_stale(&flow(dialled, reaches)), stale, "{dialled} {reaches}: {why}");
    }
}

#[test]
fn the_same_in_ipv6() {
    let lines = ["[fd00::1]:53 = [fd01::1]:8053", "np:30053 = [fd01::1]:8053"];
    let world = World::new(Family::V6, &lines, false);
    let review = world.review(&["[fd00::1]:53", "np:30053"]);
    for (dialled, reaches, stale) in [
        ("[fd00::1]:53", "[fd01::1]:8053", false),
        ("[fd00::1]:53", "[fd01::2]:8053", true),
        ("[fd00::1]:53", "[fd00::1]:53", true),
        ("[2001:db8::2]:30053", "[fd01::1]:8053", false),
        ("[2001:db8::2]:30053", "[fd01::2]:8053", true),
    ] {
        assert_eq!(review.is_stale(&flow(dialled, reaches)), stale, "{dialled} {reaches}");
    }
}

/// Match-all `nodePortAddresses`: link-local addresses are not listed, and take NodePorts all the same.
#[test]
fn nodeports_on_every_address() {
    let world = World::new(Family::V4, &V4, true);
    let review = world.review(&["np:30053"]);
    for (dialled, reaches, stale) in [
        ("192.168.0.2:30053", "10.1.0.3:8053", true),
        ("169.254.7.7:30053", "10.1.0.1:8053", false),
        ("169.254.7.7:30053", "10.1.0.3:8053", true),
        ("192.168.0.9:30053", "192.168.0.9:30053", false),
    ] {
        assert_eq!(review.is_stale(&flow(dialled, reaches)), stale, "{dialled} {reaches}");
    }
}

/// An external IP may be the node's own, with the number of a NodePort.
#[test]
fn a_service_that_claims_the_nodes_address() {
    let with = |lines: &[&str]| World::new(Family::V4, &[&V4[..], lines].concat(), false);
    let claimed = flow("192.168.0.2:30053", "10.1.0.9:53");
    let shared = flow("192.168.0.2:30053", "10.1.0.1:8053");
    for of in [&["np:30053"][..], &["192.168.0.2:30053"]] {
        let review = with(&["192.168.0.2:30053 = 10.1.0.9:53"]).review(of);
        assert_eq!((review.is_stale(&claimed), review.is_stale(&shared)), (false, true), "{of:?}");
        let review = with(&[]).review(of);
        assert_eq!((review.is_stale(&claimed), review.is_stale(&shared)), (true, false), "{of:?}: let go");
    }
}

/// After a crash between commit and clean-up nobody remembers the frontends that went.
#[test]
fn frontends_that_nobody_remembers() {
    let world = World::new(Family::V4, &V4, false);
    let serving = HashSet::from(["10.1.0.7:53".parse().unwrap()]);
    let ranges = vec!["10.96.0.0/16".parse().unwrap()];
    let review =
        world.review(&V4.map(|line| line.split_once(" =").unwrap().0)).of_everything(ranges, serving);
    assert_eq!(review.scope, Scope::Everything);
    for (dialled, reaches, stale, why) in [
        ("10.96.0.9:53", "10.1.0.3:8053", true, "from a range of Services to nobody"),
        ("10.96.0.9:53", "10.1.0.7:53", false, "another proxy's Service"),
        ("10.96.0.9:53", "10.96.0.9:53", false, "an address bound on the node"),
        ("192.168.0.2:4000", "10.1.0.3:53", false, "a host port"),
        ("10.96.0.1:53", "10.1.0.7:53", true, "an endpoint, but of another Service"),
    ] {
        assert_eq!(review.is_stale(&flow(dialled, reaches)), stale, "{dialled} {reaches}: {why}");
    }
}

#[test]
fn where_to_look() {
    let world = World::new(Family::V4, &V4, false);
    let review = world.review(&["10.96.0.1:53", "np:30053"]);
    let dialled = BTreeSet::from([(Some("10.96.0.1".parse().unwrap()), 53), (None, 30053)]);
    assert_eq!(review.scope, Scope::Dialled(dialled));
}
