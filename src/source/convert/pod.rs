//! Pods, and what Services select of them: only for sources without an endpoint controller. PURE.

use std::net::IpAddr;

use super::read::has_family;
use super::{Context, Converted, Problem, Report};
use crate::model::{Family, Kind, ObjectName, Protocol, Service};
use crate::source::field::Field;
use crate::source::objects::{self, Container, Spec, Status};
use crate::source::pods::{NamedPort, Pod, Selection, Target, TargetPort};

impl Context {
    /// A Pod. One without an address cannot be an endpoint, nor can one that has come to its end (phase
    /// `Succeeded` or `Failed`): told as deleted.
    ///
    /// `podIPs` falls back to `podIP`. Ready is the condition `Ready` where its status is `True`. Named
    /// ports are those of containers, then those of init containers that keep running (`restartPolicy:
    /// Always`, KEP-753); of two with one name and protocol the first counts.
    #[must_use]
    pub fn pod(&self, object: &objects::Pod) -> Converted<(ObjectName, Pod), ObjectName> {
        let mut report = Report::of_pod(&object.metadata);
        let Some(name) = report.object_name() else { return report.nothing() };
        let (no_spec, no_status) = (Spec::default(), Status::default());
        let spec = report.value(&object.spec, format_args!("spec")).unwrap_or(&no_spec);
        let status = report.value(&object.status, format_args!("status")).unwrap_or(&no_status);
        let ended = matches!(status.phase.text(), "Succeeded" | "Failed");
        let addresses = if ended { Box::default() } else { report.pod_ips(status) };
        if addresses.is_empty() {
            return report.delete(name);
        }
        let labels = object.metadata.labels.iter().flatten();
        let ready = |condition: &objects::Condition| {
            condition.kind.text() == "Ready" && condition.status.text() == "True"
        };
        let conditions = report.elements(&status.conditions, format_args!("status.conditions"));
        let pod = Pod {
            labels: labels.map(|(key, value)| format!("{key}={value}").into()).collect(),
            addresses,
            ports: report.named_ports(spec),
            ready: conditions.iter().any(|(_, condition)| ready(condition)),
            terminating: object.metadata.deletion_timestamp.is_some(),
            local: self.is_here(report.text(&spec.node_name, format_args!("spec.nodeName"))),
        };
        report.set((name, pod))
    }

    /// What a Service of ours selects; `None` without a selector, or with one that cannot be used, since
    /// to leave a part of it out would select more. `targetPort` falls back to `port`.
    #[must_use]
    pub fn selection(
        &self,
        object: &objects::Service,
        service: &Service,
        problems: &mut Vec<Problem>,
    ) -> Option<Selection> {
        let spec = object.spec.get()?;
        if matches!(spec.selector, Field::Unset) {
            return None;
        }
        let mut report = Report::new(Kind::Service, &object.metadata);
        let selection = report.selection(spec, service);
        problems.append(&mut report.problems);
        selection
    }
}

/// Whether a manifest means this protocol; unset means TCP.
fn is_protocol(text: &str, protocol: Protocol) -> bool {
    let text = if text.is_empty() { "TCP" } else { text };
    text.eq_ignore_ascii_case(&protocol.to_string())
}

impl Report<'_> {
    fn pod_ips(&mut self, status: &Status) -> Box<[IpAddr]> {
        let mut ips = Vec::new();
        let given = self.elements(&status.pod_ips, format_args!("status.podIPs"));
        if given.is_empty() && !status.pod_ip.text().is_empty() {
            ips.extend(self.unicast_ip(status.pod_ip.text(), format_args!("status.podIP")));
        }
        for (index, given) in given {
            let path = format_args!("status.podIPs[{index}].ip");
            let text = self.text(&given.ip, path);
            let Some(ip) = self.unicast_ip(text, path) else { continue };
            // the controller lists all of them, of which only the first has a meaning
            if !has_family(&ips, Family::of(&ip)) {
                ips.push(ip);
            }
        }
        ips.into()
    }

    fn named_ports(&mut self, spec: &Spec) -> Box<[NamedPort]> {
        let mut ports = Vec::new();
        for (index, container) in self.elements(&spec.containers, format_args!("spec.containers")) {
            self.container_ports(container, format_args!("spec.containers[{index}]"), &mut ports);
        }
        for (index, container) in self.elements(&spec.init_containers, format_args!("spec.initContainers")) {
            if container.restart_policy.text() == "Always" {
                self.container_ports(container, format_args!("spec.initContainers[{index}]"), &mut ports);
            }
        }
        ports.into()
    }

    fn container_ports(
        &mut self,
        container: &Container,
        path: std::fmt::Arguments<'_>,
        ports: &mut Vec<NamedPort>,
    ) {
        for (index, given) in self.elements(&container.ports, format_args!("{path}.ports")) {
            let path = format_args!("{path}.ports[{index}]");
            let name = self.text(&given.name, format_args!("{path}.name"));
            if name.is_empty() {
                continue;
            }
            let Some(protocol) = self.protocol(&given.protocol, format_args!("{path}.protocol")) else {
                continue;
            };
            let number = self.number(&given.container_port, format_args!("{path}.containerPort"));
            ports.extend(number.map(|port| NamedPort { name: name.into(), protocol, port }));
        }
    }

    fn selection(&mut self, spec: &Spec, service: &Service) -> Option<Selection> {
        let labels = self.labels_of_selector(spec)?;
        // what is wrong with them otherwise has been said when the Service was read
        let given = spec.ports.get().map_or([].as_slice(), Vec::as_slice);
        let mut ports = Vec::with_capacity(service.ports.len());
        for port in &service.ports {
            let same = |given: &&objects::ServicePort| {
                given.name.text() == &*port.name
                    && given.port.get() == Some(&port.port.number().into())
                    && is_protocol(given.protocol.text(), port.protocol)
            };
            let mut given = given.iter().enumerate().filter_map(|(index, given)| Some((index, given.get()?)));
            let given = given.find(|(_, given)| same(given));
            let target = given.map_or(Some(Target::Number(port.port)), |(index, given)| {
                let path = format_args!("spec.ports[{index}].targetPort");
                match self.text(&given.target_port, path) {
                    _ if matches!(given.target_port, Field::Wrong(_)) => None,
                    "" | "0" => Some(Target::Number(port.port)),
                    text => self.target(text, path),
                }
            });
            let (name, protocol) = (&*port.name, port.protocol);
            let target = target.filter(|_| !name.contains(char::is_control));
            ports.extend(target.map(|target| TargetPort { name, protocol, target }));
        }
        let families = Family::ALL.into_iter().filter(|family| has_family(&service.cluster_ips, *family));
        let path = format_args!("spec.publishNotReadyAddresses");
        let publish_not_ready = self.flag(&spec.publish_not_ready_addresses, false, path);
        Some(Selection::new(labels.iter().map(String::as_str), ports, families, publish_not_ready))
    }

    /// The labels that a Service asks for, each as `key=value`.
    fn labels_of_selector(&mut self, spec: &Spec) -> Option<Vec<String>> {
        const CONSEQUENCE: &str = "no Pod is selected";
        let selector = self.value(&spec.selector, format_args!("spec.selector"))?;
        let mut labels = Vec::with_capacity(selector.len());
        for (key, value) in selector {
            let path = format_args!("spec.selector[{key}]");
            if let Field::Wrong(shape) = value {
                self.problem(path, format_args!("is {shape} where text belongs: {CONSEQUENCE}"));
                return None;
            }
            let label = format!("{key}={}", value.text());
            if label.contains(char::is_control) {
                self.problem(path, format_args!("holds control characters: {CONSEQUENCE}"));
                return None;
            }
            labels.push(label);
        }
        (!labels.is_empty()).then_some(labels)
    }

    fn target<'t>(&mut self, text: &'t str, path: std::fmt::Arguments<'_>) -> Option<Target<'t>> {
        let target = Target::parse(text);
        if target.is_none() {
            let what = format_args!("{text:?} is neither the number nor the name of a port: left out");
            self.problem(path, what);
        }
        target
    }
}
