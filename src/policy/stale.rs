//! Which UDP flows in conntrack lead to the wrong place.
//!
//! A flow keeps the destination that its first packet got for as long as the client keeps sending. TCP
//! notices when an endpoint is gone, and starts a connection anew; UDP never does. So a flow goes when
//!
//! - it was sent to a frontend and is translated to something that is not one of its endpoints (any
//!   more), or
//! - it was sent to a frontend that has endpoints and is not translated: it is older than the frontend.
//!
//! An endpoint counts for as long as it serves, whatever traffic policy, topology and termination say:
//! those are about new flows, and a flow that works is left alone, as TCP connections are
//! (kubernetes/kubernetes pkg/proxy/conntrack/cleanup.go; endpoints compare by address and port).
//!
//! A frontend that is gone has no endpoints: what is still translated for it goes (kubernetes pull
//! request 141371), and what is not translated has never been ours.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use ipnet::IpNet;

use super::exposure::{Frontend, FrontendAddress};
use crate::model::{Family, Protocol};

/// One direction of a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tuple {
    /// Who sends.
    pub source: SocketAddr,
    /// To whom.
    pub destination: SocketAddr,
}

/// A UDP flow as conntrack knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flow {
    /// As the client sends.
    pub original: Tuple,
    /// As the answer is expected: its source is where the flow really goes.
    pub reply: Tuple,
}

impl Flow {
    /// What the client dialled.
    #[must_use]
    pub const fn dialled(&self) -> SocketAddr {
        self.original.destination
    }

    /// Where the flow goes.
    #[must_use]
    pub const fn reaches(&self) -> SocketAddr {
        self.reply.source
    }

    /// Whether the two differ (DNAT). Masquerading alone does not count.
    #[must_use]
    pub fn is_translated(&self) -> bool {
        self.dialled() != self.reaches()
    }
}

/// Endpoints that flows may lead to, sorted.
pub type Valid = Arc<[SocketAddr]>;

/// A part of conntrack to look through, and what holds for it.
#[derive(Clone, Debug)]
pub struct Review {
    /// The family.
    pub family: Family,
    /// Where to look.
    pub scope: Scope,
    /// What is valid, by the destination that a client dials.
    destinations: HashMap<SocketAddr, Valid>,
    /// What is valid for NodePorts on whatever address, where all of the node's take them.
    anywhere: HashMap<u16, Valid>,
    /// Ranges whose every address belongs to some Service...
    ranges: Vec<IpNet>,
    /// ...and the endpoints that serve any Service: whatever leads from such an address to somewhere
    /// else is lost, though its frontend is not known (any more).
    serving: HashSet<SocketAddr>,
}

/// Where to look for stale flows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Scope {
    /// At every UDP flow of the family.
    Everything,
    /// At flows to these: an address, or any (NodePorts), and a port.
    Dialled(BTreeSet<(Option<IpAddr>, u16)>),
}

/// The NodePort addresses of a family.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodePortAddresses {
    /// The known ones.
    pub listed: BTreeSet<IpAddr>,
    /// Whether NodePorts answer on every address that the kernel calls local, also on those that are
    /// not listed.
    pub anywhere: bool,
}

impl Review {
    /// A review of flows to `frontends`. `valid` knows the endpoints of every UDP frontend there is,
    /// and nothing for one that is gone.
    #[must_use]
    pub fn new<'a>(
        family: Family,
        frontends: impl Iterator<Item = &'a Frontend>,
        valid: impl Fn(&Frontend) -> Option<Valid>,
        node_ports: &NodePortAddresses,
    ) -> Self {
        let mut dialled = BTreeSet::new();
        let mut destinations = HashMap::new();
        let mut anywhere = HashMap::new();
        let at = |address: FrontendAddress, port| Frontend { address, protocol: Protocol::Udp, port };
        // A Service that claims the node's own address has it for itself; else it takes NodePorts.
        let endpoints = |address: IpAddr, port| {
            let claimed = valid(&at(FrontendAddress::Ip(address), port));
            let listed = node_ports.listed.contains(&address);
            let shared = || valid(&at(FrontendAddress::NodePort(family), port)).filter(|_| listed);
            claimed.or_else(shared).unwrap_or_default()
        };
        for Frontend { address, port, .. } in frontends {
            let (port, number) = (*port, port.number());
            let mut look_at = |address| {
                destinations.insert(SocketAddr::new(address, number), endpoints(address, port));
            };
            match *address {
                FrontendAddress::Ip(address) => {
                    dialled.insert((Some(address), number));
                    look_at(address);
                }
                FrontendAddress::NodePort(_) => {
                    dialled.insert((None, number));
                    node_ports.listed.iter().copied().for_each(look_at);
                    if node_ports.anywhere {
                        let valid = valid(&at(*address, port)).unwrap_or_default();
                        anywhere.insert(number, valid);
                    }
                }
            }
        }
        let (scope, ranges, serving) = (Scope::Dialled(dialled), Vec::new(), HashSet::new());
        Self { family, scope, destinations, anywhere, ranges, serving }
    }

    /// The same for every flow, `frontends` being all there are. `ranges` are those of Services, and
    /// `serving` every UDP endpoint of any Service, also of those that are not ours.
    #[must_use]
    pub fn of_everything(self, ranges: Vec<IpNet>, serving: HashSet<SocketAddr>) -> Self {
        Self { scope: Scope::Everything, ranges, serving, ..self }
    }

    /// Whether the flow has to go.
    #[must_use]
    pub fn is_stale(&self, flow: &Flow) -> bool {
        let (dialled, reaches) = (flow.dialled(), flow.reaches());
        let missing = |valid: &Valid| valid.binary_search(&reaches).is_err();
        match self.destinations.get(&dialled) {
            Some(valid) => missing(valid) && (flow.is_translated() || !valid.is_empty()),
            None if !flow.is_translated() => false,
            None => match self.anywhere.get(&dialled.port()) {
                Some(valid) => missing(valid),
                None => {
                    self.ranges.iter().any(|range| range.contains(&dialled.ip()))
                        && !self.serving.contains(&reaches)
                }
            },
        }
    }
}

#[cfg(test)]
mod tests;
