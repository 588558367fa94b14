//! Tables: an object as YAML, what it comes to, and what is said about it.

use super::*;
use crate::model::{Family, NodeHint, Port, Protocol, Service, TrafficPolicy};
use crate::source::objects;

fn context() -> Context {
    Context::new(NodeName("here".into()), None)
}

fn read<T: serde::de::DeserializeOwned>(text: &str) -> T {
    serde_saphyr::from_str(text).expect("YAML")
}

/// A Service `shop/web` of this spec and status, and the problems without the object's name.
fn service(spec: &str, status: &str) -> (Option<Service>, Vec<String>) {
    let text = format!("metadata: {{name: web, namespace: shop}}\nspec: {spec}\nstatus: {status}\n");
    let converted = context().service(&read(&text));
    let problems = converted.problems.iter().map(|problem| format!("{}: {}", problem.field, problem.what));
    let problems = problems.collect();
    match converted.outcome.expect("it has a name") {
        Ok(Object::Service(name, service)) => {
            assert_eq!(name.as_str(), "shop/web");
            (Some(service), problems)
        }
        Ok(other) => panic!("{other:?}"),
        Err(key) => {
            assert_eq!(key, Key::Service(ObjectName::new("shop", "web")));
            (None, problems)
        }
    }
}

fn ours(spec: &str, status: &str) -> (Service, Vec<String>) {
    let (service, problems) = service(spec, status);
    (service.expect("ours"), problems)
}

fn texts<T: ToString>(list: &[T]) -> Vec<String> {
    list.iter().map(T::to_string).collect()
}

#[test]
fn services_that_are_not_ours() {
    for spec in [
        "{clusterIP: None}",
        "{clusterIPs: [None]}",
        "{clusterIP: ''}",
        "{}",
        "null",
        "{type: ExternalName, externalName: a.b}",
        "{type: ExternalName, clusterIP: 10.0.0.1}",
    ] {
        assert_eq!(service(spec, "{}"), (None, vec![]), "{spec}");
    }
}

#[test]
fn the_label_of_another_proxy() {
    let labelled = "metadata: {name: a, labels: {service.kubernetes.io/service-proxy-name: other}}\nspec: {clusterIP: 10.0.0.1}";
    let plain = "metadata: {name: a}\nspec: {clusterIP: 10.0.0.1}";
    let other = Context::new(NodeName("here".into()), Some("other".into()));
    let third = Context::new(NodeName("here".into()), Some("third".into()));
    let rows = [
        (context(), labelled, false),
        (context(), plain, true),
        (other.clone(), labelled, true),
        (other, plain, false),
        (third, labelled, false),
    ];
    for (context, text, ours) in rows {
        let outcome = context.service(&read(text)).outcome.expect("it has a name");
        assert_eq!(outcome.is_ok(), ours, "{:?} {text}", context.proxy_name());
    }
}

#[test]
fn defaults_of_a_service() {
    let (service, problems) = ours("{clusterIP: 172.30.0.041, ports: [{port: 80, nodePort: 30080}]}", "{}");
    assert_eq!(problems, Vec::<String>::new());
    assert_eq!(texts(&service.cluster_ips), ["172.30.0.41"]);
    let port = &service.ports[0];
    assert_eq!((&*port.name, port.protocol, port.port.number()), ("", Protocol::Tcp, 80));
    assert_eq!(port.node_port, None, "type ClusterIP has none");
    assert_eq!(service.internal_policy, TrafficPolicy::Cluster);
    assert_eq!(service.external_policy, TrafficPolicy::Cluster);
    assert_eq!((service.affinity_seconds, service.created), (None, 0));
}

#[test]
fn a_load_balancer() {
    let (service, problems) = ours(
        "{type: LoadBalancer, clusterIPs: [10.0.0.1, 'fd00::1'], externalTrafficPolicy: Local,
          internalTrafficPolicy: Local, healthCheckNodePort: 32000, sessionAffinity: ClientIP,
          sessionAffinityConfig: {clientIP: {timeoutSeconds: 60}},
          loadBalancerSourceRanges: [' 203.0.113.001/025', 'fd00::1/8'],
          ports: [{name: a, port: 53, protocol: UDP, nodePort: 30053}, {name: b, port: 53}]}",
        "{loadBalancer: {ingress: [{ip: 192.0.2.1}, {ip: 192.0.2.2, ipMode: VIP},
          {ip: 192.0.2.3, ipMode: Proxy}, {hostname: a.b}]}}",
    );
    assert_eq!(problems, Vec::<String>::new());
    assert_eq!(texts(&service.cluster_ips), ["10.0.0.1", "fd00::1"]);
    assert_eq!(texts(&service.load_balancer_ips), ["192.0.2.1", "192.0.2.2"]);
    assert_eq!(texts(&service.source_ranges), ["203.0.113.0/25", "fd00::/8"]);
    assert_eq!(service.health_check_node_port, Port::new(32000));
    assert_eq!(service.affinity_seconds, Some(60));
    assert_eq!(service.ports[0].node_port, Port::new(30053));
    assert_eq!(
        (service.internal_policy, service.external_policy),
        (TrafficPolicy::Local, TrafficPolicy::Local)
    );
}

#[test]
fn only_load_balancers_have_load_balancer_fields() {
    let (service, _) = ours(
        "{type: NodePort, clusterIP: 10.0.0.1, loadBalancerSourceRanges: [10.0.0.0/8],
          externalTrafficPolicy: Local, healthCheckNodePort: 32000, ports: [{port: 80, nodePort: 30080}]}",
        "{loadBalancer: {ingress: [{ip: 192.0.2.1}]}}",
    );
    assert!(service.load_balancer_ips.is_empty() && service.source_ranges.is_empty());
    assert_eq!(service.health_check_node_port, None);
    assert_eq!(service.ports[0].node_port, Port::new(30080));
}

#[test]
fn endpoints_are_told_who_called_where_the_mode_can_do_that() {
    let rows = [
        ("v2", true, true, None),
        ("v2", false, false, Some("needs --proxy-mode userspace")),
        ("v1", true, false, Some("must be v2")),
    ];
    for (value, possible, expected, problem) in rows {
        let annotations = format!("{{shunt.dev/proxy-protocol: {value}}}");
        let text =
            format!("metadata: {{name: a, annotations: {annotations}}}\nspec: {{clusterIP: 10.0.0.1}}");
        let converted = context().with_proxy_protocol(possible).service(&read(&text));
        let Some(Ok(Object::Service(_, service))) = converted.outcome else { panic!("no Service: {text}") };
        assert_eq!(service.proxy_protocol, expected, "{value} {possible}");
        let said = converted.problems.first().map(ToString::to_string).unwrap_or_default();
        let place = "Service default/a: metadata.annotations[shunt.dev/proxy-protocol]: ";
        assert_eq!(said.is_empty(), problem.is_none(), "{said}");
        assert!(problem.is_none_or(|problem| said.starts_with(&format!("{place}{problem}"))), "{said}");
    }
}

#[test]
fn what_is_wrong_with_a_service_is_said_and_left_out() {
    let rows = [
        ("clusterIPs: [10.0.0.1, 10.0.0.2]", "spec.clusterIPs[1]: is the second one of IPv4: left out"),
        ("clusterIPs: [10.0.0.1, x]", "spec.clusterIPs[1]: \"x\" is not an IP address: left out"),
        ("type: Foo", "spec.type: \"Foo\" is not a type of Service: taken as ClusterIP"),
        ("ports: [{name: a}]", "spec.ports[0].port: is missing: the port is left out"),
        ("ports: [{port: 0}]", "spec.ports[0].port: 0 is not a port (1 to 65535): left out"),
        ("ports: [{port: 65536}]", "spec.ports[0].port: 65536 is not a port (1 to 65535): left out"),
        ("ports: [{port: [1]}]", "spec.ports[0].port: is a list where a whole number belongs: left out"),
        ("ports: [7]", "spec.ports[0]: is a number where an object belongs: left out"),
        ("ports: 7", "spec.ports: is a number where a list belongs: left out"),
        (
            "ports: [{port: 1, protocol: tcp}]",
            "spec.ports[0].protocol: \"tcp\" is not TCP, UDP or SCTP: the port is left out",
        ),
        (
            "ports: [{port: 1}, {port: 1, name: a}]",
            "spec.ports[1]: has the number or the name of an earlier one: left out",
        ),
        (
            "externalIPs: [192.0.2.1, 192.0.2.1]",
            "spec.externalIPs[1]: 192.0.2.1 is there twice: the first counts",
        ),
        ("externalIPs: [127.0.0.1]", "spec.externalIPs[0]: 127.0.0.1 is a loopback address: left out"),
        ("sessionAffinity: Foo", "spec.sessionAffinity: \"Foo\" is not None or ClientIP: taken as None"),
        (
            "internalTrafficPolicy: Foo",
            "spec.internalTrafficPolicy: \"Foo\" is not Cluster or Local: taken as Cluster",
        ),
        (
            "sessionAffinity: ClientIP, sessionAffinityConfig: {clientIP: {timeoutSeconds: 86401}}",
            "spec.sessionAffinityConfig.clientIP.timeoutSeconds: 86401 is not 1 to 86400: 10800 is used",
        ),
        (
            "type: NodePort, ports: [{name: a, port: 1, nodePort: 30000}, {name: b, port: 2, nodePort: 30000}]",
            "spec.ports[1].nodePort: is that of an earlier port: left out",
        ),
        (
            "type: NodePort, ports: [{port: 1, nodePort: 99999}]",
            "spec.ports[0].nodePort: 99999 is not a port (1 to 65535): left out",
        ),
    ];
    for (fields, problem) in rows {
        let (service, problems) = ours(&format!("{{clusterIP: 10.0.0.1, {fields}}}"), "{}");
        assert_eq!(problems, [problem], "{fields}");
        assert_eq!(texts(&service.cluster_ips), ["10.0.0.1"], "{fields}");
        assert!(service.ports.len() <= 2 && service.external_ips.len() <= 1, "{fields}");
    }
}

#[test]
fn a_range_that_cannot_be_read_opens_no_door() {
    let status = "{loadBalancer: {ingress: [{ip: 192.0.2.1}, {ip: 'fd00::1'}]}}";
    let rows: [(&str, &[&str], usize); 4] = [
        ("[x]", &[], 2),
        ("[x, 10.0.0.0/8]", &["192.0.2.1"], 2),
        ("[10.0.0.0/8]", &["192.0.2.1", "fd00::1"], 0),
        ("[x, 10.0.0.0/8, 'fd00::/8']", &["192.0.2.1", "fd00::1"], 1),
    ];
    for (ranges, ips, count) in rows {
        let spec = format!("{{type: LoadBalancer, clusterIP: 10.0.0.1, loadBalancerSourceRanges: {ranges}}}");
        let (service, problems) = ours(&spec, status);
        assert_eq!(texts(&service.load_balancer_ips), ips, "{ranges}");
        assert_eq!(problems.len(), count, "{problems:?}");
    }
}

/// A slice `shop/web-1` of Service `web` with these fields.
fn slice(fields: &str) -> (Option<crate::model::EndpointSlice>, Vec<String>) {
    let meta = "{name: web-1, namespace: shop, labels: {kubernetes.io/service-name: web}}";
    let converted = context().endpoint_slice(&read(&format!("{{metadata: {meta}, {fields}}}")));
    let problems = converted.problems.iter().map(|problem| format!("{}: {}", problem.field, problem.what));
    let problems = problems.collect();
    match converted.outcome.expect("it has a name") {
        Ok(Object::EndpointSlice(_, service, slice)) => {
            assert_eq!(service.as_str(), "shop/web");
            (Some(slice), problems)
        }
        Ok(other) => panic!("{other:?}"),
        Err(_) => (None, problems),
    }
}

#[test]
fn slices_that_are_not_ours() {
    assert_eq!(slice("addressType: FQDN"), (None, vec![]));
    let (slice, problems) = slice("endpoints: []");
    assert!(slice.is_none());
    assert_eq!(problems, ["addressType: \"\" is not IPv4 or IPv6: the slice is left out"]);
    for labels in [
        "{}",
        "{kubernetes.io/service-name: ''}",
        "{kubernetes.io/service-name: web, service.kubernetes.io/headless: ''}",
    ] {
        let text = format!("metadata: {{name: a, labels: {labels}}}\naddressType: IPv4");
        let converted = context().endpoint_slice(&read(&text));
        assert_eq!(
            converted.outcome,
            Some(Err(Key::EndpointSlice(ObjectName::new("default", "a")))),
            "{labels}"
        );
        let told: Vec<_> = converted.problems.iter().map(|problem| problem.field.as_str()).collect();
        let missing = ["metadata.labels[kubernetes.io/service-name]"];
        assert_eq!(told, if labels.contains("headless") { &[][..] } else { &missing }, "{labels}");
    }
}

#[test]
fn endpoints_of_a_slice() {
    let (slice, problems) = slice(
        "addressType: IPv4, ports: [{name: http, port: 8080}], endpoints: [
          {addresses: [10.1.0.1]},
          {addresses: [10.1.0.2], nodeName: here, conditions: {ready: null}},
          {addresses: [10.1.0.3], nodeName: there, conditions: {ready: false, serving: false, terminating: true}},
          {addresses: [10.1.0.4], hints: {forZones: [{name: a}, {name: b}], forNodes: [{name: here}]}},
          {addresses: ['::ffff:10.1.0.5'], hints: {forZones: [{name: a}, {name: b}], forNodes: [{name: there}]}}]",
    );
    let slice = slice.expect("ours");
    assert_eq!(problems, Vec::<String>::new());
    let endpoints: Vec<_> = slice.endpoints.iter().collect();
    let [plain, local, leaving, here, elsewhere] = &*endpoints else { panic!("{slice:?}") };
    assert!(plain.ready && plain.serving && !plain.terminating && !plain.local);
    assert!(local.local && local.ready);
    assert!(!leaving.ready && !leaving.serving && leaving.terminating && !leaving.local);
    assert_eq!((plain.node_hint, &plain.zone_hints), (NodeHint::None, &None));
    assert_eq!((here.node_hint, elsewhere.node_hint), (NodeHint::Here, NodeHint::Elsewhere));
    let (first, second) = (here.zone_hints.as_ref().unwrap(), elsewhere.zone_hints.as_ref().unwrap());
    assert!(Arc::ptr_eq(first, second) && first.len() == 2);
}

#[test]
fn what_is_wrong_with_a_slice_is_said_and_left_out() {
    let good = "{addresses: [10.1.0.1]}";
    let rows = [
        ("{}", "", "endpoints[1].addresses[0]: is missing: the endpoint is left out"),
        ("{addresses: [x]}", "", "endpoints[1].addresses[0]: \"x\" is not an IP address: left out"),
        (
            "{addresses: ['fd00::1']}",
            "",
            "endpoints[1].addresses[0]: fd00::1 is not IPv4, as addressType says: left out",
        ),
        (
            "{addresses: [127.0.0.1]}",
            "",
            "endpoints[1].addresses[0]: 127.0.0.1 is a loopback address: left out",
        ),
        (
            "{addresses: [169.254.0.1]}",
            "",
            "endpoints[1].addresses[0]: 169.254.0.1 is a link-local address: left out",
        ),
        (
            "{addresses: [224.0.0.1]}",
            "",
            "endpoints[1].addresses[0]: 224.0.0.1 is a multicast address: left out",
        ),
        (
            "{addresses: [0.0.0.0]}",
            "",
            "endpoints[1].addresses[0]: 0.0.0.0 is the unspecified address: left out",
        ),
        ("{addresses: {}}", "", "endpoints[1].addresses: is an object where a list belongs: left out"),
        ("7", "", "endpoints[1]: is a number where an object belongs: left out"),
        (good, "{name: b}", "ports[1].port: is missing: the port is left out"),
        (good, "{name: b, port: -1}", "ports[1].port: -1 is not a port (1 to 65535): left out"),
        (good, "{name: a, port: 1}", "ports[1]: is there twice: the first counts"),
    ];
    for (endpoint, port, problem) in rows {
        let fields = format!(
            "addressType: IPv4, ports: [{{name: a, port: 1}}, {port}], endpoints: [{good}, {endpoint}, {good}]"
        );
        let (slice, problems) = slice(&fields);
        let slice = slice.expect("ours");
        assert!(problems.iter().any(|line| line.starts_with(problem)), "{problems:?}, not {problem}");
        assert_eq!(slice.ports.len(), 1, "{port}");
        assert_eq!(slice.endpoints.len(), if endpoint == good { 3 } else { 2 }, "{endpoint}");
    }
}

#[test]
fn legacy_endpoints() {
    let object: objects::Endpoints = read(
        "{metadata: {name: web}, subsets: [
           {addresses: [{ip: 10.1.0.1, nodeName: here}, {ip: 'fd00::1'}], notReadyAddresses: [{ip: 10.1.0.2}],
            ports: [{name: a, port: 1}]},
           {ports: [{port: 2}]}]}",
    );
    let converted = context().endpoints(&object);
    let Some(Ok(Object::Endpoints(name, slices))) = converted.outcome else { panic!("{converted:?}") };
    assert_eq!(name.as_str(), "default/web");
    let [v4, v6] = &*slices else { panic!("{slices:?}") };
    assert_eq!((v4.family, v6.family), (Family::V4, Family::V6));
    assert_eq!(v4.ports, v6.ports);
    let flags: Vec<_> = v4.endpoints.iter().map(|e| (e.ready, e.serving, e.local)).collect();
    assert_eq!(flags, [(true, true, true), (false, false, false)]);
}

#[test]
fn our_node() {
    let text = "{metadata: {name: here, labels: {topology.kubernetes.io/zone: z}},
      spec: {podCIDR: 10.1.0.1/24, taints: [{key: x}]},
      status: {addresses: [{type: ExternalIP, address: 192.0.2.1}, {type: Hostname, address: here},
        {type: InternalIP, address: 10.0.0.1}, {type: InternalIP, address: 'fd00::1'}]}}";
    let converted = context().node(&read(text));
    let Some(Ok(Object::Node(node))) = converted.outcome else { panic!("{converted:?}") };
    assert_eq!(texts(&node.addresses), ["10.0.0.1", "fd00::1", "192.0.2.1"]);
    assert_eq!(texts(&node.pod_cidrs), ["10.1.0.0/24"]);
    assert_eq!((node.zone, node.leaving), (Some(crate::model::Zone("z".into())), false));

    assert_eq!(context().node(&read("metadata: {name: other}")), Converted::default());
    for text in [
        "{metadata: {name: here}, spec: {taints: [{key: ToBeDeletedByClusterAutoscaler}]}}",
        "{metadata: {name: here, deletionTimestamp: '2026-01-01T00:00:00Z'}}",
    ] {
        let Some(Ok(Object::Node(node))) = context().node(&read(text)).outcome else { panic!("{text}") };
        assert!(node.leaving, "{text}");
    }
}

#[test]
fn service_cidrs() {
    let converted = context()
        .service_cidr(&read("{metadata: {name: c}, spec: {cidrs: [10.96.0.0/12, x, 'fd00::/108']}}"));
    let Some(Ok(Object::ServiceCidr(name, cidrs))) = converted.outcome else { panic!("{converted:?}") };
    assert_eq!((&*name, texts(&cidrs)), ("c", vec!["10.96.0.0/12".into(), "fd00::/108".into()]));
    let said: Vec<_> = converted.problems.iter().map(Problem::to_string).collect();
    assert_eq!(said, ["ServiceCIDR c: spec.cidrs[1]: \"x\" is not a CIDR: left out"]);
}

#[test]
fn names_that_cannot_be_used() {
    for (meta, problem) in [
        ("{}", "Service default/(without name): metadata.name: is missing: the object is left out"),
        ("{name: a/b}", "Service default/a/b: metadata.name: holds a slash: the object is left out"),
        (
            "{name: a, namespace: b/c}",
            "Service b/c/a: metadata.namespace: holds a slash: the object is left out",
        ),
    ] {
        let converted = context().service(&read(&format!("metadata: {meta}\nspec: {{clusterIP: 10.0.0.1}}")));
        assert_eq!(converted.outcome, None);
        assert_eq!(converted.problems[0].to_string(), problem);
    }
}
