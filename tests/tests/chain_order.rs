//! The services of a chain change places while packets go through it, and routers are told one after the other.

#![allow(clippy::unwrap_used, reason = "a test: a panic is its verdict")]

use std::process::{Child, Stdio};
use std::time::Duration;

use weft_tests::chain::{RECEIVER, SENDER, counted, service, wait_for, whole};
use weft_tests::topology::{forwarding, topology};
use weft_tests::{Lab, need, wait_until};

/// The user's router, those of the services, the destination's.
const ROUTERS: [&str; 4] = ["e", "f", "i", "x"];

/// What a router is: labels of the firewall and the inspection, and the order of the chain.
fn config(name: &str, (firewall, inspection): (u32, u32), order: &str) -> String {
    let host = ROUTERS.iter().position(|one| *one == name).unwrap() + 1;
    let (tenant, services) = match name {
        "e" => ("interfaces: [red0], prefixes: [10.0.1.0/24]", ["", ""]),
        "x" => ("interfaces: [red0], prefixes: [10.0.2.0/24]", ["", ""]),
        "f" => (
            "",
            [
                ", interface: fw0, node: 169.254.1.2, probe: { interval: 100 }",
                "",
            ],
        ),
        _ => (
            "",
            [
                "",
                ", interface: in0, node: 169.254.2.2, probe: { interval: 100 }",
            ],
        ),
    };
    let neighbors: String = match name {
        "f" => [1, 3, 4]
            .map(|one| {
                format!(
                    "  - {{ address: 10.255.{one}.1, asn: 64601, route_reflector_client: true }}\n"
                )
            })
            .concat(),
        _ => format!("  - {{ address: 10.255.{host}.2, asn: 64601 }}\n"),
    };
    let comma = if tenant.is_empty() { "" } else { ", " };
    format!(
        "router: {{ name: {name}, router_id: 192.0.2.{host}, asn: 64601 }}
overlay: {{ global_administrator: 64512, endpoint: 192.0.2.{host} }}
tenants:
  - {{ name: red, vni: 10001{comma}{tenant}, services: [
      {{ name: firewall, label: {firewall}{} }},
      {{ name: inspection, label: {inspection}{} }}],
      chains: [{{ name: web, match: {{ source: [10.0.1.0/24] }}, services: [{order}] }}] }}
neighbors:
{neighbors}",
        services[0], services[1]
    )
}

fn host(address: &str, gateway: &str) -> Vec<String> {
    vec![
        format!("ip address add {address} dev eth1"),
        format!("ip route replace default via {gateway}"),
    ]
}

/// The routers of the services and of both users around f; who has not passed both services is counted where it arrives.
fn lab(files: &[(String, String)]) -> Lab {
    let spoke = |host: u8, more: &str| {
        let core = format!("eth1 10.255.{host}.1/30");
        let mut exec = forwarding(&[&format!("lo 192.0.2.{host}/32"), &core, more]);
        exec.push(format!("ip route add 192.0.2.0/24 via 10.255.{host}.2"));
        exec
    };
    let mut hub = forwarding(&[
        "lo 192.0.2.2/32",
        "eth1 10.255.1.2/30",
        "eth3 10.255.3.2/30",
        "eth4 10.255.4.2/30",
        "fw0 169.254.1.1/30",
    ]);
    for host in [1, 3, 4] {
        hub.push(format!(
            "ip route add 192.0.2.{host}/32 via 10.255.{host}.1"
        ));
    }
    let mut sender = host("10.0.1.10/24", "10.0.1.1");
    sender.push(SENDER.into());
    let mut receiver = host("10.0.2.10/24", "10.0.2.1");
    receiver.push(RECEIVER.into());
    let nodes = [
        ("e", true, spoke(1, "red0 10.0.1.1/24")),
        ("f", true, hub),
        ("i", true, spoke(3, "in0 169.254.2.1/30")),
        ("x", true, spoke(4, "red0 10.0.2.1/24")),
        (
            "firewall",
            false,
            service("eth1 169.254.1.2/30", "169.254.1.1", 1),
        ),
        (
            "inspection",
            false,
            service("eth1 169.254.2.2/30", "169.254.2.1", 2),
        ),
        ("sender", false, sender),
        ("receiver", false, receiver),
    ];
    let links = [
        ("e:eth1", "f:eth1"),
        ("i:eth1", "f:eth3"),
        ("x:eth1", "f:eth4"),
        ("f:fw0", "firewall:eth1"),
        ("i:in0", "inspection:eth1"),
        ("e:red0", "sender:eth1"),
        ("x:red0", "receiver:eth1"),
    ];
    Lab::up(&topology(&nodes, &links), files)
}

fn traffic(lab: &Lab) -> Child {
    lab.command("sender", "ping")
        .args(["-i", "0.002", "-w", "300", "-q", "10.0.2.10"])
        .stdout(Stdio::null())
        .spawn()
        .unwrap()
}

#[test]
fn services_on_different_routers_change_places_under_traffic() {
    if !need(&["ip", "curl", "ping", "nft"]) {
        return;
    }
    let there = "firewall, inspection";
    let turned = "inspection, firewall";
    let files = ROUTERS.map(|name| (format!("{name}.yaml"), config(name, (20001, 20002), there)));
    let lab = lab(&files);
    whole(&lab, &ROUTERS);
    let mut pings = traffic(&lab);
    wait_for(&lab, "receiver", "both", 100);
    // With the same labels a router that has not heard of it would lead packets past one of them.
    for node in ROUTERS {
        let said = lab.reload(node, &config(node, (20001, 20002), turned));
        assert!(said.contains("stays as it was"), "{said}");
        assert!(
            said.contains("Give `firewall` and `inspection` another label"),
            "{said}"
        );
    }
    wait_for(&lab, "receiver", "both", 100);
    let rounds = [
        (["e", "f", "i", "x"], turned),
        (["f", "e", "i", "x"], there),
        (["i", "f", "x", "e"], turned),
        (["x", "i", "e", "f"], there),
    ];
    for (round, (nodes, order)) in (1..).zip(rounds) {
        let labels = (20001 + 10 * round, 20002 + 10 * round);
        for node in nodes {
            let said = lab.reload(node, &config(node, labels, order));
            assert!(said.contains("1 tenant changed"), "{said}");
            wait_for(&lab, "sender", "sent", 100);
        }
        wait_for(&lab, "receiver", "both", 200);
        assert_eq!(counted(&lab, "receiver", "other"), 0, "round {round}");
    }
    // A restart is looked at as a reload is.
    let before = lab.log("f").len();
    lab.restart("f", &config("f", (20041, 20042), turned));
    wait_until("the refusal", Duration::from_secs(30), || {
        let said = &lab.log("f")[before..];
        said.contains("Give `firewall` and `inspection` another label")
            .then_some(())
    });
    lab.start_with("f", &config("f", (20041, 20042), there));
    whole(&lab, &ROUTERS);
    for node in ["i", "e", "x", "f"] {
        let before = lab.log(node).len();
        lab.restart(node, &config(node, (20051, 20052), turned));
        wait_for(&lab, "sender", "sent", 100);
        wait_until("its answer", Duration::from_secs(30), || {
            lab.get(node, "chains").map(drop)
        });
        // It begins with what ran: what is in the firewall meanwhile has the inspection before it by the old chain alone.
        let said = &lab.log(node)[before..];
        let finish = said.contains("packets on their way finish");
        assert_eq!(finish, node == "f", "{node}: {said}");
    }
    whole(&lab, &ROUTERS);
    wait_for(&lab, "receiver", "both", 200);
    assert_eq!(counted(&lab, "receiver", "other"), 0, "restarts");
    pings.kill().unwrap();
    pings.wait().unwrap();
}
