//! Whether packets get where they should go, and what keeps them from it.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Whether the router forwards, as far as it knows.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Forwarding {
    /// What follows from the conditions.
    pub verdict: Verdict,
    /// Seconds that the worst of the conditions has lasted; absent where there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<u64>,
    /// What is wrong, the worst first: at most 1000.
    #[serde(default)]
    pub conditions: Vec<Condition>,
}

/// What the router says of its forwarding.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ToSchema,
)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// Nothing is known to keep packets from where they should go.
    #[default]
    Forwarding,
    /// Some packets are lost, or may be.
    Degraded,
    /// No tenant's packet gets through this router.
    Down,
}

impl Verdict {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Forwarding, Self::Degraded, Self::Down];

    /// As it is written in JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Forwarding => "forwarding",
            Self::Degraded => "degraded",
            Self::Down => "down",
        }
    }
}

/// A fault that lasts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Condition {
    /// Which kind, for programs: `route-refused`, `device`, `netlink`, …
    pub code: String,
    /// What it is about: a device, a tenant, an endpoint.
    pub subject: String,
    /// What it costs.
    pub severity: Verdict,
    /// What is wrong.
    pub text: String,
    /// What an operator can do, where that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remedy: Option<String>,
    /// Seconds that it has lasted.
    pub since: u64,
    /// How often it was found.
    pub count: u64,
}
