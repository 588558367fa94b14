//! One family of the engine: its ledger, its retries, its way to the backend.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use tracing::{debug, info, warn};

use super::drift::Drifting;
use super::{Synced, Written};
use crate::backend::{Backend, BackendError, Receipt};
use crate::desired::ledger::{Conflict, seniority};
use crate::desired::row::{MOST_ENDPOINTS, Row};
use crate::desired::{Context, Ledger, Owner, node_rows, service_rows};
use crate::model::{Family, Store};
use crate::notices::{Notice, Reason};
use crate::reviews::Reviews;
use crate::schedule::Retry;

/// Wait after a failed sync, at first and at most.
pub(super) const RETRY: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(30));

/// The target of log lines that name what a sync changes: shown from -v 2 on (`cli::log_filter`).
const CHANGES: &str = "shunt::changes";

/// How many Services may be refused one after the other in one sync: each costs reading everything
/// again, and an error that hits so many is no single one's.
const MOST_BLAMED: usize = 8;

/// The state of one family; a failure in one does not stop the other.
pub(super) struct Lane {
    pub(super) family: Family,
    pub(super) ledger: Ledger,
    /// What is installed has to be read (again) before the next plan.
    pub(super) unread: bool,
    /// It was read ahead of the first plan.
    pub(super) ahead: bool,
    pub(super) retry: Retry,
    /// Owners whose rows the kernel refuses, each with its own retry.
    pub(super) refused: BTreeMap<Owner, Retry>,
    /// Frontends that owners do not get, as reported.
    pub(super) conflicts: BTreeMap<Owner, Vec<Conflict>>,
    /// What operators must see, until it is taken.
    pub(super) notices: Vec<Notice>,
    /// What conntrack has to be compared with.
    pub(super) reviews: Reviews,
    /// The kernel does not have what this family needs.
    pub(super) given_up: bool,
    /// What others do to it.
    pub(super) drifting: Drifting,
}

impl Lane {
    /// Proposes the rows of `owners`, and of whoever gains or loses a row by that.
    pub(super) fn compile(&mut self, mut owners: BTreeSet<Owner>, store: &Store, context: &Context) {
        // What an owner was last told of its conflicts; settled once everybody has spoken.
        let mut told: BTreeMap<Owner, Vec<Conflict>> = BTreeMap::new();
        while let Some(owner) = owners.pop_first() {
            let rows = match &owner {
                Owner::Node => node_rows(store, self.family, context),
                Owner::Service(name) => service_rows(store, name, self.family, context),
            };
            let created = |owner: &Owner| match owner {
                Owner::Node => None,
                Owner::Service(name) => store.service(name).map(|service| service.created),
            };
            if rows.iter().any(is_cut) {
                let note =
                    format!("has more than {MOST_ENDPOINTS} endpoints: the first {MOST_ENDPOINTS} are used");
                warn!("{owner} {note}");
                self.notices.extend(notice(&owner, Reason::TooManyEndpoints, note));
            }
            // What is wanted now is something else than what was refused.
            self.refused.remove(&owner);
            let proposed = self.ledger.propose(&owner, rows, |owner| seniority(owner, created(owner)));
            owners.extend(proposed.again);
            self.reviews.flows.take(&owner, self.ledger.desired(&owner), store);
            if !proposed.conflicts.is_empty()
                || self.conflicts.contains_key(&owner)
                || told.contains_key(&owner)
            {
                told.insert(owner, proposed.conflicts);
            }
        }
        for (owner, mut conflicts) in told {
            conflicts.retain(|conflict| self.ledger.stands(conflict));
            self.report(owner, conflicts);
        }
    }

    /// Tells once of each frontend that an owner does not get.
    fn report(&mut self, owner: Owner, conflicts: Vec<Conflict>) {
        let known = self.conflicts.remove(&owner).unwrap_or_default();
        for conflict in conflicts.iter().filter(|conflict| !known.contains(conflict)) {
            let crate::desired::RowKey::Frontend(frontend) = conflict.key else { continue };
            let note = format!(
                "{} and {} both claim {frontend}: {} has it, as the older one, or the first by name if equally old; \
                 {} gets it when that one goes away",
                conflict.winner, conflict.loser, conflict.winner, conflict.loser
            );
            warn!("{note}");
            self.notices.extend(notice(&conflict.loser, Reason::FrontendConflict, note));
        }
        if !conflicts.is_empty() {
            self.conflicts.insert(owner, conflicts);
        }
    }

    /// Writes what is to be written, unless it failed and is not due yet.
    pub(super) fn sync(
        &mut self,
        backend: &mut impl Backend,
        now: Instant,
        synced: &mut Synced,
    ) -> Result<(), BackendError> {
        if self.given_up || !self.retry.ready(now) || !self.drifting.ready(now) {
            return Ok(());
        }
        let due = self.refused.iter().filter(|(_, retry)| retry.ready(now)).map(|(owner, _)| owner.clone());
        due.collect::<Vec<_>>().into_iter().for_each(|owner| _ = self.ledger.take_up(owner));
        for attempt in 0.. {
            match self.write(backend, now) {
                Ok(receipt) => {
                    self.retry.succeeded();
                    self.refused.retain(|_, retry| !retry.ready(now));
                    let operations = receipt.as_ref().map_or(0, |written| written.receipt.operations);
                    if receipt.is_some() && self.drifting.put_right(self.family, operations) {
                        synced.put_right.push((self.family, operations));
                    }
                    synced.written.extend(receipt);
                    return Ok(());
                }
                Err(error) if error.is_final() => return Err(error),
                Err(error) => {
                    synced.failures.push(self.family);
                    if attempt >= MOST_BLAMED || !self.set_aside(&error, now) {
                        let (family, wait) = (self.family, self.retry.failed(now));
                        warn!(
                            "{family} is not programmed, what is installed stays; next attempt in {wait:?}: {error}"
                        );
                        return Ok(());
                    }
                }
            }
        }
        Ok(())
    }

    /// Looks whether others have changed what is programmed; returns whether there is something to do.
    pub(super) fn check(&mut self, backend: &mut impl Backend, now: Instant) -> bool {
        // Where everything is read anyway, that will tell.
        let drifts =
            !self.given_up && !self.unread && self.drifting.saw(backend.check(self.family), self.family, now);
        self.unread |= drifts;
        drifts
    }

    /// Reads what is installed where that is not known, and writes the difference; `None` if there was
    /// nothing to write. After a failure nothing is assumed: what is installed is read again.
    fn write(&mut self, backend: &mut impl Backend, now: Instant) -> Result<Option<Written>, BackendError> {
        let unread = std::mem::replace(&mut self.unread, true);
        if unread {
            if !std::mem::take(&mut self.ahead) || !backend.is_as_read(self.family) {
                // What others have done so far is seen by reading.
                self.drifting.saw_more(backend.check(self.family));
                self.read(backend)?;
            }
            let not_due = self.refused.iter().filter(|(_, retry)| !retry.ready(now));
            not_due.for_each(|(owner, _)| self.ledger.set_aside(owner));
        }
        let plan = self.ledger.plan();
        let written = if unread || !plan.is_empty() {
            if !unread {
                debug!(target: CHANGES, family = %self.family, "programming {}", plan.summary());
            }
            debug!(family = %self.family, changes = plan.changes.len(), "plan:\n{plan}");
            let (family, changes) = (self.family, plan.changes.len());
            Some(Written { family, receipt: backend.apply(&plan)?, changes, full: unread })
        } else {
            None
        };
        self.reviews.flows.programmed(&plan, unread, |owner| self.ledger.is_planned(owner));
        self.ledger.commit();
        self.unread = false;
        if let Some(Written { receipt: Receipt { batches, operations, longest, .. }, .. }) =
            written.as_ref().filter(|_| unread && !self.drifting.is_known())
        {
            let rows = self.ledger.desired_rows();
            info!(family = %self.family, rows, batches, operations, ?longest, "programmed");
        }
        Ok(written)
    }

    fn read(&mut self, backend: &mut impl Backend) -> Result<(), BackendError> {
        let rows = backend.read(self.family)?;
        debug!(family = %self.family, rows = rows.len(), "read what is installed");
        self.ledger.read_back(rows);
        Ok(())
    }

    /// Reads what is installed before there is anything to compare it with. An error shows again with
    /// the first plan.
    pub(super) fn read_ahead(&mut self, backend: &mut impl Backend) {
        self.ahead = self.read(backend).is_ok();
    }

    /// Leaves out the Service that the kernel blames, if there is one: the others must not wait for it.
    fn set_aside(&mut self, error: &BackendError, now: Instant) -> bool {
        let Some(owner @ Owner::Service(_)) = error.blamed().filter(|_| !error.is_stale()) else {
            return false;
        };
        let retry = self.refused.entry(owner.clone()).or_insert(Retry::new(RETRY.0, RETRY.1));
        let wait = retry.failed(now);
        warn!(
            "{owner} stays as it was programmed before, the rest goes on; next attempt in {wait:?}: {error}"
        );
        let note = format!("stays as it was programmed before on this node, and is tried again: {error}");
        self.notices.extend(notice(owner, Reason::RefusedByKernel, note));
        true
    }

    pub(super) fn is_settled(&self) -> bool {
        self.keeps_up() && (self.given_up || self.refused.is_empty())
    }

    /// Whether all is programmed but what the kernel refuses, which no restart of shunt would mend.
    pub(super) fn keeps_up(&self) -> bool {
        self.given_up || (!self.unread && self.retry.due().is_none())
    }

    /// A family that waits makes its refused Services wait with it.
    pub(super) fn deadlines(&self) -> impl Iterator<Item = Instant> + '_ {
        let refused = self.refused.values().filter_map(Retry::due).min();
        let retry = self.retry.due().max(self.drifting.due()).or(refused).filter(|_| !self.given_up);
        retry.into_iter().chain(self.reviews.deadline())
    }
}

/// What the Service's Event says.
fn notice(owner: &Owner, reason: Reason, note: String) -> Option<Notice> {
    match owner {
        Owner::Node => None,
        Owner::Service(name) => Some(Notice::of_service(name, reason, note)),
    }
}

/// Whether an endpoint list may have been cut to what a backend can choose from.
fn is_cut(row: &Row) -> bool {
    matches!(row, Row::Frontend(_, forwarding) if forwarding.to.targets().len() == MOST_ENDPOINTS)
}
