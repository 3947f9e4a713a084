//! The whole speaker: a session a neighbour, one RIB, graceful restart in both roles.
//!
//! A driver owns it alone. Inputs are the methods `handle_*`; after any of them: [`Speaker::poll_action`] until it is
//! empty, [`Speaker::poll_transmit`] for each connection that has room, [`Speaker::poll_timeout`].

#[cfg(test)]
mod tests;
mod types;

use std::collections::{BTreeSet, VecDeque};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use bytes::Bytes;
use rustc_hash::FxHashMap;
use weft_bgp_wire::{Asn, Family, HEADER_LEN, MessageType, Notification, cease, next_frame};

use crate::rib::{
    ExportHook, Origination, PeerConfig, PeerDown, PeerId, PeerKind, PeerUp, Rib, RibConfig,
    RouteBatch,
};
use crate::session::{ConnectionId, DownReason, Negotiated, Output, Session, SessionConfig, State};

pub use types::*;

/// After a restarted neighbour is back, it has this long to send its routes before stale ones go: End-of-RIB normally
/// comes long before.
const STALE_TIME: Duration = Duration::from_secs(360);

struct Neighbor {
    config: NeighborConfig,
    session: Session,
    since: Option<Instant>,
    flaps: u64,
    /// Families kept over its restart, and when that ends.
    stale: Option<(Vec<Family>, Instant)>,
    /// End-of-RIBs that are still to come before its routes are complete.
    awaited: Vec<Family>,
    updates: u64,
    problems: u64,
    /// As in [`Speaker::timers`].
    due: Option<Instant>,
}

struct Connection {
    peer: PeerId,
    local: IpAddr,
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
    connections: FxHashMap<ConnectionId, Connection>,
    actions: VecDeque<Action>,
    /// Connections with messages of their sessions to be sent.
    control: BTreeSet<ConnectionId>,
    /// When which neighbour is next to be looked at.
    timers: BTreeSet<(Instant, PeerId)>,
    /// Until when the routes of the neighbours are awaited: after a start their set is not complete before.
    converging: Option<Instant>,
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
            },
            hook,
        );
        if config.restarting {
            rib.hold();
        }
        Self {
            converging: Some(now + config.deferral),
            heard: false,
            routes_complete: !config.awaits_routes,
            next_seed: config.seed,
            config,
            rib,
            neighbors: vec![None],
            connections: FxHashMap::default(),
            actions: VecDeque::new(),
            control: BTreeSet::new(),
            timers: BTreeSet::new(),
        }
    }

    /// Brings the neighbours in line with these: what is new is added, what is no longer there goes with a Cease, and of the
    /// others those sessions start anew that are to be different ones. A description, and what becomes of routes from the
    /// neighbour, change under a session that stays; it is asked for its routes again where that takes them (RFC 2918).
    pub fn set_neighbors(&mut self, wanted: Vec<NeighborConfig>, now: Instant) -> NeighborChanges {
        let mut changes = NeighborChanges::default();
        for (peer, address) in self.addresses() {
            if wanted.iter().all(|of| of.address != address) {
                self.remove_neighbor(peer, now);
                changes.removed += 1;
            }
        }
        let asn = self.config.asn;
        for config in wanted {
            let Some(peer) = self.find(config.address) else {
                self.add_neighbor(config, now);
                changes.added += 1;
                continue;
            };
            let Some(neighbor) = self.neighbor_mut(peer) else {
                continue;
            };
            if neighbor.config == config {
                continue;
            }
            if !neighbor.config.is_same_session(&config) {
                self.remove(peer, cease::CONFIGURATION_CHANGE, now);
                self.add_neighbor(config, now);
                changes.restarted += 1;
                continue;
            }
            let refresh = neighbor.config.import_filter != config.import_filter
                || neighbor.config.allow_own_as != config.allow_own_as;
            neighbor.config = config;
            let import = peer_config(asn, &neighbor.config);
            let asked = !refresh || neighbor.session.state() != State::Established || {
                let families = neighbor.config.families.clone();
                families
                    .into_iter()
                    .all(|family| neighbor.session.request_refresh(family))
            };
            self.rib.set_import(peer, &import);
            if asked {
                changes.changed += 1;
                self.drain(peer, now);
            } else {
                changes.restarted += 1;
                self.reset(peer, "the import policy has changed", now);
            }
        }
        self.check_converged(now);
        changes
    }

    /// Adds a neighbour and starts its session.
    pub fn add_neighbor(&mut self, config: NeighborConfig, now: Instant) -> PeerId {
        let at = self
            .neighbors
            .iter()
            .skip(1)
            .position(Option::is_none)
            .map_or(self.neighbors.len(), |at| at + 1);
        let peer = PeerId(at as u16);
        self.rib
            .add_peer(peer, peer_config(self.config.asn, &config));
        self.next_seed = self
            .next_seed
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        let session = SessionConfig {
            local_asn: self.config.asn,
            router_id: self.config.router_id,
            peer_asn: config.asn,
            hold_time: config.hold_time,
            connect_retry: config.connect_retry,
            passive: config.passive,
            families: config.families.clone(),
            add_path_send: config.add_path_send,
            add_path_receive: config.add_path_receive,
            graceful_restart: config.graceful_restart,
        };
        let mut session = Session::new(
            session,
            self.next_seed,
            self.config.restarting && self.converging.is_some(),
        );
        session.start();
        let awaited = config.families.clone();
        let neighbor = Neighbor {
            config,
            session,
            since: None,
            flaps: 0,
            stale: None,
            awaited,
            updates: 0,
            problems: 0,
            due: None,
        };
        if at == self.neighbors.len() {
            self.neighbors.push(None);
        }
        self.neighbors[at] = Some(neighbor);
        self.drain(peer, now);
        peer
    }

    /// Ends the session with a neighbour for good and forgets it with all of its routes.
    pub fn remove_neighbor(&mut self, peer: PeerId, now: Instant) {
        self.remove(peer, cease::PEER_DECONFIGURED, now);
    }

    fn remove(&mut self, peer: PeerId, subcode: u8, now: Instant) {
        if let Some(neighbor) = self.neighbor_mut(peer) {
            neighbor.stop(Notification::cease(subcode, ""), now);
            self.drain(peer, now);
        }
        self.rib.remove_peer(peer);
        if let Some(neighbor) = self
            .neighbors
            .get_mut(peer.0 as usize)
            .and_then(Option::take)
            && let Some(due) = neighbor.due
        {
            self.timers.remove(&(due, peer));
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

    /// The neighbour with this address.
    pub fn find(&self, address: IpAddr) -> Option<PeerId> {
        self.peers()
            .find(|(_, neighbor)| neighbor.config.address == address)
            .map(|(peer, _)| peer)
    }

    /// The address of every neighbour.
    pub fn addresses(&self) -> Vec<(PeerId, IpAddr)> {
        self.peers()
            .map(|(peer, neighbor)| (peer, neighbor.config.address))
            .collect()
    }

    /// The state of every neighbour's session.
    pub fn states(&self) -> Vec<State> {
        self.peers()
            .map(|(_, neighbor)| neighbor.session.state())
            .collect()
    }

    /// The configuration of a neighbour.
    pub fn config_of(&self, peer: PeerId) -> Option<&NeighborConfig> {
        Some(&self.neighbors.get(peer.0 as usize)?.as_ref()?.config)
    }

    /// All neighbours as they are now.
    pub fn neighbors(&self) -> Vec<NeighborStatus> {
        self.peers()
            .map(|(peer, neighbor)| NeighborStatus {
                peer,
                config: neighbor.config.clone(),
                state: neighbor.session.state(),
                since: neighbor.since,
                flaps: neighbor.flaps,
                last_reason: neighbor.session.last_reason().clone(),
                negotiated: neighbor.session.negotiated().cloned(),
                stale: neighbor.stale.is_some(),
                updates: neighbor.updates,
                counters: self.rib.counters(peer),
            })
            .collect()
    }

    /// True once the routes of all neighbours are there, or have been waited for long enough.
    pub fn has_converged(&self) -> bool {
        self.converging.is_none()
    }

    /// A connection that [`Action::Connect`] asked for is open; `local` is our address on it.
    pub fn handle_connected(
        &mut self,
        peer: PeerId,
        id: ConnectionId,
        local: IpAddr,
        now: Instant,
    ) {
        self.connections.insert(id, Connection::new(peer, local));
        match self.neighbor_mut(peer) {
            Some(neighbor) => neighbor.session.handle_connected(now, id),
            None => self.actions.push_back(Action::Close(id)),
        }
        self.drain(peer, now);
    }

    /// A connection that [`Action::Connect`] asked for could not be opened.
    pub fn handle_connect_failed(&mut self, peer: PeerId, error: String, now: Instant) {
        if let Some(neighbor) = self.neighbor_mut(peer) {
            neighbor.session.handle_connect_failed(now, error);
        }
        self.drain(peer, now);
    }

    /// A neighbour opened a connection to us.
    pub fn handle_accepted(&mut self, peer: PeerId, id: ConnectionId, local: IpAddr, now: Instant) {
        self.connections.insert(id, Connection::new(peer, local));
        match self.neighbor_mut(peer) {
            Some(neighbor) => neighbor.session.handle_accepted(now, id),
            None => self.actions.push_back(Action::Close(id)),
        }
        self.drain(peer, now);
    }

    /// A connection was closed by the neighbour or broke.
    pub fn handle_closed(&mut self, id: ConnectionId, error: String, now: Instant) {
        let Some(connection) = self.connections.remove(&id) else {
            return;
        };
        self.control.remove(&id);
        if let Some(neighbor) = self.neighbor_mut(connection.peer) {
            neighbor.session.handle_closed(now, id, error);
        }
        self.drain(connection.peer, now);
    }

    /// Octets from a neighbour, cut anywhere.
    pub fn handle_octets(&mut self, id: ConnectionId, octets: &[u8], now: Instant) {
        let Some(connection) = self
            .connections
            .get_mut(&id)
            .filter(|connection| !connection.closing)
        else {
            return;
        };
        let peer = connection.peer;
        let mut partial = std::mem::take(&mut connection.partial);
        let mut octets = octets;
        let mut ended = false;
        if !partial.is_empty() {
            octets = complete(&mut partial, octets);
            match self.handle_messages(peer, id, &partial, now) {
                Some(used) => drop(partial.drain(..used)),
                None => ended = true,
            }
        }
        if !ended && partial.is_empty() {
            match self.handle_messages(peer, id, octets, now) {
                Some(used) => partial.extend_from_slice(&octets[used..]),
                None => ended = true,
            }
        }
        if !ended && let Some(connection) = self.connections.get_mut(&id) {
            connection.partial = partial;
        }
        if let Some(neighbor) = self.neighbor_mut(peer) {
            neighbor.session.handle_alive(now, id);
        }
        self.drain(peer, now);
    }

    /// Takes whole messages; returns the octets used, or `None` where the connection has ended.
    fn handle_messages(
        &mut self,
        peer: PeerId,
        id: ConnectionId,
        octets: &[u8],
        now: Instant,
    ) -> Option<usize> {
        let mut used = 0;
        loop {
            let neighbor = self.neighbors.get_mut(peer.0 as usize)?.as_mut()?;
            let rest = &octets[used..];
            let frame = match next_frame(rest, neighbor.session.max_receive_len(id)) {
                Ok(Some(frame)) => frame,
                Ok(None) => return Some(used),
                Err(error) => {
                    neighbor.session.handle_error(now, id, error);
                    return None;
                }
            };
            let body = &rest[HEADER_LEN..frame.len];
            used += frame.len;
            if frame.kind == MessageType::Update && neighbor.session.is_established(id) {
                neighbor.updates += 1;
                match self.rib.handle_update(peer, body) {
                    Ok(outcome) => {
                        if !outcome.problems.is_empty() {
                            neighbor.problems += outcome.problems.len() as u64;
                            self.actions
                                .push_back(Action::Problems(peer, outcome.problems));
                        }
                        if let Some(family) = outcome.end_of_rib {
                            self.handle_end_of_rib(peer, family);
                        }
                    }
                    Err(reset) => {
                        neighbor.session.handle_error(now, id, reset);
                        return None;
                    }
                }
            } else {
                neighbor.session.handle_message(now, id, frame.kind, body);
                // What the session wants takes effect before the next message: it may be up now, or gone.
                self.drain(peer, now);
                if self
                    .connections
                    .get(&id)
                    .is_none_or(|connection| connection.closing)
                {
                    return None;
                }
            }
        }
    }

    fn handle_end_of_rib(&mut self, peer: PeerId, family: Family) {
        self.rib.sweep_stale(peer, family);
        if let Some(neighbor) = self.neighbor_mut(peer) {
            neighbor.awaited.retain(|awaited| *awaited != family);
            if let Some((families, _)) = &mut neighbor.stale {
                families.retain(|stale| *stale != family);
                if families.is_empty() {
                    neighbor.stale = None;
                }
            }
        }
    }

    /// Does what is due.
    pub fn handle_timeout(&mut self, now: Instant) {
        let late = (now, PeerId(u16::MAX));
        let due: Vec<PeerId> = self.timers.range(..=late).map(|(_, peer)| *peer).collect();
        for peer in due {
            let Some(neighbor) = self.neighbor_mut(peer) else {
                continue;
            };
            let flushed = neighbor.stale.take_if(|(_, until)| *until <= now);
            let timeout = neighbor.session.poll_timeout();
            if timeout.is_some_and(|due| due <= now) {
                neighbor.session.handle_timeout(now);
            }
            if let Some((families, _)) = flushed {
                for family in families {
                    self.rib.sweep_stale(peer, family);
                }
            }
            self.drain(peer, now);
        }
        self.rib.tidy();
        self.check_converged(now);
    }

    /// When [`Speaker::handle_timeout`] is due.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let next = self.timers.first().map(|(due, _)| *due);
        next.into_iter().chain(self.converging).min()
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
        let stale = neighbor.stale.as_ref().map(|(_, until)| *until);
        let due = neighbor
            .session
            .poll_timeout()
            .into_iter()
            .chain(stale)
            .min();
        if due == neighbor.due {
            return;
        }
        if let Some(before) = std::mem::replace(&mut neighbor.due, due) {
            self.timers.remove(&(before, peer));
        }
        self.timers.extend(due.map(|due| (due, peer)));
    }

    fn check_converged(&mut self, now: Instant) {
        let Some(until) = self.converging else { return };
        // A route whose next hop is still being looked up would be missing from what we announce, and End-of-RIB behind
        // it would make the neighbours drop it.
        let heard = !self.rib.awaits_next_hops()
            && self
                .peers()
                .all(|(_, neighbor)| neighbor.awaited.is_empty());
        if heard && self.config.awaits_routes && !self.heard {
            self.heard = true;
            self.actions.push_back(Action::Heard);
        }
        let complete = heard && self.routes_complete;
        if complete || until <= now {
            self.converging = None;
            self.rib.release();
            for neighbor in self.neighbors.iter_mut().flatten() {
                neighbor.session.restart_is_over();
            }
            self.actions.push_back(Action::Converged { complete });
        }
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
                Output::Refresh(refresh) => {
                    if refresh.subtype == 0
                        && let Some(family) = Family::from_afi_safi(refresh.afi, refresh.safi)
                    {
                        self.rib.readvertise(peer, family);
                    }
                }
            }
        }
        self.retime(peer);
        self.check_converged(now);
    }

    fn up(&mut self, peer: PeerId, id: ConnectionId, negotiated: &Negotiated, now: Instant) {
        let Some(local) = self.connections.get(&id).map(|connection| connection.local) else {
            return;
        };
        let Some(neighbor) = self.neighbor_mut(peer) else {
            return;
        };
        neighbor.since = Some(now);
        let restart = negotiated.graceful_restart.as_ref();
        // RFC 4724 section 4.2: what the neighbour did not preserve over its restart goes now.
        let preserved = |family: &Family| {
            restart.is_some_and(|restart| {
                restart.families.iter().any(|of| {
                    of.afi_safi == (family.afi(), family.safi()) && of.forwarding_preserved
                })
            })
        };
        let stale = neighbor
            .stale
            .take()
            .map(|(families, _)| families)
            .unwrap_or_default();
        let (kept, lost): (Vec<Family>, Vec<Family>) = stale.into_iter().partition(preserved);
        if !kept.is_empty() {
            neighbor.stale = Some((kept, now + STALE_TIME));
        }
        // Who sends no End-of-RIB, or has just restarted and waits for ours, is not waited for.
        neighbor
            .awaited
            .retain(|family| negotiated.families.contains(family));
        if restart.is_none_or(|restart| restart.restarting) {
            neighbor.awaited.clear();
        }
        let local_address_v6 = neighbor.config.local_address_v6;
        for family in lost {
            self.rib.sweep_stale(peer, family);
        }
        self.rib.peer_up(
            peer,
            PeerUp {
                families: negotiated.families.clone(),
                four_octet_as: negotiated.four_octet_as,
                max_message_len: negotiated.max_message_len,
                add_path_send: negotiated.add_path_send,
                add_path_receive: negotiated.add_path_receive,
                router_id: negotiated.router_id,
                local_address: local,
                local_address_v6,
            },
        );
        self.actions.push_back(Action::Neighbor {
            peer,
            state: State::Established,
            reason: None,
        });
    }

    fn down(
        &mut self,
        peer: PeerId,
        reason: DownReason,
        retain: Option<(Vec<Family>, Duration)>,
        now: Instant,
    ) {
        let Some(neighbor) = self.neighbor_mut(peer) else {
            return;
        };
        neighbor.since = Some(now);
        neighbor.flaps += 1;
        let state = neighbor.session.state();
        let down = match retain {
            Some((families, time)) => {
                neighbor.stale = Some((families.clone(), now + time));
                PeerDown::KeepStale(families)
            }
            None => {
                neighbor.stale = None;
                PeerDown::Flush
            }
        };
        self.rib.peer_down(peer, down);
        self.actions.push_back(Action::Neighbor {
            peer,
            state,
            reason: Some(reason),
        });
    }

    /// The next thing for the driver to do.
    pub fn poll_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// Connections that [`Speaker::poll_transmit`] may have octets for.
    pub fn wanting(&self) -> Vec<ConnectionId> {
        if !self.rib.has_any_pending() {
            return self.control.iter().copied().collect();
        }
        let wants = |(id, connection): (&ConnectionId, &Connection)| {
            let wants = !connection.control.is_empty() || self.sends_routes(*id, connection);
            wants.then_some(*id)
        };
        self.connections.iter().filter_map(wants).collect()
    }

    fn sends_routes(&self, id: ConnectionId, connection: &Connection) -> bool {
        !connection.closing
            && self.rib.has_pending(connection.peer)
            && self.neighbors[connection.peer.0 as usize]
                .as_ref()
                .is_some_and(|n| n.session.is_established(id))
    }

    /// The next octets for a connection, whole messages. Ask only where there is room to send.
    pub fn poll_transmit(&mut self, id: ConnectionId) -> Option<Bytes> {
        let connection = self.connections.get_mut(&id)?;
        if let Some(octets) = connection.control.pop_front() {
            if connection.control.is_empty() {
                self.control.remove(&id);
            }
            return Some(octets);
        }
        let connection = &self.connections[&id];
        if !self.sends_routes(id, connection) {
            return None;
        }
        self.rib.poll_transmit(connection.peer)
    }

    /// What is left to send on a connection that [`Action::Close`] named; forgets the connection.
    pub fn take_closing(&mut self, id: ConnectionId) -> Vec<Bytes> {
        self.control.remove(&id);
        self.connections
            .remove(&id)
            .map(|connection| connection.control.into())
            .unwrap_or_default()
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

    /// Everything of our own that follows from what the neighbours told has been given to [`Speaker::originate`].
    pub fn routes_complete(&mut self, now: Instant) {
        self.routes_complete = true;
        self.check_converged(now);
    }

    /// Announces or withdraws routes of our own.
    pub fn originate(&mut self, routes: &[Origination]) {
        self.rib.originate(routes);
    }

    /// Ends the session with a neighbour; it comes back by itself.
    pub fn reset(&mut self, peer: PeerId, communication: &str, now: Instant) {
        if let Some(neighbor) = self.neighbor_mut(peer) {
            neighbor
                .session
                .stop(now, Notification::cease(cease::ADMIN_RESET, communication));
            neighbor.session.start();
        }
        self.drain(peer, now);
    }

    /// Ends every session for good: neighbours drop our routes.
    pub fn shut_down(&mut self, communication: &str, now: Instant) {
        let peers: Vec<PeerId> = self.peers().map(|(peer, _)| peer).collect();
        for peer in peers {
            if let Some(neighbor) = self.neighbor_mut(peer) {
                neighbor.stop(
                    Notification::cease(cease::ADMIN_SHUTDOWN, communication),
                    now,
                );
            }
            self.drain(peer, now);
        }
    }
}

impl Neighbor {
    /// Ends the session for good: the neighbour is to drop our routes, whatever was negotiated.
    fn stop(&mut self, notification: Notification, now: Instant) {
        let negotiated = self.session.negotiated();
        let graceful = negotiated
            .and_then(|negotiated| negotiated.graceful_restart.as_ref())
            .is_some_and(|restart| restart.notification);
        let notification = if graceful {
            // RFC 8538 section 3.1: a Hard Reset carries the NOTIFICATION that it stands for.
            let mut data = vec![notification.code, notification.subcode];
            data.extend_from_slice(&notification.data);
            Notification::new(notification.code, cease::HARD_RESET, data)
        } else {
            notification
        };
        self.session.stop(now, notification);
    }
}

/// A neighbour as the RIB sees it.
fn peer_config(asn: Asn, config: &NeighborConfig) -> PeerConfig {
    PeerConfig {
        kind: match (config.asn == asn, config.route_reflector_client) {
            (false, _) => PeerKind::Ebgp,
            (true, true) => PeerKind::IbgpClient,
            (true, false) => PeerKind::Ibgp,
        },
        asn: config.asn,
        address: config.address,
        next_hop_self: config.next_hop_self,
        import_filter: config.import_filter.clone(),
        export_filter: config.export_filter.clone(),
        max_prefixes: config.max_prefixes,
        allow_own_as: config.allow_own_as,
        import_class: config.import_class,
        export_class: config.export_class,
    }
}

impl Connection {
    fn new(peer: PeerId, local: IpAddr) -> Self {
        Self {
            peer,
            local,
            partial: Vec::new(),
            control: VecDeque::new(),
            closing: false,
        }
    }
}

/// Moves the octets that end the message begun in `partial` there; returns what follows them.
fn complete<'a>(partial: &mut Vec<u8>, octets: &'a [u8]) -> &'a [u8] {
    let fill = |partial: &mut Vec<u8>, octets: &'a [u8], len: usize| {
        let missing = len.saturating_sub(partial.len()).min(octets.len());
        let (head, tail) = octets.split_at(missing);
        partial.extend_from_slice(head);
        tail
    };
    let rest = fill(partial, octets, HEADER_LEN);
    match partial.get(HEADER_LEN - 3..HEADER_LEN - 1) {
        Some(&[high, low]) => fill(partial, rest, usize::from(u16::from_be_bytes([high, low]))),
        _ => rest,
    }
}
