//! What the data plane wants in the kernel, as plain values.

use std::borrow::Cow;
use std::net::{IpAddr, Ipv6Addr};
use std::num::NonZeroU16;

use ipnet::IpNet;
use netlink_packet_route::AddressFamily;
use serde::Serialize;
use weft_overlay::intent::ForwardingNextHop;
use weft_overlay::{Encapsulation, EndpointId, VXLAN_GPE_PORT, VXLAN_PORT};

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
    NextHop {
        id: u32,
        /// Octets that a packet may have, where the way is narrower than the device. Four octets that a route of another kind
        /// has anyway: those without one cost nothing.
        mtu: Option<NonZeroU16>,
    },
    /// To the link of an attachment.
    Connected { interface: u32, source: IpAddr },
    /// To a gateway.
    Via {
        gateway: IpAddr,
        interface: Option<u32>,
    },
    /// To a gateway on a link, whatever other routes say of its address.
    OnLink { gateway: IpAddr, interface: u32 },
    /// To several gateways at once: the number of a set of [`Way`]s.
    Ways(u32),
    /// Nowhere: a tenant's packet without a route goes no further.
    Unreachable,
    /// Out of the table: the next rule is asked.
    Throw,
}

impl RouteSpec {
    /// What the kernel holds is this. A gateway whose link is the kernel's to find is held whichever link it found.
    pub(crate) fn is_held_as(&self, held: &Self) -> bool {
        match (self, held) {
            (
                Self::Via {
                    gateway,
                    interface: None,
                },
                Self::Via { gateway: held, .. },
            ) => gateway == held,
            _ => self == held,
        }
    }
}

/// One of the ways by which the kernel reaches an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Way {
    /// `None` where the address is on the link itself.
    pub(crate) gateway: Option<IpAddr>,
    pub(crate) interface: u32,
    /// The gateway is on the link by decree, whatever other routes say.
    pub(crate) onlink: bool,
    /// Its share beside others, 1 to 256.
    pub(crate) weight: u16,
}

/// A kind of tunnel device. A router has at most one of each, for all VNIs: the packet's metadata names the VNI. The UDP port that
/// packets are sent to is the device's, since the kernel takes it from there: it is the port that the device listens at, too.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Carrier {
    /// RFC 7348, over IPv4 and IPv6.
    Vxlan(u16),
    /// VXLAN-GPE with IP payload, over IPv4 and IPv6.
    VxlanGpe(u16),
    /// GRE with key, over IPv4.
    Gre,
    /// GRE with key, over IPv6.
    Gre6,
}

impl Carrier {
    /// VXLAN at its own port.
    pub(crate) const VXLAN: Self = Self::Vxlan(VXLAN_PORT);
    /// VXLAN-GPE at its own port.
    pub(crate) const VXLAN_GPE: Self = Self::VxlanGpe(VXLAN_GPE_PORT);
    /// One of each encapsulation, at its own port.
    pub(crate) const ALL: [Self; 4] = [Self::VXLAN, Self::VXLAN_GPE, Self::Gre, Self::Gre6];

    /// The device that packets of an encapsulation leave and enter by; `port` where it is not the encapsulation's own.
    pub(crate) fn of(encapsulation: Encapsulation, endpoint: IpAddr, port: Option<u16>) -> Self {
        match (encapsulation, endpoint) {
            (Encapsulation::Vxlan, _) => Self::Vxlan(port.unwrap_or(VXLAN_PORT)),
            (Encapsulation::VxlanGpe, _) => Self::VxlanGpe(port.unwrap_or(VXLAN_GPE_PORT)),
            (Encapsulation::Gre, IpAddr::V4(_)) => Self::Gre,
            (Encapsulation::Gre, IpAddr::V6(_)) => Self::Gre6,
        }
    }

    /// The device that leads to a next hop.
    pub(crate) fn to(hop: &ForwardingNextHop) -> Self {
        Self::of(
            hop.encapsulation,
            hop.address,
            hop.port.map(NonZeroU16::get),
        )
    }

    /// Its name. `gre0` is not free: the kernel makes that one itself.
    pub(crate) fn name(self) -> Cow<'static, str> {
        match self {
            Self::VXLAN => "vx0".into(),
            Self::Vxlan(port) => format!("vx{port}").into(),
            Self::VXLAN_GPE => "vxg0".into(),
            Self::VxlanGpe(port) => format!("vxg{port}").into(),
            Self::Gre => "wgre0".into(),
            Self::Gre6 => "wgre6".into(),
        }
    }

    pub(crate) fn encapsulation(self) -> Encapsulation {
        match self {
            Self::Vxlan(_) => Encapsulation::Vxlan,
            Self::VxlanGpe(_) => Encapsulation::VxlanGpe,
            Self::Gre | Self::Gre6 => Encapsulation::Gre,
        }
    }

    /// UDP port, for those that have one.
    pub(crate) fn port(self) -> Option<u16> {
        match self {
            Self::Vxlan(port) | Self::VxlanGpe(port) => Some(port),
            Self::Gre | Self::Gre6 => None,
        }
    }

    /// UDP port, where it is not the encapsulation's own.
    pub(crate) fn unusual_port(self) -> Option<u16> {
        let usual = self.encapsulation().default_port().map(NonZeroU16::get);
        self.port().filter(|port| usual != Some(*port))
    }

    /// Octets around a tenant's packet: outer IP header, UDP and VXLAN or GRE with key, and an Ethernet header for
    /// RFC 7348.
    pub(crate) fn overhead(self, endpoint: IpAddr) -> u32 {
        let outer = if endpoint.is_ipv4() { 20 } else { 40 };
        outer
            + match self {
                Self::Vxlan(_) => 8 + 8 + 14,
                Self::VxlanGpe(_) => 8 + 8,
                Self::Gre | Self::Gre6 => 8,
            }
    }

    /// Its packets have an Ethernet header, for a MAC address at the far end.
    pub(crate) fn is_ethernet(self) -> bool {
        matches!(self, Self::Vxlan(_))
    }

    /// It only lets in VNIs that it was told of.
    pub(crate) fn has_vni_filter(self) -> bool {
        self.port().is_some()
    }
}

/// A next-hop object.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum NextHop {
    /// Encapsulate and send.
    Tunnel(Tunnel),
    /// Share between these objects.
    Group {
        /// Each with its share, 1 to 256, sorted.
        members: Vec<(u32, u16)>,
        /// Flows fall into so many buckets, and stay where theirs is when others come or go; 0 where they do not.
        buckets: u16,
    },
}

/// One way through one VNI to one router.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Tunnel {
    /// Of the tenant's packets; IPv6 where the gateway is, whichever packets use it.
    pub(crate) family: Family,
    pub(crate) vni: u32,
    /// Outer source; `None` leaves it to the route.
    pub(crate) source: Option<IpAddr>,
    pub(crate) destination: IpAddr,
    /// Whose MAC address the payload goes to, where it is Ethernet.
    pub(crate) gateway: Option<IpAddr>,
    /// Flags of the outer header, as the kernel counts them.
    pub(crate) flags: u16,
    pub(crate) interface: u32,
}

/// Outer UDP checksum: IPv6 has to have one (RFC 8200 section 8.1).
pub(crate) const TUNNEL_CHECKSUM: u16 = 0x0001;
/// The VNI is there: GRE packets have a key.
pub(crate) const TUNNEL_KEY: u16 = 0x0004;
/// Outer packets are not fragmented.
pub(crate) const TUNNEL_DONT_FRAGMENT: u16 = 0x0100;

impl Tunnel {
    /// To the router that `hop` names, for a tenant's packets of a family.
    pub(crate) fn to(
        hop: &ForwardingNextHop,
        family: Family,
        own: Option<IpAddr>,
        interface: u32,
        dont_fragment: bool,
    ) -> Self {
        let carrier = Carrier::to(hop);
        let checksum = carrier.has_vni_filter() && hop.address.is_ipv6();
        let mut flags = TUNNEL_KEY;
        if dont_fragment {
            flags |= TUNNEL_DONT_FRAGMENT;
        }
        if checksum {
            flags |= TUNNEL_CHECKSUM;
        }
        let gateway =
            (carrier.is_ethernet()).then(|| gateway(hop.address, hop.endpoint_id, family));
        Self {
            family: match gateway {
                Some(IpAddr::V6(_)) => Family::V6,
                _ => family,
            },
            vni: hop.vni.get(),
            source: own.filter(|own| own.is_ipv4() == hop.address.is_ipv4()),
            destination: hop.address,
            gateway,
            flags,
            interface,
        }
    }
}

/// What a rule looks at.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum RuleMatch {
    /// The VNI that a packet came with.
    Tunnel(u32),
    /// Where it came in.
    Interface(String),
    /// Its mark: what its tenant's packets have, and the router's own answers to them.
    Mark(u32),
    /// These bits of its mark: all but those that `negated` names.
    MarkBits {
        /// What they are.
        mark: u32,
        /// Which.
        mask: u32,
        /// Everything but that.
        negated: bool,
    },
    /// Nothing: every packet.
    Any,
}

/// Where a packet comes in that the router itself sends, as rules see it.
pub(crate) const SELF: &str = "lo";

/// What a rule does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum RuleAction {
    /// Looks into a table.
    Table(u32),
    /// Drops.
    Drop,
    /// Drops, and tells the sender.
    Unreachable,
    /// Goes on at the rule of a priority.
    Goto(u32),
    /// Nothing: where others go to.
    Nothing,
}

/// A policy rule.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Rule {
    pub(crate) family: Family,
    pub(crate) priority: u32,
    pub(crate) matches: RuleMatch,
    pub(crate) action: RuleAction,
}

/// Priority of the first rule about packets on a service chain, whose mark is a step's and no longer their tenant's; of those that
/// follow, too.
pub(crate) const RULE_STEP: u32 = 980;
/// Priority of the rules that lead into tenant tables; before the main table's 32766, after local's 0.
pub(crate) const RULE_TENANT: u32 = 1000;
/// Priority of the rules that lead what a tenant's table has nothing for to the main table, where the tenant may leave there.
pub(crate) const RULE_BREAKOUT: u32 = 1996;
/// Priority of the rules that end packets of tenants without a table for their family, and packets of tenants with a way out that have lost
/// their mark.
pub(crate) const RULE_NO_TABLE: u32 = 1997;
/// Where packets go on that no tenant's rule took.
pub(crate) const RULE_END: u32 = 1998;
/// Priority of the rule that drops what came from the overlay and belongs to nobody.
pub(crate) const RULE_LAST: u32 = 1999;
/// Metric of the route that ends a tenant's table: the highest that the kernel knows.
pub(crate) const LAST_RESORT: u32 = u32::MAX;
/// Metric of underlay routes: another protocol's, with the default metric, goes first. The kernel's own default is 0 for IPv4; for
/// IPv6 it is 256 for networks of addresses and 1024 for all else.
pub(crate) fn underlay_metric(prefix: &IpNet) -> u32 {
    match prefix {
        IpNet::V4(_) => 200,
        IpNet::V6(_) => 1224,
    }
}

/// The MAC address of the router at an endpoint: `02:00` and the IPv4 address, `02:01` and the id that stands for an IPv6
/// one, so that every router knows everybody's without asking, and no two are alike.
pub(crate) fn mac(endpoint: IpAddr, id: Option<EndpointId>) -> [u8; 6] {
    let (kind, [a, b, c, d]) = number(endpoint, id);
    [2, kind, a, b, c, d]
}

/// The gateway of a next hop. It is on the device by decree; its neighbour entry is permanent. What has an IPv6
/// endpoint has an IPv6 gateway for IPv4 packets too (RFC 8950): no IPv4 address stands for it.
pub(crate) fn gateway(endpoint: IpAddr, id: Option<EndpointId>, family: Family) -> IpAddr {
    if let (IpAddr::V4(_), Family::V4) = (endpoint, family) {
        return endpoint;
    }
    let (kind, octets) = number(endpoint, id);
    let [a, b, c, d] = octets.map(u16::from);
    Ipv6Addr::new(0xfe80, 0, 0, 0, 0, u16::from(kind), a << 8 | b, c << 8 | d).into()
}

fn number(endpoint: IpAddr, id: Option<EndpointId>) -> (u8, [u8; 4]) {
    match (endpoint, id) {
        (IpAddr::V4(address), _) => (0, address.octets()),
        (IpAddr::V6(_), Some(EndpointId(id))) => (1, id.octets()),
        // Nothing names an IPv6 endpoint but its id; the last octets are the best guess for one that has none.
        (IpAddr::V6(address), None) => {
            let [.., a, b, c, d] = address.octets();
            (2, [a, b, c, d])
        }
    }
}
