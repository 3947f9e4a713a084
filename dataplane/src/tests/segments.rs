//! What fits into a tunnel.

use super::super::*;
use super::domain::{A, B, Domain, M, Mode};
use super::lab::privileged;

/// The tunnel's MTU follows the underlay's: what fits just so passes unfragmented, one octet more is told, TCP flows.
#[test]
fn every_mtu_from_1280_to_9000() {
    if !privileged() {
        return;
    }
    let mode = Mode::PLAIN;
    let domain = Domain::new(mode);
    let lab = &domain.lab;
    domain.a.track_endpoints(vec![mode.endpoint(M)]);
    domain.b.track_endpoints(vec![mode.endpoint(M)]);
    domain
        .middle
        .track_endpoints(vec![mode.endpoint(A), mode.endpoint(B)]);
    // Hosts with jumbo frames: nothing but the tunnel is narrow.
    for (node, interface) in [
        ("a", "red0"),
        ("b", "red0"),
        ("red-a", "eth0"),
        ("red-b", "eth0"),
    ] {
        lab.run(node, &format!("ip link set {interface} mtu 9000"));
    }
    for mtu in [1280, 1400, 1500, 1550, 4000, 9000, 1500] {
        for (node, interface) in [("a", "wan"), ("m", "left"), ("m", "right"), ("b", "wan")] {
            lab.run(node, &format!("ip link set {interface} mtu {mtu}"));
        }
        let inner = mtu - mode.overhead();
        for router in [&domain.a, &domain.middle, &domain.b] {
            router.wait(|status| status.devices[0].mtu == inner);
        }
        let ping = |size: u32| {
            lab.run("red-a", "ip route flush cache");
            let command = format!("ping -c 1 -W 2 -M do -s {size} 10.0.2.10");
            lab.try_run("red-a", &command)
        };
        domain.wait_for_ping("red-a", "10.0.2.10");
        assert!(ping(inner - 28).status.success(), "{mtu}");
        let told = ping(inner - 27);
        let told = String::from_utf8_lossy(&told.stdout).into_owned();
        assert!(told.contains(&format!("mtu = {inner}")), "{mtu}: {told}");
        let listener = lab.inside("red-b", || {
            std::net::TcpListener::bind("10.0.2.10:0").unwrap()
        });
        let address = listener.local_addr().unwrap();
        let mut client = lab.inside("red-a", move || {
            std::net::TcpStream::connect(address).unwrap()
        });
        let (mut server, _) = listener.accept().unwrap();
        for stream in [&client, &server] {
            let patience = Some(Duration::from_secs(20));
            stream.set_read_timeout(patience).unwrap();
        }
        let sender = std::thread::spawn(move || {
            std::io::Write::write_all(&mut client, &vec![7; 300_000]).unwrap();
        });
        let mut received = Vec::new();
        std::io::Read::read_to_end(&mut server, &mut received).unwrap();
        sender.join().unwrap();
        assert_eq!(received.len(), 300_000, "{mtu}");
    }
    // A device narrower than 1280 octets has no IPv6; a wide one has it again.
    domain.wait_for_ping("red-a", "2001:db8:10:2::10");
}

/// TCP's ends learn from SYN what fits, in both directions and wherever the option stands, without a packet that is too big.
pub(super) fn check_segments(domain: &Domain) {
    let (mode, lab) = (domain.mode, &domain.lab);
    for (node, interface) in [
        ("a", "red0"),
        ("b", "red0"),
        ("red-a", "eth0"),
        ("red-b", "eth0"),
    ] {
        lab.run(node, &format!("ip link set {interface} mtu 9000"));
    }
    let inner = 1500 - mode.overhead();
    for (host, header) in [("10.0.2.10", 40), ("2001:db8:10:2::10", 60)] {
        domain.wait_for_ping("red-a", host);
        let bind = format!("[{host}]:0").replace("[10.0.2.10]", "10.0.2.10");
        let listener = lab.inside("red-b", move || std::net::TcpListener::bind(bind).unwrap());
        let address = listener.local_addr().unwrap();
        let _client = lab.inside("red-a", move || {
            std::net::TcpStream::connect(address).unwrap()
        });
        let _server = listener.accept().unwrap();
        for (node, side) in [("red-a", "dst"), ("red-b", "src")] {
            let list = format!("ss -Htin '{side} [{}]:{}'", address.ip(), address.port());
            let list = list.replace("[10.0.2.10]", "10.0.2.10");
            let told = lab.run(node, &list);
            let segment = told.split(" mss:").nth(1).unwrap();
            let segment: u32 = segment.split(' ').next().unwrap().parse().unwrap();
            // 12 octets of each segment are time stamps.
            assert_eq!(segment, inner - header - 12, "{mode}: {node} to {host}");
        }
    }
}

/// The sum of 16-bit words, as the Internet checksum takes it (RFC 1071).
fn checksum(parts: &[&[u8]]) -> u16 {
    let octets: Vec<u8> = parts.concat();
    let words = octets.chunks(2).map(|pair| {
        let low = pair.get(1).copied().unwrap_or(0);
        u32::from(u16::from_be_bytes([pair[0], low]))
    });
    let mut sum: u32 = words.sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

#[test]
fn a_segment_size_at_an_odd_place_keeps_the_checksum_right() {
    if !privileged() {
        return;
    }
    let domain = Domain::new(Mode::PLAIN);
    let lab = &domain.lab;
    // Port, options: the size behind one filler, behind an unknown option of 3 octets, and malformed ones that pass as they are.
    let cases: [(u16, &[u8], &str); 5] = [
        (1001, &[1, 2, 4, 0x23, 0x28, 1, 1, 1], "mss 1410"),
        (1002, &[2, 4, 0x23, 0x28], "mss 1410"),
        (1003, &[3, 3, 0, 2, 4, 0x23, 0x28, 1], "mss 1410"),
        (1004, &[2, 4, 0x02, 0x00], "mss 512"),
        (1005, &[3, 0, 2, 4, 0x23, 0x28, 1, 1], ""),
    ];
    let mut capture = std::process::Command::new("ip")
        .args([
            "netns",
            "exec",
            &lab.ns("red-b"),
            "tcpdump",
            "-nvl",
            "-i",
            "eth0",
        ])
        .args(["-c", "5", "tcp[tcpflags] & tcp-syn != 0 and src 10.0.1.10"])
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut told = std::io::BufReader::new(capture.stderr.take().unwrap());
    let mut line = String::new();
    while !line.contains("listening") {
        line.clear();
        assert!(std::io::BufRead::read_line(&mut told, &mut line).unwrap() > 0);
    }
    lab.inside("red-a", move || {
        let kind = socket2::Type::RAW;
        let raw = socket2::Protocol::from(libc::IPPROTO_RAW);
        let socket = socket2::Socket::new(socket2::Domain::IPV4, kind, Some(raw)).unwrap();
        for (port, options, _) in cases {
            let len = 20 + options.len();
            let mut tcp = vec![0; 20];
            tcp[..2].copy_from_slice(&port.to_be_bytes());
            tcp[2..4].copy_from_slice(&9u16.to_be_bytes());
            tcp[12] = (len as u8 / 4) << 4;
            tcp[13] = 0x02;
            tcp.extend_from_slice(options);
            let (source, destination) = ([10, 0, 1, 10], [10, 0, 2, 10]);
            let pseudo = [&source[..], &destination, &[0, 6, 0, len as u8]].concat();
            let sum = checksum(&[&pseudo, &tcp]);
            tcp[16..18].copy_from_slice(&sum.to_be_bytes());
            // The kernel fills in length and checksum of the IP header.
            let mut packet = vec![0x45, 0, 0, 0, 0, 1, 0x40, 0, 64, 6, 0, 0];
            packet.extend_from_slice(&source);
            packet.extend_from_slice(&destination);
            packet.extend_from_slice(&tcp);
            let to: std::net::SocketAddr = "10.0.2.10:0".parse().unwrap();
            socket.send_to(&packet, &to.into()).unwrap();
        }
    });
    let output = capture.wait_with_output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    for (port, _, wanted) in cases {
        let one = format!("10.0.1.10.{port} >");
        let line = text.lines().find(|line| line.contains(&one));
        let line = line.unwrap_or_else(|| panic!("{one} {text}"));
        assert!(
            line.contains("(correct)") && line.contains(wanted),
            "{line}"
        );
    }
}
