//! Reading the fields of one section: each is asked for by name, and what nobody asked for is
//! unknown. Every error names file, line and path; every warning the path. PURE.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use super::Warning;
use super::document::{Field, Node, Value};
use super::duration;
use super::error::{ConfigError, Origin, Place};

/// A map of the configuration while it is read: the whole of it, or a part such as `conntrack`.
pub(super) struct Section<'a> {
    /// The file that was read, if there is one.
    file: Option<&'a Path>,
    /// The path of the section itself with a dot behind it; empty for the whole.
    prefix: String,
    /// What has not been asked for yet.
    fields: Vec<Field>,
    /// Every name that was asked for.
    known: Vec<&'static str>,
    /// The paths of all fields that were asked for, with those of the sections inside.
    paths: Vec<String>,
    /// Whether kube-proxy would use this section; where it would not, nothing is lost and nobody warned.
    in_force: bool,
    warnings: Vec<Warning>,
    /// Where the fields that say something were written, by their paths.
    origins: BTreeMap<String, Origin>,
}

/// What is known of a section when it was read.
pub(super) struct Read {
    /// In the order in which the fields were asked for.
    pub warnings: Vec<Warning>,
    /// Where each field that says something was written.
    pub origins: BTreeMap<String, Origin>,
    /// The path of every field that it can have.
    pub paths: Vec<String>,
}

impl<'a> Section<'a> {
    /// The whole configuration, of `file` if there is one.
    pub fn whole(file: Option<&'a Path>, fields: Vec<Field>) -> Self {
        Self {
            file,
            prefix: String::new(),
            fields,
            known: Vec::new(),
            paths: Vec::new(),
            in_force: true,
            warnings: Vec::new(),
            origins: BTreeMap::new(),
        }
    }

    /// Whether there is a file, not only flags.
    pub fn has_file(&self) -> bool {
        self.file.is_some()
    }

    /// Reads the map `name` with `read`; one that is missing or null reads as an empty one.
    pub fn section<T>(
        &mut self,
        name: &'static str,
        read: impl FnOnce(&mut Section<'a>) -> Result<T, ConfigError>,
    ) -> Result<T, ConfigError> {
        let fields = self.get(name, |value| match value {
            Value::Map(fields) => Ok(fields.clone()),
            other => Err(format!("must be a map of fields, not {other}")),
        })?;
        let mut section = Section::whole(self.file, fields.unwrap_or_default());
        section.prefix = format!("{}{name}.", self.prefix);
        section.in_force = self.in_force;
        let result = read(&mut section)?;
        let read = section.finish()?;
        self.warnings.extend(read.warnings);
        self.origins.extend(read.origins);
        self.paths.extend(read.paths);
        Ok(result)
    }

    /// Says whether kube-proxy would use what this section holds.
    pub fn set_in_force(&mut self, in_force: bool) {
        self.in_force = in_force;
    }

    /// Whether kube-proxy would use what this section holds.
    pub fn in_force(&self) -> bool {
        self.in_force
    }

    /// The value of the field `name`; `None` where it is missing or null.
    pub fn get<T>(
        &mut self,
        name: &'static str,
        read: impl FnOnce(&Value) -> Result<T, String>,
    ) -> Result<Option<T>, ConfigError> {
        let Some(node) = self.take(name) else { return Ok(None) };
        let value = read(&node.value).map_err(|problem| self.wrong(name, Some(node.origin), problem))?;
        if !node.value.says_nothing() {
            self.origins.insert(format!("{}{name}", self.prefix), node.origin);
        }
        Ok(Some(value))
    }

    /// The text of the field `name`; `None` where it is missing, null or empty.
    pub fn text(&mut self, name: &'static str) -> Result<Option<String>, ConfigError> {
        Ok(self.get(name, text)?.filter(|text| !text.is_empty()))
    }

    /// As [`Self::text`], read further by `read`.
    pub fn parsed<T>(
        &mut self,
        name: &'static str,
        read: impl FnOnce(&str) -> Result<T, String>,
    ) -> Result<Option<T>, ConfigError> {
        let value = self.get(name, |value| {
            let text = text(value)?;
            if text.is_empty() { Ok(None) } else { read(&text).map(Some) }
        })?;
        Ok(value.flatten())
    }

    /// The items of the list `name`, each with its place; empty where it is missing or null.
    pub fn list<T>(
        &mut self,
        name: &'static str,
        read: impl Fn(&Value) -> Result<T, String>,
    ) -> Result<Vec<T>, ConfigError> {
        let items = self.get(name, |value| match value {
            Value::List(items) => Ok(items.clone()),
            other => Err(format!("must be a list, not {other}")),
        })?;
        let items = items.unwrap_or_default();
        let read_item = |(index, item): (usize, &Node)| {
            let path = format!("{name}[{index}]");
            read(&item.value).map_err(|problem| self.wrong(&path, Some(item.origin), problem))
        };
        items.iter().enumerate().map(read_item).collect()
    }

    /// Reads a field that shunt does not honour, and warns if its value is none of `quiet`: those
    /// that ask for nothing, and kube-proxy's default. `meaning` says what that is for the user.
    pub fn unused<T, Q>(
        &mut self,
        name: &'static str,
        read: impl FnOnce(&Value) -> Result<T, String>,
        quiet: &[Q],
        meaning: &str,
    ) -> Result<Option<T>, ConfigError>
    where
        T: PartialEq<Q>,
    {
        let value = self.get(name, read)?;
        if value.as_ref().is_some_and(|value| !quiet.iter().any(|harmless| value == harmless)) {
            self.warn(name, meaning);
        }
        Ok(value)
    }

    /// Says that the field at the path `written` is in force as the one at the path `meant`.
    pub fn stands_for(&mut self, written: &str, meant: &str) {
        let origin = self.origins.get(written).copied();
        self.origins.remove(meant);
        self.origins.extend(origin.map(|origin| (meant.to_owned(), origin)));
    }

    /// Warns about the field `name`, or the flag that gave it, unless kube-proxy would not use it either.
    pub fn warn(&mut self, name: &str, message: impl Into<String>) {
        if self.in_force {
            let path = format!("{}{name}", self.prefix);
            let field = match self.origins.get(&path) {
                Some(Origin::Flag(flag)) => (*flag).to_owned(),
                _ => path,
            };
            self.warnings.push(Warning { field, message: message.into() });
        }
    }

    /// The error that the value of the field `name`, written at `origin`, is wrong. Without an origin it
    /// does not go with other fields.
    pub fn wrong(&self, name: &str, origin: Option<Origin>, problem: String) -> ConfigError {
        let field = format!("{}{name}", self.prefix);
        let origin = origin.or_else(|| self.origins.get(&field).copied());
        match origin {
            Some(Origin::Flag(name) | Origin::Environment(name)) => ConfigError::Given { name, problem },
            Some(Origin::File(line)) => ConfigError::Value { place: self.place(line), field, problem },
            Some(Origin::Host) | None => ConfigError::Value { place: self.place(None), field, problem },
        }
    }

    /// Ends the reading.
    ///
    /// # Errors
    /// A field that nobody asked for.
    pub fn finish(self) -> Result<Read, ConfigError> {
        let Some(field) = self.fields.first() else {
            return Ok(Read { warnings: self.warnings, origins: self.origins, paths: self.paths });
        };
        let spelled = self.known.iter().find(|known| known.eq_ignore_ascii_case(&field.name));
        let hint = spelled.map_or_else(
            || format!("remove it, or use one of {}", self.known.join(", ")),
            |known| format!("write `{known}`, case matters"),
        );
        let name = format!("{}{}", self.prefix, field.name);
        Err(ConfigError::UnknownField { place: self.place(field.line), field: name, hint })
    }

    /// Takes the field `name` out, unless it is null.
    fn take(&mut self, name: &'static str) -> Option<Node> {
        self.known.push(name);
        self.paths.push(format!("{}{name}", self.prefix));
        let index = self.fields.iter().position(|field| field.name == name)?;
        Some(self.fields.remove(index).node).filter(|node| !matches!(node.value, Value::Null))
    }

    fn place(&self, line: Option<u64>) -> Place {
        Place { path: self.file.unwrap_or(Path::new("command line")).to_owned(), line }
    }
}

/// A text.
pub(super) fn text(value: &Value) -> Result<String, String> {
    match value {
        Value::Text(text) => Ok(text.clone()),
        Value::Flag(_) | Value::Integer(_) | Value::Float(_) => {
            Err(format!("must be a text, not {value}; put it into quotes"))
        }
        other => Err(format!("must be a text, not {other}")),
    }
}

/// True or false.
pub(super) fn flag(value: &Value) -> Result<bool, String> {
    match value {
        Value::Flag(flag) => Ok(*flag),
        other => Err(format!("must be true or false, not {other}")),
    }
}

/// A whole number from `least` to `most`.
pub(super) fn number(least: i32, most: i32) -> impl Fn(&Value) -> Result<i32, String> {
    move |value| {
        let number = match value {
            Value::Integer(number) => i32::try_from(*number).ok(),
            _ => None,
        };
        let range = if most == i32::MAX {
            format!("a whole number of {least} or more, at most {most}")
        } else {
            format!("a whole number from {least} to {most}")
        };
        number
            .filter(|number| (least..=most).contains(number))
            .ok_or_else(|| format!("must be {range}, not {value}"))
    }
}

/// Any number.
pub(super) fn float(value: &Value) -> Result<f64, String> {
    match value {
        Value::Float(number) => Ok(*number),
        // the only such field is a rate of requests; digits beyond 32 bits do not matter to it
        Value::Integer(number) => i32::try_from(*number)
            .map(f64::from)
            .map_err(|_| format!("must be a number of 32 bits, not {number}")),
        other => Err(format!("must be a number, not {other}")),
    }
}

/// A duration as Go writes it, not negative.
pub(super) fn span(value: &Value) -> Result<Duration, String> {
    match value {
        Value::Text(text) => duration::parse(text),
        other => Err(format!("must be a duration with its unit, such as 30s, not {other}")),
    }
}
