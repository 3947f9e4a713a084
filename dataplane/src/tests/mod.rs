//! The data plane on the real kernel, in network namespaces of its own.

mod domain;
mod lab;

use std::process::Command as Process;

use weft_overlay::Encapsulation;
use weft_overlay::intent::{GroupId, TenantRoute, UnderlayRoute};

use super::*;
use domain::{A, B, Domain, M, Mode, route, tenant};
use lab::{Lab, privileged};

/// Packets that a host was asked by, of both families.
fn asked(lab: &Lab, host: &str) -> u32 {
    counted(lab, host, "t")
}

/// Packets that the rules of a table counted.
fn counted(lab: &Lab, host: &str, table: &str) -> u32 {
    let text = lab.run(host, &format!("nft list chain inet {table} i"));
    let counts = text.split("packets ").skip(1);
    counts
        .map(|rest| rest.split(' ').next().unwrap().parse::<u32>().unwrap())
        .sum()
}

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
            let most = format!("ping -c 1 -W 2 -M do -s {} 10.0.2.10", mtu - 28);
            lab.run(host, &most);
            lab.run(
                if host == "red-a" { "red-b" } else { "blue-b" },
                "nft reset counters >/dev/null",
            );
            expected = (asked(lab, "red-b"), asked(lab, "blue-b"));
            // No route in the tenant's table: no way out by the main one.
            assert!(!domain.ping(host, "198.51.100.2", 1), "{mode}: {host}");
        }
        check_code_point(&domain);
        check_unknown_vni(&domain);
        println!("pings: {mode}");
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
            // The classifier is put in the place of the old one, and neighbour entries are set again, those of two routers
            // in two families; nothing else is sent.
            let vxlan = mode.encapsulation == Encapsulation::Vxlan;
            let neighbours = match (vxlan, mode.v6) {
                (false, _) => 0,
                (true, false) => 4,
                // One gateway for both families.
                (true, true) => 2,
            };
            assert_eq!(
                (status.requests, status.refused.len()),
                (3 + neighbours, 0),
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
        lab.run("red-a", &format!("ping -c 1 -W 2 {to}"));
        lab.run("red-a", &format!("ping -c 2 -i 0.1 -W 2 -Q 184 {to}"));
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
fn packets_are_counted_by_vni_and_router_and_a_restart_forgets_nothing() {
    if !privileged() {
        return;
    }
    let mode = Mode::PLAIN;
    let mut domain = Domain::new(mode);
    let count = |domain: &Domain, vni: u32, node: u8| {
        let traffic = domain.middle.traffic();
        let of = |one: &&Traffic| one.vni == vni && one.endpoint == mode.endpoint(node);
        traffic.iter().find(of).map_or((0, 0, 0, 0), |one| {
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

#[test]
fn leftovers_go_when_the_intent_is_whole_and_foreign_routes_never() {
    if !privileged() {
        return;
    }
    let mode = Mode::PLAIN;
    let mut domain = Domain::new(mode);
    domain.lab.run("m", "ip route add 203.0.113.0/24 via 198.51.100.1 table 999 && ip route add 203.0.113.0/24 via 198.51.100.1 && ip rule add pref 77 from 203.0.113.1 lookup 999");
    domain.middle.kill();
    domain.start_middle();
    let mut less = Domain::middle_intent(mode);
    less.tenants.pop();
    less.routes.retain(|route| route.tenant == TenantId(0));
    domain.middle.apply(less);
    assert_eq!(domain.middle.status().vnis, 2, "not before it is said");
    domain.middle.settle();
    let status = domain.middle.status();
    // Two sites, each with a group and a tunnel for either family.
    assert_eq!(
        (
            status.vnis,
            status.routes,
            status.next_hops,
            status.refused.len()
        ),
        (1, 6, 8, 0),
        "{status:?}"
    );
    assert!(domain.ping("red-a", "10.0.2.10", 2));
    let routes = domain.lab.run("m", "ip route show table all; ip rule");
    assert_eq!(routes.matches("203.0.113.0/24 via").count(), 2, "{routes}");
    assert!(routes.contains("from 203.0.113.1 lookup 999"));
    // And nothing of ours is left behind in the end.
    domain.middle.kill();
    domain.lab.inside("m", || {
        let report = teardown(PROTOCOL).unwrap();
        assert!(report.devices == 1 && report.routes == 6, "{report:?}");
        assert_eq!(teardown(PROTOCOL).unwrap(), TeardownReport::default());
    });
    let left = domain.lab.run(
        "m",
        "ip route show table all; ip rule; ip nexthop; ip link; nft list tables",
    );
    assert!(
        !left.contains("proto 87") && !left.contains("vx0") && !left.contains("table inet weft"),
        "{left}"
    );
    assert_eq!(left.matches("203.0.113.0/24 via").count(), 2);
    // Attachments are the operator's: they stay, without what looked at their packets.
    let filters = |domain: &Domain| {
        let show = "tc filter show dev red0 ingress; tc filter show dev red0 egress";
        domain.lab.run("a", show).matches("weft-").count()
    };
    assert_eq!(filters(&domain), 2);
    domain.a.kill();
    domain.lab.inside("a", || teardown(PROTOCOL).unwrap());
    assert_eq!(filters(&domain), 0);
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

/// Repaired from events within a second; here with what no route rests on, but packets do.
#[test]
fn a_neighbour_entry_and_a_vni_come_back() {
    if !privileged() {
        return;
    }
    let domain = Domain::new(Mode::PLAIN);
    for damage in [
        "ip neigh del 192.0.2.3 dev vx0 && ip -6 neigh del fe80::c000:203 dev vx0",
        "bridge vni delete dev vx0 vni 10001",
        // Another one of the same name: what routes lead to says something else.
        "id=$(ip nexthop show proto 87 | sed -n 's/^id \\([0-9]*\\) .*id 10001 .*dst 192.0.2.3 .*/\\1/p' | head -1); \
         ip nexthop replace id $id blackhole proto 87",
    ] {
        domain.lab.run("m", damage);
        let end = std::time::Instant::now() + Duration::from_secs(20);
        while !(domain.ping("red-a", "10.0.2.10", 2)
            && domain.ping("red-a", "2001:db8:10:2::10", 2))
        {
            assert!(std::time::Instant::now() < end, "{damage}");
        }
    }
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

/// Events may be lost; what is in the kernel is looked at all the same.
#[test]
fn an_audit_finds_what_no_event_told() {
    if !privileged() {
        return;
    }
    let lab = Lab::new(&["r"]);
    let config = DataplaneConfig {
        audit: Duration::from_millis(300),
        ..Mode::PLAIN.config(A)
    };
    let router = lab.start("r", config);
    router.apply(IntentDelta {
        tenants: vec![tenant(0, "red", 10001, None)],
        ..IntentDelta::default()
    });
    assert_eq!(router.status().refused, []);
    let filters = || {
        let ingress = lab.run("r", "tc filter show dev vx0 ingress");
        ingress.contains("weft-ingress")
            && lab
                .run("r", "tc filter show dev vx0 egress")
                .contains("weft-egress")
    };
    let forwards = || lab.run("r", "sysctl -n net.ipv4.ip_forward").trim() == "1";
    assert!(filters() && forwards());
    lab.run(
        "r",
        "tc qdisc del dev vx0 clsact; sysctl -qw net.ipv4.ip_forward=0",
    );
    let end = std::time::Instant::now() + Duration::from_secs(20);
    while !(filters() && forwards()) {
        assert!(std::time::Instant::now() < end);
    }
}

/// What a group stands for changes under its routes.
#[test]
fn a_next_hop_is_replaced_without_touching_routes() {
    if !privileged() {
        return;
    }
    const ROUTES: u32 = 500;
    let mode = Mode::PLAIN;
    let lab = Lab::new(&["r"]);
    let router = lab.start("r", mode.config(A));
    let prefix = |at: u32| format!("10.{}.{}.0/24", at >> 8, at & 0xff);
    router.apply(IntentDelta {
        tenants: vec![tenant(0, "red", 10001, None)],
        groups: vec![mode.group(7, 10001, &[M])],
        routes: (0..ROUTES).map(|at| route(0, &prefix(at), 7)).collect(),
        underlay: Vec::new(),
    });
    // The members of the group that the routes point to, by where their tunnels end.
    let ends = || -> Vec<String> {
        let route = lab.run("r", "ip route show table 1459627793 10.0.1.0/24");
        let id = route.split("nhid ").nth(1).unwrap();
        let id = id.split(' ').next().unwrap().to_owned();
        let group = lab.run("r", &format!("ip nexthop show id {id}"));
        let members = group.split("group ").nth(1).unwrap();
        let members = members.split(' ').next().unwrap().split('/');
        let mut ends: Vec<String> = members
            .map(|member| {
                let tunnel = lab.run("r", &format!("ip nexthop show id {member}"));
                let end = tunnel.split("dst ").nth(1).unwrap();
                end.split(' ').next().unwrap().to_owned()
            })
            .collect();
        ends.sort_unstable();
        ends
    };
    let before = router.status();
    assert_eq!(before.refused, []);
    assert_eq!(ends(), ["192.0.2.2"]);
    for (nodes, wanted) in [
        (&[B][..], &["192.0.2.3"][..]),
        (&[M, B], &["192.0.2.2", "192.0.2.3"]),
        (&[M], &["192.0.2.2"]),
    ] {
        let sent = router.status().requests;
        router.apply(IntentDelta {
            groups: vec![mode.group(7, 10001, nodes)],
            ..IntentDelta::default()
        });
        let status = router.status();
        assert!(status.requests - sent <= 5, "{}", status.requests - sent);
        assert_eq!(ends(), wanted);
        assert_eq!(status.routes, before.routes);
    }
    // Where one way at a time is in use there is one object, and one message.
    let prefix2 = |at: u32| format!("10.{}.{}.0/24", 100 + (at >> 8), at & 0xff);
    router.apply(IntentDelta {
        groups: vec![mode.slot(8, 10001, M)],
        routes: (0..ROUTES).map(|at| route(0, &prefix2(at), 8)).collect(),
        ..IntentDelta::default()
    });
    let end = || {
        let route = lab.run("r", "ip route show table 1459627793 10.100.1.0/24");
        let id = route.split("nhid ").nth(1).unwrap();
        let id = id.split(' ').next().unwrap().to_owned();
        let tunnel = lab.run("r", &format!("ip nexthop show id {id}"));
        (id, tunnel.split("dst ").nth(1).unwrap()[..9].to_owned())
    };
    let (object, first) = end();
    assert_eq!(first, "192.0.2.2");
    for (node, to) in [(B, "192.0.2.3"), (M, "192.0.2.2"), (B, "192.0.2.3")] {
        let sent = router.status().requests;
        router.apply(IntentDelta {
            groups: vec![mode.slot(8, 10001, node)],
            ..IntentDelta::default()
        });
        assert_eq!(router.status().requests - sent, 1);
        assert_eq!(end(), (object.clone(), to.to_owned()));
    }
    router.apply(IntentDelta {
        groups: vec![(GroupId(8), None)],
        routes: (0..ROUTES)
            .map(|at| TenantRoute {
                group: None,
                ..route(0, &prefix2(at), 8)
            })
            .collect(),
        ..IntentDelta::default()
    });
    // A group that is gone takes its objects along, once nothing uses it.
    router.settle();
    router.apply(IntentDelta {
        groups: vec![(GroupId(7), None)],
        routes: (0..ROUTES)
            .map(|at| TenantRoute {
                group: None,
                ..route(0, &prefix(at), 7)
            })
            .collect(),
        ..IntentDelta::default()
    });
    let status = router.status();
    assert_eq!((status.next_hops, status.routes), (0, 1), "{status:?}");
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

#[test]
fn a_refused_route_says_what_the_kernel_says() {
    if !privileged() {
        return;
    }
    let lab = Lab::new(&["r"]);
    let router = lab.start("r", DataplaneConfig::default());
    let underlay = |prefix: &str, via: [u8; 4]| UnderlayRoute {
        prefix: prefix.parse().unwrap(),
        via: vec![via.into()],
    };
    router.apply(IntentDelta {
        underlay: vec![underlay("203.0.113.0/24", [198, 51, 100, 9])],
        ..IntentDelta::default()
    });
    let status = router.status();
    assert_eq!(status.refused.len(), 1);
    assert!(
        status.refused[0].error.contains("unreachable"),
        "{:?}",
        status.refused
    );
    // It is taken as soon as it can be.
    lab.run("r", "ip link add wan type veth peer name far && ip addr add 198.51.100.1/24 dev wan && ip link set wan up && ip link set far up");
    router.wait(|status| status.refused.is_empty());
    assert!(
        lab.run("r", "ip route")
            .contains("203.0.113.0/24 via 198.51.100.9 dev wan proto 87")
    );
}

/// Routes come and go by the thousand while packets pass; in the end the kernel holds what was asked for last.
#[test]
fn churn_under_traffic_ends_in_equality() {
    if !privileged() {
        return;
    }
    const ROUNDS: u32 = 40;
    const ROUTES: u32 = 5000;
    let domain = Domain::new(Mode::PLAIN);
    let ping = Process::new("ip")
        .args(["netns", "exec", &domain.lab.ns("red-a")])
        .args(["ping", "-c", "1000", "-i", "0.002", "-q", "-W", "2"])
        .arg("10.0.2.10")
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    // A sequence without a pattern, the same every time (Numerical Recipes' generator).
    let mut state = 1u32;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        state >> 8
    };
    let mut wanted: std::collections::BTreeMap<String, bool> = std::collections::BTreeMap::new();
    for _ in 0..ROUNDS {
        let mut routes = Vec::new();
        for _ in 0..ROUTES {
            let (at, there) = (next() % 20_000, next() % 3 > 0);
            let prefix = format!("172.{}.{}.0/24", 16 + (at >> 8), at & 0xff);
            // Red's groups of the two sites, by turns.
            let mut change = route(0, &prefix, 1 + next() % 2);
            change.group = change.group.filter(|_| there);
            routes.push(change);
            wanted.insert(prefix, there);
        }
        domain.middle.apply(IntentDelta {
            routes,
            ..IntentDelta::default()
        });
    }
    let status = domain.middle.status();
    assert_eq!(status.refused, []);
    let held = domain.lab.run(
        "m",
        "ip route show table 1459627793 proto 87 | grep ^172 | cut -d' ' -f1",
    );
    let mut held: Vec<&str> = held.lines().collect();
    held.sort_unstable();
    let wanted: Vec<&str> = wanted
        .iter()
        .filter(|(_, there)| **there)
        .map(|(prefix, _)| prefix.as_str())
        .collect();
    assert!(wanted.len() > 10_000);
    assert_eq!(held, wanted);
    let output = ping.wait_with_output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(text.contains("1000 received, 0%"), "{text}");
}

/// The tunnel's MTU follows the underlay's: what fits just so passes unfragmented, one octet more is told, TCP flows.
#[test]
fn every_mtu_from_1280_to_9000() {
    if !privileged() {
        return;
    }
    let mode = Mode::PLAIN;
    let domain = Domain::new(mode);
    let lab = &domain.lab;
    domain.a.track(vec![mode.endpoint(M)]);
    domain.b.track(vec![mode.endpoint(M)]);
    domain
        .middle
        .track(vec![mode.endpoint(A), mode.endpoint(B)]);
    // Hosts with jumbo frames: nothing but the tunnel is narrow.
    for (node, interface) in [
        ("a", "red0"),
        ("b", "red0"),
        ("red-a", "eth0"),
        ("red-b", "eth0"),
    ] {
        lab.run(node, &format!("ip link set {interface} mtu 9000"));
    }
    for mtu in [1280, 1400, 1500, 1550, 4000, 9000, 1500] {
        for (node, interface) in [("a", "wan"), ("m", "left"), ("m", "right"), ("b", "wan")] {
            lab.run(node, &format!("ip link set {interface} mtu {mtu}"));
        }
        let inner = mtu - mode.overhead();
        for router in [&domain.a, &domain.middle, &domain.b] {
            router.wait(|status| status.devices[0].mtu == inner);
        }
        let ping = |size: u32| {
            lab.run("red-a", "ip route flush cache");
            let command = format!("ping -c 1 -W 2 -M do -s {size} 10.0.2.10");
            lab.try_run("red-a", &command)
        };
        domain.wait_for_ping("red-a", "10.0.2.10");
        assert!(ping(inner - 28).status.success(), "{mtu}");
        let told = ping(inner - 27);
        let told = String::from_utf8_lossy(&told.stdout).into_owned();
        assert!(told.contains(&format!("mtu = {inner}")), "{mtu}: {told}");
        let listener = lab.inside("red-b", || {
            std::net::TcpListener::bind("10.0.2.10:0").unwrap()
        });
        let address = listener.local_addr().unwrap();
        let mut client = lab.inside("red-a", move || {
            std::net::TcpStream::connect(address).unwrap()
        });
        let (mut server, _) = listener.accept().unwrap();
        for stream in [&client, &server] {
            let patience = Some(Duration::from_secs(20));
            stream.set_read_timeout(patience).unwrap();
        }
        let sender = std::thread::spawn(move || {
            std::io::Write::write_all(&mut client, &vec![7; 300_000]).unwrap();
        });
        let mut received = Vec::new();
        std::io::Read::read_to_end(&mut server, &mut received).unwrap();
        sender.join().unwrap();
        assert_eq!(received.len(), 300_000, "{mtu}");
    }
    // A device narrower than 1280 octets has no IPv6; a wide one has it again.
    domain.wait_for_ping("red-a", "2001:db8:10:2::10");
}

/// A link of the underlay goes and comes back: so do the packets.
#[test]
fn a_flapping_link_leaves_nothing_behind() {
    if !privileged() {
        return;
    }
    let domain = Domain::new(Mode::PLAIN);
    let before = domain.middle.status();
    for _ in 0..5 {
        domain.lab.run("m", "ip link set left down");
        domain.lab.run("m", "ip link set left up");
        // An operator's routes go with the link, and are set again.
        domain
            .lab
            .run("m", "ip route replace 192.0.2.1/32 via 198.51.100.1");
    }
    domain.wait_for_ping("red-a", "10.0.2.10");
    let after = domain.middle.status();
    assert_eq!(
        (
            after.routes,
            after.next_hops,
            after.rules,
            after.vnis,
            after.refused.len()
        ),
        (
            before.routes,
            before.next_hops,
            before.rules,
            before.vnis,
            0
        )
    );
}

#[test]
fn a_foreign_route_in_our_place_is_named_by_its_owner_and_stays() {
    if !privileged() {
        return;
    }
    let mode = Mode::PLAIN;
    let lab = Lab::new(&["r"]);
    let router = lab.start("r", mode.config(A));
    lab.run("r", "ip link add x type veth peer name y && ip addr add 198.51.100.1/24 dev x && ip link set x up && ip link set y up");
    let foreign = "10.0.2.0/24 via 198.51.100.9 dev x proto bird";
    lab.run("r", &format!("ip route add {foreign} table 1459627793"));
    router.apply(IntentDelta {
        tenants: vec![tenant(0, "red", 10001, None)],
        groups: vec![mode.group(7, 10001, &[M])],
        routes: vec![route(0, "10.0.2.0/24", 7), route(0, "10.0.3.0/24", 7)],
        underlay: Vec::new(),
    });
    let status = router.status();
    let errors: Vec<&str> = status.refused.iter().map(|of| of.error.as_str()).collect();
    assert_eq!(errors.len(), 1, "{status:?}");
    assert!(
        errors[0].contains("a route of protocol 12 stands there"),
        "{errors:?}"
    );
    router.settle();
    let held = lab.run("r", "ip route show table 1459627793");
    assert!(
        held.contains("10.0.2.0/24 via 198.51.100.9 dev x proto bird"),
        "{held}"
    );
    lab.run("r", &format!("ip route del {foreign} table 1459627793"));
    router.wait(|status| status.refused.is_empty());
}

/// More than the kernel's send buffer holds goes in pieces.
#[test]
fn a_table_of_thousands_arrives_whole_and_goes_whole() {
    if !privileged() {
        return;
    }
    const COUNT: u32 = 20_000;
    let lab = Lab::new(&["r", "far"]);
    lab.link(
        ("r", "wan", "198.51.100.1/30"),
        ("far", "wan", "198.51.100.2/30"),
    );
    lab.run(
        "r",
        "ip addr add 192.0.2.1/32 dev lo; ip route add 192.0.2.2/32 via 198.51.100.2",
    );
    let router = lab.start("r", Mode::PLAIN.config(A));
    let prefix = |at: u32| format!("10.{}.{}.0/24", at >> 8, at & 0xff);
    let routes = || (0..COUNT).map(|at| route(0, &prefix(at), 7));
    router.apply(IntentDelta {
        tenants: vec![tenant(0, "red", 10001, None)],
        groups: vec![Mode::PLAIN.group(7, 10001, &[M])],
        routes: routes().collect(),
        underlay: Vec::new(),
    });
    assert_eq!(router.status().refused, []);
    let held = || {
        let table = 0x5700_0000u32 + 10001;
        let list = format!("ip route show table {table} proto 87 | grep -c ^10 || true");
        lab.run("r", &list).trim().parse::<u32>().unwrap()
    };
    assert_eq!(held(), COUNT);
    let gone = |mut route: TenantRoute| {
        route.group = None;
        route
    };
    router.apply(IntentDelta {
        routes: routes().map(gone).collect(),
        ..IntentDelta::default()
    });
    assert_eq!(router.status().refused, []);
    assert_eq!(held(), 0);
}

#[test]
fn links_and_reachability_are_reported() {
    if !privileged() {
        return;
    }
    let lab = Lab::new(&["r", "h"]);
    lab.link(("r", "red0", "10.0.1.1/24"), ("h", "eth0", "10.0.1.10/24"));
    let router = lab.start("r", Mode::PLAIN.config(A));
    router.apply(IntentDelta {
        tenants: vec![tenant(0, "red", 10001, Some("red0"))],
        ..IntentDelta::default()
    });
    router.wait_for(|event| {
        *event
            == DataplaneEvent::Attachment {
                name: "red0".into(),
                up: true,
            }
    });
    router.track(vec![[198, 51, 100, 9].into()]);
    router.wait_for(|event| {
        *event == DataplaneEvent::Reachability(vec![([198, 51, 100, 9].into(), None)])
    });
    lab.run("r", "ip route add 198.51.100.0/24 via 10.0.1.10 metric 7");
    router.wait_for(|event| {
        *event == DataplaneEvent::Reachability(vec![([198, 51, 100, 9].into(), Some(7))])
    });
    // And in IPv6.
    let far: IpAddr = "2001:db8:7::9".parse().unwrap();
    router.track(vec![far]);
    router.wait_for(move |event| *event == DataplaneEvent::Reachability(vec![(far, None)]));
    lab.run("r", "ip addr add fd00:7::1/64 dev red0 nodad && ip route add 2001:db8:7::/64 via fd00:7::2 metric 9");
    router.wait_for(move |event| *event == DataplaneEvent::Reachability(vec![(far, Some(9))]));
    lab.run("h", "ip link set eth0 down");
    router.wait_for(|event| {
        *event
            == DataplaneEvent::Attachment {
                name: "red0".into(),
                up: false,
            }
    });
    lab.run("h", "ip link set eth0 up");
    router.wait_for(|event| {
        *event
            == DataplaneEvent::Attachment {
                name: "red0".into(),
                up: true,
            }
    });
}
