//! Tenants: kept from each other, counted, and what they announce.

use weft_overlay::Encapsulation;

use super::super::*;
use super::asked;
use super::domain::{A, B, Domain, Mode, tenant};
use super::lab::{Lab, privileged};

#[test]
fn packets_are_counted_by_vni_and_router_and_a_restart_forgets_nothing() {
    if !privileged() {
        return;
    }
    let mode = Mode::PLAIN;
    let mut domain = Domain::new(mode);
    let count = |domain: &Domain, vni: u32, node: u8| {
        let traffic = domain.middle.traffic();
        let each = |one: &&Traffic| one.vni == vni && one.endpoint == mode.endpoint(node);
        traffic.iter().find(each).map_or((0, 0, 0, 0), |one| {
            let packets = (one.received_packets, one.sent_packets);
            (packets.0, one.received_octets, packets.1, one.sent_octets)
        })
    };
    // Octets of an echo with its Ethernet header, which VXLAN carries, and without.
    const LEN: u64 = 98;
    for (host, vni, other) in [("red-a", 10001, 10002), ("blue-a", 10002, 10001)] {
        let (a, b) = (count(&domain, vni, A), count(&domain, vni, B));
        let untouched = (count(&domain, other, A), count(&domain, other, B));
        assert!(domain.ping(host, "10.0.2.10", 10));
        let (after_a, after_b) = (count(&domain, vni, A), count(&domain, vni, B));
        for (before, after) in [(a, after_a), (b, after_b)] {
            let received = (after.0 - before.0, after.1 - before.1);
            let sent = (after.2 - before.2, after.3 - before.3);
            assert_eq!((received.0, sent.0), (10, 10), "{host}");
            assert_eq!((received.1 / 10, sent.1 / 10), (LEN, LEN), "{host}");
        }
        assert_eq!(
            untouched,
            (count(&domain, other, A), count(&domain, other, B))
        );
    }
    let before = count(&domain, 10001, A);
    domain.middle.kill();
    domain.start_middle();
    assert_eq!(count(&domain, 10001, A), before);
}

#[test]
fn hundreds_of_tenants_cost_a_packet_no_more_rules() {
    if !privileged() {
        return;
    }
    const MORE: u32 = 300;
    let mode = Mode::PLAIN;
    let domain = Domain::new(mode);
    domain.middle.settle();
    let flat = domain.middle.status().rules;
    let many = |there: bool| IntentDelta {
        tenants: (0..MORE)
            .map(|at| {
                let (id, intent) = tenant(10 + at, &format!("t{at}"), 20_000 + at, None);
                (id, intent.filter(|_| there))
            })
            .collect(),
        ..IntentDelta::default()
    };
    domain.middle.apply(many(true));
    let status = domain.middle.status();
    assert_eq!(status.refused, []);
    // For IPv4: the first, two ends, 255 branches, 256 ends of buckets, a rule a tenant, and one a device. For IPv6,
    // which two have: a rule each, one for all the others, and one a device.
    let rules = 3 + 255 + 256 + MORE as usize + 2 + 1 + (2 + 1 + 1);
    assert_eq!((status.rules, status.vnis), (rules, 302));
    for host in ["red-a", "blue-a"] {
        for to in ["10.0.2.10", "2001:db8:10:2::10"] {
            assert!(domain.ping(host, to, 2), "{host} to {to}");
        }
    }
    // The underlay's own packets pass by.
    domain
        .lab
        .run("b", "ip route add 198.51.100.0/30 via 198.51.100.5");
    assert!(domain.ping("b", "198.51.100.2", 2));
    domain.middle.apply(many(false));
    assert_eq!(domain.middle.status().rules, flat);
    assert!(domain.ping("red-a", "10.0.2.10", 2));
}

/// The second wall: a packet that carries one tenant's mark does not leave by another's attachment, whatever routes say.
#[test]
fn packets_do_not_cross_from_tenant_to_tenant() {
    if !privileged() {
        return;
    }
    let domain = Domain::new(Mode::PLAIN);
    let lab = &domain.lab;
    lab.run("blue-a", "ip addr add 203.0.113.7/32 dev lo; nft 'add table inet t; add chain inet t i { type filter hook input priority 0; }; add rule inet t i ip daddr 203.0.113.7 counter'");
    // Somebody leads red's packets to blue's host.
    lab.run(
        "a",
        "ip route add 203.0.113.7/32 via 10.0.1.10 dev blue0 table 1459627793",
    );
    lab.try_run("red-a", "ping -c 3 -i 0.05 -W 1 203.0.113.7");
    lab.try_run("red-b", "ping -c 1 -W 1 203.0.113.7");
    assert_eq!(asked(lab, "blue-a"), 0);
    // The same way is open to blue.
    lab.run(
        "a",
        "ip route add 203.0.113.7/32 via 10.0.1.10 dev blue0 table 1459627794",
    );
    lab.try_run("a", "ping -c 1 -W 1 -m 1459627794 203.0.113.7");
    assert!(asked(lab, "blue-a") > 0);
}

#[test]
fn routes_of_other_protocols_are_announced_as_they_come_and_go() {
    if !privileged() {
        return;
    }
    for vrf in [false, true] {
        let mode = Mode { vrf, ..Mode::PLAIN };
        if !Mode::possible().contains(&mode) {
            continue;
        }
        let lab = Lab::new(&["r", "h"]);
        lab.link(("r", "red0", "10.0.1.1/24"), ("h", "eth0", "10.0.1.10/24"));
        let router = lab.start("r", mode.config(A));
        router.apply(IntentDelta {
            tenants: vec![tenant(0, "red", 10001, Some("red0"))],
            ..IntentDelta::default()
        });
        router.redistribute(TenantId(0), true, &[188]);
        let said = |prefix: &'static str, present| {
            let wanted = DataplaneEvent::Redistributed {
                tenant: TenantId(0),
                prefix: prefix.parse().unwrap(),
                present,
            };
            router.wait_for(move |event| *event == wanted);
        };
        said("10.0.1.0/24", true);
        let table = if vrf { "vrf vrf-10001" } else { "" };
        for (prefix, protocol) in [("10.7.0.0/16", "ospf"), ("10.8.0.0/16", "static")] {
            let words = format!("{prefix} via 10.0.1.10 dev red0 proto {protocol} {table}");
            lab.run("r", &format!("ip route add {words}"));
            said(prefix, true);
            lab.run("r", &format!("ip route del {words}"));
            said(prefix, false);
        }
        // A protocol that was not asked for.
        lab.run(
            "r",
            &format!("ip route add 10.9.0.0/16 via 10.0.1.10 dev red0 proto 189 {table}"),
        );
        lab.run(
            "r",
            &format!("ip route add 10.10.0.0/16 via 10.0.1.10 dev red0 proto 188 {table}"),
        );
        router.wait_for(|event| match event {
            DataplaneEvent::Redistributed { prefix, .. } => {
                assert_ne!(prefix.to_string(), "10.9.0.0/16");
                prefix.to_string() == "10.10.0.0/16"
            }
            _ => false,
        });
    }
}

/// An address of the router belongs to the tenants whose attachments have it, and to nobody else.
#[test]
fn the_routers_addresses_belong_to_their_tenants() {
    if !privileged() {
        return;
    }
    for vrf in [false, true] {
        let mode = Mode { vrf, ..Mode::PLAIN };
        if !Mode::possible().contains(&mode) {
            continue;
        }
        let domain = Domain::new(mode);
        let lab = &domain.lab;
        lab.run(
            "a",
            "ip addr add 10.9.9.1/24 dev blue0; ip addr add 2001:db8:9::1/64 dev blue0 nodad; \
             ip addr add 203.0.113.1/32 dev lo; ip route add local 203.0.113.64/26 dev lo; \
             ip route add local 203.0.113.2/32 dev lo",
        );
        for own in ["10.9.9.1", "2001:db8:9::1"] {
            domain.wait_for_ping("blue-a", own);
            assert!(!domain.ping("red-a", own, 1), "{mode}: {own}");
        }
        // What is the router's own and no tenant's: an address, and what is led to it, one or many.
        for own in ["203.0.113.1", "203.0.113.2", "203.0.113.70", "198.51.100.1"] {
            for host in ["red-a", "blue-a"] {
                assert!(!domain.ping(host, own, 1), "{mode}: {host} to {own}");
            }
        }
        if !mode.vrf {
            let drops = domain.a.status().drops.unwrap();
            assert!(drops.foreign_address >= 2, "{mode}: {drops:?}");
        }
    }
}

/// A tenant's host may have an address that the router has for another tenant.
#[test]
fn a_host_with_an_address_of_another_tenants_router_is_no_martian() {
    if !privileged() {
        return;
    }
    let domain = Domain::new(Mode::PLAIN);
    let lab = &domain.lab;
    lab.run("a", "ip addr add 10.7.7.7/32 dev blue0");
    lab.run("red-b", "ip addr add 10.7.7.7/32 dev lo");
    lab.run("red-a", "nft 'add table inet t; add chain inet t i { type filter hook input priority 0; }; add rule inet t i ip saddr 10.7.7.7 counter'");
    lab.try_run("red-b", "ping -c 2 -i 0.1 -W 1 -I 10.7.7.7 10.0.1.10");
    assert_eq!(asked(lab, "red-a"), 2);
}

/// The underlay marks packets anew: what the tenant gets is what the router's configuration says.
#[test]
fn the_underlays_code_point_comes_in_where_it_is_asked_for() {
    if !privileged() {
        return;
    }
    // With an Ethernet header before the packet, and without.
    for encapsulation in [Encapsulation::Vxlan, Encapsulation::VxlanGpe] {
        let mode = Mode {
            encapsulation,
            ..Mode::PLAIN
        };
        for (code_point, comes_in) in [(CodePoint::Pipe, false), (CodePoint::Uniform, true)] {
            let mut domain = Domain::new(mode);
            domain.b.kill();
            let config = DataplaneConfig {
                code_point,
                ..mode.config(B)
            };
            domain.b = domain.lab.start("b", config);
            domain.b.apply(domain.intent_of_b());
            assert_eq!(domain.b.status().refused, []);
            let lab = &domain.lab;
            let outer = if mode.v6 { "ip6" } else { "ip" };
            lab.run("m", &format!("nft 'add table inet q; add chain inet q o {{ type filter hook output priority mangle; }}; add rule inet q o oifname right {outer} dscp set cs5'"));
            let chain =
                "add table inet t; add chain inet t i { type filter hook prerouting priority 0; }";
            lab.run("red-b", &format!("nft '{chain}; add rule inet t i icmp type echo-request ip dscp cs5 counter; add rule inet t i icmpv6 type echo-request ip6 dscp cs5 counter'"));
            // Answers come where checksums are right.
            for (to, class) in [("10.0.2.10", "-Q 0x21"), ("2001:db8:10:2::10", "-Q 0x21")] {
                let ping = format!("ping -c 3 -i 0.05 -W 20 -q {class} {to}");
                let output = lab.try_run("red-a", &ping);
                assert!(output.status.success(), "{mode}: {to}");
            }
            let expected = if comes_in { 6 } else { 0 };
            assert_eq!(asked(lab, "red-b"), expected, "{mode}, {code_point:?}");
        }
    }
}
