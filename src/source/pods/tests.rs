//! Tables: Services and Pods as YAML, the endpoints that they come to.

use super::*;
use crate::model::NodeName;
use crate::source::convert::Context;

/// A stand-in that reads YAML on the node `here`.
struct World {
    context: Context,
    stand_in: StandIn,
    problems: Vec<String>,
}

impl World {
    fn new() -> Self {
        let context = Context::new(NodeName("here".into()), None);
        Self { context, stand_in: StandIn::default(), problems: Vec::new() }
    }

    /// A Service `namespace/name` of this spec.
    fn service(&mut self, name: &str, spec: &str) {
        let (namespace, name) = name.split_once('/').unwrap();
        let text = format!("metadata: {{namespace: {namespace}, name: {name}}}\nspec: {spec}\n");
        let object = serde_saphyr::from_str(&text).expect(spec);
        match self.context.service(&object).outcome.unwrap() {
            Ok(ours) => {
                let Object::Service(_, service) = &ours else { panic!("{ours:?}") };
                let mut problems = Vec::new();
                let selection = self.context.selection(&object, service, &mut problems);
                self.problems.extend(problems.iter().map(ToString::to_string));
                self.stand_in.set(&ours, selection);
            }
            Err(key) => self.stand_in.delete(&key),
        }
    }

    /// A Pod: labels, more of `metadata`, spec and status.
    fn pod(&mut self, name: &str, labels: &str, [meta, spec, status]: [&str; 3]) {
        let (namespace, name) = name.split_once('/').unwrap();
        let text = format!(
            "metadata: {{namespace: {namespace}, name: {name}, labels: {{{labels}}}, {meta}}}\n\
             spec: {{{spec}}}\nstatus: {{{status}}}\n"
        );
        let converted = self.context.pod(&serde_saphyr::from_str(&text).expect(&text));
        self.problems.extend(converted.problems.iter().map(ToString::to_string));
        match converted.outcome.unwrap() {
            Ok((name, pod)) => self.stand_in.set_pod(name, pod),
            Err(name) => self.stand_in.delete_pod(&name),
        }
    }

    /// A ready Pod with an address, labelled `app: web`.
    fn web(&mut self, name: &str, ip: &str) {
        self.pod(name, "app: web", ["", "", &ready(ip)]);
    }

    /// What has changed: `+shop/web` with its slices, or `-shop/web`.
    fn settle(&mut self) -> Vec<String> {
        self.stand_in.settle().iter().map(line).collect()
    }
}

fn ready(ip: &str) -> String {
    format!("podIPs: [{{ip: '{ip}'}}], conditions: [{{type: Ready, status: 'True'}}]")
}

/// A slice is its ports and its endpoints; an endpoint ends with the letters of its conditions: ready,
/// serving, terminating, local.
fn line(update: &Update) -> String {
    let (name, slices) = match update {
        Update::Set(Object::Endpoints(name, slices)) => (name, slices),
        Update::Delete(Key::Endpoints(name)) => return format!("-{name}"),
        other => panic!("{other:?}"),
    };
    let slices = slices.iter().map(|slice| {
        let ports = slice.ports.iter().map(|port| format!(" {}/{}:{}", port.name, port.protocol, port.port));
        let endpoints = slice.endpoints.iter().map(|endpoint| {
            assert_eq!(crate::model::Family::of(&endpoint.address), slice.family);
            let letters = [
                ('r', endpoint.ready),
                ('s', endpoint.serving),
                ('t', endpoint.terminating),
                ('l', endpoint.local),
            ];
            let letters = letters.into_iter().filter(|(_, set)| *set).map(|(letter, _)| letter);
            format!(" {}/{}", endpoint.address, letters.collect::<String>())
        });
        format!("{} ->{}", ports.collect::<String>(), endpoints.collect::<String>())
    });
    format!("+{name}{}", slices.collect::<Vec<_>>().join(" |"))
}

const NONE: [&str; 0] = [];
const WEB: &str =
    "{selector: {app: web}, clusterIPs: [10.0.0.1, 'fd00::1'], ports: [{name: http, port: 80}]}";

#[test]
fn states_of_a_pod() {
    let ip = "podIP: 10.1.0.1";
    let yes = "conditions: [{type: Initialized, status: 'False'}, {type: Ready, status: 'True'}]";
    let no = "conditions: [{type: Ready, status: 'False'}, {type: ContainersReady, status: 'True'}]";
    let gone = "deletionTimestamp: '2026-01-01T00:00:00Z'";
    // metadata, spec and status, then the endpoint, and that with publishNotReadyAddresses
    let rows = [
        (["", "", &format!("{ip}, {yes}")], "10.1.0.1/rs", "10.1.0.1/rs"),
        (["", "", &format!("{ip}, {no}")], "10.1.0.1/", "10.1.0.1/r"),
        (["", "", ip], "10.1.0.1/", "10.1.0.1/r"),
        ([gone, "", &format!("{ip}, {yes}")], "10.1.0.1/st", "10.1.0.1/rst"),
        ([gone, "", &format!("{ip}, {no}")], "10.1.0.1/t", "10.1.0.1/rt"),
        (["", "nodeName: here", &format!("{ip}, {yes}")], "10.1.0.1/rsl", "10.1.0.1/rsl"),
        (["", "nodeName: there, hostNetwork: true", &format!("{ip}, {yes}")], "10.1.0.1/rs", "10.1.0.1/rs"),
        (["", "", &format!("phase: Running, {ip}, {yes}")], "10.1.0.1/rs", "10.1.0.1/rs"),
        (["", "", &format!("phase: Succeeded, {ip}, {yes}")], "", ""),
        (["", "", &format!("phase: Failed, {ip}, {yes}")], "", ""),
        (["", "", yes], "", ""),
        (["", "", &format!("podIP: '', podIPs: [], {yes}")], "", ""),
        (
            ["", "", &format!("podIP: 10.1.0.9, podIPs: [{{ip: 10.1.0.1}}], {yes}")],
            "10.1.0.1/rs",
            "10.1.0.1/rs",
        ),
    ];
    for (pod, plain, published) in rows {
        for (fields, endpoint) in [("", plain), ("publishNotReadyAddresses: true, ", published)] {
            let mut world = World::new();
            world.service("shop/web", &WEB.replacen('{', &format!("{{{fields}"), 1));
            world.pod("shop/a", "app: web", pod);
            let expected = (!endpoint.is_empty()).then(|| format!("+shop/web http/tcp:80 -> {endpoint}"));
            assert_eq!(world.settle(), Vec::from_iter(expected), "{pod:?} {fields}");
            assert_eq!(world.problems, NONE);
        }
    }
}

#[test]
fn selectors() {
    let rows = [
        ("{app: web}", "app: web", true),
        ("{app: web}", "app: web, tier: front", true),
        ("{app: web, tier: front}", "app: web, tier: front", true),
        ("{app: web, tier: front}", "app: web", false),
        ("{app: web}", "app: api", false),
        ("{app: web}", "web: app", false),
        ("{app: web}", "", false),
        ("{version: 2}", "version: '2'", true),
        ("{canary: ''}", "canary: null", true),
        ("{canary: null}", "canary: ''", true),
        ("{app: a=b}", "app: a=b", true),
        ("{}", "app: web", false),
        ("null", "app: web", false),
        // to leave the wrong one out would select more than was meant
        ("{app: web, tier: [x]}", "app: web", false),
        ("[app]", "app: web", false),
    ];
    for (selector, labels, selected) in rows {
        let mut world = World::new();
        world.service("shop/web", &WEB.replace("{app: web}", selector));
        world.pod("shop/a", labels, ["", "", &ready("10.1.0.1")]);
        assert_eq!(world.settle().len(), usize::from(selected), "{selector} {labels}");
        let wrong = selector.contains('[');
        assert_eq!(world.problems.len(), usize::from(wrong), "{:?}", world.problems);
    }
    let mut world = World::new();
    world.service("shop/web", WEB);
    world.web("other/a", "10.1.0.1");
    assert_eq!(world.settle(), NONE, "another namespace");
}

#[test]
fn services_that_are_not_served() {
    for spec in [
        "{selector: {app: web}, clusterIP: None, ports: [{port: 80}]}",
        "{selector: {app: web}, type: ExternalName, externalName: a.b, ports: [{port: 80}]}",
        "{selector: {app: web}, clusterIP: 10.0.0.1}",
    ] {
        let mut world = World::new();
        world.web("shop/a", "10.1.0.1");
        world.service("shop/web", spec);
        assert_eq!(world.settle(), NONE, "{spec}");
        world.service("shop/web", WEB);
        assert_eq!(world.settle(), ["+shop/web http/tcp:80 -> 10.1.0.1/rs"]);
        world.service("shop/web", spec);
        assert_eq!(world.settle(), ["-shop/web"], "{spec}");
    }
}

#[test]
fn target_ports() {
    let containers = "containers: [{name: log}, {ports: [{name: web, containerPort: 8080},
        {name: dns, containerPort: 5353, protocol: UDP}, {name: dns, containerPort: 5354},
        {containerPort: 9}, {name: web, containerPort: 8081}]}],
        initContainers: [{ports: [{name: once, containerPort: 1}]},
          {restartPolicy: Always, ports: [{name: mesh, containerPort: 15000}, {name: web, containerPort: 2}]}]";
    let rows = [
        ("{port: 80}", Some("/tcp:80"), None),
        ("{port: 80, targetPort: 8000}", Some("/tcp:8000"), None),
        ("{port: 80, targetPort: '8000'}", Some("/tcp:8000"), None),
        ("{port: 80, targetPort: 0}", Some("/tcp:80"), None),
        ("{port: 80, targetPort: ''}", Some("/tcp:80"), None),
        ("{port: 80, targetPort: null}", Some("/tcp:80"), None),
        ("{name: a b, port: 80, targetPort: web}", Some("a b/tcp:8080"), None),
        ("{port: 53, protocol: UDP, targetPort: dns}", Some("/udp:5353"), None),
        ("{port: 53, targetPort: dns}", Some("/tcp:5354"), None),
        ("{port: 53, protocol: SCTP, targetPort: dns}", None, None),
        ("{port: 53, protocol: SCTP}", Some("/sctp:53"), None),
        ("{port: 80, targetPort: mesh}", Some("/tcp:15000"), None),
        ("{port: 80, targetPort: once}", None, None),
        ("{port: 80, targetPort: missing}", None, None),
        (
            "{port: 80, targetPort: 70000}",
            None,
            Some("\"70000\" is neither the number nor the name of a port"),
        ),
        ("{port: 80, targetPort: a b}", None, Some("\"a b\" is neither the number nor the name of a port")),
        ("{port: 80, targetPort: [1]}", None, Some("is a list where text belongs")),
        // the one that counts for the Service counts here
        ("{port: 80, targetPort: 1}, {port: 80, targetPort: 2}", Some("/tcp:1"), None),
        (
            "{name: a, port: 80, targetPort: 1}, {name: b, port: 81, targetPort: 2}",
            Some("a/tcp:1 b/tcp:2"),
            None,
        ),
        (
            "{name: a, port: 53, targetPort: 1}, {name: a, port: 53, protocol: UDP, targetPort: 2}",
            Some("a/tcp:1 a/udp:2"),
            None,
        ),
        (
            "{name: a, port: 80, targetPort: web}, {name: b, port: 81, targetPort: missing}",
            Some("a/tcp:8080"),
            None,
        ),
    ];
    for (ports, expected, problem) in rows {
        let mut world = World::new();
        world.pod("shop/a", "app: web", ["", containers, &ready("10.1.0.1")]);
        world.service(
            "shop/web",
            &format!("{{selector: {{app: web}}, clusterIP: 10.0.0.1, ports: [{ports}]}}"),
        );
        let expected = expected.map(|ports| format!("+shop/web {ports} -> 10.1.0.1/rs"));
        assert_eq!(world.settle(), Vec::from_iter(expected), "{ports}");
        let problem =
            problem.map(|what| format!("Service shop/web: spec.ports[0].targetPort: {what}: left out"));
        assert_eq!(world.problems, Vec::from_iter(problem), "{ports}");
    }
}

#[test]
fn one_name_and_many_numbers() {
    let mut world = World::new();
    let spec = "{selector: {app: web}, clusterIPs: [10.0.0.1],
        ports: [{name: http, port: 80, targetPort: web}, {name: admin, port: 81, targetPort: 9000}]}";
    world.service("shop/web", spec);
    for (name, port, ip) in [("a", "8080", "10.1.0.1"), ("b", "8081", "10.1.0.2"), ("c", "8080", "10.1.0.3")]
    {
        let containers = format!("containers: [{{ports: [{{name: web, containerPort: {port}}}]}}]");
        world.pod(&format!("shop/{name}"), "app: web", ["", &containers, &ready(ip)]);
    }
    world.web("shop/d", "10.1.0.4");
    let expected = "+shop/web admin/tcp:9000 -> 10.1.0.4/rs \
        | http/tcp:8080 admin/tcp:9000 -> 10.1.0.1/rs 10.1.0.3/rs \
        | http/tcp:8081 admin/tcp:9000 -> 10.1.0.2/rs";
    assert_eq!(world.settle(), [expected]);
}

#[test]
fn families() {
    let both = "podIPs: [{ip: 10.1.0.1}, {ip: 'fd00::a'}, {ip: 10.1.0.2}]";
    let rows = [
        ("[10.0.0.1]", both, " http/tcp:80 -> 10.1.0.1/"),
        ("['fd00::1']", both, " http/tcp:80 -> fd00::a/"),
        ("['fd00::1', 10.0.0.1]", both, " http/tcp:80 -> 10.1.0.1/ | http/tcp:80 -> fd00::a/"),
        ("[10.0.0.1, 'fd00::1']", "podIP: 'fd00::a'", " http/tcp:80 -> fd00::a/"),
        ("[10.0.0.1]", "podIP: 'fd00::a'", ""),
        ("[10.0.0.1]", "podIPs: [{ip: x}, {ip: 10.1.0.010}]", " http/tcp:80 -> 10.1.0.10/"),
        ("[10.0.0.1]", "podIPs: [{ip: 127.0.0.1}]", ""),
    ];
    for (cluster_ips, status, slices) in rows {
        let mut world = World::new();
        world.service("shop/web", &WEB.replace("[10.0.0.1, 'fd00::1']", cluster_ips));
        world.pod("shop/a", "app: web", ["", "", status]);
        let expected = (!slices.is_empty()).then(|| format!("+shop/web{slices}"));
        assert_eq!(world.settle(), Vec::from_iter(expected), "{cluster_ips} {status}");
        let wrong = usize::from(status.contains("{ip: x}") || status.contains("127"));
        assert_eq!(world.problems.len(), wrong, "{:?}", world.problems);
    }
}

#[test]
fn only_what_changes_is_told() {
    let mut world = World::new();
    world.service("shop/web", WEB);
    world.service("shop/front", &WEB.replace("app: web", "app: web, tier: front"));
    world.service("shop/api", &WEB.replace("app: web", "app: api"));
    assert_eq!(world.settle(), NONE);
    world.web("shop/a", "10.1.0.1");
    assert_eq!(world.settle(), ["+shop/web http/tcp:80 -> 10.1.0.1/rs"]);
    world.web("shop/a", "10.1.0.1");
    assert_eq!(world.settle(), NONE, "the same again");
    world.pod("shop/b", "app: web, tier: front", ["", "", &ready("10.1.0.2")]);
    assert_eq!(
        world.settle(),
        ["+shop/front http/tcp:80 -> 10.1.0.2/rs", "+shop/web http/tcp:80 -> 10.1.0.1/rs 10.1.0.2/rs"]
    );
    world.pod("shop/b", "app: api", ["", "", &ready("10.1.0.2")]);
    assert_eq!(
        world.settle(),
        ["+shop/api http/tcp:80 -> 10.1.0.2/rs", "-shop/front", "+shop/web http/tcp:80 -> 10.1.0.1/rs"]
    );
    world.service("shop/web", &WEB.replace("app: web", "app: api"));
    assert_eq!(world.settle(), ["+shop/web http/tcp:80 -> 10.1.0.2/rs"]);
    world.stand_in.delete(&Key::Service(ObjectName::new("shop", "web")));
    world.pod("shop/b", "app: api", ["", "", ""]);
    assert_eq!(world.settle(), ["-shop/api", "-shop/web"]);
    world.stand_in.delete_pod(&ObjectName::new("shop", "a"));
    assert_eq!(world.settle(), NONE);
    let StandIn { namespaces, told, touched, .. } = &world.stand_in;
    assert!(namespaces.is_empty() && told.is_empty() && touched.is_empty(), "{:?}", world.stand_in);
}

#[test]
fn endpoints_of_its_own_take_over() {
    let name = ObjectName::new("shop", "web");
    let own = Object::Endpoints(name.clone(), Box::default());
    let mut world = World::new();
    world.service("shop/web", WEB);
    world.stand_in.set(&own, None);
    world.web("shop/a", "10.1.0.1");
    assert_eq!(world.settle(), NONE);
    world.stand_in.delete(&Key::Endpoints(name.clone()));
    assert_eq!(world.settle(), ["+shop/web http/tcp:80 -> 10.1.0.1/rs"]);
    world.stand_in.set(&own, None);
    world.web("shop/b", "10.1.0.2");
    assert_eq!(world.settle(), NONE, "nor is what was told taken back: it has been replaced");
    world.stand_in.delete(&Key::Endpoints(name));
    assert_eq!(world.settle(), ["+shop/web http/tcp:80 -> 10.1.0.1/rs 10.1.0.2/rs"]);
}

/// Every order and grouping of changes ends where a fresh start does.
#[test]
fn the_way_does_not_matter() {
    let labels = ["app: web", "app: api", "app: web, tier: front", "tier: front", ""];
    let selectors = ["{app: web}", "{app: api}", "{app: web, tier: front}", "{tier: front}", "{}"];
    let mut random = 1_u32;
    let mut next = |limit: usize| {
        random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        usize::try_from(random >> 16).unwrap() % limit
    };
    let (mut world, mut pods, mut services) = (World::new(), BTreeMap::new(), BTreeMap::new());
    let mut told = BTreeMap::new();
    for step in 0..2000 {
        let (name, state) = (format!("{}/x{}", ["a", "b"][next(2)], next(4)), next(labels.len()));
        let all: &mut BTreeMap<String, usize> = if next(2) == 0 { &mut pods } else { &mut services };
        all.insert(name.clone(), state);
        change(&mut world, &pods, &services, &name, labels, selectors);
        if next(3) > 0 {
            continue;
        }
        for line in world.settle() {
            let (sign, rest) = line.split_at(1);
            let service = rest.split(' ').next().unwrap().to_owned();
            if sign == "-" {
                assert!(told.remove(&service).is_some(), "{line}");
            } else {
                assert_ne!(told.insert(service, line.clone()), Some(line), "said twice");
            }
        }
        let mut fresh = World::new();
        for name in pods.keys().chain(services.keys()) {
            change(&mut fresh, &pods, &services, name, labels, selectors);
        }
        assert_eq!(fresh.settle(), told.values().cloned().collect::<Vec<_>>(), "step {step}");
    }
}

/// Brings the Pod and the Service of this name to where the maps say they are.
fn change(
    world: &mut World,
    pods: &BTreeMap<String, usize>,
    services: &BTreeMap<String, usize>,
    name: &str,
    labels: [&str; 5],
    selectors: [&str; 5],
) {
    if let Some(state) = pods.get(name) {
        let status = if *state == 4 { String::new() } else { ready("10.1.0.1") };
        world.pod(name, labels[*state], ["", "", &status]);
    }
    if let Some(state) = services.get(name) {
        world.service(name, &WEB.replace("{app: web}", selectors[*state]));
    }
}
