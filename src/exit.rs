//! The exit codes of the program; all of them are here, and `shunt --help` prints this list.

use std::fmt::Write as _;
use std::process::ExitCode;

/// Why the program ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// Done: stopped by a signal, or what was asked for once is done.
    Ok = 0,
    /// Something that has no code of its own.
    Other = 1,
    /// A wrong command line; also what clap itself exits with.
    Usage = 2,
    /// A configuration file that cannot be read or used.
    Config = 3,
    /// `CAP_NET_ADMIN` is missing.
    Privilege = 4,
    /// The kernel lacks what is needed (`nf_tables`).
    Kernel = 5,
    /// The source of Services cannot be used.
    Source = 6,
    /// Another shunt runs on this node, or there is a table of its name that it has not made.
    Busy = 7,
}

impl Exit {
    /// Every exit code, in the order of the numbers.
    pub const ALL: [Self; 8] = [
        Self::Ok,
        Self::Other,
        Self::Usage,
        Self::Config,
        Self::Privilege,
        Self::Kernel,
        Self::Source,
        Self::Busy,
    ];

    /// The number that the parent process sees.
    #[must_use]
    pub fn code(self) -> u8 {
        self as u8
    }

    /// What it means, in a few words.
    #[must_use]
    pub fn meaning(self) -> &'static str {
        match self {
            Self::Ok => "done, or stopped by SIGTERM or SIGINT",
            Self::Other => "anything not listed here",
            Self::Usage => "wrong command line",
            Self::Config => "the configuration file cannot be read or used",
            Self::Privilege => "not root, or CAP_NET_ADMIN is missing",
            Self::Kernel => "the kernel lacks what is needed (nf_tables)",
            Self::Source => "the source cannot be used: missing directory, bad kubeconfig",
            Self::Busy => "another shunt runs on this node, or somebody else has a table of its name",
        }
    }

    /// The table of all codes, as the help prints it.
    #[must_use]
    pub fn table() -> String {
        let mut table = "Exit codes:\n".to_owned();
        for exit in Self::ALL {
            // writing to a String cannot fail
            let _ = writeln!(table, "  {}  {}", exit.code(), exit.meaning());
        }
        table
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.code())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_names_every_code_once_in_order() {
        let table = Exit::table();
        let lines: Vec<&str> = table.lines().skip(1).collect();
        assert_eq!(lines.len(), Exit::ALL.len());
        for (number, line) in lines.iter().enumerate() {
            assert!(line.starts_with(&format!("  {number}  ")), "{line}");
        }
    }
}
