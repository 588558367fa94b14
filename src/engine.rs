//! The engine: the one owner of all state. Updates go in, plans come out. No threads, no clock, no
//! channels: `run.rs` has those.

mod drift;
mod lane;
mod triggers;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::{Duration, Instant, SystemTime};

use ipnet::IpNet;
use tracing::{debug, warn};

use crate::backend::{Backend, BackendError, Receipt};
use crate::config::{Config, DetectLocal};
use crate::desired::flows::Flows;
use crate::desired::{Context, Ledger, Owner};
use crate::diff::Plan;
use crate::health::{HealthView, Programming};
use crate::model::store::Counts;
use crate::model::{Family, ServiceName, Store, Touched, Update};
use crate::notices::Notice;
use crate::policy::stale::Review;
use crate::reviews::Reviews;
use crate::schedule::Retry;
use drift::Drifting;
use lane::{Lane, RETRY};
use triggers::Triggers;

/// How long the Node and the ServiceCIDRs are waited for once Services and slices are listed.
const PATIENCE: Duration = Duration::from_secs(5);

/// All state of a node, and the backend that programs it.
pub struct Engine<B> {
    backend: B,
    store: Store,
    context: Context,
    /// The node IP of its family, whatever the sources say.
    bind_address: Option<IpAddr>,
    /// The node's pod CIDRs as the backend knows them, where `detectLocalMode: NodeCIDR` asks for them.
    node_cidrs: Option<Box<[IpNet]>>,
    /// What has changed since rows were compiled last.
    touched: Touched,
    /// When the oldest update that is not programmed yet arrived.
    waiting_since: Option<Instant>,
    /// Since when the node is not programmed as it should be, apart from Services that the kernel refuses.
    behind_since: Option<Instant>,
    /// Which changes in the cluster wait to be programmed.
    triggers: Triggers,
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
    pub written: Vec<Written>,
    /// The changes in the cluster that are programmed now and were not before: the times at which they
    /// happened there.
    pub triggered: Vec<(Family, SystemTime)>,
    /// Failures, each to be tried again.
    pub failures: Vec<Family>,
    /// What others had changed and is put right now, with the operations that it took.
    pub put_right: Vec<(Family, usize)>,
    /// If everything is programmed now: when the oldest of the updates in it arrived.
    pub programmed_since: Option<Instant>,
    /// What operators must see.
    pub notices: Vec<Notice>,
    /// Whether everything is programmed now, apart from Services that the kernel refuses.
    pub kept_up: bool,
}

/// What one sync wrote in one family.
#[derive(Clone, Debug)]
pub struct Written {
    /// The family.
    pub family: Family,
    /// What the backend says.
    pub receipt: Receipt,
    /// How many rows the plan added, changed or removed.
    pub changes: usize,
    /// Whether what is installed was read back and compared as a whole.
    pub full: bool,
}

impl<B: Backend> Engine<B> {
    /// An engine that knows nothing yet.
    pub fn new(backend: B, config: &Config) -> Self {
        let lane = |family| Lane {
            family,
            ledger: Ledger::new(family),
            unread: true,
            ahead: false,
            retry: Retry::new(RETRY.0, RETRY.1),
            refused: BTreeMap::new(),
            conflicts: BTreeMap::new(),
            notices: Vec::new(),
            reviews: Reviews::new(Flows::new(family, config.node_port_addresses.matches_all(family))),
            given_up: false,
            drifting: Drifting::default(),
        };
        Self {
            backend,
            store: Store::default(),
            context: Context {
                node_ips: Vec::new(),
                node_port_addresses: config.node_port_addresses.clone(),
            },
            bind_address: config.bind_address,
            node_cidrs: (config.detect_local == DetectLocal::NodeCidr).then(Box::default),
            touched: Touched { everything: true, node: true, ..Touched::default() },
            waiting_since: None,
            behind_since: None,
            triggers: Triggers::default(),
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
            self.triggers.take(&update, &self.store);
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
        if self.started && self.waiting_since.is_some() {
            // before, nothing could be programmed: how long the API server took is no delay of ours
            self.waiting_since = Some(now);
        }
        self.started
    }

    /// Tells the backend of other pod CIDRs of the node: all of its static rules may look different.
    fn follow_node_cidrs(&mut self) {
        let Some((known, node)) = self.node_cidrs.as_mut().zip(self.store.node()) else { return };
        if *known != node.pod_cidrs && !node.pod_cidrs.is_empty() {
            known.clone_from(&node.pod_cidrs);
            self.backend.set_node_cidrs(known);
            self.lanes.iter_mut().for_each(|lane| (lane.unread, lane.ahead) = (true, false));
        }
    }

    /// Reads what is installed while the sources still list what should be: the first sync has that
    /// less to do. Without effect where only the Node tells what to expect.
    pub fn read_ahead(&mut self) {
        if self.node_cidrs.is_none() {
            self.lanes.iter_mut().for_each(|lane| lane.read_ahead(&mut self.backend));
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
            if lane.keeps_up() {
                let refused = |name: &_| lane.refused.contains_key(&Owner::Service(ServiceName::clone(name)));
                synced.triggered.extend(self.triggers.programmed(lane.family, refused));
            }
            synced.notices.append(&mut lane.notices);
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

    /// How many Services the kernel refuses.
    #[must_use]
    pub fn refused_counts(&self) -> [(Family, usize); 2] {
        std::array::from_fn(|index| (self.lanes[index].family, self.lanes[index].refused.len()))
    }

    /// How much is known. Cost: a look at every object.
    #[must_use]
    pub fn counts(&self) -> Counts {
        self.store.counts()
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

    /// Looks whether somebody else has changed what is programmed; [`Self::sync`] puts it right. Returns
    /// whether it has to be called.
    pub fn check(&mut self, now: Instant) -> bool {
        let backend = &mut self.backend;
        let mut found = false;
        for lane in &mut self.lanes {
            found |= lane.check(backend, now);
        }
        if found {
            self.behind_since.get_or_insert(now);
        }
        found
    }

    /// See [`Backend::outlives_us`].
    pub fn outlives_us(&self) -> bool {
        self.backend.outlives_us()
    }

    /// See [`Backend::tend`].
    pub fn tend(&mut self) {
        for family in Family::ALL {
            if let Err(error) = self.backend.tend(family) {
                debug!(%family, "to be tried again: {error}");
            }
        }
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
        if let Some(ip) = self.bind_address {
            self.context.node_ips.retain(|other| Family::of(other) != Family::of(&ip));
            self.context.node_ips.push(ip);
        }
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

#[cfg(test)]
mod tests;
