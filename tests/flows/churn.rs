//! Traffic keeps coming while objects change.

use super::{PORT, on_port, web, web_slice};
use crate::netns::hammer::Hammer;
use crate::netns::prelude::*;
use crate::netns::probe::Outcome;

cases![other_services_change, its_own_endpoints_change, the_daemon_restarts];

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
