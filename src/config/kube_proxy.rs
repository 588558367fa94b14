//! `KubeProxyConfiguration` (v1alpha1 of kube-proxy v1.36): the fields that take effect. PURE.
//!
//! The names, values and defaults are those of `staging/src/k8s.io/kube-proxy/config/v1alpha1` and
//! `pkg/proxy/apis/config` in kubernetes/kubernetes. What is only accepted is in [`super::accepted`].

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::document::Value;
use super::error::ConfigError;
use super::fields::{Section, flag, number, text};
use super::flags::OFF;
use super::{
    Config, DetectLocal, HEALTHZ_PORT, LogFormat, MASQUERADE_BIT, METRICS_PORT, Mode, NodePortAddresses,
    OOM_SCORE, accepted, conntrack, node_name,
};

/// The longest name of an interface: `IFNAMSIZ` of include/uapi/linux/if.h without the final zero.
const LONGEST_INTERFACE: usize = 15;

/// `mode` as it was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Written {
    /// Empty: nftables here, iptables in kube-proxy.
    Unset,
    Nftables,
    Iptables,
    Ipvs,
    Userspace,
    Auto,
}

impl Written {
    /// Whether the section `iptables` would be used: kube-proxy takes an empty mode for iptables.
    fn uses_iptables(self) -> bool {
        matches!(self, Self::Unset | Self::Iptables)
    }

    fn uses_ipvs(self) -> bool {
        self == Self::Ipvs
    }

    fn mode(self) -> Mode {
        match self {
            Self::Userspace => Mode::Userspace,
            Self::Auto => Mode::Auto,
            Self::Unset | Self::Nftables | Self::Iptables | Self::Ipvs => Mode::Nftables,
        }
    }

    /// Whether the section `nftables` is used, by kube-proxy or by us.
    fn uses_nftables(self) -> bool {
        !matches!(self, Self::Iptables | Self::Ipvs)
    }
}

/// Reads every field of the configuration; the caller finishes the section.
pub(super) fn read(whole: &mut Section<'_>) -> Result<Config, ConfigError> {
    let written = mode(whole)?;
    let masquerade = masquerade(whole, written)?;
    let detect_local = detect_local(whole)?;
    let node_port_addresses = node_port_addresses(whole)?;
    let node_name = whole.parsed("hostnameOverride", node_name::parse)?;
    let kubeconfig = whole.section("clientConnection", |client| {
        let kubeconfig = client.text("kubeconfig")?;
        accepted::client_connection(client)?;
        Ok(kubeconfig)
    })?;
    let (verbosity, log_format) = whole.section("logging", |logging| {
        let verbosity = logging.get("verbosity", number(0, i32::MAX))?;
        let format = logging.parsed("format", |text| match text {
            "text" => Ok(LogFormat::Text),
            "json" => Ok(LogFormat::Json),
            other => Err(format!("must be text or json, not `{other}`")),
        })?;
        accepted::logging(logging)?;
        Ok((verbosity, format.unwrap_or_default()))
    })?;
    let bind_address = bind_ip(whole)?;
    let [healthz_address, metrics_address] = served(whole, bind_address)?;
    let hard_fail = whole.get("bindAddressHardFail", flag)?;
    let conntrack = whole.section("conntrack", conntrack::read)?;
    let oom_score_adj = whole.get("oomScoreAdj", number(-1000, 1000))?;
    accepted::rest(whole)?;
    Ok(Config {
        mode: written.mode(),
        detect_local,
        masquerade_all: masquerade.all,
        masquerade_mark: 1 << masquerade.bit,
        node_port_addresses,
        node_name: node_name.map(|name| name.to_string()),
        kubeconfig: kubeconfig.map(Into::into),
        bind_address: bind_address.filter(|ip| !ip.is_unspecified()),
        bind_address_hard_fail: hard_fail.unwrap_or_default(),
        conntrack,
        oom_score_adj: oom_score_adj.unwrap_or(OOM_SCORE),
        metrics_address,
        healthz_address,
        log_format,
        verbosity: verbosity.unwrap_or_default().unsigned_abs(),
        ..Config::default()
    })
}

/// `mode`, with a warning for each that is not built yet.
fn mode(whole: &mut Section<'_>) -> Result<Written, ConfigError> {
    let written = whole.parsed("mode", |mode| match mode {
        "nftables" => Ok(Written::Nftables),
        "iptables" => Ok(Written::Iptables),
        "ipvs" => Ok(Written::Ipvs),
        "userspace" => Ok(Written::Userspace),
        "auto" => Ok(Written::Auto),
        _ => Err(format!("must be nftables, iptables, ipvs, userspace, auto or empty, not `{mode}`")),
    })?;
    let written = written.unwrap_or(Written::Unset);
    let differs = match written {
        Written::Unset | Written::Nftables | Written::Userspace | Written::Auto => return Ok(written),
        Written::Iptables => {
            "iptables is not built yet, this node runs as nftables: NodePorts do not answer on localhost, \
             nor on all addresses of the node unless nodePortAddresses says so, and a port that a ClusterIP does \
             not have is rejected instead of let through"
        }
        Written::Ipvs => {
            "ipvs is not built yet, this node runs as nftables: NodePorts do not answer on all addresses of \
             the node unless nodePortAddresses says so, there is no interface kube-ipvs0, endpoints are chosen at \
             random whatever the scheduler, and a port that a ClusterIP does not have is rejected"
        }
    };
    whole.warn("mode", differs);
    Ok(written)
}

/// Which packets are masqueraded on request, and by which bit of the mark.
#[derive(Clone, Copy)]
struct Masquerade {
    all: bool,
    bit: i32,
}

/// The sections of the modes. The masquerade settings of `iptables` count in the modes iptables and
/// ipvs, those of `nftables` in all others.
fn masquerade(whole: &mut Section<'_>, written: Written) -> Result<Masquerade, ConfigError> {
    let iptables = whole.section("iptables", |section| {
        section.set_in_force(written.uses_iptables());
        let masquerade = masquerade_fields(section)?;
        if written == Written::Unset {
            warn_of_unused(section, masquerade);
        }
        accepted::iptables(section)?;
        Ok(masquerade)
    })?;
    let nftables = whole.section("nftables", |section| {
        section.set_in_force(written.uses_nftables());
        let masquerade = masquerade_fields(section)?;
        accepted::nftables(section)?;
        Ok(masquerade)
    })?;
    whole.section("ipvs", |section| {
        section.set_in_force(written.uses_ipvs());
        accepted::ipvs(section)
    })?;
    if written.uses_nftables() {
        return Ok(nftables);
    }
    // where they are in force, and shown
    whole.stands_for("iptables.masqueradeAll", "nftables.masqueradeAll");
    whole.stands_for("iptables.masqueradeBit", "nftables.masqueradeBit");
    Ok(iptables)
}

fn masquerade_fields(section: &mut Section<'_>) -> Result<Masquerade, ConfigError> {
    let bit = section.get("masqueradeBit", number(0, 31))?;
    let all = section.get("masqueradeAll", flag)?;
    Ok(Masquerade { all: all.unwrap_or_default(), bit: bit.unwrap_or(DEFAULT_BIT) })
}

const DEFAULT_BIT: i32 = MASQUERADE_BIT.cast_signed();

/// kube-proxy without a mode honours the section `iptables`; we do not, and say what to write instead.
fn warn_of_unused(section: &mut Section<'_>, masquerade: Masquerade) {
    if masquerade.bit != DEFAULT_BIT {
        section.warn(
            "masqueradeBit",
            "has no effect, an empty mode means nftables here: set nftables.masqueradeBit",
        );
    }
    if masquerade.all {
        section.warn(
            "masqueradeAll",
            "has no effect, an empty mode means nftables here: set nftables.masqueradeAll",
        );
    }
}

/// `detectLocalMode` and what belongs to it.
fn detect_local(whole: &mut Section<'_>) -> Result<DetectLocal, ConfigError> {
    let cidrs = whole.parsed("clusterCIDR", cluster_cidrs)?.unwrap_or_default();
    let (bridge, prefix) = whole.section("detectLocal", |detect| {
        let bridge = detect.parsed("bridgeInterface", interface)?;
        Ok((bridge, detect.parsed("interfaceNamePrefix", interface)?))
    })?;
    let missing = |whole: &Section<'_>, field: &str, mode: &str| {
        whole.wrong(field, None, format!("must be set: detectLocalMode is {mode}"))
    };
    let mode = whole.parsed("detectLocalMode", |mode| {
        let modes = ["ClusterCIDR", "NodeCIDR", "BridgeInterface", "InterfaceNamePrefix"];
        let known = modes.iter().find(|known| **known == mode).copied();
        known.ok_or_else(|| format!("must be {} or empty, not `{mode}`", modes.join(", ")))
    })?;
    Ok(match mode {
        Some("NodeCIDR") => DetectLocal::NodeCidr,
        Some(mode @ "BridgeInterface") => DetectLocal::BridgeInterface(
            bridge.ok_or_else(|| missing(whole, "detectLocal.bridgeInterface", mode))?,
        ),
        Some(mode @ "InterfaceNamePrefix") => DetectLocal::InterfaceNamePrefix(
            prefix.ok_or_else(|| missing(whole, "detectLocal.interfaceNamePrefix", mode))?,
        ),
        _ if cidrs.is_empty() => {
            // without a file this may be one machine without a cluster
            if whole.has_file() {
                whole.warn(
                    "clusterCIDR",
                    "is not set, so local pods cannot be told from other clients: nothing sent to a ClusterIP \
                     is masqueraded unless masqueradeAll is set",
                );
            }
            DetectLocal::None
        }
        _ => DetectLocal::ClusterCidr(cidrs),
    })
}

/// `clusterCIDR`: one CIDR, or one a family with a comma between them.
fn cluster_cidrs(text: &str) -> Result<Vec<IpNet>, String> {
    let cidrs = text.split(',').map(|part| cidr(part.trim())).collect::<Result<Vec<_>, _>>()?;
    let four = cidrs.iter().filter(|cidr| matches!(cidr, IpNet::V4(_))).count();
    if four > 1 || cidrs.len() - four > 1 {
        return Err(format!("must have at most one CIDR of each family, not `{text}`"));
    }
    Ok(cidrs)
}

/// A range of addresses; host bits are cut off, as in kube-proxy.
pub(super) fn cidr(text: &str) -> Result<IpNet, String> {
    let parsed: Result<IpNet, _> = text.parse();
    parsed
        .map(|cidr| cidr.trunc())
        .map_err(|_| format!("must be a CIDR such as 10.244.0.0/16 or fd00:10:244::/56, not `{text}`"))
}

/// The name of an interface, or the beginning of one, with the rules of `dev_valid_name` in
/// net/core/dev.c.
fn interface(name: &str) -> Result<String, String> {
    let foreign = |c: char| c == '/' || c == ':' || c.is_whitespace();
    if name.len() > LONGEST_INTERFACE || name.contains(foreign) || name == "." || name == ".." {
        return Err(format!(
            "must be the name of an interface (at most {LONGEST_INTERFACE} bytes, no slash, colon or space), not \
             `{name}`"
        ));
    }
    Ok(name.to_owned())
}

/// One entry of `nodePortAddresses`.
#[derive(Clone, Copy, PartialEq, Eq)]
enum NodePortEntry {
    Primary,
    Cidr(IpNet),
}

/// `nodePortAddresses`: the word `primary` alone, or CIDRs.
fn node_port_addresses(whole: &mut Section<'_>) -> Result<NodePortAddresses, ConfigError> {
    const NAME: &str = "nodePortAddresses";
    let entries = whole.list(NAME, |value: &Value| match text(value)?.as_str() {
        "primary" => Ok(NodePortEntry::Primary),
        text => {
            cidr(text).map(NodePortEntry::Cidr).map_err(|problem| format!("{problem}, or the word primary"))
        }
    })?;
    if entries == [NodePortEntry::Primary] || entries.is_empty() {
        return Ok(NodePortAddresses::Primary);
    }
    if entries.contains(&NodePortEntry::Primary) {
        let problem = "must be either the word primary alone or a list of CIDRs, not both".to_owned();
        return Err(whole.wrong(NAME, None, problem));
    }
    let mut cidrs: Vec<IpNet> = entries
        .into_iter()
        .filter_map(|entry| match entry {
            NodePortEntry::Cidr(cidr) => Some(cidr),
            NodePortEntry::Primary => None,
        })
        .collect();
    // a family without a CIDR is open on all its addresses: pkg/proxy/util/nodeport_addresses.go
    for all in [Ipv4Net::default().into(), Ipv6Net::default().into()] {
        let same_family = |cidr: &IpNet| cidr.addr().is_ipv4() == IpNet::addr(&all).is_ipv4();
        if !cidrs.iter().any(same_family) {
            cidrs.push(all);
        }
    }
    Ok(NodePortAddresses::Cidrs(cidrs))
}

/// `bindAddress`: no socket is bound to it, whatever its name.
fn bind_ip(whole: &mut Section<'_>) -> Result<Option<IpAddr>, ConfigError> {
    whole.parsed("bindAddress", |text| {
        text.parse::<IpAddr>().map_err(|_| format!("must be an IP address, not `{text}`"))
    })
}

/// `healthzBindAddress` and `metricsBindAddress`, whose defaults follow the family of `bindAddress`.
fn served(whole: &mut Section<'_>, node: Option<IpAddr>) -> Result<[Option<SocketAddr>; 2], ConfigError> {
    let (any, local): (IpAddr, IpAddr) = match node {
        Some(IpAddr::V6(_)) => (Ipv6Addr::UNSPECIFIED.into(), Ipv6Addr::LOCALHOST.into()),
        _ => (Ipv4Addr::UNSPECIFIED.into(), Ipv4Addr::LOCALHOST.into()),
    };
    let mut server = |name, default: SocketAddr| {
        let address = whole.parsed(name, |text| bind_address(text, default))?;
        Ok(address.unwrap_or(Some(default)))
    };
    Ok([
        server("healthzBindAddress", (any, HEALTHZ_PORT).into())?,
        server("metricsBindAddress", (local, METRICS_PORT).into())?,
    ])
}

/// An address with a port, or one of them alone: then with the other one's default. `None` where it is
/// switched off.
fn bind_address(text: &str, default: SocketAddr) -> Result<Option<SocketAddr>, String> {
    if text == OFF {
        return Ok(None);
    }
    let port = || text.strip_prefix(':')?.parse().ok().map(|port| SocketAddr::new(default.ip(), port));
    let ip = || text.trim_matches(['[', ']']).parse().ok().map(|ip| SocketAddr::new(ip, default.port()));
    let parsed = text.parse().ok().or_else(port).or_else(ip);
    parsed.filter(|address| address.port() != 0).map(Some).ok_or_else(|| {
        format!("must be an IP address and a port from 1 to 65535, such as {default}, not `{text}`")
    })
}
