//! What a client asks for is what its roles allow, and no more.

use std::collections::BTreeSet;

use serde_json::{Value, json};
use shunt::model::Kind;
use shunt::notices::{Notice, Reason};
use shunt::source::watch::Options;

use crate::apiserver::{Resource, Server, Streams, Verb};
use crate::follower::{Follower, eventually, quick, service, slice};

/// API group, resource, verb.
type Right = (String, String, String);

fn rights(rules: &[Value]) -> BTreeSet<Right> {
    let texts = |value: &Value| -> Vec<String> {
        value.as_array().unwrap().iter().map(|text| text.as_str().unwrap().to_string()).collect()
    };
    let mut rights = BTreeSet::new();
    for rule in rules {
        for group in texts(&rule["apiGroups"]) {
            for resource in texts(&rule["resources"]) {
                let verbs = texts(&rule["verbs"]).into_iter();
                rights.extend(verbs.map(|verb| (group.clone(), resource.clone(), verb)));
            }
        }
    }
    rights
}

/// The rules of the ClusterRole that comes with shunt.
fn deployed() -> BTreeSet<Right> {
    let documents: Vec<Value> = include_str!("../../deploy/daemonset.yaml")
        .split("\n---\n")
        .map(|text| serde_saphyr::from_str(text).unwrap())
        .collect();
    let role = documents.iter().find(|document| document["kind"] == "ClusterRole").unwrap();
    rights(role["rules"].as_array().unwrap())
}

/// ClusterRole system:node-proxier (plugin/pkg/auth/authorizer/rbac/bootstrappolicy/policy.go), without what
/// only servers with ServiceCIDRs have in it.
fn node_proxier() -> BTreeSet<Right> {
    rights(&[
        json!({"apiGroups": [""], "resources": ["services", "endpoints"], "verbs": ["list", "watch"]}),
        json!({"apiGroups": [""], "resources": ["nodes"], "verbs": ["get", "list", "watch"]}),
        json!({"apiGroups": ["", "events.k8s.io"], "resources": ["events"], "verbs": ["create", "patch", "update"]}),
        json!({"apiGroups": ["discovery.k8s.io"], "resources": ["endpointslices"], "verbs": ["list", "watch"]}),
    ])
}

/// What a client has asked for that did all that it ever does.
fn used(endpoints: bool) -> BTreeSet<Right> {
    let server = Server::start();
    for (resource, object) in [
        (Resource::Services, service("a", "10.96.0.1")),
        (Resource::EndpointSlices, slice("a", "10.0.0.1")),
        (Resource::Nodes, json!({"metadata": {"name": "here"}})),
        (
            Resource::ServiceCidrs,
            json!({"metadata": {"name": "kubernetes"}, "spec": {"cidrs": ["10.96.0.0/16"]}}),
        ),
    ] {
        let mut object = object;
        object["metadata"]["uid"] = json!("u");
        server.put(resource, object);
    }
    // once in pages and once streamed
    server.streams(Streams::Refused(422));
    drop({
        let follower = Follower::start(&server, Options { endpoints, ..quick() });
        let kinds = if endpoints { 5 } else { 4 };
        follower.until("every kind is listed", |inbox| inbox.updates.len() == kinds);
        follower
    });
    server.streams(Streams::Served);
    let follower = Follower::start(&server, Options { endpoints, ..quick() });
    let watched = [Resource::Services, Resource::EndpointSlices, Resource::Nodes, Resource::ServiceCidrs];
    let streamed = |resource: &Resource| {
        server.seen().iter().any(|seen| seen.resource == Some(*resource) && seen.verb == Verb::Stream)
    };
    eventually("it watches", || watched.iter().all(streamed));
    server.cut();
    for (kind, object) in [
        ("Service", "shop/a"),
        ("EndpointSlice", "shop/a-x"),
        ("Node", "here"),
        ("ServiceCIDR", "kubernetes"),
    ] {
        let (object, note) = (object.to_string(), String::new());
        let notice = Notice { kind, object, reason: Reason::InvalidField, note };
        follower.recorder.record(notice.clone());
        follower.recorder.record(notice);
    }
    eventually("every Event is counted twice", || {
        let events = server.events();
        events.len() == 4 && events.values().all(|event| event["series"]["count"] == 2)
    });
    server.rights()
}

#[test]
fn the_deployed_role_is_what_is_used() {
    assert_eq!(used(false), deployed());
}

#[test]
fn the_role_of_kube_proxy_is_enough() {
    let missing: BTreeSet<String> =
        used(true).difference(&node_proxier()).map(|(_, resource, _)| resource.clone()).collect();
    // and without the right to these it goes on, see below
    assert_eq!(missing, BTreeSet::from(["servicecidrs".to_string()]));
}

#[test]
fn without_the_right_to_service_cidrs_everything_else_goes_on() {
    let server = Server::start();
    server.put(
        Resource::ServiceCidrs,
        json!({"metadata": {"name": "kubernetes"}, "spec": {"cidrs": ["10.96.0.0/16"]}}),
    );
    server.put(Resource::Services, service("a", "10.96.0.1"));
    server.forbid(Resource::ServiceCidrs, true);
    let follower =
        Follower::start(&server, Options { absent: std::time::Duration::from_millis(5), ..quick() });
    follower.until_services(&[service("a", "10.96.0.1")]);
    follower.until("there are no ranges", |inbox| !inbox.resets(Kind::ServiceCidr).is_empty());
    follower.look(|inbox| assert!(inbox.resets(Kind::ServiceCidr)[0].is_empty()));
    server.forbid(Resource::ServiceCidrs, false);
    follower.until("the role has been extended", |inbox| inbox.resets(Kind::ServiceCidr).len() == 2);
}
