//! IPv4 prefixes with IPv6 next hops (RFC 8950), with every speaker that we know of at the other end: packets of IPv4 cross a link that has
//! addresses of IPv6 alone.

#![allow(clippy::unwrap_used, reason = "a test: a panic is its verdict")]

use std::path::Path;
use std::time::Duration;

use weft_tests::topology::topology;
use weft_tests::{Daemon, Lab, find, frr, need, wait_until};

const LIMIT: Duration = Duration::from_secs(60);
const R: &str = "2001:db8:1::1";
const P: &str = "2001:db8:1::2";

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// r and p on a link of IPv6, each with an address of IPv4 behind it.
fn up(weft_at_p: bool, files: &[(&str, String)]) -> Lab {
    let node = |link: &str, own: &str| {
        vec![
            "sysctl -qw net.ipv4.ip_forward=1".to_owned(),
            "sysctl -qw net.ipv6.conf.all.forwarding=1".to_owned(),
            format!("ip address add {link}/64 dev e1 nodad"),
            format!("ip address add {own}/32 dev lo"),
        ]
    };
    let nodes = [
        ("r", true, node(R, "192.0.2.1")),
        ("p", weft_at_p, node(P, "203.0.113.1")),
    ];
    let config = config("r", "192.0.2.1", 64601, (P, 65001), "192.0.2.0/24");
    let mut all = vec![("r.yaml".to_owned(), config)];
    all.extend(
        files
            .iter()
            .map(|(name, text)| ((*name).to_owned(), text.clone())),
    );
    Lab::up(&topology(&nodes, &[("r:e1", "p:e1")]), &all)
}

fn config(name: &str, id: &str, asn: u32, (peer, peer_asn): (&str, u32), network: &str) -> String {
    format!(
        "router: {{ name: {name}, router_id: {id}, asn: {asn}, default_policy: accept }}
install: [0.0.0.0/0]
networks: [{network}]
neighbors: [{{ address: '{peer}', asn: {peer_asn}, connect_retry: 1 }}]
"
    )
}

/// r has the route of p with its next hop of IPv6 and forwards by it; `there_and_back`: p does, too.
fn crosses(lab: &Lab, there_and_back: bool) {
    let path = wait_until("the route of p", LIMIT, || {
        let paths = lab.paths("r", "203.0.113.0/24");
        paths.into_iter().next()
    });
    assert_eq!(path["next_hop"], P, "{path}");
    let neighbor = lab.neighbor("r", P).unwrap();
    assert_eq!(
        neighbor["negotiated"]["extended_next_hop"], true,
        "{neighbor}"
    );
    assert!(neighbor["mute"].is_null(), "{neighbor}");
    wait_until("the kernel has it", LIMIT, || {
        let route = lab.run("r", "ip route show 203.0.113.0/24");
        route.contains("via inet6").then_some(())
    });
    if there_and_back {
        wait_until("a ping of IPv4", LIMIT, || {
            let mut ping = lab.command("r", "ping");
            ping.args(["-c1", "-W1", "-I", "192.0.2.1", "203.0.113.1"]);
            ping.output().unwrap().status.success().then_some(())
        });
    }
}

#[test]
fn of_bird() {
    if !need(&["ip", "curl", "ping", "bird"]) {
        return;
    }
    let bird = format!(
        "router id 203.0.113.1;
protocol device {{ }}
protocol kernel {{ ipv4 {{ import none; export where source = RTS_BGP; }}; }}
protocol static {{ ipv4; route 203.0.113.0/24 blackhole; }}
protocol bgp r {{
  local {P} as 65001; neighbor {R} as 64601; direct; connect retry time 1; error wait time 1, 2; connect delay time 1;
  ipv4 {{ import all; export all; extended next hop; }};
}}
"
    );
    let lab = up(false, &[("bird.conf", bird)]);
    let (config, socket) = (lab.path("bird.conf"), lab.path("bird.ctl"));
    let arguments = ["-f", "-c", text(&config), "-s", text(&socket)];
    let _bird = lab.daemon("p", &find("bird").unwrap(), &arguments);
    crosses(&lab, true);
}

#[test]
fn of_frr() {
    if !need(&[
        "ip",
        "curl",
        "ping",
        "/usr/lib/frr/zebra",
        "/usr/lib/frr/bgpd",
    ]) {
        return;
    }
    let bgpd = format!(
        "hostname p
router bgp 65001
 bgp router-id 203.0.113.1
 no bgp ebgp-requires-policy
 no bgp network import-check
 neighbor {R} remote-as 64601
 neighbor {R} timers connect 1
 neighbor {R} capability extended-nexthop
 address-family ipv4 unicast
  neighbor {R} activate
  network 203.0.113.0/24
 exit-address-family
"
    );
    let files = [
        ("bgpd.conf", bgpd),
        ("zebra.conf", "hostname p\n".to_owned()),
    ];
    let lab = up(false, &files);
    wait_until("p's link-local address", LIMIT, || {
        let addresses = lab.run("p", "ip -6 address show dev e1 scope link");
        (addresses.contains("fe80") && !addresses.contains("tentative")).then_some(())
    });
    let _frr: [Daemon; 2] = frr(&lab, "p");
    crosses(&lab, true);
}

#[test]
fn of_gobgp() {
    if !need(&["ip", "curl", "gobgpd", "gobgp"]) {
        return;
    }
    let gobgpd = format!(
        "[global.config]
  as = 65001
  router-id = \"203.0.113.1\"
[[neighbors]]
  [neighbors.config]
    neighbor-address = \"{R}\"
    peer-as = 64601
  [[neighbors.afi-safis]]
    [neighbors.afi-safis.config]
      afi-safi-name = \"ipv4-unicast\"
"
    );
    let lab = up(false, &[("gobgpd.toml", gobgpd)]);
    let config = lab.path("gobgpd.toml");
    let _gobgp = lab.daemon("p", &find("gobgpd").unwrap(), &["-f", text(&config)]);
    wait_until("GoBGP answers", LIMIT, || {
        let mut add = lab.command("p", "gobgp");
        add.args(["global", "rib", "add", "203.0.113.0/24", "nexthop", P]);
        add.output().unwrap().status.success().then_some(())
    });
    // GoBGP installs no routes.
    crosses(&lab, false);
}

#[test]
fn of_weft() {
    if !need(&["ip", "curl", "ping"]) {
        return;
    }
    let p = config("p", "203.0.113.1", 65001, (R, 64601), "203.0.113.0/24");
    let lab = up(true, &[("p.yaml", p)]);
    crosses(&lab, true);
}
