//! What kube-proxy leaves on a node when it stops, and how it goes away. EDGE.
//!
//! Its nftables tables go by netlink, its iptables chains by iptables' own tools where these are here,
//! since only they know both of its ways into the kernel. Conntrack stays: connections live on.

mod iptables;

use std::fmt;
use std::fs;
use std::io::{self, Write};
use std::process::{Command, Stdio};

use nix::libc;
use tracing::warn;

use crate::backend::nftables::connection::Connection;
use crate::backend::nftables::encode::Batch;
use crate::backend::nftables::names::family_word;
use crate::backend::nftables::protocol::{chain, message, table};
use crate::model::Family;
use crate::netlink::family_number;

/// The name of kube-proxy's nftables tables.
const TABLE: &str = "kube-proxy";
/// The chain that each of its iptables modes has.
const MAIN_CHAIN: &str = "KUBE-SERVICES";
/// The interface that holds the Service addresses in ipvs mode.
const IPVS_INTERFACE: &str = "kube-ipvs0";

/// The tools of iptables, each with the one that writes. Where a distribution has both kinds, rules may
/// be in either.
const TOOLS: [(&str, &str); 6] = [
    ("iptables-nft-save", "iptables-nft-restore"),
    ("ip6tables-nft-save", "ip6tables-nft-restore"),
    ("iptables-legacy-save", "iptables-legacy-restore"),
    ("ip6tables-legacy-save", "ip6tables-legacy-restore"),
    ("iptables-save", "iptables-restore"),
    ("ip6tables-save", "ip6tables-restore"),
];

/// What was removed and what was not.
#[derive(Debug, Default)]
pub struct Report {
    /// What is gone now, a line each.
    pub removed: Vec<String>,
    /// What is still there, and why, a line each.
    pub left: Vec<String>,
    /// Whether something should have gone and did not.
    pub failed: bool,
}

impl Report {
    fn fail(&mut self, what: String) {
        self.failed = true;
        self.left.push(what);
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.removed.is_empty() && self.left.is_empty() {
            return writeln!(f, "nothing of kube-proxy's to remove");
        }
        self.removed.iter().try_for_each(|line| writeln!(f, "removed {line}"))?;
        self.left.iter().try_for_each(|line| writeln!(f, "left {line}"))
    }
}

/// What of kube-proxy's can be seen in nf_tables, in words: its own tables, and its chains in those of
/// iptables. Rules of legacy iptables cannot be seen this way.
///
/// # Errors
/// What the kernel says.
pub fn find() -> io::Result<Vec<String>> {
    let Some(mut connection) = nftables()? else { return Ok(Vec::new()) };
    let mut found = Vec::new();
    for family in Family::ALL {
        let ip = family_word(family);
        if has_table(&mut connection, family)? {
            found.push(format!("nftables table {ip} {TABLE}"));
        }
        let in_tables = tables_with_chain(&mut connection, family)?;
        found.extend(in_tables.iter().map(|table| format!("chain {MAIN_CHAIN} in table {ip} {table}")));
    }
    Ok(found)
}

/// Warns where kube-proxy's rules are on this node: two proxies rewrite the same packets.
pub fn warn_if_found() {
    match find() {
        Ok(found) if found.is_empty() => {}
        Ok(found) => warn!(
            "kube-proxy's rules are on this node ({}): they and shunt's act on the same packets. Stop kube-proxy if it \
             still runs, then remove them with `shunt cleanup --kube-proxy`, which may be done while shunt runs",
            found.join(", ")
        ),
        Err(error) => warn!("whether kube-proxy's rules are on this node cannot be seen: {error}"),
    }
}

/// Removes what can be removed. May run again, and beside a running shunt.
///
/// # Errors
/// What the kernel says when it is asked for the first time; everything else stands in the report.
pub fn remove() -> io::Result<Report> {
    let mut nftables = nftables()?;
    let mut report = Report::default();
    if let Some(connection) = &mut nftables {
        remove_tables(connection, &mut report)?;
    }
    remove_chains(&mut report);
    if let Some(connection) = &mut nftables {
        tell_of_chains(connection, &mut report)?;
    }
    remove_ipvs(&mut report);
    Ok(report)
}

/// The way to nf_tables; `None` where the kernel has none, and so no rules there.
fn nftables() -> io::Result<Option<Connection>> {
    let opened = Connection::open().and_then(|mut connection| {
        has_table(&mut connection, Family::V4)?;
        Ok(connection)
    });
    let missing = [libc::EPROTONOSUPPORT, libc::EAFNOSUPPORT, libc::EOPNOTSUPP, libc::EINVAL];
    match opened {
        Err(error) if error.raw_os_error().is_some_and(|errno| missing.contains(&errno)) => Ok(None),
        result => result.map(Some),
    }
}

fn remove_tables(connection: &mut Connection, report: &mut Report) -> io::Result<()> {
    for family in Family::ALL {
        if has_table(connection, family)? {
            let name = format!("nftables table {} {TABLE}", family_word(family));
            match connection.commit(&Batch::table_removal(family, TABLE)) {
                Ok(()) => report.removed.push(name),
                Err(refusal) => report.fail(format!("{name}: {}", refusal.errno)),
            }
        }
    }
    Ok(())
}

/// Tells of the chains of iptables that are still there.
fn tell_of_chains(connection: &mut Connection, report: &mut Report) -> io::Result<()> {
    for family in Family::ALL {
        for table in tables_with_chain(connection, family)? {
            let ip = family_word(family);
            report.fail(format!(
                "chain {MAIN_CHAIN} in table {ip} {table}: iptables-nft-save and -restore are not here or failed; \
                 install iptables, or run `kube-proxy --cleanup` from kube-proxy's image"
            ));
        }
    }
    Ok(())
}

fn has_table(connection: &mut Connection, family: Family) -> io::Result<bool> {
    let mut found = false;
    connection.dump(
        message::GET_TABLE,
        family_number(family),
        |_| {},
        |message| found |= message.attributes().string(table::NAME) == Some(TABLE),
    )?;
    Ok(found)
}

fn tables_with_chain(connection: &mut Connection, family: Family) -> io::Result<Vec<String>> {
    let mut tables = Vec::new();
    connection.dump(
        message::GET_CHAIN,
        family_number(family),
        |_| {},
        |message| {
            let attributes = message.attributes();
            if attributes.string(chain::NAME) == Some(MAIN_CHAIN) {
                tables.extend(attributes.string(chain::TABLE).map(str::to_owned));
            }
        },
    )?;
    Ok(tables)
}

/// Removes iptables chains with all tools that are here.
fn remove_chains(report: &mut Report) {
    let mut seen = false;
    for (save, restore) in TOOLS {
        // The plain names stand for one of the two kinds.
        if seen && !save.contains("tables-nft") && !save.contains("legacy") {
            continue;
        }
        let saved = match Command::new(save).stdin(Stdio::null()).output() {
            Ok(output) if output.status.success() => output.stdout,
            Ok(output) => {
                let said = String::from_utf8_lossy(&output.stderr);
                report.left.push(format!("whatever {save} would list, since it failed: {}", said.trim()));
                continue;
            }
            // It is not installed.
            Err(_) => continue,
        };
        seen = true;
        let iptables::Removal { restore: text, chains, kept } =
            iptables::removal(&String::from_utf8_lossy(&saved));
        for (chain, users) in kept {
            let users = users.into_iter().collect::<Vec<_>>().join(", ");
            report.left.push(format!("iptables chain {chain} ({save}): {users} leads to it"));
        }
        if text.is_empty() {
            continue;
        }
        match feed(restore, &text) {
            Ok(()) => report.removed.push(format!("{chains} iptables chains ({restore})")),
            Err(error) => report.fail(format!("{chains} iptables chains: {restore} failed: {error}")),
        }
    }
}

fn feed(program: &str, text: &str) -> io::Result<()> {
    let mut command = Command::new(program);
    command.args(["--noflush", "--wait"]).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = command.spawn()?;
    // A tool that refuses the text may end before it has read all of it: its own words say more.
    let fed = child.stdin.take().map_or(Ok(()), |mut input| input.write_all(text.as_bytes()));
    let output = child.wait_with_output()?;
    if output.status.success() {
        return fed;
    }
    Err(io::Error::other(String::from_utf8_lossy(&output.stderr).trim().to_owned()))
}

/// Removes the interface of ipvs mode, and its ipsets where `ipset` is here. The virtual servers themselves
/// may be anybody's.
fn remove_ipvs(report: &mut Report) {
    match delete_link(IPVS_INTERFACE) {
        Ok(true) => report.removed.push(format!("interface {IPVS_INTERFACE}")),
        Ok(false) => {}
        Err(error) => report.fail(format!("interface {IPVS_INTERFACE}: {error}")),
    }
    if let Ok(output) = Command::new("ipset").args(["list", "-name"]).stdin(Stdio::null()).output() {
        let names = String::from_utf8_lossy(&output.stdout).into_owned();
        for set in names.lines().filter(|name| name.starts_with("KUBE-")) {
            match Command::new("ipset").args(["destroy", set]).stdin(Stdio::null()).output() {
                Ok(output) if output.status.success() => report.removed.push(format!("ipset {set}")),
                Ok(output) => {
                    report.fail(format!("ipset {set}: {}", String::from_utf8_lossy(&output.stderr).trim()));
                }
                Err(error) => report.fail(format!("ipset {set}: {error}")),
            }
        }
    }
    let servers = fs::read_to_string("/proc/net/ip_vs").unwrap_or_default();
    let servers = servers.lines().filter(|line| ["TCP", "UDP", "SCTP"].iter().any(|p| line.starts_with(p)));
    let count = servers.count();
    if count > 0 {
        report.left.push(format!(
            "{count} IPVS virtual servers: they may be somebody else's; `ipvsadm --clear` removes all of them"
        ));
    }
}

/// Deletes an interface; false if there is none of this name.
fn delete_link(name: &str) -> io::Result<bool> {
    use futures::StreamExt;
    use rtnetlink::packet_route::link::LinkAttribute;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    runtime.block_on(async {
        let (connection, handle, _) = rtnetlink::new_connection()?;
        let task = tokio::spawn(connection);
        let mut links = handle.link().get().execute();
        let mut deleted = Ok(false);
        while let Some(link) = links.next().await {
            let link = link.map_err(io::Error::other)?;
            if link.attributes.contains(&LinkAttribute::IfName(name.to_owned())) {
                let result = handle.link().del(link.header.index).execute().await;
                deleted = result.map(|()| true).map_err(io::Error::other);
                break;
            }
        }
        task.abort();
        deleted
    })
}
