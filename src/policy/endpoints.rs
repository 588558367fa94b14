//! Which endpoints of a ServicePort are used on this node.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::net::{IpAddr, SocketAddr};

use super::topology::Topology;
use crate::model::{Endpoint, EndpointSlice, Family, Port, ServicePort, Zone};

/// Where a connection is sent: one endpoint's address and port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Target {
    /// The endpoint's address.
    pub address: IpAddr,
    /// The endpoint's port.
    pub port: Port,
    /// Whether the endpoint is on this node: it needs masquerading when it calls itself.
    pub local: bool,
}

impl std::fmt::Display for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let local = if self.local { " (local)" } else { "" };
        match self.address {
            IpAddr::V4(address) => write!(f, "{address}:{}{local}", self.port),
            IpAddr::V6(address) => write!(f, "[{address}]:{}{local}", self.port),
        }
    }
}

/// The endpoints of one ServicePort in one family, as this node uses them. Sorted, no duplicates.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Usable {
    /// The Cluster list: the ready endpoints that topology leaves; if none is ready anywhere, those
    /// that still serve while terminating (KEP-1669).
    pub cluster: Vec<Target>,
    /// The Local list: the ready endpoints on this node; if there is none, those on this node that
    /// still serve while terminating.
    pub local: Vec<Target>,
}

impl Usable {
    /// The endpoints for `port` among the slices of its Service.
    ///
    /// A slice port belongs to the ServicePort of the same name and protocol. One `address:port` may
    /// stand in two slices while the control plane moves it; it counts once, and the ready one, else
    /// the serving one, speaks for it.
    pub fn select<'s>(
        slices: impl Iterator<Item = &'s EndpointSlice>,
        port: &ServicePort,
        family: Family,
        zone: Option<&Zone>,
    ) -> Self {
        let candidates = candidates(slices.filter(|slice| slice.family == family), port);
        let ready = candidates.values().filter(|endpoint| endpoint.ready);
        let topology = Topology::decide(&ready, zone);
        let pick = |admit: &dyn Fn(&Endpoint) -> bool| -> Vec<Target> {
            let admitted = candidates.iter().filter(|(_, endpoint)| admit(endpoint));
            admitted
                .map(|((address, port), endpoint)| Target {
                    address: *address,
                    port: *port,
                    local: endpoint.local,
                })
                .collect()
        };
        let or_terminating = |list: Vec<Target>, admit: &dyn Fn(&Endpoint) -> bool| {
            if list.is_empty() { pick(&|e| e.serving && e.terminating && admit(e)) } else { list }
        };
        Self {
            cluster: or_terminating(pick(&|e| e.ready && topology.admits(e)), &|_| true),
            local: or_terminating(pick(&|e| e.ready && e.local), &|e| e.local),
        }
    }
}

/// The addresses and ports in one family that still answer for `port`, sorted: ready or serving,
/// whatever traffic policy and topology say. Flows that lead to them are left alone.
pub fn serving<'s>(
    slices: impl Iterator<Item = &'s EndpointSlice>,
    port: &ServicePort,
    family: Family,
) -> Vec<SocketAddr> {
    let candidates = candidates(slices.filter(|slice| slice.family == family), port);
    let serving = candidates.into_iter().filter(|(_, endpoint)| endpoint.ready || endpoint.serving);
    serving.map(|((address, port), _)| SocketAddr::new(address, port.number())).collect()
}

fn candidates<'s>(
    slices: impl Iterator<Item = &'s EndpointSlice>,
    port: &ServicePort,
) -> BTreeMap<(IpAddr, Port), Endpoint> {
    let mut candidates: BTreeMap<(IpAddr, Port), Endpoint> = BTreeMap::new();
    for slice in slices {
        let offered = slice.ports.iter().filter(|p| *p.name == *port.name && p.protocol == port.protocol);
        for number in offered.map(|p| p.port) {
            for endpoint in slice.endpoints.iter() {
                let rank = |e: &Endpoint| (e.ready, e.serving);
                match candidates.entry((endpoint.address, number)) {
                    Entry::Vacant(entry) => _ = entry.insert(endpoint),
                    Entry::Occupied(mut entry) if rank(&endpoint) > rank(entry.get()) => {
                        entry.insert(endpoint);
                    }
                    Entry::Occupied(_) => {}
                }
            }
        }
    }
    candidates
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::model::{NodeHint, Protocol, SlicePort};
    use crate::testing::{endpoint, local, port, service, slice, with};

    /// `10.0.0.1` ready elsewhere; suffixes: `L` on this node, `d` not ready and dead, `t` serving while
    /// terminating, `h` hinted for this node, `e` hinted for another node.
    fn parse(text: &str) -> Endpoint {
        let (address, flags) = text.split_at(text.find(char::is_alphabetic).unwrap_or(text.len()));
        with(endpoint(address), |e| {
            for flag in flags.chars() {
                match flag {
                    'L' => e.local = true,
                    'd' => (e.ready, e.serving) = (false, false),
                    't' => (e.ready, e.terminating) = (false, true),
                    'h' => e.node_hint = NodeHint::Here,
                    'e' => e.node_hint = NodeHint::Elsewhere,
                    _ => panic!("{flag}"),
                }
            }
        })
    }

    fn select(slices: &[EndpointSlice]) -> (String, String) {
        let port = &service("10.96.0.1").build().ports[0];
        let usable = Usable::select(slices.iter(), port, Family::V4, None);
        let text = |list: &[Target]| {
            list.iter().map(|t| format!("{}:{}", t.address, t.port)).collect::<Vec<_>>().join(" ")
        };
        (text(&usable.cluster), text(&usable.local))
    }

    #[test]
    fn lists_by_readiness_locality_and_hints() {
        let table: &[(&str, &str, &str)] = &[
            ("", "", ""),
            ("10.0.0.1 10.0.0.2", "10.0.0.1:80 10.0.0.2:80", ""),
            ("10.0.0.1L 10.0.0.2", "10.0.0.1:80 10.0.0.2:80", "10.0.0.1:80"),
            ("10.0.0.1d 10.0.0.2", "10.0.0.2:80", ""),
            ("10.0.0.1t 10.0.0.2", "10.0.0.2:80", ""),
            ("10.0.0.1t 10.0.0.2d", "10.0.0.1:80", ""),
            ("10.0.0.1Lt 10.0.0.2", "10.0.0.2:80", "10.0.0.1:80"),
            ("10.0.0.1Lt 10.0.0.2L", "10.0.0.2:80", "10.0.0.2:80"),
            ("10.0.0.1Ld 10.0.0.2d", "", ""),
            ("10.0.0.1e 10.0.0.2Lh", "10.0.0.2:80", "10.0.0.2:80"),
            ("10.0.0.1te 10.0.0.2te", "10.0.0.1:80 10.0.0.2:80", ""),
        ];
        for (endpoints, cluster, local) in table {
            let endpoints: Vec<Endpoint> = endpoints.split_whitespace().map(parse).collect();
            let got = select(&[slice("http", 80, &endpoints)]);
            assert_eq!(got, ((*cluster).to_owned(), (*local).to_owned()), "{endpoints:?}");
        }
    }

    #[test]
    fn slices_match_by_port_name_protocol_and_family() {
        let other_protocol = EndpointSlice {
            ports: Arc::new([SlicePort { name: "http".into(), protocol: Protocol::Udp, port: port(80) }]),
            ..slice("http", 80, &[endpoint("10.0.0.4")])
        };
        let slices = [
            slice("http", 8080, &[endpoint("10.0.0.1")]),
            slice("http", 9090, &[endpoint("10.0.0.2")]),
            slice("metrics", 80, &[endpoint("10.0.0.3")]),
            other_protocol,
            slice("http", 80, &[endpoint("fd00::1")]),
        ];
        assert_eq!(select(&slices).0, "10.0.0.1:8080 10.0.0.2:9090");
    }

    #[test]
    fn a_duplicate_counts_once_and_the_better_one_speaks() {
        for (first, second, cluster) in [
            (local("10.0.0.1"), local("10.0.0.1"), "10.0.0.1:80"),
            (parse("10.0.0.1d"), parse("10.0.0.1"), "10.0.0.1:80"),
            (parse("10.0.0.1"), parse("10.0.0.1t"), "10.0.0.1:80"),
            (parse("10.0.0.1d"), parse("10.0.0.1t"), "10.0.0.1:80"),
            (parse("10.0.0.1d"), parse("10.0.0.1d"), ""),
        ] {
            let slices = [slice("http", 80, &[first]), slice("http", 80, &[second])];
            assert_eq!(select(&slices).0, cluster, "{slices:?}");
        }
    }
}
