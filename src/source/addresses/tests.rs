//! Tables for the pure part, and a kernel of its own for the rest.

mod namespace;

use std::collections::BTreeSet;
use std::net::IpAddr;

use rtnetlink::packet_route::address::{
    AddressAttribute, AddressFlags, AddressHeaderFlags, AddressMessage, AddressScope,
};
use rtnetlink::packet_route::link::LinkMessage;
use rtnetlink::packet_route::route::{RouteAttribute, RouteMessage, RouteNextHop, RouteType};
use rtnetlink::packet_route::{AddressFamily, RouteNetlinkMessage};

use super::select::{DefaultRoute, Held, Stale, default_routes, held, select, stale};
use crate::model::Family::{self, V4, V6};
use crate::model::LocalAddress;

/// What an address looks like in a row: address, whether its interface has the default route.
type Row = (&'static str, bool);

fn list(rows: &[Row]) -> Box<[LocalAddress]> {
    rows.iter().map(|&(a, default_route)| LocalAddress { address: ip(a), default_route }).collect()
}

fn ip(address: &str) -> IpAddr {
    address.parse().unwrap()
}

fn route(family: Family, interface: u32) -> DefaultRoute {
    DefaultRoute { family, interface, source: None }
}

/// As the kernel sends the address `own` of the interface.
fn address(own: &str, interface: u32) -> AddressMessage {
    let mut message = AddressMessage::default();
    message.header.index = interface;
    message.header.scope = AddressScope::Universe;
    message.attributes.push(AddressAttribute::Address(ip(own)));
    message
}

/// As the kernel sends a default route of the main table through the interface.
fn through(family: AddressFamily, interface: u32) -> RouteMessage {
    let mut message = RouteMessage::default();
    message.header.address_family = family;
    message.header.table = 254;
    message.header.kind = RouteType::Unicast;
    message.attributes.push(RouteAttribute::Oif(interface));
    message
}

#[test]
fn the_list_is_sorted_and_marked_by_family() {
    /// Held addresses with their interfaces, default routes, the list.
    type Case<'a> = (&'a [(u32, &'a str)], &'a [DefaultRoute], &'a [Row]);
    let rows: [Case; 6] = [
        (&[], &[route(V4, 2)], &[]),
        (&[(2, "10.0.0.9"), (2, "10.0.0.10")], &[], &[("10.0.0.9", false), ("10.0.0.10", false)]),
        (&[(3, "10.0.1.1"), (2, "10.0.0.1")], &[route(V4, 3)], &[("10.0.0.1", false), ("10.0.1.1", true)]),
        // each family by itself
        (&[(2, "10.0.0.1"), (2, "fd00::1")], &[route(V4, 2)], &[("10.0.0.1", true), ("fd00::1", false)]),
        (&[(2, "10.0.0.1"), (2, "fd00::1")], &[route(V6, 2)], &[("10.0.0.1", false), ("fd00::1", true)]),
        // once, whichever comes first
        (&[(2, "10.0.0.1"), (3, "10.0.0.1"), (4, "10.0.0.1")], &[route(V4, 3)], &[("10.0.0.1", true)]),
    ];
    for (addresses, routes, expected) in rows {
        let held: Vec<_> =
            addresses.iter().map(|&(interface, a)| Held { interface, address: ip(a) }).collect();
        let got = select(&held, &routes.iter().copied().collect());
        assert_eq!(got, list(expected), "{addresses:?} {routes:?}");
    }
}

#[test]
fn addresses_that_a_client_elsewhere_can_reach() {
    use AddressHeaderFlags as F;
    let none = F::empty();
    let global = AddressScope::Universe;
    // address, interface, scope, flags, whether it counts
    let rows = [
        ("10.0.0.1", 2, global, none, true),
        ("fd00::1", 2, global, F::Permanent, true),
        ("10.0.0.1", 2, AddressScope::Link, none, false),
        ("10.0.0.1", 2, AddressScope::Host, none, false),
        ("10.0.0.1", 1, global, none, false),
        ("127.0.0.2", 2, global, none, false),
        ("::1", 2, global, none, false),
        ("169.254.20.10", 2, global, none, false),
        ("fe80::1", 2, global, none, false),
        ("10.0.0.1", 2, global, F::Secondary, true),
        ("fd00::1", 2, global, F::Deprecated, true),
        ("fd00::1", 2, global, F::Tentative, false),
        ("fd00::1", 2, global, F::Tentative | F::Optimistic, true),
        ("fd00::1", 2, global, F::Tentative | F::Dadfailed, false),
        ("fd00::1", 2, global, F::Tentative | F::Optimistic | F::Dadfailed, false),
    ];
    for (own, interface, scope, flags, counts) in rows {
        let mut message = address(own, interface);
        message.header.scope = scope;
        message.header.flags = flags;
        let expected = counts.then(|| Held { interface, address: ip(own) });
        assert_eq!(held(&message), expected, "{own} on {interface}, {scope:?}, {flags:?}");
    }
}

#[test]
fn the_own_address_of_a_point_to_point_link_is_not_the_peers() {
    let mut message = address("10.0.0.2", 2);
    message.attributes.push(AddressAttribute::Local(ip("10.0.0.1")));
    assert_eq!(held(&message), Some(Held { interface: 2, address: ip("10.0.0.1") }));
    message.attributes.clear();
    assert_eq!(held(&message), None);
}

#[test]
fn a_failed_detection_is_also_seen_in_the_long_flags() {
    let mut message = address("fd00::1", 2);
    message.attributes.push(AddressAttribute::Flags(AddressFlags::Dadfailed));
    assert_eq!(held(&message), None);
}

#[test]
fn default_routes_are_those_of_the_main_table_that_lead_somewhere() {
    let good = through(AddressFamily::Inet, 2);
    assert_eq!(default_routes(&good), [route(V4, 2)]);
    assert_eq!(default_routes(&through(AddressFamily::Inet6, 3)), [route(V6, 3)]);
    assert_eq!(default_routes(&through(AddressFamily::Mpls, 3)), []);

    let mut narrower = good.clone();
    narrower.header.destination_prefix_length = 1;
    assert_eq!(default_routes(&narrower), []);
    let mut elsewhere = good.clone();
    elsewhere.header.table = 100;
    assert_eq!(default_routes(&elsewhere), []);
    let mut nowhere = good.clone();
    nowhere.header.kind = RouteType::Unreachable;
    assert_eq!(default_routes(&nowhere), []);

    let mut sourced = good.clone();
    sourced.attributes.push(RouteAttribute::PrefSource(ip("10.0.0.1").into()));
    assert_eq!(
        default_routes(&sourced),
        [DefaultRoute { family: V4, interface: 2, source: Some(ip("10.0.0.1")) }]
    );

    let hop = |interface_index| {
        let mut hop = RouteNextHop::default();
        hop.interface_index = interface_index;
        hop
    };
    let mut several = good;
    several.attributes = vec![RouteAttribute::MultiPath(vec![hop(4), hop(5)])];
    assert_eq!(default_routes(&several), [route(V4, 4), route(V4, 5)]);
}

#[test]
fn only_what_may_change_a_default_route_makes_the_routes_stale() {
    use RouteNetlinkMessage::{DelAddress, DelLink, DelRoute, NewAddress, NewLink, NewRoute};
    let routes = BTreeSet::from([DefaultRoute { family: V4, interface: 2, source: Some(ip("10.9.9.9")) }]);
    let link = |index| {
        let mut message = LinkMessage::default();
        message.header.index = index;
        message
    };
    let mut narrow = through(AddressFamily::Inet, 2);
    narrow.header.destination_prefix_length = 24;
    // notification, whether addresses are stale, whether routes are
    let rows = [
        (NewAddress(address("10.0.0.1", 2)), true, false),
        (NewAddress(address("10.0.0.1", 7)), true, false),
        (DelAddress(address("10.0.0.1", 7)), true, false),
        (DelAddress(address("10.0.0.1", 2)), true, true),
        (DelAddress(address("10.9.9.9", 1)), true, true),
        (NewLink(link(7)), false, false),
        (DelLink(link(7)), false, false),
        (NewLink(link(2)), false, true),
        (DelLink(link(2)), false, true),
        (NewRoute(through(AddressFamily::Inet6, 7)), false, true),
        (DelRoute(through(AddressFamily::Inet, 2)), false, true),
        (NewRoute(narrow.clone()), false, false),
        (DelRoute(narrow), false, false),
    ];
    for (message, addresses, of_routes) in rows {
        assert_eq!(stale(&message, &routes), Stale { addresses, routes: of_routes }, "{message:?}");
    }
}
