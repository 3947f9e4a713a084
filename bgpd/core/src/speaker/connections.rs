//! Transport connections: octets cut into messages on the way in, messages before routes on the way out.

use std::collections::VecDeque;
use std::io;
use std::time::Instant;

use bytes::Bytes;
use weft_bgp_wire::{HEADER_LEN, MessageType, next_frame};

use super::types::{Action, LocalEnd};
use super::{Connection, Speaker};
use crate::rib::PeerId;
use crate::session::{ConnectionId, Session};

impl Speaker {
    /// A connection that [`Action::Connect`] asked for is open; `local` is our end of it.
    pub fn handle_connected(
        &mut self,
        peer: PeerId,
        id: ConnectionId,
        local: LocalEnd,
        now: Instant,
    ) {
        self.open(peer, id, local, now, Session::handle_connected);
    }

    /// A connection that [`Action::Connect`] asked for could not be opened.
    pub fn handle_connect_failed(&mut self, peer: PeerId, error: &io::Error, now: Instant) {
        if let Some(neighbor) = self.neighbor_mut(peer) {
            neighbor.refused = error.kind() == io::ErrorKind::ConnectionRefused;
            neighbor
                .session
                .handle_connect_failed(now, error.to_string());
        }
        self.drain(peer, now);
    }

    /// A neighbour opened a connection to us.
    pub fn handle_accepted(
        &mut self,
        peer: PeerId,
        id: ConnectionId,
        local: LocalEnd,
        now: Instant,
    ) {
        self.open(peer, id, local, now, Session::handle_accepted);
    }

    fn open(
        &mut self,
        peer: PeerId,
        id: ConnectionId,
        local: LocalEnd,
        now: Instant,
        handle: fn(&mut Session, Instant, ConnectionId),
    ) {
        self.connections.insert(id, Connection::new(peer, local));
        match self.neighbor_mut(peer) {
            Some(neighbor) => handle(&mut neighbor.session, now, id),
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
        let (mut ended, mut alive) = (false, false);
        if !partial.is_empty() {
            octets = complete(&mut partial, octets);
            match self.handle_messages(peer, id, &partial, now, &mut alive) {
                Some(used) => drop(partial.drain(..used)),
                None => ended = true,
            }
        }
        if !ended && partial.is_empty() {
            match self.handle_messages(peer, id, octets, now, &mut alive) {
                Some(used) => partial.extend_from_slice(&octets[used..]),
                None => ended = true,
            }
        }
        if !ended && let Some(connection) = self.connections.get_mut(&id) {
            connection.partial = partial;
        }
        if alive && let Some(neighbor) = self.neighbor_mut(peer) {
            neighbor.session.handle_alive(now, id);
        }
        self.drain(peer, now);
    }

    /// Takes whole messages; returns the octets used, or `None` where the connection has ended. `alive` where an UPDATE was good: it
    /// holds the session, as pieces of messages do not (RFC 4271 section 8.2.2, events 26 and 27).
    fn handle_messages(
        &mut self,
        peer: PeerId,
        id: ConnectionId,
        octets: &[u8],
        now: Instant,
        alive: &mut bool,
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
                        *alive = true;
                        if !outcome.problems.is_empty() {
                            neighbor.problems += outcome.problems.len() as u64;
                            self.actions
                                .push_back(Action::Problems(peer, outcome.problems));
                        }
                        if let Some(near) = outcome.near_limit {
                            self.actions.push_back(Action::NearLimit(peer, near));
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
}

impl Connection {
    fn new(peer: PeerId, local: LocalEnd) -> Self {
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
