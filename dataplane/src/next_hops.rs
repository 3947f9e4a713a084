//! Numbers of next-hop objects: found again after a restart by what the objects are.

use std::hash::BuildHasher;

use rustc_hash::{FxBuildHasher, FxHashMap};

use crate::model::NextHop;

/// Our range of ids: the upper octet of all of them.
const RANGE: u32 = 0x5700_0000;

struct Object {
    next_hop: NextHop,
    references: u32,
    in_kernel: bool,
}

/// Every next-hop object of ours.
#[derive(Default)]
pub(crate) struct NextHops {
    ids: FxHashMap<NextHop, u32>,
    objects: FxHashMap<u32, Object>,
}

impl NextHops {
    /// The kernel holds this one.
    pub(crate) fn adopt(&mut self, id: u32, next_hop: NextHop) {
        self.ids.insert(next_hop.clone(), id);
        let references = self.objects.get(&id).map_or(0, |object| object.references);
        self.objects.insert(
            id,
            Object {
                next_hop,
                references,
                in_kernel: true,
            },
        );
    }

    /// Nothing is known of the kernel's any more.
    pub(crate) fn forget_kernel(&mut self) {
        self.objects
            .values_mut()
            .for_each(|object| object.in_kernel = false);
        self.drop_unknown();
    }

    fn drop_unknown(&mut self) {
        self.objects
            .retain(|_, object| object.in_kernel || object.references > 0);
        let objects = &self.objects;
        self.ids.retain(|_, id| objects.contains_key(id));
    }

    /// The id of an object, made where there is none; one reference more.
    pub(crate) fn acquire(&mut self, next_hop: NextHop) -> u32 {
        if let Some(&id) = self.ids.get(&next_hop) {
            if let Some(object) = self.objects.get_mut(&id) {
                object.references += 1;
            }
            return id;
        }
        // Where the hash says, or the next free number behind it.
        let start = FxBuildHasher.hash_one(&next_hop) as u32 & 0x00ff_ffff;
        let id = (0..=0x00ff_ffff)
            .map(|step| RANGE | (start.wrapping_add(step) & 0x00ff_ffff))
            .find(|id| *id != RANGE && !self.objects.contains_key(id))
            .unwrap_or(RANGE | 1);
        self.ids.insert(next_hop.clone(), id);
        self.objects.insert(
            id,
            Object {
                next_hop,
                references: 1,
                in_kernel: false,
            },
        );
        id
    }

    /// One reference less.
    pub(crate) fn release(&mut self, id: u32) {
        if let Some(object) = self.objects.get_mut(&id) {
            object.references = object.references.saturating_sub(1);
        }
    }

    pub(crate) fn get(&self, id: u32) -> Option<&NextHop> {
        Some(&self.objects.get(&id)?.next_hop)
    }

    /// Objects to make: those that others are made of first.
    pub(crate) fn missing(&self) -> Vec<u32> {
        let mut missing: Vec<u32> = self
            .objects
            .iter()
            .filter(|(_, object)| object.references > 0 && !object.in_kernel)
            .map(|(id, _)| *id)
            .collect();
        missing.sort_by_key(|id| (self.is_group(*id), *id));
        missing
    }

    /// Objects that nobody refers to: those that are made of others first.
    pub(crate) fn unused(&self) -> Vec<u32> {
        let mut unused: Vec<u32> = self
            .objects
            .iter()
            .filter(|(_, object)| object.references == 0)
            .map(|(id, _)| *id)
            .collect();
        unused.sort_by_key(|id| (!self.is_group(*id), *id));
        unused
    }

    fn is_group(&self, id: u32) -> bool {
        self.get(id)
            .is_some_and(|next_hop| matches!(next_hop.kind, crate::model::NextHopKind::Group(_)))
    }

    pub(crate) fn made(&mut self, id: u32) {
        if let Some(object) = self.objects.get_mut(&id) {
            object.in_kernel = true;
        }
    }

    pub(crate) fn removed(&mut self, id: u32) {
        if let Some(object) = self.objects.remove(&id) {
            self.ids.remove(&object.next_hop);
        }
    }

    pub(crate) fn in_kernel(&self) -> usize {
        self.objects
            .values()
            .filter(|object| object.in_kernel)
            .count()
    }
}
