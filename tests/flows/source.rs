//! The source address and the mark: every way to tell local pods, and marks of other people.

use super::{everywhere, external_rows, on, on_port, web, web_slice};
use crate::netns::nft::nft_ok;
use crate::netns::prelude::*;

cases![
    cluster_cidr,
    node_cidr,
    bridge_interface,
    interface_name_prefix,
    local_policy_by_interface,
    local_policy_without_a_detector,
    foreign_marks_survive,
    another_masquerade_bit,
];

/// On the ClusterIP, these keep their source and those do not; endpoints on this node, so that all see this node.
fn sources(lab: &mut Lab, fields: &serde_json::Value, kept: &[Name], rewritten: &[Name]) {
    lab.apply(&[web().into(), web_slice([Pod1, Pod2]).into()]);
    lab.start(&config(fields));
    let rows = |names: &[Name]| -> Vec<Flow> {
        let rows = names.iter().map(|name| on(*name, Cluster(80), |row| row.reaches(on_port([Pod1, Pod2]))));
        rows.flatten().collect()
    };
    let kept = rows(kept).into_iter().map(Flow::kept);
    let rewritten = rows(rewritten).into_iter().map(Flow::rewritten);
    // what is no Service is left alone
    let direct =
        [Client, Pod3, Remote1].map(|name| from(name).tcp(Pod1, 8080).reaches(on_port([Pod1])).kept());
    lab.check(&kept.chain(rewritten).chain(direct).collect::<Vec<_>>());
}

fn cluster_cidr(lab: &mut Lab) {
    sources(lab, &json!({}), &[Pod3, Remote1], &[Client, Node]);
}

/// The Node object's own pod CIDRs, in both families.
fn node_cidr(lab: &mut Lab) {
    let fields = json!({ "detectLocalMode": "NodeCIDR", "clusterCIDR": "" });
    sources(lab, &fields, &[Pod3], &[Remote1, Client, Node]);
}

fn bridge_interface(lab: &mut Lab) {
    let fields = json!({
        "detectLocalMode": "BridgeInterface", "clusterCIDR": "", "detectLocal": { "bridgeInterface": "pod3" },
    });
    sources(lab, &fields, &[Pod3], &[Remote1, Client, Node]);
}

fn interface_name_prefix(lab: &mut Lab) {
    let fields = json!({
        "detectLocalMode": "InterfaceNamePrefix", "clusterCIDR": "", "detectLocal": { "interfaceNamePrefix": "pod" },
    });
    sources(lab, &fields, &[Pod3], &[Remote1, Client, Node]);
}

/// The short cut is for whom the interface makes a local pod.
fn local_policy_by_interface(lab: &mut Lab) {
    let local = everywhere().spec(&json!({ "externalTrafficPolicy": "Local" }));
    lab.apply(&[local.into(), web_slice([Pod1, Remote1]).into()]);
    lab.start(&config(&json!({
        "detectLocalMode": "InterfaceNamePrefix", "clusterCIDR": "", "detectLocal": { "interfaceNamePrefix": "pod" },
    })));
    let mut flows = external_rows(Pod3, |row| row.reaches(on_port([Pod1, Remote1])).kept());
    flows.extend(external_rows(Node, |row| row.reaches(on_port([Pod1, Remote1])).rewritten()));
    for outside in [Client, Remote2] {
        flows.extend(external_rows(outside, |row| row.reaches(on_port([Pod1])).kept()));
    }
    lab.check(&flows);
}

/// Then no pod is known to be local, and only the node takes the short cut.
fn local_policy_without_a_detector(lab: &mut Lab) {
    let local = everywhere().spec(&json!({ "externalTrafficPolicy": "Local" }));
    lab.apply(&[local.into(), web_slice([Pod1, Remote1]).into()]);
    lab.start(&config(&json!({ "clusterCIDR": "" })));
    let mut flows = external_rows(Node, |row| row.reaches(on_port([Pod1, Remote1])).rewritten());
    for outside in [Client, Pod3] {
        flows.extend(external_rows(outside, |row| row.reaches(on_port([Pod1])).kept()));
    }
    lab.check(&flows);
}

fn foreign_marks_survive(lab: &mut Lab) {
    marks(lab, &json!({}), 14);
}

fn another_masquerade_bit(lab: &mut Lab) {
    marks(lab, &json!({ "nftables": { "masqueradeBit": 3 } }), 3);
}

/// Someone sets every other bit of the mark before us; after us, all of them are there, and ours is not.
fn marks(lab: &mut Lab, fields: &serde_json::Value, bit: u32) {
    let others = !(1_u32 << bit);
    lab.apply(&[everywhere().into(), web_slice([Pod1, Remote1]).into()]);
    lab.start(&config(fields));
    lab.load_ruleset(
        Ns::Node,
        &format!(
            "table inet foreign {{
                counter seen {{ }}
                counter changed {{ }}
                chain before {{ type filter hook prerouting priority -300; meta mark set {others}; }}
                chain own {{ type filter hook output priority -300; meta mark set {others}; }}
                chain after {{
                    type filter hook postrouting priority 300;
                    meta mark {others} counter name seen
                    meta mark != {others} counter name changed
                }}
            }}"
        ),
    );
    let all = on_port([Pod1, Remote1]);
    let mut flows = on(Pod3, Cluster(80), |row| row.reaches(all).kept());
    for source in [Client, Node] {
        flows.extend(on(source, Cluster(80), |row| row.reaches(all).rewritten()));
        flows.extend(external_rows(source, |row| row.reaches(all).rewritten()));
    }
    flows.push(from(Pod3).tcp(Elsewhere, 443).untouched());
    flows.push(from(Client).tcp(Pod1, 8080).reaches(on_port([Pod1])).kept());
    lab.check(&flows);
    let counter = |name| nft_ok(&lab.topology, Ns::Node, &["list", "counter", "inet", "foreign", name], "");
    assert!(counter("changed").contains("packets 0 "), "{}", counter("changed"));
    assert!(!counter("seen").contains("packets 0 "), "{}", counter("seen"));
}
