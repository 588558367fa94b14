//! What others did to our tables, from the kernel's notifications. PURE.

use std::collections::{BTreeMap, BTreeSet};

use super::names::{TABLE, family_word};
use super::protocol::{chain, generation, list, message, rule, set};
use crate::backend::Drift;
use crate::model::Family;
use crate::netlink::{Message, family_number};

/// How many different changes of a family are told apart; more are only counted.
const MOST_CHANGES: usize = 12;
/// How many of them a message names.
const NAMED: usize = 4;

/// What was heard of each family and is not told yet.
#[derive(Debug, Default)]
pub struct Notes {
    families: [Heard; 2],
    generation: Option<u32>,
}

/// What was heard of one table.
#[derive(Debug, Default)]
struct Heard {
    /// Messages so far; never starts over.
    messages: u64,
    /// What was changed, and how often.
    changes: BTreeMap<Change, usize>,
    /// Changes that found no room in `changes`.
    others: usize,
    /// By whom.
    programs: BTreeSet<String>,
    /// The transaction that is being told of has changed this table.
    open: bool,
}

/// One kind of change to one thing.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Change {
    TableDeleted,
    Table,
    /// A chain, set or object.
    Thing(&'static str, String, bool),
    /// A rule or element in a chain or set.
    Part(&'static str, String, bool),
}

impl Change {
    fn text(&self, count: usize, family: Family) -> String {
        let verb = |deleted: &bool| if *deleted { "deleted" } else { "added" };
        match self {
            Self::TableDeleted => format!("table {} {TABLE} deleted", family_word(family)),
            Self::Table => format!("table {} {TABLE} made or changed", family_word(family)),
            Self::Thing(what, name, deleted) => format!("{what} {name} {}", verb(deleted)),
            Self::Part(what, place, deleted) => {
                let (plural, preposition) =
                    (if count == 1 { "" } else { "s" }, if *deleted { "from" } else { "to" });
                format!("{count} {what}{plural} {} {preposition} {place}", verb(deleted))
            }
        }
    }
}

impl Notes {
    /// Takes in one notification.
    pub fn take(&mut self, message: &Message<'_>) {
        let attributes = message.attributes();
        if message.kind == message::NEW_GENERATION {
            self.generation = attributes.number(generation::ID);
            let program = attributes.string(generation::PROGRAM).unwrap_or("a program");
            let process = attributes.number(generation::PROCESS);
            let by = process.map_or_else(|| program.to_owned(), |pid| format!("{program} (process {pid})"));
            for heard in &mut self.families {
                if std::mem::take(&mut heard.open) && heard.programs.len() < NAMED {
                    heard.programs.insert(by.clone());
                }
            }
            return;
        }
        // The table's name is the first attribute of every object.
        let family = Family::ALL.into_iter().find(|f| message.payload.first() == Some(&family_number(*f)));
        let Some(family) = family.filter(|_| attributes.string(rule::TABLE) == Some(TABLE)) else { return };
        let heard = self.heard(family);
        heard.messages += 1;
        heard.open = true;
        let (change, count) = read(message);
        let has_room = heard.changes.len() < MOST_CHANGES || change == Change::TableDeleted;
        if has_room || heard.changes.contains_key(&change) {
            *heard.changes.entry(change).or_insert(0) += count;
        } else {
            heard.others += count;
        }
    }

    /// The generation up to which everything was heard.
    #[must_use]
    pub const fn generation(&self) -> Option<u32> {
        self.generation
    }

    /// How many messages were heard of a family so far.
    #[must_use]
    pub fn messages(&self, family: Family) -> u64 {
        let [v4, v6] = &self.families;
        if family == Family::V4 { v4.messages } else { v6.messages }
    }

    /// What was heard of a family since it was taken last.
    pub fn told(&mut self, family: Family) -> Option<Drift> {
        let heard = self.heard(family);
        let messages = heard.messages;
        let Heard { changes, others, programs, open, .. } = std::mem::take(heard);
        (heard.messages, heard.open) = (messages, open);
        if changes.is_empty() {
            return None;
        }
        // Whoever deletes a table deletes everything in it.
        let named = if changes.contains_key(&Change::TableDeleted) { 1 } else { NAMED };
        let mut texts: Vec<String> =
            changes.iter().take(named).map(|(change, count)| change.text(*count, family)).collect();
        if named > 1 && changes.len() + others > texts.len() {
            texts.push("and more".into());
        }
        let by = (!programs.is_empty()).then(|| programs.into_iter().collect::<Vec<_>>().join(", "));
        Some(Drift { what: texts.join(", "), by, certain: true })
    }

    fn heard(&mut self, family: Family) -> &mut Heard {
        let [v4, v6] = &mut self.families;
        if family == Family::V4 { v4 } else { v6 }
    }
}

/// What a notification about one of our tables says, and of how many things.
fn read(message: &Message<'_>) -> (Change, usize) {
    let attributes = message.attributes();
    let name = |kind| attributes.string(kind).unwrap_or_default().to_owned();
    let thing = |what, name, deleted| (Change::Thing(what, name, deleted), 1);
    match message.kind {
        message::DELETE_TABLE => (Change::TableDeleted, 1),
        message::NEW_CHAIN => thing("chain", name(chain::NAME), false),
        message::DELETE_CHAIN => thing("chain", name(chain::NAME), true),
        message::NEW_RULE => (Change::Part("rule", name(rule::CHAIN), false), 1),
        message::DELETE_RULE => (Change::Part("rule", name(rule::CHAIN), true), 1),
        message::NEW_SET => thing("set", name(set::NAME), false),
        message::DELETE_SET => thing("set", name(set::NAME), true),
        message::NEW_ELEMENT | message::DELETE_ELEMENT => {
            let count = attributes.nested(list::ELEMENTS).count().max(1);
            let deleted = message.kind == message::DELETE_ELEMENT;
            (Change::Part("element", name(list::SET), deleted), count)
        }
        message::NEW_OBJECT => thing("object", name(set::NAME), false),
        message::DELETE_OBJECT => thing("object", name(set::NAME), true),
        _ => (Change::Table, 1),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::netlink::{Writer, messages};

    /// `KIND FAMILY TABLE NAME`, as the kernel would tell it; `gen PROGRAM` ends a transaction.
    fn notify(notes: &mut Notes, line: &str) {
        let words: Vec<&str> = line.split_whitespace().collect();
        let mut w = Writer::default();
        let kind = match words[0] {
            "gen" => message::NEW_GENERATION,
            "-table" => message::DELETE_TABLE,
            "-chain" => message::DELETE_CHAIN,
            "+rule" => message::NEW_RULE,
            "-rule" => message::DELETE_RULE,
            "-element" => message::DELETE_ELEMENT,
            other => panic!("{other}"),
        };
        if words[0] == "gen" {
            let open = w.message(kind, 0, 0, 0, 0);
            w.number(generation::ID, 7);
            w.number(generation::PROCESS, 4711);
            w.string(generation::PROGRAM, words[1]);
            w.end_message(open);
        } else {
            let family = if words[1] == "ip" { 2 } else { 10 };
            let open = w.message(kind, 0, 0, family, 0);
            w.string(rule::TABLE, words[2]);
            if let Some(name) = words.get(3) {
                w.string(if words[0].ends_with("chain") { chain::NAME } else { rule::CHAIN }, name);
            }
            w.end_message(open);
        }
        messages(w.bytes()).for_each(|message| notes.take(&message));
    }

    #[test]
    fn changes_are_told_with_the_program_behind_them() {
        type Told = Option<(&'static str, Option<&'static str>)>;
        let table: &[(&str, &[&str], Told)] = &[
            ("another table", &["-table ip firewall", "gen nft"], None),
            ("the other family", &["-chain ip6 shunt nat-output", "gen nft"], None),
            (
                "several of a kind",
                &["-rule ip shunt pick-3", "-rule ip shunt pick-3", "gen nft"],
                Some(("2 rules deleted from pick-3", Some("nft (process 4711)"))),
            ),
            (
                "an element goes and comes back as another one",
                &["-element ip shunt services", "+rule ip shunt refuse", "gen python3"],
                Some((
                    "1 element deleted from services, 1 rule added to refuse",
                    Some("python3 (process 4711)"),
                )),
            ),
            (
                "everything goes with the table",
                &["-rule ip shunt refuse", "-chain ip shunt refuse", "-table ip shunt", "gen nft"],
                Some(("table ip shunt deleted", Some("nft (process 4711)"))),
            ),
            ("the end was lost", &["-rule ip shunt refuse"], Some(("1 rule deleted from refuse", None))),
            (
                "two programs, one of them elsewhere",
                &["-rule ip shunt refuse", "gen nft", "-table ip firewall", "gen firewalld"],
                Some(("1 rule deleted from refuse", Some("nft (process 4711)"))),
            ),
        ];
        for (what, lines, expected) in table {
            let mut notes = Notes::default();
            lines.iter().for_each(|line| notify(&mut notes, line));
            let told = notes.told(Family::V4);
            let told = told.as_ref().map(|drift| (&*drift.what, drift.by.as_deref()));
            assert_eq!(told, *expected, "{what}");
            assert!(notes.told(Family::V4).is_none(), "{what}: told once");
        }
    }

    #[test]
    fn a_flood_of_changes_takes_little_room() {
        let mut notes = Notes::default();
        (0..1000).for_each(|n| notify(&mut notes, &format!("-chain ip shunt c{n}")));
        assert_eq!(notes.messages(Family::V4), 1000);
        assert_eq!(notes.families[0].changes.len(), MOST_CHANGES);
        assert!(notes.told(Family::V4).is_some_and(|drift| drift.what.ends_with("and more")));
        assert_eq!(notes.messages(Family::V4), 1000, "what was heard stays heard");
    }
}
