//! Credentials that change while they are in use.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::{Value, json};
use shunt::model::Kind;
use shunt::source::watch::Access;

use crate::apiserver::tls::{Authority, Front, Identity};
use crate::apiserver::{Resource, Server};
use crate::follower::{Follower, context, eventually, quick, service};

static NUMBER: AtomicUsize = AtomicUsize::new(0);

/// A directory of its own, removed in the end.
struct Directory(PathBuf);

impl Directory {
    fn new() -> Self {
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("shunt-access-{}-{number}", std::process::id()));
        fs::create_dir(&path).unwrap();
        Self(path)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// Files as a kubelet projects them: links through `..data`, which is swapped as a whole.
    fn project(&self, files: &[(&str, &str)]) {
        let version = format!("..{}", NUMBER.fetch_add(1, Ordering::Relaxed));
        fs::create_dir(self.path(&version)).unwrap();
        for (name, content) in files {
            fs::write(self.path(&version).join(name), content).unwrap();
            if !self.path(name).exists() {
                std::os::unix::fs::symlink(Path::new("..data").join(name), self.path(name)).unwrap();
            }
        }
        std::os::unix::fs::symlink(&version, self.path("..data_tmp")).unwrap();
        fs::rename(self.path("..data_tmp"), self.path("..data")).unwrap();
    }

    /// Writes a kubeconfig for this server and user.
    fn kubeconfig(&self, cluster: &Value, user: &Value) -> Access {
        let config = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "test",
            "clusters": [{"name": "test", "cluster": cluster}],
            "users": [{"name": "test", "user": user}],
            "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test"}}]
        });
        fs::write(self.path("kubeconfig"), config.to_string()).unwrap();
        Access { kubeconfig: Some(self.path("kubeconfig")), ..Access::default() }
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn start(access: Access) -> Follower {
    Follower::over(access, context(), quick(), usize::MAX)
}

/// A change is not seen until `renew` has been called, and is seen then, without another list.
fn refused_until(server: &Server, follower: &Follower, renew: impl FnOnce()) {
    let errors = follower.errors(Kind::Service);
    server.put(Resource::Services, service("late", "10.96.0.2"));
    eventually("the old credentials are refused", || follower.errors(Kind::Service) > errors + 5);
    follower.look(|inbox| assert!(inbox.holds(Kind::Service, &[service("early", "10.96.0.1")])));
    renew();
    follower.until_services(&[service("early", "10.96.0.1"), service("late", "10.96.0.2")]);
    follower.look(|inbox| assert_eq!(inbox.resets(Kind::Service).len(), 1, "nothing is listed again"));
    assert!(follower.metrics.client_rebuilds.get() > 0);
}

fn server_with_one() -> Server {
    let server = Server::start();
    server.put(Resource::Services, service("early", "10.96.0.1"));
    server
}

#[test]
fn a_rotated_token_of_a_kubeconfig_is_picked_up() {
    let (directory, server) = (Directory::new(), server_with_one());
    directory.project(&[("token", "one")]);
    server.accept_tokens(&["one"]);
    let user = json!({ "tokenFile": directory.path("token") });
    let follower = start(directory.kubeconfig(&json!({ "server": server.url() }), &user));
    follower.until_services(&[service("early", "10.96.0.1")]);
    server.accept_tokens(&["two"]);
    refused_until(&server, &follower, || directory.project(&[("token", "two\n")]));
}

#[test]
fn a_rotated_service_account_is_picked_up() {
    let (directory, server) = (Directory::new(), server_with_one());
    let (old, new) = (Authority::new(), Authority::new());
    let front = Front::start(server.address(), &old, false);
    directory.project(&[("token", "one"), ("ca.crt", &old.pem())]);
    server.accept_tokens(&["one"]);
    let service_env = (front.address().ip().to_string(), front.address().port().to_string());
    let account = directory.0.clone();
    let follower = start(Access { account, service: Some(service_env), ..Access::default() });
    follower.until_services(&[service("early", "10.96.0.1")]);
    server.accept_tokens(&["two"]);
    front.replace(&new);
    refused_until(&server, &follower, || directory.project(&[("token", "two"), ("ca.crt", &new.pem())]));
}

#[test]
fn rotated_client_certificates_are_picked_up() {
    let (directory, server) = (Directory::new(), server_with_one());
    let (old, new) = (Authority::new(), Authority::new());
    let front = Front::start(server.address(), &old, true);
    let project = |authority: &Authority| {
        let Identity { certificate, key } = authority.client();
        directory.project(&[("ca", &authority.pem()), ("certificate", &certificate), ("key", &key)]);
    };
    project(&old);
    let url = format!("https://{}", front.address());
    let cluster = json!({ "server": url, "certificate-authority": directory.path("ca") });
    let user =
        json!({ "client-certificate": directory.path("certificate"), "client-key": directory.path("key") });
    let follower = start(directory.kubeconfig(&cluster, &user));
    follower.until_services(&[service("early", "10.96.0.1")]);
    front.replace(&new);
    refused_until(&server, &follower, || project(&new));
}

#[test]
fn a_kubeconfig_that_is_broken_for_a_while_leaves_the_old_one_in_use() {
    let (directory, server) = (Directory::new(), server_with_one());
    let access = directory.kubeconfig(&json!({ "server": server.url() }), &json!({}));
    let whole = fs::read(directory.path("kubeconfig")).unwrap();
    let follower = start(access);
    follower.until_services(&[service("early", "10.96.0.1")]);
    for broken in [&whole[..whole.len() / 2], b""] {
        fs::write(directory.path("kubeconfig"), broken).unwrap();
        let lists = server.seen().len();
        server.cut();
        eventually("it asks again all the same", || server.seen().len() > lists);
    }
    fs::remove_file(directory.path("kubeconfig")).unwrap();
    server.cut();
    server.put(Resource::Services, service("late", "10.96.0.2"));
    follower.until_services(&[service("early", "10.96.0.1"), service("late", "10.96.0.2")]);
}

#[test]
fn a_server_that_has_moved_is_followed() {
    let (directory, server, other) = (Directory::new(), server_with_one(), server_with_one());
    let follower = start(directory.kubeconfig(&json!({ "server": server.url() }), &json!({})));
    follower.until_services(&[service("early", "10.96.0.1")]);
    directory.kubeconfig(&json!({ "server": other.url() }), &json!({}));
    other.put(Resource::Services, service("late", "10.96.0.2"));
    server.cut();
    follower.until_services(&[service("early", "10.96.0.1"), service("late", "10.96.0.2")]);
}
