//! What a source tells the store: objects set, objects deleted, and complete lists.

use std::time::SystemTime;

use ipnet::IpNet;

use super::endpoint::EndpointSlice;
use super::name::{ObjectName, ServiceName, SharedStr};
use super::node::{LocalAddress, Node};
use super::service::Service;

/// The kinds of objects that shunt listens to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// `v1` Service.
    Service,
    /// `discovery.k8s.io/v1` EndpointSlice.
    EndpointSlice,
    /// `v1` Endpoints (legacy).
    Endpoints,
    /// `v1` Node, only our own.
    Node,
    /// `networking.k8s.io/v1` ServiceCIDR.
    ServiceCidr,
}

impl Kind {
    /// Every kind, in the order in which a source should list them.
    pub const ALL: [Self; 5] =
        [Self::Node, Self::ServiceCidr, Self::Service, Self::EndpointSlice, Self::Endpoints];

    /// The name of the kind as Kubernetes writes it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Service => "Service",
            Self::EndpointSlice => "EndpointSlice",
            Self::Endpoints => "Endpoints",
            Self::Node => "Node",
            Self::ServiceCidr => "ServiceCIDR",
        }
    }
}

/// One object in the model's own types.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Object {
    /// A Service that this node serves.
    Service(ServiceName, Service),
    /// A slice: its own name, the Service it belongs to, its content.
    EndpointSlice(ObjectName, ServiceName, EndpointSlice),
    /// A legacy Endpoints object: it has its Service's name, each subset is like a slice per family.
    Endpoints(ServiceName, Box<[EndpointSlice]>),
    /// Our own Node.
    Node(Node),
    /// A range from which ClusterIPs are taken: object name and `spec.cidrs`.
    ServiceCidr(SharedStr, Box<[IpNet]>),
}

impl Object {
    /// Its kind.
    #[must_use]
    pub const fn kind(&self) -> Kind {
        match self {
            Self::Service(..) => Kind::Service,
            Self::EndpointSlice(..) => Kind::EndpointSlice,
            Self::Endpoints(..) => Kind::Endpoints,
            Self::Node(_) => Kind::Node,
            Self::ServiceCidr(..) => Kind::ServiceCidr,
        }
    }
}

/// Which object is gone.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Key {
    /// A Service that is gone or is no longer ours to serve.
    Service(ServiceName),
    /// A slice, by its own name.
    EndpointSlice(ObjectName),
    /// A legacy Endpoints object.
    Endpoints(ServiceName),
    /// Our own Node.
    Node,
    /// A ServiceCIDR, by its name.
    ServiceCidr(SharedStr),
}

impl Key {
    /// The kind of the object.
    #[must_use]
    pub const fn kind(&self) -> Kind {
        match self {
            Self::Service(_) => Kind::Service,
            Self::EndpointSlice(_) => Kind::EndpointSlice,
            Self::Endpoints(_) => Kind::Endpoints,
            Self::Node => Kind::Node,
            Self::ServiceCidr(_) => Kind::ServiceCidr,
        }
    }
}

/// One message from a source.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Update {
    /// The object exists and looks like this.
    Set(Object),
    /// The same, and what it tells of happened in the cluster at this time, by the clock of its writer.
    SetSince(Object, SystemTime),
    /// The object does not exist (any more).
    Delete(Key),
    /// These are all objects of the kind: whatever is absent is gone.
    Reset(Kind, Vec<Object>),
    /// These are all addresses that the kernel holds for this node.
    LocalAddresses(Box<[LocalAddress]>),
}
