//! The model: what Kubernetes says, in types that hold only what decides about traffic. PURE.

pub mod addr;
pub mod endpoint;
pub mod name;
pub mod node;
pub mod service;
pub mod store;
pub mod update;

pub use addr::{Family, Port, Protocol};
pub use endpoint::{Endpoint, EndpointSlice, Endpoints, NodeHint, SlicePort};
pub use name::{NodeName, ObjectName, ServiceName, SharedStr, Zone};
pub use node::{LocalAddress, Node};
pub use service::{Service, ServicePort, TrafficPolicy};
pub use store::{Store, Touched};
pub use update::{Key, Kind, Object, Update};
