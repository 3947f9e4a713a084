//! Keys of sessions: whom they are told, when both ends use them, and who never sees them.

use super::*;
use crate::proto::SessionKey;

/// A router that signs its sessions.
fn signing(folder: &Path, number: u8) -> Follower {
    let membership = Membership::load(folder).unwrap().unwrap();
    Follower::start_as(membership, number, None, true)
}

async fn joined(controller: &Running, scratch: &Scratch, name: &str, number: u8) -> Follower {
    let folder = scratch.path(name);
    controller.join(name, "router", &folder).await.unwrap();
    signing(&folder, number)
}

fn key(view: &View, other: &str) -> Option<SessionKey> {
    match view.get(&format!("key/{other}"))?.item.as_ref()? {
        Item::SessionKey(key) => Some(key.clone()),
        other => panic!("{other:?}"),
    }
}

/// The session with another router is signed, and no other key is about to come.
fn settled(other: &str) -> impl Fn(&View) -> bool + '_ {
    move |view| key(view, other).is_some_and(|key| !key.key.is_empty() && key.next.is_empty())
}

/// Both follow until they sign with one key, other than the former; gives it.
async fn agreed(a: (&str, &mut Follower), b: (&str, &mut Follower), former: &[u8]) -> Vec<u8> {
    let end = Instant::now() + Duration::from_secs(30);
    loop {
        for one in [&mut *a.1, &mut *b.1] {
            one.step(Duration::from_millis(20)).await;
        }
        let keys = [key(&a.1.view, b.0), key(&b.1.view, a.0)];
        if let [Some(one), Some(other)] = &keys
            && one.key == other.key
            && !one.key.is_empty()
            && one.key != former
            && one.next.is_empty()
            && other.next.is_empty()
        {
            return one.key.clone();
        }
        assert!(Instant::now() < end, "{} and {}", a.0, b.0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_pair_has_a_key_that_is_replaced_when_both_hold_the_next_and_nobody_else_sees_it() {
    let scratch = Scratch::new();
    let controller = Running::new(&scratch, 30).await;
    let mut a1 = joined(&controller, &scratch, "a1", 1).await;
    a1.until("its settings", has("settings")).await;
    let mut a2 = joined(&controller, &scratch, "a2", 2).await;
    let mut a3 = joined(&controller, &scratch, "a3", 3).await;
    // A router that has just joined signs from its first segment on: the key comes with the neighbour.
    a2.until("a1", has("neighbor/a1")).await;
    assert!(settled("a1")(&a2.view));
    let first = agreed(("a1", &mut a1), ("a2", &mut a2), b"").await;
    let third = agreed(("a1", &mut a1), ("a3", &mut a3), b"").await;
    a2.until("a3", settled("a3")).await;
    assert_ne!(first, third);
    assert_ne!(key(&a2.view, "a3").unwrap().key, third);
    assert_eq!(first.len(), 64);

    // Another one is made, and a1 holds it; a2 has not said so: neither is told to use it, however long that takes.
    controller
        .ask(Method::POST, "session-keys/replace", Value::Null)
        .await
        .unwrap();
    let next = |view: &View| key(view, "a2").is_some_and(|key| !key.next.is_empty());
    a1.until("the next key", next).await;
    agreed(("a1", &mut a1), ("a3", &mut a3), &third).await;
    assert_eq!(key(&a1.view, "a2").unwrap().key, first);
    let waits = controller.get("session-keys").await;
    let pair = waits["keys"][0].clone();
    assert_eq!(pair["routers"], json!(["a1", "a2"]), "{waits}");
    assert_eq!(
        (&pair["signed"], &pair["waits_for"]),
        (&json!(true), &json!(["a2"]))
    );
    let second = agreed(("a1", &mut a1), ("a2", &mut a2), &first).await;

    // No answer of the controller has one of them, and none of the history.
    for path in ["session-keys", "status", "routers", "revisions", "domain"] {
        let told = controller.get(path).await.to_string();
        for secret in [&first, &second, &third] {
            let secret = std::str::from_utf8(secret).unwrap();
            assert!(!told.contains(secret), "{path}");
        }
    }
}

/// A router that is upgraded while its sessions stand: both hold the key before either signs. One that goes back is not signed with.
#[tokio::test(flavor = "multi_thread")]
async fn who_knows_no_keys_is_named_and_gets_one_when_it_does() {
    let scratch = Scratch::new();
    let mut controller = Running::new(&scratch, 30).await;
    let mut new = joined(&controller, &scratch, "new", 1).await;
    let mut old = controller.router(&scratch, "old", "router", 2).await;
    old.until("the other", has("neighbor/new")).await;
    assert_eq!(old.keys(), ["neighbor/new", "settings"]);
    let unsigned = |view: &View| key(view, "old").is_some_and(|key| !key.unsigned.is_empty());
    new.until("that the other does not sign", unsigned).await;
    let said = key(&new.view, "old").unwrap();
    assert!(
        said.unsigned.contains("`old`") && said.key.is_empty(),
        "{said:?}"
    );
    let status = controller.get("status").await;
    assert!(
        status["warnings"][0].as_str().unwrap().contains("old"),
        "{status}"
    );

    // It comes back, as a later version. Whatever is lost in between, neither signs before both hold the key.
    drop(old);
    let mut old = signing(&scratch.path("old"), 2);
    let held = |view: &View| key(view, "new").is_some_and(|key| !key.next.is_empty());
    old.until("the first key", held).await;
    assert!(key(&old.view, "new").unwrap().key.is_empty());
    controller.kill().await;
    controller.start().await;
    let first = agreed(("new", &mut new), ("old", &mut old), b"").await;

    // And as the earlier one again.
    drop(old);
    let mut old = Follower::start(&scratch.path("old"), 2);
    new.until("that it does not sign", unsigned).await;
    old.until("no key", lacks("key/new")).await;
    drop(old);

    // Installed anew, with a key of its own, and once more: what the former one knows is worth nothing.
    let mut former = first;
    for folder in ["anew", "once-more"] {
        let folder = scratch.path(folder);
        controller.join("old", "router", &folder).await.unwrap();
        // Before it says a word: nobody speaks with whoever has its address, and nobody with the former one.
        if key(&new.view, "old").is_some_and(|key| !key.key.is_empty()) {
            let another = |view: &View| {
                let told = key(view, "old").unwrap();
                assert!(!told.key.is_empty(), "never unsigned: {told:?}");
                told.key != former && told.next.is_empty()
            };
            new.until("another key", another).await;
        }
        let mut old = signing(&folder, 2);
        former = agreed(("new", &mut new), ("old", &mut old), &former).await;
    }
    controller
        .ask(Method::DELETE, "routers/old", Value::Null)
        .await
        .unwrap();
    new.until("no router, no key", |view| {
        lacks("neighbor/old")(view) && lacks("key/old")(view)
    })
    .await;
    assert_eq!(controller.get("session-keys").await["keys"], json!([]));
}

/// A domain with a session between each two routers has many keys. One that comes costs what its own sessions do.
#[test]
fn what_a_router_costs_grows_with_its_own_sessions_and_not_with_all_of_them() {
    use super::growth::Domain;
    use crate::model::{Record, Role, Router};
    use crate::session_keys::{AT_ONCE, Wanted, make, registered, wanting};
    use crate::state::visited;

    let mut domain = Domain::new();
    let put = |domain: &mut Domain, number: u8, fresh: bool| {
        domain.router(number, Role::Router);
        domain
            .change(|transaction| {
                let name = crate::model::key::router(&format!("a{number}"));
                let Some(Record::Router(router)) = transaction.get(&name) else {
                    panic!("{name}");
                };
                let mut router: Router = router.clone();
                router.registration.as_mut().unwrap().session_keys = true;
                if fresh {
                    registered(transaction, &router, true);
                }
                transaction.put(Record::Router(router));
                Ok(())
            })
            .unwrap();
    };
    for number in 1..=60 {
        put(&mut domain, number, true);
    }
    assert_eq!(domain.state.session_keys().count(), 60 * 59 / 2);
    put(&mut domain, 61, false);
    let one = Wanted {
        routers: ["a61".to_owned()].into(),
        ..Wanted::default()
    };
    let (pairs, looked) = visited::during(|| wanting(&domain.state, &one));
    assert_eq!(pairs.len(), 60);
    assert!(looked < 200, "{looked}");
    domain
        .change(|transaction| make(transaction, &pairs))
        .unwrap();
    assert_eq!(wanting(&domain.state, &one), [[""; 2]; 0]);

    // And where nobody says who lacks some, all are found, some at a time.
    put(&mut domain, 62, false);
    put(&mut domain, 63, false);
    let anywhere = Wanted {
        anywhere: true,
        ..Wanted::default()
    };
    let mut made = Vec::new();
    loop {
        let pairs = wanting(&domain.state, &anywhere);
        if pairs.is_empty() {
            break;
        }
        made.push(pairs.len());
        domain
            .change(|transaction| make(transaction, &pairs))
            .unwrap();
    }
    assert_eq!(made, [AT_ONCE, 123 - AT_ONCE]);
}
