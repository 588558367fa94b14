//! Which mode a node runs in, and what becomes of what another one has left behind. EDGE.

use tracing::{debug, info, warn};

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

/// Removes what the other mode has left behind: it would go before what this one does.
pub fn remove_leftovers(mode: Mode) {
    for family in Family::ALL {
        let (other, removed) = match mode {
            Mode::Userspace => ("nftables", remove_tables(family)),
            Mode::Nftables | Mode::Auto => ("userspace", userspace::cleanup(family)),
        };
        match removed {
            Ok(true) => info!("{family}: removed what the {other} mode had programmed before"),
            Ok(false) => {}
            Err(error) => debug!("{family}: what the {other} mode may have left cannot be removed: {error}"),
        }
    }
}

/// Removes what any mode has programmed in a family; returns whether there was anything.
///
/// # Errors
/// What the modes say.
pub fn cleanup(family: Family) -> Result<bool, BackendError> {
    let tables = remove_tables(family)?;
    Ok(userspace::cleanup(family)? || tables)
}

/// Where there is no nf_tables there is nothing of it.
fn remove_tables(family: Family) -> Result<bool, BackendError> {
    match Nftables::open(&Config::default()).and_then(|mut tables| tables.cleanup(family)) {
        Err(BackendError::Unsupported(_)) => Ok(false),
        removed => removed,
    }
}
