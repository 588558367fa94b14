//! Rows: the backend-neutral decisions that a node's forwarding is made of.

use std::fmt;
use std::net::IpAddr;
use std::sync::{Arc, LazyLock};

use ipnet::IpNet;

use crate::model::{Family, ServiceName, SharedStr, TrafficPolicy};
use crate::policy::exposure::Frontend;
use crate::policy::targets::Targets;

/// One decision. Rows of one family, sorted by key, are the whole of what a backend has to know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Row {
    /// NodePorts answer on this address of the node.
    NodePortAddress(IpAddr),
    /// Addresses in this range belong to Services: what no Service owns is dropped.
    ServiceCidr(IpNet),
    /// A live ClusterIP, with a Service that owns it: its other ports are rejected.
    ClusterIp(IpAddr, ServiceName),
    /// An endpoint on this node that Services lead to: masqueraded when it calls itself.
    Hairpin(IpAddr),
    /// What happens to a new connection to this frontend.
    Frontend(Frontend, Box<Forwarding>),
}

/// What a row is about; two rows with one key cannot both hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RowKey {
    /// See [`Row::NodePortAddress`].
    NodePortAddress(IpAddr),
    /// See [`Row::ServiceCidr`].
    ServiceCidr(IpNet),
    /// See [`Row::ClusterIp`].
    ClusterIp(IpAddr),
    /// See [`Row::Hairpin`].
    Hairpin(IpAddr),
    /// See [`Row::Frontend`].
    Frontend(Frontend),
}

impl Row {
    /// The key of the row.
    #[must_use]
    pub const fn key(&self) -> RowKey {
        match self {
            Self::NodePortAddress(address) => RowKey::NodePortAddress(*address),
            Self::ServiceCidr(net) => RowKey::ServiceCidr(*net),
            Self::ClusterIp(address, _) => RowKey::ClusterIp(*address),
            Self::Hairpin(address) => RowKey::Hairpin(*address),
            Self::Frontend(frontend, _) => RowKey::Frontend(*frontend),
        }
    }

    /// The family in which the row is programmed.
    #[must_use]
    pub const fn family(&self) -> Family {
        match self {
            Self::NodePortAddress(address) | Self::ClusterIp(address, _) | Self::Hairpin(address) => {
                Family::of(address)
            }
            Self::ServiceCidr(net) => Family::of_net(net),
            Self::Frontend(frontend, _) => frontend.family(),
        }
    }
}

/// The computed part of a frontend: where its connections go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Forwarding {
    /// The ServicePort behind the frontend, for people.
    pub service_port: ServicePortName,
    /// Whose connections are masqueraded (those that `from_outside` decides about never are).
    pub masquerade: Masquerade,
    /// Where connections go.
    pub to: Choice,
    /// Where connections from outside the node's pods and the node itself go instead, with their
    /// source kept: external policy Local.
    pub from_outside: Option<Choice>,
    /// Sources that may connect, disjoint and sorted; everybody where `None`.
    pub allowed_sources: Option<Arc<[IpNet]>>,
    /// Whether a client keeps its endpoint; `None` also where there is nothing to choose from.
    pub affinity: Option<Affinity>,
    /// Endpoints are told who called, by the PROXY protocol; only where the mode can do that.
    pub proxy_protocol: bool,
}

/// `ClientIP` affinity. What a client is remembered with belongs to the ServicePort and one of its two
/// lists, not to a frontend: all frontends that lead to the list send the client to the same endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Affinity {
    /// For how many seconds after its last new connection a client keeps its endpoint.
    pub seconds: u32,
    /// Which list [`Forwarding::to`] is; [`Forwarding::from_outside`] is always the Local one.
    pub list: TrafficPolicy,
}

/// Most endpoints of one frontend that are used, the first by address: with more than this a backend
/// would need more than 16 bits to choose one.
pub const MOST_ENDPOINTS: usize = 65535;

/// Where a connection goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Choice {
    /// To one of these, each with equal probability; never empty. The position of an endpoint has no
    /// meaning but is kept from one version to the next, so that little moves.
    Endpoints(Targets),
    /// Nowhere: the caller is told at once.
    Reject,
    /// Nowhere, in silence: endpoints exist, but the Local policy rules them out.
    Drop,
}

impl Choice {
    /// The endpoints, none for the other choices.
    #[must_use]
    pub fn targets(&self) -> &Targets {
        static NONE: LazyLock<Targets> = LazyLock::new(Targets::default);
        match self {
            Self::Endpoints(targets) => targets,
            Self::Reject | Self::Drop => &NONE,
        }
    }
}

/// Whose connections get the node's address as their source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Masquerade {
    /// Those that do not come from a local pod (ClusterIPs; `masqueradeAll` makes it everybody's).
    Foreign,
    /// Everybody's (external frontends, policy Cluster).
    Always,
    /// The node's own: external frontends of policy Local seen from inside, as if the connection had
    /// gone out and come back through the load balancer.
    Own,
    /// Nobody's: connections to this frontend go nowhere.
    Nobody,
}

/// The name of a ServicePort: its Service and `spec.ports[].name`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServicePortName {
    /// The Service.
    pub service: ServiceName,
    /// The name of the port, empty where it has none.
    pub port: SharedStr,
}

impl ServicePortName {
    /// Reads what `Display` prints: `namespace/name:port`, without the colon for an unnamed port.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (service, port) = text.split_once(':').unwrap_or((text, ""));
        Some(Self { service: ServiceName::parse(service)?, port: port.into() })
    }
}

impl fmt::Display for ServicePortName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.service.fmt(f)?;
        if self.port.is_empty() { Ok(()) } else { write!(f, ":{}", self.port) }
    }
}

/// On whose behalf a row exists.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Owner {
    /// The node: NodePort addresses, service ranges.
    Node,
    /// A Service.
    Service(ServiceName),
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Node => f.write_str("the node"),
            Self::Service(name) => write!(f, "Service {name}"),
        }
    }
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NodePortAddress(address) => write!(f, "NodePort address {address}"),
            Self::ServiceCidr(net) => write!(f, "service range {net}"),
            Self::ClusterIp(address, service) => write!(f, "ClusterIP {address} {service}"),
            Self::Hairpin(address) => write!(f, "hairpin {address}"),
            Self::Frontend(frontend, forwarding) => write!(f, "{frontend} {forwarding}"),
        }
    }
}

impl fmt::Display for Forwarding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let masquerade = match self.masquerade {
            Masquerade::Foreign => " (masquerade foreign)",
            Masquerade::Always => " (masquerade)",
            Masquerade::Own => " (masquerade own)",
            Masquerade::Nobody => "",
        };
        write!(f, "{} -> {}{masquerade}", self.service_port, self.to)?;
        if let Some(choice) = &self.from_outside {
            write!(f, ", from outside -> {choice}")?;
        }
        if let Some(sources) = &self.allowed_sources {
            f.write_str(", only from")?;
            sources.iter().try_for_each(|net| write!(f, " {net}"))?;
        }
        if self.proxy_protocol {
            f.write_str(", with the PROXY protocol")?;
        }
        match self.affinity {
            Some(Affinity { seconds, list: TrafficPolicy::Cluster }) => write!(f, ", sticky for {seconds} s"),
            Some(Affinity { seconds, list: TrafficPolicy::Local }) => {
                write!(f, ", sticky for {seconds} s (Local list)")
            }
            None => Ok(()),
        }
    }
}

impl fmt::Display for Choice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Endpoints(targets) => {
                f.write_str("{")?;
                for (i, target) in targets.iter().enumerate() {
                    write!(f, "{}{target}", if i == 0 { "" } else { ", " })?;
                }
                f.write_str("}")
            }
            Self::Reject => f.write_str("reject"),
            Self::Drop => f.write_str("drop"),
        }
    }
}
