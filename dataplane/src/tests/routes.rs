//! Many routes, and next hops that change below them.

use std::process::Command as Process;

use weft_overlay::intent::{Group, GroupId, TenantRoute};

use super::super::*;
use super::domain::{A, B, Domain, M, Mode, route, tenant};
use super::lab::{Lab, privileged};

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
        ..IntentDelta::default()
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
    assert_eq!(router.status().refused, []);
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

/// 10,000 routes a second come and go for a minute while packets pass; in the end the kernel holds what was asked for last.
#[test]
fn churn_under_traffic_ends_in_equality() {
    if !privileged() {
        return;
    }
    const ROUNDS: u32 = 600;
    const ROUTES: u32 = 1000;
    const PACE: Duration = Duration::from_millis(100);
    let domain = Domain::new(Mode::PLAIN);
    let ping = Process::new("ip")
        .args(["netns", "exec", &domain.lab.ns("red-a")])
        .args(["ping", "-c", "12000", "-i", "0.005", "-q", "-W", "2"])
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
    let begin = std::time::Instant::now();
    for round in 0..ROUNDS {
        // What is late is not made up for: the load is bounded, not its end.
        std::thread::sleep((PACE * round).saturating_sub(begin.elapsed()));
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
    assert!(text.contains("12000 received, 0%"), "{text}");
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
        ..IntentDelta::default()
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

/// Ways share by their weights; what flows by one stays there when another goes, and a restart finds the group as it is.
#[test]
fn ways_share_by_weight_and_flows_stay_where_they_are() {
    if !privileged() {
        return;
    }
    let lab = Lab::new(&["r"]);
    let mode = Mode::PLAIN;
    let config = || DataplaneConfig {
        resilient: true,
        ..mode.config(A)
    };
    let mut router = lab.start("r", config());
    let weighted = |nodes: &[u8], weights: &[u16]| {
        let (id, group) = mode.group(7, 10001, nodes);
        let weights = weights.to_vec();
        (id, group.map(|group| Group { weights, ..group }))
    };
    let intent = |group| IntentDelta {
        tenants: vec![tenant(0, "red", 10001, None)],
        groups: vec![group],
        routes: vec![route(0, "10.0.2.0/24", 7)],
        ..IntentDelta::default()
    };
    router.apply(intent(weighted(&[M, B], &[64, 256])));
    assert_eq!(router.status().refused, []);
    // Which tunnel each bucket leads to, by where it ends.
    let buckets = || -> Vec<String> {
        let tunnels = lab.run("r", "ip nexthop");
        let end_of = |id: &str| {
            let one = format!("id {id} ");
            let line = tunnels.lines().find(|line| line.starts_with(&one)).unwrap();
            let end = line.split(" dst ").nth(1).unwrap();
            end.split(' ').next().unwrap().to_owned()
        };
        let listed = lab.run("r", "ip nexthop bucket");
        let ids = listed
            .lines()
            .map(|line| line.split(" nhid ").nth(1).unwrap().trim());
        ids.map(end_of).collect()
    };
    let before = buckets();
    let to_far = before.iter().filter(|end| *end == "192.0.2.3").count();
    assert_eq!(before.len(), 256);
    assert!(
        (200..=208).contains(&to_far),
        "{to_far} of 256: four fifths"
    );
    router.apply(IntentDelta {
        groups: vec![weighted(&[B], &[])],
        ..IntentDelta::default()
    });
    assert_eq!(router.status().refused, []);
    assert!(buckets().iter().all(|end| end == "192.0.2.3"));
    // One that comes back takes over what nothing uses, not what flows.
    router.apply(IntentDelta {
        groups: vec![weighted(&[M, B], &[64, 256])],
        ..IntentDelta::default()
    });
    assert_eq!(router.status().refused, []);
    let object = lab.run("r", "ip nexthop show groups");
    assert!(
        object.contains(",64/") || object.contains(",64 "),
        "{object}"
    );
    router.kill();
    router = lab.start("r", config());
    router.apply(intent(weighted(&[M, B], &[64, 256])));
    router.settle();
    let status = router.status();
    assert_eq!((status.route_requests, status.refused.len()), (0, 0));
    assert_eq!(lab.run("r", "ip nexthop show groups"), object);
}
