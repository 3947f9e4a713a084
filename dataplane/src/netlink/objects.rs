//! The kernel's objects that the data plane makes, as netlink messages.
//!
//! Routes are encoded by hand because there are a million of them; next-hop objects and VNI filters because no crate
//! has them. Rules, neighbours and links go through `netlink-packet-route`.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use netlink_packet_core::Emitable;
use netlink_packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourMessage, NeighbourState,
};
use netlink_packet_route::route::{RouteProtocol, RouteType};
use netlink_packet_route::rule::{RuleAction, RuleAttribute, RuleMessage};
use netlink_packet_route::{AddressFamily, rule::RuleHeader};

use super::octets::{as_u32, attribute, attribute_u32, attributes, nested};
use crate::model::{Family, NextHop, NextHopKind, RouteKey, RouteSpec, Rule, RuleMatch};

pub(crate) const RTM_NEWROUTE: u16 = libc::RTM_NEWROUTE;
pub(crate) const RTM_DELROUTE: u16 = libc::RTM_DELROUTE;
pub(crate) const RTM_NEWNEXTHOP: u16 = 104;
pub(crate) const RTM_DELNEXTHOP: u16 = 105;
pub(crate) const RTM_GETNEXTHOP: u16 = 106;
pub(crate) const RTM_NEWTUNNEL: u16 = 120;
pub(crate) const RTM_DELTUNNEL: u16 = 121;
pub(crate) const RTM_GETTUNNEL: u16 = 122;

/// Replace where it is there, make where it is not.
pub(crate) const SET: u16 = (libc::NLM_F_CREATE | libc::NLM_F_REPLACE) as u16;
/// Make; refused where it is there already.
pub(crate) const NEW: u16 = (libc::NLM_F_CREATE | libc::NLM_F_EXCL) as u16;

const NHA_ID: u16 = 1;
const NHA_GROUP: u16 = 2;
const NHA_OIF: u16 = 5;
const NHA_GATEWAY: u16 = 6;
const NHA_ENCAP_TYPE: u16 = 7;
const NHA_ENCAP: u16 = 8;
const LWTUNNEL_ENCAP_IP: u16 = 2;
const LWTUNNEL_IP_ID: u16 = 1;
const LWTUNNEL_IP_DST: u16 = 2;
const LWTUNNEL_IP_SRC: u16 = 3;
const LWTUNNEL_IP_TTL: u16 = 4;
const LWTUNNEL_IP_FLAGS: u16 = 6;
/// TUNNEL_DONT_FRAGMENT, in network byte order on the wire.
const DONT_FRAGMENT: u16 = 0x0100;
const RTNH_F_ONLINK: u32 = 4;
const RTA_NH_ID: u16 = 30;

fn address(out: &mut Vec<u8>, kind: u16, address: IpAddr) {
    match address {
        IpAddr::V4(address) => attribute(out, kind, &address.octets()),
        IpAddr::V6(address) => attribute(out, kind, &address.octets()),
    }
}

fn as_address(value: &[u8]) -> Option<IpAddr> {
    match value.len() {
        4 => Some(Ipv4Addr::from(<[u8; 4]>::try_from(value).ok()?).into()),
        16 => Some(Ipv6Addr::from(<[u8; 16]>::try_from(value).ok()?).into()),
        _ => None,
    }
}

/// Writes a route: `struct rtmsg` and its attributes.
pub(crate) fn put_route(out: &mut Vec<u8>, key: &RouteKey, spec: &RouteSpec, protocol: u8) {
    let family = Family::of(key.prefix);
    let (scope, kind) = match spec {
        RouteSpec::Connected { .. } if family == Family::V4 => {
            (libc::RT_SCOPE_LINK, libc::RTN_UNICAST)
        }
        RouteSpec::Unreachable => (libc::RT_SCOPE_UNIVERSE, libc::RTN_UNREACHABLE),
        _ => (libc::RT_SCOPE_UNIVERSE, libc::RTN_UNICAST),
    };
    let table = if key.table < 256 {
        key.table as u8
    } else {
        libc::RT_TABLE_UNSPEC
    };
    out.extend_from_slice(&[
        family.number(),
        key.prefix.prefix_len(),
        0,
        0,
        table,
        protocol,
        scope,
        kind,
    ]);
    out.extend_from_slice(&[0; 4]);
    attribute_u32(out, libc::RTA_TABLE, key.table);
    if key.prefix.prefix_len() > 0 {
        address(out, libc::RTA_DST, key.prefix.addr());
    }
    if key.metric > 0 {
        attribute_u32(out, libc::RTA_PRIORITY, key.metric);
    }
    match spec {
        RouteSpec::NextHop(id) => attribute_u32(out, RTA_NH_ID, *id),
        RouteSpec::Connected { interface, source } => {
            attribute_u32(out, libc::RTA_OIF, *interface);
            address(out, libc::RTA_PREFSRC, *source);
        }
        RouteSpec::Via { gateway, interface } => {
            address(out, libc::RTA_GATEWAY, *gateway);
            if let Some(interface) = interface {
                attribute_u32(out, libc::RTA_OIF, *interface);
            }
        }
        RouteSpec::Unreachable => {}
    }
}

/// Writes what names a route for its removal.
pub(crate) fn put_route_key(out: &mut Vec<u8>, key: &RouteKey, protocol: u8) {
    let table = if key.table < 256 {
        key.table as u8
    } else {
        libc::RT_TABLE_UNSPEC
    };
    let family = Family::of(key.prefix).number();
    // RT_SCOPE_NOWHERE matches any scope.
    out.extend_from_slice(&[
        family,
        key.prefix.prefix_len(),
        0,
        0,
        table,
        protocol,
        libc::RT_SCOPE_NOWHERE,
        0,
    ]);
    out.extend_from_slice(&[0; 4]);
    attribute_u32(out, libc::RTA_TABLE, key.table);
    if key.prefix.prefix_len() > 0 {
        address(out, libc::RTA_DST, key.prefix.addr());
    }
    if key.metric > 0 {
        attribute_u32(out, libc::RTA_PRIORITY, key.metric);
    }
}

/// Reads a route of ours from a dump.
pub(crate) fn get_route(payload: &[u8], protocol: u8) -> Option<(RouteKey, RouteSpec)> {
    let header = payload.get(..12)?;
    if header[5] != protocol {
        return None;
    }
    let mut table = u32::from(header[4]);
    let (mut destination, mut metric, mut next_hop) = (None, 0, None);
    let (mut interface, mut source, mut gateway) = (None, None, None);
    for (kind, value) in attributes(&payload[12..]) {
        match kind {
            libc::RTA_TABLE => table = as_u32(value)?,
            libc::RTA_DST => destination = as_address(value),
            libc::RTA_PRIORITY => metric = as_u32(value)?,
            libc::RTA_OIF => interface = as_u32(value),
            libc::RTA_PREFSRC => source = as_address(value),
            libc::RTA_GATEWAY => gateway = as_address(value),
            RTA_NH_ID => next_hop = as_u32(value),
            _ => {}
        }
    }
    let any = if header[0] == Family::V4.number() {
        IpAddr::from(Ipv4Addr::UNSPECIFIED)
    } else {
        IpAddr::from(Ipv6Addr::UNSPECIFIED)
    };
    let prefix = IpNet::new(destination.unwrap_or(any), header[1]).ok()?;
    let spec = match (header[7], next_hop, gateway, interface) {
        (libc::RTN_UNREACHABLE, ..) => RouteSpec::Unreachable,
        (_, Some(id), ..) => RouteSpec::NextHop(id),
        (_, _, Some(gateway), _) => RouteSpec::Via {
            gateway,
            interface: None,
        },
        (_, _, None, Some(interface)) => RouteSpec::Connected {
            interface,
            source: source.unwrap_or(any),
        },
        _ => return None,
    };
    Some((
        RouteKey {
            table,
            prefix,
            metric,
        },
        spec,
    ))
}

/// Writes a next-hop object: `struct nhmsg` and its attributes.
pub(crate) fn put_next_hop(out: &mut Vec<u8>, id: u32, next_hop: &NextHop, protocol: u8) {
    let (family, flags) = match &next_hop.kind {
        NextHopKind::Tunnel { .. } => (next_hop.family.number(), RTNH_F_ONLINK),
        NextHopKind::Group(_) => (0, 0),
    };
    out.extend_from_slice(&[family, 0, protocol, 0]);
    out.extend_from_slice(&flags.to_ne_bytes());
    attribute_u32(out, NHA_ID, id);
    match &next_hop.kind {
        NextHopKind::Tunnel {
            vni,
            source,
            destination,
            interface,
        } => {
            attribute_u32(out, NHA_OIF, *interface);
            address(
                out,
                NHA_GATEWAY,
                crate::model::gateway(*destination, next_hop.family),
            );
            attribute(out, NHA_ENCAP_TYPE, &LWTUNNEL_ENCAP_IP.to_ne_bytes());
            nested(out, NHA_ENCAP, |out| {
                attribute(out, LWTUNNEL_IP_ID, &u64::from(*vni).to_be_bytes());
                attribute(out, LWTUNNEL_IP_DST, &destination.octets());
                attribute(out, LWTUNNEL_IP_SRC, &source.octets());
                attribute(out, LWTUNNEL_IP_TTL, &[64]);
                attribute(out, LWTUNNEL_IP_FLAGS, &DONT_FRAGMENT.to_be_bytes());
            });
        }
        NextHopKind::Group(members) => {
            // struct nexthop_grp: id, weight minus one, weight's high octet, reserved.
            let mut value = Vec::with_capacity(members.len() * 8);
            for member in members {
                value.extend_from_slice(&member.to_ne_bytes());
                value.extend_from_slice(&[0; 4]);
            }
            attribute(out, NHA_GROUP, &value);
        }
    }
}

/// Writes what names a next-hop object for its removal.
pub(crate) fn put_next_hop_id(out: &mut Vec<u8>, id: u32) {
    out.extend_from_slice(&[0; 8]);
    attribute_u32(out, NHA_ID, id);
}

/// Reads a next-hop object of ours from a dump.
pub(crate) fn get_next_hop(payload: &[u8], protocol: u8) -> Option<(u32, NextHop)> {
    let header = payload.get(..8)?;
    if header[2] != protocol {
        return None;
    }
    let family = if header[0] == Family::V6.number() {
        Family::V6
    } else {
        Family::V4
    };
    let (mut id, mut interface, mut group) = (None, 0, None);
    let (mut vni, mut source, mut destination) = (0, Ipv4Addr::UNSPECIFIED, Ipv4Addr::UNSPECIFIED);
    for (kind, value) in attributes(&payload[8..]) {
        match kind {
            NHA_ID => id = as_u32(value),
            NHA_OIF => interface = as_u32(value)?,
            NHA_GROUP => {
                group = Some(
                    value
                        .as_chunks::<8>()
                        .0
                        .iter()
                        .map(|m| u32::from_ne_bytes([m[0], m[1], m[2], m[3]]))
                        .collect(),
                )
            }
            NHA_ENCAP => {
                for (kind, value) in attributes(value) {
                    match kind {
                        LWTUNNEL_IP_ID => vni = u64::from_be_bytes(value.try_into().ok()?) as u32,
                        LWTUNNEL_IP_DST => destination = <[u8; 4]>::try_from(value).ok()?.into(),
                        LWTUNNEL_IP_SRC => source = <[u8; 4]>::try_from(value).ok()?.into(),
                        _ => {}
                    }
                }
            }
            _ => {}
        }
    }
    let kind = match group {
        Some(members) => NextHopKind::Group(members),
        None => NextHopKind::Tunnel {
            vni,
            source,
            destination,
            interface,
        },
    };
    let family = if matches!(kind, NextHopKind::Group(_)) {
        Family::V4
    } else {
        family
    };
    Some((id?, NextHop { family, kind }))
}

/// Writes one entry of a device's VNI filter: `struct tunnel_msg` and its attributes.
pub(crate) fn put_vni(out: &mut Vec<u8>, interface: u32, vni: u32) {
    put_vni_query(out, interface);
    nested(out, 1, |out| attribute_u32(out, 1, vni));
}

/// Writes `struct tunnel_msg` alone, for a dump.
pub(crate) fn put_vni_query(out: &mut Vec<u8>, interface: u32) {
    out.extend_from_slice(&[libc::PF_BRIDGE as u8, 0, 0, 0]);
    out.extend_from_slice(&interface.to_ne_bytes());
}

/// Reads the VNIs of a dumped message: the kernel sums neighbouring ones up as ranges.
pub(crate) fn get_vnis(payload: &[u8]) -> Vec<u32> {
    let mut vnis = Vec::new();
    for (_, entry) in
        attributes(payload.get(8..).unwrap_or_default()).filter(|(kind, _)| *kind == 1)
    {
        let field = |wanted| {
            attributes(entry)
                .find(|(kind, _)| *kind == wanted)
                .and_then(|(_, value)| as_u32(value))
        };
        if let Some(start) = field(1) {
            vnis.extend(start..=field(2).unwrap_or(start));
        }
    }
    vnis
}

fn emit(out: &mut Vec<u8>, message: &impl Emitable) {
    let start = out.len();
    out.resize(start + message.buffer_len(), 0);
    message.emit(&mut out[start..]);
}

/// Writes a rule.
pub(crate) fn put_rule(out: &mut Vec<u8>, rule: &Rule, protocol: u8) {
    let mut message = RuleMessage::default();
    message.header = RuleHeader {
        family: rule.family.address_family(),
        table: 0,
        action: match rule.table {
            Some(_) => RuleAction::ToTable,
            None => RuleAction::Blackhole,
        },
        ..RuleHeader::default()
    };
    message
        .attributes
        .push(RuleAttribute::Priority(rule.priority));
    message
        .attributes
        .push(RuleAttribute::Protocol(RouteProtocol::from(protocol)));
    if let Some(table) = rule.table {
        message.attributes.push(RuleAttribute::Table(table));
    }
    message.attributes.push(match &rule.of {
        RuleMatch::Tunnel(vni) => RuleAttribute::TunId(u64::from(*vni)),
        RuleMatch::Interface(name) => RuleAttribute::Iifname(name.clone()),
        RuleMatch::Mark(mark) => RuleAttribute::FwMark(*mark),
    });
    emit(out, &message);
}

/// Reads a rule of ours.
pub(crate) fn get_rule(message: &RuleMessage, protocol: u8) -> Option<Rule> {
    let family = match message.header.family {
        AddressFamily::Inet => Family::V4,
        AddressFamily::Inet6 => Family::V6,
        _ => return None,
    };
    let (mut ours, mut priority, mut table, mut of) = (false, 0, None, None);
    for attribute in &message.attributes {
        match attribute {
            RuleAttribute::Protocol(found) => ours = u8::from(*found) == protocol,
            RuleAttribute::Priority(found) => priority = *found,
            RuleAttribute::Table(found) => table = Some(*found),
            RuleAttribute::TunId(vni) => of = Some(RuleMatch::Tunnel(*vni as u32)),
            RuleAttribute::Iifname(name) => of = Some(RuleMatch::Interface(name.clone())),
            RuleAttribute::FwMark(mark) => of = Some(RuleMatch::Mark(*mark)),
            _ => {}
        }
    }
    let table = table.filter(|_| message.header.action == RuleAction::ToTable);
    ours.then_some(Rule {
        family,
        priority,
        of: of?,
        table,
    })
}

/// Writes a permanent neighbour entry.
pub(crate) fn put_neighbour(out: &mut Vec<u8>, interface: u32, gateway: IpAddr, mac: [u8; 6]) {
    let mut message = NeighbourMessage::default();
    let (family, address) = match gateway {
        IpAddr::V4(address) => (AddressFamily::Inet, NeighbourAddress::Inet(address)),
        IpAddr::V6(address) => (AddressFamily::Inet6, NeighbourAddress::Inet6(address)),
    };
    message.header.family = family;
    message.header.ifindex = interface;
    message.header.state = NeighbourState::Permanent;
    message.header.kind = RouteType::Unspec;
    message
        .attributes
        .push(NeighbourAttribute::Destination(address));
    message
        .attributes
        .push(NeighbourAttribute::LinkLayerAddress(mac.to_vec()));
    emit(out, &message);
}

/// Writes the alias of a device, by its name. It is no part of the device's making: the kernel would not look at it.
pub(crate) fn put_link_alias(out: &mut Vec<u8>, name: &str, alias: &str) {
    out.extend_from_slice(&[0; 16]);
    put_link_name(out, name);
    attribute(out, libc::IFLA_IFALIAS, alias.as_bytes());
}

fn put_link_name(out: &mut Vec<u8>, name: &str) {
    let mut zero_ended = name.as_bytes().to_vec();
    zero_ended.push(0);
    attribute(out, libc::IFLA_IFNAME, &zero_ended);
}

/// Writes the VXLAN device: one for all VNIs, which the packet's metadata names; only VNIs in its filter pass.
pub(crate) fn put_vxlan(out: &mut Vec<u8>, name: &str, local: Ipv4Addr, mac: [u8; 6], mtu: u32) {
    // struct ifinfomsg: AF_UNSPEC, up.
    out.extend_from_slice(&[0; 8]);
    let up = libc::IFF_UP as u32;
    out.extend_from_slice(&up.to_ne_bytes());
    out.extend_from_slice(&up.to_ne_bytes());
    put_link_name(out, name);
    attribute(out, libc::IFLA_ADDRESS, &mac);
    attribute_u32(out, libc::IFLA_MTU, mtu);
    nested(out, libc::IFLA_LINKINFO, |out| {
        attribute(out, libc::IFLA_INFO_KIND, b"vxlan");
        nested(out, libc::IFLA_INFO_DATA, |out| {
            const IFLA_VXLAN_LOCAL: u16 = 4;
            const IFLA_VXLAN_LEARNING: u16 = 7;
            const IFLA_VXLAN_PORT: u16 = 15;
            const IFLA_VXLAN_COLLECT_METADATA: u16 = 25;
            const IFLA_VXLAN_VNIFILTER: u16 = 30;
            attribute(out, IFLA_VXLAN_LOCAL, &local.octets());
            attribute(out, IFLA_VXLAN_LEARNING, &[0]);
            attribute(out, IFLA_VXLAN_PORT, &4789u16.to_be_bytes());
            attribute(out, IFLA_VXLAN_COLLECT_METADATA, &[1]);
            attribute(out, IFLA_VXLAN_VNIFILTER, &[1]);
        });
    });
}

/// Writes a change of a device's MTU, and sets it up.
pub(crate) fn put_link_mtu(out: &mut Vec<u8>, interface: u32, mtu: u32) {
    out.extend_from_slice(&[0; 4]);
    out.extend_from_slice(&interface.to_ne_bytes());
    let up = libc::IFF_UP as u32;
    out.extend_from_slice(&up.to_ne_bytes());
    out.extend_from_slice(&up.to_ne_bytes());
    attribute_u32(out, libc::IFLA_MTU, mtu);
}

/// Writes what names a device.
pub(crate) fn put_link(out: &mut Vec<u8>, interface: u32) {
    out.extend_from_slice(&[0; 4]);
    out.extend_from_slice(&interface.to_ne_bytes());
    out.extend_from_slice(&[0; 8]);
}

/// Writes a question for the route to an address.
pub(crate) fn route_query(destination: IpAddr, matched_entry: bool) -> Vec<u8> {
    const RTM_F_LOOKUP_TABLE: u32 = 0x1000;
    const RTM_F_FIB_MATCH: u32 = 0x2000;
    let (family, len) = if destination.is_ipv4() {
        (Family::V4, 32)
    } else {
        (Family::V6, 128)
    };
    let flags = RTM_F_LOOKUP_TABLE | if matched_entry { RTM_F_FIB_MATCH } else { 0 };
    let mut out = vec![family.number(), len, 0, 0, 0, 0, 0, 0];
    out.extend_from_slice(&flags.to_ne_bytes());
    address(&mut out, libc::RTA_DST, destination);
    out
}

/// Reads anybody's route out of one link: where it stands, its gateway, the link.
pub(crate) fn get_foreign_route(payload: &[u8]) -> Option<(RouteKey, Option<IpAddr>, u32)> {
    let protocol = *payload.get(5)?;
    let interface = attributes(payload.get(12..)?)
        .find(|(kind, _)| *kind == libc::RTA_OIF)
        .and_then(|(_, v)| as_u32(v))?;
    let (key, spec) = get_route(payload, protocol)?;
    let gateway = match spec {
        RouteSpec::Via { gateway, .. } => Some(gateway),
        _ => None,
    };
    Some((key, gateway, interface))
}
