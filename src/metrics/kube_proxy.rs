//! The metrics of kube-proxy v1.36 that mean the same here, with its names and labels
//! (`pkg/proxy/metrics/metrics.go`).
//!
//! Left out: `kubeproxy_network_programming_duration_seconds`, for which the time of the last trigger
//! would have to be kept for each slice, and what belongs to iptables or to kube-proxy's caches.

use std::sync::atomic::AtomicU64;

use hyper::StatusCode;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;

use super::FamilyLabel;
use crate::model::{self, Key, Kind, Object, Update};
use crate::policy::local::WithoutLocal;

/// A family and a traffic policy.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct PolicyLabel {
    /// `IPv4` or `IPv6`.
    pub ip_family: String,
    /// `internal` or `external`.
    pub traffic_policy: &'static str,
}

/// A status code of HTTP.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct CodeLabel {
    /// Such as 200.
    pub code: u16,
}

impl From<StatusCode> for CodeLabel {
    fn from(code: StatusCode) -> Self {
        Self { code: code.as_u16() }
    }
}

/// Seconds since 1970.
type Timestamp = Gauge<f64, AtomicU64>;

/// Handles to the metrics named `kubeproxy_*`; a clone counts into the same ones.
#[derive(Clone, Debug)]
pub struct KubeProxy {
    /// `kubeproxy_sync_proxy_rules_duration_seconds{ip_family}`: how long syncs took that wrote
    /// something in the family. One sync programs both families: each is given all of it.
    pub sync_duration: Family<FamilyLabel, Histogram, fn() -> Histogram>,
    /// `kubeproxy_sync_proxy_rules_last_timestamp_seconds{ip_family}`: when all was programmed last.
    pub last_sync: Family<FamilyLabel, Timestamp>,
    /// `kubeproxy_sync_proxy_rules_endpoint_changes_total`: changed EndpointSlices seen.
    pub endpoint_changes: Counter,
    /// `kubeproxy_sync_proxy_rules_endpoint_changes_pending`: those not programmed yet.
    pub endpoint_changes_pending: Gauge,
    /// `kubeproxy_sync_proxy_rules_service_changes_total`: changed Services seen.
    pub service_changes: Counter,
    /// `kubeproxy_sync_proxy_rules_service_changes_pending`: those not programmed yet.
    pub service_changes_pending: Gauge,
    /// `kubeproxy_sync_proxy_rules_no_local_endpoints_total{ip_family,traffic_policy}`: ServicePorts with
    /// the policy Local and endpoints only elsewhere. A gauge, in spite of its name.
    pub no_local_endpoints: Family<PolicyLabel, Gauge>,
    /// `kubeproxy_proxy_healthz_total{code}`: answers at `/healthz`.
    pub healthz: Family<CodeLabel, Counter>,
    /// `kubeproxy_proxy_livez_total{code}`: answers at `/livez`.
    pub livez: Family<CodeLabel, Counter>,
}

impl Default for KubeProxy {
    fn default() -> Self {
        Self {
            // The buckets of kube-proxy: 1 ms to 16 s.
            sync_duration: Family::new_with_constructor(|| {
                Histogram::new(exponential_buckets(0.001, 2.0, 15))
            }),
            last_sync: Family::default(),
            endpoint_changes: Counter::default(),
            endpoint_changes_pending: Gauge::default(),
            service_changes: Counter::default(),
            service_changes_pending: Gauge::default(),
            no_local_endpoints: Family::default(),
            healthz: Family::default(),
            livez: Family::default(),
        }
    }
}

impl KubeProxy {
    /// Counts what arrives from a source.
    pub fn count_changes(&self, updates: &[Update]) {
        let (services, endpoints) = changes(updates);
        self.service_changes.inc_by(services);
        self.endpoint_changes.inc_by(endpoints);
        self.service_changes_pending.inc_by(services.cast_signed());
        self.endpoint_changes_pending.inc_by(endpoints.cast_signed());
    }

    /// Sets how many ServicePorts lack a local endpoint.
    pub fn set_without_local(&self, family: model::Family, without: WithoutLocal) {
        for (traffic_policy, count) in [("internal", without.internal), ("external", without.external)] {
            let label = PolicyLabel { ip_family: family.to_string(), traffic_policy };
            self.no_local_endpoints.get_or_create(&label).set(count);
        }
    }

    /// Makes the metrics known to `registry`.
    pub(super) fn register(&self, registry: &mut Registry) {
        let name = |suffix: &str| format!("kubeproxy_sync_proxy_rules_{suffix}");
        let help = "Duration of syncs that wrote something";
        registry.register(name("duration_seconds"), help, self.sync_duration.clone());
        let help = "When everything was programmed last";
        registry.register(name("last_timestamp_seconds"), help, self.last_sync.clone());
        let help = "Changed EndpointSlices seen";
        registry.register(name("endpoint_changes"), help, self.endpoint_changes.clone());
        let help = "Changed EndpointSlices not programmed yet";
        registry.register(name("endpoint_changes_pending"), help, self.endpoint_changes_pending.clone());
        let help = "Changed Services seen";
        registry.register(name("service_changes"), help, self.service_changes.clone());
        let help = "Changed Services not programmed yet";
        registry.register(name("service_changes_pending"), help, self.service_changes_pending.clone());
        let help = "ServicePorts with a traffic policy Local and endpoints only on other nodes";
        registry.register(name("no_local_endpoints_total"), help, self.no_local_endpoints.clone());
        registry.register("kubeproxy_proxy_healthz", "Answers at /healthz", self.healthz.clone());
        registry.register("kubeproxy_proxy_livez", "Answers at /livez", self.livez.clone());
    }
}

/// How many updates are about Services and how many about endpoints.
fn changes(updates: &[Update]) -> (u64, u64) {
    let (mut services, mut endpoints) = (0, 0);
    for update in updates {
        let (kind, count) = match update {
            Update::Set(Object::Service(..)) | Update::Delete(Key::Service(_)) => (Kind::Service, 1),
            Update::Set(Object::EndpointSlice(..) | Object::Endpoints(..))
            | Update::Delete(Key::EndpointSlice(_) | Key::Endpoints(_)) => (Kind::EndpointSlice, 1),
            Update::Reset(kind, objects) => (*kind, objects.len()),
            _ => continue,
        };
        let count = u64::try_from(count).unwrap_or(u64::MAX);
        match kind {
            Kind::Service => services += count,
            Kind::EndpointSlice | Kind::Endpoints => endpoints += count,
            Kind::Node | Kind::ServiceCidr => {}
        }
    }
    (services, endpoints)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{name, service};

    #[test]
    fn updates_are_counted_by_what_they_are_about() {
        let web = || Object::Service(name("a/web"), service("10.96.0.1").build());
        let updates = [
            Update::Set(web()),
            Update::Delete(Key::EndpointSlice(name("a/web-1"))),
            Update::Reset(Kind::Service, vec![web(), web()]),
            Update::Reset(Kind::Node, vec![]),
            Update::Delete(Key::Node),
        ];
        assert_eq!(changes(&updates), (3, 1));
    }
}
