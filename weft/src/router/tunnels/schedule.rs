//! When which far router is asked in which tenant, and what follows from what comes back. No clock and no socket: time enters as an
//! argument.
//!
//! Each far router has its turns, as often as the budget lets, and each turn is one of its tenants', the next one in a rotation.
//! One that was lost is sent again at once, twice, together with one of another tenant, so that a far router that is gone, a tenant
//! that is gone there, and a packet that was lost are told apart within the second. Only what has answered before can fall silent; a far
//! router that has not, in any tenant, is told apart from those that have.
//!
//! Beside them go larger ones, that search how large a packet to each far router may be: in what the budget has left of them. Where no
//! tenant's packet comes back, test packets through the underlay do, if the far router reflects those.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use weft_dataplane::{FarEnd, PathLimits, PathSearch};
use weft_overlay::Vni;

/// Between two probes of the router: its budget is 100 a second.
const PACE: Duration = Duration::from_millis(10);
/// Between two turns of a far router at least.
const TURN: Duration = Duration::from_millis(250);
/// Of ten probes that the budget has room for, turns take eight. The rest is for those that are sent again.
const TURNS: u32 = 8;
/// How long an answer is waited for: three round trips and a little, between these; the longest while none is known.
const PATIENCE: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(2));
const A_LITTLE: Duration = Duration::from_millis(100);
/// An answer that comes later than that is known no more.
const LATE: Duration = Duration::from_secs(5);
/// So many lost ones in a row are silence.
const LOST: u32 = 3;
/// Who has not answered within that time, and so many probes, has never done so.
const NEVER: Duration = Duration::from_secs(5);
/// Silent tenants of a far router that is back, and that are asked at once.
const AT_ONCE: usize = 64;
/// How large packets may be is confirmed so often at each far router, and so often at any.
const CONFIRM: (Duration, Duration) = (Duration::from_secs(3), Duration::from_millis(100));
/// The same while tenants send into tunnels: nothing that is lost of theirs is lost for long.
const CONFIRM_HURRIED: (Duration, Duration) =
    (Duration::from_millis(300), Duration::from_millis(50));
/// They do so for so long after they did.
const SENDING: Duration = Duration::from_secs(2);
/// That may cost one octet of so many that they send, so many octets in each look at that, and so many in advance.
const SHARE: u64 = 100;
const ALLOWANCE: u64 = 128;
const ADVANCE: u64 = 64 << 10;
/// Who reflects no test packets is asked again after so long, or in the time between two confirmations where that is more.
const REFLECTS_NOT: Duration = Duration::from_secs(5);
/// So many in a row that were not reflected: those of a confirmation, and of a search of which nothing came back.
const UNREFLECTED: u32 = 12;
/// Where nothing answers, no size is tried for so long.
const NOBODY: Duration = Duration::from_secs(1);
/// Who is routed to no more, and comes back within that time, is known to have answered.
const REMEMBERED: Duration = Duration::from_secs(600);
/// Of so many tenants of each far router the next process is told whether they have answered.
const LOOKED_AT: usize = 256;
/// In a tenant's entry: it has answered.
const ANSWERED: u32 = 1 << 31;

/// What is to be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Ask {
    pub(super) token: u64,
    pub(super) far_end: FarEnd,
    /// The tenant whose packet it is; a test packet through the underlay is nobody's.
    pub(super) vni: Option<Vni>,
    /// Octets with outer headers, where they are what is asked about.
    pub(super) size: Option<u16>,
}

/// What does not answer, and since when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Silent {
    /// A far router, in all tenants.
    FarEnd(FarEnd, Instant),
    /// A tenant there.
    Tenant(FarEnd, Vni, Instant),
}

#[derive(Clone, Copy, Debug)]
struct Asked {
    far_end: FarEnd,
    about: About,
    sent: Instant,
    lost: bool,
}

/// What a probe asks about.
#[derive(Clone, Copy, Debug)]
enum About {
    /// Whether packets of a tenant come back.
    Tenant(u32),
    /// Whether packets of so many octets get there: a tenant's.
    Size(u32, u16),
    /// The same, with a test packet; 0 octets ask only whether it is reflected.
    Reflected(u16),
}

/// Lost probes of a tenant, one behind the other.
#[derive(Clone, Copy, Debug)]
struct Doubt {
    lost: u32,
    /// When the first of them was sent.
    since: Instant,
}

#[derive(Debug)]
struct Far {
    /// VNIs, sorted, each with [`ANSWERED`] where it has. Four octets, since there may be millions.
    tenants: Vec<u32>,
    answered: usize,
    /// VNIs that have answered and are routed to no more, sorted; since when no other has gone.
    gone: Vec<u32>,
    gone_at: Instant,
    last_answered: Option<u32>,
    /// Whose turn is next in the rotation.
    next: usize,
    due: Instant,
    /// It has turns: there are tenants to ask about.
    has_turns: bool,
    /// The next turn is a silent tenant's, where there is one.
    silent_next: bool,
    round_trip: Option<Duration>,
    /// Tenants that have answered, and of which the last probe was lost.
    doubts: BTreeMap<u32, Doubt>,
    /// Nothing has come back of what was sent since then.
    lost_since: Option<Instant>,
    silent: bool,
    /// Lost probes while nothing has ever come back, and when the first of them was sent.
    unanswered: u32,
    unanswered_since: Option<Instant>,
    /// How large packets to it may be, and when the next one is to be sent that asks.
    path: Option<PathSearch>,
    path_due: Option<Instant>,
    /// It reflects test packets; so many in a row it has not.
    reflects: bool,
    unreflected: u32,
}

impl Far {
    fn new(now: Instant) -> Self {
        Self {
            tenants: Vec::new(),
            answered: 0,
            gone: Vec::new(),
            gone_at: now,
            last_answered: None,
            next: 0,
            due: now,
            has_turns: false,
            silent_next: false,
            round_trip: None,
            doubts: BTreeMap::new(),
            lost_since: None,
            silent: false,
            unanswered: 0,
            unanswered_since: None,
            path: None,
            path_due: None,
            reflects: false,
            unreflected: 0,
        }
    }

    fn position(&self, vni: u32) -> Option<usize> {
        self.tenants
            .binary_search_by_key(&vni, |entry| entry & !ANSWERED)
            .ok()
    }

    fn has_answered(&self, vni: u32) -> bool {
        self.position(vni)
            .is_some_and(|at| self.tenants[at] & ANSWERED != 0)
    }

    /// Goes over to these VNIs; what is known of those that stay, or come back, is kept.
    fn adopt(&mut self, now: Instant, vnis: &[Vni]) {
        let same = self.tenants.len() == vnis.len()
            && (self.tenants.iter().zip(vnis)).all(|(entry, vni)| entry & !ANSWERED == vni.get());
        if same {
            return;
        }
        let after: Vec<u32> = vnis
            .iter()
            .map(|vni| vni.get())
            .map(
                |vni| match self.has_answered(vni) || self.remembers(now, vni) {
                    true => vni | ANSWERED,
                    false => vni,
                },
            )
            .collect();
        self.remember(now, vnis);
        let next = self.tenants.get(self.next).map(|entry| entry & !ANSWERED);
        self.tenants = after;
        self.next = next.map_or(0, |next| {
            self.tenants
                .partition_point(|entry| entry & !ANSWERED < next)
        });
        let answered = self.tenants.iter().filter(|entry| *entry & ANSWERED != 0);
        self.answered = answered.count();
        let doubts = std::mem::take(&mut self.doubts).into_iter();
        self.doubts = doubts
            .filter(|(vni, _)| self.position(*vni).is_some())
            .collect();
        // Whoever was silent may be gone.
        self.silent &= self.answered > 0;
    }

    /// Of what it had before it goes over to these VNIs.
    fn remember(&mut self, now: Instant, vnis: &[Vni]) {
        let stays = |vni: u32| vnis.binary_search_by_key(&vni, |one| one.get()).is_ok();
        let answered = self.tenants.iter().filter(|entry| *entry & ANSWERED != 0);
        let leave = answered.map(|entry| entry & !ANSWERED);
        let leave: Vec<u32> = leave.filter(|vni| !stays(*vni)).collect();
        if self.forgets(now) {
            self.gone.clear();
        }
        self.gone.retain(|vni| !stays(*vni));
        if !leave.is_empty() {
            self.gone_at = now;
            self.gone.extend(leave);
            self.gone.sort_unstable();
        }
    }

    fn remembers(&self, now: Instant, vni: u32) -> bool {
        !self.forgets(now) && self.gone.binary_search(&vni).is_ok()
    }

    fn forgets(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.gone_at) >= REMEMBERED
    }

    /// A probe was lost of a tenant that has never answered.
    fn handle_unanswered(&mut self, sent: Instant) {
        if self.answered == 0 {
            self.unanswered = self.unanswered.saturating_add(1);
            self.unanswered_since.get_or_insert(sent);
        }
    }

    /// It has been asked for long enough, and nothing has ever come back.
    fn never_answered(&self, now: Instant) -> bool {
        let since = self.unanswered_since;
        let long = since.is_some_and(|since| now.saturating_duration_since(since) >= NEVER);
        self.answered == 0 && self.has_turns && long && self.unanswered >= LOST
    }

    fn handle_round_trip(&mut self, time: Duration) {
        self.round_trip = Some(match self.round_trip {
            // One that took longer is believed at once, one that took less slowly.
            Some(before) if before > time => (before * 7 + time) / 8,
            _ => time,
        });
    }

    /// A test packet came back after so long, or did not.
    fn handle_reflected(&mut self, time: Option<Duration>) {
        if let Some(time) = time {
            self.handle_round_trip(time);
            (self.reflects, self.unreflected) = (true, 0);
            return;
        }
        self.unreflected += 1;
        if self.unreflected >= UNREFLECTED {
            (self.reflects, self.unreflected) = (false, 0);
        }
    }

    fn patience(&self) -> Duration {
        let (least, most) = PATIENCE;
        self.round_trip
            .map_or(most, |time| (time * 3 + A_LITTLE).clamp(least, most))
    }

    /// Whose turn it is.
    fn turn(&mut self) -> Option<u32> {
        self.silent_next = !self.silent_next;
        if self.silent_next
            && let Some(vni) = self.next_silent()
        {
            return Some(vni);
        }
        let entry = self
            .tenants
            .get(self.next)
            .or_else(|| self.tenants.first())?;
        let vni = entry & !ANSWERED;
        self.next = if self.next + 1 < self.tenants.len() {
            self.next + 1
        } else {
            0
        };
        Some(vni)
    }

    /// The silent tenant that has waited longest for its turn: each turn is one lost probe more.
    fn next_silent(&self) -> Option<u32> {
        let silent = self.doubts.iter().filter(|(_, doubt)| doubt.lost >= LOST);
        silent
            .min_by_key(|(_, doubt)| doubt.lost)
            .map(|(vni, _)| *vni)
    }

    /// Another tenant that has answered, to be asked beside one that did not.
    fn witness(&self, vni: u32) -> Option<u32> {
        let last = self.last_answered.filter(|last| *last != vni);
        if let Some(last) = last.filter(|last| self.has_answered(*last)) {
            return Some(last);
        }
        let at = self.position(vni)?;
        let (before, after) = self.tenants.split_at(at);
        let mut others = after.iter().skip(1).chain(before);
        // A few are looked at: where hardly any has answered there is no hurry.
        others
            .by_ref()
            .take(64)
            .find(|entry| *entry & ANSWERED != 0)
            .map(|entry| entry & !ANSWERED)
    }
}

/// Far routers and their turns.
#[derive(Debug, Default)]
pub(super) struct Schedule {
    far_ends: BTreeMap<FarEnd, Far>,
    /// Those that no route leads to any more, and that have answered of late.
    former: BTreeMap<FarEnd, Far>,
    due: BTreeSet<(Instant, FarEnd)>,
    /// When which of them is asked how large packets may be.
    paths_due: BTreeSet<(Instant, FarEnd)>,
    path_next: bool,
    /// Of these something else was found than before.
    path_news: BTreeSet<FarEnd>,
    /// Packets of so many octets reach these, and the kernel lets fewer.
    exceeded: Vec<(IpAddr, u16)>,
    /// What was lost is sent again before others have their turns, every second time.
    again: VecDeque<(FarEnd, u32)>,
    again_next: bool,
    asked: HashMap<u64, Asked>,
    /// When what was asked is lost, and when it is forgotten.
    deadlines: BTreeSet<(Instant, u64)>,
    last_token: u64,
    /// Nothing is sent before.
    free_at: Option<Instant>,
    changed: bool,
    /// Octets that were sent in advance of what tenants' packets pay for, and until when there is reason to.
    advanced: u64,
    sending_until: Option<Instant>,
}

impl Schedule {
    /// Goes over to these far routers and their VNIs. What has answered is known of those that stay.
    pub(super) fn adopt(&mut self, now: Instant, far_ends: &BTreeMap<FarEnd, Vec<Vni>>) {
        self.former.retain(|_, far| !far.forgets(now));
        let present = self.far_ends.keys();
        let leaving = present.filter(|far_end| !far_ends.contains_key(far_end));
        for far_end in leaving.copied().collect::<Vec<_>>() {
            let Some(mut far) = self.far_ends.remove(&far_end) else {
                continue;
            };
            self.due.remove(&(far.due, far_end));
            self.paths_due.retain(|(_, leads_to)| *leads_to != far_end);
            far.adopt(now, &[]);
            if !far.gone.is_empty() {
                let round_trip = far.round_trip;
                let (gone, gone_at) = (far.gone, far.gone_at);
                let former = Far {
                    gone,
                    gone_at,
                    round_trip,
                    ..Far::new(now)
                };
                self.former.insert(far_end, former);
            }
        }
        for (far_end, vnis) in far_ends {
            let far = self.far_ends.entry(*far_end).or_insert_with(|| {
                let former = self.former.remove(far_end);
                former.unwrap_or_else(|| Far::new(now))
            });
            far.adopt(now, vnis);
            let has_turns = !vnis.is_empty();
            if std::mem::replace(&mut far.has_turns, has_turns) != has_turns {
                self.due.remove(&(far.due, *far_end));
                far.due = now;
                self.due.extend(has_turns.then_some((now, *far_end)));
            }
        }
    }

    /// How large packets to each may be at most.
    pub(super) fn set_limits(&mut self, now: Instant, limits: &BTreeMap<FarEnd, PathLimits>) {
        for (far_end, limits) in limits {
            let Some(far) = self.far_ends.get_mut(far_end) else {
                continue;
            };
            let (top, link) = (limits.known, limits.link);
            if let Some(path) = &mut far.path {
                if (path.top(), path.link()) == (top, link) {
                    continue;
                }
                path.set_top(now, top, link);
            } else {
                let mut path = PathSearch::new(now, top, far_end.address.is_ipv6());
                path.set_top(now, top, link);
                far.path = Some(path);
            }
            self.plan_path(now, *far_end);
        }
    }

    /// Tenants have sent so many octets into tunnels since this was said last.
    pub(super) fn handle_traffic(&mut self, now: Instant, octets: u64) {
        self.advanced = self.advanced.saturating_sub(octets / SHARE + ALLOWANCE);
        if octets == 0 {
            return;
        }
        let hurried = self.is_hurried(now);
        self.sending_until = Some(now + SENDING);
        if hurried || !self.is_hurried(now) {
            return;
        }
        let confirm = self.confirm_every(now);
        for far_end in self.far_ends.keys().copied().collect::<Vec<_>>() {
            let far = self.far_ends.get_mut(&far_end);
            if let Some(path) = far.and_then(|far| far.path.as_mut()) {
                path.hurry(now, confirm);
                self.plan_path(now, far_end);
            }
        }
    }

    /// Tenants send, and it has not cost too much.
    fn is_hurried(&self, now: Instant) -> bool {
        self.sending_until.is_some_and(|until| now < until) && self.advanced < ADVANCE
    }

    fn confirm_every(&self, now: Instant) -> Duration {
        let (each, any) = match self.is_hurried(now) {
            true => CONFIRM_HURRIED,
            false => CONFIRM,
        };
        let count = u32::try_from(self.far_ends.len()).unwrap_or(u32::MAX);
        each.max(any.saturating_mul(count))
    }

    /// How large packets may be, of those of which it is known: octets with outer headers, and what the link and the kernel let.
    pub(super) fn paths(&self) -> impl Iterator<Item = (FarEnd, u16, u16)> {
        let all = self.far_ends.keys();
        all.filter_map(|far_end| self.path(*far_end))
    }

    /// The same of those of which something else was found since this was asked last.
    pub(super) fn take_path_news(&mut self) -> Vec<(FarEnd, u16, u16)> {
        let news = std::mem::take(&mut self.path_news).into_iter();
        news.filter_map(|far_end| self.path(far_end)).collect()
    }

    /// Far routers that larger packets reach than the kernel lets, as a router on the way told it, since this was asked last: octets with
    /// outer headers.
    pub(super) fn take_exceeded(&mut self) -> Vec<(IpAddr, u16)> {
        std::mem::take(&mut self.exceeded)
    }

    fn path(&self, far_end: FarEnd) -> Option<(FarEnd, u16, u16)> {
        let path = self.far_ends.get(&far_end)?.path.as_ref()?;
        Some((far_end, path.found()?, path.top()))
    }

    fn plan_path(&mut self, now: Instant, far_end: FarEnd) {
        let Some(far) = self.far_ends.get_mut(&far_end) else {
            return;
        };
        let next = far.path.as_ref().and_then(|path| path.next(now));
        if let Some(before) = std::mem::replace(&mut far.path_due, next) {
            self.paths_due.remove(&(before, far_end));
        }
        self.paths_due.extend(next.map(|next| (next, far_end)));
    }

    /// The far router whose turn it is to be asked how large packets may be, and with what.
    fn pop_path(&mut self, now: Instant) -> Option<(FarEnd, About)> {
        let confirm = self.confirm_every(now);
        while let Some((due, far_end)) = self.paths_due.first().copied()
            && due <= now
        {
            self.paths_due.pop_first();
            let Some(far) = self.far_ends.get_mut(&far_end) else {
                continue;
            };
            far.path_due = None;
            let vni = far.last_answered.filter(|vni| far.has_answered(*vni));
            let nothing = far.silent || vni.is_none() && !far.reflects;
            if nothing {
                let pause = if far.silent {
                    NOBODY
                } else {
                    REFLECTS_NOT.max(confirm)
                };
                far.path_due = Some(now + pause);
                self.paths_due.insert((now + pause, far_end));
                match far.silent {
                    true => continue,
                    false => return Some((far_end, About::Reflected(0))),
                }
            }
            let path = far.path.as_mut();
            let believed = path.as_ref().and_then(|path| path.found());
            let size = path.and_then(|path| path.poll(now, confirm));
            self.plan_path(now, far_end);
            if let Some(size) = size {
                // A search is seldom: what it costs does not count.
                if believed == Some(size) && self.is_hurried(now) {
                    self.advanced += u64::from(size);
                }
                let about = vni.map_or(About::Reflected(size), |vni| About::Size(vni, size));
                return Some((far_end, about));
            }
        }
        None
    }

    fn handle_path(&mut self, now: Instant, far_end: FarEnd, size: u16, came_back: bool) {
        let far = self.far_ends.get_mut(&far_end);
        if let Some(path) = far.and_then(|far| far.path.as_mut()) {
            let before = path.found();
            path.handle(now, size, came_back);
            if path.found() != before {
                self.path_news.insert(far_end);
            }
            if let Some(octets) = path.take_exceeded() {
                self.exceeded.push((far_end.address, octets));
            }
            self.plan_path(now, far_end);
        }
    }

    fn handle_reflected(&mut self, now: Instant, asked: Asked, size: u16, came_back: bool) {
        let Some(far) = self.far_ends.get_mut(&asked.far_end) else {
            return;
        };
        let time = now.saturating_duration_since(asked.sent);
        far.handle_reflected(came_back.then_some(time));
        if size > 0 {
            self.handle_path(now, asked.far_end, size, came_back);
        } else if came_back {
            self.plan_path(now, asked.far_end);
        }
    }

    /// The next probe that is to be sent now.
    pub(super) fn poll(&mut self, now: Instant) -> Option<Ask> {
        self.expire(now);
        if self.free_at.is_some_and(|free_at| now < free_at) {
            return None;
        }
        self.path_next = !self.path_next;
        let mut path = self.path_next.then(|| self.pop_path(now)).flatten();
        if path.is_none() {
            let turn_is_due = self.due.first().is_some_and(|(due, _)| *due <= now);
            let small = self.pop_small(now, turn_is_due);
            path = small.map(|(far_end, vni)| (far_end, About::Tenant(vni)));
        }
        let (far_end, about) = path.or_else(|| self.pop_path(now))?;
        let (vni, size) = match about {
            About::Tenant(vni) => (Some(vni), None),
            About::Size(vni, size) => (Some(vni), Some(size)),
            About::Reflected(size) => (None, Some(size)),
        };
        self.free_at = Some(now + PACE);
        self.last_token += 1;
        let token = self.last_token;
        let patience = self.far_ends.get(&far_end)?.patience();
        let asked = Asked {
            far_end,
            about,
            sent: now,
            lost: false,
        };
        self.asked.insert(token, asked);
        self.deadlines.insert((now + patience, token));
        Some(Ask {
            token,
            far_end,
            vni: vni.and_then(|vni| Vni::new(vni).ok()),
            size,
        })
    }

    fn pop_small(&mut self, now: Instant, turn_is_due: bool) -> Option<(FarEnd, u32)> {
        self.again_next = !self.again_next;
        let again = self.again_next || !turn_is_due;
        match again.then(|| self.pop_again()).flatten() {
            Some(next) => Some(next),
            None if turn_is_due => self.pop_turn(now),
            None => None,
        }
    }

    fn pop_again(&mut self) -> Option<(FarEnd, u32)> {
        loop {
            let (far_end, vni) = self.again.pop_front()?;
            let far = self.far_ends.get(&far_end);
            if far.is_some_and(|far| far.position(vni).is_some()) {
                return Some((far_end, vni));
            }
        }
    }

    fn pop_turn(&mut self, now: Instant) -> Option<(FarEnd, u32)> {
        let between = self.between_turns();
        let (_, far_end) = self.due.pop_first()?;
        let far = self.far_ends.get_mut(&far_end)?;
        far.due = now + between;
        self.due.insert((far.due, far_end));
        Some((far_end, far.turn()?))
    }

    fn between_turns(&self) -> Duration {
        let count = u32::try_from(self.due.len()).unwrap_or(u32::MAX);
        TURN.max(PACE.saturating_mul(count) * 10 / TURNS)
    }

    /// When [`Schedule::poll`] is to be called again at the latest.
    pub(super) fn next(&self) -> Option<Instant> {
        let deadline = self.deadlines.first().map(|(at, _)| *at);
        let again = self.again.front().and(self.free_at);
        let turn = self.due.first().map(|(due, _)| *due);
        let turn = turn.map(|due| self.free_at.map_or(due, |free_at| due.max(free_at)));
        let path = self.paths_due.first().map(|(due, _)| *due);
        let path = path.map(|due| self.free_at.map_or(due, |free_at| due.max(free_at)));
        let asked = deadline.into_iter().chain(again);
        asked.chain(turn).chain(path).min()
    }

    fn expire(&mut self, now: Instant) {
        while let Some((at, token)) = self.deadlines.first().copied()
            && at <= now
        {
            self.deadlines.pop_first();
            let Some(asked) = self.asked.get_mut(&token) else {
                continue;
            };
            if asked.lost {
                self.asked.remove(&token);
                continue;
            }
            asked.lost = true;
            let asked = *asked;
            match asked.about {
                About::Tenant(vni) => {
                    self.deadlines.insert((asked.sent + LATE, token));
                    self.handle_lost(asked.far_end, vni, asked.sent);
                    continue;
                }
                About::Size(_, size) => self.handle_path(now, asked.far_end, size, false),
                About::Reflected(size) => self.handle_reflected(now, asked, size, false),
            }
            self.asked.remove(&token);
        }
    }

    fn handle_lost(&mut self, far_end: FarEnd, vni: u32, sent: Instant) {
        let Some(far) = self.far_ends.get_mut(&far_end) else {
            return;
        };
        let again = (far_end, vni);
        if !far.has_answered(vni) {
            far.handle_unanswered(sent);
            // It need not be able to; but another one is.
            let witness = far.witness(vni);
            let witness = witness.filter(|_| far.doubts.is_empty() && !far.silent);
            self.again.extend(witness.map(|witness| (far_end, witness)));
            return;
        }
        let doubt = far.doubts.entry(vni).or_insert(Doubt {
            lost: 0,
            since: sent,
        });
        doubt.lost = doubt.lost.saturating_add(1);
        let lost = doubt.lost;
        let since = *far.lost_since.get_or_insert(sent);
        far.lost_since = Some(since.min(sent));
        match far.doubts.len() {
            _ if lost > 1 || far.silent => {}
            1 => {
                self.again.extend([again, again]);
                let witness = far.witness(vni);
                self.again.extend(witness.map(|witness| (far_end, witness)));
            }
            // A witness, which calls no other: with it all is known of this far router.
            _ => {
                self.again.push_front(again);
                self.again.push_front(again);
            }
        }
        let silent = far.doubts.values().filter(|doubt| doubt.lost >= LOST);
        // One tenant may be gone there alone: another one has to be lost, too, before the far router is.
        if !far.silent && silent.count() >= far.answered.min(2) {
            far.silent = true;
            self.changed = true;
        }
        self.changed |= lost == LOST;
    }

    /// A probe came back.
    pub(super) fn handle_answer(&mut self, now: Instant, token: u64) {
        let Some(asked) = self.asked.remove(&token) else {
            return;
        };
        let vni = match asked.about {
            About::Tenant(vni) => vni,
            About::Size(_, size) => return self.handle_path(now, asked.far_end, size, true),
            About::Reflected(size) => return self.handle_reflected(now, asked, size, true),
        };
        let Some(far) = self.far_ends.get_mut(&asked.far_end) else {
            return;
        };
        let Some(at) = far.position(vni) else {
            return;
        };
        if far.tenants[at] & ANSWERED == 0 {
            far.tenants[at] |= ANSWERED;
            far.answered += 1;
            self.changed |= far.unanswered >= LOST;
        }
        (far.unanswered, far.unanswered_since) = (0, None);
        far.last_answered = Some(vni);
        far.handle_round_trip(now.saturating_duration_since(asked.sent));
        let doubt = far.doubts.remove(&vni);
        self.changed |= far.silent || doubt.is_some_and(|doubt| doubt.lost >= LOST);
        far.lost_since = None;
        if std::mem::take(&mut far.silent) {
            // They were lost with it: whoever is silent still is found anew.
            let others = std::mem::take(&mut far.doubts).into_keys().take(AT_ONCE);
            self.again.extend(others.map(|vni| (asked.far_end, vni)));
        }
    }

    /// A test packet came back from an address.
    pub(super) fn handle_reflection(&mut self, now: Instant, from: IpAddr, token: u64) {
        let asked = self.asked.get(&token);
        if asked.is_some_and(|asked| asked.far_end.address == from) {
            self.handle_answer(now, token);
        }
    }

    /// Something fell silent or answers again since this was asked last.
    pub(super) fn take_changed(&mut self) -> bool {
        std::mem::take(&mut self.changed)
    }

    /// What is silent now, by far router.
    pub(super) fn silent(&self) -> impl Iterator<Item = Silent> {
        self.far_ends.iter().flat_map(|(far_end, far)| {
            let whole = far.silent.then_some(far.lost_since).flatten();
            let whole = whole.map(|since| Silent::FarEnd(*far_end, since));
            let tenants = far.doubts.iter();
            let tenants = tenants
                .filter(|(_, doubt)| !far.silent && doubt.lost >= LOST)
                .filter_map(|(vni, doubt)| {
                    Some(Silent::Tenant(*far_end, Vni::new(*vni).ok()?, doubt.since))
                });
            whole.into_iter().chain(tenants)
        })
    }

    /// Far routers of which nothing has ever come back, in any tenant, though they were asked for long enough.
    pub(super) fn never_answered(&self, now: Instant) -> impl Iterator<Item = FarEnd> {
        let far_ends = self.far_ends.iter();
        let never = far_ends.filter(move |(_, far)| far.never_answered(now));
        never.map(|(far_end, _)| *far_end)
    }

    /// Far routers that have answered, with some of the VNIs that did.
    pub(super) fn answered(&self) -> BTreeMap<FarEnd, Vec<u32>> {
        let all = self.far_ends.iter().filter(|(_, far)| far.answered > 0);
        all.map(|(far_end, far)| {
            let last = far.last_answered.filter(|vni| far.has_answered(*vni));
            let first = far.tenants.iter().take(LOOKED_AT);
            let first = first.filter(|entry| *entry & ANSWERED != 0);
            let first = first.map(|entry| entry & !ANSWERED);
            let vnis: BTreeSet<u32> = last.into_iter().chain(first).collect();
            (*far_end, vnis.into_iter().collect())
        })
        .collect()
    }

    /// These have answered before: they can fall silent when they are routed to.
    pub(super) fn remember(&mut self, now: Instant, answered: BTreeMap<FarEnd, Vec<u32>>) {
        for (far_end, mut vnis) in answered {
            vnis.sort_unstable();
            let far = Far {
                gone: vnis,
                ..Far::new(now)
            };
            self.former.insert(far_end, far);
        }
    }

    /// Far routers that have ever answered in some tenant, and those of them that are silent.
    pub(super) fn counts(&self) -> (usize, usize) {
        let answered = self.far_ends.values().filter(|far| far.answered > 0);
        answered.fold((0, 0), |(all, silent), far| {
            (all + 1, silent + usize::from(far.silent))
        })
    }
}

#[cfg(test)]
mod tests;
