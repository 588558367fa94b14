//! Servers that say who they are and whom they see: one thread with epoll for all sockets of a lab.
//!
//! TCP: a line `own peer` on connecting and one more for whatever is received; UDP: the same line for each packet.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};

use super::sctp::SctpServer;

/// The token that ends the thread.
const STOP: u64 = 0;

enum Source {
    Listener(TcpListener),
    Connection(TcpStream),
    Udp(UdpSocket, SocketAddr),
    Sctp(SctpServer),
}

struct Shared {
    epoll: Epoll,
    sources: Mutex<HashMap<u64, Source>>,
    next: AtomicU64,
}

/// The running servers; the thread ends when this is dropped.
pub struct Responder {
    shared: Arc<Shared>,
    wake: UdpSocket,
    thread: Option<JoinHandle<()>>,
}

impl Responder {
    pub fn start() -> Self {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).expect("epoll");
        // Any descriptor that is writable at once will do: it is registered when the thread shall end.
        let wake = UdpSocket::bind("0.0.0.0:0").expect("a socket to wake the responder");
        let shared = Arc::new(Shared { epoll, sources: Mutex::default(), next: AtomicU64::new(STOP + 1) });
        let thread = std::thread::spawn({
            let shared = Arc::clone(&shared);
            move || shared.run()
        });
        Self { shared, wake, thread: Some(thread) }
    }

    /// Serves TCP and UDP on an address; called from within the namespace that holds it.
    /// The tokens are for [`Self::close`].
    pub fn listen(&self, address: SocketAddr) -> std::io::Result<Vec<u64>> {
        let listener = TcpListener::bind(address)?;
        let udp = UdpSocket::bind(address)?;
        listener.set_nonblocking(true)?;
        udp.set_nonblocking(true)?;
        Ok(vec![self.shared.add(Source::Listener(listener)), self.shared.add(Source::Udp(udp, address))])
    }

    /// Answers SCTP on any port of an address; called from within the namespace that holds it.
    pub fn listen_sctp(&self, server: SctpServer) -> u64 {
        self.shared.add(Source::Sctp(server))
    }

    pub fn close(&self, tokens: &[u64]) {
        let mut sources = self.shared.sources.lock().expect("no panic in the responder");
        for token in tokens {
            sources.remove(token);
        }
    }
}

impl Drop for Responder {
    fn drop(&mut self) {
        let stop = EpollEvent::new(EpollFlags::EPOLLOUT, STOP);
        self.shared.epoll.add(&self.wake, stop).expect("epoll");
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Shared {
    fn add(&self, source: Source) -> u64 {
        let token = self.next.fetch_add(1, Ordering::Relaxed);
        let mut sources = self.sources.lock().expect("no panic in the responder");
        let event = EpollEvent::new(EpollFlags::EPOLLIN, token);
        self.epoll.add(source.as_fd(), event).expect("epoll");
        sources.insert(token, source);
        token
    }

    fn run(&self) {
        let mut events = vec![EpollEvent::empty(); 256];
        loop {
            let count = match self.epoll.wait(&mut events, EpollTimeout::NONE) {
                Ok(count) => count,
                Err(nix::errno::Errno::EINTR) => continue,
                Err(error) => panic!("epoll: {error}"),
            };
            for event in &events[..count] {
                if event.data() == STOP {
                    return;
                }
                self.serve(event.data());
            }
        }
    }

    fn serve(&self, token: u64) {
        let mut sources = self.sources.lock().expect("no panic in the responder");
        let mut accepted = Vec::new();
        let alive = match sources.get_mut(&token) {
            Some(Source::Listener(listener)) => {
                while let Ok((stream, _)) = listener.accept() {
                    accepted.push(stream);
                }
                true
            }
            Some(Source::Connection(stream)) => converse(stream),
            Some(Source::Udp(socket, own)) => {
                let mut buffer = [0; 64];
                while let Ok((_, peer)) = socket.recv_from(&mut buffer) {
                    let _ = socket.send_to(format!("{own} {peer}\n").as_bytes(), peer);
                }
                true
            }
            Some(Source::Sctp(server)) => {
                server.serve();
                true
            }
            None => return,
        };
        if !alive {
            sources.remove(&token);
        }
        drop(sources);
        for mut stream in accepted {
            if stream.set_nonblocking(true).is_ok() && introduce(&mut stream).is_ok() {
                self.add(Source::Connection(stream));
            }
        }
    }
}

fn introduce(stream: &mut TcpStream) -> std::io::Result<()> {
    let line = format!("{} {}\n", stream.local_addr()?, stream.peer_addr()?);
    stream.write_all(line.as_bytes())
}

/// Answers what has arrived; false when the connection is over.
fn converse(stream: &mut TcpStream) -> bool {
    let mut buffer = [0; 64];
    match stream.read(&mut buffer) {
        Ok(0) => false,
        Ok(_) => introduce(stream).is_ok(),
        Err(error) => error.kind() == std::io::ErrorKind::WouldBlock,
    }
}

impl Source {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        match self {
            Self::Listener(listener) => listener.as_fd(),
            Self::Connection(stream) => stream.as_fd(),
            Self::Udp(socket, _) => socket.as_fd(),
            Self::Sctp(server) => server.as_fd(),
        }
    }
}
