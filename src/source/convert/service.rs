//! Services. PURE.

use std::net::IpAddr;

use super::read::has_family;
use super::shared::Shared;
use super::{Context, Converted, PROXY_NAME, Report, label};
use crate::model::{Family, Key, Kind, Object, Port, Service, ServicePort, TrafficPolicy};
use crate::source::field::Field;
use crate::source::objects::{self, Spec, Status};

/// Asks that endpoints are told who called.
const PROXY_PROTOCOL: &str = "shunt.dev/proxy-protocol";
/// How long `ClientIP` affinity holds where the Service does not say: three hours.
const AFFINITY_SECONDS: u32 = 10_800;
/// The longest that it may hold: a day.
const AFFINITY_SECONDS_MAX: u32 = 86_400;

impl Context {
    /// A Service.
    ///
    /// Not ours, hence told as deleted: Services that another proxy serves (label
    /// `service.kubernetes.io/service-proxy-name`), type `ExternalName`, headless ones (ClusterIP `None`)
    /// and those whose ClusterIP is not given out yet.
    ///
    /// Defaults: `clusterIPs` falls back to `clusterIP`, protocols to TCP, traffic policies to Cluster,
    /// the time of `ClientIP` affinity to three hours. Node ports count for the types NodePort and
    /// LoadBalancer only; load-balancer IPs, source ranges and the health check's port for LoadBalancer.
    #[must_use]
    pub fn service(&self, object: &objects::Service) -> Converted {
        let mut report = Report::new(Kind::Service, &object.metadata);
        let Some(name) = report.object_name() else { return report.nothing() };
        if label(&object.metadata, PROXY_NAME) != self.proxy_name() {
            return report.delete(Key::Service(name));
        }
        let (no_spec, no_status) = (Spec::default(), Status::default());
        let spec = report.value(&object.spec, format_args!("spec")).unwrap_or(&no_spec);
        let status = report.value(&object.status, format_args!("status")).unwrap_or(&no_status);
        if !has_cluster_ip(spec) || spec.kind.text() == "ExternalName" {
            return report.delete(Key::Service(name));
        }
        let created = object.metadata.creation_timestamp.as_ref().map_or(0, |time| time.0.as_second());
        let mut service = report.service(&self.shared, spec, status, created);
        service.proxy_protocol = report.proxy_protocol(self.proxy_protocol);
        report.set(Object::Service(name, service))
    }
}

/// Whether the Service is one with a ClusterIP that has been given out.
fn has_cluster_ip(spec: &Spec) -> bool {
    let first = match spec.cluster_ip.text() {
        "" => spec.cluster_ips.get().and_then(|list| list.first()).map_or("", Field::text),
        text => text,
    };
    !first.is_empty() && first != "None"
}

impl Report<'_> {
    fn service(&mut self, shared: &Shared, spec: &Spec, status: &Status, created: i64) -> Service {
        let (node_ports, load_balancer) = self.service_type(spec);
        let policy = &spec.external_traffic_policy;
        let external_policy = self.policy(policy, "spec.externalTrafficPolicy");
        let mut service = Service {
            cluster_ips: self.cluster_ips(spec),
            external_ips: self.external_ips(spec),
            load_balancer_ips: Box::default(),
            ports: self.service_ports(shared, spec, node_ports),
            internal_policy: self.policy(&spec.internal_traffic_policy, "spec.internalTrafficPolicy"),
            external_policy,
            affinity_seconds: self.affinity(spec),
            source_ranges: Box::default(),
            health_check_node_port: None,
            proxy_protocol: false,
            created,
        };
        if load_balancer {
            self.load_balancer(&mut service, spec, status);
        }
        service
    }

    /// Whether endpoints are to be told who called; `possible` in this mode.
    fn proxy_protocol(&mut self, possible: bool) -> bool {
        let asked = self.metadata.annotations.as_ref().and_then(|all| all.get(PROXY_PROTOCOL));
        let what = match asked.map(String::as_str) {
            None => return false,
            Some("v2") if possible => return true,
            Some("v2") => "needs --proxy-mode userspace: nothing is sent before the client's own bytes",
            Some(_) => "must be v2: nothing is sent before the client's own bytes",
        };
        self.problem(format_args!("metadata.annotations[{PROXY_PROTOCOL}]"), what);
        false
    }

    /// Whether Services of this type have node ports, and whether they have load balancers.
    fn service_type(&mut self, spec: &Spec) -> (bool, bool) {
        match self.text(&spec.kind, format_args!("spec.type")) {
            "" | "ClusterIP" => (false, false),
            "NodePort" => (true, false),
            "LoadBalancer" => (true, true),
            other => {
                let what = format_args!("{other:?} is not a type of Service: taken as ClusterIP");
                self.problem(format_args!("spec.type"), what);
                (false, false)
            }
        }
    }

    fn cluster_ips(&mut self, spec: &Spec) -> Box<[IpAddr]> {
        let mut ips = Vec::new();
        let given = self.elements(&spec.cluster_ips, format_args!("spec.clusterIPs"));
        if given.is_empty() {
            ips.extend(self.ip(spec.cluster_ip.text(), format_args!("spec.clusterIP")));
        }
        for (index, text) in given {
            let path = format_args!("spec.clusterIPs[{index}]");
            let Some(ip) = self.ip(text, path) else { continue };
            let family = Family::of(&ip);
            if has_family(&ips, family) {
                self.problem(path, format_args!("is the second one of {family}: left out"));
            } else {
                ips.push(ip);
            }
        }
        ips.into()
    }

    fn external_ips(&mut self, spec: &Spec) -> Box<[IpAddr]> {
        let mut ips = Vec::new();
        for (index, text) in self.elements(&spec.external_ips, format_args!("spec.externalIPs")) {
            let path = format_args!("spec.externalIPs[{index}]");
            if let Some(ip) = self.unicast_ip(text, path) {
                self.add_once(&mut ips, ip, path);
            }
        }
        ips.into()
    }

    /// What only Services of type LoadBalancer have.
    fn load_balancer(&mut self, service: &mut Service, spec: &Spec, status: &Status) {
        let mut ips = self.load_balancer_ips(status);
        let before = self.problems.len();
        let path = format_args!("spec.loadBalancerSourceRanges");
        service.source_ranges = self.nets(&spec.load_balancer_source_ranges, path);
        if self.problems.len() > before {
            // no range means that everybody may call: a range that cannot be read must not open the door
            let restricted =
                |ip: &IpAddr| service.source_ranges.iter().any(|net| Family::of_net(net) == Family::of(ip));
            if !ips.iter().all(restricted) {
                let what = "load-balancer IPs that no usable range protects are left out";
                self.problem(path, what);
                ips.retain(restricted);
            }
        }
        service.load_balancer_ips = ips.into();
        let path = format_args!("spec.healthCheckNodePort");
        let port = self.value(&spec.health_check_node_port, path).copied().unwrap_or(0);
        if service.external_policy == TrafficPolicy::Local && port != 0 {
            service.health_check_node_port = self.port(port, path);
        }
    }

    fn load_balancer_ips(&mut self, status: &Status) -> Vec<IpAddr> {
        let mut ips = Vec::new();
        let path = format_args!("status.loadBalancer");
        let Some(status) = self.value(&status.load_balancer, path) else { return ips };
        for (index, ingress) in self.elements(&status.ingress, format_args!("{path}.ingress")) {
            let path = format_args!("status.loadBalancer.ingress[{index}].ip");
            let text = self.text(&ingress.ip, path);
            let captured = self.captured(&ingress.ip_mode, index);
            if text.is_empty() || !captured {
                continue;
            }
            if let Some(ip) = self.ip(text, path) {
                self.add_once(&mut ips, ip, path);
            }
        }
        ips
    }

    /// Whether the load balancer delivers packets that still carry its address (KEP-1860).
    fn captured(&mut self, mode: &Field<String>, index: usize) -> bool {
        let path = format_args!("status.loadBalancer.ingress[{index}].ipMode");
        match self.text(mode, path) {
            "" | "VIP" => true,
            "Proxy" => false,
            other => {
                self.problem(path, format_args!("{other:?} is not VIP or Proxy: the address is left out"));
                false
            }
        }
    }

    fn service_ports(&mut self, shared: &Shared, spec: &Spec, node_ports: bool) -> Box<[ServicePort]> {
        let mut ports: Vec<ServicePort> = Vec::new();
        for (index, given) in self.elements(&spec.ports, format_args!("spec.ports")) {
            let Some(mut port) = self.service_port(shared, given, index, node_ports) else { continue };
            let same = |other: &ServicePort| {
                other.protocol == port.protocol && (other.port == port.port || other.name == port.name)
            };
            if ports.iter().any(same) {
                let what = "has the number or the name of an earlier one: left out";
                self.problem(format_args!("spec.ports[{index}]"), what);
                continue;
            }
            let taken =
                |other: &ServicePort| other.protocol == port.protocol && other.node_port == port.node_port;
            if port.node_port.is_some() && ports.iter().any(taken) {
                let what = "is that of an earlier port: left out";
                self.problem(format_args!("spec.ports[{index}].nodePort"), what);
                port.node_port = None;
            }
            ports.push(port);
        }
        ports.into()
    }

    fn service_port(
        &mut self,
        shared: &Shared,
        given: &objects::ServicePort,
        index: usize,
        node_ports: bool,
    ) -> Option<ServicePort> {
        let path = format_args!("spec.ports[{index}]");
        let name = self.text(&given.name, format_args!("{path}.name"));
        let protocol = self.protocol(&given.protocol, format_args!("{path}.protocol"))?;
        let port = self.number(&given.port, format_args!("{path}.port"))?;
        let node_port = match self.value(&given.node_port, format_args!("{path}.nodePort")) {
            Some(&number) if node_ports && number != 0 => self.port(number, format_args!("{path}.nodePort")),
            _ => None,
        };
        Some(ServicePort { name: shared.port_name(name), protocol, port, node_port })
    }

    /// The number of a port that must have one.
    pub(super) fn number(&mut self, field: &Field<i64>, path: std::fmt::Arguments<'_>) -> Option<Port> {
        if matches!(field, Field::Unset) {
            self.problem(path, "is missing: the port is left out");
        }
        let number = *self.value(field, path)?;
        self.port(number, path)
    }

    fn policy(&mut self, field: &Field<String>, path: &str) -> TrafficPolicy {
        match self.text(field, format_args!("{path}")) {
            "" | "Cluster" => TrafficPolicy::Cluster,
            "Local" => TrafficPolicy::Local,
            other => {
                let what = format_args!("{other:?} is not Cluster or Local: taken as Cluster");
                self.problem(format_args!("{path}"), what);
                TrafficPolicy::Cluster
            }
        }
    }

    fn affinity(&mut self, spec: &Spec) -> Option<u32> {
        match self.text(&spec.session_affinity, format_args!("spec.sessionAffinity")) {
            "" | "None" => return None,
            "ClientIP" => {}
            other => {
                let what = format_args!("{other:?} is not None or ClientIP: taken as None");
                self.problem(format_args!("spec.sessionAffinity"), what);
                return None;
            }
        }
        let path = format_args!("spec.sessionAffinityConfig");
        let config = self.value(&spec.session_affinity_config, path);
        let client_ip =
            config.and_then(|config| self.value(&config.client_ip, format_args!("{path}.clientIP")));
        let path = format_args!("spec.sessionAffinityConfig.clientIP.timeoutSeconds");
        let seconds = client_ip.and_then(|config| self.value(&config.timeout_seconds, path));
        let Some(&seconds) = seconds else { return Some(AFFINITY_SECONDS) };
        let usable = u32::try_from(seconds).ok().filter(|n| (1..=AFFINITY_SECONDS_MAX).contains(n));
        if usable.is_none() {
            let range = format_args!("1 to {AFFINITY_SECONDS_MAX}");
            self.problem(path, format_args!("{seconds} is not {range}: {AFFINITY_SECONDS} is used"));
        }
        Some(usable.unwrap_or(AFFINITY_SECONDS))
    }
}
