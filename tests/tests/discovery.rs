//! Routers that find each other without a controller.

#![allow(clippy::unwrap_used, reason = "a test: a panic is its verdict")]

use std::time::Duration;

use weft_tests::topology::{forwarding, topology};
use weft_tests::{Lab, need, wait_until};

/// Two routers on a link; what finds the other is `discovery`, as the first and the second have it.
fn up(discovery: [&str; 2]) -> Lab {
    let mut nodes = Vec::new();
    let mut files = Vec::new();
    for (at, (name, number)) in [("a", 1), ("b", 2)].into_iter().enumerate() {
        nodes.push((
            name,
            true,
            forwarding(&[&format!("eth1 10.255.0.{number}/24")]),
        ));
        let config = format!(
            "router: {{ name: {name}, router_id: 192.0.2.{number}, asn: 64601 }}\n\
             networks: [198.51.100.{number}/32]\n{}\n",
            discovery[at]
        );
        files.push((format!("{name}.yaml"), config));
    }
    Lab::up(&topology(&nodes, &[("a:eth1", "b:eth1")]), &files)
}

fn established(lab: &Lab, node: &str, address: &str) {
    wait_until(
        &format!("{node}: {address}"),
        Duration::from_secs(60),
        || {
            lab.neighbor(node, address)
                .filter(|one| one["state"] == "established")
        },
    );
}

#[test]
fn routers_on_a_link_find_each_other() {
    if !need(&["ip", "curl"]) {
        return;
    }
    let mdns = "discovery: [{ mdns: { interface: eth1 } }]";
    let lab = up([mdns, mdns]);
    established(&lab, "a", "10.255.0.2");
    established(&lab, "b", "10.255.0.1");
    wait_until("the route", Duration::from_secs(20), || {
        (!lab.paths("a", "198.51.100.2/32").is_empty()).then_some(())
    });
}

#[test]
fn a_file_of_peers_brings_sessions_up_and_down() {
    if !need(&["ip", "curl"]) {
        return;
    }
    let path = std::env::temp_dir().join(format!("weft-peers-{}.yaml", std::process::id()));
    std::fs::write(&path, "b: { address: 10.255.0.2 }\n").unwrap();
    let file = format!("discovery: [{{ file: {} }}]", path.display());
    let lab = up([
        &file,
        "neighbors: [{ address: 10.255.0.1, asn: 64601, passive: true }]",
    ]);
    established(&lab, "a", "10.255.0.2");
    assert_eq!(lab.neighbor("a", "10.255.0.2").unwrap()["description"], "b");
    // Somebody else beside: the session stays. Then nobody.
    std::fs::write(
        &path,
        "b: { address: 10.255.0.2 }\nc: { address: 10.255.0.3 }\n",
    )
    .unwrap();
    wait_until("c", Duration::from_secs(20), || {
        lab.neighbor("a", "10.255.0.3")
    });
    assert_eq!(lab.neighbor("a", "10.255.0.2").unwrap()["flaps"], 0);
    std::fs::write(&path, "{}\n").unwrap();
    wait_until("nobody", Duration::from_secs(20), || {
        lab.neighbor("a", "10.255.0.2").is_none().then_some(())
    });
    let _ = std::fs::remove_file(&path);
}
