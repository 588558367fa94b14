//! The conversation with the kernel: one netlink socket, batches out, dumps in. EDGE.

use std::io;

use super::encode::Batch;
use super::protocol::{generation, message};
use super::wire;
use crate::netlink::socket::{Socket, read_error};
use crate::netlink::{ERROR, Message, Writer};

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
    most_bytes: usize,
    /// Batches that took effect.
    commits: u32,
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
        let socket = Socket::open()?;
        wire::set_netlink_option(socket.mnl(), NETLINK_CAP_ACK, 1)?;
        // A convenience: older kernels do without.
        let _ = wire::set_netlink_option(socket.mnl(), NETLINK_EXT_ACK, 1);
        let most_bytes = send_buffer(socket.mnl());
        Ok(Self { socket, most_bytes, commits: 0 })
    }

    /// How many batches have taken effect; wraps around, as the kernel's own count does.
    #[must_use]
    pub const fn commits(&self) -> u32 {
        self.commits
    }

    /// The socket's netlink port: what the kernel reports as owner of a table.
    #[must_use]
    pub fn port(&self) -> u32 {
        self.socket.mnl().portid()
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
        self.socket.send(batch.bytes())?;
        let last = batch.last_seq();
        let mut refusal: Option<Refusal> = None;
        let mut overrun = false;
        loop {
            let received = match self.socket.receive() {
                // Every message of a batch may be answered with an error, and the queue holds about 200. Those
                // that no longer fit are lost, as is the confirmation; the first ones are there to be read.
                Err(error) if error.raw_os_error() == Some(nix::libc::ENOBUFS) && !overrun => {
                    overrun = true;
                    continue;
                }
                received => received?,
            };
            for message in received.filter(|message| message.kind == ERROR) {
                let (code, message_text, offset) = read_error(&message);
                if code != 0 && refusal.is_none() {
                    let op = batch.blame(message.seq, offset);
                    let errno = io::Error::from_raw_os_error(code);
                    refusal = Some(Refusal { errno, op, message: message_text });
                }
                // Confirmations and errors come in the order of the messages, after the last one was
                // worked through; an error of the batch as such stands at its begin.
                if message.seq >= last || message.seq == 0 {
                    self.commits = self.commits.wrapping_add(u32::from(refusal.is_none()));
                    return refusal.map_or(Ok(()), Err);
                }
            }
            // The kernel tells all errors of a batch at once: after the first refusal only what is
            // queued already is read.
            if let Some(refusal) = refusal.take() {
                self.socket.drain()?;
                return Err(refusal);
            }
        }
    }

    /// Asks for everything of a kind; `each` sees every message of the answer.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn dump(
        &mut self,
        kind: u16,
        family: u8,
        fill: impl FnOnce(&mut Writer),
        each: impl FnMut(&Message<'_>),
    ) -> io::Result<()> {
        self.socket.dump(kind, family, fill, each)
    }

    /// The kernel's generation: it changes with every transaction of anybody in this network
    /// namespace.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn generation(&mut self) -> io::Result<u32> {
        let mut number = None;
        self.socket
            .get(message::GET_GENERATION, |reply| number = reply.attributes().number(generation::ID))?;
        number.ok_or_else(|| io::Error::other("the kernel did not tell its generation"))
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
