//! The event loop: everything that can wake the engine is an [`Event`]. EDGE: threads, channels and
//! the clock are here.

use std::cell::Cell;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant, SystemTime};

use tracing::{info, trace, warn};

use crate::backend::{Backend, BackendError};
use crate::conntrack::{Conntrack, ConntrackError};
use crate::engine::{Engine, Synced};
use crate::health::Reporter;
use crate::metrics::Metrics;
use crate::metrics::kube_proxy::seconds;
use crate::model::{Family, Update};
use crate::notices::Recorder;
use crate::schedule::Every;
use crate::source::Sink;

/// How often it is looked whether somebody else has changed what is programmed: often enough that what is
/// damaged works again within a second.
const CHECK: Duration = Duration::from_millis(250);
/// How often the backend tends to what it has programmed, and is asked what it has counted.
const TEND: Duration = Duration::from_secs(10);

/// What can wake the engine.
#[derive(Debug)]
pub enum Event {
    /// A source has news, which arrived at this time.
    Updates(Vec<Update>, Instant),
    /// A signal asks to end.
    Stop(&'static str),
    /// The configuration file has this text now, which makes a difference.
    Reload(String),
    /// What the configuration says must not fail has failed.
    Fail(String),
}

/// Why the loop ended.
#[derive(Debug)]
pub enum Ended {
    /// By a signal, or because everything is programmed and that was all (`--once`).
    Done,
    /// That was all (`--once`), but the kernel refuses these Services.
    Refused(Vec<String>),
    /// The backend cannot work.
    Backend(BackendError),
    /// The configuration has become this one: the program has to start afresh.
    Reload(String),
    /// Something failed that must not, as this sentence says.
    Failed(String),
}

/// Where events are put.
#[derive(Clone, Debug)]
pub struct Events(Sender<Event>);

impl Events {
    /// A sink for a source: every batch becomes one event.
    #[must_use]
    pub fn sink(&self) -> Sink {
        let events = self.clone();
        Box::new(move |updates| events.send(Event::Updates(updates, Instant::now())))
    }

    /// Sends an event; false when nobody listens any more.
    #[must_use]
    pub fn send(&self, event: Event) -> bool {
        self.0.send(event).is_ok()
    }
}

/// The loop, ready to run.
#[derive(Debug)]
pub struct EventLoop {
    events: Receiver<Event>,
    metrics: Metrics,
    reporter: Reporter,
    recorder: Recorder,
    begun: SystemTime,
    /// Objects have come since they were counted.
    uncounted: Cell<bool>,
}

impl EventLoop {
    /// A loop and the place where its events are put.
    #[must_use]
    pub fn new(metrics: Metrics, reporter: Reporter, recorder: Recorder) -> (Self, Events) {
        let (sender, events) = channel();
        let begun = SystemTime::now();
        (Self { events, metrics, reporter, recorder, begun, uncounted: Cell::new(true) }, Events(sender))
    }

    /// Runs until a signal, or with `once` until everything is programmed.
    ///
    /// The first event after a quiet time is programmed at once. Whatever arrives during a sync is
    /// taken in together before the next one: under load the size of syncs grows, not their number.
    ///
    /// `programmed` is called once: when the node is programmed for the first time.
    pub fn run<B: Backend>(
        &self,
        engine: &mut Engine<B>,
        conntrack: &mut impl Conntrack,
        once: bool,
        programmed: impl FnOnce(),
    ) -> Ended {
        let mut programmed = Some(programmed);
        let start = Instant::now();
        engine.read_ahead();
        let (mut check, mut tend) = (Every::new(CHECK, start), Every::new(TEND, start));
        loop {
            if let Err(ended) = self.rest(engine, &mut check, &mut tend) {
                return ended;
            }
            while let Ok(event) = self.events.try_recv() {
                if let Some(ended) = self.take(engine, event) {
                    return ended;
                }
            }
            match self.sync(engine) {
                Ok(true) => programmed.take().into_iter().for_each(|programmed| programmed()),
                Ok(false) => {}
                Err(error) => return Ended::Backend(error),
            }
            self.review(engine, conntrack);
            if once && engine.is_settled() {
                return Ended::Done;
            }
            let refused = engine.refused();
            if once && !refused.is_empty() {
                return Ended::Refused(refused);
            }
        }
    }

    /// Takes in events until Services and EndpointSlices are listed: for a dry run.
    pub fn fill<B: Backend>(&self, engine: &mut Engine<B>) -> Option<Ended> {
        while !engine.complete(Instant::now()) {
            if let Err(ended) = self.wait(engine, None) {
                return Some(ended);
            }
        }
        None
    }

    /// Waits until there is something to do, and looks now and then whether others have seen to that.
    fn rest<B: Backend>(
        &self,
        engine: &mut Engine<B>,
        check: &mut Every,
        tend: &mut Every,
    ) -> Result<(), Ended> {
        loop {
            let arrived = self.wait(engine, Some(check.due().min(tend.due())))?;
            let now = Instant::now();
            let found = check.is_due(now) && engine.check(now);
            let tended = tend.is_due(now);
            if tended {
                engine.tend();
                self.look(engine);
            }
            // Now and then the loop comes round even so, to show that it moves.
            if arrived || found || tended || engine.deadline().is_some_and(|deadline| deadline <= now) {
                return Ok(());
            }
        }
    }

    /// Waits for an event, the engine's deadline, or `until`; returns whether there was an event.
    fn wait<B: Backend>(&self, engine: &mut Engine<B>, until: Option<Instant>) -> Result<bool, Ended> {
        let event = match engine.deadline().into_iter().chain(until).min() {
            None => self.events.recv().map_err(|_| RecvTimeoutError::Disconnected),
            Some(deadline) => self.events.recv_timeout(deadline.saturating_duration_since(Instant::now())),
        };
        match event {
            Ok(event) => self.take(engine, event).map_or(Ok(true), Err),
            Err(RecvTimeoutError::Timeout) => Ok(false),
            Err(RecvTimeoutError::Disconnected) => Err(Ended::Done),
        }
    }

    /// Takes over what the backend has counted, and counts what is known if that can have changed.
    fn look<B: Backend>(&self, engine: &mut Engine<B>) {
        if self.uncounted.take() {
            self.metrics.set_known(&engine.counts());
        }
        for (family, count) in engine.not_remembered().into_iter().filter(|(_, count)| *count > 0) {
            self.metrics.affinity_not_remembered.get_or_create(&family.into()).inc_by(count);
            warn!(
                %family,
                "{count} connections to Services with ClientIP affinity were served without their client being \
                 remembered: one of them has more clients than --affinity-clients"
            );
        }
    }

    /// Returns whether everything is programmed now, apart from Services that the kernel refuses.
    fn sync<B: Backend>(&self, engine: &mut Engine<B>) -> Result<bool, BackendError> {
        let start = Instant::now();
        // Said before, too: a sync that does not come back counts as one that does not keep up.
        self.reporter.programming(|programming| {
            programming.alive = Some(start);
            engine.tell(programming);
        });
        let synced = engine.sync(start)?;
        let end = Instant::now();
        self.report(engine, &synced, end - start);
        synced.notices.into_iter().for_each(|notice| self.recorder.record(notice));
        for family in synced.failures {
            self.metrics.sync_failures.get_or_create(&family.into()).inc();
        }
        for (family, operations) in &synced.put_right {
            self.metrics.drift_repaired.get_or_create(&(*family).into()).inc();
            let operations = u64::try_from(*operations).unwrap_or(u64::MAX);
            self.metrics.drift_operations.get_or_create(&(*family).into()).inc_by(operations);
        }
        if !synced.written.is_empty() {
            self.metrics.sync_duration.observe((end - start).as_secs_f64());
        }
        if let Some(since) = synced.programmed_since {
            self.metrics.event_to_commit.observe((end - since).as_secs_f64());
        }
        Ok(synced.kept_up)
    }

    /// Tells servers and dashboards what a sync has done.
    fn report<B: Backend>(&self, engine: &mut Engine<B>, synced: &Synced, took: Duration) {
        let time = SystemTime::now();
        self.reporter.programming(|programming| {
            engine.tell(programming);
            if synced.kept_up {
                programming.synced = Some(time);
            }
        });
        let health = engine.health();
        self.reporter.ports(health.take_changes());
        let metrics = &self.metrics.kube_proxy;
        for (family, without) in health.without_local() {
            metrics.set_without_local(family, without);
        }
        self.count(engine, synced, time, took);
        if synced.kept_up {
            metrics.service_changes_pending.set(0);
            metrics.endpoint_changes_pending.set(0);
            for family in Family::ALL {
                metrics.last_sync.get_or_create(&family.into()).set(seconds(time));
            }
        }
    }

    /// What was written, which changes it ends, and what the kernel still refuses.
    fn count<B: Backend>(&self, engine: &Engine<B>, synced: &Synced, time: SystemTime, took: Duration) {
        let (metrics, proxy) = (&self.metrics, &self.metrics.kube_proxy);
        for written in &synced.written {
            let label = written.family.into();
            let operations = u64::try_from(written.receipt.operations).unwrap_or(u64::MAX);
            metrics.operations.get_or_create(&label).inc_by(operations);
            let changes = u32::try_from(written.changes).unwrap_or(u32::MAX);
            metrics.plan_changes.get_or_create(&label).observe(changes.into());
            proxy.observe_sync(written.family, written.full, took.as_secs_f64());
            trace!(?written, "written");
        }
        // As in kube-proxy: what happened before we began says nothing about us.
        for (family, since) in synced.triggered.iter().filter(|(_, since)| *since > self.begun) {
            let latency = time.duration_since(*since).unwrap_or_default();
            proxy.network_programming.get_or_create(&(*family).into()).observe(latency.as_secs_f64());
        }
        for (family, refused) in engine.refused_counts() {
            let refused = i64::try_from(refused).unwrap_or(i64::MAX);
            metrics.refused_services.get_or_create(&family.into()).set(refused);
        }
    }

    fn take<B: Backend>(&self, engine: &mut Engine<B>, event: Event) -> Option<Ended> {
        match event {
            Event::Updates(updates, at) => {
                self.metrics.kube_proxy.count_changes(&updates, SystemTime::now());
                engine.take(updates, at);
                self.uncounted.set(true);
                None
            }
            Event::Stop(signal) => {
                let then = if engine.outlives_us() {
                    "what is programmed stays (`shunt cleanup` removes it)"
                } else {
                    "Services are refused until shunt is back"
                };
                info!("{signal}: ending; {then}");
                Some(Ended::Done)
            }
            Event::Reload(text) => Some(Ended::Reload(text)),
            Event::Fail(what) => Some(Ended::Failed(what)),
        }
    }

    /// Brings conntrack in line with what is programmed. Its failures stop nothing.
    fn review<B: Backend>(&self, engine: &mut Engine<B>, conntrack: &mut impl Conntrack) {
        let mut start = Instant::now();
        while let Some(review) = engine.next_review(start) {
            let family = review.family;
            let result = conntrack.reconcile(&review);
            let end = Instant::now();
            let durations = &self.metrics.kube_proxy.conntrack_duration;
            durations.get_or_create(&family.into()).observe((end - start).as_secs_f64());
            let wait = engine.reviewed(family, result.is_ok(), end - start, end).unwrap_or_default();
            match result {
                Ok(deleted) => {
                    self.metrics.conntrack_deleted.get_or_create(&family.into()).inc_by(deleted);
                }
                Err(error) => {
                    self.metrics.conntrack_failures.get_or_create(&family.into()).inc();
                    if !matches!(error, ConntrackError::Missing) {
                        warn!(
                            "{family} flows to removed endpoints may stay; next attempt in {wait:.0?}: {error}"
                        );
                    }
                }
            }
            start = end;
        }
    }
}

#[cfg(test)]
mod tests;
