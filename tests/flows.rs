//! Tables of packets: objects, then flows with what must become of them, on a real kernel.
//!
//! The program under test runs in network namespaces (`netns/`); the tables are in `flows/`.
//! Arguments are parts of names of cases; `SHUNT_NETNS_JOBS` says how many run at a time, `SHUNT_NETNS_RULES=1` adds
//! the node's rules to a failure, `SHUNT_BIN` another program to test, `SHUNT_SKIP_NETNS=1` accepts a machine without namespaces.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]
#![allow(clippy::missing_panics_doc, reason = "a test fails by panicking")]

mod netns;
#[path = "flows/mod.rs"]
mod tables;

fn main() {
    netns::sandbox::enter();
    std::process::exit(netns::runner::run(&tables::all()));
}
