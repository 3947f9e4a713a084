//! What we send, in the eyes of Wireshark.

#![allow(clippy::unwrap_used, reason = "a test: a panic is its verdict")]

use std::time::Duration;

use nix::sys::signal::Signal;
use weft_tests::topology::{forwarding, topology};
use weft_tests::{Lab, find, need, output, wait_until};

fn config(name: &str, own: u8, other: u8) -> String {
    format!(
        "router: {{ name: {name}, router_id: 192.0.2.{own}, asn: 6460{own}, default_policy: accept }}
overlay: {{ global_administrator: 64512, endpoint: 192.0.2.{own} }}
tenants:
  - {{ name: red, vni: 10001, interfaces: [red0], prefixes: [10.0.{own}.0/24, 10.1.{own}.0/24] }}
  - {{ name: blue, vni: 10002, prefixes: [10.0.{own}.0/24] }}
networks: [172.16.{own}.0/24, \"2001:db8:{own}::/48\"]
neighbors:
  - address: 198.51.100.{other}
    asn: 6460{other}
    families: [ipv4-unicast, ipv6-unicast]
    local_address_v6: 2001:db8:ff::{own}
    accept_vnis: all
"
    )
}

#[test]
fn what_we_send_decodes_without_a_complaint() {
    if !need(&["ip", "curl", "tcpdump", "tshark"]) {
        return;
    }
    let prepare = |own: u8| {
        let loopback = format!("lo 192.0.2.{own}/32");
        let link = format!("eth1 198.51.100.{own}/30");
        let mut exec = forwarding(&[&loopback, &link]);
        exec.push(format!(
            "ip -6 address add 2001:db8:ff::{own}/64 dev eth1 nodad"
        ));
        exec
    };
    let nodes = [
        ("r1", true, prepare(1)),
        ("r2", true, prepare(2)),
        ("h1", false, Vec::new()),
        ("h2", false, Vec::new()),
    ];
    let links = [
        ("r1:eth1", "r2:eth1"),
        ("r1:red0", "h1:eth1"),
        ("r2:red0", "h2:eth1"),
    ];
    let files = [
        ("r1.yaml".to_owned(), config("r1", 1, 2)),
        ("r2.yaml".to_owned(), config("r2", 2, 1)),
    ];
    let lab = Lab::up(&topology(&nodes, &links), &files);
    lab.converged("r1");
    // A session from its first octet on: the capture starts while r2 is away.
    lab.kill("r2");
    let file = lab.path("bgp.pcap");
    let name = file.to_str().unwrap();
    let arguments = [
        "-i",
        "eth1",
        "-s0",
        "-U",
        "--immediate-mode",
        "-Z",
        "root",
        "-w",
        name,
        "tcp port 179",
    ];
    let capture = lab.daemon("r1", &find("tcpdump").unwrap(), &arguments);
    wait_until("tcpdump to listen", Duration::from_secs(20), || {
        capture.log().contains("listening on").then_some(())
    });
    lab.start("r2");
    let holds = |prefix: &str, there: bool| {
        let what = format!("{prefix} at r2: {there}");
        wait_until(&what, Duration::from_secs(120), || {
            lab.get("r2", "status")?;
            (lab.paths("r2", prefix).is_empty() != there).then_some(())
        });
    };
    holds("10.1.1.0/24", true);
    holds("172.16.1.0/24", true);
    holds("2001:db8:1::/48", true);
    lab.converged("r1");
    lab.converged("r2");
    lab.run("r1", "ip link set red0 down");
    holds("10.1.1.0/24", false);
    let tshark = |filter: &str| {
        let mut command = lab.command("r1", find("tshark").unwrap());
        command.args(["-r", name, "-d", "tcp.port==179,bgp", "-Y", filter]);
        command
    };
    wait_until(
        "the withdrawal to be captured",
        Duration::from_secs(30),
        || {
            let withdrawals = tshark("bgp.update.withdrawn_routes.length > 0").output();
            (!withdrawals.unwrap().stdout.is_empty()).then_some(())
        },
    );
    let said = capture.stop(Signal::SIGINT);
    let decode = |filter: &str| output(&mut tshark(filter));
    let complaints = decode("bgp && (_ws.malformed || _ws.expert.severity >= 6291456)");
    assert!(complaints.is_empty(), "{complaints}");
    for (what, filter) in [
        ("OPEN", "bgp.type == 1"),
        ("KEEPALIVE", "bgp.type == 4"),
        (
            "LARGE_COMMUNITY",
            "bgp.update.path_attribute.type_code == 32",
        ),
        ("MP_REACH_NLRI", "bgp.update.path_attribute.type_code == 14"),
    ] {
        assert!(!decode(filter).is_empty(), "no {what} was captured: {said}");
    }
}
