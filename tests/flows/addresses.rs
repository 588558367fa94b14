//! Addresses of the node: NodePorts on those that come and go, and Services' addresses that are bound on the node.

use std::time::{Duration, Instant};

use super::{NODE_PORTS, PORT, everywhere, on, on_port, web, web_slice};
use crate::netns::prelude::*;
use crate::netns::probe::Outcome;

cases![come_and_go, any_address_but_loopback, node_object_changes, unowned_but_bound, wrong_port_but_bound];

/// Waits until a probe of the outside client meets this on the address; the kernel tells shunt, nobody else does.
fn until(lab: &Lab, address: Name, wanted: impl Fn(&Outcome) -> bool) {
    let row = from(Client).tcp(address, NODE_PORTS[0].1).dropped();
    for family in BOTH {
        let deadline = Instant::now() + Duration::from_secs(5);
        while !lab.send(&row, family, 1).iter().all(&wanted) {
            assert!(Instant::now() < deadline, "{address:?} has not changed in {family:?}");
        }
    }
}

fn node_ports(source: Name, address: Name, expect: impl Fn(super::Probe) -> Flow) -> Vec<Flow> {
    NODE_PORTS.map(|(protocol, port)| expect(from(source).probe(protocol, address, port))).to_vec()
}

fn come_and_go(lab: &mut Lab) {
    lab.apply(&[everywhere().into(), web_slice([Pod1, Remote1]).into()]);
    let cidrs = ["192.168.1.0/24", "2001:db8:1::/64"];
    lab.start(&config(&json!({ "nodePortAddresses": cidrs })));
    let all = on_port([Pod1, Remote1]);
    let reached = |address| -> Vec<Flow> {
        let rows =
            [Client, Pod3, Node].map(|name| node_ports(name, address, |row| row.reaches(all).rewritten()));
        rows.concat()
    };
    lab.check(&[reached(Node), reached(Node2)].concat());
    for _ in 0..2 {
        lab.topology
            .batch(Ns::Node, "addr del 192.168.1.11/32 dev eth0\naddr del 2001:db8:1::11/128 dev eth0");
        // now it is on its way to someone else
        until(lab, Node2, |outcome| !matches!(outcome, Outcome::Answered(_)));
        lab.check(&reached(Node));
        lab.topology
            .batch(Ns::Node, "addr add 192.168.1.11/32 dev eth0\naddr add 2001:db8:1::11/128 dev eth0 nodad");
        until(lab, Node2, |outcome| matches!(outcome, Outcome::Answered(_)));
        lab.check(&[reached(Node), reached(Node2)].concat());
    }
}

fn any_address_but_loopback(lab: &mut Lab) {
    lab.apply(&[everywhere().into(), web_slice([Pod1, Remote1]).into()]);
    lab.start(&config(&json!({ "nodePortAddresses": ["0.0.0.0/0", "::/0"] })));
    let all = on_port([Pod1, Remote1]);
    let mut flows = Vec::new();
    for address in [Node, Node2, Gateway, Underlay] {
        flows.extend(node_ports(Client, address, |row| row.reaches(all).rewritten()));
        flows.extend(node_ports(Pod3, address, |row| row.reaches(all).rewritten()));
    }
    flows.extend(node_ports(Node, Loopback, super::Probe::untouched));
    flows.extend(node_ports(Pod3, Elsewhere, super::Probe::untouched));
    lab.check(&flows);
}

/// `primary` follows the Node object.
fn node_object_changes(lab: &mut Lab) {
    let objects = || -> [Objects; 2] { [everywhere().into(), web_slice([Pod1]).into()] };
    lab.apply(&objects());
    lab.start(&config(&json!({ "nodePortAddresses": ["primary"] })));
    let reached = |address| node_ports(Client, address, |row| row.reaches(on_port([Pod1])).rewritten());
    let untouched = |address| node_ports(Client, address, super::Probe::untouched);
    lab.check(&[reached(Node), untouched(Node2)].concat());
    let second = BOTH.map(|family| json!({ "type": "InternalIP", "address": Node2.ip(family).to_string() }));
    lab.base[0].0[0]["status"]["addresses"] = json!(second);
    lab.apply(&objects());
    lab.check(&[reached(Node2), untouched(Node)].concat());
}

/// An address of the ServiceCIDR that the node holds itself is reached by everyone who reaches the node.
fn unowned_but_bound(lab: &mut Lab) {
    lab.apply(&[web().into(), web_slice([Pod1]).into()]);
    lab.start(&config(&json!({})));
    let dropped = [Pod3, Client].map(|name| on(name, Cluster(200), super::Probe::dropped)).concat();
    lab.check(&dropped);
    bind(lab, Cluster(200));
    for family in BOTH {
        lab.serve_in(Ns::Node, Cluster(200), 53, family);
    }
    let here = |name| {
        [
            from(name).tcp(Cluster(200), 53).reaches([(Cluster(200), 53)]).kept(),
            from(name).udp(Cluster(200), 53).reaches([(Cluster(200), 53)]).kept(),
        ]
    };
    lab.check(&[Pod3, Client].map(here).concat());
}

/// The ClusterIP of a live Service, held by the node as NodeLocal DNS does: ports that the Service does not have are
/// the node's, those that it has are the Service's.
fn wrong_port_but_bound(lab: &mut Lab) {
    lab.apply(&[web().into(), web_slice([Pod1]).into()]);
    lab.start(&config(&json!({})));
    lab.check(&[
        from(Pod3).tcp(Cluster(80), 9253).rejected(),
        from(Client).udp(Cluster(80), 9253).rejected(),
    ]);
    bind(lab, Cluster(80));
    for family in BOTH {
        lab.serve_in(Ns::Node, Cluster(80), 9253, family);
    }
    let own = [(Cluster(80), 9253)];
    lab.check(&[
        from(Pod3).tcp(Cluster(80), 9253).reaches(own).kept(),
        from(Pod3).udp(Cluster(80), 9253).reaches(own).kept(),
        from(Client).tcp(Cluster(80), 9253).reaches(own).kept(),
        from(Pod3).tcp(Cluster(80), 80).reaches([(Pod1, PORT)]).kept(),
        from(Client).udp(Cluster(80), 53).reaches([(Pod1, PORT)]).rewritten(),
    ]);
}

fn bind(lab: &Lab, address: Name) {
    let lines = BOTH.map(|family| format!("route add local {} dev lo", address.ip(family)));
    lab.topology.batch(Ns::Node, &lines.join("\n"));
}
