//! Which fields are named in a warning.

use super::{warned_fields, with};

/// Fields, and the paths that are warned of.
const WARNED: &[(&str, &[&str])] = &[
    ("mode: iptables", &["mode"]),
    ("mode: ipvs", &["mode"]),
    ("featureGates: {A: true, B: false}", &["featureGates"]),
    ("featureGates: {}", &[]),
    ("clientConnection: {contentType: application/vnd.kubernetes.protobuf, qps: 5, burst: 10}", &[]),
    (
        "clientConnection: {acceptContentTypes: a/b, contentType: c/d, qps: 0.5, burst: 1}",
        &[
            "clientConnection.acceptContentTypes",
            "clientConnection.contentType",
            "clientConnection.qps",
            "clientConnection.burst",
        ],
    ),
    (
        "logging: {format: json, flushFrequency: 1s, vmodule: [{filePattern: a, verbosity: 1}], options: {text: {splitStream: true}, json: {infoBufferSize: 1Ki}}}",
        &[
            "logging.flushFrequency",
            "logging.vmodule",
            "logging.options.text.splitStream",
            "logging.options.json.infoBufferSize",
        ],
    ),
    ("logging: {format: text, flushFrequency: 5000000000, options: null}", &[]),
    ("bindAddress: 10.0.0.1\nbindAddressHardFail: true", &[]),
    ("enableProfiling: true", &["enableProfiling"]),
    ("showHiddenMetricsForVersion: '1.35'", &["showHiddenMetricsForVersion"]),
    (
        "iptables: {masqueradeBit: 3, masqueradeAll: true}",
        &["iptables.masqueradeBit", "iptables.masqueradeAll"],
    ),
    ("iptables: {localhostNodePorts: true, syncPeriod: 30s, minSyncPeriod: 1s}", &[]),
    (
        "mode: iptables\niptables: {syncPeriod: 1m, minSyncPeriod: 10s, snatNodeInternalIP: true}",
        &["mode", "iptables.snatNodeInternalIP", "iptables.syncPeriod", "iptables.minSyncPeriod"],
    ),
    ("mode: nftables\niptables: {syncPeriod: 1m}\nipvs: {scheduler: sh, strictARP: true}", &[]),
    (
        "mode: ipvs\nipvs: {scheduler: sh, excludeCIDRs: [10.0.0.0/8], strictARP: true, tcpTimeout: 1s}",
        &["mode", "ipvs.scheduler", "ipvs.excludeCIDRs", "ipvs.strictARP", "ipvs.tcpTimeout"],
    ),
    ("nftables: {syncPeriod: 1h, minSyncPeriod: 2s}", &["nftables.syncPeriod", "nftables.minSyncPeriod"]),
    ("winkernel: {networkName: net, enableDSR: true}\nwindowsRunAsService: true", &[]),
    ("oomScoreAdj: -999\nconfigSyncPeriod: 15m0s\nportRange: 1-2", &[]),
    ("oomScoreAdj: -1000\nconfigSyncPeriod: 1h", &["configSyncPeriod"]),
    ("udpIdleTimeout: 250ms\nresourceContainer: /kube-proxy\nconntrack: {max: 0}", &[]),
    (
        "conntrack: {maxPerCore: 32768, min: 131072, tcpEstablishedTimeout: 24h0m0s, tcpCloseWaitTimeout: 1h}",
        &[],
    ),
    ("conntrack: {maxPerCore: 0, min: 1, max: 2}", &["conntrack.max"]),
];

#[test]
fn what_is_not_honoured_is_named_exactly() {
    for (fields, expected) in WARNED {
        assert_eq!(warned_fields(&with(fields).unwrap()), *expected, "{fields}");
    }
}

#[test]
fn a_warning_reads_as_a_sentence() {
    let loaded = with("enableProfiling: true").unwrap();
    assert_eq!(
        loaded.warnings[0].to_string(),
        "enableProfiling has no effect: /debug/pprof belongs to programs written in Go"
    );
    let mode = with("mode: iptables").unwrap().warnings[0].to_string();
    assert!(
        mode.starts_with("mode iptables is not built yet, this node runs as nftables: NodePorts"),
        "{mode}"
    );
}
