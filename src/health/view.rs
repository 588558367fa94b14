//! What of the store the node's health servers show. PURE: the engine keeps it up to date, Service by
//! Service; the servers get the changes.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::config::NodePortAddresses;
use crate::desired::{Context, Row, node_rows};
use crate::model::{Family, ServiceName, Store};
use crate::policy::local::{HealthPort, WithoutLocal, health_port, without_local};

/// News for the health servers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// The health port of a Service, or that it has none any more.
    Port(ServiceName, Option<HealthPort>),
    /// All addresses on which health ports answer; an unspecified one stands for its family.
    Addresses(Vec<IpAddr>),
}

/// The health ports, and how many ServicePorts lack an endpoint here.
#[derive(Debug, Default)]
pub struct HealthView {
    ports: BTreeMap<ServiceName, HealthPort>,
    addresses: Vec<IpAddr>,
    /// Only what is not zero, IPv4 first.
    without: BTreeMap<ServiceName, [WithoutLocal; 2]>,
    total: [WithoutLocal; 2],
    changes: Vec<Change>,
}

impl HealthView {
    /// Looks at one Service again. Cost: its own endpoints.
    pub fn look_at(&mut self, name: &ServiceName, store: &Store) {
        let service = store.service(name);
        let port = service.and_then(|service| health_port(service, &store.slices(name)));
        if self.ports.get(name) != port.as_ref() {
            match port {
                Some(port) => _ = self.ports.insert(name.clone(), port),
                None => _ = self.ports.remove(name),
            }
            self.changes.push(Change::Port(name.clone(), port));
        }
        let count = |family| {
            service.map_or_else(WithoutLocal::default, |service| {
                without_local(service, &store.slices(name), family)
            })
        };
        let now = Family::ALL.map(count);
        let before = self.without.remove(name).unwrap_or_default();
        for ((total, before), now) in self.total.iter_mut().zip(before).zip(now) {
            total.internal += now.internal - before.internal;
            total.external += now.external - before.external;
        }
        if now != [WithoutLocal::default(); 2] {
            self.without.insert(name.clone(), now);
        }
    }

    /// Looks at the node's addresses again.
    pub fn look_at_node(&mut self, store: &Store, context: &Context) {
        let addresses = Family::ALL.into_iter().flat_map(|family| addresses(store, family, context));
        let addresses: Vec<IpAddr> = addresses.collect();
        if self.addresses != addresses {
            self.addresses.clone_from(&addresses);
            self.changes.push(Change::Addresses(addresses));
        }
    }

    /// What has changed since the last call.
    pub fn take_changes(&mut self) -> Vec<Change> {
        std::mem::take(&mut self.changes)
    }

    /// How many ServicePorts have a policy Local and endpoints only elsewhere, by family.
    #[must_use]
    pub fn without_local(&self) -> [(Family, WithoutLocal); 2] {
        let [four, six] = Family::ALL;
        [(four, self.total[0]), (six, self.total[1])]
    }
}

/// Where health ports answer in one family: where NodePorts do, and on the loopback address if a CIDR
/// of `nodePortAddresses` contains it (NodePorts proper never answer there).
fn addresses(store: &Store, family: Family, context: &Context) -> Vec<IpAddr> {
    let (any, loopback): (IpAddr, IpAddr) = match family {
        Family::V4 => (Ipv4Addr::UNSPECIFIED.into(), Ipv4Addr::LOCALHOST.into()),
        Family::V6 => (Ipv6Addr::UNSPECIFIED.into(), Ipv6Addr::LOCALHOST.into()),
    };
    if context.node_port_addresses.matches_all(family) {
        return vec![any];
    }
    let held = node_rows(store, family, context).into_iter().filter_map(|row| match row {
        Row::NodePortAddress(address) => Some(address),
        _ => None,
    });
    let own = match &context.node_port_addresses {
        NodePortAddresses::Cidrs(cidrs) => cidrs.iter().any(|cidr| cidr.contains(&loopback)),
        NodePortAddresses::Primary => false,
    };
    held.chain(own.then_some(loopback)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Endpoint, LocalAddress, Object, Touched, Update};
    use crate::testing::{endpoint, local, name, port, service, slice};

    fn set(store: &mut Store, update: Update) {
        store.apply(update, &mut Touched::default());
    }

    fn set_slice(store: &mut Store, endpoints: &[Endpoint]) {
        let slice = slice("http", 80, endpoints);
        set(store, Update::Set(Object::EndpointSlice(name("a/web-1"), name("a/web"), slice)));
    }

    #[test]
    fn only_changes_are_told() {
        let mut store = Store::default();
        let mut view = HealthView::default();
        let mut balanced = service("10.96.0.1").external_local().build();
        balanced.health_check_node_port = Some(port(30123));
        set(&mut store, Update::Set(Object::Service(name("a/web"), balanced)));
        let told = |view: &mut HealthView, store: &Store| -> Vec<Option<usize>> {
            view.look_at(&name("a/web"), store);
            let changes = view.take_changes().into_iter();
            changes
                .map(|change| match change {
                    Change::Port(_, port) => port.map(|port| port.local_endpoints),
                    Change::Addresses(_) => panic!("no address has changed"),
                })
                .collect()
        };
        assert_eq!(told(&mut view, &store), [Some(0)]);
        assert_eq!(told(&mut view, &store), []);
        set_slice(&mut store, &[local("10.1.0.1"), endpoint("10.1.0.2")]);
        assert_eq!(told(&mut view, &store), [Some(1)]);
        assert_eq!(view.without_local()[0].1.external, 0);
        set_slice(&mut store, &[endpoint("10.1.0.2")]);
        assert_eq!(told(&mut view, &store), [Some(0)]);
        assert_eq!(view.without_local()[0].1.external, 1);
        set(&mut store, Update::Delete(crate::model::Key::Service(name("a/web"))));
        assert_eq!(told(&mut view, &store), [None]);
        assert_eq!(view.without_local()[0].1, WithoutLocal::default());
    }

    #[test]
    fn health_ports_answer_where_node_ports_do_and_on_loopback_if_told() {
        let mut store = Store::default();
        let held = |ip: &str| LocalAddress { address: ip.parse().unwrap(), default_route: true };
        let all = [held("192.168.0.2"), held("10.9.0.1"), held("2001:db8::1")];
        set(&mut store, Update::LocalAddresses(Box::new(all)));
        let cidrs =
            |list: &[&str]| NodePortAddresses::Cidrs(list.iter().map(|cidr| cidr.parse().unwrap()).collect());
        let table = [
            (cidrs(&["127.0.0.0/8", "::/0"]), "127.0.0.1 ::"),
            (cidrs(&["10.0.0.0/8", "::1/128"]), "10.9.0.1 ::1"),
            (cidrs(&["0.0.0.0/0", "2001:db8::/32"]), "0.0.0.0 2001:db8::1"),
            (NodePortAddresses::Primary, "10.9.0.1 192.168.0.2 2001:db8::1"),
        ];
        for (node_port_addresses, expected) in table {
            let context = Context { node_ips: store.node_ips(), node_port_addresses };
            let mut view = HealthView::default();
            view.look_at_node(&store, &context);
            let [Change::Addresses(got)] = &view.take_changes()[..] else { panic!("one change") };
            let got: Vec<String> = got.iter().map(ToString::to_string).collect();
            assert_eq!(got.join(" "), expected);
        }
    }
}
