//! All tables.

mod addresses;
mod affinity;
mod choice;
mod churn;
mod cluster_ip;
mod conflicts;
mod conntrack;
mod drift;
mod external;
mod harness;
mod health;
mod kernel;
mod live;
mod migration;
mod node_port;
mod pods;
mod policies;
mod proxy;
mod ranges;
mod reload;
mod restart;
mod scaling;
mod settings;
mod source;
mod uniform;
mod updates;
mod writes;

use crate::netns::flow::{Probe, Protocol};
use crate::netns::mode::Mode;
use crate::netns::objects::Service;
use crate::netns::prelude::*;
use crate::netns::runner::Case;

/// Every case, in the order in which they run.
pub fn all() -> Vec<Case> {
    let userspace = FOR_A_PROXY
        .concat()
        .into_iter()
        .filter(|case| !NOT_FOR_A_PROXY.iter().any(|(name, _)| case.name.ends_with(name)));
    let userspace = userspace.map(|case| Case { mode: Mode::Userspace, ..case });
    of_nftables().into_iter().chain(userspace).collect()
}

/// Tables that the userspace mode has to satisfy as well, as [`Mode::expects`] has it.
const FOR_A_PROXY: [&[Case]; 16] = [
    proxy::CASES,
    cluster_ip::CASES,
    node_port::CASES,
    external::CASES,
    health::CASES,
    pods::CASES,
    policies::CASES,
    ranges::CASES,
    choice::CASES,
    addresses::CASES,
    conflicts::CASES,
    live::CASES,
    scaling::CASES,
    updates::CASES,
    affinity::CASES,
    churn::CASES,
];

/// Cases that a proxy cannot satisfy, and why.
const NOT_FOR_A_PROXY: [(&str, &str); 16] = [
    ("node_port::not_a_node_port", "puts a server on an address and port that the proxy has bound"),
    ("external::only_its_ports", "the external IP is the node's own now: its other ports are refused"),
    ("addresses::wrong_port_but_bound", "puts a ClusterIP on an interface, where it is local already"),
    ("addresses::unowned_but_bound", "reaches the server on such an address with its own source"),
    (
        "ranges::blocked_before_anything_else",
        "who may call is accepted before it is clear that nobody answers",
    ),
    ("updates::connections_live_on", "connections end with the proxy that forwards them"),
    ("churn::the_daemon_restarts", "the same: nobody accepts between two daemons"),
    ("churn::killed_at_any_moment", "the same"),
    ("churn::killed_in_its_first_start", "looks at the tables in nftables"),
    ("affinity::over_all_frontends", "speaks SCTP"),
    ("affinity::over_restarts", "clients are remembered in memory"),
    ("affinity::removed_while_it_was_away", "the same"),
    ("affinity::nothing_stays_behind", "looks at the maps in nftables"),
    ("affinity::listing_loads_again", "the same"),
    ("affinity::a_hundred_thousand_clients", "the same"),
    ("affinity::a_syn_sent_again_writes_nothing", "the same"),
];

/// Every case of the nftables mode.
fn of_nftables() -> Vec<Case> {
    [
        harness::CASES,
        cluster_ip::CASES,
        node_port::CASES,
        external::CASES,
        health::CASES,
        pods::CASES,
        policies::CASES,
        ranges::CASES,
        choice::CASES,
        source::CASES,
        addresses::CASES,
        conflicts::CASES,
        live::CASES,
        scaling::CASES,
        updates::CASES,
        affinity::CASES,
        churn::CASES,
        conntrack::CASES,
        kernel::CASES,
        reload::CASES,
        settings::CASES,
        drift::CASES,
        migration::CASES,
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

/// The ports of [`web`] and [`everywhere`].
const PORTS: [(Protocol, u16); 3] = [(Protocol::Tcp, 80), (Protocol::Udp, 53), (Protocol::Sctp, 90)];
/// The NodePorts of [`everywhere`].
const NODE_PORTS: [(Protocol, u16); 3] =
    [(Protocol::Tcp, 30080), (Protocol::Udp, 30053), (Protocol::Sctp, 30090)];

/// [`web`] on NodePorts, the external IP `Public(7)` and the load-balancer IP `Public(8)`.
fn everywhere() -> Service {
    let service = service("shop/web").cluster(80).port("http", 80).node_port(30080);
    let service = service.udp("dns", 53).node_port(30053).sctp("signal", 90).node_port(30090);
    service.external_ip(Public(7)).load_balancer(Public(8))
}

/// A row for each protocol of [`web`] on one address.
fn on(source: Name, address: Name, expect: impl Fn(Probe) -> Flow) -> Vec<Flow> {
    let ports = if address == Node { NODE_PORTS } else { PORTS };
    ports.map(|(protocol, port)| expect(from(source).probe(protocol, address, port))).to_vec()
}

/// A row for each protocol and each external frontend of [`everywhere`].
fn external_rows(source: Name, expect: impl Fn(Probe) -> Flow) -> Vec<Flow> {
    [Node, Public(7), Public(8)].into_iter().flat_map(|address| on(source, address, &expect)).collect()
}
