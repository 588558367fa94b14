//! `metadata` of an object: name, times, and the labels and annotations in use. PURE.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::core::ObjectMeta;
use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess};

use super::field::{Field, Pairs, Shape};

/// The labels that somebody reads; all others are skipped, but for those of Pods, which are what Services
/// select.
const LABELS: [&str; 4] = [
    "service.kubernetes.io/service-proxy-name",
    "service.kubernetes.io/headless",
    "kubernetes.io/service-name",
    "topology.kubernetes.io/zone",
];

/// The annotations that somebody reads.
const ANNOTATIONS: [&str; 1] = ["shunt.dev/proxy-protocol"];

/// The fields of `metadata` in use.
#[derive(Default, serde::Deserialize)]
#[serde(default, rename_all = "camelCase", bound = "L: Shape + Default")]
struct Metadata<L: Shape> {
    name: Field<String>,
    namespace: Field<String>,
    resource_version: Field<String>,
    labels: Field<L>,
    annotations: Field<Annotations>,
    creation_timestamp: Field<String>,
    deletion_timestamp: Field<String>,
}

impl<L: Shape + Default> Shape for Metadata<L> {
    const EXPECTED: &'static str = "an object";

    fn object<'de, A: MapAccess<'de>>(object: A) -> Result<Option<Self>, A::Error> {
        Self::deserialize(serde::de::value::MapAccessDeserializer::new(object)).map(Some)
    }
}

#[derive(Default)]
struct Labels(BTreeMap<String, String>);

impl Shape for Labels {
    const EXPECTED: &'static str = "an object";

    fn object<'de, A: MapAccess<'de>>(mut object: A) -> Result<Option<Self>, A::Error> {
        let mut labels = BTreeMap::new();
        while let Some(key) = object.next_key::<Field<Label>>()? {
            match key {
                Field::Is(Label(key)) => {
                    let value = object.next_value::<Field<String>>()?;
                    labels.extend(value.into_value().map(|value| (key.to_owned(), value)));
                }
                Field::Unset | Field::Wrong(_) => {
                    object.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(Some(Self(labels)))
    }
}

/// The key of a label or annotation in use: no memory is taken for the others.
struct Label(&'static str);

impl Shape for Label {
    const EXPECTED: &'static str = "text";

    fn text(text: &str) -> Option<Self> {
        LABELS.into_iter().chain(ANNOTATIONS).find(|label| *label == text).map(Self)
    }
}

impl From<Labels> for BTreeMap<String, String> {
    fn from(labels: Labels) -> Self {
        labels.0
    }
}

/// The annotations in use.
#[derive(Default)]
struct Annotations(BTreeMap<String, String>);

impl Shape for Annotations {
    const EXPECTED: &'static str = "an object";

    fn object<'de, A: MapAccess<'de>>(object: A) -> Result<Option<Self>, A::Error> {
        Ok(Labels::object(object)?.map(|labels| Self(labels.0)))
    }
}

/// All labels of an object.
#[derive(Default)]
struct AllLabels(Pairs);

impl Shape for AllLabels {
    const EXPECTED: &'static str = Pairs::EXPECTED;

    fn object<'de, A: MapAccess<'de>>(object: A) -> Result<Option<Self>, A::Error> {
        Ok(Pairs::object(object)?.map(Self))
    }
}

impl From<AllLabels> for BTreeMap<String, String> {
    fn from(labels: AllLabels) -> Self {
        let text = |(key, value): (String, Field<String>)| match value {
            Field::Is(value) => Some((key, value)),
            // as Go reads null where text belongs
            Field::Unset => Some((key, String::new())),
            Field::Wrong(_) => None,
        };
        labels.0.into_iter().filter_map(text).collect()
    }
}

/// Reads `metadata`, leaving out what nobody uses.
pub(super) fn metadata<'de, D: Deserializer<'de>>(deserializer: D) -> Result<ObjectMeta, D::Error> {
    read_metadata::<Labels, D>(deserializer)
}

/// Reads `metadata` of what may be a Pod, all of whose labels are in use.
pub(super) fn pod_metadata<'de, D: Deserializer<'de>>(deserializer: D) -> Result<ObjectMeta, D::Error> {
    read_metadata::<AllLabels, D>(deserializer)
}

fn read_metadata<'de, L, D>(deserializer: D) -> Result<ObjectMeta, D::Error>
where
    L: Shape + Default + Into<BTreeMap<String, String>>,
    D: Deserializer<'de>,
{
    let read = Field::<Metadata<L>>::deserialize(deserializer)?.into_value().unwrap_or_default();
    Ok(ObjectMeta {
        name: read.name.into_value(),
        namespace: read.namespace.into_value(),
        resource_version: read.resource_version.into_value(),
        labels: read.labels.into_value().map(L::into).filter(|labels| !labels.is_empty()),
        annotations: read.annotations.into_value().map(|read| read.0).filter(|all| !all.is_empty()),
        creation_timestamp: read.creation_timestamp.into_value().and_then(|text| time(&text)),
        // that the object is being deleted counts, not since when: a time that cannot be read is one too
        deletion_timestamp: read.deletion_timestamp.into_value().map(|text| time(&text).unwrap_or(EPOCH)),
        ..ObjectMeta::default()
    })
}

const EPOCH: Time = Time(k8s_openapi::jiff::Timestamp::UNIX_EPOCH);

fn time(text: &str) -> Option<Time> {
    text.parse().ok().map(Time)
}

#[cfg(test)]
mod tests {
    use super::super::objects::{Pod, Service};
    use super::*;

    const OBJECT: &str = r#"{"metadata":{"name":"web","managedFields":[{"a":1}],"annotations":{"a":"b","shunt.dev/proxy-protocol":"v2"},
        "creationTimestamp":"2020-01-02T03:04:05Z","deletionTimestamp":"soon",
        "labels":{"app":"web","count":1,"empty":null,"wrong":[],"service.kubernetes.io/service-proxy-name":"x"}}}"#;

    fn labels(metadata: &ObjectMeta) -> Vec<(&str, &str)> {
        metadata.labels.iter().flatten().map(|(key, value)| (key.as_str(), value.as_str())).collect()
    }

    #[test]
    fn what_nobody_uses_is_left_out() {
        let meta = serde_json::from_str::<Service>(OBJECT).expect("JSON").metadata;
        assert_eq!(meta.name.as_deref(), Some("web"));
        assert_eq!(meta.annotations, Some([(ANNOTATIONS[0].to_owned(), "v2".to_owned())].into()));
        assert!(meta.managed_fields.is_none());
        assert_eq!(labels(&meta), [(LABELS[0], "x")]);
        assert_eq!(meta.creation_timestamp.as_ref().map(|time| time.0.as_second()), Some(1_577_934_245));
        assert_eq!(meta.deletion_timestamp, Some(EPOCH));
    }

    #[test]
    fn pods_keep_their_labels() {
        let meta = serde_json::from_str::<Pod>(OBJECT).expect("JSON").metadata;
        assert_eq!(labels(&meta), [("app", "web"), ("count", "1"), ("empty", ""), (LABELS[0], "x")]);
        assert_eq!((meta.name.as_deref(), meta.deletion_timestamp), (Some("web"), Some(EPOCH)));
    }
}
