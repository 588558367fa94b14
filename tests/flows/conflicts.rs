//! Two Services claim one address and port: the older one has it, until it lets go.

use super::PORT;
use crate::netns::prelude::*;

cases![one_external_ip, same_age, load_balancer_ip_is_a_cluster_ip, other_ports_are_no_conflict];

/// A Service of two, with an endpoint of its own.
fn claims(name: &str, n: u8, day: u8, pod: Name, address: Option<Name>) -> [Objects; 2] {
    let mut service = service(name).cluster(n).port("http", 80).created(day);
    if let Some(address) = address {
        service = service.external_ip(address);
    }
    [service.into(), slice(name).port("http", PORT).ready([pod]).into()]
}

/// Everyone gets this pod there.
fn belongs_to(address: Name, pod: Name) -> Vec<Flow> {
    [Client, Pod3, Node].map(|name| from(name).tcp(address, 80).reaches([(pod, PORT)])).to_vec()
}

fn one_external_ip(lab: &mut Lab) {
    let old = |address| claims("shop/old", 81, 1, Pod1, address);
    let young = claims("shop/a-young", 82, 2, Pod2, Some(Public(7)));
    let own = [belongs_to(Cluster(82), Pod2), belongs_to(Cluster(81), Pod1)].concat();
    lab.apply(&young);
    lab.start(&config(&json!({})));
    lab.check(&belongs_to(Public(7), Pod2));
    // the older one comes later, and takes it
    lab.apply(&[old(Some(Public(7))), young.clone()].concat());
    lab.check(&[belongs_to(Public(7), Pod1), own.clone()].concat());
    let log = std::fs::read_to_string(lab.log_file()).unwrap();
    let names_both = |line: &str| line.contains("shop/old") && line.contains("shop/a-young");
    assert!(log.lines().any(names_both), "no warning names both: {log}");
    // it lets go, takes it again, and is deleted
    lab.apply(&[old(None), young.clone()].concat());
    lab.check(&[belongs_to(Public(7), Pod2), own].concat());
    lab.apply(&[old(Some(Public(7))), young.clone()].concat());
    lab.check(&belongs_to(Public(7), Pod1));
    lab.apply(&young);
    lab.check(&belongs_to(Public(7), Pod2));
}

/// Then the name decides.
fn same_age(lab: &mut Lab) {
    let one = claims("shop/one", 81, 1, Pod1, Some(Public(7)));
    let two = claims("shop/two", 82, 1, Pod2, Some(Public(7)));
    lab.apply(&[two.clone(), one.clone()].concat());
    lab.start(&config(&json!({})));
    lab.check(&belongs_to(Public(7), Pod1));
    lab.apply(&two);
    lab.check(&belongs_to(Public(7), Pod2));
    lab.apply(&[one, two].concat());
    lab.check(&belongs_to(Public(7), Pod1));
}

fn load_balancer_ip_is_a_cluster_ip(lab: &mut Lab) {
    let web = |day| claims("shop/web", 80, day, Pod1, None);
    let cart = || -> [Objects; 2] {
        let service = service("shop/cart").cluster(81).port("http", 80).load_balancer(Cluster(80)).created(2);
        [service.into(), slice("shop/cart").port("http", PORT).ready([Pod2]).into()]
    };
    lab.apply(&[web(1), cart()].concat());
    lab.start(&config(&json!({})));
    lab.check(&[belongs_to(Cluster(80), Pod1), belongs_to(Cluster(81), Pod2)].concat());
    // the younger one's ClusterIP is the older one's load balancer
    lab.apply(&[web(3), cart()].concat());
    lab.check(&[belongs_to(Cluster(80), Pod2), belongs_to(Cluster(81), Pod2)].concat());
    lab.apply(&web(3));
    lab.check(&belongs_to(Cluster(80), Pod1));
    lab.apply(&[web(1), cart()].concat());
    lab.apply(&cart());
    lab.check(&belongs_to(Cluster(80), Pod2));
}

/// One address, each Service with a port of its own.
fn other_ports_are_no_conflict(lab: &mut Lab) {
    let two = service("shop/two").cluster(82).port("http", 81).udp("dns", 80).external_ip(Public(7));
    let slice = slice("shop/two").port("http", PORT).udp("dns", PORT).ready([Pod2]);
    lab.apply(&[&claims("shop/one", 81, 1, Pod1, Some(Public(7)))[..], &[two.into(), slice.into()]].concat());
    lab.start(&config(&json!({})));
    let mut flows = belongs_to(Public(7), Pod1);
    flows.push(from(Client).tcp(Public(7), 81).reaches([(Pod2, PORT)]));
    flows.push(from(Client).udp(Public(7), 80).reaches([(Pod2, PORT)]));
    lab.check(&flows);
}
