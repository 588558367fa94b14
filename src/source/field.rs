//! A value of an object that may be absent, null, or of a shape that nobody expects. PURE.

use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;

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

/// Names and values: labels, or what a selector asks of them.
pub type Pairs = BTreeMap<String, Field<String>>;

impl Shape for Pairs {
    const EXPECTED: &'static str = "an object";

    fn object<'de, A: MapAccess<'de>>(mut object: A) -> Result<Option<Self>, A::Error> {
        let mut pairs = Self::new();
        while let Some(key) = object.next_key::<Field<String>>()? {
            let value = object.next_value()?;
            pairs.extend(key.into_value().map(|key| (key, value)));
        }
        Ok(Some(pairs))
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

#[cfg(test)]
mod tests {
    use super::super::objects::{EndpointSlice, Pod, Service};
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
                format!(r#"{{"spec":{{"selector":{value},"containers":[{{"ports":[{value}]}}]}}}}"#),
                format!(r#"{{"spec":{{"selector":{{"app":{value}}},"containers":[{value}]}}}}"#),
                format!(r#"{{"spec":{{"clusterIPs":[{value}],"ports":[{value}]}}}}"#),
                format!(r#"{{"spec":{{"ports":[{{"name":{value},"port":{value}}}]}}}}"#),
            ] {
                service(&text);
                serde_saphyr::from_str::<Service>(&text).expect("the same as YAML");
                serde_json::from_str::<Pod>(&text).expect("never fails but for syntax");
            }
            let text =
                format!(r#"{{"addressType":{value},"endpoints":[{{"conditions":{value}}}, {value}]}}"#);
            serde_json::from_str::<EndpointSlice>(&text).expect("never fails but for syntax");
        }
    }

    #[test]
    fn values_keep_their_meaning() {
        let read = service(
            r#"{"apiVersion":"v1","spec":{"ports":[{"port":80,"nodePort":null,"name":[]},{"port":"81"},{"port":82.0},7]}}"#,
        );
        let ports = read.spec.get().and_then(|spec| spec.ports.get()).expect("a list");
        let numbers: Vec<_> = ports.iter().map(|port| port.get().map(|port| port.port.clone())).collect();
        assert_eq!(numbers, [Some(Field::Is(80)), Some(Field::Is(81)), Some(Field::Is(82)), None]);
        let first = ports[0].get().expect("an object");
        assert_eq!((&first.node_port, &first.name), (&Field::Unset, &Field::Wrong("a list")));
    }
}
