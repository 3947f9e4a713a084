//! BGP routes: the paths of the Loc-RIB, and why one is not the best (RFC 4271 section 9).

use std::net::{IpAddr, Ipv4Addr};

use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{Label, Why, words};

words! {
    /// Why a BGP path is not the best, in the order of the decision process.
    LostCode {
        /// The next hop does not resolve.
        NextHopUnreachable = "next-hop-unreachable",
        /// Another is our own route.
        NotLocal = "not-local",
        /// BFD to the neighbour is down, and its routes are kept in case that it restarts.
        LastResort = "last-resort",
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
