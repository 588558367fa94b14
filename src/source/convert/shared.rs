//! Few distinct port lists, zone lists and port names exist in a cluster, so equal ones are one. PURE.

use std::borrow::Borrow;
use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

use crate::model::{SharedStr, SlicePort, Zone};

/// What conversions share. Clones share it with each other.
#[derive(Clone, Debug, Default)]
pub struct Shared(Arc<Pools>);

#[derive(Debug, Default)]
struct Pools {
    zones: Mutex<Pool<Arc<Vec<Zone>>>>,
    slice_ports: Mutex<Pool<Arc<[SlicePort]>>>,
    port_names: Mutex<Pool<SharedStr>>,
}

impl Shared {
    /// The list of the zones of these names.
    pub fn zones(&self, names: &[&str]) -> Arc<Vec<Zone>> {
        let list: Vec<Zone> = names.iter().map(|name| Zone((*name).into())).collect();
        get::<_, Vec<Zone>>(&self.0.zones, list)
    }

    /// The list of these ports.
    pub fn slice_ports(&self, ports: Vec<SlicePort>) -> Arc<[SlicePort]> {
        get::<_, [SlicePort]>(&self.0.slice_ports, ports)
    }

    /// The name of a port.
    pub fn port_name(&self, name: &str) -> SharedStr {
        get::<_, str>(&self.0.port_names, name)
    }
}

/// Values in use.
#[derive(Debug)]
struct Pool<P> {
    known: BTreeSet<P>,
    /// At how many values those that nobody holds any more are let go.
    sweep_at: usize,
}

impl<P> Default for Pool<P> {
    fn default() -> Self {
        Self { known: BTreeSet::new(), sweep_at: 64 }
    }
}

/// A pointer that tells whether others point to the same.
trait Counted {
    fn is_held(&self) -> bool;
}

impl<T: ?Sized> Counted for Arc<T> {
    fn is_held(&self) -> bool {
        Arc::strong_count(self) > 1
    }
}

impl Counted for SharedStr {
    fn is_held(&self) -> bool {
        // text that is part of the program has no count, and costs nothing
        Self::strong_count(self).is_none_or(|count| count > 1)
    }
}

fn get<P, Q>(pool: &Mutex<Pool<P>>, value: impl Borrow<Q> + Into<P>) -> P
where
    P: Clone + Ord + Borrow<Q> + Counted,
    Q: Ord + ?Sized,
{
    // nothing can be left half done in there
    let mut pool = pool.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(known) = pool.known.get(value.borrow()) {
        return known.clone();
    }
    if pool.known.len() >= pool.sweep_at {
        pool.known.retain(P::is_held);
        pool.sweep_at = (pool.known.len() * 2).max(64);
    }
    let value = value.into();
    pool.known.insert(value.clone());
    value
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_lists_are_one() {
        let shared = Shared::default();
        let (first, second) = (shared.zones(&["a", "b"]), shared.clone().zones(&["a", "b"]));
        assert!(Arc::ptr_eq(&first, &second));
        assert_ne!(first, shared.zones(&["b", "a"]));
        assert!(SharedStr::ptr_eq(&shared.port_name("http"), &shared.port_name("http")));
    }

    #[test]
    fn what_nobody_holds_is_let_go() {
        let shared = Shared::default();
        let held = shared.zones(&["held"]);
        for number in 0..10_000 {
            shared.zones(&[&number.to_string()]);
        }
        let known = &shared.0.zones.lock().unwrap().known;
        assert!(known.len() <= 64 && known.contains(&held), "{}", known.len());
    }
}
