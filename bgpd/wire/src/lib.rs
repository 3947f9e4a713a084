//! BGP-4 on the wire: messages, path attributes and NLRI to and from octets.
//!
//! The crate is pure: no clock, no socket, no log, and no panic on any input. Octets of an UPDATE stay where they are:
//! [`UpdateView`] borrows its three sections, [`AttributeDecoder`] checks the attributes in one pass (RFC 7606) and
//! leaves them in **canonical form**, which is what a RIB interns:
//!
//! * attributes sorted by type code, each at most once;
//! * NEXT_HOP, MP_REACH_NLRI and MP_UNREACH_NLRI taken out, so that the same attributes of IPv4 and IPv6 routes are
//!   the same octets;
//! * AS_PATH with 4-octet AS numbers, AS4_PATH and AS4_AGGREGATOR merged into it (RFC 6793);
//! * large communities without duplicates, unknown transitive attributes with the Partial bit set.
//!
//! [`AttributesView`] reads canonical octets lazily, [`AttributesBuilder`] edits them, [`UpdateWriter`] encodes the
//! attributes of a run of routes once and streams the NLRI behind them.

mod as_path;
mod attributes;
mod community;
mod message;
mod nlri;
mod notification;
mod open;
mod pattern;
mod role;
mod update;

use std::fmt;
use std::net::Ipv4Addr;
use std::str::FromStr;

pub use as_path::{AsPath, Segment, SegmentKind};
pub use attributes::{
    AttributeContext, AttributeDecoder, AttributesBuilder, AttributesView, Decoded, MpReach,
    MpUnreach, NextHop, Origin, PeerType, Problem, ProblemKind, RawAttribute, Treatment, code,
    flags,
};
pub use community::{Community, ExtendedCommunity, LargeCommunity, ParseCommunityError};
pub use message::{
    Frame, HEADER_LEN, MAX_MESSAGE_LEN, MAX_MESSAGE_LEN_EXTENDED, MessageType, RouteRefresh,
    encode_keepalive, next_frame,
};
pub use nlri::{Nlri, NlriError, NlriIter, Prefix};
pub use notification::{
    Notification, cease, error_code, fsm_error, header_error, open_error, update_error,
};
pub use open::{AddPathMode, Capability, GracefulRestart, GracefulRestartFamily, Open};
pub use pattern::{
    AnyCommunity, AnyCommunityPattern, CommunityPattern, ExtendedCommunityPattern,
    LargeCommunityPattern,
};
pub use role::Role;
pub use update::{
    EncodeContext, EncodeError, UpdateView, UpdateWriter, encode_attributes, encode_end_of_rib,
};

/// An autonomous system number, 4 octets (RFC 6793).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Asn(pub u32);

impl Asn {
    /// It is for private use (RFC 6996).
    pub fn is_private(self) -> bool {
        matches!(self.0, 64_512..=65_534 | 4_200_000_000..=4_294_967_294)
    }

    /// AS_TRANS, which stands for an AS number that does not fit two octets (RFC 6793 section 9).
    pub const TRANS: Self = Self(23456);

    /// The number in a 2-octet field: itself, or AS_TRANS.
    pub fn to_two_octets(self) -> u16 {
        u16::try_from(self.0).unwrap_or(23456)
    }
}

impl fmt::Display for Asn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A BGP Identifier: 4 octets, unique within an AS, not zero (RFC 6286).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RouterId(pub Ipv4Addr);

impl fmt::Display for RouterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// An address family that Weft routes: AFI and SAFI of RFC 4760.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Family {
    /// AFI 1, SAFI 1.
    Ipv4Unicast,
    /// AFI 2, SAFI 1.
    Ipv6Unicast,
}

impl Family {
    /// Every family, in the order of [`Family::index`].
    pub const ALL: [Self; 2] = [Self::Ipv4Unicast, Self::Ipv6Unicast];

    /// The Address Family Identifier.
    pub const fn afi(self) -> u16 {
        match self {
            Self::Ipv4Unicast => 1,
            Self::Ipv6Unicast => 2,
        }
    }

    /// The Subsequent Address Family Identifier.
    pub const fn safi(self) -> u8 {
        1
    }

    /// Dense index from zero, for per-family arrays.
    pub const fn index(self) -> usize {
        match self {
            Self::Ipv4Unicast => 0,
            Self::Ipv6Unicast => 1,
        }
    }

    /// The family of an AFI and a SAFI, where it is one that Weft routes.
    pub const fn from_afi_safi(afi: u16, safi: u8) -> Option<Self> {
        match (afi, safi) {
            (1, 1) => Some(Self::Ipv4Unicast),
            (2, 1) => Some(Self::Ipv6Unicast),
            _ => None,
        }
    }
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ipv4Unicast => "ipv4-unicast",
            Self::Ipv6Unicast => "ipv6-unicast",
        })
    }
}

impl FromStr for Family {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL
            .into_iter()
            .find(|family| family.to_string() == text)
            .ok_or_else(|| format!("`{text}` is no address family: ipv4-unicast or ipv6-unicast"))
    }
}
