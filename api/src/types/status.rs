//! The router as a whole.

use std::net::{IpAddr, Ipv4Addr};

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{BfdStatus, Encapsulation, Family, Forwarding};

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
    /// Whose routes are still to come, where they have not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub awaited: Option<Awaited>,
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
    /// BFD, where it has run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bfd: Option<BfdStatus>,
    /// TCP segments that came without the signature that they were to have (TCP MD5, RFC 2385), since this network namespace was made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signatures: Option<Signatures>,
    /// Resident memory of the process, in octets.
    pub memory: u64,
    /// Whether packets get where they should go.
    pub forwarding: Forwarding,
    /// What an operator should look at: at most 100.
    #[serde(default)]
    pub alarms: Vec<Alarm>,
}

/// TCP segments that the kernel has refused for their signatures; of all programs in the network namespace.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize, PartialEq, Eq, ToSchema)]
pub struct Signatures {
    /// They had none, and were to have one.
    pub missing: u64,
    /// They had one, and were to have none.
    pub unexpected: u64,
    /// They had one that another key has made.
    pub wrong: u64,
}

/// Neighbours that a router waits for after its start, before it announces what it knows (RFC 4724 section 4.1).
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq, Eq, ToSchema)]
pub struct Awaited {
    /// By address. Empty where the next hops of their routes are still being looked up.
    #[schema(value_type = Vec<String>)]
    pub neighbors: Vec<IpAddr>,
    /// It ends in so many seconds at the latest.
    pub at_most: u64,
}

/// Something that is wrong, and that this router cannot mend.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Alarm {
    /// Which kind: `locator-conflict`, two routers announce one endpoint id as theirs; `overlap-hidden`, tenants of two domains have one prefix, and the transit between passes one of them on;
    /// `invalid-origin`, labels lead where nobody hosts what they name; `foreign-endpoint`, a router of the domain names other routers' endpoints;
    /// `unsigned-session`, a neighbour of the domain does not sign; `signatures-refused`, a session that is signed is not up, and segments are refused for their signatures;
    /// `record-refused`, a neighbour that a source tells of cannot be; `source-silent`, one of them says nothing.
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
