//! Graceful restart: of a router, beside FRR and Weft, and what only may be one.

use std::process::Command;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use weft_tests::topology::{forwarding, topology};
use weft_tests::{Lab, need, output, wait_until};

use crate::{LIMIT, R, Rival, all_up, neighbor, silence, speech, text, vtysh, with};

#[test]
fn frr_keeps_the_routes_of_a_router_that_starts_again() {
    if !need(&["ip", "curl", "vtysh", "/usr/lib/frr/bfdd"]) {
        return;
    }
    let (lab, p, _daemons) = with(Rival::Frr, false, "{ interval: 100ms }");
    all_up(&lab, p, "comes up first");
    let each = |address| format!("neighbor {address} bfd check-control-plane-failure");
    vtysh(
        &lab,
        &[
            "router bgp 65001",
            "bgp graceful-restart",
            &each(R[0]),
            &each(R[1]),
        ],
    );
    let flaps = |address| neighbor(&lab, address).unwrap()["flaps"].as_u64().unwrap();
    let before = p.map(flaps);
    vtysh(&lab, &["do clear bgp *"]);
    for (address, before) in p.into_iter().zip(before) {
        wait_until("sessions begin anew", LIMIT, || {
            (flaps(address) > before).then_some(())
        });
    }
    all_up(&lab, p, "comes up");
    let shown = |what: &str| {
        let mut vtysh = Command::new("vtysh");
        vtysh.args(["--vty_socket", text(lab.directory()), "-c", what]);
        output(&mut vtysh)
    };
    let route = || shown("show bgp ipv4 unicast 192.0.2.0/24");
    wait_until("p has r's route", LIMIT, || {
        route().contains("64601").then_some(())
    });
    for signal in [Signal::SIGTERM, Signal::SIGKILL] {
        lab.signal("r", signal);
        wait_until("p misses r", LIMIT, || {
            let peers = shown("show bfd peers");
            (!peers.contains("Status: up")).then_some(())
        });
        // BFD's client has been told, and has done what it does.
        std::thread::sleep(Duration::from_millis(500));
        let kept = route();
        assert!(
            kept.contains("64601") && kept.contains("stale"),
            "{signal}: {kept}"
        );
        lab.start_again("r");
        all_up(&lab, p, "is back");
        wait_until("nothing is stale", LIMIT, || {
            (!route().contains("stale")).then_some(())
        });
    }
}

/// p as a Weft router with graceful restart, and q with the same routes.
fn weft_pair() -> Lab {
    let p = |name: &str, id: u8, asn: u32, other: &str| {
        format!(
            "router: {{ name: {name}, router_id: 192.0.2.{id}, asn: {asn}, default_policy: accept }}
networks: [203.0.113.0/24{}]
neighbors:
  - {{ address: {other}, asn: 64601, connect_retry: 1, bfd: {{ interval: 100ms }} }}
",
            if name == "p" { ", 198.18.0.0/24" } else { "" }
        )
    };
    let r = "router: { name: r, router_id: 192.0.2.1, asn: 64601, default_policy: accept }
install: [203.0.113.0/24, 198.18.0.0/24]
networks: [192.0.2.0/24]
neighbors:
  - { address: 198.51.100.2, asn: 65001, connect_retry: 1, bfd: { interval: 100ms } }
  - { address: 198.51.100.10, asn: 65002, connect_retry: 1, bfd: { interval: 100ms } }
";
    let nodes = [
        (
            "r",
            true,
            forwarding(&["e1 198.51.100.1/30", "e2 198.51.100.9/30"]),
        ),
        ("p", true, forwarding(&["e1 198.51.100.2/30"])),
        ("q", true, forwarding(&["e2 198.51.100.10/30"])),
    ];
    let files = [
        ("r.yaml".to_owned(), r.to_owned()),
        ("p.yaml".to_owned(), p("p", 2, 65001, "198.51.100.1")),
        ("q.yaml".to_owned(), p("q", 3, 65002, "198.51.100.9")),
    ];
    let lab = Lab::up(
        &topology(&nodes, &[("r:e1", "p:e1"), ("r:e2", "q:e2")]),
        &files,
    );
    all_up(&lab, [PAIR[0], PAIR[1]], "comes up");
    lab.converged("r");
    leads(&lab, "203.0.113.1", PAIR[0]);
    leads(&lab, "198.18.0.1", PAIR[0]);
    lab
}

const PAIR: [&str; 2] = ["198.51.100.2", "198.51.100.10"];

/// Waits until r's kernel sends what is for `destination` to `gateway`.
fn leads(lab: &Lab, destination: &str, gateway: &str) {
    wait_until(&format!("{destination} by {gateway}"), LIMIT, || {
        let way = lab.run("r", &format!("ip route get {destination}"));
        way.contains(&format!("via {gateway} ")).then_some(())
    });
}

#[test]
fn what_may_be_a_restart_is_the_last_resort() {
    if !need(&["ip", "nft", "curl"]) {
        return;
    }
    let lab = weft_pair();
    silence(&lab);
    let since = Instant::now();
    leads(&lab, "203.0.113.1", PAIR[1]);
    eprintln!(
        "Weft, graceful restart: traffic moved within {} ms",
        since.elapsed().as_millis()
    );
    let down = neighbor(&lab, PAIR[0]).unwrap();
    assert_eq!(
        (&down["down"]["code"], &down["stale"]),
        (&"bfd-down".into(), &true.into()),
        "{down}"
    );
    // What has no other way stays for the restart.
    leads(&lab, "198.18.0.1", PAIR[0]);
    let paths = lab.paths("r", "203.0.113.0/24");
    let lost = paths
        .iter()
        .find(|path| path["neighbor"] == PAIR[0])
        .unwrap();
    assert_eq!(lost["lost"]["code"], "last-resort", "{lost}");
    speech(&lab);
    all_up(&lab, PAIR, "comes back");
    leads(&lab, "203.0.113.1", PAIR[0]);
}

#[test]
fn a_router_that_starts_again_is_not_taken_for_one_that_is_gone() {
    if !need(&["ip", "curl"]) {
        return;
    }
    let lab = weft_pair();
    for signal in [Signal::SIGTERM, Signal::SIGKILL] {
        lab.signal("p", signal);
        // Longer than the detection time.
        let away = wait_until("BFD and BGP with p are down", LIMIT, || {
            let one = neighbor(&lab, PAIR[0])?;
            (one["state"] != "established" && one["bfd"]["state"] == "down").then_some(one)
        });
        let code = if signal == Signal::SIGTERM {
            "neighbor-admin-down"
        } else {
            "silence"
        };
        assert_eq!(away["bfd"]["down"]["code"], code, "{away}");
        assert_ne!(away["down"]["code"], "bfd-down", "{away}");
        // Its routes are stale, and as good as they were.
        assert_eq!(away["stale"], true, "{away}");
        leads(&lab, "203.0.113.1", PAIR[0]);
        lab.start_again("p");
        all_up(&lab, PAIR, "is back");
        leads(&lab, "203.0.113.1", PAIR[0]);
        wait_until("nothing is stale", LIMIT, || {
            (neighbor(&lab, PAIR[0])?["stale"] == false).then_some(())
        });
    }
}
