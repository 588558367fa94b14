//! Builders for tests: a test names only the fields it is about.

pub mod backend;

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use crate::desired::{Choice, Forwarding, Masquerade, Row, ServicePortName};
use crate::model::{
    Endpoint, EndpointSlice, Endpoints, Family, Node, NodeHint, ObjectName, Port, Protocol, Service,
    ServicePort, SlicePort, TrafficPolicy, Zone,
};
use crate::policy::endpoints::Target;
use crate::policy::exposure::{Frontend, FrontendAddress};
use crate::policy::stale::{Flow, Tuple};

/// The name in `namespace/name`.
pub fn name(text: &str) -> ObjectName {
    ObjectName::parse(text).expect("namespace/name")
}

/// A port.
pub fn port(number: u16) -> Port {
    Port::new(number).expect("not zero")
}

/// A Service under construction: one TCP port 80 called `http` unless told otherwise.
pub struct ServiceBuilder(Service);

/// A Service with these ClusterIPs, separated by commas.
pub fn service(cluster_ips: &str) -> ServiceBuilder {
    ServiceBuilder(Service {
        cluster_ips: addresses(cluster_ips),
        external_ips: Box::default(),
        load_balancer_ips: Box::default(),
        ports: Box::new([service_port("http", Protocol::Tcp, 80)]),
        internal_policy: TrafficPolicy::Cluster,
        external_policy: TrafficPolicy::Cluster,
        affinity_seconds: None,
        source_ranges: Box::default(),
        health_check_node_port: None,
        proxy_protocol: false,
        created: 0,
    })
}

fn addresses(text: &str) -> Box<[IpAddr]> {
    text.split(',').filter(|part| !part.is_empty()).map(|part| part.parse().expect("address")).collect()
}

fn service_port(name: &str, protocol: Protocol, number: u16) -> ServicePort {
    ServicePort { name: name.into(), protocol, port: port(number), node_port: None }
}

impl ServiceBuilder {
    /// The finished Service.
    pub fn build(self) -> Service {
        self.0
    }

    /// Gives the first port a NodePort.
    pub fn node_port(mut self, number: u16) -> Self {
        self.0.ports[0].node_port = Some(port(number));
        self
    }

    /// Sets the external IPs.
    pub fn external_ips(mut self, ips: &str) -> Self {
        self.0.external_ips = addresses(ips);
        self
    }

    /// Sets the load-balancer IPs.
    pub fn load_balancer_ips(mut self, ips: &str) -> Self {
        self.0.load_balancer_ips = addresses(ips);
        self
    }

    /// Sets `loadBalancerSourceRanges`.
    pub fn source_ranges(mut self, ranges: &[&str]) -> Self {
        self.0.source_ranges = ranges.iter().map(|range| range.parse().expect("CIDR")).collect();
        self
    }

    /// Gives it `ClientIP` affinity.
    pub fn affinity(mut self, seconds: u32) -> Self {
        self.0.affinity_seconds = Some(seconds);
        self
    }

    /// Makes the external policy Local.
    pub fn external_local(mut self) -> Self {
        self.0.external_policy = TrafficPolicy::Local;
        self
    }

    /// Makes the internal policy Local.
    pub fn internal_local(mut self) -> Self {
        self.0.internal_policy = TrafficPolicy::Local;
        self
    }
}

/// A ready endpoint on another node.
pub fn endpoint(address: &str) -> Endpoint {
    Endpoint {
        address: address.parse().expect("address"),
        ready: true,
        serving: true,
        terminating: false,
        local: false,
        node_hint: NodeHint::None,
        zone_hints: None,
    }
}

/// The same endpoint with something changed.
pub fn with(mut endpoint: Endpoint, change: impl FnOnce(&mut Endpoint)) -> Endpoint {
    change(&mut endpoint);
    endpoint
}

/// A ready endpoint on this node.
pub fn local(address: &str) -> Endpoint {
    with(endpoint(address), |e| e.local = true)
}

/// Zone hints.
pub fn zones(names: &[&str]) -> Arc<Vec<Zone>> {
    Arc::new(names.iter().map(|zone| Zone((*zone).into())).collect())
}

/// A slice with one TCP port; its family is that of its first endpoint.
pub fn slice(port_name: &str, number: u16, endpoints: &[Endpoint]) -> EndpointSlice {
    let family = endpoints.first().map_or(Family::V4, |e| Family::of(&e.address));
    EndpointSlice {
        family,
        ports: Arc::new([SlicePort { name: port_name.into(), protocol: Protocol::Tcp, port: port(number) }]),
        endpoints: Endpoints::new(family, endpoints.iter().cloned()),
    }
}

/// A node in a zone.
pub fn node(zone: &str) -> Node {
    Node { zone: Some(Zone(zone.into())), ..Node::default() }
}

/// An endpoint: `a` is 10.0.0.97, port 80.
pub fn target(letter: &str) -> Target {
    let last = letter.bytes().next().expect("a letter");
    Target { address: IpAddr::from([10, 0, 0, last]), port: port(80), local: false }
}

/// The row of a TCP NodePort in IPv4 that leads to these endpoints.
pub fn nodeport_row(number: u16, service: &str, to: &str) -> Row {
    let address = FrontendAddress::NodePort(Family::V4);
    let frontend = Frontend { address, protocol: Protocol::Tcp, port: port(number) };
    let forwarding = Forwarding {
        service_port: ServicePortName::parse(service).expect("namespace/name:port"),
        masquerade: Masquerade::Always,
        to: Choice::Endpoints(to.split_whitespace().map(target).collect()),
        from_outside: None,
        allowed_sources: None,
        affinity: None,
        proxy_protocol: false,
    };
    Row::Frontend(frontend, forwarding.into())
}

/// The row of a hairpin address.
pub fn hairpin_row(address: &str) -> Row {
    Row::Hairpin(address.parse().expect("address"))
}

/// The UDP frontend at `10.96.0.1:53`, or the NodePort `np:30053`.
pub fn udp_frontend(text: &str, family: Family) -> Frontend {
    let (address, number) = if let Some(number) = text.strip_prefix("np:") {
        (FrontendAddress::NodePort(family), number.parse().expect("a port"))
    } else {
        let at: SocketAddr = text.parse().expect("address and port");
        (FrontendAddress::Ip(at.ip()), at.port())
    };
    Frontend { address, protocol: Protocol::Udp, port: port(number) }
}

/// A flow by what the client dials and where it goes.
pub fn udp_flow(dialled: &str, reaches: &str) -> Flow {
    let client: SocketAddr = "198.51.100.7:4000".parse().expect("address and port");
    let (dialled, reaches) =
        (dialled.parse().expect("what is dialled"), reaches.parse().expect("an endpoint"));
    Flow {
        original: Tuple { source: client, destination: dialled },
        reply: Tuple { source: reaches, destination: client },
    }
}

/// The row of a TCP frontend at `10.96.0.1:80`, or of the NodePort `:30080` in IPv4, that leads to
/// endpoints at `10.1.0.1:8080`, separated by spaces. Of `shop/web:http`.
pub fn frontend_row(at: &str, to: &str) -> Row {
    let (address, number) = if let Some(number) = at.strip_prefix(':') {
        (FrontendAddress::NodePort(Family::V4), number.parse().expect("a port"))
    } else {
        let at: SocketAddr = at.parse().expect("address and port");
        (FrontendAddress::Ip(at.ip()), at.port())
    };
    let target = |text: &str| {
        let at: SocketAddr = text.parse().expect("address and port");
        Target { address: at.ip(), port: port(at.port()), local: false }
    };
    let forwarding = Forwarding {
        service_port: ServicePortName::parse("shop/web:http").expect("namespace/name:port"),
        masquerade: Masquerade::Always,
        to: Choice::Endpoints(to.split_whitespace().map(target).collect()),
        from_outside: None,
        allowed_sources: None,
        affinity: None,
        proxy_protocol: false,
    };
    Row::Frontend(Frontend { address, protocol: Protocol::Tcp, port: port(number) }, forwarding.into())
}
