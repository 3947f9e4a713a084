//! What routers on a service chain themselves say to its packets: it goes to the sender, and no service sees it.

use super::super::*;
use super::domain::{A, Domain, Mode, vni};
use super::lab::{Lab, Router, privileged};
use super::services::{FIREWALL, INSPECTION, apply_chain, at, counted, red, with_services};

/// Whose chain it is.
const RED: TenantId = TenantId(0);

/// Counts what comes to a service node and is what somebody says to a packet.
fn count_errors(lab: &Lab, node: &str) {
    lab.run(
        node,
        "nft 'add counter inet s errors; \
         add chain inet s e { type filter hook prerouting priority 0; }; \
         add rule inet s e icmp type { destination-unreachable, time-exceeded } counter name errors; \
         add rule inet s e icmpv6 type { destination-unreachable, packet-too-big, time-exceeded } counter name errors'",
    );
}

/// Both services, and how many errors they have seen.
fn with_counters(mode: Mode) -> Domain {
    let domain = with_services(mode);
    let lab = &domain.lab;
    for node in ["f", "i"] {
        count_errors(lab, node);
    }
    for router in ["a", "m", "b", "f", "i"] {
        lab.run(
            router,
            "sysctl -qw net.ipv4.icmp_ratelimit=0 net.ipv6.icmp.ratelimit=0",
        );
    }
    for to in ["10.0.2.10", "2001:db8:10:2::10"] {
        domain.wait_for_ping("red-a", to);
    }
    domain
}

/// The first router's own address, behind both services, the second of which is attached to it. With tables the kernel would take
/// packets for itself before they have passed it.
fn check_own_address(domain: &Domain) {
    let (mode, lab) = (domain.mode, &domain.lab);
    for to in ["10.0.1.1", "2001:db8:10:1::1"] {
        let passed = || ["i", "f"].map(|node| counted(lab, node, "to1"));
        let before = passed();
        // With the code point that the first service looks for.
        let ping = format!("ping -c 3 -i 0.02 -W 1 -q -Q 8 {to}");
        let answered = lab.try_run("red-b", &ping).status.success();
        let after = passed();
        assert_eq!(answered, mode.vrf, "{mode}: {to}");
        assert_eq!(after[0] - before[0], 3, "{mode}: {to}");
        assert_eq!(
            after[1] - before[1],
            if mode.vrf { 3 } else { 0 },
            "{mode}: {to}"
        );
    }
}

fn seen(lab: &Lab) -> [u64; 2] {
    ["f", "i"].map(|node| counted(lab, node, "errors"))
}

/// One packet, and what its sender was told.
fn told(lab: &Lab, from: &str, ping: &str) -> String {
    let output = lab.try_run(from, &format!("ping -c 1 -W 20 {ping}"));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Who sends to which site, and the hops at which the packet has a step before it and is at a router.
const ON_CHAIN: [(&str, u8, &[u32]); 2] = [("red-a", 2, &[1, 3, 4]), ("red-b", 1, &[1, 2, 4, 5])];

fn check_hops(domain: &Domain) {
    let (mode, lab) = (domain.mode, &domain.lab);
    for (from, site, hops) in ON_CHAIN {
        for to in [format!("10.0.{site}.10"), format!("2001:db8:10:{site}::10")] {
            for hop in hops {
                let told = told(lab, from, &format!("-t {hop} {to}"));
                assert!(
                    told.contains("exceeded"),
                    "{mode}: {from} to {to}, hop {hop}: {told}"
                );
                assert_eq!(seen(lab), [0, 0], "{mode}: {from} to {to}, hop {hop}");
            }
            let whole = told(lab, from, &format!("-t 8 {to}"));
            assert!(whole.contains(" 0% packet loss"), "{mode}: {whole}");
        }
    }
}

/// One octet too many, for the tunnel behind the first service and for the second one's link, from both sides.
fn check_sizes(domain: &Domain) {
    let (mode, lab) = (domain.mode, &domain.lab);
    let check = |from: &str, site: u8, mtu: u32| {
        for (to, headers) in [
            (format!("10.0.{site}.10"), 28),
            (format!("2001:db8:10:{site}::10"), 48),
        ] {
            let big = format!("-M do -s {} {to}", mtu + 1 - headers);
            let told = told(lab, from, &big);
            let told = told.replace("mtu = ", "mtu=");
            assert!(
                told.contains(&format!("mtu={mtu}")),
                "{mode}: {from} to {to}, {mtu}: {told}"
            );
            assert_eq!(seen(lab), [0, 0], "{mode}: {from} to {to}, {mtu}");
            let fits = format!("-M do -s {} {to}", mtu - headers);
            let told = self::told(lab, from, &fits);
            assert!(
                told.contains(" 0% packet loss"),
                "{mode}: {from} to {to}, {mtu}: {told}"
            );
        }
    };
    check("red-a", 2, 1500 - mode.overhead());
    for arm in ["in0", "out0"] {
        lab.run("m", &format!("ip link set {arm} mtu 1300"));
    }
    check("red-a", 2, 1300);
    check("red-b", 1, 1300);
}

/// The kernel's word on a step is the step's, not what it would say to the router itself; nodes are asked as ever.
fn check_steps(domain: &Domain) {
    let (mode, lab) = (domain.mode, &domain.lab);
    for (site, node) in [("10.0", "169.254.1.2"), ("2001:db8:10", "fd77:1::2")] {
        let address = |one: &str| -> IpAddr {
            match site {
                "10.0" => format!("{site}.{one}"),
                _ => format!("{site}:{}", one.replace('.', "::")),
            }
            .parse()
            .unwrap()
        };
        // A host's, the router's own, any.
        for source in [Some(address("1.10")), Some(address("1.1")), None] {
            let packet = Packet {
                destination: address("2.10"),
                source,
                dscp: 0,
            };
            let one = |router: &Router, label| {
                let trace = router.trace_step(RED, vni(label), packet).unwrap();
                let route = trace.route.unwrap_or_else(|error| {
                    panic!("{mode}: {label} from {source:?}: {error}");
                });
                (route, trace.tunnels)
            };
            let (route, _) = one(&domain.a, FIREWALL);
            assert_eq!(
                route.interface.as_deref(),
                Some("fw0"),
                "{mode}: {source:?}"
            );
            assert_eq!(route.gateway, Some(node.parse().unwrap()), "{mode}");
            let (_, tunnels) = one(&domain.a, INSPECTION);
            let vnis: Vec<u32> = tunnels.iter().map(|tunnel| tunnel.vni).collect();
            assert_eq!(vnis, [INSPECTION], "{mode}: {source:?}");
            // No attachment of the tenant is here.
            let (route, _) = one(&domain.middle, INSPECTION);
            assert_eq!(
                route.interface.as_deref(),
                Some("in0"),
                "{mode}: {source:?}"
            );
        }
        let node: IpAddr = node.parse().unwrap();
        let asked = lab.inside("a", move || {
            ask_node("fw0", node, &NodeQuestion::Echo, Duration::from_secs(3))
        });
        asked.unwrap_or_else(|error| panic!("{mode}: {node}: {error}"));
    }
}

#[test]
fn time_exceeded_on_a_chain_passes_no_service() {
    if !privileged() {
        return;
    }
    check_hops(&with_counters(Mode::PLAIN));
}

/// It does not know whose the label is: the answer goes on with it, and gets to the sender past the service's router.
#[test]
fn a_router_that_only_stitches_a_label_is_heard_too() {
    if !privileged() {
        return;
    }
    let domain = with_counters(Mode::PLAIN);
    apply_chain(&domain, &[FIREWALL]);
    let mut delta = red(None, Vec::new(), Vec::new());
    let (_, firewall) = at(Mode::PLAIN, FIREWALL, A);
    delta.services = vec![(vni(FIREWALL), Some(firewall)), (vni(INSPECTION), None)];
    domain.middle.apply(delta);
    domain.middle.settle();
    assert_eq!(domain.middle.status().refused, []);
    let lab = &domain.lab;
    for (at, to) in ["10.0.1.10", "2001:db8:10:1::10"].into_iter().enumerate() {
        domain.wait_for_ping("red-b", to);
        let told = told(lab, "red-b", &format!("-t 2 {to}"));
        assert!(told.contains("exceeded"), "{to}: {told}");
        assert_eq!(seen(lab), [at as u64 + 1, 0], "{to}");
    }
}

#[test]
fn too_big_on_a_chain_passes_no_service() {
    if !privileged() {
        return;
    }
    for v6 in [false, true] {
        check_sizes(&with_counters(Mode { v6, ..Mode::PLAIN }));
    }
}

#[test]
fn the_kernel_is_asked_for_steps_and_nodes_are_asked_past_them() {
    if !privileged() {
        return;
    }
    check_steps(&with_counters(Mode::PLAIN));
}

#[test]
fn a_router_takes_nothing_that_a_service_of_its_own_has_not_seen() {
    if !privileged() {
        return;
    }
    let domain = with_counters(Mode::PLAIN);
    let foreign = |domain: &Domain| domain.a.status().drops.unwrap().foreign_address;
    let before = foreign(&domain);
    check_own_address(&domain);
    assert_eq!(foreign(&domain) - before, 6);
}

/// Where the kernel has them.
#[test]
fn routers_answers_to_a_chain_pass_no_service_by_vrf() {
    if !privileged() {
        return;
    }
    let vrf = Mode {
        vrf: true,
        ..Mode::PLAIN
    };
    if Mode::possible().contains(&vrf) {
        let domain = with_counters(vrf);
        check_own_address(&domain);
        check_steps(&domain);
        check_hops(&domain);
        check_sizes(&domain);
    }
}
