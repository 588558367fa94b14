//! kube-proxy's command line (v1.36): its name, its flags and how they are written. PURE.

use std::ffi::OsString;
use std::fmt::Write as _;
use std::path::Path;

use clap::{Arg, ArgAction, ArgMatches, Args, Command, FromArgMatches};

use crate::config::Warning;
use crate::config::flags::{FLAGS, Flag, Given, Kind, go_flag};

/// Called by this name the program is `shunt run`.
const NAME: &str = "kube-proxy";

/// Flags of kube-proxy that stand for nothing here: those of klog and cadvisor. The second item tells
/// whether it is a switch.
const IGNORED: [(&str, bool); 15] = [
    ("--add-dir-header", true),
    ("--alsologtostderr", true),
    ("--boot-id-file", false),
    ("--legacy-stderr-threshold-behavior", true),
    ("--log-backtrace-at", false),
    ("--log-dir", false),
    ("--log-file", false),
    ("--log-file-max-size", false),
    ("--logtostderr", true),
    ("--machine-id-file", false),
    ("--one-output", true),
    ("--skip-headers", true),
    ("--skip-log-headers", true),
    ("--stderrthreshold", false),
    ("--housekeeping-interval", false),
];

/// The flags of kube-proxy that were given.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KubeProxyFlags {
    /// Those that stand for a field of the configuration.
    pub given: Vec<Given>,
    /// Those that stand for nothing here, each with what that means.
    pub ignored: Vec<Warning>,
}

impl Args for KubeProxyFlags {
    fn augment_args(command: Command) -> Command {
        let switch = |flag: &Flag| (flag.name, flag.kind == Kind::Switch);
        FLAGS
            .iter()
            .map(switch)
            .chain(IGNORED)
            .fold(command, |command, (name, switch)| command.arg(argument(name, switch)))
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for KubeProxyFlags {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let texts = |name: &'static str| matches.get_many::<String>(name).into_iter().flatten();
        let given = |flag: &'static Flag| texts(flag.name).map(move |text| Given::flag(flag, text));
        let ignored = |(name, _): &(&'static str, bool)| {
            texts(name).last().map(|_| Warning {
                field: (*name).to_owned(),
                message: "has no effect: it belongs to the logging of kube-proxy and the libraries in it; \
                          shunt logs to standard error"
                    .to_owned(),
            })
        };
        Ok(Self {
            given: FLAGS.iter().flat_map(given).collect(),
            ignored: IGNORED.iter().filter_map(ignored).collect(),
        })
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

/// A flag as pflag reads it: a switch has a value only behind `=`, the last one of several counts, and
/// a value may begin with a dash.
fn argument(name: &'static str, switch: bool) -> Arg {
    let argument = Arg::new(name).long(name.trim_start_matches('-')).action(ArgAction::Append).hide(true);
    if switch {
        argument.num_args(0..=1).require_equals(true).default_missing_value("true").value_name("BOOL")
    } else {
        argument.allow_hyphen_values(true).value_name("VALUE")
    }
}

/// The value of a switch.
pub(super) fn switch(text: &str) -> Result<bool, String> {
    go_flag(text).ok_or_else(|| format!("must be true or false, not `{text}`"))
}

/// The value of `--version`, which may be `raw` too.
pub(super) fn version(text: &str) -> Result<bool, String> {
    if text == "raw" { Ok(true) } else { switch(text) }
}

/// The help about the flags: each with the field that it sets.
pub(super) fn help() -> String {
    let mut help =
        "kube-proxy's flags are accepted by their names; each wins over the field of --config:\n".to_owned();
    let width = FLAGS.iter().map(|flag| flag.name.len()).max().unwrap_or_default();
    for flag in FLAGS {
        // writing to a String cannot fail
        let _ = writeln!(help, "  {:width$}  {}", flag.name, flag.fields.join(", "));
    }
    help.push_str("  and, without effect: those of klog and cadvisor, such as --logtostderr\n");
    help
}

/// The command line as clap is to read it. Called as `kube-proxy` without a subcommand it is `run`'s;
/// underscores in the names of flags are dashes, as in kube-proxy.
pub fn arguments(arguments: impl IntoIterator<Item = OsString>) -> Vec<OsString> {
    let mut arguments = arguments.into_iter().map(dashed);
    let name = arguments.next().unwrap_or_default();
    let as_kube_proxy = Path::new(&name).file_name().is_some_and(|name| name == NAME);
    let mut rest = arguments.peekable();
    let is_flag = |argument: &OsString| argument.as_encoded_bytes().starts_with(b"-");
    let run = (as_kube_proxy && rest.peek().is_none_or(is_flag)).then(|| OsString::from("run"));
    [name].into_iter().chain(run).chain(rest).collect()
}

/// `--log_dir=a_b` as `--log-dir=a_b`.
fn dashed(argument: OsString) -> OsString {
    let Some(text) = argument.to_str().filter(|text| text.starts_with("--")) else { return argument };
    let (name, value) = text.split_at(text.find('=').unwrap_or(text.len()));
    if name.contains('_') { format!("{}{value}", name.replace('_', "-")).into() } else { argument }
}
