//! Everything happens inside namespaces that die with the test: the program starts itself again under `unshare`,
//! as pid 1 of a pid namespace, so that even after kill -9 no process, link or table stays behind.

use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio, exit};

/// Set for the second start.
const INSIDE: &str = "SHUNT_NETNS_INSIDE";
/// Asked for by a person who knows that the packet tests cannot run on this machine.
const SKIP: &str = "SHUNT_SKIP_NETNS";

/// Returns only inside the sandbox: with a network, mount and pid namespace of our own and an empty /run.
/// Without root a user namespace comes first, in which we are root.
pub fn enter() {
    if std::env::var_os(INSIDE).is_some() && std::process::id() == 1 {
        return prepare();
    }
    if let Err(why) = try_unshare() {
        explain_and_exit(&why);
    }
    let me = std::env::current_exe().expect("the path of this test");
    let error = unshare().arg(me).args(std::env::args_os().skip(1)).env(INSIDE, "1").exec();
    explain_and_exit(&error.to_string());
}

fn unshare() -> Command {
    let mut command = Command::new("unshare");
    if !nix::unistd::geteuid().is_root() {
        command.args(["--user", "--map-root-user"]);
    }
    command.args(["--net", "--mount", "--pid", "--fork", "--kill-child", "--"]);
    command
}

/// Makes the namespaces once for nothing, and in them everything that the tests stand on.
fn try_unshare() -> Result<(), String> {
    let script = "mount -t tmpfs tmpfs /run && ip netns add probe && ip -n probe link add name veth0 type veth peer name veth1 \
                  && ip netns exec probe nft add table ip probe && echo 1 > /proc/sys/net/ipv4/ip_forward";
    let output = unshare()
        .args(["sh", "-c", script])
        .stdin(Stdio::null())
        .output()
        .map_err(|error| format!("unshare: {error}"))?;
    if output.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&output.stderr).into_owned()) }
}

fn explain_and_exit(why: &str) -> ! {
    eprintln!("packet tests: cannot make namespaces with nf_tables on this machine: {}", why.trim());
    eprintln!(
        "needed: unshare (util-linux), ip (iproute2), nft (nftables), and root or unprivileged user namespaces"
    );
    if std::env::var(SKIP).is_ok_and(|value| value == "1") {
        println!("0 passed, 0 failed, all skipped because {SKIP}=1");
        exit(0);
    }
    eprintln!("set {SKIP}=1 to leave them out");
    println!("0 passed, 1 failed");
    exit(1);
}

fn prepare() {
    let status = Command::new("mount").args(["-t", "tmpfs", "tmpfs", "/run"]).status().expect("mount");
    assert!(status.success(), "mount -t tmpfs tmpfs /run: {status}");
    exit_on_signals();
}

/// Pid 1 of a namespace has no default actions for signals, and unshare blocks them: Ctrl-C needs a handler.
fn exit_on_signals() {
    std::thread::spawn(|| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build().expect("a runtime");
        runtime.block_on(async {
            use tokio::signal::unix::{SignalKind, signal};
            let mut interrupt = signal(SignalKind::interrupt()).expect("SIGINT");
            let mut terminate = signal(SignalKind::terminate()).expect("SIGTERM");
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
        });
        println!("interrupted");
        exit(130);
    });
}
