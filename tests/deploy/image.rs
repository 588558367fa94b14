//! The files of the image: which they are, and that they run, with the rights that a container runtime gives.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::{env, fs, io};

use crate::documents::file;

/// Who the program is when the runtime starts it.
struct Process {
    what: &'static str,
    program: &'static str,
    user: u32,
    /// What the process is permitted before it executes the program; NET_ADMIN is in its bounding set in any case.
    permitted: &'static str,
    no_new_privs: bool,
    expected: i32,
}

const PROGRAMMED: i32 = 0;
const NO_PRIVILEGE: i32 = 4;

const PROCESSES: [Process; 5] = [
    Process {
        what: "containerd or CRI-O, runAsUser 65532, allowPrivilegeEscalation: false: deploy/daemonset.yaml",
        program: "shunt",
        user: 65532,
        permitted: "cap_net_admin=ep",
        no_new_privs: true,
        expected: PROGRAMMED,
    },
    Process {
        what: "Docker's engine, the same: that is why daemonset.yaml says to run as root there",
        program: "shunt",
        user: 65532,
        permitted: "=",
        no_new_privs: true,
        expected: NO_PRIVILEGE,
    },
    Process {
        what: "Docker's engine, runAsUser 65532, allowPrivilegeEscalation not forbidden",
        program: "shunt",
        user: 65532,
        permitted: "=",
        no_new_privs: false,
        expected: PROGRAMMED,
    },
    Process {
        what: "Docker's engine, root, allowPrivilegeEscalation: false",
        program: "shunt",
        user: 0,
        permitted: "cap_net_admin=ep",
        no_new_privs: true,
        expected: PROGRAMMED,
    },
    Process {
        what: "kube-proxy's DaemonSet with its image changed: root, and more rights than are needed",
        program: "kube-proxy",
        user: 0,
        permitted: "cap_net_admin,cap_sys_admin,cap_dac_override=ep",
        no_new_privs: false,
        expected: PROGRAMMED,
    },
];

#[test]
fn the_image_holds_the_program_and_its_libraries_and_programs_a_node() {
    if env::var("SHUNT_SKIP_NETNS").is_ok_and(|value| value == "1") {
        println!("skipped because SHUNT_SKIP_NETNS=1");
        return;
    }
    let root = lay_out();
    let files = files(&root);
    let (libraries, rest): (Vec<_>, Vec<_>) = files.iter().partition(|name| name.starts_with("lib"));
    assert_eq!(rest, ["usr/local/bin/kube-proxy", "usr/local/bin/shunt"], "{files:?}");
    for library in ["ld-linux", "libc.so", "libgcc_s.so", "libm.so", "libmnl.so", "libnftnl.so"] {
        assert!(libraries.iter().any(|file| file.contains(library)), "{library} in {libraries:?}");
    }
    assert_eq!(libraries.len(), 6, "{libraries:?}");
    assert_eq!(fs::read_link(root.join("usr/local/bin/kube-proxy")).unwrap(), Path::new("shunt"));

    fs::create_dir(root.join("examples")).unwrap();
    for entry in fs::read_dir(file("examples")).unwrap() {
        let path = entry.unwrap().path();
        fs::copy(&path, root.join("examples").join(path.file_name().unwrap())).unwrap();
    }
    // Without root there are no other users to become, and no rights to lose.
    let processes = if is_root() { &PROCESSES[..] } else { &PROCESSES[3..] };
    for process in processes {
        let output = start(&root, process);
        let said = format!("{}: {}", process.what, String::from_utf8_lossy(&output.stderr));
        assert_eq!(output.status.code(), Some(process.expected), "{said}");
        let listed = String::from_utf8_lossy(&output.stdout).contains("shop/web:http");
        assert_eq!(listed, process.expected == PROGRAMMED, "{said}");
    }
    fs::remove_dir_all(root).unwrap();
}

/// The files of the image in a directory, by the script that also builds it, with the program under test.
fn lay_out() -> PathBuf {
    let root = Path::new(env!("CARGO_TARGET_TMPDIR")).join("image-root");
    match fs::remove_dir_all(&root) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => panic!("{}: {error}", root.display()),
        _ => {}
    }
    let mut command = as_root();
    command
        .arg(file("scripts/image"))
        .arg("--root")
        .arg(&root)
        .arg("--program")
        .arg(env!("CARGO_BIN_EXE_shunt"));
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    root
}

/// Programs the examples from within `root`, in a network namespace of its own, and prints what the kernel has then.
fn start(root: &Path, process: &Process) -> Output {
    let mut command = as_root();
    // capsh executes the program as a runtime would; every capability that it is not to have is taken out of the
    // bounding set first.
    command.args(["unshare", "--net", "sh", "-ec"]).arg(
        "root=$1 permitted=$2 program=$3 keep=${2%=*},cap_net_admin; shift 3
         drop=$(capsh --print | sed -n 's/^Bounding set =//p' | tr , '\\n' | grep -vxF \"$(echo \"$keep\" | tr , '\\n')\" | paste -sd,)
         code=0 verb=run
         [ $program = shunt ] || verb=  # called as kube-proxy it is `shunt run`
         capsh --chroot=\"$root\" --drop=\"$drop\" --keep=1 \"$@\" --caps=\"$permitted\" \\
             --shell=/usr/local/bin/$program -- $verb --manifests /examples --config /examples/config.yaml --once || code=$?
         nft list map ip shunt services || true
         exit $code",
    );
    command.arg("sh").arg(root).arg(process.permitted).arg(process.program);
    if process.user != 0 {
        command.args([
            format!("--gid={}", process.user),
            "--groups=".into(),
            format!("--uid={}", process.user),
        ]);
    }
    command.args(process.no_new_privs.then_some("--no-new-privs"));
    command.output().unwrap()
}

/// Runs what follows as root, of a user namespace where we are not.
fn as_root() -> Command {
    let mut command = Command::new("env");
    if !is_root() {
        command.args(["unshare", "--user", "--map-root-user"]);
    }
    command
}

fn is_root() -> bool {
    nix::unistd::geteuid().is_root()
}

/// All files and links below a directory, sorted. Everybody may enter the directories.
fn files(directory: &Path) -> Vec<String> {
    let (mut found, mut open) = (Vec::new(), vec![directory.to_owned()]);
    while let Some(next) = open.pop() {
        for entry in fs::read_dir(&next).unwrap().map(Result::unwrap) {
            let (path, metadata) = (entry.path(), entry.metadata().unwrap());
            if metadata.is_dir() {
                assert_eq!(metadata.permissions().mode() & 0o777, 0o755, "{}", path.display());
                open.push(path);
            } else {
                found.push(path.strip_prefix(directory).unwrap().display().to_string());
            }
        }
    }
    found.sort();
    found
}
