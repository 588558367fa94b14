//! A notice as an Event of `events.k8s.io/v1`. PURE.

use std::hash::{DefaultHasher, Hash, Hasher};

use k8s_openapi::jiff::Timestamp;
use serde_json::{Value, json};

use super::Notice;

/// The longest note that the API takes.
const LONGEST_NOTE: usize = 1024;
/// The longest `reportingInstance`.
const LONGEST_INSTANCE: usize = 128;
/// Of the object's name so much goes into the Event's, which may have 253 bytes.
const LONGEST_NAME: usize = 200;

/// Where the kind of a notice is found.
pub(super) struct Place {
    api_version: &'static str,
    plural: &'static str,
    /// Empty for kinds without.
    namespace: String,
    name: String,
}

impl Place {
    /// `None` for kinds that get no Events.
    pub(super) fn of(notice: &Notice) -> Option<Self> {
        let (api_version, plural) = match notice.kind {
            "Service" => ("v1", "services"),
            "Endpoints" => ("v1", "endpoints"),
            "Node" => ("v1", "nodes"),
            "EndpointSlice" => ("discovery.k8s.io/v1", "endpointslices"),
            "ServiceCIDR" => ("networking.k8s.io/v1", "servicecidrs"),
            _ => return None,
        };
        let (namespace, name) = notice.object.split_once('/').unwrap_or(("", &notice.object));
        Some(Self { api_version, plural, namespace: namespace.to_owned(), name: name.to_owned() })
    }

    /// A list of the object alone. Not a GET of it: the role of kube-proxy has no right to that.
    pub(super) fn list_path(&self) -> String {
        let root =
            if self.api_version == "v1" { "/api/v1".into() } else { format!("/apis/{}", self.api_version) };
        let namespace = match &*self.namespace {
            "" => String::new(),
            namespace => format!("/namespaces/{namespace}"),
        };
        format!("{root}{namespace}/{}?fieldSelector=metadata.name%3D{}", self.plural, self.name)
    }

    /// Where its Events are. Those of objects without a namespace are in `default`.
    pub(super) fn events_path(&self) -> String {
        format!("/apis/events.k8s.io/v1/namespaces/{}/events", self.events_namespace())
    }

    fn events_namespace(&self) -> &str {
        if self.namespace.is_empty() { "default" } else { &self.namespace }
    }
}

/// The Event's name: the same for the same notice about the same object, on every node unless it is about
/// the node. So the second one to tell is refused, and the cluster has one Event, not one for each node.
pub(super) fn name(notice: &Notice, place: &Place, uid: &str, node: &str) -> String {
    let mut hasher = DefaultHasher::new();
    (notice.kind, uid, notice.reason.as_str(), &notice.note).hash(&mut hasher);
    if notice.reason.is_of_node() {
        node.hash(&mut hasher);
    }
    format!("{}.{:016x}", cut(&place.name, LONGEST_NAME).trim_end_matches(['.', '-']), hasher.finish())
}

/// The whole Event.
pub(super) fn event(notice: &Notice, place: &Place, uid: &str, node: &str, now: Timestamp) -> Value {
    let mut regarding =
        json!({ "apiVersion": place.api_version, "kind": notice.kind, "name": place.name, "uid": uid });
    if !place.namespace.is_empty() {
        regarding["namespace"] = json!(place.namespace);
    }
    let mut event = json!({
        "apiVersion": "events.k8s.io/v1",
        "kind": "Event",
        "metadata": { "name": name(notice, place, uid, node), "namespace": place.events_namespace() },
        "eventTime": micro(now),
        "reportingController": "shunt",
        "reportingInstance": cut(node, LONGEST_INSTANCE),
        "action": notice.reason.action(),
        "reason": notice.reason.as_str(),
        "type": "Warning",
        "regarding": regarding,
        "note": cut(&notice.note, LONGEST_NOTE),
    });
    if notice.reason.is_of_node() {
        event["related"] = json!({ "apiVersion": "v1", "kind": "Node", "name": node });
    }
    event
}

/// A merge patch that says how often it has happened; a series has at least two.
pub(super) fn series(count: u32, now: Timestamp) -> Value {
    json!({ "series": { "count": count.max(2), "lastObservedTime": micro(now) } })
}

/// As Go writes a `MicroTime`.
fn micro(time: Timestamp) -> String {
    format!("{time:.6}")
}

/// The first part of a text, cut between characters.
fn cut(text: &str, longest: usize) -> &str {
    let mut end = longest.min(text.len());
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::notices::Reason;

    fn notice(kind: &'static str, object: &str, reason: Reason) -> Notice {
        Notice { kind, object: object.to_owned(), reason, note: "spec.x: wrong".to_owned() }
    }

    #[test]
    fn where_objects_and_events_are() {
        for (kind, object, list, events) in [
            (
                "Service",
                "shop/web",
                "/api/v1/namespaces/shop/services?fieldSelector=metadata.name%3Dweb",
                "/apis/events.k8s.io/v1/namespaces/shop/events",
            ),
            (
                "EndpointSlice",
                "shop/web-1",
                "/apis/discovery.k8s.io/v1/namespaces/shop/endpointslices?fieldSelector=metadata.name%3Dweb-1",
                "/apis/events.k8s.io/v1/namespaces/shop/events",
            ),
            (
                "Node",
                "n1",
                "/api/v1/nodes?fieldSelector=metadata.name%3Dn1",
                "/apis/events.k8s.io/v1/namespaces/default/events",
            ),
        ] {
            let place = Place::of(&notice(kind, object, Reason::InvalidField)).unwrap();
            assert_eq!((place.list_path().as_str(), place.events_path().as_str()), (list, events));
        }
        assert!(Place::of(&notice("Pod", "shop/web", Reason::InvalidField)).is_none());
    }

    #[test]
    fn an_event_is_what_the_api_takes() {
        let mut long = notice("Service", "shop/web", Reason::HealthPortUnavailable);
        long.note = "ü".repeat(600);
        let place = Place::of(&long).unwrap();
        let now: Timestamp = "2026-01-02T03:04:05Z".parse().unwrap();
        let event = event(&long, &place, "u-1", "node-1", now);
        assert_eq!(event["eventTime"], "2026-01-02T03:04:05.000000Z");
        assert_eq!(event["note"].as_str().unwrap().len(), 1024);
        assert_eq!(event["metadata"]["namespace"], event["regarding"]["namespace"]);
        assert_eq!(event["related"]["name"], "node-1");
        assert!(event["metadata"]["name"].as_str().unwrap().starts_with("web."));
        assert_eq!(series(1, now)["series"]["count"], 2);
    }

    #[test]
    fn one_event_for_the_cluster_or_one_for_each_node() {
        for (reason, same) in [(Reason::InvalidField, true), (Reason::RefusedByKernel, false)] {
            let notice = notice("Service", "shop/web", reason);
            let place = Place::of(&notice).unwrap();
            let name = |uid, node| name(&notice, &place, uid, node);
            assert_eq!(name("u", "a") == name("u", "b"), same, "{reason:?}");
            assert_ne!(name("u", "a"), name("v", "a"), "a Service of the same name is another one");
        }
    }
}
