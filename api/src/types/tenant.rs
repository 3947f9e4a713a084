//! Tenants and their tables: paths, why one is not used, and what the kernel holds of a route.

use std::net::IpAddr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{Encapsulation, Label, Verdict, Why, words};

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
    /// Whether its packets get where they should go, as far as this router knows.
    #[serde(default)]
    pub verdict: Verdict,
}

/// An interface where a tenant's packets enter.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Attachment {
    /// Its name.
    pub interface: String,
    /// It is there and up.
    pub up: bool,
    /// There is no interface of this name.
    #[serde(default)]
    pub missing: bool,
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
        /// By the domain's controller no router where the label leads to hosts the VNI.
        InvalidOrigin = "invalid-origin",
        /// The domain's controller does not say who hosts the VNI there.
        UnknownOrigin = "unknown-origin",
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
    /// The UDP port that packets go to, where that is not the encapsulation's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// Outer destination.
    #[schema(value_type = String)]
    pub address: IpAddr,
}
