use super::*;
use crate::testing::{hairpin_row, name, nodeport_row, target};

fn owner(text: &str) -> Owner {
    Owner::Service(name(text))
}

fn list(text: &str) -> Targets {
    text.split_whitespace().map(target).collect()
}

#[test]
fn endpoint_lists_move_as_little_as_possible() {
    let table = [
        ("a b c", "a b c", "a b c"),
        ("c a b", "a b c", "c a b"),
        ("c a b", "a b d", "d a b"),
        ("a b c", "a b c d", "a b c d"),
        ("a b c d", "a b d", "a b d"),
        ("a b c d", "b c d", "d b c"),
        ("a b c d", "c", "c"),
        ("a b", "x y z", "x y z"),
        ("a b c d e", "b d f", "f b d"),
        ("", "a b", "a b"),
    ];
    for (installed, wanted, expected) in table {
        assert_eq!(arrange(&list(installed), &list(wanted)), list(expected), "{installed} -> {wanted}");
    }
}

/// A ledger driven as the engine drives it: whoever must propose again does.
struct Play {
    ledger: Ledger,
    wishes: BTreeMap<Owner, Vec<Row>>,
    created: BTreeMap<Owner, i64>,
}

impl Play {
    fn new(created: &[(&str, i64)]) -> Self {
        Self {
            ledger: Ledger::new(Family::V4),
            wishes: BTreeMap::new(),
            created: created.iter().map(|(n, time)| (owner(n), *time)).collect(),
        }
    }

    /// Proposes, plans and commits; returns the plan's lines and the conflicts as `loser<winner`.
    fn sync(&mut self, wishes: &[(&str, Vec<Row>)]) -> (Vec<String>, Vec<String>) {
        let mut queue = BTreeSet::new();
        for (n, rows) in wishes {
            self.wishes.insert(owner(n), rows.clone());
            queue.insert(owner(n));
        }
        let mut conflicts = Vec::new();
        while let Some(next) = queue.pop_first() {
            let rows = self.wishes.get(&next).cloned().unwrap_or_default();
            let created = &self.created;
            let proposed = self.ledger.propose(&next, rows, |o| seniority(o, created.get(o).copied()));
            queue.extend(proposed.again);
            let text = |o: &Owner| o.to_string().replace("Service a/", "");
            conflicts
                .extend(proposed.conflicts.iter().map(|c| format!("{}<{}", text(&c.loser), text(&c.winner))));
        }
        let plan = self.ledger.plan();
        self.ledger.commit();
        assert!(self.ledger.plan().is_empty(), "a second sync has nothing to do");
        let lines: Vec<String> =
            plan.to_string().lines().map(|line| line.replace("/tcp (IPv4) a/", " ")).collect();
        (lines, conflicts)
    }
}

fn row(text: &str, to: &str) -> Row {
    nodeport_row(30080, text, to)
}

#[test]
fn a_contested_row_goes_to_the_older_service_and_falls_to_the_next() {
    let mut play = Play::new(&[("a/new", 20), ("a/old", 10)]);
    let wish = |n: &str, to: &str| vec![row(n, to)];
    let none: [&str; 0] = [];

    let (lines, conflicts) = play.sync(&[("a/new", wish("a/new", "n"))]);
    assert_eq!((lines.len(), conflicts.len()), (1, 0));
    let (lines, conflicts) = play.sync(&[("a/old", wish("a/old", "o"))]);
    assert_eq!(lines.len(), 2, "one change, before and after: {lines:?}");
    assert!(
        lines[0].starts_with("~ NodePort 30080 new ->") && lines[1].contains("30080 old ->"),
        "{lines:?}"
    );
    assert_eq!(conflicts, ["new<old"]);
    let (lines, conflicts) = play.sync(&[("a/new", wish("a/new", "m"))]);
    assert_eq!(
        (lines.as_slice(), conflicts.as_slice()),
        (&none.map(String::from)[..], &["new<old".into()][..])
    );
    let (lines, conflicts) = play.sync(&[("a/old", vec![])]);
    assert!(
        lines[0].starts_with("~ NodePort 30080 old ->") && lines[1].contains("30080 new ->"),
        "{lines:?}"
    );
    assert_eq!(conflicts, none);
    let (lines, _) = play.sync(&[("a/new", vec![])]);
    assert!(lines[0].starts_with("- NodePort 30080 new"), "{lines:?}");
    assert!(play.ledger.holders.is_empty() && play.ledger.waiting.is_empty() && play.ledger.lost.is_empty());
}

#[test]
fn a_row_that_two_services_need_stays_until_the_last_one_goes() {
    let mut play = Play::new(&[]);
    let hairpin = || vec![hairpin_row("10.1.0.1")];
    assert_eq!(play.sync(&[("a/one", hairpin()), ("a/two", hairpin())]).0, ["+ hairpin 10.1.0.1"]);
    let (lines, conflicts) = play.sync(&[("a/one", vec![])]);
    assert!(lines.is_empty() && conflicts.is_empty(), "{lines:?} {conflicts:?}");
    assert_eq!(play.sync(&[("a/two", vec![])]).0, ["- hairpin 10.1.0.1"]);
}

#[test]
fn frontends_swapped_in_one_sync_are_changed_in_place() {
    let mut play = Play::new(&[]);
    let rows = |n: &str, port: u16| vec![nodeport_row(port, n, "x")];
    play.sync(&[("a/one", rows("a/one", 1)), ("a/two", rows("a/two", 2))]);
    let (lines, conflicts) = play.sync(&[("a/one", rows("a/one", 2)), ("a/two", rows("a/two", 1))]);
    assert_eq!(lines.iter().filter(|line| line.starts_with('~')).count(), 2, "{lines:?}");
    assert_eq!(lines.len(), 4, "{lines:?}");
    assert!(conflicts.len() <= 1, "only while the second one has not spoken: {conflicts:?}");
}

#[test]
fn a_row_installed_for_a_service_set_aside_moves_in_place() {
    let mut play = Play::new(&[("a/old", 10), ("a/new", 20)]);
    play.sync(&[("a/old", vec![hairpin_row("10.1.0.1"), row("a/old", "a")])]);
    // The older one wants neither row any more, but the backend refuses what it wants instead.
    let created = |o: &Owner| seniority(o, Some(if *o == owner("a/old") { 10 } else { 20 }));
    play.ledger.propose(&owner("a/old"), vec![nodeport_row(1, "a/old", "x")], created);
    play.ledger.set_aside(&owner("a/old"));
    let (lines, _) = play.sync(&[("a/new", vec![hairpin_row("10.1.0.1"), row("a/new", "a")])]);
    assert!(
        lines[0].starts_with("~ NodePort 30080 old") && lines.len() == 2,
        "one change in place: {lines:?}"
    );
    play.ledger.take_up(owner("a/old"));
    let text = play.ledger.plan().to_string();
    assert!(text.starts_with("+ NodePort 1/tcp") && text.lines().count() == 1, "nothing of it goes: {text}");
}

#[test]
fn a_holder_made_anew_yields_to_the_older_one() {
    let mut play = Play::new(&[("a/one", 10), ("a/two", 20)]);
    let wish = |n: &str| vec![row(n, "a")];
    play.sync(&[("a/one", wish("a/one")), ("a/two", wish("a/two"))]);
    play.created.insert(owner("a/one"), 30);
    let (lines, _) = play.sync(&[("a/one", wish("a/one"))]);
    assert!(lines[1].contains("30080 two ->"), "{lines:?}");
}

#[test]
fn what_was_read_back_is_compared_in_its_own_order() {
    let mut play = Play::new(&[]);
    let installed = row("a/web", "c a b");
    play.ledger.read_back(vec![(owner("a/web"), installed), (owner("a/gone"), hairpin_row("10.1.0.1"))]);
    let (lines, _) = play.sync(&[("a/web", vec![row("a/web", "a b c")]), ("a/gone", vec![])]);
    assert_eq!(lines, ["- hairpin 10.1.0.1"]);
    // Read back again later, in yet another order: what is desired follows the kernel.
    play.ledger.read_back(vec![(owner("a/web"), row("a/web", "b c a"))]);
    assert!(play.ledger.plan().is_empty(), "{}", play.ledger.plan());
    play.ledger.read_back(vec![]);
    assert_eq!(play.ledger.plan().changes.len(), 1, "all of it is missing");
}

#[test]
fn a_service_that_is_created_again_is_the_younger_one() {
    let mut play = Play::new(&[("a/old", 10), ("a/new", 20)]);
    let (old, new) = (vec![row("a/old", "o")], vec![row("a/new", "n")]);
    assert_eq!(play.sync(&[("a/old", old.clone()), ("a/new", new)]).1, ["new<old"]);
    play.created.insert(owner("a/old"), 30);
    let (lines, conflicts) = play.sync(&[("a/old", old)]);
    assert!(lines.len() == 2 && lines[1].contains("30080 new ->"), "{lines:?}");
    assert_eq!(conflicts, ["old<new"]);
}
