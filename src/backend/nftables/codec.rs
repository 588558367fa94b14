//! Sets and elements as netlink attributes, in both directions. PURE.

mod client;
mod fields;
mod set;

use std::net::IpAddr;

use ipnet::IpNet;

use super::element::{Element, ElementData, ElementKey};
use super::names::{Data, Field, ServiceChain, Set};
use super::protocol::{element, list};
use super::sticky::{Memory, StickyChain};
use super::typeof_data::put;
use crate::model::{Family, Protocol};
use crate::netlink::{Attributes, Writer};
use crate::policy::exposure::{Frontend, FrontendAddress};

pub use set::{SetIdentity, read_size, write_protocol_set, write_set};

pub use client::{Client, read_client, read_map, write_client, write_counter, write_map};
use fields::{Bytes, Fields, next_address};
pub use fields::{net_between, previous_address};

/// Writes the elements of that set.
pub fn write_protocols(w: &mut Writer) {
    let items = w.nest(list::ELEMENTS);
    for protocol in [Protocol::Tcp, Protocol::Udp, Protocol::Sctp] {
        let item = w.nest(list::ITEM);
        write_value(w, element::KEY, &[protocol.number()]);
        w.close(item);
    }
    w.close(items);
}

/// Writes a list of one element, of which only the bytes of the key are known.
pub fn write_key(w: &mut Writer, key: &[u8]) {
    let items = w.nest(list::ELEMENTS);
    let item = w.nest(list::ITEM);
    write_value(w, element::KEY, key);
    w.close(item);
    w.close(items);
}

/// The bytes of the key of an element.
#[must_use]
pub fn key_bytes(item: Attributes<'_>) -> Option<&[u8]> {
    item.nested(element::KEY).get(element::VALUE)
}

/// The user data that holds a comment: type, length, text with a NUL. The types of comments of tables
/// and elements are both 0.
#[must_use]
pub fn comment_user_data(comment: &str) -> Vec<u8> {
    let mut data = Vec::with_capacity(comment.len() + 3);
    put(&mut data, 0, &[comment.as_bytes(), &[0]].concat());
    data
}

/// The comment in user data.
#[must_use]
pub fn read_comment(user_data: &[u8]) -> Option<&str> {
    let (kind, length) = (user_data.first()?, usize::from(*user_data.get(1)?));
    let text = user_data.get(2..2 + length).filter(|_| *kind == 0)?;
    std::str::from_utf8(text.strip_suffix(&[0]).unwrap_or(text)).ok()
}

/// Appends the list items of one element: two for a plain range, its start and the first address
/// behind it.
pub fn write_element(w: &mut Writer, one: &Element, with_data: bool, family: Family) {
    let mut key = Bytes::default();
    let mut key_end = Bytes::default();
    match one.key {
        ElementKey::Address(address) => key.address(&address),
        ElementKey::Pair(address) => {
            key.address(&address);
            key.address(&address);
        }
        ElementKey::Range(net) => key.address(&net.network()),
        ElementKey::Frontend(frontend) => key.frontend(&frontend),
        ElementKey::Original(frontend) => {
            key.frontend_address(&frontend);
            let alone = key.get().is_empty();
            key.field(&frontend.port.number().to_be_bytes());
            // A key of one field is not padded.
            key.length = if alone { 2 } else { key.length };
        }
        ElementKey::Slot(frontend, index) => {
            key.frontend(&frontend);
            key.field(&u32::from(index).to_ne_bytes());
        }
        ElementKey::Source(frontend, net) => {
            for (bytes, address) in [(&mut key, net.network()), (&mut key_end, net.broadcast())] {
                bytes.frontend_address(&frontend);
                bytes.field(&frontend.port.number().to_be_bytes());
                bytes.address(&address);
            }
        }
    }
    let item = w.nest(list::ITEM);
    write_value(w, element::KEY, key.get());
    if !key_end.get().is_empty() {
        write_value(w, element::KEY_END, key_end.get());
    }
    if with_data {
        write_data(w, one);
    }
    w.close(item);
    if let ElementKey::Range(net) = one.key {
        write_range_end(w, &net, family);
    }
}

fn write_data(w: &mut Writer, one: &Element) {
    match &one.data {
        ElementData::None => {}
        ElementData::Chain(chain) => write_verdict(w, element::GOTO, Some(&chain.to_string())),
        ElementData::Sticky(chain) => write_verdict(w, element::GOTO, Some(&chain.to_string())),
        ElementData::Remember(memory) => write_verdict(w, element::GOTO, Some(&memory.remember())),
        ElementData::Refuse => write_verdict(w, element::GOTO, Some(REFUSE)),
        ElementData::Drop => write_verdict(w, element::DROP, None),
        ElementData::Target(address, port) => {
            let mut data = Bytes::default();
            data.address(address);
            data.field(&port.number().to_be_bytes());
            write_value(w, element::DATA, data.get());
        }
    }
    if let Some(comment) = &one.comment {
        w.attribute(element::USER_DATA, &[&comment_user_data(comment)]);
    }
}

/// The chain that rejects.
const REFUSE: &str = "refuse";

fn write_verdict(w: &mut Writer, code: i32, chain: Option<&str>) {
    let data = w.nest(element::DATA);
    let verdict = w.nest(element::VERDICT);
    w.attribute(element::VERDICT_CODE, &[&code.to_be_bytes()]);
    if let Some(chain) = chain {
        w.string(element::VERDICT_CHAIN, chain);
    }
    w.close(verdict);
    w.close(data);
}

fn write_range_end(w: &mut Writer, net: &IpNet, family: Family) {
    let Some(behind) = next_address(net.broadcast(), family) else { return };
    let item = w.nest(list::ITEM);
    let mut key = Bytes::default();
    key.address(&behind);
    write_value(w, element::KEY, key.get());
    w.number(element::FLAGS, element::INTERVAL_END);
    w.close(item);
}

fn write_value(w: &mut Writer, kind: u16, value: &[u8]) {
    let outer = w.nest(kind);
    w.attribute(element::VALUE, &[value]);
    w.close(outer);
}

/// What a list item says: an element, or one end of a plain range.
#[derive(Debug, PartialEq, Eq)]
pub enum Item {
    /// An element.
    Element(Element),
    /// The first address of a range.
    RangeStart(IpAddr),
    /// The first address behind a range.
    RangeEnd(IpAddr),
}

/// Reads one list item of a dump of `set`; `None` if it is nothing that shunt writes.
#[must_use]
pub fn read_item(set: Set, item: Attributes<'_>, family: Family) -> Option<Item> {
    let key_bytes = key_bytes(item)?;
    let mut key = Fields { bytes: key_bytes, family };
    let ends = item.number(element::FLAGS).unwrap_or(0) & element::INTERVAL_END != 0;
    let key = match (set.key(), set.is_interval()) {
        ([Field::Destination], true) if ends => return Some(Item::RangeEnd(key.address()?)),
        ([Field::Destination], true) => return Some(Item::RangeStart(key.address()?)),
        ([Field::Destination], false) => ElementKey::Address(key.address()?),
        ([Field::Source, Field::Destination], _) => {
            let (first, second) = (key.address()?, key.address()?);
            (first == second).then_some(ElementKey::Pair(first))?
        }
        (_, true) => {
            let Set::AllowedSources(protocol) = set else { return None };
            let (address, port, start) = (key.address()?, key.port()?, key.address()?);
            let end_bytes = item.nested(element::KEY_END).get(element::VALUE).unwrap_or(key_bytes);
            let mut end = Fields { bytes: end_bytes, family };
            let (_, _, last) = (end.address()?, end.port()?, end.address()?);
            let frontend = Frontend { address: FrontendAddress::Ip(address), protocol, port };
            ElementKey::Source(frontend, net_between(start, last)?)
        }
        ([.., Field::PortOf(protocol)], false) => {
            let protocol = *protocol;
            let address = match set.key() {
                [Field::Destination, _] => FrontendAddress::Ip(key.address()?),
                _ => FrontendAddress::NodePort(family),
            };
            ElementKey::Original(Frontend { address, protocol, port: key.port()? })
        }
        (fields, false) => {
            let address = match fields.first() {
                Some(Field::Destination) => FrontendAddress::Ip(key.address()?),
                _ => FrontendAddress::NodePort(family),
            };
            let frontend = Frontend { address, protocol: key.protocol()?, port: key.port()? };
            match fields.last() {
                Some(Field::Index) => ElementKey::Slot(frontend, key.index()?),
                _ => ElementKey::Frontend(frontend),
            }
        }
    };
    let comment = item.get(element::USER_DATA).and_then(read_comment).map(Into::into);
    Some(Item::Element(Element {
        set,
        key,
        data: read_data(set, item.nested(element::DATA), family)?,
        comment,
    }))
}

fn read_data(set: Set, data: Attributes<'_>, family: Family) -> Option<ElementData> {
    match set.data() {
        Data::None => Some(ElementData::None),
        Data::Target => {
            let mut fields = Fields { bytes: data.get(element::VALUE)?, family };
            Some(ElementData::Target(fields.address()?, fields.port()?))
        }
        Data::Verdict => {
            let verdict = data.nested(element::VERDICT);
            let code = i32::from_be_bytes(verdict.get(element::VERDICT_CODE)?.try_into().ok()?);
            match (code, verdict.string(element::VERDICT_CHAIN)) {
                (element::DROP, _) => Some(ElementData::Drop),
                (element::GOTO, Some(REFUSE)) => Some(ElementData::Refuse),
                (element::GOTO, Some(chain)) => read_chain(chain),
                _ => None,
            }
        }
    }
}

/// What the chain of this name is to an element that leads there.
fn read_chain(name: &str) -> Option<ElementData> {
    let chain = ServiceChain::parse(name).map(ElementData::Chain);
    let sticky = || StickyChain::parse(name).map(ElementData::Sticky);
    chain.or_else(sticky).or_else(|| Memory::of_remember_chain(name).map(ElementData::Remember))
}

#[cfg(test)]
mod tests;
