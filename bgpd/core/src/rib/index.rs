//! A hash index that fits the RIB: 8 octets a slot, one memory access a look-up, growth without a look at what is
//! indexed.

use ipnet::{Ipv4Net, Ipv6Net};
use weft_bgp_wire::Prefix;

use super::hash::HashKey;

/// Bits of a slot for the number of what is indexed.
const NUMBER_BITS: u32 = 26;
const NUMBER_MASK: u64 = (1 << NUMBER_BITS) - 1;
/// Things that one index can hold: 67 million.
pub(crate) const LIMIT: usize = NUMBER_MASK as usize - 1;
const SMALLEST: usize = 64;

/// What a slot knows of a key: 38 bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Tag(u64);

impl Tag {
    /// From a hash of the key.
    pub(crate) fn from_hash(hash: u64) -> Self {
        Self(hash >> NUMBER_BITS)
    }
}

/// Prefixes that an index finds.
pub(crate) trait Tagged: Prefix {
    /// Equal keys have equal tags.
    fn tag(&self, key: HashKey) -> Tag;
    /// Different keys have different tags: a slot is the answer, nothing else need be looked at.
    const EXACT: bool;
}

impl Tagged for Ipv4Net {
    const EXACT: bool = true;

    #[inline]
    fn tag(&self, _: HashKey) -> Tag {
        Tag(u64::from(self.addr().to_bits()) << 6 | u64::from(self.prefix_len()))
    }
}

impl Tagged for Ipv6Net {
    const EXACT: bool = false;

    #[inline]
    fn tag(&self, key: HashKey) -> Tag {
        Tag::from_hash(key.address(self.addr().to_bits(), self.prefix_len().into()))
    }
}

/// Open addressing with linear probing: an occupied slot is a tag and a number plus one, an empty one is 0. Positions
/// follow the upper bits of a keyed hash, so that a table twice as large is filled in order, and nobody outside chooses what lies together.
pub(crate) struct Index {
    key: HashKey,
    slots: Vec<u64>,
    len: usize,
}

impl Index {
    pub(crate) fn new(key: HashKey) -> Self {
        Self {
            key,
            slots: Vec::new(),
            len: 0,
        }
    }

    pub(crate) fn key(&self) -> HashKey {
        self.key
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Where probing for a tag begins.
    #[inline]
    fn start(&self, tag: Tag) -> usize {
        (self.key.word(tag.0) >> (64 - self.slots.len().trailing_zeros())) as usize
    }

    /// Looks at the first slot for a tag, to have it in the cache before it is needed. The number there, where it is
    /// that of the tag.
    #[inline]
    pub(crate) fn first(&self, tag: Tag) -> Option<u32> {
        if self.slots.is_empty() {
            return None;
        }
        let slot = self.slots[self.start(tag)];
        number(slot).filter(|_| slot >> NUMBER_BITS == tag.0)
    }

    /// The number indexed under the tag that `is_it` confirms.
    #[inline]
    pub(crate) fn find(&self, tag: Tag, is_it: impl FnMut(u32) -> bool) -> Option<u32> {
        number(self.slots[self.position(tag, is_it)?])
    }

    #[inline]
    fn position(&self, tag: Tag, mut is_it: impl FnMut(u32) -> bool) -> Option<usize> {
        if self.slots.is_empty() {
            return None;
        }
        let mask = self.slots.len() - 1;
        let mut at = self.start(tag);
        loop {
            let slot = self.slots[at];
            let number = number(slot)?;
            if slot >> NUMBER_BITS == tag.0 && is_it(number) {
                return Some(at);
            }
            at = (at + 1) & mask;
        }
    }

    /// Adds a number, below [`LIMIT`], that is not there yet.
    #[inline]
    pub(crate) fn insert(&mut self, tag: Tag, number: u32) {
        if (self.len + 1) * 4 > self.slots.len() * 3 {
            self.grow();
        }
        self.len += 1;
        self.place(tag.0 << NUMBER_BITS | u64::from(number + 1));
    }

    #[inline]
    fn place(&mut self, slot: u64) {
        let mask = self.slots.len() - 1;
        let mut at = self.start(Tag(slot >> NUMBER_BITS));
        while self.slots[at] != 0 {
            at = (at + 1) & mask;
        }
        self.slots[at] = slot;
    }

    #[cold]
    fn grow(&mut self) {
        let larger = (self.slots.len() * 2).max(SMALLEST);
        for slot in std::mem::replace(&mut self.slots, vec![0; larger]) {
            if slot != 0 {
                self.place(slot);
            }
        }
    }

    /// Removes a number.
    pub(crate) fn remove(&mut self, tag: Tag, number: u32) {
        let Some(mut hole) = self.position(tag, |other| other == number) else {
            return;
        };
        self.len -= 1;
        if self.len == 0 {
            *self = Self::new(self.key);
            return;
        }
        // What follows moves up, unless that would put it before the place where probing for it begins.
        let mask = self.slots.len() - 1;
        let mut at = hole;
        loop {
            at = (at + 1) & mask;
            let slot = self.slots[at];
            if slot == 0 {
                break;
            }
            let start = self.start(Tag(slot >> NUMBER_BITS));
            if (at.wrapping_sub(start) & mask) >= (at.wrapping_sub(hole) & mask) {
                self.slots[hole] = slot;
                hole = at;
            }
        }
        self.slots[hole] = 0;
    }
}

#[inline]
fn number(slot: u64) -> Option<u32> {
    ((slot & NUMBER_MASK) as u32).checked_sub(1)
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Few distinct tags, so that chains are long and overlap.
        #[test]
        fn it_finds_what_a_map_finds(steps in prop::collection::vec((any::<bool>(), 0..200u32), 1..600)) {
            let mut index = Index::new(HashKey::new(7));
            let mut model: HashMap<u32, ()> = HashMap::new();
            let tag = |number: u32| Tag(u64::from(number % 17));
            for (insert, number) in steps {
                if insert && model.insert(number, ()).is_none() {
                    index.insert(tag(number), number);
                } else if !insert && model.remove(&number).is_some() {
                    index.remove(tag(number), number);
                }
                prop_assert_eq!(index.len(), model.len());
            }
            for number in 0..200 {
                let found = index.find(tag(number), |other| other == number);
                prop_assert_eq!(found, model.contains_key(&number).then_some(number));
            }
        }
    }
}
