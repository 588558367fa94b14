//! Lists of endpoints to choose from, packed: a node of a large cluster holds hundreds of thousands.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use super::endpoints::Target;
use crate::model::Port;

/// An endpoint list in a fixed order, all of one family. It is shared, not copied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Targets(Packed);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Packed {
    V4(Arc<[PackedTarget<Ipv4Addr>]>),
    V6(Arc<[PackedTarget<Ipv6Addr>]>),
}

/// Of IPv4 in 8 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct PackedTarget<A> {
    address: A,
    port: Port,
    local: bool,
}

impl<A: Into<IpAddr>> From<PackedTarget<A>> for Target {
    fn from(packed: PackedTarget<A>) -> Self {
        Self { address: packed.address.into(), port: packed.port, local: packed.local }
    }
}

impl Targets {
    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        match &self.0 {
            Packed::V4(list) => list.len(),
            Packed::V6(list) => list.len(),
        }
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The one at this position.
    #[must_use]
    pub fn get(&self, position: usize) -> Option<Target> {
        match &self.0 {
            Packed::V4(list) => list.get(position).map(|packed| (*packed).into()),
            Packed::V6(list) => list.get(position).map(|packed| (*packed).into()),
        }
    }

    /// All of them, in order.
    pub fn iter(&self) -> impl Iterator<Item = Target> + Clone + '_ {
        (0..self.len()).filter_map(|position| self.get(position))
    }

    /// Whether this is one of them.
    #[must_use]
    pub fn contains(&self, target: &Target) -> bool {
        self.iter().any(|other| other == *target)
    }

    /// Whether both share one list; equal ones need not.
    #[must_use]
    pub fn is_same(&self, other: &Self) -> bool {
        match (&self.0, &other.0) {
            (Packed::V4(one), Packed::V4(other)) => Arc::ptr_eq(one, other),
            (Packed::V6(one), Packed::V6(other)) => Arc::ptr_eq(one, other),
            _ => false,
        }
    }
}

impl Default for Targets {
    fn default() -> Self {
        Self(Packed::V4(Arc::default()))
    }
}

/// A list of the first one's family; what is of the other is left out.
impl FromIterator<Target> for Targets {
    fn from_iter<T: IntoIterator<Item = Target>>(targets: T) -> Self {
        let mut targets = targets.into_iter().peekable();
        let first = targets.peek().map(|target| target.address);
        let four = |Target { address, port, local }| match address {
            IpAddr::V4(address) => Some(PackedTarget { address, port, local }),
            IpAddr::V6(_) => None,
        };
        let six = |Target { address, port, local }| match address {
            IpAddr::V4(_) => None,
            IpAddr::V6(address) => Some(PackedTarget { address, port, local }),
        };
        Self(match first {
            Some(IpAddr::V6(_)) => Packed::V6(targets.filter_map(six).collect()),
            _ => Packed::V4(targets.filter_map(four).collect()),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_come_out_as_they_went_in() {
        let target = |address: &str, port: u16, local| Target {
            address: address.parse().expect("an address"),
            port: crate::testing::port(port),
            local,
        };
        let four = [target("10.0.0.2", 80, false), target("10.0.0.1", 8080, true)];
        let six = [target("fd00::1", 80, true), target("fd00::2", 443, false)];
        for all in [&four, &six] {
            let list: Targets = all.iter().copied().collect();
            assert_eq!((list.len(), list.is_empty()), (2, false));
            assert_eq!(list.iter().collect::<Vec<_>>(), all);
            assert_eq!((list.get(1), list.get(2)), (Some(all[1]), None));
            assert!(list.contains(&all[0]) && !list.contains(&target("10.0.0.3", 80, false)));
            assert!(list.is_same(&list.clone()) && !list.is_same(&all.iter().copied().collect()));
        }
        let mixed: Targets = [six[0], four[0]].into_iter().collect();
        assert_eq!(mixed.iter().collect::<Vec<_>>(), [six[0]]);
    }

    #[test]
    fn a_target_takes_few_bytes() {
        assert_eq!((size_of::<PackedTarget<Ipv4Addr>>(), size_of::<PackedTarget<Ipv6Addr>>()), (8, 20));
    }
}
