//! When conntrack is compared with what UDP flows may lead to. PURE: the time is an argument.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::desired::flows::{Due, Flows};
use crate::model::Store;
use crate::policy::stale::Review;
use crate::schedule::Retry;

/// Wait after a review that failed, at first and at most.
const RETRY: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(300));

/// When a frontend that changed is looked at once more: a packet that met the old rules on its way
/// makes its conntrack entry a moment after they were replaced, perhaps after the first look.
const SECOND_LOOK: Duration = Duration::from_secs(1);

/// A review walks the whole conntrack table, if only in the kernel, while programming waits: it is
/// followed by a rest of this many times what it took, so that programming never starves...
const REST: u32 = 9;
/// ...but not longer than this: the one over everything at the start may take some 100 ms.
const LONGEST_REST: Duration = Duration::from_millis(500);

/// The reviews of one family.
#[derive(Debug)]
pub struct Reviews {
    /// What they are about.
    pub flows: Flows,
    /// What has to be looked at for the first time, since nobody did or it failed.
    first: Due,
    /// What has to be looked at once more, and when.
    second: VecDeque<(Instant, Due)>,
    /// What the review that was handed out is about: first and second looks.
    handed_out: Option<(Due, Due)>,
    retry: Retry,
    rest_until: Option<Instant>,
}

impl Reviews {
    /// None are due yet.
    #[must_use]
    pub fn new(flows: Flows) -> Self {
        let (first, second, retry) = (Due::default(), VecDeque::new(), Retry::new(RETRY.0, RETRY.1));
        Self { flows, first, second, handed_out: None, retry, rest_until: None }
    }

    /// The review to make now, if there is one; [`Self::made`] has to be told what became of it.
    pub fn next(&mut self, now: Instant, store: &Store) -> Option<Review> {
        self.first.add(self.flows.take_due());
        if !self.retry.ready(now) || self.rest_until.is_some_and(|until| until > now) {
            return None;
        }
        let mut second = Due::default();
        while self.second.front().is_some_and(|(at, _)| *at <= now) {
            self.second.pop_front().into_iter().for_each(|(_, due)| second.add(due));
        }
        let first = std::mem::take(&mut self.first);
        let mut all = first.clone();
        all.add(second.clone());
        if all.is_empty() {
            return None;
        }
        let review = self.flows.review(&all, store);
        self.handed_out = Some((first, second));
        Some(review)
    }

    /// What became of the review that [`Self::next`] has handed out: it took so long, and ended at
    /// `now`. Returns the wait before the next attempt if it failed.
    pub fn made(&mut self, succeeded: bool, took: Duration, now: Instant) -> Option<Duration> {
        let (first, second) = self.handed_out.take()?;
        self.rest_until = Some(now + LONGEST_REST.min(took * REST));
        if succeeded {
            self.retry.succeeded();
            let changed = first.changed();
            if !changed.is_empty() {
                self.second.push_back((now + SECOND_LOOK, changed));
            }
            return None;
        }
        self.first.add(first);
        self.first.add(second);
        Some(self.retry.failed(now))
    }

    /// When [`Self::next`] has to be asked even if nothing changes.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        let waiting = !self.first.is_empty();
        let first = waiting.then_some(()).and(self.retry.due().max(self.rest_until));
        let second = self.second.front().map(|(at, _)| (*at).max(self.rest_until.unwrap_or(*at)));
        // Where the last attempt failed nothing is looked at before the next one is due.
        let second = second.map(|at| self.retry.due().map_or(at, |due| at.max(due)));
        first.into_iter().chain(second).min()
    }
}

#[cfg(test)]
mod tests;
