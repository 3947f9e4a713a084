//! What holds where the file says nothing.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;

use weft_api::Address;
use weft_bgp_wire::{Asn, Family, RouterId};
use weft_overlay::Encapsulation;

use super::router::GracefulRestart;

pub(crate) fn listen() -> Vec<Address> {
    vec![Address::default()]
}

pub(crate) fn no_id() -> RouterId {
    RouterId(Ipv4Addr::UNSPECIFIED)
}

pub(crate) fn is_no_id(id: &RouterId) -> bool {
    *id == no_id()
}

pub(crate) fn no_asn() -> Asn {
    Asn(0)
}

pub(crate) fn is_no_asn(asn: &Asn) -> bool {
    *asn == no_asn()
}

pub(crate) fn is_zero(number: &u32) -> bool {
    *number == 0
}

pub(crate) fn no_endpoint() -> IpAddr {
    Ipv4Addr::UNSPECIFIED.into()
}

pub(crate) fn peers() -> String {
    "/weft/peers".to_owned()
}

pub(crate) fn state() -> PathBuf {
    PathBuf::from("/var/lib/weft")
}

pub(crate) fn probe_interval() -> u32 {
    1000
}

pub(crate) fn bfd_interval() -> u32 {
    300
}

pub(crate) fn bfd_multiplier() -> u8 {
    3
}

pub(crate) fn priority() -> u32 {
    100
}

pub(crate) fn yes() -> bool {
    true
}

pub(crate) fn endpoint_probe_interval() -> u16 {
    10
}

/// RFC 4271 section 10.
pub(crate) fn hold_time() -> u16 {
    90
}

pub(crate) fn restart_time() -> u16 {
    120
}

pub(crate) fn deferral_time() -> u16 {
    60
}

pub(crate) fn graceful_restart() -> Option<GracefulRestart> {
    Some(GracefulRestart::default())
}

/// RFC 4271 section 10 suggests 120 s; an overlay wants its sessions back sooner.
pub(crate) fn connect_retry() -> u16 {
    30
}

pub(crate) fn ttl() -> u8 {
    1
}

/// Dynamic neighbours of a group.
pub(crate) fn group_limit() -> u32 {
    100
}

/// From an eBGP neighbour.
pub(crate) fn max_paths() -> u32 {
    32
}

/// From an eBGP neighbour, a family: twice what the Internet has.
pub(crate) const MAX_PREFIXES: u32 = 2_000_000;

/// From a tenant's own router, a family.
pub(crate) const SITE_MAX_PREFIXES: u32 = 100_000;

pub(crate) fn bgp_port() -> u16 {
    179
}

pub(crate) fn listen_addresses() -> Vec<IpAddr> {
    vec![Ipv4Addr::UNSPECIFIED.into(), Ipv6Addr::UNSPECIFIED.into()]
}

pub(crate) fn families() -> Vec<Family> {
    vec![Family::Ipv4Unicast]
}

pub(crate) fn encapsulation() -> Encapsulation {
    Encapsulation::Vxlan
}
