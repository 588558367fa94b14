//! Objects change under a running daemon.

use super::{PORT, on_port, web, web_slice};
use crate::netns::objects::Service;
use crate::netns::prelude::*;
use crate::netns::probe::{Outcome, Patience};

cases![
    readiness,
    endpoints_replaced,
    several_slices,
    services_come_and_go,
    ports_change,
    address_changes_hands,
    connections_live_on,
    udp_flows_live_on,
];

/// TCP and UDP from a pod and from outside reach exactly these.
fn web_reaches<const N: usize>(pods: [Name; N]) -> Vec<Flow> {
    let all = on_port(pods);
    [Pod3, Client]
        .into_iter()
        .flat_map(|name| {
            [from(name).tcp(Cluster(80), 80).reaches(all), from(name).udp(Cluster(80), 53).reaches(all)]
        })
        .collect()
}

fn readiness(lab: &mut Lab) {
    let not_ready = json!({ "ready": false, "serving": false, "terminating": false });
    lab.apply(&[web().into(), web_slice([Pod1, Pod2, Remote1]).into()]);
    lab.start(&config(&json!({})));
    lab.check(&web_reaches([Pod1, Pod2, Remote1]));
    lab.apply(&[web().into(), web_slice([Pod1, Remote1]).endpoint(Pod2, &not_ready).into()]);
    lab.check(&web_reaches([Pod1, Remote1]));
    // unset means ready
    lab.apply(&[web().into(), web_slice([Pod1, Remote1]).endpoint(Pod2, &json!({})).into()]);
    lab.check(&web_reaches([Pod1, Pod2, Remote1]));
}

fn endpoints_replaced(lab: &mut Lab) {
    lab.apply(&[web().into(), web_slice([Pod1, Pod2]).into()]);
    lab.start(&config(&json!({})));
    lab.check(&web_reaches([Pod1, Pod2]));
    lab.apply(&[web().into(), web_slice([Remote1, Remote2]).into()]);
    lab.check(&web_reaches([Remote1, Remote2]));
    lab.apply(&[web().into(), web_slice([Remote2, Pod1, Remote1, Remote3, Pod2]).into()]);
    lab.check(&web_reaches([Remote2, Pod1, Remote1, Remote3, Pod2]));
    lab.apply(&[web().into(), web_slice([]).into()]);
    let rejected =
        |name: Name| [from(name).tcp(Cluster(80), 80).rejected(), from(name).udp(Cluster(80), 53).rejected()];
    lab.check(&[Pod3, Client, Node].map(rejected).concat());
    lab.apply(&[web().into(), web_slice([Remote4]).into()]);
    lab.check(&web_reaches([Remote4]));
}

/// The endpoints of all slices; one address in two slices counts once, and a port number may differ between slices.
fn several_slices(lab: &mut Lab) {
    let other = |pods: &[Name]| {
        let slice = slice("shop/web").suffix("-b").port("http", 8081).udp("dns", 8081);
        slice.ready(pods.iter().copied())
    };
    lab.apply(&[web().into(), web_slice([Pod1]).into(), other(&[Pod2, Remote1]).into()]);
    lab.start(&config(&json!({})));
    let all = [(Pod1, PORT), (Pod2, 8081), (Remote1, 8081)];
    lab.check(&[
        from(Pod3).tcp(Cluster(80), 80).reaches(all),
        from(Client).udp(Cluster(80), 53).reaches(all),
    ]);
    lab.apply(&[web().into(), web_slice([Pod1, Remote2]).into(), web_slice([Pod1]).suffix("-c").into()]);
    lab.check(&web_reaches([Pod1, Remote2]));
}

fn services_come_and_go(lab: &mut Lab) {
    let cart = || -> [Objects; 2] {
        let service =
            service("shop/cart").cluster(81).port("http", 80).node_port(30081).external_ip(Public(9));
        [service.into(), slice("shop/cart").port("http", 8081).ready([Pod1, Remote2]).into()]
    };
    let base: [Objects; 2] = [web().into(), web_slice([Pod1, Pod2]).into()];
    lab.apply(&base);
    lab.start(&config(&json!({})));
    let absent = [from(Pod3).tcp(Cluster(81), 80).dropped(), from(Client).tcp(Node, 30081).untouched()];
    let both = [(Pod1, 8081), (Remote2, 8081)];
    let present = [
        from(Pod3).tcp(Cluster(81), 80).reaches(both).kept(),
        from(Client).tcp(Node, 30081).reaches(both).rewritten(),
        from(Client).tcp(Public(9), 80).reaches(both).rewritten(),
    ];
    for _ in 0..2 {
        lab.check(&[&web_reaches([Pod1, Pod2])[..], &absent].concat());
        lab.apply(&[&base[..], &cart()].concat());
        lab.check(&[&web_reaches([Pod1, Pod2])[..], &present].concat());
        lab.apply(&base);
    }
    lab.check(&absent);
}

fn ports_change(lab: &mut Lab) {
    let on = || slice("shop/web").port("http", PORT).udp("dns", PORT).ready([Pod1]).into();
    let with = |service: Service| -> [Objects; 2] { [service.into(), on()] };
    let reached = on_port([Pod1]);
    let empty = || service("shop/web").cluster(80);
    lab.apply(&with(empty().port("http", 80)));
    lab.start(&config(&json!({})));
    lab.check(&[
        from(Pod3).tcp(Cluster(80), 80).reaches(reached),
        from(Pod3).udp(Cluster(80), 80).rejected(),
    ]);
    // one more
    lab.apply(&with(empty().port("http", 80).udp("dns", 80)));
    lab.check(&[
        from(Pod3).tcp(Cluster(80), 80).reaches(reached),
        from(Pod3).udp(Cluster(80), 80).reaches(reached),
    ]);
    // another number
    lab.apply(&with(empty().port("http", 8000)));
    lab.check(&[
        from(Pod3).tcp(Cluster(80), 8000).reaches(reached),
        from(Pod3).tcp(Cluster(80), 80).rejected(),
        from(Pod3).udp(Cluster(80), 80).rejected(),
    ]);
    // a name that the slice does not have, then another protocol
    lab.apply(&with(empty().port("other", 8000)));
    lab.check(&[from(Pod3).tcp(Cluster(80), 8000).rejected()]);
    lab.apply(&with(empty().udp("dns", 8000)));
    lab.check(&[
        from(Pod3).udp(Cluster(80), 8000).reaches(reached),
        from(Pod3).tcp(Cluster(80), 8000).rejected(),
    ]);
}

/// A Service moves to another ClusterIP, and another one takes the old one in the same step.
fn address_changes_hands(lab: &mut Lab) {
    let cart = |n| Objects::from(service("shop/cart").cluster(n).port("http", 80));
    let slices = || -> [Objects; 2] {
        [web_slice([Pod1]).into(), slice("shop/cart").port("http", 8081).ready([Pod2]).into()]
    };
    lab.apply(&[&[web().into(), cart(81)][..], &slices()].concat());
    lab.start(&config(&json!({})));
    lab.check(&[
        from(Pod3).tcp(Cluster(80), 80).reaches([(Pod1, PORT)]),
        from(Pod3).tcp(Cluster(81), 80).reaches([(Pod2, 8081)]),
    ]);
    lab.apply(&[&[web().cluster(82).into(), cart(80)][..], &slices()].concat());
    lab.check(&[
        from(Pod3).tcp(Cluster(82), 80).reaches([(Pod1, PORT)]),
        from(Pod3).tcp(Cluster(80), 80).reaches([(Pod2, 8081)]),
        from(Pod3).udp(Cluster(80), 53).rejected(),
        from(Pod3).tcp(Cluster(81), 80).dropped(),
    ]);
}

/// Connections follow conntrack: also one whose endpoint is no longer in the list.
fn connections_live_on(lab: &mut Lab) {
    lab.apply(&[web().node_port(30090).into(), web_slice([Pod1, Remote1]).into()]);
    lab.start(&config(&json!({})));
    let mut held = Vec::new();
    for (family, name) in BOTH.into_iter().flat_map(|family| [Pod3, Client, Node].map(|name| (family, name)))
    {
        held.extend((0..6).map(|_| (name, lab.connect(name, Cluster(80), 80, family).0)));
    }
    let mut all_answer = |when: &str| {
        for (name, connection) in &mut held {
            let answer = connection.ask();
            assert!(answer.is_ok(), "the connection of {name:?} is broken {when}: {answer:?}");
        }
    };
    all_answer("at once");
    lab.apply(&[web().into(), web_slice([Pod1, Pod2]).into()]);
    all_answer("after its endpoint left");
    lab.apply(&[web().into()]);
    all_answer("after the last endpoint left");
    lab.kill();
    all_answer("after kill -9");
    lab.start_again();
    all_answer("after the restart");
    lab.apply(&[]);
    all_answer("after the Service is gone");
}

/// A UDP flow stays with its endpoint for as long as that one is in the list, whatever happens to the others.
fn udp_flows_live_on(lab: &mut Lab) {
    lab.apply(&[web().into(), web_slice([Pod1, Remote1]).into()]);
    lab.start(&config(&json!({})));
    let mut held = Vec::new();
    for (family, name) in BOTH.into_iter().flat_map(|family| [Pod3, Client, Node].map(|name| (family, name)))
    {
        for _ in 0..6 {
            let exchange = lab.exchange(name, Cluster(80), 53, family);
            let first = exchange.ask(Patience::GENEROUS);
            assert!(matches!(first, Outcome::Answered(_)), "{name:?}: {first:?}");
            held.push((exchange, first));
        }
    }
    for pods in [&[Pod1, Remote1, Pod2][..], &[Remote2, Remote1, Pod1]] {
        lab.apply(&[web().into(), web_slice(pods.iter().copied()).into()]);
        for (exchange, first) in &held {
            assert_eq!(exchange.ask(Patience::GENEROUS), *first);
        }
    }
}
