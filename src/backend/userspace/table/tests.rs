use super::*;
use crate::desired::Ledger;
use crate::desired::ledger::seniority;
use crate::testing::{frontend_row, name};

/// A table and the ledger in front of it.
struct Fixture {
    ledger: Ledger,
    table: Table,
}

impl Fixture {
    fn new() -> Self {
        Self { ledger: Ledger::new(Family::V4), table: Table::new(Family::V4) }
    }

    /// What giving these rows to these owners means, as lines.
    fn effects(&mut self, owners: &[(&str, &[&str])]) -> Vec<String> {
        for (owner, rows) in owners {
            let mut rows: Vec<Row> = rows.iter().map(|text| row(text)).collect();
            rows.sort_by_key(Row::key);
            let owner = if *owner == "node" { Owner::Node } else { Owner::Service(name(owner)) };
            _ = self.ledger.propose(&owner, rows, |owner| seniority(owner, None));
        }
        let effects = self.table.apply(&self.ledger.plan());
        self.ledger.commit();
        assert_eq!(self.table.everything(), self.all_at_once(), "the same by effects and from nothing");
        lines(&effects)
    }

    fn all_at_once(&self) -> Effects {
        let mut ledger = Ledger::new(Family::V4);
        let mut by_owner: BTreeMap<Owner, Vec<Row>> = BTreeMap::new();
        for (owner, row) in self.table.rows() {
            by_owner.entry(owner).or_default().push(row);
        }
        for (owner, rows) in by_owner {
            _ = ledger.propose(&owner, rows, |owner| seniority(owner, None));
        }
        let mut effects = Table::new(Family::V4).apply(&ledger.plan());
        effects.bindings.retain(|(_, held)| held.is_some());
        effects
    }
}

/// `node A`, `range NET`, `owned A`, or `A:PORT` or `:PORT` (a NodePort) with ` -> ENDPOINT`.
fn row(text: &str) -> Row {
    let (kind, value) = text.split_once(' ').unwrap_or((text, ""));
    match kind {
        "node" => Row::NodePortAddress(value.parse().unwrap()),
        "range" => Row::ServiceCidr(value.parse().unwrap()),
        "owned" => Row::ClusterIp(value.parse().unwrap(), name("shop/web")),
        at => frontend_row(at, value.strip_prefix("-> ").unwrap()),
    }
}

fn lines(effects: &Effects) -> Vec<String> {
    let sign = |wanted: &bool| if *wanted { '+' } else { '-' };
    let addresses = effects.addresses.iter().map(|(address, wanted)| format!("{}{address}", sign(wanted)));
    let ranges = effects.ranges.iter().map(|(net, wanted)| format!("{}{net}", sign(wanted)));
    let bindings = effects.bindings.iter().map(|(binding, held)| match held {
        Some(held) => {
            let Row::Frontend(_, forwarding) = &*held.row else { panic!("no frontend") };
            format!("{binding} {} -> {}", held.owner, forwarding.to)
        }
        None => format!("{binding} closed"),
    });
    addresses.chain(ranges).chain(bindings).collect()
}

#[test]
fn a_service_comes_changes_and_goes() {
    let mut fixture = Fixture::new();
    assert_eq!(
        fixture.effects(&[
            ("node", &["range 10.96.0.0/16"]),
            ("shop/web", &["owned 10.96.0.1", "10.96.0.1:80 -> 10.1.0.1:8080"])
        ]),
        ["+10.96.0.1", "+10.96.0.0/16", "10.96.0.1:80/tcp Service shop/web -> {10.1.0.1:8080}"]
    );
    assert_eq!(
        fixture.effects(&[("shop/web", &["owned 10.96.0.1", "10.96.0.1:80 -> 10.1.0.2:8080"])]),
        ["+10.96.0.1", "10.96.0.1:80/tcp Service shop/web -> {10.1.0.2:8080}"]
    );
    assert_eq!(
        fixture.effects(&[("shop/web", &["owned 10.96.0.1", "10.96.0.1:81 -> 10.1.0.2:8080"])]),
        ["+10.96.0.1", "10.96.0.1:80/tcp closed", "10.96.0.1:81/tcp Service shop/web -> {10.1.0.2:8080}"]
    );
    assert_eq!(
        fixture.effects(&[("node", &[]), ("shop/web", &[])]),
        ["-10.96.0.1", "-10.96.0.0/16", "10.96.0.1:81/tcp closed"]
    );
}

#[test]
fn an_address_moves_between_services_in_one_step() {
    let mut fixture = Fixture::new();
    fixture.effects(&[("shop/old", &["192.0.2.7:80 -> 10.1.0.1:80"])]);
    assert_eq!(
        fixture.effects(&[("shop/old", &[]), ("shop/new", &["192.0.2.7:80 -> 10.1.0.2:80"])]),
        ["+192.0.2.7", "192.0.2.7:80/tcp Service shop/new -> {10.1.0.2:80}"]
    );
}

#[test]
fn node_ports_are_open_on_every_node_address() {
    let mut fixture = Fixture::new();
    let web: (&str, &[&str]) = ("shop/web", &[":30080 -> 10.1.0.1:80"]);
    assert_eq!(fixture.effects(&[web]), [""; 0], "nowhere yet");
    assert_eq!(
        fixture.effects(&[("node", &["node 192.168.0.1"])]),
        ["192.168.0.1:30080/tcp Service shop/web -> {10.1.0.1:80}"]
    );
    assert_eq!(
        fixture.effects(&[
            ("node", &["node 192.168.0.2"]),
            ("shop/web", &[":30080 -> 10.1.0.1:80", ":30081 -> 10.1.0.1:81"])
        ]),
        [
            "192.168.0.1:30080/tcp closed",
            "192.168.0.1:30081/tcp closed",
            "192.168.0.2:30080/tcp Service shop/web -> {10.1.0.1:80}",
            "192.168.0.2:30081/tcp Service shop/web -> {10.1.0.1:81}",
        ]
    );
    assert_eq!(
        fixture.effects(&[("shop/web", &[])]),
        ["192.168.0.2:30080/tcp closed", "192.168.0.2:30081/tcp closed"]
    );
}

/// An external IP may be the node's own address, and its port a NodePort.
#[test]
fn an_address_goes_before_a_node_port() {
    let mut fixture = Fixture::new();
    fixture.effects(&[("node", &["node 192.168.0.1"]), ("shop/web", &[":30080 -> 10.1.0.1:80"])]);
    let ip: (&str, &[&str]) = ("shop/ip", &["192.168.0.1:30080 -> 10.1.0.9:80"]);
    let of_ip = "192.168.0.1:30080/tcp Service shop/ip -> {10.1.0.9:80}";
    assert_eq!(fixture.effects(&[ip]), ["+192.168.0.1", of_ip]);
    assert_eq!(fixture.effects(&[("shop/web", &[])]), [of_ip]);
    fixture.effects(&[("shop/web", &[":30080 -> 10.1.0.1:80"])]);
    assert_eq!(
        fixture.effects(&[("shop/ip", &[])]),
        ["-192.168.0.1", "192.168.0.1:30080/tcp Service shop/web -> {10.1.0.1:80}"]
    );
}
