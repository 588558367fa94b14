//! kube-proxy's flags (v1.36: `cmd/kube-proxy/app/options.go`, `component-base/logs/api/v1`), each the
//! other name of a field. What a flag gives is laid over the tree of the file before the fields are
//! read, so that both are decoded by the same code. PURE.

use super::Warning;
use super::document::{Field, Node, Value};
use super::error::Origin;

/// A flag that stands for fields of the configuration.
#[derive(Debug, PartialEq, Eq)]
pub struct Flag {
    /// Its name, with the dashes.
    pub name: &'static str,
    /// The paths of the fields that it sets.
    pub fields: &'static [&'static str],
    /// What its text becomes.
    pub kind: Kind,
}

/// What the text of a flag becomes in the tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A text, which durations are as well.
    Text,
    /// True or false; the flag alone means true.
    Switch,
    /// A number.
    Number,
    /// Items with commas between them; the flag may be repeated.
    List,
    /// `name=true` or `name=false` with commas between them; the flag may be repeated.
    Gates,
    /// The address of a server; an empty one switches it off.
    Server,
    /// The port of a server; 0 switches it off.
    Port,
}

/// What the fields of server addresses take for "switched off"; kube-proxy has it for flags alone.
pub(super) const OFF: &str = "0";

const fn flag(name: &'static str, fields: &'static [&'static str], kind: Kind) -> Flag {
    Flag { name, fields, kind }
}

/// Every flag of kube-proxy that stands for a field. Of two flags for one field the later in this list wins.
pub const FLAGS: &[Flag] = &[
    flag("--bind-address", &["bindAddress"], Kind::Text),
    flag("--bind-address-hard-fail", &["bindAddressHardFail"], Kind::Switch),
    flag("--cluster-cidr", &["clusterCIDR"], Kind::Text),
    flag("--config-sync-period", &["configSyncPeriod"], Kind::Text),
    flag("--conntrack-max-per-core", &["conntrack.maxPerCore"], Kind::Number),
    flag("--conntrack-min", &["conntrack.min"], Kind::Number),
    flag("--conntrack-tcp-be-liberal", &["conntrack.tcpBeLiberal"], Kind::Switch),
    flag("--conntrack-tcp-timeout-close-wait", &["conntrack.tcpCloseWaitTimeout"], Kind::Text),
    flag("--conntrack-tcp-timeout-established", &["conntrack.tcpEstablishedTimeout"], Kind::Text),
    flag("--conntrack-udp-timeout", &["conntrack.udpTimeout"], Kind::Text),
    flag("--conntrack-udp-timeout-stream", &["conntrack.udpStreamTimeout"], Kind::Text),
    flag("--detect-local-mode", &["detectLocalMode"], Kind::Text),
    flag("--feature-gates", &["featureGates"], Kind::Gates),
    flag("--healthz-port", &["healthzBindAddress"], Kind::Port),
    flag("--healthz-bind-address", &["healthzBindAddress"], Kind::Server),
    flag("--hostname-override", &["hostnameOverride"], Kind::Text),
    flag("--iptables-localhost-nodeports", &["iptables.localhostNodePorts"], Kind::Switch),
    flag("--iptables-masquerade-bit", &["iptables.masqueradeBit"], Kind::Number),
    flag("--iptables-min-sync-period", &["iptables.minSyncPeriod"], Kind::Text),
    flag("--iptables-sync-period", &["iptables.syncPeriod"], Kind::Text),
    flag("--ipvs-exclude-cidrs", &["ipvs.excludeCIDRs"], Kind::List),
    flag("--ipvs-min-sync-period", &["ipvs.minSyncPeriod"], Kind::Text),
    flag("--ipvs-scheduler", &["ipvs.scheduler"], Kind::Text),
    flag("--ipvs-strict-arp", &["ipvs.strictARP"], Kind::Switch),
    flag("--ipvs-sync-period", &["ipvs.syncPeriod"], Kind::Text),
    flag("--ipvs-tcp-timeout", &["ipvs.tcpTimeout"], Kind::Text),
    flag("--ipvs-tcpfin-timeout", &["ipvs.tcpFinTimeout"], Kind::Text),
    flag("--ipvs-udp-timeout", &["ipvs.udpTimeout"], Kind::Text),
    flag("--kube-api-burst", &["clientConnection.burst"], Kind::Number),
    flag("--kube-api-content-type", &["clientConnection.contentType"], Kind::Text),
    flag("--kube-api-qps", &["clientConnection.qps"], Kind::Number),
    flag("--log-flush-frequency", &["logging.flushFrequency"], Kind::Text),
    flag("--log-json-info-buffer-size", &["logging.options.json.infoBufferSize"], Kind::Text),
    flag("--log-json-split-stream", &["logging.options.json.splitStream"], Kind::Switch),
    flag("--log-text-info-buffer-size", &["logging.options.text.infoBufferSize"], Kind::Text),
    flag("--log-text-split-stream", &["logging.options.text.splitStream"], Kind::Switch),
    flag("--logging-format", &["logging.format"], Kind::Text),
    flag("--masquerade-all", &["iptables.masqueradeAll", "nftables.masqueradeAll"], Kind::Switch),
    flag("--metrics-port", &["metricsBindAddress"], Kind::Port),
    flag("--metrics-bind-address", &["metricsBindAddress"], Kind::Server),
    flag("--nodeport-addresses", &["nodePortAddresses"], Kind::List),
    flag("--oom-score-adj", &["oomScoreAdj"], Kind::Number),
    flag("--pod-bridge-interface", &["detectLocal.bridgeInterface"], Kind::Text),
    flag("--pod-interface-name-prefix", &["detectLocal.interfaceNamePrefix"], Kind::Text),
    flag("--profiling", &["enableProfiling"], Kind::Switch),
    flag("--proxy-mode", &["mode"], Kind::Text),
    flag("--show-hidden-metrics-for-version", &["showHiddenMetricsForVersion"], Kind::Text),
    flag("--vmodule", &["logging.vmodule"], Kind::List),
];

/// Flags beside a file that kube-proxy heeds too: no need to tell that they win over it.
const HEEDED: [&str; 2] = ["hostnameOverride", "logging."];

/// What a flag, or a variable of the environment, says about fields.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Given {
    /// Which of them.
    pub origin: Origin,
    /// The paths of the fields.
    pub fields: &'static [&'static str],
    /// What the text becomes.
    pub kind: Kind,
    /// As it was written.
    pub text: String,
}

impl Given {
    /// What a flag of the command line says.
    #[must_use]
    pub fn flag(flag: &'static Flag, text: impl Into<String>) -> Self {
        Self { origin: Origin::Flag(flag.name), fields: flag.fields, kind: flag.kind, text: text.into() }
    }

    fn value(&self) -> Value {
        let text = || Value::Text(self.text.clone());
        match self.kind {
            Kind::Switch => go_flag(&self.text).map_or_else(text, Value::Flag),
            Kind::Number => match (self.text.parse(), self.text.parse()) {
                (Ok(number), _) => Value::Integer(number),
                (_, Ok(number)) => Value::Float(number),
                _ => text(),
            },
            Kind::List => Value::List(self.items().map(|item| self.node(Value::Text(item.into()))).collect()),
            Kind::Gates => Value::Map(self.items().map(|item| self.gate(item)).collect()),
            Kind::Server if self.text.is_empty() => Value::Text(OFF.to_owned()),
            Kind::Port if self.text != OFF => Value::Text(format!(":{}", self.text)),
            Kind::Text | Kind::Server | Kind::Port => text(),
        }
    }

    fn items(&self) -> impl Iterator<Item = &str> {
        self.text.split(',').map(str::trim).filter(|item| !item.is_empty())
    }

    fn gate(&self, item: &str) -> Field {
        let (name, value) = item.split_once('=').unwrap_or((item, ""));
        let value = go_flag(value.trim()).map_or_else(|| Value::Text(value.into()), Value::Flag);
        Field { name: name.trim().to_owned(), line: None, node: self.node(value) }
    }

    fn node(&self, value: Value) -> Node {
        Node { value, origin: self.origin }
    }
}

/// True and false, as Go's flags take them.
#[must_use]
pub fn go_flag(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}

/// Lays what was given over the fields of a file, in this order; tells which values of the file lose to
/// a flag that kube-proxy would have ignored beside a file.
pub(super) fn lay_over(fields: &mut Vec<Field>, given: &[Given]) -> Vec<Warning> {
    let mut warnings = Vec::new();
    // port 0 switches a server off whatever its address
    let (off, on): (Vec<_>, Vec<_>) =
        given.iter().partition(|given| given.kind == Kind::Port && given.text == OFF);
    for given in on.into_iter().chain(off) {
        for path in given.fields {
            let Some(node) = find(fields, path, given.origin) else { continue };
            let before = std::mem::replace(node, given.node(given.value()));
            match (before.value, before.origin, &mut node.value) {
                // a repeated flag
                (Value::List(mut items), Origin::Flag(_), Value::List(more)) => {
                    items.append(more);
                    *more = items;
                }
                (Value::Map(mut gates), Origin::Flag(_), Value::Map(more)) => {
                    gates.append(more);
                    *more = gates;
                }
                (before, Origin::File(line), value) if !before.says_nothing() && before != *value => {
                    if let Some(warning) = wins(given.origin, path, line) {
                        warnings.push(warning);
                    }
                }
                _ => {}
            }
        }
    }
    warnings
}

fn wins(origin: Origin, path: &str, line: Option<u64>) -> Option<Warning> {
    let Origin::Flag(flag) = origin else { return None };
    let line = line.map(|line| format!(" (line {line})")).unwrap_or_default();
    let message =
        format!("wins over `{path}` of the file{line}; kube-proxy would ignore the flag beside --config");
    (!HEEDED.iter().any(|heeded| path.starts_with(heeded)))
        .then(|| Warning { field: flag.to_owned(), message })
}

/// The node at `path`, made with all maps on the way where they are missing; `None` where the file has
/// something else than a map on the way, which is an error of its own later.
fn find<'a>(fields: &'a mut Vec<Field>, path: &str, origin: Origin) -> Option<&'a mut Node> {
    let (name, rest) = path.split_once('.').map_or((path, None), |(name, rest)| (name, Some(rest)));
    let index = fields.iter().position(|field| field.name == name).unwrap_or_else(|| {
        fields.push(Field { name: name.to_owned(), line: None, node: Node { value: Value::Null, origin } });
        fields.len() - 1
    });
    let node = &mut fields.get_mut(index)?.node;
    let Some(rest) = rest else { return Some(node) };
    if matches!(node.value, Value::Null) {
        node.value = Value::Map(Vec::new());
    }
    match &mut node.value {
        Value::Map(inner) => find(inner, rest, origin),
        _ => None,
    }
}
