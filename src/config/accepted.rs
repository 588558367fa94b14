//! `KubeProxyConfiguration`: the fields that are checked and do nothing yet. PURE.
//!
//! Each is named in a warning if it asks for something that kube-proxy would do and we do not: the
//! values that ask for nothing and kube-proxy's own defaults are quiet, so that the file of an
//! untouched cluster warns of nothing.

use std::time::Duration;

use super::document::{Field, Value};
use super::error::ConfigError;
use super::fields::{Section, flag, float, number, span, text};
use super::kube_proxy::cidr;

/// What nothing has to be said about: fields that kube-proxy on Linux does not use either.
const NOTHING: &str = "";

/// Of `clientConnection`, all but the kubeconfig.
pub(super) fn client_connection(client: &mut Section<'_>) -> Result<(), ConfigError> {
    let encoding = "is not honoured: shunt speaks JSON with the API server";
    client.unused("acceptContentTypes", text, &["", "application/json"], encoding)?;
    let encodings = ["", "application/vnd.kubernetes.protobuf", "application/json"];
    client.unused("contentType", text, &encodings, encoding)?;
    let rate = "is not honoured: shunt keeps a few watches open and does not limit its requests";
    client.unused("qps", float, &[0.0, 5.0], rate)?;
    client.unused("burst", number(0, i32::MAX), &[0, 10], rate)?;
    Ok(())
}

/// Of `logging`, all but verbosity and format.
pub(super) fn logging(logging: &mut Section<'_>) -> Result<(), ConfigError> {
    let flush = [Duration::ZERO, Duration::from_secs(5)];
    let unbuffered = "is not honoured: log lines are written at once";
    logging.unused("flushFrequency", flush_frequency, &flush, unbuffered)?;
    let modules = |value: &Value| match value {
        Value::List(items) => Ok(items.len()),
        other => Err(format!("must be a list, not {other}")),
    };
    logging.unused("vmodule", modules, &[0], "is not honoured: it names source files of kube-proxy")?;
    logging.section("options", |options| {
        options.section("text", output)?;
        options.section("json", output)
    })
}

/// `logging.options.text` and `.json`.
fn output(options: &mut Section<'_>) -> Result<(), ConfigError> {
    let one_stream = "is not honoured: all log lines go to standard error, unbuffered";
    options.unused("splitStream", flag, &[false], one_stream)?;
    let quantity = |value: &Value| match value {
        Value::Integer(number) if *number >= 0 => Ok(number.to_string()),
        other => text(other),
    };
    options.unused("infoBufferSize", quantity, &["", "0"], one_stream)?;
    Ok(())
}

/// The one duration that may also be a number, of nanoseconds.
fn flush_frequency(value: &Value) -> Result<Duration, String> {
    match value {
        Value::Integer(number) => u64::try_from(*number)
            .map(Duration::from_nanos)
            .map_err(|_| format!("must be a duration or a number of nanoseconds, not {value}")),
        other => span(other),
    }
}

/// Of `iptables`, all but the masquerade settings.
pub(super) fn iptables(section: &mut Section<'_>) -> Result<(), ConfigError> {
    // true is what kube-proxy does without being told; the warning about the mode speaks of it
    section.unused("localhostNodePorts", flag, &[false, true], NOTHING)?;
    // of v1.37, to spare those who upgrade the control plane first
    let snat = "is not honoured: masqueraded packets get the address of the interface they leave by";
    section.unused("snatNodeInternalIP", flag, &[false], snat)?;
    periods(section, Duration::from_secs(1))
}

/// Of `nftables`, all but the masquerade settings.
pub(super) fn nftables(section: &mut Section<'_>) -> Result<(), ConfigError> {
    periods(section, Duration::from_secs(1))
}

/// All of `ipvs`.
pub(super) fn ipvs(section: &mut Section<'_>) -> Result<(), ConfigError> {
    periods(section, Duration::ZERO)?;
    section.unused(
        "scheduler",
        scheduler,
        &["", "rr"],
        "is not honoured yet: endpoints are chosen at random",
    )?;
    let excluded = section.list("excludeCIDRs", |value| cidr(&text(value)?))?;
    if !excluded.is_empty() {
        section.warn("excludeCIDRs", "has no effect: no IPVS service is touched");
    }
    let arp = "has no effect: Service addresses are on no interface, so nothing answers ARP for them";
    section.unused("strictARP", flag, &[false], arp)?;
    for name in ["tcpTimeout", "tcpFinTimeout", "udpTimeout"] {
        let message = "has no effect: connections are kept by conntrack, with its own timeouts";
        section.unused(name, span, &[Duration::ZERO], message)?;
    }
    Ok(())
}

/// The names of the IPVS schedulers that kube-proxy takes.
fn scheduler(value: &Value) -> Result<String, String> {
    const KNOWN: [&str; 12] = ["", "rr", "wrr", "lc", "wlc", "lblc", "lblcr", "sh", "dh", "sed", "nq", "mh"];
    let name = text(value)?;
    let known = KNOWN.contains(&name.as_str());
    if known { Ok(name) } else { Err(format!("must be one of {}, not `{name}`", KNOWN[1..].join(", "))) }
}

/// `syncPeriod` and `minSyncPeriod` of a mode; zero means the default, as in kube-proxy.
fn periods(section: &mut Section<'_>, least_default: Duration) -> Result<(), ConfigError> {
    let default = Duration::from_secs(30);
    let or = |value: Option<Duration>, default| value.filter(|value| !value.is_zero()).unwrap_or(default);
    let longest = section.unused(
        "syncPeriod",
        span,
        &[Duration::ZERO, default],
        "is not honoured yet: there is no periodic sync, changes are programmed as they come",
    )?;
    let shortest = section.unused(
        "minSyncPeriod",
        span,
        &[Duration::ZERO, Duration::from_secs(1)],
        "is not honoured yet: changes are programmed as they come, however close together",
    )?;
    let (longest, shortest) = (or(longest, default), or(shortest, least_default));
    if section.in_force() && shortest > longest {
        let problem =
            format!("must not be shorter than minSyncPeriod, but {longest:?} is less than {shortest:?}");
        return Err(section.wrong("syncPeriod", None, problem));
    }
    Ok(())
}

/// Everything at the top that is not read elsewhere.
pub(super) fn rest(whole: &mut Section<'_>) -> Result<(), ConfigError> {
    feature_gates(whole)?;
    whole.section("winkernel", winkernel)?;
    whole.unused("windowsRunAsService", flag, &[false, true], NOTHING)?;
    let profiling = "has no effect: /debug/pprof belongs to programs written in Go";
    whole.unused("enableProfiling", flag, &[false], profiling)?;
    let hidden = "has no effect: shunt hides none of its metrics";
    whole.unused("showHiddenMetricsForVersion", text, &[""], hidden)?;
    let refresh = [Duration::ZERO, Duration::from_secs(15 * 60)];
    let watches = "is not honoured: objects are watched, not refreshed at intervals";
    whole.unused("configSyncPeriod", span, &refresh, watches)?;
    // kube-proxy itself ignores it since userspace mode is gone
    whole.text("portRange")?;
    // fields of earlier versions, which files of old clusters still carry
    let gone = "has no effect: kube-proxy has removed this field";
    whole.unused("udpIdleTimeout", span, &[Duration::ZERO, Duration::from_millis(250)], gone)?;
    whole.unused("resourceContainer", text, &["", "/kube-proxy"], gone)?;
    Ok(())
}

/// `featureGates`: names of kube-proxy's own experiments.
fn feature_gates(whole: &mut Section<'_>) -> Result<(), ConfigError> {
    let names = whole.get("featureGates", |value| match value {
        Value::Map(gates) => gates.iter().map(gate).collect::<Result<Vec<_>, _>>(),
        other => Err(format!("must be a map of names to true or false, not {other}")),
    })?;
    let names = names.unwrap_or_default();
    if !names.is_empty() {
        let message = format!("has no effect: {} belong to kube-proxy, shunt has no gates", names.join(", "));
        whole.warn("featureGates", message);
    }
    Ok(())
}

fn gate(gate: &Field) -> Result<String, String> {
    match &gate.node.value {
        Value::Flag(_) => Ok(gate.name.clone()),
        other => Err(format!("must have true or false for {}, not {other}", gate.name)),
    }
}

/// All of `winkernel`: of no use on Linux, to kube-proxy either.
fn winkernel(section: &mut Section<'_>) -> Result<(), ConfigError> {
    section.set_in_force(false);
    for name in ["networkName", "sourceVip", "rootHnsEndpointName"] {
        section.text(name)?;
    }
    for name in ["enableDSR", "forwardHealthCheckVip"] {
        section.unused(name, flag, &[false], NOTHING)?;
    }
    Ok(())
}
