//! Events on objects, and the time that changes took.

use serde_json::{Value, json};
use shunt::metrics::ResultLabel;
use shunt::model::{Object, Update};
use shunt::notices::{Notice, Reason};

use crate::apiserver::{Resource, Server};
use crate::follower::{Follower, eventually, follow, service, slice};

fn bad() -> Value {
    let mut bad = service("bad", "10.96.0.9");
    bad["metadata"]["uid"] = json!("u-1");
    bad["spec"]["type"] = json!("LoadBalancer");
    bad["spec"]["loadBalancerSourceRanges"] = json!(["10.0.0.0/33"]);
    bad
}

fn counted(follower: &Follower, result: &'static str) -> u64 {
    follower.metrics.events.get_or_create(&ResultLabel { result }).get()
}

#[test]
fn what_is_left_out_becomes_one_event_on_the_object() {
    let server = Server::start();
    server.put(Resource::Services, bad());
    let follower = follow(&server);
    eventually("the Event is there", || server.events().len() == 1);
    let (path, event) = server.events().pop_first().unwrap();
    assert!(path.starts_with("/apis/events.k8s.io/v1/namespaces/shop/events/bad."), "{path}");
    assert_eq!(event["reason"], "InvalidField");
    assert_eq!(
        event["regarding"],
        json!({"apiVersion": "v1", "kind": "Service", "namespace": "shop", "name": "bad", "uid": "u-1"})
    );
    let note = event["note"].as_str().unwrap();
    assert!(note.contains("spec.loadBalancerSourceRanges[0]") && note.contains("10.0.0.0/33"), "{note}");
    eventually("it is counted", || counted(&follower, "created") == 1);

    // another node finds the same
    let other = follow(&server);
    eventually("the other one has been told", || counted(&other, "known") == 1);
    assert_eq!(server.events().len(), 1);
}

#[test]
fn what_repeats_is_counted_in_its_series() {
    let server = Server::start();
    server.put(Resource::Services, service("web", "10.96.0.1"));
    let follower = follow(&server);
    let mut unnamed = service("web", "10.96.0.1");
    unnamed["metadata"]["uid"] = json!("u-2");
    server.put(Resource::Services, unnamed);
    let notice = Notice {
        kind: "Service",
        object: "shop/web".to_string(),
        reason: Reason::HealthPortUnavailable,
        note: "in use".to_string(),
    };
    for count in 1..4_u64 {
        follower.recorder.record(notice.clone());
        eventually("it is counted", || {
            counted(&follower, "created") + counted(&follower, "updated") == count
        });
    }
    let (_, event) = server.events().pop_first().unwrap();
    assert_eq!((event["series"]["count"].as_u64(), server.events().len()), (Some(3), 1));
    assert_eq!(event["related"]["name"], "here");

    let gone = Notice { object: "shop/nothing".to_string(), ..notice };
    follower.recorder.record(gone);
    eventually("nobody is told of what is gone", || counted(&follower, "dropped") == 1);
    assert_eq!(server.events().len(), 1);
}

#[test]
fn changed_slices_tell_since_when_and_lists_do_not() {
    let at = |address: &str, time: &str| {
        let mut slice = slice("a", address);
        slice["metadata"]["annotations"] = json!({"endpoints.kubernetes.io/last-change-trigger-time": time});
        slice
    };
    let server = Server::start();
    server.put(Resource::EndpointSlices, at("10.0.0.1", "2026-01-02T03:04:05Z"));
    let follower = follow(&server);
    eventually("it watches", || server.watchers(Resource::EndpointSlices) == 1);
    server.put(Resource::EndpointSlices, at("10.0.0.2", "2026-01-02T03:04:05.5Z"));
    server.put(Resource::EndpointSlices, at("10.0.0.3", "yesterday"));
    follower.until("both changes are there", |inbox| {
        let slices = inbox.updates.iter().filter(|update| {
            matches!(
                update,
                Update::Set(Object::EndpointSlice(..)) | Update::SetSince(Object::EndpointSlice(..), _)
            )
        });
        slices.count() == 2
    });
    follower.look(|inbox| {
        let since: Vec<_> = inbox
            .updates
            .iter()
            .filter_map(|update| match update {
                Update::SetSince(_, since) => {
                    Some(since.duration_since(std::time::UNIX_EPOCH).unwrap().as_millis())
                }
                _ => None,
            })
            .collect();
        assert_eq!(since, [1_767_323_045_500], "{inbox:#?}");
    });
}
