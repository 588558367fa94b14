//! Sets as netlink attributes, in both directions. PURE.

use super::super::names::{Data, Field, Set, TARGET_FIELDS};
use super::super::protocol::{list, set as set_attribute};
use super::super::sticky::MEMORY_KEY;
use super::super::typeof_data::set_user_data;
use crate::model::Family;
use crate::netlink::{Attributes, Writer};

/// What tells one of our sets from a foreign one of the same name, as the kernel reports it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SetIdentity {
    flags: u32,
    key_length: u32,
    data: Option<(u32, u32)>,
    user_data: Vec<u8>,
}

impl SetIdentity {
    /// The identity that our set has.
    #[must_use]
    pub fn of(set: Set, family: Family) -> Self {
        let interval = if set.is_interval() { set_attribute::INTERVAL } else { 0 };
        let concat = if set.is_interval() && set.key().len() > 1 { set_attribute::CONCAT } else { 0 };
        let map = if set.data() == Data::None { 0 } else { set_attribute::MAP };
        let data = match set.data() {
            Data::None => None,
            Data::Verdict => Some((set_attribute::TYPE_VERDICT, set_attribute::VERDICT_LENGTH)),
            Data::Target => Some((type_number(TARGET_FIELDS, family), length(TARGET_FIELDS, family))),
        };
        Self {
            flags: interval | concat | map,
            key_length: length(set.key(), family),
            data,
            user_data: set_user_data(set.key(), set.data(), family),
        }
    }

    /// The identity of the map of a memory.
    #[must_use]
    pub fn of_map(family: Family) -> Self {
        Self {
            flags: set_attribute::MAP | set_attribute::WRITTEN_BY_RULES,
            key_length: length(MEMORY_KEY, family),
            data: Some((type_number(TARGET_FIELDS, family), length(TARGET_FIELDS, family))),
            user_data: set_user_data(MEMORY_KEY, Data::Target, family),
        }
    }

    /// The identity in a message about a set.
    #[must_use]
    pub fn read(attributes: Attributes<'_>) -> Self {
        let number = |kind| attributes.number(kind);
        Self {
            flags: number(set_attribute::FLAGS).unwrap_or(0),
            key_length: number(set_attribute::KEY_LENGTH).unwrap_or(0),
            data: number(set_attribute::DATA_TYPE).zip(number(set_attribute::DATA_LENGTH)),
            user_data: attributes.get(set_attribute::USER_DATA).unwrap_or_default().to_vec(),
        }
    }
}

/// The size in a message about a set.
#[must_use]
pub fn read_size(attributes: Attributes<'_>) -> Option<u32> {
    attributes.nested(set_attribute::DESCRIPTION).number(set_attribute::DESCRIPTION_SIZE)
}

/// Writes the attributes that make a set or raise its size.
pub fn write_set(w: &mut Writer, table: &str, set: Set, size: Option<u32>, family: Family) {
    let identity = SetIdentity::of(set, family);
    write_identity(w, table, set.name(), type_number(set.key(), family), &identity);
    let description = w.nest(set_attribute::DESCRIPTION);
    if let Some(size) = size {
        w.number(set_attribute::DESCRIPTION_SIZE, size);
    }
    if identity.flags & set_attribute::CONCAT != 0 {
        let fields = w.nest(set_attribute::DESCRIPTION_CONCAT);
        for field in set.key() {
            let item = w.nest(list::ITEM);
            w.number(set_attribute::FIELD_LENGTH, field.len(family));
            w.close(item);
        }
        w.close(fields);
    }
    w.close(description);
}

pub(super) fn write_identity(w: &mut Writer, table: &str, name: &str, key_type: u32, identity: &SetIdentity) {
    w.string(set_attribute::TABLE, table);
    w.string(set_attribute::NAME, name);
    w.number(set_attribute::FLAGS, identity.flags);
    w.number(set_attribute::KEY_TYPE, key_type);
    w.number(set_attribute::KEY_LENGTH, identity.key_length);
    if let Some((kind, length)) = identity.data {
        w.number(set_attribute::DATA_TYPE, kind);
        w.number(set_attribute::DATA_LENGTH, length);
    }
    // An id is obligatory, but only sets without a name are looked up by it.
    w.number(set_attribute::ID, 0);
    w.attribute(set_attribute::USER_DATA, &[&identity.user_data]);
}

/// Writes the attributes that make the anonymous set of the protocols that Services know.
pub fn write_protocol_set(w: &mut Writer, table: &str, name: &str, id: u32) {
    w.string(set_attribute::TABLE, table);
    w.string(set_attribute::NAME, name);
    w.number(set_attribute::FLAGS, set_attribute::ANONYMOUS);
    w.number(set_attribute::KEY_TYPE, type_number(&[Field::L4Proto], Family::V4));
    w.number(set_attribute::KEY_LENGTH, 1);
    w.number(set_attribute::ID, id);
    let description = w.nest(set_attribute::DESCRIPTION);
    w.number(set_attribute::DESCRIPTION_SIZE, 3);
    w.close(description);
}

/// nft's number for a type; a concatenation shifts its parts by 6 bits each (`TYPE_BITS`).
pub(super) fn type_number(fields: &[Field], family: Family) -> u32 {
    fields.iter().fold(0, |sum, field| {
        let number = match (field, family) {
            (Field::Index, _) => 4,
            (Field::Source | Field::Destination, Family::V4) => 7,
            (Field::Source | Field::Destination, Family::V6) => 8,
            (Field::L4Proto, _) => 12,
            (Field::Port | Field::PortOf(_), _) => 13,
        };
        (sum << 6) | number
    })
}

/// The bytes of a key: each field starts at a multiple of four.
pub(super) fn length(fields: &[Field], family: Family) -> u32 {
    match fields {
        [field] => field.len(family),
        fields => fields.iter().map(|field| field.len(family).next_multiple_of(4)).sum(),
    }
}
