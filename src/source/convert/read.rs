//! Single values: addresses, CIDRs, ports, protocols. PURE.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::Report;
use crate::model::{Family, Port, Protocol};
use crate::source::field::{Field, List, Shape};

/// Reads an address as Kubernetes always has: leading zeros in IPv4 are allowed and decimal (old objects
/// have them), and an IPv4 address mapped into IPv6 is IPv4 (`ParseIPSloppy` of k8s.io/utils/net).
#[must_use]
pub fn parse_ip(text: &str) -> Option<IpAddr> {
    if text.contains(':') {
        return text.parse::<Ipv6Addr>().ok().map(|address| IpAddr::V6(address).to_canonical());
    }
    let mut octets = [0; 4];
    let mut parts = text.split('.');
    for octet in &mut octets {
        *octet = decimal(parts.next()?)?;
    }
    parts.next().is_none().then(|| Ipv4Addr::from(octets).into())
}

/// Reads a CIDR by the same rules; bits beyond the prefix are cleared, blanks around it do not count.
#[must_use]
pub fn parse_net(text: &str) -> Option<IpNet> {
    let (address, prefix) = text.trim().split_once('/')?;
    let prefix = decimal(prefix)?;
    let net: IpNet = match parse_ip(address)? {
        // the prefix of an IPv4 address mapped into IPv6 counts from the start of the IPv6 address
        IpAddr::V4(_) if address.contains(':') && prefix < 96 => {
            Ipv6Net::new(address.parse().ok()?, prefix).ok()?.into()
        }
        IpAddr::V4(v4) if address.contains(':') => Ipv4Net::new(v4, prefix - 96).ok()?.into(),
        address => IpNet::new(address, prefix).ok()?,
    };
    Some(net.trunc())
}

/// A number of digits only (`parse` alone would take a sign), with any number of leading zeros.
fn decimal(text: &str) -> Option<u8> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if digits { text.parse().ok() } else { None }
}

/// Why an address can be neither an endpoint nor an external IP; the API server forbids these too, since
/// they would let the author of a Service reach into the node.
fn special(address: &IpAddr) -> Option<&'static str> {
    let link_local = match address {
        IpAddr::V4(v4) => v4.is_link_local(),
        IpAddr::V6(v6) => v6.is_unicast_link_local(),
    };
    match address {
        _ if address.is_unspecified() => Some("the unspecified address"),
        _ if address.is_loopback() => Some("a loopback address"),
        _ if address.is_multicast() => Some("a multicast address"),
        _ if link_local => Some("a link-local address"),
        _ => None,
    }
}

impl Report<'_> {
    /// The value of a field; a wrong shape is a problem.
    pub(super) fn value<'f, T: Shape>(
        &mut self,
        field: &'f Field<T>,
        path: fmt::Arguments<'_>,
    ) -> Option<&'f T> {
        if let Field::Wrong(shape) = field {
            self.problem(path, format_args!("is {shape} where {} belongs: left out", T::EXPECTED));
        }
        field.get()
    }

    /// The elements of a list with their places; absent is empty, elements of a wrong shape are problems.
    pub(super) fn elements<'f, T: Shape>(
        &mut self,
        list: &'f List<T>,
        path: fmt::Arguments<'_>,
    ) -> Vec<(usize, &'f T)> {
        let Some(list) = self.value(list, path) else { return Vec::new() };
        let mut elements = Vec::with_capacity(list.len());
        for (index, element) in list.iter().enumerate() {
            elements.extend(self.value(element, format_args!("{path}[{index}]")).map(|value| (index, value)));
        }
        elements
    }

    /// Text; empty where there is none.
    pub(super) fn text<'f>(&mut self, field: &'f Field<String>, path: fmt::Arguments<'_>) -> &'f str {
        self.value(field, path).map_or("", String::as_str)
    }

    /// A condition; unset means `default`.
    pub(super) fn flag(&mut self, field: &Field<bool>, default: bool, path: fmt::Arguments<'_>) -> bool {
        self.value(field, path).copied().unwrap_or(default)
    }

    /// An address.
    pub(super) fn ip(&mut self, text: &str, path: fmt::Arguments<'_>) -> Option<IpAddr> {
        let address = parse_ip(text);
        if address.is_none() {
            self.problem(path, format_args!("{text:?} is not an IP address: left out"));
        }
        address
    }

    /// An address that packets may be sent to: see [`special`].
    pub(super) fn unicast_ip(&mut self, text: &str, path: fmt::Arguments<'_>) -> Option<IpAddr> {
        let address = self.ip(text, path)?;
        if let Some(reason) = special(&address) {
            self.problem(path, format_args!("{text} is {reason}: left out"));
            return None;
        }
        Some(address)
    }

    /// The usable ones of a list of CIDRs, each once.
    pub(super) fn nets(&mut self, list: &List<String>, path: fmt::Arguments<'_>) -> Box<[IpNet]> {
        let mut nets = Vec::new();
        for (index, text) in self.elements(list, path) {
            match parse_net(text) {
                Some(net) if nets.contains(&net) => {}
                Some(net) => nets.push(net),
                None => {
                    let what = format_args!("{text:?} is not a CIDR: left out");
                    self.problem(format_args!("{path}[{index}]"), what);
                }
            }
        }
        nets.into()
    }

    /// A port number; `None` and a problem if it is out of range.
    pub(super) fn port(&mut self, number: i64, path: fmt::Arguments<'_>) -> Option<Port> {
        let port = u16::try_from(number).ok().and_then(Port::new);
        if port.is_none() {
            self.problem(path, format_args!("{number} is not a port (1 to 65535): left out"));
        }
        port
    }

    /// A protocol; unset means TCP.
    pub(super) fn protocol(&mut self, field: &Field<String>, path: fmt::Arguments<'_>) -> Option<Protocol> {
        if let Field::Wrong(_) = field {
            self.value(field, path);
            return None;
        }
        match field.text() {
            "" | "TCP" => Some(Protocol::Tcp),
            "UDP" => Some(Protocol::Udp),
            "SCTP" => Some(Protocol::Sctp),
            other => {
                let what = format_args!("{other:?} is not TCP, UDP or SCTP: the port is left out");
                self.problem(path, what);
                None
            }
        }
    }

    /// Adds an address to a list unless it is there already.
    pub(super) fn add_once(&mut self, list: &mut Vec<IpAddr>, ip: IpAddr, path: fmt::Arguments<'_>) {
        if list.contains(&ip) {
            self.problem(path, format_args!("{ip} is there twice: the first counts"));
        } else {
            list.push(ip);
        }
    }
}

/// Whether the list has an address of this family.
pub(super) fn has_family(list: &[IpAddr], family: Family) -> bool {
    list.iter().any(|address| Family::of(address) == family)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_as_kubernetes_reads_them() {
        let rows = [
            ("10.0.0.1", "10.0.0.1"),
            ("172.30.0.041", "172.30.0.41"),
            ("010.000.000.0001", "10.0.0.1"),
            ("::ffff:1.2.3.4", "1.2.3.4"),
            ("fd00::1", "fd00::1"),
            ("FD00:0::0:1", "fd00::1"),
        ];
        for (text, meant) in rows {
            assert_eq!(parse_ip(text).map(|ip| ip.to_string()).as_deref(), Some(meant), "{text}");
        }
        for bad in ["", "10.0.0", "10.0.0.1.2", "10.0.0.256", "10.0.0.-1", "+1.0.0.1", "1..2.3", " 10.0.0.1"]
        {
            assert_eq!(parse_ip(bad), None, "{bad}");
        }
        for bad in ["fe80::1%eth0", "1:2", "None", "10.0.0.1/32", "0x10.0.0.1", "1.2.3.4:80", "fd00::12345"] {
            assert_eq!(parse_ip(bad), None, "{bad}");
        }
    }

    #[test]
    fn cidrs_are_read_as_kubernetes_reads_them() {
        let rows = [
            ("203.0.113.000/025", "203.0.113.0/25"),
            ("10.1.2.3/8", "10.0.0.0/8"),
            (" 10.0.0.0/8 ", "10.0.0.0/8"),
            ("0.0.0.0/0", "0.0.0.0/0"),
            ("fd00::1/64", "fd00::/64"),
            ("::ffff:10.0.0.0/104", "10.0.0.0/8"),
            ("::ffff:10.0.0.0/0", "::/0"),
        ];
        for (text, meant) in rows {
            assert_eq!(parse_net(text).map(|net| net.to_string()).as_deref(), Some(meant), "{text}");
        }
        for bad in ["", "10.0.0.0", "10.0.0.0/33", "10.0.0.0/", "10.0.0.0/-1", "fd00::/129", "10.0.0.0/8/8"] {
            assert_eq!(parse_net(bad), None, "{bad}");
        }
    }
}
