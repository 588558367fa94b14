//! A value of an object that may be absent, null, or of a shape that nobody expects. PURE.

use std::fmt;
use std::marker::PhantomData;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::core::ObjectMeta;
use serde::de::{Deserialize, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};

/// One value of an object. Reading it never fails, short of a syntax error in the text.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Field<T> {
    /// Absent or null.
    #[default]
    Unset,
    /// A value of the right shape.
    Is(T),
    /// A value of another shape, such as a list where a number belongs: which shape it has.
    Wrong(&'static str),
}

/// A list in an object.
pub type List<T> = Field<Vec<Field<T>>>;

impl<T> Field<T> {
    /// The value, if it has the right shape.
    pub const fn get(&self) -> Option<&T> {
        match self {
            Self::Is(value) => Some(value),
            Self::Unset | Self::Wrong(_) => None,
        }
    }

    /// Takes the value out, if it has the right shape.
    pub fn into_value(self) -> Option<T> {
        match self {
            Self::Is(value) => Some(value),
            Self::Unset | Self::Wrong(_) => None,
        }
    }
}

impl Field<String> {
    /// The text, empty where there is none.
    #[must_use]
    pub fn text(&self) -> &str {
        self.get().map_or("", String::as_str)
    }
}

/// What makes a value of a type. Each method answers one shape; the default is that the shape is wrong.
pub trait Shape: Sized {
    /// What belongs here, for messages: "a number".
    const EXPECTED: &'static str;

    /// From text.
    #[must_use]
    fn text(_text: &str) -> Option<Self> {
        None
    }

    /// From an integer.
    #[must_use]
    fn number(_number: i64) -> Option<Self> {
        None
    }

    /// From a fraction, or from an integer that is too large.
    #[must_use]
    fn fraction(_number: f64) -> Option<Self> {
        None
    }

    /// From true or false.
    #[must_use]
    fn boolean(_value: bool) -> Option<Self> {
        None
    }

    /// From a list.
    ///
    /// # Errors
    ///
    /// Only where the text has a syntax error.
    fn list<'de, A: SeqAccess<'de>>(mut list: A) -> Result<Option<Self>, A::Error> {
        while list.next_element::<IgnoredAny>()?.is_some() {}
        Ok(None)
    }

    /// From an object.
    ///
    /// # Errors
    ///
    /// Only where the text has a syntax error or the object has a field twice.
    fn object<'de, A: MapAccess<'de>>(mut object: A) -> Result<Option<Self>, A::Error> {
        while object.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(None)
    }
}

impl Shape for String {
    const EXPECTED: &'static str = "text";

    fn text(text: &str) -> Option<Self> {
        Some(text.to_owned())
    }

    // an unquoted number or truth value in YAML where text is meant
    fn number(number: i64) -> Option<Self> {
        Some(number.to_string())
    }

    fn boolean(value: bool) -> Option<Self> {
        Some(value.to_string())
    }
}

impl Shape for i64 {
    const EXPECTED: &'static str = "a whole number";

    fn number(number: i64) -> Option<Self> {
        Some(number)
    }

    fn text(text: &str) -> Option<Self> {
        text.parse().ok()
    }

    #[expect(clippy::cast_possible_truncation, reason = "whole and within the range of exact integers")]
    fn fraction(number: f64) -> Option<Self> {
        (number.fract() == 0.0 && number.abs() < 9e15).then_some(number as Self)
    }
}

impl Shape for bool {
    const EXPECTED: &'static str = "true or false";

    fn boolean(value: bool) -> Option<Self> {
        Some(value)
    }
}

impl<T: Shape> Shape for Vec<Field<T>> {
    const EXPECTED: &'static str = "a list";

    fn list<'de, A: SeqAccess<'de>>(mut list: A) -> Result<Option<Self>, A::Error> {
        let mut values = Self::new();
        while let Some(value) = list.next_element()? {
            values.push(value);
        }
        Ok(Some(values))
    }
}

/// Makes [`Shape`]s of structs that derive `Deserialize`.
macro_rules! object_shape {
    ($($name:ty),+ $(,)?) => {$(
        impl $crate::source::field::Shape for $name {
            const EXPECTED: &'static str = "an object";

            fn object<'de, A: serde::de::MapAccess<'de>>(object: A) -> Result<Option<Self>, A::Error> {
                Self::deserialize(serde::de::value::MapAccessDeserializer::new(object)).map(Some)
            }
        }
    )+};
}
pub(super) use object_shape;

impl<'de, T: Shape> Deserialize<'de> for Field<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(FieldVisitor(PhantomData))
    }
}

struct FieldVisitor<T>(PhantomData<T>);

fn field<T>(value: Option<T>, shape: &'static str) -> Field<T> {
    value.map_or(Field::Wrong(shape), Field::Is)
}

impl<'de, T: Shape> Visitor<'de> for FieldVisitor<T> {
    type Value = Field<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(T::EXPECTED)
    }

    fn visit_unit<E: Error>(self) -> Result<Self::Value, E> {
        Ok(Field::Unset)
    }

    fn visit_none<E: Error>(self) -> Result<Self::Value, E> {
        Ok(Field::Unset)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_any(self)
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Self::Value, E> {
        Ok(field(T::text(text), "text"))
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<Self::Value, E> {
        Ok(field(T::number(number), "a number"))
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<Self::Value, E> {
        Ok(field(i64::try_from(number).ok().and_then(T::number), "a number"))
    }

    fn visit_f64<E: Error>(self, number: f64) -> Result<Self::Value, E> {
        Ok(field(T::fraction(number), "a number"))
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Self::Value, E> {
        Ok(field(T::boolean(value), "true or false"))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, list: A) -> Result<Self::Value, A::Error> {
        Ok(field(T::list(list)?, "a list"))
    }

    fn visit_map<A: MapAccess<'de>>(self, object: A) -> Result<Self::Value, A::Error> {
        Ok(field(T::object(object)?, "an object"))
    }
}

/// The labels that somebody reads; all others are skipped.
const LABELS: [&str; 4] = [
    "service.kubernetes.io/service-proxy-name",
    "service.kubernetes.io/headless",
    "kubernetes.io/service-name",
    "topology.kubernetes.io/zone",
];

/// The fields of `metadata` in use.
#[derive(Default, serde::Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Metadata {
    name: Field<String>,
    namespace: Field<String>,
    resource_version: Field<String>,
    labels: Field<Labels>,
    creation_timestamp: Field<String>,
    deletion_timestamp: Field<String>,
}

object_shape!(Metadata);

struct Labels(std::collections::BTreeMap<String, String>);

impl Shape for Labels {
    const EXPECTED: &'static str = "an object";

    fn object<'de, A: MapAccess<'de>>(mut object: A) -> Result<Option<Self>, A::Error> {
        let mut labels = std::collections::BTreeMap::new();
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

/// The key of a label in use: no memory is taken for the others.
struct Label(&'static str);

impl Shape for Label {
    const EXPECTED: &'static str = "text";

    fn text(text: &str) -> Option<Self> {
        LABELS.into_iter().find(|label| *label == text).map(Self)
    }
}

/// Reads `metadata`, leaving out what nobody uses.
pub(super) fn metadata<'de, D: Deserializer<'de>>(deserializer: D) -> Result<ObjectMeta, D::Error> {
    let read = Field::<Metadata>::deserialize(deserializer)?.into_value().unwrap_or_default();
    Ok(ObjectMeta {
        name: read.name.into_value(),
        namespace: read.namespace.into_value(),
        resource_version: read.resource_version.into_value(),
        labels: read.labels.into_value().map(|labels| labels.0).filter(|labels| !labels.is_empty()),
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
    use super::super::objects::{EndpointSlice, Service};
    use super::*;

    fn service(text: &str) -> Service {
        serde_json::from_str(text).expect("never fails but for syntax")
    }

    #[test]
    fn any_shape_of_value_can_be_read() {
        for value in ["null", "1", "-1", "1.5", "1e99", "true", "\"x\"", "[]", "[1]", "{}", "{\"a\":[]}"] {
            for text in [
                format!(r#"{{"metadata":{value},"spec":{value},"status":{value}}}"#),
                format!(r#"{{"metadata":{{"name":{value},"labels":{value},"creationTimestamp":{value}}}}}"#),
                format!(r#"{{"spec":{{"clusterIP":{value},"clusterIPs":{value},"ports":{value}}}}}"#),
                format!(r#"{{"spec":{{"clusterIPs":[{value}],"ports":[{value}]}}}}"#),
                format!(r#"{{"spec":{{"ports":[{{"name":{value},"port":{value}}}]}}}}"#),
            ] {
                service(&text);
                serde_saphyr::from_str::<Service>(&text).expect("the same as YAML");
            }
            let text =
                format!(r#"{{"addressType":{value},"endpoints":[{{"conditions":{value}}}, {value}]}}"#);
            serde_json::from_str::<EndpointSlice>(&text).expect("never fails but for syntax");
        }
    }

    #[test]
    fn values_keep_their_meaning() {
        let read = service(
            r#"{"apiVersion":"v1","metadata":{"name":"web","managedFields":[{"a":1}],
                "annotations":{"a":"b"},"creationTimestamp":"2020-01-02T03:04:05Z","deletionTimestamp":"soon",
                "labels":{"app":"web","service.kubernetes.io/service-proxy-name":"other"}},
               "spec":{"ports":[{"port":80,"nodePort":null,"name":[]},{"port":"81"},{"port":82.0},7]}}"#,
        );
        let meta = &read.metadata;
        assert_eq!(meta.name.as_deref(), Some("web"));
        assert!(meta.annotations.is_none() && meta.managed_fields.is_none());
        assert_eq!(
            meta.labels.as_ref().map(|labels| labels.keys().collect::<Vec<_>>()),
            Some(vec![&LABELS[0].to_owned()])
        );
        assert_eq!(meta.creation_timestamp.as_ref().map(|time| time.0.as_second()), Some(1_577_934_245));
        assert_eq!(meta.deletion_timestamp, Some(EPOCH));
        let ports = read.spec.get().and_then(|spec| spec.ports.get()).expect("a list");
        let numbers: Vec<_> = ports.iter().map(|port| port.get().map(|port| port.port.clone())).collect();
        assert_eq!(numbers, [Some(Field::Is(80)), Some(Field::Is(81)), Some(Field::Is(82)), None]);
        let first = ports[0].get().expect("an object");
        assert_eq!((&first.node_port, &first.name), (&Field::Unset, &Field::Wrong("a list")));
    }
}
