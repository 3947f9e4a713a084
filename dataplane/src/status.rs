//! What the data plane says of itself.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;
use serde::Serialize;
use weft_overlay::Encapsulation;

use crate::condition::Condition;

/// The data plane in numbers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct DataplaneStatus {
    /// Tunnel devices.
    pub devices: Vec<DeviceStatus>,
    /// Far ends whose packets go to a UDP port that is not their encapsulation's own.
    pub ports: BTreeMap<IpAddr, u16>,
    /// Tenants are VRFs; else tables and rules keep them apart.
    pub vrf: bool,
    /// The intent is whole, leftovers are gone.
    pub settled: bool,
    /// Tables of tenants.
    pub tenants: Vec<TenantTable>,
    /// What is intended, beside what the kernel holds.
    pub intended: Intended,
    /// Routes that the kernel holds for us.
    pub routes: usize,
    /// Routes of those in the main table.
    pub underlay_routes: usize,
    /// Next-hop objects.
    pub next_hops: usize,
    /// VNIs that the device lets in.
    pub vnis: usize,
    /// Policy rules.
    pub rules: usize,
    /// Requests sent that change something, since the start.
    pub requests: u64,
    /// Of those, requests about routes.
    pub route_requests: u64,
    /// How often what was ours had been changed by somebody else, and was repaired.
    pub repairs: u64,
    /// How often the kernel's events came faster than they were read: everything was read anew.
    pub events_lost: u64,
    /// What keeps packets from where they should go.
    pub conditions: Vec<Condition>,
    /// What the kernel does not take.
    pub refused: Vec<RefusedRoute>,
    /// What was dropped between tenants; none where the kernel does not count.
    pub drops: Option<Drops>,
    /// Why nftables does not take the service chains: packets of tenants with chains are dropped until it does.
    pub chains_refused: Option<String>,
    /// Far routers whose way is narrower than the device that leads there, by address.
    pub narrow_paths: Vec<PathStatus>,
    /// Addresses that are tracked, with the metric of their route.
    pub tracked: Vec<(IpAddr, Option<u32>)>,
}

/// How many objects there are to be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Intended {
    /// Routes.
    pub routes: usize,
    /// Routes of those in the main table.
    pub underlay_routes: usize,
    /// Next-hop objects.
    pub next_hops: usize,
    /// VNIs.
    pub vnis: usize,
    /// Policy rules.
    pub rules: usize,
}

/// A far router whose way is narrower than the device that leads there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct PathStatus {
    /// Its tunnel endpoint.
    pub endpoint: IpAddr,
    /// Octets of a packet that the underlay carries there, outer headers included.
    pub outer: u16,
    /// What that leaves for a tenant's packet.
    pub mtu: u16,
    /// Probes found it; the kernel was told otherwise, by a router on the way.
    pub probed: bool,
}

/// A tunnel device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct DeviceStatus {
    /// Its name.
    pub name: String,
    /// How it carries packets.
    pub encapsulation: Encapsulation,
    /// The UDP port that it listens at and sends to, where that is not the encapsulation's own.
    pub port: Option<u16>,
    /// What a tenant's packet may have.
    pub mtu: u32,
    /// It is up.
    pub up: bool,
}

/// A tenant's table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct TenantTable {
    /// The tenant's name.
    pub name: String,
    /// Its number in the kernel.
    pub table: u32,
    /// Its VRF device, where tenants are VRFs.
    pub vrf: Option<String>,
    /// Its routes in the kernel.
    pub routes: usize,
    /// Its routes as intended.
    pub intended: usize,
    /// Attachments that do not exist, by name.
    pub missing: Vec<String>,
}

/// What was carried for a VNI to and from a router. Counters survive this process, and begin anew with the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Traffic {
    /// The VNI.
    pub vni: u32,
    /// The router at the far end; the unspecified address for those whose packets come from addresses that nobody announces.
    pub endpoint: IpAddr,
    /// Packets that came from it.
    pub received_packets: u64,
    /// Their octets, without the outer headers.
    pub received_octets: u64,
    /// Packets that went to it.
    pub sent_packets: u64,
    /// Their octets, without the outer headers.
    pub sent_octets: u64,
}

/// Packets that were dropped because they would have left their tenant.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Drops {
    /// From the overlay, with a VNI that no tenant here has.
    pub unknown_vni: u64,
    /// For an address of this router that is not the tenant's.
    pub foreign_address: u64,
    /// On their way out of another tenant's attachment, or of nobody's into one.
    pub foreign_attachment: u64,
    /// Neither IPv4, IPv6 nor ARP, or with tags that no VLAN asks for.
    pub other_protocol: u64,
    /// On their way out by a breakout with the source that they have in their tenant: nftables did not see to it.
    pub untranslated: u64,
    /// From the overlay, from an address that may not send this VNI.
    pub unknown_sender: u64,
}

/// A route that the kernel does not take.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RefusedRoute {
    /// The table.
    pub table: u32,
    /// The prefix.
    pub prefix: IpNet,
    /// The kernel's own words.
    pub error: String,
    /// How often it was tried.
    pub tries: u32,
}

/// A route of a tenant, in the kernel.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum KernelRoute {
    /// The kernel holds it.
    Installed {
        /// The next-hop object that it points to; `None` for the link of an attachment.
        next_hop: Option<u32>,
    },
    /// It is on its way.
    Pending,
    /// The kernel does not take it.
    Refused {
        /// The kernel's own words.
        error: String,
    },
}

/// A packet whose way is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packet {
    /// Where it goes.
    pub destination: IpAddr,
    /// Where it comes from, where that matters.
    pub source: Option<IpAddr>,
    /// Differentiated services code point, 0 to 63.
    pub dscp: u8,
}

/// What the kernel does with a tenant's packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KernelTrace {
    /// The table that the tenant's packets are looked up in, which is their mark too.
    pub table: u32,
    /// The tenant's VRF, where tenants are VRFs.
    pub vrf: Option<String>,
    /// An address of this router in the tenant, of the destination's family.
    pub own: Option<IpAddr>,
    /// The kernel's answer, or its reason for dropping the packet.
    pub route: Result<KernelMatch, String>,
    /// The tunnels that the route leads into; none where it leads to an attachment.
    pub tunnels: Vec<TunnelTrace>,
}

/// The route that a packet matches in the kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KernelMatch {
    /// The table that it stands in.
    pub table: u32,
    /// Its prefix.
    pub prefix: Option<IpNet>,
    /// The packet is for this router itself.
    pub local: bool,
    /// The next node.
    pub gateway: Option<IpAddr>,
    /// The link that it leaves by; absent where the next-hop object says.
    pub interface: Option<String>,
    /// Number of the next-hop object.
    pub next_hop: Option<u32>,
}

/// A tunnel that a packet may take.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TunnelTrace {
    /// Number of its next-hop object.
    pub next_hop: u32,
    /// The VNI of the outer header.
    pub vni: u32,
    /// How it is carried.
    pub encapsulation: Encapsulation,
    /// The UDP port that it goes to, where that is not the encapsulation's own.
    pub port: Option<u16>,
    /// The device that encapsulates.
    pub device: String,
    /// The router at the far end.
    pub destination: IpAddr,
    /// How the underlay reaches it, or why not.
    pub underlay: Result<KernelMatch, String>,
    /// What a tenant's packet may have.
    pub mtu: u32,
}
