//! What the log says about a server that fails: one warning for each cause, however many kinds it hits
//! and however often, one word when it is over, and a reminder if it lasts. EDGE (logs).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::failure::{Cause, Failure};
use crate::model::Kind;

/// How long after a warning the same one is said again.
const REMIND: Duration = Duration::from_secs(600);

/// What goes with warnings while nothing has been listed from an address that Kubernetes has told us.
const BY_SERVICE: &str = ". This is the address that Kubernetes gives to pods, a ClusterIP, which works only where \
    shunt or kube-proxy has programmed the node: set KUBERNETES_SERVICE_HOST and KUBERNETES_SERVICE_PORT to an \
    address of an API server itself, or use --kubeconfig or --master";

/// The kinds that fail at the moment, and why.
#[derive(Debug, Default)]
pub(super) struct Report {
    state: Mutex<State>,
    /// The address is the one that Kubernetes tells a pod of.
    by_service: bool,
}

#[derive(Debug, Default)]
struct State {
    failing: BTreeMap<Kind, Cause>,
    told: BTreeMap<Cause, Told>,
    listed: BTreeSet<Kind>,
}

/// Since when a cause is known, and when it was last warned of.
#[derive(Clone, Copy, Debug)]
struct Told {
    first: Instant,
    last: Instant,
}

/// What to say.
#[derive(Debug, PartialEq, Eq)]
enum Say {
    Nothing,
    Fails,
    Still(Duration),
    Works(Cause, Duration),
}

impl Report {
    pub(super) fn new(by_service: bool) -> Self {
        Self { by_service, ..Self::default() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A list or watch of the kind failed.
    pub(super) fn failed(&self, kind: Kind, failure: &Failure) {
        let cause = failure.cause(kind);
        let hint = self.by_service && cause == Cause::Outage && self.state().listed.is_empty();
        let hint = if hint { BY_SERVICE } else { "" };
        match self.state().failed(kind, cause, Instant::now()) {
            Say::Fails => tracing::warn!("{failure}; trying again, the node stays as it is{hint}"),
            Say::Still(since) => {
                tracing::warn!(
                    "since {} s: {failure}; trying again, the node stays as it is{hint}",
                    since.as_secs()
                );
            }
            Say::Nothing | Say::Works(..) => tracing::debug!(kind = kind.as_str(), "{failure}"),
        }
    }

    /// A list of the kind is complete, or a watch of it stands.
    pub(super) fn works(&self, kind: Kind) {
        let Say::Works(cause, since) = self.state().works(kind, Instant::now()) else { return };
        let seconds = since.as_secs();
        match cause {
            Cause::Outage => tracing::info!("the API server answers again, after {seconds} s"),
            Cause::Credentials => {
                tracing::info!("the API server accepts our credentials again, after {seconds} s");
            }
            Cause::Forbidden(what) => tracing::info!("the API server allows us to {what} now"),
            Cause::Other(kind) => tracing::info!(kind = kind.as_str(), "the API server is followed again"),
        }
    }

    /// A list of the kind is complete.
    pub(super) fn listed(&self, kind: Kind) {
        self.state().listed.insert(kind);
    }

    /// Without which of these kinds nothing is programmed: those that have not been listed.
    pub(super) fn missing(&self) -> Vec<&'static str> {
        let state = self.state();
        let needed = [Kind::Service, Kind::EndpointSlice].into_iter();
        needed.filter(|kind| !state.listed.contains(kind)).map(Kind::as_str).collect()
    }
}

impl State {
    fn failed(&mut self, kind: Kind, cause: Cause, now: Instant) -> Say {
        let before = self.failing.insert(kind, cause.clone());
        let again = before.as_ref() == Some(&cause);
        if let Some(before) = before.filter(|before| !self.failing.values().any(|other| other == before)) {
            self.told.remove(&before);
        }
        // A server that has just started refuses everybody until it has read its roles (kubernetes/kubernetes
        // 121635): only what is refused again is worth a word.
        if matches!(cause, Cause::Forbidden(_)) && !again {
            return Say::Nothing;
        }
        match self.told.get_mut(&cause) {
            None => {
                self.told.insert(cause, Told { first: now, last: now });
                Say::Fails
            }
            Some(told) if now - told.last >= REMIND => {
                told.last = now;
                Say::Still(now - told.first)
            }
            Some(_) => Say::Nothing,
        }
    }

    fn works(&mut self, kind: Kind, now: Instant) -> Say {
        let Some(cause) = self.failing.remove(&kind) else { return Say::Nothing };
        // the others are about to come back too
        if self.failing.values().any(|other| *other == cause) {
            return Say::Nothing;
        }
        let Some(told) = self.told.remove(&cause) else { return Say::Nothing };
        Say::Works(cause, now - told.first)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_outage_is_one_warning_and_one_word_when_it_is_over() {
        let (mut state, start) = (State::default(), Instant::now());
        let forbidden = || Cause::Forbidden("list services".to_owned());
        let over = |cause, seconds| Say::Works(cause, Duration::from_secs(seconds));
        for (second, kind, cause, say) in [
            (0, Kind::Service, None, Say::Nothing),
            (1, Kind::Service, Some(Cause::Outage), Say::Fails),
            (2, Kind::Service, Some(Cause::Outage), Say::Nothing),
            (3, Kind::Node, Some(Cause::Outage), Say::Nothing),
            (4, Kind::Service, Some(forbidden()), Say::Nothing),
            (5, Kind::Service, Some(Cause::Outage), Say::Nothing),
            (600, Kind::Service, Some(Cause::Outage), Say::Nothing),
            (601, Kind::Node, Some(Cause::Outage), Say::Still(Duration::from_secs(600))),
            (602, Kind::Service, Some(Cause::Outage), Say::Nothing),
            (603, Kind::Node, None, Say::Nothing),
            (604, Kind::Service, None, over(Cause::Outage, 603)),
            (605, Kind::Service, Some(Cause::Outage), Say::Fails),
            (606, Kind::Service, Some(forbidden()), Say::Nothing),
            (606, Kind::Service, Some(forbidden()), Say::Fails),
            (607, Kind::Node, Some(Cause::Credentials), Say::Fails),
            (608, Kind::Node, None, over(Cause::Credentials, 1)),
            (609, Kind::Service, None, over(forbidden(), 3)),
            (610, Kind::Node, None, Say::Nothing),
            (611, Kind::Node, Some(forbidden()), Say::Nothing),
            (612, Kind::Node, None, Say::Nothing),
        ] {
            let now = start + Duration::from_secs(second);
            let said = match cause {
                Some(cause) => state.failed(kind, cause, now),
                None => state.works(kind, now),
            };
            assert_eq!(said, say, "second {second}");
        }
    }

    #[test]
    fn what_is_waited_for_is_named() {
        let report = Report::default();
        assert_eq!(report.missing(), ["Service", "EndpointSlice"]);
        report.listed(Kind::Node);
        report.listed(Kind::Service);
        assert_eq!(report.missing(), ["EndpointSlice"]);
        report.listed(Kind::EndpointSlice);
        assert!(report.missing().is_empty());
    }
}
