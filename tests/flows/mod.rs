//! All tables.

mod affinity;
mod churn;
mod cluster_ip;
mod conntrack;
mod external;
mod harness;
mod kernel;
mod node_port;
mod pods;
mod restart;
mod uniform;
mod updates;
mod writes;

use crate::netns::objects::Service;
use crate::netns::prelude::*;
use crate::netns::runner::Case;

/// Every case, in the order in which they run.
pub fn all() -> Vec<Case> {
    [
        harness::CASES,
        cluster_ip::CASES,
        node_port::CASES,
        external::CASES,
        pods::CASES,
        updates::CASES,
        affinity::CASES,
        churn::CASES,
        conntrack::CASES,
        kernel::CASES,
        restart::CASES,
        writes::CASES,
        uniform::CASES,
    ]
    .concat()
}

/// The endpoints' port in most tables.
const PORT: u16 = 8080;

/// Pods as endpoints on [`PORT`].
fn on_port<const N: usize>(pods: [Name; N]) -> [(Name, u16); N] {
    pods.map(|pod| (pod, PORT))
}

/// `shop/web` on `Cluster(80)`: port 80 with TCP, 53 with UDP, 90 with SCTP.
fn web() -> Service {
    service("shop/web").cluster(80).port("http", 80).udp("dns", 53).sctp("signal", 90)
}

/// Its slices, with these pods ready.
fn web_slice(pods: impl IntoIterator<Item = Name>) -> Slice {
    slice("shop/web").port("http", PORT).udp("dns", PORT).sctp("signal", PORT).ready(pods)
}
