//! `scripts/bench` on a small cluster, with all of its parts: nothing about how fast anything is, but that each
//! figure is there, and that a server is left as it was found.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;

const ROOT: &str = env!("CARGO_MANIFEST_DIR");
const SHUNT: &str = env!("CARGO_BIN_EXE_shunt");
const KINDS: [&str; 5] = [
    "one endpoint replaced",
    "one endpoint added",
    "one Service added",
    "one Service removed",
    "13 of 50 pods rolled",
];

/// Runs a script in namespaces that end with it, as root of a user namespace where we are nobody; None where
/// the machine has no namespaces and the person who tests accepts that.
fn in_sandbox(script: &str, arguments: &[&str]) -> Option<Output> {
    if std::env::var("SHUNT_SKIP_NETNS").is_ok_and(|value| value == "1") {
        println!("skipped: SHUNT_SKIP_NETNS=1");
        return None;
    }
    let mut command = Command::new("unshare");
    if !nix::unistd::geteuid().is_root() {
        command.args(["--user", "--map-root-user"]);
    }
    command.args(["--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "bash", "-euc"]);
    let script = format!("ip link set lo up\n{script}");
    Some(command.arg(script).arg("bench").args(arguments).output().expect("unshare"))
}

/// A directory of its own for each test.
fn scratch(name: &str) -> PathBuf {
    let path = std::env::temp_dir().join(format!("shunt-bench-{}-{name}", std::process::id()));
    fs::create_dir_all(&path).unwrap();
    path
}

/// The figures that the bench wrote, after it has ended well.
fn figures(output: &Output, json: &Path) -> Value {
    let said =
        format!("{}\n{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{said}");
    let figures: Value = serde_json::from_slice(&fs::read(json).unwrap()).unwrap();
    figures["results"][0].clone()
}

/// What must be true of every program and of every way to give it objects.
fn assert_is_whole(part: &Value) {
    for kind in KINDS {
        let found = &part["changes"][kind];
        let changes = found["changes"].as_u64().unwrap();
        assert!(changes > 0, "{kind}: {found}");
        assert_eq!(found["latency_s"].as_array().unwrap().len() as u64, changes, "{kind}: {found}");
        assert!(found["bytes"].as_f64().unwrap() > 0.0, "{kind}: {found}");
        assert!(found["calls"].as_f64().unwrap() > 0.0, "{kind}: {found}");
    }
    let operations = part["changes"][KINDS[0]]["operations"].as_object().unwrap();
    assert!(operations.contains_key("+element 1, -element 1"), "{operations:?}");
    assert!(part["start"]["VmRSS"].as_u64().unwrap() > 0, "{part}");
    for nothing in ["chain", "rule", "set", "element"] {
        let written = part["restart"]["written"].as_str().unwrap();
        assert!(!written.contains(nothing), "a restart with nothing changed wrote {written}");
    }
    let written = part["restart_1_percent"]["written"].as_str().unwrap();
    assert!(written.contains("+element 1") && written.contains("-element 1"), "{written}");
}

#[test]
fn manifests_an_api_server_of_its_own_and_connections() {
    let folder = scratch("manifests");
    let json = folder.join("out.json");
    let script = r#"exec "$1" --shunt "$2" --rounds 1 --changes 2 --seconds 1 --json "$3" 20x2"#;
    let bench = format!("{ROOT}/scripts/bench");
    let Some(output) = in_sandbox(script, &[&bench, SHUNT, json.to_str().unwrap()]) else { return };
    let result = figures(&output, &json);
    assert_is_whole(&result);
    assert_is_whole(&result["api"]["programs"]["shunt"]);
    // an address that was replaced before it was written is never seen: how many depends on the machine
    let (seen, unseen) = (&result["steady"]["lag_s"], &result["steady"]["unseen"]);
    assert_eq!(seen.as_array().unwrap().len() as u64 + unseen.as_u64().unwrap(), 1000);
    assert_eq!(result["connect"].as_object().unwrap().len(), 3);
    fs::remove_dir_all(&folder).unwrap();
}

#[test]
fn a_server_that_is_filled_and_emptied_and_a_peer_beside_shunt() {
    let folder = scratch("server");
    let (json, peer) = (folder.join("out.json"), folder.join("kube-proxy"));
    symlink(SHUNT, &peer).unwrap();
    let script = r#"
        cd "$4"
        exec 3< <(exec python3 -B "$5/benches/api.py")
        read -r port <&3
        cat >kubeconfig <<END
{"clusters": [{"name": "own", "cluster": {"server": "http://127.0.0.1:$port"}}],
 "contexts": [{"name": "own", "context": {"cluster": "own"}}], "current-context": "own"}
END
        "$1" --shunt "$2" --kubeconfig kubeconfig --peer ./kube-proxy --pace 0.01 --rounds 1 --changes 2 --seconds 1 --json "$3" 20x2
        python3 - "$port" <<'END'
import json, sys, urllib.request
for path in ("/api/v1/namespaces", "/api/v1/nodes", "/api/v1/services", "/apis/discovery.k8s.io/v1/endpointslices"):
    left = json.load(urllib.request.urlopen(f"http://127.0.0.1:{sys.argv[1]}{path}"))["items"]
    assert not left, f"{path}: {left}"
END
    "#;
    let bench = format!("{ROOT}/scripts/bench");
    let arguments = [&bench, SHUNT, json.to_str().unwrap(), folder.to_str().unwrap(), ROOT];
    let Some(output) = in_sandbox(script, &arguments) else { return };
    let result = figures(&output, &json);
    for program in ["shunt", "kube-proxy"] {
        assert_is_whole(&result["api"]["programs"][program]);
    }
    let table = String::from_utf8_lossy(&output.stdout);
    assert!(table.contains("kube-proxy / shunt"), "{table}");
    fs::remove_dir_all(&folder).unwrap();
}
