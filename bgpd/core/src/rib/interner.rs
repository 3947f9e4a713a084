//! Sets of attributes, each held once.

use std::hash::{BuildHasher, Hash, Hasher};
use std::sync::Arc;

use hashbrown::HashTable;
use rustc_hash::{FxBuildHasher, FxHasher};
use weft_bgp_wire::{AttributesView, Community, NextHop};

use super::next_hop::NextHops;
use super::types::{AttributeKey, AttributeSet, RibConfig};

/// A set of attributes in the interner; valid while a route or the holder counts a reference.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct AttributeId(u32);

struct Slot {
    set: Option<Arc<AttributeSet>>,
    references: u32,
}

/// Sections looked up before they are decoded; a power of two.
const RAW_CACHE: usize = 1024;

struct Raw {
    section: Box<[u8]>,
    context: u8,
    id: AttributeId,
}

/// Holds every distinct (attributes, next hop) once, with reference counts.
pub(crate) struct Interner {
    slots: Vec<Slot>,
    free: Vec<u32>,
    by_content: HashTable<u32>,
    config: RibConfig,
    /// The next hops of all sets.
    pub(crate) next_hops: NextHops,
    /// Direct-mapped: received octets of an attribute section -> what they came to. Routes come in runs of equal
    /// attributes, which need no decoding this way; a small table holds the run and little memory.
    raw: Vec<Option<Raw>>,
}

fn content_hash(octets: &[u8], next_hop: &NextHop) -> u64 {
    let mut hasher = FxHasher::default();
    octets.hash(&mut hasher);
    next_hop.hash(&mut hasher);
    hasher.finish()
}

fn raw_slot(section: &[u8]) -> usize {
    (FxBuildHasher.hash_one(section) >> 20) as usize & (RAW_CACHE - 1)
}

impl Interner {
    pub(crate) fn new(config: RibConfig) -> Self {
        Self {
            slots: Vec::new(),
            free: Vec::new(),
            by_content: HashTable::new(),
            config,
            next_hops: NextHops::default(),
            raw: std::iter::repeat_with(|| None).take(RAW_CACHE).collect(),
        }
    }

    /// The set of an id.
    #[inline]
    pub(crate) fn get(&self, id: AttributeId) -> &Arc<AttributeSet> {
        self.slots[id.0 as usize]
            .set
            .as_ref()
            .expect("a referenced id has its set")
    }

    /// Finds or makes the set; the caller owns one reference.
    pub(crate) fn intern(
        &mut self,
        attributes: AttributesView<'_>,
        next_hop: NextHop,
    ) -> AttributeId {
        let octets = attributes.octets();
        let hash = content_hash(octets, &next_hop);
        let slots = &mut self.slots;
        let found = self.by_content.find(hash, |&at| {
            slots[at as usize]
                .set
                .as_ref()
                .is_some_and(|set| *set.octets == *octets && set.next_hop == next_hop)
        });
        if let Some(&at) = found {
            slots[at as usize].references += 1;
            return AttributeId(at);
        }
        let set = Arc::new(AttributeSet {
            key: key(attributes, &self.config),
            next_hop,
            octets: octets.into(),
        });
        self.next_hops.add(next_hop.address);
        let slot = Slot {
            set: Some(set),
            references: 1,
        };
        let at = match self.free.pop() {
            Some(at) => {
                slots[at as usize] = slot;
                at
            }
            None => {
                slots.push(slot);
                (slots.len() - 1) as u32
            }
        };
        self.by_content.insert_unique(hash, at, |&at| {
            slots[at as usize]
                .set
                .as_ref()
                .map_or(0, |set| content_hash(&set.octets, &set.next_hop))
        });
        AttributeId(at)
    }

    /// One reference more.
    #[inline]
    pub(crate) fn retain(&mut self, id: AttributeId) {
        self.slots[id.0 as usize].references += 1;
    }

    /// One reference less; with the last one the set goes.
    pub(crate) fn release(&mut self, id: AttributeId) {
        let slot = &mut self.slots[id.0 as usize];
        slot.references -= 1;
        if slot.references > 0 {
            return;
        }
        let Some(set) = slot.set.take() else { return };
        self.next_hops.remove(set.next_hop.address);
        let hash = content_hash(&set.octets, &set.next_hop);
        if let Ok(entry) = self.by_content.find_entry(hash, |&at| at == id.0) {
            entry.remove();
        }
        self.free.push(id.0);
        if self.by_content.is_empty() {
            self.slots = Vec::new();
            self.free = Vec::new();
            self.by_content = HashTable::new();
        }
    }

    /// What a section came to when it was last decoded in this context.
    #[inline]
    pub(crate) fn raw(&self, section: &[u8], context: u8) -> Option<AttributeId> {
        let raw = self.raw[raw_slot(section)].as_ref()?;
        (raw.context == context && *raw.section == *section).then_some(raw.id)
    }

    /// Remembers what a section came to; holds a reference while it does.
    pub(crate) fn remember(&mut self, section: &[u8], context: u8, id: AttributeId) {
        self.retain(id);
        let raw = Raw {
            section: section.into(),
            context,
            id,
        };
        if let Some(old) = self.raw[raw_slot(section)].replace(raw) {
            self.release(old.id);
        }
    }

    /// Forgets all remembered sections, so that sets without routes go.
    pub(crate) fn forget(&mut self) {
        for at in 0..self.raw.len() {
            if let Some(old) = self.raw[at].take() {
                self.release(old.id);
            }
        }
    }

    /// Distinct sets.
    pub(crate) fn len(&self) -> usize {
        self.by_content.len()
    }
}

fn key(attributes: AttributesView<'_>, config: &RibConfig) -> AttributeKey {
    let path = attributes.as_path();
    let has = |wanted: Community| {
        attributes
            .communities()
            .any(|community| community == wanted)
    };
    AttributeKey {
        local_pref: attributes.local_pref().unwrap_or(100),
        med: attributes.med().unwrap_or(0),
        neighbor_as: path.neighbor_as().map_or(0, |asn| asn.0),
        originator_id: attributes.originator_id(),
        as_path_length: path.path_length().min(usize::from(u16::MAX)) as u16,
        cluster_list_length: attributes.cluster_list().len().min(255) as u8,
        origin: attributes.origin(),
        own_as: path.count(config.asn).min(255) as u8,
        reflection_loop: attributes.originator_id() == Some(config.router_id)
            || attributes.cluster_list().any(|id| id == config.cluster_id),
        labelled: config.overlay_administrator.is_some_and(|administrator| {
            attributes
                .large_communities()
                .any(|community| community.global_administrator == administrator)
        }),
        no_advertise: has(Community::NO_ADVERTISE),
        no_export: has(Community::NO_EXPORT) || has(Community::NO_EXPORT_SUBCONFED),
    }
}
