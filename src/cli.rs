//! The command line: text in, [`Options`] out. What it does not say is left to the configuration.
//!
//! kube-proxy's own flags are in `kube_proxy.rs`.

mod kube_proxy;
#[cfg(test)]
mod tests;

use std::ffi::OsString;
use std::path::PathBuf;

use clap::builder::{OsStringValueParser, TypedValueParser};
use clap::{ArgAction, Args, Parser, Subcommand};
use hyper::Uri;

use crate::config::flags::{Given, Kind};
use crate::config::{Config, Origin, node_name};
use crate::exit::Exit;
use crate::model::name::NodeName;

pub use kube_proxy::{KubeProxyFlags, arguments};

/// What the user asked for. Made with [`Options::parse`] of [`clap::Parser`], which prints help,
/// version and what is wrong, and then exits with 0 or [`Exit::Usage`].
#[derive(Clone, Debug, PartialEq, Eq, Parser)]
#[command(
    name = "shunt",
    bin_name = "shunt",
    version,
    about = "Serves Kubernetes Services on this node: a kube-proxy replacement on nftables",
    long_about = "Serves Kubernetes Services on this node, in place of kube-proxy.\n\n\
        shunt watches Services and EndpointSlices, from the Kubernetes API or from a directory of\n\
        manifests, and programs nftables over netlink so that connections to ClusterIPs, NodePorts,\n\
        external and load-balancer IPs reach an endpoint. Only differences are written, and what is\n\
        programmed stays in force when shunt stops.",
    after_help = after_help()
)]
pub struct Options {
    /// How much to log, from 0 to 10
    ///
    /// 0 and 1: what happens to this node. 2 and 3: also which Services each sync changes.
    /// 4 and 5: each sync with its plan. From 6 on: each transaction.
    /// Without it logging.verbosity of the configuration counts, else 0.
    /// RUST_LOG, such as `shunt=debug,kube=warn`, wins over both.
    #[arg(short, long = "v", global = true, display_order = 900, verbatim_doc_comment, value_name = "LEVEL", value_parser = clap::value_parser!(u32).range(0..=10))]
    pub verbosity: Option<u32>,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The filter of `tracing` that a verbosity stands for, used unless `RUST_LOG` is set.
#[must_use]
pub fn log_filter(verbosity: u32) -> &'static str {
    match verbosity {
        // kube reports every failed request of its own accord; ours says it once.
        0..=1 => "info,kube_client=off",
        2..=3 => "info,kube_client=off,shunt::changes=debug",
        // libraries tell of every connection and request
        4..=5 => "info,kube_client=off,shunt=debug",
        6..=8 => "debug,shunt=trace",
        _ => "trace",
    }
}

impl Options {
    /// What the command line and the variable `NODE_NAME` say about fields of the configuration.
    #[must_use]
    pub fn given(&self, run: &Run, node_name: Option<String>) -> Vec<Given> {
        let name = |origin, text| Given { origin, fields: &["hostnameOverride"], kind: Kind::Text, text };
        let mut given = Vec::new();
        given.extend(node_name.map(|text| name(Origin::Environment("NODE_NAME"), text)));
        given.extend(run.kube_proxy.given.iter().cloned());
        let flag = run.node_name.as_ref();
        given.extend(flag.map(|text| name(Origin::Flag("--node-name"), text.to_string())));
        // what is empty says nothing, as in kube-proxy: the file counts then
        given.retain(|given| given.fields != ["hostnameOverride"] || !given.text.is_empty());
        given.extend(self.verbosity.map(|level| Given {
            origin: Origin::Flag("-v"),
            fields: &["logging.verbosity"],
            kind: Kind::Number,
            text: level.to_string(),
        }));
        given
    }
}

/// The subcommands.
#[derive(Clone, Debug, PartialEq, Eq, Subcommand)]
pub enum Command {
    /// Program this node and keep it in step until SIGTERM or SIGINT
    ///
    /// What is programmed stays in force when shunt stops; `shunt cleanup` removes it.
    #[command(after_help = RUN_EXAMPLES, after_long_help = format!("{}\n{RUN_EXAMPLES}", kube_proxy::help()))]
    Run(Box<Run>),
    /// Print the configuration that `shunt run` with the same flags would have, and where it comes from
    ///
    /// A KubeProxyConfiguration that can be used as it is; each line tells in a comment whether it is a
    /// default or which file, flag or variable it comes from. What is not honoured is named in warnings
    /// on standard error. Nothing is contacted or changed, and no privilege is needed.
    #[command(verbatim_doc_comment)]
    Config(Box<Run>),
    /// Remove everything that shunt has programmed on this node
    ///
    /// Touches nothing else, and does no harm when there is nothing to remove. While a shunt runs
    /// on this node it owns what is programmed: cleanup then names that process, changes nothing
    /// and exits with 7.
    #[command(verbatim_doc_comment)]
    Cleanup(Cleanup),
}

/// `shunt cleanup`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Args)]
pub struct Cleanup {
    /// Remove what kube-proxy has left behind instead, and nothing of shunt's
    ///
    /// Its nftables tables; its chains in iptables, with iptables' own tools where they are
    /// installed; the interface and ipsets of its ipvs mode. Says what it removed and what it left.
    /// shunt may run meanwhile, and connections live on. Stop kube-proxy first: it would write
    /// everything again.
    #[arg(long, verbatim_doc_comment)]
    pub kube_proxy: bool,
}

/// `shunt run`.
#[expect(clippy::struct_excessive_bools, reason = "each is a flag of its own")]
#[derive(Clone, Debug, Default, PartialEq, Eq, Args)]
pub struct Run {
    /// Take Services from the .yaml, .yml and .json files of this directory
    ///
    /// Services, EndpointSlices, Endpoints, Pods, Nodes and ServiceCIDRs are read, files may hold
    /// several documents, and changes take effect as files are written. No API server is needed:
    /// what `kubectl get services,pods -o yaml` prints will do. Pods are the endpoints of the
    /// Services that select them and have neither EndpointSlices nor Endpoints in the directory.
    #[arg(long, verbatim_doc_comment, value_name = "DIR", value_parser = path(), conflicts_with = "kubeconfig")]
    pub manifests: Option<PathBuf>,
    /// Take Services from the Kubernetes API that this file leads to
    ///
    /// Without it, and without --manifests, clientConnection.kubeconfig of the configuration
    /// counts, else the credentials that Kubernetes gives to a pod.
    #[arg(long, verbatim_doc_comment, value_name = "FILE", value_parser = path())]
    pub kubeconfig: Option<PathBuf>,
    /// A KubeProxyConfiguration (kubeproxy.config.k8s.io/v1alpha1), YAML or JSON
    ///
    /// The file of a kubeadm or kind cluster is read as it is. A field that is not honoured yet
    /// is named in a warning; an unknown field or a wrong value is an error.
    #[arg(long, verbatim_doc_comment, value_name = "FILE", value_parser = path())]
    pub config: Option<PathBuf>,
    /// The name of this node's Node object
    ///
    /// It decides which endpoints are local. Without it --hostname-override counts, then the
    /// variable NODE_NAME, which a DaemonSet sets from spec.nodeName, then hostnameOverride of the
    /// configuration, then the host name.
    #[arg(long, verbatim_doc_comment, value_name = "NAME", value_parser = node_name::parse)]
    pub node_name: Option<NodeName>,
    /// How many clients of a Service with ClientIP affinity are remembered at most [default: 131072]
    ///
    /// For each of its ports, and apart for the endpoints of all nodes and those of this node alone.
    /// Clients beyond that reach an endpoint chosen at random, and are counted in the metric
    /// shunt_affinity_not_remembered_total. One that is remembered takes about 130 bytes of kernel
    /// memory; nothing is set aside for clients that do not come.
    #[arg(
        long,
        verbatim_doc_comment,
        env = "SHUNT_AFFINITY_CLIENTS",
        hide_env_values = true,
        value_name = "NUMBER",
        value_parser = clap::value_parser!(u32).range(1..=16_777_216)
    )]
    pub affinity_clients: Option<u32>,
    /// Serve the Services that carry this value of the label service.kubernetes.io/service-proxy-name
    ///
    /// Without it those that do not carry the label at all are served, as by kube-proxy.
    #[arg(long, verbatim_doc_comment, value_name = "VALUE", value_parser = label_value)]
    pub service_proxy_name: Option<String>,
    /// The API server's address, such as https://192.0.2.1:6443, in place of the kubeconfig's
    ///
    /// For a pod: in place of the variables KUBERNETES_SERVICE_HOST and _PORT, which are a ClusterIP.
    #[arg(long, verbatim_doc_comment, value_name = "URL", value_parser = master)]
    pub master: Option<Uri>,
    /// Let other programs change shunt's nftables tables
    ///
    /// From Linux 6.9 on the kernel lets nobody but the running shunt change them: `nft flush
    /// ruleset` passes them by, and a saved ruleset that has them in it fails to load. With this
    /// option they are open to everybody, as on older kernels, and what others change in them is
    /// noticed and put right within a second.
    #[arg(
        long,
        verbatim_doc_comment,
        env = "SHUNT_OPEN_TABLES",
        hide_env_values = true,
        value_parser = clap::builder::FalseyValueParser::new()
    )]
    pub open_tables: bool,
    /// How long connections of a Service that was removed may go on, in seconds [default: 60]
    ///
    /// In the userspace mode, where connections go through shunt; then they are broken off. Nothing
    /// new is accepted from the moment at which the Service is removed.
    #[arg(long, verbatim_doc_comment, value_name = "SECONDS", value_parser = clap::value_parser!(u32).range(0..=86_400))]
    pub userspace_drain: Option<u32>,
    /// Follow legacy Endpoints objects of the API server too
    ///
    /// They count for Services that have no EndpointSlice. In manifests they always do.
    #[arg(long, verbatim_doc_comment)]
    pub legacy_endpoints: bool,
    /// Program the node, then exit with 0 when the kernel has it
    #[arg(long)]
    pub once: bool,
    /// Print what would be programmed as lines with +, ~ and -, then exit; change nothing
    #[arg(long)]
    pub dry_run: bool,
    /// Set the node's connection tracking as the configuration says, then exit with 0
    ///
    /// For a privileged init container: after that `shunt run` needs no more than CAP_NET_ADMIN.
    #[arg(long, verbatim_doc_comment, num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value_t = false, hide_default_value = true, value_parser = kube_proxy::switch, value_name = "BOOL", hide_possible_values = true, action = ArgAction::Set)]
    pub init_only: bool,
    /// Write what `shunt config` prints to this file, then exit with 0
    #[arg(long, value_name = "FILE", value_parser = path())]
    pub write_config_to: Option<PathBuf>,
    /// As `shunt cleanup`: the name that kube-proxy has for it.
    #[arg(long, hide = true, num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value_t = false, value_parser = kube_proxy::switch, action = ArgAction::Set)]
    pub cleanup: bool,
    /// As `shunt --version`: kube-proxy's flag has a value.
    #[arg(long, hide = true, num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value_t = false, value_parser = kube_proxy::version, action = ArgAction::Set)]
    pub version: bool,
    /// The flags of kube-proxy.
    #[command(flatten)]
    pub kube_proxy: KubeProxyFlags,
}

impl Run {
    /// Where Services and endpoints come from: flags first, then `config`, then the pod itself.
    #[must_use]
    pub fn source(&self, config: &Config) -> SourceChoice {
        if let Some(directory) = &self.manifests {
            return SourceChoice::Manifests(directory.clone());
        }
        let kubeconfig = self.kubeconfig.as_ref().or(config.kubeconfig.as_ref());
        kubeconfig.map_or(SourceChoice::InCluster, |file| SourceChoice::Kubeconfig(file.clone()))
    }
}

/// Where Services and endpoints come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SourceChoice {
    /// A directory of manifests.
    Manifests(PathBuf),
    /// The API server that a kubeconfig leads to.
    Kubeconfig(PathBuf),
    /// The API server, with the credentials that Kubernetes gives to a pod.
    InCluster,
}

const RUN_EXAMPLES: &str = "\
Examples:
  shunt run --manifests ./examples --node-name node-1
      serve the Services of a directory, without Kubernetes
  shunt run --manifests ./examples --dry-run
      show what would be programmed
  shunt run --config /var/lib/kube-proxy/config.conf
      take the place of kube-proxy in a kubeadm cluster
  shunt run --config FILE --proxy-mode=nftables --hostname-override=node-1 --v=2
      as kube-proxy, whose flags are all accepted
  shunt run --kubeconfig ~/.kube/config --once -v 4
      program this node once from a cluster, and log each step";

fn after_help() -> String {
    format!(
        "Examples:\n  shunt run --manifests ./examples\n  shunt run --config /var/lib/kube-proxy/config.conf\n  \
         shunt cleanup\n  shunt help run\n\n{}",
        Exit::table()
    )
}

/// The value of a label, with the rules of Kubernetes.
fn label_value(text: &str) -> Result<String, String> {
    let inner = |c: char| c.is_ascii_alphanumeric() || ['-', '_', '.'].contains(&c);
    let ends = |c: char| c.is_ascii_alphanumeric();
    let good = text.len() <= 63 && text.starts_with(ends) && text.ends_with(ends) && text.chars().all(inner);
    let problem = || {
        "must be the value of a label: up to 63 letters, digits, dashes, underscores and dots, with a letter \
         or digit at both ends"
    };
    good.then(|| text.to_owned()).ok_or_else(|| problem().to_owned())
}

/// The address of an API server. A bare host and port are HTTP for kube-proxy, which no server speaks.
fn master(text: &str) -> Result<Uri, String> {
    let uri: Option<Uri> = text.parse().ok();
    uri.filter(|uri| ["http", "https"].contains(&uri.scheme_str().unwrap_or_default()))
        .ok_or_else(|| "must be a URL with its scheme, such as https://192.0.2.1:6443".to_owned())
}

/// A path as the system writes it, which need not be UTF-8.
fn path() -> impl TypedValueParser<Value = PathBuf> {
    OsStringValueParser::new().try_map(|text: OsString| {
        if text.is_empty() { Err("must not be empty") } else { Ok(PathBuf::from(text)) }
    })
}
