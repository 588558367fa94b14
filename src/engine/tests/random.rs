//! Long random histories: whatever has happened, a node ends up as one that has just been told the truth.

use std::collections::BTreeMap;

use super::*;
use crate::desired::{Choice, Row};
use crate::model::Endpoint;
use crate::testing::{local, with};

const HISTORIES: u64 = 150;
const STEPS: u64 = 60;
const SERVICES: u64 = 5;

/// A stream of numbers that a seed decides (splitmix64).
struct Dice(u64);

impl Dice {
    /// A number below `sides`.
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % sides
    }

    fn once_in(&mut self, times: u64) -> bool {
        self.roll(times) == 0
    }
}

/// What the cluster looks like, as the source knows it.
#[derive(Default)]
struct Cluster {
    services: BTreeMap<u64, Object>,
    slices: BTreeMap<(u64, u64), Object>,
}

impl Cluster {
    fn lists(&self) -> Vec<Update> {
        vec![
            Update::Reset(Kind::Node, vec![]),
            Update::Reset(Kind::ServiceCidr, vec![]),
            Update::Reset(Kind::Service, self.services.values().cloned().collect()),
            Update::Reset(Kind::EndpointSlice, self.slices.values().cloned().collect()),
        ]
    }

    /// Something happens to one object.
    fn change(&mut self, dice: &mut Dice) -> Update {
        let (number, part) = (dice.roll(SERVICES), dice.roll(2));
        let service_name = name(&format!("a/s{number}"));
        match dice.roll(6) {
            0 => {
                self.services.remove(&number);
                Update::Delete(Key::Service(service_name))
            }
            1 => {
                self.slices.remove(&(number, part));
                Update::Delete(Key::EndpointSlice(slice_name(number, part)))
            }
            2 | 3 => {
                let object = Object::Service(service_name, random_service(dice, number));
                self.services.insert(number, object.clone());
                Update::Set(object)
            }
            _ => {
                let slice = slice("http", 80, &random_endpoints(dice));
                let object = Object::EndpointSlice(slice_name(number, part), service_name, slice);
                self.slices.insert((number, part), object.clone());
                Update::Set(object)
            }
        }
    }
}

fn slice_name(number: u64, part: u64) -> crate::model::ObjectName {
    name(&format!("a/s{number}-{part}"))
}

/// A Service whose addresses and ports others may have as well.
fn random_service(dice: &mut Dice, number: u64) -> crate::model::Service {
    let (ip, node_port) = (dice.roll(4), dice.roll(3));
    let mut builder = service(&format!("10.96.0.{ip},fd00::{ip}"));
    if dice.once_in(2) {
        builder = builder.node_port(30000 + u16::try_from(node_port).unwrap());
    }
    if dice.once_in(3) {
        builder = builder
            .external_ips(["192.0.2.1", "2001:db8::1", "10.96.0.1"][usize::try_from(number % 3).unwrap()]);
    }
    if dice.once_in(3) {
        builder = builder.load_balancer_ips("203.0.113.1").source_ranges(&["198.51.100.0/24"]);
    }
    if dice.once_in(3) {
        builder = builder.affinity(60 + u32::try_from(dice.roll(2)).unwrap());
    }
    if dice.once_in(3) {
        builder = builder.external_local();
    }
    if dice.once_in(4) {
        builder = builder.internal_local();
    }
    let mut service = builder.build();
    service.created = i64::try_from(number / 2).unwrap();
    service
}

fn random_endpoints(dice: &mut Dice) -> Vec<Endpoint> {
    let prefix = ["10.1.0.", "fd01::"][usize::try_from(dice.roll(2)).unwrap()];
    (0..dice.roll(4))
        .map(|_| {
            let address = format!("{prefix}{}", 1 + dice.roll(6));
            let there = if dice.once_in(3) { local(&address) } else { endpoint(&address) };
            with(there, |e| e.ready = !dice.once_in(5))
        })
        .collect()
}

/// Something goes wrong in the kernel.
fn trouble(node: &Node, dice: &mut Dice) {
    let family = if dice.once_in(2) { Family::V4 } else { Family::V6 };
    let mut kernel = node.kernel();
    match dice.roll(4) {
        0 => kernel.refuses = Some(Owner::Service(name(&format!("a/s{}", dice.roll(SERVICES))))),
        1 => kernel.refuses = None,
        2 => {
            // somebody takes a row away, which shows when the next batch fails
            let gone =
                kernel.rows.keys().find(|key| crate::testing::backend::key_family(key) == family).copied();
            gone.map(|key| kernel.rows.remove(&key));
            kernel.failures.push_back((family, refusal(family, nix::libc::ENOENT, None)));
        }
        _ => kernel.failures.push_back((family, refusal(family, nix::libc::ENOMEM, None))),
    }
}

/// What is installed, without the order of endpoints and the owners of rows, which the kernel does not see.
fn installed(node: &Node) -> Vec<String> {
    let sorted = |choice: &mut Choice| {
        if let Choice::Endpoints(targets) = choice {
            *targets = targets.iter().collect::<BTreeSet<_>>().into_iter().collect();
        }
    };
    let kernel = node.kernel();
    let line = |(_, row): &(Owner, Row)| {
        let mut row = row.clone();
        if let Row::Frontend(_, forwarding) = &mut row {
            sorted(&mut forwarding.to);
            forwarding.from_outside.iter_mut().for_each(sorted);
        }
        row.to_string()
    };
    kernel.rows.values().map(line).collect()
}

/// Lets all retries come due until nothing is left to do.
fn settle(node: &mut Node) {
    for _ in 0..100 {
        node.sync();
        match node.engine.deadline() {
            Some(due) => node.now = due.max(node.now),
            None => return,
        }
    }
    panic!("never settles");
}

#[test]
fn every_history_ends_as_if_it_had_not_been() {
    for seed in 0..HISTORIES {
        let mut dice = Dice(seed);
        let (mut cluster, mut node) = (Cluster::default(), Node::new());
        node.engine.take(cluster.lists(), node.now);
        for _ in 0..STEPS {
            if dice.once_in(10) {
                trouble(&node, &mut dice);
            }
            if dice.once_in(30) {
                node = Node { now: node.now, ..Node::on(node.kernel.clone()) };
                node.engine.take(cluster.lists(), node.now);
            }
            let updates: Vec<Update> = (0..=dice.roll(3)).map(|_| cluster.change(&mut dice)).collect();
            node.engine.take(if dice.once_in(15) { cluster.lists() } else { updates }, node.now);
            node.sync();
            node.now += Duration::from_millis(10 * dice.roll(100));
        }
        node.kernel().refuses = None;
        settle(&mut node);
        // what was taken away shows with a batch that fails, and for that there has to be one
        while !node.kernel().failures.is_empty() {
            node.engine.take(vec![cluster.change(&mut dice)], node.now);
            settle(&mut node);
        }
        assert!(node.engine.is_settled() && node.engine.refused().is_empty(), "seed {seed}");

        let mut told = Node::new();
        told.engine.take(cluster.lists(), told.now);
        settle(&mut told);
        assert_eq!(installed(&node), installed(&told), "seed {seed}");

        let plans = node.kernel().plans.len();
        let mut restarted = Node::on(node.kernel.clone());
        restarted.engine.take(cluster.lists(), restarted.now);
        settle(&mut restarted);
        assert_eq!(restarted.kernel().plans.len(), plans, "seed {seed}: a restart writes nothing");
    }
}
