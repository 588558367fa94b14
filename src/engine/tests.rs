mod drift;
mod random;
mod reviews;

use std::cell::RefMut;

use super::*;
use crate::desired::RowKey;
use crate::model::{Key, Kind, Object};
use crate::testing::backend::{FakeBackend, Kernel, refusal};
use crate::testing::{endpoint, name, service, slice};

/// An engine on a fake kernel, with a clock that the test moves.
struct Node {
    engine: Engine<FakeBackend>,
    kernel: FakeBackend,
    now: Instant,
}

impl Node {
    fn new() -> Self {
        Self::on(FakeBackend::default())
    }

    fn on(kernel: FakeBackend) -> Self {
        let engine = Engine::new(kernel.clone(), &Config::default());
        Self { engine, kernel, now: Instant::now() }
    }

    /// A node on which these Services are listed, each with one endpoint per family.
    fn with(services: &[&str]) -> Self {
        let mut node = Self::new();
        node.list(services);
        node.sync();
        node
    }

    fn list(&mut self, services: &[&str]) {
        let (mut lists, mut slices) = (Vec::new(), Vec::new());
        for (number, n) in (1..).zip(services) {
            lists.push(a_service(n, number));
            slices.push(a_slice(n, number, "10.1.0.1"));
            slices.push(a_slice(n, number, "fd01::1"));
        }
        self.engine.take(
            vec![
                Update::Reset(Kind::Node, vec![]),
                Update::Reset(Kind::ServiceCidr, vec![]),
                Update::Reset(Kind::Service, lists),
                Update::Reset(Kind::EndpointSlice, slices),
            ],
            self.now,
        );
    }

    fn sync(&mut self) -> Synced {
        self.engine.sync(self.now).expect("nothing final")
    }

    fn kernel(&self) -> RefMut<'_, Kernel> {
        self.kernel.0.borrow_mut()
    }

    /// The Services that have rows in the kernel, with the families.
    fn programmed(&self) -> Vec<String> {
        let mut all: Vec<String> = Vec::new();
        for (key, (owner, row)) in &self.kernel().rows {
            if matches!(key, RowKey::Frontend(_)) {
                all.push(format!("{} {}", owner.to_string().replace("Service a/", ""), row.family()));
            }
        }
        all.sort();
        all
    }
}

fn a_service(n: &str, number: u8) -> Object {
    Object::Service(name(n), service(&format!("10.96.0.{number},fd00::{number}")).build())
}

fn a_slice(n: &str, number: u8, endpoint_address: &str) -> Object {
    let ip = endpoint(endpoint_address);
    let slice_name = format!("{n}-{number}-{}", endpoint_address.replace(':', "-"));
    Object::EndpointSlice(name(&slice_name), name(n), slice("http", 80, &[ip]))
}

#[test]
fn nothing_is_programmed_before_both_lists_are_complete() {
    let mut node = Node::new();
    for updates in [
        vec![Update::Set(a_service("a/web", 1)), Update::Set(a_slice("a/web", 1, "10.1.0.1"))],
        vec![Update::Reset(Kind::Service, vec![a_service("a/web", 1)])],
    ] {
        node.engine.take(updates, node.now);
        let synced = node.sync();
        assert!(synced.written.is_empty() && synced.programmed_since.is_none());
        assert_eq!(node.kernel().reads, 0);
        assert!(node.kernel().plans.is_empty());
    }
    node.engine.take(vec![Update::Reset(Kind::EndpointSlice, vec![])], node.now);
    node.sync();
    assert_eq!(node.kernel().reads, 0, "the Node and the ServiceCIDRs are waited for");
    node.now = node.engine.deadline().expect("not for ever");
    assert_eq!(node.sync().programmed_since, Some(node.now), "waiting for lists counts as no delay");
    assert_eq!(node.programmed(), ["web IPv4", "web IPv6"]);
    assert_eq!(node.engine.deadline(), None);
}

#[test]
fn with_everything_listed_nothing_is_waited_for() {
    let node = Node::with(&["a/web"]);
    assert_eq!(node.programmed(), ["web IPv4", "web IPv6"]);
}

#[test]
fn a_second_sync_writes_nothing_and_a_change_writes_what_changed() {
    let mut node = Node::with(&["a/one", "a/two"]);
    let plans = node.kernel().plans.len();
    assert!(node.sync().written.is_empty());
    node.engine.take(vec![Update::Set(a_service("a/one", 1))], node.now);
    assert!(node.sync().written.is_empty(), "the same again");
    node.list(&["a/one", "a/two"]);
    assert!(node.sync().written.is_empty(), "a list of the same, as after 410 Gone");
    assert_eq!(node.kernel().plans.len(), plans);
    node.engine.take(
        vec![Update::Set(a_slice("a/one", 1, "10.1.0.1")), Update::Delete(Key::Service(name("a/two")))],
        node.now,
    );
    assert_eq!(node.sync().written.len(), 2, "both families lose a Service");
    assert_eq!(node.programmed(), ["one IPv4", "one IPv6"]);
    assert!(node.engine.is_settled());
}

#[test]
fn a_restart_reads_and_writes_only_the_difference() {
    let before = Node::with(&["a/one", "a/two", "a/three"]);
    let plans = before.kernel().plans.len();
    let mut after = Node::on(before.kernel.clone());
    after.list(&["a/one", "a/two", "a/three"]);
    after.sync();
    assert_eq!(after.kernel().plans.len(), plans, "nothing has changed");
    let mut third = Node::on(after.kernel.clone());
    third.list(&["a/one", "a/two"]);
    third.sync();
    assert_eq!(third.programmed(), ["one IPv4", "one IPv6", "two IPv4", "two IPv6"]);
    assert!(third.kernel().plans.last().is_some_and(|plan| plan.lines().all(|line| line.starts_with("- "))));
}

#[test]
fn what_is_read_ahead_is_read_again_unless_nobody_has_changed_it() {
    let unchanged: [(&[Family], usize); 3] = [(&Family::ALL, 2), (&[Family::V4], 3), (&[], 4)];
    for (as_read, reads) in unchanged {
        let before = Node::with(&["a/one", "a/two"]);
        let reads_before = before.kernel().reads;
        let plans = before.kernel().plans.len();
        let mut after = Node::on(before.kernel.clone());
        after.engine.read_ahead();
        assert_eq!(after.kernel().reads, reads_before + 2);
        after.kernel().as_read = as_read.iter().copied().collect();
        after.list(&["a/one"]);
        after.sync();
        assert_eq!(after.kernel().reads, reads_before + reads, "{as_read:?}");
        assert_eq!(after.programmed(), ["one IPv4", "one IPv6"], "{as_read:?}");
        assert_eq!(after.kernel().plans.len(), plans + 2, "one plan for each family");
    }
}

#[test]
fn what_was_read_ahead_counts_for_one_attempt() {
    let before = Node::with(&["a/one"]);
    let mut after = Node::on(before.kernel.clone());
    after.engine.read_ahead();
    after.kernel().as_read = Family::ALL.into();
    after.kernel().failures.push_back((Family::V4, refusal(Family::V4, nix::libc::ENOENT, None)));
    let reads = after.kernel().reads;
    after.list(&["a/one", "a/two"]);
    after.sync();
    assert_eq!(after.kernel().reads, reads);
    after.now += RETRY.0;
    after.sync();
    assert_eq!(after.kernel().reads, reads + 1, "the family that failed");
    assert_eq!(after.programmed(), ["one IPv4", "one IPv6", "two IPv4", "two IPv6"]);
}

#[test]
fn a_failing_family_does_not_stop_the_other_and_is_tried_again() {
    let mut node = Node::new();
    node.kernel().failures.push_back((Family::V4, refusal(Family::V4, nix::libc::ENOMEM, None)));
    node.list(&["a/web"]);
    let synced = node.sync();
    assert_eq!(synced.failures, [Family::V4]);
    assert_eq!(synced.programmed_since, None);
    assert_eq!(node.programmed(), ["web IPv6"]);
    let due = node.engine.deadline().expect("a retry");
    assert_eq!(due - node.now, RETRY.0);
    node.sync();
    assert_eq!(node.programmed(), ["web IPv6"], "not before it is due");
    node.now = due;
    assert!(node.sync().programmed_since.is_some());
    assert_eq!(node.programmed(), ["web IPv4", "web IPv6"]);
    assert_eq!(node.engine.deadline(), None);
}

#[test]
fn a_refused_service_stays_as_it_was_and_the_others_go_on() {
    let mut node = Node::with(&["a/bad", "a/good"]);
    let at = |seconds| std::time::UNIX_EPOCH + std::time::Duration::from_secs(seconds);
    let moved = |n: &str| {
        let number: u8 = if n == "a/bad" { 1 } else { 2 };
        Update::SetSince(a_slice(n, number, "10.1.0.9"), at(number.into()))
    };
    node.kernel().refuses = Some(Owner::Service(name("a/bad")));
    node.engine.take(vec![moved("a/bad"), moved("a/good")], node.now);
    let synced = node.sync();
    assert_eq!((synced.failures.len(), synced.programmed_since), (1, None));
    assert_eq!(synced.triggered, [(Family::V4, at(2))], "what is refused is not programmed");
    let [notice] = &synced.notices[..] else { panic!("{:?}", synced.notices) };
    assert_eq!((&*notice.object, notice.reason), ("a/bad", crate::notices::Reason::RefusedByKernel));
    assert_eq!(node.engine.refused_counts(), [(Family::V4, 1), (Family::V6, 0)]);
    let endpoints = |node: &Node| -> Vec<usize> {
        let kernel = node.kernel();
        let rows = kernel.rows.values().filter_map(|(_, row)| match row {
            crate::desired::Row::Frontend(frontend, forwarding) if frontend.family() == Family::V4 => {
                Some(forwarding.to.targets().len())
            }
            _ => None,
        });
        rows.collect()
    };
    assert_eq!(endpoints(&node), [1, 2], "bad as before, good has two");
    node.kernel().refuses = None;
    node.now = node.engine.deadline().expect("a retry of the refused one");
    let synced = node.sync();
    assert!(synced.programmed_since.is_some() && synced.notices.is_empty());
    assert_eq!(synced.triggered, [(Family::V4, at(1))]);
    assert_eq!(endpoints(&node), [2, 2]);
    assert!(node.engine.is_settled());
}

#[test]
fn what_somebody_else_changed_is_read_again_and_mended() {
    let mut node = Node::with(&["a/web"]);
    let reads = node.kernel().reads;
    node.kernel().failures.push_back((Family::V4, refusal(Family::V4, nix::libc::ENOENT, None)));
    node.kernel().rows.retain(|key, _| !matches!(key, RowKey::ClusterIp(_)));
    node.engine.take(vec![Update::Set(a_slice("a/web", 1, "10.1.0.7"))], node.now);
    node.sync();
    node.now = node.engine.deadline().expect("a retry");
    node.sync();
    assert_eq!(node.kernel().reads, reads + 1, "only the family that failed");
    let kernel = node.kernel();
    assert!(kernel.rows.keys().any(|key| matches!(key, RowKey::ClusterIp(ip) if ip.is_ipv4())), "mended");
}

#[test]
fn what_no_retry_can_mend_ends_the_engine_except_for_ipv6_alone() {
    let unsupported = || BackendError::Unsupported("no nf_tables".into());
    let mut node = Node::new();
    node.list(&["a/web"]);
    node.kernel().failures.push_back((Family::V4, unsupported()));
    assert!(matches!(node.engine.sync(node.now), Err(BackendError::Unsupported(_))));

    let mut node = Node::new();
    node.list(&["a/web"]);
    node.kernel().failures.push_back((Family::V6, refusal(Family::V6, nix::libc::ENOMEM, None)));
    node.sync();
    node.now = node.engine.deadline().expect("a retry");
    node.kernel().failures.push_back((Family::V6, unsupported()));
    node.sync();
    assert_eq!(node.programmed(), ["web IPv4"]);
    assert_eq!(node.engine.deadline(), None, "IPv6 is given up");
    assert!(node.engine.is_settled());
    node.engine.take(vec![Update::Delete(Key::Service(name("a/web")))], node.now);
    node.kernel().failures.push_back((Family::V4, BackendError::Busy("taken".into())));
    assert!(matches!(node.engine.sync(node.now), Err(BackendError::Busy(_))));
}

#[test]
fn a_dry_run_tells_and_changes_nothing() {
    let mut node = Node::new();
    node.list(&["a/web"]);
    let plans = node.engine.dry_run().expect("readable");
    assert_eq!(plans.iter().map(|plan| plan.changes.len()).collect::<Vec<_>>(), [2, 2]);
    assert!(plans[0].to_string().lines().all(|line| line.starts_with("+ ")), "{}", plans[0]);
    assert!(node.kernel().rows.is_empty());
}

#[test]
fn with_node_cidr_nothing_is_programmed_before_the_node_tells_its_own() {
    let config = Config { detect_local: DetectLocal::NodeCidr, ..Config::default() };
    let kernel = FakeBackend::default();
    let mut node = Node { engine: Engine::new(kernel.clone(), &config), kernel, now: Instant::now() };
    node.list(&["a/web"]);
    let told = |cidr: &str| crate::model::Node {
        pod_cidrs: cidr
            .split(',')
            .filter(|text| !text.is_empty())
            .map(|text| text.parse().unwrap())
            .collect(),
        ..crate::model::Node::default()
    };
    node.engine.take(vec![Update::Set(Object::Node(told("")))], node.now);
    node.sync();
    assert_eq!(node.kernel().reads, 0);
    node.engine.take(vec![Update::Set(Object::Node(told("10.244.1.0/24")))], node.now);
    node.sync();
    assert_eq!(node.programmed(), ["web IPv4", "web IPv6"]);
    let reads = node.kernel().reads;
    node.engine.take(vec![Update::Set(Object::Node(told("10.244.2.0/24")))], node.now);
    node.sync();
    assert_eq!(node.kernel().node_cidrs, ["10.244.2.0/24".parse().unwrap()]);
    assert_eq!(node.kernel().reads, reads + 2, "what is installed is compared with the new rules");
}

#[test]
fn two_refused_services_are_both_tried_again() {
    let mut node = Node::with(&["a/one", "a/two"]);
    let moved = |n: &str, number| Update::Set(a_slice(n, number, "10.1.0.9"));
    let refuse = |node: &Node, n: &str| {
        let owner = Some(Owner::Service(name(n)));
        node.kernel().failures.push_back((Family::V4, refusal(Family::V4, nix::libc::EINVAL, owner)));
    };
    refuse(&node, "a/one");
    refuse(&node, "a/two");
    node.engine.take(vec![moved("a/one", 1), moved("a/two", 2)], node.now);
    node.sync();
    node.now = node.engine.deadline().expect("both are due at once");
    refuse(&node, "a/one");
    node.sync();
    while let Some(due) = node.engine.deadline() {
        node.now = due;
        node.sync();
    }
    let kernel = node.kernel();
    let sizes = kernel.rows.values().filter_map(|(_, row)| match row {
        crate::desired::Row::Frontend(frontend, forwarding) if frontend.family() == Family::V4 => {
            Some(forwarding.to.targets().len())
        }
        _ => None,
    });
    assert_eq!(sizes.collect::<Vec<_>>(), [2, 2]);
}

#[test]
fn a_refused_service_waits_while_its_family_waits() {
    let mut node = Node::with(&["a/bad", "a/good"]);
    node.kernel().refuses = Some(Owner::Service(name("a/bad")));
    node.engine.take(vec![Update::Set(a_slice("a/bad", 1, "10.1.0.9"))], node.now);
    node.sync();
    node.kernel().failures.push_back((Family::V4, refusal(Family::V4, nix::libc::ENOMEM, None)));
    node.engine.take(vec![Update::Set(a_slice("a/good", 2, "10.1.0.9"))], node.now);
    for _ in 0..20 {
        node.sync();
        let deadline = node.engine.deadline().expect("a retry");
        assert!(deadline > node.now, "no deadline that cannot be met");
        node.now = deadline;
    }
    assert_eq!(node.engine.refused(), ["Service a/bad (IPv4)"]);
}

#[test]
fn a_node_that_forgets_its_cidrs_does_not_stop_programming() {
    let config = Config { detect_local: DetectLocal::NodeCidr, ..Config::default() };
    let kernel = FakeBackend::default();
    let mut node = Node { engine: Engine::new(kernel.clone(), &config), kernel, now: Instant::now() };
    node.list(&["a/web"]);
    let cidrs = Box::new(["10.244.1.0/24".parse().unwrap()]);
    let told = crate::model::Node { pod_cidrs: cidrs, ..crate::model::Node::default() };
    node.engine.take(vec![Update::Set(Object::Node(told))], node.now);
    node.sync();
    node.engine.take(vec![Update::Delete(Key::Node), Update::Delete(Key::Service(name("a/web")))], node.now);
    node.sync();
    assert!(node.programmed().is_empty());
    assert_eq!(node.engine.deadline(), None);
}

#[test]
fn bind_address_is_the_node_ip_of_its_family() {
    let node_addresses = ["192.168.0.1", "192.168.0.2", "fd00::1"].map(|ip| ip.parse().unwrap());
    let table = [
        (None, ["192.168.0.1", "fd00::1"]),
        (Some("10.0.0.9"), ["10.0.0.9", "fd00::1"]),
        (Some("fd00::9"), ["192.168.0.1", "fd00::9"]),
    ];
    for (bind_address, expected) in table {
        let bind_address = bind_address.map(|ip| ip.parse().unwrap());
        let config = Config { bind_address, ..Config::default() };
        let kernel = FakeBackend::default();
        let mut node = Node { engine: Engine::new(kernel.clone(), &config), kernel, now: Instant::now() };
        node.list(&[]);
        let object = crate::model::Node { addresses: node_addresses.into(), ..crate::model::Node::default() };
        node.engine.take(vec![Update::Set(Object::Node(object))], node.now);
        node.sync();
        let rows: Vec<String> = node.kernel().rows.values().map(|(_, row)| row.to_string()).collect();
        assert_eq!(rows, expected.map(|ip| format!("NodePort address {ip}")), "{bind_address:?}");
    }
}
