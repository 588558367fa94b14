//! Whether our tables still are as we left them. The kernel keeps others from a table that belongs to our
//! socket; of any other one the notifications tell what was done to it.

use std::io;
use std::time::{Duration, Instant};

use tracing::warn;

use super::super::state::{self, HeldBy};
use super::super::watch::Watch;
use super::{Condition, Nftables, Table, read_error};
use crate::backend::{BackendError, Drift, Receipt};
use crate::diff::Plan;
use crate::model::Family;

/// Where notifications were lost, everything is read and compared. That may take a hundredth of the time.
const SHARE: u32 = 100;

/// What the last look saw, and what reading everything took.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Looked {
    generation: Option<u32>,
    /// When everything was read last, and how long that took.
    read: Option<(Instant, Duration)>,
    /// How many losses of notifications were known then.
    lost: u64,
}

/// How many transactions the kernel has seen, and how many of them were ours.
#[derive(Clone, Copy, Debug)]
pub(super) struct Mark {
    generation: u32,
    ours: u32,
}

impl Table {
    /// Whether others could change it.
    fn is_open(&self) -> bool {
        self.condition == Condition::Ready && !self.protected
    }
}

impl Nftables {
    /// Listens from now on to what others do.
    pub(super) fn listen(&mut self) {
        if self.watch.is_some() {
            return;
        }
        match Watch::open(self.connection.port()) {
            Ok(watch) => self.watch = Some(watch),
            Err(error) => warn!(
                "what others do to shunt's tables is not noticed, since the kernel does not tell: {error}"
            ),
        }
    }

    /// Listens no longer if nobody can change our tables: whoever listens makes every transaction of the
    /// node slower (by a microsecond, and by 0.6 for every element).
    pub(super) fn listen_if_needed(&mut self) {
        if !self.tables.iter().any(Table::is_open) {
            self.watch = None;
        }
    }

    /// How many transactions there were so far.
    pub(super) fn mark(&mut self) -> io::Result<Mark> {
        Ok(Mark { generation: self.connection.generation()?, ours: self.connection.commits() })
    }

    /// Whether all transactions since then were ours.
    pub(super) fn is_alone_since(&mut self, mark: Mark) -> bool {
        self.mark()
            .is_ok_and(|now| now.generation.wrapping_sub(mark.generation) == now.ours.wrapping_sub(mark.ours))
    }

    /// Everything is going to be read.
    pub(super) fn begin_reading(&mut self, family: Family) -> Result<Instant, BackendError> {
        let held = state::held_by(&mut self.connection, family).map_err(read_error)?;
        let open = match held {
            Some(HeldBy::Nobody | HeldBy::Orphan) => true,
            Some(HeldBy::Ours | HeldBy::Other(_)) => false,
            None => !self.table(family).owned,
        };
        if open {
            self.listen();
        }
        self.table(family).looked.lost = self.watch.as_ref().map_or(0, Watch::lost);
        Ok(Instant::now())
    }

    /// Writes a plan with `write`, so that what others do meanwhile is heard. The kernel tells of every
    /// element, in 4 KiB each until the batch is through, to whoever listens: nobody does while a whole
    /// table is written. That nothing was missed shows by the number of transactions.
    pub(super) fn hear_others(
        &mut self,
        plan: &Plan,
        receipt: &mut Receipt,
        write: impl FnOnce(&mut Self, &Plan, &mut Receipt) -> Result<(), BackendError>,
    ) -> Result<(), BackendError> {
        let whole = matches!(self.table(plan.family).condition, Condition::Absent | Condition::Unfit);
        let Some(watch) = self.watch.as_mut().filter(|_| whole) else { return write(self, plan, receipt) };
        let paused = watch.listen().and_then(|()| watch.pause());
        let (before, batches) = (paused.and_then(|()| self.connection.generation()), receipt.batches);
        let result = write(self, plan, receipt);
        let ours = u32::try_from(receipt.batches - batches).unwrap_or(u32::MAX);
        if let Err(error) = before.and_then(|before| self.hear_again(before.wrapping_add(ours))) {
            // What was written stands all the same.
            warn!(
                "what others do to shunt's tables is no longer noticed, since the kernel does not tell: {error}"
            );
            self.watch = None;
        }
        result
    }

    /// Listens again; `generation` is the present one if nobody has written meanwhile.
    fn hear_again(&mut self, generation: u32) -> io::Result<()> {
        let Some(watch) = &mut self.watch else { return Ok(()) };
        watch.resume()?;
        if self.connection.generation()? != generation {
            watch.missed();
        }
        Ok(())
    }

    /// What somebody else has done to our table.
    pub(super) fn look(&mut self, family: Family) -> Result<Option<Drift>, BackendError> {
        if self.table(family).condition != Condition::Ready {
            return Ok(None);
        }
        if self.table(family).protected {
            return self.look_at_owner(family);
        }
        let looked = self.table(family).looked;
        let Some(watch) = &mut self.watch else { return Ok(None) };
        watch.listen().map_err(read_error)?;
        let may_read = looked.read.is_none_or(|(when, took)| when.elapsed() >= took * SHARE);
        let unclear = || Drift { what: "more than can be followed".into(), by: None, certain: false };
        let lost = looked.lost != watch.lost() && may_read;
        Ok(watch.told(family).or_else(|| lost.then(unclear)))
    }

    /// Makes sure that the kernel keeps others from our table; asked only where there was a transaction.
    fn look_at_owner(&mut self, family: Family) -> Result<Option<Drift>, BackendError> {
        let generation = self.connection.generation().map_err(read_error)?;
        if self.table(family).looked.generation.replace(generation) == Some(generation) {
            return Ok(None);
        }
        let held = state::held_by(&mut self.connection, family).map_err(read_error)?;
        let what = || "the table is gone, or no longer belongs to this shunt".to_owned();
        Ok((held != Some(HeldBy::Ours)).then(|| Drift { what: what(), by: None, certain: true }))
    }

    /// Everything was read; it was begun at `start`.
    pub(super) fn end_reading(&mut self, family: Family, start: Instant) {
        self.table(family).looked.read = Some((Instant::now(), start.elapsed()));
    }
}
