//! Services and service chains.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{TenantPath, Why};

/// A service of a tenant, as this router sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Service {
    /// The tenant; absent where this router only leads others to the service.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tenant: Option<String>,
    /// Its name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The VNI that is its label.
    pub label: u32,
    /// How its node is attached to this router, where it is.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub arms: Vec<ServiceArm>,
    /// How it does.
    pub health: Why<HealthCode>,
    /// `closed`, `open` or `over`: what becomes of its packets when its node fails.
    pub on_failure: String,
    /// `nearest`, `share` or `pinned`: which of several routers is taken.
    pub selection: String,
    /// Other routers that offer it, those in use first.
    pub offers: Vec<TenantPath>,
    /// Packets that came with its label from the overlay and were dropped here: its node does not work, or no chain is known here
    /// that has it.
    pub dropped: u64,
}

/// An interface to a service node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ServiceArm {
    /// Its name.
    pub interface: String,
    /// The node's addresses there.
    #[schema(value_type = Vec<String>)]
    pub node: Vec<IpAddr>,
}

/// How a service does on a router.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum HealthCode {
    /// Its node is attached here and works: the label is announced.
    Healthy,
    /// Its node is attached here and does not work: the label is withdrawn.
    Unhealthy,
    /// It is at another router.
    Elsewhere,
    /// It is nowhere.
    Nowhere,
}

/// A chain of a tenant in one direction, as this router goes through it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Chain {
    /// The tenant.
    pub tenant: String,
    /// Its name.
    pub name: String,
    /// `forward` or `reverse`.
    pub direction: String,
    /// Which packets it is for, of those that come in by the tenant's attachments; `all` where it has no condition.
    pub matches: String,
    /// The services in order.
    pub steps: Vec<ChainStep>,
    /// Packets that left the chain here, towards their destination.
    pub left: u64,
    /// Whether packets get through, as far as this router knows.
    pub state: Why<ChainCode>,
    /// What is to be known of it beside, such as that another domain that has the tenant has no such chain.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
}

/// Whether packets get through a chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum ChainCode {
    /// Through every service.
    Whole,
    /// Past a service that fails open.
    Skips,
    /// A service that is missing stops them.
    Broken,
}

/// A step of a chain.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ChainStep {
    /// The service.
    pub service: String,
    /// Its label.
    pub label: u32,
    /// What this router does with packets whose next step this is.
    pub way: Why<StepCode>,
    /// The service node, where it is attached here.
    #[schema(value_type = Option<String>)]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<IpAddr>,
    /// The interface to it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interface: Option<String>,
    /// Routers that packets are tunnelled to, where it is elsewhere.
    #[schema(value_type = Vec<String>)]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub routers: Vec<IpAddr>,
    /// Packets that this router put on the way to the service, or past it.
    pub packets: u64,
    /// Packets that it dropped for want of the service.
    pub dropped: u64,
}

/// What a router does with packets of a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum StepCode {
    /// Hands them to the service node, which is attached to it.
    Local,
    /// Tunnels them to a router that has the service.
    Remote,
    /// Goes on with the next step.
    Skipped,
    /// Drops them.
    Dropped,
}
