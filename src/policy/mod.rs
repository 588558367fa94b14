//! Policy: the decisions of a node, as small functions of the model. PURE.
//!
//! [`endpoints`] says who may answer, [`exposure`] on which frontends a Service is offered,
//! [`ranges`] who may call a load-balancer IP, [`local`] what is said of endpoints here, [`stale`] which flows in conntrack have to go.
//! `desired::compile` and `desired::flows` put them together.

pub mod endpoints;
pub mod exposure;
pub mod local;
pub mod ranges;
pub mod stale;
pub mod targets;
pub mod topology;
