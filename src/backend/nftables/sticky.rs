//! The objects of sticky ServicePorts: what exists for them in a table, and what of it is in use. PURE.
//!
//! For each list in use (Cluster, Local) of a ServicePort with `ClientIP` affinity there is one
//! [`Memory`]: a map from a client to its endpoint, a chain `stick-…` that leads a known client there,
//! and a chain `remember-…` that writes down where a new connection went. Verdict elements lead to
//! [`StickyChain`]s, which try the memory first and pick an endpoint else. All of them are named after
//! the ServicePort, and a name tells everything about the object.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use super::element::{Element, ElementData, verdicts};
use super::names::{Field, Lists, ServiceChain, Treatment};
use super::ruleset::{Settings, memory_chains, sticky_chain};
use super::transaction::Op;
use crate::desired::{Choice, Row, ServicePortName};
use crate::diff::Change;
use crate::model::{Protocol, TrafficPolicy};
use crate::policy::targets::Targets;

/// The key of affinity maps.
pub const MEMORY_KEY: &[Field] = &[Field::Source];

/// The clients of one ServicePort, and one of its lists, with the endpoints that they keep.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Memory {
    /// `namespace/name/port/protocol`, what names of objects end with.
    port: Arc<str>,
    /// The protocol of the ServicePort.
    pub protocol: Protocol,
    /// Whether the endpoints are those of the Local list.
    local: bool,
}

/// The longest `namespace/name/port` that stands in names as it is; a longer one is shortened.
const LONGEST_NAME: usize = 120;

impl Memory {
    /// The memory of a ServicePort for one of its lists.
    #[must_use]
    pub fn new(service_port: &ServicePortName, protocol: Protocol, list: TrafficPolicy) -> Self {
        let ServicePortName { service, port } = service_port;
        let text = if port.is_empty() { service.to_string() } else { format!("{service}/{port}") };
        let port = format!("{}/{protocol}", loadable(text)).into();
        Self { port, protocol, local: list == TrafficPolicy::Local }
    }

    /// Which list it is for.
    #[must_use]
    pub const fn list(&self) -> TrafficPolicy {
        if self.local { TrafficPolicy::Local } else { TrafficPolicy::Cluster }
    }

    const fn prefix(&self) -> &'static str {
        if self.local { "local-" } else { "" }
    }

    /// The name of the map.
    #[must_use]
    pub fn map(&self) -> String {
        format!("{}affinity-{}", self.prefix(), self.port)
    }

    /// The name of the chain that leads a known client to its endpoint.
    #[must_use]
    pub fn stick(&self) -> String {
        format!("{}stick-{}", self.prefix(), self.port)
    }

    /// The name of the chain that writes down where a new connection went.
    #[must_use]
    pub fn remember(&self) -> String {
        format!("{}remember-{}", self.prefix(), self.port)
    }

    /// The memory whose map has this name.
    #[must_use]
    pub fn of_map(name: &str) -> Option<Self> {
        Self::parse("affinity-", name)
    }

    /// The memory of which this is the stick or remember chain.
    #[must_use]
    pub fn of_chain(name: &str) -> Option<Self> {
        Self::parse("stick-", name).or_else(|| Self::of_remember_chain(name))
    }

    /// The memory of which this is the remember chain.
    #[must_use]
    pub fn of_remember_chain(name: &str) -> Option<Self> {
        Self::parse("remember-", name)
    }

    fn parse(word: &str, name: &str) -> Option<Self> {
        let (local, rest) = name.strip_prefix("local-").map_or((false, name), |rest| (true, rest));
        Self::of_port(rest.strip_prefix(word)?, local)
    }

    fn of_port(port: &str, local: bool) -> Option<Self> {
        let (_, protocol) = port.rsplit_once('/')?;
        let known = [Protocol::Tcp, Protocol::Udp, Protocol::Sctp];
        let protocol = known.into_iter().find(|known| known.to_string() == protocol)?;
        Some(Self { port: port.into(), protocol, local })
    }
}

/// The text as nft reads it in names, and short enough: what is not is replaced, with a hash of it all.
fn loadable(text: String) -> String {
    let allowed = |c: char| c.is_ascii_alphanumeric() || "/-_.".contains(c);
    if text.len() <= LONGEST_NAME && text.chars().all(allowed) {
        return text;
    }
    // FNV-1a: the same in every version of shunt.
    let hash = text.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    let kept: String =
        text.chars().map(|c| if allowed(c) { c } else { '_' }).take(LONGEST_NAME - 17).collect();
    format!("{kept}-{hash:016x}")
}

/// A chain to which a verdict element of a sticky ServicePort leads: a [`ServiceChain`] that tries a
/// memory first. Prints and parses as its name: `nodeport-external-sticky-3-shop/cart/https/tcp`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StickyChain {
    /// What it does besides.
    pub chain: ServiceChain,
    /// Where it looks first.
    pub memory: Memory,
}

impl StickyChain {
    /// The chain of a name, if it is one of these.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        let (stem, rest) = name.split_once("sticky-")?;
        let (size, port) = rest.split_once('-')?;
        let size = size.parse().ok().filter(|size| *size > 0)?;
        let all = Lists::ALL.into_iter().flat_map(|lists| Treatment::ALL.map(|treatment| (lists, treatment)));
        let kinds = all.flat_map(|kind| [(kind, false), (kind, true)]);
        let found = kinds
            .into_iter()
            .find(|((lists, treatment), local)| sticky_stem(*lists, *treatment, *local) == stem);
        let ((lists, treatment), local) = found?;
        Some(Self { chain: ServiceChain { lists, treatment, size }, memory: Memory::of_port(port, local)? })
    }

    /// The chain that picks an endpoint for a client that is not known.
    #[must_use]
    pub const fn pick(&self) -> ServiceChain {
        ServiceChain { treatment: Treatment::Pick, ..self.chain }
    }
}

/// What stands before `sticky-N-…`. Chains of connections from outside always work on the Local list.
fn sticky_stem(lists: Lists, treatment: Treatment, local: bool) -> String {
    let word = if treatment == Treatment::Pick { String::new() } else { format!("{}-", treatment.word()) };
    let outside = matches!(lists, Lists::LocalServices | Lists::LocalNodeports);
    let list = if local && !outside { "local-list-" } else { "" };
    // An impossible kind must not share the name of a possible one.
    let impossible = if outside && !local { "cluster-list-" } else { "" };
    format!("{}{word}{list}{impossible}", lists.prefix())
}

impl fmt::Display for StickyChain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ServiceChain { lists, treatment, size } = self.chain;
        let stem = sticky_stem(lists, treatment, self.memory.local);
        write!(f, "{stem}sticky-{size}-{}", self.memory.port)
    }
}

/// The memories on which a row relies, with the endpoints that clients may be remembered with.
pub fn memories(row: &Row) -> impl Iterator<Item = (Memory, u32, Targets)> {
    let (frontend, forwarding) = match row {
        Row::Frontend(frontend, forwarding) => (Some(frontend), Some(forwarding)),
        _ => (None, None),
    };
    let sticky = frontend.zip(forwarding).and_then(|(frontend, f)| Some((frontend, f, f.affinity?)));
    sticky.into_iter().flat_map(|(frontend, forwarding, affinity)| {
        let to = (Some(&forwarding.to), affinity.list);
        let outside = (forwarding.from_outside.as_ref(), TrafficPolicy::Local);
        [to, outside].into_iter().filter_map(move |(choice, list)| match choice {
            Some(Choice::Endpoints(targets)) => {
                let memory = Memory::new(&forwarding.service_port, frontend.protocol, list);
                Some((memory, affinity.seconds, targets.clone()))
            }
            _ => None,
        })
    })
}

/// An affinity map as it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MapState {
    /// For how many seconds an entry stays after it was written or renewed.
    pub seconds: u32,
    /// The most entries.
    pub size: u32,
    /// Whether it is known to have no entries.
    pub empty: bool,
}

/// What a table holds for sticky ServicePorts.
#[derive(Debug, Default)]
pub struct Objects {
    maps: BTreeMap<Memory, MapState>,
    /// Memories of which a chain exists.
    memory_chains: BTreeSet<Memory>,
    chains: BTreeSet<StickyChain>,
    /// How many elements lead to a chain or rely on a memory.
    chain_uses: BTreeMap<StickyChain, usize>,
    memory_uses: BTreeMap<Memory, usize>,
    /// What no element needs any more.
    idle_chains: BTreeSet<StickyChain>,
    idle_memories: BTreeSet<Memory>,
}

impl Objects {
    /// The objects that were read from the kernel; [`Self::take`] has to be told of the elements.
    #[must_use]
    pub fn read(
        maps: BTreeMap<Memory, MapState>,
        chains: BTreeSet<StickyChain>,
        memory_chains: BTreeSet<Memory>,
    ) -> Self {
        let mut objects = Self { maps, memory_chains, chains, ..Self::default() };
        objects.idle_chains = objects.chains.clone();
        objects.idle_memories = objects.maps.keys().chain(&objects.memory_chains).cloned().collect();
        objects
    }

    /// Takes note of elements that are there.
    pub fn take(&mut self, elements: &[Element]) {
        for element in elements {
            self.count(element, true);
        }
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.maps.is_empty()
    }

    /// The affinity map of a memory, if there is one.
    #[must_use]
    pub fn map(&self, memory: &Memory) -> Option<&MapState> {
        self.maps.get(memory)
    }

    /// The memories on which elements rely.
    pub fn in_use(&self) -> impl Iterator<Item = &Memory> {
        self.memory_uses.keys()
    }

    /// Gives the maps in use that have another size this one.
    #[must_use]
    pub fn resized(&self, size: u32) -> Vec<Op> {
        let maps = self.maps.iter().filter(|(memory, _)| self.memory_uses.contains_key(*memory));
        let other = maps.filter(|(_, map)| map.size != size);
        other.map(|(memory, map)| Op::AddMap(memory.clone(), MapState { size, ..*map })).collect()
    }

    /// Takes note of an operation that the kernel has confirmed.
    pub fn record(&mut self, op: &Op) {
        match op {
            Op::AddElement(element) => self.count(element, true),
            Op::DeleteElement(element) => self.count(element, false),
            Op::AddMap(memory, state) => _ = self.maps.insert(memory.clone(), *state),
            Op::DeleteMap(memory) => {
                self.maps.remove(memory);
                self.memory_chains.remove(memory);
                self.idle_memories.remove(memory);
            }
            Op::AddChain(chain) => {
                if let Some(memory) = Memory::of_chain(&chain.name) {
                    self.memory_chains.insert(memory);
                }
                self.chains.extend(StickyChain::parse(&chain.name));
            }
            Op::DeleteChain(name) => {
                if let Some(chain) = StickyChain::parse(name) {
                    self.chains.remove(&chain);
                    self.idle_chains.remove(&chain);
                }
            }
            _ => {}
        }
    }

    fn count(&mut self, element: &Element, comes: bool) {
        let memory = match &element.data {
            ElementData::Sticky(chain) => {
                count(&mut self.chain_uses, &mut self.idle_chains, chain, comes);
                &chain.memory
            }
            ElementData::Remember(memory) => memory,
            _ => return,
        };
        count(&mut self.memory_uses, &mut self.idle_memories, memory, comes);
    }

    /// What has to be made or set before the element operations of a change: maps and chains that its
    /// row relies on. What is asked for once is not asked for again (`asked`).
    pub fn missing(&self, change: &Change, settings: &Settings, asked: &mut Asked) -> Vec<Op> {
        let Some(row) = &change.after else { return Vec::new() };
        let mut ops = Vec::new();
        for (memory, seconds, _) in memories(row) {
            let wanted = MapState { seconds, size: settings.affinity_clients, empty: true };
            let known = self.maps.get(&memory);
            let right = known.is_some_and(|map| (map.seconds, map.size) == (seconds, wanted.size));
            if right || !asked.memories.insert(memory.clone()) {
                continue;
            }
            if known.is_none() {
                let unbounded = MapState { size: 0, ..wanted };
                ops.push(Op::AddMap(memory.clone(), unbounded));
                ops.extend(memory_chains(&memory).map(Op::AddChain));
            }
            ops.push(Op::AddMap(memory, wanted));
        }
        let mut elements = Vec::new();
        verdicts(row, &mut elements);
        for element in elements {
            if let ElementData::Sticky(chain) = element.data
                && !self.chains.contains(&chain)
                && asked.chains.insert(chain.clone())
            {
                ops.push(Op::AddChain(sticky_chain(&chain, settings)));
            }
        }
        ops
    }

    /// Removes what nothing uses any more: to be done in a batch after the one that orphaned it.
    #[must_use]
    pub fn removals(&self) -> Vec<Op> {
        let chains = self.idle_chains.iter().map(|chain| Op::DeleteChain(chain.to_string()));
        let memories = self.idle_memories.iter().flat_map(|memory| {
            let chains = self.memory_chains.contains(memory);
            let chains = [memory.stick(), memory.remember()].into_iter().filter(move |_| chains);
            let map = self.maps.contains_key(memory).then(|| Op::DeleteMap(memory.clone()));
            chains.map(Op::DeleteChain).chain(map)
        });
        chains.chain(memories).collect()
    }
}

/// What a batch makes already.
#[derive(Debug, Default)]
pub struct Asked {
    memories: BTreeSet<Memory>,
    chains: BTreeSet<StickyChain>,
}

fn count<T: Ord + Clone>(uses: &mut BTreeMap<T, usize>, idle: &mut BTreeSet<T>, one: &T, comes: bool) {
    let count = uses.entry(one.clone()).or_insert(0);
    *count = if comes { *count + 1 } else { count.saturating_sub(1) };
    if *count == 0 {
        uses.remove(one);
        idle.insert(one.clone());
    } else if comes && *count == 1 {
        idle.remove(one);
    }
}

/// The name of the map that leads new connections to the remember chains: by original destination, of
/// frontends with an address, and of NodePorts by port alone.
#[must_use]
pub const fn remember_name(lists: Lists, protocol: Protocol) -> &'static str {
    match (lists, protocol) {
        (Lists::Services, Protocol::Tcp) => "remember-tcp",
        (Lists::Services, Protocol::Udp) => "remember-udp",
        (Lists::Services, Protocol::Sctp) => "remember-sctp",
        (Lists::LocalServices, Protocol::Tcp) => "local-remember-tcp",
        (Lists::LocalServices, Protocol::Udp) => "local-remember-udp",
        (Lists::LocalServices, Protocol::Sctp) => "local-remember-sctp",
        (Lists::Nodeports, Protocol::Tcp) => "remember-nodeports-tcp",
        (Lists::Nodeports, Protocol::Udp) => "remember-nodeports-udp",
        (Lists::Nodeports, Protocol::Sctp) => "remember-nodeports-sctp",
        (Lists::LocalNodeports, Protocol::Tcp) => "local-remember-nodeports-tcp",
        (Lists::LocalNodeports, Protocol::Udp) => "local-remember-nodeports-udp",
        (Lists::LocalNodeports, Protocol::Sctp) => "local-remember-nodeports-sctp",
    }
}

/// The key of that map.
#[must_use]
pub const fn remember_key(lists: Lists, protocol: Protocol) -> &'static [Field] {
    use Field::{Destination, PortOf};
    match (lists, protocol) {
        (Lists::Services | Lists::LocalServices, Protocol::Tcp) => &[Destination, PortOf(Protocol::Tcp)],
        (Lists::Services | Lists::LocalServices, Protocol::Udp) => &[Destination, PortOf(Protocol::Udp)],
        (Lists::Services | Lists::LocalServices, Protocol::Sctp) => &[Destination, PortOf(Protocol::Sctp)],
        (_, Protocol::Tcp) => &[PortOf(Protocol::Tcp)],
        (_, Protocol::Udp) => &[PortOf(Protocol::Udp)],
        (_, Protocol::Sctp) => &[PortOf(Protocol::Sctp)],
    }
}

#[cfg(test)]
mod tests;
