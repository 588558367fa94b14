//! A row of a packet table: from where, to where, and what must happen; and the judge.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, SocketAddr};

use super::names::{Family, NODE_ADDRESSES, Name};
use super::probe::{Answer, Outcome};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    Tcp,
    Udp,
    Sctp,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Expect {
    /// Exactly these: each of them is seen, and never another one.
    Endpoints(Vec<(Name, u16)>),
    /// TCP reset or port unreachable.
    Rejected,
    /// Silence.
    Dropped,
    /// Silence, or the sender's own kernel refuses to send.
    DroppedOrInvalid,
    /// It reaches whoever has the address, on the port that was called. The lab has a server there meanwhile.
    Untouched,
}

/// The source address that the endpoint sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Masquerade {
    Any,
    /// The client's own address and port.
    Kept,
    /// An address of the node, and not just the client's own address and port.
    Rewritten,
}

/// One row.
#[derive(Clone, Debug)]
pub struct Flow {
    pub from: Name,
    pub protocol: Protocol,
    pub to: Name,
    pub port: u16,
    pub expect: Expect,
    pub masquerade: Masquerade,
}

/// The start of a row: `from(Pod1).tcp(Cluster(80), 80).reaches([(Pod2, 8080)]).kept()`.
pub fn from(name: Name) -> Sender {
    Sender(name)
}

pub struct Sender(Name);

/// A row without its expectation.
pub struct Probe {
    from: Name,
    protocol: Protocol,
    to: Name,
    port: u16,
}

impl Sender {
    pub fn tcp(self, to: Name, port: u16) -> Probe {
        self.probe(Protocol::Tcp, to, port)
    }

    pub fn udp(self, to: Name, port: u16) -> Probe {
        self.probe(Protocol::Udp, to, port)
    }

    pub fn sctp(self, to: Name, port: u16) -> Probe {
        self.probe(Protocol::Sctp, to, port)
    }

    pub fn probe(self, protocol: Protocol, to: Name, port: u16) -> Probe {
        Probe { from: self.0, protocol, to, port }
    }
}

impl Probe {
    pub fn reaches(self, endpoints: impl IntoIterator<Item = (Name, u16)>) -> Flow {
        self.expect(Expect::Endpoints(endpoints.into_iter().collect()))
    }

    pub fn rejected(self) -> Flow {
        self.expect(Expect::Rejected)
    }

    pub fn dropped(self) -> Flow {
        self.expect(Expect::Dropped)
    }

    pub fn untouched(self) -> Flow {
        self.expect(Expect::Untouched).kept()
    }

    pub fn expect(self, expect: Expect) -> Flow {
        let Self { from, protocol, to, port } = self;
        Flow { from, protocol, to, port, expect, masquerade: Masquerade::Any }
    }
}

impl Flow {
    pub fn kept(self) -> Self {
        Self { masquerade: Masquerade::Kept, ..self }
    }

    pub fn rewritten(self) -> Self {
        Self { masquerade: Masquerade::Rewritten, ..self }
    }

    /// So many probes that chance misses an endpoint, or one that should not be there, less than once in a million.
    pub fn probes(&self) -> usize {
        let Expect::Endpoints(endpoints) = &self.expect else { return 4 };
        let mut remaining = f64::from(u32::try_from(endpoints.len()).expect("a short list") + 1);
        let kept_by_each = 1.0 - 1.0 / remaining;
        let mut probes = 0;
        while remaining > 1e-6 {
            remaining *= kept_by_each;
            probes += 1;
        }
        probes
    }

    /// Whether what was seen is what the row says.
    ///
    /// # Errors
    /// A line with the row and what was seen instead.
    pub fn judge(&self, family: Family, outcomes: &[Outcome]) -> Result<(), String> {
        let complaint = self.complaint(family, outcomes);
        complaint.map_or(Ok(()), |why| Err(format!("{family:?} {self}: {why}; saw {}", summary(outcomes))))
    }

    fn complaint(&self, family: Family, outcomes: &[Outcome]) -> Option<String> {
        if outcomes.is_empty() {
            return Some("nothing was sent".to_owned());
        }
        match &self.expect {
            Expect::Rejected => wrong_one(outcomes, &Outcome::Refused),
            Expect::Dropped => wrong_one(outcomes, &Outcome::Silence),
            Expect::DroppedOrInvalid => {
                let invalid =
                    |outcome: &&Outcome| matches!(outcome, Outcome::Odd(why) if why.contains("os error 22"));
                let others: Vec<Outcome> =
                    outcomes.iter().filter(|outcome| !invalid(outcome)).cloned().collect();
                wrong_one(&others, &Outcome::Silence)
            }
            Expect::Untouched => self.wrong_endpoint(family, outcomes, &[self.to.at(self.port, family)]),
            Expect::Endpoints(endpoints) => {
                let wanted: Vec<SocketAddr> =
                    endpoints.iter().map(|(name, port)| name.at(*port, family)).collect();
                self.wrong_endpoint(family, outcomes, &wanted)
            }
        }
    }

    fn wrong_endpoint(&self, family: Family, outcomes: &[Outcome], wanted: &[SocketAddr]) -> Option<String> {
        let mut missing = wanted.to_vec();
        for outcome in outcomes {
            let Outcome::Answered(answer) = outcome else { return Some("an answer is missing".to_owned()) };
            if !wanted.contains(&answer.endpoint) {
                return Some(format!("{} should never answer", answer.endpoint));
            }
            missing.retain(|endpoint| *endpoint != answer.endpoint);
            if let Some(why) = self.wrong_source(family, answer) {
                return Some(why);
            }
        }
        (!missing.is_empty()).then(|| format!("{missing:?} never answered"))
    }

    fn wrong_source(&self, family: Family, answer: &Answer) -> Option<String> {
        let Answer { endpoint, seen, own } = answer;
        let is_node = |ip: &IpAddr| NODE_ADDRESSES.iter().any(|name| name.ip(family) == *ip);
        match self.masquerade {
            Masquerade::Kept if seen != own => Some(format!("{endpoint} saw {seen} instead of {own}")),
            Masquerade::Rewritten if seen == own => Some(format!("{endpoint} saw the client's own {seen}")),
            Masquerade::Rewritten if !is_node(&seen.ip()) => {
                Some(format!("{endpoint} saw {seen}, not the node"))
            }
            _ => None,
        }
    }
}

fn wrong_one(outcomes: &[Outcome], wanted: &Outcome) -> Option<String> {
    outcomes.iter().any(|outcome| outcome != wanted).then(|| format!("should be {wanted:?}"))
}

/// The outcomes counted, without ports of clients: they differ each time.
fn summary(outcomes: &[Outcome]) -> String {
    let mut counts = BTreeMap::new();
    for outcome in outcomes {
        let text = match outcome {
            Outcome::Answered(answer) => format!("{} (source {})", answer.endpoint, answer.seen.ip()),
            other => format!("{other:?}"),
        };
        *counts.entry(text).or_insert(0) += 1;
    }
    counts.iter().map(|(text, count)| format!("{count}x {text}")).collect::<Vec<_>>().join(", ")
}

impl fmt::Display for Flow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { from, protocol, to, port, expect, masquerade, .. } = self;
        write!(f, "{from:?} > {protocol:?} {to:?}:{port} => {expect:?}, source {masquerade:?}")
    }
}
