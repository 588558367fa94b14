//! Pods in the folder stand in for the endpoint controller.

use super::*;

/// As `kubectl get services,pods -o yaml` prints it, shortened.
const PRINTED: &str = "apiVersion: v1
items:
- apiVersion: v1
  kind: Service
  metadata: {name: web, namespace: shop, annotations: {a: b}}
  spec:
    clusterIP: 10.0.0.1
    clusterIPs: [10.0.0.1]
    ports:
    - {name: http, port: 80, protocol: TCP, targetPort: web}
    selector: {app: web}
    type: ClusterIP
  status: {loadBalancer: {}}
- apiVersion: v1
  kind: Pod
  metadata: {name: web-1, namespace: shop, labels: {app: web, pod-template-hash: abc}}
  spec:
    containers:
    - name: web
      ports:
      - {containerPort: 8080, name: web, protocol: TCP}
    nodeName: here
  status:
    conditions:
    - {type: Ready, status: \"True\"}
    phase: Running
    podIP: 10.1.0.1
    podIPs:
    - ip: 10.1.0.1
- apiVersion: v1
  kind: Pod
  metadata: {name: job, namespace: shop, labels: {app: web}}
  spec: {containers: [{ports: [{containerPort: 8080, name: web}]}]}
  status: {phase: Succeeded, podIP: 10.1.0.9}
kind: List
metadata: {resourceVersion: ''}
";

fn pod(name: &str, ip: &str) -> String {
    format!(
        "kind: Pod\nmetadata: {{name: {name}, namespace: shop, labels: {{app: web}}}}\nspec:\n  containers:\n  \
         - ports: [{{name: web, containerPort: 8080}}]\nstatus:\n  podIP: {ip}\n  conditions: [{{type: Ready, status: 'True'}}]\n"
    )
}

const SLICE: &str = "kind: EndpointSlice\nmetadata: {name: web-1, namespace: shop, labels: {kubernetes.io/service-name: web}}\n\
    addressType: IPv4\nendpoints: [{addresses: [10.2.0.1]}]\nports: [{name: http, port: 80}]\n";

const ENDPOINTS: &str = "kind: Endpoints\nmetadata: {name: web, namespace: shop}\n\
    subsets: [{addresses: [{ip: 10.3.0.1}], ports: [{name: http, port: 80}]}]\n";

#[test]
fn what_kubectl_prints_will_do() {
    let temp = Temp::new();
    temp.write("all.yaml", PRINTED);
    let (run, lines) = Run::start(&temp);
    assert_eq!(lines, ["+shop/web 10.0.0.1", "+endpoints shop/web 10.1.0.1:8080"]);
    temp.write("b.yaml", &pod("web-2", "10.1.0.2"));
    assert_eq!(run.next(), ["+endpoints shop/web 10.1.0.1:8080,10.1.0.2:8080"]);
    temp.replace("b.yaml", &pod("web-2", "10.1.0.3"));
    assert_eq!(run.next(), ["+endpoints shop/web 10.1.0.1:8080,10.1.0.3:8080"]);
    // a second file with the same Pod takes over when the first one goes
    temp.write("c.yaml", &pod("web-2", "10.1.0.4"));
    temp.remove("b.yaml");
    run.until(vec!["+endpoints shop/web 10.1.0.1:8080,10.1.0.4:8080".into()]);
    temp.remove("c.yaml");
    assert_eq!(run.next(), ["+endpoints shop/web 10.1.0.1:8080"]);
    temp.replace("all.yaml", &PRINTED.replace("phase: Running", "phase: Failed"));
    assert_eq!(run.next(), ["-endpoints shop/web"]);
    temp.replace("all.yaml", &PRINTED.replace("targetPort: web", "targetPort: 9000"));
    assert_eq!(run.next(), ["+shop/web 10.0.0.1", "+endpoints shop/web 10.1.0.1:9000"]);
    temp.remove("all.yaml");
    run.until(vec!["-shop/web".into(), "-endpoints shop/web".into()]);
}

/// The store, fed by a folder, as the engine reads it.
#[test]
fn slices_and_endpoints_take_over() {
    let temp = Temp::new();
    temp.write("all.yaml", PRINTED);
    let manifests = open(&temp.dir(), &Metrics::default()).unwrap();
    let (mut store, mut touched) = (Store::default(), Touched::default());
    let (sender, updates) = channel();
    manifests.follow(Box::new(move |batch| sender.send(batch).is_ok())).unwrap();
    for update in updates.recv_timeout(Duration::from_secs(20)).expect("the lists") {
        store.apply(update, &mut touched);
    }
    let service = ObjectName::new("shop", "web");
    let serving = |store: &Store| {
        let slices = store.slices(&service);
        let ips =
            slices.flat_map(|slice| slice.endpoints.iter().map(|endpoint| endpoint.address.to_string()));
        ips.collect::<Vec<_>>()
    };
    assert_eq!(serving(&store), ["10.1.0.1"]);
    let steps: [(&str, &str, &str); 8] = [
        ("slice.yaml", SLICE, "10.2.0.1"),
        ("endpoints.yaml", ENDPOINTS, "10.2.0.1"),
        ("slice.yaml", "", "10.3.0.1"),
        ("endpoints.yaml", "", "10.1.0.1"),
        ("endpoints.yaml", ENDPOINTS, "10.3.0.1"),
        ("slice.yaml", SLICE, "10.2.0.1"),
        ("endpoints.yaml", "", "10.2.0.1"),
        ("slice.yaml", "", "10.1.0.1"),
    ];
    for (file, text, ip) in steps {
        temp.replace(file, text);
        let batch = updates.recv_timeout(Duration::from_secs(20)).expect("a batch");
        for update in batch {
            store.apply(update, &mut touched);
        }
        assert_eq!(serving(&store), [ip], "{file} {text}");
    }
}

/// Items that have no kind of their own, since their list has one.
#[test]
fn a_list_of_pods() {
    let temp = Temp::new();
    temp.write(
        "s.yaml",
        PRINTED
            .split("- apiVersion: v1\n  kind: Pod")
            .next()
            .unwrap()
            .replace("items:", "kind: List\nitems:")
            .as_str(),
    );
    let item = r#"{"metadata":{"name":"NAME","namespace":"shop","labels":{"app":"web"}},"spec":{"containers":[{"ports":[{"name":"web","containerPort":1}]}]},"status":{"podIP":"ADDRESS"}}"#;
    let item = |name: &str, ip: &str| item.replace("NAME", name).replace("ADDRESS", ip);
    temp.write(
        "a.json",
        &format!(r#"{{"apiVersion":"v1","kind":"PodList","items":[{}]}}"#, item("a", "10.1.0.1")),
    );
    temp.write(
        "b.json",
        &format!(r#"{{"apiVersion":"v1","items":[{}],"kind":"PodList"}}"#, item("b", "10.1.0.2")),
    );
    let (run, lines) = Run::start(&temp);
    assert_eq!(lines, ["+shop/web 10.0.0.1", "+endpoints shop/web 10.1.0.1:1,10.1.0.2:1"]);
    assert_eq!(run.errors(), 0);
}
