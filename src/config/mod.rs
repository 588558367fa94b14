//! The effective configuration, validated. This is all the rest of the program sees of flags and files.
//!
//! ```text
//!  file ─▶ document ─┬─▶ fields ─▶ kube_proxy, accepted ─▶ Config and Warnings
//!  flags ────────────┘
//! ```
//!
//! Only [`load`] and [`node_name`]'s host name touch the node; everything else is PURE. Nothing here
//! logs: warnings are values, and whoever starts or reloads decides what becomes of them.

mod accepted;
mod conntrack;
mod document;
mod duration;
mod effective;
mod error;
mod fields;
pub mod flags;
mod kube_proxy;
pub mod node_name;
mod show;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fmt;
use std::io::{self, Read as _};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use ipnet::IpNet;

pub use conntrack::Conntrack;
pub use error::{ConfigError, Origin, Place};

use document::Field;
use flags::Given;

/// One validated configuration. [`Config::default`] is what an empty `KubeProxyConfiguration` says.
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
    /// How many clients are remembered at most, for each list of a sticky ServicePort.
    pub affinity_clients: u32,
    /// Other programs may change what we have programmed, even where the kernel could keep them from it.
    pub open_tables: bool,
    /// How long connections of a Service that is gone may stay, in the userspace mode.
    pub userspace_drain: Duration,
    /// The node addresses on which NodePorts answer.
    pub node_port_addresses: NodePortAddresses,
    /// `bindAddress`, unless it is unspecified: the node IP of its family, whatever the Node object says.
    pub bind_address: Option<IpAddr>,
    /// `bindAddressHardFail`: an address that cannot be served at ends the program.
    pub bind_address_hard_fail: bool,
    /// Settings of the kernel's connection tracking.
    pub conntrack: Conntrack,
    /// How readily the kernel may kill this process, from -1000 (never) to 1000.
    pub oom_score_adj: i32,
    /// `hostnameOverride`, or what flags and `NODE_NAME` put in its place; else the host name counts.
    pub node_name: Option<String>,
    /// `clientConnection.kubeconfig`; `--kubeconfig` wins over it.
    pub kubeconfig: Option<PathBuf>,
    /// Where /metrics is served, by default at 127.0.0.1:10249; `None` where it is switched off.
    pub metrics_address: Option<SocketAddr>,
    /// Where /healthz and /livez are served, by default at 0.0.0.0:10256; `None` as above.
    pub healthz_address: Option<SocketAddr>,
    /// `logging.format`.
    pub log_format: LogFormat,
    /// `logging.verbosity`, as klog counts: 0 the least, 10 everything.
    pub verbosity: u32,
}

/// The bit of the packet mark that kube-proxy uses where nothing else is configured.
const MASQUERADE_BIT: u32 = 14;

/// 17 MB of kernel memory where all of them come.
const AFFINITY_CLIENTS: u32 = 131_072;

/// kube-proxy's default of `oomScoreAdj`.
pub const OOM_SCORE: i32 = -999;

/// A ConfigMap is not larger.
const LARGEST: u64 = 1 << 20;

/// As long as most Pods are given to end, and as long again.
const USERSPACE_DRAIN: Duration = Duration::from_secs(60);

/// The port of /metrics.
const METRICS_PORT: u16 = 10249;

/// The port of /healthz.
const HEALTHZ_PORT: u16 = 10256;

impl Default for Config {
    fn default() -> Self {
        Self {
            mode: Mode::default(),
            detect_local: DetectLocal::default(),
            masquerade_all: false,
            masquerade_mark: 1 << MASQUERADE_BIT,
            affinity_clients: AFFINITY_CLIENTS,
            open_tables: false,
            userspace_drain: USERSPACE_DRAIN,
            node_port_addresses: NodePortAddresses::default(),
            bind_address: None,
            bind_address_hard_fail: false,
            conntrack: Conntrack::default(),
            oom_score_adj: OOM_SCORE,
            node_name: None,
            kubeconfig: None,
            metrics_address: Some((Ipv4Addr::LOCALHOST, METRICS_PORT).into()),
            healthz_address: Some((Ipv4Addr::UNSPECIFIED, HEALTHZ_PORT).into()),
            log_format: LogFormat::default(),
            verbosity: 0,
        }
    }
}

/// A configuration with what its user has to know about it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Loaded {
    /// What is in force.
    pub config: Config,
    /// What was written and is not honoured, one entry a field.
    pub warnings: Vec<Warning>,
    /// Where the fields that say something were written, by their paths; all others have defaults.
    pub origins: BTreeMap<String, Origin>,
}

/// A field that does not do what it would do in kube-proxy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Warning {
    /// The path of the field, such as `conntrack.min`.
    pub field: String,
    /// What that means for the user: the rest of the sentence that the path begins.
    pub message: String,
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.field, self.message)
    }
}

/// Reads the `KubeProxyConfiguration` in the file `path`, if there is one, and lays what was `given` by
/// flags and the environment over it.
///
/// # Errors
/// A file that cannot be read, and everything of [`parse`].
pub fn load(path: Option<&Path>, given: &[Given]) -> Result<Loaded, ConfigError> {
    match path {
        Some(path) => parse(&text(path)?, path, given),
        None => read(None, Vec::new(), given),
    }
}

/// The text of the configuration file `path`.
///
/// # Errors
/// A file that cannot be read, or is too large to be a configuration.
pub fn text(path: &Path) -> Result<String, ConfigError> {
    let mut text = String::new();
    let read = std::fs::File::open(path).and_then(|file| file.take(LARGEST + 1).read_to_string(&mut text));
    let wrong = |source| ConfigError::Read { path: path.to_owned(), source };
    match read {
        Ok(size) if size as u64 > LARGEST => Err(wrong(io::Error::other(format!(
            "it is larger than {LARGEST} bytes, which no configuration is"
        )))),
        Ok(_) => Ok(text),
        Err(source) => Err(wrong(source)),
    }
}

/// Reads the one `KubeProxyConfiguration` among the documents of `text`, YAML or JSON, under what was
/// `given`; `path` is the name that errors give to the file.
///
/// # Errors
/// Text that is neither YAML nor JSON, no such document or several, unknown fields, wrong values.
pub fn parse(text: &str, path: &Path, given: &[Given]) -> Result<Loaded, ConfigError> {
    read(Some(path), document::pick(text, path)?, given)
}

fn read(path: Option<&Path>, mut fields: Vec<Field>, given: &[Given]) -> Result<Loaded, ConfigError> {
    let mut warnings = flags::lay_over(&mut fields, given);
    let (config, read) = decode(path, fields)?;
    warnings.extend(read.warnings);
    Ok(Loaded { config, warnings, origins: read.origins })
}

fn decode(path: Option<&Path>, fields: Vec<Field>) -> Result<(Config, fields::Read), ConfigError> {
    let mut whole = fields::Section::whole(path, fields);
    let config = kube_proxy::read(&mut whole)?;
    Ok((config, whole.finish()?))
}

/// A proxy mode. What kube-proxy calls iptables and ipvs is nftables here.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// nftables over netlink.
    #[default]
    Nftables,
    /// Relays in this process.
    Userspace,
    /// nftables, or userspace where that is impossible.
    Auto,
}

/// How log lines look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// Text, in colours on a terminal.
    #[default]
    Text,
    /// A JSON object a line.
    Json,
}

/// `detectLocalMode` with its argument.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum DetectLocal {
    /// No detector: nothing is local, nothing sent to a ClusterIP is masqueraded.
    #[default]
    None,
    /// Local pods are those whose source address is in one of these CIDRs (at most one a family).
    ClusterCidr(Vec<IpNet>),
    /// Local pods are those whose source address is in one of the `spec.podCIDRs` of our Node.
    NodeCidr,
    /// Local traffic comes in from the bridge of this name (at most 15 bytes).
    BridgeInterface(String),
    /// Local traffic comes in from an interface whose name begins with this (at most 15 bytes).
    InterfaceNamePrefix(String),
}

/// `nodePortAddresses`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum NodePortAddresses {
    /// The node IPs of the Node object; without one, the addresses of the interfaces that carry
    /// the default route.
    #[default]
    Primary,
    /// The node's addresses that lie in one of these CIDRs. A family for which the file lists none
    /// has its match-all CIDR here, because kube-proxy opens all its addresses then.
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
