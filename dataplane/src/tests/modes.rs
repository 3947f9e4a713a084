//! Every encapsulation, underlay and segmentation that the kernel can do.

use std::process::Command as Process;

use weft_overlay::Encapsulation;
use weft_overlay::intent::TenantId;

use super::domain::{Domain, Mode};
use super::lab::privileged;
use super::segments::check_segments;
use super::{asked, counted};
use crate::bpf::has_tcx;
use crate::probe::{Probe, ProbeAnswer, probe};
use crate::status::Packet;

#[test]
fn tenants_with_one_prefix_talk_to_their_own_only_in_every_mode() {
    if !privileged() {
        return;
    }
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    println!("under Linux {release}");
    for mode in Mode::possible() {
        let domain = Domain::new(mode);
        let lab = &domain.lab;
        for host in ["red-b", "blue-b"] {
            lab.run(
                host,
                "nft 'add table inet t; add chain inet t i { type filter hook input priority 0; }; \
                 add rule inet t i icmp type echo-request counter; \
                 add rule inet t i icmpv6 type echo-request counter'",
            );
        }
        let mut expected = (0, 0);
        for (host, red, blue) in [("red-a", 10, 0), ("blue-a", 0, 10)] {
            for to in ["10.0.2.10", "2001:db8:10:2::10"] {
                assert!(domain.ping(host, to, 10), "{mode}: {host} to {to}");
                expected = (expected.0 + red, expected.1 + blue);
                let found = (asked(lab, "red-b"), asked(lab, "blue-b"));
                assert_eq!(found, expected, "{mode}: {host} to {to}");
            }
            // The router's own address answers in each tenant, and the other side's too.
            for to in ["10.0.1.1", "2001:db8:10:1::1"] {
                assert!(domain.ping(host, to, 1), "{mode}: {host} to {to}");
            }
            // What does not fit is reported, and what fits just so goes through.
            let mtu = 1500 - mode.overhead();
            let big = format!("ping -c 1 -W 2 -M do -s {} 10.0.2.10", mtu - 27);
            let output = lab.try_run(host, &big);
            let told = String::from_utf8_lossy(&output.stdout);
            assert!(told.contains(&format!("mtu = {mtu}")), "{mode}: {told}");
            // The host knows now; what it splits would say nothing.
            lab.run(host, "ip route flush cache");
            let most = format!("ping -c 1 -W 20 -M do -s {} 10.0.2.10", mtu - 28);
            lab.run(host, &most);
            lab.run(
                if host == "red-a" { "red-b" } else { "blue-b" },
                "nft reset counters >/dev/null",
            );
            expected = (asked(lab, "red-b"), asked(lab, "blue-b"));
            // No route in the tenant's table: no way out by the main one.
            assert!(!domain.ping(host, "198.51.100.2", 1), "{mode}: {host}");
        }
        check_live_trace(&domain);
        check_code_point(&domain);
        check_unknown_vni(&domain);
        check_segments(&domain);
        println!("pings: {mode}");
    }
}

/// The router itself asks through the overlay, and hears the destination.
fn check_live_trace(domain: &Domain) {
    for to in ["10.0.2.10", "2001:db8:10:2::10"] {
        let packet = Packet {
            destination: to.parse().unwrap(),
            source: None,
            dscp: 0,
        };
        let trace = domain.a.trace(TenantId(0), packet).unwrap();
        let asked = Probe {
            mark: trace.table,
            device: trace.vrf,
            source: trace.own.unwrap(),
            destination: packet.destination,
            dscp: 0,
            size: None,
        };
        let hops = domain.lab.inside("a", move || probe(&asked).unwrap());
        let answer = hops.last().unwrap().answer;
        assert_eq!(answer, ProbeAnswer::Reply, "{}: {hops:?}", domain.mode);
    }
}

#[test]
fn a_restart_changes_nothing_and_loses_nothing_in_every_mode() {
    if !privileged() {
        return;
    }
    for mode in Mode::possible() {
        let mut domain = Domain::new(mode);
        domain.middle.settle();
        let before = domain.middle.status();
        let ping = Process::new("ip")
            .args(["netns", "exec", &domain.lab.ns("red-a")])
            .args(["ping", "-c", "400", "-i", "0.002", "-q", "-W", "2"])
            .arg("10.0.2.10")
            .stdout(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        for _ in 0..2 {
            domain.middle.kill();
            domain.start_middle();
            domain.middle.apply(Domain::middle_intent(mode));
            domain.middle.settle();
            let status = domain.middle.status();
            // The classifier is put in the place of the old one, by netlink where the kernel has no tcx, and neighbour entries
            // are set again, those of two routers in two families; nothing else is sent.
            let classifier = if has_tcx() { 0 } else { 3 };
            let vxlan = mode.encapsulation == Encapsulation::Vxlan;
            let neighbours = match (vxlan, mode.v6) {
                (false, _) => 0,
                (true, false) => 4,
                // One gateway for both families.
                (true, true) => 2,
            };
            assert_eq!(
                (status.requests, status.refused.len()),
                (classifier + neighbours, 0),
                "{mode}: {status:?}"
            );
            assert_eq!(
                (status.vnis, status.routes, status.next_hops),
                (before.vnis, 12, before.next_hops),
                "{mode}: 8 tenant routes, 4 that end the tables"
            );
        }
        let output = ping.wait_with_output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(text.contains("400 received, 0%"), "{mode}: {text}");
    }
}

/// The outer header has the code point of the packet inside, which keeps its own.
fn check_code_point(domain: &Domain) {
    let (mode, lab) = (domain.mode, &domain.lab);
    let chain = "add table inet q; add chain inet q i { type filter hook prerouting priority 0; };";
    let places = [("m", "left"), ("b", "wan"), ("red-b", "eth0")];
    for (node, interface) in places {
        let rules = ["ip", "ip6"].map(|family| {
            format!("add rule inet q i iifname {interface} {family} dscp ef counter;")
        });
        lab.run(node, &format!("nft '{chain} {}'", rules.concat()));
    }
    for to in ["10.0.2.10", "2001:db8:10:2::10"] {
        let before = places.map(|(node, _)| counted(lab, node, "q"));
        // Once without, twice with: expedited forwarding, 46.
        lab.run("red-a", &format!("ping -c 1 -W 20 {to}"));
        lab.run("red-a", &format!("ping -c 2 -i 0.1 -W 20 -Q 184 {to}"));
        let after = places.map(|(node, _)| counted(lab, node, "q"));
        let seen: Vec<u32> = before.iter().zip(after).map(|(b, a)| a - b).collect();
        assert_eq!(seen, [2, 2, 2], "{mode}: {to}");
    }
}

/// What comes with a VNI that nobody has here goes nowhere, whatever the main table says.
fn check_unknown_vni(domain: &Domain) {
    let (mode, lab) = (domain.mode, &domain.lab);
    let device = domain.a.status().devices[0].name.clone();
    let (end, own, kind) = match mode.v6 {
        false => ("192.0.2.2", "192.0.2.1", "ip"),
        true => ("2001:db8::2", "2001:db8::1", "ip6"),
    };
    lab.run("m", "ip route add 203.0.113.9/32 via 198.51.100.6");
    lab.run("b", "ip addr add 203.0.113.9/32 dev lo; nft 'add table inet t; add chain inet t i { type filter hook input priority 0; }; add rule inet t i ip daddr 203.0.113.9 counter'");
    lab.run(
        "b",
        "ip route add 192.0.2.1/32 via 198.51.100.5; ip route add 198.51.100.0/30 via 198.51.100.5",
    );
    // By its own route it arrives: the way is there.
    lab.run("a", "ip route add 203.0.113.9/32 via 198.51.100.2");
    domain.wait_for_ping("a", "203.0.113.9");
    let before = asked(lab, "b");
    let via = match (mode.encapsulation, mode.v6) {
        (Encapsulation::Vxlan, false) => "via 192.0.2.2 onlink",
        (Encapsulation::Vxlan, true) => "via inet6 fe80::1:c000:202 onlink",
        _ => "",
    };
    lab.run(
        "a",
        &format!("ip route replace 203.0.113.9/32 encap {kind} id 10099 src {own} dst {end} key {via} dev {device}"),
    );
    lab.try_run("a", "ping -c 3 -i 0.02 -W 1 203.0.113.9");
    assert_eq!(asked(lab, "b"), before, "{mode}");
}

#[test]
fn somebody_deletes_what_is_ours_and_it_comes_back_in_every_mode() {
    if !privileged() {
        return;
    }
    for mode in Mode::possible() {
        let domain = Domain::new(mode);
        let before = domain.middle.status();
        let device = domain.middle.status().devices[0].name.clone();
        for damage in [
            "ip route flush table 1459627793".to_owned(),
            "ip nexthop flush".to_owned(),
            "ip rule del fwmark 0x57002711; ip -6 rule del fwmark 0x57002711".to_owned(),
            format!("ip link set {device} down"),
            format!("ip link del {device}"),
        ] {
            let repairs = domain.middle.status().repairs;
            domain.lab.run("m", &damage);
            domain.middle.wait(|status| {
                let same = status.routes == before.routes
                    && status.next_hops == before.next_hops
                    && status.rules == before.rules
                    && status.vnis == before.vnis
                    && status.refused.is_empty();
                status.repairs > repairs && same && status.devices.iter().all(|device| device.up)
            });
            for (host, to) in [("red-a", "10.0.2.10"), ("blue-a", "2001:db8:10:2::10")] {
                // The damage may go on while its beginning is repaired.
                domain.wait_for_ping(host, to);
            }
        }
    }
}
