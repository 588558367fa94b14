//! Flags in place of fields: the same values, the same errors.

use std::path::Path;

use super::{HEAD, cidrs};
use crate::config::flags::{FLAGS, Given};
use crate::config::{Config, ConfigError, DetectLocal, Loaded, Mode, NodePortAddresses, Origin, load, parse};

fn given(line: &str) -> Vec<Given> {
    let one = |word: &str| {
        let (name, text) = word.split_once('=').unwrap_or((word, "true"));
        let flag = FLAGS.iter().find(|flag| flag.name == name).unwrap_or_else(|| panic!("no flag {name}"));
        Given::flag(flag, text)
    };
    line.split_whitespace().map(one).collect()
}

fn over(file: &str, line: &str) -> Result<Loaded, ConfigError> {
    parse(&format!("{HEAD}{file}"), Path::new("proxy.yaml"), &given(line))
}

#[test]
fn a_flag_does_what_its_field_does() {
    let none = Config::default();
    let table = [
        ("--proxy-mode=userspace", Config { mode: Mode::Userspace, ..none.clone() }),
        ("--proxy-mode=auto", Config { mode: Mode::Auto, ..none.clone() }),
        ("--proxy-mode=", none.clone()),
        ("--masquerade-all", Config { masquerade_all: true, ..none.clone() }),
        ("--masquerade-all --proxy-mode=iptables", Config { masquerade_all: true, ..none.clone() }),
        ("--masquerade-all --masquerade-all=F", none.clone()),
        ("--proxy-mode=iptables --iptables-masquerade-bit=3", Config { masquerade_mark: 8, ..none.clone() }),
        (
            "--cluster-cidr=10.0.0.0/8,fd00::/8",
            Config {
                detect_local: DetectLocal::ClusterCidr(cidrs(&["10.0.0.0/8", "fd00::/8"])),
                ..none.clone()
            },
        ),
        (
            "--detect-local-mode=BridgeInterface --pod-bridge-interface=cni0",
            Config { detect_local: DetectLocal::BridgeInterface("cni0".into()), ..none.clone() },
        ),
        (
            "--nodeport-addresses=10.0.0.0/8, --nodeport-addresses=fd00::/8",
            Config {
                node_port_addresses: NodePortAddresses::Cidrs(cidrs(&["10.0.0.0/8", "fd00::/8"])),
                ..none.clone()
            },
        ),
        ("--metrics-bind-address=", Config { metrics_address: None, ..none.clone() }),
        ("--healthz-port=0", Config { healthz_address: None, ..none.clone() }),
        ("--healthz-port=0 --healthz-bind-address=0.0.0.0", Config { healthz_address: None, ..none.clone() }),
        ("--metrics-port=9", Config { metrics_address: "127.0.0.1:9".parse().ok(), ..none.clone() }),
        (
            "--healthz-port=9 --healthz-bind-address=[::1]",
            Config { healthz_address: "[::1]:10256".parse().ok(), ..none.clone() },
        ),
        ("--hostname-override=Node-1", Config { node_name: Some("node-1".into()), ..none.clone() }),
    ];
    for (line, expected) in table {
        assert_eq!(load(None, &given(line)).unwrap().config, expected, "{line}");
    }
}

#[test]
fn wrong_values_name_the_flag() {
    let table = [
        ("--proxy-mode=kernelspace", "--proxy-mode must be nftables, iptables"),
        ("--masquerade-all=maybe", "--masquerade-all must be true or false, not `maybe`"),
        ("--conntrack-min=many", "--conntrack-min must be a whole number of 0 or more"),
        ("--conntrack-min=-1", "--conntrack-min must be a whole number of 0 or more"),
        ("--conntrack-udp-timeout=5", "--conntrack-udp-timeout must be a duration such as 30s"),
        ("--nodeport-addresses=10.0.0.0/8,x", "--nodeport-addresses must be a CIDR"),
        ("--nodeport-addresses=10.0.0.0/8,primary", "--nodeport-addresses must be either"),
        ("--healthz-bind-address=x", "--healthz-bind-address must be an IP address and a port"),
        ("--feature-gates=A=true,B=x", "--feature-gates must have true or false for B"),
        ("--oom-score-adj=-1001", "--oom-score-adj must be a whole number from -1000 to 1000"),
        ("--kube-api-qps=fast", "--kube-api-qps must be a number, not `fast`"),
        ("--iptables-sync-period=1ms --proxy-mode=iptables", "--iptables-sync-period must not be shorter"),
        ("--detect-local-mode=BridgeInterface", "command line: `detectLocal.bridgeInterface` must be set"),
    ];
    for (line, said) in table {
        let message = load(None, &given(line)).unwrap_err().to_string();
        assert!(message.starts_with(said), "{line}: {message}");
    }
}

#[test]
fn a_flag_wins_over_the_file_and_says_so_where_kube_proxy_would_not() {
    let table = [
        ("mode: userspace\n", "--proxy-mode=nftables", vec!["--proxy-mode"]),
        ("mode: nftables\n", "--proxy-mode=nftables", vec![]),
        ("mode: ''\n", "--proxy-mode=nftables", vec![]),
        ("conntrack: null\n", "--conntrack-min=5", vec![]),
        ("conntrack: {min: 4}\n", "--conntrack-min=5", vec!["--conntrack-min"]),
        ("hostnameOverride: a\n", "--hostname-override=b", vec![]),
        ("logging: {format: json}\n", "--logging-format=text", vec![]),
        ("featureGates: {A: true}\n", "--feature-gates=", vec!["--feature-gates"]),
    ];
    for (file, line, expected) in table {
        let loaded = over(&format!("{file}clusterCIDR: 10.0.0.0/8\n"), line).unwrap();
        let fields: Vec<&str> = loaded.warnings.iter().map(|warning| warning.field.as_str()).collect();
        assert_eq!(fields, expected, "{file} {line}: {:?}", loaded.warnings);
    }
    let loaded = over("mode: userspace\n", "--proxy-mode=nftables").unwrap();
    assert_eq!(loaded.config.mode, Mode::Nftables);
    assert_eq!(
        loaded.warnings[0].to_string(),
        "--proxy-mode wins over `mode` of the file (line 3); kube-proxy would ignore the flag beside --config"
    );
    let error = over("conntrack: []\n", "--conntrack-min=1").unwrap_err().to_string();
    assert!(error.starts_with("proxy.yaml, line 3: `conntrack` must be a map"), "{error}");
}

#[test]
fn every_flag_sets_a_field_that_exists() {
    for flag in FLAGS {
        // whatever it is, it is no unknown field
        if let Err(error) = over("", &format!("{}=x", flag.name)) {
            assert!(matches!(error, ConfigError::Given { name, .. } if name == flag.name), "{error}");
        }
    }
}

#[test]
fn where_each_field_was_written_is_known() {
    let file = "mode: nftables\nconntrack:\n  min: 5\n  maxPerCore: 0\nhostnameOverride: ''\n";
    let origins = over(file, "--conntrack-min=7").unwrap().origins;
    let table = [
        ("mode", Some(Origin::File(Some(3)))),
        ("conntrack.min", Some(Origin::Flag("--conntrack-min"))),
        ("conntrack.maxPerCore", Some(Origin::File(Some(6)))),
        ("hostnameOverride", None),
        ("conntrack.udpTimeout", None),
    ];
    for (path, expected) in table {
        assert_eq!(origins.get(path).copied(), expected, "{path}");
    }
}
