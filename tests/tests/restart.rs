//! What a fault costs: an interface that goes down costs its routes, a killed process costs nothing.

#![allow(clippy::unwrap_used, reason = "a test: a panic is its verdict")]

use std::time::Duration;

use nix::sys::signal::Signal;
use weft_tests::topology::{ROUTERS, two_domains};
use weft_tests::{Lab, find, need, wait_until};

fn up() -> Lab {
    let topology = two_domains(true, &[]);
    let lab = Lab::up(&topology.text, &topology.files);
    for node in ROUTERS.into_iter().chain(["t"]) {
        lab.converged(node);
    }
    lab.reaches("red-a", "10.0.2.10");
    lab.reaches("blue-a", "10.0.2.10");
    lab
}

/// In how many tables of b1's kernel our route to a1's prefix is.
fn far_routes(lab: &Lab) -> usize {
    lab.run("b1", "ip route show table all proto 87")
        .lines()
        .filter(|line| line.starts_with("10.0.1.0/24 "))
        .count()
}

#[test]
fn a_tenant_interface_takes_its_route_with_it() {
    if !need(&["ip", "curl", "ping"]) {
        return;
    }
    let lab = up();
    let far = |routes: usize, why: &str| {
        let what = format!("{routes} routes to 10.0.1.0/24 in b1's kernel: {why}");
        wait_until(&what, Duration::from_secs(60), || {
            (far_routes(&lab) == routes).then_some(())
        });
    };
    far(2, "red and blue are up");
    lab.run("a1", "ip link set red0 down");
    far(1, "red is down");
    lab.reaches("blue-a", "10.0.2.10");
    lab.run("a1", "ip link set red0 up");
    far(2, "red is up again");
    lab.reaches("red-a", "10.0.2.10");
}

#[test]
fn a_killed_router_loses_no_packet() {
    if !need(&["ip", "curl", "ping"]) {
        return;
    }
    let lab = up();
    let ping = find("ping").unwrap();
    for node in ["a1", "ea", "t", "eb", "b1"] {
        let arguments = ["-i", "0.001", "10.0.2.10"];
        let ping = lab.daemon("red-a", &ping, &arguments);
        let before = lab.get(node, "status").unwrap()["uptime"].as_u64().unwrap();
        lab.kill(node);
        let what = format!("{node} is down");
        wait_until(&what, Duration::from_secs(20), || {
            lab.get(node, "status").is_none().then_some(())
        });
        lab.start(node);
        lab.converged(node);
        for neighbor in ROUTERS.into_iter().chain(["t"]) {
            lab.converged(neighbor);
        }
        let kept = || {
            ROUTERS.into_iter().chain(["t"]).any(|node| {
                let list = lab.get(node, "neighbors").unwrap();
                let mut neighbors = list.as_array().unwrap().iter();
                neighbors.any(|neighbor| neighbor["stale"] == true)
            })
        };
        wait_until("no stale routes", Duration::from_secs(150), || {
            (!kept()).then_some(())
        });
        // What follows the end of a restart belongs to it: another thousand packets.
        let sent = || ping.log().lines().count();
        let mark = sent() + 1000;
        wait_until("a thousand packets", Duration::from_secs(60), || {
            (sent() >= mark).then_some(())
        });
        let after = lab.get(node, "status").unwrap()["uptime"].as_u64().unwrap();
        eprintln!("{node}: uptime {before} s, killed, {after} s");
        let log = ping.stop(Signal::SIGINT);
        let line = log
            .lines()
            .find(|line| line.contains("packets transmitted"))
            .unwrap_or_else(|| panic!("no summary: {}", &log[..log.len().min(1000)]));
        eprintln!("{node}: {line}");
        let mut numbers = line
            .split(|letter: char| !letter.is_ascii_digit())
            .filter_map(|word| word.parse::<u64>().ok());
        let (sent, received) = (numbers.next().unwrap(), numbers.next().unwrap());
        assert!(sent > 100, "{line}");
        // ping's end may catch the last packet under way; none before it may be missing. Sequence numbers have 16 bits.
        let last = log.rsplit_once("icmp_seq=").unwrap().1;
        let last: u64 = last.split(' ').next().unwrap().parse().unwrap();
        assert_eq!(last, received % 65_536, "{node} killed: {line}");
        assert!(sent - received <= 1, "{node} killed: {line}");
        assert!(!line.contains("error"), "{node} killed: {line}");
    }
}

/// RFC 4724 section 4.1: a router that comes back waits for those who may have kept its routes, says so, and no longer than they can
/// be expected to answer.
#[test]
fn a_neighbour_that_is_away_does_not_hold_a_restart_up() {
    if !need(&["ip", "curl", "ping"]) {
        return;
    }
    const INNER: &str = "10.255.1.1";
    const OUTER: &str = "198.51.100.2";
    let lab = up();
    let remembered = |wanted: &[&str]| {
        let what = format!("ea remembers {wanted:?}");
        wait_until(&what, Duration::from_secs(60), || {
            let text = lab.shell("ea", "cat /var/lib/weft/ea/helpers.json || true");
            let helpers: Vec<String> = serde_json::from_str(&text).ok()?;
            (helpers == wanted).then_some(())
        });
    };
    let again = || {
        lab.kill("ea");
        lab.start("ea");
    };
    let awaited = |status: &serde_json::Value| {
        let neighbors = status["awaited"]["neighbors"].as_array().cloned();
        neighbors.unwrap_or_default().contains(&INNER.into())
    };
    let converges = |mut look: Box<dyn FnMut(&serde_json::Value) + '_>| {
        wait_until("ea has converged", Duration::from_secs(60), || {
            let status = lab.get("ea", "status")?;
            look(&status);
            (status["converged"] == true).then_some(())
        });
    };
    remembered(&[INNER, OUTER]);

    // One whose session had ended before is not waited for.
    lab.kill("a1");
    remembered(&[OUTER]);
    again();
    converges(Box::new(|status| assert!(!awaited(status), "{status}")));

    // One that goes with us is, for as long as it can be expected.
    lab.start("a1");
    remembered(&[INNER, OUTER]);
    lab.run("a1", "ip link set eth1 down");
    again();
    let mut named = false;
    converges(Box::new(|status| named |= awaited(status)));
    assert!(named, "status names the one that is waited for");
    remembered(&[OUTER]);
    let log = lab.log("ea");
    assert!(log.contains("going on without them"), "{log}");
    lab.run("a1", "ip link set eth1 up");
    lab.reaches("red-a", "10.0.2.10");
}
