//! The state machine of one session (RFC 5880 sections 6.2 and 6.8).
//!
//! ```text
//!                              +--+
//!                              |  | UP, ADMIN DOWN, TIMER
//!                              |  V
//!                      DOWN  +------+  INIT
//!               +------------|      |------------+
//!               |            | DOWN |            |
//!               |  +-------->|      |<--------+  |
//!               |  |         +------+         |  |
//!               |  |                          |  |
//!               |  |               ADMIN DOWN,|  |
//!               |  |ADMIN DOWN,          DOWN,|  |
//!               |  |TIMER                TIMER|  |
//!               V  |                          |  V
//!             +------+                      +------+
//!        +----|      |                      |      |----+
//!    DOWN|    | INIT |--------------------->|  UP  |    |INIT, UP
//!        +--->|      | INIT, UP             |      |<---+
//!             +------+                      +------+
//! ```

#[cfg(test)]
mod tests;
mod types;

use std::time::{Duration, Instant};

use crate::packet::{Diagnostic, Packet, State};

pub use types::{Config, Counters, Down, DownReason, Path, Status};

/// While a session is not Up it sends no more often (RFC 5880 section 6.8.3).
const SLOW: u32 = 1_000_000;
/// Between the end of a Poll Sequence and the next one: longer than a round trip, so that a late answer to the one is not taken for an
/// answer to the other (RFC 5880 section 6.5).
const POLL_GAP: Duration = Duration::from_secs(1);

/// Silence that is a failure at the latest where the neighbour may have lost the session: three packets of one that sends each minute.
const DOUBT: Duration = Duration::from_secs(180);

/// Random numbers, evenly distributed, that nobody outside can foresee.
pub(crate) type Random = dyn FnMut() -> u64 + Send;

/// What the neighbour's latest packet said.
#[derive(Clone, Copy, Debug)]
struct Remote {
    state: State,
    diagnostic: Diagnostic,
    discriminator: u32,
    desired_min_tx: u32,
    required_min_rx: u32,
    multiplier: u8,
    demand: bool,
    independent: bool,
}

/// A change of state that somebody has to know of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Transition {
    Up,
    Down(Down),
}

/// One session. After each `handle_*`: [`Session::next_packet`] until there is none, then [`Session::due`].
#[derive(Debug)]
pub(crate) struct Session {
    config: Config,
    state: State,
    since: Option<Instant>,
    discriminator: u32,
    diagnostic: Diagnostic,
    remote: Remote,
    /// bfd.DesiredMinTxInterval: what packets say.
    desired_min_tx: u32,
    /// The same as it is sent by: an increase waits for the end of a Poll Sequence.
    sent_min_tx: u32,
    /// bfd.RequiredMinRxInterval: what packets say.
    required_min_rx: u32,
    /// The same as silence is judged by: a decrease waits for the end of a Poll Sequence.
    judged_min_rx: u32,
    polling: bool,
    /// Another Poll Sequence is to follow the present one.
    poll_again: bool,
    poll_at: Option<Instant>,
    poll_ended: Option<Instant>,
    last_sent: Option<Instant>,
    last_received: Option<Instant>,
    transmit_at: Option<Instant>,
    detect_at: Option<Instant>,
    /// Since the last packet the Detection Time has been extended.
    extended: bool,
    /// A periodic packet, or one with news, is to be sent.
    owes_packet: bool,
    /// An answer to a Poll is to be sent.
    owes_final: bool,
    down: Option<Down>,
    counters: Counters,
}

impl Session {
    /// One that is Down, and sends its first packet at once unless it is passive.
    pub(crate) fn new(config: Config, discriminator: u32, now: Instant) -> Self {
        let interval = config.interval_us();
        let mut session = Self {
            config,
            state: State::Down,
            since: None,
            discriminator,
            diagnostic: Diagnostic::NONE,
            remote: Remote {
                state: State::Down,
                diagnostic: Diagnostic::NONE,
                discriminator: 0,
                desired_min_tx: 0,
                required_min_rx: 1,
                multiplier: 0,
                demand: false,
                independent: false,
            },
            desired_min_tx: interval.max(SLOW),
            sent_min_tx: interval.max(SLOW),
            required_min_rx: interval,
            judged_min_rx: interval,
            polling: false,
            poll_again: false,
            poll_at: None,
            poll_ended: None,
            last_sent: None,
            last_received: None,
            transmit_at: None,
            detect_at: None,
            extended: false,
            owes_packet: false,
            owes_final: false,
            down: None,
            counters: Counters::default(),
        };
        session.transmit_at = session.is_periodic().then_some(now);
        session
    }

    pub(crate) fn config(&self) -> &Config {
        &self.config
    }

    pub(crate) fn discriminator(&self) -> u32 {
        self.discriminator
    }

    pub(crate) fn state(&self) -> State {
        self.state
    }

    /// When [`Session::handle_timeout`] is due.
    pub(crate) fn due(&self) -> Option<Instant> {
        let deadlines = [self.transmit_at, self.detect_at, self.poll_at];
        deadlines.into_iter().flatten().min()
    }

    /// A packet is to be sent now.
    pub(crate) fn owes(&self) -> bool {
        self.owes_packet || self.owes_final
    }

    pub(crate) fn status(&self) -> Status {
        let us = |us: u32| Duration::from_micros(u64::from(us));
        Status {
            config: self.config,
            state: self.state,
            remote_state: self.remote.state,
            since: self.since,
            diagnostic: self.diagnostic,
            remote_diagnostic: self.remote.diagnostic,
            down: self.down,
            discriminator: self.discriminator,
            remote_discriminator: self.remote.discriminator,
            transmit_interval: us(self.transmit_interval()),
            detection_time: self.detection_time(),
            remote_desired_min_tx: us(self.remote.desired_min_tx),
            remote_required_min_rx: us(self.remote.required_min_rx),
            remote_multiplier: self.remote.multiplier,
            remote_demand: self.remote.demand,
            remote_independent: self.remote.independent,
            counters: self.counters,
        }
    }

    /// Periodic packets are sent (RFC 5880 section 6.8.7).
    fn is_periodic(&self) -> bool {
        let waits = self.config.passive && self.remote.discriminator == 0;
        let both_up = self.state == State::Up && self.remote.state == State::Up;
        let demanded = self.remote.demand && both_up && !self.polling;
        !waits && !demanded && self.remote.required_min_rx != 0
    }

    /// Microseconds between periodic packets, before jitter.
    fn transmit_interval(&self) -> u32 {
        self.sent_min_tx.max(self.remote.required_min_rx)
    }

    /// Microseconds between the neighbour's packets.
    fn receive_interval(&self) -> u32 {
        self.judged_min_rx.max(self.remote.desired_min_tx)
    }

    /// RFC 5880 section 6.8.4.
    fn detection_time(&self) -> Duration {
        let interval = Duration::from_micros(u64::from(self.receive_interval()));
        interval * u32::from(self.remote.multiplier)
    }

    /// RFC 5880 section 6.8.7: up to 25 % less, and at least 10 % less where one lost packet is a failure.
    fn jittered(&self, random: &mut Random) -> Duration {
        const PARTS: u64 = 100_000;
        let least = if self.config.multiplier == 1 {
            PARTS / 10
        } else {
            0
        };
        let less = least + random() % (PARTS / 4 - least + 1);
        let interval = u64::from(self.transmit_interval());
        Duration::from_micros(interval * (PARTS - less) / PARTS)
    }

    /// The time of the next periodic packet, after what it follows from has changed.
    fn reschedule(&mut self, now: Instant, random: &mut Random) {
        self.transmit_at = self.is_periodic().then(|| {
            let next = self.last_sent.map(|sent| sent + self.jittered(random));
            next.map_or(now, |next| next.max(now))
        });
    }

    /// What packets say has changed: one goes before the next is due (RFC 5880 section 6.8.7).
    fn announce(&mut self) {
        self.owes_packet |= self.is_periodic();
    }

    fn begin_poll(&mut self, now: Instant) {
        if self.remote.discriminator == 0 {
            return;
        }
        if self.polling {
            self.poll_again = true;
            return;
        }
        let earliest = self.poll_ended.map(|ended| ended + POLL_GAP);
        match earliest.filter(|earliest| *earliest > now) {
            Some(earliest) => self.poll_at = Some(earliest),
            None => {
                self.poll_at = None;
                self.polling = true;
            }
        }
    }

    /// The neighbour has what it is to know: intervals that waited for that are in force.
    fn end_poll(&mut self, now: Instant) {
        self.polling = false;
        self.poll_ended = Some(now);
        if std::mem::take(&mut self.poll_again) {
            self.begin_poll(now);
        } else {
            self.settle_intervals();
        }
    }

    fn settle_intervals(&mut self) {
        self.sent_min_tx = self.desired_min_tx;
        self.judged_min_rx = self.required_min_rx;
    }

    fn set_intervals(&mut self, now: Instant) {
        let interval = self.config.interval_us();
        let desired = match self.state {
            State::Up => interval,
            State::AdminDown | State::Down | State::Init => interval.max(SLOW),
        };
        let before = (self.desired_min_tx, self.required_min_rx);
        (self.desired_min_tx, self.required_min_rx) = (desired, interval);
        if self.state == State::Up {
            self.sent_min_tx = self.sent_min_tx.min(desired);
            self.judged_min_rx = self.judged_min_rx.max(interval);
        } else {
            self.settle_intervals();
        }
        if before != (desired, interval) {
            self.begin_poll(now);
        }
    }

    fn set_state(&mut self, state: State, diagnostic: Diagnostic, now: Instant) {
        if self.state == state {
            return;
        }
        if self.state == State::Up || state == State::Up {
            self.since = Some(now);
        }
        self.state = state;
        self.diagnostic = diagnostic;
        self.set_intervals(now);
        self.announce();
    }

    fn go_up(&mut self, now: Instant) -> Transition {
        // The reason of the last failure stays to be seen, here and at the other end (RFC 5880 section 6.8.1).
        self.set_state(State::Up, self.diagnostic, now);
        self.counters.ups += 1;
        Transition::Up
    }

    fn go_down(
        &mut self,
        state: State,
        (diagnostic, reason): (Diagnostic, DownReason),
        now: Instant,
    ) -> Option<Transition> {
        let was_up = self.state == State::Up;
        self.set_state(state, diagnostic, now);
        was_up.then(|| {
            let down = Down {
                reason,
                independent: self.remote.independent,
            };
            self.counters.downs += 1;
            self.down = Some(down);
            Transition::Down(down)
        })
    }

    /// Another configuration, with the same neighbour and kind of path: the session stays as it is.
    pub(crate) fn configure(&mut self, config: Config, now: Instant, random: &mut Random) {
        let news = self.config.multiplier != config.multiplier;
        self.config = config;
        self.set_intervals(now);
        // The neighbour slows down as soon as it hears of a longer interval: its silence is judged by that from now on.
        if let Some(heard) = self.last_received {
            let patience = heard + self.detection_time();
            self.detect_at = self.detect_at.map(|due| due.max(patience));
        }
        if news || self.polling {
            self.announce();
        }
        self.reschedule(now, random);
    }

    /// Holds the session down; the neighbour is told for as long as packets are asked for.
    pub(crate) fn disable(&mut self, now: Instant, random: &mut Random) -> Option<Transition> {
        if self.state == State::AdminDown {
            return None;
        }
        let why = (Diagnostic::ADMINISTRATIVELY_DOWN, DownReason::AdminDown);
        let transition = self.go_down(State::AdminDown, why, now);
        self.announce();
        self.reschedule(now, random);
        transition
    }

    /// Lets a session that was held down come up.
    pub(crate) fn enable(&mut self, now: Instant, random: &mut Random) {
        if self.state == State::AdminDown {
            self.set_state(State::Down, Diagnostic::NONE, now);
            self.reschedule(now, random);
        }
    }

    /// A packet of this session, which came at `at`, not later than `now` (RFC 5880 section 6.8.6).
    pub(crate) fn handle_packet(
        &mut self,
        packet: &Packet,
        at: Instant,
        now: Instant,
        random: &mut Random,
    ) -> Option<Transition> {
        self.counters.received += 1;
        let before = (self.is_periodic(), self.transmit_interval());
        self.remote = Remote {
            state: packet.state,
            diagnostic: packet.diagnostic,
            discriminator: packet.my_discriminator,
            desired_min_tx: packet.desired_min_tx,
            required_min_rx: packet.required_min_rx,
            multiplier: packet.multiplier,
            demand: packet.demand,
            independent: packet.independent,
        };
        if self.polling && packet.last {
            self.end_poll(now);
        }
        let at = self.last_received.map_or(at, |before| before.max(at));
        self.last_received = Some(at);
        self.extended = false;
        self.detect_at = Some(at + self.detection_time());
        let transition = self.judge(packet, now);
        if packet.poll && self.state != State::AdminDown {
            self.owes_final = true;
        }
        if before != (self.is_periodic(), self.transmit_interval()) {
            self.reschedule(now, random);
        }
        transition
    }

    fn judge(&mut self, packet: &Packet, now: Instant) -> Option<Transition> {
        let signaled = |reason| (Diagnostic::NEIGHBOR_SIGNALED_DOWN, reason);
        match (self.state, packet.state) {
            (State::AdminDown, _) => None,
            (State::Down, State::Down) => {
                self.set_state(State::Init, self.diagnostic, now);
                None
            }
            (State::Down, State::Init) | (State::Init, State::Init | State::Up) => {
                Some(self.go_up(now))
            }
            (State::Init | State::Up, State::AdminDown) => {
                self.go_down(State::Down, signaled(DownReason::NeighborAdminDown), now)
            }
            (State::Up, State::Down) => {
                let reason = DownReason::Neighbor(packet.diagnostic);
                self.go_down(State::Down, signaled(reason), now)
            }
            (State::Down, State::AdminDown | State::Up)
            | (State::Init, State::Down)
            | (State::Up, State::Init | State::Up) => None,
        }
    }

    /// Somebody says in the neighbour's name that it does not know this session, which is Up: it is heard soon, or has gone, however rarely
    /// it said that it sends.
    pub(crate) fn doubt(&mut self, now: Instant) {
        self.detect_at = self.detect_at.map(|due| due.min(now + DOUBT));
    }

    /// Does what is due.
    pub(crate) fn handle_timeout(
        &mut self,
        now: Instant,
        random: &mut Random,
    ) -> Option<Transition> {
        let mut transition = None;
        if let Some(due) = self.detect_at.filter(|due| *due <= now) {
            let before = (self.is_periodic(), self.transmit_interval());
            transition = self.detect(due, now);
            if before != (self.is_periodic(), self.transmit_interval()) {
                self.reschedule(now, random);
            }
        }
        if self.poll_at.take_if(|due| *due <= now).is_some() {
            self.begin_poll(now);
            self.announce();
        }
        if let Some(due) = self.transmit_at.filter(|due| *due <= now) {
            let lateness = now.saturating_duration_since(due);
            if lateness >= half(self.transmit_interval()) {
                self.counters.sent_late += 1;
            }
            self.transmit_at = None;
            self.announce();
        }
        transition
    }

    /// The Detection Time is over. Where this end looks so late that packets may have been lost on its side, it gives the neighbour as
    /// much time again, once.
    fn detect(&mut self, due: Instant, now: Instant) -> Option<Transition> {
        let lateness = now.saturating_duration_since(due);
        let heard = matches!(self.state, State::Init | State::Up);
        if heard && !self.extended && lateness >= half(self.receive_interval()) {
            self.extended = true;
            self.counters.late += 1;
            self.detect_at = Some(now + lateness.min(self.detection_time()));
            return None;
        }
        self.detect_at = None;
        self.polling = false;
        self.poll_again = false;
        self.poll_at = None;
        self.remote.discriminator = 0;
        // What it asked for is over with it (the initial value, RFC 5880 section 6.8.1): two ends that had been told to send nothing would be silent for ever.
        self.remote.required_min_rx = 1;
        if !heard {
            return None;
        }
        self.remote.state = State::Down;
        let heard_at = self.last_received.unwrap_or(now);
        let silence = now.saturating_duration_since(heard_at);
        let why = DownReason::Silence { silence };
        self.go_down(State::Down, (Diagnostic::DETECTION_TIME_EXPIRED, why), now)
    }

    /// The next packet to be sent now: an answer to a Poll first.
    pub(crate) fn next_packet(&mut self, now: Instant, random: &mut Random) -> Option<Packet> {
        let last = std::mem::take(&mut self.owes_final);
        if !last && !std::mem::take(&mut self.owes_packet) {
            return None;
        }
        self.counters.sent += 1;
        if !last {
            self.last_sent = Some(now);
            self.transmit_at = self.is_periodic().then(|| now + self.jittered(random));
        } else if !self.polling {
            // It says all that a periodic packet would.
            self.owes_packet = false;
            self.last_sent = Some(now);
            self.transmit_at = self.is_periodic().then(|| now + self.jittered(random));
        }
        Some(Packet {
            diagnostic: self.diagnostic,
            state: self.state,
            poll: self.polling && !last,
            last,
            // Whatever ends the control plane ends this too.
            independent: false,
            demand: false,
            multiplier: self.config.multiplier,
            my_discriminator: self.discriminator,
            your_discriminator: self.remote.discriminator,
            desired_min_tx: self.desired_min_tx,
            required_min_rx: self.required_min_rx,
            required_min_echo_rx: 0,
        })
    }

    /// How long the neighbour needs to notice that nothing more comes from here.
    pub(crate) fn farewell(&self) -> Duration {
        let interval = Duration::from_micros(u64::from(self.transmit_interval()));
        interval * u32::from(self.config.multiplier)
    }
}

/// Half of an interval in microseconds.
fn half(interval: u32) -> Duration {
    Duration::from_micros(u64::from(interval / 2))
}
