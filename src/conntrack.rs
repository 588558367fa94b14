//! Connection tracking: finds and deletes UDP flows that lead to the wrong place, over ctnetlink.
//! EDGE. Which flows those are is decided in `policy/stale.rs`.

pub mod wire;

use std::collections::BTreeSet;
use std::io;
use std::net::IpAddr;
use std::time::Instant;

use nix::libc;
use tracing::{debug, warn};

use crate::model::Family;
use crate::netlink::socket::{Socket, read_error};
use crate::netlink::{ACK, DUMP_FILTERED, DUMP_INTERRUPTED, ERROR, Writer, family_number};
use crate::policy::stale::{Review, Scope};
use wire::{Entry, Query};

/// A filtered dump costs one walk through the table, about 15 ms for 130,000 flows; a dump of all UDP
/// flows costs that and 0.7 us for each. So for a few destinations the kernel filters, for more we do.
const MOST_FILTERED: usize = 6;

/// Flows deleted with one call. Should all of them have gone by themselves, the errors have to fit into
/// the socket's receive buffer (208 KiB, of which each takes less than 1 KiB).
const DELETED_AT_ONCE: usize = 128;

/// Something that can bring conntrack in line with a review.
pub trait Conntrack {
    /// Deletes the stale flows among those that the review is about, and returns how many there were.
    /// Warns itself, and once, where it can never work.
    ///
    /// # Errors
    /// [`ConntrackError`]; some may be deleted already.
    fn reconcile(&mut self, review: &Review) -> Result<u64, ConntrackError>;
}

/// Leaves conntrack alone: where no address is translated, no flow leads anywhere wrong.
#[derive(Clone, Copy, Debug, Default)]
pub struct Untouched;

impl Conntrack for Untouched {
    fn reconcile(&mut self, _review: &Review) -> Result<u64, ConntrackError> {
        Ok(0)
    }
}

/// Why conntrack could not be brought in line. All of them may be tried again.
#[derive(Debug, thiserror::Error)]
pub enum ConntrackError {
    /// The kernel has no ctnetlink; somebody may load it.
    #[error(
        "conntrack cannot be read: the kernel does not have nf_conntrack_netlink (modprobe nf_conntrack_netlink, \
         or CONFIG_NF_CT_NETLINK). Services work without it, but a UDP client that keeps sending from one port \
         stays with an endpoint that is gone until it pauses for as long as \
         net.netfilter.nf_conntrack_udp_timeout"
    )]
    Missing,
    /// The conversation failed.
    #[error("{action} failed: {source}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// The error.
        source: io::Error,
    },
    /// The table was resized during the dump: some flows were not seen.
    #[error("the conntrack table changed while it was read")]
    Interrupted,
}

/// The kernel's conntrack, in the network namespace in which it is first used.
#[derive(Debug)]
pub struct Netlink {
    socket: Option<Socket>,
    /// Whether the kernel filters dumps, as far as is known.
    filters: bool,
    /// Whether somebody was told that the kernel has no ctnetlink.
    told: bool,
}

impl Default for Netlink {
    fn default() -> Self {
        Self { socket: None, filters: true, told: false }
    }
}

impl Conntrack for Netlink {
    fn reconcile(&mut self, review: &Review) -> Result<u64, ConntrackError> {
        let start = Instant::now();
        let found = self.find(review);
        let missing = matches!(found, Err(ConntrackError::Missing));
        if missing && !std::mem::replace(&mut self.told, missing) {
            warn!("{}", ConntrackError::Missing);
        }
        let stale = found?;
        let deleted = self.delete(review.family, &stale)?;
        debug!(family = %review.family, deleted, took = ?start.elapsed(), "looked for stale UDP flows");
        Ok(deleted)
    }
}

impl Netlink {
    fn socket(&mut self) -> Result<&mut Socket, ConntrackError> {
        if self.socket.is_none() {
            self.socket = Some(Socket::open().map_err(|source| failed("opening a netlink socket", source))?);
        }
        self.socket.as_mut().ok_or(ConntrackError::Missing)
    }

    /// The stale flows.
    fn find(&mut self, review: &Review) -> Result<Vec<Entry>, ConntrackError> {
        let mut stale = Vec::new();
        for query in queries(&review.scope, self.filters) {
            let seen = match self.dump(review, query, &mut stale) {
                // A kernel whose filters are others: ask for everything.
                Err(ConntrackError::Io { source, .. })
                    if self.filters && source.raw_os_error() == Some(libc::EOPNOTSUPP) =>
                {
                    Seen::Everything
                }
                seen => seen?,
            };
            if seen == Seen::Everything {
                self.filters = false;
            }
            if seen == Seen::Everything && query != Query::EVERYTHING {
                // Linux before 5.8 knows no filters and tells all: the other queries would do the same.
                stale.clear();
                self.dump(review, Query::EVERYTHING, &mut stale)?;
                break;
            }
        }
        Ok(stale)
    }

    fn dump(
        &mut self,
        review: &Review,
        query: Query,
        stale: &mut Vec<Entry>,
    ) -> Result<Seen, ConntrackError> {
        let mut flags = None;
        let each = |message: &crate::netlink::Message<'_>| {
            flags = Some(flags.unwrap_or(message.flags) | (message.flags & DUMP_INTERRUPTED));
            stale.extend(Entry::read(message).filter(|entry| review.is_stale(&entry.flow)));
        };
        let family = family_number(review.family);
        let result = self.socket()?.dump(wire::GET, family, |writer| query.write(writer), each);
        result.map_err(|source| match source.raw_os_error() {
            // What nfnetlink says of a subsystem that nobody registered.
            Some(libc::EINVAL | libc::EPROTONOSUPPORT) => ConntrackError::Missing,
            _ => failed("listing conntrack", source),
        })?;
        match flags {
            Some(flags) if flags & DUMP_INTERRUPTED != 0 => Err(ConntrackError::Interrupted),
            Some(flags) if flags & DUMP_FILTERED == 0 => Ok(Seen::Everything),
            _ => Ok(Seen::Filtered),
        }
    }

    /// Deletes flows and returns how many of them were still there.
    fn delete(&mut self, family: Family, flows: &[Entry]) -> Result<u64, ConntrackError> {
        let mut deleted = 0;
        for chunk in flows.chunks(DELETED_AT_ONCE) {
            deleted += self.delete_chunk(family, chunk)?;
        }
        Ok(deleted)
    }

    fn delete_chunk(&mut self, family: Family, chunk: &[Entry]) -> Result<u64, ConntrackError> {
        let io = |source| failed("deleting from conntrack", source);
        let mut writer = Writer::default();
        let (mut last, mut deleted) = (0, 0);
        for entry in chunk {
            last += 1;
            deleted += 1;
            // The last one is confirmed: then the kernel is through with all of them.
            let flags = if usize::try_from(last) == Ok(chunk.len()) { ACK } else { 0 };
            let open = writer.message(wire::DELETE, flags, last, family_number(family), 0);
            entry.write(&mut writer);
            writer.end_message(open);
        }
        let socket = self.socket()?;
        socket.send(writer.bytes()).map_err(io)?;
        let mut failure = None;
        loop {
            for message in socket.receive().map_err(io)?.filter(|message| message.kind == ERROR) {
                match read_error(&message).0 {
                    0 => {}
                    // It has gone by itself, or the client has a new flow.
                    libc::ENOENT => deleted -= 1,
                    code => failure = Some(code),
                }
                if message.seq == last {
                    let failure = failure.map(io::Error::from_raw_os_error);
                    return failure.map_or(Ok(deleted), |source| Err(io(source)));
                }
            }
        }
    }
}

/// What a dump has shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Seen {
    /// What was asked for, or nothing.
    Filtered,
    /// All flows: the kernel does not filter.
    Everything,
}

/// The dumps that show every flow of a scope.
fn queries(scope: &Scope, filters: bool) -> Vec<Query> {
    let some = |dialled: &BTreeSet<(Option<IpAddr>, u16)>| {
        let query = |(address, port): &(Option<IpAddr>, u16)| Query { address: *address, port: Some(*port) };
        dialled.iter().map(query).collect()
    };
    match scope {
        Scope::Dialled(dialled) if filters && dialled.len() <= MOST_FILTERED => some(dialled),
        Scope::Dialled(_) | Scope::Everything => vec![Query::EVERYTHING],
    }
}

fn failed(action: &'static str, source: io::Error) -> ConntrackError {
    ConntrackError::Io { action, source }
}
