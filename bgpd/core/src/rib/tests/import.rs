//! What is taken from a neighbour, and what is not.

use super::*;

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
        "::/127",
        "::/96",
        "::7f00:1/128",
        "fec0::/10",
        "fe80::/9",
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
            families: [true; 2],
            extended_next_hop: false,
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
