//! Our own Node object as shunt sees it.

use std::net::IpAddr;

use ipnet::IpNet;

use super::name::Zone;

/// What shunt needs to know about the node it runs on.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Node {
    /// Label `topology.kubernetes.io/zone`.
    pub zone: Option<Zone>,
    /// `status.addresses` of type InternalIP, then ExternalIP, in the order given: `primary`
    /// NodePort addresses are the first of each family.
    pub addresses: Box<[IpAddr]>,
    /// `spec.podCIDRs`, for `detectLocalMode: NodeCIDR`.
    pub pod_cidrs: Box<[IpNet]>,
    /// Whether the node is about to go: it is being deleted, or the cluster autoscaler has tainted
    /// it `ToBeDeletedByClusterAutoscaler` (KEP-3836).
    pub leaving: bool,
}

/// An address of global scope that the kernel holds for this node; never loopback.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LocalAddress {
    /// The address.
    pub address: IpAddr,
    /// Whether its interface carries a default route of its family.
    pub default_route: bool,
}
