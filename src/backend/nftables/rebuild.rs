//! From elements back to rows: the inverse of `element.rs`. PURE.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;

use super::element::{Element, ElementData, ElementKey, elements};
use super::names::{Lists, Set, Treatment};
use super::sticky::Memory;
use crate::desired::{Affinity, Choice, Forwarding, Masquerade, Owner, Row, ServicePortName};
use crate::model::{ServiceName, TrafficPolicy};
use crate::policy::endpoints::Target;
use crate::policy::exposure::Frontend;

/// Rows rebuilt from the elements that the kernel holds, and the elements that belong to no whole
/// row: leftovers of a hand at work, to be deleted.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Rebuilt {
    /// Whole rows with their owners.
    pub rows: Vec<(Owner, Row)>,
    /// The rest.
    pub strays: Vec<Element>,
}

/// Rebuilds rows from elements: the inverse of [`elements`]. A row is whole if `elements` of it gives
/// exactly the elements found under its frontend. `seconds` tells how long a memory lasts that exists.
#[must_use]
pub fn rebuild(mut all: Vec<Element>, seconds: impl Fn(&Memory) -> Option<u32>) -> Rebuilt {
    let mut rebuilt = Rebuilt::default();
    let hairpins: BTreeSet<IpAddr> = all
        .iter()
        .filter_map(|e| if let ElementKey::Pair(address) = e.key { Some(address) } else { None })
        .collect();
    all.retain(|element| frontend(element).is_some() || !rebuilt.take_single(element));
    all.sort_unstable_by_key(|element| (frontend(element), element.id()));
    let mut users: BTreeMap<IpAddr, Owner> = BTreeMap::new();
    for found in all.chunk_by(|one, other| frontend(one) == frontend(other)) {
        let whole = frontend(&found[0]).and_then(|front| whole_row(front, found, &hairpins, &seconds));
        let Some((owner, row)) = whole else {
            rebuilt.strays.extend_from_slice(found);
            continue;
        };
        if let Row::Frontend(_, forwarding) = &row {
            for target in local_targets(forwarding) {
                users.entry(target).or_insert_with(|| owner.clone());
            }
        }
        rebuilt.rows.push((owner, row));
    }
    // A pair does not say who needs it: some Service that leads to it holds it, the node if none does.
    for address in hairpins {
        let owner = users.get(&address).cloned().unwrap_or(Owner::Node);
        rebuilt.rows.push((owner, Row::Hairpin(address)));
    }
    rebuilt
}

/// The frontend that an element belongs to, together with others.
const fn frontend(element: &Element) -> Option<Frontend> {
    match element.key {
        ElementKey::Frontend(frontend)
        | ElementKey::Original(frontend)
        | ElementKey::Slot(frontend, _)
        | ElementKey::Source(frontend, _) => Some(frontend),
        ElementKey::Address(_) | ElementKey::Range(_) | ElementKey::Pair(_) => None,
    }
}

impl Rebuilt {
    /// Takes an element that is a row by itself; false if it is none.
    fn take_single(&mut self, element: &Element) -> bool {
        let row = match (element.key, element.set) {
            (ElementKey::Address(address), Set::NodeportIps) => (Owner::Node, Row::NodePortAddress(address)),
            (ElementKey::Range(net), _) => (Owner::Node, Row::ServiceCidr(net)),
            (ElementKey::Address(address), _) => {
                let Some(service) = element.comment.as_deref().and_then(ServiceName::parse) else {
                    return false;
                };
                (Owner::Service(service.clone()), Row::ClusterIp(address, service))
            }
            // taken together with all others
            _ => return true,
        };
        self.rows.push(row);
        true
    }
}

fn local_targets(forwarding: &Forwarding) -> impl Iterator<Item = IpAddr> + '_ {
    let outside = forwarding.from_outside.iter();
    let all = outside.chain([&forwarding.to]).flat_map(|choice| choice.targets().iter());
    all.filter(|target| target.local).map(|target| target.address)
}

/// The row whose elements are exactly those `found` (sorted).
fn whole_row(
    frontend: Frontend,
    found: &[Element],
    hairpins: &BTreeSet<IpAddr>,
    seconds: impl Fn(&Memory) -> Option<u32>,
) -> Option<(Owner, Row)> {
    let comment = found.iter().find_map(|element| element.comment.as_deref())?;
    let service_port = ServicePortName::parse(comment)?;
    let owner = Owner::Service(service_port.service.clone());
    let list = |lists: Lists| -> Choice {
        let slots = found.iter().filter(|element| element.set == lists.endpoints());
        let targets = slots.filter_map(|element| match element.data {
            ElementData::Target(address, port) => {
                Some(Target { address, port, local: hairpins.contains(&address) })
            }
            _ => None,
        });
        Choice::Endpoints(targets.collect())
    };
    let mut masquerade = Masquerade::Nobody;
    let mut to = None;
    let mut from_outside = None;
    let mut affinity: Option<Affinity> = None;
    for element in found {
        let chain = match &element.data {
            ElementData::Chain(chain) => Some(*chain),
            ElementData::Sticky(sticky) => {
                let lasts = seconds(&sticky.memory)?;
                let known = affinity.get_or_insert(Affinity { seconds: lasts, list: TrafficPolicy::Cluster });
                // Two memories that do not last equally long are set right: nobody wants 0 seconds.
                known.seconds = if known.seconds == lasts { lasts } else { 0 };
                if matches!(element.set, Set::Services | Set::Nodeports) {
                    known.list = sticky.memory.list();
                }
                Some(sticky.chain)
            }
            _ => None,
        };
        match (&element.data, chain, element.set) {
            (_, Some(chain), Set::Services | Set::Nodeports) => {
                masquerade = masquerade_of(chain.treatment)?;
                to = Some(list(chain.lists));
            }
            (_, Some(chain), _) => from_outside = Some(list(chain.lists)),
            (ElementData::Drop, _, Set::LocalServices | Set::LocalNodeports) => {
                from_outside = Some(Choice::Drop);
            }
            (ElementData::Drop, ..) => to = Some(Choice::Drop),
            (ElementData::Refuse, ..) => to = Some(Choice::Reject),
            _ => {}
        }
    }
    let allowed_sources = allowed_sources(found);
    let forwarding = Forwarding {
        service_port,
        masquerade,
        to: to?,
        from_outside,
        allowed_sources,
        affinity,
        proxy_protocol: false,
    };
    let row = Row::Frontend(frontend, forwarding.into());
    is_made_of(&row, found).then_some((owner, row))
}

/// Whom the chains of a treatment masquerade; none decide that on their own.
const fn masquerade_of(treatment: Treatment) -> Option<Masquerade> {
    match treatment {
        Treatment::Cluster => Some(Masquerade::Foreign),
        Treatment::External => Some(Masquerade::Always),
        Treatment::Shortcut => Some(Masquerade::Own),
        Treatment::Pick => None,
    }
}

/// Whether the elements of a row are exactly those `found`.
fn is_made_of(row: &Row, found: &[Element]) -> bool {
    let mut expected = Vec::with_capacity(found.len());
    elements(row, &mut expected);
    expected == found
}

fn allowed_sources(found: &[Element]) -> Option<Arc<[IpNet]>> {
    let restricted = found.iter().any(|element| element.set == Set::Restricted);
    let source = |e: &Element| if let ElementKey::Source(_, net) = e.key { Some(net) } else { None };
    restricted.then(|| found.iter().filter_map(source).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::NodePortAddresses;
    use crate::desired::{Context, service_rows};
    use crate::model::{Family, Object, Store, Touched, Update};
    use crate::testing::{endpoint, local, name, service, slice};

    fn rows() -> Vec<Row> {
        let mut store = Store::default();
        let mut touched = Touched::default();
        let web = service("10.96.0.1").external_ips("192.0.2.7").load_balancer_ips("203.0.113.1");
        let web = web.source_ranges(&["198.51.100.0/24", "192.0.2.0/25"]).external_local().node_port(30080);
        let web = web.affinity(60);
        for (n, service) in [("shop/web", web), ("shop/empty", service("10.96.0.2"))] {
            store.apply(Update::Set(Object::Service(name(n), service.build())), &mut touched);
        }
        let slice = slice("http", 8080, &[endpoint("10.1.0.1"), local("10.1.0.2")]);
        store.apply(
            Update::Set(Object::EndpointSlice(name("shop/web-1"), name("shop/web"), slice)),
            &mut touched,
        );
        let context = Context { node_ips: vec![], node_port_addresses: NodePortAddresses::Primary };
        let all = ["shop/empty", "shop/web"].iter();
        all.flat_map(|n| service_rows(&store, &name(n), Family::V4, &context)).collect()
    }

    fn all_elements(rows: &[Row]) -> Vec<Element> {
        let mut all = Vec::new();
        for row in rows {
            elements(row, &mut all);
        }
        all
    }

    #[test]
    fn rows_survive_the_kernel() {
        let rows = rows();
        let rebuilt = rebuild(all_elements(&rows), |_| Some(60));
        assert_eq!(rebuilt.strays, []);
        let mut back: Vec<Row> = rebuilt.rows.iter().map(|(_, row)| row.clone()).collect();
        back.sort_by_key(Row::key);
        let mut expected = rows;
        expected.sort_by_key(Row::key);
        assert_eq!(back, expected);
        let hairpin = rebuilt.rows.iter().find(|(_, row)| matches!(row, Row::Hairpin(_)));
        assert_eq!(hairpin.map(|(owner, _)| owner.clone()), Some(Owner::Service(name("shop/web"))));
    }

    #[test]
    fn a_row_with_a_missing_or_foreign_element_is_not_whole() {
        let frontends = all_elements(&rows()).len();
        for gone in 0..frontends {
            let mut all = all_elements(&rows());
            let element = all.remove(gone);
            let (ElementKey::Frontend(frontend) | ElementKey::Slot(frontend, _)) = element.key else {
                continue;
            };
            let rebuilt = rebuild(all, |_| Some(60));
            let mut left = rebuilt.rows.iter().map(|(_, row)| row);
            let still = left.any(|row| matches!(row, Row::Frontend(f, _) if *f == frontend));
            assert!(!still, "{element:?} is missing");
        }
    }
}
