//! What a Service and its endpoints cost in memory, and what one change costs in operations, bytes for
//! the kernel and allocations, whatever the size of the cluster. All of that is counted exactly, so
//! nothing here depends on how fast the machine is.
//!
//! One test only: allocations are counted for the whole process.
#![allow(clippy::expect_used, reason = "this is a test")]

#[path = "../benches/made_up/mod.rs"]
mod made_up;

use std::alloc::System;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use ipnet::IpNet;
use made_up::{context, service, service_object, slice, slice_object};
use shunt::backend::nftables::encode::Batch;
use shunt::backend::nftables::ruleset::Settings;
use shunt::backend::nftables::steps::element_step;
use shunt::backend::nftables::sticky::Objects;
use shunt::backend::{Backend, BackendError, Receipt};
use shunt::config::Config;
use shunt::desired::{Owner, Row};
use shunt::diff::Plan;
use shunt::engine::Engine;
use shunt::metrics::Metrics;
use shunt::model::{Family, Key, Kind, ObjectName, Update};
use shunt::source::convert::Context;
use shunt::source::manifests::Manifests;
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, Stats, StatsAlloc};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// A kernel that takes everything and remembers nothing: elements are encoded for it, and counted.
struct Accepting([Settings; 2]);

impl Accepting {
    fn new() -> Self {
        Self(Family::ALL.map(|family| Settings::new(&Config::default(), family)))
    }
}

impl Backend for Accepting {
    fn set_node_cidrs(&mut self, _: &[IpNet]) {}

    fn read(&mut self, _: Family) -> Result<Vec<(Owner, Row)>, BackendError> {
        Ok(Vec::new())
    }

    fn apply(&mut self, plan: &Plan) -> Result<Receipt, BackendError> {
        let settings = &self.0[usize::from(plan.family == Family::V6)];
        let step = element_step(settings, plan, 0..plan.changes.len(), &Objects::default());
        let batch = Batch::encode(&step.transaction);
        let mut receipt = Receipt::default();
        receipt.add(step.transaction.ops.len(), batch.bytes().len(), Duration::ZERO);
        Ok(receipt)
    }

    fn cleanup(&mut self, _: Family) -> Result<bool, BackendError> {
        Ok(false)
    }
}

/// What a Service takes at rest, and what a change costs, from an API server and from manifests.
#[test]
fn memory_is_that_of_the_cluster_and_a_change_costs_what_it_weighs() {
    // bytes asked of the allocator for each Service; tables grow by doubling, so sizes differ
    let table = [(1_000, 1, 860), (50_000, 1, 740), (10_000, 10, 940), (1_000, 50, 1_670)];
    let mut costs: BTreeMap<usize, Vec<Cost>> = BTreeMap::new();
    let context = context();
    for (services, endpoints, most) in table {
        let (mut engine, bytes) = live(|| engine(&context, services, endpoints));
        let each = bytes / services;
        println!("{services} x {endpoints}: {each} bytes for each Service");

        assert!(each <= most, "{services} x {endpoints}: {each} bytes for each Service, at most {most}");
        let cost = changes(&mut engine, &context, services, endpoints);
        let known = costs.entry(endpoints).or_insert_with(|| cost.clone());
        assert_eq!(*known, cost, "changes cost the same among {services} Services");
    }

    let folder = Folder::with(2_000);
    let (kept, bytes) = live(|| folder.read());
    let each = bytes / 2_000;
    println!("manifests: {each} bytes for each Service and its slice");
    assert!(each <= 700, "{each} bytes for each Service and its slice in the folder, at most 700");
    drop(kept);
}

/// What `fill` returns, and how many bytes of it are left on the heap.
fn live<T>(fill: impl FnOnce() -> T) -> (T, usize) {
    let region = Region::new(ALLOCATOR);
    let made = fill();
    let Stats { bytes_allocated, bytes_deallocated, .. } = region.change();
    (made, bytes_allocated.saturating_sub(bytes_deallocated))
}

/// An engine that has programmed a whole cluster.
fn engine(context: &Context, services: usize, endpoints: usize) -> Engine<Accepting> {
    let mut engine = Engine::new(Accepting::new(), &Config::default());
    let all = (0..services).map(|number| service_object(context, &service(number))).collect();
    engine.take(vec![Update::Reset(Kind::Service, all)], Instant::now());
    let all = (0..services).map(|number| slice_object(context, &slice(number, endpoints, 0))).collect();
    let empty = |kind| Update::Reset(kind, Vec::new());
    let all = Update::Reset(Kind::EndpointSlice, all);
    engine.take(vec![all, empty(Kind::Node), empty(Kind::ServiceCidr)], Instant::now());
    let synced = engine.sync(Instant::now()).expect("nothing final");
    assert!(synced.kept_up && !synced.written.is_empty(), "{synced:?}");
    engine
}

/// What one change costs.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Cost {
    operations: usize,
    bytes: usize,
    allocations: usize,
}

/// One change of each kind, and what it may cost at most: operations, bytes, allocations.
fn changes(
    engine: &mut Engine<Accepting>,
    context: &Context,
    services: usize,
    endpoints: usize,
) -> Vec<Cost> {
    let number = services / 2;
    let set = |text: String| Update::Set(slice_object(context, &text));
    let added = services + 1;
    let service_added =
        || vec![Update::Set(service_object(context, &service(added))), set(slice(added, endpoints, 0))];
    let name = |suffix| ObjectName::new("bench", &format!("service-{added:05}{suffix}"));
    let service_removed = || vec![Update::Delete(Key::Service(name("")))];
    let slice_removed = || vec![Update::Delete(Key::EndpointSlice(name("-x7k2p")))];
    // what is done first makes room in tables, so that the change that counts does not make them grow
    let table = [
        ("an endpoint replaced", vec![set(slice(number, endpoints, 1))], (2, 220, 45)),
        ("an endpoint added", vec![set(slice(number, endpoints + 1, 1))], (3, 360, 45)),
        ("an endpoint removed", vec![set(slice(number, endpoints, 1))], (3, 340, 45)),
        ("the same again", vec![set(slice(number, endpoints, 1))], (0, 0, 0)),
        ("a Service added", service_added(), (2 + endpoints, 380 + 50 * endpoints, 45)),
        ("its endpoints gone", slice_removed(), (2 + endpoints, 340 + 40 * endpoints, 35)),
        ("the Service removed", service_removed(), (2, 200, 25)),
    ];
    let mut costs = Vec::new();
    for (what, updates, (operations, bytes, allocations)) in table {
        let region = Region::new(ALLOCATOR);
        engine.take(updates, Instant::now());
        let synced = engine.sync(Instant::now()).expect("nothing final");
        let allocated = region.change().allocations;
        let receipt = synced.written.first().map(|written| written.receipt).unwrap_or_default();
        let cost = Cost { operations: receipt.operations, bytes: receipt.bytes, allocations: allocated };
        println!("    {what}: {cost:?}");
        assert_eq!(cost.operations, operations, "{what} among {services} x {endpoints}");
        assert!(
            cost.bytes <= bytes,
            "{what} among {services} x {endpoints}: {cost:?}, at most {bytes} bytes"
        );
        let most = allocations + endpoints / 2; // sets of endpoints are trees
        assert!(
            allocated <= most,
            "{what} among {services} x {endpoints}: {cost:?}, at most {most} allocations"
        );
        costs.push(cost);
    }
    costs
}

/// A folder of manifests, deleted at the end.
struct Folder(PathBuf);

impl Folder {
    fn with(services: usize) -> Self {
        let dir = std::env::temp_dir().join(format!("shunt-memory-{}", std::process::id()));
        fs::create_dir_all(&dir).expect("a directory");
        for number in 0..services {
            fs::write(dir.join(format!("service-{number:05}.yaml")), service(number)).expect("a file");
            fs::write(dir.join(format!("slice-{number:05}.yaml")), slice(number, 1, 0)).expect("a file");
        }
        Self(dir)
    }

    /// What is kept of the files; their objects, which the store would have, are dropped.
    fn read(&self) -> Manifests {
        let dir: &Path = &self.0;
        let mut manifests = Manifests::open(dir, made_up::context(), Metrics::default()).expect("a folder");
        let updates = manifests.initial().expect("a list");
        assert_eq!(updates.len(), Kind::ALL.len());
        manifests
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}
