//! What a controller is told when it asks how a router does.

use serde::{Deserialize, Serialize};

use super::{Drops, Endpoint, Neighbor, Status, Tenant, Traffic};

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
