//! A Service as shunt sees it: only what decides about traffic.

use std::net::IpAddr;

use ipnet::IpNet;

use super::addr::{Port, Protocol};
use super::name::SharedStr;

/// One Service that this node serves. Headless Services, `ExternalName` and those that another proxy
/// serves never become one (source/convert.rs).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Service {
    /// `spec.clusterIPs`, at most one of each family.
    pub cluster_ips: Box<[IpAddr]>,
    /// `spec.externalIPs`.
    pub external_ips: Box<[IpAddr]>,
    /// `status.loadBalancer.ingress[].ip` of a Service of type LoadBalancer, without those of
    /// `ipMode: Proxy` (KEP-1860).
    pub load_balancer_ips: Box<[IpAddr]>,
    /// `spec.ports`.
    pub ports: Box<[ServicePort]>,
    /// `spec.internalTrafficPolicy` (KEP-2086); unset means Cluster.
    pub internal_policy: TrafficPolicy,
    /// `spec.externalTrafficPolicy`; unset means Cluster.
    pub external_policy: TrafficPolicy,
    /// `ClientIP` affinity and for how many seconds after a client's last new connection it holds.
    pub affinity_seconds: Option<u32>,
    /// `spec.loadBalancerSourceRanges` of a Service of type LoadBalancer: who may call the
    /// load-balancer IPs. Empty means everybody.
    pub source_ranges: Box<[IpNet]>,
    /// `spec.healthCheckNodePort`, where load balancers ask for local endpoints.
    pub health_check_node_port: Option<Port>,
    /// `shunt.dev/proxy-protocol: v2`, where the mode can do that: endpoints are told who called.
    pub proxy_protocol: bool,
    /// Creation time in seconds since 1970: of two Services that claim one frontend the older wins.
    /// Zero where the object does not say.
    pub created: i64,
}

/// One port of a Service.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ServicePort {
    /// `name`, empty where a Service has a single unnamed port. Slices refer to it.
    pub name: SharedStr,
    /// `protocol`; unset means TCP.
    pub protocol: Protocol,
    /// `port`, on every address of the Service.
    pub port: Port,
    /// `nodePort`, of Services of type NodePort and LoadBalancer.
    pub node_port: Option<Port>,
}

/// Which endpoints traffic may reach.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum TrafficPolicy {
    /// All of the cluster's.
    #[default]
    Cluster,
    /// Only those on this node.
    Local,
}
