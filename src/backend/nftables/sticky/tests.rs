use super::super::steps::element_step;
use super::*;
use crate::desired::{Affinity, Owner};
use crate::diff::Plan;
use crate::model::Family;
use crate::testing::{name, nodeport_row};

fn port(text: &str) -> ServicePortName {
    ServicePortName::parse(text).unwrap()
}

#[test]
fn names_round_trip() {
    for (text, list) in [("shop/cart:https", TrafficPolicy::Cluster), ("a/b", TrafficPolicy::Local)] {
        let memory = Memory::new(&port(text), Protocol::Udp, list);
        assert_eq!(Memory::of_map(&memory.map()), Some(memory.clone()));
        assert_eq!(Memory::of_chain(&memory.stick()), Some(memory.clone()));
        assert_eq!(Memory::of_remember_chain(&memory.remember()), Some(memory.clone()));
        assert_eq!(Memory::of_remember_chain(&memory.stick()), None);
        for lists in Lists::ALL {
            for treatment in Treatment::ALL {
                let chain = ServiceChain { lists, treatment, size: 12 };
                let sticky = StickyChain { chain, memory: memory.clone() };
                assert_eq!(StickyChain::parse(&sticky.to_string()), Some(sticky.clone()), "{sticky}");
                assert_eq!(ServiceChain::parse(&sticky.to_string()), None, "{sticky}");
            }
        }
    }
    let chain = StickyChain::parse("nodeport-shortcut-sticky-2-shop/cart/https/tcp").unwrap();
    assert_eq!(chain.memory.map(), "affinity-shop/cart/https/tcp");
    for other in ["pick-3", "remember-tcp", "local-remember-nodeports-udp", "sticky-0-a/b/tcp", "stick-a"] {
        assert_eq!(Memory::of_chain(other), None, "{other}");
        assert_eq!(StickyChain::parse(other), None, "{other}");
    }
}

#[test]
fn long_and_odd_names_are_shortened() {
    let long = |end: &str| format!("{}/{}:{end}", "n".repeat(63), "s".repeat(63));
    let names: BTreeSet<String> = [&*long("one"), &*long("two"), "a/b:ä b", "a/b:ä_b"]
        .iter()
        .map(|text| Memory::new(&port(text), Protocol::Sctp, TrafficPolicy::Cluster).map())
        .collect();
    assert_eq!(names.len(), 4, "{names:?}");
    for name in &names {
        assert!(name.len() <= "affinity-/sctp".len() + LONGEST_NAME, "{name}");
        assert!(name.chars().all(|c| c.is_ascii_alphanumeric() || "/-_.".contains(c)), "{name}");
        assert!(Memory::of_map(name).is_some(), "{name}");
    }
}

/// A NodePort of `a/web:http` that leads to these endpoints, sticky for so many seconds.
fn row(number: u16, to: &str, seconds: u32) -> Row {
    let Row::Frontend(frontend, mut forwarding) = nodeport_row(number, "a/web:http", to) else { panic!() };
    forwarding.affinity = (seconds > 0).then_some(Affinity { seconds, list: TrafficPolicy::Cluster });
    Row::Frontend(frontend, forwarding)
}

/// Carries a change out on `objects`; its operations in short, then what is removed behind it.
fn change(objects: &mut Objects, before: Option<Row>, after: Option<Row>) -> (Vec<String>, Vec<String>) {
    let settings = Settings {
        family: Family::V4,
        foreign: None,
        masquerade_all: false,
        mark: 0x4000,
        nodeports_anywhere: false,
        affinity_clients: 100_000,
    };
    let owner = Owner::Service(name("a/web"));
    let change = Change { owner, before: before.map(Into::into), after: after.map(Into::into) };
    let plan = Plan { family: Family::V4, changes: vec![change] };
    let step = element_step(&settings, &plan, 0..1, objects);
    assert!((0..step.transaction.ops.len()).all(|op| step.owner(op).is_some()), "all of it can be blamed");
    let short = |ops: &[Op]| -> Vec<String> {
        let transaction = super::super::transaction::Transaction { family: Family::V4, ops: ops.to_vec() };
        let text = transaction.to_string();
        let lines = text.lines().filter(|line| !line.starts_with("add rule"));
        lines.map(|line| line.replace("ip shunt ", "").replace("element ", "")).collect()
    };
    for op in &step.transaction.ops {
        objects.record(op);
    }
    let removals = objects.removals();
    for op in &removals {
        objects.record(op);
    }
    (short(&step.transaction.ops), short(&removals))
}

/// What a change costs does not depend on the number of endpoints or clients.
#[test]
fn a_change_costs_what_it_weighs() {
    let mut objects = Objects::default();
    let objects = &mut objects;
    let map =
        "add map affinity-a/web/http/tcp { typeof ip saddr : ip daddr . th dport; flags dynamic,timeout;";
    let (ops, removed) = change(objects, None, Some(row(1, "a b", 60)));
    assert_eq!(
        ops,
        [
            &*format!("{map} timeout 60s; }}"),
            "add chain stick-a/web/http/tcp",
            "add chain remember-a/web/http/tcp",
            &*format!("{map} timeout 60s; size 100000; }}"),
            "add chain nodeport-external-sticky-2-a/web/http/tcp",
            "add nodeports { tcp . 1 comment \"a/web:http\" : goto nodeport-external-sticky-2-a/web/http/tcp }",
            "add nodeport-endpoints { tcp . 1 . 0 : 10.0.0.97 . 80 }",
            "add nodeport-endpoints { tcp . 1 . 1 : 10.0.0.98 . 80 }",
            "add remember-nodeports-tcp { 1 : goto remember-a/web/http/tcp }",
        ]
    );
    assert!(removed.is_empty(), "{removed:?}");

    let (ops, _) = change(objects, None, Some(row(2, "a b", 60)));
    assert_eq!(ops.len(), 4, "a second frontend is elements only: {ops:?}");
    let (ops, _) = change(objects, Some(row(2, "a b", 60)), Some(row(2, "a x", 60)));
    assert_eq!(ops.len(), 2, "one endpoint replaced: {ops:?}");
    let (ops, removed) = change(objects, Some(row(2, "a x", 60)), Some(row(2, "a x c", 60)));
    assert_eq!(
        ops,
        [
            "add chain nodeport-external-sticky-3-a/web/http/tcp",
            "delete nodeports { tcp . 2 }",
            "add nodeports { tcp . 2 comment \"a/web:http\" : goto nodeport-external-sticky-3-a/web/http/tcp }",
            "add nodeport-endpoints { tcp . 2 . 2 : 10.0.0.99 . 80 }",
        ]
    );
    assert!(removed.is_empty(), "the other frontend still leads to the chain of two: {removed:?}");
    let (_, removed) = change(objects, Some(row(1, "a b", 60)), Some(row(1, "a b c", 60)));
    assert_eq!(removed, ["delete chain nodeport-external-sticky-2-a/web/http/tcp"]);
    let (ops, _) = change(objects, Some(row(1, "a b c", 60)), Some(row(1, "a b c", 90)));
    assert_eq!(ops, [format!("{map} timeout 90s; size 100000; }}")]);

    let (ops, removed) = change(objects, Some(row(1, "a b c", 90)), Some(row(1, "a b c", 0)));
    assert_eq!((ops.len(), removed.len()), (3, 0), "off, for one frontend: {ops:?} {removed:?}");
    let (ops, removed) = change(objects, Some(row(2, "a x c", 60)), None);
    assert_eq!(ops.len(), 5, "{ops:?}");
    assert_eq!(
        removed,
        [
            "delete chain nodeport-external-sticky-3-a/web/http/tcp",
            "delete chain stick-a/web/http/tcp",
            "delete chain remember-a/web/http/tcp",
            "delete map affinity-a/web/http/tcp",
        ]
    );
    assert!(objects.maps.is_empty() && objects.chain_uses.is_empty() && objects.memory_uses.is_empty());
}
