//! `loadBalancerSourceRanges`: who may call the load-balancer IPs. NodePorts and external IPs ask nobody.

use super::{everywhere, on, on_port, web_slice};
use crate::netns::objects::Service;
use crate::netns::prelude::*;

cases![
    allowed_and_blocked,
    blocked_before_anything_else,
    overlapping,
    the_node_itself,
    pods,
    other_family_only,
    match_all,
    many,
    changed_live,
    with_local_policy,
];

fn only_from(ranges: &[&str]) -> Service {
    everywhere().spec(&json!({ "loadBalancerSourceRanges": ranges }))
}

const CLIENT: [&str; 2] = ["198.51.100.0/24", "2001:db8:100::/64"];
const SOURCES: [Name; 4] = [Client, Client2, Pod3, Node];

/// These get through to the load-balancer IP, all others do not.
fn only(allowed: &[Name]) -> Vec<Flow> {
    let rows = SOURCES.into_iter().flat_map(|name| {
        on(name, Public(8), |row| {
            if allowed.contains(&name) { row.reaches(on_port([Pod1])).rewritten() } else { row.dropped() }
        })
    });
    rows.collect()
}

/// What no range is about.
fn unfiltered() -> Vec<Flow> {
    let rows = SOURCES.into_iter().flat_map(|name| [(name, Public(7)), (name, Node), (name, Cluster(80))]);
    rows.flat_map(|(name, to)| on(name, to, |row| row.reaches(on_port([Pod1])))).collect()
}

fn start(lab: &mut Lab, service: Service) {
    lab.apply(&[service.into(), web_slice([Pod1]).into()]);
    lab.start(&config(&json!({})));
}

fn allowed_and_blocked(lab: &mut Lab) {
    start(lab, only_from(&CLIENT));
    lab.check(&[only(&[Client]), unfiltered()].concat());
}

/// Even without an endpoint, nobody who is blocked learns of it.
fn blocked_before_anything_else(lab: &mut Lab) {
    lab.apply(&[only_from(&CLIENT).into()]);
    lab.start(&config(&json!({})));
    let mut flows = on(Client, Public(8), super::Probe::rejected);
    for name in [Client2, Pod3, Node] {
        flows.extend(on(name, Public(8), super::Probe::dropped));
        flows.extend(on(name, Public(7), super::Probe::rejected));
        flows.extend(on(name, Node, super::Probe::rejected));
    }
    lab.check(&flows);
}

fn overlapping(lab: &mut Lab) {
    let nested = ["198.51.100.7/32", "198.51.100.0/24", "198.51.0.0/16", "198.51.100.0/24"];
    let nested6 = ["2001:db8:100::7/128", "2001:db8:100::/64", "2001:db8:100::/47", "2001:db8:100::7/128"];
    start(lab, only_from(&[nested, nested6].concat()));
    lab.check(
        &[only(&[Client]), unfiltered()]
            .concat()
            .into_iter()
            .filter(|row| row.from != Client2)
            .collect::<Vec<_>>(),
    );
    lab.check_in(&[Family::V4], &on(Client2, Public(8), |row| row.reaches(on_port([Pod1]))));
    // the wide range goes, the narrow ones stay
    lab.apply(&[only_from(&[&nested[..2], &nested6[..2]].concat()).into(), web_slice([Pod1]).into()]);
    lab.check(&only(&[Client]));
    // adjacent ones make one
    let halves = [
        "198.51.100.0/25",
        "198.51.100.128/25",
        "198.51.101.0/24",
        "2001:db8:100::/65",
        "2001:db8:100:0:8000::/65",
        "2001:db8:101::/64",
    ];
    lab.apply(&[only_from(&halves).into(), web_slice([Pod1]).into()]);
    lab.check(&only(&[Client, Client2]));
}

fn the_node_itself(lab: &mut Lab) {
    start(lab, only_from(&["192.168.1.0/24", "2001:db8:1::/64"]));
    lab.check(&[only(&[Node]), unfiltered()].concat());
}

fn pods(lab: &mut Lab) {
    start(lab, only_from(&["10.244.0.0/16", "fd00:10:244::/48"]));
    lab.check(&[only(&[Pod3]), unfiltered()].concat());
}

/// Ranges of one family restrict only that one.
fn other_family_only(lab: &mut Lab) {
    start(lab, only_from(&CLIENT[..1]));
    lab.check_in(&[Family::V4], &only(&[Client]));
    lab.check_in(&[Family::V6], &only(&SOURCES));
    lab.apply(&[only_from(&CLIENT[1..]).into(), web_slice([Pod1]).into()]);
    lab.check_in(&[Family::V4], &only(&SOURCES));
    lab.check_in(&[Family::V6], &only(&[Client]));
}

fn match_all(lab: &mut Lab) {
    start(lab, only_from(&["198.51.100.0/24", "0.0.0.0/0", "2001:db8:100::/64"]));
    lab.check_in(&[Family::V4], &only(&SOURCES));
    lab.check_in(&[Family::V6], &only(&[Client]));
    lab.apply(&[only_from(&["0.0.0.0/0", "::/0"]).into(), web_slice([Pod1]).into()]);
    lab.check(&only(&SOURCES));
}

/// Hundreds of ranges, and two Services with ranges of their own.
fn many(lab: &mut Lab) {
    let strangers = (0..400)
        .flat_map(|n| [format!("100.64.{}.{}/31", n / 100, n % 100 * 2), format!("2001:db8:77:{n:x}::/64")]);
    let mut ranges: Vec<String> = strangers.collect();
    ranges.splice(200..200, CLIENT.map(str::to_owned));
    let ranges: Vec<&str> = ranges.iter().map(String::as_str).collect();
    let cart = service("shop/cart").cluster(81).port("http", 80).load_balancer(Public(9));
    let cart = cart.spec(&json!({ "loadBalancerSourceRanges": ["198.51.101.8/32", "2001:db8:101::8/128"] }));
    let carts = slice("shop/cart").port("http", 8081).ready([Pod2]);
    lab.apply(&[only_from(&ranges).into(), web_slice([Pod1]).into(), cart.into(), carts.into()]);
    lab.start(&config(&json!({})));
    let mut flows = only(&[Client]);
    flows.push(from(Client2).tcp(Public(9), 80).reaches([(Pod2, 8081)]).rewritten());
    flows.push(from(Client).tcp(Public(9), 80).dropped());
    lab.check(&flows);
}

fn changed_live(lab: &mut Lab) {
    let with = |ranges: &[&str]| -> [Objects; 2] { [only_from(ranges).into(), web_slice([Pod1]).into()] };
    start(lab, everywhere());
    lab.check(&only(&SOURCES));
    lab.apply(&with(&CLIENT));
    lab.check(&only(&[Client]));
    lab.apply(&with(&["198.51.101.0/24", "2001:db8:101::/64"]));
    lab.check(&only(&[Client2]));
    lab.apply(&with(&["198.51.101.0/24", "2001:db8:101::/64", "10.244.1.7/32", "fd00:10:244:1::7/128"]));
    lab.check(&only(&[Client2, Pod3]));
    lab.apply(&with(&[]));
    lab.check(&only(&SOURCES));
}

fn with_local_policy(lab: &mut Lab) {
    let service = only_from(&CLIENT).spec(&json!({ "externalTrafficPolicy": "Local" }));
    lab.apply(&[service.into(), web_slice([Pod1, Remote1]).into()]);
    lab.start(&config(&json!({})));
    let mut flows = on(Client, Public(8), |row| row.reaches(on_port([Pod1])).kept());
    flows.extend([Client2, Pod3, Node].map(|name| on(name, Public(8), super::Probe::dropped)).concat());
    flows.extend(on(Client2, Public(7), |row| row.reaches(on_port([Pod1])).kept()));
    flows.extend(on(Pod3, Public(7), |row| row.reaches(on_port([Pod1, Remote1])).kept()));
    lab.check(&flows);
}
