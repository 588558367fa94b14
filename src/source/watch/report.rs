//! What the log says about a server that fails: once when it starts, once when the reason changes, once
//! when it is over. Several kinds that fail for one reason are one message. EDGE (logs).

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use crate::model::Kind;

/// The kinds that fail at the moment, and why.
#[derive(Debug, Default)]
pub(super) struct Report {
    failing: Mutex<BTreeMap<Kind, String>>,
}

/// What to say.
#[derive(Debug, PartialEq, Eq)]
enum Say {
    Nothing,
    Fails,
    Works,
    AllWork,
}

impl Report {
    /// A list or watch of the kind failed.
    pub(super) fn failed(&self, kind: Kind, why: &str) {
        if self.note(kind, Some(why)) == Say::Fails {
            tracing::warn!(kind = kind.as_str(), "{why}; trying again, the node stays as it is");
        } else {
            tracing::debug!(kind = kind.as_str(), "{why}");
        }
    }

    /// A list of the kind is complete, or a watch of it stands.
    pub(super) fn works(&self, kind: Kind) {
        match self.note(kind, None) {
            Say::AllWork => tracing::info!("the API server answers again"),
            Say::Works => tracing::info!(kind = kind.as_str(), "the API server answers again for this kind"),
            _ => {}
        }
    }

    fn note(&self, kind: Kind, why: Option<&str>) -> Say {
        let mut failing = self.failing.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(why) = why else {
            return match failing.remove(&kind) {
                None => Say::Nothing,
                Some(_) if failing.is_empty() => Say::AllWork,
                // the others are about to come back too
                Some(was) if failing.values().any(|other| *other == was) => Say::Nothing,
                Some(_) => Say::Works,
            };
        };
        let known = failing.values().any(|known| known == why);
        failing.insert(kind, why.to_string());
        if known { Say::Nothing } else { Say::Fails }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_change_is_said_once() {
        let report = Report::default();
        for (kind, why, say) in [
            (Kind::Service, None, Say::Nothing),
            (Kind::Service, Some("refused"), Say::Fails),
            (Kind::Service, Some("refused"), Say::Nothing),
            (Kind::Node, Some("refused"), Say::Nothing),
            (Kind::Service, Some("not allowed"), Say::Fails),
            (Kind::Node, None, Say::Works),
            (Kind::Node, Some("refused"), Say::Fails),
            (Kind::Service, Some("refused"), Say::Nothing),
            (Kind::Service, None, Say::Nothing),
            (Kind::Node, None, Say::AllWork),
            (Kind::Node, None, Say::Nothing),
        ] {
            assert_eq!(report.note(kind, why), say, "{kind:?} {why:?}");
        }
    }
}
