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
    let refused = domain.change(|transaction| put_service(transaction, "red", "fw", &new));
    let refused = refused.unwrap_err().to_string();
    assert!(refused.contains("offers no service `fw`"), "{refused}");
    say(&mut domain, "one");
    domain
        .change(|transaction| put_service(transaction, "red", "fw", &new))
        .unwrap();
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
