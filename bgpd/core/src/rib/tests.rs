use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv6Addr;

use ipnet::{Ipv4Net, Ipv6Net};
use weft_bgp_wire::*;

use super::*;

mod as_path;
mod import;
mod model;
mod policy;
mod unforwardable;

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
        import: RoutePolicy::Accept,
        export: RoutePolicy::Accept,
        max_prefixes: None,
        max_paths: u32::MAX,
        allow_own_as: 0,
        as_path: Default::default(),
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
        extended_next_hop: false,
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
    fn has_labels_of_these_alone(
        &self,
        attributes: AttributesView<'_>,
        vnis: &BTreeSet<u32>,
    ) -> bool {
        let mut labels = attributes.large_communities();
        labels.all(|label| vnis.contains(&label.local_data_1))
    }

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
        while self.read_piece(peer) {}
        assert!(!self.rib.has_pending(PeerId(peer)));
    }

    /// Lets a neighbour read what it is given at once; false where that is nothing.
    fn read_piece(&mut self, peer: u16) -> bool {
        let Some(octets) = self.rib.poll_transmit(PeerId(peer)) else {
            return false;
        };
        let told = &mut self.told[usize::from(peer) - 1];
        let add_path = self.add_path[usize::from(peer) - 1];
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
                families: [true; 2],
                extended_next_hop: false,
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
        true
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

/// RFC 8950: an IPv6 next hop of an IPv4 prefix goes to who takes it; to others there is ours, or nothing.
#[test]
fn an_ipv6_next_hop_of_an_ipv4_prefix_goes_to_who_takes_it() {
    let far: IpAddr = "2001:db8::1".parse().unwrap();
    let ours: IpAddr = "2001:db8::254".parse().unwrap();
    let mut bench = Bench::new(&[IbgpClient, Ibgp, Ibgp, Ebgp, Ebgp], false);
    let peers = [
        (1, true, true),
        (2, true, true),
        (3, false, true),
        (4, true, true),
        (5, false, true),
    ];
    for (peer, extended_next_hop, over_v6) in peers {
        bench.rib.peer_down(PeerId(peer), PeerDown::Flush);
        let over_v4 = up(peer, false);
        let local_address = if over_v6 { ours } else { over_v4.local_address };
        let up = PeerUp {
            extended_next_hop,
            local_address,
            ..over_v4
        };
        bench.rib.peer_up(PeerId(peer), up);
    }
    let mut builder = AttributesBuilder::new();
    builder.set_origin(Origin::Igp);
    builder.set_as_sequence(&[Asn(65009)]);
    bench.update(1, |out, context| {
        let mut section = Vec::new();
        let (family, next_hop) = (Family::Ipv4Unicast, NextHop::from(far));
        encode_attributes(builder.view(), &next_hop, family, true, &mut section);
        let mut writer = UpdateWriter::announce(out, context, family, &section, next_hop).unwrap();
        writer.push(0, P.parse::<Ipv4Net>().unwrap());
        writer.finish();
    });
    let told = |bench: &mut Bench, peer: u16| {
        let octets = bench.rib.poll_transmit(PeerId(peer));
        let octets = octets.map(|octets| octets.to_vec()).unwrap_or_default();
        [far, ours].map(|address| {
            let IpAddr::V6(address) = address else {
                unreachable!()
            };
            octets.windows(16).any(|window| window == address.octets())
        })
    };
    assert_eq!(told(&mut bench, 2), [true, false], "kept inside");
    assert_eq!(told(&mut bench, 3), [false, false], "cannot be said");
    assert_eq!(told(&mut bench, 4), [false, true], "ours outside");
    assert_eq!(told(&mut bench, 5), [false, false], "cannot be said");
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
                    families: [true; 2],
                    extended_next_hop: false,
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
