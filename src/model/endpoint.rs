//! EndpointSlices as shunt sees them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
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
    pub endpoints: Endpoints,
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

/// One endpoint of a slice.
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

/// The endpoints of a slice, packed: 8 bytes for each in IPv4, 20 in IPv6, since a cluster can have a
/// quarter of a million of them.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Endpoints {
    packed: Packed,
    /// The distinct lists of zone hints: few, mostly none.
    zone_hints: Box<[Arc<Vec<Zone>>]>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Packed {
    V4(Box<[PackedEndpoint<Ipv4Addr>]>),
    V6(Box<[PackedEndpoint<Ipv6Addr>]>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct PackedEndpoint<A> {
    address: A,
    conditions: u8,
    node_hint: NodeHint,
    /// Place of its list among the zone hints, from 1; 0 for none.
    zone_hints: u16,
}

const READY: u8 = 1;
const SERVING: u8 = 1 << 1;
const TERMINATING: u8 = 1 << 2;
const LOCAL: u8 = 1 << 3;

impl Endpoints {
    /// These endpoints, without those whose address is of another family.
    pub fn new(family: Family, endpoints: impl IntoIterator<Item = Endpoint>) -> Self {
        let mut zone_hints = Vec::new();
        let packed = match family {
            Family::V4 => Packed::V4(pack(endpoints, &mut zone_hints, |address| match address {
                IpAddr::V4(address) => Some(address),
                IpAddr::V6(_) => None,
            })),
            Family::V6 => Packed::V6(pack(endpoints, &mut zone_hints, |address| match address {
                IpAddr::V6(address) => Some(address),
                IpAddr::V4(_) => None,
            })),
        };
        Self { packed, zone_hints: zone_hints.into() }
    }

    /// How many there are.
    #[must_use]
    pub const fn len(&self) -> usize {
        match &self.packed {
            Packed::V4(list) => list.len(),
            Packed::V6(list) => list.len(),
        }
    }

    /// Whether there is none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = Endpoint> + Clone + '_ {
        (0..self.len()).map(|place| match &self.packed {
            Packed::V4(list) => self.unpack(list[place]),
            Packed::V6(list) => self.unpack(list[place]),
        })
    }

    fn unpack(&self, packed: PackedEndpoint<impl Into<IpAddr>>) -> Endpoint {
        let PackedEndpoint { address, conditions, node_hint, zone_hints } = packed;
        let is = |condition| conditions & condition != 0;
        let zone_hints = usize::from(zone_hints).checked_sub(1).and_then(|place| self.zone_hints.get(place));
        Endpoint {
            address: address.into(),
            ready: is(READY),
            serving: is(SERVING),
            terminating: is(TERMINATING),
            local: is(LOCAL),
            node_hint,
            zone_hints: zone_hints.cloned(),
        }
    }
}

fn pack<A>(
    endpoints: impl IntoIterator<Item = Endpoint>,
    lists: &mut Vec<Arc<Vec<Zone>>>,
    of_family: impl Fn(IpAddr) -> Option<A>,
) -> Box<[PackedEndpoint<A>]> {
    let pack = |endpoint: Endpoint| {
        let Endpoint { address, ready, serving, terminating, local, node_hint, zone_hints } = endpoint;
        let conditions = [(ready, READY), (serving, SERVING), (terminating, TERMINATING), (local, LOCAL)];
        Some(PackedEndpoint {
            address: of_family(address)?,
            conditions: conditions.into_iter().filter(|(is, _)| *is).map(|(_, bit)| bit).sum(),
            node_hint,
            zone_hints: zone_hints.map_or(0, |list| place(lists, list)),
        })
    };
    endpoints.into_iter().filter_map(pack).collect()
}

/// The place of a list from 1; 0, as for no hints, once 65,535 differ within one slice.
fn place(lists: &mut Vec<Arc<Vec<Zone>>>, list: Arc<Vec<Zone>>) -> u16 {
    let known = lists.iter().rposition(|known| *known == list);
    let place = known.unwrap_or_else(|| {
        lists.push(list);
        lists.len() - 1
    });
    u16::try_from(place + 1).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{endpoint, local, with, zones};

    #[test]
    fn packed_endpoints_come_out_as_they_went_in() {
        let hinted = |address, names: &[&str]| with(endpoint(address), |e| e.zone_hints = Some(zones(names)));
        let all = [
            endpoint("10.0.0.1"),
            local("10.0.0.2"),
            with(endpoint("10.0.0.3"), |e| (e.ready, e.terminating) = (false, true)),
            with(endpoint("10.0.0.4"), |e| (e.ready, e.serving) = (false, false)),
            with(endpoint("10.0.0.5"), |e| e.node_hint = NodeHint::Here),
            hinted("10.0.0.6", &["a"]),
            hinted("10.0.0.7", &["a", "b"]),
            with(hinted("10.0.0.8", &["a"]), |e| e.node_hint = NodeHint::Elsewhere),
        ];
        let packed = Endpoints::new(Family::V4, all.clone());
        assert_eq!((packed.len(), packed.zone_hints.len()), (all.len(), 2));
        assert_eq!(packed.iter().collect::<Vec<_>>(), all);
        let six = hinted("fd00::1", &["a"]);
        let mixed = Endpoints::new(Family::V6, [all[0].clone(), six.clone()]);
        assert_eq!(mixed.iter().collect::<Vec<_>>(), [six], "the other family is left out");
    }

    #[test]
    fn an_endpoint_takes_few_bytes() {
        assert_eq!((size_of::<PackedEndpoint<Ipv4Addr>>(), size_of::<PackedEndpoint<Ipv6Addr>>()), (8, 20));
    }
}
