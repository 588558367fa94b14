use super::*;
use crate::desired::row::{Choice, Forwarding, Masquerade, ServicePortName};
use crate::diff::{Change, RowRef};
use crate::model::{Endpoint, Object, ServicePort, SlicePort, Touched, Update};
use crate::policy::stale::Scope;
use crate::testing::{endpoint, name, port, service, slice, udp_flow as flow, udp_frontend, with};

fn frontend(text: &str) -> Frontend {
    udp_frontend(text, Family::V4)
}

fn row(text: &str) -> Row {
    let forwarding = Forwarding {
        affinity: None,
        proxy_protocol: false,
        service_port: ServicePortName::parse("shop/dns:dns").unwrap(),
        masquerade: Masquerade::Nobody,
        to: Choice::Reject,
        from_outside: None,
        allowed_sources: None,
    };
    Row::Frontend(frontend(text), forwarding.into())
}

/// A Service with port `dns` (UDP, 53) and these endpoints on 8053.
fn store(of: &str, endpoints: &[Endpoint]) -> Store {
    let mut store = Store::default();
    let mut built = service("10.96.0.1").build();
    let udp = ServicePort { name: "dns".into(), protocol: Protocol::Udp, port: port(53), node_port: None };
    built.ports = Box::new([udp]);
    let mut slice = slice("dns", 8053, endpoints);
    slice.ports = [SlicePort { name: "dns".into(), protocol: Protocol::Udp, port: port(8053) }].into();
    for object in
        [Object::Service(name(of), built), Object::EndpointSlice(name(&format!("{of}-1")), name(of), slice)]
    {
        store.apply(Update::Set(object), &mut Touched::default());
    }
    store
}

fn owner(text: &str) -> Owner {
    Owner::Service(name(text))
}

fn removed(rows: impl IntoIterator<Item = Row>) -> Plan {
    let change = |row| Change { owner: Owner::Node, before: Some(RowRef::from(row)), after: None };
    Plan { family: Family::V4, changes: rows.into_iter().map(change).collect() }
}

/// Where has to be looked, sorted, as `address:port` and `*:port`.
fn due(flows: &mut Flows, store: &Store) -> String {
    let due = flows.take_due();
    match flows.review(&due, store).scope {
        Scope::Everything => "everything".into(),
        Scope::Dialled(all) => {
            let one = |(address, port): &(Option<IpAddr>, u16)| {
                address.map_or(format!("*:{port}"), |address| format!("{address}:{port}"))
            };
            all.iter().map(one).collect::<Vec<_>>().join(" ")
        }
    }
}

/// Flows that serve, changed one after the other: which frontends have to be looked at.
#[test]
fn what_changes_has_to_be_looked_at_once_it_is_programmed() {
    let dns = owner("shop/dns");
    let rows = [row("10.96.0.1:53"), row("np:30053")];
    let draining = with(endpoint("10.1.0.2"), |e| (e.ready, e.terminating) = (false, true));
    let dead = with(endpoint("10.1.0.2"), |e| (e.ready, e.serving) = (false, false));
    let unpublished = with(endpoint("10.1.0.1"), |e| e.serving = false);
    let both = "*:30053 10.96.0.1:53";
    let table: [(&str, Vec<Endpoint>, &[Row], &str); 8] = [
        ("first seen", vec![endpoint("10.1.0.1"), endpoint("10.1.0.2")], &rows, both),
        ("nothing changes", vec![endpoint("10.1.0.1"), endpoint("10.1.0.2")], &rows, ""),
        ("it drains, and serves", vec![endpoint("10.1.0.1"), draining], &rows, ""),
        ("it is dead", vec![endpoint("10.1.0.1"), dead.clone()], &rows, both),
        ("the dead one is removed", vec![endpoint("10.1.0.1")], &rows, ""),
        ("publishNotReadyAddresses", vec![unpublished], &rows, ""),
        ("the NodePort is gone", vec![endpoint("10.1.0.1")], &rows[..1], "*:30053"),
        ("the Service is gone", vec![endpoint("10.1.0.1")], &[], "10.96.0.1:53"),
    ];
    let mut flows = Flows::new(Family::V4, false);
    for (what, endpoints, rows, expected) in table {
        let store = store("shop/dns", &endpoints);
        flows.take(&dns, rows, &store);
        assert_eq!(due(&mut flows, &store), "", "{what}: not before it is programmed");
        flows.programmed(&removed([]), false, |_| true);
        assert_eq!(due(&mut flows, &store), expected, "{what}");
    }
    assert!(flows.held.is_empty() && flows.frontends.is_empty(), "{flows:?}");
}

#[test]
fn a_refused_service_waits() {
    let dns = owner("shop/dns");
    let store = store("shop/dns", &[endpoint("10.1.0.1")]);
    let mut flows = Flows::new(Family::V4, false);
    flows.take(&dns, &[row("10.96.0.1:53")], &store);
    flows.programmed(&removed([]), false, |owner| *owner != dns);
    assert_eq!(due(&mut flows, &store), "");
    flows.programmed(&removed([]), false, |_| true);
    assert_eq!(due(&mut flows, &store), "10.96.0.1:53");
}

/// In either order of the two owners.
#[test]
fn a_frontend_changes_hands() {
    let (a, b) = (owner("shop/a"), owner("shop/b"));
    let stores = [store("shop/a", &[endpoint("10.1.0.1")]), store("shop/b", &[endpoint("10.1.0.2")])];
    let external = [row("203.0.113.7:53")];
    for b_first in [true, false] {
        let mut flows = Flows::new(Family::V4, false);
        flows.take(&a, &external, &stores[0]);
        flows.programmed(&removed([]), false, |_| true);
        let _ = flows.take_due();
        let steps: [(&Owner, &[Row]); 2] = [(&b, &external), (&a, &[])];
        for step in if b_first { [0, 1] } else { [1, 0] } {
            flows.take(steps[step].0, steps[step].1, &stores[1]);
        }
        flows.programmed(&removed([]), false, |_| true);
        let due = flows.take_due();
        let review = flows.review(&due, &stores[1]);
        let stale = |reaches| review.is_stale(&flow("203.0.113.7:53", reaches));
        assert_eq!((stale("10.1.0.1:8053"), stale("10.1.0.2:8053")), (true, false), "b first: {b_first}");
    }
}

/// A start: what others have installed and is not wanted any more is known from the plan alone.
#[test]
fn a_start_looks_at_everything() {
    let store = store("shop/dns", &[endpoint("10.1.0.1")]);
    let mut flows = Flows::new(Family::V4, false);
    let range = Row::ServiceCidr("10.96.0.0/16".parse().unwrap());
    flows.take(&Owner::Node, &[range], &store);
    flows.take(&owner("shop/dns"), &[row("10.96.0.1:53")], &store);
    flows.programmed(&removed([row("203.0.113.9:53")]), true, |_| true);
    let due = flows.take_due();
    assert_eq!(due.changed().frontends, BTreeSet::from([frontend("203.0.113.9:53")]), "for a second look");
    let review = flows.review(&due, &store);
    assert_eq!(review.scope, Scope::Everything);
    for (dialled, reaches, stale) in [
        ("10.96.0.1:53", "10.1.0.1:8053", false),
        ("10.96.0.1:53", "10.1.0.2:8053", true),
        ("203.0.113.9:53", "10.1.0.1:8053", true),
        ("203.0.113.8:53", "10.1.0.1:8053", false),
        ("10.96.0.9:53", "10.1.0.1:8053", false),
        ("10.96.0.9:53", "10.1.0.2:8053", true),
    ] {
        assert_eq!(review.is_stale(&flow(dialled, reaches)), stale, "{dialled} {reaches}");
    }
}

#[test]
fn nodeport_addresses_come_and_go() {
    let store = store("shop/dns", &[endpoint("10.1.0.1")]);
    let address = |text: &str| Row::NodePortAddress(text.parse().unwrap());
    let mut flows = Flows::new(Family::V4, false);
    flows.take(&Owner::Node, &[address("192.168.0.2")], &store);
    flows.take(&owner("shop/dns"), &[row("10.96.0.1:53"), row("np:30053")], &store);
    flows.programmed(&removed([]), false, |_| true);
    let _ = flows.take_due();
    flows.take(&Owner::Node, &[address("192.168.0.3")], &store);
    let mut plan = removed([address("192.168.0.2")]);
    plan.changes.push(Change {
        owner: Owner::Node,
        before: None,
        after: Some(address("192.168.0.3").into()),
    });
    flows.programmed(&plan, false, |_| true);
    let due = flows.take_due();
    let review = flows.review(&due, &store);
    for (dialled, reaches, stale) in [
        ("192.168.0.2:30053", "10.1.0.1:8053", true),
        ("192.168.0.2:30053", "192.168.0.2:30053", false),
        ("192.168.0.3:30053", "192.168.0.3:30053", true),
        ("192.168.0.3:30053", "10.1.0.1:8053", false),
    ] {
        assert_eq!(review.is_stale(&flow(dialled, reaches)), stale, "{dialled} {reaches}");
    }
}
