//! As much of kustomize as the overlays use: directories and files as resources, images, strategic merge patches.
//! What it does not know it refuses. `kubectl kustomize overlays/NAME` prints the same, when asked.

use std::path::Path;

use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::documents::{documents, file, text};

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Kustomization {
    api_version: String,
    kind: String,
    resources: Vec<String>,
    #[serde(default)]
    images: Vec<Image>,
    #[serde(default)]
    patches: Vec<Patch>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Image {
    name: String,
    new_name: String,
    new_tag: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Patch {
    path: String,
}

/// The objects that the kustomization in a directory stands for.
pub fn build(directory: &Path) -> Vec<Value> {
    let kustomization: Kustomization =
        serde_saphyr::from_str(&text(&directory.join("kustomization.yaml"))).unwrap();
    assert_eq!(kustomization.kind, "Kustomization");
    assert_eq!(kustomization.api_version, "kustomize.config.k8s.io/v1beta1");
    let mut objects = Vec::new();
    for resource in &kustomization.resources {
        let path = directory.join(resource);
        objects.extend(if path.is_dir() { build(&path) } else { documents(&path) });
    }
    for patch in &kustomization.patches {
        for patch in documents(&directory.join(&patch.path)) {
            apply(&mut objects, &patch);
        }
    }
    for object in &mut objects {
        for list in ["initContainers", "containers"] {
            let containers = object.pointer_mut(&format!("/spec/template/spec/{list}"));
            for container in containers.and_then(Value::as_array_mut).into_iter().flatten() {
                rename(&mut container["image"], &kustomization.images);
            }
        }
    }
    objects
}

/// Patches the one object of the same kind and name.
fn apply(objects: &mut Vec<Value>, patch: &Value) {
    let id = |object: &Value| {
        let metadata = &object["metadata"];
        [&object["apiVersion"], &object["kind"], &metadata["namespace"], &metadata["name"]].map(Clone::clone)
    };
    let at = objects.iter().position(|object| id(object) == id(patch));
    let at = at.unwrap_or_else(|| panic!("a patch of {:?}, which is not there", id(patch)));
    if patch["$patch"] == "delete" {
        objects.remove(at);
    } else {
        merge(&mut objects[at], patch, "");
    }
}

fn rename(image: &mut Value, images: &[Image]) {
    let name = image.as_str().unwrap().rsplit_once(':').unwrap().0;
    if let Some(found) = images.iter().find(|image| image.name == name) {
        *image = json!(format!("{}:{}", found.new_name, found.new_tag));
    }
}

/// A strategic merge: maps key by key, lists of things with a name thing by thing, everything else as a whole.
fn merge(into: &mut Value, patch: &Value, field: &str) {
    match (into, patch) {
        (Value::Object(into), Value::Object(patch)) => merge_maps(into, patch),
        (Value::Array(into), Value::Array(patch)) if merge_key(field).is_some() => {
            let key = merge_key(field).unwrap();
            for item in patch {
                let at = into.iter().position(|old| old[key] == item[key]);
                match (at, item["$patch"] == "delete") {
                    (Some(at), true) => _ = into.remove(at),
                    (Some(at), false) => merge(&mut into[at], item, ""),
                    (None, true) => panic!("nothing to delete: {item}"),
                    // The order of the items, which is another one in kustomize, means nothing here.
                    (None, false) => into.insert(0, item.clone()),
                }
            }
        }
        (into, patch) => *into = patch.clone(),
    }
}

fn merge_maps(into: &mut Map<String, Value>, patch: &Map<String, Value>) {
    for (field, value) in patch {
        match into.get_mut(field) {
            Some(old) => merge(old, value, field),
            None => _ = into.insert(field.clone(), value.clone()),
        }
    }
}

/// By which field the items of a list are told apart (`x-kubernetes-patch-merge-key`).
fn merge_key(list: &str) -> Option<&'static str> {
    match list {
        "containers" | "initContainers" | "volumes" | "env" => Some("name"),
        "volumeMounts" => Some("mountPath"),
        _ => None,
    }
}

#[test]
fn overlays_change_what_they_say() {
    let objects = build(&file("overlays/kubeadm"));
    assert!(objects.iter().all(|object| object["kind"] != "ConfigMap"), "kube-proxy's is used");
    for (overlay, image) in
        [("overlays/kubeadm", "registry.example/shunt:"), ("overlays/kind", "localhost/shunt:")]
    {
        let objects = build(&file(overlay));
        let daemonset = crate::documents::object(&objects, "DaemonSet", "shunt");
        for container in ["/initContainers/0", "/containers/0"] {
            let container = daemonset.pointer(&format!("/spec/template/spec{container}")).unwrap();
            assert!(container["image"].as_str().unwrap().starts_with(image), "{overlay}: {container}");
        }
    }
}

#[test]
fn kinds_cluster_fits_its_overlay() {
    let cluster = &documents(&file("deploy/kind.yaml"))[0];
    assert_eq!(cluster["networking"]["kubeProxyMode"], "none");
    let objects = build(&file("overlays/kind"));
    let daemonset = crate::documents::object(&objects, "DaemonSet", "shunt");
    let env = &daemonset["spec"]["template"]["spec"]["containers"][0]["env"];
    let server =
        env.as_array().unwrap().iter().find(|entry| entry["name"] == "KUBERNETES_SERVICE_HOST").unwrap();
    let control_plane = format!("{}-control-plane", cluster["name"].as_str().unwrap());
    assert_eq!(server["value"], control_plane.as_str());
}

/// The patch for kube-proxy's own DaemonSet and the overlay for shunt's have to exclude each other on every node.
#[test]
fn no_node_has_both_proxies() {
    let objects = build(&file("overlays/kubeadm"));
    let shunt =
        &crate::documents::object(&objects, "DaemonSet", "shunt")["spec"]["template"]["spec"]["nodeSelector"];
    let cleanup =
        &documents(&file("deploy/cleanup-kube-proxy.yaml"))[0]["spec"]["template"]["spec"]["nodeSelector"];
    let patch = &documents(&file("overlays/kubeadm/kube-proxy.yaml"))[0];
    let terms = patch
        .pointer("/spec/template/spec/affinity/nodeAffinity/requiredDuringSchedulingIgnoredDuringExecution/nodeSelectorTerms")
        .unwrap();
    assert_eq!(
        *terms,
        json!([{ "matchExpressions": [
        { "key": "shunt.dev/proxy", "operator": "NotIn", "values": ["shunt"] },
    ] }])
    );
    for selector in [shunt, cleanup] {
        assert_eq!(selector["shunt.dev/proxy"], "shunt");
    }
}
