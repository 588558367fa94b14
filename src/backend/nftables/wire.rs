//! The FFI: expressions, chains and rules through libnftnl, socket options through libmnl. EDGE.
//!
//! The only place in shunt with unsafe code. Everything else of a transaction is plain bytes that
//! `encode.rs` writes itself.

#![allow(unsafe_code)]

use std::ffi::{CStr, CString, c_char, c_void};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr::NonNull;

use nftnl::expr::Expression;
use nftnl::nftnl_sys as sys;
use nftnl::{MsgType, NlMsg, ProtoFamily};

use super::expr::{Compare, Expr, Load, Register};
use super::names::TABLE;
use super::protocol::object;
use super::ruleset::{Chain, ChainType, Hook};
use crate::model::Family;
use crate::netlink::{APPEND, CREATE, REQUEST};

/// The name under which rules refer to an anonymous set until the kernel has numbered it.
pub const ANONYMOUS_SET: &str = "__set%d";

/// Room for one message of libnftnl, used again for each, and the name of the table that they are about.
#[derive(Debug)]
pub struct Scratch(Vec<u64>, CString);

impl Default for Scratch {
    fn default() -> Self {
        Self::of(TABLE)
    }
}

impl Scratch {
    /// Room for messages about a table of this name.
    #[must_use]
    pub fn of(table: &str) -> Self {
        let bytes = usize::try_from(nftnl::nft_nlmsg_maxsize()).unwrap_or(1 << 18);
        Self(vec![0; bytes.div_ceil(8)], c_string(table))
    }

    fn table(&self, family: Family) -> nftnl::Table {
        nftnl::Table::new(self.1.clone(), proto_family(family))
    }

    /// Appends the message that `object` writes, without asking for a confirmation of its own.
    fn append(&mut self, object: &impl NlMsg, seq: u32, out: &mut Vec<u8>) {
        // SAFETY: the buffer is as large as the trait asks for (`nft_nlmsg_maxsize`) and aligned for
        // `nlmsghdr`; nobody else sees it.
        unsafe { object.write(self.0.as_mut_ptr().cast::<c_void>(), seq, MsgType::Add) };
        // `nlmsg_len`, `nlmsg_type`.
        let [first, second] = [0, 4].map(|at| self.0[0].to_ne_bytes()[at..at + 4].to_vec());
        let length = first.try_into().map_or(0, u32::from_ne_bytes);
        let length = usize::try_from(length).unwrap_or(0);
        let start = out.len();
        out.extend(self.0.iter().take(length.div_ceil(8)).flat_map(|word| word.to_ne_bytes()));
        out.truncate(start + length.next_multiple_of(4));
        // Padding is not written: it must not show what an earlier message had there.
        self.0.iter_mut().take(length.div_ceil(8)).for_each(|word| *word = 0);
        let append = if second[0] == NEW_RULE { APPEND } else { 0 };
        out[start + 6..start + 8].copy_from_slice(&(REQUEST | CREATE | append).to_ne_bytes());
    }
}

/// `NFT_MSG_NEWRULE`.
const NEW_RULE: u8 = 6;

fn proto_family(family: Family) -> ProtoFamily {
    match family {
        Family::V4 => ProtoFamily::Ipv4,
        Family::V6 => ProtoFamily::Ipv6,
    }
}

/// A name as C wants it. Ours never hold a NUL; one that does is cut there.
fn c_string(text: &str) -> CString {
    let text = text.split('\0').next().unwrap_or_default();
    CString::new(text).unwrap_or_default()
}

/// Appends the message that makes a chain, without its rules.
pub fn chain_message(scratch: &mut Scratch, chain: &Chain, family: Family, seq: u32, out: &mut Vec<u8>) {
    let table = scratch.table(family);
    let mut object = nftnl::Chain::new(c_string(&chain.name), &table);
    if let Some((kind, hook, priority)) = chain.base {
        object.set_hook(
            match hook {
                Hook::Prerouting => nftnl::Hook::PreRouting,
                Hook::Input => nftnl::Hook::In,
                Hook::Forward => nftnl::Hook::Forward,
                Hook::Output => nftnl::Hook::Out,
                Hook::Postrouting => nftnl::Hook::PostRouting,
            },
            priority,
        );
        object.set_type(match kind {
            ChainType::Filter => nftnl::ChainType::Filter,
            ChainType::Nat => nftnl::ChainType::Nat,
        });
        object.set_policy(nftnl::Policy::Accept);
    }
    scratch.append(&object, seq, out);
}

/// Appends the message that appends a rule to a chain. `anonymous_set` is the id, unique in its
/// transaction, of the set that [`Expr::AnonymousProtocols`] looks into.
pub fn rule_message(
    scratch: &mut Scratch,
    chain: &str,
    exprs: &[Expr],
    family: Family,
    seq: u32,
    anonymous_set: u32,
    out: &mut Vec<u8>,
) {
    let table = scratch.table(family);
    let chain = nftnl::Chain::new(c_string(chain), &table);
    let mut rule = nftnl::Rule::new(&chain);
    for expr in exprs {
        rule.add_expr(&Numbered { expr, anonymous_set });
    }
    scratch.append(&rule, seq, out);
}

/// The chain of a rule and its expressions as libnftnl prints them, a line each, from a `NEWRULE`
/// message: ours or the kernel's. Anonymous sets lose their number, so that equal rules print alike.
#[must_use]
pub fn rule_text(message: &[u8]) -> Option<(String, String)> {
    let aligned: Vec<u64> = message
        .chunks(8)
        .map(|chunk| {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            u64::from_ne_bytes(word)
        })
        .collect();
    let mut text = vec![0_u8; 16384];
    // SAFETY: `aligned` holds one whole netlink message whose length field was checked by the reader
    // that cut it out; the rule is freed on every path; `snprintf` is told the size of its buffer and
    // closes with a NUL; the chain's name is copied before the rule is freed.
    let (written, chain) = unsafe {
        let rule = NonNull::new(sys::nftnl_rule_alloc())?;
        let parsed = sys::nftnl_rule_nlmsg_parse(aligned.as_ptr().cast(), rule.as_ptr());
        let name = sys::nftnl_rule_get_str(rule.as_ptr(), attribute(sys::NFTNL_RULE_CHAIN));
        let result = (parsed == 0 && !name.is_null()).then(|| {
            let buffer = text.as_mut_ptr().cast::<c_char>();
            let written = sys::nftnl_rule_snprintf(buffer, text.len(), rule.as_ptr(), 0, 0);
            (written, CStr::from_ptr(name).to_string_lossy().into_owned())
        });
        sys::nftnl_rule_free(rule.as_ptr());
        result?
    };
    text.truncate(usize::try_from(written).ok()?.min(text.len() - 1));
    let text = String::from_utf8(text).ok()?;
    let lines = text.lines().skip(1).map(|line| without_number(line.trim()));
    Some((chain, lines.filter(|line| !line.is_empty()).collect::<Vec<_>>().join("\n")))
}

fn without_number(line: &str) -> String {
    let Some((before, after)) = line.split_once("__set") else { return line.to_owned() };
    let rest = after.trim_start_matches(|c: char| c.is_ascii_digit() || c == '%' || c == 'd');
    format!("{before}__set{rest}")
}

/// Sets an option of the netlink socket to a number.
///
/// # Errors
/// What `setsockopt` says.
pub fn set_netlink_option(socket: &mnl::Socket, option: i32, value: i32) -> io::Result<()> {
    let length = u32::try_from(size_of::<i32>()).unwrap_or(4);
    // SAFETY: the socket is open as long as the reference lives; the option's value is an int and its
    // length is told.
    let result = unsafe {
        mnl::mnl_sys::mnl_socket_setsockopt(
            socket.as_raw_socket(),
            option,
            (&raw const value).cast_mut().cast::<c_void>(),
            length,
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// The socket's file descriptor, for as long as the socket is borrowed.
#[must_use]
pub fn borrow(socket: &mnl::Socket) -> BorrowedFd<'_> {
    // SAFETY: the descriptor is open until the socket is dropped, which the borrow forbids.
    unsafe { BorrowedFd::borrow_raw(socket.as_raw_fd()) }
}

/// Gives memory that is no longer used back to the system: a cold start or a read-back needs a tenth more
/// than what stays, and the allocator of glibc would keep it. Elsewhere this does nothing.
pub fn release_unused_memory() {
    #[cfg(target_env = "gnu")]
    // SAFETY: malloc_trim may be called at any time from any thread; it takes no pointer.
    unsafe {
        nix::libc::malloc_trim(0);
    }
}

/// libnftnl counts attributes as u32 and takes them as u16.
fn attribute(number: u32) -> u16 {
    u16::try_from(number).unwrap_or(u16::MAX)
}

/// An expression together with the id of the anonymous set it may look into.
struct Numbered<'a> {
    expr: &'a Expr,
    anonymous_set: u32,
}

/// An expression under construction. The rule that it is added to frees it.
struct Raw(NonNull<sys::nftnl_expr>);

impl Raw {
    fn new(name: &CStr) -> Self {
        // SAFETY: the name is a NUL-terminated string that outlives the call.
        let expr = unsafe { sys::nftnl_expr_alloc(name.as_ptr()) };
        match NonNull::new(expr) {
            Some(expr) => Self(expr),
            // Out of memory for a few bytes, as nftnl itself does.
            None => std::process::abort(),
        }
    }

    fn number(self, kind: u32, value: u32) -> Self {
        // SAFETY: the expression was allocated by `new` and is not freed while `self` lives.
        unsafe { sys::nftnl_expr_set_u32(self.0.as_ptr(), attribute(kind), value) };
        self
    }

    fn byte(self, kind: u32, value: u8) -> Self {
        // SAFETY: as in `number`.
        unsafe { sys::nftnl_expr_set_u8(self.0.as_ptr(), attribute(kind), value) };
        self
    }

    fn register(self, kind: u32, register: Register) -> Self {
        self.number(kind, register.number())
    }

    fn data(self, kind: u32, value: &[u8]) -> Self {
        let length = u32::try_from(value.len()).unwrap_or(0);
        // SAFETY: as in `number`; the value is copied, `length` bytes of it.
        unsafe { sys::nftnl_expr_set(self.0.as_ptr(), attribute(kind), value.as_ptr().cast(), length) };
        self
    }

    fn text(self, kind: u32, value: &str) -> Self {
        let value = c_string(value);
        // SAFETY: as in `number`; the string is copied.
        unsafe { sys::nftnl_expr_set_str(self.0.as_ptr(), attribute(kind), value.as_ptr()) };
        self
    }
}

impl Expression for Numbered<'_> {
    fn to_expr(&self, _rule: &nftnl::Rule<'_>) -> NonNull<sys::nftnl_expr> {
        let first = Register::FIRST;
        let raw = match self.expr {
            Expr::Load(load, register) => load_expr(*load, *register),
            Expr::FibType { source } => Raw::new(c"fib")
                .register(sys::NFTNL_EXPR_FIB_DREG, first)
                .number(sys::NFTNL_EXPR_FIB_RESULT, 3) // NFT_FIB_RESULT_ADDRTYPE
                .number(sys::NFTNL_EXPR_FIB_FLAGS, if *source { 1 } else { 2 }), // NFTA_FIB_F_SADDR, _DADDR
            Expr::Mask { mask, xor } => Raw::new(c"bitwise")
                .register(sys::NFTNL_EXPR_BITWISE_SREG, first)
                .register(sys::NFTNL_EXPR_BITWISE_DREG, first)
                .number(sys::NFTNL_EXPR_BITWISE_LEN, u32::try_from(mask.len()).unwrap_or(4))
                .data(sys::NFTNL_EXPR_BITWISE_MASK, mask)
                .data(sys::NFTNL_EXPR_BITWISE_XOR, xor),
            Expr::Cmp(compare, value) => Raw::new(c"cmp")
                .register(sys::NFTNL_EXPR_CMP_SREG, first)
                .number(sys::NFTNL_EXPR_CMP_OP, u32::from(*compare == Compare::NotEqual))
                .data(sys::NFTNL_EXPR_CMP_DATA, value),
            Expr::StoreMark => Raw::new(c"meta")
                .number(sys::NFTNL_EXPR_META_KEY, META_MARK)
                .register(sys::NFTNL_EXPR_META_SREG, first),
            Expr::Lookup { set, into } => {
                let raw = Raw::new(c"lookup")
                    .register(sys::NFTNL_EXPR_LOOKUP_SREG, first)
                    .text(sys::NFTNL_EXPR_LOOKUP_SET, set)
                    .number(sys::NFTNL_EXPR_LOOKUP_FLAGS, 0);
                match into {
                    Some(register) => raw.register(sys::NFTNL_EXPR_LOOKUP_DREG, *register),
                    None => raw,
                }
            }
            Expr::Update { map, data } => Raw::new(c"dynset")
                .number(sys::NFTNL_EXPR_DYNSET_OP, 1) // NFT_DYNSET_OP_UPDATE
                .register(sys::NFTNL_EXPR_DYNSET_SREG_KEY, first)
                .register(sys::NFTNL_EXPR_DYNSET_SREG_DATA, *data)
                // that of the map, as the kernel reports it
                .data(sys::NFTNL_EXPR_DYNSET_TIMEOUT, &0_u64.to_ne_bytes())
                .text(sys::NFTNL_EXPR_DYNSET_SET_NAME, map),
            Expr::Count(name) => Raw::new(c"objref")
                .number(sys::NFTNL_EXPR_OBJREF_IMM_TYPE, object::COUNTER)
                .text(sys::NFTNL_EXPR_OBJREF_IMM_NAME, name),
            Expr::AnonymousProtocols => Raw::new(c"lookup")
                .register(sys::NFTNL_EXPR_LOOKUP_SREG, first)
                .text(sys::NFTNL_EXPR_LOOKUP_SET, ANONYMOUS_SET)
                .number(sys::NFTNL_EXPR_LOOKUP_FLAGS, 0)
                .number(sys::NFTNL_EXPR_LOOKUP_SET_ID, self.anonymous_set),
            Expr::Dnat { family, address, port } => dnat(*family, *address, *port),
            // NF_NAT_RANGE_PROTO_RANDOM_FULLY
            Expr::Masquerade => Raw::new(c"masq").number(sys::NFTNL_EXPR_MASQ_FLAGS, 16),
            Expr::Jump(chain) => verdict(NFT_JUMP, Some(chain)),
            Expr::Goto(chain) => verdict(NFT_GOTO, Some(chain)),
            Expr::Return => verdict(NFT_RETURN, None),
            Expr::Drop => verdict(NF_DROP, None),
            Expr::RejectTcpReset => Raw::new(c"reject")
                .number(sys::NFTNL_EXPR_REJECT_TYPE, 1)
                .byte(sys::NFTNL_EXPR_REJECT_CODE, 0),
            // Port unreachable: code 3 of ICMP, 4 of ICMPv6.
            Expr::RejectPort(family) => Raw::new(c"reject")
                .number(sys::NFTNL_EXPR_REJECT_TYPE, 0)
                .byte(sys::NFTNL_EXPR_REJECT_CODE, if *family == Family::V4 { 3 } else { 4 }),
        };
        raw.0
    }
}

/// `NFT_META_MARK`.
const META_MARK: u32 = 3;
/// `NF_DROP` and the `enum nft_verdicts`, as they stand in a verdict register.
const NF_DROP: i32 = 0;
/// See [`NF_DROP`].
const NFT_JUMP: i32 = -3;
/// See [`NF_DROP`].
const NFT_GOTO: i32 = -4;
/// See [`NF_DROP`].
const NFT_RETURN: i32 = -5;

fn verdict(code: i32, chain: Option<&str>) -> Raw {
    let raw = Raw::new(c"immediate")
        .register(sys::NFTNL_EXPR_IMM_DREG, Register::VERDICT)
        .number(sys::NFTNL_EXPR_IMM_VERDICT, u32::from_ne_bytes(code.to_ne_bytes()));
    match chain {
        Some(chain) => raw.text(sys::NFTNL_EXPR_IMM_CHAIN, chain),
        None => raw,
    }
}

fn dnat(family: Family, address: Register, port: Register) -> Raw {
    Raw::new(c"nat")
        .number(sys::NFTNL_EXPR_NAT_TYPE, 1) // NFT_NAT_DNAT
        .number(sys::NFTNL_EXPR_NAT_FAMILY, u32::from(proto_family(family) as u16))
        .register(sys::NFTNL_EXPR_NAT_REG_ADDR_MIN, address)
        .register(sys::NFTNL_EXPR_NAT_REG_ADDR_MAX, address)
        .register(sys::NFTNL_EXPR_NAT_REG_PROTO_MIN, port)
        .register(sys::NFTNL_EXPR_NAT_REG_PROTO_MAX, port)
        // NF_NAT_RANGE_MAP_IPS | NF_NAT_RANGE_PROTO_SPECIFIED, as the kernel reports it
        .number(sys::NFTNL_EXPR_NAT_FLAGS, 3)
}

fn load_expr(load: Load, register: Register) -> Raw {
    let payload = |base: u32, offset: u32, length: u32| {
        Raw::new(c"payload")
            .register(sys::NFTNL_EXPR_PAYLOAD_DREG, register)
            .number(sys::NFTNL_EXPR_PAYLOAD_BASE, base)
            .number(sys::NFTNL_EXPR_PAYLOAD_OFFSET, offset)
            .number(sys::NFTNL_EXPR_PAYLOAD_LEN, length)
    };
    let meta = |key: u32| {
        Raw::new(c"meta").number(sys::NFTNL_EXPR_META_KEY, key).register(sys::NFTNL_EXPR_META_DREG, register)
    };
    let ct = |key: u32| {
        Raw::new(c"ct").number(sys::NFTNL_EXPR_CT_KEY, key).register(sys::NFTNL_EXPR_CT_DREG, register)
    };
    let original = |key: u32| ct(key).byte(sys::NFTNL_EXPR_CT_DIR, 0); // IP_CT_DIR_ORIGINAL
    // Payload bases: 1 is NFT_PAYLOAD_NETWORK_HEADER, 2 NFT_PAYLOAD_TRANSPORT_HEADER.
    match load {
        Load::Source(Family::V4, bytes) => payload(1, 12, bytes),
        Load::Source(Family::V6, bytes) => payload(1, 8, bytes),
        Load::Destination(Family::V4, bytes) => payload(1, 16, bytes),
        Load::Destination(Family::V6, bytes) => payload(1, 24, bytes),
        Load::DestinationPort => payload(2, 2, 2),
        Load::L4Proto => meta(16),  // NFT_META_L4PROTO
        Load::Interface => meta(6), // NFT_META_IIFNAME
        Load::Mark => meta(META_MARK),
        Load::CtState => ct(0),                                // NFT_CT_STATE
        Load::CtStatus => ct(2),                               // NFT_CT_STATUS
        Load::OriginalSource(Family::V4) => original(19),      // NFT_CT_SRC_IP
        Load::OriginalSource(Family::V6) => original(21),      // NFT_CT_SRC_IP6
        Load::OriginalDestination(Family::V4) => original(20), // NFT_CT_DST_IP
        Load::OriginalDestination(Family::V6) => original(22), // NFT_CT_DST_IP6
        Load::OriginalPort => original(12),                    // NFT_CT_PROTO_DST
        Load::Random(modulus) => Raw::new(c"numgen")
            .register(sys::NFTNL_EXPR_NG_DREG, register)
            .number(sys::NFTNL_EXPR_NG_MODULUS, u32::from(modulus))
            .number(sys::NFTNL_EXPR_NG_TYPE, 1) // NFT_NG_RANDOM
            .number(sys::NFTNL_EXPR_NG_OFFSET, 0),
    }
}
