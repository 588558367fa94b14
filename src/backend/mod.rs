//! Backends: what programs a node. One trait, one module a mode.

pub mod nftables;
