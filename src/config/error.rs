//! What can be wrong with a configuration file.

use std::fmt;
use std::io;
use std::path::PathBuf;

/// Why a configuration cannot be used. Nothing of it is in force then: at start this ends the
/// program ([`crate::exit::Exit::Config`]), later the configuration before it stays. Trying again
/// helps only after the file was changed.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be opened or read.
    #[error("cannot read the configuration {}: {source}; check the path given with --config", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The text is neither YAML nor JSON.
    #[error("{place}: the configuration is neither YAML nor JSON: {problem}")]
    Syntax {
        /// Where the reader stopped.
        place: Place,
        /// What it found there.
        problem: String,
    },
    /// The file holds no `KubeProxyConfiguration`, or more than one.
    #[error(
        "{place}: {problem}; exactly one document must have `apiVersion: kubeproxy.config.k8s.io/v1alpha1` \
         and `kind: KubeProxyConfiguration`"
    )]
    Document {
        /// The file, and the line where a single one is to blame.
        place: Place,
        /// What was found instead.
        problem: String,
    },
    /// A field that a `KubeProxyConfiguration` does not have.
    #[error("{place}: unknown field `{field}`: {hint}")]
    UnknownField {
        /// Where it stands.
        place: Place,
        /// Its path, such as `iptables.masqueradBit`.
        field: String,
        /// The name that was meant, or those that exist.
        hint: String,
    },
    /// A field has a value that it cannot have.
    #[error("{place}: `{field}` {problem}")]
    Value {
        /// Where it stands.
        place: Place,
        /// Its path, such as `iptables.masqueradeBit`.
        field: String,
        /// What it must be, and what it is.
        problem: String,
    },
    /// A flag or a variable of the environment has a value that its field cannot have.
    #[error("{name} {problem}")]
    Given {
        /// Its name, such as `--conntrack-min`.
        name: &'static str,
        /// What it must be, and what it is.
        problem: String,
    },
}

/// Where a value was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// In the file, on this line where it is known.
    File(Option<u64>),
    /// On the command line; the flag with its dashes.
    Flag(&'static str),
    /// In this variable of the environment.
    Environment(&'static str),
    /// Nowhere: it is the host name.
    Host,
}

/// A place in a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The file.
    pub path: PathBuf,
    /// The line, counted from 1, where it is known.
    pub line: Option<u64>,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.path.display())?;
        self.line.map_or(Ok(()), |line| write!(f, ", line {line}"))
    }
}
