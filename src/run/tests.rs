use nix::libc::ENOMEM;

use super::*;
use crate::config::Config;
use crate::conntrack::Untouched;
use crate::desired::Owner;
use crate::model::{Kind, Object};
use crate::testing::backend::{FakeBackend, refusal};
use crate::testing::{endpoint, name, service, slice};
use crate::{health, notices};

const LISTED: [Kind; 4] = [Kind::Node, Kind::ServiceCidr, Kind::Service, Kind::EndpointSlice];

/// A list of a kind: one Service with an endpoint, and nothing else.
fn list(kind: Kind) -> Update {
    let objects = match kind {
        Kind::Service => vec![Object::Service(name("a/web"), service("10.96.0.1").build())],
        Kind::EndpointSlice => {
            let slice = slice("http", 8080, &[endpoint("10.1.0.1")]);
            vec![Object::EndpointSlice(name("a/web-1"), name("a/web"), slice)]
        }
        _ => Vec::new(),
    };
    Update::Reset(kind, objects)
}

#[test]
fn what_follows_upon_programming() {
    let table = [
        ("everything is listed", &LISTED[..], None, None, 1),
        ("the slices are not listed", &LISTED[..3], None, None, 0),
        ("nothing is listed", &[], None, None, 0),
        ("it succeeds the second time", &LISTED[..], Some(ENOMEM), None, 1),
        ("the Service is refused", &LISTED[..], None, Some("a/web"), 1),
    ];
    for (what, kinds, failure, refused, expected) in table {
        let metrics = Metrics::default();
        let (recorder, _notices) = notices::channel(metrics.clone());
        let (reporter, _shown) = health::channel();
        let (events_loop, events) = EventLoop::new(metrics, reporter, recorder);
        let kernel = FakeBackend::default();
        let failures = failure.map(|errno| (Family::V4, refusal(Family::V4, errno, None)));
        kernel.0.borrow_mut().failures.extend(failures);
        kernel.0.borrow_mut().refuses = refused.map(|service| Owner::Service(name(service)));
        let mut engine = Engine::new(kernel.clone(), &Config::default());
        assert!(events.sink()(kinds.iter().copied().map(list).collect()), "{what}");
        // what is complete ends by itself
        if expected == 0 {
            assert!(events.send(Event::Stop("the test")));
        }
        let mut plans_before = Vec::new();
        let programmed = || plans_before.push(kernel.0.borrow().plans.len());
        let ended = events_loop.run(&mut engine, &mut Untouched, true, programmed);
        assert_eq!(matches!(ended, Ended::Refused(_)), refused.is_some(), "{what}: {ended:?}");
        assert_eq!(plans_before.len(), expected, "{what}");
        if expected == 1 && refused.is_none() {
            assert!(plans_before[0] > 0, "{what}: it comes after what is programmed");
        }
    }
}
