//! UDP flows that keep their source port: a flow whose endpoint is gone moves on, every other one stays.

use std::time::{Duration, Instant};

use super::{PORT, on_port};
use crate::netns::objects::Service;
use crate::netns::prelude::*;
use crate::netns::probe::{Answer, Exchange, Outcome, Patience};

cases![
    endpoint_removed,
    last_endpoint_removed,
    older_than_the_service,
    service_deleted,
    target_port_changed,
    draining_and_policies_move_nobody,
    restart_moves_nobody,
    changes_while_it_was_away,
    a_crash_before_the_clean_up,
];

/// From 3 sources to 4 frontends in 2 families: never do all of 72 flows have the same of two endpoints.
const FLOWS: usize = 3;
/// How soon a flow has to move on. It takes milliseconds; this only bounds a failure.
const SOON: Duration = Duration::from_secs(5);

/// `shop/dns` on every kind of frontend.
fn dns() -> Service {
    let service = service("shop/dns").cluster(80).udp("dns", 53).node_port(30053);
    service.external_ip(Public(7)).load_balancer(Public(8))
}

fn dns_slice(pods: impl IntoIterator<Item = Name>) -> Slice {
    slice("shop/dns").udp("dns", PORT).ready(pods)
}

/// Another Service that never changes.
fn other() -> [Objects; 2] {
    let service = service("shop/other").cluster(81).udp("dns", 53).node_port(30054);
    [service.into(), slice("shop/other").udp("dns", 8081).ready([Pod1, Remote1]).into()]
}

/// The frontends of [`dns`].
const FRONTENDS: [(Name, u16); 4] = [(Cluster(80), 53), (Node, 30053), (Public(7), 53), (Public(8), 53)];
/// Flows that have nothing to do with it.
const OTHERS: [(Name, u16); 3] = [(Cluster(81), 53), (Node, 30054), (Pod1, PORT)];

/// A flow, and who answered it last.
struct Held {
    from: Name,
    to: Name,
    family: Family,
    exchange: Exchange,
    answer: Option<Answer>,
}

impl Held {
    fn name(&self) -> String {
        format!("{:?} of {:?} to {:?}", self.family, self.from, self.to)
    }

    fn ask(&self) -> Outcome {
        self.exchange.ask(Patience { wait: Duration::from_millis(200), tries: 1 })
    }

    fn had(&self, pod: Name) -> bool {
        self.answer.as_ref().is_some_and(|answer| answer.endpoint.ip() == pod.ip(self.family))
    }

    /// The same endpoint sees the same source: it is the same flow for everybody.
    fn stays(&self, when: &str) {
        let answer = self.answer.clone().expect("a flow that was answered");
        let now = self.exchange.ask(Patience::GENEROUS);
        assert_eq!(now, Outcome::Answered(answer), "{} {when}", self.name());
    }

    /// Soon one of these answers.
    fn moves(&mut self, allowed: &[(Name, u16)], when: &str) {
        let fine: Vec<_> = allowed.iter().map(|(name, port)| name.at(*port, self.family)).collect();
        let now = self
            .becomes(|outcome| matches!(outcome, Outcome::Answered(a) if fine.contains(&a.endpoint)), when);
        if let Outcome::Answered(answer) = now {
            self.answer = Some(answer);
        }
    }

    fn refused(&self, when: &str) {
        self.becomes(|outcome| *outcome == Outcome::Refused, when);
    }

    fn becomes(&self, wanted: impl Fn(&Outcome) -> bool, when: &str) -> Outcome {
        let deadline = Instant::now() + SOON;
        loop {
            let now = self.ask();
            if wanted(&now) {
                return now;
            }
            assert!(Instant::now() < deadline, "{} {when}: {now:?}", self.name());
        }
    }
}

/// Flows from everywhere to these frontends, in both families.
fn hold(lab: &Lab, frontends: &[(Name, u16)], count: usize) -> Vec<Held> {
    let mut held = Vec::new();
    for (family, from) in BOTH.into_iter().flat_map(|family| [Pod3, Client, Node].map(|name| (family, name)))
    {
        for (to, port) in frontends {
            held.extend((0..count).map(|_| {
                let exchange = lab.exchange(from, *to, *port, family);
                Held { from, to: *to, family, exchange, answer: None }
            }));
        }
    }
    held
}

/// The same, each answered by one of these.
fn hold_answered(lab: &Lab, frontends: &[(Name, u16)], allowed: &[(Name, u16)]) -> Vec<Held> {
    let mut held = hold(lab, frontends, if allowed.len() > 1 { FLOWS } else { 1 });
    all_move(&mut held, allowed, "at first");
    held
}

fn all_stay(held: &[Held], when: &str) {
    for flow in held {
        flow.stays(when);
    }
}

fn all_move(held: &mut [Held], allowed: &[(Name, u16)], when: &str) {
    for flow in held {
        flow.moves(allowed, when);
    }
}

fn all_refused(held: &[Held], when: &str) {
    for flow in held {
        flow.refused(when);
    }
}

fn bystanders(lab: &Lab) -> Vec<Held> {
    hold_answered(lab, &OTHERS, &[(Pod1, 8081), (Remote1, 8081), (Pod1, PORT)])
}

fn start(lab: &mut Lab, objects: &[Objects]) {
    lab.apply(&[&other()[..], objects].concat());
    lab.start(&config(&json!({})));
}

fn change(lab: &mut Lab, objects: &[Objects]) {
    lab.apply(&[&other()[..], objects].concat());
}

fn endpoint_removed(lab: &mut Lab) {
    start(lab, &[dns().into(), dns_slice([Pod1, Remote1]).into()]);
    let mut held = hold_answered(lab, &FRONTENDS, &on_port([Pod1, Remote1]));
    let others = bystanders(lab);
    assert!(held.iter().any(|flow| flow.had(Pod1)) && held.iter().any(|flow| flow.had(Remote1)));
    change(lab, &[dns().into(), dns_slice([Pod2, Remote1]).into()]);
    for flow in &mut held {
        if flow.had(Pod1) {
            flow.moves(&on_port([Pod2, Remote1]), "after its endpoint was removed");
        } else {
            flow.stays("after another endpoint was removed");
        }
    }
    all_stay(&others, "after an endpoint of another Service was removed");
    // not ready, and not serving: as good as gone
    let not_ready = json!({ "ready": false, "serving": false, "terminating": false });
    change(lab, &[dns().into(), dns_slice([Pod2]).endpoint(Remote1, &not_ready).into()]);
    all_move(&mut held, &on_port([Pod2]), "after the other one became unready");
    all_stay(&others, "at the end");
}

fn last_endpoint_removed(lab: &mut Lab) {
    start(lab, &[dns().into(), dns_slice([Pod1]).into()]);
    let mut held = hold_answered(lab, &FRONTENDS, &on_port([Pod1]));
    let others = bystanders(lab);
    change(lab, &[dns().into(), dns_slice([]).into()]);
    all_refused(&held, "without endpoints");
    change(lab, &[dns().into(), dns_slice([Remote1]).into()]);
    all_move(&mut held, &on_port([Remote1]), "with one again");
    all_stay(&others, "at the end");
}

/// Clients that were there before the Service: the first packet went past all rules.
fn older_than_the_service(lab: &mut Lab) {
    // without a ServiceCIDR nothing stops what goes to a ClusterIP
    lab.base.truncate(1);
    start(lab, &[]);
    let mut held = hold(lab, &FRONTENDS, 2);
    all_refused(&held, "before the Service");
    let others = bystanders(lab);
    // without endpoints, too
    change(lab, &[dns().into()]);
    all_refused(&held, "before there is an endpoint");
    change(lab, &[dns().into(), dns_slice([Pod1, Remote1]).into()]);
    all_move(&mut held, &on_port([Pod1, Remote1]), "once there is an endpoint");
    all_stay(&others, "at the end");
}

/// Its flows do not go on for as long as the client sends: the endpoint's address may soon be another pod's.
fn service_deleted(lab: &mut Lab) {
    start(lab, &[dns().into(), dns_slice([Pod1]).into()]);
    let held = hold_answered(lab, &FRONTENDS, &on_port([Pod1]));
    let others = bystanders(lab);
    change(lab, &[]);
    for flow in &held {
        let gone = |outcome: &Outcome| matches!(outcome, Outcome::Refused | Outcome::Silence);
        flow.becomes(gone, "after the Service was deleted");
    }
    all_stay(&others, "after another Service was deleted");
}

/// The address is the same, and another port serves.
fn target_port_changed(lab: &mut Lab) {
    start(lab, &[dns().into(), dns_slice([Pod1]).into()]);
    let mut held = hold_answered(lab, &FRONTENDS, &on_port([Pod1]));
    change(lab, &[dns().into(), slice("shop/dns").udp("dns", 9090).ready([Pod1]).into()]);
    all_move(&mut held, &[(Pod1, 9090)], "after the port changed");
}

/// An endpoint that gets no new flows keeps those that it has for as long as it serves.
fn draining_and_policies_move_nobody(lab: &mut Lab) {
    start(lab, &[dns().into(), dns_slice([Pod1, Remote1]).into()]);
    let held = hold_answered(lab, &FRONTENDS, &on_port([Pod1, Remote1]));
    let draining = json!({ "ready": false, "serving": true, "terminating": true });
    change(lab, &[dns().into(), dns_slice([Pod1]).endpoint(Remote1, &draining).into()]);
    all_stay(&held, "while its endpoint drains");
    let local = json!({ "internalTrafficPolicy": "Local", "externalTrafficPolicy": "Local" });
    change(lab, &[dns().spec(&local).into(), dns_slice([Pod1, Remote1]).into()]);
    all_stay(&held, "after the policies became Local");
}

fn restart_moves_nobody(lab: &mut Lab) {
    let objects: [Objects; 2] = [dns().into(), dns_slice([Pod1, Remote1]).into()];
    start(lab, &objects);
    let held = hold_answered(lab, &FRONTENDS, &on_port([Pod1, Remote1]));
    let others = bystanders(lab);
    lab.stop();
    lab.start_again();
    all_stay(&held, "after a restart");
    lab.kill();
    lab.start_again();
    all_stay(&held, "after kill -9");
    // with the rules gone, too: a reboot of nothing but nf_tables
    lab.kill();
    lab.load_ruleset(Ns::Node, "delete table ip shunt\ndelete table ip6 shunt");
    lab.start_again();
    all_stay(&held, "after the tables were made anew");
    all_stay(&others, "at the end");
}

fn changes_while_it_was_away(lab: &mut Lab) {
    start(lab, &[dns().into(), dns_slice([Pod1, Remote1]).into()]);
    let mut held = hold_answered(lab, &FRONTENDS, &on_port([Pod1, Remote1]));
    let others = bystanders(lab);
    lab.kill();
    change(lab, &[dns().into(), dns_slice([Pod2, Remote1]).into()]);
    lab.start_again();
    for flow in &mut held {
        if flow.had(Pod1) {
            flow.moves(&on_port([Pod2, Remote1]), "after its endpoint was removed meanwhile");
        } else {
            flow.stays("after another endpoint was removed meanwhile");
        }
    }
    lab.stop();
    change(lab, &[]);
    lab.start_again();
    for flow in &held {
        let gone = |outcome: &Outcome| matches!(outcome, Outcome::Refused | Outcome::Silence);
        flow.becomes(gone, "after the Service was deleted meanwhile");
    }
    all_stay(&others, "at the end");
}

/// The rules are new and the flows are old: what a crash between the two leaves behind.
fn a_crash_before_the_clean_up(lab: &mut Lab) {
    start(lab, &[dns().into(), dns_slice([Pod1, Remote1]).into()]);
    let mut held = hold_answered(lab, &FRONTENDS, &on_port([Pod1, Remote1]));
    let others = bystanders(lab);
    lab.kill();
    lab.load_ruleset(Ns::Node, "delete table ip shunt\ndelete table ip6 shunt");
    change(lab, &[dns().into(), dns_slice([Remote1]).into()]);
    lab.start_again();
    all_move(&mut held, &on_port([Remote1]), "after its endpoint was removed");
    // the frontend is gone as well: a range of Services tells that the flow was ours
    lab.kill();
    lab.load_ruleset(Ns::Node, "delete table ip shunt\ndelete table ip6 shunt");
    change(lab, &[]);
    lab.start_again();
    for flow in held.iter().filter(|flow| flow.to == Cluster(80)) {
        flow.becomes(|outcome| *outcome == Outcome::Silence, "after the Service was deleted");
    }
    all_stay(&others, "at the end");
}
