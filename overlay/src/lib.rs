//! Label communities, tenant tables and the forwarding intent. Pure: no clock, socket, thread or log.

pub mod intent;

/// A global VNI label, 1..=0xFFFFFE.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize)]
pub struct Vni(u32);

/// An endpoint id: the router id of the router that owns the endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize)]
pub struct EndpointId(pub std::net::Ipv4Addr);

/// How a packet is carried to an endpoint.
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
