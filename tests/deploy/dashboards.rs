//! Dashboard and alerts ask for metrics that shunt has, by labels that these have. What shunt has stands in docs/metrics.md,
//! which a test of src/metrics compares with the program.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use crate::documents::{documents, file, items, text};
use crate::pages::anchors;

/// Labels that Prometheus adds to everything that it scrapes, and the bound of a histogram's bucket.
const OF_PROMETHEUS: [&str; 3] = ["job", "instance", "le"];

/// Functions, aggregations and other words of PromQL that the expressions use.
const WORDS: [&str; 21] = [
    "absent",
    "and",
    "avg",
    "by",
    "changes",
    "count",
    "histogram_quantile",
    "increase",
    "label_values",
    "max",
    "min",
    "on",
    "or",
    "rate",
    "sum",
    "time",
    "vector",
    "unless",
    "without",
    "ignoring",
    "bool",
];

/// Every series by name, with its labels.
fn known_series() -> BTreeMap<String, BTreeSet<String>> {
    let mut known = BTreeMap::new();
    for line in text(&file("docs/metrics.md")).lines() {
        let cells: Vec<_> = line.split(" | ").map(|cell| cell.trim_matches(['|', ' '])).collect();
        let Some([name, kind, labels]) = cells.get(..3).and_then(|cells| <[&str; 3]>::try_from(cells).ok())
        else {
            continue;
        };
        let suffixes: &[&str] = match kind {
            "counter" | "gauge" => &[""],
            "histogram" => &["_bucket", "_sum", "_count"],
            _ => continue,
        };
        let labels: BTreeSet<_> = labels.split('`').skip(1).step_by(2).map(str::to_owned).collect();
        for suffix in suffixes {
            known.insert(format!("{}{suffix}", name.trim_matches('`')), labels.clone());
        }
    }
    assert!(known.len() > 40, "docs/metrics.md has lost its tables: {known:?}");
    known
}

/// The words of an expression outside of quotes and durations, each with the character that follows it.
fn words(expression: &str) -> Vec<(String, char)> {
    let mut found: Vec<(String, char)> = Vec::new();
    let (mut word, mut quoted) = (String::new(), false);
    let mut in_range = false;
    for next in expression.chars().chain([' ']) {
        quoted ^= next == '"';
        if !quoted && (next.is_ascii_alphanumeric() || next == '_' || next == '$') {
            word.push(next);
            continue;
        }
        let is_name = word.starts_with(|first: char| first.is_ascii_alphabetic());
        if is_name && !in_range {
            found.push((word.clone(), next));
        }
        word.clear();
        in_range = (in_range || next == '[') && next != ']';
    }
    found
}

/// Fails where an expression uses a series or a label that shunt does not have.
fn check(what: &str, expression: &str, known: &BTreeMap<String, BTreeSet<String>>) -> usize {
    let words: Vec<_> =
        words(expression).into_iter().filter(|(word, _)| !WORDS.contains(&word.as_str())).collect();
    let (series, labels): (Vec<_>, Vec<_>) =
        words.iter().partition(|(word, _)| word.contains('_') && known.contains_key(word) || word == "up");
    let mut allowed: BTreeSet<&str> = OF_PROMETHEUS.into();
    for (name, _) in &series {
        allowed.extend(known.get(name).into_iter().flatten().map(String::as_str));
    }
    for (label, _) in labels {
        assert!(
            allowed.contains(label.as_str()),
            "{what}: {label} is no metric of shunt and no label of one: {expression}"
        );
    }
    assert!(!series.is_empty(), "{what}: no metric in {expression}");
    series.len()
}

#[test]
fn the_dashboard_asks_for_what_there_is() {
    let known = known_series();
    let dashboard: Value = serde_json::from_str(&text(&file("deploy/grafana-dashboard.json"))).unwrap();
    let mut asked = 0;
    for panel in items(&dashboard["panels"]) {
        let title = panel["title"].as_str().unwrap();
        assert_eq!(items(&panel["targets"]).is_empty(), panel["type"] == "row", "{title}");
        for target in items(&panel["targets"]) {
            asked += check(title, target["expr"].as_str().unwrap(), &known);
            // Label names in a legend are those that the expression keeps.
            for label in target["legendFormat"].as_str().unwrap().split("{{").skip(1) {
                let label = label.split("}}").next().unwrap();
                let expression = target["expr"].as_str().unwrap();
                assert!(
                    label == "instance" || expression.contains(label),
                    "{title}: {label} in {expression}"
                );
            }
        }
    }
    for variable in items(&dashboard["templating"]["list"]) {
        if variable["type"] == "query" {
            check("variable", variable["definition"].as_str().unwrap(), &known);
            assert_eq!(variable["query"]["query"], variable["definition"]);
        }
    }
    assert!(asked > 30, "{asked} series in the dashboard");
    let mut numbers: Vec<_> =
        items(&dashboard["panels"]).iter().map(|panel| panel["id"].as_u64().unwrap()).collect();
    numbers.dedup();
    assert_eq!(numbers.len(), items(&dashboard["panels"]).len(), "ids are unique");
}

#[test]
fn alerts_ask_for_what_there_is_and_lead_to_a_page() {
    let known = known_series();
    let rules = &documents(&file("deploy/alerts.yaml"))[0];
    assert_eq!(
        (&rules["apiVersion"], &rules["kind"]),
        (&"monitoring.coreos.com/v1".into(), &"PrometheusRule".into())
    );
    let mut names = BTreeSet::new();
    for rule in items(&rules["spec"]["groups"][0]["rules"]) {
        let name = rule["alert"].as_str().unwrap();
        assert!(name.starts_with("Shunt") && names.insert(name), "{name}");
        check(name, rule["expr"].as_str().unwrap(), &known);
        let severity = rule["labels"]["severity"].as_str().unwrap();
        assert!(["critical", "warning", "info"].contains(&severity), "{name}");
        for annotation in ["summary", "description"] {
            assert!(!rule["annotations"][annotation].as_str().unwrap().is_empty(), "{name}");
        }
        let runbook = rule["annotations"]["runbook"].as_str().unwrap();
        let (page, anchor) = runbook.split_once('#').unwrap();
        assert!(anchors(&file(page)).contains(anchor), "{name}: no heading for {runbook}");
    }
    assert!(names.len() > 10);
}

#[test]
fn a_wrong_name_is_found() {
    let known = known_series();
    for wrong in [
        "shunt_no_such_metric > 0",
        "sum by (nothing) (shunt_refused_services)",
        "rate(kubeproxy_network_programming_duration_seconds[5m])",
        "shunt_refused_services{family=\"IPv4\"}",
    ] {
        let result = std::panic::catch_unwind(|| check("", wrong, &known));
        assert!(result.is_err(), "{wrong} passes");
    }
}
