//! What the data plane wants in the kernel, as plain values.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use netlink_packet_route::AddressFamily;

/// Address family of a route or rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Family {
    V4,
    V6,
}

impl Family {
    pub(crate) fn of(prefix: IpNet) -> Self {
        if matches!(prefix, IpNet::V4(_)) {
            Self::V4
        } else {
            Self::V6
        }
    }

    pub(crate) fn number(self) -> u8 {
        match self {
            Self::V4 => libc::AF_INET as u8,
            Self::V6 => libc::AF_INET6 as u8,
        }
    }

    pub(crate) fn address_family(self) -> AddressFamily {
        match self {
            Self::V4 => AddressFamily::Inet,
            Self::V6 => AddressFamily::Inet6,
        }
    }
}

/// What the kernel tells routes apart by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct RouteKey {
    pub(crate) table: u32,
    pub(crate) prefix: IpNet,
    pub(crate) metric: u32,
}

/// Where a route leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RouteSpec {
    /// To a next-hop object.
    NextHop(u32),
    /// To the link of an attachment.
    Connected { interface: u32, source: IpAddr },
    /// To a gateway.
    Via {
        gateway: IpAddr,
        interface: Option<u32>,
    },
    /// Nowhere: a tenant's packet without a route goes no further.
    Unreachable,
}

/// A next-hop object.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct NextHop {
    /// Of the tenant's packets; IPv4 for groups, which have none.
    pub(crate) family: Family,
    pub(crate) kind: NextHopKind,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum NextHopKind {
    /// Encapsulate and send.
    Tunnel {
        vni: u32,
        source: Ipv4Addr,
        destination: Ipv4Addr,
        interface: u32,
    },
    /// Share between these objects.
    Group(Vec<u32>),
}

/// What a rule looks at.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum RuleMatch {
    /// The VNI that a packet came with.
    Tunnel(u32),
    /// Where it came in.
    Interface(String),
    /// Its mark: the router's own answers carry that of the question.
    Mark(u32),
}

/// A policy rule.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Rule {
    pub(crate) family: Family,
    pub(crate) priority: u32,
    pub(crate) of: RuleMatch,
    /// `None` drops.
    pub(crate) table: Option<u32>,
}

/// Priority of the rules that lead into tenant tables; before the main table's 32766, after local's 0.
pub(crate) const RULE_TENANT: u32 = 1000;
/// Priority of the rule that drops what came from the overlay and belongs to nobody.
pub(crate) const RULE_LAST: u32 = 1999;
/// Metric of the route that ends a tenant's table: the highest that the kernel knows.
pub(crate) const LAST_RESORT: u32 = u32::MAX;
/// Metric of underlay routes: another protocol's, with the default metric, goes first.
pub(crate) const UNDERLAY_METRIC: u32 = 200;

/// The MAC address of the router at an endpoint: `02:00` and the IPv4 address, so that every router knows everybody's
/// without asking, and no two are alike.
pub(crate) fn mac(endpoint: Ipv4Addr) -> [u8; 6] {
    let [a, b, c, d] = endpoint.octets();
    [2, 0, a, b, c, d]
}

/// The gateway of a next hop in the tenant's family. It is on the device by decree; its neighbour entry is permanent.
pub(crate) fn gateway(endpoint: Ipv4Addr, family: Family) -> IpAddr {
    match family {
        Family::V4 => endpoint.into(),
        Family::V6 => {
            let [a, b, c, d] = endpoint.octets().map(u16::from);
            Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, a << 8 | b, c << 8 | d).into()
        }
    }
}
