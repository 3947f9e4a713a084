//! Rules of RFC 5880 section 6.8, one by one, on a clock that stands still.

use std::net::IpAddr;

use super::*;

fn config(interval: u64, multiplier: u8) -> Config {
    Config {
        peer: IpAddr::from([198, 51, 100, 2]),
        local: None,
        path: Path::SingleHop,
        interval: Duration::from_millis(interval),
        multiplier,
        passive: false,
    }
}

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// A session, the time, and a generator.
struct Bench {
    session: Session,
    now: Instant,
    random: Box<Random>,
    sent: Vec<(Instant, Packet)>,
    transitions: Vec<Transition>,
}

impl Bench {
    fn new(config: Config) -> Self {
        let now = Instant::now();
        let mut seed = 7u64;
        Self {
            session: Session::new(config, 17, now),
            now,
            random: Box::new(move || {
                seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                seed >> 11
            }),
            sent: Vec::new(),
            transitions: Vec::new(),
        }
    }

    fn flush(&mut self) {
        while let Some(packet) = self.session.next_packet(self.now, &mut *self.random) {
            assert!(!(packet.poll && packet.last), "P and F exclude each other");
            assert!(!packet.demand && !packet.independent);
            self.sent.push((self.now, packet));
        }
    }

    /// Goes on to `until`, doing all that is due.
    fn run(&mut self, time: Duration) -> Vec<(Instant, Packet)> {
        let until = self.now + time;
        self.sent.clear();
        self.flush();
        while let Some(due) = self.session.due().filter(|due| *due <= until) {
            self.now = self.now.max(due);
            let transition = self.session.handle_timeout(self.now, &mut *self.random);
            self.transitions.extend(transition);
            self.flush();
        }
        self.now = until;
        self.sent.clone()
    }

    fn receive(&mut self, packet: Packet) -> Option<Transition> {
        let transition = self
            .session
            .handle_packet(&packet, self.now, self.now, &mut *self.random);
        self.transitions.extend(transition);
        self.sent.clear();
        self.flush();
        transition
    }

    /// Brings it Up with a neighbour of this interval and multiplier.
    fn up(&mut self, interval: u64, multiplier: u8) -> Packet {
        self.run(ms(0));
        let mut packet = heard(State::Down, interval, multiplier);
        self.receive(packet);
        packet.state = State::Init;
        packet.your_discriminator = 17;
        assert_eq!(self.receive(packet), Some(Transition::Up));
        packet.state = State::Up;
        packet.last = true;
        self.receive(packet);
        packet.last = false;
        packet
    }

    /// Goes on while the neighbour's packets come every `interval`.
    fn run_hearing(
        &mut self,
        time: Duration,
        interval: Duration,
        packet: Packet,
    ) -> Vec<(Instant, Packet)> {
        let until = self.now + time;
        let mut sent = Vec::new();
        while self.now < until {
            sent.extend(self.run(interval.min(until - self.now)));
            self.receive(packet);
            sent.extend(self.sent.clone());
        }
        sent
    }
}

fn heard(state: State, interval: u64, multiplier: u8) -> Packet {
    Packet {
        diagnostic: Diagnostic::NONE,
        state,
        poll: false,
        last: false,
        independent: false,
        demand: false,
        multiplier,
        my_discriminator: 99,
        your_discriminator: 0,
        desired_min_tx: interval as u32 * 1000,
        required_min_rx: interval as u32 * 1000,
        required_min_echo_rx: 0,
    }
}

#[test]
fn a_session_comes_up_in_three_packets_and_polls() {
    let mut bench = Bench::new(config(300, 3));
    let first = bench.run(ms(0))[0].1;
    assert_eq!(
        (
            first.state,
            first.my_discriminator,
            first.your_discriminator
        ),
        (State::Down, 17, 0)
    );
    assert!(first.desired_min_tx >= SLOW);
    assert_eq!(first.required_min_rx, 300_000);
    bench.receive(heard(State::Down, 300, 3));
    let second = bench.sent[0].1;
    assert_eq!((second.state, second.your_discriminator), (State::Init, 99));
    let mut init = heard(State::Init, 300, 3);
    init.your_discriminator = 17;
    assert_eq!(bench.receive(init), Some(Transition::Up));
    let third = bench.sent[0].1;
    assert_eq!(
        (third.state, third.desired_min_tx, third.poll),
        (State::Up, 300_000, true)
    );
    // The Poll goes on until it is answered, and no longer.
    assert!(bench.run(ms(600)).iter().all(|(_, packet)| packet.poll));
    let mut up = heard(State::Up, 300, 3);
    up.last = true;
    bench.receive(up);
    assert!(bench.run(ms(600)).iter().all(|(_, packet)| !packet.poll));
}

#[test]
fn who_is_not_up_sends_once_a_second_at_most() {
    let mut bench = Bench::new(config(50, 3));
    let sent = bench.run(Duration::from_secs(60));
    assert!((60..=81).contains(&sent.len()), "{}", sent.len());
    for pair in sent.windows(2) {
        let pause = pair[1].0 - pair[0].0;
        assert!((ms(750)..=ms(1000)).contains(&pause), "{pause:?}");
    }
}

#[test]
fn jitter_takes_up_to_a_quarter_and_at_least_a_tenth_where_one_packet_is_a_failure() {
    for (multiplier, most) in [(3, 300), (1, 270)] {
        let mut bench = Bench::new(config(300, multiplier));
        let packet = bench.up(100, 50);
        let sent = bench.run_hearing(Duration::from_secs(300), ms(1000), packet);
        let pauses: Vec<Duration> = sent.windows(2).map(|pair| pair[1].0 - pair[0].0).collect();
        let (least, longest) = (pauses.iter().min().unwrap(), pauses.iter().max().unwrap());
        assert!(*least >= ms(225) && *least < ms(228), "{least:?}");
        assert!(
            *longest <= ms(most) && *longest > ms(most - 3),
            "{longest:?}"
        );
    }
}

#[test]
fn silence_for_the_detection_time_is_a_failure() {
    // The slower of what we take and what it wants, times its multiplier.
    for (ours, its, multiplier, detection) in [(300, 100, 3, 900), (100, 300, 5, 1500)] {
        let mut bench = Bench::new(config(ours, 7));
        bench.up(its, multiplier);
        assert_eq!(bench.session.status().detection_time, ms(detection));
        bench.run(ms(detection - 1));
        assert_eq!(bench.session.state(), State::Up);
        let sent = bench.run(ms(1));
        let Some(Transition::Down(down)) = bench.transitions.last() else {
            panic!("{:?}", bench.transitions);
        };
        assert_eq!(
            down.reason,
            DownReason::Silence {
                silence: ms(detection)
            }
        );
        let last = sent.last().unwrap().1;
        assert_eq!(
            (last.state, last.diagnostic),
            (State::Down, Diagnostic::DETECTION_TIME_EXPIRED)
        );
        assert_eq!(last.your_discriminator, 0);
        assert!(last.desired_min_tx >= SLOW);
    }
}

#[test]
fn what_the_neighbour_says_of_itself_decides() {
    let mut bench = Bench::new(config(300, 3));
    let mut packet = bench.up(300, 3);
    packet.independent = true;
    packet.state = State::Down;
    packet.diagnostic = Diagnostic::DETECTION_TIME_EXPIRED;
    let down = Down {
        reason: DownReason::Neighbor(Diagnostic::DETECTION_TIME_EXPIRED),
        independent: true,
    };
    assert_eq!(bench.receive(packet), Some(Transition::Down(down)));
    assert_eq!(
        bench.sent[0].1.diagnostic,
        Diagnostic::NEIGHBOR_SIGNALED_DOWN
    );

    let mut bench = Bench::new(config(300, 3));
    let mut packet = bench.up(300, 3);
    packet.state = State::AdminDown;
    let Some(Transition::Down(down)) = bench.receive(packet) else {
        panic!("it stays up");
    };
    assert_eq!(down.reason, DownReason::NeighborAdminDown);
    // Until it is Down there is nothing to come up with.
    assert_eq!(bench.receive(packet), None);
    assert_eq!(bench.session.state(), State::Down);
    packet.state = State::Down;
    bench.receive(packet);
    assert_eq!(bench.session.state(), State::Init);
}

#[test]
fn a_poll_is_answered_at_once_whatever_else_is_due() {
    let mut bench = Bench::new(config(300, 3));
    let mut packet = bench.up(300, 3);
    packet.poll = true;
    for _ in 0..3 {
        bench.receive(packet);
        assert!(bench.sent[0].1.last && !bench.sent[0].1.poll);
    }
    // Also of one that wants nothing periodic.
    packet.required_min_rx = 0;
    bench.receive(packet);
    assert!(bench.sent[0].1.last);
    packet.poll = false;
    let sent = bench.run_hearing(Duration::from_secs(5), ms(200), packet);
    assert!(sent.is_empty(), "{sent:?}");
}

#[test]
fn demand_is_obeyed_while_both_ends_are_up() {
    let mut bench = Bench::new(config(300, 3));
    let mut packet = bench.up(300, 3);
    packet.demand = true;
    bench.receive(packet);
    let sent = bench.run_hearing(Duration::from_secs(5), ms(200), packet);
    assert!(sent.is_empty(), "{sent:?}");
    assert_eq!(bench.session.state(), State::Up);
    // A Poll Sequence of ours is sent all the same.
    bench
        .session
        .configure(config(100, 3), bench.now, &mut *bench.random);
    let sent = bench.run(ms(500));
    assert!(
        !sent.is_empty() && sent.iter().all(|(_, packet)| packet.poll),
        "{sent:?}"
    );
    packet.last = true;
    bench.receive(packet);
    packet.last = false;
    assert!(bench.run_hearing(ms(2000), ms(200), packet).is_empty());
    // Without it, everything is as before.
    packet.demand = false;
    bench.receive(packet);
    assert!(!bench.run_hearing(ms(2000), ms(200), packet).is_empty());
    // And silence is still a failure.
    packet.demand = true;
    bench.receive(packet);
    bench.run(ms(900));
    assert_eq!(bench.session.state(), State::Down);
    assert!(!bench.run(ms(3000)).is_empty());
}

#[test]
fn a_longer_interval_waits_for_the_answer_to_a_poll() {
    let mut bench = Bench::new(config(100, 3));
    let mut packet = bench.up(100, 3);
    bench.run_hearing(ms(2000), ms(75), packet);
    bench
        .session
        .configure(config(400, 3), bench.now, &mut *bench.random);
    let sent = bench.run_hearing(ms(2000), ms(75), packet);
    assert!(sent.len() >= 20, "{}", sent.len());
    assert!(
        sent.iter()
            .all(|(_, packet)| packet.poll && packet.desired_min_tx == 400_000)
    );
    packet.last = true;
    bench.receive(packet);
    packet.last = false;
    let sent = bench.run_hearing(ms(4000), ms(75), packet);
    assert!((9..=14).contains(&sent.len()), "{}", sent.len());
    assert!(sent.iter().all(|(_, packet)| !packet.poll));
}

#[test]
fn a_shorter_interval_is_not_asked_of_the_neighbour_before_it_knows() {
    let mut bench = Bench::new(config(400, 3));
    // It could send every 100 ms, and sends every 400 ms since that is what we take.
    let mut packet = bench.up(100, 3);
    bench.run_hearing(ms(4000), ms(400), packet);
    assert_eq!(bench.session.status().detection_time, ms(1200));
    bench
        .session
        .configure(config(100, 3), bench.now, &mut *bench.random);
    bench.run_hearing(ms(1200), ms(400), packet);
    assert_eq!(bench.session.status().detection_time, ms(1200));
    assert_eq!(bench.session.state(), State::Up);
    packet.last = true;
    bench.receive(packet);
    assert_eq!(bench.session.status().detection_time, ms(300));
}

#[test]
fn a_longer_interval_asked_of_the_neighbour_is_what_it_is_judged_by_at_once() {
    let mut bench = Bench::new(config(100, 3));
    let packet = bench.up(50, 3);
    bench.run_hearing(ms(2000), ms(100), packet);
    bench
        .session
        .configure(config(500, 3), bench.now, &mut *bench.random);
    // It has heard of it, and sends its next packet half a second later.
    bench.run(ms(499));
    assert_eq!(bench.session.state(), State::Up);
    bench.receive(packet);
    assert_eq!(bench.session.status().detection_time, ms(1500));
    bench.run(ms(1499));
    assert_eq!(bench.session.state(), State::Up);
}

#[test]
fn polls_follow_each_other_with_a_pause() {
    let mut bench = Bench::new(config(100, 3));
    let mut packet = bench.up(100, 3);
    bench.run_hearing(ms(2000), ms(75), packet);
    bench
        .session
        .configure(config(200, 3), bench.now, &mut *bench.random);
    bench.run_hearing(ms(300), ms(75), packet);
    // While it polls, something else changes.
    bench
        .session
        .configure(config(300, 3), bench.now, &mut *bench.random);
    packet.last = true;
    bench.receive(packet);
    let ended = bench.now;
    // A second answer to the first Poll is no answer to the next one.
    bench.receive(packet);
    packet.last = false;
    assert_eq!(bench.session.status().transmit_interval, ms(100));
    let sent = bench.run_hearing(ms(3000), ms(75), packet);
    let again = sent.iter().find(|(_, packet)| packet.poll).unwrap();
    assert!(again.0 >= ended + POLL_GAP, "{:?}", again.0 - ended);
    // What the neighbour may not know yet is not in force.
    assert_eq!(bench.session.status().transmit_interval, ms(100));
    packet.last = true;
    bench.receive(packet);
    assert_eq!(bench.session.status().transmit_interval, ms(300));
}

#[test]
fn who_is_passive_waits_to_be_spoken_to() {
    let mut bench = Bench::new(Config {
        passive: true,
        ..config(300, 3)
    });
    assert!(bench.run(Duration::from_secs(60)).is_empty());
    bench.up(300, 3);
    assert!(!bench.run(ms(800)).is_empty());
    // When the neighbour has gone, it is silent again.
    bench.run(Duration::from_secs(10));
    assert!(bench.run(Duration::from_secs(10)).is_empty());
}

#[test]
fn lateness_of_our_own_is_not_blamed_on_the_neighbour() {
    let late = |lateness: u64, again: u64| {
        let mut bench = Bench::new(config(100, 3));
        bench.up(100, 3);
        bench.now += ms(300 + lateness);
        let transition = bench.session.handle_timeout(bench.now, &mut *bench.random);
        let extended = bench.session.counters.late == 1;
        assert_eq!(transition.is_none(), extended);
        bench.flush();
        bench.run(ms(again));
        (extended, bench.session.state())
    };
    assert_eq!(late(49, 0), (false, State::Down));
    assert_eq!(late(50, 49), (true, State::Up));
    assert_eq!(late(50, 50), (true, State::Down));
    // No more than once, and no longer than the Detection Time.
    assert_eq!(late(10_000, 299), (true, State::Up));
    assert_eq!(late(10_000, 300), (true, State::Down));
}

#[test]
fn a_packet_counts_from_when_it_came() {
    let mut bench = Bench::new(config(100, 3));
    let packet = bench.up(100, 3);
    let came = bench.now + ms(100);
    // It is read 150 ms later.
    bench.now += ms(250);
    bench
        .session
        .handle_packet(&packet, came, bench.now, &mut *bench.random);
    assert_eq!(bench.session.detect_at, Some(came + ms(300)));
}

#[test]
fn an_administrator_holds_it_down_and_says_so() {
    let mut bench = Bench::new(config(300, 3));
    let packet = bench.up(300, 3);
    let transition = bench.session.disable(bench.now, &mut *bench.random);
    assert!(matches!(
        transition,
        Some(Transition::Down(Down {
            reason: DownReason::AdminDown,
            ..
        }))
    ));
    bench.flush();
    let told = bench.sent.last().unwrap().1;
    assert_eq!(
        (told.state, told.diagnostic),
        (State::AdminDown, Diagnostic::ADMINISTRATIVELY_DOWN)
    );
    for _ in 0..10 {
        assert_eq!(bench.receive(packet), None);
    }
    assert_eq!(bench.session.state(), State::AdminDown);
    bench.session.enable(bench.now, &mut *bench.random);
    bench.flush();
    assert_eq!(bench.sent.last().unwrap().1.state, State::Down);
}
