//! A real table: all of it arrives behind a router, and all of it leaves.

#![allow(clippy::unwrap_used, reason = "a test: a panic is its verdict")]

use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::time::{Duration, Instant};

use weft_bgp_wire::{EncodeContext, Family, NextHop, UpdateWriter, encode_end_of_rib};
use weft_load::mrt;
use weft_tests::topology::{forwarding, topology};
use weft_tests::{Lab, Speaker, need, wait_until};

const FILE: &str = "../shared/data/routeviews-jinx-20140530.rib.bz2";
const PREFIXES: u64 = 497_323;
/// AS numbers that stand in no path of the table: p, r1, r2.
const ASN: [u32; 3] = [4_200_000_001, 4_200_000_002, 4_200_000_003];
const P: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 2);
const PATIENCE: Duration = Duration::from_secs(120);

/// As the peer that saw the route would pass it on to us, with the octets of NEXT_HOP in their place.
fn passed_on(attributes: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    for (flags, code, value) in mrt::attributes(attributes) {
        let value = match code {
            // AS_PATH: one more segment in front.
            2 => [&[2, 1], &ASN[0].to_be_bytes()[..], value].concat(),
            3 => P.octets().to_vec(),
            // Well-known communities (NO_EXPORT and the like) would keep the route at r1.
            8 => {
                let (known, _) = value.as_chunks::<4>();
                let kept = known.iter().filter(|community| community[..2] != [0xff; 2]);
                kept.flatten().copied().collect()
            }
            // LOCAL_PREF, MP_REACH_NLRI: not by eBGP, not for IPv4.
            5 | 14 | 15 => continue,
            _ => value.to_vec(),
        };
        if value.is_empty() && code == 8 {
            continue;
        }
        out.extend_from_slice(&[flags | 0x10, code]);
        out.extend_from_slice(&u16::try_from(value.len()).unwrap().to_be_bytes());
        out.extend_from_slice(&value);
    }
    out
}

/// IPv4 prefixes that `node` holds from its neighbour, where it answers.
fn received(lab: &Lab, node: &str, neighbor: &str) -> Option<u64> {
    family(&lab.neighbor(node, neighbor)?["prefixes"], "received")
}

/// IPv4 prefixes in the Loc-RIB.
fn held(lab: &Lab, node: &str) -> Option<u64> {
    family(&lab.get(node, "status")?["prefixes"], "count")
}

fn family(counts: &serde_json::Value, field: &str) -> Option<u64> {
    let counts = counts.as_array()?;
    let ipv4 = counts
        .iter()
        .find(|count| count["family"] == "ipv4-unicast");
    Some(ipv4.map_or(0, |count| count[field].as_u64().unwrap()))
}

#[test]
fn a_real_table_arrives_whole_and_leaves_whole() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(FILE);
    if !file.exists() {
        eprintln!("SKIPPED: {FILE}");
        return;
    }
    if !need(&["ip", "curl"]) {
        return;
    }
    let table = mrt::read(&file).unwrap();
    assert_eq!(table.values().map(Vec::len).sum::<usize>() as u64, PREFIXES);

    let [p, r1, r2] = ASN;
    let files = [
        (
            "r1.yaml".to_owned(),
            format!(
                "router: {{ name: r1, router_id: 192.0.2.1, asn: {r1}, default_policy: accept }}
neighbors:
  - {{ address: {P}, asn: {p}, passive: true }}
  - {{ address: 198.51.100.6, asn: {r2} }}
"
            ),
        ),
        (
            "r2.yaml".to_owned(),
            format!(
                "router: {{ name: r2, router_id: 192.0.2.2, asn: {r2}, default_policy: accept }}
neighbors:
  - {{ address: 198.51.100.5, asn: {r1} }}
"
            ),
        ),
    ];
    let nodes = [
        ("p", false, vec![format!("ip address add {P}/30 dev eth1")]),
        (
            "r1",
            true,
            forwarding(&["eth1 198.51.100.1/30", "eth2 198.51.100.5/30"]),
        ),
        ("r2", true, forwarding(&["eth1 198.51.100.6/30"])),
    ];
    let links = [("p:eth1", "r1:eth1"), ("r1:eth2", "r2:eth1")];
    let lab = Lab::up(&topology(&nodes, &links), &files);
    let speaker = Speaker {
        netns: lab.netns("p"),
        router: Ipv4Addr::new(198, 51, 100, 1),
        asn: p,
        router_id: P,
    };
    let mut peer = speaker.establish();
    wait_until("r2 is a neighbour of r1", PATIENCE, || {
        (lab.neighbor("r1", "198.51.100.6")?["state"] == "established").then_some(())
    });

    let context = EncodeContext {
        max_len: 4096,
        four_octet_as: true,
        add_path: [false; 2],
    };
    let next_hop = NextHop {
        address: IpAddr::V4(P),
        link_local: None,
    };
    let mut octets = Vec::new();
    for (attributes, prefixes) in &table {
        let attributes = passed_on(attributes);
        let mut writer = UpdateWriter::announce(
            &mut octets,
            &context,
            Family::Ipv4Unicast,
            &attributes,
            next_hop,
        )
        .unwrap();
        for prefix in prefixes {
            writer.push(0, *prefix);
        }
        writer.finish();
    }
    encode_end_of_rib(Family::Ipv4Unicast, &mut octets);
    let start = Instant::now();
    peer.send(&octets);
    let reach = |count: u64| {
        for (node, neighbor) in [("r1", P.to_string()), ("r2", "198.51.100.5".to_owned())] {
            let what = format!("{count} prefixes at {node}");
            let mut last = None;
            wait_until(&what, PATIENCE, || {
                let (held, received) = (held(&lab, node)?, received(&lab, node, &neighbor)?);
                if last != Some((held, received)) {
                    eprintln!("{node}: {held} held, {received} received");
                    last = Some((held, received));
                }
                (held == count && received == count).then_some(())
            });
            let neighbor = lab.neighbor(node, &neighbor).unwrap();
            for counter in ["treat_as_withdraw", "rejected", "flaps"] {
                assert_eq!(neighbor[counter], 0, "{counter} at {node}");
            }
        }
    };
    reach(PREFIXES);
    eprintln!("{PREFIXES} prefixes at r2 after {:?}", start.elapsed());

    octets.clear();
    let mut writer = UpdateWriter::withdraw(&mut octets, &context, Family::Ipv4Unicast);
    for prefix in table.values().flatten() {
        writer.push(0, *prefix);
    }
    writer.finish();
    let start = Instant::now();
    peer.send(&octets);
    reach(0);
    eprintln!("none after {:?}", start.elapsed());
}
