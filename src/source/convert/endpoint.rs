//! EndpointSlices and Endpoints. PURE.

use std::net::IpAddr;
use std::sync::Arc;

use super::{Context, Converted, HEADLESS, Report, label};
use crate::model::{
    Endpoint, EndpointSlice, Endpoints, Family, Key, Kind, NodeHint, Object, ObjectName, SlicePort, Zone,
};
use crate::source::field::{Field, List};
use crate::source::objects::{self, EndpointPort, Hints, SubsetAddress};

/// Which Service a slice belongs to.
const SERVICE_NAME: &str = "kubernetes.io/service-name";

impl Context {
    /// An EndpointSlice.
    ///
    /// Not ours, hence told as deleted: slices of headless Services (label
    /// `service.kubernetes.io/headless`), of no Service (no label `kubernetes.io/service-name`), and those
    /// whose `addressType` is `FQDN`.
    ///
    /// An endpoint is its first address. Conditions that are not set: ready and serving, not terminating.
    #[must_use]
    pub fn endpoint_slice(&self, object: &objects::EndpointSlice) -> Converted {
        let mut report = Report::new(Kind::EndpointSlice, &object.metadata);
        let Some(name) = report.object_name() else { return report.nothing() };
        let service = label(&object.metadata, SERVICE_NAME).filter(|service| !service.is_empty());
        let headless = label(&object.metadata, HEADLESS).is_some();
        if headless {
            return report.delete(Key::EndpointSlice(name));
        }
        let Some(service) = service else {
            let path = format_args!("metadata.labels[{SERVICE_NAME}]");
            report.problem(path, "is missing: the slice belongs to no Service and is left out");
            return report.delete(Key::EndpointSlice(name));
        };
        if service.contains('/') {
            let path = format_args!("metadata.labels[{SERVICE_NAME}]");
            report.problem(path, "holds a slash: the slice is left out");
            return report.delete(Key::EndpointSlice(name));
        }
        let Some(family) = report.family(&object.address_type) else {
            return report.delete(Key::EndpointSlice(name));
        };
        let service = ObjectName::new(name.namespace(), service);
        let ports = self.slice_ports(&mut report, &object.ports, format_args!("ports"));
        let endpoints = self.endpoints_of(&mut report, &object.endpoints, family);
        let slice = EndpointSlice { family, ports, endpoints };
        report.set(Object::EndpointSlice(name, service, slice))
    }

    /// A legacy Endpoints object: each subset becomes a slice for each family that it has addresses of.
    /// `addresses` are ready, `notReadyAddresses` are not. Those of headless Services are not ours.
    #[must_use]
    pub fn endpoints(&self, object: &objects::Endpoints) -> Converted {
        let mut report = Report::new(Kind::Endpoints, &object.metadata);
        let Some(name) = report.object_name() else { return report.nothing() };
        if label(&object.metadata, HEADLESS).is_some() {
            return report.delete(Key::Endpoints(name));
        }
        let mut slices = Vec::new();
        for (index, subset) in report.elements(&object.subsets, format_args!("subsets")) {
            let path = format_args!("subsets[{index}]");
            let ports = self.slice_ports(&mut report, &subset.ports, format_args!("{path}.ports"));
            let mut all = Vec::new();
            let groups = [
                ("addresses", &subset.addresses, true),
                ("notReadyAddresses", &subset.not_ready_addresses, false),
            ];
            for (group, addresses, ready) in groups {
                let path = format_args!("{path}.{group}");
                self.subset_addresses(&mut report, addresses, ready, path, &mut all);
            }
            for family in Family::ALL {
                let endpoints = Endpoints::new(family, all.iter().cloned());
                if !endpoints.is_empty() {
                    slices.push(EndpointSlice { family, ports: ports.clone(), endpoints });
                }
            }
        }
        report.set(Object::Endpoints(name, slices.into()))
    }

    fn endpoints_of(
        &self,
        report: &mut Report<'_>,
        given: &List<objects::Endpoint>,
        family: Family,
    ) -> Endpoints {
        let given = report.elements(given, format_args!("endpoints"));
        let mut endpoints: Vec<Endpoint> = Vec::with_capacity(given.len());
        for (index, given) in given {
            let before = endpoints.last().and_then(|endpoint| endpoint.zone_hints.clone());
            endpoints.extend(self.endpoint(report, given, index, family, before));
        }
        Endpoints::new(family, endpoints)
    }

    /// One endpoint. `before` are the zone hints of the one before it, which are mostly the same.
    fn endpoint(
        &self,
        report: &mut Report<'_>,
        given: &objects::Endpoint,
        index: usize,
        family: Family,
        before: Option<Arc<Vec<Zone>>>,
    ) -> Option<Endpoint> {
        let path = format_args!("endpoints[{index}]");
        let addresses = report.value(&given.addresses, format_args!("{path}.addresses"));
        let first = addresses.and_then(|list| list.first()).unwrap_or(&Field::Unset);
        let address = report.endpoint_ip(first, format_args!("{path}.addresses[0]"))?;
        if Family::of(&address) != family {
            let what = format_args!("{address} is not {family}, as addressType says: left out");
            report.problem(format_args!("{path}.addresses[0]"), what);
            return None;
        }
        let none = objects::Conditions::default();
        let path = format_args!("endpoints[{index}].conditions");
        let conditions = report.value(&given.conditions, path).unwrap_or(&none);
        let node_name = report.text(&given.node_name, format_args!("endpoints[{index}].nodeName"));
        let hints = report.value(&given.hints, format_args!("endpoints[{index}].hints"));
        Some(Endpoint {
            address,
            ready: report.flag(&conditions.ready, true, format_args!("{path}.ready")),
            serving: report.flag(&conditions.serving, true, format_args!("{path}.serving")),
            terminating: report.flag(&conditions.terminating, false, format_args!("{path}.terminating")),
            local: self.is_here(node_name),
            node_hint: hints.map_or(NodeHint::None, |hints| self.node_hint(report, hints, index)),
            zone_hints: hints.and_then(|hints| self.zone_hints(report, hints, index, before)),
        })
    }

    pub(super) fn is_here(&self, node_name: &str) -> bool {
        !node_name.is_empty() && node_name == &*self.node_name.0
    }

    fn node_hint(&self, report: &mut Report<'_>, hints: &Hints, index: usize) -> NodeHint {
        let nodes = report.elements(&hints.for_nodes, format_args!("endpoints[{index}].hints.forNodes"));
        match nodes.iter().any(|(_, node)| self.is_here(node.name.text())) {
            true => NodeHint::Here,
            false if nodes.is_empty() => NodeHint::None,
            false => NodeHint::Elsewhere,
        }
    }

    fn zone_hints(
        &self,
        report: &mut Report<'_>,
        hints: &Hints,
        index: usize,
        before: Option<Arc<Vec<Zone>>>,
    ) -> Option<Arc<Vec<Zone>>> {
        let zones = report.elements(&hints.for_zones, format_args!("endpoints[{index}].hints.forZones"));
        let names: Vec<&str> =
            zones.iter().map(|(_, zone)| zone.name.text()).filter(|name| !name.is_empty()).collect();
        if names.is_empty() {
            return None;
        }
        before
            .filter(|before| before.iter().map(|zone| &*zone.0).eq(names.iter().copied()))
            .or_else(|| Some(self.shared.zones(&names)))
    }

    fn slice_ports(
        &self,
        report: &mut Report<'_>,
        list: &List<EndpointPort>,
        path: std::fmt::Arguments<'_>,
    ) -> Arc<[SlicePort]> {
        let mut ports = Vec::new();
        for (index, given) in report.elements(list, path) {
            let path = format_args!("{path}[{index}]");
            let name = report.text(&given.name, format_args!("{path}.name"));
            let Some(protocol) = report.protocol(&given.protocol, format_args!("{path}.protocol")) else {
                continue;
            };
            let Some(port) = report.number(&given.port, format_args!("{path}.port")) else { continue };
            let port = SlicePort { name: self.shared.port_name(name), protocol, port };
            if ports.contains(&port) {
                report.problem(path, "is there twice: the first counts");
            } else {
                ports.push(port);
            }
        }
        self.shared.slice_ports(ports)
    }

    fn subset_addresses(
        &self,
        report: &mut Report<'_>,
        given: &List<SubsetAddress>,
        ready: bool,
        path: std::fmt::Arguments<'_>,
        endpoints: &mut Vec<Endpoint>,
    ) {
        for (index, given) in report.elements(given, path) {
            let address = report.endpoint_ip(&given.ip, format_args!("{path}[{index}].ip"));
            let node_name = report.text(&given.node_name, format_args!("{path}[{index}].nodeName"));
            endpoints.extend(address.map(|address| Endpoint {
                address,
                ready,
                serving: ready,
                terminating: false,
                local: self.is_here(node_name),
                node_hint: NodeHint::None,
                zone_hints: None,
            }));
        }
    }
}

impl Report<'_> {
    fn endpoint_ip(&mut self, field: &Field<String>, path: std::fmt::Arguments<'_>) -> Option<IpAddr> {
        if matches!(field, Field::Unset) {
            self.problem(path, "is missing: the endpoint is left out");
        }
        let text = self.value(field, path)?;
        self.unicast_ip(text, path)
    }

    fn family(&mut self, address_type: &Field<String>) -> Option<Family> {
        match self.text(address_type, format_args!("addressType")) {
            "IPv4" => Some(Family::V4),
            "IPv6" => Some(Family::V6),
            "FQDN" => None,
            other => {
                let what = format_args!("{other:?} is not IPv4 or IPv6: the slice is left out");
                self.problem(format_args!("addressType"), what);
                None
            }
        }
    }
}
