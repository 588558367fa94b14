//! The size of a change: how many elements are written for it, as `nft monitor` shows.

use super::{PORT, web_slice};
use crate::netns::prelude::*;

cases![
    one_remote_endpoint_replaced,
    one_local_endpoint_replaced,
    same_again,
    unrelated_services_are_left_alone
];

/// Four frontends on one port: ClusterIP, NodePort, external IP, load-balancer IP.
const FRONTENDS: usize = 4;

fn four_frontends() -> Objects {
    let service = service("shop/web").cluster(80).port("http", 80).node_port(30080);
    service.external_ip(Public(7)).load_balancer(Public(8)).into()
}

/// The first of them, for a message.
fn shown(lines: &[impl AsRef<str>]) -> String {
    let first: Vec<&str> = lines.iter().take(30).map(AsRef::as_ref).collect();
    format!("{} lines\n{}", lines.len(), first.join("\n"))
}

/// Lines that begin like this.
fn count(lines: &[String], beginning: &str) -> usize {
    lines.iter().filter(|line| line.starts_with(beginning)).count()
}

/// In each family: so many elements deleted and added in maps of endpoints, so many in `hairpin`, and nothing else.
fn assert_elements(lines: &[String], endpoints: usize, hairpin: usize) {
    for (family, verb) in ["ip", "ip6"].into_iter().flat_map(|family| [(family, "delete"), (family, "add")]) {
        let pairs = count(lines, &format!("{verb} element {family} shunt hairpin"));
        let all = count(lines, &format!("{verb} element {family} shunt"));
        assert_eq!((all - pairs, pairs), (endpoints, hairpin), "{verb} {family}:\n{}", shown(lines));
    }
    let elements = lines.iter().filter(|line| line.contains(" element ")).count();
    assert_eq!(elements, lines.len(), "only elements change:\n{}", shown(lines));
}

fn one_remote_endpoint_replaced(lab: &mut Lab) {
    lab.apply(&[four_frontends(), web_slice([Pod1, Remote1, Remote2]).into()]);
    lab.start(&config(&json!({})));
    let mut monitor = lab.monitor();
    lab.apply(&[four_frontends(), web_slice([Pod1, Remote3, Remote2]).into()]);
    assert_elements(&lab.writes(&mut monitor), FRONTENDS, 0);
    lab.check(&[from(Client).tcp(Node, 30080).reaches([(Pod1, PORT), (Remote2, PORT), (Remote3, PORT)])]);
    // the order of a slice means nothing
    lab.apply(&[four_frontends(), web_slice([Remote2, Remote3, Pod1]).into()]);
    assert_elements(&lab.writes(&mut monitor), 0, 0);
}

fn one_local_endpoint_replaced(lab: &mut Lab) {
    lab.apply(&[four_frontends(), web_slice([Pod1, Remote1]).into()]);
    lab.start(&config(&json!({})));
    let mut monitor = lab.monitor();
    lab.apply(&[four_frontends(), web_slice([Pod2, Remote1]).into()]);
    assert_elements(&lab.writes(&mut monitor), FRONTENDS, 1);
}

/// Files written again with the same objects, or with fields that mean nothing to us.
fn same_again(lab: &mut Lab) {
    let objects = [four_frontends(), web_slice([Pod1, Remote1]).into()];
    lab.apply(&objects);
    lab.start(&config(&json!({})));
    let mut monitor = lab.monitor();
    lab.write_all_again();
    assert_elements(&lab.writes(&mut monitor), 0, 0);
    let mut annotated = objects;
    for object in annotated.iter_mut().flat_map(|objects| &mut objects.0) {
        object["metadata"]["annotations"] = json!({ "example.com/looked-at": "today" });
    }
    lab.apply(&annotated);
    assert_elements(&lab.writes(&mut monitor), 0, 0);
}

fn unrelated_services_are_left_alone(lab: &mut Lab) {
    let mut objects: Vec<Objects> = vec![four_frontends(), web_slice([Pod1, Remote1]).into()];
    lab.apply(&objects);
    lab.start(&config(&json!({})));
    let mut monitor = lab.monitor();
    objects.push(service("shop/cart").cluster(81).port("http", 80).into());
    objects.push(slice("shop/cart").port("http", 8081).ready([Remote2, Remote3]).into());
    lab.apply(&objects);
    let lines = lab.writes(&mut monitor);
    let ours = BOTH.map(|family| Cluster(81).ip(family).to_string());
    // chains for a number of endpoints that no Service had before may come with it
    let harmless = |line: &str| {
        ours.iter().any(|ip| line.contains(ip.as_str()))
            || line.starts_with("add chain")
            || line.starts_with("add rule")
    };
    let foreign: Vec<&String> = lines.iter().filter(|line| !harmless(line)).collect();
    assert!(!lines.is_empty() && foreign.is_empty(), "{}", shown(&foreign));
    assert_eq!(count(&lines, "delete"), 0, "{}", shown(&lines));
}
