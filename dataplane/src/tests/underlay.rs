//! The underlay changes under the router: links, addresses, routes of others.

use weft_overlay::intent::UnderlayRoute;

use super::super::*;
use super::lab::{Lab, Router, privileged};

fn routes(list: &[(&str, &str)]) -> IntentDelta {
    let route = |(prefix, via): &(&str, &str)| UnderlayRoute {
        prefix: prefix.parse().unwrap(),
        via: via.parse().into_iter().collect(),
    };
    IntentDelta {
        underlay: list.iter().map(route).collect(),
        ..IntentDelta::default()
    }
}

/// r with two links, e1 to x and e2 to y.
fn start() -> (Lab, Router) {
    let lab = Lab::new(&["r", "x", "y"]);
    lab.link(
        ("r", "e1", "198.51.100.1/30"),
        ("x", "e1", "198.51.100.2/30"),
    );
    lab.link(
        ("r", "e2", "198.51.100.5/30"),
        ("y", "e2", "198.51.100.6/30"),
    );
    let router = lab.start("r", DataplaneConfig::default());
    (lab, router)
}

fn wait(lab: &Lab, what: &str, wanted: impl Fn(&str) -> bool) {
    let end = std::time::Instant::now() + Duration::from_secs(20);
    loop {
        let table = lab.run("r", "ip route show proto 87; ip -6 route show proto 87");
        if wanted(&table) {
            return;
        }
        assert!(std::time::Instant::now() < end, "{what}: {table}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn recursive_next_hops_are_installed_with_their_last_gateway_and_follow_it() {
    if !privileged() {
        return;
    }
    let (lab, router) = start();
    lab.run("r", "ip route add 192.0.2.10/32 via 198.51.100.2");
    router.apply(routes(&[
        ("203.0.113.0/24", "192.0.2.10"),
        // By a route of ours, and by a default route of ours that contains its own next hop.
        ("10.9.0.0/16", "203.0.113.9"),
        ("0.0.0.0/0", "198.51.100.6"),
        ("10.8.0.0/16", "172.31.0.1"),
        // That contains its next hop, which a connected route leads to.
        ("198.51.100.0/24", "198.51.100.2"),
    ]));
    let status = router.status();
    assert_eq!((status.refused.len(), status.underlay_routes), (0, 5));
    let by_x = ["203.0.113.0/24", "10.9.0.0/16", "198.51.100.0/24"];
    wait(&lab, "by x and y", |table| {
        by_x.iter()
            .all(|prefix| table.contains(&format!("{prefix} via 198.51.100.2 dev e1")))
            && table.contains("default via 198.51.100.6 dev e2")
            && table.contains("10.8.0.0/16 via 198.51.100.6 dev e2")
    });
    // An operator leads it elsewhere, by two ways.
    lab.run(
        "r",
        "ip route replace 192.0.2.10/32 nexthop via 198.51.100.2 nexthop via 198.51.100.6",
    );
    wait(&lab, "by both", |table| {
        let line = table
            .lines()
            .position(|line| line.starts_with("10.9.0.0/16"));
        let lines = line.map(|at| table.lines().skip(at + 1).take(2));
        lines.is_some_and(|lines| lines.filter(|line| line.contains("nexthop via")).count() == 2)
    });
    assert_eq!(router.status().repairs, 0);
    // By nothing but the default route, which is ours.
    lab.run("r", "ip route del 192.0.2.10/32");
    wait(&lab, "by y", |table| {
        table.contains("10.9.0.0/16 via 198.51.100.6 dev e2")
    });
}

#[test]
fn a_default_route_to_its_own_next_hop_alone_is_not_installed_and_said() {
    if !privileged() {
        return;
    }
    let (lab, router) = start();
    router.apply(routes(&[("192.0.2.0/24", "192.0.2.10")]));
    let wrong = |status: &DataplaneStatus, subject: &str| {
        let mut conditions = status.conditions.iter();
        conditions.any(|one| one.kind == ConditionKind::NextHop && one.subject == subject)
    };
    router.wait(|status| wrong(status, "192.0.2.0/24") && status.underlay_routes == 0);
    lab.run("r", "ip route add default via 198.51.100.2");
    router.wait(|status| wrong(status, "192.0.2.0/24") && status.underlay_routes == 0);
    lab.run("r", "ip route add 192.0.2.10/32 via 198.51.100.6");
    router.wait(|status| {
        status
            .conditions
            .iter()
            .all(|one| one.kind != ConditionKind::NextHop)
    });
    wait(&lab, "by y", |table| {
        table.contains("192.0.2.0/24 via 198.51.100.6 dev e2")
    });
}

#[test]
fn a_link_without_carrier_leads_nowhere() {
    if !privileged() {
        return;
    }
    let (lab, router) = start();
    router.watch_neighbors(vec!["198.51.100.2".parse().unwrap()]);
    router.track(vec!["198.51.100.2".parse().unwrap()]);
    router.apply(routes(&[
        ("203.0.113.0/24", "198.51.100.2"),
        ("10.9.0.0/16", "198.51.100.6"),
    ]));
    wait(&lab, "both", |table| table.matches("via").count() == 2);
    // At the far end: here it is up.
    lab.run("x", "ip link set e1 down");
    // The neighbour first: its session ends.
    router.wait_for(|event| {
        matches!(event, DataplaneEvent::NeighborLink { lost: Some(name), .. } if name == "e1")
    });
    router
        .wait_for(|event| matches!(event, DataplaneEvent::Reachability(one) if one[0].1.is_none()));
    wait(&lab, "one", |table| {
        !table.contains("203.0.113.0/24") && table.contains("10.9.0.0/16")
    });
    lab.run("x", "ip link set e1 up");
    router.wait_for(|event| matches!(event, DataplaneEvent::NeighborLink { lost: None, .. }));
    wait(&lab, "both again", |table| {
        table.matches("via").count() == 2
    });
}

/// What the kernel drops without a word is put back, however short the time.
#[test]
fn an_address_that_goes_and_comes_back_takes_no_route_along() {
    if !privileged() {
        return;
    }
    let (lab, router) = start();
    router.apply(routes(&[
        ("203.0.113.0/24", "198.51.100.2"),
        ("2001:db8:9::/48", "2001:db8:1::2"),
        ("10.9.0.0/16", "203.0.113.9"),
    ]));
    lab.run("r", "ip addr add 2001:db8:1::1/64 dev e1 nodad");
    let all = |table: &str| {
        let prefixes = ["203.0.113.0/24", "10.9.0.0/16", "2001:db8:9::/48"];
        prefixes.iter().all(|prefix| table.contains(prefix))
    };
    wait(&lab, "all", all);
    for pause in ["", "sleep 0.3;"] {
        lab.run(
            "r",
            &format!(
                "ip addr del 198.51.100.1/30 dev e1; {pause} ip addr add 198.51.100.1/30 dev e1"
            ),
        );
        wait(&lab, "after the address", all);
        lab.run(
            "r",
            &format!(
                "ip link set e1 down; {pause} ip link set e1 up; ip addr replace 2001:db8:1::1/64 dev e1 nodad"
            ),
        );
        wait(&lab, "after the link", all);
    }
    assert_eq!(router.status().refused, []);
}

/// The outer packet has the endpoint as its source: rules that look at it count.
#[test]
fn far_ends_are_looked_up_as_outer_packets_are() {
    if !privileged() {
        return;
    }
    let lab = Lab::new(&["r", "x"]);
    lab.link(
        ("r", "e1", "198.51.100.1/30"),
        ("x", "e1", "198.51.100.2/30"),
    );
    lab.run("r", "ip addr add 192.0.2.1/32 dev lo");
    let config = DataplaneConfig {
        endpoint: Some([192, 0, 2, 1].into()),
        ..DataplaneConfig::default()
    };
    let router = lab.start("r", config);
    let far: IpAddr = [192, 0, 2, 2].into();
    router.track_endpoints(vec![far]);
    router.wait(|status| {
        let conditions = status.conditions.iter();
        let mut found = conditions.filter(|one| one.kind == ConditionKind::Unreachable);
        let remedy = found.next().and_then(|one| one.remedy.clone());
        remedy.is_some_and(|remedy| remedy.contains("install_underlay"))
    });
    lab.run(
        "r",
        "ip route add 192.0.2.2/32 via 198.51.100.2 metric 7 table 77",
    );
    lab.run("r", "ip rule add pref 50 from 192.0.2.1 lookup 77");
    router.wait_for(move |event| {
        *event == DataplaneEvent::EndpointReachability(vec![(far, Some(7))])
    });
    router.wait(|status| {
        status
            .conditions
            .iter()
            .all(|one| one.kind != ConditionKind::Unreachable)
    });
    lab.run("r", "ip rule del pref 50");
    router.wait_for(move |event| *event == DataplaneEvent::EndpointReachability(vec![(far, None)]));
}
