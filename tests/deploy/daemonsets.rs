//! The DaemonSets do what kubelet, runtime and shunt make of them: flags, configuration, probes, rights.

use std::path::Path;

use clap::Parser as _;
use serde_json::{Value, json};
use shunt::cli::{Command, Options};
use shunt::config::{self, Config};

use crate::documents::{applied, items, object, words};

/// The containers that run shunt, with the file they are from and their pod.
fn containers_of_shunt() -> Vec<(&'static str, Value, Value)> {
    let mut found = Vec::new();
    for (file, objects) in applied() {
        for daemonset in objects.iter().filter(|object| object["kind"] == "DaemonSet") {
            let pod = &daemonset["spec"]["template"]["spec"];
            for container in items(&pod["initContainers"]).iter().chain(items(&pod["containers"])) {
                if container["image"].as_str().unwrap().contains("/shunt:") {
                    found.push((file, pod.clone(), container.clone()));
                }
            }
        }
    }
    assert!(found.len() >= 7, "{} containers of shunt", found.len());
    found
}

/// The command line as the kubelet hands it over, `$(NODE_NAME)` put in.
fn command_line(container: &Value) -> Vec<String> {
    let words = words(&container["command"]).into_iter().chain(words(&container["args"]));
    words.map(|word| word.replace("$(NODE_NAME)", "node-1")).collect()
}

#[test]
fn command_lines_are_understood() {
    for (file, _, container) in containers_of_shunt() {
        let line = command_line(&container);
        let options =
            Options::try_parse_from(&line).unwrap_or_else(|error| panic!("{file}: {line:?}: {error}"));
        let name = container["name"].as_str().unwrap();
        match options.command {
            Command::Run(_) => {
                assert_eq!(line.contains(&"--init-only".to_owned()), name == "sysctls", "{file}")
            }
            _ => assert_eq!(name, "cleanup", "{file}"),
        }
        let uses_the_node_name = container.to_string().contains("$(NODE_NAME)");
        let fields = items(&container["env"]).iter().filter(|entry| entry["name"] == "NODE_NAME");
        let sources: Vec<_> = fields.map(|entry| &entry["valueFrom"]["fieldRef"]["fieldPath"]).collect();
        assert_eq!(sources, vec![&json!("spec.nodeName"); usize::from(uses_the_node_name)], "{file}: {name}");
    }
}

/// The configuration in force, read from the file that --config names, where these manifests hold it.
fn configuration(file: &str, pod: &Value, container: &Value, objects: &[Value]) -> Option<Config> {
    let line = command_line(container);
    let path = line.iter().find_map(|word| word.strip_prefix("--config="))?;
    let (directory, key) = path.rsplit_once('/').unwrap();
    let mount = items(&container["volumeMounts"]).iter().find(|mount| mount["mountPath"] == directory);
    let mount = mount.unwrap_or_else(|| panic!("{file}: nothing is mounted at {directory}"));
    let volume = items(&pod["volumes"]).iter().find(|volume| volume["name"] == mount["name"]).unwrap();
    let map = volume["configMap"]["name"].as_str().unwrap();
    if map == "kube-proxy" {
        assert_eq!((directory, key), ("/var/lib/kube-proxy", "config.conf"), "where kubeadm has it");
        return Some(Config::default()); // which asks for the same ports, see tests/configuration
    }
    let data = &object(objects, "ConfigMap", map)["data"];
    let text = data[key].as_str().unwrap_or_else(|| panic!("{file}: ConfigMap {map} has no {key}"));
    let loaded = config::parse(text, Path::new(path)).unwrap_or_else(|error| panic!("{file}: {error}"));
    assert_eq!(loaded.warnings, [], "{file}");
    Some(loaded.config)
}

#[test]
fn configurations_load_without_a_warning_and_probes_ask_where_shunt_listens() {
    let all = applied();
    for (file, pod, container) in containers_of_shunt() {
        let objects = &all.iter().find(|(name, _)| *name == file).unwrap().1;
        let Some(config) = configuration(file, &pod, &container, objects) else {
            continue; // the clean-up
        };
        if container["name"] == "sysctls" {
            continue;
        }
        let port = config.healthz_address.unwrap().port();
        for (probe, path) in
            [("livenessProbe", "/livez"), ("readinessProbe", "/healthz"), ("startupProbe", "/livez")]
        {
            let asked = &container[probe]["httpGet"];
            assert_eq!(*asked, json!({ "path": path, "port": port }), "{file}: {probe}");
        }
    }
}

/// Where ClusterIPs are not there yet, the pod needs another way to the API server than the one it is given.
#[test]
fn the_api_server_is_not_reached_through_a_cluster_ip() {
    for (file, _, container) in containers_of_shunt() {
        if container["name"] != "shunt" {
            continue;
        }
        let names: Vec<_> =
            items(&container["env"]).iter().map(|entry| entry["name"].as_str().unwrap()).collect();
        let from_variables =
            names.contains(&"KUBERNETES_SERVICE_HOST") && names.contains(&"KUBERNETES_SERVICE_PORT");
        // kubeconfig.conf beside config.conf names the server
        let from_kubeconfig = file == "overlays/kubeadm";
        assert_ne!(from_variables, from_kubeconfig, "{file}: {names:?}");
    }
}

#[test]
fn the_image_is_this_version_everywhere() {
    for (file, _, container) in containers_of_shunt() {
        let image = container["image"].as_str().unwrap();
        assert!(image.ends_with(concat!(":", env!("CARGO_PKG_VERSION"))), "{file}: {image}");
    }
}

/// Everything that Pod Security's `restricted` asks for, but for the host's network and NET_ADMIN.
#[test]
fn only_the_sysctls_and_kube_proxys_own_clean_up_are_privileged() {
    for (file, objects) in applied() {
        for daemonset in objects.iter().filter(|object| object["kind"] == "DaemonSet") {
            let pod = &daemonset["spec"]["template"]["spec"];
            assert_eq!(pod["hostNetwork"], true, "{file}");
            for namespace in ["hostPID", "hostIPC"] {
                assert!(pod[namespace].is_null(), "{file}: {namespace}");
            }
            assert_eq!(pod["priorityClassName"], "system-node-critical", "{file}");
            assert_eq!(pod["tolerations"], json!([{ "operator": "Exists" }]), "{file}");
            for container in items(&pod["initContainers"]).iter().chain(items(&pod["containers"])) {
                let image = container["image"].as_str().unwrap();
                if container["name"] == "sysctls" || image.contains("/kube-proxy:") {
                    assert_eq!(container["securityContext"]["privileged"], true, "{file}");
                } else {
                    assert_restricted(file, pod, container);
                }
            }
        }
    }
}

fn assert_restricted(file: &str, pod: &Value, container: &Value) {
    let context = &container["securityContext"];
    let name = format!("{file}: {}", container["name"]);
    let either = |field: &str| {
        let own = &context[field];
        if own.is_null() { &pod["securityContext"][field] } else { own }
    };
    assert_eq!(either("seccompProfile")["type"], "RuntimeDefault", "{name}");
    assert_eq!(*either("runAsNonRoot"), true, "{name}");
    assert!(either("runAsUser").as_u64().is_some_and(|user| user > 0), "{name}");
    assert_eq!(context["allowPrivilegeEscalation"], false, "{name}");
    assert_eq!(context["readOnlyRootFilesystem"], true, "{name}");
    assert!(context["privileged"].is_null(), "{name}");
    assert_eq!(words(&context["capabilities"]["drop"]), ["ALL"], "{name}");
    let needed: &[&str] = if container["name"] == "done" { &[] } else { &["NET_ADMIN"] };
    assert_eq!(words(&context["capabilities"]["add"]), needed, "{name}");
}
