//! Which changes in the cluster wait to be programmed: kube-proxy's network programming latency. PURE.

use std::collections::BTreeMap;
use std::time::SystemTime;

use crate::model::{Family, Key, Object, ServiceName, Store, Update};

/// So many are remembered while nothing can be programmed; more say nothing new.
const MOST: usize = 10_000;

/// Times of changes, by the Service whose EndpointSlice changed. A slice itself keeps none.
#[derive(Debug, Default)]
pub(super) struct Triggers {
    waiting: BTreeMap<(Family, ServiceName), Vec<SystemTime>>,
    count: usize,
}

impl Triggers {
    /// Notes an update that is about to go into the store, if it changes a slice. The time of a slice that
    /// goes away is that of its last change, which is another matter: as in kube-proxy, its Service's
    /// changes are not measured then.
    pub(super) fn take(&mut self, update: &Update, store: &Store) {
        match update {
            Update::SetSince(Object::EndpointSlice(name, service, content), since) => {
                let same = store.slice(name).is_some_and(|(_, known)| known == content);
                if !same && self.count < MOST {
                    self.count += 1;
                    self.waiting.entry((content.family, service.clone())).or_default().push(*since);
                }
            }
            Update::Delete(Key::EndpointSlice(name)) => {
                if let Some((service, known)) = store.slice(name) {
                    let key = (known.family, service.clone());
                    self.count -= self.waiting.remove(&key).map_or(0, |times| times.len());
                }
            }
            _ => {}
        }
    }

    /// The family is programmed, all but the Services that are `left_out`.
    pub(super) fn programmed(
        &mut self,
        family: Family,
        left_out: impl Fn(&ServiceName) -> bool,
    ) -> Vec<(Family, SystemTime)> {
        let mut times = Vec::new();
        self.waiting.retain(|(of, service), since| {
            let stays = *of != family || left_out(service);
            if !stays {
                times.extend(since.drain(..).map(|since| (family, since)));
            }
            stays
        });
        self.count -= times.len();
        times
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;
    use crate::model::Touched;
    use crate::testing::{endpoint, name, slice};

    fn set(slice_name: &str, service: &str, address: &str, seconds: u64) -> Update {
        let content = slice("http", 80, &[endpoint(address)]);
        let since = UNIX_EPOCH + Duration::from_secs(seconds);
        Update::SetSince(Object::EndpointSlice(name(slice_name), name(service), content), since)
    }

    #[test]
    fn a_change_is_measured_once_and_only_if_it_is_one() {
        let (mut store, mut triggers) = (Store::default(), Triggers::default());
        let mut take = |update: Update, triggers: &mut Triggers| {
            triggers.take(&update, &store);
            store.apply(update, &mut Touched::default());
        };
        let seconds = |times: Vec<(Family, SystemTime)>| -> Vec<u64> {
            times.iter().map(|(_, time)| time.duration_since(UNIX_EPOCH).unwrap().as_secs()).collect()
        };
        take(set("a/web-1", "a/web", "10.0.0.1", 5), &mut triggers);
        take(set("a/web-1", "a/web", "10.0.0.1", 6), &mut triggers);
        take(set("a/web-1", "a/web", "10.0.0.2", 7), &mut triggers);
        take(set("a/db-1", "a/db", "10.0.0.3", 8), &mut triggers);
        assert_eq!(seconds(triggers.programmed(Family::V6, |_| false)), [0; 0]);
        assert_eq!(seconds(triggers.programmed(Family::V4, |service| *service == name("a/db"))), [5, 7]);
        assert_eq!(seconds(triggers.programmed(Family::V4, |_| false)), [8]);
        assert_eq!(seconds(triggers.programmed(Family::V4, |_| false)), [0; 0]);

        take(set("a/web-1", "a/web", "10.0.0.4", 9), &mut triggers);
        take(Update::Delete(Key::EndpointSlice(name("a/web-1"))), &mut triggers);
        assert_eq!(seconds(triggers.programmed(Family::V4, |_| false)), [0; 0]);
        assert_eq!(triggers.count, 0);
    }
}
