//! A domain of an edge (ea) and a router with a tenant (a1), both with IPv6 endpoints, and a hostile eBGP neighbour (x) of the edge.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use ipnet::IpNet;
use serde_json::Value;

use weft_tests::topology::{forwarding, topology};
use weft_tests::{Lab, Peer, Speaker, attribute, update, wait_until};

const ASN: u32 = 64999;
const ADDRESS: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 2);
const ADDRESS_V6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0xff, 0, 0, 0, 0, 0, 2);
const PATIENCE: Duration = Duration::from_secs(60);

/// The domain, and the session from which it is attacked.
pub(crate) struct Hostile {
    pub(crate) lab: Lab,
    peer: Peer,
    markers: u8,
}

impl Hostile {
    /// The edge knows the neighbour with these words of configuration: `accept_vnis: [10001]`, or nothing.
    pub(crate) fn known_as(words: &str) -> Self {
        let lab = up(words);
        let speaker = Speaker {
            netns: lab.netns("x"),
            router: Ipv4Addr::new(198, 51, 100, 1),
            asn: ASN,
            router_id: ADDRESS,
        };
        let mut peer = speaker.establish();
        // End-of-RIB of both families, so that nobody waits for more.
        peer.send(&update(&[], &[], &[]));
        peer.send(&update(&[], &attribute(0x80, 15, &[0, 2, 1]), &[]));
        let mut hostile = Self {
            lab,
            peer,
            markers: 0,
        };
        hostile.is_heard();
        hostile
    }

    /// Announces a prefix with large communities, `A:B:C`.
    pub(crate) fn announce(&mut self, prefix: &str, communities: &[&str]) {
        let prefix: IpNet = prefix.parse().unwrap();
        let octets = communities.iter().flat_map(|community| {
            let numbers = community.split(':');
            numbers.flat_map(|number| number.parse::<u32>().unwrap().to_be_bytes())
        });
        let octets: Vec<u8> = octets.collect();
        let as_path = [&[2, 1][..], &ASN.to_be_bytes()].concat();
        let mut attributes = [attribute(0x40, 1, &[0]), attribute(0x40, 2, &as_path)].concat();
        let nlri = nlri(prefix);
        let v4 = prefix.addr().is_ipv4();
        if v4 {
            attributes.extend(attribute(0x40, 3, &ADDRESS.octets()));
        } else {
            let reach = [&[0, 2, 1, 16][..], &ADDRESS_V6.octets(), &[0], &nlri].concat();
            attributes.extend(attribute(0x80, 14, &reach));
        }
        if !octets.is_empty() {
            attributes.extend(attribute(0xc0, 32, &octets));
        }
        let nlri = if v4 { &nlri[..] } else { &[] };
        self.peer.send(&update(&[], &attributes, nlri));
    }

    /// Announces a prefix with an attribute that nobody knows, so many times over (RFC 7606 section 3 g).
    pub(crate) fn repeat(&mut self, prefix: &str, times: usize) {
        let as_path = [&[2, 1][..], &ASN.to_be_bytes()].concat();
        let mut attributes = [
            attribute(0x40, 1, &[0]),
            attribute(0x40, 2, &as_path),
            attribute(0x40, 3, &ADDRESS.octets()),
        ]
        .concat();
        for _ in 0..times {
            attributes.extend(attribute(0xc0, 222, &[]));
        }
        let nlri = nlri(prefix.parse().unwrap());
        self.peer.send(&update(&[], &attributes, &nlri));
    }

    /// Waits until all that was announced has come to the router inside: an ordinary route that follows it has.
    pub(crate) fn is_heard(&mut self) {
        self.markers += 1;
        for marker in [
            format!("203.0.113.{}/32", self.markers),
            format!("2001:db8:ff::{}/128", self.markers),
        ] {
            self.announce(&marker, &[]);
            wait_until("an ordinary route", PATIENCE, || {
                (!self.lab.paths("a1", &marker).is_empty()).then_some(())
            });
        }
    }

    /// What a node does with red's packets to an address.
    pub(crate) fn trace(&self, node: &str, destination: &str) -> Value {
        let path = format!("tenants/red/trace?destination={destination}");
        self.lab.get(node, &path).unwrap()
    }

    /// Large communities of a route as a1 has it; there is one.
    pub(crate) fn communities_inside(&self, prefix: &str) -> Vec<String> {
        let paths = self.lab.paths("a1", prefix);
        assert!(!paths.is_empty(), "the route itself goes on");
        let communities = paths
            .iter()
            .filter_map(|path| path["large_communities"].as_array());
        let communities = communities.flatten();
        communities
            .map(|community| community.as_str().unwrap().to_owned())
            .collect()
    }

    /// Communities that the edge took from the neighbour's routes, by reason.
    pub(crate) fn stripped(&self, reason: &str) -> u64 {
        let neighbor = self.lab.neighbor("ea", &ADDRESS.to_string()).unwrap();
        neighbor["stripped"][reason].as_u64().unwrap()
    }
}

fn nlri(prefix: IpNet) -> Vec<u8> {
    let octets = match prefix.addr() {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    };
    let len = usize::from(prefix.prefix_len()).div_ceil(8);
    [&[prefix.prefix_len()], &octets[..len]].concat()
}

fn up(words: &str) -> Lab {
    let router = |name: &str, number: u8, neighbors: &str, prefixes: &str| {
        let text = format!(
            "router: {{ name: {name}, router_id: 192.0.2.{number}, asn: 64601, default_policy: accept }}
overlay: {{ global_administrator: 64512, endpoint: \"2001:db8::{number}\", probe_interval: 0 }}
tenants:
  - {{ name: red, vni: 10001, prefixes: [{prefixes}] }}
neighbors:
{neighbors}"
        );
        (format!("{name}.yaml"), text)
    };
    let families = "families: [ipv4-unicast, ipv6-unicast]";
    let more = match words {
        "" => String::new(),
        words => format!(", {words}"),
    };
    let files = [
        router(
            "a1",
            11,
            &format!("  - {{ address: 10.255.1.2, asn: 64601, {families}, local_address_v6: \"fd00:1::1\" }}\n"),
            "10.0.1.0/24",
        ),
        router(
            "ea",
            12,
            &format!(
                "  - {{ address: 10.255.1.1, asn: 64601, {families}, local_address_v6: \"fd00:1::2\" }}
  - {{ address: {ADDRESS}, asn: {ASN}, passive: true, {families}, local_address_v6: \"fd00:ff::1\"{more} }}\n"
            ),
            "",
        ),
    ];
    let v6 = |device: &str, address: &str| format!("ip address add {address} dev {device} nodad");
    let mut a1 = forwarding(&["lo 192.0.2.11/32", "eth1 10.255.1.1/30"]);
    a1.extend([
        v6("lo", "2001:db8::11/128"),
        v6("eth1", "fd00:1::1/64"),
        "ip route add default via 10.255.1.2".to_owned(),
        "ip route add default via fd00:1::2".to_owned(),
    ]);
    let mut ea = forwarding(&[
        "lo 192.0.2.12/32",
        "eth1 10.255.1.2/30",
        "eth2 198.51.100.1/30",
    ]);
    ea.extend([
        "sysctl -qw net.ipv6.conf.all.forwarding=1".to_owned(),
        v6("lo", "2001:db8::12/128"),
        v6("eth1", "fd00:1::2/64"),
        v6("eth2", "fd00:ff::1/64"),
        "ip route add 2001:db8::11/128 via fd00:1::1".to_owned(),
        "ip route add default via fd00:ff::2".to_owned(),
    ]);
    let x = vec![
        format!("ip address add {ADDRESS}/30 dev eth1"),
        v6("eth1", "fd00:ff::2/64"),
    ];
    let nodes = [("a1", true, a1), ("ea", true, ea), ("x", false, x)];
    let links = [("a1:eth1", "ea:eth1"), ("ea:eth2", "x:eth1")];
    Lab::up(&topology(&nodes, &links), &files)
}
