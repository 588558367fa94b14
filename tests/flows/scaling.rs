//! Endpoints of one Service come and go as fast as manifests can be written, under load.

use std::time::{Duration, Instant};

use super::churn::{assert_undisturbed, hammers};
use super::{PORT, on_port, web, web_slice};
use crate::netns::prelude::*;
use crate::netns::probe::Outcome;

cases![as_fast_as_manifests_can_be_written, none_to_a_removed_endpoint];

const ALL: [Name; 7] = [Pod1, Remote1, Pod2, Remote2, Remote3, Remote4, Remote5];

/// The first `count`, counted from another one each time.
fn some(round: usize, count: usize) -> Vec<Name> {
    ALL.into_iter().cycle().skip(round % ALL.len()).take(count).collect()
}

fn as_fast_as_manifests_can_be_written(lab: &mut Lab) {
    lab.apply(&[web().into(), web_slice(ALL).into()]);
    lab.start(&config(&json!({})));
    let hammers = hammers(lab);
    let end = Instant::now() + Duration::from_secs(3);
    let mut round = 0;
    while Instant::now() < end {
        lab.write_objects(&[web().into(), web_slice(some(round, 1 + round * 5 % ALL.len())).into()]);
        round += 1;
    }
    lab.apply(&[web().into(), web_slice([Pod1, Remote1]).into()]);
    assert_undisturbed(hammers, &on_port(ALL));
    assert!(round > 500, "only {round} changes in 3 s");
    lab.check(&[Pod3, Client].map(|name| from(name).tcp(Cluster(80), 80).reaches(on_port([Pod1, Remote1]))));
}

/// Once the daemon has programmed a change, nobody gets an endpoint that it removed: there is no delay.
fn none_to_a_removed_endpoint(lab: &mut Lab) {
    lab.apply(&[web().into(), web_slice(ALL).into()]);
    lab.start(&config(&json!({})));
    let hammers = hammers(lab);
    for round in 0..40 {
        let pods = some(round, 1 + round * 3 % ALL.len());
        lab.apply(&[web().into(), web_slice(pods.iter().copied()).into()]);
        let row = from(Client).tcp(Cluster(80), 80).reaches(pods.iter().map(|pod| (*pod, PORT)));
        for family in BOTH {
            for outcome in lab.send(&row, family, 10) {
                let fine = |pod: &Name, outcome: &Outcome| matches!(outcome, Outcome::Answered(answer) if answer.endpoint == pod.at(PORT, family));
                assert!(pods.iter().any(|pod| fine(pod, &outcome)), "round {round}: {outcome:?} of {pods:?}");
            }
        }
    }
    assert_undisturbed(hammers, &on_port(ALL));
}
