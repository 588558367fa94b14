//! The metrics of kube-proxy v1.36 that mean the same here, with its names, labels and buckets
//! (`pkg/proxy/metrics/metrics.go`).
//!
//! Left out is what belongs to iptables. `docs/metrics.md` names each and says why.

use std::sync::atomic::AtomicU64;
use std::time::{SystemTime, UNIX_EPOCH};

use hyper::StatusCode;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets, linear_buckets};
use prometheus_client::registry::Registry;

use super::{FamilyLabel, each_family};
use crate::model::{self, Kind, Update};
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

/// Durations, one histogram for each family.
type Durations = Family<FamilyLabel, Histogram, fn() -> Histogram>;

/// Handles to the metrics named `kubeproxy_*`; a clone counts into the same ones.
#[derive(Clone, Debug)]
pub struct KubeProxy {
    /// `kubeproxy_sync_proxy_rules_duration_seconds{ip_family}`: how long syncs took that wrote
    /// something in the family. One sync programs both families: each is given all of it.
    pub sync_duration: Durations,
    /// `kubeproxy_sync_full_proxy_rules_duration_seconds{ip_family}`: those among them that read back
    /// what is installed and compared all of it.
    pub sync_full_duration: Durations,
    /// `kubeproxy_sync_partial_proxy_rules_duration_seconds{ip_family}`: those that only looked at what
    /// had changed.
    pub sync_partial_duration: Durations,
    /// `kubeproxy_sync_proxy_rules_last_timestamp_seconds{ip_family}`: when all was programmed last.
    pub last_sync: Family<FamilyLabel, Timestamp>,
    /// `kubeproxy_sync_proxy_rules_last_queued_timestamp_seconds{ip_family}`: when something last arrived
    /// that has to be programmed.
    pub last_queued: Family<FamilyLabel, Timestamp>,
    /// `kubeproxy_network_programming_duration_seconds{ip_family}`: from the change in the cluster that
    /// an EndpointSlice tells of until it was programmed here.
    pub network_programming: Durations,
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
    /// `kubeproxy_conntrack_reconciler_sync_duration_seconds{ip_family}`: how long it took to compare
    /// conntrack with what is programmed.
    pub conntrack_duration: Durations,
}

impl Default for KubeProxy {
    fn default() -> Self {
        let syncs = || durations(|| Histogram::new(exponential_buckets(0.001, 2.0, 15)));
        let no_local_endpoints = Family::default();
        for family in model::Family::ALL {
            for traffic_policy in ["internal", "external"] {
                let label = PolicyLabel { ip_family: family.to_string(), traffic_policy };
                drop(no_local_endpoints.get_or_create(&label));
            }
        }
        Self {
            sync_duration: syncs(),
            sync_full_duration: syncs(),
            sync_partial_duration: syncs(),
            last_sync: each_family(),
            last_queued: each_family(),
            network_programming: durations(|| Histogram::new(network_programming_buckets())),
            endpoint_changes: Counter::default(),
            endpoint_changes_pending: Gauge::default(),
            service_changes: Counter::default(),
            service_changes_pending: Gauge::default(),
            no_local_endpoints,
            healthz: Family::default(),
            livez: Family::default(),
            conntrack_duration: syncs(),
        }
    }
}

/// Seconds since 1970.
#[must_use]
pub fn seconds(time: SystemTime) -> f64 {
    time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64()
}

/// A histogram for each family, there from the start: a series that appears with its first value hides
/// that value from `rate`.
fn durations(histogram: fn() -> Histogram) -> Durations {
    let durations = Durations::new_with_constructor(histogram);
    for family in model::Family::ALL {
        drop(durations.get_or_create(&family.into()));
    }
    durations
}

/// As in kube-proxy: 0, 0.25 and 0.5 s, each second of the first minute, every 5 s of the second one, then
/// every 30 s up to 5 min.
fn network_programming_buckets() -> impl Iterator<Item = f64> {
    std::iter::once(0.0)
        .chain(linear_buckets(0.25, 0.25, 2))
        .chain(linear_buckets(1.0, 1.0, 59))
        .chain(linear_buckets(60.0, 5.0, 12))
        .chain(linear_buckets(120.0, 30.0, 7))
}

impl KubeProxy {
    /// Counts what arrives from a source.
    pub fn count_changes(&self, updates: &[Update], now: SystemTime) {
        for family in model::Family::ALL {
            self.last_queued.get_or_create(&family.into()).set(seconds(now));
        }
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

    /// Counts a sync that wrote something in a family; a full one read back first what is installed.
    pub fn observe_sync(&self, family: model::Family, full: bool, seconds: f64) {
        let which = if full { &self.sync_full_duration } else { &self.sync_partial_duration };
        for durations in [&self.sync_duration, which] {
            durations.get_or_create(&family.into()).observe(seconds);
        }
    }

    /// Makes the metrics known to `registry`.
    pub(super) fn register(&self, registry: &mut Registry) {
        self.register_syncs(registry);
        let name = |suffix: &str| format!("kubeproxy_sync_proxy_rules_{suffix}");
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
        let help = "Duration of comparing conntrack with what is programmed";
        let name = "kubeproxy_conntrack_reconciler_sync_duration_seconds";
        registry.register(name, help, self.conntrack_duration.clone());
    }

    fn register_syncs(&self, registry: &mut Registry) {
        let help = "Duration of syncs that wrote something";
        registry.register("kubeproxy_sync_proxy_rules_duration_seconds", help, self.sync_duration.clone());
        let help = "Duration of syncs that compared everything with what is installed";
        let name = "kubeproxy_sync_full_proxy_rules_duration_seconds";
        registry.register(name, help, self.sync_full_duration.clone());
        let help = "Duration of syncs that wrote what had changed";
        let name = "kubeproxy_sync_partial_proxy_rules_duration_seconds";
        registry.register(name, help, self.sync_partial_duration.clone());
        let help = "When everything was programmed last";
        registry.register("kubeproxy_sync_proxy_rules_last_timestamp_seconds", help, self.last_sync.clone());
        let help = "When something last arrived that has to be programmed";
        let name = "kubeproxy_sync_proxy_rules_last_queued_timestamp_seconds";
        registry.register(name, help, self.last_queued.clone());
        let help = "From the change in the cluster that an EndpointSlice tells of until it was programmed";
        let name = "kubeproxy_network_programming_duration_seconds";
        registry.register(name, help, self.network_programming.clone());
    }
}

/// How many updates are about Services and how many about endpoints.
fn changes(updates: &[Update]) -> (u64, u64) {
    let (mut services, mut endpoints) = (0, 0);
    for update in updates {
        let (kind, count) = match update {
            Update::Set(object) | Update::SetSince(object, _) => (object.kind(), 1),
            Update::Delete(key) => (key.kind(), 1),
            Update::Reset(kind, objects) => (*kind, objects.len()),
            Update::LocalAddresses(_) => continue,
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
    use crate::model::{Key, Object};
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

    #[test]
    fn network_programming_has_the_buckets_of_kube_proxy() {
        let buckets: Vec<f64> = network_programming_buckets().collect();
        assert_eq!(buckets.len(), 81);
        assert!(buckets.is_sorted());
        for bound in [0.0, 0.25, 0.5, 1.0, 59.0, 60.0, 65.0, 115.0, 120.0, 150.0, 300.0] {
            assert!(buckets.contains(&bound), "{bound} in {buckets:?}");
        }
    }
}
