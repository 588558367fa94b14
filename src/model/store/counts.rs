//! How much the store knows.

use super::Store;
use crate::model::Family;

/// How many objects are known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Services served here.
    pub services: usize,
    /// EndpointSlices.
    pub slices: usize,
    /// Legacy Endpoints objects.
    pub legacy: usize,
    /// Our own Node, or none.
    pub nodes: usize,
    /// ServiceCIDRs.
    pub service_cidrs: usize,
    /// Endpoints of all slices and legacy Endpoints: IPv4, IPv6.
    pub endpoints: [usize; 2],
}

impl Store {
    /// How much is known. Cost: a look at every Service and slice.
    #[must_use]
    pub fn counts(&self) -> Counts {
        let mut counts = Counts { service_cidrs: self.service_cidrs.len(), ..Counts::default() };
        counts.slices = self.slice_owners.len();
        counts.nodes = usize::from(self.node.is_some());
        for entry in self.entries.values() {
            counts.services += usize::from(entry.service.is_some());
            counts.legacy += usize::from(!entry.endpoints.is_empty());
        }
        for slice in self.all_slices() {
            counts.endpoints[usize::from(slice.family == Family::V6)] += slice.endpoints.len();
        }
        counts
    }
}
