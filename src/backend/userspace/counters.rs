//! What is counted of each ServicePort, and how Prometheus sees it. EDGE: metrics.
//!
//! The counters of a ServicePort are a few numbers in one place, not a label set in each of several
//! metrics: that costs a tenth of the memory. Those of ServicePorts that nobody has called are left out.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Registry;

use crate::desired::ServicePortName;
use crate::model::Protocol;

/// A ServicePort with its protocol.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortName {
    /// The ServicePort.
    pub name: ServicePortName,
    /// The protocol.
    pub protocol: Protocol,
}

impl fmt::Display for PortName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.name, self.protocol)
    }
}

/// The numbers of one ServicePort.
#[derive(Debug, Default)]
pub struct Counters {
    connections: AtomicU64,
    ended: AtomicU64,
    sent: AtomicU64,
    received: AtomicU64,
    retries: AtomicU64,
    failed: AtomicU64,
    /// Frontends that could not be opened; set, not counted.
    unserved: AtomicU64,
}

impl Counters {
    /// A connection (TCP) or flow (UDP) has reached an endpoint.
    pub fn begun(&self) {
        self.connections.fetch_add(1, Ordering::Relaxed);
    }

    /// One of those has ended.
    pub fn ended(&self) {
        self.ended.fetch_add(1, Ordering::Relaxed);
    }

    /// Bytes from clients to endpoints.
    pub fn sent(&self, bytes: usize) {
        self.sent.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// Bytes from endpoints to clients.
    pub fn received(&self, bytes: usize) {
        self.received.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// An endpoint refused or did not answer, and another one is tried.
    pub fn retried(&self) {
        self.retries.fetch_add(1, Ordering::Relaxed);
    }

    /// No endpoint took the connection.
    pub fn failed(&self) {
        self.failed.fetch_add(1, Ordering::Relaxed);
    }

    /// One more frontend is not served.
    pub fn add_unserved(&self) {
        self.unserved.fetch_add(1, Ordering::Relaxed);
    }

    /// One frontend less is not served.
    pub fn take_unserved(&self) {
        self.unserved.fetch_sub(1, Ordering::Relaxed);
    }

    /// Some of the numbers, for tests.
    #[cfg(test)]
    pub fn numbers(&self) -> BTreeMap<&'static str, u64> {
        let load = |number: &AtomicU64| number.load(Ordering::Relaxed);
        [("retries", load(&self.retries)), ("failed", load(&self.failed))].into()
    }

    /// Connections and flows that there are now.
    #[must_use]
    pub fn active(&self) -> u64 {
        let ended = self.ended.load(Ordering::Relaxed);
        self.connections.load(Ordering::Relaxed).saturating_sub(ended)
    }
}

/// The counters of every ServicePort that is served now; a clone shows the same ones.
#[derive(Clone, Debug, Default)]
pub struct Traffic(Arc<Mutex<BTreeMap<String, Shown>>>);

#[derive(Debug)]
struct Shown {
    labels: Labels,
    counters: Arc<Counters>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Labels {
    namespace: String,
    service: String,
    port: String,
    protocol: String,
}

type Number = fn(&Counters) -> u64;

/// Name, help and value of each counter.
const COUNTERS: [(&str, &str, Number); 5] = [
    ("shunt_userspace_connections", "Connections and UDP flows that reached an endpoint", |of| {
        of.connections.load(Ordering::Relaxed)
    }),
    ("shunt_userspace_sent_bytes", "Bytes from clients to endpoints", |of| of.sent.load(Ordering::Relaxed)),
    ("shunt_userspace_received_bytes", "Bytes from endpoints to clients", |of| {
        of.received.load(Ordering::Relaxed)
    }),
    (
        "shunt_userspace_retries",
        "Endpoints that refused or did not answer, after which another one was tried",
        |of| of.retries.load(Ordering::Relaxed),
    ),
    ("shunt_userspace_failed", "Connections that no endpoint took", |of| of.failed.load(Ordering::Relaxed)),
];

/// The same for what goes up and down.
const GAUGES: [(&str, &str, Number); 2] = [
    ("shunt_userspace_connections_active", "Connections and UDP flows that there are now", Counters::active),
    (
        "shunt_userspace_unserved",
        "Addresses with ports of Services that could not be opened; the log says why",
        |of| of.unserved.load(Ordering::Relaxed),
    ),
];

impl Traffic {
    /// Makes the metrics known to `registry`.
    pub fn register(&self, registry: &mut Registry) {
        registry.register_collector(Box::new(self.clone()));
    }

    /// The counters of a ServicePort, from now on shown.
    #[must_use]
    pub fn of(&self, port: &PortName) -> Arc<Counters> {
        let new = || Shown {
            labels: Labels {
                namespace: port.name.service.namespace().to_owned(),
                service: port.name.service.name().to_owned(),
                port: port.name.port.to_string(),
                protocol: port.protocol.to_string(),
            },
            counters: Arc::default(),
        };
        self.lock().entry(port.to_string()).or_insert_with(new).counters.clone()
    }

    /// Shows a ServicePort no longer.
    pub fn forget(&self, port: &PortName) {
        self.lock().remove(&port.to_string());
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Shown>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Collector for Traffic {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let shown = self.lock();
        let called = |shown: &&Shown| {
            let Counters { connections, failed, unserved, .. } = &*shown.counters;
            [connections, failed, unserved].iter().any(|number| number.load(Ordering::Relaxed) > 0)
        };
        let shown: Vec<&Shown> = shown.values().filter(called).collect();
        if shown.is_empty() {
            return Ok(());
        }
        for (name, help, value) in COUNTERS {
            let mut metric = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
            for Shown { labels, counters } in &shown {
                metric
                    .encode_family(labels)?
                    .encode_counter::<NoLabelSet, u64, u64>(&value(counters), None)?;
            }
        }
        for (name, help, value) in GAUGES {
            let mut metric = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
            for Shown { labels, counters } in &shown {
                let value = i64::try_from(value(counters)).unwrap_or(i64::MAX);
                ConstGauge::new(value).encode(metric.encode_family(labels)?)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_called_is_shown_and_goes_with_its_service() {
        let traffic = Traffic::default();
        let mut registry = Registry::default();
        traffic.register(&mut registry);
        let text = || {
            let mut text = String::new();
            prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
            text
        };
        let port =
            |name: &str| PortName { name: ServicePortName::parse(name).unwrap(), protocol: Protocol::Tcp };
        let web = traffic.of(&port("shop/web:http"));
        let _idle = traffic.of(&port("shop/idle"));
        web.begun();
        web.begun();
        web.ended();
        web.sent(12);
        let shown = text();
        let labels = r#"{namespace="shop",service="web",port="http",protocol="tcp"}"#;
        for line in [
            format!("shunt_userspace_connections_total{labels} 2"),
            format!("shunt_userspace_connections_active{labels} 1"),
            format!("shunt_userspace_sent_bytes_total{labels} 12"),
        ] {
            assert!(shown.lines().any(|known| known == line), "{line} is not in\n{shown}");
        }
        assert!(!shown.contains("idle"), "{shown}");
        traffic.forget(&port("shop/web:http"));
        assert!(!text().contains("web"));
    }
}
