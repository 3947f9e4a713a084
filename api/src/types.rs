//! What the API answers with.
//!
//! Times are seconds since; sizes are octets; prefixes, addresses and communities are texts in their usual form.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr};

use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

pub use crate::chains::*;

/// Why something is as it is: a word for programs and a sentence for humans.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Why<C> {
    /// For programs; the values are stable.
    pub code: C,
    /// For humans; may change.
    pub text: String,
}

impl<C> Why<C> {
    /// From both.
    pub fn new(code: C, text: impl Into<String>) -> Self {
        Self {
            code,
            text: text.into(),
        }
    }
}

/// A page of a list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Page<T> {
    /// The items, in order.
    pub items: Vec<T>,
    /// How many match in all, those of other pages too.
    pub total: u64,
    /// Hand this back as `cursor` for the next page; absent on the last one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_cursor: Option<String>,
}

/// Gives an enum of plain words its text form, the one that serde uses.
macro_rules! words {
    ($(#[$meta:meta])* $name:ident { $($(#[$doc:meta])* $variant:ident = $word:literal,)* }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
        pub enum $name {
            $($(#[$doc])* #[serde(rename = $word)] $variant,)*
        }

        impl $name {
            /// Every value.
            pub const ALL: &'static [Self] = &[$(Self::$variant),*];

            /// The word that stands for it.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $word,)* }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(self.as_str())
            }
        }
    };
}

words! {
    /// An address family.
    Family {
        /// AFI 1, SAFI 1.
        Ipv4Unicast = "ipv4-unicast",
        /// AFI 2, SAFI 1.
        Ipv6Unicast = "ipv6-unicast",
    }
}

words! {
    /// How packets are carried to an endpoint.
    Encapsulation {
        /// RFC 7348, Ethernet payload.
        Vxlan = "vxlan",
        /// VXLAN-GPE, IP payload.
        VxlanGpe = "vxlan-gpe",
        /// GRE with key.
        Gre = "gre",
    }
}

/// What the router is and how it does.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Status {
    /// Its name.
    pub name: String,
    /// BGP Identifier.
    #[schema(value_type = String, format = Ipv4)]
    pub router_id: Ipv4Addr,
    /// AS number.
    pub asn: u32,
    /// Version of the software.
    pub version: String,
    /// Seconds since the process started.
    pub uptime: u64,
    /// The routes of all neighbours are there, or have been waited for long enough.
    pub converged: bool,
    /// The overlay, where it is configured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub overlay: Option<OverlayStatus>,
    /// Configured neighbours.
    pub neighbors: u64,
    /// Neighbours whose session is established.
    pub neighbors_established: u64,
    /// Prefixes in the Loc-RIB.
    pub prefixes: Vec<FamilyCount>,
    /// Distinct sets of path attributes.
    pub attribute_sets: u64,
    /// Tenants, those included that only pass through.
    pub tenants: u64,
    /// Prefixes in all tenants' tables.
    pub tenant_routes: u64,
    /// Routes of ours that the kernel holds.
    pub kernel_routes: u64,
    /// Routes that the kernel refused.
    pub kernel_refused: u64,
    /// Resident memory of the process, in octets.
    pub memory: u64,
    /// What an operator should look at: at most 100.
    #[serde(default)]
    pub alarms: Vec<Alarm>,
}

/// Something that is wrong in the network, and that this router cannot mend.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Alarm {
    /// Which kind: `overlap-hidden`, tenants of two domains have one prefix, and the transit between passes one of them on.
    pub code: String,
    /// What exactly.
    pub text: String,
}

/// The overlay as this router takes part in it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct OverlayStatus {
    /// Global Administrator of its label communities.
    pub global_administrator: u32,
    /// The address here that ends tunnels.
    #[schema(value_type = String)]
    pub endpoint: IpAddr,
    /// How packets are carried to it.
    pub encapsulation: Encapsulation,
}

/// A number by family.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct FamilyCount {
    /// The family.
    pub family: Family,
    /// How many.
    pub count: u64,
}

words! {
    /// What a neighbour is to this router.
    NeighborKind {
        /// In another AS.
        Ebgp = "ebgp",
        /// In our AS.
        Ibgp = "ibgp",
        /// In our AS, and we reflect for it.
        IbgpClient = "ibgp-client",
    }
}

words! {
    /// The states of RFC 4271 section 8.2.2.
    SessionState {
        /// Refuses connections; waits out its back-off or an administrator.
        Idle = "idle",
        /// Waits for the connection that it opens.
        Connect = "connect",
        /// Waits for a connection, or for the time to open one.
        Active = "active",
        /// Has sent its OPEN.
        OpenSent = "open-sent",
        /// Has accepted the neighbour's OPEN.
        OpenConfirm = "open-confirm",
        /// Exchanges routes.
        Established = "established",
    }
}

words! {
    /// Why a session is down, or was last.
    DownCode {
        /// It was never up.
        NeverUp = "never-up",
        /// An administrator stopped it.
        AdminDown = "admin-down",
        /// The neighbour ended it with a NOTIFICATION.
        NotificationReceived = "notification-received",
        /// We ended it with a NOTIFICATION.
        NotificationSent = "notification-sent",
        /// The transport connection broke.
        ConnectionLost = "connection-lost",
        /// The transport connection could not be opened.
        ConnectFailed = "connect-failed",
        /// The neighbour restarted.
        Restarted = "restarted",
    }
}

/// A BGP neighbour.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Neighbor {
    /// Its address.
    #[schema(value_type = String)]
    pub address: IpAddr,
    /// The tenant whose own router it is; the session runs in that tenant.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tenant: Option<String>,
    /// Its AS number.
    pub asn: u32,
    /// What it is to us.
    pub kind: NeighborKind,
    /// The description of the configuration.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// State of its session.
    pub state: SessionState,
    /// Seconds since the session went up, or down; absent where it never was up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<u64>,
    /// How often the session went down.
    pub flaps: u64,
    /// Why it is down, or was last; absent where it never was down.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub down: Option<Why<DownCode>>,
    /// Its routes of an earlier session are kept (RFC 4724).
    pub stale: bool,
    /// What was negotiated, while the session is established.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub negotiated: Option<Negotiated>,
    /// Prefixes by family.
    pub prefixes: Vec<NeighborPrefixes>,
    /// UPDATE messages received.
    pub updates: u64,
    /// Prefixes announced by it that the import rules refused.
    pub rejected: u64,
    /// UPDATEs treated as withdraw (RFC 7606).
    pub treat_as_withdraw: u64,
    /// Attributes discarded (RFC 7606).
    pub attribute_discard: u64,
    /// Routes kept back because their attributes leave no room for a prefix in a message.
    pub too_large: u64,
}

/// What both ends of a session agreed on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Negotiated {
    /// The neighbour's BGP Identifier.
    #[schema(value_type = String)]
    pub router_id: Ipv4Addr,
    /// Hold time in seconds, 0 for none.
    pub hold_time: u64,
    /// Families of both ends.
    pub families: Vec<Family>,
    /// Families with several paths a prefix towards the neighbour (RFC 7911).
    pub add_path_send: Vec<Family>,
    /// Families with several paths a prefix from the neighbour.
    pub add_path_receive: Vec<Family>,
    /// 4-octet AS numbers (RFC 6793).
    pub four_octet_as: bool,
    /// Longest message that we may send, in octets.
    pub max_message: u64,
    /// ROUTE-REFRESH (RFC 2918).
    pub route_refresh: bool,
    /// The neighbour's restart time in seconds, where both ends restart gracefully (RFC 4724).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub graceful_restart: Option<u64>,
}

/// Prefixes exchanged with a neighbour.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct NeighborPrefixes {
    /// The family.
    pub family: Family,
    /// Paths held from it.
    pub received: u64,
    /// Prefixes announced to it.
    pub advertised: u64,
}

words! {
    /// Why a BGP path is not the best, in the order of the decision process.
    LostCode {
        /// The next hop does not resolve.
        NextHopUnreachable = "next-hop-unreachable",
        /// Another is our own route.
        NotLocal = "not-local",
        /// Another has a higher LOCAL_PREF.
        LocalPref = "local-pref",
        /// Another has a shorter AS_PATH.
        AsPathLength = "as-path-length",
        /// Another has a lower ORIGIN.
        Origin = "origin",
        /// Another from the same AS has a lower MULTI_EXIT_DISC.
        Med = "med",
        /// Another was learned by eBGP.
        Ibgp = "ibgp",
        /// The next hop of another is nearer.
        IgpMetric = "igp-metric",
        /// Another comes from a lower BGP Identifier.
        RouterId = "router-id",
        /// Another has a shorter CLUSTER_LIST.
        ClusterListLength = "cluster-list-length",
        /// Another comes from a lower neighbour address.
        PeerAddress = "peer-address",
        /// Another has a lower path identifier.
        PathId = "path-id",
    }
}

/// A BGP route: a prefix and its paths.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Route {
    /// The prefix.
    #[schema(value_type = String)]
    pub prefix: IpNet,
    /// Its paths, the best first.
    pub paths: Vec<Path>,
}

/// A path of a BGP route.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Path {
    /// The neighbour that it came from; absent on a route of this router.
    #[schema(value_type = Option<String>)]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub neighbor: Option<IpAddr>,
    /// Path identifier as received (RFC 7911), 0 without.
    pub path_id: u32,
    /// The best one of its prefix.
    pub best: bool,
    /// Why it is not the best.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lost: Option<Why<LostCode>>,
    /// Kept over the neighbour's restart.
    pub stale: bool,
    /// Next hop; absent on a route of this router.
    #[schema(value_type = Option<String>)]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_hop: Option<IpAddr>,
    /// `igp`, `egp` or `incomplete`.
    pub origin: String,
    /// AS_PATH: numbers with spaces between, sets in braces.
    pub as_path: String,
    /// LOCAL_PREF, where it is there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub local_pref: Option<u32>,
    /// MULTI_EXIT_DISC, where it is there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub med: Option<u32>,
    /// Communities (RFC 1997).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub communities: Vec<String>,
    /// Extended communities (RFC 4360).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub extended_communities: Vec<String>,
    /// Large communities (RFC 8092); labels of the overlay are in `labels` too.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub large_communities: Vec<String>,
    /// The label communities among them, decoded.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub labels: Vec<Label>,
    /// ORIGINATOR_ID (RFC 4456).
    #[schema(value_type = Option<String>)]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub originator_id: Option<Ipv4Addr>,
    /// CLUSTER_LIST (RFC 4456).
    #[schema(value_type = Vec<String>)]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub cluster_list: Vec<Ipv4Addr>,
}

words! {
    /// What a label community says.
    LabelKind {
        /// A tenant node is behind this endpoint.
        Tenant = "tenant",
        /// A service node is.
        Service = "service",
        /// The router of this domain that leads to the endpoint.
        LocalNextHop = "local-next-hop",
        /// The NLRI is the address of this endpoint id.
        Locator = "locator",
    }
}

/// A label community (docs/label-community.md), decoded.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Label {
    /// As a large community.
    pub community: String,
    /// What it says.
    pub kind: LabelKind,
    /// The VNI; absent where it means every label of the route, and on locators.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vni: Option<u32>,
    /// How packets are carried to the endpoint.
    pub encapsulation: Encapsulation,
    /// The endpoint's IPv4 address, where the label carries it.
    #[schema(value_type = Option<String>)]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<Ipv4Addr>,
    /// The endpoint's id, where the label carries that.
    #[schema(value_type = Option<String>)]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoint_id: Option<Ipv4Addr>,
}

/// A label community in use.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct LabelUse {
    /// The label.
    pub label: Label,
    /// The tenant whose table it feeds, where there is one here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tenant: Option<String>,
    /// How many prefixes carry it.
    pub prefixes: u64,
}

/// A tenant on this router.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Tenant {
    /// Its name.
    pub name: String,
    /// The primary VNI.
    pub vni: u32,
    /// Every VNI that is routed in its table, the primary one too.
    pub vnis: Vec<u32>,
    /// The number of its table in the kernel, where it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub table: Option<u32>,
    /// Where its packets enter.
    pub attachments: Vec<Attachment>,
    /// The prefixes that it announces from here, the withdrawn ones not counted.
    #[schema(value_type = Vec<String>)]
    pub prefixes: Vec<IpNet>,
    /// Not configured here: this router passes its packets on between neighbours.
    pub stitched: bool,
    /// Prefixes in its table.
    pub routes: u64,
}

/// An interface where a tenant's packets enter.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Attachment {
    /// Its name.
    pub interface: String,
    /// It is there and up.
    pub up: bool,
}

/// A prefix in a tenant's table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TenantRoute {
    /// The prefix.
    #[schema(value_type = String)]
    pub prefix: IpNet,
    /// This router announces it.
    pub local: bool,
    /// The paths, the chosen ones first.
    pub paths: Vec<TenantPath>,
    /// What the kernel holds.
    pub kernel: KernelState,
}

words! {
    /// Why a path is not used in a tenant's table: first what makes it ineligible, then the decision process.
    NotChosenCode {
        /// The prefix is this tenant's own on this router.
        LocalPrefix = "local-prefix",
        /// The label, or its local next hop, names this router: a loop.
        OwnEndpoint = "own-endpoint",
        /// No locator tells the address of the endpoint id.
        NoLocator = "no-locator",
        /// The underlay has no route to the forwarding next hop.
        ForwardingNextHopUnreachable = "forwarding-next-hop-unreachable",
        /// Another has a higher LOCAL_PREF.
        LocalPref = "local-pref",
        /// Another has a shorter AS_PATH.
        AsPathLength = "as-path-length",
        /// Another has a lower ORIGIN.
        Origin = "origin",
        /// Another from the same AS has a lower MULTI_EXIT_DISC.
        Med = "med",
        /// Another was learned by eBGP.
        Ibgp = "ibgp",
        /// The forwarding next hop of another is nearer.
        UnderlayMetric = "underlay-metric",
        /// More equal ones than a group holds.
        GroupFull = "group-full",
        /// One is enough, and another one it is.
        NotTheOne = "not-the-one",
    }
}

/// A path in a tenant's table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TenantPath {
    /// The neighbour that it came from; absent on a prefix of this router.
    #[schema(value_type = Option<String>)]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub neighbor: Option<IpAddr>,
    /// The label.
    pub label: Label,
    /// The endpoint that the label addresses, where it resolves.
    #[schema(value_type = Option<String>)]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<IpAddr>,
    /// The router of this domain that leads there, where the path names one.
    #[schema(value_type = Option<String>)]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub local_next_hop: Option<IpAddr>,
    /// LOCAL_PREF, 100 where the path has none.
    pub local_pref: u32,
    /// Length of AS_PATH.
    pub as_path_length: u32,
    /// Packets take it.
    pub chosen: bool,
    /// Why they do not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_chosen: Option<Why<NotChosenCode>>,
}

words! {
    /// How the kernel stands to a route.
    KernelCode {
        /// It holds it as it should be.
        Installed = "installed",
        /// It has not been told yet.
        Pending = "pending",
        /// It refused it.
        Refused = "refused",
        /// It is not meant to hold it: nothing is chosen, or the prefix is the tenant's own.
        None = "none",
    }
}

/// What the kernel holds of a route.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct KernelState {
    /// How it stands to the route.
    pub code: KernelCode,
    /// The kernel's own words, where it refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// Where it sends packets.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub next_hops: Vec<KernelNextHop>,
}

/// One way out of a tenant's table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct KernelNextHop {
    /// VNI or key of the outer header.
    pub vni: u32,
    /// How it is carried.
    pub encapsulation: Encapsulation,
    /// Outer destination.
    #[schema(value_type = String)]
    pub address: IpAddr,
}

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
    /// On their way out of another tenant's attachment.
    pub foreign_attachment: u64,
}

/// A device that ends tunnels.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Device {
    /// Its name.
    pub name: String,
    /// How it carries packets.
    pub encapsulation: Encapsulation,
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

/// What was carried for a VNI to and from a router.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Traffic {
    /// The tenant; absent where it is no longer here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tenant: Option<String>,
    /// The VNI of the packets.
    pub vni: u32,
    /// The router at the far end of the tunnel.
    #[schema(value_type = String)]
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

/// A router that tenants' packets are tunnelled to, or may be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Endpoint {
    /// Where its tunnels end.
    #[schema(value_type = String)]
    pub address: IpAddr,
    /// The underlay has a way to it.
    pub reachable: bool,
    /// What echo requests to it found; absent where none has been answered or lost yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub probes: Option<Probes>,
}

/// What echo requests to a router found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Probes {
    /// Those that were answered.
    pub answered: u64,
    /// Those that were not, before the next one was sent.
    pub lost: u64,
    /// The latest of them that `recent_lost` and `round_trip` are of: 32 at most.
    pub recent: u32,
    /// How many of the latest were lost.
    pub recent_lost: u32,
    /// Of the latest; absent where all were lost.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub round_trip: Option<RoundTrip>,
}

/// Round-trip times, in microseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RoundTrip {
    /// The latest.
    pub last: u64,
    /// The shortest.
    pub least: u64,
    /// Their mean.
    pub mean: u64,
    /// The longest.
    pub most: u64,
}

/// How a router does, for a controller that asks.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Performance {
    /// What is counted in `traffic`, `drops` and `probes` is of so many seconds; absent where it is of all the time that there are counters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seconds: Option<f64>,
    /// The router as a whole; absent where one tenant was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<Status>,
    /// Sessions and prefixes.
    pub neighbors: Vec<Neighbor>,
    /// Tenants.
    pub tenants: Vec<Tenant>,
    /// Packets and octets, by VNI and far end.
    pub traffic: Vec<Traffic>,
    /// The routers at the far ends, with round-trip times and loss.
    pub endpoints: Vec<Endpoint>,
    /// Dropped packets; absent where one tenant was asked for, and where the kernel does not count them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub drops: Option<Drops>,
}

words! {
    /// How a traced packet fares.
    TraceCode {
        /// The kernel sends it as the overlay decided.
        Forwarded = "forwarded",
        /// It is delivered on this router's own attachments.
        Delivered = "delivered",
        /// The kernel does something else than the overlay decided.
        Differs = "differs",
        /// The underlay does not reach the router that it is to go to.
        UnderlayUnreachable = "underlay-unreachable",
        /// The tenant has no way to the destination.
        NoRoute = "no-route",
        /// A service of its chain is missing, and stops it.
        ChainBroken = "chain-broken",
    }
}

/// The way of a tenant's packet through this router, as the overlay decided and as the kernel answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Trace {
    /// The tenant.
    pub tenant: String,
    /// Where the packet goes.
    #[schema(value_type = String)]
    pub destination: IpAddr,
    /// The route of the tenant's table that it matches: labels, endpoints, local next hops.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub route: Option<TenantRoute>,
    /// The table that the kernel looks into for the tenant.
    pub table: u32,
    /// The route that matches in the kernel.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kernel: Option<TraceMatch>,
    /// Why the kernel drops it, in its own words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// The tunnels that it may go into.
    pub tunnels: Vec<TraceTunnel>,
    /// How it fares.
    pub verdict: Why<TraceCode>,
    /// The service chain that it takes first, when it comes in by an attachment of its tenant; what is above is behind it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub chain: Option<Chain>,
    /// What would have to be known of the packet to say which chain it takes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub chain_needs: Option<String>,
    /// Who answered to packets that were sent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub live: Option<TraceLive>,
}

/// What became of packets that were sent as the tenant's.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TraceLive {
    /// The address of this router that they were sent from.
    #[schema(value_type = Option<String>)]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<IpAddr>,
    /// The destination answered.
    pub reached: bool,
    /// Why nothing could be sent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// Who answered to each TTL, from 1 on.
    pub hops: Vec<TraceHop>,
}

words! {
    /// What the answer to a packet says.
    TraceAnswer {
        /// Nobody answered in time.
        None = "none",
        /// The TTL ended there: a router on the way.
        TimeExceeded = "time-exceeded",
        /// The destination answered.
        Reply = "reply",
        /// The packet goes no further.
        Unreachable = "unreachable",
    }
}

/// Who answered to a packet of one TTL.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TraceHop {
    /// The TTL.
    pub ttl: u8,
    /// Who.
    #[schema(value_type = Option<String>)]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<IpAddr>,
    /// How long the answer took, microseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub round_trip: Option<u64>,
    /// What it says.
    pub answer: TraceAnswer,
}

/// A route of the kernel that a packet matches.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TraceMatch {
    /// The table that it stands in.
    pub table: u32,
    /// Its prefix.
    #[schema(value_type = Option<String>)]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prefix: Option<IpNet>,
    /// The packet is for this router itself.
    pub local: bool,
    /// The next node.
    #[schema(value_type = Option<String>)]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gateway: Option<IpAddr>,
    /// The interface that it leaves by.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interface: Option<String>,
    /// Number of the next-hop object.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_hop: Option<u32>,
}

/// A tunnel that a packet may take.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TraceTunnel {
    /// Number of its next-hop object.
    pub next_hop: u32,
    /// The VNI of the outer header.
    pub vni: u32,
    /// How it is carried.
    pub encapsulation: Encapsulation,
    /// The device that encapsulates.
    pub device: String,
    /// The router at the far end.
    #[schema(value_type = String)]
    pub router: IpAddr,
    /// The longest packet of the tenant that fits, in octets.
    pub mtu: u32,
    /// The route of the underlay to that router.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub underlay: Option<TraceMatch>,
    /// Why there is none, in the kernel's own words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}
