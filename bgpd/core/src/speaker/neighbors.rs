//! The neighbours: which there are, how they do, and what an administrator does to them.

use std::net::IpAddr;
use std::time::Instant;

use weft_bgp_wire::{Asn, Family, Notification, cease};

use super::signing::Signing;
use super::types::{NeighborChanges, NeighborConfig, NeighborStatus, Password};
use super::{Neighbor, Speaker};
use crate::rib::{PeerConfig, PeerId, PeerKind};
use crate::session::{Session, SessionConfig, State};

impl Speaker {
    /// Brings the neighbours in line with these: what is new is added, what is no longer there goes with a Cease, and of the
    /// others those sessions start anew that are to be different ones. A description, and what becomes of routes from the
    /// neighbour, change under a session that stays; it is asked for its routes again where that takes them (RFC 2918). Another
    /// export policy is told to it by what differs.
    pub fn set_neighbors(&mut self, wanted: Vec<NeighborConfig>, now: Instant) -> NeighborChanges {
        let mut changes = NeighborChanges::default();
        let mut wanted = wanted;
        let configured = wanted.len();
        for one in self.dynamic_neighbors() {
            if wanted[..configured]
                .iter()
                .all(|it| it.address != one.address)
            {
                wanted.push(one);
            }
        }
        for (peer, address) in self.addresses() {
            if wanted.iter().all(|one| one.address != address) {
                self.remove_neighbor(peer, now);
                changes.removed += 1;
            }
        }
        let asn = self.config.asn;
        let mut exports = Vec::new();
        for (at, config) in wanted.into_iter().enumerate() {
            let dynamic = at >= configured;
            let Some(peer) = self.find(config.address) else {
                self.add_neighbor(config, now);
                changes.added += 1;
                continue;
            };
            let Some(neighbor) = self.neighbor_mut(peer) else {
                continue;
            };
            neighbor.dynamic = dynamic;
            if neighbor.config == config {
                continue;
            }
            let transition = neighbor.config.transition(&config);
            if transition.restarts {
                // It is back at once: a neighbour that knows graceful restart keeps our routes until then (RFC 8538 section 4).
                let changed = Notification::cease(cease::CONFIGURATION_CHANGE, "");
                neighbor.session.stop(now, changed);
                self.remove(peer, now);
                let peer = self.add(config, dynamic, now);
                if let Some(neighbor) = self.neighbor_mut(peer) {
                    neighbor.expect(now);
                }
                self.retime(peer);
                changes.restarted += 1;
                continue;
            }
            let shutdown = (&neighbor.config.shutdown, &config.shutdown);
            match shutdown {
                (None, Some(communication)) => {
                    let shutdown = Notification::cease(cease::ADMIN_SHUTDOWN, communication);
                    neighbor.stop(shutdown, now);
                    neighbor.awaited.clear();
                }
                (Some(_), None) => neighbor.session.start(),
                _ if neighbor.config.max_prefixes != config.max_prefixes => {
                    neighbor.session.retry();
                }
                _ => {}
            }
            let keys = |one: &NeighborConfig| (one.password.clone(), one.next_password.clone());
            let other_keys = keys(&neighbor.config) != keys(&config);
            if other_keys {
                neighbor.signing = Signing::new(now);
            }
            if transition.announces {
                exports.push((peer, config.export.clone()));
            }
            neighbor.config = config;
            let import = peer_config(asn, &neighbor.config);
            let asked =
                !transition.refreshes || neighbor.session.state() != State::Established || {
                    let families = neighbor.config.families.clone();
                    families
                        .into_iter()
                        .all(|family| neighbor.session.request_refresh(family))
                };
            self.membership += u64::from(other_keys);
            self.rib.set_import(peer, &import);
            if asked {
                changes.changed += 1;
                self.drain(peer, now);
            } else {
                changes.restarted += 1;
                self.reset(peer, "the import policy has changed", now);
            }
        }
        if !exports.is_empty() {
            self.rib.set_exports(&exports);
        }
        self.former.clear();
        self.check_converged(now);
        changes
    }

    /// Adds a neighbour and starts its session.
    pub fn add_neighbor(&mut self, config: NeighborConfig, now: Instant) -> PeerId {
        self.add(config, false, now)
    }

    pub(super) fn add(&mut self, config: NeighborConfig, dynamic: bool, now: Instant) -> PeerId {
        // What is known of a dynamic neighbour by its number may be known for a while yet, and is the same for all of its group.
        let group = config.group.as_ref().filter(|_| dynamic);
        let free = |at: &usize| {
            let former = self.former.get(at);
            self.neighbors[*at].is_none() && (former.is_none() || former == group)
        };
        let at = (1..self.neighbors.len()).find(free);
        let at = at.unwrap_or(self.neighbors.len());
        let peer = PeerId(at as u16);
        self.rib
            .add_peer(peer, peer_config(self.config.asn, &config));
        self.next_seed = self
            .next_seed
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        let session = SessionConfig {
            local_asn: config.as_path.presented(self.config.asn),
            router_id: self.config.router_id,
            peer_asn: config.asn,
            hold_time: config.hold_time,
            connect_retry: config.connect_retry,
            passive: config.passive,
            families: config.families.clone(),
            add_path_send: config.add_path_send,
            add_path_receive: config.add_path_receive,
            graceful_restart: config.graceful_restart,
            role: config.role,
            role_strict: config.role_strict,
            // Over IPv4 there is a next hop of IPv4, or none is needed.
            extended_next_hop: config.address.is_ipv6()
                && config.families.contains(&Family::Ipv4Unicast),
        };
        let mut session = Session::new(
            session,
            self.next_seed,
            self.config.restarting && self.converging.is_some(),
        );
        match &config.shutdown {
            None => session.start(),
            Some(_) => session.stop(now, Notification::cease(cease::ADMIN_SHUTDOWN, "")),
        }
        let helpers = self.config.helpers.as_ref();
        let awaited = match config.shutdown.is_none()
            && helpers.is_none_or(|helpers| helpers.contains(&config.address))
        {
            true => config.families.clone(),
            false => Vec::new(),
        };
        let neighbor = Neighbor {
            config,
            session,
            since: None,
            flaps: 0,
            stale: None,
            awaited,
            unheard: Vec::new(),
            refreshing: Vec::new(),
            refused: false,
            updates: 0,
            problems: 0,
            dynamic,
            expires: None,
            signing: Signing::new(now),
            due: None,
        };
        if at == self.neighbors.len() {
            self.neighbors.push(None);
        }
        self.neighbors[at] = Some(neighbor);
        self.membership += 1;
        self.drain(peer, now);
        peer
    }

    /// Ends the session with a neighbour for good and forgets it with all of its routes.
    pub fn remove_neighbor(&mut self, peer: PeerId, now: Instant) {
        if let Some(neighbor) = self.neighbor_mut(peer) {
            neighbor.stop(Notification::cease(cease::PEER_DECONFIGURED, ""), now);
        }
        self.remove(peer, now);
    }

    /// Forgets a neighbour whose session has ended, with all of its routes.
    fn remove(&mut self, peer: PeerId, now: Instant) {
        self.drain(peer, now);
        self.rib.remove_peer(peer);
        self.membership += 1;
        if let Some(neighbor) = self
            .neighbors
            .get_mut(peer.0 as usize)
            .and_then(Option::take)
        {
            if let Some(due) = neighbor.due {
                self.timers.remove(&(due, peer));
            }
            let group = neighbor.config.group.filter(|_| neighbor.dynamic);
            if let Some(group) = group {
                self.former.insert(usize::from(peer.0), group);
            }
        }
    }

    /// Another number than before where neighbours have come or gone since, or connections are to have other keys.
    pub fn membership(&self) -> u64 {
        self.membership
    }

    /// Neighbours whose connections are signed, with their secrets.
    pub fn passwords(&self) -> impl Iterator<Item = (IpAddr, &Password)> {
        let neighbors = self.neighbors.iter().flatten();
        neighbors.filter_map(|neighbor| Some((neighbor.config.address, neighbor.password()?)))
    }

    /// What the connections of a neighbour are signed with now.
    pub fn password_of(&self, peer: PeerId) -> Option<&Password> {
        self.neighbors.get(peer.0 as usize)?.as_ref()?.password()
    }

    /// Other secrets of neighbours that are configured, by address: of each the one in force and the one that follows it. The sessions stay.
    pub fn set_passwords(
        &mut self,
        secrets: &dyn Fn(&NeighborConfig) -> [Option<Password>; 2],
        now: Instant,
    ) {
        let neighbors = self.neighbors.iter_mut().flatten();
        for neighbor in neighbors.filter(|one| !one.dynamic) {
            let [password, next] = secrets(&neighbor.config);
            let config = &mut neighbor.config;
            if config.password != password || config.next_password != next {
                (config.password, config.next_password) = (password, next);
                neighbor.signing = Signing::new(now);
                self.membership += 1;
            }
        }
    }

    /// Neighbours that have a next key, with whether they have a session.
    pub fn changing_keys(&self) -> impl Iterator<Item = (PeerId, bool)> {
        let changing = self
            .peers()
            .filter(|(_, neighbor)| neighbor.config.next_password.is_some());
        changing.map(|(peer, neighbor)| (peer, neighbor.session.state() == State::Established))
    }

    /// Segments of such a neighbour come, or none that its key has signed: then the other one is tried after a while, which
    /// [`Speaker::membership`] tells.
    pub fn handle_heard_signed(&mut self, peer: PeerId, heard: bool, now: Instant) {
        let Some(neighbor) = self.neighbor_mut(peer) else {
            return;
        };
        if neighbor.signing.observe(heard, now) {
            self.membership += 1;
        } else if heard && neighbor.signing.probe(now) {
            neighbor.session.probe();
            self.drain(peer, now);
        }
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

    /// The link to a neighbour that is on it lost its carrier, with the interface's name, or has it again.
    pub fn handle_link(&mut self, address: IpAddr, lost: Option<&str>, now: Instant) {
        let Some(peer) = self.find(address) else {
            return;
        };
        if let Some(neighbor) = self.neighbor_mut(peer) {
            match lost {
                Some(interface) => neighbor.session.handle_link_lost(now, interface),
                None => neighbor.session.handle_link_back(now),
            }
        }
        self.drain(peer, now);
    }

    /// BFD says why no packets pass to a neighbour: its session ends, and its routes go. Where BFD shares fate with the neighbour's control
    /// plane and graceful restart is agreed, they stay as the last resort, in case it only restarts (RFC 5882 section 4.3.2).
    pub fn handle_bfd_down(
        &mut self,
        address: IpAddr,
        text: &str,
        shared_fate: bool,
        missed: Option<Instant>,
        now: Instant,
    ) {
        let Some(peer) = self.find(address) else {
            return;
        };
        let Some(neighbor) = self.neighbor_mut(peer) else {
            return;
        };
        if neighbor.session.state() == State::Established {
            neighbor
                .session
                .handle_bfd_down(now, text, shared_fate, missed);
        } else if !shared_fate && let Some(stale) = neighbor.stale.take() {
            // It restarts, and does not forward meanwhile.
            for family in stale.families {
                self.rib.sweep_stale(peer, family);
            }
        }
        self.drain(peer, now);
    }

    /// BFD says that packets pass to a neighbour.
    pub fn handle_bfd_up(&mut self, address: IpAddr, now: Instant) {
        let Some(peer) = self.find(address) else {
            return;
        };
        if let Some(neighbor) = self.neighbor_mut(peer) {
            neighbor.session.handle_bfd_up(now);
        }
        self.drain(peer, now);
    }

    /// Before the process ends to be started again: tells those neighbours that know no graceful restart, whose connections would else
    /// close without a word.
    pub fn take_leave(&mut self, communication: &str, now: Instant) {
        let told: Vec<PeerId> = self
            .peers()
            .filter(|(_, neighbor)| {
                let negotiated = neighbor.session.negotiated();
                negotiated.is_none_or(|negotiated| negotiated.graceful_restart.is_none())
            })
            .map(|(peer, _)| peer)
            .collect();
        for peer in told {
            if let Some(neighbor) = self.neighbor_mut(peer) {
                let shutdown = Notification::cease(cease::ADMIN_SHUTDOWN, communication);
                neighbor.session.stop(now, shutdown);
            }
            self.drain(peer, now);
        }
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
                dynamic: neighbor.dynamic,
                signed: neighbor.password().is_some(),
                state: neighbor.session.state(),
                since: neighbor.since,
                flaps: neighbor.flaps,
                last_reason: neighbor.session.last_reason().clone(),
                negotiated: neighbor.session.negotiated().cloned(),
                stale: neighbor.stale.is_some(),
                updates: neighbor.updates,
                counters: self.rib.counters(peer),
                terms: self.rib.terms(peer),
            })
            .collect()
    }
}

impl Neighbor {
    /// What its connections are signed with now.
    fn password(&self) -> Option<&Password> {
        let config = &self.config;
        let next = config.next_password.as_ref();
        let next = next.filter(|_| self.signing.is_ahead());
        next.or(config.password.as_ref())
    }

    /// Ends the session for good: the neighbour is to drop our routes, whatever was negotiated.
    fn stop(&mut self, notification: Notification, now: Instant) {
        let notification = self.session.for_good(notification);
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
        import: config.import.clone(),
        export: config.export.clone(),
        max_prefixes: config.max_prefixes,
        max_paths: config.max_paths,
        allow_own_as: config.allow_own_as,
        enforce_first_as: config.enforce_first_as,
        accept_martians: config.accept_martians,
        import_class: config.import_class,
        export_class: config.export_class,
        role: config.role,
        as_path: config.as_path,
    }
}
