//! Sets of attributes, each held once.

use std::hash::BuildHasher;

use rustc_hash::FxBuildHasher;
use weft_bgp_wire::{AttributesView, Community, NextHop};

use super::hash::HashKey;
use super::index::{Index, LIMIT, Tag};
use super::next_hop::{NextHopId, NextHops, bits};
use super::slab::Slab;
use super::types::{AttributeKey, AttributeSet, RibConfig};

/// A set of attributes in the interner; valid while a route or the holder counts a reference.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct AttributeId(u32);

impl AttributeId {
    pub(crate) fn index(self) -> usize {
        self.0 as usize
    }
}

struct Slot {
    set: AttributeSet,
    references: u32,
    next_hop: NextHopId,
}

/// Sections looked up before they are decoded; a power of two.
const RAW_CACHE: usize = 1024;

#[derive(Default)]
struct Raw {
    /// Its memory is used again for the next section in its place.
    section: Vec<u8>,
    context: u64,
    id: Option<AttributeId>,
}

/// Holds every distinct (attributes, next hop) once, with reference counts.
pub(crate) struct Interner {
    slots: Slab<Slot>,
    by_content: Index,
    config: RibConfig,
    /// The next hops of all sets.
    pub(crate) next_hops: NextHops,
    /// Direct-mapped: received octets of an attribute section -> what they came to. Routes come in runs of equal
    /// attributes, which need no decoding this way; a small table holds the run and little memory.
    raw: Vec<Raw>,
}

fn tag(key: HashKey, octets: &[u8], next_hop: &NextHop) -> Tag {
    Tag::from_hash(key.address(bits(next_hop.address), key.octets(octets)))
}

fn raw_slot(section: &[u8]) -> usize {
    (FxBuildHasher.hash_one(section) >> 20) as usize & (RAW_CACHE - 1)
}

impl Interner {
    pub(crate) fn new(config: RibConfig) -> Self {
        let key = HashKey::new(config.seed);
        Self {
            slots: Slab::default(),
            by_content: Index::new(key),
            config,
            next_hops: NextHops::new(key),
            raw: Vec::new(),
        }
    }

    #[inline]
    fn slot(&self, id: AttributeId) -> &Slot {
        self.slots.get(id.0).expect("a referenced id has its set")
    }

    /// The set of an id.
    #[inline]
    pub(crate) fn get(&self, id: AttributeId) -> &AttributeSet {
        &self.slot(id).set
    }

    /// Finds or makes the set; the caller owns one reference. `None` where there are too many.
    pub(crate) fn intern(
        &mut self,
        attributes: AttributesView<'_>,
        next_hop: NextHop,
    ) -> Option<AttributeId> {
        let octets = attributes.octets();
        let tag = tag(self.by_content.key(), octets, &next_hop);
        let slots = &mut self.slots;
        let found = self.by_content.find(tag, |at| {
            slots
                .get(at)
                .is_some_and(|slot| *slot.set.octets == *octets && slot.set.next_hop == next_hop)
        });
        if let Some(at) = found {
            self.retain(AttributeId(at));
            return Some(AttributeId(at));
        }
        let slot = Slot {
            references: 1,
            next_hop: self.next_hops.add(next_hop.address),
            set: AttributeSet {
                key: key(attributes, &self.config),
                next_hop,
                octets: octets.into(),
            },
        };
        let next_hop = slot.next_hop;
        let Some(at) = slots.insert(slot, LIMIT) else {
            self.next_hops.remove(next_hop);
            return None;
        };
        self.by_content.insert(tag, at);
        Some(AttributeId(at))
    }

    /// Metric to the next hop of the set, for a path that lies `within` ([`super::table::Path::within`]); `None` where a path with it is not eligible. A labelled path does not depend
    /// on it.
    #[inline]
    pub(crate) fn metric(&self, id: AttributeId, within: u8) -> Option<u32> {
        let next_hop = self.slot(id).next_hop;
        let mut metric = self.next_hops.metric(next_hop);
        if within > self.next_hops.floor(next_hop) {
            metric = None;
        }
        if self.labelled(id) {
            Some(metric.unwrap_or(u32::MAX))
        } else {
            metric
        }
    }

    #[inline]
    pub(crate) fn labelled(&self, id: AttributeId) -> bool {
        self.get(id).key.labelled
    }

    /// Attributes have a community of the overlay.
    pub(crate) fn is_labelled(&self, attributes: AttributesView<'_>) -> bool {
        is_labelled(attributes, &self.config)
    }

    /// Brings what is looked at for these sets into the cache.
    pub(crate) fn warm(&self, ids: impl Iterator<Item = AttributeId>) {
        let references = ids.map(|id| self.slot(id).references);
        std::hint::black_box(references.fold(0, u32::wrapping_add));
    }

    /// One reference more.
    #[inline]
    pub(crate) fn retain(&mut self, id: AttributeId) {
        if let Some(slot) = self.slots.get_mut(id.0) {
            slot.references += 1;
        }
    }

    /// One reference less; with the last one the set goes.
    pub(crate) fn release(&mut self, id: AttributeId) {
        match self.slots.get_mut(id.0) {
            Some(slot) if slot.references > 1 => slot.references -= 1,
            _ => self.remove(id),
        }
    }

    fn remove(&mut self, id: AttributeId) {
        let Some(slot) = self.slots.remove(id.0) else {
            return;
        };
        self.next_hops.remove(slot.next_hop);
        let tag = tag(self.by_content.key(), &slot.set.octets, &slot.set.next_hop);
        self.by_content.remove(tag, id.0);
        if self.by_content.len() == 0 {
            self.slots = Slab::default();
        }
    }

    /// What a section came to when it was last decoded in this context.
    #[inline]
    pub(crate) fn raw(&self, section: &[u8], context: u64) -> Option<AttributeId> {
        let raw = self.raw.get(raw_slot(section))?;
        raw.id
            .filter(|_| raw.context == context && *raw.section == *section)
    }

    /// Remembers what a section came to; holds a reference while it does.
    pub(crate) fn remember(&mut self, section: &[u8], context: u64, id: AttributeId) {
        self.retain(id);
        if self.raw.is_empty() {
            self.raw.resize_with(RAW_CACHE, Raw::default);
        }
        let raw = &mut self.raw[raw_slot(section)];
        raw.section.clear();
        raw.section.extend_from_slice(section);
        raw.context = context;
        if let Some(old) = raw.id.replace(id) {
            self.release(old);
        }
    }

    /// Forgets all remembered sections, so that sets without routes go.
    pub(crate) fn forget(&mut self) {
        for raw in std::mem::take(&mut self.raw) {
            if let Some(old) = raw.id {
                self.release(old);
            }
        }
    }

    /// Distinct sets.
    pub(crate) fn len(&self) -> usize {
        self.by_content.len()
    }
}

fn is_labelled(attributes: AttributesView<'_>, config: &RibConfig) -> bool {
    config.overlay_administrator.is_some_and(|administrator| {
        let mut communities = attributes.large_communities();
        communities.any(|community| community.global_administrator == administrator)
    })
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
        only_to_customer: attributes.only_to_customer(),
        labelled: is_labelled(attributes, config),
        no_advertise: has(Community::NO_ADVERTISE),
        no_export: has(Community::NO_EXPORT) || has(Community::NO_EXPORT_SUBCONFED),
    }
}
