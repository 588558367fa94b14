//! What shunt serves over HTTP: its metrics. EDGE.

use std::convert::Infallible;
use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::CONTENT_TYPE;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use prometheus_client::registry::Registry;
use tokio::net::TcpListener;
use tracing::{debug, warn};

use crate::metrics::Metrics;

const PLAIN: &str = "text/plain; charset=utf-8";

/// Serves `/metrics` at `address` for as long as the future lives; nothing where there is no address.
/// An address that cannot be had is a warning: a node without metrics still serves its Services.
pub fn serve(address: Option<SocketAddr>, metrics: &Metrics) -> impl Future<Output = ()> + use<> {
    let mut registry = Registry::default();
    metrics.register(&mut registry);
    let registry = Arc::new(registry);
    async move {
        let Some(address) = address else { return };
        match TcpListener::bind(address).await {
            Ok(listener) => accept(listener, registry).await,
            Err(error) => warn!(
                "metrics cannot be served at {address} (metricsBindAddress): {error}; shunt goes on without"
            ),
        }
    }
}

async fn accept(listener: TcpListener, registry: Arc<Registry>) {
    loop {
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                // Out of file descriptors, most likely: wait for some to come back.
                warn!("a connection for metrics could not be accepted: {error}");
                tokio::time::sleep(std::time::Duration::from_secs(1)).await;
                continue;
            }
        };
        let registry = registry.clone();
        tokio::spawn(async move {
            let answer =
                service_fn(|request| std::future::ready(Ok::<_, Infallible>(answer(&request, &registry))));
            let served =
                hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), answer);
            if let Err(error) = served.await {
                debug!("a connection for metrics broke off: {error}");
            }
        });
    }
}

fn answer(request: &Request<Incoming>, registry: &Registry) -> Response<Full<Bytes>> {
    let text = |status, kind: &'static str, body: String| {
        let mut response = Response::new(Full::from(body));
        *response.status_mut() = status;
        response.headers_mut().insert(CONTENT_TYPE, hyper::header::HeaderValue::from_static(kind));
        response
    };
    match (request.method(), request.uri().path()) {
        (&Method::GET, "/metrics") => {
            let mut body = String::new();
            match prometheus_client::encoding::text::encode(&mut body, registry) {
                Ok(()) => {
                    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
                    text(StatusCode::OK, kind, body)
                }
                Err(error) => text(StatusCode::INTERNAL_SERVER_ERROR, PLAIN, format!("{error}\n")),
            }
        }
        (_, "/metrics") => text(StatusCode::METHOD_NOT_ALLOWED, PLAIN, "only GET\n".into()),
        _ => text(StatusCode::NOT_FOUND, PLAIN, "there is only /metrics here\n".into()),
    }
}
