//! The nftables backend at work: reads the tables, sends transactions, keeps count. EDGE.
//!
//! Every decision about contents is made before (`steps.rs`); here is only what goes when, and what
//! follows if the kernel refuses.

mod errors;
mod tidy;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use ipnet::IpNet;
use tracing::{debug, info, trace, warn};

use errors::{
    busy, is_full, is_unknown_construct, is_unknown_flag, open_error, read_error, refused, unsupported,
};

use super::connection::Connection;
use super::element::Element;
use super::encode::Batch;
use super::names::{ServiceChain, Set};
use super::rebuild::rebuild;
use super::ruleset::Settings;
use super::state::{self, HeldBy, Installed};
use super::steps::{self, Step};
use super::sticky::{Memory, Objects};
use super::transaction::Op;
use super::wire;
use crate::backend::{Backend, BackendError, Receipt};
use crate::config::Config;
use crate::desired::{Owner, Row};
use crate::diff::Plan;
use crate::model::Family;

/// Elements in one batch, roughly: chunks of 5,000 load faster than one big batch, and no commit holds
/// the kernel's lock for more than a few milliseconds (design, "Cold start").
const CHUNK: usize = 5000;
/// Bytes that an element may need, for sockets with a small send buffer.
const ELEMENT_BYTES: usize = 120;
/// Chains in one batch of a cold start; one needs up to 1 KiB.
const CHAINS_PER_BATCH: usize = 300;

/// The nftables mode: one table per family, all of it through one socket.
#[derive(Debug)]
pub struct Nftables {
    connection: Connection,
    tables: [Table; 2],
}

/// What is known of one family's table.
#[derive(Debug)]
struct Table {
    settings: Settings,
    condition: Condition,
    chains: BTreeSet<ServiceChain>,
    sizes: BTreeMap<Set, u32>,
    counts: BTreeMap<Set, usize>,
    strays: Vec<Element>,
    /// A set is full and the kernel has not raised its size (Linux 6.1 does not): only a new table
    /// helps.
    outgrown: bool,
    /// Whether the table is made so that only our socket may change it; false once the kernel has
    /// refused that (Linux before 6.9).
    owned: bool,
    sticky: Objects,
    remembered: tidy::Remembered,
    /// What the counter of clients that were not remembered said last.
    not_remembered: Option<u64>,
}

/// What has to happen before the next plan can be written.
#[derive(Debug, PartialEq, Eq)]
enum Condition {
    /// The table has to be made.
    Absent,
    /// The table has to be replaced as a whole.
    Unfit,
    /// The table has to be taken over from a shunt that has ended.
    Orphan,
    /// Nothing can be written: the table belongs to another process, with this netlink port.
    Foreign(u32),
    /// Nothing.
    Ready,
}

impl Nftables {
    /// Opens the conversation with the kernel.
    ///
    /// # Errors
    /// [`BackendError::Privilege`], [`BackendError::Unsupported`], or what the kernel says.
    pub fn open(config: &Config) -> Result<Self, BackendError> {
        let mut connection = Connection::open().map_err(open_error)?;
        connection.generation().map_err(open_error)?;
        let table = |family| Table {
            settings: Settings::new(config, family),
            condition: Condition::Absent,
            chains: BTreeSet::new(),
            sizes: BTreeMap::new(),
            counts: BTreeMap::new(),
            strays: Vec::new(),
            outgrown: false,
            owned: true,
            sticky: Objects::default(),
            remembered: tidy::Remembered::default(),
            not_remembered: None,
        };
        Ok(Self { connection, tables: Family::ALL.map(table) })
    }

    fn table(&mut self, family: Family) -> &mut Table {
        match family {
            Family::V4 => &mut self.tables[0],
            Family::V6 => &mut self.tables[1],
        }
    }

    /// Sends one step; an empty one is not sent.
    fn send(&mut self, step: &Step, receipt: &mut Receipt) -> Result<(), BackendError> {
        if step.transaction.is_empty() {
            return Ok(());
        }
        trace!(transaction = %step.transaction, "sending");
        let batch = Batch::encode(&step.transaction);
        let start = Instant::now();
        self.connection.commit(&batch).map_err(|refusal| refused(step, refusal))?;
        let operations = step.transaction.ops.len();
        receipt.add(operations, batch.bytes().len(), start.elapsed());
        debug!(family = %step.transaction.family, operations, bytes = batch.bytes().len(), "committed");
        let table = self.table(step.transaction.family);
        let counts = &mut table.counts;
        for op in &step.transaction.ops {
            table.sticky.record(op);
            match op {
                Op::AddElement(element) => *counts.entry(element.set).or_insert(0) += 1,
                Op::DeleteElement(element) => {
                    let count = counts.entry(element.set).or_insert(0);
                    *count = count.saturating_sub(1);
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn send_ops(&mut self, family: Family, ops: Vec<Op>, receipt: &mut Receipt) -> Result<(), BackendError> {
        let step = Step::shared(&self.table(family).settings, ops);
        self.send(&step, receipt)
    }

    /// Elements that may go into one batch.
    fn chunk(&self) -> usize {
        CHUNK.min(self.connection.most_bytes() / ELEMENT_BYTES).max(1)
    }

    /// Makes the table, in several batches: without hooks first, so that traffic sees all or nothing.
    fn cold_start(&mut self, plan: &Plan, receipt: &mut Receipt) -> Result<(), BackendError> {
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
        for part in skeleton.ops.chunks(CHAINS_PER_BATCH) {
            self.send_ops(family, part.to_vec(), receipt)?;
        }
        for run in steps::cut(plan, self.chunk()) {
            let step = steps::element_step(&settings, plan, run, &self.table(family).sticky);
            self.send(&step, receipt)?;
        }
        self.send_ops(family, steps::hook_ops(&settings), receipt)?;
        let table = self.table(family);
        (table.chains, table.sizes, table.condition) = (skeleton.chains, skeleton.sizes, Condition::Ready);
        Ok(())
    }

    /// Replaces the table in one transaction: traffic sees the old one or the new one.
    fn replace(&mut self, plan: &Plan, receipt: &mut Receipt) -> Result<(), BackendError> {
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
                Ok(())
            }
            error => error,
        }
    }

    /// Writes the difference into a table in order.
    fn update(&mut self, plan: &Plan, receipt: &mut Receipt) -> Result<(), BackendError> {
        let family = plan.family;
        let (owned, chunk) = (self.table(family).owned, self.chunk());
        self.grow(plan, receipt)?;
        let table = self.table(family);
        let needed = steps::needed_chains(plan);
        let mut prefix = Vec::new();
        if table.condition == Condition::Orphan {
            prefix.push(Op::AddTable { owned });
        }
        prefix.extend(steps::stray_ops(&table.strays));
        prefix.extend(steps::chain_ops(&needed, &table.chains, &table.settings));
        let settings = table.settings.clone();
        let mut step = Step::shared(&settings, prefix);
        let runs = steps::cut(plan, chunk);
        let (first, rest) = runs.split_first().map_or((0..0, &[][..]), |(first, rest)| (first.clone(), rest));
        step.append(steps::element_step(&settings, plan, first, &self.table(family).sticky));
        self.send(&step, receipt)?;
        let table = self.table(family);
        table.condition = Condition::Ready;
        table.strays.clear();
        table.chains.extend(super::ruleset::with_prerequisites(&needed));
        for run in rest {
            let step = steps::element_step(&settings, plan, run.clone(), &self.table(family).sticky);
            self.send(&step, receipt)?;
        }
        Ok(())
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
        if !ops.is_empty() && table.condition == Condition::Orphan {
            ops.insert(0, Op::AddTable { owned: true });
            table.condition = Condition::Ready;
        }
        self.send_ops(plan.family, ops, receipt)?;
        self.table(plan.family).sizes.extend(raised);
        Ok(())
    }

    fn forget(&mut self, family: Family) {
        let table = self.table(family);
        table.condition = Condition::Absent;
        table.chains.clear();
        table.sizes.clear();
        table.counts.clear();
        table.strays.clear();
        table.sticky = Objects::default();
        table.remembered = tidy::Remembered::default();
    }
}

impl Backend for Nftables {
    fn set_node_cidrs(&mut self, cidrs: &[IpNet]) {
        for table in &mut self.tables {
            table.settings.set_local(cidrs);
        }
    }

    fn read(&mut self, family: Family) -> Result<Vec<(Owner, Row)>, BackendError> {
        self.forget(family);
        if std::mem::take(&mut self.table(family).outgrown) {
            info!(%family, "a set is full and this kernel does not enlarge it: the table is replaced");
            self.table(family).condition = Condition::Unfit;
            return Ok(Vec::new());
        }
        if self.table(family).not_remembered.is_none() {
            // What was counted before this process is not told again.
            self.count_not_remembered(family)?;
        }
        let settings = self.table(family).settings.clone();
        let installed = state::read(&mut self.connection, &settings).map_err(read_error)?;
        let table = self.table(family);
        match installed {
            Installed::Absent => Ok(Vec::new()),
            Installed::Unfit(why) => {
                info!(%family, "the nftables table that is there is replaced: {why}");
                table.condition = Condition::Unfit;
                Ok(Vec::new())
            }
            Installed::Fit(found) => {
                for element in &found.elements {
                    *table.counts.entry(element.set).or_insert(0) += 1;
                }
                let lasts = |memory: &Memory| found.sticky.map(memory).map(|map| map.seconds);
                let rebuilt = rebuild(found.elements, lasts);
                table.condition = match found.held_by {
                    HeldBy::Nobody => Condition::Ready,
                    HeldBy::Orphan => Condition::Orphan,
                    HeldBy::Other(port) => Condition::Foreign(port),
                };
                (table.chains, table.sizes, table.strays) = (found.chains, found.sizes, rebuilt.strays);
                table.remembered =
                    tidy::Remembered::read(&rebuilt.rows, &found.sticky, table.settings.affinity_clients);
                table.sticky = found.sticky;
                if !table.strays.is_empty() {
                    warn!(%family, elements = table.strays.len(), "elements that belong to no whole row are replaced");
                }
                Ok(rebuilt.rows)
            }
        }
    }

    fn apply(&mut self, plan: &Plan) -> Result<Receipt, BackendError> {
        let mut receipt = Receipt::default();
        let write = match self.table(plan.family).condition {
            Condition::Foreign(port) => return Err(busy(plan.family, port)),
            Condition::Absent => Self::cold_start,
            Condition::Unfit => Self::replace,
            Condition::Orphan | Condition::Ready => Self::update,
        };
        let was_read = self.table(plan.family).condition != Condition::Ready;
        let mut result = write(self, plan, &mut receipt);
        if result.as_ref().is_err_and(is_unknown_flag) && self.table(plan.family).owned {
            self.table(plan.family).owned = false;
            result = write(self, plan, &mut receipt);
            match &result {
                Ok(()) => {
                    info!(
                        "this kernel cannot protect a table against others (Linux 6.9 can): going on without"
                    );
                }
                Err(_) => self.table(plan.family).owned = true,
            }
        }
        if was_read {
            wire::release_unused_memory();
        }
        if let Err(error) = &result {
            self.table(plan.family).outgrown = is_full(error);
            if is_unknown_flag(error) || (was_read && is_unknown_construct(error)) {
                result = Err(unsupported(plan.family, error));
            }
        }
        result?;
        // The plan is carried out, whatever becomes of this; what is not tidied now is tidied next time.
        if let Err(error) = self.tidy(plan, &mut receipt) {
            warn!(family = %plan.family, "programmed, but tidying up failed and is tried again later: {error}");
        }
        Ok(receipt)
    }

    fn not_remembered(&mut self, family: Family) -> Result<u64, BackendError> {
        self.count_not_remembered(family)
    }

    fn cleanup(&mut self, family: Family) -> Result<bool, BackendError> {
        match state::held_by(&mut self.connection, family).map_err(read_error)? {
            None => return Ok(false),
            Some(HeldBy::Other(port)) => return Err(busy(family, port)),
            Some(HeldBy::Nobody | HeldBy::Orphan) => {}
        }
        self.send_ops(family, vec![Op::DeleteTable], &mut Receipt::default())?;
        self.forget(family);
        Ok(true)
    }
}
