//! What kernels differ in, asked of the backend itself: it writes far faster than manifests can change.

use std::path::Path;
use std::time::{Duration, Instant};

use shunt::backend::Backend;
use shunt::backend::nftables::apply::Nftables;
use shunt::backend::nftables::connection::Connection;
use shunt::backend::nftables::encode::Batch;
use shunt::backend::nftables::transaction::{Op, Transaction};
use shunt::config::Config;
use shunt::desired::{Choice, Forwarding, Owner, Row};
use shunt::diff::{Change, Plan, RowRef};
use shunt::model::Family as Stack;
use shunt::policy::exposure::Frontend;

use super::churn::{assert_undisturbed, hammers};
use super::{PORT, on_port};
use crate::netns::prelude::*;

cases![first_refusal_of_many, scaled_thousands_of_times];

/// A kernel that does not know `persist` refuses the first message of a cold start, and all others because of
/// that one: more errors than the socket's queue holds. The first is the one that counts.
fn first_refusal_of_many(lab: &mut Lab) {
    lab.topology.enter(Ns::Pod3, || {
        let mut connection = Connection::open().unwrap();
        let ops = (0..3000).map(|n| Op::DeleteChain(format!("chain-{n}"))).collect();
        let batch = Batch::encode(&Transaction { family: Stack::V4, ops });
        let refusal = connection.commit(&batch).unwrap_err();
        assert_eq!(refusal.errno.raw_os_error(), Some(nix::libc::ENOENT), "{refusal:?}");
        assert_eq!(refusal.op, Some(0), "{refusal:?}");
        // and the conversation goes on
        connection.generation().unwrap();
    });
}

/// For how long it scales; `SHUNT_NETNS_SCALE` in seconds.
const SCALING: Duration = Duration::from_secs(2);

/// Endpoints come and go as fast as the kernel takes it, while clients connect: none is lost, none stalls.
fn scaled_thousands_of_times(lab: &mut Lab) {
    let all = [Pod1, Remote1, Pod2, Remote2, Remote3];
    let web = || service("shop/web").cluster(80).port("http", 80);
    lab.apply(&[web().into(), slice("shop/web").port("http", PORT).ready(all).into()]);
    let config = config(&json!({}));
    lab.start(&config);
    lab.stop();
    let config = shunt::config::parse(&config.to_string(), Path::new("config.yaml"), &[]).unwrap().config;
    let seconds = std::env::var("SHUNT_NETNS_SCALE").ok().and_then(|text| text.parse().ok());
    let scaling = seconds.map_or(SCALING, Duration::from_secs);
    let hammers = hammers(lab);
    let commits = lab.topology.enter(Ns::Node, || scale(&config, scaling));
    println!("{commits} scale changes in {scaling:?}");
    assert_undisturbed(hammers, &on_port(all));
}

/// A frontend as it was found, and how many of its endpoints are in use now.
struct Scaled {
    family: Stack,
    owner: Owner,
    frontend: Frontend,
    to: Forwarding,
    row: RowRef,
}

impl Scaled {
    /// With so many of its endpoints.
    fn with(&self, count: usize) -> Row {
        let to = Choice::Endpoints(self.to.to.targets().iter().take(count).collect());
        Row::Frontend(self.frontend, Forwarding { to, ..self.to.clone() }.into())
    }
}

/// Scales every frontend with several endpoints up and down, and returns how often.
fn scale(config: &Config, scaling: Duration) -> usize {
    let mut backend = Nftables::open(config).unwrap();
    let mut frontends = Vec::new();
    for family in Stack::ALL {
        for (owner, row) in backend.read(family).unwrap() {
            if let Row::Frontend(frontend, to) = &row
                && to.to.targets().len() == 5
            {
                let (frontend, to) = (*frontend, to.clone());
                frontends.push(Scaled { family, owner, frontend, to: *to, row: row.into() });
            }
        }
    }
    assert_eq!(frontends.len(), 2, "one in each family");
    let (started, mut commits) = (Instant::now(), 0);
    for count in [1, 5, 2, 4, 1, 3, 5, 1, 2, 5, 4, 5].into_iter().cycle() {
        if started.elapsed() > scaling && count == 5 {
            break;
        }
        for scaled in &mut frontends {
            let after = RowRef::from(scaled.with(count));
            let before = std::mem::replace(&mut scaled.row, after.clone());
            let change =
                Change { owner: scaled.owner.clone(), before: Some(before), after: Some(after.clone()) };
            backend.apply(&Plan { family: scaled.family, changes: vec![change] }).unwrap();
            commits += 1;
        }
    }
    commits
}
