//! Two routers (a1, a2) with two tenants, red and blue, and what is between them in the underlay (s), which is the Internet besides that
//! red's breakout leads to, by the link that the tunnels use too. Attacks come from a tenant's host (red-1) and from s.

use std::net::{Ipv4Addr, SocketAddr, TcpStream, UdpSocket};
use std::time::Duration;

use weft_tests::frames::{self, ICMP, UDP, Wire, ethernet, ipv4, mac, udp, vxlan};
use weft_tests::topology::{forwarding, topology};
use weft_tests::{Lab, need, netns_command, wait_until};

const PATIENCE: Duration = Duration::from_secs(60);
/// Where red's host is told something, and blue's.
const RED_1: Ipv4Addr = Ipv4Addr::new(10, 0, 1, 10);
const RED_2: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 10);
const BLUE_1: Ipv4Addr = Ipv4Addr::new(10, 1, 1, 10);
/// Endpoints of both routers, and an address of nobody.
const A1: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
const A2: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 2);
const NOBODY: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 77);
const RED: u32 = 10001;
const BLUE: u32 = 10002;

/// Counts what comes to UDP port 666 as `forged`, to 667 as `marker`, and answers to echo requests from elsewhere than red's networks as
/// `answers`.
const COUNT: &str = "nft 'add table inet s; add counter inet s forged; add counter inet s marker; add counter inet s answers; add chain inet s i { type filter hook prerouting priority -500; }; add rule inet s i udp dport 666 counter name forged; add rule inet s i udp dport 667 counter name marker; add rule inet s i ip saddr != 10.0.0.0/16 icmp type echo-reply counter name answers'";

pub(crate) struct Domain {
    pub(crate) lab: Lab,
}

impl Domain {
    /// Both routers have converged, and red's hosts reach each other.
    pub(crate) fn up() -> Option<Self> {
        if !need(&["ip", "nft", "curl", "ping"]) {
            return None;
        }
        let mut nodes = Vec::new();
        for number in [1, 2] {
            let mut exec = forwarding(&[
                &format!("lo 192.0.2.{number}/32"),
                &format!("eth1 10.255.{number}.1/30"),
                &format!("red0 10.0.{number}.1/24"),
                &format!("blue0 10.1.{number}.1/24"),
            ]);
            exec.push(format!("ip route add default via 10.255.{number}.2"));
            nodes.push((format!("a{number}"), true, exec));
            for (tenant, second) in [("red", 0), ("blue", 1)] {
                let exec = vec![
                    format!("ip address add 10.{second}.{number}.10/24 dev eth1"),
                    format!("ip route replace default via 10.{second}.{number}.1"),
                    COUNT.to_owned(),
                ];
                nodes.push((format!("{tenant}-{number}"), false, exec));
            }
        }
        let mut s = forwarding(&[
            "eth1 10.255.1.2/30",
            "eth2 10.255.2.2/30",
            "lo 203.0.113.9/32",
        ]);
        s.push("ip route add 192.0.2.1/32 via 10.255.1.1".to_owned());
        s.push("ip route add 192.0.2.2/32 via 10.255.2.1".to_owned());
        s.push(COUNT.to_owned());
        nodes.push(("s".to_owned(), false, s));
        let nodes: Vec<_> = nodes
            .iter()
            .map(|(name, router, exec)| (name.as_str(), *router, exec.clone()))
            .collect();
        let links = [
            ("a1:eth1", "s:eth1"),
            ("a2:eth1", "s:eth2"),
            ("a1:red0", "red-1:eth1"),
            ("a1:blue0", "blue-1:eth1"),
            ("a2:red0", "red-2:eth1"),
            ("a2:blue0", "blue-2:eth1"),
        ];
        let files = [1, 2].map(|number| {
            let text = Self::config(number, "red0", true);
            (format!("a{number}.yaml"), text)
        });
        let lab = Lab::up(&topology(&nodes, &links), &files);
        lab.reaches("red-1", "10.0.2.10");
        lab.reaches("blue-1", "10.1.2.10");
        Some(Self { lab })
    }

    /// A router with these interfaces for red; it has the other as its neighbour, or is alone.
    pub(crate) fn config(number: u8, red: &str, pair: bool) -> String {
        let other = 3 - number;
        let neighbors = match pair {
            true => format!(
                "neighbors: [{{ address: 192.0.2.{other}, asn: 64601, local_address: 192.0.2.{number} }}]\n"
            ),
            false => String::new(),
        };
        format!(
            "router: {{ name: a{number}, router_id: 192.0.2.{number}, asn: 64601, graceful_restart: false }}
overlay: {{ global_administrator: 64512, endpoint: 192.0.2.{number} }}
tenants:
  - {{ name: red, vni: {RED}, interfaces: [{red}], prefixes: [10.0.{number}.0/24], breakout: {{ interface: eth1 }} }}
  - {{ name: blue, vni: {BLUE}, interfaces: [blue0], prefixes: [10.1.{number}.0/24] }}
{neighbors}"
        )
    }

    pub(crate) fn counted(&self, node: &str, counter: &str) -> u64 {
        weft_tests::chain::counted(&self.lab, node, counter)
    }

    /// Nothing forged has come to a node by the time that an honest packet that was sent after it has: `send` sends to a port.
    fn only_honest(&self, node: &str, forged: impl FnOnce(u16), honest: impl Fn(u16)) {
        let before = self.counted(node, "forged");
        forged(666);
        let markers = self.counted(node, "marker");
        wait_until("an honest packet", PATIENCE, || {
            honest(667);
            (self.counted(node, "marker") > markers).then_some(())
        });
        assert_eq!(self.counted(node, "forged"), before, "at {node}");
    }

    /// What s says to a1's tunnels.
    fn tunnelled(&self, from: Ipv4Addr, vni: u32, tags: &[u16], inner: &[u8]) {
        let device = mac(&self.lab, "a1", "vx0");
        let frame = ethernet(device, [2, 0, 0, 0, 0, 9], tags, inner);
        let packet = ipv4(from, A1, UDP, &vxlan(vni, &frame));
        let wire = Wire::at(&self.lab, "s", "eth1");
        wire.send(mac(&self.lab, "a1", "eth1"), &[], &packet);
    }

    /// An honest packet that comes to a node from somewhere that has a way there.
    fn marker(&self, node: &str) {
        if node == "s" {
            let from = Ipv4Addr::new(10, 255, 1, 1);
            let sent = self.lab.in_node("a1", || {
                let socket = UdpSocket::bind((from, 0)).unwrap();
                socket.send_to(b"honest", "10.255.1.2:667")
            });
            sent.unwrap();
        } else {
            let from = Ipv4Addr::new(10, 1, 2, 10);
            let packet = ipv4(from, BLUE_1, UDP, &udp(5, 667, b"honest"));
            self.tunnelled(A2, BLUE, &[], &packet);
        }
    }

    fn connects(&self, from: &str, to: Ipv4Addr, port: u16) -> bool {
        let to = SocketAddr::from((to, port));
        let time = Duration::from_millis(700);
        self.lab
            .in_node(from, || TcpStream::connect_timeout(&to, time).is_ok())
    }
}

fn to_red_1(port: u16) -> Vec<u8> {
    ipv4(RED_2, RED_1, UDP, &udp(5, port, b"forged"))
}

/// Case 3: a packet of a tunnel, with a VNI that is known, from an address that has no role, or from a router that was removed.
#[test]
fn who_is_no_router_speaks_into_no_tunnel() {
    let Some(domain) = Domain::up() else { return };
    let honest = |port| domain.tunnelled(A2, RED, &[], &to_red_1(port));
    for stranger in [Ipv4Addr::new(10, 255, 1, 2), NOBODY] {
        let forged = |port| domain.tunnelled(stranger, RED, &[], &to_red_1(port));
        domain.only_honest("red-1", forged, honest);
    }
    let lines = || {
        let metrics = domain
            .lab
            .run("a1", "curl -sf http://127.0.0.1:8179/metrics");
        metrics.lines().count()
    };
    let before = lines();
    let device = mac(&domain.lab, "a1", "vx0");
    let (wire, to) = (
        Wire::at(&domain.lab, "s", "eth1"),
        mac(&domain.lab, "a1", "eth1"),
    );
    for source in 0..2000_u32 {
        let from = Ipv4Addr::from(0x0b00_0000 + source);
        let frame = ethernet(device, [2, 0, 0, 0, 0, 9], &[], &to_red_1(666));
        wire.send(to, &[], &ipv4(from, A1, UDP, &vxlan(RED, &frame)));
    }
    assert!(
        lines() < before + 50,
        "spoofed sources fill what is counted"
    );
    // It says good-bye to a2, and from then on hears it no more.
    domain.lab.reload("a1", &Domain::config(1, "red0", false));
    // Some of its packets may be on their way for a minute.
    wait_until("a2's packets are a stranger's", PATIENCE * 3, || {
        let before = domain.counted("red-1", "forged");
        domain.tunnelled(A2, RED, &[], &to_red_1(666));
        domain.tunnelled(A2, RED, &[], &to_red_1(666));
        domain.lab.reaches("red-1", "10.0.1.1");
        (domain.counted("red-1", "forged") == before).then_some(())
    });
}

/// Case 4: a tenant with a breakout over the uplink becomes no router.
#[test]
fn a_tenants_host_is_no_router_by_its_breakout() {
    let Some(domain) = Domain::up() else { return };
    domain.lab.reaches("red-1", "203.0.113.9");
    for to in [
        A1,
        A2,
        Ipv4Addr::new(10, 255, 1, 1),
        Ipv4Addr::new(10, 255, 2, 1),
    ] {
        assert!(!domain.connects("red-1", to, 179), "{to}");
    }
    // A tunnel's packet to the other router, which would take it for one of this router: the source is translated to that.
    let inner = ipv4(
        Ipv4Addr::new(10, 1, 1, 10),
        Ipv4Addr::new(10, 1, 2, 10),
        UDP,
        &udp(5, 666, b"forged"),
    );
    let device = mac(&domain.lab, "a2", "vx0");
    let frame = ethernet(device, [2, 0, 0, 0, 0, 9], &[], &inner);
    let forged = |_| {
        let wire = Wire::at(&domain.lab, "red-1", "eth1");
        wire.send(
            mac(&domain.lab, "a1", "red0"),
            &[],
            &ipv4(RED_1, A2, UDP, &vxlan(BLUE, &frame)),
        );
    };
    let honest = |port: u16| {
        let wire = Wire::at(&domain.lab, "blue-1", "eth1");
        let packet = ipv4(
            BLUE_1,
            Ipv4Addr::new(10, 1, 2, 10),
            UDP,
            &udp(5, port, b"honest"),
        );
        wire.send(mac(&domain.lab, "a1", "blue0"), &[], &packet);
    };
    domain.only_honest("blue-2", forged, honest);
    // The session of the two has seen nothing of it.
    let neighbor = domain.lab.neighbor("a1", "192.0.2.2").unwrap();
    assert_eq!(
        (&neighbor["state"], &neighbor["flaps"]),
        (&"established".into(), &0.into())
    );
}

/// Case 5: tags before the packet hide it from no wall, neither at an attachment nor in a tunnel.
#[test]
fn tags_hide_a_packet_from_no_wall() {
    let Some(domain) = Domain::up() else { return };
    let at = mac(&domain.lab, "a1", "red0");
    let wire = Wire::at(&domain.lab, "red-1", "eth1");
    // Priority tags (VID 0), and one of a VLAN that is not configured.
    for tags in [&[0, 0][..], &[0, 0, 0], &[5]] {
        for (node, to) in [
            ("blue-1", BLUE_1),
            ("s", Ipv4Addr::new(10, 255, 1, 2)),
            ("red-2", RED_2),
        ] {
            let packet = |port| ipv4(RED_1, to, UDP, &udp(5, port, b"forged"));
            let honest = |port| match node {
                "red-2" => wire.send(at, &[], &packet(port)),
                _ => domain.marker(node),
            };
            domain.only_honest(node, |port| wire.send(at, tags, &packet(port)), honest);
        }
        let forged = |port| domain.tunnelled(A2, RED, tags, &to_red_1(port));
        let honest = |port| domain.tunnelled(A2, RED, &[], &to_red_1(port));
        domain.only_honest("red-1", forged, honest);
    }
    // The router's own addresses for other tenants and in the underlay. One priority tag the kernel takes off itself.
    for to in [Ipv4Addr::new(10, 1, 1, 1), A1, Ipv4Addr::new(10, 255, 1, 1)] {
        for tags in [&[0, 0][..], &[0], &[]] {
            wire.send(at, tags, &ipv4(RED_1, to, ICMP, &frames::echo()));
        }
        domain.lab.reaches("red-1", "10.0.1.1");
        assert_eq!(domain.counted("red-1", "answers"), 0, "{to}");
    }
}

/// Case 10: another program has our table of nftables, and it cannot be loaded: tenants stay apart, and it is said.
#[test]
fn a_ruleset_that_is_refused_opens_nothing_and_is_said() {
    use std::io::Write as _;
    let Some(domain) = Domain::up() else { return };
    domain.lab.kill("a1");
    domain.lab.shell("a1", "nft delete table inet weft || true");
    let mut owner = netns_command(&domain.lab.netns("a1"), "nft")
        .arg("-i")
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let mut said = owner.stdin.take().unwrap();
    said.write_all(b"add table inet weft { flags owner; }\n")
        .unwrap();
    wait_until("the other one's table", PATIENCE, || {
        let tables = domain.lab.run("a1", "nft list tables");
        tables.contains("inet weft").then_some(())
    });
    domain.lab.start("a1");
    wait_until("what is said of it", PATIENCE, || {
        let status = domain.lab.get("a1", "status")?;
        let text = status["forwarding"].to_string();
        text.contains("nftables").then_some(())
    });
    let wire = Wire::at(&domain.lab, "red-1", "eth1");
    let at = mac(&domain.lab, "a1", "red0");
    let forged = |port| {
        wire.send(at, &[], &ipv4(RED_1, BLUE_1, UDP, &udp(5, port, b"forged")));
        wire.send(
            at,
            &[],
            &ipv4(
                RED_1,
                Ipv4Addr::new(10, 1, 2, 10),
                UDP,
                &udp(5, port, b"forged"),
            ),
        );
    };
    domain.only_honest("blue-1", forged, |_| domain.marker("blue-1"));
    drop(said);
    owner.wait().unwrap();
}

/// Case 15: what the router lives by is no tenant's; and from the breakout's outside come answers alone.
#[test]
fn uplinks_are_no_tenants_and_a_breakout_lets_nobody_in() {
    let Some(domain) = Domain::up() else { return };
    // From the outside: a host there that routes red's prefix to the router.
    domain
        .lab
        .run("s", "ip route add 10.0.1.0/24 via 10.255.1.1");
    domain.lab.reaches("red-1", "203.0.113.9");
    let wire = Wire::at(&domain.lab, "s", "eth1");
    let at = mac(&domain.lab, "a1", "eth1");
    let outside = Ipv4Addr::new(203, 0, 113, 9);
    let forged = |port| {
        wire.send(
            at,
            &[],
            &ipv4(outside, RED_1, UDP, &udp(5, port, b"forged")),
        )
    };
    let honest = |port| domain.tunnelled(A2, RED, &[], &to_red_1(port));
    domain.only_honest("red-1", forged, honest);
    // `lo` is not even read, and the uplink is not given.
    let file = domain.lab.path("lo.yaml");
    std::fs::write(&file, Domain::config(1, "red0, lo", true)).unwrap();
    let check = std::process::Command::new(weft_tests::weft())
        .arg("check")
        .arg(&file)
        .output()
        .unwrap();
    assert!(!check.status.success());
    domain
        .lab
        .reload("a1", &Domain::config(1, "red0, eth1", true));
    wait_until("the refusal", PATIENCE, || {
        let status = domain.lab.get("a1", "status")?;
        let text = status["forwarding"].to_string();
        text.contains("attachment-refused").then_some(())
    });
    domain.lab.reaches("red-1", "10.0.2.10");
    let neighbor = domain.lab.neighbor("a1", "192.0.2.2").unwrap();
    assert_eq!(
        (&neighbor["state"], &neighbor["flaps"]),
        (&"established".into(), &0.into())
    );
}
