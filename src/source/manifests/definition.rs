//! What files define: objects of the model, and Pods.

use std::collections::{BTreeSet, HashSet};
use std::fmt;

use super::load::hash;
use crate::model::{Key, Kind, Object, ObjectName};
use crate::source::convert::{Converted, Problem};
use crate::source::pods::{Pod, Selection};

/// One object, as a file defines it.
#[derive(Debug, Hash)]
pub(super) enum Item {
    /// For the store; of a Service, also what it selects.
    Object(Object, Option<Selection>),
    /// For whoever stands in for the endpoint controller.
    Pod(ObjectName, Pod),
}

/// Which one it is.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum ItemKey {
    Object(Key),
    Pod(ObjectName),
}

impl fmt::Display for ItemKey {
    /// As people call it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let key = match self {
            Self::Object(key) => key,
            Self::Pod(name) => return write!(f, "Pod {name}"),
        };
        let kind = kind(key).as_str();
        match key {
            Key::Service(name) | Key::EndpointSlice(name) | Key::Endpoints(name) => {
                write!(f, "{kind} {name}")
            }
            Key::Node => f.write_str("our Node"),
            Key::ServiceCidr(name) => write!(f, "{kind} {name}"),
        }
    }
}

/// What a file says about one object.
#[derive(Debug)]
pub(super) struct Definition {
    pub(super) key: ItemKey,
    /// `None` if the object is not ours to serve.
    pub(super) item: Option<Item>,
    /// Hash of `item`; [`NOT_OURS`] without one.
    pub(super) hash: u64,
}

/// The hash of an object that is not ours to serve.
pub(super) const NOT_OURS: u64 = 0;

impl From<Result<Item, ItemKey>> for Definition {
    fn from(outcome: Result<Item, ItemKey>) -> Self {
        match outcome {
            Ok(item) => {
                let key = match &item {
                    Item::Object(object, _) => ItemKey::Object(key(object)),
                    Item::Pod(name, _) => ItemKey::Pod(name.clone()),
                };
                Self { key, hash: hash(&item), item: Some(item) }
            }
            Err(key) => Self { key, hash: NOT_OURS, item: None },
        }
    }
}

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
    pub(super) twice: Vec<ItemKey>,
}

impl Parsed {
    /// Adds an object.
    pub(super) fn add(&mut self, converted: Converted<Item, ItemKey>) {
        self.problems.extend(converted.problems);
        self.definitions.extend(converted.outcome.map(Definition::from));
    }

    /// Adds what stands further down in the same file.
    pub(super) fn append(&mut self, mut later: Self) {
        self.definitions.append(&mut later.definitions);
        self.problems.append(&mut later.problems);
        self.skipped.append(&mut later.skipped);
    }

    /// Leaves out what was defined before.
    pub(super) fn unique(mut self) -> Self {
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
