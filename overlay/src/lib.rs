//! The overlay: label communities, (VNI, prefix) tables and the forwarding intent.
//!
//! Pure: no clock, socket, thread or log. [`label`] is the wire format of `docs/label-community.md`, [`export`] rewrites
//! labels where a route leaves for a neighbour, [`table`] turns routes and configuration into [`intent`], and [`chain`] says which services packets pass.

pub mod chain;
pub mod export;
pub mod intent;
pub mod label;
pub mod table;
mod vni;

pub use vni::{EndpointId, InvalidVni, Vni, VniSet};

/// How a packet is carried to an endpoint. The order is that of the wire format.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Encapsulation {
    /// RFC 7348, Ethernet payload, UDP 4789.
    Vxlan,
    /// VXLAN-GPE, IP payload, UDP 4790.
    VxlanGpe,
    /// GRE with key = VNI.
    Gre,
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
