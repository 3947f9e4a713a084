use super::super::tests::{ADMINISTRATOR, address, net, overlay, own, path, resolve, tenant, vni};
use super::*;
use crate::VniSet;
use crate::chain::{Arm, NodeAttachment, OnFailure};
use crate::export::{Direction, ExportSettings, Rewrite, rewrite};
use crate::label::{LabelCommunity, LabelKind, Locator};
use weft_bgp_wire::LargeCommunity;

const LABEL: u32 = 20001;

fn service(selection: Selection, here: bool) -> Service {
    let arm = |name: &str| Arm {
        interface: name.into(),
        addresses: vec![address(200)],
    };
    Service {
        name: "firewall".into(),
        label: vni(LABEL),
        attachment: here.then(|| NodeAttachment {
            inside: arm("in0"),
            outside: Some(arm("out0")),
        }),
        on_failure: OnFailure::Closed,
        rewrites: false,
        selection,
    }
}

fn with(selection: Selection, here: bool) -> Overlay {
    let mut overlay = overlay(5, VniSet::none());
    let mut config = tenant("red", 10001, &[]);
    config.services = vec![service(selection, here)];
    overlay.add_tenant(config);
    overlay
}

/// The locator of a router that offers the service.
fn locator(last: u8) -> [LargeCommunity; 2] {
    let own = own(last);
    let locator = LabelCommunity::Locator(Locator {
        encapsulation: own.encapsulation,
        id: own.id,
    });
    [own.service(vni(LABEL)), locator.encode(ADMINISTRATOR)]
}

fn offer(overlay: &mut Overlay, last: u8) {
    let all = VniSet::all();
    let prefix = IpNet::from(address(last));
    overlay.handle_route(prefix, &[path(last.into(), &locator(last), &all)]);
    resolve(overlay);
}

/// Where the packets of the service go.
fn state(overlay: &Overlay) -> (bool, bool, Vec<u8>) {
    let services = overlay.services();
    let state = services[0].state;
    let used = services[0].offers.iter().filter(|one| one.lost.is_none());
    let routers = used.map(|one| match one.candidate.label.endpoint {
        Endpoint::V4(address) => address.octets()[3],
        Endpoint::Id(_) => 0,
    });
    let routers = routers.collect();
    (state.local, state.prefer_remote, routers)
}

fn up(overlay: &mut Overlay) {
    overlay.set_attachment("in0", true);
    overlay.set_attachment("out0", true);
    overlay.set_health(vni(LABEL), true);
}

/// What the last announcement of the locator says of services.
fn announced(overlay: &mut Overlay) -> Option<bool> {
    let changes = overlay.poll_originations();
    let last = changes.into_iter().rfind(|change| change.path_id == 0)?;
    let communities = last.communities.unwrap();
    Some(communities.contains(&own(5).service(vni(LABEL))))
}

#[test]
fn a_label_is_announced_while_its_node_works() {
    let mut overlay = with(Selection::Nearest, true);
    assert_eq!(announced(&mut overlay), Some(false));
    overlay.set_attachment("in0", true);
    overlay.set_health(vni(LABEL), true);
    // One arm of two is not enough.
    assert_eq!(announced(&mut overlay), None);
    overlay.set_attachment("out0", true);
    assert_eq!(announced(&mut overlay), Some(true));
    overlay.set_health(vni(LABEL), false);
    assert_eq!(announced(&mut overlay), Some(false));
    overlay.set_health(vni(LABEL), true);
    assert_eq!(announced(&mut overlay), Some(true));
    // Another node has to show that it works.
    let mut config = tenant("red", 10001, &[]);
    let mut other = service(Selection::Nearest, true);
    if let Some(attachment) = &mut other.attachment {
        attachment.inside.addresses = vec![address(201)];
    }
    config.services = vec![other];
    overlay.set_tenant(TenantId(0), config);
    assert_eq!(announced(&mut overlay), Some(false));
    overlay.set_health(vni(LABEL), true);
    assert_eq!(announced(&mut overlay), Some(true));
    overlay.remove_tenant(TenantId(0));
    assert_eq!(announced(&mut overlay), Some(false));
    assert_eq!(overlay.services(), []);
}

#[test]
fn the_nearest_one_is_taken_and_the_next_when_it_goes() {
    let mut overlay = with(Selection::Nearest, false);
    offer(&mut overlay, 7);
    offer(&mut overlay, 6);
    assert_eq!(state(&overlay), (false, false, vec![6]));
    overlay.handle_reachability(&[(address(6), Some(20)), (address(7), Some(10))]);
    assert_eq!(state(&overlay), (false, false, vec![7]));
    overlay.handle_route(IpNet::from(address(7)), &[]);
    assert_eq!(state(&overlay), (false, false, vec![6]));
    overlay.handle_reachability(&[(address(6), None)]);
    let services = overlay.services();
    assert_eq!(services[0].state, ServiceState::default());
    assert_eq!(
        services[0].offers[0].lost,
        Some(Reason::ForwardingNextHopUnreachable)
    );
    // The route of a service is no route of the tenant's.
    assert_eq!(overlay.tenant_routes(TenantId(0), None, 9, &|_| true).1, 0);
}

#[test]
fn those_that_are_equally_near_share_where_that_is_wanted() {
    let mut overlay = with(Selection::Share, false);
    offer(&mut overlay, 6);
    offer(&mut overlay, 7);
    assert_eq!(state(&overlay), (false, false, vec![6, 7]));
    let intent = overlay.poll_intent().unwrap();
    let (_, group) = intent.groups.last().unwrap();
    let group = group.as_ref().unwrap();
    assert_eq!((group.hops.0.len(), group.sticky), (2, true));
}

#[test]
fn what_shares_flows_is_the_same_while_routers_come_and_go() {
    let mut overlay = with(Selection::Share, false);
    offer(&mut overlay, 6);
    offer(&mut overlay, 7);
    overlay.poll_intent();
    let remote = overlay.services()[0].state.remote.unwrap();
    // What becomes of the group, and whether anything else is told of the service.
    let changes = |overlay: &mut Overlay| {
        let intent = overlay.poll_intent().unwrap();
        let groups = intent.groups.into_iter();
        let hops = groups.map(|(id, group)| (id, group.map(|group| group.hops.0.len())));
        (hops.collect::<Vec<_>>(), intent.services.len())
    };
    offer(&mut overlay, 8);
    let (groups, told) = changes(&mut overlay);
    // Once while the new one is not reached, once when it is.
    assert_eq!(groups, [(remote, Some(2)), (remote, Some(3))]);
    assert_eq!(told, 0);
    for (last, left) in [(7, 2), (6, 1)] {
        overlay.handle_route(IpNet::from(address(last)), &[]);
        assert_eq!(changes(&mut overlay), (vec![(remote, Some(left))], 0));
        // What nothing leads over is not resolved any more.
        assert_eq!(overlay.poll_tracking().1, [address(last)]);
    }
    offer(&mut overlay, 7);
    assert_eq!(changes(&mut overlay).0.last(), Some(&(remote, Some(2))));
    for last in [7, 8] {
        overlay.handle_route(IpNet::from(address(last)), &[]);
    }
    assert_eq!(
        changes(&mut overlay),
        (vec![(remote, Some(1)), (remote, None)], 1)
    );
    assert_eq!(overlay.services()[0].state, ServiceState::default());
}

#[test]
fn both_directions_meet_at_the_lowest_endpoint() {
    // This router is 5: whoever is below it goes first, whoever is above does not.
    let mut overlay = with(Selection::Pinned, true);
    up(&mut overlay);
    assert_eq!(state(&overlay), (true, false, vec![]));
    offer(&mut overlay, 6);
    overlay.handle_reachability(&[(address(6), Some(1))]);
    assert!(!overlay.services()[0].state.prefer_remote);
    offer(&mut overlay, 4);
    assert_eq!(state(&overlay), (true, true, vec![4]));
    // Where its own node dies, the lowest of the others.
    overlay.handle_route(IpNet::from(address(4)), &[]);
    overlay.set_health(vni(LABEL), false);
    resolve(&mut overlay);
    assert_eq!(state(&overlay), (false, false, vec![6]));
    // The same from a router that has none, however far they are.
    let mut other = with(Selection::Pinned, false);
    offer(&mut other, 7);
    offer(&mut other, 6);
    other.handle_reachability(&[(address(6), Some(90))]);
    assert_eq!(state(&other), (false, false, vec![6]));
}

#[test]
fn an_edge_leads_to_the_services_behind_it_and_hides_their_routers() {
    let edge = own(5);
    let default = ExportSettings {
        local_next_hop: None,
        strip_overlay: false,
    };
    let outwards = Direction {
        from_ebgp: false,
        own: false,
        to_ebgp: true,
    };
    let knows = |known: bool| {
        rewrite(&locator(6), &edge, &default, outwards, &|label| {
            known && label == vni(LABEL)
        })
    };
    assert_eq!(knows(false), Rewrite::Reject);
    let Rewrite::Replaced(communities) = knows(true) else {
        panic!("the label has to go on")
    };
    let decoded: Vec<_> = communities
        .iter()
        .filter_map(|one| LabelCommunity::decode(*one, ADMINISTRATOR)?.ok())
        .collect();
    assert!(matches!(
        decoded[..],
        [LabelCommunity::Label(label), LabelCommunity::LocalNextHop(hop)]
            if label.kind == LabelKind::Service
                && label.endpoint == own(6).named()
                && hop.endpoint == edge.named()
    ));
    // The other domain's edge keeps a way there for a label that it accepts, without knowing the service.
    let mut stitching = overlay(3, VniSet::from_ranges([(vni(LABEL), vni(LABEL))]));
    let all = VniSet::all();
    stitching.handle_route(net("192.0.2.6/32"), &[path(1, &communities, &all)]);
    resolve(&mut stitching);
    let services = stitching.services();
    assert_eq!((services.len(), services[0].config.is_none()), (1, true));
    assert!(services[0].state.remote.is_some());
    assert!(stitching.tables().contains(vni(LABEL)));
    let intent = stitching.poll_intent().unwrap();
    // It goes to the edge, not to the router behind it, and not into the main table.
    let (_, group) = intent.groups.last().unwrap();
    assert_eq!(group.as_ref().unwrap().hops.0[0].address, address(5));
    assert_eq!(intent.underlay, []);
}
