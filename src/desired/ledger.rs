//! The ledger of one family: which rows are wanted, who holds a row that several claim, and what the
//! backend has acknowledged.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::mem;
use std::sync::Arc;

use super::row::{Choice, Owner, Row, RowKey};
use crate::diff::{Change, Plan, RowRef, merge};
use crate::model::Family;
use crate::policy::endpoints::Target;
use crate::policy::targets::Targets;

/// Desired and applied rows by owner. Cost of every call: the rows of the owners it is about.
#[derive(Debug)]
pub struct Ledger {
    family: Family,
    desired: HashMap<Owner, Arc<[Row]>>,
    /// Who has the row with this key.
    holders: HashMap<RowKey, Owner>,
    /// Who else claims a key, waiting for the holder to let go.
    waiting: BTreeMap<RowKey, BTreeSet<Owner>>,
    /// The keys for which an owner waits.
    lost: HashMap<Owner, Vec<RowKey>>,
    /// Owners whose desired and applied rows may differ, with what is applied. Of all others it is what is
    /// desired.
    pending: BTreeMap<Owner, Arc<[Row]>>,
    /// The same for owners that are left out of plans for now; few.
    aside: BTreeMap<Owner, Arc<[Row]>>,
    /// Rows that the last plan takes away from owners set aside, who still have them installed.
    taken: Vec<(Owner, RowKey)>,
}

/// An owner's seniority where two claim one key: the smaller one wins. Creation time in seconds, then
/// the name; the node comes before every Service.
pub type Seniority = (i64, Owner);

/// What a proposal means for others.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Proposed {
    /// Owners to propose again: they lost a key, or one they wait for is free.
    pub again: Vec<Owner>,
    /// Frontends that a more senior owner holds. A later proposal may lift the conflict again
    /// ([`Ledger::stands`]); other rows are shared without harm.
    pub conflicts: Vec<Conflict>,
}

/// Two owners claim one row; it goes to the older one until that one lets go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conflict {
    /// The contested row.
    pub key: RowKey,
    /// Who has it.
    pub winner: Owner,
    /// Who does not.
    pub loser: Owner,
}

impl Ledger {
    /// An empty ledger: nothing wanted, nothing applied.
    #[must_use]
    pub fn new(family: Family) -> Self {
        Self {
            family,
            desired: HashMap::new(),
            holders: HashMap::new(),
            waiting: BTreeMap::new(),
            lost: HashMap::new(),
            pending: BTreeMap::new(),
            aside: BTreeMap::new(),
            taken: Vec::new(),
        }
    }

    /// Replaces what is known to be applied by what was read from the backend, and compares all of it
    /// with what is desired at the next plan.
    pub fn read_back(&mut self, rows: Vec<(Owner, Row)>) {
        let mut by_owner: HashMap<Owner, Vec<Row>> = HashMap::new();
        for (owner, row) in rows {
            by_owner.entry(owner).or_default().push(row);
        }
        let known = mem::take(&mut self.pending).into_keys().chain(mem::take(&mut self.aside).into_keys());
        let known = known.chain(self.desired.keys().cloned()).map(|owner| (owner, Arc::default()));
        self.pending = known.collect();
        self.pending.extend(by_owner.into_iter().map(|(owner, mut rows)| {
            rows.sort_by_key(Row::key);
            (owner, rows.into())
        }));
        for (owner, rows) in &mut self.desired {
            if let Some(installed) = self.pending.get(owner) {
                *rows = arranged(installed, rows.to_vec());
            }
        }
    }

    /// Says which rows (sorted by key) `owner` should have from now on. Rows that a more senior owner
    /// holds are left out until that one lets go.
    pub fn propose(
        &mut self,
        owner: &Owner,
        rows: Vec<Row>,
        seniority: impl Fn(&Owner) -> Seniority,
    ) -> Proposed {
        let mut proposed = Proposed::default();
        self.withdraw(owner, &rows, &mut proposed);
        let mut granted = Vec::with_capacity(rows.len());
        for row in rows {
            if self.claim(owner, row.key(), &seniority, &mut proposed) {
                granted.push(row);
            }
        }
        let granted = arranged(self.take_up(owner.clone()), granted);
        if granted.is_empty() {
            self.desired.remove(owner);
        } else {
            self.desired.insert(owner.clone(), granted);
        }
        proposed
    }

    /// Whether the loser still waits for the contested row.
    #[must_use]
    pub fn stands(&self, conflict: &Conflict) -> bool {
        self.waiting.get(&conflict.key).is_some_and(|waiting| waiting.contains(&conflict.loser))
    }

    /// What has to change to get from the applied to the desired rows.
    #[must_use]
    pub fn plan(&mut self) -> Plan {
        let mut changes = Vec::new();
        for (owner, before) in &self.pending {
            let after = self.rows(owner);
            if Arc::ptr_eq(before, &after) {
                continue;
            }
            merge(
                RowRef::all(before),
                RowRef::all(&after),
                |row| row.key(),
                |before, after| {
                    changes.push(Change { owner: owner.clone(), before, after });
                },
            );
        }
        self.take_from_aside(&mut changes);
        changes.retain(|change| change.before != change.after);
        Plan { family: self.family, changes: join_moved(changes) }
    }

    /// A row that is new for its owner may be installed on behalf of one that is set aside: then it is
    /// changed where it stands, and is that one's no longer.
    fn take_from_aside(&mut self, changes: &mut [Change]) {
        self.taken.clear();
        for change in changes.iter_mut().filter(|change| change.before.is_none() && !self.aside.is_empty()) {
            let Some(key) = change.after.as_ref().map(|row| row.key()) else { continue };
            let installed = self.aside.iter().find_map(|(owner, rows)| {
                let at = rows.binary_search_by_key(&key, Row::key).ok()?;
                Some((owner.clone(), RowRef::all(rows).nth(at)))
            });
            if let Some((owner, row)) = installed {
                change.before = row;
                self.taken.push((owner, key));
            }
        }
    }

    /// Whether the owner's rows are in the next plan, as far as they differ: it is not set aside.
    #[must_use]
    pub fn is_planned(&self, owner: &Owner) -> bool {
        self.pending.contains_key(owner)
    }

    /// The plan was carried out completely: what was desired is applied.
    pub fn commit(&mut self) {
        for (owner, key) in mem::take(&mut self.taken) {
            if let Some(rows) = self.aside.get_mut(&owner) {
                *rows = rows.iter().filter(|row| row.key() != key).cloned().collect();
            }
        }
        self.pending.clear();
    }

    /// Leaves the owner out of the following plans, as it is installed, until it is proposed or
    /// [`Self::take_up`] again: its rows are what the backend refuses.
    pub fn set_aside(&mut self, owner: &Owner) {
        if let Some((owner, applied)) = self.pending.remove_entry(owner) {
            self.aside.insert(owner, applied);
        }
    }

    /// Puts an owner into the next plan, also one that was set aside; returns what is applied of it.
    pub fn take_up(&mut self, owner: Owner) -> &Arc<[Row]> {
        let aside = self.aside.remove(&owner);
        let applied = aside.unwrap_or_else(|| self.rows(&owner));
        self.pending.entry(owner).or_insert(applied)
    }

    fn rows(&self, owner: &Owner) -> Arc<[Row]> {
        self.desired.get(owner).cloned().unwrap_or_default()
    }

    /// The rows that `owner` should have.
    #[must_use]
    pub fn desired(&self, owner: &Owner) -> &[Row] {
        self.desired.get(owner).map_or(&[], |rows| rows)
    }

    /// How many rows are desired.
    #[must_use]
    pub fn desired_rows(&self) -> usize {
        self.desired.values().map(|rows| rows.len()).sum()
    }

    /// Lets go of what `owner` held or waited for and claims no longer.
    fn withdraw(&mut self, owner: &Owner, rows: &[Row], proposed: &mut Proposed) {
        for key in self.lost.remove(owner).unwrap_or_default() {
            if let Some(waiting) = self.waiting.get_mut(&key) {
                waiting.remove(owner);
                if waiting.is_empty() {
                    self.waiting.remove(&key);
                }
            }
        }
        let held = self.rows(owner);
        let mut freed = Vec::new();
        let claims = rows.iter().map(Row::key);
        merge(held.iter().map(Row::key), claims, |key| *key, |old, _| freed.extend(old));
        for key in freed {
            if self.holders.get(&key) == Some(owner) {
                self.holders.remove(&key);
                proposed.again.extend(self.waiting.get(&key).into_iter().flatten().cloned());
            }
        }
    }

    /// Claims one key; returns whether `owner` has it now.
    fn claim(
        &mut self,
        owner: &Owner,
        key: RowKey,
        seniority: &impl Fn(&Owner) -> Seniority,
        proposed: &mut Proposed,
    ) -> bool {
        match self.holders.get(&key) {
            Some(holder) if holder == owner => {
                // deleted and created again between two syncs, it may be younger than those that wait
                let waiting = self.waiting.get(&key).into_iter().flatten();
                let older = waiting.filter(|other| seniority(other) < seniority(owner));
                proposed.again.extend(older.cloned());
                true
            }
            Some(holder) if seniority(holder) < seniority(owner) => {
                let winner = holder.clone();
                self.wait(owner, key);
                if matches!(key, RowKey::Frontend(_)) {
                    proposed.conflicts.push(Conflict { key, winner, loser: owner.clone() });
                }
                false
            }
            Some(holder) => {
                proposed.again.push(holder.clone());
                self.holders.insert(key, owner.clone());
                true
            }
            None => {
                self.holders.insert(key, owner.clone());
                true
            }
        }
    }

    fn wait(&mut self, owner: &Owner, key: RowKey) {
        self.waiting.entry(key).or_default().insert(owner.clone());
        self.lost.entry(owner.clone()).or_default().push(key);
    }
}

/// The rows with every endpoint list in the order that moves as little as possible against what is
/// applied.
fn arranged(installed: &Arc<[Row]>, mut rows: Vec<Row>) -> Arc<[Row]> {
    // The frontends of one ServicePort share one list, before and after: arranged once.
    let mut last: Option<Arranged> = None;
    let mut arrange_one = |old: &Choice, new: &mut Choice| {
        let (Choice::Endpoints(old), Choice::Endpoints(new)) = (old, new) else { return };
        let known = last.take().filter(|last| last.old.is_same(old) && last.wanted.is_same(new));
        let arranged = known.unwrap_or_else(|| Arranged {
            old: old.clone(),
            wanted: new.clone(),
            result: arrange(old, new),
        });
        *new = arranged.result.clone();
        last = Some(arranged);
    };
    for row in &mut rows {
        let position = installed.binary_search_by_key(&row.key(), Row::key);
        let (Row::Frontend(_, new), Ok(position)) = (row, position) else { continue };
        let Row::Frontend(_, old) = &installed[position] else { continue };
        arrange_one(&old.to, &mut new.to);
        if let (Some(old), Some(new)) = (&old.from_outside, &mut new.from_outside) {
            arrange_one(old, new);
        }
    }
    if rows == **installed { installed.clone() } else { rows.into() }
}

/// A list that was arranged.
struct Arranged {
    old: Targets,
    wanted: Targets,
    result: Targets,
}

/// The wanted endpoints in the order closest to the installed one: what stays keeps its position,
/// what is new takes the place of what goes, and the last ones move into holes that are left.
fn arrange(installed: &Targets, wanted: &Targets) -> Targets {
    if installed == wanted {
        return installed.clone();
    }
    let known: BTreeSet<Target> = installed.iter().collect();
    let mut fresh = wanted.iter().filter(|target| !known.contains(target));
    let stay: BTreeSet<Target> = wanted.iter().collect();
    let mut slots: Vec<Option<Target>> = installed
        .iter()
        .map(|target| if stay.contains(&target) { Some(target) } else { fresh.next() })
        .collect();
    slots.extend(fresh.map(Some));
    // Fewer than before: fill holes from the end.
    let mut hole = 0;
    while hole < slots.len() {
        if slots[hole].is_some() {
            hole += 1;
        } else if let Some(Some(last)) = slots.pop()
            && hole < slots.len()
        {
            slots[hole] = Some(last);
        }
    }
    let arranged: Targets = slots.into_iter().flatten().collect();
    if arranged == *installed { installed.clone() } else { arranged }
}

/// Joins a row that one owner gives up and another one takes over into one change, so that it is one
/// step wherever the plan is cut.
fn join_moved(mut changes: Vec<Change>) -> Vec<Change> {
    let added: BTreeSet<RowKey> = changes
        .iter()
        .filter(|c| c.before.is_none())
        .filter_map(|c| c.after.as_ref().map(|row| row.key()))
        .collect();
    if added.is_empty() || changes.iter().all(|change| change.after.is_some()) {
        return changes;
    }
    let mut moved: HashMap<RowKey, RowRef> = HashMap::new();
    changes.retain_mut(|change| match (&change.before, &change.after) {
        (Some(before), None) if added.contains(&before.key()) => {
            moved.extend(change.before.take().map(|row| (row.key(), row)));
            false
        }
        _ => true,
    });
    for change in &mut changes {
        if let (None, Some(after)) = (&change.before, &change.after) {
            change.before = moved.remove(&after.key());
        }
    }
    changes.retain(|change| change.before != change.after);
    changes
}

/// Seniority of a Service created at `created` (seconds since 1970).
#[must_use]
pub fn seniority(owner: &Owner, created: Option<i64>) -> Seniority {
    match owner {
        Owner::Node => (i64::MIN, owner.clone()),
        Owner::Service(_) => (created.unwrap_or(i64::MAX), owner.clone()),
    }
}

#[cfg(test)]
mod tests;
