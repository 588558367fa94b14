//! The nftables backend at work: reads the tables, sends transactions, keeps count. EDGE.
//!
//! Every decision about contents is made before (`steps.rs`); here is only what goes when, and what
//! follows if the kernel refuses.

mod check;
pub(super) mod errors;
mod tidy;
mod write;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use ipnet::IpNet;
use tracing::{debug, info, trace, warn};

use errors::{
    busy, is_full, is_unknown_construct, is_unknown_flag, made_by, not_ours, open_error, read_error, refused,
    unsupported,
};

use super::connection::{Connection, Refusal};
use super::element::Element;
use super::encode::Batch;
use super::names::{ServiceChain, Set};
use super::rebuild::rebuild;
use super::repair::Repairs;
use super::ruleset::Settings;
use super::state::{self, HeldBy, Installed};
use super::steps::Step;
use super::sticky::{Memory, Objects};
use super::transaction::Op;
use super::watch::Watch;
use super::wire;
use crate::backend::{Backend, BackendError, Drift, Receipt};
use crate::config::Config;
use crate::desired::{Owner, Row};
use crate::diff::Plan;
use crate::model::Family;

/// Elements in one batch, roughly: chunks of 5,000 load faster than one big batch, and no commit holds
/// the kernel's lock for more than a few milliseconds (design, "Cold start").
const CHUNK: usize = 5000;
/// Bytes that an element may need, for sockets with a small send buffer.
const ELEMENT_BYTES: usize = 120;
/// Sets and chains in one batch of a cold start: for each chain that picks endpoints the kernel walks through
/// the buckets of their map, a millisecond where there is room for 200,000.
const SKELETON_PER_BATCH: usize = 16;
/// Chains of sticky ServicePorts that one batch removes; one needs up to 1 KiB.
const CHAINS_PER_BATCH: usize = 300;

/// The nftables mode: one table per family, all of it through one socket.
#[derive(Debug)]
pub struct Nftables {
    connection: Connection,
    tables: [Table; 2],
    /// What others do, where they can change our tables.
    watch: Option<Watch>,
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
    /// What has to be mended beside elements.
    repairs: Repairs,
    /// Only a new table helps, for this reason.
    hopeless: Option<&'static str>,
    /// Whether a new table is made so that only our socket may change it; false where that is not wanted,
    /// or once the kernel has refused it (Linux before 6.9).
    owned: bool,
    /// Whether only our socket may change the table that is there.
    protected: bool,
    /// This process has written the table: whatever bears its name now replaces ours.
    written: bool,
    looked: check::Looked,
    /// What there was before it was read.
    as_read: Option<check::Mark>,
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
            repairs: Repairs::default(),
            hopeless: None,
            owned: !config.open_tables,
            protected: false,
            written: false,
            looked: check::Looked::default(),
            as_read: None,
            sticky: Objects::default(),
            remembered: tidy::Remembered::default(),
            not_remembered: None,
        };
        Ok(Self { connection, tables: Family::ALL.map(table), watch: None })
    }

    /// Whether a table has our name that shunt has not made.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn is_strangers(&mut self, family: Family) -> Result<bool, BackendError> {
        Ok(state::stranger(&mut self.connection, family).map_err(read_error)?.is_some())
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
        if let Err(refusal) = self.connection.commit(&batch) {
            return Err(self.refused(step, refusal, batch.bytes().len()));
        }
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

    /// What the kernel's refusal of a batch of so many bytes means.
    fn refused(&mut self, step: &Step, refusal: Refusal, bytes: usize) -> BackendError {
        let family = step.transaction.family;
        let owned_by_other = refusal.errno.raw_os_error() == Some(nix::libc::EPERM);
        match owned_by_other.then(|| state::held_by(&mut self.connection, family)) {
            Some(Ok(Some(HeldBy::Other(port)))) => busy(family, port),
            _ => refused(step, refusal, bytes),
        }
    }

    fn send_ops(&mut self, family: Family, ops: Vec<Op>, receipt: &mut Receipt) -> Result<(), BackendError> {
        let step = Step::shared(&self.table(family).settings, ops);
        self.send(&step, receipt)
    }

    /// Elements that may go into one batch.
    fn chunk(&self) -> usize {
        CHUNK.min(self.connection.most_bytes() / ELEMENT_BYTES).max(1)
    }

    fn forget(&mut self, family: Family) {
        let table = self.table(family);
        table.condition = Condition::Absent;
        table.chains.clear();
        table.sizes.clear();
        table.counts.clear();
        table.strays.clear();
        table.repairs = Repairs::default();
        table.protected = false;
        table.as_read = None;
        table.sticky = Objects::default();
        table.remembered = tidy::Remembered::default();
    }
}

impl Table {
    /// Takes note of a table that was found in order, and returns its rows.
    fn take_over(&mut self, found: state::Table) -> Vec<(Owner, Row)> {
        let family = self.settings.family;
        for element in &found.elements {
            *self.counts.entry(element.set).or_insert(0) += 1;
        }
        let lasts = |memory: &Memory| found.sticky.map(memory).map(|map| map.seconds);
        let rebuilt = rebuild(found.elements, lasts);
        self.condition = match found.held_by {
            HeldBy::Nobody | HeldBy::Ours => Condition::Ready,
            HeldBy::Orphan => Condition::Orphan,
            HeldBy::Other(port) => Condition::Foreign(port),
        };
        self.protected = found.held_by == HeldBy::Ours;
        (self.chains, self.sizes, self.strays) = (found.chains, found.sizes, rebuilt.strays);
        self.repairs = found.repairs;
        self.remembered =
            tidy::Remembered::read(&rebuilt.rows, &found.sticky, self.settings.affinity_clients);
        self.sticky = found.sticky;
        // What happens to our own table is told by whoever has asked for the reading.
        if !self.repairs.is_empty() && !self.written {
            warn!(%family, "the nftables table that is there is put right: {}", self.repairs.text());
        }
        if !self.strays.is_empty() && !self.written {
            warn!(%family, elements = self.strays.len(), "elements that belong to no whole row are put right");
        }
        rebuilt.rows
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
        if let Some(why) = self.table(family).hopeless.take() {
            info!(%family, "the nftables table that is there is replaced: {why}");
            self.table(family).condition = Condition::Unfit;
            return Ok(Vec::new());
        }
        if self.table(family).not_remembered.is_none() {
            // What was counted before this process is not told again.
            self.count_not_remembered(family)?;
        }
        let start = self.begin_reading(family)?;
        let mark = self.mark().map_err(read_error)?;
        let settings = self.table(family).settings.clone();
        let installed =
            state::read(&mut self.connection, &settings, self.watch.as_mut()).map_err(read_error)?;
        self.end_reading(family, start);
        let table = self.table(family);
        table.as_read = Some(mark);
        match installed {
            Installed::Absent => Ok(Vec::new()),
            Installed::Stranger(comment) if !table.written => Err(not_ours(family, &comment)),
            Installed::Stranger(comment) => {
                let what = made_by(&comment);
                warn!(%family, "a table of this name that {what} has taken the place of shunt's: it is replaced");
                table.condition = Condition::Unfit;
                Ok(Vec::new())
            }
            Installed::Unfit(why) => {
                info!(%family, "the nftables table that is there is replaced: {why}");
                table.condition = Condition::Unfit;
                Ok(Vec::new())
            }
            Installed::Fit(found) if found.held_by == HeldBy::Orphan && !table.owned => {
                info!(%family, "the nftables table that is there is replaced: others may not change it");
                table.condition = Condition::Unfit;
                Ok(Vec::new())
            }
            Installed::Fit(found) => Ok(table.take_over(*found)),
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
        let mending = !self.table(plan.family).repairs.is_empty();
        let mut result = self.hear_others(plan, &mut receipt, write);
        if result.as_ref().is_err_and(is_unknown_flag) && self.table(plan.family).owned {
            self.table(plan.family).owned = false;
            self.listen();
            result = self.hear_others(plan, &mut receipt, write);
            match &result {
                Ok(()) => {
                    info!(
                        "this kernel cannot protect a table against others (Linux 6.9 can): what they change is \
                         noticed and put right"
                    );
                }
                Err(_) => self.table(plan.family).owned = true,
            }
        }
        if was_read {
            wire::release_unused_memory();
        }
        if let Err(error) = &result {
            self.table(plan.family).hopeless = match error {
                error if is_full(error) => Some("a set is full and this kernel does not enlarge it"),
                _ if mending => Some("it could not be put right in place"),
                _ => None,
            };
            if is_unknown_flag(error) || (was_read && is_unknown_construct(error)) {
                result = Err(unsupported(plan.family, error));
            }
        }
        result?;
        self.table(plan.family).written = true;
        self.listen_if_needed();
        // The plan is carried out, whatever becomes of this; what is not tidied now is tidied next time.
        if let Err(error) = self.tidy(plan, &mut receipt) {
            warn!(family = %plan.family, "programmed, but tidying up failed and is tried again later: {error}");
        }
        Ok(receipt)
    }

    fn check(&mut self, family: Family) -> Result<Option<Drift>, BackendError> {
        self.look(family)
    }

    fn is_as_read(&mut self, family: Family) -> bool {
        let table = self.table(family);
        let as_read = table.as_read.filter(|_| !matches!(table.condition, Condition::Foreign(_)));
        as_read.is_some_and(|mark| self.is_alone_since(mark))
    }

    fn not_remembered(&mut self, family: Family) -> Result<u64, BackendError> {
        if self.table(family).sticky.is_empty() {
            return Ok(0);
        }
        self.count_not_remembered(family)
    }

    fn cleanup(&mut self, family: Family) -> Result<bool, BackendError> {
        match state::held_by(&mut self.connection, family).map_err(read_error)? {
            None => return Ok(false),
            Some(HeldBy::Other(port)) => return Err(busy(family, port)),
            Some(HeldBy::Nobody | HeldBy::Orphan | HeldBy::Ours) => {}
        }
        if let Some(comment) = state::stranger(&mut self.connection, family).map_err(read_error)? {
            return Err(not_ours(family, &comment));
        }
        self.send_ops(family, vec![Op::DeleteTable], &mut Receipt::default())?;
        self.forget(family);
        Ok(true)
    }
}
