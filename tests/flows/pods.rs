//! Pods in the folder: the endpoints of Services that have no slices.

use serde_json::Value;

use super::{PORT, on_port, web, web_slice};
use crate::netns::prelude::*;

cases![stand_in];

/// A Pod on [`PORT`], which the ports of [`web`] find by their names.
fn pod(name: Name, labels: &Value, ready: bool, fields: &Value) -> Objects {
    let ports = [("http", "TCP"), ("dns", "UDP"), ("signal", "SCTP")]
        .map(|(name, protocol)| json!({ "name": name, "containerPort": PORT, "protocol": protocol }));
    let ips = BOTH.map(|family| json!({ "ip": name.ip(family).to_string() }));
    let mut pod = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": { "namespace": "shop", "name": format!("{name:?}").to_lowercase(), "labels": labels },
        "spec": { "nodeName": name.node_name(), "containers": [{ "name": "c", "ports": ports }] },
        "status": {
            "phase": "Running", "podIP": name.ip(BOTH[0]).to_string(), "podIPs": ips,
            "conditions": [{ "type": "Ready", "status": if ready { "True" } else { "False" } }],
        },
    });
    for (key, value) in fields.as_object().expect("an object") {
        pod["metadata"][key] = value.clone();
    }
    Objects(vec![pod])
}

/// From nothing to Pods, to slices, and back; local endpoints are told by the node's name.
fn stand_in(lab: &mut Lab) {
    let (labels, other, as_is) = (json!({ "app": "web", "x": "y" }), json!({ "app": "api" }), json!({}));
    let service = || web().spec(&json!({ "selector": { "app": "web" } }));
    let ready = |name| pod(name, &labels, true, &as_is);
    let reached = |name: Name, pods: &[Name]| {
        let pods: Vec<_> = pods.iter().map(|pod| (*pod, PORT)).collect();
        [
            from(name).tcp(Cluster(80), 80).reaches(pods.clone()),
            from(name).udp(Cluster(80), 53).reaches(pods.clone()),
            from(name).sctp(Cluster(80), 90).reaches(pods),
        ]
    };
    lab.apply(&[service().into(), ready(Pod1), ready(Remote1), pod(Remote2, &other, true, &as_is)]);
    lab.start(&config(&json!({})));
    lab.check(&reached(Client, &[Pod1, Remote1]));
    // not ready, or on its way out while another one is ready
    let gone = json!({ "deletionTimestamp": "2026-01-01T00:00:00Z" });
    lab.apply(&[
        service().into(),
        ready(Pod1),
        pod(Pod2, &labels, false, &as_is),
        pod(Remote1, &labels, true, &gone),
    ]);
    lab.check(&reached(Client, &[Pod1]));
    lab.apply(&[service().into(), pod(Remote1, &labels, true, &gone)]);
    lab.check(&reached(Client, &[Remote1]));
    lab.apply(&[
        service().spec(&json!({ "internalTrafficPolicy": "Local" })).into(),
        ready(Pod2),
        ready(Remote1),
    ]);
    lab.check(&reached(Pod3, &[Pod2]));
    lab.apply(&[service().into(), ready(Pod1), web_slice([Remote3]).into()]);
    lab.check(&[from(Client).tcp(Cluster(80), 80).reaches(on_port([Remote3]))]);
    lab.apply(&[service().into(), ready(Pod1)]);
    lab.check(&reached(Client, &[Pod1]));
    lab.apply(&[service().into()]);
    lab.check(&[from(Client).tcp(Cluster(80), 80).rejected()]);
}
