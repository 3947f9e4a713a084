//! A keyed hash for what neighbours choose: whoever does not know the key cannot choose what falls together, and so make each look-up a
//! walk.

/// The key, as long as the process lives.
#[derive(Clone, Copy, Debug)]
pub(crate) struct HashKey([u64; 3]);

/// Both halves of the product: each bit of the result depends on all bits of both.
#[inline]
fn fold(a: u64, b: u64) -> u64 {
    let product = u128::from(a) * u128::from(b);
    product as u64 ^ (product >> 64) as u64
}

impl HashKey {
    /// A key from a seed that nobody outside can foresee.
    pub(crate) fn new(seed: u64) -> Self {
        let mut state = seed;
        // SplitMix64, whose outputs differ for any seed.
        let mut next = || {
            state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mixed = (state ^ state >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
            // Odd, so that a factor is never 0.
            (mixed ^ mixed >> 31) | 1
        };
        Self([next(), next(), next()])
    }

    /// The hash of one word.
    #[inline]
    pub(crate) fn word(self, word: u64) -> u64 {
        fold(word ^ self.0[0], self.0[1])
    }

    /// The hash of 16 octets and a number.
    #[inline]
    pub(crate) fn address(self, address: u128, number: u64) -> u64 {
        let [a, b, c] = self.0;
        let first = fold(address as u64 ^ a, (address >> 64) as u64 ^ b);
        fold(first ^ number, c)
    }

    /// The hash of octets.
    pub(crate) fn octets(self, octets: &[u8]) -> u64 {
        let [a, b, c] = self.0;
        let mut hash = c ^ octets.len() as u64;
        let (pairs, rest) = octets.as_chunks::<16>();
        for pair in pairs {
            hash = self.pair(hash, pair);
        }
        // The last ones once more, with those before them, where there are any: that needs no copy.
        let last = match octets.last_chunk::<16>() {
            Some(last) => *last,
            None => {
                let mut last = [0; 16];
                last[..rest.len()].copy_from_slice(rest);
                last
            }
        };
        fold(self.pair(hash, &last) ^ a, b)
    }

    #[inline]
    fn pair(self, hash: u64, octets: &[u8; 16]) -> u64 {
        let both = u128::from_le_bytes(*octets);
        fold(both as u64 ^ hash, (both >> 64) as u64 ^ self.0[0])
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// What falls together under one key does not under another.
    #[test]
    fn who_does_not_know_the_key_cannot_choose_what_falls_together() {
        let slot = |key: HashKey, word: u64| key.word(word) >> 50;
        let known = HashKey::new(1);
        let together: Vec<u64> = (0..1 << 20)
            .filter(|word| slot(known, *word) == 7)
            .collect();
        assert!(together.len() > 32);
        for seed in 2..10 {
            let other = HashKey::new(seed);
            let slots = together.iter().map(|word| slot(other, *word));
            let slots: BTreeSet<u64> = slots.collect();
            assert!(slots.len() * 10 > together.len() * 9, "{seed}");
        }
    }

    #[test]
    fn octets_count_with_their_length_and_place() {
        let key = HashKey::new(3);
        let all = [
            &[][..],
            &[0],
            &[0, 0],
            &[0; 8],
            &[0; 16],
            &[0; 17],
            &[1, 0],
            &[0, 1],
        ];
        let hashes: BTreeSet<u64> = all.iter().map(|octets| key.octets(octets)).collect();
        assert_eq!(hashes.len(), all.len());
    }
}
