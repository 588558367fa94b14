//! The userspace mode: shunt itself accepts connections and forwards them, on nodes whose kernel offers
//! no NAT.
//!
//! ```text
//!  Plan ─▶ table ─▶ Effects ─▶ apply ─▶ routes     addresses of Services become the node's own
//!                                │  └──▶ listen     a socket for each frontend, with a filter
//!                                ▼
//!                              worker (a thread each) ─▶ tcp, relay   connections
//!                                │                    └▶ udp, batch   flows
//!                                └─▶ slot, choose: which endpoint
//! ```
//!
//! `table`, `filter`, `choose`, `ports`, `proxy_protocol`, `slab` and `token` are PURE; the others are edges.

mod apply;
mod batch;
mod choose;
pub mod counters;
mod filter;
mod limits;
mod listen;
mod locality;
mod ports;
mod proxy_protocol;
mod relay;
mod routes;
mod slab;
mod slot;
mod table;
mod tcp;
mod token;
mod udp;
mod unserved;
mod worker;

pub use apply::{Userspace, cleanup};
pub use counters::Traffic;
