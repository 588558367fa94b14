//! Where the manifests are, and what is in them.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

/// A file of the checkout.
pub fn file(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

pub fn text(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Every document of a YAML file.
pub fn documents(path: &Path) -> Vec<Value> {
    serde_saphyr::from_multiple(&text(path)).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// What can be applied as it is: the file for `kubectl apply -f`, what each overlay makes of it, and the clean-up.
pub fn applied() -> Vec<(&'static str, Vec<Value>)> {
    let plain = |path| (path, documents(&file(path)));
    let built = |path| (path, crate::kustomize::build(&file(path)));
    vec![
        plain("deploy/daemonset.yaml"),
        plain("deploy/cleanup-shunt.yaml"),
        plain("deploy/cleanup-kube-proxy.yaml"),
        built("overlays/kubeadm"),
        built("overlays/kind"),
    ]
}

/// The one object of a kind and name.
pub fn object<'a>(objects: &'a [Value], kind: &str, name: &str) -> &'a Value {
    let mut found =
        objects.iter().filter(|object| object["kind"] == kind && object["metadata"]["name"] == name);
    let first = found.next().unwrap_or_else(|| panic!("no {kind} {name}"));
    assert!(found.next().is_none(), "two {kind} {name}");
    first
}

/// The items of a list; none where there is no list.
pub fn items(list: &Value) -> &[Value] {
    list.as_array().map_or(&[], Vec::as_slice)
}

/// The texts of a list.
pub fn words(list: &Value) -> Vec<&str> {
    items(list).iter().map(|word| word.as_str().unwrap()).collect()
}
