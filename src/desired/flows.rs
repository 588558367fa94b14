//! What UDP flows may lead to, and which of them have to be compared with that: the side of the
//! ledger that connection tracking needs. PURE.
//!
//! Frontends that change are looked at once the change is programmed, never before: a flow deleted
//! earlier would come back with the next packet, and with the old destination.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;

use super::row::{Owner, Row};
use crate::diff::Plan;
use crate::model::{Family, Protocol, ServiceName, Store};
use crate::policy::endpoints::serving;
use crate::policy::exposure::{Frontend, FrontendAddress};
use crate::policy::stale::{NodePortAddresses, Review, Valid};

/// The UDP frontends of one family.
#[derive(Debug)]
pub struct Flows {
    family: Family,
    frontends: BTreeMap<Frontend, (Owner, Valid)>,
    /// The frontends of each owner that has some: few have.
    held: HashMap<Owner, Vec<Frontend>>,
    node_ports: NodePortAddresses,
    ranges: Vec<IpNet>,
    /// Frontends that changed and are not programmed yet, with the owner that has or had them.
    changed: BTreeMap<Frontend, Owner>,
    /// What has to be looked at.
    due: Due,
}

/// What has to be looked at.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Due {
    everything: bool,
    frontends: BTreeSet<Frontend>,
}

impl Due {
    /// Whether there is nothing to look at.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        !self.everything && self.frontends.is_empty()
    }

    /// What has changed just now, without what is looked at only because nothing is known.
    #[must_use]
    pub fn changed(&self) -> Self {
        Self { everything: false, frontends: self.frontends.clone() }
    }

    /// Adds what `other` has.
    pub fn add(&mut self, other: Self) {
        self.everything |= other.everything;
        self.frontends.extend(other.frontends);
    }
}

impl Flows {
    /// Nothing is known yet. With `anywhere` NodePorts answer on every address of the node.
    #[must_use]
    pub fn new(family: Family, anywhere: bool) -> Self {
        let node_ports = NodePortAddresses { listed: BTreeSet::new(), anywhere };
        let (frontends, held, ranges, changed, due) = Default::default();
        Self { family, frontends, held, node_ports, ranges, changed, due }
    }

    /// Takes in the rows that `owner` has from now on.
    pub fn take(&mut self, owner: &Owner, rows: &[Row], store: &Store) {
        match owner {
            Owner::Node => self.take_node(rows),
            Owner::Service(name) => self.take_service(owner, name, rows, store),
        }
    }

    /// A plan was carried out. `unread`: what was installed before was known only from the kernel, so
    /// that any flow may be stale. Changes of owners that are `refused` wait.
    pub fn programmed(&mut self, plan: &Plan, unread: bool, refused: impl Fn(&Owner) -> bool) {
        let changed = std::mem::take(&mut self.changed);
        let (waiting, done): (BTreeMap<_, _>, BTreeMap<_, _>) =
            changed.into_iter().partition(|(_, owner)| refused(owner));
        self.changed = waiting;
        if unread {
            self.due.everything = true;
        } else {
            self.due.frontends.extend(done.into_keys());
        }
        for change in &plan.changes {
            match (change.before.as_deref(), change.after.as_deref()) {
                // What is removed may be unknown here: somebody before us has installed it.
                (Some(Row::Frontend(frontend, _)), after)
                    if frontend.protocol == Protocol::Udp && (unread || after.is_none()) =>
                {
                    self.due.frontends.insert(*frontend);
                }
                (None, Some(Row::Frontend(frontend, _))) if frontend.protocol == Protocol::Udp && unread => {
                    self.due.frontends.insert(*frontend);
                }
                (Some(Row::NodePortAddress(address)), None) => self.address_gone(*address),
                (None, Some(Row::NodePortAddress(_))) => {
                    self.due.frontends.extend(node_ports(&self.frontends));
                }
                _ => {}
            }
        }
    }

    /// What has to be looked at; from now on that is the caller's care.
    pub fn take_due(&mut self) -> Due {
        std::mem::take(&mut self.due)
    }

    /// What holds for the flows that `due` is about, as of now.
    #[must_use]
    pub fn review(&self, due: &Due, store: &Store) -> Review {
        let valid = |frontend: &Frontend| self.frontends.get(frontend).map(|(_, valid)| valid.clone());
        if !due.everything {
            return Review::new(self.family, due.frontends.iter(), valid, &self.node_ports);
        }
        let all: BTreeSet<&Frontend> = self.frontends.keys().chain(&due.frontends).collect();
        let review = Review::new(self.family, all.into_iter(), valid, &self.node_ports);
        review.of_everything(self.ranges.clone(), serving_anybody(store, self.family))
    }

    fn take_node(&mut self, rows: &[Row]) {
        let address = |row: &Row| if let Row::NodePortAddress(ip) = row { Some(*ip) } else { None };
        let range = |row: &Row| if let Row::ServiceCidr(net) = row { Some(*net) } else { None };
        self.node_ports.listed = rows.iter().filter_map(address).collect();
        self.ranges = rows.iter().filter_map(range).collect();
    }

    fn take_service(&mut self, owner: &Owner, name: &ServiceName, rows: &[Row], store: &Store) {
        let now = valid_by_frontend(name, rows, self.family, store);
        for frontend in self.held.remove(owner).unwrap_or_default() {
            // Another owner may have taken it over already.
            let ours = self.frontends.get(&frontend).is_some_and(|(holder, _)| holder == owner);
            if ours && !now.contains_key(&frontend) {
                self.frontends.remove(&frontend);
                self.changed.insert(frontend, owner.clone());
            }
        }
        if !now.is_empty() {
            self.held.insert(owner.clone(), now.keys().copied().collect());
        }
        for (frontend, valid) in now {
            let same = self.frontends.get(&frontend).is_some_and(|(_, known)| *known == valid);
            if !same {
                self.changed.insert(frontend, owner.clone());
            }
            self.frontends.insert(frontend, (owner.clone(), valid));
        }
    }

    /// NodePorts do not answer on this address any more.
    fn address_gone(&mut self, address: IpAddr) {
        let at = |frontend| Frontend { address: FrontendAddress::Ip(address), ..frontend };
        self.due.frontends.extend(node_ports(&self.frontends).map(at));
    }
}

fn node_ports<T>(frontends: &BTreeMap<Frontend, T>) -> impl Iterator<Item = Frontend> {
    let all = frontends.keys().copied();
    all.filter(|frontend| matches!(frontend.address, FrontendAddress::NodePort(_)))
}

/// The UDP frontends among a Service's rows, each with the endpoints that flows may lead to.
fn valid_by_frontend(
    name: &ServiceName,
    rows: &[Row],
    family: Family,
    store: &Store,
) -> BTreeMap<Frontend, Valid> {
    let mut ports: BTreeMap<&str, Valid> = BTreeMap::new();
    let mut all = BTreeMap::new();
    for row in rows {
        let Row::Frontend(frontend, forwarding) = row else { continue };
        if frontend.protocol != Protocol::Udp {
            continue;
        }
        let valid = ports.entry(&forwarding.service_port.port).or_insert_with(|| {
            let ports = store.service(name).into_iter().flat_map(|service| &service.ports);
            let mut udp = ports.filter(|port| port.protocol == Protocol::Udp);
            let port = udp.find(|port| *port.name == *forwarding.service_port.port);
            port.map(|port| serving(store.slices(name), port, family).into()).unwrap_or_default()
        });
        all.insert(*frontend, valid.clone());
    }
    all
}

/// Every UDP endpoint of a family that serves, of whatever Service.
fn serving_anybody(store: &Store, family: Family) -> HashSet<SocketAddr> {
    let slices = store.all_slices().filter(|slice| slice.family == family);
    let of_slice = slices.flat_map(|slice| {
        let ports = slice.ports.iter().filter(|port| port.protocol == Protocol::Udp);
        ports.flat_map(|port| {
            let serving = slice.endpoints.iter().filter(|endpoint| endpoint.ready || endpoint.serving);
            serving.map(|endpoint| SocketAddr::new(endpoint.address, port.port.number()))
        })
    });
    of_slice.collect()
}

#[cfg(test)]
mod tests;
