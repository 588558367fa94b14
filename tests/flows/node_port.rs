//! NodePorts: on the chosen addresses of the node and nowhere else.

use super::{on_port, web_slice};
use crate::netns::flow::Protocol;
use crate::netns::objects::Service;
use crate::netns::prelude::*;

cases![on_the_node_ip, chosen_by_cidr, without_a_node_object, nothing_behind_it, changed, not_a_node_port];

/// The NodePorts of [`web`].
const NODE_PORTS: [(Protocol, u16); 3] =
    [(Protocol::Tcp, 30080), (Protocol::Udp, 30053), (Protocol::Sctp, 30090)];

fn web() -> Service {
    let service = service("shop/web").cluster(80).port("http", 80).node_port(30080);
    service.udp("dns", 53).node_port(30053).sctp("signal", 90).node_port(30090)
}

/// Rows for each protocol: these sources get these pods on this address of the node, masqueraded.
fn reached(sources: &[Name], address: Name, pods: &[(Name, u16)]) -> Vec<Flow> {
    let rows = sources.iter().flat_map(|name| NODE_PORTS.map(|(protocol, port)| (*name, protocol, port)));
    rows.map(|(name, protocol, port)| {
        from(name).probe(protocol, address, port).reaches(pods.iter().copied()).rewritten()
    })
    .collect()
}

/// Rows for each protocol: these sources reach the node itself on this address.
fn not_captured(sources: &[Name], address: Name) -> Vec<Flow> {
    let rows = sources.iter().flat_map(|name| NODE_PORTS.map(|(protocol, port)| (*name, protocol, port)));
    rows.map(|(name, protocol, port)| from(name).probe(protocol, address, port).untouched()).collect()
}

fn on_the_node_ip(lab: &mut Lab) {
    lab.apply(&[web().into(), web_slice([Pod1, Pod2, Remote1]).into()]);
    lab.start(&config(&json!({})));
    let all = on_port([Pod1, Pod2, Remote1]);
    let mut flows = reached(&[Client, Client2, Pod3, Remote2, Node], Node, &all);
    flows.extend(not_captured(&[Client, Pod3, Node], Node2));
    flows.extend(not_captured(&[Client, Pod3, Node], Gateway));
    flows.extend(not_captured(&[Node], Loopback));
    // the ClusterIP works beside it, under its own number only
    flows.push(from(Pod3).tcp(Cluster(80), 80).reaches(all).kept());
    flows.push(from(Pod3).tcp(Cluster(80), 30080).rejected());
    lab.check(&flows);
}

fn chosen_by_cidr(lab: &mut Lab) {
    lab.apply(&[web().into(), web_slice([Pod1, Remote1]).into()]);
    lab.start(&config(
        &json!({ "nodePortAddresses": ["192.168.1.11/32", "10.244.1.0/24", "2001:db8:1::11/128",
                                                      "fd00:10:244:1::/64"] }),
    ));
    let both = on_port([Pod1, Remote1]);
    let mut flows = reached(&[Client, Pod3, Node], Node2, &both);
    flows.extend(reached(&[Client, Pod3], Gateway, &both));
    flows.extend(not_captured(&[Client, Pod3, Node], Node));
    flows.extend(not_captured(&[Node], Loopback));
    lab.check(&flows);
}

/// `primary` then means the addresses of the interface with the default route.
fn without_a_node_object(lab: &mut Lab) {
    lab.base.remove(0);
    lab.apply(&[web().into(), web_slice([Pod1, Remote1]).into()]);
    lab.start(&config(&json!({})));
    let both = on_port([Pod1, Remote1]);
    let mut flows = reached(&[Client, Pod3, Node], Node, &both);
    flows.extend(reached(&[Client, Pod3], Node2, &both));
    flows.extend(not_captured(&[Client, Pod3], Gateway));
    flows.extend(not_captured(&[Client], Underlay));
    flows.extend(not_captured(&[Node], Loopback));
    lab.check(&flows);
}

fn nothing_behind_it(lab: &mut Lab) {
    lab.apply(&[web().into()]);
    lab.start(&config(&json!({})));
    let rejected =
        |name: Name| NODE_PORTS.map(|(protocol, port)| from(name).probe(protocol, Node, port).rejected());
    let mut flows = [Client, Pod3, Node].map(rejected).concat();
    flows.extend(not_captured(&[Client, Pod3], Node2));
    lab.check(&flows);
}

/// The old number is free again, and a ClusterIP Service has none.
fn changed(lab: &mut Lab) {
    let with = |number| service("shop/web").cluster(80).port("http", 80).node_port(number);
    let slice = || web_slice([Pod1]).into();
    lab.apply(&[with(30080).into(), slice()]);
    lab.start(&config(&json!({})));
    lab.check(&[from(Client).tcp(Node, 30080).reaches(on_port([Pod1])).rewritten()]);
    lab.apply(&[with(30081).into(), slice()]);
    lab.check(&[
        from(Client).tcp(Node, 30081).reaches(on_port([Pod1])).rewritten(),
        from(Client).tcp(Node, 30080).untouched(),
    ]);
    lab.apply(&[service("shop/web").cluster(80).port("http", 80).into(), slice()]);
    lab.check(&[
        from(Client).tcp(Node, 30081).untouched(),
        from(Client).tcp(Node, 30080).untouched(),
        from(Client).tcp(Cluster(80), 80).reaches(on_port([Pod1])).rewritten(),
    ]);
}

/// The same number with another protocol, on another node's address, or in the outside world.
fn not_a_node_port(lab: &mut Lab) {
    lab.apply(&[web().into(), web_slice([Pod1]).into()]);
    lab.start(&config(&json!({})));
    lab.check(&[
        from(Client).udp(Node, 30080).untouched(),
        from(Client).tcp(Node, 30053).untouched(),
        from(Client).tcp(Node, 80).untouched(),
        from(Pod3).tcp(Elsewhere, 30080).untouched(),
        from(Client).tcp(Remote2, 30080).untouched(),
    ]);
}
