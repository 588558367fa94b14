//! What our rules are made of, in nft's words and in the kernel's expressions. PURE.

use std::net::IpAddr;

use ipnet::IpNet;

use super::expr::{Compare, Expr, Load, Register};
use super::names::{Field, NOT_REMEMBERED, Set, TARGET_FIELDS, family_word};
use super::sticky::{MEMORY_KEY, Memory};
use crate::model::{Family, Protocol};

/// `IFNAMSIZ`: an interface name is compared with its padding.
const INTERFACE_NAME: usize = 16;

/// One statement of a rule: a match, or what is done with a packet that matched so far.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Statement {
    /// `ip saddr != NET`.
    SourceNotIn(IpNet),
    /// `ip daddr != NET`.
    DestinationNotIn(IpNet),
    /// `iifname != "NAME"`: the packet did not come in through this interface.
    InterfaceIsNot(String),
    /// `iifname != "PREFIX*"`: nor through one whose name starts like this.
    InterfaceStartsNot(String),
    /// `fib saddr type local`: the source is an address of this node.
    SourceIsLocal,
    /// `fib daddr type local`: the destination is an address of this node.
    DestinationIsLocal,
    /// `meta l4proto { tcp, udp, sctp }`.
    ServiceProtocol,
    /// `meta l4proto tcp`, `udp`, `sctp`.
    Protocol(Protocol),
    /// `KEY @set`: the packet is in the set.
    In(Set),
    /// `ct state new`.
    ConnectionIsNew,
    /// `ct status dnat`.
    ConnectionHasDnat,
    /// `ct status ! confirmed`: this is the connection's first packet.
    ConnectionIsUnconfirmed,
    /// `ct original ip daddr @set`: the destination that the client dialled is in the set.
    OriginalIn(Set),
    /// `ct original KEY vmap @map`, by the destination that the client dialled.
    OriginalVerdict(Set),
    /// `meta mark & MARK != 0`.
    MarkIsSet(u32),
    /// `meta mark set meta mark | MARK`.
    SetMark(u32),
    /// `meta mark set meta mark ^ MARK`, of a packet that has the mark.
    ClearMark(u32),
    /// `KEY vmap @map`.
    Verdict(Set),
    /// `dnat ip to KEY . numgen random mod SIZE map @map`.
    Dnat(Set, u16),
    /// `dnat ip to ip saddr map @affinity-…`.
    DnatRemembered(Memory),
    /// `update @affinity-… { ct original ip saddr : ip daddr . th dport }`.
    Remember(Memory),
    /// `counter name "not-remembered"`.
    CountNotRemembered,
    /// `masquerade fully-random`.
    Masquerade,
    /// `jump CHAIN`.
    Jump(String),
    /// `goto CHAIN`.
    Goto(String),
    /// `return`.
    Return,
    /// `drop`.
    Drop,
    /// `reject with tcp reset`.
    RejectTcpReset,
    /// `reject`: ICMP port unreachable.
    Reject,
}

/// A rule: statements from first to last, as long as the packet matches.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule(pub Vec<Statement>);

impl Statement {
    /// The statement in nft syntax.
    #[must_use]
    pub fn text(&self, family: Family) -> String {
        let ip = family_word(family);
        match self {
            Self::SourceNotIn(net) => format!("{ip} saddr != {}", net_text(net)),
            Self::DestinationNotIn(net) => format!("{ip} daddr != {}", net_text(net)),
            Self::InterfaceIsNot(name) => format!("iifname != \"{name}\""),
            Self::InterfaceStartsNot(prefix) => format!("iifname != \"{prefix}*\""),
            Self::SourceIsLocal => "fib saddr type local".into(),
            Self::DestinationIsLocal => "fib daddr type local".into(),
            Self::ServiceProtocol => "meta l4proto { tcp, udp, sctp }".into(),
            Self::Protocol(protocol) => format!("meta l4proto {protocol}"),
            Self::In(set) => format!("{} @{}", key_text(set.key(), family), set.name()),
            Self::ConnectionIsNew => "ct state new".into(),
            Self::ConnectionHasDnat => "ct status dnat".into(),
            Self::ConnectionIsUnconfirmed => "ct status ! confirmed".into(),
            Self::OriginalIn(set) => format!("{} @{}", original_text(set.key(), family), set.name()),
            Self::OriginalVerdict(map) => {
                format!("{} vmap @{}", original_text(map.key(), family), map.name())
            }
            Self::MarkIsSet(mark) => format!("meta mark & {mark:#010x} != 0"),
            Self::SetMark(mark) => format!("meta mark set meta mark | {mark:#010x}"),
            Self::ClearMark(mark) => format!("meta mark set meta mark ^ {mark:#010x}"),
            Self::Verdict(map) => format!("{} vmap @{}", key_text(map.key(), family), map.name()),
            Self::Dnat(map, size) => {
                let key = key_text(map.key(), family).replace("mod 65536", &format!("mod {size}"));
                format!("dnat {ip} to {key} map @{}", map.name())
            }
            Self::DnatRemembered(memory) => {
                format!("dnat {ip} to {} map @{}", key_text(MEMORY_KEY, family), memory.map())
            }
            Self::Remember(memory) => {
                let port = Field::PortOf(memory.protocol).text(family);
                let map = memory.map();
                format!("update @{map} {{ ct original {ip} saddr : {ip} daddr . {port} }}")
            }
            Self::CountNotRemembered => format!("counter name \"{NOT_REMEMBERED}\""),
            Self::Masquerade => "masquerade fully-random".into(),
            Self::Jump(chain) => format!("jump {chain}"),
            Self::Goto(chain) => format!("goto {chain}"),
            Self::Return => "return".into(),
            Self::Drop => "drop".into(),
            Self::RejectTcpReset => "reject with tcp reset".into(),
            Self::Reject => "reject".into(),
        }
    }

    /// The statement as kernel expressions, appended to `out`.
    pub fn lower(&self, family: Family, out: &mut Vec<Expr>) {
        let reg1 = Register::FIRST;
        match self {
            Self::SourceNotIn(net) => not_in(Field::Source, net, family, out),
            Self::DestinationNotIn(net) => not_in(Field::Destination, net, family, out),
            Self::InterfaceIsNot(name) => {
                let mut bytes = name.as_bytes().to_vec();
                bytes.resize(INTERFACE_NAME, 0);
                interface_is_not(bytes, out);
            }
            Self::InterfaceStartsNot(prefix) => interface_is_not(prefix.as_bytes().to_vec(), out),
            Self::SourceIsLocal => out.extend([Expr::FibType { source: true }, Expr::local_type()]),
            Self::DestinationIsLocal => out.extend([Expr::FibType { source: false }, Expr::local_type()]),
            Self::ServiceProtocol => {
                out.extend([Expr::Load(Load::L4Proto, reg1), Expr::AnonymousProtocols]);
            }
            Self::Protocol(protocol) => {
                let number = vec![protocol.number()];
                out.extend([Expr::Load(Load::L4Proto, reg1), Expr::Cmp(Compare::Equal, number)]);
            }
            Self::In(set) => {
                load_key(set.key(), 0, family, out);
                out.push(Expr::Lookup { set: set.name().into(), into: None });
            }
            Self::ConnectionIsNew => out.extend(bit_is_set(Load::CtState, 8)),
            Self::ConnectionHasDnat => out.extend(bit_is_set(Load::CtStatus, 32)),
            Self::ConnectionIsUnconfirmed => {
                let [load, mask, _] = bit_is_set(Load::CtStatus, 8);
                out.extend([load, mask, Expr::Cmp(Compare::Equal, vec![0; 4])]);
            }
            Self::OriginalIn(set) => original(*set, None, family, out),
            Self::OriginalVerdict(map) => original(*map, Some(Register::VERDICT), family, out),
            Self::MarkIsSet(mark) => out.extend(bit_is_set(Load::Mark, *mark)),
            Self::SetMark(mark) => out.extend(change_mark(!mark, *mark)),
            Self::ClearMark(mark) => out.extend(change_mark(!0, *mark)),
            Self::Verdict(map) => {
                load_key(map.key(), 0, family, out);
                out.push(Expr::Lookup { set: map.name().into(), into: Some(Register::VERDICT) });
            }
            Self::Dnat(map, size) => {
                load_key(map.key(), *size, family, out);
                dnat_to(map.name().into(), family, out);
            }
            Self::DnatRemembered(memory) => {
                load_key(MEMORY_KEY, 0, family, out);
                dnat_to(memory.map().into(), family, out);
            }
            Self::Remember(memory) => remember(memory, family, out),
            Self::CountNotRemembered => out.push(Expr::Count(NOT_REMEMBERED)),
            Self::Masquerade => out.push(Expr::Masquerade),
            Self::Jump(chain) => out.push(Expr::Jump(chain.clone())),
            Self::Goto(chain) => out.push(Expr::Goto(chain.clone())),
            Self::Return => out.push(Expr::Return),
            Self::Drop => out.push(Expr::Drop),
            Self::RejectTcpReset => out.push(Expr::RejectTcpReset),
            Self::Reject => out.push(Expr::RejectPort(family)),
        }
    }
}

impl Rule {
    /// The rule in nft syntax.
    #[must_use]
    pub fn text(&self, family: Family) -> String {
        self.0.iter().map(|statement| statement.text(family)).collect::<Vec<_>>().join(" ")
    }

    /// The rule as kernel expressions.
    #[must_use]
    pub fn lower(&self, family: Family) -> Vec<Expr> {
        let mut out = Vec::new();
        self.0.iter().for_each(|statement| statement.lower(family, &mut out));
        out
    }
}

/// A host address prints without its prefix length, as nft does.
fn net_text(net: &IpNet) -> String {
    if net.prefix_len() == net.max_prefix_len() { net.addr().to_string() } else { net.to_string() }
}

/// Fields joined as nft writes a concatenation.
pub(super) fn key_text(fields: &[Field], family: Family) -> String {
    fields.iter().map(|field| field.text(family)).collect::<Vec<_>>().join(" . ")
}

/// The fields that a `Data::Target` consists of, in nft syntax.
pub(super) fn target_text(family: Family) -> String {
    key_text(TARGET_FIELDS, family)
}

/// The same of the connection's first packet, as it was sent.
fn original_text(fields: &[Field], family: Family) -> String {
    let text = |field: &Field| match field {
        Field::PortOf(_) => "ct original proto-dst".into(),
        field => format!("ct original {}", field.text(family)),
    };
    fields.iter().map(text).collect::<Vec<_>>().join(" . ")
}

/// Looks the loaded key up and sends the packet where it leads.
fn dnat_to(map: std::borrow::Cow<'static, str>, family: Family, out: &mut Vec<Expr>) {
    let address = Register::FIRST;
    out.push(Expr::Lookup { set: map, into: Some(address) });
    out.push(Expr::Dnat { family, address, port: address.after(Field::Destination.len(family)) });
}

/// Writes down the client and where its connection goes.
fn remember(memory: &Memory, family: Family, out: &mut Vec<Expr>) {
    let key = Register::FIRST;
    out.push(Expr::Load(Load::OriginalSource(family), key));
    let data = key.after(Field::Source.len(family));
    let length = Field::Destination.len(family);
    out.push(Expr::Load(Load::Destination(family, length), data));
    out.push(Expr::Load(Load::DestinationPort, data.after(length)));
    out.push(Expr::Update { map: memory.map(), data });
}

fn interface_is_not(name: Vec<u8>, out: &mut Vec<Expr>) {
    out.extend([Expr::Load(Load::Interface, Register::FIRST), Expr::Cmp(Compare::NotEqual, name)]);
}

/// Looks up what the client dialled.
fn original(set: Set, into: Option<Register>, family: Family, out: &mut Vec<Expr>) {
    load_original(set.key(), family, out);
    out.push(Expr::Lookup { set: set.name().into(), into });
}

/// Loads the fields of a key as they were when the connection's first packet was sent.
fn load_original(fields: &[Field], family: Family, out: &mut Vec<Expr>) {
    let mut register = Register::FIRST;
    for field in fields {
        let load = match field {
            Field::Source => Load::OriginalSource(family),
            Field::Destination => Load::OriginalDestination(family),
            _ => Load::OriginalPort,
        };
        out.push(Expr::Load(load, register));
        register = register.after(field.len(family));
    }
}

/// Loads the fields of a key one after the other from register 1 on; `size` bounds the index field.
fn load_key(fields: &[Field], size: u16, family: Family, out: &mut Vec<Expr>) {
    let mut register = Register::FIRST;
    for field in fields {
        let load = match field {
            Field::Source => Load::Source(family, Field::Source.len(family)),
            Field::Destination => Load::Destination(family, Field::Destination.len(family)),
            Field::L4Proto => Load::L4Proto,
            Field::Port | Field::PortOf(_) => Load::DestinationPort,
            Field::Index => Load::Random(size),
        };
        out.push(Expr::Load(load, register));
        register = register.after(field.len(family));
    }
}

/// `field != net`. A prefix of whole bytes is compared without a mask, as nft itself does.
fn not_in(field: Field, net: &IpNet, family: Family, out: &mut Vec<Expr>) {
    let address = match net.network() {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    };
    let prefix = usize::from(net.prefix_len());
    let whole_bytes = prefix.is_multiple_of(8) && prefix > 0;
    let length = if whole_bytes { prefix / 8 } else { address.len() };
    let bytes = u32::try_from(length).unwrap_or(field.len(family));
    let load = match field {
        Field::Source => Load::Source(family, bytes),
        _ => Load::Destination(family, bytes),
    };
    out.push(Expr::Load(load, Register::FIRST));
    if !whole_bytes {
        let mask = match net.netmask() {
            IpAddr::V4(mask) => mask.octets().to_vec(),
            IpAddr::V6(mask) => mask.octets().to_vec(),
        };
        out.push(Expr::Mask { mask, xor: vec![0; length] });
    }
    out.push(Expr::Cmp(Compare::NotEqual, address[..length].to_vec()));
}

fn bit_is_set(load: Load, bit: u32) -> [Expr; 3] {
    [
        Expr::Load(load, Register::FIRST),
        Expr::Mask { mask: bit.to_ne_bytes().to_vec(), xor: vec![0; 4] },
        Expr::Cmp(Compare::NotEqual, vec![0; 4]),
    ]
}

fn change_mark(mask: u32, xor: u32) -> [Expr; 3] {
    [
        Expr::Load(Load::Mark, Register::FIRST),
        Expr::Mask { mask: mask.to_ne_bytes().to_vec(), xor: xor.to_ne_bytes().to_vec() },
        Expr::StoreMark,
    ]
}
