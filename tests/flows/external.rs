//! External IPs and load-balancer IPs, with the policy Cluster.

use super::{on_port, web, web_slice};
use crate::netns::prelude::*;

cases![external_ip, load_balancer_ip, nothing_behind_it, only_its_ports, proxy_mode_is_not_captured];

/// Masquerading is for everyone: the way back must lead through this node.
fn reached(public: Name) -> Vec<Flow> {
    let all = on_port([Pod1, Pod2, Remote1]);
    let mut flows = Vec::new();
    for name in [Client, Client2, Pod3, Node] {
        flows.extend([
            from(name).tcp(public, 80).reaches(all).rewritten(),
            from(name).udp(public, 53).reaches(all).rewritten(),
            from(name).sctp(public, 90).reaches(all).rewritten(),
        ]);
    }
    flows.push(from(Pod3).tcp(Cluster(80), 80).reaches(all).kept());
    flows
}

fn external_ip(lab: &mut Lab) {
    lab.apply(&[web().external_ip(Public(7)).into(), web_slice([Pod1, Pod2, Remote1]).into()]);
    lab.start(&config(&json!({})));
    lab.check(&reached(Public(7)));
}

fn load_balancer_ip(lab: &mut Lab) {
    lab.apply(&[web().load_balancer(Public(8)).into(), web_slice([Pod1, Pod2, Remote1]).into()]);
    lab.start(&config(&json!({})));
    lab.check(&reached(Public(8)));
}

fn nothing_behind_it(lab: &mut Lab) {
    lab.apply(&[web().external_ip(Public(7)).load_balancer(Public(8)).into()]);
    lab.start(&config(&json!({})));
    let mut flows = Vec::new();
    for (name, public) in
        [Client, Pod3, Node].into_iter().flat_map(|name| [(name, Public(7)), (name, Public(8))])
    {
        flows.extend([
            from(name).tcp(public, 80).rejected(),
            from(name).udp(public, 53).rejected(),
            from(name).sctp(public, 90).rejected(),
        ]);
    }
    lab.check(&flows);
}

/// Other ports of the address go to whoever has it.
fn only_its_ports(lab: &mut Lab) {
    lab.apply(&[web().external_ip(PublicTaken).into(), web_slice([Pod1]).into()]);
    lab.start(&config(&json!({})));
    let mut flows = Vec::new();
    for name in [Pod3, Node] {
        flows.extend([
            from(name).tcp(PublicTaken, 80).reaches(on_port([Pod1])).rewritten(),
            from(name).tcp(PublicTaken, 81).untouched(),
            from(name).udp(PublicTaken, 80).untouched(),
        ]);
    }
    lab.check(&flows);
}

fn proxy_mode_is_not_captured(lab: &mut Lab) {
    let mut manifest = Objects::from(web().load_balancer(PublicTaken));
    for ingress in manifest.0[0]["status"]["loadBalancer"]["ingress"].as_array_mut().unwrap() {
        ingress["ipMode"] = json!("Proxy");
    }
    lab.apply(&[manifest, web_slice([Pod1]).into()]);
    lab.start(&config(&json!({})));
    lab.check(&[
        from(Pod3).tcp(PublicTaken, 80).untouched(),
        from(Node).tcp(PublicTaken, 80).untouched(),
        from(Pod3).tcp(Cluster(80), 80).reaches(on_port([Pod1])).kept(),
    ]);
}
