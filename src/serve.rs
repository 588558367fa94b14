//! Everything that this node serves over HTTP, put together. EDGE.

use std::cell::Cell;
use std::sync::Arc;

use hyper::StatusCode;
use prometheus_client::registry::Registry;
use serde_json::{Value, json};
use tracing::warn;

use crate::config::Config;
use crate::health::{self, Shown};
use crate::http::{self, Answer, Answers};
use crate::metrics::Metrics;
use crate::metrics::exposition::{self, Format};
use crate::notices::Recorder;
use crate::run::{Event, Events};

/// Serves metrics, healthz and the health ports for as long as the future lives. An address in use is a
/// warning, since a node without metrics still serves its Services; with `bindAddressHardFail` it ends
/// the program.
pub async fn all(config: Config, metrics: Metrics, shown: Shown, recorder: Recorder, events: &Events) {
    let health = health::answers(shown.programming.clone(), &metrics);
    let refused = |told: Cell<bool>| {
        let hard_fail = config.bind_address_hard_fail;
        move |problem: String| {
            if hard_fail {
                let _ = events.send(Event::Fail(format!("{problem}; bindAddressHardFail is set")));
            } else if !told.replace(true) {
                warn!("{problem}; shunt goes on without, and tries again");
            }
            !hard_fail
        }
    };
    let (metrics_refused, healthz_refused) = (refused(Cell::default()), refused(Cell::default()));
    let answers = answers(&config, &metrics);
    tokio::join!(
        http::serve(config.metrics_address, "metricsBindAddress", answers, metrics_refused),
        http::serve(config.healthz_address, "healthzBindAddress", health, healthz_refused),
        health::serve_ports(shown, recorder, metrics.clone()),
    );
}

/// `/metrics`, `/proxyMode` and `/configz`. The mode is the one that was chosen.
fn answers(config: &Config, metrics: &Metrics) -> Answers {
    let mut registry = Registry::default();
    metrics.register(&mut registry);
    let mode = config.mode.as_str();
    // Under the name that kube-proxy registers it with.
    let configz: Value = json!({ "kubeproxy.config.k8s.io": config.effective() });
    Arc::new(move |question| match question.path {
        "/metrics" => Some(exposition(&registry, Format::accepted(question.accept))),
        "/proxyMode" => Some(Answer::text(StatusCode::OK, mode)),
        "/configz" => Some(Answer::json(StatusCode::OK, &configz)),
        _ => None,
    })
}

fn exposition(registry: &Registry, format: Format) -> Answer {
    match exposition::encode(registry, format) {
        Ok(body) => Answer { content_type: format.content_type(), ..Answer::text(StatusCode::OK, body) },
        Err(error) => Answer::text(StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Mode;
    use crate::http::Question;

    #[test]
    fn the_mode_is_the_one_that_runs() {
        for (mode, word) in [(Mode::Nftables, "nftables"), (Mode::Userspace, "userspace")] {
            let answers = answers(&Config { mode, ..Config::default() }, &Metrics::default());
            let answer = answers(Question { path: "/proxyMode", accept: "" });
            assert_eq!(answer.map(|answer| answer.body).as_deref(), Some(word));
        }
    }

    #[test]
    fn the_paths_of_kube_proxy() {
        let answers = answers(&Config::default(), &Metrics::default());
        let ask = |path| answers(Question { path, accept: "" });
        let body = |path| ask(path).map(|answer| answer.body).unwrap_or_default();
        assert_eq!(body("/proxyMode"), "nftables");
        let configz: Value = serde_json::from_str(&body("/configz")).unwrap();
        assert_eq!(configz["kubeproxy.config.k8s.io"]["mode"], "nftables");
        assert_eq!(ask("/nothing"), None);
        let metrics = body("/metrics");
        for line in [
            "kubeproxy_sync_proxy_rules_endpoint_changes_total 0",
            "kubeproxy_sync_proxy_rules_service_changes_total 0",
            "kubeproxy_sync_proxy_rules_endpoint_changes_pending 0",
            "kubeproxy_sync_proxy_rules_service_changes_pending 0",
        ] {
            assert!(metrics.lines().any(|known| known == line), "{line} is not in\n{metrics}");
        }
        let open = answers(Question { path: "/metrics", accept: "application/openmetrics-text" }).unwrap();
        assert!(
            open.content_type.starts_with("application/openmetrics-text") && open.body.ends_with("# EOF\n")
        );
        assert!(ask("/metrics").unwrap().content_type.starts_with("text/plain; version=0.0.4"));
    }
}
