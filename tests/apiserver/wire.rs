//! HTTP/1.1 as far as a client of the Kubernetes API speaks it, with faults in what is written.

use std::collections::BTreeMap;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::Duration;

use super::Fault;
use super::store::NAMESPACE;

/// One request.
pub struct Request {
    pub method: String,
    pub path: String,
    pub query: BTreeMap<String, String>,
    /// `Bearer ...`; empty where there is none.
    pub authorization: String,
    pub user_agent: String,
    pub body: Vec<u8>,
}

/// Reads the next request of a connection; `None` when the client has gone.
pub fn read(reader: &mut BufReader<TcpStream>) -> Option<Request> {
    let mut head = String::new();
    loop {
        let before = head.len();
        if reader.read_line(&mut head).ok()? == 0 {
            return None;
        }
        if &head[before..] == "\r\n" {
            break;
        }
    }
    let mut words = head.split_whitespace();
    let (method, target) = (words.next()?.to_string(), words.next()?);
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let pairs = query.split('&').filter_map(|pair| pair.split_once('='));
    let mut query: BTreeMap<_, _> = pairs.map(|(key, value)| (decode(key), decode(value))).collect();
    if let Some((namespace, _)) = path.split_once("/namespaces/").and_then(|(_, rest)| rest.split_once('/')) {
        query.insert(NAMESPACE.to_string(), namespace.to_string());
    }
    let header = |name: &str| {
        let lines = head.lines().filter_map(|line| line.split_once(':'));
        lines
            .filter(|(key, _)| key.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.trim().to_string())
            .next()
    };
    let authorization = header("authorization").unwrap_or_default();
    let user_agent = header("user-agent").unwrap_or_default();
    let mut body = vec![0; header("content-length").map_or(0, |length| length.parse().unwrap())];
    reader.read_exact(&mut body).ok()?;
    Some(Request { method, path: path.to_string(), query, authorization, user_agent, body })
}

/// Undoes the encoding of a form.
fn decode(text: &str) -> String {
    let (mut out, mut bytes) = (Vec::new(), text.bytes());
    while let Some(byte) = bytes.next() {
        out.push(match byte {
            b'+' => b' ',
            b'%' => {
                let digits = [bytes.next().unwrap(), bytes.next().unwrap()];
                u8::from_str_radix(std::str::from_utf8(&digits).unwrap(), 16).unwrap()
            }
            other => other,
        });
    }
    String::from_utf8(out).unwrap()
}

/// The way back to the client.
pub struct Wire<'a> {
    stream: &'a TcpStream,
    /// How many bytes may still go out before the connection is cut.
    left: Option<usize>,
    /// The size of each piece, and the pause before it.
    pace: Option<(usize, Duration)>,
    /// How many bytes went out.
    pub sent: usize,
}

impl<'a> Wire<'a> {
    pub fn new(stream: &'a TcpStream, fault: &Fault) -> Self {
        let left = if let Fault::CutAfterBytes(bytes) = fault { Some(*bytes) } else { None };
        let pace = if let Fault::Trickle(bytes, pause) = fault { Some((*bytes, *pause)) } else { None };
        Self { stream, left, pace, sent: 0 }
    }

    /// A whole response.
    pub fn respond(&mut self, status: u16, headers: &[(&str, String)], body: &[u8]) -> io::Result<()> {
        let headers =
            headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect::<Vec<_>>().concat();
        let length = body.len();
        let head = format!(
            "HTTP/1.1 {status} Test\r\nContent-Type: application/json\r\n{headers}Content-Length: {length}\r\n\r\n"
        );
        self.send(&[head.as_bytes(), body].concat())
    }

    /// The head of a response that comes in chunks.
    pub fn begin(&mut self) -> io::Result<()> {
        self.send(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n")
    }

    /// One chunk.
    pub fn chunk(&mut self, body: &[u8]) -> io::Result<()> {
        self.send(&[format!("{:x}\r\n", body.len()).as_bytes(), body, b"\r\n"].concat())
    }

    /// The end of a response that comes in chunks.
    pub fn end(&mut self) -> io::Result<()> {
        self.send(b"0\r\n\r\n")
    }

    fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        let whole = self.left.is_none_or(|left| left >= bytes.len());
        let bytes = if whole { bytes } else { &bytes[..self.left.unwrap_or(0)] };
        let size = self.pace.map_or(bytes.len(), |(size, _)| size).max(1);
        for piece in bytes.chunks(size) {
            if let Some((_, pause)) = self.pace {
                std::thread::sleep(pause);
            }
            self.stream.write_all(piece)?;
            self.sent += piece.len();
        }
        self.left = self.left.map(|left| left - bytes.len());
        if whole {
            return Ok(());
        }
        self.stream.shutdown(Shutdown::Both)?;
        Err(io::ErrorKind::ConnectionAborted.into())
    }
}
