//! When to try again after a failure, what to do once in a while, and how often to answer somebody who
//! does not give up. PURE: the time is an argument.

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

/// Work that is done once in a while.
#[derive(Clone, Debug)]
pub struct Every {
    period: Duration,
    due: Instant,
}

impl Every {
    /// Work that is due for the first time a period after `now`.
    #[must_use]
    pub fn new(period: Duration, now: Instant) -> Self {
        Self { period, due: now + period }
    }

    /// Whether the work is due; if so it is due again a period later.
    pub fn is_due(&mut self, now: Instant) -> bool {
        let due = self.due <= now;
        if due {
            self.due = now + self.period;
        }
        due
    }

    /// When it is due.
    #[must_use]
    pub const fn due(&self) -> Instant {
        self.due
    }
}

/// Work that others cause: done at once, unless they cause it again and again.
#[derive(Clone, Debug)]
pub struct Damper {
    /// How often it is done at once.
    patience: u32,
    /// After how long without a cause everything is forgotten.
    quiet: Duration,
    calls: u32,
    last: Option<Instant>,
    waits: Retry,
}

impl Damper {
    /// Work that is done at once `patience` times, and then after waits that grow within `waits`; all of
    /// that starts over after a `quiet` time.
    #[must_use]
    pub const fn new(patience: u32, quiet: Duration, waits: (Duration, Duration)) -> Self {
        Self { patience, quiet, calls: 0, last: None, waits: Retry::new(waits.0, waits.1) }
    }

    /// There is cause for the work; returns how long it waits.
    pub fn called(&mut self, now: Instant) -> Duration {
        if self.last.is_some_and(|last| now.saturating_duration_since(last) >= self.quiet) {
            self.calls = 0;
            self.waits.succeeded();
        }
        self.last = Some(now);
        self.calls = self.calls.saturating_add(1);
        if self.calls <= self.patience { Duration::ZERO } else { self.waits.failed(now) }
    }

    /// How often there was cause since it was quiet last.
    #[must_use]
    pub const fn calls(&self) -> u32 {
        self.calls
    }

    /// Whether the work may be done now.
    #[must_use]
    pub fn ready(&self, now: Instant) -> bool {
        self.waits.ready(now)
    }

    /// Until when it waits, if it had to wait.
    #[must_use]
    pub const fn due(&self) -> Option<Instant> {
        self.waits.due()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_done_once_in_a_while_is_due_after_each_period() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut every = Every::new(Duration::from_secs(10), start);
        assert!(!every.is_due(at(9)));
        assert!(every.is_due(at(35)));
        assert_eq!(every.due(), at(45), "what was missed is not made up for");
        assert!(!every.is_due(at(44)) && every.is_due(at(45)));
    }

    #[test]
    fn who_does_not_give_up_has_to_wait_until_it_was_quiet() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let second = Duration::from_secs(1);
        let mut damper = Damper::new(3, 60 * second, (second, 4 * second));
        let waits: Vec<u64> = (0..7).map(|n| damper.called(at(n)).as_secs()).collect();
        assert_eq!(waits, [0, 0, 0, 1, 2, 4, 4]);
        assert!(!damper.ready(at(9)) && damper.ready(at(10)));
        assert_eq!(damper.calls(), 7);
        assert_eq!(damper.called(at(65)), 4 * second, "59 seconds are not quiet");
        assert_eq!((damper.called(at(125)), damper.calls()), (Duration::ZERO, 1));
        assert!(damper.ready(at(125)));
    }

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
