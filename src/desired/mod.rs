//! The desired state: rows, one Service at a time. PURE.
//!
//! [`compile`] turns one Service into rows; the [`Ledger`] knows which rows are wanted, which of
//! several claimants gets a row, and what the backend has acknowledged; [`flows`] what connection
//! tracking has to be compared with.

pub mod compile;
pub mod flows;
pub mod ledger;
pub mod row;

pub use compile::{Context, node_rows, service_rows};
pub use ledger::Ledger;
pub use row::{Affinity, Choice, Forwarding, Masquerade, Owner, Row, RowKey, ServicePortName};
