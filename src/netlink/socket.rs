//! A netlink socket: requests out, answers and dumps in. EDGE.

use std::fmt;
use std::io;
use std::os::fd::AsRawFd;

use super::{Attributes, DONE, DUMP, ERROR, Message, Writer, messages};

/// Dump replies are up to 32 KiB; errors can be longer where the kernel echoes.
const RECEIVE_BYTES: usize = 64 * 1024;

/// A conversation with one of the kernel's subsystems.
pub struct Socket {
    mnl: mnl::Socket,
    receive: Vec<u8>,
    seq: u32,
}

impl fmt::Debug for Socket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "netlink port {}", self.mnl.portid())
    }
}

impl Socket {
    /// Opens a socket to netfilter's subsystems.
    ///
    /// # Errors
    /// What the kernel says; `EPROTONOSUPPORT` where it has no nfnetlink.
    pub fn open() -> io::Result<Self> {
        Self::open_on(mnl::Bus::Netfilter)
    }

    /// Opens a socket.
    ///
    /// # Errors
    /// What the kernel says; `EPROTONOSUPPORT` where it does not have this bus.
    pub fn open_on(bus: mnl::Bus) -> io::Result<Self> {
        let mnl = mnl::Socket::new(bus)?;
        Ok(Self { mnl, receive: vec![0; RECEIVE_BYTES], seq: 0 })
    }

    /// The socket underneath, for its options.
    #[must_use]
    pub const fn mnl(&self) -> &mnl::Socket {
        &self.mnl
    }

    /// Sends a request, after reading away what an earlier, failed one left in the queue. The kernel
    /// works through it within the call.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.drain()?;
        self.mnl.send(bytes).map(|_| ())
    }

    /// Waits for an answer.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn receive(&mut self) -> io::Result<impl Iterator<Item = Message<'_>>> {
        let received = loop {
            match self.mnl.recv_raw(&mut self.receive) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                result => break result?,
            }
        };
        Ok(messages(&self.receive[..received]))
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
        mut each: impl FnMut(&Message<'_>),
    ) -> io::Result<()> {
        let seq = self.request(kind, DUMP, family, fill)?;
        loop {
            for message in self.receive()?.filter(|message| message.seq == seq) {
                match message.kind {
                    DONE => return Ok(()),
                    ERROR => return confirmed(&message),
                    _ => each(&message),
                }
            }
        }
    }

    /// Asks for one thing; `each` sees every message of the answer.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn get(&mut self, kind: u16, mut each: impl FnMut(&Message<'_>)) -> io::Result<()> {
        self.request(kind, 0, 0, |_| {})?;
        for message in self.receive()? {
            if message.kind == ERROR {
                return confirmed(&message);
            }
            each(&message);
        }
        Ok(())
    }

    /// Sends one message and returns its sequence number.
    fn request(
        &mut self,
        kind: u16,
        flags: u16,
        family: u8,
        fill: impl FnOnce(&mut Writer),
    ) -> io::Result<u32> {
        self.seq += 1;
        let mut writer = Writer::default();
        let open = writer.message(kind, flags, self.seq, family, 0);
        fill(&mut writer);
        writer.end_message(open);
        self.send(writer.bytes())?;
        Ok(self.seq)
    }

    /// Reads away what is queued.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn drain(&mut self) -> io::Result<()> {
        self.queued(|_| {}).map(|_| ())
    }

    /// Reads what is queued and does not wait for more; `each` sees every message. Returns whether the
    /// queue ran over, so that some were lost.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn queued(&mut self, mut each: impl FnMut(&Message<'_>)) -> io::Result<bool> {
        use nix::errno::Errno;
        use nix::sys::socket::{MsgFlags, recv};
        let mut lost = false;
        loop {
            match recv(self.mnl.as_raw_fd(), &mut self.receive, MsgFlags::MSG_DONTWAIT) {
                Ok(length) => messages(&self.receive[..length]).for_each(|message| each(&message)),
                Err(Errno::EINTR) => {}
                Err(Errno::ENOBUFS) => lost = true,
                Err(Errno::EAGAIN) => return Ok(lost),
                Err(errno) => return Err(errno.into()),
            }
        }
    }
}

/// What a message of type [`ERROR`] says: success where its number is 0.
fn confirmed(message: &Message<'_>) -> io::Result<()> {
    match read_error(message).0 {
        0 => Ok(()),
        code => Err(io::Error::from_raw_os_error(code)),
    }
}

/// Error number, words, and offset of the attribute in an error message
/// (`enum nlmsgerr_attrs`: 1 the words, 2 the offset).
#[must_use]
pub fn read_error(message: &Message<'_>) -> (i32, Option<String>, Option<usize>) {
    let code = message.payload.get(..4).and_then(|bytes| bytes.try_into().ok()).map_or(0, i32::from_ne_bytes);
    // The error number is followed by the header of the message it is about.
    let attributes = Attributes(message.payload.get(20..).unwrap_or_default());
    let words = attributes.string(1).map(str::to_owned);
    let offset = attributes.get(2).and_then(|bytes| bytes.try_into().ok()).map(u32::from_ne_bytes);
    (code.saturating_neg(), words, offset.and_then(|offset| usize::try_from(offset).ok()))
}
