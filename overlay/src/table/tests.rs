use std::net::Ipv4Addr;
use std::num::NonZeroU16;

use weft_bgp_wire::LargeCommunity;

use super::*;
use crate::EndpointId;
use crate::export::{Direction, ExportSettings, Rewrite, rewrite};
use crate::intent::{Group, SiteRoute};
use crate::label::{Locator, LocatorPort};

pub(super) const ADMINISTRATOR: u32 = 64512;

pub(super) fn vni(number: u32) -> Vni {
    Vni::new(number).unwrap()
}

pub(super) fn address(last: u8) -> IpAddr {
    IpAddr::from([192, 0, 2, last])
}

pub(super) fn own(last: u8) -> OwnLabels {
    let endpoint = Ipv4Addr::new(192, 0, 2, last);
    OwnLabels {
        administrator: ADMINISTRATOR,
        endpoint: endpoint.into(),
        id: EndpointId(endpoint),
        encapsulation: Encapsulation::Vxlan,
    }
}

pub(super) fn overlay(last: u8, stitched: VniSet) -> Overlay {
    let own = own(last);
    Overlay::new(OverlayConfig {
        membership: Some(Membership {
            administrator: own.administrator,
            endpoint: own.endpoint,
            id: own.id,
            encapsulation: own.encapsulation,
            port: None,
            announce_locator: true,
            install_underlay: true,
            stitched,
        }),
        install: Vec::new(),
    })
}

pub(super) fn tenant(name: &str, number: u32, prefixes: &[&str]) -> TenantConfig {
    TenantConfig {
        name: name.into(),
        primary_vni: vni(number),
        vnis: Vec::new(),
        attachments: vec![format!("{name}0")],
        prefixes: prefixes
            .iter()
            .map(|prefix| prefix.parse().unwrap())
            .collect(),
        breakout: None,
        services: Vec::new(),
        chains: Vec::new(),
    }
}

const PREFERENCE: Preference = Preference {
    local_pref: 100,
    med: 0,
    neighbor_as: 0,
    as_path_length: 0,
    origin: 0,
    ebgp: false,
};

pub(super) fn path<'a>(
    source: u16,
    communities: &'a [LargeCommunity],
    accept: &'a VniSet,
) -> PathInput<'a> {
    PathInput {
        source,
        path_id: 1,
        local: false,
        best: true,
        add_path: false,
        accept,
        preference: PREFERENCE,
        next_hop: address(99),
        resolves: true,
        bandwidth: 0,
        communities,
    }
}

/// Resolves whatever is tracked, at metric 0.
pub(super) fn resolve(overlay: &mut Overlay) {
    let (track, _) = overlay.poll_tracking();
    let found: Vec<_> = track
        .into_iter()
        .map(|address| (address, Some(0)))
        .collect();
    overlay.handle_reachability(&found);
}

/// Changes of an intent as text: `tenant prefix -> address/vni,...`, and `* -> address/vni,...` for a group whose routes
/// were not touched.
fn routes(overlay: &mut Overlay) -> Vec<String> {
    let Some(intent) = overlay.poll_intent() else {
        return Vec::new();
    };
    let hops = |group: &Group| {
        let hops = group.hops.0.iter();
        hops.map(|hop| format!("{}/{}", hop.address, hop.vni))
            .collect::<Vec<_>>()
            .join(",")
    };
    let group = |id: GroupId| {
        let one = intent.groups.iter().rev().find(|(group, _)| *group == id);
        one.and_then(|(_, set)| set.as_ref())
            .map_or("?".to_owned(), hops)
    };
    let touched = |id: GroupId| intent.routes.iter().any(|route| route.group == Some(id));
    let groups = intent.groups.iter().filter_map(|(id, set)| {
        let set = set.as_ref().filter(|_| !touched(*id))?;
        Some(format!("* -> {}", hops(set)))
    });
    let routes = intent.routes.iter().map(|route| {
        let hops = route.group.map_or("gone".to_owned(), group);
        format!("{} {} -> {hops}", route.tenant.0, route.prefix)
    });
    groups.chain(routes).collect()
}

pub(super) fn net(text: &str) -> IpNet {
    text.parse().unwrap()
}

#[test]
fn equal_prefixes_of_two_tenants_stand_side_by_side() {
    let mut overlay = overlay(1, VniSet::none());
    overlay.add_tenant(tenant("red", 10001, &[]));
    overlay.add_tenant(tenant("blue", 10002, &[]));
    let (red, blue) = ([own(11).label(vni(10001))], [own(12).label(vni(10002))]);
    let all = VniSet::all();
    overlay.handle_route(
        net("10.0.2.0/24"),
        &[path(1, &red, &all), path(1, &blue, &all)],
    );
    assert!(
        routes(&mut overlay).is_empty(),
        "not before the endpoints are reachable"
    );
    resolve(&mut overlay);
    assert_eq!(
        routes(&mut overlay),
        [
            "0 10.0.2.0/24 -> 192.0.2.11/10001",
            "1 10.0.2.0/24 -> 192.0.2.12/10002"
        ]
    );
    overlay.handle_route(net("10.0.2.0/24"), &[path(1, &blue, &all)]);
    assert_eq!(routes(&mut overlay), ["0 10.0.2.0/24 -> gone"]);
    assert_eq!(overlay.poll_tracking(), (vec![], vec![address(11)]));
}

#[test]
fn prefixes_are_announced_while_an_attachment_is_up() {
    let mut overlay = overlay(1, VniSet::none());
    let id = overlay.add_tenant(tenant("red", 10001, &["10.0.1.0/24"]));
    let announced = |overlay: &mut Overlay| {
        let changes = overlay.poll_originations();
        changes
            .iter()
            .map(|c| {
                format!(
                    "{}{} {}",
                    if c.communities.is_some() { "+" } else { "-" },
                    c.prefix,
                    c.path_id
                )
            })
            .collect::<Vec<_>>()
    };
    assert_eq!(announced(&mut overlay), ["+192.0.2.1/32 0"]);
    overlay.set_attachment("red0", true);
    assert_eq!(announced(&mut overlay), ["+10.0.1.0/24 10001"]);
    overlay.set_redistributed(id, net("10.0.9.0/24"), true);
    assert_eq!(announced(&mut overlay), ["+10.0.9.0/24 10001"]);
    overlay.set_attachment("red0", false);
    assert_eq!(announced(&mut overlay), ["-10.0.1.0/24 10001"]);
}

#[test]
fn what_is_local_is_not_routed_elsewhere() {
    let mut overlay = overlay(1, VniSet::none());
    let id = overlay.add_tenant(tenant("red", 10001, &["10.0.1.0/24"]));
    overlay.set_attachment("red0", true);
    let (all, label) = (VniSet::all(), [own(11).label(vni(10001))]);
    overlay.handle_route(net("10.0.1.0/24"), &[path(1, &label, &all)]);
    resolve(&mut overlay);
    assert!(routes(&mut overlay).is_empty());
    let (page, total) = overlay.tenant_routes(id, None, 10, &|_| true);
    assert_eq!(
        (total, page[0].local, page[0].candidates[0].lost),
        (1, true, Some(Reason::LocalPrefix))
    );
    overlay.set_attachment("red0", false);
    resolve(&mut overlay);
    assert_eq!(routes(&mut overlay), ["0 10.0.1.0/24 -> 192.0.2.11/10001"]);
}

#[test]
fn each_loser_has_its_reason() {
    let mut overlay = overlay(1, VniSet::none());
    let id = overlay.add_tenant(tenant("red", 10001, &[]));
    let all = VniSet::all();
    let labels: Vec<[LargeCommunity; 1]> =
        (11..18).map(|last| [own(last).label(vni(10001))]).collect();
    let own_label = [own(1).label(vni(10001))];
    let id_label = [LabelCommunity::Label(Label {
        kind: LabelKind::Tenant,
        vni: vni(10001),
        encapsulation: Encapsulation::Vxlan,
        endpoint: Endpoint::Id(EndpointId([9, 9, 9, 9].into())),
    })
    .encode(ADMINISTRATOR)];
    let with = |at: usize, preference: Preference| PathInput {
        preference,
        ..path(at as u16, &labels[at], &all)
    };
    let paths = [
        with(
            0,
            Preference {
                ebgp: true,
                med: 5,
                neighbor_as: 7,
                ..PREFERENCE
            },
        ),
        with(
            1,
            Preference {
                local_pref: 90,
                ..PREFERENCE
            },
        ),
        with(
            2,
            Preference {
                as_path_length: 1,
                ..PREFERENCE
            },
        ),
        with(
            3,
            Preference {
                origin: 1,
                ..PREFERENCE
            },
        ),
        with(
            4,
            Preference {
                ebgp: true,
                med: 6,
                neighbor_as: 7,
                ..PREFERENCE
            },
        ),
        with(5, PREFERENCE),
        with(
            6,
            Preference {
                ebgp: true,
                neighbor_as: 8,
                ..PREFERENCE
            },
        ),
        path(20, &own_label, &all),
        path(21, &id_label, &all),
    ];
    overlay.handle_route(net("10.0.2.0/24"), &paths);
    let (track, _) = overlay.poll_tracking();
    let found: Vec<_> = track
        .into_iter()
        .map(|at| (at, Some(u32::from(at == address(17)))))
        .collect();
    overlay.handle_reachability(&found);
    let (page, _) = overlay.tenant_routes(id, None, 10, &|_| true);
    let mut verdicts: Vec<_> = page[0]
        .candidates
        .iter()
        .map(|judged| (judged.candidate.source, judged.lost))
        .collect();
    verdicts.sort_unstable();
    assert_eq!(
        verdicts,
        [
            (0, None),
            (1, Some(Reason::LocalPref)),
            (2, Some(Reason::AsPathLength)),
            (3, Some(Reason::Origin)),
            (4, Some(Reason::Med)),
            (5, Some(Reason::Ibgp)),
            (6, Some(Reason::UnderlayMetric)),
            (20, Some(Reason::OwnEndpoint)),
            (21, Some(Reason::NoLocator)),
        ]
    );
    // Others lead there; where none does, it is a route without a far end.
    assert!(overlay.unlocated().is_empty());
    let alone = [path(21, &id_label, &all)];
    overlay.handle_route(net("10.0.3.0/24"), &alone);
    let routes: Vec<u64> = overlay.unlocated().into_values().collect();
    assert_eq!(routes, [1]);
}

#[test]
fn equal_candidates_share_and_a_lost_endpoint_leaves_the_group() {
    let mut overlay = overlay(1, VniSet::none());
    overlay.add_tenant(tenant("red", 10001, &[]));
    let all = VniSet::all();
    let labels = [own(11).label(vni(10001)), own(12).label(vni(10001))];
    overlay.handle_route(net("10.0.2.0/24"), &[path(1, &labels, &all)]);
    resolve(&mut overlay);
    assert_eq!(
        routes(&mut overlay).last().unwrap(),
        "0 10.0.2.0/24 -> 192.0.2.11/10001,192.0.2.12/10001"
    );
    overlay.handle_reachability(&[(address(11), None)]);
    assert_eq!(
        routes(&mut overlay),
        ["* -> 192.0.2.12/10001"],
        "without touching the route"
    );
    overlay.handle_reachability(&[(address(12), None)]);
    assert_eq!(routes(&mut overlay), ["0 10.0.2.0/24 -> gone"]);
    overlay.handle_reachability(&[(address(12), Some(0))]);
    assert_eq!(routes(&mut overlay), ["0 10.0.2.0/24 -> 192.0.2.12/10001"]);
}

#[test]
fn the_loss_of_a_next_hop_touches_no_route_that_has_another() {
    let mut overlay = overlay(1, VniSet::none());
    overlay.add_tenant(tenant("red", 10001, &[]));
    let (all, label) = (VniSet::all(), [own(11).label(vni(10001))]);
    let backup = [own(12).label(vni(10001))];
    for prefix in 0..200u8 {
        let paths = [
            path(1, &label, &all),
            PathInput {
                preference: Preference {
                    local_pref: 90,
                    ..PREFERENCE
                },
                ..path(2, &backup, &all)
            },
        ];
        overlay.handle_route(net(&format!("10.0.{prefix}.0/24")), &paths);
    }
    resolve(&mut overlay);
    assert_eq!(routes(&mut overlay).len(), 200);
    overlay.handle_reachability(&[(address(11), None)]);
    assert_eq!(
        routes(&mut overlay),
        ["* -> 192.0.2.12/10001"],
        "the backup"
    );
    overlay.handle_reachability(&[(address(11), Some(5))]);
    assert_eq!(routes(&mut overlay), ["* -> 192.0.2.11/10001"], "and back");
    let others = |overlay: &mut Overlay| {
        for prefix in 0..200u8 {
            overlay.handle_route(net(&format!("10.0.{prefix}.0/24")), &[]);
        }
        (overlay.poll_intent().unwrap(), overlay.poll_tracking())
    };
    let (intent, (_, untrack)) = others(&mut overlay);
    assert_eq!(
        intent.groups.last().map(|(_, set)| set.is_none()),
        Some(true)
    );
    assert_eq!(untrack, [address(11), address(12)]);
}

#[test]
fn labels_that_are_not_accepted_or_have_no_table_are_counted() {
    let mut overlay = overlay(1, VniSet::none());
    overlay.add_tenant(tenant("red", 10001, &[]));
    let (none, all) = (VniSet::none(), VniSet::all());
    let (red, other) = ([own(11).label(vni(10001))], [own(11).label(vni(5))]);
    let reserved = [
        LargeCommunity::new(ADMINISTRATOR, 0, 1),
        LargeCommunity::new(ADMINISTRATOR, 0x0f00_0001, 1),
    ];
    overlay.handle_route(
        net("10.0.2.0/24"),
        &[
            path(1, &red, &none),
            path(2, &other, &all),
            path(3, &reserved, &all),
        ],
    );
    resolve(&mut overlay);
    assert!(routes(&mut overlay).is_empty());
    assert_eq!(
        overlay.counters(),
        Counters {
            not_accepted: 1,
            no_table: 1,
            reserved: 1,
            unsupported_encapsulation: 1
        }
    );
}

#[test]
fn locators_resolve_ids_and_go_to_the_main_table() {
    let mut overlay = overlay(1, VniSet::none());
    overlay.add_tenant(tenant("red", 10001, &[]));
    let (all, id) = (VniSet::all(), EndpointId([9, 9, 9, 9].into()));
    let label = LabelCommunity::Label(Label {
        kind: LabelKind::Tenant,
        vni: vni(10001),
        encapsulation: Encapsulation::Vxlan,
        endpoint: Endpoint::Id(id),
    });
    let label = [label.encode(ADMINISTRATOR)];
    overlay.handle_route(net("10.0.2.0/24"), &[path(1, &label, &all)]);
    let locator = [LabelCommunity::Locator(Locator {
        encapsulation: Encapsulation::Vxlan,
        id,
    })
    .encode(ADMINISTRATOR)];
    overlay.handle_route(net("2001:db8::9/128"), &[path(1, &locator, &all)]);
    resolve(&mut overlay);
    let intent = overlay.poll_intent().unwrap();
    assert_eq!(
        intent.underlay,
        [UnderlayRoute {
            prefix: net("2001:db8::9/128"),
            via: vec![address(99)]
        }]
    );
    let group = intent.groups[0].1.as_ref().unwrap();
    assert_eq!(group.hops.0[0].address.to_string(), "2001:db8::9");
    assert_eq!(intent.routes[0].group, Some(intent.groups[0].0));
    overlay.handle_route(net("2001:db8::9/128"), &[]);
    let intent = overlay.poll_intent().unwrap();
    assert!(intent.underlay[0].via.is_empty() && intent.routes[0].group.is_none());
}

#[test]
fn a_locator_says_the_port_that_packets_go_to_and_without_it_that_is_the_encapsulations_own() {
    let port = |one: u16| NonZeroU16::new(one).unwrap();
    let id = EndpointId([192, 0, 2, 2].into());
    let locator = Locator {
        encapsulation: Encapsulation::Vxlan,
        id,
    };
    let locator = LabelCommunity::Locator(locator).encode(ADMINISTRATOR);
    let at = |encapsulation, number, id| {
        LabelCommunity::LocatorPort(LocatorPort {
            encapsulation,
            port: port(number),
            id,
        })
        .encode(ADMINISTRATOR)
    };
    let (all, prefix) = (VniSet::all(), net("192.0.2.2/32"));
    let mut overlay = overlay(1, VniSet::none());
    overlay.add_tenant(tenant("red", 10001, &[]));
    let label = [own(2).label(vni(10001))];
    overlay.handle_route(net("10.0.2.0/24"), &[path(1, &label, &all)]);
    let mut found = |communities: &[LargeCommunity]| {
        overlay.handle_route(prefix, &[path(1, communities, &all)]);
        resolve(&mut overlay);
        overlay.poll_intent();
        let (routes, _) = overlay.tenant_routes(TenantId(0), None, 9, &|_| true);
        let used = &routes[0].candidates[0];
        assert_eq!(used.lost, None);
        used.candidate.forwarding.unwrap().port
    };
    let vxlan = Encapsulation::Vxlan;
    assert_eq!(found(&[locator]), None);
    assert_eq!(found(&[locator, at(vxlan, 8472, id)]), Some(port(8472)));
    let two = [locator, at(vxlan, 9000, id), at(vxlan, 8472, id)];
    assert_eq!(found(&two), Some(port(8472)), "the lowest");
    assert_eq!(found(&[locator, at(vxlan, 4789, id)]), None);
    // Of another encapsulation, of another endpoint, and without a locator it says nothing.
    let gpe = at(Encapsulation::VxlanGpe, 8472, id);
    assert_eq!(found(&[locator, gpe]), None);
    let other = EndpointId([192, 0, 2, 3].into());
    assert_eq!(found(&[locator, at(vxlan, 8472, other)]), None);
    assert_eq!(found(&[at(vxlan, 8472, id)]), None);
    assert_eq!(found(&[locator, at(vxlan, 8472, id)]), Some(port(8472)));
    assert_eq!(found(&[]), None, "the locator is withdrawn");
}

#[test]
fn a_router_announces_its_port_beside_its_locator() {
    let own = own(1);
    for port in [None, NonZeroU16::new(8472)] {
        let mut overlay = Overlay::new(OverlayConfig {
            membership: Some(Membership {
                administrator: own.administrator,
                endpoint: own.endpoint,
                id: own.id,
                encapsulation: own.encapsulation,
                port,
                announce_locator: true,
                install_underlay: true,
                stitched: VniSet::none(),
            }),
            install: Vec::new(),
        });
        let announced = overlay.poll_originations();
        let communities = announced[0].communities.as_ref().unwrap().iter();
        let said: Vec<String> = communities.map(|one| one.to_string()).collect();
        let mut expected = vec!["64512:1610612736:3221225985"];
        expected.extend(port.map(|_| "64512:1879056664:3221225985"));
        assert_eq!(said, expected);
    }
}

/// a1 - ea ~ transit ~ eb - b1: what each router is told, and what it makes of it.
#[test]
fn two_domains_stitch_at_their_edges() {
    let range = VniSet::from_ranges([(vni(10001), vni(10002))]);
    let prefix = net("10.0.1.0/24");
    let mut a1 = overlay(11, VniSet::none());
    a1.add_tenant(tenant("red", 10001, &["10.0.1.0/24"]));
    a1.set_attachment("red0", true);
    let announced = a1
        .poll_originations()
        .into_iter()
        .find(|change| change.prefix == prefix)
        .unwrap();
    let mut route = announced.communities.unwrap();
    let default = ExportSettings {
        local_next_hop: None,
        strip_overlay: false,
    };
    let hop = |last: u8, from_ebgp, to_ebgp, is_own, route: &mut Vec<LargeCommunity>| {
        let direction = Direction {
            from_ebgp,
            own: is_own,
            to_ebgp,
        };
        if let Rewrite::Replaced(new) = rewrite(route, &own(last), &default, direction, &|vni| {
            range.contains(vni)
        }) {
            *route = new;
        }
    };
    hop(11, false, false, true, &mut route);
    let mut ea = overlay(12, range.clone());
    ea.handle_route(prefix, &[path(1, &route, &VniSet::all())]);
    resolve(&mut ea);
    assert_eq!(
        routes(&mut ea),
        ["0 10.0.1.0/24 -> 192.0.2.11/10001"],
        "to the endpoint itself"
    );
    hop(12, false, true, false, &mut route);
    let mut eb = overlay(22, range.clone());
    eb.handle_route(prefix, &[path(1, &route, &range)]);
    resolve(&mut eb);
    assert_eq!(
        routes(&mut eb),
        ["0 10.0.1.0/24 -> 192.0.2.12/10001"],
        "to the edge of the other domain"
    );
    hop(22, true, false, false, &mut route);
    let mut b1 = overlay(21, VniSet::none());
    let red = b1.add_tenant(tenant("red", 10001, &["10.0.2.0/24"]));
    b1.handle_route(prefix, &[path(1, &route, &VniSet::all())]);
    resolve(&mut b1);
    assert_eq!(
        routes(&mut b1),
        ["0 10.0.1.0/24 -> 192.0.2.22/10001"],
        "to its own edge"
    );
    let (page, _) = b1.tenant_routes(red, None, 10, &|_| true);
    let used = &page[0].candidates[0];
    assert!(used.lost.is_none() && used.candidate.stitched);
    assert_eq!(
        used.candidate.label.endpoint,
        Endpoint::V4([192, 0, 2, 11].into()),
        "the label is end to end"
    );
}

#[test]
fn tenants_that_a_transit_may_hide_are_named() {
    let mut overlay = overlay(1, VniSet::all());
    let (ours, same, theirs) = (
        [own(11).label(vni(10001))],
        [own(21).label(vni(10001))],
        [own(31).label(vni(10002))],
    );
    let all = VniSet::all();
    let prefix = net("10.0.1.0/24");
    let from = |source, communities| PathInput {
        preference: Preference {
            neighbor_as: 64999,
            as_path_length: 2,
            ebgp: true,
            ..PREFERENCE
        },
        ..path(source, communities, &all)
    };
    overlay.handle_route(prefix, &[path(1, &ours, &all), from(2, &same)]);
    assert_eq!(overlay.poll_overlaps(), [], "one tenant in two domains");
    let several = PathInput {
        add_path: true,
        ..from(2, &theirs)
    };
    overlay.handle_route(prefix, &[path(1, &ours, &all), several]);
    assert_eq!(overlay.poll_overlaps(), [], "the session carries both");
    overlay.handle_route(prefix, &[from(2, &theirs)]);
    assert_eq!(overlay.poll_overlaps(), [], "nobody has it here");
    let overlap = Overlap {
        prefix,
        source: 2,
        vni: vni(10002),
    };
    for new in [vec![overlap], vec![]] {
        overlay.handle_route(prefix, &[path(1, &ours, &all), from(2, &theirs)]);
        assert_eq!(overlay.poll_overlaps(), new, "said once");
        assert!(overlay.overlaps().eq([overlap]));
    }
    overlay.handle_route(prefix, &[path(1, &ours, &all)]);
    assert_eq!(overlay.overlaps().count(), 0);
}

#[test]
fn equal_ways_share_by_bandwidth_where_all_say_it() {
    let mut overlay = overlay(1, VniSet::none());
    overlay.add_tenant(tenant("red", 10001, &[]));
    let labels = [2, 3].map(|last| vec![own(last).label(vni(10001))]);
    let accept = VniSet::all();
    let weights = |overlay: &mut Overlay, bandwidths: [u32; 2]| {
        let paths = [0, 1].map(|at| PathInput {
            bandwidth: bandwidths[at],
            ..path(at as u16, &labels[at], &accept)
        });
        overlay.handle_route(net("10.0.1.0/24"), &paths);
        resolve(overlay);
        let groups = overlay.poll_intent().unwrap().groups;
        groups
            .into_iter()
            .rev()
            .find_map(|(_, group)| group)
            .unwrap()
            .weights
    };
    assert_eq!(weights(&mut overlay, [1000, 4000]), [64, 256]);
    assert_eq!(weights(&mut overlay, [1, 4_000_000]), [1, 256]);
    assert_eq!(weights(&mut overlay, [1000, 0]), [] as [u16; 0]);
    assert_eq!(weights(&mut overlay, [7, 7]), [] as [u16; 0]);
}

/// What a tenant's router tells is announced, goes before what other sites say, and gives way to it again.
#[test]
fn a_site_route_is_announced_and_goes_before_others() {
    let mut overlay = overlay(1, VniSet::none());
    let red = overlay.add_tenant(tenant("red", 10001, &[]));
    // The locator.
    overlay.poll_originations();
    let labels = [own(2).label(vni(10001))];
    let accept = VniSet::all();
    let prefix = net("172.16.0.0/24");
    overlay.handle_route(prefix, &[path(0, &labels, &accept)]);
    resolve(&mut overlay);
    assert_eq!(overlay.poll_intent().unwrap().routes.len(), 1);
    assert_eq!(overlay.chosen(red, prefix), Some((0, 1)));
    let via = Some("10.0.1.10".parse().unwrap());
    overlay.set_site_route(red, prefix, via);
    let intent = overlay.poll_intent().unwrap();
    assert_eq!(
        intent.sites,
        [SiteRoute {
            tenant: red,
            prefix,
            via
        }]
    );
    assert_eq!(intent.routes[0].group, None, "the overlay's way goes");
    let announced = overlay.poll_originations();
    assert_eq!(announced, [overlay.origination(red, prefix).unwrap()]);
    assert_eq!(overlay.chosen(red, prefix), None);
    // Told again: nothing changes.
    overlay.set_site_route(red, prefix, via);
    assert_eq!(overlay.poll_intent(), None);
    overlay.set_site_route(red, prefix, None);
    resolve(&mut overlay);
    let intent = overlay.poll_intent().unwrap();
    assert_eq!(intent.sites[0].via, None);
    assert!(
        intent.routes[0].group.is_some(),
        "the overlay's way is back"
    );
    assert_eq!(overlay.poll_originations()[0].communities, None);
    assert_eq!(overlay.origination(red, prefix), None);
}

#[test]
fn a_tenant_that_changes_keeps_what_is_up() {
    let mut overlay = overlay(1, VniSet::none());
    let id = overlay.add_tenant(tenant("red", 10001, &["10.0.1.0/24"]));
    overlay.set_attachment("red0", true);
    let announced = |overlay: &Overlay| overlay.tenants()[0].announced.clone();
    assert_eq!(announced(&overlay), [net("10.0.1.0/24")]);
    // Something else of it: nobody says again that the interface is up.
    let mut config = tenant("red", 10001, &["10.0.1.0/24"]);
    config.vnis = vec![vni(10003)];
    overlay.set_tenant(id, config);
    assert_eq!(announced(&overlay), [net("10.0.1.0/24")]);
    // Without the interface it is forgotten, and has to be told anew.
    let mut config = tenant("red", 10001, &["10.0.1.0/24"]);
    config.attachments = vec!["red1".into()];
    overlay.set_tenant(id, config);
    assert_eq!(announced(&overlay), []);
    overlay.poll_intent();
    overlay.set_tenant(id, tenant("red", 10001, &["10.0.1.0/24"]));
    assert_eq!(announced(&overlay), []);
    overlay.set_attachment("red0", true);
    assert_eq!(announced(&overlay), [net("10.0.1.0/24")]);
}

/// A tenant whose primary VNI changes is removed and added within one change, of which its attachment has nothing to tell.
#[test]
fn an_attachment_that_goes_from_one_tenant_to_another_stays_up() {
    let mut overlay = overlay(1, VniSet::none());
    let prefix = net("10.0.1.0/24");
    let before = overlay.add_tenant(tenant("red", 10001, &["10.0.1.0/24"]));
    overlay.poll_intent();
    overlay.set_attachment("red0", true);
    assert!(overlay.origination(before, prefix).is_some());
    overlay.poll_originations();
    overlay.remove_tenant(before);
    let after = overlay.add_tenant(tenant("red", 10009, &["10.0.1.0/24"]));
    let changes = overlay.poll_originations();
    let announced: Vec<u32> = changes
        .iter()
        .filter(|change| change.communities.is_some())
        .map(|change| change.path_id)
        .collect();
    assert_eq!(announced, [10009], "{changes:?}");
    assert_eq!(overlay.tenants()[0].up, ["red0"]);
    assert!(overlay.origination(after, prefix).is_some());
    overlay.poll_intent();
    // When nobody has it, nobody says when it goes down.
    overlay.remove_tenant(after);
    overlay.poll_intent();
    overlay.add_tenant(tenant("red", 10001, &["10.0.1.0/24"]));
    assert!(overlay.tenants()[0].up.is_empty());
}
