//! Next-hop objects: what the kernel is to hold, what it holds, and their numbers.
//!
//! A tunnel is found again after a restart by what it is. A group stands for routes that share their ways, and what it
//! is made of changes under them; it is found again by the routes that point to it.

use std::collections::BTreeSet;
use std::hash::BuildHasher;

use rustc_hash::{FxBuildHasher, FxHashMap};

use crate::RANGE;
use crate::model::{NextHop, Tunnel};

struct Object {
    wanted: NextHop,
    held: Option<NextHop>,
    references: u32,
}

/// Every next-hop object of ours.
#[derive(Default)]
pub(crate) struct NextHops {
    tunnels: FxHashMap<Tunnel, u32>,
    objects: FxHashMap<u32, Object>,
    /// Objects whose kernel side may have to change.
    dirty: BTreeSet<u32>,
    in_kernel: usize,
}

impl NextHops {
    /// This is what the kernel holds.
    pub(crate) fn adopt_all(&mut self, held: Vec<(u32, NextHop)>) {
        for object in self.objects.values_mut() {
            object.held = None;
        }
        self.in_kernel = held.len();
        for (id, next_hop) in held {
            match self.objects.get_mut(&id) {
                Some(object) => object.held = Some(next_hop),
                None => {
                    if let NextHop::Tunnel(tunnel) = &next_hop {
                        self.tunnels.entry(*tunnel).or_insert(id);
                    }
                    let object = Object {
                        wanted: next_hop.clone(),
                        held: Some(next_hop),
                        references: 0,
                    };
                    self.objects.insert(id, object);
                }
            }
        }
        self.dirty = self.objects.keys().copied().collect();
    }

    /// The id of a tunnel's object, made where there is none; one reference more.
    pub(crate) fn tunnel(&mut self, tunnel: Tunnel) -> u32 {
        if let Some(&id) = self.tunnels.get(&tunnel) {
            self.refer(id);
            return id;
        }
        let id = self.free_id(FxBuildHasher.hash_one(tunnel));
        self.tunnels.insert(tunnel, id);
        self.insert(id, NextHop::Tunnel(tunnel));
        id
    }

    /// A tunnel of routes that will go another way some day: the object is theirs alone, so that it can be another tunnel
    /// then. `known` is an object that a route of them points to already.
    pub(crate) fn slot(&mut self, tunnel: Tunnel, known: Option<u32>) -> u32 {
        let wanted = NextHop::Tunnel(tunnel);
        if let Some(id) = known.filter(|id| self.is_unclaimed(*id, &wanted)) {
            if self.tunnels.get(&tunnel) == Some(&id) {
                self.tunnels.remove(&tunnel);
            }
            self.refer(id);
            return id;
        }
        let id = self.free_id(FxBuildHasher.hash_one(tunnel));
        self.insert(id, wanted);
        id
    }

    /// A second object that is the same as a tunnel's; one reference more.
    pub(crate) fn twin(&mut self, tunnel: Tunnel) -> u32 {
        let wanted = NextHop::Tunnel(tunnel);
        let first = self.tunnels.get(&tunnel);
        let twin = |(id, object): (&u32, &Object)| {
            (object.wanted == wanted && first != Some(id)).then_some(*id)
        };
        if let Some(id) = self.objects.iter().find_map(twin) {
            self.refer(id);
            return id;
        }
        let id = self.free_id(FxBuildHasher.hash_one(tunnel));
        self.insert(id, wanted);
        id
    }

    /// Makes what [`NextHops::slot`] gave another tunnel of the same family; false where it is none such.
    pub(crate) fn retunnel(&mut self, id: u32, tunnel: Tunnel) -> bool {
        match self.objects.get_mut(&id) {
            Some(Object {
                wanted: NextHop::Tunnel(before),
                ..
            }) if before.family == tunnel.family && self.tunnels.get(before) != Some(&id) => {
                *before = tunnel;
                self.dirty.insert(id);
                true
            }
            _ => false,
        }
    }

    /// The kernel holds it, it says this, and it is nobody's.
    fn is_unclaimed(&self, id: u32, wanted: &NextHop) -> bool {
        self.objects
            .get(&id)
            .is_some_and(|object| object.references == 0 && object.held.as_ref() == Some(wanted))
    }

    /// A group of objects, whose references it takes over. `known` is a group that a route of it points to already: that
    /// one it is, where it is nobody's and says the same.
    pub(crate) fn group(
        &mut self,
        mut members: Vec<(u32, u16)>,
        buckets: u16,
        known: Option<u32>,
    ) -> u32 {
        members.sort_unstable();
        let wanted = NextHop::Group { members, buckets };
        if let Some(id) = known.filter(|id| self.is_unclaimed(*id, &wanted)) {
            self.refer(id);
            return id;
        }
        let id = self.free_id(FxBuildHasher.hash_one(&wanted));
        self.insert(id, wanted);
        id
    }

    /// Makes a group of other objects, whose references it takes over; gives up those that it had.
    pub(crate) fn regroup(&mut self, id: u32, mut members: Vec<(u32, u16)>) {
        members.sort_unstable();
        let Some(NextHop::Group {
            members: before, ..
        }) = self.objects.get_mut(&id).map(|object| &mut object.wanted)
        else {
            return;
        };
        let before = std::mem::replace(before, members);
        self.dirty.insert(id);
        for (member, _) in before {
            self.release(member);
        }
    }

    fn insert(&mut self, id: u32, wanted: NextHop) {
        let object = Object {
            wanted,
            held: None,
            references: 1,
        };
        self.objects.insert(id, object);
        self.dirty.insert(id);
    }

    fn refer(&mut self, id: u32) {
        if let Some(object) = self.objects.get_mut(&id) {
            object.references += 1;
            self.dirty.insert(id);
        }
    }

    /// Where the hash says, or the next free number behind it.
    fn free_id(&self, hash: u64) -> u32 {
        let start = hash as u32 & 0x00ff_ffff;
        (0..=0x00ff_ffff)
            .map(|step| RANGE | (start.wrapping_add(step) & 0x00ff_ffff))
            .find(|id| *id != RANGE && !self.objects.contains_key(id))
            .unwrap_or(RANGE | 1)
    }

    /// One reference less; a group that nobody refers to gives up its members.
    pub(crate) fn release(&mut self, id: u32) {
        let Some(object) = self.objects.get_mut(&id) else {
            return;
        };
        object.references = object.references.saturating_sub(1);
        if object.references > 0 {
            return;
        }
        self.dirty.insert(id);
        if let NextHop::Group { members, .. } = &object.wanted {
            for (member, _) in members.clone() {
                self.release(member);
            }
        }
    }

    /// Some object that is wanted, or that the kernel holds, leads through a link.
    pub(crate) fn lead_through(&self, link: u32) -> bool {
        let leads = |one: &NextHop| matches!(one, NextHop::Tunnel(one) if one.interface == link);
        let mut all = self.objects.values();
        all.any(|one| {
            one.held.as_ref().is_some_and(leads) || one.references > 0 && leads(&one.wanted)
        })
    }

    /// Something refers to it.
    pub(crate) fn is_used(&self, id: u32) -> bool {
        self.objects
            .get(&id)
            .is_some_and(|object| object.references > 0)
    }

    pub(crate) fn get(&self, id: u32) -> Option<&NextHop> {
        Some(&self.objects.get(&id)?.wanted)
    }

    /// Objects to make or to change: tunnels, then groups, which are made of them.
    pub(crate) fn missing(&self) -> Vec<u32> {
        let mut missing: Vec<u32> = self
            .dirty
            .iter()
            .filter(|id| {
                self.objects.get(id).is_some_and(|object| {
                    object.references > 0 && object.held.as_ref() != Some(&object.wanted)
                })
            })
            .copied()
            .collect();
        missing.sort_by_key(|id| (self.is_group(*id), *id));
        missing
    }

    /// Objects that nobody refers to: groups, then tunnels, which they are made of.
    pub(crate) fn unused(&self) -> Vec<u32> {
        let mut unused: Vec<u32> = self
            .dirty
            .iter()
            .filter(|id| {
                self.objects
                    .get(id)
                    .is_some_and(|object| object.references == 0)
            })
            .copied()
            .collect();
        unused.sort_by_key(|id| (!self.is_group(*id), *id));
        unused
    }

    fn is_group(&self, id: u32) -> bool {
        matches!(self.get(id), Some(NextHop::Group { .. }))
    }

    /// The kernel took it.
    pub(crate) fn made(&mut self, id: u32) {
        if let Some(object) = self.objects.get_mut(&id) {
            self.in_kernel += usize::from(object.held.is_none());
            object.held = Some(object.wanted.clone());
            if object.references > 0 {
                self.dirty.remove(&id);
            }
        }
    }

    /// The kernel holds it no more.
    pub(crate) fn removed(&mut self, id: u32) {
        self.dirty.remove(&id);
        if let Some(object) = self.objects.remove(&id) {
            self.in_kernel -= usize::from(object.held.is_some());
            if let NextHop::Tunnel(tunnel) = object.wanted
                && self.tunnels.get(&tunnel) == Some(&id)
            {
                self.tunnels.remove(&tunnel);
            }
        }
    }

    /// Objects that something refers to.
    pub(crate) fn intended(&self) -> usize {
        let used = self.objects.values().filter(|object| object.references > 0);
        used.count()
    }

    pub(crate) fn in_kernel(&self) -> usize {
        self.in_kernel
    }
}
