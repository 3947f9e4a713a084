//! The overlay: label communities, (VNI, prefix) tables and the forwarding intent.
//!
//! Pure: no clock, socket, thread or log. [`label`] is the wire format of `docs/label-community.md`, [`import`] takes
//! from a neighbour's routes what it may not say, [`origins`] says which labels may lead where they do, [`export`] rewrites labels where a route leaves for a neighbour, [`table`] turns routes and configuration into [`intent`], and [`chain`] says which services packets pass;
//! [`words`] are those of configurations.

pub mod chain;
pub mod export;
pub mod import;
pub mod intent;
pub mod label;
pub mod origins;
pub mod table;
mod vni;
pub mod words;

use std::num::NonZeroU16;

pub use vni::{EndpointId, InvalidVni, Vni, VniSet};

/// How a packet is carried to an endpoint. The order is that of the wire format.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize,
)]
#[serde(rename_all = "kebab-case")]
pub enum Encapsulation {
    /// RFC 7348, Ethernet payload, UDP 4789.
    Vxlan,
    /// VXLAN-GPE, IP payload, UDP 4790.
    VxlanGpe,
    /// GRE with key = VNI.
    Gre,
}

/// The UDP port of VXLAN (RFC 7348 section 5).
pub const VXLAN_PORT: u16 = 4789;
/// The UDP port of VXLAN-GPE (draft-ietf-nvo3-vxlan-gpe).
pub const VXLAN_GPE_PORT: u16 = 4790;

/// The UDP ports of BFD over one hop, its echoes, and over several (RFC 5881 section 4, RFC 5883 section 5): no tunnel takes them.
pub const BFD_PORTS: [u16; 3] = [3784, 3785, 4784];

impl Encapsulation {
    /// The UDP port that routers take its packets at which say nothing else; GRE has none.
    pub fn default_port(self) -> Option<NonZeroU16> {
        match self {
            Self::Vxlan => NonZeroU16::new(VXLAN_PORT),
            Self::VxlanGpe => NonZeroU16::new(VXLAN_GPE_PORT),
            Self::Gre => None,
        }
    }
}

impl std::fmt::Display for Encapsulation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Vxlan => "vxlan",
            Self::VxlanGpe => "vxlan-gpe",
            Self::Gre => "gre",
        })
    }
}
