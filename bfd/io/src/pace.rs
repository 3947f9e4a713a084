//! How much is read before the thread rests: whoever floods it gets no more than a part of one processor, also where the kernel would let
//! this thread have all of it.

use std::time::{Duration, Instant};

/// Packets read at once at most.
pub(crate) const BURST: usize = 256;
/// Packets after which the thread rests, however many calls they came by, where they came within [`REST`]. What comes meanwhile is read in
/// batches: without that, each packet of a flood could wake the thread.
const BUSY: usize = 16;
const REST: Duration = Duration::from_millis(1);

/// Counts packets by time.
#[derive(Debug, Default)]
pub(crate) struct Pace {
    since: Option<Instant>,
    read: usize,
    rest_until: Option<Instant>,
}

impl Pace {
    /// Until when nothing is read; `None` where it may be.
    pub(crate) fn resting(&self, now: Instant) -> Option<Instant> {
        self.rest_until.filter(|until| *until > now)
    }

    /// So many packets have been read.
    pub(crate) fn count(&mut self, read: usize, now: Instant) {
        if self.since.is_none_or(|since| now >= since + REST) {
            (self.since, self.read) = (Some(now), 0);
        }
        self.read += read;
        if self.read >= BUSY {
            (self.since, self.rest_until) = (None, Some(now + REST));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How often the thread reads within a second where packets come one by one.
    fn reads(between: Duration) -> usize {
        let (mut pace, start) = (Pace::default(), Instant::now());
        let (mut reads, mut waiting, mut now) = (0, 0, start);
        while now < start + Duration::from_secs(1) {
            waiting += 1;
            if pace.resting(now).is_none() {
                pace.count(waiting, now);
                (reads, waiting) = (reads + 1, 0);
            }
            now += between;
        }
        reads
    }

    #[test]
    fn a_flood_of_single_packets_does_not_wake_the_thread_with_each() {
        // 55,000 packets a second.
        let flooded = reads(Duration::from_nanos(18_182));
        assert!((500..=1100).contains(&flooded), "{flooded}");
        // A thousand sessions of 100 ms are not rested for.
        assert_eq!(reads(Duration::from_micros(100)), 10_000);
    }
}
