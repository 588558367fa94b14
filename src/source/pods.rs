//! Stands in for the endpoint controller where there is none. PURE.
//!
//! In: Pods, what Services select, and which Services have Endpoints of their own. Out: for every Service
//! that has none, an Endpoints object as the controller would make it of the Pods that match. Slices of a
//! Service win over Endpoints in the store, so they need no mention here: when they come they take over,
//! and when they go the Pods stand in again.
//!
//! A changed Pod costs the Services of its namespace that select it, and no others. While there is no Pod,
//! all that is kept is one line of text for each Service with a selector.

mod selection;
mod slices;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::mem;
use std::net::IpAddr;

use crate::model::{EndpointSlice, Key, Object, ObjectName, Port, Protocol, ServiceName, Update};

pub use self::selection::{Selection, Target, TargetPort};

/// A Pod that may be an endpoint: one that has an address and has not come to its end.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Pod {
    /// `metadata.labels`, each as `key=value`.
    pub labels: Box<[Box<str>]>,
    /// `status.podIPs`, at most one of each family.
    pub addresses: Box<[IpAddr]>,
    /// The ports of its containers that have names.
    pub ports: Box<[NamedPort]>,
    /// Whether its condition `Ready` is true.
    pub ready: bool,
    /// Whether it is being deleted.
    pub terminating: bool,
    /// Whether it runs on this node.
    pub local: bool,
}

/// A port of a container that Services can refer to by its name.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct NamedPort {
    /// `name`.
    pub name: Box<str>,
    /// `protocol`; unset means TCP.
    pub protocol: Protocol,
    /// `containerPort`.
    pub port: Port,
}

/// All Pods, and what selects them.
#[derive(Debug, Default)]
pub struct StandIn {
    /// Ordered, so that those of one namespace stand together.
    selections: BTreeMap<ServiceName, Selection>,
    /// Services that have Endpoints of their own.
    own: HashSet<ServiceName>,
    /// Only those that have Pods.
    namespaces: HashMap<Box<str>, Namespace>,
    /// Hash of the Endpoints that stand for a Service.
    told: HashMap<ServiceName, u64>,
    /// What [`StandIn::settle`] has to look at.
    touched: BTreeSet<ServiceName>,
}

/// A namespace that has Pods.
#[derive(Debug, Default)]
struct Namespace {
    pods: HashMap<ObjectName, Pod>,
    /// Label -> the Pods that carry it.
    carrying: HashMap<Box<str>, BTreeSet<ObjectName>>,
    /// Label -> the Services that may select what carries it: each Service is under one of its labels.
    selecting: HashMap<Box<str>, BTreeSet<ServiceName>>,
}

impl StandIn {
    /// An object is in the store; of a Service, also what it selects.
    pub fn set(&mut self, object: &Object, selection: Option<Selection>) {
        match object {
            Object::Service(name, _) => self.select(name, selection),
            Object::Endpoints(name, _) => {
                self.own.insert(name.clone());
                self.touch(name);
            }
            Object::EndpointSlice(..) | Object::Node(_) | Object::ServiceCidr(..) => {}
        }
    }

    /// An object is no longer in the store.
    pub fn delete(&mut self, key: &Key) {
        match key {
            Key::Service(name) => self.select(name, None),
            Key::Endpoints(name) => {
                self.own.remove(name);
                self.touch(name);
            }
            Key::EndpointSlice(_) | Key::Node | Key::ServiceCidr(_) => {}
        }
    }

    /// A Pod is there.
    pub fn set_pod(&mut self, name: ObjectName, pod: Pod) {
        if !self.namespaces.contains_key(name.namespace()) {
            self.open(name.namespace());
        }
        let Some(namespace) = self.namespaces.get_mut(name.namespace()) else { return };
        namespace.remove(&name, &mut self.touched);
        namespace.insert(name, pod, &mut self.touched);
    }

    /// A Pod is no longer there, or can no longer be an endpoint.
    pub fn delete_pod(&mut self, name: &ObjectName) {
        let Some(namespace) = self.namespaces.get_mut(name.namespace()) else { return };
        namespace.remove(name, &mut self.touched);
        if namespace.pods.is_empty() {
            self.namespaces.remove(name.namespace());
        }
    }

    /// What has changed since the last call. To be applied after the objects that were told meanwhile.
    pub fn settle(&mut self) -> Vec<Update> {
        mem::take(&mut self.touched).into_iter().filter_map(|name| self.tell(name)).collect()
    }

    fn select(&mut self, service: &ServiceName, selection: Option<Selection>) {
        let before = match selection.clone() {
            Some(selection) => self.selections.insert(service.clone(), selection),
            None => self.selections.remove(service),
        };
        if before == selection {
            return;
        }
        if let Some(namespace) = self.namespaces.get_mut(service.namespace()) {
            if let Some(before) = before {
                namespace.unlist(service, &before);
            }
            if let Some(selection) = selection {
                namespace.list(service, &selection);
            }
        }
        self.touch(service);
    }

    /// Notes a Service, unless there is no Pod that could make a difference.
    fn touch(&mut self, service: &ServiceName) {
        if self.namespaces.contains_key(service.namespace()) || self.told.contains_key(service) {
            self.touched.insert(service.clone());
        }
    }

    /// Makes room for the first Pod of a namespace.
    fn open(&mut self, name: &str) {
        let mut namespace = Namespace::default();
        let services = self.selections.range(ObjectName::new(name, "")..);
        for (service, selection) in services.take_while(|(service, _)| service.namespace() == name) {
            namespace.list(service, selection);
        }
        self.namespaces.insert(name.into(), namespace);
    }

    fn tell(&mut self, service: ServiceName) -> Option<Update> {
        if self.own.contains(&service) {
            // they have taken the place of what was told
            self.told.remove(&service);
            return None;
        }
        let slices = self.slices(&service);
        if slices.is_empty() {
            return self.told.remove(&service).map(|_| Update::Delete(Key::Endpoints(service)));
        }
        let mut hasher = DefaultHasher::new();
        slices.hash(&mut hasher);
        let hash = hasher.finish();
        let news = self.told.insert(service.clone(), hash) != Some(hash);
        news.then_some(Update::Set(Object::Endpoints(service, slices)))
    }

    fn slices(&self, service: &ServiceName) -> Box<[EndpointSlice]> {
        let Some(selection) = self.selections.get(service) else { return Box::default() };
        let Some(namespace) = self.namespaces.get(service.namespace()) else { return Box::default() };
        slices::slices(selection, namespace.selected(selection))
    }
}

impl Namespace {
    fn insert(&mut self, name: ObjectName, pod: Pod, touched: &mut BTreeSet<ServiceName>) {
        for label in &pod.labels {
            self.carrying.entry(label.clone()).or_default().insert(name.clone());
            touched.extend(self.selecting.get(label).into_iter().flatten().cloned());
        }
        self.pods.insert(name, pod);
    }

    fn remove(&mut self, name: &ObjectName, touched: &mut BTreeSet<ServiceName>) {
        for label in self.pods.remove(name).into_iter().flat_map(|pod| pod.labels) {
            take_out(&mut self.carrying, &label, name);
            touched.extend(self.selecting.get(&label).into_iter().flatten().cloned());
        }
    }

    /// Puts a Service under the label that the fewest others are under: most are under one of their own,
    /// though all may also ask for the same other label.
    fn list(&mut self, service: &ServiceName, selection: &Selection) {
        let others = |label: &&str| self.selecting.get(*label).map_or(0, BTreeSet::len);
        if let Some(label) = selection.labels().min_by_key(others) {
            self.selecting.entry(label.into()).or_default().insert(service.clone());
        }
    }

    fn unlist(&mut self, service: &ServiceName, selection: &Selection) {
        for label in selection.labels() {
            take_out(&mut self.selecting, label, service);
        }
    }

    /// The Pods that carry every label, in the order of their names.
    fn selected(&self, selection: &Selection) -> impl Iterator<Item = &Pod> {
        let carriers: Option<Vec<_>> = selection.labels().map(|label| self.carrying.get(label)).collect();
        let mut carriers = carriers.unwrap_or_default();
        carriers.sort_by_key(|names| names.len());
        let (fewest, others) = carriers.split_first().map_or((None, [].as_slice()), |(a, b)| (Some(*a), b));
        let others = others.to_vec();
        let names = fewest.into_iter().flatten();
        names
            .filter(move |name| others.iter().all(|names| names.contains(*name)))
            .filter_map(|name| self.pods.get(name))
    }
}

/// Takes a name out of an index, and its label where it was the last.
fn take_out(index: &mut HashMap<Box<str>, BTreeSet<ObjectName>>, label: &str, name: &ObjectName) {
    if let Some(names) = index.get_mut(label) {
        names.remove(name);
        if names.is_empty() {
            index.remove(label);
        }
    }
}
