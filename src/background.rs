//! The thread on which everything asynchronous runs. EDGE.

use std::{io, thread};

use tokio::runtime::Runtime;
use tracing::{error, warn};

use crate::config::Config;
use crate::exit::Exit;
use crate::health;
use crate::metrics::Metrics;
use crate::notices::{self, Pace, Recorded, Recorder};
use crate::reload::{self, Watched};
use crate::run::{Event, Events};
use crate::serve;
use crate::source::{addresses, convert, watch};
use crate::sysctl;

/// What a shunt has that does not end by itself.
pub struct Lasting {
    /// The configuration in force.
    pub config: Config,
    /// What health servers tell.
    pub shown: health::Shown,
    /// The configuration file, to be followed.
    pub watched: Option<Watched>,
    /// Settings of the node that do not exist yet.
    pub later: Vec<sysctl::Setting>,
}

/// Everything asynchronous: signals, the node's addresses, the configuration, HTTP, the API.
#[derive(Debug)]
pub struct Background(Runtime);

impl Background {
    /// The runtime, which does nothing yet.
    ///
    /// # Errors
    /// Why there can be none.
    pub fn new() -> io::Result<Self> {
        Ok(Self(tokio::runtime::Builder::new_current_thread().enable_all().build()?))
    }

    /// Waits on this thread for something that the start of the program needs.
    pub fn wait_for<T>(&self, what: impl Future<Output = T>) -> T {
        self.0.block_on(what)
    }

    /// The node's addresses as they are now: NodePort addresses must not vanish with a restart.
    pub fn read_addresses(&self, events: &Events) {
        match self.0.block_on(addresses::initial()) {
            Ok(update) => _ = events.sink()(vec![update]),
            Err(error) => warn!("the node's own addresses are not known yet: {error}"),
        }
    }

    /// Goes on with all of it on a thread of its own.
    ///
    /// # Errors
    /// Why there can be no thread.
    pub fn start(
        self,
        events: &Events,
        lasting: Option<Lasting>,
        metrics: Metrics,
        recorder: Recorder,
        api: Option<Api>,
    ) -> io::Result<()> {
        let events = events.clone();
        let run = move || {
            self.0.block_on(async move {
                let lasting = async {
                    if let Some(Lasting { config, shown, watched, later }) = lasting {
                        let reload = reload::follow(watched, metrics.clone(), events.clone());
                        let serve = serve::all(config, metrics.clone(), shown, recorder.clone(), &events);
                        tokio::join!(serve, reload, sysctl::set_later(later));
                    }
                };
                let objects = async {
                    if let Some(api) = api {
                        api.follow(&events, &metrics, &recorder).await;
                    }
                };
                tokio::join!(watch_signals(&events), addresses::follow(events.sink()), lasting, objects);
            });
        };
        thread::Builder::new().name("background".into()).spawn(run).map(drop)
    }
}

/// The API server, and what is done with it.
pub struct Api {
    /// The server.
    pub server: watch::Server,
    /// How its objects are read.
    pub context: convert::Context,
    /// What is followed.
    pub options: watch::Options,
    /// What becomes Kubernetes Events; nothing in a dry run.
    pub notices: Option<Recorded>,
}

impl Api {
    async fn follow(self, events: &Events, metrics: &Metrics, recorder: &Recorder) {
        let (server, node) = (self.server.clone(), self.context.node_name().clone());
        let publish = async {
            if let Some(notices) = self.notices {
                notices::publish(server, node, notices, metrics.clone(), Pace::default()).await;
            }
        };
        let (metrics, recorder) = (metrics.clone(), recorder.clone());
        let objects = watch::run(self.server, self.context, self.options, metrics, recorder, events.sink());
        tokio::join!(publish, objects);
    }
}

/// A first signal ends the loop in order, a second one the process.
async fn watch_signals(events: &Events) {
    use tokio::signal::unix::{SignalKind, signal};
    let (Ok(mut terminate), Ok(mut interrupt)) =
        (signal(SignalKind::terminate()), signal(SignalKind::interrupt()))
    else {
        error!("signals cannot be watched: SIGTERM and SIGINT end shunt without a word");
        return;
    };
    let mut attempt = 0;
    loop {
        let name = tokio::select! {
            _ = terminate.recv() => "SIGTERM",
            _ = interrupt.recv() => "SIGINT",
        };
        attempt += 1;
        if attempt > 1 || !events.send(Event::Stop(name)) {
            std::process::exit(Exit::Ok.code().into());
        }
    }
}
