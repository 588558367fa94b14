//! The text of one file -> what it defines.
//!
//! Objects are converted one by one while the text is read, also within a `List`: at no time are all of a
//! bundle's objects in memory.

use std::collections::{BTreeSet, HashSet};
use std::fmt;

use kube::core::ObjectMeta;
use serde::de::{
    Deserialize, DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor,
};

use super::load::hash;
use super::yaml;
use crate::model::{Key, Kind, Object};
use crate::source::convert::{Context, Converted, Problem};
use crate::source::field::{Field, List, metadata, object_shape};
use crate::source::objects::{
    Endpoint, EndpointPort, EndpointSlice, Endpoints, Node, Service, ServiceCidr, Spec, Status, Subset,
};

/// What a file says about one object.
#[derive(Debug)]
pub(super) struct Definition {
    pub(super) key: Key,
    /// `None` if the object is not ours to serve.
    pub(super) object: Option<Object>,
    /// Hash of `object`; [`NOT_OURS`] without one.
    pub(super) hash: u64,
}

/// The hash of an object that is not ours to serve.
pub(super) const NOT_OURS: u64 = 0;

/// What a file defines.
#[derive(Debug, Default)]
pub(super) struct Parsed {
    /// Each object once.
    pub(super) definitions: Vec<Definition>,
    /// Values that cannot be used.
    pub(super) problems: Vec<Problem>,
    /// Kinds of objects that mean nothing to us.
    pub(super) skipped: BTreeSet<String>,
    /// Objects that are defined more than once; the first counts.
    pub(super) twice: Vec<Key>,
}

impl Parsed {
    /// Adds what stands further down in the same file.
    pub(super) fn append(&mut self, mut later: Self) {
        self.definitions.append(&mut later.definitions);
        self.problems.append(&mut later.problems);
        self.skipped.append(&mut later.skipped);
    }

    /// Leaves out what was defined before.
    fn unique(mut self) -> Self {
        if self.definitions.len() > 1 {
            let mut seen = HashSet::with_capacity(self.definitions.len());
            let twice = &mut self.twice;
            self.definitions.retain(|definition| {
                let first = seen.insert(definition.key.clone());
                if !first {
                    twice.push(definition.key.clone());
                }
                first
            });
        }
        // a file mostly defines one object, and there may be 20,000 of them waiting
        self.definitions.shrink_to_fit();
        self
    }
}

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

/// What an object is.
#[derive(Clone, Debug, Default)]
pub(super) struct Type {
    api_version: String,
    kind: String,
}

/// Every field that some kind has at its top.
#[derive(Default)]
struct Fields {
    types: Type,
    metadata: ObjectMeta,
    spec: Field<Spec>,
    status: Field<Status>,
    address_type: Field<String>,
    endpoints: List<Endpoint>,
    ports: List<EndpointPort>,
    subsets: List<Subset>,
}

#[derive(serde::Deserialize)]
#[serde(field_identifier, rename_all = "camelCase")]
enum Name {
    ApiVersion,
    Kind,
    Metadata,
    Spec,
    Status,
    AddressType,
    Endpoints,
    Ports,
    Subsets,
    Items,
    #[serde(other)]
    Other,
}

struct Metadata(ObjectMeta);

impl<'de> Deserialize<'de> for Metadata {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        metadata(deserializer).map(Self)
    }
}

impl Fields {
    /// Reads the value of a field; items of a list are the caller's.
    fn read<'de, A: MapAccess<'de>>(&mut self, name: &Name, map: &mut A) -> Result<(), A::Error> {
        match name {
            Name::ApiVersion => {
                self.types.api_version = map.next_value::<Field<String>>()?.into_value().unwrap_or_default();
            }
            Name::Kind => {
                self.types.kind = map.next_value::<Field<String>>()?.into_value().unwrap_or_default();
            }
            Name::Metadata => self.metadata = map.next_value::<Metadata>()?.0,
            Name::Spec => self.spec = map.next_value()?,
            Name::Status => self.status = map.next_value()?,
            Name::AddressType => self.address_type = map.next_value()?,
            Name::Endpoints => self.endpoints = map.next_value()?,
            Name::Ports => self.ports = map.next_value()?,
            Name::Subsets => self.subsets = map.next_value()?,
            Name::Items | Name::Other => drop(map.next_value::<IgnoredAny>()?),
        }
        Ok(())
    }

    /// Converts the object; `None` if its kind means nothing to us.
    fn convert(self, context: &Context) -> Option<Converted> {
        let (group, _version) = self.types.api_version.split_once('/').unwrap_or_default();
        let (metadata, spec, status) = (self.metadata, self.spec, self.status);
        let converted = match (group, self.types.kind.as_str()) {
            ("", "Service") => context.service(&Service { metadata, spec, status }),
            ("", "Node") => context.node(&Node { metadata, spec, status }),
            ("", "Endpoints") => context.endpoints(&Endpoints { metadata, subsets: self.subsets }),
            ("" | "networking.k8s.io", "ServiceCIDR") => {
                context.service_cidr(&ServiceCidr { metadata, spec })
            }
            ("" | "discovery.k8s.io", "EndpointSlice") => {
                let (address_type, endpoints, ports) = (self.address_type, self.endpoints, self.ports);
                context.endpoint_slice(&EndpointSlice { metadata, address_type, endpoints, ports })
            }
            _ => return None,
        };
        Some(converted)
    }
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

impl Type {
    /// What the items of this list are, if it says so: those of a `ServiceList` are Services.
    fn item(&self) -> Self {
        let kind = self.kind.strip_suffix("List").unwrap_or_default().to_owned();
        Self { kind, api_version: self.api_version.clone() }
    }
}

impl Document<'_> {
    fn add(&mut self, fields: Fields) {
        let types = fields.types.clone();
        let Some(converted) = fields.convert(self.context) else {
            self.parsed.skipped.insert(format!("{} {}", types.api_version, types.kind));
            return;
        };
        self.parsed.problems.extend(converted.problems);
        self.parsed.definitions.extend(converted.outcome.map(|outcome| match outcome {
            Ok(object) => Definition { key: key(&object), hash: hash(&object), object: Some(object) },
            Err(key) => Definition { key, hash: NOT_OURS, object: None },
        }));
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

object_shape!(Fields);

impl<'de> Deserialize<'de> for Fields {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(FieldsVisitor)
    }
}

struct FieldsVisitor;

impl<'de> Visitor<'de> for FieldsVisitor {
    type Value = Fields;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a Kubernetes object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Fields, A::Error> {
        let mut fields = Fields::default();
        while let Some(name) = map.next_key()? {
            fields.read(&name, &mut map)?;
        }
        Ok(fields)
    }
}

/// The key of an object.
pub(super) fn key(object: &Object) -> Key {
    match object {
        Object::Service(name, _) => Key::Service(name.clone()),
        Object::EndpointSlice(name, ..) => Key::EndpointSlice(name.clone()),
        Object::Endpoints(name, _) => Key::Endpoints(name.clone()),
        Object::Node(_) => Key::Node,
        Object::ServiceCidr(name, _) => Key::ServiceCidr(name.clone()),
    }
}

/// The kind of a key.
pub(super) const fn kind(key: &Key) -> Kind {
    match key {
        Key::Service(_) => Kind::Service,
        Key::EndpointSlice(_) => Kind::EndpointSlice,
        Key::Endpoints(_) => Kind::Endpoints,
        Key::Node => Kind::Node,
        Key::ServiceCidr(_) => Kind::ServiceCidr,
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
}
