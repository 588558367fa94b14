//! Few distinct lists of zone hints exist in a cluster, so equal ones are one. PURE.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

use crate::model::Zone;

/// Every list of zones in use. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct ZoneLists(Arc<Mutex<Lists>>);

#[derive(Debug, Default)]
struct Lists {
    known: BTreeSet<Arc<Vec<Zone>>>,
    /// At how many lists those that nobody holds any more are let go.
    sweep_at: usize,
}

impl ZoneLists {
    /// The list of these names.
    pub fn get(&self, names: &[&str]) -> Arc<Vec<Zone>> {
        let list: Vec<Zone> = names.iter().map(|name| Zone((*name).into())).collect();
        // nothing can be left half done in there
        let mut lists = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = lists.known.get(&list) {
            return Arc::clone(known);
        }
        if lists.known.len() >= lists.sweep_at {
            lists.known.retain(|list| Arc::strong_count(list) > 1);
            lists.sweep_at = (lists.known.len() * 2).max(64);
        }
        let list = Arc::new(list);
        lists.known.insert(Arc::clone(&list));
        list
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_lists_are_one() {
        let zones = ZoneLists::default();
        let (first, second) = (zones.get(&["a", "b"]), zones.clone().get(&["a", "b"]));
        assert!(Arc::ptr_eq(&first, &second));
        assert_ne!(first, zones.get(&["b", "a"]));
    }

    #[test]
    fn lists_that_nobody_holds_are_let_go() {
        let zones = ZoneLists::default();
        for number in 0..10_000 {
            zones.get(&[&number.to_string()]);
        }
        assert!(zones.0.lock().unwrap().known.len() <= 64);
    }
}
