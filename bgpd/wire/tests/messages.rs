//! Whole messages there and back.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::net::IpAddr;

use ipnet::{Ipv4Net, Ipv6Net};
use proptest::prelude::*;
use weft_bgp_wire::*;

fn open() -> Open {
    Open {
        my_as: 23456,
        hold_time: 90,
        router_id: RouterId([192, 0, 2, 1].into()),
        capabilities: vec![
            Capability::MultiProtocol(1, 1),
            Capability::MultiProtocol(2, 1),
            Capability::RouteRefresh,
            Capability::ExtendedNextHop(vec![(1, 1, 2), (1, 128, 2)]),
            Capability::ExtendedMessage,
            Capability::Role(4),
            Capability::GracefulRestart(GracefulRestart {
                restarting: true,
                notification: true,
                restart_time: 120,
                families: vec![GracefulRestartFamily {
                    afi_safi: (1, 1),
                    forwarding_preserved: true,
                }],
            }),
            Capability::FourOctetAs(Asn(4_200_000_000)),
            Capability::AddPath(vec![(
                1,
                1,
                AddPathMode {
                    receive: true,
                    send: true,
                },
            )]),
            Capability::EnhancedRouteRefresh,
            Capability::Unknown(73, b"\x03rtr".to_vec()),
        ],
    }
}

fn body(message: &[u8]) -> &[u8] {
    let frame = next_frame(message, MAX_MESSAGE_LEN_EXTENDED)
        .unwrap()
        .unwrap();
    assert_eq!(frame.len, message.len());
    &message[HEADER_LEN..]
}

#[test]
fn open_there_and_back() {
    let mut out = Vec::new();
    open().encode(&mut out);
    let decoded = Open::decode(body(&out)).unwrap();
    assert_eq!(decoded, open());
    assert_eq!(decoded.asn(), Asn(4_200_000_000));
    assert_eq!(
        decoded.families(),
        [Family::Ipv4Unicast, Family::Ipv6Unicast]
    );
}

#[test]
fn open_with_more_than_255_octets_of_capabilities_uses_rfc_9072() {
    let mut long = open();
    long.capabilities
        .push(Capability::Unknown(200, vec![7; 250]));
    let mut out = Vec::new();
    long.encode(&mut out);
    assert_eq!(out[28..30], [255, 255]);
    assert_eq!(Open::decode(body(&out)).unwrap(), long);
}

#[test]
fn open_errors_are_those_of_rfc_4271_section_6_2() {
    let mut out = Vec::new();
    open().encode(&mut out);
    let good = body(&out).to_vec();
    let subcode = |at: usize, octets: &[u8]| {
        let mut bad = good.clone();
        bad[at..at + octets.len()].copy_from_slice(octets);
        Open::decode(&bad).unwrap_err().subcode
    };
    assert_eq!(subcode(0, &[3]), open_error::UNSUPPORTED_VERSION);
    assert_eq!(subcode(3, &[0, 2]), open_error::UNACCEPTABLE_HOLD_TIME);
    assert_eq!(subcode(5, &[0; 4]), open_error::BAD_BGP_IDENTIFIER);
    assert_eq!(
        subcode(10, &[1]),
        open_error::UNSUPPORTED_OPTIONAL_PARAMETER
    );
    assert_eq!(subcode(9, &[7]), 0);
    for len in 0..good.len() {
        assert!(Open::decode(&good[..len]).is_err(), "cut at {len}");
    }
}

#[test]
fn header_errors_are_those_of_rfc_4271_section_6_1() {
    let mut out = Vec::new();
    encode_keepalive(&mut out);
    assert_eq!(next_frame(&out[..18], 4096), Ok(None));
    assert_eq!(
        next_frame(&out, 4096),
        Ok(Some(Frame {
            kind: MessageType::Keepalive,
            len: 19
        }))
    );
    let subcode = |at: usize, octet: u8| {
        let mut bad = out.clone();
        bad[at] = octet;
        next_frame(&bad, 4096).unwrap_err().subcode
    };
    assert_eq!(subcode(3, 0), header_error::NOT_SYNCHRONIZED);
    assert_eq!(subcode(17, 20), header_error::BAD_LENGTH);
    assert_eq!(subcode(17, 18), header_error::BAD_LENGTH);
    assert_eq!(subcode(18, 9), header_error::BAD_TYPE);
}

#[test]
fn notifications_speak_the_words_of_the_rfc() {
    let notification = Notification::cease(cease::ADMIN_SHUTDOWN, "maintenance until 10:00");
    let mut out = Vec::new();
    notification.encode(&mut out);
    assert_eq!(Notification::decode(body(&out)), notification);
    assert_eq!(
        notification.to_string(),
        "Cease: Administrative Shutdown (6/2) \"maintenance until 10:00\""
    );
    assert_eq!(
        Notification::new(4, 0, []).to_string(),
        "Hold Timer Expired (4/0)"
    );
    assert!(Notification::new(6, 9, []).is_hard_reset());
}

#[test]
fn route_refresh_there_and_back() {
    let mut out = Vec::new();
    RouteRefresh::request(Family::Ipv6Unicast).encode(&mut out);
    assert_eq!(
        RouteRefresh::decode(body(&out)),
        Ok(RouteRefresh::request(Family::Ipv6Unicast))
    );
    assert_eq!(RouteRefresh::decode(&[1]).unwrap_err().code, 7);
}

#[test]
fn end_of_rib_is_what_rfc_4724_says() {
    let mut out = Vec::new();
    encode_end_of_rib(Family::Ipv4Unicast, &mut out);
    assert!(UpdateView::split(body(&out)).unwrap().is_ipv4_end_of_rib());
    out.clear();
    encode_end_of_rib(Family::Ipv6Unicast, &mut out);
    let update = UpdateView::split(body(&out)).unwrap();
    let context = AttributeContext {
        four_octet_as: true,
        peer: PeerType::External,
        has_nlri: false,
        families: [true; 2],
        extended_next_hop: false,
    };
    let mut decoder = AttributeDecoder::new();
    let decoded = decoder.decode(update.attributes, &context).unwrap();
    assert_eq!(decoded.treatment, Treatment::Accept);
    assert_eq!(
        decoded.mp_unreach,
        Some(MpUnreach {
            family: Some(Family::Ipv6Unicast),
            nlri: &[]
        })
    );
}

/// Decodes everything in `stream`: what was announced and withdrawn, and how many messages it took.
fn decode_all<P: Prefix>(
    stream: &[u8],
    context: &EncodeContext,
) -> (Vec<Nlri<P>>, Vec<Nlri<P>>, usize) {
    let add_path = context.add_path[P::FAMILY.index()];
    let mut decoder = AttributeDecoder::new();
    let (mut announced, mut withdrawn, mut messages, mut rest) =
        (Vec::new(), Vec::new(), 0, stream);
    while !rest.is_empty() {
        let frame = next_frame(rest, context.max_len).unwrap().unwrap();
        let update = UpdateView::split(&rest[HEADER_LEN..frame.len]).unwrap();
        let attributes = AttributeContext {
            four_octet_as: context.four_octet_as,
            peer: PeerType::External,
            has_nlri: !update.nlri.is_empty(),
            families: [true; 2],
            extended_next_hop: false,
        };
        let decoded = decoder.decode(update.attributes, &attributes).unwrap();
        assert_eq!(
            decoded.treatment,
            Treatment::Accept,
            "{:?}",
            decoded.problems
        );
        let (reach, unreach) = match P::FAMILY {
            Family::Ipv4Unicast => (update.nlri, update.withdrawn),
            Family::Ipv6Unicast => (
                decoded.mp_reach.map_or(&[][..], |reach| reach.nlri),
                decoded.mp_unreach.map_or(&[][..], |unreach| unreach.nlri),
            ),
        };
        announced.extend(NlriIter::<P>::new(reach, add_path).map(Result::unwrap));
        withdrawn.extend(NlriIter::<P>::new(unreach, add_path).map(Result::unwrap));
        rest = &rest[frame.len..];
        messages += 1;
    }
    (announced, withdrawn, messages)
}

fn there_and_back<P: Prefix>(prefixes: &[P], context: &EncodeContext, next_hop: NextHop) -> usize {
    let mut builder = AttributesBuilder::new();
    builder.set_origin(Origin::Igp);
    builder.set_as_sequence(&[Asn(64601), Asn(4_200_000_000)]);
    let mut attributes = Vec::new();
    encode_attributes(
        builder.view(),
        &next_hop,
        P::FAMILY,
        context.four_octet_as,
        &mut attributes,
    );
    let mut out = Vec::new();
    let mut writer =
        UpdateWriter::announce(&mut out, context, P::FAMILY, &attributes, next_hop).unwrap();
    for (path_id, prefix) in (1..).zip(prefixes) {
        writer.push(path_id, *prefix);
    }
    writer.finish();
    let mut writer = UpdateWriter::withdraw(&mut out, context, P::FAMILY);
    for (path_id, prefix) in (1..).zip(prefixes) {
        writer.push(path_id, *prefix);
    }
    writer.finish();
    let add_path = context.add_path[P::FAMILY.index()];
    let expected: Vec<Nlri<P>> = (1..)
        .zip(prefixes)
        .map(|(path_id, prefix)| Nlri {
            path_id: if add_path { path_id } else { 0 },
            prefix: *prefix,
        })
        .collect();
    let (announced, withdrawn, messages) = decode_all::<P>(&out, context);
    assert_eq!(announced, expected);
    assert_eq!(withdrawn, expected);
    messages
}

#[test]
fn a_run_of_routes_is_packed_into_few_messages() {
    let prefixes: Vec<Ipv4Net> = (0..10_000u32)
        .map(|n| Ipv4Net::new((0x0a00_0000 + (n << 8)).into(), 24).unwrap())
        .collect();
    let context = EncodeContext {
        max_len: 4096,
        four_octet_as: true,
        add_path: [false; 2],
    };
    // 4 octets a prefix, about 4,030 to a message, announced and withdrawn.
    let messages = there_and_back(&prefixes, &context, IpAddr::from([192, 0, 2, 1]).into());
    assert!(messages <= 20 + 2, "{messages} messages");
}

#[test]
fn attributes_without_room_for_a_prefix_are_refused_not_cut() {
    let mut builder = AttributesBuilder::new();
    builder.set_large_communities((0..400).map(|n| LargeCommunity::new(1, 2, n)));
    let next_hop = NextHop::from(IpAddr::from([192, 0, 2, 1]));
    let mut attributes = Vec::new();
    encode_attributes(
        builder.view(),
        &next_hop,
        Family::Ipv4Unicast,
        true,
        &mut attributes,
    );
    let mut context = EncodeContext {
        max_len: 4096,
        four_octet_as: true,
        add_path: [false; 2],
    };
    let mut out = Vec::new();
    let error = UpdateWriter::announce(
        &mut out,
        &context,
        Family::Ipv4Unicast,
        &attributes,
        next_hop,
    )
    .unwrap_err();
    assert!(error.needed > 4096 && out.is_empty());
    context.max_len = MAX_MESSAGE_LEN_EXTENDED;
    assert!(
        UpdateWriter::announce(
            &mut out,
            &context,
            Family::Ipv4Unicast,
            &attributes,
            next_hop
        )
        .is_ok()
    );
}

#[test]
fn bits_behind_a_prefix_are_cleared_and_bad_lengths_refused() {
    let mut prefixes = NlriIter::<Ipv4Net>::new(&[20, 10, 1, 0xff, 33, 0], false);
    assert_eq!(
        prefixes.next().unwrap().unwrap().prefix,
        "10.1.240.0/20".parse().unwrap()
    );
    assert_eq!(prefixes.next(), Some(Err(NlriError::Length(33))));
    assert_eq!(prefixes.next(), None);
    assert_eq!(
        NlriIter::<Ipv6Net>::new(&[64, 1], false).next(),
        Some(Err(NlriError::Truncated))
    );
    assert_eq!(
        NlriIter::<Ipv4Net>::new(&[0, 0, 0], true).next(),
        Some(Err(NlriError::Truncated))
    );
}

#[test]
fn communities_read_and_write_their_text() {
    for text in ["64512:100", "no-export", "blackhole"] {
        assert_eq!(text.parse::<Community>().unwrap().to_string(), text);
    }
    assert_eq!(
        ExtendedCommunity([0, 2, 0xfc, 0, 0, 0, 0, 1]).to_string(),
        "rt:64512:1"
    );
    for text in ["", "1:2", "1:2:3:4", "+1:2:3", "1:2:4294967296", "a:b:c"] {
        let error = text.parse::<LargeCommunity>().unwrap_err().to_string();
        assert!(error.contains("`A:B:C`"), "{error}");
    }
}

proptest! {
    #[test]
    fn prefixes_there_and_back(
        v4 in prop::collection::vec((any::<u32>(), 0u8..=32), 1..3000),
        v6 in prop::collection::vec((any::<u128>(), 0u8..=128), 1..800),
        four in any::<bool>(), extended in any::<bool>(), add_path in any::<bool>(), link_local in any::<bool>(),
    ) {
        let max_len = if extended { MAX_MESSAGE_LEN_EXTENDED } else { MAX_MESSAGE_LEN };
        let context = EncodeContext { max_len, four_octet_as: four, add_path: [add_path; 2] };
        let v4: Vec<Ipv4Net> = v4.into_iter().map(|(a, l)| Ipv4Net::new(a.into(), l).unwrap().trunc()).collect();
        let v6: Vec<Ipv6Net> = v6.into_iter().map(|(a, l)| Ipv6Net::new(a.into(), l).unwrap().trunc()).collect();
        there_and_back(&v4, &context, IpAddr::from([192, 0, 2, 1]).into());
        let next_hop = NextHop {
            address: "2001:db8::1".parse().unwrap(),
            link_local: link_local.then(|| "fe80::1".parse().unwrap()),
        };
        there_and_back(&v6, &context, next_hop);
    }

    #[test]
    fn no_octets_make_it_panic(octets in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = next_frame(&octets, 4096);
        let _ = Open::decode(&octets);
        let _ = UpdateView::split(&octets);
        let _ = RouteRefresh::decode(&octets);
        let _ = Notification::decode(&octets).to_string();
        let _ = NlriIter::<Ipv6Net>::new(&octets, true).count();
    }
}

/// RFC 9072 section 2: a first parameter type of 255 says it all, whatever length stands before it.
#[test]
fn an_extended_open_is_known_by_its_first_parameter() {
    let fixed = [4, 0xfd, 0xe9, 0, 90, 192, 0, 2, 1];
    let parameter = [2, 0, 6, 1, 4, 0, 1, 0, 1];
    for (length, good) in [(255, true), (12, true), (1, true), (0, false)] {
        let body = [&fixed[..], &[length, 255, 0, 9], &parameter].concat();
        let open = Open::decode(&body);
        assert_eq!(open.is_ok(), good, "length {length}: {open:?}");
        if let Ok(open) = open {
            assert_eq!(open.capabilities, [Capability::MultiProtocol(1, 1)]);
        }
    }
}

/// RFC 9003 section 5.
#[test]
fn a_neighbours_text_acts_on_no_terminal() {
    let text = "maintenance\n\u{1b}[31m\u{202e}, Z\u{fc}rich";
    let shown = Notification::cease(cease::ADMIN_SHUTDOWN, text).to_string();
    assert_eq!(
        shown,
        "Cease: Administrative Shutdown (6/2) \"maintenance\\n\\u{1b}[31m\\u{202e}, Z\u{fc}rich\""
    );
}

/// RFC 7313 section 5: the whole message goes back.
#[test]
fn a_route_refresh_of_a_wrong_length_is_sent_back_whole() {
    let body = [0, 1, 1, 1, 9];
    let error = RouteRefresh::decode(&body).unwrap_err();
    assert_eq!((error.code, error.subcode), (7, 1));
    assert_eq!(error.data[..16], [0xff; 16]);
    assert_eq!(error.data[16..], [0, 24, 5, 0, 1, 1, 1, 9]);
}
