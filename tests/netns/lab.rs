//! A node with pods, another node's pods and an outside world, the program under test on it, and probes.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::PathBuf;
use std::process::ExitStatus;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::daemon::Daemon;
use super::flow::{Expect, Flow, Protocol};
use super::mode::Mode;
use super::names::{BOTH, ENDPOINTS, Family, Name, Ns};
use super::nft::{Monitor, nft_ok};
use super::objects::{Objects, node, service, service_cidr, slice};
use super::probe::{self, Connection, Exchange, Outcome, Patience, Ports};
use super::responder::Responder;
use super::sctp::{self, SctpServer};
use super::topology::{Topology, joined};

/// Every pod answers on these, with TCP and UDP; SCTP on any port.
pub const PORTS: [u16; 3] = [8080, 8081, 9090];

/// How long the daemon may take to program what it was told.
const SETTLE: Duration = Duration::from_secs(20);

/// One node and its surroundings; everything in it ends when it is dropped.
pub struct Lab {
    /// Objects that stand beside those of the case: our Node and the ServiceCIDR.
    pub base: Vec<Objects>,
    /// Arguments of the daemon beside the usual ones.
    pub flags: Vec<&'static str>,
    /// A program that starts the daemon, with its arguments.
    pub before: Vec<&'static str>,
    /// The mode that the daemon runs in.
    pub mode: Mode,
    daemon: Option<Daemon>,
    responder: Responder,
    sctp_seen: sctp::Seen,
    /// Source ports for probes.
    pub ports: Arc<Ports>,
    dir: PathBuf,
    files: BTreeMap<String, String>,
    /// The port of the sentinel Service.
    sentinel: u16,
    pub topology: Topology,
}

impl Lab {
    /// The namespaces with servers in the pods, and no daemon yet. `prefix` is unique in this process.
    pub fn new(prefix: &str, mode: Mode) -> Self {
        let dir = PathBuf::from("/run/lab").join(prefix);
        for name in ["manifests", "staging"] {
            std::fs::create_dir_all(dir.join(name)).expect("a directory in /run");
        }
        let lab = Self {
            base: vec![node(), service_cidr()],
            flags: Vec::new(),
            before: Vec::new(),
            mode,
            daemon: None,
            responder: Responder::start(),
            sctp_seen: sctp::Seen::default(),
            ports: Arc::new(Ports::new()),
            dir,
            files: BTreeMap::new(),
            sentinel: 10_000,
            topology: Topology::build(prefix),
        };
        for name in ENDPOINTS {
            for family in BOTH {
                lab.serve_sctp(name, family);
                for port in PORTS {
                    lab.serve(name, port, family);
                }
            }
        }
        lab
    }

    /// A server on one more address and port of someone in the lab.
    pub fn serve(&self, name: Name, port: u16, family: Family) -> Vec<u64> {
        let listening =
            self.topology.enter(name.destination(), || self.responder.listen(name.at(port, family)));
        listening.unwrap_or_else(|error| panic!("listening on {name:?}:{port}: {error}"))
    }

    /// A server on an address that was given to someone else than its name says.
    pub fn serve_in(&self, ns: Ns, name: Name, port: u16, family: Family) -> Vec<u64> {
        let listening = self.topology.enter(ns, || self.responder.listen(name.at(port, family)));
        listening.unwrap_or_else(|error| panic!("listening on {name:?}:{port} in {ns:?}: {error}"))
    }

    fn serve_sctp(&self, name: Name, family: Family) -> Vec<u64> {
        let server = self
            .topology
            .enter(name.destination(), || SctpServer::bind(name.ip(family), self.sctp_seen.clone()));
        vec![self.responder.listen_sctp(server.expect("a raw socket"))]
    }
}

/// The daemon and its objects.
impl Lab {
    /// Starts the daemon with a configuration (`objects::config`), and waits until it has programmed all objects.
    pub fn start(&mut self, config: &Value) {
        self.write_config(config);
        self.start_again();
    }

    fn write_config(&mut self, config: &Value) {
        let mut config = config.clone();
        config["mode"] = self.mode.word().into();
        std::fs::write(self.dir.join("config.yaml"), config.to_string()).expect("writing the configuration");
        if self.files.is_empty() {
            self.write_objects(&[]);
        }
    }

    /// Puts other text into the place of its configuration file, and waits for nothing.
    pub fn reconfigure(&self, text: &str) {
        let staged = self.dir.join("staging/config.yaml");
        std::fs::write(&staged, text).expect("writing the configuration");
        std::fs::rename(&staged, self.dir.join("config.yaml")).expect("moving the configuration");
    }

    /// The same, waiting until the daemon has said `said` in its log once more.
    pub fn reconfigure_until(&mut self, text: &str, said: &str) {
        let log = |lab: &Self| std::fs::read_to_string(lab.log_file()).expect("a log");
        let before = log(self).matches(said).count();
        self.reconfigure(text);
        let deadline = Instant::now() + SETTLE;
        while log(self).matches(said).count() == before {
            self.daemon.as_mut().expect("a running daemon").assert_running();
            assert!(Instant::now() < deadline, "not said within {SETTLE:?}: {said}\n{}", log(self));
            std::thread::sleep(Duration::from_millis(10));
        }
        self.settle();
    }

    /// SIGHUP.
    pub fn hang_up(&mut self) {
        self.daemon.as_mut().expect("a running daemon").hang_up();
    }

    /// Starts the daemon as [`Self::start`] does, but waits until it says `said`, not until it serves.
    pub fn start_until(&mut self, config: &Value, said: &str) {
        self.write_config(config);
        self.launch();
        self.wait_until_said(said);
    }

    /// Waits until the log has this.
    pub fn wait_until_said(&mut self, said: &str) {
        let log = |lab: &Self| std::fs::read_to_string(lab.log_file()).unwrap_or_default();
        let deadline = Instant::now() + SETTLE;
        while !log(self).contains(said) {
            self.daemon.as_mut().expect("a running daemon").assert_running();
            assert!(Instant::now() < deadline, "not said within {SETTLE:?}: {said}\n{}", log(self));
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Starts it with the configuration of the last start.
    pub fn start_again(&mut self) {
        self.launch();
        self.settle();
    }

    /// The same, and nobody waits.
    pub fn launch(&mut self) {
        assert!(self.daemon.is_none(), "one daemon at a time");
        let (manifests, config, log) =
            (self.dir.join("manifests"), self.dir.join("config.yaml"), self.log_file());
        self.daemon =
            Some(Daemon::start(&self.topology, &manifests, &config, &self.before, &self.flags, &log));
    }

    /// SIGTERM, and its exit status.
    pub fn stop(&mut self) -> ExitStatus {
        self.daemon.take().expect("a running daemon").stop()
    }

    /// SIGKILL.
    pub fn kill(&mut self) {
        self.daemon.take().expect("a running daemon").kill();
    }

    /// The complete state of the cluster from now on; files that do not change are left alone. A running daemon is
    /// waited for.
    pub fn apply(&mut self, objects: &[Objects]) {
        self.write_objects(objects);
        if self.daemon.is_some() {
            self.settle();
        }
    }

    /// The same, and nobody waits.
    pub fn write_objects(&mut self, objects: &[Objects]) {
        let beacon = slice("kube-system/sentinel").port("sentinel", PORTS[0]).ready([Name::Beacon]);
        let all = self
            .base
            .iter()
            .chain(objects)
            .chain([&Objects::from(beacon)])
            .flat_map(Objects::files)
            .collect();
        let before = std::mem::replace(&mut self.files, all);
        for name in before.keys().filter(|name| !self.files.contains_key(*name)) {
            std::fs::remove_file(self.dir.join("manifests").join(name)).expect("removing a manifest");
        }
        for (name, text) in &self.files {
            if before.get(name) != Some(text) {
                self.write_manifest(name, text);
            }
        }
    }

    /// Every file once more, with what it has.
    pub fn write_all_again(&mut self) {
        for (name, text) in &self.files {
            self.write_manifest(name, text);
        }
        self.settle();
    }

    fn write_manifest(&self, name: &str, text: &str) {
        let staged = self.dir.join("staging").join(name);
        std::fs::write(&staged, text).expect("writing a manifest");
        std::fs::rename(&staged, self.dir.join("manifests").join(name)).expect("moving a manifest");
    }

    /// Waits until the daemon has programmed everything written so far: it shows by a sentinel Service that was
    /// written later. Twice, since a directory may be read while it is being written: a pass that sees the first
    /// sentinel may have read another file too early, but the one that sees the second has begun after all of them.
    fn settle(&mut self) {
        for _ in 0..2 {
            self.sentinel += 1;
            let sentinel =
                service("kube-system/sentinel").cluster_name(Name::Sentinel).port("sentinel", self.sentinel);
            for (_, text) in Objects::from(sentinel).files() {
                self.write_manifest("service-kube-system-sentinel.json", &text);
            }
            let deadline = Instant::now() + SETTLE;
            for family in BOTH {
                while !self.sentinel_answers(family) {
                    self.daemon.as_mut().expect("a running daemon").assert_running();
                    assert!(Instant::now() < deadline, "not settled after {SETTLE:?} in {family:?}");
                }
            }
        }
    }

    fn sentinel_answers(&self, family: Family) -> bool {
        let to = Name::Sentinel.at(self.sentinel, family);
        let source = Some(Name::Client.ip(family));
        let patience = Patience { wait: Duration::from_millis(100), tries: 1 };
        let outcome = self.topology.enter(Ns::Client, || probe::tcp(source, to, &self.ports, patience));
        if outcome == Outcome::Refused {
            std::thread::sleep(Duration::from_millis(1));
        }
        matches!(outcome, Outcome::Answered(answer) if answer.endpoint == Name::Beacon.at(PORTS[0], family))
    }

    pub fn log_file(&self) -> PathBuf {
        self.dir.join("log")
    }
}

/// What a person would do on the node.
impl Lab {
    pub fn list_ruleset(&self) -> String {
        nft_ok(&self.topology, Ns::Node, &["list", "ruleset"], "")
    }

    /// `nft -f` in a namespace.
    pub fn load_ruleset(&self, ns: Ns, text: &str) {
        nft_ok(&self.topology, ns, &["-f", "-"], text);
    }

    pub fn monitor(&self) -> Monitor {
        Monitor::start(&self.topology)
    }

    /// What was written since the last call, see [`Monitor::take`].
    pub fn writes(&self, monitor: &mut Monitor) -> Vec<String> {
        monitor.take(&self.topology)
    }
}

/// Probes.
impl Lab {
    /// Sends the packets of all rows, for both families at once, and fails with a line for each that is wrong.
    pub fn check(&self, flows: &[Flow]) {
        self.check_in(&BOTH, flows);
    }

    /// The same in these families only.
    pub fn check_in(&self, families: &[Family], flows: &[Flow]) {
        assert!(!flows.is_empty(), "an empty table proves nothing");
        let flows: Vec<Flow> = flows.iter().filter_map(|flow| self.mode.expects(flow)).collect();
        let flows = &flows[..];
        let _targets = self.targets(flows);
        let wrong: Vec<String> = std::thread::scope(|scope| {
            let rows = flows.iter().flat_map(|flow| families.iter().map(move |family| (flow, *family)));
            let threads: Vec<_> = rows
                .map(|(flow, family)| {
                    scope.spawn(move || flow.judge(family, &self.send(flow, family, flow.probes())))
                })
                .collect();
            threads.into_iter().filter_map(|thread| joined(thread).err()).collect()
        });
        assert!(
            wrong.is_empty(),
            "{} of {} rows are wrong:\n  {}",
            wrong.len(),
            flows.len(),
            wrong.join("\n  ")
        );
    }

    /// Servers where the packets arrive that nobody touches: rows that are to be left alone need them, and what
    /// should be rejected or dropped must not end in silence when it slips through.
    pub fn targets(&self, flows: &[Flow]) -> Targets<'_> {
        let arriving = flows.iter().filter(|flow| {
            let virtual_address = flow.to.namespace().is_none();
            flow.expect == Expect::Untouched
                || virtual_address && !matches!(flow.expect, Expect::Endpoints(_))
        });
        let places: BTreeSet<_> =
            arriving.map(|flow| (flow.to, flow.port, flow.protocol == Protocol::Sctp)).collect();
        let mut tokens = Vec::new();
        for ((to, port, sctp), family) in
            places.into_iter().flat_map(|place| BOTH.map(|family| (place, family)))
        {
            tokens.extend(if sctp { self.serve_sctp(to, family) } else { self.serve(to, port, family) });
        }
        Targets { lab: self, tokens }
    }

    /// Sends so many probes and returns what became of each.
    pub fn send(&self, flow: &Flow, family: Family, count: usize) -> Vec<Outcome> {
        let ns = flow.from.namespace().expect("a source that exists");
        let patience = patience_for(flow);
        let one = || self.send_one(flow, family, patience);
        self.topology.enter(ns, || {
            if !matches!(flow.expect, Expect::Dropped | Expect::DroppedOrInvalid) {
                return until_silence((0..count).map(|_| one()));
            }
            // silence takes its time: wait for all of it together
            std::thread::scope(|scope| {
                let threads: Vec<_> = (0..count).map(|_| scope.spawn(one)).collect();
                threads.into_iter().map(joined).collect()
            })
        })
    }

    fn send_one(&self, flow: &Flow, family: Family, patience: Patience) -> Outcome {
        let (source, to) = (source_address(flow.from, family), flow.to.at(flow.port, family));
        match flow.protocol {
            Protocol::Tcp => probe::tcp(source, to, &self.ports, patience),
            Protocol::Udp => probe::udp(source, to, &self.ports, patience),
            Protocol::Sctp => sctp::probe(source, to, &self.ports, patience, &self.sctp_seen),
        }
    }

    /// A TCP connection that stays open, and the endpoint that it has.
    pub fn connect(&self, from: Name, to: Name, port: u16, family: Family) -> (Connection, (Name, u16)) {
        let ns = from.namespace().expect("a source that exists");
        let (source, to) = (source_address(from, family), to.at(port, family));
        let open = || Connection::open(source, to, &self.ports, Patience::GENEROUS.wait);
        let (connection, answer) =
            self.topology.enter(ns, open).unwrap_or_else(|why| panic!("{to}: {why:?}"));
        (connection, endpoint_name(answer.endpoint, family))
    }

    /// A UDP flow that keeps its source port.
    pub fn exchange(&self, from: Name, to: Name, port: u16, family: Family) -> Exchange {
        let ns = from.namespace().expect("a source that exists");
        let (source, to) = (source_address(from, family), to.at(port, family));
        self.topology.enter(ns, || Exchange::open(source, to, &self.ports)).expect("a UDP socket")
    }
}

/// Servers for as long as this lives.
pub struct Targets<'a> {
    lab: &'a Lab,
    tokens: Vec<u64>,
}

impl Drop for Targets<'_> {
    fn drop(&mut self) {
        self.lab.responder.close(&self.tokens);
    }
}

/// Where an answer is expected, the first silence settles the case.
fn until_silence(outcomes: impl Iterator<Item = Outcome>) -> Vec<Outcome> {
    let mut all = Vec::new();
    for outcome in outcomes {
        let silence = outcome == Outcome::Silence;
        all.push(outcome);
        if silence {
            break;
        }
    }
    all
}

/// Which of the pods has this address.
pub fn endpoint_name(endpoint: std::net::SocketAddr, family: Family) -> (Name, u16) {
    let name = ENDPOINTS.into_iter().find(|name| name.ip(family) == endpoint.ip());
    (name.unwrap_or_else(|| panic!("{endpoint} is no pod")), endpoint.port())
}

/// The node itself leaves the choice to its routes, as programs on it do.
fn source_address(from: Name, family: Family) -> Option<IpAddr> {
    (from != Name::Node).then(|| from.ip(family))
}

fn patience_for(flow: &Flow) -> Patience {
    match flow.expect {
        // The node's own TCP may hear of a refusal only when it repeats the SYN after a second: waiting less could
        // not tell a refusal from silence.
        Expect::Dropped | Expect::DroppedOrInvalid
            if flow.from.namespace() == Some(Ns::Node) && flow.protocol == Protocol::Tcp =>
        {
            Patience { wait: Duration::from_millis(1500), tries: 1 }
        }
        Expect::Dropped | Expect::DroppedOrInvalid => Patience::SHORT,
        _ => Patience::GENEROUS,
    }
}
