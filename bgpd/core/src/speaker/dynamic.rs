//! Dynamic neighbours: whoever connects from a prefix that a group of neighbours listens for.
//!
//! Such a neighbour is made when its connection is there, and forgotten when its session has been down for [`LINGER`] and nothing of it is
//! kept: what connects costs a bounded amount of memory, and never more than the group's limit.

#[cfg(test)]
mod tests;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ipnet::IpNet;

use super::types::{DynamicGroup, DynamicRefusal, NeighborConfig};
use super::{Neighbor, Speaker};
use crate::rib::PeerId;
use crate::session::State;

/// A dynamic neighbour has this long to come to a session; and for so long it is known why its last session ended.
const LINGER: Duration = Duration::from_secs(30);

/// Neighbours of all sorts: their numbers have 16 bits.
const MOST: usize = 60_000;

impl DynamicGroup {
    /// The configuration of the neighbour that connects from this address.
    fn neighbor(&self, address: IpAddr) -> NeighborConfig {
        NeighborConfig {
            address,
            passive: true,
            group: Some(Arc::clone(&self.name)),
            ..self.template.clone()
        }
    }
}

impl Neighbor {
    /// A dynamic neighbour has a session, or is about to: it was made, or its session ended, just now.
    pub(super) fn expect(&mut self, now: Instant) {
        self.expires = self.dynamic.then(|| now + LINGER);
    }

    /// When a dynamic neighbour is to be looked at for being forgotten.
    pub(super) fn forgotten_at(&self) -> Option<Instant> {
        let idle = self.session.state() != State::Established && self.stale.is_none();
        self.expires.filter(|_| self.dynamic && idle)
    }
}

impl Speaker {
    /// Groups that neighbours may join by connecting, from now on. To be told before [`Speaker::set_neighbors`], which brings those that
    /// are there in line.
    pub fn set_dynamic(&mut self, groups: Vec<DynamicGroup>) {
        if self.dynamic != groups {
            self.dynamic = groups;
            self.membership += 1;
        }
        // What is known of them by their numbers is learned anew.
        self.former.clear();
    }

    /// The prefixes that neighbours may connect from, with the group of each.
    pub fn listening(&self) -> impl Iterator<Item = (IpNet, &DynamicGroup)> {
        let groups = self.dynamic.iter();
        groups.flat_map(|group| group.prefixes.iter().map(move |prefix| (*prefix, group)))
    }

    /// The group of an address: that of the longest prefix.
    pub(super) fn group_of(&self, address: IpAddr) -> Option<&DynamicGroup> {
        let inside = self
            .listening()
            .filter(|(prefix, _)| prefix.contains(&address));
        inside
            .max_by_key(|(prefix, _)| prefix.prefix_len())
            .map(|(_, group)| group)
    }

    /// The dynamic neighbours that there are, as their groups have them now.
    pub(super) fn dynamic_neighbors(&self) -> Vec<NeighborConfig> {
        let dynamic = self.peers().filter(|(_, neighbor)| neighbor.dynamic);
        let configs = dynamic.filter_map(|(_, neighbor)| {
            let address = neighbor.config.address;
            Some(self.group_of(address)?.neighbor(address))
        });
        configs.collect()
    }

    /// The addresses of dynamic neighbours, each with its group.
    pub fn dynamic(&self) -> Vec<(IpAddr, Arc<str>)> {
        let dynamic = self.peers().filter(|(_, neighbor)| neighbor.dynamic);
        let named =
            dynamic.filter_map(|(_, one)| Some((one.config.address, one.config.group.clone()?)));
        named.collect()
    }

    /// Somebody connects who is no neighbour yet, and may be one from now on.
    ///
    /// # Errors
    /// No group listens for it, or its group is full.
    pub fn accept_dynamic(
        &mut self,
        address: IpAddr,
        now: Instant,
    ) -> Result<PeerId, DynamicRefusal> {
        let group = self
            .group_of(address)
            .ok_or(DynamicRefusal::NoGroup)?
            .clone();
        let members = self.peers().filter(|(_, one)| {
            one.dynamic && one.config.group.as_deref() == Some(group.name.as_ref())
        });
        let members: Vec<(PeerId, bool)> = members
            .map(|(peer, one)| (peer, one.forgotten_at().is_some() && one.is_idle(now)))
            .collect();
        let room = members.len() < group.limit as usize && self.peers().count() < MOST;
        if !room {
            // One that is gone, and remembered, makes room.
            let gone = members.iter().find(|(_, idle)| *idle);
            let Some((gone, _)) = gone else {
                return Err(DynamicRefusal::Full {
                    group: group.name,
                    limit: group.limit,
                });
            };
            self.remove_neighbor(*gone, now);
        }
        let peer = self.add_dynamic(group.neighbor(address), now);
        self.retime(peer);
        Ok(peer)
    }

    fn add_dynamic(&mut self, config: NeighborConfig, now: Instant) -> PeerId {
        let peer = self.add(config, true, now);
        if let Some(neighbor) = self.neighbor_mut(peer) {
            neighbor.expect(now);
        }
        peer
    }

    /// After a restart: those dynamic neighbours that had a session before are awaited as the others are.
    pub fn expect_dynamic(&mut self, now: Instant) {
        let helpers = self.config.helpers.clone().unwrap_or_default();
        for address in helpers {
            if self.find(address).is_none()
                && let Ok(peer) = self.accept_dynamic(address, now)
            {
                // It comes back within its own time, or is forgotten.
                let deferral = self.config.deferral;
                if let Some(neighbor) = self.neighbor_mut(peer) {
                    neighbor.expires = Some(now + deferral);
                }
                self.retime(peer);
            }
        }
    }

    /// Forgets a dynamic neighbour whose time is over.
    pub(super) fn forget_dynamic(&mut self, peer: PeerId, now: Instant) {
        let Some(neighbor) = self.neighbor_mut(peer) else {
            return;
        };
        if neighbor.forgotten_at().is_none_or(|due| now < due) {
            return;
        }
        // One that is kept out for what it did (RFC 4486) is not let in anew by being forgotten.
        if neighbor.session.is_barred(now) {
            neighbor.expires = Some(now + LINGER);
            self.retime(peer);
            return;
        }
        self.remove_neighbor(peer, now);
    }
}

impl Neighbor {
    /// There is no connection with it, and it may come back at any time.
    fn is_idle(&self, now: Instant) -> bool {
        !self.session.has_connections() && !self.session.is_barred(now)
    }
}
