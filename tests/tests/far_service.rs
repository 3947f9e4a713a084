//! A stateful service of another domain: the edge that packets come in by chooses its node as the domain's own routers do.

#![allow(clippy::unwrap_used, reason = "a test: a panic is its verdict")]

use std::time::Duration;

use weft_tests::chain::{counted, whole};
use weft_tests::topology::{forwarding, topology};
use weft_tests::{Lab, need, wait_until};

/// What all routers say of the tenant: both directions meet one node.
const CHAIN: &str = "chains: [{ name: web, symmetric: true, match: { source: [10.0.1.0/24], destination: [10.0.2.0/24] }, services: [firewall] }]";

fn config(name: &str) -> String {
    let service = "{ name: firewall, label: 20001 }";
    let node = "{ name: firewall, label: 20001, interface: fw0, node: 169.254.1.2, probe: { interval: 100 } }";
    let (number, asn, tenant, services) = match name {
        "a" => (
            1,
            64601,
            "interfaces: [red0], prefixes: [10.0.1.0/24], ",
            service,
        ),
        "eb" => (2, 64602, "", service),
        "b1" => (3, 64602, "", node),
        _ => (
            4,
            64602,
            "interfaces: [red0], prefixes: [10.0.2.0/24], ",
            node,
        ),
    };
    let neighbors = match name {
        "a" => "  - { address: 10.255.0.2, asn: 64602, accept_vnis: [10001, 20001] }\n",
        "eb" => {
            "  - { address: 10.255.0.1, asn: 64601, accept_vnis: [10001, 20001] }
  - { address: 10.255.1.2, asn: 64602, route_reflector_client: true }
  - { address: 10.255.2.2, asn: 64602, route_reflector_client: true }\n"
        }
        "b1" => "  - { address: 10.255.1.1, asn: 64602 }\n",
        _ => "  - { address: 10.255.2.1, asn: 64602 }\n",
    };
    format!(
        "router: {{ name: {name}, router_id: 192.0.2.{number}, asn: {asn}, default_policy: accept }}
overlay: {{ global_administrator: 64512, endpoint: 192.0.2.{number} }}
tenants:
  - {{ name: red, vni: 10001, {tenant}services: [{services}], {CHAIN} }}
neighbors:
{neighbors}"
    )
}

/// The user behind a; eb, which has nobody; both nodes behind it, the nearer one beside the server.
fn lab() -> Lab {
    let host = |site: u8| {
        vec![
            format!("ip address add 10.0.{site}.10/24 dev eth1"),
            format!("ip route replace default via 10.0.{site}.1"),
        ]
    };
    let router = |addresses: &[&str], routes: &[&str]| {
        let mut exec = forwarding(addresses);
        exec.extend(routes.iter().map(|route| format!("ip route add {route}")));
        exec
    };
    let node = || {
        let mut exec = forwarding(&["eth1 169.254.1.2/30"]);
        exec.push("ip route add default via 169.254.1.1".to_owned());
        let counters = "add counter inet s there; add counter inet s back;";
        exec.push(format!(
            "nft 'add table inet s; {counters} add chain inet s f {{ type filter hook forward priority 0; }}; \
             add rule inet s f icmp type echo-request counter name there; \
             add rule inet s f icmp type echo-reply counter name back'"
        ));
        exec
    };
    let nodes = [
        (
            "a",
            true,
            router(
                &["lo 192.0.2.1/32", "eth1 10.255.0.1/30", "red0 10.0.1.1/24"],
                &["192.0.2.2/32 via 10.255.0.2"],
            ),
        ),
        (
            "eb",
            true,
            router(
                &[
                    "lo 192.0.2.2/32",
                    "eth1 10.255.0.2/30",
                    "eth2 10.255.1.1/30",
                    "eth3 10.255.2.1/30",
                ],
                &[
                    "192.0.2.1/32 via 10.255.0.1",
                    "192.0.2.3/32 via 10.255.1.2 metric 200",
                    "192.0.2.4/32 via 10.255.2.2 metric 10",
                ],
            ),
        ),
        (
            "b1",
            true,
            router(
                &[
                    "lo 192.0.2.3/32",
                    "eth1 10.255.1.2/30",
                    "eth2 10.255.3.1/30",
                    "fw0 169.254.1.1/30",
                ],
                &["192.0.2.2/32 via 10.255.1.1", "192.0.2.4/32 via 10.255.3.2"],
            ),
        ),
        (
            "b2",
            true,
            router(
                &[
                    "lo 192.0.2.4/32",
                    "eth1 10.255.2.2/30",
                    "eth2 10.255.3.2/30",
                    "fw0 169.254.1.1/30",
                    "red0 10.0.2.1/24",
                ],
                &["192.0.2.2/32 via 10.255.2.1", "192.0.2.3/32 via 10.255.3.1"],
            ),
        ),
        ("n1", false, node()),
        ("n2", false, node()),
        ("user", false, host(1)),
        ("server", false, host(2)),
    ];
    let links = [
        ("a:eth1", "eb:eth1"),
        ("eb:eth2", "b1:eth1"),
        ("eb:eth3", "b2:eth1"),
        ("b1:eth2", "b2:eth2"),
        ("b1:fw0", "n1:eth1"),
        ("b2:fw0", "n2:eth1"),
        ("a:red0", "user:eth1"),
        ("b2:red0", "server:eth1"),
    ];
    let files = ["a", "eb", "b1", "b2"].map(|name| (format!("{name}.yaml"), config(name)));
    Lab::up(&topology(&nodes, &links), &files)
}

#[test]
fn both_directions_meet_one_node_behind_an_edge() {
    if !need(&["ip", "nft", "ping"]) {
        return;
    }
    let lab = lab();
    whole(&lab, &["a", "eb", "b1", "b2"]);
    lab.reaches("user", "10.0.2.10");
    let count = |node: &str| ["there", "back"].map(|counter| counted(&lab, node, counter));
    // Node 1 is the lower endpoint's, wherever packets come from; node 2 is nearer.
    let pass = |node: &str, other: &str| {
        let before = (count(node), count(other));
        lab.run("user", "ping -c 20 -i 0.01 -W 2 -q 10.0.2.10");
        let after = (count(node), count(other));
        let more = |at: usize| (after.0[at] - before.0[at], after.1[at] - before.1[at]);
        assert_eq!((more(0), more(1)), ((20, 0), (20, 0)), "{node}, {other}");
    };
    pass("n1", "n2");
    // It goes, and both directions go over to the other one together.
    lab.run("n1", "ip link set eth1 down");
    wait_until("node 2 has it", Duration::from_secs(60), || {
        let before = count("n2");
        lab.command("user", "ping")
            .args(["-c", "1", "-W", "1", "-q", "10.0.2.10"])
            .output()
            .unwrap();
        let after = count("n2");
        (before[0] < after[0] && before[1] < after[1]).then_some(())
    });
    pass("n2", "n1");
}
