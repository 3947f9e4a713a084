//! Pauses between attempts to reach a controller.

use std::time::{Duration, Instant};

/// The first pause, and the longest.
const FIRST: Duration = Duration::from_millis(250);
pub(super) const LONGEST: Duration = Duration::from_secs(30);

/// Pauses that grow, half to one and a half of their length by chance: those who lost one controller at once do not come back at
/// once. An attempt that lasted makes the next pause short again.
#[derive(Debug)]
pub(crate) struct Backoff {
    pause: Duration,
    begun: Instant,
}

impl Backoff {
    pub(crate) fn new() -> Self {
        Self {
            pause: FIRST,
            begun: Instant::now(),
        }
    }

    /// An attempt begins.
    pub(crate) fn begin(&mut self) {
        self.begun = Instant::now();
    }

    /// It has ended: how long to wait for the next.
    pub(crate) fn next(&mut self) -> Duration {
        if self.begun.elapsed() > LONGEST {
            self.pause = FIRST;
        }
        let pause = self.pause;
        self.pause = (pause * 2).min(LONGEST);
        let jitter = f64::from(u32::from_str_radix(&crate::pki::random(2), 16).unwrap_or(0));
        pause.mul_f64(0.5 + jitter / 65536.0)
    }
}
