//! Whether programming keeps up. PURE: the time is an argument.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Twice the default sync period, as in kube-proxy (`pkg/proxy/healthcheck/proxy_health.go`).
pub const TIMEOUT: Duration = Duration::from_secs(60);

/// How far the event loop has come, as it says itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Programming {
    /// When everything was last programmed; `None` before the first complete sync.
    pub synced: Option<SystemTime>,
    /// Since when something waits to be programmed.
    pub behind_since: Option<Instant>,
    /// When the loop last came round; it does so even if nothing happens.
    pub alive: Option<Instant>,
    /// Whether the node is about to go (KEP-3836): no new load balancer traffic for it.
    pub leaving: bool,
}

impl Programming {
    /// Whether programming keeps up: there was a complete sync, nothing waits for longer than
    /// [`TIMEOUT`], and the loop still moves.
    #[must_use]
    pub fn is_healthy(&self, now: Instant) -> bool {
        let recent = |time: Instant| now.saturating_duration_since(time) < TIMEOUT;
        self.synced.is_some() && self.behind_since.is_none_or(recent) && self.alive.is_some_and(recent)
    }
}

/// A time as in RFC 3339, in UTC and whole seconds.
#[must_use]
pub fn rfc3339(time: SystemTime) -> String {
    let seconds = time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let (days, rest) = (seconds / 86_400, seconds % 86_400);
    // Days since 0000-03-01, so that the leap day is the last of its year; 400 years have 146,097 days.
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    let (hour, minute, second) = (rest / 3_600, rest / 60 % 60, rest % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn healthy_means_synced_once_not_behind_for_long_and_moving() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let synced = Programming { synced: Some(UNIX_EPOCH), alive: Some(at(100)), ..Programming::default() };
        let behind = |since| Programming { behind_since: Some(at(since)), ..synced.clone() };
        let table = [
            (Programming::default(), 100, false),
            (Programming { synced: None, ..synced.clone() }, 100, false),
            (synced.clone(), 100, true),
            (behind(90), 100, true),
            (behind(41), 100, true),
            (behind(40), 100, false),
            (synced, 160, false),
        ];
        for (programming, now, expected) in table {
            assert_eq!(programming.is_healthy(at(now)), expected, "{programming:?} at {now}");
        }
    }

    #[test]
    fn times_are_rfc_3339() {
        // date -u -d @N +%FT%TZ
        for (seconds, expected) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_399, "2000-02-28T23:59:59Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (1_735_689_600, "2025-01-01T00:00:00Z"),
            (4_107_542_400, "2100-03-01T00:00:00Z"),
        ] {
            assert_eq!(rfc3339(UNIX_EPOCH + Duration::from_secs(seconds)), expected);
        }
    }
}
