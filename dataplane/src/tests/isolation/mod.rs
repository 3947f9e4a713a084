//! Packets by chance from four places where attackers stand, very many of them: none arrives where it should not.
//!
//! They are counted at each host by a packet socket, and in each router where the kernel hands them to itself, behind all walls. What a
//! test of one attack has to think of is here left to chance: tags, kinds, VNIs, addresses, options, fragments, packets inside packets.

mod packets;
mod wire;

use std::fmt::Write as _;

use weft_overlay::VniSet;
use weft_overlay::intent::{Breakout, TenantIntent};

use super::super::*;
use super::domain::{Domain, M, Mode, tenant, vni};
use super::lab::privileged;
use super::walls::mac_of;
use super::{counted, index};
use packets::{Frames, Origin, Place, RED, Target};
use wire::{Seen, Watch};

/// Packets from all places together, in each mode, and of those in a virtual machine; `WEFT_ISOLATION_PACKETS` says another number.
const PACKETS: usize = 200_000;
const PACKETS_EMULATED: usize = 10_000;

/// The hosts, and whose packets may come to each.
const HOSTS: [(&str, &[Origin]); 5] = [
    (
        "red-a",
        &[Origin::Host, Origin::HostInside, Origin::SpoofedRed],
    ),
    (
        "red-b",
        &[Origin::Host, Origin::HostInside, Origin::SpoofedRed],
    ),
    ("blue-a", &[]),
    ("blue-b", &[]),
    // On red's breakout, which red's far site uses too; the rest is an ordinary router's to forward.
    (
        "net",
        &[
            Origin::Host,
            Origin::HostInside,
            Origin::SpoofedRed,
            Origin::Stranger,
            Origin::Outside,
        ],
    ),
];

/// The domain with a way out for red at `a`, and an address in the underlay that has no role.
fn domain(mode: Mode, bpf: bool) -> Domain {
    let mut domain = match bpf {
        true => Domain::configured(mode, &|config| config.sender_grace = Duration::ZERO),
        false => Domain::configured(mode, &|config| {
            config.sender_grace = Duration::ZERO;
            config.faults.refuse_bpf();
        }),
    };
    domain.lab.add(&["net", "x"]);
    let links = [
        (
            ("a", "inet", "203.0.113.1/24"),
            ("net", "eth0", "203.0.113.9/24"),
        ),
        (
            ("a", "out", "198.51.100.9/30"),
            ("x", "eth0", "198.51.100.10/30"),
        ),
    ];
    let more = [
        (
            "a",
            "addr add fd00:3::1/64 dev out nodad\nroute add default via 203.0.113.9\nroute add default via fd00:3::2\n"
                .to_owned(),
        ),
        ("x", "addr add fd00:3::2/64 dev eth0 nodad\n".to_owned()),
    ];
    domain.lab.links(&links, &more);
    let (id, red) = tenant(0, "red", RED, Some("red0"));
    let breakout = Some(Breakout {
        interface: "inet".into(),
        source_nat: true,
    });
    let red = red.map(|red| TenantIntent { breakout, ..red });
    let only_red = VniSet::from_ranges([(vni(RED), vni(RED))]);
    domain.a.apply(IntentDelta {
        tenants: vec![(id, red)],
        senders: vec![(mode.endpoint(M), Some(only_red))],
        ..IntentDelta::default()
    });
    for router in [&domain.a, &domain.middle, &domain.b] {
        router.settle();
        assert_eq!(router.status().refused, [], "{mode}");
    }
    for node in ["a", "m", "b"] {
        count_at_home(&domain, node, bpf);
    }
    domain
}

/// Counts packets that a router takes for itself though they are not for it: table `bad`. What red says to its own routers is; the rest
/// of what has a mark of a place where red is not, or that is told to somebody else, is not.
fn count_at_home(domain: &Domain, node: &str, bpf: bool) {
    let mark = |origin: Origin| {
        let [one, two, three] = packets::MARK;
        // Behind the first 8 octets of what IP carries.
        format!(
            "@th,64,32 {:#x}",
            u32::from_be_bytes([one, two, three, origin as u8])
        )
    };
    let mut rules =
        "add table inet bad\nadd chain inet bad i { type filter hook input priority 300; }\n"
            .to_owned();
    for origin in [
        Origin::HostInside,
        Origin::StrangerInside,
        Origin::SpoofedOther,
        Origin::OutsideInside,
    ] {
        // Without BPF a known router may send every VNI.
        if origin == Origin::SpoofedOther && !bpf {
            continue;
        }
        let _ = writeln!(rules, "add rule inet bad i {} counter", mark(origin));
    }
    for origin in [Origin::Host, Origin::SpoofedRed] {
        let mark = mark(origin);
        let _ = writeln!(
            rules,
            "add rule inet bad i {mark} ip daddr != {{ 10.0.1.1, 10.0.2.1, 10.0.1.255, 10.0.2.255, 224.0.0.0/4, 255.255.255.255 }} counter
add rule inet bad i {mark} ip6 daddr != {{ 2001:db8:10:1::1, 2001:db8:10:2::1, fe80::/10, ff00::/8 }} counter"
        );
    }
    // What red's hosts say in the clear has no business in the underlay.
    if node != "a" {
        let interface = if node == "m" { "left" } else { "wan" };
        let _ = writeln!(
            rules,
            "add chain inet bad p {{ type filter hook prerouting priority -400; }}
add rule inet bad p iifname {interface} {} counter",
            mark(Origin::Host)
        );
    }
    let file = format!("printf '%s' '{rules}' | nft -f -");
    domain.lab.run(node, &file);
}

fn taken_at_home(domain: &Domain, node: &str) -> u32 {
    let forwarded = match node {
        "a" => 0,
        _ => {
            let text = domain.lab.run(node, "nft list chain inet bad p");
            let mut words = text.split("packets ").skip(1);
            let number = words.next().and_then(|rest| rest.split(' ').next());
            number.unwrap().parse().unwrap()
        }
    };
    counted(&domain.lab, node, "bad") + forwarded
}

fn number() -> usize {
    let said = std::env::var("WEFT_ISOLATION_PACKETS").ok();
    let usual = match std::env::var_os("WEFT_IN_VM") {
        Some(_) => PACKETS_EMULATED,
        None => PACKETS,
    };
    said.map_or(usual, |text| text.parse().expect("a number of packets"))
}

/// What came to a host that should not.
fn strays(host: &str, allowed: &[Origin], seen: &Seen, bpf: bool) -> String {
    let mut text = String::new();
    for ((mark, carried), count) in &seen.frames {
        let origin = Origin::ALL[usize::from(*mark) - 1];
        // Routers do not speak with each other past a breakout.
        let control = host == "net"
            && matches!(
                origin,
                Origin::Host | Origin::HostInside | Origin::SpoofedRed
            )
            && carried.control;
        // A router tells who sent a tunnel's packet what was wrong with it, and quotes it.
        let quoted = host == "net" && !carried.own;
        // Without BPF a known router may send every VNI, and what a host says in a tunnel's name is read by addresses alone.
        let known = !bpf && origin == Origin::SpoofedOther;
        if (allowed.contains(&origin) && !control) || known || quoted {
            continue;
        }
        let first = &seen.first[&(*mark, *carried)];
        let octets: String = first.iter().map(|octet| format!("{octet:02x}")).collect();
        let _ = writeln!(
            text,
            "{host}: {count} of {origin:?}, {carried:?}, the first {octets}"
        );
    }
    text
}

fn check(mode: Mode, bpf: bool, count: usize) {
    let domain = domain(mode, bpf);
    let lab = &domain.lab;
    let walls = if bpf { "BPF" } else { "nftables" };
    let what = format!("{mode}, {walls}");
    domain.wait_for_ping("red-a", "10.0.2.10");
    let inside = match mode.encapsulation {
        weft_overlay::Encapsulation::Vxlan => mac_of(lab, "a", "vx0"),
        _ => [2; 6],
    };
    let watches = HOSTS.map(|(host, _)| Watch::start(lab, host, index(lab, host, "eth0")));
    // Hosts are last: what answers to their connections is let in.
    for (seed, place) in (1..).zip(Place::ALL) {
        let (node, interface) = match place {
            Place::Host => ("red-a", "red0"),
            Place::Stranger | Place::Spoofed => ("x", "out"),
            Place::Outside => ("net", "inet"),
        };
        let target = Target {
            mode,
            mac: mac_of(lab, "a", interface),
            inside,
        };
        let mut frames = Frames::new(seed, place, target);
        let device = index(lab, node, "eth0");
        wire::send(lab, node, device, count / 4, move || frames.frame());
    }
    // What goes the same ways behind them has arrived.
    domain.wait_for_ping("red-a", "10.0.2.10");
    domain.wait_for_ping("red-b", "10.0.1.10");
    let mut bad = String::new();
    let mut arrived = [0; 9];
    for ((host, allowed), watch) in HOSTS.iter().zip(watches) {
        let seen = watch.stop();
        bad += &strays(host, allowed, &seen, bpf);
        if host.starts_with("red") {
            for ((mark, _), count) in &seen.frames {
                arrived[usize::from(*mark)] += count;
            }
        }
    }
    for node in ["a", "m", "b"] {
        let taken = taken_at_home(&domain, node);
        if taken > 0 {
            bad += &format!("{node} took {taken} for itself:\n");
            bad += &lab.run(node, "nft list table inet bad");
        }
    }
    assert!(bad.is_empty(), "{what}:\n{bad}");
    // They are such as arrive where they may.
    let of_hosts = arrived[Origin::Host as usize];
    let of_router = arrived[Origin::SpoofedRed as usize];
    assert!(of_hosts > 0 && of_router > 0, "{what}: {arrived:?}");
    println!(
        "isolated: {what}: {count} packets, {of_hosts} of red's host and {of_router} of the known router came to red, none elsewhere"
    );
}

#[test]
fn packets_by_chance_stay_where_they_belong_in_every_mode() {
    if !privileged() {
        return;
    }
    for mode in Mode::possible() {
        // Over IPv6 the kernel chooses where GRE comes from: who knows a VNI may send it (docs/security.md).
        if mode.v6 && mode.encapsulation == weft_overlay::Encapsulation::Gre {
            println!("not isolated: {mode}");
            continue;
        }
        check(mode, true, number());
        check(mode, false, number() / 4);
    }
}
