//! The three ways to write a plan: into a new table, in place of the table that is there, and into it.

use tracing::warn;

use super::super::names::Set;
use super::super::repair::Repairs;
use super::super::ruleset::with_prerequisites;
use super::super::steps::{self, Step};
use super::super::sticky::Objects;
use super::super::transaction::Op;
use super::{Condition, Nftables, SKELETON_PER_BATCH};
use crate::backend::{BackendError, Receipt};
use crate::diff::Plan;
use crate::model::Family;

impl Nftables {
    /// Makes the table, in several batches: without hooks first, so that traffic sees all or nothing.
    pub(super) fn cold_start(&mut self, plan: &Plan, receipt: &mut Receipt) -> Result<(), BackendError> {
        let result = self.build(plan, receipt);
        if result.is_err() {
            // What is there has no hooks; nothing is lost with it.
            let _ = self.send_ops(plan.family, vec![Op::DeleteTable], receipt);
            self.forget(plan.family);
        }
        result
    }

    fn build(&mut self, plan: &Plan, receipt: &mut Receipt) -> Result<(), BackendError> {
        let family = plan.family;
        let settings = self.table(family).settings.clone();
        let skeleton = steps::skeleton(&settings, plan, self.table(family).owned);
        for part in skeleton.ops.chunks(SKELETON_PER_BATCH) {
            self.send_ops(family, part.to_vec(), receipt)?;
        }
        for run in steps::cut(plan, self.chunk()) {
            let step = steps::element_step(&settings, plan, run, &self.table(family).sticky);
            self.send(&step, receipt)?;
        }
        self.send_ops(family, steps::hook_ops(&settings), receipt)?;
        let table = self.table(family);
        (table.chains, table.sizes, table.condition) = (skeleton.chains, skeleton.sizes, Condition::Ready);
        table.protected = table.owned;
        Ok(())
    }

    /// Replaces the table in one transaction: traffic sees the old one or the new one.
    pub(super) fn replace(&mut self, plan: &Plan, receipt: &mut Receipt) -> Result<(), BackendError> {
        let family = plan.family;
        let settings = self.table(family).settings.clone();
        let skeleton = steps::skeleton(&settings, plan, self.table(family).owned);
        let mut step = Step::shared(&settings, vec![Op::DeleteTable]);
        step.transaction.ops.extend(skeleton.ops);
        self.table(family).sticky = Objects::default();
        step.append(steps::element_step(&settings, plan, 0..plan.changes.len(), &Objects::default()));
        step.transaction.ops.extend(steps::hook_ops(&settings));
        self.table(family).counts.clear();
        match self.send(&step, receipt) {
            Err(BackendError::Refused { errno, .. } | BackendError::Io { source: errno, .. })
                if errno.raw_os_error() == Some(nix::libc::EMSGSIZE) =>
            {
                warn!(
                    %family,
                    "the {family} table is too large to be replaced at once with this socket's send buffer \
                     (raise net.core.wmem_max): it is removed and made again"
                );
                self.send_ops(family, vec![Op::DeleteTable], receipt)?;
                self.cold_start(plan, receipt)
            }
            Ok(()) => {
                let table = self.table(family);
                (table.chains, table.sizes, table.condition) =
                    (skeleton.chains, skeleton.sizes, Condition::Ready);
                table.protected = table.owned;
                Ok(())
            }
            error => error,
        }
    }

    /// Writes the difference into a table in order.
    pub(super) fn update(&mut self, plan: &Plan, receipt: &mut Receipt) -> Result<(), BackendError> {
        let family = plan.family;
        let (owned, chunk) = (self.table(family).owned, self.chunk());
        self.grow(plan, receipt)?;
        let table = self.table(family);
        let needed = steps::needed_chains(plan);
        let mut prefix = Vec::new();
        if table.condition == Condition::Orphan {
            prefix.push(Op::AddTable { owned });
        }
        let standing = steps::standing(plan, &mut table.strays);
        let runs = steps::cut(plan, chunk);
        // A cold start that was cut short lacks its hooks: they come last again.
        let (first_ops, last_ops) = match table.repairs.ops() {
            ops if runs.len() > 1 => (Vec::new(), ops),
            ops => (ops, Vec::new()),
        };
        prefix.extend(first_ops);
        prefix.extend(steps::stray_ops(&table.strays));
        prefix.extend(steps::chain_ops(&needed, &table.chains, &table.settings));
        let settings = table.settings.clone();
        let mut step = Step::shared(&settings, prefix);
        let (first, rest) = runs.split_first().map_or((0..0, &[][..]), |(first, rest)| (first.clone(), rest));
        step.append(steps::element_step(&settings, plan, first, &self.table(family).sticky));
        step.skip(&standing);
        self.send(&step, receipt)?;
        self.adopted(family);
        let table = self.table(family);
        table.strays.clear();
        table.chains.extend(with_prerequisites(&needed));
        for run in rest {
            let mut step = steps::element_step(&settings, plan, run.clone(), &self.table(family).sticky);
            step.skip(&standing);
            self.send(&step, receipt)?;
        }
        self.send_ops(family, last_ops, receipt)?;
        self.table(family).repairs = Repairs::default();
        Ok(())
    }

    /// The table was written by us; one that nobody owned is ours from that on.
    fn adopted(&mut self, family: Family) {
        let table = self.table(family);
        table.protected |= table.condition == Condition::Orphan;
        table.condition = Condition::Ready;
    }

    /// Raises the size of sets that the plan would fill, in a batch of its own: the kernel counts with
    /// the new size only from the next one on.
    fn grow(&mut self, plan: &Plan, receipt: &mut Receipt) -> Result<(), BackendError> {
        let table = self.table(plan.family);
        let mut counts = table.counts.clone();
        for (set, added) in steps::added_elements(plan) {
            *counts.entry(set).or_insert(0) += added;
        }
        let full = |(set, size): &(Set, u32)| {
            let count = counts.get(set).copied().unwrap_or(0);
            table.sizes.get(set).is_some_and(|limit| usize::try_from(*limit).is_ok_and(|limit| count > limit))
                && table.sizes.get(set) < Some(size)
        };
        let raised: Vec<(Set, u32)> = steps::sizes_for(&counts).into_iter().filter(full).collect();
        let mut ops: Vec<Op> = raised.iter().map(|(set, size)| Op::AddSet(*set, Some(*size))).collect();
        let adopts = !ops.is_empty() && table.condition == Condition::Orphan;
        if adopts {
            ops.insert(0, Op::AddTable { owned: table.owned });
        }
        self.send_ops(plan.family, ops, receipt)?;
        if adopts {
            self.adopted(plan.family);
        }
        self.table(plan.family).sizes.extend(raised);
        Ok(())
    }
}
