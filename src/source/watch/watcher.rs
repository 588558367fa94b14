//! One kind, listed and watched for ever. EDGE.

#[cfg(test)]
mod tests;

use std::hash::{BuildHasher, RandomState};
use std::sync::PoisonError;
use std::time::{Duration, Instant};

use kube::api::{ListParams, WatchParams};

use super::Shared;
use super::backoff::Backoff;
use super::exchange::{Ask, Endpoint, Heard, Lines, Page};
use super::failure::Failure;
use super::kinds::{Selectors, Watched};
use super::reader::{Reader, Said, set_object};
use crate::metrics::{KindLabel, ListLabel};
use crate::model::{Object, Update};

/// A watch that has stood for this long works, even if nothing has happened in it.
const SETTLED: Duration = Duration::from_secs(1);
/// After its time is up the server has this long to end a watch before the connection counts as dead.
const OVERDUE: Duration = Duration::from_secs(15);

/// What has gone wrong last, if no watch has stood since.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Trouble {
    None,
    /// Something: another server may answer next, or the same one with other data.
    Failed,
    /// History had expired.
    Expired,
}

/// Follows one kind.
pub(super) struct Watcher<'a, K> {
    shared: &'a Shared,
    endpoint: Endpoint<'a>,
    selectors: Selectors,
    reader: Reader<'a, K>,
    backoff: Backoff,
    /// The resource version up to which everything is handed over; `None` before a list is complete.
    version: Option<String>,
    /// A streamed list was begun here and never ended, so pages are used.
    streams_hang: bool,
    trouble: Trouble,
    /// The server has been found without this API, and the sink knows.
    absent: bool,
    /// There was a watch already.
    watched: bool,
}

impl<'a, K: Watched> Watcher<'a, K> {
    pub(super) fn new(shared: &'a Shared) -> Self {
        let (plural, group) = (K::plural(&()), K::group(&()));
        let resource = if group.is_empty() { plural.to_string() } else { format!("{plural}.{group}") };
        let (server, patience) = (&shared.server, shared.options.patience);
        Self {
            shared,
            endpoint: Endpoint { server, patience, path: K::url_path(&(), None), resource },
            selectors: K::selectors(&shared.context),
            reader: Reader::new(&shared.context, &shared.metrics, &shared.recorder),
            backoff: Backoff::new(shared.options.backoff),
            version: None,
            streams_hang: false,
            trouble: Trouble::None,
            absent: false,
            watched: false,
        }
    }

    /// Lists and watches until the sink is closed.
    pub(super) async fn run(mut self) {
        loop {
            let ended = match self.version.clone() {
                None => self.list().await,
                Some(version) => self.watch(version).await,
            };
            let pause = match ended {
                Ok(()) => continue,
                Err(Failure::Closed) => return,
                Err(failure) if K::OPTIONAL && self.may_lack(&failure) => match self.without_api(&failure) {
                    Ok(pause) => pause,
                    Err(_) => return,
                },
                Err(failure) => self.failed(&failure),
            };
            tokio::time::sleep(pause).await;
        }
    }

    /// What a failure changes, and how long to wait.
    fn failed(&mut self, failure: &Failure) -> Duration {
        let kind = K::KIND.as_str();
        self.shared.metrics.watch_errors.get_or_create(&KindLabel { kind }).inc();
        let first = self.backoff.is_fresh();
        let pause = self.backoff.pause(dice()).max(failure.retry_after());
        if matches!(failure, Failure::Expired | Failure::Older) {
            tracing::info!(kind, "{failure}");
            self.version = None;
            // The server answers, however many failures there were before: whoever waited for it to come back does
            // not wait once more. Only if what was listed expires at once is there a pause.
            let again = std::mem::replace(&mut self.trouble, Trouble::Expired) == Trouble::Expired;
            return if again { pause } else { Duration::ZERO };
        }
        self.trouble = Trouble::Failed;
        if first && self.version.is_some() && failure.is_cut() {
            tracing::debug!(kind, "{failure}");
        } else {
            self.shared.metrics.watch_failing.get_or_create(&KindLabel { kind }).set(1);
            self.shared.report.failed(K::KIND, failure);
        }
        pause
    }

    /// Whether a failure means that there are none of this kind, for all that we may know.
    fn may_lack(&self, failure: &Failure) -> bool {
        failure.is_absent() || (failure.is_forbidden() && self.version.is_none())
    }

    /// The server does not have this kind, or does not show it to us: so there are none of it.
    fn without_api(&mut self, failure: &Failure) -> Result<Duration, Failure> {
        self.version = None;
        if !self.absent {
            if failure.is_absent() {
                tracing::info!(
                    kind = K::KIND.as_str(),
                    "the API server does not have this API, which is fine"
                );
            } else {
                tracing::warn!("{failure}; going on without {}", self.endpoint.resource);
            }
            self.hand_over(vec![Update::Reset(K::KIND, Vec::new())])?;
            self.works();
        }
        self.absent = true;
        Ok(self.shared.options.absent)
    }

    fn works(&mut self) {
        let kind = K::KIND.as_str();
        self.shared.metrics.watch_failing.get_or_create(&KindLabel { kind }).set(0);
        self.shared.report.works(K::KIND);
    }

    fn hand_over(&mut self, updates: Vec<Update>) -> Result<(), Failure> {
        let mut sink = self.shared.sink.lock().unwrap_or_else(PoisonError::into_inner);
        let listening = updates.is_empty() || sink(updates);
        if listening { Ok(()) } else { Err(Failure::Closed) }
    }

    /// Makes a list complete: streamed, and then followed, or in pages where the server does not stream.
    async fn list(&mut self) -> Result<(), Failure> {
        if self.streams_hang {
            return self.list_pages().await;
        }
        match self.list_and_follow().await {
            Err(failure) if self.version.is_none() && failure.is_no_stream() => self.list_pages().await,
            // A server gives up on a watch that lags more than some 100 changes behind, and until the list is out every
            // change has to wait (kubernetes/kubernetes 127553): where there are hundreds in a second each try would end
            // like this one.
            Err(Failure::Short(_)) if self.version.is_none() => {
                let kind = K::KIND.as_str();
                tracing::info!(kind, "the API server ends a list before it is complete: reading it in pages");
                self.shared.metrics.watch_errors.get_or_create(&KindLabel { kind }).inc();
                self.list_pages().await
            }
            ended => {
                self.streams_hang = self.version.is_none() && matches!(ended, Err(Failure::Silent(_)));
                ended
            }
        }
    }

    async fn list_and_follow(&mut self) -> Result<(), Failure> {
        // without a version the list is at least as new as the moment of asking
        let (mut lines, lasts) = self.open(String::new(), true).await?;
        self.list_stream(&mut lines).await?;
        self.watched = true;
        self.follow(lines, lasts).await
    }

    async fn watch(&mut self, version: String) -> Result<(), Failure> {
        if self.trouble == Trouble::Failed {
            self.check_age(&version).await?;
        }
        let (lines, lasts) = self.open(version, false).await?;
        if self.watched {
            self.shared.metrics.watch_restarts.get_or_create(&KindLabel { kind: K::KIND.as_str() }).inc();
        }
        self.watched = true;
        self.follow(lines, lasts).await
    }

    /// Whether the server is as far as we are. After etcd was restored from a backup it is not: then it takes our
    /// version for one that is still to come, and says nothing until it has, however much changes.
    async fn check_age(&self, version: &str) -> Result<(), Failure> {
        let text = match self.page(&ListParams { limit: Some(1), ..self.selected() }).await {
            // the watch tells what is wrong; a server that is busy would take a watch sooner than this
            Err(Failure::Expired) => return Ok(()),
            Err(Failure::Refused { status, .. }) if status.code < 500 && status.code != 429 => return Ok(()),
            text => text?,
        };
        let page = page(&text)?;
        let theirs = page.metadata.resource_version.and_then(|version| version.parse::<u64>().ok());
        match (theirs, version.parse::<u64>().ok()) {
            (Some(theirs), Some(ours)) if theirs < ours => Err(Failure::Older),
            _ => Ok(()),
        }
    }

    /// Opens a watch: its lines, and how long it will last.
    async fn open(&self, version: String, with_list: bool) -> Result<(Lines, Duration), Failure> {
        let lasts = self.shared.options.watch.mul_f64(1.0 - 0.2 * dice()).as_secs().max(1);
        let Selectors { labels, fields } = self.selectors.clone();
        let params = WatchParams {
            label_selector: labels,
            field_selector: fields,
            timeout: Some(u32::try_from(lasts).unwrap_or(u32::MAX)),
            bookmarks: true,
            send_initial_events: with_list,
        };
        let body = self.endpoint.send(&Ask::Watch(params, version)).await?;
        Ok((Lines::new(body), Duration::from_secs(lasts)))
    }

    /// The part of a watch that is a list, up to the bookmark that ends it. What changes meanwhile may come
    /// before that bookmark too: it goes into the same batch, behind the list.
    async fn list_stream(&mut self, lines: &mut Lines) -> Result<(), Failure> {
        let (mut objects, mut changes): (Vec<Object>, Vec<Update>) = Default::default();
        loop {
            let block = match lines.next(self.shared.options.patience).await? {
                Heard::Lines(block) => block,
                Heard::Nothing => return Err(Failure::Silent(self.shared.options.patience)),
                Heard::End => return Err(Failure::Short("list before it is complete")),
            };
            let mut rest = block.split_inclusive(|byte| *byte == b'\n');
            while let Some(line) = rest.next() {
                match self.line(line)? {
                    (Said::Added(update), _) if changes.is_empty() => {
                        objects.extend(update.and_then(set_object));
                    }
                    (Said::Added(update) | Said::Changed(update), _) => changes.extend(update),
                    (Said::Bookmark, _) => {}
                    (Said::ListEnd, version) => {
                        self.listed("stream", objects, changes, version)?;
                        // the rest of the block belongs to the watch
                        return self.block(rest);
                    }
                }
            }
        }
    }

    /// A list in pages. Nothing of it is handed over before the last page is there.
    async fn list_pages(&mut self) -> Result<(), Failure> {
        let mut params = ListParams { limit: Some(self.shared.options.page_size), ..self.selected() };
        let mut objects = Vec::new();
        loop {
            let text = self.page(&params).await?;
            let page = page(&text)?;
            objects.extend(
                page.items.unwrap_or_default().into_iter().filter_map(|item| self.reader.listed(item)),
            );
            params.continue_token = page.metadata.next.filter(|token| !token.is_empty());
            if params.continue_token.is_none() {
                return self.listed("pages", objects, Vec::new(), page.metadata.resource_version);
            }
        }
    }

    /// A list of all objects that concern us.
    fn selected(&self) -> ListParams {
        let Selectors { labels, fields } = self.selectors.clone();
        ListParams { label_selector: labels, field_selector: fields, ..ListParams::default() }
    }

    /// The text of one page.
    async fn page(&self, params: &ListParams) -> Result<Vec<u8>, Failure> {
        let body = self.endpoint.send(&Ask::List(params.clone())).await?;
        self.endpoint.whole(body, usize::MAX).await
    }

    /// A list is complete.
    fn listed(
        &mut self,
        how: &'static str,
        objects: Vec<Object>,
        changes: Vec<Update>,
        version: Option<String>,
    ) -> Result<(), Failure> {
        let Some(version) = version.filter(|version| !version.is_empty()) else {
            return Err(Failure::Unreadable("a list has no resource version".to_string()));
        };
        let kind = K::KIND.as_str();
        tracing::debug!(kind, objects = objects.len(), version, how, "listed");
        let mut updates = vec![Update::Reset(K::KIND, objects)];
        updates.extend(changes);
        self.hand_over(updates)?;
        self.version = Some(version);
        self.absent = false;
        if self.trouble == Trouble::Failed {
            self.trouble = Trouble::None;
        }
        self.shared.metrics.lists.get_or_create(&ListLabel { kind, how }).inc();
        self.shared.report.listed(K::KIND);
        self.works();
        Ok(())
    }

    /// Hands over what happens until the watch ends. In good order is only an end that does not come at
    /// once: else a server that ends every watch would be asked in a tight loop.
    async fn follow(&mut self, mut lines: Lines, lasts: Duration) -> Result<(), Failure> {
        let (begun, end) = (Instant::now(), Instant::now() + lasts + OVERDUE);
        loop {
            let settled = begun.elapsed() >= SETTLED;
            if settled {
                self.settled();
            }
            let wait = if settled { end.saturating_duration_since(Instant::now()) } else { SETTLED };
            match lines.next(wait).await? {
                Heard::Lines(block) => {
                    self.block(block.split_inclusive(|byte| *byte == b'\n'))?;
                    self.settled();
                }
                Heard::Nothing if settled => return Err(Failure::Silent(begun.elapsed())),
                Heard::Nothing => {}
                Heard::End if settled => return Ok(()),
                Heard::End => return Err(Failure::Short("watch as soon as it has begun")),
            }
        }
    }

    fn settled(&mut self) {
        self.backoff.reset();
        self.trouble = Trouble::None;
        self.works();
    }

    /// Some lines of a watch become one batch. What stands before a bad line is handed over all the same.
    fn block<'l>(&mut self, lines: impl Iterator<Item = &'l [u8]>) -> Result<(), Failure> {
        let (mut updates, mut ended) = (Vec::new(), Ok(()));
        for line in lines {
            match self.line(line) {
                Ok((said, version)) => {
                    if let Said::Added(update) | Said::Changed(update) = said {
                        updates.extend(update);
                    }
                    self.version = version.filter(|version| !version.is_empty()).or(self.version.take());
                }
                Err(failure) => {
                    ended = Err(failure);
                    break;
                }
            }
        }
        self.hand_over(updates)?;
        ended
    }

    /// One line, or the failure that it tells of.
    fn line(&mut self, line: &[u8]) -> Result<(Said, Option<String>), Failure> {
        self.reader.line(line).map_err(|failure| match failure {
            Failure::Told(status) => self.endpoint.refused("watch", None, status.as_bytes(), None),
            other => other,
        })
    }
}

fn page(text: &[u8]) -> Result<Page<'_>, Failure> {
    serde_json::from_slice(text).map_err(|error| Failure::Unreadable(error.to_string()))
}

/// A number from 0 to 1, another one each time: the keys of a hasher are random.
fn dice() -> f64 {
    let random = RandomState::new().hash_one(0_u8) >> 32;
    f64::from(u32::try_from(random).unwrap_or_default()) / f64::from(u32::MAX)
}
