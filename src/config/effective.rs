//! The configuration in force, as `/configz` shows it. PURE.

use serde_json::{Value, json};

use super::flags::OFF;
use super::{Config, DetectLocal, LogFormat, Mode, NodePortAddresses, duration};

impl Mode {
    /// The name in `KubeProxyConfiguration`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Nftables => "nftables",
            Self::Userspace => "userspace",
            Self::Auto => "auto",
        }
    }
}

impl LogFormat {
    /// The name in `KubeProxyConfiguration`.
    const fn as_str(self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::Json => "json",
        }
    }
}

impl Config {
    /// The fields that have another value in `other`: `mode: "nftables" -> "userspace"`.
    #[must_use]
    pub fn differences(&self, other: &Self) -> Vec<String> {
        let (mut before, mut after) = (Vec::new(), Vec::new());
        leaves("", &self.effective(), &mut before);
        leaves("", &other.effective(), &mut after);
        let changed = before.into_iter().zip(after).filter(|(before, after)| before != after);
        changed.map(|((path, before), (_, after))| format!("{path}: {before} -> {after}")).collect()
    }

    /// The `KubeProxyConfiguration` in force: the fields that have an effect, defaults filled in.
    #[must_use]
    pub fn effective(&self) -> Value {
        let (mut cidr, mut bridge, mut prefix) = (String::new(), "", "");
        let detect_local_mode = match &self.detect_local {
            DetectLocal::None => "",
            DetectLocal::ClusterCidr(cidrs) => {
                cidr = cidrs.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
                "ClusterCIDR"
            }
            DetectLocal::NodeCidr => "NodeCIDR",
            DetectLocal::BridgeInterface(name) => {
                bridge = name;
                "BridgeInterface"
            }
            DetectLocal::InterfaceNamePrefix(name) => {
                prefix = name;
                "InterfaceNamePrefix"
            }
        };
        let node_port_addresses = match &self.node_port_addresses {
            NodePortAddresses::Primary => vec!["primary".to_owned()],
            NodePortAddresses::Cidrs(cidrs) => cidrs.iter().map(ToString::to_string).collect(),
        };
        let address = |address: Option<std::net::SocketAddr>| {
            address.map_or_else(|| OFF.to_owned(), |address| address.to_string())
        };
        let conntrack = &self.conntrack;
        json!({
            "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
            "kind": "KubeProxyConfiguration",
            "mode": self.mode.as_str(),
            "clusterCIDR": cidr,
            "detectLocalMode": detect_local_mode,
            "detectLocal": { "bridgeInterface": bridge, "interfaceNamePrefix": prefix },
            "nodePortAddresses": node_port_addresses,
            "nftables": {
                "masqueradeBit": self.masquerade_mark.trailing_zeros(),
                "masqueradeAll": self.masquerade_all,
            },
            "conntrack": {
                "maxPerCore": conntrack.max_per_core,
                "min": conntrack.min,
                "tcpEstablishedTimeout": duration::format(conntrack.tcp_established),
                "tcpCloseWaitTimeout": duration::format(conntrack.tcp_close_wait),
                "tcpBeLiberal": conntrack.tcp_be_liberal,
                "udpTimeout": duration::format(conntrack.udp),
                "udpStreamTimeout": duration::format(conntrack.udp_stream),
            },
            "oomScoreAdj": self.oom_score_adj,
            "bindAddress": self.bind_address.map(|ip| ip.to_string()).unwrap_or_default(),
            "bindAddressHardFail": self.bind_address_hard_fail,
            "hostnameOverride": self.node_name.clone().unwrap_or_default(),
            "clientConnection": { "kubeconfig": self.kubeconfig.clone().unwrap_or_default() },
            "healthzBindAddress": address(self.healthz_address),
            "metricsBindAddress": address(self.metrics_address),
            "logging": { "format": self.log_format.as_str(), "verbosity": self.verbosity },
        })
    }
}

/// The values of all fields, with their paths, in one order.
fn leaves(path: &str, value: &Value, into: &mut Vec<(String, Value)>) {
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
                leaves(&path, value, into);
            }
        }
        _ => into.push((path.to_owned(), value.clone())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn differences_are_told_by_field() {
        let before = Config::default();
        assert_eq!(before.differences(&before), Vec::<String>::new());
        let after = Config { masquerade_all: true, mode: Mode::Auto, ..before.clone() };
        assert_eq!(
            before.differences(&after),
            ["mode: \"nftables\" -> \"auto\"", "nftables.masqueradeAll: false -> true"]
        );
    }

    #[test]
    fn fields_have_the_names_and_values_of_the_file() {
        let config = Config {
            detect_local: DetectLocal::ClusterCidr(vec!["10.244.0.0/16".parse().unwrap()]),
            ..Config::default()
        };
        let shown = config.effective();
        for (field, expected) in [
            ("mode", json!("nftables")),
            ("clusterCIDR", json!("10.244.0.0/16")),
            ("detectLocalMode", json!("ClusterCIDR")),
            ("nodePortAddresses", json!(["primary"])),
            ("metricsBindAddress", json!("127.0.0.1:10249")),
        ] {
            assert_eq!(shown[field], expected, "{field}");
        }
        assert_eq!(shown["nftables"]["masqueradeBit"], 14);
    }
}
