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
