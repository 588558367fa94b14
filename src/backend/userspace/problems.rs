//! Frontends that could not be opened: who is told, and when. PURE, but for the counters.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use super::slot::ServedPort;
use super::table::Place;
use crate::desired::Owner;

/// Why a frontend is not served.
#[derive(Debug)]
pub struct Problem {
    /// Whose frontend it is.
    pub owner: Owner,
    /// The ServicePort.
    pub port: Arc<ServedPort>,
    /// What is in the way, and what to do about it.
    pub why: Why,
}

/// What is in the way.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Why {
    /// The address cannot be made this node's own.
    NotLocal(String),
    /// Another program has the port.
    InUse,
    /// A port below `net.ipv4.ip_unprivileged_port_start`.
    Forbidden,
    /// The limit of open files is reached.
    Descriptors(usize),
    /// SCTP.
    Protocol,
    /// Anything else.
    Other(String),
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotLocal(error) => write!(
                f,
                "its address cannot be made this node's own ({error}): give shunt CAP_NET_ADMIN, or route it here \
                 with `ip route add local ADDRESS dev lo`"
            ),
            Self::InUse => f.write_str(
                "another program on this node listens on this port, perhaps on all addresses (`ss -lntup`): have \
                 it listen on the node's own address only",
            ),
            Self::Forbidden => f.write_str(
                "the port is reserved: give shunt CAP_NET_BIND_SERVICE, or lower net.ipv4.ip_unprivileged_port_start",
            ),
            Self::Descriptors(limit) => write!(
                f,
                "there are too many Services for {limit} open files, of which a quarter stays for connections: raise \
                 LimitNOFILE or ulimit -n"
            ),
            Self::Protocol => f.write_str("a proxy cannot forward SCTP: use --proxy-mode nftables"),
            Self::Other(error) => f.write_str(error),
        }
    }
}

/// Most lines that one change is worth.
const MOST_LINES: usize = 20;

/// All problems, by place.
#[derive(Debug, Default)]
pub struct Problems {
    by_place: BTreeMap<Place, Problem>,
    /// Places whose problem is not told yet.
    fresh: BTreeSet<Place>,
}

impl Problems {
    /// Notes a problem, in place of what was the matter before.
    pub fn note(&mut self, place: Place, problem: Problem) {
        let told = !self.fresh.contains(&place);
        let known = self.settle(place);
        let same =
            known.as_ref().is_some_and(|known| known.owner == problem.owner && known.why == problem.why);
        if !(same && told) {
            self.fresh.insert(place);
        }
        problem.port.counters.add_unserved();
        self.by_place.insert(place, problem);
    }

    /// The place is served, or need not be; returns what was the matter.
    pub fn settle(&mut self, place: Place) -> Option<Problem> {
        let problem = self.by_place.remove(&place)?;
        self.fresh.remove(&place);
        problem.port.counters.take_unserved();
        Some(problem)
    }

    /// Every place with a problem.
    pub fn places(&self) -> Vec<Place> {
        self.by_place.keys().copied().collect()
    }

    /// Every place with a problem that may have gone by itself.
    pub fn places_to_retry(&self) -> Vec<Place> {
        let may_have_gone = self.by_place.iter().filter(|(_, problem)| problem.why != Why::Protocol);
        may_have_gone.map(|(place, _)| *place).collect()
    }

    /// Every place whose port another program had.
    pub fn places_in_use(&self) -> Vec<Place> {
        let in_use = self.by_place.iter().filter(|(_, problem)| problem.why == Why::InUse);
        in_use.map(|(place, _)| *place).collect()
    }

    /// What has to be told now: a line for each Service and cause, and one for the rest.
    pub fn news(&mut self) -> Vec<String> {
        let mut lines: BTreeMap<(&Owner, &Why), Vec<Place>> = BTreeMap::new();
        for place in &self.fresh {
            if let Some(Problem { owner, why, .. }) = self.by_place.get(place) {
                lines.entry((owner, why)).or_default().push(*place);
            }
        }
        let more = lines.len().saturating_sub(MOST_LINES);
        let line = |((owner, why), places): (&(&Owner, &Why), &Vec<Place>)| {
            let places: Vec<String> = places.iter().map(ToString::to_string).collect();
            let verb = if places.len() == 1 { "is" } else { "are" };
            format!("{owner}: {} {verb} not served: {why}", places.join(", "))
        };
        let mut lines: Vec<String> = lines.iter().take(MOST_LINES).map(line).collect();
        if more > 0 {
            lines.push(format!(
                "the same kind of thing holds for {more} more Services; the metric shunt_userspace_unserved names \
                 them all"
            ));
        }
        self.fresh.clear();
        lines
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::userspace::counters::{PortName, Traffic};
    use crate::desired::ServicePortName;
    use crate::model::Protocol;
    use crate::testing::name;

    fn problem(traffic: &Traffic, service: &str, why: Why) -> Problem {
        let name_of_port =
            PortName { name: ServicePortName::parse(service).unwrap(), protocol: Protocol::Tcp };
        let port = Arc::new(ServedPort::new(name_of_port.clone(), traffic.of(&name_of_port)));
        Problem { owner: Owner::Service(name(service)), port, why }
    }

    fn place(at: &str) -> Place {
        Place { protocol: Protocol::Tcp, at: at.parse().unwrap() }
    }

    #[test]
    fn each_service_is_told_of_once() {
        let traffic = Traffic::default();
        let mut problems = Problems::default();
        for at in ["10.96.0.1:80", "10.96.0.1:443"] {
            problems.note(place(at), problem(&traffic, "shop/web", Why::InUse));
        }
        let lines = problems.news();
        assert_eq!(lines.len(), 1, "{lines:?}");
        let start = "Service shop/web: 10.96.0.1:80/tcp, 10.96.0.1:443/tcp are not served: another program";
        assert!(lines[0].starts_with(start), "{lines:?}");
        problems.note(place("10.96.0.1:80"), problem(&traffic, "shop/web", Why::InUse));
        assert!(problems.news().is_empty(), "the same again");
        problems.note(place("10.96.0.1:80"), problem(&traffic, "shop/web", Why::Forbidden));
        assert_eq!(problems.news().len(), 1, "another cause");
        assert!(problems.settle(place("10.96.0.1:80")).is_some());
        assert_eq!(problems.places(), [place("10.96.0.1:443")]);
        assert_eq!(problems.places_to_retry(), problems.places());
        problems.note(place("10.96.0.1:443"), problem(&traffic, "shop/web", Why::Protocol));
        assert!(problems.places_to_retry().is_empty(), "no retry teaches a proxy SCTP");
    }

    #[test]
    fn a_flood_is_cut() {
        let traffic = Traffic::default();
        let mut problems = Problems::default();
        for n in 1..=200 {
            let service = format!("shop/web-{n}");
            problems.note(
                place(&format!("10.96.0.{n}:80")),
                problem(&traffic, &service, Why::NotLocal("no".into())),
            );
        }
        let lines = problems.news();
        assert_eq!(lines.len(), MOST_LINES + 1);
        assert!(lines[MOST_LINES].contains("180 more Services"), "{}", lines[MOST_LINES]);
    }
}
