//! The effective configuration, validated. This is all the rest of the program sees of flags and files.

use std::net::IpAddr;
use std::path::PathBuf;

use ipnet::IpNet;

/// One validated configuration; `config/` turns a `KubeProxyConfiguration` and flags into it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// How this node's traffic rules are programmed.
    pub mode: Mode,
    /// How traffic from this node's own pods is told from other traffic.
    pub detect_local: DetectLocal,
    /// Masquerade everything that is sent to a ClusterIP.
    pub masquerade_all: bool,
    /// The bit of the packet mark that asks for masquerading: `1 << masqueradeBit`.
    pub masquerade_mark: u32,
    /// The node addresses on which NodePorts answer.
    pub node_port_addresses: NodePortAddresses,
    /// `hostnameOverride`; `--node-name` wins over it, the host name stands in for both.
    pub node_name: Option<String>,
    /// `clientConnection.kubeconfig`; `--kubeconfig` wins over it.
    pub kubeconfig: Option<PathBuf>,
    /// Where /metrics is served; `None` where it is switched off.
    pub metrics_address: Option<std::net::SocketAddr>,
}

/// A proxy mode.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// nftables over netlink.
    #[default]
    Nftables,
}

/// `detectLocalMode` with its argument.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum DetectLocal {
    /// No detector: nothing is local, nothing sent to a ClusterIP is masqueraded.
    #[default]
    None,
    /// Local pods are those whose source address is in one of these CIDRs (at most one a family).
    ClusterCidr(Vec<IpNet>),
}

/// `nodePortAddresses`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum NodePortAddresses {
    /// The node IPs of the Node object; without one, the addresses of the interfaces that carry
    /// the default route.
    #[default]
    Primary,
    /// The node's addresses that lie in one of these CIDRs.
    Cidrs(Vec<IpNet>),
}

impl NodePortAddresses {
    /// Whether an address that the kernel holds is chosen by one of the CIDRs.
    #[must_use]
    pub fn admits(&self, address: &IpAddr) -> bool {
        match self {
            Self::Primary => false,
            Self::Cidrs(cidrs) => !address.is_loopback() && cidrs.iter().any(|cidr| cidr.contains(address)),
        }
    }
}
