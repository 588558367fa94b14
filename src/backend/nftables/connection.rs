//! The conversation with the kernel: one netlink socket, batches out, dumps in. EDGE.

use std::io;
use std::os::fd::AsRawFd;

use super::encode::Batch;
use super::netlink::{Attributes, DONE, DUMP, ERROR, Message, Writer, messages};
use super::protocol::message;
use super::wire;

/// Dump replies are up to 32 KiB; errors can be longer where the kernel echoes.
const RECEIVE_BYTES: usize = 64 * 1024;
/// A transaction is one `sendmsg`; this bounds it where we may force the buffer.
const SEND_BYTES: usize = 256 * 1024 * 1024;

/// `NETLINK_CAP_ACK`: errors do not echo the message.
const NETLINK_CAP_ACK: i32 = 10;
/// `NETLINK_EXT_ACK`: errors come with words and the offset of the attribute.
const NETLINK_EXT_ACK: i32 = 11;

/// A netlink socket. With an owned table all writes have to go through the socket that made it.
#[derive(Debug)]
pub struct Connection {
    socket: Socket,
    receive: Vec<u8>,
    most_bytes: usize,
    seq: u32,
}

/// `mnl::Socket` without a `Debug` of its own.
struct Socket(mnl::Socket);

impl std::fmt::Debug for Socket {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "netlink port {}", self.0.portid())
    }
}

/// What the kernel says to a request.
#[derive(Debug)]
pub struct Refusal {
    /// The error number.
    pub errno: io::Error,
    /// Which operation of the batch it is about.
    pub op: Option<usize>,
    /// The kernel's own words.
    pub message: Option<String>,
}

impl From<io::Error> for Refusal {
    fn from(errno: io::Error) -> Self {
        Self { errno, op: None, message: None }
    }
}

impl Connection {
    /// Opens a socket.
    ///
    /// # Errors
    /// What the kernel says; `EPROTONOSUPPORT` where it has no nfnetlink.
    pub fn open() -> io::Result<Self> {
        let socket = mnl::Socket::new(mnl::Bus::Netfilter)?;
        wire::set_netlink_option(&socket, NETLINK_CAP_ACK)?;
        // A convenience: older kernels do without.
        let _ = wire::set_netlink_option(&socket, NETLINK_EXT_ACK);
        let most_bytes = send_buffer(&socket);
        Ok(Self { socket: Socket(socket), receive: vec![0; RECEIVE_BYTES], most_bytes, seq: 0 })
    }

    /// The socket's netlink port: what the kernel reports as owner of a table.
    #[must_use]
    pub fn port(&self) -> u32 {
        self.socket.0.portid()
    }

    /// The most bytes that one batch may have.
    #[must_use]
    pub const fn most_bytes(&self) -> usize {
        self.most_bytes
    }

    /// Sends a batch and waits for the kernel's word. The kernel works through it within the call.
    ///
    /// # Errors
    /// [`Refusal`] with the first error; nothing of the batch took effect.
    pub fn commit(&mut self, batch: &Batch) -> Result<(), Refusal> {
        self.drain()?;
        self.socket.0.send(batch.bytes())?;
        let last = batch.last_seq();
        let mut refusal: Option<Refusal> = None;
        loop {
            let received = self.receive()?;
            for message in messages(&self.receive[..received]).filter(|message| message.kind == ERROR) {
                let (code, message_text, offset) = read_error(&message);
                if code != 0 && refusal.is_none() {
                    let op = batch.blame(message.seq, offset);
                    let errno = io::Error::from_raw_os_error(code);
                    refusal = Some(Refusal { errno, op, message: message_text });
                }
                // Confirmations and errors come in the order of the messages, after the last one was
                // worked through; an error of the batch as such stands at its begin.
                if message.seq >= last || message.seq == 0 {
                    return refusal.map_or(Ok(()), Err);
                }
            }
            // The kernel tells all errors of a batch at once: after the first refusal only what is
            // queued already is read.
            if let Some(refusal) = refusal.take() {
                self.drain()?;
                return Err(refusal);
            }
        }
    }

    /// Asks for everything of a kind; `each` sees every message of the answer.
    ///
    /// # Errors
    /// What the kernel says. `EINTR` if it tells that the dump is not consistent.
    pub fn dump(
        &mut self,
        kind: u16,
        family: u8,
        fill: impl FnOnce(&mut Writer),
        mut each: impl FnMut(&Message<'_>),
    ) -> io::Result<()> {
        self.drain()?;
        self.seq += 1;
        let mut writer = Writer::default();
        let open = writer.message(kind, DUMP, self.seq, family, 0);
        fill(&mut writer);
        writer.end_message(open);
        self.socket.0.send(writer.bytes())?;
        loop {
            let received = self.receive()?;
            for message in messages(&self.receive[..received]).filter(|message| message.seq == self.seq) {
                match message.kind {
                    DONE => return Ok(()),
                    ERROR => match read_error(&message).0 {
                        0 => return Ok(()),
                        code => return Err(io::Error::from_raw_os_error(code)),
                    },
                    _ => each(&message),
                }
            }
        }
    }

    /// The kernel's generation: it changes with every transaction of anybody in this network
    /// namespace.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn generation(&mut self) -> io::Result<u32> {
        let mut generation = None;
        self.request(message::GET_GENERATION, |reply| generation = reply.attributes().number(1))?;
        generation.ok_or_else(|| io::Error::other("the kernel did not tell its generation"))
    }

    fn request(&mut self, kind: u16, mut each: impl FnMut(&Message<'_>)) -> io::Result<()> {
        self.drain()?;
        self.seq += 1;
        let mut writer = Writer::default();
        let open = writer.message(kind, 0, self.seq, 0, 0);
        writer.end_message(open);
        self.socket.0.send(writer.bytes())?;
        let received = self.receive()?;
        for message in messages(&self.receive[..received]) {
            if message.kind == ERROR {
                let (code, ..) = read_error(&message);
                return if code == 0 { Ok(()) } else { Err(io::Error::from_raw_os_error(code)) };
            }
            each(&message);
        }
        Ok(())
    }

    fn receive(&mut self) -> io::Result<usize> {
        loop {
            match self.socket.0.recv_raw(&mut self.receive) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                result => return result,
            }
        }
    }

    /// Reads away what an earlier, failed request left in the queue.
    fn drain(&mut self) -> io::Result<()> {
        use nix::sys::socket::{MsgFlags, recv};
        loop {
            match recv(self.socket.0.as_raw_fd(), &mut self.receive, MsgFlags::MSG_DONTWAIT) {
                Ok(_) | Err(nix::errno::Errno::EINTR | nix::errno::Errno::ENOBUFS) => {}
                Err(nix::errno::Errno::EAGAIN) => return Ok(()),
                Err(errno) => return Err(errno.into()),
            }
        }
    }
}

/// Makes the send buffer as large as we may and returns how much fits into one message.
fn send_buffer(socket: &mnl::Socket) -> usize {
    use nix::sys::socket::{getsockopt, setsockopt, sockopt};
    let fd = wire::borrow(socket);
    if setsockopt(&fd, sockopt::SndBufForce, &SEND_BYTES).is_err() {
        // Without CAP_NET_ADMIN in the initial user namespace: up to net.core.wmem_max.
        let _ = setsockopt(&fd, sockopt::SndBuf, &SEND_BYTES);
    }
    // The kernel keeps 32 bytes of it for itself.
    getsockopt(&fd, sockopt::SndBuf).map_or(0, |bytes| bytes.saturating_sub(32))
}

/// Error number, words, and offset of the attribute in an error message
/// (`enum nlmsgerr_attrs`: 1 the words, 2 the offset).
fn read_error(message: &Message<'_>) -> (i32, Option<String>, Option<usize>) {
    let code = message.payload.get(..4).and_then(|bytes| bytes.try_into().ok()).map_or(0, i32::from_ne_bytes);
    // The error number is followed by the header of the message it is about.
    let attributes = Attributes(message.payload.get(20..).unwrap_or_default());
    let words = attributes.string(1).map(str::to_owned);
    let offset = attributes.get(2).and_then(|bytes| bytes.try_into().ok()).map(u32::from_ne_bytes);
    (code.saturating_neg(), words, offset.and_then(|offset| usize::try_from(offset).ok()))
}
