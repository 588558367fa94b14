//! Conntrack is compared after commits, and never before.

use super::*;
use crate::model::{Protocol, ServicePort, SlicePort};
use crate::policy::stale::Scope;
use crate::testing::port;

/// A Service with UDP port 53, and its slice.
fn udp_service(n: &str, number: u8) -> Object {
    let Object::Service(name, mut service) = a_service(n, number) else { panic!() };
    let dns = ServicePort { name: "dns".into(), protocol: Protocol::Udp, port: port(53), node_port: None };
    service.ports = Box::new([dns]);
    Object::Service(name, service)
}

fn udp_slice(n: &str, address: &str) -> Object {
    let Object::EndpointSlice(slice, service, mut content) = a_slice(n, 1, address) else { panic!() };
    content.ports = [SlicePort { name: "dns".into(), protocol: Protocol::Udp, port: port(53) }].into();
    Object::EndpointSlice(slice, service, content)
}

/// Where conntrack has to be looked at now.
fn reviews(node: &mut Node) -> Vec<String> {
    let mut all = Vec::new();
    while let Some(review) = node.engine.next_review(node.now) {
        node.engine.reviewed(review.family, true, Duration::ZERO, node.now);
        let places = match review.scope {
            Scope::Everything => "everything".to_owned(),
            Scope::Dialled(places) => format!("{places:?}"),
        };
        all.push(format!("{} {places}", review.family));
    }
    all
}

const NOTHING: [String; 0] = [];

fn listed(services: Vec<Object>, slices: Vec<Object>) -> Vec<Update> {
    vec![
        Update::Reset(Kind::Node, vec![]),
        Update::Reset(Kind::ServiceCidr, vec![]),
        Update::Reset(Kind::Service, services),
        Update::Reset(Kind::EndpointSlice, slices),
    ]
}

#[test]
fn once_at_the_start_and_then_for_what_changed() {
    let mut node = Node::new();
    let slices = vec![udp_slice("a/dns", "10.1.0.1"), a_slice("a/web", 2, "10.1.0.1")];
    node.engine.take(listed(vec![udp_service("a/dns", 1), a_service("a/web", 2)], slices), node.now);
    assert_eq!(reviews(&mut node), NOTHING, "nothing is programmed");
    node.sync();
    assert_eq!(reviews(&mut node), ["IPv4 everything", "IPv6 everything"]);
    node.now += Duration::from_secs(5);
    reviews(&mut node);
    node.engine.take(vec![Update::Set(a_slice("a/web", 2, "10.1.0.7"))], node.now);
    node.sync();
    assert_eq!(reviews(&mut node), NOTHING, "TCP");
    node.engine.take(vec![Update::Set(udp_slice("a/dns", "10.1.0.2"))], node.now);
    node.sync();
    assert_eq!(reviews(&mut node), ["IPv4 {(Some(10.96.0.1), 53)}"]);
    assert_eq!(node.engine.deadline(), Some(node.now + Duration::from_secs(1)), "a second look");
    assert!(node.engine.is_settled(), "which nobody waits for");
}

#[test]
fn not_before_the_retry_that_commits() {
    let mut node = Node::new();
    node.engine.take(listed(vec![udp_service("a/dns", 1)], vec![udp_slice("a/dns", "10.1.0.1")]), node.now);
    node.sync();
    reviews(&mut node);
    node.now += Duration::from_secs(5);
    reviews(&mut node);
    node.kernel().failures.push_back((Family::V4, refusal(Family::V4, nix::libc::ENOMEM, None)));
    node.engine.take(vec![Update::Delete(Key::Service(name("a/dns")))], node.now);
    node.sync();
    assert_eq!(reviews(&mut node), ["IPv6 {(Some(fd00::1), 53)}"]);
    node.now += RETRY.0;
    node.sync();
    assert_eq!(reviews(&mut node), ["IPv4 everything"], "after a failure nothing is known");
}

#[test]
fn a_refused_service_waits() {
    let mut node = Node::new();
    let services = vec![udp_service("a/dns", 1), udp_service("a/log", 2)];
    let slices = vec![udp_slice("a/dns", "10.1.0.1"), udp_slice("a/log", "10.1.0.1")];
    node.engine.take(listed(services, slices), node.now);
    node.sync();
    reviews(&mut node);
    node.now += Duration::from_secs(5);
    reviews(&mut node);
    node.kernel().refuses = Some(Owner::Service(name("a/dns")));
    let moved = ["a/dns", "a/log"].map(|n| Update::Set(udp_slice(n, "10.1.0.9")));
    node.engine.take(moved.to_vec(), node.now);
    node.sync();
    // What is installed was read again, so that everything is looked at; but not once more at a/dns.
    assert_eq!(reviews(&mut node), ["IPv4 everything"]);
    node.now += Duration::from_secs(1);
    assert_eq!(reviews(&mut node), ["IPv4 {(Some(10.96.0.2), 53)}"]);
    node.kernel().refuses = None;
    node.now += RETRY.1;
    node.sync();
    assert_eq!(reviews(&mut node), ["IPv4 {(Some(10.96.0.1), 53)}"]);
}
