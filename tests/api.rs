//! The source that follows a Kubernetes API server, against a server that misbehaves.
#![allow(clippy::unwrap_used, reason = "this is a test")]

mod apiserver;
#[path = "api/changes.rs"]
mod changes;
#[path = "api/cuts.rs"]
mod cuts;
#[path = "api/faults.rs"]
mod faults;
#[path = "api/follower.rs"]
mod follower;
