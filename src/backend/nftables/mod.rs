//! The nftables mode.

pub mod apply;
pub mod codec;
pub mod connection;
pub mod element;
pub mod encode;
pub mod expr;
pub mod names;
pub mod notes;
pub mod owner;
pub mod probe;
pub mod protocol;
pub mod rebuild;
pub mod repair;
pub mod ruleset;
pub mod state;
pub mod statement;
pub mod steps;
pub mod sticky;
pub mod transaction;
pub mod typeof_data;
pub mod watch;
pub mod wire;

pub use apply::Nftables;
pub use probe::{Verdict, probe};
