//! Answers with everything in them that may be there.

use std::net::{IpAddr, Ipv4Addr};

use crate::types::*;

const ROUTER: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 11));
const EDGE: IpAddr = IpAddr::V4(Ipv4Addr::new(198, 51, 100, 1));

pub(super) fn negotiated() -> Negotiated {
    Negotiated {
        router_id: Ipv4Addr::new(192, 0, 2, 1),
        hold_time: 90,
        families: Family::ALL.to_vec(),
        add_path_send: vec![Family::Ipv4Unicast],
        add_path_receive: Vec::new(),
        four_octet_as: true,
        max_message: 65_535,
        route_refresh: true,
        extended_next_hop: false,
        graceful_restart: Some(120),
        role: None,
    }
}

pub(super) fn label() -> Label {
    Label {
        community: "64512:10001:3221225995".to_owned(),
        kind: LabelKind::LocalNextHop,
        vni: Some(10001),
        encapsulation: Encapsulation::VxlanGpe,
        port: Some(8472),
        endpoint: Some(Ipv4Addr::new(192, 0, 2, 11)),
        endpoint_id: Some(Ipv4Addr::new(192, 0, 2, 12)),
        origin: Some(OriginState::Valid),
    }
}

pub(super) fn path() -> Path {
    Path {
        neighbor: Some(EDGE),
        path_id: 1,
        best: false,
        lost: Some(Why::new(LostCode::AsPathLength, "longer AS path")),
        stale: false,
        next_hop: Some(EDGE),
        origin: "igp".to_owned(),
        as_path: "64999 64602".to_owned(),
        local_pref: Some(100),
        med: Some(7),
        communities: vec!["no-export".to_owned()],
        extended_communities: vec!["rt:64512:1".to_owned()],
        large_communities: vec!["64512:10001:3221225995".to_owned()],
        labels: vec![label()],
        originator_id: Some(Ipv4Addr::new(192, 0, 2, 1)),
        cluster_list: vec![Ipv4Addr::new(192, 0, 2, 1)],
    }
}

fn tenant_path() -> TenantPath {
    TenantPath {
        neighbor: Some(EDGE),
        label: label(),
        endpoint: Some(ROUTER),
        local_next_hop: Some(EDGE),
        local_pref: 100,
        as_path_length: 2,
        chosen: false,
        not_chosen: Some(Why::new(NotChosenCode::NoLocator, "no locator")),
    }
}

pub(super) fn tenant_route() -> TenantRoute {
    TenantRoute {
        prefix: "10.0.2.0/24".parse().unwrap(),
        local: false,
        paths: vec![tenant_path()],
        kernel: KernelState {
            code: KernelCode::Refused,
            error: Some("No space left on device".to_owned()),
            next_hops: vec![KernelNextHop {
                vni: 10001,
                encapsulation: Encapsulation::Gre,
                port: Some(8472),
                address: ROUTER,
            }],
        },
    }
}

pub(super) fn chain() -> Chain {
    Chain {
        tenant: "red".to_owned(),
        name: "web".to_owned(),
        direction: "forward".to_owned(),
        matches: "all".to_owned(),
        steps: vec![ChainStep {
            service: "firewall".to_owned(),
            label: 20001,
            way: Why::new(StepCode::Local, "to its node"),
            node: Some(EDGE),
            interface: Some("fw0".to_owned()),
            routers: vec![ROUTER],
            packets: 7,
            dropped: 0,
        }],
        left: 7,
        state: Why::new(ChainCode::Whole, "through every service"),
        note: Some("domain b has no such chain".to_owned()),
    }
}

pub(super) fn service() -> Service {
    Service {
        tenant: Some("red".to_owned()),
        name: Some("firewall".to_owned()),
        label: 20001,
        arms: vec![ServiceArm {
            interface: "fw0".to_owned(),
            node: vec![EDGE],
        }],
        health: Why::new(HealthCode::Unhealthy, "no answer"),
        on_failure: "closed".to_owned(),
        selection: "nearest".to_owned(),
        offers: vec![tenant_path()],
        dropped: 3,
    }
}

fn found() -> TraceMatch {
    TraceMatch {
        table: 7001,
        prefix: Some("10.0.2.0/24".parse().unwrap()),
        local: false,
        gateway: Some(EDGE),
        interface: Some("vx0".to_owned()),
        next_hop: Some(7),
    }
}

pub(super) fn trace() -> Trace {
    Trace {
        tenant: "red".to_owned(),
        destination: EDGE,
        route: Some(tenant_route()),
        table: 7001,
        kernel: Some(found()),
        error: Some("Network is unreachable".to_owned()),
        tunnels: vec![TraceTunnel {
            next_hop: 7,
            vni: 10001,
            encapsulation: Encapsulation::Vxlan,
            port: Some(8472),
            device: "vx0".to_owned(),
            router: ROUTER,
            mtu: 1450,
            underlay: Some(found()),
            error: Some("Network is unreachable".to_owned()),
        }],
        verdict: Why::new(TraceCode::UnderlayUnreachable, "no way"),
        forwarding: forwarding(),
        chain: Some(chain()),
        chain_needs: Some("the protocol".to_owned()),
        live: Some(TraceLive {
            source: Some(EDGE),
            reached: false,
            size: None,
            largest: None,
            error: Some("nothing was sent".to_owned()),
            hops: vec![TraceHop {
                ttl: 1,
                address: Some(ROUTER),
                round_trip: Some(950),
                answer: TraceAnswer::TimeExceeded,
                mtu: None,
            }],
        }),
    }
}

pub(super) fn forwarding() -> Forwarding {
    Forwarding {
        verdict: Verdict::Degraded,
        since: Some(75),
        conditions: vec![Condition {
            code: "device".to_owned(),
            subject: "vx0".to_owned(),
            severity: Verdict::Degraded,
            text: "it is down".to_owned(),
            remedy: Some("ip link set vx0 up".to_owned()),
            since: 75,
            count: 3,
        }],
    }
}

pub(super) fn kernel() -> Kernel {
    Kernel {
        release: "6.18.0".to_owned(),
        devices: vec![Device {
            name: "vx0".to_owned(),
            encapsulation: Encapsulation::Vxlan,
            port: Some(8472),
            mtu: 1450,
            up: true,
        }],
        segmentation: Segmentation::Table,
        settled: true,
        forwarding: forwarding(),
        objects: vec![ObjectCount {
            object: "underlay routes".to_owned(),
            intended: 3,
            count: 2,
        }],
        requests: 0,
        repairs: 0,
        events_lost: 0,
        drops: Some(Drops::default()),
        tables: vec![KernelTable {
            table: 7001,
            tenant: "red".to_owned(),
            vrf: Some("red".to_owned()),
            intended: 3,
            routes: 2,
        }],
        tracked: vec![Tracked {
            address: ROUTER,
            metric: Some(0),
        }],
        refused: Page {
            items: vec![RefusedRoute {
                tenant: Some("red".to_owned()),
                table: 7001,
                prefix: "10.0.2.0/24".parse().unwrap(),
                error: "No space left on device".to_owned(),
                tries: 3,
            }],
            total: 1,
            next_cursor: Some("1".to_owned()),
        },
    }
}

pub(super) fn bfd_session() -> BfdSession {
    BfdSession {
        state: BfdState::Up,
        remote_state: BfdState::Up,
        multihop: true,
        minimum_ttl: 250,
        since: Some(7),
        down: Some(Why::new(BfdDownCode::Silence, "no packet for 903 ms")),
        problem: Some("cannot send: Network is unreachable".to_owned()),
        discriminator: 17,
        remote_discriminator: 99,
        transmit_interval: 300_000,
        detection_time: 900_000,
        remote_transmit_interval: 300_000,
        remote_receive_interval: 300_000,
        remote_multiplier: 3,
        remote_demand: false,
        remote_independent: false,
        received: 12,
        sent: 13,
        unsent: 1,
        ups: 2,
        downs: 1,
        late: 1,
        sent_late: 2,
    }
}

pub(super) fn bfd_status() -> BfdStatus {
    BfdStatus {
        scheduling: BfdScheduling::RealTime,
        sessions: 1,
        up: 1,
        problem: Some("cannot receive".to_owned()),
        discarded: vec![BfdDiscarded {
            reason: "stranger".to_owned(),
            packets: 3,
        }],
        dropped: 4,
        lateness: BfdLateness {
            classes: vec![
                BfdLatenessClass {
                    at_most: Some(100),
                    times: 5,
                },
                BfdLatenessClass {
                    at_most: None,
                    times: 1,
                },
            ],
            sum: 1234,
            longest: 700,
        },
    }
}
