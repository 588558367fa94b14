//! Which mode a node runs in, and what becomes of what another one has left behind. EDGE.

use tracing::{info, warn};

use super::nftables::{self, Nftables, Verdict};
use super::{Backend as _, BackendError, userspace};
use crate::config::{Config, Mode};
use crate::model::Family;

/// The mode of a configuration. `auto` is userspace where nftables is known not to work, which is found out
/// by trying.
#[must_use]
pub fn choose(config: &Config) -> Mode {
    if config.mode != Mode::Auto {
        return config.mode;
    }
    match nftables::probe(config) {
        Verdict::Works => {
            info!("--proxy-mode auto: nftables, the kernel takes our rules");
            Mode::Nftables
        }
        Verdict::Unclear(why) => {
            warn!(
                "--proxy-mode auto: nftables; whether the kernel takes our rules could not be found out: {why}. If \
                 nothing is programmed, set --proxy-mode userspace"
            );
            Mode::Nftables
        }
        Verdict::Lacks(why) => {
            info!("--proxy-mode auto: userspace, since nftables cannot be used: {why}");
            Mode::Userspace
        }
    }
}

/// Removes what the other mode has left behind: it goes before what this one does, and serves until this one
/// has programmed everything.
pub fn remove_leftovers(mode: Mode) {
    for family in Family::ALL {
        let (other, removed) = match mode {
            Mode::Userspace => ("nftables", remove_left_tables(family)),
            Mode::Nftables | Mode::Auto => ("userspace", userspace::cleanup(family)),
        };
        match removed {
            Ok(true) => info!("{family}: removed what the {other} mode had programmed before"),
            Ok(false) => {}
            Err(error) => warn!(
                "{family}: what the {other} mode has programmed before cannot be removed, and goes before what shunt \
                 does now: {error}. A restart of shunt tries it again"
            ),
        }
    }
}

/// Removes what any mode has programmed in a family; tells of each whether there was anything.
pub fn cleanup(family: Family) -> [(Mode, Result<bool, BackendError>); 2] {
    [(Mode::Nftables, remove_tables(family)), (Mode::Userspace, userspace::cleanup(family))]
}

/// A table that is not ours is nobody's leftover, and without the right to change tables nobody can look.
fn remove_left_tables(family: Family) -> Result<bool, BackendError> {
    match Nftables::open(&Config::default()).and_then(|mut tables| tables.is_strangers(family)) {
        Ok(true) => Ok(false),
        Err(BackendError::Privilege(_)) => {
            info!(
                "{family}: without CAP_NET_ADMIN nobody can see whether the nftables mode has left rules behind; \
                 if it ran on this node, run `shunt cleanup` as root while shunt does not run"
            );
            Ok(false)
        }
        _ => remove_tables(family),
    }
}

/// Where there is no nf_tables there is nothing of it.
fn remove_tables(family: Family) -> Result<bool, BackendError> {
    match Nftables::open(&Config::default()).and_then(|mut tables| tables.cleanup(family)) {
        Err(BackendError::Unsupported(_)) => Ok(false),
        removed => removed,
    }
}
