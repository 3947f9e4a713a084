//! Service chains: each packet passes each service, in order, and no other tenant's does.

use weft_overlay::Encapsulation;
use weft_overlay::chain::{Chain, Direction, Match, NodeAttachment, OnFailure, Service};
use weft_overlay::intent::ServiceState;

use super::super::*;
use super::domain::{A, Domain, M, Mode, vni};
use super::lab::{Lab, privileged};
use super::services::{
    FIREWALL, HERE, INSPECTION, arm, at, chain, counted, firewall, inspection, node, red, service,
    stamp, watch, with_services,
};

fn steps(lab: &Lab, router: &str, direction: Direction, passed: usize) -> u64 {
    let counter = StepCounter {
        vni: vni(10001),
        chain: "web".into(),
        direction,
        passed,
        dropped: false,
    };
    lab.inside(router, move || StepCounts::read().packets(&counter))
}

#[test]
fn every_service_is_passed_in_order() {
    if !privileged() {
        return;
    }
    for encapsulation in [Encapsulation::Vxlan, Encapsulation::VxlanGpe] {
        for v6 in [false, true] {
            pass_in_order(Mode {
                encapsulation,
                v6,
                vrf: false,
            });
        }
    }
}

/// Where the kernel has them: beside tables, which packets for the router's own addresses do not look into first, and a device
/// that knows no VNIs.
#[test]
fn every_service_is_passed_in_order_by_vrf_and_by_gre() {
    if !privileged() {
        return;
    }
    let vrf = Mode {
        vrf: true,
        ..Mode::PLAIN
    };
    let gre = Mode {
        encapsulation: Encapsulation::Gre,
        ..Mode::PLAIN
    };
    let possible = Mode::possible();
    for mode in [vrf, gre].into_iter().filter(|one| possible.contains(one)) {
        pass_in_order(mode);
    }
}

fn pass_in_order(mode: Mode) {
    const COUNT: u64 = 50;
    let mut domain = with_services(mode);
    let lab = &domain.lab;
    for to in ["10.0.2.10", "2001:db8:10:2::10"] {
        domain.wait_for_ping("red-a", to);
        let before: Vec<u64> = counters(lab);
        assert!(
            domain.ping_fast("red-a", to, COUNT),
            "{mode}: {to}\n{}",
            lab.run(
                "a",
                "ip rule; ip route show table all; nft list ruleset; ip -s link"
            )
        );
        let after = counters(lab);
        let more: Vec<u64> = after.iter().zip(&before).map(|(a, b)| a - b).collect();
        // Each node both ways, both hosts; nothing out of order.
        assert_eq!(
            more,
            [COUNT, COUNT, COUNT, COUNT, COUNT, COUNT, 0, 0, 0, 0],
            "{mode}: {to}"
        );
    }
    // The steps are counted where they are taken.
    let forward = [("a", 0), ("a", 1), ("m", 2)]
        .map(|(router, passed)| steps(lab, router, Direction::Forward, passed));
    assert!(
        forward
            .iter()
            .all(|count| *count == forward[0] && *count >= 2 * COUNT),
        "{mode}: {forward:?}"
    );
    let reverse = [("b", 0), ("m", 1), ("a", 2)]
        .map(|(router, passed)| steps(lab, router, Direction::Reverse, passed));
    assert_eq!(reverse, forward, "{mode}");
    // Another tenant with the same prefixes is not steered.
    let before = counters(lab);
    assert!(domain.ping("blue-a", "10.0.2.10", 20), "{mode}");
    assert_eq!(counters(lab), before, "{mode}");
    // What the chain does not match neither.
    assert!(domain.ping("red-a", "10.0.1.1", 3), "{mode}");
    assert_eq!(counters(lab)[..2], before[..2], "{mode}");
    for site in [("red-a", 1), ("red-b", 2), ("blue-a", 1)] {
        find_neighbours(&domain, site);
    }
    // Nobody is there to put the table up again that somebody takes: nothing gets past a service for it.
    domain.a.kill();
    let lab = &domain.lab;
    lab.run("a", "nft delete table inet weft-chains");
    let before = counters(lab);
    for to in ["10.0.2.10", "2001:db8:10:2::10"] {
        assert!(!domain.ping("red-a", to, 2), "{mode}: {to}");
    }
    assert_eq!(counters(lab), before, "{mode}");
    assert!(domain.ping("blue-a", "10.0.2.10", 2), "{mode}");
}

/// Hosts ask for their router's address whenever what they knew of it has aged: all of them at once, and it alone.
fn find_neighbours(domain: &Domain, (host, site): (&str, u8)) {
    let (mode, lab) = (domain.mode, &domain.lab);
    let other = 3 - site;
    for (gateway, to) in [
        (format!("10.0.{site}.1"), format!("10.0.{other}.10")),
        (
            format!("2001:db8:10:{site}::1"),
            format!("2001:db8:10:{other}::10"),
        ),
    ] {
        lab.run(host, "ip neigh flush all");
        assert!(domain.ping(host, &to, 2), "{mode}: {host} to {to}");
        lab.run(
            host,
            &format!("ip neigh change {gateway} dev eth0 nud probe"),
        );
        let end = std::time::Instant::now() + Duration::from_secs(20);
        loop {
            let known = lab.run(host, &format!("ip neigh show {gateway} dev eth0"));
            if known.contains("REACHABLE") {
                break;
            }
            let waits = known.contains("PROBE") && std::time::Instant::now() < end;
            assert!(waits, "{mode}: {host}: {known}");
        }
    }
}

/// Both services at the first router: one router's change is one change.
fn at_one_router() -> Domain {
    at_one_router_with(true)
}

fn at_one_router_with(bpf: bool) -> Domain {
    let mut domain = match bpf {
        true => Domain::new(Mode::PLAIN),
        false => Domain::without_bpf(Mode::PLAIN),
    };
    node(&mut domain.lab, "f", "a", &[("eth0", "fw0", 1)]);
    let arms = [("eth0", "in0", 2), ("eth1", "out0", 3)];
    node(&mut domain.lab, "i", "a", &arms);
    domain
}

/// What a host's echo requests made of counters, when all were answered.
fn ten_thousand(lab: &Lab) -> Vec<u64> {
    let before = counters(lab);
    let flood = "ping -f -c 10000 -W 2 -q 10.0.2.10";
    let said = lab.run("red-a", flood);
    assert!(said.contains("10000 received"), "{said}");
    let after = counters(lab);
    after.iter().zip(&before).map(|(a, b)| a - b).collect()
}

#[test]
fn ten_thousand_packets_miss_nothing() {
    if !privileged() {
        return;
    }
    const ALL: u64 = 10_000;
    let domain = with_services(Mode::PLAIN);
    domain.wait_for_ping("red-a", "10.0.2.10");
    let counted = ten_thousand(&domain.lab);
    assert_eq!(counted, [ALL, ALL, ALL, ALL, ALL, ALL, 0, 0, 0, 0]);

    let domain = at_one_router();
    let lab = &domain.lab;
    stamp(lab, "f", (0, 1), (2, 2));
    stamp(lab, "i", (1, 2), (2, 2));
    watch(lab, "red-b", 2);
    watch(lab, "red-a", 2);
    apply_both(&domain, &[FIREWALL, INSPECTION]);
    domain.wait_for_ping("red-a", "10.0.2.10");
    let counted = ten_thousand(lab);
    // What comes back is on no chain.
    assert_eq!(counted, [ALL, ALL, ALL, 0, 0, ALL, 0, 0, 0, 0]);
}

fn counters(lab: &Lab) -> Vec<u64> {
    [
        ("f", "to2"),
        ("i", "to2"),
        ("red-b", "stamped"),
        ("i", "to1"),
        ("f", "to1"),
        ("red-a", "stamped"),
        ("f", "wrong"),
        ("i", "wrong"),
        ("red-b", "other"),
        ("red-a", "other"),
    ]
    .into_iter()
    .map(|(name, counter)| counted(lab, name, counter))
    .collect()
}

/// What the first router is told of the firewall that is attached to it.
fn tell_firewall(domain: &Domain, on_failure: OnFailure, local: bool, remote: bool) {
    let mode = domain.mode;
    let services = vec![
        Service {
            on_failure,
            ..firewall(true)
        },
        inspection(false),
    ];
    let mut delta = red(Some("red0"), services, vec![chain(&[FIREWALL, INSPECTION])]);
    let (groups, elsewhere) = at(mode, FIREWALL, M);
    delta.groups.extend(groups.groups);
    let state = ServiceState {
        local,
        remote: elsewhere.remote.filter(|_| remote),
        ..ServiceState::default()
    };
    delta.services.push((vni(FIREWALL), Some(state)));
    domain.a.apply(delta);
    assert_eq!(domain.a.status().refused, []);
}

fn dropped(lab: &Lab, router: &str, passed: usize) -> u64 {
    let counter = StepCounter {
        vni: vni(10001),
        chain: "web".into(),
        direction: Direction::Forward,
        passed,
        dropped: true,
    };
    lab.inside(router, move || StepCounts::read().packets(&counter))
}

#[test]
fn packets_for_a_dead_service_are_dropped_or_skip_it_or_go_to_another() {
    if !privileged() {
        return;
    }
    let mut domain = with_services(Mode::PLAIN);
    // The same firewall at the router in the middle.
    node(&mut domain.lab, "g", "m", &[("eth0", "gw0", 1)]);
    stamp(&domain.lab, "g", (0, 1), (3, 4));
    let lab = &domain.lab;
    let ping = |count| domain.ping("red-a", "10.0.2.10", count);
    assert!(ping(3));
    let seen = |name: &str| counted(lab, name, "to2") + counted(lab, name, "wrong");

    tell_firewall(&domain, OnFailure::Closed, false, true);
    let (f, i) = (seen("f"), seen("i"));
    assert!(!domain.ping("red-a", "10.0.2.10", 5));
    assert_eq!((seen("f"), seen("i")), (f, i));
    assert_eq!(dropped(lab, "a", 0), 5);
    // The tenant's own packets that no chain is for, and other tenants', go on.
    assert!(domain.ping("red-a", "10.0.1.1", 1) && domain.ping("blue-a", "10.0.2.10", 1));
    // What others send with the label is dropped too, and counted.
    lab.run("red-b", "ping -c 3 -i 0.02 -W 1 -q 10.0.1.10 || true");
    let arrived = lab.inside("a", || StepCounts::read().dropped_on_arrival(vni(FIREWALL)));
    assert_eq!(arrived, 3);

    tell_firewall(&domain, OnFailure::Open, false, true);
    let i = seen("i");
    assert!(ping(5));
    // Both ways, without the firewall's stamp.
    assert_eq!((seen("f"), seen("i")), (f, i + 10));

    // The middle has one too.
    let mut delta = red(
        None,
        vec![
            service(
                "firewall",
                FIREWALL,
                Some(NodeAttachment {
                    inside: arm("gw0", 1),
                    outside: None,
                }),
            ),
            inspection(true),
        ],
        vec![chain(&[FIREWALL, INSPECTION])],
    );
    delta.services.push((vni(FIREWALL), Some(HERE)));
    domain.middle.apply(delta);
    domain.middle.status();
    tell_firewall(&domain, OnFailure::Over, false, true);
    let g = seen("g");
    assert!(ping(5));
    assert_eq!((seen("f"), seen("g")), (f, g + 5));

    tell_firewall(&domain, OnFailure::Over, false, false);
    assert!(!domain.ping("red-a", "10.0.2.10", 2));
    tell_firewall(&domain, OnFailure::Closed, true, false);
    assert!(ping(5));
    assert_eq!(seen("f"), f + 5);
}

/// The firewall leaves one bit, the inspection another: who misses one of them is seen.
fn stamp_bits(lab: &Lab, name: &str, bit: u8) {
    let rules: String = [0, 3 - bit]
        .map(|was| {
            let becomes = was | bit;
            format!("add rule inet s f ip daddr 10.0.2.0/24 ip dscp {was} ip dscp set {becomes};")
        })
        .concat();
    lab.run(
        name,
        &format!(
            "nft 'add table inet s; add chain inet s f {{ type filter hook forward priority 0; }}; {rules}'"
        ),
    );
}

#[test]
fn no_packet_skips_a_service_while_chains_change_under_it() {
    if !privileged() {
        return;
    }
    let domain = at_one_router();
    let lab = &domain.lab;
    watch(lab, "red-b", 3);
    stamp_bits(lab, "f", 1);
    stamp_bits(lab, "i", 2);
    let orders: [&[u32]; 4] = [
        &[FIREWALL, INSPECTION],
        &[INSPECTION, FIREWALL],
        &[FIREWALL, INSPECTION],
        &[INSPECTION, FIREWALL],
    ];
    apply_both(&domain, orders[1]);
    let namespace = lab.ns("red-a");
    let mut pings = std::process::Command::new("ip")
        .args([
            "netns",
            "exec",
            &namespace,
            "ping",
            "-i",
            "0.002",
            "-q",
            "-w",
            "120",
            "10.0.2.10",
        ])
        .stdout(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let arrived = || counted(lab, "red-b", "stamped");
    for (round, order) in orders.iter().cycle().take(24).enumerate() {
        apply_both(&domain, order);
        let before = arrived();
        // Until the new chain carries them.
        let end = std::time::Instant::now() + Duration::from_secs(20);
        while arrived() < before + 500 {
            assert!(std::time::Instant::now() < end, "round {round}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }
    pings.kill().unwrap();
    pings.wait().unwrap();
    assert_eq!(counted(lab, "red-b", "other"), 0);
}

/// Chains are looked up among many, and others of them come and go: the look-up that a packet is in the midst of holds.
#[test]
fn no_packet_skips_a_service_while_other_chains_come_and_go() {
    if !privileged() {
        return;
    }
    let domain = at_one_router();
    let lab = &domain.lab;
    watch(lab, "red-b", 1);
    stamp_bits(lab, "f", 1);
    let apply = |others: u8| {
        let web = Chain {
            symmetric: false,
            ..chain(&[FIREWALL])
        };
        let other = |number| {
            let mut other = web.clone();
            other.name = format!("other-{number}");
            let nets = [format!("10.9.{number}.0/24"), format!("10.7.{number}.0/25")];
            other.matches.destinations = nets.map(|net| net.parse().unwrap()).into();
            other
        };
        let chains = (0..others).map(other).chain([web.clone()]).collect();
        let mut delta = red(Some("red0"), vec![firewall(true)], chains);
        delta.services = vec![(vni(FIREWALL), Some(HERE))];
        domain.a.apply(delta);
        assert_eq!(domain.a.status().refused, []);
    };
    apply(40);
    domain.wait_for_ping("red-a", "10.0.2.10");
    let mut pings = std::process::Command::new("ip")
        .args(["netns", "exec", &lab.ns("red-a"), "ping"])
        // As fast as answers come.
        .args(["-f", "-l", "64", "-q", "-w", "600", "10.0.2.10"])
        .stdout(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let arrived = || counted(lab, "red-b", "stamped");
    for round in 0..20 {
        apply(40 + round % 2);
        let before = arrived();
        let end = std::time::Instant::now() + Duration::from_secs(20);
        while arrived() < before + 100 {
            assert!(std::time::Instant::now() < end, "round {round}");
        }
    }
    pings.kill().unwrap();
    pings.wait().unwrap();
    assert_eq!(counted(lab, "red-b", "other"), 0);
}

fn apply_both(domain: &Domain, labels: &[u32]) {
    let services = vec![firewall(true), inspection(true)];
    let chain = Chain {
        symmetric: false,
        ..chain(labels)
    };
    let mut delta = red(Some("red0"), services, vec![chain]);
    delta.services = [FIREWALL, INSPECTION]
        .map(|label| (vni(label), Some(HERE)))
        .into();
    domain.a.apply(delta);
    assert_eq!(domain.a.status().refused, []);
}

/// Somebody's rule leads a tenant's packets into the tenant's own table, and past its services.
#[test]
fn a_rule_that_leads_past_services_is_said() {
    if !privileged() {
        return;
    }
    let domain = at_one_router();
    domain.a.settle();
    apply_both(&domain, &[FIREWALL, INSPECTION]);
    let past = |status: &crate::DataplaneStatus| {
        let mut conditions = status.conditions.iter();
        conditions.any(|one| {
            one.kind == crate::ConditionKind::ForeignRule
                && one.detail.contains("past its service chains")
                && one.tenants == ["red"]
        })
    };
    assert!(!past(&domain.a.status()));
    let table = crate::RANGE + 10001;
    for pref in [1, 970] {
        let rule = format!("pref {pref} iif red0 lookup {table}");
        domain.lab.run("a", &format!("ip rule add {rule}"));
        domain.a.wait(past);
        domain.lab.run("a", &format!("ip rule del {rule}"));
        domain.a.wait(|status| !past(status));
    }
    // Behind those that decide it takes nothing.
    let rule = format!("pref 999 iif red0 lookup {table}");
    domain.lab.run("a", &format!("ip rule add {rule}"));
    domain.a.wait(|status| !past(status));
}

/// Somebody else owns the table: what cannot be steered goes nowhere, until it can be.
#[test]
fn packets_go_nowhere_while_nftables_does_not_take_the_chains() {
    use std::io::Write as _;
    if !privileged() {
        return;
    }
    let domain = at_one_router();
    domain.a.settle();
    let lab = &domain.lab;
    let namespace = lab.ns("a");
    let mut owner = std::process::Command::new("ip")
        .args(["netns", "exec", &namespace, "nft", "-i"])
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let mut input = owner.stdin.take().unwrap();
    input
        .write_all(b"add table inet weft-chains { flags owner; }\n")
        .unwrap();
    input.flush().unwrap();
    let end = std::time::Instant::now() + Duration::from_secs(10);
    while !lab.run("a", "nft list tables").contains("weft-chains") {
        assert!(std::time::Instant::now() < end, "the table does not come");
    }
    apply_both(&domain, &[FIREWALL, INSPECTION]);
    let refused = domain.a.wait(|status| status.chains_refused.is_some());
    let error = refused.chains_refused.unwrap();
    assert!(error.contains("Operation not permitted"), "{error}");
    assert!(!domain.ping("red-a", "10.0.2.10", 2));
    // Whoever has no chains has no part in it.
    assert!(domain.ping("blue-a", "10.0.2.10", 2));
    drop(input);
    owner.wait().unwrap();
    domain.a.wait(|status| status.chains_refused.is_none());
    domain.wait_for_ping("red-a", "10.0.2.10");
}

#[test]
fn a_restart_leaves_packets_on_their_chain() {
    if !privileged() {
        return;
    }
    let mut domain = at_one_router();
    count_all(&domain.lab, "f");
    count_all(&domain.lab, "i");
    apply_both(&domain, &[FIREWALL, INSPECTION]);
    domain.a.settle();
    domain.wait_for_ping("red-a", "10.0.2.10");
    domain.a.kill();
    let counts = |domain: &Domain| {
        let one = |name| counted(&domain.lab, name, "passed");
        (one("f"), one("i"))
    };
    let pass = |domain: &Domain| {
        let before = counts(domain);
        assert!(domain.ping("red-a", "10.0.2.10", 20));
        let after = counts(domain);
        assert_eq!((after.0 - before.0, after.1 - before.1), (20, 20));
    };
    pass(&domain);
    // The next process knows the tenant and its chain, and nothing yet of nodes and routers.
    domain.a = domain.lab.start("a", domain.mode.config(A));
    let services = || vec![firewall(true), inspection(true)];
    let one_way = || Chain {
        symmetric: false,
        ..chain(&[FIREWALL, INSPECTION])
    };
    let mut delta = red(Some("red0"), services(), vec![one_way()]);
    delta.services = [FIREWALL, INSPECTION]
        .map(|label| (vni(label), Some(ServiceState::default())))
        .into();
    domain.a.apply(delta);
    assert_eq!(domain.a.status().refused, []);
    pass(&domain);
    // Then it learns the rest, and says so.
    apply_both(&domain, &[FIREWALL, INSPECTION]);
    let mut way = Domain::towards(domain.mode, 2, M, true);
    way.tenants.clear();
    domain.a.apply(way);
    domain.a.settle();
    assert_eq!(domain.a.status().refused, []);
    pass(&domain);
}

/// Counts all that a node forwards.
fn count_all(lab: &Lab, name: &str) {
    lab.run(
        name,
        "nft 'add table inet s; add counter inet s passed; add chain inet s f { type filter hook forward priority 0; }; add rule inet s f counter name passed'",
    );
}

/// Sends datagrams from the first host to the second, and says what arrived: octets and where from.
fn send(lab: &Lab, port: u16, dscp: u8, len: usize, count: usize) -> Vec<(Vec<u8>, IpAddr)> {
    let to = lab.inside("red-b", move || {
        let socket = std::net::UdpSocket::bind(("10.0.2.10", port)).unwrap();
        let patience = Some(Duration::from_secs(5));
        socket.set_read_timeout(patience).unwrap();
        socket
    });
    lab.inside("red-a", move || {
        let socket = std::net::UdpSocket::bind("10.0.1.10:0").unwrap();
        let options = socket2::SockRef::from(&socket);
        options.set_tos_v4(u32::from(dscp) << 2).unwrap();
        for number in 0..count {
            let octets: Vec<u8> = (0..len).map(|at| (at * 7 + number) as u8).collect();
            socket.send_to(&octets, ("10.0.2.10", port)).unwrap();
        }
    });
    let mut buffer = [0; 65_536];
    let mut arrived = Vec::new();
    while arrived.len() < count {
        let Ok((len, from)) = to.recv_from(&mut buffer) else {
            break;
        };
        arrived.push((buffer[..len].to_vec(), from.ip()));
    }
    arrived
}

#[test]
fn conditions_choose_the_chain_and_packets_arrive_as_they_were_sent() {
    if privileged() {
        conditions_choose_among(0);
    }
}

/// So many that they are looked up: by destination, by source and by port.
#[test]
fn conditions_choose_the_same_chain_among_a_hundred() {
    if privileged() {
        conditions_choose_among(100);
    }
}

fn conditions_choose_among(others: u16) {
    const UDP: u8 = 17;
    let domain = at_one_router();
    let lab = &domain.lab;
    count_all(lab, "f");
    count_all(lab, "i");
    lab.run(
        "red-b",
        "nft 'add table inet s; add counter inet s hops; add chain inet s i { type filter hook input priority 0; }; add rule inet s i icmp type echo-request ip ttl 57 counter name hops'",
    );
    let one = |name: &str, services: &[u32], matches: Match| Chain {
        name: name.into(),
        matches,
        services: services.iter().map(|label| vni(*label)).collect(),
        symmetric: false,
    };
    let port = |port: u16| Match {
        protocol: Some(UDP),
        destination_ports: vec![port..=port + 1],
        ..Match::default()
    };
    let marked = Match {
        dscp: Some(46),
        ..Match::default()
    };
    let pings = Match {
        protocol: Some(1),
        destinations: vec!["10.0.2.0/24".parse().unwrap()],
        ..Match::default()
    };
    let other = |at: u16| {
        let prefix = |second| vec![format!("10.{second}.{}.0/24", at / 3).parse().unwrap()];
        let mut matches = Match::default();
        let services: &[u32] = match at % 3 {
            0 => {
                matches.destinations = prefix(7);
                &[INSPECTION]
            }
            1 => {
                matches.sources = prefix(8);
                &[FIREWALL, INSPECTION]
            }
            _ => {
                matches = port(10_000 + 10 * at);
                &[FIREWALL]
            }
        };
        Chain {
            symmetric: at.is_multiple_of(2),
            ..one(&format!("other-{at}"), services, matches)
        }
    };
    let mut chains: Vec<Chain> = (0..others).map(other).collect();
    // Two of them before the others, two behind.
    chains.insert(0, one("past", &[], port(9000)));
    chains.insert(1, one("some", &[FIREWALL], port(5000)));
    chains.push(one("marked", &[INSPECTION], marked));
    chains.push(one("pings", &[FIREWALL, INSPECTION], pings));
    let services = vec![firewall(true), inspection(true)];
    let mut delta = red(Some("red0"), services, chains);
    delta.services = [FIREWALL, INSPECTION]
        .map(|label| (vni(label), Some(HERE)))
        .into();
    domain.a.apply(delta);
    assert_eq!(domain.a.status().refused, []);
    domain.wait_for_ping("red-a", "10.0.2.10");

    let passed = |work: &dyn Fn()| {
        let counts = || (counted(lab, "f", "passed"), counted(lab, "i", "passed"));
        let before = counts();
        work();
        let after = counts();
        (after.0 - before.0, after.1 - before.1)
    };
    let whole = |port: u16, dscp: u8, len: usize| {
        passed(&|| {
            let arrived = send(lab, port, dscp, len, 3);
            assert_eq!(arrived.len(), 3, "port {port}, dscp {dscp}, {len} octets");
            for (number, (octets, from)) in arrived.into_iter().enumerate() {
                let sent: Vec<u8> = (0..len).map(|at| (at * 7 + number) as u8).collect();
                assert!(octets == sent && from == IpAddr::from([10, 0, 1, 10]));
            }
        })
    };
    assert_eq!(whole(5001, 0, 100), (3, 0));
    assert_eq!(whole(7000, 0, 100), (0, 0));
    if others > 0 {
        assert_eq!(whole(10_021, 0, 100), (3, 0));
        assert_eq!(whole(10_019, 46, 100), (0, 3));
    }
    assert_eq!(whole(7000, 46, 100), (0, 3));
    // The first chain that matches: one of them leads past all others.
    assert_eq!(whole(9000, 46, 100), (0, 0));
    assert_eq!(whole(5000, 46, 100), (3, 0));
    // Three fragments each. The second and the third do not say their port, and go where one that has it would.
    assert_eq!(whole(5001, 0, 3000), (9, 0));
    assert_eq!(whole(7000, 0, 3000), (6, 0));
    let ping = || assert!(domain.ping("red-a", "10.0.2.10", 5));
    let hops = counted(lab, "red-b", "hops");
    assert_eq!(passed(&ping), (5, 5));
    // The first router three times, both nodes, the middle and the last router: nothing else has changed.
    assert_eq!(counted(lab, "red-b", "hops"), hops + 5);
}

#[test]
fn a_node_is_asked_by_echo_by_connection_and_by_http() {
    use std::io::{Read as _, Write as _};
    if !privileged() {
        return;
    }
    let mut lab = Lab::new(&["r"]);
    lab.add(&["n"]);
    lab.link(
        ("r", "fw0", "169.254.1.1/30"),
        ("n", "eth0", "169.254.1.2/30"),
    );
    lab.run("r", "ip addr add fd77::1/64 dev fw0 nodad");
    lab.run("n", "ip addr add fd77::2/64 dev eth0 nodad");
    // Another link has the same network: the interface decides.
    lab.add(&["other"]);
    lab.link(
        ("r", "aa0", "169.254.1.1/30"),
        ("other", "eth0", "169.254.1.2/30"),
    );
    let listener = lab.inside("n", || std::net::TcpListener::bind("[::]:8080").unwrap());
    // What it answers is what it is asked for.
    let server = std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut octets = [0; 1024];
            let len = stream.read(&mut octets).unwrap_or(0);
            let asked = String::from_utf8_lossy(&octets[..len]).into_owned();
            let status = asked
                .split(['/', ' '])
                .nth(2)
                .unwrap_or_default()
                .to_owned();
            let _ = write!(stream, "HTTP/1.1 {status} So\r\nContent-Length: 0\r\n\r\n");
        }
    });
    let ask = |address: &str, question: NodeQuestion| {
        let node: IpAddr = address.parse().unwrap();
        lab.inside("r", move || {
            ask_node("fw0", node, &question, Duration::from_secs(3))
        })
    };
    for address in ["169.254.1.2", "fd77::2"] {
        ask(address, NodeQuestion::Echo).unwrap();
        ask(address, NodeQuestion::Connect(8080)).unwrap();
        ask(address, NodeQuestion::Get(8080, "/204".into())).unwrap();
    }
    let refused = ask("169.254.1.2", NodeQuestion::Get(8080, "/503".into()));
    let refused = refused.unwrap_err().to_string();
    assert!(refused.contains("HTTP/1.1 503"), "{refused}");
    let refused = ask("169.254.1.2", NodeQuestion::Connect(8081)).unwrap_err();
    assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused);
    lab.run("n", "nft 'add table inet s; add chain inet s i { type filter hook input priority 0; policy drop; }'");
    let node: IpAddr = [169, 254, 1, 2].into();
    let silent = lab.inside("r", move || {
        ask_node("fw0", node, &NodeQuestion::Echo, Duration::from_millis(200))
    });
    assert_eq!(silent.unwrap_err().kind(), std::io::ErrorKind::TimedOut);
    drop(server);
}

/// Somebody flushes the host's rules: chains stand again, and packets pass their services again.
#[test]
fn chains_that_somebody_takes_down_stand_again() {
    if !privileged() {
        return;
    }
    const COUNT: u64 = 20;
    let domain = with_services(Mode::PLAIN);
    let lab = &domain.lab;
    domain.wait_for_ping("red-a", "10.0.2.10");
    let hooks = || {
        let table = lab.try_run("a", "nft list table inet weft-chains");
        let table = String::from_utf8_lossy(&table.stdout).into_owned();
        let lines = table.lines();
        let hooks = lines.filter(|line| line.contains("hook ingress") || line.contains("dormant"));
        hooks.map(str::to_owned).collect::<Vec<_>>()
    };
    for blow in [
        "nft flush ruleset",
        "nft delete table inet weft-chains",
        "nft 'add table inet weft-chains { flags dormant; }'",
    ] {
        let before = hooks();
        assert!(!before.is_empty());
        lab.run("a", blow);
        let end = std::time::Instant::now() + Duration::from_secs(20);
        while hooks() != before {
            assert!(
                std::time::Instant::now() < end,
                "waited in vain after {blow}"
            );
        }
        domain.wait_for_ping("red-a", "10.0.2.10");
        let before = counters(lab);
        assert!(domain.ping_fast("red-a", "10.0.2.10", COUNT), "{blow}");
        let more: Vec<u64> = counters(lab)
            .iter()
            .zip(&before)
            .map(|(a, b)| a - b)
            .collect();
        assert_eq!(more[..6], [COUNT; 6], "{blow}");
        assert_eq!(more[6..], [0; 4], "{blow}");
    }
}

/// A packet behind two tags without a VLAN is none of the Internet protocols where chains look, and is one where the kernel routes.
#[test]
fn what_hides_behind_tags_goes_past_no_service_with_bpf_or_without() {
    use super::walls::{echo_request, frame, mac_of, send_frame};
    if !privileged() {
        return;
    }
    for bpf in [true, false] {
        let domain = at_one_router_with(bpf);
        let lab = &domain.lab;
        watch(lab, "red-b", 3);
        stamp_bits(lab, "f", 1);
        stamp_bits(lab, "i", 2);
        apply_both(&domain, &[FIREWALL, INSPECTION]);
        let arrived = |counter| counted(lab, "red-b", counter);
        assert!(domain.ping("red-a", "10.0.2.10", 2));
        let before = arrived("stamped");
        let (from, to) = ([10, 0, 1, 10].into(), [10, 0, 2, 10].into());
        let echo = echo_request(from, to);
        let router = mac_of(lab, "a", "red0");
        const TAG: u16 = 0x8100;
        const IPV4: u16 = 0x0800;
        for kinds in [&[TAG, TAG, IPV4][..], &[TAG, TAG, TAG, IPV4]] {
            send_frame(lab, "red-a", "eth0", frame(router, kinds, &echo));
        }
        // One tag is as none; it comes after the others.
        send_frame(lab, "red-a", "eth0", frame(router, &[TAG, IPV4], &echo));
        let end = std::time::Instant::now() + Duration::from_secs(20);
        while arrived("stamped") == before {
            assert!(std::time::Instant::now() < end, "BPF {bpf}");
        }
        assert_eq!(arrived("stamped"), before + 1, "BPF {bpf}");
        assert_eq!(arrived("other"), 0, "BPF {bpf}");
    }
}
