//! The ruleset as people see it: `nft list`, `nft -f`, and a running `nft monitor`.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use super::names::{BOTH, Name, Ns};
use super::topology::Topology;

/// Runs nft with its input, in a namespace.
pub fn nft(topology: &Topology, ns: Ns, args: &[&str], input: &str) -> Output {
    let mut command = Command::new("nft");
    command.args(args).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = topology.enter(ns, || command.spawn()).expect("starting nft");
    child.stdin.take().expect("a pipe").write_all(input.as_bytes()).expect("writing to nft");
    child.wait_with_output().expect("nft")
}

/// The same, and it has to work.
pub fn nft_ok(topology: &Topology, ns: Ns, args: &[&str], input: &str) -> String {
    let output = nft(topology, ns, args, input);
    assert!(output.status.success(), "nft {args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("text")
}

/// A listing without what only the living owner of a table can have: `flags owner` and the name of its program.
/// Where the owner has gone, nft 1.0.6 prints the flag `persist` as an empty `flags`.
pub fn loadable(listing: &str) -> String {
    let of_the_owner =
        |line: &&str| line.trim() == "flags" || ["flags owner", "flags persist"].contains(&flag_of(line));
    let lines = listing.lines().filter(|line| !of_the_owner(line));
    let lines: Vec<&str> = lines.map(|line| line.split(" # progname").next().unwrap_or(line)).collect();
    lines.join("\n") + "\n"
}

/// `flags owner` of `flags owner,persist`.
fn flag_of(line: &str) -> &str {
    line.trim().split(',').next().unwrap_or_default()
}

/// A running `nft monitor` in the node's namespace.
pub struct Monitor {
    child: Child,
    lines: Arc<(Mutex<Vec<String>>, Condvar)>,
    fences: u32,
}

impl Monitor {
    pub fn start(topology: &Topology) -> Self {
        let mut command = Command::new("nft");
        command.arg("monitor").stdin(Stdio::null()).stdout(Stdio::piped());
        let mut child = topology.enter(Ns::Node, || command.spawn()).expect("starting nft monitor");
        let lines = Arc::new((Mutex::new(Vec::new()), Condvar::new()));
        let output = child.stdout.take().expect("a pipe");
        std::thread::spawn({
            let lines = Arc::clone(&lines);
            move || {
                for line in BufReader::new(output).lines().map_while(Result::ok) {
                    lines.0.lock().expect("no panic in the reader").push(line);
                    lines.1.notify_all();
                }
            }
        });
        let mut monitor = Self { child, lines, fences: 0 };
        let deadline = Instant::now() + Duration::from_secs(10);
        // until it has subscribed, it sees nothing
        while monitor.fence(topology, Duration::from_millis(50)).is_none() {
            assert!(Instant::now() < deadline, "nft monitor does not see what happens");
        }
        monitor
    }

    /// What has been written since the last call, without what the sentinel Service and the monitor itself cost.
    pub fn take(&mut self, topology: &Topology) -> Vec<String> {
        let mut lines = self.fence(topology, Duration::from_secs(10)).expect("nft monitor has stopped");
        let sentinel = BOTH.map(|family| Name::Sentinel.ip(family).to_string());
        lines.retain(|line| !line.starts_with("# new generation"));
        lines.retain(|line| !line.contains("fence_"));
        lines.retain(|line| !sentinel.iter().any(|ip| line.contains(ip.as_str())));
        lines
    }

    /// Writes a table and removes it, and returns all lines up to there.
    fn fence(&mut self, topology: &Topology, wait: Duration) -> Option<Vec<String>> {
        self.fences += 1;
        let table = format!("fence_{}", self.fences);
        nft_ok(
            topology,
            Ns::Node,
            &["-f", "-"],
            &format!("add table inet {table}\ndelete table inet {table}\n"),
        );
        let end = format!("delete table inet {table}");
        let lines = self.lines.0.lock().expect("no panic in the reader");
        let (mut lines, timeout) = self
            .lines
            .1
            .wait_timeout_while(lines, wait, |lines| !lines.contains(&end))
            .expect("no panic in the reader");
        if timeout.timed_out() { None } else { Some(std::mem::take(&mut *lines)) }
    }
}

impl Drop for Monitor {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
