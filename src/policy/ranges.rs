//! Who may call the load-balancer IPs of a Service.

use std::net::IpAddr;

use ipnet::IpNet;

use crate::model::{Family, Service};

/// The sources that may call the Service's load-balancer IPs in this family: disjoint, sorted, as few
/// as possible. `None` means everybody: no ranges, ranges only of the other family, or one that
/// matches every address.
///
/// If a range contains one of the node's own IPs, the load-balancer IPs themselves count as allowed
/// sources: a pod's packet to its own load balancer can come back with that source.
#[must_use]
pub fn allowed_sources(service: &Service, family: Family, node_ips: &[IpAddr]) -> Option<Vec<IpNet>> {
    let of_family = |net: &&IpNet| Family::of_net(net) == family;
    let ranges: Vec<IpNet> = service.source_ranges.iter().filter(of_family).copied().collect();
    if ranges.is_empty() || ranges.iter().any(|range| range.prefix_len() == 0) {
        return None;
    }
    let from_node = node_ips.iter().any(|ip| ranges.iter().any(|range| range.contains(ip)));
    let own = service.load_balancer_ips.iter().filter(|ip| from_node && Family::of(ip) == family);
    let all: Vec<IpNet> = ranges.iter().copied().chain(own.map(|ip| IpNet::from(*ip))).collect();
    Some(IpNet::aggregate(&all))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::service;

    #[test]
    fn ranges_are_of_the_family_merged_and_know_the_node() {
        let node_ips = ["192.168.0.2".parse().unwrap()];
        let table: &[(&[&str], Option<&str>)] = &[
            (&[], None),
            (&["2001:db8::/64"], None),
            (&["0.0.0.0/0", "203.0.113.0/24"], None),
            (&["203.0.113.0/24", "2001:db8::/64"], Some("203.0.113.0/24")),
            (&["203.0.113.0/25", "203.0.113.128/25", "203.0.113.4/32"], Some("203.0.113.0/24")),
            (&["192.168.0.0/24"], Some("1.2.3.4/32 192.168.0.0/24")),
        ];
        for (ranges, expected) in table {
            let service =
                service("10.96.0.1").load_balancer_ips("1.2.3.4,fd00::9").source_ranges(ranges).build();
            let got = allowed_sources(&service, Family::V4, &node_ips);
            let got = got.map(|nets| nets.iter().map(ToString::to_string).collect::<Vec<_>>().join(" "));
            assert_eq!(got.as_deref(), *expected, "{ranges:?}");
        }
    }
}
