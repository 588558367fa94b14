//! What is shown of the effective configuration.

use std::path::Path;

use super::HEAD;
use crate::config::flags::{FLAGS, Given};
use crate::config::{Config, load, parse};

const FILE: &str = "mode: iptables
iptables: {masqueradeAll: true}
clusterCIDR: 10.244.0.0/16,fd00:10:244::/56
nodePortAddresses:
- 10.0.0.0/8
conntrack:
  min: 5
  udpTimeout: 1500ms
hostnameOverride: 'on'
";

#[test]
fn every_line_says_where_it_comes_from() {
    let flag = FLAGS.iter().find(|flag| flag.name == "--oom-score-adj").unwrap();
    let file = Path::new("/etc/proxy.yaml");
    let loaded = parse(&format!("{HEAD}{FILE}"), file, &[Given::flag(flag, "5")]).unwrap();
    let shown = loaded.to_yaml(Some(file));
    for line in [
        "apiVersion: kubeproxy.config.k8s.io/v1alpha1",
        "mode: nftables # /etc/proxy.yaml:3",
        "clusterCIDR: \"10.244.0.0/16,fd00:10:244::/56\" # /etc/proxy.yaml:5",
        "  masqueradeAll: true # /etc/proxy.yaml:4",
        "  masqueradeBit: 14 # default",
        "nodePortAddresses: # /etc/proxy.yaml:7",
        "- \"10.0.0.0/8\"",
        "conntrack:",
        "  min: 5 # /etc/proxy.yaml:9",
        "  udpTimeout: \"1.5s\" # /etc/proxy.yaml:10",
        "hostnameOverride: \"on\" # /etc/proxy.yaml:11",
        "oomScoreAdj: 5 # --oom-score-adj",
        "healthzBindAddress: \"0.0.0.0:10256\" # default",
    ] {
        assert!(shown.lines().any(|shown| shown == line), "{line} is not in\n{shown}");
    }
}

#[test]
fn what_is_shown_can_be_read_back() {
    let none = Path::new("shown.yaml");
    let all = format!("{HEAD}{FILE}bindAddress: 'fd00::1'\nmetricsBindAddress: '0'\n");
    for file in [all.as_str(), HEAD] {
        let loaded = parse(file, none, &[]).unwrap();
        let again = parse(&loaded.to_yaml(Some(none)), none, &[]).unwrap();
        assert_eq!(again.config, loaded.config);
    }
    let loaded = load(None, &[]).unwrap();
    assert_eq!(parse(&loaded.to_yaml(None), none, &[]).unwrap().config, Config::default());
}
