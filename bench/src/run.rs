//! The runs: which loads, who sends and receives, and what is measured.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use ipnet::Ipv4Net;
use serde::Serialize;
use weft_load::{self as load, Routes, Sender};

use crate::monitor::{Awaited, Expected, Monitor, Outcome};
use crate::session::{Peer, Session};
use crate::speaker::{ADDRESS, ASN, Kind, Process, Setup, Usage};

/// The slowest speaker takes a minute for a million prefixes.
const PATIENCE: Duration = Duration::from_secs(240);
/// How long a speaker may take to give memory back.
const SETTLE: Duration = Duration::from_secs(30);
/// Resident memory behind the withdrawal, to that before the routes.
pub(crate) const MEMORY_BEHIND: &str = "resident behind the withdrawal";
const IDLE: Duration = Duration::from_secs(10);

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Run {
    #[value(name = "internet-100k")]
    Internet100k,
    /// With churn and withdrawal of everything behind it.
    #[value(name = "internet-1m")]
    Internet1m,
    /// The table that stands in for the real one where that is absent: both have to give like ratios.
    #[value(name = "generated-1m")]
    Generated1m,
    #[value(name = "tenant-100k")]
    Tenant100k,
    #[value(name = "tenant-1m")]
    Tenant1m,
    /// Four senders of the same 250,000 prefixes.
    #[value(name = "senders-4")]
    Senders4,
    /// 200 clients of a route reflector.
    #[value(name = "fan-out")]
    FanOut,
    /// 1,000 sessions that only live.
    #[value(name = "idle-1000")]
    Idle1000,
    /// The same table from one neighbour and from eight.
    #[value(name = "memory")]
    Memory,
}

impl Run {
    /// Long for all but the fastest.
    pub(crate) fn is_long(self) -> bool {
        !matches!(self, Self::Internet100k | Self::Tenant100k)
    }

    /// Only about Weft and BIRD.
    pub(crate) fn is_check(self) -> bool {
        self == Self::Generated1m
    }
}

/// One measurement.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Sample {
    /// Which row of the table.
    pub(crate) row: &'static str,
    /// Seconds, share of a core, or octets a route: what the row is about.
    pub(crate) value: f64,
    /// Peak resident memory of the speaker, octets.
    pub(crate) peak: u64,
    /// Resident memory behind it, octets.
    pub(crate) resident: u64,
    /// The same before anything was sent.
    pub(crate) idle: u64,
    /// Processor time of the speaker, seconds.
    pub(crate) cpu: f64,
    /// Octets that the receivers got.
    pub(crate) octets: usize,
    /// Whether it was given up while UPDATEs still came: `value` is a lower bound.
    pub(crate) unfinished: bool,
    /// Octets a second at all receivers together; 0 where no time was measured.
    pub(crate) rate: f64,
}

fn sender(at: usize, reflector: bool) -> Peer {
    Peer {
        address: Ipv4Addr::new(10, 255, 1, 1 + at as u8),
        asn: if reflector { ASN } else { 64_801 + at as u32 },
    }
}

fn receiver(at: usize, reflector: bool) -> Peer {
    Peer {
        address: Ipv4Addr::new(10, 255, 2 + (at / 200) as u8, 1 + (at % 200) as u8),
        asn: if reflector {
            ASN
        } else {
            4_200_000_000 + at as u32
        },
    }
}

/// A speaker with sessions to all neighbours.
struct Bench<'a> {
    process: &'a mut Process,
    sessions: &'a [Session],
    monitor: Monitor<'a>,
    idle: Usage,
}

/// Starts a speaker and brings the sessions up, senders first.
fn with_speaker<T>(
    kind: Kind,
    weft: &Path,
    peers: [&[Peer]; 2],
    setup: Setup,
    work: impl FnOnce(&mut Bench<'_>) -> Result<T>,
) -> Result<T> {
    let all = peers.concat();
    let mut process = Process::start(kind, weft, &all, setup)?;
    let address = SocketAddr::from((ADDRESS, 179));
    let keep_alive = setup.hold_time.map_or(Duration::from_secs(20), |time| {
        Duration::from_secs(u64::from(time) / 3)
    });
    let mut sessions: Vec<Session> = Vec::new();
    let mut kept_alive = Instant::now();
    for peer in &all {
        let session = Session::establish(*peer, address, setup.hold_time);
        sessions.push(session.with_context(|| process.log())?);
        if kept_alive.elapsed() > keep_alive {
            kept_alive = Instant::now();
            for session in &sessions {
                session.keep_alive()?;
            }
        }
    }
    process.find_children()?;
    let mut monitor = Monitor::new(&sessions, peers[1].len(), keep_alive)?;
    monitor.watch(
        Instant::now(),
        Awaited::Time(Duration::from_millis(500)),
        None,
        PATIENCE,
    )?;
    let idle = process.usage()?;
    let mut bench = Bench {
        process: &mut process,
        sessions: &sessions,
        monitor,
        idle,
    };
    let result = work(&mut bench);
    if result.is_err() {
        bench.process.check()?;
    }
    result.with_context(|| process.log())
}

impl Bench<'_> {
    /// Sends a stream a sender, and waits for the receivers.
    fn send(
        &mut self,
        streams: &[Vec<u8>],
        awaited: Awaited,
        expected: Option<Expected<'_>>,
    ) -> Result<Outcome> {
        let sessions = self.sessions;
        let monitor = &mut self.monitor;
        std::thread::scope(|scope| {
            let start = Instant::now();
            let senders: Vec<_> = sessions
                .iter()
                .zip(streams)
                .map(|(session, stream)| scope.spawn(|| session.send(stream)))
                .collect();
            let outcome = monitor.watch(start, awaited, expected, PATIENCE);
            let over = matches!(&outcome, Ok(outcome) if !outcome.unfinished);
            if !over {
                for session in sessions {
                    // A sender must not wait for a speaker that does not read.
                    let _ = session.stream.shutdown(std::net::Shutdown::Both);
                }
            }
            for sender in senders {
                let sent = sender.join().expect("senders do not panic");
                if over {
                    sent?;
                }
            }
            outcome
        })
    }

    /// Waits until the speaker is nearly as small as it was before the routes, or some time has passed.
    fn settle(&mut self) -> Result<Usage> {
        let end = Instant::now() + SETTLE;
        loop {
            let usage = self.process.usage()?;
            if usage.resident * 100 <= self.idle.resident * 110 || Instant::now() > end {
                return Ok(usage);
            }
            let pause = Awaited::Time(Duration::from_secs(1));
            self.monitor.watch(Instant::now(), pause, None, PATIENCE)?;
        }
    }

    fn sample(&self, row: &'static str, value: f64, octets: usize) -> Result<Sample> {
        let usage = self.process.usage()?;
        Ok(Sample {
            row,
            value,
            peak: usage.peak,
            resident: usage.resident,
            idle: self.idle.resident,
            cpu: usage.cpu - self.idle.cpu,
            octets,
            unfinished: false,
            rate: 0.0,
        })
    }
}

/// Where loads come from: real tables, or generated ones.
pub(crate) struct Loads {
    data: std::path::PathBuf,
}

impl Loads {
    pub(crate) fn new(data: &Path) -> Self {
        Self { data: data.into() }
    }

    fn internet(&self, count: usize) -> Result<Routes> {
        match load::internet_from(&self.data, count)? {
            Some(routes) => Ok(routes),
            None => Ok(load::internet(count)),
        }
    }
}

/// One of the runs, ready to be done with any speaker.
pub(crate) struct Prepared {
    run: Run,
    rows: [&'static str; 3],
    senders: Vec<Peer>,
    receivers: Vec<Peer>,
    setup: Setup,
    streams: Vec<Vec<u8>>,
    prefixes: Vec<Ipv4Net>,
    churn: Option<(Vec<u8>, usize)>,
    withdraw: Option<Vec<u8>>,
}

const PLAIN: Setup = Setup {
    reflector: false,
    hold_time: None,
};

impl Prepared {
    pub(crate) fn new(run: Run, loads: &Loads) -> Result<Self> {
        let (rows, routes, senders, receivers, setup) = match run {
            Run::Internet100k => (
                ["internet 100k", "", ""],
                loads.internet(100_000)?,
                1,
                1,
                PLAIN,
            ),
            Run::Internet1m => (
                ["internet 1M", "churn 100k after 1M", "withdraw 1M"],
                loads.internet(1_000_000)?,
                1,
                1,
                PLAIN,
            ),
            Run::Generated1m => (
                ["internet 1M, generated", "", ""],
                load::internet(1_000_000),
                1,
                1,
                PLAIN,
            ),
            Run::Tenant100k => (["tenant 100k", "", ""], load::tenant(100_000), 1, 1, PLAIN),
            Run::Tenant1m => (["tenant 1M", "", ""], load::tenant(1_000_000), 1, 1, PLAIN),
            Run::Senders4 => (
                ["4 senders, same 250k", "", ""],
                loads.internet(250_000)?,
                4,
                1,
                PLAIN,
            ),
            Run::FanOut => (
                ["fan-out 100k to 200 clients", "", ""],
                loads.internet(100_000)?,
                1,
                200,
                Setup {
                    reflector: true,
                    hold_time: None,
                },
            ),
            Run::Idle1000 => (
                ["1,000 idle sessions", "", ""],
                Routes(Vec::new()),
                0,
                1000,
                Setup {
                    reflector: false,
                    hold_time: Some(9),
                },
            ),
            Run::Memory => (
                [
                    "memory a route, 1 neighbour",
                    "memory a route, 8 neighbours",
                    "",
                ],
                loads.internet(250_000)?,
                8,
                1,
                PLAIN,
            ),
        };
        let senders: Vec<Peer> = (0..senders).map(|at| sender(at, setup.reflector)).collect();
        let mut prefixes: Vec<Ipv4Net> = routes.prefixes().collect();
        let several = senders.len() > 1;
        let streams = senders
            .iter()
            .zip(0..)
            .map(|(peer, at)| {
                let sender = Sender {
                    address: peer.address,
                    asn: (!setup.reflector).then_some(peer.asn),
                };
                let mut stream = routes.announce(sender);
                if several {
                    // Behind everything that this sender says: what tells the receivers that it was heard.
                    let last = Ipv4Net::new_assert(Ipv4Addr::new(203, 0, 113, at), 32);
                    let attributes = routes.0[0].0.clone();
                    stream.extend(Routes(vec![(attributes, vec![last])]).announce(sender));
                    prefixes.push(last);
                }
                stream
            })
            .collect();
        let whole = run == Run::Internet1m;
        let churn = whole.then(|| {
            let churn = routes.churn(100_000);
            let sender = Sender {
                address: senders[0].address,
                asn: Some(senders[0].asn),
            };
            (churn.announce(sender), churn.prefixes().count())
        });
        Ok(Self {
            run,
            rows,
            receivers: (0..receivers)
                .map(|at| receiver(at, setup.reflector))
                .collect(),
            senders,
            setup,
            streams,
            prefixes,
            churn,
            withdraw: whole.then(|| routes.withdraw()),
        })
    }

    /// Does it with a speaker. The first time it is waited for that the speaker gives memory back.
    pub(crate) fn measure(&self, kind: Kind, weft: &Path, first: bool) -> Result<Vec<Sample>> {
        match self.run {
            Run::Idle1000 => self.idle(kind, weft),
            Run::Memory => Ok(vec![
                self.memory(kind, weft, 1, self.rows[0])?,
                self.memory(kind, weft, 8, self.rows[1])?,
            ]),
            _ => self.load(kind, weft, first),
        }
    }

    fn load(&self, kind: Kind, weft: &Path, first: bool) -> Result<Vec<Sample>> {
        let peers = [&self.senders[..], &self.receivers[..]];
        with_speaker(kind, weft, peers, self.setup, |bench| {
            let mut samples = Vec::new();
            // The relay passes every sender's routes on.
            let expected = |table, once| (kind != Kind::Relay).then_some(Expected { table, once });
            let awaited = Awaited::Announced(self.prefixes.len());
            let table = expected(&self.prefixes[..], self.senders.len() == 1);
            let outcome = bench.send(&self.streams, awaited, table)?;
            let mut add = |bench: &Bench<'_>, row, outcome: Outcome| -> Result<()> {
                let sample = bench.sample(row, outcome.time.as_secs_f64(), outcome.octets)?;
                let rate = sample.octets as f64 / sample.value;
                let unfinished = outcome.unfinished;
                samples.push(Sample {
                    rate,
                    unfinished,
                    ..sample
                });
                Ok(())
            };
            add(bench, self.rows[0], outcome)?;
            if outcome.unfinished {
                return Ok(samples);
            }
            if let Some((churn, count)) = &self.churn {
                let table = expected(&self.prefixes[..], true);
                let awaited = Awaited::Announced(*count);
                let outcome = bench.send(std::slice::from_ref(churn), awaited, table)?;
                add(bench, self.rows[1], outcome)?;
            }
            if let Some(withdraw) = &self.withdraw {
                let awaited = Awaited::Withdrawn(self.prefixes.len());
                let table = expected(&[], true);
                let outcome = bench.send(std::slice::from_ref(withdraw), awaited, table)?;
                add(bench, self.rows[2], outcome)?;
                if first && kind != Kind::Relay {
                    let behind = bench.settle()?;
                    samples.extend(samples.last().cloned().map(|sample| Sample {
                        row: MEMORY_BEHIND,
                        value: behind.resident as f64 / bench.idle.resident as f64,
                        resident: behind.resident,
                        ..sample
                    }));
                }
            }
            Ok(samples)
        })
    }

    fn idle(&self, kind: Kind, weft: &Path) -> Result<Vec<Sample>> {
        let peers = [&[][..], &self.receivers[..]];
        with_speaker(kind, weft, peers, self.setup, |bench| {
            let before = bench.process.usage()?.cpu;
            let start = Instant::now();
            bench
                .monitor
                .watch(start, Awaited::Time(IDLE), None, PATIENCE)?;
            let share = (bench.process.usage()?.cpu - before) / start.elapsed().as_secs_f64();
            Ok(vec![bench.sample(self.rows[0], share, 0)?])
        })
    }

    fn memory(&self, kind: Kind, weft: &Path, senders: usize, row: &'static str) -> Result<Sample> {
        let peers = [&self.senders[..senders], &self.receivers[..]];
        // The last prefix of each other sender does not come.
        let count = self.prefixes.len() - self.senders.len() + senders;
        with_speaker(kind, weft, peers, self.setup, |bench| {
            let expected = Expected {
                table: &self.prefixes[..count],
                once: false,
            };
            let awaited = Awaited::Announced(count);
            let outcome = bench.send(&self.streams[..senders], awaited, Some(expected))?;
            let sample = bench.sample(row, 0.0, outcome.octets)?;
            let value = sample.resident.saturating_sub(sample.idle) as f64 / count as f64;
            Ok(Sample {
                value,
                unfinished: outcome.unfinished,
                ..sample
            })
        })
    }
}
