//! Writes Events. EDGE. Nothing waits for it, and what fails is counted and forgotten.

use std::hash::{BuildHasher, RandomState};
use std::time::{Duration, Instant};

use http_body_util::BodyExt;
use hyper::header::CONTENT_TYPE;
use hyper::{Method, Request};
use k8s_openapi::jiff::Timestamp;
use serde_json::Value;

use super::event::{Place, event, name, series};
use super::limit::{Limit, Verdict};
use super::{Notice, Recorded};
use crate::metrics::{Metrics, ResultLabel};
use crate::model::NodeName;
use crate::source::watch::Server;

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// When Events are written.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// The longest wait before a notice is looked at, by chance, since a bad object reaches every node at
    /// once. Default: 10 s.
    pub spread: Duration,
    /// After how long a notice that repeats is written again, with how often it has. Default: 5 min.
    pub repeat: Duration,
}

impl Default for Pace {
    fn default() -> Self {
        Self { spread: Duration::from_secs(10), repeat: Duration::from_secs(300) }
    }
}

/// Writes what is recorded for as long as somebody can record.
pub async fn publish(server: Server, node: NodeName, mut recorded: Recorded, metrics: Metrics, pace: Pace) {
    let mut publisher = Publisher {
        server,
        node,
        metrics,
        limit: Limit::new(pace.repeat, Instant::now()),
        complained: false,
    };
    while let Some(notice) = recorded.0.recv().await {
        tokio::time::sleep(pace.spread.mul_f64(dice())).await;
        publisher.take(&notice).await;
        while let Ok(notice) = recorded.0.try_recv() {
            publisher.take(&notice).await;
        }
    }
}

fn dice() -> f64 {
    let random = RandomState::new().hash_one(0_u8) >> 32;
    f64::from(u32::try_from(random).unwrap_or_default()) / f64::from(u32::MAX)
}

struct Publisher {
    server: Server,
    node: NodeName,
    metrics: Metrics,
    limit: Limit,
    /// It was said that Events cannot be written.
    complained: bool,
}

impl Publisher {
    async fn take(&mut self, notice: &Notice) {
        let Some(place) = Place::of(notice) else { return };
        let result = match self.limit.judge(notice, Instant::now()) {
            Verdict::Known => return,
            Verdict::TooMany => Ok("dropped"),
            Verdict::Create => self.write(notice, &place, 1).await,
            Verdict::Count(count) => self.write(notice, &place, count).await,
        };
        let word = result.unwrap_or_else(|why| {
            self.limit.forget(notice);
            if std::mem::replace(&mut self.complained, true) {
                tracing::debug!("an Event cannot be written: {why}");
            } else {
                tracing::info!("Kubernetes Events cannot be written, the log says the same: {why}");
            }
            "failed"
        });
        self.metrics.events.get_or_create(&ResultLabel { result: word }).inc();
    }

    /// Creates the Event, or counts in the one that there is.
    async fn write(&self, notice: &Notice, place: &Place, count: u32) -> Result<&'static str, String> {
        let Some(uid) = self.uid(place).await? else { return Ok("dropped") };
        let (now, node) = (Timestamp::now(), &*self.node.0);
        let path = place.events_path();
        if count > 1 {
            let known = format!("{path}/{}", name(notice, place, &uid, node));
            match self.ask(Method::PATCH, &known, Some(&series(count, now))).await? {
                (200, _) => return Ok("updated"),
                // Events live for an hour.
                (404, _) => {}
                (code, body) => return Err(refusal("patch", code, &body)),
            }
        }
        match self.ask(Method::POST, &path, Some(&event(notice, place, &uid, node, now))).await? {
            (201, _) => Ok("created"),
            (409, _) => Ok("known"),
            (code, body) => Err(refusal("create", code, &body)),
        }
    }

    /// `kubectl describe` finds the Events of an object by its UID, which nobody else needs: so it is not
    /// kept, but looked up. `None` if the object has gone meanwhile.
    async fn uid(&self, place: &Place) -> Result<Option<String>, String> {
        let (code, body) = self.ask(Method::GET, &place.list_path(), None).await?;
        let list: Value = serde_json::from_slice(&body).unwrap_or_default();
        match list["items"][0]["metadata"]["uid"].as_str() {
            Some(uid) => Ok(Some(uid.to_owned())),
            None if code == 200 => Ok(None),
            None => Err(refusal("find the object of", code, &body)),
        }
    }

    async fn ask(&self, method: Method, path: &str, body: Option<&Value>) -> Result<(u16, Vec<u8>), String> {
        let kind = if method == Method::PATCH { "application/merge-patch+json" } else { "application/json" };
        let body = body.map(|body| body.to_string().into_bytes()).unwrap_or_default();
        let request = Request::builder().method(method).uri(path).header(CONTENT_TYPE, kind).body(body);
        let request = request.map_err(|error| error.to_string())?;
        let answer = self.server.send(request, PATIENCE).await.map_err(|failure| failure.to_string())?;
        let code = answer.status().as_u16();
        let body = tokio::time::timeout(PATIENCE, answer.into_body().collect()).await;
        let body = body.map_err(|_| "the API server falls silent".to_owned())?;
        let body = body.map_err(|error| error.to_string())?;
        Ok((code, body.to_bytes().to_vec()))
    }
}

/// What the server says, and which right may be missing.
fn refusal(verb: &str, code: u16, body: &[u8]) -> String {
    let status: Value = serde_json::from_slice(body).unwrap_or_default();
    let message = status["message"].as_str().unwrap_or_default();
    let hint = if code == 403 { "; the role needs create and patch on events of events.k8s.io" } else { "" };
    format!("the API server refuses to {verb} an Event: {code} {message}{hint}")
}
