//! What others do to one family, and what is said of it.

use std::time::{Duration, Instant};

use tracing::{debug, warn};

use crate::backend::{BackendError, Drift};
use crate::model::Family;
use crate::schedule::Damper;

/// So many changes are put right at once, within [`QUIET`] of each other; somebody works against us who
/// makes more than these.
const PATIENCE: u32 = 30;
/// How long nobody has to touch anything for the fight to be over.
const QUIET: Duration = Duration::from_secs(60);
/// How long the next repair of a fight waits, at first and at most: what is damaged serves nobody.
const WAITS: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(10));

/// What others have done and is not put right yet, and how often that was.
#[derive(Debug)]
pub(super) struct Drifting {
    pending: Option<Drift>,
    damper: Damper,
    /// The backend could not tell; said once.
    blind: bool,
}

impl Default for Drifting {
    fn default() -> Self {
        Self { pending: None, damper: Damper::new(PATIENCE, QUIET, WAITS), blind: false }
    }
}

impl Drifting {
    /// Takes note of what the backend has seen; returns whether there is something to put right.
    pub(super) fn saw(
        &mut self,
        seen: Result<Option<Drift>, BackendError>,
        family: Family,
        now: Instant,
    ) -> bool {
        let drift = match seen {
            Ok(drift) => {
                self.blind = false;
                drift
            }
            Err(error) => {
                if !std::mem::replace(&mut self.blind, true) {
                    warn!(%family, "whether others change what is programmed cannot be seen now: {error}");
                }
                None
            }
        };
        let Some(drift) = drift else { return false };
        if drift.certain {
            let wait = self.damper.called(now);
            if !wait.is_zero() {
                warn!(
                    %family,
                    "somebody works against shunt: {} changes of what it has programmed without a quiet minute, \
                     the last one {}; it is put right after {wait:?}",
                    self.damper.calls(),
                    in_words(&drift),
                );
            }
        }
        self.take(drift);
        true
    }

    /// Takes note of what came in since the last look, just before all of it is put right.
    pub(super) fn saw_more(&mut self, seen: Result<Option<Drift>, BackendError>) {
        // an error shows again in what follows
        if let Ok(Some(drift)) = seen {
            self.take(drift);
        }
    }

    fn take(&mut self, drift: Drift) {
        let known = self.pending.take().filter(|known| known.certain || !drift.certain);
        self.pending = known.or(Some(drift));
    }

    /// Whether what is damaged may be put right now.
    pub(super) fn ready(&self, now: Instant) -> bool {
        self.pending.is_none() || self.damper.ready(now)
    }

    /// Whether something is to be put right, or was just now and is not told yet.
    pub(super) const fn is_known(&self) -> bool {
        self.pending.is_some()
    }

    /// Until when it waits.
    pub(super) fn due(&self) -> Option<Instant> {
        self.damper.due().filter(|_| self.pending.is_some())
    }

    /// Everything is as it should be again, which took so many operations. Returns whether somebody had
    /// changed something.
    pub(super) fn put_right(&mut self, family: Family, operations: usize) -> bool {
        let Some(drift) = self.pending.take() else { return false };
        let words = in_words(&drift);
        if !drift.certain && operations == 0 {
            debug!(%family, "read back because of {words}: nothing was changed");
            return false;
        }
        warn!(
            %family,
            "somebody else has changed what shunt had programmed: {words}; put right with {operations} operations"
        );
        true
    }
}

fn in_words(drift: &Drift) -> String {
    match &drift.by {
        Some(by) => format!("{} by {by}", drift.what),
        None => drift.what.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_comes_in_before_the_repair_is_no_further_attack() {
        let drift = || Ok(Some(Drift { what: "a rule deleted".into(), by: None, certain: true }));
        let (mut drifting, now) = (Drifting::default(), Instant::now());
        for repair in 1..=PATIENCE {
            assert!(drifting.saw(drift(), Family::V4, now));
            drifting.saw_more(drift());
            assert!(drifting.ready(now), "repair {repair} waits");
            assert!(drifting.put_right(Family::V4, 1));
        }
        assert!(drifting.saw(drift(), Family::V4, now));
        assert!(!drifting.ready(now), "now it is a fight");
    }
}
