//! The user data of sets: what nft keeps beside a set so that it can list and load it again. PURE.
//!
//! A row of type, length, value; nested rows inside. The kernel stores it and never looks. Numbers
//! are those of libnftnl's `udata.h` and of nft's `enum expr_types`. The tests hold the bytes that
//! nft 1.0.6 itself stored for the same sets.

use super::names::{Data, Field, TARGET_FIELDS};
use crate::model::{Family, Protocol};

/// `NFTNL_UDATA_SET_KEYBYTEORDER` and `_DATABYTEORDER`: 0 for concatenations, 2 for network order.
const KEY_BYTE_ORDER: u8 = 0;
const DATA_BYTE_ORDER: u8 = 1;
/// `NFTNL_UDATA_SET_KEY_TYPEOF` and `_DATA_TYPEOF`: nested, the expression that gives the type.
const KEY_TYPEOF: u8 = 3;
const DATA_TYPEOF: u8 = 4;
/// `NFTNL_UDATA_SET_DATA_INTERVAL`.
const DATA_INTERVAL: u8 = 6;

/// Inside a typeof: which expression, and its data.
const EXPR_TYPE: u8 = 0;
const EXPR_DATA: u8 = 1;

const EXPR_VERDICT: u32 = 1;
const EXPR_PAYLOAD: u32 = 7;
const EXPR_META: u32 = 9;
const EXPR_CONCAT: u32 = 13;
const EXPR_NUMGEN: u32 = 23;

/// The user data of a set with this key and data.
#[must_use]
pub fn set_user_data(key: &[Field], data: Data, family: Family) -> Vec<u8> {
    let order = |fields: &[Field]| if fields.len() == 1 { 2 } else { 0 };
    let mut out = Vec::new();
    put_number(&mut out, KEY_BYTE_ORDER, order(key));
    if data != Data::None {
        put_number(&mut out, DATA_BYTE_ORDER, 0);
    }
    put(&mut out, KEY_TYPEOF, &typeof_fields(key, family));
    match data {
        Data::None => return out,
        Data::Verdict => put(&mut out, DATA_TYPEOF, &expression(EXPR_VERDICT, &[])),
        Data::Target => put(&mut out, DATA_TYPEOF, &typeof_fields(TARGET_FIELDS, family)),
    }
    put_number(&mut out, DATA_INTERVAL, 0);
    out
}

fn typeof_fields(fields: &[Field], family: Family) -> Vec<u8> {
    if let [field] = fields {
        return typeof_field(*field, family);
    }
    let mut parts = Vec::new();
    for (index, field) in (0..).zip(fields) {
        put(&mut parts, index, &typeof_field(*field, family));
    }
    expression(EXPR_CONCAT, &parts)
}

fn typeof_field(field: Field, family: Family) -> Vec<u8> {
    // nft's `enum proto_desc_id` and the field's place in that header.
    let payload = |header: u32, index: u32| {
        let mut data = Vec::new();
        put_number(&mut data, 0, header);
        put_number(&mut data, 1, index);
        expression(EXPR_PAYLOAD, &data)
    };
    match (field, family) {
        (Field::Source, Family::V4) => payload(12, 11),
        (Field::Destination, Family::V4) => payload(12, 12),
        (Field::Source, Family::V6) => payload(13, 8),
        (Field::Destination, Family::V6) => payload(13, 9),
        (Field::Port, _) => payload(11, 2),
        (Field::PortOf(Protocol::Tcp), _) => payload(8, 2),
        (Field::PortOf(Protocol::Udp), _) => payload(6, 2),
        (Field::PortOf(Protocol::Sctp), _) => payload(10, 2),
        (Field::L4Proto, _) => {
            let mut data = Vec::new();
            put_number(&mut data, 0, 16); // NFT_META_L4PROTO
            expression(EXPR_META, &data)
        }
        (Field::Index, _) => {
            let mut data = Vec::new();
            put_number(&mut data, 0, 1); // NFT_NG_RANDOM
            put_number(&mut data, 1, 65536);
            put_number(&mut data, 2, 0);
            expression(EXPR_NUMGEN, &data)
        }
    }
}

fn expression(kind: u32, data: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    put_number(&mut out, EXPR_TYPE, kind);
    put(&mut out, EXPR_DATA, data);
    out
}

fn put_number(out: &mut Vec<u8>, kind: u8, number: u32) {
    put(out, kind, &number.to_ne_bytes());
}

/// Appends one entry. Values are at most 255 bytes; all of ours are far shorter.
pub(super) fn put(out: &mut Vec<u8>, kind: u8, value: &[u8]) {
    out.push(kind);
    out.push(u8::try_from(value.len()).unwrap_or(u8::MAX));
    out.extend_from_slice(value);
}

#[cfg(test)]
mod tests {
    use super::super::names::Set;
    use super::*;

    /// From `NFT_MSG_GETSET` after `nft -f ruleset.nft` with nft 1.0.6 on Linux 6.18.
    #[test]
    fn as_nft_itself_stores_it() {
        let services = "000400000000010400000000034400040d000000013c0014000407000000010c00040c00000001040c000000010e0004\
                        0900000001060004100000000214000407000000010c00040b0000000104020000000408000401000000010006040000\
                        0000";
        let endpoints6 = "000400000000010400000000036000040d00000001580014000407000000010c00040d000000010409000000010e00\
                          040900000001060004100000000214000407000000010c00040b000000010402000000031a000417000000011200\
                          0401000000010400000100020400000000043400040d000000012c0014000407000000010c00040d000000010409\
                          0000000114000407000000010c00040b000000010402000000060400000000";
        let hairpin6 = "000400000000033400040d000000012c0014000407000000010c00040d0000000104080000000114000407000000010c\
                        00040d000000010409000000";
        let sources_udp = "000400000000034a00040d00000001420014000407000000010c00040c00000001040c000000011400040700000001\
                           0c0004060000000104020000000214000407000000010c00040c00000001040b000000";
        for (set, family, bytes) in [
            (Set::Services, Family::V4, services),
            (Set::Endpoints, Family::V6, endpoints6),
            (Set::Hairpin, Family::V6, hairpin6),
            (Set::AllowedSources(Protocol::Udp), Family::V4, sources_udp),
        ] {
            let bytes_of = |hex: &str| -> Vec<u8> {
                (0..hex.len())
                    .step_by(2)
                    .map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap())
                    .collect()
            };
            assert_eq!(set_user_data(set.key(), set.data(), family), bytes_of(bytes), "{set:?}");
        }
    }
}
