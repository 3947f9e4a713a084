//! Sessions that the kernel guards: TCP MD5 signatures (RFC 2385) and TTL security (RFC 5082), with stock BIRD and FRR.

#![allow(clippy::unwrap_used, reason = "a test: a panic is its verdict")]

use std::time::Duration;

use weft_tests::topology::{forwarding, topology};
use weft_tests::{Lab, find, frr, need, wait_until};

/// The first is dialled by BIRD alone, the second by the router alone; FRR dials and is dialled. Nobody of the last knows of TTL
/// security.
const A: &str = "
router: { name: a, router_id: 192.0.2.1, asn: 64601, default_policy: accept }
neighbors:
  - { address: 10.0.1.2, asn: 64602, password_file: /etc/weft/bird.key, ttl_security: true, passive: true }
  - { address: 2001:db8:1::2, asn: 64602, password_file: /etc/weft/bird.key, ttl_security: 1, families: [ipv6-unicast] }
  - { address: 10.0.2.2, asn: 64603, password_file: /etc/weft/frr.key }
  - { address: 10.0.2.3, asn: 64603, ttl_security: true, passive: true }
";

const BIRD: &str = "
router id 192.0.2.2;
protocol device {}
protocol static { ipv4; route 198.51.100.0/24 blackhole; }
template bgp signed {
  local as 64602;
  password \"for bird\";
  ttl security yes;
  connect delay time 1; connect retry time 1; error wait time 1, 2;
}
protocol bgp four from signed { neighbor 10.0.1.1 as 64601; ipv4 { import all; export all; }; }
protocol bgp six from signed { neighbor 2001:db8:1::1 as 64601; passive on; ipv6 { import all; export all; }; }
";

const FRR: &str = "
router bgp 64603
 bgp router-id 192.0.2.3
 no bgp ebgp-requires-policy
 neighbor 10.0.2.1 remote-as 64601
 neighbor 10.0.2.1 password for-frr
 neighbor 10.0.2.1 timers connect 1
";

fn secret(name: &str, text: &str) -> String {
    format!("sh -c 'mkdir -p /etc/weft; echo \"{text}\" > /etc/weft/{name}.key'")
}

#[test]
fn sessions_are_signed_and_come_over_no_hop_with_bird_and_frr() {
    if !need(&["ip", "curl", "bird", "/usr/lib/frr/bgpd"]) {
        return;
    }
    let mut a = forwarding(&[
        "eth1 10.0.1.1/24",
        "eth1 2001:db8:1::1/64",
        "eth2 10.0.2.1/24",
    ]);
    a.extend([secret("bird", "for bird"), secret("frr", "for-frr")]);
    let b = forwarding(&["eth1 10.0.1.2/24", "eth1 2001:db8:1::2/64"]);
    let c = forwarding(&["eth1 10.0.2.2/24"]);
    let nodes = [("a", true, a), ("b", false, b), ("c", false, c)];
    let links = [("a:eth1", "b:eth1"), ("a:eth2", "c:eth1")];
    let files = [
        ("a.yaml", A),
        ("bird.conf", BIRD),
        ("zebra.conf", ""),
        ("bgpd.conf", FRR),
    ];
    let files = files.map(|(name, text)| (name.to_owned(), text.to_owned()));
    let lab = Lab::up(&topology(&nodes, &links), &files);
    let path = |name: &str| lab.path(name).to_str().unwrap().to_owned();
    let arguments = ["-f", "-c", &path("bird.conf"), "-s", &path("bird.ctl")];
    let bird = lab.daemon("b", &find("bird").unwrap(), &arguments);
    let frr = frr(&lab, "c");
    let state = |address: &str, wanted: &str| {
        let what = format!("{address} {wanted}");
        wait_until(&what, Duration::from_secs(60), || {
            (lab.neighbor("a", address)?["state"] == wanted).then_some(())
        });
    };
    for address in ["10.0.1.2", "2001:db8:1::2", "10.0.2.2"] {
        state(address, "established");
    }
    let count = |counter: &str| -> u64 {
        let told = lab.run("a", &format!("nstat -asz {counter}"));
        let line = told.lines().find(|line| line.starts_with(counter));
        let number = line.unwrap().split_whitespace().nth(1);
        number.unwrap().parse().unwrap()
    };
    let unsigned = || count("TcpExtTCPMD5NotFound") + count("TcpExtTCPMD5Unexpected");
    assert_eq!(unsigned(), 0);
    let from_afar = count("TcpExtTCPMinTTLDrop");

    // The neighbour's address alone is nothing: who does not know the secret is not heard.
    drop((bird, frr));
    let patience = Duration::from_secs(2);
    let connected = lab.in_node("b", || {
        std::net::TcpStream::connect_timeout(&"10.0.1.1:179".parse().unwrap(), patience)
    });
    assert!(connected.is_err() && unsigned() > 0, "{connected:?}");
    // Nor is who may have come over a hop.
    lab.run("c", "ip address add 10.0.2.3/24 dev eth1");
    lab.in_node("c", || {
        let options = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None);
        let socket = options.unwrap();
        let from: std::net::SocketAddr = "10.0.2.3:0".parse().unwrap();
        let to: std::net::SocketAddr = "10.0.2.1:179".parse().unwrap();
        socket.bind(&from.into()).unwrap();
        socket.connect(&to.into()).unwrap();
        std::io::Write::write_all(&mut &socket, &[0xff; 19]).unwrap();
        wait_until("its packets are dropped", Duration::from_secs(60), || {
            (count("TcpExtTCPMinTTLDrop") > from_afar).then_some(())
        });
    });

    // Without the file there is no session either, and the neighbour says why.
    lab.shell("a", "rm /etc/weft/bird.key");
    lab.reload("a", A);
    wait_until("the file is named", Duration::from_secs(60), || {
        let neighbor = lab.neighbor("a", "2001:db8:1::2")?;
        neighbor
            .to_string()
            .contains("/etc/weft/bird.key")
            .then_some(())
    });
}
