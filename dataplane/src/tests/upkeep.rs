//! What somebody changes under us: put right, or said; and probes inside the tunnels.

use super::super::*;
use super::domain::{A, B, Domain, M, Mode, vni};
use super::lab::{Lab, Router, privileged};

fn codes(status: &DataplaneStatus) -> Vec<&'static str> {
    status
        .conditions
        .iter()
        .map(|one| one.kind.code())
        .collect()
}

/// Sends a probe in each of these VNIs to the router in the middle; the one that comes back first.
fn comes_back(lab: &Lab, mode: Mode, address: &str, vnis: [u32; 2]) -> Option<u64> {
    let (own, id) = (mode.endpoint(A), EndpointId([192, 0, 2, A].into()));
    let port = match mode.encapsulation {
        Encapsulation::Vxlan => Some(4789),
        Encapsulation::VxlanGpe => Some(4790),
        Encapsulation::Gre => None,
    };
    let far_end = FarEnd {
        address: mode.endpoint(M),
        encapsulation: mode.encapsulation,
        endpoint_id: mode.v6.then(|| EndpointId([192, 0, 2, M].into())),
        port,
    };
    let address: IpAddr = address.parse().unwrap();
    lab.inside("a", move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async {
            let echo = TunnelEcho::open(own, id, true).unwrap();
            for each in vnis {
                let token = each.into();
                echo.send(&far_end, vni(each), address, token, None)
                    .unwrap();
            }
            let back = tokio::time::timeout(Duration::from_secs(10), echo.receive());
            match back.await {
                Ok(Heard::Probe(token)) => Some(token),
                _ => None,
            }
        })
    })
}

#[test]
fn a_probe_comes_back_from_within_the_tenant_whatever_carries_it() {
    if !privileged() {
        return;
    }
    for mode in Mode::possible() {
        let domain = Domain::new(mode);
        for address in ["10.0.1.1", "2001:db8:10:1::1"] {
            let first = comes_back(&domain.lab, mode, address, [10_009, 10_001]);
            assert_eq!(first, Some(10_001), "{mode}: {address}");
        }
        // The far router has one tenant no more.
        domain.middle.apply(IntentDelta {
            tenants: vec![(TenantId(0), None)],
            ..IntentDelta::default()
        });
        domain.middle.settle();
        domain.middle.wait(|status| status.tenants.len() == 1);
        let first = comes_back(&domain.lab, mode, "10.0.1.1", [10_001, 10_002]);
        assert_eq!(first, Some(10_002), "{mode}");
    }
}

/// What somebody does to the router in the middle, and what has to be so again.
const DAMAGE: [&str; 14] = [
    "sysctl -qw net.ipv4.ip_forward=0",
    "sysctl -qw net.ipv4.conf.vx0.forwarding=0",
    "sysctl -qw net.ipv4.conf.all.rp_filter=1",
    "sysctl -qw net.ipv4.conf.vx0.rp_filter=1",
    "sysctl -qw net.ipv6.conf.vx0.disable_ipv6=1",
    "ip link set vx0 address 02:aa:bb:cc:dd:ee",
    "ip link set vx0 mtu 600",
    "ip link set vx0 name other0",
    "ip link set vx0 alias mine",
    "ip link set vx0 arp off",
    "ip link set vx0 down",
    "ip link del vx0",
    "ip link add br9 type bridge && ip link set br9 up && ip link set vx0 master br9",
    "bridge vni delete dev vx0 vni 10001",
];

fn as_made(lab: &Lab, router: &Router) -> bool {
    let link = lab.try_run("m", "ip -d link show dev vx0");
    let link = String::from_utf8_lossy(&link.stdout).into_owned();
    let setting = |name: &str| {
        let found = lab.try_run("m", &format!("sysctl -n net.ipv4.{name}"));
        String::from_utf8_lossy(&found.stdout).trim().to_owned()
    };
    let settings = [
        ("ip_forward", "1"),
        ("conf.vx0.forwarding", "1"),
        ("conf.all.rp_filter", "0"),
        ("conf.vx0.rp_filter", "0"),
        ("conf.vx0.accept_local", "1"),
    ];
    link.contains("02:00:c0:00:02:02")
        && link.contains(",UP")
        && !link.contains("NOARP")
        && !link.contains("master")
        && link.contains("alias weft overlay")
        && link.contains("mtu 1450")
        && settings.iter().all(|(name, value)| setting(name) == *value)
        && codes(&router.status()).is_empty()
}

#[test]
fn what_somebody_changes_of_ours_is_put_right() {
    if !privileged() {
        return;
    }
    let domain = Domain::new(Mode::PLAIN);
    domain
        .middle
        .track_endpoints(vec![[192, 0, 2, A].into(), [192, 0, 2, B].into()]);
    for router in [&domain.a, &domain.middle, &domain.b] {
        router.settle();
        router.wait(|status| status.conditions.is_empty());
    }
    for damage in DAMAGE {
        domain.lab.run("m", damage);
        let end = std::time::Instant::now() + Duration::from_secs(20);
        let (mut pings, mut made) = (false, false);
        while !(pings && made) {
            pings = domain.ping("red-a", "10.0.2.10", 2)
                && domain.ping("red-a", "2001:db8:10:2::10", 2);
            made = as_made(&domain.lab, &domain.middle);
            assert!(
                std::time::Instant::now() < end,
                "{damage}: pings {pings}, as made {made}: {:?} {}",
                domain.middle.status(),
                domain.lab.run("m", "ip -d link")
            );
        }
    }
}

/// What a host at an attachment knows of the router, and what it is told when that changes.
#[test]
fn an_attachment_that_changes_is_told_of_and_one_that_lost_something_is_said() {
    if !privileged() {
        return;
    }
    let domain = Domain::new(Mode::PLAIN);
    domain.a.settle();
    domain.a.wait(|status| status.conditions.is_empty());
    assert!(domain.ping("red-a", "10.0.1.1", 1));
    let mac = "02:00:00:00:aa:01";
    domain
        .lab
        .run("a", &format!("ip link set red0 address {mac}"));
    let end = std::time::Instant::now() + Duration::from_secs(20);
    while !domain
        .lab
        .run("red-a", "ip neigh show 10.0.1.1")
        .contains(mac)
    {
        assert!(std::time::Instant::now() < end, "the host was told nothing");
    }
    for (damage, word, remedy) in [
        (
            "ip addr del 10.0.1.1/24 dev red0",
            "10.0.1.1/24 is gone",
            "ip addr add 10.0.1.1/24 dev red0",
        ),
        (
            "ip link set red0 arp off",
            "NOARP",
            "ip link set red0 arp on",
        ),
        (
            "ip link add br9 up type bridge; ip link set red0 master br9",
            "a port of br9",
            "ip link set red0 nomaster; ip link del br9",
        ),
    ] {
        domain.lab.run("a", damage);
        let status = domain.a.wait(|status| !status.conditions.is_empty());
        let said = &status.conditions[0];
        assert_eq!(
            (said.kind.code(), said.subject.as_str()),
            ("attachment", "red0")
        );
        assert!(said.detail.contains(word), "{said:?}");
        assert_eq!(said.tenants, ["red"]);
        domain.lab.run("a", remedy);
        domain.a.wait(|status| status.conditions.is_empty());
        domain.wait_for_ping("red-a", "10.0.2.10");
    }
}

#[test]
fn what_is_changed_back_again_and_again_is_said() {
    if !privileged() {
        return;
    }
    let lab = Lab::new(&["r"]);
    let router = lab.start("r", Mode::PLAIN.config(A));
    router.settle();
    let gone = |code| code == "endpoint-address";
    router.wait(|status| codes(status).into_iter().all(gone) && !status.conditions.is_empty());
    let endpoint = Mode::PLAIN.endpoint(A);
    lab.run("r", &format!("ip addr add {endpoint}/32 dev lo"));
    router.wait(|status| status.conditions.is_empty());
    for (damage, code, word) in [
        (
            "sysctl -qw net.ipv4.ip_forward=0",
            "host-setting",
            "net.ipv4.ip_forward",
        ),
        (
            "ip link set vx0 address 02:aa:bb:cc:dd:ee",
            "device",
            "vx0 MAC address",
        ),
    ] {
        let status = router.wait(|status| {
            lab.run("r", damage);
            status.conditions.iter().any(|one| one.subject == word)
        });
        assert_eq!(codes(&status), [code]);
        assert_eq!(verdict(&status.conditions), Verdict::Down);
        assert!(
            status.conditions[0]
                .detail
                .contains("somebody changes it back")
        );
        // Nobody does any more: it is right in the end, and said to be.
        router.wait(|status| status.conditions.is_empty());
    }
}

#[test]
fn an_address_at_a_tunnel_device_is_said_and_stays() {
    if !privileged() {
        return;
    }
    let lab = Lab::new(&["r"]);
    let router = lab.start("r", Mode::PLAIN.config(A));
    router.settle();
    let gone = |code| code == "endpoint-address";
    router.wait(|status| codes(status).into_iter().all(gone) && !status.conditions.is_empty());
    let endpoint = Mode::PLAIN.endpoint(A);
    lab.run("r", &format!("ip addr add {endpoint}/32 dev lo"));
    router.wait(|status| status.conditions.is_empty());
    lab.run("r", "ip addr add 10.9.9.1/24 dev vx0");
    let status = router.wait(|status| !status.conditions.is_empty());
    assert_eq!(
        status.conditions[0].remedy.as_deref(),
        Some("ip address del 10.9.9.1/24 dev vx0")
    );
    lab.run("r", status.conditions[0].remedy.as_deref().unwrap());
    router.wait(|status| status.conditions.is_empty());
}

#[test]
fn a_rule_of_others_that_takes_tenants_packets_is_named_and_one_that_does_not_is_not() {
    if !privileged() {
        return;
    }
    let domain = Domain::new(Mode::PLAIN);
    domain.a.settle();
    domain.a.wait(|status| status.conditions.is_empty());
    // A table with nothing in it, sources and marks that no tenant has, what comes after ours, and what sockets send.
    for (at, harmless) in [
        "pref 10 lookup 999",
        "pref 11 from 203.0.113.0/24 lookup main",
        "pref 12 fwmark 0x1/0xff lookup main",
        "pref 13 iif wan lookup main",
        "pref 5210 to 10.0.2.0/24 blackhole",
        "pref 14 oif wan lookup main",
    ]
    .into_iter()
    .enumerate()
    {
        domain.lab.run("a", &format!("ip rule add {harmless}"));
        domain.lab.run(
            "a",
            &format!("ip route add 203.0.113.{at}/32 dev wan table 5"),
        );
    }
    for (rule, priority) in [
        ("pref 20 to 10.0.2.0/26 lookup main", 20),
        ("pref 21 from 10.0.1.0/24 blackhole", 21),
        ("pref 22 iif red0 unreachable", 22),
        ("pref 0 iif red0 blackhole", 0),
    ] {
        domain.lab.run("a", "ip route replace 10.0.2.0/24 dev wan");
        domain.lab.run("a", &format!("ip rule add {rule}"));
        let status = domain.a.wait(|status| !status.conditions.is_empty());
        assert_eq!(codes(&status), ["foreign-rule"], "{status:?}");
        let condition = &status.conditions[0];
        assert_eq!(condition.subject, format!("IPv4 rule {priority}"));
        assert!(!domain.ping("red-a", "10.0.2.10", 1), "{rule}");
        // What is said to be done is done, and nothing but that.
        let remedy = condition.remedy.as_ref().unwrap();
        let command = remedy.split('`').nth(1).unwrap();
        domain.lab.run("a", command);
        let left = domain.lab.run("a", "ip rule");
        assert!(left.contains("from all lookup local"), "{left}");
        domain.a.wait(|status| status.conditions.is_empty());
        domain.wait_for_ping("red-a", "10.0.2.10");
    }
    // What its table says later counts, too.
    domain
        .lab
        .run("a", "ip route add 10.0.0.0/8 dev wan table 999");
    domain.a.wait(|status| codes(status) == ["foreign-rule"]);
    domain
        .lab
        .run("a", "ip route del 10.0.0.0/8 dev wan table 999");
    domain.a.wait(|status| status.conditions.is_empty());
}

/// Transits may know endpoints alone: requests through the underlay leave from ours, as tunnels do.
#[test]
fn requests_through_the_underlay_leave_from_the_endpoint() {
    if !privileged() {
        return;
    }
    let lab = Lab::new(&["a", "b"]);
    lab.link(
        ("a", "wan", "198.51.100.1/30"),
        ("b", "wan", "198.51.100.2/30"),
    );
    lab.run("a", "ip addr add 192.0.2.1/32 dev lo");
    lab.run(
        "b",
        "ip addr add 192.0.2.3/32 dev lo; ip route add 192.0.2.1/32 via 198.51.100.1",
    );
    lab.run("a", "ip route add 192.0.2.3/32 via 198.51.100.2");
    lab.run("b", "nft 'add table inet t; add chain inet t i { type filter hook input priority 0; }; add rule inet t i ip saddr != 192.0.2.1 drop'");
    let (own, far): (IpAddr, IpAddr) = ([192, 0, 2, 1].into(), [192, 0, 2, 3].into());
    let from = lab.inside("a", move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async {
            let echo = Echo::open(own).unwrap();
            for sequence in 0..100 {
                // One that cannot leave yet is lost.
                let _ = echo.send(far, sequence);
                let answer = tokio::time::timeout(Duration::from_millis(200), echo.receive());
                if let Ok((from, _)) = answer.await {
                    return Some(from);
                }
            }
            None
        })
    });
    assert_eq!(from, Some(far));
}
