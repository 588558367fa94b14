//! When to try again after a failure. PURE: the time is an argument.

use std::time::{Duration, Instant};

/// Exponential backoff for one piece of work.
#[derive(Clone, Debug)]
pub struct Retry {
    shortest: Duration,
    longest: Duration,
    failures: u32,
    due: Option<Instant>,
}

impl Retry {
    /// Work that waits `shortest` after its first failure and twice as long after each further one, up
    /// to `longest`.
    #[must_use]
    pub const fn new(shortest: Duration, longest: Duration) -> Self {
        Self { shortest, longest, failures: 0, due: None }
    }

    /// The work failed; returns how long it waits now.
    pub fn failed(&mut self, now: Instant) -> Duration {
        let factor = 1_u32.checked_shl(self.failures).unwrap_or(u32::MAX);
        let wait = self.shortest.saturating_mul(factor).min(self.longest);
        self.failures = self.failures.saturating_add(1);
        self.due = Some(now + wait);
        wait
    }

    /// The work succeeded.
    pub const fn succeeded(&mut self) {
        self.failures = 0;
        self.due = None;
    }

    /// Whether the work may be tried now.
    #[must_use]
    pub fn ready(&self, now: Instant) -> bool {
        self.due.is_none_or(|due| due <= now)
    }

    /// When the work is to be tried again, if it failed.
    #[must_use]
    pub const fn due(&self) -> Option<Instant> {
        self.due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_a_limit_and_start_over_after_success() {
        let now = Instant::now();
        let mut retry = Retry::new(Duration::from_millis(100), Duration::from_secs(1));
        assert!(retry.ready(now));
        let waits: Vec<u128> = (0..40).map(|_| retry.failed(now).as_millis()).collect();
        assert_eq!(waits[..6], [100, 200, 400, 800, 1000, 1000]);
        assert_eq!(waits[39], 1000);
        assert!(!retry.ready(now) && retry.ready(now + Duration::from_secs(1)));
        retry.succeeded();
        assert!(retry.ready(now));
        assert_eq!(retry.failed(now).as_millis(), 100);
    }
}
