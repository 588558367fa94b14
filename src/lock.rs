//! One shunt a network namespace, and how to name the one that runs already. EDGE.
//!
//! The lock is a Unix socket with an abstract name: such names live in the network namespace, belong
//! to one process, and vanish with it however it ends.

use std::fs;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};

use nix::sys::socket::{UnixCredentials, getsockopt, sockopt::PeerCredentials};
use tracing::warn;

/// The abstract name of the socket (`@shunt` in `ss -xl`).
const NAME: &str = "shunt";

/// Held for as long as this process programs the node.
#[derive(Debug)]
pub struct Lock {
    _listener: Option<UnixListener>,
}

/// Why the lock could not be taken.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Another shunt holds it.
    #[error("another shunt is running on this node: {holder}; stop it first")]
    Held {
        /// The process, as far as it can be seen.
        holder: String,
    },
    /// The socket could not be made.
    #[error("the lock @{NAME} could not be taken: {0}")]
    Io(#[from] io::Error),
}

impl Lock {
    /// Takes the lock of this network namespace.
    ///
    /// # Errors
    /// [`LockError::Held`] with the process that holds it.
    pub fn take() -> Result<Self, LockError> {
        let address = SocketAddr::from_abstract_name(NAME)?;
        match UnixListener::bind_addr(&address) {
            Ok(listener) => Ok(Self { _listener: Some(listener) }),
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => match holder(&address) {
                // Anybody may take a name. Who could not program this node anyway keeps nobody from it.
                Some(peer) if peer.uid() != 0 && Some(peer.uid()) != own_uid() => {
                    warn!("{} of user {} holds the lock @{NAME}: ignored", describe(peer.pid()), peer.uid());
                    Ok(Self { _listener: None })
                }
                peer => Err(LockError::Held { holder: in_words(peer) }),
            },
            Err(error) => Err(error.into()),
        }
    }
}

fn holder(address: &SocketAddr) -> Option<UnixCredentials> {
    let stream = UnixStream::connect_addr(address).ok()?;
    getsockopt(&stream, PeerCredentials).ok()
}

fn own_uid() -> Option<u32> {
    fs::metadata("/proc/self").ok().map(|process| process.uid())
}

fn in_words(peer: Option<UnixCredentials>) -> String {
    match peer.map(|peer| peer.pid()) {
        Some(pid) if pid > 0 => describe(pid),
        _ => "a process of another container (its process id cannot be seen from here)".into(),
    }
}

/// A process in words: its id and its command line.
#[must_use]
pub fn describe(pid: i32) -> String {
    let command = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let command = String::from_utf8_lossy(&command).trim_end_matches('\0').replace('\0', " ");
    if command.is_empty() { format!("process {pid}") } else { format!("process {pid} ({command})") }
}
