//! How late the thread was woken: what BFD on a busy host depends on.

use std::time::Duration;

/// Upper bounds of the classes of [`Lateness::counts`] but the last, which has none, in microseconds.
pub const BOUNDS: [u32; 9] = [100, 500, 1000, 2000, 5000, 10_000, 25_000, 50_000, 100_000];

/// How often the thread was woken how late.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Lateness {
    /// Times, by the bound that they were within.
    pub counts: [u64; BOUNDS.len() + 1],
    /// All together.
    pub sum: Duration,
    /// The longest.
    pub longest: Duration,
}

impl Lateness {
    pub(crate) fn count(&mut self, late: Duration) {
        let within = |bound: &u32| late <= Duration::from_micros(u64::from(*bound));
        let class = BOUNDS.iter().position(within).unwrap_or(BOUNDS.len());
        self.counts[class] += 1;
        self.sum += late;
        self.longest = self.longest.max(late);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_wait_is_in_one_class() {
        let mut lateness = Lateness::default();
        for us in [0, 100, 101, 100_000, 100_001] {
            lateness.count(Duration::from_micros(us));
        }
        assert_eq!(lateness.counts, [2, 1, 0, 0, 0, 0, 0, 0, 1, 1]);
        assert_eq!(lateness.longest, Duration::from_micros(100_001));
    }
}
