//! Path attributes: their canonical octets, lazily read.

mod builder;
mod decode;
#[cfg(test)]
mod tests;

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

pub use builder::AttributesBuilder;
pub use decode::{
    AttributeContext, AttributeDecoder, Decoded, MpReach, MpUnreach, PeerType, Problem,
    ProblemKind, Treatment,
};

use crate::{AsPath, Asn, Community, ExtendedCommunity, Family, LargeCommunity, RouterId};

/// Attribute type codes.
pub mod code {
    /// ORIGIN (RFC 4271).
    pub const ORIGIN: u8 = 1;
    /// AS_PATH (RFC 4271).
    pub const AS_PATH: u8 = 2;
    /// NEXT_HOP (RFC 4271).
    pub const NEXT_HOP: u8 = 3;
    /// MULTI_EXIT_DISC (RFC 4271).
    pub const MULTI_EXIT_DISC: u8 = 4;
    /// LOCAL_PREF (RFC 4271).
    pub const LOCAL_PREF: u8 = 5;
    /// ATOMIC_AGGREGATE (RFC 4271).
    pub const ATOMIC_AGGREGATE: u8 = 6;
    /// AGGREGATOR (RFC 4271).
    pub const AGGREGATOR: u8 = 7;
    /// COMMUNITIES (RFC 1997).
    pub const COMMUNITIES: u8 = 8;
    /// ORIGINATOR_ID (RFC 4456).
    pub const ORIGINATOR_ID: u8 = 9;
    /// CLUSTER_LIST (RFC 4456).
    pub const CLUSTER_LIST: u8 = 10;
    /// MP_REACH_NLRI (RFC 4760).
    pub const MP_REACH_NLRI: u8 = 14;
    /// MP_UNREACH_NLRI (RFC 4760).
    pub const MP_UNREACH_NLRI: u8 = 15;
    /// EXTENDED COMMUNITIES (RFC 4360).
    pub const EXTENDED_COMMUNITIES: u8 = 16;
    /// IPV6 EXTENDED COMMUNITIES (RFC 5701).
    pub const IPV6_EXTENDED_COMMUNITIES: u8 = 25;
    /// AS4_PATH (RFC 6793).
    pub const AS4_PATH: u8 = 17;
    /// AS4_AGGREGATOR (RFC 6793).
    pub const AS4_AGGREGATOR: u8 = 18;
    /// LARGE_COMMUNITY (RFC 8092).
    pub const LARGE_COMMUNITY: u8 = 32;
    /// ONLY_TO_CUSTOMER (RFC 9234).
    pub const ONLY_TO_CUSTOMER: u8 = 35;
}

/// Attribute flags (RFC 4271 section 4.3).
pub mod flags {
    /// Optional, as against well-known.
    pub const OPTIONAL: u8 = 0x80;
    /// Transitive.
    pub const TRANSITIVE: u8 = 0x40;
    /// Partial: somebody on the way did not know it.
    pub const PARTIAL: u8 = 0x20;
    /// Two octets of length.
    pub const EXTENDED_LENGTH: u8 = 0x10;
}

/// ORIGIN; a lower one is preferred.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Origin {
    /// From an interior protocol.
    Igp = 0,
    /// From EGP.
    Egp = 1,
    /// From elsewhere.
    Incomplete = 2,
}

impl Origin {
    pub(crate) fn from_octet(octet: u8) -> Option<Self> {
        Some(match octet {
            0 => Self::Igp,
            1 => Self::Egp,
            2 => Self::Incomplete,
            _ => return None,
        })
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Igp => "igp",
            Self::Egp => "egp",
            Self::Incomplete => "incomplete",
        })
    }
}

/// The next hop of a route, from NEXT_HOP or MP_REACH_NLRI.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NextHop {
    /// The address to resolve.
    pub address: IpAddr,
    /// The link-local address beside a global IPv6 one (RFC 2545 section 3).
    pub link_local: Option<Ipv6Addr>,
}

impl From<IpAddr> for NextHop {
    fn from(address: IpAddr) -> Self {
        Self {
            address,
            link_local: None,
        }
    }
}

impl NextHop {
    /// Somebody's router may have it: it is not unspecified, loopback, multicast, reserved or a link-local address alone, which names no
    /// link (RFC 4271 section 6.3, RFC 2545 section 3). Whether it is one of our own the octets do not say.
    pub fn is_usable(&self) -> bool {
        // An IPv4-mapped one is the IPv4 address that it names, as in RFC 4798 section 2.
        match self.address.to_canonical() {
            IpAddr::V4(address) => !matches!(address.octets()[0], 0 | 127 | 224..),
            IpAddr::V6(address) => {
                !(address.is_unspecified()
                    || address.is_loopback()
                    || address.is_multicast()
                    || address.is_unicast_link_local())
            }
        }
    }

    /// From MP_REACH_NLRI; `None` for a length that the family cannot have: IPv6 next hops of IPv4 prefixes are `extended` ones (RFC 8950).
    pub(crate) fn from_octets(family: Family, octets: &[u8], extended: bool) -> Option<Self> {
        let v6 = |octets: &[u8]| <[u8; 16]>::try_from(octets).ok().map(Ipv6Addr::from);
        Some(match (family, octets.len()) {
            (Family::Ipv4Unicast, 4) => IpAddr::from(<[u8; 4]>::try_from(octets).ok()?).into(),
            (Family::Ipv4Unicast, _) if !extended => return None,
            (_, 16) => IpAddr::from(v6(octets)?).into(),
            (_, 32) => Self {
                address: v6(&octets[..16])?.into(),
                link_local: v6(&octets[16..]).filter(Ipv6Addr::is_unicast_link_local),
            },
            _ => return None,
        })
    }

    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        match self.address {
            IpAddr::V4(address) => out.extend_from_slice(&address.octets()),
            IpAddr::V6(address) => out.extend_from_slice(&address.octets()),
        }
        if let Some(address) = self.link_local {
            out.extend_from_slice(&address.octets());
        }
    }
}

/// One attribute as it stands in canonical octets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RawAttribute<'a> {
    /// Attribute Flags.
    pub flags: u8,
    /// Attribute Type Code.
    pub code: u8,
    /// Attribute Value.
    pub value: &'a [u8],
}

/// Splits the attribute at the start of `octets` off, or `None` where it is not whole.
pub(crate) fn split_attribute(octets: &[u8]) -> Option<(RawAttribute<'_>, &[u8])> {
    let (&[flags, code], rest) = octets.split_first_chunk::<2>()?;
    let (len, rest) = if flags & flags::EXTENDED_LENGTH == 0 {
        let (&len, rest) = rest.split_first()?;
        (usize::from(len), rest)
    } else {
        let (len, rest) = rest.split_first_chunk::<2>()?;
        (usize::from(u16::from_be_bytes(*len)), rest)
    };
    let (value, rest) = rest.split_at_checked(len)?;
    Some((RawAttribute { flags, code, value }, rest))
}

/// Appends one attribute; the extended length bit follows from the length of the value.
pub(crate) fn put_attribute(out: &mut Vec<u8>, flags: u8, code: u8, value: &[u8]) {
    let flags = flags & !flags::EXTENDED_LENGTH;
    if value.len() > 255 {
        out.extend_from_slice(&[flags | flags::EXTENDED_LENGTH, code]);
        out.extend_from_slice(&(value.len() as u16).to_be_bytes());
    } else {
        out.extend_from_slice(&[flags, code, value.len() as u8]);
    }
    out.extend_from_slice(value);
}

/// Reads canonical octets. Getters walk the attributes, whose number is small, and allocate nothing.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct AttributesView<'a>(&'a [u8]);

impl<'a> AttributesView<'a> {
    /// Over octets that [`AttributeDecoder`] or [`AttributesBuilder`] made. Of other octets the getters find what is
    /// well-formed.
    pub fn new(canonical: &'a [u8]) -> Self {
        Self(canonical)
    }

    /// The octets.
    pub fn octets(&self) -> &'a [u8] {
        self.0
    }

    /// All attributes, sorted by type code.
    pub fn iter(&self) -> impl Iterator<Item = RawAttribute<'a>> + use<'a> {
        let mut rest = self.0;
        std::iter::from_fn(move || {
            let (attribute, tail) = split_attribute(rest)?;
            rest = tail;
            Some(attribute)
        })
    }

    /// The value of the attribute with this type code.
    pub fn value(&self, code: u8) -> Option<&'a [u8]> {
        self.iter()
            .find(|attribute| attribute.code >= code)
            .filter(|found| found.code == code)
            .map(|found| found.value)
    }

    fn number(&self, code: u8) -> Option<u32> {
        Some(u32::from_be_bytes(self.value(code)?.try_into().ok()?))
    }

    fn chunks<const N: usize>(&self, code: u8) -> std::slice::Iter<'a, [u8; N]> {
        self.value(code)
            .unwrap_or_default()
            .as_chunks::<N>()
            .0
            .iter()
    }

    /// ORIGIN.
    pub fn origin(&self) -> Origin {
        self.value(code::ORIGIN)
            .and_then(|value| Origin::from_octet(*value.first()?))
            .unwrap_or(Origin::Incomplete)
    }

    /// AS_PATH; empty where there is none.
    pub fn as_path(&self) -> AsPath<'a> {
        AsPath(self.value(code::AS_PATH).unwrap_or_default())
    }

    /// MULTI_EXIT_DISC.
    pub fn med(&self) -> Option<u32> {
        self.number(code::MULTI_EXIT_DISC)
    }

    /// LOCAL_PREF.
    pub fn local_pref(&self) -> Option<u32> {
        self.number(code::LOCAL_PREF)
    }

    /// ATOMIC_AGGREGATE.
    pub fn atomic_aggregate(&self) -> bool {
        self.value(code::ATOMIC_AGGREGATE).is_some()
    }

    /// AGGREGATOR: AS and router.
    pub fn aggregator(&self) -> Option<(Asn, RouterId)> {
        let value: &[u8; 8] = self.value(code::AGGREGATOR)?.try_into().ok()?;
        let [a, b, c, d, router @ ..] = *value;
        Some((
            Asn(u32::from_be_bytes([a, b, c, d])),
            RouterId(Ipv4Addr::from(router)),
        ))
    }

    /// COMMUNITIES in the order received.
    pub fn communities(&self) -> impl ExactSizeIterator<Item = Community> + use<'a> {
        self.chunks::<4>(code::COMMUNITIES)
            .map(|octets| Community(u32::from_be_bytes(*octets)))
    }

    /// EXTENDED COMMUNITIES in the order received.
    pub fn extended_communities(
        &self,
    ) -> impl ExactSizeIterator<Item = ExtendedCommunity> + use<'a> {
        self.chunks::<8>(code::EXTENDED_COMMUNITIES)
            .map(|octets| ExtendedCommunity(*octets))
    }

    /// LARGE_COMMUNITY in the order received, without duplicates.
    pub fn large_communities(&self) -> impl ExactSizeIterator<Item = LargeCommunity> + use<'a> {
        self.chunks::<12>(code::LARGE_COMMUNITY)
            .map(LargeCommunity::from_octets)
    }

    /// ORIGINATOR_ID.
    pub fn originator_id(&self) -> Option<RouterId> {
        self.number(code::ORIGINATOR_ID)
            .map(|id| RouterId(id.into()))
    }

    /// ONLY_TO_CUSTOMER: the AS that said so.
    pub fn only_to_customer(&self) -> Option<Asn> {
        self.number(code::ONLY_TO_CUSTOMER).map(Asn)
    }

    /// CLUSTER_LIST, the last reflector first.
    pub fn cluster_list(&self) -> impl ExactSizeIterator<Item = Ipv4Addr> + use<'a> {
        self.chunks::<4>(code::CLUSTER_LIST)
            .map(|octets| Ipv4Addr::from(*octets))
    }
}

impl fmt::Debug for AttributesView<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}
