//! Answers that are refusals, rubbish, late, or missing.

use std::time::{Duration, Instant};

use serde_json::json;
use shunt::model::Kind;
use shunt::source::watch::{Limits, Options};

use crate::apiserver::{Fault, Resource, Server, Streams, Verb};
use crate::follower::{Follower, eventually, follow, quick, service};

/// How a list is asked for, and what the server must be like for that.
const LISTS: [(Verb, Streams); 2] = [(Verb::Stream, Streams::Served), (Verb::List, Streams::Refused(422))];

fn start(streams: Streams) -> Server {
    let server = Server::start();
    server.streams(streams);
    server.put(Resource::Services, service("a", "10.96.0.1"));
    server.put(Resource::Services, service("b", "10.96.0.2"));
    server
}

#[test]
fn whatever_happens_to_lists_in_the_end_there_is_one_complete_list() {
    let status = |code| Fault::Status(code, None);
    let table: [(&str, Vec<Fault>); 7] = [
        ("the server struggles", vec![status(500), status(503), status(504), status(429)]),
        ("credentials and rights come late", vec![status(401), status(403), status(403)]),
        ("an API that comes late", vec![status(404)]),
        ("the list expires", vec![status(410), status(410)]),
        ("rubbish", vec![Fault::Garbage, Fault::Garbage]),
        ("late", vec![Fault::Delay(Duration::from_millis(50)), Fault::None]),
        ("in small pieces", vec![Fault::Trickle(7, Duration::from_micros(200))]),
    ];
    for (verb, streams) in LISTS {
        for (what, faults) in &table {
            let server = start(streams);
            let failures =
                faults.iter().filter(|fault| matches!(fault, Fault::Status(..) | Fault::Garbage)).count();
            server.script(Resource::Services, verb, faults.clone());
            let follower = follow(&server);
            follower.until_services(&[service("a", "10.96.0.1"), service("b", "10.96.0.2")]);
            follower.look(|inbox| assert_eq!(inbox.resets(Kind::Service).len(), 1, "{verb:?}: {what}"));
            assert_eq!(follower.errors(Kind::Service), failures as u64, "{verb:?}: {what}");
        }
    }
}

#[test]
fn whatever_happens_to_watches_no_change_is_lost() {
    let status = |code| Fault::Status(code, None);
    let table: [(&str, Vec<Fault>, usize); 7] = [
        ("the server struggles", vec![status(500), status(503), status(429)], 1),
        ("the right is taken away and given back", vec![status(403), status(401)], 1),
        ("expired, told by status", vec![status(410)], 2),
        ("expired, told in the stream", vec![Fault::GoneInStream], 2),
        ("rubbish", vec![Fault::Garbage, Fault::Garbage], 1),
        ("ended at once", vec![Fault::End, Fault::End], 1),
        ("in small pieces", vec![Fault::Trickle(7, Duration::from_micros(200))], 1),
    ];
    for (what, faults, lists) in table {
        let server = start(Streams::Served);
        let follower = follow(&server);
        follower.until_services(&[service("a", "10.96.0.1"), service("b", "10.96.0.2")]);
        server.script(Resource::Services, Verb::Watch, faults);
        server.cut();
        server.delete(Resource::Services, "shop", "a");
        server.put(Resource::Services, service("b", "10.96.0.3"));
        follower.until_services(&[service("b", "10.96.0.3")]);
        follower.look(|inbox| assert_eq!(inbox.resets(Kind::Service).len(), lists, "{what}"));
    }
}

#[test]
fn a_page_whose_token_has_expired_starts_the_list_again() {
    let server = start(Streams::Refused(422));
    server.script(Resource::Services, Verb::List, [Fault::None, Fault::Status(410, None)]);
    let follower = Follower::start(&server, Options { page_size: 1, ..quick() });
    follower.until_services(&[service("a", "10.96.0.1"), service("b", "10.96.0.2")]);
    follower.look(|inbox| assert_eq!(inbox.resets(Kind::Service)[0].len(), 2));
    let lists = server
        .seen()
        .into_iter()
        .filter(|seen| seen.resource == Some(Resource::Services) && seen.verb == Verb::List);
    let first_pages = lists.map(|seen| !seen.query.contains_key("continue")).collect::<Vec<_>>();
    assert_eq!(first_pages, [true, false, true, false]);
}

#[test]
fn the_pause_that_the_server_asks_for_is_kept() {
    let server = start(Streams::Served);
    server.script(Resource::Services, Verb::Stream, [Fault::Status(429, Some(1))]);
    let follower = follow(&server);
    follower.until_services(&[service("a", "10.96.0.1"), service("b", "10.96.0.2")]);
    let seen = server.seen();
    let times: Vec<_> =
        seen.iter().filter(|seen| seen.resource == Some(Resource::Services)).map(|seen| seen.at).collect();
    assert!(times[1] - times[0] >= Duration::from_secs(1), "{times:?}");
}

#[test]
fn an_object_that_cannot_be_read_costs_itself_alone() {
    for bad in [json!(42), json!([]), json!("text"), json!({}), json!({"metadata": [], "spec": 7})] {
        for (verb, streams) in LISTS {
            let server = start(streams);
            server.script(Resource::Services, verb, [Fault::Malformed(bad.clone())]);
            let follower = follow(&server);
            follower.until_services(&[service("a", "10.96.0.1"), service("b", "10.96.0.2")]);
            assert!(follower.left_out(Kind::Service) > 0, "{verb:?} {bad}");
            assert_eq!(follower.errors(Kind::Service), 0, "{verb:?} {bad}");

            let left_out = follower.left_out(Kind::Service);
            // the first watch takes it, whether that is open already or not
            server.script(Resource::Services, Verb::Watch, [Fault::Malformed(bad.clone())]);
            eventually("the watch stands", || server.watchers(Resource::Services) == 1);
            server.cut();
            server.put(Resource::Services, service("c", "10.96.0.3"));
            follower.until("the change behind it is there", |inbox| inbox.state.len() == 3);
            eventually("it is counted", || follower.left_out(Kind::Service) > left_out);
            assert_eq!(
                follower.look(|inbox| inbox.resets(Kind::Service).len()),
                1,
                "nothing is listed again"
            );
        }
    }
}

#[test]
fn what_changes_while_a_list_is_streamed_counts() {
    let server = start(Streams::Served);
    let (a, b) = (service("a", "10.96.0.1"), service("b", "10.96.0.7"));
    let (c, again) = (service("c", "10.96.0.3"), service("a", "10.96.0.8"));
    let events =
        vec![("MODIFIED", b.clone()), ("DELETED", a), ("ADDED", c.clone()), ("ADDED", again.clone())];
    server.script(Resource::Services, Verb::Stream, [Fault::Meanwhile(events)]);
    let follower = follow(&server);
    follower.until("the list is there", |inbox| !inbox.resets(Kind::Service).is_empty());
    // all of it in one batch: nobody ever sees the list without the changes
    follower.look(|inbox| assert!(inbox.holds(Kind::Service, &[again, b, c]), "{inbox:#?}"));
}

#[test]
fn a_streamed_list_that_never_ends_is_given_up_for_pages() {
    let server = start(Streams::Served);
    server.script(Resource::Services, Verb::Stream, [Fault::Endless]);
    let follower = Follower::start(&server, Options { patience: Duration::from_millis(200), ..quick() });
    follower.until_services(&[service("a", "10.96.0.1"), service("b", "10.96.0.2")]);
    let asked = |verb| {
        server
            .seen()
            .iter()
            .filter(|seen| seen.resource == Some(Resource::Services) && seen.verb == verb)
            .count()
    };
    assert_eq!((asked(Verb::Stream), asked(Verb::List)), (1, 1));
}

#[test]
fn a_streamed_list_that_ends_too_early_is_read_in_pages_that_once() {
    let server = start(Streams::Served);
    // as kube-apiserver does where hundreds of objects change in a second
    server.script(Resource::Services, Verb::Stream, [Fault::End]);
    let follower = follow(&server);
    follower.until_services(&[service("a", "10.96.0.1"), service("b", "10.96.0.2")]);
    eventually("the watch stands", || server.watchers(Resource::Services) == 1);
    server.script(Resource::Services, Verb::Watch, [Fault::GoneInStream]);
    server.cut();
    follower.until("it is listed once more", |inbox| inbox.resets(Kind::Service).len() == 2);
    let verbs: Vec<_> = server
        .seen()
        .iter()
        .filter(|seen| seen.resource == Some(Resource::Services))
        .map(|seen| seen.verb)
        .collect();
    // the second list is one object, to see whether the server is as far as we are
    assert_eq!(verbs[..6], [Verb::Stream, Verb::List, Verb::Watch, Verb::List, Verb::Watch, Verb::Stream]);
}

#[test]
fn a_watch_whose_time_is_up_goes_on_without_a_failure() {
    let server = start(Streams::Served);
    let follower = Follower::start(&server, Options { watch: Duration::from_secs(3), ..quick() });
    let watches = || {
        server
            .seen()
            .iter()
            .filter(|seen| seen.resource == Some(Resource::Services) && seen.verb == Verb::Watch)
            .count()
    };
    eventually("two watches have ended", || watches() == 2);
    server.put(Resource::Services, service("c", "10.96.0.3"));
    follower.until("the change is there", |inbox| inbox.state.len() == 3);
    assert_eq!(follower.errors(Kind::Service), 0);
    assert_eq!(follower.look(|inbox| inbox.resets(Kind::Service).len()), 1);
}

#[test]
fn a_server_that_ends_every_watch_is_not_asked_in_a_tight_loop() {
    let server = start(Streams::Served);
    let backoff = Limits { first: Duration::from_millis(20), longest: Duration::from_millis(80) };
    let follower = Follower::start(&server, Options { backoff, ..quick() });
    follower.until_services(&[service("a", "10.96.0.1"), service("b", "10.96.0.2")]);
    eventually("the watch stands", || server.watchers(Resource::Services) == 1);
    server.script(Resource::Services, Verb::Watch, vec![Fault::End; 5]);
    let begun = Instant::now();
    server.cut();
    eventually("the last one stands", || server.scripted() == 0);
    // the pauses are at least 12, 24, 48, 48 and 48 ms; the last is not waited for here
    assert!(begun.elapsed() >= Duration::from_millis(12 + 24 + 48 + 48), "{:?}", begun.elapsed());
}
