//! Objects of made-up clusters as an API server sends them, for tests and benchmarks that need no kernel.

use std::net::Ipv4Addr;

use shunt::model::{NodeName, Object};
use shunt::source::convert::{Context, Converted};

/// How objects are understood on this node.
pub fn context() -> Context {
    Context::new(NodeName("node-1".into()), None)
}

/// A Service with one port, as JSON.
pub fn service(number: usize) -> String {
    let address = Ipv4Addr::from(0x0a40_0100 + u32::try_from(number).expect("few"));
    format!(
        r#"{{"kind": "Service", "apiVersion": "v1", "metadata": {{"namespace": "bench", "name": "service-{number:05}"}},
        "spec": {{"clusterIPs": ["{address}"], "selector": {{"app": "service-{number:05}"}},
        "ports": [{{"name": "http", "port": 80, "targetPort": 8080}}]}}}}"#
    )
}

/// The slice of a Service, as JSON; with another version its first endpoint has another address.
pub fn slice(number: usize, endpoints: usize, version: u32) -> String {
    let first = 0x0b00_0000 + u32::try_from(number * 64).expect("few");
    let addresses = (first..).take(endpoints).map(|address| match version {
        0 => Ipv4Addr::from(address),
        _ if address == first => Ipv4Addr::from(0x0f00_0000 + version),
        _ => Ipv4Addr::from(address),
    });
    let endpoints: Vec<String> =
        addresses.map(|address| format!(r#"{{"addresses": ["{address}"], "nodeName": "node-2"}}"#)).collect();
    let labels = format!(r#"{{"kubernetes.io/service-name": "service-{number:05}"}}"#);
    format!(
        r#"{{"kind": "EndpointSlice", "apiVersion": "discovery.k8s.io/v1",
        "metadata": {{"namespace": "bench", "name": "service-{number:05}-x7k2p", "labels": {labels}}},
        "addressType": "IPv4", "endpoints": [{}], "ports": [{{"name": "http", "port": 8080}}]}}"#,
        endpoints.join(", ")
    )
}

/// What the text of a Service means.
pub fn service_object(context: &Context, text: &str) -> Object {
    ours(context.service(&serde_json::from_str(text).expect("a Service")))
}

/// What the text of an EndpointSlice means.
pub fn slice_object(context: &Context, text: &str) -> Object {
    ours(context.endpoint_slice(&serde_json::from_str(text).expect("an EndpointSlice")))
}

fn ours(converted: Converted) -> Object {
    converted.outcome.and_then(Result::ok).expect("ours")
}
