use std::net::{Ipv4Addr, Ipv6Addr};

use proptest::prelude::*;

use super::*;
use crate::{AsPath, encode_attributes};

const EBGP: AttributeContext = AttributeContext {
    four_octet_as: true,
    peer: PeerType::External,
    has_nlri: true,
    families: [true; 2],
    extended_next_hop: false,
};

const IBGP: AttributeContext = AttributeContext {
    peer: PeerType::Internal,
    ..EBGP
};

/// ORIGIN igp, AS_PATH 64601, NEXT_HOP 192.0.2.1.
fn mandatory() -> Vec<u8> {
    vec![
        0x40, 1, 1, 0, 0x40, 2, 6, 2, 1, 0, 0, 0xfc, 0x59, 0x40, 3, 4, 192, 0, 2, 1,
    ]
}

fn with(extra: &[u8]) -> Vec<u8> {
    let mut section = mandatory();
    section.extend_from_slice(extra);
    section
}

fn outcome(
    section: &[u8],
    context: &AttributeContext,
) -> Result<(Treatment, Vec<(u8, ProblemKind)>), u8> {
    let mut decoder = AttributeDecoder::new();
    match decoder.decode(section, context) {
        Ok(decoded) => Ok((
            decoded.treatment,
            decoded
                .problems
                .iter()
                .map(|problem| (problem.code, problem.kind))
                .collect(),
        )),
        Err(notification) => Err(notification.subcode),
    }
}

#[test]
fn mandatory_attributes_become_canonical_and_next_hop_stands_aside() {
    let mut decoder = AttributeDecoder::new();
    let section = mandatory();
    let decoded = decoder.decode(&section, &EBGP).unwrap();
    assert_eq!(decoded.treatment, Treatment::Accept);
    assert_eq!(decoded.next_hop, Some(Ipv4Addr::new(192, 0, 2, 1)));
    assert_eq!(decoded.attributes.octets(), &section[..13]);
    assert_eq!(decoded.attributes.as_path().to_string(), "64601");
    assert_eq!(decoded.attributes.as_path().neighbor_as(), Some(Asn(64601)));
    assert_eq!(decoded.attributes.med(), None);
}

#[test]
fn every_rfc_7606_row_has_its_treatment() {
    use ProblemKind::*;
    use Treatment::*;
    type Row<'a> = (
        &'a str,
        Vec<u8>,
        &'a AttributeContext,
        Treatment,
        (u8, ProblemKind),
    );
    let table: &[Row<'_>] = &[
        (
            "7.1 ORIGIN length",
            [&[0x40, 1, 2, 0, 0][..], &mandatory()[4..]].concat(),
            &EBGP,
            TreatAsWithdraw,
            (1, Length),
        ),
        (
            "7.1 ORIGIN value",
            [&[0x40, 1, 1, 3][..], &mandatory()[4..]].concat(),
            &EBGP,
            TreatAsWithdraw,
            (1, Value),
        ),
        (
            "7.2 AS_PATH segment type",
            [
                &mandatory()[..4],
                &[0x40, 2, 6, 9, 1, 0, 0, 0, 1],
                &mandatory()[13..],
            ]
            .concat(),
            &EBGP,
            TreatAsWithdraw,
            (2, Value),
        ),
        (
            "7.2 AS_PATH empty segment",
            [&mandatory()[..4], &[0x40, 2, 2, 2, 0], &mandatory()[13..]].concat(),
            &EBGP,
            TreatAsWithdraw,
            (2, Value),
        ),
        (
            "7.2 AS_PATH overrun",
            [
                &mandatory()[..4],
                &[0x40, 2, 6, 2, 2, 0, 0, 0, 1],
                &mandatory()[13..],
            ]
            .concat(),
            &EBGP,
            TreatAsWithdraw,
            (2, Value),
        ),
        (
            "7.3 NEXT_HOP length",
            [&mandatory()[..13], &[0x40, 3, 3, 1, 2, 3]].concat(),
            &EBGP,
            TreatAsWithdraw,
            (3, Length),
        ),
        (
            "6.3 NEXT_HOP multicast",
            [&mandatory()[..13], &[0x40, 3, 4, 224, 0, 0, 1]].concat(),
            &EBGP,
            TreatAsWithdraw,
            (3, Value),
        ),
        (
            "7.4 MED length",
            with(&[0x80, 4, 3, 0, 0, 0]),
            &EBGP,
            TreatAsWithdraw,
            (4, Length),
        ),
        (
            "7.5 LOCAL_PREF from outside",
            with(&[0x40, 5, 4, 0, 0, 0, 1]),
            &EBGP,
            AttributeDiscard,
            (5, NotAllowed),
        ),
        (
            "7.5 LOCAL_PREF length inside",
            with(&[0x40, 5, 3, 0, 0, 0]),
            &IBGP,
            TreatAsWithdraw,
            (5, Length),
        ),
        (
            "7.6 ATOMIC_AGGREGATE length",
            with(&[0x40, 6, 1, 0]),
            &EBGP,
            AttributeDiscard,
            (6, Length),
        ),
        (
            "7.7 AGGREGATOR length",
            with(&[0xc0, 7, 6, 0, 1, 1, 1, 1, 1]),
            &EBGP,
            AttributeDiscard,
            (7, Length),
        ),
        (
            "7.8 COMMUNITIES length",
            with(&[0xc0, 8, 3, 0, 0, 0]),
            &EBGP,
            TreatAsWithdraw,
            (8, Length),
        ),
        (
            "7.8 COMMUNITIES empty",
            with(&[0xc0, 8, 0]),
            &EBGP,
            TreatAsWithdraw,
            (8, Length),
        ),
        (
            "7.9 ORIGINATOR_ID from outside",
            with(&[0x80, 9, 4, 1, 1, 1, 1]),
            &EBGP,
            AttributeDiscard,
            (9, NotAllowed),
        ),
        (
            "7.9 ORIGINATOR_ID length",
            with(&[0x80, 9, 3, 1, 1, 1]),
            &IBGP,
            TreatAsWithdraw,
            (9, Length),
        ),
        (
            "7.10 CLUSTER_LIST from outside",
            with(&[0x80, 10, 4, 1, 1, 1, 1]),
            &EBGP,
            AttributeDiscard,
            (10, NotAllowed),
        ),
        (
            "7.10 CLUSTER_LIST length",
            with(&[0x80, 10, 5, 1, 1, 1, 1, 1]),
            &IBGP,
            TreatAsWithdraw,
            (10, Length),
        ),
        (
            "7.14 EXTENDED COMMUNITIES length",
            with(&[0xc0, 16, 7, 0, 0, 0, 0, 0, 0, 0]),
            &EBGP,
            TreatAsWithdraw,
            (16, Length),
        ),
        (
            "8092 LARGE_COMMUNITY 0",
            with(&[0xc0, 32, 0]),
            &EBGP,
            TreatAsWithdraw,
            (32, Length),
        ),
        (
            "8092 LARGE_COMMUNITY 11",
            with(&[&[0xc0, 32, 11][..], &[0; 11]].concat()),
            &EBGP,
            TreatAsWithdraw,
            (32, Length),
        ),
        (
            "8092 LARGE_COMMUNITY 13",
            with(&[&[0xc0, 32, 13][..], &[0; 13]].concat()),
            &EBGP,
            TreatAsWithdraw,
            (32, Length),
        ),
        (
            "3c flags",
            with(&[0x40, 4, 4, 0, 0, 0, 0]),
            &EBGP,
            TreatAsWithdraw,
            (4, Flags),
        ),
        (
            "3g duplicate",
            with(&[0x40, 1, 1, 0]),
            &EBGP,
            AttributeDiscard,
            (1, Duplicate),
        ),
        (
            "4 overrun",
            with(&[0xc0, 8, 40, 0]),
            &EBGP,
            TreatAsWithdraw,
            (8, Overrun),
        ),
        (
            "6793 AS4_PATH from a NEW speaker",
            with(&[0xc0, 17, 6, 2, 1, 0, 0, 0, 1]),
            &EBGP,
            AttributeDiscard,
            (17, NotAllowed),
        ),
        (
            "3d missing ORIGIN",
            mandatory()[4..].to_vec(),
            &EBGP,
            TreatAsWithdraw,
            (1, Missing),
        ),
        (
            "3d missing NEXT_HOP",
            mandatory()[..13].to_vec(),
            &EBGP,
            TreatAsWithdraw,
            (3, Missing),
        ),
    ];
    for (name, section, context, treatment, problem) in table {
        assert_eq!(
            outcome(section, context),
            Ok((*treatment, vec![*problem])),
            "{name}"
        );
    }
}

#[test]
fn what_rfc_7606_leaves_to_a_session_reset() {
    let reach = [0x80, 14, 9, 0, 1, 1, 4, 192, 0, 2, 1, 0];
    assert_eq!(
        outcome(&with(&[&reach[..], &reach].concat()), &EBGP),
        Err(1)
    );
    assert_eq!(outcome(&with(&[0x40, 77, 0]), &EBGP), Err(2));
    // A next hop of 5 octets: where the prefixes begin is anyone's guess.
    assert_eq!(
        outcome(&with(&[0x80, 14, 10, 0, 2, 1, 5, 1, 2, 3, 4, 5, 0]), &EBGP),
        Err(9)
    );
    assert_eq!(outcome(&with(&[0x80, 15, 2, 0, 1]), &EBGP), Err(9));
}

#[test]
fn unknown_attributes_are_carried_by_their_flags() {
    let mut decoder = AttributeDecoder::new();
    let section = with(&[0xc0, 99, 2, 7, 7, 0x80, 98, 1, 1]);
    let decoded = decoder.decode(&section, &EBGP).unwrap();
    assert_eq!(decoded.treatment, Treatment::Accept);
    let last = decoded.attributes.iter().last().unwrap();
    assert_eq!(
        (last.flags, last.code, last.value),
        (0xe0, 99, &[7, 7][..]),
        "transitive: kept, Partial"
    );
    assert_eq!(
        decoded.attributes.value(98),
        None,
        "non-transitive: dropped"
    );
}

#[test]
fn many_large_communities_lose_their_duplicates_and_keep_their_order() {
    let numbers = (0..400_u32).map(|at| (at * 7919) % 97);
    let octets: Vec<u8> = numbers
        .clone()
        .flat_map(|one| [64512, one, 1].map(u32::to_be_bytes).concat())
        .collect();
    let mut seen = Vec::new();
    numbers.for_each(|one| {
        if !seen.contains(&one) {
            seen.push(one);
        }
    });
    let len = (octets.len() as u16).to_be_bytes();
    let section = with(&[&[0xd0, 32][..], &len, &octets].concat());
    let mut decoder = AttributeDecoder::new();
    let decoded = decoder.decode(&section, &EBGP).unwrap();
    let found = decoded.attributes.large_communities();
    let found: Vec<u32> = found.map(|one| one.local_data_1).collect();
    assert_eq!(found, seen);
}

#[test]
fn large_communities_lose_their_duplicates() {
    let one = [0, 0, 0xfc, 0, 0, 0, 0x27, 0x11, 192, 0, 2, 11];
    let other = [0, 0, 0xfc, 0, 0, 0, 0x27, 0x12, 192, 0, 2, 11];
    let section = with(&[&[0xc0, 32, 36][..], &other, &one, &other].concat());
    let mut decoder = AttributeDecoder::new();
    let decoded = decoder.decode(&section, &EBGP).unwrap();
    let communities: Vec<String> = decoded
        .attributes
        .large_communities()
        .map(|community| community.to_string())
        .collect();
    assert_eq!(
        communities,
        ["64512:10002:3221225995", "64512:10001:3221225995"]
    );
}

/// RFC 6793 section 4.2.3: the leading AS numbers of AS_PATH, then AS4_PATH.
#[test]
fn as4_path_is_merged_from_an_old_speaker() {
    let old = AttributeContext {
        four_octet_as: false,
        ..EBGP
    };
    let section = [
        &[
            0x40, 1, 1, 0, 0x40, 2, 8, 2, 3, 0, 1, 0x5b, 0xa0, 0x5b, 0xa0, 0x40, 3, 4, 192, 0, 2, 1,
        ][..],
        &[0xc0, 17, 10, 2, 2, 0, 1, 0, 1, 0, 1, 0, 2],
    ]
    .concat();
    let mut decoder = AttributeDecoder::new();
    let decoded = decoder.decode(&section, &old).unwrap();
    assert_eq!(decoded.attributes.as_path().to_string(), "1 65537 65538");

    // Longer than AS_PATH: ignored.
    let section = [
        &[
            0x40, 1, 1, 0, 0x40, 2, 4, 2, 1, 0x5b, 0xa0, 0x40, 3, 4, 192, 0, 2, 1,
        ][..],
        &[0xc0, 17, 10, 2, 2, 0, 1, 0, 1, 0, 1, 0, 2],
    ]
    .concat();
    let decoded = decoder.decode(&section, &old).unwrap();
    assert_eq!(decoded.attributes.as_path().to_string(), "23456");
}

#[test]
fn a_path_survives_an_old_speaker_there_and_back() {
    let mut builder = AttributesBuilder::new();
    builder.set_origin(Origin::Igp);
    builder.set_as_sequence(&[Asn(1), Asn(4_200_000_000), Asn(3)]);
    let next_hop = NextHop::from(std::net::IpAddr::from([192, 0, 2, 1]));
    let mut out = Vec::new();
    encode_attributes(
        builder.view(),
        &next_hop,
        crate::Family::Ipv4Unicast,
        false,
        &mut out,
    );
    let mut decoder = AttributeDecoder::new();
    let old = AttributeContext {
        four_octet_as: false,
        ..EBGP
    };
    let decoded = decoder.decode(&out, &old).unwrap();
    assert_eq!(decoded.attributes, builder.view());
    assert_eq!(decoded.next_hop, Some(Ipv4Addr::new(192, 0, 2, 1)));
}

#[test]
fn builder_keeps_attributes_sorted_and_single() {
    let mut builder = AttributesBuilder::new();
    builder.set_large_communities([LargeCommunity::new(1, 2, 3)]);
    builder.set_med(5);
    builder.set_origin(Origin::Egp);
    builder.set_med(6);
    builder.set_empty_as_path();
    builder.prepend_as(Asn(2));
    builder.prepend_as(Asn(1));
    let codes: Vec<u8> = builder
        .view()
        .iter()
        .map(|attribute| attribute.code)
        .collect();
    assert_eq!(codes, [1, 2, 4, 32]);
    assert_eq!(builder.view().med(), Some(6));
    assert_eq!(builder.view().as_path().to_string(), "1 2");
    builder.remove(code::MULTI_EXIT_DISC);
    builder.set_large_communities([]);
    let codes: Vec<u8> = builder
        .view()
        .iter()
        .map(|attribute| attribute.code)
        .collect();
    assert_eq!(codes, [1, 2]);
}

#[test]
fn prepending_starts_a_segment_behind_a_set_or_a_full_one() {
    let mut builder = AttributesBuilder::new();
    builder.set(flags::TRANSITIVE, code::AS_PATH, &[1, 1, 0, 0, 0, 9]);
    builder.prepend_as(Asn(7));
    assert_eq!(builder.view().as_path().to_string(), "7 {9}");
    builder.set_as_sequence(&[Asn(5); 255]);
    builder.prepend_as(Asn(7));
    assert_eq!(builder.view().as_path().path_length(), 256);
    // Confederation segments stay inside.
    builder.set(
        flags::TRANSITIVE,
        code::AS_PATH,
        &[3, 1, 0, 0, 0xfd, 0xe9, 2, 1, 0, 0, 0, 9],
    );
    builder.prepend_as(Asn(7));
    assert_eq!(builder.view().as_path().to_string(), "7 9");
}

#[test]
fn every_truncation_of_a_section_is_survived() {
    let section = with(&[
        0xc0, 8, 4, 0, 1, 0, 2, 0xd0, 32, 0, 12, 0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0, 3,
    ]);
    let mut decoder = AttributeDecoder::new();
    for len in 0..section.len() {
        if let Ok(decoded) = decoder.decode(&section[..len], &EBGP)
            && decoded.treatment == Treatment::Accept
        {
            assert!([20, 27].contains(&len), "cut at {len} passed");
        }
    }
}

proptest! {
    #[test]
    fn no_octets_make_it_panic(section in prop::collection::vec(any::<u8>(), 0..300), four in any::<bool>(), internal in any::<bool>()) {
        let peer = if internal { PeerType::Internal } else { PeerType::External };
        let context = AttributeContext { four_octet_as: four, peer, has_nlri: true, families: [true; 2], extended_next_hop: false };
        let _ = AttributeDecoder::new().decode(&section, &context);
        let view = AttributesView::new(&section);
        let _ = (view.origin(), view.as_path().to_string(), view.aggregator(), view.cluster_list().count());
        let mut builder = AttributesBuilder::new();
        builder.load(view);
        builder.prepend_as(Asn(1));
    }

    #[test]
    fn one_wrong_octet_makes_no_panic_and_canonical_octets_stay_canonical(at in 0usize..43, octet in any::<u8>()) {
        let mut section = with(&[0xc0, 8, 4, 0, 1, 0, 2, 0xd0, 32, 0, 12, 0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0, 3]);
        let at = at.min(section.len() - 1);
        section[at] = octet;
        let mut decoder = AttributeDecoder::new();
        if let Ok(decoded) = decoder.decode(&section, &IBGP)
            && decoded.treatment < Treatment::TreatAsWithdraw
        {
            let codes: Vec<u8> = decoded.attributes.iter().map(|attribute| attribute.code).collect();
            prop_assert!(codes.is_sorted_by(|a, b| a < b));
            let whole: usize = decoded.attributes.iter().map(|attribute| attribute.value.len() + 3 + usize::from(attribute.value.len() > 255)).sum();
            prop_assert_eq!(whole, decoded.attributes.octets().len());
        }
    }
}

#[test]
fn path_length_counts_a_set_once() {
    assert_eq!(
        AsPath(&[2, 2, 0, 0, 0, 1, 0, 0, 0, 2, 1, 2, 0, 0, 0, 3, 0, 0, 0, 4]).path_length(),
        3
    );
}

fn reach(afi: u8, next_hop: &[u8], nlri: &[u8]) -> Vec<u8> {
    let value = [&[0, afi, 1, next_hop.len() as u8][..], next_hop, &[0], nlri].concat();
    [&[0x80, 14, value.len() as u8][..], &value].concat()
}

/// One check for NEXT_HOP and MP_REACH_NLRI.
#[test]
fn a_next_hop_that_nobody_may_use_withdraws() {
    let v6 = |text: &str| text.parse::<Ipv6Addr>().unwrap().octets().to_vec();
    let both = |a: &str, b: &str| [v6(a), v6(b)].concat();
    let table: [(u8, Vec<u8>, bool); 17] = [
        (1, vec![0, 0, 0, 0], false),
        (1, vec![0, 1, 2, 3], false),
        (1, vec![127, 0, 0, 1], false),
        (1, vec![224, 0, 0, 1], false),
        (1, vec![255, 255, 255, 255], false),
        (1, vec![198, 51, 100, 2], true),
        (2, v6("::"), false),
        (2, v6("::1"), false),
        (2, v6("ff02::1"), false),
        (2, v6("fe80::1"), false),
        (2, both("::", "fe80::1"), false),
        (2, both("fe80::1", "fe80::1"), false),
        (2, both("::1", "fe80::1"), false),
        (2, v6("2001:db8::1"), true),
        (2, both("2001:db8::1", "fe80::1"), true),
        (2, both("2001:db8::1", "2001:db8::2"), true),
        (2, v6("fd00::1"), true),
    ];
    for (afi, next_hop, usable) in table {
        let expected = |code| match usable {
            true => (Treatment::Accept, vec![]),
            false => (Treatment::TreatAsWithdraw, vec![(code, ProblemKind::Value)]),
        };
        let section = [&mandatory()[..13], &reach(afi, &next_hop, &[0])].concat();
        let multi = outcome(&section, &NO_NLRI);
        assert_eq!(multi, Ok(expected(14)), "MP_REACH {afi} {next_hop:?}");
        if afi == 1 {
            let section = [&mandatory()[..13], &[0x40, 3, 4], &next_hop[..]].concat();
            assert_eq!(outcome(&section, &EBGP), Ok(expected(3)), "{next_hop:?}");
        }
    }
    // RFC 8950: an IPv4 prefix has the same, where both ends take it.
    let extended = AttributeContext {
        extended_next_hop: true,
        ..NO_NLRI
    };
    for (next_hop, usable) in [
        (v6("2001:db8::1"), true),
        (both("2001:db8::1", "fe80::1"), true),
        (v6("::"), false),
        (v6("fe80::1"), false),
        (vec![198, 51, 100, 2], true),
    ] {
        let section = [&mandatory()[..13], &reach(1, &next_hop, &[0])].concat();
        let (treatment, _) = outcome(&section, &extended).unwrap();
        assert_eq!(treatment == Treatment::Accept, usable, "{next_hop:?}");
    }
    for len in [0, 12, 24, 48] {
        let section = with(&reach(1, &vec![1; len], &[0]));
        assert_eq!(outcome(&section, &extended), Err(9), "{len} octets");
    }
    // RFC 7606 section 7.11: with another length nobody knows where the prefixes begin.
    for (afi, len) in [(2, 4), (1, 16), (1, 32), (2, 24), (1, 0), (2, 0)] {
        let section = with(&reach(afi, &vec![1; len], &[0]));
        assert_eq!(
            outcome(&section, &NO_NLRI),
            Err(9),
            "AFI {afi}, {len} octets"
        );
    }
}

const NO_NLRI: AttributeContext = AttributeContext {
    has_nlri: false,
    ..EBGP
};

/// RFC 4760 sections 3 and 8.
#[test]
fn what_is_not_about_the_routes_of_the_session_costs_none() {
    let global: Vec<u8> = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1)
        .octets()
        .into();
    for next_hop in [[0, 0, 0, 0], [127, 0, 0, 1], [224, 0, 0, 1]] {
        let attribute = [&[0x40, 3, 4][..], &next_hop].concat();
        let section = [&mandatory()[..13], &attribute, &reach(2, &global, &[0])].concat();
        let fine = Ok((Treatment::Accept, vec![]));
        assert_eq!(outcome(&section, &NO_NLRI), fine, "{next_hop:?}");
        // With prefixes in the NLRI field it is theirs.
        let worst = outcome(&section, &EBGP).unwrap().0;
        assert_eq!(worst, Treatment::TreatAsWithdraw, "{next_hop:?}");
    }
    let v4_alone = AttributeContext {
        families: [true, false],
        ..EBGP
    };
    for next_hop in [&[192, 0, 2, 1][..], &[0; 16], &[0xff; 16], &[1; 7]] {
        let section = with(&reach(2, next_hop, &[129]));
        let fine = Ok((Treatment::Accept, vec![]));
        assert_eq!(outcome(&section, &v4_alone), fine, "{next_hop:?}");
        let mut decoder = AttributeDecoder::new();
        let decoded = decoder.decode(&section, &v4_alone).unwrap();
        assert_eq!(decoded.mp_reach.unwrap().family, None);
    }
}

/// RFC 5065 section 4.
#[test]
fn no_confederation_segment_leaves_the_as() {
    let path = [
        3, 1, 0, 0, 0xfe, 0x4c, 2, 1, 0, 0, 0xfd, 0xf2, 4, 2, 0, 0, 0xfe, 0x4c, 0, 0, 0xfe, 0x4d,
        1, 1, 0, 0, 0xfd, 0xf3,
    ];
    let mut builder = AttributesBuilder::new();
    builder.set(flags::TRANSITIVE, code::AS_PATH, &path);
    builder.prepend_as(Asn(64601));
    let left = builder.view().as_path().to_string();
    assert_eq!(left, "64601 65010 {65011}");
}

/// RFC 4360 section 6, RFC 5701 section 2; RFC 7606 sections 7.14 and 7.15.
#[test]
fn non_transitive_extended_communities_stay_in_their_as() {
    let v6 = |kind: u8| [&[kind, 2][..], &[7; 18]].concat();
    let mut builder = AttributesBuilder::new();
    let both = [v6(0x40), v6(0), v6(0x40)].concat();
    builder.set(0xc0, code::IPV6_EXTENDED_COMMUNITIES, &both);
    builder.set(
        0xc0,
        code::EXTENDED_COMMUNITIES,
        &[0x43, 0, 0, 0, 0, 0, 0, 1],
    );
    builder.keep_transitive_extended_communities();
    let view = builder.view();
    assert_eq!(
        view.value(code::IPV6_EXTENDED_COMMUNITIES),
        Some(&v6(0)[..])
    );
    assert_eq!(view.value(code::EXTENDED_COMMUNITIES), None);
    for len in [0u8, 8, 19, 21] {
        let section = with(&[&[0xc0, 25, len][..], &vec![0; len.into()]].concat());
        let bad = (Treatment::TreatAsWithdraw, vec![(25, ProblemKind::Length)]);
        assert_eq!(outcome(&section, &EBGP), Ok(bad), "{len}");
    }
}

/// RFC 7607 section 2.
#[test]
fn as_0_is_nobodys() {
    use ProblemKind::Value;
    use Treatment::{AttributeDiscard, TreatAsWithdraw};
    let old = AttributeContext {
        four_octet_as: false,
        ..EBGP
    };
    let narrow = [
        &mandatory()[..4],
        &[0x40, 2, 4, 2, 1, 0x5b, 0xa0],
        &mandatory()[13..],
    ]
    .concat();
    let narrow_zero = [
        &mandatory()[..4],
        &[0x40, 2, 4, 2, 1, 0, 0],
        &mandatory()[13..],
    ]
    .concat();
    let wide_zero = [
        &mandatory()[..4],
        &[0x40, 2, 10, 2, 2, 0, 0, 0xfd, 0xe9, 0, 0, 0, 0],
        &mandatory()[13..],
    ]
    .concat();
    let and = |attribute: &[u8]| [&narrow[..], attribute].concat();
    let rows = [
        (wide_zero, &EBGP, TreatAsWithdraw, 2),
        (narrow_zero, &old, TreatAsWithdraw, 2),
        (
            with(&[0xc0, 7, 8, 0, 0, 0, 0, 192, 0, 2, 1]),
            &EBGP,
            AttributeDiscard,
            7,
        ),
        (
            and(&[0xc0, 7, 6, 0, 0, 192, 0, 2, 1]),
            &old,
            AttributeDiscard,
            7,
        ),
        (
            and(&[0xc0, 17, 6, 2, 1, 0, 0, 0, 0]),
            &old,
            AttributeDiscard,
            17,
        ),
        (
            and(&[0xc0, 18, 8, 0, 0, 0, 0, 192, 0, 2, 1]),
            &old,
            AttributeDiscard,
            18,
        ),
    ];
    for (section, context, treatment, code) in rows {
        let expected = (treatment, vec![(code, Value)]);
        assert_eq!(outcome(&section, context), Ok(expected), "{section:?}");
    }
}

/// RFC 6793 section 6: the confederation segment alone is left out of AS4_PATH.
#[test]
fn a_confederation_segment_costs_as4_path_nothing_else() {
    let old = AttributeContext {
        four_octet_as: false,
        ..EBGP
    };
    let section = [
        &mandatory()[..4],
        &[0x40, 2, 6, 2, 2, 0xfd, 0xe9, 0x5b, 0xa0],
        &mandatory()[13..],
        &[0xc0, 17, 12, 3, 1, 0, 0, 0xfd, 0xea, 2, 1, 0, 1, 0, 1],
    ]
    .concat();
    let mut decoder = AttributeDecoder::new();
    let decoded = decoder.decode(&section, &old).unwrap();
    assert_eq!(decoded.problems, []);
    assert_eq!(decoded.attributes.as_path().to_string(), "65001 65537");
}

/// RFC 4271 section 4.3.
#[test]
fn partial_is_cleared_where_it_may_not_be() {
    let mut section = with(&[0xa0, 4, 4, 0, 0, 0, 1, 0xe0, 8, 4, 0, 1, 0, 1]);
    section[0] |= 0x20;
    section[4] |= 0x20;
    let mut decoder = AttributeDecoder::new();
    let decoded = decoder.decode(&section, &EBGP).unwrap();
    let flags: Vec<(u8, u8)> = decoded
        .attributes
        .iter()
        .map(|attribute| (attribute.code, attribute.flags))
        .collect();
    assert_eq!(flags, [(1, 0x40), (2, 0x40), (4, 0x80), (8, 0xe0)]);
}

#[test]
fn a_problem_that_repeats_is_noted_once() {
    let twice = [0xc0, 8, 4, 0, 1, 0, 1].repeat(500);
    let section = with(&twice);
    let mut decoder = AttributeDecoder::new();
    assert_eq!(decoder.decode(&section, &EBGP).unwrap().problems.len(), 1);
}

/// RFC 4360 section 6.
#[test]
fn non_transitive_extended_communities_stay_inside() {
    let mut builder = AttributesBuilder::new();
    let (inside, outside) = ([0x40, 4, 0, 1, 0, 0, 0, 1], [0, 2, 0, 1, 0, 0, 0, 1]);
    builder.set(
        0xc0,
        code::EXTENDED_COMMUNITIES,
        &[inside, outside].concat(),
    );
    builder.keep_transitive_extended_communities();
    assert_eq!(
        builder.view().value(code::EXTENDED_COMMUNITIES),
        Some(&outside[..])
    );
    builder.set(0xc0, code::EXTENDED_COMMUNITIES, &inside);
    builder.keep_transitive_extended_communities();
    assert_eq!(builder.octets(), []);
}

/// RFC 9234 section 5.
#[test]
fn only_to_customer_is_four_octets_and_known() {
    let decode = |extra: &[u8]| {
        let mut decoder = AttributeDecoder::new();
        let section = with(extra);
        let decoded = decoder.decode(&section, &EBGP).unwrap();
        let otc = decoded.attributes.iter().find(|one| one.code == 35);
        let otc = otc.map(|one| (one.flags, one.value.to_vec()));
        (decoded.treatment, otc)
    };
    let whole = (0xc0, vec![0, 0, 0xfd, 0xe8]);
    assert_eq!(
        decode(&[0xc0, 35, 4, 0, 0, 0xfd, 0xe8]),
        (Treatment::Accept, Some(whole))
    );
    for malformed in [
        &[0xc0, 35, 2, 0xfd, 0xe8][..],
        &[0xc0, 35, 0],
        &[0xc0, 35, 8, 0, 0, 0, 1, 0, 0, 0, 2],
        &[0x80, 35, 4, 0, 0, 0xfd, 0xe8],
    ] {
        assert_eq!(decode(malformed), (Treatment::TreatAsWithdraw, None));
    }
}
