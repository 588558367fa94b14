//! Traffic keeps coming while objects change.

use std::time::{Duration, Instant};

use super::{PORT, on_port, web, web_slice};
use crate::netns::hammer::Hammer;
use crate::netns::nft::nft_ok;
use crate::netns::prelude::*;
use crate::netns::probe::Outcome;

cases![
    other_services_change,
    its_own_endpoints_change,
    the_daemon_restarts,
    killed_at_any_moment,
    killed_in_its_first_start
];

/// Fewer connections than this prove nothing.
const ENOUGH: usize = 50;

/// Clients on the pod and outside in both families.
pub(super) fn hammers(lab: &Lab) -> Vec<(Family, Hammer)> {
    let clients = BOTH.into_iter().flat_map(|family| [Pod3, Client].map(|name| (family, name)));
    clients.map(|(family, name)| (family, Hammer::start(lab, name, Cluster(80), 80, family))).collect()
}

/// Not one connect was refused, lost or stalled, and none went to anyone else.
pub(super) fn assert_undisturbed(hammers: Vec<(Family, Hammer)>, allowed: &[(Name, u16)]) {
    for (family, hammer) in hammers {
        let outcomes = hammer.stop();
        println!("{family:?}: {} connections", outcomes.len());
        assert!(outcomes.len() >= ENOUGH, "only {} connections", outcomes.len());
        let fine = |outcome: &Outcome| match outcome {
            Outcome::Answered(answer) => {
                allowed.iter().any(|(name, port)| name.at(*port, family) == answer.endpoint)
            }
            _ => false,
        };
        let wrong: Vec<&Outcome> = outcomes.iter().filter(|outcome| !fine(outcome)).collect();
        assert!(
            wrong.is_empty(),
            "{family:?}: {} of {}: {:?}",
            wrong.len(),
            outcomes.len(),
            &wrong[..wrong.len().min(3)]
        );
    }
}

fn other_services_change(lab: &mut Lab) {
    let base = || -> Vec<Objects> { vec![web().into(), web_slice([Pod1, Remote1]).into()] };
    lab.apply(&base());
    lab.start(&config(&json!({})));
    let hammers = hammers(lab);
    for round in 0..12_u8 {
        let mut objects = base();
        for n in 0..round % 4 {
            let name = format!("shop/other-{n}");
            let service =
                service(&name).cluster(100 + n + round % 3).port("http", 80).node_port(30100 + u16::from(n));
            objects.push(service.into());
            objects.push(
                slice(&name)
                    .port("http", PORT)
                    .ready([Pod1, Pod2, Remote3].into_iter().skip(usize::from(n)))
                    .into(),
            );
        }
        lab.apply(&objects);
    }
    assert_undisturbed(hammers, &on_port([Pod1, Remote1]));
}

fn its_own_endpoints_change(lab: &mut Lab) {
    let all = [Pod1, Remote1, Pod2, Remote2, Remote3];
    lab.apply(&[web().into(), web_slice(all).into()]);
    lab.start(&config(&json!({})));
    let hammers = hammers(lab);
    for count in [1, 5, 2, 4, 1, 3, 5, 1, 2, 5, 4, 1] {
        lab.apply(&[web().into(), web_slice(all.into_iter().take(count)).into()]);
    }
    assert_undisturbed(hammers, &on_port(all));
    // and nobody gets those that left
    lab.check(&[from(Pod3).tcp(Cluster(80), 80).reaches(on_port([Pod1])).kept()]);
}

fn the_daemon_restarts(lab: &mut Lab) {
    lab.apply(&[web().into(), web_slice([Pod1, Remote1]).into()]);
    lab.start(&config(&json!({})));
    let hammers = hammers(lab);
    for _ in 0..3 {
        lab.stop();
        lab.start_again();
        lab.kill();
        lab.start_again();
    }
    assert_undisturbed(hammers, &on_port([Pod1, Remote1]));
}

/// How often the daemon is killed; `SHUNT_NETNS_KILLS`.
const KILLS: usize = 30;

/// SIGKILL while objects change all the time, at moments that nobody chooses: in the middle of reading files, of
/// programming, of taking over. No connection fails, those that are open live on, and the next daemon takes over
/// what it finds without replacing it.
fn killed_at_any_moment(lab: &mut Lab) {
    let kills = std::env::var("SHUNT_NETNS_KILLS").ok().and_then(|text| text.parse().ok()).unwrap_or(KILLS);
    let all = [Pod1, Remote1, Pod2, Remote2, Remote3];
    lab.apply(&[web().into(), web_slice(all).into()]);
    lab.start(&config(&json!({})));
    let mut open: Vec<_> =
        BOTH.map(|family| (family, lab.connect(Client, Cluster(80), 80, family))).into_iter().collect();
    let hammers = hammers(lab);
    let mut moment = 12_345_u64;
    for round in 0..kills {
        // xorshift: other moments each round, the same in each run
        moment ^= moment << 13;
        moment ^= moment >> 7;
        moment ^= moment << 17;
        let until = Instant::now() + Duration::from_micros(moment % 60_000);
        let mut change = round;
        while Instant::now() < until {
            change += 1;
            lab.write_objects(&changed(change, &all));
        }
        lab.kill();
        lab.write_objects(&changed(change + 1, &all));
        if round % 3 == 2 {
            lab.start_again();
        } else {
            lab.launch();
        }
    }
    lab.apply(&[web().into(), web_slice(all).into()]);
    assert_undisturbed(hammers, &on_port(all));
    for (family, (connection, (name, port))) in &mut open {
        let answer = connection.ask().expect("what was open lives on");
        assert_eq!(answer.endpoint, name.at(*port, *family));
    }
    lab.check(&[from(Pod3).tcp(Cluster(80), 80).reaches(on_port(all)).kept()]);
    let log = std::fs::read_to_string(lab.log_file()).unwrap();
    for never in ["is replaced", "put right", "is not programmed"] {
        assert!(!log.contains(never), "{never}: {log}");
    }
}

/// The Service that is hammered with more or fewer endpoints, and others that come, change and go.
fn changed(n: usize, all: &[Name]) -> Vec<Objects> {
    let count = [1, 5, 2, 4, 3][n % 5];
    let mut objects = vec![web().into(), web_slice(all.iter().copied().take(count)).into()];
    for other in 0..u8::try_from(n % 4).unwrap() {
        let name = format!("shop/other-{other}");
        let cluster = 100 + other + u8::try_from(n % 3).unwrap();
        objects.push(service(&name).cluster(cluster).port("http", 80).sticky(60).into());
        objects.push(slice(&name).port("http", PORT).ready(all.iter().copied().skip(n % 4)).into());
    }
    objects
}

/// Ended in the middle of its first start, with many Services: what it leaves is half a table, without hooks. The next
/// one completes or replaces it.
fn killed_in_its_first_start(lab: &mut Lab) {
    lab.apply(&[web().into(), web_slice([Pod1, Remote1]).into(), super::drift::many()]);
    lab.start(&config(&json!({})));
    let whole = super::drift::content(lab);
    lab.stop();
    for delay in [0, 10, 40] {
        nft_ok(&lab.topology, Ns::Node, &["-f", "-"], "delete table ip shunt\ndelete table ip6 shunt");
        lab.launch();
        while !nft_ok(&lab.topology, Ns::Node, &["list", "tables"], "").contains("shunt") {}
        std::thread::sleep(Duration::from_millis(delay));
        lab.kill();
        let left = nft_ok(&lab.topology, Ns::Node, &["list", "ruleset"], "");
        println!("after {delay} ms: {} lines, hooked: {}", left.lines().count(), left.contains("hook"));
        if delay == 10 {
            // the next one writes what is missing, with other objects than the first
            lab.write_objects(&[web().into(), web_slice([Pod1, Remote1]).into()]);
            lab.start_again();
            lab.check(&[from(Pod3).tcp(Cluster(80), 80).reaches(on_port([Pod1, Remote1])).kept()]);
            lab.apply(&[web().into(), web_slice([Pod1, Remote1]).into(), super::drift::many()]);
        } else {
            lab.start_again();
        }
        lab.check(&[from(Pod3).tcp(Cluster(80), 80).reaches(on_port([Pod1, Remote1])).kept()]);
        assert_eq!(super::drift::content(lab), whole, "after {delay} ms");
        lab.stop();
    }
}
