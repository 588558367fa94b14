//! Policy: the decisions of a node, as small functions of the model. PURE.
//!
//! [`endpoints`] says who may answer, [`exposure`] on which frontends a Service is offered,
//! [`ranges`] who may call a load-balancer IP. `desired::compile` puts them together.

pub mod endpoints;
pub mod exposure;
pub mod ranges;
pub mod topology;
