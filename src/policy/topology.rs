//! Which ready endpoints topology hints leave in use.

use crate::model::{Endpoint, NodeHint, Zone};

/// How hints narrow the ready endpoints of one ServicePort.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Topology<'a> {
    /// Only endpoints hinted for this node: every ready endpoint has a node hint and at least one is
    /// for this node (KEP-3015 PreferSameNode).
    SameNode,
    /// Only endpoints hinted for this zone: every ready endpoint has a zone hint and at least one is
    /// for this zone (KEP-2433, KEP-4444).
    SameZone(&'a Zone),
    /// All endpoints: hints are absent, incomplete, or none is for us. A Service is never left without
    /// endpoints because of hints.
    Anywhere,
}

impl<'a> Topology<'a> {
    /// Decides for the `ready` endpoints of a ServicePort as seen from a node in `zone`.
    pub fn decide<'e>(ready: &(impl Iterator<Item = &'e Endpoint> + Clone), zone: Option<&'a Zone>) -> Self {
        let mut hints = ready.clone().map(|endpoint| endpoint.node_hint);
        if hints.clone().any(|hint| hint == NodeHint::Here) && hints.all(|hint| hint != NodeHint::None) {
            return Self::SameNode;
        }
        match zone {
            Some(zone) if ready.clone().any(|e| hinted(e, zone)) && ready.clone().all(has_zone_hint) => {
                Self::SameZone(zone)
            }
            _ => Self::Anywhere,
        }
    }

    /// Whether the endpoint stays in use.
    #[must_use]
    pub fn admits(self, endpoint: &Endpoint) -> bool {
        match self {
            Self::SameNode => endpoint.node_hint == NodeHint::Here,
            Self::SameZone(zone) => hinted(endpoint, zone),
            Self::Anywhere => true,
        }
    }
}

fn has_zone_hint(endpoint: &Endpoint) -> bool {
    endpoint.zone_hints.as_ref().is_some_and(|zones| !zones.is_empty())
}

fn hinted(endpoint: &Endpoint, zone: &Zone) -> bool {
    endpoint.zone_hints.as_ref().is_some_and(|zones| zones.contains(zone))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{endpoint, with, zones};

    /// `h` hinted for this node, `e` for another one, `-` no node hint; then the zones hinted.
    fn parse(text: &str) -> Endpoint {
        let (node, zone) = text.split_at(1);
        with(endpoint("10.0.0.1"), |e| {
            e.node_hint = match node {
                "h" => NodeHint::Here,
                "e" => NodeHint::Elsewhere,
                _ => NodeHint::None,
            };
            let hinted: Vec<&str> = zone.split('+').filter(|z| !z.is_empty()).collect();
            e.zone_hints = if hinted.is_empty() { None } else { Some(zones(&hinted)) };
        })
    }

    #[test]
    fn hints_narrow_only_when_they_are_complete_and_leave_something() {
        let zone_a = Zone("a".into());
        let zone = Topology::SameZone(&zone_a);
        let table: &[(&[&str], Option<&Zone>, Topology)] = &[
            (&[], Some(&zone_a), Topology::Anywhere),
            (&["-", "-"], Some(&zone_a), Topology::Anywhere),
            (&["-a", "-b"], Some(&zone_a), zone),
            (&["-a", "-b"], None, Topology::Anywhere),
            (&["-a", "-"], Some(&zone_a), Topology::Anywhere),
            (&["-b", "-c"], Some(&zone_a), Topology::Anywhere),
            (&["-b+a", "-c"], Some(&zone_a), zone),
            (&["h", "e"], Some(&zone_a), Topology::SameNode),
            (&["e", "e"], Some(&zone_a), Topology::Anywhere),
            (&["h", "-"], Some(&zone_a), Topology::Anywhere),
            (&["ha", "eb"], Some(&zone_a), Topology::SameNode),
            (&["ea", "eb"], Some(&zone_a), zone),
            (&["ha", "-b"], Some(&zone_a), zone),
        ];
        for (endpoints, zone, expected) in table {
            let endpoints: Vec<Endpoint> = endpoints.iter().map(|text| parse(text)).collect();
            assert_eq!(Topology::decide(&endpoints.iter(), *zone), *expected, "{endpoints:?}");
        }
    }
}
