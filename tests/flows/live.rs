//! Every kind of change under a running daemon: the new state is there at once, and an unrelated Service never notices.

use super::churn::{assert_undisturbed, hammers};
use super::{PORT, on_port, web, web_slice};
use crate::netns::objects::Service;
use crate::netns::prelude::*;

cases![
    ports,
    types,
    cluster_ip_reused_in_one_batch,
    node_ports_swapped_in_one_batch,
    external_ips_swapped_in_one_batch,
    deleted_and_recreated,
    none_to_many_and_back,
];

/// Objects beside the unrelated Service, and what must be true of them.
type Step = (Vec<Objects>, Vec<Flow>);

/// Goes through the steps twice, so that each also follows the last. Meanwhile [`web`] has connections that stay
/// open, and clients that never rest.
fn undisturbed(lab: &mut Lab, steps: &[Step]) {
    let base: [Objects; 2] = [web().into(), web_slice([Pod1, Remote1]).into()];
    lab.apply(&base);
    lab.start(&config(&json!({})));
    let mut held: Vec<_> = BOTH
        .into_iter()
        .flat_map(|family| [Pod3, Client, Node].map(|name| (family, name)))
        .map(|(family, name)| (name, lab.connect(name, Cluster(80), 80, family).0))
        .collect();
    let hammers = hammers(lab);
    for step in 0..steps.len() * 2 {
        let (objects, flows) = &steps[step % steps.len()];
        lab.apply(&[&base[..], objects].concat());
        lab.check(flows);
        for (name, connection) in &mut held {
            let answer = connection.ask();
            assert!(answer.is_ok(), "step {step}: the connection of {name:?} is broken: {answer:?}");
        }
    }
    assert_undisturbed(hammers, &on_port([Pod1, Remote1]));
}

fn cart() -> Service {
    service("shop/cart").cluster(81)
}

/// TCP and UDP of `shop/cart` and `shop/till` on these pods.
fn endpoints(name: &str, pods: &[Name]) -> Objects {
    slice(name).port("http", 8081).port("other", 9090).udp("dns", 8081).ready(pods.iter().copied()).into()
}

/// Pods and the outside get this pod's port 8081.
fn tcp(address: Name, port: u16, pod: Name) -> Vec<Flow> {
    [Pod3, Client].map(|name| from(name).tcp(address, port).reaches([(pod, 8081)])).to_vec()
}

fn udp(address: Name, port: u16, pod: Name) -> Vec<Flow> {
    [Pod3, Client].map(|name| from(name).udp(address, port).reaches([(pod, 8081)])).to_vec()
}

fn no_tcp(address: Name, port: u16) -> Vec<Flow> {
    [Pod3, Client].map(|name| from(name).tcp(address, port).rejected()).to_vec()
}

fn no_udp(address: Name, port: u16) -> Vec<Flow> {
    [Pod3, Client].map(|name| from(name).udp(address, port).rejected()).to_vec()
}

fn gone(address: Name, port: u16) -> Vec<Flow> {
    [Pod3, Client].map(|name| from(name).tcp(address, port).dropped()).to_vec()
}

fn ports(lab: &mut Lab) {
    let with = |service: Service| vec![service.into(), endpoints("shop/cart", &[Pod2])];
    let c = Cluster(81);
    let renamed = || [Pod3, Client].map(|name| from(name).tcp(c, 80).reaches([(Pod2, 9090)])).to_vec();
    let steps: Vec<Step> = vec![
        (with(cart().port("http", 80)), [tcp(c, 80, Pod2), no_udp(c, 80), no_tcp(c, 81)].concat()),
        // renamed: another port of the slice
        (with(cart().port("other", 80)), renamed()),
        (with(cart().port("nobody", 80)), no_tcp(c, 80)),
        // renumbered
        (with(cart().port("http", 81)), [tcp(c, 81, Pod2), no_tcp(c, 80)].concat()),
        // another protocol, the same number
        (with(cart().udp("dns", 81)), [udp(c, 81, Pod2), no_tcp(c, 81)].concat()),
        // added, exchanged, removed
        (with(cart().udp("dns", 81).port("http", 81)), [udp(c, 81, Pod2), tcp(c, 81, Pod2)].concat()),
        (
            with(cart().udp("dns", 80).port("http", 81)),
            [udp(c, 80, Pod2), tcp(c, 81, Pod2), no_udp(c, 81)].concat(),
        ),
        (
            with(cart().port("http", 80).port("other", 82)),
            [tcp(c, 80, Pod2), no_tcp(c, 81), no_udp(c, 80)].concat(),
        ),
    ];
    undisturbed(lab, &steps);
}

fn types(lab: &mut Lab) {
    let with = |service: Service| vec![service.into(), endpoints("shop/cart", &[Pod2])];
    let plain = || cart().port("http", 80);
    let c = Cluster(81);
    let no_node_port = || from(Client).tcp(Node, 30081).untouched();
    let external = || {
        service("shop/cart")
            .port("http", 80)
            .spec(&json!({ "type": "ExternalName", "externalName": "example.org" }))
    };
    let headless = || {
        service("shop/cart").port("http", 80).spec(&json!({ "clusterIP": "None", "clusterIPs": ["None"] }))
    };
    let mut steps: Vec<Step> = vec![
        (with(plain()), [tcp(c, 80, Pod2), vec![no_node_port()]].concat()),
        (with(plain().node_port(30081)), [tcp(c, 80, Pod2), tcp(Node, 30081, Pod2)].concat()),
        (
            with(plain().node_port(30081).load_balancer(Public(9))),
            [tcp(c, 80, Pod2), tcp(Node, 30081, Pod2), tcp(Public(9), 80, Pod2)].concat(),
        ),
        (
            with(external()),
            [gone(c, 80), vec![no_node_port(), from(Client).tcp(Public(9), 80).untouched()]].concat(),
        ),
        (with(plain().load_balancer(Public(9))), [tcp(Public(9), 80, Pod2), vec![no_node_port()]].concat()),
        (with(headless()), [gone(c, 80), vec![from(Client).tcp(Public(9), 80).untouched()]].concat()),
        (with(plain().node_port(30081)), [tcp(c, 80, Pod2), tcp(Node, 30081, Pod2)].concat()),
        (with(headless()), [gone(c, 80), vec![no_node_port()]].concat()),
    ];
    steps.push((with(external()), gone(c, 80)));
    undisturbed(lab, &steps);
}

/// `shop/cart` and `shop/till` with one endpoint each, and what tells them apart.
fn two(cart: Service, till: Service) -> Vec<Objects> {
    vec![cart.into(), till.into(), endpoints("shop/cart", &[Pod2]), endpoints("shop/till", &[Remote2])]
}

fn till() -> Service {
    service("shop/till").cluster(82)
}

fn cluster_ip_reused_in_one_batch(lab: &mut Lab) {
    let (a, b) = (Cluster(81), Cluster(82));
    let at = |name: &str, n: u8| service(name).cluster(n).port("http", 80);
    let steps: Vec<Step> = vec![
        (two(at("shop/cart", 81), at("shop/till", 82)), [tcp(a, 80, Pod2), tcp(b, 80, Remote2)].concat()),
        // swapped
        (two(at("shop/cart", 82), at("shop/till", 81)), [tcp(b, 80, Pod2), tcp(a, 80, Remote2)].concat()),
        // one deleted, the other one has its address
        (
            vec![at("shop/cart", 81).into(), endpoints("shop/cart", &[Pod2])],
            [tcp(a, 80, Pod2), gone(b, 80)].concat(),
        ),
        // a new one has the address of one that is deleted, on another port
        (
            vec![till().cluster(81).port("http", 81).into(), endpoints("shop/till", &[Remote2])],
            [tcp(a, 81, Remote2), no_tcp(a, 80)].concat(),
        ),
    ];
    undisturbed(lab, &steps);
}

fn node_ports_swapped_in_one_batch(lab: &mut Lab) {
    let with = |a, b| two(cart().port("http", 80).node_port(a), till().port("http", 80).node_port(b));
    let steps: Vec<Step> = vec![
        (with(30081, 30082), [tcp(Node, 30081, Pod2), tcp(Node, 30082, Remote2)].concat()),
        (with(30082, 30081), [tcp(Node, 30082, Pod2), tcp(Node, 30081, Remote2)].concat()),
        // handed on in a row
        (with(30083, 30082), [tcp(Node, 30083, Pod2), tcp(Node, 30082, Remote2)].concat()),
    ];
    undisturbed(lab, &steps);
}

fn external_ips_swapped_in_one_batch(lab: &mut Lab) {
    let with = |a, b| two(cart().port("http", 80).external_ip(a), till().port("http", 80).external_ip(b));
    let (a, b) = (Public(9), Public(10));
    let steps: Vec<Step> = vec![
        (with(a, b), [tcp(a, 80, Pod2), tcp(b, 80, Remote2)].concat()),
        (with(b, a), [tcp(b, 80, Pod2), tcp(a, 80, Remote2)].concat()),
    ];
    undisturbed(lab, &steps);
}

fn deleted_and_recreated(lab: &mut Lab) {
    let c = Cluster(81);
    let service = || cart().port("http", 80).node_port(30081).external_ip(Public(9));
    let all = || [tcp(c, 80, Pod2), tcp(Node, 30081, Pod2), tcp(Public(9), 80, Pod2)].concat();
    let nothing = || [gone(c, 80), vec![from(Client).tcp(Node, 30081).untouched()]].concat();
    let steps: Vec<Step> = vec![
        (vec![service().into(), endpoints("shop/cart", &[Pod2])], all()),
        (vec![], nothing()),
        // the endpoints come first, the Service comes first
        (vec![endpoints("shop/cart", &[Pod2])], nothing()),
        (vec![service().into(), endpoints("shop/cart", &[Pod2])], all()),
        (vec![service().into()], [no_tcp(c, 80), no_tcp(Node, 30081), no_tcp(Public(9), 80)].concat()),
    ];
    undisturbed(lab, &steps);
}

fn none_to_many_and_back(lab: &mut Lab) {
    let pods = [Pod1, Pod2, Remote1, Remote2, Remote3];
    let service = || Objects::from(cart().port("http", 80).udp("dns", 53).node_port(30053));
    let none = || [no_tcp(Cluster(81), 80), no_udp(Cluster(81), 53), no_udp(Node, 30053)].concat();
    let many = |count: usize| {
        let chosen: Vec<(Name, u16)> = pods.iter().take(count).map(|pod| (*pod, 8081)).collect();
        let rows = [Pod3, Client].map(|name| {
            [
                from(name).tcp(Cluster(81), 80).reaches(chosen.clone()),
                from(name).udp(Cluster(81), 53).reaches(chosen.clone()),
                from(name).udp(Node, 30053).reaches(chosen.clone()),
            ]
        });
        (vec![service(), endpoints("shop/cart", &pods[..count])], rows.concat())
    };
    let steps: Vec<Step> = vec![
        (vec![service()], none()),
        many(1),
        (vec![service(), endpoints("shop/cart", &[])], none()),
        many(5),
        many(2),
    ];
    undisturbed(lab, &steps);
    assert_ne!(PORT, 8081, "the two Services are told apart by the port");
}
