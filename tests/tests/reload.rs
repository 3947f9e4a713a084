//! Another configuration while the router runs: what is the same in both stays untouched.

#![allow(clippy::unwrap_used, reason = "a test: a panic is its verdict")]

use std::process::{Child, Stdio};
use std::time::Duration;

use serde_json::Value;
use weft_tests::topology::{forwarding, topology};
use weft_tests::{Lab, need, wait_until};

/// Two routers, and at each a host of red and one of blue, with the same addresses.
fn up() -> Lab {
    let mut nodes = Vec::new();
    let mut files = Vec::new();
    let hosts: Vec<String> = ["red-a", "blue-a", "red-b", "blue-b"]
        .map(str::to_owned)
        .into();
    for (at, (name, number)) in [("a", 1), ("b", 2)].into_iter().enumerate() {
        let other = 3 - number;
        let mut exec = forwarding(&[
            &format!("lo 192.0.2.{number}/32"),
            &format!("eth1 10.255.0.{number}/24"),
            &format!("red0 10.0.{number}.1/24"),
            &format!("blue0 10.0.{number}.1/24"),
        ]);
        exec.push(format!(
            "ip route add 192.0.2.{other}/32 via 10.255.0.{other}"
        ));
        nodes.push((name, true, exec));
        files.push((format!("{name}.yaml"), config(number, &["red"], "", "")));
        for host in &hosts[at * 2..at * 2 + 2] {
            nodes.push((
                host,
                false,
                vec![
                    format!("ip address add 10.0.{number}.10/24 dev eth1"),
                    format!("ip route replace default via 10.0.{number}.1"),
                ],
            ));
        }
    }
    let links = [
        ("a:eth1", "b:eth1"),
        ("a:red0", "red-a:eth1"),
        ("a:blue0", "blue-a:eth1"),
        ("b:red0", "red-b:eth1"),
        ("b:blue0", "blue-b:eth1"),
    ];
    Lab::up(&topology(&nodes, &links), &files)
}

fn config(number: u8, tenants: &[&str], session: &str, more: &str) -> String {
    let tenants = tenants.iter().map(|name| {
        let vni = if *name == "red" { 10001 } else { 10002 };
        format!("  - {{ name: {name}, vni: {vni}, interfaces: [{name}0], prefixes: [10.0.{number}.0/24] }}\n")
    });
    let tenants: String = tenants.collect();
    let other = 3 - number;
    format!(
        "router: {{ name: r{number}, router_id: 192.0.2.{number}, asn: 64601 }}
overlay: {{ global_administrator: 64512, endpoint: 192.0.2.{number} }}
tenants:
{tenants}neighbors:
  - {{ address: 10.255.0.{other}, asn: 64601{session} }}
{more}"
    )
}

/// Red's packets, from before a change until after it.
fn packets(lab: &Lab) -> Child {
    let mut ping = lab.command("red-a", "ping");
    let line = ["-q", "-i", "0.002", "-W", "2", "-c", "1000", "10.0.2.10"];
    ping.args(line).stdout(Stdio::piped()).spawn().unwrap()
}

fn all_arrived(ping: Child) {
    let told = ping.wait_with_output().unwrap();
    let told = String::from_utf8_lossy(&told.stdout);
    assert!(told.contains("1000 received, 0%"), "{told}");
}

fn session(lab: &Lab) -> (Value, Value) {
    let neighbor = lab.neighbor("a", "10.255.0.2").unwrap();
    (neighbor["state"].clone(), neighbor["flaps"].clone())
}

fn is_gone(lab: &Lab, host: &str, address: &str) {
    let mut ping = lab.command(host, "ping");
    let ping = ping.args(["-c1", "-W1", address]).stdout(Stdio::null());
    assert!(!ping.status().unwrap().success());
}

#[test]
fn tenants_and_neighbours_come_and_go_and_the_others_notice_nothing() {
    if !need(&["ip", "curl", "ping"]) {
        return;
    }
    let lab = up();
    for router in ["a", "b"] {
        lab.converged(router);
    }
    lab.reaches("red-a", "10.0.2.10");
    let ping = packets(&lab);
    let up = (Value::from("established"), Value::from(0));

    // A second tenant with the same prefixes, where the far side's routes are there before the tenant is, and a network.
    let more = "networks: [198.51.100.0/24]\n";
    for (router, number) in [("b", 2), ("a", 1)] {
        let told = lab.reload(router, &config(number, &["red", "blue"], "", more));
        assert!(
            told.ends_with("1 tenant added, 1 network announced"),
            "{told}"
        );
    }
    lab.reaches("blue-a", "10.0.2.10");
    wait_until("the network", Duration::from_secs(10), || {
        (!lab.paths("b", "198.51.100.0/24").is_empty()).then_some(())
    });
    // What changes nothing changes nothing, and a description changes under the session.
    let told = lab.reload("a", &config(1, &["red", "blue"], "", more));
    assert!(told.ends_with("reloaded: nothing changed"), "{told}");
    let described = config(
        1,
        &["red", "blue"],
        ", description: far, max_prefixes: 100",
        more,
    );
    let told = lab.reload("a", &described);
    assert!(told.ends_with("reloaded: 1 neighbour changed"), "{told}");
    assert_eq!(
        lab.neighbor("a", "10.255.0.2").unwrap()["description"],
        "far"
    );
    // What is wrong changes nothing, and is told with its place.
    let told = lab.reload("a", &described.replace("10.0.1.0/24", "10.0.1.0/33"));
    assert!(
        told.contains("a.yaml") || lab.log("a").contains("10.0.1.0/33"),
        "{told}"
    );
    // Blue goes again, here and there; a label of it is somebody else's here.
    for (router, number) in [("a", 1), ("b", 2)] {
        let told = lab.reload(router, &config(number, &["red"], "", ""));
        assert!(
            told.contains("1 tenant removed, 1 network withdrawn"),
            "{told}"
        );
        assert_eq!(
            lab.get(router, "tenants")
                .unwrap()
                .as_array()
                .unwrap()
                .len(),
            1
        );
    }
    is_gone(&lab, "blue-a", "10.0.2.10");
    all_arrived(ping);
    assert_eq!(session(&lab), up);

    // Another hold time is another session: the old one ends with Cease, Other Configuration Change, and only that one.
    let told = lab.reload("a", &config(1, &["red"], ", hold_time: 30", ""));
    assert!(told.ends_with("reloaded: 1 session restarted"), "{told}");
    lab.converged("a");
    let far = || lab.neighbor("b", "10.255.0.1");
    let flapped = wait_until("the new session", Duration::from_secs(30), || {
        far().filter(|far| far["state"] == "established" && far["flaps"] == 1)
    });
    assert!(
        flapped.to_string().contains("Configuration Change"),
        "{flapped}"
    );
    // A neighbour that is no longer configured is told so, and its routes go.
    lab.reaches("red-a", "10.0.2.10");
    let alone = config(1, &["red"], "", "");
    let alone = &alone[..alone.find("neighbors:").unwrap()];
    let told = lab.reload("a", alone);
    assert!(told.ends_with("reloaded: 1 neighbour removed"), "{told}");
    wait_until("the end of the session", Duration::from_secs(10), || {
        far().filter(|far| far["state"] != "established")
    });
    let routes = lab.get("a", "tenants/red/routes").unwrap();
    assert_eq!(routes["total"], 1, "{routes}");
    is_gone(&lab, "red-a", "10.0.2.10");
    let told = lab.reload("a", &config(1, &["red"], "", ""));
    assert!(told.ends_with("reloaded: 1 neighbour added"), "{told}");
    lab.reaches("red-a", "10.0.2.10");
    // What needs a restart is said, and not done by half.
    let other = config(1, &["red"], "", "").replace("name: r1", "name: other");
    lab.reload("a", &other);
    assert!(
        lab.log("a").contains("in force after a restart"),
        "{}",
        lab.log("a")
    );
    assert_eq!(lab.get("a", "status").unwrap()["name"], "r1");
}
