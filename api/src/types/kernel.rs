//! What the router holds in the kernel, and what the kernel refused.

use std::net::IpAddr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{Encapsulation, Forwarding, Page};

/// What this router holds in the kernel. What it holds of one route is with the tenant's routes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Kernel {
    /// Release of the kernel.
    pub release: String,
    /// The devices that end tunnels.
    pub devices: Vec<Device>,
    /// How tenants are kept apart.
    pub segmentation: Segmentation,
    /// The intent is whole, and what an earlier process left over is gone.
    pub settled: bool,
    /// Whether packets get where they should go.
    pub forwarding: Forwarding,
    /// Objects of ours by sort: routes, underlay routes, next hops, VNIs, rules.
    pub objects: Vec<ObjectCount>,
    /// Requests sent that change something, since the start.
    pub requests: u64,
    /// How often what was ours had been changed by somebody else, and was repaired.
    pub repairs: u64,
    /// How often the kernel's events came faster than they were read, and everything was read anew.
    pub events_lost: u64,
    /// Packets dropped because they would have left their tenant; absent where the kernel does not count them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub drops: Option<Drops>,
    /// The tables of tenants, by number.
    pub tables: Vec<KernelTable>,
    /// Addresses of next hops and endpoints, with what the underlay says of them.
    pub tracked: Vec<Tracked>,
    /// Routes that the kernel refused.
    pub refused: Page<RefusedRoute>,
}

/// Packets that were dropped because they would have left their tenant.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Drops {
    /// From the overlay, with a VNI that no tenant here has.
    pub unknown_vni: u64,
    /// For an address of this router that is not the tenant's.
    pub foreign_address: u64,
    /// On their way out of another tenant's attachment, or of nobody's into one.
    pub foreign_attachment: u64,
    /// Neither IPv4, IPv6 nor ARP, or with tags that no VLAN asks for.
    #[serde(default)]
    pub other_protocol: u64,
    /// On their way out by a breakout with the source that they have in their tenant.
    #[serde(default)]
    pub untranslated: u64,
    /// From the overlay, from an address that may not send this VNI: no label, local next hop or locator that is accepted names it.
    #[serde(default)]
    pub unknown_sender: u64,
}

/// A device that ends tunnels.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Device {
    /// Its name.
    pub name: String,
    /// How it carries packets.
    pub encapsulation: Encapsulation,
    /// The UDP port that it listens at and sends to, where that is not the encapsulation's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// The longest packet of a tenant, in octets.
    pub mtu: u32,
    /// It is up.
    pub up: bool,
}

/// How tenants are kept apart in the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Segmentation {
    /// Each has a VRF device.
    Vrf,
    /// Each has a table, and policy rules lead into it.
    Table,
}

/// How many objects of one sort.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ObjectCount {
    /// The sort.
    pub object: String,
    /// How many there are to be.
    pub intended: u64,
    /// How many the kernel holds.
    pub count: u64,
}

/// A tenant's table in the kernel.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct KernelTable {
    /// Its number.
    pub table: u32,
    /// The tenant.
    pub tenant: String,
    /// Its VRF device, where tenants are VRFs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vrf: Option<String>,
    /// How many routes it is to have.
    pub intended: u64,
    /// Routes in it.
    pub routes: u64,
}

/// An address that packets are sent to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Tracked {
    /// The address.
    #[schema(value_type = String)]
    pub address: IpAddr,
    /// Metric of the route to it; absent where there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metric: Option<u32>,
}

/// A route that the kernel refused; it is tried again with back-off.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RefusedRoute {
    /// The tenant; absent for the main table.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tenant: Option<String>,
    /// The kernel's table.
    pub table: u32,
    /// The prefix.
    #[schema(value_type = String)]
    pub prefix: IpNet,
    /// The kernel's own words.
    pub error: String,
    /// How often it was tried.
    pub tries: u32,
}
