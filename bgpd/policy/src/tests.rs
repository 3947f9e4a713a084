//! Terms one by one, and programs against a plain evaluation.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use proptest::prelude::*;
use weft_bgp_wire::{
    AnyCommunity, Asn, AttributesBuilder, Community, Family, LargeCommunity, Origin,
};

use super::*;

fn attributes(path: &[u32]) -> AttributesBuilder {
    let mut builder = AttributesBuilder::new();
    builder.set_origin(Origin::Igp);
    builder.set_as_sequence(&path.iter().map(|asn| Asn(*asn)).collect::<Vec<_>>());
    builder
}

fn route(builder: &AttributesBuilder) -> Route<'_> {
    Route {
        attributes: builder.view(),
        next_hop: [192, 0, 2, 1].into(),
        family: Family::Ipv4Unicast,
        source: Source::Ebgp,
        neighbor: Some([192, 0, 2, 1].into()),
        prepends: Asn(65000),
    }
}

fn term(matches: Conditions, edits: Vec<Edit>, then: Then) -> Arc<Term> {
    Arc::new(Term {
        name: "t".into(),
        matches,
        unless: None,
        edits,
        then,
    })
}

fn having(condition: Condition) -> Conditions {
    Conditions {
        prefixes: None,
        others: vec![condition],
    }
}

fn program(terms: Vec<Arc<Term>>) -> Program {
    let name = "p".into();
    Program::new([&Policy { name, terms }], &well_known::policy).unwrap()
}

fn net(text: &str) -> IpNet {
    text.parse().unwrap()
}

fn list(lines: &[(&str, u8, u8)]) -> Arc<PrefixSet> {
    let lines = lines.iter().map(|(prefix, ge, le)| PrefixRange {
        prefix: net(prefix),
        ge: *ge,
        le: *le,
    });
    Arc::new(PrefixSet::new(&lines.collect::<Vec<_>>()))
}

/// Whether a condition holds for a route.
fn holds(condition: Condition, route: &Route<'_>) -> bool {
    let program = program(vec![term(having(condition), Vec::new(), Then::Accept)]);
    program.run(route, &net("10.0.0.0/8")).0
}

fn numbers(first: u32, last: u32) -> NumberSet {
    NumberSet::new([(first, last)])
}

#[test]
fn each_condition_looks_at_its_attribute() {
    let mut builder = attributes(&[65001, 65002, 65003]);
    builder.set_local_pref(200);
    builder.set_communities([Community(65001 << 16 | 7), Community::NO_EXPORT]);
    builder.set_extended_communities(["rt:65000:1".parse().unwrap()]);
    builder.set_large_communities([LargeCommunity::new(64512, 10001, 7)]);
    let one = route(&builder);
    let any = |text: &str| Condition::Communities(CommunityTest::Any(vec![text.parse().unwrap()]));
    let all = |texts: &[&str]| {
        let lists = texts.iter().map(|text| vec![text.parse().unwrap()]);
        Condition::Communities(CommunityTest::All(lists.collect()))
    };
    let path = |text: &str| {
        Condition::AsPath(AsPathTest {
            patterns: vec![text.parse().unwrap()],
            contains: NumberSet::default(),
        })
    };
    let contains = |first, last| {
        Condition::AsPath(AsPathTest {
            patterns: Vec::new(),
            contains: numbers(first, last),
        })
    };
    let large = |number| LargeTest::new("", move |one: LargeCommunity| one.local_data_1 == number);
    let nets = |text: &str| vec![net(text)];
    for (condition, expected) in [
        (path("_65002_"), true),
        (path("^65002"), false),
        (contains(65003, 65009), true),
        (contains(65004, 65009), false),
        (Condition::AsPathLength(numbers(3, 3)), true),
        (Condition::AsPathLength(numbers(4, u32::MAX)), false),
        (Condition::OriginAs(numbers(65003, 65003)), true),
        (Condition::OriginAs(numbers(65001, 65001)), false),
        (Condition::NeighborAs(numbers(65001, 65001)), true),
        (Condition::NeighborAs(numbers(65003, 65003)), false),
        (any("65001:*"), true),
        (any("65002:*"), false),
        (any("no-export"), true),
        (any("rt:*:1-9"), true),
        (any("64512:*:7"), true),
        (any("64512:*:8"), false),
        (all(&["no-export", "64512:*:*"]), true),
        (all(&["no-export", "64513:*:*"]), false),
        (Condition::Large(large(10001)), true),
        (Condition::Large(large(10002)), false),
        (Condition::Origin(vec![Origin::Egp, Origin::Igp]), true),
        (Condition::Origin(vec![Origin::Incomplete]), false),
        (Condition::LocalPref(numbers(150, 250)), true),
        (Condition::LocalPref(numbers(100, 100)), false),
        (Condition::Med(numbers(0, 0)), true),
        (Condition::Med(numbers(1, 9)), false),
        (Condition::NextHop(nets("192.0.2.0/24")), true),
        (Condition::NextHop(nets("198.51.100.0/24")), false),
        (Condition::Neighbor(nets("192.0.2.1/32")), true),
        (Condition::Neighbor(nets("2001:db8::/32")), false),
        (Condition::Source(vec![Source::Ebgp]), true),
        (Condition::Source(vec![Source::Local, Source::Ibgp]), false),
        (Condition::Family(vec![Family::Ipv4Unicast]), true),
        (Condition::Family(vec![Family::Ipv6Unicast]), false),
    ] {
        let words = format!("{condition:?}");
        assert_eq!(holds(condition, &one), expected, "{words}");
    }
    let local = Route {
        neighbor: None,
        ..one
    };
    assert!(!holds(Condition::Neighbor(nets("0.0.0.0/0")), &local));
    let plain = attributes(&[]);
    assert!(holds(
        Condition::LocalPref(numbers(100, 100)),
        &route(&plain)
    ));
    assert!(!holds(
        Condition::OriginAs(numbers(0, u32::MAX)),
        &route(&plain)
    ));
}

/// What edits make of attributes.
fn edited(edits: Vec<Edit>, builder: &AttributesBuilder) -> (AttributesBuilder, Change) {
    let program = program(vec![term(Conditions::default(), edits, Then::Accept)]);
    let mut edit = builder.clone();
    let change = program.apply(&[0], Asn(65000), Family::Ipv4Unicast, &mut edit);
    (edit, change)
}

#[test]
fn each_edit_changes_its_attribute() {
    let mut builder = attributes(&[65001]);
    builder.set_med(5);
    builder.set_communities([Community(1), Community(2)]);
    builder.set_large_communities([
        LargeCommunity::new(64512, 1, 1),
        LargeCommunity::new(65001, 1, 1),
    ]);
    let make = |edit| edited(vec![edit], &builder).0;
    assert_eq!(make(Edit::LocalPref(7)).view().local_pref(), Some(7));
    assert_eq!(make(Edit::Med(Some(9))).view().med(), Some(9));
    assert_eq!(make(Edit::Med(None)).view().med(), None);
    let origin = make(Edit::Origin(Origin::Incomplete));
    assert_eq!(origin.view().origin(), Origin::Incomplete);
    let prepend = |asn, times| {
        let edit = make(Edit::Prepend { asn, times });
        edit.view().as_path().to_string()
    };
    assert_eq!(prepend(None, 2), "65000 65000 65001");
    assert_eq!(prepend(Some(Asn(7)), 1), "7 65001");
    let add = |texts: &[&str]| {
        let communities = texts.iter().map(|text| text.parse().unwrap());
        Edit::AddCommunities(communities.collect::<Vec<AnyCommunity>>())
    };
    let added = make(add(&["0:2", "0:3", "rt:1:1", "1:1:1", "65001:1:1"]));
    let found: Vec<u32> = added.view().communities().map(|one| one.0).collect();
    assert_eq!(found, [1, 2, 3]);
    assert_eq!(added.view().extended_communities().len(), 1);
    let large: Vec<String> = added
        .view()
        .large_communities()
        .map(|one| one.to_string())
        .collect();
    assert_eq!(large, ["1:1:1", "64512:1:1", "65001:1:1"]);
    let removed = |patterns: &[&str], spare: Option<LargeTest>| {
        let patterns = patterns.iter().map(|text| text.parse().unwrap()).collect();
        let edit = make(Edit::RemoveCommunities { patterns, spare });
        let view = edit.view();
        let large: Vec<String> = view
            .large_communities()
            .map(|one| one.to_string())
            .collect();
        (view.communities().len(), large)
    };
    let overlay = LargeTest::new("", |one: LargeCommunity| one.global_administrator == 64512);
    assert_eq!(removed(&["0:1"], None).0, 1);
    assert_eq!(removed(&["*:*:*"], None).1, [] as [String; 0]);
    assert_eq!(removed(&["*:*:*"], Some(overlay.clone())).1, ["64512:1:1"]);
    let labels = make(Edit::RemoveLarge(overlay));
    assert_eq!(labels.view().large_communities().len(), 1);
}

#[test]
fn a_next_hop_is_set_on_routes_of_its_family() {
    let builder = attributes(&[]);
    let next_hop = |edit| edited(vec![Edit::NextHop(edit)], &builder).1.next_hop;
    let (v4, v6): (IpAddr, IpAddr) = ([1, 1, 1, 1].into(), "2001:db8::1".parse().unwrap());
    let address = NextHopEdit::Address;
    assert_eq!(next_hop(NextHopEdit::Own), Some(NextHopEdit::Own));
    assert_eq!(next_hop(address(v4)), Some(address(v4)));
    assert_eq!(next_hop(address(v6)), None);
}

#[test]
fn later_terms_see_what_earlier_ones_have_set() {
    let builder = attributes(&[65001]);
    let tagged = Condition::Communities(CommunityTest::Any(vec!["65000:1".parse().unwrap()]));
    let long = Condition::AsPath(AsPathTest {
        patterns: vec!["^65000_65000_65001$".parse().unwrap()],
        contains: NumberSet::default(),
    });
    let hop = Condition::NextHop(vec![net("198.51.100.9/32")]);
    let program = program(vec![
        term(
            Conditions {
                prefixes: Some(list(&[("10.0.0.0/8", 8, 32)])),
                others: Vec::new(),
            },
            vec![
                Edit::AddCommunities(vec!["65000:1".parse().unwrap()]),
                Edit::Prepend {
                    asn: None,
                    times: 2,
                },
                Edit::NextHop(NextHopEdit::Address([198, 51, 100, 9].into())),
            ],
            Then::Next,
        ),
        term(
            Conditions {
                prefixes: Some(list(&[("10.1.0.0/16", 16, 32)])),
                others: vec![tagged, long, hop],
            },
            Vec::new(),
            Then::Accept,
        ),
    ]);
    let run = |text: &str| program.run(&route(&builder), &net(text));
    assert_eq!(run("10.1.2.0/24"), (true, vec![0, 1]));
    assert_eq!(run("10.2.0.0/24"), (false, vec![0]));
    assert_eq!(run("11.0.0.0/24"), (false, vec![]));
}

#[test]
fn what_is_called_stands_in_its_place() {
    let builder = attributes(&[3356]);
    let run = |program: &Program, text: &str| {
        let (accepted, terms) = program.run(&route(&builder), &net(text));
        let terms: Vec<String> = terms
            .iter()
            .map(|at| program.term(*at).to_string())
            .collect();
        (accepted, terms.join(", "))
    };
    // Nothing of what is left over is decided by `hygiene`; what it rejects stays rejected.
    let guarded = program(vec![
        term(
            Conditions::default(),
            Vec::new(),
            Then::Call("hygiene".into()),
        ),
        term(Conditions::default(), Vec::new(), Then::Accept),
    ]);
    let private = "p term t, hygiene term bogons, bogons term prefixes".to_owned();
    assert_eq!(run(&guarded, "10.0.0.0/24"), (false, private));
    let long = "p term t, hygiene term bogons, hygiene term too-long".to_owned();
    assert_eq!(run(&guarded, "1.1.1.0/25"), (false, long));
    let good = "p term t, hygiene term bogons, p term t".to_owned();
    assert_eq!(run(&guarded, "1.1.1.0/24"), (true, good));
    // Whom the call is not about goes past it.
    let matches = having(Condition::Source(vec![Source::Local]));
    let past = program(vec![
        term(matches, Vec::new(), Then::Call("hygiene".into())),
        term(Conditions::default(), Vec::new(), Then::Accept),
    ]);
    assert_eq!(run(&past, "10.0.0.0/24"), (true, "p term t".to_owned()));
}

#[test]
fn the_end_rejects_and_loops_are_refused() {
    let builder = attributes(&[]);
    let empty = Program::new([], &|_| None).unwrap();
    assert!(!empty.run(&route(&builder), &net("0.0.0.0/0")).0);
    let calls = |name: &str, called: &str| Policy {
        name: name.into(),
        terms: vec![term(
            Conditions::default(),
            Vec::new(),
            Then::Call(called.into()),
        )],
    };
    let all = [calls("a", "b"), calls("b", "c"), calls("c", "b")];
    let find = |name: &str| all.iter().find(|one| &*one.name == name);
    let names = ["b", "c", "b"].map(str::to_owned).to_vec();
    assert_eq!(
        Program::new([&all[0]], &find),
        Err(ProgramError::Loop(names))
    );
    let unknown = ProgramError::Unknown("d".to_owned());
    assert_eq!(Program::new([&calls("a", "d")], &find), Err(unknown));
    // Doubling at each level: it is found before there is no memory.
    let deep: Vec<Policy> = (0..40)
        .map(|at| {
            let call = || {
                let next = Then::Call(format!("p{}", at + 1).into());
                term(Conditions::default(), Vec::new(), next)
            };
            let terms = if at < 39 {
                vec![call(), call()]
            } else {
                vec![]
            };
            let name = format!("p{at}").into();
            Policy { name, terms }
        })
        .collect();
    let find = |name: &str| deep.iter().find(|one| &*one.name == name);
    assert_eq!(Program::new([&deep[0]], &find), Err(ProgramError::TooLong));
}

#[test]
fn ready_policies_do_what_their_documents_say() {
    let run = |name: &str, builder: &AttributesBuilder, text: &str| {
        let policy = well_known::policy(name).unwrap();
        let accept = Policy {
            name: "accept".into(),
            terms: vec![term(Conditions::default(), Vec::new(), Then::Accept)],
        };
        let program = Program::new([policy, &accept], &well_known::policy).unwrap();
        let (accepted, terms) = program.run(&route(builder), &net(text));
        let mut edit = builder.clone();
        program.apply(&terms, Asn(65000), Family::Ipv4Unicast, &mut edit);
        (accepted, edit)
    };
    let clean = attributes(&[1, 3356]);
    for (text, expected) in [
        ("1.1.1.0/24", true),
        ("0.0.0.0/0", true),
        ("10.1.0.0/16", false),
        ("192.168.0.0/16", false),
        ("224.0.0.0/24", false),
        ("2600::/32", true),
        ("::/0", true),
        ("2001:db8::/32", false),
        ("fc00::/48", false),
        ("4000::/16", false),
    ] {
        assert_eq!(run("bogons", &clean, text).0, expected, "{text}");
    }
    for path in [
        &[64512][..],
        &[1, 0],
        &[1, 4_200_000_000],
        &[23456],
        &[64496],
    ] {
        assert!(
            !run("bogons", &attributes(path), "1.1.1.0/24").0,
            "{path:?}"
        );
    }
    assert!(run("bogons", &clean, "1.1.1.1/32").0);
    assert!(!run("hygiene", &clean, "1.1.1.1/32").0);
    assert!(!run("hygiene", &clean, "2600::/49").0);
    assert!(!run("hygiene", &attributes(&[7; 101]), "1.1.1.0/24").0);
    let mut marked = attributes(&[1]);
    marked.set_communities(["blackhole".parse().unwrap(), Community::GRACEFUL_SHUTDOWN]);
    let (accepted, edit) = run("blackhole", &marked, "1.1.1.1/32");
    assert!(
        accepted
            && edit
                .view()
                .communities()
                .any(|one| one == Community::NO_EXPORT)
    );
    let (accepted, edit) = run("graceful-shutdown", &marked, "1.1.1.0/24");
    assert_eq!((accepted, edit.view().local_pref()), (true, Some(0)));
    assert_eq!(run("graceful-shutdown", &clean, "1.1.1.0/24").1, clean);
}

#[test]
fn routes_are_counted_by_term() {
    let program = program(vec![
        term(
            Conditions {
                prefixes: Some(list(&[("10.0.0.0/8", 8, 32)])),
                others: Vec::new(),
            },
            Vec::new(),
            Then::Next,
        ),
        term(Conditions::default(), Vec::new(), Then::Accept),
    ]);
    let builder = attributes(&[]);
    let mut decisions: Decisions<u8> = Decisions::default();
    let mut scratch = Scratch::default();
    let root = decisions.add();
    for text in ["10.0.0.0/8", "10.1.0.0/16", "11.0.0.0/8"] {
        let leaf = decisions.decide(root, &program, &mut scratch, &net(text), || route(&builder));
        decisions.leaf(leaf).hit();
    }
    let mut counts = [0; 2];
    decisions.count(&mut counts);
    decisions.count(&mut counts);
    assert_eq!(counts, [2, 3]);
    assert_eq!(decisions.clear().count(), 0);
}

/// A plain evaluation: no tree, no numbers of terms, each route by itself from the start.
struct Plain<'p> {
    policies: &'p BTreeMap<String, Policy>,
    builder: AttributesBuilder,
    next_hop: IpAddr,
    named: Option<NextHopEdit>,
    trace: Vec<String>,
}

impl Plain<'_> {
    fn all_hold(&self, conditions: &Conditions, prefix: &IpNet) -> bool {
        let view = Route {
            next_hop: self.next_hop,
            ..route(&self.builder)
        };
        let lists = conditions.prefixes.iter().all(|list| list.contains(prefix));
        lists
            && conditions
                .others
                .iter()
                .all(|one| holds(one.clone(), &view))
    }

    fn run(&mut self, policy: &Policy, prefix: &IpNet) -> Option<bool> {
        for term in &policy.terms {
            let unless = term.unless.as_ref();
            if !self.all_hold(&term.matches, prefix)
                || unless.is_some_and(|unless| self.all_hold(unless, prefix))
            {
                continue;
            }
            self.trace
                .push(format!("{} term {}", policy.name, term.name));
            for edit in &term.edits {
                let (edited, change) = edited(vec![edit.clone()], &self.builder);
                self.builder = edited;
                if let Some(named) = change.next_hop {
                    self.named = Some(named);
                    if let NextHopEdit::Address(address) = named {
                        self.next_hop = address;
                    }
                }
            }
            let decided = match &term.then {
                Then::Accept => Some(true),
                Then::Reject => Some(false),
                Then::Next => None,
                Then::Call(name) => self.run(&self.policies[&**name], prefix),
            };
            if decided.is_some() {
                return decided;
            }
        }
        None
    }
}

fn any_condition() -> impl Strategy<Value = Condition> {
    let community = (1u32..4).prop_map(|number| {
        let pattern = format!("0:{number}").parse().unwrap();
        Condition::Communities(CommunityTest::Any(vec![pattern]))
    });
    let path = prop_oneof![Just("_1_"), Just("^2"), Just("^$"), Just("^65000")].prop_map(|text| {
        Condition::AsPath(AsPathTest {
            patterns: vec![text.parse().unwrap()],
            contains: numbers(9, 9),
        })
    });
    prop_oneof![
        community,
        path,
        (0u32..3).prop_map(|number| Condition::LocalPref(numbers(100, 100 + number))),
        (0u32..4).prop_map(|length| Condition::AsPathLength(numbers(length, length + 1))),
        any::<bool>().prop_map(|one| {
            let text = if one {
                "192.0.2.0/24"
            } else {
                "198.51.100.0/24"
            };
            Condition::NextHop(vec![net(text)])
        }),
    ]
}

fn any_conditions() -> impl Strategy<Value = Conditions> {
    let prefixes = prop_oneof![
        Just(None),
        Just(Some(list(&[("10.0.0.0/8", 8, 16)]))),
        Just(Some(list(&[("10.0.0.0/9", 9, 32), ("11.0.0.0/8", 8, 8)]))),
    ];
    (prefixes, prop::collection::vec(any_condition(), 0..2))
        .prop_map(|(prefixes, others)| Conditions { prefixes, others })
}

fn any_edit() -> impl Strategy<Value = Edit> {
    prop_oneof![
        (100u32..104).prop_map(Edit::LocalPref),
        (1u32..4).prop_map(|one| Edit::AddCommunities(vec![format!("0:{one}").parse().unwrap()])),
        (1u32..4).prop_map(|one| Edit::RemoveCommunities {
            patterns: vec![format!("0:{one}").parse().unwrap()],
            spare: None,
        }),
        (1u8..3).prop_map(|times| Edit::Prepend { asn: None, times }),
        Just(Edit::NextHop(NextHopEdit::Address(
            [198, 51, 100, 1].into()
        ))),
    ]
}

/// Policies `p0` to `p2`, each of which calls later ones.
fn any_policies() -> impl Strategy<Value = BTreeMap<String, Policy>> {
    let then = |at: usize| {
        let call = (at + 1..=2.max(at + 1)).prop_map(move |to| match to {
            to if to > 2 => Then::Next,
            to => Then::Call(format!("p{to}").into()),
        });
        prop_oneof![
            Just(Then::Accept),
            Just(Then::Reject),
            Just(Then::Next),
            call
        ]
    };
    let terms = move |at: usize| {
        let unless = prop::option::of(any_conditions());
        let edits = prop::collection::vec(any_edit(), 0..3);
        prop::collection::vec((any_conditions(), unless, edits, then(at)), 0..4)
    };
    (terms(0), terms(1), terms(2)).prop_map(|(a, b, c)| {
        let policies = [a, b, c].into_iter().enumerate().map(|(at, terms)| {
            let terms = terms.into_iter().enumerate();
            let terms = terms.map(|(number, (matches, unless, edits, then))| {
                Arc::new(Term {
                    name: number.to_string().into(),
                    matches,
                    unless,
                    edits,
                    then,
                })
            });
            let name = format!("p{at}");
            let policy = Policy {
                name: name.as_str().into(),
                terms: terms.collect(),
            };
            (name, policy)
        });
        policies.collect()
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(600))]

    /// One tree for all prefixes of a set of attributes comes to what each comes to alone.
    #[test]
    fn a_program_is_what_its_policies_say(
        policies in any_policies(),
        path in prop::collection::vec(1u32..4, 0..3),
        communities in prop::collection::btree_set(1u32..4, 0..3),
    ) {
        let mut builder = attributes(&path);
        builder.set_communities(communities.iter().map(|one| Community(*one)));
        let chain = [&policies["p0"], &policies["p1"]];
        let program = Program::new(chain, &|name| policies.get(name)).unwrap();
        let mut decisions: Decisions<()> = Decisions::default();
        let mut scratch = Scratch::default();
        let root = decisions.add();
        for text in ["10.0.0.0/8", "10.0.0.0/24", "10.128.0.0/16", "11.0.0.0/8", "12.0.0.0/8"] {
            let prefix = net(text);
            let mut plain = Plain {
                policies: &policies,
                builder: builder.clone(),
                next_hop: [192, 0, 2, 1].into(),
                named: None,
                trace: Vec::new(),
            };
            let mut expected = None;
            for policy in chain {
                expected = expected.or_else(|| plain.run(policy, &prefix));
            }
            let leaf = decisions.decide(root, &program, &mut scratch, &prefix, || route(&builder));
            let leaf = decisions.leaf(leaf);
            prop_assert_eq!(leaf.is_accepted(), expected.unwrap_or(false), "{}", text);
            let trace: Vec<String> =
                leaf.terms().iter().map(|at| program.term(*at).to_string()).collect();
            prop_assert_eq!(&trace, &plain.trace, "{}", text);
            let mut edit = builder.clone();
            let change = program.apply(leaf.terms(), Asn(65000), Family::Ipv4Unicast, &mut edit);
            prop_assert_eq!(edit.octets(), plain.builder.octets(), "{}", text);
            prop_assert_eq!(change.next_hop, plain.named, "{}", text);
        }
    }
}
