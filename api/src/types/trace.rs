//! The way of a tenant's packet.

use std::net::IpAddr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{Chain, Encapsulation, Forwarding, TenantRoute, Why, words};

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
    /// Whether the router as a whole forwards: what may keep the packet from its way all the same.
    #[serde(default)]
    pub forwarding: Forwarding,
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
    /// Octets of each packet, where that was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<u16>,
    /// The largest of that size or less that the destination answered to; absent where it answered to none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub largest: Option<u16>,
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
        /// It does not fit into what comes next.
        TooLarge = "too-large",
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
    /// What fits into what comes next, octets.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mtu: Option<u16>,
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
    /// The UDP port that packets go to, where that is not the encapsulation's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
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
