//! An API server to talk to: one client, made again when its files have changed. EDGE.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use hyper::body::Incoming;
use hyper::header::{self, HeaderValue};
use hyper::{Request, Response};
use hyper_util::client::legacy::Client as HttpClient;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use kube::client::{Body, ClientBuilder, ConfigExt};
use kube::config::KubeconfigError;
use kube::{Client, Config};
use tokio::sync::Mutex;
use tokio::time::timeout;
use tower::BoxError;
use tower::util::MapErrLayer;

use super::access::{Access, Reading};
use super::failure::Failure;
use crate::metrics::Metrics;

/// How long a TCP handshake may take before the server counts as unreachable.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// What the server's audit log and metrics call us.
const USER_AGENT: &str = concat!("shunt/", env!("CARGO_PKG_VERSION"));

/// An API server that we know how to talk to. It need not answer yet. Clones share one client.
#[derive(Clone)]
pub struct Server {
    access: Arc<Access>,
    current: Arc<Mutex<Current>>,
    metrics: Metrics,
}

/// The client in use.
struct Current {
    client: Client,
    url: String,
    host: String,
    fingerprint: u64,
    /// The server has refused these credentials: make another client, even if no file has changed.
    refused: bool,
    /// What was wrong with the files when they were read last, as logged.
    complaint: Option<String>,
}

/// Why there is no API server to talk to. None of these goes away by waiting.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// There is no kubeconfig, and this is no pod.
    #[error(
        "no kubeconfig given and not running in a cluster (KUBERNETES_SERVICE_HOST is not set): \
         pass --kubeconfig FILE, or --manifests DIR to run without a cluster"
    )]
    NoCluster,
    /// This is a pod, but its service account is not what it should be.
    #[error(
        "the credentials of the pod's service account in {} cannot be used: {}: \
         check automountServiceAccountToken, or pass --kubeconfig FILE", path.display(), said(source)
    )]
    InCluster {
        /// Where Kubernetes puts them.
        path: PathBuf,
        /// What is wrong with them.
        source: Box<KubeconfigError>,
    },
    /// The kubeconfig cannot be read, or names things that do not exist.
    #[error("the kubeconfig {} cannot be used: {}", path.display(), said(source))]
    Kubeconfig {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: Box<KubeconfigError>,
    },
    /// The server's address is no URL.
    #[error("`{0}` is no URL of an API server: write it with its scheme, as in https://192.0.2.1:6443")]
    NotAUrl(String),
    /// The kubeconfig asks for a proxy.
    #[error(
        "the kubeconfig's proxy-url `{0}` cannot be used: shunt connects to the API server directly; \
         remove it, or name a server that can be reached without"
    )]
    Proxy(String),
    /// Address, certificates or credentials cannot be used together.
    #[error("no client for the API server at {url} can be made of the given credentials: {source}")]
    Client {
        /// The server's address.
        url: String,
        /// What is wrong.
        source: Box<kube::Error>,
    },
}

/// Finds the API server and makes a client for it. Talks to nobody yet. Needs a tokio runtime around it.
///
/// # Errors
/// Each names the file or variable that is wrong and what to do; trying again without a change is useless.
pub async fn connect(access: Access, metrics: Metrics) -> Result<Server, ConnectError> {
    let current = make(access.read().await?, access.silence)?;
    if proxy_in_environment() {
        tracing::info!("HTTPS_PROXY is not used: shunt connects to the API server directly");
    }
    Ok(Server { access: Arc::new(access), current: Arc::new(Mutex::new(current)), metrics })
}

fn proxy_in_environment() -> bool {
    ["HTTPS_PROXY", "https_proxy"].iter().any(|name| std::env::var_os(name).is_some())
}

fn make(reading: Reading, silence: Duration) -> Result<Current, ConnectError> {
    let Reading { config, fingerprint } = reading;
    let url = config.cluster_url.to_string();
    let host = config.cluster_url.authority().map(ToString::to_string).unwrap_or_default();
    match client(&config, silence) {
        Ok(client) => Ok(Current { client, url, host, fingerprint, refused: false, complaint: None }),
        Err(source) => Err(ConnectError::Client { url, source: Box::new(source) }),
    }
}

/// The same on another thread: a credential plugin is a program that kube waits for, and this thread also
/// answers health checks.
async fn make_aside(reading: Reading, silence: Duration) -> Result<Current, ConnectError> {
    match tokio::task::spawn_blocking(move || make(reading, silence)).await {
        Ok(made) => made,
        Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
        // The runtime is being shut down, and with it whoever waits here.
        Err(_) => std::future::pending().await,
    }
}

/// kube's own client, but for the socket: kube leaves keepalive and the like as they are, so that a
/// connection whose other side has vanished would live for hours. And without its retries, which are
/// silent for minutes; ours are counted and reported.
///
/// No compression is asked for: a server compresses the pages of a list, but neither a streamed list
/// nor a watch, and it takes more time than a local network does.
fn client(config: &Config, silence: Duration) -> Result<Client, kube::Error> {
    let mut connector = HttpConnector::new();
    connector.enforce_http(false);
    connector.set_nodelay(true);
    connector.set_connect_timeout(Some(CONNECT_TIMEOUT));
    // What was sent and is not acknowledged ends the connection after `silence`; where there was nothing to
    // send, so do unanswered probes.
    connector.set_tcp_user_timeout(Some(silence));
    // The kernel counts in whole seconds, and takes none for an error.
    let part = |part: u32| Some((silence * part / 5).max(Duration::from_secs(1)));
    connector.set_keepalive(part(2));
    connector.set_keepalive_interval(part(1));
    connector.set_keepalive_retries(Some(3));
    let connector = config.rustls_https_connector_with_connector(connector)?;
    let http: HttpClient<_, Body> = HttpClient::builder(TokioExecutor::new()).build(connector);
    let builder = ClientBuilder::new(http, config.default_namespace.clone());
    let builder = builder.with_layer(&MapErrLayer::new(BoxError::from));
    let (builder, base) = (builder.with_layer(&config.extra_headers_layer()?), config.base_uri_layer());
    Ok(match config.auth_layer()? {
        Some(auth) => builder.with_layer(&auth).with_layer(&base).build::<Incoming>(),
        None => builder.with_layer(&base).build::<Incoming>(),
    })
}

impl Server {
    /// Where the server is, for messages.
    pub async fn url(&self) -> String {
        self.current.lock().await.url.clone()
    }

    /// Whether the address is the one that Kubernetes tells a pod of.
    pub(super) fn is_by_service(&self) -> bool {
        self.access.is_by_service()
    }

    /// Sends a request and waits for the head of its answer.
    pub(crate) async fn send(
        &self,
        mut request: Request<Vec<u8>>,
        patience: Duration,
    ) -> Result<Response<Body>, Failure> {
        request.headers_mut().insert(header::USER_AGENT, HeaderValue::from_static(USER_AGENT));
        let (client, url, host) = self.refreshed().await;
        let (method, begun) = (request.method().clone(), Instant::now());
        let answer = timeout(patience, client.send(request.map(Body::from))).await;
        let code = answer.as_ref().ok().and_then(|answer| answer.as_ref().ok());
        let code = code.map(|answer| answer.status().as_u16());
        self.metrics.rest_client.observe(method.as_str(), &host, code, begun.elapsed());
        if code == Some(401) {
            // A token can be refused before its file has changed, and a plugin can have a new one.
            self.current.lock().await.refused = true;
        }
        match answer {
            Err(_) => Err(Failure::Silent(patience)),
            Ok(Err(error)) => Err(Failure::unreachable(&url, &error)),
            Ok(Ok(answer)) => Ok(answer),
        }
    }

    /// The client, made again if kubeconfig, token or certificates are others than before. What cannot be
    /// used, perhaps because it is only half written, leaves the one before in force.
    async fn refreshed(&self) -> (Client, String, String) {
        let mut current = self.current.lock().await;
        let known = |reading: &Reading| reading.fingerprint == current.fingerprint && !current.refused;
        let made = match self.access.read().await {
            Ok(reading) if known(&reading) => None,
            Ok(reading) => Some(make_aside(reading, self.access.silence).await),
            Err(error) => Some(Err(error)),
        };
        match made {
            None => current.complaint = None,
            Some(Ok(made)) => {
                self.metrics.client_rebuilds.inc();
                tracing::debug!("credentials for the API server at {} are read again", made.url);
                *current = made;
            }
            Some(Err(error)) => {
                let complaint = error.to_string();
                if current.complaint.as_ref() != Some(&complaint) {
                    tracing::warn!("the credentials read before stay in use: {complaint}");
                }
                current.complaint = Some(complaint);
            }
        }
        (current.client.clone(), current.url.clone(), current.host.clone())
    }
}

/// What is wrong, on one line, without quotes in quotes and without the path that stands there already.
fn said(error: &KubeconfigError) -> String {
    match error {
        KubeconfigError::ReadConfig(source, _) => source.to_string(),
        KubeconfigError::Parse(source) => format!("it is no YAML: {}", source.without_snippet()),
        other => other.to_string().replace("'\"", "`").replace("\"'", "`"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn access(path: &std::path::Path, master: Option<hyper::Uri>) -> Access {
        Access { kubeconfig: Some(path.to_path_buf()), master, ..Access::default() }
    }

    #[tokio::test]
    async fn a_kubeconfig_that_cannot_be_used_is_named() {
        let users = "contexts: [{name: x, context: {cluster: c, user: u}}]\nusers: [{name: u}]\n";
        let authority = "{server: 'https://[::1]:1', certificate-authority: /nonexistent/ca}";
        let clusters = format!("clusters: [{{name: c, cluster: {authority}}}]");
        let no_authority = format!("current-context: x\n{users}{clusters}\n");
        let path = std::env::temp_dir().join(format!("shunt-kubeconfig-{}", std::process::id()));
        let table = [
            (None, "No such file or directory (os error 2)"),
            (Some("a: ["), "it is no YAML: unclosed bracket '[' at line 1, column 4"),
            (Some("current-context: x\n"), "failed to load current context: x"),
            (
                Some(no_authority.as_str()),
                "failed to load certificate authority: failed to read file `/nonexistent/ca`: No such file or \
                 directory (os error 2)",
            ),
        ];
        for (text, expected) in table {
            if let Some(text) = text {
                std::fs::write(&path, text).unwrap();
            }
            let message = connect(access(&path, None), Metrics::default()).await.err().unwrap().to_string();
            assert_eq!(message, format!("the kubeconfig {} cannot be used: {expected}", path.display()));
        }
        std::fs::remove_file(&path).unwrap();
    }

    #[tokio::test]
    async fn master_counts_in_place_of_the_address_of_the_kubeconfig() {
        let text = "current-context: x\ncontexts: [{name: x, context: {cluster: c, user: u}}]\n\
                    users: [{name: u}]\nclusters: [{name: c, cluster: {server: 'https://192.0.2.1:6443'}}]\n";
        let path = std::env::temp_dir().join(format!("shunt-master-{}", std::process::id()));
        std::fs::write(&path, text).unwrap();
        let master = || "https://192.0.2.9:6443".parse().unwrap();
        for (master, url) in [(None, "https://192.0.2.1:6443/"), (Some(master()), "https://192.0.2.9:6443/")]
        {
            let server = connect(access(&path, master), Metrics::default()).await.unwrap();
            assert_eq!(server.url().await, url);
        }
        std::fs::remove_file(&path).unwrap();
    }
}
