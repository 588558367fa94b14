//! What only the userspace mode has to show: what it leaves behind, what it does without privileges, and when it is
//! chosen. The tables that it shares with nftables are named in `mod.rs`.

use std::process::Command;

use super::churn::{assert_undisturbed, hammers};
use super::reload::{AFRESH, assert_nothing_but_the_sentinel};
use super::restart::assert_nothing_written;
use super::{PORT, on_port, web_slice};
use crate::netns::daemon::program;
use crate::netns::prelude::*;

cases![
    killed_and_restarted,
    cleanup_leaves_nothing,
    cleanup_goes_on,
    without_privileges,
    addresses_that_somebody_else_made_local,
    without_any_privilege,
    a_port_that_another_program_has,
    endpoints_that_refuse_are_not_noticed,
    auto_takes_nftables,
    auto_stays_with_nftables,
    auto_falls_back,
    takes_over_from_nftables,
];

/// Takes the right to change the network from whatever it starts.
const POWERLESS: [&str; 3] = ["setpriv", "--bounding-set=-net_admin", "--"];

/// What a program on the node prints.
fn on_node(lab: &Lab, words: &[&str]) -> String {
    let mut command = Command::new(words[0]);
    command.args(&words[1..]);
    let output = lab.topology.enter(Ns::Node, || command.output()).expect("a program");
    assert!(output.status.success(), "{words:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("text")
}

/// Our routes in both families, sorted.
fn routes(lab: &Lab) -> Vec<String> {
    let list = |family| on_node(lab, &["ip", family, "route", "show", "table", "local", "proto", "115"]);
    let mut routes: Vec<String> = [list("-4"), list("-6")]
        .concat()
        .lines()
        .map(|line| line.split_whitespace().take(2).collect::<Vec<_>>().join(" "))
        .collect();
    routes.sort();
    routes
}

fn reached() -> Vec<Flow> {
    let both = on_port([Pod1, Remote1]);
    vec![
        from(Pod3).tcp(Cluster(80), 80).reaches(both),
        from(Client).udp(Cluster(80), 53).reaches(both),
        from(Client).tcp(Node, 30080).reaches(both),
    ]
}

fn web_objects() -> [Objects; 2] {
    let service = service("shop/web").cluster(80).port("http", 80).node_port(30080).udp("dns", 53);
    [service.into(), web_slice([Pod1, Remote1]).into()]
}

/// What is wanted is taken over, what is not goes.
fn killed_and_restarted(lab: &mut Lab) {
    lab.apply(&web_objects());
    lab.start(&config(&json!({})));
    lab.check(&reached());
    let before = routes(lab);
    for family in BOTH {
        let route = format!("local {}", Cluster(80).ip(family));
        assert!(before.contains(&route), "{route} is not in {before:?}");
    }
    lab.kill();
    assert_eq!(routes(lab), before, "routes outlive it");
    lab.check(&[from(Pod3).tcp(Cluster(80), 80).rejected(), from(Client).udp(Cluster(80), 53).rejected()]);
    lab.start_again();
    assert_eq!(routes(lab), before);
    lab.check(&reached());
    lab.kill();
    lab.write_objects(&[]);
    lab.start_again();
    let after = routes(lab);
    assert_eq!(
        before.len() - after.len(),
        2,
        "the address of shop/web has gone, in both families: {after:?}"
    );
    lab.check(&[from(Client).tcp(Cluster(80), 80).dropped(), from(Client).tcp(Node, 30080).untouched()]);
}

fn cleanup_leaves_nothing(lab: &mut Lab) {
    lab.apply(&web_objects());
    lab.start(&config(&json!({})));
    assert!(lab.stop().success());
    assert!(!routes(lab).is_empty());
    let said = on_node(lab, &[program().to_str().expect("text"), "cleanup"]);
    assert!(said.contains("IPv4: removed") && said.contains("IPv6: removed"), "{said}");
    assert_eq!(routes(lab), [""; 0]);
    let said = on_node(lab, &[program().to_str().expect("text"), "cleanup"]);
    assert!(said.contains("IPv4: nothing") && said.contains("IPv6: nothing"), "{said}");
    lab.check(&[from(Client).tcp(Cluster(80), 80).untouched()]);
}

/// A table that is not ours stays, and keeps nothing else; what is wrong with it is said.
fn cleanup_goes_on(lab: &mut Lab) {
    lab.apply(&web_objects());
    lab.start(&config(&json!({})));
    assert!(lab.stop().success());
    lab.load_ruleset(Ns::Node, "add table ip shunt");
    assert!(!routes(lab).is_empty());
    let mut command = Command::new(program());
    let output = lab.topology.enter(Ns::Node, || command.arg("cleanup").output()).expect("shunt");
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert_eq!(output.status.code(), Some(7), "{err}");
    assert!(
        err.contains("IPv4: nothing of the nftables mode is removed: there is an nftables table"),
        "{err}"
    );
    assert!(out.contains("IPv4: removed") && out.contains("IPv6: removed"), "{out}");
    assert_eq!(routes(lab), [""; 0]);
    assert!(lab.list_ruleset().contains("table ip shunt"), "it is not ours");
}

/// NodePorts need no right; what does is named.
fn without_privileges(lab: &mut Lab) {
    lab.before = POWERLESS.to_vec();
    lab.apply(&web_objects());
    lab.start_until(&config(&json!({})), "programmed family=IPv6");
    let both = on_port([Pod1, Remote1]);
    lab.check(&[
        from(Client).tcp(Node, 30080).reaches(both),
        from(Node).tcp(Node, 30080).reaches(both),
        from(Pod3).tcp(Cluster(80), 80).untouched(),
    ]);
    let log = std::fs::read_to_string(lab.log_file()).expect("a log");
    let line =
        "Service shop/web: 10.96.0.80:80/tcp, 10.96.0.80:53/udp are not served: its address cannot be made";
    assert!(log.contains(line), "{log}");
    assert!(log.contains("give shunt CAP_NET_ADMIN"), "{log}");
    let metrics = on_node(lab, &["curl", "-s", "http://127.0.0.1:10249/metrics"]);
    let unserved = r#"shunt_userspace_unserved{namespace="shop",service="web",port="http",protocol="tcp"} 2"#;
    assert!(metrics.contains(unserved), "{metrics}");
    assert_eq!(on_node(lab, &["curl", "-s", "http://127.0.0.1:10249/proxyMode"]), "userspace");
    assert_eq!(routes(lab), [""; 0]);
}

/// A container that may not change the network may be given addresses by somebody who may.
fn addresses_that_somebody_else_made_local(lab: &mut Lab) {
    lab.topology.batch(
        Ns::Node,
        "route add local 10.96.0.0/16 dev lo\nroute add local fd00:10:96::/112 dev lo table local\n",
    );
    lab.before = POWERLESS.to_vec();
    lab.apply(&web_objects());
    lab.start(&config(&json!({})));
    lab.check(&reached());
    lab.check(&[from(Pod3).tcp(Cluster(80), 81).rejected(), from(Client).tcp(Cluster(80), 81).rejected()]);
}

/// Not one capability; whoever set the node up gives it addresses and ports while it runs.
fn without_any_privilege(lab: &mut Lab) {
    lab.before = vec!["setpriv", "--bounding-set=-all", "--inh-caps=-all", "--no-new-privs", "--"];
    lab.apply(&web_objects());
    lab.start_until(&config(&json!({})), "programmed family=IPv6");
    lab.check(&reached()[2..]);
    lab.topology.batch(
        Ns::Node,
        "route add local 10.96.0.0/16 dev lo\nroute add local fd00:10:96::/112 dev lo table local\n",
    );
    on_node(lab, &["sysctl", "-qw", "net.ipv4.ip_unprivileged_port_start=53"]);
    // tried again within 10 s
    for frontend in
        ["10.96.0.80:80/tcp", "10.96.0.80:53/udp", "[fd00:10:96::50]:80/tcp", "[fd00:10:96::50]:53/udp"]
    {
        lab.wait_until_said(&format!("{frontend} is served now"));
    }
    lab.check(&reached());
}

/// The kernel gives no one a port on one address while somebody has it on all.
fn a_port_that_another_program_has(lab: &mut Lab) {
    let listeners = ["0.0.0.0:80", "[::]:80"].map(|at| {
        let at: std::net::SocketAddr = at.parse().expect("an address");
        lab.topology.enter(Ns::Node, || {
            let socket = socket2::Socket::new(socket2::Domain::for_address(at), socket2::Type::STREAM, None);
            let socket = socket.expect("a socket");
            if at.is_ipv6() {
                socket.set_only_v6(true).expect("IPV6_V6ONLY");
            }
            socket.bind(&at.into()).and_then(|()| socket.listen(1)).expect("listening");
            socket
        })
    });
    lab.apply(&web_objects());
    lab.start(&config(&json!({})));
    let log = std::fs::read_to_string(lab.log_file()).expect("a log");
    let line = "Service shop/web: 10.96.0.80:80/tcp is not served: another program on this node listens on this port";
    assert!(log.contains(line), "{log}");
    lab.check(&reached()[1..]);
    drop(listeners);
    // the next change tries it again
    lab.apply(
        &[web_objects().to_vec(), vec![service("shop/other").cluster(81).port("http", 80).into()]].concat(),
    );
    lab.check(&reached());
}

/// Pods that are gone before anybody has said so: for as long as one endpoint answers, every client gets an answer.
fn endpoints_that_refuse_are_not_noticed(lab: &mut Lab) {
    let web = || service("shop/web").cluster(80).port("http", 80);
    let answers = |pods: &[Name]| slice("shop/web").port("http", PORT).ready(pods.iter().copied());
    // nobody listens on this port
    let refuses =
        |pods: &[Name]| slice("shop/web").suffix("gone").port("http", 9).ready(pods.iter().copied());
    lab.apply(&[web().into(), answers(&[Pod1, Remote1]).into()]);
    lab.start(&config(&json!({})));
    let hammers = hammers(lab);
    for (good, gone) in
        [(1, 1), (2, 4), (1, 3), (2, 0), (1, 4), (2, 1), (1, 0), (2, 3), (1, 2), (2, 4), (1, 1), (2, 2)]
    {
        let gone = &[Pod1, Pod2, Remote1, Remote2][..gone];
        lab.apply(&[web().into(), answers(&[Pod1, Remote1][..good]).into(), refuses(gone).into()]);
    }
    assert_undisturbed(hammers, &on_port([Pod1, Remote1]));
    let metrics = on_node(lab, &["curl", "-s", "http://127.0.0.1:10249/metrics"]);
    let number = |name: &str| {
        let start = format!("{name}{{namespace=\"shop\",service=\"web\",");
        let line = metrics.lines().find(|line| line.starts_with(&start)).expect("a metric");
        line.rsplit(' ').next().and_then(|value| value.parse::<u64>().ok()).expect("a number")
    };
    assert!(number("shunt_userspace_retries_total") > 0, "{metrics}");
    assert_eq!(number("shunt_userspace_failed_total"), 0, "{metrics}");
}

fn auto_takes_nftables(lab: &mut Lab) {
    lab.flags = vec!["--proxy-mode", "auto"];
    lab.apply(&web_objects());
    lab.start(&config(&json!({})));
    lab.wait_until_said("--proxy-mode auto: nftables, the kernel takes our rules");
    assert_eq!(routes(lab), [""; 0]);
    // the probe itself leaves nothing: two tables are what the mode makes
    assert_eq!(lab.list_ruleset().matches("table ip").count(), 2);
}

/// What stands under our name already, protected for whoever takes it over, says nothing about the kernel.
fn auto_stays_with_nftables(lab: &mut Lab) {
    let said = "--proxy-mode auto: nftables, the kernel takes our rules";
    lab.flags = vec!["--proxy-mode", "auto"];
    lab.apply(&web_objects());
    lab.start(&config(&json!({})));
    let mut monitor = lab.monitor();
    for end in [|lab: &mut Lab| assert!(lab.stop().success()), Lab::kill] {
        end(lab);
        lab.start_again();
        assert_nothing_written(lab.writes(&mut monitor));
    }
    // the program starts afresh within the same process
    lab.reconfigure_until(&config(&json!({ "logging": { "verbosity": 1 } })).to_string(), AFRESH);
    assert_nothing_but_the_sentinel(lab.writes(&mut monitor));
    let log = std::fs::read_to_string(lab.log_file()).expect("a log");
    assert_eq!((log.matches(said).count(), log.contains("auto: userspace")), (4, false), "{log}");
    // where a pod calls, the proxy would be the caller
    lab.check(&reached()[1..]);
    assert_eq!(lab.list_ruleset().matches("table ip").count(), 2);
    assert_eq!(routes(lab), [""; 0]);
}

fn auto_falls_back(lab: &mut Lab) {
    lab.flags = vec!["--proxy-mode", "auto"];
    lab.before = POWERLESS.to_vec();
    lab.apply(&web_objects());
    lab.start_until(&config(&json!({})), "programmed family=IPv6");
    lab.wait_until_said("--proxy-mode auto: userspace, since nftables cannot be used: no permission");
    lab.check(&[from(Client).tcp(Node, 30080).reaches(on_port([Pod1, Remote1]))]);
}

/// Rules of the other mode would go first.
fn takes_over_from_nftables(lab: &mut Lab) {
    lab.flags = vec!["--proxy-mode", "nftables"];
    lab.apply(&web_objects());
    lab.start(&config(&json!({})));
    assert!(lab.stop().success());
    lab.flags = Vec::new();
    lab.start_again();
    lab.wait_until_said("IPv6: removed what the nftables mode had programmed before");
    assert!(!lab.list_ruleset().contains("shunt"));
    lab.check(&reached());
    assert!(lab.stop().success());
    lab.flags = vec!["--proxy-mode", "nftables"];
    lab.start_again();
    lab.wait_until_said("IPv6: removed what the userspace mode had programmed before");
    assert_eq!(routes(lab), [""; 0]);
    // what was there served until there was something else
    let log = std::fs::read_to_string(lab.log_file()).expect("a log");
    let starts: Vec<&str> = log.split("INFO shunt: shunt ").collect();
    for (start, mode) in [(starts[2], "nftables"), (starts[3], "userspace")] {
        let removed = format!("IPv4: removed what the {mode} mode had programmed before");
        let (before, _) = start.split_once(&removed).expect("removed");
        for family in ["IPv4", "IPv6"] {
            assert!(before.contains(&format!("programmed family={family}")), "{start}");
        }
    }
}
