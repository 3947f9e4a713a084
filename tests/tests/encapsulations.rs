//! One domain whose routers end tunnels as they like: VXLAN at an IPv4 address, VXLAN-GPE and VXLAN at IPv6 addresses, at UDP ports of
//! their own. What each accepts is in its labels and locator, and everybody else obeys.

#![allow(clippy::unwrap_used, reason = "a test: a panic is its verdict")]

use std::time::Duration;

use weft_tests::topology::{forwarding, topology};
use weft_tests::{Lab, need, wait_until};

/// Name, number, endpoint, encapsulation, UDP port where it is not the encapsulation's own.
type Site = (&'static str, u8, &'static str, &'static str, Option<u64>);

const SITES: [Site; 3] = [
    ("a", 1, "192.0.2.1", "vxlan", Some(8472)),
    ("b", 2, "2001:db8::2", "vxlan-gpe", Some(8473)),
    ("c", 3, "2001:db8::3", "vxlan", None),
];

fn site((name, number, endpoint, encapsulation, port): Site) -> String {
    let port = port.map(|port| format!(", port: {port}"));
    let port = port.unwrap_or_default();
    format!(
        "router: {{ name: {name}, router_id: 192.0.2.{number}, asn: 64601 }}
overlay: {{ global_administrator: 64512, endpoint: \"{endpoint}\", encapsulation: {encapsulation}{port} }}
tenants:
  - {{ name: red, vni: 10001, interfaces: [red0], redistribute: [connected] }}
neighbors:
  - {{ address: 10.255.{number}.254, asn: 64601, families: [ipv4-unicast, ipv6-unicast], local_address_v6: \"fd00:{number}::1\" }}
"
    )
}

fn reflector() -> String {
    let mut text =
        "router: { name: r, router_id: 192.0.2.254, asn: 64601 }\nneighbors:\n".to_owned();
    for (_, number, ..) in SITES {
        text += &format!(
            "  - {{ address: 10.255.{number}.1, asn: 64601, route_reflector_client: true, \
             families: [ipv4-unicast, ipv6-unicast], local_address_v6: \"fd00:{number}::254\" }}\n"
        );
    }
    text
}

fn up() -> Lab {
    let v6 = |device: &str, address: &str| format!("ip address add {address} dev {device} nodad");
    let mut nodes = Vec::new();
    let mut links = Vec::new();
    let mut files = vec![("r.yaml".to_owned(), reflector())];
    let mut center = forwarding(&[]);
    center.push("sysctl -qw net.ipv6.conf.all.forwarding=1".to_owned());
    let names: Vec<(String, String, String, String)> = SITES
        .iter()
        .map(|(name, number, ..)| {
            let ends = (format!("{name}:eth1"), format!("r:eth{number}"));
            (
                ends.0,
                ends.1,
                format!("{name}:red0"),
                format!("red-{name}:eth1"),
            )
        })
        .collect();
    let hosts: Vec<String> = SITES
        .iter()
        .map(|(name, ..)| format!("red-{name}"))
        .collect();
    for (at, (name, number, ..)) in SITES.into_iter().enumerate() {
        let link = format!("eth1 10.255.{number}.1/24");
        let (own, inside) = (
            format!("lo 192.0.2.{number}/32"),
            format!("red0 10.0.{number}.1/24"),
        );
        let mut exec = forwarding(&[&own, &link, &inside]);
        exec.extend([
            v6("lo", &format!("2001:db8::{number}/128")),
            v6("eth1", &format!("fd00:{number}::1/64")),
            v6("red0", &format!("2001:db8:10:{number}::1/64")),
            format!("ip route add default via 10.255.{number}.254"),
            format!("ip route add default via fd00:{number}::254"),
        ]);
        nodes.push((name, true, exec));
        center.extend([
            format!("ip address add 10.255.{number}.254/24 dev eth{number}"),
            v6(&format!("eth{number}"), &format!("fd00:{number}::254/64")),
            format!("ip route add 192.0.2.{number}/32 via 10.255.{number}.1"),
            format!("ip route add 2001:db8::{number}/128 via fd00:{number}::1"),
        ]);
        nodes.push((
            &hosts[at],
            false,
            vec![
                format!("ip address add 10.0.{number}.10/24 dev eth1"),
                v6("eth1", &format!("2001:db8:10:{number}::10/64")),
                format!("ip route replace default via 10.0.{number}.1"),
                format!("ip route replace default via 2001:db8:10:{number}::1"),
            ],
        ));
        files.push((format!("{name}.yaml"), site(SITES[at])));
    }
    nodes.push(("r", true, center));
    for (a, b, c, d) in &names {
        links.push((a.as_str(), b.as_str()));
        links.push((c.as_str(), d.as_str()));
    }
    Lab::up(&topology(&nodes, &links), &files)
}

#[test]
fn everybody_sends_as_each_endpoint_accepts() {
    if !need(&["ip", "curl", "ping"]) {
        return;
    }
    let lab = up();
    for (name, ..) in SITES {
        lab.converged(name);
    }
    for (from, ..) in SITES {
        for (to, number, endpoint, encapsulation, port) in SITES {
            if from == to {
                continue;
            }
            let host = format!("red-{from}");
            lab.reaches(&host, &format!("10.0.{number}.10"));
            lab.reaches(&host, &format!("2001:db8:10:{number}::10"));
            for destination in [
                format!("10.0.{number}.10"),
                format!("2001:db8:10:{number}::10"),
            ] {
                let path = format!("tenants/red/trace?destination={destination}");
                let trace = lab.get(from, &path).unwrap();
                let tunnel = &trace["tunnels"][0];
                assert_eq!(
                    (
                        tunnel["router"].as_str(),
                        tunnel["encapsulation"].as_str(),
                        tunnel["port"].as_u64(),
                        trace["verdict"]["code"].as_str()
                    ),
                    (Some(endpoint), Some(encapsulation), port, Some("forwarded")),
                    "{trace}"
                );
                // And so packets go: the far router, the host.
                let trace = lab.post(from, &path).unwrap();
                let hops: Vec<(&str, &str)> = trace["live"]["hops"]
                    .as_array()
                    .unwrap()
                    .iter()
                    .map(|hop| {
                        (
                            hop["address"].as_str().unwrap(),
                            hop["answer"].as_str().unwrap(),
                        )
                    })
                    .collect();
                let answers: Vec<&str> = hops.iter().map(|(_, answer)| *answer).collect();
                assert_eq!(answers, ["time-exceeded", "reply"], "{trace}");
                assert_eq!(hops[1].0, destination, "{trace}");
            }
        }
    }
    // What went through is counted by the router that it went to.
    let traffic = lab.get("a", "traffic?tenant=red").unwrap();
    let routers: Vec<&str> = traffic
        .as_array()
        .unwrap()
        .iter()
        .map(|one| one["endpoint"].as_str().unwrap())
        .collect();
    assert!(
        routers.contains(&"2001:db8::2") && routers.contains(&"2001:db8::3"),
        "{traffic}"
    );
    // What is said of them has the port where it is another.
    for (what, said) in [
        ("endpoints", "192.0.2.1:8472"),
        ("endpoints", "[2001:db8::2]:8473"),
        ("endpoints", "2001:db8::3 "),
        ("kernel", "vxg8473, vxlan-gpe, UDP port 8473"),
    ] {
        let from = if said.contains("192") { "c" } else { "a" };
        let mut command = lab.command(from, weft_tests::weft());
        let output = command.args(["show", what]).output().unwrap();
        let told = String::from_utf8_lossy(&output.stdout);
        assert!(told.contains(said), "{told}");
    }
    // Somebody meddles: the trace says so, until it is repaired.
    lab.run("a", "ip rule add pref 5 fwmark 0x57002711 blackhole");
    let output = lab
        .command("a", weft_tests::weft())
        .args(["trace", "red", "10.0.2.10"])
        .output()
        .unwrap();
    let told = String::from_utf8_lossy(&output.stdout);
    assert!(
        !output.status.success() && told.contains("the kernel drops it"),
        "{told}"
    );
    lab.run("a", "ip rule del pref 5");
    // An endpoint that the underlay loses is nobody's way any more, and comes back.
    lab.run("a", "ip route add unreachable 2001:db8::2/128");
    wait_until("the route to b is gone", Duration::from_secs(20), || {
        let trace = lab.get("a", "tenants/red/trace?destination=10.0.2.10")?;
        (trace["verdict"]["code"] == "no-route").then_some(())
    });
    lab.run("a", "ip route del unreachable 2001:db8::2/128");
    lab.reaches("red-a", "10.0.2.10");
}
