//! Builders of the objects that a case is about, in both families, written as the manifests a daemon reads.

use serde_json::{Value, json};

use super::names::{BOTH, Family, Name, POD_CIDRS, SERVICE_CIDRS, THIS_NODE};

/// Some manifests that belong together.
#[derive(Clone, Debug)]
pub struct Objects(pub Vec<Value>);

/// A dual-stack Service; `name` is `namespace/name`.
pub fn service(name: &str) -> Service {
    let (namespace, name) = split(name);
    Service(json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": { "namespace": namespace, "name": name },
        "spec": { "type": "ClusterIP", "ports": [] },
    }))
}

#[derive(Clone, Debug)]
pub struct Service(Value);

impl Service {
    /// The ClusterIPs: those of `Cluster(n)`.
    pub fn cluster(self, n: u8) -> Self {
        self.cluster_name(Name::Cluster(n))
    }

    pub fn cluster_name(mut self, name: Name) -> Self {
        let ips = BOTH.map(|family| name.ip(family).to_string());
        self.0["spec"]["clusterIP"] = json!(ips[0]);
        self.0["spec"]["clusterIPs"] = json!(ips);
        self.0["spec"]["ipFamilies"] = json!(["IPv4", "IPv6"]);
        self.0["spec"]["ipFamilyPolicy"] = json!("PreferDualStack");
        self
    }

    /// A TCP port. Slices find their endpoints by the port's name.
    pub fn port(self, name: &str, port: u16) -> Self {
        self.any_port(name, port, "TCP")
    }

    pub fn udp(self, name: &str, port: u16) -> Self {
        self.any_port(name, port, "UDP")
    }

    pub fn sctp(self, name: &str, port: u16) -> Self {
        self.any_port(name, port, "SCTP")
    }

    fn any_port(mut self, name: &str, port: u16, protocol: &str) -> Self {
        let ports = self.0["spec"]["ports"].as_array_mut().expect("ports");
        ports.push(json!({ "name": name, "port": port, "protocol": protocol, "targetPort": name }));
        self
    }

    /// The NodePort of the port that was added last; a ClusterIP Service becomes a NodePort Service.
    pub fn node_port(mut self, node_port: u16) -> Self {
        let ports = self.0["spec"]["ports"].as_array_mut().expect("ports");
        ports.last_mut().expect("a port")["nodePort"] = json!(node_port);
        if self.0["spec"]["type"] == "ClusterIP" {
            self.0["spec"]["type"] = json!("NodePort");
        }
        self
    }

    pub fn external_ip(self, name: Name) -> Self {
        let ips = BOTH.map(|family| name.ip(family).to_string());
        self.spec(&json!({ "externalIPs": ips }))
    }

    pub fn load_balancer(mut self, name: Name) -> Self {
        let ingress = BOTH.map(|family| json!({ "ip": name.ip(family).to_string(), "ipMode": "VIP" }));
        self.0["spec"]["type"] = json!("LoadBalancer");
        self.0["status"] = json!({ "loadBalancer": { "ingress": ingress } });
        self
    }

    /// `ClientIP` affinity.
    pub fn sticky(self, seconds: u32) -> Self {
        let client_ip = json!({ "clientIP": { "timeoutSeconds": seconds } });
        self.spec(&json!({ "sessionAffinity": "ClientIP", "sessionAffinityConfig": client_ip }))
    }

    /// When it was created: the older one wins where two claim one address.
    pub fn created(mut self, day: u8) -> Self {
        self.0["metadata"]["creationTimestamp"] = json!(format!("2026-01-{day:02}T00:00:00Z"));
        self
    }

    /// Anything else: these fields of the spec are set.
    pub fn spec(mut self, fields: &Value) -> Self {
        for (key, value) in fields.as_object().expect("an object") {
            self.0["spec"][key] = value.clone();
        }
        self
    }
}

/// The slices of a Service, one in each family.
pub fn slice(service: &str) -> Slice {
    Slice { service: service.to_owned(), suffix: String::new(), ports: Vec::new(), endpoints: Vec::new() }
}

#[derive(Clone, Debug)]
pub struct Slice {
    service: String,
    suffix: String,
    ports: Vec<Value>,
    endpoints: Vec<(Name, Value)>,
}

impl Slice {
    /// To tell several slices of one Service apart.
    pub fn suffix(self, suffix: &str) -> Self {
        Self { suffix: suffix.to_owned(), ..self }
    }

    pub fn port(self, name: &str, port: u16) -> Self {
        self.any_port(name, port, "TCP")
    }

    pub fn udp(self, name: &str, port: u16) -> Self {
        self.any_port(name, port, "UDP")
    }

    pub fn sctp(self, name: &str, port: u16) -> Self {
        self.any_port(name, port, "SCTP")
    }

    fn any_port(mut self, name: &str, port: u16, protocol: &str) -> Self {
        self.ports.push(json!({ "name": name, "port": port, "protocol": protocol }));
        self
    }

    /// Ready endpoints.
    pub fn ready(mut self, names: impl IntoIterator<Item = Name>) -> Self {
        for name in names {
            self = self.endpoint(name, &json!({ "ready": true, "serving": true, "terminating": false }));
        }
        self
    }

    /// An endpoint with these conditions.
    pub fn endpoint(mut self, name: Name, conditions: &Value) -> Self {
        self.endpoints.push((name, json!({ "conditions": conditions, "nodeName": name.node_name() })));
        self
    }

    /// Ready endpoints with these hints.
    pub fn hinted(mut self, names: impl IntoIterator<Item = Name>, hints: &Value) -> Self {
        for name in names {
            self = self.endpoint(name, &json!({ "ready": true }));
            let (_, endpoint) = self.endpoints.last_mut().expect("an endpoint");
            endpoint["hints"] = hints.clone();
        }
        self
    }

    fn manifest(&self, family: Family) -> Value {
        let (namespace, service) = split(&self.service);
        let endpoints: Vec<Value> = self
            .endpoints
            .iter()
            .map(|(name, endpoint)| {
                let mut endpoint = endpoint.clone();
                endpoint["addresses"] = json!([name.ip(family).to_string()]);
                endpoint
            })
            .collect();
        let address_type = if family == Family::V4 { "IPv4" } else { "IPv6" };
        json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
            "metadata": {
                "namespace": namespace,
                "name": format!("{service}{}-{}", self.suffix, address_type.to_lowercase()),
                "labels": { "kubernetes.io/service-name": service },
            },
            "addressType": address_type, "ports": self.ports, "endpoints": endpoints,
        })
    }
}

/// Our Node with its internal IPs and pod CIDRs.
pub fn node() -> Objects {
    let addresses =
        BOTH.map(|family| json!({ "type": "InternalIP", "address": Name::Node.ip(family).to_string() }));
    Objects(vec![json!({
        "apiVersion": "v1", "kind": "Node",
        "metadata": {
            "name": THIS_NODE,
            "labels": { "kubernetes.io/hostname": THIS_NODE, "topology.kubernetes.io/zone": "zone-a" },
        },
        "spec": { "podCIDR": "10.244.1.0/24", "podCIDRs": ["10.244.1.0/24", "fd00:10:244:1::/64"] },
        "status": { "addresses": addresses },
    })])
}

/// The cluster's ServiceCIDR.
pub fn service_cidr() -> Objects {
    Objects(vec![json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "ServiceCIDR",
        "metadata": { "name": "kubernetes" }, "spec": { "cidrs": SERVICE_CIDRS },
    })])
}

/// The configuration that cases start from; `fields` replace or join its own.
pub fn config(fields: &Value) -> Value {
    let mut config = json!({
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1", "kind": "KubeProxyConfiguration",
        "detectLocalMode": "ClusterCIDR", "clusterCIDR": POD_CIDRS.join(","),
    });
    for (key, value) in fields.as_object().expect("an object") {
        config[key] = value.clone();
    }
    config
}

fn split(name: &str) -> (&str, &str) {
    name.split_once('/').expect("namespace/name")
}

impl From<Service> for Objects {
    fn from(service: Service) -> Self {
        Self(vec![service.0])
    }
}

impl From<Slice> for Objects {
    fn from(slice: Slice) -> Self {
        Self(BOTH.map(|family| slice.manifest(family)).to_vec())
    }
}

impl Objects {
    /// The file that each object goes to.
    pub fn files(&self) -> impl Iterator<Item = (String, String)> {
        self.0.iter().map(|object| {
            let text = |value: &Value| value.as_str().unwrap_or_default().to_lowercase();
            let metadata = &object["metadata"];
            let name = format!(
                "{}-{}-{}.json",
                text(&object["kind"]),
                text(&metadata["namespace"]),
                text(&metadata["name"])
            );
            (name, object.to_string())
        })
    }
}
