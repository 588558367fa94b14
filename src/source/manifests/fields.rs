//! One object of a file: its fields as they come, before its kind is known, and what they define.

use std::fmt;

use kube::core::ObjectMeta;
use serde::de::{Deserialize, DeserializeSeed, Deserializer, IgnoredAny, MapAccess, Visitor};
use strsim::osa_distance;

use super::definition::{Item, ItemKey};
use crate::model::Object;
use crate::source::convert::{Context, Converted, Problem};
use crate::source::field::{Field, List, object_shape};
use crate::source::metadata::{metadata, pod_metadata};
use crate::source::objects::{
    Endpoint, EndpointPort, EndpointSlice, Endpoints, Node, Pod, Service, ServiceCidr, Spec, Status, Subset,
};

/// What an object is.
#[derive(Clone, Debug, Default)]
pub(super) struct Type {
    pub(super) api_version: String,
    pub(super) kind: String,
}

impl Type {
    /// What the items of this list are, if it says so: those of a `ServiceList` are Services.
    pub(super) fn item(&self) -> Self {
        let kind = self.kind.strip_suffix("List").unwrap_or_default().to_owned();
        Self { kind, api_version: self.api_version.clone() }
    }
}

/// Every field that some kind has at its top.
#[derive(Default)]
pub(super) struct Fields {
    pub(super) types: Type,
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
pub(super) enum Name {
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

/// Reads `metadata`.
struct Metadata {
    /// Whether it may be that of a Pod.
    pod: bool,
}

impl<'de> DeserializeSeed<'de> for Metadata {
    type Value = ObjectMeta;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<ObjectMeta, D::Error> {
        if self.pod { pod_metadata(deserializer) } else { metadata(deserializer) }
    }
}

impl Fields {
    /// Reads the value of a field; items of a list are the caller's.
    pub(super) fn read<'de, A: MapAccess<'de>>(&mut self, name: &Name, map: &mut A) -> Result<(), A::Error> {
        match name {
            Name::ApiVersion => {
                self.types.api_version = map.next_value::<Field<String>>()?.into_value().unwrap_or_default();
            }
            Name::Kind => {
                self.types.kind = map.next_value::<Field<String>>()?.into_value().unwrap_or_default();
            }
            Name::Metadata => {
                let pod = matches!(self.types.kind.as_str(), "" | "Pod");
                self.metadata = map.next_value_seed(Metadata { pod })?;
            }
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

    /// Converts the object.
    ///
    /// # Errors
    ///
    /// If its kind means nothing to us; with a problem where that looks like a mistake.
    pub(super) fn convert(self, context: &Context) -> Result<Converted<Item, ItemKey>, Option<Problem>> {
        let (group, _version) = self.types.api_version.split_once('/').unwrap_or_default();
        let (metadata, spec, status) = (self.metadata, self.spec, self.status);
        let converted = match (group, self.types.kind.as_str()) {
            ("", "Service") => return Ok(service(context, &Service { metadata, spec, status })),
            ("", "Pod") => {
                let converted = context.pod(&Pod { metadata, spec, status });
                return Ok(converted.map(|(name, pod)| Item::Pod(name, pod), ItemKey::Pod));
            }
            ("", "Node") => context.node(&Node { metadata, spec, status }),
            ("", "Endpoints") => context.endpoints(&Endpoints { metadata, subsets: self.subsets }),
            ("" | "networking.k8s.io", "ServiceCIDR") => {
                context.service_cidr(&ServiceCidr { metadata, spec })
            }
            ("" | "discovery.k8s.io", "EndpointSlice") => {
                let (address_type, endpoints, ports) = (self.address_type, self.endpoints, self.ports);
                context.endpoint_slice(&EndpointSlice { metadata, address_type, endpoints, ports })
            }
            _ => return Err(near_miss(&self.types, &metadata)),
        };
        Ok(converted.map(|object| Item::Object(object, None), ItemKey::Object))
    }
}

/// The kinds that mean something to us, and where they belong.
const KINDS: [(&str, &str); 6] = [
    ("Service", "v1"),
    ("Endpoints", "v1"),
    ("Pod", "v1"),
    ("Node", "v1"),
    ("EndpointSlice", "discovery.k8s.io/v1"),
    ("ServiceCIDR", "networking.k8s.io/v1"),
];

/// What is wrong with an object of a kind that is not known, if it was probably meant to be known.
fn near_miss(types: &Type, metadata: &ObjectMeta) -> Option<Problem> {
    let Type { api_version, kind } = types;
    let group = api_version.split_once('/').map_or("", |(group, _)| group);
    // other groups have kinds of their own with these names, such as the Service of Knative
    let ours = !group.contains('.') || group.ends_with(".k8s.io");
    let lower = kind.to_ascii_lowercase();
    let similar = |known: &str| osa_distance(&known.to_ascii_lowercase(), &lower) <= (known.len() / 4).max(1);
    let (known, version) = KINDS.into_iter().find(|(known, _)| ours && similar(known))?;
    let name = metadata.name.as_deref().unwrap_or("(without name)");
    Some(Problem {
        kind: known,
        object: metadata
            .namespace
            .as_ref()
            .map_or_else(|| name.to_owned(), |space| format!("{space}/{name}")),
        field: "kind".into(),
        what: format!(
            "{kind:?} with apiVersion {api_version:?} means nothing to shunt: left out \
             ({known} has apiVersion {version})"
        ),
    })
}

fn service(context: &Context, service: &Service) -> Converted<Item, ItemKey> {
    let mut converted = context.service(service);
    let selection = match &converted.outcome {
        Some(Ok(Object::Service(_, ours))) => context.selection(service, ours, &mut converted.problems),
        _ => None,
    };
    converted.map(|object| Item::Object(object, selection), ItemKey::Object)
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
