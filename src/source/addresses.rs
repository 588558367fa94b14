//! EDGE. The node's own addresses, from the kernel: read once, then followed without polling.
//!
//! Out: [`Update::LocalAddresses`], the complete sorted list, whenever it differs from the one
//! before. NodePorts with a CIDR list in `nodePortAddresses` answer on those of them that match;
//! `primary` looks at them only where there is no Node object. Which addresses count is said in
//! `select.rs`.
//!
//! A notification is never taken at its word: it says what may have changed, and that is read again.
//! Addresses are cheap to read. Routes are not, on a router with a million of them, and the kernel
//! cannot be asked for the default route alone (net/ipv4/fib_frontend.c, ip_valid_fib_dump_req
//! refuses a destination). So
//! - the kernel itself filters out the notifications about other routes;
//! - of the links and addresses, only those that may take a default route along make us look;
//! - and routes are read once in `ROUTES_PAUSE` at most. (Measured: 400,000 routes take 1.6 s and 30 MB
//!   for that time in a debug build.)
//!
//! Works in any network namespace, without privileges, and where IPv6 is off.

mod kernel;
mod select;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::io;
use std::time::Duration;

use tokio::time::{Instant, sleep, sleep_until};
use tracing::{debug, info, warn};

use super::Sink;
use crate::model::{LocalAddress, Update};
use kernel::{Kernel, Notifications};
use select::{DefaultRoute, Stale, select};

/// How long events are gathered before anything is read: they come in bursts (an interface, its
/// addresses, its routes), and the kernel announces that a link goes down or an address goes away
/// just before it drops the routes that depended on it.
const SETTLE: Duration = Duration::from_millis(100);

/// The shortest time between two readings of the routes.
const ROUTES_PAUSE: Duration = Duration::from_secs(1);

/// How long to wait before the first new attempt after an error; it doubles up to [`RETRY_MAX`].
const RETRY_MIN: Duration = Duration::from_secs(1);

/// The longest wait between two attempts.
const RETRY_MAX: Duration = Duration::from_secs(60);

/// Why the node's addresses are not known. Each may be tried again, and [`follow`] does; meanwhile
/// the addresses known before stay in force.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is no netlink socket to be had.
    #[error(
        "cannot open a netlink socket (NETLINK_ROUTE): {0}; it needs no privilege, but a seccomp or \
         AppArmor profile may forbid it. NodePorts then answer only on the addresses of the Node object"
    )]
    Open(#[source] io::Error),
    /// The kernel refused to list something.
    #[error(
        "the kernel refused to list this node's {what}: {source}; NodePorts keep answering on the \
         addresses known before"
    )]
    Refused {
        /// What was asked for.
        what: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
    /// The answer did not come, or broke off.
    #[error(
        "the kernel's answer to the request for this node's {what} did not come within 10 s; NodePorts \
         keep answering on the addresses known before"
    )]
    Silent {
        /// What was asked for.
        what: &'static str,
    },
    /// The socket broke.
    #[error(
        "the netlink socket for this node's {what} broke; NodePorts keep answering on the addresses \
         known before"
    )]
    Closed {
        /// What was asked for, or listened to.
        what: &'static str,
    },
}

impl Error {
    /// Whether the kernel only says that there is no such thing: no route has been added to the
    /// table since the namespace was made, or the family is off.
    fn means_none(&self) -> bool {
        const ENOENT: i32 = 2;
        const EOPNOTSUPP: i32 = 95;
        const EAFNOSUPPORT: i32 = 97;
        let Self::Refused { source, .. } = self else { return false };
        matches!(source.raw_os_error(), Some(ENOENT | EOPNOTSUPP | EAFNOSUPPORT))
    }
}

/// The node's addresses as they are now.
///
/// # Errors
///
/// See [`Error`]. At start nothing is lost by going on with no address, as [`follow`] keeps trying.
pub async fn initial() -> Result<Update, Error> {
    let mut kernel = Kernel::open()?;
    let routes = kernel.default_routes().await?;
    Ok(Update::LocalAddresses(select(&kernel.addresses().await?, &routes)))
}

/// Hands over the node's addresses, then again whenever they differ. It listens before it reads, so
/// nothing is missed between [`initial`] and this: the list comes once more, and the store
/// takes no notice of one that it has.
///
/// Errors are logged and tried again. Ends when nobody listens any more, which shows at the next
/// change; dropping the future ends it at once.
pub async fn follow(sink: Sink) {
    let mut follower = Follower { sink, told: None, retry: RETRY_MIN };
    loop {
        match follower.session().await {
            Ok(Gone) => return debug!("nobody listens to the node's addresses any more"),
            Err(error) => warn!(%error, retry_in = ?follower.retry, "cannot follow this node's addresses"),
        }
        sleep(follower.retry).await;
        follower.retry = RETRY_MAX.min(follower.retry * 2);
    }
}

/// Nobody listens any more.
struct Gone;

struct Follower {
    sink: Sink,
    /// The list handed over last.
    told: Option<Box<[LocalAddress]>>,
    /// How long to wait after the next error.
    retry: Duration,
}

impl Follower {
    /// Listens, reads and follows until an error or the end.
    async fn session(&mut self) -> Result<Gone, Error> {
        let mut notifications = Notifications::subscribe()?;
        let mut kernel = Kernel::open()?;
        let mut routes = kernel.default_routes().await?;
        let mut routes_next = Instant::now() + ROUTES_PAUSE;
        let mut held = kernel.addresses().await?;
        self.retry = RETRY_MIN;

        let mut stale = Stale::default();
        let mut due = None;
        loop {
            if !self.tell(select(&held, &routes)) {
                return Ok(Gone);
            }
            wait(&mut notifications, &routes, &mut stale, &mut due).await?;
            if stale.addresses {
                held = kernel.addresses().await?;
                stale.addresses = false;
            }
            if stale.routes && Instant::now() >= routes_next {
                routes = kernel.default_routes().await?;
                routes_next = Instant::now() + ROUTES_PAUSE;
                stale.routes = false;
            }
            due = stale.routes.then_some(routes_next);
        }
    }

    /// Hands the list over if it is another one. Returns false when nobody listens any more.
    fn tell(&mut self, list: Box<[LocalAddress]>) -> bool {
        if self.told.as_ref() == Some(&list) {
            return true;
        }
        info!(addresses = list.len(), "this node's addresses");
        debug!(?list);
        self.told = Some(list.clone());
        (self.sink)(vec![Update::LocalAddresses(list)])
    }
}

/// Gathers what becomes stale until it is due to be read: [`SETTLE`] after the first event, or at
/// `due` if that was put off to a moment before.
async fn wait(
    notifications: &mut Notifications,
    routes: &BTreeSet<DefaultRoute>,
    stale: &mut Stale,
    due: &mut Option<Instant>,
) -> Result<(), Error> {
    loop {
        let moment = due.unwrap_or_else(Instant::now);
        tokio::select! {
            // The clock first: no flood of events may put off the reading. They wait in their queue.
            biased;
            () = sleep_until(moment), if due.is_some() => return Ok(()),
            event = notifications.next(routes) => {
                let before = *stale;
                stale.add(event?);
                // Addresses do not wait for the routes' turn.
                if *stale != before {
                    let settled = Instant::now() + SETTLE;
                    *due = Some(due.map_or(settled, |due| due.min(settled)));
                }
            }
        }
    }
}
