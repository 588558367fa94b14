//! The harness sees the truth, and can fail: cases without the daemon, on a ruleset loaded by nft.

use crate::netns::flow::{Expect, Masquerade};
use crate::netns::prelude::*;
use crate::netns::topology::joined;

cases![lab_without_rules, fixture, wrong_expectations_fail, monitor_sees_each_write];

/// Stands for a node that serves: see the flows of [`fixture_flows`].
const FIXTURE: &str = include_str!("harness.nft");

/// Without rules nothing is a Service, and everyone reaches everyone.
fn lab_without_rules(lab: &mut Lab) {
    let mut flows = Vec::new();
    for source in [Client, Node, Pod1, Remote1] {
        flows.extend([
            from(source).tcp(Pod2, 8080).reaches([(Pod2, 8080)]).kept(),
            from(source).udp(Pod2, 8080).reaches([(Pod2, 8080)]).kept(),
            from(source).sctp(Pod2, 8080).reaches([(Pod2, 8080)]).kept(),
            from(source).udp(Remote2, 8081).reaches([(Remote2, 8081)]).kept(),
            from(source).tcp(Pod3, 7).rejected(),
            from(source).udp(Pod3, 7).rejected(),
            from(source).tcp(Elsewhere, 443).untouched(),
            from(source).tcp(Node, 30080).untouched(),
            from(source).tcp(Gateway, 30080).untouched(),
        ]);
    }
    // nobody stops what goes to a ClusterIP: a drop is a drop only because of a rule
    for source in [Client, Node, Pod1] {
        flows.extend([
            from(source).tcp(Cluster(80), 80).untouched(),
            from(source).udp(Cluster(80), 53).untouched(),
            from(source).sctp(Cluster(80), 90).untouched(),
            from(source).tcp(Public(7), 80).untouched(),
        ]);
    }
    flows.push(from(Node).udp(Loopback, 30081).untouched());
    lab.check(&flows);
}

/// What `harness.nft` does.
fn fixture_flows() -> Vec<Flow> {
    let all = [(Pod1, 8080), (Pod2, 8080), (Remote1, 8080)];
    vec![
        from(Pod3).tcp(Cluster(80), 80).reaches(all).kept(),
        from(Pod3).udp(Cluster(80), 80).reaches(all).kept(),
        from(Pod3).sctp(Cluster(80), 80).reaches(all).kept(),
        from(Client).tcp(Cluster(80), 80).reaches(all).rewritten(),
        from(Client).udp(Cluster(80), 80).reaches(all).rewritten(),
        from(Client).sctp(Cluster(80), 80).reaches(all).rewritten(),
        from(Node).tcp(Cluster(80), 80).reaches(all).rewritten(),
        from(Node).udp(Cluster(80), 80).reaches(all).rewritten(),
        from(Node).sctp(Cluster(80), 80).reaches(all).rewritten(),
        from(Pod1).tcp(Cluster(81), 80).rejected(),
        from(Client).udp(Cluster(81), 80).rejected(),
        from(Client).sctp(Cluster(81), 80).rejected(),
        from(Node).tcp(Cluster(81), 80).rejected(),
        from(Node).udp(Cluster(81), 80).rejected(),
        from(Pod1).tcp(Cluster(82), 80).dropped(),
        from(Client).udp(Cluster(82), 80).dropped(),
        from(Client).sctp(Cluster(82), 80).dropped(),
        from(Node).tcp(Cluster(82), 80).dropped(),
        from(Pod1).tcp(Elsewhere, 80).untouched(),
        from(Pod1).sctp(Elsewhere, 80).untouched(),
    ]
}

fn fixture(lab: &mut Lab) {
    lab.load_ruleset(Ns::Node, FIXTURE);
    lab.check(&fixture_flows());
}

/// Every row, judged against every expectation that it should not meet.
fn wrong_expectations_fail(lab: &mut Lab) {
    lab.load_ruleset(Ns::Node, FIXTURE);
    let mut accepted = Vec::new();
    let _targets = lab.targets(&fixture_flows());
    std::thread::scope(|scope| {
        let lab = &*lab;
        let mut threads = Vec::new();
        for (flow, family) in
            fixture_flows().into_iter().flat_map(|flow| BOTH.map(|family| (flow.clone(), family)))
        {
            threads.push(scope.spawn(move || {
                let outcomes = lab.send(&flow, family, flow.probes());
                assert_eq!(flow.judge(family, &outcomes), Ok(()), "the row itself is right");
                let wrong = mutants(&flow).into_iter().filter(|wrong| wrong.judge(family, &outcomes).is_ok());
                wrong.map(|wrong| format!("{family:?} {flow} passes as {wrong}")).collect::<Vec<_>>()
            }));
        }
        accepted.extend(threads.into_iter().flat_map(joined));
    });
    assert!(accepted.is_empty(), "{}", accepted.join("\n"));
}

/// All wrong versions of a row.
fn mutants(flow: &Flow) -> Vec<Flow> {
    let all = [(Pod1, 8080), (Pod2, 8080), (Remote1, 8080)];
    let expectations = [
        Expect::Rejected,
        Expect::Dropped,
        Expect::Untouched,
        Expect::Endpoints(all[..2].to_vec()),
        Expect::Endpoints([&all[..], &[(Remote2, 8080)]].concat()),
        Expect::Endpoints(vec![(Pod1, 8080), (Pod2, 8080), (Remote1, 8081)]),
    ];
    let with = |expect: Expect| Flow { expect, masquerade: Masquerade::Any, ..flow.clone() };
    let mut wrong: Vec<Flow> =
        expectations.into_iter().filter(|expect| *expect != flow.expect).map(with).collect();
    match flow.masquerade {
        Masquerade::Kept => wrong.push(flow.clone().rewritten()),
        Masquerade::Rewritten => wrong.push(flow.clone().kept()),
        Masquerade::Any => {}
    }
    wrong
}

fn monitor_sees_each_write(lab: &mut Lab) {
    lab.load_ruleset(Ns::Node, FIXTURE);
    let mut monitor = lab.monitor();
    assert_eq!(lab.writes(&mut monitor), Vec::<String>::new());
    lab.load_ruleset(Ns::Node, "add element ip fixture refused { 10.96.0.83, 10.96.255.254 }");
    assert_eq!(lab.writes(&mut monitor), ["add element ip fixture refused { 10.96.0.83 }"]);
    assert_eq!(lab.writes(&mut monitor), Vec::<String>::new());
}
