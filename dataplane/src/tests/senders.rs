//! Who may send into a tenant from the underlay, tried from where others stand there.

use std::net::{Ipv4Addr, UdpSocket};

use weft_overlay::VniSet;

use super::super::*;
use super::breakout::uplink;
use super::counted;
use super::domain::{A, Mode, route, tenant, vni};
use super::lab::{Lab, Router, privileged};
use super::walls::{answers, count, echo_request, frame, mac_of, packet, red, send_frame};

const RED: u32 = 10001;
const FAR: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 9);
const STRANGER: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 99);

/// Sends an echo request for red's host in a tunnel packet of red's VNI.
fn send(lab: &Lab, from: Ipv4Addr) {
    send_to(lab, from, 4789);
}

fn send_to(lab: &Lab, from: Ipv4Addr, port: u16) {
    let inside = echo_request(Ipv4Addr::new(10, 0, 2, 10), Ipv4Addr::new(10, 0, 1, 10));
    let mut packet = vec![8, 0, 0, 0];
    packet.extend((RED << 8).to_be_bytes());
    packet.extend(frame(mac_of(lab, "a", "vx0"), &[0x0800], &inside));
    lab.inside("net", move || {
        let socket = UdpSocket::bind((from, 0)).unwrap();
        socket.send_to(&packet, ("192.0.2.1", port)).unwrap();
    });
    // What goes the same way behind it has arrived.
    assert!(answers(lab, "net", "203.0.113.1"));
}

fn start(lab: &Lab, bpf: bool, grace: Duration) -> Router {
    let mut config = Mode::PLAIN.config(A);
    config.sender_grace = grace;
    if !bpf {
        config.faults.refuse_bpf();
    }
    lab.start("a", config)
}

fn let_send(router: &Router, vnis: Option<u32>) {
    let set = |number: u32| VniSet::from_ranges([(vni(number), vni(number))]);
    router.apply(IntentDelta {
        senders: vec![(FAR.into(), vnis.map(set))],
        ..IntentDelta::default()
    });
}

#[test]
fn a_device_that_leads_to_another_port_takes_packets_from_known_routers_only() {
    if !privileged() {
        return;
    }
    for bpf in [true, false] {
        let lab = uplink();
        count(&lab, "red", &["ip saddr 10.0.2.10 icmp type echo-request"]);
        let a = start(&lab, bpf, Duration::from_secs(3600));
        let (id, group) = Mode::PLAIN.group(1, RED, &[9]);
        let mut group = group.unwrap();
        group.hops.0[0].address = FAR.into();
        group.hops.0[0].port = std::num::NonZeroU16::new(8472);
        a.apply(IntentDelta {
            tenants: vec![red(false)],
            groups: vec![(id, Some(group))],
            routes: vec![route(0, "10.0.2.0/24", 1)],
            ..IntentDelta::default()
        });
        let_send(&a, Some(RED));
        a.settle();
        let status = a.status();
        let device = status.devices.iter().find(|one| one.port == Some(8472));
        assert_eq!(device.map(|one| &*one.name), Some("vx8472"), "BPF {bpf}");
        for port in [4789, 8472] {
            let before = counted(&lab, "red", "c");
            send_to(&lab, STRANGER, port);
            assert_eq!(counted(&lab, "red", "c"), before, "BPF {bpf}: {port}");
            send_to(&lab, FAR, port);
            assert_eq!(counted(&lab, "red", "c"), before + 1, "BPF {bpf}: {port}");
        }
    }
}

#[test]
fn only_routers_that_the_overlay_names_send_into_a_tenant() {
    if !privileged() {
        return;
    }
    for bpf in [true, false] {
        let lab = uplink();
        count(&lab, "red", &["ip saddr 10.0.2.10 icmp type echo-request"]);
        let arrived = || counted(&lab, "red", "c");
        let dropped = |router: &Router| router.status().drops.map_or(0, |it| it.unknown_sender);
        let hour = Duration::from_secs(3600);
        let mut a = start(&lab, bpf, hour);
        a.apply(IntentDelta {
            tenants: vec![red(false), tenant(1, "blue", 10002, None)],
            ..IntentDelta::default()
        });
        let_send(&a, Some(RED));
        a.settle();
        assert_eq!(a.status().refused, [], "BPF {bpf}");
        send(&lab, FAR);
        assert_eq!(arrived(), 1, "BPF {bpf}: a router that is named");
        send(&lab, STRANGER);
        assert_eq!(arrived(), 1, "BPF {bpf}: one that nobody names");
        if bpf {
            assert_eq!(dropped(&a), 1);
            // What strangers send fills no table.
            let traffic = a.traffic();
            let seen: Vec<_> = traffic.iter().map(|one| (one.vni, one.endpoint)).collect();
            assert_eq!(seen, [(RED, FAR.into())]);
        }
        // Its routes are gone; packets may be on their way.
        let_send(&a, None);
        send(&lab, FAR);
        assert_eq!(arrived(), 2, "BPF {bpf}: within the grace");
        // The process dies, and the next one knows nothing yet.
        a.kill();
        send(&lab, FAR);
        let a = start(&lab, bpf, Duration::ZERO);
        assert_eq!(a.status().refused, []);
        send(&lab, FAR);
        assert_eq!(arrived(), 4, "BPF {bpf}: over a restart");
        send(&lab, STRANGER);
        assert_eq!(arrived(), 4, "BPF {bpf}: a stranger over a restart");
        a.apply(IntentDelta {
            tenants: vec![red(false), tenant(1, "blue", 10002, None)],
            ..IntentDelta::default()
        });
        a.settle();
        assert_eq!(a.status().refused, []);
        send(&lab, FAR);
        assert_eq!(arrived(), 4, "BPF {bpf}: nobody named it again");
        // Named for another tenant only; without BPF what it is named for is not looked at.
        let_send(&a, Some(10002));
        assert_eq!(a.status().refused, []);
        send(&lab, FAR);
        assert_eq!(arrived(), if bpf { 4 } else { 5 }, "BPF {bpf}");
        let_send(&a, Some(RED));
        assert_eq!(a.status().refused, []);
        send(&lab, FAR);
        assert_eq!(arrived(), if bpf { 5 } else { 6 }, "BPF {bpf}");
        if bpf {
            assert_eq!(dropped(&a), 4);
        }
    }
}

/// Endpoints of the other address family send from addresses that their routes choose.
#[test]
fn what_may_come_from_everywhere_is_counted_as_one() {
    if !privileged() {
        return;
    }
    let lab = uplink();
    count(&lab, "red", &["ip saddr 10.0.2.10 icmp type echo-request"]);
    let a = start(&lab, true, Duration::ZERO);
    a.apply(IntentDelta {
        tenants: vec![red(false)],
        senders: vec![(Ipv4Addr::UNSPECIFIED.into(), Some(VniSet::all()))],
        ..IntentDelta::default()
    });
    assert_eq!(a.status().refused, []);
    send(&lab, FAR);
    send(&lab, STRANGER);
    assert_eq!(counted(&lab, "red", "c"), 2);
    let traffic = a.traffic();
    let seen: Vec<_> = traffic
        .iter()
        .map(|one| (one.endpoint, one.received_packets))
        .collect();
    assert_eq!(seen, [(Ipv4Addr::UNSPECIFIED.into(), 2)]);
}

/// A host sends a tunnel's packet to its own router's address in its tenant, in the name of a router that may send: nothing of it arrives
/// in any tenant.
#[test]
fn a_tenants_host_is_no_router() {
    if !privileged() {
        return;
    }
    const UDP: u8 = 17;
    for bpf in [true, false] {
        let lab = uplink();
        count(&lab, "red", &["ip saddr 10.0.2.10 icmp type echo-request"]);
        let a = start(&lab, bpf, Duration::from_secs(3600));
        a.apply(IntentDelta {
            tenants: vec![red(false)],
            ..IntentDelta::default()
        });
        let_send(&a, Some(RED));
        a.settle();
        assert_eq!(a.status().refused, [], "BPF {bpf}");
        send(&lab, FAR);
        assert_eq!(counted(&lab, "red", "c"), 1, "BPF {bpf}: the router itself");
        let host = Ipv4Addr::new(10, 0, 1, 10);
        let inside = echo_request(Ipv4Addr::new(10, 0, 2, 10), host);
        let mut vxlan = vec![8, 0, 0, 0];
        vxlan.extend((RED << 8).to_be_bytes());
        vxlan.extend(frame(mac_of(&lab, "a", "vx0"), &[0x0800], &inside));
        let mut udp = Vec::new();
        for field in [50_000, 4789, 8 + vxlan.len() as u16, 0] {
            udp.extend(field.to_be_bytes());
        }
        udp.extend(vxlan);
        let own = Ipv4Addr::new(10, 0, 1, 1);
        let router = mac_of(&lab, "a", "red0");
        send_frame(
            &lab,
            "red",
            "eth0",
            frame(router, &[0x0800], &packet(UDP, FAR, own, &udp)),
        );
        // What goes the same way behind it has been answered.
        assert!(answers(&lab, "red", "10.0.1.1"), "BPF {bpf}");
        assert_eq!(counted(&lab, "red", "c"), 1, "BPF {bpf}: a host");
    }
}
