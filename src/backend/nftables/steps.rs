//! From a plan to transactions: what goes into which batch, in which order. PURE.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use super::element::{Element, ElementData, ElementKey};
use super::names::{ServiceChain, Set};
use super::ruleset::{
    Chain, Settings, base_chains, service_chain, static_chains, with_prerequisites, with_spares,
};
use super::sticky::{Asked, Objects};
use super::transaction::{Op, Transaction, element_ops};
use crate::desired::Owner;
use crate::diff::{Change, Plan, RowRef};

/// One batch to be, and on whose behalf its operations stand.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// What is sent.
    pub transaction: Transaction,
    /// Which operations stand on behalf of whom; the others are shared.
    pub owners: Vec<(Range<usize>, Owner)>,
}

impl Step {
    /// A step of shared operations.
    #[must_use]
    pub fn shared(settings: &Settings, ops: Vec<Op>) -> Self {
        Self { transaction: Transaction { family: settings.family, ops }, owners: Vec::new() }
    }

    /// On whose behalf an operation stands, if it is one's alone.
    #[must_use]
    pub fn owner(&self, op: usize) -> Option<&Owner> {
        self.owners.iter().find(|(ops, _)| ops.contains(&op)).map(|(_, owner)| owner)
    }

    /// Adds the operations of another step behind ours.
    pub fn append(&mut self, other: Self) {
        let base = self.transaction.ops.len();
        self.transaction.ops.extend(other.transaction.ops);
        let moved = other.owners.into_iter().map(|(ops, owner)| (base + ops.start..base + ops.end, owner));
        self.owners.extend(moved);
    }

    /// Adds the element operations of `changes`: everything that goes, then everything that comes, so
    /// that what moves from one Service to another is never there twice. Before them what sticky
    /// ServicePorts need beside what is `there`.
    fn add_changes(&mut self, changes: &[Change], settings: &Settings, there: &Objects) {
        let mut asked = Asked::default();
        for change in changes {
            self.push_owned(there.missing(change, settings, &mut asked).into_iter(), &change.owner);
        }
        let mut adds = Vec::new();
        let mut come = Vec::new();
        for change in changes {
            let mut deletes = Vec::new();
            let start = come.len();
            element_ops(change, &mut deletes, &mut come);
            if start < come.len() {
                adds.push((start..come.len(), change.owner.clone()));
            }
            self.push_owned(deletes.into_iter().map(Op::DeleteElement), &change.owner);
        }
        let base = self.transaction.ops.len();
        self.transaction.ops.extend(come.into_iter().map(Op::AddElement));
        let moved = adds.into_iter().map(|(ops, owner)| (base + ops.start..base + ops.end, owner));
        self.owners.extend(moved);
    }

    /// Leaves out the additions of elements that stand already.
    pub fn skip(&mut self, standing: &BTreeSet<(Set, ElementKey)>) {
        let skipped = |op: &Op| matches!(op, Op::AddElement(element) if standing.contains(&element.id()));
        // How many are left in front of each operation.
        let mut left = vec![0];
        for op in &self.transaction.ops {
            left.push(left.last().copied().unwrap_or(0) + usize::from(!skipped(op)));
        }
        self.transaction.ops.retain(|op| !skipped(op));
        for (ops, _) in &mut self.owners {
            *ops = left[ops.start]..left[ops.end];
        }
    }

    fn push_owned(&mut self, ops: impl Iterator<Item = Op>, owner: &Owner) {
        let start = self.transaction.ops.len();
        self.transaction.ops.extend(ops);
        if start < self.transaction.ops.len() {
            self.owners.push((start..self.transaction.ops.len(), owner.clone()));
        }
    }
}

/// Cuts the changes between owners into runs of roughly at most `elements` elements.
#[must_use]
pub fn cut(plan: &Plan, elements: usize) -> Vec<Range<usize>> {
    let mut runs = Vec::new();
    let mut start = 0;
    let mut weight = 0;
    for (at, change) in plan.changes.iter().enumerate() {
        let first_of_owner = at == 0 || plan.changes[at - 1].owner != change.owner;
        if first_of_owner && weight >= elements {
            runs.push(start..at);
            (start, weight) = (at, 0);
        }
        weight += self::weight(change);
    }
    if start < plan.changes.len() {
        runs.push(start..plan.changes.len());
    }
    runs
}

/// A sticky frontend brings a map, chains and their rules with it: about 2.6 KB, as much as this many
/// elements.
const STICKY_WEIGHT: usize = 25;

/// About how many elements a change touches; exact for what is new or goes.
fn weight(change: &Change) -> usize {
    let of = |row: &Option<RowRef>| match row.as_deref() {
        Some(crate::desired::Row::Frontend(_, forwarding)) => {
            let outside = forwarding.from_outside.as_ref().map_or(0, |choice| choice.targets().len() + 1);
            let sources = forwarding.allowed_sources.as_ref().map_or(0, |sources| sources.len() + 1);
            let sticky = if forwarding.affinity.is_some() { STICKY_WEIGHT } else { 0 };
            1 + forwarding.to.targets().len() + outside + sources + sticky
        }
        Some(_) => 1,
        None => 0,
    };
    of(&change.before).max(of(&change.after))
}

/// The element operations of a run of changes.
#[must_use]
pub fn element_step(settings: &Settings, plan: &Plan, run: Range<usize>, there: &Objects) -> Step {
    let mut step = Step::shared(settings, Vec::new());
    step.add_changes(&plan.changes[run], settings, there);
    step
}

/// Deletes elements that belong to no row.
#[must_use]
pub fn stray_ops(strays: &[Element]) -> Vec<Op> {
    strays.iter().cloned().map(Op::DeleteElement).collect()
}

/// Takes those out of the strays that the plan would add again just as they are, and returns which they
/// are: of a row that has lost an element the others may stay.
#[must_use]
pub fn standing(plan: &Plan, strays: &mut Vec<Element>) -> BTreeSet<(Set, ElementKey)> {
    if strays.is_empty() {
        return BTreeSet::new();
    }
    let ids: BTreeSet<_> = strays.iter().map(Element::id).collect();
    let mut wanted = BTreeMap::new();
    let mut elements = Vec::new();
    for row in plan.changes.iter().filter_map(|change| change.after.as_deref()) {
        super::element::elements(row, &mut elements);
        let known = elements.drain(..).filter(|element| ids.contains(&element.id()));
        wanted.extend(known.map(|element| (element.id(), element)));
    }
    let stands = |element: &Element| wanted.get(&element.id()) == Some(element);
    let standing = strays.iter().filter(|element| stands(element)).map(Element::id).collect();
    strays.retain(|element| !stands(element));
    standing
}

/// The chains that the plan's new elements lead to.
#[must_use]
pub fn needed_chains(plan: &Plan) -> BTreeSet<ServiceChain> {
    let mut needed = BTreeSet::new();
    let mut elements = Vec::new();
    for change in &plan.changes {
        elements.clear();
        if let Some(row) = &change.after {
            super::element::verdicts(row, &mut elements);
        }
        needed.extend(elements.iter().filter_map(|element| match &element.data {
            ElementData::Chain(chain) => Some(*chain),
            ElementData::Sticky(sticky) => Some(sticky.pick()),
            _ => None,
        }));
    }
    needed
}

/// Makes the chains that are needed and not there yet.
#[must_use]
pub fn chain_ops(
    needed: &BTreeSet<ServiceChain>,
    there: &BTreeSet<ServiceChain>,
    settings: &Settings,
) -> Vec<Op> {
    let missing = with_prerequisites(needed).into_iter().filter(|chain| !there.contains(chain));
    missing.map(|chain| Op::AddChain(service_chain(chain, settings))).collect()
}

/// A new table without hooks: no packet sees it yet. Returns the service chains and sizes it has.
#[must_use]
pub fn skeleton(settings: &Settings, plan: &Plan, owned: bool) -> Skeleton {
    let sizes = sizes_for(&added_elements(plan));
    let chains = with_prerequisites(&with_spares(&needed_chains(plan)));
    let mut ops = vec![Op::AddTable { owned }];
    ops.extend(Set::ALL.into_iter().map(|set| Op::AddSet(set, sizes.get(&set).copied())));
    ops.push(Op::AddCounter);
    ops.extend(static_chains(settings).into_iter().map(Op::AddChain));
    ops.extend(chains.iter().map(|chain| Op::AddChain(service_chain(*chain, settings))));
    Skeleton { ops, chains: chains.into_iter().collect(), sizes }
}

/// What [`skeleton`] makes.
#[derive(Debug)]
pub struct Skeleton {
    /// The operations.
    pub ops: Vec<Op>,
    /// The chains to which elements may lead.
    pub chains: BTreeSet<ServiceChain>,
    /// The sizes of sets that have one.
    pub sizes: BTreeMap<Set, u32>,
}

/// The base chains: with them traffic sees the table.
#[must_use]
pub fn hook_ops(settings: &Settings) -> Vec<Op> {
    base_chains(settings).into_iter().map(|chain: Chain| Op::AddChain(chain)).collect()
}

/// How many elements a plan adds to each set, not counting what goes.
#[must_use]
pub fn added_elements(plan: &Plan) -> BTreeMap<Set, usize> {
    let mut added = BTreeMap::new();
    let mut elements = Vec::new();
    for change in plan.changes.iter().filter(|change| change.before != change.after) {
        elements.clear();
        if let Some(row) = &change.after {
            super::element::elements(row, &mut elements);
        }
        for element in &elements {
            *added.entry(element.set).or_insert(0) += 1;
        }
    }
    added
}

/// Sizes for sets that are to hold this many elements: room for half as many again, so that the limit
/// is raised before it binds. The kernel makes buckets for a third more, rounded up to a power of two.
#[must_use]
pub fn sizes_for(counts: &BTreeMap<Set, usize>) -> BTreeMap<Set, u32> {
    let size = |set: Set| {
        let least = set.least_size()?;
        let count = counts.get(&set).copied().unwrap_or(0);
        let wanted = u32::try_from(count + count / 2).unwrap_or(u32::MAX / 2);
        Some((set, least.max(wanted)))
    };
    Set::ALL.into_iter().filter_map(size).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Family;
    use crate::testing::nodeport_row;

    fn settings() -> Settings {
        Settings {
            family: Family::V4,
            foreign: None,
            masquerade_all: false,
            mark: 0x4000,
            nodeports_anywhere: false,
            affinity_clients: 100_000,
        }
    }

    fn change(before: Option<&str>, after: Option<&str>) -> Change {
        let row = |to: &str| nodeport_row(30080, "a/web:http", to);
        let owner = Owner::Service(crate::testing::name("a/web"));
        Change { owner, before: before.map(row).map(Into::into), after: after.map(row).map(Into::into) }
    }

    /// design.md, "What one change costs", per frontend.
    #[test]
    fn a_change_costs_what_it_weighs() {
        type Situation = (&'static str, Option<&'static str>, Option<&'static str>, &'static [&'static str]);
        let table: &[Situation] = &[
            (
                "one endpoint replaced",
                Some("a b c"),
                Some("a x c"),
                &[
                    "delete nodeport-endpoints { tcp . 30080 . 1 }",
                    "add nodeport-endpoints { tcp . 30080 . 1 : 10.0.0.120 . 80 }",
                ],
            ),
            (
                "one endpoint added",
                Some("a b"),
                Some("a b c"),
                &[
                    "delete nodeports { tcp . 30080 }",
                    "add nodeports { tcp . 30080 comment \"a/web:http\" : goto nodeport-external-3 }",
                    "add nodeport-endpoints { tcp . 30080 . 2 : 10.0.0.99 . 80 }",
                ],
            ),
            (
                "one endpoint removed: the last one takes its place",
                Some("a b c"),
                Some("c b"),
                &[
                    "delete nodeports { tcp . 30080 }",
                    "delete nodeport-endpoints { tcp . 30080 . 0 }",
                    "delete nodeport-endpoints { tcp . 30080 . 2 }",
                    "add nodeports { tcp . 30080 comment \"a/web:http\" : goto nodeport-external-2 }",
                    "add nodeport-endpoints { tcp . 30080 . 0 : 10.0.0.99 . 80 }",
                ],
            ),
            ("nothing", Some("a b c"), Some("a b c"), &[]),
        ];
        for (what, before, after, expected) in table {
            let plan = Plan { family: Family::V4, changes: vec![change(*before, *after)] };
            let text = element_step(&settings(), &plan, 0..1, &Objects::default()).transaction.to_string();
            let lines: Vec<String> = text.lines().map(|line| line.replace("element ip shunt ", "")).collect();
            assert_eq!(lines, *expected, "{what}");
        }
    }

    #[test]
    fn plans_are_cut_between_owners() {
        let of = |owner: &str| {
            let owner = Owner::Service(crate::testing::name(owner));
            Change { owner, before: None, after: Some(nodeport_row(1, "a/a", "a b c").into()) }
        };
        let changes = vec![of("a/a"), of("a/a"), of("a/b"), of("a/c"), of("a/c")];
        let plan = Plan { family: Family::V4, changes };
        assert_eq!(cut(&plan, 5), [0..2, 2..5]);
        assert_eq!(cut(&plan, 1), [0..2, 2..3, 3..5]);
        assert_eq!(cut(&plan, 1000), vec![0..5]);
        assert!(cut(&Plan { family: Family::V4, changes: vec![] }, 5).is_empty());
    }

    #[test]
    fn operations_know_their_owner() {
        let plan =
            Plan { family: Family::V4, changes: vec![change(Some("a"), Some("b")), change(None, Some("a"))] };
        let step = element_step(&settings(), &plan, 0..2, &Objects::default());
        assert!((0..step.transaction.ops.len()).all(|op| step.owner(op).is_some()), "{step:?}");
        assert_eq!(step.owner(step.transaction.ops.len()), None);
    }

    /// A row that has lost one of its elements.
    #[test]
    fn what_stands_of_a_damaged_row_stays() {
        let mut found = Vec::new();
        super::super::element::elements(&nodeport_row(30080, "a/web:http", "a b c"), &mut found);
        let mut strays: Vec<Element> =
            found.into_iter().filter(|e| !matches!(e.key, ElementKey::Slot(_, 1))).collect();
        // and in another one somebody has written something else
        strays.iter_mut().filter(|e| matches!(e.key, ElementKey::Slot(_, 2))).for_each(|element| {
            element.data = ElementData::Drop;
        });
        let plan = Plan { family: Family::V4, changes: vec![change(None, Some("a b c"))] };
        let standing = standing(&plan, &mut strays);
        let mut step = Step::shared(&settings(), stray_ops(&strays));
        step.append(element_step(&settings(), &plan, 0..1, &Objects::default()));
        step.skip(&standing);
        let text = step.transaction.to_string().replace("element ip shunt nodeport-endpoints ", "");
        assert_eq!(
            text.lines().collect::<Vec<_>>(),
            [
                "delete { tcp . 30080 . 2 }",
                "add { tcp . 30080 . 1 : 10.0.0.98 . 80 }",
                "add { tcp . 30080 . 2 : 10.0.0.99 . 80 }",
            ]
        );
        assert!(step.owners.iter().map(|(ops, _)| (ops.start, ops.end)).eq([(1, 3)]));
    }

    #[test]
    fn sizes_leave_room() {
        let sizes = sizes_for(&BTreeMap::from([(Set::Endpoints, 100_000), (Set::Services, 10)]));
        assert_eq!(sizes[&Set::Endpoints], 150_000);
        assert_eq!(sizes[&Set::Services], 4096);
        assert_eq!(sizes.get(&Set::Hairpin), None);
    }
}
