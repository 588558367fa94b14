//! What is refused, and in which words.

use std::path::Path;

use super::{HEAD, read, with};
use crate::config::load;

#[test]
fn wrong_values_name_the_field_and_the_line() {
    let table = [
        ("mode: kernelspace", "`mode` must be nftables, iptables"),
        ("mode: IPTables", "`mode` must be nftables, iptables"),
        ("mode: 1", "`mode` must be a text, not the number 1; put it into quotes"),
        ("mode: [nftables]", "`mode` must be a text, not a list"),
        ("hostnameOverride: ' '", "`hostnameOverride` must not be empty"),
        ("detectLocalMode: clusterCIDR", "`detectLocalMode` must be ClusterCIDR, NodeCIDR"),
        ("nodePortAddresses: 10.0.0.0/8", "`nodePortAddresses` must be a list, not `10.0.0.0/8`"),
        ("nodePortAddresses: [10.0.0.0/8, 10.0.0.300/8]", "`nodePortAddresses[1]` must be a CIDR"),
        ("nodePortAddresses: [10.0.0.1]", "`nodePortAddresses[0]` must be a CIDR"),
        ("nodePortAddresses: ['']", "`nodePortAddresses[0]` must be a CIDR"),
        (
            "nftables: {masqueradeBit: 32}",
            "`nftables.masqueradeBit` must be a whole number from 0 to 31, not",
        ),
        (
            "nftables: {masqueradeBit: -1}",
            "`nftables.masqueradeBit` must be a whole number from 0 to 31, not",
        ),
        (
            "nftables: {masqueradeBit: 1.5}",
            "`nftables.masqueradeBit` must be a whole number from 0 to 31, not",
        ),
        (
            "nftables: {masqueradeBit: '14'}",
            "`nftables.masqueradeBit` must be a whole number from 0 to 31, not",
        ),
        ("nftables: {masqueradeAll: 'true'}", "`nftables.masqueradeAll` must be true or false, not `true`"),
        ("nftables: []", "`nftables` must be a map of fields, not a list"),
        ("iptables: {masqueradeBit: 99}", "`iptables.masqueradeBit` must be a whole number from 0 to 31"),
        ("iptables: {syncPeriod: 30}", "`iptables.syncPeriod` must be a duration with its unit"),
        ("iptables: {syncPeriod: 30x}", "`iptables.syncPeriod` must be a duration such as 30s"),
        ("iptables: {syncPeriod: -1s}", "`iptables.syncPeriod` must not be negative"),
        ("ipvs: {scheduler: best}", "`ipvs.scheduler` must be one of rr, wrr"),
        ("ipvs: {excludeCIDRs: [x]}", "`ipvs.excludeCIDRs[0]` must be a CIDR"),
        ("bindAddress: node-1", "`bindAddress` must be an IP address, not `node-1`"),
        ("metricsBindAddress: localhost:10249", "`metricsBindAddress` must be an IP address and a port"),
        ("metricsBindAddress: 127.0.0.1:0", "`metricsBindAddress` must be an IP address and a port"),
        ("healthzBindAddress: 0.0.0.0:65536", "`healthzBindAddress` must be an IP address and a port"),
        ("oomScoreAdj: 1001", "`oomScoreAdj` must be a whole number from -1000 to 1000, not the number 1001"),
        ("conntrack: {min: -1}", "`conntrack.min` must be a whole number of 0 or more"),
        ("featureGates: {A: maybe}", "`featureGates` must have true or false for A, not `maybe`"),
        ("clientConnection: {qps: fast}", "`clientConnection.qps` must be a number, not `fast`"),
        ("logging: {format: xml}", "`logging.format` must be text or json, not `xml`"),
        ("detectLocal: {bridgeInterface: a/b}", "`detectLocal.bridgeInterface` must be the name of an"),
        (
            "detectLocal: {bridgeInterface: sixteen-letters-}",
            "`detectLocal.bridgeInterface` must be the name",
        ),
    ];
    for (fields, said) in table {
        let message = with(fields).unwrap_err().to_string();
        assert!(message.starts_with(&format!("proxy.yaml, line 4: {said}")), "{fields}: {message}");
    }
}

#[test]
fn fields_that_contradict_each_other_are_errors() {
    let table = [
        ("detectLocalMode: BridgeInterface", "proxy.yaml: `detectLocal.bridgeInterface` must be set"),
        ("detectLocalMode: InterfaceNamePrefix", "proxy.yaml: `detectLocal.interfaceNamePrefix` must be set"),
        (
            "nodePortAddresses: [primary, 10.0.0.0/8]",
            "proxy.yaml, line 4: `nodePortAddresses` must be either",
        ),
        ("iptables: {minSyncPeriod: 1m}", "proxy.yaml: `iptables.syncPeriod` must not be shorter"),
    ];
    for (fields, said) in table {
        let message = with(fields).unwrap_err().to_string();
        assert!(message.starts_with(said), "{fields}: {message}");
    }
    for cidr in ["10.0.0.0/8,10.1.0.0/16", "10.0.0.0/8,fd00::/8,fd01::/16"] {
        let message = read(&format!("{HEAD}clusterCIDR: {cidr}\n")).unwrap_err().to_string();
        assert!(message.contains("line 3: `clusterCIDR` must have at most one CIDR of each"), "{message}");
    }
}

#[test]
fn unknown_fields_are_errors_at_every_depth() {
    let table = [
        ("proxyMode: iptables", 4, "`proxyMode`: remove it, or use one of"),
        ("clusterCidr: 10.0.0.0/8", 4, "`clusterCidr`: write `clusterCIDR`, case matters"),
        ("nftables:\n  masqueradeAll: true\n  masqueradBit: 3", 6, "`nftables.masqueradBit`: remove it, or"),
        ("logging: {options: {text: {colour: red}}}", 4, "`logging.options.text.colour`: remove it"),
        ("detectLocal: {bridge: cni0}", 4, "`detectLocal.bridge`: remove it, or use one of bridgeInterface,"),
        ("conntrack:\n  min: 0\n  tcpTimeout: 1s", 6, "`conntrack.tcpTimeout`: remove it"),
        ("winkernel: {x: 1}", 4, "`winkernel.x`: remove it"),
    ];
    for (fields, line, said) in table {
        let message = with(fields).unwrap_err().to_string();
        assert!(
            message.starts_with(&format!("proxy.yaml, line {line}: unknown field {said}")),
            "{fields}: {message}"
        );
    }
}

#[test]
fn texts_without_the_right_document_are_errors() {
    let second = format!("{HEAD}---\n{HEAD}");
    let table = [
        ("", "proxy.yaml: the file is empty"),
        ("---\n", "proxy.yaml: the file is empty"),
        ("just text", "proxy.yaml, line 1: a document is `just text`, not a map of fields"),
        ("mode: nftables\n", "proxy.yaml: there is no KubeProxyConfiguration, only kind none"),
        ("kind: A\n---\nkind: B\n", "proxy.yaml: there is no KubeProxyConfiguration, only kind A, B"),
        ("kind: ConfigMap\ndata: {}\n", "proxy.yaml: this is a ConfigMap; store the text"),
        (
            "kind: KubeProxyConfiguration\n",
            "proxy.yaml, line 1: the apiVersion of the KubeProxyConfiguration is",
        ),
        (second.as_str(), "proxy.yaml, line 4: this is a second KubeProxyConfiguration"),
        ("a: [1,\n", "proxy.yaml, line 1: the configuration is neither YAML nor JSON"),
        ("kind: A\nkind: B\n", "proxy.yaml, line 2: the configuration is neither YAML nor JSON"),
    ];
    for (text, said) in table {
        let message = read(text).unwrap_err().to_string();
        assert!(message.starts_with(said), "{text:?}: {message}");
        assert!(!message.contains('\n'), "{message}");
    }
}

#[test]
fn a_file_that_cannot_be_read_is_named() {
    let message = load(Some(Path::new("/nonexistent/proxy.yaml")), &[]).unwrap_err().to_string();
    assert!(message.contains("/nonexistent/proxy.yaml: No such file"), "{message}");
}
