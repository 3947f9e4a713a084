//! What is ours and was changed, what is not ours, and what the kernel refuses.

use weft_overlay::intent::UnderlayRoute;

use super::super::*;
use super::domain::{A, Domain, M, Mode, route, tenant};
use super::lab::{Lab, privileged};
use super::{attached, index};
use crate::bpf::Classifier;
use crate::netlink::socket::Netlink;

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
    assert!(attached(&domain.lab, "a", "red0"));
    domain.a.kill();
    domain.lab.inside("a", || teardown(PROTOCOL).unwrap());
    assert!(!attached(&domain.lab, "a", "red0"));
    // And without a wall the host forwards nothing between them.
    let forwards = domain
        .lab
        .run("a", "sysctl -n net.ipv4.conf.red0.forwarding");
    assert_eq!(forwards.trim(), "0");
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
        // The same signed by nobody, and what takes it away later.
        "for id in $(ip nexthop show proto 87 | sed -n 's/^id \\([0-9]*\\) .*dst 192.0.2.3 .*/\\1/p'); do \
         ip nexthop replace id $id blackhole || true; done",
        "for id in $(ip nexthop show proto 87 | sed -n 's/^id \\([0-9]*\\) .*dst 192.0.2.3 .*/\\1/p'); do \
         ip nexthop replace id $id blackhole || true; done; ip nexthop flush",
        "ip neigh replace 192.0.2.3 lladdr 02:00:00:00:00:99 dev vx0 nud permanent && \
         ip -6 neigh replace fe80::c000:203 lladdr 02:00:00:00:00:99 dev vx0 nud permanent",
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

/// Somebody's route in the place of ours is not touched; it is said, and ours comes when it goes.
#[test]
fn a_route_that_was_replaced_is_said_and_comes_back() {
    if !privileged() {
        return;
    }
    let domain = Domain::new(Mode::PLAIN);
    let table = crate::RANGE + 10001;
    for (put, remove) in [
        ("replace blackhole 10.0.2.0/24", "del blackhole 10.0.2.0/24"),
        ("replace 10.0.2.0/24 via 198.51.100.1", "del 10.0.2.0/24"),
    ] {
        domain
            .lab
            .run("m", &format!("ip route {put} table {table}"));
        let end = std::time::Instant::now() + Duration::from_secs(20);
        let said = || {
            let conditions = domain.middle.status().conditions;
            let refused = |one: &crate::Condition| one.kind == crate::ConditionKind::RouteRefused;
            conditions.iter().any(refused)
        };
        while !said() {
            assert!(std::time::Instant::now() < end, "{put}: nothing is said");
        }
        assert!(!domain.ping("red-a", "10.0.2.10", 2), "{put}");
        domain
            .lab
            .run("m", &format!("ip route {remove} table {table}"));
        while said() || !domain.ping("red-a", "10.0.2.10", 2) {
            assert!(
                std::time::Instant::now() < end,
                "{remove}: it did not come back"
            );
        }
    }
}

/// Somebody's device stands in the place of ours: when it goes ours is there again, and no audit is waited for.
#[test]
fn a_tunnel_device_comes_back_when_what_stood_in_its_place_goes() {
    if !privileged() {
        return;
    }
    let lab = Lab::new(&["r"]);
    let config = DataplaneConfig {
        audit: Duration::from_secs(3600),
        ..Mode::PLAIN.config(A)
    };
    let router = lab.start("r", config);
    router.settle();
    router.wait(|status| !status.devices.is_empty());
    let lacks = |status: &crate::DataplaneStatus| {
        let mut conditions = status.conditions.iter();
        conditions.any(|one| one.kind == crate::ConditionKind::Device)
    };
    lab.run(
        "r",
        "ip link add vx9 type veth peer name vx8; until ip link del vx0; ip link set vx9 name vx0; do sleep 0.1; done",
    );
    router.wait(lacks);
    lab.run("r", "ip link del vx0");
    router.wait(|status| !lacks(status));
    assert!(attached(&lab, "r", "vx0"));
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
    let filters = || attached(&lab, "r", "vx0");
    let forwards = || lab.run("r", "sysctl -n net.ipv4.ip_forward").trim() == "1";
    assert!(filters() && forwards());
    let device = index(&lab, "r", "vx0");
    lab.inside("r", move || {
        let mut netlink = Netlink::open().unwrap();
        Classifier::detach(&mut netlink, device).unwrap();
    });
    // It may be back before anybody looks.
    lab.run("r", "sysctl -qw net.ipv4.ip_forward=0");
    let end = std::time::Instant::now() + Duration::from_secs(20);
    while !(filters() && forwards()) {
        assert!(std::time::Instant::now() < end);
    }
}

#[test]
fn a_route_without_a_way_to_its_next_hop_waits_and_is_said() {
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
    let wrong = &status.conditions[..];
    assert!(
        wrong.iter().any(|one| one.kind == ConditionKind::NextHop
            && one
                .detail
                .contains("no route to the next hop 198.51.100.9: 1 ")),
        "{wrong:?}"
    );
    // It is taken as soon as it can be.
    lab.run("r", "ip link add wan type veth peer name far && ip addr add 198.51.100.1/24 dev wan && ip link set wan up && ip link set far up");
    router.wait(|status| status.underlay_routes == 1);
    assert!(
        lab.run("r", "ip route")
            .contains("203.0.113.0/24 via 198.51.100.9 dev wan proto 87")
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
        ..IntentDelta::default()
    });
    let status = router.status();
    let errors: Vec<&str> = status
        .refused
        .iter()
        .map(|one| one.error.as_str())
        .collect();
    assert_eq!(errors.len(), 1, "{status:?}");
    assert!(
        errors[0].contains("a route of protocol 12 stands there"),
        "{errors:?}"
    );
    // One that drops packets forwards nothing in the place of ours.
    lab.run(
        "r",
        "ip route add blackhole 10.0.4.0/24 proto static table 1459627793",
    );
    router.apply(IntentDelta {
        routes: vec![route(0, "10.0.4.0/24", 7)],
        ..IntentDelta::default()
    });
    let told = RefusedIn {
        main: false,
        vnis: [Vni::new(10001).unwrap()].into(),
    };
    let told = vec![("10.0.4.0/24".parse().unwrap(), Some(told))];
    router.wait_for(move |event| *event == DataplaneEvent::Refused(told.clone()));
    let status = router.status();
    let drops = |one: &RefusedRoute| {
        one.error
            .contains("a route that drops packets stands there")
    };
    assert!(status.refused.iter().any(drops), "{status:?}");
    lab.run("r", "ip route del blackhole 10.0.4.0/24 table 1459627793");
    router.settle();
    let held = lab.run("r", "ip route show table 1459627793");
    assert!(
        held.contains("10.0.2.0/24 via 198.51.100.9 dev x proto bird"),
        "{held}"
    );
    lab.run("r", &format!("ip route del {foreign} table 1459627793"));
    router.wait(|status| status.refused.is_empty());
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

fn reach(metric: u32, floor: u8) -> Option<Reach> {
    Some(Reach { metric, floor })
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
        *event == DataplaneEvent::Reachability(vec![([198, 51, 100, 9].into(), reach(7, 25))])
    });
    // And in IPv6.
    let far: IpAddr = "2001:db8:7::9".parse().unwrap();
    router.track(vec![far]);
    router.wait_for(move |event| *event == DataplaneEvent::Reachability(vec![(far, None)]));
    lab.run("r", "ip addr add fd00:7::1/64 dev red0 nodad && ip route add 2001:db8:7::/64 via fd00:7::2 metric 9");
    router.wait_for(move |event| *event == DataplaneEvent::Reachability(vec![(far, reach(9, 65))]));
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

/// A kernel that is short of something, or does not let us: what it refuses is said, and done as soon as it can be.
#[test]
fn what_the_kernel_refuses_for_a_while_is_done_later() {
    if !privileged() {
        return;
    }
    let mode = Mode::PLAIN;
    let lab = Lab::new(&["r"]);
    let config = mode.config(A);
    let faults = config.faults.clone();
    let router = lab.start("r", config);
    router.apply(IntentDelta {
        tenants: vec![tenant(0, "red", 10001, None)],
        groups: vec![mode.group(7, 10001, &[M])],
        ..IntentDelta::default()
    });
    assert_eq!(router.status().refused, []);
    let held = |prefix: &str| {
        let table = lab.run("r", "ip route show table 1459627793 proto 87");
        table.contains(prefix)
    };
    let add = |prefix: &str| {
        router.apply(IntentDelta {
            routes: vec![route(0, prefix, 7)],
            ..IntentDelta::default()
        });
    };
    let cases = [
        (libc::ENOSPC, "No space left"),
        (libc::EPERM, "Operation not permitted"),
        (libc::ENOMEM, "Cannot allocate memory"),
        (libc::EEXIST, "File exists"),
    ];
    for (at, (errno, words)) in cases.into_iter().enumerate() {
        let prefix = format!("10.{at}.0.0/16");
        faults.refuse(libc::RTM_NEWROUTE, errno, 1);
        add(&prefix);
        let status = router.status();
        assert_eq!(status.refused.len(), 1, "{words}: {status:?}");
        assert!(status.refused[0].error.contains(words), "{status:?}");
        assert!(!held(&prefix));
        let told = |tables: Option<RefusedIn>| {
            let told = vec![(prefix.parse().unwrap(), tables)];
            router.wait_for(move |event| *event == DataplaneEvent::Refused(told.clone()));
        };
        told(Some(RefusedIn {
            main: false,
            vnis: [Vni::new(10001).unwrap()].into(),
        }));
        router.wait(|status| status.refused.is_empty());
        assert!(held(&prefix));
        told(None);
    }
    lab.run("r", "ip link add u0 type veth peer name u1");
    lab.run("r", "ip link set u1 up");
    lab.run("r", "ip address add 198.51.100.1/24 dev u0");
    lab.run("r", "ip link set u0 up");
    faults.refuse(libc::RTM_NEWROUTE, libc::ENOMEM, 1);
    let prefix: IpNet = "203.0.113.0/24".parse().unwrap();
    router.apply(IntentDelta {
        underlay: vec![UnderlayRoute {
            prefix,
            via: vec![[198, 51, 100, 9].into()],
        }],
        ..IntentDelta::default()
    });
    let main = Some(RefusedIn {
        main: true,
        ..RefusedIn::default()
    });
    for tables in [main, None] {
        router.wait_for(move |event| {
            let DataplaneEvent::Refused(told) = event else {
                return false;
            };
            assert_eq!(*told, [(prefix, tables.clone())]);
            true
        });
    }
    // What routes rest on is refused: they are too, by the kernel itself, and come with it.
    faults.refuse(crate::netlink::objects::RTM_NEWNEXTHOP, libc::ENOSPC, 1);
    router.apply(IntentDelta {
        groups: vec![mode.group(8, 10001, &[A])],
        routes: vec![route(0, "10.8.0.0/16", 8)],
        ..IntentDelta::default()
    });
    // However often somebody looks meanwhile, the kernel is not asked again each time.
    let before = router.status().requests;
    for _ in 0..200 {
        let status = router.status();
        if status.refused.is_empty() {
            break;
        }
        assert!(status.requests < before + 100, "{status:?}");
    }
    router.wait(|status| status.refused.is_empty());
    assert!(held("10.8.0.0/16"));
    // Netlink itself fails: nothing is known of the batch, and everything is right in the end.
    for errno in [libc::ENOBUFS, libc::ENOMEM] {
        faults.fail(errno);
        let prefix = format!("10.{}.0.0/16", 100 + errno);
        add(&prefix);
        let end = std::time::Instant::now() + Duration::from_secs(20);
        while !held(&prefix) {
            assert!(std::time::Instant::now() < end, "{errno}");
        }
    }
    assert_eq!(router.status().refused, []);
}

/// The kernel tells more than there is room for: what was lost is found by reading everything.
#[test]
fn lost_events_are_made_up_for() {
    if !privileged() {
        return;
    }
    let lab = Lab::new(&["r"]);
    lab.run("r", "ip link add x type veth peer name y && ip addr add 198.51.100.1/24 dev x && ip link set x up && ip link set y up");
    let config = DataplaneConfig {
        event_buffer: 2048,
        ..Mode::PLAIN.config(A)
    };
    let router = lab.start("r", config);
    router.apply(IntentDelta {
        tenants: vec![tenant(0, "red", 10001, None)],
        groups: vec![Mode::PLAIN.group(7, 10001, &[M])],
        routes: vec![route(0, "10.0.2.0/24", 7)],
        ..IntentDelta::default()
    });
    assert_eq!(router.status().refused, []);
    // Thousands of somebody else's routes, and one of ours goes in between.
    let others = |verb: &str| -> String {
        let lines = (0..4000).map(|at| {
            format!(
                "route {verb} 172.{}.{}.0/24 via 198.51.100.9 table 7\n",
                16 + (at >> 8),
                at & 0xff
            )
        });
        lines.collect()
    };
    let ours = "route del 10.0.2.0/24 table 1459627793\n";
    let orders = [others("add"), ours.to_owned(), others("del")].concat();
    let file = std::env::temp_dir().join(format!("{}-orders", lab.ns("r")));
    std::fs::write(&file, orders).unwrap();
    lab.run("r", &format!("ip -batch {}", file.display()));
    std::fs::remove_file(file).unwrap();
    router.wait(|status| status.events_lost > 0 && status.repairs > 0);
    let held = lab.run("r", "ip route show table 1459627793 proto 87");
    assert!(held.contains("10.0.2.0/24"), "{held}");
}
