//! Each test has a network namespace of its own, and changes it with the `ip` program.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::io::Write as _;
use std::process::{Command, Stdio};
use std::time::Duration;

use nix::sched::{CloneFlags, unshare};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::super::kernel::{Kernel, Notifications};
use super::super::select::Stale;
use super::super::{follow, initial};
use super::{Row, list};
use crate::model::{LocalAddress, Update};

/// Set in the process that `unshare` has put into a namespace.
const INSIDE: &str = "SHUNT_TEST_INSIDE_NETNS";

/// Runs the test in a namespace of its own: in a thread where we are root, else this very test again
/// in a process under `unshare`, since a process with threads cannot enter a user namespace.
fn in_namespace(name: &str, test: impl AsyncFnOnce() + Send + 'static) {
    let inside = std::env::var_os(INSIDE).is_some();
    let run = move || {
        if !inside && unshare(CloneFlags::CLONE_NEWNET).is_err() {
            return false;
        }
        ip("link set lo up");
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(test());
        true
    };
    if std::thread::spawn(run).join().unwrap() {
        return;
    }
    let this = std::env::current_exe().unwrap();
    let name = format!("source::addresses::tests::namespace::{name}");
    let mut again = Command::new("unshare");
    again.arg("-rn").arg(this).args(["--exact", &name, "--nocapture"]).env(INSIDE, "1");
    assert!(again.status().unwrap().success(), "{name} failed in its namespace");
}

/// Runs `ip` with these arguments; they may be several commands, a line each.
fn ip(commands: &str) {
    let mut child = Command::new("ip").args(["-batch", "-"]).stdin(Stdio::piped()).spawn().unwrap();
    writeln!(child.stdin.take().unwrap(), "{commands}").unwrap();
    assert!(child.wait().unwrap().success(), "ip: {commands}");
}

/// A follower at work.
struct Following {
    lists: mpsc::UnboundedReceiver<Box<[LocalAddress]>>,
    _task: JoinSet<()>,
}

impl Following {
    fn start() -> Self {
        let (tx, lists) = mpsc::unbounded_channel();
        let mut task = JoinSet::new();
        task.spawn(follow(Box::new(move |updates| {
            updates.into_iter().all(|update| match update {
                Update::LocalAddresses(list) => tx.send(list).is_ok(),
                other => panic!("{other:?}"),
            })
        })));
        Self { lists, _task: task }
    }

    /// Waits until the list is this one.
    async fn becomes(&mut self, expected: &[Row]) {
        let expected = list(expected);
        let mut seen = Vec::new();
        while let Ok(Some(got)) = timeout(Duration::from_secs(8), self.lists.recv()).await {
            if got == expected {
                return;
            }
            seen.push(got);
        }
        panic!("never became {expected:?}, only {seen:?}");
    }

    /// The next list is this one.
    async fn next_is(&mut self, expected: &[Row]) {
        let got = timeout(Duration::from_secs(8), self.lists.recv()).await.unwrap().unwrap();
        assert_eq!(got, list(expected));
    }
}

#[test]
fn a_namespace_without_anything_has_no_addresses() {
    in_namespace("a_namespace_without_anything_has_no_addresses", async || {
        assert_eq!(initial().await.unwrap(), Update::LocalAddresses(list(&[])));
        ip("address add 10.7.0.1/32 dev lo");
        assert_eq!(initial().await.unwrap(), Update::LocalAddresses(list(&[])));
    });
}

#[test]
fn addresses_and_default_routes_come_and_go() {
    in_namespace("addresses_and_default_routes_come_and_go", async || {
        ip("link add uplink type bridge
            link add other type bridge
            link set uplink up
            link set other up
            address add 10.0.0.5/24 dev uplink
            route add default via 10.0.0.1");
        assert_eq!(initial().await.unwrap(), Update::LocalAddresses(list(&[("10.0.0.5", true)])));
        let mut node = Following::start();
        node.next_is(&[("10.0.0.5", true)]).await;

        ip("address add 10.1.0.5/24 dev other");
        node.next_is(&[("10.0.0.5", true), ("10.1.0.5", false)]).await;
        ip("route add default via 10.1.0.1 metric 5");
        node.next_is(&[("10.0.0.5", true), ("10.1.0.5", true)]).await;
        ip("route del default via 10.0.0.1");
        node.next_is(&[("10.0.0.5", false), ("10.1.0.5", true)]).await;
        // in another table it is none
        ip("route add default via 10.0.0.1 table 100
            address add 10.0.0.6/24 dev uplink");
        node.next_is(&[("10.0.0.5", false), ("10.0.0.6", false), ("10.1.0.5", true)]).await;
        // several next hops
        ip("address del 10.0.0.6/24 dev uplink
            route replace default metric 5 nexthop via 10.0.0.1 nexthop via 10.1.0.1");
        node.becomes(&[("10.0.0.5", true), ("10.1.0.5", true)]).await;
        // the addresses go with their interface, its next hop too
        ip("link del uplink");
        node.becomes(&[("10.1.0.5", true)]).await;
    });
}

#[test]
fn routes_that_the_kernel_drops_without_a_word_are_noticed() {
    in_namespace("routes_that_the_kernel_drops_without_a_word_are_noticed", async || {
        ip("link add uplink type bridge
            link set uplink up
            address add 10.0.0.5/24 dev uplink
            address add 10.2.0.5/32 dev lo
            route add default via 10.0.0.1");
        let mut node = Following::start();
        node.next_is(&[("10.0.0.5", true)]).await;
        ip("link set uplink down");
        node.next_is(&[("10.0.0.5", false)]).await;
        ip("link set uplink up
            route add default via 10.0.0.1 src 10.2.0.5");
        node.next_is(&[("10.0.0.5", true)]).await;
        ip("address del 10.2.0.5/32 dev lo");
        node.next_is(&[("10.0.0.5", false)]).await;
    });
}

#[test]
fn ipv6_addresses_count_once_detection_is_over() {
    in_namespace("ipv6_addresses_count_once_detection_is_over", async || {
        ip("link add uplink type veth peer name far
            link set uplink up
            link set far up");
        let mut node = Following::start();
        node.next_is(&[]).await;
        ip("address add fd00::5/64 dev uplink");
        assert_eq!(initial().await.unwrap(), Update::LocalAddresses(list(&[])), "tentative");
        node.next_is(&[("fd00::5", false)]).await;
        ip("address add fd00::6/64 dev uplink nodad preferred_lft 0
            route add default via fd00::1 dev uplink");
        node.becomes(&[("fd00::5", true), ("fd00::6", true)]).await;
        ip("link set uplink down");
        node.becomes(&[]).await;
    });
}

#[test]
fn works_where_ipv6_is_off() {
    in_namespace("works_where_ipv6_is_off", async || {
        for scope in ["all", "default"] {
            std::fs::write(format!("/proc/sys/net/ipv6/conf/{scope}/disable_ipv6"), "1").unwrap();
        }
        ip("link add uplink type bridge
            link set uplink up");
        let mut node = Following::start();
        node.next_is(&[]).await;
        ip("address add 10.0.0.5/24 dev uplink
            route add default dev uplink");
        node.becomes(&[("10.0.0.5", true)]).await;
    });
}

#[test]
fn lost_notifications_lead_to_a_new_reading() {
    in_namespace("lost_notifications_lead_to_a_new_reading", async || {
        ip("link add many type bridge
            link set many up");
        let mut notifications = Notifications::subscribe().unwrap();
        let mut node = Following::start();
        node.next_is(&[]).await;
        // This blocks the runtime, so nobody reads what the socket's buffer cannot hold.
        let mut commands = String::new();
        for n in 0..4000 {
            writeln!(commands, "address add 10.4.{}.{}/32 dev many", n / 250, n % 250).unwrap();
        }
        ip(&commands);
        let got = timeout(Duration::from_secs(8), node.lists.recv()).await.unwrap().unwrap();
        assert_eq!(got.len(), 4000, "one list for all of them");
        // the buffer really was too small
        while notifications.next(&BTreeSet::new()).await.unwrap() != Stale::EVERYTHING {}
        // and the follower goes on
        ip("address del 10.4.0.0/32 dev many");
        let got = timeout(Duration::from_secs(8), node.lists.recv()).await.unwrap().unwrap();
        assert_eq!(got.len(), 3999);
    });
}

#[test]
fn the_kernel_filters_out_notifications_about_other_routes() {
    in_namespace("the_kernel_filters_out_notifications_about_other_routes", async || {
        ip("link add uplink type bridge
            link set uplink up
            address add 10.0.0.5/24 dev uplink");
        let mut notifications = Notifications::subscribe().unwrap();
        let mut commands = String::new();
        for n in 0..5000 {
            writeln!(commands, "route add 10.{}.{}.0/24 via 10.0.0.1", 16 + n / 250, n % 250).unwrap();
        }
        ip(&commands);
        ip("route add default via 10.0.0.1");
        let mut kernel = Kernel::open().unwrap();
        let routes = kernel.default_routes().await.unwrap();
        assert_eq!(routes.len(), 1);
        let first = timeout(Duration::from_secs(8), notifications.next(&routes)).await.unwrap().unwrap();
        assert_eq!(first, Stale { addresses: false, routes: true });
        let more = timeout(Duration::from_millis(50), notifications.next(&routes)).await;
        assert!(more.is_err(), "{more:?}");
    });
}

#[test]
fn a_burst_is_told_once() {
    in_namespace("a_burst_is_told_once", async || {
        ip("link add uplink type bridge
            link set uplink up");
        let mut node = Following::start();
        node.next_is(&[]).await;
        ip("address add 10.0.0.5/24 dev uplink
            address add 10.0.0.6/24 dev uplink
            address add 10.0.0.7/24 dev uplink
            address del 10.0.0.6/24 dev uplink");
        node.next_is(&[("10.0.0.5", false), ("10.0.0.7", false)]).await;
        // a change that leaves the list as it is says nothing
        ip("address add 10.9.0.1/32 dev lo
            link add pod type bridge");
        assert!(timeout(Duration::from_millis(400), node.lists.recv()).await.is_err());
    });
}
