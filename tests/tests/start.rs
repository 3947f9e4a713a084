//! Starts that go wrong cost nothing: neither what runs already, nor the host.

#![allow(clippy::unwrap_used, reason = "a test: a panic is its verdict")]

use std::net::{TcpListener, UdpSocket};
use std::process::Output;

use weft_tests::topology::{forwarding, topology};
use weft_tests::{Lab, need, weft};

const R: &str = "router: { name: r, router_id: 192.0.2.1, asn: 64601 }
overlay: { global_administrator: 64512, endpoint: 192.0.2.1 }
tenants: [{ name: red, vni: 10001, interfaces: [red0], prefixes: [10.0.1.0/24] }]
api: { listen: 127.0.0.1:8179 }
";

/// A router `r` that runs, and a node `n` that has what it needs for one, and none.
fn lab() -> Lab {
    let node = || forwarding(&["lo 192.0.2.1/32", "red0 10.0.1.1/24"]);
    let nodes = [
        ("r", true, node()),
        ("n", false, node()),
        ("red-r", false, Vec::new()),
        ("red-n", false, Vec::new()),
    ];
    let links = [("r:red0", "red-r:eth1"), ("n:red0", "red-n:eth1")];
    let lab = Lab::up(&topology(&nodes, &links), &[("r.yaml".into(), R.into())]);
    lab.converged("r");
    lab
}

fn start(lab: &Lab, node: &str, config: &str) -> Output {
    let file = lab.path("second.yaml");
    std::fs::write(&file, config).unwrap();
    let mut command = lab.command(node, weft());
    command.args(["router", "--config"]).arg(&file);
    command.output().unwrap()
}

/// Rules, routes, devices and nftables' tables of a node; the kernel's link-local addresses come when they like.
fn kernel(lab: &Lab, node: &str) -> String {
    let all = [
        "ip rule",
        "ip -6 rule",
        "ip route show table all",
        "ip nexthop",
        "ip -brief link",
        "nft -s list ruleset",
    ]
    .map(|command| lab.run(node, command))
    .concat();
    let lines = all.lines();
    lines
        .filter(|line| !line.contains("fe80:") && !line.contains("ff00:"))
        .map(|line| format!("{line}\n"))
        .collect()
}

fn said(output: &Output) -> String {
    assert!(!output.status.success());
    let text = [&output.stdout[..], &output.stderr[..]].concat();
    String::from_utf8(text).unwrap()
}

#[test]
fn a_second_router_in_one_namespace_touches_nothing() {
    if !need(&["ip", "nft", "curl"]) {
        return;
    }
    let lab = lab();
    let before = kernel(&lab, "r");
    let other = R.replace("name: red, vni: 10001", "name: blue, vni: 10002");
    let said = said(&start(&lab, "r", &other));
    assert!(
        said.contains("another weft router runs in this network namespace: process ")
            && said.contains("/etc/weft/weft.yaml"),
        "{said}"
    );
    assert_eq!(kernel(&lab, "r"), before);
    // What a router holds is not removed under it.
    let down = lab.command("r", weft()).arg("down").output().unwrap();
    assert!(!down.status.success());
    assert_eq!(kernel(&lab, "r"), before);
}

#[test]
fn a_start_that_fails_leaves_nothing_behind() {
    if !need(&["ip", "nft", "curl"]) {
        return;
    }
    let lab = lab();
    let before = kernel(&lab, "n");
    for (address, what) in [
        (
            "127.0.0.1:8179",
            "cannot listen for the API at 127.0.0.1:8179",
        ),
        ("0.0.0.0:179", "179"),
    ] {
        let taken = lab.in_node("n", || TcpListener::bind(address).unwrap());
        let said = said(&start(&lab, "n", R));
        assert!(said.contains(what), "{said}");
        assert_eq!(kernel(&lab, "n"), before, "{address}");
        drop(taken);
    }
    let taken = lab.in_node("n", || UdpSocket::bind("0.0.0.0:4789").unwrap());
    let said = said(&start(&lab, "n", R));
    assert!(
        said.contains("UDP port 4789, at which vx0 takes packets, is taken"),
        "{said}"
    );
    assert_eq!(kernel(&lab, "n"), before);
    drop(taken);
}

#[test]
fn the_api_is_at_a_socket_of_its_owners_which_commands_ask() {
    if !need(&["ip", "nft", "curl", "stat"]) {
        return;
    }
    let config = R.replace("api: { listen: 127.0.0.1:8179 }", "api: {}");
    let nodes = [
        (
            "r",
            true,
            forwarding(&["lo 192.0.2.1/32", "red0 10.0.1.1/24"]),
        ),
        ("red-r", false, Vec::new()),
    ];
    let links = [("r:red0", "red-r:eth1")];
    let lab = Lab::up(&topology(&nodes, &links), &[("r.yaml".into(), config)]);
    let show = "while ! env -u WEFT_API weft show tenants; do sleep 0.05; done";
    assert!(lab.shell("r", show).contains("red"));
    let socket = "/run/weft/api.sock";
    let file = lab.shell("r", &format!("stat -c '%F %a' {socket}"));
    assert_eq!(file.trim(), "socket 600");
    let curl = format!("curl -sf --unix-socket {socket} http://localhost/api/v1/status");
    assert!(lab.shell("r", &curl).contains("\"name\":\"r\""));
    assert!(!lab.run("r", "ss -Hltn").contains(":8179"));
    // What a killed process leaves is no obstacle.
    lab.kill("r");
    lab.start("r");
    assert!(lab.shell("r", show).contains("red"));
}
