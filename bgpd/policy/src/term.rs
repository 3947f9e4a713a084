//! Policies as they are written: conditions, edits, what follows.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use weft_bgp_wire::{
    AnyCommunity, AnyCommunityPattern, Asn, AttributesView, Family, LargeCommunity, Origin,
};

use crate::as_path::AsPathTest;
use crate::prefix::PrefixSet;

/// A policy: terms, in order.
#[derive(Clone, Debug, PartialEq)]
pub struct Policy {
    /// Its name.
    pub name: Arc<str>,
    /// Its terms.
    pub terms: Vec<Arc<Term>>,
}

/// A term: which routes it is about, what it sets on them, and what becomes of them.
#[derive(Clone, Debug, PartialEq)]
pub struct Term {
    /// Its name, unique in its policy.
    pub name: Arc<str>,
    /// Routes for which all of these hold.
    pub matches: Conditions,
    /// But not those for which all of these hold; without conditions there are none such.
    pub unless: Option<Conditions>,
    /// What is changed, in order.
    pub edits: Vec<Edit>,
    /// What becomes of them.
    pub then: Then,
}

/// What becomes of the routes of a term.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Then {
    /// The next term.
    Next,
    /// They pass.
    Accept,
    /// They do not.
    Reject,
    /// The terms of the policy of this name, and then, unless one of those has decided, the next term.
    Call(Arc<str>),
}

/// Conditions, all of which hold. Without any, everything matches.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Conditions {
    /// The prefix is in this list.
    pub prefixes: Option<Arc<PrefixSet>>,
    /// What depends on the attributes and on where the route is from.
    pub others: Vec<Condition>,
}

/// A condition on attributes, or on where a route is from.
#[derive(Clone, Debug, PartialEq)]
pub enum Condition {
    /// AS_PATH.
    AsPath(AsPathTest),
    /// Length of AS_PATH as the decision process counts it.
    AsPathLength(NumberSet),
    /// The AS that originated the route, where AS_PATH ends with a sequence.
    OriginAs(NumberSet),
    /// The first AS of AS_PATH, where it begins with a sequence.
    NeighborAs(NumberSet),
    /// Communities of all sorts.
    Communities(CommunityTest),
    /// A large community that somebody else knows to read.
    Large(LargeTest),
    /// ORIGIN is one of these.
    Origin(Vec<Origin>),
    /// LOCAL_PREF, 100 where there is none.
    LocalPref(NumberSet),
    /// MULTI_EXIT_DISC, 0 where there is none.
    Med(NumberSet),
    /// The next hop is in one of these.
    NextHop(Vec<IpNet>),
    /// The neighbour that the route came from is in one of these.
    Neighbor(Vec<IpNet>),
    /// Where the route came from.
    Source(Vec<Source>),
    /// The address family.
    Family(Vec<Family>),
}

/// Where a route is from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Source {
    /// This router originates it.
    Local,
    /// A neighbour in another AS.
    Ebgp,
    /// A neighbour in our AS.
    Ibgp,
}

/// Numbers, as ranges.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NumberSet(Vec<(u32, u32)>);

impl NumberSet {
    /// All from the first to the last number of each range.
    pub fn new(ranges: impl IntoIterator<Item = (u32, u32)>) -> Self {
        let mut ranges: Vec<(u32, u32)> = ranges.into_iter().collect();
        ranges.sort_unstable();
        Self(ranges)
    }

    /// Contains nothing.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether the number is in it.
    pub fn contains(&self, number: u32) -> bool {
        let mut ranges = self.0.iter();
        ranges.any(|(first, last)| (*first..=*last).contains(&number))
    }
}

/// Patterns of communities, of which a route has any, or all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CommunityTest {
    /// It has a community that one of the patterns matches.
    Any(Vec<AnyCommunityPattern>),
    /// For each list of patterns it has a community that one of them matches.
    All(Vec<Vec<AnyCommunityPattern>>),
}

impl CommunityTest {
    pub(crate) fn matches(&self, attributes: AttributesView<'_>) -> bool {
        let any = |patterns: &[AnyCommunityPattern]| {
            patterns.iter().any(|pattern| match pattern {
                AnyCommunityPattern::Standard(pattern) => {
                    attributes.communities().any(|one| pattern.matches(one))
                }
                AnyCommunityPattern::Extended(pattern) => {
                    let mut communities = attributes.extended_communities();
                    communities.any(|one| pattern.matches(one))
                }
                AnyCommunityPattern::Large(pattern) => {
                    let mut communities = attributes.large_communities();
                    communities.any(|one| pattern.matches(one))
                }
            })
        };
        match self {
            Self::Any(patterns) => any(patterns),
            Self::All(lists) => lists.iter().all(|patterns| any(patterns)),
        }
    }
}

/// A test of one large community by whoever gives it a meaning. Two of the same name are the same test.
#[derive(Clone)]
pub struct LargeTest {
    name: Arc<str>,
    test: Arc<dyn Fn(LargeCommunity) -> bool + Send + Sync>,
}

impl LargeTest {
    /// `name` says all that the test depends on.
    pub fn new(
        name: impl Into<Arc<str>>,
        test: impl Fn(LargeCommunity) -> bool + Send + Sync + 'static,
    ) -> Self {
        Self {
            name: name.into(),
            test: Arc::new(test),
        }
    }

    pub(crate) fn matches(&self, community: LargeCommunity) -> bool {
        (self.test)(community)
    }
}

impl PartialEq for LargeTest {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
    }
}

impl fmt::Debug for LargeTest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "LargeTest({:?})", self.name)
    }
}

/// A change of a route.
#[derive(Clone, Debug, PartialEq)]
pub enum Edit {
    /// Sets LOCAL_PREF.
    LocalPref(u32),
    /// Sets MULTI_EXIT_DISC, or removes it.
    Med(Option<u32>),
    /// Sets ORIGIN.
    Origin(Origin),
    /// Puts an AS in front of AS_PATH so often: [`crate::Route::prepends`] where none is named.
    Prepend {
        /// Which.
        asn: Option<Asn>,
        /// How often.
        times: u8,
    },
    /// Sets the next hop.
    NextHop(NextHopEdit),
    /// Adds communities that are not there.
    AddCommunities(Vec<AnyCommunity>),
    /// Removes those that one of the patterns matches, and that `spare` does not.
    RemoveCommunities {
        /// Which.
        patterns: Vec<AnyCommunityPattern>,
        /// Large communities that stay whatever the patterns say.
        spare: Option<LargeTest>,
    },
    /// Removes large communities.
    RemoveLarge(LargeTest),
}

/// Another next hop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NextHopEdit {
    /// This router's address on the session. At export.
    Own,
    /// As it was received. At export.
    Unchanged,
    /// This one, on routes of its family.
    Address(IpAddr),
}
