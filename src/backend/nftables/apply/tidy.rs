//! What follows a committed plan, in batches of its own: objects that nothing uses any more go, and
//! clients are forgotten whose endpoint has left the list in use.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Instant;

use tracing::debug;

use super::super::codec::{Client, read_client};
use super::super::encode::Batch;
use super::super::names::TABLE;
use super::super::netlink::Attributes;
use super::super::protocol::{family_number, list, message};
use super::super::steps::Step;
use super::super::sticky::{Memory, Objects, memories};
use super::super::transaction::Op;
use super::{CHAINS_PER_BATCH, CHUNK, Nftables, read_error, refused};
use crate::backend::{BackendError, Receipt};
use crate::desired::{Owner, Row};
use crate::diff::Plan;
use crate::model::Family;
use crate::policy::endpoints::Target;

/// With up to this many clients a map is looked through twice: a packet that was under way when the
/// endpoints changed may have written an entry behind the back of the first look. Reading more than
/// that takes longer than any packet is under way.
const SMALL_MAP: usize = 10_000;

/// Where the clients of each memory may be.
#[derive(Debug, Default)]
pub(super) struct Remembered {
    /// The list in use of each memory.
    targets: BTreeMap<Memory, Arc<[Target]>>,
    /// Memories that may hold clients of endpoints that have left the list.
    stale: BTreeSet<Memory>,
}

impl Remembered {
    /// The lists of rows that were read back. Whoever wrote them may have ended before it forgot the
    /// clients of an endpoint: every map is looked through once.
    pub(super) fn read(rows: &[(Owner, Row)], objects: &Objects) -> Self {
        let lists = rows.iter().flat_map(|(_, row)| memories(row));
        let targets = lists.map(|(memory, _, targets)| (memory, targets)).collect();
        let filled = |memory: &&Memory| objects.map(memory).is_some_and(|map| !map.empty);
        Self { targets, stale: objects.in_use().filter(filled).cloned().collect() }
    }

    /// Follows a plan that was carried out.
    fn follow(&mut self, plan: &Plan) {
        let rows = plan.changes.iter().filter_map(|change| change.after.as_ref());
        for (memory, _, targets) in rows.flat_map(memories) {
            let before = self.targets.insert(memory.clone(), targets.clone());
            let Some(before) = before.filter(|before| !Arc::ptr_eq(before, &targets)) else { continue };
            let after: BTreeSet<&Target> = targets.iter().collect();
            if before.iter().any(|target| !after.contains(target)) {
                self.stale.insert(memory);
            }
        }
    }
}

impl Nftables {
    /// Does what follows a plan that was carried out.
    pub(super) fn tidy(&mut self, plan: &Plan, receipt: &mut Receipt) -> Result<(), BackendError> {
        let family = plan.family;
        let table = self.table(family);
        table.remembered.follow(plan);
        for ops in table.sticky.removals().chunks(CHAINS_PER_BATCH) {
            self.send_ops(family, ops.to_vec(), receipt)?;
        }
        let table = self.table(family);
        let stale = std::mem::take(&mut table.remembered.stale);
        let objects = &table.sticky;
        table.remembered.targets.retain(|memory, _| objects.map(memory).is_some());
        for memory in stale {
            self.forget_strangers(family, &memory, receipt)?;
        }
        Ok(())
    }

    /// Forgets the clients of endpoints that are not in the list of a memory.
    fn forget_strangers(
        &mut self,
        family: Family,
        memory: &Memory,
        receipt: &mut Receipt,
    ) -> Result<(), BackendError> {
        let Some(targets) = self.table(family).remembered.targets.get(memory).cloned() else { return Ok(()) };
        let known: BTreeSet<_> = targets.iter().map(|target| (target.address, target.port)).collect();
        for _ in 0..2 {
            let start = Instant::now();
            let mut clients = self.clients(family, memory)?;
            let all = clients.len();
            clients.retain(|client| !known.contains(&client.endpoint));
            debug!(%family, map = memory.map(), all, forgotten = clients.len(), took = ?start.elapsed(), "looked through");
            // Those that expire soon last: what they do to their batch concerns few others.
            clients.sort_unstable_by_key(|client| std::cmp::Reverse(client.left));
            let ops: Vec<Op> =
                clients.iter().map(|client| Op::Forget(memory.clone(), client.address)).collect();
            for chunk in ops.chunks(self.chunk().min(CHUNK)) {
                self.delete_clients(family, chunk, receipt)?;
            }
            if all > SMALL_MAP {
                break;
            }
        }
        Ok(())
    }

    /// The clients in a map.
    fn clients(&mut self, family: Family, memory: &Memory) -> Result<Vec<Client>, BackendError> {
        let mut clients = Vec::new();
        let (kind, number) = (message::GET_ELEMENT, family_number(family));
        let fill = |w: &mut super::super::netlink::Writer| {
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

    /// Forgets clients. One that has expired meanwhile makes the kernel refuse the whole batch: it is
    /// halved until that one stands alone.
    fn delete_clients(
        &mut self,
        family: Family,
        ops: &[Op],
        receipt: &mut Receipt,
    ) -> Result<(), BackendError> {
        let step = Step::shared(&self.table(family).settings, ops.to_vec());
        let batch = Batch::encode(&step.transaction);
        let start = Instant::now();
        match self.connection.commit(&batch) {
            Ok(()) => {
                receipt.add(ops.len(), batch.bytes().len(), start.elapsed());
                Ok(())
            }
            Err(refusal) if refusal.errno.raw_os_error() == Some(nix::libc::ENOENT) => {
                let (first, second) = ops.split_at(ops.len() / 2);
                let halves = [first, second].into_iter().filter(|half| !half.is_empty() && ops.len() > 1);
                halves.into_iter().try_for_each(|half| self.delete_clients(family, half, receipt))
            }
            Err(refusal) => Err(refused(&step, refusal)),
        }
    }
}
