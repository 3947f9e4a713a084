//! What a probe has in it that nobody can know who has not seen it: who sees one, or an answer to one, knows nothing of the next.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher as _;
use std::net::IpAddr;

/// Makes them from a secret of its own (SipHash with a random key): nothing is remembered, and the probe's number says what it has to be.
#[derive(Debug, Default)]
pub(crate) struct Proofs(RandomState);

impl Proofs {
    /// That of a probe.
    pub(crate) fn of_probe(&self, number: u64) -> u64 {
        self.0.hash_one(number)
    }

    /// That of a probe to an address.
    pub(crate) fn to(&self, address: IpAddr, number: u64) -> u64 {
        self.0.hash_one((address, number))
    }
}
