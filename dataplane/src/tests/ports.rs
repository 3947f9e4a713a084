//! Routers that take packets at UDP ports of their own choice.

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroU16;

use super::super::*;
use super::domain::{A, B, Domain, M, Mode, tenant, vni};
use super::lab::{Lab, Router, privileged};
use weft_overlay::intent::{ForwardingNextHop, Group, GroupId, NextHopSet, TenantRoute};

/// Far ends at one address take packets at this port.
fn at_port(mut delta: IntentDelta, address: IpAddr, port: Option<u16>) -> IntentDelta {
    let groups = delta.groups.iter_mut().filter_map(|(_, one)| one.as_mut());
    for hop in groups.flat_map(|group| &mut group.hops.0) {
        if hop.address == address {
            hop.port = port.and_then(NonZeroU16::new);
        }
    }
    delta
}

fn config(mode: Mode, node: u8, port: Option<u16>) -> DataplaneConfig {
    DataplaneConfig {
        port: port.and_then(NonZeroU16::new),
        audit: Duration::from_millis(300),
        ..mode.config(node)
    }
}

/// The ports of the devices that a router has, 0 for the encapsulation's own.
fn ports(status: &DataplaneStatus) -> BTreeSet<u16> {
    let devices = status.devices.iter();
    devices.map(|one| one.port.unwrap_or_default()).collect()
}

#[test]
fn routers_at_different_ports_reach_each_other_also_when_one_starts_again_at_another() {
    if !privileged() {
        return;
    }
    let modes = Mode::possible().into_iter();
    for mode in modes.filter(|mode| mode.encapsulation != Encapsulation::Gre) {
        let mut domain = Domain::new(mode);
        let far = mode.endpoint(M);
        for (node, number, site) in [("a", A, 2), ("b", B, 1)] {
            let router = match node {
                "a" => &mut domain.a,
                _ => &mut domain.b,
            };
            router.kill();
            *router = domain.lab.start(node, config(mode, number, None));
            router.apply(Domain::towards(mode, site, M, true));
            router.settle();
        }
        for port in [Some(8472), Some(8473), None] {
            domain.middle.kill();
            domain.middle = domain.lab.start("m", config(mode, M, port));
            domain.middle.apply(Domain::middle_intent(mode));
            domain.middle.settle();
            for (router, site) in [(&domain.a, 2), (&domain.b, 1)] {
                let delta = Domain::towards(mode, site, M, true);
                router.apply(at_port(delta, far, port));
            }
            for (from, to) in [("red-a", "10.0.2.10"), ("blue-b", "2001:db8:10:1::10")] {
                domain.wait_for_ping(from, to);
            }
            let own = port.unwrap_or_default();
            let expected = BTreeSet::from([0, own]);
            // The device of the port before goes.
            let status = domain.middle.wait(|status| ports(status) == expected);
            assert_eq!(status.ports, BTreeMap::new(), "{mode}: A and B have theirs");
            let status = domain.a.wait(|status| ports(status) == expected);
            let said = port.map(|port| (far, port)).into_iter().collect();
            assert_eq!(status.ports, said, "{mode}");
            assert_eq!(status.refused, [], "{mode}");
            // Nothing went by the other device.
            assert!(
                domain.ping("red-a", "10.0.2.10", 3),
                "{mode}: port {port:?}"
            );
        }
    }
}

fn hops(ports: impl Iterator<Item = u16>) -> IntentDelta {
    let groups = ports.map(|port| {
        let hop = ForwardingNextHop {
            vni: vni(10001),
            encapsulation: Encapsulation::Vxlan,
            port: NonZeroU16::new(port),
            address: [192, 0, 2, 100 + (port % 100) as u8].into(),
            endpoint_id: None,
        };
        let group = Group {
            hops: NextHopSet(vec![hop]),
            weights: Vec::new(),
            has_others: false,
            may_share: false,
            sticky: false,
        };
        (GroupId(port.into()), Some(group))
    });
    let groups: Vec<_> = groups.collect();
    let routes = groups.iter().map(|(id, _)| {
        let prefix = format!("10.{}.0.0/16", id.0 % 100);
        super::domain::route(0, &prefix, id.0)
    });
    IntentDelta {
        tenants: vec![tenant(0, "red", 10001, None)],
        routes: routes.collect(),
        groups,
        ..IntentDelta::default()
    }
}

/// Nobody is sent to at a port any more.
fn removal(port: u16) -> IntentDelta {
    let prefix = format!("10.{}.0.0/16", port % 100);
    let route = TenantRoute {
        group: None,
        ..super::domain::route(0, &prefix, port.into())
    };
    IntentDelta {
        routes: vec![route],
        groups: vec![(GroupId(port.into()), None)],
        ..IntentDelta::default()
    }
}

fn device_conditions(router: &Router) -> Vec<String> {
    let status = router.status();
    let conditions = status.conditions.iter();
    conditions
        .filter(|conditions| conditions.kind == ConditionKind::Device)
        .map(|conditions| format!("{}: {}", conditions.subject, conditions.detail))
        .collect()
}

#[test]
fn a_port_that_is_taken_or_one_too_many_costs_the_routers_there_alone() {
    if !privileged() {
        return;
    }
    let lab = Lab::new(&["a"]);
    lab.run("a", "ip addr add 192.0.2.1/32 dev lo; ip link set lo up");
    // As Docker Swarm has it.
    lab.run(
        "a",
        "ip link add other type vxlan id 7 dstport 9001 local 192.0.2.1; ip link set other up",
    );
    let a = lab.start("a", config(Mode::PLAIN, A, None));
    a.apply(hops([9001, 9002].into_iter()));
    a.settle();
    let said = device_conditions(&a);
    assert_eq!(said.len(), 1, "{said:?}");
    for part in ["vx9001: ", "UDP port 9001", "192.0.2.101"] {
        assert!(said[0].contains(part), "{said:?}");
    }
    assert_eq!(a.status().refused.len(), 1);
    // It is tried again.
    lab.run("a", "ip link del other");
    a.wait(|status| status.refused.is_empty());
    assert_eq!(device_conditions(&a), [""; 0]);
    // BFD is not hurt.
    a.apply(hops([3784].into_iter()));
    let said = device_conditions(&a);
    assert!(said[0].contains("UDP port 3784 is BFD's"), "{said:?}");
    a.apply(removal(3784));
    a.wait(|status| status.conditions.is_empty());
    a.apply(hops(9003..=9009));
    let said = device_conditions(&a);
    assert_eq!(said.len(), 1, "{said:?}");
    assert!(
        said[0].contains("vx9009") && said[0].contains("8 ports"),
        "{said:?}"
    );
    // Another's goes, and there is room.
    a.apply(removal(9001));
    let status = a.wait(|status| status.refused.is_empty());
    let expected: BTreeSet<u16> = (9002..=9009).chain([0]).collect();
    assert_eq!(ports(&status), expected);
}
