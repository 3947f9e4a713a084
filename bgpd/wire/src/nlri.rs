//! Prefixes on the wire (RFC 4271 section 4.3), with or without a path identifier (RFC 7911).

use std::fmt::{Debug, Display};
use std::hash::Hash;
use std::net::{Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use crate::Family;

/// An IPv4 or IPv6 prefix, so that RIBs can be written once for both.
pub trait Prefix:
    Copy + Debug + Display + Eq + Hash + Ord + Into<IpNet> + Send + Sync + 'static
{
    /// The family whose NLRI it is.
    const FAMILY: Family;
    /// Longest prefix length.
    const MAX_LEN: u8;

    /// From a length of at most `MAX_LEN` and exactly as many octets as it needs; trailing bits are cleared.
    fn from_wire(len: u8, octets: &[u8]) -> Self;
    /// Appends length and address octets.
    fn encode(self, out: &mut Vec<u8>);
    /// Lies in a range that no packet is routed to: unspecified, loopback, link-local, multicast or reserved (RFC 6890). The default
    /// route does not.
    fn is_martian(&self) -> bool;
    /// The prefix, where it is of this family.
    fn from_net(net: IpNet) -> Option<Self>;
}

impl Prefix for Ipv4Net {
    const FAMILY: Family = Family::Ipv4Unicast;
    const MAX_LEN: u8 = 32;

    #[inline]
    fn from_wire(len: u8, octets: &[u8]) -> Self {
        let mut address = [0; 4];
        for (to, from) in address.iter_mut().zip(octets) {
            *to = *from;
        }
        let mask = u32::MAX
            .checked_shl(u32::from(32 - len.min(32)))
            .unwrap_or(0);
        Self::new_assert(
            Ipv4Addr::from(u32::from_be_bytes(address) & mask),
            len.min(32),
        )
    }

    #[inline]
    fn encode(self, out: &mut Vec<u8>) {
        let [a, b, c, d] = self.addr().octets();
        let octets = [self.prefix_len(), a, b, c, d];
        out.extend_from_slice(&octets[..1 + usize::from(self.prefix_len().div_ceil(8))]);
    }

    #[inline]
    fn is_martian(&self) -> bool {
        let len = self.prefix_len();
        match self.addr().octets() {
            [224..=255, ..] => len >= 3,
            [0 | 127, ..] => len >= 8,
            [169, 254, ..] => len >= 16,
            _ => false,
        }
    }

    fn from_net(net: IpNet) -> Option<Self> {
        match net {
            IpNet::V4(net) => Some(net),
            IpNet::V6(_) => None,
        }
    }
}

impl Prefix for Ipv6Net {
    const FAMILY: Family = Family::Ipv6Unicast;
    const MAX_LEN: u8 = 128;

    #[inline]
    fn from_wire(len: u8, octets: &[u8]) -> Self {
        let mut address = [0; 16];
        for (to, from) in address.iter_mut().zip(octets) {
            *to = *from;
        }
        let mask = u128::MAX
            .checked_shl(u32::from(128 - len.min(128)))
            .unwrap_or(0);
        Self::new_assert(
            Ipv6Addr::from(u128::from_be_bytes(address) & mask),
            len.min(128),
        )
    }

    #[inline]
    fn encode(self, out: &mut Vec<u8>) {
        out.push(self.prefix_len());
        let octets = self.addr().octets();
        out.extend_from_slice(&octets[..usize::from(self.prefix_len().div_ceil(8))]);
    }

    #[inline]
    fn is_martian(&self) -> bool {
        let (address, len) = (self.addr(), self.prefix_len());
        match address.segments() {
            [0xff00..=0xffff, ..] => len >= 8,
            // Link-local and, once, site-local.
            [0xfe80..=0xfeff, ..] => len >= 9,
            // Unspecified, loopback, IPv4-compatible and IPv4-mapped addresses.
            [0, ..] => len >= 16,
            _ => false,
        }
    }

    fn from_net(net: IpNet) -> Option<Self> {
        match net {
            IpNet::V6(net) => Some(net),
            IpNet::V4(_) => None,
        }
    }
}

/// A prefix and its path identifier; 0 where ADD-PATH is not in use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Nlri<P> {
    /// Path Identifier.
    pub path_id: u32,
    /// The prefix.
    pub prefix: P,
}

/// A field of prefixes that can't be parsed; after it nothing can be trusted (RFC 7606 section 5.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NlriError {
    /// The length in bits is above 32 or 128.
    #[error("prefix length {0} is longer than an address")]
    Length(u8),
    /// The field ends inside a prefix or a path identifier.
    #[error("the field ends inside a prefix")]
    Truncated,
}

/// Iterates over a field of prefixes; ends after the first error.
#[derive(Clone, Debug)]
pub struct NlriIter<'a, P> {
    rest: &'a [u8],
    add_path: bool,
    family: std::marker::PhantomData<P>,
}

impl<'a, P: Prefix> NlriIter<'a, P> {
    /// Over `field`, whose prefixes have a path identifier where `add_path` was negotiated.
    pub fn new(field: &'a [u8], add_path: bool) -> Self {
        Self {
            rest: field,
            add_path,
            family: std::marker::PhantomData,
        }
    }

    #[inline]
    fn parse(&mut self) -> Result<Nlri<P>, NlriError> {
        let mut rest = self.rest;
        let mut path_id = 0;
        if self.add_path {
            let (id, tail) = rest.split_first_chunk::<4>().ok_or(NlriError::Truncated)?;
            path_id = u32::from_be_bytes(*id);
            rest = tail;
        }
        let (&len, rest) = rest.split_first().ok_or(NlriError::Truncated)?;
        if len > P::MAX_LEN {
            return Err(NlriError::Length(len));
        }
        let (octets, rest) = rest
            .split_at_checked(usize::from(len.div_ceil(8)))
            .ok_or(NlriError::Truncated)?;
        self.rest = rest;
        Ok(Nlri {
            path_id,
            prefix: P::from_wire(len, octets),
        })
    }
}

impl<P: Prefix> Iterator for NlriIter<'_, P> {
    type Item = Result<Nlri<P>, NlriError>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let item = self.parse();
        if item.is_err() {
            self.rest = &[];
        }
        Some(item)
    }
}
