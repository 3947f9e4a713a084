//! A service on three routers that share its flows: the client's and the server's router beside them has none itself.

#![allow(clippy::unwrap_used, reason = "a test: a panic is its verdict")]

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::time::Duration;

use weft_tests::topology::{forwarding, topology};
use weft_tests::{Lab, in_netns, need, wait_until};

/// The numbers of the routers that have a node.
const NODES: [u8; 3] = [2, 3, 4];
/// Flows of each family, a source port each.
const FLOWS: u16 = 240;
/// Packets of a flow at a time.
const PACKETS: u64 = 3;

fn files() -> Vec<(String, String)> {
    let router = |number: u8, tenant: &str, neighbors: &str| {
        let text = format!(
            "router: {{ name: r{number}, router_id: 192.0.2.{number}, asn: 64601 }}
overlay: {{ global_administrator: 64512, endpoint: 192.0.2.{number}, install_underlay: true }}
tenants:
  - name: red
    vni: 10001
{tenant}    chains:
      - name: udp
        match: {{ protocol: udp, destination: [10.0.2.0/24, 2001:db8:10:2::/64] }}
        services: [firewall]
neighbors:
{neighbors}"
        );
        (format!("r{number}.yaml"), text)
    };
    let neighbors: String = NODES
        .map(|number| {
            format!(
                "  - {{ address: 10.255.{number}.2, asn: 64601, route_reflector_client: true, families: [ipv4-unicast, ipv6-unicast], local_address_v6: 'fd00:{number}::1' }}\n"
            )
        })
        .concat();
    let hosts = "    interfaces: [red0, red1]
    prefixes: [10.0.1.0/24, 10.0.2.0/24, 2001:db8:10:1::/64, 2001:db8:10:2::/64]
    services: [{ name: firewall, label: 20001, selection: share }]
";
    let node = "    services:
      - { name: firewall, label: 20001, selection: share, interface: fw0, node: [169.254.1.2, 'fd77::2'], probe: { interval: 1000 } }
";
    let mut files = vec![router(1, hosts, &neighbors)];
    files.extend(NODES.map(|number| {
        let to_first = format!("  - {{ address: 10.255.{number}.1, asn: 64601, families: [ipv4-unicast, ipv6-unicast], local_address_v6: 'fd00:{number}::2' }}\n");
        router(number, node, &to_first)
    }));
    files
}

/// Counts the datagrams of each flow, by source port.
fn count(hook: &str, verdict: &str) -> String {
    format!(
        "nft 'add table inet s; add set inet s flows {{ type inet_service; size 4096; flags dynamic; }}; add chain inet s c {{ type filter hook {hook} priority 0; }}; add rule inet s c udp dport 9 update @flows {{ udp sport counter }} {verdict}'"
    )
}

fn lab() -> Lab {
    let v6 = "sysctl -qw net.ipv6.conf.all.forwarding=1".to_owned();
    let v6_address =
        |address: &str, device: &str| format!("ip address add {address}/64 dev {device} nodad");
    let host = |site: u8, more: Option<String>| {
        let mut exec = vec![
            format!("ip address add 10.0.{site}.10/24 dev eth1"),
            v6_address(&format!("2001:db8:10:{site}::10"), "eth1"),
            format!("ip route replace default via 10.0.{site}.1"),
            format!("ip -6 route replace default via 2001:db8:10:{site}::1"),
        ];
        exec.extend(more);
        exec
    };
    let mut first = forwarding(&["lo 192.0.2.1/32", "red0 10.0.1.1/24", "red1 10.0.2.1/24"]);
    first.push(v6_address("2001:db8:10:1::1", "red0"));
    first.push(v6_address("2001:db8:10:2::1", "red1"));
    let mut routers = Vec::new();
    let mut links = vec![
        ("r1:red0".to_owned(), "client:eth1".to_owned()),
        ("r1:red1".to_owned(), "server:eth1".to_owned()),
    ];
    for number in NODES {
        let (router, node) = (format!("r{number}"), format!("n{number}"));
        first.push(format!(
            "ip address add 10.255.{number}.1/30 dev eth{number}"
        ));
        first.push(v6_address(
            &format!("fd00:{number}::1"),
            &format!("eth{number}"),
        ));
        links.push((format!("r1:eth{number}"), format!("{router}:eth1")));
        links.push((format!("{router}:fw0"), format!("{node}:eth1")));
        let mut exec = forwarding(&[
            &format!("lo 192.0.2.{number}/32"),
            &format!("eth1 10.255.{number}.2/30"),
            "fw0 169.254.1.1/30",
        ]);
        exec.push(v6_address(&format!("fd00:{number}::2"), "eth1"));
        exec.push(v6_address("fd77::1", "fw0"));
        exec.push("sysctl -qw net.ipv6.conf.fw0.keep_addr_on_down=1".to_owned());
        routers.push((router, true, exec));
        let mut exec = forwarding(&["eth1 169.254.1.2/30"]);
        exec.extend([
            v6.clone(),
            v6_address("fd77::2", "eth1"),
            "ip route add default via 169.254.1.1".to_owned(),
            "ip -6 route add default via fd77::1".to_owned(),
            count("forward", "accept"),
        ]);
        routers.push((node, false, exec));
    }
    let mut nodes: Vec<(&str, bool, Vec<String>)> = vec![
        ("r1", true, first),
        ("client", false, host(1, None)),
        // Nobody listens there, and nobody is told so.
        ("server", false, host(2, Some(count("input", "drop")))),
    ];
    nodes.extend(
        routers
            .iter()
            .map(|(name, config, exec)| (name.as_str(), *config, exec.clone())),
    );
    let links: Vec<(&str, &str)> = links
        .iter()
        .map(|(a, b)| (a.as_str(), b.as_str()))
        .collect();
    Lab::up(&topology(&nodes, &links), &files())
}

/// The flows of a family, by source port.
fn ports(v6: bool) -> std::ops::Range<u16> {
    let first = if v6 { 30_000 } else { 20_000 };
    first..first + FLOWS
}

/// Sends some packets of every flow, in turns.
fn send(lab: &Lab) {
    in_netns(&lab.netns("client"), || {
        let sites: [(IpAddr, IpAddr); 2] = [
            (
                Ipv4Addr::new(10, 0, 1, 10).into(),
                Ipv4Addr::new(10, 0, 2, 10).into(),
            ),
            (
                Ipv6Addr::new(0x2001, 0xdb8, 0x10, 1, 0, 0, 0, 0x10).into(),
                Ipv6Addr::new(0x2001, 0xdb8, 0x10, 2, 0, 0, 0, 0x10).into(),
            ),
        ];
        // Not connected: a connected socket's packets carry a hash of their own, and are told apart by that.
        let flows: Vec<(UdpSocket, SocketAddr)> = sites
            .iter()
            .flat_map(|(from, to)| {
                ports(to.is_ipv6()).map(|port| {
                    let socket = UdpSocket::bind((*from, port)).unwrap();
                    (socket, SocketAddr::from((*to, 9)))
                })
            })
            .collect();
        for _ in 0..PACKETS {
            for (socket, to) in &flows {
                socket.send_to(b"hello", to).unwrap();
            }
        }
    });
}

/// Packets of each flow.
type Counts = BTreeMap<u16, u64>;

/// What a namespace has counted so far.
fn counted(lab: &Lab, name: &str) -> Counts {
    let text = lab.run(name, "nft -j list set inet s flows");
    let listing: serde_json::Value = serde_json::from_str(&text).unwrap();
    let objects = listing["nftables"].as_array().unwrap();
    let set = objects.iter().find_map(|object| object.get("set")).unwrap();
    let elements = set.get("elem").and_then(|one| one.as_array());
    let elements = elements.into_iter().flatten().map(|one| &one["elem"]);
    elements
        .map(|one| {
            let port = one["val"].as_u64().unwrap();
            let packets = one["counter"]["packets"].as_u64().unwrap();
            (port.try_into().unwrap(), packets)
        })
        .collect()
}

fn all_counted(lab: &Lab) -> [Counts; 3] {
    NODES.map(|number| counted(lab, &format!("n{number}")))
}

fn more(after: &Counts, before: &Counts, port: u16) -> u64 {
    let one = |counts: &Counts| counts.get(&port).copied().unwrap_or_default();
    one(after) - one(before)
}

/// The node of each flow, by its router's number.
type Homes = BTreeMap<u16, u8>;

/// Sends, and says which node each flow's packets went through; none where some did not arrive.
fn try_homes(lab: &Lab) -> Option<Homes> {
    let (nodes, server) = (all_counted(lab), counted(lab, "server"));
    send(lab);
    let mut last = None;
    wait_until("packets to come to rest", Duration::from_secs(30), || {
        let now = (all_counted(lab), counted(lab, "server"));
        let rest = last.as_ref() == Some(&now);
        last = Some(now);
        rest.then_some(())
    });
    let (nodes_after, server_after) = last.unwrap();
    let mut homes = Homes::new();
    for port in ports(false).chain(ports(true)) {
        if more(&server_after, &server, port) != PACKETS {
            return None;
        }
        let seen = nodes_after.iter().zip(&nodes);
        let seen = seen.map(|(after, before)| more(after, before, port));
        let seen: Vec<u64> = seen.collect();
        let at = seen.iter().position(|packets| *packets > 0).unwrap();
        assert_eq!(seen[at], PACKETS, "flow {port} by several nodes: {seen:?}");
        assert_eq!(seen.iter().sum::<u64>(), PACKETS, "flow {port}: {seen:?}");
        homes.insert(port, NODES[at]);
    }
    Some(homes)
}

/// The same where everything is to arrive.
fn homes(lab: &Lab) -> Homes {
    try_homes(lab).expect("every packet arrives")
}

/// As soon as everything does.
fn arrived(lab: &Lab) -> Homes {
    wait_until("every packet", Duration::from_secs(60), || try_homes(lab))
}

fn of_node(homes: &Homes, number: u8) -> BTreeSet<u16> {
    let its = homes.iter().filter(|(_, home)| **home == number);
    its.map(|(port, _)| *port).collect()
}

/// Waits until the first router's kernel shares between so many routers, in both families.
fn wait_for_ways(lab: &Lab, count: usize) {
    let what = format!("{count} ways");
    wait_until(&what, Duration::from_secs(60), || {
        let objects = lab.run("r1", "ip nexthop");
        let after = |line: &str, word: &str| {
            let rest = line.split_once(word)?.1.split(' ').next()?;
            Some(rest.to_owned())
        };
        let ends: BTreeMap<String, String> = objects
            .lines()
            .filter_map(|line| Some((after(line, "id ")?, after(line, " dst ")?)))
            .collect();
        let groups = objects.lines().filter_map(|line| after(line, " group "));
        let routers = groups.map(|group| {
            let members = group.split('/');
            let members = members.filter_map(|member| ends.get(member.split(',').next()?));
            members.collect::<BTreeSet<_>>().len()
        });
        (routers.collect::<Vec<_>>() == [count, count]).then_some(())
    });
}

#[test]
fn flows_spread_over_all_nodes_and_stay_while_nodes_come_and_go() {
    if !need(&["ip", "curl", "nft"]) {
        return;
    }
    let lab = lab();
    for router in ["r1", "r2", "r3", "r4"] {
        lab.converged(router);
    }
    wait_for_ways(&lab, 3);
    // The first packets wait for neighbours to be found, and not all have room there.
    let first = arrived(&lab);
    for v6 in [false, true] {
        for number in NODES {
            let its = of_node(&first, number);
            let its = its.iter().filter(|port| ports(v6).contains(port)).count();
            assert!(
                its >= usize::from(FLOWS / 5),
                "{its} of {FLOWS} at {number}"
            );
        }
    }
    assert!(homes(&lab) == first, "flows moved");

    // One stops answering, while its link stays. Flows of the others are not touched, at any time.
    let before = all_counted(&lab);
    lab.run(
        "n3",
        "nft add table inet hang { chain in { type filter hook input priority -300 ; policy drop ; } ; chain f { type filter hook forward priority -300 ; policy drop ; } ; }",
    );
    let second = arrived(&lab);
    wait_for_ways(&lab, 2);
    assert!(homes(&lab) == second, "flows moved");
    assert_eq!(of_node(&second, 3), BTreeSet::new());
    let after = all_counted(&lab);
    let strayed = |home: u8, other: usize| {
        let its = of_node(&first, home);
        let strayed = its
            .iter()
            .filter(|port| more(&after[other], &before[other], **port) > 0);
        strayed.count()
    };
    assert_eq!((strayed(2, 2), strayed(4, 0)), (0, 0), "flows moved");
    // The others take what it had, both of them.
    let orphans = of_node(&first, 3);
    for number in [2, 4] {
        let its = of_node(&second, number);
        assert!(its.is_superset(&of_node(&first, number)), "{number}");
        assert!(its.intersection(&orphans).count() > 0, "{number}");
    }

    // The last but one loses its link.
    lab.run("r4", "ip link set fw0 down");
    let third = arrived(&lab);
    assert_eq!(of_node(&third, 2).len(), third.len());

    // They come back: what flows stays where it is.
    lab.run("n3", "nft delete table inet hang");
    wait_for_ways(&lab, 2);
    assert!(homes(&lab) == third, "flows moved");
    lab.run("r4", "ip link set fw0 up");
    wait_for_ways(&lab, 3);
    assert!(homes(&lab) == third, "flows moved");
}
