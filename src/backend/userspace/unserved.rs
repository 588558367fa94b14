//! Frontends that could not be opened: who is told, and when. PURE, but for the counters.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use super::slot::ServedPort;
use super::table::Binding;
use crate::desired::Owner;

/// Why a frontend is not served.
#[derive(Debug)]
pub struct Unserved {
    /// Whose frontend it is.
    pub owner: Owner,
    /// The ServicePort.
    pub port: Arc<ServedPort>,
    /// What is in the way, and what to do about it.
    pub why: Why,
}

/// What is in the way.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Why {
    /// The address cannot be made this node's own.
    NotLocal(String),
    /// Another program has the port.
    InUse,
    /// A port below `net.ipv4.ip_unprivileged_port_start`.
    Forbidden,
    /// The limit of open files is reached.
    Descriptors(usize),
    /// SCTP.
    Protocol,
    /// Anything else.
    Other(String),
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotLocal(error) => write!(
                f,
                "its address cannot be made this node's own ({error}): give shunt CAP_NET_ADMIN, or route it here \
                 with `ip route add local ADDRESS dev lo`"
            ),
            Self::InUse => f.write_str(
                "another program on this node listens on this port, perhaps on all addresses (`ss -lntup`): have \
                 it listen on the node's own address only",
            ),
            Self::Forbidden => f.write_str(
                "the port is reserved: give shunt CAP_NET_BIND_SERVICE, or lower net.ipv4.ip_unprivileged_port_start",
            ),
            Self::Descriptors(limit) => write!(
                f,
                "there are too many Services for {limit} open files, of which a quarter stays for connections: raise \
                 LimitNOFILE or ulimit -n"
            ),
            Self::Protocol => f.write_str("a proxy cannot forward SCTP: use --proxy-mode nftables"),
            Self::Other(error) => f.write_str(error),
        }
    }
}

/// Most lines that one change is worth.
const MOST_LINES: usize = 20;

/// All frontends that could not be opened.
#[derive(Debug, Default)]
pub struct UnservedFrontends {
    by_binding: BTreeMap<Binding, Unserved>,
    /// Those that are not told of yet.
    fresh: BTreeSet<Binding>,
}

impl UnservedFrontends {
    /// Notes one, in place of what was the matter before.
    pub fn note(&mut self, binding: Binding, frontend: Unserved) {
        let told = !self.fresh.contains(&binding);
        let known = self.settle(binding);
        let same =
            known.as_ref().is_some_and(|known| known.owner == frontend.owner && known.why == frontend.why);
        if !(same && told) {
            self.fresh.insert(binding);
        }
        frontend.port.counters.add_unserved();
        self.by_binding.insert(binding, frontend);
    }

    /// The binding is served, or need not be; returns what was the matter.
    pub fn settle(&mut self, binding: Binding) -> Option<Unserved> {
        let frontend = self.by_binding.remove(&binding)?;
        self.fresh.remove(&binding);
        frontend.port.counters.take_unserved();
        Some(frontend)
    }

    /// Where they would be bound.
    pub fn bindings(&self) -> Vec<Binding> {
        self.by_binding.keys().copied().collect()
    }

    /// Those whose problem may have gone by itself.
    pub fn to_retry(&self) -> Vec<Binding> {
        let may_have_gone = self.by_binding.iter().filter(|(_, frontend)| frontend.why != Why::Protocol);
        may_have_gone.map(|(binding, _)| *binding).collect()
    }

    /// Those whose port another program had.
    pub fn in_use(&self) -> Vec<Binding> {
        let in_use = self.by_binding.iter().filter(|(_, frontend)| frontend.why == Why::InUse);
        in_use.map(|(binding, _)| *binding).collect()
    }

    /// What has to be told now: a line for each Service and cause, and one for the rest.
    pub fn news(&mut self) -> Vec<String> {
        let mut lines: BTreeMap<(&Owner, &Why), Vec<Binding>> = BTreeMap::new();
        for binding in &self.fresh {
            if let Some(Unserved { owner, why, .. }) = self.by_binding.get(binding) {
                lines.entry((owner, why)).or_default().push(*binding);
            }
        }
        let more = lines.len().saturating_sub(MOST_LINES);
        let line = |((owner, why), bindings): (&(&Owner, &Why), &Vec<Binding>)| {
            let bindings: Vec<String> = bindings.iter().map(ToString::to_string).collect();
            let verb = if bindings.len() == 1 { "is" } else { "are" };
            format!("{owner}: {} {verb} not served: {why}", bindings.join(", "))
        };
        let mut lines: Vec<String> = lines.iter().take(MOST_LINES).map(line).collect();
        if more > 0 {
            lines.push(format!(
                "the same kind of thing holds for {more} more Services; the metric shunt_userspace_unserved names \
                 them all"
            ));
        }
        self.fresh.clear();
        lines
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::userspace::counters::{PortName, Traffic};
    use crate::desired::ServicePortName;
    use crate::model::Protocol;
    use crate::testing::name;

    fn problem(traffic: &Traffic, service: &str, why: Why) -> Unserved {
        let name_of_port =
            PortName { name: ServicePortName::parse(service).unwrap(), protocol: Protocol::Tcp };
        let port = Arc::new(ServedPort::new(name_of_port.clone(), traffic.of(&name_of_port)));
        Unserved { owner: Owner::Service(name(service)), port, why }
    }

    fn binding(at: &str) -> Binding {
        Binding { protocol: Protocol::Tcp, at: at.parse().unwrap() }
    }

    #[test]
    fn each_service_is_told_of_once() {
        let traffic = Traffic::default();
        let mut unserved = UnservedFrontends::default();
        for at in ["10.96.0.1:80", "10.96.0.1:443"] {
            unserved.note(binding(at), problem(&traffic, "shop/web", Why::InUse));
        }
        let lines = unserved.news();
        assert_eq!(lines.len(), 1, "{lines:?}");
        let start = "Service shop/web: 10.96.0.1:80/tcp, 10.96.0.1:443/tcp are not served: another program";
        assert!(lines[0].starts_with(start), "{lines:?}");
        unserved.note(binding("10.96.0.1:80"), problem(&traffic, "shop/web", Why::InUse));
        assert!(unserved.news().is_empty(), "the same again");
        unserved.note(binding("10.96.0.1:80"), problem(&traffic, "shop/web", Why::Forbidden));
        assert_eq!(unserved.news().len(), 1, "another cause");
        assert!(unserved.settle(binding("10.96.0.1:80")).is_some());
        assert_eq!(unserved.bindings(), [binding("10.96.0.1:443")]);
        assert_eq!(unserved.to_retry(), unserved.bindings());
        unserved.note(binding("10.96.0.1:443"), problem(&traffic, "shop/web", Why::Protocol));
        assert!(unserved.to_retry().is_empty(), "no retry teaches a proxy SCTP");
    }

    #[test]
    fn a_flood_is_cut() {
        let traffic = Traffic::default();
        let mut unserved = UnservedFrontends::default();
        for n in 1..=200 {
            let service = format!("shop/web-{n}");
            unserved.note(
                binding(&format!("10.96.0.{n}:80")),
                problem(&traffic, &service, Why::NotLocal("no".into())),
            );
        }
        let lines = unserved.news();
        assert_eq!(lines.len(), MOST_LINES + 1);
        assert!(lines[MOST_LINES].contains("180 more Services"), "{}", lines[MOST_LINES]);
    }
}
