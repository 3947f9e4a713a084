//! Packets that are nobody's.

use std::net::{IpAddr, SocketAddr, UdpSocket};

use weft_tests::{need, wait_until};

use crate::{LIMIT, R, Rival, all_up, neighbor, with};

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
    if !need(&["ip", "nft", "curl", "bird"]) {
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
    let send_from = |from: &str, port: u16, to: &str, ttl: u32, octets: &[u8]| {
        let (from, to): (IpAddr, IpAddr) = (from.parse().unwrap(), to.parse().unwrap());
        lab.in_node("p", || {
            let socket = UdpSocket::bind(SocketAddr::new(from, port)).unwrap();
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
    let send = |from: &str, to: &str, ttl: u32, octets: &[u8]| send_from(from, 0, to, ttl, octets);
    // It knows everything, and is on another link of this router.
    lab.run(
        "r",
        &format!(
            "ip link add e9 type veth peer name e9 netns {}",
            lab.netns("p")
        ),
    );
    lab.run("r", "ip link set e9 up");
    lab.run("p", "ip link set e9 up");
    let link = lab.run("r", "ip -o link show dev e9");
    let mac = link
        .split("link/ether ")
        .nth(1)
        .unwrap()
        .split(' ')
        .next()
        .unwrap();
    for (net, router) in [("198.51.100.0/30", R[0]), ("2001:db8:1::/64", R[1])] {
        lab.run("p", &format!("ip route add {net} dev e9 metric 5000"));
        lab.run(
            "p",
            &format!("ip neigh add {router} lladdr {mac} dev e9 nud permanent"),
        );
    }
    for at in 0..2 {
        let before = discarded("interface");
        let (from, to): (IpAddr, IpAddr) = (p[at].parse().unwrap(), R[at].parse().unwrap());
        let octets = forged(number(p[at]));
        lab.in_node("p", || {
            let socket = UdpSocket::bind(SocketAddr::new(from, 0)).unwrap();
            let options = socket2::SockRef::from(&socket);
            options.bind_device(Some(b"e9")).unwrap();
            match from {
                IpAddr::V4(_) => options.set_ttl_v4(255).unwrap(),
                IpAddr::V6(_) => options.set_unicast_hops_v6(255).unwrap(),
            }
            for _ in 0..10 {
                socket.send_to(&octets, SocketAddr::new(to, 3784)).unwrap();
            }
        });
        wait_until("packets from another link are discarded", LIMIT, || {
            (discarded("interface") >= before + 10).then_some(())
        });
    }
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
    // Hosts of a tenant know everything, and are on a link of this router: their packets have its mark, or that of a step of a chain.
    for (port, mark) in [(3001, "0x57002711"), (3002, "0x59002711")] {
        let file = lab.path("mark.nft");
        let rules = format!(
            "table inet mark_{port} {{ chain i {{ type filter hook prerouting priority 0; udp sport {port} meta mark set {mark}; }}; }}"
        );
        std::fs::write(&file, rules).unwrap();
        lab.run("r", &format!("nft -f {}", file.to_str().unwrap()));
        for at in 0..2 {
            let before = status()["dropped"].as_u64().unwrap();
            send_from(p[at], port, R[at], 255, &forged(number(p[at])));
            wait_until("packets of tenants' hosts are dropped", LIMIT, || {
                (status()["dropped"].as_u64().unwrap() >= before + 10).then_some(())
            });
        }
    }
    // Whoever can send on some link says that he has never heard of the session.
    for at in 0..2 {
        let before = discarded("your-discriminator");
        send(p[at], R[at], 255, &forged(0));
        wait_until("packets without a number are discarded", LIMIT, || {
            (discarded("your-discriminator") >= before + 10).then_some(())
        });
    }
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
