//! From rows to set elements and back. PURE.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;

use super::names::{Lists, ServiceChain, Set, Treatment};
use super::sticky::{Memory, StickyChain, remember_set};
use crate::desired::{Affinity, Choice, Forwarding, Masquerade, Owner, Row, ServicePortName};
use crate::model::{Family, Port, ServiceName, TrafficPolicy};
use crate::policy::endpoints::Target;
use crate::policy::exposure::{Frontend, FrontendAddress};

/// One row of a set or map in the kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Element {
    /// The set it is in.
    pub set: Set,
    /// Its key.
    pub key: ElementKey,
    /// What it leads to.
    pub data: ElementData,
    /// What people read beside it in `nft list ruleset`.
    pub comment: Option<Arc<str>>,
}

/// The key of an element.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ElementKey {
    /// An address.
    Address(IpAddr),
    /// An address paired with itself.
    Pair(IpAddr),
    /// A range.
    Range(IpNet),
    /// A frontend; of a NodePort only protocol and port.
    Frontend(Frontend),
    /// A frontend as the original destination of a connection; the protocol is the map's.
    Original(Frontend),
    /// A position in the endpoint list of a frontend.
    Slot(Frontend, u16),
    /// A source range that may call a frontend.
    Source(Frontend, IpNet),
}

/// What an element leads to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ElementData {
    /// Nothing.
    None,
    /// `goto` a chain that picks an endpoint.
    Chain(ServiceChain),
    /// `goto` a chain that tries a memory first.
    Sticky(StickyChain),
    /// `goto` the remember chain of a memory.
    Remember(Memory),
    /// `goto refuse`.
    Refuse,
    /// `drop`.
    Drop,
    /// An endpoint.
    Target(IpAddr, Port),
}

impl Element {
    /// What tells two elements of one table apart.
    #[must_use]
    pub const fn id(&self) -> (Set, ElementKey) {
        (self.set, self.key)
    }
}

/// Most endpoints of one frontend that are used: `numgen` counts to 65536. More are left out by
/// [`elements`] from the end of the list.
pub const MOST_ENDPOINTS: usize = 65535;

/// The elements of a row, sorted by [`Element::id`]; appended to `out`.
pub fn elements(row: &Row, out: &mut Vec<Element>) {
    let start = out.len();
    let plain = |set, key, comment| Element { set, key, data: ElementData::None, comment };
    match row {
        Row::NodePortAddress(address) => {
            out.push(plain(Set::NodeportIps, ElementKey::Address(*address), None));
        }
        Row::ServiceCidr(net) => out.push(plain(Set::ServiceCidrs, ElementKey::Range(*net), None)),
        Row::ClusterIp(address, service) => {
            let comment = Some(service.as_str().into());
            out.push(plain(Set::ClusterIps, ElementKey::Address(*address), comment));
        }
        Row::Hairpin(address) => out.push(plain(Set::Hairpin, ElementKey::Pair(*address), None)),
        Row::Frontend(frontend, forwarding) => frontend_elements(*frontend, forwarding, out),
    }
    out[start..].sort_by_key(Element::id);
}

/// Of the elements of a row those that have a verdict, which are few; appended to `out`.
pub fn verdicts(row: &Row, out: &mut Vec<Element>) {
    if let Row::Frontend(frontend, forwarding) = row {
        verdict_elements(*frontend, forwarding, out);
    }
}

fn frontend_elements(frontend: Frontend, forwarding: &Forwarding, out: &mut Vec<Element>) {
    verdict_elements(frontend, forwarding, out);
    remember_elements(frontend, forwarding, out);
    if let Some(sources) = &forwarding.allowed_sources {
        let plain = |set, key, comment| Element { set, key, data: ElementData::None, comment };
        let comment = Some(comment(&forwarding.service_port));
        out.push(plain(Set::Restricted, ElementKey::Frontend(frontend), comment));
        let set = Set::AllowedSources(frontend.protocol);
        let keys = sources.iter().map(|net| ElementKey::Source(frontend, *net));
        out.extend(keys.map(|key| plain(set, key, None)));
    }
    let (everyone, outside) = lists_of(frontend);
    slots(frontend, everyone, forwarding.to.targets(), out);
    slots(frontend, outside, forwarding.from_outside.as_ref().map_or(&[], Choice::targets), out);
}

/// What leads connections to a sticky frontend to the chains that remember their clients.
fn remember_elements(frontend: Frontend, forwarding: &Forwarding, out: &mut Vec<Element>) {
    let Some(affinity) = forwarding.affinity else { return };
    let (everyone, outside) = lists_of(frontend);
    let mut remember = |lists, list, choice: &Choice| {
        if matches!(choice, Choice::Endpoints(_)) {
            let memory = Memory::new(&forwarding.service_port, frontend.protocol, list);
            out.push(Element {
                set: remember_set(lists, frontend.protocol),
                key: ElementKey::Original(frontend),
                data: ElementData::Remember(memory),
                comment: None,
            });
        }
    };
    remember(everyone, affinity.list, &forwarding.to);
    if let Some(choice) = &forwarding.from_outside {
        remember(outside, TrafficPolicy::Local, choice);
    }
}

/// The lists for everyone and those for connections from outside.
const fn lists_of(frontend: Frontend) -> (Lists, Lists) {
    match frontend.address {
        FrontendAddress::Ip(_) => (Lists::Services, Lists::LocalServices),
        FrontendAddress::NodePort(_) => (Lists::Nodeports, Lists::LocalNodeports),
    }
}

fn verdict_elements(frontend: Frontend, forwarding: &Forwarding, out: &mut Vec<Element>) {
    let comment = comment(&forwarding.service_port);
    let (everyone, outside) = lists_of(frontend);
    let refused = match frontend.address {
        FrontendAddress::Ip(_) => Set::NoEndpoints,
        FrontendAddress::NodePort(_) => Set::NoEndpointsNodeports,
    };
    let treatment = match forwarding.masquerade {
        Masquerade::Foreign => Treatment::Cluster,
        Masquerade::Always => Treatment::External,
        Masquerade::Own => Treatment::Shortcut,
        Masquerade::Nobody => Treatment::Pick,
    };
    let mut verdict = |set, data| {
        out.push(Element { set, key: ElementKey::Frontend(frontend), data, comment: Some(comment.clone()) });
    };
    let chain = |lists, treatment, list, targets: &[Target]| {
        let chain = ServiceChain { lists, treatment, size: list_size(targets) };
        match forwarding.affinity {
            None => ElementData::Chain(chain),
            Some(_) => {
                let memory = Memory::new(&forwarding.service_port, frontend.protocol, list);
                ElementData::Sticky(StickyChain { chain, memory })
            }
        }
    };
    match &forwarding.to {
        Choice::Endpoints(targets) => {
            let list = forwarding.affinity.map_or(TrafficPolicy::Cluster, |affinity| affinity.list);
            verdict(everyone.verdicts(), chain(everyone, treatment, list, targets));
        }
        Choice::Reject => verdict(refused, ElementData::Refuse),
        Choice::Drop => verdict(refused, ElementData::Drop),
    }
    match &forwarding.from_outside {
        Some(Choice::Endpoints(targets)) => {
            verdict(outside.verdicts(), chain(outside, Treatment::Pick, TrafficPolicy::Local, targets));
        }
        Some(Choice::Drop | Choice::Reject) => verdict(outside.verdicts(), ElementData::Drop),
        None => {}
    }
}

/// nft loads comments of up to 128 characters (`NFTNL_UDATA_COMMENT_MAXLEN`).
const LONGEST_COMMENT: usize = 128;

/// What people read beside an element, and by which a restart finds its owner: `namespace/name:port`.
/// Namespace and name always fit; a port name that does not is cut.
fn comment(service_port: &ServicePortName) -> Arc<str> {
    let mut text = service_port.to_string();
    if text.len() > LONGEST_COMMENT {
        let end = (0..=LONGEST_COMMENT).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
        text.truncate(end);
    }
    text.into()
}

fn list_size(targets: &[Target]) -> u16 {
    u16::try_from(targets.len().min(MOST_ENDPOINTS)).unwrap_or(u16::MAX)
}

fn slots(frontend: Frontend, lists: Lists, targets: &[Target], out: &mut Vec<Element>) {
    out.extend((0..list_size(targets)).zip(targets).map(|(index, target)| Element {
        set: lists.endpoints(),
        key: ElementKey::Slot(frontend, index),
        data: ElementData::Target(target.address, target.port),
        comment: None,
    }));
}

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
pub fn rebuild(all: Vec<Element>, seconds: impl Fn(&Memory) -> Option<u32>) -> Rebuilt {
    let mut rebuilt = Rebuilt::default();
    let hairpins: BTreeSet<IpAddr> = all
        .iter()
        .filter_map(|e| if let ElementKey::Pair(address) = e.key { Some(address) } else { None })
        .collect();
    let mut frontends: BTreeMap<Frontend, Vec<Element>> = BTreeMap::new();
    let mut pairs = Vec::new();
    for element in all {
        match (element.key, element.set, &element.comment) {
            (ElementKey::Address(address), Set::NodeportIps, _) => {
                rebuilt.rows.push((Owner::Node, Row::NodePortAddress(address)));
            }
            (ElementKey::Range(net), _, _) => rebuilt.rows.push((Owner::Node, Row::ServiceCidr(net))),
            (ElementKey::Address(address), _, Some(comment)) if ServiceName::parse(comment).is_some() => {
                let service = ServiceName::parse(comment).unwrap_or_else(|| unreachable!("just parsed"));
                let owner = Owner::Service(service.clone());
                rebuilt.rows.push((owner, Row::ClusterIp(address, service)));
            }
            (ElementKey::Address(_), _, _) => rebuilt.strays.push(element),
            (ElementKey::Pair(address), _, _) => pairs.push(address),
            (
                ElementKey::Frontend(frontend)
                | ElementKey::Original(frontend)
                | ElementKey::Slot(frontend, _)
                | ElementKey::Source(frontend, _),
                _,
                _,
            ) => {
                frontends.entry(frontend).or_default().push(element);
            }
        }
    }
    let mut users: BTreeMap<IpAddr, Owner> = BTreeMap::new();
    for (frontend, mut found) in frontends {
        found.sort_by_key(Element::id);
        match whole_row(frontend, &found, &hairpins, &seconds) {
            Some((owner, row)) => {
                if let Row::Frontend(_, forwarding) = &row {
                    for target in local_targets(forwarding) {
                        users.entry(target).or_insert_with(|| owner.clone());
                    }
                }
                rebuilt.rows.push((owner, row));
            }
            None => rebuilt.strays.append(&mut found),
        }
    }
    // A pair does not say who needs it: some Service that leads to it holds it, the node if none does.
    for address in pairs {
        let owner = users.get(&address).cloned().unwrap_or(Owner::Node);
        rebuilt.rows.push((owner, Row::Hairpin(address)));
    }
    rebuilt
}

fn local_targets(forwarding: &Forwarding) -> impl Iterator<Item = IpAddr> + '_ {
    let outside = forwarding.from_outside.iter().flat_map(Choice::targets);
    forwarding.to.targets().iter().chain(outside).filter(|target| target.local).map(|target| target.address)
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
                masquerade = match chain.treatment {
                    Treatment::Cluster => Masquerade::Foreign,
                    Treatment::External => Masquerade::Always,
                    Treatment::Shortcut => Masquerade::Own,
                    Treatment::Pick => return None,
                };
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
    let sources: Vec<IpNet> = found
        .iter()
        .filter_map(|e| if let ElementKey::Source(_, net) = e.key { Some(net) } else { None })
        .collect();
    let restricted = found.iter().any(|element| element.set == Set::Restricted);
    let allowed_sources = restricted.then(|| sources.into());
    let forwarding =
        Forwarding { service_port, masquerade, to: to?, from_outside, allowed_sources, affinity };
    let row = Row::Frontend(frontend, forwarding);
    let mut expected = Vec::with_capacity(found.len());
    elements(&row, &mut expected);
    (expected == found).then_some((owner, row))
}

impl Lists {
    /// The verdict map that leads to chains of these lists.
    #[must_use]
    pub const fn verdicts(self) -> Set {
        match self {
            Self::Services => Set::Services,
            Self::LocalServices => Set::LocalServices,
            Self::Nodeports => Set::Nodeports,
            Self::LocalNodeports => Set::LocalNodeports,
        }
    }
}

/// The frontend that a NodePort key stands for.
#[must_use]
pub const fn nodeport(family: Family, protocol: crate::model::Protocol, port: Port) -> Frontend {
    Frontend { address: FrontendAddress::NodePort(family), protocol, port }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::NodePortAddresses;
    use crate::desired::{Context, service_rows};
    use crate::model::{Object, Store, Touched, Update};
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
