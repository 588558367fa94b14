//! A laboratory of network namespaces: a node, its pods, another node's pods and an outside world, with the real
//! kernel between them, for tables of packets.
//!
//! `names` is the address book, `topology` and `lab` build the node, `objects` write manifests, `flow` is a row of a
//! table, `probe`, `sctp` and `responder` are the two ends of a packet, `hammer` is a client that never rests, `daemon` and `nft` what runs on the node, `mode` what differs from one proxy mode to another,
//! `runner` goes through the cases.

pub mod daemon;
pub mod flow;
pub mod hammer;
pub mod lab;
pub mod mode;
pub mod names;
pub mod nft;
pub mod objects;
pub mod probe;
pub mod responder;
pub mod runner;
pub mod sandbox;
pub mod sctp;
pub mod topology;

pub mod prelude {
    //! What a file of cases needs.
    pub use super::flow::{Flow, from};
    pub use super::lab::Lab;
    pub use super::names::Name::{self, *};
    pub use super::names::{BOTH, Family, Ns};
    pub use super::objects::{Objects, Slice, config, service, slice};
    pub use crate::cases;
    pub use serde_json::json;
}
