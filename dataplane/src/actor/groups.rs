//! What routes share: groups of the intent as next-hop objects.

use std::num::NonZeroU16;
use std::time::{Duration, Instant};

use weft_overlay::intent::{Group, GroupId};

use super::paths::for_family;
use super::{Actor, Refused};
use crate::model::{Carrier, Family, NextHop, RouteKey, RouteSpec, Tunnel};

/// Buckets of a group whose flows stay where they are: enough for the shares of a full group to be near to what they should.
const BUCKETS: u16 = 256;
/// The same of a service's, so few that the share of a twin is none.
const SERVICE_BUCKETS: u16 = 128;
/// The share of a way beside its twin.
const MOST: u16 = 256;

/// What routes share, with the kernel's object for each family of their prefixes, made when the first one needs it.
pub(super) struct Shared {
    pub(super) group: Group,
    pub(super) objects: [Option<Result<u32, String>>; 2],
    /// What a packet may have on the narrowest way, where that is less than the device says.
    pub(super) mtu: Option<NonZeroU16>,
}

impl Actor {
    /// Makes or changes what routes share; those that use it already are not touched.
    pub(super) fn set_group(&mut self, id: GroupId, group: Group) {
        self.note_targets();
        for hop in &group.hops.0 {
            let carrier = Carrier::to(hop);
            let peer = (carrier, hop.address, hop.endpoint_id);
            let users = self.peers.entry(peer).or_default();
            self.underlay_changed |= *users == 0;
            self.new_peers |= *users == 0;
            *users += 1;
            if *users == 1 {
                self.ask_path(hop.address);
            }
        }
        let mtu = self.group_mtu(&group);
        let Some(shared) = self.groups.get_mut(&id) else {
            let objects = [None, None];
            self.groups.insert(
                id,
                Shared {
                    group,
                    objects,
                    mtu,
                },
            );
            return;
        };
        let before = std::mem::replace(&mut shared.group, group);
        let mtu_changed = std::mem::replace(&mut shared.mtu, mtu) != mtu;
        self.remake(id);
        if mtu_changed {
            self.follow_group(id);
        }
        self.forget_peers(&before);
    }

    /// Makes the objects of a group again, in place where that can be.
    pub(super) fn remake(&mut self, id: GroupId) {
        for family in [Family::V4, Family::V6] {
            let object = self
                .groups
                .get(&id)
                .and_then(|shared| shared.objects[family as usize].clone());
            let Some(before) = object else { continue };
            let after = self.make_object(id, family, before.as_ref().ok().copied());
            if let Some(shared) = self.groups.get_mut(&id) {
                shared.objects[family as usize] = Some(after.clone());
            }
            if after == before {
                continue;
            }
            // Not in place: the routes have to follow.
            let keys: Vec<RouteKey> = self
                .group_of
                .iter()
                .filter(|(key, group)| **group == id && Family::of(key.prefix) == family)
                .map(|(key, _)| *key)
                .collect();
            for key in keys {
                self.want_again(key, id);
            }
            if let Ok(before) = before {
                self.next_hops.release(before);
            }
        }
    }

    /// Writes the routes of a group again: what packets may have there is less or more than it was.
    fn follow_group(&mut self, id: GroupId) {
        let all = self.group_of.iter();
        let keys: Vec<RouteKey> = all
            .filter(|(_, group)| **group == id)
            .map(|(key, _)| *key)
            .collect();
        for key in keys {
            self.want_again(key, id);
        }
    }

    /// Wants a route of a group as the group is now.
    pub(super) fn want_again(&mut self, key: RouteKey, id: GroupId) {
        let family = Family::of(key.prefix);
        if let Some(shared) = self.groups.get(&id)
            && let Some(object) = shared.objects[family as usize].clone()
        {
            self.want_object(key, object, shared.mtu);
        }
    }

    pub(super) fn remove_group(&mut self, id: GroupId) {
        let Some(shared) = self.groups.remove(&id) else {
            return;
        };
        self.note_targets();
        for object in shared.objects.into_iter().flatten().flatten() {
            self.next_hops.release(object);
        }
        self.forget_peers(&shared.group);
    }

    fn forget_peers(&mut self, group: &Group) {
        for hop in &group.hops.0 {
            let carrier = Carrier::to(hop);
            let peer = (carrier, hop.address, hop.endpoint_id);
            if let Some(count) = self.peers.get_mut(&peer) {
                *count -= 1;
                if *count == 0 {
                    self.underlay_changed = true;
                    self.peers.remove(&peer);
                    if !self.peers.keys().any(|(_, other, _)| *other == hop.address) {
                        self.paths.forget(hop.address);
                    }
                }
            }
        }
    }

    /// The kernel object of a group. `current` is a group object of it that is to say something else now, or one that a
    /// route points to already.
    fn make_object(
        &mut self,
        id: GroupId,
        family: Family,
        current: Option<u32>,
    ) -> Result<u32, String> {
        let Some(Shared { group, .. }) = self.groups.get(&id) else {
            return Err("its ways out are not known".into());
        };
        let group = group.clone();
        let (own, whole) = (self.config.endpoint, self.config.dont_fragment);
        let mut tunnels = Vec::with_capacity(group.hops.0.len());
        let mut refused = None;
        for (at, hop) in group.hops.0.iter().enumerate() {
            let carrier = Carrier::to(hop);
            let weight = group.weights.get(at).copied().unwrap_or(1);
            match self.device_index(carrier) {
                Ok(interface) => {
                    let tunnel = Tunnel::to(hop, family, own, interface, whole);
                    tunnels.push((tunnel, weight));
                }
                Err(error) => refused = Some(error),
            }
        }
        let used = current.filter(|id| self.next_hops.is_used(*id));
        let unused = current.filter(|id| !self.next_hops.is_used(*id));
        // What flows keep to is a group also where it is one way: when others come the flows are in it already.
        let single = !group.sticky;
        match tunnels[..] {
            [] => Err(refused.unwrap_or_else(|| "it has no ways out".into())),
            [(only, _)] if single && !group.has_others => Ok(self.next_hops.tunnel(only)),
            [(only, _)] if single && !group.may_share => Ok(match used {
                Some(id) if self.next_hops.retunnel(id, only) => id,
                _ => self.next_hops.slot(only, unused),
            }),
            _ => {
                let members: Vec<(u32, u16)> = match tunnels[..] {
                    // The kernel does not see what flows through a group of one over IPv4, and would give it to whoever
                    // comes: a twin without a share makes it two.
                    [(only, _)] if group.sticky => {
                        vec![
                            (self.next_hops.tunnel(only), MOST),
                            (self.next_hops.twin(only), 1),
                        ]
                    }
                    _ => tunnels
                        .into_iter()
                        .map(|(tunnel, weight)| (self.next_hops.tunnel(tunnel), weight))
                        .collect(),
                };
                let is_group =
                    |id: &u32| matches!(self.next_hops.get(*id), Some(NextHop::Group { .. }));
                Ok(match used.filter(is_group) {
                    Some(id) => {
                        self.next_hops.regroup(id, members);
                        id
                    }
                    None => {
                        let buckets = match (group.sticky, self.config.resilient) {
                            (true, _) => SERVICE_BUCKETS,
                            (false, true) => BUCKETS,
                            (false, false) => 0,
                        };
                        self.next_hops.group(members, buckets, unused)
                    }
                })
            }
        }
    }

    /// Wants a tenant route to what a group stands for.
    pub(super) fn want_via_group(&mut self, key: RouteKey, id: GroupId) {
        let family = Family::of(key.prefix);
        let Some(shared) = self.groups.get(&id) else {
            // Gone again by the end of this change.
            self.group_of.remove(&key);
            return self.unwant(key);
        };
        let object = match &shared.objects[family as usize] {
            Some(object) => object.clone(),
            None => {
                // What a route of an earlier process points to may say the same.
                let known = match self.held.get(&key) {
                    Some(RouteSpec::NextHop { id, .. }) if !self.next_hops.is_used(*id) => {
                        Some(*id)
                    }
                    _ => None,
                };
                let object = self.make_object(id, family, known);
                if let Some(shared) = self.groups.get_mut(&id) {
                    shared.objects[family as usize] = Some(object.clone());
                }
                object
            }
        };
        let mtu = self.groups.get(&id).and_then(|shared| shared.mtu);
        self.group_of.insert(key, id);
        self.want_object(key, object, mtu);
    }

    fn want_object(&mut self, key: RouteKey, object: Result<u32, String>, mtu: Option<NonZeroU16>) {
        match object {
            Ok(id) => {
                let mtu = for_family(mtu, Family::of(key.prefix));
                self.want(key, RouteSpec::NextHop { id, mtu });
            }
            Err(error) => {
                self.unwant(key);
                // No retry helps: it is tried again when the intent changes.
                let retry_at = Instant::now() + Duration::from_secs(86_400);
                let refused = Refused {
                    error,
                    tries: 1,
                    retry_at,
                    taken: false,
                };
                self.refuse(key, refused);
            }
        }
    }
}
