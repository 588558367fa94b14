//! What load balancers and dashboards are told of a Service's endpoints on this node.

use std::collections::BTreeSet;
use std::net::IpAddr;

use super::endpoints::Usable;
use crate::model::{EndpointSlice, Family, Port, Service, TrafficPolicy};

/// A `healthCheckNodePort` and what is said at it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HealthPort {
    /// The port.
    pub port: Port,
    /// How many endpoints of the Service on this node are ready.
    pub local_endpoints: usize,
}

/// The health port of a Service; none unless its external policy is Local. A dual-stack pod counts
/// once: the family with more ready endpoints here speaks for both.
#[must_use]
pub fn health_port<'s>(
    service: &Service,
    slices: &(impl Iterator<Item = &'s EndpointSlice> + Clone),
) -> Option<HealthPort> {
    let port = service.health_check_node_port?;
    if service.external_policy != TrafficPolicy::Local {
        return None;
    }
    let offered = |slice: &&EndpointSlice| {
        slice.ports.iter().any(|offer| {
            service.ports.iter().any(|port| *port.name == *offer.name && port.protocol == offer.protocol)
        })
    };
    let count = |family: Family| {
        let served = service.cluster_ips.iter().any(|ip| Family::of(ip) == family);
        let slices = slices.clone().filter(|slice| served && slice.family == family).filter(offered);
        let ready = slices.flat_map(|slice| slice.endpoints.iter()).filter(|e| e.local && e.ready);
        ready.map(|endpoint| endpoint.address).collect::<BTreeSet<IpAddr>>().len()
    };
    let local_endpoints = Family::ALL.map(count).into_iter().max().unwrap_or_default();
    Some(HealthPort { port, local_endpoints })
}

/// ServicePorts with a policy Local that have endpoints, but none here: their traffic is dropped.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WithoutLocal {
    /// Those whose internal policy is Local.
    pub internal: i64,
    /// Those whose external policy is Local.
    pub external: i64,
}

/// Counts the ports of a Service in one family that have endpoints only elsewhere.
#[must_use]
pub fn without_local<'s>(
    service: &Service,
    slices: &(impl Iterator<Item = &'s EndpointSlice> + Clone),
    family: Family,
) -> WithoutLocal {
    let local = |policy| i64::from(policy == TrafficPolicy::Local);
    let (internal, external) = (local(service.internal_policy), local(service.external_policy));
    let mut without = WithoutLocal::default();
    if internal + external == 0 || service.cluster_ips.iter().all(|ip| Family::of(ip) != family) {
        return without;
    }
    for port in &service.ports {
        let usable = Usable::select(slices.clone(), port, family, None);
        if !usable.cluster.is_empty() && usable.local.is_empty() {
            without.internal += internal;
            without.external += external;
        }
    }
    without
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Endpoint;
    use crate::testing::{endpoint, local, port, service, slice, with};

    fn draining(address: &str) -> Endpoint {
        with(local(address), |e| (e.ready, e.terminating) = (false, true))
    }

    #[test]
    fn ready_endpoints_on_this_node_are_counted_once() {
        let mut balanced = service("10.96.0.1,fd00::1").external_local().build();
        balanced.health_check_node_port = Some(port(30123));
        let table: &[(&[Endpoint], usize)] = &[
            (&[], 0),
            (&[local("10.1.0.1"), local("10.1.0.2"), endpoint("10.1.0.3")], 2),
            (&[draining("10.1.0.1"), endpoint("10.1.0.3")], 0),
        ];
        for (endpoints, expected) in table {
            let six = slice("http", 80, &[local("fd01::1")][..usize::from(*expected > 0)]);
            let other_port = slice("metrics", 80, &[local("10.1.0.9")]);
            let slices = [slice("http", 80, endpoints), slice("http", 80, endpoints), six, other_port];
            let got = health_port(&balanced, &slices.iter());
            assert_eq!(got, Some(HealthPort { port: port(30123), local_endpoints: *expected }));
        }
        balanced.external_policy = TrafficPolicy::Cluster;
        assert_eq!(health_port(&balanced, &std::iter::empty()), None);
    }

    #[test]
    fn ports_whose_endpoints_are_all_elsewhere() {
        let both = || service("10.96.0.1").external_local().internal_local().build();
        let count = |service: &Service, endpoints: &[Endpoint]| {
            let found = without_local(service, &[slice("http", 80, endpoints)].iter(), Family::V4);
            (found.internal, found.external)
        };
        assert_eq!(count(&both(), &[endpoint("10.1.0.1")]), (1, 1));
        assert_eq!(count(&both(), &[endpoint("10.1.0.1"), draining("10.1.0.2")]), (0, 0));
        assert_eq!(count(&both(), &[]), (0, 0), "that is rejected, not dropped");
        let external = service("10.96.0.1").external_local().build();
        assert_eq!(count(&external, &[endpoint("10.1.0.1")]), (0, 1));
    }
}
