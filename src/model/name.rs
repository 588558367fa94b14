//! Names: cheap to clone, ordered, and impossible to mix up with each other.

use std::fmt;
use std::sync::Arc;

pub use arcstr::ArcStr as SharedStr;

/// Namespace and name of an object that lives in a namespace, kept as one string `namespace/name`
/// (neither part can hold a slash). A clone costs a reference count.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectName(SharedStr);

/// The name of a Service. EndpointSlices and Endpoints belong to the Service of this name.
pub type ServiceName = ObjectName;

impl ObjectName {
    /// The name of the object `name` in `namespace`.
    #[must_use]
    pub fn new(namespace: &str, name: &str) -> Self {
        Self(format!("{namespace}/{name}").into())
    }

    /// Reads `namespace/name`; `None` without exactly one slash between two non-empty parts.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (namespace, name) = text.split_once('/')?;
        let valid = !namespace.is_empty() && !name.is_empty() && !name.contains('/');
        valid.then(|| Self(text.into()))
    }

    /// The namespace.
    #[must_use]
    pub fn namespace(&self) -> &str {
        self.0.split_once('/').map_or("", |(namespace, _)| namespace)
    }

    /// The name within the namespace.
    #[must_use]
    pub fn name(&self) -> &str {
        self.0.split_once('/').map_or(&*self.0, |(_, name)| name)
    }

    /// `namespace/name`.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ObjectName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for ObjectName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The name of a node, as in `metadata.name` of its Node object.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeName(pub Arc<str>);

impl fmt::Display for NodeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A topology zone, as in the label `topology.kubernetes.io/zone`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Zone(pub Arc<str>);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn object_names_take_apart_and_parse() {
        let name = ObjectName::new("shop", "web");
        assert_eq!((name.namespace(), name.name(), name.as_str()), ("shop", "web", "shop/web"));
        assert_eq!(ObjectName::parse("shop/web"), Some(name));
        for bad in ["", "web", "/web", "shop/", "a/b/c"] {
            assert_eq!(ObjectName::parse(bad), None, "{bad}");
        }
    }
}
