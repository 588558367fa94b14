//! A real folder, edited for real; what arrives at the sink is waited for, never slept for.

mod pods;

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use super::*;
use crate::model::{EndpointSlice, Key, NodeName, ObjectName, Store, Touched};

/// A directory of its own for a test, deleted at its end.
struct Temp(PathBuf);

impl Temp {
    fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let dir = std::env::temp_dir().join(format!("shunt-manifests-{}-{number}", std::process::id()));
        fs::create_dir_all(dir.join("m")).unwrap();
        Self(dir)
    }

    /// The folder of manifests.
    fn dir(&self) -> PathBuf {
        self.0.join("m")
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.dir().join(name), text).unwrap();
    }

    fn remove(&self, name: &str) {
        fs::remove_file(self.dir().join(name)).unwrap();
    }

    /// Writes beside the folder and renames into it.
    fn replace(&self, name: &str, text: &str) {
        fs::write(self.0.join("new"), text).unwrap();
        fs::rename(self.0.join("new"), self.dir().join(name)).unwrap();
    }
}

impl Drop for Temp {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// A source running on a folder.
struct Run {
    metrics: Metrics,
    updates: Receiver<Vec<Update>>,
}

impl Run {
    /// Starts on the folder; returns the lines of the initial lists.
    fn start(temp: &Temp) -> (Self, Vec<String>) {
        let metrics = Metrics::default();
        let manifests = open(&temp.dir(), &metrics).unwrap();
        let (sender, updates) = channel();
        manifests.follow(Box::new(move |batch| sender.send(batch).is_ok())).unwrap();
        let initial = updates.recv_timeout(Duration::from_secs(20)).expect("the lists");
        assert_eq!(initial.len(), Kind::ALL.len());
        let lines = initial.into_iter().flat_map(|update| match update {
            Update::Reset(_, objects) => objects.into_iter().map(Update::Set).collect(),
            other => vec![other],
        });
        let lines = lines.map(|update| line(&update)).collect();
        (Self { metrics, updates }, lines)
    }

    /// The next batch.
    fn next(&self) -> Vec<String> {
        let batch = self.updates.recv_timeout(Duration::from_secs(20)).expect("a batch");
        batch.iter().map(line).collect()
    }

    /// All batches until these lines have come, in any order.
    fn until(&self, mut wanted: Vec<String>) {
        while !wanted.is_empty() {
            for line in self.next() {
                let place = wanted.iter().position(|other| *other == line);
                wanted.swap_remove(place.unwrap_or_else(|| panic!("{line} was not wanted")));
            }
        }
    }

    fn errors(&self) -> u64 {
        self.metrics.manifest_errors.get()
    }
}

fn open(dir: &Path, metrics: &Metrics) -> Result<Manifests, Error> {
    Manifests::open(dir, Context::new(NodeName("here".into()), None), metrics.clone())
}

/// `+shop/web 10.0.0.1` or `-shop/web`; slices show their endpoints.
fn line(update: &Update) -> String {
    let name = |name: &ObjectName| name.as_str().to_owned();
    match update {
        Update::Set(Object::Service(service, content)) => {
            let ips: Vec<_> = content.cluster_ips.iter().map(ToString::to_string).collect();
            format!("+{} {}", name(service), ips.join(","))
        }
        Update::Set(Object::EndpointSlice(slice, service, content)) => {
            let ips: Vec<_> = content.endpoints.iter().map(|endpoint| endpoint.address.to_string()).collect();
            format!("+{} of {}: {}", name(slice), name(service), ips.join(","))
        }
        Update::Set(Object::Endpoints(service, slices)) => {
            let all: Vec<_> = slices.iter().flat_map(addresses).collect();
            format!("+endpoints {} {}", name(service), all.join(","))
        }
        Update::Set(Object::Node(node)) => format!("+node {:?}", node.addresses),
        Update::Set(Object::ServiceCidr(cidr, nets)) => format!("+cidr {cidr} {nets:?}"),
        Update::Delete(Key::Endpoints(service)) => format!("-endpoints {}", name(service)),
        Update::Delete(Key::Service(service)) => format!("-{}", name(service)),
        other => format!("{other:?}"),
    }
}

/// The addresses of a slice, with each of its ports.
fn addresses(slice: &EndpointSlice) -> impl Iterator<Item = String> {
    let ports = slice.ports.iter();
    ports.flat_map(|port| slice.endpoints.iter().map(move |e| format!("{}:{}", e.address, port.port)))
}

fn service(name: &str, ip: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Service\nmetadata: {{name: {name}}}\nspec:\n  clusterIP: {ip}\n  ports: [{{port: 80}}]\n"
    )
}

#[test]
fn every_form_of_file_is_read() {
    let temp = Temp::new();
    let json =
        r#"{"kind":"Service","apiVersion":"v1","metadata":{"name":"NAME"},"spec":{"clusterIP":"10.0.0.1"}}"#;
    let json = |name: &str| json.replace("NAME", name);
    temp.write(
        "a.yaml",
        &format!("# comment\n---\n{}---\n---\n{}...\n", service("a1", "10.0.0.1"), service("a2", "10.0.0.2")),
    );
    temp.write("b.yml", &json("b"));
    temp.write("c.json", &format!("{}\n{}", json("c1"), json("c2")));
    temp.write(
        "d.yaml",
        &format!("kind: List\napiVersion: v1\nitems:\n- {}\n- {}\n- null\n", json("d1"), json("d2")),
    );
    // as `kubectl get -o json` sorts it
    temp.write(
        "e.json",
        &format!(r#"{{"apiVersion":"v1","items":[{},{}],"kind":"List"}}"#, json("e1"), json("e2")),
    );
    let bare = r#"{"metadata":{"name":"NAME"},"spec":{"clusterIP":"10.0.0.1"}}"#;
    temp.write(
        "f.json",
        &format!(r#"{{"items":[{}],"kind":"ServiceList","apiVersion":"v1"}}"#, bare.replace("NAME", "f1")),
    );
    temp.write(
        "g.json",
        &format!(r#"{{"kind":"ServiceList","apiVersion":"v1","items":[{}]}}"#, bare.replace("NAME", "g1")),
    );
    temp.write("h.yaml", "kind: Deployment\napiVersion: apps/v1\nspec: {ports: 7, clusterIP: [x]}\n---\nkind: Service\napiVersion: serving.knative.dev/v1\nmetadata: {name: knative}\nspec: {clusterIP: 10.0.0.1}\n");
    temp.write("i.yaml", "\u{feff}%YAML 1.2\n---\nkind: Node\nmetadata: {name: here}\nstatus: {addresses: [{type: InternalIP, address: 10.9.0.1}]}\n--- # more\n{kind: Node, metadata: {name: other}}\n");
    temp.write("j.yaml", "kind: ServiceCIDR\nmetadata: {name: j}\nspec:\n  cidrs:\n  - 10.0.0.0/8\n");
    temp.write("k.yaml", "kind: EndpointSlice\nmetadata: {name: k, namespace: shop, labels: {kubernetes.io/service-name: web}}\naddressType: IPv4\nendpoints:\n- addresses: [10.1.0.1]\n- addresses: [10.1.0.2]\nports:\n- port: 80\n");
    temp.write("l.yaml", "kind: Endpoints\nmetadata: {name: no}\nsubsets: []\n");
    temp.write("m.yaml", "");
    temp.write(".hidden.yaml", &service("hidden", "10.0.0.1"));
    temp.write("readme.txt", "not looked at");

    let (run, lines) = Run::start(&temp);
    let mut expected = vec![
        "+node [10.9.0.1]".to_owned(),
        "+cidr j [10.0.0.0/8]".into(),
        "+default/a1 10.0.0.1".into(),
        "+default/a2 10.0.0.2".into(),
    ];
    expected.extend(
        ["b", "c1", "c2", "d1", "d2", "e1", "e2", "f1", "g1"].map(|name| format!("+default/{name} 10.0.0.1")),
    );
    expected.extend(["+shop/k of shop/web: 10.1.0.1,10.1.0.2".into(), "+endpoints default/no ".into()]);
    assert_eq!(lines, expected);
    assert_eq!(run.errors(), 0);
}

#[test]
fn files_added_edited_replaced_renamed_and_removed() {
    let temp = Temp::new();
    temp.write("a.yaml", &service("a", "10.0.0.1"));
    let (run, _) = Run::start(&temp);
    temp.write("b.yaml", &service("b", "10.0.0.1"));
    assert_eq!(run.next(), ["+default/b 10.0.0.1"]);
    temp.replace("b.yaml", &service("b", "10.0.0.2"));
    assert_eq!(run.next(), ["+default/b 10.0.0.2"]);
    // nothing changes for the store: the next batch is about what comes after
    temp.write("b.yaml", &format!("# the same\n{}", service("b", "10.0.0.2")));
    fs::rename(temp.dir().join("b.yaml"), temp.dir().join("c.yaml")).unwrap();
    temp.write("a.yaml", &service("a", "10.0.0.3"));
    run.until(vec!["+default/a 10.0.0.3".into()]);
    temp.remove("c.yaml");
    assert_eq!(run.next(), ["-default/b"]);
    temp.write("a.yaml", &format!("{}---\n{}", service("a", "10.0.0.3"), service("d", "10.0.0.4")));
    assert_eq!(run.next(), ["+default/d 10.0.0.4"]);
    temp.write("a.yaml", &service("a", "None"));
    run.until(vec!["-default/a".into(), "-default/d".into()]);
    temp.write("a.yaml", "");
    fs::hard_link(temp.dir().join("a.yaml"), temp.dir().join("e.yaml")).unwrap();
    temp.write("f.yaml", &service("f", "10.0.0.1"));
    assert_eq!(run.next(), ["+default/f 10.0.0.1"]);
    assert_eq!(run.errors(), 0);
}

#[test]
fn a_write_in_pieces_counts_when_it_is_closed() {
    use std::io::Write;
    let temp = Temp::new();
    temp.write("a.yaml", &service("a", "10.0.0.1"));
    let (run, _) = Run::start(&temp);
    let mut file = fs::File::create(temp.dir().join("a.yaml")).unwrap();
    // truncated and half written: what is there parses, and is not the truth
    file.write_all(service("b", "10.0.0.2").as_bytes()).unwrap();
    temp.write("other.yaml", &service("other", "10.0.0.3"));
    assert_eq!(run.next(), ["+default/other 10.0.0.3"]);
    file.write_all(format!("---\n{}", service("a", "10.0.0.4")).as_bytes()).unwrap();
    drop(file);
    assert_eq!(run.next(), ["+default/b 10.0.0.2", "+default/a 10.0.0.4"]);
}

#[test]
fn a_broken_file_keeps_its_last_good_state() {
    let temp = Temp::new();
    temp.write("a.yaml", &service("a", "10.0.0.1"));
    temp.write("b.yaml", "kind: Service\nmetadata: {name: [}\n");
    let (run, lines) = Run::start(&temp);
    assert_eq!((lines, run.errors()), (vec!["+default/a 10.0.0.1".into()], 1));
    temp.write("a.yaml", "apiVersion: v1\n");
    temp.write("c.yaml", &service("c", "10.0.0.1"));
    run.until(vec!["+default/c 10.0.0.1".into()]);
    assert_eq!(run.errors(), 2);
    // the same broken content again is not said again
    temp.write("a.yaml", "apiVersion: v1\n");
    temp.write("a.yaml", &service("a", "10.0.0.1"));
    temp.write("b.yaml", &service("b", "10.0.0.1"));
    run.until(vec!["+default/b 10.0.0.1".into()]);
    assert_eq!(run.errors(), 2);
}

#[test]
fn what_is_not_read_is_said() {
    let temp = Temp::new();
    fs::create_dir(temp.dir().join("dir.yaml")).unwrap();
    assert!(Command::new("mkfifo").arg(temp.dir().join("pipe.yaml")).status().unwrap().success());
    let large = fs::File::create(temp.dir().join("large.yaml")).unwrap();
    large.set_len(load::LARGEST + 1).unwrap();
    symlink(temp.0.join("target"), temp.dir().join("link.yaml")).unwrap();
    temp.write("a.yaml", &service("a", "10.0.0.1"));
    let (run, lines) = Run::start(&temp);
    assert_eq!((lines, run.errors()), (vec!["+default/a 10.0.0.1".into()], 4));
    // nothing in the folder tells that the file is there
    fs::write(temp.0.join("target"), service("b", "10.0.0.1")).unwrap();
    assert_eq!(run.next(), ["+default/b 10.0.0.1"]);
    fs::remove_file(temp.0.join("target")).unwrap();
    temp.write("a.yaml", &service("a", "10.0.0.2"));
    assert_eq!(run.next(), ["+default/a 10.0.0.2"], "what the link led to stays in force");
    temp.remove("link.yaml");
    assert_eq!(run.next(), ["-default/b"]);
}

#[test]
fn two_files_define_one_object() {
    let temp = Temp::new();
    temp.write("b.yaml", &service("x", "10.0.0.2"));
    temp.write("c.yaml", &service("x", "10.0.0.3"));
    let (run, lines) = Run::start(&temp);
    assert_eq!((lines, run.errors()), (vec!["+default/x 10.0.0.2".into()], 1));
    // the one in force stays, though this one comes first by name
    temp.write("a.yaml", &service("x", "10.0.0.1"));
    temp.write("z.yaml", &service("z", "10.0.0.9"));
    run.until(vec!["+default/z 10.0.0.9".into()]);
    assert_eq!(run.errors(), 2);
    temp.remove("b.yaml");
    assert_eq!(run.next(), ["+default/x 10.0.0.1"]);
    // what stands back is kept up to date
    temp.write("c.yaml", &service("x", "10.0.0.4"));
    temp.write("a.yaml", "");
    run.until(vec!["+default/x 10.0.0.4".into()]);
    temp.remove("c.yaml");
    assert_eq!(run.next(), ["-default/x"]);
    assert_eq!(run.errors(), 2);
    temp.write("d.yaml", &format!("{}---\n{}", service("d", "10.0.0.1"), service("d", "10.0.0.2")));
    assert_eq!(run.next(), ["+default/d 10.0.0.1"]);
    assert_eq!(run.errors(), 3);
}

#[test]
fn a_burst_of_a_thousand() {
    let temp = Temp::new();
    let (run, _) = Run::start(&temp);
    let name = |number: u32| format!("s{number}");
    for number in 0..1000 {
        temp.replace(&format!("{number}.yaml"), &service(&name(number), "10.0.0.1"));
    }
    run.until((0..1000).map(|number| format!("+default/{} 10.0.0.1", name(number))).collect());
    for number in 0..1000 {
        temp.remove(&format!("{number}.yaml"));
    }
    run.until((0..1000).map(|number| format!("-default/{}", name(number))).collect());
}

#[test]
fn the_links_of_a_config_map() {
    let temp = Temp::new();
    let dir = temp.dir();
    for (version, ip) in [("..1", "10.0.0.1"), ("..2", "10.0.0.2")] {
        fs::create_dir(dir.join(version)).unwrap();
        fs::write(dir.join(version).join("a.yaml"), service("a", ip)).unwrap();
        fs::write(dir.join(version).join("b.yaml"), service("b", ip)).unwrap();
    }
    symlink("..1", dir.join("..data")).unwrap();
    symlink("..data/a.yaml", dir.join("a.yaml")).unwrap();
    let (run, lines) = Run::start(&temp);
    assert_eq!(lines, ["+default/a 10.0.0.1"]);
    symlink("..data/b.yaml", dir.join("b.yaml")).unwrap();
    assert_eq!(run.next(), ["+default/b 10.0.0.1"]);
    symlink("..2", dir.join("..data_tmp")).unwrap();
    fs::rename(dir.join("..data_tmp"), dir.join("..data")).unwrap();
    assert_eq!(run.next(), ["+default/a 10.0.0.2", "+default/b 10.0.0.2"]);
    assert_eq!(run.errors(), 0);
}

#[test]
fn the_folder_goes_away_and_comes_back() {
    let temp = Temp::new();
    temp.write("a.yaml", &service("a", "10.0.0.1"));
    temp.write("b.yaml", &service("b", "10.0.0.1"));
    let (run, _) = Run::start(&temp);
    fs::remove_dir_all(temp.dir()).unwrap();
    assert!(run.updates.recv_timeout(Duration::from_millis(50)).is_err(), "what it held stays in force");
    fs::create_dir(temp.dir()).unwrap();
    temp.write("a.yaml", &service("a", "10.0.0.2"));
    temp.write("b.yaml", &service("b", "10.0.0.1"));
    run.until(vec!["+default/a 10.0.0.2".into()]);
    // another folder under its name
    fs::create_dir(temp.0.join("other")).unwrap();
    fs::write(temp.0.join("other/b.yaml"), service("b", "10.0.0.3")).unwrap();
    fs::rename(temp.dir(), temp.0.join("old")).unwrap();
    fs::rename(temp.0.join("other"), temp.dir()).unwrap();
    run.until(vec!["+default/b 10.0.0.3".into(), "-default/a".into()]);
    temp.write("c.yaml", &service("c", "10.0.0.1"));
    assert_eq!(run.next(), ["+default/c 10.0.0.1"]);
}

#[test]
fn a_folder_that_cannot_be_used() {
    let temp = Temp::new();
    let metrics = Metrics::default();
    let missing = temp.0.join("missing");
    assert!(matches!(open(&missing, &metrics), Err(Error::Missing(dir)) if dir == missing));
    fs::write(&missing, "").unwrap();
    assert!(matches!(open(&missing, &metrics), Err(Error::NotADirectory(_))));
}

#[test]
fn problems_are_counted_once() {
    let temp = Temp::new();
    let text = format!("{}  externalIPs: [x]\n", service("a", "10.0.0.1"));
    temp.write("a.yaml", &text);
    let (run, _) = Run::start(&temp);
    temp.write("a.yaml", &format!("# edited\n{text}"));
    temp.write("b.yaml", &service("b", "10.0.0.1"));
    run.until(vec!["+default/b 10.0.0.1".into()]);
    let label = crate::metrics::LeftOutLabel { kind: "Service", field: "spec.externalIPs[]".into() };
    assert_eq!(run.metrics.objects_left_out.get_or_create(&label).get(), 1);
}
