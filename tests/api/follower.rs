//! A source that runs, and what it has handed over so far.

use std::collections::BTreeMap;
use std::sync::{Arc, Condvar, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use shunt::metrics::exposition::{Format, encode};
use shunt::metrics::{KindLabel, Metrics};
use shunt::model::{Key, Kind, NodeName, Object, Update};
use shunt::notices::{self, Pace, Recorder, publish};
use shunt::source::convert::Context;
use shunt::source::watch::{self, Access, Limits, Options};
use tokio::sync::oneshot;

use crate::apiserver::Server;

/// A test that waits longer than this has failed.
const PATIENCE: Duration = Duration::from_secs(60);

/// What has been handed over.
#[derive(Debug, Default)]
pub struct Inbox {
    /// The state that results from every update so far.
    pub state: BTreeMap<Key, Object>,
    /// Every update, in order.
    pub updates: Vec<Update>,
    pub batches: usize,
}

impl Inbox {
    /// The complete lists of a kind, in order.
    pub fn resets(&self, kind: Kind) -> Vec<&[Object]> {
        let lists = self.updates.iter().filter_map(|update| match update {
            Update::Reset(of, objects) if *of == kind => Some(&**objects),
            _ => None,
        });
        lists.collect()
    }

    /// Whether the objects of a kind are exactly these.
    pub fn holds(&self, kind: Kind, objects: &[Value]) -> bool {
        let have = self.state.values().filter(|object| key(object).0 == kind);
        let want: BTreeMap<_, _> =
            objects.iter().map(|value| model(kind, value)).map(|o| (key(&o).1, o)).collect();
        have.eq(want.values())
    }

    fn take(&mut self, updates: Vec<Update>) {
        self.batches += 1;
        for update in &updates {
            match update.clone() {
                Update::Reset(kind, objects) => {
                    self.state.retain(|_, object| key(object).0 != kind);
                    self.state.extend(objects.into_iter().map(|object| (key(&object).1, object)));
                }
                Update::Set(object) | Update::SetSince(object, _) => {
                    drop(self.state.insert(key(&object).1, object));
                }
                Update::Delete(key) => drop(self.state.remove(&key)),
                Update::LocalAddresses(_) => panic!("the API does not know them"),
            }
        }
        self.updates.extend(updates);
    }
}

/// A source on a thread of its own. Dropping it ends it.
pub struct Follower {
    inbox: Arc<(Mutex<Inbox>, Condvar)>,
    pub metrics: Metrics,
    /// Takes notices from tests too.
    pub recorder: Recorder,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

/// Options for tests: as patient as needed and no more.
pub fn quick() -> Options {
    Options {
        backoff: Limits { first: Duration::from_millis(1), longest: Duration::from_millis(2) },
        ..Options::default()
    }
}

/// Follows with quick options.
pub fn follow(server: &Server) -> Follower {
    Follower::start(server, quick())
}

/// How to reach a server, without credentials.
pub fn access(server: &Server) -> Access {
    Access { master: Some(server.url().parse().unwrap()), ..Access::default() }
}

/// The node that the tests run on.
pub fn context() -> Context {
    Context::new(NodeName("here".into()), None)
}

impl Follower {
    pub fn start(server: &Server, options: Options) -> Self {
        Self::limited(server, context(), options, usize::MAX)
    }

    /// Follows as long as no more than `batches` have been handed over.
    pub fn limited(server: &Server, context: Context, options: Options, batches: usize) -> Self {
        Self::over(access(server), context, options, batches)
    }

    /// Follows whatever server there is behind `access`; what is wrong with objects becomes Events.
    pub fn over(access: Access, context: Context, options: Options, batches: usize) -> Self {
        let inbox = Arc::new((Mutex::new(Inbox::default()), Condvar::new()));
        let (metrics, (stop, stopped)) = (Metrics::default(), oneshot::channel());
        let (into, counted) = (Arc::clone(&inbox), metrics.clone());
        let (recorder, notices) = notices::channel(metrics.clone());
        let record = recorder.clone();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async move {
                let server = watch::connect(access, counted.clone()).await.unwrap();
                let sink = Box::new(move |updates| {
                    let mut inbox = into.0.lock().unwrap();
                    inbox.take(updates);
                    into.1.notify_all();
                    inbox.batches < batches
                });
                let node = context.node_name().clone();
                let pace = Pace { spread: Duration::ZERO, repeat: Duration::ZERO };
                let publish = publish(server.clone(), node, notices, counted.clone(), pace);
                tokio::select! {
                    () = publish => {}
                    () = watch::run(server, context, options, counted, recorder, sink) => {}
                    _ = stopped => {}
                }
            });
        });
        Self { inbox, metrics, recorder: record, stop: Some(stop), thread: Some(thread) }
    }

    /// Looks at what has come so far.
    pub fn look<T>(&self, look: impl FnOnce(&Inbox) -> T) -> T {
        look(&self.inbox.0.lock().unwrap())
    }

    /// Waits until what has come satisfies the condition.
    pub fn until(&self, what: &str, condition: impl Fn(&Inbox) -> bool) {
        let inbox = self.inbox.0.lock().unwrap();
        let (inbox, late) =
            self.inbox.1.wait_timeout_while(inbox, PATIENCE, |inbox| !condition(inbox)).unwrap();
        assert!(!late.timed_out(), "waited in vain until {what}; have {inbox:#?}");
    }

    /// Waits until the Services are exactly these.
    pub fn until_services(&self, services: &[Value]) {
        self.until("the Services are as they should be", |inbox| inbox.holds(Kind::Service, services));
    }

    /// Failed lists and watches of a kind.
    pub fn errors(&self, kind: Kind) -> u64 {
        self.metrics.watch_errors.get_or_create(&KindLabel { kind: kind.as_str() }).get()
    }

    /// Objects, or parts of them, of a kind that were left out.
    pub fn left_out(&self, kind: Kind) -> u64 {
        let mut registry = prometheus_client::registry::Registry::default();
        self.metrics.register(&mut registry);
        let text = encode(&registry, Format::Text).unwrap();
        let wanted = format!("shunt_objects_left_out_total{{kind=\"{}\"", kind.as_str());
        let counts = text.lines().filter(|line| line.starts_with(&wanted));
        counts.filter_map(|line| line.rsplit_once(' ')?.1.parse::<u64>().ok()).sum()
    }

    /// Waits until the source has ended by itself.
    pub fn join(mut self) {
        self.thread.take().unwrap().join().unwrap();
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
            && !std::thread::panicking()
        {
            panic!("the source panicked");
        }
    }
}

/// Waits for something that no update tells of.
pub fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < end, "waited in vain until {what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// A Service with one port.
pub fn service(name: &str, ip: &str) -> Value {
    json!({
        "metadata": {"namespace": "shop", "name": name, "labels": {"app": name}},
        "spec": {"clusterIP": ip, "clusterIPs": [ip], "ports": [{"port": 80, "protocol": "TCP"}], "type": "ClusterIP"}
    })
}

/// A slice of a Service, with one endpoint.
pub fn slice(service: &str, address: &str) -> Value {
    json!({
        "metadata": {"namespace": "shop", "name": format!("{service}-x"), "labels": {"kubernetes.io/service-name": service}},
        "addressType": "IPv4", "ports": [{"name": "", "port": 8080, "protocol": "TCP"}],
        "endpoints": [{"addresses": [address], "conditions": {"ready": true}}]
    })
}

/// What a JSON object comes to in the model.
fn model(kind: Kind, value: &Value) -> Object {
    fn read<T: serde::de::DeserializeOwned>(value: &Value) -> T {
        serde_json::from_value(value.clone()).unwrap()
    }
    let context = context();
    let converted = match kind {
        Kind::Service => context.service(&read(value)),
        Kind::EndpointSlice => context.endpoint_slice(&read(value)),
        Kind::Endpoints => context.endpoints(&read(value)),
        Kind::Node => context.node(&read(value)),
        Kind::ServiceCidr => context.service_cidr(&read(value)),
    };
    converted.outcome.unwrap().unwrap()
}

fn key(object: &Object) -> (Kind, Key) {
    match object {
        Object::Service(name, _) => (Kind::Service, Key::Service(name.clone())),
        Object::EndpointSlice(name, ..) => (Kind::EndpointSlice, Key::EndpointSlice(name.clone())),
        Object::Endpoints(name, _) => (Kind::Endpoints, Key::Endpoints(name.clone())),
        Object::Node(_) => (Kind::Node, Key::Node),
        Object::ServiceCidr(name, _) => (Kind::ServiceCidr, Key::ServiceCidr(name.clone())),
    }
}
