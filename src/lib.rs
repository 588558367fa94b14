//! shunt: a kube-proxy replacement for Linux nodes.
//!
//! Data flows one way:
//!
//! ```text
//!  API server ─▶ source ─▶ model ─▶ policy ─▶ desired ─▶ diff ─▶ backend ─▶ kernel
//!  manifests     Update    Store    decisions  rows       Plan    nftables, userspace
//!  node addrs                                              ▲         │ read()
//!                                                          └─applied─┘
//! ```
//!
//! `ARCHITECTURE.md` follows one packet and one API change through it.

pub mod backend;
pub mod background;
pub mod cli;
pub mod config;
pub mod conntrack;
pub mod desired;
pub mod diff;
pub mod engine;
pub mod exit;
pub mod health;
pub mod http;
pub mod leftovers;
pub mod lock;
pub mod metrics;
pub mod model;
pub mod netlink;
pub mod notices;
pub mod policy;
pub mod process;
pub mod reload;
pub mod reviews;
pub mod run;
pub mod schedule;
pub mod serve;
pub mod source;
pub mod sysctl;
#[cfg(test)]
pub(crate) mod testing;
