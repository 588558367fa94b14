//! Reads the elements of a table whose structure is in order. EDGE.

use std::collections::BTreeMap;
use std::io;
use std::net::IpAddr;

use super::super::codec::{Item, key_bytes, net_between, previous_address, read_item};
use super::super::connection::Connection;
use super::super::element::{Element, ElementData, ElementKey};
use super::super::names::{Set, TABLE};
use super::super::protocol::{list, message};
use super::Table;
use crate::model::Family;
use crate::netlink::{Attributes, family_number};

/// All elements of a table whose structure is known; says why where one cannot be put right.
pub(super) fn read_all(
    connection: &mut Connection,
    family: Family,
    table: &mut Table,
) -> io::Result<Result<(), String>> {
    for set in Set::ALL {
        if !read_elements(connection, set, family, table)? {
            return Ok(Err(format!("set {} holds elements that shunt does not write", set.name())));
        }
    }
    table.sticky.take(&table.elements);
    Ok(Ok(()))
}

/// Reads the elements of a set; false if there is one that shunt does not write and cannot delete.
fn read_elements(
    connection: &mut Connection,
    set: Set,
    family: Family,
    table: &mut Table,
) -> io::Result<bool> {
    let mut all_known = true;
    let mut edges: BTreeMap<IpAddr, bool> = BTreeMap::new();
    let Table { elements, repairs, .. } = table;
    connection.dump(
        message::GET_ELEMENT,
        family_number(family),
        |w| {
            w.string(list::TABLE, TABLE);
            w.string(list::SET, set.name());
        },
        |message| {
            for (_, item) in message.attributes().nested(list::ELEMENTS) {
                match (read_item(set, Attributes(item), family), key_bytes(Attributes(item))) {
                    (Some(Item::Element(element)), _) => elements.push(element),
                    (Some(Item::RangeStart(address)), _) => _ = edges.insert(address, true),
                    (Some(Item::RangeEnd(address)), _) => _ = edges.entry(address).or_insert(false),
                    (None, Some(key)) if !set.is_interval() => {
                        repairs.foreign_elements.push((set, key.to_vec()));
                    }
                    (None, _) => all_known = false,
                }
            }
        },
    )?;
    Ok(all_known && ranges(set, &edges, family, elements))
}

/// Puts the edges of plain ranges together; false if one is no CIDR.
fn ranges(set: Set, edges: &BTreeMap<IpAddr, bool>, family: Family, elements: &mut Vec<Element>) -> bool {
    let last = match family {
        Family::V4 => IpAddr::from([255; 4]),
        Family::V6 => IpAddr::from([255; 16]),
    };
    let mut all_cidrs = true;
    for (start, _) in edges.iter().filter(|(_, starts)| **starts) {
        let after = (std::ops::Bound::Excluded(*start), std::ops::Bound::Unbounded);
        let behind = edges.range(after).next().and_then(|(address, _)| previous_address(*address));
        match net_between(*start, behind.unwrap_or(last)) {
            Some(net) => {
                let key = ElementKey::Range(net);
                elements.push(Element { set, key, data: ElementData::None, comment: None });
            }
            None => all_cidrs = false,
        }
    }
    all_cidrs
}
