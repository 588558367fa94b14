//! The endpoints that Pods make for one Service, as the EndpointSlice controller has them
//! (`staging/src/k8s.io/endpointslice/utils.go` in kubernetes/kubernetes). PURE.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use super::{Pod, Selection, Target, TargetPort};
use crate::model::{Endpoint, EndpointSlice, Endpoints, Family, NodeHint, Port, SlicePort};

/// A slice for each family and each set of port numbers that Pods have in common: a named target port may
/// lead to different numbers. A port whose name a Pod does not have is left out for that Pod; a Pod
/// without any of the ports is no endpoint.
pub(super) fn slices<'a>(selection: &Selection, pods: impl Iterator<Item = &'a Pod>) -> Box<[EndpointSlice]> {
    let ports: Vec<TargetPort> = selection.ports().collect();
    let mut groups: BTreeMap<(Vec<Option<Port>>, Family), Vec<Endpoint>> = BTreeMap::new();
    for pod in pods {
        let numbers: Vec<_> = ports.iter().map(|port| number(pod, port)).collect();
        if numbers.iter().all(Option::is_none) {
            continue;
        }
        for address in pod.addresses.iter().filter(|address| selection.has(Family::of(address))) {
            let group = groups.entry((numbers.clone(), Family::of(address))).or_default();
            group.push(endpoint(pod, *address, selection.publishes_not_ready()));
        }
    }
    let slices = groups.into_iter().map(|((numbers, family), endpoints)| EndpointSlice {
        family,
        ports: slice_ports(&ports, &numbers),
        endpoints: Endpoints::new(family, endpoints),
    });
    slices.collect()
}

/// The number of the port that a Service leads to in a Pod. A name counts for one protocol only.
fn number(pod: &Pod, port: &TargetPort<'_>) -> Option<Port> {
    match port.target {
        Target::Number(number) => Some(number),
        Target::Name(name) => {
            let mut named = pod.ports.iter();
            named.find(|other| &*other.name == name && other.protocol == port.protocol).map(|port| port.port)
        }
    }
}

fn slice_ports(ports: &[TargetPort<'_>], numbers: &[Option<Port>]) -> Arc<[SlicePort]> {
    let all = ports.iter().zip(numbers);
    all.filter_map(|(TargetPort { name, protocol, .. }, number)| {
        number.map(|port| SlicePort { name: (*name).into(), protocol: *protocol, port })
    })
    .collect()
}

/// A Pod that is being deleted serves as long as it says so, and is not ready all the same, unless the
/// Service wants everything to be.
fn endpoint(pod: &Pod, address: IpAddr, publish_not_ready: bool) -> Endpoint {
    Endpoint {
        address,
        ready: publish_not_ready || (pod.ready && !pod.terminating),
        serving: pod.ready,
        terminating: pod.terminating,
        local: pod.local,
        node_hint: NodeHint::None,
        zone_hints: None,
    }
}
