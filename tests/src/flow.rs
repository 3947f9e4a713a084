//! A stream of numbered packets between two nodes of a lab, and what became of each.

use std::fs::File;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use nix::sched::{CloneFlags, setns};
use serde_json::Value;

use crate::Lab;

/// One packet is sent in this time.
const INTERVAL: Duration = Duration::from_millis(1);

/// 1,000 packets per second of UDP, one way, until the value goes.
#[derive(Debug)]
pub struct Flow {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    stop: AtomicBool,
    start: Instant,
    sent: AtomicU64,
    /// Microseconds after `start`, by number; 0 for what has not arrived.
    arrived: Mutex<Vec<u64>>,
    /// Microseconds after `start` when the last one arrived.
    last: AtomicU64,
}

/// What a fault did to a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Damage {
    /// Packets that never arrived.
    pub lost: u64,
    /// From the mark to when the last lost packet was sent; zero where none was lost.
    pub until_whole: Duration,
}

impl Flow {
    /// Starts sending from a node to an address of another one, at a port that nobody else uses.
    ///
    /// # Panics
    /// Where a socket cannot be made in one of the namespaces.
    pub fn start(lab: &Lab, from: &str, to: &str, destination: SocketAddr) -> Self {
        let shared = Arc::new(Shared {
            stop: AtomicBool::new(false),
            start: Instant::now(),
            sent: AtomicU64::new(0),
            arrived: Mutex::new(Vec::new()),
            last: AtomicU64::new(0),
        });
        let receiver = lab.in_node(to, || UdpSocket::bind(destination).unwrap());
        receiver
            .set_read_timeout(Some(Duration::from_millis(50)))
            .unwrap();
        let sender = lab.in_node(from, || UdpSocket::bind("0.0.0.0:0").unwrap());
        let threads = vec![
            std::thread::spawn({
                let shared = shared.clone();
                move || receive(&receiver, &shared)
            }),
            std::thread::spawn({
                let shared = shared.clone();
                move || send(&sender, destination, &shared)
            }),
        ];
        Self { shared, threads }
    }

    /// The number of the next packet.
    pub fn mark(&self) -> u64 {
        self.shared.sent.load(Ordering::Acquire)
    }

    /// How long nothing has arrived.
    pub fn silent_for(&self) -> Duration {
        let last = Duration::from_micros(self.shared.last.load(Ordering::Acquire));
        self.shared.start.elapsed().saturating_sub(last)
    }

    /// Every packet of the last `time` has arrived, those of the last 50 ms apart, which may be on their way.
    pub fn whole_for(&self, time: Duration) -> bool {
        let end = self.mark().saturating_sub(50);
        let count = time.as_millis() as u64;
        let arrived = self.shared.arrived.lock().unwrap();
        end >= count
            && (end - count..end).all(|number| {
                let at = arrived.get(number as usize);
                at.is_some_and(|at| *at > 0)
            })
    }

    /// What was lost of the packets from `mark` on that were sent at least 50 ms ago.
    pub fn damage(&self, mark: u64) -> Damage {
        let end = self.mark().saturating_sub(50);
        let arrived = self.shared.arrived.lock().unwrap();
        let lost = (mark..end).filter(|number| {
            let at = arrived.get(*number as usize);
            at.is_none_or(|at| *at == 0)
        });
        let (mut count, mut last) = (0, None);
        for number in lost {
            count += 1;
            last = Some(number);
        }
        Damage {
            lost: count,
            until_whole: last.map_or(Duration::ZERO, |last| {
                INTERVAL * u32::try_from(last + 1 - mark).unwrap()
            }),
        }
    }
}

impl Drop for Flow {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Release);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

fn send(socket: &UdpSocket, destination: SocketAddr, shared: &Shared) {
    let mut next = Instant::now();
    while !shared.stop.load(Ordering::Acquire) {
        let number = shared.sent.load(Ordering::Relaxed);
        // What the host itself refuses, for want of a route say, is lost like anything else.
        let _ = socket.send_to(&number.to_be_bytes(), destination);
        shared.sent.store(number + 1, Ordering::Release);
        next += INTERVAL;
        std::thread::sleep(next.saturating_duration_since(Instant::now()));
    }
}

fn receive(socket: &UdpSocket, shared: &Shared) {
    let mut octets = [0; 16];
    while !shared.stop.load(Ordering::Acquire) {
        let Ok((8, _)) = socket.recv_from(&mut octets) else {
            continue;
        };
        let number = u64::from_be_bytes(octets[..8].try_into().unwrap());
        let at = (shared.start.elapsed().as_micros() as u64).max(1);
        let mut arrived = shared.arrived.lock().unwrap();
        let index = number as usize;
        if arrived.len() <= index {
            arrived.resize(index + 1, 0);
        }
        arrived[index] = at;
        shared.last.store(at, Ordering::Release);
    }
}

/// What routers say of their forwarding, asked every 100 ms until the value goes.
#[derive(Debug)]
pub struct Verdicts {
    shared: Arc<VerdictsShared>,
    threads: Vec<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct VerdictsShared {
    stop: AtomicBool,
    /// When it was asked, the node, and the answer: nothing where the router did not answer.
    said: Mutex<Vec<(Instant, String, Option<Value>)>>,
}

impl Verdicts {
    /// Begins to ask.
    pub fn start(lab: &Lab, nodes: &[&str]) -> Self {
        let shared = Arc::new(VerdictsShared::default());
        let threads = nodes.iter().map(|node| {
            let (shared, netns, node) = (shared.clone(), lab.netns(node), (*node).to_owned());
            std::thread::spawn(move || {
                let file = File::open(Path::new("/run/netns").join(netns)).unwrap();
                setns(file, CloneFlags::CLONE_NEWNET).unwrap();
                while !shared.stop.load(Ordering::Acquire) {
                    let at = Instant::now();
                    let answer = ask().map(|mut status| status["forwarding"].take());
                    let mut said = shared.said.lock().unwrap();
                    said.push((at, node.clone(), answer));
                    drop(said);
                    std::thread::sleep(Duration::from_millis(100));
                }
            })
        });
        let threads = threads.collect();
        Self { shared, threads }
    }

    /// What a router said first at or after a time that satisfies `wanted`, and when.
    pub fn first(
        &self,
        node: &str,
        from: Instant,
        wanted: impl Fn(Option<&str>) -> bool,
    ) -> Option<(Instant, Option<Value>)> {
        let said = self.shared.said.lock().unwrap();
        let mut after = said
            .iter()
            .filter(|(at, who, _)| *at >= from && who == node);
        let found = after
            .find(|(_, _, answer)| wanted(answer.as_ref().and_then(|one| one["verdict"].as_str())));
        found.map(|(at, _, answer)| (*at, answer.clone()))
    }

    /// What a router said last.
    pub fn last(&self, node: &str) -> Option<Value> {
        let said = self.shared.said.lock().unwrap();
        let mut latest = said.iter().rev().filter(|(_, who, _)| who == node);
        latest.next()?.2.clone()
    }

    /// A router says that it forwards.
    pub fn forwards(&self, node: &str) -> bool {
        self.last(node)
            .is_some_and(|said| said["verdict"] == "forwarding")
    }
}

impl Drop for Verdicts {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Release);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

/// The router's status, asked by a connection of this thread's namespace.
fn ask() -> Option<Value> {
    let address: SocketAddr = "127.0.0.1:8179".parse().unwrap();
    let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(1)).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(2))).ok()?;
    stream
        .write_all(
            b"GET /api/v1/status HTTP/1.1\r\nHost: 127.0.0.1:8179\r\nConnection: close\r\n\r\n",
        )
        .ok()?;
    let mut text = String::new();
    stream.read_to_string(&mut text).ok()?;
    let (head, body) = text.split_once("\r\n\r\n")?;
    let body = match head
        .to_ascii_lowercase()
        .contains("transfer-encoding: chunked")
    {
        // One object in a line: what is between the outermost braces.
        true => &body[body.find('{')?..=body.rfind('}')?],
        false => body,
    };
    serde_json::from_str(body).ok()
}
