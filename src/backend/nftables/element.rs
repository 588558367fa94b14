//! From rows to set elements and back. PURE.

use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;

use super::names::{Lists, ServiceChain, Set, Treatment};
use super::sticky::{Memory, StickyChain};
use crate::desired::{Choice, Forwarding, Masquerade, Row, ServicePortName};
use crate::model::{Family, Port, TrafficPolicy};
use crate::policy::exposure::{Frontend, FrontendAddress};
use crate::policy::targets::Targets;

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
pub const MOST_ENDPOINTS: usize = crate::desired::row::MOST_ENDPOINTS;

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
    if let Some(choice) = &forwarding.from_outside {
        slots(frontend, outside, choice.targets(), out);
    }
}

/// What leads connections to a sticky frontend to the chains that remember their clients.
fn remember_elements(frontend: Frontend, forwarding: &Forwarding, out: &mut Vec<Element>) {
    let Some(affinity) = forwarding.affinity else { return };
    let (everyone, outside) = lists_of(frontend);
    let mut remember = |lists, list, choice: &Choice| {
        if matches!(choice, Choice::Endpoints(_)) {
            let memory = Memory::new(&forwarding.service_port, frontend.protocol, list);
            out.push(Element {
                set: Set::Remember(lists, frontend.protocol),
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
    let chain = |lists, treatment, list, targets: &Targets| {
        let chain = ServiceChain { lists, treatment, size: list_size(targets) };
        if forwarding.affinity.is_none() {
            return ElementData::Chain(chain);
        }
        let memory = Memory::new(&forwarding.service_port, frontend.protocol, list);
        ElementData::Sticky(StickyChain { chain, memory })
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
        text.truncate(text.trim_end_matches(':').len());
    }
    text.into()
}

fn list_size(targets: &Targets) -> u16 {
    u16::try_from(targets.len().min(MOST_ENDPOINTS)).unwrap_or(u16::MAX)
}

fn slots(frontend: Frontend, lists: Lists, targets: &Targets, out: &mut Vec<Element>) {
    out.extend((0..list_size(targets)).zip(targets.iter()).map(|(index, target)| Element {
        set: lists.endpoints(),
        key: ElementKey::Slot(frontend, index),
        data: ElementData::Target(target.address, target.port),
        comment: None,
    }));
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
