//! Tenants' way to the Internet past the overlay.

use weft_overlay::intent::Breakout;

use super::super::*;
use super::asked;
use super::domain::{A, B, Mode, route, tenant};
use super::lab::{Lab, privileged};

fn with_breakout(
    id: u32,
    name: &str,
    vni: u32,
) -> (TenantId, Option<weft_overlay::intent::TenantIntent>) {
    let attachment = format!("{name}0");
    let (id, intent) = tenant(id, name, vni, Some(&attachment));
    let breakout = Some(Breakout {
        interface: "inet".into(),
        source_nat: true,
    });
    (
        id,
        intent.map(|intent| weft_overlay::intent::TenantIntent { breakout, ..intent }),
    )
}

/// Two tenants with the same addresses, and one without a way out; a far router whose site leaves here too.
#[test]
fn tenants_leave_for_the_internet_side_by_side_in_every_mode() {
    if !privileged() {
        return;
    }
    for vrf in [false, true] {
        let mode = Mode { vrf, ..Mode::PLAIN };
        if !Mode::possible().contains(&mode) {
            continue;
        }
        let lab = Lab::new(&["a", "b", "net", "red", "blue", "green", "far"]);
        lab.link(
            ("a", "wan", "198.51.100.1/30"),
            ("b", "wan", "198.51.100.2/30"),
        );
        lab.link(
            ("a", "inet", "203.0.113.1/24"),
            ("net", "eth0", "203.0.113.9/24"),
        );
        for host in ["red", "blue", "green"] {
            let interface = format!("{host}0");
            lab.link(
                ("a", &interface, "10.0.1.1/24"),
                (host, "eth0", "10.0.1.10/24"),
            );
            lab.run(host, "ip route add default via 10.0.1.1");
        }
        lab.link(
            ("b", "red0", "10.0.2.1/24"),
            ("far", "eth0", "10.0.2.10/24"),
        );
        lab.run("far", "ip route add default via 10.0.2.1");
        lab.run("a", "ip addr add 192.0.2.1/32 dev lo; ip route add default via 203.0.113.9; ip route add 192.0.2.3/32 via 198.51.100.2");
        lab.run(
            "b",
            "ip addr add 192.0.2.3/32 dev lo; ip route add 192.0.2.1/32 via 198.51.100.1",
        );
        lab.run("net", "ip addr add 192.0.2.99/32 dev lo; nft 'add table inet t; add chain inet t i { type filter hook input priority 0; }; add rule inet t i icmp type echo-request ip saddr 203.0.113.1 counter; add rule inet t i icmp type echo-request ip saddr != 203.0.113.1 counter drop'");
        let a = lab.start("a", mode.config(A));
        let b = lab.start("b", mode.config(B));
        let mut intent = IntentDelta {
            tenants: vec![
                with_breakout(0, "red", 10001),
                with_breakout(1, "blue", 10002),
                tenant(2, "green", 10003, Some("green0")),
            ],
            groups: vec![mode.group(7, 10001, &[B])],
            routes: vec![route(0, "10.0.2.0/24", 7)],
            ..IntentDelta::default()
        };
        a.apply(intent.clone());
        b.apply(IntentDelta {
            tenants: vec![tenant(0, "red", 10001, Some("red0"))],
            groups: vec![mode.group(7, 10001, &[A])],
            routes: vec![route(0, "0.0.0.0/0", 7)],
            ..IntentDelta::default()
        });
        for router in [&a, &b] {
            assert_eq!(router.status().refused, [], "{mode}");
        }
        let ping = |host: &str, to: &str, more: &str| {
            let command = format!("ping -c 10 -i 0.05 -W 1 -q {more} {to}");
            lab.try_run(host, &command)
        };
        let end = std::time::Instant::now() + Duration::from_secs(20);
        while !ping("far", "192.0.2.99", "").status.success() {
            assert!(std::time::Instant::now() < end, "{mode}: from the far site");
        }
        // At the same time, with the same identifier: what tells them apart is their zone. Every pair begins two connections that
        // differ in nothing but the tenant.
        for identifier in 7..27 {
            std::thread::scope(|scope| {
                let pings = ["red", "blue"].map(|host| {
                    let ping = &ping;
                    scope.spawn(move || ping(host, "192.0.2.99", &format!("-c 2 -e {identifier}")))
                });
                for each in pings {
                    let output = each.join().unwrap();
                    let told = String::from_utf8_lossy(&output.stdout).into_owned();
                    assert!(told.contains("2 received"), "{mode}: {told}");
                }
            });
        }
        // Nobody else leaves, and nobody leaves elsewhere: the main table leads to the underlay too.
        assert!(!ping("green", "192.0.2.99", "").status.success(), "{mode}");
        let before = asked(&lab, "net");
        assert!(before >= 20, "{mode}: {before}");
        for host in ["red", "blue", "far"] {
            assert!(
                !ping(host, "198.51.100.2", "").status.success(),
                "{mode}: {host}"
            );
        }
        let sources = lab.run("net", "nft list chain inet t i");
        assert!(
            sources.contains("packets 0 bytes 0 drop"),
            "{mode}: {sources}"
        );
        // Without it, red ends at its table again.
        intent.tenants[0] = tenant(0, "red", 10001, Some("red0"));
        a.apply(intent);
        assert_eq!(a.status().refused, []);
        assert!(!ping("red", "192.0.2.99", "").status.success(), "{mode}");
        assert!(ping("blue", "192.0.2.99", "").status.success(), "{mode}");
        println!("breakout: {mode}");
    }
}

/// A router with a tenant's host, and a host on the link of the breakout, which is the uplink too and knows the tenant's prefix.
pub(super) fn uplink() -> Lab {
    let lab = Lab::new(&["a", "net", "red"]);
    lab.link(
        ("a", "inet", "203.0.113.1/24"),
        ("net", "eth0", "203.0.113.9/24"),
    );
    lab.link(
        ("a", "red0", "10.0.1.1/24"),
        ("red", "eth0", "10.0.1.10/24"),
    );
    lab.run("red", "ip route add default via 10.0.1.1");
    lab.run(
        "a",
        "ip addr add 192.0.2.1/32 dev lo; ip route add default via 203.0.113.9",
    );
    lab.run("net", "ip addr add 192.0.2.99/32 dev lo; ip route add 10.0.0.0/8 via 203.0.113.1; ip route add 192.0.2.1/32 via 203.0.113.1");
    lab
}

/// The same, with private sources counted on that link.
fn way_out() -> Lab {
    let lab = uplink();
    lab.run("net", "nft 'add table inet t; add chain inet t i { type filter hook input priority 0; }; add rule inet t i icmp type echo-request ip saddr 203.0.113.1 counter; add rule inet t i icmp type echo-request ip saddr != 203.0.113.1 counter drop'");
    lab
}

fn leaves(lab: &Lab) -> bool {
    let ping = lab.try_run("red", "ping -c 1 -W 1 -q 192.0.2.99");
    ping.status.success()
}

/// Somebody flushes the host's rules, deletes a table, a chain: the way out closes until ours stand again.
#[test]
fn tables_that_somebody_takes_down_stand_again() {
    if !privileged() {
        return;
    }
    let lab = way_out();
    let a = lab.start("a", Mode::PLAIN.config(A));
    a.apply(IntentDelta {
        tenants: vec![with_breakout(0, "red", 10001)],
        ..IntentDelta::default()
    });
    assert_eq!(a.status().refused, []);
    wait_for("the way out", || leaves(&lab));
    let blows = [
        "nft flush ruleset",
        "nft delete table inet weft",
        "nft flush chain inet weft sources",
        "nft 'add table inet weft { flags dormant; }'",
    ];
    for blow in blows {
        let before = lab.run("a", "nft -s list table inet weft");
        lab.run("a", blow);
        wait_for(blow, || {
            let now = lab.try_run("a", "nft -s list table inet weft");
            now.status.success() && String::from_utf8_lossy(&now.stdout) == before
        });
        wait_for(blow, || leaves(&lab));
    }
    // Our own changes are not taken for somebody else's.
    let repairs = a.status().repairs;
    assert!((1..=4).contains(&repairs), "{repairs} repairs");
}

/// Programs that mark a tenant's packets are taken away: nothing leaves with a tenant's source until they are back.
#[test]
fn without_the_programs_nothing_private_leaves() {
    if !privileged() {
        return;
    }
    let lab = way_out();
    let a = lab.start("a", Mode::PLAIN.config(A));
    a.apply(IntentDelta {
        tenants: vec![with_breakout(0, "red", 10001)],
        ..IntentDelta::default()
    });
    wait_for("the way out", || leaves(&lab));
    let red0 = super::index(&lab, "a", "red0");
    let passed = || super::counted(&lab, "red", "c");
    lab.run(
        "red",
        "nft 'add table inet c; add chain inet c i { type filter hook output priority 0; }; add rule inet c i icmp type echo-request counter'",
    );
    let ping = "ping -i 0.002 -W 1 -q -c 2000 192.0.2.99 > /dev/null 2>&1 &";
    lab.run("red", ping);
    for _ in 0..3 {
        let before = a.status().repairs;
        let sent = passed();
        lab.inside("a", move || {
            let mut netlink = crate::netlink::socket::Netlink::open().unwrap();
            crate::bpf::Classifier::detach(&mut netlink, red0).unwrap();
        });
        a.wait(|status| status.repairs > before);
        wait_for("packets meanwhile", || passed() > sent);
        wait_for("the way out", || leaves(&lab));
    }
    let sources = lab.run("net", "nft list chain inet t i");
    assert!(sources.contains("packets 0 bytes 0 drop"), "{sources}");
}

/// The daemon is away when somebody takes the table: nobody puts it up again, and nothing leaves with a tenant's source.
#[test]
fn without_anybody_to_mend_the_table_nothing_private_leaves() {
    if !privileged() {
        return;
    }
    let lab = way_out();
    let mut a = lab.start("a", Mode::PLAIN.config(A));
    a.apply(IntentDelta {
        tenants: vec![with_breakout(0, "red", 10001)],
        ..IntentDelta::default()
    });
    wait_for("the way out", || leaves(&lab));
    a.kill();
    assert!(leaves(&lab), "it forwards on");
    lab.run("a", "nft delete table inet weft");
    assert!(!leaves(&lab));
    let sources = lab.run("net", "nft list chain inet t i");
    assert!(sources.contains("packets 0 bytes 0 drop"), "{sources}");
    // It is put up by the next one, and answers come again.
    let a = lab.start("a", Mode::PLAIN.config(A));
    a.apply(IntentDelta {
        tenants: vec![with_breakout(0, "red", 10001)],
        ..IntentDelta::default()
    });
    wait_for("the way out", || leaves(&lab));
    assert!(a.status().drops.unwrap().untranslated > 0);
}

/// While nft does not take our table nothing leaves, and it is tried again until it does.
#[test]
fn without_our_table_nothing_leaves() {
    if !privileged() {
        return;
    }
    let lab = way_out();
    let a = lab.start("a", Mode::PLAIN.config(A));
    // A name that nft does not understand costs the whole table.
    let (id, blue) = with_breakout(1, "blue", 10002);
    let blue = blue.map(|intent| weft_overlay::intent::TenantIntent {
        breakout: Some(Breakout {
            interface: "b\"d".into(),
            source_nat: true,
        }),
        ..intent
    });
    a.apply(IntentDelta {
        tenants: vec![with_breakout(0, "red", 10001), (id, blue)],
        ..IntentDelta::default()
    });
    let refused = || {
        let said = a.status().conditions;
        said.iter()
            .any(|one| one.kind == crate::ConditionKind::Ruleset)
    };
    assert!(refused());
    assert!(!leaves(&lab));
    let sources = lab.run("net", "nft list chain inet t i");
    assert!(sources.contains("packets 0 bytes 0 drop"), "{sources}");
    a.apply(IntentDelta {
        tenants: vec![(TenantId(1), None)],
        ..IntentDelta::default()
    });
    wait_for("the way out", || leaves(&lab));
    assert!(!refused());
}

fn wait_for(what: &str, mut done: impl FnMut() -> bool) {
    let end = std::time::Instant::now() + Duration::from_secs(20);
    while !done() {
        assert!(std::time::Instant::now() < end, "waited in vain: {what}");
    }
}
