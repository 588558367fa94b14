//! Requests to the API server, under the names that client-go gives them: dashboards know those.

use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

/// The buckets of client-go.
const BUCKETS: [f64; 12] = [0.005, 0.025, 0.1, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 15.0, 30.0, 60.0];

/// How a request ended.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct RequestLabel {
    /// The status code; `<error>` where there was no answer.
    pub code: String,
    /// `GET`, `POST` or `PATCH`.
    pub method: String,
    /// The server, with its port.
    pub host: String,
}

/// Which requests took so long.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct DurationLabel {
    /// `GET`, `POST` or `PATCH`.
    pub verb: String,
    /// The server, with its port.
    pub host: String,
}

/// Handles to the metrics named `rest_client_*`; a clone counts into the same ones.
#[derive(Clone, Debug)]
pub struct RestClient {
    /// `rest_client_requests_total{code,method,host}`: requests.
    pub requests: Family<RequestLabel, Counter>,
    /// `rest_client_request_duration_seconds{verb,host}`: from a request to the head of its answer.
    pub duration: Family<DurationLabel, Histogram, fn() -> Histogram>,
}

impl Default for RestClient {
    fn default() -> Self {
        Self {
            requests: Family::default(),
            duration: Family::new_with_constructor(|| Histogram::new(BUCKETS)),
        }
    }
}

impl RestClient {
    /// Counts a request; without a code there was no answer.
    pub fn observe(&self, method: &str, host: &str, code: Option<u16>, took: Duration) {
        let code = code.map_or_else(|| "<error>".to_owned(), |code| code.to_string());
        let (method, host) = (method.to_owned(), host.to_owned());
        let label = DurationLabel { verb: method.clone(), host: host.clone() };
        self.duration.get_or_create(&label).observe(took.as_secs_f64());
        self.requests.get_or_create(&RequestLabel { code, method, host }).inc();
    }

    /// Makes the metrics known to `registry`.
    pub(super) fn register(&self, registry: &mut Registry) {
        registry.register("rest_client_requests", "Requests to the API server", self.requests.clone());
        let help = "From a request to the API server to the head of its answer";
        registry.register("rest_client_request_duration_seconds", help, self.duration.clone());
    }
}
