//! The store: everything that the sources have said, by Service.

mod counts;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::hash::Hash;
use std::net::IpAddr;

use ipnet::IpNet;

use super::endpoint::EndpointSlice;
use super::name::{ObjectName, ServiceName, SharedStr};
use super::node::{LocalAddress, Node};
use super::service::Service;
use super::update::{Key, Kind, Object, Update};
pub use counts::Counts;

/// All objects, compact. One owner mutates it: the engine.
#[derive(Debug, Default)]
pub struct Store {
    entries: HashMap<ServiceName, Entry>,
    /// Slice name -> the Service it belongs to, since a deletion only names the slice.
    slice_owners: HashMap<ObjectName, ServiceName>,
    node: Option<Node>,
    local_addresses: Box<[LocalAddress]>,
    service_cidrs: BTreeMap<SharedStr, Box<[IpNet]>>,
    listed: BTreeSet<Kind>,
}

/// What is known under one Service name. Slices may come before their Service and stay after it.
#[derive(Debug, Default)]
struct Entry {
    service: Option<Box<Service>>,
    /// By name: what one of two slices with the same endpoint wins with must not depend on what came first.
    slices: Vec<(ObjectName, EndpointSlice)>,
    endpoints: Box<[EndpointSlice]>,
}

impl Entry {
    fn is_empty(&self) -> bool {
        self.service.is_none() && self.slices.is_empty() && self.endpoints.is_empty()
    }
}

/// What an update has changed: the input of the next sync.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Touched {
    /// Services whose rows may look different now.
    pub services: BTreeSet<ServiceName>,
    /// Rows of the node itself (NodePort addresses, service ranges) may look different.
    pub node: bool,
    /// Something that every Service depends on has changed (the zone, the node's addresses).
    pub everything: bool,
}

impl Touched {
    /// Whether nothing that matters has changed.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.services.is_empty() && !self.node && !self.everything
    }
}

impl Store {
    /// Takes in one update and adds what it changed to `touched`; an update that says nothing new
    /// adds nothing.
    pub fn apply(&mut self, update: Update, touched: &mut Touched) {
        match update {
            Update::Set(object) | Update::SetSince(object, _) => self.set(object, touched),
            Update::Delete(key) => self.delete(&key, touched),
            Update::Reset(kind, objects) => {
                self.reset(kind, objects, touched);
                self.listed.insert(kind);
            }
            Update::LocalAddresses(addresses) => {
                if self.local_addresses != addresses {
                    let node_ips = self.node_ips();
                    self.local_addresses = addresses;
                    touched.node = true;
                    touched.everything |= self.node_ips() != node_ips;
                }
            }
        }
    }

    /// Whether Services and EndpointSlices have both been listed completely: before that nothing may
    /// be programmed.
    #[must_use]
    pub fn complete(&self) -> bool {
        self.listed.contains(&Kind::Service) && self.listed.contains(&Kind::EndpointSlice)
    }

    /// Whether everything that the API has been listed.
    #[must_use]
    pub fn all_listed(&self) -> bool {
        self.complete() && self.listed.contains(&Kind::Node) && self.listed.contains(&Kind::ServiceCidr)
    }

    /// The Service of this name, if it exists.
    #[must_use]
    pub fn service(&self, name: &ServiceName) -> Option<&Service> {
        self.entries.get(name)?.service.as_deref()
    }

    /// Every slice of the Service; its legacy Endpoints only where it has no slice at all.
    pub fn slices(&self, name: &ServiceName) -> impl Iterator<Item = &EndpointSlice> + Clone + use<'_> {
        let entry = self.entries.get(name);
        let legacy = entry.filter(|entry| entry.slices.is_empty()).map(|entry| entry.endpoints.iter());
        let slices = entry.map(|entry| entry.slices.iter().map(|(_, slice)| slice));
        slices.into_iter().flatten().chain(legacy.into_iter().flatten())
    }

    /// A slice by its own name, and the Service it belongs to.
    #[must_use]
    pub fn slice(&self, name: &ObjectName) -> Option<(&ServiceName, &EndpointSlice)> {
        let service = self.slice_owners.get(name)?;
        let slices = &self.entries.get(service)?.slices;
        slices.iter().find(|(known, _)| known == name).map(|(_, slice)| (service, slice))
    }

    /// Every slice of every Service, also of those that are not served here; legacy Endpoints too.
    pub fn all_slices(&self) -> impl Iterator<Item = &EndpointSlice> {
        self.entries
            .values()
            .flat_map(|entry| entry.slices.iter().map(|(_, slice)| slice).chain(&entry.endpoints))
    }

    /// The names of all Services.
    pub fn service_names(&self) -> impl Iterator<Item = &ServiceName> {
        self.entries.iter().filter(|(_, entry)| entry.service.is_some()).map(|(name, _)| name)
    }

    /// Our own Node, if there is such an object.
    #[must_use]
    pub fn node(&self) -> Option<&Node> {
        self.node.as_ref()
    }

    /// The addresses that the kernel says are ours.
    #[must_use]
    pub fn local_addresses(&self) -> &[LocalAddress] {
        &self.local_addresses
    }

    /// The node IPs: those of the Node object, else the addresses of the interfaces with the default
    /// route, else every global address.
    #[must_use]
    pub fn node_ips(&self) -> Vec<IpAddr> {
        if let Some(node) = self.node.as_ref().filter(|node| !node.addresses.is_empty()) {
            return node.addresses.to_vec();
        }
        let pick = |on_default_route: bool| -> Vec<IpAddr> {
            let chosen = self.local_addresses.iter().filter(|a| a.default_route || !on_default_route);
            chosen.map(|a| a.address).collect()
        };
        let primary = pick(true);
        if primary.is_empty() { pick(false) } else { primary }
    }

    /// The ranges of all ServiceCIDRs.
    pub fn service_cidrs(&self) -> impl Iterator<Item = &IpNet> {
        self.service_cidrs.values().flatten()
    }

    fn set(&mut self, object: Object, touched: &mut Touched) {
        match object {
            Object::Service(name, service) => {
                let entry = self.entries.entry(name.clone()).or_default();
                if entry.service.as_deref() != Some(&service) {
                    entry.service = Some(Box::new(service));
                    touched.services.insert(name);
                }
            }
            Object::EndpointSlice(slice, service, content) => {
                self.set_slice(slice, service, content, touched);
            }
            Object::Endpoints(name, slices) => {
                let entry = self.entries.entry(name.clone()).or_default();
                if entry.endpoints != slices {
                    entry.endpoints = slices;
                    touched.services.insert(name);
                }
            }
            Object::Node(node) => self.set_node(Some(node), touched),
            Object::ServiceCidr(name, cidrs) => {
                if self.service_cidrs.get(&name) != Some(&cidrs) {
                    self.service_cidrs.insert(name, cidrs);
                    touched.node = true;
                }
            }
        }
    }

    fn set_slice(
        &mut self,
        slice: ObjectName,
        service: ServiceName,
        content: EndpointSlice,
        touched: &mut Touched,
    ) {
        if self.slice_owners.get(&slice).is_some_and(|owner| *owner != service) {
            self.delete(&Key::EndpointSlice(slice.clone()), touched);
        }
        let entry = self.entries.entry(service.clone()).or_default();
        match entry.slices.binary_search_by(|(name, _)| name.cmp(&slice)) {
            Ok(known) if entry.slices[known].1 == content => return,
            Ok(known) => entry.slices[known].1 = content,
            Err(place) => {
                // Most Services have one slice; one name serves for all that the maps hold.
                entry.slices.reserve_exact(1);
                entry.slices.insert(place, (slice.clone(), content));
                let owner = self.entries.get_key_value(&service).map_or(&service, |(name, _)| name).clone();
                self.slice_owners.insert(slice, owner);
            }
        }
        touched.services.insert(service);
    }

    fn set_node(&mut self, node: Option<Node>, touched: &mut Touched) {
        if self.node != node {
            let decides = |node: &Option<Node>| node.as_ref().map(|n| (n.zone.clone(), n.addresses.clone()));
            touched.everything |= decides(&self.node) != decides(&node);
            touched.node = true;
            self.node = node;
        }
    }

    fn delete(&mut self, key: &Key, touched: &mut Touched) {
        match key {
            Key::Service(name) => {
                self.change(name, touched, |entry| entry.service.take().is_some());
            }
            Key::EndpointSlice(slice) => {
                if let Some(service) = self.slice_owners.remove(slice) {
                    self.change(&service, touched, |entry| {
                        entry.slices.retain(|(name, _)| name != slice);
                        true
                    });
                }
            }
            Key::Endpoints(name) => {
                self.change(name, touched, |entry| !std::mem::take(&mut entry.endpoints).is_empty());
            }
            Key::Node => self.set_node(None, touched),
            Key::ServiceCidr(name) => touched.node |= self.service_cidrs.remove(name).is_some(),
        }
    }

    /// Changes an entry, notes whether anything changed, and forgets the entry once it is empty.
    fn change(&mut self, name: &ServiceName, touched: &mut Touched, act: impl FnOnce(&mut Entry) -> bool) {
        let Some(entry) = self.entries.get_mut(name) else { return };
        if act(entry) {
            touched.services.insert(name.clone());
        }
        if entry.is_empty() {
            self.entries.remove(name);
        }
    }

    fn reset(&mut self, kind: Kind, objects: Vec<Object>, touched: &mut Touched) {
        let gone: Vec<Key> = match kind {
            Kind::Service => {
                let listed = names(&objects, |o| if let Object::Service(n, _) = o { Some(n) } else { None });
                self.service_names().filter(|n| !listed.contains(n)).cloned().map(Key::Service).collect()
            }
            Kind::EndpointSlice => {
                let listed = names(&objects, |o| match o {
                    Object::EndpointSlice(n, _, _) => Some(n),
                    _ => None,
                });
                let owners = self.slice_owners.keys();
                owners.filter(|n| !listed.contains(n)).cloned().map(Key::EndpointSlice).collect()
            }
            Kind::Endpoints => {
                let listed =
                    names(&objects, |o| if let Object::Endpoints(n, _) = o { Some(n) } else { None });
                let known = self.entries.iter().filter(|(_, entry)| !entry.endpoints.is_empty());
                known.map(|(n, _)| n).filter(|n| !listed.contains(n)).cloned().map(Key::Endpoints).collect()
            }
            Kind::Node => {
                let listed = objects.iter().any(|o| matches!(o, Object::Node(_)));
                if listed { Vec::new() } else { vec![Key::Node] }
            }
            Kind::ServiceCidr => {
                let listed =
                    names(&objects, |o| if let Object::ServiceCidr(n, _) = o { Some(n) } else { None });
                let known = self.service_cidrs.keys();
                known.filter(|n| !listed.contains(n)).cloned().map(Key::ServiceCidr).collect()
            }
        };
        for key in &gone {
            self.delete(key, touched);
        }
        for object in objects {
            self.set(object, touched);
        }
    }
}

fn names<N: Eq + Hash>(objects: &[Object], name: impl Fn(&Object) -> Option<&N>) -> HashSet<&N> {
    objects.iter().filter_map(name).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{endpoint, name, node, service, slice};

    fn touch(store: &mut Store, update: Update) -> Vec<String> {
        let mut touched = Touched::default();
        store.apply(update, &mut touched);
        let mut all: Vec<String> = touched.services.iter().map(ToString::to_string).collect();
        all.extend(touched.node.then(|| "node".into()));
        all.extend(touched.everything.then(|| "everything".into()));
        all
    }

    fn set_service(n: &str, ip: &str) -> Update {
        Update::Set(Object::Service(name(n), service(ip).build()))
    }

    fn set_slice(slice_name: &str, of: &str, ip: &str) -> Update {
        Update::Set(Object::EndpointSlice(name(slice_name), name(of), slice("http", 80, &[endpoint(ip)])))
    }

    #[test]
    fn an_update_touches_what_it_changes_and_nothing_else() {
        let mut store = Store::default();
        let nothing: [&str; 0] = [];
        assert_eq!(touch(&mut store, set_service("a/web", "10.96.0.1")), ["a/web"]);
        assert_eq!(touch(&mut store, set_service("a/web", "10.96.0.1")), nothing, "the same again");
        assert_eq!(touch(&mut store, set_service("a/web", "10.96.0.2")), ["a/web"]);
        assert_eq!(touch(&mut store, set_slice("a/web-1", "a/web", "10.1.0.1")), ["a/web"]);
        assert_eq!(touch(&mut store, set_slice("a/web-1", "a/web", "10.1.0.1")), nothing, "the same again");
        assert_eq!(
            touch(&mut store, set_slice("a/web-1", "a/api", "10.1.0.1")),
            ["a/api", "a/web"],
            "relabelled"
        );
        assert_eq!(touch(&mut store, Update::Delete(Key::EndpointSlice(name("a/web-1")))), ["a/api"]);
        assert_eq!(touch(&mut store, Update::Delete(Key::EndpointSlice(name("a/web-1")))), nothing);
        assert_eq!(touch(&mut store, Update::Delete(Key::Service(name("a/web")))), ["a/web"]);
        assert_eq!(touch(&mut store, Update::Set(Object::Node(node("zone-a")))), ["node", "everything"]);
        assert_eq!(touch(&mut store, Update::Set(Object::Node(node("zone-a")))), nothing);
        assert!(store.entries.is_empty() && store.slice_owners.is_empty(), "{store:?}");
    }

    #[test]
    fn a_reset_removes_what_it_does_not_name() {
        let mut store = Store::default();
        for n in ["a/one", "a/two", "a/three"] {
            touch(&mut store, set_service(n, "10.96.0.1"));
        }
        assert!(!store.complete());
        let kept = Object::Service(name("a/two"), service("10.96.0.1").build());
        assert_eq!(touch(&mut store, Update::Reset(Kind::Service, vec![kept])), ["a/one", "a/three"]);
        assert_eq!(store.service_names().collect::<Vec<_>>(), [&name("a/two")]);
        assert!(!store.complete(), "slices are not listed yet");
        touch(&mut store, Update::Reset(Kind::EndpointSlice, vec![]));
        assert!(store.complete());
    }

    #[test]
    fn legacy_endpoints_count_only_without_slices() {
        let mut store = Store::default();
        let legacy = Box::new([slice("http", 80, &[endpoint("10.1.0.9")])]);
        touch(&mut store, Update::Set(Object::Endpoints(name("a/web"), legacy)));
        let addresses = |store: &Store| -> Vec<String> {
            let slices = store.slices(&name("a/web"));
            slices.flat_map(|s| s.endpoints.iter().map(|e| e.address.to_string())).collect()
        };
        assert_eq!(addresses(&store), ["10.1.0.9"]);
        touch(&mut store, set_slice("a/web-1", "a/web", "10.1.0.1"));
        assert_eq!(addresses(&store), ["10.1.0.1"]);
    }
}
