//! Others change what is programmed, by hand or with their tools.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::{everywhere, external_rows, on, on_port, web_slice};
use crate::netns::flow::Flow;
use crate::netns::nft::nft_ok;
use crate::netns::prelude::*;
use crate::netns::probe::{self, Outcome, Patience};

cases![
    damage_is_mended,
    only_what_is_missing_is_written,
    others_are_left_alone,
    protected_tables_are_passed_by,
    a_stranger_under_our_name,
    again_and_again_with_many_services,
];

/// Long enough for a machine with much else to do; how long it took is printed.
const PATIENCE: Duration = Duration::from_secs(10);

fn objects() -> Vec<Objects> {
    vec![
        everywhere().into(),
        web_slice([Pod1, Pod2, Remote1]).into(),
        service("shop/empty").cluster(81).port("http", 80).into(),
        service("shop/sticky").cluster(82).port("http", 80).sticky(600).into(),
        slice("shop/sticky").port("http", 8081).ready([Remote2]).into(),
    ]
}

fn flows() -> Vec<Flow> {
    let all = on_port([Pod1, Pod2, Remote1]);
    let mut flows = on(Pod3, Cluster(80), |probe| probe.reaches(all).kept());
    flows.extend(external_rows(Client, |probe| probe.reaches(all).rewritten()));
    flows.push(from(Client).tcp(Cluster(81), 80).rejected());
    flows.push(from(Pod3).tcp(Cluster(82), 80).reaches([(Remote2, 8081)]).kept());
    flows
}

/// A daemon whose tables are open to everybody.
fn start_open(lab: &mut Lab) {
    lab.flags.push("--open-tables");
    lab.apply(&objects());
    lab.start(&config(&json!({})));
}

/// What stands in our tables, without an order. Who is remembered by affinity changes by itself.
pub(super) fn content(lab: &Lab) -> Vec<String> {
    let listing = lab.list_ruleset();
    let mut lines = Vec::new();
    let mut chain = "";
    for line in listing.lines().map(str::trim).filter(|line| !["", "}"].contains(line)) {
        if line.ends_with('{') {
            chain = line;
        }
        if !line.contains(" expires ") && !line.starts_with("counter ") {
            lines.push(format!(
                "{chain} {}",
                line.trim_start_matches("elements = { ").trim_end_matches([',', '}', ' '])
            ));
        }
    }
    let sentinel = BOTH.map(|family| Name::Sentinel.ip(family).to_string());
    lines.retain(|line| !line.contains("packets") && !sentinel.iter().any(|ip| line.contains(ip)));
    lines.sort();
    lines
}

/// Waits until the tables are as they were; how long that took.
fn mended(lab: &Lab, before: &[String], what: &str) -> Duration {
    let start = Instant::now();
    loop {
        let now = content(lab);
        if now == before {
            return start.elapsed();
        }
        if start.elapsed() > PATIENCE {
            let lost: Vec<_> = before.iter().filter(|line| !now.contains(line)).take(10).collect();
            let new: Vec<_> = now.iter().filter(|line| !before.contains(line)).take(10).collect();
            panic!("{what}: not mended; missing {lost:#?}, too many {new:#?}");
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// `shunt_drift_repaired_total`, by family.
fn repaired(lab: &Lab) -> BTreeMap<String, u32> {
    let at = "127.0.0.1:10249".parse().unwrap();
    let answer = super::health::get(lab, Ns::Node, at, "/metrics").expect("metrics");
    let lines =
        answer.lines().filter_map(|line| line.strip_prefix("shunt_drift_repaired_total{ip_family=\""));
    let counts = lines.filter_map(|line| line.split_once("\"} "));
    counts.map(|(k, v)| (k.into(), v.parse().unwrap())).filter(|(_, count)| *count > 0).collect()
}

/// Everything that nft can do to our tables, in both families.
fn damage_is_mended(lab: &mut Lab) {
    start_open(lab);
    let before = content(lab);
    let endpoint = "10.96.0.80 . tcp . 80 . 1";
    let replaced = format!(
        "delete element ip shunt endpoints {{ {endpoint} }}\n\
         add element ip shunt endpoints {{ {endpoint} : 10.244.9.9 . 99 }}"
    );
    let with_another_table = format!("add table ip zoo\nadd chain ip zoo c\n{replaced}\ndelete table ip zoo");
    let deleted = format!("delete element ip shunt endpoints {{ {endpoint} }}");
    let table = [
        ("everything", "flush ruleset"),
        ("both tables", "delete table ip shunt\ndelete table ip6 shunt"),
        ("the rules of a table", "flush table ip shunt"),
        ("a base chain", "delete chain ip shunt nat-prerouting\ndelete chain ip6 shunt nat-output"),
        ("the rules of a chain", "flush chain ip shunt nat-prerouting\nflush chain ip6 shunt pick-1"),
        ("a map", "flush map ip shunt services\nflush map ip6 shunt nodeports"),
        ("an element", &deleted),
        ("an element, and nothing to count", &replaced),
        ("the same behind changes of another table", &with_another_table),
        (
            "a rule of theirs",
            "insert rule ip shunt nat-output drop\nadd rule ip6 shunt no-endpoints-verdict accept",
        ),
        (
            "a chain of theirs",
            "add chain ip shunt theirs\nadd rule ip shunt theirs drop\nadd rule ip shunt refuse jump theirs",
        ),
        ("a base chain of theirs", "add chain ip shunt theirs { type filter hook forward priority 0; }"),
        (
            "a set of theirs",
            "add set ip shunt theirs { type ipv4_addr; }\nadd rule ip shunt refuse ip saddr @theirs drop",
        ),
        (
            "an element to a chain of theirs",
            "add chain ip shunt theirs\nadd element ip shunt services { 10.96.7.7 . tcp . 80 : goto theirs }",
        ),
        ("an element that drops", "add element ip shunt services { 10.96.7.7 . tcp . 80 : drop }"),
        (
            "plain elements",
            "add element ip shunt hairpin { 9.9.9.9 . 9.9.9.9 }\nadd element ip shunt cluster-ips { 9.9.9.9 }\nadd element ip6 shunt service-cidrs { fd99::/64 }",
        ),
        ("memory", "delete element ip shunt remember-tcp { 10.96.0.82 . 80 }"),
        ("source ranges", "add element ip shunt allowed-sources-tcp { 10.96.0.80 . 80 . 9.0.0.0/8 }"),
    ];
    for (what, commands) in table {
        lab.load_ruleset(Ns::Node, commands);
        println!("{what}: {:?}", mended(lab, &before, what));
    }
    lab.check(&flows());
    let log = std::fs::read_to_string(lab.log_file()).unwrap();
    for said in ["table ip shunt deleted by nft (process ", "chain nat-prerouting deleted", "put right with"]
    {
        assert!(log.contains(said), "{said}");
    }
}

/// The size of a repair, and that it is counted and told once.
fn only_what_is_missing_is_written(lab: &mut Lab) {
    start_open(lab);
    let before = content(lab);
    let mut monitor = lab.monitor();
    let endpoint = "10.96.0.80 . tcp . 80 . 1";
    for (what, commands, theirs, ours) in [
        ("an element", format!("delete element ip shunt endpoints {{ {endpoint} }}"), 1, 1),
        ("a rule", "add rule ip shunt refuse drop".to_owned(), 1, 6),
        ("an element too many", "add element ip6 shunt hairpin { fd99::1 . fd99::1 }".to_owned(), 1, 1),
    ] {
        lab.load_ruleset(Ns::Node, &commands);
        mended(lab, &before, what);
        let lines = lab.writes(&mut monitor);
        assert!((2..=theirs + ours).contains(&lines.len()), "{what}: {lines:#?}");
    }
    // what is mended has to be told as well
    let deadline = Instant::now() + PATIENCE;
    let expected = BTreeMap::from([("IPv4".to_owned(), 2), ("IPv6".to_owned(), 1)]);
    while repaired(lab) != expected {
        assert!(Instant::now() < deadline, "{:?}", repaired(lab));
    }
    let log = std::fs::read_to_string(lab.log_file()).unwrap();
    assert_eq!(log.matches("somebody else has changed").count(), 3, "{log}");
    lab.check(&flows());
}

/// A firewall at work in its own tables is none of our business, and does not make us read everything.
fn others_are_left_alone(lab: &mut Lab) {
    start_open(lab);
    lab.load_ruleset(Ns::Node, "add table ip firewall\nadd set ip firewall bad { type ipv4_addr; }");
    for n in 0..300 {
        let command = format!("add element ip firewall bad {{ 9.9.{}.{} }}", n / 250, n % 250);
        lab.load_ruleset(Ns::Node, &command);
    }
    lab.load_ruleset(Ns::Node, "delete table ip firewall\nadd table inet other");
    std::thread::sleep(Duration::from_millis(500));
    assert_eq!(repaired(lab), BTreeMap::new());
    assert!(lab.list_ruleset().contains("table inet other"));
}

/// Where the kernel can, it keeps others from our tables.
fn protected_tables_are_passed_by(lab: &mut Lab) {
    lab.apply(&objects());
    lab.start(&config(&json!({})));
    if !lab.list_ruleset().contains("flags owner") {
        println!("this kernel does not protect tables");
        return;
    }
    for again in [false, true] {
        if again {
            // a table that was taken over is no less protected
            lab.kill();
            lab.start_again();
        }
        let before = content(lab);
        lab.load_ruleset(Ns::Node, "add table ip foreign\nflush ruleset");
        for command in [
            "delete table ip shunt",
            "flush chain ip6 shunt nat-prerouting",
            "add element ip shunt hairpin { 9.9.9.9 . 9.9.9.9 }",
        ] {
            let output = crate::netns::nft::nft(&lab.topology, Ns::Node, &["-f", "-"], command);
            assert!(!output.status.success(), "{command}");
        }
        std::thread::sleep(Duration::from_millis(500));
        assert_eq!(content(lab), before);
        assert_eq!(repaired(lab), BTreeMap::new(), "that is no drift");
        lab.check(&flows());
    }
}

/// A table of our name that is not ours is never deleted, neither by a start nor by cleanup.
fn a_stranger_under_our_name(lab: &mut Lab) {
    lab.load_ruleset(Ns::Node, "add table ip shunt\nadd chain ip shunt mine\nadd rule ip shunt mine accept");
    let before = content(lab);
    lab.apply(&objects());
    let dir = lab.log_file().with_file_name("manifests");
    for arguments in [
        vec!["run".into(), "--manifests".into(), dir.into_os_string(), "--node-name".into(), "node-a".into()],
        vec!["cleanup".into()],
    ] {
        let mut command = std::process::Command::new(crate::netns::daemon::program());
        let output = lab.topology.enter(Ns::Node, || command.args(&arguments).output()).expect("shunt");
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(7), "{arguments:?}: {said}");
        assert!(said.contains("table ip shunt that shunt has not made (it has no comment)"), "{said}");
        assert_eq!(content(lab), before, "{arguments:?}");
    }
    nft_ok(&lab.topology, Ns::Node, &["delete", "table", "ip", "shunt"], "");
    lab.start(&config(&json!({})));
    lab.check(&flows());
}

/// So many Services stand beside the one that is called.
const MANY: u16 = 2000;

pub(super) fn many() -> Objects {
    let items = (0..MANY).flat_map(|n| {
        let name = format!("many/service-{n}");
        let [high, low] = (256 + n).to_be_bytes();
        let ips = json!([format!("10.96.{high}.{low}"), format!("fd00:10:96::{:x}", 0x1000 + n)]);
        let service = service(&name)
            .cluster(1)
            .port("http", 80)
            .spec(&json!({ "clusterIP": ips[0], "clusterIPs": ips }));
        let slice = slice(&name).port("http", 8080).ready([Pod1, Pod2, Remote1, Remote2, Remote3]);
        Objects::from(service).0.into_iter().chain(Objects::from(slice).0)
    });
    let items: Vec<_> = items.collect();
    Objects(vec![
        json!({ "apiVersion": "v1", "kind": "List", "metadata": { "name": "many" }, "items": items }),
    ])
}

/// Fifteen times everything, or a part that nothing works without: connections come back each time.
fn again_and_again_with_many_services(lab: &mut Lab) {
    lab.flags.push("--open-tables");
    lab.apply(&[objects(), vec![many()]].concat());
    lab.start(&config(&json!({})));
    let before = content(lab);
    let (open, endpoint) = lab.connect(Client, Cluster(80), 80, Family::V4);
    let mut open = open;
    let mut longest = Duration::ZERO;
    let damages = [
        "flush ruleset",
        "delete table ip shunt\ndelete table ip6 shunt",
        "flush chain ip shunt nat-prerouting\nflush chain ip6 shunt nat-prerouting",
    ];
    for damage in damages.into_iter().cycle().take(15) {
        lab.load_ruleset(Ns::Node, damage);
        let start = Instant::now();
        for family in BOTH {
            while !answered(lab, family) {
                assert!(start.elapsed() < PATIENCE, "{damage}: no new connection in {family:?}");
            }
        }
        longest = longest.max(start.elapsed());
    }
    println!("connections worked again after {longest:?} at most");
    mended(lab, &before, "in the end");
    let answer = open.ask().expect("what was open lives on");
    assert_eq!(answer.endpoint, endpoint.0.at(endpoint.1, Family::V4));
    lab.check(&flows());
}

fn answered(lab: &Lab, family: Family) -> bool {
    let patience = Patience { wait: Duration::from_millis(50), tries: 1 };
    let (source, to) = (Client.ip(family), Cluster(80).at(80, family));
    let outcome = lab.topology.enter(Ns::Client, || probe::tcp(Some(source), to, &lab.ports, patience));
    matches!(outcome, Outcome::Answered(answer) if answer.endpoint.port() == 8080)
}
