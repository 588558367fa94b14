//! Which endpoints are used: topology hints, terminating fall-backs, duplicates, several slices, legacy Endpoints.

use serde_json::Value;

use super::{PORT, external_rows, on, on_port, web, web_slice};
use crate::netns::prelude::*;

cases![
    zone_hints,
    node_hints,
    zone_label_changed_live,
    hints_and_policies,
    terminating,
    conditions_unset,
    duplicates,
    slices_with_different_port_numbers,
    legacy_endpoints,
];

fn zone(name: &str) -> Value {
    json!({ "forZones": [{ "name": name }] })
}

fn node(name: &str) -> Value {
    json!({ "forNodes": [{ "name": name }] })
}

fn both(node: &str, zone: &str) -> Value {
    json!({ "forNodes": [{ "name": node }], "forZones": [{ "name": zone }] })
}

fn draining() -> Value {
    json!({ "ready": false, "serving": true, "terminating": true })
}

fn dead() -> Value {
    json!({ "ready": false, "serving": false, "terminating": true })
}

/// Pods, the outside and the node reach exactly these on the ClusterIP.
fn reached<const N: usize>(pods: [Name; N]) -> Vec<Flow> {
    [Pod3, Client, Node].map(|name| on(name, Cluster(80), |row| row.reaches(on_port(pods)))).concat()
}

fn rejected() -> Vec<Flow> {
    [Pod3, Client, Node].map(|name| on(name, Cluster(80), super::Probe::rejected)).concat()
}

/// One state of the slice after the other.
fn steps(lab: &mut Lab, table: Vec<(Slice, Vec<Flow>)>) {
    for (step, (slice, rows)) in table.into_iter().enumerate() {
        lab.apply(&[web().into(), slice.into()]);
        if step == 0 {
            lab.start(&config(&json!({})));
        }
        lab.check(&rows);
    }
}

fn zone_hints(lab: &mut Lab) {
    let (a, b) = (zone("zone-a"), zone("zone-b"));
    let two = json!({ "forZones": [{ "name": "zone-b" }, { "name": "zone-a" }] });
    let table = vec![
        (web_slice([]).hinted([Pod1, Remote1], &a).hinted([Pod2], &b), reached([Pod1, Remote1])),
        // one without a hint: all of them
        (web_slice([Remote2]).hinted([Pod1], &a).hinted([Pod2], &b), reached([Remote2, Pod1, Pod2])),
        (web_slice([]).hinted([Pod1], &a).hinted([Pod2], &json!({})), reached([Pod1, Pod2])),
        // none for us
        (web_slice([]).hinted([Pod1], &zone("zone-c")).hinted([Pod2], &b), reached([Pod1, Pod2])),
        (web_slice([]).hinted([Pod1], &two).hinted([Remote1], &b), reached([Pod1])),
        // what is not ready needs no hint
        (web_slice([]).hinted([Remote1], &a).hinted([Pod1], &b).endpoint(Pod2, &dead()), reached([Remote1])),
    ];
    steps(lab, table);
}

fn node_hints(lab: &mut Lab) {
    let (here, there) = (node("node-a"), node("node-b"));
    let two = |one: (Name, &Value), other: (Name, &Value)| {
        web_slice([]).hinted([one.0], one.1).hinted([other.0], other.1)
    };
    let table = vec![
        (web_slice([]).hinted([Pod1], &here).hinted([Remote1, Remote2], &there), reached([Pod1])),
        (two((Pod1, &here), (Remote1, &there)).ready([Remote2]), reached([Pod1, Remote1, Remote2])),
        (web_slice([]).hinted([Remote1, Remote2], &there), reached([Remote1, Remote2])),
        // the node goes before the zone
        (two((Pod1, &both("node-a", "zone-a")), (Remote1, &both("node-b", "zone-a"))), reached([Pod1])),
        // none for this node, then not all with a node: the zone
        (two((Remote2, &both("node-b", "zone-b")), (Remote1, &both("node-c", "zone-a"))), reached([Remote1])),
        (two((Pod1, &both("node-a", "zone-b")), (Remote1, &zone("zone-a"))), reached([Remote1])),
    ];
    steps(lab, table);
}

fn zone_label_changed_live(lab: &mut Lab) {
    let objects = || -> [Objects; 2] {
        let hinted = web_slice([]).hinted([Pod1], &zone("zone-a")).hinted([Remote1], &zone("zone-b"));
        [web().into(), hinted.into()]
    };
    lab.apply(&objects());
    lab.start(&config(&json!({})));
    lab.check(&reached([Pod1]));
    let tables: [(Value, Vec<Flow>); 4] = [
        (json!({ "topology.kubernetes.io/zone": "zone-b" }), reached([Remote1])),
        (json!({}), reached([Pod1, Remote1])),
        (json!({ "topology.kubernetes.io/zone": "zone-c" }), reached([Pod1, Remote1])),
        (json!({ "topology.kubernetes.io/zone": "zone-a" }), reached([Pod1])),
    ];
    for (labels, rows) in tables {
        lab.base[0].0[0]["metadata"]["labels"] = labels;
        lab.apply(&objects());
        lab.check(&rows);
    }
}

/// Hints narrow the Cluster list only; the Local list knows none.
fn hints_and_policies(lab: &mut Lab) {
    let service = super::everywhere().spec(&json!({ "externalTrafficPolicy": "Local" }));
    let hinted = web_slice([]).hinted([Pod1], &zone("zone-b")).hinted([Remote1], &zone("zone-a"));
    lab.apply(&[service.into(), hinted.into()]);
    lab.start(&config(&json!({})));
    let mut flows = reached([Remote1]);
    flows.extend(external_rows(Client, |row| row.reaches(on_port([Pod1])).kept()));
    flows.extend(external_rows(Pod3, |row| row.reaches(on_port([Remote1])).kept()));
    lab.check(&flows);
}

fn terminating(lab: &mut Lab) {
    let unready = json!({ "ready": false, "serving": true, "terminating": false });
    let none = || web_slice([]);
    let two = || none().endpoint(Pod1, &draining()).endpoint(Remote1, &draining());
    let table = vec![
        (web_slice([Pod1]).endpoint(Remote1, &draining()), reached([Pod1])),
        (two().endpoint(Pod2, &dead()), reached([Pod1, Remote1])),
        (none().endpoint(Pod1, &dead()).endpoint(Remote1, &draining()), reached([Remote1])),
        // serving, but neither ready nor on its way out
        (none().endpoint(Pod1, &unready), rejected()),
        (none().endpoint(Pod1, &dead()), rejected()),
        // a hinted one that is ready goes before them; without it no hint matters
        (two().hinted([Remote2], &zone("zone-b")), reached([Remote2])),
        (two(), reached([Pod1, Remote1])),
    ];
    steps(lab, table);
}

fn conditions_unset(lab: &mut Lab) {
    let pod1 = |conditions: Value| web_slice([]).endpoint(Pod1, &conditions);
    let table = vec![
        (pod1(json!({})), reached([Pod1])),
        (pod1(json!({})).endpoint(Pod2, &json!({ "ready": false })), reached([Pod1])),
        (pod1(json!({ "ready": null, "serving": null })), reached([Pod1])),
        (pod1(json!({ "ready": false, "terminating": true })), reached([Pod1])),
    ];
    steps(lab, table);
}

/// One that stands in two slices counts once; the better of the two speaks for it.
fn duplicates(lab: &mut Lab) {
    let first = |conditions: &Value| Objects::from(web_slice([]).endpoint(Pod1, conditions));
    let second =
        |conditions: &Value| -> Objects { web_slice([]).suffix("-b").endpoint(Pod1, conditions).into() };
    lab.apply(&[web().into(), web_slice([Pod1, Remote1]).into(), second(&dead())]);
    lab.start(&config(&json!({})));
    lab.check(&reached([Pod1, Remote1]));
    lab.apply(&[web().into(), first(&dead()), second(&draining())]);
    lab.check(&reached([Pod1]));
    lab.apply(&[web().into(), first(&dead()), second(&json!({}))]);
    lab.check(&reached([Pod1]));
    // the ready one leaves, the one that is not remains
    lab.apply(&[web().into(), web_slice([Remote1]).into(), second(&dead())]);
    lab.check(&reached([Remote1]));
}

/// Pods that give a named target port different numbers; one pod may even have both.
fn slices_with_different_port_numbers(lab: &mut Lab) {
    let other = |number, pods: &[Name]| {
        let slice = slice("shop/web").suffix("-b").port("http", number);
        let slice = slice.udp("dns", number).sctp("signal", number);
        Objects::from(slice.ready(pods.iter().copied()))
    };
    let rows = |all: &[(Name, u16)]| {
        let row = |name| on(name, Cluster(80), |row| row.reaches(all.iter().copied()));
        [Pod3, Client, Node].map(row).concat()
    };
    lab.apply(&[web().into(), web_slice([Pod1]).into(), other(8081, &[Pod2, Pod1])]);
    lab.start(&config(&json!({})));
    lab.check(&rows(&[(Pod1, PORT), (Pod2, 8081), (Pod1, 8081)]));
    lab.apply(&[web().into(), web_slice([Pod1]).into(), other(9090, &[Pod2])]);
    lab.check(&rows(&[(Pod1, PORT), (Pod2, 9090)]));
    lab.apply(&[web().into(), other(9090, &[Pod2])]);
    lab.check(&rows(&[(Pod2, 9090)]));
}

/// The Endpoints of `shop/web`, both families in one object.
fn legacy(ready: &[Name], not_ready: &[Name]) -> Objects {
    let addresses = |names: &[Name]| -> Vec<Value> {
        let all = names.iter().flat_map(|name| BOTH.map(|family| (name, family)));
        all.map(|(name, family)| json!({ "ip": name.ip(family).to_string(), "nodeName": name.node_name() }))
            .collect()
    };
    let ports = [("http", "TCP"), ("dns", "UDP"), ("signal", "SCTP")]
        .map(|(name, protocol)| json!({ "name": name, "port": PORT, "protocol": protocol }));
    let (ready, not_ready) = (addresses(ready), addresses(not_ready));
    let subset = json!({ "addresses": ready, "notReadyAddresses": not_ready, "ports": ports });
    Objects(vec![json!({
        "apiVersion": "v1", "kind": "Endpoints",
        "metadata": { "namespace": "shop", "name": "web" }, "subsets": [subset],
    })])
}

/// They count for as long as there is no slice, not even an empty one.
fn legacy_endpoints(lab: &mut Lab) {
    lab.apply(&[web().into(), legacy(&[Pod1, Remote1], &[Pod2])]);
    lab.start(&config(&json!({})));
    lab.check(&reached([Pod1, Remote1]));
    lab.apply(&[web().into(), legacy(&[Pod2], &[Pod1, Remote1])]);
    lab.check(&reached([Pod2]));
    let local = web().spec(&json!({ "internalTrafficPolicy": "Local" }));
    lab.apply(&[local.into(), legacy(&[Pod1, Remote1], &[])]);
    lab.check(&reached([Pod1]));
    lab.apply(&[web().into(), legacy(&[], &[Pod1])]);
    lab.check(&rejected());
    lab.apply(&[web().into(), legacy(&[Pod1], &[]), web_slice([Remote1]).into()]);
    lab.check(&reached([Remote1]));
    lab.apply(&[web().into(), legacy(&[Pod1], &[]), web_slice([]).into()]);
    lab.check(&rejected());
    lab.apply(&[web().into(), legacy(&[Pod1], &[])]);
    lab.check(&reached([Pod1]));
}
