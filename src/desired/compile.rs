//! From one Service to its rows: policy decisions put together. Nothing here looks at two Services.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;

use super::row::{Affinity, Choice, Forwarding, MOST_ENDPOINTS, Masquerade, Row, ServicePortName};
use crate::config::NodePortAddresses;
use crate::model::{Family, Service, ServiceName, ServicePort, Store, TrafficPolicy};
use crate::policy::endpoints::{Target, Usable};
use crate::policy::exposure::{FrontendAddress, FrontendKind, frontends};
use crate::policy::ranges::allowed_sources;

/// What every Service's rows depend on besides the Service itself.
#[derive(Clone, Debug)]
pub struct Context {
    /// The node IPs, for source ranges that contain one.
    pub node_ips: Vec<IpAddr>,
    /// Where NodePorts answer.
    pub node_port_addresses: NodePortAddresses,
}

/// The rows of a Service in one family, sorted by key; none if there is no such Service.
#[must_use]
pub fn service_rows(store: &Store, name: &ServiceName, family: Family, context: &Context) -> Vec<Row> {
    let Some(service) = store.service(name) else { return Vec::new() };
    let allowed = allowed_sources(service, family, &context.node_ips).map(Arc::from);
    let mut rows = Vec::new();
    let mut hairpins = BTreeSet::new();
    for port in &service.ports {
        let offered = frontends(service, port, family);
        if offered.is_empty() {
            continue;
        }
        let zone = store.node().and_then(|node| node.zone.as_ref());
        let usable = Usable::select(store.slices(name), port, family, zone);
        let local = usable.cluster.iter().chain(&usable.local).filter(|target| target.local);
        hairpins.extend(local.map(|target| target.address));
        let lists = Lists::new(service, port, name, usable);
        for (frontend, kind) in offered {
            let sources = allowed.clone().filter(|_| kind == FrontendKind::LoadBalancer);
            rows.push(Row::Frontend(frontend, lists.forwarding(service, kind, sources).into()));
            if let (FrontendKind::ClusterIp, FrontendAddress::Ip(address)) = (kind, frontend.address) {
                rows.push(Row::ClusterIp(address, name.clone()));
            }
        }
    }
    rows.extend(hairpins.into_iter().map(Row::Hairpin));
    rows.sort_by_key(Row::key);
    rows.dedup_by_key(|row| row.key());
    rows
}

/// The rows of the node itself in one family, sorted by key.
#[must_use]
pub fn node_rows(store: &Store, family: Family, context: &Context) -> Vec<Row> {
    let nodeports: BTreeSet<IpAddr> = match &context.node_port_addresses {
        NodePortAddresses::Primary => {
            let mut ips = context.node_ips.iter().filter(|ip| Family::of(ip) == family);
            let from_node = store.node().is_some_and(|node| !node.addresses.is_empty());
            if from_node { ips.next().into_iter().copied().collect() } else { ips.copied().collect() }
        }
        NodePortAddresses::Cidrs(_) => {
            let held = store.local_addresses().iter().map(|held| held.address);
            held.filter(|ip| Family::of(ip) == family && context.node_port_addresses.admits(ip)).collect()
        }
    };
    let cidrs: Vec<IpNet> =
        store.service_cidrs().filter(|net| Family::of_net(net) == family).map(IpNet::trunc).collect();
    let mut rows: Vec<Row> = nodeports.into_iter().map(Row::NodePortAddress).collect();
    rows.extend(IpNet::aggregate(&cidrs).into_iter().map(Row::ServiceCidr));
    rows.sort_by_key(Row::key);
    rows
}

/// The two endpoint lists of one ServicePort, shared by all of its frontends.
struct Lists {
    name: ServicePortName,
    cluster: Choice,
    local: Choice,
    proxy_protocol: bool,
}

impl Lists {
    fn new(service: &Service, port: &ServicePort, name: &ServiceName, usable: Usable) -> Self {
        let nowhere = usable.cluster.is_empty() && usable.local.is_empty();
        let choose = |mut targets: Vec<Target>| match (targets.is_empty(), nowhere) {
            (false, _) => {
                targets.truncate(MOST_ENDPOINTS);
                Choice::Endpoints(targets.into_iter().collect())
            }
            (true, true) => Choice::Reject,
            (true, false) => Choice::Drop,
        };
        let uses_local = [service.internal_policy, service.external_policy].contains(&TrafficPolicy::Local);
        Self {
            name: ServicePortName { service: name.clone(), port: port.name.clone() },
            cluster: choose(usable.cluster),
            local: if uses_local { choose(usable.local) } else { Choice::Reject },
            proxy_protocol: service.proxy_protocol,
        }
    }

    /// Semantics.md section 5, "Source address", and section 3.4.
    fn forwarding(&self, service: &Service, kind: FrontendKind, sources: Option<Arc<[IpNet]>>) -> Forwarding {
        let policy = if kind.is_external() { service.external_policy } else { service.internal_policy };
        let nowhere = matches!(self.cluster, Choice::Reject);
        let (masquerade, to, from_outside) = match (kind.is_external(), policy) {
            (false, TrafficPolicy::Cluster) => (Masquerade::Foreign, &self.cluster, None),
            (false, TrafficPolicy::Local) => (Masquerade::Foreign, &self.local, None),
            (true, TrafficPolicy::Cluster) => (Masquerade::Always, &self.cluster, None),
            (true, TrafficPolicy::Local) if nowhere => (Masquerade::Own, &self.cluster, None),
            (true, TrafficPolicy::Local) => (Masquerade::Own, &self.cluster, Some(self.local.clone())),
        };
        let goes_somewhere = matches!(to, Choice::Endpoints(_));
        let chooses = goes_somewhere || matches!(from_outside, Some(Choice::Endpoints(_)));
        let list = if kind.is_external() { TrafficPolicy::Cluster } else { policy };
        let affinity = service.affinity_seconds.filter(|_| chooses);
        Forwarding {
            service_port: self.name.clone(),
            masquerade: if goes_somewhere { masquerade } else { Masquerade::Nobody },
            to: to.clone(),
            from_outside,
            allowed_sources: sources,
            affinity: affinity.map(|seconds| Affinity { seconds, list }),
            proxy_protocol: self.proxy_protocol && goes_somewhere,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Endpoint, Kind, LocalAddress, Node, Object, Touched, Update};
    use crate::testing::{ServiceBuilder, endpoint, local, name, service, slice, with};

    fn compiled(service: ServiceBuilder, endpoints: &[Endpoint]) -> Vec<String> {
        let mut store = Store::default();
        let mut touched = Touched::default();
        store.apply(Update::Set(Object::Service(name("shop/web"), service.build())), &mut touched);
        let slice = slice("http", 8080, endpoints);
        store.apply(
            Update::Set(Object::EndpointSlice(name("shop/web-1"), name("shop/web"), slice)),
            &mut touched,
        );
        let context = Context { node_ips: Vec::new(), node_port_addresses: NodePortAddresses::Primary };
        let rows = service_rows(&store, &name("shop/web"), Family::V4, &context);
        rows.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_service_with_every_kind_of_frontend() {
        let service = service("10.96.0.1")
            .external_ips("192.0.2.7")
            .load_balancer_ips("203.0.113.1")
            .source_ranges(&["198.51.100.0/24"])
            .node_port(30080);
        assert_eq!(
            compiled(service, &[endpoint("10.1.0.1"), local("10.1.0.2")]),
            [
                "ClusterIP 10.96.0.1 shop/web",
                "hairpin 10.1.0.2",
                "10.96.0.1:80/tcp shop/web:http -> {10.1.0.1:8080, 10.1.0.2:8080 (local)} (masquerade foreign)",
                "192.0.2.7:80/tcp shop/web:http -> {10.1.0.1:8080, 10.1.0.2:8080 (local)} (masquerade)",
                "203.0.113.1:80/tcp shop/web:http -> {10.1.0.1:8080, 10.1.0.2:8080 (local)} (masquerade), \
                 only from 198.51.100.0/24",
                "NodePort 30080/tcp (IPv4) shop/web:http -> {10.1.0.1:8080, 10.1.0.2:8080 (local)} (masquerade)",
            ]
        );
    }

    #[test]
    fn policies_with_and_without_endpoints() {
        let draining = |e: Endpoint| with(e, |e| (e.ready, e.terminating) = (false, true));
        let external = || service("10.96.0.1").external_ips("192.0.2.7").external_local();
        let both = || external().internal_local();
        let here = local("10.1.0.2");
        let there = endpoint("10.1.0.1");
        let table = [
            (external(), vec![], "reject", "reject"),
            (
                external(),
                vec![there.clone()],
                "{10.1.0.1:8080} (masquerade foreign)",
                "{10.1.0.1:8080} (masquerade own), from outside -> drop",
            ),
            (both(), vec![there.clone()], "drop", "{10.1.0.1:8080} (masquerade own), from outside -> drop"),
            (
                both(),
                vec![there, draining(here.clone())],
                "{10.1.0.2:8080 (local)} (masquerade foreign)",
                "{10.1.0.1:8080} (masquerade own), from outside -> {10.1.0.2:8080 (local)}",
            ),
            (
                both(),
                vec![here],
                "{10.1.0.2:8080 (local)} (masquerade foreign)",
                "{10.1.0.2:8080 (local)} (masquerade own), from outside -> {10.1.0.2:8080 (local)}",
            ),
        ];
        for (service, endpoints, cluster_ip, external_ip) in table {
            let rows = compiled(service, &endpoints);
            let forwarding = |at: &str| {
                let row = rows.iter().find_map(|row| row.strip_prefix(at));
                row.unwrap_or_default().to_owned()
            };
            assert_eq!(forwarding("10.96.0.1:80/tcp shop/web:http -> "), cluster_ip, "{endpoints:?}");
            assert_eq!(forwarding("192.0.2.7:80/tcp shop/web:http -> "), external_ip, "{endpoints:?}");
        }
    }

    #[test]
    fn affinity_is_of_a_list() {
        let sticky = || service("10.96.0.1").external_ips("192.0.2.7").external_local().affinity(60);
        let endpoints = [endpoint("10.1.0.1"), local("10.1.0.2")];
        let ends = |service, endpoints: &[Endpoint]| -> Vec<String> {
            let rows = compiled(service, endpoints);
            let frontends = rows.iter().filter(|row| row.contains("->"));
            frontends.map(|row| row.rsplit_once("), sticky").map_or("", |(_, end)| end).to_owned()).collect()
        };
        assert_eq!(ends(sticky(), &endpoints), [" for 60 s", ""], "the last choice of the second is a list");
        assert!(compiled(sticky(), &endpoints)[3].ends_with("{10.1.0.2:8080 (local)}, sticky for 60 s"));
        assert_eq!(ends(sticky().internal_local(), &endpoints)[0], " for 60 s (Local list)");
        assert_eq!(ends(sticky(), &[]), ["", ""], "nothing to choose from");
    }

    #[test]
    fn nodeport_addresses_and_service_ranges() {
        let held = |ip: &str, default_route| LocalAddress { address: ip.parse().unwrap(), default_route };
        let mut store = Store::default();
        let mut touched = Touched::default();
        let addresses = [held("192.168.0.2", true), held("10.9.0.1", false), held("192.168.1.2", true)];
        store.apply(Update::LocalAddresses(Box::new(addresses)), &mut touched);
        let cidrs = ["10.96.0.0/17", "10.96.128.0/17", "fd00::/112"].map(|net| net.parse().unwrap());
        let object = Object::ServiceCidr("kubernetes".into(), Box::new(cidrs));
        store.apply(Update::Reset(Kind::ServiceCidr, vec![object]), &mut touched);
        let rows = |store: &Store, node_port_addresses| {
            let context = Context { node_ips: store.node_ips(), node_port_addresses };
            let rows = node_rows(store, Family::V4, &context);
            rows.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
        };
        let cidr = NodePortAddresses::Cidrs(vec!["10.0.0.0/8".parse().unwrap()]);
        assert_eq!(rows(&store, cidr), "NodePort address 10.9.0.1, service range 10.96.0.0/16");
        assert_eq!(
            rows(&store, NodePortAddresses::Primary),
            "NodePort address 192.168.0.2, NodePort address 192.168.1.2, service range 10.96.0.0/16",
            "without a Node object: the interfaces with the default route"
        );
        let ips = ["192.168.7.7", "192.168.8.8"].map(|ip| ip.parse().unwrap());
        let node = Node { addresses: Box::new(ips), ..Node::default() };
        store.apply(Update::Set(Object::Node(node)), &mut touched);
        assert_eq!(
            rows(&store, NodePortAddresses::Primary),
            "NodePort address 192.168.7.7, service range 10.96.0.0/16",
            "the first address of the Node object"
        );
    }
}
