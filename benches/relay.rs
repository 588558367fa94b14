//! The ends of a measurement of relays, and the plainest relay there is. `scripts/bench-relay` puts them together.
//!
//! ```text
//! relay serve ADDRESS             answers short requests, swallows streams
//! relay short ADDRESS SECONDS     opens connections one after the other, from 32 threads
//! relay bulk ADDRESS SECONDS      sends as much as goes through 4 connections
//! relay splice ADDRESS ENDPOINT   forwards with splice(2), a thread for each direction
//! relay bare ADDRESS ENDPOINT     forwards one request and its answer, in the fewest system calls that there are
//! relay echo ADDRESS              sends datagrams back
//! relay datagrams ADDRESS SECONDS keeps 32 datagrams on their way in each of 4 flows
//! relay idle ADDRESS NUMBER       holds so many connections open until its input ends
//! ```

#![allow(clippy::unwrap_used, reason = "a measurement fails by panicking")]
#![allow(missing_docs, reason = "a program")]

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use nix::fcntl::{SpliceFFlags, splice};
use nix::unistd::pipe;
use socket2::SockRef;

const THREADS: usize = 32;
const STREAMS: usize = 4;
const REQUEST: &[u8; 64] = &[b'r'; 64];
/// Datagrams on their way in each flow.
const WINDOW: usize = 32;
const DATAGRAM: &[u8; 1200] = &[b'd'; 1200];
/// Datagrams that are not back after so long are lost.
const LOST: Duration = Duration::from_millis(50);

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments[..] {
        ["serve", at] => serve(at),
        ["short", at, seconds] => short(at, Duration::from_secs(seconds.parse().unwrap())),
        ["bulk", at, seconds] => bulk(at, Duration::from_secs(seconds.parse().unwrap())),
        ["splice", at, to] => relay(at, to),
        ["bare", at, to] => bare(at, to),
        ["echo", at] => echo(at),
        ["datagrams", at, seconds] => datagrams(at, Duration::from_secs(seconds.parse().unwrap())),
        ["idle", at, number] => idle(at, number.parse().unwrap()),
        // `cargo bench` and `cargo test --benches` run every benchmark without arguments.
        _ => println!("scripts/bench-relay runs this"),
    }
}

fn serve(at: &str) {
    let listener = TcpListener::bind(at).unwrap();
    SockRef::from(&listener).listen(4096).unwrap();
    let threads = (0..THREADS * 2).map(|_| {
        let listener = listener.try_clone().unwrap();
        thread::spawn(move || {
            while let Ok((client, _)) = listener.accept() {
                answer(client);
            }
        })
    });
    for thread in threads.collect::<Vec<_>>() {
        thread.join().unwrap();
    }
}

/// A request is answered and ends; a stream (`b`) is swallowed; a guest (`i`) stays.
fn answer(mut client: TcpStream) {
    let mut buffer = vec![0; 256 * 1024];
    let Ok(read) = client.read(&mut buffer) else { return };
    match buffer.first().filter(|_| read > 0) {
        Some(b'b') => while client.read(&mut buffer).is_ok_and(|read| read > 0) {},
        Some(b'i') => {
            thread::spawn(move || client.read(&mut [0]));
        }
        _ => _ = client.write_all(REQUEST),
    }
}

fn short(at: &str, time: Duration) {
    let end = Instant::now() + time;
    let threads: Vec<_> = (0..THREADS)
        .map(|_| {
            let at = at.to_owned();
            thread::spawn(move || {
                let (mut latencies, mut failed) = (Vec::new(), 0_u32);
                while Instant::now() < end {
                    let start = Instant::now();
                    match once(&at) {
                        Ok(()) => latencies.push(start.elapsed()),
                        Err(_) => failed += 1,
                    }
                }
                (latencies, failed)
            })
        })
        .collect();
    let results: Vec<_> = threads.into_iter().map(|thread| thread.join().unwrap()).collect();
    let failed: u32 = results.iter().map(|(_, failed)| failed).sum();
    let mut all: Vec<Duration> = results.into_iter().flat_map(|(latencies, _)| latencies).collect();
    all.sort_unstable();
    let at = |percent: usize| all.get(all.len() * percent / 100).copied().unwrap_or_default().as_micros();
    let rate = all.len() as u64 / time.as_secs();
    println!("{rate} connections/s, p50 {} us, p99 {} us, {failed} failed", at(50), at(99));
}

fn once(at: &str) -> io::Result<()> {
    let mut stream = TcpStream::connect(at)?;
    stream.write_all(REQUEST)?;
    let mut answer = Vec::with_capacity(128);
    stream.read_to_end(&mut answer)?;
    if answer == REQUEST { Ok(()) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
}

fn bulk(at: &str, time: Duration) {
    let sent = Arc::new(AtomicU64::new(0));
    let end = Instant::now() + time;
    let threads: Vec<_> = (0..STREAMS)
        .map(|_| {
            let (mut stream, sent) = (TcpStream::connect(at).unwrap(), sent.clone());
            thread::spawn(move || {
                let buffer = vec![b'b'; 256 * 1024];
                while Instant::now() < end {
                    sent.fetch_add(stream.write(&buffer).unwrap() as u64, Ordering::Relaxed);
                }
                // Until the other end has all of it.
                stream.shutdown(Shutdown::Write).unwrap();
                let _ = stream.read(&mut [0]);
            })
        })
        .collect();
    let start = Instant::now();
    for thread in threads {
        thread.join().unwrap();
    }
    let bits = sent.load(Ordering::Relaxed) * 8;
    let tenths = u128::from(bits) * 10 / start.elapsed().as_nanos();
    println!("{}.{} Gbit/s", tenths / 10, tenths % 10);
}

fn relay(at: &str, to: &str) {
    let listener = TcpListener::bind(at).unwrap();
    SockRef::from(&listener).listen(4096).unwrap();
    while let Ok((client, _)) = listener.accept() {
        let to = to.to_owned();
        thread::spawn(move || {
            let Ok(endpoint) = TcpStream::connect(to) else { return };
            let (from, into) = (client.try_clone().unwrap(), endpoint.try_clone().unwrap());
            let up = thread::spawn(move || direction(&from, &into));
            direction(&endpoint, &client);
            let _ = up.join();
        });
    }
}

fn direction(from: &TcpStream, to: &TcpStream) {
    let (read, write) = pipe().unwrap();
    while let Ok(mut bytes @ 1..) = splice(from, None, &write, None, 1 << 20, SpliceFFlags::SPLICE_F_MOVE) {
        while bytes > 0 {
            let Ok(moved) = splice(&read, None, to, None, bytes, SpliceFFlags::SPLICE_F_MOVE) else { return };
            bytes -= moved;
        }
    }
    let _ = to.shutdown(Shutdown::Write);
}

/// What a relay cannot do without: it knows how long request and answer are, and waits in each call.
fn bare(at: &str, to: &str) {
    let listener = TcpListener::bind(at).unwrap();
    SockRef::from(&listener).listen(4096).unwrap();
    let forward = |client: io::Result<(TcpStream, _)>, to: &str| {
        let (mut client, mut endpoint) = (client?.0, TcpStream::connect(to)?);
        let mut buffer = [0; REQUEST.len()];
        client.read_exact(&mut buffer)?;
        endpoint.write_all(&buffer)?;
        endpoint.read_exact(&mut buffer)?;
        client.write_all(&buffer)
    };
    thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                loop {
                    let _ = forward(listener.accept(), to);
                }
            });
        }
    });
}

fn echo(at: &str) {
    let socket = UdpSocket::bind(at).unwrap();
    SockRef::from(&socket).set_recv_buffer_size(1 << 20).unwrap();
    let mut buffer = [0; 2048];
    while let Ok((length, from)) = socket.recv_from(&mut buffer) {
        let _ = socket.send_to(&buffer[..length], from);
    }
}

fn datagrams(at: &str, time: Duration) {
    let end = Instant::now() + time;
    let flow = |at: &str| {
        let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
        socket.connect(at).unwrap();
        socket.set_read_timeout(Some(LOST)).unwrap();
        let (mut back, mut lost, mut under_way) = (0_u64, 0, 0);
        let mut buffer = [0; 2048];
        while Instant::now() < end {
            while under_way < WINDOW {
                let _ = socket.send(DATAGRAM);
                under_way += 1;
            }
            if socket.recv(&mut buffer).is_ok() {
                (back, under_way) = (back + 1, under_way - 1);
            } else {
                (lost, under_way) = (lost + under_way, 0);
            }
        }
        (back, lost)
    };
    let flows: Vec<_> = thread::scope(|scope| {
        let threads: Vec<_> = (0..STREAMS).map(|_| scope.spawn(|| flow(at))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    let back = flows.iter().map(|(back, _)| back).sum::<u64>() / time.as_secs();
    let lost = flows.iter().map(|(_, lost)| lost).sum::<usize>();
    let megabits = back * DATAGRAM.len() as u64 * 8 / 1_000_000;
    println!("{back} datagrams/s there and back, {megabits} Mbit/s each way, {lost} lost");
}

fn idle(at: &str, number: usize) {
    let connect = |_| {
        let mut stream = TcpStream::connect(at).unwrap();
        stream.write_all(b"i").unwrap();
        stream
    };
    let connections: Vec<TcpStream> = (0..number).map(connect).collect();
    println!("{} connections are open", connections.len());
    let _ = io::stdin().read(&mut [0]);
}
