//! What a Service and its endpoints cost in memory, and what one change allocates, whatever the size of
//! the cluster. Bytes and counts are exact, so nothing here depends on how fast the machine is.
//!
//! One test only: allocations are counted for the whole process.
#![allow(clippy::expect_used, reason = "this is a test")]

use std::alloc::System;
use std::collections::BTreeSet;
use std::fs;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::time::Instant;

use ipnet::IpNet;
use shunt::backend::{Backend, BackendError, Receipt};
use shunt::config::Config;
use shunt::desired::{Owner, Row};
use shunt::diff::Plan;
use shunt::engine::Engine;
use shunt::metrics::Metrics;
use shunt::model::{Family, Kind, NodeName, Update};
use shunt::source::convert::{Context, Converted};
use shunt::source::manifests::Manifests;
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, Stats, StatsAlloc};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// A kernel that takes everything and remembers nothing.
struct Accepting;

impl Backend for Accepting {
    fn set_node_cidrs(&mut self, _: &[IpNet]) {}

    fn read(&mut self, _: Family) -> Result<Vec<(Owner, Row)>, BackendError> {
        Ok(Vec::new())
    }

    fn apply(&mut self, _: &Plan) -> Result<Receipt, BackendError> {
        Ok(Receipt::default())
    }

    fn cleanup(&mut self, _: Family) -> Result<bool, BackendError> {
        Ok(false)
    }
}

/// What a change costs, and what a Service costs at rest, from an API server and from manifests.
#[test]
fn memory_is_that_of_the_cluster_and_allocations_are_those_of_the_change() {
    // bytes asked of the allocator for each Service; tables grow by doubling, so sizes differ
    let table = [(1_000, 1, 860), (50_000, 1, 740), (10_000, 10, 940), (1_000, 50, 1_670)];
    let mut allocations = BTreeSet::new();
    for (services, endpoints, most) in table {
        let (mut engine, bytes) = live(|| engine_with(services, endpoints));
        let (each, of_change) = (bytes / services, change(&mut engine, services / 2, endpoints));
        println!(
            "{services} x {endpoints}: {each} bytes for each Service, {of_change} allocations for a change"
        );
        assert!(each <= most, "{services} x {endpoints}: {each} bytes for each Service, at most {most}");
        allocations.extend((endpoints == 1).then_some(of_change));
        // sets of endpoints are trees: a few more nodes where a list is long
        assert!(
            of_change <= 30 + endpoints,
            "{services} x {endpoints}: {of_change} allocations for a change"
        );
    }
    assert_eq!(allocations.len(), 1, "a change costs the same among 1,000 and 50,000: {allocations:?}");

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

fn context() -> Context {
    Context::new(NodeName("node-1".into()), None)
}

/// An engine that has programmed a whole cluster.
fn engine_with(services: usize, endpoints: usize) -> Engine<Accepting> {
    let context = context();
    let mut engine = Engine::new(Accepting, &Config::default());
    let ours = |converted: Converted| converted.outcome.and_then(Result::ok).expect("ours");
    let all = (0..services).map(|number| ours(context.service(&read(&service(number))))).collect();
    engine.take(vec![Update::Reset(Kind::Service, all)], Instant::now());
    let all = (0..services).map(|number| ours(context.endpoint_slice(&read(&slice(number, endpoints, 0)))));
    let all = Update::Reset(Kind::EndpointSlice, all.collect());
    let empty = |kind| Update::Reset(kind, Vec::new());
    engine.take(vec![all, empty(Kind::Node), empty(Kind::ServiceCidr)], Instant::now());
    let synced = engine.sync(Instant::now()).expect("nothing final");
    assert!(synced.kept_up && !synced.written.is_empty(), "{synced:?}");
    engine
}

/// How many allocations it takes to replace one endpoint.
fn change(engine: &mut Engine<Accepting>, number: usize, endpoints: usize) -> usize {
    let context = context();
    let mut allocations = Vec::new();
    for version in 1..4 {
        let slice = context.endpoint_slice(&read(&slice(number, endpoints, version)));
        let slice = slice.outcome.and_then(Result::ok).expect("a slice of ours");
        let region = Region::new(ALLOCATOR);
        engine.take(vec![Update::Set(slice)], Instant::now());
        let synced = engine.sync(Instant::now()).expect("nothing final");
        allocations.push(region.change().allocations);
        assert_eq!(synced.written.len(), 1, "{synced:?}");
    }
    assert_eq!(allocations[1], allocations[2], "the same change takes the same");
    allocations[2]
}

fn read<T: serde::de::DeserializeOwned>(text: &str) -> T {
    serde_json::from_str(text).expect("an object")
}

fn service(number: usize) -> String {
    let address = Ipv4Addr::from(0x0a40_0100 + u32::try_from(number).expect("few"));
    format!(
        r#"{{"kind": "Service", "apiVersion": "v1", "metadata": {{"namespace": "bench", "name": "service-{number:05}"}},
        "spec": {{"clusterIPs": ["{address}"], "selector": {{"app": "service-{number:05}"}},
        "ports": [{{"name": "http", "port": 80, "targetPort": 8080}}]}}}}"#
    )
}

/// The slice of a Service; with another version its first endpoint has another address.
fn slice(number: usize, endpoints: usize, version: u32) -> String {
    let first = 0x0b00_0000 + u32::try_from(number * endpoints).expect("few");
    let addresses = (first..).take(endpoints).map(|address| match version {
        0 => Ipv4Addr::from(address),
        _ if address == first => Ipv4Addr::from(0x0c00_0000 + version),
        _ => Ipv4Addr::from(address),
    });
    let endpoints: Vec<String> =
        addresses.map(|address| format!(r#"{{"addresses": ["{address}"], "nodeName": "node-2"}}"#)).collect();
    let labels = format!(r#"{{"kubernetes.io/service-name": "service-{number:05}"}}"#);
    format!(
        r#"{{"kind": "EndpointSlice", "apiVersion": "discovery.k8s.io/v1",
        "metadata": {{"namespace": "bench", "name": "service-{number:05}-x7k2p", "labels": {labels}}},
        "addressType": "IPv4", "endpoints": [{}], "ports": [{{"name": "http", "port": 8080}}]}}"#,
        endpoints.join(", ")
    )
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
        let mut manifests = Manifests::open(dir, context(), Metrics::default()).expect("a folder");
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
