//! The schedule against a world of far routers, by a clock of its own.

use weft_overlay::Encapsulation;

use super::*;

fn far_end(number: u32) -> FarEnd {
    FarEnd {
        address: std::net::Ipv4Addr::from(0xc000_0200 + number).into(),
        encapsulation: Encapsulation::Vxlan,
        endpoint_id: None,
        port: Some(4789),
    }
}

fn vni(number: u32) -> Vni {
    Vni::new(number).unwrap()
}

/// So many far routers, with VNIs 1 to `tenants` each.
fn domain(far_ends: u32, tenants: u32) -> BTreeMap<FarEnd, Vec<Vni>> {
    let far_ends = 0..far_ends;
    far_ends
        .map(|number| (far_end(number), (1..=tenants).map(vni).collect()))
        .collect()
}

struct World {
    start: Instant,
    now: Instant,
    schedule: Schedule,
    /// What is on its way back.
    back: BTreeSet<(Instant, u64)>,
    sent: Vec<(Duration, Ask)>,
}

impl World {
    fn new(far_ends: &BTreeMap<FarEnd, Vec<Vni>>) -> Self {
        let start = Instant::now();
        let mut schedule = Schedule::default();
        schedule.adopt(start, far_ends);
        Self {
            start,
            now: start,
            schedule,
            back: BTreeSet::new(),
            sent: Vec::new(),
        }
    }

    /// Runs for a time, or until `end`; `round_trip` says how long a probe takes, and `None` of one that is lost.
    fn run_until(
        &mut self,
        time: Duration,
        round_trip: impl Fn(&Ask) -> Option<Duration>,
        end: impl Fn(&mut Schedule) -> bool,
    ) -> Duration {
        let (from, until) = (self.now, self.now + time);
        loop {
            while let Some((at, token)) = self.back.first().copied()
                && at <= self.now
            {
                self.back.pop_first();
                self.schedule.handle_answer(self.now, token);
            }
            while let Some(ask) = self.schedule.poll(self.now) {
                let time = round_trip(&ask);
                self.back
                    .extend(time.map(|time| (self.now + time, ask.token)));
                self.sent.push((self.now - self.start, ask));
            }
            if end(&mut self.schedule) {
                return self.now - from;
            }
            let back = self.back.first().map(|(at, _)| *at);
            let next = self.schedule.next().into_iter().chain(back).min();
            let Some(next) = next.filter(|next| *next <= until) else {
                self.now = until;
                return time;
            };
            self.now = next.max(self.now);
        }
    }

    fn run(&mut self, time: Duration, round_trip: impl Fn(&Ask) -> Option<Duration>) {
        self.run_until(time, round_trip, |_| false);
    }

    fn silent(&self) -> Vec<Silent> {
        self.schedule.silent().collect()
    }
}

const SECOND: Duration = Duration::from_secs(1);
const NEAR: Option<Duration> = Some(Duration::from_millis(2));

#[test]
fn four_thousand_tenants_at_two_thousand_far_routers_stay_within_the_budget() {
    let mut world = World::new(&domain(2000, 4000));
    world.run(120 * SECOND, |_| NEAR);
    assert!(world.sent.len() <= 12_000, "{}", world.sent.len());
    let mut seconds = [0; 120];
    for (at, _) in &world.sent {
        seconds[(at.as_secs() as usize).min(119)] += 1;
    }
    assert!(seconds.iter().all(|count| *count <= 101), "{seconds:?}");
    // Every far router has its turn, and each time another tenant of it.
    let mut turns: BTreeMap<FarEnd, Vec<(Duration, Vni)>> = BTreeMap::new();
    for (at, ask) in &world.sent {
        turns
            .entry(ask.far_end)
            .or_default()
            .push((*at, ask.vni.unwrap()));
    }
    assert_eq!(turns.len(), 2000);
    for turns in turns.values() {
        assert!(turns.len() >= 4);
        assert!(
            turns
                .windows(2)
                .all(|pair| pair[1].0 - pair[0].0 <= 30 * SECOND)
        );
        assert!(
            turns
                .windows(2)
                .all(|pair| pair[1].1.get() == pair[0].1.get() + 1)
        );
    }
    assert_eq!(world.silent(), []);
}

#[test]
fn what_falls_silent_is_found_within_the_second() {
    let mut world = World::new(&domain(2, 3));
    world.run(5 * SECOND, |_| NEAR);
    let gone = |ask: &Ask| {
        if ask.far_end == far_end(1) {
            None
        } else {
            NEAR
        }
    };
    let found = world.run_until(2 * SECOND, gone, |schedule| {
        schedule.silent().next().is_some()
    });
    assert!(found < SECOND, "{found:?}");
    world.run(SECOND, gone);
    assert!(
        matches!(world.silent()[..], [Silent::FarEnd(far, since)]
            if far == far_end(1) && since <= world.start + 6 * SECOND),
        "{:?}",
        world.silent()
    );
    assert_eq!(world.schedule.counts(), (2, 1));
    let back = world.run_until(
        2 * SECOND,
        |_| NEAR,
        |schedule| schedule.silent().next().is_none(),
    );
    assert!(back < SECOND, "{back:?}");
    world.run(SECOND, |_| NEAR);
    assert_eq!(world.silent(), []);
}

#[test]
fn a_tenant_that_is_gone_at_a_far_router_is_not_taken_for_the_far_router() {
    let mut world = World::new(&domain(1, 3));
    world.run(5 * SECOND, |_| NEAR);
    let gone = |ask: &Ask| if ask.vni == Some(vni(2)) { None } else { NEAR };
    world.run(3 * SECOND, gone);
    let silent = world.silent();
    assert!(
        matches!(silent[..], [Silent::Tenant(far, one, _)] if far == far_end(0) && one == vni(2)),
        "{silent:?}"
    );
    assert_eq!(world.schedule.counts(), (1, 0));
    // It is asked on, beside the others.
    let before = world.sent.len();
    world.run(5 * SECOND, gone);
    let asked = |one| {
        world.sent[before..]
            .iter()
            .filter(|(_, ask)| ask.vni == Some(vni(one)))
            .count()
    };
    assert!(asked(1) > 2 && asked(3) > 2 && asked(2) > asked(1));
    world.run(SECOND, |_| NEAR);
    assert_eq!(world.silent(), []);
}

#[test]
fn what_never_answered_does_not_fall_silent() {
    let mut world = World::new(&domain(2, 2));
    let never = |ask: &Ask| {
        if ask.far_end == far_end(1) || ask.vni == Some(vni(2)) {
            None
        } else {
            NEAR
        }
    };
    world.run(60 * SECOND, never);
    assert_eq!(world.silent(), []);
    assert_eq!(world.schedule.counts(), (1, 0));
}

/// A way that is dead from the beginning: nobody can fall silent there, and nobody forwards.
#[test]
fn who_never_answered_is_told_after_a_while_until_something_comes_back() {
    let mut world = World::new(&domain(2, 2));
    let cut = |ask: &Ask| {
        if ask.far_end == far_end(1) {
            None
        } else {
            NEAR
        }
    };
    let never = |world: &World| world.schedule.never_answered(world.now).collect::<Vec<_>>();
    world.run(4 * SECOND, cut);
    assert_eq!(never(&world), []);
    world.run(6 * SECOND, cut);
    assert_eq!(never(&world), [far_end(1)]);
    assert_eq!((world.silent(), world.schedule.counts()), (vec![], (1, 0)));
    // It has routes to no tenant of ours any more: it is not asked.
    let now = world.now;
    let mut less = domain(2, 2);
    less.insert(far_end(1), Vec::new());
    world.schedule.adopt(now, &less);
    assert_eq!(never(&world), []);
    world.schedule.adopt(now, &domain(2, 2));
    world.schedule.take_changed();
    world.run(6 * SECOND, |_| NEAR);
    assert!(world.schedule.take_changed(), "it is said no more at once");
    assert_eq!(never(&world), []);
    // From then on it can fall silent.
    world.run(2 * SECOND, cut);
    assert_eq!(world.schedule.counts(), (2, 1));
}

/// A process that starts while the way is cut knows from the one before who had answered.
#[test]
fn what_the_process_before_knew_is_remembered() {
    let before = {
        let mut world = World::new(&domain(2, 2));
        world.run(5 * SECOND, |ask| match ask.far_end == far_end(1) {
            true => None,
            false => NEAR,
        });
        world.schedule.answered()
    };
    assert_eq!(before, BTreeMap::from([(far_end(0), vec![1, 2])]));
    let mut world = World::new(&BTreeMap::new());
    let now = world.now;
    world.schedule.remember(now, before);
    world.schedule.adopt(now, &domain(2, 2));
    world.run(5 * SECOND, |_| None);
    assert!(matches!(world.silent()[..], [Silent::FarEnd(far, _)] if far == far_end(0)));
    assert_eq!(world.schedule.counts(), (1, 1));
}

#[test]
fn a_lost_packet_is_no_silence_and_a_slow_answer_is_one() {
    let mut world = World::new(&domain(1, 2));
    // Each fourth is lost, which is twice in a row never.
    world.run(
        60 * SECOND,
        |ask| if ask.token % 4 == 0 { None } else { NEAR },
    );
    assert_eq!(world.silent(), []);
    // A way round the world, from one moment to the next: what comes late counts.
    world.run(30 * SECOND, |_| Some(Duration::from_millis(700)));
    assert_eq!(world.silent(), []);
    // An answer that was never asked for says nothing.
    world.run(5 * SECOND, |_| None);
    let now = world.now;
    world.schedule.handle_answer(now, 1 << 40);
    assert!(matches!(world.silent()[..], [Silent::FarEnd(..)]));
}

#[test]
fn who_goes_is_silent_no_more_and_who_stays_is_known() {
    let mut world = World::new(&domain(2, 2));
    world.run(5 * SECOND, |_| NEAR);
    world.run(2 * SECOND, |_| None);
    assert_eq!(world.schedule.counts(), (2, 2));
    let mut less = domain(1, 1);
    let now = world.now;
    world.schedule.adopt(now, &less);
    assert_eq!(world.schedule.counts(), (1, 1));
    assert!(world.silent().len() == 1);
    // A VNI that it never had has to answer before it is missed.
    less.insert(far_end(0), vec![vni(3)]);
    world.schedule.adopt(now, &less);
    world.run(5 * SECOND, |_| None);
    assert_eq!(world.silent(), []);
    world.schedule.adopt(now, &BTreeMap::new());
    assert_eq!(world.schedule.counts(), (0, 0));
    assert!(world.schedule.poll(world.now).is_none());
}

/// Its routes go while the way there is cut, and come back before it does: it is missed without having answered again, for a while.
#[test]
fn who_comes_back_and_does_not_answer_is_silent() {
    for (away, missed) in [(1, true), (60, true), (3600, false)] {
        let domain = domain(2, 2);
        let mut world = World::new(&domain);
        world.run(5 * SECOND, |_| NEAR);
        world.schedule.adopt(world.now, &BTreeMap::new());
        world.run(away * SECOND, |_| None);
        world.schedule.adopt(world.now, &domain);
        let took = world.run_until(
            5 * SECOND,
            |_| None,
            |schedule| schedule.silent().count() == 2,
        );
        assert_eq!(took < SECOND, missed, "away for {away} s: {took:?}");
    }
}

/// One tenant of several is gone and comes back.
#[test]
fn a_tenant_that_comes_back_and_does_not_answer_is_silent() {
    let mut domain = domain(1, 3);
    let mut world = World::new(&domain);
    world.run(5 * SECOND, |_| NEAR);
    domain.insert(far_end(0), vec![vni(1), vni(3)]);
    world.schedule.adopt(world.now, &domain);
    world.run(5 * SECOND, |_| NEAR);
    domain.insert(far_end(0), vec![vni(1), vni(2), vni(3)]);
    world.schedule.adopt(world.now, &domain);
    world.run(5 * SECOND, |ask| NEAR.filter(|_| ask.vni != Some(vni(2))));
    assert!(matches!(world.silent()[..], [Silent::Tenant(_, silent, _)] if silent == vni(2)));
}

/// All fall silent at once: everything that is sent again is within the budget, too.
#[test]
fn many_that_fall_silent_are_found_in_a_round() {
    let mut world = World::new(&domain(200, 40));
    world.run(30 * SECOND, |_| NEAR);
    let before = world.sent.len();
    let first = world.run_until(
        10 * SECOND,
        |_| None,
        |schedule| schedule.silent().next().is_some(),
    );
    assert!(first < SECOND, "{first:?}");
    let all = world.run_until(
        60 * SECOND,
        |_| None,
        |schedule| schedule.counts() == (200, 200),
    );
    assert!(all < 30 * SECOND, "{all:?}");
    let rate = (world.sent.len() - before) as f64 / (first + all).as_secs_f64();
    assert!(rate <= 101.0, "{rate}");
}

/// The kernel knows of nothing less than the link.
fn limits(octets: u16) -> PathLimits {
    PathLimits {
        known: octets,
        link: octets,
    }
}

#[test]
fn how_large_packets_may_be_is_found_beside_the_turns() {
    let far_ends = domain(20, 3);
    let mut world = World::new(&far_ends);
    let widest = far_ends
        .keys()
        .map(|far_end| (*far_end, limits(1500)))
        .collect();
    world.schedule.set_limits(world.now, &widest);
    let fits = |one: FarEnd| if one == far_end(7) { 1400 } else { 1500 };
    let round_trip = |ask: &Ask| {
        let passes = ask.size.is_none_or(|size| size <= fits(ask.far_end));
        passes.then_some(Duration::from_millis(5))
    };
    world.run_until(Duration::from_secs(20), round_trip, |_| false);
    let paths: Vec<_> = world.schedule.paths().collect();
    assert_eq!(paths.len(), 20);
    for (far_end, found, top) in paths {
        assert_eq!((found, top), (fits(far_end), 1500), "{far_end:?}");
    }
    // What is too large is no sign of silence, and all of it stays within the budget.
    assert_eq!(world.schedule.silent().count(), 0);
    assert!(world.sent.len() <= 2000, "{}", world.sent.len());
    // The kernel has heard of less, and forgets it again: more is tried at once.
    let mut less = widest.clone();
    less.insert(far_end(3), limits(1300));
    world.schedule.set_limits(world.now, &less);
    world.run_until(Duration::from_secs(5), round_trip, |_| false);
    world.schedule.set_limits(world.now, &widest);
    let before = world.schedule.paths().find(|(one, ..)| *one == far_end(3));
    assert_eq!(before, Some((far_end(3), 1300, 1500)));
    world.run_until(Duration::from_secs(5), round_trip, |_| false);
    let after = world.schedule.paths().find(|(one, ..)| *one == far_end(3));
    assert_eq!(after, Some((far_end(3), 1500, 1500)));
}

#[test]
fn what_is_lost_of_those_that_send_is_seen_sooner_and_costs_a_share_of_it() {
    let far_ends = domain(3, 2);
    let all: BTreeMap<_, _> = far_ends.keys().map(|one| (*one, limits(1500))).collect();
    let fits = |path: u16| {
        move |ask: &Ask| {
            let passes = ask.size.is_none_or(|size| size <= path);
            passes.then_some(Duration::from_millis(5))
        }
    };
    let narrow = |world: &World| {
        let paths = world.schedule.paths();
        paths.filter(|(_, found, top)| found < top).count()
    };
    let mut world = World::new(&far_ends);
    world.schedule.set_limits(world.now, &all);
    world.run(20 * SECOND, fits(1500));
    // Tenants begin to send when the way has just got narrow.
    let mut took = Duration::ZERO;
    while narrow(&world) < 3 {
        world.schedule.handle_traffic(world.now, 10_000);
        let quarter = Duration::from_millis(250);
        took += world.run_until(quarter, fits(1400), |_| false);
        assert!(took < 2 * SECOND, "{took:?}");
    }
    // They send little, for a long time: so is what is spent on it.
    world.run(60 * SECOND, fits(1400));
    let before = world.sent.len();
    for _ in 0..4 * 600 {
        world.schedule.handle_traffic(world.now, 1000);
        world.run_until(Duration::from_millis(250), fits(1400), |_| false);
    }
    let sizes = world.sent[before..].iter().filter_map(|(_, ask)| ask.size);
    let octets: u64 = sizes.map(u64::from).sum();
    // Beside what is confirmed and tried without them: each of three every 3 seconds, and a few for more.
    let usual = 600 / 3 * 3 * 1500 + 3 * 10 * 8 * 1500;
    let paid = ADVANCE + 4 * 600 * (ALLOWANCE + 10);
    assert!(
        octets < usual + paid + 3 * 1500,
        "{octets} of {}",
        usual + paid
    );
}

#[test]
fn a_kernel_that_has_learned_of_less_is_told_that_there_is_more() {
    let far_ends = domain(1, 2);
    let known = PathLimits {
        known: 1400,
        link: 1500,
    };
    let known = BTreeMap::from([(far_end(0), known)]);
    let mut world = World::new(&far_ends);
    world.schedule.set_limits(world.now, &known);
    let fits = |path: u16| {
        move |ask: &Ask| {
            let passes = ask.size.is_none_or(|size| size <= path);
            passes.then_some(Duration::from_millis(5))
        }
    };
    world.run(30 * SECOND, fits(1400));
    assert_eq!(world.schedule.take_exceeded(), []);
    assert_eq!(
        world.schedule.paths().next(),
        Some((far_end(0), 1400, 1400))
    );
    world.run(60 * SECOND, fits(1500));
    let exceeded = (far_end(0).address, 1500);
    assert_eq!(world.schedule.take_exceeded(), [exceeded]);
    assert_eq!(
        world.schedule.paths().next(),
        Some((far_end(0), 1500, 1500))
    );
    // It could not be made to forget: what it lets counts.
    world.schedule.set_limits(world.now, &known);
    assert_eq!(
        world.schedule.paths().next(),
        Some((far_end(0), 1400, 1400))
    );
}

#[test]
fn a_router_that_only_stitches_finds_out_by_test_packets() {
    let far_ends = domain(2, 0);
    let [first, second] = [far_end(0), far_end(1)];
    let mut world = World::new(&far_ends);
    let widest = far_ends.keys().map(|one| (*one, limits(1500))).collect();
    world.schedule.set_limits(world.now, &widest);
    // The second one reflects nothing.
    let through = |path: u16| {
        move |ask: &Ask| {
            assert_eq!(ask.vni, None, "there is no tenant to ask about");
            let fits = ask.size? <= path && ask.far_end == first;
            fits.then_some(Duration::from_millis(2))
        }
    };
    world.run(10 * SECOND, through(1500));
    let found: Vec<_> = world.schedule.paths().collect();
    assert_eq!(found, [(first, 1500, 1500)]);
    world.run(10 * SECOND, through(1400));
    assert_eq!(
        world.schedule.take_path_news().last(),
        Some(&(first, 1400, 1500))
    );
    // Reflected no more, it is not taken for narrow, nor for silent; and is asked seldom, as the one that never did is.
    let before = world.sent.len();
    world.run(60 * SECOND, |_| None);
    assert_eq!(
        world.schedule.paths().collect::<Vec<_>>(),
        [(first, 1400, 1500)]
    );
    assert_eq!(world.silent(), []);
    let sent = world.sent[before..].iter();
    let to_first = sent.filter(|(_, ask)| ask.far_end == first).count();
    assert!(to_first < 60, "{to_first}");
    let to_second = world.sent.len() - before - to_first;
    assert!((5..=13).contains(&to_second), "{to_second}");
    // It does again, and the way is wide.
    world.run(1200 * SECOND, through(1500));
    assert_eq!(
        world.schedule.paths().collect::<Vec<_>>(),
        [(first, 1500, 1500)]
    );
    // What another one says for it counts for nothing.
    world.schedule = Schedule::default();
    world.schedule.adopt(world.now, &far_ends);
    world.schedule.set_limits(world.now, &widest);
    let ask = world.schedule.poll(world.now).unwrap();
    let other = if ask.far_end == first { second } else { first };
    world
        .schedule
        .handle_reflection(world.now, other.address, ask.token);
    world
        .schedule
        .handle_reflection(world.now, ask.far_end.address, ask.token + 1);
    world.back.clear();
    world.run(SECOND, |ask| ask.size.filter(|size| *size == 0).and(None));
    assert_eq!(world.schedule.paths().count(), 0);
}
