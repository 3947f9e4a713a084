use std::net::IpAddr;
use std::sync::Arc;

use super::super::tests::{ADMINISTRATOR, address, net, overlay, own, path, resolve, tenant, vni};
use super::super::*;
use super::*;
use crate::EndpointId;
use crate::label::{LabelCommunity, Locator};

const PREFIX: &str = "10.0.2.0/24";

fn id(last: u8) -> EndpointId {
    EndpointId([192, 0, 2, last].into())
}

/// The tenant is at these routers.
fn word(hosts: &[u8]) -> Option<Arc<Origins>> {
    let mut origins = Origins::new(false);
    let hosts = hosts.iter().map(|last| (id(*last), address(*last)));
    origins.add_near(vni(10001), hosts);
    Some(Arc::new(origins))
}

fn locator(last: u8) -> LargeCommunity {
    let encapsulation = Encapsulation::Vxlan;
    let id = id(last);
    LabelCommunity::Locator(Locator { encapsulation, id }).encode(ADMINISTRATOR)
}

/// Where the tenant's packets go, and why other candidates are not used.
fn used(overlay: &Overlay) -> (Vec<IpAddr>, Vec<Option<Reason>>) {
    let (page, _) = overlay.tenant_routes(TenantId(0), None, 10, &|_| true);
    let candidates = page.iter().flat_map(|route| &route.candidates);
    let used = candidates.clone().filter(|one| one.lost.is_none());
    let addresses = used.filter_map(|one| one.candidate.forwarding);
    let lost = candidates.filter(|one| one.lost.is_some());
    (
        addresses.map(|hop| hop.address).collect(),
        lost.map(|one| one.lost).collect(),
    )
}

/// Routers that may send, with what changed since the last time.
fn senders(overlay: &mut Overlay) -> Vec<(IpAddr, bool)> {
    let senders = overlay.poll_intent().map(|intent| intent.senders);
    let senders = senders.unwrap_or_default().into_iter();
    senders.map(|(one, vnis)| (one, vnis.is_some())).collect()
}

#[test]
fn a_label_is_used_where_the_controller_says_so_and_when() {
    let mut overlay = overlay(1, VniSet::none());
    overlay.add_tenant(tenant("red", 10001, &[]));
    assert!(!overlay.set_origins(word(&[1, 11])).is_empty());
    let all = VniSet::all();
    let (true_one, stolen) = ([own(11).label(vni(10001))], [own(66).label(vni(10001))]);
    let paths = [path(1, &true_one, &all), path(2, &stolen, &all)];
    overlay.handle_route(net(PREFIX), &paths);
    resolve(&mut overlay);
    let refused = vec![Some(Reason::InvalidOrigin)];
    assert_eq!(used(&overlay), (vec![address(11)], refused.clone()));
    assert_eq!(senders(&mut overlay), [(address(11), true)]);
    let counted = |overlay: &Overlay| overlay.refused_labels().get(&2).copied();
    let invalid = |count| {
        Some(RefusedLabels {
            invalid: count,
            unknown: 0,
        })
    };
    assert_eq!(counted(&overlay), invalid(1));
    // The label was there before the word: it is used with that, without another announcement.
    overlay.set_origins(word(&[1, 11, 66]));
    resolve(&mut overlay);
    assert_eq!(used(&overlay), (vec![address(11), address(66)], vec![]));
    assert_eq!(senders(&mut overlay), [(address(66), true)]);
    assert_eq!(counted(&overlay), None);
    // And no longer than that.
    overlay.set_origins(word(&[1, 66]));
    assert_eq!(used(&overlay), (vec![address(66)], refused));
    assert_eq!(senders(&mut overlay), [(address(11), false)]);
    overlay.set_origins(None);
    resolve(&mut overlay);
    assert_eq!(used(&overlay).0, [address(11), address(66)]);
    overlay.set_origins(Some(Arc::new(Origins::new(false))));
    let unknown = vec![Some(Reason::UnknownOrigin); 2];
    assert_eq!(used(&overlay), (vec![], unknown));
    assert_eq!(overlay.refused_labels()[&2].unknown, 1);
    overlay.handle_route(net(PREFIX), &[]);
    assert!(overlay.refused_labels().is_empty());
}

#[test]
fn a_services_label_is_judged_too() {
    let mut overlay = overlay(1, VniSet::from_ranges([(vni(20001), vni(20001))]));
    let mut origins = Origins::new(false);
    origins.add_near(vni(20001), [(id(11), address(11))]);
    overlay.set_origins(Some(Arc::new(origins.clone())));
    let all = VniSet::all();
    let (true_one, stolen) = ([own(11).service(vni(20001))], [own(66).service(vni(20001))]);
    overlay.handle_route(net("192.0.2.11/32"), &[path(1, &true_one, &all)]);
    overlay.handle_route(net("192.0.2.66/32"), &[path(2, &stolen, &all)]);
    resolve(&mut overlay);
    let lost = |overlay: &Overlay| -> Vec<(Endpoint, Option<Reason>)> {
        let services = overlay.services();
        let offers = services[0].offers.iter();
        offers
            .map(|one| (one.candidate.label.endpoint, one.lost))
            .collect()
    };
    let [one, other] = [11, 66].map(|last| own(last).named());
    let refused = Some(Reason::InvalidOrigin);
    assert_eq!(lost(&overlay), [(one, None), (other, refused)]);
    origins.add_near(vni(20001), [(id(66), address(66))]);
    overlay.set_origins(Some(Arc::new(origins)));
    resolve(&mut overlay);
    assert_eq!(lost(&overlay), [(other, None), (one, refused)]);
}

#[test]
fn the_locator_of_another_routers_id_is_not_used_whenever_it_came() {
    let mut overlay = overlay(1, VniSet::none());
    let all = VniSet::all();
    let claimed = [locator(11)];
    // It came first, and by what the routes say alone it is the one.
    overlay.handle_route(net("192.0.2.66/32"), &[path(2, &claimed, &all)]);
    assert_eq!(overlay.known_ids().len(), 1);
    let changed = overlay.set_origins(word(&[11]));
    assert!(changed.concerns(&claimed, ADMINISTRATOR));
    overlay.handle_route(net("192.0.2.66/32"), &[path(2, &claimed, &all)]);
    assert!(overlay.known_ids().is_empty());
    let conflict = LocatorConflict {
        id: id(11),
        owner: Some(address(11)),
        other: address(66),
        source: 2,
    };
    assert_eq!(overlay.poll_locator_conflicts(), [conflict]);
    overlay.handle_route(net("192.0.2.11/32"), &[path(1, &claimed, &all)]);
    assert_eq!(overlay.known_ids(), BTreeSet::from([id(11)]));
    assert!(overlay.locator_conflicts().eq([conflict]));
    let underlay = overlay.poll_intent().map(|intent| intent.underlay);
    let installed = underlay.unwrap_or_default();
    assert!(
        installed
            .iter()
            .any(|one| one.prefix == net("192.0.2.11/32"))
    );
    overlay.handle_route(net("192.0.2.66/32"), &[]);
    assert_eq!(overlay.locator_conflicts().count(), 0);
    // Nor is one at another router's address, whose own stays.
    let another = [locator(77)];
    let both = [path(2, &another, &all), path(1, &claimed, &all)];
    overlay.handle_route(net("192.0.2.11/32"), &both);
    assert_eq!(overlay.known_ids(), BTreeSet::from([id(11)]));
    assert_eq!(overlay.poll_locator_conflicts().len(), 1);
}
