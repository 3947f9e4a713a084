//! A neighbour that does its worst, as fast as it can, and what others see of it: their sessions stay, and the router stays within its memory.
//!
//! What it costs them is printed: how long the API takes to answer, the longest silence that a neighbour with a hold time of 9 s hears, and
//! memory. `WEFT_HOSTILE_SECONDS` says for how long each goes on (3 by default); docs/security.md has the figures.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use weft_bgp_wire::{AddPathMode, Capability, encode_keepalive};
use weft_tests::topology::{forwarding, topology};
use weft_tests::{API, Lab, Message, Peer, Speaker, attribute, in_netns, need, update, wait_until};

const PATIENCE: Duration = Duration::from_secs(60);
const HOLD_TIME: u16 = 9;
/// Octets that the router may have while a neighbour does its worst.
const MEMORY: u64 = 1 << 30;
/// The nodes, each with the last octet of the router's address on its link; its own is the next.
const NODES: [(&str, u8); 3] = [("one", 1), ("two", 5), ("x", 9)];

fn asn(last: u8) -> u32 {
    65000 + u32::from(last)
}

fn on_link(last: u8) -> Ipv4Addr {
    Ipv4Addr::new(198, 51, 100, last)
}

fn lab() -> Option<Lab> {
    if !need(&["ip", "curl"]) {
        return None;
    }
    let neighbors = NODES.map(|(_, last)| {
        let (address, asn) = (on_link(last + 1), asn(last));
        format!("  - {{ address: {address}, asn: {asn}, passive: true, hold_time: 9 }}\n")
    });
    let config = format!(
        "router: {{ name: r, router_id: 192.0.2.1, asn: 64601, default_policy: accept }}\nneighbors:\n{}",
        neighbors.concat()
    );
    let addresses = NODES.map(|(node, last)| format!("{node} {}/30", on_link(last)));
    let addresses = addresses.each_ref().map(String::as_str);
    let mut nodes = vec![("r", true, forwarding(&addresses))];
    nodes.extend(NODES.map(|(node, last)| {
        let own = format!("ip address add {}/30 dev r", on_link(last + 1));
        (node, false, vec![own])
    }));
    let links = [("r:one", "one:r"), ("r:two", "two:r"), ("r:x", "x:r")];
    Some(Lab::up(
        &topology(&nodes, &links),
        &[("r.yaml".to_owned(), config)],
    ))
}

fn speaker(lab: &Lab, (node, last): (&str, u8)) -> Speaker {
    Speaker {
        netns: lab.netns(node),
        router: on_link(last),
        asn: asn(last),
        router_id: on_link(last + 1),
    }
}

/// A neighbour with a hold time, until it is told to end: the longest time in which it heard nothing. It panics where its session ends.
fn honest(mut peer: Peer, stop: &AtomicBool) -> Duration {
    let mut longest = Duration::ZERO;
    let (mut heard, mut said) = (Instant::now(), Instant::now());
    let mut keepalive = Vec::new();
    encode_keepalive(&mut keepalive);
    while !stop.load(Ordering::Relaxed) {
        match peer.receive(Duration::from_millis(200)) {
            Some(Message::Other(..)) => {
                longest = longest.max(heard.elapsed());
                heard = Instant::now();
            }
            None => {}
            ended => panic!("an honest neighbour's session ended: {ended:?}"),
        }
        if said.elapsed() > Duration::from_secs(2) {
            peer.send(&keepalive);
            said = Instant::now();
        }
    }
    longest.max(heard.elapsed())
}

/// How long the API takes to say how the router does, again and again.
fn asks(netns: &str, stop: &AtomicBool) -> Vec<Duration> {
    in_netns(netns, || {
        let mut took = Vec::new();
        while !stop.load(Ordering::Relaxed) {
            let asked = Instant::now();
            let api: SocketAddr = API.parse().unwrap();
            let mut stream = TcpStream::connect(api).unwrap();
            stream.set_read_timeout(Some(PATIENCE)).unwrap();
            let question =
                "GET /api/v1/status HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
            stream.write_all(question.as_bytes()).unwrap();
            let mut answer = String::new();
            stream.read_to_string(&mut answer).unwrap();
            assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
            took.push(asked.elapsed());
            std::thread::sleep(Duration::from_millis(20));
        }
        took.sort_unstable();
        took
    })
}

/// What the hostile neighbour does.
type Way = fn(&mut Worst<'_>);

/// The hostile neighbour's means.
struct Worst<'l> {
    lab: &'l Lab,
    end: Instant,
    sent: u64,
    sessions: u64,
    random: u64,
}

impl Worst<'_> {
    fn goes_on(&self) -> bool {
        Instant::now() < self.end
    }

    fn random(&mut self) -> u64 {
        // Xorshift.
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random
    }

    fn session(&mut self) -> Peer {
        self.sessions += 1;
        let both = AddPathMode {
            receive: true,
            send: true,
        };
        let add_path = Capability::AddPath(vec![(1, 1, both)]);
        speaker(self.lab, NODES[2]).establish_with(0, &[add_path])
    }

    /// Sends what `next` makes, over a session that is opened again where the router ends it.
    fn send(&mut self, mut next: impl FnMut(&mut Self) -> Vec<u8>) {
        let mut peer = self.session();
        while self.goes_on() {
            let octets = next(self);
            self.sent += octets.len() as u64;
            if !peer.try_send(&octets) && self.goes_on() {
                peer = self.session();
            }
        }
    }
}

/// Of routes: ORIGIN, AS_PATH and NEXT_HOP, with more behind.
fn attributes(more: &[u8]) -> Vec<u8> {
    let (_, last) = NODES[2];
    let as_path = [&[2, 1][..], &asn(last).to_be_bytes()].concat();
    [
        &attribute(0x40, 1, &[0])[..],
        &attribute(0x40, 2, &as_path),
        &attribute(0x40, 3, &on_link(last + 1).octets()),
        more,
    ]
    .concat()
}

/// Prefixes of 10.0.0.0/8 with a path id each: /32, the `first` in steps of `step`.
fn hosts(first: u32, step: u32, count: u32, path_id: u32) -> Vec<u8> {
    let hosts = (0..count).map(|at| first.wrapping_add(at.wrapping_mul(step)) & 0xff_ffff);
    hosts
        .flat_map(|host| {
            let mut nlri = path_id.to_be_bytes().to_vec();
            nlri.push(32);
            nlri.extend((10 << 24 | host).to_be_bytes());
            nlri
        })
        .collect()
}

/// UPDATEs whose bodies are random, behind good headers.
fn garbage(worst: &mut Worst<'_>) {
    worst.send(|worst| {
        let len = 30 + worst.random() as usize % 1000;
        let mut message = vec![0xff; 16];
        message.extend((19 + len as u16).to_be_bytes());
        message.push(2);
        message.extend((0..len).map(|_| worst.random() as u8));
        message
    });
}

/// UPDATEs with an attribute again and again, and one that is wrong: each costs its routes, and the session stays (RFC 7606).
fn wrong_attributes(worst: &mut Worst<'_>) {
    let origin = attribute(0x40, 1, &[9]);
    let med = attribute(0x80, 4, &[0, 0, 0, 1]);
    let more = [&origin[..], &med.repeat(400)].concat();
    let message = update(&[], &attributes(&more), &hosts(0, 1, 30, 1)).repeat(16);
    worst.send(|_| message.clone());
}

/// The same 10,000 routes announced and withdrawn.
fn flaps(worst: &mut Worst<'_>) {
    let parts: Vec<_> = (0..40).map(|at| hosts(at * 250, 1, 250, 1)).collect();
    let all = |one: &dyn Fn(&Vec<u8>) -> Vec<u8>| parts.iter().flat_map(one).collect::<Vec<u8>>();
    let up = all(&|part| update(&[], &attributes(&[]), part));
    let down = all(&|part| update(part, &[], &[]));
    let both = [up, down].concat();
    worst.send(|_| both.clone());
}

/// Routes whose addresses differ in their upper bits alone, each UPDATE with attributes of its own: what falls together in tables whose
/// hashes are known, and fills those of attributes.
fn colliding(worst: &mut Worst<'_>) {
    let mut round = 0;
    worst.send(|worst| {
        round += 1;
        let messages = (0..50).flat_map(|_| {
            let own = (worst.random() as u32 & 0xffff_ff00).to_be_bytes();
            let communities = [own, [0; 4], own].concat();
            let more = attribute(0xc0, 32, &communities);
            let first = round % 16;
            update(&[], &attributes(&more), &hosts(first, 1 << 16, 250, 1))
        });
        messages.collect()
    });
}

/// One prefix with as many paths as there are ids.
fn path_ids(worst: &mut Worst<'_>) {
    let mut id = 0;
    worst.send(|worst| {
        let messages = (0..50).flat_map(|_| {
            let own = (worst.random() as u32).to_be_bytes();
            let more = attribute(0x80, 4, &own);
            let nlri: Vec<u8> = (0..250)
                .flat_map(|_| {
                    id += 1;
                    hosts(7, 0, 1, id)
                })
                .collect();
            update(&[], &attributes(&more), &nlri)
        });
        messages.collect()
    });
}

/// A thousand connections that say nothing, and as many again as soon as they are closed.
fn silent(worst: &mut Worst<'_>) {
    let (netns, end) = (worst.lab.netns("x"), worst.end);
    let opened = in_netns(&netns, || {
        let router = SocketAddr::from((on_link(NODES[2].1), 179));
        let mut held = Vec::new();
        let mut opened = 0;
        while Instant::now() < end {
            if held.len() >= 1000 {
                held.drain(..500);
            }
            if let Ok(stream) = TcpStream::connect_timeout(&router, Duration::from_millis(100)) {
                held.push(stream);
                opened += 1;
            }
        }
        opened
    });
    worst.sessions = opened;
}

/// It takes a table of others and reads nothing of it.
fn slow_reader(worst: &mut Worst<'_>) {
    let peer = worst.session();
    std::thread::sleep(worst.end.saturating_duration_since(Instant::now()));
    drop(peer);
}

#[test]
fn a_hostile_neighbour_costs_others_neither_sessions_nor_memory() {
    let Some(lab) = lab() else {
        return;
    };
    let seconds = std::env::var("WEFT_HOSTILE_SECONDS").ok();
    let seconds = seconds.and_then(|text| text.parse().ok()).unwrap_or(3);
    let stop = AtomicBool::new(false);
    let ways: [(&str, Way); 7] = [
        ("garbage", garbage),
        ("wrong attributes", wrong_attributes),
        ("flaps", flaps),
        ("colliding prefixes", colliding),
        ("path ids", path_ids),
        ("silent connections", silent),
        ("slow reader", slow_reader),
    ];
    std::thread::scope(|scope| {
        let hold = |node| speaker(&lab, node).establish_with(HOLD_TIME, &[]);
        let (mut one, two) = (hold(NODES[0]), hold(NODES[1]));
        // What the slow reader and the other are told.
        let sender = weft_load::Sender {
            address: on_link(NODES[0].1 + 1),
            asn: Some(asn(NODES[0].1)),
        };
        one.send(&weft_load::internet(100_000).announce(sender));
        let stop = &stop;
        let honest = [one, two].map(|peer| scope.spawn(move || honest(peer, stop)));
        // Whatever fails here, they end.
        let _ends = Ends(stop);
        for (what, worst) in ways {
            attack(&lab, what, worst, Duration::from_secs(seconds));
            assert!(honest.iter().all(|one| !one.is_finished()), "{what}");
            for (_, last) in &NODES[..2] {
                let one = lab.neighbor("r", &on_link(last + 1).to_string()).unwrap();
                let stands = one["state"] == "established" && one["flaps"] == 0;
                assert!(stands, "{what}: {one}");
            }
        }
        stop.store(true, Ordering::Relaxed);
        let silence = honest.map(|one| one.join().unwrap());
        eprintln!(
            "longest silence that a neighbour with a hold time of {HOLD_TIME} s heard: {:.1} s",
            silence.iter().max().unwrap().as_secs_f64()
        );
    });
}

/// Tells the others to end, where a test does so by a panic too.
struct Ends<'s>(&'s AtomicBool);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

fn attack(lab: &Lab, what: &str, way: Way, time: Duration) {
    let stop = AtomicBool::new(false);
    let netns = lab.netns("r");
    std::thread::scope(|scope| {
        let _ends = Ends(&stop);
        let asks = scope.spawn(|| asks(&netns, &stop));
        let mut worst = Worst {
            lab,
            end: Instant::now() + time,
            sent: 0,
            sessions: 0,
            random: 0x9e37_79b9_7f4a_7c15,
        };
        way(&mut worst);
        stop.store(true, Ordering::Relaxed);
        let took = asks.join().unwrap();
        let status = lab.get("r", "status").unwrap();
        let memory = status["memory"].as_u64().unwrap();
        eprintln!(
            "{what}: {} MiB in {} connections; the API answered {} times, in {} ms as a rule and {} ms at most; {} MiB of memory",
            worst.sent >> 20,
            worst.sessions,
            took.len(),
            took[took.len() / 2].as_millis(),
            took[took.len() - 1].as_millis(),
            memory >> 20
        );
        assert!(memory < MEMORY, "{what}: {memory} octets");
    });
    wait_until("the API", PATIENCE, || lab.get("r", "status"));
}
