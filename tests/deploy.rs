//! What an operator applies or runs as it is: manifests, overlays, image, dashboard and alerts. Checked as far as that goes
//! without a cluster.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "deploy/daemonsets.rs"]
mod daemonsets;
#[path = "deploy/dashboards.rs"]
mod dashboards;
#[path = "deploy/documents.rs"]
mod documents;
#[path = "deploy/image.rs"]
mod image;
#[path = "deploy/kustomize.rs"]
mod kustomize;
#[path = "deploy/pages.rs"]
mod pages;
#[path = "deploy/schema.rs"]
mod schema;
