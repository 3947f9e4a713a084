//! How large packets to a far router may be, found by sending some (datagram packetization layer path MTU discovery, RFC 8899). No
//! clock and no socket: time enters as an argument.
//!
//! What is believed is confirmed now and then, so that a way that swallows large packets without a word does not swallow them for
//! long. Where one is lost, a few sizes between the least and what was lost are sent at once, and what was lost twice more; the largest
//! that comes back and the next one that does not are what is searched between next. Three or four such rounds find the octet. What is
//! smaller than it could be is tried again after five seconds, since a way that is cut in the midst of a search looks narrow; then after
//! twice as long each time, up to ten minutes; or as soon as the kernel lets more. In the same way is tried what the link lets and the
//! kernel does not: it has learned what it knows from a router on the way, and forgets it in ten minutes by itself.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// What is lost so often does not fit (MAX_PROBES of RFC 8899 section 5.1.2).
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
    /// Whether what is believed is still so.
    Confirming,
    Searching(Search),
    /// Whether more gets there than the kernel lets.
    Exceeding,
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
    /// What is not to be exceeded: as the link and the kernel have it; and as the link alone has it.
    top: u16,
    link: u16,
    /// What is believed, and whether anything has come back that says so.
    path: u16,
    known: bool,
    phase: Phase,
    unsent: VecDeque<u16>,
    waiting: Vec<u16>,
    /// Of this round: the largest that came back, and all that did not.
    largest: Option<u16>,
    lost: Vec<u16>,
    /// More than the kernel lets, and it came back.
    exceeded: Option<u16>,
    confirmed_at: Option<Instant>,
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
            link: top,
            path: top,
            known: false,
            phase: Phase::Confirming,
            unsent: VecDeque::new(),
            waiting: Vec::new(),
            largest: None,
            lost: Vec::new(),
            exceeded: None,
            confirmed_at: None,
            confirm_at: now,
            raise_at: now + RAISE,
            raise_after: RAISE_FIRST,
        }
    }

    /// The link or the kernel lets more or less: what was believed holds as far as it may, and more is tried at once. `link` is what the
    /// link alone lets.
    pub fn set_top(&mut self, now: Instant, top: u16, link: u16) {
        let link = link.max(top);
        if std::mem::replace(&mut self.link, link) != link {
            self.raise_at = self.raise_at.min(now + RAISE_FIRST);
        }
        if top == self.top {
            return;
        }
        self.path = self.path.min(top);
        self.begin(Phase::Confirming, []);
        self.raise_after = RAISE_FIRST;
        if top < self.top {
            self.confirm_at = now;
            self.raise_at = now + RAISE_FIRST;
        } else {
            self.raise_at = now;
        }
        self.top = top;
    }

    /// Packets go there: what is believed is confirmed so long after the last time.
    pub fn hurry(&mut self, now: Instant, confirm: Duration) {
        let at = self.confirmed_at.map_or(now, |at| at + confirm);
        self.confirm_at = self.confirm_at.min(at.max(now));
    }

    /// So many octets got there, and the kernel lets fewer; once for each time that this is found.
    pub fn take_exceeded(&mut self) -> Option<u16> {
        self.exceeded.take()
    }

    /// Octets that get there, outer headers included; `None` while nothing is known.
    pub fn found(&self) -> Option<u16> {
        self.known.then_some(self.path)
    }

    /// What the link and the kernel let.
    pub fn top(&self) -> u16 {
        self.top
    }

    /// What the link alone lets.
    pub fn link(&self) -> u16 {
        self.link
    }

    /// When [`PathSearch::poll`] has something; `None` while answers are waited for.
    pub fn next(&self, now: Instant) -> Option<Instant> {
        if !self.unsent.is_empty() {
            return Some(now);
        }
        if !self.waiting.is_empty() {
            return None;
        }
        let raise = (self.path < self.link).then_some(self.raise_at);
        Some(raise.map_or(self.confirm_at, |at| at.min(self.confirm_at)))
    }

    /// Octets, outer headers included, of a packet that is to be sent now. What is believed is confirmed every `confirm`.
    pub fn poll(&mut self, now: Instant, confirm: Duration) -> Option<u16> {
        if self.unsent.is_empty() && self.waiting.is_empty() {
            if self.path < self.link && self.raise_at <= now {
                self.raise();
            } else if self.confirm_at <= now {
                self.confirmed_at = Some(now);
                self.confirm_at = now + confirm;
                self.begin(Phase::Confirming, [self.path]);
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
        let over = self.waiting.is_empty() && self.unsent.is_empty();
        match self.phase {
            Phase::Confirming if came_back => self.known = true,
            Phase::Confirming => {
                let limit = size.saturating_add(1);
                self.search(self.least - 1, limit, limit);
            }
            Phase::Searching(search) if over => self.end_round(now, search),
            Phase::Exceeding if over => {
                if let Some(largest) = self.largest {
                    // As if the kernel had forgotten already: whoever hears of it sees to that.
                    self.exceeded = Some(largest);
                    (self.top, self.path, self.known) = (largest, largest, true);
                }
                self.end_search(now);
            }
            Phase::Searching(_) | Phase::Exceeding => {}
        }
    }

    /// More is tried: what the kernel lets, and where that gets there, what the link does.
    fn raise(&mut self) {
        if self.path < self.top {
            let limit = self.top.saturating_add(1);
            return self.search(self.path, limit, limit);
        }
        let more = self.link - self.top;
        let sizes = [more.div_ceil(4), more.div_ceil(2), more].map(|more| self.top + more);
        self.begin(Phase::Exceeding, sizes);
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
        // While nothing has come back the largest is the first, too, so that a way that is cut or back meanwhile does not look narrow;
        // and the least is there: where not even that comes back, it is not the size.
        let nothing = search.low < self.least;
        let doubted = [search.high - 1, self.least];
        let doubted = doubted.into_iter().filter(|_| nothing);
        self.begin(Phase::Searching(search), doubted.chain(sizes));
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
        // Where not even the least came back, the way is not narrow but cut, which others judge.
        let cut = search.low < self.least;
        let over = search.low + 1 == search.limit || again && self.largest.is_none();
        if cut || over || search.rounds == ROUNDS {
            return self.end_search(now);
        }
        self.begin_round(search);
    }

    fn end_search(&mut self, now: Instant) {
        self.raise_at = now + self.raise_after;
        self.raise_after = match self.path < self.link {
            true => (self.raise_after * 2).min(RAISE),
            false => RAISE_FIRST,
        };
        self.begin(Phase::Confirming, []);
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
        search.set_top(now, 1300, 1500);
        assert_eq!(search.found(), Some(1300));
        let until = now + Duration::from_secs(1);
        run(&mut search, &mut now, until, (1300, &mut all));
        search.set_top(now, 1500, 1500);
        assert_eq!(search.found(), Some(1300), "it is tried first");
        let until = now + Duration::from_secs(1);
        run(&mut search, &mut now, until, (1500, &mut all));
        assert_eq!(search.found(), Some(1500));
    }

    #[test]
    fn what_swallows_large_packets_is_seen_within_the_second_where_packets_go() {
        const HURRIED: Duration = Duration::from_millis(300);
        let mut now = Instant::now();
        let mut search = PathSearch::new(now, 1500, false);
        let mut all = || false;
        let until = now + CONFIRM * 3;
        run(&mut search, &mut now, until, (1500, &mut all));
        // Whatever was sent when: the next one is sent within that time.
        let struck = now;
        while search.found() == Some(1500) {
            search.hurry(now, HURRIED);
            let until = now + Duration::from_millis(10);
            run(&mut search, &mut now, until, (1400, &mut all));
            now = now.max(until);
            assert!(now - struck < Duration::from_millis(800));
        }
        assert!(search.found() >= Some(1250), "{:?}", search.found());
    }

    #[test]
    fn what_the_kernel_has_learned_is_tried_too_and_more_is_said_once() {
        let mut now = Instant::now();
        let mut all = || false;
        for (path, more) in [(1400, None), (1500, Some(1500)), (1450, Some(1450))] {
            let mut search = PathSearch::new(now, 1400, false);
            search.set_top(now, 1400, 1500);
            let until = now + Duration::from_secs(4);
            run(&mut search, &mut now, until, (path, &mut all));
            assert_eq!((search.found(), search.take_exceeded()), (Some(1400), None));
            let until = now + RAISE_FIRST + CONFIRM;
            run(&mut search, &mut now, until, (path, &mut all));
            assert_eq!(search.take_exceeded(), more);
            assert_eq!(search.take_exceeded(), None);
            assert_eq!(search.found(), more.or(Some(1400)));
            // The kernel was told.
            if more.is_some() {
                search.set_top(now, 1500, 1500);
                let until = now + Duration::from_secs(4);
                run(&mut search, &mut now, until, (path, &mut all));
                assert_eq!(search.found(), Some(path));
            }
        }
        // Where there is no more it is tried ever less.
        let mut search = PathSearch::new(now, 1400, false);
        search.set_top(now, 1400, 1500);
        let until = now + RAISE * 6;
        let sent = run(&mut search, &mut now, until, (1400, &mut all));
        assert_eq!(search.take_exceeded(), None);
        let confirmed = (RAISE * 6).as_secs() / CONFIRM.as_secs();
        assert!(sent < confirmed as usize + 60, "{sent}");
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
            at != 5 && at < 40
        };
        now += CONFIRM;
        let until = now + RAISE_FIRST / 2;
        run(&mut search, &mut now, until, (1500, &mut one));
        assert!(search.found() < Some(1500), "{:?}", search.found());
        let until = now + 2 * CONFIRM;
        run(&mut search, &mut now, until, (1500, &mut all));
        assert_eq!(search.found(), Some(1500));
        // It is cut for as long as it takes to be doubted, and no longer.
        let mut left = 1;
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
        // It is cut, or is back, in the midst of what follows upon a doubt: neither is taken for narrow.
        for last in 1..11 {
            for back in [true, false] {
                let mut sent = 0;
                let mut part = || {
                    sent += 1;
                    sent == 1 || (sent > last) != back
                };
                now += CONFIRM;
                let until = now + CONFIRM / 2;
                run(&mut search, &mut now, until, (1500, &mut part));
                assert_eq!(search.found(), Some(1500), "{last} {back}");
            }
        }
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
