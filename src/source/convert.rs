//! Kubernetes objects -> model. PURE.
//!
//! Every default and every omission is decided here. A value that cannot be used costs what it stands
//! for (a port, an address, an endpoint) and makes a [`Problem`]; everything else of the object keeps
//! working. What is not ours to serve is told as deleted, since it may have been ours before.

mod endpoint;
mod node;
mod pod;
mod read;
mod service;
mod shared;
#[cfg(test)]
mod tests;

use std::fmt;
use std::sync::Arc;

use kube::core::ObjectMeta;

use self::shared::Shared;
use crate::model::{Key, Kind, NodeName, Object, ObjectName};

pub use self::read::{parse_ip, parse_net};

/// Which Services another proxy serves, and which one.
const PROXY_NAME: &str = "service.kubernetes.io/service-proxy-name";
/// Set on the slices and Endpoints of headless Services.
const HEADLESS: &str = "service.kubernetes.io/headless";

/// Which node we are and which Services are ours.
#[derive(Clone, Debug)]
pub struct Context {
    node_name: NodeName,
    proxy_name: Option<Arc<str>>,
    /// Whether the mode can tell endpoints who called.
    proxy_protocol: bool,
    shared: Shared,
}

/// What an object comes to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Converted<T = Object, K = Key> {
    /// What to tell the store: `Ok` sets the object, `Err` deletes the key since the object is not (or
    /// no longer) ours to serve. `None` where there is nothing to say: a Node that is not ours, or an
    /// object without a name.
    pub outcome: Option<Result<T, K>>,
    /// What was left out, and why.
    pub problems: Vec<Problem>,
}

impl<T, K> Default for Converted<T, K> {
    fn default() -> Self {
        Self { outcome: None, problems: Vec::new() }
    }
}

impl<T, K> Converted<T, K> {
    /// The same in other types.
    pub fn map<U, L>(self, object: impl FnOnce(T) -> U, key: impl FnOnce(K) -> L) -> Converted<U, L> {
        let outcome = self.outcome.map(|outcome| outcome.map(object).map_err(key));
        Converted { outcome, problems: self.problems }
    }
}

/// A value that cannot be used, and what became of it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Problem {
    /// The kind of the object as Kubernetes writes it.
    pub kind: &'static str,
    /// Its name, with the namespace where it has one.
    pub object: String,
    /// Where in the object: `spec.ports[1].port`.
    pub field: String,
    /// What is wrong with the value and what was left out.
    pub what: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}: {}: {}", self.kind, self.object, self.field, self.what)
    }
}

impl Context {
    /// On the node `node_name`. `proxy_name` is the value of the label
    /// `service.kubernetes.io/service-proxy-name` that selects the Services we serve; `None` selects those
    /// without the label.
    #[must_use]
    pub fn new(node_name: NodeName, proxy_name: Option<Arc<str>>) -> Self {
        Self { node_name, proxy_name, proxy_protocol: false, shared: Shared::default() }
    }

    /// Says that the mode can tell endpoints who called.
    #[must_use]
    pub fn with_proxy_protocol(self, possible: bool) -> Self {
        Self { proxy_protocol: possible, ..self }
    }

    /// The node that we run on.
    #[must_use]
    pub const fn node_name(&self) -> &NodeName {
        &self.node_name
    }

    /// The label that selects the Services we serve: see [`Context::new`].
    #[must_use]
    pub fn proxy_name(&self) -> Option<&str> {
        self.proxy_name.as_deref()
    }
}

fn label<'a>(metadata: &'a ObjectMeta, name: &str) -> Option<&'a str> {
    metadata.labels.as_ref()?.get(name).map(String::as_str)
}

/// Collects the problems of one object while it is read.
struct Report<'a> {
    kind: &'static str,
    namespaced: bool,
    metadata: &'a ObjectMeta,
    problems: Vec<Problem>,
}

impl<'a> Report<'a> {
    const fn new(kind: Kind, metadata: &'a ObjectMeta) -> Self {
        let namespaced = !matches!(kind, Kind::Node | Kind::ServiceCidr);
        Self { kind: kind.as_str(), namespaced, metadata, problems: Vec::new() }
    }

    /// Pods are no kind of the model: what they stand for is.
    const fn of_pod(metadata: &'a ObjectMeta) -> Self {
        Self { kind: "Pod", namespaced: true, metadata, problems: Vec::new() }
    }

    fn problem(&mut self, field: fmt::Arguments<'_>, what: impl fmt::Display) {
        let name = self.metadata.name.as_deref().unwrap_or("(without name)");
        let object =
            if self.namespaced { format!("{}/{name}", namespace(self.metadata)) } else { name.to_owned() };
        let problem = Problem { kind: self.kind, object, field: field.to_string(), what: what.to_string() };
        self.problems.push(problem);
    }

    /// The object's name, if it has one that can be used.
    fn object_name(&mut self) -> Option<ObjectName> {
        let namespace = namespace(self.metadata);
        let name = self.name()?;
        if namespace.contains('/') {
            self.problem(format_args!("metadata.namespace"), "holds a slash: the object is left out");
            return None;
        }
        Some(ObjectName::new(namespace, name))
    }

    /// The part of the object's name that it has within its namespace.
    fn name(&mut self) -> Option<&'a str> {
        let name = self.metadata.name.as_deref().unwrap_or_default();
        let fault = match name {
            "" => "is missing",
            _ if name.contains('/') => "holds a slash",
            _ => return Some(name),
        };
        self.problem(format_args!("metadata.name"), format_args!("{fault}: the object is left out"));
        None
    }

    fn set<T, K>(self, object: T) -> Converted<T, K> {
        Converted { outcome: Some(Ok(object)), problems: self.problems }
    }

    fn delete<T, K>(self, key: K) -> Converted<T, K> {
        Converted { outcome: Some(Err(key)), problems: self.problems }
    }

    fn nothing<T, K>(self) -> Converted<T, K> {
        Converted { outcome: None, problems: self.problems }
    }
}

/// The namespace of an object; one that does not say is in `default`, as with kubectl.
fn namespace(metadata: &ObjectMeta) -> &str {
    metadata.namespace.as_deref().filter(|namespace| !namespace.is_empty()).unwrap_or("default")
}
