//! Joining, registering, following.

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn a_token_makes_a_router_and_the_roles_decide_the_mesh() {
    let scratch = Scratch::new();
    let controller = Running::new(&scratch, 30).await;
    let mut a1 = controller.router(&scratch, "a1", "router", 1).await;
    a1.until("its settings", has("settings")).await;
    let mut a2 = controller.router(&scratch, "a2", "router", 2).await;
    // Without a reflector everybody speaks with everybody.
    a1.until("a2", has("neighbor/a2")).await;
    a2.until("a1", has("neighbor/a1")).await;
    assert_eq!(neighbor(&a2.view, "neighbor/a1").address, "192.0.2.1");
    // With one, routers speak with it alone, and it reflects for them; a second one it speaks with, and does not reflect for.
    let mut r1 = controller.router(&scratch, "r1", "reflector", 11).await;
    r1.until("its clients", |view| {
        has("neighbor/a1")(view) && has("neighbor/a2")(view)
    })
    .await;
    a1.until("the reflector alone", |view| {
        has("neighbor/r1")(view) && lacks("neighbor/a2")(view)
    })
    .await;
    let mut r2 = controller.router(&scratch, "r2", "reflector", 12).await;
    r2.until("the other", has("neighbor/r1")).await;
    r1.until("the other", has("neighbor/r2")).await;
    a1.until("both", has("neighbor/r2")).await;
    assert!(neighbor(&r1.view, "neighbor/a1").route_reflector_client);
    assert!(!neighbor(&r1.view, "neighbor/r2").route_reflector_client);
    assert!(!neighbor(&a1.view, "neighbor/r1").route_reflector_client);
    // An edge is told of another domain's router, and takes the labels of the tenants that are shared with it.
    let mut e1 = controller.router(&scratch, "e1", "edge", 21).await;
    controller
        .ask(Method::POST, "tenants", json!({ "name": "red" }))
        .await
        .unwrap();
    let peer = json!({ "name": "b", "address": "198.51.100.2", "asn": 64602, "tenants": ["red"] });
    controller
        .ask(Method::PATCH, "routers/e1", json!({ "peers": [peer] }))
        .await
        .unwrap();
    e1.until("the peer", has("peer/b")).await;
    assert_eq!(neighbor(&e1.view, "peer/b").accept_vnis, [10_000]);
    // Who runs what is known.
    let lag = |status: &Value| {
        let routers = status["routers"].as_array().unwrap().clone();
        routers.iter().filter(|one| one["lags"] == true).count()
    };
    let end = Instant::now() + Duration::from_secs(10);
    loop {
        for router in [&mut a1, &mut a2, &mut r1, &mut r2, &mut e1] {
            router.step(Duration::from_millis(20)).await;
        }
        if lag(&controller.get("status").await) == 0 {
            break;
        }
        assert!(Instant::now() < end, "{}", controller.get("status").await);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_joins_without_a_good_token_and_nothing_is_told_without_a_certificate() {
    let scratch = Scratch::new();
    let controller = Running::new(&scratch, 30).await;
    let refused = |result: Result<Membership, ClientError>| result.unwrap_err().to_string();
    let address = controller.address.to_string();
    let good = controller.join_token("router").await;
    let join = |token: &TokenText, name: &'static str| {
        let (token, folder, address) = (token.clone(), scratch.path(name), address.clone());
        async move { Membership::join(&address, &token, name, &folder).await }
    };
    // No certificate: nothing but joining.
    let fingerprint = crate::tls::Trust::Fingerprint(good.fingerprint.clone());
    let tls = crate::tls::client(&fingerprint, None).unwrap();
    let channel = crate::client::connect(&address, tls).await.unwrap();
    let mut stranger = crate::proto::discovery_client::DiscoveryClient::new(channel);
    let refusal = stranger.attach(tokio_stream::empty()).await.unwrap_err();
    assert_eq!(refusal.code(), tonic::Code::Unauthenticated, "{refusal}");
    // Another authority's fingerprint: this is not the controller that the token is for.
    let mut forged = good.clone();
    forged.fingerprint = "0".repeat(64);
    assert!(refused(join(&forged, "a1").await).contains("its authority is `weft domain lab`"));
    let mut guessed = good.clone();
    guessed.secret = "0".repeat(48);
    assert!(refused(join(&guessed, "a1").await).contains("not known here"));
    let nameless = crate::proto::JoinRequest {
        token_id: good.id.clone(),
        secret: good.secret.clone(),
        name: "no name".into(),
        certificate_request: crate::pki::request(None).unwrap().1,
    };
    let refusal = stranger.join(nameless).await.unwrap_err();
    assert!(refusal.message().contains("expected a name of letters"));
    // It does not even get so far, and leaves nothing on the way.
    let outside = scratch.path("outside");
    let joined = Membership::join(&address, &good, "../outside", &outside).await;
    assert!(joined.is_err() && !outside.exists());
    // One use, one name, one lifetime.
    let scope = json!({ "kind": "join", "role": "router", "name": "a1" });
    let body = json!({ "scope": scope, "uses": 1 });
    let once = controller.ask(Method::POST, "tokens", body).await.unwrap();
    let once: TokenText = once["token"].as_str().unwrap().parse().unwrap();
    assert!(refused(join(&once, "a2").await).contains("another router"));
    join(&once, "a1").await.unwrap();
    // The same router again, which may not have heard the answer; and somebody else, who has found the token.
    join(&once, "a1").await.unwrap();
    std::fs::remove_dir_all(scratch.path("a1")).unwrap();
    assert!(refused(join(&once, "a1").await).contains("used up"));
    let body = json!({ "scope": { "kind": "join", "role": "router" }, "ttl": 0 });
    let over = controller.ask(Method::POST, "tokens", body).await.unwrap();
    let over: TokenText = over["token"].as_str().unwrap().parse().unwrap();
    assert!(refused(join(&over, "a3").await).contains("expired"));
    // An operator's token is no join token, and the other way round.
    let operator = std::fs::read_to_string(controller.folder.operator()).unwrap();
    assert!(refused(join(&operator.parse().unwrap(), "a3").await).contains("no join token"));
    let answer = controller
        .rest(&good.to_string())
        .ask(Method::GET, "routers", None)
        .await;
    assert!(answer.unwrap_err().to_string().contains("join token"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_controller_that_comes_back_says_only_what_is_new() {
    let scratch = Scratch::new();
    let mut controller = Running::new(&scratch, 30).await;
    let mut a1 = controller.router(&scratch, "a1", "router", 1).await;
    let mut a2 = controller.router(&scratch, "a2", "router", 2).await;
    a1.until("a2", has("neighbor/a2")).await;
    a2.until("a1", has("neighbor/a1")).await;
    // The last thing that each said is kept.
    let kept = |name: &str| {
        Membership::load(&scratch.path(name))
            .unwrap()
            .unwrap()
            .last_view()
    };
    let end = Instant::now() + Duration::from_secs(5);
    while kept("a1").is_none_or(|(_, view)| view != a1.view) {
        assert!(Instant::now() < end);
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    controller.kill().await;
    // Away: a router that starts has what it knew, and nobody is told anything.
    drop(a1);
    let mut a1 = Follower::start(&scratch.path("a1"), 1);
    assert!(has("neighbor/a2")(&a1.view));
    a1.quiet().await;
    controller.start().await;
    // Back: an update comes that puts and removes nothing that the router holds.
    let before = (a1.view.clone(), a2.view.clone());
    controller
        .ask(Method::POST, "tenants", json!({ "name": "red" }))
        .await
        .unwrap();
    let attachment = json!({ "interfaces": ["red0"], "prefixes": ["10.0.1.0/24"] });
    controller
        .ask(Method::PUT, "tenants/red/attachments/a1", attachment)
        .await
        .unwrap();
    a1.until("the tenant", has("tenant/red")).await;
    for key in ["tenant/red", "origins/red"] {
        a1.view.remove(key).unwrap();
    }
    assert_eq!(a1.view, before.0);
    a2.step(Duration::from_secs(20)).await;
    assert_eq!(a2.view, before.1);
    // Of two that claim one name the later start is right: the generation says which.
    let router = controller.get("routers/a1").await;
    assert_eq!(router["registration"]["generation"], 2, "{router}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lease_that_runs_out_cuts_nothing_and_a_removal_does() {
    let scratch = Scratch::new();
    let controller = Running::new(&scratch, 1).await;
    let mut a1 = controller.router(&scratch, "a1", "router", 1).await;
    let mut a2 = controller.router(&scratch, "a2", "router", 2).await;
    a1.until("a2", has("neighbor/a2")).await;
    a2.until("a1", has("neighbor/a1")).await;
    drop(a2);
    let end = Instant::now() + Duration::from_secs(10);
    while controller.get("routers/a2").await["expired"] != true {
        assert!(Instant::now() < end, "the lease does not run out");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    // Who knows it keeps it, and who comes does not discover it.
    let mut a3 = controller.router(&scratch, "a3", "router", 3).await;
    a3.until("a1", has("neighbor/a1")).await;
    assert_eq!(a3.keys(), ["neighbor/a1", "settings"]);
    a1.until("a3", has("neighbor/a3")).await;
    assert!(has("neighbor/a2")(&a1.view), "a live session is cut");
    // It comes back.
    let mut a2 = Follower::start(&scratch.path("a2"), 2);
    a3.until("a2", has("neighbor/a2")).await;
    a2.until("a3", has("neighbor/a3")).await;
    // Removed: everybody ends the session, and its certificate is good for nothing.
    controller
        .ask(Method::DELETE, "routers/a2", Value::Null)
        .await
        .unwrap();
    a1.until("a2 is gone", lacks("neighbor/a2")).await;
    a3.until("a2 is gone", lacks("neighbor/a2")).await;
    a2.quiet().await;
    assert!(
        controller
            .ask(Method::GET, "routers/a2", Value::Null)
            .await
            .is_err()
    );
    // With a new token it is in again, with another key.
    std::fs::remove_dir_all(scratch.path("a2")).unwrap();
    let mut a2 = controller.router(&scratch, "a2", "router", 2).await;
    a2.until("a1", has("neighbor/a1")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn routers_are_asked_how_they_do_and_who_is_silent_is_named() {
    let scratch = Scratch::new();
    let controller = Running::new(&scratch, 30).await;
    let mut a1 = controller.router(&scratch, "a1", "router", 1).await;
    let a2 = controller.router(&scratch, "a2", "router", 2).await;
    a1.until("a2", has("neighbor/a2")).await;
    controller
        .ask(Method::POST, "tenants", json!({ "name": "red" }))
        .await
        .unwrap();
    for router in ["a1", "a2"] {
        let path = format!("tenants/red/attachments/{router}");
        controller.ask(Method::PUT, &path, json!({})).await.unwrap();
    }
    // Both are attached, one of them answers.
    let answering =
        tokio::spawn(async move { while a1.step(Duration::from_secs(20)).await.is_some() {} });
    let answer = controller.get("performance?tenant=red").await;
    assert_eq!(answer["partial"], true, "{answer}");
    assert_eq!(answer["missing"], json!(["a2"]), "{answer}");
    assert_eq!(
        answer["routers"],
        json!({ "a1": { "tenant": "red" } }),
        "{answer}"
    );
    let answer = controller.get("performance?router=a1").await;
    assert_eq!(
        (&answer["partial"], &answer["missing"]),
        (&json!(false), &json!([]))
    );
    answering.abort();
    drop(a2);
}

#[tokio::test(flavor = "multi_thread")]
async fn addresses_are_unique_and_the_later_start_is_right() {
    let scratch = Scratch::new();
    let controller = Running::new(&scratch, 30).await;
    let mut a1 = controller.router(&scratch, "a1", "router", 1).await;
    a1.until("settings", has("settings")).await;
    let mut clash = controller.router(&scratch, "a2", "router", 1).await;
    clash.quiet().await;
    assert_eq!(
        controller.get("routers/a2").await["registration"],
        Value::Null
    );
    // An old copy of a1's folder, started beside it: its generation is not later, and a1 stays.
    let copy = scratch.path("copy");
    std::fs::create_dir_all(&copy).unwrap();
    for entry in std::fs::read_dir(scratch.path("a1")).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), copy.join(entry.file_name())).unwrap();
    }
    std::fs::write(copy.join("generation"), "0").unwrap();
    drop(a1);
    let mut a1 = Follower::start(&scratch.path("a1"), 1);
    a1.step(Duration::from_secs(10)).await;
    let mut old = Follower::start(&copy, 9);
    old.quiet().await;
    let router = controller.get("routers/a1").await;
    assert_eq!(router["registration"]["generation"], 2, "{router}");
    assert_eq!(router["registration"]["endpoint"], "192.0.2.1", "{router}");
}

/// Certificates of three seconds: they are renewed under the stream, which stays; and a router whose certificate ended while the
/// controller was away comes back by itself.
#[tokio::test(flavor = "multi_thread")]
async fn certificates_are_renewed_under_live_streams_and_after_their_end() {
    let scratch = Scratch::new();
    let short = Domain {
        certificate: 3,
        ..domain(30)
    };
    let mut controller = Running::of(&scratch, short, Vec::new()).await;
    let mut a1 = controller.router(&scratch, "a1", "router", 1).await;
    a1.until("settings", has("settings")).await;
    let certificate = || std::fs::read(scratch.path("a1/router.der")).unwrap();
    let first = certificate();
    let (_, ends) = crate::pki::validity_of(&first).unwrap();
    let over = |until: i64| crate::model::now() as i64 / 1000 > until;
    let end = Instant::now() + Duration::from_secs(20);
    while !over(ends) {
        assert!(Instant::now() < end);
        a1.step(Duration::from_millis(100)).await;
    }
    assert_ne!(certificate(), first, "not renewed");
    // It is the stream of the beginning: the generation's first attachment, which hears what changes.
    let revision = controller.get("status").await["revision"].as_u64().unwrap();
    controller.attach_new("red", "a1").await;
    a1.until("the tenant", has("tenant/red")).await;
    let history = controller.get("revisions").await;
    let registrations = history["items"].as_array().unwrap().iter();
    let registrations = registrations.filter(|one| one["operation"] == "router a1 registers");
    assert_eq!(registrations.count(), 1, "at {revision}: {history}");
    // Away until it is over.
    controller.kill().await;
    let (_, ends) = crate::pki::validity_of(&certificate()).unwrap();
    let end = Instant::now() + Duration::from_secs(20);
    while !over(ends + 1) {
        assert!(Instant::now() < end);
        a1.step(Duration::from_millis(100)).await;
    }
    controller.start().await;
    controller
        .ask(Method::DELETE, "tenants/red/attachments/a1", Value::Null)
        .await
        .unwrap();
    a1.until("the tenant is gone", lacks("tenant/red")).await;
}
