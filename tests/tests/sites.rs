//! Tenants' own routers, BIRD at every site: two tenants with the same addresses, prefixes and AS number, at two routers.

#![allow(clippy::unwrap_used, reason = "a test: a panic is its verdict")]

use std::process::Stdio;
use std::time::Duration;

use serde_json::Value;
use weft_tests::topology::{forwarding, topology};
use weft_tests::{Daemon, Lab, find, need, wait_until};

/// Name and number.
const SITES: [(&str, u8); 2] = [("a", 1), ("b", 2)];

fn router((name, number): (&str, u8)) -> String {
    let other = 3 - number;
    // Blue's routers connect, red's are connected to, unless both do.
    format!(
        "router: {{ name: {name}, router_id: 192.0.2.{number}, asn: 64601 }}
overlay: {{ global_administrator: 64512, endpoint: 192.0.2.{number} }}
tenants:
  - name: red
    vni: 10001
    interfaces: [red0]
    neighbors:
      - {{ address: 10.0.{number}.10, asn: 65010, as_override: true }}
      - {{ address: \"fd00:{number}::10\", asn: 65010, as_override: true, families: [ipv6-unicast] }}
  - name: blue
    vni: 10002
    interfaces: [blue0]
    neighbors:
      - {{ address: 10.0.{number}.10, asn: 65010, as_override: true, passive: true }}
neighbors:
  - {{ address: 10.255.0.{other}, asn: 64601, families: [ipv4-unicast, ipv6-unicast], local_address_v6: \"fd00:ff::{number}\" }}
"
    )
}

/// BIRD at a site: its own networks are on `lo`.
fn bird(number: u8, v6: bool) -> String {
    let session = |name: &str, own: &str, router: &str, family: &str| {
        format!(
            "protocol bgp {name} {{
  local {own} as 65010;
  neighbor {router} as 64601;
  connect delay time 1; connect retry time 1; error wait time 1, 2;
  graceful restart on;
  {family} {{ import all; export where source = RTS_DEVICE; }};
}}\n"
        )
    };
    let mut text = format!(
        "router id 203.0.113.{number};
protocol device {{ scan time 1; }}
protocol direct {{ ipv4; ipv6; interface \"lo\"; }}
protocol kernel k4 {{ ipv4 {{ export where source = RTS_BGP; }}; }}
protocol kernel k6 {{ ipv6 {{ export where source = RTS_BGP; }}; }}
"
    );
    let address = |last: u8| format!("10.0.{number}.{last}");
    text += &session("r4", &address(10), &address(1), "ipv4");
    if v6 {
        let address = |last: &str| format!("fd00:{number}::{last}");
        text += &session("r6", &address("10"), &address("1"), "ipv6");
    }
    text
}

fn up() -> Lab {
    let mut nodes = Vec::new();
    let mut files = Vec::new();
    let names: Vec<String> = SITES
        .iter()
        .flat_map(|(name, _)| [format!("red-{name}"), format!("blue-{name}")])
        .collect();
    for (at, (name, number)) in SITES.into_iter().enumerate() {
        let own = format!("lo 192.0.2.{number}/32");
        let wan = format!("eth1 10.255.0.{number}/24");
        let inside = ["red0", "blue0"].map(|device| format!("{device} 10.0.{number}.1/24"));
        let mut exec = forwarding(&[&own, &wan, &inside[0], &inside[1]]);
        let other = 3 - number;
        exec.push(format!(
            "ip route add 192.0.2.{other}/32 via 10.255.0.{other}"
        ));
        for (device, net) in [("red0", format!("{number}")), ("eth1", "ff".to_owned())] {
            let last = if device == "eth1" { number } else { 1 };
            let address = format!("fd00:{net}::{last}/64");
            exec.push(format!("ip address add {address} dev {device} nodad"));
        }
        nodes.push((name, true, exec));
        for tenant in &names[at * 2..at * 2 + 2] {
            let mut exec = forwarding(&[
                &format!("eth1 10.0.{number}.10/24"),
                &format!("lo 172.16.{number}.1/24"),
            ]);
            exec.push("sysctl -qw net.ipv6.conf.all.forwarding=1".to_owned());
            exec.push(format!(
                "ip address add fd00:{number}::10/64 dev eth1 nodad"
            ));
            exec.push(format!(
                "ip address add 2001:db8:{number}::1/64 dev lo nodad"
            ));
            nodes.push((tenant, false, exec));
        }
        files.push((format!("{name}.yaml"), router((name, number))));
        files.push((format!("red-{number}.conf"), bird(number, true)));
        files.push((format!("blue-{number}.conf"), bird(number, false)));
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

fn start(lab: &Lab, tenant: &str, (name, number): (&str, u8)) -> Daemon {
    let config = lab.path(&format!("{tenant}-{number}.conf"));
    let socket = lab.path(&format!("{tenant}-{number}.ctl"));
    let paths = [&config, &socket].map(|path| path.to_str().unwrap().to_owned());
    let arguments = ["-f", "-c", &paths[0], "-s", &paths[1]];
    lab.daemon(
        &format!("{tenant}-{name}"),
        &find("bird").unwrap(),
        &arguments,
    )
}

/// What a site's BIRD says.
fn birdc(lab: &Lab, tenant: &str, (name, number): (&str, u8), words: &str) -> String {
    let socket = lab.path(&format!("{tenant}-{number}.ctl"));
    let mut birdc = lab.command(&format!("{tenant}-{name}"), "birdc");
    let words = words.split(' ');
    let output = birdc.arg("-s").arg(socket).args(words).output().unwrap();
    // A network that it does not have is a failure to it.
    String::from_utf8(output.stdout).unwrap()
}

fn established(lab: &Lab, node: &str, tenant: &str, address: &str) {
    let what = format!("{node}: {tenant}'s {address} established");
    let path = format!("neighbors/{address}?tenant={tenant}");
    wait_until(&what, Duration::from_secs(60), || {
        let neighbor: Value = lab.get(node, &path)?;
        (neighbor["state"] == "established").then_some(())
    });
}

/// From network to network, not from link to link.
fn reaches(lab: &Lab, host: &str, from: &str, to: &str) {
    wait_until(
        &format!("{host}: {from} to {to}"),
        Duration::from_secs(30),
        || {
            let mut ping = lab.command(host, "ping");
            let ping = ping
                .args(["-c1", "-W1", "-I", from, to])
                .stdout(Stdio::null());
            ping.status().unwrap().success().then_some(())
        },
    );
}

fn has(lab: &Lab, tenant: &str, site: (&str, u8), prefix: &str, wanted: bool) {
    let what = format!("{prefix} at {tenant}'s router of {}: {wanted}", site.0);
    wait_until(&what, Duration::from_secs(60), || {
        let told = birdc(lab, tenant, site, &format!("show route {prefix} all"));
        (told.contains("BGP.as_path") == wanted).then_some(())
    });
}

#[test]
fn tenants_routers_learn_of_each_other_and_of_nobody_else() {
    if !need(&["ip", "curl", "ping", "bird", "birdc"]) {
        return;
    }
    let lab = up();
    let mut birds = Vec::new();
    for site in SITES {
        for tenant in ["red", "blue"] {
            birds.push(start(&lab, tenant, site));
        }
    }
    for (name, number) in SITES {
        for tenant in ["red", "blue"] {
            established(&lab, name, tenant, &format!("10.0.{number}.10"));
        }
        established(&lab, name, "red", &format!("fd00:{number}::10"));
        lab.converged(name);
    }
    // Each learns the other site's networks, with our AS in the place of its own.
    for tenant in ["red", "blue"] {
        has(&lab, tenant, SITES[0], "172.16.2.0/24", true);
        has(&lab, tenant, SITES[1], "172.16.1.0/24", true);
        let told = birdc(&lab, tenant, SITES[0], "show route 172.16.2.0/24 all");
        assert!(told.contains("BGP.as_path: 64601 64601\n"), "{told}");
        // No label leaves the overlay.
        assert!(!told.contains("large_community"), "{told}");
    }
    has(&lab, "red", SITES[0], "2001:db8:2::/64", true);
    for (host, tenant) in [("red-a", "red"), ("blue-a", "blue")] {
        reaches(&lab, host, "172.16.1.1", "172.16.2.1");
        let path = format!("tenants/{tenant}/trace?destination=172.16.2.1");
        let trace = lab.get("a", &path).unwrap();
        assert_eq!(trace["verdict"]["code"], "forwarded", "{trace}");
    }
    reaches(&lab, "red-a", "2001:db8:1::1", "2001:db8:2::1");
    // Red's router at b goes for good: its networks go, and blue's of the same prefix stay.
    let path = "tenants/red/routes?prefix=172.16.2.0/24";
    drop(birds.remove(2).stop(nix::sys::signal::Signal::SIGTERM));
    has(&lab, "red", SITES[0], "172.16.2.0/24", false);
    let routes = lab.get("a", path).unwrap();
    assert_eq!(routes["total"], 0, "{routes}");
    has(&lab, "blue", SITES[0], "172.16.2.0/24", true);
    reaches(&lab, "blue-a", "172.16.1.1", "172.16.2.1");
    birds.insert(2, start(&lab, "red", SITES[1]));
    has(&lab, "red", SITES[0], "172.16.2.0/24", true);
    // The router is killed and comes back: no packet is lost, and no route of a site.
    let count = "1000";
    let mut ping = lab.command("red-a", "ping");
    let line = [
        "-q",
        "-i",
        "0.005",
        "-W",
        "2",
        "-c",
        count,
        "-I",
        "172.16.1.1",
        "172.16.2.1",
    ];
    reaches(&lab, "red-a", "172.16.1.1", "172.16.2.1");
    let ping = ping.args(line).stdout(Stdio::piped()).spawn().unwrap();
    lab.kill("b");
    lab.start("b");
    for tenant in ["red", "blue"] {
        established(&lab, "b", tenant, "10.0.2.10");
    }
    lab.converged("b");
    let told = ping.wait_with_output().unwrap();
    let told = String::from_utf8_lossy(&told.stdout);
    assert!(told.contains("1000 received, 0%"), "{told}");
    for tenant in ["red", "blue"] {
        has(&lab, tenant, SITES[0], "172.16.2.0/24", true);
    }
}

/// A connection from a tenant is never one of the router's own neighbours, whatever address it comes from.
#[test]
fn a_tenant_cannot_speak_as_the_routers_own_neighbour() {
    if !need(&["ip", "curl", "ping", "bird", "birdc"]) {
        return;
    }
    let lab = up();
    lab.converged("a");
    // Blue's host takes the address of router b, and connects.
    lab.run("blue-a", "ip address add 10.255.0.2/32 dev lo");
    lab.run(
        "a",
        "ip route add 10.255.0.2/32 via 10.0.1.10 dev blue0 table 1459627794",
    );
    let config = "router id 203.0.113.9;
protocol device {}
protocol bgp r { local 10.255.0.2 as 64601; neighbor 10.0.1.1 as 64601; multihop; connect delay time 1; ipv4 { import all; }; }
";
    let (file, socket) = (lab.path("evil.conf"), lab.path("evil.ctl"));
    std::fs::write(&file, config).unwrap();
    let paths = [&file, &socket].map(|path| path.to_str().unwrap().to_owned());
    let arguments = ["-f", "-c", &paths[0], "-s", &paths[1]];
    let _bird = lab.daemon("blue-a", &find("bird").unwrap(), &arguments);
    let log = wait_until("the refusal", Duration::from_secs(30), || {
        let log = lab.log("a");
        log.contains("refused a connection").then_some(log)
    });
    assert!(log.contains("10.255.0.2"), "{log}");
    let neighbor = lab.neighbor("a", "10.255.0.2").unwrap();
    assert_eq!(
        (&neighbor["state"], &neighbor["flaps"]),
        (&Value::from("established"), &Value::from(0)),
        "{neighbor}"
    );
}
