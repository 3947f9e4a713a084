//! Two domains that tell each other what is public.

use super::*;

/// A domain of its own: `number` 1 is `a`, 2 is `b`, with their AS numbers, VNIs and addresses.
pub(super) struct Side {
    scratch: Scratch,
    pub(super) controller: Running,
    number: u8,
}

fn name(number: u8) -> &'static str {
    ["", "a", "b", "c"][usize::from(number)]
}

impl Side {
    pub(super) async fn new(number: u8) -> Self {
        Self::with(Scratch::new(), number, Vec::new()).await
    }

    async fn with(scratch: Scratch, number: u8, etcd: Vec<String>) -> Self {
        Self::resting(scratch, number, etcd, 3600).await
    }

    /// VNIs rest for so long, s.
    async fn resting(scratch: Scratch, number: u8, etcd: Vec<String>, quarantine: u32) -> Self {
        let first_vni = u32::from(number) * 10_000;
        let domain = Domain {
            name: name(number).into(),
            asn: 64600 + u32::from(number),
            first_vni,
            last_vni: first_vni + 9,
            quarantine,
            ..domain(1)
        };
        let controller = Running::of(&scratch, domain, etcd).await;
        Self {
            scratch,
            controller,
            number,
        }
    }

    pub(super) async fn introduction(&self) -> String {
        let said = self.controller.get("introduction").await;
        said["introduction"].as_str().unwrap().to_owned()
    }

    pub(super) async fn ask(
        &self,
        method: Method,
        path: &str,
        body: Value,
    ) -> Result<Value, String> {
        self.controller.ask(method, path, body).await
    }

    pub(super) async fn trust(&self, other: &Side) {
        let body = json!({ "introduction": other.introduction().await });
        self.ask(Method::POST, "domains", body).await.unwrap();
    }

    /// An edge with an address of the domain's.
    pub(super) async fn edge(&self, end: &str) -> Follower {
        let name = format!("{end}{}", name(self.number));
        let number = self.number * 10 + end.len() as u8;
        let edge = self.controller.router(&self.scratch, &name, "edge", number);
        edge.await
    }

    /// Waits until what is said of the other domain is as wanted.
    pub(super) async fn until(
        &self,
        other: &Side,
        what: &str,
        wanted: impl Fn(&Value) -> bool,
    ) -> Value {
        let path = format!("domains/{}", name(other.number));
        self.until_at(&path, what, wanted).await
    }

    pub(super) async fn until_at(
        &self,
        path: &str,
        what: &str,
        wanted: impl Fn(&Value) -> bool,
    ) -> Value {
        let end = Instant::now() + Duration::from_secs(30);
        loop {
            let said = self.controller.get(path).await;
            if wanted(&said) {
                return said;
            }
            assert!(Instant::now() < end, "{what}: {said}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    pub(super) async fn current(&self, other: &Side) {
        let current = |each: &Value| each["exchange"] == "current";
        self.until(other, "the other domain is heard", current)
            .await;
    }

    pub(super) async fn items(&self, path: &str) -> Vec<Value> {
        let said = self.controller.get(path).await;
        said["items"].as_array().unwrap().clone()
    }
}

fn accepted(view: &View, key: &str) -> Vec<u32> {
    match view.contains_key(key) {
        true => neighbor(view, key).accept_vnis.clone(),
        false => vec![0],
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_domains_that_trust_each_other_share_a_tenant_and_pair_their_edges() {
    let (a, b) = (Side::new(1).await, Side::new(2).await);
    let (mut ea, mut eb) = (a.edge("e").await, b.edge("e").await);
    for tenant in ["red", "blue"] {
        let body = json!({ "name": tenant });
        a.ask(Method::POST, "tenants", body).await.unwrap();
    }
    a.trust(&b).await;
    b.trust(&a).await;
    a.current(&b).await;
    b.current(&a).await;
    // The edges are told of each other, and speak from the addresses that they are told of; nothing is shared yet.
    ea.until("eb", has("peer/b/eb")).await;
    eb.until("ea", has("peer/a/ea")).await;
    let peer = neighbor(&ea.view, "peer/b/eb").clone();
    assert_eq!((peer.asn, peer.ttl, peer.external), (64602, 1, true));
    assert_eq!(
        (&*peer.address, &*peer.local_address),
        ("192.0.2.21", "192.0.2.11")
    );
    assert!(peer.accept_vnis.is_empty());
    // What is not shared is not to be had, and is not known there.
    let red = json!({ "name": "rot", "home": "a", "home_name": "red" });
    let refused = b.ask(Method::POST, "tenants", red.clone()).await;
    let refused = refused.unwrap_err();
    assert!(
        refused.contains("`a` does not share tenant `red`"),
        "{refused}"
    );
    let by_number = json!({ "name": "rot", "home": "a", "vni": 10_000 });
    let refused = b.ask(Method::POST, "tenants", by_number).await.unwrap_err();
    assert!(
        refused.contains("`a` does not share VNI 10000"),
        "{refused}"
    );
    // With one decision the VNI is looked up, and labels of it are taken on both sides.
    a.ask(Method::PUT, "domains/b/shared/red", Value::Null)
        .await
        .unwrap();
    let one = |each: &Value| each["tenants"] == 1;
    b.until(&a, "the tenant is offered", one).await;
    let made = b.ask(Method::POST, "tenants", red).await.unwrap();
    assert_eq!(made["vni"], 10_000, "{made}");
    ea.until("the VNI", |view| accepted(view, "peer/b/eb") == [10_000])
        .await;
    eb.until("the VNI", |view| accepted(view, "peer/a/ea") == [10_000])
        .await;
    // A tenant that is not shared is nowhere in the other domain.
    assert_eq!(b.items("domains/a/tenants").await.len(), 1);
    let history = b.controller.get("revisions").await.to_string();
    assert!(
        history.contains("10000") && !history.contains("blue") && !history.contains("10001"),
        "{history}"
    );
    // Each is the authority for its own: nobody changes the other's.
    for (method, path, word) in [
        (Method::PUT, "domains/a/routers/ea", "is not a path"),
        (Method::DELETE, "domains/a/routers", "does not take DELETE"),
        (Method::POST, "domains/a/tenants", "does not take POST"),
        (Method::PATCH, "routers/ea", "there is no router `ea`"),
        (Method::DELETE, "tenants/red", "there is no tenant `red`"),
    ] {
        let refused = b.ask(method, path, json!({})).await.unwrap_err();
        assert!(refused.contains(word), "{path}: {refused}");
    }
    // What is shared is taken back before it is removed; then no label of it is taken, here or there.
    let refused = a.ask(Method::DELETE, "tenants/red", Value::Null).await;
    assert!(refused.unwrap_err().contains("shared with domain `b`"));
    a.ask(Method::DELETE, "domains/b/shared/red", Value::Null)
        .await
        .unwrap();
    ea.until("no VNI", |view| accepted(view, "peer/b/eb").is_empty())
        .await;
    eb.until("no VNI", |view| accepted(view, "peer/a/ea").is_empty())
        .await;
    // An address of its own for other domains, hops, and pairs: each side may choose.
    let moved = json!({ "external_address": "198.51.100.1" });
    a.ask(Method::PATCH, "routers/ea", moved).await.unwrap();
    eb.until("the address", |view| {
        neighbor(view, "peer/a/ea").address == "198.51.100.1"
    })
    .await;
    ea.until("the source", |view| {
        neighbor(view, "peer/b/eb").local_address == "198.51.100.1"
    })
    .await;
    let pairs = json!({ "ttl": 3, "pairs": [{ "edge": "ea", "peer": "another" }] });
    a.ask(Method::PATCH, "domains/b", pairs).await.unwrap();
    ea.until("no pair", lacks("peer/b/eb")).await;
    eb.until("no pair", lacks("peer/a/ea")).await;
    let pairs = json!({ "pairs": [{ "edge": "ea", "peer": "eb" }] });
    a.ask(Method::PATCH, "domains/b", pairs).await.unwrap();
    ea.until("the pair", has("peer/b/eb")).await;
    eb.until("the pair", has("peer/a/ea")).await;
    assert_eq!(neighbor(&ea.view, "peer/b/eb").ttl, 3);
    // An edge that is removed there is gone here; the other one stays.
    a.ask(Method::PATCH, "domains/b", json!({ "pairs": [] }))
        .await
        .unwrap();
    let mut other = b.edge("ee").await;
    other.until("ea", has("peer/a/ea")).await;
    ea.until("both", has("peer/b/eeb")).await;
    b.ask(Method::DELETE, "routers/eb", Value::Null)
        .await
        .unwrap();
    ea.until("eb is gone", lacks("peer/b/eb")).await;
    assert!(has("peer/b/eeb")(&ea.view));
    // Trust that is taken back ends it at once, on both sides: what came is gone, and there it is stale, with the reason.
    a.ask(Method::DELETE, "domains/b", Value::Null)
        .await
        .unwrap();
    ea.until("nobody of b", lacks("peer/b/eeb")).await;
    let gone = a.ask(Method::GET, "domains/b/routers", Value::Null).await;
    assert!(gone.unwrap_err().contains("no other domain `b`"));
    let stale = b.until(&a, "stale", |each| each["stale"] == true).await;
    assert!(
        stale.to_string().contains("`a` does not trust domain `b`"),
        "{stale}"
    );
    assert!(has("peer/a/ea")(&other.view), "nothing is closed there");
}

#[tokio::test(flavor = "multi_thread")]
async fn one_decision_is_none_and_both_sides_are_told_why() {
    let (a, b) = (Side::new(1).await, Side::new(2).await);
    let mut ea = a.edge("e").await;
    let _eb = b.edge("e").await;
    a.trust(&b).await;
    let refused = a
        .until(&b, "a reason", |each| each["error"] != Value::Null)
        .await;
    assert_eq!(refused["exchange"], "waiting", "{refused}");
    let why = "domain `b` does not trust domain `a`";
    assert!(refused.to_string().contains(why), "{refused}");
    // There it is seen who asks, with the authority to compare.
    let asked = b
        .until_at("domains", "who asks", |each| {
            each["asking"][0]["name"] == "a"
        })
        .await;
    let introduction = a.introduction().await;
    let fingerprint = asked["asking"][0]["fingerprint"].as_str().unwrap();
    assert!(
        introduction.ends_with(fingerprint),
        "{asked} {introduction}"
    );
    assert_eq!(asked["items"], json!([]), "{asked}");
    ea.until("itself", has("settings")).await;
    assert!(lacks("peer/b/eb")(&ea.view));
    // With a wrong authority, as when somebody stands between: not followed, and not answered.
    let wrong = introduction.replace(fingerprint, &"0".repeat(64));
    let body = json!({ "introduction": wrong });
    b.ask(Method::POST, "domains", body).await.unwrap();
    let told = b
        .until(&a, "a reason", |each| each["error"] != Value::Null)
        .await;
    assert!(
        told.to_string()
            .contains("its authority is `weft domain a`"),
        "{told}"
    );
    let why = "domain `b` trusts another domain `a`";
    let told = a
        .until(&b, "the reason", |each| each.to_string().contains(why))
        .await;
    assert_eq!(told["exchange"], "waiting", "{told}");
    // Another one is another decision.
    let right = json!({ "introduction": introduction });
    let refused = b.ask(Method::PATCH, "domains/a", right.clone()).await;
    assert!(refused.unwrap_err().contains("remove `a` first"));
    let refused = b.ask(Method::POST, "domains", right.clone()).await;
    assert!(refused.unwrap_err().contains("trusted already"));
    b.ask(Method::DELETE, "domains/a", Value::Null)
        .await
        .unwrap();
    b.ask(Method::POST, "domains", right).await.unwrap();
    a.current(&b).await;
    b.current(&a).await;
    assert_eq!(b.controller.get("domains").await["asking"], json!([]));
    ea.until("eb", has("peer/b/eb")).await;
    // One's own introduction, and what is none.
    let own = json!({ "introduction": b.introduction().await });
    let refused = b.ask(Method::POST, "domains", own).await.unwrap_err();
    assert!(refused.contains("is this domain"), "{refused}");
    let none = json!({ "introduction": "b.example" });
    let refused = b.ask(Method::POST, "domains", none).await.unwrap_err();
    assert!(refused.contains("introduces no domain"), "{refused}");
    // Operators decide: a tenant's administrator sees nothing of it.
    b.ask(Method::POST, "tenants", json!({ "name": "red" }))
        .await
        .unwrap();
    let red = json!({ "kind": "tenant", "tenant": "red" });
    let red = b.controller.rest(&b.controller.token(red).await);
    for (method, path) in [
        (Method::GET, "domains"),
        (Method::PUT, "domains/a/shared/red"),
    ] {
        let refused = red.ask(method, path, None).await.unwrap_err();
        assert!(refused.to_string().contains("operator's"), "{refused}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_domain_that_goes_away_is_stale_and_not_forgotten() {
    let (a, mut b) = (Side::new(1).await, Side::new(2).await);
    let mut ea = a.edge("e").await;
    let eb = b.edge("e").await;
    a.ask(Method::POST, "tenants", json!({ "name": "red" }))
        .await
        .unwrap();
    a.trust(&b).await;
    b.trust(&a).await;
    ea.until("eb", has("peer/b/eb")).await;
    a.ask(Method::PUT, "domains/b/shared/red", Value::Null)
        .await
        .unwrap();
    ea.until("the VNI", |view| accepted(view, "peer/b/eb") == [10_000])
        .await;
    let before = a.items("domains/b/routers").await;
    drop(eb);
    b.controller.kill().await;
    let stale = a.until(&b, "stale", |each| each["stale"] == true).await;
    assert!(
        stale["error"] != Value::Null && stale["last_heard"] != Value::Null,
        "{stale}"
    );
    assert_eq!(a.items("domains/b/routers").await, before);
    let status = a.controller.get("status").await;
    assert_eq!(status["domains"][0]["stale"], true, "{status}");
    // A session with its edge stands as it did, and one that comes up without its controller may.
    ea.quiet().await;
    assert_eq!(accepted(&ea.view, "peer/b/eb"), [10_000]);
    let revision = a.controller.get("status").await["revision"]
        .as_u64()
        .unwrap();
    // It is back, and with it what has changed: that alone.
    b.controller.start().await;
    a.until(&b, "not stale", |each| {
        each["exchange"] == "current" && each["error"] == Value::Null
    })
    .await;
    let history = a.items("revisions?limit=100").await;
    let since = history
        .iter()
        .filter(|each| each["number"].as_u64() > Some(revision));
    let changes: Vec<&Value> = since
        .flat_map(|each| each["changes"].as_array().unwrap())
        .filter(|each| each["key"] != "remote/b")
        .collect();
    // Its edge is away for its lease by now, which is all that is new: who knows it keeps it.
    for change in &changes {
        assert_eq!(change["key"], "remote-router/b/eb", "{changes:?}");
        assert_eq!(
            change["new"]["remote-router"]["expired"], true,
            "{changes:?}"
        );
    }
    assert!(has("peer/b/eb")(&ea.view), "a live session is cut");
    b.ask(Method::POST, "tenants", json!({ "name": "green" }))
        .await
        .unwrap();
    b.ask(Method::PUT, "domains/a/shared/green", Value::Null)
        .await
        .unwrap();
    a.until(&b, "the tenant", |each| each["tenants"] == 1).await;
    // The one that restarts knows who was heard, too.
    assert_eq!(b.items("domains/a/routers").await.len(), 1);
    b.current(&a).await;
}

/// What is said late, twice, or without sense.
#[tokio::test(flavor = "multi_thread")]
async fn what_another_domain_says_is_read_whole_and_never_goes_back() {
    use crate::exchange::operations::{self, Heard, NewTrust};
    use crate::exchange::public::{self, PublicView};
    use crate::proto::{PublicDomain, PublicItem, PublicRouter, PublicTenant, public_item::Item};
    let scratch = Scratch::new();
    let store = crate::store::Redb::open(&scratch.path("domain.redb")).unwrap();
    let database = crate::database::Database::start(store).await.unwrap();
    let own = domain(30);
    let fingerprint = "0".repeat(64);
    let new = NewTrust {
        introduction: format!("weft://b@10.0.0.2/{fingerprint}"),
        ttl: None,
        pairs: None,
    };
    let create = own.clone();
    let trust = database.change("test", "trust", move |transaction| {
        crate::operations::create_domain(transaction, &create)?;
        operations::trust(transaction, &new)
    });
    trust.await.unwrap();
    let item = |item| PublicItem { item: Some(item) };
    let of_domain = |asn, administrator| {
        item(Item::Domain(PublicDomain {
            name: "b".into(),
            asn,
            global_administrator: administrator,
            origins: false,
        }))
    };
    let router = |address: &str| {
        item(Item::Router(PublicRouter {
            name: "eb".into(),
            asn: 64602,
            router_id: "192.0.2.2".into(),
            bgp_address: address.into(),
            endpoint: "192.0.2.2".into(),
            ..PublicRouter::default()
        }))
    };
    let tenant = |vni| {
        item(Item::Tenant(PublicTenant {
            name: "green".into(),
            vni,
            home: "b".into(),
            id: String::new(),
        }))
    };
    let good = [
        ("domain", of_domain(64602, 64512)),
        ("router/eb", router("192.0.2.2")),
        ("tenant/green", tenant(20_000)),
    ];
    let good: PublicView = good.map(|(key, item)| (key.to_owned(), item)).into();
    let said = public::read(&own, "b", &good).unwrap();
    for (key, wrong, word) in [
        (
            "domain",
            of_domain(64601, 64512),
            "AS 64601 is no other domain's",
        ),
        ("domain", of_domain(64602, 1), "Global Administrator 1"),
        ("domain", tenant(20_000), "does not say who it is"),
    ] {
        let mut view = good.clone();
        view.insert(key.to_owned(), wrong);
        let error = public::read(&own, "b", &view).unwrap_err();
        assert!(error.contains(word), "{error}");
    }
    // A record that makes no sense costs that record.
    for (key, wrong, word) in [
        (
            "router/eb",
            router("here"),
            "BGP address `here` is no address",
        ),
        ("router/eb", router("0.0.0.0"), "a unicast address"),
        ("tenant/green", tenant(0), "0 is no VNI"),
    ] {
        let mut view = good.clone();
        view.insert(key.to_owned(), wrong);
        let said = public::read(&own, "b", &view).unwrap();
        assert_eq!(said.refused.len(), 1, "{said:?}");
        assert!(said.refused[0].contains(word), "{said:?}");
        assert_eq!(said.routers.len() + said.tenants.len(), 1, "{said:?}");
    }
    let error = public::read(&own, "c", &good).unwrap_err();
    assert!(error.contains("this is domain `b`, not `c`"), "{error}");
    let heard = |revision, follower: &str, said: &public::Said, fingerprint: &str| {
        let heard = Heard {
            domain: "b".into(),
            fingerprint: fingerprint.into(),
            revision,
            said: said.clone(),
            follower: follower.into(),
        };
        database.change("domain b", "hear", move |transaction| {
            operations::take_in(transaction, &heard)
        })
    };
    let (_, first) = heard(7, "one", &said, &fingerprint).await.unwrap();
    // The same once more is nothing; from another one of ours it is that one's name.
    assert_eq!(heard(8, "one", &said, &fingerprint).await.unwrap().1, first);
    let (_, second) = heard(8, "two", &said, &fingerprint).await.unwrap();
    let history = database
        .history(crate::store::Span::Before(u64::MAX), 1)
        .await
        .unwrap();
    assert_eq!((second, history[0].changes.len()), (first + 1, 1));
    // What was heard before that is not taken any more, and neither is what another authority says.
    let late = heard(7, "one", &said, &fingerprint).await.unwrap_err();
    assert!(
        late.to_string().contains("revision 7, and 8 was heard"),
        "{late}"
    );
    let other = heard(9, "one", &said, &"1".repeat(64)).await.unwrap_err();
    assert!(other.to_string().contains("trusted no more"), "{other}");
    assert_eq!(database.state().revision, second);
}

/// Two controllers of a domain, one datastore: both hear the other domain, what is heard is written once, and when one goes nothing
/// is stale.
#[tokio::test(flavor = "multi_thread")]
async fn controllers_of_one_domain_hear_together() {
    let scratch = Scratch::new();
    let Some(cluster) = super::store::Cluster::start(&scratch, 1) else {
        return;
    };
    let members = cluster.endpoints.clone();
    let mut a = Side::with(scratch, 1, members.clone()).await;
    let b = Side::new(2).await;
    let second = Running::beside(&a.scratch, members).await;
    let _eb = b.edge("e").await;
    a.trust(&b).await;
    let first = a.controller.address.to_string();
    let both = format!("{first},{}", second.address);
    let introduction = a.introduction().await.replace(&first, &both);
    let body = json!({ "introduction": introduction });
    b.ask(Method::POST, "domains", body).await.unwrap();
    a.until(&b, "both hear", |each| each["followers"] == 2)
        .await;
    a.until(&b, "its edge", |each| each["routers"] == 1).await;
    for number in 0..5 {
        let tenant = format!("t{number}");
        b.ask(Method::POST, "tenants", json!({ "name": tenant }))
            .await
            .unwrap();
        let path = format!("domains/a/shared/{tenant}");
        b.ask(Method::PUT, &path, Value::Null).await.unwrap();
    }
    a.until(&b, "its tenants", |each| each["tenants"] == 5)
        .await;
    // Written once: no tenant was put twice.
    let history = a.items("revisions?limit=100").await;
    let changes = history
        .iter()
        .flat_map(|each| each["changes"].as_array().unwrap());
    let tenants =
        changes.filter(|each| each["key"].as_str().unwrap().starts_with("remote-tenant/"));
    assert_eq!(tenants.count(), 5, "{history:?}");
    a.controller.kill().await;
    a.controller = second;
    let one = a
        .until(&b, "one hears", |each| each["followers"] == 1)
        .await;
    let held = (&one["stale"], &one["tenants"]);
    assert_eq!(held, (&json!(false), &json!(5)), "{one}");
    // And the other domain hears the one that is left.
    let heard = |each: &Value| each["exchange"] == "current" && each["error"] == Value::Null;
    b.until(&a, "the second is heard", heard).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_of_another_domain_is_had_by_its_name_and_its_label_is_let_through() {
    let (a, b) = (Side::new(1).await, Side::new(2).await);
    let (mut ea, mut eb) = (a.edge("e").await, b.edge("e").await);
    a.ask(Method::POST, "tenants", json!({ "name": "red" }))
        .await
        .unwrap();
    a.trust(&b).await;
    b.trust(&a).await;
    a.current(&b).await;
    b.current(&a).await;
    a.ask(Method::PUT, "domains/b/shared/red", Value::Null)
        .await
        .unwrap();
    b.until_at("domains/a/tenants", "red is shared", |each| {
        each["items"] != json!([])
    })
    .await;
    let red = json!({ "name": "red", "home": "a" });
    b.ask(Method::POST, "tenants", red).await.unwrap();
    let firewall =
        json!({ "attachments": [{ "router": "eb", "interface": "fw0", "node": ["169.254.1.2"] }] });
    let made = b.ask(Method::PUT, "tenants/red/services/firewall", firewall);
    assert_eq!(made.await.unwrap()["label"], 20_000);
    // As long as the tenant is not shared back, its services are nobody's business.
    let by_name = json!({ "home": "b" });
    let path = "tenants/red/services/firewall";
    let refused = a.ask(Method::PUT, path, by_name.clone()).await.unwrap_err();
    assert!(
        refused.contains("offers no service `firewall`"),
        "{refused}"
    );
    b.ask(Method::PUT, "domains/a/shared/red", Value::Null)
        .await
        .unwrap();
    let end = Instant::now() + Duration::from_secs(30);
    let had = loop {
        match a.ask(Method::PUT, path, by_name.clone()).await {
            Ok(had) => break had,
            Err(error) => assert!(Instant::now() < end, "{error}"),
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    assert_eq!((&had["label"], &had["home"]), (&json!(20_000), &json!("b")));
    a.ask(
        Method::PUT,
        "tenants/red/chains/web",
        json!({ "services": ["firewall"] }),
    )
    .await
    .unwrap();
    // The edges let both the tenant's VNI and the service's label through.
    let both = vec![10_000, 20_000];
    ea.until("both at ea", |view| accepted(view, "peer/b/eb") == both)
        .await;
    eb.until("both at eb", |view| accepted(view, "peer/a/ea") == both)
        .await;
    // It passes packets on to the nearest, and has to know no more; where both directions meet one node it has to choose as others do.
    assert!(!ea.view.contains_key("tenant/red"));
    let symmetric = json!({
        "match": { "source": ["10.0.1.0/24"] }, "services": ["firewall"], "symmetric": true,
    });
    a.ask(Method::PUT, "tenants/red/chains/web", symmetric)
        .await
        .unwrap();
    ea.until("the chain at ea", |view| view.contains_key("tenant/red"))
        .await;
    let Some(Item::Tenant(told)) = &ea.view["tenant/red"].item else {
        panic!("{:?}", ea.view);
    };
    assert!(told.chains[0].symmetric && told.interfaces.is_empty());
    assert_eq!(told.services[0].label, 20_000);
    a.ask(Method::DELETE, "domains/b", Value::Null)
        .await
        .unwrap();
    ea.until("nothing of it", |view| !view.contains_key("tenant/red"))
        .await;
}

/// Its home gives a VNI to another tenant: the one that had it before is not stitched to that one, and the operator is told.
#[tokio::test(flavor = "multi_thread")]
async fn a_tenant_is_what_its_home_says_and_not_who_has_its_number() {
    let a = Side::new(1).await;
    let b = Side::resting(Scratch::new(), 2, Vec::new(), 0).await;
    let (mut ea, _eb) = (a.edge("e").await, b.edge("e").await);
    a.trust(&b).await;
    b.trust(&a).await;
    a.current(&b).await;
    b.current(&a).await;
    let make = async |tenant: &str| {
        let body = json!({ "name": tenant, "vni": 20_005 });
        b.ask(Method::POST, "tenants", body).await.unwrap();
        let path = format!("domains/a/shared/{tenant}");
        b.ask(Method::PUT, &path, Value::Null).await.unwrap();
        let shared = |each: &Value| each["items"][0]["name"] == tenant;
        a.until_at("domains/b/tenants", tenant, shared).await;
    };
    make("green").await;
    let green = json!({ "name": "green", "home": "b" });
    let taken = a.ask(Method::POST, "tenants", green).await.unwrap();
    assert_eq!(taken["vni"], 20_005, "{taken}");
    let stitched = |view: &View| accepted(view, "peer/b/eb") == [20_005];
    ea.until("green", stitched).await;
    for path in ["domains/a/shared/green", "tenants/green"] {
        b.ask(Method::DELETE, path, Value::Null).await.unwrap();
    }
    make("purple").await;
    ea.until("nobody", |view| accepted(view, "peer/b/eb").is_empty())
        .await;
    let told = |each: &Value| {
        let warnings = each["warnings"].as_array().unwrap().iter();
        warnings
            .filter_map(Value::as_str)
            .any(|each| each.contains("`green`") && each.contains("`purple`'s now"))
    };
    a.until_at("status", "the operator is told", told).await;
    // Made anew it is that one.
    a.ask(Method::DELETE, "tenants/green", Value::Null)
        .await
        .unwrap();
    let purple = json!({ "name": "purple", "home": "b" });
    a.ask(Method::POST, "tenants", purple).await.unwrap();
    ea.until("purple", stitched).await;
}
