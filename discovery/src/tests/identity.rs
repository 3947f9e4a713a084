//! A tenant is one tenant: not whoever has its number in another domain, nor whoever has its name here later.

use super::*;
use crate::chains::operations::{NewService, put_service};
use crate::model::{Record, RemoteService, RemoteTenant, Trust};
use crate::operations::{self, NewTenant, RouterChange, Undo};
use crate::tests::growth;

/// The home has deleted the tenant and given its VNI to another one that is shared: that one's services are not offered to ours.
#[test]
fn services_of_another_tenant_with_the_number_are_not_offered() {
    let mut domain = growth::Domain::new();
    let far = |id: &str| {
        Record::RemoteTenant(RemoteTenant {
            domain: "b".into(),
            name: "far".into(),
            vni: 5,
            home: "b".into(),
            id: Some(id.into()),
        })
    };
    let say = |domain: &mut growth::Domain, id: &str| {
        domain
            .change(|transaction| {
                transaction.put(Record::Trust(Trust {
                    name: "b".into(),
                    controllers: Vec::new(),
                    fingerprint: String::new(),
                    ttl: 1,
                    pairs: Vec::new(),
                }));
                transaction.put(far(id));
                transaction.put(Record::RemoteService(RemoteService {
                    domain: "b".into(),
                    vni: 5,
                    name: "fw".into(),
                    label: 6,
                }));
                Ok(())
            })
            .unwrap();
    };
    say(&mut domain, "one");
    let new: NewTenant =
        serde_json::from_value(json!({ "name": "red", "home": "b", "home_name": "far" })).unwrap();
    domain
        .change(|transaction| operations::create_tenant(transaction, &new))
        .unwrap();
    let new: NewService = serde_json::from_value(json!({ "home": "b" })).unwrap();
    say(&mut domain, "another");
    let refused = domain.change(|transaction| put_service(transaction, "red", "fw", &new, false));
    let refused = refused.unwrap_err().to_string();
    assert!(refused.contains("offers no service `fw`"), "{refused}");
    say(&mut domain, "one");
    domain
        .change(|transaction| put_service(transaction, "red", "fw", &new, false))
        .unwrap();
}

/// Another domain shares its tenant `blue`, VNI 70, with a service, label 71: an administrator of `red` gets neither for a service of
/// `red`, whatever domain is named, and an operator gets them by no word either.
#[test]
fn labels_of_other_domains_tenants_are_not_to_be_had() {
    let mut domain = growth::Domain::new();
    domain.tenant("red").unwrap();
    let said = |transaction: &mut crate::database::Transaction<'_>| {
        transaction.put(Record::Trust(Trust {
            name: "b".into(),
            controllers: Vec::new(),
            fingerprint: String::new(),
            ttl: 1,
            pairs: Vec::new(),
        }));
        transaction.put(Record::RemoteTenant(RemoteTenant {
            domain: "b".into(),
            name: "blue".into(),
            vni: 70,
            home: "b".into(),
            id: Some("one".into()),
        }));
        for (vni, name, label) in [(70, "fw", 71), (10_000, "nat", 72)] {
            transaction.put(Record::RemoteService(RemoteService {
                domain: "b".into(),
                vni,
                name: name.into(),
                label,
            }));
        }
        Ok(())
    };
    domain.change(said).unwrap();
    let mut put = |name: &str, label: u32, home: Option<&str>, operator: bool| {
        let new: NewService =
            serde_json::from_value(json!({ "label": label, "home": home })).unwrap();
        let put =
            domain.change(|transaction| put_service(transaction, "red", name, &new, operator));
        put.map(drop).map_err(|refused| refused.to_string())
    };
    for (label, home, operator, word) in [
        (70, Some("x"), false, "an operator's token"),
        (71, Some("x"), false, "an operator's token"),
        (80, Some("x"), false, "an operator's token"),
        (80, None, false, "an operator's token"),
        (70, Some("b"), false, "offers no service `fw`"),
        (71, Some("b"), true, "offers no service `fw`"),
        (70, Some("x"), true, "that of tenant `blue`"),
        (71, Some("x"), true, "a service of VNI 70"),
        (70, None, true, "has VNI 70"),
    ] {
        let refused = put("fw", label, home, operator).unwrap_err();
        assert!(
            refused.contains(word),
            "{label} {home:?} {operator}: {refused}"
        );
    }
    let refused = put("nat", 71, Some("b"), false).unwrap_err();
    assert!(refused.contains("has label 72, not 71"), "{refused}");
    put("nat", 72, Some("b"), false).unwrap();
    put("own", 10_005, None, false).unwrap();
    put("fw", 80, Some("x"), true).unwrap();
    // What is there stays as it is for whoever puts it again.
    put("fw", 80, Some("x"), false).unwrap();
    let refused = put("fw", 81, Some("x"), false).unwrap_err();
    assert!(refused.contains("an operator's token"), "{refused}");
}

/// A label was a service's before a domain said that it is another tenant's VNI: nothing of it goes over to that domain.
#[test]
fn what_a_domain_says_is_another_tenants_does_not_go_over_to_it() {
    let mut domain = growth::Domain::new();
    domain.tenant("red").unwrap();
    domain.service("red", "fw", None).unwrap();
    let share = |transaction: &mut crate::database::Transaction<'_>| {
        transaction.put(Record::Share(crate::model::Share {
            domain: "b".into(),
            tenant: "red".into(),
        }));
        Ok(())
    };
    domain.change(share).unwrap();
    let vnis = |domain: &growth::Domain| crate::exchange::peers::vnis(&domain.state, "b");
    assert_eq!(vnis(&domain), [10_000, 10_001].into());
    let say = |transaction: &mut crate::database::Transaction<'_>| {
        transaction.put(Record::RemoteTenant(RemoteTenant {
            domain: "b".into(),
            name: "blue".into(),
            vni: 10_001,
            home: "b".into(),
            id: None,
        }));
        Ok(())
    };
    domain.change(say).unwrap();
    assert_eq!(vnis(&domain), [10_000].into());
    let red = domain.state.tenant("tenant/red").unwrap();
    assert!(!crate::exchange::peers::exchanges(
        &domain.state,
        "b",
        red,
        10_001
    ));
}

/// A tenant's creation is taken back, and its name given to another one: whom the former was shared with hears nothing of that.
#[test]
fn the_next_tenant_of_a_name_is_shared_with_nobody() {
    let mut domain = growth::Domain::new();
    domain.router(1, crate::model::Role::Edge);
    let made = domain.tenant("red").unwrap();
    let peers = json!({ "peers": [
        { "name": "p", "address": "198.51.100.1", "asn": 65001, "tenants": ["red"] },
    ] });
    let change: RouterChange = serde_json::from_value(peers).unwrap();
    let shared = domain
        .change(|transaction| operations::change_router(transaction, "a1", &change))
        .unwrap();
    let mut undo = Undo::default();
    undo.add(made);
    undo.add(shared);
    domain
        .change(|transaction| operations::roll_back(transaction, &undo))
        .unwrap();
    domain.tenant("red").unwrap();
    let router = domain.state.router("router/a1").unwrap();
    assert_eq!(router.peers[0].tenants, Vec::<String>::new());
}
