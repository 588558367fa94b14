//! The header of the PROXY protocol, version 2: tells an endpoint who called whom. PURE.
//!
//! <https://www.haproxy.org/download/3.0/doc/proxy-protocol.txt>, section 2.2.

use std::net::{IpAddr, SocketAddr};

const SIGNATURE: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";
/// Version 2, command PROXY.
const VERSION_AND_COMMAND: u8 = 0x21;
const TCP_OVER_IPV4: u8 = 0x11;
const TCP_OVER_IPV6: u8 = 0x21;

/// The header of a TCP connection from `client` to the frontend `own`; both of one family.
#[must_use]
pub fn header(client: SocketAddr, own: SocketAddr) -> Vec<u8> {
    let octets = |address: IpAddr| match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    };
    let family = if own.is_ipv4() { TCP_OVER_IPV4 } else { TCP_OVER_IPV6 };
    let mut rest = octets(client.ip().to_canonical());
    rest.extend(octets(own.ip()));
    rest.extend(client.port().to_be_bytes());
    rest.extend(own.port().to_be_bytes());
    let mut header = SIGNATURE.to_vec();
    header.extend([VERSION_AND_COMMAND, family]);
    header.extend(u16::try_from(rest.len()).unwrap_or(u16::MAX).to_be_bytes());
    header.extend(rest);
    header
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_the_specification_has_it() {
        let [client, own] = ["198.51.100.7:4000", "10.96.0.1:80"].map(|text| text.parse().unwrap());
        let expected = b"\x0d\x0a\x0d\x0a\x00\x0d\x0a\x51\x55\x49\x54\x0a\x21\x11\x00\x0c\xc6\x33\x64\x07\x0a\x60\x00\x01\x0f\xa0\x00\x50";
        assert_eq!(header(client, own), expected);
        let [client, own] = ["[2001:db8::7]:4000", "[fd00::1]:80"].map(|text| text.parse().unwrap());
        let six = header(client, own);
        assert_eq!((six.len(), &six[12..16]), (52, &b"\x21\x21\x00\x24"[..]));
    }
}
