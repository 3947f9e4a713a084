//! BFD with FRR's bfdd, BIRD and Weft itself as the neighbour: it comes up, and a neighbour that falls silent on a link that keeps its
//! carrier ends BGP. What is asserted is states and their order; how long they took is printed.

#![allow(clippy::unwrap_used, reason = "a test: a panic is its verdict")]

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use serde_json::Value;
use weft_tests::topology::{forwarding, topology};
use weft_tests::{Daemon, Lab, Speaker, find, frr_daemons, need, output, wait_until};

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
    let (lab, p, daemons) = with(rival, multihop, "{ interval: 100ms }");
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

#[test]
fn frr_keeps_the_routes_of_a_router_that_starts_again() {
    if !need(&["ip", "curl", "vtysh", "/usr/lib/frr/bfdd"]) {
        return;
    }
    let (lab, p, _daemons) = with(Rival::Frr, false, "{ interval: 100ms }");
    all_up(&lab, p, "comes up first");
    let each = |address| format!("neighbor {address} bfd check-control-plane-failure");
    vtysh(
        &lab,
        &[
            "router bgp 65001",
            "bgp graceful-restart",
            &each(R[0]),
            &each(R[1]),
        ],
    );
    vtysh(&lab, &["do clear bgp *"]);
    all_up(&lab, p, "comes up");
    let shown = |what: &str| {
        let mut vtysh = Command::new("vtysh");
        vtysh.args(["--vty_socket", text(lab.directory()), "-c", what]);
        output(&mut vtysh)
    };
    let route = || shown("show bgp ipv4 unicast 192.0.2.0/24");
    wait_until("p has r's route", LIMIT, || {
        route().contains("64601").then_some(())
    });
    for signal in [Signal::SIGTERM, Signal::SIGKILL] {
        lab.signal("r", signal);
        wait_until("p misses r", LIMIT, || {
            let peers = shown("show bfd peers");
            (!peers.contains("Status: up")).then_some(())
        });
        // BFD's client has been told, and has done what it does.
        std::thread::sleep(Duration::from_millis(500));
        let kept = route();
        assert!(
            kept.contains("64601") && kept.contains("stale"),
            "{signal}: {kept}"
        );
        lab.start("r");
        all_up(&lab, p, "is back");
        wait_until("nothing is stale", LIMIT, || {
            (!route().contains("stale")).then_some(())
        });
    }
}

/// A control packet that says Down, as whoever can send from this address makes it.
fn forged(your_discriminator: u32) -> Vec<u8> {
    let mut octets = vec![0x21, 0x40, 3, 24, 0, 0, 0, 5];
    octets.extend(your_discriminator.to_be_bytes());
    for interval in [1_000_000u32, 1_000_000, 0] {
        octets.extend(interval.to_be_bytes());
    }
    octets
}

#[test]
fn forged_packets_change_nothing() {
    if !need(&["ip", "curl", "bird"]) {
        return;
    }
    let (lab, p, _daemons) = with(Rival::Bird, false, "true");
    all_up(&lab, p, "comes up");
    lab.run("p", "ip address add 10.77.0.9/32 dev e1");
    let status = || lab.get("r", "status").unwrap()["bfd"].clone();
    let discarded = |reason: &str| {
        let status = status();
        let mut all = status["discarded"].as_array().unwrap().iter();
        all.find(|one| one["reason"] == reason).unwrap()["packets"]
            .as_u64()
            .unwrap()
    };
    let number = |address: &str| {
        let number = neighbor(&lab, address).unwrap()["bfd"]["discriminator"].clone();
        u32::try_from(number.as_u64().unwrap()).unwrap()
    };
    let send = |from: &str, to: &str, ttl: u32, octets: &[u8]| {
        let (from, to): (IpAddr, IpAddr) = (from.parse().unwrap(), to.parse().unwrap());
        lab.in_node("p", || {
            let socket = UdpSocket::bind(SocketAddr::new(from, 0)).unwrap();
            let options = socket2::SockRef::from(&socket);
            match from {
                IpAddr::V4(_) => options.set_ttl_v4(ttl).unwrap(),
                IpAddr::V6(_) => options.set_unicast_hops_v6(ttl).unwrap(),
            }
            for _ in 0..10 {
                socket.send_to(octets, SocketAddr::new(to, 3784)).unwrap();
            }
        });
    };
    for at in 0..2 {
        // It knows everything, and is not on the link.
        let before = status()["dropped"].as_u64().unwrap();
        send(p[at], R[at], 254, &forged(number(p[at])));
        wait_until("packets from afar are dropped", LIMIT, || {
            (status()["dropped"].as_u64().unwrap() >= before + 10).then_some(())
        });
        // It is on the link, and does not know the session's number.
        let before = discarded("your-discriminator");
        send(p[at], R[at], 255, &forged(number(p[at]) ^ 1));
        wait_until("packets with a wrong number are discarded", LIMIT, || {
            (discarded("your-discriminator") >= before + 10).then_some(())
        });
    }
    let before = discarded("stranger");
    send("10.77.0.9", R[0], 255, &forged(number(p[0])));
    wait_until("packets of strangers are discarded", LIMIT, || {
        (discarded("stranger") >= before + 10).then_some(())
    });
    for address in p {
        let one = neighbor(&lab, address).unwrap();
        assert_eq!(
            (&one["bfd"]["state"], &one["bfd"]["downs"]),
            (&"up".into(), &0.into()),
            "{one}"
        );
        assert_eq!(
            (&one["state"], &one["flaps"]),
            (&"established".into(), &0.into()),
            "{one}"
        );
    }
    assert!(!lab.log("r").contains("BFD is down"));
}

/// p as a Weft router with graceful restart, and q with the same routes.
fn weft_pair() -> Lab {
    let p = |name: &str, id: u8, asn: u32, other: &str| {
        format!(
            "router: {{ name: {name}, router_id: 192.0.2.{id}, asn: {asn}, default_policy: accept }}
networks: [203.0.113.0/24{}]
neighbors:
  - {{ address: {other}, asn: 64601, connect_retry: 1, bfd: {{ interval: 100ms }} }}
",
            if name == "p" { ", 198.18.0.0/24" } else { "" }
        )
    };
    let r = "router: { name: r, router_id: 192.0.2.1, asn: 64601, default_policy: accept }
install: [203.0.113.0/24, 198.18.0.0/24]
networks: [192.0.2.0/24]
neighbors:
  - { address: 198.51.100.2, asn: 65001, connect_retry: 1, bfd: { interval: 100ms } }
  - { address: 198.51.100.10, asn: 65002, connect_retry: 1, bfd: { interval: 100ms } }
";
    let nodes = [
        (
            "r",
            true,
            forwarding(&["e1 198.51.100.1/30", "e2 198.51.100.9/30"]),
        ),
        ("p", true, forwarding(&["e1 198.51.100.2/30"])),
        ("q", true, forwarding(&["e2 198.51.100.10/30"])),
    ];
    let files = [
        ("r.yaml".to_owned(), r.to_owned()),
        ("p.yaml".to_owned(), p("p", 2, 65001, "198.51.100.1")),
        ("q.yaml".to_owned(), p("q", 3, 65002, "198.51.100.9")),
    ];
    let lab = Lab::up(
        &topology(&nodes, &[("r:e1", "p:e1"), ("r:e2", "q:e2")]),
        &files,
    );
    all_up(&lab, [PAIR[0], PAIR[1]], "comes up");
    lab.converged("r");
    leads(&lab, "203.0.113.1", PAIR[0]);
    leads(&lab, "198.18.0.1", PAIR[0]);
    lab
}

const PAIR: [&str; 2] = ["198.51.100.2", "198.51.100.10"];

/// Waits until r's kernel sends what is for `destination` to `gateway`.
fn leads(lab: &Lab, destination: &str, gateway: &str) {
    wait_until(&format!("{destination} by {gateway}"), LIMIT, || {
        let way = lab.run("r", &format!("ip route get {destination}"));
        way.contains(&format!("via {gateway} ")).then_some(())
    });
}

#[test]
fn what_may_be_a_restart_is_the_last_resort() {
    if !need(&["ip", "nft", "curl"]) {
        return;
    }
    let lab = weft_pair();
    silence(&lab);
    let since = Instant::now();
    leads(&lab, "203.0.113.1", PAIR[1]);
    eprintln!(
        "Weft, graceful restart: traffic moved within {} ms",
        since.elapsed().as_millis()
    );
    let down = neighbor(&lab, PAIR[0]).unwrap();
    assert_eq!(
        (&down["down"]["code"], &down["stale"]),
        (&"bfd-down".into(), &true.into()),
        "{down}"
    );
    // What has no other way stays for the restart.
    leads(&lab, "198.18.0.1", PAIR[0]);
    let paths = lab.paths("r", "203.0.113.0/24");
    let lost = paths
        .iter()
        .find(|path| path["neighbor"] == PAIR[0])
        .unwrap();
    assert_eq!(lost["lost"]["code"], "last-resort", "{lost}");
    speech(&lab);
    all_up(&lab, PAIR, "comes back");
    leads(&lab, "203.0.113.1", PAIR[0]);
}

#[test]
fn a_router_that_starts_again_is_not_taken_for_one_that_is_gone() {
    if !need(&["ip", "curl"]) {
        return;
    }
    let lab = weft_pair();
    for signal in [Signal::SIGTERM, Signal::SIGKILL] {
        lab.signal("p", signal);
        // Longer than the detection time.
        let away = wait_until("BFD and BGP with p are down", LIMIT, || {
            let one = neighbor(&lab, PAIR[0])?;
            (one["state"] != "established" && one["bfd"]["state"] == "down").then_some(one)
        });
        let code = if signal == Signal::SIGTERM {
            "neighbor-admin-down"
        } else {
            "silence"
        };
        assert_eq!(away["bfd"]["down"]["code"], code, "{away}");
        assert_ne!(away["down"]["code"], "bfd-down", "{away}");
        // Its routes are stale, and as good as they were.
        assert_eq!(away["stale"], true, "{away}");
        leads(&lab, "203.0.113.1", PAIR[0]);
        lab.start("p");
        all_up(&lab, PAIR, "is back");
        leads(&lab, "203.0.113.1", PAIR[0]);
        wait_until("nothing is stale", LIMIT, || {
            (neighbor(&lab, PAIR[0])?["stale"] == false).then_some(())
        });
    }
}

/// What BFD counts at a node, and towards its only neighbour with BFD.
fn counted(lab: &Lab, node: &str, address: &str) -> Value {
    let one = lab.neighbor(node, address).unwrap();
    let status = lab.get(node, "status").unwrap();
    let bfd = &one["bfd"];
    let pick = |keys: [&str; 7]| keys.map(|key| format!("{key} {}", bfd[key])).join(", ");
    let session = pick([
        "state",
        "downs",
        "late",
        "sent_late",
        "sent",
        "received",
        "detection_time",
    ]);
    let classes = status["bfd"]["lateness"]["classes"].as_array().unwrap();
    let classes: Vec<String> = classes
        .iter()
        .map(|one| format!("<= {} us: {}", one["at_most"], one["times"]))
        .collect();
    eprintln!(
        "{node}: {}; {session}; woken late: {}; longest {} us",
        status["bfd"]["scheduling"],
        classes.join(", "),
        status["bfd"]["lateness"]["longest"],
    );
    bfd.clone()
}

/// 50 ms x 3 between two routers while one takes a table, loses it and takes it again, and all processors are busy with other things.
/// `BFD_SECONDS` says for how long; a minute takes a minute.
#[test]
fn a_table_that_loads_is_no_failure() {
    if !need(&["ip", "curl"]) {
        return;
    }
    let seconds = std::env::var("BFD_SECONDS")
        .ok()
        .and_then(|text| text.parse().ok());
    let time = Duration::from_secs(seconds.unwrap_or(20));
    let other = |name: &str, id: u8, asn: u32, peer: &str, peer_asn: u32, more: &str| {
        let text = format!(
            "router: {{ name: {name}, router_id: 192.0.2.{id}, asn: {asn}, default_policy: accept }}
neighbors:
  - {{ address: {peer}, asn: {peer_asn}, bfd: {{ interval: 50ms }}, export: reject }}
{more}"
        );
        (format!("{name}.yaml"), text)
    };
    let f = "  - { address: 198.51.100.10, asn: 65003, passive: true }\n";
    let files = [
        other("r", 1, 64601, NEAR[0], 65001, f),
        other("p", 2, 65001, R[0], 64601, ""),
    ];
    let nodes = [
        (
            "r",
            true,
            forwarding(&["e1 198.51.100.1/30", "e2 198.51.100.9/30"]),
        ),
        ("p", true, forwarding(&["e1 198.51.100.2/30"])),
        ("f", false, forwarding(&["e2 198.51.100.10/30"])),
    ];
    let lab = Lab::up(
        &topology(&nodes, &[("r:e1", "p:e1"), ("r:e2", "f:e2")]),
        &files,
    );
    all_up(&lab, [NEAR[0]; 2], "comes up");
    let routes = weft_load::internet(200_000);
    let sender = weft_load::Sender {
        address: [198, 51, 100, 10].into(),
        asn: Some(65003),
    };
    let (announce, withdraw) = (routes.announce(sender), routes.withdraw());
    let speaker = Speaker {
        netns: lab.netns("f"),
        router: [198, 51, 100, 9].into(),
        asn: 65003,
        router_id: [192, 0, 2, 3].into(),
    };
    let mut peer = speaker.establish();
    let stop = AtomicBool::new(false);
    let spinners = 2 * std::thread::available_parallelism().unwrap().get();
    let start = Instant::now();
    let tables = std::thread::scope(|scope| {
        for _ in 0..spinners {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    std::hint::spin_loop();
                }
            });
        }
        let mut tables = 0;
        while start.elapsed() < time {
            peer.send(&announce);
            peer.send(&withdraw);
            tables += 1;
        }
        stop.store(true, Ordering::Relaxed);
        tables
    });
    eprintln!(
        "{tables} tables of 200,000 prefixes in {} s, {spinners} threads that spin",
        start.elapsed().as_secs()
    );
    all_up(&lab, [NEAR[0]; 2], "is up at the end");
    let r = counted(&lab, "r", NEAR[0]);
    counted(&lab, "p", R[0]);
    if lab.get("r", "status").unwrap()["bfd"]["scheduling"] == "real-time" {
        assert_eq!(r["downs"], 0, "{r}");
    }
}
