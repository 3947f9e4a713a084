//! Somewhere on the way between two routers a link is narrower than theirs.

use std::collections::BTreeSet;
use std::io::{Read, Write};

use std::time::Instant;

use super::super::*;
use super::domain::{B, Domain, M, Mode, vni};
use super::lab::{Lab, privileged};
use crate::model::Carrier;

/// Octets that the narrow link carries.
const NARROW: u32 = 1400;

/// Two plain routers between the router in the middle, which stitches, and the one behind it.
fn stretch(domain: &mut Domain) {
    domain.lab.add(&["p", "q"]);
    let lab = &domain.lab;
    lab.run("m", "ip link del right");
    for node in ["p", "q"] {
        lab.inside(node, || {
            for setting in ["ipv4/ip_forward", "ipv6/conf/all/forwarding"] {
                std::fs::write(format!("/proc/sys/net/{setting}"), "1").unwrap();
            }
        });
    }
    let mut more = Vec::new();
    for (node, interface, address) in [
        ("m", "right", "fd00:2::1"),
        ("p", "left", "fd00:2::2"),
        ("p", "right", "fd00:3::1"),
        ("q", "left", "fd00:3::2"),
        ("q", "right", "fd00:4::1"),
        ("b", "wan", "fd00:4::2"),
    ] {
        let line = format!("addr add {address}/64 dev {interface} nodad\n");
        more.push((node, line));
    }
    for (node, to, via, via6) in [
        ("m", B, "198.51.100.6", "fd00:2::2"),
        ("p", B, "198.51.100.10", "fd00:3::2"),
        ("q", B, "198.51.100.14", "fd00:4::2"),
        ("b", M, "198.51.100.13", "fd00:4::1"),
        ("q", M, "198.51.100.9", "fd00:3::1"),
        ("p", M, "198.51.100.5", "fd00:2::1"),
    ] {
        let lines = format!(
            "route add 192.0.2.{to}/32 via {via}\nroute add 2001:db8::{to}/128 via {via6}\n"
        );
        more.push((node, lines));
    }
    let links = [
        (
            ("m", "right", "198.51.100.5/30"),
            ("p", "left", "198.51.100.6/30"),
        ),
        (
            ("p", "right", "198.51.100.9/30"),
            ("q", "left", "198.51.100.10/30"),
        ),
        (
            ("q", "right", "198.51.100.13/30"),
            ("b", "wan", "198.51.100.14/30"),
        ),
    ];
    lab.links(&links, &more);
    for host in ["red-a", "blue-a"] {
        for to in ["10.0.2.10", "2001:db8:10:2::10"] {
            domain.wait_for_ping(host, to);
        }
    }
}

fn set_link(lab: &Lab, mtu: u32) {
    for (node, interface) in [("p", "right"), ("q", "left")] {
        lab.run(node, &format!("ip link set {interface} mtu {mtu}"));
    }
}

/// Sends a packet of so many octets that is not to be fragmented; what the host was told.
fn ping_whole(lab: &Lab, from: &str, to: &str, octets: u32) -> (bool, String) {
    lab.run(from, "ip route flush cache; ip -6 route flush cache");
    let headers = if to.contains(':') { 48 } else { 28 };
    let size = octets - headers;
    let output = lab.try_run(from, &format!("ping -c 1 -W 1 -M do -s {size} {to}"));
    let told = String::from_utf8_lossy(&output.stdout).replace("mtu = ", "mtu=");
    (output.status.success(), told)
}

/// Sends packets that are too large until the host is told what fits; that fits, and no octet more.
fn wait_until_told(domain: &Domain, from: &str, to: &str, inner: u32) {
    let (mode, lab) = (domain.mode, &domain.lab);
    let whole = 1500 - mode.overhead();
    let end = Instant::now() + Duration::from_secs(60);
    loop {
        let (_, told) = ping_whole(lab, from, to, whole);
        if told.contains(&format!("mtu={inner}")) {
            break;
        }
        assert!(Instant::now() < end, "{mode}: {from} to {to}: {told}");
    }
    let (_, told) = ping_whole(lab, from, to, inner + 1);
    let wanted = format!("mtu={inner}");
    assert!(told.contains(&wanted), "{mode}: {from} to {to}: {told}");
    let (fits, told) = ping_whole(lab, from, to, inner);
    assert!(fits, "{mode}: {from} to {to}: {told}");
}

/// Sends packets that are as large as devices let them until one comes back. Probes have found that they would: the kernel in the middle
/// forgets what it has learned of the way, which it does after ten minutes by itself.
fn wait_until_wide(domain: &Domain, from: &str, to: &str) {
    let (mode, lab) = (domain.mode, &domain.lab);
    let end = Instant::now() + Duration::from_secs(60);
    loop {
        domain.middle.exceeded_path(mode.endpoint(B), 1500);
        let (fits, told) = ping_whole(lab, from, to, 1500 - mode.overhead());
        if fits {
            return;
        }
        assert!(Instant::now() < end, "{mode}: {from} to {to}: {told}");
    }
}

/// A connection from one site to the other.
fn connect(lab: &Lab, to: &'static str) -> (std::net::TcpStream, std::net::TcpStream) {
    let listener = lab.inside("red-b", move || std::net::TcpListener::bind(to).unwrap());
    let address = listener.local_addr().unwrap();
    let client = lab.inside("red-a", move || {
        std::net::TcpStream::connect(address).unwrap()
    });
    let (server, _) = listener.accept().unwrap();
    for stream in [&client, &server] {
        let patience = Some(Duration::from_secs(60));
        stream.set_read_timeout(patience).unwrap();
        stream.set_write_timeout(patience).unwrap();
    }
    (client, server)
}

/// What goes in comes out.
fn carry(client: &mut std::net::TcpStream, server: &mut std::net::TcpStream) {
    let octets = vec![7; 100_000];
    let mut sender = client.try_clone().unwrap();
    let sender = std::thread::spawn(move || sender.write_all(&octets).unwrap());
    let mut received = vec![0; 100_000];
    server.read_exact(&mut received).unwrap();
    sender.join().unwrap();
}

/// The segment size that a connection has at the sender.
fn segment(lab: &Lab, to: std::net::SocketAddr) -> u32 {
    let (ip, port) = (to.ip(), to.port());
    let list = match ip {
        IpAddr::V4(_) => format!("ss -Htin 'dst {ip}:{port}'"),
        IpAddr::V6(_) => format!("ss -Htin 'dst [{ip}]:{port}'"),
    };
    let told = lab.run("red-a", &list);
    let segment = told.split(" mss:").nth(1).unwrap();
    segment.split(' ').next().unwrap().parse().unwrap()
}

/// A link behind the edge gets narrow: tenants on the other side of the edge are told, TCP goes on, and new connections fit from the
/// first segment on. It gets wide again, and so do they.
#[test]
fn a_narrow_link_on_the_way_is_told_to_tenants_in_every_mode() {
    if !privileged() {
        return;
    }
    for mode in Mode::possible() {
        let mut domain = Domain::new(mode);
        domain.middle.settle();
        stretch(&mut domain);
        let lab = &domain.lab;
        let tos = ["10.0.2.10", "2001:db8:10:2::10"];
        for to in tos {
            let (fits, told) = ping_whole(lab, "red-a", to, 1500 - mode.overhead());
            assert!(fits, "{mode}: {told}");
        }
        let before = domain.middle.status();
        assert_eq!(before.narrow_paths, [], "{mode}");
        let inner = NARROW - mode.overhead();
        let (mut client, mut server) = connect(lab, "10.0.2.10:0");
        carry(&mut client, &mut server);
        set_link(lab, NARROW);
        let lowered = Instant::now();
        carry(&mut client, &mut server);
        println!("{mode}: TCP went on after {:?}", lowered.elapsed());
        for to in tos {
            wait_until_told(&domain, "red-a", to, inner);
        }
        let status = domain.middle.status();
        let [path] = status.narrow_paths[..] else {
            panic!("{mode}: {:?}", status.narrow_paths);
        };
        assert_eq!(
            (path.endpoint, u32::from(path.outer), u32::from(path.mtu)),
            (mode.endpoint(B), NARROW, inner),
            "{mode}"
        );
        assert_eq!(verdict(&status.conditions), Verdict::Forwarding, "{mode}");
        assert_eq!(status.repairs, before.repairs, "{mode}");
        for (to, headers) in [("10.0.2.10:0", 40), ("[2001:db8:10:2::10]:0", 60)] {
            lab.run("red-a", "ip route flush cache; ip -6 route flush cache");
            let (client, server) = connect(lab, to);
            let size = segment(lab, server.local_addr().unwrap());
            // The kernel sends GRE over IPv6 from its link's address: the edge does not know where what comes in is from.
            let known = mode.encapsulation != Encapsulation::Gre || !mode.v6;
            let fits = if known { inner } else { 1500 - mode.overhead() };
            // 12 octets of each segment are time stamps.
            assert_eq!(size, fits - headers - 12, "{mode}: {to}");
            drop(client);
        }
        set_link(lab, 1500);
        for to in tos {
            wait_until_wide(&domain, "red-a", to);
        }
        domain.middle.wait(|status| status.narrow_paths.is_empty());
        // A search takes seconds: each encapsulation has one over IPv4 with tables, and one over IPv6 with VRFs.
        if mode.v6 == mode.vrf {
            swallow(&domain);
        }
    }
}

/// By choice a router on the way fragments, and nobody has to be told.
#[test]
fn outer_packets_are_fragmented_where_that_is_asked_for() {
    if !privileged() {
        return;
    }
    let mode = Mode::PLAIN;
    let mut domain = Domain::new(mode);
    stretch(&mut domain);
    domain.middle.kill();
    domain.b.kill();
    let config = |node| DataplaneConfig {
        dont_fragment: false,
        ..mode.config(node)
    };
    domain.middle = domain.lab.start("m", config(M));
    domain.middle.apply(Domain::middle_intent(mode));
    domain.b = domain.lab.start("b", config(B));
    domain.b.apply(domain.intent_of_b());
    set_link(&domain.lab, NARROW);
    for to in ["10.0.2.10", "2001:db8:10:2::10"] {
        wait_until_wide(&domain, "red-a", to);
    }
    // The classifier sets the tunnel anew where it copies a code point.
    let size = 1500 - mode.overhead() - 28;
    let marked = format!("ping -c 3 -i 0.1 -W 2 -M do -Q 184 -s {size} 10.0.2.10");
    domain.lab.run("red-a", &marked);
    for router in [&domain.middle, &domain.b] {
        assert_eq!(router.status().narrow_paths, []);
    }
}

/// What routes say outlives the process, and comes back when somebody changes it; a live trace says what fits, and who says so.
#[test]
fn a_restart_keeps_what_routes_say_and_a_foreign_mtu_goes() {
    if !privileged() {
        return;
    }
    let mode = Mode::PLAIN;
    let mut domain = Domain::new(mode);
    domain.middle.settle();
    stretch(&mut domain);
    set_link(&domain.lab, NARROW);
    let inner = NARROW - mode.overhead();
    wait_until_told(&domain, "red-a", "10.0.2.10", inner);
    domain.middle.kill();
    domain.start_middle();
    domain.middle.apply(Domain::middle_intent(mode));
    domain.middle.settle();
    let status = domain.middle.status();
    assert_eq!(status.route_requests, 0, "{status:?}");
    assert_eq!(u32::from(status.narrow_paths[0].mtu), inner);
    wait_until_told(&domain, "red-a", "10.0.2.10", inner);

    let lab = &domain.lab;
    let table = crate::tenant_mark(vni(10_001));
    let show = format!("ip route show table {table} 10.0.2.0/24");
    let ours = lab.run("m", &show);
    assert!(ours.contains(&format!("mtu lock {inner}")), "{ours}");
    let object = ours.split(' ').skip_while(|word| *word != "nhid").nth(1);
    let object = object.unwrap();
    let change =
        format!("ip route replace table {table} 10.0.2.0/24 nhid {object} proto 87 mtu 900");
    lab.run("m", &change);
    let end = Instant::now() + Duration::from_secs(60);
    while lab.run("m", &show) != ours {
        assert!(Instant::now() < end, "{}", lab.run("m", &show));
    }

    let packet = Packet {
        destination: "10.0.2.10".parse().unwrap(),
        source: None,
        dscp: 0,
    };
    let trace = domain.a.trace(TenantId(0), packet).unwrap();
    let mut asked = Probe {
        mark: trace.table,
        device: trace.vrf,
        source: trace.own.unwrap(),
        destination: packet.destination,
        dscp: 0,
        size: Some((1500 - mode.overhead()) as u16),
    };
    let sent = asked.clone();
    let (hops, fits) = lab.inside("a", move || {
        (probe(&sent).unwrap(), largest(&sent).unwrap())
    });
    let inner = inner as u16;
    let last = hops.last().unwrap();
    assert_eq!(last.answer, ProbeAnswer::TooLarge(inner), "{hops:?}");
    assert_eq!(last.address, Some(mode.endpoint(M)), "the edge says it");
    assert_eq!(fits, Some(inner));
    asked.size = Some(inner);
    let hops = lab.inside("a", move || probe(&asked).unwrap());
    assert_eq!(hops.last().unwrap().answer, ProbeAnswer::Reply, "{hops:?}");
}

/// A router on the way drops what is too large and says nothing: probes find the octet, and hosts are told.
fn swallow(domain: &Domain) {
    let (mode, lab) = (domain.mode, &domain.lab);
    let hole = format!(
        "nft 'add table inet hole; add chain inet hole f {{ type filter hook forward priority 0; }}; \
         add rule inet hole f meta length > {NARROW} drop'"
    );
    lab.run("p", &hole);
    let tos = ["10.0.1.10", "2001:db8:10:1::10"];
    for to in tos {
        let (fits, told) = ping_whole(lab, "red-b", to, 1500 - mode.overhead());
        assert!(!fits, "{mode}: {told}");
    }
    let address = if mode.vrf {
        "2001:db8:10:2::1"
    } else {
        "10.0.2.1"
    };
    assert_eq!(
        searched(domain, address),
        NARROW as u16,
        "{mode}: {address}"
    );
    domain.b.probed_path(mode.endpoint(M), Some(NARROW as u16));
    for to in tos {
        wait_until_told(domain, "red-b", to, NARROW - mode.overhead());
    }
    let status = domain.b.status();
    assert!(status.narrow_paths[0].probed, "{mode}: {status:?}");
    lab.run("p", "nft delete table inet hole");
    domain.b.probed_path(mode.endpoint(M), None);
    for to in tos {
        wait_until_wide(domain, "red-b", to);
    }
}

/// Octets that probes from the second router find to get to the one in the middle.
fn searched(domain: &Domain, address: &str) -> u16 {
    let mode = domain.mode;
    let address: IpAddr = address.parse().unwrap();
    let far_end = FarEnd {
        address: mode.endpoint(M),
        encapsulation: mode.encapsulation,
        endpoint_id: mode.v6.then(|| EndpointId([192, 0, 2, M].into())),
        port: Carrier::of(mode.encapsulation, mode.endpoint(M), None).port(),
    };
    let own = (mode.endpoint(B), EndpointId([192, 0, 2, B].into()));
    domain.lab.inside("b", move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async {
            let echo = TunnelEcho::open(own.0, own.1, true).unwrap();
            let mut search = PathSearch::new(Instant::now(), 1500, mode.v6);
            let confirm = Duration::from_secs(3600);
            while (search.next(Instant::now())).is_some_and(|at| at <= Instant::now()) {
                // Some are sent twice: a token is its number and its size.
                let mut tokens = BTreeSet::new();
                while let Some(size) = search.poll(Instant::now(), confirm) {
                    let token = (tokens.len() as u64) << 16 | u64::from(size);
                    let sent = echo.send(&far_end, vni(10_001), address, token, Some(size));
                    sent.unwrap();
                    tokens.insert(token);
                }
                let patience = tokio::time::sleep(Duration::from_millis(500));
                tokio::pin!(patience);
                while !tokens.is_empty() {
                    tokio::select! {
                        heard = echo.receive() => {
                            if let Heard::Probe(token) = heard && tokens.remove(&token) {
                                search.handle(Instant::now(), token as u16, true);
                            }
                        }
                        () = &mut patience => break,
                    }
                }
                for token in tokens {
                    search.handle(Instant::now(), token as u16, false);
                }
            }
            search.found().unwrap()
        })
    })
}
