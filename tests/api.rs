//! The source that follows a Kubernetes API server, against a server that misbehaves.
#![allow(clippy::unwrap_used, reason = "this is a test")]

#[path = "api/access.rs"]
mod access;
mod apiserver;
#[path = "api/changes.rs"]
mod changes;
#[path = "api/cuts.rs"]
mod cuts;
#[path = "api/events.rs"]
mod events;
#[path = "api/faults.rs"]
mod faults;
#[path = "api/follower.rs"]
mod follower;
#[path = "api/rights.rs"]
mod rights;
#[path = "api/silence.rs"]
mod silence;
