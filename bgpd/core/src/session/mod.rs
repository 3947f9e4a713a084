//! The session state machine of one neighbour (RFC 4271 section 8).
//!
//! ```text
//!            start            connected            OPEN              KEEPALIVE
//!   Idle ─────────► Connect ───────────► OpenSent ───────► OpenConfirm ───────► Established
//!    ▲                │  ▲                  │                  │                    │
//!    │         failed ▼  │ retry            │ error, NOTIFICATION, hold timer, close│
//!    │              Active ── accepted ──►──┘                  │                    │
//!    └──────────────────────── back-off ◄──────────────────────┴────────────────────┘
//! ```
//!
//! One neighbour may have two connections for a moment: ours and its own. Each has its own state from OpenSent on;
//! section 6.8 decides which one lives. What the neighbour as a whole is in is the furthest of them.
//!
//! Inputs are the methods `handle_*`, with the time; after each, call [`Session::poll_output`] until it is empty, then
//! [`Session::poll_timeout`] for the time of the next [`Session::handle_timeout`].

#[cfg(test)]
mod tests;
mod types;

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use weft_bgp_wire::{
    AddPathMode, Asn, Capability, Family, GracefulRestart, GracefulRestartFamily, MAX_MESSAGE_LEN,
    MAX_MESSAGE_LEN_EXTENDED, MessageType, Notification, Open, Role, RouteRefresh, RouterId, cease,
    encode_keepalive, error_code, fsm_error, open_error,
};

pub use types::*;

/// Hold time until the neighbour's OPEN is there: RFC 4271 section 8.2.2 suggests 4 minutes.
const OPEN_HOLD_TIME: Duration = Duration::from_secs(240);
/// A connection whose neighbour has not sent its OPEN for so long is held against no other one.
const SILENCE: Duration = Duration::from_secs(5);
/// First pause after a failed attempt; doubled with each further one.
const FIRST_RETRY: Duration = Duration::from_millis(500);
/// A neighbour that announced more prefixes than it may would do so again: there is no session for so long (RFC 4486 section 4).
const OVER_LIMIT_PAUSE: Duration = Duration::from_secs(300);
/// BFD flaps where it goes down this often, with no longer than this in between: from then on there is no session for a while, for twice as
/// long each time, and for less than the restart time that neighbours keep routes for.
const FLAPS: u32 = 3;
const FLAP_WINDOW: Duration = Duration::from_secs(300);
const FLAP_PAUSE: Duration = Duration::from_secs(5);
const FLAP_LONGEST_PAUSE: Duration = Duration::from_secs(60);

#[derive(Debug)]
enum Phase {
    OpenSent,
    OpenConfirm(Box<Negotiated>),
    Established(Box<Negotiated>),
}

#[derive(Debug)]
struct Connection {
    id: ConnectionId,
    /// We opened it.
    outgoing: bool,
    phase: Phase,
    hold_until: Option<Instant>,
    keepalive_at: Option<Instant>,
    /// When it was opened.
    since: Instant,
    /// When it was established.
    established: Option<Instant>,
}

/// Whether and when we open a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Dial {
    /// Not before an administrator says so.
    Stopped,
    /// Idle or Active until then.
    Wait { until: Instant, idle: bool },
    /// A connection is being opened.
    Connecting,
    /// A connection is there, or we are passive.
    Resting,
}

/// The session with one neighbour.
#[derive(Debug)]
pub struct Session {
    config: SessionConfig,
    dial: Dial,
    connections: Vec<Connection>,
    failures: u32,
    /// No session before: the neighbour announced more prefixes than it may, or BFD flaps.
    barred: Option<Instant>,
    /// How often BFD has ended a session in a row, and when it last did.
    bfd_downs: u32,
    bfd_down_at: Option<Instant>,
    /// State of a small generator for jitter; seeded from outside, so that runs replay.
    seed: u64,
    /// The R bit of our next OPEN, and the F bit of its families.
    restarting: bool,
    last_reason: DownReason,
    outputs: VecDeque<Output>,
}

impl Session {
    /// One that waits for [`Session::start`]. `seed` jitters its timers; `restarting` says that the process came up
    /// with the forwarding state of an earlier one (RFC 4724 section 4.1).
    pub fn new(config: SessionConfig, seed: u64, restarting: bool) -> Self {
        Self {
            config,
            dial: Dial::Stopped,
            connections: Vec::new(),
            failures: 0,
            barred: None,
            bfd_downs: 0,
            bfd_down_at: None,
            seed: seed | 1,
            restarting,
            last_reason: DownReason::NeverUp,
            outputs: VecDeque::new(),
        }
    }

    /// The state of the neighbour: the furthest of its connections.
    pub fn state(&self) -> State {
        let each = |connection: &Connection| match connection.phase {
            Phase::OpenSent => State::OpenSent,
            Phase::OpenConfirm(_) => State::OpenConfirm,
            Phase::Established(_) => State::Established,
        };
        self.connections
            .iter()
            .map(each)
            .max()
            .unwrap_or(match self.dial {
                Dial::Stopped | Dial::Wait { idle: true, .. } => State::Idle,
                Dial::Connecting => State::Connect,
                Dial::Wait { idle: false, .. } | Dial::Resting => State::Active,
            })
    }

    /// Why the session was last down.
    pub fn last_reason(&self) -> &DownReason {
        &self.last_reason
    }

    /// What was negotiated, where the session is established.
    pub fn negotiated(&self) -> Option<&Negotiated> {
        self.connections
            .iter()
            .find_map(|connection| match &connection.phase {
                Phase::Established(negotiated) => Some(&**negotiated),
                _ => None,
            })
    }

    fn position(&self, id: ConnectionId) -> Option<usize> {
        let mut connections = self.connections.iter();
        connections.position(|connection| connection.id == id)
    }

    /// Longest message that the neighbour may send on a connection.
    pub fn max_receive_len(&self, id: ConnectionId) -> usize {
        // RFC 8654 section 4: who offers it must be ready to receive it once both have.
        match self.position(id).map(|at| &self.connections[at].phase) {
            Some(Phase::OpenConfirm(negotiated) | Phase::Established(negotiated)) => {
                negotiated.max_message_len
            }
            _ => MAX_MESSAGE_LEN,
        }
    }

    /// True where routes may flow on this connection.
    pub fn is_established(&self, id: ConnectionId) -> bool {
        self.connections.iter().any(|connection| {
            connection.id == id && matches!(connection.phase, Phase::Established(_))
        })
    }

    /// The next thing to do.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// When [`Session::handle_timeout`] is due.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let dial = match self.dial {
            Dial::Wait { until, .. } => Some(until),
            Dial::Stopped | Dial::Connecting | Dial::Resting => None,
        };
        let connections = self
            .connections
            .iter()
            .flat_map(|c| [c.hold_until, c.keepalive_at]);
        connections.flatten().chain(dial).min()
    }

    /// ManualStart: connects, or waits for a connection where passive.
    pub fn start(&mut self) {
        if self.dial == Dial::Stopped {
            self.failures = 0;
            self.connect();
        }
    }

    /// What tells the neighbour that the end of the session is no restart: where graceful restart applies to NOTIFICATIONs, a Hard Reset
    /// that carries the one that it stands for (RFC 8538 section 3.1).
    pub fn for_good(&self, notification: Notification) -> Notification {
        let graceful = self
            .negotiated()
            .and_then(|negotiated| negotiated.graceful_restart.as_ref())
            .is_some_and(|restart| restart.notification);
        if !graceful {
            return notification;
        }
        let mut data = vec![notification.code, notification.subcode];
        data.extend_from_slice(&notification.data);
        Notification::new(error_code::CEASE, cease::HARD_RESET, data)
    }

    /// ManualStop: ends every connection with `notification` and stays down.
    pub fn stop(&mut self, now: Instant, notification: Notification) {
        let ids: Vec<ConnectionId> = self
            .connections
            .iter()
            .map(|connection| connection.id)
            .collect();
        for id in ids {
            self.handle_error(now, id, notification.clone());
        }
        self.dial = Dial::Stopped;
        self.barred = None;
        self.last_reason = DownReason::AdminDown;
    }

    /// What kept the session down may be over, as where the neighbour may announce more prefixes: it is tried at once.
    pub fn retry(&mut self) {
        self.barred = None;
        self.dial_again();
    }

    fn dial_again(&mut self) {
        if matches!(self.dial, Dial::Wait { .. }) && self.connections.is_empty() {
            self.failures = 0;
            self.connect();
        }
    }

    pub(crate) fn is_barred(&self, now: Instant) -> bool {
        self.barred.is_some_and(|until| now < until)
    }

    /// There is a connection, whatever its state.
    pub(crate) fn has_connections(&self) -> bool {
        !self.connections.is_empty()
    }

    /// The link to the neighbour lost its carrier: connections end without a word, which would not arrive.
    pub fn handle_link_lost(&mut self, now: Instant, interface: &str) {
        let ids: Vec<ConnectionId> = self.connections.iter().map(|each| each.id).collect();
        for id in ids {
            self.close(now, id, DownReason::LinkLost(interface.to_owned()));
        }
    }

    /// The link to the neighbour has its carrier again: what waits to connect does so now.
    pub fn handle_link_back(&mut self, now: Instant) {
        if !self.is_barred(now) {
            self.dial_again();
        }
    }

    /// BFD says why no packets pass to the neighbour: an established session ends with a Cease, BFD Down (RFC 9384). Where BFD shares fate
    /// with the neighbour's control plane and graceful restart is agreed, it ends as by a restart (RFC 5882 section 4.3.2.2).
    ///
    /// `missed` is since when BFD has missed packets of the neighbour, where its silence is what it says. A session that was established later
    /// stays: what has fallen silent is the neighbour before its restart, and this one has answered since.
    pub fn handle_bfd_down(
        &mut self,
        now: Instant,
        text: &str,
        shared_fate: bool,
        missed: Option<Instant>,
    ) {
        let mut connections = self.connections.iter();
        let established = connections.find_map(|connection| match &connection.phase {
            Phase::Established(negotiated) => {
                Some((connection.id, negotiated, connection.established))
            }
            _ => None,
        });
        let Some((id, negotiated, since)) = established else {
            return;
        };
        if missed.is_some_and(|missed| since.is_some_and(|since| since > missed)) {
            return;
        }
        let reason = DownReason::BfdDown {
            text: text.to_owned(),
            shared_fate,
        };
        let cease = Notification::cease(cease::BFD_DOWN, "");
        let restart = negotiated.graceful_restart.as_ref();
        let told = match (retained(negotiated, &reason), restart) {
            (None, _) => Some(self.for_good(cease)),
            (Some(_), Some(restart)) if restart.notification => Some(cease),
            // It would drop our routes.
            (Some(_), _) => None,
        };
        if let Some(notification) = told {
            self.send_notification(id, &notification);
        }
        self.damp(now);
        self.close(now, id, reason);
    }

    /// BFD has ended a session: the next one waits where that happens again and again.
    fn damp(&mut self, now: Instant) {
        let is_again = |before: Instant| now < before + FLAP_WINDOW;
        let again = self.bfd_down_at.is_some_and(is_again);
        self.bfd_down_at = Some(now);
        self.bfd_downs = if again {
            self.bfd_downs.saturating_add(1)
        } else {
            1
        };
        if let Some(doublings) = self.bfd_downs.checked_sub(FLAPS) {
            let pause = FLAP_PAUSE.saturating_mul(1 << doublings.min(10));
            let until = now + pause.min(FLAP_LONGEST_PAUSE);
            self.barred = self.barred.max(Some(until));
        }
    }

    /// BFD says that packets pass again: what waits to connect does so now, unless BFD flaps.
    pub fn handle_bfd_up(&mut self, now: Instant) {
        self.handle_link_back(now);
    }

    /// The forwarding state of the earlier process is no longer preserved as such: later OPENs say no restart.
    pub fn restart_is_over(&mut self) {
        self.restarting = false;
    }

    /// Our connections win collisions with a neighbour of this identifier (RFC 6286 section 2.3).
    fn is_higher_than(&self, other: RouterId) -> bool {
        (self.config.router_id, self.config.local_asn) > (other, self.config.peer_asn)
    }

    fn connect(&mut self) {
        if self.config.passive {
            self.dial = Dial::Resting;
        } else {
            self.dial = Dial::Connecting;
            self.outputs.push_back(Output::Connect);
        }
    }

    /// A pause between `by` * 0.75 and `by` (RFC 4271 section 10).
    fn jitter(&mut self, by: Duration) -> Duration {
        // xorshift64: jitter needs no better.
        self.seed ^= self.seed << 13;
        self.seed ^= self.seed >> 7;
        self.seed ^= self.seed << 17;
        by.mul_f64(0.75 + (self.seed >> 40) as f64 / (1u64 << 24) as f64 * 0.25)
    }

    fn wait(&mut self, now: Instant, idle: bool) {
        if self.dial == Dial::Stopped {
            return;
        }
        let pause = FIRST_RETRY
            .saturating_mul(1 << self.failures.min(10))
            .min(self.config.connect_retry);
        self.failures = self.failures.saturating_add(1);
        let until = now + self.jitter(pause);
        self.dial = Dial::Wait { until, idle };
    }

    /// The connection that we asked for is open.
    pub fn handle_connected(&mut self, now: Instant, id: ConnectionId) {
        let wanted = self.dial == Dial::Connecting;
        if wanted {
            self.dial = Dial::Resting;
        }
        // The neighbour has been quicker, and is known by its OPEN: the verdict is the same as if they had crossed.
        let rival = self
            .connections
            .iter()
            .find_map(|connection| match &connection.phase {
                Phase::OpenSent => None,
                Phase::OpenConfirm(negotiated) => {
                    Some((connection.id, self.is_higher_than(negotiated.router_id)))
                }
                Phase::Established(_) => Some((connection.id, false)),
            });
        if !wanted || rival.is_some_and(|(_, loses)| !loses) {
            self.outputs.push_back(Output::Close(id));
            return;
        }
        if let Some((rival, _)) = rival {
            self.handle_error(now, rival, Notification::cease(cease::COLLISION, ""));
        }
        self.open(now, id, true);
    }

    /// The connection that we asked for could not be opened.
    pub fn handle_connect_failed(&mut self, now: Instant, error: String) {
        if self.dial == Dial::Connecting {
            if self.connections.is_empty() {
                self.last_reason = DownReason::ConnectFailed(error);
            }
            self.wait(now, false);
        }
    }

    /// The neighbour opened a connection.
    pub fn handle_accepted(&mut self, now: Instant, id: ConnectionId) {
        let incoming = self.connections.iter().filter(|one| !one.outgoing);
        let mut crowded = incoming.count() > 1;
        // A neighbour that crashed before it said anything may have left connections behind: the newest is the one that lives.
        let silent = |one: &&Connection| !one.outgoing && matches!(one.phase, Phase::OpenSent);
        if crowded
            && let Some(oldest) = self
                .connections
                .iter()
                .filter(silent)
                .min_by_key(|one| one.since)
        {
            let rejected = Notification::cease(cease::CONNECTION_REJECTED, "");
            self.handle_error(now, oldest.id, rejected);
            crowded = false;
        }
        // An established session without graceful restart wins any collision (RFC 4271 section 6.8).
        let taken = self
            .negotiated()
            .is_some_and(|negotiated| negotiated.graceful_restart.is_none());
        if self.dial == Dial::Stopped || crowded || taken || self.is_barred(now) {
            let subcode = if taken {
                cease::COLLISION
            } else {
                cease::CONNECTION_REJECTED
            };
            self.send_notification(id, &Notification::cease(subcode, ""));
            self.outputs.push_back(Output::Close(id));
            return;
        }
        self.open(now, id, false);
    }

    fn open(&mut self, now: Instant, id: ConnectionId, outgoing: bool) {
        let mut octets = Vec::new();
        self.our_open().encode(&mut octets);
        self.outputs.push_back(Output::Send(id, octets.into()));
        self.connections.push(Connection {
            id,
            outgoing,
            phase: Phase::OpenSent,
            hold_until: Some(now + OPEN_HOLD_TIME),
            keepalive_at: None,
            since: now,
            established: None,
        });
    }

    fn our_open(&self) -> Open {
        let config = &self.config;
        let afi_safi = |family: &Family| (family.afi(), family.safi());
        let mut capabilities: Vec<Capability> = config
            .families
            .iter()
            .map(|family| Capability::MultiProtocol(family.afi(), family.safi()))
            .collect();
        capabilities.extend([
            Capability::RouteRefresh,
            Capability::EnhancedRouteRefresh,
            Capability::ExtendedMessage,
            Capability::FourOctetAs(config.local_asn),
        ]);
        capabilities.extend(config.role.map(|role| Capability::Role(role as u8)));
        if config.add_path_send || config.add_path_receive {
            let mode = AddPathMode {
                receive: config.add_path_receive,
                send: config.add_path_send,
            };
            capabilities.push(Capability::AddPath(
                config
                    .families
                    .iter()
                    .map(|family| (family.afi(), family.safi(), mode))
                    .collect(),
            ));
        }
        if config.extended_next_hop {
            let [v4, v6] = [Family::Ipv4Unicast, Family::Ipv6Unicast];
            let taken = (v4.afi(), v4.safi().into(), v6.afi());
            capabilities.push(Capability::ExtendedNextHop(vec![taken]));
        }
        if let Some(restart_time) = config.graceful_restart {
            capabilities.push(Capability::GracefulRestart(GracefulRestart {
                restarting: self.restarting,
                notification: true,
                restart_time,
                families: config
                    .families
                    .iter()
                    .map(|family| GracefulRestartFamily {
                        afi_safi: afi_safi(family),
                        // The kernel forwards on when the process is gone.
                        forwarding_preserved: true,
                    })
                    .collect(),
            }));
        }
        Open {
            my_as: config.local_asn.to_two_octets(),
            hold_time: config.hold_time.as_secs().min(u64::from(u16::MAX)) as u16,
            router_id: config.router_id,
            capabilities,
        }
    }

    /// A message other than UPDATE. An UPDATE outside Established comes here too, and is an error.
    pub fn handle_message(
        &mut self,
        now: Instant,
        id: ConnectionId,
        kind: MessageType,
        body: &[u8],
    ) {
        let Some(at) = self.position(id) else { return };
        let unexpected = |state| Notification::new(error_code::FSM, state, [kind as u8]);
        let error = match (&self.connections[at].phase, kind) {
            (_, MessageType::Notification) => {
                let notification = Notification::decode(body);
                self.close(now, id, DownReason::NotificationReceived(notification));
                return;
            }
            (Phase::OpenSent, MessageType::Open) => match self.handle_open(now, at, body) {
                Ok(()) => return,
                Err(error) => error,
            },
            (Phase::OpenConfirm(_), MessageType::Keepalive) => {
                self.establish(now, id);
                return;
            }
            (Phase::Established(_), MessageType::Keepalive) => {
                self.handle_alive(now, id);
                return;
            }
            (Phase::Established(_), MessageType::RouteRefresh) => {
                match RouteRefresh::decode(body) {
                    Ok(refresh) => {
                        self.handle_alive(now, id);
                        self.outputs.push_back(Output::Refresh(refresh));
                        return;
                    }
                    Err(error) => error,
                }
            }
            (Phase::Established(_), MessageType::Update) => {
                self.handle_alive(now, id);
                return;
            }
            (
                Phase::OpenSent,
                MessageType::Update | MessageType::Keepalive | MessageType::RouteRefresh,
            ) => unexpected(fsm_error::OPEN_SENT),
            (
                Phase::OpenConfirm(_),
                MessageType::Open | MessageType::Update | MessageType::RouteRefresh,
            ) => unexpected(fsm_error::OPEN_CONFIRM),
            (Phase::Established(_), MessageType::Open) => unexpected(fsm_error::ESTABLISHED),
        };
        self.handle_error(now, id, error);
    }

    /// A good message came: the hold timer starts over.
    pub fn handle_alive(&mut self, now: Instant, id: ConnectionId) {
        let Some(at) = self.position(id) else { return };
        let connection = &mut self.connections[at];
        if let Phase::Established(negotiated) = &connection.phase {
            connection.hold_until =
                (!negotiated.hold_time.is_zero()).then(|| now + negotiated.hold_time);
        }
    }

    fn handle_open(&mut self, now: Instant, at: usize, body: &[u8]) -> Result<(), Notification> {
        let open = Open::decode(body)?;
        let asn = open.asn();
        if asn != self.config.peer_asn || asn == Asn(0) {
            return Err(Notification::new(
                error_code::OPEN,
                open_error::BAD_PEER_AS,
                asn.0.to_be_bytes(),
            ));
        }
        // RFC 7607 section 2, RFC 6793 section 4.1: in two octets it is the same number, or AS_TRANS.
        if open.my_as != asn.to_two_octets() && open.my_as != Asn::TRANS.to_two_octets() {
            return Err(Notification::new(
                error_code::OPEN,
                open_error::BAD_PEER_AS,
                open.my_as.to_be_bytes(),
            ));
        }
        // RFC 6286 section 2.2: within an AS the identifier is unique.
        if open.router_id == self.config.router_id && asn == self.config.local_asn {
            return Err(Notification::new(
                error_code::OPEN,
                open_error::BAD_BGP_IDENTIFIER,
                [],
            ));
        }
        if !self.roles_match(&open) {
            return Err(Notification::new(
                error_code::OPEN,
                open_error::ROLE_MISMATCH,
                [],
            ));
        }
        let negotiated = self.negotiate(&open);
        if negotiated.families.is_empty() {
            let mut data = Vec::new();
            for family in &self.config.families {
                let [high, low] = family.afi().to_be_bytes();
                data.extend_from_slice(&[1, 4, high, low, 0, family.safi()]);
            }
            return Err(Notification::new(
                error_code::OPEN,
                open_error::UNSUPPORTED_CAPABILITY,
                data,
            ));
        }
        if !self.survives_collision(now, at, &open) {
            return Err(Notification::cease(cease::COLLISION, ""));
        }
        // The collision may have taken another connection out of the list.
        let keepalive = self.jitter(negotiated.hold_time / 3);
        let Some(connection) = self.connections.last_mut() else {
            return Ok(());
        };
        let timed = !negotiated.hold_time.is_zero();
        connection.hold_until = timed.then(|| now + negotiated.hold_time);
        connection.keepalive_at = timed.then(|| now + keepalive);
        connection.phase = Phase::OpenConfirm(Box::new(negotiated));
        let id = connection.id;
        self.send_keepalive(id);
        Ok(())
    }

    /// RFC 9234 section 4.2: the roles that the neighbour says are all the one that goes with ours; one that says none is taken, unless
    /// that is not wanted.
    fn roles_match(&self, open: &Open) -> bool {
        let Some(role) = self.config.role else {
            return true;
        };
        let mut said = open.capabilities.iter().filter_map(|one| match one {
            Capability::Role(said) => Some(*said),
            _ => None,
        });
        let Some(first) = said.next() else {
            return !self.config.role_strict;
        };
        first == role.counterpart() as u8 && said.all(|more| more == first)
    }

    fn negotiate(&self, open: &Open) -> Negotiated {
        let config = &self.config;
        let theirs = open.families();
        let families: Vec<Family> = config
            .families
            .iter()
            .copied()
            .filter(|family| theirs.contains(family))
            .collect();
        let mut negotiated = Negotiated {
            router_id: open.router_id,
            families,
            four_octet_as: false,
            max_message_len: MAX_MESSAGE_LEN,
            add_path_send: [false; 2],
            add_path_receive: [false; 2],
            hold_time: config
                .hold_time
                .min(Duration::from_secs(u64::from(open.hold_time))),
            route_refresh: false,
            enhanced_refresh: false,
            extended_next_hop: false,
            graceful_restart: None,
            role: None,
        };
        for capability in &open.capabilities {
            match capability {
                Capability::FourOctetAs(_) => negotiated.four_octet_as = true,
                Capability::RouteRefresh => negotiated.route_refresh = true,
                Capability::EnhancedRouteRefresh => negotiated.enhanced_refresh = true,
                Capability::ExtendedNextHop(list) => {
                    let [v4, v6] = [Family::Ipv4Unicast, Family::Ipv6Unicast];
                    let wanted = (v4.afi(), u16::from(v4.safi()), v6.afi());
                    negotiated.extended_next_hop |=
                        config.extended_next_hop && list.contains(&wanted);
                }
                Capability::ExtendedMessage => {
                    negotiated.max_message_len = MAX_MESSAGE_LEN_EXTENDED
                }
                Capability::AddPath(list) => {
                    for (afi, safi, mode) in list {
                        if let Some(family) = Family::from_afi_safi(*afi, *safi) {
                            negotiated.add_path_send[family.index()] =
                                config.add_path_send && mode.receive;
                            negotiated.add_path_receive[family.index()] =
                                config.add_path_receive && mode.send;
                        }
                    }
                }
                Capability::GracefulRestart(restart) if config.graceful_restart.is_some() => {
                    negotiated.graceful_restart = Some(restart.clone());
                }
                Capability::Role(role) => negotiated.role = Role::from_octet(*role),
                Capability::GracefulRestart(_)
                | Capability::MultiProtocol(..)
                | Capability::Unknown(..) => {}
            }
        }
        negotiated
    }

    /// Collision detection (RFC 4271 section 6.8, RFC 6286 section 2.3), and the new connection of a neighbour that
    /// restarted (RFC 4724 section 4.2). With its OPEN the neighbour's identifier is known, so that connections that
    /// still wait for theirs are judged too: both ends come to the same verdict whatever crosses on the way. One that has been silent
    /// for long is no judge of one that speaks, and of two that the same end opened the earlier one is given up. Closes
    /// the connection that loses; where this one survives it is moved to the end of the list.
    fn survives_collision(&mut self, now: Instant, at: usize, open: &Open) -> bool {
        let this = self.connections.remove(at);
        let by_identifier = this.outgoing == self.is_higher_than(open.router_id);
        let mut survives = true;
        let others: Vec<(ConnectionId, bool, bool, bool)> = self
            .connections
            .iter()
            .map(|other| {
                let silent = matches!(other.phase, Phase::OpenSent);
                let keep_this = if other.outgoing == this.outgoing {
                    silent || this.since >= other.since
                } else {
                    let patience_is_over = now.saturating_duration_since(other.since) >= SILENCE;
                    by_identifier || (silent && patience_is_over)
                };
                let graceful =
                    matches!(&other.phase, Phase::Established(n) if n.graceful_restart.is_some());
                // Who has confirmed a connection opens no other one beside it: what it opened earlier is a collision, what it opened
                // later says that it has started anew (RFC 4724 section 5).
                let later = other.established.is_some_and(|at| this.since >= at);
                let restarted = graceful && !this.outgoing && later;
                (
                    other.id,
                    matches!(other.phase, Phase::Established(_)),
                    restarted,
                    keep_this,
                )
            })
            .collect();
        for (id, established, restarted, keep_this) in others {
            if restarted {
                self.close(now, id, DownReason::Restarted);
            } else if established || !keep_this {
                survives = false;
            } else {
                self.handle_error(now, id, Notification::cease(cease::COLLISION, ""));
            }
        }
        self.connections.push(this);
        survives
    }

    fn establish(&mut self, now: Instant, id: ConnectionId) {
        self.failures = 0;
        self.dial = if self.dial == Dial::Stopped {
            Dial::Stopped
        } else {
            Dial::Resting
        };
        let Some(at) = self.position(id) else { return };
        let connection = &mut self.connections[at];
        if let Phase::OpenConfirm(negotiated) = &connection.phase {
            let negotiated = negotiated.clone();
            connection.phase = Phase::Established(negotiated.clone());
            connection.established = Some(now);
            self.outputs.push_back(Output::Up(id, negotiated));
            self.handle_alive(now, id);
        }
    }

    /// We end a connection because of an error: sends the NOTIFICATION and closes. One that would come again with the same routes goes as a
    /// Hard Reset (RFC 8538 section 4).
    pub fn handle_error(&mut self, now: Instant, id: ConnectionId, notification: Notification) {
        let for_good = (error_code::CEASE, cease::MAX_PREFIXES);
        let notification = if (notification.code, notification.subcode) == for_good {
            self.for_good(notification)
        } else {
            notification
        };
        self.send_notification(id, &notification);
        self.close(now, id, DownReason::NotificationSent(notification));
    }

    /// A connection is closed by the neighbour or broke.
    pub fn handle_closed(&mut self, now: Instant, id: ConnectionId, error: String) {
        self.close(now, id, DownReason::ConnectionLost(error));
    }

    fn close(&mut self, now: Instant, id: ConnectionId, reason: DownReason) {
        let Some(at) = self.position(id) else { return };
        let connection = self.connections.remove(at);
        self.outputs.push_back(Output::Close(id));
        let collision = matches!(&reason, DownReason::NotificationSent(n) | DownReason::NotificationReceived(n)
            if n.code == error_code::CEASE && n.subcode == cease::COLLISION);
        if let Phase::Established(negotiated) = connection.phase {
            let retain = retained(&negotiated, &reason);
            self.outputs.push_back(Output::Down {
                reason: reason.clone(),
                retain,
            });
        } else if !collision
            && self.dial != Dial::Stopped
            && matches!(
                reason,
                DownReason::NotificationSent(_) | DownReason::NotificationReceived(_)
            )
        {
            self.outputs.push_back(Output::Refused(reason.clone()));
        }
        if !collision {
            self.last_reason = reason.clone();
        }
        if is_over_limit(&reason) {
            self.barred = Some(now + OVER_LIMIT_PAUSE);
            let others: Vec<ConnectionId> = self.connections.iter().map(|one| one.id).collect();
            for other in others {
                self.handle_error(
                    now,
                    other,
                    Notification::cease(cease::CONNECTION_REJECTED, ""),
                );
            }
            self.last_reason = reason.clone();
        }
        if self.connections.is_empty()
            && matches!(self.dial, Dial::Resting)
            && reason != DownReason::Restarted
        {
            if self.config.passive {
                return;
            }
            self.wait(
                now,
                matches!(
                    reason,
                    DownReason::NotificationReceived(_) | DownReason::NotificationSent(_)
                ),
            );
        }
        if let (Dial::Wait { until, .. }, Some(barred)) = (&mut self.dial, self.barred) {
            *until = barred.max(*until);
        }
    }

    /// Does what is due.
    pub fn handle_timeout(&mut self, now: Instant) {
        if let Dial::Wait { until, .. } = self.dial
            && until <= now
        {
            if self.connections.is_empty() {
                self.connect();
            } else {
                self.dial = Dial::Resting;
            }
        }
        let expired: Vec<ConnectionId> = self
            .connections
            .iter()
            .filter(|connection| connection.hold_until.is_some_and(|until| until <= now))
            .map(|connection| connection.id)
            .collect();
        for id in expired {
            self.handle_error(
                now,
                id,
                Notification::new(error_code::HOLD_TIMER_EXPIRED, 0, []),
            );
        }
        for at in 0..self.connections.len() {
            if self.connections[at]
                .keepalive_at
                .is_some_and(|until| until <= now)
            {
                let hold_time = match &self.connections[at].phase {
                    Phase::OpenConfirm(negotiated) | Phase::Established(negotiated) => {
                        negotiated.hold_time
                    }
                    Phase::OpenSent => continue,
                };
                let next = now + self.jitter(hold_time / 3);
                self.connections[at].keepalive_at = Some(next);
                self.send_keepalive(self.connections[at].id);
            }
        }
    }

    fn send_keepalive(&mut self, id: ConnectionId) {
        let mut octets = Vec::new();
        encode_keepalive(&mut octets);
        self.outputs.push_back(Output::Send(id, octets.into()));
    }

    /// Sends a KEEPALIVE that is not due yet, for the neighbour's TCP to acknowledge.
    pub fn probe(&mut self) {
        let probed = self.connections.iter().find_map(|one| match &one.phase {
            // Without a hold time there are none (RFC 4271 section 4.4).
            Phase::Established(negotiated) if !negotiated.hold_time.is_zero() => Some(one.id),
            _ => None,
        });
        if let Some(id) = probed {
            self.send_keepalive(id);
        }
    }

    fn send_notification(&mut self, id: ConnectionId, notification: &Notification) {
        let mut octets = Vec::new();
        notification.encode(&mut octets);
        self.outputs.push_back(Output::Send(id, octets.into()));
    }

    /// Asks the neighbour for its routes of `family` again (RFC 2918); false where it does not understand that.
    pub fn request_refresh(&mut self, family: Family) -> bool {
        let Some((id, negotiated)) =
            self.connections
                .iter()
                .find_map(|connection| match &connection.phase {
                    Phase::Established(negotiated) => Some((connection.id, negotiated)),
                    _ => None,
                })
        else {
            return false;
        };
        if !negotiated.route_refresh || !negotiated.families.contains(&family) {
            return false;
        }
        let mut octets = Vec::new();
        RouteRefresh::request(family).encode(&mut octets);
        self.outputs.push_back(Output::Send(id, octets.into()));
        true
    }
}

/// The neighbour announced more prefixes than it may.
fn is_over_limit(reason: &DownReason) -> bool {
    let DownReason::NotificationSent(notification) = reason else {
        return false;
    };
    let inside = match notification.is_hard_reset() {
        true => Notification::decode(&notification.data),
        false => notification.clone(),
    };
    (inside.code, inside.subcode) == (error_code::CEASE, cease::MAX_PREFIXES)
}

/// Which routes stay after the end of a session, and for how long (RFC 4724 section 4.2, RFC 8538 section 4).
fn retained(negotiated: &Negotiated, reason: &DownReason) -> Option<Retained> {
    let restart = negotiated.graceful_restart.as_ref()?;
    let graceful = match reason {
        DownReason::ConnectionLost(_) | DownReason::LinkLost(_) | DownReason::Restarted => true,
        DownReason::BfdDown { shared_fate, .. } => *shared_fate,
        DownReason::NotificationReceived(notification) => {
            restart.notification && !notification.is_hard_reset()
        }
        // What is to end for good says so with a Hard Reset (RFC 8538 section 4).
        DownReason::NotificationSent(notification) => {
            restart.notification && !notification.is_hard_reset()
        }
        DownReason::NeverUp | DownReason::AdminDown | DownReason::ConnectFailed(_) => false,
    };
    let families: Vec<Family> = restart
        .families
        .iter()
        .filter_map(|family| Family::from_afi_safi(family.afi_safi.0, family.afi_safi.1))
        .filter(|family| negotiated.families.contains(family))
        .collect();
    (graceful && !families.is_empty()).then(|| Retained {
        families,
        time: Duration::from_secs(u64::from(restart.restart_time.max(1))),
        notification: restart.notification,
    })
}
