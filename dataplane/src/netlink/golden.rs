//! The octets of every message that we encode ourselves, as the kernel takes them (little-endian hosts).

use std::net::{IpAddr, Ipv4Addr};
use std::num::NonZeroU16;

use super::filters::{put_clsact, put_filter, put_filter_key};
use super::links::{put_link_master, put_link_mtu, put_tunnel_device, put_vrf};
use crate::ways::WaySets;

use super::objects::{
    Question, get_answer, get_next_hop, get_route, put_next_hop, put_next_hop_id, put_route,
    put_route_key, put_vni, route_query,
};
use crate::model::{Carrier, Family, NextHop, RouteKey, RouteSpec, Tunnel};

fn octets(write: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut out = Vec::new();
    write(&mut out);
    out
}

fn hex(octets: &[u8]) -> String {
    octets.iter().map(|octet| format!("{octet:02x}")).collect()
}

fn key(prefix: &str) -> RouteKey {
    RouteKey {
        table: 0x5700_2711,
        prefix: prefix.parse().unwrap(),
        metric: 0,
    }
}

fn tunnel(destination: &str, gateway: Option<&str>, family: Family) -> Tunnel {
    Tunnel {
        family,
        vni: 10001,
        source: Some(Ipv4Addr::new(192, 0, 2, 1).into()),
        destination: destination.parse().unwrap(),
        gateway: gateway.map(|gateway| gateway.parse().unwrap()),
        flags: 0x0104,
        interface: 7,
    }
}

#[test]
fn routes() {
    let to_object = octets(|out| {
        put_route(
            out,
            &key("10.0.2.0/24"),
            &RouteSpec::NextHop {
                id: 0x5700_0001,
                mtu: None,
            },
            &WaySets::default(),
            87,
            false,
        )
    });
    assert_eq!(
        hex(&to_object),
        "02180000005700010000000008000f001127005708000100\
         0a00020008001e0001000057"
    );
    let found = get_route(&to_object, &mut WaySets::default(), 87).unwrap();
    assert_eq!(
        found,
        (
            key("10.0.2.0/24"),
            RouteSpec::NextHop {
                id: 0x5700_0001,
                mtu: None
            }
        )
    );
    assert_eq!(
        get_route(&to_object, &mut WaySets::default(), 186),
        None,
        "somebody else's"
    );
    let end = octets(|out| {
        put_route(
            out,
            &RouteKey {
                metric: u32::MAX,
                ..key("0.0.0.0/0")
            },
            &RouteSpec::Unreachable,
            &WaySets::default(),
            87,
            false,
        )
    });
    assert_eq!(
        hex(&end),
        "02000000005700070000000008000f001127005708000600ffffffff"
    );
    let gone = octets(|out| put_route_key(out, &key("2001:db8::/32"), 87));
    assert_eq!(
        hex(&gone),
        "0a2000000057ff000000000008000f00112700571400010020010db8\
         000000000000000000000000"
    );
}

#[test]
fn routes_over_a_narrow_way() {
    let put = |mtu: Option<u16>, beside_narrow| {
        let spec = RouteSpec::NextHop {
            id: 0x5700_0001,
            mtu: mtu.and_then(NonZeroU16::new),
        };
        let route = octets(|out| {
            let sets = WaySets::default();
            put_route(out, &key("10.0.2.0/24"), &spec, &sets, 87, beside_narrow)
        });
        let read = get_route(&route, &mut WaySets::default(), 87);
        assert_eq!(read, Some((key("10.0.2.0/24"), spec)));
        hex(&route)
    };
    // RTA_METRICS with RTAX_LOCK, of the MTU alone, and RTAX_MTU.
    let narrow = put(Some(1350), false);
    assert!(narrow.ends_with("1400088008000100040000000800020046050000"));
    assert!(put(None, true).ends_with("08001e000100005704000880"));
    assert!(put(None, false).ends_with("08001e0001000057"));
    // One that is not locked is somebody else's.
    let mut unlocked = octets(|out| {
        let spec = RouteSpec::NextHop { id: 5, mtu: None };
        let sets = WaySets::default();
        put_route(out, &key("10.0.2.0/24"), &spec, &sets, 87, false);
    });
    unlocked.extend([12, 0, 8, 0x80, 8, 0, 2, 0, 0x46, 5, 0, 0]);
    let foreign = RouteSpec::NextHop {
        id: 5,
        mtu: Some(NonZeroU16::MIN),
    };
    let read = get_route(&unlocked, &mut WaySets::default(), 87);
    assert_eq!(read, Some((key("10.0.2.0/24"), foreign)));
}

#[test]
fn next_hops() {
    let tunnel = tunnel("192.0.2.2", Some("192.0.2.2"), Family::V4);
    let next_hop = NextHop::Tunnel(tunnel);
    let message = octets(|out| put_next_hop(out, 0x5700_0001, &next_hop, 87));
    assert_eq!(
        hex(&message),
        "020057000400000008000100010000570800050007000000\
         08000600c00002020600070002000000\
         300008800c000100000000000000271108000200c000020208000300c0000201\
         05000400400000000600060001040000"
    );
    assert_eq!(get_next_hop(&message, 87), Some((0x5700_0001, next_hop)));
    let group = NextHop::Group {
        members: vec![(0x5700_0001, 1), (0x5700_0002, 1)],
        buckets: 0,
    };
    let message = octets(|out| put_next_hop(out, 0x5700_0003, &group, 87));
    assert_eq!(
        hex(&message),
        "0000570000000000080001000300005714000200\
         01000057000000000200005700000000"
    );
    assert_eq!(get_next_hop(&message, 87), Some((0x5700_0003, group)));
    assert_eq!(
        hex(&octets(|out| put_next_hop_id(out, 0x5700_0003))),
        "00000000000000000800010003000057"
    );
}

#[test]
fn next_hops_over_ipv6_without_an_ethernet_header() {
    let tunnel = Tunnel {
        source: None,
        ..tunnel("2001:db8::2", None, Family::V6)
    };
    let next_hop = NextHop::Tunnel(tunnel);
    let message = octets(|out| put_next_hop(out, 0x5700_0001, &next_hop, 87));
    assert_eq!(
        hex(&message),
        "0a0057000000000008000100010000570800050007000000\
         0600070004000000\
         340008800c00010000000000000027111400020020010db8000000000000000000000002\
         05000400400000000600060001040000"
    );
    assert_eq!(get_next_hop(&message, 87), Some((0x5700_0001, next_hop)));
}

#[test]
fn links_and_vnis() {
    assert_eq!(
        hex(&octets(|out| put_vni(out, 7, 10001))),
        "07000000070000000c0001800800010011270000"
    );
    let local: IpAddr = Ipv4Addr::new(192, 0, 2, 1).into();
    let device = octets(|out| {
        put_tunnel_device(out, Carrier::Gre, local, [2, 0, 192, 0, 2, 1], 1472);
    });
    assert_eq!(
        hex(&device),
        "00000000000000000100000001000000\
         0a0003007767726530000000\
         08000400c0050000\
         1400128007000100677265000800028004001200"
    );
    assert_eq!(
        hex(&octets(|out| put_vrf(out, "vrf-1", 7001))),
        "00000000000000000100000001000000\
         0a0003007672662d31000000\
         1800128007000100767266000c00028008000100591b0000"
    );
    assert_eq!(
        hex(&octets(|out| put_link_mtu(out, 7, 1450))),
        "0000000007000000010000000100000008000400aa050000"
    );
    assert_eq!(
        hex(&octets(|out| put_link_master(out, 7, 9))),
        "0000000007000000000000000000000008000a0009000000"
    );
}

#[test]
fn filters() {
    assert_eq!(
        hex(&octets(|out| put_clsact(out, 7))),
        "00000000070000000000fffff1ffffff000000000b000100636c7361637400 00".replace(' ', "")
    );
    let key = octets(|out| put_filter_key(out, 7, true));
    assert_eq!(
        hex(&key),
        "000000000700000001000000f2ffffff0003570008000100627066 00".replace(' ', "")
    );
    let filter = octets(|out| put_filter(out, 7, false, 5));
    assert!(hex(&filter).starts_with("000000000700000001000000f3ffffff"));
    assert!(hex(&filter).contains("0800060005000000"), "the program");
    assert!(
        hex(&filter).ends_with("0800080001000000"),
        "what it says is done"
    );
}

#[test]
fn questions_and_answers() {
    let question = Question {
        interface: None,
        out: None,
        destination: Ipv4Addr::new(10, 0, 2, 10).into(),
        source: None,
        mark: Some(0x5700_2711),
        dscp: 46,
        udp_port: None,
    };
    assert_eq!(
        hex(&route_query(&question)),
        "022000b80000000000300000080001000a00020a0800100011270057"
    );
    let v6: IpAddr = "2001:db8::2".parse().unwrap();
    assert!(
        hex(&route_query(&v6.into())).starts_with("0a8000000000000000200000"),
        "of IPv6 the kernel takes one flag alone"
    );
    let answer = octets(|out| {
        put_route(
            out,
            &key("10.0.2.0/24"),
            &RouteSpec::NextHop { id: 5, mtu: None },
            &WaySets::default(),
            87,
            false,
        );
    });
    let answer = get_answer(&answer).unwrap();
    assert_eq!(
        (answer.table, answer.next_hop, answer.kind),
        (0x5700_2711, Some(5), libc::RTN_UNICAST)
    );
    // Cut anywhere, an answer is none or another one, and nothing worse.
    let whole = octets(|out| {
        put_route(
            out,
            &key("10.0.2.0/24"),
            &RouteSpec::NextHop { id: 5, mtu: None },
            &WaySets::default(),
            87,
            false,
        )
    });
    for len in 0..whole.len() {
        let _ = get_answer(&whole[..len]);
        let _ = get_route(&whole[..len], &mut WaySets::default(), 87);
        let _ = get_next_hop(&whole[..len], 87);
    }
}
