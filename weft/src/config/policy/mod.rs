//! Routing policy: what passes between BGP neighbours and this router, and what is changed on it.
//!
//! | module | what it is |
//! |---|---|
//! | this one | policies and lists as they stand in a file |
//! | [`read`] | how they are read |
//! | [`library`] | all policies of a file, compiled, with those that Weft has ready |

mod library;
mod read;
#[cfg(test)]
mod tests;

use std::fmt;
use std::net::IpAddr;

use ipnet::IpNet;
use schemars::JsonSchema;
use serde::{Serialize, Serializer};
use weft_bgp::policy::{AsPathPattern, RoutePolicy};
use weft_bgp_wire::{AnyCommunity, AnyCommunityPattern, Asn, Family, Origin};
use weft_overlay::VniSet;
use weft_overlay::import::Kind;

use super::serial;
use super::session::PrefixRange;

pub(crate) use library::{Library, Sets};
pub(super) use read::{Policies, Way, as_paths, communities, policies, policy_of, prefix_lists};

/// A step of a policy: which routes it is about, what it sets on them, and what becomes of them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Term {
    /// Unique in the policy; its number by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$"))]
    pub name: Option<String>,
    /// Which routes: all conditions hold. All routes where it says nothing.
    #[serde(default, rename = "match", skip_serializing_if = "Match::is_all")]
    pub matches: Match,
    /// But not those for which all of these hold.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unless: Option<Match>,
    /// What is changed on them.
    #[serde(default, skip_serializing_if = "Set::is_nothing")]
    pub set: Set,
    /// What becomes of them: `accept`, `reject`, or `next`, which goes on to the next term and is the default.
    #[serde(default, skip_serializing_if = "Then::is_next")]
    pub then: Then,
    /// A policy whose terms stand in the place of `then`; what they do not decide goes on to the next term.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub call: Option<String>,
}

/// What becomes of the routes of a term.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Then {
    /// They pass.
    Accept,
    /// They do not.
    Reject,
    /// The next term decides.
    #[default]
    Next,
}

impl Then {
    #[expect(clippy::trivially_copy_pass_by_ref, reason = "as serde calls it")]
    fn is_next(&self) -> bool {
        *self == Self::Next
    }
}

/// Conditions of a term. Of a list any holds; a list of one may be written without brackets.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Match {
    /// The prefix is in one of these: names of prefix lists, or prefixes as in those.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(with = "serial::OneOrMany<serial::PrefixItemSchema>")]
    pub prefixes: Vec<PrefixItem>,
    /// AS_PATH: a name of `as_paths`, a regular expression as in FRR (`_65001_`, `^65001(_65001)*$`), or a range of AS numbers of which one stands
    /// in the path (`64512-65534`).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(with = "serial::OneOrMany<String>")]
    pub as_path: Vec<AsPathItem>,
    /// Length of AS_PATH: a number or a range, `2`, `1-3`, `10-`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(with = "serial::OneOrMany<serial::NumberRangeSchema>")]
    pub as_path_length: Vec<NumberRange>,
    /// The AS that originated the route: numbers and ranges.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(with = "serial::OneOrMany<serial::NumberRangeSchema>")]
    pub origin_as: Vec<NumberRange>,
    /// The first AS of AS_PATH: numbers and ranges.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(with = "serial::OneOrMany<serial::NumberRangeSchema>")]
    pub neighbor_as: Vec<NumberRange>,
    /// Communities of all three sorts: names of `communities`, or patterns: `65000:1`, `65000:100-199`, `no-export`, `64512:*:*`, `rt:65000:*`. With
    /// `all`, one for each item of its list.
    #[serde(default, skip_serializing_if = "Communities::is_empty")]
    #[schemars(with = "serial::CommunitiesSchema")]
    pub communities: Communities,
    /// VNIs, one of whose labels the route has.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        serialize_with = "serial::some_vni_set"
    )]
    #[schemars(with = "Option<serial::VniSetSchema>")]
    pub vnis: Option<VniSet>,
    /// What else the route says of the overlay; with `vnis` of those.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(with = "serial::OneOrMany<super::neighbor::KindSchema>")]
    pub labels: Vec<Kind>,
    /// ORIGIN: `igp`, `egp`, `incomplete`.
    #[serde(
        default,
        skip_serializing_if = "Vec::is_empty",
        serialize_with = "serial::display_list"
    )]
    #[schemars(with = "serial::OneOrMany<serial::OriginSchema>")]
    pub origin: Vec<Origin>,
    /// LOCAL_PREF, 100 where there is none: numbers and ranges.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(with = "serial::OneOrMany<serial::NumberRangeSchema>")]
    pub local_pref: Vec<NumberRange>,
    /// MULTI_EXIT_DISC, 0 where there is none: numbers and ranges.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(with = "serial::OneOrMany<serial::NumberRangeSchema>")]
    pub med: Vec<NumberRange>,
    /// The next hop is in one of these: addresses and prefixes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(with = "serial::OneOrMany<String>")]
    pub next_hop: Vec<IpNet>,
    /// The neighbour that the route came from: addresses and prefixes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(with = "serial::OneOrMany<String>")]
    pub neighbors: Vec<IpNet>,
    /// Where the route came from: `local`, `ebgp`, `ibgp`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(with = "serial::OneOrMany<Source>")]
    pub source: Vec<Source>,
    /// Address families.
    #[serde(
        default,
        skip_serializing_if = "Vec::is_empty",
        serialize_with = "serial::display_list"
    )]
    #[schemars(with = "serial::OneOrMany<serial::FamilySchema>")]
    pub families: Vec<Family>,
}

impl Match {
    fn is_all(&self) -> bool {
        *self == Self::default()
    }
}

/// Where a route came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Source {
    /// This router originates it.
    Local,
    /// A neighbour in another AS.
    Ebgp,
    /// A neighbour in this router's AS.
    Ibgp,
}

/// What a term changes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Set {
    /// LOCAL_PREF.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub local_pref: Option<u32>,
    /// MULTI_EXIT_DISC, or `remove`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "serial::MedSchema")]
    pub med: Option<Med>,
    /// ORIGIN.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        serialize_with = "serial::some_display"
    )]
    #[schemars(with = "Option<serial::OriginSchema>")]
    pub origin: Option<Origin>,
    /// Put an AS in front of AS_PATH so many times: a number for the own AS at export and the neighbour's at import, or a mapping that names one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "serial::PrependSchema")]
    pub prepend: Option<Prepend>,
    /// At export `self` or `unchanged`; or an address, which routes of its family get.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub next_hop: Option<NextHopWord>,
    /// Communities, of all three sorts.
    #[serde(default, skip_serializing_if = "EditCommunities::is_nothing")]
    pub communities: EditCommunities,
    /// `remove`: the label communities of the overlay, which patterns of `communities` leave alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub labels: Option<Remove>,
}

impl Set {
    fn is_nothing(&self) -> bool {
        *self == Self::default()
    }
}

/// The word `remove`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Remove {
    /// They are taken away.
    Remove,
}

/// How communities change: first `remove`, then `add`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct EditCommunities {
    /// Patterns of those that go, or names of `communities`; `all` for all that are no labels of the overlay.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(with = "serial::OneOrMany<String>")]
    pub remove: Vec<CommunityItem>,
    /// Those that come.
    #[serde(
        default,
        skip_serializing_if = "Vec::is_empty",
        serialize_with = "serial::display_list"
    )]
    #[schemars(with = "serial::OneOrMany<String>")]
    pub add: Vec<AnyCommunity>,
}

impl EditCommunities {
    fn is_nothing(&self) -> bool {
        *self == Self::default()
    }
}

/// MULTI_EXIT_DISC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Med {
    Set(u32),
    Remove,
}

impl Serialize for Med {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Set(number) => to.serialize_u32(*number),
            Self::Remove => to.serialize_str("remove"),
        }
    }
}

/// An AS in front of AS_PATH.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Prepend {
    pub asn: Option<Asn>,
    pub times: u8,
}

impl Serialize for Prepend {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        match self.asn {
            None => to.serialize_u8(self.times),
            Some(asn) => to.collect_map([("asn", asn.0), ("times", self.times.into())]),
        }
    }
}

/// Another next hop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NextHopWord {
    Own,
    Unchanged,
    Address(IpAddr),
}

impl fmt::Display for NextHopWord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Own => f.write_str("self"),
            Self::Unchanged => f.write_str("unchanged"),
            Self::Address(address) => address.fmt(f),
        }
    }
}

/// Types that are written as one text.
macro_rules! as_text {
    ($($name:ident),*) => {$(
        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
                to.collect_str(self)
            }
        }
    )*};
}

as_text!(NextHopWord, AsPathItem, CommunityItem);

/// A prefix list's name, or a line of one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub(crate) enum PrefixItem {
    Name(String),
    Range(PrefixRange),
}

/// What an AS path may be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum AsPathItem {
    Name(String),
    Contains(u32, u32),
    Pattern(AsPathPattern),
}

impl fmt::Display for AsPathItem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => f.write_str(name),
            Self::Contains(first, last) => write!(f, "{first}-{last}"),
            Self::Pattern(pattern) => pattern.fmt(f),
        }
    }
}

/// A list of communities by name, or a pattern.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum CommunityItem {
    Name(String),
    Pattern(AnyCommunityPattern),
    /// All that are no labels.
    All,
}

impl fmt::Display for CommunityItem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => f.write_str(name),
            Self::Pattern(pattern) => pattern.fmt(f),
            Self::All => f.write_str("all"),
        }
    }
}

/// Communities that a route has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Communities {
    Any(Vec<CommunityItem>),
    All(Vec<CommunityItem>),
}

impl Default for Communities {
    fn default() -> Self {
        Self::Any(Vec::new())
    }
}

impl Communities {
    fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

impl Serialize for Communities {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Any(items) => to.collect_seq(items),
            Self::All(items) => to.collect_map([("all", items)]),
        }
    }
}

/// Numbers from the first to the last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct NumberRange {
    pub first: u32,
    pub last: u32,
}

impl fmt::Display for NumberRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.first, self.last) {
            (first, last) if first == last => first.fmt(f),
            (first, u32::MAX) => write!(f, "{first}-"),
            (first, last) => write!(f, "{first}-{last}"),
        }
    }
}

impl Serialize for NumberRange {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        match self.first == self.last {
            true => to.serialize_u32(self.first),
            false => to.collect_str(self),
        }
    }
}

/// What passes between a neighbour and this router in one direction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Passing {
    /// As it is written.
    pub words: PassingWords,
    /// What that comes to.
    pub policy: RoutePolicy,
}

/// What passes, as it is written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub(crate) enum PassingWords {
    /// `accept` or `reject`.
    Word(&'static str),
    /// Prefixes.
    Prefixes(Vec<PrefixRange>),
    /// Policies.
    Chain(Vec<String>),
}

impl Serialize for Passing {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        self.words.serialize(to)
    }
}
