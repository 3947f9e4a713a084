//! Malformed messages from a scripted neighbour: what RFC 7606 says becomes of each, and nothing of another session.

#![allow(clippy::unwrap_used, reason = "a test: a panic is its verdict")]

use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::Duration;

use serde_json::Value;
use weft_tests::topology::{forwarding, topology};
use weft_tests::{Lab, Peer, Speaker, attribute, in_netns, need, update, wait_until};

const BAD: &str = "198.51.100.2";
const GOOD: &str = "198.51.100.6";
const BAD_AS: u32 = 65001;
const GOOD_AS: u32 = 65002;
/// 203.0.113.0/24, announced well-formed before every malformed message.
const NLRI: [u8; 4] = [24, 203, 0, 113];
const PREFIX: &str = "203.0.113.0/24";
/// 192.0.2.0/24, the good neighbour's.
const GOOD_NLRI: [u8; 4] = [24, 192, 0, 2];
const GOOD_PREFIX: &str = "192.0.2.0/24";
const PATIENCE: Duration = Duration::from_secs(20);

const WELL_KNOWN: u8 = 0x40;
const OPTIONAL: u8 = 0x80;
const OPTIONAL_TRANSITIVE: u8 = 0xc0;

fn origin() -> Vec<u8> {
    attribute(WELL_KNOWN, 1, &[0])
}

fn as_path(asn: u32) -> Vec<u8> {
    attribute(WELL_KNOWN, 2, &[&[2, 1], &asn.to_be_bytes()[..]].concat())
}

fn next_hop(address: &str) -> Vec<u8> {
    let address: Ipv4Addr = address.parse().unwrap();
    attribute(WELL_KNOWN, 3, &address.octets())
}

fn well_formed() -> Vec<u8> {
    [origin(), as_path(BAD_AS), next_hop(BAD)].concat()
}

/// The well-formed attributes and one more.
fn and(flags: u8, code: u8, value: &[u8]) -> Vec<u8> {
    [well_formed(), attribute(flags, code, value)].concat()
}

/// A router with two scripted neighbours, the sessions up.
struct Bench {
    lab: Lab,
    speaker: Speaker,
    bad: Peer,
    /// Keeps its session.
    _good: Peer,
}

impl Bench {
    fn new() -> Self {
        let config = format!(
            "router: {{ name: r, router_id: 192.0.2.1, asn: 64601, default_policy: accept }}
neighbors:
  - {{ address: {BAD}, asn: {BAD_AS}, passive: true }}
  - {{ address: {GOOD}, asn: {GOOD_AS}, passive: true }}
"
        );
        let one = |address: &str| vec![format!("ip address add {address} dev eth1")];
        let nodes = [
            (
                "r",
                true,
                forwarding(&["eth1 198.51.100.1/30", "eth2 198.51.100.5/30"]),
            ),
            ("bad", false, one("198.51.100.2/30")),
            ("good", false, one("198.51.100.6/30")),
        ];
        let links = [("r:eth1", "bad:eth1"), ("r:eth2", "good:eth1")];
        let lab = Lab::up(&topology(&nodes, &links), &[("r.yaml".to_owned(), config)]);
        let speaker = |node: &str, router: [u8; 4], asn: u32, id: [u8; 4]| Speaker {
            netns: lab.netns(node),
            router: router.into(),
            asn,
            router_id: id.into(),
        };
        let bad_speaker = speaker("bad", [198, 51, 100, 1], BAD_AS, [198, 51, 100, 2]);
        let bad = bad_speaker.establish();
        let mut good = speaker("good", [198, 51, 100, 5], GOOD_AS, [198, 51, 100, 6]).establish();
        let attributes = [origin(), as_path(GOOD_AS), next_hop(GOOD)].concat();
        good.send(&update(&[], &attributes, &GOOD_NLRI));
        let bench = Self {
            lab,
            speaker: bad_speaker,
            bad,
            _good: good,
        };
        bench.await_route(GOOD_PREFIX, true, "the good neighbour announced it");
        bench
    }

    fn await_route(&self, prefix: &str, there: bool, why: &str) {
        let what = format!("{prefix} {}: {why}", if there { "there" } else { "gone" });
        wait_until(&what, PATIENCE, || {
            // A router that does not answer holds no routes either; that is not what is meant.
            self.lab.get("r", "status")?;
            (self.lab.paths("r", prefix).is_empty() != there).then_some(())
        });
    }

    fn neighbor(&self, address: &str) -> Value {
        self.lab.neighbor("r", address).unwrap()
    }

    fn count(&self, counter: &str) -> u64 {
        self.neighbor(BAD)[counter].as_u64().unwrap()
    }

    fn announce_well_formed(&mut self) {
        self.bad.send(&update(&[], &well_formed(), &NLRI));
        self.await_route(PREFIX, true, "announced");
    }

    fn the_other_session_is_untouched(&self, name: &str) {
        let good = self.neighbor(GOOD);
        assert_eq!(good["state"], "established", "{name}");
        assert_eq!(good["flaps"], 0, "{name}");
        assert_eq!(self.lab.paths("r", GOOD_PREFIX).len(), 1, "{name}");
    }

    /// The UPDATE is counted by `counter`; then the route is there or not, and the session still up.
    fn costs(&mut self, name: &str, octets: &[u8], counter: &str, there: bool) {
        self.announce_well_formed();
        let flaps = self.count("flaps");
        let before = self.count(counter);
        self.bad.send(octets);
        wait_until(&format!("{name}: counted as {counter}"), PATIENCE, || {
            (self.count(counter) > before).then_some(())
        });
        self.await_route(PREFIX, there, name);
        assert_eq!(self.neighbor(BAD)["state"], "established", "{name}");
        assert_eq!(self.count("flaps"), flaps, "{name}");
        self.the_other_session_is_untouched(name);
    }

    /// The session ends with a NOTIFICATION, and its routes with it.
    fn resets(&mut self, name: &str, octets: &[u8], code: u8, subcode: u8) {
        self.announce_well_formed();
        self.bad.send(octets);
        let notification = self.bad.notification();
        assert_eq!(
            (notification.code, notification.subcode),
            (code, subcode),
            "{name}"
        );
        self.await_route(PREFIX, false, name);
        self.the_other_session_is_untouched(name);
        self.bad = self.speaker.establish();
    }
}

#[test]
fn treat_as_withdraw_keeps_the_session() {
    if !need(&["ip", "curl"]) {
        return;
    }
    let mut bench = Bench::new();
    let path = as_path(BAD_AS);
    let hop = next_hop(BAD);
    let overrun = |code: u8| [well_formed(), vec![OPTIONAL_TRANSITIVE, code, 13, 0, 0]].concat();
    let cases: Vec<(&str, Vec<u8>)> = vec![
        (
            "ORIGIN of 2 octets",
            [attribute(WELL_KNOWN, 1, &[0, 0]), path.clone(), hop.clone()].concat(),
        ),
        (
            "ORIGIN of value 3",
            [attribute(WELL_KNOWN, 1, &[3]), path.clone(), hop.clone()].concat(),
        ),
        (
            "ORIGIN flagged optional",
            [
                attribute(OPTIONAL_TRANSITIVE, 1, &[0]),
                path.clone(),
                hop.clone(),
            ]
            .concat(),
        ),
        (
            "AS_PATH flagged not transitive",
            [origin(), attribute(0, 2, &path[3..]), hop.clone()].concat(),
        ),
        (
            "AS_PATH segment longer than the attribute",
            [
                origin(),
                attribute(WELL_KNOWN, 2, &[2, 2, 0, 0, 0, 1]),
                hop.clone(),
            ]
            .concat(),
        ),
        (
            "AS_PATH segment of no AS",
            [origin(), attribute(WELL_KNOWN, 2, &[2, 0]), hop.clone()].concat(),
        ),
        (
            "NEXT_HOP of 3 octets",
            [
                origin(),
                path.clone(),
                attribute(WELL_KNOWN, 3, &[198, 51, 100]),
            ]
            .concat(),
        ),
        ("no ORIGIN", [path.clone(), hop.clone()].concat()),
        ("no AS_PATH", [origin(), hop].concat()),
        ("no NEXT_HOP", [origin(), path].concat()),
        ("MULTI_EXIT_DISC of 3 octets", and(OPTIONAL, 4, &[0; 3])),
        (
            "MULTI_EXIT_DISC flagged transitive",
            and(OPTIONAL_TRANSITIVE, 4, &[0; 4]),
        ),
        (
            "COMMUNITIES of 5 octets",
            and(OPTIONAL_TRANSITIVE, 8, &[0; 5]),
        ),
        ("COMMUNITIES of no octets", and(OPTIONAL_TRANSITIVE, 8, &[])),
        (
            "EXTENDED COMMUNITIES of 7 octets",
            and(OPTIONAL_TRANSITIVE, 16, &[0; 7]),
        ),
        (
            "LARGE_COMMUNITY of no octets",
            and(OPTIONAL_TRANSITIVE, 32, &[]),
        ),
        (
            "LARGE_COMMUNITY of 11 octets",
            and(OPTIONAL_TRANSITIVE, 32, &[0; 11]),
        ),
        (
            "LARGE_COMMUNITY of 13 octets",
            and(OPTIONAL_TRANSITIVE, 32, &[0; 13]),
        ),
        (
            "LARGE_COMMUNITY flagged well-known",
            and(WELL_KNOWN, 32, &[0; 12]),
        ),
        ("LARGE_COMMUNITY that runs past the field", overrun(32)),
        ("COMMUNITIES that run past the field", overrun(8)),
    ];
    for (name, attributes) in &cases {
        bench.costs(
            name,
            &update(&[], attributes, &NLRI),
            "treat_as_withdraw",
            false,
        );
    }
}

#[test]
fn discarded_attributes_keep_the_route() {
    if !need(&["ip", "curl"]) {
        return;
    }
    let mut bench = Bench::new();
    let cases: Vec<(&str, Vec<u8>)> = vec![
        ("ORIGIN twice", and(WELL_KNOWN, 1, &[2])),
        (
            "LARGE_COMMUNITY twice",
            [
                and(OPTIONAL_TRANSITIVE, 32, &[1; 12]),
                attribute(OPTIONAL_TRANSITIVE, 32, &[2; 12]),
            ]
            .concat(),
        ),
        ("ATOMIC_AGGREGATE of 1 octet", and(WELL_KNOWN, 6, &[0])),
        (
            "AGGREGATOR of 7 octets",
            and(OPTIONAL_TRANSITIVE, 7, &[0; 7]),
        ),
        ("LOCAL_PREF by eBGP", and(WELL_KNOWN, 5, &[0, 0, 0, 200])),
    ];
    for (name, attributes) in &cases {
        bench.costs(
            name,
            &update(&[], attributes, &NLRI),
            "attribute_discard",
            true,
        );
        let paths = bench.lab.paths("r", PREFIX);
        // The first one of duplicates counts.
        assert_eq!(paths[0]["origin"], "igp", "{name}");
        if name.starts_with("LARGE") {
            let expected = serde_json::json!(["16843009:16843009:16843009"]);
            assert_eq!(paths[0]["large_communities"], expected, "{name}");
        }
    }
}

#[test]
fn what_cannot_be_read_resets_that_session_alone() {
    if !need(&["ip", "curl"]) {
        return;
    }
    let mut bench = Bench::new();
    let good = well_formed();
    let message = |attributes: &[u8], nlri: &[u8]| update(&[], attributes, nlri);
    // IPv6 unicast, next hop of 4 octets that claims 16.
    let short_reach = and(OPTIONAL, 14, &[0, 2, 1, 16, 0, 0, 0, 0]);
    let unreach = attribute(OPTIONAL, 15, &[0, 2, 1]);
    let twice = [good.clone(), unreach.clone(), unreach].concat();
    let mut marker = message(&good, &NLRI);
    marker[3] = 0;
    let mut length = message(&good, &NLRI);
    length[16..18].copy_from_slice(&18u16.to_be_bytes());
    let mut kind = message(&good, &NLRI);
    kind[18] = 9;
    let mut withdrawn = message(&good, &NLRI);
    withdrawn[19..21].copy_from_slice(&500u16.to_be_bytes());
    let cases: Vec<(&str, Vec<u8>, u8, u8)> = vec![
        (
            "NLRI that ends inside a prefix",
            message(&good, &[24, 203, 0]),
            3,
            10,
        ),
        (
            "NLRI of 33 bits",
            message(&good, &[33, 203, 0, 113, 0, 0]),
            3,
            10,
        ),
        (
            "withdrawn routes that end inside a prefix",
            update(&[24, 203], &[], &[]),
            3,
            10,
        ),
        ("Withdrawn Routes Length past the message", withdrawn, 3, 1),
        ("MP_UNREACH_NLRI twice", message(&twice, &NLRI), 3, 1),
        (
            "MP_REACH_NLRI that ends inside its next hop",
            message(&short_reach, &NLRI),
            3,
            9,
        ),
        (
            "an unknown well-known attribute",
            message(&and(WELL_KNOWN, 99, &[0]), &NLRI),
            3,
            2,
        ),
        ("a marker that is none", marker, 1, 1),
        ("a length below the header's", length, 1, 2),
        ("an unknown type", kind, 1, 3),
    ];
    for (name, octets, code, subcode) in &cases {
        bench.resets(name, octets, *code, *subcode);
    }
}

/// RFC 4271 section 6.3: of the next hops that nobody may have only our own takes a look at the kernel to find.
#[test]
fn next_hops_that_nobody_may_have_are_not_passed_on() {
    if !need(&["ip", "curl"]) {
        return;
    }
    let mut bench = Bench::new();
    for address in ["127.0.0.1", "0.0.0.0", "224.0.0.1", "255.255.255.255"] {
        let attributes = [origin(), as_path(BAD_AS), next_hop(address)].concat();
        let octets = update(&[], &attributes, &NLRI);
        bench.costs(address, &octets, "treat_as_withdraw", false);
    }
    // The address on the session, and one of another link.
    for own in ["198.51.100.1", "198.51.100.5"] {
        bench.announce_well_formed();
        let attributes = [origin(), as_path(BAD_AS), next_hop(own)].concat();
        bench.bad.send(&update(&[], &attributes, &NLRI));
        wait_until(&format!("no path by {own} is best"), PATIENCE, || {
            let paths = bench.lab.paths("r", PREFIX);
            let refused = |path: &Value| path["next_hop"] == own && path["best"] == false;
            paths.iter().any(refused).then_some(())
        });
        let told = bench.neighbor(GOOD);
        assert_eq!(told["prefixes"][0]["advertised"], 0, "{own}: {told}");
    }
    bench.announce_well_formed();
    wait_until("a good next hop is best again", PATIENCE, || {
        let paths = bench.lab.paths("r", PREFIX);
        paths.iter().any(|path| path["best"] == true).then_some(())
    });
}

/// A neighbour that crashed while it connected leaves connections behind that say nothing.
#[test]
fn silent_connections_keep_no_good_one_out() {
    if !need(&["ip", "curl"]) {
        return;
    }
    let Bench {
        lab, speaker, bad, ..
    } = Bench::new();
    drop(bad);
    let router = SocketAddr::from((speaker.router, 179));
    let silent: Vec<TcpStream> = (0..3)
        .filter_map(|_| in_netns(&speaker.netns, || TcpStream::connect(router)).ok())
        .collect();
    assert_eq!(silent.len(), 3);
    let mut peer = speaker.establish();
    peer.send(&update(&[], &well_formed(), &NLRI));
    wait_until("its route is there", PATIENCE, || {
        (!lab.paths("r", PREFIX).is_empty()).then_some(())
    });
}
