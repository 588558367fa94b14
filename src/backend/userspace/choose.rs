//! Which endpoint a new connection gets. PURE, but for the dice.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use crate::desired::{Choice, Forwarding};
use crate::model::TrafficPolicy;
use crate::policy::endpoints::Target;
use crate::policy::targets::Targets;

/// Where a client is, as far as a traffic policy asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// A local pod or the node itself.
    Inside,
    /// Anybody else.
    Outside,
}

/// The list that a client from there is served from, with its name.
#[must_use]
pub fn list(forwarding: &Forwarding, origin: Origin) -> (&Choice, TrafficPolicy) {
    match &forwarding.from_outside {
        Some(choice) if origin == Origin::Outside => (choice, TrafficPolicy::Local),
        _ => (&forwarding.to, forwarding.affinity.map_or(TrafficPolicy::Cluster, |affinity| affinity.list)),
    }
}

/// One of the targets that were not tried, each with equal probability; `None` when all were.
#[must_use]
pub fn pick(targets: &Targets, tried: &[Target], dice: &mut Dice) -> Option<Target> {
    // The usual case without a walk through the list.
    for _ in 0..4 {
        let target = targets.get(dice.below(targets.len())?)?;
        if !tried.contains(&target) {
            return Some(target);
        }
    }
    let left: Vec<Target> = targets.iter().filter(|target| !tried.contains(target)).collect();
    left.get(dice.below(left.len())?).copied()
}

/// Draws numbers: splitmix64 (Steele, Lea, Flood 2014), from a random start. Not for secrets.
#[derive(Debug)]
pub struct Dice(u64);

impl Dice {
    /// Dice that fall differently each time.
    #[must_use]
    pub fn new() -> Self {
        Self(RandomState::new().hash_one(0))
    }

    /// A number below `end`; `None` for zero.
    fn below(&mut self, end: usize) -> Option<usize> {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        // Lists are short against 2^64: the bias of the remainder cannot be seen.
        let drawn = (z ^ (z >> 31)).checked_rem(u64::try_from(end).ok()?)?;
        usize::try_from(drawn).ok()
    }
}

impl Default for Dice {
    fn default() -> Self {
        Self::new()
    }
}

/// Which endpoint clients have, for one list of a ServicePort with `ClientIP` affinity.
#[derive(Debug, Default)]
pub struct Memory {
    clients: HashMap<IpAddr, (Target, Instant)>,
    /// When clients that had timed out were last looked for.
    swept: Option<Instant>,
}

/// A full memory is not searched for clients that have timed out more often than this.
const SWEEP: Duration = Duration::from_secs(1);

impl Memory {
    /// The endpoint of a client, if it is remembered and may still be used.
    #[must_use]
    pub fn recall(
        &self,
        client: IpAddr,
        targets: &Targets,
        timeout: Duration,
        now: Instant,
    ) -> Option<Target> {
        let (target, since) = self.clients.get(&client)?;
        let fresh = now.saturating_duration_since(*since) < timeout;
        (fresh && targets.contains(target)).then_some(*target)
    }

    /// Remembers the endpoint of a client from now on; false where there are `most` clients already.
    pub fn remember(
        &mut self,
        client: IpAddr,
        target: Target,
        timeout: Duration,
        most: usize,
        now: Instant,
    ) -> bool {
        let known = self.clients.contains_key(&client);
        let rested = self.swept.is_none_or(|swept| now.saturating_duration_since(swept) >= SWEEP);
        if self.clients.len() >= most && !known && rested {
            self.clients.retain(|_, (_, since)| now.saturating_duration_since(*since) < timeout);
            self.swept = Some(now);
        }
        let room = known || self.clients.len() < most;
        if room {
            self.clients.insert(client, (target, now));
        }
        room
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::target;

    fn targets(letters: &str) -> Targets {
        letters.split_whitespace().map(target).collect()
    }

    #[test]
    fn every_target_is_picked_and_none_twice() {
        let all = targets("a b c");
        let mut dice = Dice::new();
        let mut counts: HashMap<Target, u32> = HashMap::new();
        for _ in 0..3000 {
            *counts.entry(pick(&all, &[], &mut dice).unwrap()).or_default() += 1;
        }
        // 1000 each; 700 is more than ten standard deviations away.
        assert!(all.iter().all(|target| counts[&target] > 700), "{counts:?}");
        let mut tried = Vec::new();
        while let Some(target) = pick(&all, &tried, &mut dice) {
            assert!(!tried.contains(&target));
            tried.push(target);
        }
        assert_eq!(tried.len(), 3);
        assert_eq!(pick(&Targets::default(), &[], &mut dice), None);
    }

    #[test]
    fn a_client_keeps_its_endpoint_while_that_is_usable() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let timeout = Duration::from_secs(60);
        let [client, other] = ["192.0.2.1", "192.0.2.2"].map(|text| text.parse().unwrap());
        let all = targets("a b");
        let mut memory = Memory::default();
        assert!(memory.remember(client, target("a"), timeout, 1, at(0)));
        assert_eq!(memory.recall(client, &all, timeout, at(59)), Some(target("a")));
        assert_eq!(memory.recall(client, &all, timeout, at(60)), None, "forgotten");
        assert_eq!(memory.recall(client, &targets("b"), timeout, at(1)), None, "removed");
        assert_eq!(memory.recall(other, &all, timeout, at(1)), None);
        assert!(!memory.remember(other, target("b"), timeout, 1, at(59)), "full");
        assert!(memory.remember(client, target("b"), timeout, 1, at(59)), "known");
        assert!(memory.remember(other, target("b"), timeout, 1, at(200)), "the first is forgotten by now");
    }
}
