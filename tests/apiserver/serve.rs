//! Requests answered: routing, lists, watches, and the faults that a script puts in.

use std::io::{self, BufReader};
use std::net::{Shutdown, TcpStream};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::store::{Expiry, Page, Seen, Store, Streams, bookmark, event, status};
use super::wire::{self, Request, Wire};
use super::{Fault, Resource, Shared, Verb, events};

/// Where each resource is found, and the kind of its lists.
const ROUTES: [(&str, Resource, &str); 5] = [
    ("/api/v1/services", Resource::Services, "ServiceList"),
    ("/apis/discovery.k8s.io/v1/endpointslices", Resource::EndpointSlices, "EndpointSliceList"),
    ("/api/v1/endpoints", Resource::Endpoints, "EndpointsList"),
    ("/api/v1/nodes", Resource::Nodes, "NodeList"),
    ("/apis/networking.k8s.io/v1/servicecidrs", Resource::ServiceCidrs, "ServiceCIDRList"),
];

/// Serves one connection until it or the server ends.
pub fn connection(shared: &Shared, stream: &TcpStream) {
    let _ = stream.set_nodelay(true);
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    while let Some(request) = wire::read(&mut reader) {
        if answer(shared, stream, &request).is_err() {
            break;
        }
    }
    let _ = stream.shutdown(Shutdown::Both);
}

fn answer(shared: &Shared, stream: &TcpStream, request: &Request) -> io::Result<()> {
    let (group, namespace, resource) = events::parse(&request.path);
    let cluster_wide = request.path.replacen(&format!("/namespaces/{namespace}"), "", 1);
    let route = ROUTES.iter().find(|(path, ..)| *path == cluster_wide);
    let is = |name: &str| request.query.get(name).is_some_and(|value| value == "true");
    let verb = match (is("watch"), is("sendInitialEvents")) {
        _ if request.method != "GET" => Verb::Write,
        (true, true) => Verb::Stream,
        (true, false) => Verb::Watch,
        _ => Verb::List,
    };
    let (number, fault) = {
        let mut store = shared.store();
        store.seen.push(Seen {
            method: request.method.clone(),
            path: request.path.clone(),
            query: request.query.clone(),
            resource: route.map(|(_, resource, _)| *resource),
            verb,
            user_agent: request.user_agent.clone(),
            right: (group, resource, events::right(&request.method, verb).to_string()),
            at: Instant::now(),
            bytes: 0,
        });
        let script = route.and_then(|(_, resource, _)| store.scripts.get_mut(&(*resource, verb)));
        let fault = script.and_then(std::collections::VecDeque::pop_front);
        (store.seen.len() - 1, fault.unwrap_or(Fault::None))
    };
    let mut wire = Wire::new(stream, &fault);
    let unknown = {
        let store = shared.store();
        let known = |token: &String| request.authorization == format!("Bearer {token}");
        store.tokens.as_ref().is_some_and(|tokens| !tokens.iter().any(known))
    };
    let result = match route {
        _ if unknown => refuse(&mut wire, 401, "Unauthorized", None),
        _ if request.path.starts_with(events::ROOT) => {
            events::answer(&mut shared.store(), request, &mut wire)
        }
        Some((_, resource, kind)) => {
            let mut call =
                Call { shared, request, resource: *resource, kind, number, fault, wire: &mut wire };
            call.answer(verb)
        }
        None => refuse(&mut wire, 404, "NotFound", None),
    };
    shared.store().seen[number].bytes = wire.sent;
    result
}

pub fn refuse(wire: &mut Wire<'_>, code: u16, reason: &str, retry_after: Option<u32>) -> io::Result<()> {
    let body = status(code, reason, &format!("the test says {code}")).to_string();
    let retry = retry_after.map(|seconds| ("Retry-After", seconds.to_string()));
    wire.respond(code, retry.as_slice(), body.as_bytes())
}

/// One request on its way to an answer.
struct Call<'a, 'b> {
    shared: &'a Shared,
    request: &'a Request,
    resource: Resource,
    kind: &'a str,
    /// Its place among the requests seen.
    number: usize,
    fault: Fault,
    wire: &'a mut Wire<'b>,
}

impl Call<'_, '_> {
    fn answer(&mut self, verb: Verb) -> io::Result<()> {
        if let Fault::Delay(delay) = self.fault {
            std::thread::sleep(delay);
        }
        if let Fault::Status(code, retry_after) = self.fault {
            return refuse(self.wire, code, "Scripted", retry_after);
        }
        let (absent, forbidden, streams) = {
            let store = self.shared.store();
            (store.absent.contains(&self.resource), store.forbidden.contains(&self.resource), store.streams)
        };
        match (verb, streams) {
            _ if forbidden => refuse(self.wire, 403, "Forbidden", None),
            _ if absent => refuse(self.wire, 404, "NotFound", None),
            _ if self.request.method != "GET" => refuse(self.wire, 405, "MethodNotAllowed", None),
            (Verb::List, _) => self.list(),
            (Verb::Stream, Streams::Refused(code)) => refuse(self.wire, code, "Invalid", None),
            (Verb::Stream, Streams::Served)
                if self.query("resourceVersionMatch") != "NotOlderThan"
                    || self.query("allowWatchBookmarks") != "true" =>
            {
                refuse(self.wire, 422, "Invalid", None)
            }
            (Verb::Stream | Verb::Watch | Verb::Write, _) => self.watch(verb),
        }
    }

    fn query(&self, name: &str) -> &str {
        self.request.query.get(name).map_or("", String::as_str)
    }

    /// A list, or the page of one: what is left of it waits under a token.
    fn list(&mut self) -> io::Result<()> {
        if self.fault == Fault::Garbage {
            return self.wire.respond(200, &[], b"<html>this is not the API</html>");
        }
        let Some(page) = self.page() else { return refuse(self.wire, 410, "Expired", None) };
        let (version, mut items, next) = page;
        if let Fault::Malformed(object) = &self.fault {
            items.insert(0, object.clone());
        }
        let mut metadata = json!({"resourceVersion": version.to_string()});
        if let Some(token) = next {
            metadata["continue"] = json!(token);
        }
        let list = json!({"kind": self.kind, "apiVersion": "v1", "metadata": metadata, "items": items});
        self.wire.respond(200, &[], list.to_string().as_bytes())
    }

    /// The version of the list, this page's objects and the token for the next; `None` when it expired.
    fn page(&self) -> Option<(u64, Vec<Value>, Option<String>)> {
        let mut store = self.shared.store();
        let token = self.query("continue");
        let mut page = if token.is_empty() {
            Page { version: store.version, rest: store.select(self.resource, &self.request.query) }
        } else {
            store.pages.remove(token)?
        };
        let limit = self.query("limit").parse().unwrap_or(usize::MAX).min(page.rest.len());
        let items = page.rest.drain(..limit).collect();
        let (version, done) = (page.version, page.rest.is_empty());
        let next = (!done).then(|| format!("page-{}", self.number));
        if let Some(token) = &next {
            store.pages.insert(token.clone(), page);
        }
        Some((version, items, next))
    }

    /// A watch from the version asked for, or one that begins with what there is.
    fn watch(&mut self, verb: Verb) -> io::Result<()> {
        let from: u64 = self.query("resourceVersion").parse().unwrap_or(0);
        let (first, version, cuts) = {
            let store = self.shared.store();
            if verb == Verb::Watch && from > 0 && from < store.compacted {
                let expiry = store.expiry;
                drop(store);
                return self.gone(expiry);
            }
            let synthetic = verb == Verb::Stream || from == 0;
            let version = if synthetic { store.version } else { from };
            (if synthetic { self.initial(&store, verb) } else { Vec::new() }, version, store.cuts)
        };
        if self.fault == Fault::GoneInStream {
            return self.gone(Expiry::Event);
        }
        self.wire.begin()?;
        match &self.fault {
            Fault::Garbage => self.wire.chunk(b"this is not JSON\n")?,
            Fault::Malformed(object) => {
                let line = event("ADDED", object);
                self.wire.chunk(line.as_bytes())?;
            }
            _ => {}
        }
        for line in first {
            self.wire.chunk(line.as_bytes())?;
        }
        if self.fault == Fault::End {
            return self.wire.end();
        }
        self.follow(version, cuts)
    }

    fn initial(&self, store: &Store, verb: Verb) -> Vec<String> {
        let objects = store.select(self.resource, &self.request.query);
        let mut lines: Vec<String> = objects.iter().map(|object| event("ADDED", object)).collect();
        if let Fault::Meanwhile(events) = &self.fault {
            lines.extend(events.iter().map(|(kind, object)| event(kind, object)));
        }
        if verb == Verb::Stream && !matches!(self.fault, Fault::Endless | Fault::End) {
            lines.push(bookmark(store.version, true));
        }
        lines
    }

    fn gone(&mut self, expiry: Expiry) -> io::Result<()> {
        if expiry == Expiry::Status {
            return refuse(self.wire, 410, "Expired", None);
        }
        self.wire.begin()?;
        let line = event("ERROR", &status(410, "Expired", "too old resource version"));
        self.wire.chunk(line.as_bytes())?;
        self.wire.end()
    }

    /// Sends what happens after a version until the time is up (a clean end) or the server cuts (not so).
    fn follow(&mut self, mut version: u64, cuts: u64) -> io::Result<()> {
        let seconds = self.query("timeoutSeconds").parse().unwrap_or(300);
        let end = Instant::now() + Duration::from_secs(seconds);
        loop {
            let mut store = self.shared.store();
            let news: Vec<String> = store.history
                [store.history.partition_point(|change| change.version <= version)..]
                .iter()
                .filter(|change| change.resource == self.resource)
                .filter_map(|change| change.event(&self.request.query))
                .collect();
            // one that is still to come is waited for, in silence
            version = version.max(store.version);
            store.seen[self.number].bytes = self.wire.sent;
            if store.stopping || store.cuts != cuts {
                return Err(io::ErrorKind::ConnectionAborted.into());
            }
            let left = end.saturating_duration_since(Instant::now());
            if news.is_empty() && left.is_zero() {
                drop(store);
                return self.wire.end();
            }
            if news.is_empty() {
                store.watchers.push(self.resource);
                let (mut store, _) = self.shared.changed.wait_timeout(store, left).unwrap();
                let place = store.watchers.iter().position(|watched| *watched == self.resource).unwrap();
                store.watchers.swap_remove(place);
                continue;
            }
            drop(store);
            for line in news {
                self.wire.chunk(line.as_bytes())?;
            }
        }
    }
}
