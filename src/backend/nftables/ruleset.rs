//! The static rules: base chains, dispatch, and the chains that verdict elements lead to. PURE.
//!
//! Nothing here knows a Service. What changes with Services is in set elements (`element.rs`).

use std::collections::BTreeSet;

use ipnet::IpNet;

use super::names::{Lists, ServiceChain, Set, Treatment};
use super::statement::{Rule, Statement};
use super::sticky::{Memory, StickyChain};
use crate::config::{Config, DetectLocal, NodePortAddresses};
use crate::model::{Family, Protocol};

/// Where a base chain is tied to the packet's path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Hook {
    /// Before routing: packets from elsewhere.
    Prerouting = 0,
    /// Packets for this node itself.
    Input = 1,
    /// Packets that this node passes on.
    Forward = 2,
    /// Packets that this node sends.
    Output = 3,
    /// After routing: everything that leaves.
    Postrouting = 4,
}

/// The type of a base chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChainType {
    /// Every packet.
    Filter,
    /// The first packet of each connection; may rewrite addresses.
    Nat,
}

/// A chain with its rules; a base chain if it has a hook.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chain {
    /// The name.
    pub name: String,
    /// Type, hook and priority. Lower priorities see packets first; -200 is connection tracking, -100
    /// is dstnat, 100 is srcnat.
    pub base: Option<(ChainType, Hook, i32)>,
    /// The rules.
    pub rules: Vec<Rule>,
}

/// What the static rules depend on, in one family.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// The family.
    pub family: Family,
    /// The test that a packet does not come from a local pod; without one nothing is local.
    pub foreign: Option<Statement>,
    /// Whether everything sent to a ClusterIP is masqueraded.
    pub masquerade_all: bool,
    /// The bit of the packet mark that asks for masquerading.
    pub mark: u32,
    /// Whether NodePorts answer on whatever address the kernel calls local, instead of on the
    /// addresses in [`Set::NodeportIps`].
    pub nodeports_anywhere: bool,
    /// How many clients are remembered at most, for each list of a sticky ServicePort.
    pub affinity_clients: u32,
}

impl Settings {
    /// The settings of one family.
    #[must_use]
    pub fn new(config: &Config, family: Family) -> Self {
        let foreign = match &config.detect_local {
            DetectLocal::None | DetectLocal::NodeCidr => None,
            DetectLocal::BridgeInterface(name) => Some(Statement::InterfaceIsNot(name.clone())),
            DetectLocal::InterfaceNamePrefix(prefix) => Some(Statement::InterfaceStartsNot(prefix.clone())),
            DetectLocal::ClusterCidr(cidrs) => not_from(cidrs, family),
        };
        Self {
            family,
            foreign,
            masquerade_all: config.masquerade_all,
            mark: config.masquerade_mark,
            nodeports_anywhere: config.node_port_addresses.matches_all(family),
            affinity_clients: config.affinity_clients,
        }
    }
}

impl Settings {
    /// Local pods are those in these CIDRs, at most one of which is of this family.
    pub fn set_local(&mut self, cidrs: &[IpNet]) {
        self.foreign = not_from(cidrs, self.family);
    }
}

fn not_from(cidrs: &[IpNet], family: Family) -> Option<Statement> {
    cidrs.iter().find(|net| Family::of_net(net) == family).copied().map(Statement::SourceNotIn)
}

fn chain(name: impl Into<String>, rules: Vec<Vec<Statement>>) -> Chain {
    Chain { name: name.into(), base: None, rules: rules.into_iter().map(Rule).collect() }
}

fn base(name: &str, kind: ChainType, hook: Hook, priority: i32, rules: Vec<Vec<Statement>>) -> Chain {
    Chain { base: Some((kind, hook, priority)), ..chain(name, rules) }
}

fn goto(chain: impl std::fmt::Display) -> Statement {
    Statement::Goto(chain.to_string())
}

fn jump(chain: &str) -> Statement {
    Statement::Jump(chain.to_string())
}

/// The chain that an element's verdict leads to.
#[must_use]
pub fn service_chain(chain_name: ServiceChain, settings: &Settings) -> Chain {
    let ServiceChain { lists, treatment, size } = chain_name;
    let pick = |size| ServiceChain { lists, treatment: Treatment::Pick, size };
    let rules = match treatment {
        Treatment::Pick => {
            let dnat = vec![Statement::ServiceProtocol, Statement::Dnat(lists.endpoints(), size)];
            // A packet that drew the last index just before a commit took it away finds nothing: it
            // gets index 0, and never leaves with its destination unchanged.
            let otherwise = if size == 1 { Statement::Drop } else { goto(pick(1)) };
            vec![dnat, vec![otherwise]]
        }
        treatment => vec![masquerade(treatment, settings), vec![goto(pick(size))]],
    };
    chain(chain_name.to_string(), rules)
}

/// What a chain does before anything else; nothing for [`Treatment::Pick`].
fn masquerade(treatment: Treatment, settings: &Settings) -> Vec<Statement> {
    match treatment {
        Treatment::Pick => vec![],
        Treatment::Cluster => vec![jump("masquerade-foreign")],
        Treatment::External => vec![Statement::SetMark(settings.mark)],
        Treatment::Shortcut => vec![jump("masquerade-own")],
    }
}

/// The chain that the verdict of a sticky ServicePort leads to.
#[must_use]
pub fn sticky_chain(sticky: &StickyChain, settings: &Settings) -> Chain {
    let mut rules = vec![masquerade(sticky.chain.treatment, settings)];
    rules.retain(|rule| !rule.is_empty());
    rules.extend([vec![jump(&sticky.memory.stick())], vec![goto(sticky.pick())]]);
    chain(sticky.to_string(), rules)
}

/// The two chains of a memory. No anonymous set here: naming those is quadratic in their number.
pub fn memory_chains(memory: &Memory) -> impl Iterator<Item = Chain> {
    let protocol = || Statement::Protocol(memory.protocol);
    let stick = vec![protocol(), Statement::DnatRemembered(memory.clone())];
    let remember = vec![protocol(), Statement::Remember(memory.clone()), Statement::Return];
    // A full map ends the first rule early: the connection goes on, its client is not remembered.
    let remember = vec![remember, vec![Statement::CountNotRemembered]];
    [chain(memory.stick(), vec![stick]), chain(memory.remember(), remember)].into_iter()
}

/// Leads new connections to the remember chain of their ServicePort.
fn remember(name: &str, all: &[Lists], settings: &Settings) -> Chain {
    let mut rules = Vec::new();
    for lists in all {
        for protocol in [Protocol::Tcp, Protocol::Udp, Protocol::Sctp] {
            let mut rule = vec![Statement::Protocol(protocol)];
            if matches!(lists, Lists::LocalServices | Lists::LocalNodeports) {
                rule.extend(settings.foreign.clone());
            }
            if matches!(lists, Lists::Nodeports | Lists::LocalNodeports) {
                rule.push(Statement::OriginalIn(Set::NodeportIps));
            }
            rule.push(Statement::OriginalVerdict(Set::Remember(*lists, protocol)));
            rules.push(rule);
        }
    }
    chain(name, rules)
}

/// The chains to make for those that elements need: each with the chains it leads to itself, in the
/// order in which they can be made.
#[must_use]
pub fn with_prerequisites(needed: &BTreeSet<ServiceChain>) -> Vec<ServiceChain> {
    let picks = needed.iter().flat_map(|chain| {
        let pick = |size| ServiceChain { treatment: Treatment::Pick, size, ..*chain };
        [pick(1), pick(chain.size)]
    });
    let mut all: Vec<ServiceChain> =
        picks.chain(needed.iter().copied()).collect::<BTreeSet<_>>().into_iter().collect();
    all.sort_by_key(|chain| (chain.treatment, chain.lists, chain.size));
    all
}

/// Every chain that is always there and has no hook, in the order in which they can be made.
#[must_use]
pub fn static_chains(settings: &Settings) -> Vec<Chain> {
    use Statement::{Drop, In, Reject, RejectTcpReset, Return, SetMark, SourceIsLocal, Verdict};
    let mark = settings.mark;
    let masquerade_foreign = match (&settings.foreign, settings.masquerade_all) {
        (_, true) => vec![vec![SetMark(mark)]],
        (Some(foreign), false) => vec![vec![foreign.clone(), SetMark(mark)]],
        (None, false) => vec![],
    };
    vec![
        chain("masquerade-foreign", masquerade_foreign),
        chain("masquerade-own", vec![vec![SourceIsLocal, SetMark(mark)]]),
        chain("masquerade-marked", vec![vec![Statement::ClearMark(mark)], vec![Statement::Masquerade]]),
        chain("dispatch-arriving", dispatch_arriving(settings)),
        chain("dispatch-own", vec![vec![Verdict(Set::Services)], to_nodeport(Set::Nodeports, settings)]),
        chain(
            "allowed-or-drop",
            vec![
                vec![In(Set::AllowedSources(Protocol::Tcp)), Return],
                vec![In(Set::AllowedSources(Protocol::Udp)), Return],
                vec![In(Set::AllowedSources(Protocol::Sctp)), Return],
                vec![Drop],
            ],
        ),
        chain("source-ranges", vec![vec![In(Set::Restricted), goto("allowed-or-drop")]]),
        chain("refuse", vec![vec![Statement::Protocol(Protocol::Tcp), RejectTcpReset], vec![Reject]]),
        chain(
            "no-endpoints-verdict",
            vec![vec![Verdict(Set::NoEndpoints)], to_nodeport(Set::NoEndpointsNodeports, settings)],
        ),
        remember(
            "remember-arriving",
            &[Lists::LocalServices, Lists::Services, Lists::LocalNodeports, Lists::Nodeports],
            settings,
        ),
        remember("remember-own", &[Lists::Services, Lists::Nodeports], settings),
        chain("unowned", vec![vec![In(Set::ClusterIps), goto("refuse")], vec![In(Set::ServiceCidrs), Drop]]),
    ]
}

/// What packets from elsewhere are looked up in. The `local-` maps are for those that no local pod sent.
///
/// A map of verdicts stands in as few rules as possible: with every Service that is added the kernel walks
/// through all of it, once for each rule that a base chain leads to.
fn dispatch_arriving(settings: &Settings) -> Vec<Vec<Statement>> {
    let foreign = |rule: Vec<Statement>| settings.foreign.iter().cloned().chain(rule).collect();
    vec![
        foreign(vec![Statement::Verdict(Set::LocalServices)]),
        vec![Statement::Verdict(Set::Services)],
        foreign(to_nodeport(Set::LocalNodeports, settings)),
        to_nodeport(Set::Nodeports, settings),
    ]
}

/// Every base chain: with them traffic sees the rest. They lead to chains that were made while the maps
/// were empty: a rule that names a map makes the kernel walk through it.
#[must_use]
pub fn base_chains(settings: &Settings) -> Vec<Chain> {
    use ChainType::{Filter, Nat};
    use Hook::{Forward, Input, Output, Postrouting, Prerouting};
    use Statement::{ConnectionHasDnat, ConnectionIsNew, ConnectionIsUnconfirmed, In, MarkIsSet, Masquerade};
    let new = |chain: &str| vec![ConnectionIsNew, jump(chain)];
    // The first packet of a connection, once its endpoint is known. A SYN that is sent again is new as
    // well, but must not write down an endpoint that has gone meanwhile.
    let first = |chain: &str| vec![ConnectionIsNew, ConnectionHasDnat, ConnectionIsUnconfirmed, goto(chain)];
    vec![
        base("source-ranges-prerouting", Filter, Prerouting, -110, vec![new("source-ranges")]),
        base("source-ranges-output", Filter, Output, -110, vec![new("source-ranges")]),
        base("filter-input", Filter, Input, -110, vec![new("no-endpoints-verdict")]),
        base("filter-forward", Filter, Forward, -110, vec![new("no-endpoints-verdict"), new("unowned")]),
        base("filter-output", Filter, Output, -90, vec![new("no-endpoints-verdict"), new("unowned")]),
        base("nat-prerouting", Nat, Prerouting, -100, vec![vec![goto("dispatch-arriving")]]),
        base("nat-output", Nat, Output, -100, vec![vec![goto("dispatch-own")]]),
        base("remember-prerouting", Filter, Prerouting, -99, vec![first("remember-arriving")]),
        base("remember-output", Filter, Output, -99, vec![first("remember-own")]),
        base(
            "nat-postrouting",
            Nat,
            Postrouting,
            100,
            vec![
                vec![MarkIsSet(settings.mark), goto("masquerade-marked")],
                vec![ConnectionHasDnat, In(Set::Hairpin), Masquerade],
            ],
        ),
    ]
}

/// Follows the verdict of a map of NodePorts.
fn to_nodeport(map: Set, settings: &Settings) -> Vec<Statement> {
    let mut rule = nodeport_address(settings);
    rule.push(Statement::Verdict(map));
    rule
}

/// The test that a packet is for an address that takes NodePort traffic. Never loopback.
fn nodeport_address(settings: &Settings) -> Vec<Statement> {
    if !settings.nodeports_anywhere {
        return vec![Statement::In(Set::NodeportIps)];
    }
    vec![Statement::DestinationIsLocal, Statement::DestinationNotIn(loopback(settings.family))]
}

fn loopback(family: Family) -> IpNet {
    use std::net::{Ipv4Addr, Ipv6Addr};
    match family {
        Family::V4 => ipnet::Ipv4Net::new_assert(Ipv4Addr::new(127, 0, 0, 0), 8).into(),
        Family::V6 => ipnet::Ipv6Net::new_assert(Ipv6Addr::LOCALHOST, 128).into(),
    }
}

/// How many sizes of pick chains are made ahead of need, so that a Service that grows does not wait
/// for a new chain: one on a full table costs 6 ms at 100,000 elements.
const SPARE_SIZES: u16 = 16;

/// The chains to make when the table is new: what the elements need, and for each kind in use every
/// size up to half as many again as the largest, at least [`SPARE_SIZES`].
#[must_use]
pub fn with_spares(needed: &BTreeSet<ServiceChain>) -> BTreeSet<ServiceChain> {
    let mut all = needed.clone();
    for lists in Lists::ALL {
        for treatment in Treatment::ALL {
            let sizes = needed.iter().filter(|c| c.lists == lists && c.treatment == treatment);
            if let Some(largest) = sizes.map(|chain| chain.size).max() {
                let up_to = largest.saturating_add(largest / 2).clamp(SPARE_SIZES, SPARE_SIZES.max(128));
                all.extend((1..=up_to).map(|size| ServiceChain { lists, treatment, size }));
            }
        }
    }
    all
}

impl NodePortAddresses {
    /// Whether one of the CIDRs matches every address of the family.
    #[must_use]
    pub fn matches_all(&self, family: Family) -> bool {
        match self {
            Self::Primary => false,
            Self::Cidrs(cidrs) => {
                cidrs.iter().any(|cidr| cidr.prefix_len() == 0 && Family::of_net(cidr) == family)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prerequisites_come_first() {
        let chain = |name: &str| ServiceChain::parse(name).unwrap();
        let needed = ["nodeport-external-3", "cluster-2"].map(chain).into_iter().collect();
        let names: Vec<String> = with_prerequisites(&needed).iter().map(ToString::to_string).collect();
        assert_eq!(
            names,
            ["pick-1", "pick-2", "nodeport-pick-1", "nodeport-pick-3", "cluster-2", "nodeport-external-3"]
        );
    }

    #[test]
    fn spares_cover_growth() {
        let needed = BTreeSet::from([ServiceChain::parse("cluster-40").unwrap()]);
        let sizes: Vec<u16> = with_spares(&needed).iter().map(|chain| chain.size).collect();
        assert_eq!(sizes, (1..=60).collect::<Vec<u16>>());
    }
}
