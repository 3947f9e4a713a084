//! How often something is told.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// A token bucket for lines of the log that strangers bring about.
#[derive(Debug)]
pub struct Rate {
    burst: u32,
    every: Duration,
    bucket: Mutex<Bucket>,
}

#[derive(Debug)]
struct Bucket {
    tokens: u32,
    filled: Instant,
    left_out: u64,
}

impl Rate {
    /// So many lines at once, and one more after each time like this.
    pub fn new(burst: u32, every: Duration) -> Self {
        Self {
            burst,
            every,
            bucket: Mutex::new(Bucket {
                tokens: burst,
                filled: Instant::now(),
                left_out: 0,
            }),
        }
    }

    /// How many lines were left out before this one; `None` where this one is left out, too.
    pub fn pass(&self) -> Option<u64> {
        self.pass_at(Instant::now())
    }

    fn pass_at(&self, now: Instant) -> Option<u64> {
        let mut bucket = self.bucket.lock().unwrap_or_else(PoisonError::into_inner);
        let passed = now.saturating_duration_since(bucket.filled);
        let new = u32::try_from(passed.as_nanos() / self.every.as_nanos()).unwrap_or(u32::MAX);
        if new > 0 {
            bucket.tokens = bucket.tokens.saturating_add(new).min(self.burst);
            bucket.filled = now;
        }
        match bucket.tokens.checked_sub(1) {
            Some(tokens) => {
                bucket.tokens = tokens;
                Some(std::mem::take(&mut bucket.left_out))
            }
            None => {
                bucket.left_out += 1;
                None
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test: a panic is its verdict")]
    use super::*;

    #[test]
    fn lines_are_few_and_the_next_says_how_many_were_left_out() {
        let rate = Rate::new(2, Duration::from_secs(1));
        let start = Instant::now();
        let passed: Vec<Option<u64>> = (0..5).map(|_| rate.pass_at(start)).collect();
        assert_eq!(passed, [Some(0), Some(0), None, None, None]);
        let later = start + Duration::from_secs(2);
        assert_eq!(rate.pass_at(later), Some(3));
        assert_eq!(rate.pass_at(later), Some(0));
        assert_eq!(rate.pass_at(later), None);
    }
}
