//! Every metric of shunt, by name: its own here, those that others have named in the modules.
//! `docs/metrics.md` lists them all.

pub mod exposition;
pub mod kube_proxy;
mod process;
pub mod rest_client;
#[cfg(test)]
mod tests;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;

use crate::backend::userspace::Traffic;
use crate::model::store::Counts;
use crate::model::{Family as IpFamily, Kind};
use kube_proxy::KubeProxy;
use rest_client::RestClient;

/// The label of metrics that are counted per kind of object.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct KindLabel {
    /// The kind as Kubernetes writes it.
    pub kind: &'static str,
}

/// What was left out, and why.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct LeftOutLabel {
    /// The kind as Kubernetes writes it.
    pub kind: &'static str,
    /// The field whose value cannot be used, without indices: `spec.ports[].port`.
    pub field: String,
}

/// Which lists.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct ListLabel {
    /// The kind as Kubernetes writes it.
    pub kind: &'static str,
    /// `stream` or `pages`.
    pub how: &'static str,
}

/// What became of something.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct ResultLabel {
    /// One word.
    pub result: &'static str,
}

/// What the program is.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct BuildLabel {
    version: &'static str,
}

/// The label of metrics that are counted per IP family.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct FamilyLabel {
    /// `IPv4` or `IPv6`.
    pub ip_family: String,
}

impl From<IpFamily> for FamilyLabel {
    fn from(family: IpFamily) -> Self {
        Self { ip_family: family.to_string() }
    }
}

/// Handles to every metric; a clone counts into the same ones.
#[derive(Clone, Debug)]
pub struct Metrics {
    /// `shunt_objects_left_out_total{kind,field}`: objects, or parts of them, that were left out because
    /// a field has a value that cannot be used.
    pub objects_left_out: Family<LeftOutLabel, Counter>,
    /// `shunt_objects{kind}`: objects known.
    pub objects: Family<KindLabel, Gauge>,
    /// `shunt_endpoints{ip_family}`: endpoints known, of all EndpointSlices.
    pub endpoints: Family<FamilyLabel, Gauge>,
    /// `shunt_manifest_errors_total`: times that a manifest file could not be read, parsed, or
    /// defined an object that another file defines already.
    pub manifest_errors: Counter,
    /// `shunt_config_errors_total`: times that the configuration file changed into one that cannot be
    /// used; the configuration before it stays in force.
    pub config_errors: Counter,
    /// `shunt_watch_errors_total{kind}`: times that a list or watch of the API server failed and was
    /// tried again.
    pub watch_errors: Family<KindLabel, Counter>,
    /// `shunt_watch_restarts_total{kind}`: watches begun again where the one before had ended, in good
    /// order (the server ends each after a few minutes) or not.
    pub watch_restarts: Family<KindLabel, Counter>,
    /// `shunt_watch_failing{kind}`: 1 while lists or watches of the kind fail.
    pub watch_failing: Family<KindLabel, Gauge>,
    /// `shunt_lists_total{kind,how}`: complete lists.
    pub lists: Family<ListLabel, Counter>,
    /// `shunt_client_rebuilds_total`: times that kubeconfig, token or certificates were read again
    /// because they had changed or were refused.
    pub client_rebuilds: Counter,
    /// `shunt_events_total{result}`: what became of Kubernetes Events.
    pub events: Family<ResultLabel, Counter>,
    /// `shunt_sync_duration_seconds`: how long a sync took that wrote something, from the first row
    /// compiled to the last batch confirmed.
    pub sync_duration: Histogram,
    /// `shunt_event_to_commit_seconds`: from the arrival of the oldest update of a sync to the moment
    /// at which all of it was programmed.
    pub event_to_commit: Histogram,
    /// `shunt_plan_changes{ip_family}`: rows added, changed or removed by a sync that wrote something.
    pub plan_changes: Family<FamilyLabel, Histogram, fn() -> Histogram>,
    /// `shunt_refused_services{ip_family}`: Services that the kernel refuses at present.
    pub refused_services: Family<FamilyLabel, Gauge>,
    /// `shunt_sync_failures_total{ip_family}`: transactions that the kernel refused.
    pub sync_failures: Family<FamilyLabel, Counter>,
    /// `shunt_drift_repaired_total{ip_family}`: times that somebody else had changed what was programmed,
    /// and it was put right.
    pub drift_repaired: Family<FamilyLabel, Counter>,
    /// `shunt_drift_operations_total{ip_family}`: operations that this took.
    pub drift_operations: Family<FamilyLabel, Counter>,
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
    /// `shunt_health_ports_missing`: Services whose `healthCheckNodePort` cannot be opened everywhere.
    pub health_ports_missing: Gauge,
    /// `shunt_configuration_warnings`: warnings about the configuration in force.
    pub configuration_warnings: Gauge,
    /// The names that kube-proxy's dashboards know.
    pub kube_proxy: KubeProxy,
    /// Requests to the API server.
    pub rest_client: RestClient,
    /// `shunt_userspace_*{namespace,service,port,protocol}`: see there.
    pub traffic: Traffic,
}

impl Default for Metrics {
    fn default() -> Self {
        // 0.1 ms to 52 s.
        let latency = || Histogram::new(exponential_buckets(0.0001, 2.0, 20));
        let plan_changes = Family::new_with_constructor(
            // 1 to 4 million.
            (|| Histogram::new(exponential_buckets(1.0, 4.0, 12))) as fn() -> Histogram,
        );
        for family in IpFamily::ALL {
            drop(plan_changes.get_or_create(&family.into()));
        }
        Self {
            objects_left_out: Family::default(),
            objects: Family::default(),
            endpoints: each_family(),
            manifest_errors: Counter::default(),
            config_errors: Counter::default(),
            watch_errors: Family::default(),
            watch_restarts: Family::default(),
            watch_failing: Family::default(),
            lists: Family::default(),
            client_rebuilds: Counter::default(),
            events: Family::default(),
            sync_duration: latency(),
            event_to_commit: latency(),
            plan_changes,
            refused_services: each_family(),
            sync_failures: each_family(),
            drift_repaired: each_family(),
            drift_operations: each_family(),
            affinity_not_remembered: each_family(),
            operations: each_family(),
            conntrack_deleted: each_family(),
            conntrack_failures: each_family(),
            health_ports_missing: Gauge::default(),
            configuration_warnings: Gauge::default(),
            kube_proxy: KubeProxy::default(),
            rest_client: RestClient::default(),
            traffic: Traffic::default(),
        }
    }
}

/// A metric for each IP family, there from the start with the value 0.
fn each_family<M: Default>() -> Family<FamilyLabel, M> {
    let metric = Family::default();
    for family in IpFamily::ALL {
        drop(metric.get_or_create(&family.into()));
    }
    metric
}

impl Metrics {
    /// Counts what was left out.
    pub fn left_out(&self, kind: &'static str, field: &str) {
        let label = LeftOutLabel { kind, field: without_indices(field) };
        self.objects_left_out.get_or_create(&label).inc();
    }

    /// Tells how much is known.
    pub fn set_known(&self, counts: &Counts) {
        let number = |count| i64::try_from(count).unwrap_or(i64::MAX);
        for (kind, count) in [
            (Kind::Service, counts.services),
            (Kind::EndpointSlice, counts.slices),
            (Kind::Endpoints, counts.legacy),
            (Kind::Node, counts.nodes),
            (Kind::ServiceCidr, counts.service_cidrs),
        ] {
            self.objects.get_or_create(&KindLabel { kind: kind.as_str() }).set(number(count));
        }
        for (family, count) in IpFamily::ALL.into_iter().zip(counts.endpoints) {
            self.endpoints.get_or_create(&family.into()).set(number(count));
        }
    }

    /// Makes the metrics known to `registry`.
    pub fn register(&self, registry: &mut Registry) {
        self.kube_proxy.register(registry);
        self.rest_client.register(registry);
        registry.register_collector(Box::new(process::Process));
        self.traffic.register(registry);
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
        let build: Family<BuildLabel, Gauge> = Family::default();
        build.get_or_create(&BuildLabel { version: env!("CARGO_PKG_VERSION") }).set(1);
        registry.register("shunt_build_info", "1, with the version of shunt as a label", build);
        self.register_sources(registry);
        self.register_programming(registry);
        self.register_drift(registry);
    }

    fn register_drift(&self, registry: &mut Registry) {
        let help = "Times that somebody else had changed what was programmed, and it was put right";
        registry.register("shunt_drift_repaired", help, self.drift_repaired.clone());
        let help = "Operations that it took to put right what somebody else had changed";
        registry.register("shunt_drift_operations", help, self.drift_operations.clone());
    }

    fn register_sources(&self, registry: &mut Registry) {
        let help = "Objects or parts of them left out because of a value that cannot be used";
        registry.register("shunt_objects_left_out", help, self.objects_left_out.clone());
        registry.register("shunt_objects", "Objects known", self.objects.clone());
        registry.register("shunt_endpoints", "Endpoints known", self.endpoints.clone());
        let help = "Manifest files that could not be used as they stand";
        registry.register("shunt_manifest_errors", help, self.manifest_errors.clone());
        let help = "Changes of the configuration file that could not be used";
        registry.register("shunt_config_errors", help, self.config_errors.clone());
        let help = "Failed lists and watches of the API server, each tried again";
        registry.register("shunt_watch_errors", help, self.watch_errors.clone());
        let help = "Watches of the API server begun again";
        registry.register("shunt_watch_restarts", help, self.watch_restarts.clone());
        let help = "1 while lists and watches of the kind fail";
        registry.register("shunt_watch_failing", help, self.watch_failing.clone());
        registry.register("shunt_lists", "Complete lists from the API server", self.lists.clone());
        let help = "Times that kubeconfig, token or certificates were read again";
        registry.register("shunt_client_rebuilds", help, self.client_rebuilds.clone());
        let help = "Kubernetes Events, by what became of them";
        registry.register("shunt_events", help, self.events.clone());
        let help = "Warnings about the configuration in force";
        registry.register("shunt_configuration_warnings", help, self.configuration_warnings.clone());
        let help = "Services whose healthCheckNodePort cannot be opened everywhere";
        registry.register("shunt_health_ports_missing", help, self.health_ports_missing.clone());
    }

    fn register_programming(&self, registry: &mut Registry) {
        let help = "Duration of syncs that wrote something";
        registry.register("shunt_sync_duration_seconds", help, self.sync_duration.clone());
        let help = "From the arrival of an update until all of it was programmed";
        registry.register("shunt_event_to_commit_seconds", help, self.event_to_commit.clone());
        let help = "Rows added, changed or removed by a sync that wrote something";
        registry.register("shunt_plan_changes", help, self.plan_changes.clone());
        let help = "Services that the kernel refuses at present";
        registry.register("shunt_refused_services", help, self.refused_services.clone());
        let help = "Transactions that the kernel refused";
        registry.register("shunt_sync_failures", help, self.sync_failures.clone());
        let help = "Connections whose client could not be remembered: more clients than --affinity-clients";
        registry.register("shunt_affinity_not_remembered", help, self.affinity_not_remembered.clone());
        let help = "Tables, sets, chains and elements written or deleted";
        registry.register("shunt_operations", help, self.operations.clone());
        let help = "UDP flows deleted from conntrack because they led to the wrong place";
        registry.register("shunt_conntrack_deleted", help, self.conntrack_deleted.clone());
        let help = "Failed attempts to delete stale flows from conntrack, each tried again";
        registry.register("shunt_conntrack_failures", help, self.conntrack_failures.clone());
    }
}

/// The path of a field without what stands in brackets: a label must not have as many values as there are
/// ports.
fn without_indices(field: &str) -> String {
    let mut parts = field.split('[');
    let first = parts.next().unwrap_or_default().to_owned();
    parts.fold(first, |path, part| {
        let (_, behind) = part.split_once(']').unwrap_or_default();
        format!("{path}[]{behind}")
    })
}
