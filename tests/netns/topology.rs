//! Namespaces, veths, addresses and routes of one lab.
//!
//! ```text
//!  client ns [eth0]────[eth0] node ns [pod1]────[eth0] pod1 ns     (pod2 and pod3 likewise)
//!                                     [peer0]───[eth0] remote ns   (the pods of another node)
//!                                     [void0]───[eth0] void ns     (where virtual addresses lead without rules)
//! ```
//!
//! Each pod has a point-to-point veth, as the ptp plugin and Calico do it: on a bridge, replies between two pods
//! would not pass the node's conntrack without br_netfilter.

use std::fmt::Write as _;
use std::fs::File;
use std::io::Write as _;
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::thread::ScopedJoinHandle;

use nix::sched::{CloneFlags, setns};

use super::names::{BOTH, Family, NAMESPACES, Name, Ns, PUBLIC_CIDRS, SERVICE_CIDRS};

/// One lab is built at a time: `ip netns add` is not made for races.
static BUILDING: Mutex<()> = Mutex::new(());

/// The namespaces of a lab; gone when dropped.
pub struct Topology {
    prefix: String,
    handles: Vec<File>,
}

impl Topology {
    /// Builds everything: about 50 ms.
    pub fn build(prefix: &str) -> Self {
        let _one_at_a_time = BUILDING.lock();
        let names: String =
            NAMESPACES.iter().fold(String::new(), |all, ns| all + &format!("netns add {prefix}-{ns:?}\n"));
        ip(&[], &names);
        let handles = NAMESPACES
            .iter()
            .map(|ns| File::open(format!("/run/netns/{prefix}-{ns:?}")).expect("a namespace"))
            .collect();
        let topology = Self { prefix: prefix.to_owned(), handles };
        for ns in NAMESPACES {
            topology.enter(ns, || set_sysctls(ns));
        }
        topology.batch(Ns::Node, &node_links(prefix));
        for ns in NAMESPACES.into_iter().filter(|ns| *ns != Ns::Node) {
            topology.batch(ns, &far_side(ns));
        }
        topology
    }

    /// Runs something in a namespace; sockets made and programs started there stay there.
    pub fn enter<T: Send>(&self, ns: Ns, work: impl FnOnce() -> T + Send) -> T {
        let handle = &self.handles[ns as usize];
        std::thread::scope(|scope| {
            joined(scope.spawn(move || {
                setns(handle, CloneFlags::CLONE_NEWNET).expect("entering a namespace");
                work()
            }))
        })
    }

    /// For threads that outlive a borrow.
    pub fn handle(&self, ns: Ns) -> File {
        self.handles[ns as usize].try_clone().expect("a second handle")
    }

    /// `ip -batch` in a namespace.
    pub fn batch(&self, ns: Ns, lines: &str) {
        ip(&["-n", &format!("{}-{ns:?}", self.prefix)], lines);
    }
}

/// The result of a thread; its panic is ours.
pub fn joined<T>(thread: ScopedJoinHandle<'_, T>) -> T {
    thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

impl Drop for Topology {
    fn drop(&mut self) {
        let _one_at_a_time = BUILDING.lock();
        let names: String = NAMESPACES
            .iter()
            .fold(String::new(), |all, ns| all + &format!("netns del {}-{ns:?}\n", self.prefix));
        ip(&[], &names);
    }
}

fn ip(args: &[&str], lines: &str) {
    let mut child = Command::new("ip")
        .args(args)
        .args(["-batch", "-"])
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("ip");
    child.stdin.take().expect("a pipe").write_all(lines.as_bytes()).expect("writing to ip");
    let output = child.wait_with_output().expect("ip");
    assert!(output.status.success(), "ip -batch: {}\n{lines}", String::from_utf8_lossy(&output.stderr));
}

/// A router without the rate limits that would make refusals look like drops; hosts that do not forward.
fn set_sysctls(ns: Ns) {
    let forwarding = if ns == Ns::Node { "1" } else { "0" };
    for scope in ["all", "default"] {
        for (key, value) in [("rp_filter", "0"), ("send_redirects", "0"), ("accept_redirects", "0")] {
            sysctl(&format!("ipv4/conf/{scope}/{key}"), value);
        }
        for (key, value) in
            [("disable_ipv6", "0"), ("accept_dad", "0"), ("accept_ra", "0"), ("accept_redirects", "0")]
        {
            sysctl(&format!("ipv6/conf/{scope}/{key}"), value);
        }
        sysctl(&format!("ipv6/conf/{scope}/forwarding"), forwarding);
    }
    sysctl("ipv4/ip_forward", forwarding);
    // servers on addresses that are only routed there
    sysctl("ipv6/ip_nonlocal_bind", "1");
    sysctl("ipv4/icmp_ratemask", "0");
    sysctl("ipv4/icmp_ratelimit", "0");
    sysctl("ipv6/icmp/ratelimit", "0");
}

fn sysctl(key: &str, value: &str) {
    let path = format!("/proc/sys/net/{key}");
    std::fs::write(&path, value).unwrap_or_else(|error| panic!("{path}: {error}"));
}

/// The node: its addresses, the veths and the ways out.
fn node_links(prefix: &str) -> String {
    let mut lines = String::from("link set lo up\n");
    let veths = [
        ("eth0", Ns::Client),
        ("pod1", Ns::Pod1),
        ("pod2", Ns::Pod2),
        ("pod3", Ns::Pod3),
        ("peer0", Ns::Remote),
        ("void0", Ns::Void),
    ];
    for (link, peer) in veths {
        let _ = writeln!(
            lines,
            "link add name {link} type veth peer name eth0 netns {prefix}-{peer:?}\nlink set {link} up"
        );
    }
    for family in BOTH {
        for name in [Name::Node, Name::Node2] {
            add_address(&mut lines, name, family, "eth0");
        }
        add_address(&mut lines, Name::Underlay, family, "peer0");
        for (link, pod) in [("pod1", Name::Pod1), ("pod2", Name::Pod2), ("pod3", Name::Pod3)] {
            add_address(&mut lines, Name::Gateway, family, link);
            let _ = writeln!(lines, "route add {} dev {link}", pod.ip(family));
        }
        add_address(&mut lines, Name::Gateway, family, "void0");
        let (outside, other_node, other_pods) = routers(family);
        let void = void(family);
        let _ = writeln!(lines, "route add {void} dev void0");
        let _ = writeln!(lines, "route add {outside} dev eth0\nroute add default via {outside} dev eth0");
        let _ = writeln!(lines, "route add {other_node} dev peer0");
        let _ = writeln!(lines, "route add {other_pods} via {other_node} dev peer0");
        // the node's own packets leave with the source that the default route would give them
        let own = Name::Node.ip(family);
        for virtual_cidr in virtual_cidrs(family) {
            let _ = writeln!(lines, "route add {virtual_cidr} via {void} dev void0 src {own}");
        }
        let _ = writeln!(lines, "route add {} via {outside} dev eth0", Name::PublicTaken.ip(family));
    }
    lines
}

/// Addresses of the outside router and of the other node, and the other node's pod CIDR.
fn routers(family: Family) -> (&'static str, &'static str, &'static str) {
    match family {
        Family::V4 => ("192.168.1.1", "192.168.2.20", "10.244.2.0/24"),
        Family::V6 => ("2001:db8:1::1", "2001:db8:2::20", "fd00:10:244:2::/64"),
    }
}

/// The router to nowhere.
fn void(family: Family) -> &'static str {
    match family {
        Family::V4 => "192.168.3.20",
        Family::V6 => "2001:db8:3::20",
    }
}

/// Addresses that nobody has; see [`Name::destination`].
fn virtual_cidrs(family: Family) -> [&'static str; 2] {
    [SERVICE_CIDRS[family as usize], PUBLIC_CIDRS[family as usize]]
}

/// Everything else has one interface, its addresses, and the node as its router.
fn far_side(ns: Ns) -> String {
    let mut lines = String::from("link set lo up\nlink set eth0 up\n");
    let names: Vec<Name> = match ns {
        Ns::Client => vec![Name::Client, Name::Client2, Name::Elsewhere, Name::PublicTaken],
        _ => super::names::ENDPOINTS.into_iter().filter(|name| name.namespace() == Some(ns)).collect(),
    };
    for family in BOTH {
        for name in &names {
            add_address(&mut lines, *name, family, "eth0");
        }
        let (outside, other_node, _) = routers(family);
        let (own, via) = match ns {
            Ns::Client => (Some(outside), Name::Node),
            Ns::Remote => (Some(other_node), Name::Underlay),
            Ns::Void => (Some(void(family)), Name::Gateway),
            _ => (None, Name::Gateway),
        };
        if let Some(own) = own {
            let _ = writeln!(lines, "addr add {own} dev eth0{}", nodad(family));
        }
        if ns == Ns::Void {
            for virtual_cidr in virtual_cidrs(family) {
                let _ = writeln!(lines, "route add local {virtual_cidr} dev lo");
            }
        }
        let via = via.ip(family);
        let _ = writeln!(lines, "route add {via} dev eth0\nroute add default via {via} dev eth0");
    }
    lines
}

fn add_address(lines: &mut String, name: Name, family: Family, link: &str) {
    let _ = writeln!(lines, "addr add {} dev {link}{}", name.ip(family), nodad(family));
}

fn nodad(family: Family) -> &'static str {
    if family == Family::V6 { " nodad" } else { "" }
}
