//! The whole speaker: a session a neighbour, one RIB, graceful restart in both roles.
//!
//! A driver owns it alone. Inputs are the methods `handle_*`; after any of them: [`Speaker::poll_action`] until it is
//! empty, [`Speaker::poll_transmit`] for each connection that has room, [`Speaker::poll_timeout`].
//!
//! | module | what it is |
//! |---|---|
//! | `neighbors` | which neighbours there are, how they do, what an administrator does to them |
//! | `connections` | octets of transport connections, in and out |
//! | `dynamic` | neighbours that come by themselves |
//! | `signing` | which of two keys connections are signed with |
//! | `restart` | graceful restart: what stays of a neighbour that is away, what is awaited after our own start |
//! | `types` | what the speaker is configured with and what it tells |

mod connections;
mod dynamic;
mod neighbors;
mod restart;
mod signing;
#[cfg(test)]
mod tests;
mod types;

use std::collections::{BTreeSet, VecDeque};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use ipnet::IpNet;
use rustc_hash::FxHashMap;
use weft_bgp_wire::Family;

use crate::rib::{ExportHook, Origination, PeerId, Rib, RibConfig, RouteBatch, Unforwardable};
use crate::session::{ConnectionId, Output, Session};

pub use types::*;

struct Neighbor {
    config: NeighborConfig,
    session: Session,
    since: Option<Instant>,
    flaps: u64,
    /// What is kept over its restart.
    stale: Option<Stale>,
    /// End-of-RIBs that are still to come before its routes are complete.
    awaited: Vec<Family>,
    /// Families whose End-of-RIB the session has not brought yet; none without graceful restart.
    unheard: Vec<Family>,
    /// Families that it sends anew, and when what it has not sent by then goes (RFC 7313 section 4).
    refreshing: Vec<(Family, Instant)>,
    /// Its host answered the latest attempt to connect: nobody listens there, yet.
    refused: bool,
    updates: u64,
    problems: u64,
    /// It came by itself, from a prefix of its group.
    dynamic: bool,
    /// When it is forgotten, where it did and there is no session.
    expires: Option<Instant>,
    /// Which key its connections are signed with.
    signing: signing::Signing,
    /// As in [`Speaker::timers`].
    due: Option<Instant>,
}

/// Routes of a neighbour that are kept until it has sent them anew.
struct Stale {
    families: Vec<Family>,
    /// When they go at the latest.
    until: Instant,
    /// The same, however often the neighbour restarts meanwhile (RFC 8538 section 4.1).
    limit: Instant,
}

struct Connection {
    peer: PeerId,
    local: LocalEnd,
    /// The start of a message whose end is not there yet.
    partial: Vec<u8>,
    /// Messages of the session, which go before routes.
    control: VecDeque<Bytes>,
    /// Closes when `control` is sent.
    closing: bool,
}

/// The speaker.
pub struct Speaker {
    config: SpeakerConfig,
    /// All routes.
    pub rib: Rib,
    neighbors: Vec<Option<Neighbor>>,
    /// Groups that neighbours join by connecting.
    dynamic: Vec<DynamicGroup>,
    /// Which group's dynamic neighbour had a number that is free: others may not take it for one of another group.
    former: FxHashMap<usize, Arc<str>>,
    connections: FxHashMap<ConnectionId, Connection>,
    actions: VecDeque<Action>,
    /// Connections with messages of their sessions to be sent.
    control: BTreeSet<ConnectionId>,
    /// When which neighbour is next to be looked at.
    timers: BTreeSet<(Instant, PeerId)>,
    /// The routes of the neighbours are awaited: after a start their set is not complete before.
    converging: Option<restart::Deferral>,
    /// Counts neighbours that came and went, and changes of keys.
    membership: u64,
    heard: bool,
    routes_complete: bool,
    next_seed: u64,
}

impl Speaker {
    /// One without neighbours.
    pub fn new(config: SpeakerConfig, hook: Box<dyn ExportHook>, now: Instant) -> Self {
        let mut rib = Rib::new(
            RibConfig {
                asn: config.asn,
                router_id: config.router_id,
                cluster_id: config.cluster_id,
                overlay_administrator: config.overlay_administrator,
                report: config.report.clone(),
                seed: config.seed,
            },
            hook,
        );
        if config.restarting {
            rib.hold();
        }
        Self {
            converging: Some(restart::Deferral::new(now, config.deferral)),
            membership: 0,
            heard: false,
            routes_complete: !config.awaits_routes,
            next_seed: config.seed,
            config,
            rib,
            neighbors: vec![None],
            dynamic: Vec::new(),
            former: FxHashMap::default(),
            connections: FxHashMap::default(),
            actions: VecDeque::new(),
            control: BTreeSet::new(),
            timers: BTreeSet::new(),
        }
    }

    fn neighbor_mut(&mut self, peer: PeerId) -> Option<&mut Neighbor> {
        self.neighbors.get_mut(peer.0 as usize)?.as_mut()
    }

    fn peers(&self) -> impl Iterator<Item = (PeerId, &Neighbor)> {
        (0u16..)
            .zip(&self.neighbors)
            .filter_map(|(at, neighbor)| Some((PeerId(at), neighbor.as_ref()?)))
    }

    /// Carries out what a session wants.
    fn drain(&mut self, peer: PeerId, now: Instant) {
        while let Some(output) = self
            .neighbor_mut(peer)
            .and_then(|neighbor| neighbor.session.poll_output())
        {
            match output {
                Output::Connect => self.actions.push_back(Action::Connect(peer)),
                Output::Send(id, octets) => {
                    if let Some(connection) = self.connections.get_mut(&id) {
                        connection.control.push_back(octets);
                        self.control.insert(id);
                    }
                }
                Output::Close(id) => {
                    if let Some(connection) = self.connections.get_mut(&id) {
                        connection.closing = true;
                        self.actions.push_back(Action::Close(id));
                    }
                }
                Output::Up(id, negotiated) => self.up(peer, id, &negotiated, now),
                Output::Down { reason, retain } => self.down(peer, reason, retain, now),
                Output::Refused(reason) => self.actions.push_back(Action::Refused(peer, reason)),
                Output::Refresh(refresh) => self.handle_refresh(peer, refresh, now),
            }
        }
        self.retime(peer);
        self.check_converged(now);
    }

    /// Does what is due.
    pub fn handle_timeout(&mut self, now: Instant) {
        let late = (now, PeerId(u16::MAX));
        let due: Vec<PeerId> = self.timers.range(..=late).map(|(_, peer)| *peer).collect();
        for peer in due {
            let Some(neighbor) = self.neighbor_mut(peer) else {
                continue;
            };
            let stale = neighbor.stale.take_if(|stale| stale.until <= now);
            let mut flushed = stale.map(|stale| stale.families).unwrap_or_default();
            neighbor.refreshing.retain(|(family, until)| {
                let over = *until <= now;
                flushed.extend(over.then_some(*family));
                !over
            });
            let timeout = neighbor.session.poll_timeout();
            if timeout.is_some_and(|due| due <= now) {
                neighbor.session.handle_timeout(now);
            }
            for family in flushed {
                self.rib.sweep_stale(peer, family);
            }
            self.drain(peer, now);
            self.forget_dynamic(peer, now);
        }
        self.rib.tidy();
        self.check_converged(now);
    }

    /// When [`Speaker::handle_timeout`] is due.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let next = self.timers.first().map(|(due, _)| *due);
        let deferral = self.converging.map(|deferral| deferral.due);
        next.into_iter().chain(deferral).min()
    }

    /// Notes when a neighbour is next to be looked at.
    fn retime(&mut self, peer: PeerId) {
        let Some(neighbor) = self
            .neighbors
            .get_mut(peer.0 as usize)
            .and_then(Option::as_mut)
        else {
            return;
        };
        let stale = neighbor.stale.as_ref().map(|stale| stale.until);
        let refreshing = neighbor.refreshing.iter().map(|(_, until)| *until);
        let due = neighbor
            .session
            .poll_timeout()
            .into_iter()
            .chain(stale)
            .chain(refreshing)
            .chain(neighbor.forgotten_at())
            .min();
        if due == neighbor.due {
            return;
        }
        if let Some(before) = std::mem::replace(&mut neighbor.due, due) {
            self.timers.remove(&(before, peer));
        }
        self.timers.extend(due.map(|due| (due, peer)));
    }

    /// The next thing for the driver to do.
    pub fn poll_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// Changed routes, where the caller has room for them.
    pub fn poll_report(&mut self) -> Option<RouteBatch> {
        self.rib.poll_report()
    }

    /// Says how next hops resolve: metric, or `None`.
    pub fn set_next_hops(&mut self, next_hops: &[(IpAddr, Option<u32>)], now: Instant) {
        self.rib.set_next_hops(next_hops);
        self.check_converged(now);
    }

    /// Says where packets to some prefixes cannot be forwarded here: see [`Rib::set_unforwardable`].
    pub fn set_unforwardable(&mut self, changes: Vec<(IpNet, Option<Unforwardable>)>) {
        self.rib.set_unforwardable(changes);
    }

    /// Announces or withdraws routes of our own.
    pub fn originate(&mut self, routes: &[Origination]) {
        self.rib.originate(routes);
    }
}
