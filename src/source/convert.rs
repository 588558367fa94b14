//! Kubernetes objects -> model. PURE.
//!
//! Every default and every omission is decided here.

use std::fmt;
use std::sync::Arc;

use super::objects;
use crate::model::{Key, Kind, NodeName, Object};

/// Which node we are and which Services are ours.
#[derive(Clone, Debug)]
pub struct Context {
    /// The node that we run on.
    pub node_name: NodeName,
    /// The value of the label `service.kubernetes.io/service-proxy-name` that selects the Services we
    /// serve; `None` selects those without the label.
    pub proxy_name: Option<Arc<str>>,
}

/// What an object comes to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Converted {
    /// What to tell the store: `Ok` sets the object, `Err` deletes the key since the object is not (or
    /// no longer) ours to serve. `None` where there is nothing to say: a Node that is not ours, or an
    /// object without a name.
    pub outcome: Option<Result<Object, Key>>,
    /// What was left out, and why.
    pub problems: Vec<Problem>,
}

/// A value that cannot be used, and what became of it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Problem {
    /// The kind of the object.
    pub kind: Kind,
    /// Its name, with the namespace where it has one.
    pub object: String,
    /// Where in the object: `spec.ports[1].port`.
    pub field: String,
    /// What is wrong with the value and what was left out.
    pub what: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}: {}: {}", self.kind.as_str(), self.object, self.field, self.what)
    }
}

impl Context {
    /// A Service. Not ours: headless ones, `ExternalName`, and those that another proxy serves.
    #[must_use]
    pub fn service(&self, _object: &objects::Service) -> Converted {
        todo!()
    }

    /// An EndpointSlice. Not ours: those of headless Services or of no Service, and `FQDN`.
    #[must_use]
    pub fn endpoint_slice(&self, _object: &objects::EndpointSlice) -> Converted {
        todo!()
    }

    /// A legacy Endpoints object.
    #[must_use]
    pub fn endpoints(&self, _object: &objects::Endpoints) -> Converted {
        todo!()
    }

    /// A Node. Not ours: all but one.
    #[must_use]
    pub fn node(&self, _object: &objects::Node) -> Converted {
        todo!()
    }

    /// A ServiceCIDR.
    #[must_use]
    pub fn service_cidr(&self, _object: &objects::ServiceCidr) -> Converted {
        todo!()
    }
}
