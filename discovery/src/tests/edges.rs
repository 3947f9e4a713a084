//! Who has an address: routers of the domain and edges of others do not take each other's.

use std::net::Ipv4Addr;

use super::growth::{Domain, reader};
use crate::exchange::operations::{Heard, take_in};
use crate::exchange::public::Said;
use crate::model::{Record, RemoteRouter, Role, Trust};
use crate::operations::register;
use crate::view::{Common, view};

fn address(last: u8) -> Ipv4Addr {
    Ipv4Addr::new(192, 0, 2, last)
}

/// A domain says that it has an edge of this name with this address; gives what is said of that.
fn says(domain: &mut Domain, who: &str, edge: &str, last: u8) -> Vec<String> {
    let edge = RemoteRouter {
        domain: who.into(),
        name: edge.into(),
        asn: 64602,
        router_id: address(last),
        bgp_address: address(last).into(),
        endpoint: address(last).into(),
        encapsulations: Vec::new(),
        capacity: 0,
        expired: false,
        peers: Vec::new(),
    };
    let heard = Heard {
        domain: who.into(),
        fingerprint: who.into(),
        revision: 1,
        said: Said {
            asn: 64602,
            routers: vec![edge],
            tenants: Vec::new(),
            services: Vec::new(),
            origins: Vec::new(),
            says_origins: true,
            refused: Vec::new(),
        },
        follower: "one".into(),
    };
    let mut clashes = Vec::new();
    domain
        .change(|transaction| {
            clashes = take_in(transaction, &heard)?;
            Ok(())
        })
        .unwrap();
    clashes
}

/// An edge that trusts `b` and `c`, and a router.
fn domain() -> Domain {
    let mut domain = Domain::new();
    domain.router(1, Role::Edge);
    domain.router(2, Role::Router);
    for name in ["b", "c"] {
        let trust = Record::Trust(Trust {
            name: name.into(),
            controllers: Vec::new(),
            fingerprint: name.into(),
            ttl: 1,
            pairs: Vec::new(),
        });
        let put = |transaction: &mut crate::database::Transaction<'_>| {
            transaction.put(trust);
            Ok(())
        };
        domain.change(put).unwrap();
    }
    domain
}

fn peers(domain: &Domain) -> Vec<String> {
    let mut common = Common::default();
    let view = view(&domain.state, reader("a1"), &|_| false, &mut common).unwrap();
    let keys = view.into_keys();
    keys.filter(|key| key.starts_with("peer/")).collect()
}

#[test]
fn a_router_does_not_take_the_address_of_another_domains_edge() {
    let mut domain = domain();
    assert_eq!(says(&mut domain, "b", "eb", 77), Vec::<String>::new());
    let mut wanted = domain
        .state
        .router("router/a2")
        .unwrap()
        .registration
        .clone()
        .unwrap();
    let own = wanted.clone();
    let again = |domain: &mut Domain, wanted: &crate::model::Registration| {
        domain.change(|transaction| register(transaction, "a2", "key", wanted, "one", true))
    };
    wanted.bgp_address = address(77).into();
    let refused = again(&mut domain, &wanted).unwrap_err().to_string();
    assert!(
        refused.contains("edge `eb` of domain `b` has the BGP address"),
        "{refused}"
    );
    assert_eq!(peers(&domain), ["peer/b/eb"]);
    // Nor does a domain keep a router of ours from coming back.
    let clashes = says(&mut domain, "c", "ec", 2);
    assert!(
        clashes[0].contains("router `a2` of this domain has"),
        "{clashes:?}"
    );
    again(&mut domain, &own).unwrap();
    assert_eq!(peers(&domain), ["peer/b/eb"]);
}

/// `b` comes first by name, and `c` had the address: it keeps it, until it says to have another one.
#[test]
fn a_domain_does_not_take_the_address_of_anothers_edge() {
    let mut domain = domain();
    assert_eq!(says(&mut domain, "c", "ec", 77), Vec::<String>::new());
    for _ in 0..2 {
        let clashes = says(&mut domain, "b", "eb", 77);
        assert!(
            clashes[0].contains("edge `ec` of domain `c` had before"),
            "{clashes:?}"
        );
        assert_eq!(peers(&domain), ["peer/c/ec"]);
        assert_eq!(says(&mut domain, "c", "ec", 77), Vec::<String>::new());
    }
    says(&mut domain, "c", "ec", 78);
    assert_eq!(says(&mut domain, "b", "eb", 77), Vec::<String>::new());
    assert_eq!(peers(&domain), ["peer/b/eb", "peer/c/ec"]);
}
