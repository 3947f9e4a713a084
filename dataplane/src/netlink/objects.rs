//! The kernel's objects that the data plane makes, as netlink messages.
//!
//! Routes are encoded by hand because there are a million of them; next-hop objects and VNI filters because no crate
//! has them. Rules, neighbours and links go through `netlink-packet-route`.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::num::NonZeroU16;

use ipnet::IpNet;
use netlink_packet_core::Emitable;
use netlink_packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourMessage, NeighbourState,
};
use netlink_packet_route::route::{RouteProtocol, RouteType};
use netlink_packet_route::rule::{RuleAction as Action, RuleAttribute, RuleFlags, RuleMessage};
use netlink_packet_route::{AddressFamily, rule::RuleHeader};

use crate::snapshot::ForeignRoute;
use crate::upkeep::{ForeignAction, ForeignRule};

use super::octets::{as_u32, attribute, attribute_u32, attributes, nested};
use crate::model::{
    Family, NextHop, RouteKey, RouteSpec, Rule, RuleAction, RuleMatch, Tunnel, Way,
};
use crate::ways::WaySets;

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
const NHA_GROUP_TYPE: u16 = 3;
const NHA_OIF: u16 = 5;
const NHA_GATEWAY: u16 = 6;
const NHA_ENCAP_TYPE: u16 = 7;
const NHA_ENCAP: u16 = 8;
const NHA_RES_GROUP: u16 = 12;
const NHA_RES_GROUP_BUCKETS: u16 = 1;
const NHA_RES_GROUP_IDLE_TIMER: u16 = 2;
const NHA_RES_GROUP_UNBALANCED_TIMER: u16 = 3;
/// NEXTHOP_GRP_TYPE_RES.
const GROUP_RESILIENT: u16 = 1;
/// A bucket moves to a member that has come when nothing used it for so long, hundredths of a second,
const IDLE: u32 = 12_000;
/// and after so long in any case.
const UNBALANCED: u32 = 60_000;
const LWTUNNEL_ENCAP_IP: u16 = 2;
const LWTUNNEL_ENCAP_IP6: u16 = 4;
// The attributes of LWTUNNEL_ENCAP_IP6 have the same numbers.
const LWTUNNEL_IP_ID: u16 = 1;
const LWTUNNEL_IP_DST: u16 = 2;
const LWTUNNEL_IP_SRC: u16 = 3;
const LWTUNNEL_IP_TTL: u16 = 4;
const LWTUNNEL_IP_FLAGS: u16 = 6;
const RTNH_F_ONLINK: u32 = 4;
const RTA_VIA: u16 = 18;
const RTA_NH_ID: u16 = 30;
const RTA_METRICS: u16 = 8;
const RTAX_LOCK: u16 = 1;
const RTAX_MTU: u16 = 2;
/// The link of a way has no carrier.
const RTNH_F_LINKDOWN: u32 = 16;
/// A way cannot be used.
const RTNH_F_DEAD: u32 = 1;

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

/// Writes a route: `struct rtmsg` and its attributes. `beside_narrow` says that other routes to the same next-hop object may have an MTU:
/// of an IPv4 route without metrics the kernel takes those of any other one to that object (`fib_find_info_nh`), so that there have to be
/// some, if empty.
pub(crate) fn put_route(
    out: &mut Vec<u8>,
    key: &RouteKey,
    spec: &RouteSpec,
    sets: &WaySets,
    protocol: u8,
    beside_narrow: bool,
) {
    let family = Family::of(key.prefix);
    let (scope, kind) = match spec {
        RouteSpec::Connected { .. } if family == Family::V4 => {
            (libc::RT_SCOPE_LINK, libc::RTN_UNICAST)
        }
        RouteSpec::Unreachable => (libc::RT_SCOPE_UNIVERSE, libc::RTN_UNREACHABLE),
        RouteSpec::Throw => (libc::RT_SCOPE_UNIVERSE, libc::RTN_THROW),
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
    let flags = match spec {
        RouteSpec::OnLink { .. } => RTNH_F_ONLINK,
        _ => 0,
    };
    out.extend_from_slice(&flags.to_ne_bytes());
    attribute_u32(out, libc::RTA_TABLE, key.table);
    if key.prefix.prefix_len() > 0 {
        address(out, libc::RTA_DST, key.prefix.addr());
    }
    if key.metric > 0 {
        attribute_u32(out, libc::RTA_PRIORITY, key.metric);
    }
    match spec {
        RouteSpec::NextHop { id, mtu } => {
            attribute_u32(out, RTA_NH_ID, *id);
            match mtu {
                Some(mtu) => put_mtu(out, *mtu),
                None if beside_narrow && family == Family::V4 => nested(out, RTA_METRICS, |_| {}),
                None => {}
            }
        }
        RouteSpec::Connected { interface, source } => {
            attribute_u32(out, libc::RTA_OIF, *interface);
            address(out, libc::RTA_PREFSRC, *source);
        }
        RouteSpec::Via { gateway, interface } => {
            put_gateway(out, family, *gateway);
            if let Some(interface) = interface {
                attribute_u32(out, libc::RTA_OIF, *interface);
            }
        }
        RouteSpec::OnLink { gateway, interface } => {
            put_gateway(out, family, *gateway);
            attribute_u32(out, libc::RTA_OIF, *interface);
        }
        RouteSpec::Ways(set) => nested(out, libc::RTA_MULTIPATH, |out| {
            for way in sets.get(*set) {
                put_way(out, family, way);
            }
        }),
        RouteSpec::Unreachable | RouteSpec::Throw => {}
    }
}

/// Writes what a packet may have by a route. Locked: the kernel says so to the senders of what is larger (Fragmentation needed, RFC
/// 792; Packet too big, RFC 4443), whatever it knows of the way behind it.
fn put_mtu(out: &mut Vec<u8>, mtu: NonZeroU16) {
    nested(out, RTA_METRICS, |out| {
        attribute_u32(out, RTAX_LOCK, 1 << RTAX_MTU);
        attribute_u32(out, RTAX_MTU, u32::from(mtu.get()));
    });
}

/// Reads the same; what is not locked is none of ours, and is as one that nobody wants.
fn get_mtu(metrics: &[u8]) -> Option<NonZeroU16> {
    let mtu = get_path_mtu(metrics)?;
    let locked = attributes(metrics).any(|(kind, value)| {
        kind == RTAX_LOCK && as_u32(value).is_some_and(|lock| lock & (1 << RTAX_MTU) != 0)
    });
    let mtu = u16::try_from(mtu).ok().filter(|_| locked);
    Some(mtu.and_then(NonZeroU16::new).unwrap_or(NonZeroU16::MIN))
}

fn get_path_mtu(metrics: &[u8]) -> Option<u32> {
    let mut metrics = attributes(metrics);
    metrics.find_map(|(kind, value)| (kind == RTAX_MTU).then(|| as_u32(value)).flatten())
}

/// Writes a gateway of a route: of the route's family, or of the other one (RFC 8950).
fn put_gateway(out: &mut Vec<u8>, family: Family, gateway: IpAddr) {
    if gateway.is_ipv4() == (family == Family::V4) {
        return address(out, libc::RTA_GATEWAY, gateway);
    }
    let one = if gateway.is_ipv4() {
        Family::V4
    } else {
        Family::V6
    };
    let mut value = u16::from(one.number()).to_ne_bytes().to_vec();
    match gateway {
        IpAddr::V4(gateway) => value.extend_from_slice(&gateway.octets()),
        IpAddr::V6(gateway) => value.extend_from_slice(&gateway.octets()),
    }
    attribute(out, RTA_VIA, &value);
}

/// Writes one of several ways: `struct rtnexthop` and its attributes.
fn put_way(out: &mut Vec<u8>, family: Family, way: &Way) {
    let start = out.len();
    let flags = if way.onlink { RTNH_F_ONLINK as u8 } else { 0 };
    let hops = way.weight.clamp(1, 256) - 1;
    out.extend_from_slice(&[0, 0, flags, hops as u8]);
    out.extend_from_slice(&way.interface.to_ne_bytes());
    if let Some(gateway) = way.gateway {
        put_gateway(out, family, gateway);
    }
    let len = (out.len() - start) as u16;
    out[start..start + 2].copy_from_slice(&len.to_ne_bytes());
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
pub(crate) fn get_route(
    payload: &[u8],
    sets: &mut WaySets,
    protocol: u8,
) -> Option<(RouteKey, RouteSpec)> {
    let header = payload.get(..12)?;
    if header[5] != protocol {
        return None;
    }
    let mut table = u32::from(header[4]);
    let (mut destination, mut metric, mut next_hop) = (None, 0, None);
    let (mut interface, mut source, mut gateway) = (None, None, None);
    let (mut several, mut mtu) = (None, None);
    for (kind, value) in attributes(&payload[12..]) {
        match kind {
            libc::RTA_TABLE => table = as_u32(value)?,
            libc::RTA_DST => destination = as_address(value),
            libc::RTA_PRIORITY => metric = as_u32(value)?,
            libc::RTA_OIF => interface = as_u32(value),
            libc::RTA_PREFSRC => source = as_address(value),
            libc::RTA_GATEWAY => gateway = as_address(value),
            // A gateway of another family: the family, 2 octets, and the address.
            RTA_VIA => gateway = as_address(value.get(2..)?),
            libc::RTA_MULTIPATH => several = Some(value),
            RTA_NH_ID => next_hop = as_u32(value),
            RTA_METRICS => mtu = get_mtu(value),
            _ => {}
        }
    }
    let any = any_address(header[0]);
    let prefix = IpNet::new(destination.unwrap_or(any), header[1]).ok()?;
    let flags = as_u32(&header[8..12]).unwrap_or_default();
    let spec = match (header[7], next_hop, gateway, interface) {
        (libc::RTN_UNREACHABLE, ..) => RouteSpec::Unreachable,
        (libc::RTN_THROW, ..) => RouteSpec::Throw,
        (_, Some(id), ..) => RouteSpec::NextHop { id, mtu },
        (_, None, None, None) if several.is_some() => {
            let ways = get_ways(several?).map(|(way, _)| way).collect();
            RouteSpec::Ways(sets.number(ways)?)
        }
        (_, _, Some(gateway), Some(interface)) if flags & RTNH_F_ONLINK != 0 => {
            RouteSpec::OnLink { gateway, interface }
        }
        (_, _, Some(gateway), interface) => RouteSpec::Via { gateway, interface },
        (_, _, None, Some(interface)) => RouteSpec::Connected {
            interface,
            source: source.unwrap_or(any),
        },
        _ => return None,
    };
    let metric = metric_of(header[0], metric);
    Some((
        RouteKey {
            table,
            prefix,
            metric,
        },
        spec,
    ))
}

/// Reads which place anybody's route has, whatever it does there.
pub(crate) fn get_route_key(payload: &[u8]) -> Option<RouteKey> {
    let header = payload.get(..12)?;
    let (mut table, mut destination, mut metric) = (u32::from(header[4]), None, 0);
    for (kind, value) in attributes(&payload[12..]) {
        match kind {
            libc::RTA_TABLE => table = as_u32(value)?,
            libc::RTA_DST => destination = as_address(value),
            libc::RTA_PRIORITY => metric = as_u32(value)?,
            _ => {}
        }
    }
    let destination = destination.unwrap_or(any_address(header[0]));
    Some(RouteKey {
        table,
        prefix: IpNet::new(destination, header[1]).ok()?,
        metric: metric_of(header[0], metric),
    })
}

fn any_address(family: u8) -> IpAddr {
    if family == Family::V4.number() {
        Ipv4Addr::UNSPECIFIED.into()
    } else {
        Ipv6Addr::UNSPECIFIED.into()
    }
}

/// The metric that a route was given.
fn metric_of(family: u8, metric: u32) -> u32 {
    // Of an IPv6 route without one the kernel makes this.
    const IP6_RT_PRIO_USER: u32 = 1024;
    if family == Family::V6.number() && metric == IP6_RT_PRIO_USER {
        return 0;
    }
    metric
}

/// Reads the ways of a route that has several, each with whether it can be used: `struct rtnexthop` and its attributes.
fn get_ways(mut value: &[u8]) -> impl Iterator<Item = (Way, bool)> {
    std::iter::from_fn(move || {
        let header = value.get(..8)?;
        let len = usize::from(u16::from_ne_bytes([header[0], header[1]]));
        let body = value.get(8..len)?;
        let (flags, hops) = (u32::from(header[2]), header[3]);
        let interface = as_u32(&header[4..8])?;
        value = value.get(len.next_multiple_of(4)..).unwrap_or_default();
        let gateway = attributes(body).find_map(|(kind, value)| match kind {
            libc::RTA_GATEWAY => as_address(value),
            RTA_VIA => as_address(value.get(2..)?),
            _ => None,
        });
        let way = Way {
            gateway,
            interface,
            onlink: flags & RTNH_F_ONLINK != 0,
            weight: u16::from(hops) + 1,
        };
        Some((way, flags & (RTNH_F_LINKDOWN | RTNH_F_DEAD) == 0))
    })
}

/// Writes a next-hop object: `struct nhmsg` and its attributes.
pub(crate) fn put_next_hop(out: &mut Vec<u8>, id: u32, next_hop: &NextHop, protocol: u8) {
    match next_hop {
        NextHop::Tunnel(tunnel) => {
            let flags = if tunnel.gateway.is_some() {
                RTNH_F_ONLINK
            } else {
                0
            };
            out.extend_from_slice(&[tunnel.family.number(), 0, protocol, 0]);
            out.extend_from_slice(&flags.to_ne_bytes());
            attribute_u32(out, NHA_ID, id);
            attribute_u32(out, NHA_OIF, tunnel.interface);
            if let Some(gateway) = tunnel.gateway {
                address(out, NHA_GATEWAY, gateway);
            }
            put_encapsulation(out, tunnel);
        }
        NextHop::Group { members, buckets } => {
            out.extend_from_slice(&[0, 0, protocol, 0]);
            out.extend_from_slice(&[0; 4]);
            attribute_u32(out, NHA_ID, id);
            // struct nexthop_grp: id, weight minus one, weight's high octet, reserved.
            let mut value = Vec::with_capacity(members.len() * 8);
            for (member, weight) in members {
                value.extend_from_slice(&member.to_ne_bytes());
                value.extend_from_slice(&[weight.saturating_sub(1).min(255) as u8, 0, 0, 0]);
            }
            attribute(out, NHA_GROUP, &value);
            if *buckets > 0 {
                attribute(out, NHA_GROUP_TYPE, &GROUP_RESILIENT.to_ne_bytes());
                nested(out, NHA_RES_GROUP, |out| {
                    attribute(out, NHA_RES_GROUP_BUCKETS, &buckets.to_ne_bytes());
                    attribute_u32(out, NHA_RES_GROUP_IDLE_TIMER, IDLE);
                    attribute_u32(out, NHA_RES_GROUP_UNBALANCED_TIMER, UNBALANCED);
                });
            }
        }
    }
}

fn put_encapsulation(out: &mut Vec<u8>, tunnel: &Tunnel) {
    let kind = match tunnel.destination {
        IpAddr::V4(_) => LWTUNNEL_ENCAP_IP,
        IpAddr::V6(_) => LWTUNNEL_ENCAP_IP6,
    };
    attribute(out, NHA_ENCAP_TYPE, &kind.to_ne_bytes());
    nested(out, NHA_ENCAP, |out| {
        attribute(out, LWTUNNEL_IP_ID, &u64::from(tunnel.vni).to_be_bytes());
        address(out, LWTUNNEL_IP_DST, tunnel.destination);
        if let Some(source) = tunnel.source {
            address(out, LWTUNNEL_IP_SRC, source);
        }
        attribute(out, LWTUNNEL_IP_TTL, &[64]);
        attribute(out, LWTUNNEL_IP_FLAGS, &tunnel.flags.to_be_bytes());
    });
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
    let (mut id, mut interface, mut group, mut gateway) = (None, 0, None, None);
    let mut buckets = 0;
    let (mut vni, mut source, mut destination, mut flags) = (0, None, None, 0);
    for (kind, value) in attributes(&payload[8..]) {
        match kind {
            NHA_ID => id = as_u32(value),
            NHA_OIF => interface = as_u32(value)?,
            NHA_GATEWAY => gateway = as_address(value),
            NHA_GROUP => {
                let mut members = group_members(value);
                members.sort_unstable();
                group = Some(members);
            }
            NHA_RES_GROUP => {
                let (_, value) =
                    attributes(value).find(|(kind, _)| *kind == NHA_RES_GROUP_BUCKETS)?;
                buckets = u16::from_ne_bytes(value.try_into().ok()?);
            }
            NHA_ENCAP => {
                for (kind, value) in attributes(value) {
                    match kind {
                        LWTUNNEL_IP_ID => vni = u64::from_be_bytes(value.try_into().ok()?) as u32,
                        LWTUNNEL_IP_DST => destination = as_address(value),
                        LWTUNNEL_IP_SRC => source = as_address(value),
                        LWTUNNEL_IP_FLAGS => flags = u16::from_be_bytes(value.try_into().ok()?),
                        _ => {}
                    }
                }
            }
            _ => {}
        }
    }
    let next_hop = match group {
        Some(members) => NextHop::Group { members, buckets },
        None => {
            let destination = destination.unwrap_or(Ipv4Addr::UNSPECIFIED.into());
            let family = if header[0] == Family::V4.number() {
                Family::V4
            } else {
                Family::V6
            };
            NextHop::Tunnel(Tunnel {
                family,
                vni,
                source: source.filter(|source| !source.is_unspecified()),
                destination,
                gateway,
                flags,
                interface,
            })
        }
    };
    Some((id?, next_hop))
}

/// Reads the id of anybody's next-hop object.
pub(crate) fn get_next_hop_id(payload: &[u8]) -> Option<u32> {
    let mut attributes = attributes(payload.get(8..)?);
    let id = attributes.find(|(kind, _)| *kind == NHA_ID);
    id.and_then(|(_, value)| as_u32(value))
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
        action: match rule.action {
            RuleAction::Table(_) => Action::ToTable,
            RuleAction::Drop => Action::Blackhole,
            RuleAction::Unreachable => Action::Unreachable,
            RuleAction::Goto(_) => Action::Goto,
            RuleAction::Nothing => Action::Nop,
        },
        ..RuleHeader::default()
    };
    let mut attributes = vec![
        RuleAttribute::Priority(rule.priority),
        RuleAttribute::Protocol(RouteProtocol::from(protocol)),
    ];
    match rule.action {
        RuleAction::Table(table) => attributes.push(RuleAttribute::Table(table)),
        RuleAction::Goto(priority) => attributes.push(RuleAttribute::Goto(priority)),
        RuleAction::Drop | RuleAction::Unreachable | RuleAction::Nothing => {}
    }
    match &rule.matches {
        RuleMatch::Tunnel(vni) => attributes.push(RuleAttribute::TunId(u64::from(*vni))),
        RuleMatch::Interface(name) => attributes.push(RuleAttribute::Iifname(name.clone())),
        RuleMatch::Mark(mark) => attributes.push(RuleAttribute::FwMark(*mark)),
        RuleMatch::MarkBits {
            mark,
            mask,
            negated,
        } => {
            attributes.push(RuleAttribute::FwMark(*mark));
            attributes.push(RuleAttribute::FwMask(*mask));
            if *negated {
                message.header.flags.insert(RuleFlags::Invert);
            }
        }
        RuleMatch::Any => {}
    }
    message.attributes = attributes;
    emit(out, &message);
}

/// Reads a rule of ours.
pub(crate) fn get_rule(message: &RuleMessage, protocol: u8) -> Option<Rule> {
    let family = match message.header.family {
        AddressFamily::Inet => Family::V4,
        AddressFamily::Inet6 => Family::V6,
        _ => return None,
    };
    let (mut ours, mut priority, mut table, mut target) = (false, 0, None, None);
    let (mut mark, mut mask, mut one) = (None, u32::MAX, None);
    for attribute in &message.attributes {
        match attribute {
            RuleAttribute::Protocol(found) => ours = u8::from(*found) == protocol,
            RuleAttribute::Priority(found) => priority = *found,
            RuleAttribute::Table(found) => table = Some(*found),
            RuleAttribute::Goto(found) => target = Some(*found),
            RuleAttribute::TunId(vni) => one = Some(RuleMatch::Tunnel(*vni as u32)),
            RuleAttribute::Iifname(name) => one = Some(RuleMatch::Interface(name.clone())),
            RuleAttribute::FwMark(found) => mark = Some(*found),
            RuleAttribute::FwMask(found) => mask = *found,
            _ => {}
        }
    }
    if let Some(mark) = mark {
        let negated = message.header.flags.contains(RuleFlags::Invert);
        one = Some(if mask == u32::MAX && !negated {
            RuleMatch::Mark(mark)
        } else {
            RuleMatch::MarkBits {
                mark,
                mask,
                negated,
            }
        });
    }
    let action = match message.header.action {
        Action::ToTable => RuleAction::Table(table?),
        Action::Goto => RuleAction::Goto(target?),
        Action::Nop => RuleAction::Nothing,
        Action::Unreachable => RuleAction::Unreachable,
        _ => RuleAction::Drop,
    };
    ours.then_some(Rule {
        family,
        priority,
        matches: one.unwrap_or(RuleMatch::Any),
        action,
    })
}

/// Reads a rule of somebody else.
pub(crate) fn get_foreign_rule(message: &RuleMessage, protocol: u8) -> Option<ForeignRule> {
    let family = match message.header.family {
        AddressFamily::Inet => Family::V4,
        AddressFamily::Inet6 => Family::V6,
        _ => return None,
    };
    let mut rule = ForeignRule {
        family,
        priority: 0,
        source: None,
        destination: None,
        interface: None,
        mark: None,
        inverted: message.header.flags.contains(RuleFlags::Invert),
        of_sockets: false,
        action: None,
    };
    let (mut table, mut mask) = (u32::from(message.header.table), u32::MAX);
    let mut mark = None;
    for attribute in &message.attributes {
        match attribute {
            RuleAttribute::Protocol(found) if u8::from(*found) == protocol => return None,
            RuleAttribute::Priority(found) => rule.priority = *found,
            RuleAttribute::Source(address) => {
                rule.source = IpNet::new(*address, message.header.src_len).ok();
            }
            RuleAttribute::Destination(address) => {
                rule.destination = IpNet::new(*address, message.header.dst_len).ok();
            }
            RuleAttribute::Iifname(name) => rule.interface = Some(name.clone()),
            RuleAttribute::FwMark(found) => mark = Some(*found),
            RuleAttribute::FwMask(found) => mask = *found,
            RuleAttribute::Table(found) => table = *found,
            RuleAttribute::UidRange(_) | RuleAttribute::Oifname(_) => rule.of_sockets = true,
            // VRFs look into their own tables.
            RuleAttribute::L3MDev(true) => return None,
            _ => {}
        }
    }
    rule.mark = mark.map(|mark| (mark, mask));
    rule.action = match message.header.action {
        // What is for the router itself.
        Action::ToTable if table == u32::from(libc::RT_TABLE_LOCAL) => None,
        Action::ToTable => Some(ForeignAction::Table(table)),
        Action::Blackhole => Some(ForeignAction::Drop("blackhole")),
        Action::Unreachable => Some(ForeignAction::Drop("unreachable")),
        Action::Prohibit => Some(ForeignAction::Drop("prohibit")),
        Action::Goto => Some(ForeignAction::Goto),
        _ => None,
    };
    Some(rule)
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

/// What the kernel is asked: which route a packet takes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Question {
    pub(crate) destination: IpAddr,
    pub(crate) source: Option<IpAddr>,
    /// Where it comes in; the router sends it itself without.
    pub(crate) interface: Option<u32>,
    /// Where it goes out.
    pub(crate) out: Option<u32>,
    /// Of the packet: what leads to its tenant's table.
    pub(crate) mark: Option<u32>,
    /// Differentiated services code point, 0 to 63.
    pub(crate) dscp: u8,
    /// The UDP port that it goes to, where it is such a packet.
    pub(crate) udp_port: Option<u16>,
}

impl From<IpAddr> for Question {
    fn from(destination: IpAddr) -> Self {
        Self {
            destination,
            source: None,
            interface: None,
            out: None,
            mark: None,
            dscp: 0,
            udp_port: None,
        }
    }
}

/// Writes a question for the route of a packet; the answer is the entry of the table that matches.
pub(crate) fn route_query(question: &Question) -> Vec<u8> {
    const RTM_F_LOOKUP_TABLE: u32 = 0x1000;
    const RTM_F_FIB_MATCH: u32 = 0x2000;
    // Of IPv6 the kernel always says which table, and refuses to be asked for it.
    query(
        question,
        match question.destination {
            IpAddr::V4(_) => RTM_F_LOOKUP_TABLE | RTM_F_FIB_MATCH,
            IpAddr::V6(_) => RTM_F_FIB_MATCH,
        },
    )
}

/// Writes a question for how large the packet may be; the answer is what the kernel would send it by, with all that it has learned.
pub(crate) fn path_query(question: &Question) -> Vec<u8> {
    query(question, 0)
}

/// How large packets may be, outermost header included.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct KernelPath {
    pub(crate) octets: u16,
    /// A router on the way told it (RFC 1191, RFC 8201): the kernel forgets it in time.
    pub(crate) learned: bool,
}

/// `RTM_F_CLONED`: not a route, but what the kernel keeps of a destination.
const CLONED: u32 = 0x200;

/// What the kernel's answer to [`path_query`] says; `None` where only the link does.
pub(crate) fn get_path(payload: &[u8]) -> Option<KernelPath> {
    const RTA_CACHEINFO: u16 = 12;
    let header = payload.get(..12)?;
    let field = |wanted| attributes(&payload[12..]).find(|(kind, _)| *kind == wanted);
    let path = get_path_mtu(field(RTA_METRICS)?.1)?;
    // Behind the references and the time since it was used last: in how many ticks it goes.
    let expires = field(RTA_CACHEINFO).and_then(|(_, value)| as_u32(value.get(8..12)?));
    let learned = expires.is_some_and(|ticks| ticks > 0) && as_u32(&header[8..])? & CLONED != 0;
    (header[7] == libc::RTN_UNICAST && path > 0).then_some(KernelPath {
        octets: u16::try_from(path).unwrap_or(u16::MAX),
        learned,
    })
}

/// Writes what names a thing of IPv6 that the kernel has learned, as its answer to [`path_query`] does, for its removal.
pub(crate) fn learned_path_key(answer: &[u8]) -> Option<Vec<u8>> {
    let header = answer.get(..12)?;
    let mut out = vec![header[0], 128, 0, 0, header[4], 0, 0, 0];
    out.extend_from_slice(&CLONED.to_ne_bytes());
    for (kind, value) in attributes(&answer[12..]) {
        if [
            libc::RTA_DST,
            libc::RTA_TABLE,
            libc::RTA_OIF,
            libc::RTA_GATEWAY,
        ]
        .contains(&kind)
        {
            attribute(&mut out, kind, value);
        }
    }
    Some(out)
}

fn query(question: &Question, flags: u32) -> Vec<u8> {
    const RTA_SRC: u16 = 2;
    const RTA_MARK: u16 = 16;
    const RTA_IP_PROTO: u16 = 27;
    const RTA_DPORT: u16 = 29;
    let (family, len) = if question.destination.is_ipv4() {
        (Family::V4, 32)
    } else {
        (Family::V6, 128)
    };
    let source_len = if question.source.is_some() { len } else { 0 };
    let tos = question.dscp << 2;
    let mut out = vec![family.number(), len, source_len, tos, 0, 0, 0, 0];
    out.extend_from_slice(&flags.to_ne_bytes());
    address(&mut out, libc::RTA_DST, question.destination);
    if let Some(source) = question.source {
        address(&mut out, RTA_SRC, source);
    }
    if let Some(interface) = question.interface {
        attribute_u32(&mut out, libc::RTA_IIF, interface);
    }
    if let Some(interface) = question.out {
        attribute_u32(&mut out, libc::RTA_OIF, interface);
    }
    if let Some(mark) = question.mark {
        attribute_u32(&mut out, RTA_MARK, mark);
    }
    if let Some(port) = question.udp_port {
        attribute(&mut out, RTA_IP_PROTO, &[libc::IPPROTO_UDP as u8]);
        attribute(&mut out, RTA_DPORT, &port.to_be_bytes());
    }
    out
}

/// The kernel's answer to a question.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct RouteAnswer {
    /// `RTN_UNICAST` and others.
    pub(crate) kind: u8,
    /// Whose it is.
    pub(crate) protocol: u8,
    pub(crate) table: u32,
    pub(crate) prefix: Option<IpNet>,
    pub(crate) gateway: Option<IpAddr>,
    pub(crate) interface: Option<u32>,
    pub(crate) next_hop: Option<u32>,
    pub(crate) metric: u32,
    /// The ways that can be used: those over links with carrier. None where they stand in `next_hop`.
    pub(crate) ways: Vec<Way>,
}

/// Reads the kernel's answer to a question.
pub(crate) fn get_answer(payload: &[u8]) -> Option<RouteAnswer> {
    let header = payload.get(..12)?;
    let mut answer = RouteAnswer {
        kind: header[7],
        protocol: header[5],
        table: u32::from(header[4]),
        ..RouteAnswer::default()
    };
    let mut destination: IpAddr = if header[0] == Family::V4.number() {
        Ipv4Addr::UNSPECIFIED.into()
    } else {
        Ipv6Addr::UNSPECIFIED.into()
    };
    for (kind, value) in attributes(&payload[12..]) {
        match kind {
            libc::RTA_TABLE => answer.table = as_u32(value)?,
            libc::RTA_DST => destination = as_address(value)?,
            libc::RTA_PRIORITY => answer.metric = as_u32(value)?,
            libc::RTA_OIF => answer.interface = as_u32(value),
            libc::RTA_GATEWAY => answer.gateway = as_address(value),
            // A gateway of another family: the family, 2 octets, and the address.
            RTA_VIA => answer.gateway = as_address(value.get(2..)?),
            RTA_NH_ID => answer.next_hop = as_u32(value),
            libc::RTA_MULTIPATH => {
                let usable = get_ways(value).filter(|(_, usable)| *usable);
                answer.ways = usable.map(|(way, _)| way).collect();
            }
            _ => {}
        }
    }
    let flags = as_u32(&header[8..12])?;
    if let Some(interface) = answer.interface
        && flags & (RTNH_F_LINKDOWN | RTNH_F_DEAD) == 0
    {
        answer.ways.push(Way {
            gateway: answer.gateway,
            interface,
            onlink: flags & RTNH_F_ONLINK != 0,
            weight: 1,
        });
    }
    answer.prefix = IpNet::new(destination, header[1]).ok();
    Some(answer)
}

/// Writes a question for one next-hop object, whoever made it.
pub(crate) fn put_next_hop_query(out: &mut Vec<u8>, id: u32) {
    out.extend_from_slice(&[0; 8]);
    attribute_u32(out, NHA_ID, id);
}

/// What anybody's next-hop object leads to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum ForeignNextHop {
    /// One way.
    Way(Way),
    /// These objects, each with its share.
    Group(Vec<(u32, u16)>),
    /// Nowhere now: it drops, or its link has no carrier.
    Nowhere,
}

/// Reads anybody's next-hop object.
pub(crate) fn get_foreign_next_hop(payload: &[u8]) -> Option<ForeignNextHop> {
    let header = payload.get(..8)?;
    let flags = as_u32(&header[4..8])?;
    let (mut interface, mut gateway) = (None, None);
    for (kind, value) in attributes(&payload[8..]) {
        match kind {
            NHA_OIF => interface = as_u32(value),
            NHA_GATEWAY => gateway = as_address(value),
            NHA_GROUP => return Some(ForeignNextHop::Group(group_members(value))),
            _ => {}
        }
    }
    let usable = flags & (RTNH_F_LINKDOWN | RTNH_F_DEAD) == 0;
    Some(match interface.filter(|_| usable) {
        Some(interface) => ForeignNextHop::Way(Way {
            gateway,
            interface,
            onlink: flags & RTNH_F_ONLINK != 0,
            weight: 1,
        }),
        None => ForeignNextHop::Nowhere,
    })
}

/// `struct nexthop_grp`s: each object with its share, 1 to 256.
fn group_members(value: &[u8]) -> Vec<(u32, u16)> {
    let members = value.as_chunks::<8>().0.iter();
    let member = |m: &[u8; 8]| {
        (
            u32::from_ne_bytes([m[0], m[1], m[2], m[3]]),
            1 + u16::from(m[4]),
        )
    };
    members.map(member).collect()
}

/// Reads anybody's route out of one link.
pub(crate) fn get_foreign_route(payload: &[u8]) -> Option<ForeignRoute> {
    let protocol = *payload.get(5)?;
    let interface = attributes(payload.get(12..)?)
        .find(|(kind, _)| *kind == libc::RTA_OIF)
        .and_then(|(_, value)| as_u32(value))?;
    // A route out of one link has one way.
    let (key, spec) = get_route(payload, &mut WaySets::default(), protocol)?;
    Some(ForeignRoute {
        protocol,
        table: key.table,
        interface,
        prefix: key.prefix,
        gateway: match spec {
            RouteSpec::Via { gateway, .. } => Some(gateway),
            _ => None,
        },
    })
}
