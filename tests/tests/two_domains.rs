//! Two domains, two tenants with the same prefixes, and every speaker that we know of as the transit AS between.

#![allow(clippy::unwrap_used, reason = "a test: a panic is its verdict")]

use std::collections::BTreeSet;
use std::net::UdpSocket;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use weft_load::Random;
use weft_tests::tcp::{carry_both_ways, connect};
use weft_tests::topology::{ROUTERS, Topology, two_domains};
use weft_tests::{Lab, find, frr, in_netns, need, wait_until};

/// Overlay 64512, VNI 10001 and 10002 at 192.0.2.11, local next hop 192.0.2.12 for all labels.
const LABELS: [&str; 3] = [
    "64512:10001:3221225995",
    "64512:10002:3221225995",
    "64512:1073741824:3221225996",
];

fn up(topology: &Topology) -> Lab {
    Lab::up(&topology.text, &topology.files)
}

/// Large communities of all paths of a node to `prefix` from `neighbor`.
fn communities(lab: &Lab, node: &str, prefix: &str, neighbor: &str) -> BTreeSet<String> {
    let paths = lab.paths(node, prefix);
    paths
        .iter()
        .filter(|path| path["neighbor"] == neighbor)
        .filter_map(|path| path["large_communities"].as_array())
        .flatten()
        .map(|community| community.as_str().unwrap().to_owned())
        .collect()
}

fn forwards(lab: &Lab) {
    for node in ROUTERS {
        lab.converged(node);
    }
    let expected: BTreeSet<_> = LABELS.iter().map(ToString::to_string).collect();
    // From a1 to its edge as a1 made them; beyond the transit AS with the edge's own local next hop, nothing else.
    wait_until("the labels at ea", Duration::from_secs(60), || {
        let found = communities(lab, "ea", "10.0.1.0/24", "10.255.1.1");
        (found == BTreeSet::from([LABELS[0].to_owned(), LABELS[1].to_owned()])).then_some(())
    });
    let mut found = BTreeSet::new();
    wait_until("the labels at eb", Duration::from_secs(60), || {
        found = communities(lab, "eb", "10.0.1.0/24", "198.51.100.5");
        (found.len() >= expected.len()).then_some(())
    });
    assert_eq!(found, expected);
    lab.reaches("red-a", "10.0.2.10");
    lab.reaches("blue-a", "10.0.2.10");
    lab.reaches("red-b", "10.0.1.10");
    lab.reaches("blue-b", "10.0.1.10");
}

#[test]
fn weft_is_the_transit() {
    if !need(&["ip", "curl", "ping"]) {
        return;
    }
    let lab = up(&two_domains(true, &[]));
    forwards(&lab);
    lab.converged("t");
    // A tenant's prefix is nothing to a router without the overlay: it carries the route, and holds none of it.
    assert!(!lab.run("t", "ip route show table all").contains("10.0."));
    // The domains' inside addresses stay inside.
    assert!(!lab.run("t", "ip route").contains("192.0.2.11"));
    assert!(!lab.run("eb", "ip route").contains("192.0.2.11"));
}

/// Edges have no address in any tenant. What is too large between them is dropped, and no router says so: connections that were there
/// before go on, new ones are as good, and each edge says how large packets to the other may be.
#[test]
fn edges_find_out_what_is_swallowed_between_them() {
    if !need(&["ip", "curl", "ping", "nft"]) {
        return;
    }
    let lab = up(&two_domains(true, &[]));
    forwards(&lab);
    let connect = || connect(&lab, "red-a", ("red-b", "10.0.2.10:0".parse().unwrap()));
    let (client, server) = connect();
    carry_both_ways((&client, &server));
    lab.run("t", "nft add table inet hole");
    lab.run(
        "t",
        "nft add chain inet hole f { type filter hook forward priority 0; }",
    );
    lab.run("t", "nft add rule inet hole f meta length > 1400 drop");
    carry_both_ways((&client, &server));
    let (client, server) = connect();
    carry_both_ways((&client, &server));
    for edge in ["ea", "eb"] {
        wait_until("an edge says what fits", Duration::from_secs(60), || {
            let status = lab.get(edge, "status")?;
            let conditions = status["forwarding"]["conditions"].as_array()?;
            let mut all = conditions.iter();
            // 50 octets around a tenant's packet.
            all.any(|one| one["code"] == "path-mtu" && one["text"].to_string().contains("1350"))
                .then_some(())
        });
    }
}

#[test]
fn bird_is_the_transit() {
    if !need(&["ip", "curl", "ping", "bird"]) {
        return;
    }
    let mut topology = two_domains(false, &[]);
    let peer = |name: &str, address: &str, asn: u32| {
        format!(
            "protocol bgp {name} {{
  local as 64999; neighbor {address} as {asn};
  ipv4 {{ import all; export all; }};
}}\n"
        )
    };
    let config = format!(
        "router id 192.0.2.99;
protocol device {{ }}
protocol direct {{ disabled; ipv4; }}
protocol kernel {{ ipv4 {{ import none; export all; }}; }}
{}{}",
        peer("ea", "198.51.100.1", 64601),
        peer("eb", "198.51.100.6", 64602)
    );
    topology.files.push(("bird.conf".to_owned(), config));
    let lab = up(&topology);
    let (config, socket) = (lab.path("bird.conf"), lab.path("bird.ctl"));
    let arguments = ["-f", "-c", text(&config), "-s", text(&socket)];
    let _bird = lab.daemon("t", &find("bird").unwrap(), &arguments);
    forwards(&lab);
}

#[test]
fn frr_is_the_transit() {
    if !need(&[
        "ip",
        "curl",
        "ping",
        "/usr/lib/frr/zebra",
        "/usr/lib/frr/bgpd",
    ]) {
        return;
    }
    let mut topology = two_domains(false, &[]);
    let config = "hostname t
router bgp 64999
 bgp router-id 192.0.2.99
 no bgp ebgp-requires-policy
 neighbor 198.51.100.1 remote-as 64601
 neighbor 198.51.100.6 remote-as 64602
";
    for (name, text) in [("bgpd.conf", config), ("zebra.conf", "hostname t\n")] {
        topology.files.push((name.to_owned(), text.to_owned()));
    }
    let lab = up(&topology);
    let _frr = frr(&lab, "t");
    forwards(&lab);
}

#[test]
fn gobgp_is_the_transit() {
    if !need(&["ip", "curl", "ping", "gobgpd"]) {
        return;
    }
    // GoBGP installs no kernel routes.
    let mut topology = two_domains(
        false,
        &[
            "ip route add 192.0.2.12/32 via 198.51.100.1",
            "ip route add 192.0.2.22/32 via 198.51.100.6",
        ],
    );
    let neighbor = |address: &str, asn: u32| {
        format!(
            "[[neighbors]]
  [neighbors.config]
    neighbor-address = \"{address}\"
    peer-as = {asn}\n"
        )
    };
    let config = format!(
        "[global.config]
  as = 64999
  router-id = \"192.0.2.99\"
{}{}",
        neighbor("198.51.100.1", 64601),
        neighbor("198.51.100.6", 64602)
    );
    topology.files.push(("gobgpd.toml".to_owned(), config));
    let lab = up(&topology);
    let config = lab.path("gobgpd.toml");
    let _gobgp = lab.daemon("t", &find("gobgpd").unwrap(), &["-f", text(&config)]);
    forwards(&lab);
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

const PACKETS: usize = 1000;
const PORT: u16 = 40_000;

/// Packets that arrived at one host: how many of each tenant.
#[derive(Default)]
struct Arrived {
    red: AtomicUsize,
    blue: AtomicUsize,
    strange: AtomicUsize,
}

impl Arrived {
    fn count(&self, packet: &[u8]) {
        match packet.first() {
            Some(b'r') => &self.red,
            Some(b'b') => &self.blue,
            _ => &self.strange,
        }
        .fetch_add(1, Ordering::Relaxed);
    }

    fn of(&self, tenant: u8) -> usize {
        match tenant {
            b'r' => &self.red,
            _ => &self.blue,
        }
        .load(Ordering::Relaxed)
    }
}

#[test]
fn overlapping_tenants_stay_apart() {
    if !need(&["ip", "curl", "ping"]) {
        return;
    }
    let lab = up(&two_domains(true, &[]));
    forwards(&lab);
    let seed = std::time::UNIX_EPOCH.elapsed().unwrap().as_nanos() as u64 | 1;
    eprintln!("seed {seed}");
    let socket = |node: &str, address: &str| {
        in_netns(&lab.netns(node), || UdpSocket::bind(address).unwrap())
    };
    let receivers = ["red-b", "blue-b"].map(|node| socket(node, &format!("10.0.2.10:{PORT}")));
    let senders = [("red-a", b'r'), ("blue-a", b'b')].map(|(node, tenant)| {
        let ports: Vec<_> = (0..16).map(|_| socket(node, "10.0.1.10:0")).collect();
        (ports, tenant)
    });
    let arrived = [Arrived::default(), Arrived::default()];
    let done = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for (receiver, arrived) in receivers.iter().zip(&arrived) {
            let done = &done;
            scope.spawn(move || {
                receiver
                    .set_read_timeout(Some(Duration::from_millis(200)))
                    .unwrap();
                let mut packet = [0; 2048];
                // What had not come when all had been sent and counted gets one timeout more.
                loop {
                    match receiver.recv(&mut packet) {
                        Ok(length) => arrived.count(&packet[..length]),
                        Err(_) if done.load(Ordering::Acquire) == 2 => return,
                        Err(_) => {}
                    }
                }
            });
        }
        for ((ports, tenant), arrived) in senders.iter().zip(&arrived) {
            let done = &done;
            scope.spawn(move || {
                let mut random = Random(seed ^ u64::from(*tenant) << 32);
                for sent in 1..=PACKETS {
                    let mut packet = vec![*tenant];
                    let length = random.next() % 1300;
                    packet.extend((0..length).map(|_| random.next() as u8));
                    let port = &ports[random.next() as usize % ports.len()];
                    port.send_to(&packet, ("10.0.2.10", PORT)).unwrap();
                    // Loss on the way is a fault, loss in a full socket is not.
                    for _ in 0..300 {
                        if arrived.of(*tenant) + 32 >= sent {
                            break;
                        }
                        std::thread::sleep(Duration::from_millis(10));
                    }
                }
                for _ in 0..500 {
                    if arrived.of(*tenant) == PACKETS {
                        break;
                    }
                    std::thread::sleep(Duration::from_millis(10));
                }
                done.fetch_add(1, Ordering::Release);
            });
        }
    });
    let counts = arrived.map(|arrived| {
        [&arrived.red, &arrived.blue, &arrived.strange].map(|count| count.load(Ordering::Relaxed))
    });
    assert_eq!(counts, [[PACKETS, 0, 0], [0, PACKETS, 0]]);
}
