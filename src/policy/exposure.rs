//! On which frontends a ServicePort is offered.

use std::fmt;
use std::net::IpAddr;

use crate::model::{Family, Port, Protocol, Service, ServicePort};

/// What a client dials. The key of everything that is programmed for a Service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Frontend {
    /// The address.
    pub address: FrontendAddress,
    /// The protocol.
    pub protocol: Protocol,
    /// The port.
    pub port: Port,
}

/// The address part of a frontend.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum FrontendAddress {
    /// A ClusterIP, external IP or load-balancer IP.
    Ip(IpAddr),
    /// Whatever addresses of this node take NodePort traffic in this family.
    NodePort(Family),
}

impl Frontend {
    /// The family in which the frontend is programmed.
    #[must_use]
    pub const fn family(&self) -> Family {
        match &self.address {
            FrontendAddress::Ip(address) => Family::of(address),
            FrontendAddress::NodePort(family) => *family,
        }
    }
}

impl fmt::Display for Frontend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.address {
            FrontendAddress::Ip(IpAddr::V4(address)) => {
                write!(f, "{address}:{}/{}", self.port, self.protocol)
            }
            FrontendAddress::Ip(IpAddr::V6(address)) => {
                write!(f, "[{address}]:{}/{}", self.port, self.protocol)
            }
            FrontendAddress::NodePort(family) => {
                write!(f, "NodePort {}/{} ({family})", self.port, self.protocol)
            }
        }
    }
}

/// Why a frontend exists; it decides which traffic policy holds for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum FrontendKind {
    /// `spec.clusterIPs`: internal traffic.
    ClusterIp,
    /// `spec.externalIPs`: external traffic.
    ExternalIp,
    /// `status.loadBalancer.ingress`: external traffic, restricted to the source ranges.
    LoadBalancer,
    /// A NodePort: external traffic.
    NodePort,
}

impl FrontendKind {
    /// Whether the external traffic policy holds for it.
    #[must_use]
    pub const fn is_external(self) -> bool {
        !matches!(self, Self::ClusterIp)
    }
}

/// The frontends of one ServicePort in one family, ClusterIP first. None at all without a ClusterIP
/// of the family: a Service lives only in the families of its ClusterIPs. One address that stands in
/// two roles keeps the first.
#[must_use]
pub fn frontends(service: &Service, port: &ServicePort, family: Family) -> Vec<(Frontend, FrontendKind)> {
    let of_family = |ips: &[IpAddr], kind: FrontendKind| -> Vec<(FrontendAddress, FrontendKind)> {
        let ips = ips.iter().filter(|ip| Family::of(ip) == family);
        ips.map(|ip| (FrontendAddress::Ip(*ip), kind)).collect()
    };
    let mut addresses = of_family(&service.cluster_ips, FrontendKind::ClusterIp);
    if addresses.is_empty() {
        return Vec::new();
    }
    addresses.extend(of_family(&service.load_balancer_ips, FrontendKind::LoadBalancer));
    addresses.extend(of_family(&service.external_ips, FrontendKind::ExternalIp));
    let mut frontends: Vec<(Frontend, FrontendKind)> = Vec::with_capacity(addresses.len() + 1);
    for (address, kind) in addresses {
        let frontend = Frontend { address, protocol: port.protocol, port: port.port };
        if frontends.iter().all(|(known, _)| *known != frontend) {
            frontends.push((frontend, kind));
        }
    }
    if let Some(node_port) = port.node_port {
        let address = FrontendAddress::NodePort(family);
        let frontend = Frontend { address, protocol: port.protocol, port: node_port };
        frontends.push((frontend, FrontendKind::NodePort));
    }
    frontends
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::service;

    #[test]
    fn frontends_by_family_and_role() {
        let full = service("10.96.0.1,fd00::1")
            .external_ips("192.0.2.7,2001:db8::7")
            .load_balancer_ips("203.0.113.1,192.0.2.7")
            .node_port(30080);
        let no_family = service("10.96.0.1").external_ips("2001:db8::7").node_port(30080);
        let table = [
            (
                full.build(),
                Family::V4,
                "10.96.0.1:80/tcp ClusterIp, 203.0.113.1:80/tcp LoadBalancer, 192.0.2.7:80/tcp LoadBalancer, \
                 NodePort 30080/tcp (IPv4) NodePort",
            ),
            (service("10.96.0.1").build(), Family::V6, ""),
            (no_family.build(), Family::V6, ""),
            (
                service("fd00::1").external_ips("2001:db8::7").build(),
                Family::V6,
                "[fd00::1]:80/tcp ClusterIp, [2001:db8::7]:80/tcp ExternalIp",
            ),
        ];
        for (service, family, expected) in table {
            let got = frontends(&service, &service.ports[0], family);
            let got: Vec<String> =
                got.iter().map(|(frontend, kind)| format!("{frontend} {kind:?}")).collect();
            assert_eq!(got.join(", "), expected);
        }
    }
}
