use std::io;
use std::time::Duration;

use weft_bgp_wire::{
    Asn, AttributesBuilder, HEADER_LEN, MessageType, Origin, RouteRefresh, RouterId, next_frame,
};

use super::*;
use crate::policy::RoutePolicy;
use crate::rib::{PlainBgp, Reason, RouteFilter};
use crate::session::State;

/// Speakers in a line, each with sessions to its neighbours in the line, a virtual clock and wires between them.
struct Line {
    now: Instant,
    /// By speaker.
    asns: Vec<u32>,
    add_path: bool,
    speakers: Vec<Option<Speaker>>,
    /// Connection -> the two speakers that it joins.
    wires: FxHashMap<ConnectionId, (usize, usize)>,
    next_id: u64,
    restarting: bool,
    /// How an attempt to connect to a speaker that is not there ends.
    unreached: io::ErrorKind,
    /// What a speaker that starts knows of who keeps its routes.
    helpers: Option<BTreeSet<IpAddr>>,
}

fn address(at: usize) -> IpAddr {
    IpAddr::from([192, 0, 2, 1 + at as u8])
}

fn speaker(
    at: usize,
    (asns, add_path): (&[u32], bool),
    (restarting, helpers): (bool, Option<BTreeSet<IpAddr>>),
    now: Instant,
) -> Speaker {
    let asn = Asn(asns[at]);
    let octets = [192, 0, 2, 1 + at as u8];
    let config = SpeakerConfig {
        asn,
        router_id: RouterId(octets.into()),
        cluster_id: octets.into(),
        overlay_administrator: None,
        report: vec!["0.0.0.0/0".parse().unwrap()],
        restarting,
        awaits_routes: false,
        deferral: Duration::from_secs(120),
        helpers,
        seed: at as u64 + 1,
    };
    let mut speaker = Speaker::new(config, Box::new(PlainBgp), now);
    for other in [at.wrapping_sub(1), at + 1]
        .into_iter()
        .filter(|other| *other < asns.len())
    {
        speaker.add_neighbor(
            NeighborConfig {
                address: address(other),
                port: 179,
                asn: Asn(asns[other]),
                description: None,
                group: None,
                local_address: None,
                local_address_v6: None,
                passive: false,
                ttl: 1,
                least_ttl: None,
                password: None,
                next_password: None,
                hold_time: Duration::from_secs(90),
                connect_retry: Duration::from_secs(30),
                families: vec![Family::Ipv4Unicast],
                add_path_send: add_path,
                add_path_receive: add_path,
                graceful_restart: Some(120),
                route_reflector_client: false,
                next_hop_self: true,
                import: RoutePolicy::Accept,
                export: RoutePolicy::Accept,
                max_prefixes: None,
                max_paths: u32::MAX,
                allow_own_as: 0,
                as_path: Default::default(),
                enforce_first_as: true,
                accept_martians: false,
                import_class: 0,
                export_class: 0,
                role: None,
                role_strict: false,
                shutdown: None,
            },
            now,
        );
    }
    speaker
}

impl Line {
    /// Each of an AS of its own.
    fn new(count: usize) -> Self {
        Self::with((65000..).take(count).collect(), true)
    }

    fn with(asns: Vec<u32>, add_path: bool) -> Self {
        let now = Instant::now();
        let speakers = (0..asns.len())
            .map(|at| Some(speaker(at, (&asns, add_path), (false, None), now)))
            .collect();
        let mut line = Self {
            now,
            asns,
            add_path,
            speakers,
            wires: FxHashMap::default(),
            next_id: 1,
            restarting: false,
            unreached: io::ErrorKind::ConnectionRefused,
            helpers: None,
        };
        line.run();
        line
    }

    fn run(&mut self) {
        loop {
            let mut busy = false;
            for at in 0..self.speakers.len() {
                busy |= self.run_one(at);
            }
            if !busy {
                return;
            }
        }
    }

    fn run_one(&mut self, at: usize) -> bool {
        let Some(speaker) = &mut self.speakers[at] else {
            return false;
        };
        let mut busy = false;
        let (track, _) = speaker.rib.poll_next_hops();
        let resolved: Vec<_> = track
            .into_iter()
            .map(|address| (address, Some(0)))
            .collect();
        let now = self.now;
        speaker.set_next_hops(&resolved, now);
        for id in speaker.wanting() {
            while let Some(octets) = self.speakers[at].as_mut().unwrap().poll_transmit(id) {
                busy = true;
                self.carry(at, id, &octets);
            }
        }
        while let Some(action) = self.speakers[at].as_mut().unwrap().poll_action() {
            busy = true;
            match action {
                Action::Refused(..) => {}
                Action::Connect(peer) => {
                    let speaker = self.speakers[at].as_mut().unwrap();
                    let target = speaker.config_of(peer).unwrap().address;
                    let other = (0..self.speakers.len())
                        .find(|other| address(*other) == target)
                        .unwrap();
                    if self.speakers[other].is_none() {
                        self.speakers[at].as_mut().unwrap().handle_connect_failed(
                            peer,
                            &io::Error::from(self.unreached),
                            self.now,
                        );
                        continue;
                    }
                    let id = ConnectionId(self.next_id);
                    self.next_id += 1;
                    self.wires.insert(id, (at, other));
                    self.speakers[at].as_mut().unwrap().handle_connected(
                        peer,
                        id,
                        address(at).into(),
                        self.now,
                    );
                    let far = self.speakers[other].as_mut().unwrap();
                    let peer = far.find(address(at)).unwrap();
                    far.handle_accepted(peer, id, address(other).into(), self.now);
                }
                Action::Close(id) => {
                    for octets in self.speakers[at].as_mut().unwrap().take_closing(id) {
                        self.carry(at, id, &octets);
                    }
                    if let Some((a, b)) = self.wires.remove(&id)
                        && let Some(far) = &mut self.speakers[a + b - at]
                    {
                        far.handle_closed(id, "closed".into(), self.now);
                    }
                }
                Action::Neighbor { .. }
                | Action::Problems(..)
                | Action::NearLimit(..)
                | Action::Heard
                | Action::Converged { .. } => {}
            }
        }
        busy
    }

    fn carry(&mut self, from: usize, id: ConnectionId, octets: &[u8]) {
        if let Some((a, b)) = self.wires.get(&id)
            && let Some(far) = &mut self.speakers[a + b - from]
        {
            // Cut anywhere, as TCP does: also inside of headers.
            for piece in octets.chunks(1 + octets.len() % 23) {
                far.handle_octets(id, piece, self.now);
            }
        }
    }

    fn advance(&mut self, by: Duration) {
        let end = self.now + by;
        while let Some(due) = self
            .speakers
            .iter()
            .flatten()
            .filter_map(Speaker::poll_timeout)
            .min()
            .filter(|due| *due <= end)
        {
            self.now = self.now.max(due);
            for speaker in self.speakers.iter_mut().flatten() {
                speaker.handle_timeout(self.now);
            }
            self.run();
        }
        self.now = end;
    }

    /// The process dies: its connections break, nothing is said.
    fn kill(&mut self, at: usize) {
        self.speakers[at] = None;
        let broken: Vec<_> = self
            .wires
            .iter()
            .filter(|(_, (a, b))| *a == at || *b == at)
            .map(|(id, wire)| (*id, *wire))
            .collect();
        for (id, (a, b)) in broken {
            self.wires.remove(&id);
            self.speakers[a + b - at]
                .as_mut()
                .unwrap()
                .handle_closed(id, "reset".into(), self.now);
        }
        self.run();
    }

    fn start(&mut self, at: usize) {
        let known = (self.restarting, self.helpers.clone());
        let shape = (&self.asns[..], self.add_path);
        self.speakers[at] = Some(speaker(at, shape, known, self.now));
        self.run();
    }

    fn originate(&mut self, at: usize, prefix: &str, on: bool) {
        let mut builder = AttributesBuilder::new();
        builder.set_origin(Origin::Igp);
        builder.set_empty_as_path();
        let attributes = on.then(|| builder.octets().to_vec());
        let route = Origination {
            prefix: prefix.parse().unwrap(),
            path_id: 0,
            attributes,
        };
        self.speakers[at].as_mut().unwrap().originate(&[route]);
        self.run();
    }

    fn knows(&self, at: usize, prefix: &str) -> bool {
        let filter = RouteFilter {
            prefix: Some(prefix.parse().unwrap()),
            ..RouteFilter::default()
        };
        !self.speakers[at]
            .as_ref()
            .unwrap()
            .rib
            .routes(&filter, 1)
            .routes
            .is_empty()
    }
}

const P: &str = "198.51.100.0/24";
const Q: &str = "203.0.113.0/24";

#[test]
fn routes_travel_the_line_and_go_again() {
    let mut line = Line::new(4);
    line.originate(0, P, true);
    assert!(line.knows(3, P));
    line.originate(0, P, false);
    assert!(!line.knows(3, P) && !line.knows(1, P));
    assert!(line.speakers.iter().flatten().all(Speaker::has_converged));
}

#[test]
fn a_killed_router_keeps_its_place_and_drops_what_it_no_longer_has() {
    let mut line = Line::new(4);
    line.originate(0, P, true);
    line.originate(1, Q, true);
    line.kill(1);
    line.advance(Duration::from_secs(20));
    assert!(
        line.knows(2, P) && line.knows(2, Q) && line.knows(3, P),
        "kept while it is away"
    );
    line.restarting = true;
    line.start(1);
    line.advance(Duration::from_secs(5));
    assert!(line.knows(3, P), "came back");
    assert!(
        !line.knows(2, Q) && !line.knows(3, Q),
        "swept after End-of-RIB"
    );
}

#[test]
fn a_router_that_does_not_come_back_is_forgotten_after_its_restart_time() {
    let mut line = Line::new(3);
    line.originate(0, P, true);
    line.kill(0);
    line.advance(Duration::from_secs(119));
    assert!(line.knows(2, P));
    line.advance(Duration::from_secs(2));
    assert!(!line.knows(1, P) && !line.knows(2, P));
}

/// RFC 4724 section 4.1: before it has heard its neighbours, a restarted router announces nothing, or they would
/// withdraw what it merely does not know yet.
#[test]
fn a_restarted_router_announces_nothing_before_it_knows_everything() {
    let mut line = Line::new(3);
    line.originate(0, P, true);
    line.kill(1);
    line.kill(0);
    line.restarting = true;
    line.start(1);
    line.advance(Duration::from_secs(30));
    assert!(!line.speakers[1].as_ref().unwrap().has_converged());
    assert!(
        line.knows(2, P),
        "neighbour 0 is still away, and 2 has not been told to forget"
    );
    line.start(0);
    line.originate(0, P, true);
    line.advance(Duration::from_secs(31));
    assert!(line.knows(2, P));
    assert!(line.speakers[1].as_ref().unwrap().has_converged());
}

/// What a router without routes that restarts waits for, with one neighbour that is away and one that has prefix `P`.
fn wait_for_the_other(line: &mut Line, waits: Duration) {
    line.originate(2, P, true);
    line.kill(0);
    line.kill(1);
    line.restarting = true;
    line.start(1);
    line.originate(1, Q, true);
    let second = Duration::from_secs(1);
    if !waits.is_zero() {
        line.advance(waits - second);
        let speaker = line.speakers[1].as_ref().unwrap();
        let awaited = speaker.awaited(line.now).unwrap();
        assert_eq!(awaited.neighbors, [address(0)]);
        assert_eq!(awaited.at_most, Duration::from_secs(120) - waits + second);
        assert!(speaker.helpers(line.now).contains(&address(0)));
        assert!(!line.knows(2, Q), "somebody is awaited");
        line.advance(second);
    }
    assert!(line.knows(2, Q), "{waits:?} are over");
    let speaker = line.speakers[1].as_ref().unwrap();
    assert!(speaker.awaited(line.now).is_none());
    assert_eq!(speaker.helpers(line.now), BTreeSet::from([address(2)]));
}

#[test]
fn a_neighbour_that_cannot_be_reached_is_given_up_early_after_a_restart() {
    let mut line = Line::new(3);
    line.unreached = io::ErrorKind::HostUnreachable;
    wait_for_the_other(&mut line, Duration::from_secs(15));
}

#[test]
fn one_that_refuses_connections_is_given_a_minute_to_start() {
    let mut line = Line::new(3);
    wait_for_the_other(&mut line, Duration::from_secs(60));
}

/// RFC 4724 section 4.1: who cannot keep our routes is not waited for.
#[test]
fn who_had_no_session_before_a_restart_is_not_waited_for() {
    let mut line = Line::new(3);
    line.helpers = Some(BTreeSet::from([address(2)]));
    wait_for_the_other(&mut line, Duration::ZERO);
}

#[test]
fn a_shutdown_for_good_takes_the_routes_along() {
    let mut line = Line::new(3);
    line.originate(0, P, true);
    let now = line.now;
    line.speakers[0]
        .as_mut()
        .unwrap()
        .shut_down("decommissioned", now);
    line.run();
    assert!(!line.knows(1, P) && !line.knows(2, P));
}

#[test]
fn octets_that_are_no_bgp_cost_one_session_only() {
    let mut line = Line::new(3);
    line.originate(2, P, true);
    let id = *line.wires.iter().find(|(_, (a, b))| a + b == 1).unwrap().0;
    line.speakers[1]
        .as_mut()
        .unwrap()
        .handle_octets(id, &[0; 64], line.now);
    line.run();
    let states: Vec<State> = line.speakers[1]
        .as_ref()
        .unwrap()
        .neighbors()
        .iter()
        .map(|neighbor| neighbor.state)
        .collect();
    assert_eq!(states, [State::Idle, State::Established]);
    assert!(line.knows(1, P));
    line.advance(Duration::from_secs(2));
    assert!(line.knows(0, P), "and it comes back by itself");
}

/// RFC 7313 section 4: what a neighbour does not send again between its marks is gone.
#[test]
fn a_refresh_between_marks_sweeps_what_is_gone() {
    let mut line = Line::new(2);
    line.originate(0, P, true);
    line.originate(0, Q, true);
    let id = *line.wires.keys().next().unwrap();
    let now = line.now;
    let mark = |subtype| {
        let mut octets = Vec::new();
        RouteRefresh::mark(Family::Ipv4Unicast, subtype).encode(&mut octets);
        octets
    };
    let request = mark(RouteRefresh::REQUEST);
    let asked = line.speakers[0].as_mut().unwrap();
    asked.handle_octets(id, &request, now);
    let mut kinds = Vec::new();
    while let Some(octets) = asked.poll_transmit(id) {
        let mut rest = &octets[..];
        while let Some(frame) = next_frame(rest, 65535).unwrap() {
            let subtype = match frame.kind {
                MessageType::RouteRefresh => rest[HEADER_LEN + 2],
                _ => 0,
            };
            kinds.push((frame.kind, subtype));
            rest = &rest[frame.len..];
        }
    }
    assert_eq!(kinds.first(), Some(&(MessageType::RouteRefresh, 1)));
    assert_eq!(kinds.last(), Some(&(MessageType::RouteRefresh, 2)));
    assert!(
        kinds[1..kinds.len() - 1]
            .iter()
            .all(|(kind, _)| *kind == MessageType::Update)
    );

    let told = line.speakers[1].as_mut().unwrap();
    told.handle_octets(id, &mark(RouteRefresh::BEGIN), now);
    assert!(line.knows(1, P) && line.knows(1, Q), "until the end");
    line.originate(0, P, false);
    line.originate(0, P, true);
    line.speakers[1]
        .as_mut()
        .unwrap()
        .handle_octets(id, &mark(RouteRefresh::END), now);
    assert!(line.knows(1, P) && !line.knows(1, Q));
}

/// RFC 7313 section 4: another beginning marks what came since the first; and none of it is a restart of the neighbour.
#[test]
fn a_refresh_that_begins_anew_counts_from_there() {
    let mut line = Line::new(2);
    line.originate(0, P, true);
    line.originate(0, Q, true);
    let id = *line.wires.keys().next().unwrap();
    let now = line.now;
    let hear = |line: &mut Line, subtype| {
        let mut octets = Vec::new();
        RouteRefresh::mark(Family::Ipv4Unicast, subtype).encode(&mut octets);
        let told = line.speakers[1].as_mut().unwrap();
        told.handle_octets(id, &octets, now);
        assert!(!told.neighbors()[0].stale);
    };
    let send_again = |line: &mut Line, prefix| {
        line.originate(0, prefix, false);
        line.originate(0, prefix, true);
    };
    // An end without a beginning says nothing.
    hear(&mut line, RouteRefresh::END);
    assert!(line.knows(1, P) && line.knows(1, Q));
    hear(&mut line, RouteRefresh::BEGIN);
    send_again(&mut line, P);
    hear(&mut line, RouteRefresh::BEGIN);
    send_again(&mut line, Q);
    hear(&mut line, RouteRefresh::END);
    assert!(!line.knows(1, P) && line.knows(1, Q));
}

/// RFC 4271 section 8.2.2: messages hold a session. Who sends one an octet at a time is away.
#[test]
fn pieces_of_a_message_do_not_hold_a_session() {
    let mut line = Line::new(2);
    let id = *line.wires.keys().next().unwrap();
    let speaker = line.speakers[1].as_mut().unwrap();
    let mut now = line.now;
    let header = [&[0xff; 16][..], &[16, 0, 2]].concat();
    for octet in header.iter().chain(&[0; 20]) {
        now += Duration::from_secs(5);
        speaker.handle_octets(id, &[*octet], now);
        speaker.handle_timeout(now);
    }
    let status = &speaker.neighbors()[0];
    assert_ne!(status.state, State::Established);
    let why = status.last_reason.to_string();
    assert!(why.contains("Hold Timer Expired"), "{why}");
}

/// RFC 9003: the session ends with the operator's words, stays away whoever calls, and is back when that is over.
#[test]
fn a_neighbour_that_is_shut_down_stays_so_until_it_is_not() {
    let mut line = Line::new(2);
    line.originate(0, P, true);
    let configured = |line: &Line| {
        let status = &line.speakers[1].as_ref().unwrap().neighbors()[0];
        status.config.clone()
    };
    let set = |line: &mut Line, shutdown: Option<&str>| {
        let mut config = configured(line);
        config.shutdown = shutdown.map(str::to_owned);
        let now = line.now;
        let changes = line.speakers[1]
            .as_mut()
            .unwrap()
            .set_neighbors(vec![config], now);
        assert_eq!((changes.changed, changes.restarted), (1, 0));
        line.run();
    };
    set(&mut line, Some("new cables, back at noon"));
    assert!(!line.knows(1, P), "graceful restart keeps nothing");
    let told = &line.speakers[0].as_ref().unwrap().neighbors()[0];
    let why = told.last_reason.to_string();
    assert!(
        why.contains("Administrative Shutdown (6/2) \"new cables, back at noon\""),
        "{why}"
    );
    set(&mut line, Some("new cables, back at one"));
    line.advance(Duration::from_secs(600));
    let status = &line.speakers[1].as_ref().unwrap().neighbors()[0];
    assert_eq!(status.state, State::Idle);
    assert_eq!(status.last_reason.to_string(), "administratively down");
    set(&mut line, None);
    line.advance(Duration::from_secs(60));
    assert!(line.knows(1, P));
}

/// Another secret is another key of the same session; a secret that cannot be had leaves none. The driver is told to sign anew each time.
#[test]
fn another_secret_changes_no_session_and_none_that_can_be_read_ends_it() {
    let mut line = Line::new(2);
    line.originate(0, P, true);
    let key = |text: &str| Some(Password::Key(text.as_bytes().into()));
    let unreadable = Some(Password::Unreadable("no such file".into()));
    for (password, next, restarted) in [
        (None, key("one"), 0),
        (key("one"), None, 0),
        (key("two"), None, 0),
        (unreadable, None, 1),
        (key("two"), None, 1),
        (None, None, 0),
    ] {
        let now = line.now;
        let speaker = line.speakers[1].as_mut().unwrap();
        let config = NeighborConfig {
            password: password.clone(),
            next_password: next.clone(),
            ..speaker.neighbors()[0].config.clone()
        };
        let before = speaker.membership();
        let changes = speaker.set_neighbors(vec![config], now);
        let found = (changes.changed, changes.restarted);
        assert_eq!(found, (1 - restarted, restarted), "{password:?}");
        assert!(speaker.membership() > before, "{password:?}");
        let signed: Vec<_> = speaker.passwords().map(|(_, one)| one.clone()).collect();
        assert_eq!(signed, Vec::from_iter(password));
        line.run();
        line.advance(Duration::from_secs(60));
        assert!(line.knows(1, P), "the lines here ask for no signatures");
    }
}

/// RFC 8538 section 4: it is no Hard Reset, and the neighbour keeps our routes until the session is back.
#[test]
fn a_session_that_starts_anew_for_its_configuration_costs_no_routes() {
    let mut line = Line::new(2);
    line.originate(1, P, true);
    let status = &line.speakers[1].as_ref().unwrap().neighbors()[0];
    let mut config = status.config.clone();
    config.connect_retry += Duration::from_secs(1);
    let (now, speaker) = (line.now, line.speakers[1].as_mut().unwrap());
    let changes = speaker.set_neighbors(vec![config], now);
    assert_eq!((changes.changed, changes.restarted), (0, 1));
    line.run();
    let told = &line.speakers[0].as_ref().unwrap().neighbors()[0];
    let why = told.last_reason.to_string();
    assert!(why.contains("Other Configuration Change (6/6)"), "{why}");
    assert!(line.knows(0, P));
    line.advance(Duration::from_secs(60));
    let told = &line.speakers[0].as_ref().unwrap().neighbors()[0];
    assert_eq!((told.state, told.stale), (State::Established, false));
    assert!(line.knows(0, P));
}

/// Who the best path of a speaker to a prefix is from.
fn best(line: &Line, at: usize, prefix: &str) -> Option<PeerId> {
    let filter = RouteFilter {
        prefix: Some(prefix.parse().unwrap()),
        ..RouteFilter::default()
    };
    let page = line.speakers[at].as_ref().unwrap().rib.routes(&filter, 1);
    let paths = page.routes.first()?.paths.iter();
    let mut best = paths.filter(|path| path.lost.is_none());
    best.next().map(|path| path.source)
}

#[test]
fn routes_of_a_neighbour_that_bfd_does_not_reach_go_or_are_the_last_resort() {
    for shared_fate in [false, true] {
        let mut line = Line::new(3);
        for end in [0, 2] {
            line.originate(end, P, true);
        }
        line.originate(0, Q, true);
        let [first, second] =
            [0, 2].map(|end| line.speakers[1].as_ref().unwrap().find(address(end)));
        assert_eq!(best(&line, 1, P), first);
        // The link is silent: nothing arrives, and nobody says so.
        line.wires.retain(|_, (a, b)| *a != 0 && *b != 0);
        let now = line.now;
        let speaker = line.speakers[1].as_mut().unwrap();
        speaker.handle_bfd_down(address(0), "no packet for 903 ms", shared_fate, None, now);
        line.run();
        // What has another way takes it; what has none stays where the neighbour may only restart.
        assert_eq!(best(&line, 1, P), second, "shared fate {shared_fate}");
        assert_eq!(best(&line, 1, Q), first.filter(|_| shared_fate));
        assert_eq!(line.knows(2, Q), shared_fate);
        // It is back, and its routes are as good as before.
        line.kill(0);
        line.restarting = true;
        line.start(0);
        line.originate(0, P, true);
        line.advance(Duration::from_secs(200));
        assert_eq!(best(&line, 1, P), first, "shared fate {shared_fate}");
        assert!(!line.knows(1, Q), "swept after End-of-RIB");
    }
}

/// BFD of a speaker says that packets do not reach another, which may only restart.
fn falls_silent(line: &mut Line, at: usize, other: usize) {
    line.wires
        .retain(|_, (a, b)| ![(at, other), (other, at)].contains(&(*a, *b)));
    let now = line.now;
    let speaker = line.speakers[at].as_mut().unwrap();
    speaker.handle_bfd_down(address(other), "no packet for 903 ms", true, None, now);
    line.run();
}

/// Who it takes for the best way, and why each other path lost.
fn ways(line: &Line, at: usize) -> (Option<usize>, Vec<Reason>) {
    let speaker = line.speakers[at].as_ref().unwrap();
    let filter = RouteFilter {
        prefix: Some(P.parse().unwrap()),
        ..RouteFilter::default()
    };
    let page = speaker.rib.routes(&filter, 1);
    let lost = page.routes[0].paths.iter().filter_map(|path| path.lost);
    let source = best(line, at, P);
    let from = (0..line.speakers.len())
        .find(|other| *other != at && source.is_some() && speaker.find(address(*other)) == source);
    (from, lost.collect())
}

/// Two routers of an AS with a transit each, that may both only have restarted.
#[test]
fn two_routers_with_nothing_but_a_last_resort_do_not_send_to_each_other() {
    for add_path in [false, true] {
        let mut line = Line::with(vec![65001, 64601, 64601, 65001], add_path);
        for end in [0, 3] {
            line.originate(end, P, true);
        }
        assert_eq!([ways(&line, 1).0, ways(&line, 2).0], [Some(0), Some(3)]);
        falls_silent(&mut line, 1, 0);
        assert_eq!(ways(&line, 1), (Some(2), vec![Reason::LastResort]));
        assert_eq!(ways(&line, 2).0, Some(3));
        falls_silent(&mut line, 2, 3);
        assert_eq!([ways(&line, 1).0, ways(&line, 2).0], [Some(0), Some(3)]);
        // One comes back: both take it.
        line.kill(3);
        line.kill(0);
        line.restarting = true;
        line.start(0);
        line.originate(0, P, true);
        line.advance(Duration::from_secs(60));
        assert_eq!([ways(&line, 1).0, ways(&line, 2).0], [Some(0), Some(1)]);
    }
}

/// A router in the middle hears of both ways by routers of its own AS.
#[test]
fn a_third_router_takes_the_way_that_is_no_last_resort() {
    for add_path in [false, true] {
        let mut line = Line::with(vec![65001, 64601, 64601, 64601, 65001], add_path);
        for end in [0, 4] {
            line.originate(end, P, true);
        }
        assert_eq!(ways(&line, 2).0, Some(1));
        falls_silent(&mut line, 1, 0);
        assert_eq!(ways(&line, 1).0, Some(0), "it has no other");
        assert_eq!(ways(&line, 2), (Some(3), vec![Reason::LocalPref]));
        line.kill(0);
        line.restarting = true;
        line.start(0);
        line.originate(0, P, true);
        line.advance(Duration::from_secs(60));
        assert_eq!(ways(&line, 2), (Some(1), vec![Reason::RouterId]));
    }
}

#[test]
fn a_restart_ends_where_bfd_says_that_the_neighbour_does_not_forward() {
    for shared_fate in [false, true] {
        let mut line = Line::new(3);
        line.originate(0, P, true);
        line.kill(0);
        let now = line.now;
        let speaker = line.speakers[1].as_mut().unwrap();
        speaker.handle_bfd_down(address(0), "no packet for 903 ms", shared_fate, None, now);
        line.run();
        assert_eq!(line.knows(1, P), shared_fate);
        assert_eq!(line.knows(2, P), shared_fate);
    }
}
