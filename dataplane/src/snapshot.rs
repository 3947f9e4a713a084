//! What the kernel holds, read whole.

use std::collections::BTreeSet;
use std::io;
use std::net::IpAddr;

use ipnet::IpNet;
use netlink_packet_core::Parseable;
use netlink_packet_route::address::{AddressAttribute, AddressMessage};
use netlink_packet_route::link::{
    InfoData, InfoKind, InfoVxlan, LinkAttribute, LinkFlags, LinkInfo, LinkMessage,
};
use netlink_packet_route::rule::RuleMessage;
use tracing::debug;

use crate::model::{Carrier, NextHop, RouteKey, RouteSpec, Rule};
use crate::netlink::objects::{
    RTM_GETNEXTHOP, RTM_GETTUNNEL, get_foreign_route, get_foreign_rule, get_next_hop, get_route,
    get_rule, get_vnis, put_vni_query,
};
use crate::netlink::octets::attribute_u32;
use crate::netlink::socket::Netlink;
use crate::upkeep::ForeignRule;
use crate::ways::WaySets;

/// A link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Link {
    pub(crate) index: u32,
    pub(crate) name: String,
    pub(crate) alias: Option<String>,
    /// Administratively up, with carrier, and ready (RFC 2863 section 3.1.14).
    pub(crate) up: bool,
    /// Administratively up.
    pub(crate) admin: bool,
    /// It asks for no addresses.
    pub(crate) no_arp: bool,
    pub(crate) mac: Option<[u8; 6]>,
    /// The kind of tunnel device that it is, whoever made it.
    pub(crate) tunnel: Option<Carrier>,
    pub(crate) mtu: u32,
    /// The bridge, bond or VRF that it belongs to.
    pub(crate) master: Option<u32>,
    /// It is a VRF, whoever made it.
    pub(crate) vrf: bool,
}

/// Address of a link, with its network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Address {
    pub(crate) link: u32,
    pub(crate) address: IpAddr,
    pub(crate) network: IpNet,
}

impl Address {
    /// What else the kernel takes for the router's by this address: the broadcast addresses of its network, and the anycast address of
    /// the routers there (RFC 4291 section 2.6.1).
    pub(crate) fn others(&self) -> impl Iterator<Item = IpAddr> {
        let (first, last) = (self.network.network(), self.network.broadcast());
        let others = match self.network {
            IpNet::V4(network) if network.prefix_len() < 31 => [Some(first), Some(last)],
            IpNet::V6(network) if network.prefix_len() < 127 => [Some(first), None],
            _ => [None, None],
        };
        others.into_iter().flatten()
    }
}

pub(crate) fn links(netlink: &mut Netlink) -> io::Result<Vec<Link>> {
    netlink.dump(
        libc::RTM_GETLINK,
        &[0; 16],
        |links: &mut Vec<Link>, message| {
            let parsed = match LinkMessage::parse(message.payload) {
                Ok(parsed) => parsed,
                Err(error) => return debug!(%error, "a link of a kind that is not understood"),
            };
            let flags = parsed.header.flags;
            let mut link = Link {
                index: parsed.header.index,
                name: String::new(),
                alias: None,
                up: flags.contains(LinkFlags::Up | LinkFlags::LowerUp | LinkFlags::Running),
                admin: flags.contains(LinkFlags::Up),
                no_arp: flags.contains(LinkFlags::Noarp),
                mac: None,
                tunnel: None,
                mtu: 1500,
                master: None,
                vrf: false,
            };
            for attribute in parsed.attributes {
                match attribute {
                    LinkAttribute::IfName(name) => link.name = name,
                    LinkAttribute::IfAlias(alias) => link.alias = Some(alias),
                    LinkAttribute::Mtu(mtu) => link.mtu = mtu,
                    LinkAttribute::Controller(master) => link.master = Some(master),
                    LinkAttribute::Address(octets) => link.mac = octets.try_into().ok(),
                    LinkAttribute::LinkInfo(infos) => {
                        link.tunnel = tunnel_kind(&infos);
                        link.vrf = infos.contains(&LinkInfo::Kind(InfoKind::Vrf));
                    }
                    _ => {}
                }
            }
            links.push(link);
        },
    )
}

/// Which of the kinds of tunnel device that we make a link is.
fn tunnel_kind(infos: &[LinkInfo]) -> Option<Carrier> {
    let data = infos.iter().find_map(|info| match info {
        LinkInfo::Data(InfoData::Vxlan(data)) => Some(&data[..]),
        _ => None,
    });
    let port = data.unwrap_or_default().iter().find_map(|one| match one {
        InfoVxlan::Port(port) => Some(*port),
        _ => None,
    });
    let gpe = data.unwrap_or_default().contains(&InfoVxlan::Gpe);
    infos.iter().find_map(|info| match info {
        LinkInfo::Kind(InfoKind::Vxlan) if gpe => port.map(Carrier::VxlanGpe),
        LinkInfo::Kind(InfoKind::Vxlan) => port.map(Carrier::Vxlan),
        LinkInfo::Kind(InfoKind::GreTun) => Some(Carrier::Gre),
        LinkInfo::Kind(InfoKind::GreTun6) => Some(Carrier::Gre6),
        _ => None,
    })
}

pub(crate) fn addresses(netlink: &mut Netlink) -> io::Result<Vec<Address>> {
    netlink.dump(
        libc::RTM_GETADDR,
        &[0; 8],
        |addresses: &mut Vec<Address>, message| {
            let Ok(parsed) = AddressMessage::parse(message.payload) else {
                return;
            };
            let (mut local, mut peer) = (None, None);
            for attribute in &parsed.attributes {
                match attribute {
                    AddressAttribute::Local(address) => local = Some(*address),
                    AddressAttribute::Address(address) => peer = Some(*address),
                    _ => {}
                }
            }
            // Of a point-to-point link `Address` is the far end; elsewhere both are the same, or only it is there.
            if let Some(address) = local.or(peer)
                && let Ok(network) = IpNet::new(peer.unwrap_or(address), parsed.header.prefix_len)
            {
                addresses.push(Address {
                    link: parsed.header.index,
                    address,
                    network: network.trunc(),
                });
            }
        },
    )
}

/// What else than its addresses leads to the router itself: routes of the local table that are not the kernel's own.
pub(crate) fn local_routes(netlink: &mut Netlink) -> io::Result<Vec<IpNet>> {
    let mut all = Vec::new();
    for family in [libc::AF_INET as u8, libc::AF_INET6 as u8] {
        let request = [family, 0, 0, 0, libc::RT_TABLE_LOCAL, 0, 0, 0, 0, 0, 0, 0];
        let found = netlink.dump(
            libc::RTM_GETROUTE,
            &request,
            |routes: &mut Vec<IpNet>, message| {
                let (protocol, kind) = (message.payload.get(5), message.payload.get(7));
                if protocol != Some(&libc::RTPROT_KERNEL)
                    && kind == Some(&libc::RTN_LOCAL)
                    && let Some(route) = get_foreign_route(message.payload)
                {
                    routes.push(route.prefix);
                }
            },
        )?;
        all.extend(found);
    }
    Ok(all)
}

/// Routes of ours in all tables.
pub(crate) fn routes(
    netlink: &mut Netlink,
    sets: &mut WaySets,
    protocol: u8,
) -> io::Result<Vec<(RouteKey, RouteSpec)>> {
    // With strict checks the kernel itself leaves out other protocols' routes.
    let mut all = Vec::new();
    for family in [libc::AF_INET as u8, libc::AF_INET6 as u8] {
        let request = [family, 0, 0, 0, 0, protocol, 0, 0, 0, 0, 0, 0];
        let found = netlink.dump(
            libc::RTM_GETROUTE,
            &request,
            |routes: &mut Vec<(RouteKey, RouteSpec)>, message| {
                routes.extend(get_route(message.payload, sets, protocol));
            },
        )?;
        all.extend(found);
    }
    Ok(all)
}

/// Routes of ours in one table that lead over one link; none where there is no such link.
pub(crate) fn routes_over(
    netlink: &mut Netlink,
    sets: &mut WaySets,
    protocol: u8,
    table: u32,
    link: u32,
) -> io::Result<Vec<(RouteKey, RouteSpec)>> {
    let mut all = Vec::new();
    for family in [libc::AF_INET as u8, libc::AF_INET6 as u8] {
        let mut request = vec![family, 0, 0, 0, 0, protocol, 0, 0, 0, 0, 0, 0];
        attribute_u32(&mut request, libc::RTA_TABLE, table);
        attribute_u32(&mut request, libc::RTA_OIF, link);
        let found = netlink.dump(
            libc::RTM_GETROUTE,
            &request,
            |routes: &mut Vec<(RouteKey, RouteSpec)>, message| {
                routes.extend(get_route(message.payload, sets, protocol));
            },
        );
        match found {
            Ok(found) => all.extend(found),
            // No such link, or no such table any more.
            Err(error) if matches!(error.raw_os_error(), Some(libc::ENODEV | libc::ENOENT)) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(all)
}

/// A route of somebody else.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ForeignRoute {
    pub(crate) protocol: u8,
    pub(crate) table: u32,
    pub(crate) interface: u32,
    pub(crate) prefix: IpNet,
    pub(crate) gateway: Option<IpAddr>,
}

/// RTPROT_RA: the kernel made it of a router advertisement.
pub(crate) const ADVERTISED: u8 = 9;

/// Routes of these protocols in all tables, by the kernel's own filter.
pub(crate) fn foreign_routes(
    netlink: &mut Netlink,
    protocols: &BTreeSet<u8>,
) -> io::Result<Vec<ForeignRoute>> {
    let mut all = Vec::new();
    for family in [libc::AF_INET as u8, libc::AF_INET6 as u8] {
        // Router advertisements are of IPv6.
        let v4 = family == libc::AF_INET as u8;
        for protocol in protocols.iter().filter(|one| !v4 || **one != ADVERTISED) {
            let request = [family, 0, 0, 0, 0, *protocol, 0, 0, 0, 0, 0, 0];
            let found = netlink.dump(
                libc::RTM_GETROUTE,
                &request,
                |routes: &mut Vec<ForeignRoute>, message| {
                    routes.extend(get_foreign_route(message.payload));
                },
            )?;
            all.extend(found);
        }
    }
    Ok(all)
}

pub(crate) fn next_hops(netlink: &mut Netlink, protocol: u8) -> io::Result<Vec<(u32, NextHop)>> {
    netlink.dump(
        RTM_GETNEXTHOP,
        &[0; 8],
        |found: &mut Vec<(u32, NextHop)>, message| {
            found.extend(get_next_hop(message.payload, protocol));
        },
    )
}

pub(crate) fn rules(netlink: &mut Netlink, protocol: u8) -> io::Result<Vec<Rule>> {
    dump_rules(netlink, |message| get_rule(message, protocol))
}

/// Policy rules of everybody else.
pub(crate) fn foreign_rules(netlink: &mut Netlink, protocol: u8) -> io::Result<Vec<ForeignRule>> {
    dump_rules(netlink, |message| get_foreign_rule(message, protocol))
}

/// Policy rules of both families, as far as `get` takes them.
fn dump_rules<T, F>(netlink: &mut Netlink, get: impl Fn(&RuleMessage) -> F) -> io::Result<Vec<T>>
where
    F: IntoIterator<Item = T>,
{
    let mut all = Vec::new();
    for family in [libc::AF_INET as u8, libc::AF_INET6 as u8] {
        let mut request = [0; 12];
        request[0] = family;
        let found = netlink.dump(
            libc::RTM_GETRULE,
            &request,
            |rules: &mut Vec<T>, message| {
                if let Ok(parsed) = RuleMessage::parse(message.payload) {
                    rules.extend(get(&parsed));
                }
            },
        )?;
        all.extend(found);
    }
    Ok(all)
}

pub(crate) fn vnis(netlink: &mut Netlink, device: u32) -> io::Result<Vec<u32>> {
    let mut request = Vec::new();
    put_vni_query(&mut request, device);
    netlink.dump(RTM_GETTUNNEL, &request, |vnis: &mut Vec<u32>, message| {
        vnis.extend(get_vnis(message.payload));
    })
}
