//! Which of two keys the connections of a neighbour are signed with, while both ends go over from one to the other.
//!
//! A connection has one key for each direction, and TCP takes no segment that another key, or none, has signed. Both ends hold the next key
//! before either is told to use it, so the one that has not been told, since its controller is away, goes over by itself when it hears
//! nothing any more, and back where that was not the reason. It is the former key for more than twice as long as the next one: two ends that
//! look for each other so have the former one in common whenever each began.
//!
//! ```text
//!            told: the next key is the key
//!      ┌───────────────────────────────────────┐
//!      ▼                                       │
//!   key ──── not heard for FIRST, PAUSE ────► next
//!      ◄──── not heard for AHEAD ──────────────┘
//! ```

use std::time::{Duration, Instant};

/// How long a neighbour that was heard is silent before the next key is tried: longer than a few segments that were lost take.
const FIRST: Duration = Duration::from_secs(2);
/// How long the next key is tried.
const AHEAD: Duration = Duration::from_secs(5);
/// How long the former one is then, before the next is tried again.
const PAUSE: Duration = Duration::from_secs(12);

/// How often the neighbour's TCP is given something to acknowledge meanwhile: KEEPALIVEs come at a third of the hold time, and TCP that waits for
/// an answer waits twice as long each time.
const PROBE: Duration = Duration::from_secs(3);

/// Which key it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Signing {
    /// The next one.
    ahead: bool,
    /// The next one was tried since the neighbour was heard.
    tried: bool,
    /// Since when it is this one, or when the neighbour was heard with it.
    since: Instant,
    /// When the neighbour was given something to acknowledge.
    probed: Instant,
}

impl Signing {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            ahead: false,
            tried: false,
            since: now,
            probed: now,
        }
    }

    /// The neighbour, which is heard, is to be given something to acknowledge.
    pub(super) fn probe(&mut self, now: Instant) -> bool {
        let due = now.saturating_duration_since(self.probed) >= PROBE;
        if due {
            self.probed = now;
        }
        due
    }

    /// Connections have the next key.
    pub(super) fn is_ahead(&self) -> bool {
        self.ahead
    }

    /// The neighbour is heard, or it is not; where there is a next key. True where the other key is to be tried.
    pub(super) fn observe(&mut self, heard: bool, now: Instant) -> bool {
        if heard {
            (self.tried, self.since) = (false, now);
            return false;
        }
        let patience = match (self.ahead, self.tried) {
            (true, _) => AHEAD,
            (false, true) => PAUSE,
            (false, false) => FIRST,
        };
        if now.saturating_duration_since(self.since) < patience {
            return false;
        }
        *self = Self {
            ahead: !self.ahead,
            tried: true,
            since: now,
            probed: now,
        };
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A neighbour, and the number of its key.
    struct End {
        signing: Signing,
        key: u8,
        next: Option<u8>,
    }

    impl End {
        fn new(key: u8, next: Option<u8>, now: Instant) -> Self {
            let signing = Signing::new(now);
            Self { signing, key, next }
        }

        fn told(&mut self, key: u8, next: Option<u8>, now: Instant) {
            *self = Self::new(key, next, now);
        }

        fn used(&self) -> u8 {
            match self.next {
                Some(next) if self.signing.is_ahead() => next,
                _ => self.key,
            }
        }
    }

    /// Half a second passes; the ends look whether they hear each other.
    fn pass(ends: &mut [&mut End; 2], now: &mut Instant) -> bool {
        *now += Duration::from_millis(500);
        let heard = ends[0].used() == ends[1].used();
        for end in ends {
            if end.next.is_some() {
                end.signing.observe(heard, *now);
            }
        }
        heard
    }

    /// How long they do not hear each other until they do, and stay so.
    fn silence(mut ends: [&mut End; 2], now: &mut Instant) -> Duration {
        let start = *now;
        let mut heard_since = None;
        while now.duration_since(start) < Duration::from_secs(3600) {
            let at = *now;
            heard_since = pass(&mut ends, now).then(|| heard_since.unwrap_or(at));
        }
        heard_since.expect("they never hear each other") - start
    }

    #[test]
    fn who_is_not_told_goes_over_by_itself_and_stays() {
        let mut now = Instant::now();
        let mut told = End::new(1, Some(2), now);
        let mut away = End::new(1, Some(2), now);
        assert_eq!(silence([&mut told, &mut away], &mut now), Duration::ZERO);
        told.told(2, None, now);
        let lost = silence([&mut told, &mut away], &mut now);
        assert!(lost <= FIRST + Duration::from_secs(1), "{lost:?}");
        assert_eq!(away.used(), 2);
        // When it is told at last nothing changes.
        away.told(2, None, now);
        assert_eq!(silence([&mut told, &mut away], &mut now), Duration::ZERO);
    }

    /// A link breaks while both hold the next key: each tries, from whenever it noticed, and they find each other again.
    #[test]
    fn two_that_both_look_meet() {
        for offset in 0..60 {
            let mut now = Instant::now();
            let mut one = End::new(1, Some(2), now);
            let mut other = End::new(1, Some(2), now);
            for step in 0..240 {
                now += Duration::from_millis(500);
                one.signing.observe(false, now);
                other.signing.observe(step < offset, now);
            }
            let lost = silence([&mut one, &mut other], &mut now);
            assert!(lost <= AHEAD + PAUSE, "{offset}: {lost:?}");
        }
    }

    /// A neighbour that is down costs nothing but attempts, and never an unsigned one where a key is in force.
    #[test]
    fn segments_that_were_lost_change_nothing() {
        let start = Instant::now();
        let mut signing = Signing::new(start);
        for step in 1..100u32 {
            let now = start + Duration::from_secs(1) * step;
            assert!(!signing.observe(step % 2 == 0, now), "{step}");
        }
        assert!(!signing.is_ahead());
    }
}
