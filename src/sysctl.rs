//! The node's own settings: connection tracking, and this process's OOM score. [`wanted`] is PURE, the
//! rest EDGE.
//!
//! As in kube-proxy (`pkg/proxy/conntrack/sysctls.go`): the table is made larger, never smaller, and
//! what is zero or unset stays as it is. Other than there nothing stops shunt: what cannot be written is
//! one warning.

use std::fmt;
use std::fs;
use std::io;
use std::path::Path;
use std::time::Duration;

use tracing::{debug, info, warn};

use crate::config::{Config, Conntrack, OOM_SCORE};

/// More entries than this are not asked for on account of many cores: 300 MB of kernel memory when full.
const MOST_ENTRIES: i64 = 1 << 20;

/// Entries for each slot of the hash table, as in kube-proxy.
const ENTRIES_PER_SLOT: i64 = 4;

const MAX: &str = "proc/sys/net/netfilter/nf_conntrack_max";
const SLOTS: &str = "sys/module/nf_conntrack/parameters/hashsize";
const OOM: &str = "proc/self/oom_score_adj";
const ONLINE: &str = "sys/devices/system/cpu/online";

/// When settings that do not exist are tried again, and how often.
const RETRY: Duration = Duration::from_secs(5);
const ATTEMPTS: usize = 24;

/// A file of the kernel and the number that should be in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Setting {
    /// The path below `/`.
    pub path: &'static str,
    /// The number.
    pub value: i64,
    /// A larger number is as good.
    pub at_least: bool,
    /// The field of the configuration that asks for it.
    pub field: &'static str,
}

/// The settings of the node that `conntrack` asks for, on a node with `cores`. PURE.
#[must_use]
pub fn wanted(conntrack: &Conntrack, cores: i64) -> Vec<Setting> {
    let mut settings = Vec::new();
    if conntrack.max_per_core > 0 {
        let scaled = i64::from(conntrack.max_per_core).saturating_mul(cores);
        let value = scaled.min(MOST_ENTRIES).max(conntrack.min.into());
        let at_least = |path, value| Setting { path, value, at_least: true, field: "conntrack.maxPerCore" };
        settings.extend([at_least(MAX, value), at_least(SLOTS, value / ENTRIES_PER_SLOT)]);
    }
    let timeouts = [
        (
            "proc/sys/net/netfilter/nf_conntrack_tcp_timeout_established",
            conntrack.tcp_established,
            "conntrack.tcpEstablishedTimeout",
        ),
        (
            "proc/sys/net/netfilter/nf_conntrack_tcp_timeout_close_wait",
            conntrack.tcp_close_wait,
            "conntrack.tcpCloseWaitTimeout",
        ),
        ("proc/sys/net/netfilter/nf_conntrack_udp_timeout", conntrack.udp, "conntrack.udpTimeout"),
        (
            "proc/sys/net/netfilter/nf_conntrack_udp_timeout_stream",
            conntrack.udp_stream,
            "conntrack.udpStreamTimeout",
        ),
    ];
    for (path, timeout, field) in timeouts.into_iter().filter(|(_, timeout, _)| !timeout.is_zero()) {
        settings.push(Setting { path, value: seconds(timeout), at_least: false, field });
    }
    if conntrack.tcp_be_liberal {
        let path = "proc/sys/net/netfilter/nf_conntrack_tcp_be_liberal";
        settings.push(Setting { path, value: 1, at_least: false, field: "conntrack.tcpBeLiberal" });
    }
    settings
}

/// Whole seconds, but not none: no timeout at all would end connections at once.
fn seconds(timeout: Duration) -> i64 {
    i64::try_from(timeout.as_secs()).unwrap_or(i64::MAX).clamp(1, i32::MAX.into())
}

/// Writes what `config` asks of the node, where it is not so already. Returns the settings that the
/// kernel does not have yet: it loads connection tracking with the first rule that needs it.
#[must_use]
pub fn set_node(config: &Config) -> Vec<Setting> {
    let root = Path::new("/");
    set_all(root, &wanted(&config.conntrack, cores(root)))
}

/// Writes settings that the kernel did not have, when it has them.
pub async fn set_later(mut settings: Vec<Setting>) {
    for _ in 0..ATTEMPTS {
        if settings.is_empty() {
            return;
        }
        tokio::time::sleep(RETRY).await;
        settings = set_all(Path::new("/"), &settings);
    }
    warn_of_missing(&settings);
}

/// Says that the kernel does not have these settings.
pub fn warn_of_missing(settings: &[Setting]) {
    if !settings.is_empty() {
        let list: Vec<String> = settings.iter().map(|it| format!("/{} ({})", it.path, it.field)).collect();
        warn!(
            "settings of the node that do not exist: {}; nf_conntrack is not loaded (modprobe nf_conntrack), or \
             /proc and /sys are not mounted here",
            list.join(", ")
        );
    }
}

/// Writes settings, warns of those that cannot be written, returns those that do not exist.
fn set_all(root: &Path, settings: &[Setting]) -> Vec<Setting> {
    let failures = settings.iter().filter_map(|setting| set(root, setting).err());
    let (missing, refused): (Vec<_>, Vec<_>) =
        failures.partition(|failure| failure.error.kind() == io::ErrorKind::NotFound);
    if !refused.is_empty() {
        let list: Vec<String> = refused.iter().map(ToString::to_string).collect();
        warn!(
            "settings of the node that could not be written: {}; Services work without them. Set them on the host, \
             or by `shunt run --init-only` in a privileged init container; 0 in the configuration leaves a setting alone",
            list.join("; ")
        );
    }
    missing.into_iter().map(|failure| failure.setting).collect()
}

/// Tells the kernel how readily it may kill this process when memory runs out.
pub fn set_oom_score(config: &Config) {
    let setting =
        Setting { path: OOM, value: config.oom_score_adj.into(), at_least: false, field: "oomScoreAdj" };
    match set(Path::new("/"), &setting) {
        // kube-proxy's default, which takes CAP_SYS_RESOURCE: nobody has asked for it
        Err(failure) if config.oom_score_adj == OOM_SCORE => debug!("the default of {failure}"),
        Err(failure) => {
            warn!("{failure}; the score of this process stays as it is (a lower one takes CAP_SYS_RESOURCE)");
        }
        Ok(()) => {}
    }
}

/// A setting that could not be written.
#[derive(Debug)]
struct Failure {
    setting: Setting,
    /// What is there, if it can be read.
    found: Option<i64>,
    error: io::Error,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Setting { path, value, field, .. } = &self.setting;
        write!(f, "{field}: /{path} should be {value}")?;
        if let Some(found) = self.found {
            write!(f, ", is {found}")?;
        }
        write!(f, " ({})", self.error)
    }
}

/// Writes one setting below `root`, unless it is as it should be.
fn set(root: &Path, setting: &Setting) -> Result<(), Failure> {
    let file = root.join(setting.path);
    let found = read(&file);
    if setting.at_least && found.as_ref().is_err_and(|it| it.kind() == io::ErrorKind::PermissionDenied) {
        // the size of the hash table is root's to know; whoever may not read it may not write it
        debug!("{}: /{} is not for us to read", setting.field, setting.path);
        return Ok(());
    }
    let found = found.ok();
    let good = |found| if setting.at_least { found >= setting.value } else { found == setting.value };
    if found.is_some_and(good) {
        return Ok(());
    }
    fs::write(&file, setting.value.to_string()).map_err(|error| Failure {
        setting: setting.clone(),
        found,
        error,
    })?;
    info!("{}: /{} is {} now", setting.field, setting.path, setting.value);
    Ok(())
}

fn read(file: &Path) -> io::Result<i64> {
    fs::read_to_string(file)?.trim().parse().map_err(io::Error::other)
}

/// The cores of the whole node, whatever this process may use: the table is the node's.
fn cores(root: &Path) -> i64 {
    let online = fs::read_to_string(root.join(ONLINE)).ok().and_then(|text| count(text.trim()));
    let ours = || std::thread::available_parallelism().ok().and_then(|cores| i64::try_from(cores.get()).ok());
    online.or_else(ours).unwrap_or(1)
}

/// How many numbers a list such as `0-3,5` has. PURE.
fn count(list: &str) -> Option<i64> {
    let one = |range: &str| {
        let (from, to) = range.split_once('-').unwrap_or((range, range));
        let (from, to): (i64, i64) = (from.parse().ok()?, to.parse().ok()?);
        (from <= to).then_some(to - from + 1)
    };
    list.split(',').map(one).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_those_of_kube_proxy() {
        let nothing = Conntrack {
            max_per_core: 0,
            tcp_established: Duration::ZERO,
            tcp_close_wait: Duration::ZERO,
            ..Conntrack::default()
        };
        let table = [
            (nothing.clone(), vec![]),
            (
                Conntrack::default(),
                vec![
                    ("nf_conntrack_max", 131_072),
                    ("hashsize", 32_768),
                    ("nf_conntrack_tcp_timeout_established", 86_400),
                    ("nf_conntrack_tcp_timeout_close_wait", 3_600),
                ],
            ),
            (
                Conntrack { max_per_core: 40_000, ..nothing.clone() },
                vec![("nf_conntrack_max", 160_000), ("hashsize", 40_000)],
            ),
            (
                Conntrack { max_per_core: u32::MAX >> 1, ..nothing.clone() },
                vec![("nf_conntrack_max", 1_048_576), ("hashsize", 262_144)],
            ),
            (
                Conntrack { max_per_core: 1, min: 2_000_000, ..nothing.clone() },
                vec![("nf_conntrack_max", 2_000_000), ("hashsize", 500_000)],
            ),
            (Conntrack { min: 5, ..nothing.clone() }, vec![]),
            (
                Conntrack {
                    tcp_be_liberal: true,
                    udp: Duration::from_millis(1),
                    udp_stream: Duration::from_secs(7),
                    ..nothing.clone()
                },
                vec![
                    ("nf_conntrack_udp_timeout", 1),
                    ("nf_conntrack_udp_timeout_stream", 7),
                    ("nf_conntrack_tcp_be_liberal", 1),
                ],
            ),
        ];
        for (conntrack, expected) in table {
            let settings = wanted(&conntrack, 4);
            let found: Vec<(&str, i64)> = settings
                .iter()
                .map(|setting| (setting.path.rsplit('/').next().unwrap(), setting.value))
                .collect();
            assert_eq!(found, expected, "{conntrack:?}");
        }
    }

    #[test]
    fn only_what_differs_is_written_and_a_table_never_shrinks() {
        let root = std::env::temp_dir().join(format!("shunt-sysctl-{}", std::process::id()));
        let file = root.join("x/y");
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        let setting = |value, at_least| Setting { path: "x/y", value, at_least, field: "conntrack.min" };
        let table = [
            ("5\n", setting(5, false), "5\n"),
            ("7\n", setting(5, true), "7\n"),
            ("7\n", setting(5, false), "5"),
            ("3\n", setting(5, true), "5"),
            ("what\n", setting(5, true), "5"),
        ];
        for (before, setting, after) in table {
            fs::write(&file, before).unwrap();
            set(&root, &setting).unwrap();
            assert_eq!(fs::read_to_string(&file).unwrap(), after, "{before:?} {setting:?}");
        }
        let missing = Setting { path: "x/no/y", ..setting(5, false) };
        let refused = Setting { path: "x", ..setting(5, false) };
        let said = set(&root, &refused).unwrap_err().to_string();
        assert_eq!(said, "conntrack.min: /x should be 5 (Is a directory (os error 21))");
        assert_eq!(set_all(&root, &[missing.clone(), refused, setting(6, false)]), [missing]);
        assert_eq!(fs::read_to_string(&file).unwrap(), "6");
        fs::remove_dir_all(&root).unwrap();
    }

    #[test]
    fn cores_are_counted_as_the_kernel_lists_them() {
        let table = [
            ("0", Some(1)),
            ("0-3", Some(4)),
            ("0-3,5,7-8", Some(7)),
            ("", None),
            ("3-0", None),
            ("a", None),
        ];
        for (list, expected) in table {
            assert_eq!(count(list), expected, "{list}");
        }
    }
}
