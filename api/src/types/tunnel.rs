//! Tunnels: what they carried, and the routers at their far ends.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

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
    /// The UDP port that packets go to there, where that is not their encapsulation's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// The underlay has a way to it.
    pub reachable: bool,
    /// How large packets to it may be; absent where the tunnel device alone says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<PathMtu>,
    /// What echo requests to it found; absent where none has been answered or lost yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub probes: Option<Probes>,
}

/// A way to a router that is narrower than the device that leads there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PathMtu {
    /// Octets of a tenant's packet.
    pub mtu: u32,
    /// Octets with the outer headers.
    pub outer: u32,
    /// Found by probes inside the tunnel; the kernel was told it otherwise, by a router on the way.
    pub probed: bool,
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
