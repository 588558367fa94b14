//! The command line: text in, [`Options`] out. What it does not say is left to the configuration.
//!
//! kube-proxy's own flags are in `kube_proxy.rs`.

mod kube_proxy;

use std::ffi::OsString;
use std::path::PathBuf;

use clap::builder::{OsStringValueParser, TypedValueParser};
use clap::{Args, Parser, Subcommand};

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
    /// Up to 3: what changes. 4 and 5: each sync. From 6 on: each element.
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
        0..=3 => "info,kube_client=off",
        4..=5 => "debug",
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
    /// Remove everything that shunt has programmed on this node
    ///
    /// Touches nothing else, and does no harm when there is nothing to remove. While a shunt runs
    /// on this node it owns what is programmed: cleanup then names that process, changes nothing
    /// and exits with 7.
    #[command(verbatim_doc_comment)]
    Cleanup,
}

/// `shunt run`.
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
  shunt run --kubeconfig ~/.kube/config --once -v 4
      program this node once from a cluster, and log each step";

fn after_help() -> String {
    format!(
        "Examples:\n  shunt run --manifests ./examples\n  shunt run --config /var/lib/kube-proxy/config.conf\n  \
         shunt cleanup\n  shunt help run\n\n{}",
        Exit::table()
    )
}

/// A path as the system writes it, which need not be UTF-8.
fn path() -> impl TypedValueParser<Value = PathBuf> {
    OsStringValueParser::new().try_map(|text: OsString| {
        if text.is_empty() { Err("must not be empty") } else { Ok(PathBuf::from(text)) }
    })
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use clap::CommandFactory as _;
    use clap::error::ErrorKind;

    use crate::config::{self, ConfigError, Loaded};

    use super::*;

    fn options(line: &str) -> Result<Options, clap::Error> {
        Options::try_parse_from(std::iter::once("shunt").chain(line.split_whitespace().map(
            // a way to write an empty argument in the tables
            |word| word.trim_matches('\''),
        )))
    }

    fn run(line: &str) -> Run {
        match options(line).unwrap().command {
            Command::Run(run) => *run,
            Command::Cleanup => panic!("{line} is not run"),
        }
    }

    const HEAD: &str = "apiVersion: kubeproxy.config.k8s.io/v1alpha1\nkind: KubeProxyConfiguration\n";

    fn loaded(line: &str, node_name: Option<&str>, file: &str) -> Result<Loaded, ConfigError> {
        let options = options(line).unwrap();
        let Command::Run(run) = &options.command else { panic!("{line} is not run") };
        config::parse(file, Path::new("proxy.yaml"), &options.given(run, node_name.map(Into::into)))
    }

    #[test]
    fn the_definition_is_sound() {
        Options::command().debug_assert();
    }

    #[test]
    fn flags_are_read() {
        let all = run(
            "run --manifests dir --config c.yaml --node-name Node-1 --affinity-clients 500 --legacy-endpoints --once --dry-run",
        );
        let expected = Run {
            manifests: Some("dir".into()),
            kubeconfig: None,
            config: Some("c.yaml".into()),
            node_name: Some(NodeName("node-1".into())),
            affinity_clients: Some(500),
            legacy_endpoints: true,
            once: true,
            dry_run: true,
            kube_proxy: KubeProxyFlags::default(),
        };
        assert_eq!(all, expected);
        assert_eq!(options("cleanup").unwrap(), Options { verbosity: None, command: Command::Cleanup });
    }

    #[test]
    fn the_source_is_the_most_explicit_one() {
        let file = Config { kubeconfig: Some("file".into()), ..Config::default() };
        let none = Config::default();
        let table = [
            ("run --manifests m", &file, SourceChoice::Manifests("m".into())),
            ("run --kubeconfig k", &file, SourceChoice::Kubeconfig("k".into())),
            ("run", &file, SourceChoice::Kubeconfig("file".into())),
            ("run", &none, SourceChoice::InCluster),
        ];
        for (line, config, expected) in table {
            assert_eq!(run(line).source(config), expected, "{line}");
        }
    }

    #[test]
    fn the_verbosity_of_the_command_line_wins() {
        let file = format!("{HEAD}logging: {{verbosity: 4}}\n");
        let table = [
            ("run", "debug"),
            ("run -v 0", "info,kube_client=off"),
            ("run --v=2", "info,kube_client=off"),
            ("-v 5 run", "debug"),
            ("run --v 9", "trace"),
        ];
        for (line, expected) in table {
            let loaded = loaded(line, None, &file).unwrap();
            assert_eq!(log_filter(loaded.config.verbosity), expected, "{line}");
        }
    }

    #[test]
    fn the_node_is_named_by_flags_then_the_environment_then_the_file() {
        let file = format!("{HEAD}hostnameOverride: file\n");
        let table = [
            ("run", None, "file"),
            ("run", Some(""), "file"),
            ("run", Some("Env"), "env"),
            ("run --hostname-override=", Some("env"), "env"),
            ("run --hostname-override Flag", Some("env"), "flag"),
            ("run --hostname-override b --node-name a", Some("env"), "a"),
            ("run --node-name a --hostname-override b", None, "a"),
        ];
        for (line, environment, expected) in table {
            let loaded = loaded(line, environment, &file).unwrap();
            assert_eq!(loaded.config.node_name.as_deref(), Some(expected), "{line}");
            assert!(loaded.warnings.iter().all(|warning| warning.field == "clusterCIDR"), "{loaded:?}");
        }
        let error = loaded("run", Some("a/b"), &file).unwrap_err().to_string();
        assert!(error.starts_with("NODE_NAME must be the name of a Node"), "{error}");
    }

    #[test]
    fn flags_of_kube_proxy_are_written_as_there() {
        let table = [
            ("kube-proxy", "kube-proxy run"),
            ("/usr/local/bin/kube-proxy --config a_b", "/usr/local/bin/kube-proxy run --config a_b"),
            ("kube-proxy --version=true", "kube-proxy run --version=true"),
            ("kube-proxy cleanup", "kube-proxy cleanup"),
            ("shunt --help", "shunt --help"),
            ("shunt run --proxy_mode=a_b -v=2", "shunt run --proxy-mode=a_b -v=2"),
        ];
        for (line, expected) in table {
            let words = arguments(line.split(' ').map(Into::into));
            assert_eq!(words.join(" ".as_ref()), expected, "{line}");
        }
        let run = run(
            "run --masquerade-all --bind-address-hard-fail=false --oom-score-adj -999 --nodeport-addresses a \
             --nodeport-addresses=b --logtostderr --v=2 --log-dir /tmp --conntrack-min 1 --conntrack-min 2",
        );
        let given: Vec<String> =
            run.kube_proxy.given.iter().map(|given| format!("{:?}={}", given.origin, given.text)).collect();
        let expected = [
            "Flag(\"--bind-address-hard-fail\")=false",
            "Flag(\"--conntrack-min\")=1",
            "Flag(\"--conntrack-min\")=2",
            "Flag(\"--masquerade-all\")=true",
            "Flag(\"--nodeport-addresses\")=a",
            "Flag(\"--nodeport-addresses\")=b",
            "Flag(\"--oom-score-adj\")=-999",
        ];
        assert_eq!(given, expected);
        let ignored: Vec<&str> =
            run.kube_proxy.ignored.iter().map(|warning| warning.field.as_str()).collect();
        assert_eq!(ignored, ["--log-dir", "--logtostderr"]);
    }

    #[test]
    fn wrong_command_lines_say_what_is_wrong() {
        let table = [
            ("run --manifests m --kubeconfig k", ErrorKind::ArgumentConflict, "--kubeconfig"),
            ("run --node-name ''", ErrorKind::ValueValidation, "must not be empty"),
            ("run --node-name a/b", ErrorKind::ValueValidation, "without spaces and slashes"),
            ("run --manifests ''", ErrorKind::ValueValidation, "must not be empty"),
            ("run --kubeconfig ''", ErrorKind::ValueValidation, "must not be empty"),
            ("run --config=", ErrorKind::ValueValidation, "must not be empty"),
            ("run --manifests", ErrorKind::InvalidValue, "--manifests <DIR>"),
            ("run --manifest m", ErrorKind::UnknownArgument, "--manifests"),
            ("run --once --once", ErrorKind::ArgumentConflict, "multiple times"),
            ("run --affinity-clients 0", ErrorKind::ValueValidation, "1..=16777216"),
            ("run -v 11", ErrorKind::ValueValidation, "0..=10"),
            ("run m", ErrorKind::UnknownArgument, "'m'"),
            ("clean", ErrorKind::InvalidSubcommand, "cleanup"),
            ("", ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand, "Usage: shunt"),
        ];
        for (line, kind, said) in table {
            let error = options(line).unwrap_err();
            assert_eq!(error.kind(), kind, "{line}: {error}");
            assert!(error.to_string().contains(said), "{line}: {error}");
            assert_eq!(error.exit_code(), i32::from(Exit::Usage.code()), "{line}");
        }
    }

    #[test]
    fn the_help_shows_examples_and_every_exit_code() {
        let help = Options::command().render_long_help().to_string();
        assert!(help.contains("shunt run --manifests ./examples"), "{help}");
        for exit in Exit::ALL {
            assert!(help.contains(exit.meaning()), "{exit:?} in {help}");
        }
        assert_eq!(options("--version").unwrap_err().kind(), ErrorKind::DisplayVersion);
    }
}
