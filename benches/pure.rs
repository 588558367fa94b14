//! How long the pure parts take, one by one: `cargo bench --bench pure`. Time in the kernel, and from
//! an event to its commit, is what `scripts/bench` measures.
#![allow(clippy::expect_used, reason = "this is a benchmark")]

mod made_up;

use std::hint::black_box;

use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use made_up::{context, service, service_object, slice, slice_object};
use shunt::backend::nftables::encode::Batch;
use shunt::backend::nftables::rebuild::rebuild;
use shunt::backend::nftables::ruleset::Settings;
use shunt::backend::nftables::steps::element_step;
use shunt::backend::nftables::sticky::Objects;
use shunt::backend::nftables::transaction::Op;
use shunt::config::{Config, NodePortAddresses};
use shunt::desired::ledger::seniority;
use shunt::desired::{Context, Ledger, Owner, Row, service_rows};
use shunt::model::{Family, ObjectName, Store, Touched, Update};

/// Endpoints of the Service in question.
const ENDPOINTS: [usize; 3] = [1, 10, 100];
/// Services of a cluster as a whole.
const SERVICES: usize = 1000;

/// A store that knows this many Services with 10 endpoints each.
fn store(services: usize, endpoints: usize) -> Store {
    let (mut store, context) = (Store::default(), context());
    for number in 0..services {
        for object in
            [service_object(&context, &service(number)), slice_object(&context, &slice(number, endpoints, 0))]
        {
            store.apply(Update::Set(object), &mut Touched::default());
        }
    }
    store
}

fn name(number: usize) -> ObjectName {
    ObjectName::new("bench", &format!("service-{number:05}"))
}

fn rows(store: &Store, number: usize) -> Vec<Row> {
    let context = Context { node_ips: Vec::new(), node_port_addresses: NodePortAddresses::Primary };
    service_rows(store, &name(number), Family::V4, &context)
}

/// A ledger in which all Services of the store are proposed.
fn ledger(store: &Store, services: usize) -> Ledger {
    let mut ledger = Ledger::new(Family::V4);
    for number in 0..services {
        propose(&mut ledger, number, rows(store, number));
    }
    ledger
}

fn propose(ledger: &mut Ledger, number: usize, rows: Vec<Row>) {
    ledger.propose(&Owner::Service(name(number)), rows, |owner| seniority(owner, None));
}

/// JSON of an EndpointSlice -> model.
fn convert(c: &mut Criterion) {
    let context = context();
    let mut group = c.benchmark_group("convert");
    for endpoints in ENDPOINTS {
        let text = slice(1, endpoints, 0);
        group.throughput(Throughput::Bytes(text.len() as u64));
        group.bench_with_input(BenchmarkId::from_parameter(endpoints), &text, |b, text| {
            b.iter(|| slice_object(&context, black_box(text)));
        });
    }
}

/// One Service of the store -> its rows.
fn compile(c: &mut Criterion) {
    let mut group = c.benchmark_group("compile");
    for endpoints in ENDPOINTS {
        let store = store(10, endpoints);
        group.bench_function(BenchmarkId::from_parameter(endpoints), |b| {
            b.iter(|| rows(&store, black_box(5)));
        });
    }
}

/// The rows of one Service with another endpoint -> the plan, among [`SERVICES`]; and all of them at once.
fn diff(c: &mut Criterion) {
    let mut group = c.benchmark_group("diff");
    for endpoints in ENDPOINTS {
        let (mut before, context) = (store(SERVICES, endpoints), context());
        let mut ledger = ledger(&before, SERVICES);
        ledger.commit();
        let versions = [1, 2].map(|version| {
            let changed = slice_object(&context, &slice(5, endpoints, version));
            before.apply(Update::Set(changed), &mut Touched::default());
            rows(&before, 5)
        });
        let mut turn = versions.iter().cycle();
        group.bench_function(BenchmarkId::new("one replaced", endpoints), |b| {
            b.iter_batched(
                || turn.next().cloned().unwrap_or_default(),
                |rows| {
                    propose(&mut ledger, 5, rows);
                    let plan = ledger.plan();
                    ledger.commit();
                    plan
                },
                BatchSize::SmallInput,
            );
        });
    }
    let all = store(SERVICES, 10);
    group.throughput(Throughput::Elements(SERVICES as u64));
    group.bench_function("all new", |b| b.iter(|| ledger(&all, SERVICES).plan()));
}

/// A plan of [`SERVICES`] with 10 endpoints each -> the bytes of the transaction, and elements -> rows.
fn encode(c: &mut Criterion) {
    let settings = Settings::new(&Config::default(), Family::V4);
    let plan = ledger(&store(SERVICES, 10), SERVICES).plan();
    let step = || element_step(&settings, &plan, 0..plan.changes.len(), &Objects::default());
    let mut group = c.benchmark_group("encode");
    group.throughput(Throughput::Elements(SERVICES as u64));
    group.bench_function("steps", |b| b.iter(step));
    let made = step();
    group.bench_function("bytes", |b| b.iter(|| Batch::encode(black_box(&made.transaction))));
    let elements = made.transaction.ops.iter().filter_map(|op| match op {
        Op::AddElement(element) => Some(element.clone()),
        _ => None,
    });
    let elements: Vec<_> = elements.collect();
    group.bench_function("back to rows", |b| {
        b.iter_batched(|| elements.clone(), |elements| rebuild(elements, |_| None), BatchSize::LargeInput);
    });
}

criterion_group!(benches, convert, compile, diff, encode);
criterion_main!(benches);
