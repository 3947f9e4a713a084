//! Label communities (docs/label-community.md), decoded.

use std::net::Ipv4Addr;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{Encapsulation, words};

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
        /// The UDP port at which the endpoint of the locator takes packets.
        LocatorPort = "locator-port",
    }
}

words! {
    /// Whether the label of a tenant or a service may lead where it does, by what the domain's controller knows, as RFC 6811 says it of
    /// routes.
    OriginState {
        /// A router there hosts what the VNI names, or passes its packets on.
        Valid = "valid",
        /// The controller says who does, and it is none of those: the label is not used.
        Invalid = "invalid",
        /// The controller does not say who does.
        Unknown = "unknown",
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
    /// The UDP port, on those that say one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// The endpoint's IPv4 address, where the label carries it.
    #[schema(value_type = Option<String>)]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<Ipv4Addr>,
    /// The endpoint's id, where the label carries that.
    #[schema(value_type = Option<String>)]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoint_id: Option<Ipv4Addr>,
    /// Whether it may lead there, on a path; absent where no controller says that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub origin: Option<OriginState>,
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
