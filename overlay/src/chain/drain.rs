//! From one list of chains to another while packets are on their way.

use std::collections::BTreeMap;

use super::{Chain, Place, Service, Turn, turns};
use crate::Vni;

/// What a change of chains does to packets that are on their way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// What holds until packets on old chains have finished them, at places that the new chains say nothing of.
    pub keep: BTreeMap<Place, Vec<Turn>>,
    /// Somewhere a packet on its old chain would skip a service that is in the new one too: packets have to be through before
    /// the new one begins.
    pub conflicts: bool,
}

impl Change {
    /// Between these.
    pub fn between(
        (old_services, old): (&[Service], &[Chain]),
        (new_services, new): (&[Service], &[Chain]),
    ) -> Self {
        let before = turns(old_services, old);
        let after = turns(new_services, new);
        let mut keep = BTreeMap::new();
        let mut conflicts = false;
        for (place, old_turns) in before {
            if place == Place::Entrance {
                continue;
            }
            let Some(new_turns) = after.get(&place) else {
                keep.insert(place, old_turns);
                continue;
            };
            for one in &old_turns {
                let others = new_turns
                    .iter()
                    .filter(|two| old[one.chain].matches.overlaps(&new[two.chain].matches));
                conflicts |= others.into_iter().any(|two| skips(one, two));
            }
        }
        Self { keep, conflicts }
    }
}

/// A packet that has come to a place by `old`, and goes on by `new`, misses a service of both.
fn skips(old: &Turn, new: &Turn) -> bool {
    let of_old = |label: &Vni| old.passed.contains(label) || old.rest.contains(label);
    let visited = |label: &Vni| old.passed.contains(label) || new.rest.contains(label);
    let mut of_new = new.passed.iter().chain(&new.rest);
    of_new.any(|label| of_old(label) && !visited(label))
}
