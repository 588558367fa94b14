//! The node's own HTTP servers: health ports as load balancers ask them, healthz and metrics.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use super::{web, web_slice};
use crate::netns::prelude::*;

cases![health_port_follows_its_service, health_port_in_use, probes_and_metrics];

const HEALTH: u16 = 30_123;

/// The answer to a GET with its head, or nothing where nobody listens.
pub(super) fn get(lab: &Lab, from: Ns, at: SocketAddr, path: &str) -> Option<String> {
    lab.topology.enter(from, || {
        let mut stream = TcpStream::connect_timeout(&at, Duration::from_secs(2)).ok()?;
        write!(stream, "GET {path} HTTP/1.1\r\nHost: node\r\nConnection: close\r\n\r\n").ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        Some(answer)
    })
}

/// Asks until the answer has all of `parts`: servers follow what is programmed, on a thread of their own.
fn expect(lab: &Lab, from: Ns, at: SocketAddr, path: &str, parts: &[&str]) {
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        let answer = get(lab, from, at, path).unwrap_or_else(|| "refused".to_owned());
        if parts.iter().all(|part| answer.to_lowercase().contains(&part.to_lowercase())) {
            return;
        }
        assert!(Instant::now() < deadline, "{at}{path} from {from:?}: {answer}\nis not {parts:?}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn balanced() -> Objects {
    let local = json!({ "externalTrafficPolicy": "Local", "healthCheckNodePort": HEALTH });
    web().load_balancer(Public(8)).spec(&local).into()
}

fn health_port_follows_its_service(lab: &mut Lab) {
    lab.apply(&[balanced(), web_slice([Pod1, Pod2, Remote1]).into()]);
    lab.start(&config(&json!({})));
    let everywhere = |lab: &Lab, parts: &[&str]| {
        for (from, family) in [Ns::Node, Ns::Client].into_iter().flat_map(|ns| BOTH.map(|f| (ns, f))) {
            expect(lab, from, Node.at(HEALTH, family), "/", parts);
        }
    };
    let head = ["200 OK", "content-type: application/json", "x-content-type-options: nosniff"];
    everywhere(lab, &head);
    everywhere(lab, &["x-load-balancing-endpoint-weight: 2", r#""localEndpoints":2"#]);
    everywhere(lab, &[r#""namespace":"shop""#, r#""name":"web""#, r#""serviceProxyHealthy":true"#]);
    lab.apply(&[balanced(), web_slice([Remote1]).into()]);
    everywhere(lab, &["503 ", "x-load-balancing-endpoint-weight: 0", r#""localEndpoints":0"#]);
    lab.apply(&[web().into(), web_slice([Pod1]).into()]);
    everywhere(lab, &["refused"]);
}

fn health_port_in_use(lab: &mut Lab) {
    let at = Node.at(HEALTH, Family::V4);
    let taken = lab.topology.enter(Ns::Node, || TcpListener::bind(at)).expect("a free port");
    lab.apply(&[balanced(), web_slice([Pod1]).into()]);
    lab.start(&config(&json!({})));
    expect(lab, Ns::Node, Node.at(HEALTH, Family::V6), "/", &["200 OK"]);
    let log = std::fs::read_to_string(lab.log_file()).expect("a log");
    assert!(log.contains(&format!("health port {at} of Service shop/web cannot be opened")), "{log}");
    drop(taken);
    expect(lab, Ns::Client, at, "/", &["200 OK", r#""localEndpoints":1"#]);
}

fn probes_and_metrics(lab: &mut Lab) {
    lab.apply(&[web().into(), web_slice([Pod1]).into()]);
    lab.start(&config(&json!({})));
    let healthz = Node.at(10_256, Family::V4);
    expect(lab, Ns::Client, healthz, "/healthz", &["200 OK", r#""nodeEligible":true"#, "lastUpdated"]);
    expect(lab, Ns::Client, healthz, "/livez", &["200 OK", "currentTime"]);
    let metrics: SocketAddr = "127.0.0.1:10249".parse().unwrap();
    let mode = format!("\r\n\r\n{}", lab.mode.word());
    expect(lab, Ns::Node, metrics, "/proxyMode", &["200 OK", &mode]);
    expect(lab, Ns::Node, metrics, "/configz", &[r#""detectLocalMode":"ClusterCIDR""#]);
    let counted = "kubeproxy_sync_proxy_rules_duration_seconds_count{ip_family=\"IPv4\"}";
    expect(lab, Ns::Node, metrics, "/metrics", &[counted, "kubeproxy_proxy_healthz_total{code=\"200\"}"]);
    assert!(get(lab, Ns::Client, Node.at(10_249, Family::V4), "/metrics").is_none(), "loopback only");
}
