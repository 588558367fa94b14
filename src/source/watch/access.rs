//! Where the API server is and with which credentials it is asked, as files and flags say. EDGE: reads
//! files, talks to nobody.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::time::Duration;

use hyper::Uri;
use kube::Config;
use kube::config::{AuthInfo, Cluster, KubeConfigOptions, Kubeconfig, KubeconfigError};
use serde_json::json;

use super::connect::ConnectError;

/// Where Kubernetes puts the credentials of a pod.
const ACCOUNT: &str = "/var/run/secrets/kubernetes.io/serviceaccount";

/// How to reach the API server.
#[derive(Clone, Debug)]
pub struct Access {
    /// Take server and credentials from this file. Default: what Kubernetes gives to a pod.
    pub kubeconfig: Option<PathBuf>,
    /// The server, whatever else says (`--master`). Default: none.
    pub master: Option<Uri>,
    /// A connection on which the other side has not even acknowledged anything for so long is dead.
    /// Default: 25 s.
    pub silence: Duration,
    /// Where a pod's token and CA are. Default: where Kubernetes puts them.
    pub account: PathBuf,
    /// The pod's API server: `KUBERNETES_SERVICE_HOST` and `KUBERNETES_SERVICE_PORT`.
    pub service: Option<(String, String)>,
}

impl Default for Access {
    fn default() -> Self {
        let variable = |name| std::env::var(name).ok().filter(|value| !value.is_empty());
        let port = variable("KUBERNETES_SERVICE_PORT").unwrap_or_else(|| "443".to_owned());
        Self {
            kubeconfig: None,
            master: None,
            silence: Duration::from_secs(25),
            account: PathBuf::from(ACCOUNT),
            service: variable("KUBERNETES_SERVICE_HOST").map(|host| (host, port)),
        }
    }
}

/// What files and flags say at the moment.
pub(super) struct Reading {
    pub(super) config: Config,
    /// Another one where anything in the files is other.
    pub(super) fingerprint: u64,
}

impl Access {
    /// Whether the server is the one that Kubernetes tells a pod of: a `ClusterIP`, unless somebody has
    /// set another address.
    pub(super) fn is_by_service(&self) -> bool {
        self.kubeconfig.is_none() && self.master.is_none()
    }

    /// Reads everything again.
    pub(super) async fn read(&self) -> Result<Reading, ConnectError> {
        let kubeconfig = self.kubeconfig()?;
        if let Some(proxy) = proxy(&kubeconfig) {
            return Err(ConnectError::Proxy(proxy.to_owned()));
        }
        let fingerprint = fingerprint(self.kubeconfig.as_deref(), &kubeconfig);
        let mut config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default())
            .await
            .map_err(|source| self.unusable(source))?;
        read_token(&mut config.auth_info);
        if let Some(master) = &self.master {
            config.cluster_url = master.clone();
        }
        if config.cluster_url.scheme().is_none() || config.cluster_url.host().is_none() {
            return Err(ConnectError::NotAUrl(config.cluster_url.to_string()));
        }
        Ok(Reading { config, fingerprint })
    }

    fn unusable(&self, source: KubeconfigError) -> ConnectError {
        let source = Box::new(source);
        match &self.kubeconfig {
            Some(path) => ConnectError::Kubeconfig { path: path.clone(), source },
            None => ConnectError::InCluster { path: self.account.clone(), source },
        }
    }

    /// The kubeconfig that is given, or one that says the same as a pod's environment: one way for both.
    fn kubeconfig(&self) -> Result<Kubeconfig, ConnectError> {
        if let Some(path) = &self.kubeconfig {
            let mut kubeconfig = Kubeconfig::read_from(path).map_err(|source| self.unusable(source))?;
            if self.master.is_some() {
                // A kubeconfig without a server is complete with --master.
                for cluster in kubeconfig.clusters.iter_mut().filter_map(|named| named.cluster.as_mut()) {
                    cluster.server = self.master.as_ref().map(Uri::to_string);
                }
            }
            return Ok(kubeconfig);
        }
        let server = match (&self.master, &self.service) {
            (Some(master), _) => master.to_string(),
            (None, Some((host, port))) if host.contains(':') => format!("https://[{host}]:{port}"),
            (None, Some((host, port))) => format!("https://{host}:{port}"),
            (None, None) => return Err(ConnectError::NoCluster),
        };
        // As in kube-proxy --master alone means a server that asks for no credentials; in a pod there are some.
        let is_pod =
            self.master.is_none() || (server.starts_with("https:") && self.account.join("token").exists());
        let (cluster, user) = if is_pod {
            let file = |name| self.account.join(name);
            (
                json!({ "server": server, "certificate-authority": file("ca.crt") }),
                json!({ "tokenFile": file("token") }),
            )
        } else {
            (json!({ "server": server }), json!({}))
        };
        let kubeconfig = json!({
            "current-context": "pod",
            "contexts": [{ "name": "pod", "context": { "cluster": "pod", "user": "pod" } }],
            "clusters": [{ "name": "pod", "cluster": cluster }],
            "users": [{ "name": "pod", "user": user }],
        });
        serde_json::from_value(kubeconfig).map_err(|error| ConnectError::NotAUrl(error.to_string()))
    }
}

/// Puts the content of a token's file in its place: kube would read it at most once a minute, and fail at a
/// line's end behind it. A file that cannot be read is left to kube to complain of.
fn read_token(user: &mut AuthInfo) {
    let Some(file) = user.token_file.as_ref().filter(|_| user.token.is_none()) else { return };
    if let Ok(token) = std::fs::read_to_string(file)
        && !token.trim().is_empty()
    {
        user.token = Some(token.trim().into());
    }
}

/// The proxy that a kubeconfig asks for: shunt connects directly.
fn proxy(kubeconfig: &Kubeconfig) -> Option<&str> {
    clusters(kubeconfig).find_map(|cluster| cluster.proxy_url.as_deref()).filter(|url| !url.is_empty())
}

fn clusters(kubeconfig: &Kubeconfig) -> impl Iterator<Item = &Cluster> {
    kubeconfig.clusters.iter().filter_map(|named| named.cluster.as_ref())
}

/// Over the content of every file that has a part in this: a kubelet swaps a symbolic link two levels
/// up, of which times and inodes of the files tell nothing reliable.
fn fingerprint(path: Option<&Path>, kubeconfig: &Kubeconfig) -> u64 {
    let of_user = |user: &AuthInfo| {
        [&user.client_certificate, &user.client_key, &user.token_file]
            .map(|file| file.as_deref().map(PathBuf::from))
    };
    let users = kubeconfig.auth_infos.iter().filter_map(|named| named.auth_info.as_ref());
    let authorities = clusters(kubeconfig).filter_map(|cluster| cluster.certificate_authority.as_deref());
    let files = path.map(PathBuf::from).into_iter();
    let files = files.chain(authorities.map(PathBuf::from)).chain(users.flat_map(of_user).flatten());
    let mut hasher = DefaultHasher::new();
    for file in files {
        std::fs::read(file).ok().hash(&mut hasher);
    }
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn access() -> Access {
        let none = PathBuf::from("/nonexistent");
        Access { account: none, service: None, ..Access::default() }
    }

    fn server(access: &Access) -> String {
        let kubeconfig = access.kubeconfig().unwrap();
        clusters(&kubeconfig).next().unwrap().server.clone().unwrap()
    }

    #[test]
    fn the_address_of_a_pods_api_server() {
        let at = |host: &str, port: &str| Access { service: Some((host.into(), port.into())), ..access() };
        for (access, url) in [
            (at("10.96.0.1", "443"), "https://10.96.0.1:443"),
            (at("fd00::1", "6443"), "https://[fd00::1]:6443"),
            (at("api.example", "6443"), "https://api.example:6443"),
            (
                Access { master: Some(Uri::from_static("https://192.0.2.1:6443")), ..at("10.96.0.1", "443") },
                "https://192.0.2.1:6443/",
            ),
        ] {
            assert_eq!(server(&access), url);
            let kubeconfig = access.kubeconfig().unwrap();
            let user = kubeconfig.auth_infos[0].auth_info.as_ref().unwrap();
            assert_eq!(user.token_file.is_some(), access.master.is_none());
        }
        let nowhere = access().kubeconfig().unwrap_err().to_string();
        assert!(nowhere.contains("--kubeconfig FILE, or --manifests DIR"), "{nowhere}");
    }

    #[tokio::test]
    async fn what_cannot_be_read_is_named() {
        let missing = Access { kubeconfig: Some("/nonexistent/kubeconfig".into()), ..access() };
        let pod = Access { service: Some(("10.96.0.1".into(), "443".into())), ..access() };
        let bare = Access { master: Some(Uri::from_static("192.0.2.1")), ..access() };
        for (access, said) in [
            (missing, "the kubeconfig /nonexistent/kubeconfig cannot be used:"),
            (pod, "the credentials of the pod's service account in /nonexistent cannot be used:"),
            (bare, "`192.0.2.1` is no URL of an API server"),
        ] {
            let message = access.read().await.err().unwrap().to_string();
            assert!(message.starts_with(said), "{message}");
        }
    }
}
