//! The management network: what containerlab gives each container by itself, an interface `eth0` with an address and a default route. Here it is a bridge of the
//! lab with nothing behind it, for nodes that would be containers: their commands count on it.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::links::{End, Ends, Link, MANAGEMENT};
use super::{Network, Node};
use crate::config::reader::Cursor;

/// The interface of a node in it.
pub(in crate::lab) const INTERFACE: &str = "eth0";

/// The networks of a lab that names none, as in containerlab.
const IPV4: Ipv4Net = Ipv4Net::new_assert(Ipv4Addr::new(172, 20, 20, 0), 24);
const IPV6: Ipv6Net = Ipv6Net::new_assert(Ipv6Addr::new(0x3fff, 0x172, 0x20, 0x20, 0, 0, 0, 0), 64);

/// What the gateway answers for what lies behind it: that it cannot be reached. Silence would have each command wait for its time to be over.
pub(super) const ANSWERS: [(&str, &str); 2] = [
    ("net/ipv4/ip_forward", "1"),
    ("net/ipv6/conf/all/forwarding", "1"),
];

/// What a node has in the management network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::lab) struct Management {
    /// With the length of the network's prefix.
    pub(in crate::lab) addresses: Vec<IpNet>,
    /// Where its default routes go.
    pub(in crate::lab) gateways: Vec<IpAddr>,
    /// It is the network's bridge, with nothing behind it.
    pub(in crate::lab) is_gateway: bool,
}

/// Subnets of a lab.
pub(super) struct Subnets {
    v4: Ipv4Net,
    v6: Ipv6Net,
}

impl Subnets {
    /// Reads `mgmt`, of which nothing else has a meaning here. Of several networks the first counts.
    pub(super) fn read(at: Option<&Cursor<'_>>) -> Self {
        let mut subnets = Self { v4: IPV4, v6: IPV6 };
        let Some(at) = at.filter(|at| at.is_mapping()) else {
            return subnets;
        };
        for (key, value) in at.entries("a mapping").into_iter().flatten() {
            let text = value.scalar().filter(|text| *text != "auto");
            match (key.scalar(), text) {
                (Some("ipv4-subnet" | "ipv4_subnet"), Some(_)) => {
                    let net: Option<Ipv4Net> = value.parse("an IPv4 prefix");
                    subnets.v4 = net.map_or(IPV4, |net| net.trunc());
                }
                (Some("ipv6-subnet" | "ipv6_subnet"), Some(_)) => {
                    let net: Option<Ipv6Net> = value.parse("an IPv6 prefix");
                    subnets.v6 = net.map_or(IPV6, |net| net.trunc());
                }
                _ => {}
            }
        }
        subnets
    }

    /// The gateways, which are the bridge's addresses.
    fn gateways(&self) -> [Option<IpNet>; 2] {
        let v4 = self.v4.hosts().next();
        let v6 = self.v6.hosts().find(|host| *host != self.v6.network());
        [
            v4.and_then(|host| Ipv4Net::new(host, self.v4.prefix_len()).ok())
                .map(IpNet::V4),
            v6.and_then(|host| Ipv6Net::new(host, self.v6.prefix_len()).ok())
                .map(IpNet::V6),
        ]
    }

    /// Gives nodes that would be containers their place in the network: an address, a link to `bridge`. What they asked for stands in `asked`, by node.
    pub(super) fn join(
        &self,
        nodes: &mut [Node],
        links: &mut Vec<Link>,
        asked: &[(String, Vec<IpAddr>)],
    ) {
        let gateways: Vec<IpNet> = self.gateways().into_iter().flatten().collect();
        let mut taken: BTreeSet<IpAddr> = asked
            .iter()
            .flat_map(|(_, addresses)| addresses)
            .copied()
            .collect();
        taken.extend(gateways.iter().map(IpNet::addr));
        let free: Vec<IpAddr> = self
            .v4
            .hosts()
            .map(IpAddr::V4)
            .filter(|address| !taken.contains(address))
            .take(nodes.len())
            .collect();
        let mut free = free.into_iter();
        for (number, node) in nodes.iter_mut().enumerate() {
            let has = links
                .iter()
                .flat_map(Link::nodes)
                .any(|end| end.node == node.name && end.interface == INTERFACE);
            if node.image.is_none() || node.network != Network::Own || has {
                continue;
            }
            let own = asked.iter().find(|(name, _)| *name == node.name);
            let mut addresses: Vec<IpAddr> = own
                .map(|(_, addresses)| addresses.clone())
                .unwrap_or_default();
            if !addresses.iter().any(IpAddr::is_ipv4) {
                addresses.extend(free.next());
            }
            let length = |address: &IpAddr| match address {
                IpAddr::V4(_) => self.v4.prefix_len(),
                IpAddr::V6(_) => self.v6.prefix_len(),
            };
            let addresses: Vec<IpNet> = addresses
                .iter()
                .filter_map(|address| IpNet::new(*address, length(address)).ok())
                .collect();
            // One that asked for an address in another network of several has no way to this one's.
            let near = |gateway: &IpAddr| addresses.iter().any(|net| net.contains(gateway));
            node.management = Some(Management {
                gateways: gateways.iter().map(IpNet::addr).filter(near).collect(),
                addresses,
                is_gateway: false,
            });
            let end = |node: &str, interface: String| End {
                node: node.to_owned(),
                interface,
                mac: None,
            };
            links.push(Link {
                ends: Ends::Nodes(
                    end(&node.name, INTERFACE.to_owned()),
                    end(MANAGEMENT, format!("m{number}")),
                ),
                mtu: None,
            });
        }
    }

    /// What the bridge has.
    pub(super) fn bridge(&self) -> Management {
        Management {
            addresses: self.gateways().into_iter().flatten().collect(),
            gateways: Vec::new(),
            is_gateway: true,
        }
    }
}
