//! PURE. What the kernel's messages mean: which addresses are this node's, which routes are default
//! routes, and which notifications make an earlier answer stale.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use rtnetlink::packet_route::address::{
    AddressAttribute, AddressFlags, AddressHeaderFlags, AddressMessage, AddressScope,
};
use rtnetlink::packet_route::route::{RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteType};
use rtnetlink::packet_route::{AddressFamily, RouteNetlinkMessage};

use crate::model::{Family, LocalAddress};

/// The index of `lo`, the same in every network namespace (LOOPBACK_IFINDEX in include/net/flow.h).
const LOOPBACK: u32 = 1;

/// An address that the kernel holds and a client elsewhere can reach, and its interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Held {
    pub(super) interface: u32,
    pub(super) address: IpAddr,
}

/// One next hop of a default route of the main table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct DefaultRoute {
    pub(super) family: Family,
    pub(super) interface: u32,
    /// The route's `src`: the kernel removes the route, without a word, together with that address.
    pub(super) source: Option<IpAddr>,
}

/// What has to be read again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Stale {
    pub(super) addresses: bool,
    pub(super) routes: bool,
}

impl Stale {
    pub(super) const EVERYTHING: Self = Self { addresses: true, routes: true };

    pub(super) fn add(&mut self, other: Self) {
        self.addresses |= other.addresses;
        self.routes |= other.routes;
    }
}

/// The node's addresses in order, each once: an address held twice is on a default route's interface
/// if one of its interfaces is.
pub(super) fn select(held: &[Held], routes: &BTreeSet<DefaultRoute>) -> Box<[LocalAddress]> {
    let mut chosen = BTreeMap::new();
    for &Held { interface, address } in held {
        let family = Family::of(&address);
        let carries = routes.iter().any(|route| route.family == family && route.interface == interface);
        *chosen.entry(address).or_insert(false) |= carries;
    }
    chosen.into_iter().map(|(address, default_route)| LocalAddress { address, default_route }).collect()
}

/// The address that a message tells of, if NodePorts may answer on it.
///
/// - Global scope only; nothing on `lo`, no loopback and no link-local address whatever its scope
///   (NodeLocal DNS binds 169.254.20.10 with global scope).
/// - Not while duplicate address detection is running or after it has failed: the kernel does not
///   answer for such an address yet. Optimistic ones (RFC 4429) are in use already.
/// - Deprecated addresses stay: deprecation only keeps them from being chosen as a source, which is
///   how keepalived and kube-vip mark their virtual addresses, and they accept connections.
/// - The interface's state does not matter, as it does not matter to kube-proxy: a cable pulled for
///   a second is no reason to touch the rules of all Services.
pub(super) fn held(message: &AddressMessage) -> Option<Held> {
    let header = &message.header;
    let address = own_address(message)?;
    let link_local = match address {
        IpAddr::V4(address) => address.is_link_local(),
        IpAddr::V6(address) => address.is_unicast_link_local(),
    };
    let reachable = header.scope == AddressScope::Universe
        && header.index != LOOPBACK
        && !address.is_loopback()
        && !link_local
        && usable(message);
    reachable.then_some(Held { interface: header.index, address })
}

/// IFA_LOCAL, or IFA_ADDRESS where there is none: on a point-to-point link IFA_ADDRESS is the peer's.
fn own_address(message: &AddressMessage) -> Option<IpAddr> {
    let local = message.attributes.iter().find_map(|attribute| match attribute {
        AddressAttribute::Local(address) => Some(*address),
        _ => None,
    });
    local.or_else(|| {
        message.attributes.iter().find_map(|attribute| match attribute {
            AddressAttribute::Address(address) => Some(*address),
            _ => None,
        })
    })
}

/// Whether duplicate address detection lets the address be used.
fn usable(message: &AddressMessage) -> bool {
    let flags = message.header.flags;
    let tentative = flags.contains(AddressHeaderFlags::Tentative);
    let optimistic = flags.contains(AddressHeaderFlags::Optimistic);
    let failed = flags.contains(AddressHeaderFlags::Dadfailed)
        || message.attributes.iter().any(|attribute| {
            matches!(attribute, AddressAttribute::Flags(flags) if flags.contains(AddressFlags::Dadfailed))
        });
    !failed && (!tentative || optimistic)
}

/// Whether this is a route of the main table to everywhere. It needs the header only: the kernel puts
/// numbers of tables above 255, which the main table's is not, elsewhere.
pub(super) fn is_default(header: &RouteHeader) -> bool {
    header.destination_prefix_length == 0 && header.table == RouteHeader::RT_TABLE_MAIN
}

/// The next hops of a default route; none if the message is about another route, or about one that
/// leads nowhere (unreachable, blackhole).
///
/// A next hop whose link is dead counts as well, for the reason given at [`held`]. Routes through
/// nexthop objects are seen unless `net.ipv4.nexthop_compat_mode` is 0.
pub(super) fn default_routes(message: &RouteMessage) -> Vec<DefaultRoute> {
    let family = match message.header.address_family {
        AddressFamily::Inet => Family::V4,
        AddressFamily::Inet6 => Family::V6,
        _ => return Vec::new(),
    };
    if !is_default(&message.header) || message.header.kind != RouteType::Unicast {
        return Vec::new();
    }
    let source = message.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::PrefSource(RouteAddress::Inet(address)) => Some(IpAddr::V4(*address)),
        RouteAttribute::PrefSource(RouteAddress::Inet6(address)) => Some(IpAddr::V6(*address)),
        _ => None,
    });
    let interfaces = message.attributes.iter().flat_map(|attribute| match attribute {
        RouteAttribute::Oif(index) => vec![*index],
        RouteAttribute::MultiPath(hops) => hops.iter().map(|hop| hop.interface_index).collect(),
        _ => Vec::new(),
    });
    interfaces.map(|interface| DefaultRoute { family, interface, source }).collect()
}

/// What a notification makes stale, given the default routes known so far.
///
/// Only a default route's own events ask for the routes again, and three things that take IPv4
/// routes away without an event (fib_sync_down_dev and fib_sync_down_addr in
/// net/ipv4/fib_semantics.c): its link going down, its interface losing an address, and its source
/// address going away. Links alone change no address; the kernel announces those by themselves.
pub(super) fn stale(message: &RouteNetlinkMessage, routes: &BTreeSet<DefaultRoute>) -> Stale {
    let carries = |interface| routes.iter().any(|route| route.interface == interface);
    match message {
        RouteNetlinkMessage::NewAddress(_) => Stale { addresses: true, routes: false },
        RouteNetlinkMessage::DelAddress(message) => {
            let address = own_address(message);
            let source = address.is_some() && routes.iter().any(|route| route.source == address);
            Stale { addresses: true, routes: source || carries(message.header.index) }
        }
        RouteNetlinkMessage::NewLink(message) | RouteNetlinkMessage::DelLink(message) => {
            Stale { addresses: false, routes: carries(message.header.index) }
        }
        RouteNetlinkMessage::NewRoute(message) | RouteNetlinkMessage::DelRoute(message) => {
            Stale { addresses: false, routes: is_default(&message.header) }
        }
        _ => Stale::default(),
    }
}
