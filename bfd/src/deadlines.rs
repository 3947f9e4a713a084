//! Which of thousands of sessions is due first: a binary heap in which each session has one place that is known, so that another deadline
//! moves it and nothing stale is left behind.

use std::time::Instant;

const NOWHERE: u32 = u32::MAX;

/// Deadlines by session number.
#[derive(Debug, Default)]
pub(crate) struct Deadlines {
    heap: Vec<(Instant, u32)>,
    /// Where each session is in the heap.
    places: Vec<u32>,
}

impl Deadlines {
    /// The session that is due first.
    pub(crate) fn first(&self) -> Option<(Instant, u32)> {
        self.heap.first().copied()
    }

    /// Sets or removes the deadline of a session. Allocates where the number is higher than any before, and never else.
    pub(crate) fn set(&mut self, session: u32, due: Option<Instant>) {
        let number = session as usize;
        if self.places.len() <= number {
            self.places.resize(number + 1, NOWHERE);
            self.heap.reserve(self.places.len() - self.heap.len());
        }
        let place = self.places[number];
        match (place, due) {
            (NOWHERE, None) => {}
            (NOWHERE, Some(due)) => {
                let last = self.heap.len();
                self.heap.push((due, session));
                self.places[number] = last as u32;
                self.rise(last);
            }
            (place, Some(due)) => {
                let place = place as usize;
                self.heap[place].0 = due;
                let risen = self.rise(place);
                self.sink(risen);
            }
            (place, None) => {
                let place = place as usize;
                self.heap.swap_remove(place);
                self.places[number] = NOWHERE;
                if let Some((_, moved)) = self.heap.get(place) {
                    self.places[*moved as usize] = place as u32;
                    let risen = self.rise(place);
                    self.sink(risen);
                }
            }
        }
    }

    fn swap(&mut self, a: usize, b: usize) {
        self.heap.swap(a, b);
        for place in [a, b] {
            self.places[self.heap[place].1 as usize] = place as u32;
        }
    }

    fn rise(&mut self, mut place: usize) -> usize {
        while place > 0 {
            let above = (place - 1) / 2;
            if self.heap[above] <= self.heap[place] {
                break;
            }
            self.swap(above, place);
            place = above;
        }
        place
    }

    fn sink(&mut self, mut place: usize) {
        loop {
            let left = 2 * place + 1;
            let children = left..(left + 2).min(self.heap.len());
            let Some(least) = children.min_by_key(|child| self.heap[*child]) else {
                return;
            };
            if self.heap[place] <= self.heap[least] {
                return;
            }
            self.swap(place, least);
            place = least;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn the_first_is_the_first(changes in proptest::collection::vec((0..40u32, proptest::option::of(0..1000u64)), 0..300)) {
            let start = Instant::now();
            let mut deadlines = Deadlines::default();
            let mut model: BTreeMap<u32, Instant> = BTreeMap::new();
            for (session, due) in changes {
                let due = due.map(|due| start + Duration::from_millis(due));
                deadlines.set(session, due);
                match due {
                    Some(due) => model.insert(session, due),
                    None => model.remove(&session),
                };
                let first = model.iter().map(|(session, due)| (*due, *session)).min();
                prop_assert_eq!(deadlines.first(), first);
            }
        }
    }
}
