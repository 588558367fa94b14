//! Whether a client is a local pod or the node itself: what `detectLocalMode` and Local traffic policies
//! ask. EDGE: where addresses do not tell, the kernel's routes do.

use std::net::IpAddr;
use std::sync::{Arc, PoisonError, RwLock};

use ipnet::IpNet;

use super::choose::Origin;
use super::routes::{Routes, Way};
use crate::config::DetectLocal;

/// The pod CIDRs of this node as its Node object tells them.
pub type NodeCidrs = Arc<RwLock<Vec<IpNet>>>;

/// Tells where clients are.
#[derive(Debug)]
pub struct Locality {
    detect: DetectLocal,
    node_cidrs: NodeCidrs,
    /// Opened when first needed.
    routes: Option<Routes>,
}

impl Locality {
    /// By the configured mode.
    #[must_use]
    pub const fn new(detect: DetectLocal, node_cidrs: NodeCidrs) -> Self {
        Self { detect, node_cidrs, routes: None }
    }

    /// Where a client is that has called the address `own`.
    pub fn origin(&mut self, client: IpAddr, own: IpAddr) -> Origin {
        // What the node sends to one of its own addresses has that address as its source, too.
        if client == own || client.is_loopback() {
            return Origin::Inside;
        }
        if ranges(&self.detect, &self.node_cidrs)
            .is_some_and(|ranges| ranges.iter().any(|net| net.contains(&client)))
        {
            return Origin::Inside;
        }
        match self.way(client) {
            Some(way) if way.local || self.is_pod_interface(way) => Origin::Inside,
            _ => Origin::Outside,
        }
    }

    fn way(&mut self, to: IpAddr) -> Option<Way> {
        if self.routes.is_none() {
            self.routes = Routes::open().ok();
        }
        self.routes.as_mut()?.way(to).ok()
    }

    /// Whether answers leave by an interface behind which pods are.
    fn is_pod_interface(&self, way: Way) -> bool {
        let (DetectLocal::BridgeInterface(wanted) | DetectLocal::InterfaceNamePrefix(wanted)) = &self.detect
        else {
            return false;
        };
        let Some(name) = way.interface.and_then(|index| nix::net::if_::if_indextoname(index).ok()) else {
            return false;
        };
        match &self.detect {
            DetectLocal::BridgeInterface(_) => name.to_bytes() == wanted.as_bytes(),
            _ => name.to_bytes().starts_with(wanted.as_bytes()),
        }
    }
}

/// The ranges that local pods have their addresses in, where addresses tell.
#[must_use]
pub fn ranges(detect: &DetectLocal, node_cidrs: &NodeCidrs) -> Option<Vec<IpNet>> {
    match detect {
        DetectLocal::None => Some(Vec::new()),
        DetectLocal::ClusterCidr(nets) => Some(nets.clone()),
        DetectLocal::NodeCidr => Some(node_cidrs.read().unwrap_or_else(PoisonError::into_inner).clone()),
        DetectLocal::BridgeInterface(_) | DetectLocal::InterfaceNamePrefix(_) => None,
    }
}
