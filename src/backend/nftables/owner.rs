//! Which process is behind a netlink port. EDGE.

use std::fs;

use crate::lock;

/// `NETLINK_NETFILTER`.
const PROTOCOL: &str = "12";

/// The process with this netlink port in words. The port is often the process id but need not be:
/// the socket is looked up in `/proc/net/netlink` and in the descriptors of all processes.
#[must_use]
pub fn describe(port: u32) -> String {
    let process = inode(port).and_then(|inode| process_with(&format!("socket:[{inode}]")));
    match process {
        Some(pid) => lock::describe(pid),
        None => format!("a process that cannot be seen from here (netlink port {port})"),
    }
}

fn inode(port: u32) -> Option<String> {
    // sk Eth Pid Groups Rmem Wmem Dump Locks Drops Inode
    let table = fs::read_to_string("/proc/net/netlink").ok()?;
    let port = port.to_string();
    let mut rows = table.lines().skip(1).map(|line| line.split_whitespace().collect::<Vec<_>>());
    let row = rows.find(|row| row.get(1) == Some(&PROTOCOL) && row.get(2) == Some(&port.as_str()))?;
    row.last().map(ToString::to_string)
}

fn process_with(socket: &str) -> Option<i32> {
    let processes = fs::read_dir("/proc").ok()?.flatten();
    let mut pids = processes.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    pids.find(|pid| {
        let descriptors = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
        let mut targets = descriptors.filter_map(|entry| fs::read_link(entry.path()).ok());
        targets.any(|target| target.to_str() == Some(socket))
    })
}
