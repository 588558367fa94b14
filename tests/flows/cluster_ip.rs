//! ClusterIPs: who answers, with which source address, and what is refused.

use super::{on_port, web, web_slice};
use crate::netns::flow::Protocol;
use crate::netns::prelude::*;

cases![
    reached_from_everywhere,
    hairpin,
    masquerade_all,
    no_local_detector,
    nothing_behind_it,
    wrong_ports,
    unowned
];

/// The ports of [`web`].
const PORTS: [(Protocol, u16); 3] = [(Protocol::Tcp, 80), (Protocol::Udp, 53), (Protocol::Sctp, 90)];

/// Only what is not from a pod needs masquerading.
fn reached_from_everywhere(lab: &mut Lab) {
    lab.apply(&[web().into(), web_slice([Pod1, Pod2, Remote1]).into()]);
    lab.start(&config(&json!({})));
    let all = on_port([Pod1, Pod2, Remote1]);
    let mut flows = Vec::new();
    for (protocol, port) in PORTS {
        flows.extend([
            from(Pod3).probe(protocol, Cluster(80), port).reaches(all).kept(),
            from(Client).probe(protocol, Cluster(80), port).reaches(all).rewritten(),
            from(Node).probe(protocol, Cluster(80), port).reaches(all).rewritten(),
        ]);
    }
    lab.check(&flows);
    // a pod of another node that comes this way is a pod all the same
    lab.apply(&[web().into(), web_slice([Pod1, Pod2]).into()]);
    lab.check(&PORTS.map(|(protocol, port)| {
        from(Remote2).probe(protocol, Cluster(80), port).reaches(on_port([Pod1, Pod2])).kept()
    }));
}

/// An endpoint that gets itself would answer itself past the node, were it not masqueraded.
fn hairpin(lab: &mut Lab) {
    lab.apply(&[web().into(), web_slice([Pod1]).into()]);
    lab.start(&config(&json!({})));
    let mut flows = Vec::new();
    for (protocol, port) in PORTS {
        flows.extend([
            from(Pod1).probe(protocol, Cluster(80), port).reaches(on_port([Pod1])).rewritten(),
            from(Pod2).probe(protocol, Cluster(80), port).reaches(on_port([Pod1])).kept(),
        ]);
    }
    lab.check(&flows);
    lab.apply(&[web().into(), web_slice([Pod1, Pod2]).into()]);
    let both = on_port([Pod1, Pod2]);
    lab.check(&PORTS.map(|(protocol, port)| from(Pod1).probe(protocol, Cluster(80), port).reaches(both)));
}

fn masquerade_all(lab: &mut Lab) {
    lab.apply(&[web().into(), web_slice([Pod1, Remote1]).into()]);
    lab.start(&config(&json!({ "nftables": { "masqueradeAll": true } })));
    let both = on_port([Pod1, Remote1]);
    let mut flows = Vec::new();
    for (protocol, port) in PORTS {
        let sources = [Pod3, Remote2, Client, Node];
        flows.extend(
            sources.map(|name| from(name).probe(protocol, Cluster(80), port).reaches(both).rewritten()),
        );
    }
    // what is no Service keeps its source even then
    flows.push(from(Pod3).tcp(Elsewhere, 443).untouched());
    flows.push(from(Pod3).tcp(Pod1, 8080).reaches(on_port([Pod1])).kept());
    lab.check(&flows);
}

/// Without a cluster CIDR nobody knows what is local: nothing sent to a ClusterIP is masqueraded.
fn no_local_detector(lab: &mut Lab) {
    lab.apply(&[web().into(), web_slice([Pod1, Pod2]).into()]);
    lab.start(&config(&json!({ "clusterCIDR": "" })));
    let both = on_port([Pod1, Pod2]);
    lab.check(&[
        from(Pod3).tcp(Cluster(80), 80).reaches(both).kept(),
        from(Client).tcp(Cluster(80), 80).reaches(both).kept(),
        from(Client).udp(Cluster(80), 53).reaches(both).kept(),
    ]);
}

fn nothing_behind_it(lab: &mut Lab) {
    lab.apply(&[web().into()]);
    lab.start(&config(&json!({})));
    let rejected =
        |name: Name| PORTS.map(|(protocol, port)| from(name).probe(protocol, Cluster(80), port).rejected());
    let flows = [Pod3, Client, Node].map(rejected).concat();
    lab.check(&flows);
    // endpoints that are neither ready nor serving are as good as none
    let idle = json!({ "ready": false, "serving": false, "terminating": false });
    lab.apply(&[web().into(), web_slice([]).endpoint(Pod1, &idle).into()]);
    lab.check(&flows);
}

fn wrong_ports(lab: &mut Lab) {
    lab.apply(&[web().into(), web_slice([Pod1]).into()]);
    lab.start(&config(&json!({})));
    let mut flows = Vec::new();
    for name in [Pod3, Client, Node] {
        flows.extend([
            from(name).tcp(Cluster(80), 81).rejected(),
            from(name).udp(Cluster(80), 54).rejected(),
            from(name).sctp(Cluster(80), 91).rejected(),
            // the right number, the wrong protocol
            from(name).tcp(Cluster(80), 53).rejected(),
            from(name).udp(Cluster(80), 80).rejected(),
        ]);
    }
    lab.check(&flows);
}

/// Addresses of the ServiceCIDR that no Service has; and all others are none of our business.
fn unowned(lab: &mut Lab) {
    lab.apply(&[web().into(), web_slice([Pod1]).into()]);
    lab.start(&config(&json!({})));
    let mut flows = Vec::new();
    for name in [Pod3, Client, Node] {
        flows.extend([
            from(name).tcp(Cluster(200), 80).dropped(),
            from(name).udp(Cluster(200), 53).dropped(),
            from(name).sctp(Cluster(200), 90).dropped(),
            from(name).tcp(Elsewhere, 80).untouched(),
            from(name).udp(Elsewhere, 53).untouched(),
            from(name).tcp(Pod1, 8080).reaches(on_port([Pod1])).kept(),
        ]);
    }
    lab.check(&flows);
}
