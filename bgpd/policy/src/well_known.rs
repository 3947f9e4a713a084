//! Policies and lists that every operator needs, by name.

use std::sync::{Arc, LazyLock};

use weft_bgp_wire::{AnyCommunity, AnyCommunityPattern, Community};

use crate::as_path::AsPathTest;
use crate::prefix::{PrefixRange, PrefixSet};
use crate::term::{CommunityTest, Condition, Conditions, Edit, NumberSet, Policy, Term, Then};

/// Prefixes that no route of the Internet has: special purposes (RFC 6890 and the registries of IANA), documentation, private use, multicast,
/// reserved, with everything inside.
pub const BOGONS: [&str; 23] = [
    "0.0.0.0/8",
    "10.0.0.0/8",
    "100.64.0.0/10",
    "127.0.0.0/8",
    "169.254.0.0/16",
    "172.16.0.0/12",
    "192.0.0.0/24",
    "192.0.2.0/24",
    "192.168.0.0/16",
    "198.18.0.0/15",
    "198.51.100.0/24",
    "203.0.113.0/24",
    "224.0.0.0/4",
    "240.0.0.0/4",
    // All of IPv6 but 2000::/3, in which what follows lies.
    "::/3",
    "4000::/2",
    "8000::/1",
    "2001:2::/48",
    "2001:10::/28",
    "2001:db8::/32",
    "2002::/16",
    "3ffe::/16",
    "3fff::/20",
];

/// AS numbers that stand in no path of the Internet: 0 (RFC 7607), AS_TRANS (RFC 6793), documentation (RFC 5398), private use (RFC 6996), the last of
/// both sizes (RFC 7300), and what IANA keeps back.
pub const BOGON_ASNS: [(u32, u32); 6] = [
    (0, 0),
    (23456, 23456),
    (64496, 64511),
    (64512, 65534),
    (65535, 131_071),
    (4_200_000_000, 4_294_967_295),
];

/// A prefix list.
pub struct PrefixList {
    /// Its name.
    pub name: &'static str,
    /// What it is for.
    pub about: &'static str,
    /// The list.
    pub set: Arc<PrefixSet>,
}

fn range(text: &str, ge: Option<u8>, le: Option<u8>) -> PrefixRange {
    let prefix: ipnet::IpNet = text.parse().expect("prefixes of this file are prefixes");
    PrefixRange {
        prefix,
        ge: ge.unwrap_or(prefix.prefix_len()),
        le: le.unwrap_or(prefix.max_prefix_len()),
    }
}

/// The lines of a prefix list; none where there is no such list.
pub fn prefix_ranges(name: &str) -> Vec<PrefixRange> {
    match name {
        "bogons" => BOGONS.map(|text| range(text, None, None)).to_vec(),
        "too-long" => vec![
            range("0.0.0.0/0", Some(25), None),
            range("::/0", Some(49), None),
        ],
        "default-routes" => ["0.0.0.0/0", "::/0"]
            .map(|text| range(text, None, Some(0)))
            .to_vec(),
        _ => Vec::new(),
    }
}

/// Prefix lists by name.
pub static PREFIX_LISTS: LazyLock<[PrefixList; 3]> = LazyLock::new(|| {
    let lists = [
        (
            "bogons",
            "prefixes that no route of the Internet has: private, reserved, documentation, multicast",
        ),
        (
            "too-long",
            "longer than /24 and /48, which the Internet does not carry",
        ),
        ("default-routes", "0.0.0.0/0 and ::/0"),
    ];
    lists.map(|(name, about)| PrefixList {
        name,
        about,
        set: Arc::new(PrefixSet::new(&prefix_ranges(name))),
    })
});

/// The AS path test `bogons`.
pub fn bogon_path() -> AsPathTest {
    AsPathTest {
        patterns: Vec::new(),
        contains: NumberSet::new(BOGON_ASNS),
    }
}

/// RFC 7999.
const BLACKHOLE: Community = Community(0xffff_029a);

/// A term about what these conditions are about.
fn term(name: &str, matches: Conditions, edits: Vec<Edit>, then: Then) -> Arc<Term> {
    Arc::new(Term {
        name: name.into(),
        matches,
        unless: None,
        edits,
        then,
    })
}

fn in_list(name: &str) -> Conditions {
    let list = PREFIX_LISTS.iter().find(|list| list.name == name);
    Conditions {
        prefixes: list.map(|list| Arc::clone(&list.set)),
        others: Vec::new(),
    }
}

fn having(condition: Condition) -> Conditions {
    Conditions {
        prefixes: None,
        others: vec![condition],
    }
}

fn community(community: Community) -> Conditions {
    let pattern = AnyCommunityPattern::Standard(community.into());
    having(Condition::Communities(CommunityTest::Any(vec![pattern])))
}

/// A policy with what it is for.
pub struct WellKnown {
    /// What it does.
    pub about: &'static str,
    /// The policy.
    pub policy: Policy,
}

/// Policies by name. Each decides about what it is for, and leaves everything else to what follows.
pub static POLICIES: LazyLock<[WellKnown; 4]> = LazyLock::new(|| {
    let policy = |name: &str, about, terms| WellKnown {
        about,
        policy: Policy {
            name: name.into(),
            terms,
        },
    };
    let no_export = AnyCommunity::Standard(Community::NO_EXPORT);
    let longest = NumberSet::new([(101, u32::MAX)]);
    [
        policy(
            "bogons",
            "rejects prefixes and AS numbers that the Internet does not have",
            vec![
                term("prefixes", in_list("bogons"), Vec::new(), Then::Reject),
                term(
                    "as-path",
                    having(Condition::AsPath(bogon_path())),
                    Vec::new(),
                    Then::Reject,
                ),
            ],
        ),
        policy(
            "hygiene",
            "RFC 7454: bogons, and rejects prefixes longer than /24 and /48 and paths of more than 100 ASes",
            vec![
                term(
                    "bogons",
                    Conditions::default(),
                    Vec::new(),
                    Then::Call("bogons".into()),
                ),
                term("too-long", in_list("too-long"), Vec::new(), Then::Reject),
                term(
                    "long-path",
                    having(Condition::AsPathLength(longest)),
                    Vec::new(),
                    Then::Reject,
                ),
            ],
        ),
        policy(
            "blackhole",
            "RFC 7999: what carries the community `blackhole` is kept in this AS by `no-export`",
            vec![term(
                "no-export",
                community(BLACKHOLE),
                vec![Edit::AddCommunities(vec![no_export])],
                Then::Next,
            )],
        ),
        policy(
            "graceful-shutdown",
            "RFC 8326: what carries the community `graceful-shutdown` gets local preference 0",
            vec![term(
                "local-pref",
                community(Community::GRACEFUL_SHUTDOWN),
                vec![Edit::LocalPref(0)],
                Then::Next,
            )],
        ),
    ]
});

/// The policy of a name.
pub fn policy(name: &str) -> Option<&'static Policy> {
    let mut all = POLICIES.iter().map(|one| &one.policy);
    all.find(|policy| &*policy.name == name)
}
