//! The underlay changes under routers that run: a carrier is lost, addresses go, next hops lie behind other routes.

#![allow(clippy::unwrap_used, reason = "a test: a panic is its verdict")]

use std::process::Stdio;
use std::time::{Duration, Instant};

use weft_tests::topology::{forwarding, topology};
use weft_tests::{Lab, need, wait_until};

const LIMIT: Duration = Duration::from_secs(60);

/// What p and q both have: an address that r reaches by either.
const SERVICE: &str = "203.0.113.1";

fn far(name: &str, asn: u32, own: &str, other: &str) -> (String, String) {
    let text = format!(
        "router: {{ name: {name}, router_id: {own}, asn: {asn}, default_policy: accept }}
networks: [203.0.113.0/24, 0.0.0.0/0]
neighbors:
  - {{ address: {other}, asn: 64601 }}
"
    );
    (format!("{name}.yaml"), text)
}

/// r between p and q, eBGP with each on its link.
fn up() -> Lab {
    let r = "router: { name: r, router_id: 192.0.2.1, asn: 64601, default_policy: accept }
install: [203.0.113.0/24, 0.0.0.0/0]
neighbors:
  - { address: 198.51.100.2, asn: 65001 }
  - { address: 198.51.100.6, asn: 65002 }
";
    let service = format!("lo {SERVICE}/32");
    let nodes = [
        (
            "r",
            true,
            forwarding(&["e1 198.51.100.1/30", "e2 198.51.100.5/30"]),
        ),
        ("p", true, forwarding(&[&service, "e1 198.51.100.2/30"])),
        ("q", true, forwarding(&[&service, "e2 198.51.100.6/30"])),
    ];
    let files = [
        ("r.yaml".to_owned(), r.to_owned()),
        far("p", 65001, "198.51.100.2", "198.51.100.1"),
        far("q", 65002, "198.51.100.6", "198.51.100.5"),
    ];
    let lab = Lab::up(
        &topology(&nodes, &[("r:e1", "p:e1"), ("r:e2", "q:e2")]),
        &files,
    );
    for node in ["r", "p", "q"] {
        lab.converged(node);
    }
    lab
}

/// The gateway of r's route to `destination`, as its kernel has it.
fn gateway(lab: &Lab, destination: &str) -> String {
    let answer = lab
        .command("r", "ip")
        .args(["route", "get", destination])
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&answer.stdout).into_owned();
    let mut words = text.split_whitespace().skip_while(|word| *word != "via");
    words.nth(1).unwrap_or_default().to_owned()
}

fn leads(lab: &Lab, destination: &str, wanted: &str) {
    let what = format!("{destination} by {wanted}");
    wait_until(&what, LIMIT, || {
        (gateway(lab, destination) == wanted).then_some(())
    });
}

#[test]
fn a_carrier_that_is_lost_ends_the_session_and_moves_traffic_and_the_default_route() {
    if !need(&["ip", "curl", "ping"]) {
        return;
    }
    let lab = up();
    leads(&lab, SERVICE, "198.51.100.2");
    leads(&lab, "9.9.9.9", "198.51.100.2");
    let mut ping = lab
        .command("r", "ping")
        .args(["-q", "-i", "0.005", "-W", "1", SERVICE])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    lab.reaches("r", SERVICE);
    // At the far end: the interface here stays up, without a carrier.
    lab.run("p", "ip link set e1 down");
    let lost = Instant::now();
    wait_until("the session is down", LIMIT, || {
        let neighbor = lab.neighbor("r", "198.51.100.2")?;
        (neighbor["state"] != "established").then_some(())
    });
    let down = lost.elapsed();
    leads(&lab, SERVICE, "198.51.100.6");
    leads(&lab, "9.9.9.9", "198.51.100.6");
    lab.reaches("r", SERVICE);
    let neighbor = lab.neighbor("r", "198.51.100.2").unwrap();
    assert!(
        neighbor.to_string().contains("e1 lost its carrier"),
        "{neighbor}"
    );
    lab.run("p", "ip link set e1 up");
    leads(&lab, SERVICE, "198.51.100.2");
    let pid = nix::unistd::Pid::from_raw(ping.id().cast_signed());
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGINT).unwrap();
    ping.wait().unwrap();
    let mut text = String::new();
    std::io::Read::read_to_string(&mut ping.stdout.take().unwrap(), &mut text).unwrap();
    let counts = text.lines().find(|line| line.contains("received"));
    eprintln!(
        "carrier lost: session down within {} ms; pings 5 ms apart: {}",
        down.as_millis(),
        counts.unwrap_or_default()
    );
}

#[test]
fn an_address_that_comes_back_brings_its_routes_back() {
    if !need(&["ip", "curl", "ping"]) {
        return;
    }
    let lab = up();
    leads(&lab, SERVICE, "198.51.100.2");
    lab.run("r", "ip address del 198.51.100.1/30 dev e1");
    leads(&lab, SERVICE, "198.51.100.6");
    std::thread::sleep(Duration::from_secs(2));
    lab.run("r", "ip address add 198.51.100.1/30 dev e1");
    let back = Instant::now();
    leads(&lab, SERVICE, "198.51.100.2");
    eprintln!(
        "address back: route within {} ms",
        back.elapsed().as_millis()
    );
    lab.reaches("r", SERVICE);
}
