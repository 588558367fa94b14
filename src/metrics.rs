//! Every metric of shunt, by name, in one place.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;

/// The label of metrics that are counted per kind of object.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct KindLabel {
    /// The kind as Kubernetes writes it.
    pub kind: &'static str,
}

/// Handles to every metric; a clone counts into the same ones.
#[derive(Clone, Debug, Default)]
pub struct Metrics {
    /// `shunt_objects_left_out_total{kind}`: objects, or parts of them, that were left out because a
    /// field has a value that cannot be used.
    pub objects_left_out: Family<KindLabel, Counter>,
    /// `shunt_manifest_errors_total`: times that a manifest file could not be read, parsed, or
    /// defined an object that another file defines already.
    pub manifest_errors: Counter,
    /// `shunt_watch_errors_total{kind}`: times that a list or watch of the API server failed and was
    /// tried again.
    pub watch_errors: Family<KindLabel, Counter>,
}

impl Metrics {
    /// Makes the metrics known to `registry`.
    pub fn register(&self, registry: &mut Registry) {
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
            "shunt_watch_errors",
            "Failed lists and watches of the API server, each tried again",
            self.watch_errors.clone(),
        );
    }
}
