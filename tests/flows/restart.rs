//! The daemon ends and comes back; its rules stay, and are found again.

use super::{on_port, web, web_slice};
use crate::netns::nft::{loadable, nft_ok};
use crate::netns::prelude::*;

cases![
    nothing_written_by_a_restart,
    rules_outlive_kill,
    changes_while_it_was_away,
    listing_loads_again,
    dry_run_beside_a_running_one,
];

/// A bit of everything.
fn objects() -> Vec<Objects> {
    let rich =
        service("shop/web").cluster(80).port("http", 80).node_port(30080).udp("dns", 53).node_port(30053);
    vec![
        rich.sctp("signal", 90).external_ip(Public(7)).load_balancer(Public(8)).into(),
        web_slice([Pod1, Pod2, Remote1]).into(),
        service("shop/empty").cluster(81).port("http", 80).node_port(30081).into(),
        service("shop/local").cluster(82).port("http", 80).into(),
        slice("shop/local").port("http", 8081).ready([Pod2]).into(),
    ]
}

fn flows() -> Vec<Flow> {
    let all = on_port([Pod1, Pod2, Remote1]);
    vec![
        from(Pod3).tcp(Cluster(80), 80).reaches(all).kept(),
        from(Client).udp(Cluster(80), 53).reaches(all).rewritten(),
        from(Client).tcp(Node, 30080).reaches(all).rewritten(),
        from(Node).tcp(Public(7), 80).reaches(all).rewritten(),
        from(Client).sctp(Public(8), 90).reaches(all).rewritten(),
        from(Client).tcp(Cluster(81), 80).rejected(),
        from(Pod3).udp(Node, 30081).untouched(),
        from(Client).tcp(Node, 30081).rejected(),
        from(Pod2).tcp(Cluster(82), 80).reaches([(Pod2, 8081)]).rewritten(),
        from(Pod3).tcp(Cluster(200), 80).dropped(),
    ]
}

/// Taking over an owned table shows as one `add table` in each family.
pub(super) fn assert_nothing_written(mut lines: Vec<String>) {
    lines.retain(|line| *line != "add table ip shunt" && *line != "add table ip6 shunt");
    let count = lines.len();
    lines.truncate(30);
    assert!(count == 0, "{count} lines written:\n{}", lines.join("\n"));
}

fn nothing_written_by_a_restart(lab: &mut Lab) {
    lab.apply(&objects());
    lab.start(&config(&json!({})));
    let mut monitor = lab.monitor();
    for _ in 0..2 {
        let status = lab.stop();
        assert!(status.success(), "SIGTERM ends it with {status}");
        lab.check(&flows());
        lab.start_again();
        assert_nothing_written(lab.writes(&mut monitor));
    }
    lab.check(&flows());
}

fn rules_outlive_kill(lab: &mut Lab) {
    lab.apply(&objects());
    lab.start(&config(&json!({})));
    let mut monitor = lab.monitor();
    lab.kill();
    lab.check(&flows());
    lab.start_again();
    lab.check(&flows());
    assert_nothing_written(lab.writes(&mut monitor));
}

fn changes_while_it_was_away(lab: &mut Lab) {
    lab.apply(&objects());
    lab.start(&config(&json!({})));
    lab.stop();
    lab.apply(&[
        web().into(),
        web_slice([Remote2]).into(),
        service("shop/new").cluster(83).port("http", 80).node_port(30083).into(),
        slice("shop/new").port("http", 8081).ready([Pod1]).into(),
    ]);
    lab.start_again();
    lab.check(&[
        from(Pod3).tcp(Cluster(80), 80).reaches(on_port([Remote2])).kept(),
        from(Client).tcp(Node, 30080).untouched(),
        from(Client).tcp(Node, 30083).reaches([(Pod1, 8081)]).rewritten(),
        from(Pod3).tcp(Cluster(83), 80).reaches([(Pod1, 8081)]).kept(),
        from(Pod3).tcp(Cluster(81), 80).dropped(),
        from(Pod3).tcp(Cluster(82), 80).dropped(),
    ]);
}

/// What `nft list ruleset` prints is the whole truth: loaded elsewhere it lists the same, and loaded on the node
/// instead of ours it works the same.
fn listing_loads_again(lab: &mut Lab) {
    lab.apply(&objects());
    lab.start(&config(&json!({})));
    let loadable = loadable(&lab.list_ruleset());
    assert!(loadable.contains("table ip shunt") && loadable.contains("table ip6 shunt"), "{loadable}");
    lab.load_ruleset(Ns::Pod3, &loadable);
    let again = nft_ok(&lab.topology, Ns::Pod3, &["list", "ruleset"], "");
    // What is cut out of the listing leaves its blank line behind.
    let lines =
        |text: &str| text.lines().filter(|line| !line.is_empty()).map(str::to_owned).collect::<Vec<_>>();
    assert_eq!(lines(&again), lines(&loadable));
    nft_ok(&lab.topology, Ns::Pod3, &["flush", "ruleset"], "");
    lab.kill();
    lab.load_ruleset(Ns::Node, &format!("delete table ip shunt\ndelete table ip6 shunt\n{loadable}"));
    lab.check(&flows());
}

/// A dry run compares with what the running one has programmed.
fn dry_run_beside_a_running_one(lab: &mut Lab) {
    lab.apply(&objects());
    lab.start(&config(&json!({})));
    let beside = |lab: &Lab| {
        let (manifests, config) =
            (lab.log_file().with_file_name("manifests"), lab.log_file().with_file_name("config.yaml"));
        let mut command = std::process::Command::new(crate::netns::daemon::program());
        command.args(["run", "--dry-run", "--node-name", "node-a", "--manifests"]).arg(manifests);
        command.arg("--config").arg(config);
        let output = lab.topology.enter(Ns::Node, || command.output()).expect("shunt");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
        text
    };
    let plan = beside(lab);
    assert_eq!(plan.lines().collect::<Vec<_>>(), ["IPv4: 0 changes", "IPv6: 0 changes"]);
    lab.check(&flows());
}
