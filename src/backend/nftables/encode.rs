//! A transaction as the bytes of one netlink batch.

use std::ops::Range;

use super::codec::{
    comment_user_data, write_client, write_counter, write_element, write_key, write_map, write_protocol_set,
    write_protocols, write_set,
};
use super::element::Element;
use super::names::{TABLE, table_comment};
use super::protocol::{chain, list, message, rule, set, table};
use super::sticky::Memory;
use super::transaction::{Op, Transaction};
use super::wire::{self, ANONYMOUS_SET, Scratch};
use crate::model::Family;
use crate::netlink::{ACK, Attributes, CREATE, HEADERS, Writer, family_number};

/// The bytes of a transaction, and which operations stand in which message.
#[derive(Debug)]
pub struct Batch {
    writer: Writer,
    /// Per message: where it stands in the bytes and which operations it carries. The sequence number
    /// of the first one is 1; the batch's own begin and end are 0 and the one after the last.
    messages: Vec<(Range<usize>, Range<usize>)>,
}

impl Batch {
    /// Encodes a transaction. Only the last operation's message asks for a confirmation.
    #[must_use]
    pub fn encode(transaction: &Transaction) -> Self {
        Self::encode_for(TABLE, transaction)
    }

    /// The same for a table of another name.
    #[must_use]
    pub fn encode_for(table: &str, transaction: &Transaction) -> Self {
        let mut encoder = Encoder::new(table, transaction.family);
        encoder.run(&transaction.ops);
        encoder.batch
    }

    /// A batch that deletes a table of any name.
    #[must_use]
    pub fn table_removal(family: Family, name: &str) -> Self {
        let mut encoder = Encoder::new(name, family);
        encoder.frame(message::BATCH_BEGIN, 0);
        encoder.message(message::DELETE_TABLE, ACK, 0..1, |w| w.string(table::NAME, name));
        encoder.frame(message::BATCH_END, 2);
        encoder.batch
    }

    /// What to send.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        self.writer.bytes()
    }

    /// The sequence number of the message that is confirmed.
    #[must_use]
    pub fn last_seq(&self) -> u32 {
        u32::try_from(self.messages.len()).unwrap_or(u32::MAX)
    }

    /// The operation that the kernel complains about: the message's sequence number, and if the kernel
    /// told it the offset of the attribute in that message.
    #[must_use]
    pub fn blame(&self, seq: u32, offset: Option<usize>) -> Option<usize> {
        let index = usize::try_from(seq).ok()?.checked_sub(1)?;
        let (bytes, ops) = self.messages.get(index)?;
        if ops.len() == 1 {
            return Some(ops.start);
        }
        // Several elements share a message: count those that end before the offset.
        let offset = offset?;
        let message = &self.bytes()[bytes.clone()];
        let list = Attributes(&message[HEADERS..]).get(list::ELEMENTS)?;
        let list_start = list.as_ptr() as usize - message.as_ptr() as usize;
        let ends = Attributes(list).map(|(_, value)| {
            let start = value.as_ptr() as usize - list.as_ptr() as usize;
            list_start + start + value.len()
        });
        let before = ends.take_while(|end| *end <= offset).count();
        let per_op = Attributes(list).count() / ops.len().max(1);
        Some((ops.start + before / per_op.max(1)).min(ops.end - 1))
    }
}

struct Encoder<'a> {
    table: &'a str,
    family: Family,
    batch: Batch,
    scratch: Option<Scratch>,
    anonymous_sets: u32,
}

impl<'a> Encoder<'a> {
    fn new(table: &'a str, family: Family) -> Self {
        let batch = Batch { writer: Writer::default(), messages: Vec::new() };
        Self { table, family, batch, scratch: None, anonymous_sets: 0 }
    }

    fn run(&mut self, ops: &[Op]) {
        self.frame(message::BATCH_BEGIN, 0);
        let mut at = 0;
        while at < ops.len() {
            at = match &ops[at] {
                Op::AddElement(_) | Op::DeleteElement(_) => self.elements(ops, at),
                Op::Forget(memory, _) | Op::Keep(memory, _) => self.clients(ops, at, memory),
                op => {
                    self.single(op, at);
                    at + 1
                }
            };
        }
        if let Some((last, _)) = self.batch.messages.last() {
            self.batch.writer.add_flags(last.start, ACK);
        }
        self.frame(message::BATCH_END, self.batch.last_seq() + 1);
    }

    fn frame(&mut self, kind: u16, seq: u32) {
        let open = self.batch.writer.message(kind, 0, seq, 0, message::SUBSYSTEM);
        self.batch.writer.end_message(open);
    }

    /// Writes one message on behalf of `ops`.
    fn message(&mut self, kind: u16, flags: u16, ops: Range<usize>, fill: impl FnOnce(&mut Writer)) {
        let start = self.batch.writer.at();
        let seq = self.batch.last_seq() + 1;
        let open = self.batch.writer.message(kind, flags, seq, family_number(self.family), 0);
        fill(&mut self.batch.writer);
        self.batch.writer.end_message(open);
        self.batch.messages.push((start..self.batch.writer.at(), ops));
    }

    fn single(&mut self, op: &Op, at: usize) {
        let ops = at..at + 1;
        let (table_name, family) = (self.table, self.family);
        match op {
            Op::DeleteTable => {
                self.message(message::DELETE_TABLE, 0, ops, |w| w.string(table::NAME, table_name));
            }
            Op::AddTable { owned } => self.message(message::NEW_TABLE, CREATE, ops, |w| {
                w.string(table::NAME, table_name);
                w.number(table::FLAGS, if *owned { table::OWNED } else { 0 });
                w.attribute(table::USER_DATA, &[&comment_user_data(&table_comment())]);
            }),
            Op::AddSet(set, size) => {
                self.message(message::NEW_SET, CREATE, ops, |w| {
                    write_set(w, table_name, *set, *size, family);
                });
            }
            Op::AddChain(chain) => {
                self.chain_or_rule(ops.clone(), |s, seq, out| {
                    wire::chain_message(s, chain, family, seq, out);
                });
                for rule in &chain.rules {
                    let exprs = rule.lower(family);
                    if exprs.contains(&super::expr::Expr::AnonymousProtocols) {
                        self.protocol_set(ops.clone());
                    }
                    let id = self.anonymous_sets;
                    self.chain_or_rule(ops.clone(), |s, seq, out| {
                        wire::rule_message(s, &chain.name, &exprs, family, seq, id, out);
                    });
                }
            }
            Op::DeleteChain(name) => self.message(message::DELETE_CHAIN, 0, ops, |w| {
                w.string(chain::TABLE, table_name);
                w.string(chain::NAME, name);
            }),
            Op::AddCounter => self.message(message::NEW_OBJECT, CREATE, ops, |w| {
                write_counter(w, table_name);
            }),
            Op::AddMap(memory, state) => {
                self.message(message::NEW_SET, CREATE, ops, |w| {
                    write_map(w, table_name, memory, *state, family);
                });
            }
            Op::FlushChain(name) => self.message(message::DELETE_RULE, 0, ops, |w| {
                w.string(rule::TABLE, table_name);
                w.string(rule::CHAIN, name);
            }),
            Op::DeleteMap(memory) => self.delete_set(&memory.map(), ops),
            Op::DeleteSet(name) => self.delete_set(name, ops),
            Op::DeleteKey(set, key) => self.message(message::DELETE_ELEMENT, 0, ops, |w| {
                w.string(list::TABLE, table_name);
                w.string(list::SET, set.name());
                write_key(w, key);
            }),
            Op::AddElement(_) | Op::DeleteElement(_) | Op::Forget(..) | Op::Keep(..) => {}
        }
    }

    fn delete_set(&mut self, name: &str, ops: Range<usize>) {
        let table = self.table;
        self.message(message::DELETE_SET, 0, ops, |w| {
            w.string(set::TABLE, table);
            w.string(set::NAME, name);
        });
    }

    fn chain_or_rule(&mut self, ops: Range<usize>, write: impl FnOnce(&mut Scratch, u32, &mut Vec<u8>)) {
        let start = self.batch.writer.at();
        let seq = self.batch.last_seq() + 1;
        let scratch = self.scratch.get_or_insert_with(|| Scratch::of(self.table));
        write(scratch, seq, self.batch.writer.buffer());
        self.batch.messages.push((start..self.batch.writer.at(), ops));
    }

    /// The anonymous set `{ tcp, udp, sctp }` that the next rule looks into.
    fn protocol_set(&mut self, ops: Range<usize>) {
        self.anonymous_sets += 1;
        let (table, id) = (self.table, self.anonymous_sets);
        self.message(message::NEW_SET, CREATE, ops.clone(), |w| {
            write_protocol_set(w, table, ANONYMOUS_SET, id);
        });
        self.message(message::NEW_ELEMENT, CREATE, ops, |w| {
            w.string(list::TABLE, table);
            w.string(list::SET, ANONYMOUS_SET);
            w.number(list::SET_ID, id);
            write_protocols(w);
        });
    }

    /// Writes the run of clients of one memory that are to be forgotten, or kept, that starts at `at`;
    /// returns the index behind it.
    fn clients(&mut self, ops: &[Op], at: usize, memory: &Memory) -> usize {
        let mut end = at;
        let start = self.batch.writer.at();
        let seq = self.batch.last_seq() + 1;
        let writer = &mut self.batch.writer;
        let keep = matches!(ops[at], Op::Keep(..));
        let (kind, flags) = if keep { (message::NEW_ELEMENT, CREATE) } else { (message::DELETE_ELEMENT, 0) };
        let open = writer.message(kind, flags, seq, family_number(self.family), 0);
        writer.string(list::TABLE, self.table);
        writer.string(list::SET, &memory.map());
        let items = writer.nest(list::ELEMENTS);
        let list_start = writer.at();
        while let Some(Op::Forget(same, client) | Op::Keep(same, client)) = ops.get(end)
            && (same, matches!(ops[end], Op::Keep(..))) == (memory, keep)
            && writer.at() - list_start < list::MOST_BYTES
        {
            write_client(writer, client, keep);
            end += 1;
        }
        writer.close(items);
        writer.end_message(open);
        self.batch.messages.push((start..self.batch.writer.at(), at..end));
        end
    }

    /// Writes the run of element operations of one kind on one set that starts at `at`; returns the
    /// index behind it.
    fn elements(&mut self, ops: &[Op], at: usize) -> usize {
        let Some((adds, set)) = element_op(&ops[at]).map(|(adds, element)| (adds, element.set)) else {
            return at + 1;
        };
        let (kind, flags) = if adds { (message::NEW_ELEMENT, CREATE) } else { (message::DELETE_ELEMENT, 0) };
        let family = self.family;
        let mut end = at;
        let start = self.batch.writer.at();
        let seq = self.batch.last_seq() + 1;
        let writer = &mut self.batch.writer;
        let open = writer.message(kind, flags, seq, family_number(family), 0);
        writer.string(list::TABLE, self.table);
        writer.string(list::SET, set.name());
        let items = writer.nest(list::ELEMENTS);
        let list_start = writer.at();
        while let Some((same_kind, element)) = ops.get(end).and_then(element_op)
            && (same_kind, element.set) == (adds, set)
            && writer.at() - list_start < list::MOST_BYTES
        {
            write_element(writer, element, adds, family);
            end += 1;
        }
        writer.close(items);
        writer.end_message(open);
        self.batch.messages.push((start..self.batch.writer.at(), at..end));
        end
    }
}

fn element_op(op: &Op) -> Option<(bool, &Element)> {
    match op {
        Op::AddElement(element) => Some((true, element)),
        Op::DeleteElement(element) => Some((false, element)),
        _ => None,
    }
}
