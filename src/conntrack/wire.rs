//! ctnetlink messages as bytes: what is asked, what is deleted, what the kernel tells. PURE.
//!
//! The numbers are those of `include/uapi/linux/netfilter/nfnetlink_conntrack.h`.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use crate::model::Protocol;
use crate::netlink::{Attributes, Message, Writer};
use crate::policy::stale::{Flow, Tuple};

/// `NFNL_SUBSYS_CTNETLINK`.
const SUBSYSTEM: u16 = 1 << 8;
/// `IPCTNL_MSG_CT_GET`.
pub const GET: u16 = SUBSYSTEM + 1;
/// `IPCTNL_MSG_CT_DELETE`.
pub const DELETE: u16 = SUBSYSTEM + 2;

/// Attributes of a flow (`enum ctattr_type`).
mod flow {
    /// `CTA_TUPLE_ORIG`.
    pub const ORIGINAL: u16 = 1;
    /// `CTA_TUPLE_REPLY`.
    pub const REPLY: u16 = 2;
    /// `CTA_ID`.
    pub const ID: u16 = 12;
    /// `CTA_ZONE`.
    pub const ZONE: u16 = 18;
    /// `CTA_FILTER` (Linux 5.8).
    pub const FILTER: u16 = 25;
}

/// Attributes of a tuple (`enum ctattr_tuple`, `ctattr_ip`, `ctattr_l4proto`).
mod tuple {
    /// `CTA_TUPLE_IP`.
    pub const IP: u16 = 1;
    /// `CTA_TUPLE_PROTO`.
    pub const PROTO: u16 = 2;
    /// `CTA_TUPLE_ZONE`.
    pub const ZONE: u16 = 3;
    /// `CTA_IP_V4_SRC`, `CTA_IP_V4_DST`.
    pub const V4: [u16; 2] = [1, 2];
    /// `CTA_IP_V6_SRC`, `CTA_IP_V6_DST`.
    pub const V6: [u16; 2] = [3, 4];
    /// `CTA_PROTO_NUM`.
    pub const NUMBER: u16 = 1;
    /// `CTA_PROTO_SRC_PORT`, `CTA_PROTO_DST_PORT`.
    pub const PORTS: [u16; 2] = [2, 3];
}

/// What a filter compares, in the order of the kernel's `enum ctnetlink_filter_match` bits: the value
/// of `CTA_FILTER_ORIG_FLAGS` (1), in host byte order.
mod filter {
    /// `CTA_FILTER_ORIG_FLAGS`.
    pub const ORIGINAL: u16 = 1;
    /// The destination address.
    pub const DESTINATION: u32 = 1 << 1;
    /// The protocol.
    pub const PROTOCOL: u32 = 1 << 3;
    /// The destination port.
    pub const PORT: u32 = 1 << 5;
}

/// A flow and the kernel's name for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The flow.
    pub flow: Flow,
    /// `CTA_ID`: another one where the same client has a new flow.
    pub id: [u8; 4],
}

/// The UDP flows to ask for: all of a family, or those to a port, or to an address and port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Query {
    /// The address that the client dials.
    pub address: Option<IpAddr>,
    /// The port that it dials.
    pub port: Option<u16>,
}

impl Query {
    /// Every UDP flow.
    pub const EVERYTHING: Self = Self { address: None, port: None };

    /// Writes the attributes of the request. Kernels without `CTA_FILTER` ignore them.
    pub fn write(&self, writer: &mut Writer) {
        let mut flags = filter::PROTOCOL;
        let open = writer.nest(flow::ORIGINAL);
        if let Some(address) = self.address {
            flags |= filter::DESTINATION;
            write_addresses(writer, [None, Some(address)]);
        }
        if self.port.is_some() {
            flags |= filter::PORT;
        }
        write_ports(writer, [None, self.port]);
        writer.close(open);
        let open = writer.nest(flow::FILTER);
        writer.attribute(filter::ORIGINAL, &[&flags.to_ne_bytes()]);
        writer.close(open);
    }
}

impl Entry {
    /// Reads a message of a dump; `None` if it is not about UDP, or about a flow in another zone than
    /// the default one, where flows are not ours.
    #[must_use]
    pub fn read(message: &Message<'_>) -> Option<Self> {
        let attributes = message.attributes();
        if attributes.get(flow::ZONE).is_some() {
            return None;
        }
        let original = read_tuple(attributes.nested(flow::ORIGINAL))?;
        let reply = read_tuple(attributes.nested(flow::REPLY))?;
        let id = attributes.get(flow::ID)?.try_into().ok()?;
        Some(Self { flow: Flow { original, reply }, id })
    }

    /// Writes the attributes of a message that deletes exactly this flow.
    pub fn write(&self, writer: &mut Writer) {
        let Tuple { source, destination } = self.flow.original;
        let open = writer.nest(flow::ORIGINAL);
        write_addresses(writer, [source, destination].map(|end| Some(end.ip())));
        write_ports(writer, [source, destination].map(|end| Some(end.port())));
        writer.close(open);
        writer.attribute(flow::ID, &[&self.id]);
    }
}

/// Source and destination, each where it is known.
fn write_addresses(writer: &mut Writer, ends: [Option<IpAddr>; 2]) {
    let open = writer.nest(tuple::IP);
    for (end, address) in ends.into_iter().enumerate() {
        match address {
            Some(IpAddr::V4(address)) => writer.attribute(tuple::V4[end], &[&address.octets()]),
            Some(IpAddr::V6(address)) => writer.attribute(tuple::V6[end], &[&address.octets()]),
            None => {}
        }
    }
    writer.close(open);
}

/// The protocol, and the ports where they are known.
fn write_ports(writer: &mut Writer, ends: [Option<u16>; 2]) {
    let open = writer.nest(tuple::PROTO);
    writer.attribute(tuple::NUMBER, &[&[Protocol::Udp.number()]]);
    for (kind, port) in tuple::PORTS.into_iter().zip(ends) {
        if let Some(port) = port {
            writer.attribute(kind, &[&port.to_be_bytes()]);
        }
    }
    writer.close(open);
}

fn read_tuple(attributes: Attributes<'_>) -> Option<Tuple> {
    let (ip, proto) = (attributes.nested(tuple::IP), attributes.nested(tuple::PROTO));
    let other = proto.get(tuple::NUMBER)? != [Protocol::Udp.number()];
    if other || attributes.get(tuple::ZONE).is_some() {
        return None;
    }
    let end = |end: usize| {
        let v4 = ip.get(tuple::V4[end]).and_then(|bytes| <[u8; 4]>::try_from(bytes).ok());
        let v6 = || ip.get(tuple::V6[end]).and_then(|bytes| <[u8; 16]>::try_from(bytes).ok());
        let v4 = v4.map(|octets| IpAddr::V4(Ipv4Addr::from(octets)));
        let address = v4.or_else(|| v6().map(|octets| IpAddr::V6(Ipv6Addr::from(octets))))?;
        let port = proto.get(tuple::PORTS[end])?.try_into().ok().map(u16::from_be_bytes)?;
        Some(SocketAddr::new(address, port))
    };
    Some(Tuple { source: end(0)?, destination: end(1)? })
}

#[cfg(test)]
mod tests;
