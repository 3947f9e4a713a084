use std::net::IpAddr;

use super::super::tests::{net, overlay, path, tenant};
use super::super::*;
use crate::EndpointId;
use crate::label::{LabelCommunity, LocalNextHop, Locator};

const ADMINISTRATOR: u32 = 64512;

fn vni(number: u32) -> Vni {
    Vni::new(number).unwrap()
}

fn only(number: u32) -> VniSet {
    VniSet::from_ranges([(vni(number), vni(number))])
}

fn encode(community: LabelCommunity) -> LargeCommunity {
    community.encode(ADMINISTRATOR)
}

fn label(endpoint: Endpoint) -> LargeCommunity {
    encode(LabelCommunity::Label(Label {
        kind: LabelKind::Tenant,
        vni: vni(10001),
        encapsulation: Encapsulation::Vxlan,
        endpoint,
    }))
}

fn v4(last: u8) -> Endpoint {
    Endpoint::V4([192, 0, 2, last].into())
}

fn id(last: u8) -> EndpointId {
    EndpointId([192, 0, 2, last].into())
}

fn locator(last: u8) -> LargeCommunity {
    let encapsulation = Encapsulation::Vxlan;
    encode(LabelCommunity::Locator(Locator {
        encapsulation,
        id: id(last),
    }))
}

/// Who may send as of now, what changed.
fn senders(overlay: &mut Overlay) -> Vec<(String, String)> {
    let senders = overlay.poll_intent().map(|intent| intent.senders);
    let senders = senders.unwrap_or_default().into_iter();
    senders
        .map(|(address, vnis)| {
            let vnis = vnis.map_or_else(|| "nothing".to_owned(), |vnis| vnis.to_string());
            (address.to_string(), vnis)
        })
        .collect()
}

fn says(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    let pairs = pairs.iter();
    pairs
        .map(|(address, vnis)| ((*address).to_owned(), (*vnis).to_owned()))
        .collect()
}

fn one() -> Overlay {
    let mut overlay = overlay(1, VniSet::none());
    overlay.add_tenant(tenant("red", 10001, &[]));
    senders(&mut overlay);
    overlay
}

#[test]
fn routers_that_paths_name_may_send_what_is_accepted_from_there() {
    let mut overlay = one();
    let hop = encode(LabelCommunity::LocalNextHop(LocalNextHop {
        vni: None,
        encapsulation: Encapsulation::Vxlan,
        endpoint: v4(9),
    }));
    let (near, far) = ([label(v4(2))], [label(v4(3)), hop]);
    let (all, some) = (VniSet::all(), only(10001));
    let prefix = net("10.0.2.0/24");
    // The second is not chosen.
    let mut worse = path(2, &far, &some);
    worse.preference.as_path_length = 5;
    overlay.handle_route(prefix, &[path(1, &near, &all), worse.clone()]);
    let expected = says(&[
        ("192.0.2.2", "all"),
        ("192.0.2.3", "10001"),
        ("192.0.2.9", "10001"),
    ]);
    assert_eq!(senders(&mut overlay), expected);
    // Another route names one of them too, and the first goes: it may send on.
    overlay.handle_route(net("10.0.3.0/24"), &[path(1, &near, &all)]);
    overlay.handle_route(prefix, &[worse]);
    assert_eq!(senders(&mut overlay), []);
    overlay.handle_route(net("10.0.3.0/24"), &[]);
    overlay.handle_route(prefix, &[]);
    let gone = ["192.0.2.2", "192.0.2.3", "192.0.2.9"].map(|address| (address, "nothing"));
    assert_eq!(senders(&mut overlay), says(&gone));
}

#[test]
fn a_label_that_is_not_accepted_names_nobody() {
    let mut overlay = one();
    let (labels, other) = ([label(v4(2))], only(10002));
    overlay.handle_route(net("10.0.2.0/24"), &[path(1, &labels, &other)]);
    let locator = [locator(2)];
    let none = VniSet::none();
    overlay.handle_route(net("192.0.2.2/32"), &[path(2, &locator, &none)]);
    assert_eq!(senders(&mut overlay), []);
    // A router without a prefix of its own is named by its locator.
    overlay.handle_route(net("192.0.2.2/32"), &[path(1, &locator, &other)]);
    assert_eq!(senders(&mut overlay), says(&[("192.0.2.2", "10002")]));
    overlay.set_accept(1, &only(10003));
    assert_eq!(senders(&mut overlay), says(&[("192.0.2.2", "10003")]));
}

#[test]
fn a_tenant_that_goes_takes_the_names_of_its_routes_along() {
    let mut overlay = one();
    let (labels, all) = ([label(v4(2))], VniSet::all());
    overlay.handle_route(net("10.0.2.0/24"), &[path(1, &labels, &all)]);
    assert_eq!(senders(&mut overlay), says(&[("192.0.2.2", "all")]));
    let red = overlay.tenants()[0].id;
    overlay.remove_tenant(red);
    assert_eq!(senders(&mut overlay), says(&[("192.0.2.2", "nothing")]));
}

#[test]
fn an_endpoint_of_the_other_family_sends_from_everywhere() {
    let mut overlay = one();
    let (labels, locator) = ([label(Endpoint::Id(id(7)))], [locator(7)]);
    let some = only(10001);
    overlay.handle_route(net("10.0.2.0/24"), &[path(1, &labels, &some)]);
    assert_eq!(senders(&mut overlay), []);
    overlay.handle_route(net("2001:db8::7/128"), &[path(1, &locator, &some)]);
    let expected = says(&[("2001:db8::7", "10001"), ("0.0.0.0", "10001")]);
    assert_eq!(senders(&mut overlay), expected);
    overlay.handle_route(net("2001:db8::7/128"), &[]);
    let gone = says(&[("2001:db8::7", "nothing"), ("0.0.0.0", "nothing")]);
    assert_eq!(senders(&mut overlay), gone);
}

/// The address that an id stands for, by where a tenant's packets go.
fn owner(overlay: &mut Overlay) -> Option<IpAddr> {
    let red = overlay.tenants()[0].id;
    let (routes, _) = overlay.tenant_routes(red, None, 10, &|_| true);
    let forwarding = routes.first()?.candidates.first()?.candidate.forwarding?;
    Some(forwarding.address)
}

#[test]
fn an_endpoint_id_has_one_owner() {
    let mut overlay = one();
    let (labels, locator) = ([label(Endpoint::Id(id(7)))], [locator(7)]);
    let all = VniSet::all();
    overlay.handle_route(net("10.0.2.0/24"), &[path(1, &labels, &all)]);
    let outside = |source| {
        let mut path = path(source, &locator, &all);
        path.preference.ebgp = true;
        path.preference.as_path_length = 1;
        path
    };
    let address = |text: &str| Some(text.parse::<IpAddr>().unwrap());
    overlay.handle_route(net("2001:db8::9/128"), &[outside(2)]);
    assert_eq!(owner(&mut overlay), address("2001:db8::9"));
    // A second one, and lower: the first stays.
    overlay.handle_route(net("2001:db8::1/128"), &[outside(3)]);
    assert_eq!(owner(&mut overlay), address("2001:db8::9"));
    let conflicts = overlay.poll_locator_conflicts();
    let others: Vec<_> = conflicts
        .iter()
        .map(|each| (Some(each.other), each.source))
        .collect();
    assert_eq!(others, [(address("2001:db8::1"), 3)]);
    // One of our own AS takes it over from both.
    overlay.handle_route(net("2001:db8::5/128"), &[path(1, &locator, &all)]);
    assert_eq!(owner(&mut overlay), address("2001:db8::5"));
    assert_eq!(overlay.locator_conflicts().count(), 2);
    for prefix in ["2001:db8::9/128", "2001:db8::1/128"] {
        overlay.handle_route(net(prefix), &[]);
    }
    assert_eq!(owner(&mut overlay), address("2001:db8::5"));
    assert_eq!(overlay.locator_conflicts().count(), 0);
    // This router's own id is nobody else's.
    let own = [self::locator(1)];
    overlay.handle_route(net("2001:db8::66/128"), &[path(2, &own, &all)]);
    assert_eq!(overlay.locator_conflicts().count(), 1);
}
