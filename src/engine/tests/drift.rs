//! Others change what is programmed.

use super::*;
use crate::backend::Drift;

impl Node {
    /// Somebody else deletes all rows of a family.
    fn damage(&self, family: Family) {
        let mut kernel = self.kernel();
        kernel.rows.retain(|_, (_, row)| row.family() != family);
        let drift = Drift { what: "table deleted".into(), by: Some("nft".into()), certain: true };
        kernel.drifts.insert(family, drift);
    }

    fn pass(&mut self, time: Duration) {
        self.now += time;
    }

    /// A look and what follows; how many families were put right.
    fn look(&mut self) -> usize {
        self.engine.check(self.now);
        self.sync().put_right.len()
    }
}

const MOMENT: Duration = Duration::from_millis(200);

#[test]
fn what_others_change_is_put_right_in_that_family_alone() {
    let mut node = Node::with(&["a/web"]);
    let count = |node: &Node| {
        let kernel = node.kernel();
        (kernel.reads, kernel.plans.len())
    };
    let (reads, plans) = count(&node);
    assert!(!node.engine.check(node.now), "nothing has happened");
    assert_eq!(node.look(), 0);
    assert_eq!(count(&node), (reads, plans), "and nothing is read");
    node.damage(Family::V4);
    assert!(node.engine.check(node.now));
    assert!(!node.engine.is_settled());
    let synced = node.sync();
    assert!(matches!(synced.put_right[..], [(Family::V4, 1..)]), "{synced:?}");
    assert_eq!(count(&node), (reads + 1, plans + 1));
    assert_eq!(node.programmed(), ["web IPv4", "web IPv6"]);
    assert_eq!(node.look(), 0);
}

#[test]
fn what_an_ordinary_write_stumbled_over_is_put_right_and_told() {
    let mut node = Node::with(&["a/web"]);
    node.damage(Family::V4);
    // before anybody has looked
    let error = refusal(Family::V4, nix::libc::ENOENT, None);
    node.kernel().failures.push_back((Family::V4, error));
    node.engine.take(vec![Update::Set(a_service("a/other", 2))], node.now);
    assert_eq!(node.sync().failures, [Family::V4]);
    node.now = node.engine.deadline().expect("another attempt");
    assert_eq!(node.sync().put_right.len(), 1);
    assert!(node.programmed().contains(&"web IPv4".to_owned()));
}

#[test]
fn where_nobody_knows_everything_is_read_and_nothing_is_told() {
    let mut node = Node::with(&["a/web"]);
    let reads = node.kernel().reads;
    let unclear = Drift { what: "much".into(), by: None, certain: false };
    node.kernel().drifts.insert(Family::V6, unclear.clone());
    assert_eq!(node.look(), 0);
    assert_eq!(node.kernel().reads, reads + 1);
    // unless something was damaged after all
    node.damage(Family::V6);
    node.kernel().drifts.insert(Family::V6, unclear);
    assert_eq!(node.look(), 1);
    assert_eq!(node.programmed(), ["web IPv4", "web IPv6"]);
}

#[test]
fn who_does_not_give_up_is_not_answered_at_once_for_ever() {
    let mut node = Node::with(&["a/web"]);
    let mut fight = |looks: u32| {
        let mut put_right = 0;
        for _ in 0..looks {
            node.damage(Family::V4);
            put_right += node.look();
            // what changes in the meantime does not open a way around
            node.engine.take(vec![Update::Set(a_service("a/other", 2))], node.now);
            node.engine.take(vec![Update::Delete(Key::Service(name("a/other")))], node.now);
            put_right += node.sync().put_right.len();
            node.pass(MOMENT);
        }
        put_right
    };
    let first = fight(60);
    assert!((30..40).contains(&first), "at once as long as nobody can call it a fight: {first}");
    let then = fight(500);
    assert!((8..15).contains(&then), "every ten seconds: {then}");
    // the last damage is mended even if nobody comes back, and the other family never waited
    node.now = node.engine.deadline().expect("a wait");
    node.sync();
    assert_eq!(node.programmed(), ["web IPv4", "web IPv6"]);
    node.pass(Duration::from_secs(60));
    node.damage(Family::V4);
    assert_eq!(node.look(), 1, "after a quiet minute at once again");
}
