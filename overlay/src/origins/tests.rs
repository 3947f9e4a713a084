use std::net::Ipv4Addr;

use super::*;
use crate::Encapsulation;
use crate::label::LabelKind;

const KNOWN: u32 = 10_001;

fn vni(number: u32) -> Vni {
    Vni::new(number).unwrap()
}

fn v4(last: u8) -> Endpoint {
    Endpoint::V4(Ipv4Addr::new(192, 0, 2, last))
}

fn id(last: u8) -> EndpointId {
    EndpointId(Ipv4Addr::new(192, 0, 2, last))
}

fn label(number: u32, endpoint: Endpoint) -> Label {
    Label {
        kind: LabelKind::Tenant,
        vni: vni(number),
        encapsulation: Encapsulation::Vxlan,
        endpoint,
    }
}

/// Routers 1 and 2 host the tenant, 3 over IPv6; in another domain 101 does, behind its edge 102.
fn origins(open: bool) -> Origins {
    let mut origins = Origins::new(false);
    let at = |last: u8| (id(last), IpAddr::from([192, 0, 2, last]));
    let v6 = (id(3), "2001:db8::3".parse().unwrap());
    origins.add_near(vni(KNOWN), [at(1), at(2), v6]);
    origins.add_far(vni(KNOWN), [v4(101), v4(102)], open);
    origins
}

fn direct(origins: &Origins, number: u32, endpoint: Endpoint, ebgp: bool) -> Origin {
    origins.judge(&label(number, endpoint), endpoint, ebgp)
}

#[test]
fn inside_a_label_leads_to_a_router_that_hosts_it() {
    let origins = origins(false);
    for endpoint in [v4(1), v4(2), Endpoint::Id(id(3))] {
        assert_eq!(direct(&origins, KNOWN, endpoint, false), Origin::Valid);
    }
    // Another router's own address, another's id, and a router of another domain to which nobody here tunnels.
    for endpoint in [v4(9), v4(3), Endpoint::Id(id(1)), v4(101)] {
        assert_eq!(direct(&origins, KNOWN, endpoint, false), Origin::Invalid);
    }
    // Behind an edge it is what the edge has let in; behind another router it is nothing.
    let far = label(KNOWN, v4(101));
    assert_eq!(origins.judge(&far, v4(2), false), Origin::Valid);
    assert_eq!(origins.judge(&far, v4(9), false), Origin::Invalid);
    let near = label(KNOWN, v4(1));
    assert_eq!(origins.judge(&near, v4(9), false), Origin::Invalid);
}

#[test]
fn from_outside_both_the_edge_there_and_the_router_behind_it_are_known() {
    let origins = origins(false);
    let judge = |endpoint, via| origins.judge(&label(KNOWN, endpoint), via, true);
    assert_eq!(judge(v4(101), v4(102)), Origin::Valid);
    assert_eq!(judge(v4(102), v4(102)), Origin::Valid);
    assert_eq!(judge(v4(101), v4(103)), Origin::Invalid);
    assert_eq!(judge(v4(103), v4(102)), Origin::Invalid);
    // Our own router's endpoint, said by another domain.
    assert_eq!(judge(v4(1), v4(102)), Origin::Invalid);
}

#[test]
fn what_nobody_says_is_unknown_and_a_policy() {
    let refused = Origin::Unknown { permitted: false };
    let accepted = Origin::Unknown { permitted: true };
    let mut one = origins(false);
    assert_eq!(direct(&one, 7, v4(1), false), refused);
    assert_eq!(direct(&one, 7, v4(1), true), refused);
    // Neighbours by hand host it too: outside, not here.
    let open = origins(true);
    assert_eq!(direct(&open, KNOWN, v4(9), true), accepted);
    assert_eq!(direct(&open, KNOWN, v4(101), true), Origin::Valid);
    assert_eq!(direct(&open, KNOWN, v4(9), false), Origin::Invalid);
    one.accept_unknown = true;
    assert_eq!(direct(&one, 7, v4(1), false), accepted);
    assert_eq!(direct(&one, KNOWN, v4(9), false), Origin::Invalid);
}

#[test]
fn an_id_and_an_address_have_one_owner() {
    let origins = origins(false);
    let permits = |last, address: &str| origins.permits_locator(id(last), address.parse().unwrap());
    assert!(permits(1, "192.0.2.1") && permits(3, "2001:db8::3"));
    assert!(!permits(1, "192.0.2.66"), "another address of a known id");
    assert!(!permits(66, "192.0.2.1"), "another id at a known address");
    assert!(
        permits(66, "192.0.2.66"),
        "a router of which nothing is said"
    );
}

#[test]
fn another_word_changes_what_it_says_otherwise() {
    let before = origins(false);
    let mut after = before.clone();
    assert!(Origins::changed(Some(&before), Some(&after)).is_empty());
    let moved: IpAddr = "2001:db8::33".parse().unwrap();
    after.add_near(vni(20_001), [(id(4), moved)]);
    let changed = Origins::changed(Some(&before), Some(&after));
    assert_eq!(changed.vnis.to_string(), "20001");
    assert_eq!(changed.ids, BTreeSet::from([id(4)]));
    assert_eq!(changed.addresses, BTreeSet::from([moved]));
    let encode = |number| LabelCommunity::Label(label(number, v4(1))).encode(64512);
    let concerns = |number| changed.concerns(&[encode(number)], 64512);
    assert!(concerns(20_001) && !concerns(KNOWN));
    let all = Origins::changed(None, Some(&before));
    assert_eq!((all.vnis, all.ids.len()), (VniSet::all(), 3));
    assert!(Origins::changed(None, None).is_empty());
}
