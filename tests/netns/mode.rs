//! The proxy modes, and what the same tables expect of each.

use super::flow::{Expect, Flow, Masquerade, Protocol};
use super::names::{ENDPOINTS, Ns};

/// A proxy mode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    Nftables,
    Userspace,
}

impl Mode {
    /// As the configuration has it.
    pub fn word(self) -> &'static str {
        match self {
            Self::Nftables => "nftables",
            Self::Userspace => "userspace",
        }
    }

    /// The row as this mode has to satisfy it; `None` where it cannot.
    pub fn expects(self, flow: &Flow) -> Option<Flow> {
        match self {
            Self::Nftables => Some(flow.clone()),
            Self::Userspace => of_a_proxy(flow),
        }
    }
}

/// What a proxy cannot do, and why: it ends the client's connection and begins one of its own, so endpoints see an
/// address of the node; it does not speak SCTP; and addresses that no Service owns are dropped by a route, which the
/// node itself is told of when it sends there.
fn of_a_proxy(flow: &Flow) -> Option<Flow> {
    let through_a_service = !ENDPOINTS.contains(&flow.to);
    let mut flow = flow.clone();
    match &flow.expect {
        _ if flow.protocol == Protocol::Sctp => return None,
        Expect::Endpoints(_) if through_a_service => flow.masquerade = Masquerade::Rewritten,
        Expect::Dropped if flow.from.namespace() == Some(Ns::Node) => flow.expect = Expect::DroppedOrInvalid,
        _ => {}
    }
    Some(flow)
}
