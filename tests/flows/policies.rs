//! Traffic policy Local, internal and external: who gets local endpoints, who takes the short cut, whose source is kept.

use super::{NODE_PORTS, PORTS, everywhere, external_rows, on, on_port, web, web_slice};
use crate::netns::objects::Service;
use crate::netns::prelude::*;

cases![
    external_with_local_endpoints,
    external_without_local_endpoints,
    external_falls_back_to_terminating,
    external_hairpin,
    internal_with_local_endpoints,
    internal_without_local_endpoints,
    internal_falls_back_to_terminating,
    both_local,
    nothing_anywhere,
    switched_live,
    no_node_ports_allocated,
];

fn external_local(service: Service) -> Service {
    service.spec(&json!({ "externalTrafficPolicy": "Local" }))
}

fn internal_local(service: Service) -> Service {
    service.spec(&json!({ "internalTrafficPolicy": "Local" }))
}

/// The ClusterIP as with the policy Cluster.
fn cluster_ip_reaches(pods: &[(Name, u16)]) -> Vec<Flow> {
    let reaches = |name| on(name, Cluster(80), |row| row.reaches(pods.iter().copied()));
    let mut flows: Vec<Flow> = reaches(Pod3).into_iter().map(Flow::kept).collect();
    flows.extend([Client, Node].into_iter().flat_map(reaches).map(Flow::rewritten));
    flows
}

/// The external frontends for pods and for the node: all endpoints, and only the node itself is masqueraded.
fn short_cut(pods: &[(Name, u16)]) -> Vec<Flow> {
    let mut flows = external_rows(Pod3, |row| row.reaches(pods.iter().copied()).kept());
    flows.extend(external_rows(Node, |row| row.reaches(pods.iter().copied()).rewritten()));
    flows
}

fn external_with_local_endpoints(lab: &mut Lab) {
    lab.apply(&[external_local(everywhere()).into(), web_slice([Pod1, Pod2, Remote1]).into()]);
    lab.start(&config(&json!({})));
    let all = on_port([Pod1, Pod2, Remote1]);
    let mut flows = [&short_cut(&all)[..], &cluster_ip_reaches(&all)].concat();
    for client in [Client, Client2] {
        flows.extend(external_rows(client, |row| row.reaches(on_port([Pod1, Pod2])).kept()));
    }
    lab.check(&flows);
}

fn external_without_local_endpoints(lab: &mut Lab) {
    lab.apply(&[external_local(everywhere()).into(), web_slice([Remote1, Remote2]).into()]);
    lab.start(&config(&json!({})));
    let all = on_port([Remote1, Remote2]);
    let mut flows = [&short_cut(&all)[..], &cluster_ip_reaches(&all)].concat();
    flows.extend(external_rows(Client, super::Probe::dropped));
    lab.check(&flows);
}

/// The local ones that still serve, while the ready ones elsewhere are for the short cut and the ClusterIP.
fn external_falls_back_to_terminating(lab: &mut Lab) {
    let draining = json!({ "ready": false, "serving": true, "terminating": true });
    let dead = json!({ "ready": false, "serving": false, "terminating": true });
    let slice = web_slice([Remote1]).endpoint(Pod1, &draining).endpoint(Pod2, &dead);
    lab.apply(&[external_local(everywhere()).into(), slice.into()]);
    lab.start(&config(&json!({})));
    let ready = on_port([Remote1]);
    let mut flows = [&short_cut(&ready)[..], &cluster_ip_reaches(&ready)].concat();
    flows.extend(external_rows(Client, |row| row.reaches(on_port([Pod1])).kept()));
    lab.check(&flows);
    // one local pod is ready again: the draining one is left alone
    let slice = web_slice([Remote1, Pod2]).endpoint(Pod1, &draining);
    lab.apply(&[external_local(everywhere()).into(), slice.into()]);
    lab.check(&external_rows(Client, |row| row.reaches(on_port([Pod2])).kept()));
    // nobody is ready anywhere
    let slice = web_slice([]).endpoint(Pod1, &draining).endpoint(Remote1, &draining);
    lab.apply(&[external_local(everywhere()).into(), slice.into()]);
    let both = on_port([Pod1, Remote1]);
    let mut flows = [&short_cut(&both)[..], &cluster_ip_reaches(&both)].concat();
    flows.extend(external_rows(Client, |row| row.reaches(on_port([Pod1])).kept()));
    lab.check(&flows);
}

fn external_hairpin(lab: &mut Lab) {
    lab.apply(&[external_local(everywhere()).into(), web_slice([Pod1]).into()]);
    lab.start(&config(&json!({})));
    let mut flows = external_rows(Pod1, |row| row.reaches(on_port([Pod1])).rewritten());
    flows.extend(external_rows(Pod2, |row| row.reaches(on_port([Pod1])).kept()));
    lab.check(&flows);
}

fn internal_with_local_endpoints(lab: &mut Lab) {
    lab.apply(&[internal_local(everywhere()).into(), web_slice([Pod1, Remote1]).into()]);
    lab.start(&config(&json!({})));
    let mut flows = cluster_ip_reaches(&on_port([Pod1]));
    for source in [Client, Pod3, Node] {
        flows.extend(external_rows(source, |row| row.reaches(on_port([Pod1, Remote1])).rewritten()));
    }
    flows.extend(on(Pod1, Cluster(80), |row| row.reaches(on_port([Pod1])).rewritten()));
    lab.check(&flows);
}

fn internal_without_local_endpoints(lab: &mut Lab) {
    lab.apply(&[internal_local(everywhere()).into(), web_slice([Remote1]).into()]);
    lab.start(&config(&json!({})));
    let mut flows = Vec::new();
    for source in [Client, Pod3, Node] {
        flows.extend(on(source, Cluster(80), super::Probe::dropped));
        flows.extend(external_rows(source, |row| row.reaches(on_port([Remote1])).rewritten()));
    }
    lab.check(&flows);
    // the same with nothing but a ClusterIP, and without any endpoint
    lab.apply(&[internal_local(web()).into(), web_slice([Remote1]).into()]);
    lab.check(&[Client, Pod3, Node].map(|name| on(name, Cluster(80), super::Probe::dropped)).concat());
    lab.apply(&[internal_local(web()).into(), web_slice([]).into()]);
    lab.check(&[Client, Pod3, Node].map(|name| on(name, Cluster(80), super::Probe::rejected)).concat());
}

fn internal_falls_back_to_terminating(lab: &mut Lab) {
    let draining = json!({ "ready": false, "serving": true, "terminating": true });
    let slice = || web_slice([Remote1]).endpoint(Pod1, &draining);
    lab.apply(&[internal_local(web()).into(), slice().into()]);
    lab.start(&config(&json!({})));
    lab.check(&cluster_ip_reaches(&on_port([Pod1])));
    lab.apply(&[internal_local(web()).into(), slice().ready([Pod2]).into()]);
    lab.check(&cluster_ip_reaches(&on_port([Pod2])));
}

fn both_local(lab: &mut Lab) {
    let service = || Objects::from(internal_local(external_local(everywhere())));
    lab.apply(&[service(), web_slice([Pod1, Remote1]).into()]);
    lab.start(&config(&json!({})));
    // the short cut leads to the Cluster list all the same
    let mut flows = [short_cut(&on_port([Pod1, Remote1])), cluster_ip_reaches(&on_port([Pod1]))].concat();
    flows.extend(external_rows(Client, |row| row.reaches(on_port([Pod1])).kept()));
    lab.check(&flows);
    lab.apply(&[service(), web_slice([Remote1]).into()]);
    let mut flows = short_cut(&on_port([Remote1]));
    flows.extend(external_rows(Client, super::Probe::dropped));
    flows.extend([Client, Pod3].map(|name| on(name, Cluster(80), super::Probe::dropped)).concat());
    lab.check(&flows);
}

/// Reject, not drop, whatever the policies.
fn nothing_anywhere(lab: &mut Lab) {
    let rows: Vec<Flow> = [Client, Pod3, Node]
        .into_iter()
        .flat_map(|name| {
            let external = external_rows(name, super::Probe::rejected);
            [on(name, Cluster(80), super::Probe::rejected), external].concat()
        })
        .collect();
    lab.apply(&[external_local(everywhere()).into()]);
    lab.start(&config(&json!({})));
    lab.check(&rows);
    lab.apply(&[internal_local(external_local(everywhere())).into()]);
    lab.check(&rows);
    let dead = json!({ "ready": false, "serving": false, "terminating": true });
    let slice = web_slice([]).endpoint(Pod1, &dead).endpoint(Remote1, &dead);
    lab.apply(&[external_local(everywhere()).into(), slice.into()]);
    lab.check(&rows);
}

fn switched_live(lab: &mut Lab) {
    let slice = || Objects::from(web_slice([Pod1, Remote1]));
    lab.apply(&[everywhere().into(), slice()]);
    lab.start(&config(&json!({})));
    let cluster = external_rows(Client, |row| row.reaches(on_port([Pod1, Remote1])).rewritten());
    let local = external_rows(Client, |row| row.reaches(on_port([Pod1])).kept());
    lab.check(&cluster);
    lab.apply(&[external_local(everywhere()).into(), slice()]);
    lab.check(&local);
    // local endpoints leave and come back
    lab.apply(&[external_local(everywhere()).into(), web_slice([Remote1]).into()]);
    lab.check(&external_rows(Client, super::Probe::dropped));
    lab.apply(&[external_local(everywhere()).into(), slice()]);
    lab.check(&local);
    lab.apply(&[internal_local(everywhere()).into(), slice()]);
    lab.check(&[cluster.clone(), cluster_ip_reaches(&on_port([Pod1]))].concat());
    lab.apply(&[everywhere().into(), slice()]);
    lab.check(&[cluster, cluster_ip_reaches(&on_port([Pod1, Remote1]))].concat());
}

/// `allocateLoadBalancerNodePorts: false`: the load-balancer IP alone.
fn no_node_ports_allocated(lab: &mut Lab) {
    let service = || web().load_balancer(Public(8)).spec(&json!({ "allocateLoadBalancerNodePorts": false }));
    lab.apply(&[external_local(service()).into(), web_slice([Pod1]).into()]);
    lab.start(&config(&json!({})));
    let mut flows = on(Client, Public(8), |row| row.reaches(on_port([Pod1])).kept());
    for (protocol, port) in NODE_PORTS.into_iter().chain(PORTS) {
        flows.push(from(Client).probe(protocol, Node, port).untouched());
    }
    lab.check(&flows);
}
