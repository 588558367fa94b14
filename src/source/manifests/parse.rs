//! The text of one file -> what it defines.
//!
//! Objects are converted one by one while the text is read, also within a `List`: at no time are all of a
//! bundle's objects in memory.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};

use super::definition::Parsed;
use super::fields::{Fields, Name, Type};
use super::yaml;
use crate::source::convert::Context;
use crate::source::field::Field;

/// Why a file cannot be read, and where.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Broken {
    /// Line and column, from 1; zero where the place is not known.
    pub(super) line: usize,
    pub(super) column: usize,
    pub(super) message: String,
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}, column {}: {}", self.line, self.column, self.message)
    }
}

/// Reads a file: JSON values one after the other, or YAML documents.
pub(super) fn parse(bytes: &[u8], json: bool, context: &Context) -> Result<Parsed, Broken> {
    let parsed = if json { json_values(bytes, context) } else { yaml::documents(bytes, context) };
    parsed.map(Parsed::unique)
}

/// Reads JSON values, any number of them.
pub(super) fn json_values(bytes: &[u8], context: &Context) -> Result<Parsed, Broken> {
    let mut parsed = Parsed::default();
    let mut reader = serde_json::Deserializer::from_slice(bytes);
    while let Err(_more) = reader.end() {
        let document = Document { context, parsed: &mut parsed, list: None };
        document.deserialize(&mut reader).map_err(|error| {
            let text = error.to_string();
            let message = text.split(" at line ").next().unwrap_or_default().to_owned();
            Broken { line: error.line(), column: error.column(), message }
        })?;
    }
    Ok(parsed)
}

/// Reads one document, which may be a list, and adds what it defines.
pub(super) struct Document<'a> {
    pub(super) context: &'a Context,
    pub(super) parsed: &'a mut Parsed,
    /// In a list: what the list says about its items.
    pub(super) list: Option<&'a Type>,
}

impl<'de> DeserializeSeed<'de> for Document<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Document<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a Kubernetes object")
    }

    /// A document with nothing in it.
    fn visit_unit<E: Error>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_none<E: Error>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut map: A) -> Result<(), A::Error> {
        let mut fields = Fields::default();
        // items that stand before the kind of their list, and do not say their own
        let mut waiting = Vec::new();
        let mut list = false;
        while let Some(name) = map.next_key()? {
            if matches!(name, Name::Items) {
                list = true;
                let types = fields.types.item();
                let (context, parsed) = (self.context, &mut *self.parsed);
                map.next_value_seed(Items { context, parsed, types, waiting: &mut waiting })?;
            } else {
                fields.read(&name, &mut map)?;
            }
        }
        if let Some(types) = self.list.filter(|_| fields.types.kind.is_empty()) {
            fields.types = types.clone();
        }
        if fields.types.kind.is_empty() {
            return Err(A::Error::custom("an object without kind"));
        }
        if !list {
            self.add(fields);
            return Ok(());
        }
        let types = fields.types.item();
        if types.kind.is_empty() && !waiting.is_empty() {
            return Err(A::Error::custom("an item without kind in a list"));
        }
        for mut item in waiting {
            item.types = types.clone();
            self.add(item);
        }
        Ok(())
    }
}

impl Document<'_> {
    fn add(&mut self, fields: Fields) {
        let types = fields.types.clone();
        match fields.convert(self.context) {
            Ok(converted) => self.parsed.add(converted),
            Err(Some(near_miss)) => self.parsed.problems.push(near_miss),
            Err(None) => _ = self.parsed.skipped.insert(format!("{} {}", types.api_version, types.kind)),
        }
    }
}

/// Reads the items of a list.
struct Items<'a> {
    context: &'a Context,
    parsed: &'a mut Parsed,
    types: Type,
    waiting: &'a mut Vec<Fields>,
}

impl<'de> DeserializeSeed<'de> for Items<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Items<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of Kubernetes objects")
    }

    fn visit_unit<E: Error>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<(), A::Error> {
        if self.types.kind.is_empty() {
            // `kubectl get -o json` puts a list's kind after its items, which then say their own
            while let Some(item) = items.next_element::<Field<Fields>>()? {
                match item {
                    Field::Unset => {}
                    Field::Wrong(_) => return Err(A::Error::custom("an item that is not an object")),
                    Field::Is(fields) if fields.types.kind.is_empty() => self.waiting.push(fields),
                    Field::Is(fields) => {
                        Document { context: self.context, parsed: self.parsed, list: None }.add(fields);
                    }
                }
            }
            return Ok(());
        }
        let list = Some(&self.types);
        while let Some(()) =
            items.next_element_seed(Document { context: self.context, parsed: self.parsed, list })?
        {}
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::NodeName;

    #[test]
    fn what_is_broken_is_told_with_its_place() {
        let rows = [
            ("{\"kind\": \"Service\",\n \"metadata\": {]", true, "line 2, column 15: "),
            ("{\"kind\": \"Service\"", true, "line 1, column 18: EOF while parsing an object"),
            ("7", true, "line 1, column 1: invalid type: integer `7`, expected a Kubernetes object"),
            ("kind: Service\nmetadata: {name: [}\n", false, "line 2, column 18: "),
            ("# a\n---\nkind: Service\n---\nkind: Service\n  spec: 1\n", false, "line 6, column "),
            ("---\napiVersion: v1\n", false, "line 1, column 1: an object without kind"),
            ("just text", false, "line 1, column 1: "),
            ("kind: List\nitems: 7\n", false, "line 2, column 1: invalid type: integer `7`, expected a list"),
            (
                "kind: List\nitems:\n- {metadata: {}}\n",
                false,
                "line 1, column 1: an item without kind in a list",
            ),
            ("kind: Service\nkind: Service\n", false, "line 2, column 1: "),
        ];
        let context = Context::new(NodeName("here".into()), None);
        for (text, json, message) in rows {
            let broken = parse(text.as_bytes(), json, &context).expect_err(text).to_string();
            assert!(broken.starts_with(message), "{text:?}: {broken}");
        }
        let broken = parse(b"kind: Service\n\xff", false, &context).expect_err("not UTF-8");
        assert_eq!(broken.to_string(), "line 2, column 1: not UTF-8 text");
    }

    #[test]
    fn a_kind_that_is_almost_known_is_a_problem() {
        let context = Context::new(NodeName("here".into()), None);
        let told = |api_version: &str, kind: &str| {
            let text = format!(
                "apiVersion: {api_version}\nkind: {kind}\nmetadata: {{name: web, namespace: shop}}\n"
            );
            let parsed = parse(text.as_bytes(), false, &context).expect("YAML");
            assert_eq!(parsed.problems.len() + parsed.skipped.len(), 1, "{api_version} {kind}");
            parsed.problems.first().map(ToString::to_string).unwrap_or_default()
        };
        assert_eq!(
            told("v1", "Servce"),
            "Service shop/web: kind: \"Servce\" with apiVersion \"v1\" means nothing to shunt: left out \
             (Service has apiVersion v1)"
        );
        let rows = [
            ("v1", "service", "Service"),
            ("v1", "Services", "Service"),
            ("v1", "Sevrice", "Service"),
            ("apps/v1", "Service", "Service"),
            ("v1", "Endpoint", "Endpoints"),
            ("v1", "Pods", "Pod"),
            ("discovery.k8s.io/v1", "Endpointslices", "EndpointSlice"),
            ("networking.k8s.io/v1", "EndpointSlice", "EndpointSlice"),
            ("networking.k8s.io/v1", "ServiceCidr", "ServiceCIDR"),
            ("serving.knative.dev/v1", "Service", ""),
            ("v1", "ServiceAccount", ""),
            ("v1", "Secret", ""),
            ("apps/v1", "Deployment", ""),
            ("networking.k8s.io/v1", "Ingress", ""),
            ("metrics.k8s.io/v1beta1", "NodeMetrics", ""),
        ];
        for (api_version, kind, meant) in rows {
            let told = told(api_version, kind);
            let got = told.split(' ').next().unwrap_or_default();
            assert_eq!(got, meant, "{api_version} {kind}");
        }
    }
}
