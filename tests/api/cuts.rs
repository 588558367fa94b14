//! Connections that break: at every byte of a list and of a watch, and for a whole outage.

use serde_json::Value;
use shunt::model::Kind;
use shunt::source::watch::Options;

use crate::apiserver::{Fault, Resource, Server, Streams, Verb};
use crate::follower::{Follower, eventually, follow, quick, service};

fn three() -> [Value; 3] {
    [service("a", "10.96.0.1"), service("b", "10.96.0.2"), service("c", "10.96.0.3")]
}

/// A server with three Services, and how many bytes it takes to list them in this way.
fn listed(streams: Streams, verb: Verb) -> (Server, usize) {
    let server = Server::start();
    server.streams(streams);
    for service in three() {
        server.put(Resource::Services, service);
    }
    let follower = follow(&server);
    follower.until_services(&three());
    eventually("the answer is out", || server.bytes_of_last(Resource::Services, verb) > 0);
    let bytes = server.bytes_of_last(Resource::Services, verb);
    (server, bytes)
}

#[test]
fn a_list_cut_at_any_byte_is_handed_over_whole_or_not_at_all() {
    for (streams, verb) in [(Streams::Served, Verb::Stream), (Streams::Refused(422), Verb::List)] {
        let (server, bytes) = listed(streams, verb);
        // one watcher goes through every cut: each try is cut one byte later than the one before. The
        // last bytes of a streamed list end its last chunk; what the client makes of them is its choice.
        server.script(Resource::Services, verb, (0..bytes).map(Fault::CutAfterBytes));
        let follower = follow(&server);
        follower.until_services(&three());
        follower.look(|inbox| {
            assert_eq!(inbox.resets(Kind::Service).len(), 1, "{verb:?}");
            assert_eq!(inbox.resets(Kind::Service)[0].len(), 3, "{verb:?}");
        });
        assert!(server.scripted() <= 2, "{verb:?}: {} of {bytes} cuts left", server.scripted());
        assert!(follower.errors(Kind::Service) + 2 >= u64::try_from(bytes).unwrap(), "{verb:?}");
    }
}

#[test]
fn a_page_cut_at_any_byte_starts_the_list_again() {
    let server = Server::start();
    server.streams(Streams::Refused(422));
    for service in three() {
        server.put(Resource::Services, service);
    }
    // the second page of each try is cut
    let cuts = (0..900).step_by(7).flat_map(|cut| [Fault::None, Fault::CutAfterBytes(cut)]);
    server.script(Resource::Services, Verb::List, cuts);
    let follower = Follower::start(&server, Options { page_size: 2, ..quick() });
    follower.until_services(&three());
    follower.look(|inbox| assert_eq!(inbox.resets(Kind::Service)[0].len(), 3));
}

#[test]
fn a_watch_cut_at_any_byte_loses_nothing_and_lists_nothing_again() {
    let server = Server::start();
    server.put(Resource::Services, service("fixed", "10.96.0.100"));
    let follower = follow(&server);
    follower.until_services(&[service("fixed", "10.96.0.100")]);
    // header and three events: one new, one changed, one gone
    for cut in 0..1600 {
        server.script(Resource::Services, Verb::Watch, [Fault::CutAfterBytes(cut)]);
        server.cut();
        let ip = format!("10.96.{}.{}", 1 + cut / 250, cut % 250);
        server.put(Resource::Services, service("coming", "10.96.0.1"));
        server.put(Resource::Services, service("fixed", &ip));
        server.delete(Resource::Services, "shop", "coming");
        follower.until_services(&[service("fixed", &ip)]);
    }
    assert_eq!(follower.look(|inbox| inbox.resets(Kind::Service).len()), 1);
}

#[test]
fn a_server_that_is_not_there_yet_is_waited_for() {
    let mut server = Server::down();
    server.put(Resource::Services, service("a", "10.96.0.1"));
    let follower = follow(&server);
    eventually("it has been tried in vain", || follower.errors(Kind::Service) > 3);
    assert_eq!(follower.look(|inbox| inbox.batches), 0);
    server.up();
    follower.until_services(&[service("a", "10.96.0.1")]);
}

#[test]
fn an_outage_changes_nothing_and_afterwards_the_watch_goes_on() {
    let mut server = Server::start();
    server.put(Resource::Services, service("a", "10.96.0.1"));
    let follower = follow(&server);
    follower.until("everything is listed", |inbox| inbox.updates.len() == 4);
    server.stop();
    let errors = follower.errors(Kind::Service);
    eventually("it has been tried in vain", || follower.errors(Kind::Service) > errors + 20);
    assert_eq!(follower.look(|inbox| inbox.updates.len()), 4, "nothing is handed over meanwhile");
    server.put(Resource::Services, service("b", "10.96.0.2"));
    server.up();
    follower.until_services(&[service("a", "10.96.0.1"), service("b", "10.96.0.2")]);
    assert_eq!(follower.look(|inbox| inbox.updates.len()), 5, "one Set and no new list");
}

#[test]
fn a_server_whose_data_is_restored_from_a_backup_is_listed_again() {
    let mut server = Server::start();
    server.put(Resource::Services, service("a", "10.96.0.1"));
    let follower = follow(&server);
    for last in 2..50 {
        server.put(Resource::Services, service("a", &format!("10.96.0.{last}")));
    }
    follower.until_services(&[service("a", "10.96.0.49")]);
    server.stop();
    server.rewind(1);
    server.put(Resource::Services, service("a", "10.96.0.1"));
    server.up();
    follower.until_services(&[service("a", "10.96.0.1")]);
    server.put(Resource::Services, service("b", "10.96.0.2"));
    follower.until_services(&[service("a", "10.96.0.1"), service("b", "10.96.0.2")]);
    assert_eq!(follower.look(|inbox| inbox.resets(Kind::Service).len()), 2);
}
