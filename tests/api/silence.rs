//! Servers and networks that say nothing at all.

use std::process::Command;
use std::time::{Duration, Instant};

use shunt::model::Kind;
use shunt::source::watch::{Access, Options};

use crate::apiserver::{Fault, Resource, Server, Streams, Verb};
use crate::follower::{Follower, access, context, eventually, quick, service};

#[test]
fn a_server_that_takes_requests_and_never_answers_is_given_up() {
    for (streams, verb) in [(Streams::Served, Verb::Stream), (Streams::Refused(422), Verb::List)] {
        let server = Server::start();
        server.streams(streams);
        server.put(Resource::Services, service("a", "10.96.0.1"));
        server.script(Resource::Services, verb, [Fault::Delay(Duration::from_secs(5))]);
        let begun = Instant::now();
        let follower = Follower::start(&server, Options { patience: Duration::from_millis(200), ..quick() });
        follower.until_services(&[service("a", "10.96.0.1")]);
        assert!(begun.elapsed() < Duration::from_secs(5), "{verb:?}: it has waited for the answer");
        assert_eq!(follower.errors(Kind::Service), 1, "{verb:?}");
    }
}

/// Runs one of the tests below in a network of its own, where packets can be dropped.
fn alone(test: &str) {
    let script = "ip link set lo up && exec \"$0\" --exact \"$1\" --ignored --nocapture";
    let program = std::env::current_exe().unwrap();
    let command = ["--user", "--map-root-user", "--net", "sh", "-c", script];
    let output = Command::new("unshare").args(command).arg(program).arg(test).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    let passed = output.status.success() && said.contains("1 passed");
    assert!(passed, "{said}\n{}", String::from_utf8_lossy(&output.stderr));
}

fn nft(command: &str) {
    let status = Command::new("nft").arg(command).status().unwrap();
    assert!(status.success(), "nft {command}");
}

#[test]
fn a_connection_that_dies_in_silence_is_noticed() {
    alone("silence::packets_vanish_during_a_watch");
}

#[test]
#[ignore = "needs a network of its own: run by the test above"]
fn packets_vanish_during_a_watch() {
    let server = Server::start();
    server.put(Resource::Services, service("a", "10.96.0.1"));
    // watches last for minutes: only the socket can tell
    let access = Access { silence: Duration::from_secs(2), ..access(&server) };
    let follower = Follower::over(access, context(), quick(), usize::MAX);
    follower.until_services(&[service("a", "10.96.0.1")]);
    eventually("it watches", || server.watchers(Resource::Services) == 1);
    nft(
        "add table ip silence; add chain ip silence input { type filter hook input priority 0; policy drop; }",
    );
    let begun = Instant::now();
    server.put(Resource::Services, service("b", "10.96.0.2"));
    eventually("it is noticed", || follower.errors(Kind::Service) > 0);
    // The kernel looks at its timers with a second's patience; without keepalive it would be hours.
    assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
    follower.look(|inbox| assert!(inbox.holds(Kind::Service, &[service("a", "10.96.0.1")])));
    nft("delete table ip silence");
    follower.until_services(&[service("a", "10.96.0.1"), service("b", "10.96.0.2")]);
    follower.look(|inbox| assert_eq!(inbox.resets(Kind::Service).len(), 1, "nothing is listed again"));
}
