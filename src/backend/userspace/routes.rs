//! Local routes: how addresses of Services become addresses of this node. EDGE: rtnetlink.
//!
//! A route of type `local` makes the kernel take in what is sent to an address, without the address
//! standing on any interface. All of ours carry a protocol number of our own, by which a later start and
//! `shunt cleanup` know them, and stand in the table `local`, which is asked first.

use std::collections::BTreeSet;
use std::io;
use std::net::IpAddr;

use ipnet::IpNet;
use nix::libc;
use rtnetlink::packet_core::{NetlinkMessage, NetlinkPayload};
use rtnetlink::packet_route::route::{
    RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteProtocol, RouteScope, RouteType,
};
use rtnetlink::packet_route::{AddressFamily, RouteNetlinkMessage};

use crate::model::Family;
use crate::netlink::socket::{Socket, read_error};
use crate::netlink::{ACK, CREATE, DONE, DUMP, ERROR, EXCLUSIVE, REQUEST};

/// `proto 115` in `ip route show table local`: nobody else's in `/etc/iproute2/rt_protos`.
const PROTOCOL: RouteProtocol = RouteProtocol::Other(115);
/// `RT_TABLE_LOCAL`.
const TABLE: u8 = 255;
/// `LOOPBACK_IFINDEX`.
const LOOPBACK: u32 = 1;
/// `NLMSG_HDRLEN`.
const HEADER: usize = 16;
/// Requests sent at once: should all of them fail, the errors fit into the socket's receive buffer.
const AT_ONCE: usize = 128;

/// What one of our routes does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Route {
    /// The address is this node's own.
    Local(IpAddr),
    /// What is sent to the range goes nowhere, unless a longer prefix says otherwise.
    Drop(IpNet),
}

/// What the kernel says of an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Way {
    /// It is this node's own.
    pub local: bool,
    /// The interface that leads to it.
    pub interface: Option<u32>,
}

/// The conversation about routes.
#[derive(Debug)]
pub struct Routes {
    socket: Socket,
    seq: u32,
}

impl Routes {
    /// Opens it; that needs no privilege.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn open() -> io::Result<Self> {
        Ok(Self { socket: Socket::open_on(mnl::Bus::Route)?, seq: 0 })
    }

    /// Adds routes (`true`) and removes some. Returns those for which that failed; what is there or gone
    /// already is no failure.
    ///
    /// # Errors
    /// The conversation failed.
    pub fn change(&mut self, changes: &[(Route, bool)]) -> io::Result<Vec<(Route, io::Error)>> {
        let mut failed = Vec::new();
        for changes in changes.chunks(AT_ONCE) {
            let mut bytes = Vec::new();
            let first = self.seq + 1;
            for (route, add) in changes {
                let (message, flags) = if *add {
                    (RouteNetlinkMessage::NewRoute(message(*route)), CREATE | EXCLUSIVE)
                } else {
                    (RouteNetlinkMessage::DelRoute(message(*route)), 0)
                };
                self.write(&mut bytes, message, ACK | flags);
            }
            self.socket.send(&bytes)?;
            let mut left = changes.len();
            while left > 0 {
                for answer in self.socket.receive()?.filter(|answer| answer.kind == ERROR) {
                    let Some(at) = answer.seq.checked_sub(first) else { continue };
                    let Some((route, _)) = usize::try_from(at).ok().and_then(|at| changes.get(at)) else {
                        continue;
                    };
                    left -= 1;
                    match read_error(&answer).0 {
                        0 | libc::EEXIST | libc::ESRCH | libc::ENOENT => {}
                        errno => failed.push((*route, io::Error::from_raw_os_error(errno))),
                    }
                }
            }
        }
        Ok(failed)
    }

    /// Our routes of a family.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn list(&mut self, family: Family) -> io::Result<BTreeSet<Route>> {
        let mut request = RouteMessage::default();
        request.header.address_family = address_family(family);
        request.header.table = TABLE;
        let mut routes = BTreeSet::new();
        self.ask(RouteNetlinkMessage::GetRoute(request), DUMP, |message| {
            // A kernel without IPv6 answers with what it has.
            if message.header.address_family == address_family(family) {
                routes.extend(ours(message));
            }
        })?;
        Ok(routes)
    }

    /// How the kernel would reach an address.
    ///
    /// # Errors
    /// What the kernel says, such as `ENETUNREACH`.
    pub fn way(&mut self, to: IpAddr) -> io::Result<Way> {
        let mut request = RouteMessage::default();
        request.header.address_family = address_family(Family::of(&to));
        request.header.destination_prefix_length = if to.is_ipv4() { 32 } else { 128 };
        request.attributes.push(RouteAttribute::Destination(RouteAddress::from(to)));
        let mut way = Way { local: false, interface: None };
        self.ask(RouteNetlinkMessage::GetRoute(request), 0, |message| {
            way.local = message.header.kind == RouteType::Local;
            way.interface = message.attributes.iter().find_map(|attribute| match attribute {
                RouteAttribute::Oif(index) => Some(*index),
                _ => None,
            });
        })?;
        Ok(way)
    }

    /// Sends one request and hands over the routes of its answer.
    fn ask(
        &mut self,
        request: RouteNetlinkMessage,
        flags: u16,
        mut each: impl FnMut(&RouteMessage),
    ) -> io::Result<()> {
        let mut bytes = Vec::new();
        let seq = self.write(&mut bytes, request, flags);
        self.socket.send(&bytes)?;
        loop {
            for answer in self.socket.receive()?.filter(|answer| answer.seq == seq) {
                match answer.kind {
                    DONE => return Ok(()),
                    ERROR => match read_error(&answer).0 {
                        0 => return Ok(()),
                        errno => return Err(io::Error::from_raw_os_error(errno)),
                    },
                    _ => {
                        let read = NetlinkMessage::<RouteNetlinkMessage>::deserialize(answer.whole);
                        if let Ok(NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewRoute(route))) =
                            read.map(|message| message.payload)
                        {
                            each(&route);
                        }
                    }
                }
                if flags & DUMP == 0 {
                    return Ok(());
                }
            }
        }
    }

    /// Appends one message and returns its sequence number.
    fn write(&mut self, bytes: &mut Vec<u8>, message: RouteNetlinkMessage, flags: u16) -> u32 {
        self.seq += 1;
        let mut message = NetlinkMessage::from(message);
        message.header.flags = REQUEST | flags;
        message.header.sequence_number = self.seq;
        message.finalize();
        let start = bytes.len();
        bytes.resize(start + message.buffer_len().max(HEADER), 0);
        message.serialize(&mut bytes[start..]);
        self.seq
    }
}

fn address_family(family: Family) -> AddressFamily {
    match family {
        Family::V4 => AddressFamily::Inet,
        Family::V6 => AddressFamily::Inet6,
    }
}

/// A route as the kernel is told of it.
fn message(route: Route) -> RouteMessage {
    let (net, kind) = match route {
        Route::Local(address) => (IpNet::from(address), RouteType::Local),
        Route::Drop(net) => (net, RouteType::BlackHole),
    };
    let mut message = RouteMessage::default();
    message.header = RouteHeader {
        address_family: address_family(Family::of_net(&net)),
        destination_prefix_length: net.prefix_len(),
        table: TABLE,
        protocol: PROTOCOL,
        scope: if kind == RouteType::Local { RouteScope::Host } else { RouteScope::Universe },
        kind,
        ..RouteHeader::default()
    };
    message.attributes.push(RouteAttribute::Destination(RouteAddress::from(net.network())));
    if kind == RouteType::Local {
        message.attributes.push(RouteAttribute::Oif(LOOPBACK));
    }
    message
}

/// One of our routes, as the kernel tells of it.
fn ours(message: &RouteMessage) -> Option<Route> {
    let RouteHeader { protocol, table, kind, destination_prefix_length: length, .. } = message.header;
    if protocol != PROTOCOL || table != TABLE {
        return None;
    }
    let destination = message.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Destination(RouteAddress::Inet(address)) => Some(IpAddr::V4(*address)),
        RouteAttribute::Destination(RouteAddress::Inet6(address)) => Some(IpAddr::V6(*address)),
        _ => None,
    })?;
    match kind {
        RouteType::Local => Some(Route::Local(destination)),
        RouteType::BlackHole => IpNet::new(destination, length).ok().map(Route::Drop),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_asked_for_is_recognised() {
        for route in [
            Route::Local("10.96.0.1".parse().unwrap()),
            Route::Local("fd00::1".parse().unwrap()),
            Route::Drop("10.96.0.0/16".parse().unwrap()),
            Route::Drop("fd00:10:96::/112".parse().unwrap()),
        ] {
            assert_eq!(ours(&message(route)), Some(route));
        }
        let mut foreign = message(Route::Local("10.96.0.1".parse().unwrap()));
        foreign.header.protocol = RouteProtocol::Kernel;
        assert_eq!(ours(&foreign), None);
    }
}
