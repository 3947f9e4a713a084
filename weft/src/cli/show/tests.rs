use std::net::Ipv4Addr;

use weft_api::types::*;

use super::*;

const PLAIN: View = View {
    wide: false,
    colours: false,
    width: None,
};

fn label(kind: LabelKind, vni: Option<u32>, endpoint: Ipv4Addr) -> Label {
    Label {
        community: "64512:10001:3221225995".to_owned(),
        kind,
        vni,
        encapsulation: Encapsulation::Vxlan,
        port: None,
        endpoint: Some(endpoint),
        endpoint_id: None,
        origin: None,
    }
}

const ENDPOINT: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 11);
const EDGE: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 1);

fn neighbors_sample() -> Vec<Neighbor> {
    let up = Neighbor {
        address: Ipv4Addr::new(198, 51, 100, 2).into(),
        tenant: None,
        asn: 64601,
        kind: NeighborKind::IbgpClient,
        local_as: None,
        description: Some("edge".to_owned()),
        group: None,
        dynamic: false,
        source: None,
        source_stale: None,
        signed: true,
        unsigned: None,
        ttl_security: Some(1),
        bfd: None,
        state: SessionState::Established,
        since: Some(11_550),
        flaps: 2,
        down: Some(Why::new(DownCode::Restarted, "the neighbour restarted")),
        shutdown: None,
        max_prefixes: None,
        role: None,
        stale: false,
        negotiated: Some(Negotiated {
            router_id: Ipv4Addr::new(192, 0, 2, 1),
            hold_time: 90,
            families: vec![Family::Ipv4Unicast],
            add_path_send: vec![Family::Ipv4Unicast],
            add_path_receive: vec![],
            four_octet_as: true,
            max_message: 65_535,
            route_refresh: true,
            extended_next_hop: true,
            graceful_restart: Some(120),
            role: None,
        }),
        prefixes: vec![NeighborPrefixes {
            family: Family::Ipv4Unicast,
            received: 497_323,
            advertised: 3,
        }],
        updates: 60_000,
        rejected: 1,
        mute: vec![],
        route_leaks: 0,
        policy_rejected: 1,
        import: PolicyUse {
            policies: vec!["bogons".to_owned(), "accept".to_owned()],
            missing: false,
            terms: vec![PolicyTerm {
                policy: "bogons".to_owned(),
                term: "prefixes".to_owned(),
                routes: 1234,
            }],
        },
        export: PolicyUse {
            policies: Vec::new(),
            missing: true,
            terms: Vec::new(),
        },
        treat_as_withdraw: 0,
        attribute_discard: 0,
        stripped: Stripped::default(),
        refused_labels: RefusedLabels::default(),
        too_large: 0,
    };
    let down = Neighbor {
        address: Ipv4Addr::new(203, 0, 113, 2).into(),
        asn: 64999,
        kind: NeighborKind::Ebgp,
        signed: false,
        unsigned: None,
        ttl_security: None,
        bfd: None,
        state: SessionState::Active,
        since: None,
        down: Some(Why::new(DownCode::ConnectFailed, "no connection: refused")),
        negotiated: None,
        prefixes: vec![],
        ..up.clone()
    };
    vec![up, down]
}

#[test]
fn who_tells_of_a_neighbour_is_shown_where_somebody_does() {
    let mut neighbors = neighbors_sample();
    assert!(!bgp::neighbors(&neighbors, PLAIN).contains("SOURCE"));
    neighbors[0].source = Some("_bgp._tcp.example.com".into());
    neighbors[0].source_stale = Some("it timed out".into());
    let shown = bgp::neighbors(&neighbors, PLAIN);
    assert!(shown.contains("_bgp._tcp.example.com (stale)"), "{shown}");
    assert!(shown.contains("source: it timed out"), "{shown}");
}

#[test]
fn neighbors_in_a_table_and_one_in_detail() {
    let sample = neighbors_sample();
    assert_eq!(
        bgp::neighbors(&sample, PLAIN),
        "\
NEIGHBOR         AS  KIND         STATE        SINCE  RECEIVED  ADVERTISED  WHY
198.51.100.2  64601  ibgp-client  established  3h12m   497,323           3
203.0.113.2   64999  ebgp         active                     0           0  no connection: refused
"
    );
    assert_eq!(
        bgp::neighbor(&sample[0], PLAIN),
        "\
neighbor          198.51.100.2, AS 64601, ibgp-client
description       edge
guarded by        TCP MD5 signatures, TTL security over 1 hop
state             established for 3h12m, 2 flaps
was down          the neighbour restarted
router id         192.0.2.1
families          ipv4-unicast
add-path          send ipv4-unicast, receive none
session           hold time 1m30s, messages of up to 65,535 octets, route refresh yes, 4-octet AS numbers, IPv6 next hops of IPv4 prefixes
graceful restart  yes, it may be away for 2m00s
ipv4-unicast      497,323 received, 3 advertised
import            bogons, accept
                  bogons term prefixes: 1,234 routes
export            no policy, so nothing is announced to it (RFC 8212); `export: accept` lets everything pass
updates           60,000 received, 1 prefixes rejected (1 by policy), 0 treated as withdraw, 0 attributes discarded, 0 routes too large
"
    );
    let mut mute = sample[0].clone();
    mute.mute = vec![Family::Ipv6Unicast];
    let line =
        "next hop          announces no ipv6-unicast of this router's: set `local_address_v6`\n";
    assert!(bgp::neighbor(&mute, PLAIN).contains(line));
    let mut limited = sample[0].clone();
    limited.max_prefixes = Some(2_000_000);
    limited.shutdown = Some("new cables".to_owned());
    limited.role = Some(Role::Customer);
    limited.negotiated.as_mut().unwrap().role = Some(Role::Provider);
    limited.route_leaks = 3;
    let shown = bgp::neighbor(&limited, PLAIN);
    for line in [
        "497,323 received of at most 2,000,000, 3 advertised",
        "role              customer, and the neighbour says that it is provider",
        "route leaks       3 prefixes rejected,",
        "shut down         by the configuration: new cables",
    ] {
        assert!(shown.contains(line), "{shown}");
    }
    assert_eq!(
        bgp::neighbors(&vec![], PLAIN),
        "no neighbours are configured\n"
    );
}

#[test]
fn bfd_stands_beside_its_neighbor() {
    let mut sample = neighbors_sample();
    sample[0].bfd = Some(BfdSession {
        state: BfdState::Down,
        remote_state: BfdState::Down,
        multihop: false,
        minimum_ttl: 255,
        since: Some(61),
        down: Some(Why::new(BfdDownCode::Silence, "no packet for 903 ms")),
        problem: Some("cannot send: Network is unreachable".to_owned()),
        discriminator: 17,
        remote_discriminator: 0,
        transmit_interval: 1_000_000,
        detection_time: 900_000,
        remote_transmit_interval: 300_000,
        remote_receive_interval: 300_000,
        remote_multiplier: 3,
        remote_demand: false,
        remote_independent: false,
        received: 12,
        sent: 1300,
        unsent: 7,
        ups: 1,
        downs: 1,
        late: 0,
        sent_late: 2,
    });
    let list = bgp::neighbors(&sample, PLAIN);
    assert!(list.contains("SINCE  BFD   RECEIVED"), "{list}");
    assert!(list.contains("3h12m  down   497,323"), "{list}");
    let one = bgp::neighbor(&sample[0], PLAIN);
    for line in [
        "bfd               down for 1m01s, on the link; the neighbour says down",
        "                  sends every 1000 ms, silence of 900 ms is a failure; the neighbour sends every 300 ms, takes every 300 ms, times 3",
        "                  1,300 sent, 12 received, 1 times up, 1 down; late ourselves: 2 packets, 0 detections put off",
        "bfd down          no packet for 903 ms",
        "bfd problem       cannot send: Network is unreachable (7 packets)",
    ] {
        assert!(one.lines().any(|shown| shown == line), "{line}\n{one}");
    }
}

#[test]
fn routes_show_each_path_and_why_it_lost() {
    let best = Path {
        neighbor: Some(EDGE.into()),
        path_id: 1,
        best: true,
        lost: None,
        stale: false,
        next_hop: Some(EDGE.into()),
        origin: "igp".to_owned(),
        as_path: "64999 64602".to_owned(),
        local_pref: Some(100),
        med: None,
        communities: vec![],
        extended_communities: vec![],
        large_communities: vec!["64512:10001:3221225995".to_owned()],
        labels: vec![
            label(LabelKind::Tenant, Some(10001), ENDPOINT),
            label(LabelKind::LocalNextHop, None, EDGE),
        ],
        originator_id: None,
        cluster_list: vec![],
    };
    let other = Path {
        best: false,
        stale: true,
        neighbor: None,
        next_hop: None,
        labels: vec![],
        lost: Some(Why::new(
            LostCode::AsPathLength,
            "another has a shorter AS_PATH",
        )),
        ..best.clone()
    };
    let page = Page {
        items: vec![Route {
            prefix: "10.0.1.0/24".parse().unwrap(),
            paths: vec![best, other],
        }],
        total: 1234,
        next_cursor: Some("10.0.1.0/24".to_owned()),
    };
    assert_eq!(
        bgp::routes(&page, PLAIN),
        "    PREFIX       NEIGHBOR      NEXT HOP      PREF  AS PATH      LABELS                              WHY NOT
>   10.0.1.0/24  198.51.100.1  198.51.100.1   100  64999 64602  10001@192.0.2.11, via 198.51.100.1
 s               local                        100  64999 64602                                      another has a shorter AS_PATH
1 of 1,234 prefixes; --limit shows more
"
    );
}

#[test]
fn a_tenant_table_shows_labels_ways_and_the_kernels_words() {
    let path = TenantPath {
        neighbor: Some(EDGE.into()),
        label: label(LabelKind::Tenant, Some(10001), ENDPOINT),
        endpoint: Some(ENDPOINT.into()),
        local_next_hop: Some(EDGE.into()),
        local_pref: 100,
        as_path_length: 2,
        chosen: true,
        not_chosen: None,
    };
    let lost = TenantPath {
        chosen: false,
        local_next_hop: None,
        not_chosen: Some(Why::new(
            NotChosenCode::ForwardingNextHopUnreachable,
            "192.0.2.11 is not reachable",
        )),
        ..path.clone()
    };
    let kernel = |code, error: Option<&str>| KernelState {
        code,
        error: error.map(str::to_owned),
        next_hops: vec![],
    };
    let page = Page {
        items: vec![
            TenantRoute {
                prefix: "10.0.1.0/24".parse().unwrap(),
                local: true,
                paths: vec![],
                kernel: kernel(KernelCode::None, None),
            },
            TenantRoute {
                prefix: "10.0.2.0/24".parse().unwrap(),
                local: false,
                paths: vec![path.clone(), lost],
                kernel: kernel(KernelCode::Installed, None),
            },
            TenantRoute {
                prefix: "10.0.3.0/24".parse().unwrap(),
                local: false,
                paths: vec![path],
                kernel: kernel(KernelCode::Refused, Some("Nexthop id does not exist")),
            },
        ],
        total: 3,
        next_cursor: None,
    };
    assert_eq!(
        overlay::tenant_routes(&page, PLAIN),
        "   PREFIX       LABEL             ENDPOINT    LOCAL NEXT HOP  NEIGHBOR      PREF  HOPS  KERNEL     WHY NOT
>  10.0.1.0/24  attached here                                                           none
>  10.0.2.0/24  10001@192.0.2.11  192.0.2.11  198.51.100.1    198.51.100.1   100     2  installed
                10001@192.0.2.11  192.0.2.11                  198.51.100.1   100     2             192.0.2.11 is not reachable
>  10.0.3.0/24  10001@192.0.2.11  192.0.2.11  198.51.100.1    198.51.100.1   100     2  refused    kernel: Nexthop id does not exist
"
    );
}

#[test]
fn tenants_and_the_kernel() {
    let tenant = Tenant {
        name: "red".to_owned(),
        vni: 10001,
        vnis: vec![10001, 10003],
        table: Some(7001),
        attachments: [("red0", false), ("red1", true)]
            .map(|(interface, missing)| Attachment {
                interface: interface.to_owned(),
                up: false,
                missing,
            })
            .into(),
        prefixes: (0..6)
            .map(|n| format!("10.0.{n}.0/24").parse().unwrap())
            .collect(),
        routes: 2,
        stitched: true,
        verdict: Verdict::Degraded,
    };
    assert_eq!(
        overlay::tenants(&vec![tenant], PLAIN),
        "\
TENANT    VNI  MORE VNIS  TABLE  ATTACHMENTS               PREFIXES                                            ROUTES  STATE     ROLE
red     10001  10003       7001  red0(down) red1(missing)  10.0.0.0/24 10.0.1.0/24 10.0.2.0/24 10.0.3.0/24 +2       2  degraded  stitched
"
    );
    let kernel = Kernel {
        release: "6.18.5".to_owned(),
        devices: vec![Device {
            name: "vx0".to_owned(),
            encapsulation: Encapsulation::Vxlan,
            port: None,
            mtu: 1450,
            up: true,
        }],
        segmentation: Segmentation::Table,
        settled: true,
        forwarding: Forwarding {
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
        },
        objects: vec![ObjectCount {
            object: "routes".to_owned(),
            intended: 1201,
            count: 1200,
        }],
        requests: 1300,
        repairs: 1,
        events_lost: 0,
        drops: Some(Drops {
            unknown_vni: 3,
            foreign_address: 4000,
            foreign_attachment: 0,
            other_protocol: 0,
            untranslated: 0,
            unknown_sender: 5,
        }),
        tables: vec![KernelTable {
            table: 7001,
            tenant: "red".to_owned(),
            vrf: None,
            intended: 1200,
            routes: 1199,
        }],
        tracked: vec![
            Tracked {
                address: EDGE.into(),
                metric: Some(0),
            },
            Tracked {
                address: ENDPOINT.into(),
                metric: None,
            },
        ],
        refused: Page {
            items: vec![RefusedRoute {
                tenant: Some("red".to_owned()),
                table: 7001,
                prefix: "10.0.3.0/24".parse().unwrap(),
                error: "No space left on device".to_owned(),
                tries: 3,
            }],
            total: 1,
            next_cursor: None,
        },
    };
    assert_eq!(
        overlay::kernel(&kernel, PLAIN),
        "\
kernel     Linux 6.18.5
device     vx0, vxlan, MTU 1450
tenants    a table each, with rules that lead into it
state      degraded for 1m15s
  because  device, vx0: it is down (for 1m15s)
  remedy   ip link set vx0 up
changes    1,300 requests, 1 repairs of what others changed
dropped    3 of an unknown VNI, 5 from who may not send them, 4,000 for an address of another's, 0 to an attachment of another's, 0 of other protocols, 0 to a breakout with a private source

OBJECTS  INTENDED  KERNEL
routes      1,201   1,200

TABLE  TENANT  INTENDED  KERNEL
 7001  red        1,200   1,199

ADDRESS       UNDERLAY
198.51.100.1  metric 0
192.0.2.11    no route

REFUSED      TENANT  TABLE  TRIES  KERNEL SAYS
10.0.3.0/24  red      7001      3  No space left on device
"
    );
}

#[test]
fn an_offline_label_is_taken_apart() {
    let explained = vec![weft_overlay::label::explain(
        "64512:10001:3221225995".parse().unwrap(),
    )];
    let text = overlay::explanations(&explained, PLAIN);
    assert!(text.starts_with("64512:10001:3221225995  "), "{text}");
    assert!(
        text.contains("192.0.2.11") && text.contains("10001"),
        "{text}"
    );
}

#[test]
fn pages_are_collected_up_to_the_limit() {
    let fetch = |cursor: Option<String>, size: usize| {
        let from: u32 = cursor.map_or(0, |cursor| cursor.parse().unwrap());
        let to = (from + u32::try_from(size).unwrap()).min(2500);
        Ok(Page {
            items: (from..to).collect(),
            total: 2500,
            next_cursor: (to < 2500).then(|| to.to_string()),
        })
    };
    for (limit, shown, more) in [
        (10, 10, true),
        (1000, 1000, true),
        (1500, 1500, true),
        (9000, 2500, false),
    ] {
        let page = collect(limit, fetch).unwrap();
        assert_eq!(
            (page.items.len(), page.next_cursor.is_some()),
            (shown, more)
        );
        assert!(
            page.items
                .iter()
                .copied()
                .eq(0..u32::try_from(shown).unwrap())
        );
    }
    assert!(collect::<u32>(0, fetch).is_err());
}

#[test]
fn endpoints_show_loss_and_round_trips() {
    let one = |last, reachable, probes| Endpoint {
        address: Ipv4Addr::new(192, 0, 2, last).into(),
        port: (last == 12).then_some(8472),
        reachable,
        path: (last == 12).then_some(PathMtu {
            mtu: 1350,
            outer: 1400,
            probed: false,
        }),
        probes,
    };
    let probes = |recent_lost, round_trip| {
        Some(Probes {
            answered: 100,
            lost: 20,
            recent: 32,
            recent_lost,
            round_trip,
        })
    };
    let times = RoundTrip {
        last: 950,
        least: 900,
        mean: 1_234,
        most: 20_000,
    };
    let text = overlay::endpoints(
        &[
            one(11, true, probes(8, Some(times))),
            one(12, true, probes(32, None)),
            one(13, false, None),
        ],
        PLAIN,
    );
    let expected = "\
ROUTER           UNDERLAY      MTU   LOSS  OF      LAST     LEAST      MEAN       MOST
192.0.2.11       reached             25 %  32  0.950 ms  0.900 ms  1.234 ms  20.000 ms
192.0.2.12:8472  reached      1350  100 %  32
192.0.2.13       unreachable
";
    assert_eq!(text, expected);
}
