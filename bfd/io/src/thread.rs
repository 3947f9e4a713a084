//! The loop around all sessions.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher as _;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use tokio::sync::mpsc::{self, error::TrySendError};
use weft_bfd::{Config, Engine, Received, SessionId};

use crate::links::Links;
use crate::pace::{BURST, Pace};
use crate::sockets::{Receivers, Sender};
use crate::sys::{self, Batch, Wake};
use crate::{Command, Lateness, Report, Scheduling, SessionSnapshot, Snapshot};

/// What could not be opened or told is tried again after these.
const RETRY: Duration = Duration::from_secs(1);
const TELL_AGAIN: Duration = Duration::from_millis(10);
/// A goodbye is sent so often, since packets are lost, with so long in between.
const GOODBYES: usize = 3;
const BETWEEN_GOODBYES: Duration = Duration::from_millis(5);
/// The kernel's time stamps are trusted to so much before the socket was last empty.
const STAMP_SLACK: Duration = Duration::from_millis(1);
/// The loop needs little; pages of it that were never used cost a fault when they are.
const STACK: usize = 256 * 1024;

struct Thread {
    engine: Engine,
    receivers: Receivers,
    /// By the number of the session.
    senders: Vec<Option<Sender>>,
    links: Links,
    batch: Batch,
    commands: mpsc::Receiver<Command>,
    wake: Arc<Wake>,
    reports: mpsc::Sender<Report>,
    /// Told before anything else.
    scheduling: Scheduling,
    started: bool,
    lateness: Lateness,
    /// What sessions there are to be.
    wanted: Vec<Config>,
    problem: Option<String>,
    problem_told: Option<String>,
    retry_at: Option<Instant>,
    tell_at: Option<Instant>,
    pace: Pace,
    /// When nothing was left to be read.
    drained: Instant,
}

/// Starts the thread.
pub(crate) fn start(
    receivers: Receivers,
    commands: mpsc::Receiver<Command>,
    wake: Arc<Wake>,
    reports: mpsc::Sender<Report>,
) -> io::Result<()> {
    // A descriptor for each session; where there are not so many, those without one say so.
    if let Ok((now, most)) = getrlimit(Resource::RLIMIT_NOFILE)
        && now < most
    {
        let _ = setrlimit(Resource::RLIMIT_NOFILE, most, most);
    }
    let thread = std::thread::Builder::new()
        .name("weft-bfd".into())
        .stack_size(STACK);
    thread.spawn(move || Thread::new(receivers, commands, wake, reports).run())?;
    Ok(())
}

/// Numbers that nobody outside can foresee: a keyed hash of a counter.
fn random() -> Box<dyn FnMut() -> u64 + Send> {
    let (key, mut counter) = (RandomState::new(), 0u64);
    Box::new(move || {
        counter += 1;
        key.hash_one(counter)
    })
}

impl Thread {
    fn new(
        receivers: Receivers,
        commands: mpsc::Receiver<Command>,
        wake: Arc<Wake>,
        reports: mpsc::Sender<Report>,
    ) -> Self {
        Self {
            engine: Engine::new(random()),
            receivers,
            senders: Vec::new(),
            links: Links::new(),
            batch: Batch::new(),
            commands,
            wake,
            reports,
            scheduling: Scheduling::take(),
            started: false,
            lateness: Lateness::default(),
            wanted: Vec::new(),
            problem: None,
            problem_told: None,
            retry_at: None,
            tell_at: None,
            pace: Pace::default(),
            drained: Instant::now(),
        }
    }

    fn run(mut self) {
        loop {
            self.wait();
            let now = Instant::now();
            if self.pace.resting(now).is_none() {
                if let Some(due) = self.engine.poll_timeout().filter(|due| *due <= now) {
                    self.lateness.count(now - due);
                }
                // What has come is read before anybody is judged by his silence.
                self.receive();
                self.engine.handle_timeout(Instant::now());
            }
            match self.commands.try_recv() {
                Ok(Command::Set(sessions)) => self.set(sessions),
                Ok(Command::Snapshot(reply)) => {
                    // Who asked may have gone.
                    let _ = reply.send(self.snapshot());
                }
                Ok(Command::Stop(done)) => {
                    self.say_goodbye();
                    let _ = done.send(());
                    return;
                }
                Err(mpsc::error::TryRecvError::Empty) => {}
                // The owner has let go of the last handle.
                Err(mpsc::error::TryRecvError::Disconnected) => return,
            }
            if self.retry_at.take_if(|due| *due <= now).is_some() {
                self.open_receivers();
            }
            self.transmit();
            self.tell();
        }
    }

    /// Sleeps until a packet comes, a command, or something is due.
    fn wait(&mut self) {
        let now = Instant::now();
        let resting = self.pace.resting(now);
        let due = [
            resting.or_else(|| self.engine.poll_timeout()),
            self.retry_at,
            self.tell_at,
        ];
        let due = due.into_iter().flatten().min();
        let timeout = due.map(|due| due.saturating_duration_since(now));
        // A command that came behind the last one has woken already.
        if !self.commands.is_empty() {
            return;
        }
        let mut fds = [-1; 5];
        let readable = self.receivers.raw().filter(|_| resting.is_none());
        let wanted = readable.chain([self.wake.raw()]);
        for (place, fd) in fds.iter_mut().zip(wanted) {
            *place = fd;
        }
        sys::wait(&fds, timeout);
        self.wake.clear();
    }

    /// Reads what has come.
    fn receive(&mut self) {
        let now = Instant::now();
        let real_time = sys::real_time();
        let longest = now.saturating_duration_since(self.drained) + STAMP_SLACK;
        let mut read = 0;
        for (place, socket) in self.receivers.iter() {
            loop {
                let count = self.batch.receive(socket);
                read += count;
                for at in 0..count {
                    let Some(datagram) = self.batch.datagram(at) else {
                        continue;
                    };
                    // Without a stamp, or where the clock was set meanwhile, it came now.
                    let age = datagram
                        .stamp
                        .and_then(|stamp| real_time.checked_sub(stamp));
                    let age = age.filter(|age| *age <= longest).unwrap_or_default();
                    let (from, interface) = (datagram.from, datagram.interface);
                    let received = Received {
                        astray: !place.multihop && !self.links.lead(from, interface, now),
                        peer: datagram.from,
                        multihop: place.multihop,
                        ttl: datagram.ttl,
                        at: now.checked_sub(age).unwrap_or(now),
                        octets: datagram.octets,
                    };
                    // What is discarded has been counted.
                    let _ = self.engine.handle_packet(&received, now);
                }
                if count < sys::BATCH || read >= BURST {
                    break;
                }
            }
        }
        if read < BURST {
            self.drained = now;
        }
        self.pace.count(read, Instant::now());
    }

    fn set(&mut self, sessions: Vec<Config>) {
        let numbers = self.engine.set(&sessions, Instant::now());
        for (number, config) in numbers.iter().zip(&sessions) {
            let index = number.index();
            if self.senders.len() <= index {
                self.senders.resize_with(index + 1, || None);
            }
            let sender = &mut self.senders[index];
            if !sender.as_ref().is_some_and(|sender| sender.fits(config)) {
                *sender = Some(Sender::open(config));
            }
        }
        self.links.set(&sessions);
        self.wanted = sessions;
        self.open_receivers();
    }

    fn open_receivers(&mut self) {
        self.problem = self.receivers.set(&self.wanted).err();
        self.retry_at = self.problem.as_ref().map(|_| Instant::now() + RETRY);
    }

    fn sender(&mut self, session: SessionId) -> Option<&mut Sender> {
        self.senders.get_mut(session.index())?.as_mut()
    }

    fn transmit(&mut self) {
        while let Some(transmit) = self.engine.poll_transmit(Instant::now()) {
            if let Some(sender) = self.sender(transmit.session) {
                sender.send(&transmit.octets);
            }
        }
    }

    /// Hands on what happened, as far as there is room.
    fn tell(&mut self) {
        self.tell_at = None;
        if !self.started {
            let report = Report::Started(self.scheduling);
            self.started = self.reports.try_send(report).is_ok();
        }
        if self.problem != self.problem_told {
            if let Some(problem) = self.problem.clone() {
                // What is not told here is in the snapshot.
                let _ = self.reports.try_send(Report::Problem(problem));
            }
            self.problem_told.clone_from(&self.problem);
        }
        while self.engine.has_event() {
            match self.reports.try_reserve() {
                Ok(permit) => {
                    if let Some(event) = self.engine.poll_event() {
                        permit.send(Report::Session(event));
                    }
                }
                Err(TrySendError::Full(())) => {
                    self.tell_at = Some(Instant::now() + TELL_AGAIN);
                    return;
                }
                // Nobody wants to know.
                Err(TrySendError::Closed(())) => drop(self.engine.poll_event()),
            }
        }
    }

    fn snapshot(&self) -> Snapshot {
        let sessions = self.engine.sessions().map(|(session, status)| {
            let sender = self.senders.get(session.index());
            let sender = sender.and_then(Option::as_ref);
            SessionSnapshot {
                status,
                unsent: sender.map_or(0, |sender| sender.unsent),
                problem: sender.and_then(Sender::problem),
            }
        });
        Snapshot {
            scheduling: self.scheduling,
            sessions: sessions.collect(),
            discarded: self.engine.discarded(),
            dropped: self.receivers.dropped(),
            lateness: self.lateness,
            problem: self.problem.clone(),
        }
    }

    /// Tells every neighbour that its session is administratively down.
    fn say_goodbye(&mut self) {
        self.engine.set(&[], Instant::now());
        let mut goodbyes = Vec::new();
        while let Some(transmit) = self.engine.poll_transmit(Instant::now()) {
            goodbyes.push(transmit);
        }
        for turn in 0..GOODBYES {
            if turn > 0 {
                std::thread::sleep(BETWEEN_GOODBYES);
            }
            for transmit in &goodbyes {
                if let Some(sender) = self.sender(transmit.session) {
                    sender.send(&transmit.octets);
                }
            }
        }
    }
}
