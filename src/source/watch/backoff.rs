//! How long to wait before the next try. PURE: randomness is an argument.

use std::time::Duration;

/// Between which pauses a source backs off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// The longest pause after a first failure; each further failure doubles it.
    pub first: Duration,
    /// No pause is longer.
    pub longest: Duration,
}

impl Default for Limits {
    /// 0.8 s to 30 s, as client-go's reflector has it: a node notices within a second that the server is
    /// back from a restart, and a thousand nodes do not keep one that struggles on the floor.
    fn default() -> Self {
        Self { first: Duration::from_millis(800), longest: Duration::from_secs(30) }
    }
}

/// Failures in a row.
#[derive(Debug)]
pub(super) struct Backoff {
    limits: Limits,
    failures: u32,
}

impl Backoff {
    pub(super) fn new(limits: Limits) -> Self {
        Self { limits, failures: 0 }
    }

    /// Whether all is well since the last success.
    pub(super) fn is_fresh(&self) -> bool {
        self.failures == 0
    }

    /// Something worked.
    pub(super) fn reset(&mut self) {
        self.failures = 0;
    }

    /// Something failed: how long to wait now. `dice` from 0 to 1 takes away up to two fifths, so that
    /// the nodes of a cluster do not come back in step.
    pub(super) fn pause(&mut self, dice: f64) -> Duration {
        let doubled = self.limits.first.saturating_mul(1 << self.failures.min(16));
        self.failures = self.failures.saturating_add(1);
        doubled.min(self.limits.longest).mul_f64(1.0 - 0.4 * dice.clamp(0.0, 1.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_longest_and_start_again_after_a_success() {
        let mut backoff = Backoff::new(Limits::default());
        let pauses: Vec<_> = (0..8).map(|_| backoff.pause(0.0).as_millis()).collect();
        assert_eq!(pauses, [800, 1600, 3200, 6400, 12_800, 25_600, 30_000, 30_000]);
        assert!(!backoff.is_fresh());
        backoff.reset();
        assert_eq!((backoff.is_fresh(), backoff.pause(0.0).as_millis()), (true, 800));
    }

    #[test]
    fn the_dice_take_away_up_to_two_fifths() {
        for (dice, pause) in [(0.0, 800), (0.5, 640), (1.0, 480), (7.0, 480)] {
            assert_eq!(Backoff::new(Limits::default()).pause(dice).as_millis(), pause, "dice {dice}");
        }
    }

    #[test]
    fn a_month_of_failures_does_not_overflow() {
        let mut backoff = Backoff { limits: Limits::default(), failures: u32::MAX };
        assert_eq!(backoff.pause(0.0), Duration::from_secs(30));
    }
}
