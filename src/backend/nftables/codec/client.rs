//! Affinity maps, their clients, and the counter of those who find no room.

use std::net::IpAddr;

use super::super::names::NOT_REMEMBERED;
use super::super::protocol::{element, list, object, set as set_attribute};
use super::super::sticky::{MEMORY_KEY, MapState, Memory};
use super::set::{type_number, write_identity};
use super::{Bytes, Fields, SetIdentity, read_size, write_value};
use crate::model::{Family, Port};
use crate::netlink::{Attributes, Writer};

/// Writes the attributes that make the map of a memory or change it.
pub fn write_map(w: &mut Writer, table: &str, memory: &Memory, state: MapState, family: Family) {
    let key_type = type_number(MEMORY_KEY, family);
    write_identity(w, table, &memory.map(), key_type, &SetIdentity::of_map(family));
    w.long_number(set_attribute::TIMEOUT, u64::from(state.seconds) * 1000);
    let description = w.nest(set_attribute::DESCRIPTION);
    if state.size > 0 {
        w.number(set_attribute::DESCRIPTION_SIZE, state.size);
    }
    w.close(description);
}

/// The map in a message about a set.
#[must_use]
pub fn read_map(attributes: Attributes<'_>) -> Option<MapState> {
    let seconds = attributes.long_number(set_attribute::TIMEOUT)?.div_ceil(1000);
    Some(MapState {
        seconds: u32::try_from(seconds).ok()?,
        size: read_size(attributes).unwrap_or(0),
        empty: attributes.number(set_attribute::COUNT) == Some(0),
    })
}

/// A client that is remembered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Client {
    /// Its address.
    pub address: IpAddr,
    /// The endpoint that it keeps.
    pub endpoint: (IpAddr, Port),
    /// Milliseconds until it is forgotten.
    pub left: u64,
    /// Milliseconds from its last new connection to that, where that is not what the map says.
    pub lasts: Option<u64>,
}

/// Reads one list item of a dump of an affinity map.
#[must_use]
pub fn read_client(item: Attributes<'_>, family: Family) -> Option<Client> {
    let mut key = Fields { bytes: item.nested(element::KEY).get(element::VALUE)?, family };
    let mut data = Fields { bytes: item.nested(element::DATA).get(element::VALUE)?, family };
    Some(Client {
        address: key.address()?,
        endpoint: (data.address()?, data.port()?),
        left: item.long_number(element::EXPIRATION).unwrap_or(u64::MAX),
        lasts: item.long_number(element::TIMEOUT),
    })
}

/// Appends the list item of a client: all of it, or what is needed to delete it.
pub fn write_client(w: &mut Writer, client: &Client, all: bool) {
    let mut key = Bytes::default();
    key.address(&client.address);
    let item = w.nest(list::ITEM);
    write_value(w, element::KEY, key.get());
    if all {
        let mut data = Bytes::default();
        data.address(&client.endpoint.0);
        data.field(&client.endpoint.1.number().to_be_bytes());
        write_value(w, element::DATA, data.get());
        w.long_number(element::EXPIRATION, client.left);
    }
    w.close(item);
}

/// Writes the attributes that make the counter of connections whose client is not remembered.
pub fn write_counter(w: &mut Writer, table: &str) {
    w.string(object::TABLE, table);
    w.string(object::NAME, NOT_REMEMBERED);
    w.number(object::TYPE, object::COUNTER);
    let data = w.nest(object::DATA);
    w.close(data);
}
