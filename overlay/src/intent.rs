//! Forwarding intent: what the overlay wants the data plane to do, free of any kernel's words.
//!
//! The overlay hands the data plane a stream of [`IntentDelta`]s. Their sum is the whole intent; applying the same
//! delta twice changes nothing. Next-hop sets are shared: thousands of routes hold one `Arc` to the same
//! [`NextHopSet`], so that a data plane can map one set to one kernel object and move all of its routes at once.

use std::net::IpAddr;
use std::num::NonZeroU16;

use ipnet::IpNet;
use serde::Serialize;

use crate::chain::{Chain, Service};
use crate::{Encapsulation, EndpointId, Vni, VniSet};

/// A tenant's number on this router, dense from zero and stable while the process lives. It is not the local table's
/// number: that is the data plane's business.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
pub struct TenantId(pub u32);

/// What the data plane must know of a tenant, its routes apart.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct TenantIntent {
    /// Unique on this router; a stitching edge that was given no name for a VNI calls it `vni-N`.
    pub name: String,
    /// The VNI that packets of this tenant carry, and whose label its prefixes are announced with.
    pub primary_vni: Vni,
    /// Every VNI whose packets, arriving from the overlay, are routed in this tenant's table; includes
    /// `primary_vni`. Sorted, no duplicates.
    pub vnis: Vec<Vni>,
    /// Names of the interfaces where the tenant's packets enter. May name interfaces that do not exist yet. Sorted.
    pub attachments: Vec<String>,
    /// Where packets leave that the tenant's table has nothing for.
    pub breakout: Option<Breakout>,
    /// Its services, here and elsewhere.
    pub services: Vec<Service>,
    /// Its chains, the first that a packet matches being the one that it takes.
    pub chains: Vec<Chain>,
}

/// Where packets with a service's label go from this router.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ServiceState {
    /// The node that is attached here does its work.
    pub local: bool,
    /// Packets that this router itself puts on the way go to another router even so.
    pub prefer_remote: bool,
    /// The way to other routers that have the label.
    pub remote: Option<GroupId>,
}

/// A tenant's way to the Internet past the overlay.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Breakout {
    /// The only interface that the tenant's packets leave by; the main table leads there.
    pub interface: String,
    /// They leave with the interface's address as their source.
    pub source_nat: bool,
}

/// One way out of a tenant's table: encapsulate with `vni` and send to `address`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
pub struct ForwardingNextHop {
    /// The VNI (VXLAN) or key (GRE) of the outer header.
    pub vni: Vni,
    /// The encapsulation that the addressed router accepts.
    pub encapsulation: Encapsulation,
    /// The UDP port that it takes them at, where that is not the encapsulation's own.
    pub port: Option<NonZeroU16>,
    /// The outer destination: the local next hop, or the endpoint itself.
    pub address: IpAddr,
    /// The id that `address` was resolved from, for IPv6 addresses; the inner MAC address of Ethernet payloads is
    /// derived from it, or from the address itself for IPv4.
    pub endpoint_id: Option<EndpointId>,
}

/// Equal-cost ways out, sorted, without duplicates, never empty.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
pub struct NextHopSet(pub Vec<ForwardingNextHop>);

/// What routes share.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    /// The ways out in use.
    pub hops: NextHopSet,
    /// The share of each of them, 1 to 256; empty where all have the same.
    pub weights: Vec<u16>,
    /// There are others for when these fail: `hops` may change while routes use the group.
    pub has_others: bool,
    /// Several may be in use at once, now or when `hops` changes.
    pub may_share: bool,
    /// Flows by one of them stay there when others come or go, whatever the data plane does by itself.
    pub sticky: bool,
}

/// Names a [`Group`]. What it stands for may change: its routes follow without being touched.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
pub struct GroupId(pub u32);

/// One tenant route to install, or to remove where `group` is `None`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TenantRoute {
    /// The table that it belongs to.
    pub tenant: TenantId,
    /// The tenant's destination.
    pub prefix: IpNet,
    /// Where it leads.
    pub group: Option<GroupId>,
}

/// One route of a tenant's own site, learned from its router there, to install, or to remove where `via` is `None`. It goes
/// before a [`TenantRoute`] of the same prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SiteRoute {
    /// The table that it belongs to.
    pub tenant: TenantId,
    /// The destination.
    pub prefix: IpNet,
    /// The tenant's router, on the link of an attachment.
    pub via: Option<IpAddr>,
}

/// One route of the underlay (the main table) to install, or to remove where `via` is empty.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
pub struct UnderlayRoute {
    /// An endpoint's address, or any prefix that the configuration lets into the main table.
    pub prefix: IpNet,
    /// Gateways, resolved by the kernel; sorted.
    pub via: Vec<IpAddr>,
}

/// A batch of changes to the intent. Within one delta tenants come first, then groups that are made or changed, then
/// routes and services, then groups that go; of two entries for the same key the later one holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct IntentDelta {
    /// Tenants to create or change (`Some`) or to remove with all of their routes (`None`).
    pub tenants: Vec<(TenantId, Option<TenantIntent>)>,
    /// Groups to make or to change (`Some`), or to forget (`None`): no route uses those any more.
    pub groups: Vec<(GroupId, Option<Group>)>,
    /// Tenant routes.
    pub routes: Vec<TenantRoute>,
    /// Routes of tenants' own sites.
    pub sites: Vec<SiteRoute>,
    /// Routes of the main table.
    pub underlay: Vec<UnderlayRoute>,
    /// Services by label, to know or to change (`Some`), or to forget (`None`).
    pub services: Vec<(Vni, Option<ServiceState>)>,
    /// Routers that may send packets to this one, with the VNIs that these may have, or those that may no longer (`None`).
    pub senders: Vec<(IpAddr, Option<VniSet>)>,
}

impl IntentDelta {
    /// True where applying it would change nothing.
    pub fn is_empty(&self) -> bool {
        self.tenants.is_empty()
            && self.groups.is_empty()
            && self.routes.is_empty()
            && self.sites.is_empty()
            && self.underlay.is_empty()
            && self.services.is_empty()
            && self.senders.is_empty()
    }
}
