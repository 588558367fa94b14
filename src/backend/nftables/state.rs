//! What the kernel's table looks like, compared with what it should be. EDGE: it asks the kernel.

mod elements;

use std::collections::{BTreeMap, BTreeSet};
use std::io;

use super::codec::{SetIdentity, read_comment, read_map, read_size};
use super::connection::Connection;
use super::element::Element;
use super::names::{ServiceChain, Set, TABLE, is_ours, table_comment};
use super::protocol::{chain as chain_attribute, message, rule, set, table};
use super::repair::Repairs;
use super::ruleset::{
    Chain, ChainType, Settings, base_chains, memory_chains, service_chain, static_chains, sticky_chain,
};
use super::sticky::{MapState, Memory, Objects, StickyChain};
use super::watch::Watch;
use super::wire;
use crate::model::Family;
use crate::netlink::family_number;

/// The table of one family as the kernel holds it.
#[derive(Debug)]
pub enum Installed {
    /// There is no such table.
    Absent,
    /// There is one that was not made by shunt: it has this comment.
    Stranger(String),
    /// There is one, but not as it should be; it has to be replaced. Says why.
    Unfit(String),
    /// It is ours and in order, apart from elements.
    Fit(Box<Table>),
}

/// A table in order.
#[derive(Debug, Default)]
pub struct Table {
    /// Who may change it.
    pub held_by: HeldBy,
    /// The chains that elements may lead to.
    pub chains: BTreeSet<ServiceChain>,
    /// The most elements a set takes, for sets that have a limit.
    pub sizes: BTreeMap<Set, u32>,
    /// What there is for sticky ServicePorts.
    pub sticky: Objects,
    /// All elements.
    pub elements: Vec<Element>,
    /// What is wrong with it.
    pub repairs: Repairs,
}

/// The chains of a table that are there on behalf of Services.
#[derive(Debug, Default)]
struct Chains {
    service: BTreeSet<ServiceChain>,
    sticky: BTreeSet<StickyChain>,
    memories: BTreeSet<Memory>,
    repairs: Repairs,
}

/// The sets of a table, as far as they differ from one to the next.
#[derive(Debug, Default)]
struct Sets {
    sizes: BTreeMap<Set, u32>,
    maps: BTreeMap<Memory, MapState>,
    foreign: Vec<String>,
}

/// Who may change a table.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum HeldBy {
    /// Anybody.
    #[default]
    Nobody,
    /// We alone.
    Ours,
    /// Anybody, until somebody takes it over: its owner has ended and left it behind.
    Orphan,
    /// The socket with this netlink port, which is not ours.
    Other(u32),
}

/// What a table message says.
struct Head {
    flags: u32,
    owner: Option<u32>,
    comment: String,
}

/// Tells who holds our table; `None` without one.
///
/// # Errors
/// What the kernel says.
pub fn held_by(connection: &mut Connection, family: Family) -> io::Result<Option<HeldBy>> {
    let own = connection.port();
    Ok(head(connection, family)?.map(|head| head.held_by(own)))
}

/// The comment of a table with our name that was not made by shunt.
///
/// # Errors
/// What the kernel says.
pub fn stranger(connection: &mut Connection, family: Family) -> io::Result<Option<String>> {
    Ok(head(connection, family)?.map(|head| head.comment).filter(|comment| !is_ours(comment)))
}

impl Head {
    fn held_by(&self, own_port: u32) -> HeldBy {
        match self.owner {
            Some(port) if port != own_port => HeldBy::Other(port),
            Some(_) => HeldBy::Ours,
            None if self.flags & table::OWNED != 0 => HeldBy::Orphan,
            None => HeldBy::Nobody,
        }
    }
}

fn head(connection: &mut Connection, family: Family) -> io::Result<Option<Head>> {
    let mut head = None;
    connection.dump(
        message::GET_TABLE,
        family_number(family),
        |_| {},
        |message| {
            let attributes = message.attributes();
            if attributes.string(table::NAME) == Some(TABLE) {
                let comment = attributes.get(table::USER_DATA).and_then(read_comment).unwrap_or_default();
                head = Some(Head {
                    flags: attributes.number(table::FLAGS).unwrap_or(0),
                    owner: attributes.number(table::OWNER),
                    comment: comment.to_owned(),
                });
            }
        },
    )?;
    Ok(head)
}

/// Reads the table and judges it. Dumps are not atomic: they are repeated until no transaction of
/// anybody came in between. Elements take long where there are many; for them it is enough if `watch`
/// has not heard of one that touched our table.
///
/// # Errors
/// What the kernel says.
pub fn read(
    connection: &mut Connection,
    settings: &Settings,
    mut watch: Option<&mut Watch>,
) -> io::Result<Installed> {
    const TRIES: usize = 20;
    let family = settings.family;
    for _ in 0..TRIES {
        let generation = connection.generation()?;
        let heard = watch.as_deref().map(|watch| watch.mark(family));
        let installed = read_structure(connection, settings)?;
        if connection.generation()? != generation {
            continue;
        }
        let Installed::Fit(mut table) = installed else { return Ok(installed) };
        if let Err(why) = elements::read_all(connection, family, &mut table)? {
            return Ok(unfit(table.held_by, why));
        }
        let now = connection.generation()?;
        // What changes elements of a table that is held is its holder: ourselves, or a shunt beside this dry run.
        if now == generation || matches!(table.held_by, HeldBy::Ours | HeldBy::Other(_)) {
            return Ok(Installed::Fit(table));
        }
        if let Some(watch) = watch.as_deref_mut() {
            watch.listen()?;
            if watch.heard_of(now) && heard == Some(watch.mark(family)) {
                return Ok(Installed::Fit(table));
            }
        }
    }
    Err(io::Error::other(format!(
        "the nftables of this node change so fast that {TRIES} attempts to read them were overtaken"
    )))
}

/// A table that cannot be gone on with, unless it belongs to another process: that is not ours to judge, nor to
/// change.
fn unfit(held_by: HeldBy, why: String) -> Installed {
    match held_by {
        HeldBy::Other(_) => Installed::Fit(Box::new(Table { held_by, ..Table::default() })),
        HeldBy::Nobody | HeldBy::Orphan | HeldBy::Ours => Installed::Unfit(why),
    }
}

/// Everything but the elements.
fn read_structure(connection: &mut Connection, settings: &Settings) -> io::Result<Installed> {
    let family = settings.family;
    let Some(head) = head(connection, family)? else { return Ok(Installed::Absent) };
    let held_by = head.held_by(connection.port());
    if !is_ours(&head.comment) && !matches!(held_by, HeldBy::Other(_)) {
        return Ok(Installed::Stranger(head.comment));
    }
    if head.comment != table_comment() {
        let why = format!("it is not of this version: its comment is \"{}\"", head.comment);
        return Ok(unfit(held_by, why));
    }
    let Chains { service, sticky, memories, mut repairs } = match read_chains(connection, settings)? {
        Ok(chains) => chains,
        Err(why) => return Ok(unfit(held_by, why)),
    };
    let sets = match read_sets(connection, family)? {
        Ok(sets) => sets,
        Err(why) => return Ok(unfit(held_by, why)),
    };
    if let Some(memory) = sets.maps.keys().find(|memory| !memories.contains(memory)) {
        return Ok(unfit(held_by, format!("the chains of map {} are missing", memory.map())));
    }
    repairs.foreign_sets = sets.foreign;
    if repairs.too_many() {
        return Ok(unfit(held_by, repairs.text()));
    }
    let sticky = Objects::read(sets.maps, sticky, memories);
    let (chains, sizes) = (service, sets.sizes);
    Ok(Installed::Fit(Box::new(Table { held_by, chains, sizes, sticky, repairs, ..Table::default() })))
}

/// Compares chains and rules with what they should be; the chains that are there for Services.
fn read_chains(connection: &mut Connection, settings: &Settings) -> io::Result<Result<Chains, String>> {
    let mut found = chain_heads(connection, settings.family)?;
    let mut rules = rule_texts(connection, settings.family)?;
    let mut chains = Chains::default();
    let mut expected: Vec<Chain> = static_chains(settings);
    expected.extend(base_chains(settings));
    for name in found.keys() {
        if let Some(chain) = ServiceChain::parse(name) {
            chains.service.insert(chain);
            expected.push(service_chain(chain, settings));
        } else if let Some(chain) = StickyChain::parse(name) {
            expected.push(sticky_chain(&chain, settings));
            chains.sticky.insert(chain);
        } else if let Some(memory) = Memory::of_chain(name) {
            chains.memories.insert(memory);
        }
    }
    expected.extend(chains.memories.iter().flat_map(memory_chains));
    for chain in expected {
        let head = found.remove(&chain.name);
        let rules = rules.remove(&chain.name).unwrap_or_default();
        match head {
            Some(head) if head != base_text(&chain) => {
                return Ok(Err(format!("chain {} is tied to another hook", chain.name)));
            }
            Some(_) if rules == expected_texts(&chain, settings.family) => {}
            head => chains.repairs.chains.push((chain, head.is_some())),
        }
    }
    chains.repairs.foreign_chains = found.into_keys().collect();
    Ok(Ok(chains))
}

/// Chains by name, with their hooks in the words of [`base_text`].
fn chain_heads(connection: &mut Connection, family: Family) -> io::Result<BTreeMap<String, String>> {
    let mut found = BTreeMap::new();
    connection.dump(
        message::GET_CHAIN,
        family_number(family),
        |_| {},
        |message| {
            let attributes = message.attributes();
            if attributes.string(chain_attribute::TABLE) != Some(TABLE) {
                return;
            }
            let hook = attributes.nested(chain_attribute::HOOK);
            let text = match (attributes.string(chain_attribute::TYPE), hook.number(1), hook.number(2)) {
                (Some(kind), Some(hook), Some(priority)) => {
                    let policy = attributes.number(chain_attribute::POLICY).unwrap_or(0);
                    let priority = i32::from_be_bytes(priority.to_be_bytes());
                    format!("{kind} {hook} {priority} {policy}")
                }
                _ => String::new(),
            };
            let name = attributes.string(chain_attribute::NAME).unwrap_or_default();
            found.insert(name.to_owned(), text);
        },
    )?;
    Ok(found)
}

/// `TYPE HOOK PRIORITY POLICY` of a base chain, empty for others.
fn base_text(chain: &Chain) -> String {
    const ACCEPT: u32 = 1;
    chain.base.map_or_else(String::new, |(kind, hook, priority)| {
        let kind = match kind {
            ChainType::Filter => "filter",
            ChainType::Nat => "nat",
        };
        format!("{kind} {} {priority} {ACCEPT}", hook as u32)
    })
}

/// The rules of every chain, in libnftnl's words.
fn rule_texts(connection: &mut Connection, family: Family) -> io::Result<BTreeMap<String, Vec<String>>> {
    let mut rules: BTreeMap<String, Vec<String>> = BTreeMap::new();
    connection.dump(
        message::GET_RULE,
        family_number(family),
        |w| w.string(rule::TABLE, TABLE),
        |message| {
            if let Some((chain, text)) = wire::rule_text(message.whole) {
                rules.entry(chain).or_default().push(text);
            }
        },
    )?;
    Ok(rules)
}

/// The same words for the rules that a chain should have.
fn expected_texts(chain: &Chain, family: Family) -> Vec<String> {
    let mut scratch = wire::Scratch::default();
    let mut text = |rule: &super::statement::Rule| {
        let mut bytes = Vec::new();
        wire::rule_message(&mut scratch, &chain.name, &rule.lower(family), family, 0, 0, &mut bytes);
        wire::rule_text(&bytes).map(|(_, text)| text).unwrap_or_default()
    };
    chain.rules.iter().map(&mut text).collect()
}

/// Compares the sets with what they should be; what differs from one to the next.
fn read_sets(connection: &mut Connection, family: Family) -> io::Result<Result<Sets, String>> {
    let mut sets = Sets::default();
    let mut missing: BTreeSet<Set> = Set::ALL.into();
    let mut wrong = None;
    connection.dump(
        message::GET_SET,
        family_number(family),
        |w| w.string(set::TABLE, TABLE),
        |message| {
            let attributes = message.attributes();
            let name = attributes.string(set::NAME).unwrap_or_default();
            let anonymous = attributes.number(set::FLAGS).unwrap_or(0) & set::ANONYMOUS == set::ANONYMOUS;
            match Set::from_name(name) {
                Some(found) if SetIdentity::read(attributes) == SetIdentity::of(found, family) => {
                    missing.remove(&found);
                    sets.sizes.extend(read_size(attributes).map(|size| (found, size)));
                }
                None if SetIdentity::read(attributes) == SetIdentity::of_map(family) => {
                    match Memory::of_map(name).zip(read_map(attributes)) {
                        Some((memory, state)) => _ = sets.maps.insert(memory, state),
                        None => sets.foreign.push(name.to_owned()),
                    }
                }
                None if anonymous => {}
                None => sets.foreign.push(name.to_owned()),
                Some(_) => wrong = Some(format!("set {name} has another shape than it should")),
            }
        },
    )?;
    let missing = missing.first().map(|set| format!("set {} is missing", set.name()));
    Ok(wrong.or(missing).map_or(Ok(sets), Err))
}
