//! The engine: the one owner of all state. Updates go in, plans come out. No threads, no clock, no
//! channels: `run.rs` has those.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use ipnet::IpNet;
use tracing::{debug, info, warn};

use crate::backend::{Backend, BackendError, Receipt};
use crate::config::{Config, DetectLocal};
use crate::desired::flows::Flows;
use crate::desired::ledger::{Conflict, seniority};
use crate::desired::row::{MOST_ENDPOINTS, Row};
use crate::desired::{Context, Ledger, Owner, node_rows, service_rows};
use crate::diff::Plan;
use crate::health::{HealthView, Programming};
use crate::model::{Family, Store, Touched, Update};
use crate::policy::stale::Review;
use crate::reviews::Reviews;
use crate::schedule::Retry;

/// Wait after a failed sync, at first and at most.
const RETRY: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(30));

/// How many Services may be refused one after the other in one sync: each costs reading everything
/// again, and an error that hits so many is no single one's.
const MOST_BLAMED: usize = 8;

/// How long the Node and the ServiceCIDRs are waited for once Services and slices are listed.
const PATIENCE: Duration = Duration::from_secs(5);

/// All state of a node, and the backend that programs it.
pub struct Engine<B> {
    backend: B,
    store: Store,
    context: Context,
    /// The node's pod CIDRs as the backend knows them, where `detectLocalMode: NodeCIDR` asks for them.
    node_cidrs: Option<Box<[IpNet]>>,
    /// What has changed since rows were compiled last.
    touched: Touched,
    /// When the oldest update that is not programmed yet arrived.
    waiting_since: Option<Instant>,
    /// Since when the node is not programmed as it should be, apart from Services that the kernel refuses.
    behind_since: Option<Instant>,
    /// What health servers and dashboards are told.
    health: HealthView,
    lanes: [Lane; 2],
    /// From when on the node is programmed, even if not everything is listed.
    start: Option<Instant>,
    /// It was said that the Node's podCIDRs are waited for.
    told_of_node: bool,
    /// Programming has begun; it does not stop because a source forgets something.
    started: bool,
}

/// What one sync did.
#[derive(Debug, Default)]
pub struct Synced {
    /// What was written, per family that needed something.
    pub written: Vec<(Family, Receipt)>,
    /// Failures, each to be tried again.
    pub failures: Vec<Family>,
    /// If everything is programmed now: when the oldest of the updates in it arrived.
    pub programmed_since: Option<Instant>,
    /// Whether everything is programmed now, apart from Services that the kernel refuses.
    pub kept_up: bool,
}

/// The state of one family; a failure in one does not stop the other.
struct Lane {
    family: Family,
    ledger: Ledger,
    /// What is installed has to be read (again) before the next plan.
    unread: bool,
    retry: Retry,
    /// Owners whose rows the kernel refuses, each with its own retry.
    refused: BTreeMap<Owner, Retry>,
    /// Frontends that owners do not get, as reported.
    conflicts: BTreeMap<Owner, Vec<Conflict>>,
    /// What conntrack has to be compared with.
    reviews: Reviews,
    /// The kernel does not have what this family needs.
    given_up: bool,
}

impl<B: Backend> Engine<B> {
    /// An engine that knows nothing yet.
    pub fn new(backend: B, config: &Config) -> Self {
        let lane = |family| Lane {
            family,
            ledger: Ledger::new(family),
            unread: true,
            retry: Retry::new(RETRY.0, RETRY.1),
            refused: BTreeMap::new(),
            conflicts: BTreeMap::new(),
            reviews: Reviews::new(Flows::new(family, config.node_port_addresses.matches_all(family))),
            given_up: false,
        };
        Self {
            backend,
            store: Store::default(),
            context: Context {
                node_ips: Vec::new(),
                node_port_addresses: config.node_port_addresses.clone(),
            },
            node_cidrs: (config.detect_local == DetectLocal::NodeCidr).then(Box::default),
            touched: Touched { everything: true, node: true, ..Touched::default() },
            waiting_since: None,
            behind_since: None,
            health: HealthView::default(),
            lanes: Family::ALL.map(lane),
            start: None,
            told_of_node: false,
            started: false,
        }
    }

    /// Takes in updates that arrived at `now`. Nothing is programmed yet.
    pub fn take(&mut self, updates: Vec<Update>, now: Instant) {
        for update in updates {
            self.store.apply(update, &mut self.touched);
        }
        if !self.touched.is_empty() {
            self.waiting_since.get_or_insert(now);
            self.behind_since.get_or_insert(now);
        }
    }

    /// Whether enough is known to program the node: Services and EndpointSlices are listed completely,
    /// and the Node and the ServiceCIDRs as well, unless they keep us waiting for [`PATIENCE`]: without
    /// them a restart would first take away what depends on them. With `detectLocalMode: NodeCIDR` the
    /// node's own CIDRs must be known, as in kube-proxy.
    pub fn complete(&mut self, now: Instant) -> bool {
        if self.started {
            return true;
        }
        let node_known = self.store.node().is_some_and(|node| !node.pod_cidrs.is_empty());
        if !self.store.complete() {
            return false;
        }
        if self.node_cidrs.is_some() && !node_known {
            if !std::mem::replace(&mut self.told_of_node, true) {
                warn!(
                    "nothing is programmed before our Node object tells its podCIDRs (detectLocalMode: NodeCIDR): \
                     is there a Node of this name, and does it have some?"
                );
            }
            return false;
        }
        let start = match self.start {
            _ if self.store.all_listed() => now,
            Some(start) => start,
            None => now + PATIENCE,
        };
        self.start = Some(start.min(self.start.unwrap_or(start)));
        self.started = start <= now;
        self.started
    }

    /// Tells the backend of other pod CIDRs of the node: all of its static rules may look different.
    fn follow_node_cidrs(&mut self) {
        let Some((known, node)) = self.node_cidrs.as_mut().zip(self.store.node()) else { return };
        if *known != node.pod_cidrs && !node.pod_cidrs.is_empty() {
            known.clone_from(&node.pod_cidrs);
            self.backend.set_node_cidrs(known);
            self.lanes.iter_mut().for_each(|lane| lane.unread = true);
        }
    }

    /// Programs what has changed, and what failed before and is due. Does nothing before the first
    /// complete list.
    ///
    /// # Errors
    /// Only what no retry can mend; everything else is logged, counted and tried again.
    pub fn sync(&mut self, now: Instant) -> Result<Synced, BackendError> {
        let mut synced = Synced::default();
        if !self.complete(now) {
            return Ok(synced);
        }
        self.follow_node_cidrs();
        self.compile();
        for lane in &mut self.lanes {
            match lane.sync(&mut self.backend, now, &mut synced) {
                Err(BackendError::Unsupported(why)) if lane.family == Family::V6 => {
                    warn!("IPv6 Services are not programmed: {why}");
                    lane.given_up = true;
                }
                result => result?,
            }
        }
        synced.kept_up = self.lanes.iter().all(Lane::keeps_up);
        if synced.kept_up {
            self.behind_since = None;
        } else {
            self.behind_since.get_or_insert(now);
        }
        if self.lanes.iter().all(Lane::is_settled) {
            synced.programmed_since = self.waiting_since.take();
        }
        Ok(synced)
    }

    /// The Services that the kernel refuses, with the families; their retries are on the way.
    #[must_use]
    pub fn refused(&self) -> Vec<String> {
        let of_lane = |lane: &Lane| {
            let family = lane.family;
            lane.refused.keys().map(move |owner| format!("{owner} ({family})")).collect::<Vec<_>>()
        };
        self.lanes.iter().flat_map(of_lane).collect()
    }

    /// Whether everything that is wanted is programmed.
    #[must_use]
    pub fn is_settled(&self) -> bool {
        self.touched.is_empty() && self.lanes.iter().all(Lane::is_settled)
    }

    /// Tells how far programming is; [`Synced::kept_up`] tells of the last sync.
    pub fn tell(&self, programming: &mut Programming) {
        programming.behind_since = self.behind_since;
        programming.leaving = self.store.node().is_some_and(|node| node.leaving);
    }

    /// What health servers and dashboards are told, as of the last sync.
    pub fn health(&mut self) -> &mut HealthView {
        &mut self.health
    }

    /// What [`Backend::not_remembered`] tells of each family.
    pub fn not_remembered(&mut self) -> [(Family, u64); 2] {
        Family::ALL.map(|family| {
            let count = self.backend.not_remembered(family);
            (family, count.inspect_err(|error| debug!(%family, "not counted: {error}")).unwrap_or(0))
        })
    }

    /// When [`Self::sync`] has to be called even if nothing arrives.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        let start = self.start.filter(|_| !self.started);
        self.lanes.iter().flat_map(Lane::deadlines).chain(start).min()
    }

    /// The next part of conntrack to compare with what is programmed, if one is due;
    /// [`Self::reviewed`] has to be told what became of it.
    pub fn next_review(&mut self, now: Instant) -> Option<Review> {
        let store = &self.store;
        self.lanes.iter_mut().find_map(|lane| lane.reviews.next(now, store))
    }

    /// What became of a review that took so long and ended at `now`. Returns the wait before the next
    /// attempt if it failed.
    pub fn reviewed(
        &mut self,
        family: Family,
        succeeded: bool,
        took: Duration,
        now: Instant,
    ) -> Option<Duration> {
        let lane = self.lanes.iter_mut().find(|lane| lane.family == family)?;
        lane.reviews.made(succeeded, took, now)
    }

    /// What a sync would change, compared with what is installed. Changes nothing.
    ///
    /// # Errors
    /// What reading from the backend says.
    pub fn dry_run(&mut self) -> Result<Vec<Plan>, BackendError> {
        self.follow_node_cidrs();
        self.compile();
        let (backend, lanes) = (&mut self.backend, &mut self.lanes);
        let plan = |lane: &mut Lane| {
            lane.ledger.read_back(backend.read(lane.family)?);
            Ok(lane.ledger.plan())
        };
        lanes.iter_mut().map(plan).collect()
    }

    /// Compiles the rows of everything that was touched.
    fn compile(&mut self) {
        if self.touched.is_empty() {
            return;
        }
        let touched = std::mem::take(&mut self.touched);
        self.context.node_ips = self.store.node_ips();
        let mut owners: BTreeSet<Owner> = touched.services.into_iter().map(Owner::Service).collect();
        owners.extend((touched.node || touched.everything).then_some(Owner::Node));
        if touched.everything {
            owners.extend(self.store.service_names().cloned().map(Owner::Service));
        }
        for owner in &owners {
            match owner {
                Owner::Node => self.health.look_at_node(&self.store, &self.context),
                Owner::Service(name) => self.health.look_at(name, &self.store),
            }
        }
        for lane in &mut self.lanes {
            lane.compile(owners.clone(), &self.store, &self.context);
        }
    }
}

impl Lane {
    /// Proposes the rows of `owners`, and of whoever gains or loses a row by that.
    fn compile(&mut self, mut owners: BTreeSet<Owner>, store: &Store, context: &Context) {
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
                warn!(
                    "{owner} has more than {MOST_ENDPOINTS} endpoints: the first {MOST_ENDPOINTS} are used"
                );
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
            warn!(
                "{} and {} both claim {frontend}: the older one, {}, has it; {} gets it when that one goes away",
                conflict.winner, conflict.loser, conflict.winner, conflict.loser
            );
        }
        if !conflicts.is_empty() {
            self.conflicts.insert(owner, conflicts);
        }
    }

    /// Writes what is to be written, unless it failed and is not due yet.
    fn sync(
        &mut self,
        backend: &mut impl Backend,
        now: Instant,
        synced: &mut Synced,
    ) -> Result<(), BackendError> {
        if self.given_up || !self.retry.ready(now) {
            return Ok(());
        }
        let due = self.refused.iter().filter(|(_, retry)| retry.ready(now)).map(|(owner, _)| owner.clone());
        due.collect::<Vec<_>>().into_iter().for_each(|owner| self.ledger.take_up(owner));
        for attempt in 0.. {
            match self.write(backend, now) {
                Ok(receipt) => {
                    self.retry.succeeded();
                    self.refused.retain(|_, retry| !retry.ready(now));
                    synced.written.extend(receipt.map(|receipt| (self.family, receipt)));
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

    /// Reads what is installed where that is not known, and writes the difference; `None` if there was
    /// nothing to write. After a failure nothing is assumed: what is installed is read again.
    fn write(&mut self, backend: &mut impl Backend, now: Instant) -> Result<Option<Receipt>, BackendError> {
        let unread = std::mem::replace(&mut self.unread, true);
        if unread {
            let rows = backend.read(self.family)?;
            debug!(family = %self.family, rows = rows.len(), "read what is installed");
            self.ledger.read_back(rows);
            let not_due = self.refused.iter().filter(|(_, retry)| !retry.ready(now));
            not_due.for_each(|(owner, _)| self.ledger.set_aside(owner));
        }
        let plan = self.ledger.plan();
        let receipt = if unread || !plan.is_empty() {
            debug!(family = %self.family, changes = plan.changes.len(), "plan:\n{plan}");
            Some(backend.apply(&plan)?)
        } else {
            None
        };
        self.reviews.flows.programmed(&plan, unread, |owner| self.ledger.is_planned(owner));
        self.ledger.commit();
        self.unread = false;
        if let Some(Receipt { batches, operations, longest, .. }) = receipt.filter(|_| unread) {
            let rows = self.ledger.desired_rows();
            info!(family = %self.family, rows, batches, operations, ?longest, "programmed");
        }
        Ok(receipt)
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
        true
    }

    fn is_settled(&self) -> bool {
        self.keeps_up() && (self.given_up || self.refused.is_empty())
    }

    /// Whether all is programmed but what the kernel refuses, which no restart of shunt would mend.
    fn keeps_up(&self) -> bool {
        self.given_up || (!self.unread && self.retry.due().is_none())
    }

    /// A family that waits makes its refused Services wait with it.
    fn deadlines(&self) -> impl Iterator<Item = Instant> + '_ {
        let refused = self.refused.values().filter_map(Retry::due).min();
        let retry = self.retry.due().or(refused).filter(|_| !self.given_up);
        retry.into_iter().chain(self.reviews.deadline())
    }
}

/// Whether an endpoint list may have been cut to what a backend can choose from.
fn is_cut(row: &Row) -> bool {
    matches!(row, Row::Frontend(_, forwarding) if forwarding.to.targets().len() == MOST_ENDPOINTS)
}

#[cfg(test)]
mod tests;
