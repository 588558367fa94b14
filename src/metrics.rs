//! Every metric of shunt, by name: its own here, those of kube-proxy in [`kube_proxy`].

pub mod kube_proxy;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;

use kube_proxy::KubeProxy;

/// The label of metrics that are counted per kind of object.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct KindLabel {
    /// The kind as Kubernetes writes it.
    pub kind: &'static str,
}

/// The label of metrics that are counted per IP family.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct FamilyLabel {
    /// `IPv4` or `IPv6`.
    pub ip_family: String,
}

impl From<crate::model::Family> for FamilyLabel {
    fn from(family: crate::model::Family) -> Self {
        Self { ip_family: family.to_string() }
    }
}

/// Handles to every metric; a clone counts into the same ones.
#[derive(Clone, Debug)]
pub struct Metrics {
    /// `shunt_objects_left_out_total{kind}`: objects, or parts of them, that were left out because a
    /// field has a value that cannot be used.
    pub objects_left_out: Family<KindLabel, Counter>,
    /// `shunt_manifest_errors_total`: times that a manifest file could not be read, parsed, or
    /// defined an object that another file defines already.
    pub manifest_errors: Counter,
    /// `shunt_config_errors_total`: times that the configuration file changed into one that cannot be
    /// used; the configuration before it stays in force.
    pub config_errors: Counter,
    /// `shunt_watch_errors_total{kind}`: times that a list or watch of the API server failed and was
    /// tried again.
    pub watch_errors: Family<KindLabel, Counter>,
    /// `shunt_sync_duration_seconds`: how long a sync took that wrote something, from the first row
    /// compiled to the last batch confirmed.
    pub sync_duration: Histogram,
    /// `shunt_event_to_commit_seconds`: from the arrival of the oldest update of a sync to the moment
    /// at which all of it was programmed.
    pub event_to_commit: Histogram,
    /// `shunt_sync_failures_total{ip_family}`: transactions that the kernel refused.
    pub sync_failures: Family<FamilyLabel, Counter>,
    /// `shunt_affinity_not_remembered_total{ip_family}`: new connections to Services with `ClientIP`
    /// affinity whose client could not be remembered: there were `--affinity-clients` already.
    pub affinity_not_remembered: Family<FamilyLabel, Counter>,
    /// `shunt_operations_total{ip_family}`: tables, sets, chains and elements written or deleted.
    pub operations: Family<FamilyLabel, Counter>,
    /// `shunt_conntrack_deleted_total{ip_family}`: UDP flows deleted because they led to endpoints or
    /// frontends that are gone, or were older than their frontend.
    pub conntrack_deleted: Family<FamilyLabel, Counter>,
    /// `shunt_conntrack_failures_total{ip_family}`: times that conntrack could not be compared with
    /// what is programmed, each tried again.
    pub conntrack_failures: Family<FamilyLabel, Counter>,
    /// The names that kube-proxy's dashboards know.
    pub kube_proxy: KubeProxy,
}

impl Default for Metrics {
    fn default() -> Self {
        // 0.1 ms to 52 s.
        let latency = || Histogram::new(exponential_buckets(0.0001, 2.0, 20));
        Self {
            objects_left_out: Family::default(),
            manifest_errors: Counter::default(),
            config_errors: Counter::default(),
            watch_errors: Family::default(),
            sync_duration: latency(),
            event_to_commit: latency(),
            sync_failures: Family::default(),
            affinity_not_remembered: Family::default(),
            operations: Family::default(),
            conntrack_deleted: Family::default(),
            conntrack_failures: Family::default(),
            kube_proxy: KubeProxy::default(),
        }
    }
}

impl Metrics {
    /// Makes the metrics known to `registry`.
    pub fn register(&self, registry: &mut Registry) {
        self.kube_proxy.register(registry);
        // What counts the same things as in kube-proxy has both names.
        registry.register(
            "kubeproxy_sync_proxy_rules_nftables_sync_failures",
            "Transactions that the kernel refused",
            self.sync_failures.clone(),
        );
        registry.register(
            "kubeproxy_conntrack_reconciler_deleted_entries",
            "Flows deleted from conntrack because they led to the wrong place",
            self.conntrack_deleted.clone(),
        );
        self.register_own(registry);
    }

    fn register_own(&self, registry: &mut Registry) {
        registry.register(
            "shunt_objects_left_out",
            "Objects or parts of them left out because of a value that cannot be used",
            self.objects_left_out.clone(),
        );
        registry.register(
            "shunt_manifest_errors",
            "Manifest files that could not be used as they stand",
            self.manifest_errors.clone(),
        );
        registry.register(
            "shunt_config_errors",
            "Changes of the configuration file that could not be used",
            self.config_errors.clone(),
        );
        registry.register(
            "shunt_watch_errors",
            "Failed lists and watches of the API server, each tried again",
            self.watch_errors.clone(),
        );
        registry.register(
            "shunt_sync_duration_seconds",
            "Duration of syncs that wrote something",
            self.sync_duration.clone(),
        );
        registry.register(
            "shunt_event_to_commit_seconds",
            "From the arrival of an update until all of it was programmed",
            self.event_to_commit.clone(),
        );
        registry.register(
            "shunt_sync_failures",
            "Transactions that the kernel refused",
            self.sync_failures.clone(),
        );
        registry.register(
            "shunt_affinity_not_remembered",
            "Connections whose client could not be remembered: more clients than --affinity-clients",
            self.affinity_not_remembered.clone(),
        );
        registry.register(
            "shunt_operations",
            "Tables, sets, chains and elements written or deleted",
            self.operations.clone(),
        );
        registry.register(
            "shunt_conntrack_deleted",
            "UDP flows deleted from conntrack because they led to the wrong place",
            self.conntrack_deleted.clone(),
        );
        registry.register(
            "shunt_conntrack_failures",
            "Failed attempts to delete stale flows from conntrack, each tried again",
            self.conntrack_failures.clone(),
        );
    }
}
