//! Backends: what programs a node. One trait, one module a mode.

pub mod mode;
pub mod nftables;
pub mod userspace;

use std::time::Duration;

use ipnet::IpNet;

use crate::desired::{Owner, Row};
use crate::diff::Plan;
use crate::model::Family;

/// A proxy mode at work. The engine is its only caller.
pub trait Backend {
    /// Says which source addresses are this node's own pods, where the configuration leaves that to the
    /// Node object (`detectLocalMode: NodeCIDR`). Takes effect with the next [`Self::read`] and
    /// [`Self::apply`].
    fn set_node_cidrs(&mut self, cidrs: &[IpNet]);

    /// Reads what is installed in a family: rows with the owner on whose behalf they stand. What is
    /// found damaged or foreign is left out and goes with the next [`Self::apply`].
    ///
    /// # Errors
    /// [`BackendError`]; nothing was changed.
    fn read(&mut self, family: Family) -> Result<Vec<(Owner, Row)>, BackendError>;

    /// Carries out a plan whose "before" is what was read or applied last. All or nothing, except that
    /// a cold start or a very large plan is cut between Services. Must be called once after each
    /// `read`, even with an empty plan.
    ///
    /// # Errors
    /// [`BackendError`]: what was installed before still is, completely or up to a cut; if the error is
    /// [`stale`](BackendError::is_stale) the caller has to read again.
    fn apply(&mut self, plan: &Plan) -> Result<Receipt, BackendError>;

    /// Removes everything that this mode has ever installed in a family; returns whether there was
    /// anything. May be called again.
    ///
    /// # Errors
    /// [`BackendError`]; nothing was removed.
    fn cleanup(&mut self, family: Family) -> Result<bool, BackendError>;

    /// Looks whether somebody else has changed what is installed in a family since it was read. Cheap:
    /// it is asked several times a second, and what is known to be wrong only once. A mode whose work
    /// cannot be changed by others leaves it at this.
    ///
    /// # Errors
    /// [`BackendError`]; nothing was changed.
    fn check(&mut self, _family: Family) -> Result<Option<Drift>, BackendError> {
        Ok(None)
    }

    /// Whether nobody has changed what is installed in a family since [`Self::read`] began to read it; false
    /// where that cannot be told.
    fn is_as_read(&mut self, _family: Family) -> bool {
        false
    }

    /// Whether what is programmed goes on working when shunt ends.
    fn outlives_us(&self) -> bool {
        true
    }

    /// Does what has to be done once in a while even if nothing changes: it is called every few seconds. A mode that
    /// has nothing of the kind leaves it at this.
    ///
    /// # Errors
    /// [`BackendError`]; the next call tries it again.
    fn tend(&mut self, _family: Family) -> Result<(), BackendError> {
        Ok(())
    }

    /// How many new connections there were since the last call whose client should have been remembered
    /// (`ClientIP` affinity) and was not, for want of room. They were served all the same.
    ///
    /// # Errors
    /// [`BackendError`]; the next call tells of them.
    fn not_remembered(&mut self, _family: Family) -> Result<u64, BackendError> {
        Ok(0)
    }
}

/// What is installed is not what was programmed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Drift {
    /// What was changed, in words.
    pub what: String,
    /// By whom, where that can be known.
    pub by: Option<String>,
    /// Whether there is a change for sure; else only reading back can tell.
    pub certain: bool,
}

/// What carrying out a plan took.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Receipt {
    /// Batches that the kernel confirmed.
    pub batches: usize,
    /// Operations in them: tables, sets, chains with their rules, elements.
    pub operations: usize,
    /// Bytes sent.
    pub bytes: usize,
    /// The longest time that one batch took.
    pub longest: Duration,
}

impl Receipt {
    /// Counts one confirmed batch.
    pub fn add(&mut self, operations: usize, bytes: usize, took: Duration) {
        self.batches += 1;
        self.operations += operations;
        self.bytes += bytes;
        self.longest = self.longest.max(took);
    }
}

/// Why a backend could not do its work.
#[derive(Debug, thiserror::Error)]
pub enum BackendError {
    /// Give up: retrying does not help until somebody grants the right.
    #[error("{0}")]
    Privilege(String),
    /// Give up in this family: the kernel does not have what the mode needs.
    #[error("{0}")]
    Unsupported(String),
    /// Give up: another shunt programs this node, or somebody else uses what we need.
    #[error("{0}")]
    Busy(String),
    /// Retry: the kernel refused a transaction; nothing of it took effect.
    #[error("the kernel refused the {family} transaction at `{operation}`: {errno}{}", details(.owner.as_ref(), .message.as_deref()))]
    Refused {
        /// The family.
        family: Family,
        /// The operation it complained about, in nft syntax.
        operation: String,
        /// On whose behalf the operation stood, where it is one's alone.
        owner: Option<Owner>,
        /// The error number.
        errno: std::io::Error,
        /// The kernel's own words, if it had any.
        message: Option<String>,
    },
    /// Retry: the conversation with the kernel failed.
    #[error("{action} failed: {source}")]
    Io {
        /// What was tried.
        action: String,
        /// The error.
        source: std::io::Error,
    },
}

fn details(owner: Option<&Owner>, message: Option<&str>) -> String {
    let owner = owner.map(|owner| format!(", on behalf of {owner}"));
    let message = message.map(|message| format!(", the kernel says: {message}"));
    owner.into_iter().chain(message).collect()
}

impl BackendError {
    /// Whether what was believed of the kernel is not so: somebody else has changed what is installed, or
    /// a set did not grow (`ENFILE`).
    #[must_use]
    pub fn is_stale(&self) -> bool {
        match self {
            Self::Refused { errno, .. } => {
                use nix::libc::{EEXIST, ENFILE, ENOENT, ERESTART};
                matches!(errno.raw_os_error(), Some(ENOENT | EEXIST | ERESTART | ENFILE))
            }
            Self::Io { .. } => true,
            _ => false,
        }
    }

    /// Whether no retry can mend it.
    #[must_use]
    pub const fn is_final(&self) -> bool {
        matches!(self, Self::Privilege(_) | Self::Unsupported(_) | Self::Busy(_))
    }

    /// The owner whose rows were refused, where one can be blamed.
    #[must_use]
    pub fn blamed(&self) -> Option<&Owner> {
        use nix::libc::{ENOBUFS, ENOMEM};
        match self {
            // Whoever asks when memory runs out is not to blame.
            Self::Refused { errno, .. } if matches!(errno.raw_os_error(), Some(ENOMEM | ENOBUFS)) => None,
            Self::Refused { owner, .. } => owner.as_ref(),
            _ => None,
        }
    }
}
