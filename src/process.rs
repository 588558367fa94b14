//! This process: how many files it may open, and its replacement by itself. EDGE.

use std::env;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::errno::Errno;
use nix::sys::resource::{Resource, getrlimit, setrlimit};

use crate::reload;

/// The variable that hands a configuration over to the program that starts afresh: it was found good,
/// and by now the file may be another.
const HANDED_OVER: &str = "SHUNT_CONFIG_TEXT";

/// A variable of the environment holds no more (`MAX_ARG_STRLEN` of the kernel, with its name).
const LARGEST_HANDED_OVER: usize = 100 * 1024;

/// With fewer files than this shunt cannot start, and what it is built on panics.
const FEWEST_FILES: u64 = 64;

/// Why this process may not open enough files.
#[derive(Debug, thiserror::Error)]
pub enum FilesError {
    /// The limit cannot be read.
    #[error("the limit of open files cannot be read: {0}")]
    Unknown(#[from] Errno),
    /// It is too low.
    #[error(
        "this process may open only {0} files, shunt needs {FEWEST_FILES}: raise `ulimit -n`, or LimitNOFILE= of the \
         unit"
    )]
    TooFew(u64),
}

/// Lets this process open as many files as it may: each connection and health port is one.
///
/// # Errors
/// Fewer than shunt can live with.
pub fn allow_files() -> Result<(), FilesError> {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    let allowed = if setrlimit(Resource::RLIMIT_NOFILE, hard, hard).is_ok() { hard } else { soft };
    if allowed >= FEWEST_FILES { Ok(()) } else { Err(FilesError::TooFew(allowed)) }
}

/// The text of the configuration that [`start_afresh`] was given, where that has started this program.
#[must_use]
pub fn handed_over() -> Option<String> {
    env::var(HANDED_OVER).ok()
}

/// Replaces the program by itself, with the same command line and this configuration. Returns only
/// what went wrong.
#[must_use]
pub fn start_afresh(text: &str) -> io::Error {
    let mut arguments = env::args_os();
    let mut command = Command::new(this_program());
    command.arg0(arguments.next().unwrap_or_default()).args(arguments);
    if text.len() <= LARGEST_HANDED_OVER {
        command.env(HANDED_OVER, text);
    } else {
        command.env_remove(HANDED_OVER);
    }
    reload::hold_hangup();
    command.exec()
}

/// What runs, also if its file was replaced on disk; by its name where that is possible, which is then
/// the name of the process.
fn this_program() -> PathBuf {
    let running = PathBuf::from("/proc/self/exe");
    let identity = |path: &Path| path.metadata().ok().map(|metadata| (metadata.dev(), metadata.ino()));
    let named = env::current_exe().ok();
    named.filter(|path| identity(path) == identity(&running)).unwrap_or(running)
}
