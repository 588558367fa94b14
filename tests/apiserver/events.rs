//! What clients write: Events of `events.k8s.io/v1`. And which right a request needs.

use std::collections::btree_map::Entry;
use std::io;

use serde_json::Value;

use super::Verb;
use super::serve::refuse;
use super::store::Store;
use super::wire::{Request, Wire};

/// Where Events are, each namespace's below.
pub const ROOT: &str = "/apis/events.k8s.io/v1/namespaces/";

/// API group, namespace and resource of a path; empty where there is none.
pub fn parse(path: &str) -> (String, String, String) {
    let parts: Vec<&str> = path.split('/').skip(1).collect();
    let (group, rest) = match parts[..] {
        ["api", _, ref rest @ ..] => ("", rest),
        ["apis", group, _, ref rest @ ..] => (group, rest),
        _ => ("", &parts[..0]),
    };
    let (namespace, resource) = match rest {
        ["namespaces", namespace, resource, ..] => (*namespace, *resource),
        [resource, ..] => ("", *resource),
        [] => ("", ""),
    };
    (group.to_string(), namespace.to_string(), resource.to_string())
}

/// The verb of a role that allows this.
pub fn right(method: &str, verb: Verb) -> &'static str {
    match (method, verb) {
        ("POST", _) => "create",
        ("PATCH", _) => "patch",
        ("PUT", _) => "update",
        ("DELETE", _) => "delete",
        (_, Verb::Watch | Verb::Stream) => "watch",
        (_, _) => "list",
    }
}

/// Creates or patches an Event, as strict as the real one about what is in it.
pub fn answer(store: &mut Store, request: &Request, wire: &mut Wire<'_>) -> io::Result<()> {
    let body: Value = serde_json::from_slice(&request.body).unwrap_or_default();
    match request.method.as_str() {
        "POST" => {
            let (_, namespace, _) = parse(&request.path);
            if let Some(wrong) = wrong(&body, &namespace) {
                return refuse(wire, 422, wrong, None);
            }
            let path = format!("{}/{}", request.path, body["metadata"]["name"].as_str().unwrap());
            match store.events.entry(path) {
                Entry::Occupied(_) => refuse(wire, 409, "AlreadyExists", None),
                Entry::Vacant(entry) => {
                    entry.insert(body.clone());
                    wire.respond(201, &[], body.to_string().as_bytes())
                }
            }
        }
        "PATCH" => match store.events.get_mut(&request.path) {
            None => refuse(wire, 404, "NotFound", None),
            Some(event) => {
                let series = &body["series"];
                if body.as_object().is_none_or(|fields| fields.len() != 1)
                    || series["count"].as_u64() < Some(2)
                {
                    return refuse(wire, 422, "only the series may change", None);
                }
                event["series"] = series.clone();
                wire.respond(200, &[], event.to_string().as_bytes())
            }
        },
        _ => refuse(wire, 405, "MethodNotAllowed", None),
    }
}

/// What the API's validation would say (pkg/apis/core/validation/events.go).
fn wrong(event: &Value, namespace: &str) -> Option<&'static str> {
    let text = |value: &Value, longest: usize| {
        value.as_str().is_some_and(|text| (1..=longest).contains(&text.len()))
    };
    let time = event["eventTime"].as_str().unwrap_or_default();
    let regarding = &event["regarding"];
    let regarded = regarding["namespace"].as_str().unwrap_or("default");
    [
        (text(&event["metadata"]["name"], 253), "metadata.name"),
        (event["metadata"]["namespace"] == namespace && regarded == namespace, "namespace"),
        (time.len() == 27 && time.ends_with('Z'), "eventTime is a MicroTime"),
        (text(&event["reportingController"], 63), "reportingController"),
        (text(&event["reportingInstance"], 128), "reportingInstance"),
        (text(&event["action"], 128), "action"),
        (text(&event["reason"], 128), "reason"),
        (event["type"] == "Warning" || event["type"] == "Normal", "type"),
        (event["note"].as_str().is_some_and(|note| note.len() <= 1024), "note"),
        (text(&regarding["kind"], 63) && text(&regarding["name"], 253), "regarding"),
    ]
    .into_iter()
    .find_map(|(right, what)| (!right).then_some(what))
}
