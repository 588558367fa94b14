//! The command line: text in, [`Options`] out. What it does not say is left to the configuration.
//!
//! Names follow kube-proxy where it has the same thing (`--config`, `--kubeconfig`, `-v`, and
//! `--hostname-override` for `--node-name`).

use std::ffi::OsString;
use std::path::PathBuf;

use clap::builder::{OsStringValueParser, TypedValueParser};
use clap::{Args, Parser, Subcommand};

use crate::config::{Config, node_name};
use crate::exit::Exit;
use crate::model::name::NodeName;

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

impl Options {
    /// The filter of `tracing` that the wanted verbosity stands for, used unless `RUST_LOG` is set.
    #[must_use]
    pub fn log_filter(&self, config: &Config) -> &'static str {
        match self.verbosity.unwrap_or(config.verbosity) {
            // kube reports every failed request of its own accord; ours says it once.
            0..=3 => "info,kube_client=off",
            4..=5 => "debug",
            _ => "trace",
        }
    }
}

/// The subcommands.
#[derive(Clone, Debug, PartialEq, Eq, Subcommand)]
pub enum Command {
    /// Program this node and keep it in step until SIGTERM or SIGINT
    ///
    /// What is programmed stays in force when shunt stops; `shunt cleanup` removes it.
    #[command(after_help = RUN_EXAMPLES)]
    Run(Run),
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
    /// It decides which endpoints are local. Without it hostnameOverride of the configuration
    /// counts, else the host name. A DaemonSet sets NODE_NAME from spec.nodeName.
    #[arg(
        long,
        verbatim_doc_comment,
        alias = "hostname-override",
        env = "NODE_NAME",
        hide_env_values = true,
        value_name = "NAME",
        value_parser = node_name
    )]
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

/// A node's name, from the flag or the environment.
fn node_name(text: &str) -> Result<NodeName, String> {
    node_name::parse(text).map_err(|problem| format!("{problem} (it was given by the flag, or by NODE_NAME)"))
}

/// A path as the system writes it, which need not be UTF-8.
fn path() -> impl TypedValueParser<Value = PathBuf> {
    OsStringValueParser::new().try_map(|text: OsString| {
        if text.is_empty() { Err("must not be empty") } else { Ok(PathBuf::from(text)) }
    })
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;
    use clap::error::ErrorKind;

    use super::*;

    fn options(line: &str) -> Result<Options, clap::Error> {
        Options::try_parse_from(std::iter::once("shunt").chain(line.split_whitespace().map(
            // a way to write an empty argument in the tables
            |word| word.trim_matches('\''),
        )))
    }

    fn run(line: &str) -> Run {
        match options(line).unwrap().command {
            Command::Run(run) => run,
            Command::Cleanup => panic!("{line} is not run"),
        }
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
        };
        assert_eq!(all, expected);
        assert_eq!(run("run --hostname-override n").node_name, Some(NodeName("n".into())));
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
        let file = Config { verbosity: 4, ..Config::default() };
        let table = [
            ("run", "debug"),
            ("run -v 0", "info,kube_client=off"),
            ("run --v=2", "info,kube_client=off"),
            ("-v 5 run", "debug"),
            ("run --v 9", "trace"),
        ];
        for (line, expected) in table {
            assert_eq!(options(line).unwrap().log_filter(&file), expected, "{line}");
        }
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
