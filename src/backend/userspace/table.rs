//! From plans to sockets: which rows stand, and what a change of them means for sockets, local addresses
//! and service ranges. PURE.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;

use crate::desired::{Owner, Row, RowKey};
use crate::diff::{Plan, RowRef};
use crate::model::{Family, Port, Protocol};
use crate::policy::exposure::{Frontend, FrontendAddress};

/// Where a socket is bound.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Binding {
    /// The protocol.
    pub protocol: Protocol,
    /// Address and port.
    pub at: SocketAddr,
}

impl std::fmt::Display for Binding {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.at, self.protocol)
    }
}

/// A row of kind [`Row::Frontend`] with its owner.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnedRow {
    /// On whose behalf the row stands.
    pub owner: Owner,
    /// The row.
    pub row: RowRef,
}

/// What a plan means, apart from what stays as it is. Sorted.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Effects {
    /// Addresses that have to be local from now on (`true`), or need not be any longer.
    pub addresses: Vec<(IpAddr, bool)>,
    /// Ranges whose unowned addresses are dropped, or no longer.
    pub ranges: Vec<(IpNet, bool)>,
    /// What is served where; `None`: nothing any longer.
    pub bindings: Vec<(Binding, Option<OwnedRow>)>,
}

/// The rows of one family, as applied.
#[derive(Debug)]
pub struct Table {
    family: Family,
    rows: BTreeMap<RowKey, OwnedRow>,
}

impl Table {
    /// An empty table.
    #[must_use]
    pub const fn new(family: Family) -> Self {
        Self { family, rows: BTreeMap::new() }
    }

    /// Every row with its owner.
    pub fn rows(&self) -> impl Iterator<Item = (Owner, Row)> + '_ {
        self.rows.values().map(|held| (held.owner.clone(), (*held.row).clone()))
    }

    /// Takes over a plan and says what it means.
    pub fn apply(&mut self, plan: &Plan) -> Effects {
        let mut touched = Touched::default();
        // NodePorts move with the addresses that they answer on: before and after count.
        for change in &plan.changes {
            for row in [&change.before, &change.after].into_iter().flatten() {
                touched.add(row);
            }
        }
        for (frontend, address) in touched.everywhere(self) {
            touched.bindings.insert(binding(frontend, address));
        }
        for change in &plan.changes {
            if let Some(before) = &change.before {
                self.rows.remove(&before.key());
            }
            if let Some(after) = &change.after {
                self.rows.insert(after.key(), OwnedRow { owner: change.owner.clone(), row: after.clone() });
            }
        }
        for (frontend, address) in touched.everywhere(self) {
            touched.bindings.insert(binding(frontend, address));
        }
        let bindings = touched.bindings.into_iter().map(|binding| (binding, self.at(binding).cloned()));
        let addresses = touched.addresses.into_iter().map(|address| (address, self.needs(address)));
        let ranges = touched.ranges.into_iter();
        Effects {
            addresses: addresses.collect(),
            ranges: ranges.map(|net| (net, self.rows.contains_key(&RowKey::ServiceCidr(net)))).collect(),
            bindings: bindings.collect(),
        }
    }

    /// Everything that stands: what a plan from nothing would mean.
    #[must_use]
    pub fn everything(&self) -> Effects {
        let mut effects = Effects::default();
        let mut addresses = BTreeSet::new();
        for (key, held) in &self.rows {
            match key {
                RowKey::ServiceCidr(net) => effects.ranges.push((*net, true)),
                RowKey::ClusterIp(address) => _ = addresses.insert(*address),
                RowKey::Frontend(frontend) => match frontend.address {
                    FrontendAddress::Ip(address) => {
                        addresses.insert(address);
                        effects.bindings.push((binding(*frontend, address), Some(held.clone())));
                    }
                    FrontendAddress::NodePort(_) => {
                        let open = self.node_addresses().map(|address| binding(*frontend, address));
                        effects.bindings.extend(open.map(|binding| (binding, self.at(binding).cloned())));
                    }
                },
                RowKey::NodePortAddress(_) | RowKey::Hairpin(_) => {}
            }
        }
        effects.addresses = addresses.into_iter().map(|address| (address, true)).collect();
        effects.bindings.sort_by_key(|(binding, _)| *binding);
        effects.bindings.dedup_by_key(|(binding, _)| *binding);
        effects
    }

    /// Who serves a binding: a frontend with this address, else a NodePort, as in every other mode.
    #[must_use]
    pub fn at(&self, binding: Binding) -> Option<&OwnedRow> {
        let (address, protocol) = (binding.at.ip(), binding.protocol);
        let port = Port::new(binding.at.port())?;
        let row = |address| self.rows.get(&RowKey::Frontend(Frontend { address, protocol, port }));
        row(FrontendAddress::Ip(address)).or_else(|| {
            let of_node = self.rows.contains_key(&RowKey::NodePortAddress(address));
            row(FrontendAddress::NodePort(self.family)).filter(|_| of_node)
        })
    }

    /// Whether an address belongs to a Service.
    fn needs(&self, address: IpAddr) -> bool {
        let Some((first, last)) = Port::new(1).zip(Port::new(u16::MAX)) else { return false };
        let key = |protocol, port| {
            RowKey::Frontend(Frontend { address: FrontendAddress::Ip(address), protocol, port })
        };
        let frontends = key(Protocol::Tcp, first)..=key(Protocol::Sctp, last);
        self.rows.contains_key(&RowKey::ClusterIp(address)) || self.rows.range(frontends).next().is_some()
    }

    /// The addresses on which NodePorts answer.
    fn node_addresses(&self) -> impl Iterator<Item = IpAddr> + '_ {
        // They are the first of all keys.
        self.rows.keys().map_while(|key| match key {
            RowKey::NodePortAddress(address) => Some(*address),
            _ => None,
        })
    }

    /// The frontends that are NodePorts.
    fn node_ports(&self) -> impl Iterator<Item = Frontend> + '_ {
        // They are the last of all keys.
        self.rows.keys().rev().map_while(|key| match key {
            RowKey::Frontend(frontend) if matches!(frontend.address, FrontendAddress::NodePort(_)) => {
                Some(*frontend)
            }
            _ => None,
        })
    }
}

/// What the rows of a plan are about.
#[derive(Default)]
struct Touched {
    addresses: BTreeSet<IpAddr>,
    ranges: BTreeSet<IpNet>,
    bindings: BTreeSet<Binding>,
    node_addresses: BTreeSet<IpAddr>,
    node_ports: BTreeSet<Frontend>,
}

impl Touched {
    fn add(&mut self, row: &Row) {
        match row {
            Row::NodePortAddress(address) => _ = self.node_addresses.insert(*address),
            Row::ServiceCidr(net) => _ = self.ranges.insert(*net),
            Row::ClusterIp(address, _) => _ = self.addresses.insert(*address),
            // Only masquerading has to know them, and a proxy always has a source of its own.
            Row::Hairpin(_) => {}
            Row::Frontend(frontend, _) => match frontend.address {
                FrontendAddress::Ip(address) => {
                    self.addresses.insert(address);
                    self.bindings.insert(binding(*frontend, address));
                }
                FrontendAddress::NodePort(_) => _ = self.node_ports.insert(*frontend),
            },
        }
    }

    /// The NodePorts and node addresses whose combinations are touched.
    fn everywhere(&self, table: &Table) -> Vec<(Frontend, IpAddr)> {
        let ports = self.node_ports.iter();
        let of_ports = ports.flat_map(|port| table.node_addresses().map(|address| (*port, address)));
        let of_addresses =
            self.node_addresses.iter().flat_map(|address| table.node_ports().map(|port| (port, *address)));
        let both = self
            .node_ports
            .iter()
            .flat_map(|port| self.node_addresses.iter().map(|address| (*port, *address)));
        of_ports.chain(of_addresses).chain(both).collect()
    }
}

const fn binding(frontend: Frontend, address: IpAddr) -> Binding {
    Binding { protocol: frontend.protocol, at: SocketAddr::new(address, frontend.port.number()) }
}

#[cfg(test)]
mod tests;
