//! Reads what the speaker sends to everybody, counts it, and says when it is over.

use std::collections::{HashMap, HashSet};
use std::io::Read;
use std::net::TcpStream;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use ipnet::Ipv4Net;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use weft_bgp_wire::{HEADER_LEN, MessageType, NlriIter, UpdateView};

use crate::session::Session;

/// Without an UPDATE for this long after the last one that was waited for, it is over, if the table is right.
const QUIET: Duration = Duration::from_millis(500);
/// Without an UPDATE for this long, and without what is waited for: it will not come.
const STALLED: Duration = Duration::from_secs(30);
const READ: usize = 256 * 1024;

/// What a receiver was sent since it was last asked.
#[derive(Default)]
struct Received {
    /// Octets whose end is not there yet.
    rest: Vec<u8>,
    /// Everything, to be looked at closely when it is over.
    kept: Option<Vec<u8>>,
    announced: usize,
    withdrawn: usize,
    octets: usize,
}

impl Received {
    fn take(&mut self, octets: &[u8]) -> Result<bool> {
        self.octets += octets.len();
        if let Some(kept) = &mut self.kept {
            kept.extend_from_slice(octets);
        }
        if self.rest.is_empty() {
            let (used, updates) = self.count(octets)?;
            self.rest.extend_from_slice(&octets[used..]);
            return Ok(updates);
        }
        let mut all = std::mem::take(&mut self.rest);
        all.extend_from_slice(octets);
        let (used, updates) = self.count(&all)?;
        all.drain(..used);
        self.rest = all;
        Ok(updates)
    }

    /// Counts prefixes in whole messages; says how many octets those were and whether any was about routes.
    fn count(&mut self, octets: &[u8]) -> Result<(usize, bool)> {
        let mut at = 0;
        let mut updates = false;
        while let Some(header) = octets.get(at..at + HEADER_LEN) {
            let length = usize::from(u16::from_be_bytes([header[16], header[17]]));
            let Some(message) = octets.get(at..at + length) else {
                break;
            };
            match header[18] {
                kind if kind == MessageType::Update as u8 => {
                    let update = UpdateView::split(&message[HEADER_LEN..])
                        .map_err(|error| anyhow::anyhow!("{error}"))?;
                    self.announced += prefixes(update.nlri);
                    self.withdrawn += prefixes(update.withdrawn);
                    updates |= length > HEADER_LEN + 4;
                }
                kind if kind == MessageType::Notification as u8 => {
                    bail!("NOTIFICATION {:?}", &message[HEADER_LEN..])
                }
                _ => {}
            }
            at += length;
        }
        Ok((at, updates))
    }
}

fn prefixes(mut field: &[u8]) -> usize {
    let mut count = 0;
    while let Some(length) = field.first() {
        field = field
            .get(1 + usize::from(*length).div_ceil(8)..)
            .unwrap_or_default();
        count += 1;
    }
    count
}

/// What is waited for at every receiver.
#[derive(Clone, Copy)]
pub(crate) enum Awaited {
    /// So many prefixes announced, and perhaps more as better paths come.
    Announced(usize),
    /// So many withdrawn.
    Withdrawn(usize),
    /// Nothing: for so long.
    Time(Duration),
}

/// What the first receiver has to hold in the end.
#[derive(Clone, Copy)]
pub(crate) struct Expected<'t> {
    pub(crate) table: &'t [Ipv4Net],
    /// Each prefix is told of once, or it fails.
    pub(crate) once: bool,
}

/// How it went.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Outcome {
    /// From the start to the last UPDATE.
    pub(crate) time: Duration,
    /// Octets of all receivers.
    pub(crate) octets: usize,
    /// Whether patience ran out while UPDATEs still came.
    pub(crate) unfinished: bool,
}

/// Everybody's receiving end.
pub(crate) struct Monitor<'s> {
    epoll: Epoll,
    sessions: &'s [Session],
    received: Vec<Received>,
    /// Which of the sessions are receivers: the last so many.
    receivers: std::ops::Range<usize>,
    keep_alive: Duration,
    /// The table of the first receiver, by all that was kept.
    table: HashSet<Ipv4Net>,
    /// How often it was told of each prefix since the start of the run.
    told: HashMap<Ipv4Net, u32>,
}

impl<'s> Monitor<'s> {
    pub(crate) fn new(
        sessions: &'s [Session],
        receivers: usize,
        keep_alive: Duration,
    ) -> Result<Self> {
        let epoll = Epoll::new(EpollCreateFlags::empty())?;
        let first = sessions.len() - receivers;
        let mut received = Vec::new();
        for (at, session) in sessions.iter().enumerate() {
            epoll.add(
                session.stream.as_fd(),
                EpollEvent::new(EpollFlags::EPOLLIN, at as u64),
            )?;
            received.push(Received {
                rest: session.early.clone(),
                kept: (at == first).then(Vec::new),
                ..Received::default()
            });
        }
        Ok(Self {
            epoll,
            sessions,
            received,
            receivers: first..sessions.len(),
            keep_alive,
            table: HashSet::new(),
            told: HashMap::new(),
        })
    }

    /// Reads until what is awaited has come at every receiver, quiet has returned and the table is what is expected.
    ///
    /// Speakers pause: a quiet time with a wrong table is not the end.
    pub(crate) fn watch(
        &mut self,
        start: Instant,
        awaited: Awaited,
        expected: Option<Expected<'_>>,
        patience: Duration,
    ) -> Result<Outcome> {
        for received in &mut self.received {
            (received.announced, received.withdrawn, received.octets) = (0, 0, 0);
        }
        self.told.clear();
        if let Awaited::Announced(count) = awaited
            && let Some(kept) = &mut self.received[self.receivers.start].kept
        {
            kept.reserve(count * 100);
        }
        let mut buffer = vec![0; READ];
        let mut last = start;
        let mut kept_alive = Instant::now();
        let mut waiting = self.receivers.len();
        // What was wrong with the table when it was last looked at, and when the last UPDATE had come then.
        let mut wrong: Option<(String, Instant)> = None;
        loop {
            let mut events = [EpollEvent::empty(); 64];
            let timeout = EpollTimeout::from(50u8);
            let ready = self.epoll.wait(&mut events, timeout)?;
            for event in &events[..ready] {
                let at = event.data() as usize;
                let count = read(&self.sessions[at].stream, &mut buffer)
                    .with_context(|| format!("session of {}", self.sessions[at].peer.address))?;
                let received = &mut self.received[at];
                let done = reached(received, awaited);
                let updates = received.take(&buffer[..count])?;
                if self.receivers.contains(&at) {
                    if updates {
                        last = Instant::now();
                    }
                    if !done && reached(received, awaited) {
                        waiting -= 1;
                    }
                }
            }
            let now = Instant::now();
            if now - kept_alive > self.keep_alive {
                kept_alive = now;
                for session in self.sessions {
                    session.keep_alive()?;
                }
            }
            let mut over = match awaited {
                Awaited::Time(time) => now - start > time,
                _ => {
                    let looked_at = wrong.as_ref().is_some_and(|(_, at)| *at == last);
                    waiting == 0 && now - last > QUIET && !looked_at
                }
            };
            if over && let Some(expected) = expected {
                wrong = self.check(expected)?.map(|wrong| (wrong, last));
                over = wrong.is_none();
            }
            let unfinished = !over && now - start > patience && now - last < STALLED;
            if over || unfinished {
                let octets = self.received[self.receivers.clone()]
                    .iter()
                    .map(|received| received.octets)
                    .sum();
                return Ok(Outcome {
                    time: last - start,
                    octets,
                    unfinished,
                });
            }
            if now - start > patience {
                if let Some((wrong, _)) = wrong {
                    bail!("not over after {patience:?}: {wrong}");
                }
                let counts: Vec<String> = self.received[self.receivers.clone()]
                    .iter()
                    .take(4)
                    .map(|one| format!("{}+ {}-", one.announced, one.withdrawn))
                    .collect();
                bail!(
                    "not over after {patience:?}; received {}",
                    counts.join(", ")
                );
            }
        }
    }

    /// Brings the first receiver's table up to date and says what is wrong with it.
    ///
    /// # Errors
    /// UPDATEs that cannot be read, and prefixes told of more than once where that is not allowed.
    fn check(&mut self, expected: Expected<'_>) -> Result<Option<String>> {
        let received = &mut self.received[self.receivers.start];
        let mut octets = received.kept.replace(Vec::new()).unwrap_or_default();
        let whole = octets.len() - received.rest.len();
        let mut rest = &octets[..whole];
        while let Some(header) = rest.get(..HEADER_LEN) {
            let length = usize::from(u16::from_be_bytes([header[16], header[17]]));
            let (message, tail) = rest.split_at(length);
            rest = tail;
            if header[18] != MessageType::Update as u8 {
                continue;
            }
            let update = UpdateView::split(&message[HEADER_LEN..])
                .map_err(|error| anyhow::anyhow!("{error}"))?;
            for nlri in NlriIter::<Ipv4Net>::new(update.withdrawn, false) {
                let prefix = nlri?.prefix;
                self.table.remove(&prefix);
                *self.told.entry(prefix).or_default() += 1;
            }
            for nlri in NlriIter::<Ipv4Net>::new(update.nlri, false) {
                let prefix = nlri?.prefix;
                self.table.insert(prefix);
                *self.told.entry(prefix).or_default() += 1;
            }
        }
        octets.drain(..whole);
        received.kept = Some(octets);
        if expected.once
            && let Some((prefix, times)) = self.told.iter().find(|(_, times)| **times > 1)
        {
            bail!("{prefix} came {times} times");
        }
        let lost = expected
            .table
            .iter()
            .find(|prefix| !self.table.contains(prefix));
        let (held, count) = (self.table.len(), expected.table.len());
        Ok(match lost {
            Some(prefix) => Some(format!("{prefix} is lost")),
            None if held != count => Some(format!("{held} prefixes held, {count} expected")),
            None => None,
        })
    }
}

fn reached(received: &Received, awaited: Awaited) -> bool {
    match awaited {
        Awaited::Announced(count) => received.announced >= count,
        Awaited::Withdrawn(count) => received.withdrawn >= count,
        Awaited::Time(_) => false,
    }
}

fn read(mut stream: &TcpStream, buffer: &mut [u8]) -> Result<usize> {
    let count = stream.read(buffer)?;
    ensure!(count > 0, "the speaker closed it");
    Ok(count)
}
