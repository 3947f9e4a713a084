//! All sessions of a router.

#[cfg(test)]
mod tests;

use std::collections::{HashMap, HashSet, VecDeque};
use std::net::IpAddr;
use std::time::Instant;

use crate::deadlines::Deadlines;
use crate::packet::{Discard, PACKET_LEN, Packet, State};
use crate::session::{Config, Down, Random, Session, Status, Transition};

/// A session's number in the engine; taken again after it has gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SessionId(u32);

impl SessionId {
    /// From 0 up.
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

/// A packet from the network.
#[derive(Clone, Copy, Debug)]
pub struct Received<'p> {
    /// Who sent it.
    pub peer: IpAddr,
    /// It came to the port of multihop sessions.
    pub multihop: bool,
    /// TTL or hop limit as it came.
    pub ttl: u8,
    /// It came in by another interface than leads to that address, where it is to be from the link.
    pub astray: bool,
    /// When it came.
    pub at: Instant,
    /// Its UDP payload.
    pub octets: &'p [u8],
}

/// A packet to be sent with TTL 255.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transmit {
    /// By which session.
    pub session: SessionId,
    /// To whom.
    pub peer: IpAddr,
    /// To the port of multihop sessions.
    pub multihop: bool,
    /// The UDP payload.
    pub octets: [u8; PACKET_LEN],
}

/// A session has come Up, or has left Up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Event {
    /// The neighbour.
    pub peer: IpAddr,
    /// What happened.
    pub change: Change,
}

/// What happened to a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// Packets pass in both directions.
    Up,
    /// They do not any more.
    Down(Down),
}

/// What has not been told yet. Where nobody asks for a while, a failure is never left out, and coming up is where it did not last.
#[derive(Clone, Copy, Debug, Default)]
struct Untold {
    down: Option<Down>,
    up: bool,
}

#[derive(Debug)]
struct Slot {
    session: Session,
    untold: Untold,
    /// In `ready`.
    queued: bool,
    /// In `changed`.
    announced: bool,
    /// It goes then: the neighbour is still told that it is administratively down.
    gone_at: Option<Instant>,
}

/// All sessions. After each `handle_*` and each change: [`Engine::poll_transmit`] until there is nothing, [`Engine::poll_event`] where
/// there is room, [`Engine::poll_timeout`].
///
/// Nothing is allocated for a packet; memory grows with the number of sessions alone.
pub struct Engine {
    slots: Vec<Option<Slot>>,
    free: Vec<u32>,
    discriminators: HashSet<u32>,
    by_peer: HashMap<(IpAddr, bool), u32>,
    deadlines: Deadlines,
    /// Sessions that owe packets.
    ready: VecDeque<u32>,
    /// Sessions with something to tell.
    changed: VecDeque<u32>,
    discarded: [u64; Discard::ALL.len()],
    random: Box<Random>,
}

impl Engine {
    /// One without sessions. Of `random` come discriminators and jitter: numbers of 64 bits that nobody outside can foresee.
    pub fn new(random: Box<dyn FnMut() -> u64 + Send>) -> Self {
        Self {
            slots: Vec::new(),
            free: Vec::new(),
            discriminators: HashSet::new(),
            by_peer: HashMap::new(),
            deadlines: Deadlines::default(),
            ready: VecDeque::new(),
            changed: VecDeque::new(),
            discarded: [0; Discard::ALL.len()],
            random,
        }
    }

    /// Adds a session, or gives the one with this neighbour over this kind of path another configuration without an end in between.
    pub fn configure(&mut self, config: Config, now: Instant) -> SessionId {
        let key = (config.peer, config.path.is_multihop());
        if let Some(number) = self.by_peer.get(&key).copied() {
            let Self { slots, random, .. } = self;
            if let Some(slot) = slots[number as usize].as_mut() {
                slot.gone_at = None;
                slot.session.configure(config, now, random);
                slot.session.enable(now, random);
            }
            self.after(number, None);
            return SessionId(number);
        }
        let discriminator = self.new_discriminator();
        let number = self.free.pop().unwrap_or(self.slots.len() as u32);
        let slot = Slot {
            session: Session::new(config, discriminator, now),
            untold: Untold::default(),
            queued: false,
            announced: false,
            gone_at: None,
        };
        match self.slots.get_mut(number as usize) {
            Some(place) => *place = Some(slot),
            None => self.slots.push(Some(slot)),
        }
        let sessions = self.slots.len();
        self.ready
            .reserve(sessions - self.ready.len().min(sessions));
        self.changed
            .reserve(sessions - self.changed.len().min(sessions));
        self.by_peer.insert(key, number);
        self.after(number, None);
        SessionId(number)
    }

    /// Random and unique (RFC 5880 section 10).
    fn new_discriminator(&mut self) -> u32 {
        loop {
            let discriminator = (self.random)() as u32;
            if discriminator != 0 && self.discriminators.insert(discriminator) {
                return discriminator;
            }
        }
    }

    /// Holds a session administratively down, and forgets it when the neighbour has had time to hear of that.
    pub fn remove(&mut self, session: SessionId, now: Instant) {
        let Self { slots, random, .. } = self;
        let Some(slot) = slots.get_mut(session.index()).and_then(Option::as_mut) else {
            return;
        };
        let heard = slot.session.state() != State::Down;
        let transition = slot.session.disable(now, random);
        let patience = slot.session.farewell();
        slot.gone_at = Some(if heard { now + patience } else { now });
        self.after(session.0, transition);
    }

    /// Brings the sessions in line with these: others go. Says which number each has, in their order.
    pub fn set(&mut self, wanted: &[Config], now: Instant) -> Vec<SessionId> {
        let key = |config: &Config| (config.peer, config.path.is_multihop());
        let keys: HashSet<(IpAddr, bool)> = wanted.iter().map(key).collect();
        let gone = self.slots.iter().zip(0..).filter_map(|(slot, number)| {
            let slot = slot.as_ref().filter(|slot| slot.gone_at.is_none())?;
            (!keys.contains(&key(slot.session.config()))).then_some(SessionId(number))
        });
        for session in gone.collect::<Vec<_>>() {
            self.remove(session, now);
        }
        let configs = wanted.iter();
        configs.map(|config| self.configure(*config, now)).collect()
    }

    /// A packet came (RFC 5880 section 6.8.6).
    ///
    /// # Errors
    /// Why it is discarded; it has been counted.
    pub fn handle_packet(&mut self, received: &Received<'_>, now: Instant) -> Result<(), Discard> {
        let outcome = self.take_packet(received, now);
        if let Err(reason) = outcome {
            self.discarded[reason.index()] += 1;
        }
        outcome
    }

    fn take_packet(&mut self, received: &Received<'_>, now: Instant) -> Result<(), Discard> {
        let key = (received.peer, received.multihop);
        let number = *self.by_peer.get(&key).ok_or(Discard::Stranger)?;
        let Self { slots, random, .. } = self;
        let slot = slots[number as usize].as_mut();
        let session = &mut slot.ok_or(Discard::Stranger)?.session;
        if received.ttl < session.config().path.minimum_ttl() {
            return Err(Discard::Ttl);
        }
        if received.astray {
            return Err(Discard::Interface);
        }
        let packet = Packet::decode(received.octets)?;
        // Of each neighbour there is one session over each kind of path: another number than its own is nobody's.
        if ![0, session.discriminator()].contains(&packet.your_discriminator) {
            return Err(Discard::YourDiscriminator);
        }
        // Whoever sends from the neighbour's address, on whatever link, comes with TTL 255 if he likes: only who knows the number of a session
        // that is Up ends it. A neighbour that has lost the number is noticed by the silence that this makes.
        if session.state() == State::Up && packet.your_discriminator == 0 {
            session.doubt(now);
            self.after(number, None);
            return Err(Discard::YourDiscriminator);
        }
        let transition = session.handle_packet(&packet, received.at, now, random);
        self.after(number, transition);
        Ok(())
    }

    /// Does what is due.
    pub fn handle_timeout(&mut self, now: Instant) {
        while let Some((due, number)) = self.deadlines.first() {
            if due > now {
                return;
            }
            let Self { slots, random, .. } = self;
            let Some(slot) = slots[number as usize].as_mut() else {
                self.deadlines.set(number, None);
                continue;
            };
            if slot.gone_at.is_some_and(|gone| gone <= now) {
                self.forget(number);
                continue;
            }
            let transition = slot.session.handle_timeout(now, random);
            self.after(number, transition);
        }
    }

    fn forget(&mut self, number: u32) {
        self.deadlines.set(number, None);
        let Some(slot) = self.slots[number as usize].take() else {
            return;
        };
        let config = slot.session.config();
        self.by_peer
            .remove(&(config.peer, config.path.is_multihop()));
        self.discriminators.remove(&slot.session.discriminator());
        self.ready.retain(|ready| *ready != number);
        self.changed.retain(|changed| *changed != number);
        self.free.push(number);
    }

    /// Notes what follows from what a session did.
    fn after(&mut self, number: u32, transition: Option<Transition>) {
        let Some(slot) = self.slots[number as usize].as_mut() else {
            return;
        };
        match transition {
            Some(Transition::Up) => slot.untold.up = true,
            Some(Transition::Down(down)) => {
                let failure = slot.untold.down.filter(|untold| untold.reason.is_failure());
                slot.untold = Untold {
                    down: match down.reason.is_failure() {
                        true => Some(down),
                        false => failure.or(Some(down)),
                    },
                    up: false,
                };
            }
            None => {}
        }
        if transition.is_some() && !std::mem::replace(&mut slot.announced, true) {
            self.changed.push_back(number);
        }
        if slot.session.owes() && !std::mem::replace(&mut slot.queued, true) {
            self.ready.push_back(number);
        }
        let due = slot.session.due().into_iter().chain(slot.gone_at).min();
        self.deadlines.set(number, due);
    }

    /// When [`Engine::handle_timeout`] is due.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.deadlines.first().map(|(due, _)| due)
    }

    /// The next packet to be sent.
    pub fn poll_transmit(&mut self, now: Instant) -> Option<Transmit> {
        loop {
            let number = self.ready.pop_front()?;
            let Self { slots, random, .. } = self;
            let Some(slot) = slots[number as usize].as_mut() else {
                continue;
            };
            slot.queued = false;
            let packet = slot.session.next_packet(now, random);
            let config = *slot.session.config();
            self.after(number, None);
            if let Some(packet) = packet {
                return Some(Transmit {
                    session: SessionId(number),
                    peer: config.peer,
                    multihop: config.path.is_multihop(),
                    octets: packet.encode(),
                });
            }
        }
    }

    /// The next thing to tell. Ask only where it can be told.
    pub fn poll_event(&mut self) -> Option<Event> {
        loop {
            let number = *self.changed.front()?;
            let slot = self.slots[number as usize].as_mut();
            let change = slot.and_then(|slot| {
                let peer = slot.session.config().peer;
                let change = match slot.untold.down.take() {
                    Some(down) => Some(Change::Down(down)),
                    None => std::mem::take(&mut slot.untold.up).then_some(Change::Up),
                };
                slot.announced = change.is_some();
                change.map(|change| Event { peer, change })
            });
            match change {
                Some(event) => return Some(event),
                None => drop(self.changed.pop_front()),
            }
        }
    }

    /// There is something to tell.
    pub fn has_event(&self) -> bool {
        let untold = |number: &u32| {
            let slot = self.slots[*number as usize].as_ref();
            slot.is_some_and(|slot| slot.untold.up || slot.untold.down.is_some())
        };
        self.changed.iter().any(untold)
    }

    /// All sessions that are not about to go, as they are now, in the order of their numbers.
    pub fn sessions(&self) -> impl Iterator<Item = (SessionId, Status)> + '_ {
        let slots = self.slots.iter().zip(0..);
        slots.filter_map(|(slot, number)| {
            let slot = slot.as_ref().filter(|slot| slot.gone_at.is_none())?;
            Some((SessionId(number), slot.session.status()))
        })
    }

    /// Whether a session is there still, or about to go.
    pub fn contains(&self, session: SessionId) -> bool {
        self.slots.get(session.index()).is_some_and(Option::is_some)
    }

    /// Packets discarded, by [`Discard::index`].
    pub fn discarded(&self) -> [u64; Discard::ALL.len()] {
        self.discarded
    }
}
