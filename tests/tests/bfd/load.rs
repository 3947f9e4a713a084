//! BFD while everything else is busy.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde_json::Value;
use weft_tests::topology::{forwarding, topology};
use weft_tests::{Lab, Speaker, need};

use crate::{NEAR, R, all_up};

/// What BFD counts at a node, and towards its only neighbour with BFD.
fn counted(lab: &Lab, node: &str, address: &str) -> Value {
    let one = lab.neighbor(node, address).unwrap();
    let status = lab.get(node, "status").unwrap();
    let bfd = &one["bfd"];
    let pick = |keys: [&str; 7]| keys.map(|key| format!("{key} {}", bfd[key])).join(", ");
    let session = pick([
        "state",
        "downs",
        "late",
        "sent_late",
        "sent",
        "received",
        "detection_time",
    ]);
    let classes = status["bfd"]["lateness"]["classes"].as_array().unwrap();
    let classes: Vec<String> = classes
        .iter()
        .map(|one| format!("<= {} us: {}", one["at_most"], one["times"]))
        .collect();
    eprintln!(
        "{node}: {}; {session}; woken late: {}; longest {} us",
        status["bfd"]["scheduling"],
        classes.join(", "),
        status["bfd"]["lateness"]["longest"],
    );
    bfd.clone()
}

/// 50 ms x 3 between two routers while one takes a table, loses it and takes it again, and all processors are busy with other things.
/// `BFD_SECONDS` says for how long; a minute takes a minute.
#[test]
fn a_table_that_loads_is_no_failure() {
    if !need(&["ip", "curl"]) {
        return;
    }
    let seconds = std::env::var("BFD_SECONDS")
        .ok()
        .and_then(|text| text.parse().ok());
    let time = Duration::from_secs(seconds.unwrap_or(20));
    let other = |name: &str, id: u8, asn: u32, peer: &str, peer_asn: u32, more: &str| {
        let text = format!(
            "router: {{ name: {name}, router_id: 192.0.2.{id}, asn: {asn}, default_policy: accept }}
neighbors:
  - {{ address: {peer}, asn: {peer_asn}, bfd: {{ interval: 50ms }}, export: reject }}
{more}"
        );
        (format!("{name}.yaml"), text)
    };
    let f = "  - { address: 198.51.100.10, asn: 65003, passive: true }\n";
    let files = [
        other("r", 1, 64601, NEAR[0], 65001, f),
        other("p", 2, 65001, R[0], 64601, ""),
    ];
    let nodes = [
        (
            "r",
            true,
            forwarding(&["e1 198.51.100.1/30", "e2 198.51.100.9/30"]),
        ),
        ("p", true, forwarding(&["e1 198.51.100.2/30"])),
        ("f", false, forwarding(&["e2 198.51.100.10/30"])),
    ];
    let lab = Lab::up(
        &topology(&nodes, &[("r:e1", "p:e1"), ("r:e2", "f:e2")]),
        &files,
    );
    all_up(&lab, [NEAR[0]; 2], "comes up");
    let routes = weft_load::internet(200_000);
    let sender = weft_load::Sender {
        address: [198, 51, 100, 10].into(),
        asn: Some(65003),
    };
    let (announce, withdraw) = (routes.announce(sender), routes.withdraw());
    let speaker = Speaker {
        netns: lab.netns("f"),
        router: [198, 51, 100, 9].into(),
        asn: 65003,
        router_id: [192, 0, 2, 3].into(),
    };
    let mut peer = speaker.establish();
    let stop = AtomicBool::new(false);
    let spinners = 2 * std::thread::available_parallelism().unwrap().get();
    let start = Instant::now();
    let tables = std::thread::scope(|scope| {
        for _ in 0..spinners {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    std::hint::spin_loop();
                }
            });
        }
        let mut tables = 0;
        while start.elapsed() < time {
            peer.send(&announce);
            peer.send(&withdraw);
            tables += 1;
        }
        stop.store(true, Ordering::Relaxed);
        tables
    });
    eprintln!(
        "{tables} tables of 200,000 prefixes in {} s, {spinners} threads that spin",
        start.elapsed().as_secs()
    );
    all_up(&lab, [NEAR[0]; 2], "is up at the end");
    let r = counted(&lab, "r", NEAR[0]);
    counted(&lab, "p", R[0]);
    // A kernel that wakes nobody for an interval is no fault of ours.
    let interval = 50_000;
    let woken = |node: &str| {
        let status = lab.get(node, "status").unwrap();
        status["bfd"]["lateness"]["longest"].as_u64().unwrap() < interval
    };
    if woken("r") && woken("p") {
        assert_eq!(r["downs"], 0, "{r}");
    }
}
