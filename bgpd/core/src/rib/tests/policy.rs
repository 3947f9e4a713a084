//! Policies where routes come in and where they go out.

use std::sync::Arc;

use weft_bgp_policy::{
    AsPathTest, CommunityTest, Condition, Conditions, Edit, NextHopEdit, NumberSet, Policy,
    PrefixRange, PrefixSet, Program, Route, Source, Term, Then,
};

use super::*;

fn term(prefixes: &[&str], others: Vec<Condition>, edits: Vec<Edit>, then: Then) -> Arc<Term> {
    let lines = prefixes.iter().map(|text| {
        let prefix: IpNet = text.parse().unwrap();
        PrefixRange {
            prefix,
            ge: prefix.prefix_len(),
            le: prefix.max_prefix_len(),
        }
    });
    let lines: Vec<PrefixRange> = lines.collect();
    Arc::new(Term {
        name: "t".into(),
        matches: Conditions {
            prefixes: (!lines.is_empty()).then(|| Arc::new(PrefixSet::new(&lines))),
            others,
        },
        unless: None,
        edits,
        then,
    })
}

fn policy(terms: Vec<Arc<Term>>) -> RoutePolicy {
    let name = "p".into();
    let program = Program::new([&Policy { name, terms }], &|_| None).unwrap();
    RoutePolicy::Program(Arc::new(program))
}

fn contains(asn: u32) -> Condition {
    Condition::AsPath(AsPathTest {
        patterns: vec![format!("_{asn}_").parse().unwrap()],
        contains: NumberSet::default(),
    })
}

fn prepend(times: u8) -> Edit {
    Edit::Prepend { asn: None, times }
}

/// Everything, nothing, by prefix, by path with a change, and all of that together.
pub(super) fn samples() -> [RoutePolicy; 5] {
    let some = ["10.0.0.0/24", "10.0.1.0/24"];
    let by_prefix = term(&some, vec![], vec![], Then::Accept);
    let by_path = || term(&[], vec![contains(1)], vec![], Then::Reject);
    let longer = term(&[], vec![], vec![prepend(1)], Then::Accept);
    let some_longer = term(&some[..1], vec![], vec![prepend(2)], Then::Next);
    let source = Condition::Source(vec![Source::Ebgp]);
    let external = term(&[], vec![source], vec![], Then::Accept);
    [
        RoutePolicy::Accept,
        RoutePolicy::Reject,
        policy(vec![by_prefix.clone()]),
        policy(vec![by_path(), longer]),
        policy(vec![some_longer, external, by_path(), by_prefix]),
    ]
}

/// The path of a route by a plain run of a policy, before the own AS stands in front; `None` where it does not pass.
pub(super) fn exported(
    policy: &RoutePolicy,
    prefix: IpNet,
    path: &RoutePath,
    kinds: &[PeerKind],
) -> Option<String> {
    let view = path.attributes.view();
    let program = match policy {
        RoutePolicy::Accept => return Some(view.as_path().to_string()),
        RoutePolicy::Reject | RoutePolicy::Missing => return None,
        RoutePolicy::Program(program) => program,
    };
    let route = Route {
        attributes: view,
        next_hop: path.attributes.next_hop().address,
        family: Family::Ipv4Unicast,
        source: match kinds[usize::from(path.source.0) - 1] {
            PeerKind::Ebgp => Source::Ebgp,
            _ => Source::Ibgp,
        },
        neighbor: Some(address(path.source.0)),
        prepends: OWN,
    };
    let (accepted, terms) = program.run(&route, &prefix);
    let mut edit = AttributesBuilder::new();
    edit.load(view);
    program.apply(&terms, OWN, Family::Ipv4Unicast, &mut edit);
    accepted.then(|| edit.view().as_path().to_string())
}

/// A RIB with neighbour 1 and this import policy for it, and others.
fn importing(import: RoutePolicy, kinds: &[PeerKind]) -> Bench {
    let mut bench = Bench::new(kinds, false);
    let mut config = peer_config(1, kinds[0]);
    config.import = import;
    bench.rib.set_import(PeerId(1), &config);
    bench
}

fn route(bench: &Bench, prefix: &str) -> Option<RoutePath> {
    let filter = RouteFilter {
        prefix: Some(prefix.parse().unwrap()),
        ..RouteFilter::default()
    };
    bench.rib.routes(&filter, 1).routes.pop()?.paths.pop()
}

#[test]
fn an_import_policy_changes_and_rejects_what_comes_in() {
    let tag: AnyCommunity = "65000:7".parse().unwrap();
    let tagged = CommunityTest::Any(vec!["65000:9".parse().unwrap()]);
    let import = policy(vec![
        term(&["10.9.0.0/16"], vec![], vec![], Then::Reject),
        term(
            &[],
            vec![Condition::Communities(tagged)],
            vec![],
            Then::Reject,
        ),
        term(
            &["10.1.0.0/16"],
            vec![],
            vec![
                Edit::LocalPref(200),
                Edit::AddCommunities(vec![tag]),
                prepend(1),
                Edit::NextHop(NextHopEdit::Address([192, 0, 2, 77].into())),
            ],
            Then::Accept,
        ),
        term(&[], vec![], vec![], Then::Accept),
    ]);
    let mut bench = importing(import, &[Ebgp, Ibgp]);
    for prefix in ["10.9.0.0/24", "10.1.0.0/24", "10.2.0.0/24"] {
        bench.announce(1, 0, prefix, &[65001], |_| {});
    }
    bench.announce(1, 0, "10.3.0.0/24", &[65001], |builder| {
        builder.set_communities([Community(65000 << 16 | 9)]);
    });
    assert!(route(&bench, "10.9.0.0/24").is_none() && route(&bench, "10.3.0.0/24").is_none());
    let changed = route(&bench, "10.1.0.0/24").unwrap().attributes;
    assert_eq!(changed.view().local_pref(), Some(200));
    assert_eq!(changed.view().as_path().to_string(), "65001 65001");
    assert_eq!(changed.view().communities().count(), 1);
    assert_eq!(changed.next_hop().address, IpAddr::from([192, 0, 2, 77]));
    let plain = route(&bench, "10.2.0.0/24").unwrap().attributes;
    assert_eq!(plain.view().local_pref(), None);
    assert_eq!(bench.rib.terms(PeerId(1))[0], [1, 1, 1, 1]);
    let counters = bench.rib.counters(PeerId(1));
    assert_eq!((counters.rejected, counters.policy_rejected), (2, 2));
    bench.read_all();
    assert_eq!(
        bench.told(2),
        ["10.1.0.0/24 65001 65001", "10.2.0.0/24 65001"]
    );
    // What was taken goes when it comes again with attributes that are not.
    bench.announce(1, 0, "10.2.0.0/24", &[65001], |builder| {
        builder.set_communities([Community(65000 << 16 | 9)]);
    });
    assert!(route(&bench, "10.2.0.0/24").is_none());
    for peer in 1..=2 {
        bench.rib.peer_down(PeerId(peer), PeerDown::Flush);
    }
    assert_eq!(bench.rib.attribute_sets(), 0, "no set outlives its routes");
}

#[test]
fn what_nobody_permits_does_not_pass() {
    for import in [RoutePolicy::Reject, RoutePolicy::Missing, policy(vec![])] {
        let mut bench = importing(import, &[Ebgp, Ebgp]);
        bench.announce(1, 0, P, &[65001], |_| {});
        assert!(route(&bench, P).is_none());
        assert_eq!(bench.rib.counters(PeerId(1)).policy_rejected, 1);
        bench.announce(2, 0, P, &[65002], |_| {});
        let exports = [(PeerId(1), RoutePolicy::Missing)];
        bench.rib.set_exports(&exports);
        bench.read_all();
        assert_eq!(bench.told(1), [] as [String; 0]);
    }
}

/// What a neighbour is sent of one route: attributes and next hop.
fn sent(bench: &mut Bench, peer: u16) -> (AttributesBuilder, IpAddr) {
    let octets = bench.rib.poll_transmit(PeerId(peer)).unwrap();
    let frame = next_frame(&octets, 4096).unwrap().unwrap();
    let update = UpdateView::split(&octets[HEADER_LEN..frame.len]).unwrap();
    let context = AttributeContext {
        four_octet_as: true,
        peer: PeerType::Internal,
        has_nlri: !update.nlri.is_empty(),
        families: [true; 2],
        extended_next_hop: false,
    };
    let mut decoder = AttributeDecoder::new();
    let decoded = decoder.decode(update.attributes, &context).unwrap();
    let mut builder = AttributesBuilder::new();
    builder.load(decoded.attributes);
    (builder, decoded.next_hop.unwrap().into())
}

#[test]
fn an_export_policy_changes_what_goes_out() {
    let third = IpAddr::from([192, 0, 2, 77]);
    for (edit, next_hop) in [
        (NextHopEdit::Own, [192, 0, 2, 254].into()),
        (NextHopEdit::Unchanged, address(1)),
        (NextHopEdit::Address(third), third),
    ] {
        for kind in [Ebgp, Ibgp] {
            let mut bench = Bench::new(&[Ebgp, kind], false);
            let edits = vec![
                Edit::LocalPref(7),
                Edit::Med(Some(5)),
                prepend(2),
                Edit::NextHop(edit),
            ];
            let export = policy(vec![term(&[], vec![], edits, Then::Accept)]);
            bench.rib.set_exports(&[(PeerId(2), export)]);
            bench.announce(1, 0, P, &[65001], |builder| builder.set_med(9));
            let (attributes, hop) = sent(&mut bench, 2);
            let view = attributes.view();
            // LOCAL_PREF stays in the AS (RFC 4271 section 5.1.5), MED that a policy sets does not.
            let inside = kind == Ibgp;
            assert_eq!(view.local_pref(), inside.then_some(7));
            assert_eq!(view.med(), Some(5));
            let own = if inside { "" } else { "64500 " };
            assert_eq!(
                view.as_path().to_string(),
                format!("{own}64500 64500 65001")
            );
            assert_eq!(hop, next_hop, "{edit:?} {kind:?}");
        }
    }
}

/// Labels of several tenants with one prefix go out in one announcement, which is made of the best path: where the policy rejects that one,
/// those of the others go out all the same.
#[test]
fn a_policy_that_rejects_one_tenants_labels_lets_those_of_others_out() {
    let config = RibConfig {
        overlay_administrator: Some(64512),
        ..config()
    };
    for rejected in [10001, 10002, 10003] {
        for add_path in [false, true] {
            let kinds = [IbgpClient, Ebgp];
            let hook = Box::new(Joining);
            let mut bench = Bench::with(config.clone(), hook, &kinds, vec![true, add_path]);
            let labels = format!("64512:{rejected}:*").parse().unwrap();
            let labels = Condition::Communities(CommunityTest::Any(vec![labels]));
            let reject = term(&[], vec![labels], vec![], Then::Reject);
            let all = term(&[], vec![], vec![], Then::Accept);
            let export = policy(vec![reject, all]);
            bench.rib.set_exports(&[(PeerId(2), export)]);
            for vni in [10001, 10002] {
                bench.announce(1, vni, P, &[], |edit| {
                    edit.set_large_communities([LargeCommunity::new(64512, vni, 1)]);
                });
            }
            bench.read_all();
            let left = [10001, 10002].into_iter().filter(|vni| *vni != rejected);
            let left: Vec<String> = left.map(|vni| format!("64512:{vni}:1")).collect();
            let told = [format!("{P} 64500 {}", left.join(" "))];
            assert_eq!(bench.told(2), told, "{add_path}");
        }
    }
}

#[test]
fn neighbours_with_equal_policies_are_encoded_for_once() {
    let mut bench = Bench::new(&[Ebgp, Ebgp, Ebgp], false);
    bench.read_all();
    let [.., by_path, _] = samples();
    let exports = [2, 3].map(|peer| (PeerId(peer), by_path.clone()));
    bench.rib.set_exports(&exports);
    bench.announce(1, 0, P, &[65001], |_| {});
    bench.read_all();
    let told = [format!("{P} 64500 64500 65001")];
    assert_eq!(
        (bench.told(2), bench.told(3)),
        (told.to_vec(), told.to_vec())
    );
    // Each route is counted once for both.
    assert_eq!(bench.rib.terms(PeerId(2))[1], [0, 1]);
    assert_eq!(bench.rib.terms(PeerId(3))[1], [0, 1]);
}

#[test]
fn another_export_policy_tells_what_differs_and_no_more() {
    let mut bench = Bench::new(&[Ebgp, Ebgp, Ebgp], false);
    for number in 0..4 {
        bench.announce(1, 0, &format!("10.0.{number}.0/24"), &[65001], |_| {});
    }
    bench.read_all();
    assert_eq!(bench.told(2).len(), 4);
    let [_, _, by_prefix, ..] = samples();
    // Alone out of a group of two, then the other one too.
    bench.rib.set_exports(&[(PeerId(2), by_prefix.clone())]);
    let mut octets = 0;
    while let Some(piece) = bench.rib.poll_transmit(PeerId(2)) {
        octets += piece.len();
    }
    // One UPDATE that withdraws two /24.
    assert_eq!(octets, HEADER_LEN + 4 + 2 * 4);
    assert!(!bench.rib.has_pending(PeerId(3)));
    bench.rib.set_exports(&[(PeerId(3), by_prefix)]);
    bench.read(3);
    assert_eq!(
        bench.told(3),
        ["10.0.0.0/24 64500 65001", "10.0.1.0/24 64500 65001"]
    );
    bench.announce(1, 0, "10.0.1.0/24", &[65001, 9], |_| {});
    bench.withdraw(1, 0, "10.0.0.0/24");
    bench.read_all();
    assert_eq!(bench.told(3), ["10.0.1.0/24 64500 65001 9"]);
}

/// What its old group had not told it yet, a neighbour is told in the new one, though it comes to the same by both policies.
#[test]
fn a_neighbour_takes_along_what_it_has_not_been_told() {
    let [_, _, by_prefix, ..] = samples();
    // Whether somebody else of the old group had been told: then it waits for the neighbour in a log, else in the queue.
    for other_reads in [false, true] {
        let mut bench = Bench::new(&[Ebgp, Ebgp, Ebgp, Ebgp], false);
        bench.read_all();
        bench.rib.set_exports(&[(PeerId(2), by_prefix.clone())]);
        bench.announce(1, 0, "10.0.0.0/24", &[65001], |_| {});
        bench.read(2);
        if other_reads {
            bench.read(4);
        }
        bench.rib.set_exports(&[(PeerId(3), by_prefix.clone())]);
        bench.read_all();
        for peer in 2..=4 {
            assert_eq!(
                bench.told(peer),
                ["10.0.0.0/24 64500 65001"],
                "neighbour {peer}"
            );
        }
        bench.withdraw(1, 0, "10.0.0.0/24");
        bench.read_all();
        assert_eq!(bench.told(3), [] as [String; 0]);
    }
}
