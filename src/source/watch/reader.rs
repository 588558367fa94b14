//! What the server says about one kind, as updates of the model. PURE.

use std::collections::HashSet;
use std::marker::PhantomData;

use k8s_openapi::jiff::Timestamp;
use serde_json::value::RawValue;

use super::exchange::{Event, EventKind, Head, HeadMetadata};
use super::failure::Failure;
use super::kinds::Watched;
use crate::metrics::Metrics;
use crate::model::{Object, Update};
use crate::notices::{Notice, Recorder};
use crate::source::convert::{Context, Problem};

/// Where the control plane notes what changed an EndpointSlice last.
const LAST_CHANGE: &str = "endpoints.kubernetes.io/last-change-trigger-time";

/// So many problems are remembered so as not to be told twice.
const REMEMBERED: usize = 1000;

/// Reads objects of one kind.
pub(super) struct Reader<'a, K> {
    context: &'a Context,
    metrics: &'a Metrics,
    recorder: &'a Recorder,
    /// What has been warned of: a relist finds the same problems again.
    told: HashSet<Problem>,
    kind: PhantomData<fn() -> K>,
}

/// What one line of a watch says.
#[derive(Debug, PartialEq)]
pub(super) enum Said {
    /// An object is new.
    Added(Option<Update>),
    /// An object is another, or gone.
    Changed(Option<Update>),
    /// Nothing but how far we are.
    Bookmark,
    /// A streamed list is complete.
    ListEnd,
}

impl<'a, K: Watched> Reader<'a, K> {
    pub(super) fn new(context: &'a Context, metrics: &'a Metrics, recorder: &'a Recorder) -> Self {
        Self { context, metrics, recorder, told: HashSet::new(), kind: PhantomData }
    }

    /// One line of a watch, and the resource version that it brings us to. An object that cannot be read
    /// is left out, and what was known of it stays.
    ///
    /// # Errors
    /// The line is no event, or says that the watch has failed.
    pub(super) fn line(&mut self, line: &[u8]) -> Result<(Said, Option<String>), Failure> {
        let event: Event<'_> =
            serde_json::from_slice(line).map_err(|error| Failure::Unreadable(error.to_string()))?;
        if event.kind == EventKind::Error {
            return Err(Failure::Told(event.object.get().to_string()));
        }
        let head = head(event.object);
        let said = match event.kind {
            EventKind::Added => Said::Added(self.update(event.object).map(|update| since(update, &head))),
            EventKind::Modified => {
                Said::Changed(self.update(event.object).map(|update| since(update, &head)))
            }
            EventKind::Deleted => Said::Changed(K::key(&head, self.context).map(Update::Delete)),
            EventKind::Bookmark | EventKind::Error if head.ends_list() => Said::ListEnd,
            EventKind::Bookmark | EventKind::Error => Said::Bookmark,
        };
        Ok((said, head.resource_version))
    }

    /// One object of a list, if it is ours.
    pub(super) fn listed(&mut self, text: &RawValue) -> Option<Object> {
        self.update(text).and_then(set_object)
    }

    fn update(&mut self, text: &RawValue) -> Option<Update> {
        let object: K = match serde_json::from_str(text.get()) {
            Ok(object) => object,
            Err(error) => {
                self.left_out(Problem {
                    kind: K::KIND.as_str(),
                    object: full_name(&head(text)),
                    field: ".".to_string(),
                    what: format!("the object cannot be read: {error}"),
                });
                return None;
            }
        };
        let converted = object.convert(self.context);
        for problem in converted.problems {
            self.left_out(problem);
        }
        Some(converted.outcome?.map_or_else(Update::Delete, Update::Set))
    }

    fn left_out(&mut self, problem: Problem) {
        self.metrics.left_out(problem.kind, &problem.field);
        if self.told.contains(&problem) {
            return tracing::debug!("{problem}");
        }
        tracing::warn!("{problem}");
        self.recorder.record(Notice::from(&problem));
        if self.told.len() >= REMEMBERED {
            self.told.clear();
        }
        self.told.insert(problem);
    }
}

/// The object of an update that sets one: in a list, what is not ours is simply not there.
pub(super) fn set_object(update: Update) -> Option<Object> {
    match update {
        Update::Set(object) | Update::SetSince(object, _) => Some(object),
        Update::Delete(_) | Update::Reset(..) | Update::LocalAddresses(_) => None,
    }
}

/// When what an EndpointSlice tells happened, if its writer says so.
fn since(update: Update, head: &HeadMetadata) -> Update {
    let said = || head.annotations.as_ref()?.get(LAST_CHANGE)?.parse::<Timestamp>().ok();
    match update {
        Update::Set(object @ Object::EndpointSlice(..)) => match said() {
            Some(time) => Update::SetSince(object, time.into()),
            None => Update::Set(object),
        },
        other => other,
    }
}

fn head(object: &RawValue) -> HeadMetadata {
    serde_json::from_str::<Head>(object.get()).unwrap_or_default().metadata
}

fn full_name(head: &HeadMetadata) -> String {
    let name = head.name.as_deref().unwrap_or("(without a name)");
    head.namespace.as_deref().map_or_else(|| name.to_string(), |namespace| format!("{namespace}/{name}"))
}
