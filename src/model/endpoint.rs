//! EndpointSlices as shunt sees them.

use std::net::IpAddr;
use std::sync::Arc;

use super::addr::{Family, Port, Protocol};
use super::name::{SharedStr, Zone};

/// One EndpointSlice, or one subset of a legacy Endpoints object.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct EndpointSlice {
    /// `addressType`: the family of every endpoint in it.
    pub family: Family,
    /// `ports`, without those that have no number. Few distinct lists exist, so they are shared.
    pub ports: Arc<[SlicePort]>,
    /// `endpoints`, without those whose address is not of the family.
    pub endpoints: Box<[Endpoint]>,
}

/// A port that every endpoint of a slice offers. Several may carry the same name with different
/// numbers, where a named `targetPort` differs between pods.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SlicePort {
    /// The name of the Service's port.
    pub name: SharedStr,
    /// The protocol.
    pub protocol: Protocol,
    /// The port on the endpoint.
    pub port: Port,
}

/// One endpoint of a slice. 32 bytes: a cluster can have a quarter of a million of them.
#[expect(clippy::struct_excessive_bools, reason = "independent conditions of the API, one byte each")]
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Endpoint {
    /// `addresses[0]`.
    pub address: IpAddr,
    /// `conditions.ready`; unset means true.
    pub ready: bool,
    /// `conditions.serving`; unset means true.
    pub serving: bool,
    /// `conditions.terminating`; unset means false.
    pub terminating: bool,
    /// Whether `nodeName` is this node.
    pub local: bool,
    /// `hints.forNodes` (KEP-4444, KEP-3015).
    pub node_hint: NodeHint,
    /// `hints.forZones` (KEP-2433); `None` without hints. Few distinct lists exist, so they are shared.
    pub zone_hints: Option<Arc<Vec<Zone>>>,
}

/// What `hints.forNodes` says about this node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum NodeHint {
    /// There is no such hint.
    #[default]
    None,
    /// This node is among those hinted.
    Here,
    /// Only other nodes are hinted.
    Elsewhere,
}
