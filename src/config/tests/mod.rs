//! Files in, configurations, warnings and errors out.

mod documented;
mod errors;
mod flags;
mod show;
mod warnings;

use std::path::Path;
use std::time::Duration;

use super::*;

const HEAD: &str = "apiVersion: kubeproxy.config.k8s.io/v1alpha1\nkind: KubeProxyConfiguration\n";

/// config.conf of the ConfigMap kube-proxy, as kubeadm v1.36 stores it in an untouched dual-stack cluster.
const KUBEADM: &str = include_str!("kubeadm.yaml");

/// The same in a cluster of kind, which kubeadm makes as well.
const KIND: &str = include_str!("kind.yaml");

/// What kind hands to kubeadm: several documents, of which one is ours.
const FOR_KUBEADM: &str = r#"# made by kind
apiVersion: kubeadm.k8s.io/v1beta3
kind: ClusterConfiguration
networking:
  podSubnet: "10.244.0.0/16"
---
apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
failSwapOn: false
---
apiVersion: kubeproxy.config.k8s.io/v1alpha1
kind: KubeProxyConfiguration
metadata:
  name: config
mode: "nftables"
iptables:
  minSyncPeriod: 1s
conntrack:
# a comment that is not indented
  maxPerCore: 0
  tcpEstablishedTimeout: 0s
"#;

fn read(text: &str) -> Result<Loaded, ConfigError> {
    parse(text, Path::new("proxy.yaml"), &[])
}

/// A configuration with `fields`, and a clusterCIDR to keep it quiet.
fn with(fields: &str) -> Result<Loaded, ConfigError> {
    read(&format!("{HEAD}clusterCIDR: 10.244.0.0/16\n{fields}"))
}

fn cidrs(texts: &[&str]) -> Vec<IpNet> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

fn warned_fields(loaded: &Loaded) -> Vec<&str> {
    loaded.warnings.iter().map(|warning| warning.field.as_str()).collect()
}

#[test]
fn the_file_of_kubeadm_is_read_without_a_warning() {
    let expected = Config {
        detect_local: DetectLocal::ClusterCidr(cidrs(&["10.244.0.0/16", "fd00:10:244::/56"])),
        kubeconfig: Some("/var/lib/kube-proxy/kubeconfig.conf".into()),
        ..Config::default()
    };
    let loaded = read(KUBEADM).unwrap();
    assert_eq!((loaded.config, loaded.warnings), (expected, vec![]));
}

#[test]
fn the_file_of_kind_is_read_with_a_warning_about_its_mode() {
    let loaded = read(KIND).unwrap();
    let expected = Config {
        detect_local: DetectLocal::ClusterCidr(cidrs(&["10.244.0.0/16"])),
        kubeconfig: Some("/var/lib/kube-proxy/kubeconfig.conf".into()),
        conntrack: Conntrack { max_per_core: 0, ..Conntrack::default() },
        ..Config::default()
    };
    assert_eq!(loaded.config, expected);
    assert_eq!(warned_fields(&loaded), ["mode"]);
}

#[test]
fn of_several_documents_one_counts() {
    let loaded = read(FOR_KUBEADM).unwrap();
    let conntrack = Conntrack { max_per_core: 0, tcp_established: Duration::ZERO, ..Conntrack::default() };
    assert_eq!(loaded.config, Config { conntrack, ..Config::default() });
    assert_eq!(warned_fields(&loaded), ["clusterCIDR"]);
}

#[test]
fn json_is_read_as_well() {
    let texts = [
        "{\"apiVersion\":\"kubeproxy.config.k8s.io/v1alpha1\",\"kind\":\"KubeProxyConfiguration\",\
         \"clusterCIDR\":\"10.0.0.0/8\",\"nftables\":{\"masqueradeBit\":3,\"syncPeriod\":null}}",
        "{\n\t\"apiVersion\": \"kubeproxy.config.k8s.io/v1alpha1\",\n\t\"kind\": \"KubeProxyConfiguration\",\n\
         \t\"clusterCIDR\": \"10.0.0.0\\/8\",\n\t\"nftables\": {\n\t\t\"masqueradeBit\": 3\n\t}\n}\n",
    ];
    for text in texts {
        let loaded = read(text).unwrap();
        assert_eq!(loaded.config.masquerade_mark, 8);
        assert_eq!(loaded.config.detect_local, DetectLocal::ClusterCidr(cidrs(&["10.0.0.0/8"])));
        assert_eq!(loaded.warnings, []);
    }
}

#[test]
fn an_empty_configuration_is_the_default_and_says_that_nothing_is_local() {
    let loaded = read(HEAD).unwrap();
    assert_eq!(loaded.config, Config::default());
    assert_eq!(warned_fields(&loaded), ["clusterCIDR"]);
    assert_eq!(loaded.config.masquerade_mark, 0x4000);
}

#[test]
fn fields_take_effect() {
    let base = with("").unwrap().config;
    let local = |detect_local| Config { detect_local, ..base.clone() };
    let ports = |texts: &[&str]| Config {
        node_port_addresses: NodePortAddresses::Cidrs(cidrs(texts)),
        ..base.clone()
    };
    let served = |metrics: &str, healthz: &str| Config {
        metrics_address: metrics.parse().ok(),
        healthz_address: healthz.parse().ok(),
        ..base.clone()
    };
    let table = [
        ("mode: nftables", base.clone()),
        ("nftables: {masqueradeAll: true}", Config { masquerade_all: true, ..base.clone() }),
        ("nftables: {masqueradeBit: 0}", Config { masquerade_mark: 1, ..base.clone() }),
        ("nftables: {masqueradeBit: 31}", Config { masquerade_mark: 1 << 31, ..base.clone() }),
        ("hostnameOverride: ' Node-1 '", Config { node_name: Some("node-1".into()), ..base.clone() }),
        ("logging: {verbosity: 4}", Config { verbosity: 4, ..base.clone() }),
        ("logging: {format: json}", Config { log_format: LogFormat::Json, ..base.clone() }),
        ("detectLocalMode: ClusterCIDR", base.clone()),
        ("detectLocalMode: NodeCIDR", local(DetectLocal::NodeCidr)),
        (
            "detectLocalMode: BridgeInterface\ndetectLocal: {bridgeInterface: cni0}",
            local(DetectLocal::BridgeInterface("cni0".into())),
        ),
        (
            "detectLocal: {interfaceNamePrefix: veth}\ndetectLocalMode: InterfaceNamePrefix",
            local(DetectLocal::InterfaceNamePrefix("veth".into())),
        ),
        ("nodePortAddresses: [primary]", base.clone()),
        ("nodePortAddresses: []", base.clone()),
        ("nodePortAddresses: [10.1.2.3/8]", ports(&["10.0.0.0/8", "::/0"])),
        ("nodePortAddresses: ['fd00::/8']", ports(&["fd00::/8", "0.0.0.0/0"])),
        ("nodePortAddresses: [10.0.0.0/8, 'fd00::/8']", ports(&["10.0.0.0/8", "fd00::/8"])),
        ("metricsBindAddress: 0.0.0.0", served("0.0.0.0:10249", "0.0.0.0:10256")),
        ("bindAddress: '::'", served("[::1]:10249", "[::]:10256")),
        ("metricsBindAddress: '0'\nhealthzBindAddress: ':9'", served("", "0.0.0.0:9")),
        ("metricsBindAddress: '[::1]:9000'\nhealthzBindAddress: '[::]'", served("[::1]:9000", "[::]:10256")),
    ];
    for (fields, expected) in table {
        let loaded = with(fields).unwrap();
        assert_eq!((loaded.config, loaded.warnings), (expected, vec![]), "{fields}");
    }
}

#[test]
fn settings_of_the_node_take_effect() {
    let base = with("").unwrap().config;
    let table = [
        ("bindAddress: 10.0.0.1", Config { bind_address: "10.0.0.1".parse().ok(), ..base.clone() }),
        ("bindAddressHardFail: true", Config { bind_address_hard_fail: true, ..base.clone() }),
        ("oomScoreAdj: 0", Config { oom_score_adj: 0, ..base.clone() }),
        ("conntrack: {tcpEstablishedTimeout: null, min: null}", base.clone()),
        (
            "conntrack: {maxPerCore: 0, min: 1, tcpEstablishedTimeout: 0s, tcpCloseWaitTimeout: 1m, tcpBeLiberal: true, udpTimeout: 2s, udpStreamTimeout: 3s}",
            Config {
                conntrack: Conntrack {
                    max_per_core: 0,
                    min: 1,
                    tcp_established: Duration::ZERO,
                    tcp_close_wait: Duration::from_secs(60),
                    tcp_be_liberal: true,
                    udp: Duration::from_secs(2),
                    udp_stream: Duration::from_secs(3),
                },
                ..base.clone()
            },
        ),
    ];
    for (fields, expected) in table {
        let loaded = with(fields).unwrap();
        assert_eq!((loaded.config, loaded.warnings), (expected, vec![]), "{fields}");
    }
}

#[test]
fn the_masquerade_settings_come_from_the_section_of_the_mode() {
    let sections = "iptables: {masqueradeAll: true, masqueradeBit: 1}\nnftables: {masqueradeBit: 2}";
    let table = [("iptables", true, 2), ("ipvs", true, 2), ("nftables", false, 4), ("auto", false, 4)];
    for (mode, all, mark) in table {
        let config = with(&format!("mode: {mode}\n{sections}")).unwrap().config;
        assert_eq!((config.masquerade_all, config.masquerade_mark), (all, mark), "{mode}");
    }
}
