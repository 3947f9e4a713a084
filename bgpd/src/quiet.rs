//! Log lines that repeat come at a falling rate, with the count of what was left out.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use weft_bgp_wire::{ProblemKind, Treatment};

/// After a line the same one is left out for so long; doubled with each further line.
const FIRST_PAUSE: Duration = Duration::from_secs(10);
const LONGEST_PAUSE: Duration = Duration::from_secs(3600);
/// Lines remembered; what is over is forgotten first, then all.
const MOST: usize = 4096;

/// What a line is about, beside the neighbour: what it says in numbers and text does not make it another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Topic {
    /// A problem of an UPDATE.
    Problem(u8, ProblemKind, Treatment),
    /// A connection that a NOTIFICATION of this code and subcode ended, by us or by the neighbour.
    Refused { by_us: bool, code: u8, subcode: u8 },
    /// A connection from an address that is no neighbour, or from a tenant without any; these have one topic together.
    Stranger,
    /// A connection to a group of neighbours that is full; all have one topic together.
    Full,
    /// Nearly as many prefixes as it may announce.
    NearLimit,
    /// A connection that would have to be signed, and cannot be asked to.
    Unsigned,
    /// A connection that the kernel does not hand over.
    Accept,
}

struct Said {
    next: Instant,
    pause: Duration,
    left_out: u64,
}

/// What has been said when.
#[derive(Default)]
pub(crate) struct Quiet {
    said: HashMap<(Option<IpAddr>, Topic), Said>,
}

impl Quiet {
    /// Whether a line is to be written now; `Some` with how many like it were left out since the last one.
    pub(crate) fn admits(
        &mut self,
        who: Option<IpAddr>,
        topic: Topic,
        now: Instant,
    ) -> Option<u64> {
        if self.said.len() >= MOST {
            self.said.retain(|_, said| now < said.next);
            if self.said.len() >= MOST {
                self.said.clear();
            }
        }
        let said = self.said.entry((who, topic)).or_insert(Said {
            next: now,
            pause: FIRST_PAUSE,
            left_out: 0,
        });
        if now < said.next {
            said.left_out += 1;
            return None;
        }
        // What has not come for as long again as it was left out for is news.
        if now >= said.next + said.pause {
            said.pause = FIRST_PAUSE;
        }
        said.next = now + said.pause;
        said.pause = (said.pause * 2).min(LONGEST_PAUSE);
        Some(std::mem::take(&mut said.left_out))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_repeats_is_said_at_a_falling_rate_with_a_count() {
        let mut quiet = Quiet::default();
        let start = Instant::now();
        let who = Some(IpAddr::from([192, 0, 2, 1]));
        let topic = Topic::Problem(8, ProblemKind::Duplicate, Treatment::AttributeDiscard);
        let mut lines = Vec::new();
        for second in 0..3600 {
            let now = start + Duration::from_secs(second);
            if let Some(left_out) = quiet.admits(who, topic, now) {
                lines.push((second, left_out));
            }
        }
        assert_eq!(lines[..4], [(0, 0), (10, 9), (30, 19), (70, 39)]);
        assert!(lines.len() < 12, "{lines:?}");
        // Another neighbour's is another line, and after a long silence it is news again.
        assert_eq!(quiet.admits(None, topic, start), Some(0));
        let later = start + Duration::from_secs(3 * 3600);
        assert!(quiet.admits(who, topic, later).is_some());
        assert_eq!(quiet.admits(who, topic, later + FIRST_PAUSE), Some(0));
    }

    #[test]
    fn it_remembers_no_more_than_it_may() {
        let mut quiet = Quiet::default();
        let now = Instant::now();
        for at in 0..3 * MOST as u32 {
            let who = Some(IpAddr::from(at.to_be_bytes()));
            assert_eq!(quiet.admits(who, Topic::Stranger, now), Some(0));
        }
        assert!(quiet.said.len() <= MOST);
    }
}
