//! Two routers on a link that loses, delays and reorders, on a clock of its own.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::packet::Diagnostic;
use crate::session::{DownReason, Path};

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

fn address(end: usize) -> IpAddr {
    IpAddr::from([198, 51, 100, end as u8 + 1])
}

fn config(end: usize, interval: u64, multiplier: u8) -> Config {
    Config {
        peer: address(1 - end),
        local: None,
        path: Path::SingleHop,
        interval: ms(interval),
        multiplier,
        passive: false,
    }
}

fn generator(mut seed: u64) -> impl FnMut() -> u64 + Send {
    move || {
        // splitmix64
        seed = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = seed;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

type OnWire = Reverse<(Instant, u64, usize, [u8; PACKET_LEN])>;

/// Two ends, and the wire between them.
struct Net {
    now: Instant,
    ends: [Engine; 2],
    wire: BinaryHeap<OnWire>,
    sequence: u64,
    random: Box<dyn FnMut() -> u64>,
    /// Packets lost of a hundred.
    loss: u64,
    /// Shortest and longest time on the way, in microseconds.
    delay: (u64, u64),
    /// Packets of this end do not arrive.
    cut: [bool; 2],
    path: Path,
    sent: Vec<(Instant, usize, Packet)>,
    events: Vec<(Instant, usize, Change)>,
}

impl Net {
    fn new(seed: u64) -> Self {
        let mut random = generator(seed);
        let ends = [random(), random()].map(|seed| Engine::new(Box::new(generator(seed))));
        Self {
            now: Instant::now(),
            ends,
            wire: BinaryHeap::new(),
            sequence: 0,
            random: Box::new(random),
            loss: 0,
            delay: (100, 1000),
            cut: [false; 2],
            path: Path::SingleHop,
            sent: Vec::new(),
            events: Vec::new(),
        }
    }

    fn configure(&mut self, end: usize, interval: u64, multiplier: u8) {
        let now = self.now;
        let path = self.path;
        let config = Config {
            path,
            ..config(end, interval, multiplier)
        };
        self.ends[end].configure(config, now);
    }

    fn flush(&mut self) {
        for end in 0..2 {
            while let Some(transmit) = self.ends[end].poll_transmit(self.now) {
                let packet = Packet::decode(&transmit.octets).unwrap();
                self.sent.push((self.now, end, packet));
                if self.cut[end] || (self.random)() % 100 < self.loss {
                    continue;
                }
                let (least, most) = self.delay;
                let delay = least + (self.random)() % (most - least + 1);
                let at = self.now + Duration::from_micros(delay);
                self.sequence += 1;
                self.wire
                    .push(Reverse((at, self.sequence, 1 - end, transmit.octets)));
            }
            while let Some(event) = self.ends[end].poll_event() {
                assert_eq!(event.peer, address(1 - end));
                self.events.push((self.now, end, event.change));
            }
        }
    }

    fn run(&mut self, time: Duration) {
        let until = self.now + time;
        loop {
            self.flush();
            let arrival = self.wire.peek().map(|Reverse((at, ..))| *at);
            let timers = self.ends.iter().filter_map(Engine::poll_timeout);
            let Some(next) = timers.chain(arrival).min().filter(|next| *next <= until) else {
                break;
            };
            self.now = self.now.max(next);
            while let Some(Reverse((at, _, end, octets))) = self.wire.peek().copied() {
                if at > self.now {
                    break;
                }
                self.wire.pop();
                let received = Received {
                    peer: address(1 - end),
                    multihop: self.path.is_multihop(),
                    ttl: 255,
                    astray: false,
                    at,
                    octets: &octets,
                };
                // What was on its way to a session that has gone is nobody's; who was lied to answers with a wrong number.
                let taken = self.ends[end].handle_packet(&received, self.now);
                assert!(
                    matches!(
                        taken,
                        Ok(()) | Err(Discard::Stranger | Discard::YourDiscriminator)
                    ),
                    "{taken:?}"
                );
            }
            for end in &mut self.ends {
                end.handle_timeout(self.now);
            }
        }
        self.now = until;
    }

    fn status(&self, end: usize) -> Status {
        self.ends[end].sessions().next().unwrap().1
    }

    fn states(&self) -> [State; 2] {
        [0, 1].map(|end| self.status(end).state)
    }

    fn downs(&self) -> usize {
        let down = |event: &&(Instant, usize, Change)| matches!(event.2, Change::Down(_));
        self.events.iter().filter(down).count()
    }

    /// Both are Up, know each other, and have agreed on intervals.
    fn is_settled(&self, intervals: [u64; 2], multipliers: [u8; 2]) {
        let interval = ms(*intervals.iter().max().unwrap());
        for end in 0..2 {
            let (here, there) = (self.status(end), self.status(1 - end));
            assert_eq!(here.state, State::Up, "{here:#?}");
            assert_eq!(here.remote_discriminator, there.discriminator);
            assert_eq!(here.transmit_interval, interval, "{here:#?}");
            assert_eq!(
                here.detection_time,
                interval * u32::from(multipliers[1 - end])
            );
        }
    }
}

const STEPS: [u64; 5] = [50, 100, 300, 1000, 2000];

fn step() -> impl Strategy<Value = u64> {
    proptest::sample::select(&STEPS[..])
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn both_come_up_and_agree_whatever_was_lost_before(
        seed: u64,
        loss in 0..60u64,
        intervals in [step(), step()],
        multipliers in [1..6u8, 1..6u8],
        changes in proptest::collection::vec((0..2usize, step(), 1..6u8, 0..3000u64), 0..6),
    ) {
        let mut net = Net::new(seed);
        net.loss = loss;
        // Packets overtake each other.
        net.delay = (100, 60_000);
        let (mut intervals, mut multipliers) = (intervals, multipliers);
        for end in 0..2 {
            net.configure(end, intervals[end], multipliers[end]);
        }
        net.run(ms(5000));
        for (end, interval, multiplier, pause) in changes {
            (intervals[end], multipliers[end]) = (interval, multiplier);
            net.configure(end, interval, multiplier);
            net.run(ms(pause));
        }
        // From here on nothing is lost. Stragglers arrive, sessions that are about to fail do, Polls end.
        net.loss = 0;
        net.delay = (100, 1000);
        net.run(Duration::from_secs(40));
        net.is_settled(intervals, multipliers);
        let downs = net.downs();
        net.sent.clear();
        net.run(Duration::from_secs(60));
        prop_assert_eq!(net.downs(), downs, "nothing is lost, and nobody goes down");
        prop_assert!(net.sent.iter().all(|(_, _, packet)| !packet.poll && !packet.last));
    }

    #[test]
    fn nobody_goes_down_where_nothing_is_lost_whatever_is_configured(
        seed: u64,
        intervals in [step(), step()],
        multipliers in [2..6u8, 2..6u8],
        changes in proptest::collection::vec((0..2usize, step(), 0..8000u64), 0..8),
    ) {
        let mut net = Net::new(seed);
        // In order: an old Down behind an Init ends the session that the Init began.
        net.delay = (500, 500);
        for end in 0..2 {
            net.configure(end, intervals[end], multipliers[end]);
        }
        net.run(ms(8000));
        for (end, interval, pause) in changes {
            net.configure(end, interval, multipliers[end]);
            net.run(ms(pause));
        }
        net.run(Duration::from_secs(20));
        prop_assert_eq!(net.states(), [State::Up; 2]);
        prop_assert_eq!(net.downs(), 0, "{:#?}", net.events);
    }

    #[test]
    fn a_link_that_falls_silent_is_noticed_in_the_detection_time(
        seed: u64,
        intervals in [step(), step()],
        multipliers in [1..6u8, 1..6u8],
        one_way: bool,
        when in 0..2000u64,
    ) {
        let mut net = Net::new(seed);
        for end in 0..2 {
            net.configure(end, intervals[end], multipliers[end]);
        }
        net.run(ms(20_000 + when));
        net.is_settled(intervals, multipliers);
        let events = net.events.len();
        net.cut = [true, !one_way];
        let cut = net.now;
        net.run(Duration::from_secs(30));
        let news: Vec<_> = net.events.split_off(events);
        let detection = |end: usize| ms(*intervals.iter().max().unwrap()) * u32::from(multipliers[1 - end]);
        // What was on its way arrives a millisecond later. Where end 1 hears nothing any more, it no longer names end 0's number, and so is
        // silent to end 0 from then on.
        let latest = |end: usize| match one_way && end == 0 {
            true => cut + detection(1) + detection(0) + ms(2),
            false => cut + detection(end) + ms(1),
        };
        for end in 0..2 {
            let mut downs = news.iter().filter(|(_, one, _)| *one == end);
            let Some((at, _, Change::Down(down))) = downs.next() else {
                panic!("end {end} is up: {news:?}");
            };
            prop_assert!(downs.next().is_none(), "{news:?}");
            prop_assert!(matches!(down.reason, DownReason::Silence { .. }), "{down:?}");
            prop_assert!(*at <= latest(end));
        }
        // And back.
        net.cut = [false; 2];
        net.run(Duration::from_secs(20));
        net.is_settled(intervals, multipliers);
    }

    #[test]
    fn no_packet_whatever_it_says_does_more_than_end_the_session(
        seed: u64,
        packets in proptest::collection::vec((proptest::array::uniform24(any::<u8>()), any::<bool>(), 0..400u64), 1..60),
    ) {
        let mut net = Net::new(seed);
        for end in 0..2 {
            net.configure(end, 100, 3);
        }
        net.run(ms(5000));
        for (mut octets, well_formed, pause) in packets {
            if well_formed {
                octets[0] = 0x20 | octets[0] & 0x1f;
                octets[1] &= !0x05;
                octets[3] = PACKET_LEN as u8;
                octets[8..12].copy_from_slice(&net.status(0).discriminator.to_be_bytes());
            }
            let received = Received { peer: address(1), multihop: false, ttl: 255, astray: false, at: net.now, octets: &octets };
            let _ = net.ends[0].handle_packet(&received, net.now);
            net.run(ms(pause));
        }
        net.run(Duration::from_secs(200));
        net.is_settled([100; 2], [3; 2]);
    }
}

/// Packets that are nobody's, or that have come too far.
#[test]
fn spoofed_packets_change_nothing_and_are_counted() {
    let mut net = Net::new(1);
    for end in 0..2 {
        net.configure(end, 300, 3);
    }
    net.run(ms(5000));
    let genuine = net.sent.iter().rfind(|(_, end, _)| *end == 1).unwrap().2;
    let before = net.status(0);
    let down = Packet {
        state: State::Down,
        diagnostic: Diagnostic::DETECTION_TIME_EXPIRED,
        ..genuine
    };
    let wrong = Packet {
        your_discriminator: genuine.your_discriminator ^ 1,
        ..down
    };
    let elsewhere = IpAddr::from([198, 51, 100, 9]);
    let cases = [
        (address(1), false, 254, down, Discard::Ttl),
        (address(1), false, 255, wrong, Discard::YourDiscriminator),
        (address(1), true, 255, down, Discard::Stranger),
        (elsewhere, false, 255, down, Discard::Stranger),
        (elsewhere, false, 255, wrong, Discard::Stranger),
    ];
    for (peer, multihop, ttl, packet, reason) in cases {
        let octets = packet.encode();
        let received = Received {
            peer,
            multihop,
            ttl,
            astray: false,
            at: net.now,
            octets: &octets,
        };
        assert_eq!(net.ends[0].handle_packet(&received, net.now), Err(reason));
    }
    assert_eq!(net.status(0), before);
    let discarded = net.ends[0].discarded();
    assert_eq!(discarded[Discard::Stranger.index()], 3);
    assert_eq!(discarded.iter().sum::<u64>(), 5);
    net.run(ms(5000));
    assert_eq!(net.downs(), 0);
}

#[test]
fn sessions_over_several_hops_say_how_many() {
    let mut engine = Engine::new(Box::new(generator(1)));
    let now = Instant::now();
    let path = Path::MultiHop { minimum_ttl: 250 };
    let session = engine.configure(
        Config {
            path,
            ..config(0, 300, 3)
        },
        now,
    );
    engine.handle_timeout(now);
    let transmit = engine.poll_transmit(now).unwrap();
    assert_eq!((transmit.session, transmit.multihop), (session, true));
    let mut packet = Packet::decode(&transmit.octets).unwrap();
    packet.my_discriminator ^= 1;
    let octets = packet.encode();
    let mut take = |multihop, ttl| {
        let received = Received {
            peer: address(1),
            multihop,
            ttl,
            astray: false,
            at: now,
            octets: &octets,
        };
        engine.handle_packet(&received, now)
    };
    assert_eq!(take(true, 249), Err(Discard::Ttl));
    assert_eq!(take(false, 255), Err(Discard::Stranger));
    assert_eq!(take(true, 250), Ok(()));
}

/// RFC 5880 section 6.8.6 has whoever says Down without a number end a session: on any link that is anybody.
#[test]
fn a_session_that_is_up_is_ended_by_who_knows_its_number() {
    let paths = [1, 250].map(|minimum_ttl| Path::MultiHop { minimum_ttl });
    for path in [Path::SingleHop].into_iter().chain(paths) {
        let mut net = Net::new(5);
        net.path = path;
        for end in 0..2 {
            net.configure(end, 300, 3);
        }
        net.run(ms(5000));
        let genuine = net.sent.iter().rfind(|(_, end, _)| *end == 1).unwrap().2;
        for state in [State::Down, State::AdminDown] {
            let forged = Packet {
                state,
                your_discriminator: 0,
                ..genuine
            };
            let octets = forged.encode();
            let received = Received {
                peer: address(1),
                multihop: path.is_multihop(),
                ttl: 255,
                astray: false,
                at: net.now,
                octets: &octets,
            };
            let taken = net.ends[0].handle_packet(&received, net.now);
            assert_eq!(taken, Err(Discard::YourDiscriminator), "{path:?}");
            assert_eq!(net.status(0).state, State::Up);
        }
        net.events.clear();
        // One that has started anew is noticed all the same, by the time that silence takes.
        net.ends[1] = Engine::new(Box::new(generator(77)));
        net.configure(1, 300, 3);
        net.run(ms(901));
        let Some((_, 0, Change::Down(down))) = net.events.first() else {
            panic!("{:?}", net.events);
        };
        assert!(
            matches!(down.reason, DownReason::Silence { .. }),
            "{down:?}"
        );
        net.run(ms(6000));
        net.is_settled([300; 2], [3; 2]);
    }
}

/// Who knows the session's number promises packets every hour, from a number that the neighbour does not have: it hears nothing then.
#[test]
fn a_packet_does_not_keep_a_session_up_that_the_neighbour_no_longer_has() {
    let mut net = Net::new(13);
    for end in 0..2 {
        net.configure(end, 300, 3);
    }
    net.run(ms(5000));
    let genuine = net.sent.iter().rfind(|(_, end, _)| *end == 1).unwrap().2;
    let octets = Packet {
        my_discriminator: genuine.my_discriminator ^ 1,
        desired_min_tx: u32::MAX,
        multiplier: u8::MAX,
        ..genuine
    }
    .encode();
    let received = Received {
        peer: address(1),
        multihop: false,
        ttl: 255,
        astray: false,
        at: net.now,
        octets: &octets,
    };
    net.ends[0].handle_packet(&received, net.now).unwrap();
    net.wire.clear();
    net.cut = [true; 2];
    net.run(ms(1000));
    assert_eq!(net.states(), [State::Up, State::Down]);
    net.cut = [false; 2];
    net.run(Duration::from_secs(200));
    net.is_settled([300; 2], [3; 2]);
}

/// A neighbour that asks for no packets, or hardly any, asks for that no longer once it is silent.
#[test]
fn two_ends_that_were_told_to_be_silent_speak_again() {
    for required_min_rx in [0, u32::MAX] {
        let mut net = Net::new(11);
        for end in 0..2 {
            net.configure(end, 300, 3);
        }
        net.run(ms(5000));
        for end in 0..2 {
            let genuine = net.sent.iter().rfind(|(_, one, _)| *one == 1 - end);
            let octets = Packet {
                required_min_rx,
                ..genuine.unwrap().2
            }
            .encode();
            let received = Received {
                peer: address(1 - end),
                multihop: false,
                ttl: 255,
                astray: false,
                at: net.now,
                octets: &octets,
            };
            net.ends[end].handle_packet(&received, net.now).unwrap();
        }
        // Nothing that says otherwise arrives.
        net.wire.clear();
        net.cut = [true; 2];
        net.run(ms(1000));
        net.cut = [false; 2];
        net.run(Duration::from_secs(10));
        net.is_settled([300; 2], [3; 2]);
    }
}

#[test]
fn who_is_removed_says_goodbye_and_who_comes_back_is_the_same_session() {
    let mut net = Net::new(3);
    for end in 0..2 {
        net.configure(end, 300, 3);
    }
    net.run(ms(5000));
    net.events.clear();
    let (session, before) = net.ends[0].sessions().next().unwrap();
    net.ends[0].remove(session, net.now);
    net.run(ms(100));
    assert_eq!(net.status(1).state, State::Down);
    let [(_, 0, Change::Down(here)), (_, 1, Change::Down(there))] = &net.events[..] else {
        panic!("{:?}", net.events);
    };
    assert_eq!(
        (here.reason, there.reason),
        (DownReason::AdminDown, DownReason::NeighborAdminDown)
    );
    assert_eq!(net.ends[0].sessions().count(), 0);
    // Back before it is forgotten.
    net.configure(0, 300, 3);
    net.run(ms(5000));
    net.is_settled([300; 2], [3; 2]);
    assert_eq!(net.status(0).discriminator, before.discriminator);
    // And forgotten.
    net.ends[0].set(&[], net.now);
    assert!(net.ends[0].contains(session));
    net.run(ms(5000));
    assert!(!net.ends[0].contains(session));
    assert_eq!(net.ends[0].poll_timeout(), None);
    net.configure(0, 300, 3);
    assert_ne!(net.status(0).discriminator, before.discriminator);
}

#[test]
fn who_listens_late_hears_of_every_failure() {
    let mut engine = Engine::new(Box::new(generator(1)));
    let now = Instant::now();
    engine.configure(config(0, 300, 3), now);
    let down = Down {
        reason: DownReason::NeighborAdminDown,
        independent: false,
    };
    let failure = Down {
        reason: DownReason::Silence { silence: ms(900) },
        independent: false,
    };
    engine.after(0, Some(Transition::Up));
    engine.after(0, Some(Transition::Down(down)));
    engine.after(0, Some(Transition::Up));
    assert!(engine.has_event());
    let told: Vec<Change> = std::iter::from_fn(|| engine.poll_event())
        .map(|event| event.change)
        .collect();
    assert_eq!(told, [Change::Down(down), Change::Up]);
    engine.after(0, Some(Transition::Up));
    engine.after(0, Some(Transition::Down(down)));
    assert_eq!(engine.poll_event().unwrap().change, Change::Down(down));
    assert!(!engine.has_event());
    assert_eq!(engine.poll_event(), None);
    // Whoever holds the session down then has not mended it.
    engine.after(0, Some(Transition::Down(failure)));
    engine.after(0, Some(Transition::Up));
    engine.after(0, Some(Transition::Down(down)));
    assert_eq!(engine.poll_event().unwrap().change, Change::Down(failure));
    assert_eq!(engine.poll_event(), None);
}

#[test]
fn thousands_of_sessions_take_no_memory_for_their_packets() {
    let mut engine = Engine::new(Box::new(generator(9)));
    let mut now = Instant::now();
    let configs: Vec<Config> = (0..4000u32)
        .map(|number| Config {
            peer: IpAddr::from((0x0a00_0000 + number).to_be_bytes()),
            ..config(0, 300, 3)
        })
        .collect();
    engine.set(&configs, now);
    let room = (engine.ready.capacity(), engine.changed.capacity());
    assert!(room.0 >= configs.len() && room.1 >= configs.len());
    let mut packets = 0;
    for _ in 0..200 {
        now += ms(10);
        engine.handle_timeout(now);
        while engine.poll_transmit(now).is_some() {
            packets += 1;
        }
    }
    assert!((8000..=16_000).contains(&packets), "{packets}");
    assert_eq!((engine.ready.capacity(), engine.changed.capacity()), room);
}
