use super::super::names::Lists;
use super::set::{length, type_number};
use super::*;
use crate::model::Port;
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
