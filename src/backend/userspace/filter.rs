//! Who may call, as a program in classic BPF that the kernel runs on a listening socket: what it rejects
//! is dropped without a word, as a packet filter would. No privilege is needed. PURE.
//!
//! `net/core/filter.c`: a program sees the packet from its transport header on; negative offsets reach
//! the IP header (`SKF_NET_OFF`) and what the kernel knows besides (`SKF_AD_OFF`).

use std::net::IpAddr;

use ipnet::IpNet;

/// One instruction: code, jumps if true and if false, operand (`struct sock_filter`).
pub type Instruction = (u16, u8, u8, u32);

/// A source has to meet all of these.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Gate {
    /// Sources that may call; everybody where `None`.
    pub sources: Option<Vec<IpNet>>,
    /// Only the node itself and local pods, which have addresses in these ranges.
    pub inside: Option<Vec<IpNet>>,
}

const LOAD_WORD: u16 = 0x20; // BPF_LD | BPF_W | BPF_ABS
const AND: u16 = 0x54; // BPF_ALU | BPF_AND | BPF_K
const JUMP: u16 = 0x05; // BPF_JMP | BPF_JA
const JUMP_EQUAL: u16 = 0x15; // BPF_JMP | BPF_JEQ | BPF_K
const RETURN: u16 = 0x06; // BPF_RET | BPF_K
/// `SKF_NET_OFF`: -0x100000.
const NETWORK_HEADER: u32 = 0xfff0_0000;
/// `SKF_AD_OFF + SKF_AD_IFINDEX`: -0x1000 + 8.
const INTERFACE: u32 = 0xffff_f008;
/// `LOOPBACK_IFINDEX`: what the node sends to itself comes in there.
const LOOPBACK: u32 = 1;
/// `BPF_MAXINSNS`.
const LONGEST: usize = 4096;

/// Drops everything.
pub const NOBODY: [Instruction; 1] = [(RETURN, 0, 0, 0)];

/// The program of a gate; `None` if it would be longer than the kernel takes.
#[must_use]
pub fn program(gate: &Gate) -> Option<Vec<Instruction>> {
    let mut program = Vec::new();
    if let Some(sources) = &gate.sources {
        stage(&mut program, sources, false);
    }
    if let Some(inside) = &gate.inside {
        stage(&mut program, inside, true);
    }
    program.push((RETURN, 0, 0, u32::MAX));
    (program.len() <= LONGEST).then_some(program)
}

/// Returns 0 unless one of the ranges matches, or the packet comes from the node where that counts.
fn stage(program: &mut Vec<Instruction>, nets: &[IpNet], node: bool) {
    let mut passes = Vec::new();
    if node {
        program.push((LOAD_WORD, 0, 0, INTERFACE));
        program.push((JUMP_EQUAL, 0, 1, LOOPBACK));
        passes.push(program.len());
        program.push((JUMP, 0, 0, 0));
    }
    for net in nets {
        let start = program.len();
        let words = words(net);
        let mut misses = Vec::new();
        for (offset, mask, value) in words {
            program.push((LOAD_WORD, 0, 0, NETWORK_HEADER + offset));
            if mask != u32::MAX {
                program.push((AND, 0, 0, mask));
            }
            misses.push(program.len());
            program.push((JUMP_EQUAL, 0, 0, value));
        }
        passes.push(program.len());
        program.push((JUMP, 0, 0, 0));
        let end = program.len();
        for miss in misses {
            // At most 12 instructions a net.
            program[miss].2 = u8::try_from(end - miss - 1).unwrap_or(u8::MAX);
        }
        debug_assert!(end - start <= 13);
    }
    program.push((RETURN, 0, 0, 0));
    let end = program.len();
    for pass in passes {
        program[pass].3 = u32::try_from(end - pass - 1).unwrap_or(u32::MAX);
    }
}

/// The words of the source address that a range says something about: offset in the IP header, mask,
/// value.
fn words(net: &IpNet) -> Vec<(u32, u32, u32)> {
    let (offset, bytes) = match net.network() {
        IpAddr::V4(address) => (12, address.octets().to_vec()),
        IpAddr::V6(address) => (8, address.octets().to_vec()),
    };
    let mut left = u32::from(net.prefix_len());
    let mut words = Vec::new();
    for (at, word) in (offset..).step_by(4).zip(bytes.as_chunks::<4>().0) {
        let bits = left.min(32);
        left -= bits;
        if bits > 0 {
            words.push((at, u32::MAX << (32 - bits), u32::from_be_bytes(*word)));
        }
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the kernel does with a packet from `source` that came in on an interface.
    fn passes(program: &[Instruction], source: &str, interface: u32) -> bool {
        let source: IpAddr = source.parse().unwrap();
        let (first, bytes) = match source {
            IpAddr::V4(address) => (12, address.octets().to_vec()),
            IpAddr::V6(address) => (8, address.octets().to_vec()),
        };
        let (mut at, mut register) = (0, 0);
        loop {
            let (code, yes, no, k) = program[at];
            at += 1;
            match code {
                LOAD_WORD if k == INTERFACE => register = interface,
                LOAD_WORD => {
                    let offset = (k - NETWORK_HEADER - first) as usize;
                    register = u32::from_be_bytes(bytes[offset..offset + 4].try_into().unwrap());
                }
                AND => register &= k,
                JUMP => at += k as usize,
                JUMP_EQUAL => at += usize::from(if register == k { yes } else { no }),
                RETURN => return k != 0,
                _ => panic!("what is {code:#x}?"),
            }
        }
    }

    fn gate(sources: Option<&[&str]>, inside: Option<&[&str]>) -> Gate {
        let nets = |nets: &[&str]| nets.iter().map(|net| net.parse().unwrap()).collect();
        Gate { sources: sources.map(nets), inside: inside.map(nets) }
    }

    #[test]
    fn who_passes() {
        let ranges: &[&str] = &["198.51.100.0/24", "203.0.113.7/32", "10.0.0.0/9"];
        let six: &[&str] = &["2001:db8::/33", "fd00::1/128"];
        let table = [
            (gate(None, None), "198.51.100.1", 2, true),
            (gate(Some(ranges), None), "198.51.100.1", 2, true),
            (gate(Some(ranges), None), "198.51.101.1", 2, false),
            (gate(Some(ranges), None), "203.0.113.7", 2, true),
            (gate(Some(ranges), None), "203.0.113.6", 1, false),
            (gate(Some(ranges), None), "10.127.0.1", 2, true),
            (gate(Some(ranges), None), "10.128.0.1", 2, false),
            (gate(Some(six), None), "2001:db8:7fff::9", 2, true),
            (gate(Some(six), None), "2001:db8:8000::9", 2, false),
            (gate(Some(six), None), "fd00::1", 2, true),
            (gate(Some(six), None), "fd00::2", 2, false),
            (gate(None, Some(&["10.244.0.0/16"])), "10.244.9.9", 2, true),
            (gate(None, Some(&["10.244.0.0/16"])), "10.245.9.9", 2, false),
            (gate(None, Some(&["10.244.0.0/16"])), "10.245.9.9", 1, true),
            (gate(None, Some(&[])), "10.245.9.9", 2, false),
            (gate(Some(&["10.0.0.0/8"]), Some(&["10.244.0.0/16"])), "10.244.1.1", 2, true),
            (gate(Some(&["10.0.0.0/8"]), Some(&["10.244.0.0/16"])), "192.0.2.1", 1, false),
            (gate(Some(&["0.0.0.0/0"]), None), "192.0.2.1", 2, true),
        ];
        for (gate, source, interface, expected) in table {
            let program = program(&gate).unwrap();
            assert_eq!(passes(&program, source, interface), expected, "{gate:?} {source} {interface}");
        }
        assert!(!passes(&NOBODY, "10.0.0.1", 1));
    }

    #[test]
    fn what_the_kernel_would_not_take_is_left_to_the_relay() {
        let nets = |count: u32| Gate {
            sources: Some((0..count).map(|n| IpNet::from(IpAddr::from((n << 8).to_be_bytes()))).collect()),
            inside: None,
        };
        assert!(program(&nets(1300)).is_some());
        assert!(program(&nets(1400)).is_none());
    }
}
