//! Prefixes and their paths.

use smallvec::SmallVec;

use super::hash::HashKey;
use super::index::{Index, LIMIT, Tagged};
use super::interner::AttributeId;
use super::slab::Slab;
use super::types::PeerId;

/// Prefixes looked up together.
pub(crate) const WARM: usize = 32;

/// One path of a prefix, 16 octets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Path {
    pub(crate) attributes: AttributeId,
    /// As received; 0 without ADD-PATH.
    pub(crate) path_id: u32,
    /// The path identifier that we send: unique in the prefix, stable while the path lives.
    pub(crate) local_id: u32,
    pub(crate) peer: PeerId,
    /// Kept over the neighbour's restart.
    pub(crate) stale: bool,
    /// One more than the prefix length, where the prefix contains the next hop and may lead packets here; else 0.
    pub(crate) within: u8,
}

/// A prefix. The best path, where there is an eligible one, is the first.
#[derive(Debug)]
pub(crate) struct Entry<P> {
    pub(crate) paths: SmallVec<[Path; 1]>,
    pub(crate) prefix: P,
    /// `paths[0]` is eligible.
    pub(crate) has_best: bool,
    /// The last report held paths.
    pub(crate) reported: bool,
}

impl<P> Entry<P> {
    pub(crate) fn is_empty(&self) -> bool {
        self.paths.is_empty()
    }

    pub(crate) fn best(&self) -> Option<&Path> {
        self.paths.first().filter(|_| self.has_best)
    }

    /// The lowest path identifier that no path of the prefix has.
    pub(crate) fn free_local_id(&self) -> u32 {
        if self.paths.is_empty() {
            return 1;
        }
        let mut used: SmallVec<[bool; 16]> = smallvec::smallvec![false; self.paths.len() + 1];
        for path in &self.paths {
            if let Some(used) = used.get_mut(path.local_id as usize - 1) {
                *used = true;
            }
        }
        used.iter()
            .position(|used| !used)
            .map_or(0, |at| at as u32 + 1)
    }
}

/// A slab of entries with an index by prefix. Numbers of entries stay the same while the entry lives.
pub(crate) struct Table<P> {
    entries: Slab<Entry<P>>,
    index: Index,
}

impl<P: Tagged> Table<P> {
    pub(crate) fn new(key: HashKey) -> Self {
        Self {
            entries: Slab::default(),
            index: Index::new(key),
        }
    }

    /// Prefixes with an entry.
    pub(crate) fn len(&self) -> usize {
        self.index.len()
    }

    /// One more than the highest number in use.
    pub(crate) fn bound(&self) -> u32 {
        self.entries.bound()
    }

    /// Brings what will be looked at for these prefixes into the cache: the accesses do not wait for each other.
    /// Returns the entries that may be theirs.
    pub(crate) fn warm(&self, prefixes: &[P]) -> SmallVec<[&Entry<P>; WARM]> {
        let first: SmallVec<[Option<u32>; WARM]> = prefixes
            .iter()
            .map(|prefix| self.index.first(prefix.tag(self.index.key())))
            .collect();
        first
            .into_iter()
            .flatten()
            .filter_map(|at| self.get(at))
            .collect()
    }

    #[inline]
    pub(crate) fn find(&self, prefix: &P) -> Option<u32> {
        self.index.find(prefix.tag(self.index.key()), |at| {
            P::EXACT || self.prefix_is(at, prefix)
        })
    }

    #[inline]
    fn prefix_is(&self, at: u32, prefix: &P) -> bool {
        self.get(at).is_some_and(|entry| entry.prefix == *prefix)
    }

    /// The entry of a prefix, made where there is none; `None` where the table is full.
    #[inline]
    pub(crate) fn find_or_insert(&mut self, prefix: P) -> Option<u32> {
        if let Some(at) = self.find(&prefix) {
            return Some(at);
        }
        let entry = Entry {
            paths: SmallVec::new(),
            prefix,
            has_best: false,
            reported: false,
        };
        let at = self.entries.insert(entry, LIMIT)?;
        self.index.insert(prefix.tag(self.index.key()), at);
        Some(at)
    }

    #[inline]
    pub(crate) fn get(&self, at: u32) -> Option<&Entry<P>> {
        self.entries.get(at)
    }

    #[inline]
    pub(crate) fn get_mut(&mut self, at: u32) -> Option<&mut Entry<P>> {
        self.entries.get_mut(at)
    }

    /// Removes an entry; its number may be given to another prefix.
    pub(crate) fn remove(&mut self, at: u32) {
        if let Some(entry) = self.entries.remove(at) {
            let tag = entry.prefix.tag(self.index.key());
            self.index.remove(tag, at);
        }
        if self.index.len() == 0 {
            *self = Self::new(self.index.key());
        }
    }

    /// Removes all entries that `keep` does not confirm, in one walk.
    pub(crate) fn retain(&mut self, keep: impl Fn(&Entry<P>) -> bool) {
        self.entries.retain(&keep);
        let key = self.index.key();
        let mut index = Index::new(key);
        for (at, entry) in self.entries.iter() {
            index.insert(entry.prefix.tag(key), at);
        }
        self.index = index;
        if self.index.len() == 0 {
            *self = Self::new(key);
        }
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (u32, &Entry<P>)> {
        self.entries.iter()
    }
}

/// A growing set of small numbers.
#[derive(Default)]
pub(crate) struct BitSet(Vec<u64>);

impl BitSet {
    /// Adds; true where it was not there.
    #[inline]
    pub(crate) fn insert(&mut self, at: u32) -> bool {
        let word = (at >> 6) as usize;
        if word >= self.0.len() {
            self.0.resize(word + 1, 0);
        }
        let bit = 1 << (at & 63);
        let new = self.0[word] & bit == 0;
        self.0[word] |= bit;
        new
    }

    #[inline]
    pub(crate) fn contains(&self, at: u32) -> bool {
        let word = self.0.get((at >> 6) as usize);
        word.is_some_and(|word| word >> (at & 63) & 1 == 1)
    }

    #[inline]
    pub(crate) fn remove(&mut self, at: u32) {
        if let Some(word) = self.0.get_mut((at >> 6) as usize) {
            *word &= !(1 << (at & 63));
        }
    }
}
