//! The program as a user calls it, where it needs no privilege and changes nothing: output and exit codes.

#![allow(clippy::expect_used, reason = "a test fails by panicking")]

use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

const SHUNT: &str = env!("CARGO_BIN_EXE_shunt");
const KUBEADM: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/src/config/tests/kubeadm.yaml");
const KIND: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/src/config/tests/kind.yaml");

fn call(program: &Path, line: &str) -> Output {
    let mut command = Command::new(program);
    command.args(line.split_whitespace()).env_remove("NODE_NAME").env_remove("RUST_LOG");
    command.output().expect("starting the program")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).expect("UTF-8")
}

/// A directory of its own, which stays empty for the next one.
fn scratch(name: &str) -> PathBuf {
    let path = std::env::temp_dir().join(format!("shunt-program-{}-{name}", std::process::id()));
    std::fs::create_dir_all(&path).expect("a directory");
    path
}

#[test]
fn wrong_input_has_an_exit_code_and_names_what_is_wrong() {
    let dir = scratch("wrong");
    let wrong = dir.join("wrong.yaml");
    std::fs::write(
        &wrong,
        "apiVersion: kubeproxy.config.k8s.io/v1alpha1\nkind: KubeProxyConfiguration\nmode: x\n",
    )
    .expect("a file");
    let (dir_name, wrong) = (dir.display(), wrong.display());
    let table = [
        ("config --config /nonexistent/file".to_owned(), 3, "/nonexistent/file: No such file".to_owned()),
        (format!("config --config {dir_name}"), 3, format!("{dir_name}: Is a directory")),
        ("config --config /dev/zero".to_owned(), 3, "/dev/zero: it is larger than 1048576 bytes".to_owned()),
        (format!("config --config {wrong}"), 3, format!("{wrong}, line 3: `mode` must be")),
        (format!("run --init-only --config {wrong}"), 3, format!("{wrong}, line 3: `mode` must be")),
        ("config --proxy-mode=x".to_owned(), 2, "--proxy-mode must be nftables".to_owned()),
        ("config --no-such-flag".to_owned(), 2, "--no-such-flag".to_owned()),
        (
            "config --write-config-to /nonexistent/file".to_owned(),
            1,
            "/nonexistent/file: No such file".to_owned(),
        ),
    ];
    for (line, code, said) in table {
        let output = call(SHUNT.as_ref(), &line);
        let error = text(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{line}: {error}");
        assert!(error.contains(&said), "{line}: {error}");
        assert!(!error.contains("panicked"), "{line}: {error}");
    }
    std::fs::remove_dir_all(&dir).expect("removing it");
}

#[test]
fn the_files_of_kubeadm_and_kind_come_to_something_that_reads_back_the_same() {
    let dir = scratch("effective");
    for (file, warnings) in [(KUBEADM, 0), (KIND, 1)] {
        let output = call(SHUNT.as_ref(), &format!("config --config {file} --hostname-override=node-1"));
        assert!(output.status.success(), "{file}: {}", text(&output.stderr));
        assert_eq!(text(&output.stderr).lines().count(), warnings, "{file}: {}", text(&output.stderr));
        let shown = text(&output.stdout);
        assert!(shown.contains(&format!("# {file}:")), "{shown}");
        assert!(shown.contains("hostnameOverride: node-1 # --hostname-override"), "{shown}");
        let copy = dir.join("copy.yaml");
        let line =
            format!("run --config {file} --hostname-override=node-1 --write-config-to {}", copy.display());
        assert!(call(SHUNT.as_ref(), &line).status.success());
        assert_eq!(std::fs::read_to_string(&copy).expect("the copy"), shown);
        let again = text(&call(SHUNT.as_ref(), &format!("config --config {}", copy.display())).stdout);
        let values = |text: &str| -> Vec<String> {
            text.lines().map(|line| line.split(" # ").next().unwrap_or_default().to_owned()).collect()
        };
        assert_eq!(values(&again), values(&shown), "{file}");
    }
    std::fs::remove_dir_all(&dir).expect("removing it");
}

#[test]
fn called_as_kube_proxy_it_takes_the_command_line_of_kube_proxy() {
    let dir = scratch("name");
    let kube_proxy = dir.join("kube-proxy");
    symlink(SHUNT, &kube_proxy).expect("a link");
    for line in ["--version", "--version=true", "--config=/nonexistent --version=raw"] {
        let output = call(&kube_proxy, line);
        assert!(output.status.success(), "{line}: {}", text(&output.stderr));
        assert_eq!(text(&output.stdout), format!("shunt {}\n", env!("CARGO_PKG_VERSION")), "{line}");
    }
    let help = text(&call(&kube_proxy, "--help").stdout);
    for flag in ["--config", "--conntrack-max-per-core", "--nodeport-addresses"] {
        assert!(help.contains(flag), "{flag} in {help}");
    }
    let copy = dir.join("copy");
    let line = format!(
        "--config={KUBEADM} --hostname_override=node-1 --masquerade-all --logtostderr=true --v=1 \
         --write-config-to={}",
        copy.display()
    );
    let output = call(&kube_proxy, &line);
    assert!(output.status.success(), "{}", text(&output.stderr));
    let shown = std::fs::read_to_string(&copy).expect("the copy");
    assert!(shown.contains("masqueradeAll: true # --masquerade-all"), "{shown}");
    assert!(text(&output.stderr).contains("--logtostderr has no effect"), "{}", text(&output.stderr));
    std::fs::remove_dir_all(&dir).expect("removing it");
}
