use super::*;
use weft_bgp_wire::{HEADER_LEN, RouterId, next_frame};

/// Two sessions, a virtual clock and a wire between them.
struct Bench {
    now: Instant,
    sides: [Session; 2],
    /// Connections: the id that each side knows.
    log: [Vec<String>; 2],
    connects: [usize; 2],
    next_id: u64,
}

fn config(side: usize) -> SessionConfig {
    SessionConfig {
        local_asn: Asn(65001 + side as u32),
        router_id: RouterId([192, 0, 2, 1 + side as u8].into()),
        peer_asn: Asn(65002 - side as u32),
        hold_time: Duration::from_secs(90),
        connect_retry: Duration::from_secs(30),
        passive: false,
        families: vec![Family::Ipv4Unicast],
        add_path_send: true,
        add_path_receive: true,
        graceful_restart: Some(120),
        role: None,
        role_strict: false,
        extended_next_hop: false,
    }
}

impl Bench {
    fn new(edit: impl Fn(usize, &mut SessionConfig)) -> Self {
        let side = |at: usize| {
            let mut config = config(at);
            edit(at, &mut config);
            Session::new(config, 7 + at as u64, false)
        };
        Self {
            now: Instant::now(),
            sides: [side(0), side(1)],
            log: Default::default(),
            connects: [0; 2],
            next_id: 1,
        }
    }

    /// Carries everything that both want; connections are the same number on both sides. `reachable` says whether
    /// connects succeed.
    fn run(&mut self, reachable: bool) {
        loop {
            let mut busy = false;
            for side in 0..2 {
                while let Some(output) = self.sides[side].poll_output() {
                    busy = true;
                    let other = 1 - side;
                    match output {
                        Output::Connect => {
                            self.connects[side] += 1;
                            if reachable {
                                let id = ConnectionId(self.next_id);
                                self.next_id += 1;
                                self.sides[side].handle_connected(self.now, id);
                                self.sides[other].handle_accepted(self.now, id);
                            } else {
                                self.sides[side].handle_connect_failed(self.now, "refused".into());
                            }
                        }
                        Output::Send(id, octets) => {
                            let mut rest = &octets[..];
                            while let Some(frame) = next_frame(rest, 4096).unwrap() {
                                self.sides[other].handle_message(
                                    self.now,
                                    id,
                                    frame.kind,
                                    &rest[HEADER_LEN..frame.len],
                                );
                                rest = &rest[frame.len..];
                            }
                        }
                        Output::Close(id) => {
                            self.sides[other].handle_closed(self.now, id, "closed".into())
                        }
                        Output::Up(..) => self.log[side].push("up".into()),
                        Output::Down { reason, retain } => {
                            self.log[side].push(format!(
                                "down: {reason}{}",
                                if retain.is_some() { ", retained" } else { "" }
                            ));
                        }
                        Output::Refused(reason) => {
                            self.log[side].push(format!("refused: {reason}"));
                        }
                        Output::Refresh(_) => self.log[side].push("refresh".into()),
                    }
                }
            }
            if !busy {
                return;
            }
        }
    }

    fn advance(&mut self, by: Duration, reachable: bool) {
        let end = self.now + by;
        while let Some(due) = self
            .sides
            .iter()
            .filter_map(Session::poll_timeout)
            .min()
            .filter(|due| *due <= end)
        {
            self.now = self.now.max(due);
            for side in &mut self.sides {
                side.handle_timeout(self.now);
            }
            self.run(reachable);
        }
        self.now = end;
    }

    fn start(&mut self) {
        self.sides.iter_mut().for_each(Session::start);
        self.run(true);
    }

    fn states(&self) -> [State; 2] {
        [self.sides[0].state(), self.sides[1].state()]
    }
}

const UP: [State; 2] = [State::Established, State::Established];

#[test]
fn two_that_call_each_other_end_up_with_one_connection() {
    let mut bench = Bench::new(|_, _| {});
    bench.start();
    bench.advance(Duration::from_secs(60), true);
    assert_eq!(bench.states(), UP);
    assert_eq!(bench.log, [["up"], ["up"]]);
    assert_eq!(bench.sides[0].connections.len(), 1);
    assert_eq!(
        bench.sides[0].connections[0].id,
        bench.sides[1].connections[0].id
    );
    let negotiated = bench.sides[0].negotiated().unwrap();
    assert!(
        negotiated.four_octet_as
            && negotiated.add_path_send[0]
            && negotiated.max_message_len == 65535
    );
}

/// RFC 4271 section 6.8: the connection that the higher identifier opened is kept. Both OPENs cross here.
#[test]
fn collision_is_decided_by_the_identifier() {
    for (low, high) in [(0, 1), (1, 0)] {
        let mut bench = Bench::new(|side, config| {
            config.router_id = RouterId([192, 0, 2, if side == high { 9 } else { 1 }].into());
        });
        bench.sides.iter_mut().for_each(Session::start);
        let [a, b] = [ConnectionId(100), ConnectionId(101)];
        for side in 0..2 {
            assert_eq!(bench.sides[side].poll_output(), Some(Output::Connect));
        }
        bench.sides[0].handle_connected(bench.now, a);
        bench.sides[1].handle_accepted(bench.now, a);
        bench.sides[1].handle_connected(bench.now, b);
        bench.sides[0].handle_accepted(bench.now, b);
        bench.run(true);
        assert_eq!(bench.states(), UP);
        let kept = if high == 0 { a } else { b };
        assert_eq!(bench.sides[low].connections[0].id, kept);
        assert_eq!(bench.log, [["up"], ["up"]]);
    }
}

/// A neighbour's OPEN, with a capability of four octets where `my_as` alone would not do.
fn open_of(my_as: u16, capability: Option<u32>, router_id: [u8; 4]) -> Vec<u8> {
    let four = capability.map(|asn| Capability::FourOctetAs(Asn(asn)));
    let open = Open {
        my_as,
        hold_time: 90,
        router_id: RouterId(router_id.into()),
        capabilities: four.into_iter().collect(),
    };
    let mut octets = Vec::new();
    open.encode(&mut octets);
    octets.split_off(HEADER_LEN)
}

/// What a session that two connections have been accepted for, the second after `pause`, does when the neighbour's OPEN comes on one
/// of them: which of the two is left.
fn left_of_two(router_id: [u8; 4], pause: Duration, first_is: bool, speaks: usize) -> Vec<usize> {
    let mut now = Instant::now();
    let mut session = Session::new(config(0), 7, false);
    session.start();
    let ids = [ConnectionId(100), ConnectionId(101)];
    for (at, id) in ids.iter().enumerate() {
        match (at, first_is) {
            (0, true) => session.handle_connected(now, *id),
            _ => session.handle_accepted(now, *id),
        }
        now += pause;
    }
    let open = open_of(65002, None, router_id);
    session.handle_message(now, ids[speaks], MessageType::Open, &open);
    let left = |at: &usize| session.connections.iter().any(|one| one.id == ids[*at]);
    (0..2).filter(left).collect()
}

#[test]
fn a_silent_connection_is_in_nobodys_way() {
    let (lower, higher) = ([10, 0, 0, 1], [198, 51, 100, 2]);
    let (soon, late) = (Duration::from_millis(10), Duration::from_secs(6));
    for router_id in [lower, higher] {
        for pause in [soon, late] {
            // The neighbour opened both: the one that it speaks on is the one that it means.
            assert_eq!(left_of_two(router_id, pause, false, 0), [0]);
            assert_eq!(left_of_two(router_id, pause, false, 1), [1]);
        }
        // We opened the first, and it stays silent.
        assert_eq!(left_of_two(router_id, late, true, 1), [1]);
    }
    // Soon after, the identifier decides (RFC 4271 section 6.8): ours is 192.0.2.1.
    assert_eq!(left_of_two(lower, soon, true, 1), [0]);
    assert_eq!(left_of_two(higher, soon, true, 1), [1]);
}

/// RFC 7607 section 2, RFC 6793 section 4.1.
#[test]
fn the_as_number_in_two_octets_says_what_the_capability_says() {
    for (my_as, capability, fine) in [
        (65002, None, true),
        (65002, Some(65002), true),
        (23456, Some(65002), true),
        (0, Some(65002), false),
        (65009, Some(65002), false),
        (0, None, false),
    ] {
        let now = Instant::now();
        let mut session = Session::new(config(0), 7, false);
        session.start();
        session.handle_accepted(now, ConnectionId(1));
        let open = open_of(my_as, capability, [192, 0, 2, 2]);
        session.handle_message(now, ConnectionId(1), MessageType::Open, &open);
        let said = (my_as, capability);
        assert_eq!(!session.connections.is_empty(), fine, "{said:?}");
    }
}

#[test]
fn keepalives_hold_an_idle_session_for_a_day() {
    let mut bench = Bench::new(|_, _| {});
    bench.start();
    bench.advance(Duration::from_secs(86_400), true);
    assert_eq!(bench.log, [["up"], ["up"]]);
}

#[test]
fn silence_ends_the_session_and_keeps_the_routes() {
    let mut bench = Bench::new(|_, _| {});
    bench.start();
    let id = bench.sides[0].connections[0].id;
    // Side 1 is frozen: only side 0 sees time pass.
    bench.now += Duration::from_secs(91);
    bench.sides[0].handle_timeout(bench.now);
    let outputs: Vec<Output> = std::iter::from_fn(|| bench.sides[0].poll_output()).collect();
    assert!(outputs.contains(&Output::Close(id)));
    assert!(outputs.iter().any(|output| matches!(output, Output::Down { retain: Some(retained), reason: DownReason::NotificationSent(_) }
        if retained.families == [Family::Ipv4Unicast] && retained.time == Duration::from_secs(120))));
}

#[test]
fn attempts_back_off_and_a_neighbour_that_appears_is_found() {
    let mut bench = Bench::new(|side, config| config.passive = side == 1);
    bench.sides.iter_mut().for_each(Session::start);
    bench.run(false);
    bench.advance(Duration::from_secs(600), false);
    let attempts = bench.connects[0];
    assert!(
        (20..=35).contains(&attempts),
        "{attempts} attempts in 10 minutes"
    );
    assert_eq!(bench.states(), [State::Active, State::Active]);
    assert_eq!(
        bench.sides[0].last_reason().to_string(),
        "no connection: refused"
    );
    bench.advance(Duration::from_secs(30), true);
    assert_eq!(bench.states(), UP);
}

#[test]
fn the_first_retry_follows_within_a_second() {
    let mut bench = Bench::new(|_, _| {});
    bench.sides.iter_mut().for_each(Session::start);
    bench.run(false);
    bench.advance(Duration::from_secs(1), true);
    assert_eq!(bench.states(), UP);
}

#[test]
fn a_wrong_as_is_refused_by_name() {
    let mut bench = Bench::new(|side, config| {
        if side == 0 {
            config.peer_asn = Asn(1);
        }
    });
    bench.start();
    assert_eq!(bench.states(), [State::Idle, State::Idle]);
    assert_eq!(
        bench.sides[1].last_reason().to_string(),
        "the neighbour ended it: OPEN Message Error: Bad Peer AS (2/2): the neighbour is in AS 65002"
    );
}

#[test]
fn no_family_in_common_is_an_unsupported_capability() {
    let mut bench = Bench::new(|side, config| {
        if side == 0 {
            config.families = vec![Family::Ipv6Unicast];
        }
    });
    bench.start();
    assert!(
        bench.sides[1]
            .last_reason()
            .to_string()
            .contains("Unsupported Capability"),
        "{}",
        bench.sides[1].last_reason()
    );
}

/// RFC 4724 section 4.2: the old session of a neighbour that restarted is closed without NOTIFICATION.
#[test]
fn a_restarted_neighbour_replaces_its_session_and_keeps_its_routes() {
    let mut bench = Bench::new(|side, config| config.passive = side == 0);
    bench.start();
    bench.advance(Duration::from_secs(10), true);
    bench.sides[1] = Session::new(config(1), 3, true);
    bench.sides[1].start();
    bench.run(true);
    assert_eq!(bench.states(), UP);
    assert_eq!(
        bench.log[0],
        ["up", "down: the neighbour restarted, retained", "up"]
    );
    let restart = bench.sides[0]
        .negotiated()
        .unwrap()
        .graceful_restart
        .clone()
        .unwrap();
    assert!(restart.restarting && restart.families[0].forwarding_preserved);
}

/// RFC 4724 section 5: also where the old session is a moment old, and whatever the neighbour's OPEN says of a restart.
#[test]
fn a_neighbour_that_crashes_at_once_is_back_at_once() {
    let mut bench = Bench::new(|side, config| config.passive = side == 0);
    bench.start();
    for _ in 0..3 {
        bench.sides[1] = Session::new(config(1), 3, false);
        bench.sides[1].start();
        bench.run(true);
        assert_eq!(bench.states(), UP);
    }
    assert_eq!(bench.log[0].len(), 7, "{:?}", bench.log[0]);
    assert_eq!(bench.sides[0].connections.len(), 1);
}

#[test]
fn silent_connections_do_not_keep_a_good_one_out() {
    let mut bench = Bench::new(|side, config| config.passive = side == 0);
    bench.sides[0].start();
    for id in 100..110 {
        bench.sides[0].handle_accepted(bench.now, ConnectionId(id));
        bench.now += Duration::from_millis(1);
    }
    bench.run(true);
    assert_eq!(bench.sides[0].connections.len(), 2, "no more than two");
    bench.sides[1].start();
    bench.run(true);
    assert_eq!(bench.states(), UP);
}

/// RFC 8538 section 4: more prefixes than allowed would come again.
#[test]
fn too_many_prefixes_end_a_session_for_good() {
    let mut bench = Bench::new(|_, _| {});
    bench.start();
    let id = bench.sides[0].connections[0].id;
    let limit = Notification::cease(cease::MAX_PREFIXES, "");
    bench.sides[0].handle_error(bench.now, id, limit);
    bench.run(true);
    assert_eq!(
        bench.log[1][1],
        "down: the neighbour ended it: Cease: Hard Reset (6/9), Cease: Maximum Number of Prefixes Reached (6/1)"
    );
}

/// It would announce them again: neither end opens a session for five minutes, unless the limit changes.
#[test]
fn who_announced_too_much_is_not_let_in_again_at_once() {
    for lifted in [false, true] {
        for graceful in [None, Some(120)] {
            let mut bench = Bench::new(|_, config| config.graceful_restart = graceful);
            bench.start();
            let id = bench.sides[0].connections[0].id;
            let limit = Notification::cease(cease::MAX_PREFIXES, "");
            bench.sides[0].handle_error(bench.now, id, limit);
            bench.run(true);
            bench.sides[0].handle_link_back(bench.now);
            bench.advance(Duration::from_secs(240), true);
            assert_eq!(bench.states()[0], State::Idle);
            if lifted {
                bench.sides[0].retry();
                bench.run(true);
            } else {
                bench.advance(Duration::from_secs(90), true);
            }
            assert_eq!(bench.states(), UP, "{lifted} {graceful:?}");
        }
    }
}

#[test]
fn what_ends_a_session_decides_whether_routes_stay() {
    for (end, retained) in [
        (Notification::cease(cease::ADMIN_RESET, "upgrade"), true),
        (Notification::cease(cease::HARD_RESET, ""), false),
    ] {
        let mut bench = Bench::new(|_, _| {});
        bench.start();
        bench.sides[0].stop(bench.now, end.clone());
        bench.run(true);
        assert_eq!(
            bench.log[0][1],
            format!(
                "down: we ended it: {end}{}",
                if retained { ", retained" } else { "" }
            ),
        );
        assert_eq!(bench.log[1][1].ends_with("retained"), retained);
        assert_eq!(bench.states()[0], State::Idle);
    }
}

#[test]
fn messages_out_of_turn_are_fsm_errors() {
    let mut bench = Bench::new(|_, _| {});
    bench.sides[0].start();
    let id = ConnectionId(1);
    assert_eq!(bench.sides[0].poll_output(), Some(Output::Connect));
    bench.sides[0].handle_connected(bench.now, id);
    bench.sides[0].handle_message(bench.now, id, MessageType::Update, &[0; 4]);
    assert!(
        bench.sides[0]
            .last_reason()
            .to_string()
            .contains("Unexpected Message in OpenSent")
    );
}

#[test]
fn an_open_that_never_comes_is_not_waited_for_for_ever() {
    let mut bench = Bench::new(|_, _| {});
    bench.sides[0].start();
    assert_eq!(bench.sides[0].poll_output(), Some(Output::Connect));
    bench.sides[0].handle_connected(bench.now, ConnectionId(1));
    bench.now += Duration::from_secs(241);
    bench.sides[0].handle_timeout(bench.now);
    assert_eq!(bench.sides[0].state(), State::Idle);
}

/// RFC 9234 section 4.2, table 2.
#[test]
fn roles_have_to_go_together() {
    use weft_bgp_wire::Role::{Customer, Peer, Provider, RouteServer, RouteServerClient};
    let all = [Provider, RouteServer, RouteServerClient, Customer, Peer];
    for ours in all {
        for theirs in all {
            let mut bench = Bench::new(|side, config| config.role = Some([ours, theirs][side]));
            bench.start();
            let good = matches!(
                (ours, theirs),
                (Provider, Customer)
                    | (Customer, Provider)
                    | (RouteServer, RouteServerClient)
                    | (RouteServerClient, RouteServer)
                    | (Peer, Peer)
            );
            assert_eq!(bench.states() == UP, good, "{ours} and {theirs}");
            if good {
                assert_eq!(bench.sides[0].negotiated().unwrap().role, Some(theirs));
            } else {
                let why = bench.sides[0].last_reason().to_string();
                assert!(why.contains("Role Mismatch (2/11)"), "{why}");
            }
        }
    }
    for (strict, silent) in [(false, true), (true, false)] {
        let mut bench = Bench::new(|side, config| {
            config.role = (side == 0).then_some(Peer);
            config.role_strict = strict;
        });
        bench.start();
        assert_eq!(bench.states() == UP, silent, "strict: {strict}");
    }
}

/// Several roles are one where they are the same; an octet that is no role goes with none.
#[test]
fn a_role_that_is_said_twice_is_the_same() {
    for (said, good) in [
        (&[0][..], true),
        (&[0, 0], true),
        (&[0, 4], false),
        (&[3], false),
        (&[7], false),
    ] {
        let mut bench = Bench::new(|_, config| config.role = Some(weft_bgp_wire::Role::Customer));
        let session = &mut bench.sides[0];
        session.start();
        session.handle_connected(bench.now, ConnectionId(1));
        let mut open = bench.sides[1].our_open();
        open.capabilities
            .retain(|one| !matches!(one, Capability::Role(_)));
        open.capabilities
            .extend(said.iter().map(|role| Capability::Role(*role)));
        let mut octets = Vec::new();
        open.encode(&mut octets);
        let session = &mut bench.sides[0];
        let body = &octets[HEADER_LEN..];
        session.handle_message(bench.now, ConnectionId(1), MessageType::Open, body);
        assert_eq!(session.state() == State::OpenConfirm, good, "{said:?}");
    }
}

/// RFC 5882 section 4.3.2, RFC 9384, RFC 8538 section 3.
#[test]
fn bfd_ends_a_session_for_good_unless_it_may_be_a_restart() {
    let hard = {
        let inside = vec![error_code::CEASE, cease::BFD_DOWN];
        Notification::new(error_code::CEASE, cease::HARD_RESET, inside)
    };
    let soft = Notification::cease(cease::BFD_DOWN, "");
    for (restart, shared_fate, told, retained) in [
        (Some(120), false, &hard, false),
        (Some(120), true, &soft, true),
        (None, false, &soft, false),
        (None, true, &soft, false),
    ] {
        let mut bench = Bench::new(|_, config| config.graceful_restart = restart);
        bench.start();
        let now = bench.now;
        bench.sides[0].handle_bfd_down(now, "no packet for 903 ms", shared_fate, None);
        bench.run(true);
        let kept = if retained { ", retained" } else { "" };
        assert_eq!(
            bench.log[0][1],
            format!("down: BFD went down: no packet for 903 ms{kept}")
        );
        assert_eq!(
            bench.log[1][1],
            format!("down: the neighbour ended it: {told}{kept}")
        );
        // It is tried again without waiting for BFD, and at once when that is up.
        bench.sides[0].handle_bfd_up(now);
        bench.run(true);
        assert_eq!(bench.states(), [State::Established; 2]);
        // What is not established is left alone.
        bench.sides[0].stop(now, Notification::cease(cease::ADMIN_SHUTDOWN, ""));
        bench.run(true);
        bench.sides[0].handle_bfd_down(now, "no packet", shared_fate, None);
        bench.run(true);
        assert_eq!(bench.states()[0], State::Idle);
    }
}

/// The neighbour was back before BFD missed it: what BFD misses is the neighbour as it was before, which has ended already.
#[test]
fn bfd_ends_no_session_that_began_after_the_silence() {
    let mut bench = Bench::new(|_, _| {});
    bench.start();
    let began = bench.now;
    let before = began - Duration::from_millis(1);
    bench.sides[0].handle_bfd_down(began, "no packet for 9 s", true, Some(before));
    bench.run(true);
    assert_eq!(bench.states(), UP);
    bench.sides[0].handle_bfd_down(began, "no packet for 9 s", true, Some(began));
    bench.run(true);
    assert!(bench.log[0][1].starts_with("down: BFD went down"));
}

/// A link that passes packets for a moment each time does not have the table loaded each time.
#[test]
fn a_session_that_bfd_ends_again_and_again_waits_longer_each_time() {
    let mut bench = Bench::new(|_, _| {});
    bench.start();
    let fall = |bench: &mut Bench| {
        let fell = bench.now;
        bench.sides[0].handle_bfd_down(fell, "no packet for 903 ms", false, None);
        // The neighbour calls, and BFD is up at once, whatever waits.
        bench.run(true);
        bench.sides[0].handle_bfd_up(fell);
        bench.run(true);
        while bench.states() != UP {
            let due = bench.sides.iter().filter_map(Session::poll_timeout).min();
            bench.advance(due.unwrap() - bench.now, true);
        }
        (bench.now - fell).as_secs()
    };
    let waits: Vec<u64> = (0..8).map(|_| fall(&mut bench)).collect();
    assert_eq!(waits[..2], [0, 0]);
    for (wait, least) in waits[2..].iter().zip([5, 10, 20, 40, 60, 60]) {
        // The neighbour tries no later than its own time to connect again.
        assert!((least..=least + 30).contains(wait), "{waits:?}");
    }
    bench.advance(Duration::from_secs(301), true);
    assert_eq!(fall(&mut bench), 0, "it has been quiet since");
}
