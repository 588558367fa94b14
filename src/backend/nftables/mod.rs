//! The nftables mode.

pub mod element;
pub mod expr;
pub mod names;
pub mod netlink;
pub mod ruleset;
pub mod statement;
pub mod transaction;
