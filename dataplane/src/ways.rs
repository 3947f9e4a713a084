//! Sets of ways that routes lead over, each with a number, so that a million routes hold four octets of it.

use rustc_hash::FxHashMap;

use crate::model::Way;

/// Sets at most: as many combinations of gateways as an underlay has, by far.
const MOST: usize = 1 << 16;

/// Every set of several ways that a route has, or had.
#[derive(Default)]
pub(crate) struct WaySets {
    sets: Vec<Box<[Way]>>,
    numbers: FxHashMap<Box<[Way]>, u32>,
}

impl WaySets {
    /// The number of a set, in whatever order; `None` where there are too many.
    pub(crate) fn number(&mut self, mut ways: Vec<Way>) -> Option<u32> {
        ways.sort_unstable();
        if let Some(number) = self.numbers.get(&ways[..]) {
            return Some(*number);
        }
        if self.sets.len() == MOST {
            return None;
        }
        let number = self.sets.len() as u32;
        let ways: Box<[Way]> = ways.into();
        self.numbers.insert(ways.clone(), number);
        self.sets.push(ways);
        Some(number)
    }

    /// The ways of a set, sorted.
    pub(crate) fn get(&self, number: u32) -> &[Way] {
        self.sets.get(number as usize).map_or(&[], |ways| ways)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_has_one_number_in_any_order() {
        let way = |interface| Way {
            gateway: None,
            interface,
            onlink: false,
            weight: 1,
        };
        let mut sets = WaySets::default();
        let first = sets.number(vec![way(2), way(1)]);
        assert_eq!(first, sets.number(vec![way(1), way(2)]));
        assert_ne!(first, sets.number(vec![way(1), way(3)]));
        assert_eq!(sets.get(first.unwrap()), [way(1), way(2)]);
        assert_eq!(sets.get(99), []);
    }
}
