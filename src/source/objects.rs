//! Kubernetes objects as they stand in the API and in manifests: only the fields in use. PURE.
//!
//! Everything that nobody reads (managed fields, annotations, most labels) is skipped while
//! the text is read and never costs memory. A value of an unexpected shape makes a [`Field::Wrong`] and
//! never a failed object: one bad object must not make a whole list unreadable. What values mean, and
//! which defaults hold, is decided in `convert`.
//!
//! Each kind but Pod is a `kube::Resource`, so `kube::Api<objects::Service>` lists and watches it.

use kube::core::ObjectMeta;
use serde::Deserialize;

use super::field::object_shape;
pub use super::field::{Field, List, Pairs};
use super::metadata::{metadata, pod_metadata};

/// `v1` Service.
#[derive(Clone, Debug, Default, Deserialize, kube::Resource)]
#[resource(inherit = k8s_openapi::api::core::v1::Service)]
#[serde(default)]
pub struct Service {
    /// Name, namespace, resource version, timestamps and the labels in use.
    #[serde(deserialize_with = "metadata")]
    pub metadata: ObjectMeta,
    /// What is asked for.
    pub spec: Field<Spec>,
    /// What has been given.
    pub status: Field<Status>,
}

/// `discovery.k8s.io/v1` EndpointSlice.
#[derive(Clone, Debug, Default, Deserialize, kube::Resource)]
#[resource(inherit = k8s_openapi::api::discovery::v1::EndpointSlice)]
#[serde(default, rename_all = "camelCase")]
pub struct EndpointSlice {
    /// Name, namespace, resource version, timestamps and the labels in use.
    #[serde(deserialize_with = "metadata")]
    pub metadata: ObjectMeta,
    /// `IPv4`, `IPv6` or `FQDN`.
    pub address_type: Field<String>,
    /// The endpoints.
    pub endpoints: List<Endpoint>,
    /// The ports that each of them offers.
    pub ports: List<EndpointPort>,
}

/// `v1` Endpoints, the older form of slices.
#[derive(Clone, Debug, Default, Deserialize, kube::Resource)]
#[resource(inherit = k8s_openapi::api::core::v1::Endpoints)]
#[serde(default)]
pub struct Endpoints {
    /// Name, namespace, resource version, timestamps and the labels in use.
    #[serde(deserialize_with = "metadata")]
    pub metadata: ObjectMeta,
    /// Groups of addresses that offer the same ports.
    pub subsets: List<Subset>,
}

/// `v1` Node.
#[derive(Clone, Debug, Default, Deserialize, kube::Resource)]
#[resource(inherit = k8s_openapi::api::core::v1::Node)]
#[serde(default)]
pub struct Node {
    /// Name, resource version, timestamps and the labels in use.
    #[serde(deserialize_with = "metadata")]
    pub metadata: ObjectMeta,
    /// What is asked for.
    pub spec: Field<Spec>,
    /// What the node reports.
    pub status: Field<Status>,
}

/// `networking.k8s.io/v1` ServiceCIDR.
#[derive(Clone, Debug, Default, Deserialize, kube::Resource)]
#[resource(inherit = k8s_openapi::api::networking::v1::ServiceCIDR)]
#[serde(default)]
pub struct ServiceCidr {
    /// Name, resource version and timestamps.
    #[serde(deserialize_with = "metadata")]
    pub metadata: ObjectMeta,
    /// What is asked for.
    pub spec: Field<Spec>,
}

/// `v1` Pod, which only manifests have: in a cluster the endpoint controller reads them.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Pod {
    /// Name, namespace, timestamps and all labels.
    #[serde(deserialize_with = "pod_metadata")]
    pub metadata: ObjectMeta,
    /// What is asked for.
    pub spec: Field<Spec>,
    /// What the node it runs on reports.
    pub status: Field<Status>,
}

/// The `spec` of a Service, a Pod, a Node or a ServiceCIDR. Their field names do not collide, so one struct
/// serves all, and a manifest can be read in one pass before its kind is known.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Spec {
    /// Service: `ClusterIP`, `NodePort`, `LoadBalancer` or `ExternalName`.
    #[serde(rename = "type")]
    pub kind: Field<String>,
    /// Service: the first of `clusterIPs`, or `None`.
    #[serde(rename = "clusterIP")]
    pub cluster_ip: Field<String>,
    /// Service: at most one of each family.
    #[serde(rename = "clusterIPs")]
    pub cluster_ips: List<String>,
    /// Service: addresses that others route to the nodes.
    #[serde(rename = "externalIPs")]
    pub external_ips: List<String>,
    /// Service: the ports.
    pub ports: List<ServicePort>,
    /// Service: `Cluster` or `Local`.
    pub internal_traffic_policy: Field<String>,
    /// Service: `Cluster` or `Local`.
    pub external_traffic_policy: Field<String>,
    /// Service: `None` or `ClientIP`.
    pub session_affinity: Field<String>,
    /// Service: how long affinity holds.
    pub session_affinity_config: Field<SessionAffinityConfig>,
    /// Service: who may call the load-balancer IPs, CIDRs.
    pub load_balancer_source_ranges: List<String>,
    /// Service: where load balancers ask for local endpoints.
    pub health_check_node_port: Field<i64>,
    /// Service: the labels of its Pods.
    pub selector: Field<Pairs>,
    /// Service: whether Pods count as ready that are not.
    pub publish_not_ready_addresses: Field<bool>,
    /// Pod: the node it runs on.
    pub node_name: Field<String>,
    /// Pod: its containers.
    pub containers: List<Container>,
    /// Pod: those that start first, some of which keep running.
    pub init_containers: List<Container>,
    /// Node: the first of `podCIDRs`.
    #[serde(rename = "podCIDR")]
    pub pod_cidr: Field<String>,
    /// Node: where its pods' addresses come from, at most one of each family.
    #[serde(rename = "podCIDRs")]
    pub pod_cidrs: List<String>,
    /// Node: its taints.
    pub taints: List<Taint>,
    /// ServiceCIDR: the ranges, at most one of each family.
    pub cidrs: List<String>,
}

/// The `status` of a Service, a Pod or a Node.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Status {
    /// Service: what its load balancer says.
    pub load_balancer: Field<LoadBalancerStatus>,
    /// Pod: `Pending`, `Running`, `Succeeded` or `Failed`.
    pub phase: Field<String>,
    /// Pod: the first of `podIPs`.
    #[serde(rename = "podIP")]
    pub pod_ip: Field<String>,
    /// Pod: its addresses.
    #[serde(rename = "podIPs")]
    pub pod_ips: List<PodIp>,
    /// Pod: what holds true of it.
    pub conditions: List<Condition>,
    /// Node: its addresses.
    pub addresses: List<NodeAddress>,
}

/// A port of a Service.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ServicePort {
    /// Its name; a single port needs none.
    pub name: Field<String>,
    /// `TCP`, `UDP` or `SCTP`.
    pub protocol: Field<String>,
    /// The number on the Service's addresses.
    pub port: Field<i64>,
    /// The number or the name of the port of its Pods.
    pub target_port: Field<String>,
    /// The number on the nodes' addresses.
    pub node_port: Field<i64>,
}

/// `spec.sessionAffinityConfig`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct SessionAffinityConfig {
    /// For `ClientIP` affinity.
    #[serde(rename = "clientIP")]
    pub client_ip: Field<ClientIpConfig>,
}

/// `spec.sessionAffinityConfig.clientIP`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ClientIpConfig {
    /// Seconds, 1 to 86400.
    pub timeout_seconds: Field<i64>,
}

/// `status.loadBalancer`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct LoadBalancerStatus {
    /// The points at which traffic enters.
    pub ingress: List<Ingress>,
}

/// One of `status.loadBalancer.ingress`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Ingress {
    /// Its address; one that has a host name only has none.
    pub ip: Field<String>,
    /// `VIP` or `Proxy` (KEP-1860).
    pub ip_mode: Field<String>,
}

/// One of `spec.containers` of a Pod.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Container {
    /// Its ports.
    pub ports: List<ContainerPort>,
    /// `Always` for an init container that keeps running (KEP-753).
    pub restart_policy: Field<String>,
}

/// One of `ports` of a container.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ContainerPort {
    /// What Services call it.
    pub name: Field<String>,
    /// `TCP`, `UDP` or `SCTP`.
    pub protocol: Field<String>,
    /// The number.
    pub container_port: Field<i64>,
}

/// One of `status.podIPs` of a Pod.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct PodIp {
    /// The address.
    pub ip: Field<String>,
}

/// One of `status.conditions` of a Pod.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Condition {
    /// `Ready` or another one.
    #[serde(rename = "type")]
    pub kind: Field<String>,
    /// `True`, `False` or `Unknown`.
    pub status: Field<String>,
}

/// One of `status.addresses` of a Node.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct NodeAddress {
    /// `InternalIP`, `ExternalIP`, `Hostname`, ...
    #[serde(rename = "type")]
    pub kind: Field<String>,
    /// The address.
    pub address: Field<String>,
}

/// One of `spec.taints` of a Node.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Taint {
    /// What the taint is called.
    pub key: Field<String>,
}

/// One of `endpoints` of an EndpointSlice.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Endpoint {
    /// Its addresses; only the first has a meaning.
    pub addresses: List<String>,
    /// What state it is in.
    pub conditions: Field<Conditions>,
    /// The node it runs on.
    pub node_name: Field<String>,
    /// Where it is meant to be used.
    pub hints: Field<Hints>,
}

/// `conditions` of an endpoint.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Conditions {
    /// Unset means true.
    pub ready: Field<bool>,
    /// Unset means true.
    pub serving: Field<bool>,
    /// Unset means false.
    pub terminating: Field<bool>,
}

/// `hints` of an endpoint.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Hints {
    /// Zones (KEP-2433).
    pub for_zones: List<Named>,
    /// Nodes (KEP-4444).
    pub for_nodes: List<Named>,
}

/// Something that has a name.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Named {
    /// The name.
    pub name: Field<String>,
}

/// One of `ports` of an EndpointSlice or of a subset of Endpoints.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct EndpointPort {
    /// The name of the Service's port.
    pub name: Field<String>,
    /// `TCP`, `UDP` or `SCTP`.
    pub protocol: Field<String>,
    /// The number on the endpoint.
    pub port: Field<i64>,
}

/// One of `subsets` of an Endpoints object.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Subset {
    /// Those that are ready.
    pub addresses: List<SubsetAddress>,
    /// Those that are not.
    pub not_ready_addresses: List<SubsetAddress>,
    /// The ports that each of them offers.
    pub ports: List<EndpointPort>,
}

/// One of `addresses` of a subset.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct SubsetAddress {
    /// The address.
    pub ip: Field<String>,
    /// The node it is on.
    pub node_name: Field<String>,
}

object_shape!(
    Spec,
    Status,
    ServicePort,
    SessionAffinityConfig,
    ClientIpConfig,
    LoadBalancerStatus,
    Ingress,
    Container,
    ContainerPort,
    PodIp,
    Condition,
    NodeAddress,
    Taint,
    Endpoint,
    Conditions,
    Hints,
    Named,
    EndpointPort,
    Subset,
    SubsetAddress,
);
