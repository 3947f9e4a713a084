//! Where labels may lead to, as a domain tells it to its routers and to other domains.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use prost::Message as _;

use super::growth::{Domain, reader};
use super::*;
use crate::exchange::operations as exchange;
use crate::exchange::public::{self, PublicView};
use crate::model::{
    Attachment, Record, Remote, RemoteOrigins, RemoteRouter, Role, Share, Tenant, key,
};
use crate::operations::{self, RouterChange};
use crate::proto::{Far, Hosts, PublicOrigins, public_item};
use crate::view::{Common, Reader, view};

/// What a router is told of a tenant of the domain, and of it beyond.
fn told(domain: &Domain, router: &str, tenant: &str) -> (Vec<Hosts>, Option<Vec<Far>>) {
    let mut common = Common::default();
    let view = view(&domain.state, reader(router), &|_| false, &mut common).unwrap();
    let item = |kind: &str| view.get(&format!("{kind}/{tenant}"))?.item.clone();
    let near = match item("origins") {
        Some(Item::Origins(one)) => one.hosts,
        _ => Vec::new(),
    };
    let far = match item("beyond") {
        Some(Item::Beyond(one)) => Some(one.far),
        _ => None,
    };
    (near, far)
}

fn hosts(vni: u32, last: &[u8]) -> Hosts {
    Hosts {
        vni,
        addresses: last.iter().map(|last| number(*last)).collect(),
        others: Vec::new(),
    }
}

fn number(last: u8) -> u32 {
    Ipv4Addr::new(192, 0, 2, last).into()
}

fn put(domain: &mut Domain, record: Record) {
    let put = |transaction: &mut crate::database::Transaction<'_>| {
        transaction.put(record);
        Ok(())
    };
    domain.change(put).unwrap();
}

/// Router 1 has the tenant, 2 a node of its service, 3 is an edge, 4 has nothing.
fn domain() -> Domain {
    let mut domain = Domain::new();
    for (number, role) in [
        (1, Role::Router),
        (2, Role::Router),
        (3, Role::Edge),
        (4, Role::Router),
    ] {
        domain.router(number, role);
    }
    domain.tenant("red").unwrap();
    domain.attach("red", "a1", "red0").unwrap();
    domain.service("red", "fw", Some("a2")).unwrap();
    domain
}

/// The operator trusts another domain, which has an edge, and says where labels lead to.
fn trust(domain: &mut Domain, name: &str, says: bool) {
    let fingerprint = name.to_owned();
    let trust = json!({ "name": name, "controllers": [], "fingerprint": fingerprint, "ttl": 1 });
    put(
        domain,
        Record::Trust(serde_json::from_value(trust).unwrap()),
    );
    let remote = Remote {
        name: name.into(),
        asn: 64602,
        revision: 1,
        heard: 0,
        followers: Default::default(),
        origins: says,
    };
    put(domain, Record::Remote(remote));
    let address = Ipv4Addr::new(198, 51, 100, name.as_bytes()[0]);
    let edge = RemoteRouter {
        domain: name.into(),
        name: "edge".into(),
        asn: 64602,
        router_id: address,
        bgp_address: address.into(),
        endpoint: address.into(),
        encapsulations: Vec::new(),
        capacity: 0,
        expired: false,
        peers: Vec::new(),
    };
    put(domain, Record::RemoteRouter(edge));
}

fn says(domain: &mut Domain, who: &str, vni: u32, path: &[&str], last: u8) {
    let said = RemoteOrigins {
        domain: who.into(),
        vni,
        path: path.iter().map(ToString::to_string).collect(),
        addresses: vec![Ipv4Addr::new(192, 0, 2, last)],
        ids: Vec::new(),
        open: false,
    };
    put(domain, Record::RemoteOrigins(said));
}

fn share(domain: &mut Domain, with: &str) {
    domain
        .change(|transaction| exchange::share(transaction, with, "red"))
        .unwrap();
}

/// What a domain is told of where labels lead to, by VNI and path.
fn public(domain: &Domain, to: &str) -> BTreeMap<(u32, String), PublicOrigins> {
    let view: PublicView = public::view(&domain.state, to);
    let origins = view.into_values().filter_map(|item| match item.item {
        Some(public_item::Item::Origins(one)) => Some(((one.vni, one.path.join(" ")), one)),
        _ => None,
    });
    origins.collect()
}

#[test]
fn routers_are_told_who_hosts_what_they_have_a_table_for() {
    let domain = domain();
    let expected = vec![hosts(10_000, &[1]), hosts(10_001, &[2])];
    for router in ["a1", "a2"] {
        assert_eq!(told(&domain, router, "red"), (expected.clone(), None));
    }
    for router in ["a3", "a4"] {
        assert_eq!(told(&domain, router, "red"), (Vec::new(), None));
    }
    // One of an earlier version is told nothing that it does not know.
    let earlier = Reader {
        session_keys: false,
        name: "a1",
        origins: false,
    };
    let view = view(&domain.state, earlier, &|_| false, &mut Common::default()).unwrap();
    assert!(!view.contains_key("origins/red"), "{view:?}");
    assert!(matches!(&view["settings"].item, Some(Item::Settings(one)) if !one.origins));
}

#[test]
fn an_edge_is_told_who_is_beyond_and_is_a_way_there() {
    let mut domain = domain();
    trust(&mut domain, "b", true);
    says(&mut domain, "b", 10_000, &["b"], 101);
    // Of a tenant that is not shared with it, whatever it says.
    domain.tenant("blue").unwrap();
    domain.attach("blue", "a3", "blue0").unwrap();
    says(&mut domain, "b", 10_002, &["b"], 102);
    assert_eq!(told(&domain, "a1", "red").0[0], hosts(10_000, &[1]));
    share(&mut domain, "b");
    let near = vec![hosts(10_000, &[1, 3]), hosts(10_001, &[2, 3])];
    let far = |vni, last: &[u8], open| Far {
        vni,
        addresses: last.iter().map(|last| number(*last)).collect(),
        ids: Vec::new(),
        open,
    };
    let beyond = vec![far(10_000, &[101], false), far(10_001, &[], false)];
    assert_eq!(told(&domain, "a1", "red"), (near.clone(), None));
    assert_eq!(told(&domain, "a3", "red"), (near, Some(beyond)));
    let (own, _) = told(&domain, "a3", "blue");
    assert_eq!(own, [hosts(10_002, &[3])]);
    // Who does not say who it is may be anybody: an earlier version, and neighbours that were entered by hand.
    trust(&mut domain, "c", false);
    share(&mut domain, "c");
    let (_, beyond) = told(&domain, "a3", "red");
    assert_eq!(beyond.unwrap()[0], far(10_000, &[101], true));
    trust(&mut domain, "c", true);
    let change: RouterChange = serde_json::from_value(json!({
        "role": "edge",
        "peers": [{ "name": "p", "address": "203.0.113.1", "asn": 65001, "tenants": ["red"] }]
    }))
    .unwrap();
    let (_, beyond) = told(&domain, "a3", "red");
    assert!(!beyond.unwrap()[0].open);
    domain
        .change(|transaction| operations::change_router(transaction, "a4", &change))
        .unwrap();
    let (near, beyond) = told(&domain, "a4", "red");
    assert_eq!(near[0], hosts(10_000, &[1, 3, 4]));
    assert!(beyond.unwrap()[0].open);
}

/// The operator trusts a domain that is not there, or does not trust this one: that opens nothing, here or for others.
#[test]
fn a_domain_that_was_never_heard_opens_nothing() {
    let mut domain = domain();
    for name in ["b", "c"] {
        trust(&mut domain, name, true);
        share(&mut domain, name);
    }
    let never = |transaction: &mut crate::database::Transaction<'_>| {
        transaction.delete(&key::remote("c"));
        Ok(())
    };
    domain.change(never).unwrap();
    let (_, beyond) = told(&domain, "a3", "red");
    assert!(beyond.unwrap().iter().all(|far| !far.open));
    assert!(public(&domain, "b").values().all(|one| !one.open));
    // It is of an earlier version, as it turns out.
    trust(&mut domain, "c", false);
    let (_, beyond) = told(&domain, "a3", "red");
    assert!(beyond.unwrap().iter().all(|far| far.open));
    assert!(public(&domain, "b").values().all(|one| one.open));
}

#[test]
fn what_other_domains_say_is_said_on_and_never_in_circles() {
    let mut domain = domain();
    for name in ["b", "c", "d"] {
        trust(&mut domain, name, true);
        share(&mut domain, name);
    }
    says(&mut domain, "b", 10_000, &["b"], 101);
    // The same domain's by another way, which is longer; and what has come by c itself.
    says(&mut domain, "d", 10_000, &["b", "d"], 102);
    says(&mut domain, "d", 10_000, &["c", "d"], 103);
    let told = public(&domain, "c");
    let paths: Vec<&str> = told
        .keys()
        .filter(|(vni, _)| *vni == 10_000)
        .map(|(_, path)| path.as_str())
        .collect();
    assert_eq!(paths, ["b d lab", "b lab", "lab"]);
    let led_to = |vni, path: &str| &told[&(vni, path.to_owned())].addresses;
    assert_eq!(*led_to(10_000, "b lab"), [number(101)]);
    assert_eq!(*led_to(10_000, "lab"), [number(1), number(3)]);
    assert_eq!(*led_to(10_001, "lab"), [number(2), number(3)]);
    // Read at the other end, and what comes back from there is not taken.
    let own = domain.state.domain().unwrap().clone();
    let there = crate::model::Domain {
        name: "c".into(),
        asn: 64603,
        ..own.clone()
    };
    let said = public::read(&there, "lab", &public::view(&domain.state, "c")).unwrap();
    assert!(said.says_origins && said.origins.len() == 4 && said.refused.is_empty());
    let mut back = PublicView::new();
    let item = |item| crate::proto::PublicItem { item: Some(item) };
    let first = crate::proto::PublicDomain {
        name: "c".into(),
        asn: 64603,
        global_administrator: own.global_administrator,
        origins: true,
    };
    back.insert("domain".into(), item(public_item::Item::Domain(first)));
    for (at, path) in [("one", vec!["lab", "c"]), ("two", vec!["c", "x"])] {
        let origins = PublicOrigins {
            vni: 10_000,
            path: path.into_iter().map(str::to_owned).collect(),
            ..PublicOrigins::default()
        };
        back.insert(at.into(), item(public_item::Item::Origins(origins)));
    }
    let said = public::read(&own, "c", &back).unwrap();
    assert_eq!(said.origins, []);
    assert_eq!(said.refused.len(), 1, "what x is to have said: {said:?}");
    let endless = PublicOrigins {
        vni: 10_000,
        path: vec!["c".into()],
        addresses: (0..16_385).collect(),
        ..PublicOrigins::default()
    };
    back.insert("three".into(), item(public_item::Item::Origins(endless)));
    let said = public::read(&own, "c", &back).unwrap();
    assert_eq!(said.origins, []);
    assert!(
        said.refused
            .iter()
            .any(|one| one.starts_with("three: with it there are 16385 endpoints"))
    );
}

/// What a partner says of a third domain is told beside what others say of it, also where its way is as short or shorter.
#[test]
fn a_partner_takes_no_place_of_what_another_says_of_a_third_domain() {
    let mut domain = domain();
    for name in ["a", "b", "e"] {
        trust(&mut domain, name, true);
        share(&mut domain, name);
    }
    says(&mut domain, "b", 10_000, &["c", "x", "b"], 101);
    says(&mut domain, "a", 10_000, &["c", "a"], 66);
    for way in ["p", "q", "r", "s", "t"] {
        says(&mut domain, "a", 10_000, &["c", way, "a"], 66);
    }
    let told = public(&domain, "e");
    let led_to = |path: &str| {
        told.get(&(10_000, path.to_owned()))
            .map(|one| &one.addresses)
    };
    assert_eq!(led_to("c x b lab"), Some(&vec![number(101)]));
    assert_eq!(led_to("c a lab"), Some(&vec![number(66)]));
    let by_a = told.keys().filter(|(_, path)| path.ends_with("a lab"));
    assert_eq!(by_a.count(), 4, "the shortest");
    // Read there, and kept: one does not replace the other.
    let own = domain.state.domain().unwrap().clone();
    let there = crate::model::Domain {
        name: "e".into(),
        asn: 64605,
        ..own
    };
    let said = public::read(&there, "lab", &public::view(&domain.state, "e")).unwrap();
    let kept = said.origins.into_iter().filter(|one| one.vni == 10_000);
    let keys: std::collections::BTreeSet<String> =
        kept.map(|one| Record::RemoteOrigins(one).key()).collect();
    assert_eq!(keys.len(), 6, "{keys:?}");
}

/// A partner invents domains without end: our own word and another partner's are told, and are taken, all the same.
#[test]
fn invented_domains_take_nothing_away_from_others() {
    let mut domain = domain();
    for name in ["b", "c", "d"] {
        trust(&mut domain, name, true);
        share(&mut domain, name);
    }
    says(&mut domain, "d", 10_000, &["d"], 103);
    says(&mut domain, "d", 10_000, &["x", "y", "d"], 104);
    for number in 0..200 {
        says(
            &mut domain,
            "b",
            10_000,
            &[&format!("a{number:03}"), "b"],
            9,
        );
    }
    let told = public(&domain, "c");
    let red = told.keys().filter(|(vni, _)| *vni == 10_000);
    assert_eq!(red.count(), 64);
    for path in ["lab", "d lab", "x y d lab"] {
        assert!(told.contains_key(&(10_000, path.to_owned())), "{path}");
    }
    let (_, left_out) = public::told(&domain.state, "c");
    assert_eq!(left_out, 200 + 3 - 64);
    // And where a partner says that much, what it says of itself is what is taken, and the rest is named.
    let own = domain.state.domain().unwrap().clone();
    let said = read_words(&own, |view| {
        for number in 0..200u32 {
            word(
                view,
                &format!("a{number:03}"),
                10_000,
                &[&format!("a{number:03}"), "z"],
                1,
            );
        }
        word(view, "z", 10_000, &["z"], 2);
    });
    assert_eq!(said.origins.len(), 64);
    assert!(said.origins.iter().any(|one| one.path == ["z"]));
    assert_eq!(said.refused.len(), 200 + 1 - 64);
    assert!(
        said.refused[0].contains("domains that host one VNI"),
        "{}",
        said.refused[0]
    );
}

/// Our edges speak with each of them, so there are so many and no more.
#[test]
fn a_domain_has_so_many_edges_and_no_more() {
    let own = Domain::new().state.domain().unwrap().clone();
    let said = read_words(&own, |view| {
        for number in 0..200u8 {
            let address = format!("198.51.100.{number}");
            let router = crate::proto::PublicRouter {
                name: format!("e{number}"),
                asn: 64626,
                router_id: address.clone(),
                bgp_address: address.clone(),
                endpoint: address,
                encapsulations: vec!["vxlan".into()],
                ..crate::proto::PublicRouter::default()
            };
            let item = Some(public_item::Item::Router(router));
            view.insert(
                format!("router/{}", number),
                crate::proto::PublicItem { item },
            );
        }
    });
    assert_eq!((said.routers.len(), said.refused.len()), (128, 72));
    assert!(
        said.refused[0].contains("more than 128"),
        "{:?}",
        said.refused[0]
    );
}

/// Each word is within its bound, and all of them together are no more than a message carries.
#[test]
fn many_large_words_are_not_more_than_a_message() {
    let own = Domain::new().state.domain().unwrap().clone();
    let said = read_words(&own, |view| {
        for vni in 1..=600 {
            word(view, "z", vni, &["z"], 16_384);
        }
    });
    let taken: usize = said.origins.iter().map(|one| 4 * one.addresses.len()).sum();
    assert!(taken > 7 << 20 && taken <= 8 << 20, "{taken}");
    assert_eq!(said.origins.len() + said.refused.len(), 600);
    let said = read_words(&own, |view| {
        for number in 0..6 {
            let name = format!("a{number}");
            word(view, &name, 7, &[&name, "z"], 16_384);
        }
        word(view, "z", 7, &["z"], 1);
    });
    assert_eq!((said.origins.len(), said.refused.len()), (4, 3));
    // Long ways count as well.
    let name = "n".repeat(60);
    let mut way = vec![name.as_str(); 15];
    way.push("z");
    let said = read_words(&own, |view| {
        for vni in 1..=20_000 {
            word(view, "n", vni, &way, 1);
        }
    });
    assert!(said.origins.len() < 9_000, "{}", said.origins.len());
}

/// Reads what domain `z` says.
fn read_words(own: &crate::model::Domain, words: impl FnOnce(&mut PublicView)) -> public::Said {
    let mut view = PublicView::new();
    let first = crate::proto::PublicDomain {
        name: "z".into(),
        asn: 64626,
        global_administrator: own.global_administrator,
        origins: true,
    };
    let item = public_item::Item::Domain(first);
    view.insert(
        "domain".into(),
        crate::proto::PublicItem { item: Some(item) },
    );
    words(&mut view);
    public::read(own, "z", &view).unwrap()
}

fn word(view: &mut PublicView, origin: &str, vni: u32, path: &[&str], endpoints: u32) {
    let origins = PublicOrigins {
        vni,
        path: path.iter().map(ToString::to_string).collect(),
        addresses: (1..=endpoints).collect(),
        ..PublicOrigins::default()
    };
    let item = Some(public_item::Item::Origins(origins));
    view.insert(
        format!("origins/{vni}/{origin}"),
        crate::proto::PublicItem { item },
    );
}

/// 2,000 routers, 4,000 tenants at 20 of them each: a router has 40, an edge passes all of them on.
#[test]
fn what_a_router_is_told_is_bounded_by_what_it_has() {
    let mut domain = Domain::new();
    let name = |number: u32| format!("r{number}");
    domain.router(1, Role::Edge);
    let mut records = Vec::new();
    let first = domain.state.router(&key::router("a1")).unwrap().clone();
    for number in 0..2_000 {
        let mut router = first.clone();
        router.name = name(number);
        router.role = Role::Router;
        let own = router.registration.as_mut().unwrap();
        own.router_id = Ipv4Addr::from(0x0a00_0000 + number);
        own.endpoint = own.router_id.into();
        own.bgp_address = own.endpoint;
        records.push(Record::Router(router));
    }
    let whole = 3_999;
    for number in 0..4_000u32 {
        let tenant = format!("t{number}");
        records.push(Record::Tenant(Tenant {
            name: tenant.clone(),
            vni: 10_000 + number,
            home: None,
            id: None,
            description: None,
        }));
        records.push(Record::Share(Share {
            domain: "b".into(),
            tenant: tenant.clone(),
        }));
        let everywhere = number == whole;
        let at = (0..if everywhere { 2_000 } else { 20 }).map(|at| match everywhere {
            true => at,
            false => (number / 2 + at * 100) % 2_000,
        });
        records.extend(at.map(|router| {
            Record::Attachment(Attachment {
                tenant: tenant.clone(),
                router: name(router),
                interfaces: Vec::new(),
                prefixes: Vec::new(),
                redistribute: Vec::new(),
                neighbors: Vec::new(),
                breakout: None,
            })
        }));
    }
    trust(&mut domain, "b", true);
    let all = |transaction: &mut crate::database::Transaction<'_>| {
        for record in records {
            transaction.put(record);
        }
        Ok(())
    };
    domain.change(all).unwrap();
    let octets = |router: &str| {
        let mut common = Common::default();
        let view = view(&domain.state, reader(router), &|_| false, &mut common).unwrap();
        let said = view
            .iter()
            .filter(|(key, _)| key.starts_with("origins/") || key.starts_with("beyond/"));
        let said = said.map(|(key, item)| (key.as_str(), key.len() + item.encoded_len()));
        let said: BTreeMap<&str, usize> = said.collect();
        (
            said.values().sum::<usize>(),
            said.get("origins/t3999").copied().unwrap_or_default(),
        )
    };
    // 40 tenants at 20 routers each, and one everywhere: 4 octets a router, about 40 a tenant.
    let (router, largest) = octets("r7");
    let hosts = 40 * 21 + 2_001;
    assert!(
        (4 * hosts..4 * hosts + 41 * 40).contains(&router),
        "{router}"
    );
    assert!((8_004..8_040).contains(&largest), "{largest}");
    let (edge, _) = octets("a1");
    let hosts = 3_999 * 21 + 2_001;
    assert!(
        (4 * hosts..4 * hosts + 4_000 * 80).contains(&edge),
        "{edge}"
    );
}
