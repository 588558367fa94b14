//! The kinds that are watched: which of their objects, and what they become. PURE.

use kube::Resource;
use serde::de::DeserializeOwned;

use super::exchange::HeadMetadata;
use crate::model::{Key, Kind, ObjectName};
use crate::source::convert::{Context, Converted};
use crate::source::objects::{EndpointSlice, Endpoints, Node, Service, ServiceCidr};

/// The label by which a Service chooses another proxy than the cluster's usual one.
const PROXY_NAME: &str = "service.kubernetes.io/service-proxy-name";
/// The label on slices of Services that have no ClusterIP.
const HEADLESS: &str = "service.kubernetes.io/headless";

/// Which objects the server is asked for; it leaves out the rest.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Selectors {
    pub(super) labels: Option<String>,
    pub(super) fields: Option<String>,
}

/// A kind of object that is watched.
pub(super) trait Watched: Resource<DynamicType = ()> + DeserializeOwned + Send {
    const KIND: Kind;
    /// Whether a server without this API is in order.
    const OPTIONAL: bool = false;

    /// Which objects to ask for (semantics.md, section 1).
    fn selectors(context: &Context) -> Selectors;

    /// What an object comes to.
    fn convert(&self, context: &Context) -> Converted;

    /// What is gone when the object of this name is; `None` if it is none of ours.
    fn key(head: &HeadMetadata, context: &Context) -> Option<Key>;
}

fn object_name(head: &HeadMetadata) -> Option<ObjectName> {
    Some(ObjectName::new(head.namespace.as_deref()?, head.name.as_deref()?))
}

impl Watched for Service {
    const KIND: Kind = Kind::Service;

    fn selectors(context: &Context) -> Selectors {
        let labels = match context.proxy_name() {
            Some(name) => format!("{PROXY_NAME}={name}"),
            None => format!("!{PROXY_NAME}"),
        };
        Selectors { labels: Some(labels), fields: Some("spec.clusterIP!=None".to_string()) }
    }

    fn convert(&self, context: &Context) -> Converted {
        context.service(self)
    }

    fn key(head: &HeadMetadata, _: &Context) -> Option<Key> {
        object_name(head).map(Key::Service)
    }
}

impl Watched for EndpointSlice {
    const KIND: Kind = Kind::EndpointSlice;

    fn selectors(_: &Context) -> Selectors {
        Selectors { labels: Some(format!("!{HEADLESS}")), fields: None }
    }

    fn convert(&self, context: &Context) -> Converted {
        context.endpoint_slice(self)
    }

    fn key(head: &HeadMetadata, _: &Context) -> Option<Key> {
        object_name(head).map(Key::EndpointSlice)
    }
}

impl Watched for Endpoints {
    const KIND: Kind = Kind::Endpoints;

    fn selectors(_: &Context) -> Selectors {
        Selectors { labels: Some(format!("!{HEADLESS}")), fields: None }
    }

    fn convert(&self, context: &Context) -> Converted {
        context.endpoints(self)
    }

    fn key(head: &HeadMetadata, _: &Context) -> Option<Key> {
        object_name(head).map(Key::Endpoints)
    }
}

impl Watched for Node {
    const KIND: Kind = Kind::Node;

    fn selectors(context: &Context) -> Selectors {
        Selectors { labels: None, fields: Some(format!("metadata.name={}", context.node_name())) }
    }

    fn convert(&self, context: &Context) -> Converted {
        context.node(self)
    }

    fn key(head: &HeadMetadata, context: &Context) -> Option<Key> {
        (head.name.as_deref() == Some(&*context.node_name().0)).then_some(Key::Node)
    }
}

impl Watched for ServiceCidr {
    const KIND: Kind = Kind::ServiceCidr;
    /// Since Kubernetes 1.33 (KEP-1880).
    const OPTIONAL: bool = true;

    fn selectors(_: &Context) -> Selectors {
        Selectors::default()
    }

    fn convert(&self, context: &Context) -> Converted {
        context.service_cidr(self)
    }

    fn key(head: &HeadMetadata, _: &Context) -> Option<Key> {
        head.name.as_deref().map(|name| Key::ServiceCidr(name.into()))
    }
}
