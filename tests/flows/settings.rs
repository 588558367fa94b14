//! What the daemon sets on the node beside its rules.

use crate::netns::prelude::*;

cases![conntrack_settings];

/// A sysctl of the node's namespace.
fn sysctl(lab: &Lab, name: &str) -> String {
    let path = format!("/proc/sys/net/netfilter/{name}");
    let value = lab.topology.enter(Ns::Node, || std::fs::read_to_string(&path));
    value.unwrap_or_else(|error| panic!("{path}: {error}")).trim().to_owned()
}

/// The section `conntrack` at the start, and again when the file changes; what it does not name stays.
fn conntrack_settings(lab: &mut Lab) {
    let before = sysctl(lab, "nf_conntrack_tcp_timeout_close_wait");
    let section = |established: &str| {
        config(&json!({ "conntrack": {
            "maxPerCore": 0, "tcpBeLiberal": true, "tcpEstablishedTimeout": established,
            "tcpCloseWaitTimeout": "0s", "udpTimeout": "41s", "udpStreamTimeout": "3m",
        }}))
    };
    lab.start(&section("2h"));
    for (name, value) in [
        ("nf_conntrack_tcp_timeout_established", "7200"),
        ("nf_conntrack_tcp_timeout_close_wait", before.as_str()),
        ("nf_conntrack_tcp_be_liberal", "1"),
        ("nf_conntrack_udp_timeout", "41"),
        ("nf_conntrack_udp_timeout_stream", "180"),
    ] {
        assert_eq!(sysctl(lab, name), value, "{name}");
    }
    let log = std::fs::read_to_string(lab.log_file()).expect("a log");
    assert!(!log.contains("could not be written"), "{log}");
    lab.reconfigure_until(&section("3h").to_string(), "nf_conntrack_tcp_timeout_established is 10800 now");
    assert_eq!(sysctl(lab, "nf_conntrack_tcp_timeout_established"), "10800");
}
