//! Bytes as Linux 6.18 sent them in a dump, of flows made by conntrack 1.4.7 in an empty network
//! namespace. The numbers in them are those of a little-endian machine.
#![cfg(target_endian = "little")]

use super::*;
use crate::netlink::{ACK, messages};

/// `conntrack -I -p udp -s 198.51.100.7 -d 10.96.0.1 --sport 4000 --dport 53 -r 10.244.1.5 -q 192.168.1.10
/// --reply-port-src 8080 --reply-port-dst 4000 -t 300`
const TRANSLATED: &str = "\
    c00000000001220007000000c20a000002000000340001801400018008000100c6336407080002000a6000011c00028005000100\
    11000000060002000fa0000006000300003500003400028014000180080001000af4010508000200c0a8010a1c00028005000100\
    11000000060002001f900000060003000fa000000800030000000008080008000000000008000c007cbb248f08000b0000000001\
    080007000000012b1c001880080001000000000008000200000000000800030000000000";

/// `conntrack -I -p udp -s 198.51.100.7 -d 10.96.0.1 --sport 4001 --dport 53 -t 300 -w 7`
const OTHER_ZONE: &str = "\
    c80000000001220007000000c20a000002000000340001801400018008000100c6336407080002000a6000011c00028005000100\
    11000000060002000fa1000006000300003500003400028014000180080001000a60000108000200c63364071c00028005000100\
    110000000600020000350000060003000fa1000006001200000700000800030000000008080008000000000008000c009d6a6067\
    08000b0000000001080007000000012b1c001880080001000000000008000200000000000800030000000000";

/// `conntrack -I -p tcp -s 198.51.100.7 -d 10.96.0.1 --sport 4001 --dport 53 -t 300 --state ESTABLISHED
/// -u SEEN_REPLY`
const TCP: &str = "\
    f00000000001220007000000c20a000002000000340001801400018008000100c6336407080002000a6000011c00028005000100\
    06000000060002000fa1000006000300003500003400028014000180080001000a60000108000200c63364071c00028005000100\
    060000000600020000350000060003000fa10000080003000000000a080008000000000008000c00c2f4c9e808000b0000000001\
    080007000000012b300004802c000180050001000300000005000200000000000500030000000000060004000a00000006000500\
    0a0000001c001880080001000000000008000200000000000800030000000000";

/// `conntrack -I -p udp -s 2001:db8:100::7 -d fd00:10:96::1 --sport 4000 --dport 53 -r fd00:10:244:1::5
/// -q 2001:db8:100::7 --reply-port-src 8080 --reply-port-dst 4000 -t 300`
const IPV6: &str = "\
    f00000000001220007000000c20a00000a0000004c0001802c0001801400030020010db801000000000000000000000714000400\
    fd0000100096000000000000000000011c0002800500010011000000060002000fa0000006000300003500004c0002802c000180\
    14000300fd0000100244000100000000000000051400040020010db80100000000000000000000071c0002800500010011000000\
    060002001f900000060003000fa000000800030000000008080008000000000008000c003e44a8a608000b000000000108000700\
    0000012b1c001880080001000000000008000200000000000800030000000000";

fn bytes(hex: &str) -> Vec<u8> {
    (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect()
}

fn read(hex: &str) -> Option<Entry> {
    let bytes = bytes(hex);
    let all: Vec<_> = messages(&bytes).collect();
    assert_eq!(all.len(), 1);
    Entry::read(&all[0])
}

fn entry(original: [&str; 2], reply: [&str; 2], id: [u8; 4]) -> Entry {
    let tuple = |ends: [&str; 2]| {
        let [source, destination] = ends.map(|end| end.parse().unwrap());
        Tuple { source, destination }
    };
    Entry { flow: Flow { original: tuple(original), reply: tuple(reply) }, id }
}

#[test]
fn flows_as_the_kernel_tells_them() {
    let v4 = entry(
        ["198.51.100.7:4000", "10.96.0.1:53"],
        ["10.244.1.5:8080", "192.168.1.10:4000"],
        [0x7c, 0xbb, 0x24, 0x8f],
    );
    let v6 = entry(
        ["[2001:db8:100::7]:4000", "[fd00:10:96::1]:53"],
        ["[fd00:10:244:1::5]:8080", "[2001:db8:100::7]:4000"],
        [0x3e, 0x44, 0xa8, 0xa6],
    );
    for (hex, expected) in [(TRANSLATED, Some(v4)), (IPV6, Some(v6)), (OTHER_ZONE, None), (TCP, None)] {
        assert_eq!(read(hex), expected);
    }
}

/// What is cut off or twisted is no flow, and no panic.
#[test]
fn rubbish() {
    let whole = bytes(TRANSLATED);
    for length in 20..whole.len() {
        let mut cut = whole[..length].to_vec();
        cut[..4].copy_from_slice(&u32::try_from(length).unwrap().to_ne_bytes());
        messages(&cut).for_each(|message| _ = Entry::read(&message));
    }
    for at in 20..whole.len() {
        for value in [0, 1, 0xff] {
            let mut twisted = whole.clone();
            twisted[at] = value;
            messages(&twisted).for_each(|message| _ = Entry::read(&message));
        }
    }
}

/// The tuple and the id stand in the deletion exactly as the kernel told them.
#[test]
fn a_deletion_names_what_was_told() {
    for (hex, family, tuple) in [(TRANSLATED, 2, 20..72), (IPV6, 10, 20..96)] {
        let told = bytes(hex);
        let entry = read(hex).unwrap();
        let mut writer = Writer::default();
        let open = writer.message(DELETE, ACK, 1, family, 0);
        entry.write(&mut writer);
        writer.end_message(open);
        let written = writer.bytes();
        assert_eq!(written[4..8], [2, 1, 5, 0], "IPCTNL_MSG_CT_DELETE, NLM_F_REQUEST | NLM_F_ACK");
        assert_eq!(written[tuple.clone()], told[tuple.clone()]);
        assert_eq!(written[tuple.end..], [&[8, 0, 12, 0], &entry.id[..]].concat());
    }
}

#[test]
fn questions() {
    let address = Some("10.96.0.1".parse().unwrap());
    let table = [
        (
            Query { address, port: Some(53) },
            "24000180 0c000180 08000200 0a600001 14000280 05000100 11000000 06000300 00350000 \
             0c001980 08000100 2a000000",
        ),
        (
            Query { address: None, port: Some(30053) },
            "18000180 14000280 05000100 11000000 06000300 75650000 0c001980 08000100 28000000",
        ),
        (Query::EVERYTHING, "10000180 0c000280 05000100 11000000 0c001980 08000100 08000000"),
    ];
    for (query, expected) in table {
        let mut writer = Writer::default();
        query.write(&mut writer);
        assert_eq!(writer.bytes(), bytes(&expected.replace(' ', "")), "{query:?}");
    }
}
