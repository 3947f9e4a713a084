//! Graceful restart in both roles (RFC 4724, RFC 8538): what stays of a neighbour that is away, and what is awaited after our own start.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use weft_bgp_wire::{Family, RouteRefresh, cease, error_code};

use super::types::{Action, Awaited};
use super::{Neighbor, Speaker, Stale};
use crate::rib::{PeerDown, PeerId, PeerUp};
use crate::session::{ConnectionId, DownReason, Negotiated, Retained, State};

/// After a restarted neighbour is back, it has this long to send its routes before stale ones go: End-of-RIB normally
/// comes long before.
const STALE_TIME: Duration = Duration::from_secs(360);

/// After our start, a neighbour that no connection reaches is waited for this long: others should not have to wait for one that is down.
const UNREACHABLE: Duration = Duration::from_secs(15);

/// The same for one whose host answers: what refuses connections now may be about to listen.
const REFUSED: Duration = Duration::from_secs(60);

/// The wait for the neighbours' routes after our own start (RFC 4724 section 4.1).
#[derive(Clone, Copy)]
pub(super) struct Deferral {
    since: Instant,
    until: Instant,
    /// When to look next whom patience with is over.
    pub(super) due: Instant,
}

impl Deferral {
    pub(super) fn new(now: Instant, longest: Duration) -> Self {
        let until = now + longest;
        Self {
            since: now,
            until,
            due: until.min(now + UNREACHABLE),
        }
    }

    fn put_off(&mut self, now: Instant) {
        let next = [UNREACHABLE, REFUSED]
            .map(|patience| self.since + patience)
            .into_iter()
            .find(|due| *due > now);
        self.due = next.map_or(self.until, |next| next.min(self.until));
    }

    /// Whether the routes of a neighbour are to be waited for, still.
    fn waits_for(&self, neighbor: &Neighbor, now: Instant) -> bool {
        if neighbor.awaited.is_empty() {
            return false;
        }
        let waited = now.saturating_duration_since(self.since);
        let patience = match neighbor.session.state() {
            State::Established => return true,
            State::OpenSent | State::OpenConfirm => REFUSED,
            _ if neighbor.refused => REFUSED,
            _ => UNREACHABLE,
        };
        waited < patience
    }
}

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
        neighbor.expires = None;
        let restart = negotiated.graceful_restart.as_ref();
        // RFC 4724 section 4.2: what the neighbour did not preserve over its restart, or does not speak of any more, goes now.
        let preserved = |family: &Family| {
            negotiated.families.contains(family)
                && restart.is_some_and(|restart| {
                    restart.families.iter().any(|one| {
                        one.afi_safi == (family.afi(), family.safi()) && one.forwarding_preserved
                    })
                })
        };
        let mut lost = Vec::new();
        if let Some(stale) = &mut neighbor.stale {
            let families = std::mem::take(&mut stale.families).into_iter();
            (stale.families, lost) = families.partition(preserved);
            stale.until = stale.limit.min(now + STALE_TIME);
        }
        neighbor.stale.take_if(|stale| stale.families.is_empty());
        // Who sends no End-of-RIB, or has just restarted and waits for ours, is not waited for.
        neighbor
            .awaited
            .retain(|family| negotiated.families.contains(family));
        if restart.is_none_or(|restart| restart.restarting) {
            neighbor.awaited.clear();
        }
        neighbor.unheard = match restart {
            Some(_) => negotiated.families.clone(),
            None => Vec::new(),
        };
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
                local_address: local.address,
                local_address_v6,
                shared_link: local.shared_link,
                enhanced_refresh: negotiated.enhanced_refresh,
                extended_next_hop: negotiated.extended_next_hop,
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
        retain: Option<Retained>,
        now: Instant,
    ) {
        let Some(neighbor) = self.neighbor_mut(peer) else {
            return;
        };
        neighbor.since = Some(now);
        neighbor.flaps += 1;
        neighbor.expect(now);
        neighbor.refreshing.clear();
        let state = neighbor.session.state();
        let down = match retain {
            Some(retained) => {
                let Retained {
                    families,
                    time,
                    notification,
                } = retained;
                // RFC 8538 section 4.1: what is stale already stays, but no longer than it would have.
                let before = neighbor.stale.take().filter(|_| notification);
                let limit = before.map_or(now + time + STALE_TIME, |before| before.limit);
                neighbor.stale = Some(Stale {
                    families: families.clone(),
                    until: limit.min(now + time),
                    limit,
                });
                PeerDown::KeepStale {
                    families,
                    older: notification,
                }
            }
            None => {
                neighbor.stale = None;
                PeerDown::Flush
            }
        };
        // Here or there, BFD says that no packets pass.
        let doubtful = matches!(down, PeerDown::KeepStale { .. })
            && match &reason {
                DownReason::BfdDown { .. } => true,
                DownReason::NotificationReceived(told) => {
                    (told.code, told.subcode) == (error_code::CEASE, cease::BFD_DOWN)
                }
                _ => false,
            };
        self.rib.peer_down(peer, down);
        if doubtful {
            self.rib.set_last_resort(peer, true);
        }
        self.actions.push_back(Action::Neighbor {
            peer,
            state,
            reason: Some(reason),
        });
    }

    /// The neighbour asks for our routes, or says that it begins or ends to send its own again (RFC 7313 section 4).
    pub(super) fn handle_refresh(&mut self, peer: PeerId, refresh: RouteRefresh, now: Instant) {
        let Some(family) = Family::from_afi_safi(refresh.afi, refresh.safi) else {
            return;
        };
        let Some(neighbor) = self.neighbor_mut(peer) else {
            return;
        };
        let Some((true, enhanced)) = neighbor.session.negotiated().map(|negotiated| {
            let spoken = negotiated.families.contains(&family);
            (spoken, negotiated.enhanced_refresh)
        }) else {
            return;
        };
        match refresh.subtype {
            RouteRefresh::REQUEST => self.rib.readvertise(peer, family),
            // Before the End-of-RIB of a graceful restart it is ignored. One that comes before the last has ended begins anew.
            RouteRefresh::BEGIN if enhanced && !neighbor.unheard.contains(&family) => {
                neighbor.refreshing.retain(|(other, _)| *other != family);
                neighbor.refreshing.push((family, now + STALE_TIME));
                self.rib.mark_stale(peer, family);
            }
            RouteRefresh::END if enhanced => {
                let begun = neighbor.refreshing.len();
                neighbor.refreshing.retain(|(other, _)| *other != family);
                if neighbor.refreshing.len() < begun {
                    self.rib.sweep_stale(peer, family);
                }
            }
            _ => {}
        }
    }

    /// A neighbour has sent all of its routes of a family (RFC 4724 section 2): what is still stale goes.
    pub(super) fn handle_end_of_rib(&mut self, peer: PeerId, family: Family) {
        self.rib.sweep_stale(peer, family);
        if let Some(neighbor) = self.neighbor_mut(peer) {
            neighbor.awaited.retain(|awaited| *awaited != family);
            neighbor.unheard.retain(|unheard| *unheard != family);
            if let Some(stale) = &mut neighbor.stale {
                stale.families.retain(|stale| *stale != family);
            }
            neighbor.stale.take_if(|stale| stale.families.is_empty());
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

    /// Whom the wait after our own start is for; `None` where it is over.
    pub fn awaited(&self, now: Instant) -> Option<Awaited> {
        let deferral = self.converging?;
        let neighbors = self.neighbors.iter().flatten();
        Some(Awaited {
            neighbors: neighbors
                .filter(|neighbor| deferral.waits_for(neighbor, now))
                .map(|neighbor| neighbor.config.address)
                .collect(),
            at_most: deferral.until.saturating_duration_since(now),
        })
    }

    /// Neighbours that would keep our routes over a restart: those that have a session with graceful restart, and those that had
    /// one before this start and are waited for.
    pub fn helpers(&self, now: Instant) -> BTreeSet<IpAddr> {
        let is_helper = |neighbor: &&Neighbor| match neighbor.session.negotiated() {
            Some(negotiated) => negotiated.graceful_restart.is_some(),
            // At a first start nobody had one; at another it may not be known who had.
            None => {
                let address = &neighbor.config.address;
                let helped = match &self.config.helpers {
                    Some(helped) => helped.contains(address),
                    None => self.config.restarting,
                };
                helped
                    && self
                        .converging
                        .is_some_and(|deferral| deferral.waits_for(neighbor, now))
            }
        };
        let neighbors = self.neighbors.iter().flatten().filter(is_helper);
        neighbors.map(|neighbor| neighbor.config.address).collect()
    }

    /// Ends the wait after our own start, when everything is there or time is over (RFC 4724 section 4.1).
    pub(super) fn check_converged(&mut self, now: Instant) {
        let Some(deferral) = self.converging else {
            return;
        };
        // A route whose next hop is still being looked up would be missing from what we announce, and End-of-RIB behind
        // it would make the neighbours drop it.
        let heard = !self.rib.awaits_next_hops()
            && self
                .peers()
                .all(|(_, neighbor)| !deferral.waits_for(neighbor, now));
        if heard && self.config.awaits_routes && !self.heard {
            self.heard = true;
            self.actions.push_back(Action::Heard);
        }
        if (heard && self.routes_complete) || deferral.until <= now {
            let complete = heard
                && self
                    .peers()
                    .all(|(_, neighbor)| neighbor.awaited.is_empty());
            self.converging = None;
            self.rib.release();
            for neighbor in self.neighbors.iter_mut().flatten() {
                neighbor.session.restart_is_over();
            }
            self.actions.push_back(Action::Converged { complete });
        } else if let Some(deferral) = &mut self.converging {
            deferral.put_off(now);
        }
    }
}
