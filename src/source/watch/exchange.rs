//! Requests and answers: one list page, or a watch as blocks of lines. EDGE.

use std::time::Duration;

use futures::{FutureExt, StreamExt};
use http_body_util::{BodyDataStream, BodyExt};
use kube::api::{ListParams, WatchParams};
use kube::client::Body;
use kube::core::Status;
use serde::Deserialize;
use serde_json::value::RawValue;
use tokio::time::timeout;

use super::connect::Server;
use super::failure::Failure;

/// A watch's lines are handed over when this many bytes have come, even if more are there already.
const BLOCK: usize = 256 * 1024;
/// Of a refusal's body no more is read.
const LONGEST_REFUSAL: usize = 16 * 1024;
/// A server or proxy that asks for more patience than this is asked earlier all the same.
const LONGEST_RETRY_AFTER: Duration = Duration::from_secs(60);

/// A list, or one page of it; its objects are still text.
#[derive(Deserialize)]
pub(super) struct Page<'a> {
    #[serde(default)]
    pub(super) metadata: PageMetadata,
    /// Null where there are none.
    #[serde(borrow, default)]
    pub(super) items: Option<Vec<&'a RawValue>>,
}

/// Where a list stands.
#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct PageMetadata {
    pub(super) resource_version: Option<String>,
    #[serde(rename = "continue")]
    pub(super) next: Option<String>,
}

/// One line of a watch; its object is still text.
#[derive(Deserialize)]
pub(super) struct Event<'a> {
    #[serde(rename = "type")]
    pub(super) kind: EventKind,
    #[serde(borrow)]
    pub(super) object: &'a RawValue,
}

/// What a watch tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub(super) enum EventKind {
    Added,
    Modified,
    Deleted,
    Bookmark,
    Error,
}

/// The part of an object that we need even where the rest cannot be read.
#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct Head {
    pub(super) metadata: HeadMetadata,
}

/// The part of an object's metadata that every kind has.
#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct HeadMetadata {
    pub(super) name: Option<String>,
    pub(super) namespace: Option<String>,
    pub(super) resource_version: Option<String>,
    pub(super) annotations: Option<std::collections::BTreeMap<String, String>>,
}

impl HeadMetadata {
    /// Whether this is the bookmark that ends a streamed list (KEP-3157).
    pub(super) fn ends_list(&self) -> bool {
        self.annotations.as_ref().is_some_and(|all| all.contains_key("k8s.io/initial-events-end"))
    }
}

/// What is asked of the server.
pub(super) enum Ask {
    /// A list, or one page of it.
    List(ListParams),
    /// A watch from this resource version.
    Watch(WatchParams, String),
}

impl Ask {
    fn verb(&self) -> &'static str {
        match self {
            Self::List(_) => "list",
            Self::Watch(..) => "watch",
        }
    }
}

/// One resource of a server.
pub(super) struct Endpoint<'a> {
    pub(super) server: &'a Server,
    /// How long the server may be silent before an answer is given up.
    pub(super) patience: Duration,
    /// `/api/v1/services`.
    pub(super) path: String,
    /// The resource as a role names it: `endpointslices.discovery.k8s.io`.
    pub(super) resource: String,
}

impl Endpoint<'_> {
    /// Sends the request; the answer's body where the status is success.
    pub(super) async fn send(&self, ask: &Ask) -> Result<BodyDataStream<Body>, Failure> {
        let builder = kube::core::Request::new(&self.path);
        let request = match ask {
            Ask::List(params) => builder.list(params),
            Ask::Watch(params, version) => builder.watch(params, version),
        };
        let request = request.map_err(|error| Failure::Unreadable(error.to_string()))?;
        let response = self.server.send(request, self.patience).await?;
        let code = response.status().as_u16();
        let retry_after = response.headers().get("retry-after").and_then(|value| value.to_str().ok());
        let retry_after = retry_after.and_then(|value| value.parse().ok()).map(Duration::from_secs);
        let retry_after = retry_after.map(|wait| wait.min(LONGEST_RETRY_AFTER));
        let body = response.into_body().into_data_stream();
        if (200..300).contains(&code) {
            return Ok(body);
        }
        let text = self.whole(body, LONGEST_REFUSAL).await.unwrap_or_default();
        Err(self.refused(ask.verb(), Some(code), &text, retry_after))
    }

    /// The failure that a status, and the text that came with it, stand for.
    pub(super) fn refused(
        &self,
        verb: &'static str,
        code: Option<u16>,
        text: &[u8],
        retry_after: Option<Duration>,
    ) -> Failure {
        let mut status: Status = serde_json::from_slice(text).unwrap_or_else(|_| {
            let text = String::from_utf8_lossy(text);
            Status::failure(text.lines().next().unwrap_or_default().trim(), "")
        });
        status.code = code.unwrap_or(status.code);
        if status.code == 410 {
            return Failure::Expired;
        }
        Failure::Refused { verb, resource: self.resource.clone(), status: status.boxed(), retry_after }
    }

    /// The whole body, or the first `limit` bytes of it and what came with them.
    pub(super) async fn whole(
        &self,
        mut body: BodyDataStream<Body>,
        limit: usize,
    ) -> Result<Vec<u8>, Failure> {
        let mut whole = Vec::new();
        while whole.len() < limit {
            match timeout(self.patience, body.next()).await {
                Err(_) => return Err(Failure::Silent(self.patience)),
                Ok(None) => break,
                Ok(Some(data)) => whole.extend_from_slice(&data.map_err(|error| broken(&error))?),
            }
        }
        Ok(whole)
    }
}

fn broken(error: &kube::Error) -> Failure {
    let mut inner: &dyn std::error::Error = error;
    while let Some(cause) = inner.source() {
        inner = cause;
    }
    Failure::Broken(inner.to_string())
}

/// What a wait for lines brought.
pub(super) enum Heard<'a> {
    /// Whole lines.
    Lines(&'a [u8]),
    /// Nothing within the time given.
    Nothing,
    /// The end, in good order. A line without its end is dropped: it is what a cut leaves.
    End,
}

/// A watch's body, taken apart into whole lines.
pub(super) struct Lines {
    body: BodyDataStream<Body>,
    buffer: Vec<u8>,
    /// How much of the buffer is whole lines, and handed over already when `next` is called again.
    whole: usize,
    /// How the body ended, to be told once every line is handed over.
    ended: Option<Result<(), Failure>>,
}

impl Lines {
    pub(super) fn new(body: BodyDataStream<Body>) -> Self {
        Self { body, buffer: Vec::new(), whole: 0, ended: None }
    }

    /// The next whole lines: at least one, and every other that has come as well, so that a burst is one
    /// batch. Nothing is lost when this is dropped halfway.
    pub(super) async fn next(&mut self, wait: Duration) -> Result<Heard<'_>, Failure> {
        self.buffer.drain(..self.whole);
        self.whole = 0;
        while self.whole == 0 {
            match self.ended.take() {
                Some(Ok(())) => return Ok(Heard::End),
                Some(Err(failure)) => return Err(failure),
                None => {}
            }
            match timeout(wait, self.body.next()).await {
                Err(_) => return Ok(Heard::Nothing),
                Ok(data) => self.take(data),
            }
        }
        // the connection is read by another task: it gets one turn before we take no for an answer
        let mut yielded = false;
        while self.ended.is_none() && self.buffer.len() < BLOCK {
            match self.body.next().now_or_never() {
                Some(data) => {
                    self.take(data);
                    yielded = false;
                }
                None if yielded => break,
                None => {
                    tokio::task::yield_now().await;
                    yielded = true;
                }
            }
        }
        Ok(Heard::Lines(&self.buffer[..self.whole]))
    }
    fn take(&mut self, data: Option<Result<impl AsRef<[u8]>, kube::Error>>) {
        match data {
            None => self.ended = Some(Ok(())),
            Some(Err(error)) => self.ended = Some(Err(broken(&error))),
            Some(Ok(data)) => {
                let data = data.as_ref();
                if let Some(last) = data.iter().rposition(|byte| *byte == b'\n') {
                    self.whole = self.buffer.len() + last + 1;
                }
                self.buffer.extend_from_slice(data);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::Metrics;
    use crate::source::watch::{Access, connect};

    #[tokio::test]
    async fn a_server_that_is_not_there_is_named_with_the_reason() {
        for url in ["http://127.0.0.1:1/", "https://127.0.0.1:1/"] {
            let access = Access { master: Some(url.parse().unwrap()), ..Access::default() };
            let server = connect(access, Metrics::default()).await.unwrap();
            let (path, resource) = ("/api/v1/services".to_string(), "services".to_string());
            let endpoint = Endpoint { server: &server, patience: Duration::from_secs(60), path, resource };
            let failure = endpoint.send(&Ask::List(ListParams::default())).await.err().unwrap();
            let said = format!("cannot reach the API server at {url}: Connection refused (os error 111)");
            assert_eq!(failure.to_string(), said);
        }
    }
}
