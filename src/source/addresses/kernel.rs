//! EDGE. The two netlink sockets: one that asks, one that listens. Neither needs a privilege.
//!
//! They are two so that a burst of notifications can never push an answer out of the buffer.

use std::collections::BTreeSet;
use std::io;
use std::os::fd::AsFd;
use std::time::Duration;

use futures::channel::mpsc::UnboundedReceiver;
use futures::{Stream, StreamExt};
use rtnetlink::packet_core::{NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_REQUEST, NetlinkMessage, NetlinkPayload};
use rtnetlink::packet_route::address::AddressMessage;
use rtnetlink::packet_route::route::{RouteHeader, RouteMessage, RouteType};
use rtnetlink::packet_route::{AddressFamily, RouteNetlinkMessage};
use rtnetlink::sys::{AsyncSocket, SocketAddr};
use rtnetlink::{Handle, MulticastGroup};
use socket2::{SockFilter, SockRef};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tracing::debug;

use super::Error;
use super::select::{DefaultRoute, Held, Stale, default_routes, held, stale};

/// How long the kernel may be silent in the middle of an answer. It answers within the call that
/// reads, so this only ends a wait for something that was lost.
const PATIENCE: Duration = Duration::from_secs(10);

/// How often a dump is asked for again when the kernel says that it changed while it was written.
const ATTEMPTS: u32 = 5;

/// What announces a change: see [`stale`].
const GROUPS: [MulticastGroup; 5] = [
    MulticastGroup::Link,
    MulticastGroup::Ipv4Ifaddr,
    MulticastGroup::Ipv6Ifaddr,
    MulticastGroup::Ipv4Route,
    MulticastGroup::Ipv6Route,
];

/// The socket that asks.
pub(super) struct Kernel {
    handle: Handle,
    /// Reads and writes the socket; ends when this is dropped.
    _task: JoinSet<()>,
}

impl Kernel {
    /// Opens the socket.
    pub(super) fn open() -> Result<Self, Error> {
        let (mut connection, handle, _) = rtnetlink::new_connection().map_err(Error::Open)?;
        // Else an answer that breaks off looks like a short list.
        connection.set_forward_done(true);
        // Has the kernel look at the filters of a request. Without (before Linux 4.20) it sends the
        // routes of all tables, which are then sorted out here.
        if let Err(error) = connection.socket_mut().socket_mut().set_netlink_get_strict_chk(true) {
            debug!(%error, "the kernel cannot filter routes: reading them takes longer");
        }
        let mut task = JoinSet::new();
        task.spawn(connection);
        Ok(Self { handle, _task: task })
    }

    /// Every address of either family that NodePorts may answer on, in the kernel's order.
    pub(super) async fn addresses(&mut self) -> Result<Vec<Held>, Error> {
        let request = RouteNetlinkMessage::GetAddress(AddressMessage::default());
        self.dump("addresses", &request, |message, found: &mut Vec<Held>| {
            if let RouteNetlinkMessage::NewAddress(message) = message {
                found.extend(held(message));
            }
        })
        .await
    }

    /// The default routes of both families in the main table.
    ///
    /// The kernel can filter by table and type, not by destination, so it sends the whole main table
    /// and all but the default routes is dropped as it arrives: the caller asks rarely.
    pub(super) async fn default_routes(&mut self) -> Result<BTreeSet<DefaultRoute>, Error> {
        let mut routes = BTreeSet::new();
        for family in [AddressFamily::Inet, AddressFamily::Inet6] {
            let mut request = RouteMessage::default();
            request.header.address_family = family;
            request.header.table = RouteHeader::RT_TABLE_MAIN;
            request.header.kind = RouteType::Unicast;
            let request = RouteNetlinkMessage::GetRoute(request);
            let read = self.dump("routes", &request, |message, found: &mut BTreeSet<DefaultRoute>| {
                if let RouteNetlinkMessage::NewRoute(message) = message {
                    found.extend(default_routes(message));
                }
            });
            match read.await {
                Ok(found) => routes.extend(found),
                Err(error) if error.means_none() => {}
                Err(error) => return Err(error),
            }
        }
        Ok(routes)
    }

    /// Collects a dump, again if it changed while it was written. The last attempt is taken as it
    /// is: the change that spoilt it has also been announced to whoever listens.
    async fn dump<T: Default>(
        &mut self,
        what: &'static str,
        request: &RouteNetlinkMessage,
        collect: impl Fn(&RouteNetlinkMessage, &mut T),
    ) -> Result<T, Error> {
        let mut attempt = 0;
        loop {
            attempt += 1;
            let mut message = NetlinkMessage::from(request.clone());
            message.header.flags = NLM_F_REQUEST | NLM_F_DUMP;
            let answer = self.handle.request(message).map_err(|_| Error::Closed { what })?;
            let mut found = T::default();
            let consistent = read(what, answer, |message| collect(message, &mut found)).await?;
            if consistent || attempt == ATTEMPTS {
                return Ok(found);
            }
        }
    }
}

/// Reads an answer to its end. Returns whether it is of one piece.
async fn read(
    what: &'static str,
    answer: impl Stream<Item = NetlinkMessage<RouteNetlinkMessage>>,
    mut each: impl FnMut(&RouteNetlinkMessage),
) -> Result<bool, Error> {
    let mut answer = std::pin::pin!(answer);
    let mut consistent = true;
    loop {
        let next = timeout(PATIENCE, answer.next()).await.map_err(|_| Error::Silent { what })?;
        let (header, payload) = next.ok_or(Error::Closed { what })?.into_parts();
        consistent &= header.flags & NLM_F_DUMP_INTR == 0;
        match payload {
            NetlinkPayload::InnerMessage(message) => each(&message),
            NetlinkPayload::Error(error) => return Err(Error::Refused { what, source: error.to_io() }),
            NetlinkPayload::Done(done) if done.code < 0 => {
                return Err(Error::Refused { what, source: io::Error::from_raw_os_error(-done.code) });
            }
            NetlinkPayload::Done(_) => return Ok(consistent),
            _ => {}
        }
    }
}

/// The socket that listens.
pub(super) struct Notifications {
    messages: UnboundedReceiver<(NetlinkMessage<RouteNetlinkMessage>, SocketAddr)>,
    /// Reads the socket; ends when this is dropped.
    _task: JoinSet<()>,
}

impl Notifications {
    /// Listens from now on.
    pub(super) fn subscribe() -> Result<Self, Error> {
        let (mut connection, _, messages) =
            rtnetlink::new_multicast_connection(&GROUPS).map_err(Error::Open)?;
        if let Err(error) = only_default_routes(connection.socket_mut().socket_mut()) {
            debug!(%error, "cannot attach a filter: every change of a route wakes shunt");
        }
        let mut task = JoinSet::new();
        task.spawn(connection);
        Ok(Self { messages, _task: task })
    }

    /// Waits for a message and says what it makes stale. Nothing is lost if this is dropped early.
    pub(super) async fn next(&mut self, routes: &BTreeSet<DefaultRoute>) -> Result<Stale, Error> {
        let (message, _) = self.messages.next().await.ok_or(Error::Closed { what: "notifications" })?;
        Ok(match message.payload {
            NetlinkPayload::InnerMessage(message) => stale(&message, routes),
            NetlinkPayload::Overrun(_) => {
                debug!("the kernel dropped notifications (ENOBUFS): reading everything again");
                Stale::EVERYTHING
            }
            _ => Stale::default(),
        })
    }
}

/// Has the kernel drop notifications about any but default routes before they are queued: a router
/// that changes thousands of routes a second neither wakes shunt nor fills its buffer. The program
/// is in classic BPF, for which no privilege is needed; it sees one message, as the kernel sends
/// them one by one. Offsets are those of `struct nlmsghdr` (16 bytes) and `struct rtmsg`.
fn only_default_routes(socket: &impl AsFd) -> io::Result<()> {
    const LOAD_HALF: u16 = 0x28; // BPF_LD | BPF_H | BPF_ABS: in network order
    const LOAD_BYTE: u16 = 0x30; // BPF_LD | BPF_B | BPF_ABS
    const JUMP_EQUAL: u16 = 0x15; // BPF_JMP | BPF_JEQ | BPF_K
    const RETURN: u16 = 0x06; // BPF_RET | BPF_K
    const NLMSG_TYPE: u32 = 4;
    const RTM_DST_LEN: u32 = 17;
    const RTM_NEWROUTE: u16 = 24;
    const RTM_DELROUTE: u16 = 25;
    SockRef::from(socket).attach_filter(&[
        SockFilter::new(LOAD_HALF, 0, 0, NLMSG_TYPE),
        SockFilter::new(JUMP_EQUAL, 1, 0, u32::from(RTM_NEWROUTE.to_be())),
        SockFilter::new(JUMP_EQUAL, 0, 2, u32::from(RTM_DELROUTE.to_be())),
        SockFilter::new(LOAD_BYTE, 0, 0, RTM_DST_LEN),
        SockFilter::new(JUMP_EQUAL, 0, 1, 0),
        SockFilter::new(RETURN, 0, 0, u32::MAX),
        SockFilter::new(RETURN, 0, 0, 0),
    ])
}
