//! What the node says of itself: `/healthz`, `/livez`, and a server at each `healthCheckNodePort`. EDGE.
//!
//! ```text
//!  engine ─▶ HealthView ─▶ Change ─┐                      ┌─▶ health ports
//!  event loop ─▶ Programming ──────┴─▶ background thread ─┴─▶ /healthz, /livez
//! ```

mod ports;
mod status;
mod view;

use std::sync::Arc;
use std::time::{Instant, SystemTime};

use hyper::StatusCode;
use serde_json::json;
use tokio::sync::{mpsc, watch};

use crate::http::{Answer, Answers};
use crate::metrics::Metrics;
pub use ports::serve as serve_ports;
pub use status::{Programming, TIMEOUT, rfc3339};
pub use view::{Change, HealthView};

/// Where the event loop puts what it knows.
#[derive(Clone, Debug)]
pub struct Reporter {
    programming: watch::Sender<Programming>,
    changes: mpsc::UnboundedSender<Change>,
}

/// What the servers show.
#[derive(Debug)]
pub struct Shown {
    /// Whether programming keeps up.
    pub programming: watch::Receiver<Programming>,
    /// News of health ports.
    pub changes: mpsc::UnboundedReceiver<Change>,
}

/// The two ends between the event loop and the servers.
#[must_use]
pub fn channel() -> (Reporter, Shown) {
    let (programming, shown) = watch::channel(Programming::default());
    let (sender, changes) = mpsc::unbounded_channel();
    (Reporter { programming, changes: sender }, Shown { programming: shown, changes })
}

impl Reporter {
    /// Tells how far programming is. Nobody has to listen.
    pub fn programming(&self, change: impl FnOnce(&mut Programming)) {
        self.programming.send_modify(change);
    }

    /// Passes on news of health ports. Nobody has to listen.
    pub fn ports(&self, changes: Vec<Change>) {
        for change in changes {
            // Without servers (`--once`) there is nobody to tell.
            _ = self.changes.send(change);
        }
    }
}

/// `/healthz` and `/livez`, counted by status.
#[must_use]
pub fn answers(programming: watch::Receiver<Programming>, metrics: &Metrics) -> Answers {
    let metrics = metrics.kube_proxy.clone();
    Arc::new(move |question| {
        let (counter, eligible_counts) = match question.path {
            "/healthz" => (&metrics.healthz, true),
            "/livez" => (&metrics.livez, false),
            _ => return None,
        };
        let answer = answer(&programming.borrow(), eligible_counts, Instant::now(), SystemTime::now());
        counter.get_or_create(&answer.status.into()).inc();
        Some(answer)
    })
}

/// As kube-proxy (KEP-3836): while programming keeps up, `lastUpdated` is the current time. `/livez` asks
/// only for that: a node that is leaving must not restart its proxy.
fn answer(programming: &Programming, eligible_counts: bool, now: Instant, time: SystemTime) -> Answer {
    let healthy = programming.is_healthy(now);
    let eligible = !programming.leaving;
    let good = healthy && (eligible || !eligible_counts);
    let updated = if healthy { Some(time) } else { programming.synced };
    // The zero time of Go, as kube-proxy says before it has programmed anything.
    let updated = updated.map_or_else(|| "0001-01-01T00:00:00Z".to_owned(), rfc3339);
    let mut body = json!({ "lastUpdated": updated, "currentTime": rfc3339(time) });
    if eligible_counts {
        body["nodeEligible"] = json!(eligible);
    }
    Answer::json(if good { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }, &body)
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use super::*;

    #[test]
    fn healthz_asks_for_eligibility_and_livez_does_not() {
        let now = Instant::now();
        let good = Programming { synced: Some(UNIX_EPOCH), alive: Some(now), ..Programming::default() };
        let leaving = Programming { leaving: true, ..good.clone() };
        let late = Programming { alive: now.checked_sub(TIMEOUT), ..good.clone() };
        let table =
            [(Programming::default(), 503, 503), (good, 200, 200), (leaving, 503, 200), (late, 503, 503)];
        for (programming, healthz, livez) in table {
            let status = |eligible_counts| {
                answer(&programming, eligible_counts, now, SystemTime::now()).status.as_u16()
            };
            assert_eq!((status(true), status(false)), (healthz, livez), "{programming:?}");
        }
    }

    #[test]
    fn the_body_is_that_of_kube_proxy() {
        let (programming, now) = (Programming::default(), Instant::now());
        let body = |eligible_counts| answer(&programming, eligible_counts, now, UNIX_EPOCH).body;
        assert_eq!(
            body(true),
            r#"{"currentTime":"1970-01-01T00:00:00Z","lastUpdated":"0001-01-01T00:00:00Z","nodeEligible":true}"#
        );
        assert!(!body(false).contains("nodeEligible"));
    }
}
