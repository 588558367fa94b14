//! What a server that works well makes of the model.

use std::time::Duration;

use serde_json::json;
use shunt::model::{Key, Kind, NodeName, Update};
use shunt::source::convert::Context;
use shunt::source::watch::Options;

use crate::apiserver::{Expiry, Resource, Server, Streams, Verb};
use crate::follower::{Follower, context, eventually, follow, quick, service, slice};

const STREAMS: [Streams; 3] = [Streams::Served, Streams::Refused(422), Streams::Refused(400)];

#[test]
fn a_list_is_complete_before_anything_is_handed_over() {
    for streams in STREAMS {
        let server = Server::start();
        server.streams(streams);
        let services: Vec<_> = (0..7).map(|i| service(&format!("s{i}"), &format!("10.96.0.{i}"))).collect();
        for service in &services {
            server.put(Resource::Services, service.clone());
        }
        let follower = Follower::start(&server, Options { page_size: 3, ..quick() });
        follower.until("the list is there", |inbox| !inbox.resets(Kind::Service).is_empty());
        follower.look(|inbox| {
            assert!(inbox.holds(Kind::Service, &services), "{streams:?}");
            assert_eq!(inbox.resets(Kind::Service)[0].len(), 7, "{streams:?}");
        });
        let lists = server
            .seen()
            .iter()
            .filter(|seen| seen.path.ends_with("services") && seen.verb == Verb::List)
            .count();
        assert_eq!(lists, if streams == Streams::Served { 0 } else { 3 }, "{streams:?}");
        assert_eq!(follower.errors(Kind::Service), 0, "a server that does not stream is no failure");
    }
}

#[test]
fn changes_are_followed() {
    for streams in STREAMS {
        let server = Server::start();
        server.streams(streams);
        server.put(Resource::Services, service("a", "10.96.0.1"));
        server.put(Resource::EndpointSlices, slice("a", "10.0.0.1"));
        let follower = follow(&server);
        follower.until_services(&[service("a", "10.96.0.1")]);

        server.put(Resource::Services, service("b", "10.96.0.2"));
        follower.until_services(&[service("a", "10.96.0.1"), service("b", "10.96.0.2")]);
        server.put(Resource::Services, service("a", "10.96.0.3"));
        follower.until_services(&[service("a", "10.96.0.3"), service("b", "10.96.0.2")]);
        server.delete(Resource::Services, "shop", "b");
        follower.until_services(&[service("a", "10.96.0.3")]);
        server.put(Resource::EndpointSlices, slice("a", "10.0.0.2"));
        follower.until("the slice has changed", |inbox| {
            inbox.holds(Kind::EndpointSlice, &[slice("a", "10.0.0.2")])
        });
        follower.look(|inbox| assert_eq!(inbox.resets(Kind::Service).len(), 1, "{streams:?}"));
    }
}

#[test]
fn what_is_no_longer_selected_or_no_longer_ours_is_deleted() {
    let labelled = |mut object: serde_json::Value, label: &str| {
        object["metadata"]["labels"][label] = json!("other");
        object
    };
    let name_only = {
        let mut object = service("a", "10.96.0.1");
        object["spec"]["type"] = json!("ExternalName");
        object
    };
    for other in [
        labelled(service("a", "10.96.0.1"), "service.kubernetes.io/service-proxy-name"),
        name_only,
        service("a", "None"),
    ] {
        let server = Server::start();
        server.put(Resource::Services, service("a", "10.96.0.1"));
        let follower = follow(&server);
        follower.until_services(&[service("a", "10.96.0.1")]);
        server.put(Resource::Services, other);
        follower.until_services(&[]);
        server.put(Resource::Services, service("a", "10.96.0.9"));
        follower.until_services(&[service("a", "10.96.0.9")]);
    }
}

#[test]
fn the_server_is_asked_for_what_we_need_and_no_more() {
    for (streams, proxy_name) in [(Streams::Served, None), (Streams::Refused(422), Some("mine"))] {
        let server = Server::start();
        server.streams(streams);
        let context = Context::new(NodeName("here".into()), proxy_name.map(Into::into));
        let options = Options { endpoints: proxy_name.is_some(), ..quick() };
        let follower = Follower::limited(&server, context, options, usize::MAX);
        let kinds = if options.endpoints { 5 } else { 4 };
        follower.until("every kind is listed", |inbox| inbox.updates.len() == kinds);

        let by_name = proxy_name.map_or_else(
            || "!service.kubernetes.io/service-proxy-name".to_string(),
            |name| format!("service.kubernetes.io/service-proxy-name={name}"),
        );
        let headless = Some("!service.kubernetes.io/headless");
        for seen in server.seen() {
            assert!(seen.user_agent.starts_with("shunt/"), "the server's audit log: {:?}", seen.user_agent);
            let (labels, fields) = match seen.resource.unwrap() {
                Resource::Services => (Some(by_name.as_str()), Some("spec.clusterIP!=None")),
                Resource::EndpointSlices | Resource::Endpoints => (headless, None),
                Resource::Nodes => (None, Some("metadata.name=here")),
                Resource::ServiceCidrs => (None, None),
            };
            let query = |name: &str| seen.query.get(name).map(String::as_str);
            assert_eq!((query("labelSelector"), query("fieldSelector")), (labels, fields), "{seen:?}");
            assert_eq!(seen.method, "GET");
            match seen.verb {
                Verb::List => assert_eq!((query("limit"), query("resourceVersion")), (Some("500"), None)),
                Verb::Watch => {
                    assert_ne!(query("resourceVersion"), Some("0"), "never older than what we have");
                }
                Verb::Write => panic!("nothing is wrong with any object: {seen:?}"),
                Verb::Stream => {
                    assert_eq!(query("resourceVersion"), Some(""), "a list as new as the question");
                }
            }
        }
        assert_eq!(
            server.seen().iter().any(|seen| seen.resource == Some(Resource::Endpoints)),
            options.endpoints
        );
    }
}

#[test]
fn our_node_and_the_service_cidrs_come_too() {
    let node = |name: &str, zone: &str| json!({"metadata": {"name": name, "labels": {"topology.kubernetes.io/zone": zone}}});
    let cidr = json!({"metadata": {"name": "kubernetes"}, "spec": {"cidrs": ["10.96.0.0/16"]}});
    let server = Server::start();
    server.put(Resource::Nodes, node("here", "east"));
    server.put(Resource::Nodes, node("there", "west"));
    server.put(Resource::ServiceCidrs, cidr.clone());
    let follower = follow(&server);
    follower.until("node and range are there", |inbox| {
        inbox.holds(Kind::Node, &[node("here", "east")])
            && inbox.holds(Kind::ServiceCidr, std::slice::from_ref(&cidr))
    });
    server.put(Resource::Nodes, node("there", "south"));
    server.put(Resource::Nodes, node("here", "north"));
    follower.until("the zone is another", |inbox| inbox.holds(Kind::Node, &[node("here", "north")]));
    server.delete(Resource::Nodes, "", "here");
    follower.until("the node is gone", |inbox| inbox.updates.contains(&Update::Delete(Key::Node)));
}

#[test]
fn a_bookmark_is_where_the_next_watch_begins() {
    let server = Server::start();
    let follower = follow(&server);
    follower.until("the list is there", |inbox| !inbox.resets(Kind::Service).is_empty());
    eventually("someone watches", || server.watchers(Resource::Services) == 1);
    for other in 0..20 {
        server.put(Resource::Nodes, json!({"metadata": {"name": format!("node-{other}")}}));
    }
    server.bookmark(Resource::Services);
    // the watch is cut only after the bookmark is out, so send something visible behind it
    server.put(Resource::Services, service("a", "10.96.0.1"));
    follower.until_services(&[service("a", "10.96.0.1")]);
    server.bookmark(Resource::Services);
    eventually("the bookmark has brought the next watch further", || {
        server.cut();
        let seen = server.seen();
        let last = seen.iter().rfind(|seen| seen.path.ends_with("services")).unwrap();
        last.verb == Verb::Watch && last.query["resourceVersion"] == "24"
    });
    assert_eq!(follower.look(|inbox| inbox.resets(Kind::Service).len()), 1, "and nothing is listed again");
}

#[test]
fn expired_history_means_one_new_list() {
    for (streams, expiry) in [
        (Streams::Served, Expiry::Status),
        (Streams::Served, Expiry::Event),
        (Streams::Refused(400), Expiry::Status),
        (Streams::Refused(400), Expiry::Event),
    ] {
        let mut server = Server::start();
        server.streams(streams);
        server.put(Resource::Services, service("old", "10.96.0.1"));
        server.put(Resource::Services, service("kept", "10.96.0.2"));
        let follower = follow(&server);
        follower.until_services(&[service("old", "10.96.0.1"), service("kept", "10.96.0.2")]);

        server.stop();
        server.delete(Resource::Services, "shop", "old");
        server.put(Resource::Services, service("new", "10.96.0.3"));
        server.expire(expiry);
        server.up();
        follower.until_services(&[service("kept", "10.96.0.2"), service("new", "10.96.0.3")]);
        follower.look(|inbox| {
            assert_eq!(inbox.resets(Kind::Service).len(), 2, "{streams:?} {expiry:?}");
            let single = inbox.updates.iter().filter(|update| !matches!(update, Update::Reset(..))).count();
            assert_eq!(single, 0, "what is gone is told by the list alone");
        });
    }
}

#[test]
fn a_server_without_service_cidrs_has_none_until_it_has() {
    let cidr = json!({"metadata": {"name": "kubernetes"}, "spec": {"cidrs": ["10.96.0.0/16"]}});
    let server = Server::start();
    server.put(Resource::ServiceCidrs, cidr.clone());
    server.without(Resource::ServiceCidrs);
    let follower = Follower::start(&server, Options { absent: Duration::from_millis(5), ..quick() });
    follower.until("there are none", |inbox| !inbox.resets(Kind::ServiceCidr).is_empty());
    let asked = || server.seen().iter().filter(|seen| seen.resource == Some(Resource::ServiceCidrs)).count();
    eventually("it has been asked again", || asked() > 3);
    assert_eq!(follower.look(|inbox| inbox.resets(Kind::ServiceCidr).len()), 1, "told once");
    assert_eq!(follower.errors(Kind::ServiceCidr), 0, "and no failure");
    server.with(Resource::ServiceCidrs);
    follower.until("the server has been upgraded", |inbox| {
        inbox.holds(Kind::ServiceCidr, std::slice::from_ref(&cidr))
    });
}

#[test]
fn a_source_that_nobody_listens_to_ends() {
    let server = Server::start();
    Follower::limited(&server, context(), quick(), 1).join();
}
