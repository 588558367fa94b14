//! What kube-proxy left behind in iptables: what `iptables-save` prints -> what `iptables-restore
//! --noflush` has to read to remove it. PURE.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

/// Chains of kube-proxy in its iptables and ipvs modes, of all versions. The kubelet's own are not among
/// them: KUBE-KUBELET-CANARY, KUBE-IPTABLES-HINT, KUBE-FIREWALL and KUBE-MARK-DROP.
const CHAINS: [&str; 13] = [
    "KUBE-SERVICES",
    "KUBE-EXTERNAL-SERVICES",
    "KUBE-NODEPORTS",
    "KUBE-POSTROUTING",
    "KUBE-MARK-MASQ",
    "KUBE-FORWARD",
    "KUBE-PROXY-FIREWALL",
    "KUBE-PROXY-CANARY",
    "KUBE-NODE-PORT",
    "KUBE-LOAD-BALANCER",
    "KUBE-IPVS-FILTER",
    "KUBE-IPVS-OUT-FILTER",
    "KUBE-SOURCE-RANGES-FIREWALL",
];

/// How the names of its chains for one Service or endpoint begin.
const PREFIXES: [&str; 6] = ["KUBE-SVC-", "KUBE-SVL-", "KUBE-SEP-", "KUBE-FW-", "KUBE-EXT-", "KUBE-XLB-"];

/// The chains that iptables has of itself; rules in them that lead to kube-proxy are kube-proxy's.
const BUILT_IN: [&str; 5] = ["PREROUTING", "INPUT", "FORWARD", "OUTPUT", "POSTROUTING"];

/// Whether a chain is one of kube-proxy's.
#[must_use]
pub fn is_kube_proxy(chain: &str) -> bool {
    CHAINS.contains(&chain) || PREFIXES.iter().any(|prefix| chain.starts_with(prefix))
}

/// What removes kube-proxy's chains.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Removal {
    /// For `iptables-restore --noflush`; empty if there is nothing to remove.
    pub restore: String,
    /// How many chains it removes.
    pub chains: usize,
    /// Chains that stay, because those of somebody else lead to them: `TABLE CHAIN` and who.
    pub kept: BTreeMap<String, BTreeSet<String>>,
}

/// One table of a listing.
#[derive(Default)]
struct Table<'a> {
    name: &'a str,
    chains: Vec<&'a str>,
    /// Chain and the rest of the line behind `-A CHAIN`.
    rules: Vec<(&'a str, &'a str)>,
}

/// Reads what `iptables-save` prints.
#[must_use]
pub fn removal(saved: &str) -> Removal {
    let mut removal = Removal::default();
    let mut table = Table::default();
    for line in saved.lines() {
        if let Some(name) = line.strip_prefix('*') {
            table = Table { name: name.trim(), ..Table::default() };
        } else if let Some(chain) = line.strip_prefix(':') {
            table.chains.extend(chain.split_whitespace().next());
        } else if let Some((chain, rest)) = line.strip_prefix("-A ").and_then(|rule| rule.split_once(' ')) {
            table.rules.push((chain, rest));
        } else if line.trim() == "COMMIT" {
            remove(&std::mem::take(&mut table), &mut removal);
        }
    }
    removal
}

fn remove(table: &Table<'_>, removal: &mut Removal) {
    let kept = kept(table);
    for (chain, users) in &kept {
        let users = users.iter().map(ToString::to_string).collect();
        removal.kept.insert(format!("{} {chain}", table.name), users);
    }
    let goes = |chain: &str| is_kube_proxy(chain) && !kept.contains_key(chain);
    let chains: Vec<&str> = table.chains.iter().copied().filter(|chain| goes(chain)).collect();
    if chains.is_empty() {
        return;
    }
    removal.chains += chains.len();
    let mut lines = vec![format!("*{}", table.name)];
    // A chain that is named is emptied first.
    lines.extend(chains.iter().map(|chain| format!(":{chain} - [0:0]")));
    for (chain, rest) in &table.rules {
        if BUILT_IN.contains(chain) && target(rest).is_some_and(goes) {
            lines.push(format!("-D {chain} {rest}"));
        }
    }
    lines.extend(chains.iter().map(|chain| format!("-X {chain}")));
    lines.push("COMMIT".to_owned());
    for line in lines {
        // writing to a String cannot fail
        let _ = writeln!(removal.restore, "{line}");
    }
}

/// Chains of kube-proxy to which chains of others lead, and what those lead to in turn.
fn kept<'a>(table: &Table<'a>) -> BTreeMap<&'a str, BTreeSet<&'a str>> {
    let mut kept: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    loop {
        let before = kept.len();
        for (chain, rest) in &table.rules {
            let Some(target) = target(rest).filter(|target| is_kube_proxy(target)) else { continue };
            let of_others = !is_kube_proxy(chain) && !BUILT_IN.contains(chain);
            if of_others || kept.contains_key(chain) {
                kept.entry(target).or_default().insert(chain);
            }
        }
        if kept.len() == before {
            return kept;
        }
    }
}

/// Where a rule leads to: what follows `-j` or `-g`, the last option but for those of the target.
fn target(rest: &str) -> Option<&str> {
    let mut words = rest.split_whitespace();
    // A comment may hold anything, in quotes; nothing in it looks like an option of its own.
    while let Some(word) = words.next() {
        if word == "--comment" {
            skip_quoted(&mut words);
        } else if word == "-j" || word == "-g" {
            return words.next();
        }
    }
    None
}

fn skip_quoted<'a>(words: &mut impl Iterator<Item = &'a str>) {
    let Some(first) = words.next().filter(|word| word.starts_with('"')) else { return };
    let ends = |word: &str| word.ends_with('"') && !word.ends_with("\\\"");
    if first.len() == 1 || !ends(first) {
        let _ = words.find(|word| ends(word));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOTHING: &str = "*nat\n:PREROUTING ACCEPT [0:0]\n:KUBE-KUBELET-CANARY - [0:0]\n:DOCKER - [0:0]\n\
        -A PREROUTING -m addrtype --dst-type LOCAL -j DOCKER\nCOMMIT\n";

    const FULL: &str = r#"# Generated by iptables-save v1.8.9 on Mon Nov 23 04:00:00 2026
*mangle
:PREROUTING ACCEPT [5:300]
:KUBE-IPTABLES-HINT - [0:0]
:KUBE-KUBELET-CANARY - [0:0]
:KUBE-PROXY-CANARY - [0:0]
COMMIT
*filter
:INPUT ACCEPT [5:300]
:FORWARD DROP [0:0]
:KUBE-FIREWALL - [0:0]
:KUBE-FORWARD - [0:0]
-A INPUT -m comment --comment "say \"-j KUBE-FORWARD\" here" -j ACCEPT
-A INPUT -j KUBE-FIREWALL
-A FORWARD -m comment --comment "kubernetes forwarding rules" -j KUBE-FORWARD
-A KUBE-FIREWALL ! -s 127.0.0.0/8 -d 127.0.0.0/8 -j DROP
-A KUBE-FORWARD -m conntrack --ctstate INVALID -j DROP
COMMIT
*nat
:PREROUTING ACCEPT [5:300]
:CNI-DN-abc - [0:0]
:KUBE-MARK-MASQ - [0:0]
:KUBE-SEP-AAAA - [0:0]
:KUBE-SERVICES - [0:0]
:KUBE-SVC-BBBB - [0:0]
-A PREROUTING -m comment --comment "kubernetes service portals" -j KUBE-SERVICES
-A CNI-DN-abc -s 10.244.0.0/16 -p tcp -m tcp --dport 8080 -j KUBE-MARK-MASQ
-A KUBE-MARK-MASQ -j MARK --set-xmark 0x4000/0x4000
-A KUBE-SEP-AAAA -s 10.244.1.5/32 -m comment --comment "shop/web:http" -j KUBE-MARK-MASQ
-A KUBE-SEP-AAAA -p tcp -m comment --comment "shop/web:http" -m tcp -j DNAT --to-destination 10.244.1.5:8080
-A KUBE-SERVICES -d 10.96.0.80/32 -p tcp -m comment --comment "shop/web:http cluster IP" -m tcp --dport 80 -j KUBE-SVC-BBBB
-A KUBE-SVC-BBBB -m comment --comment "shop/web:http -> 10.244.1.5:8080" -j KUBE-SEP-AAAA
COMMIT
"#;

    #[test]
    fn chains_of_kube_proxy_go_and_what_others_use_stays() {
        let removal = removal(FULL);
        let expected = r#"*mangle
:KUBE-PROXY-CANARY - [0:0]
-X KUBE-PROXY-CANARY
COMMIT
*filter
:KUBE-FORWARD - [0:0]
-D FORWARD -m comment --comment "kubernetes forwarding rules" -j KUBE-FORWARD
-X KUBE-FORWARD
COMMIT
*nat
:KUBE-SEP-AAAA - [0:0]
:KUBE-SERVICES - [0:0]
:KUBE-SVC-BBBB - [0:0]
-D PREROUTING -m comment --comment "kubernetes service portals" -j KUBE-SERVICES
-X KUBE-SEP-AAAA
-X KUBE-SERVICES
-X KUBE-SVC-BBBB
COMMIT
"#;
        assert_eq!(removal.restore, expected);
        assert_eq!(removal.chains, 5);
        let users = BTreeSet::from(["CNI-DN-abc".to_owned()]);
        assert_eq!(removal.kept, BTreeMap::from([("nat KUBE-MARK-MASQ".to_owned(), users)]));
    }

    #[test]
    fn where_there_is_nothing_nothing_is_written() {
        for saved in ["", NOTHING, "# Warning: iptables-legacy tables present\n", "*nat\n:KUBE-SERVICES"] {
            assert_eq!(removal(saved), Removal::default(), "{saved}");
        }
    }

    #[test]
    fn whose_chain_it_is() {
        for ours in ["KUBE-SERVICES", "KUBE-SVL-X", "KUBE-XLB-X", "KUBE-LOAD-BALANCER"] {
            assert!(is_kube_proxy(ours), "{ours}");
        }
        for other in ["KUBE-FIREWALL", "KUBE-MARK-DROP", "KUBE-KUBELET-CANARY", "KUBE-ROUTER-INPUT", "kube"] {
            assert!(!is_kube_proxy(other), "{other}");
        }
    }
}
