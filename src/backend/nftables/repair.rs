//! What is wrong with a table, apart from elements, and can be put right without replacing it. PURE.

use super::names::Set;
use super::ruleset::Chain;
use super::transaction::Op;

/// With more chains than this to mend a new table is quicker: each costs a walk through the maps that
/// its rules look into (6 ms at 100,000 elements).
const MOST_CHAINS: usize = 8;

/// What has to be mended.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Repairs {
    /// Chains that are missing, or (`true`) there with other rules.
    pub chains: Vec<(Chain, bool)>,
    /// Chains that are not ours.
    pub foreign_chains: Vec<String>,
    /// Sets that are not ours.
    pub foreign_sets: Vec<String>,
    /// Elements that shunt does not write, by the bytes of their keys.
    pub foreign_elements: Vec<(Set, Vec<u8>)>,
}

impl Repairs {
    /// Whether nothing has to be mended.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Whether a new table is the better way.
    #[must_use]
    pub fn too_many(&self) -> bool {
        self.chains.len() + self.foreign_chains.len() > MOST_CHAINS
    }

    /// What is wrong, in words; of much only the beginning.
    #[must_use]
    pub fn text(&self) -> String {
        const NAMED: usize = 4;
        let chains = self.chains.iter().map(|(chain, there)| {
            let what = if *there { "has other rules than it should" } else { "is missing" };
            format!("chain {} {what}", chain.name)
        });
        let foreign = |what: &'static str| move |name: &String| format!("{what} {name} is not shunt's");
        let elements = self
            .foreign_elements
            .iter()
            .map(|(set, _)| format!("set {} has an element that is not", set.name()));
        let mut all = chains
            .chain(self.foreign_chains.iter().map(foreign("chain")))
            .chain(self.foreign_sets.iter().map(foreign("set")))
            .chain(elements);
        let mut texts: Vec<String> = all.by_ref().take(NAMED).collect();
        texts.extend(all.next().map(|_| "and more".to_owned()));
        texts.join(", ")
    }

    /// What mends it: first all rules go that hold on to something, then what is not ours, then what is
    /// ours comes back.
    #[must_use]
    pub fn ops(&self) -> Vec<Op> {
        let there = self.chains.iter().filter(|(_, there)| *there).map(|(chain, _)| &chain.name);
        let mut ops: Vec<Op> =
            there.chain(&self.foreign_chains).map(|name| Op::FlushChain(name.clone())).collect();
        ops.extend(self.foreign_elements.iter().map(|(set, key)| Op::DeleteKey(*set, key.clone())));
        ops.extend(self.foreign_chains.iter().map(|name| Op::DeleteChain(name.clone())));
        ops.extend(self.foreign_sets.iter().map(|name| Op::DeleteSet(name.clone())));
        ops.extend(self.chains.iter().map(|(chain, _)| Op::AddChain(chain.clone())));
        ops
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::nftables::transaction::Transaction;
    use crate::model::Family;

    fn chain(name: &str) -> Chain {
        Chain { name: name.into(), base: None, rules: vec![] }
    }

    #[test]
    fn what_holds_on_to_others_goes_first() {
        let repairs = Repairs {
            chains: vec![(chain("gone"), false), (chain("changed"), true)],
            foreign_chains: vec!["evil".into()],
            foreign_sets: vec!["list".into()],
            foreign_elements: vec![(Set::Services, vec![10, 0, 0, 1, 6, 0, 0, 0, 0, 80, 0, 0])],
        };
        let text = Transaction { family: Family::V4, ops: repairs.ops() }.to_string();
        assert_eq!(
            text.replace(" ip shunt", "").lines().collect::<Vec<_>>(),
            [
                "flush chain changed",
                "flush chain evil",
                "delete element services { 0x0a0000010600000000500000 }",
                "delete chain evil",
                "delete set list",
                "add chain gone",
                "add chain changed",
            ]
        );
        assert_eq!(
            repairs.text(),
            "chain gone is missing, chain changed has other rules than it should, chain evil is not shunt's, \
             set list is not shunt's, and more"
        );
        assert!(!repairs.is_empty() && !repairs.too_many() && Repairs::default().is_empty());
    }

    #[test]
    fn much_is_better_replaced() {
        let chains = (0..=MOST_CHAINS).map(|n| (chain(&format!("c{n}")), true)).collect();
        assert!(Repairs { chains, ..Repairs::default() }.too_many());
    }
}
