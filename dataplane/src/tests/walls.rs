//! What must not pass, tried from where an attacker stands: behind a breakout, at an attachment, in the underlay. Packets are
//! counted where they would arrive.

use std::net::{Ipv4Addr, TcpStream, UdpSocket};
use std::os::fd::AsRawFd;
use std::time::Instant;

use nix::sys::socket::{
    AddressFamily, LinkAddr, MsgFlags, SockFlag, SockType, SockaddrLike, sendto, socket,
};
use weft_overlay::intent::{Breakout, TenantIntent};

use super::super::*;
use super::breakout::uplink;
use super::domain::{A, Mode, tenant};
use super::lab::{Lab, Router, privileged};
use super::{attached, counted, index};
use crate::bpf::Classifier;
use crate::netlink::socket::Netlink;

/// Kinds of frames.
const IPV4: u16 = 0x0800;
const TAG: u16 = 0x8100;
const LLDP: u16 = 0x88cc;

/// Protocols of packets.
const ICMP: u8 = 1;
const GRE: u8 = 47;

const RED: u32 = 10001;

/// Segmentation that this kernel has, each with BPF and without.
fn walls() -> Vec<(Mode, bool)> {
    let possible = Mode::possible();
    let modes = [false, true].map(|vrf| Mode { vrf, ..Mode::PLAIN });
    let modes = modes.into_iter().filter(|mode| possible.contains(mode));
    modes
        .flat_map(|mode| [(mode, true), (mode, false)])
        .collect()
}

fn start(lab: &Lab, (mode, bpf): (Mode, bool)) -> Router {
    let config = mode.config(A);
    if !bpf {
        config.faults.refuse_bpf();
    }
    lab.start("a", config)
}

pub(super) fn red(breakout: bool) -> (TenantId, Option<TenantIntent>) {
    let (id, intent) = tenant(0, "red", RED, Some("red0"));
    let breakout = breakout.then(|| Breakout {
        interface: "inet".into(),
        source_nat: true,
    });
    (id, intent.map(|intent| TenantIntent { breakout, ..intent }))
}

/// Counts what comes in at a node that these matches say, in the order in which they stand.
pub(super) fn count(lab: &Lab, node: &str, matches: &[&str]) {
    let rules: String = matches
        .iter()
        .map(|each| format!("add rule inet c i {each} counter\n"))
        .collect();
    lab.run(
        node,
        &format!("echo 'add table inet c\nadd chain inet c i {{ type filter hook input priority 300; }}\n{rules}' | nft -f -"),
    );
}

pub(super) fn answers(lab: &Lab, node: &str, to: &str) -> bool {
    let ping = lab.try_run(node, &format!("ping -c 3 -i 0.05 -W 1 -q {to}"));
    ping.status.success()
}

fn wait_until_answered(lab: &Lab, node: &str, to: &str) {
    let end = Instant::now() + Duration::from_secs(20);
    while !answers(lab, node, to) {
        assert!(Instant::now() < end, "{node} never reached {to}");
    }
}

pub(super) fn mac_of(lab: &Lab, node: &str, device: &str) -> [u8; 6] {
    let text = lab.run(node, &format!("ip -o link show dev {device}"));
    let words = text.split("link/ether ").nth(1).unwrap();
    let octets = words.split(' ').next().unwrap().split(':');
    let octets: Vec<u8> = octets
        .map(|octet| u8::from_str_radix(octet, 16).unwrap())
        .collect();
    octets.try_into().unwrap()
}

fn checksum(octets: &[u8]) -> [u8; 2] {
    let words = octets.chunks(2);
    let mut sum: u32 = words
        .map(|item| u32::from(u16::from_be_bytes([item[0], item[1]])))
        .sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    (!(sum as u16)).to_be_bytes()
}

/// An IPv4 packet of a protocol.
pub(super) fn packet(protocol: u8, from: Ipv4Addr, to: Ipv4Addr, payload: &[u8]) -> Vec<u8> {
    let len = 20 + payload.len() as u8;
    let mut packet = vec![0x45, 0, 0, len, 0, 1, 0, 0, 64, protocol, 0, 0];
    packet.extend(from.octets());
    packet.extend(to.octets());
    let sum = checksum(&packet);
    packet[10..12].copy_from_slice(&sum);
    packet.extend(payload);
    packet
}

pub(super) fn echo_request(from: Ipv4Addr, to: Ipv4Addr) -> Vec<u8> {
    let mut icmp = [8, 0, 0, 0, 0, 7, 0, 1];
    let sum = checksum(&icmp);
    icmp[2..4].copy_from_slice(&sum);
    packet(ICMP, from, to, &icmp)
}

/// A frame with these kinds, each of a tag followed by VLAN 0, and a payload.
pub(super) fn frame(to: [u8; 6], kinds: &[u16], payload: &[u8]) -> Vec<u8> {
    let mut frame = to.to_vec();
    frame.extend([2, 0, 0, 0, 0, 7]);
    for kind in kinds {
        frame.extend(kind.to_be_bytes());
        if *kind == TAG {
            frame.extend([0, 0]);
        }
    }
    frame.extend(payload);
    frame
}

#[allow(unsafe_code, reason = "nix makes no address of a link")]
pub(super) fn send_frame(lab: &Lab, node: &str, device: &str, frame: Vec<u8>) {
    let link = index(lab, node, device);
    lab.inside(node, move || {
        let raw = socket(
            AddressFamily::Packet,
            SockType::Raw,
            SockFlag::empty(),
            None,
        );
        let raw = raw.unwrap();
        let to = libc::sockaddr_ll {
            sll_family: libc::AF_PACKET as u16,
            sll_protocol: 0,
            sll_ifindex: link as i32,
            sll_hatype: 0,
            sll_pkttype: 0,
            sll_halen: 6,
            sll_addr: [0; 8],
        };
        let len = Some(size_of_val(&to) as u32);
        // SAFETY: a whole `sockaddr_ll`, which outlives the call.
        let to = unsafe { LinkAddr::from_raw((&raw const to).cast(), len) };
        sendto(raw.as_raw_fd(), &frame, &to.unwrap(), MsgFlags::empty()).unwrap();
    });
}

/// Whoever is on the link of a breakout and routes a tenant's prefix here reaches nobody: answers only come in.
#[test]
fn from_the_breakouts_outside_only_replies_come_in() {
    if !privileged() {
        return;
    }
    for wall in walls() {
        let lab = uplink();
        count(
            &lab,
            "red",
            &["icmp type echo-request", "udp dport 9999", "tcp dport 9999"],
        );
        let a = start(&lab, wall);
        a.apply(IntentDelta {
            tenants: vec![red(true)],
            ..IntentDelta::default()
        });
        assert_eq!(a.status().refused, [], "{wall:?}");
        wait_until_answered(&lab, "red", "192.0.2.99");
        assert!(!answers(&lab, "net", "10.0.1.10"), "{wall:?}");
        lab.inside("net", || {
            let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
            socket.send_to(b"in", "10.0.1.10:9999").unwrap();
            let to = "10.0.1.10:9999".parse().unwrap();
            assert!(TcpStream::connect_timeout(&to, Duration::from_millis(300)).is_err());
        });
        assert_eq!(counted(&lab, "red", "c"), 0, "{wall:?}");
        assert!(answers(&lab, "red", "192.0.2.99"), "{wall:?}");
    }
}

/// A tenant whose way out is the uplink is the router to whoever is there: it must not speak for it.
#[test]
fn a_breakout_reaches_neither_control_nor_data_plane() {
    if !privileged() {
        return;
    }
    for wall in walls() {
        let lab = uplink();
        lab.run("net", "ip addr add 192.0.2.98/32 dev lo");
        count(
            &lab,
            "net",
            &[
                "ip saddr 203.0.113.1 tcp dport { 179, 4784 }",
                "ip saddr 203.0.113.1 udp dport { 862, 3784, 4784, 4789, 4790 }",
                "ip saddr 203.0.113.1 ip protocol gre",
                "ip daddr 203.0.113.9 icmp type echo-request",
            ],
        );
        let a = start(&lab, wall);
        a.apply(IntentDelta {
            tenants: vec![red(true)],
            ..IntentDelta::default()
        });
        a.track(vec![[203, 0, 113, 9].into()]);
        assert_eq!(a.status().refused, [], "{wall:?}");
        wait_until_answered(&lab, "red", "192.0.2.99");
        lab.inside("red", || {
            let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
            for port in [862, 3784, 4784, 4789, 4790] {
                for to in ["192.0.2.99", "203.0.113.9"] {
                    socket.send_to(b"in", (to, port)).unwrap();
                }
            }
            let to = "192.0.2.99:179".parse().unwrap();
            assert!(TcpStream::connect_timeout(&to, Duration::from_millis(300)).is_err());
        });
        let (host, far) = (Ipv4Addr::new(10, 0, 1, 10), Ipv4Addr::new(192, 0, 2, 99));
        let gre = packet(GRE, host, far, &[0, 0, 8, 0]);
        let to = mac_of(&lab, "a", "red0");
        send_frame(&lab, "red", "eth0", frame(to, &[IPV4], &gre));
        assert!(!answers(&lab, "red", "203.0.113.9"), "{wall:?}");
        assert_eq!(counted(&lab, "net", "c"), 0, "{wall:?}");
        // What is not the router's business goes out as ever.
        assert!(answers(&lab, "red", "192.0.2.98"), "{wall:?}");
    }
}

/// Two priority tags hide a packet from what looks for IP; the kernel takes them off and reads on.
#[test]
fn only_internet_protocols_pass_an_attachment_or_a_tunnel() {
    if !privileged() {
        return;
    }
    for wall in walls() {
        let lab = uplink();
        count(&lab, "a", &["icmp type echo-request"]);
        let a = start(&lab, wall);
        a.apply(IntentDelta {
            tenants: vec![red(false)],
            ..IntentDelta::default()
        });
        assert_eq!(a.status().refused, [], "{wall:?}");
        wait_until_answered(&lab, "red", "10.0.1.1");
        let before = counted(&lab, "a", "c");
        let to = mac_of(&lab, "a", "red0");
        let host = Ipv4Addr::new(10, 0, 1, 10);
        let own = echo_request(host, Ipv4Addr::new(10, 0, 1, 1));
        let uplink = echo_request(host, Ipv4Addr::new(203, 0, 113, 1));
        // One priority tag is what some hosts send: it is as none.
        send_frame(&lab, "red", "eth0", frame(to, &[TAG, IPV4], &own));
        assert_eq!(counted(&lab, "a", "c"), before + 1, "{wall:?}");
        for kinds in [&[TAG, TAG, IPV4][..], &[TAG, TAG, TAG, IPV4]] {
            for packet in [&own, &uplink] {
                send_frame(&lab, "red", "eth0", frame(to, kinds, packet));
            }
        }
        send_frame(&lab, "red", "eth0", frame(to, &[LLDP], &own));
        // The same from the underlay, inside a tunnel.
        let mut tunnelled = vec![8, 0, 0, 0];
        tunnelled.extend((RED << 8).to_be_bytes());
        let inside = mac_of(&lab, "a", "vx0");
        tunnelled.extend(frame(inside, &[TAG, TAG, IPV4], &uplink));
        lab.inside("net", move || {
            let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
            socket.send_to(&tunnelled, "192.0.2.1:4789").unwrap();
        });
        assert!(answers(&lab, "net", "203.0.113.1"));
        // The underlay's own three. Without BPF walls read what is left when the kernel has taken the tags off: the tenant's own
        // address answers.
        let arrived = counted(&lab, "a", "c") - before - 1;
        let own = if wall.1 { 0 } else { 2 };
        assert_eq!(arrived, 3 + own, "{wall:?}");
        if wall.1 {
            let drops = a.status().drops.unwrap();
            assert_eq!(drops.other_protocol, 6, "{wall:?}: {drops:?}");
        }
    }
}

/// Programs that somebody takes away come back at once, and no audit is waited for; the verdict has said so.
#[test]
fn programs_that_somebody_detaches_come_back() {
    if !privileged() {
        return;
    }
    let lab = uplink();
    let a = lab.start("a", Mode::PLAIN.config(A));
    a.apply(IntentDelta {
        tenants: vec![red(false)],
        ..IntentDelta::default()
    });
    assert_eq!(a.status().refused, []);
    wait_until_answered(&lab, "red", "10.0.1.1");
    for device in ["red0", "vx0"] {
        let (link, before) = (index(&lab, "a", device), a.status().repairs);
        lab.inside("a", move || {
            Classifier::detach(&mut Netlink::open().unwrap(), link).unwrap();
        });
        let status = a.wait(|status| status.repairs > before);
        assert!(attached(&lab, "a", device), "{device}");
        let still = status.conditions.iter();
        assert!(
            !still
                .map(|one| one.kind)
                .any(|kind| kind == ConditionKind::Classifier),
            "{device}"
        );
    }
}

/// A tenant that names what the router lives by does not get it, and keeps the rest.
#[test]
fn the_routers_own_interfaces_are_no_tenants() {
    if !privileged() {
        return;
    }
    for wall in walls() {
        let lab = uplink();
        let a = start(&lab, wall);
        a.watch_neighbors(vec![[203, 0, 113, 9].into()]);
        let (id, intent) = red(false);
        let names = ["inet", "lo", "red0", "vx0", "x\"y"];
        let intent = intent.map(|intent| TenantIntent {
            attachments: names.map(str::to_owned).to_vec(),
            ..intent
        });
        a.apply(IntentDelta {
            tenants: vec![(id, intent)],
            ..IntentDelta::default()
        });
        let status = a.status();
        assert_eq!(status.refused, [], "{wall:?}");
        let refused = status.conditions.iter();
        let refused: Vec<&str> = refused
            .filter(|one| one.kind == ConditionKind::AttachmentRefused)
            .map(|one| one.subject.as_str())
            .collect();
        assert_eq!(refused, ["inet", "lo", "vx0", "x\"y"], "{wall:?}");
        let ruleset = ConditionKind::Ruleset;
        assert!(!status.conditions.iter().any(|one| one.kind == ruleset));
        wait_until_answered(&lab, "red", "10.0.1.1");
        assert!(answers(&lab, "a", "203.0.113.9"), "{wall:?}");
        assert!(!answers(&lab, "red", "203.0.113.1"), "{wall:?}");
    }
}

/// Whoever is behind an interface is still there when its tenant leaves it, and is no part of the underlay: not when the interface is made
/// again, and not for the next process.
#[test]
fn nobody_passes_an_interface_that_its_tenant_has_left() {
    if !privileged() {
        return;
    }
    for wall in walls() {
        let lab = uplink();
        let mut a = start(&lab, wall);
        a.apply(IntentDelta {
            tenants: vec![red(false)],
            ..IntentDelta::default()
        });
        a.settle();
        wait_until_answered(&lab, "red", "10.0.1.1");
        let left = || IntentDelta {
            tenants: vec![tenant(0, "red", RED, None)],
            ..IntentDelta::default()
        };
        let endpoint = wall.0.endpoint(A).to_string();
        let is_closed = |a: &Router| {
            let status = a.status();
            let said = status
                .conditions
                .iter()
                .any(|one| one.kind == ConditionKind::FormerAttachment && one.subject == "red0");
            assert!(said, "{wall:?}: {status:?}");
            for to in ["10.0.1.1", &endpoint] {
                assert!(!answers(&lab, "red", to), "{wall:?}: {to}");
            }
        };
        a.apply(left());
        is_closed(&a);

        lab.run("a", "ip link del red0");
        lab.link(
            ("a", "red0", "10.0.1.1/24"),
            ("red", "eth0", "10.0.1.10/24"),
        );
        lab.run("red", "ip route replace default via 10.0.1.1");
        if wall.1 {
            let end = Instant::now() + Duration::from_secs(20);
            while !attached(&lab, "a", "red0") {
                assert!(Instant::now() < end, "{wall:?}");
            }
        }
        is_closed(&a);

        // One that ends before it knows everything forgets nothing either.
        a.kill();
        let mut early = start(&lab, wall);
        early.apply(left());
        assert_eq!(early.status().refused, [], "{wall:?}");
        assert!(!answers(&lab, "red", &endpoint), "{wall:?}");
        early.kill();
        let a = start(&lab, wall);
        a.apply(left());
        a.settle();
        is_closed(&a);
        a.apply(IntentDelta {
            tenants: vec![red(false)],
            ..IntentDelta::default()
        });
        wait_until_answered(&lab, "red", "10.0.1.1");
        assert!(!answers(&lab, "red", &endpoint), "{wall:?}");
    }
}

/// Another name makes nobody a part of the underlay: neither of what a tenant has, nor of what is closed.
#[test]
fn nobody_passes_a_tenants_interface_under_another_name() {
    if !privileged() {
        return;
    }
    for wall in walls() {
        let lab = uplink();
        let a = start(&lab, wall);
        a.apply(IntentDelta {
            tenants: vec![red(false)],
            ..IntentDelta::default()
        });
        // Until then it could not know whose the interface is.
        a.wait(|status| {
            let mut tenants = status.tenants.iter();
            tenants.any(|one| one.name == "red" && one.missing.is_empty())
        });
        a.settle();
        wait_until_answered(&lab, "red", "10.0.1.1");
        let endpoint = wall.0.endpoint(A).to_string();
        for (from, to) in [("red0", "x0"), ("x0", "y0")] {
            let rename = format!(
                "ip link set {from} down; ip link set {from} name {to}; ip link set {to} up"
            );
            lab.run("a", &rename);
            lab.run("a", &format!("ip address replace 10.0.1.1/24 dev {to}"));
            a.wait(|status| {
                let mut all = status.conditions.iter();
                all.any(|one| one.kind == ConditionKind::FormerAttachment && one.subject == to)
            });
            for address in ["10.0.1.1", &endpoint] {
                assert!(!answers(&lab, "red", address), "{wall:?}: {to}, {address}");
            }
        }
        lab.run(
            "a",
            "ip link set y0 down; ip link set y0 name red0; ip link set red0 up",
        );
        wait_until_answered(&lab, "red", "10.0.1.1");
        assert!(!answers(&lab, "red", &endpoint), "{wall:?}");
    }
}

/// What the router lives by is no tenant's; and no tenant's host makes its interface one that the router lives by.
#[test]
fn the_way_to_whom_the_router_lives_by_is_no_tenants() {
    if !privileged() {
        return;
    }
    let lab = uplink();
    let a = start(&lab, (Mode::PLAIN, true));
    let with = |names: &[&str]| {
        let (id, intent) = red(false);
        let attachments = names.iter().map(|name| (*name).to_owned()).collect();
        let intent = intent.map(|intent| TenantIntent {
            attachments,
            ..intent
        });
        IntentDelta {
            tenants: vec![(id, intent)],
            ..IntentDelta::default()
        }
    };
    let refused = || -> Vec<String> {
        let refused = a.status().conditions.into_iter();
        let refused = refused.filter(|one| one.kind == ConditionKind::AttachmentRefused);
        refused.map(|one| one.subject).collect()
    };
    a.apply(with(&["red0"]));
    a.live_by(vec![[203, 0, 113, 9].into(), [10, 0, 1, 10].into()]);
    assert!(refused().is_empty());
    a.apply(with(&["red0", "inet"]));
    assert_eq!(refused(), ["inet"]);
    wait_until_answered(&lab, "red", "10.0.1.1");
    assert!(answers(&lab, "a", "203.0.113.9"));
}

/// Neither BPF nor nftables keeps tenants apart: none of their packets passes, and the router says that it is down.
#[test]
fn without_any_wall_no_tenants_packet_passes() {
    use std::io::Write as _;
    if !privileged() {
        return;
    }
    let lab = uplink();
    let mut owner = std::process::Command::new("ip")
        .args(["netns", "exec", &lab.ns("a"), "nft", "-i"])
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::null())
        .spawn()
        .unwrap();
    // Somebody else's: ours is refused.
    let mut nft = owner.stdin.take().unwrap();
    nft.write_all(b"add table inet weft { flags owner; }\n")
        .unwrap();
    let end = Instant::now() + Duration::from_secs(20);
    while !lab.run("a", "nft list tables").contains("weft") {
        assert!(Instant::now() < end);
    }
    let a = start(&lab, (Mode::PLAIN, false));
    a.apply(IntentDelta {
        tenants: vec![red(false)],
        ..IntentDelta::default()
    });
    let status = a.status();
    let down = status
        .conditions
        .iter()
        .find(|one| one.kind == ConditionKind::Ruleset);
    assert_eq!(
        down.map(|one| one.severity),
        Some(Severity::Down),
        "{status:?}"
    );
    assert!(!answers(&lab, "red", "203.0.113.9"));
    let rules = lab.run("a", "ip rule");
    assert!(rules.contains("iif red0 unreachable"), "{rules}");

    drop(nft);
    owner.wait().unwrap();
    let is_down = |status: &DataplaneStatus| {
        let mut kinds = status.conditions.iter().map(|one| one.kind);
        kinds.any(|kind| kind == ConditionKind::Ruleset)
    };
    a.wait(|status| !is_down(status));
    let rules = lab.run("a", "ip rule");
    assert!(!rules.contains("unreachable"), "{rules}");
    wait_until_answered(&lab, "red", "10.0.1.1");
}

/// What the kernel takes for the router's own beside its addresses is no other tenant's either.
#[test]
fn nobody_reaches_the_router_by_the_broadcast_addresses_of_others() {
    if !privileged() {
        return;
    }
    for wall in walls() {
        let lab = uplink();
        let a = start(&lab, wall);
        a.apply(IntentDelta {
            tenants: vec![red(false)],
            ..IntentDelta::default()
        });
        assert_eq!(a.status().refused, [], "{wall:?}");
        wait_until_answered(&lab, "red", "10.0.1.1");
        count(
            &lab,
            "a",
            &[
                "udp dport 999 ip daddr 10.0.1.255",
                "udp dport 999 ip daddr 203.0.113.255",
            ],
        );
        let to = mac_of(&lab, "a", "red0");
        let host = Ipv4Addr::new(10, 0, 1, 10);
        let udp = [3, 0xe7, 3, 0xe7, 0, 8, 0, 0];
        for address in [[10, 0, 1, 255], [203, 0, 113, 255]] {
            let packet = packet(17, host, address.into(), &udp);
            send_frame(&lab, "red", "eth0", frame(to, &[IPV4], &packet));
        }
        wait_until_answered(&lab, "red", "10.0.1.1");
        let text = lab.run("a", "nft list chain inet c i");
        let counts: Vec<&str> = text
            .split("packets ")
            .skip(1)
            .map(|rest| &rest[..1])
            .collect();
        assert_eq!(counts, ["1", "0"], "{wall:?}");
    }
}

/// UDP from one address and port to another.
fn datagram((from, source): (Ipv4Addr, u16), (to, port): (Ipv4Addr, u16)) -> Vec<u8> {
    let fields = [source, port, 8 + 4, 0];
    let mut udp: Vec<u8> = fields
        .iter()
        .flat_map(|field| field.to_be_bytes())
        .collect();
    udp.extend(*b"what");
    packet(17, from, to, &udp)
}

/// A tenant's connections that stay inside are none that somebody on its breakout's link may speak in, whatever he knows of them.
#[test]
fn who_is_outside_does_not_speak_within_a_tenants_own_connections() {
    if !privileged() {
        return;
    }
    let (host, own) = (Ipv4Addr::new(10, 0, 1, 10), Ipv4Addr::new(10, 0, 1, 1));
    for wall in walls() {
        let lab = uplink();
        count(&lab, "red", &["udp sport 9999"]);
        count(&lab, "a", &["udp dport 9999"]);
        let a = start(&lab, wall);
        a.apply(IntentDelta {
            tenants: vec![red(true)],
            ..IntentDelta::default()
        });
        assert_eq!(a.status().refused, [], "{wall:?}");
        wait_until_answered(&lab, "red", "192.0.2.99");
        let said = datagram((host, 5000), (own, 9999));
        let to = mac_of(&lab, "a", "red0");
        send_frame(&lab, "red", "eth0", frame(to, &[IPV4], &said));
        assert_eq!(counted(&lab, "a", "c"), 1, "{wall:?}: red's host");
        let answer = datagram((own, 9999), (host, 5000));
        let to = mac_of(&lab, "a", "inet");
        send_frame(&lab, "net", "eth0", frame(to, &[IPV4], &answer));
        // What goes the same way behind it has arrived.
        assert!(answers(&lab, "red", "192.0.2.99"), "{wall:?}");
        assert_eq!(counted(&lab, "red", "c"), 0, "{wall:?}: somebody outside");
    }
}

/// The router answers to whoever asks it; what it answers does not go to a tenant's host that somebody in the underlay names as the source.
#[test]
fn what_the_router_answers_to_others_comes_to_no_tenants_host() {
    if !privileged() {
        return;
    }
    let (host, router) = (Ipv4Addr::new(10, 0, 1, 10), Ipv4Addr::new(192, 0, 2, 1));
    for wall in walls() {
        let lab = uplink();
        count(
            &lab,
            "red",
            &[
                "ip saddr 192.0.2.1",
                "ip saddr 203.0.113.1",
                "icmp type echo-reply",
            ],
        );
        let a = start(&lab, wall);
        a.apply(IntentDelta {
            tenants: vec![red(false)],
            ..IntentDelta::default()
        });
        assert_eq!(a.status().refused, [], "{wall:?}");
        wait_until_answered(&lab, "red", "10.0.1.1");
        let own = counted(&lab, "red", "c");
        let mut syn = vec![
            0x13, 0x88, 0, 9, 0, 0, 0, 1, 0, 0, 0, 0, 0x50, 2, 0xff, 0xff, 0, 0, 0, 0,
        ];
        let mut pseudo = [host.octets(), router.octets()].concat();
        pseudo.extend([0, 6, 0, 20]);
        pseudo.extend(&syn);
        let sum = checksum(&pseudo);
        syn[16..18].copy_from_slice(&sum);
        for asks in [
            datagram((host, 5000), (router, 9)),
            echo_request(host, router),
            packet(6, host, router, &syn),
        ] {
            let to = mac_of(&lab, "a", "inet");
            send_frame(&lab, "net", "eth0", frame(to, &[IPV4], &asks));
        }
        assert!(answers(&lab, "net", "203.0.113.1"), "{wall:?}");
        // The router itself may still ask its tenants' hosts, and answers to them.
        let in_vrf = match wall.0.vrf {
            true => "-I red0 ",
            false => "",
        };
        let to = format!("{in_vrf}10.0.1.10");
        assert!(answers(&lab, "a", &to), "{wall:?}");
        assert_eq!(counted(&lab, "red", "c"), own, "{wall:?}");
        assert!(answers(&lab, "red", "10.0.1.1"), "{wall:?}");
    }
}
