use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv6Addr;

use ipnet::{Ipv4Net, Ipv6Net};
use proptest::prelude::*;
use weft_bgp_wire::*;

use super::*;

const OWN: Asn = Asn(64500);

fn config() -> RibConfig {
    RibConfig {
        asn: OWN,
        router_id: RouterId([192, 0, 2, 254].into()),
        cluster_id: [192, 0, 2, 254].into(),
        overlay_administrator: None,
        report: Vec::new(),
        seed: 1,
    }
}

fn address(peer: u16) -> IpAddr {
    IpAddr::from([192, 0, 2, peer as u8])
}

fn peer_config(peer: u16, kind: PeerKind) -> PeerConfig {
    PeerConfig {
        kind,
        asn: if kind == PeerKind::Ebgp {
            Asn(65000 + u32::from(peer))
        } else {
            OWN
        },
        address: address(peer),
        next_hop_self: true,
        import_filter: None,
        export_filter: None,
        max_prefixes: None,
        max_paths: u32::MAX,
        allow_own_as: 0,
        enforce_first_as: false,
        accept_martians: false,
        import_class: 0,
        export_class: 0,
        role: None,
    }
}

fn up(peer: u16, add_path: bool) -> PeerUp {
    PeerUp {
        families: vec![Family::Ipv4Unicast],
        four_octet_as: true,
        max_message_len: 4096,
        add_path_send: [add_path, false],
        add_path_receive: [add_path, false],
        router_id: RouterId([192, 0, 2, peer as u8].into()),
        enhanced_refresh: false,
        local_address: IpAddr::from([192, 0, 2, 254]),
        local_address_v6: None,
        shared_link: None,
    }
}

/// A RIB with neighbours 1, 2, ... of these kinds, all up, and a resolvable next hop each.
struct Bench {
    rib: Rib,
    kinds: Vec<PeerKind>,
    /// By neighbour, in both directions.
    add_path: Vec<bool>,
    /// What each neighbour has been told: (prefix, path id) -> (AS_PATH, next hop).
    told: Vec<BTreeMap<(Ipv4Net, u32), (String, IpAddr)>>,
    ends: Vec<usize>,
}

/// Joins all large communities.
struct Joining;

impl ExportHook for Joining {
    fn export(&self, _: &ExportContext, _: AttributesView<'_>, _: &mut AttributesBuilder) -> bool {
        true
    }

    fn join(
        &self,
        others: &mut dyn Iterator<Item = (ExportContext, AttributesView<'_>)>,
        edit: &mut AttributesBuilder,
    ) {
        let mut joined: Vec<_> = edit.view().large_communities().collect();
        joined.extend(others.flat_map(|(_, attributes)| attributes.large_communities()));
        joined.sort_unstable();
        edit.set_large_communities(joined);
    }
}

impl Bench {
    fn new(kinds: &[PeerKind], add_path: bool) -> Self {
        let add_path = vec![add_path; kinds.len()];
        Self::with(config(), Box::new(PlainBgp), kinds, add_path)
    }

    fn with(
        config: RibConfig,
        hook: Box<dyn ExportHook>,
        kinds: &[PeerKind],
        add_path: Vec<bool>,
    ) -> Self {
        let mut rib = Rib::new(config, hook);
        for ((peer, kind), add_path) in (1..).zip(kinds).zip(&add_path) {
            rib.add_peer(PeerId(peer), peer_config(peer, *kind));
            rib.peer_up(PeerId(peer), up(peer, *add_path));
        }
        Self {
            rib,
            kinds: kinds.to_vec(),
            add_path,
            told: vec![BTreeMap::new(); kinds.len()],
            ends: vec![0; kinds.len()],
        }
    }

    fn resolve(&mut self) {
        let (track, _) = self.rib.poll_next_hops();
        let resolved: Vec<_> = track
            .into_iter()
            .map(|address| (address, Some(0)))
            .collect();
        self.rib.set_next_hops(&resolved);
    }

    fn update(&mut self, peer: u16, update: impl FnOnce(&mut Vec<u8>, &EncodeContext)) {
        let context = EncodeContext {
            max_len: 4096,
            four_octet_as: true,
            add_path: [self.add_path[usize::from(peer) - 1], false],
        };
        let mut out = Vec::new();
        update(&mut out, &context);
        let mut rest = &out[..];
        while let Some(frame) = next_frame(rest, 4096).unwrap() {
            self.rib
                .handle_update(PeerId(peer), &rest[HEADER_LEN..frame.len])
                .unwrap();
            rest = &rest[frame.len..];
        }
        self.resolve();
    }

    fn announce(
        &mut self,
        peer: u16,
        path_id: u32,
        prefix: &str,
        path: &[u32],
        edit: impl FnOnce(&mut AttributesBuilder),
    ) {
        let mut builder = AttributesBuilder::new();
        builder.set_origin(Origin::Igp);
        builder.set_as_sequence(&path.iter().map(|asn| Asn(*asn)).collect::<Vec<_>>());
        edit(&mut builder);
        self.update(peer, |out, context| {
            let next_hop = NextHop::from(address(peer));
            let mut section = Vec::new();
            encode_attributes(
                builder.view(),
                &next_hop,
                Family::Ipv4Unicast,
                true,
                &mut section,
            );
            let mut writer =
                UpdateWriter::announce(out, context, Family::Ipv4Unicast, &section, next_hop)
                    .unwrap();
            writer.push(path_id, prefix.parse::<Ipv4Net>().unwrap());
            writer.finish();
        });
    }

    fn withdraw(&mut self, peer: u16, path_id: u32, prefix: &str) {
        self.update(peer, |out, context| {
            let mut writer = UpdateWriter::withdraw(out, context, Family::Ipv4Unicast);
            writer.push(path_id, prefix.parse::<Ipv4Net>().unwrap());
            writer.finish();
        });
    }

    /// Lets a neighbour read everything.
    fn read(&mut self, peer: u16) {
        let told = &mut self.told[usize::from(peer) - 1];
        let add_path = self.add_path[usize::from(peer) - 1];
        while let Some(octets) = self.rib.poll_transmit(PeerId(peer)) {
            let mut rest = &octets[..];
            while let Some(frame) = next_frame(rest, 4096).unwrap() {
                let update = UpdateView::split(&rest[HEADER_LEN..frame.len]).unwrap();
                rest = &rest[frame.len..];
                if update.is_ipv4_end_of_rib() {
                    self.ends[usize::from(peer) - 1] += 1;
                    continue;
                }
                for nlri in NlriIter::<Ipv4Net>::new(update.withdrawn, add_path) {
                    let nlri = nlri.unwrap();
                    told.remove(&(nlri.prefix, nlri.path_id));
                }
                let context = AttributeContext {
                    four_octet_as: true,
                    peer: PeerType::Internal,
                    has_nlri: !update.nlri.is_empty(),
                };
                let mut decoder = AttributeDecoder::new();
                let decoded = decoder.decode(update.attributes, &context).unwrap();
                assert_eq!(
                    decoded.treatment,
                    Treatment::Accept,
                    "{:?}",
                    decoded.problems
                );
                for nlri in NlriIter::<Ipv4Net>::new(update.nlri, add_path) {
                    let nlri = nlri.unwrap();
                    let mut path = decoded.attributes.as_path().to_string();
                    for community in decoded.attributes.large_communities() {
                        path.push_str(&format!(" {community}"));
                    }
                    told.insert(
                        (nlri.prefix, nlri.path_id),
                        (path, decoded.next_hop.unwrap().into()),
                    );
                }
            }
            assert!(rest.is_empty(), "chunks hold whole messages");
        }
        assert!(!self.rib.has_pending(PeerId(peer)));
    }

    fn read_all(&mut self) {
        for peer in 1..=self.kinds.len() as u16 {
            self.read(peer);
        }
    }

    fn told(&self, peer: u16) -> Vec<String> {
        self.told[usize::from(peer) - 1]
            .iter()
            .map(|((prefix, _), (path, _))| format!("{prefix} {path}").trim().to_owned())
            .collect()
    }

    fn lost(&self, prefix: &str) -> Vec<(u16, Option<Reason>)> {
        let filter = RouteFilter {
            prefix: Some(prefix.parse().unwrap()),
            ..RouteFilter::default()
        };
        let page = self.rib.routes(&filter, 10);
        page.routes
            .iter()
            .flat_map(|route| &route.paths)
            .map(|path| (path.source.0, path.lost))
            .collect()
    }
}

use PeerKind::{Ebgp, Ibgp, IbgpClient};

const P: &str = "198.51.100.0/24";

#[test]
fn a_route_goes_to_everybody_but_its_source() {
    let mut bench = Bench::new(&[Ebgp, Ebgp, Ibgp], false);
    bench.announce(1, 0, P, &[65001], |_| {});
    bench.read_all();
    assert!(bench.told(1).is_empty());
    assert_eq!(bench.told(2), [format!("{P} 64500 65001")]);
    assert_eq!(bench.told(3), [format!("{P} 65001")]);
    assert_eq!(bench.ends, [1, 1, 1], "End-of-RIB once each");
    bench.withdraw(1, 0, P);
    bench.read_all();
    assert!(bench.told(2).is_empty() && bench.told(3).is_empty());
    assert_eq!(bench.rib.prefixes(), [0, 0], "nothing stays behind");
}

/// A driver stops asking when nothing is pending: the last octets must leave nothing behind.
#[test]
fn entries_go_with_the_last_octets_that_speak_of_them() {
    let mut bench = Bench::new(&[Ebgp, Ebgp], false);
    bench.announce(1, 0, P, &[65001], |_| {});
    bench.read_all();
    bench.withdraw(1, 0, P);
    for peer in [1, 2] {
        while bench.rib.has_pending(PeerId(peer)) {
            bench.rib.poll_transmit(PeerId(peer));
        }
    }
    assert_eq!(bench.rib.prefixes(), [0, 0]);
}

#[test]
fn a_new_source_is_sent_the_withdrawal_of_what_stood_there() {
    let mut bench = Bench::new(&[Ebgp, Ebgp, Ebgp], false);
    bench.announce(1, 0, P, &[65001, 1], |_| {});
    bench.read_all();
    assert_eq!(bench.told(2).len(), 1);
    bench.announce(2, 0, P, &[65002], |_| {});
    bench.read_all();
    assert!(bench.told(2).is_empty());
    assert_eq!(bench.told(1), [format!("{P} 64500 65002")]);
    assert_eq!(bench.told(3), [format!("{P} 64500 65002")]);
}

#[test]
fn internal_routes_go_to_external_neighbours_and_clients_only() {
    let mut bench = Bench::new(&[Ibgp, Ibgp, IbgpClient, IbgpClient, Ebgp], false);
    bench.announce(1, 0, P, &[], |_| {});
    bench.announce(3, 0, "203.0.113.0/24", &[], |_| {});
    bench.read_all();
    assert_eq!(bench.told(2), ["203.0.113.0/24"]);
    assert_eq!(bench.told(4), [P, "203.0.113.0/24"]);
    assert_eq!(bench.told(3), [P]);
    assert_eq!(bench.told(5).len(), 2);
}

/// A speaker beyond the neighbour may pass one path on, whatever the neighbour takes (FRR receives ADD-PATH unasked).
#[test]
fn another_domain_is_told_the_labels_of_overlapping_tenants_in_one_path() {
    let config = RibConfig {
        overlay_administrator: Some(64512),
        ..config()
    };
    let mut bench = Bench::with(
        config,
        Box::new(Joining),
        &[IbgpClient, Ebgp, IbgpClient],
        vec![true; 3],
    );
    let tell = |bench: &mut Bench, path_id: u32, vni: u32| {
        bench.announce(1, path_id, P, &[], |edit| {
            edit.set_large_communities([LargeCommunity::new(64512, vni, 1)]);
        });
        bench.read_all();
    };
    let one = |vni: u32| format!("{P} 64500 64512:{vni}:1");
    let both = format!("{P} 64500 64512:10001:1 64512:10002:1");
    tell(&mut bench, 1, 10001);
    assert_eq!(bench.told(2), [one(10001)]);
    tell(&mut bench, 2, 10002);
    assert_eq!(bench.told(2), std::slice::from_ref(&both));
    assert_eq!(
        bench.told(3).len(),
        2,
        "inside the domain each path is told by itself"
    );
    bench.withdraw(1, 1, P);
    bench.read_all();
    assert_eq!(bench.told(2), [one(10002)]);
    tell(&mut bench, 1, 10001);
    assert_eq!(bench.told(2), [both]);
    bench.withdraw(1, 2, P);
    bench.read_all();
    assert_eq!(bench.told(2), [one(10001)]);
    // More labels than an UPDATE holds are spread over several paths; none is lost.
    for path_id in 3..1003 {
        tell(&mut bench, path_id, 20_000 + path_id);
    }
    let told = bench.told(2);
    assert_eq!(
        told.iter()
            .map(|path| path.matches("64512:").count())
            .sum::<usize>(),
        1001
    );
    assert!((2..10).contains(&told.len()), "{} paths", told.len());
    for path_id in 1..1003 {
        bench.withdraw(1, path_id, P);
    }
    bench.read_all();
    assert!(bench.told(2).is_empty());
}

#[test]
fn own_as_and_reflection_loops_are_refused() {
    let mut bench = Bench::new(&[Ebgp, Ibgp], false);
    bench.announce(1, 0, P, &[65001, 64500], |_| {});
    bench.announce(2, 0, P, &[], |builder| {
        builder.set_originator_id(RouterId([192, 0, 2, 254].into()))
    });
    bench.announce(2, 0, P, &[], |builder| {
        builder.prepend_cluster_id([192, 0, 2, 254].into())
    });
    assert_eq!(bench.rib.prefixes(), [0, 0]);
    assert_eq!(bench.rib.counters(PeerId(1)).rejected, 1);
    assert_eq!(bench.rib.counters(PeerId(2)).rejected, 2);
}

#[test]
fn each_step_of_the_decision_has_its_reason() {
    type Edit<'a> = &'a dyn Fn(&mut AttributesBuilder);
    let steps: [(Edit<'_>, &[u32], Reason); 4] = [
        (&|b| b.set_local_pref(200), &[65009, 1], Reason::LocalPref),
        (&|_| {}, &[65001], Reason::AsPathLength),
        (&|b| b.set_origin(Origin::Igp), &[65009, 1], Reason::Origin),
        (&|b| b.set_med(5), &[65009, 1], Reason::Med),
    ];
    for (edit, path, reason) in steps {
        let mut bench = Bench::new(&[Ibgp, Ibgp], false);
        bench.announce(1, 0, P, &[65009, 1], |b| {
            b.set_origin(if reason == Reason::Origin {
                Origin::Egp
            } else {
                Origin::Igp
            });
            b.set_med(10);
        });
        bench.announce(2, 0, P, path, edit);
        assert_eq!(bench.lost(P), [(2, None), (1, Some(reason))]);
    }
    let mut bench = Bench::new(&[Ibgp, Ebgp], false);
    bench.announce(1, 0, P, &[65002], |_| {});
    bench.announce(2, 0, P, &[65002], |_| {});
    assert_eq!(bench.lost(P), [(2, None), (1, Some(Reason::Ibgp))]);
    bench.rib.set_next_hops(&[(address(2), None)]);
    assert_eq!(
        bench.lost(P),
        [(1, None), (2, Some(Reason::NextHopUnreachable))]
    );
}

/// The order of arrival must not decide, even where MED makes the pairwise comparison run in circles.
#[test]
fn med_is_decided_independent_of_order() {
    let paths = [(1, 65100, 20u32), (2, 65200, 0), (3, 65100, 10)];
    let mut results = BTreeSet::new();
    for order in [
        [0, 1, 2],
        [0, 2, 1],
        [1, 0, 2],
        [1, 2, 0],
        [2, 0, 1],
        [2, 1, 0],
    ] {
        let mut bench = Bench::new(&[Ibgp, Ibgp, Ibgp], false);
        for at in order {
            let (peer, asn, med) = paths[at];
            bench.announce(peer, 0, P, &[asn], |b| b.set_med(med));
        }
        results.insert(bench.lost(P)[0]);
    }
    assert_eq!(results, BTreeSet::from([(2, None)]));
}

#[test]
fn stale_routes_stay_until_swept_and_fresh_ones_survive() {
    let mut bench = Bench::new(&[Ebgp, Ebgp], false);
    bench.announce(1, 0, P, &[65001], |_| {});
    bench.announce(1, 0, "203.0.113.0/24", &[65001], |_| {});
    bench.read_all();
    bench.rib.peer_down(
        PeerId(1),
        PeerDown::KeepStale {
            families: vec![Family::Ipv4Unicast],
            older: false,
        },
    );
    bench.read(2);
    assert_eq!(
        bench.told(2).len(),
        2,
        "neighbours hear nothing of a restart"
    );
    bench.rib.peer_up(PeerId(1), up(1, false));
    bench.announce(1, 0, P, &[65001], |_| {});
    assert!(
        !bench.rib.has_pending(PeerId(2)),
        "the same route again is no news"
    );
    bench.rib.sweep_stale(PeerId(1), Family::Ipv4Unicast);
    bench.read(2);
    assert_eq!(bench.told(2), [format!("{P} 64500 65001")]);
}

#[test]
fn more_prefixes_than_allowed_end_the_session() {
    let mut bench = Bench::new(&[Ebgp], false);
    let mut limited = peer_config(1, Ebgp);
    limited.max_prefixes = Some(1);
    bench.rib.add_peer(PeerId(1), limited);
    bench.rib.peer_up(PeerId(1), up(1, false));
    bench.announce(1, 0, P, &[65001], |_| {});
    let body = {
        let mut out = Vec::new();
        let context = EncodeContext {
            max_len: 4096,
            four_octet_as: true,
            add_path: [false; 2],
        };
        let mut builder = AttributesBuilder::new();
        builder.set_origin(Origin::Igp);
        builder.set_as_sequence(&[Asn(65001)]);
        let mut section = Vec::new();
        let next_hop = NextHop::from(address(1));
        encode_attributes(
            builder.view(),
            &next_hop,
            Family::Ipv4Unicast,
            true,
            &mut section,
        );
        let mut writer =
            UpdateWriter::announce(&mut out, &context, Family::Ipv4Unicast, &section, next_hop)
                .unwrap();
        writer.push(0, "203.0.113.0/24".parse::<Ipv4Net>().unwrap());
        writer.finish();
        out.split_off(HEADER_LEN)
    };
    let reset = bench.rib.handle_update(PeerId(1), &body).unwrap_err();
    assert_eq!((reset.code, reset.subcode), (6, 1));
}

#[test]
fn near_its_limit_a_neighbour_is_named_once() {
    let mut bench = Bench::new(&[Ebgp], false);
    let mut limited = peer_config(1, Ebgp);
    limited.max_prefixes = Some(10);
    bench.rib.set_import(PeerId(1), &limited);
    let mut named = Vec::new();
    let mut step = |bench: &mut Bench, at: u8, on: bool| {
        let prefix = format!("10.{at}.0.0/16");
        if !on {
            return bench.withdraw(1, 0, &prefix);
        }
        let mut section = Vec::new();
        let mut builder = AttributesBuilder::new();
        builder.set_origin(Origin::Igp);
        builder.set_as_sequence(&[Asn(65001)]);
        let (family, next_hop) = (Family::Ipv4Unicast, NextHop::from(address(1)));
        encode_attributes(builder.view(), &next_hop, family, true, &mut section);
        let context = EncodeContext {
            max_len: 4096,
            four_octet_as: true,
            add_path: [false; 2],
        };
        let mut out = Vec::new();
        let mut writer =
            UpdateWriter::announce(&mut out, &context, family, &section, next_hop).unwrap();
        writer.push(0, prefix.parse::<Ipv4Net>().unwrap());
        writer.finish();
        let outcome = bench.rib.handle_update(PeerId(1), &out[HEADER_LEN..]);
        named.extend(outcome.unwrap().near_limit.map(|near| near.accepted));
    };
    for at in 1..=10 {
        step(&mut bench, at, true);
    }
    // A few less, and more again, are no news; half of it is.
    for (at, on) in [(10, false), (9, false), (9, true), (10, true)] {
        step(&mut bench, at, on);
    }
    for at in 4..=10 {
        step(&mut bench, at, false);
    }
    for at in 4..=10 {
        step(&mut bench, at, true);
    }
    assert_eq!(named, [9, 9]);
}

#[test]
fn well_known_communities_keep_routes_back() {
    let mut bench = Bench::new(&[Ebgp, Ebgp, Ibgp], false);
    let community = |value: Community| {
        move |b: &mut AttributesBuilder| {
            b.set(
                flags::OPTIONAL | flags::TRANSITIVE,
                code::COMMUNITIES,
                &value.0.to_be_bytes(),
            )
        }
    };
    bench.announce(1, 0, P, &[65001], community(Community::NO_EXPORT));
    bench.announce(
        1,
        0,
        "203.0.113.0/24",
        &[65001],
        community(Community::NO_ADVERTISE),
    );
    bench.read_all();
    assert!(bench.told(2).is_empty());
    assert_eq!(bench.told(3), [format!("{P} 65001")]);
}

/// What a neighbour holds of labels: by path, or in one path that stands for all.
#[derive(Clone, Debug)]
enum LabelStep {
    Tell { peer: u16, path_id: u32, vni: u32 },
    Withdraw { peer: u16, path_id: u32 },
    NextHop { peer: u16, resolves: bool },
    Read { peer: u16 },
}

/// Two domains' edges and two inner routers, of each sort one without ADD-PATH.
const LABEL_KINDS: [PeerKind; 4] = [IbgpClient, IbgpClient, Ebgp, Ebgp];
const LABEL_ADD_PATH: [bool; 4] = [true, false, true, false];

fn labels_bench() -> Bench {
    let config = RibConfig {
        overlay_administrator: Some(64512),
        ..config()
    };
    Bench::with(
        config,
        Box::new(Joining),
        &LABEL_KINDS,
        LABEL_ADD_PATH.to_vec(),
    )
}

/// A neighbour tells a label of the prefix by one of its paths.
fn tell_label(bench: &mut Bench, peer: u16, path_id: u32, vni: u32) {
    let path: &[u32] = match LABEL_KINDS[usize::from(peer) - 1] {
        Ebgp => &[65000 + u32::from(peer)],
        _ => &[],
    };
    bench.announce(peer, path_id, P, path, |edit| {
        edit.set_large_communities([LargeCommunity::new(64512, vni, u32::from(peer))]);
    });
}

/// Path identifiers are local to whoever sends them: two histories with one end may differ in them.
fn held(bench: &Bench, peer: u16) -> Vec<String> {
    let mut held = bench.told(peer);
    held.sort();
    held
}

fn label_steps() -> impl Strategy<Value = Vec<LabelStep>> {
    // Few paths, and read often: what is wrong shows where the last but one goes.
    let (peer, path_id) = (1u16..=4, 1u32..3);
    let step = prop_oneof![
        3 => (peer.clone(), path_id.clone(), 10001u32..10004)
            .prop_map(|(peer, path_id, vni)| LabelStep::Tell { peer, path_id, vni }),
        6 => (peer.clone(), path_id).prop_map(|(peer, path_id)| LabelStep::Withdraw { peer, path_id }),
        1 => (peer.clone(), any::<bool>())
            .prop_map(|(peer, resolves)| LabelStep::NextHop { peer, resolves }),
        9 => peer.prop_map(|peer| LabelStep::Read { peer }),
    ];
    prop::collection::vec(step, 0..40)
}

/// What is joined into one announcement is a function of the paths that are there: whatever came before, every neighbour
/// holds what it would hold had it been told of the end alone.
fn check_joined_labels(steps: Vec<LabelStep>) {
    let mut bench = labels_bench();
    let mut paths: BTreeMap<(u16, u32), u32> = BTreeMap::new();
    let mut resolves = [true; 4];
    for step in steps {
        match step {
            LabelStep::Tell { peer, path_id, vni } => {
                let path_id = path_id * u32::from(LABEL_ADD_PATH[usize::from(peer) - 1]);
                paths.insert((peer, path_id), vni);
                tell_label(&mut bench, peer, path_id, vni);
            }
            LabelStep::Withdraw { peer, path_id } => {
                let path_id = path_id * u32::from(LABEL_ADD_PATH[usize::from(peer) - 1]);
                paths.remove(&(peer, path_id));
                bench.withdraw(peer, path_id, P);
            }
            LabelStep::NextHop { peer, resolves: it } => resolves[usize::from(peer) - 1] = it,
            LabelStep::Read { peer } => bench.read(peer),
        }
        set_metrics(&mut bench, &resolves);
    }
    bench.read_all();
    let mut plain = labels_bench();
    for ((peer, path_id), vni) in paths {
        tell_label(&mut plain, peer, path_id, vni);
    }
    set_metrics(&mut plain, &resolves);
    plain.read_all();
    for peer in 1..=4 {
        assert_eq!(held(&bench, peer), held(&plain, peer), "neighbour {peer}");
    }
}

fn set_metrics(bench: &mut Bench, resolves: &[bool; 4]) {
    let metrics = (1..).zip(resolves);
    let metrics: Vec<_> = metrics
        .map(|(peer, resolves)| (address(peer), resolves.then_some(0)))
        .collect();
    bench.rib.set_next_hops(&metrics);
}

#[test]
fn a_withdrawn_label_is_withdrawn_from_a_neighbour_without_add_path() {
    let mut bench = labels_bench();
    tell_label(&mut bench, 1, 1, 10001);
    tell_label(&mut bench, 1, 2, 10002);
    bench.read_all();
    let both = format!("{P} 64500 64512:10001:1 64512:10002:1");
    assert_eq!(bench.told(4), [both]);
    // Neither is the best path any the less for it: the labels of the announcement are what changes.
    bench.withdraw(1, 2, P);
    bench.read_all();
    assert_eq!(bench.told(4), [format!("{P} 64500 64512:10001:1")]);
}

#[derive(Clone, Debug)]
enum Step {
    Announce {
        peer: u16,
        path_id: u32,
        prefix: u8,
        path: Vec<u8>,
    },
    Withdraw {
        peer: u16,
        path_id: u32,
        prefix: u8,
    },
    Down {
        peer: u16,
        stale: bool,
    },
    Up {
        peer: u16,
    },
    Sweep {
        peer: u16,
    },
    Read {
        peer: u16,
    },
    Refresh {
        peer: u16,
    },
    NextHop {
        peer: u16,
        metric: Option<u32>,
    },
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let peer = 1u16..=5;
    let path = prop::collection::vec(1u8..4, 0..3);
    let step = prop_oneof![
        8 => (peer.clone(), 1u32..3, 0u8..4, path).prop_map(|(peer, path_id, prefix, path)| Step::Announce { peer, path_id, prefix, path }),
        4 => (peer.clone(), 1u32..3, 0u8..4).prop_map(|(peer, path_id, prefix)| Step::Withdraw { peer, path_id, prefix }),
        1 => (peer.clone(), any::<bool>()).prop_map(|(peer, stale)| Step::Down { peer, stale }),
        2 => peer.clone().prop_map(|peer| Step::Up { peer }),
        1 => peer.clone().prop_map(|peer| Step::Sweep { peer }),
        4 => peer.clone().prop_map(|peer| Step::Read { peer }),
        1 => peer.clone().prop_map(|peer| Step::Refresh { peer }),
        1 => (peer, prop::option::of(0u32..3)).prop_map(|(peer, metric)| Step::NextHop { peer, metric }),
    ];
    prop::collection::vec(step, 0..60)
}

/// Runs the steps, and holds what every neighbour was told against what the table says it should know.
fn check_against_model(steps: Vec<Step>, add_path: bool) {
    let kinds = [Ebgp, Ebgp, Ibgp, IbgpClient, IbgpClient];
    let mut bench = Bench::new(&kinds, add_path);
    let mut is_up = [true; 5];
    let prefix = |n: u8| format!("10.0.{n}.0/24");
    for step in steps {
        match step {
            Step::Announce {
                peer,
                path_id,
                prefix: n,
                path,
            } if is_up[usize::from(peer) - 1] => {
                let mut path: Vec<u32> = path.into_iter().map(u32::from).collect();
                if kinds[usize::from(peer) - 1] == Ebgp {
                    path.insert(0, 65000 + u32::from(peer));
                }
                bench.announce(
                    peer,
                    path_id * u32::from(add_path),
                    &prefix(n),
                    &path,
                    |_| {},
                );
            }
            Step::Withdraw {
                peer,
                path_id,
                prefix: n,
            } if is_up[usize::from(peer) - 1] => {
                bench.withdraw(peer, path_id * u32::from(add_path), &prefix(n));
            }
            Step::Down { peer, stale } if is_up[usize::from(peer) - 1] => {
                is_up[usize::from(peer) - 1] = false;
                bench.told[usize::from(peer) - 1].clear();
                let families = if stale {
                    vec![Family::Ipv4Unicast]
                } else {
                    Vec::new()
                };
                bench.rib.peer_down(
                    PeerId(peer),
                    PeerDown::KeepStale {
                        families,
                        older: false,
                    },
                );
            }
            Step::Up { peer } if !is_up[usize::from(peer) - 1] => {
                is_up[usize::from(peer) - 1] = true;
                bench.rib.peer_up(PeerId(peer), up(peer, add_path));
            }
            Step::Sweep { peer } => bench.rib.sweep_stale(PeerId(peer), Family::Ipv4Unicast),
            Step::Read { peer } => bench.read(peer),
            Step::Refresh { peer } => bench.rib.readvertise(PeerId(peer), Family::Ipv4Unicast),
            Step::NextHop { peer, metric } => bench.rib.set_next_hops(&[(address(peer), metric)]),
            _ => {}
        }
    }
    bench.read_all();
    let routes = bench.rib.routes(&RouteFilter::default(), 100).routes;
    for (peer, kind) in (1u16..).zip(kinds) {
        let mut expected: Vec<(IpNet, String)> = Vec::new();
        if is_up[usize::from(peer) - 1] {
            for route in &routes {
                for path in &route.paths {
                    let source = kinds[usize::from(path.source.0) - 1];
                    let wanted = if add_path {
                        path.lost != Some(Reason::NextHopUnreachable)
                    } else {
                        path.lost.is_none()
                    };
                    let reflected = !(source == Ibgp && kind == Ibgp);
                    if wanted && path.source.0 != peer && reflected {
                        let inner = path.attributes.view().as_path().to_string();
                        let path = if kind == Ebgp {
                            format!("{OWN} {inner}").trim().to_owned()
                        } else {
                            inner
                        };
                        expected.push((route.prefix, path));
                    }
                }
            }
        }
        expected.sort();
        let mut told: Vec<(IpNet, String)> = bench.told[usize::from(peer) - 1]
            .iter()
            .map(|((prefix, _), (path, _))| ((*prefix).into(), path.clone()))
            .collect();
        told.sort();
        assert_eq!(told, expected, "neighbour {peer}");
    }
    // Everything goes when everybody goes.
    for peer in 1..=5 {
        bench.rib.peer_down(PeerId(peer), PeerDown::Flush);
    }
    assert_eq!(bench.rib.prefixes(), [0, 0]);
    assert_eq!(
        bench.rib.attribute_sets(),
        0,
        "no set of attributes outlives its routes"
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn every_neighbour_knows_what_it_should(steps in steps()) {
        check_against_model(steps, false);
    }

    #[test]
    fn joined_labels_follow_from_the_paths_alone(steps in label_steps()) {
        check_joined_labels(steps);
    }

    #[test]
    fn every_neighbour_knows_what_it_should_with_add_path(steps in steps()) {
        check_against_model(steps, true);
    }
}

#[test]
fn queries_take_the_longest_prefix_and_patterns_of_communities() {
    let mut bench = Bench::new(&[Ebgp, Ebgp], false);
    for (peer, prefix, data) in [
        (1, "0.0.0.0/0", 1),
        (1, "198.51.0.0/16", 2),
        (2, "198.51.100.0/24", 3),
    ] {
        bench.announce(peer, 0, prefix, &[65000 + u32::from(peer)], |builder| {
            builder.set_large_communities([LargeCommunity::new(64512, data, 7)]);
        });
    }
    let ask = |prefix: Option<&str>, select, community: Option<&str>| -> Vec<String> {
        let filter = RouteFilter {
            prefix: prefix.map(|text| text.parse().unwrap()),
            select,
            large_community: community.map(|text| text.parse().unwrap()),
            ..RouteFilter::default()
        };
        let page = bench.rib.routes(&filter, 10);
        assert_eq!(page.total, page.routes.len());
        let routes = page.routes.iter();
        routes.map(|route| route.prefix.to_string()).collect()
    };
    use PrefixSelection::{Exact, Longer, Longest, Shorter};
    let host = Some("198.51.100.7/32");
    assert_eq!(ask(host, Exact, None), [] as [String; 0]);
    assert_eq!(ask(host, Longest, None), ["198.51.100.0/24"]);
    let all = ["0.0.0.0/0", "198.51.0.0/16", "198.51.100.0/24"];
    assert_eq!(ask(host, Shorter, None), all);
    assert_eq!(ask(Some("198.51.0.0/16"), Longest, None), all[1..2]);
    assert_eq!(ask(Some("198.51.0.0/16"), Longer, None), all[1..]);
    assert_eq!(ask(Some("203.0.113.1/32"), Longest, None), all[..1]);
    assert_eq!(ask(Some("2001:db8::/32"), Longest, None), [] as [String; 0]);
    // Of those that the other conditions leave.
    assert_eq!(ask(host, Longest, Some("64512:1-2:*")), all[1..2]);
    assert_eq!(ask(None, Exact, Some("64512:*:*")), all);
    assert_eq!(ask(None, Exact, Some("*:2-3:7")), all[1..]);
    assert_eq!(ask(None, Exact, Some("64513:*:*")), [] as [String; 0]);
}

/// Each path more would cost a walk over the others.
#[test]
fn paths_of_one_prefix_have_a_bound() {
    let mut bench = Bench::new(&[Ebgp, Ibgp], true);
    let mut few = peer_config(1, Ebgp);
    few.max_paths = 3;
    bench.rib.set_import(PeerId(1), &few);
    for path_id in 1..=10 {
        bench.announce(1, path_id, P, &[path_id], |_| {});
    }
    let held = |bench: &Bench| bench.rib.counters(PeerId(1)).accepted[0];
    assert_eq!(held(&bench), 3);
    assert_eq!(bench.rib.counters(PeerId(1)).rejected, 7);
    // Those that are there change, and one that goes makes room.
    bench.announce(1, 2, P, &[2, 2], |_| {});
    bench.withdraw(1, 3, P);
    bench.announce(1, 11, P, &[11], |_| {});
    assert_eq!(held(&bench), 3);
    assert_eq!(bench.rib.counters(PeerId(1)).rejected, 7);
    // What is left of an earlier session is in nobody's way.
    bench.rib.mark_stale(PeerId(1), Family::Ipv4Unicast);
    bench.announce(1, 20, P, &[20], |_| {});
    bench.rib.sweep_stale(PeerId(1), Family::Ipv4Unicast);
    assert_eq!(held(&bench), 1);
    // Another neighbour has a bound of its own.
    bench.announce(2, 1, P, &[7], |_| {});
    assert_eq!(bench.rib.counters(PeerId(2)).accepted[0], 1);
}

/// What each neighbour announces, and whether it is taken.
#[test]
fn the_first_as_and_martians_are_judged_by_the_neighbours_settings() {
    let mut bench = Bench::new(&[Ebgp, Ibgp, Ebgp], false);
    let mut strict = peer_config(1, Ebgp);
    strict.enforce_first_as = true;
    bench.rib.set_import(PeerId(1), &strict);
    let mut strict = peer_config(2, Ibgp);
    strict.enforce_first_as = true;
    bench.rib.set_import(PeerId(2), &strict);
    let mut lenient = peer_config(3, Ebgp);
    lenient.accept_martians = true;
    bench.rib.set_import(PeerId(3), &lenient);
    let first = peer_config(1, Ebgp).asn.0;
    for (peer, prefix, path, taken) in [
        (1, "10.1.0.0/16", &[first, 7][..], true),
        (1, "10.2.0.0/16", &[7, first], false),
        (1, "10.3.0.0/16", &[], false),
        (2, "10.4.0.0/16", &[7], true),
        (2, "10.5.0.0/16", &[], true),
        (3, "10.6.0.0/16", &[7], true),
        (1, "0.0.0.0/0", &[first], true),
        (1, "127.0.0.0/8", &[first], false),
        (1, "127.1.0.0/16", &[first], false),
        (1, "224.0.0.0/4", &[first], false),
        (1, "239.1.1.0/24", &[first], false),
        (1, "240.0.0.0/4", &[first], false),
        (1, "255.255.255.255/32", &[first], false),
        (1, "0.0.0.0/8", &[first], false),
        (1, "169.254.1.0/24", &[first], false),
        (3, "127.2.0.0/16", &[7], true),
    ] {
        bench.announce(peer, 0, prefix, path, |_| {});
        assert_eq!(
            bench.lost(prefix).len(),
            usize::from(taken),
            "{peer} {prefix}"
        );
    }
    assert_eq!(bench.rib.counters(PeerId(1)).rejected, 10);
    // A path that comes to be refused takes the one before with it.
    bench.announce(1, 0, "10.1.0.0/16", &[7], |_| {});
    assert_eq!(bench.lost("10.1.0.0/16"), []);
}

/// RFC 4760 section 8.
#[test]
fn what_is_of_no_agreed_family_is_ignored() {
    let mut bench = Bench::new(&[Ebgp, Ebgp], false);
    let mut only_v6 = up(2, false);
    only_v6.families = vec![Family::Ipv6Unicast];
    bench.rib.peer_down(PeerId(2), PeerDown::Flush);
    bench.rib.peer_up(PeerId(2), only_v6);
    bench.announce(2, 0, P, &[7], |_| {});
    assert_eq!(bench.lost(P), []);
    bench.announce(1, 0, P, &[7], |_| {});
    assert_eq!(bench.lost(P).len(), 1);
    let announce_v6 = |bench: &mut Bench, peer, prefix: &str, next_hop: &str| {
        let prefix: Ipv6Net = prefix.parse().unwrap();
        let next_hop = NextHop::from(next_hop.parse::<IpAddr>().unwrap());
        bench.update(peer, |out, context| {
            let mut builder = AttributesBuilder::new();
            builder.set_origin(Origin::Igp);
            builder.set_as_sequence(&[Asn(7)]);
            let family = Family::Ipv6Unicast;
            let mut writer =
                UpdateWriter::announce(out, context, family, builder.octets(), next_hop).unwrap();
            writer.push(0, prefix);
            writer.finish();
        });
        bench.lost(&prefix.to_string()).len()
    };
    assert_eq!(
        announce_v6(&mut bench, 1, "2001:db8:1::/48", "2001:db8::1"),
        0
    );
    assert_eq!(
        announce_v6(&mut bench, 2, "2001:db8:1::/48", "2001:db8::1"),
        1
    );
    // An IPv4-mapped address is nobody's, and prefixes that lead nowhere are not taken.
    assert_eq!(
        announce_v6(&mut bench, 2, "2001:db8:2::/48", "::ffff:192.0.2.1"),
        0
    );
    for martian in [
        "::1/128",
        "::/128",
        "fe80::/10",
        "fe80::/64",
        "ff00::/8",
        "ff02::/16",
    ] {
        assert_eq!(
            announce_v6(&mut bench, 2, martian, "2001:db8::1"),
            0,
            "{martian}"
        );
    }
    assert_eq!(announce_v6(&mut bench, 2, "::/0", "2001:db8::1"), 1);
}

#[test]
fn what_is_stale_from_an_earlier_restart_stays_where_rfc_8538_applies() {
    for older in [true, false] {
        let mut bench = Bench::new(&[Ebgp, Ebgp], false);
        bench.announce(1, 0, P, &[7], |_| {});
        for _ in 0..2 {
            let families = vec![Family::Ipv4Unicast];
            let down = PeerDown::KeepStale { families, older };
            bench.rib.peer_down(PeerId(1), down);
            bench.rib.peer_up(PeerId(1), up(1, false));
        }
        assert_eq!(bench.lost(P).len(), usize::from(older));
    }
}

/// RFC 2545 section 3: beside a global next hop stands a link-local one where the next hop and the neighbour are on one link, and there
/// alone.
#[test]
fn a_link_local_next_hop_is_told_on_its_own_link() {
    let link: SharedLink = SharedLink {
        subnet: "2001:db8:1::/64".parse().unwrap(),
        link_local: "fe80::1".parse().unwrap(),
    };
    let mut bench = Bench::new(&[Ebgp, Ebgp, Ibgp, Ibgp, Ibgp], false);
    for peer in 1..=5 {
        let kind = bench.kinds[usize::from(peer) - 1];
        let mut config = peer_config(peer, kind);
        config.next_hop_self = peer == 5;
        let mut up = up(peer, false);
        up.families = vec![Family::Ipv6Unicast];
        up.local_address = "2001:db8:1::1".parse().unwrap();
        up.shared_link = [1, 3, 5].contains(&peer).then_some(link);
        bench.rib.peer_down(PeerId(peer), PeerDown::Flush);
        bench.rib.add_peer(PeerId(peer), config);
        bench.rib.peer_up(PeerId(peer), up);
    }
    let told = |bench: &mut Bench, peer: u16| -> Vec<NextHop> {
        let mut told = Vec::new();
        while let Some(octets) = bench.rib.poll_transmit(PeerId(peer)) {
            let mut rest = &octets[..];
            while let Some(frame) = next_frame(rest, 4096).unwrap() {
                let update = UpdateView::split(&rest[HEADER_LEN..frame.len]).unwrap();
                rest = &rest[frame.len..];
                let context = AttributeContext {
                    four_octet_as: true,
                    peer: PeerType::Internal,
                    has_nlri: false,
                };
                let mut decoder = AttributeDecoder::new();
                let decoded = decoder.decode(update.attributes, &context).unwrap();
                told.extend(decoded.mp_reach.and_then(|reach| reach.next_hop));
            }
        }
        told
    };
    let on_link = NextHop {
        address: "2001:db8:1::7".parse().unwrap(),
        link_local: Some("fe80::7".parse().unwrap()),
    };
    let elsewhere = NextHop {
        address: "2001:db8:2::7".parse().unwrap(),
        ..on_link
    };
    let own = |link_local: Option<Ipv6Addr>| NextHop {
        address: "2001:db8:1::1".parse().unwrap(),
        link_local,
    };
    for (received, kept) in [(on_link, on_link.link_local), (elsewhere, None)] {
        bench.update(1, |out, context| {
            let mut builder = AttributesBuilder::new();
            builder.set_origin(Origin::Igp);
            builder.set_as_sequence(&[Asn(7)]);
            let family = Family::Ipv6Unicast;
            let mut writer =
                UpdateWriter::announce(out, context, family, builder.octets(), received).unwrap();
            writer.push(0, "2001:db8:f::/48".parse::<Ipv6Net>().unwrap());
            writer.finish();
        });
        let plain = NextHop::from(received.address);
        let kept = NextHop {
            link_local: kept,
            ..plain
        };
        assert_eq!(told(&mut bench, 2), [own(None)]);
        assert_eq!(told(&mut bench, 3), [kept]);
        assert_eq!(told(&mut bench, 4), [plain]);
        assert_eq!(told(&mut bench, 5), [own(Some(link.link_local))]);
    }
}

/// RFC 9234 section 5: for each role of ours, what is taken, what is put into ONLY_TO_CUSTOMER, and to whom it goes on with what.
#[test]
fn only_to_customer_follows_the_roles() {
    const OTHER: u32 = 7;
    let roles = [
        Role::Provider,
        Role::RouteServer,
        Role::RouteServerClient,
        Role::Customer,
        Role::Peer,
    ];
    // Neighbours 1 to 5 have these roles' counterparts, 6 has none, 7 is inside.
    let kinds = [Ebgp, Ebgp, Ebgp, Ebgp, Ebgp, Ebgp, Ibgp];
    let bench = || {
        let mut bench = Bench::new(&kinds, false);
        for (peer, role) in (1..).zip(roles) {
            let mut config = peer_config(peer, Ebgp);
            config.role = Some(role);
            bench.rib.peer_down(PeerId(peer), PeerDown::Flush);
            bench.rib.add_peer(PeerId(peer), config);
            bench.rib.peer_up(PeerId(peer), up(peer, false));
        }
        bench
    };
    let otc_of = |octets: &[u8]| -> Option<Option<u32>> {
        let update = UpdateView::split(octets).unwrap();
        let context = AttributeContext {
            four_octet_as: true,
            peer: PeerType::Internal,
            has_nlri: true,
        };
        let mut decoder = AttributeDecoder::new();
        let decoded = decoder.decode(update.attributes, &context).unwrap();
        (!update.nlri.is_empty()).then(|| decoded.attributes.only_to_customer().map(|asn| asn.0))
    };
    for from in 1..=7 {
        let asn = peer_config(from, kinds[usize::from(from) - 1]).asn.0;
        for sent in [None, Some(asn), Some(OTHER)] {
            let mut bench = bench();
            // Twice: the second time the attributes are known already.
            for _ in 0..2 {
                let first = if from == 7 { OTHER } else { asn };
                bench.announce(from, 0, P, &[first], |edit| {
                    if let Some(otc) = sent {
                        edit.set_only_to_customer(Asn(otc));
                    }
                });
            }
            let role = roles.get(usize::from(from) - 1).copied();
            let held = match (role, sent) {
                (Some(Role::Provider | Role::RouteServer), Some(_)) => None,
                (Some(Role::Peer), Some(OTHER)) => None,
                (Some(Role::Customer | Role::RouteServerClient | Role::Peer), None) => {
                    Some(Some(asn))
                }
                _ => Some(sent),
            };
            let counters = bench.rib.counters(PeerId(from));
            let leaks = if held.is_none() { 2 } else { 0 };
            assert_eq!(counters.route_leaks, leaks, "{role:?} {sent:?}");
            for to in (1..=7).filter(|to| *to != from) {
                let mut told = None;
                while let Some(octets) = bench.rib.poll_transmit(PeerId(to)) {
                    let mut rest = &octets[..];
                    while let Some(frame) = next_frame(rest, 4096).unwrap() {
                        told = told.or(otc_of(&rest[HEADER_LEN..frame.len]));
                        rest = &rest[frame.len..];
                    }
                }
                let target = roles.get(usize::from(to) - 1).copied();
                let expected = held.and_then(|otc| match (target, otc) {
                    (Some(Role::Customer | Role::Peer | Role::RouteServerClient), Some(_)) => None,
                    (Some(Role::Provider | Role::Peer | Role::RouteServer), None) => {
                        Some(Some(OWN.0))
                    }
                    _ => Some(otc),
                });
                assert_eq!(told, expected, "{sent:?} from {role:?} to {target:?}");
            }
        }
    }
}

/// The same octets from neighbours of different roles are different routes.
#[test]
fn what_attributes_came_to_is_remembered_by_who_may_send_them() {
    let mut bench = Bench::new(&[Ebgp, Ebgp, Ibgp], false);
    let mut provider = peer_config(2, Ebgp);
    provider.role = Some(Role::Customer);
    bench.rib.peer_down(PeerId(2), PeerDown::Flush);
    bench.rib.add_peer(PeerId(2), provider);
    bench.rib.peer_up(PeerId(2), up(2, false));
    let otc = |bench: &Bench, prefix: &str| {
        let filter = RouteFilter {
            prefix: Some(prefix.parse().unwrap()),
            ..RouteFilter::default()
        };
        let page = bench.rib.routes(&filter, 1);
        let path = &page.routes[0].paths[0];
        path.attributes.key().only_to_customer
    };
    for (peer, prefix, expected) in [
        (1, "10.1.0.0/16", None),
        (2, "10.2.0.0/16", Some(Asn(65002))),
        (1, "10.3.0.0/16", None),
        (2, "10.4.0.0/16", Some(Asn(65002))),
    ] {
        bench.update(peer, |out, context| {
            let mut builder = AttributesBuilder::new();
            builder.set_origin(Origin::Igp);
            builder.set_as_sequence(&[Asn(7)]);
            let (family, next_hop) = (Family::Ipv4Unicast, NextHop::from(address(1)));
            let mut section = Vec::new();
            encode_attributes(builder.view(), &next_hop, family, true, &mut section);
            let mut writer =
                UpdateWriter::announce(out, context, family, &section, next_hop).unwrap();
            writer.push(0, prefix.parse::<Ipv4Net>().unwrap());
            writer.finish();
        });
        assert_eq!(otc(&bench, prefix), expected, "{prefix}");
    }
}
