//! A transaction: one atomic batch as a value. It prints in nft syntax and is compared in tests; only
//! `encode.rs` and `wire.rs` make bytes of it. PURE.

use std::fmt;
use std::net::IpAddr;

use super::codec::Client;
use super::element::{Element, ElementData, ElementKey};
use super::names::{Data, NOT_REMEMBERED, Set, TABLE, family_word};
use super::ruleset::{Chain, ChainType, Hook};
use super::statement::{Rule, key_text, target_text};
use super::sticky::{MEMORY_KEY, MapState, Memory};
use crate::diff::{Change, RowRef, merge};
use crate::model::Family;
use crate::policy::exposure::FrontendAddress;

/// One operation of a transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Op {
    /// Deletes our table with everything in it.
    DeleteTable,
    /// Makes our table, or takes it over if it was left behind by its owner.
    AddTable {
        /// Whether only the socket that made the table may change it (`flags owner, persist`).
        owned: bool,
    },
    /// Makes a set, or raises its size.
    AddSet(Set, Option<u32>),
    /// Makes a chain, with its rules.
    AddChain(Chain),
    /// Deletes the rules of a chain.
    FlushChain(String),
    /// Deletes a chain to which nothing leads.
    DeleteChain(String),
    /// Deletes a set that is not ours.
    DeleteSet(String),
    /// Makes the counter of connections whose client is not remembered.
    AddCounter,
    /// Makes the map of a memory, or changes how long entries last and how many there may be; a size
    /// of 0 leaves that to the kernel.
    AddMap(Memory, MapState),
    /// Deletes the map of a memory that no rule uses.
    DeleteMap(Memory),
    /// Deletes the entry of a client.
    Forget(Memory, Client),
    /// Adds the entry of a client.
    Keep(Memory, Client),
    /// Deletes an element.
    DeleteElement(Element),
    /// Deletes an element that shunt does not write, by the bytes of its key.
    DeleteKey(Set, Vec<u8>),
    /// Adds an element.
    AddElement(Element),
}

/// One batch for one family: all of it takes effect or none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transaction {
    /// The family.
    pub family: Family,
    /// The operations, first to last.
    pub ops: Vec<Op>,
}

impl Transaction {
    /// A transaction that does nothing.
    #[must_use]
    pub const fn new(family: Family) -> Self {
        Self { family, ops: Vec::new() }
    }

    /// One operation in nft syntax, for messages.
    #[must_use]
    pub fn op_text(&self, op: usize) -> String {
        let ops = self.ops.get(op).cloned().into_iter().collect();
        let text = Self { family: self.family, ops }.to_string();
        text.lines().next().unwrap_or("an operation of the batch").to_owned()
    }

    /// Whether there is nothing to do.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ops.is_empty()
    }
}

/// The element operations of one change: what has to go, and what has to come. An element whose data
/// or comment changes goes and comes, since the kernel refuses to add a known key with other data.
pub fn element_ops(change: &Change, deletes: &mut Vec<Element>, adds: &mut Vec<Element>) {
    let lower = |row: &Option<RowRef>| {
        let mut out = Vec::new();
        if let Some(row) = row {
            super::element::elements(row, &mut out);
        }
        out
    };
    let (before, after) = (lower(&change.before), lower(&change.after));
    merge(before, after, Element::id, |old, new| {
        deletes.extend(old);
        adds.extend(new);
    });
}

impl fmt::Display for Transaction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (ip, family) = (family_word(self.family), self.family);
        for op in &self.ops {
            match op {
                Op::DeleteTable => writeln!(f, "delete table {ip} {TABLE}")?,
                Op::AddTable { owned } => {
                    let flags = if *owned { " { flags owner, persist; }" } else { "" };
                    writeln!(f, "add table {ip} {TABLE}{flags}")?;
                }
                Op::AddSet(set, size) => writeln!(f, "add {}", set_text(*set, *size, family))?,
                Op::AddChain(chain) => write_chain(f, chain, family)?,
                Op::FlushChain(name) => writeln!(f, "flush chain {ip} {TABLE} {name}")?,
                Op::DeleteSet(name) => writeln!(f, "delete set {ip} {TABLE} {name}")?,
                Op::DeleteKey(set, key) => {
                    write!(f, "delete element {ip} {TABLE} {} {{ 0x", set.name())?;
                    key.iter().try_for_each(|byte| write!(f, "{byte:02x}"))?;
                    writeln!(f, " }}")?;
                }
                Op::DeleteChain(name) => writeln!(f, "delete chain {ip} {TABLE} {name}")?,
                Op::AddCounter => writeln!(f, "add counter {ip} {TABLE} {NOT_REMEMBERED}")?,
                Op::AddMap(memory, state) => writeln!(f, "add {}", memory_text(memory, *state, family))?,
                Op::DeleteMap(memory) => writeln!(f, "delete map {ip} {TABLE} {}", memory.map())?,
                Op::Forget(memory, client) => {
                    writeln!(f, "delete element {ip} {TABLE} {} {{ {} }}", memory.map(), client.address)?;
                }
                Op::Keep(memory, Client { address, endpoint: (to, port), left, .. }) => {
                    let (name, what) = (memory.map(), format!("{address} expires {left}ms : {to} . {port}"));
                    writeln!(f, "add element {ip} {TABLE} {name} {{ {what} }}")?;
                }
                Op::DeleteElement(element) => {
                    let (name, key) = (element.set.name(), element_key(element));
                    writeln!(f, "delete element {ip} {TABLE} {name} {{ {key} }}")?;
                }
                Op::AddElement(element) => {
                    let name = element.set.name();
                    writeln!(f, "add element {ip} {TABLE} {name} {{ {} }}", element_text(element))?;
                }
            }
        }
        Ok(())
    }
}

fn set_text(set: Set, size: Option<u32>, family: Family) -> String {
    let keyword = if set.data() == Data::None { "set" } else { "map" };
    let leads_to = match set.data() {
        Data::None => String::new(),
        Data::Verdict => " : verdict".into(),
        Data::Target => format!(" : {}", target_text(family)),
    };
    let flags = if set.is_interval() { " flags interval;" } else { "" };
    let size = size.map_or_else(String::new, |size| format!(" size {size};"));
    let (ip, name, key) = (family_word(family), set.name(), key_text(set.key(), family));
    format!("{keyword} {ip} {TABLE} {name} {{ typeof {key}{leads_to};{flags}{size} }}")
}

fn memory_text(memory: &Memory, state: MapState, family: Family) -> String {
    let size = if state.size == 0 { String::new() } else { format!(" size {};", state.size) };
    let (ip, name, key) = (family_word(family), memory.map(), key_text(MEMORY_KEY, family));
    let (target, seconds) = (target_text(family), state.seconds);
    format!(
        "map {ip} {TABLE} {name} {{ typeof {key} : {target}; flags dynamic,timeout; timeout {seconds}s;{size} }}"
    )
}

fn write_chain(f: &mut fmt::Formatter<'_>, chain: &Chain, family: Family) -> fmt::Result {
    let ip = family_word(family);
    let base = chain.base.map_or_else(String::new, |(kind, hook, priority)| {
        let kind = match kind {
            ChainType::Filter => "filter",
            ChainType::Nat => "nat",
        };
        let hook = match hook {
            Hook::Prerouting => "prerouting",
            Hook::Input => "input",
            Hook::Forward => "forward",
            Hook::Output => "output",
            Hook::Postrouting => "postrouting",
        };
        format!(" {{ type {kind} hook {hook} priority {priority}; policy accept; }}")
    });
    writeln!(f, "add chain {ip} {TABLE} {}{base}", chain.name)?;
    let line = |rule: &Rule| format!("add rule {ip} {TABLE} {} {}", chain.name, rule.text(family));
    chain.rules.iter().try_for_each(|rule| writeln!(f, "{}", line(rule)))
}

/// The element in nft syntax: `KEY comment "..." : DATA`.
fn element_text(element: &Element) -> String {
    let comment = element.comment.as_ref().map_or_else(String::new, |text| format!(" comment \"{text}\""));
    let data = match &element.data {
        ElementData::None => String::new(),
        ElementData::Chain(chain) => format!(" : goto {chain}"),
        ElementData::Sticky(chain) => format!(" : goto {chain}"),
        ElementData::Remember(memory) => format!(" : goto {}", memory.remember()),
        ElementData::Refuse => " : goto refuse".into(),
        ElementData::Drop => " : drop".into(),
        ElementData::Target(address, port) => format!(" : {address} . {port}"),
    };
    format!("{}{comment}{data}", element_key(element))
}

fn element_key(element: &Element) -> String {
    let address = |frontend: FrontendAddress| match frontend {
        FrontendAddress::Ip(IpAddr::V4(ip)) => format!("{ip} . "),
        FrontendAddress::Ip(IpAddr::V6(ip)) => format!("{ip} . "),
        FrontendAddress::NodePort(_) => String::new(),
    };
    match element.key {
        ElementKey::Address(ip) => ip.to_string(),
        ElementKey::Pair(ip) => format!("{ip} . {ip}"),
        ElementKey::Range(net) => net.to_string(),
        ElementKey::Frontend(f) => format!("{}{} . {}", address(f.address), f.protocol, f.port),
        ElementKey::Original(f) => format!("{}{}", address(f.address), f.port),
        ElementKey::Slot(f, index) => format!("{}{} . {} . {index}", address(f.address), f.protocol, f.port),
        ElementKey::Source(f, net) => format!("{}{} . {net}", address(f.address), f.port),
    }
}
