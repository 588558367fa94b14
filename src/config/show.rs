//! The effective configuration as a file, each line with the place that it comes from. PURE.

use std::fmt::Write as _;
use std::path::Path;

use serde_json::Value;

use super::{Loaded, Origin};

impl Loaded {
    /// The `KubeProxyConfiguration` in force as YAML that can be read back; `file` is what was read, if
    /// anything was.
    #[must_use]
    pub fn to_yaml(&self, file: Option<&Path>) -> String {
        let mut lines = Lines { loaded: self, file, text: String::new() };
        lines.map(&self.config.effective(), "");
        lines.text
    }
}

struct Lines<'a> {
    loaded: &'a Loaded,
    file: Option<&'a Path>,
    text: String,
}

impl Lines<'_> {
    /// The fields of a map; `prefix` is its path with a dot behind it.
    fn map(&mut self, map: &Value, prefix: &str) {
        let indent = "  ".repeat(prefix.matches('.').count());
        for (name, value) in map.as_object().into_iter().flatten() {
            let path = format!("{prefix}{name}");
            match value {
                Value::Object(_) => {
                    self.line(format_args!("{indent}{name}:"), None);
                    self.map(value, &format!("{path}."));
                }
                Value::Array(items) => {
                    self.line(format_args!("{indent}{name}:"), Some(&path));
                    for item in items {
                        self.line(format_args!("{indent}- {}", scalar(item)), None);
                    }
                }
                _ => self.line(format_args!("{indent}{name}: {}", scalar(value)), Some(&path)),
            }
        }
    }

    fn line(&mut self, line: std::fmt::Arguments<'_>, path: Option<&str>) {
        let comment =
            path.filter(|path| !["apiVersion", "kind"].contains(path)).map(|path| self.origin(path));
        // writing to a String cannot fail
        let _ = match comment {
            Some(comment) => writeln!(self.text, "{line} # {comment}"),
            None => writeln!(self.text, "{line}"),
        };
    }

    fn origin(&self, path: &str) -> String {
        let file = || self.file.unwrap_or(Path::new("file")).display();
        match self.loaded.origins.get(path) {
            Some(Origin::File(Some(line))) => format!("{}:{line}", file()),
            Some(Origin::File(None)) => file().to_string(),
            Some(Origin::Flag(flag)) => (*flag).to_owned(),
            Some(Origin::Environment(name)) => format!("environment, {name}"),
            Some(Origin::Host) => "host name".to_owned(),
            None => "default".to_owned(),
        }
    }
}

/// A value as YAML has it; texts in quotes where they could be read as something else. JSON's quotes are
/// YAML's.
fn scalar(value: &Value) -> String {
    let Value::String(text) = value else { return value.to_string() };
    let plain = |c: char| c.is_ascii_alphanumeric() || ['/', '.', '_', '-'].contains(&c);
    let word = text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '/') && text.chars().all(plain);
    let other = ["true", "false", "null", "yes", "no", "on", "off", "y", "n"].iter();
    let taken = other.into_iter().any(|other| text.eq_ignore_ascii_case(other));
    if word && !taken { text.clone() } else { value.to_string() }
}
