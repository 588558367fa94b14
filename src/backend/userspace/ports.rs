//! Which ServicePort each frontend belongs to, and when one has gone. PURE, but for the counters.

use std::collections::HashMap;
use std::sync::Arc;

use super::counters::{PortName, Traffic};
use super::slot::ServedPort;
use super::table::Binding;
use crate::desired::ServicePortName;

/// All ServicePorts. A frontend holds its own for as long as it stands, be it open, refused for want of
/// endpoints, or impossible to open: a Service that is without endpoints for a moment keeps its
/// connections and who has which endpoint.
#[derive(Debug)]
pub struct Ports {
    traffic: Traffic,
    by_name: HashMap<String, Held>,
    by_binding: HashMap<Binding, Arc<ServedPort>>,
}

/// A ServicePort and how many frontends hold it.
#[derive(Debug)]
struct Held {
    port: Arc<ServedPort>,
    bindings: usize,
}

impl Ports {
    /// None yet; their counters are shown in `traffic`.
    #[must_use]
    pub fn new(traffic: Traffic) -> Self {
        Self { traffic, by_name: HashMap::new(), by_binding: HashMap::new() }
    }

    /// The ServicePort of a frontend; besides it the one that was there before, if that has gone with this.
    pub fn hold(
        &mut self,
        binding: Binding,
        name: &ServicePortName,
    ) -> (Arc<ServedPort>, Option<Arc<ServedPort>>) {
        if let Some(port) = self.by_binding.get(&binding).filter(|port| port.name.name == *name) {
            return (port.clone(), None);
        }
        let name = PortName { name: name.clone(), protocol: binding.protocol };
        let held = self.by_name.entry(name.to_string()).or_insert_with(|| {
            let counters = self.traffic.of(&name);
            Held { port: Arc::new(ServedPort::new(name, counters)), bindings: 0 }
        });
        held.bindings += 1;
        let port = held.port.clone();
        let before = self.by_binding.insert(binding, port.clone());
        (port, before.and_then(|before| self.let_go(before)))
    }

    /// A frontend has gone; returns its ServicePort if that has gone with it.
    pub fn release(&mut self, binding: Binding) -> Option<Arc<ServedPort>> {
        self.by_binding.remove(&binding).and_then(|port| self.let_go(port))
    }

    fn let_go(&mut self, port: Arc<ServedPort>) -> Option<Arc<ServedPort>> {
        let key = port.name.to_string();
        let held = self.by_name.get_mut(&key)?;
        held.bindings -= 1;
        if held.bindings > 0 {
            return None;
        }
        self.by_name.remove(&key);
        self.traffic.forget(&port.name);
        Some(port)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Protocol;

    #[test]
    fn a_port_goes_with_its_last_frontend() {
        let mut ports = Ports::new(Traffic::default());
        let binding = |at: &str| Binding { protocol: Protocol::Tcp, at: at.parse().unwrap() };
        let name = |text: &str| ServicePortName::parse(text).unwrap();
        let [a, b] = [binding("10.96.0.1:80"), binding("192.0.2.1:80")];
        let (web, gone) = ports.hold(a, &name("shop/web"));
        assert!(gone.is_none());
        for at in [a, b, b] {
            let (same, gone) = ports.hold(at, &name("shop/web"));
            assert!(Arc::ptr_eq(&same, &web) && gone.is_none(), "{at}");
        }
        let (_, gone) = ports.hold(a, &name("shop/other"));
        assert!(gone.is_none(), "the other frontend still holds it");
        let (_, gone) = ports.hold(b, &name("shop/other"));
        assert!(Arc::ptr_eq(&gone.unwrap(), &web));
        assert!(ports.release(a).is_none());
        assert_eq!(ports.release(b).unwrap().name.to_string(), "shop/other/tcp");
        assert!(ports.release(b).is_none(), "nothing is released twice");
        assert!(!Arc::ptr_eq(&ports.hold(a, &name("shop/web")).0, &web), "a new one");
    }
}
