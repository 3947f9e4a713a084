//! A service chain across three domains with BIRD between them: the user's in one, the first service in another, the second
//! service and the destination in the third.

#![allow(clippy::unwrap_used, reason = "a test: a panic is its verdict")]

use std::path::Path;
use std::time::Duration;

use weft_tests::chain::counted;
use weft_tests::topology::{forwarding, topology};
use weft_tests::{Lab, find, in_netns, need, wait_until};

/// The domains: number, AS, edge and inner router.
const DOMAINS: [(u8, u32, &str, &str); 3] = [
    (1, 64601, "ea", "a1"),
    (2, 64602, "eb", "b1"),
    (3, 64603, "ec", "c1"),
];

/// What every router says of the chain that takes part; services that are attached there say how.
fn chain(firewall: &str, inspection: &str) -> String {
    format!(
        "    services:
      - {{ name: firewall, label: 20001{firewall} }}
      - {{ name: inspection, label: 20002{inspection} }}
    chains:
      - name: web
        match: {{ source: [10.0.1.0/24], destination: [10.0.2.0/24] }}
        services: [firewall, inspection]
        symmetric: true
"
    )
}

const FIREWALL: &str = ", interface: fw0, node: 169.254.1.2, probe: { interval: 100 }";
const INSPECTION: &str = ", interface: in0, node: 169.254.2.2, outside: { interface: out0, node: 169.254.3.2 }, probe: { interval: 100 }";

fn router(name: &str, domain: u8, asn: u32, host: u8, tenants: &str, neighbors: &str) -> String {
    format!(
        "router: {{ name: {name}, router_id: 192.0.2.{domain}{host}, asn: {asn}, default_policy: accept }}
overlay: {{ global_administrator: 64512, endpoint: 192.0.2.{domain}{host}, install_underlay: true }}
{tenants}neighbors:
{neighbors}"
    )
}

fn site(site: u8, chain: &str) -> String {
    format!(
        "tenants:
  - name: red
    vni: 10001
    interfaces: [red0]
    prefixes: [10.0.{site}.0/24]
{chain}  - {{ name: blue, vni: 10002, interfaces: [blue0], prefixes: [10.0.{site}.0/24] }}
"
    )
}

fn files() -> Vec<(String, String)> {
    let elsewhere = chain("", "");
    let tenants = |name: &str| match name {
        "a1" => site(1, &elsewhere),
        "c1" => site(2, &elsewhere),
        "b1" => format!(
            "tenants:\n  - name: red\n    vni: 10001\n{}",
            chain(FIREWALL, "")
        ),
        "ec" => format!(
            "tenants:\n  - name: red\n    vni: 10001\n{}",
            chain("", INSPECTION)
        ),
        _ => String::new(),
    };
    let mut files = Vec::new();
    for (domain, asn, edge, inner) in DOMAINS {
        let to_edge = format!("  - {{ address: 10.255.{domain}.2, asn: {asn} }}\n");
        files.push((
            format!("{inner}.yaml"),
            router(inner, domain, asn, 1, &tenants(inner), &to_edge),
        ));
        let out = format!(
            "  - {{ address: 10.255.{domain}.1, asn: {asn} }}\n  - {{ address: 198.51.{domain}.2, asn: 64999, accept_vnis: [10001-10002, 20001-20002] }}\n"
        );
        files.push((
            format!("{edge}.yaml"),
            router(edge, domain, asn, 2, &tenants(edge), &out),
        ));
    }
    let peers: String = DOMAINS
        .iter()
        .map(|(domain, asn, edge, _)| {
            format!(
                "protocol bgp to_{edge} {{ local as 64999; neighbor 198.51.{domain}.1 as {asn}; ipv4 {{ import all; export all; }}; }}\n"
            )
        })
        .collect();
    files.push((
        "bird.conf".to_owned(),
        format!(
            "router id 192.0.2.99;\nprotocol device {{ }}\nprotocol kernel {{ ipv4 {{ import none; export all; }}; }}\n{peers}"
        ),
    ));
    files
}

/// What a node does to packets to each site: counts those with the code point that they are to have, and gives them another.
fn stamp(there: (u8, u8), back: (u8, u8)) -> String {
    let rule = |site: u8, (was, becomes): (u8, u8)| {
        format!(
            "add rule inet s f ip daddr 10.0.{site}.0/24 ip dscp {was} counter name to{site} ip dscp set {becomes} accept;"
        )
    };
    format!(
        "nft 'add table inet s; add counter inet s to1; add counter inet s to2; add counter inet s wrong; add chain inet s f {{ type filter hook forward priority 0; }}; {} {} add rule inet s f counter name wrong'",
        rule(2, there),
        rule(1, back)
    )
}

fn watch(dscp: u8) -> String {
    format!(
        "nft 'add table inet s; add counter inet s stamped; add counter inet s other; add chain inet s i {{ type filter hook input priority 0; }}; add rule inet s i icmp type {{ echo-request, echo-reply }} ip dscp {dscp} counter name stamped accept; add rule inet s i icmp type {{ echo-request, echo-reply }} counter name other'"
    )
}

fn lab() -> Lab {
    let host = |site: u8| {
        vec![
            format!("ip address add 10.0.{site}.10/24 dev eth1"),
            format!("ip route replace default via 10.0.{site}.1"),
        ]
    };
    let with = |mut exec: Vec<String>, more: &[String]| {
        exec.extend(more.iter().cloned());
        exec
    };
    let mut nodes: Vec<(&str, bool, Vec<String>)> = Vec::new();
    let mut transit: Vec<String> = Vec::new();
    for (domain, _, edge, inner) in DOMAINS {
        let (endpoint, core) = (
            format!("lo 192.0.2.{domain}1/32"),
            format!("eth1 10.255.{domain}.1/30"),
        );
        let mut addresses = vec![endpoint.as_str(), core.as_str()];
        match inner {
            "a1" => addresses.extend(["red0 10.0.1.1/24", "blue0 10.0.1.1/24"]),
            "b1" => addresses.push("fw0 169.254.1.1/30"),
            _ => addresses.extend(["red0 10.0.2.1/24", "blue0 10.0.2.1/24"]),
        }
        nodes.push((inner, true, forwarding(&addresses)));
        let (endpoint, core, out) = (
            format!("lo 192.0.2.{domain}2/32"),
            format!("eth1 10.255.{domain}.2/30"),
            format!("eth2 198.51.{domain}.1/30"),
        );
        let mut addresses = vec![endpoint.as_str(), core.as_str(), out.as_str()];
        if edge == "ec" {
            addresses.extend(["in0 169.254.2.1/30", "out0 169.254.3.1/30"]);
        }
        nodes.push((edge, true, forwarding(&addresses)));
        transit.push(format!("eth{domain} 198.51.{domain}.2/30"));
    }
    let transit: Vec<&str> = transit.iter().map(String::as_str).collect();
    nodes.push(("t", false, forwarding(&transit)));
    nodes.push((
        "firewall",
        false,
        with(
            forwarding(&["eth1 169.254.1.2/30"]),
            &[
                "ip route add default via 169.254.1.1".into(),
                stamp((0, 1), (3, 4)),
            ],
        ),
    ));
    nodes.push((
        "inspection",
        false,
        with(
            forwarding(&["eth1 169.254.2.2/30", "eth2 169.254.3.2/30"]),
            &[
                "ip route add 10.0.1.0/24 via 169.254.2.1".into(),
                "ip route add 10.0.2.0/24 via 169.254.3.1".into(),
                // An answer has the code point of its question.
                stamp((1, 2), (2, 3)),
            ],
        ),
    ));
    nodes.push(("red-a", false, with(host(1), &[watch(4)])));
    nodes.push(("red-c", false, with(host(2), &[watch(2)])));
    nodes.push(("blue-a", false, host(1)));
    nodes.push(("blue-c", false, host(2)));
    let links = [
        ("a1:eth1", "ea:eth1"),
        ("b1:eth1", "eb:eth1"),
        ("c1:eth1", "ec:eth1"),
        ("ea:eth2", "t:eth1"),
        ("eb:eth2", "t:eth2"),
        ("ec:eth2", "t:eth3"),
        ("b1:fw0", "firewall:eth1"),
        ("ec:in0", "inspection:eth1"),
        ("ec:out0", "inspection:eth2"),
        ("a1:red0", "red-a:eth1"),
        ("a1:blue0", "blue-a:eth1"),
        ("c1:red0", "red-c:eth1"),
        ("c1:blue0", "blue-c:eth1"),
    ];
    Lab::up(&topology(&nodes, &links), &files())
}

/// There at both services and the host, back at both and the other host; and what was out of order.
fn counters(lab: &Lab) -> [u64; 10] {
    [
        ("firewall", "to2"),
        ("inspection", "to2"),
        ("red-c", "stamped"),
        ("inspection", "to1"),
        ("firewall", "to1"),
        ("red-a", "stamped"),
        ("firewall", "wrong"),
        ("inspection", "wrong"),
        ("red-c", "other"),
        ("red-a", "other"),
    ]
    .map(|(node, counter)| counted(lab, node, counter))
}

/// Packets to the other site for as long as it takes; to be ended.
fn traffic(lab: &Lab, node: &str) -> std::process::Child {
    lab.command(node, "ping")
        .args(["-i", "0.01", "-w", "60", "-q", "10.0.2.10"])
        .stdout(std::process::Stdio::null())
        .spawn()
        .unwrap()
}

/// How the chain's two directions do on a router.
fn states(lab: &Lab, node: &str) -> Option<Vec<String>> {
    let chains = lab.get(node, "chains")?;
    let chains = chains.as_array()?;
    chains
        .iter()
        .map(|chain| Some(chain["state"]["code"].as_str()?.to_owned()))
        .collect()
}

fn wait_for_states(lab: &Lab, wanted: &str) {
    for node in ["a1", "b1", "ec", "c1"] {
        let what = format!("{node}: the chain is {wanted}");
        wait_until(&what, Duration::from_secs(60), || {
            let states = states(lab, node)?;
            (states == [wanted, wanted]).then_some(())
        });
    }
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[test]
fn a_chain_crosses_three_domains_and_plain_bgp() {
    if !need(&["ip", "curl", "ping", "bird", "nft"]) {
        return;
    }
    const COUNT: u64 = 10_000;
    let lab = lab();
    let (config, socket) = (lab.path("bird.conf"), lab.path("bird.ctl"));
    let arguments = ["-f", "-c", text(&config), "-s", text(&socket)];
    let _bird = lab.daemon("t", &find("bird").unwrap(), &arguments);
    for (_, _, edge, inner) in DOMAINS {
        lab.converged(edge);
        lab.converged(inner);
    }
    wait_for_states(&lab, "whole");
    lab.reaches("red-a", "10.0.2.10");
    lab.reaches("blue-a", "10.0.2.10");
    let before = counters(&lab);
    let ping = lab.run("red-a", &format!("ping -f -c {COUNT} -W 5 -q 10.0.2.10"));
    assert!(ping.contains(" 0% packet loss"), "{ping}");
    let after = counters(&lab);
    let more: Vec<u64> = after.iter().zip(&before).map(|(a, b)| a - b).collect();
    assert_eq!(more, [COUNT, COUNT, COUNT, COUNT, COUNT, COUNT, 0, 0, 0, 0]);
    // Another tenant with the same prefixes is not steered.
    lab.run("blue-a", "ping -c 20 -i 0.002 -W 5 -q 10.0.2.10");
    assert_eq!(counters(&lab), after);
    // Who asks is told.
    let trace = lab.get(
        "a1",
        "tenants/red/trace?destination=10.0.2.10&from=10.0.1.10",
    );
    let trace = trace.unwrap();
    assert_eq!(trace["chain"]["name"], "web", "{trace:#}");
    assert_eq!(trace["verdict"]["code"], "forwarded", "{trace:#}");
    assert_eq!(trace["chain"]["steps"][0]["routers"][0], "192.0.2.12");
    // Counted where each step is taken: users at a1, behind the firewall at b1, behind the inspection at ec.
    let count = |node: &str, step: usize| {
        let chains = lab.get(node, "chains").unwrap();
        let forward = &chains[0];
        match forward["steps"].get(step) {
            Some(step) => step["packets"].as_u64().unwrap(),
            None => forward["left"].as_u64().unwrap(),
        }
    };
    let counts = [("a1", 0), ("b1", 1), ("ec", 2)].map(|(node, step)| count(node, step));
    assert!(
        counts[0] >= COUNT && counts.iter().all(|count| *count == counts[0]),
        "{counts:?}"
    );

    // The firewall dies under traffic: its label is withdrawn through three domains, and nobody gets past it.
    let mut pings = traffic(&lab, "red-a");
    lab.run("firewall", "ip link set eth1 down");
    wait_for_states(&lab, "broken");
    pings.kill().unwrap();
    pings.wait().unwrap();
    assert_eq!(counters(&lab)[6..], after[6..]);
    let dropped = |lab: &Lab| {
        let chains = lab.get("a1", "chains").unwrap();
        chains[0]["steps"][0]["dropped"].as_u64().unwrap()
    };
    let dropped_before = dropped(&lab);
    let before = counters(&lab);
    let lost = lab
        .command("red-a", "ping")
        .args(["-c5", "-i0.02", "-W1", "-q", "10.0.2.10"])
        .output()
        .unwrap();
    assert!(!lost.status.success());
    assert_eq!(counters(&lab), before);
    let why = lab.get("a1", "chains").unwrap();
    assert_eq!(dropped(&lab), dropped_before + 5, "{why:#}");
    assert!(
        why[0]["state"]["text"]
            .as_str()
            .unwrap()
            .contains("no router announces label 20001"),
        "{why:#}"
    );
    lab.run("firewall", "ip link set eth1 up");
    lab.run("firewall", "ip route replace default via 169.254.1.1");
    wait_for_states(&lab, "whole");
    lab.reaches("red-a", "10.0.2.10");
}

/// The lab of examples/service-chain, with some of its words changed.
fn example(changes: &[(&str, &str)]) -> Lab {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/service-chain");
    let read = |name: &str| {
        let text = std::fs::read_to_string(folder.join(name)).unwrap();
        changes
            .iter()
            .fold(text, |text, (from, to)| text.replace(from, to))
    };
    let files = ["r1.yaml", "r2.yaml", "r3.yaml", "firewall.nft", "meter.nft"];
    let files: Vec<_> = files
        .map(|name| (name.to_owned(), read(name)))
        .into_iter()
        .collect();
    let topology = read("topology.clab.yaml").replace("name: service-chain\n", "");
    let lab = Lab::up(&topology, &files);
    for node in ["r1", "r2", "r3"] {
        wait_until("the chain is whole", Duration::from_secs(60), || {
            (states(&lab, node)? == ["whole", "whole"]).then_some(())
        });
    }
    lab.reaches("client", "10.0.2.10");
    lab
}

/// A TCP connection from the client to the server, which answers what it is sent.
fn connects(lab: &Lab, port: u16) -> bool {
    let (client, server) = (lab.netns("client"), lab.netns("server"));
    let listener = in_netns(&server, || {
        std::net::TcpListener::bind(("10.0.2.10", port)).unwrap()
    });
    let echo = std::thread::spawn(move || {
        use std::io::{Read as _, Write as _};
        let (mut stream, _) = listener.accept()?;
        let mut octets = [0; 5];
        stream.read_exact(&mut octets)?;
        stream.write_all(&octets)
    });
    let answered = in_netns(&client, || {
        use std::io::{Read as _, Write as _};
        let to = std::net::SocketAddr::from(([10, 0, 2, 10], port));
        let mut stream = std::net::TcpStream::connect_timeout(&to, Duration::from_secs(5))?;
        stream.set_read_timeout(Some(Duration::from_secs(5)))?;
        stream.write_all(b"hello")?;
        let mut octets = [0; 5];
        stream.read_exact(&mut octets)?;
        std::io::Result::Ok(&octets == b"hello")
    });
    if answered.is_err() {
        // Nobody else comes: it waits no longer.
        let _ = in_netns(&server, || {
            std::net::TcpStream::connect(("10.0.2.10", port))
        });
    }
    let echoed = echo.join().unwrap().is_ok();
    matches!(answered, Ok(true)) && echoed
}

fn metered(lab: &Lab) -> u64 {
    ["there", "back"]
        .map(|counter| {
            let text = lab.run(
                "meter",
                &format!("nft list counter inet metering {counter}"),
            );
            let mut words = text.split_whitespace();
            words.find(|word| *word == "packets");
            words.next().unwrap().parse::<u64>().unwrap()
        })
        .iter()
        .sum()
}

/// What a router does at a step of the chain's first direction.
fn way(lab: &Lab, node: &str, step: usize) -> Option<String> {
    let chains = lab.get(node, "chains")?;
    let code = chains[0]["steps"][step]["way"]["code"].as_str()?;
    Some(code.to_owned())
}

#[test]
fn a_stateful_firewall_sees_both_directions_and_another_takes_over() {
    if !need(&["ip", "curl", "ping", "nft"]) {
        return;
    }
    let lab = example(&[]);
    let before = metered(&lab);
    // The firewall lets new connections through one way only: what comes back is known to it.
    assert!(connects(&lab, 80));
    assert!(metered(&lab) > before);
    // It refuses one port, and its own answer finds the client.
    assert!(!connects(&lab, 23));
    let refused = lab.run("firewall-1", "nft list chain inet firewall forward");
    assert!(refused.contains("dport 23 counter packets 1 "), "{refused}");

    // It stops answering, while its link stays: found by asking. Under traffic.
    let mut pings = traffic(&lab, "client");
    lab.run(
        "firewall-1",
        "nft add table inet hang { chain in { type filter hook input priority -300 ; policy drop ; } ; chain f { type filter hook forward priority -300 ; policy drop ; } ; }",
    );
    wait_until("the other firewall", Duration::from_secs(30), || {
        (way(&lab, "r1", 0)? == "remote" && way(&lab, "r3", 1)? == "remote").then_some(())
    });
    lab.reaches("client", "10.0.2.10");
    assert!(connects(&lab, 80) && !connects(&lab, 23));
    let refused = lab.run("firewall-2", "nft list chain inet firewall forward");
    assert!(refused.contains("dport 23 counter packets 1 "), "{refused}");
    // And back.
    lab.run("firewall-1", "nft delete table inet hang");
    wait_until("the first firewall again", Duration::from_secs(30), || {
        (way(&lab, "r1", 0)? == "local").then_some(())
    });
    assert!(connects(&lab, 80));
    pings.kill().unwrap();
    pings.wait().unwrap();
}

#[test]
fn a_service_that_fails_open_is_skipped_and_a_chain_changes_while_routers_run() {
    if !need(&["ip", "curl", "ping", "nft"]) {
        return;
    }
    let lab = example(&[
        (
            "name: meter, label: 20002 }",
            "name: meter, label: 20002, on_failure: open }",
        ),
        (
            "        outside: {",
            "        on_failure: open\n        outside: {",
        ),
    ]);
    let mut pings = traffic(&lab, "client");
    let refused = lab.run("firewall-1", "nft list chain inet firewall forward");
    lab.run("meter", "ip link set inside down");
    for node in ["r1", "r2", "r3"] {
        wait_until("the meter is skipped", Duration::from_secs(30), || {
            (states(&lab, node)? == ["skips", "skips"]).then_some(())
        });
    }
    lab.reaches("client", "10.0.2.10");
    pings.kill().unwrap();
    pings.wait().unwrap();
    // They go through the firewall on.
    let later = lab.run("firewall-1", "nft list chain inet firewall forward");
    assert_ne!(refused, later);
    assert!(connects(&lab, 80) && !connects(&lab, 23));
    lab.run("meter", "ip link set inside up");
    lab.run("meter", "ip route replace 10.0.1.0/24 via 169.254.2.1");
    for node in ["r1", "r2", "r3"] {
        wait_until("the meter is back", Duration::from_secs(30), || {
            (states(&lab, node)? == ["whole", "whole"]).then_some(())
        });
    }
    // The meter leaves the chain: each router takes that in by itself.
    for node in ["r1", "r2", "r3"] {
        let path = lab.path(&format!("{node}.yaml"));
        let config = std::fs::read_to_string(path).unwrap();
        let config = config.replace("services: [firewall, meter]", "services: [firewall]");
        let said = lab.reload(node, &config);
        assert!(said.contains("1 tenant changed"), "{said}");
    }
    lab.reaches("client", "10.0.2.10");
    wait_until("nothing passes the meter", Duration::from_secs(30), || {
        let before = metered(&lab);
        lab.run("client", "ping -c 20 -i 0.01 -W 2 -q 10.0.2.10");
        (metered(&lab) == before).then_some(())
    });
    assert!(!connects(&lab, 23));
}
