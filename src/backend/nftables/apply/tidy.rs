//! What follows a committed plan, in batches of its own: objects that nothing uses any more go, and
//! clients are forgotten whose endpoint has left the list in use.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use tracing::debug;

use super::super::codec::{Client, read_client};
use super::super::encode::Batch;
use super::super::names::{NOT_REMEMBERED, TABLE};
use super::super::protocol::{list, message, object};
use super::super::steps::Step;
use super::super::sticky::{Memory, Objects, memories};
use super::super::transaction::Op;
use super::{CHAINS_PER_BATCH, Nftables, read_error};
use crate::backend::{BackendError, Receipt};
use crate::desired::{Owner, Row};
use crate::diff::Plan;
use crate::model::Family;
use crate::netlink::{Attributes, Writer, family_number};
use crate::policy::endpoints::Target;
use crate::policy::targets::Targets;

/// With up to this many clients a map is looked through twice: a packet that was under way when the
/// endpoints changed may have written an entry behind the back of the first look. Reading more than
/// that takes longer than any packet is under way.
const SMALL_MAP: usize = 10_000;

/// Where the clients of each memory may be.
#[derive(Debug, Default)]
pub(super) struct Remembered {
    /// The list in use of each memory, and for how many seconds a client is remembered.
    lists: BTreeMap<Memory, (u32, Targets)>,
    /// Memories that may hold clients of endpoints that have left the list, or for another time.
    stale: BTreeSet<Memory>,
    /// Maps whose size is another one than configured.
    resize: Vec<Op>,
}

impl Remembered {
    /// The lists of rows that were read back. Whoever wrote them may have ended before it forgot the
    /// clients of an endpoint: every map is looked through once.
    pub(super) fn read(rows: &[(Owner, Row)], objects: &Objects, size: u32) -> Self {
        let lists = rows.iter().flat_map(|(_, row)| memories(row));
        let lists = lists.map(|(memory, seconds, targets)| (memory, (seconds, targets))).collect();
        let filled = |memory: &&Memory| objects.map(memory).is_some_and(|map| !map.empty);
        Self {
            lists,
            stale: objects.in_use().filter(filled).cloned().collect(),
            resize: objects.resized(size),
        }
    }

    /// Follows a plan that was carried out.
    fn follow(&mut self, plan: &Plan) {
        let rows = plan.changes.iter().filter_map(|change| change.after.as_deref());
        for (memory, seconds, targets) in rows.flat_map(memories) {
            let before = self.lists.insert(memory.clone(), (seconds, targets.clone()));
            let Some((lasted, before)) = before else { continue };
            let after: BTreeSet<Target> = targets.iter().collect();
            if lasted != seconds || before.iter().any(|target| !after.contains(&target)) {
                self.stale.insert(memory);
            }
        }
    }
}

/// What has to happen to the clients of a memory.
#[derive(Debug, Default)]
struct Due {
    forget: Vec<Client>,
    /// As they are to be from now on.
    rewrite: Vec<Client>,
}

impl Due {
    /// Clients of endpoints outside of `list` are forgotten. Those that were written down for another
    /// time than `seconds` keep their age: it is `seconds` after their last new connection that they
    /// are forgotten.
    fn of(clients: Vec<Client>, list: &Targets, seconds: u32) -> Self {
        let known: BTreeSet<_> = list.iter().map(|target| (target.address, target.port)).collect();
        let whole = u64::from(seconds) * 1000;
        let mut due = Self::default();
        for client in clients {
            let age =
                client.lasts.filter(|lasts| *lasts != whole).map(|lasts| lasts.saturating_sub(client.left));
            if !known.contains(&client.endpoint) || age.is_some_and(|age| age >= whole) {
                due.forget.push(client);
            } else if let Some(age) = age {
                due.rewrite.push(Client { left: whole - age, ..client });
            }
        }
        // Those that expire soon last: what they do to their batch concerns few others.
        due.forget.sort_unstable_by_key(|client| std::cmp::Reverse(client.left));
        due
    }
}

impl Nftables {
    /// Does what follows a plan that was carried out.
    pub(super) fn tidy(&mut self, plan: &Plan, receipt: &mut Receipt) -> Result<(), BackendError> {
        let family = plan.family;
        let table = self.table(family);
        table.remembered.follow(plan);
        let (resize, removals) = (table.remembered.resize.clone(), table.sticky.removals());
        self.send_ops(family, resize, receipt)?;
        self.table(family).remembered.resize.clear();
        if !removals.is_empty() {
            for ops in removals.chunks(CHAINS_PER_BATCH) {
                self.send_ops(family, ops.to_vec(), receipt)?;
            }
            let table = self.table(family);
            let objects = &table.sticky;
            table.remembered.lists.retain(|memory, _| objects.map(memory).is_some());
        }
        while let Some(memory) = self.table(family).remembered.stale.first().cloned() {
            self.look_through(family, &memory, receipt)?;
            self.table(family).remembered.stale.remove(&memory);
        }
        Ok(())
    }

    /// Brings the clients of a memory in line with the list in use.
    fn look_through(
        &mut self,
        family: Family,
        memory: &Memory,
        receipt: &mut Receipt,
    ) -> Result<(), BackendError> {
        let Some((seconds, targets)) = self.table(family).remembered.lists.get(memory).cloned() else {
            return Ok(());
        };
        for _ in 0..2 {
            let start = Instant::now();
            let clients = self.clients(family, memory)?;
            let all = clients.len();
            let Due { forget, rewrite } = Due::of(clients, &targets, seconds);
            let (map, forgotten, rewritten) = (memory.map(), forget.len(), rewrite.len());
            debug!(%family, map, all, forgotten, rewritten, took = ?start.elapsed(), "looked through");
            for chunk in forget.chunks(self.chunk()) {
                self.write_clients(family, memory, chunk, false, receipt)?;
            }
            for chunk in rewrite.chunks(self.chunk()) {
                self.write_clients(family, memory, chunk, true, receipt)?;
            }
            if all > SMALL_MAP {
                break;
            }
        }
        Ok(())
    }

    /// How much the counter of clients that are not remembered has grown since the last call. It starts
    /// anew with the table.
    pub(super) fn count_not_remembered(&mut self, family: Family) -> Result<u64, BackendError> {
        let mut now = 0;
        let fill = |w: &mut Writer| {
            w.string(object::TABLE, TABLE);
            w.number(object::TYPE, object::COUNTER);
        };
        let read = self.connection.dump(message::GET_OBJECT, family_number(family), fill, |message| {
            let attributes = message.attributes();
            if attributes.string(object::NAME) == Some(NOT_REMEMBERED) {
                now = attributes.nested(object::DATA).long_number(object::PACKETS).unwrap_or(0);
            }
        });
        read.map_err(read_error)?;
        let last = self.table(family).not_remembered.replace(now).unwrap_or(now);
        Ok(if now < last { now } else { now - last })
    }

    /// The clients in a map.
    fn clients(&mut self, family: Family, memory: &Memory) -> Result<Vec<Client>, BackendError> {
        let mut clients = Vec::new();
        let (kind, number) = (message::GET_ELEMENT, family_number(family));
        let fill = |w: &mut Writer| {
            w.string(list::TABLE, TABLE);
            w.string(list::SET, &memory.map());
        };
        let read = self.connection.dump(kind, number, fill, |message| {
            let items = message.attributes().nested(list::ELEMENTS);
            clients.extend(items.filter_map(|(_, item)| read_client(Attributes(item), family)));
        });
        read.map_err(read_error)?;
        Ok(clients)
    }

    /// Forgets clients, or writes them anew. One that has expired meanwhile makes the kernel refuse the
    /// whole batch: it is halved until that one stands alone.
    fn write_clients(
        &mut self,
        family: Family,
        memory: &Memory,
        clients: &[Client],
        anew: bool,
        receipt: &mut Receipt,
    ) -> Result<(), BackendError> {
        let mut ops: Vec<Op> = clients.iter().map(|client| Op::Forget(memory.clone(), *client)).collect();
        if anew {
            ops.extend(clients.iter().map(|client| Op::Keep(memory.clone(), *client)));
        }
        let step = Step::shared(&self.table(family).settings, ops);
        let batch = Batch::encode(&step.transaction);
        let start = Instant::now();
        match self.connection.commit(&batch) {
            Ok(()) => {
                receipt.add(step.transaction.ops.len(), batch.bytes().len(), start.elapsed());
                Ok(())
            }
            Err(refusal) if refusal.errno.raw_os_error() == Some(nix::libc::ENOENT) => {
                let (first, second) = clients.split_at(clients.len() / 2);
                let halves = [first, second].into_iter().filter(|half| !half.is_empty() && clients.len() > 1);
                halves
                    .into_iter()
                    .try_for_each(|half| self.write_clients(family, memory, half, anew, receipt))
            }
            Err(refusal) => Err(self.refused(&step, refusal, batch.bytes().len())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::target;

    #[test]
    fn clients_follow_the_list_and_the_time() {
        let client = |endpoint: &str, left, lasts| {
            let Target { address, port, .. } = target(endpoint);
            Client { address: [10, 9, 9, 9].into(), endpoint: (address, port), left, lasts }
        };
        let table = [
            ("in the list", client("a", 500, None), "", ""),
            ("not in the list", client("x", 500, None), "500", ""),
            ("written for 60 s, 50 of them ago", client("a", 10_000, Some(60_000)), "10000", ""),
            ("written for 60 s, 4 of them ago", client("a", 56_000, Some(60_000)), "", "6000"),
            ("written for 5 s, 4 of them ago", client("a", 1_000, Some(5_000)), "", "6000"),
            ("written for 10 s", client("a", 1_000, Some(10_000)), "", ""),
        ];
        let left = |clients: &[Client]| clients.iter().map(|c| c.left.to_string()).collect::<String>();
        for (what, client, forget, rewrite) in table {
            let due = Due::of(vec![client], &[target("a"), target("b")].into_iter().collect(), 10);
            assert_eq!((&*left(&due.forget), &*left(&due.rewrite)), (forget, rewrite), "{what}");
        }
    }
}
