//! BFD with FRR's bfdd, BIRD and Weft itself as the neighbour: it comes up, and a neighbour that falls silent on a link that keeps its
//! carrier ends BGP. What is asserted is states and their order; how long they took is printed.

#![allow(clippy::unwrap_used, reason = "a test: a panic is its verdict")]

mod forged;
mod load;
mod pair;

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use serde_json::Value;
use weft_tests::topology::{forwarding, topology};
use weft_tests::{Daemon, Lab, find, frr_daemons, need, output, wait_until};

const LIMIT: Duration = Duration::from_secs(60);

/// p's addresses where it is on r's link, and where m is between them.
const NEAR: [&str; 2] = ["198.51.100.2", "2001:db8:1::2"];
const FAR: [&str; 2] = ["198.51.100.6", "2001:db8:2::2"];
const R: [&str; 2] = ["198.51.100.1", "2001:db8:1::1"];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Rival {
    Bird,
    Frr,
}

fn weft(p: [&str; 2], multihop: bool, bfd: &str) -> String {
    let ttl = if multihop { 2 } else { 1 };
    format!(
        "router: {{ name: r, router_id: 192.0.2.1, asn: 64601, default_policy: accept }}
install: [203.0.113.0/24, '2001:db8:f::/48']
networks: [192.0.2.0/24]
neighbors:
  - {{ address: '{}', asn: 65001, ttl: {ttl}, connect_retry: 1, families: [ipv4-unicast], bfd: {bfd} }}
  - {{ address: '{}', asn: 65001, ttl: {ttl}, connect_retry: 1, families: [ipv6-unicast], bfd: {bfd} }}
",
        p[0], p[1]
    )
}

fn bird(p: [&str; 2], multihop: bool, interval: u32) -> String {
    let reach = if multihop { "multihop 2;" } else { "direct;" };
    let timers = format!(
        "min rx interval {interval} ms; min tx interval {interval} ms; idle tx interval 1 s; multiplier 3;"
    );
    format!(
        "router id 192.0.2.2;
protocol device {{ }}
protocol bfd {{ interface \"*\" {{ {timers} }}; multihop {{ {timers} }}; }}
protocol static s4 {{ ipv4; route 203.0.113.0/24 unreachable; }}
protocol static s6 {{ ipv6; route 2001:db8:f::/48 unreachable; }}
template bgp r {{ local as 65001; {reach} bfd on; connect retry time 1; error wait time 1, 2; connect delay time 1; }}
protocol bgp r4 from r {{ local {} as 65001; neighbor {} as 64601; ipv4 {{ import all; export all; }}; }}
protocol bgp r6 from r {{ local {} as 65001; neighbor {} as 64601; ipv6 {{ import all; export all; }}; }}
",
        p[0], R[0], p[1], R[1]
    )
}

fn bgpd(multihop: bool) -> String {
    let each = |address: &str, family: &str, prefix: &str| {
        let hops = match multihop {
            true => format!(" neighbor {address} ebgp-multihop 2\n"),
            false => String::new(),
        };
        let off = match family {
            "ipv6" => format!(" no neighbor {address} activate\n"),
            _ => String::new(),
        };
        let first = format!(
            " neighbor {address} remote-as 64601
 neighbor {address} timers connect 1
 neighbor {address} bfd profile fast
{hops}{off}"
        );
        let family = format!(
            " address-family {family} unicast
  neighbor {address} activate
  network {prefix}
 exit-address-family
"
        );
        [first, family]
    };
    let [first, second] = each(R[0], "ipv4", "203.0.113.0/24");
    let [third, fourth] = each(R[1], "ipv6", "2001:db8:f::/48");
    format!(
        "hostname p
router bgp 65001
 bgp router-id 192.0.2.2
 no bgp ebgp-requires-policy
 no bgp network import-check
{first}{third}{second}{fourth}"
    )
}

const BFDD: &str = "hostname p
bfd
 profile fast
  receive-interval 100
  transmit-interval 100
  detect-multiplier 3
  minimum-ttl 254
 exit
exit
";

/// r, and p on its link or behind m.
fn up(multihop: bool, p: [&str; 2], files: Vec<(String, String)>) -> Lab {
    let address = |device: &str, addresses: [&str; 2], lengths: [u8; 2]| {
        let v4 = format!("{device} {}/{}", addresses[0], lengths[0]);
        let v6 = format!(
            "ip address add {}/{} dev {device} nodad",
            addresses[1], lengths[1]
        );
        let mut lines = forwarding(&[&v4]);
        lines.extend([v6, "sysctl -qw net.ipv6.conf.all.forwarding=1".to_owned()]);
        lines
    };
    let mut r = address("e1", R, [30, 64]);
    let mut far = address("e1", p, [30, 64]);
    let weft_at_p = files.iter().any(|(name, _)| name == "p.yaml");
    if !multihop {
        let nodes = [("r", true, r), ("p", weft_at_p, far)];
        return Lab::up(&topology(&nodes, &[("r:e1", "p:e1")]), &files);
    }
    let mut m = address("e1", NEAR, [30, 64]);
    m.extend(address("e2", ["198.51.100.5", "2001:db8:2::1"], [30, 64]));
    r.extend([
        "ip route add 198.51.100.4/30 via 198.51.100.2".to_owned(),
        "ip route add 2001:db8:2::/64 via 2001:db8:1::2".to_owned(),
    ]);
    far.extend([
        "ip route add 198.51.100.0/30 via 198.51.100.5".to_owned(),
        "ip route add 2001:db8:1::/64 via 2001:db8:2::1".to_owned(),
    ]);
    let nodes = [("r", true, r), ("m", false, m), ("p", weft_at_p, far)];
    Lab::up(
        &topology(&nodes, &[("r:e1", "m:e1"), ("m:e2", "p:e1")]),
        &files,
    )
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// A lab with a rival as p.
fn with(rival: Rival, multihop: bool, bfd: &str) -> (Lab, [&'static str; 2], Vec<Daemon>) {
    let p = if multihop { FAR } else { NEAR };
    let files = [
        ("r.yaml", weft(p, multihop, bfd)),
        ("bird.conf", bird(p, multihop, 100)),
        ("bgpd.conf", bgpd(multihop)),
        ("bfdd.conf", BFDD.to_owned()),
        ("zebra.conf", "hostname p\n".to_owned()),
    ]
    .map(|(name, text)| (name.to_owned(), text));
    let lab = up(multihop, p, files.to_vec());
    // FRR resets sessions for as long as its interface has no link-local address that it may use.
    wait_until("p's link-local address", LIMIT, || {
        let addresses = lab.run("p", "ip -6 address show dev e1 scope link");
        (addresses.contains("fe80") && !addresses.contains("tentative")).then_some(())
    });
    let daemons = match rival {
        Rival::Frr => frr_daemons(&lab, "p", &["bfdd", "bgpd"]),
        Rival::Bird => {
            let (config, socket) = (lab.path("bird.conf"), lab.path("p.ctl"));
            let arguments = ["-f", "-c", text(&config), "-s", text(&socket)];
            vec![lab.daemon("p", &find("bird").unwrap(), &arguments)]
        }
    };
    (lab, p, daemons)
}

fn neighbor(lab: &Lab, address: &str) -> Option<Value> {
    lab.neighbor("r", address)
}

/// Waits until BGP and BFD with these are up.
fn all_up(lab: &Lab, p: [&str; 2], when: &str) {
    for address in p {
        let mut last = None;
        wait_until(&format!("{address} {when}"), LIMIT, || {
            let one = neighbor(lab, address)?;
            let up = one["state"] == "established" && one["bfd"]["state"] == "up";
            if !up {
                last = Some(one);
            }
            up.then_some(())
        });
    }
}

/// p takes and sends nothing any more, and its link keeps its carrier.
fn silence(lab: &Lab) {
    let rules = "table inet silence {
        chain i { type filter hook input priority 0; policy drop; }
        chain o { type filter hook output priority 0; policy drop; }
    }";
    let file = lab.path("silence.nft");
    std::fs::write(&file, rules).unwrap();
    lab.run("p", &format!("nft -f {}", text(&file)));
}

fn speech(lab: &Lab) {
    lab.run("p", "nft delete table inet silence");
}

/// How often BFD with these went down.
fn downs(lab: &Lab, p: [&str; 2]) -> [u64; 2] {
    p.map(|address| {
        neighbor(lab, address).unwrap()["bfd"]["downs"]
            .as_u64()
            .unwrap()
    })
}

/// Waits until BFD has ended BGP with these, once more than it had; how long the last one took.
fn all_down(lab: &Lab, p: [&str; 2], before: [u64; 2], since: Instant) -> Duration {
    let mut took = Duration::ZERO;
    for (address, before) in p.into_iter().zip(before) {
        let down = wait_until(&format!("the end of {address}"), LIMIT, || {
            let one = neighbor(lab, address)?;
            (one["state"] != "established").then_some(one)
        });
        took = since.elapsed();
        assert_eq!(down["down"]["code"], "bfd-down", "{down}");
        assert_eq!(down["bfd"]["state"], "down", "{down}");
        assert_eq!(down["bfd"]["downs"], before + 1, "{down}");
        assert_eq!(down["stale"], false, "{down}");
        assert_eq!(down["prefixes"][0]["received"], 0, "{down}");
    }
    took
}

/// The peer is silent for BFD's detection time: BGP ends, routes go, and both come back.
fn falls_silent(rival: Rival, multihop: bool) {
    let programs = ["ip", "nft", "curl", "bird", "/usr/lib/frr/bfdd"];
    if !need(&programs) {
        return;
    }
    // BIRD sends with TTL 64.
    let bfd = match (rival, multihop) {
        (Rival::Frr, true) => "{ interval: 100ms, minimum_ttl: 254 }",
        _ => "{ interval: 100ms }",
    };
    let (lab, p, daemons) = with(rival, multihop, bfd);
    all_up(&lab, p, "comes up");
    for address in p {
        let route = if address.contains(':') {
            "2001:db8:f::/48"
        } else {
            "203.0.113.0/24"
        };
        wait_until("the route of p", LIMIT, || {
            (lab.paths("r", route).len() == 1).then_some(())
        });
        let bfd = wait_until("the detection time that both agree on", LIMIT, || {
            let bfd = neighbor(&lab, address)?["bfd"].clone();
            (bfd["detection_time"] == 300_000).then_some(bfd)
        });
        assert_eq!(bfd["multihop"], multihop, "{bfd}");
        assert_eq!(bfd["transmit_interval"], 100_000, "{bfd}");
    }
    // A link that says nothing of its end.
    let before = downs(&lab, p);
    silence(&lab);
    let took = all_down(&lab, p, before, Instant::now());
    eprintln!(
        "{rival:?}, multihop {multihop}: silent link, BGP ended within {} ms",
        took.as_millis()
    );
    let log = lab.log("r");
    let [bfd, bgp] = ["BFD went down", "session established"].map(|line| log.rfind(line).unwrap());
    assert!(bfd > bgp, "{log}");
    speech(&lab);
    all_up(&lab, p, "comes back");
    // A process that hangs: its kernel holds the connections.
    for daemon in &daemons {
        daemon.signal(Signal::SIGSTOP);
    }
    let hangs = Instant::now();
    for address in p {
        wait_until("the end of one that hangs", LIMIT, || {
            let one = neighbor(&lab, address)?;
            (one["state"] != "established").then_some(())
        });
    }
    eprintln!(
        "{rival:?}, multihop {multihop}: hanging process, BGP ended within {} ms",
        hangs.elapsed().as_millis()
    );
    for daemon in &daemons {
        daemon.signal(Signal::SIGCONT);
    }
    all_up(&lab, p, "comes back again");
}

#[test]
fn bird_on_the_link_falls_silent() {
    falls_silent(Rival::Bird, false);
}

#[test]
fn bird_over_hops_falls_silent() {
    falls_silent(Rival::Bird, true);
}

#[test]
fn frr_on_the_link_falls_silent() {
    falls_silent(Rival::Frr, false);
}

#[test]
fn frr_over_hops_falls_silent() {
    falls_silent(Rival::Frr, true);
}

/// Commands of FRR's configuration.
fn vtysh(lab: &Lab, lines: &[&str]) {
    let mut vtysh = Command::new("vtysh");
    vtysh.args([
        "--vty_socket",
        text(lab.directory()),
        "-c",
        "configure terminal",
    ]);
    for line in lines {
        vtysh.args(["-c", line]);
    }
    output(&mut vtysh);
}

#[test]
fn frr_may_change_its_timers_and_hold_bfd_down_without_an_end_of_bgp() {
    if !need(&["ip", "curl", "vtysh", "/usr/lib/frr/bfdd"]) {
        return;
    }
    let (lab, p, _daemons) = with(Rival::Frr, false, "{ interval: 100ms }");
    all_up(&lab, p, "comes up");
    let flaps = || p.map(|address| neighbor(&lab, address).unwrap()["flaps"].clone());
    let before = flaps();
    let agreed = |transmit: u64, detection: u64| {
        for address in p {
            wait_until(&format!("{transmit} us, {detection} us"), LIMIT, || {
                let bfd = neighbor(&lab, address)?["bfd"].clone();
                let agreed =
                    (bfd["transmit_interval"] == transmit) && (bfd["detection_time"] == detection);
                agreed.then_some(())
            });
        }
    };
    let profile = |lines: &[&str]| {
        let lines: Vec<&str> = ["bfd", "profile fast"]
            .into_iter()
            .chain(lines.iter().copied())
            .collect();
        vtysh(&lab, &lines);
    };
    agreed(100_000, 300_000);
    profile(&[
        "transmit-interval 400",
        "receive-interval 200",
        "detect-multiplier 5",
    ]);
    agreed(200_000, 2_000_000);
    // And ours: nothing of BGP changes.
    let told = lab.reload("r", &weft(p, false, "{ interval: 500ms, multiplier: 4 }"));
    assert!(!told.contains("restarted"), "{told}");
    agreed(500_000, 2_500_000);
    let told = lab.reload("r", &weft(p, false, "{ interval: 50ms }"));
    assert!(!told.contains("restarted"), "{told}");
    agreed(200_000, 2_000_000);
    // Held down at the other end: no failure.
    profile(&["shutdown"]);
    for address in p {
        let down = wait_until("BFD is held down", LIMIT, || {
            let one = neighbor(&lab, address)?;
            (one["bfd"]["state"] == "down").then_some(one)
        });
        assert_eq!(down["bfd"]["down"]["code"], "neighbor-admin-down", "{down}");
        assert_eq!(down["state"], "established", "{down}");
    }
    profile(&["no shutdown"]);
    all_up(&lab, p, "is let go");
    assert_eq!(flaps(), before, "BGP has never ended");
    // Taken away here, and given again. FRR takes that for a failure, other than RFC 5882 section 3.2 has it.
    let told = lab.reload("r", &weft(p, false, "false"));
    assert!(!told.contains("restarted"), "{told}");
    for address in p {
        wait_until("there is no BFD", LIMIT, || {
            neighbor(&lab, address)?["bfd"].is_null().then_some(())
        });
    }
    lab.reload("r", &weft(p, false, "true"));
    all_up(&lab, p, "is asked for again");
}
