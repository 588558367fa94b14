//! The DaemonSets do what kubelet, runtime and shunt make of them: flags, configuration, probes, rights.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use serde_json::{Value, json};

use crate::documents::{applied, file, items, object, text, words};

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

fn shunt(words: &[String]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_shunt")).args(words).env_remove("NODE_NAME").output().unwrap()
}

#[test]
fn node_names_come_from_the_scheduler() {
    for (file, _, container) in containers_of_shunt() {
        let uses_the_node_name = container.to_string().contains("$(NODE_NAME)");
        let fields = items(&container["env"]).iter().filter(|entry| entry["name"] == "NODE_NAME");
        let sources: Vec<_> = fields.map(|entry| &entry["valueFrom"]["fieldRef"]["fieldPath"]).collect();
        assert_eq!(sources, vec![&json!("spec.nodeName"); usize::from(uses_the_node_name)], "{file}");
    }
}

#[test]
fn the_clean_up_is_a_command_of_shunt() {
    for (file, _, container) in containers_of_shunt() {
        let mut line = command_line(&container);
        if line[1] == "run" {
            continue;
        }
        assert_eq!(line.remove(0), "/usr/local/bin/shunt", "{file}");
        line.push("--help".to_owned());
        let output = shunt(&line);
        assert!(output.status.success(), "{file}: {}", String::from_utf8_lossy(&output.stderr));
    }
}

/// The text of the configuration file that `--config` names, from the ConfigMap that is mounted there.
fn configuration(manifest: &str, pod: &Value, container: &Value, path: &str) -> String {
    let (directory, key) = path.rsplit_once('/').unwrap();
    let mount = items(&container["volumeMounts"]).iter().find(|mount| mount["mountPath"] == directory);
    let mount = mount.unwrap_or_else(|| panic!("{manifest}: nothing is mounted at {directory}"));
    let volume = items(&pod["volumes"]).iter().find(|volume| volume["name"] == mount["name"]).unwrap();
    let map = volume["configMap"]["name"].as_str().unwrap();
    if map == "kube-proxy" {
        assert_eq!((directory, key), ("/var/lib/kube-proxy", "config.conf"), "where kubeadm has it");
        return text(&file("src/config/tests/kubeadm.yaml"));
    }
    let all = applied();
    let objects = &all.iter().find(|(name, _)| *name == manifest).unwrap().1;
    let data = &object(objects, "ConfigMap", map)["data"];
    data[key].as_str().unwrap_or_else(|| panic!("{manifest}: ConfigMap {map} has no {key}")).to_owned()
}

/// `shunt config` takes the flags of `shunt run` and says what comes of them.
#[test]
fn flags_and_configuration_are_understood_and_probes_ask_where_shunt_listens() {
    let mut checked = 0;
    for (file, pod, container) in containers_of_shunt() {
        let mut line = command_line(&container);
        if line[1] != "run" {
            continue;
        }
        let name = container["name"].as_str().unwrap();
        "config".clone_into(&mut line[1]);
        assert_eq!(line.contains(&"--init-only".to_owned()), name == "sysctls", "{file}: {name}");
        let place = line.iter().position(|word| word.starts_with("--config=")).unwrap();
        let path = line[place].strip_prefix("--config=").unwrap();
        let copy = format!("{}-{name}.yaml", file.replace('/', "-"));
        let copy = Path::new(env!("CARGO_TARGET_TMPDIR")).join(copy);
        fs::write(&copy, configuration(file, &pod, &container, path)).unwrap();
        line[place] = format!("--config={}", copy.display());

        let output = shunt(&line[1..]);
        let warnings = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.success(), "{file}: {line:?}: {warnings}");
        assert_eq!(warnings, "", "{file}");
        let effective: Value = serde_saphyr::from_str(&String::from_utf8(output.stdout).unwrap()).unwrap();
        assert_eq!(effective["hostnameOverride"], "node-1", "{file}");
        if name == "shunt" {
            let (_, port) = effective["healthzBindAddress"].as_str().unwrap().rsplit_once(':').unwrap();
            assert_probes(file, &container, port.parse().unwrap());
            checked += 1;
        }
    }
    assert_eq!(checked, 3);
}

fn assert_probes(file: &str, container: &Value, port: u16) {
    for (probe, path) in
        [("livenessProbe", "/livez"), ("readinessProbe", "/healthz"), ("startupProbe", "/livez")]
    {
        let asked = &container[probe]["httpGet"];
        assert_eq!(*asked, json!({ "path": path, "port": port }), "{file}: {probe}");
    }
}

/// The unit's command lines, as systemd would run them.
#[test]
fn the_unit_starts_commands_of_shunt() {
    let unit = text(&file("deploy/shunt.service"));
    let lines =
        unit.lines().filter_map(|line| line.strip_prefix("ExecStart").and_then(|line| line.split_once('=')));
    let mut started = 0;
    for (_, line) in lines {
        let mut words: Vec<_> = line.split(' ').map(str::to_owned).collect();
        assert_eq!(words.remove(0).trim_start_matches('+'), "/usr/local/bin/shunt");
        assert_eq!(words[0], "run");
        "config".clone_into(&mut words[0]);
        for word in &mut words {
            *word =
                word.replace("/etc/shunt/config.yaml", &file("examples/config.yaml").display().to_string());
        }
        let output = shunt(&words);
        assert!(output.status.success(), "{line}: {}", String::from_utf8_lossy(&output.stderr));
        started += 1;
    }
    assert_eq!(started, 2);
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
