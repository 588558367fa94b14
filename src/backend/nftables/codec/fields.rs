//! The bytes of keys and data, field by field, and the arithmetic of ranges. PURE.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

use crate::model::{Family, Port, Protocol};
use crate::policy::exposure::{Frontend, FrontendAddress};

/// Key or data bytes under construction; the longest key has 36.
pub(super) struct Bytes {
    bytes: [u8; 40],
    pub(super) length: usize,
}

impl Default for Bytes {
    fn default() -> Self {
        Self { bytes: [0; 40], length: 0 }
    }
}

impl Bytes {
    pub(super) fn get(&self) -> &[u8] {
        &self.bytes[..self.length]
    }

    /// Appends one field and pads it.
    pub(super) fn field(&mut self, value: &[u8]) {
        let end = self.length + value.len();
        self.bytes[self.length..end].copy_from_slice(value);
        self.length = end.next_multiple_of(4);
    }

    pub(super) fn address(&mut self, address: &IpAddr) {
        match address {
            IpAddr::V4(address) => self.field(&address.octets()),
            IpAddr::V6(address) => self.field(&address.octets()),
        }
    }

    pub(super) fn frontend_address(&mut self, frontend: &Frontend) {
        if let FrontendAddress::Ip(address) = frontend.address {
            self.address(&address);
        }
    }

    pub(super) fn frontend(&mut self, frontend: &Frontend) {
        self.frontend_address(frontend);
        self.field(&[frontend.protocol.number()]);
        self.field(&frontend.port.number().to_be_bytes());
    }
}

pub(super) fn next_address(address: IpAddr, family: Family) -> Option<IpAddr> {
    match (address, family) {
        (IpAddr::V4(address), _) => Some(Ipv4Addr::from(u32::from(address).checked_add(1)?).into()),
        (IpAddr::V6(address), _) => Some(Ipv6Addr::from(u128::from(address).checked_add(1)?).into()),
    }
}

/// The range from `start` to `last`, if it is a CIDR.
#[must_use]
pub fn net_between(start: IpAddr, last: IpAddr) -> Option<IpNet> {
    let same_bits = match (start, last) {
        (IpAddr::V4(start), IpAddr::V4(last)) => (u32::from(start) ^ u32::from(last)).leading_zeros(),
        (IpAddr::V6(start), IpAddr::V6(last)) => (u128::from(start) ^ u128::from(last)).leading_zeros(),
        _ => return None,
    };
    let net = IpNet::new(start, u8::try_from(same_bits).ok()?).ok()?;
    (net.network() == start && net.broadcast() == last).then_some(net)
}

/// The address just before another one: the last one of a range from the first one behind it.
#[must_use]
pub fn previous_address(address: IpAddr) -> Option<IpAddr> {
    match address {
        IpAddr::V4(address) => Some(Ipv4Addr::from(u32::from(address).checked_sub(1)?).into()),
        IpAddr::V6(address) => Some(Ipv6Addr::from(u128::from(address).checked_sub(1)?).into()),
    }
}

/// Key or data bytes being taken apart.
pub(super) struct Fields<'a> {
    pub(super) bytes: &'a [u8],
    pub(super) family: Family,
}

impl<'a> Fields<'a> {
    pub(super) fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let value = self.bytes.get(..length)?;
        self.bytes = self.bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some(value)
    }

    pub(super) fn address(&mut self) -> Option<IpAddr> {
        Some(match self.family {
            Family::V4 => IpAddr::from(<[u8; 4]>::try_from(self.take(4)?).ok()?),
            Family::V6 => IpAddr::from(<[u8; 16]>::try_from(self.take(16)?).ok()?),
        })
    }

    pub(super) fn port(&mut self) -> Option<Port> {
        Port::new(u16::from_be_bytes(self.take(2)?.try_into().ok()?))
    }

    pub(super) fn protocol(&mut self) -> Option<Protocol> {
        Protocol::from_number(*self.take(1)?.first()?)
    }

    pub(super) fn index(&mut self) -> Option<u16> {
        u16::try_from(u32::from_ne_bytes(self.take(4)?.try_into().ok()?)).ok()
    }
}
