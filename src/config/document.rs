//! The text of a configuration file as a tree that remembers its lines. PURE.
//!
//! Serde's derived structs would tell neither the path of a wrong field nor, once parsed, its line;
//! a tree of a few dozen nodes tells both, and is dropped when the [`super::Config`] is made.

use std::fmt;
use std::path::Path;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_saphyr::Spanned;

use super::error::{ConfigError, Origin, Place};

const API_VERSION: &str = "kubeproxy.config.k8s.io/v1alpha1";
const KIND: &str = "KubeProxyConfiguration";

/// A value and where it was written.
#[derive(Clone, Debug)]
pub(super) struct Node {
    pub value: Value,
    pub origin: Origin,
}

/// A value of YAML or JSON. Two are equal whatever their places.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Value {
    Null,
    Flag(bool),
    Integer(i128),
    Float(f64),
    Text(String),
    List(Vec<Node>),
    Map(Vec<Field>),
}

/// One entry of a map.
#[derive(Clone, Debug)]
pub(super) struct Field {
    pub name: String,
    pub line: Option<u64>,
    pub node: Node,
}

impl Value {
    /// Whether it means the same as no value at all.
    pub fn says_nothing(&self) -> bool {
        match self {
            Self::Null => true,
            Self::Text(text) => text.is_empty(),
            Self::List(items) => items.is_empty(),
            Self::Map(_) | Self::Flag(_) | Self::Integer(_) | Self::Float(_) => false,
        }
    }
}

/// Parses `text` and picks the fields of the one `KubeProxyConfiguration` among its documents,
/// without `apiVersion`, `kind` and `metadata` (tools write that one; the type does not have it).
///
/// # Errors
/// Text that is neither YAML nor JSON; none or several such documents.
pub(super) fn pick(text: &str, path: &Path) -> Result<Vec<Field>, ConfigError> {
    let documents = serde_saphyr::from_multiple::<Spanned<Node>>(text).map_err(|error| {
        let line = error.location().map(|location| location.line());
        let problem = error.without_snippet().to_string();
        ConfigError::Syntax { place: Place { path: path.to_owned(), line }, problem }
    })?;
    let wrong =
        |line, problem| Err(ConfigError::Document { place: Place { path: path.to_owned(), line }, problem });
    let mut chosen = None;
    let mut kinds = Vec::new();
    for document in documents {
        let line = line_of(document.referenced);
        let Value::Map(fields) = document.value.value else {
            return wrong(line, format!("a document is {}, not a map of fields", document.value.value));
        };
        let (version, kind) = (entry(&fields, "apiVersion"), entry(&fields, "kind"));
        if kind != Some(KIND) {
            kinds.push(kind.unwrap_or("none").to_owned());
        } else if version != Some(API_VERSION) {
            let version = version.unwrap_or("none");
            return wrong(line, format!("the apiVersion of the {KIND} is `{version}`"));
        } else if chosen.replace(fields).is_some() {
            return wrong(line, format!("this is a second {KIND}"));
        }
    }
    let Some(mut fields) = chosen else { return wrong(None, nothing_chosen(&kinds)) };
    fields.retain(|field| !["apiVersion", "kind", "metadata"].contains(&&*field.name));
    Ok(fields)
}

/// Says that no document is the one looked for, with the likeliest reason.
fn nothing_chosen(kinds: &[String]) -> String {
    if kinds.is_empty() {
        return "the file is empty".to_owned();
    }
    if kinds.iter().any(|kind| kind == "ConfigMap") {
        return "this is a ConfigMap; store the text of its key config.conf in a file instead".to_owned();
    }
    format!("there is no {KIND}, only kind {}", kinds.join(", "))
}

/// The text that the field `name` has.
fn entry<'a>(fields: &'a [Field], name: &str) -> Option<&'a str> {
    fields.iter().find(|field| field.name == name).and_then(|field| match &field.node.value {
        Value::Text(text) => Some(text.as_str()),
        _ => None,
    })
}

/// Takes over the line that the reader noted; line 0 is its word for "unknown".
fn located(spanned: Spanned<Node>) -> Node {
    Node { value: spanned.value.value, origin: Origin::File(line_of(spanned.referenced)) }
}

fn line_of(location: serde_saphyr::Location) -> Option<u64> {
    Some(location.line()).filter(|line| *line > 0)
}

impl PartialEq for Node {
    fn eq(&self, other: &Self) -> bool {
        self.value == other.value
    }
}

impl PartialEq for Field {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name && self.node == other.node
    }
}

/// As an error message quotes it.
impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Null => f.write_str("null"),
            Self::Flag(flag) => write!(f, "`{flag}`"),
            Self::Integer(number) => write!(f, "the number {number}"),
            Self::Float(number) => write!(f, "the number {number}"),
            Self::Text(text) => write!(f, "`{text}`"),
            Self::List(_) => f.write_str("a list"),
            Self::Map(_) => f.write_str("a map"),
        }
    }
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = deserializer.deserialize_any(AnyValue)?;
        Ok(Self { value, origin: Origin::File(None) })
    }
}

/// Builds a [`Value`] from whatever the text holds.
struct AnyValue;

impl<'de> Visitor<'de> for AnyValue {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value of YAML or JSON")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_none<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, flag: bool) -> Result<Value, E> {
        Ok(Value::Flag(flag))
    }

    fn visit_i64<E>(self, number: i64) -> Result<Value, E> {
        Ok(Value::Integer(number.into()))
    }

    fn visit_u64<E>(self, number: u64) -> Result<Value, E> {
        Ok(Value::Integer(number.into()))
    }

    fn visit_i128<E>(self, number: i128) -> Result<Value, E> {
        Ok(Value::Integer(number))
    }

    fn visit_f64<E>(self, number: f64) -> Result<Value, E> {
        Ok(Value::Float(number))
    }

    fn visit_str<E>(self, text: &str) -> Result<Value, E> {
        Ok(Value::Text(text.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element::<Spanned<Node>>()? {
            list.push(located(item));
        }
        Ok(Value::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        let mut fields = Vec::new();
        while let Some(key) = entries.next_key::<Spanned<String>>()? {
            let node = located(entries.next_value::<Spanned<Node>>()?);
            fields.push(Field { name: key.value, line: line_of(key.referenced), node });
        }
        Ok(Value::Map(fields))
    }
}
