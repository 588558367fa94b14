use super::*;
use crate::desired::{Owner, Row};
use crate::diff::{Change, Plan};
use crate::model::Family;
use crate::policy::stale::Scope;
use crate::testing::nodeport_row;

/// A plan that removes a UDP NodePort.
fn removal() -> Plan {
    let Row::Frontend(mut frontend, forwarding) = nodeport_row(30053, "shop/dns:dns", "a") else { panic!() };
    frontend.protocol = crate::model::Protocol::Udp;
    let before = Some(Row::Frontend(frontend, forwarding));
    Plan {
        family: Family::V4,
        changes: vec![Change { owner: Owner::Node, before: before.map(Into::into), after: None }],
    }
}

fn nothing() -> Plan {
    Plan { family: Family::V4, changes: vec![] }
}

struct Clock(Reviews, Instant, Store);

impl Clock {
    fn new() -> Self {
        Self(Reviews::new(Flows::new(Family::V4, false)), Instant::now(), Store::default())
    }

    /// Where a review looks that is due now: `everything`, or how many places.
    fn next(&mut self) -> Option<String> {
        let review = self.0.next(self.1, &self.2)?;
        Some(match review.scope {
            Scope::Everything => "everything".into(),
            Scope::Dialled(dialled) => dialled.len().to_string(),
        })
    }

    fn pass(&mut self, milliseconds: u64) {
        self.1 += Duration::from_millis(milliseconds);
    }

    /// The wait until the next review, in milliseconds.
    fn wait(&self) -> Option<u128> {
        self.0.deadline().map(|at| (at - self.1).as_millis())
    }
}

const NO_TIME: Duration = Duration::ZERO;

#[test]
fn everything_at_first_and_then_only_what_changes() {
    let mut clock = Clock::new();
    assert_eq!((clock.next(), clock.wait()), (None, None), "nothing is programmed");
    clock.0.flows.programmed(&nothing(), true, |_| false);
    assert_eq!(clock.next().as_deref(), Some("everything"));
    clock.0.made(true, NO_TIME, clock.1);
    assert_eq!((clock.next(), clock.wait()), (None, None), "nothing changed: no second look either");
    clock.0.flows.programmed(&nothing(), false, |_| false);
    assert_eq!((clock.next(), clock.wait()), (None, None));
    clock.0.flows.programmed(&removal(), false, |_| false);
    assert_eq!(clock.next().as_deref(), Some("1"));
}

#[test]
fn a_second_look_and_no_third() {
    let mut clock = Clock::new();
    clock.0.flows.programmed(&removal(), false, |_| false);
    assert_eq!(clock.next().as_deref(), Some("1"));
    assert_eq!(clock.0.made(true, NO_TIME, clock.1), None);
    assert_eq!((clock.next(), clock.wait()), (None, Some(1000)));
    clock.pass(1000);
    assert_eq!(clock.next().as_deref(), Some("1"));
    clock.0.made(true, NO_TIME, clock.1);
    assert_eq!((clock.next(), clock.wait()), (None, None));
}

#[test]
fn a_failure_is_tried_again_with_what_came_since() {
    let mut clock = Clock::new();
    clock.0.flows.programmed(&removal(), false, |_| false);
    for wait in [1, 2, 4] {
        assert_eq!(clock.next().as_deref(), Some("1"));
        let wait = Duration::from_secs(wait);
        assert_eq!(clock.0.made(false, NO_TIME, clock.1), Some(wait));
        assert_eq!((clock.next(), clock.wait()), (None, Some(wait.as_millis())));
        clock.1 += wait;
    }
    clock.0.flows.programmed(&nothing(), true, |_| false);
    assert_eq!(clock.next().as_deref(), Some("everything"));
    clock.0.made(true, NO_TIME, clock.1);
    assert_eq!(clock.wait(), Some(1000), "the second look at the frontend");
}

/// A large table: what changes while it is looked through waits, and is looked at together.
#[test]
fn a_slow_review_is_followed_by_a_rest() {
    let mut clock = Clock::new();
    clock.0.flows.programmed(&nothing(), true, |_| false);
    assert_eq!(clock.next().as_deref(), Some("everything"));
    clock.0.made(true, Duration::from_millis(20), clock.1);
    clock.0.flows.programmed(&removal(), false, |_| false);
    assert_eq!((clock.next(), clock.wait()), (None, Some(180)));
    clock.pass(180);
    assert_eq!(clock.next().as_deref(), Some("1"));
    clock.0.made(true, Duration::from_secs(2), clock.1);
    clock.0.flows.programmed(&removal(), false, |_| false);
    assert_eq!((clock.next(), clock.wait()), (None, Some(500)));
}
