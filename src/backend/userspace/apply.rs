//! Carries plans out: routes, sockets, orders to the workers. EDGE.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io;
use std::net::IpAddr;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use ipnet::IpNet;
use nix::libc;
use tracing::{info, warn};

use super::counters::Traffic;
use super::filter::Instruction;
use super::limits;
use super::listen::{Stance, open, refilter};
use super::locality::{Locality, NodeCidrs, ranges};
use super::ports::Ports;
use super::routes::{Route, Routes};
use super::slot::{Chooser, NotRemembered, ServedPort, Serving, Slot};
use super::table::{Binding, Effects, OwnedRow, Table};
use super::unserved::{Unserved, UnservedFrontends, Why};
use super::worker::{Orders, Workers};
use crate::backend::{Backend, BackendError, Receipt};
use crate::config::{Config, DetectLocal};
use crate::desired::{Owner, Row};
use crate::diff::Plan;
use crate::model::{Family, Protocol};

/// More threads only wake each other for nothing.
const MOST_WORKERS: usize = 4;

/// The userspace mode at work.
#[derive(Debug)]
pub struct Userspace {
    detect: DetectLocal,
    node_cidrs: NodeCidrs,
    /// How long connections of a Service that is gone may stay.
    drain: Duration,
    /// Most open files.
    limit: usize,
    workers: Workers,
    worker_count: usize,
    not_remembered: NotRemembered,
    routes: Routes,
    families: [FamilyState; 2],
    sockets: HashMap<Binding, OpenSocket>,
    ports: Ports,
    unserved: UnservedFrontends,
}

/// One family.
#[derive(Debug)]
struct FamilyState {
    table: Table,
    /// The next plan is compared with what there is, not with the last one.
    unread: bool,
    /// Addresses that could not be made the node's own.
    foreign: BTreeMap<IpAddr, String>,
}

/// An open socket.
#[derive(Debug)]
struct OpenSocket {
    slot: Arc<Slot>,
    filter: Option<Vec<Instruction>>,
}

impl Userspace {
    /// Starts the workers. Nothing is served yet.
    ///
    /// # Errors
    /// [`BackendError::Io`]: no threads or no netlink.
    pub fn open(config: &Config, traffic: Traffic) -> Result<Self, BackendError> {
        let limit = limits::open_files();
        let node_cidrs = NodeCidrs::default();
        let not_remembered = NotRemembered::default();
        let worker_count = std::thread::available_parallelism().map_or(1, usize::from).clamp(1, MOST_WORKERS);
        let most_clients = usize::try_from(config.affinity_clients).unwrap_or(usize::MAX);
        let chooser = {
            let (detect, cidrs, count) =
                (config.detect_local.clone(), node_cidrs.clone(), not_remembered.clone());
            move || Chooser::new(Locality::new(detect.clone(), cidrs.clone()), most_clients, count.clone())
        };
        let workers = Workers::start(worker_count, chooser).map_err(failed("starting relay threads"))?;
        let family_state =
            |family| FamilyState { table: Table::new(family), unread: true, foreign: BTreeMap::new() };
        info!(
            threads = worker_count,
            open_files = limit,
            "userspace mode: shunt itself forwards connections"
        );
        Ok(Self {
            detect: config.detect_local.clone(),
            node_cidrs,
            drain: config.userspace_drain,
            limit,
            workers,
            worker_count,
            not_remembered,
            routes: Routes::open().map_err(failed("opening a netlink socket"))?,
            families: Family::ALL.map(family_state),
            sockets: HashMap::new(),
            ports: Ports::new(traffic),
            unserved: UnservedFrontends::default(),
        })
    }

    /// Takes over a plan; what it means is compared with what there is where that is not known.
    fn effects(&mut self, plan: &Plan) -> io::Result<(Effects, Vec<(Route, bool)>)> {
        let family_state = of_family(&mut self.families, plan.family);
        let effects = family_state.table.apply(plan);
        if !std::mem::replace(&mut family_state.unread, true) {
            let changes = route_changes(&effects);
            return Ok((effects, changes));
        }
        let mut effects = family_state.table.everything();
        let wanted: BTreeSet<Route> = route_changes(&effects).into_iter().map(|(route, _)| route).collect();
        let installed = self.routes.list(plan.family)?;
        let mut changes: Vec<(Route, bool)> =
            wanted.difference(&installed).map(|route| (*route, true)).collect();
        changes.extend(installed.difference(&wanted).map(|route| (*route, false)));
        let served: BTreeSet<Binding> = effects.bindings.iter().map(|(binding, _)| *binding).collect();
        let known = self.sockets.keys().copied().chain(self.unserved.bindings());
        let gone =
            known.filter(|binding| Family::of(&binding.at.ip()) == plan.family && !served.contains(binding));
        effects.bindings.extend(gone.map(|binding| (binding, None)));
        Ok((effects, changes))
    }

    /// Makes addresses local, or no longer.
    fn change_routes(&mut self, family: Family, changes: &[(Route, bool)]) -> io::Result<()> {
        let family_state = of_family(&mut self.families, family);
        for (route, _) in changes {
            if let Route::Local(address) = route {
                family_state.foreign.remove(address);
            }
        }
        for (route, error) in self.routes.change(changes)? {
            match route {
                // Somebody else may have done it.
                Route::Local(address) if self.routes.way(address).is_ok_and(|way| way.local) => {}
                Route::Local(address) => _ = family_state.foreign.insert(address, error.to_string()),
                Route::Drop(net) => warn!(
                    "addresses of the service range {net} that no Service owns are not dropped here, they leave by \
                     the default route: {error}"
                ),
            }
        }
        Ok(())
    }

    /// Opens, changes or closes the socket of a binding.
    fn serve(&mut self, binding: Binding, held: Option<&OwnedRow>, orders: &mut Orders) {
        let frontend = held.and_then(|held| match &*held.row {
            Row::Frontend(_, forwarding) => Some((held, forwarding)),
            _ => None,
        });
        let Some((held, forwarding)) = frontend else {
            self.close(binding, orders);
            let gone = self.ports.release(binding);
            return self.drain(gone, orders);
        };
        let (port, gone) = self.ports.hold(binding, &forwarding.service_port);
        self.drain(gone, orders);
        let pods = ranges(&self.detect, &self.node_cidrs);
        let stance = Stance::of(forwarding, pods.as_deref());
        if stance == Stance::Refuse {
            // Its connections stay: the ServicePort is still there.
            return self.close(binding, orders);
        }
        let (filter, complete) = stance.filter();
        let Some(serving) = Serving::new(held.row.clone(), port.clone(), complete) else { return };
        let result = match self.sockets.get_mut(&binding) {
            Some(open) => refit(open, serving, filter, orders),
            None => self.open_socket(binding, serving, filter, orders),
        };
        match result {
            Ok(()) => _ = self.unserved.settle(binding),
            Err(why) => {
                self.close_socket(binding, orders);
                self.unserved.note(binding, Unserved { owner: held.owner.clone(), port, why });
            }
        }
    }

    /// Connections of a ServicePort that has gone may stay for a while.
    fn drain(&self, gone: Option<Arc<ServedPort>>, orders: &mut Orders) {
        orders.gone.extend(gone.map(|port| (port, Instant::now() + self.drain)));
    }

    fn open_socket(
        &mut self,
        binding: Binding,
        mut serving: Serving,
        mut filter: Option<Vec<Instruction>>,
        orders: &mut Orders,
    ) -> Result<(), Why> {
        if binding.protocol == Protocol::Sctp {
            return Err(Why::Protocol);
        }
        let address = binding.at.ip();
        if let Some(error) = of_family(&mut self.families, Family::of(&address)).foreign.get(&address) {
            return Err(Why::NotLocal(error.clone()));
        }
        if !limits::admits(self.limit, self.sockets.len()) {
            return Err(Why::Descriptors(self.limit));
        }
        let (socket, filtered) =
            open(binding, filter.as_deref()).map_err(|error| match error.raw_os_error() {
                Some(libc::EADDRINUSE) => Why::InUse,
                Some(libc::EACCES) => Why::Forbidden,
                Some(libc::EMFILE) => Why::Descriptors(self.limit),
                _ => Why::Other(error.to_string()),
            })?;
        if let Err(error) = filtered {
            warn_unfiltered(binding, &error);
            (filter, serving.filtered) = (None, false);
        }
        let slot = Arc::new(Slot::new(binding, socket, Arc::new(serving)));
        orders.open.push(slot.clone());
        self.sockets.insert(binding, OpenSocket { slot, filter });
        Ok(())
    }

    fn close(&mut self, binding: Binding, orders: &mut Orders) {
        self.unserved.settle(binding);
        self.close_socket(binding, orders);
    }

    fn close_socket(&mut self, binding: Binding, orders: &mut Orders) {
        if self.sockets.remove(&binding).is_some() {
            orders.close.push(binding);
        }
    }

    /// Tries what could not be opened once more.
    fn retry(&mut self, family: Family) -> io::Result<()> {
        let mut bindings = self.unserved.to_retry();
        bindings.retain(|binding| Family::of(&binding.at.ip()) == family);
        if bindings.is_empty() {
            return Ok(());
        }
        let foreign = of_family(&mut self.families, family).foreign.keys();
        let changes: Vec<(Route, bool)> = foreign.map(|address| (Route::Local(*address), true)).collect();
        self.change_routes(family, &changes)?;
        let mut orders = Orders::default();
        for binding in bindings {
            self.serve_again(binding, &mut orders);
        }
        self.order(orders)
    }

    fn serve_again(&mut self, binding: Binding, orders: &mut Orders) {
        let held = of_family(&mut self.families, Family::of(&binding.at.ip())).table.at(binding).cloned();
        self.serve(binding, held.as_ref(), orders);
        if self.sockets.contains_key(&binding) {
            info!("{binding} is served now");
        }
    }

    fn order(&mut self, mut orders: Orders) -> io::Result<()> {
        orders.room = limits::room(self.limit, self.sockets.len(), self.worker_count);
        self.workers.order(orders)?;
        self.unserved.news().iter().for_each(|line| warn!("{line}"));
        Ok(())
    }
}

impl Backend for Userspace {
    fn set_node_cidrs(&mut self, cidrs: &[IpNet]) {
        *self.node_cidrs.write().unwrap_or_else(PoisonError::into_inner) = cidrs.to_vec();
    }

    fn read(&mut self, family: Family) -> Result<Vec<(Owner, Row)>, BackendError> {
        let family_state = of_family(&mut self.families, family);
        family_state.unread = true;
        Ok(family_state.table.rows().collect())
    }

    fn apply(&mut self, plan: &Plan) -> Result<Receipt, BackendError> {
        let start = Instant::now();
        let family = plan.family;
        let (effects, routes) = self.effects(plan).map_err(failed("reading local routes"))?;
        let (add, remove): (Vec<_>, Vec<_>) = routes.into_iter().partition(|(_, add)| *add);
        self.change_routes(family, &add).map_err(failed("adding local routes"))?;
        let mut orders = Orders::default();
        for (binding, held) in &effects.bindings {
            self.serve(*binding, held.as_ref(), &mut orders);
        }
        // Who had the port may have let go of it: that costs a system call each.
        for binding in self.unserved.in_use() {
            self.serve_again(binding, &mut orders);
        }
        self.order(orders).map_err(failed("telling the relay threads"))?;
        // Last: while a socket is open, its address is the node's own.
        self.change_routes(family, &remove).map_err(failed("removing local routes"))?;
        of_family(&mut self.families, family).unread = false;
        let mut receipt = Receipt::default();
        receipt.add(effects.bindings.len() + add.len() + remove.len(), 0, start.elapsed());
        Ok(receipt)
    }

    fn cleanup(&mut self, family: Family) -> Result<bool, BackendError> {
        cleanup(family)
    }

    fn outlives_us(&self) -> bool {
        false
    }

    fn tend(&mut self, family: Family) -> Result<(), BackendError> {
        self.retry(family).map_err(failed("opening sockets"))
    }

    fn not_remembered(&mut self, family: Family) -> Result<u64, BackendError> {
        let [four, six] = &*self.not_remembered;
        let count = if family == Family::V4 { four } else { six };
        Ok(count.swap(0, Ordering::Relaxed))
    }
}

/// Removes the local routes of a family; returns whether there were any.
///
/// # Errors
/// [`BackendError::Privilege`], or what the kernel says.
pub fn cleanup(family: Family) -> Result<bool, BackendError> {
    let mut routes = Routes::open().map_err(failed("opening a netlink socket"))?;
    let installed = routes.list(family).map_err(failed("reading local routes"))?;
    let changes: Vec<(Route, bool)> = installed.iter().map(|route| (*route, false)).collect();
    let refused = routes.change(&changes).map_err(failed("removing local routes"))?;
    match refused.into_iter().next() {
        None => Ok(!installed.is_empty()),
        Some((_, error)) if error.raw_os_error() == Some(libc::EPERM) => Err(BackendError::Privilege(
            "the local routes of the userspace mode cannot be removed: CAP_NET_ADMIN is missing".into(),
        )),
        Some((_, error)) => Err(failed("removing local routes")(error)),
    }
}

/// Serves something else on an open socket. At no time may anybody call whom neither filter nor relay would
/// let in: a filter comes before what relies on it, and goes after it.
fn refit(
    open: &mut OpenSocket,
    mut serving: Serving,
    filter: Option<Vec<Instruction>>,
    orders: &mut Orders,
) -> Result<(), Why> {
    let mut removes = open.filter.is_some() && filter.is_none();
    if filter.is_some() && open.filter != filter {
        match refilter(&open.slot.socket, filter.as_deref()) {
            Ok(()) => open.filter = filter,
            Err(error) => {
                if open.slot.serving().filtered {
                    warn_unfiltered(open.slot.binding, &error);
                }
                serving.filtered = false;
                removes = open.filter.is_some();
            }
        }
    }
    open.slot.serve(Arc::new(serving));
    if removes {
        let result = refilter(&open.slot.socket, None);
        result.map_err(|error| Why::Other(format!("its filter cannot be removed: {error}")))?;
        open.filter = None;
    }
    if open.slot.binding.protocol == Protocol::Udp {
        orders.changed.push(open.slot.binding);
    }
    Ok(())
}

fn warn_unfiltered(binding: Binding, error: &io::Error) {
    warn!(
        "{binding} is served without a socket filter ({error}): clients outside loadBalancerSourceRanges are turned \
         away by shunt itself, with a reset. A long list may need a higher net.core.optmem_max, or fewer ranges"
    );
}

/// The routes that effects ask for.
fn route_changes(effects: &Effects) -> Vec<(Route, bool)> {
    let addresses = effects.addresses.iter().map(|(address, wanted)| (Route::Local(*address), *wanted));
    let ranges = effects.ranges.iter().map(|(net, wanted)| (Route::Drop(*net), *wanted));
    addresses.chain(ranges).collect()
}

fn of_family(families: &mut [FamilyState; 2], family: Family) -> &mut FamilyState {
    let [four, six] = families;
    if family == Family::V4 { four } else { six }
}

fn failed(action: &'static str) -> impl Fn(io::Error) -> BackendError {
    move |source| BackendError::Io { action: action.into(), source }
}

#[cfg(test)]
mod tests;
