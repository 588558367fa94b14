//! Every endpoint gets its share.

use std::collections::BTreeMap;

use super::{on_port, web, web_slice};
use crate::netns::lab::endpoint_name;
use crate::netns::prelude::*;
use crate::netns::probe::Outcome;

cases![seven_endpoints];

/// The value that chi-square with six degrees of freedom exceeds once in a thousand times.
const LIMIT: f64 = 22.458;

fn seven_endpoints(lab: &mut Lab) {
    let pods = [Pod1, Pod2, Pod3, Remote1, Remote2, Remote3, Remote4];
    lab.apply(&[web().into(), web_slice(pods).into()]);
    lab.start(&config(&json!({})));
    for family in BOTH {
        let udp = from(Client).udp(Cluster(80), 53).reaches(on_port(pods));
        let tcp = from(Client).tcp(Cluster(80), 80).reaches(on_port(pods));
        for flow in [udp, tcp] {
            // twice beyond the limit is no chance any more
            let values = [chi_square(lab, &flow, family, 3500), chi_square(lab, &flow, family, 3500)];
            assert!(values.iter().any(|value| *value < LIMIT), "{family:?} {flow}: chi-square {values:?}");
        }
    }
}

fn chi_square(lab: &Lab, flow: &Flow, family: Family, probes: u32) -> f64 {
    let mut counts = BTreeMap::new();
    let outcomes = lab.send(flow, family, usize::try_from(probes).unwrap());
    flow.judge(family, &outcomes).unwrap_or_else(|why| panic!("{why}"));
    for outcome in outcomes {
        let Outcome::Answered(answer) = outcome else { unreachable!("the judge wants answers") };
        *counts.entry(endpoint_name(answer.endpoint, family)).or_insert(0_u32) += 1;
    }
    let expected = f64::from(probes) / f64::from(u32::try_from(counts.len()).unwrap());
    counts.values().map(|count| (f64::from(*count) - expected).powi(2) / expected).sum()
}
