//! Command lines in, options out.

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
        Command::Config(_) | Command::Cleanup(_) => panic!("{line} is not run"),
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
        "run --manifests dir --config c.yaml --node-name Node-1 --affinity-clients 500 --userspace-drain 5 --open-tables --legacy-endpoints --once --dry-run",
    );
    let expected = Run {
        manifests: Some("dir".into()),
        kubeconfig: None,
        config: Some("c.yaml".into()),
        node_name: Some(NodeName("node-1".into())),
        affinity_clients: Some(500),
        open_tables: true,
        userspace_drain: Some(5),
        legacy_endpoints: true,
        once: true,
        dry_run: true,
        ..Run::default()
    };
    assert_eq!(all, expected);
    for (line, kube_proxy) in [("cleanup", false), ("cleanup --kube-proxy", true)] {
        let command = Command::Cleanup(Cleanup { kube_proxy });
        assert_eq!(options(line).unwrap(), Options { verbosity: None, command });
    }
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
        ("run", "info,kube_client=off,shunt=debug"),
        ("run -v 0", "info,kube_client=off"),
        ("run --v=1", "info,kube_client=off"),
        ("run --v=2", "info,kube_client=off,shunt::changes=debug"),
        ("-v 5 run", "info,kube_client=off,shunt=debug"),
        ("-v 6 run", "debug,shunt=trace"),
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
    let ignored: Vec<&str> = run.kube_proxy.ignored.iter().map(|warning| warning.field.as_str()).collect();
    assert_eq!(ignored, ["--log-dir", "--logtostderr"]);
}

#[test]
fn switches_have_values_as_in_kube_proxy() {
    for (line, expected) in [
        ("run", [false; 3]),
        ("run --cleanup --init-only --version", [true; 3]),
        ("run --cleanup=true --init-only=T --version=raw", [true; 3]),
        ("run --cleanup=false --init-only=0 --version=false", [false; 3]),
    ] {
        let run = run(line);
        assert_eq!([run.cleanup, run.init_only, run.version], expected, "{line}");
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
        ("run --service-proxy-name=-a", ErrorKind::ValueValidation, "must be the value of a label"),
        ("run --master 192.0.2.1:6443", ErrorKind::ValueValidation, "must be a URL with its scheme"),
        ("run --cleanup=maybe", ErrorKind::ValueValidation, "must be true or false, not `maybe`"),
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
