//! Durations as Go writes them: `1h30m`, `250ms`, `0s`. Text in, [`Duration`] out. PURE.

use std::time::Duration;

/// The units and their length in nanoseconds; where one is the beginning of another, the longer
/// one stands first. The two spellings of a microsecond are U+00B5 and U+03BC, as in Go.
const UNITS: [(&str, u64); 8] = [
    ("ns", 1),
    ("us", 1_000),
    ("\u{b5}s", 1_000),
    ("\u{3bc}s", 1_000),
    ("ms", 1_000_000),
    ("s", 1_000_000_000),
    ("m", 60_000_000_000),
    ("h", 3_600_000_000_000),
];

/// Go keeps a duration in a signed 64-bit count of nanoseconds: about 292 years.
const LONGEST: u64 = i64::MAX.unsigned_abs();

/// Reads a duration: an optional sign, then numbers with a unit each, or a bare `0`.
///
/// # Errors
/// A sentence's end that says what is wrong (`must be ...`), also for a negative duration: no field
/// of the configuration has a use for one.
pub(super) fn parse(text: &str) -> Result<Duration, String> {
    let (negative, unsigned) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    let nanoseconds = if unsigned == "0" { Some(0) } else { sum(unsigned) };
    match nanoseconds {
        None => Err(format!("must be a duration such as 30s, 1h30m or 250ms, not `{text}`")),
        Some(total) if negative && total > 0 => Err(format!("must not be negative, but is {text}")),
        Some(total) => Ok(Duration::from_nanos(total)),
    }
}

/// Writes a duration as Go does, to the millisecond: `24h0m0s`, `1m30s`, `0.25s`.
pub(super) fn format(duration: Duration) -> String {
    let (seconds, milliseconds) = (duration.as_secs(), duration.subsec_millis());
    let (hours, minutes) = (seconds / 3600, seconds / 60 % 60);
    let mut text = String::new();
    if hours > 0 {
        text = format!("{hours}h");
    }
    if seconds >= 60 {
        text = format!("{text}{minutes}m");
    }
    let fraction = format!(".{milliseconds:03}");
    format!("{text}{}{}s", seconds % 60, fraction.trim_end_matches('0').trim_end_matches('.'))
}

/// The sum of all numbers with their units; `None` where there is none, where one of them cannot be
/// read, or where the sum is longer than Go can keep.
fn sum(text: &str) -> Option<u64> {
    let (mut total, mut rest) = step(text)?;
    while !rest.is_empty() {
        let (nanoseconds, after) = step(rest)?;
        total = total.checked_add(nanoseconds)?;
        rest = after;
    }
    (total <= LONGEST).then_some(total)
}

/// The first number with its unit in nanoseconds, and the text behind it.
fn step(text: &str) -> Option<(u64, &str)> {
    let (whole, text) = digits(text);
    let (fraction, text) = match text.strip_prefix('.') {
        Some(rest) => digits(rest),
        None => ("", text),
    };
    if whole.is_empty() && fraction.is_empty() {
        return None;
    }
    let (unit, rest) =
        UNITS.iter().find_map(|(name, length)| text.strip_prefix(name).map(|rest| (*length, rest)))?;
    let whole: u64 = if whole.is_empty() { 0 } else { whole.parse().ok()? };
    let nanoseconds = whole.checked_mul(unit)?.checked_add(part_of(fraction, unit))?;
    Some((nanoseconds, rest))
}

/// The decimal digits that `text` begins with, and what follows them.
fn digits(text: &str) -> (&str, &str) {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    text.split_at(end)
}

/// `0.fraction` of `unit`, cut off below a nanosecond. Digits behind the fifteenth are worth less
/// than that in every unit.
fn part_of(fraction: &str, unit: u64) -> u64 {
    let mut scale = 1_u64;
    let mut value = 0_u64;
    for digit in fraction.bytes().take(15) {
        scale *= 10;
        value = value * 10 + u64::from(digit - b'0');
    }
    // smaller than `unit`, because value < scale
    u64::try_from(u128::from(value) * u128::from(unit) / u128::from(scale)).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_as_go_reads_them() {
        let table = [
            ("0", 0),
            ("0s", 0),
            ("-0s", 0),
            ("+5s", 5_000_000_000),
            ("10ms", 10_000_000),
            ("1h30m", 5_400_000_000_000),
            ("15m0s", 900_000_000_000),
            ("24h0m0s", 86_400_000_000_000),
            ("1.5h", 5_400_000_000_000),
            (".5s", 500_000_000),
            ("1.s", 1_000_000_000),
            ("3us2ns", 3_002),
            ("7\u{b5}s", 7_000),
            ("7\u{3bc}s", 7_000),
            ("0.0000000001s", 0),
        ];
        for (text, nanoseconds) in table {
            assert_eq!(parse(text), Ok(Duration::from_nanos(nanoseconds)), "{text}");
        }
    }

    #[test]
    fn what_is_written_can_be_read() {
        let table = [
            (0, "0s"),
            (250, "0.25s"),
            (5_000, "5s"),
            (90_000, "1m30s"),
            (3_600_000, "1h0m0s"),
            (86_400_000, "24h0m0s"),
            (3_661_001, "1h1m1.001s"),
        ];
        for (milliseconds, text) in table {
            let duration = Duration::from_millis(milliseconds);
            assert_eq!(format(duration), text);
            assert_eq!(parse(text), Ok(duration));
        }
    }

    #[test]
    fn what_go_refuses_is_refused() {
        for text in ["", "5", "s", ".s", "1d", "1h 30m", "5S", "--5s", "1e3s", "9999999h", "1..5s"] {
            let problem = parse(text).unwrap_err();
            assert!(problem.starts_with("must be a duration such as"), "{text}: {problem}");
        }
        assert_eq!(parse("-5s"), Err("must not be negative, but is -5s".to_owned()));
    }
}
