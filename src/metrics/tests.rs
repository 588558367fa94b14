//! `/metrics` read as strictly as promtool does.

use std::collections::{BTreeMap, BTreeSet};

use prometheus_client::registry::Registry;

use super::exposition::{Format, encode};
use super::*;

/// One family of the text format.
#[derive(Debug, Default)]
struct Read {
    help: Option<String>,
    kind: Option<String>,
    /// Sample name, labels, value.
    samples: Vec<(String, BTreeMap<String, String>, f64)>,
}

fn is_name(text: &str) -> bool {
    let first = text.chars().next().is_some_and(|c| c.is_ascii_alphabetic() || c == '_' || c == ':');
    first && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == ':')
}

/// `{a="b",c="d"}` without its brackets. No value of ours holds a quote or a backslash.
fn labels(text: &str) -> BTreeMap<String, String> {
    let mut labels = BTreeMap::new();
    for pair in text.split_terminator("\",").map(|pair| pair.trim_end_matches('"')) {
        let (name, value) = pair.split_once("=\"").expect(text);
        assert!(is_name(name) && !value.contains(['"', '\\', '\n']), "{text}");
        assert!(labels.insert(name.to_owned(), value.to_owned()).is_none(), "{name} twice: {text}");
    }
    labels
}

/// Reads the text format 0.0.4: each family is one block, HELP and TYPE come once and first, and no series
/// is there twice.
fn read(text: &str) -> BTreeMap<String, Read> {
    let mut families: BTreeMap<String, Read> = BTreeMap::new();
    let mut current = String::new();
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            let (name, help) = rest.split_once(' ').expect(line);
            assert!(is_name(name) && !help.is_empty(), "{line}");
            let new = Read { help: Some(help.to_owned()), ..Read::default() };
            assert!(families.insert(name.to_owned(), new).is_none(), "HELP of {name} twice");
            name.clone_into(&mut current);
        } else if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').expect(line);
            let family = families.get_mut(name).expect(line);
            assert_eq!(name, current, "TYPE follows HELP");
            assert!(family.kind.replace(kind.to_owned()).is_none(), "TYPE of {name} twice");
            assert!(family.samples.is_empty(), "TYPE of {name} behind a sample");
        } else {
            assert!(!line.starts_with('#') && !line.is_empty(), "{line}");
            let (series, value) = line.rsplit_once(' ').expect(line);
            let (name, labelled) = series.split_once('{').unwrap_or((series, "}"));
            let sample =
                (name.to_owned(), labels(labelled.strip_suffix('}').expect(line)), value.parse().unwrap());
            let suffix = name.strip_prefix(current.as_str()).expect(line);
            let family = families.get_mut(&current).unwrap();
            let histogram = family.kind.as_deref() == Some("histogram");
            assert!(suffix.is_empty() != histogram, "{line}");
            assert!(suffix.is_empty() || ["_bucket", "_sum", "_count"].contains(&suffix), "{line}");
            let known =
                family.samples.iter().any(|(name, labels, _)| (name, labels) == (&sample.0, &sample.1));
            assert!(!known, "twice: {line}");
            family.samples.push(sample);
        }
    }
    families
}

/// Buckets as bound and count, and the count of all.
type Series = (Vec<(f64, f64)>, Option<f64>);

/// Buckets rise in bound and in count, the last one is infinite and counts as much as the whole.
fn check_histogram(name: &str, family: &Read) {
    let mut series: BTreeMap<BTreeMap<String, String>, Series> = BTreeMap::new();
    for (sample, labels, value) in &family.samples {
        let mut labels = labels.clone();
        let bound = labels.remove("le");
        let (buckets, count) = series.entry(labels).or_default();
        match bound {
            Some(bound) => buckets.push((bound.parse().unwrap(), *value)),
            None if sample.ends_with("_count") => *count = Some(*value),
            None => assert!(sample.ends_with("_sum"), "{sample}"),
        }
    }
    for (labels, (buckets, count)) in series {
        assert!(buckets.is_sorted_by(|a, b| a.0 < b.0 && a.1 <= b.1), "{name} {labels:?}: {buckets:?}");
        let last = buckets.last().copied().unwrap();
        assert_eq!((last.0, Some(last.1)), (f64::INFINITY, count), "{name} {labels:?}");
    }
}

/// Metrics in which every series has a value.
fn used() -> Metrics {
    let metrics = Metrics::default();
    metrics.left_out("Service", "spec.ports[1].port");
    let kind = KindLabel { kind: "Service" };
    metrics.objects.get_or_create(&kind).set(2);
    metrics.watch_errors.get_or_create(&kind).inc();
    metrics.watch_restarts.get_or_create(&kind).inc();
    metrics.watch_failing.get_or_create(&kind).set(1);
    metrics.lists.get_or_create(&ListLabel { kind: "Service", how: "pages" }).inc();
    metrics.events.get_or_create(&ResultLabel { result: "created" }).inc();
    metrics.kube_proxy.healthz.get_or_create(&kube_proxy::CodeLabel { code: 200 }).inc();
    metrics.kube_proxy.livez.get_or_create(&kube_proxy::CodeLabel { code: 503 }).inc();
    metrics.kube_proxy.observe_sync(crate::model::Family::V4, true, 0.5);
    metrics.rest_client.observe("GET", "192.0.2.1:6443", None, std::time::Duration::from_secs(70));
    metrics.sync_duration.observe(0.01);
    let name = crate::desired::ServicePortName::parse("shop/web:http").unwrap();
    let protocol = crate::model::Protocol::Tcp;
    metrics.traffic.of(&crate::backend::userspace::counters::PortName { name, protocol }).begun();
    metrics
}

fn text(format: Format) -> String {
    let mut registry = Registry::default();
    used().register(&mut registry);
    encode(&registry, format).unwrap()
}

#[test]
fn the_text_format_is_what_promtool_wants() {
    let families = read(&text(Format::Text));
    for (name, family) in &families {
        assert!(family.help.is_some() && !family.samples.is_empty(), "{name} {family:?}");
        match family.kind.as_deref() {
            Some("counter") => assert!(name.ends_with("_total"), "{name}"),
            Some("histogram") => check_histogram(name, family),
            // kube-proxy has named it so
            Some("gauge") => assert!(
                !name.ends_with("_total") || name == "kubeproxy_sync_proxy_rules_no_local_endpoints_total",
                "{name}"
            ),
            kind => panic!("{name} is {kind:?}"),
        }
    }
    for name in ["process_cpu_seconds_total", "process_resident_memory_bytes", "process_start_time_seconds"] {
        assert!(families[name].samples[0].2 > 0.0, "{name}");
    }
}

#[test]
fn open_metrics_has_the_same_series() {
    let series = |format| -> BTreeSet<String> {
        let text = text(format);
        let samples = text.lines().filter(|line| !line.starts_with('#'));
        samples.filter_map(|line| line.rsplit_once(' ')).map(|(series, _)| series.to_owned()).collect()
    };
    assert_eq!(series(Format::Text), series(Format::OpenMetrics));
    assert!(text(Format::OpenMetrics).ends_with("# EOF\n"));
}

#[test]
fn the_page_names_every_metric_and_its_labels_and_no_other() {
    let page = include_str!("../../docs/metrics.md");
    // | `name` | type | `label`, `label` | meaning |
    let rows = page.lines().filter_map(|line| {
        let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
        let name = cells.first()?.strip_prefix('`')?.strip_suffix('`')?;
        let is_row = cells.len() == 4 && ["counter", "gauge", "histogram"].contains(&cells[1]);
        is_row.then(|| (name.to_owned(), (cells[1].to_owned(), cells[2].replace('`', ""))))
    });
    let documented: BTreeMap<String, (String, String)> = rows.collect();
    let known = read(&text(Format::Text)).into_iter().map(|(name, family)| {
        let labels = family.samples[0].1.keys().filter(|label| *label != "le").cloned();
        (name, (family.kind.unwrap(), labels.collect::<Vec<_>>().join(", ")))
    });
    let known: BTreeMap<String, (String, String)> = known.collect();
    assert_eq!(documented, known);
}

#[test]
fn fields_lose_their_indices() {
    for (field, label) in [
        ("spec.ports[12].port", "spec.ports[].port"),
        ("endpoints[3].addresses[0]", "endpoints[].addresses[]"),
        ("spec.type", "spec.type"),
        ("a[b", "a[]"),
        (".", "."),
    ] {
        assert_eq!(without_indices(field), label);
    }
}
