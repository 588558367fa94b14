//! Each object has only fields that its kind has, with values of their types.

use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::core::v1::{ConfigMap, ServiceAccount};
use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::documents::{applied, items, object, words};

#[test]
fn objects_have_only_fields_of_their_kind() {
    for (file, objects) in applied() {
        for object in objects {
            let typed = match object["kind"].as_str().unwrap() {
                "DaemonSet" => typed::<DaemonSet>(&object),
                "ConfigMap" => typed::<ConfigMap>(&object),
                "ServiceAccount" => typed::<ServiceAccount>(&object),
                "ClusterRole" => typed::<ClusterRole>(&object),
                "ClusterRoleBinding" => typed::<ClusterRoleBinding>(&object),
                other => panic!("{file}: {other}: add its type here"),
            };
            let typed = typed.unwrap_or_else(|error| panic!("{file}: {error} in {object}"));
            assert_same(file, &object, &typed);
        }
    }
}

/// What is left of an object when everything is gone that its type does not know.
fn typed<T: DeserializeOwned + Serialize>(object: &Value) -> Result<Value, serde_json::Error> {
    serde_json::to_value(T::deserialize(object)?)
}

/// Names the field that makes the difference.
fn assert_same(path: &str, written: &Value, typed: &Value) {
    match (written, typed) {
        (Value::Object(written), Value::Object(typed)) => {
            for (field, value) in written {
                let known = typed.get(field).unwrap_or_else(|| panic!("{path}: unknown field {field}"));
                assert_same(&format!("{path}.{field}"), value, known);
            }
        }
        (Value::Array(written), Value::Array(typed)) => {
            assert_eq!(written.len(), typed.len(), "{path}");
            for (number, (written, typed)) in written.iter().zip(typed).enumerate() {
                assert_same(&format!("{path}[{number}]"), written, typed);
            }
        }
        _ => assert_eq!(written, typed, "{path}"),
    }
}

#[test]
fn selectors_and_references_lead_somewhere() {
    for (file, objects) in applied() {
        for daemonset in objects.iter().filter(|object| object["kind"] == "DaemonSet") {
            let template = &daemonset["spec"]["template"];
            let selector = daemonset["spec"]["selector"]["matchLabels"].as_object().unwrap();
            assert!(!selector.is_empty(), "{file}");
            for (label, value) in selector {
                assert_eq!(template["metadata"]["labels"][label], *value, "{file}: {label}");
            }
            if let Some(account) = template["spec"]["serviceAccountName"].as_str() {
                object(&objects, "ServiceAccount", account);
            }
            assert_volumes(file, &objects, &template["spec"]);
        }
        for binding in objects.iter().filter(|object| object["kind"] == "ClusterRoleBinding") {
            object(&objects, "ClusterRole", binding["roleRef"]["name"].as_str().unwrap());
            let subject = &binding["subjects"][0];
            let account = object(&objects, "ServiceAccount", subject["name"].as_str().unwrap());
            assert_eq!(account["metadata"]["namespace"], subject["namespace"], "{file}");
        }
    }
}

/// Every mount has its volume, every volume its ConfigMap: one of these objects, or the one of kubeadm.
fn assert_volumes(file: &str, objects: &[Value], pod: &Value) {
    let volumes = items(&pod["volumes"]);
    for container in items(&pod["initContainers"]).iter().chain(items(&pod["containers"])) {
        for mount in items(&container["volumeMounts"]) {
            assert!(volumes.iter().any(|volume| volume["name"] == mount["name"]), "{file}: {mount}");
        }
    }
    for volume in volumes {
        match volume["configMap"]["name"].as_str() {
            Some("kube-proxy") => assert_eq!(file, "overlays/kubeadm"),
            Some(name) => _ = object(objects, "ConfigMap", name),
            None => assert!(volume["hostPath"].is_object(), "{file}: {volume}"),
        }
    }
}

/// The role reads; the exact list of resources is compared with what the client calls in tests/api.
#[test]
fn the_role_has_no_verb_to_change_what_it_watches() {
    let objects = crate::documents::documents(&crate::documents::file("deploy/daemonset.yaml"));
    for rule in items(&object(&objects, "ClusterRole", "shunt")["rules"]) {
        let (resources, verbs) = (words(&rule["resources"]), words(&rule["verbs"]));
        assert!(!resources.contains(&"*") && !words(&rule["apiGroups"]).contains(&"*"), "{rule}");
        let allowed: &[&str] =
            if resources == ["events"] { &["create", "patch", "update"] } else { &["get", "list", "watch"] };
        assert!(verbs.iter().all(|verb| allowed.contains(verb)), "{rule}");
    }
}
