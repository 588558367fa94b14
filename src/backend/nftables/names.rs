//! Every name in our nftables tables: sets and maps with their shapes, chains. PURE.
//!
//! The table itself is `ip shunt` and `ip6 shunt`. `../shared/ruleset.nft` of the design and
//! ARCHITECTURE.md show them all in use.

use std::fmt;

use super::sticky::{remember_key, remember_name};
use crate::model::{Family, Protocol};

/// The name of our table, one per family.
pub const TABLE: &str = "shunt";

/// The counter of new connections whose client could not be remembered: the map was full.
pub const NOT_REMEMBERED: &str = "not-remembered";

/// Version of the shape of chains, sets and elements; part of the table's comment. A table of another
/// version is replaced as a whole.
pub const SCHEMA: u32 = 2;

/// The comment of the table.
#[must_use]
pub fn table_comment() -> String {
    format!("{SIGNATURE}; schema {SCHEMA}")
}

/// What the comment of every table begins with that a shunt has made, of whatever version.
const SIGNATURE: &str = "Kubernetes Services, written by shunt";

/// Whether a table with this comment was made by a shunt.
#[must_use]
pub fn is_ours(comment: &str) -> bool {
    comment.starts_with(SIGNATURE)
}

/// A field of a packet that takes part in a set's key or data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Field {
    /// `ip saddr`, `ip6 saddr`.
    Source,
    /// `ip daddr`, `ip6 daddr`.
    Destination,
    /// `meta l4proto`.
    L4Proto,
    /// `th dport`: the destination port of any transport protocol.
    Port,
    /// `tcp dport`, `udp dport`, `sctp dport`.
    PortOf(Protocol),
    /// An index `0..N-1` in an endpoint list, chosen by `numgen random mod N`.
    Index,
}

/// What a map leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Data {
    /// Nothing: a set.
    None,
    /// A verdict: a verdict map.
    Verdict,
    /// An endpoint's address and port.
    Target,
}

/// A set or map. All of them always exist; their elements are what changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Set {
    /// Addresses on which NodePorts answer.
    NodeportIps,
    /// Ranges whose unowned addresses are dropped.
    ServiceCidrs,
    /// Live ClusterIPs: their other ports are rejected.
    ClusterIps,
    /// Endpoints on this node, each paired with itself.
    Hairpin,
    /// Frontends that only some sources may call.
    Restricted,
    /// The sources that may, one set a protocol: `meta l4proto` inside an interval concatenation makes
    /// nft 1.0.6 emit an expression that Linux 6.12 refuses.
    AllowedSources(Protocol),
    /// What happens to connections to a ClusterIP, external or load-balancer IP.
    Services,
    /// The same for connections from outside, where that differs.
    LocalServices,
    /// What happens to connections to a NodePort.
    Nodeports,
    /// The same for connections from outside, where that differs.
    LocalNodeports,
    /// Frontends without endpoints.
    NoEndpoints,
    /// NodePorts without endpoints.
    NoEndpointsNodeports,
    /// Endpoint lists of `Services`.
    Endpoints,
    /// Endpoint lists of `LocalServices`.
    LocalEndpoints,
    /// Endpoint lists of `Nodeports`.
    NodeportEndpoints,
    /// Endpoint lists of `LocalNodeports`.
    LocalNodeportEndpoints,
    /// Where it is written down which endpoint a new connection got: by its original destination, for
    /// sticky frontends of these lists. One map a protocol: nft 1.0.6 loads `ct original proto-dst` in
    /// a concatenation only behind a match of a single protocol.
    Remember(Lists, Protocol),
}

impl Set {
    /// Every set, in the order in which they are made and listed.
    pub const ALL: [Self; 30] = [
        Self::NodeportIps,
        Self::ServiceCidrs,
        Self::ClusterIps,
        Self::Hairpin,
        Self::Restricted,
        Self::AllowedSources(Protocol::Tcp),
        Self::AllowedSources(Protocol::Udp),
        Self::AllowedSources(Protocol::Sctp),
        Self::Services,
        Self::LocalServices,
        Self::Nodeports,
        Self::LocalNodeports,
        Self::NoEndpoints,
        Self::NoEndpointsNodeports,
        Self::Endpoints,
        Self::LocalEndpoints,
        Self::NodeportEndpoints,
        Self::LocalNodeportEndpoints,
        Self::Remember(Lists::Services, Protocol::Tcp),
        Self::Remember(Lists::Services, Protocol::Udp),
        Self::Remember(Lists::Services, Protocol::Sctp),
        Self::Remember(Lists::LocalServices, Protocol::Tcp),
        Self::Remember(Lists::LocalServices, Protocol::Udp),
        Self::Remember(Lists::LocalServices, Protocol::Sctp),
        Self::Remember(Lists::Nodeports, Protocol::Tcp),
        Self::Remember(Lists::Nodeports, Protocol::Udp),
        Self::Remember(Lists::Nodeports, Protocol::Sctp),
        Self::Remember(Lists::LocalNodeports, Protocol::Tcp),
        Self::Remember(Lists::LocalNodeports, Protocol::Udp),
        Self::Remember(Lists::LocalNodeports, Protocol::Sctp),
    ];

    /// The name in the kernel.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::NodeportIps => "nodeport-ips",
            Self::ServiceCidrs => "service-cidrs",
            Self::ClusterIps => "cluster-ips",
            Self::Hairpin => "hairpin",
            Self::Restricted => "restricted",
            Self::AllowedSources(Protocol::Tcp) => "allowed-sources-tcp",
            Self::AllowedSources(Protocol::Udp) => "allowed-sources-udp",
            Self::AllowedSources(Protocol::Sctp) => "allowed-sources-sctp",
            Self::Services => "services",
            Self::LocalServices => "local-services",
            Self::Nodeports => "nodeports",
            Self::LocalNodeports => "local-nodeports",
            Self::NoEndpoints => "no-endpoints",
            Self::NoEndpointsNodeports => "no-endpoints-nodeports",
            Self::Endpoints => "endpoints",
            Self::LocalEndpoints => "local-endpoints",
            Self::NodeportEndpoints => "nodeport-endpoints",
            Self::LocalNodeportEndpoints => "local-nodeport-endpoints",
            Self::Remember(lists, protocol) => remember_name(lists, protocol),
        }
    }

    /// The fields of the key.
    #[must_use]
    pub const fn key(self) -> &'static [Field] {
        use Field::{Destination, Index, L4Proto, Port, PortOf, Source};
        match self {
            Self::NodeportIps | Self::ServiceCidrs | Self::ClusterIps => &[Destination],
            Self::Hairpin => &[Source, Destination],
            Self::AllowedSources(Protocol::Tcp) => &[Destination, PortOf(Protocol::Tcp), Source],
            Self::AllowedSources(Protocol::Udp) => &[Destination, PortOf(Protocol::Udp), Source],
            Self::AllowedSources(Protocol::Sctp) => &[Destination, PortOf(Protocol::Sctp), Source],
            Self::Restricted | Self::Services | Self::LocalServices | Self::NoEndpoints => {
                &[Destination, L4Proto, Port]
            }
            Self::Nodeports | Self::LocalNodeports | Self::NoEndpointsNodeports => &[L4Proto, Port],
            Self::Endpoints | Self::LocalEndpoints => &[Destination, L4Proto, Port, Index],
            Self::NodeportEndpoints | Self::LocalNodeportEndpoints => &[L4Proto, Port, Index],
            Self::Remember(lists, protocol) => remember_key(lists, protocol),
        }
    }

    /// What an element leads to.
    #[must_use]
    pub const fn data(self) -> Data {
        match self {
            Self::Services
            | Self::LocalServices
            | Self::Nodeports
            | Self::LocalNodeports
            | Self::NoEndpoints
            | Self::NoEndpointsNodeports
            | Self::Remember(..) => Data::Verdict,
            Self::Endpoints
            | Self::LocalEndpoints
            | Self::NodeportEndpoints
            | Self::LocalNodeportEndpoints => Data::Target,
            _ => Data::None,
        }
    }

    /// Whether elements are ranges (`flags interval`).
    #[must_use]
    pub const fn is_interval(self) -> bool {
        matches!(self, Self::ServiceCidrs | Self::AllowedSources(_))
    }

    /// The smallest size with which the set is made; `None` for sets that stay small or cannot have
    /// one. A size makes the kernel choose its fixed hash table, which loads 2.7 times faster than the
    /// growing one; 8 bytes of kernel memory a bucket.
    #[must_use]
    pub const fn least_size(self) -> Option<u32> {
        match self {
            Self::Services | Self::Nodeports | Self::LocalServices | Self::LocalNodeports => Some(4096),
            Self::Endpoints => Some(65536),
            Self::NodeportEndpoints | Self::LocalEndpoints | Self::LocalNodeportEndpoints => Some(16384),
            _ => None,
        }
    }

    /// The set of this name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|set| set.name() == name)
    }
}

/// Which pair of maps a chain works on: the verdict map that leads to it and its endpoint lists.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Lists {
    /// [`Set::Endpoints`].
    Services,
    /// [`Set::LocalEndpoints`].
    LocalServices,
    /// [`Set::NodeportEndpoints`].
    Nodeports,
    /// [`Set::LocalNodeportEndpoints`].
    LocalNodeports,
}

impl Lists {
    /// All four.
    pub const ALL: [Self; 4] = [Self::Services, Self::LocalServices, Self::Nodeports, Self::LocalNodeports];

    /// The endpoint lists.
    #[must_use]
    pub const fn endpoints(self) -> Set {
        match self {
            Self::Services => Set::Endpoints,
            Self::LocalServices => Set::LocalEndpoints,
            Self::Nodeports => Set::NodeportEndpoints,
            Self::LocalNodeports => Set::LocalNodeportEndpoints,
        }
    }

    pub(super) const fn prefix(self) -> &'static str {
        match self {
            Self::Services => "",
            Self::LocalServices => "local-",
            Self::Nodeports => "nodeport-",
            Self::LocalNodeports => "local-nodeport-",
        }
    }
}

/// How the chain treats a connection before an endpoint is picked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Treatment {
    /// `pick-N`: nothing, source kept. Every other chain ends here.
    Pick,
    /// `cluster-N`: masquerade what does not come from a local pod.
    Cluster,
    /// `external-N`: always masquerade.
    External,
    /// `shortcut-N`: masquerade the node's own; a Local frontend seen from inside.
    Shortcut,
}

impl Treatment {
    /// All of them, `Pick` first since the others lead to it.
    pub const ALL: [Self; 4] = [Self::Pick, Self::Cluster, Self::External, Self::Shortcut];

    pub(super) const fn word(self) -> &'static str {
        match self {
            Self::Pick => "pick",
            Self::Cluster => "cluster",
            Self::External => "external",
            Self::Shortcut => "shortcut",
        }
    }
}

/// A chain to which elements of verdict maps lead, shared by every frontend with this treatment and
/// this number of endpoints. Prints and parses as the chain's name: `nodeport-external-3`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ServiceChain {
    /// The endpoint lists it picks from.
    pub lists: Lists,
    /// What happens before.
    pub treatment: Treatment,
    /// How many endpoints the list has: 1 and up.
    pub size: u16,
}

impl ServiceChain {
    /// The chain of a name, if it is one of these.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        let (stem, size) = name.rsplit_once('-')?;
        let size = size.parse().ok().filter(|size| *size > 0)?;
        let by_length = [Lists::LocalNodeports, Lists::Nodeports, Lists::LocalServices, Lists::Services];
        let (lists, word) =
            by_length.into_iter().find_map(|lists| Some((lists, stem.strip_prefix(lists.prefix())?)))?;
        let treatment = Treatment::ALL.into_iter().find(|treatment| treatment.word() == word)?;
        Some(Self { lists, treatment, size })
    }
}

impl fmt::Display for ServiceChain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}-{}", self.lists.prefix(), self.treatment.word(), self.size)
    }
}

/// The keyword of a family in nft syntax: `ip`, `ip6`.
#[must_use]
pub const fn family_word(family: Family) -> &'static str {
    match family {
        Family::V4 => "ip",
        Family::V6 => "ip6",
    }
}

impl Field {
    /// The field in nft syntax.
    #[must_use]
    pub fn text(self, family: Family) -> String {
        match self {
            Self::Source => format!("{} saddr", family_word(family)),
            Self::Destination => format!("{} daddr", family_word(family)),
            Self::L4Proto => "meta l4proto".into(),
            Self::Port => "th dport".into(),
            Self::PortOf(protocol) => format!("{protocol} dport"),
            Self::Index => "numgen random mod 65536".into(),
        }
    }

    /// Bytes of the field in a key, without padding to the next multiple of four.
    #[must_use]
    pub const fn len(self, family: Family) -> u32 {
        match (self, family) {
            (Self::Source | Self::Destination, Family::V6) => 16,
            (Self::Source | Self::Destination, Family::V4) | (Self::Index, _) => 4,
            (Self::L4Proto, _) => 1,
            (Self::Port | Self::PortOf(_), _) => 2,
        }
    }
}

/// The fields that `Data::Target` consists of.
pub const TARGET_FIELDS: &[Field] = &[Field::Destination, Field::Port];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chain_names_round_trip() {
        for lists in Lists::ALL {
            for treatment in Treatment::ALL {
                let chain = ServiceChain { lists, treatment, size: 12 };
                assert_eq!(ServiceChain::parse(&chain.to_string()), Some(chain), "{chain}");
            }
        }
        for other in ["pick-0", "pick", "pick-x", "masquerade-own", "local-3", "pick-65536", "refuse"] {
            assert_eq!(ServiceChain::parse(other), None, "{other}");
        }
    }

    #[test]
    fn set_names_are_found_again() {
        for set in Set::ALL {
            assert_eq!(Set::from_name(set.name()), Some(set));
        }
    }
}
