//! The program under test, started in the node's namespace, ended by its id.

use std::ffi::OsString;
use std::fs::OpenOptions;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::names::{Ns, THIS_NODE};
use super::topology::Topology;

/// A running `shunt run`; killed when dropped.
pub struct Daemon {
    child: Child,
    log: PathBuf,
}

/// The program under test; `SHUNT_BIN` names another one than cargo's.
pub fn program() -> OsString {
    std::env::var_os("SHUNT_BIN").unwrap_or_else(|| env!("CARGO_BIN_EXE_shunt").into())
}

impl Daemon {
    /// Starts it on a directory of manifests and a configuration; what it says goes to the end of the log. `before`
    /// is a program that starts it, with its arguments.
    pub fn start(
        topology: &Topology,
        manifests: &Path,
        config: &Path,
        before: &[&str],
        flags: &[&str],
        log: &Path,
    ) -> Self {
        let output = OpenOptions::new().create(true).append(true).open(log).expect("a log file");
        let mut words = before.iter().map(OsString::from).chain([program()]);
        let mut command = Command::new(words.next().expect("a program"));
        command.args(words).arg("run").arg("--manifests").arg(manifests).arg("--config").arg(config);
        command.args(["--node-name", THIS_NODE]).args(flags).stdin(Stdio::null());
        command.stdout(output.try_clone().expect("a second handle")).stderr(output);
        let child = topology.enter(Ns::Node, || command.spawn()).expect("starting shunt");
        Self { child, log: log.to_owned() }
    }

    /// Fails with the log when the program has ended by itself.
    pub fn assert_running(&mut self) {
        if let Ok(Some(status)) = self.child.try_wait() {
            panic!("shunt has ended: {status}; log: {}", self.log.display());
        }
    }

    /// SIGTERM; the rules have to stay, and the exit has to be clean and quick.
    pub fn stop(mut self) -> ExitStatus {
        self.assert_running();
        let id = i32::try_from(self.child.id()).expect("a process id");
        kill(Pid::from_raw(id), Signal::SIGTERM).expect("SIGTERM");
        let deadline = Instant::now() + Duration::from_secs(5);
        while Instant::now() < deadline {
            if let Some(status) = self.child.try_wait().expect("waiting for shunt") {
                return status;
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        panic!("shunt does not end on SIGTERM within 5 s");
    }

    /// SIGHUP, which must not end it.
    pub fn hang_up(&mut self) {
        self.assert_running();
        let id = i32::try_from(self.child.id()).expect("a process id");
        kill(Pid::from_raw(id), Signal::SIGHUP).expect("SIGHUP");
    }

    /// SIGKILL.
    pub fn kill(mut self) {
        self.assert_running();
        self.child.kill().expect("SIGKILL");
        self.child.wait().expect("waiting for shunt");
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
