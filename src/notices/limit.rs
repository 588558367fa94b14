//! Which notices become Events, and when. PURE: the time is an argument.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use super::Notice;

/// So many Events may be written at once,
const BURST: u32 = 25;
/// and then one each time that so much has passed.
const REFILL: Duration = Duration::from_secs(10);
/// So many notices are remembered.
const REMEMBERED: usize = 1000;

/// What to do with a notice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Write an Event.
    Create,
    /// The Event that there is happened so many times by now.
    Count(u32),
    /// It was written lately.
    Known,
    /// Too much was written lately.
    TooMany,
}

/// What has been written.
#[derive(Debug)]
pub(super) struct Limit {
    /// A notice that repeats is written again after so long.
    repeat: Duration,
    known: HashMap<Notice, Series>,
    tokens: u32,
    refilled: Instant,
}

#[derive(Clone, Copy, Debug)]
struct Series {
    count: u32,
    written: Instant,
}

impl Limit {
    pub(super) fn new(repeat: Duration, now: Instant) -> Self {
        Self { repeat, known: HashMap::new(), tokens: BURST, refilled: now }
    }

    pub(super) fn judge(&mut self, notice: &Notice, now: Instant) -> Verdict {
        while self.tokens < BURST && now.saturating_duration_since(self.refilled) >= REFILL {
            self.tokens += 1;
            self.refilled += REFILL;
        }
        if self.tokens == BURST {
            self.refilled = now;
        }
        let known = self.known.get_mut(notice);
        if let Some(series) = known {
            series.count = series.count.saturating_add(1);
            if now.saturating_duration_since(series.written) < self.repeat {
                return Verdict::Known;
            }
        }
        if self.tokens == 0 {
            return Verdict::TooMany;
        }
        self.tokens -= 1;
        if let Some(series) = self.known.get_mut(notice) {
            series.written = now;
            return Verdict::Count(series.count);
        }
        if self.known.len() >= REMEMBERED {
            self.known.clear();
        }
        self.known.insert(notice.clone(), Series { count: 1, written: now });
        Verdict::Create
    }

    /// It could not be written: the next time it is new.
    pub(super) fn forget(&mut self, notice: &Notice) {
        self.known.remove(notice);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::notices::Reason;
    use crate::testing::name;

    fn notice(note: &str) -> Notice {
        Notice::of_service(&name("a/web"), Reason::RefusedByKernel, note.to_owned())
    }

    #[test]
    fn what_repeats_is_counted_and_written_rarely() {
        let start = Instant::now();
        let mut limit = Limit::new(Duration::from_secs(300), start);
        for (seconds, note, verdict) in [
            (0, "x", Verdict::Create),
            (1, "x", Verdict::Known),
            (1, "y", Verdict::Create),
            (299, "x", Verdict::Known),
            (300, "x", Verdict::Count(4)),
            (301, "x", Verdict::Known),
            (700, "x", Verdict::Count(6)),
        ] {
            let at = start + Duration::from_secs(seconds);
            assert_eq!(limit.judge(&notice(note), at), verdict, "{note} at {seconds}");
        }
        limit.forget(&notice("x"));
        assert_eq!(limit.judge(&notice("x"), start + Duration::from_secs(701)), Verdict::Create);
    }

    #[test]
    fn a_flood_is_cut() {
        let start = Instant::now();
        let mut limit = Limit::new(Duration::from_secs(300), start);
        let mut created = |seconds: u64, from: usize| {
            let at = start + Duration::from_secs(seconds);
            (from..from + 100).filter(|n| limit.judge(&notice(&n.to_string()), at) == Verdict::Create).count()
        };
        assert_eq!(created(0, 0), 25);
        assert_eq!(created(9, 100), 0);
        assert_eq!(created(10, 200), 1);
        assert_eq!(created(45, 300), 3, "what is left of a pause is not lost");
        assert_eq!(created(50, 400), 1);
        assert_eq!(created(10_000, 500), 25);
    }
}
