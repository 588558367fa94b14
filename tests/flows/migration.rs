//! From kube-proxy to shunt on a node where connections keep coming.

use std::ffi::OsStr;
use std::io::Write;
use std::process::{Command, Output, Stdio};

use super::churn::{assert_undisturbed, hammers};
use super::{on_port, web, web_slice};
use crate::netns::prelude::*;

cases![leftovers_of_kube_proxy];

/// A little of what kube-proxy has in iptables mode, beside chains of the kubelet and of a CNI plugin. It leads
/// nowhere, so that the packets tell who is at work.
const RULES: &str = r#"*filter
:INPUT ACCEPT [0:0]
:FORWARD ACCEPT [0:0]
:KUBE-FIREWALL - [0:0]
:KUBE-FORWARD - [0:0]
-A INPUT -j KUBE-FIREWALL
-A FORWARD -m comment --comment "kubernetes forwarding rules" -j KUBE-FORWARD
-A KUBE-FORWARD -s 192.0.2.9/32 -j DROP
COMMIT
*nat
:PREROUTING ACCEPT [0:0]
:CNI-DN-abc - [0:0]
:KUBE-MARK-MASQ - [0:0]
:KUBE-SERVICES - [0:0]
:KUBE-SVC-BBBB - [0:0]
-A PREROUTING -m comment --comment "kubernetes service portals" -j KUBE-SERVICES
-A CNI-DN-abc -s 192.0.2.9/32 -j KUBE-MARK-MASQ
-A KUBE-MARK-MASQ -j RETURN
-A KUBE-SERVICES -d 192.0.2.9/32 -m comment --comment "shop/web:http" -j KUBE-SVC-BBBB
-A KUBE-SVC-BBBB -j RETURN
COMMIT
"#;

fn on_node(lab: &Lab, program: impl AsRef<OsStr>, arguments: &[&str], input: &str) -> Output {
    let program = program.as_ref();
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = lab
        .topology
        .enter(Ns::Node, || command.spawn())
        .unwrap_or_else(|e| panic!("{}: {e}", program.display()));
    child.stdin.take().expect("a pipe").write_all(input.as_bytes()).expect("writing");
    child.wait_with_output().expect("an end")
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

fn leftovers_of_kube_proxy(lab: &mut Lab) {
    if Command::new("iptables-nft-restore").arg("--version").output().is_err() {
        println!("iptables is not installed here (scripts/test installs it): left out");
        return;
    }
    for restore in ["iptables-nft-restore", "ip6tables-nft-restore"] {
        // the same rules in both families, but for the addresses
        let rules = if restore.starts_with("ip6") {
            RULES.replace("192.0.2.9/32", "2001:db8:9::9/128")
        } else {
            RULES.into()
        };
        let output = on_node(lab, restore, &[], &rules);
        assert!(output.status.success(), "{restore}: {}", said(&output));
    }
    lab.load_ruleset(Ns::Node, "add table ip kube-proxy\nadd table ip6 kube-proxy\nadd table ip kube-router");
    let output =
        on_node(lab, "ip", &["link", "add", "kube-ipvs0", "type", "veth", "peer", "name", "ipvs-peer"], "");
    assert!(output.status.success(), "{}", said(&output));
    lab.apply(&[web().into(), web_slice([Pod1, Remote1]).into()]);
    lab.start(&config(&json!({})));
    let log = std::fs::read_to_string(lab.log_file()).unwrap();
    let found =
        "nftables table ip kube-proxy, chain KUBE-SERVICES in table ip nat, nftables table ip6 kube-proxy";
    assert_eq!(log.matches("kube-proxy's rules are on this node").count(), 1, "{log}");
    assert!(log.contains(found), "{log}");

    let hammers = hammers(lab);
    let ours = super::drift::content(lab);
    let shunt = &crate::netns::daemon::program();
    let first = on_node(lab, shunt, &["cleanup", "--kube-proxy"], "");
    for line in [
        "removed nftables table ip kube-proxy",
        "removed nftables table ip6 kube-proxy",
        "removed 3 iptables chains (iptables-nft-restore)",
        "removed 3 iptables chains (ip6tables-nft-restore)",
        "removed interface kube-ipvs0",
        "left iptables chain nat KUBE-MARK-MASQ (iptables-nft-save): CNI-DN-abc leads to it",
    ] {
        assert!(said(&first).contains(line), "{line} in {}", said(&first));
    }
    assert!(first.status.success(), "{}", said(&first));
    let again = on_node(lab, shunt, &["cleanup", "--kube-proxy"], "");
    assert!(again.status.success() && !said(&again).contains("removed"), "{}", said(&again));
    assert_undisturbed(hammers, &on_port([Pod1, Remote1]));

    let left = super::drift::content(lab);
    for name in ["KUBE-SERVICES", "KUBE-SVC-", "KUBE-FORWARD", "kube-proxy"] {
        assert!(!left.iter().any(|line| line.contains(name)), "{name}");
    }
    for name in ["KUBE-FIREWALL", "KUBE-MARK-MASQ", "CNI-DN-abc", "kube-router", "table ip shunt"] {
        assert!(left.iter().any(|line| line.contains(name)), "{name}");
    }
    let lost: Vec<_> = ours.iter().filter(|line| !left.contains(line)).collect();
    assert!(lost.iter().all(|line| line.contains("KUBE") || line.contains("kube-proxy")), "{lost:#?}");
}
