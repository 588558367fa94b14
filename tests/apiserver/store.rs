//! What the server knows: objects, their history, the faults to come and the requests that were made.

use std::collections::{BTreeMap, VecDeque};

use serde_json::{Value, json};

use super::{Fault, Resource, Verb};

/// The namespace of a request, among its parameters.
pub const NAMESPACE: &str = "(namespace)";

/// One request as the server saw it.
#[derive(Clone, Debug)]
pub struct Seen {
    pub method: String,
    pub path: String,
    pub query: BTreeMap<String, String>,
    pub resource: Option<Resource>,
    pub verb: Verb,
    pub user_agent: String,
    /// API group, resource and verb, as a role names them.
    pub right: (String, String, String),
    /// When it came.
    pub at: std::time::Instant,
    /// The bytes of the response so far.
    pub bytes: usize,
}

/// How the server says that a resource version is too old to watch from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Expiry {
    /// Status 410.
    #[default]
    Status,
    /// Status 200, and an ERROR event that holds status 410.
    Event,
}

/// How the server takes `sendInitialEvents`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Streams {
    /// As asked.
    #[default]
    Served,
    /// Refused with this status: 422 where the feature is off, 400 where it is unknown.
    Refused(u16),
}

/// What happened to an object.
#[derive(Clone, Debug)]
pub struct Change {
    pub version: u64,
    pub resource: Resource,
    /// `None` before it existed.
    pub before: Option<Value>,
    /// `None` when it is gone. A bookmark has neither.
    pub after: Option<Value>,
}

/// What is left of a list after its first pages.
pub struct Page {
    pub version: u64,
    pub rest: VecDeque<Value>,
}

/// Everything behind the server's lock.
#[derive(Default)]
pub struct Store {
    /// The newest resource version; never 0, which means any to a server.
    pub version: u64,
    /// Versions up to this one cannot be watched from.
    pub compacted: u64,
    pub expiry: Expiry,
    pub streams: Streams,
    pub objects: BTreeMap<(Resource, String), Value>,
    pub history: Vec<Change>,
    pub pages: BTreeMap<String, Page>,
    pub absent: Vec<Resource>,
    /// Resources that nobody may list or watch.
    pub forbidden: Vec<Resource>,
    /// The bearer tokens that are accepted; any where there is no list.
    pub tokens: Option<Vec<String>>,
    /// Events by path, as they were created and patched.
    pub events: BTreeMap<String, Value>,
    pub scripts: BTreeMap<(Resource, Verb), VecDeque<Fault>>,
    pub seen: Vec<Seen>,
    /// One entry for each watch that waits for news.
    pub watchers: Vec<Resource>,
    /// Watches that began before the last cut are closed.
    pub cuts: u64,
    /// The server is stopping: no watch may wait any more, however late it began.
    pub stopping: bool,
}

impl Store {
    pub fn put(&mut self, resource: Resource, mut object: Value) {
        self.version += 1;
        object["metadata"]["resourceVersion"] = json!(self.version.to_string());
        let key = (resource, key(&object));
        let before = self.objects.insert(key, object.clone());
        self.history.push(Change { version: self.version, resource, before, after: Some(object) });
    }

    pub fn delete(&mut self, resource: Resource, namespace: &str, name: &str) {
        let before = self.objects.remove(&(resource, format!("{namespace}/{name}")));
        assert!(before.is_some(), "there is no {resource:?} {namespace}/{name} to delete");
        self.version += 1;
        self.history.push(Change { version: self.version, resource, before, after: None });
    }

    pub fn bookmark(&mut self, resource: Resource) {
        self.version += 1;
        self.history.push(Change { version: self.version, resource, before: None, after: None });
    }

    /// What has happened after this version has never happened; the objects are for the test to put right.
    pub fn rewind(&mut self, version: u64) {
        self.version = version;
        self.history.retain(|change| change.version <= version);
    }

    pub fn expire(&mut self, expiry: Expiry) {
        self.version += 1;
        self.compacted = self.version - 1;
        self.expiry = expiry;
        self.pages.clear();
    }

    /// The objects of a resource that a request selects.
    pub fn select(&self, resource: Resource, query: &BTreeMap<String, String>) -> VecDeque<Value> {
        let all = self.objects.iter().filter(|((kind, _), _)| *kind == resource);
        let namespace = query.get(NAMESPACE).map(String::as_str);
        all.map(|(_, object)| object)
            .filter(|object| namespace.is_none_or(|name| object["metadata"]["namespace"] == name))
            .filter(|object| selected(object, query))
            .cloned()
            .collect()
    }
}

impl Change {
    /// The event that someone with these selectors sees: an object that no longer matches is deleted.
    pub fn event(&self, query: &BTreeMap<String, String>) -> Option<String> {
        let visible = |object: &Option<Value>| object.clone().filter(|object| selected(object, query));
        if self.before.is_none() && self.after.is_none() {
            let wanted = query.get("allowWatchBookmarks").is_some_and(|value| value == "true");
            return wanted.then(|| bookmark(self.version, false));
        }
        match (visible(&self.before), visible(&self.after)) {
            (None, None) => None,
            (None, Some(object)) => Some(event("ADDED", &object)),
            (Some(_), Some(object)) => Some(event("MODIFIED", &object)),
            (Some(mut object), None) => {
                object["metadata"]["resourceVersion"] = json!(self.version.to_string());
                Some(event("DELETED", &object))
            }
        }
    }
}

/// One line of a watch.
pub fn event(kind: &str, object: &Value) -> String {
    format!("{{\"type\":\"{kind}\",\"object\":{object}}}\n")
}

/// A bookmark; `last` is the one that ends a streamed list.
pub fn bookmark(version: u64, last: bool) -> String {
    let mut object =
        json!({"kind": "Any", "apiVersion": "v1", "metadata": {"resourceVersion": version.to_string()}});
    if last {
        object["metadata"]["annotations"] = json!({"k8s.io/initial-events-end": "true"});
    }
    event("BOOKMARK", &object)
}

/// The `Status` object of a failure.
pub fn status(code: u16, reason: &str, message: &str) -> Value {
    json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
           "message": message, "reason": reason, "code": code})
}

fn key(object: &Value) -> String {
    let part = |name: &str| object["metadata"][name].as_str().unwrap_or("").to_string();
    format!("{}/{}", part("namespace"), part("name"))
}

/// Whether the label and field selectors of a request let the object through.
fn selected(object: &Value, query: &BTreeMap<String, String>) -> bool {
    let terms = |name: &str| query.get(name).cloned().unwrap_or_default();
    let label = |name: &str| object["metadata"]["labels"][name].as_str().map(String::from);
    let field = |path: &str| {
        let value = path.split('.').fold(object, |value, name| &value[name]);
        Some(value.as_str().unwrap_or("").to_string())
    };
    admits(&terms("labelSelector"), label) && admits(&terms("fieldSelector"), field)
}

fn admits(selector: &str, value: impl Fn(&str) -> Option<String>) -> bool {
    selector.split(',').filter(|term| !term.is_empty()).all(|term| {
        if let Some((name, wrong)) = term.split_once("!=") {
            value(name).as_deref() != Some(wrong)
        } else if let Some((name, right)) = term.split_once('=') {
            value(name).as_deref() == Some(right.trim_start_matches('='))
        } else if let Some(name) = term.strip_prefix('!') {
            value(name).is_none()
        } else {
            value(term).is_some()
        }
    })
}
