//! Devices that the data plane makes and changes, as netlink messages.

use std::net::IpAddr;

use super::octets::{attribute, attribute_u32, attributes, nested};
use crate::model::Carrier;

/// Writes the alias of a device, by its name. It is no part of the device's making: the kernel would not look at it.
pub(crate) fn put_link_alias(out: &mut Vec<u8>, name: &str, alias: &str) {
    out.extend_from_slice(&[0; 16]);
    put_link_name(out, name);
    attribute(out, libc::IFLA_IFALIAS, alias.as_bytes());
}

fn put_link_name(out: &mut Vec<u8>, name: &str) {
    let mut zero_ended = name.as_bytes().to_vec();
    zero_ended.push(0);
    attribute(out, libc::IFLA_IFNAME, &zero_ended);
}

/// Writes a tunnel device: one for all VNIs, which the packet's metadata names. `local` and `mac` are this router's.
pub(crate) fn put_tunnel_device(
    out: &mut Vec<u8>,
    carrier: Carrier,
    local: IpAddr,
    mac: [u8; 6],
    mtu: u32,
) {
    const IFLA_VXLAN_LOCAL: u16 = 4;
    const IFLA_VXLAN_LEARNING: u16 = 7;
    const IFLA_VXLAN_PORT: u16 = 15;
    const IFLA_VXLAN_LOCAL6: u16 = 17;
    const IFLA_VXLAN_UDP_ZERO_CSUM6_RX: u16 = 20;
    const IFLA_VXLAN_COLLECT_METADATA: u16 = 25;
    const IFLA_VXLAN_GPE: u16 = 27;
    const IFLA_VXLAN_VNIFILTER: u16 = 30;
    const IFLA_GRE_COLLECT_METADATA: u16 = 18;
    put_link_header(out, 0);
    put_link_name(out, &carrier.name());
    if carrier.is_ethernet() {
        attribute(out, libc::IFLA_ADDRESS, &mac);
    }
    attribute_u32(out, libc::IFLA_MTU, mtu);
    nested(out, libc::IFLA_LINKINFO, |out| {
        let kind: &[u8] = match carrier {
            Carrier::Vxlan(_) | Carrier::VxlanGpe(_) => b"vxlan",
            Carrier::Gre => b"gre",
            Carrier::Gre6 => b"ip6gre",
        };
        attribute(out, libc::IFLA_INFO_KIND, kind);
        nested(out, libc::IFLA_INFO_DATA, |out| match carrier.port() {
            Some(port) => {
                match local {
                    IpAddr::V4(local) => attribute(out, IFLA_VXLAN_LOCAL, &local.octets()),
                    IpAddr::V6(local) => attribute(out, IFLA_VXLAN_LOCAL6, &local.octets()),
                }
                attribute(out, IFLA_VXLAN_LEARNING, &[0]);
                attribute(out, IFLA_VXLAN_PORT, &port.to_be_bytes());
                // Hardware that computes no inner checksum sends none outside (RFC 6935); we always do.
                attribute(out, IFLA_VXLAN_UDP_ZERO_CSUM6_RX, &[1]);
                attribute(out, IFLA_VXLAN_COLLECT_METADATA, &[1]);
                if matches!(carrier, Carrier::VxlanGpe(_)) {
                    attribute(out, IFLA_VXLAN_GPE, &[]);
                }
                attribute(out, IFLA_VXLAN_VNIFILTER, &[1]);
            }
            None => attribute(out, IFLA_GRE_COLLECT_METADATA, &[]),
        });
    });
}

/// Writes a tenant's VRF device, whose slaves are routed in `table`.
pub(crate) fn put_vrf(out: &mut Vec<u8>, name: &str, table: u32) {
    const IFLA_VRF_TABLE: u16 = 1;
    put_link_header(out, 0);
    put_link_name(out, name);
    nested(out, libc::IFLA_LINKINFO, |out| {
        attribute(out, libc::IFLA_INFO_KIND, b"vrf");
        nested(out, libc::IFLA_INFO_DATA, |out| {
            attribute_u32(out, IFLA_VRF_TABLE, table);
        });
    });
}

/// Writes a change of a link's master; 0 sets it free.
pub(crate) fn put_link_master(out: &mut Vec<u8>, interface: u32, master: u32) {
    put_link(out, interface);
    attribute_u32(out, libc::IFLA_MASTER, master);
}

/// Writes `struct ifinfomsg` of a link that is to be up.
fn put_link_header(out: &mut Vec<u8>, interface: u32) {
    out.extend_from_slice(&[0; 4]);
    out.extend_from_slice(&interface.to_ne_bytes());
    let up = libc::IFF_UP as u32;
    out.extend_from_slice(&up.to_ne_bytes());
    out.extend_from_slice(&up.to_ne_bytes());
}

/// Writes a change of a device's MTU, and sets it up.
pub(crate) fn put_link_mtu(out: &mut Vec<u8>, interface: u32, mtu: u32) {
    put_link_header(out, interface);
    attribute_u32(out, libc::IFLA_MTU, mtu);
}

/// Writes a change of a device's name.
pub(crate) fn put_link_rename(out: &mut Vec<u8>, interface: u32, name: &str) {
    put_link(out, interface);
    put_link_name(out, name);
}

/// Writes a change of a device's MAC address.
pub(crate) fn put_link_mac(out: &mut Vec<u8>, interface: u32, mac: [u8; 6]) {
    put_link(out, interface);
    attribute(out, libc::IFLA_ADDRESS, &mac);
}

/// Writes a change of these flags of a device.
pub(crate) fn put_link_flags(out: &mut Vec<u8>, interface: u32, flags: i32, mask: i32) {
    out.extend_from_slice(&[0; 4]);
    out.extend_from_slice(&interface.to_ne_bytes());
    out.extend_from_slice(&(flags as u32).to_ne_bytes());
    out.extend_from_slice(&(mask as u32).to_ne_bytes());
}

/// Writes what names a device.
pub(crate) fn put_link(out: &mut Vec<u8>, interface: u32) {
    out.extend_from_slice(&[0; 4]);
    out.extend_from_slice(&interface.to_ne_bytes());
    out.extend_from_slice(&[0; 8]);
}

/// `RTM_GETSTATS`.
pub(crate) const RTM_GETSTATS: u16 = 94;
/// `IFLA_STATS_LINK_64`, the whole of a link's counters.
const STATS_LINK_64: u16 = 1;

/// Writes a question for the counters of a link.
pub(crate) fn stats_query(index: u32) -> Vec<u8> {
    let mut out = vec![0; 4];
    out.extend_from_slice(&index.to_ne_bytes());
    let mask: u32 = 1 << (STATS_LINK_64 - 1);
    out.extend_from_slice(&mask.to_ne_bytes());
    out
}

/// Octets that the link has sent, by the kernel's answer.
pub(crate) fn get_sent_octets(payload: &[u8]) -> Option<u64> {
    let (_, counters) = attributes(payload.get(12..)?).find(|(kind, _)| *kind == STATS_LINK_64)?;
    // Packets received and sent, then octets received and sent.
    Some(u64::from_ne_bytes(counters.get(24..32)?.try_into().ok()?))
}
