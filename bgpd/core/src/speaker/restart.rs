//! Graceful restart in both roles (RFC 4724, RFC 8538): what stays of a neighbour that is away, and what is awaited after our own start.

use std::time::{Duration, Instant};

use weft_bgp_wire::Family;

use super::Speaker;
use super::types::Action;
use crate::rib::{PeerDown, PeerId, PeerUp};
use crate::session::{ConnectionId, DownReason, Negotiated, State};

/// After a restarted neighbour is back, it has this long to send its routes before stale ones go: End-of-RIB normally
/// comes long before.
const STALE_TIME: Duration = Duration::from_secs(360);

impl Speaker {
    /// A session is established: what its neighbour preserved of its routes stays until it has sent them anew.
    pub(super) fn up(
        &mut self,
        peer: PeerId,
        id: ConnectionId,
        negotiated: &Negotiated,
        now: Instant,
    ) {
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

    /// A session is down: the routes of these families stay for this long, the others go.
    pub(super) fn down(
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

    /// A neighbour has sent all of its routes of a family (RFC 4724 section 2): what is still stale goes.
    pub(super) fn handle_end_of_rib(&mut self, peer: PeerId, family: Family) {
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

    /// Everything of our own that follows from what the neighbours told has been given to [`Speaker::originate`].
    pub fn routes_complete(&mut self, now: Instant) {
        self.routes_complete = true;
        self.check_converged(now);
    }

    /// True once the routes of all neighbours are there, or have been waited for long enough.
    pub fn has_converged(&self) -> bool {
        self.converging.is_none()
    }

    /// Ends the wait after our own start, when everything is there or time is over (RFC 4724 section 4.1).
    pub(super) fn check_converged(&mut self, now: Instant) {
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
}
