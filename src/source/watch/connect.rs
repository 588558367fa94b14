//! Which API server, and with which credentials. EDGE.

use std::path::{Path, PathBuf};
use std::time::Duration;

use hyper::Uri;
use kube::config::{InClusterError, KubeConfigOptions, Kubeconfig, KubeconfigError};
use kube::{Client, Config};

/// How long a TCP and TLS handshake may take before the server counts as unreachable.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// An API server that we know how to talk to. It need not answer yet.
#[derive(Clone)]
pub struct Server {
    /// Sends the requests, with credentials.
    pub client: Client,
    /// Where it is, for messages.
    pub url: String,
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
        "the credentials of the pod's service account cannot be used: {0}: \
         check automountServiceAccountToken, or pass --kubeconfig FILE"
    )]
    InCluster(#[source] InClusterError),
    /// The kubeconfig cannot be read, or names things that do not exist.
    #[error("the kubeconfig {} cannot be used: {}", path.display(), said(source))]
    Kubeconfig {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: Box<KubeconfigError>,
    },
    /// The server's address is no URL.
    #[error(
        "the server `{0}` of the kubeconfig is no URL: write it with its scheme, as in https://192.0.2.1:6443"
    )]
    NotAUrl(String),
    /// Address, certificates or credentials cannot be used together.
    #[error("no client for the API server at {url} can be made of the given credentials: {source}")]
    Client {
        /// The server's address.
        url: String,
        /// What is wrong.
        source: Box<kube::Error>,
    },
}

/// Finds the API server: the kubeconfig if one is given, else the pod's own cluster; `master` is an
/// address that counts in place of theirs. Talks to nobody yet. Needs a tokio runtime around it.
///
/// # Errors
/// Each names the file or variable that is wrong and what to do; trying again without a change is useless.
pub async fn connect(kubeconfig: Option<&Path>, master: Option<Uri>) -> Result<Server, ConnectError> {
    let mut config = match kubeconfig {
        Some(path) => from_file(path).await?,
        // as below, but for the variables, which a pod need not have
        None if master.is_some() => Config::incluster_dns().map_err(ConnectError::InCluster)?,
        None if std::env::var_os("KUBERNETES_SERVICE_HOST").is_none() => return Err(ConnectError::NoCluster),
        None => Config::incluster().map_err(ConnectError::InCluster)?,
    };
    config.cluster_url = master.unwrap_or(config.cluster_url);
    if config.cluster_url.scheme().is_none() {
        return Err(ConnectError::NotAUrl(config.cluster_url.to_string()));
    }
    config.connect_timeout = Some(CONNECT_TIMEOUT);
    // the client's own retries are silent for minutes; ours are counted and reported
    config.default_retry = false;
    let url = config.cluster_url.to_string();
    match Client::try_from(config) {
        Ok(client) => Ok(Server { client, url }),
        Err(source) => Err(ConnectError::Client { url, source: Box::new(source) }),
    }
}

async fn from_file(path: &Path) -> Result<Config, ConnectError> {
    let failed = |source| ConnectError::Kubeconfig { path: path.to_path_buf(), source: Box::new(source) };
    let kubeconfig = Kubeconfig::read_from(path).map_err(failed)?;
    Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await.map_err(failed)
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
            let message = connect(Some(&path), None).await.err().unwrap().to_string();
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
            assert_eq!(connect(Some(&path), master).await.unwrap().url, url);
        }
        std::fs::remove_file(&path).unwrap();
    }

    #[tokio::test]
    async fn without_a_cluster_the_message_says_what_to_do() {
        if std::env::var_os("KUBERNETES_SERVICE_HOST").is_some() {
            return; // these tests run in a pod themselves
        }
        let message = connect(None, None).await.err().unwrap().to_string();
        assert!(message.contains("--kubeconfig FILE, or --manifests DIR"), "{message}");
    }
}
