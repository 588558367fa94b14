//! Metrics as text, in the format that is asked for. PURE.

use std::fmt::Write as _;

use prometheus_client::registry::Registry;

/// Which of the two text formats.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Prometheus' own, which everything reads.
    Text,
    /// `OpenMetrics` 1.0.
    OpenMetrics,
}

impl Format {
    /// What an `Accept` header asks for: `OpenMetrics` if it names that with a weight above zero, as
    /// Prometheus does, else Prometheus' own.
    #[must_use]
    pub fn accepted(accept: &str) -> Self {
        let wants = |part: &str| {
            let mut words = part.split(';').map(str::trim);
            let open = words.next() == Some("application/openmetrics-text");
            let zero = |word: &str| word.strip_prefix("q=").is_some_and(|q| q.trim().parse() == Ok(0.0_f32));
            let version = |word: &str| word.strip_prefix("version=").is_none_or(|version| version == "1.0.0");
            open && words.all(|word| !zero(word) && version(word))
        };
        if accept.split(',').any(|part| wants(part.trim())) { Self::OpenMetrics } else { Self::Text }
    }

    /// Its `Content-Type`.
    #[must_use]
    pub const fn content_type(self) -> &'static str {
        match self {
            Self::Text => "text/plain; version=0.0.4; charset=utf-8",
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }
}

/// Everything in the registry.
///
/// # Errors
/// A metric that cannot be written as text.
pub fn encode(registry: &Registry, format: Format) -> Result<String, std::fmt::Error> {
    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, registry)?;
    match format {
        Format::OpenMetrics => Ok(text),
        Format::Text => plain(&text),
    }
}

/// `OpenMetrics` in Prometheus' own words: there HELP and TYPE name a counter with its `_total`, and
/// there are neither units nor an end.
fn plain(text: &str) -> Result<String, std::fmt::Error> {
    let mut out = String::with_capacity(text.len());
    let mut lines = text.lines().peekable();
    while let Some(line) = lines.next() {
        let Some(help) = line.strip_prefix("# HELP ") else {
            let kind = line.strip_prefix("# TYPE ").and_then(|rest| rest.split_once(' '));
            match kind {
                Some((name, "counter")) => writeln!(out, "# TYPE {name}_total counter")?,
                Some((name, "unknown")) => writeln!(out, "# TYPE {name} untyped")?,
                _ if line == "# EOF" || line.starts_with("# UNIT ") => {}
                _ => writeln!(out, "{line}")?,
            }
            continue;
        };
        let is_counter =
            lines.peek().is_some_and(|next| next.ends_with(" counter") && next.starts_with("# TYPE "));
        match help.split_once(' ') {
            Some((name, help)) if is_counter => writeln!(out, "# HELP {name}_total {help}")?,
            _ => writeln!(out, "{line}")?,
        }
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn open_metrics_is_for_those_who_ask() {
        let prometheus = "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,\
                          application/openmetrics-text;version=0.0.1;q=0.5,text/plain;version=0.0.4;q=0.4,*/*;q=0.1";
        for (accept, format) in [
            (prometheus, Format::OpenMetrics),
            ("application/openmetrics-text", Format::OpenMetrics),
            ("text/plain, application/openmetrics-text; version=1.0.0", Format::OpenMetrics),
            ("application/openmetrics-text;version=0.0.1", Format::Text),
            ("application/openmetrics-text;q=0", Format::Text),
            ("text/plain;version=0.0.4", Format::Text),
            ("*/*", Format::Text),
            ("", Format::Text),
        ] {
            assert_eq!(Format::accepted(accept), format, "{accept}");
        }
    }

    #[test]
    fn counters_carry_their_suffix_in_the_plain_format() {
        let open = "# HELP a Some.\n# TYPE a counter\na_total 1\n# HELP b_total A gauge.\n# TYPE b_total gauge\n\
                    # UNIT b_total seconds\nb_total 2\n# EOF\n";
        let expected = "# HELP a_total Some.\n# TYPE a_total counter\na_total 1\n# HELP b_total A gauge.\n\
                        # TYPE b_total gauge\nb_total 2\n";
        assert_eq!(plain(open).unwrap(), expected);
    }
}
