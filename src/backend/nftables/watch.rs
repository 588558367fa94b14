//! Hears what others do to our tables, where the kernel cannot keep them from it. EDGE.
//!
//! A second socket that is told of every transaction but our own: the kernel drops those before they
//! are queued ([`unless_sent_by`]). It is read a few times a second and never waited for.

use std::io;

use nix::libc::{BPF_ABS, BPF_JEQ, BPF_JMP, BPF_K, BPF_LD, BPF_RET, BPF_W};
use nix::sys::socket::{setsockopt, sockopt};
use socket2::{SockFilter, SockRef};

use tracing::trace;

use super::notes::Notes;
use super::protocol::NOTIFICATIONS;
use super::wire;
use crate::backend::Drift;
use crate::model::Family;
use crate::netlink::socket::Socket;

/// `NETLINK_ADD_MEMBERSHIP`.
const ADD_MEMBERSHIP: i32 = 1;
/// `NETLINK_DROP_MEMBERSHIP`.
const DROP_MEMBERSHIP: i32 = 2;

/// Room for what others do between two looks: about 40,000 elements.
const QUEUE_BYTES: usize = 8 * 1024 * 1024;

/// A socket that hears of transactions.
#[derive(Debug)]
pub struct Watch {
    socket: Socket,
    notes: Notes,
    /// How often the queue ran over.
    lost: u64,
}

impl Watch {
    /// Listens from now on, but not to the socket with this netlink port.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn open(own_port: u32) -> io::Result<Self> {
        let socket = Socket::open()?;
        let fd = wire::borrow(socket.mnl());
        if setsockopt(&fd, sockopt::RcvBufForce, &QUEUE_BYTES).is_err() {
            // Without CAP_NET_ADMIN in the initial user namespace: up to net.core.rmem_max.
            let _ = setsockopt(&fd, sockopt::RcvBuf, &QUEUE_BYTES);
        }
        SockRef::from(&fd).attach_filter(&unless_sent_by(own_port))?;
        let mut watch = Self { socket, notes: Notes::default(), lost: 0 };
        watch.resume()?;
        Ok(watch)
    }

    /// Listens no longer until [`Self::resume`].
    ///
    /// # Errors
    /// What the kernel says.
    pub fn pause(&mut self) -> io::Result<()> {
        wire::set_netlink_option(self.socket.mnl(), DROP_MEMBERSHIP, NOTIFICATIONS)
    }

    /// Listens from now on.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn resume(&mut self) -> io::Result<()> {
        wire::set_netlink_option(self.socket.mnl(), ADD_MEMBERSHIP, NOTIFICATIONS)
    }

    /// Somebody did something while nobody listened.
    pub const fn missed(&mut self) {
        self.lost += 1;
    }

    /// Reads what has been told since the last call.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn listen(&mut self) -> io::Result<()> {
        let notes = &mut self.notes;
        let mut heard = 0;
        let lost = self.socket.queued(|message| {
            heard += 1;
            notes.take(message);
        })?;
        self.lost += u64::from(lost);
        trace!(heard, lost, "listened");
        Ok(())
    }

    /// Stays the same for as long as nobody touches the table of a family: how much was heard of it, and
    /// how often something may have been missed.
    #[must_use]
    pub fn mark(&self, family: Family) -> (u64, u64) {
        (self.notes.messages(family), self.lost)
    }

    /// Whether everything was heard up to this generation of somebody else. The number is raised before
    /// the kernel tells of the transaction.
    #[must_use]
    pub fn heard_of(&self, generation: u32) -> bool {
        self.notes.generation() == Some(generation)
    }

    /// How often something may have been missed.
    #[must_use]
    pub const fn lost(&self) -> u64 {
        self.lost
    }

    /// What was done to the table of a family since this was asked last.
    pub fn told(&mut self, family: Family) -> Option<Drift> {
        self.notes.told(family)
    }
}

/// A filter that drops what the socket with this netlink port has caused.
fn unless_sent_by(port: u32) -> [SockFilter; 4] {
    let step = |code: u32, unequal, value| {
        SockFilter::new(u16::try_from(code).unwrap_or_default(), 0, unequal, value)
    };
    [
        // `nlmsg_pid` stands at byte 12 in host order; a filter loads big-endian.
        step(BPF_LD | BPF_W | BPF_ABS, 0, 12),
        step(BPF_JMP | BPF_JEQ | BPF_K, 1, u32::from_be_bytes(port.to_ne_bytes())),
        step(BPF_RET | BPF_K, 0, 0),
        step(BPF_RET | BPF_K, 0, u32::MAX),
    ]
}
