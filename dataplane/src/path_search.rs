//! How large packets to a far router may be, found by sending some (datagram packetization layer path MTU discovery, RFC 8899). No
//! clock and no socket: time enters as an argument.
//!
//! What is believed is confirmed now and then, so that a way that swallows large packets without a word does not swallow them for
//! long. Where it does, a few sizes between the least and what was lost are sent at once; the largest that comes back and the next one
//! that does not are what is searched between next. Three or four such rounds find the octet. What is smaller than it could be is
//! tried again after five seconds, since a way that is cut in the midst of a search looks narrow; then after twice as long each time, up
//! to ten minutes; or as soon as the kernel lets more.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// What is lost so often in a row does not fit (MAX_PROBES of RFC 8899 section 5.1.2).
const TRIES: usize = 3;
/// Sizes that are tried at once.
const VOLLEY: u32 = 8;
/// Until more is tried: the first time, and PMTU_RAISE_TIMER of RFC 8899 section 5.1.1 in the end.
const RAISE_FIRST: Duration = Duration::from_secs(5);
const RAISE: Duration = Duration::from_secs(600);
/// Less no node need take: what IPv4 hosts reassemble at least (RFC 1122 section 3.3.2), and what IPv6 links have (RFC 8200 section 5).
const LEAST: [u16; 2] = [576, 1280];

/// Rounds of a search at most: of a way that changes under it the rest is found later.
const ROUNDS: u8 = 16;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Whether what is believed is still so: lost so often in a row.
    Confirming(usize),
    Searching(Search),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Search {
    /// The largest that came back; one less than the least while nothing has.
    low: u16,
    /// The smallest that did not.
    high: u16,
    /// Where it ends: as large as may be, and one more.
    limit: u16,
    rounds: u8,
}

/// The search for one far router.
#[derive(Clone, Debug)]
pub struct PathSearch {
    least: u16,
    /// What is not to be exceeded: as the link and the kernel have it.
    top: u16,
    /// What is believed, and whether anything has come back that says so.
    path: u16,
    known: bool,
    phase: Phase,
    unsent: VecDeque<u16>,
    waiting: Vec<u16>,
    /// Of this round: the largest that came back, and all that did not.
    largest: Option<u16>,
    lost: Vec<u16>,
    confirm_at: Instant,
    raise_at: Instant,
    raise_after: Duration,
}

impl PathSearch {
    /// Begins: `top` octets with the outer headers are what the link and the kernel let at most.
    pub fn new(now: Instant, top: u16, v6: bool) -> Self {
        Self::within(now, LEAST[usize::from(v6)], top)
    }

    /// Begins: what is searched for lies between these.
    pub(crate) fn within(now: Instant, least: u16, top: u16) -> Self {
        Self {
            least,
            top,
            path: top,
            known: false,
            phase: Phase::Confirming(0),
            unsent: VecDeque::new(),
            waiting: Vec::new(),
            largest: None,
            lost: Vec::new(),
            confirm_at: now,
            raise_at: now + RAISE,
            raise_after: RAISE_FIRST,
        }
    }

    /// The link or the kernel lets more or less: what was believed holds as far as it may, and more is tried at once.
    pub fn set_top(&mut self, now: Instant, top: u16) {
        if top == self.top {
            return;
        }
        self.path = self.path.min(top);
        self.begin(Phase::Confirming(0), []);
        if top < self.top {
            self.confirm_at = now;
        } else {
            self.raise_at = now;
            self.raise_after = RAISE_FIRST;
        }
        self.top = top;
    }

    /// Octets that get there, outer headers included; `None` while nothing is known.
    pub fn found(&self) -> Option<u16> {
        self.known.then_some(self.path)
    }

    /// What the link and the kernel let.
    pub fn top(&self) -> u16 {
        self.top
    }

    /// When [`PathSearch::poll`] has something; `None` while answers are waited for.
    pub fn next(&self, now: Instant) -> Option<Instant> {
        if !self.unsent.is_empty() {
            return Some(now);
        }
        if !self.waiting.is_empty() {
            return None;
        }
        let raise = (self.path < self.top).then_some(self.raise_at);
        Some(raise.map_or(self.confirm_at, |at| at.min(self.confirm_at)))
    }

    /// Octets, outer headers included, of a packet that is to be sent now. What is believed is confirmed every `confirm`.
    pub fn poll(&mut self, now: Instant, confirm: Duration) -> Option<u16> {
        if self.unsent.is_empty() && self.waiting.is_empty() {
            if self.path < self.top && self.raise_at <= now {
                let limit = self.top.saturating_add(1);
                self.search(self.path, limit, limit);
            } else if self.confirm_at <= now {
                self.confirm_at = now + confirm;
                self.begin(Phase::Confirming(0), [self.path]);
            }
        }
        let size = self.unsent.pop_front()?;
        self.waiting.push(size);
        Some(size)
    }

    /// A packet of this size came back, or is lost.
    pub fn handle(&mut self, now: Instant, size: u16, came_back: bool) {
        let Some(at) = self.waiting.iter().position(|waiting| *waiting == size) else {
            return;
        };
        self.waiting.swap_remove(at);
        match came_back {
            true => self.largest = self.largest.max(Some(size)),
            false => self.lost.push(size),
        }
        match self.phase {
            Phase::Confirming(_) if came_back => self.known = true,
            // One by one: chance does not last.
            Phase::Confirming(lost) if lost + 1 < TRIES => {
                self.begin(Phase::Confirming(lost + 1), [size]);
            }
            // With the size that was lost once more: the whole way may have been cut, and be back.
            Phase::Confirming(_) => {
                let limit = size.saturating_add(1);
                self.search(self.least - 1, limit, limit);
            }
            Phase::Searching(search) if self.waiting.is_empty() && self.unsent.is_empty() => {
                self.end_round(now, search);
            }
            Phase::Searching(_) => {}
        }
    }

    fn search(&mut self, low: u16, high: u16, limit: u16) {
        let search = Search {
            low,
            high,
            limit,
            rounds: 0,
        };
        self.begin_round(search);
    }

    fn begin_round(&mut self, search: Search) {
        let between = u32::from(search.high.saturating_sub(search.low + 1));
        if between == 0 {
            // It may have been lost by chance.
            let again = [search.high; TRIES - 1];
            return self.begin(Phase::Searching(search), again);
        }
        let count = between.min(VOLLEY);
        // Even, and the largest of them is one of them.
        let sizes = (1..=count).map(|at| search.low + (between * at / count) as u16);
        self.begin(Phase::Searching(search), sizes);
    }

    fn end_round(&mut self, now: Instant, mut search: Search) {
        let again = search.high == search.low + 1;
        if let Some(largest) = self.largest {
            // At once: what is larger is lost meanwhile.
            (search.low, self.path, self.known) = (largest, largest, true);
        }
        let larger = self.lost.iter().filter(|size| **size > search.low).min();
        search.high = match (again, larger) {
            (true, _) if self.largest.is_some() => search.limit,
            (_, Some(larger)) => search.high.min(*larger),
            (_, None) => search.high,
        };
        search.rounds += 1;
        let over = search.low + 1 == search.limit || again && self.largest.is_none();
        if over || search.rounds == ROUNDS {
            // Where nothing came back, the way is not narrow but cut, which others judge.
            self.raise_at = now + self.raise_after;
            self.raise_after = match self.path < self.top {
                true => (self.raise_after * 2).min(RAISE),
                false => RAISE_FIRST,
            };
            return self.begin(Phase::Confirming(0), []);
        }
        self.begin_round(search);
    }

    fn begin(&mut self, phase: Phase, sizes: impl IntoIterator<Item = u16>) {
        self.phase = phase;
        self.unsent = sizes.into_iter().collect();
        self.waiting.clear();
        self.largest = None;
        self.lost.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONFIRM: Duration = Duration::from_secs(10);

    /// Runs until nothing is to be sent before `until`; how many packets that took. `lost` says whether the numbered packet is lost that
    /// fits.
    fn run(
        search: &mut PathSearch,
        now: &mut Instant,
        until: Instant,
        (path, lost): (u16, &mut dyn FnMut() -> bool),
    ) -> usize {
        let mut sent = 0;
        while let Some(next) = search.next(*now).filter(|next| *next <= until) {
            *now = next.max(*now);
            let mut volley = Vec::new();
            while let Some(size) = search.poll(*now, CONFIRM) {
                volley.push(size);
            }
            sent += volley.len();
            *now += Duration::from_millis(200);
            for size in volley {
                search.handle(*now, size, size <= path && !lost());
            }
        }
        sent
    }

    #[test]
    fn every_size_is_found_to_the_octet_with_few_packets() {
        for path in (576..=1500).chain([4000, 8999, 9000]) {
            let mut now = Instant::now();
            let top = if path > 1500 { 9000 } else { 1500 };
            let mut search = PathSearch::new(now, top, false);
            assert_eq!(search.found(), None);
            let until = now + Duration::from_secs(5);
            let sent = run(&mut search, &mut now, until, (path, &mut || false));
            assert_eq!(search.found(), Some(path));
            assert!(sent < 50, "{sent} for {path}");
        }
    }

    #[test]
    fn it_falls_soon_and_rises_when_the_kernel_lets_it_or_in_time() {
        let mut now = Instant::now();
        let mut search = PathSearch::new(now, 1500, true);
        let mut all = || false;
        let until = now + Duration::from_secs(1);
        run(&mut search, &mut now, until, (1500, &mut all));
        assert_eq!(search.found(), Some(1500));
        // In two confirmations' time all of it is known.
        let until = now + CONFIRM * 2;
        run(&mut search, &mut now, until, (1400, &mut all));
        assert_eq!(search.found(), Some(1400));
        // While it lasts it is tried seldom.
        let until = now + RAISE * 6;
        let sent = run(&mut search, &mut now, until, (1400, &mut all));
        assert_eq!(search.found(), Some(1400));
        let confirmed = (RAISE * 6).as_secs() / CONFIRM.as_secs();
        assert!(sent < confirmed as usize + 400, "{sent}");
        let until = now + RAISE;
        run(&mut search, &mut now, until, (1500, &mut all));
        assert_eq!(search.found(), Some(1500));
        // A router on the way told the kernel, and ten minutes later it has forgotten.
        search.set_top(now, 1300);
        assert_eq!(search.found(), Some(1300));
        let until = now + Duration::from_secs(1);
        run(&mut search, &mut now, until, (1300, &mut all));
        search.set_top(now, 1500);
        assert_eq!(search.found(), Some(1300), "it is tried first");
        let until = now + Duration::from_secs(1);
        run(&mut search, &mut now, until, (1500, &mut all));
        assert_eq!(search.found(), Some(1500));
    }

    #[test]
    fn a_way_that_is_cut_is_not_narrow_and_one_that_loses_packets_is_not_either_for_long() {
        let mut now = Instant::now();
        let mut search = PathSearch::new(now, 1500, false);
        let mut all = || false;
        let until = now + Duration::from_secs(1);
        run(&mut search, &mut now, until, (1500, &mut all));
        let until = now + CONFIRM * 4;
        run(&mut search, &mut now, until, (0, &mut all));
        assert_eq!(search.found(), Some(1500));
        // One packet gets through in the midst of what is cut.
        let mut at = 0;
        let mut one = || {
            at += 1;
            at != 12 && at < 40
        };
        now += CONFIRM;
        let until = now + CONFIRM;
        run(&mut search, &mut now, until, (1500, &mut one));
        assert!(search.found() < Some(1500), "{:?}", search.found());
        let until = now + 2 * CONFIRM;
        run(&mut search, &mut now, until, (1500, &mut all));
        assert_eq!(search.found(), Some(1500));
        // It is cut for as long as it takes to be doubted, and no longer.
        let mut left = 3;
        let mut first = || {
            left -= 1;
            left >= 0
        };
        now += CONFIRM;
        for _ in 0..8 {
            let until = now;
            run(&mut search, &mut now, until, (1500, &mut first));
            assert_eq!(search.found(), Some(1500));
        }
        assert!(left < 0);
        // One of ten is lost, without a pattern.
        let mut state: u32 = 1;
        let mut some = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            state >> 16 & 0xff < 26
        };
        let mut search = PathSearch::new(now, 1500, false);
        let until = now + RAISE * 3;
        run(&mut search, &mut now, until, (1400, &mut some));
        let found = search.found().unwrap();
        assert!((1380..=1400).contains(&found), "{found}");
    }
}
