//! One small HTTP/1.1 server for everything that shunt serves. EDGE.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{ACCEPT, CONTENT_TYPE, HeaderName, HeaderValue};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use socket2::{Domain, Socket, Type};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tracing::{debug, warn};

/// How many connections a server has at a time; more wait in its backlog.
const CONNECTIONS: usize = 64;

/// How long a connection may last: whoever sends nothing must not keep others out.
const LIFETIME: Duration = Duration::from_secs(60);

const BACKLOG: i32 = 128;

/// When an address that was in use is tried again.
const RETRY: Duration = Duration::from_secs(5);

/// What is answered to a GET.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The status code, such as 200.
    pub status: StatusCode,
    /// `Content-Type`.
    pub content_type: &'static str,
    /// Other headers.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// The content.
    pub body: String,
}

impl Answer {
    /// Plain text.
    #[must_use]
    pub fn text(status: StatusCode, body: impl Into<String>) -> Self {
        let content_type = "text/plain; charset=utf-8";
        Self { status, content_type, headers: Vec::new(), body: body.into() }
    }

    /// JSON that no browser takes for something else.
    #[must_use]
    pub fn json(status: StatusCode, body: &serde_json::Value) -> Self {
        let nosniff = (hyper::header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        Self { status, content_type: "application/json", headers: vec![nosniff], body: body.to_string() }
    }
}

/// What a GET asks for.
#[derive(Clone, Copy, Debug)]
pub struct Question<'a> {
    /// The path, such as `/metrics`.
    pub path: &'a str,
    /// The header `Accept`; empty where there is none.
    pub accept: &'a str,
}

/// From a GET to its answer; `None` where there is nothing.
pub type Answers = Arc<dyn Fn(Question<'_>) -> Option<Answer> + Send + Sync>;

/// Which traffic a socket on the unspecified IPv6 address takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Families {
    /// IPv4 as well.
    Both,
    /// Its own alone.
    One,
}

/// A listening socket.
///
/// # Errors
/// What the kernel says: the port is in use, the address is not ours.
pub fn listen(address: SocketAddr, families: Families) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    socket.set_reuse_address(true)?;
    if address.is_ipv6() {
        socket.set_only_v6(families == Families::One)?;
    }
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}

/// Serves `answers` at `address`, as the configuration's `field` says, for as long as the future lives;
/// nothing where there is no address. One that cannot be had is told to `refused`, and tried again if
/// that says so.
pub async fn serve(
    address: Option<SocketAddr>,
    field: &'static str,
    answers: Answers,
    refused: impl Fn(String) -> bool,
) {
    let Some(address) = address else { return };
    loop {
        match listen(address, Families::Both) {
            Ok(listener) => return accept(listener, answers).await,
            Err(error) if !refused(format!("nothing can be served at {address} ({field}): {error}")) => {
                return;
            }
            Err(_) => tokio::time::sleep(RETRY).await,
        }
    }
}

/// Answers whoever connects, for as long as the future lives.
pub async fn accept(listener: TcpListener, answers: Answers) {
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    while let Ok(place) = places.clone().acquire_owned().await {
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                // Out of file descriptors, most likely: wait for some to come back.
                warn!("a connection could not be accepted: {error}");
                tokio::time::sleep(Duration::from_secs(1)).await;
                continue;
            }
        };
        let answers = answers.clone();
        tokio::spawn(async move {
            let _place = place;
            if tokio::time::timeout(LIFETIME, converse(stream, answers)).await.is_err() {
                debug!("a connection lasted longer than {LIFETIME:?}");
            }
        });
    }
}

async fn converse(stream: TcpStream, answers: Answers) {
    let answer = service_fn(|request| std::future::ready(Ok::<_, Infallible>(respond(&request, &answers))));
    // One answer a connection: a server that is closed must not live on in old connections.
    let mut http = hyper::server::conn::http1::Builder::new();
    if let Err(error) = http.keep_alive(false).serve_connection(TokioIo::new(stream), answer).await {
        debug!("a connection broke off: {error}");
    }
}

fn respond(request: &Request<Incoming>, answers: &Answers) -> Response<Full<Bytes>> {
    let accept = request.headers().get(ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let question = Question { path: request.uri().path(), accept };
    let answer = match (answers(question), request.method()) {
        (Some(answer), &Method::GET | &Method::HEAD) => answer,
        (Some(_), _) => Answer::text(StatusCode::METHOD_NOT_ALLOWED, "only GET\n"),
        (None, _) => Answer::text(StatusCode::NOT_FOUND, "there is nothing here\n"),
    };
    let mut response = Response::new(Full::from(answer.body));
    *response.status_mut() = answer.status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(answer.content_type));
    response.headers_mut().extend(answer.headers);
    response
}
