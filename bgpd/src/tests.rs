use std::net::Ipv6Addr;
use std::time::Duration;

use weft_bgp_core::policy::RoutePolicy;
use weft_bgp_core::rib::{Origination, PlainBgp, RouteFilter};
use weft_bgp_wire::{Asn, AttributesBuilder, Family, Origin, RouterId};

use super::*;

/// Each router of a test has an address of its own in 127.0.0.0/8, drawn from the process id, so that tests of several
/// runs do not meet.
fn loopback(test: u8, at: u8) -> IpAddr {
    let pid = std::process::id();
    IpAddr::from([127, (pid >> 8) as u8 | 0x40, pid as u8, test * 16 + at + 1])
}

struct Router {
    bgp: Bgp,
    events: mpsc::Receiver<BgpEvent>,
    port: u16,
    address: IpAddr,
    asn: u32,
}

fn neighbor(address: IpAddr, port: u16, asn: u32, local: IpAddr, passive: bool) -> NeighborConfig {
    // Routes are IPv6 ones: a next hop of the loopback addresses that these tests live on is nobody's.
    let IpAddr::V4(local_v4) = local else {
        panic!("IPv4 here")
    };
    let [.., test_and_router] = local_v4.octets();
    let next_hop = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, u16::from(test_and_router));
    NeighborConfig {
        address,
        port,
        asn: Asn(asn),
        description: None,
        group: None,
        local_address: Some(local),
        local_address_v6: Some(next_hop),
        passive,
        ttl: 1,
        least_ttl: None,
        password: None,
        next_password: None,
        hold_time: Duration::from_secs(90),
        connect_retry: Duration::from_secs(2),
        families: vec![Family::Ipv6Unicast],
        add_path_send: true,
        add_path_receive: true,
        graceful_restart: Some(120),
        route_reflector_client: false,
        next_hop_self: true,
        import: RoutePolicy::Accept,
        export: RoutePolicy::Accept,
        max_prefixes: None,
        max_paths: u32::MAX,
        allow_own_as: 0,
        as_path: Default::default(),
        enforce_first_as: false,
        accept_martians: false,
        import_class: 0,
        export_class: 0,
        role: None,
        role_strict: false,
        shutdown: None,
    }
}

impl Router {
    async fn start(address: IpAddr, asn: u32) -> Self {
        let std::net::IpAddr::V4(id) = address else {
            panic!("IPv4 here")
        };
        let config = BgpConfig {
            scope: Scope::default(),
            tenant_marks: 0..0,
            speaker: SpeakerConfig {
                asn: Asn(asn),
                router_id: RouterId(id),
                cluster_id: id,
                overlay_administrator: None,
                report: vec!["::/0".parse().unwrap()],
                restarting: false,
                awaits_routes: false,
                deferral: Duration::from_secs(30),
                helpers: None,
                seed: u64::from(asn),
            },
            listen: vec![SocketAddr::new(address, 0)],
            neighbors: Vec::new(),
            dynamic: Vec::new(),
            routes: Vec::new(),
        };
        let (bgp, events) = Bgp::start(config, Box::new(PlainBgp)).await.unwrap();
        let port = bgp.listening()[0].port();
        Self {
            bgp,
            events,
            port,
            address,
            asn,
        }
    }

    async fn peer_with(&self, other: &Self, passive: bool) {
        let config = neighbor(other.address, other.port, other.asn, self.address, passive);
        self.bgp
            .with(move |speaker, now| speaker.add_neighbor(config, now))
            .await
            .unwrap();
    }

    async fn originate(&self, count: u32, on: bool) {
        let mut builder = AttributesBuilder::new();
        builder.set_origin(Origin::Igp);
        builder.set_empty_as_path();
        let routes = (0..count)
            .map(|n| Origination {
                prefix: ipnet::Ipv6Net::new(((0xfd00_0000 | u128::from(n)) << 96).into(), 64)
                    .unwrap()
                    .into(),
                path_id: 0,
                attributes: on.then(|| builder.octets().to_vec()),
            })
            .collect();
        self.bgp.originate(routes).await;
    }

    /// Answers questions about next hops, as a data plane would, until the router holds `count` prefixes that resolve.
    async fn wait_for(&mut self, count: usize) {
        let mut reported = std::collections::BTreeSet::new();
        tokio::time::timeout(Duration::from_secs(30), async {
            loop {
                while let Ok(event) = self.events.try_recv() {
                    match event {
                        BgpEvent::NextHops { track, .. } => {
                            let resolved = track
                                .into_iter()
                                .map(|address| (address, Some(0)))
                                .collect();
                            self.bgp.set_next_hops(resolved).await;
                        }
                        BgpEvent::Routes(batch) => {
                            for (prefix, paths) in batch.iter() {
                                if paths.iter().any(|path| path.best) {
                                    reported.insert(prefix);
                                } else {
                                    reported.remove(&prefix);
                                }
                            }
                        }
                        BgpEvent::Heard | BgpEvent::Sessions | BgpEvent::Converged { .. } => {}
                    }
                }
                let held = self
                    .bgp
                    .with(|speaker, _| speaker.rib.prefixes()[1])
                    .await
                    .unwrap();
                if held == count && reported.len() == count {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        })
        .await
        .unwrap_or_else(|_| {
            panic!(
                "{count} prefixes are awaited, {} were reported",
                reported.len()
            )
        });
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_table_goes_over_real_sockets_and_goes_away_again() {
    let mut a = Router::start(loopback(0, 0), 65001).await;
    let mut b = Router::start(loopback(0, 1), 65002).await;
    let mut c = Router::start(loopback(0, 2), 65003).await;
    for (from, to) in [(&a, &b), (&b, &a), (&b, &c), (&c, &b)] {
        from.peer_with(to, false).await;
    }
    a.originate(20_000, true).await;
    tokio::join!(a.wait_for(20_000), b.wait_for(20_000), c.wait_for(20_000));
    let path = c
        .bgp
        .with(|speaker, _| {
            let page = speaker.rib.routes(&RouteFilter::default(), 1);
            (
                page.total,
                page.routes[0].paths[0]
                    .attributes
                    .view()
                    .as_path()
                    .to_string(),
            )
        })
        .await
        .unwrap();
    assert_eq!(path, (20_000, "65002 65001".to_owned()));
    a.originate(20_000, false).await;
    tokio::join!(b.wait_for(0), c.wait_for(0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restart_leaves_the_routes_and_a_cease_takes_them() {
    let mut a = Router::start(loopback(1, 0), 65001).await;
    let mut b = Router::start(loopback(1, 1), 65002).await;
    a.peer_with(&b, false).await;
    b.peer_with(&a, true).await;
    a.originate(10, true).await;
    tokio::join!(a.wait_for(10), b.wait_for(10));
    a.bgp.shutdown(ShutdownMode::Restart).await;
    let gone = async {
        while b.bgp.neighbors().await[0].state == State::Established {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), gone)
        .await
        .unwrap();
    let status = b.bgp.neighbors().await.remove(0);
    assert!(
        status.stale && status.counters.accepted[1] == 10,
        "{:?}",
        status.last_reason
    );

    let mut c = Router::start(loopback(1, 2), 65003).await;
    c.peer_with(&b, false).await;
    b.peer_with(&c, true).await;
    c.originate(20, true).await;
    tokio::join!(c.wait_for(20), b.wait_for(20));
    c.bgp.shutdown(ShutdownMode::Cease).await;
    b.wait_for(10).await;
}

#[tokio::test]
async fn a_port_in_use_is_named() {
    let a = Router::start(loopback(2, 0), 65001).await;
    let taken = SocketAddr::new(a.address, a.port);
    let config = BgpConfig {
        scope: Scope::default(),
        tenant_marks: 0..0,
        speaker: SpeakerConfig {
            asn: Asn(1),
            router_id: RouterId([1, 1, 1, 1].into()),
            cluster_id: [1, 1, 1, 1].into(),
            overlay_administrator: None,
            report: Vec::new(),
            restarting: false,
            awaits_routes: false,
            deferral: Duration::ZERO,
            helpers: None,
            seed: 1,
        },
        listen: vec![taken],
        neighbors: Vec::new(),
        dynamic: Vec::new(),
        routes: Vec::new(),
    };
    let error = Bgp::start(config, Box::new(PlainBgp))
        .await
        .err()
        .unwrap()
        .to_string();
    assert!(
        error.contains(&taken.to_string()) && error.contains("another BGP speaker"),
        "{error}"
    );
}

/// A stranger costs the speaker nothing: its connection ends where it is accepted.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn strangers_are_reset_and_neighbours_of_tomorrow_are_let_in_then() {
    let a = Router::start(loopback(3, 0), 65001).await;
    let b = Router::start(loopback(3, 1), 65002).await;
    // Nothing at all for a stranger, and an OPEN for a neighbour.
    let connect = async |from: IpAddr| {
        let socket = tokio::net::TcpSocket::new_v4()?;
        socket.bind(SocketAddr::new(from, 0))?;
        let mut stream = socket.connect(SocketAddr::new(a.address, a.port)).await?;
        let mut octets = [0; 64];
        tokio::io::AsyncReadExt::read(&mut stream, &mut octets).await
    };
    let refused = connect(b.address).await.unwrap_err();
    assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionReset);
    a.peer_with(&b, true).await;
    let open = async { while !matches!(connect(b.address).await, Ok(octets) if octets > 0) {} };
    tokio::time::timeout(Duration::from_secs(30), open)
        .await
        .unwrap();
}

fn key(text: &str) -> Option<Password> {
    Some(Password::Key(text.as_bytes().into()))
}

impl Router {
    async fn sign(&self, now: Option<&str>, next: Option<&str>) {
        let both = [now.and_then(key), next.and_then(key)];
        self.bgp
            .with(move |speaker, at| speaker.set_passwords(&|_| both.clone(), at))
            .await
            .unwrap();
    }

    async fn flaps(&self) -> u64 {
        self.bgp.neighbors().await[0].flaps
    }

    /// Waits until the neighbour's session stands, and is signed or not.
    async fn stands(&self, signed: bool) {
        let stands = async {
            loop {
                let status = self.bgp.neighbors().await.remove(0);
                if (status.state, status.signed) == (State::Established, signed) {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let stands = tokio::time::timeout(Duration::from_secs(30), stands);
        stands.await.unwrap();
    }
}

/// From no key to one, to another, to a third of which one end is not told: routes go on, and the session with them. Who is away from all
/// that opens a session with the key that follows.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_change_under_a_session() {
    let mut a = Router::start(loopback(4, 0), 65001).await;
    let mut b = Router::start(loopback(4, 1), 65002).await;
    a.peer_with(&b, false).await;
    b.peer_with(&a, false).await;
    a.stands(false).await;
    for (now, next) in [(None, "one"), (Some("one"), "two"), (Some("two"), "three")] {
        a.sign(now, Some(next)).await;
        b.sign(now, Some(next)).await;
        a.sign(Some(next), None).await;
        if next != "three" {
            b.sign(Some(next), None).await;
        }
        a.originate(5, true).await;
        tokio::join!(a.wait_for(5), b.wait_for(5));
        a.originate(5, false).await;
        tokio::join!(a.wait_for(0), b.wait_for(0));
    }
    assert_eq!((a.flaps().await, b.flaps().await), (0, 0));
    assert!(b.bgp.neighbors().await[0].signed);

    // Nobody who does not know the key is heard, with whatever address.
    let stranger = tokio::net::TcpSocket::new_v4().unwrap();
    stranger.bind(SocketAddr::new(b.address, 0)).unwrap();
    let opening = stranger.connect(SocketAddr::new(a.address, a.port));
    let opened = tokio::time::timeout(Duration::from_secs(2), opening).await;
    assert!(opened.is_err(), "{opened:?}");

    // b starts anew, with what it was told last.
    b.bgp.shutdown(ShutdownMode::Restart).await;
    let c = Router::start(b.address, 65002).await;
    let config = NeighborConfig {
        password: key("two"),
        next_password: key("three"),
        ..neighbor(a.address, a.port, a.asn, c.address, false)
    };
    c.bgp
        .with(move |speaker, now| speaker.add_neighbor(config, now))
        .await
        .unwrap();
    c.stands(true).await;
    a.stands(true).await;
}
