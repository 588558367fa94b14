//! Sets and elements as netlink attributes, in both directions. PURE.

mod client;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

use super::element::{Element, ElementData, ElementKey};
use super::names::{Data, Field, ServiceChain, Set, TABLE, TARGET_FIELDS};
use super::protocol::{element, list, set as set_attribute};
use super::sticky::{MEMORY_KEY, Memory, StickyChain};
use super::typeof_data::{put, set_user_data};
use crate::model::{Family, Port, Protocol};
use crate::netlink::{Attributes, Writer};
use crate::policy::exposure::{Frontend, FrontendAddress};

pub use client::{Client, read_client, read_map, write_client, write_counter, write_map};

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
pub fn write_set(w: &mut Writer, set: Set, size: Option<u32>, family: Family) {
    let identity = SetIdentity::of(set, family);
    write_identity(w, set.name(), type_number(set.key(), family), &identity);
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

fn write_identity(w: &mut Writer, name: &str, key_type: u32, identity: &SetIdentity) {
    w.string(set_attribute::TABLE, TABLE);
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
pub fn write_protocol_set(w: &mut Writer, name: &str, id: u32) {
    w.string(set_attribute::TABLE, TABLE);
    w.string(set_attribute::NAME, name);
    w.number(set_attribute::FLAGS, set_attribute::ANONYMOUS);
    w.number(set_attribute::KEY_TYPE, type_number(&[Field::L4Proto], Family::V4));
    w.number(set_attribute::KEY_LENGTH, 1);
    w.number(set_attribute::ID, id);
    let description = w.nest(set_attribute::DESCRIPTION);
    w.number(set_attribute::DESCRIPTION_SIZE, 3);
    w.close(description);
}

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

fn next_address(address: IpAddr, family: Family) -> Option<IpAddr> {
    match (address, family) {
        (IpAddr::V4(address), _) => Some(Ipv4Addr::from(u32::from(address).checked_add(1)?).into()),
        (IpAddr::V6(address), _) => Some(Ipv6Addr::from(u128::from(address).checked_add(1)?).into()),
    }
}

fn write_value(w: &mut Writer, kind: u16, value: &[u8]) {
    let outer = w.nest(kind);
    w.attribute(element::VALUE, &[value]);
    w.close(outer);
}

/// nft's number for a type; a concatenation shifts its parts by 6 bits each (`TYPE_BITS`).
fn type_number(fields: &[Field], family: Family) -> u32 {
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
fn length(fields: &[Field], family: Family) -> u32 {
    match fields {
        [field] => field.len(family),
        fields => fields.iter().map(|field| field.len(family).next_multiple_of(4)).sum(),
    }
}

/// Key or data bytes under construction; the longest key has 36.
struct Bytes {
    bytes: [u8; 40],
    length: usize,
}

impl Default for Bytes {
    fn default() -> Self {
        Self { bytes: [0; 40], length: 0 }
    }
}

impl Bytes {
    fn get(&self) -> &[u8] {
        &self.bytes[..self.length]
    }

    /// Appends one field and pads it.
    fn field(&mut self, value: &[u8]) {
        let end = self.length + value.len();
        self.bytes[self.length..end].copy_from_slice(value);
        self.length = end.next_multiple_of(4);
    }

    fn address(&mut self, address: &IpAddr) {
        match address {
            IpAddr::V4(address) => self.field(&address.octets()),
            IpAddr::V6(address) => self.field(&address.octets()),
        }
    }

    fn frontend_address(&mut self, frontend: &Frontend) {
        if let FrontendAddress::Ip(address) = frontend.address {
            self.address(&address);
        }
    }

    fn frontend(&mut self, frontend: &Frontend) {
        self.frontend_address(frontend);
        self.field(&[frontend.protocol.number()]);
        self.field(&frontend.port.number().to_be_bytes());
    }
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
    let key_bytes = item.nested(element::KEY).get(element::VALUE)?;
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

/// The range from `start` to `last`, if it is a CIDR.
#[must_use]
pub fn net_between(start: IpAddr, last: IpAddr) -> Option<IpNet> {
    let same_bits = match (start, last) {
        (IpAddr::V4(start), IpAddr::V4(last)) => (u32::from(start) ^ u32::from(last)).leading_zeros(),
        (IpAddr::V6(start), IpAddr::V6(last)) => (u128::from(start) ^ u128::from(last)).leading_zeros(),
        _ => return None,
    };
    let net = IpNet::new(start, u8::try_from(same_bits).ok()?).ok()?;
    (net.network() == start && net.broadcast() == last).then_some(net)
}

/// The address just before another one: the last one of a range from the first one behind it.
#[must_use]
pub fn previous_address(address: IpAddr) -> Option<IpAddr> {
    match address {
        IpAddr::V4(address) => Some(Ipv4Addr::from(u32::from(address).checked_sub(1)?).into()),
        IpAddr::V6(address) => Some(Ipv6Addr::from(u128::from(address).checked_sub(1)?).into()),
    }
}

/// Key or data bytes being taken apart.
struct Fields<'a> {
    bytes: &'a [u8],
    family: Family,
}

impl<'a> Fields<'a> {
    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let value = self.bytes.get(..length)?;
        self.bytes = self.bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some(value)
    }

    fn address(&mut self) -> Option<IpAddr> {
        Some(match self.family {
            Family::V4 => IpAddr::from(<[u8; 4]>::try_from(self.take(4)?).ok()?),
            Family::V6 => IpAddr::from(<[u8; 16]>::try_from(self.take(16)?).ok()?),
        })
    }

    fn port(&mut self) -> Option<Port> {
        Port::new(u16::from_be_bytes(self.take(2)?.try_into().ok()?))
    }

    fn protocol(&mut self) -> Option<Protocol> {
        Protocol::from_number(*self.take(1)?.first()?)
    }

    fn index(&mut self) -> Option<u16> {
        u16::try_from(u32::from_ne_bytes(self.take(4)?.try_into().ok()?)).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::super::names::Lists;
    use super::*;
    use crate::netlink::messages;

    fn round_trip(text: &str, one: &Element, family: Family) {
        let mut w = Writer::default();
        let message = w.message(0, 0, 0, 2, 0);
        write_element(&mut w, one, true, family);
        w.end_message(message);
        let message = messages(w.bytes()).next().unwrap();
        let mut items = message.attributes().map(|(_, item)| read_item(one.set, Attributes(item), family));
        match one.key {
            ElementKey::Range(net) => {
                assert_eq!(items.next(), Some(Some(Item::RangeStart(net.network()))), "{text}");
                let Some(Some(Item::RangeEnd(behind))) = items.next() else { panic!("{text}: no end") };
                assert_eq!(net_between(net.network(), previous_address(behind).unwrap()), Some(net));
            }
            _ => assert_eq!(items.next(), Some(Some(Item::Element(one.clone()))), "{text}"),
        }
        assert_eq!(items.next(), None, "{text}");
    }

    #[test]
    fn elements_survive_the_wire() {
        let chain = ServiceChain::parse("external-3").unwrap();
        let sticky = StickyChain::parse("cluster-sticky-3-shop/web/dns/udp").unwrap();
        let remembered = ElementData::Remember(sticky.memory.clone());
        let remember = |lists| Set::Remember(lists, Protocol::Udp);
        for (family, ip, net) in
            [(Family::V4, "10.96.0.1", "10.96.0.0/12"), (Family::V6, "fd00::1", "fd00::/112")]
        {
            let ip: IpAddr = ip.parse().unwrap();
            let net: IpNet = net.parse::<IpNet>().unwrap().trunc();
            let port = Port::new(443).unwrap();
            let at = |address| Frontend { address, protocol: Protocol::Udp, port };
            let service = at(FrontendAddress::Ip(ip));
            let nodeport = at(FrontendAddress::NodePort(family));
            let target = ElementData::Target(ip, port);
            for (set, key, data) in [
                (Set::ClusterIps, ElementKey::Address(ip), ElementData::None),
                (Set::Hairpin, ElementKey::Pair(ip), ElementData::None),
                (Set::ServiceCidrs, ElementKey::Range(net), ElementData::None),
                (Set::Restricted, ElementKey::Frontend(service), ElementData::None),
                (Set::AllowedSources(Protocol::Udp), ElementKey::Source(service, net), ElementData::None),
                (Set::Services, ElementKey::Frontend(service), ElementData::Chain(chain)),
                (Set::Nodeports, ElementKey::Frontend(nodeport), ElementData::Drop),
                (Set::NoEndpoints, ElementKey::Frontend(service), ElementData::Refuse),
                (Set::Services, ElementKey::Frontend(service), ElementData::Sticky(sticky.clone())),
                (remember(Lists::Services), ElementKey::Original(service), remembered.clone()),
                (remember(Lists::LocalNodeports), ElementKey::Original(nodeport), remembered.clone()),
                (Set::Endpoints, ElementKey::Slot(service, 7), target.clone()),
                (Set::NodeportEndpoints, ElementKey::Slot(nodeport, 65535 - 1), target),
            ] {
                let comment = (set.data() == Data::Verdict).then(|| "shop/web:http".into());
                round_trip(set.name(), &Element { set, key, data, comment }, family);
            }
        }
    }

    #[test]
    fn key_types_as_nft_numbers_them() {
        assert_eq!(type_number(Set::Services.key(), Family::V4), 0x730d);
        assert_eq!(type_number(Set::Endpoints.key(), Family::V6), 0x0020_c344);
        assert_eq!(type_number(Set::AllowedSources(Protocol::Tcp).key(), Family::V4), 0x7347);
        assert_eq!(length(Set::Endpoints.key(), Family::V6), 28);
        assert_eq!(length(Set::Hairpin.key(), Family::V4), 8);
    }
}
