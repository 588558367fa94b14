//! What an operator must see on the object that it is about: Kubernetes Events.
//!
//! In: [`Notice`]s, from wherever something is found wrong; recording one never blocks and never fails.
//! Out: Events on the API server, few enough for a cluster of thousands of nodes. `event.rs` and `limit.rs`
//! are PURE, `publish.rs` is EDGE. Without an API server nobody reads what is recorded.

mod event;
mod limit;
mod publish;

use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::mpsc::{Receiver, Sender, channel as bounded};

use crate::metrics::{Metrics, ResultLabel};
use crate::model::ServiceName;
use crate::source::convert::Problem;
pub use publish::{Pace, publish};

/// So many may wait to be written; more are dropped.
const WAITING: usize = 256;

/// What is wrong, with which object.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Notice {
    /// The kind as Kubernetes writes it.
    pub kind: &'static str,
    /// The object: `namespace/name`, or a name alone.
    pub object: String,
    /// Why.
    pub reason: Reason,
    /// What has happened, to which field, and what to do.
    pub note: String,
}

/// Why there is an Event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reason {
    /// A field has a value that cannot be used, and what it stands for is left out.
    InvalidField,
    /// Two Services claim one frontend.
    FrontendConflict,
    /// A Service has more endpoints than can be chosen from.
    TooManyEndpoints,
    /// The kernel refuses what the Service needs.
    RefusedByKernel,
    /// The `healthCheckNodePort` cannot be opened.
    HealthPortUnavailable,
}

impl Reason {
    /// The word in the Event.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::InvalidField => "InvalidField",
            Self::FrontendConflict => "FrontendConflict",
            Self::TooManyEndpoints => "TooManyEndpoints",
            Self::RefusedByKernel => "RefusedByKernel",
            Self::HealthPortUnavailable => "HealthPortUnavailable",
        }
    }

    /// What was being done.
    const fn action(self) -> &'static str {
        match self {
            Self::InvalidField => "ReadObject",
            Self::FrontendConflict | Self::TooManyEndpoints | Self::RefusedByKernel => "ProgramService",
            Self::HealthPortUnavailable => "OpenHealthPort",
        }
    }

    /// Whether it is about one node. What is wrong with the object itself is so on every node, and one Event
    /// says it for all.
    const fn is_of_node(self) -> bool {
        matches!(self, Self::RefusedByKernel | Self::HealthPortUnavailable)
    }
}

impl Notice {
    /// About a Service.
    #[must_use]
    pub fn of_service(name: &ServiceName, reason: Reason, note: String) -> Self {
        Self { kind: "Service", object: name.to_string(), reason, note }
    }
}

impl From<&Problem> for Notice {
    fn from(problem: &Problem) -> Self {
        let Problem { kind, object, field, what } = problem;
        Self { kind, object: object.clone(), reason: Reason::InvalidField, note: format!("{field}: {what}") }
    }
}

/// Where notices are put; a clone puts them into the same place.
#[derive(Clone, Debug)]
pub struct Recorder {
    sender: Sender<Notice>,
    metrics: Metrics,
}

/// Notices on their way to [`publish`].
#[derive(Debug)]
pub struct Recorded(Receiver<Notice>);

/// The two ends. Where the second one is dropped, what is recorded goes nowhere.
#[must_use]
pub fn channel(metrics: Metrics) -> (Recorder, Recorded) {
    let (sender, receiver) = bounded(WAITING);
    (Recorder { sender, metrics }, Recorded(receiver))
}

impl Recorder {
    /// Records a notice. Never waits: if too many are on their way already, it is dropped and counted.
    pub fn record(&self, notice: Notice) {
        if let Err(TrySendError::Full(notice)) = self.sender.try_send(notice) {
            self.metrics.events.get_or_create(&ResultLabel { result: "dropped" }).inc();
            tracing::debug!(?notice, "too many events are waiting: dropped");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn recording_never_waits() {
        let notice = |number: usize| {
            Notice::of_service(&crate::testing::name("a/web"), Reason::RefusedByKernel, number.to_string())
        };
        let (recorder, end) = channel(Metrics::default());
        (0..WAITING + 3).for_each(|number| recorder.record(notice(number)));
        let dropped = || recorder.metrics.events.get_or_create(&ResultLabel { result: "dropped" }).get();
        assert_eq!(dropped(), 3);
        drop(end);
        recorder.record(notice(0));
        assert_eq!(dropped(), 3, "without an API server nothing is missed");
    }
}
