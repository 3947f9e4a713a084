//! What goes into the tenant tables and what can be asked of them.

use std::fmt;
use std::net::IpAddr;
use std::num::NonZeroU16;

use ipnet::IpNet;
use serde::Serialize;
use weft_bgp_wire::LargeCommunity;

use crate::chain::{Chain, Service};
use crate::intent::{Breakout, ForwardingNextHop, TenantId};
use crate::label::{Endpoint, Label};
use crate::origins::Origin;
use crate::{Encapsulation, EndpointId, Vni, VniSet};

/// This router in the overlay.
#[derive(Clone, Debug)]
pub struct OverlayConfig {
    /// Its part in the overlay; without it, routes only go to the main table.
    pub membership: Option<Membership>,
    /// Unlabelled best routes inside these prefixes go to the main table.
    pub install: Vec<IpNet>,
}

/// What makes a router part of the overlay.
#[derive(Clone, Debug)]
pub struct Membership {
    /// Global Administrator of the label communities.
    pub administrator: u32,
    /// Where its tunnels end. Labels name an IPv6 address by `id`, which the locator resolves.
    pub endpoint: IpAddr,
    /// Its endpoint id: its router id.
    pub id: EndpointId,
    /// What it accepts.
    pub encapsulation: Encapsulation,
    /// The UDP port that it takes packets at, where that is not the encapsulation's own: its locator says so.
    pub port: Option<NonZeroU16>,
    /// Announce the endpoint as a locator.
    pub announce_locator: bool,
    /// Locators of others go to the main table.
    pub install_underlay: bool,
    /// VNIs that get a table as soon as a label of them is accepted, with or without a tenant configured: an edge names
    /// itself for them.
    pub stitched: VniSet,
}

/// A tenant as configured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TenantConfig {
    /// Unique on this router.
    pub name: String,
    /// Labels what it announces.
    pub primary_vni: Vni,
    /// Further VNIs of its table.
    pub vnis: Vec<Vni>,
    /// Interfaces.
    pub attachments: Vec<String>,
    /// Announced while at least one attachment is up.
    pub prefixes: Vec<IpNet>,
    /// Where packets leave that the tenant's table has nothing for.
    pub breakout: Option<Breakout>,
    /// Its services: those of its chains, and those whose nodes are attached here.
    pub services: Vec<Service>,
    /// Its chains, by priority.
    pub chains: Vec<Chain>,
}

/// What the decision process compares (RFC 4271 section 9.1.2), once a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Preference {
    /// LOCAL_PREF.
    pub local_pref: u32,
    /// MULTI_EXIT_DISC.
    pub med: u32,
    /// The AS that it was learned from.
    pub neighbor_as: u32,
    /// Length of AS_PATH.
    pub as_path_length: u16,
    /// ORIGIN as on the wire.
    pub origin: u8,
    /// Learned by eBGP.
    pub ebgp: bool,
}

/// One valid path of a prefix.
#[derive(Clone, Debug)]
pub struct PathInput<'a> {
    /// The neighbour that it came from.
    pub source: u16,
    /// Tells the paths of one prefix apart.
    pub path_id: u32,
    /// Originated by this router.
    pub local: bool,
    /// The best path by the rules of BGP.
    pub best: bool,
    /// The session may carry several paths of a prefix (RFC 7911).
    pub add_path: bool,
    /// Which labels are accepted from that neighbour.
    pub accept: &'a VniSet,
    /// For the decision.
    pub preference: Preference,
    /// NEXT_HOP.
    pub next_hop: IpAddr,
    /// The underlay has a route to it.
    pub resolves: bool,
    /// Link bandwidth, 1,000 octets a second; 0 where the path says nothing.
    pub bandwidth: u32,
    /// All large communities.
    pub communities: &'a [LargeCommunity],
}

/// A prefix and path of our own to announce, or to withdraw.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OriginationChange {
    /// The prefix.
    pub prefix: IpNet,
    /// The tenant's primary VNI, or 0 for the locator: tenants with one prefix do not hide each other.
    pub path_id: u32,
    /// Its label communities; `None` withdraws.
    pub communities: Option<Vec<LargeCommunity>>,
}

/// Why a candidate is not used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reason {
    /// The prefix is this tenant's own on this router.
    LocalPrefix,
    /// The label, or its local next hop, names this router: a loop.
    OwnEndpoint,
    /// The controller says who hosts the VNI, and no router where the label leads to does.
    InvalidOrigin,
    /// The controller does not say who hosts the VNI there, and such labels are not used.
    UnknownOrigin,
    /// No locator tells the address of the endpoint id.
    NoLocator,
    /// The underlay has no route to the forwarding next hop.
    ForwardingNextHopUnreachable,
    /// Another has a higher LOCAL_PREF.
    LocalPref,
    /// Another has a shorter AS_PATH.
    AsPathLength,
    /// Another has a lower ORIGIN.
    Origin,
    /// Another from the same AS has a lower MULTI_EXIT_DISC.
    Med,
    /// Another was learned by eBGP.
    Ibgp,
    /// The forwarding next hop of another is nearer.
    UnderlayMetric,
    /// More equal ones than a group holds.
    GroupFull,
    /// One is enough, and another one it is.
    NotTheOne,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::LocalPrefix => "the prefix is local to the tenant here",
            Self::OwnEndpoint => "it names this router",
            Self::InvalidOrigin => {
                "invalid origin: by the domain's controller no router there hosts the VNI"
            }
            Self::UnknownOrigin => {
                "unknown origin: the domain's controller does not say who hosts the VNI"
            }
            Self::NoLocator => "no locator for the endpoint id",
            Self::ForwardingNextHopUnreachable => "no underlay route to the forwarding next hop",
            Self::LocalPref => "lower local preference",
            Self::AsPathLength => "longer AS path",
            Self::Origin => "higher origin",
            Self::Med => "higher MED",
            Self::Ibgp => "iBGP behind eBGP",
            Self::UnderlayMetric => "farther in the underlay",
            Self::GroupFull => "the group is full",
            Self::NotTheOne => "one is enough, and another is taken",
        })
    }
}

/// One way to a tenant's prefix: a label of a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// The label.
    pub label: Label,
    /// Where packets are tunnelled to; `None` while the locator of an endpoint id is not known.
    pub forwarding: Option<ForwardingNextHop>,
    /// What `forwarding` is the address of: the local next hop, or the endpoint itself.
    pub via: Endpoint,
    /// What the router there accepts.
    pub encapsulation: Encapsulation,
    /// `forwarding` is a local next hop; else the endpoint itself.
    pub stitched: bool,
    /// Whether the label may lead there.
    pub origin: Origin,
    /// The neighbour that the path came from.
    pub source: u16,
    /// Which of its paths.
    pub path_id: u32,
    /// For the decision.
    pub preference: Preference,
    /// Its share beside equal ones: link bandwidth, 1,000 octets a second; 0 where the path says nothing.
    pub bandwidth: u32,
}

/// A candidate with its verdict.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Judged {
    /// The candidate.
    pub candidate: Candidate,
    /// `None` where it is used.
    pub lost: Option<Reason>,
}

/// A prefix in a tenant's table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TenantRouteStatus {
    /// The prefix.
    pub prefix: IpNet,
    /// It is the tenant's own here.
    pub local: bool,
    /// All candidates, used ones first.
    pub candidates: Vec<Judged>,
}

/// A tenant as it is now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TenantStatus {
    /// Its number.
    pub id: TenantId,
    /// Its configuration.
    pub config: TenantConfig,
    /// Made because an edge stitches its VNI, not configured.
    pub stitched: bool,
    /// Attachments that are up.
    pub up: Vec<String>,
    /// Prefixes announced for it.
    pub announced: Vec<IpNet>,
    /// Routes to other routers.
    pub routes: usize,
}

/// A label that some route carries.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct LabelStatus {
    /// The label.
    pub label: Label,
    /// Prefixes that carry it.
    pub prefixes: usize,
}

/// What was ignored since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Counters {
    /// Labels from neighbours that may not send them.
    pub not_accepted: u64,
    /// Labels of a VNI without a table here.
    pub no_table: u64,
    /// Values that the format reserves.
    pub reserved: u64,
    /// Labels whose encapsulation this data plane does not have.
    pub unsupported_encapsulation: u64,
}
