//! The servers at `healthCheckNodePort`, opened and closed as Services and addresses change. EDGE.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use hyper::StatusCode;
use hyper::header::{HeaderName, HeaderValue};
use serde_json::json;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tracing::{info, warn};

use super::{Change, Programming, Shown};
use crate::http::{Answer, Answers, Families, accept, listen};
use crate::metrics::Metrics;
use crate::model::{Port, ServiceName};
use crate::notices::{Notice, Reason, Recorder};

/// How long after a port could not be had it is tried again.
const RETRY: Duration = Duration::from_secs(2);

/// For load balancers that weigh nodes.
const WEIGHT: HeaderName = HeaderName::from_static("x-load-balancing-endpoint-weight");

/// Keeps the servers for as long as the future lives.
pub async fn serve(mut shown: Shown, recorder: Recorder, metrics: Metrics) {
    let mut ports = Ports {
        programming: shown.programming,
        recorder,
        services: BTreeMap::new(),
        addresses: Vec::new(),
        missing: BTreeSet::new(),
    };
    let mut again = tokio::time::interval(RETRY);
    loop {
        // In any order: nothing is lost when the other branch wins, both can be cancelled.
        tokio::select! {
            change = shown.changes.recv() => match change {
                Some(change) => ports.apply(change).await,
                None => return,
            },
            _ = again.tick(), if !ports.missing.is_empty() => {
                for name in std::mem::take(&mut ports.missing) {
                    ports.open(&name);
                }
            }
        }
        metrics.health_ports_missing.set(i64::try_from(ports.missing.len()).unwrap_or(i64::MAX));
    }
}

/// Every server.
struct Ports {
    programming: watch::Receiver<Programming>,
    recorder: Recorder,
    services: BTreeMap<ServiceName, Server>,
    addresses: Vec<IpAddr>,
    /// Services of which not every address is open.
    missing: BTreeSet<ServiceName>,
}

/// The server of one Service.
struct Server {
    port: Port,
    local_endpoints: Arc<AtomicUsize>,
    open: BTreeMap<IpAddr, JoinHandle<()>>,
    /// Addresses that could not be opened, as warned of.
    warned: BTreeSet<IpAddr>,
}

impl Ports {
    async fn apply(&mut self, change: Change) {
        match change {
            Change::Addresses(addresses) => {
                for server in self.services.values_mut() {
                    server.close(|address| !addresses.contains(address)).await;
                }
                self.addresses = addresses;
                for name in self.services.keys().cloned().collect::<Vec<_>>() {
                    self.open(&name);
                }
            }
            Change::Port(name, wanted) => {
                let server = self.services.get_mut(&name);
                if let (Some(server), Some(wanted)) = (&server, &wanted)
                    && server.port == wanted.port
                {
                    server.local_endpoints.store(wanted.local_endpoints, Ordering::Relaxed);
                    return;
                }
                if let Some(server) = server {
                    server.close(|_| true).await;
                }
                self.services.remove(&name);
                self.missing.remove(&name);
                if let Some(wanted) = wanted {
                    let server = Server {
                        port: wanted.port,
                        local_endpoints: Arc::new(AtomicUsize::new(wanted.local_endpoints)),
                        open: BTreeMap::new(),
                        warned: BTreeSet::new(),
                    };
                    self.services.insert(name.clone(), server);
                    self.open(&name);
                }
            }
        }
    }

    /// Opens what a Service still lacks. A port that is in use stops nobody else.
    fn open(&mut self, name: &ServiceName) {
        let Some(server) = self.services.get_mut(name) else { return };
        for &address in &self.addresses {
            if server.open.contains_key(&address) {
                continue;
            }
            let at = SocketAddr::new(address, server.port.number());
            match listen(at, Families::One) {
                Ok(listener) => {
                    let answers = answers(name, server.local_endpoints.clone(), self.programming.clone());
                    server.open.insert(address, tokio::spawn(accept(listener, answers)));
                    if server.warned.remove(&address) {
                        info!("health port {at} of Service {name} is open now");
                    }
                }
                // A kernel without IPv6: nobody can ask there.
                Err(error) if error.raw_os_error() == Some(nix::libc::EAFNOSUPPORT) => {}
                Err(error) => {
                    self.missing.insert(name.clone());
                    if server.warned.insert(address) {
                        let note = format!(
                            "health port {at} of Service {name} cannot be opened and is tried again every {RETRY:?}; \
                             load balancers leave this node out until then: {error}"
                        );
                        warn!("{note}");
                        self.recorder.record(Notice::of_service(name, Reason::HealthPortUnavailable, note));
                    }
                }
            }
        }
    }
}

impl Server {
    /// Closes these addresses; when this returns, their ports are free.
    async fn close(&mut self, which: impl Fn(&IpAddr) -> bool) {
        self.warned.retain(|address| !which(address));
        let closing: Vec<IpAddr> = self.open.keys().filter(|address| which(address)).copied().collect();
        for server in closing.iter().filter_map(|address| self.open.remove(address)).collect::<Vec<_>>() {
            server.abort();
            // The listener is dropped with the task, which has ended once this returns.
            _ = server.await;
        }
    }
}

/// Every path has the same answer, as in kube-proxy.
fn answers(
    name: &ServiceName,
    local_endpoints: Arc<AtomicUsize>,
    programming: watch::Receiver<Programming>,
) -> Answers {
    let name = name.clone();
    Arc::new(move |_| {
        let healthy = programming.borrow().is_healthy(Instant::now());
        Some(answer(&name, local_endpoints.load(Ordering::Relaxed), healthy))
    })
}

fn answer(name: &ServiceName, local_endpoints: usize, healthy: bool) -> Answer {
    let good = local_endpoints > 0 && healthy;
    let body = json!({
        "service": { "namespace": name.namespace(), "name": name.name() },
        "localEndpoints": local_endpoints,
        "serviceProxyHealthy": healthy,
    });
    let mut answer = Answer::json(if good { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }, &body);
    answer.headers.push((WEIGHT, HeaderValue::from(local_endpoints)));
    answer
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::name;

    #[test]
    fn endpoints_here_and_a_healthy_proxy_make_200() {
        for (local_endpoints, healthy, status) in [(2, true, 200), (2, false, 503), (0, true, 503)] {
            let got = answer(&name("shop/web"), local_endpoints, healthy);
            assert_eq!(got.status.as_u16(), status);
            assert!(got.headers.contains(&(WEIGHT, HeaderValue::from(local_endpoints))), "{got:?}");
            let body: serde_json::Value = serde_json::from_str(&got.body).unwrap();
            assert_eq!(body["service"], json!({ "namespace": "shop", "name": "web" }));
            assert_eq!(body["localEndpoints"], local_endpoints);
            assert_eq!(body["serviceProxyHealthy"], healthy);
        }
    }
}
