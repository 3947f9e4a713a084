//! What a change costs does not grow with what the domain holds: counted in records that are looked at, and in octets that are kept.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use super::*;
use crate::chains::operations::{NewChain, NewService, put_chain, put_service};
use crate::database::{Rejection, Transaction};
use crate::exchange::operations as exchange;
use crate::model::{
    Record, Registration, Remote, RemoteOrigins, RemoteRouter, RemoteTenant, Revision, Role,
    Router, Share, State, Trust, key,
};
use crate::operations::{self, NewAttachment, NewTenant, RouterChange};
use crate::proto::Update;
use crate::state::visited;
use crate::view::{Affected, Common, Reader, digest, digests, update, view};

/// A domain that is changed without a datastore.
pub(crate) struct Domain {
    pub(crate) state: State,
}

type Done<T> = Result<T, Rejection>;

impl Domain {
    pub(crate) fn new() -> Self {
        let mut domain = Self {
            state: State::default(),
        };
        let own = crate::model::Domain {
            last_vni: 900_000,
            ..super::domain(30)
        };
        domain
            .change(|transaction| operations::create_domain(transaction, &own))
            .unwrap();
        domain
    }

    /// Does a change; gives the revision that it is.
    pub(crate) fn change<T>(
        &mut self,
        operation: impl FnOnce(&mut Transaction<'_>) -> Done<T>,
    ) -> Done<Revision> {
        let before = self.state.clone();
        let mut transaction = Transaction::new(&before);
        operation(&mut transaction)?;
        let revision = Revision {
            number: before.revision + 1,
            at: 0,
            actor: "test".into(),
            operation: "test".into(),
            changes: transaction.changes(),
        };
        self.state.apply(&revision);
        Ok(revision)
    }

    pub(crate) fn router(&mut self, number: u8, role: Role) {
        let name = format!("a{number}");
        let address = Ipv4Addr::new(192, 0, 2, number);
        self.change(|transaction| {
            transaction.put(Record::Router(router(&name, role, address)));
            Ok(())
        })
        .unwrap();
    }

    pub(crate) fn tenant(&mut self, name: &str) -> Done<Revision> {
        let new = NewTenant {
            name: name.into(),
            description: None,
            vni: None,
            home: None,
            home_name: None,
        };
        self.change(|transaction| operations::create_tenant(transaction, &new))
    }

    pub(crate) fn attach(&mut self, tenant: &str, router: &str, interface: &str) -> Done<Revision> {
        let new = NewAttachment {
            interfaces: vec![interface.into()],
            ..NewAttachment::default()
        };
        self.change(|transaction| {
            operations::put_attachment(transaction, tenant, router, &new, true)
        })
    }

    pub(crate) fn service(&mut self, tenant: &str, name: &str, at: Option<&str>) -> Done<Revision> {
        let node = at.map(|router| {
            json!({ "router": router, "interface": format!("{tenant}{name}"), "node": ["169.254.1.2"] })
        });
        let nodes: Vec<Value> = node.into_iter().collect();
        let new: NewService = serde_json::from_value(json!({ "attachments": nodes })).unwrap();
        self.change(|transaction| put_service(transaction, tenant, name, &new, true))
    }

    pub(crate) fn chain(
        &mut self,
        tenant: &str,
        name: &str,
        port: u16,
        services: &[&str],
    ) -> Done<Revision> {
        let matches = json!({ "protocol": "tcp", "destination_ports": [port] });
        let new = json!({ "match": matches, "services": services });
        let new: NewChain = serde_json::from_value(new).unwrap();
        self.change(|transaction| put_chain(transaction, tenant, name, &new))
    }
}

fn router(name: &str, role: Role, address: Ipv4Addr) -> Router {
    Router {
        name: name.into(),
        role,
        key: "key".into(),
        registration: Some(registration(address)),
        controller: None,
        expired: false,
        peers: Vec::new(),
        external_address: None,
        claim: None,
        reserved: BTreeMap::new(),
    }
}

fn registration(address: Ipv4Addr) -> Registration {
    Registration {
        router_id: address,
        bgp_address: address.into(),
        endpoint: address.into(),
        encapsulations: vec!["vxlan".into()],
        capacity: 0,
        generation: 1,
        version: String::new(),
        instance: String::new(),
        session_keys: false,
    }
}

/// A router that checks who announces labels.
pub(crate) fn reader(name: &str) -> Reader<'_> {
    Reader {
        name,
        origins: true,
        session_keys: false,
    }
}

/// Tenants at eight routers, each with a service and a chain there; a ninth has none.
fn filled(tenants: usize) -> Domain {
    let mut domain = Domain::new();
    domain.router(1, Role::Reflector);
    for number in 2..=9 {
        domain.router(number, Role::Router);
    }
    for number in 0..tenants {
        let name = format!("t{number}");
        domain.tenant(&name).unwrap();
        for router in 1..=8 {
            domain
                .attach(&name, &format!("a{router}"), &format!("i{number}"))
                .unwrap();
        }
        domain.service(&name, "fw", Some("a1")).unwrap();
        domain.chain(&name, "web", 80, &["fw"]).unwrap();
    }
    domain
}

/// A router takes in what it is told; whether that is anything.
fn take_in(held: &mut BTreeMap<String, u64>, update: &Update) -> bool {
    for (key, item) in &update.put {
        held.insert(key.clone(), digest(item));
    }
    held.retain(|key, _| !update.removed.contains(key));
    !update.put.is_empty() || !update.removed.is_empty()
}

/// Records that each kind of change looks at, with what its routers are told.
fn looked_at(tenants: usize) -> BTreeMap<&'static str, u64> {
    let mut domain = filled(tenants);
    let mut held: BTreeMap<String, BTreeMap<String, u64>> = BTreeMap::new();
    for number in 1..=9 {
        let name = format!("a{number}");
        let (reader, common) = (reader(&name), &mut Common::default());
        let view = view(&domain.state, reader, &|_| false, common).unwrap();
        held.insert(name, digests(&view));
    }
    let mut all = BTreeMap::new();
    let mut count = |what, change: &mut dyn FnMut(&mut Domain) -> Done<Revision>| {
        let (told, looked) = visited::during(|| {
            let revision = change(&mut domain).unwrap();
            let affected = Affected::by(&[revision], &domain.state);
            let mut common = Common::default();
            let told = held.iter_mut().filter_map(|(name, held)| {
                let (items, reader) = (affected.items(name)?, reader(name));
                let update = update(&domain.state, reader, held, &items, &mut common)?;
                take_in(held, &update).then_some(())
            });
            told.count()
        });
        all.insert(what, looked);
        told
    };
    assert_eq!(
        count("attach", &mut |domain| domain.attach("t7", "a3", "x0")),
        1
    );
    assert_eq!(
        count("create tenant", &mut |domain| domain.tenant("new")),
        0
    );
    assert_eq!(
        count("attach it", &mut |domain| domain.attach("new", "a2", "x1")),
        1
    );
    assert_eq!(
        count("service", &mut |domain| domain.service(
            "t7",
            "ids",
            Some("a4")
        )),
        8
    );
    assert_eq!(
        count("chain", &mut |domain| domain.chain(
            "t7",
            "web",
            81,
            &["fw", "ids"]
        )),
        8
    );
    assert_eq!(
        count("share", &mut |domain| domain.change(|transaction| {
            transaction.put(Record::Share(Share {
                domain: "b".into(),
                tenant: "t7".into(),
            }));
            Ok(())
        })),
        0
    );
    assert_eq!(
        count("register", &mut |domain| domain.change(|transaction| {
            let moved = registration(Ipv4Addr::new(192, 0, 2, 99));
            operations::register(transaction, "a9", "key", &moved, "here", true)
        })),
        2
    );
    assert_eq!(
        count("detach", &mut |domain| domain.change(|transaction| {
            operations::delete_attachment(transaction, "t9", "a3")
        })),
        8,
        "labels of it may not lead there any more"
    );
    assert_eq!(
        count("delete tenant", &mut |domain| domain.change(
            |transaction| { operations::delete_tenant(transaction, "t8") }
        )),
        8
    );
    all
}

#[test]
fn a_change_looks_at_as_many_records_in_a_large_domain_as_in_a_small_one() {
    let (small, large) = (looked_at(20), looked_at(640));
    for (what, few) in &small {
        let many = large[what];
        assert!(many <= few + few / 10 + 2, "{what}: {few}, then {many}");
    }
}

/// The records as they are, put together anew.
fn rebuilt(state: &State) -> State {
    State::new(state.revision, state.below("").map(|(_, one)| one.clone()))
}

struct Random(u64);

impl Random {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        (self.0 >> 33) % end
    }
}

/// Something that may happen to a domain; what makes no sense is refused.
fn happen(domain: &mut Domain, random: &mut Random) -> Option<Revision> {
    let tenant = format!("t{}", random.below(4));
    let number = 1 + random.below(6) as u8;
    let router_name = format!("a{number}");
    let service = format!("s{}", random.below(3));
    let put = |record: Record| {
        move |transaction: &mut Transaction<'_>| {
            transaction.put(record);
            Ok(())
        }
    };
    let roles = [Role::Router, Role::Edge, Role::Reflector];
    let role = roles[random.below(3) as usize];
    let done = match random.below(21) {
        0 => domain.tenant(&tenant),
        1 => domain.change(|transaction| operations::delete_tenant(transaction, &tenant)),
        2 | 3 => domain.attach(&tenant, &router_name, &tenant),
        4 => domain.change(|transaction| {
            operations::delete_attachment(transaction, &tenant, &router_name)
        }),
        5 => domain.service(&tenant, &service, Some(&router_name)),
        6 => domain.service(&tenant, &service, None),
        7 | 8 => {
            let port = 1 + random.below(3) as u16;
            let name = format!("c{}", random.below(3));
            domain.chain(&tenant, &name, port, &[service.as_str()])
        }
        9 => {
            let change = RouterChange {
                role: Some(role),
                peers: None,
                external_address: None,
            };
            domain.change(|transaction| {
                operations::change_router(transaction, &router_name, &change).map(drop)
            })
        }
        10 => {
            let peers = json!([{ "name": "p", "address": "198.51.100.1", "asn": 65001, "tenants": [tenant] }]);
            let change: RouterChange =
                serde_json::from_value(json!({ "role": "edge", "peers": peers })).unwrap();
            domain.change(|transaction| {
                operations::change_router(transaction, &router_name, &change).map(drop)
            })
        }
        11 => {
            let address = Ipv4Addr::new(192, 0, 2, number + 10 * random.below(2) as u8);
            let own = router(&router_name, role, address);
            domain.change(put(Record::Router(own)))
        }
        12 => domain.change(|transaction| operations::delete_router(transaction, &router_name)),
        13 => domain.change(put(Record::Trust(Trust {
            name: "b".into(),
            controllers: Vec::new(),
            fingerprint: String::new(),
            ttl: 1,
            pairs: Vec::new(),
        }))),
        14 => domain.change(put(Record::RemoteRouter(RemoteRouter {
            domain: "b".into(),
            name: "eb".into(),
            asn: 64602,
            router_id: Ipv4Addr::new(198, 51, 100, number),
            bgp_address: Ipv4Addr::new(198, 51, 100, number).into(),
            endpoint: Ipv4Addr::new(198, 51, 100, number).into(),
            encapsulations: Vec::new(),
            capacity: 0,
            expired: false,
            peers: Vec::new(),
        }))),
        15 => domain.change(|transaction| exchange::share(transaction, "b", &tenant).map(drop)),
        16 => domain.change(|transaction| exchange::unshare(transaction, "b", &tenant)),
        17 => domain.change(|transaction| exchange::distrust(transaction, "b")),
        18 => domain.change(put(Record::Remote(Remote {
            name: "b".into(),
            asn: 64602,
            revision: 1,
            heard: 0,
            followers: Default::default(),
            origins: random.below(2) == 0,
        }))),
        19 => domain.change(put(Record::RemoteOrigins(RemoteOrigins {
            domain: "b".into(),
            vni: 10_000 + random.below(4) as u32,
            path: vec!["b".into()],
            addresses: vec![Ipv4Addr::new(198, 51, 100, number)],
            ids: Vec::new(),
            open: random.below(2) == 0,
        }))),
        _ => domain.change(put(Record::RemoteTenant(RemoteTenant {
            domain: "b".into(),
            name: "far".into(),
            vni: 20_000,
            home: "b".into(),
            id: Some(format!("id{}", random.below(2))),
        }))),
    };
    done.ok()
}

/// Routers that are told by item hold what they would be told anew, and indexes are those of the records, whatever happens.
#[test]
fn what_is_told_by_item_and_looked_up_by_index_is_what_there_is() {
    for seed in 1..=40 {
        let mut domain = Domain::new();
        let mut random = Random(seed);
        let mut held: BTreeMap<String, BTreeMap<String, u64>> = BTreeMap::new();
        for _ in 0..150 {
            let Some(revision) = happen(&mut domain, &mut random) else {
                continue;
            };
            let state = &domain.state;
            assert_eq!(*state, rebuilt(state), "seed {seed}: {revision:?}");
            let affected = Affected::by(std::slice::from_ref(&revision), state);
            let mut common = Common::default();
            for router in state.routers() {
                let own = held.entry(router.name.clone()).or_default();
                let reader = reader(&router.name);
                if let Some(items) = affected.items(&router.name)
                    && let Some(update) = update(state, reader, own, &items, &mut common)
                {
                    take_in(own, &update);
                }
                let whole = view(state, reader, &|key| own.contains_key(key), &mut common);
                let whole = whole.map(|view| digests(&view)).unwrap_or_default();
                assert_eq!(
                    *own, whole,
                    "seed {seed}: {} after {revision:?}",
                    router.name
                );
            }
            held.retain(|name, _| state.router(&key::router(name)).is_some());
        }
    }
}

/// The lowest number that nobody had is given, then the one that has rested longest, and what a rollback takes back is not lost.
#[test]
fn vnis_are_given_in_order() {
    let mut domain = Domain::new();
    for number in 0..5 {
        domain.tenant(&format!("t{number}")).unwrap();
        let tenant = domain.state.tenant(&key::tenant(&format!("t{number}")));
        assert_eq!(tenant.unwrap().vni, 10_000 + number);
    }
    assert_eq!(domain.state.unused_vni(), 10_005);
    domain
        .change(|transaction| {
            transaction.delete(&key::vni(10_002));
            Ok(())
        })
        .unwrap();
    assert_eq!(domain.state.unused_vni(), 10_002);
    domain
        .change(|transaction| operations::delete_tenant(transaction, "t2"))
        .unwrap();
    assert_eq!(domain.state.unused_vni(), 10_005, "it rests");
}
