//! An attacker with the token of a tenant's administrator, who wants interfaces and addresses that are not the tenant's.

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn a_tenants_administrator_uses_what_was_granted_and_nothing_else() {
    let scratch = Scratch::new();
    let controller = Running::new(&scratch, 30).await;
    for name in ["a1", "a2"] {
        let folder = scratch.path(name);
        controller.join(name, "router", &folder).await.unwrap();
    }
    // Where a1 is: its tunnels end at 127.0.0.1 in these tests, so another one registers.
    let mut a3 = controller.router(&scratch, "a3", "router", 3).await;
    a3.until("settings", has("settings")).await;
    let endpoint = controller.get("routers/a3").await["registration"]["endpoint"].clone();
    let body = json!({ "name": "red" });
    controller.ask(Method::POST, "tenants", body).await.unwrap();
    let scope = json!({ "kind": "tenant", "tenant": "red" });
    let red = controller.rest(&controller.token(scope).await);
    let operator = async |path: &str, body: Value| {
        let path = format!("tenants/red/{path}");
        controller.ask(Method::PUT, &path, body).await
    };
    let node = |router: &str, interface: &str, address: &Value| {
        json!({ "attachments": [{
            "router": router, "interface": interface, "node": [address],
            "probe": { "kind": "http", "port": 80, "path": "/secret" },
        }] })
    };
    let two_arms = |inside: &str, outside: &str| {
        json!({ "attachments": [{
            "router": "a1", "interface": inside, "node": ["169.254.1.2"],
            "outside": { "interface": outside, "node": ["169.254.2.2"] },
        }] })
    };
    let near = json!("169.254.1.2");
    // An operator has nothing to grant for what it does itself; the administrator may change that, and not add to it.
    operator("attachments/a1", json!({ "interfaces": ["own0"] }))
        .await
        .unwrap();
    operator("grants/a1", json!({ "interfaces": ["red0", "fw0"] }))
        .await
        .unwrap();
    for (path, body, refused) in [
        (
            "attachments/a1",
            json!({ "interfaces": ["own0"], "prefixes": ["10.0.1.0/24"] }),
            None,
        ),
        (
            "attachments/a1",
            json!({ "interfaces": ["own0", "eth0"] }),
            Some("interface `eth0` of router `a1` is not granted"),
        ),
        (
            "attachments/a1",
            json!({ "interfaces": ["own0", "red0"] }),
            None,
        ),
        (
            "attachments/a2",
            json!({ "interfaces": ["red0"] }),
            Some("interface `red0` of router `a2` is not granted"),
        ),
        ("attachments/a2", json!({}), None),
        (
            "services/ids",
            node("a1", "eth0", &near),
            Some("interface `eth0` of router `a1` is not granted"),
        ),
        (
            "services/ids",
            node("a2", "fw0", &near),
            Some("interface `fw0` of router `a2` is not granted"),
        ),
        (
            "services/ids",
            two_arms("fw0", "eth0"),
            Some("interface `eth0` of router `a1` is not granted"),
        ),
        (
            "services/ids",
            node("a1", "fw0", &json!("127.0.0.1")),
            Some("127.0.0.1 is no service node"),
        ),
        (
            "services/ids",
            node("a1", "fw0", &json!("::ffff:127.0.0.1")),
            Some("is no service node"),
        ),
        (
            "services/ids",
            node("a1", "fw0", &endpoint),
            Some("it is a router's own address"),
        ),
        ("services/ids", node("a1", "fw0", &near), None),
        (
            "grants/a1",
            json!({ "interfaces": ["eth0"] }),
            Some("may not do that"),
        ),
    ] {
        let path = format!("tenants/red/{path}");
        let done = red.ask(Method::PUT, &path, Some(&body)).await;
        match (done, refused) {
            (Ok(_), None) => {}
            (Err(error), Some(word)) => {
                assert!(error.to_string().contains(word), "{path} {body}: {error}");
            }
            (done, _) => panic!("{path} {body}: {done:?}"),
        }
    }
    // Both see what is granted.
    let seen = red
        .ask(Method::GET, "tenants/red/grants", None)
        .await
        .unwrap();
    assert_eq!(seen, controller.get("tenants/red/grants").await);
    assert_eq!(seen["items"][0]["interfaces"], json!(["red0", "fw0"]));
    // What is taken back stays in use, and is not taken anew. With its tenant or its router a grant goes.
    let taken = controller.ask(Method::DELETE, "tenants/red/grants/a1", Value::Null);
    taken.await.unwrap();
    let there = json!({ "interfaces": ["own0", "red0"], "prefixes": ["10.0.2.0/24"] });
    red.ask(Method::PUT, "tenants/red/attachments/a1", Some(&there))
        .await
        .unwrap();
    red.ask(Method::DELETE, "tenants/red/services/ids", None)
        .await
        .unwrap();
    let anew = node("a1", "fw0", &near);
    let refused = red
        .ask(Method::PUT, "tenants/red/services/ids", Some(&anew))
        .await;
    assert!(refused.unwrap_err().to_string().contains("not granted"));
    for router in ["a1", "a2"] {
        let path = format!("grants/{router}");
        operator(&path, json!({ "interfaces": ["x0"] }))
            .await
            .unwrap();
    }
    controller
        .ask(Method::DELETE, "routers/a2", Value::Null)
        .await
        .unwrap();
    let seen = controller.get("tenants/red/grants").await;
    assert_eq!(seen["items"].as_array().unwrap().len(), 1, "{seen}");
    controller
        .ask(Method::DELETE, "tenants/red", Value::Null)
        .await
        .unwrap();
    let body = json!({ "name": "red" });
    controller.ask(Method::POST, "tenants", body).await.unwrap();
    assert_eq!(
        controller.get("tenants/red/grants").await["items"],
        json!([])
    );
}

/// A router says which interfaces it lives by: nobody attaches one, also not by mistake, and it is said why.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_router_lives_by_is_attached_by_nobody() {
    let scratch = Scratch::new();
    let controller = Running::new(&scratch, 30).await;
    let mut a1 = controller.router(&scratch, "a1", "router", 1).await;
    a1.until("settings", has("settings")).await;
    let body = json!({ "name": "red" });
    controller.ask(Method::POST, "tenants", body).await.unwrap();
    let attach = async |interfaces: &[&str]| {
        let body = json!({ "interfaces": interfaces });
        let path = "tenants/red/attachments/a1";
        controller.ask(Method::PUT, path, body).await
    };
    // Before it has said so: that stays, until somebody takes it away.
    attach(&["eth1"]).await.unwrap();
    let reserve = |interfaces: &[(&str, &str)]| {
        let named = interfaces.iter();
        let named = named.map(|(name, why)| ((*name).to_owned(), (*why).to_owned()));
        a1.client.reserve(named.collect());
    };
    reserve(&[
        ("eth0", "the tunnel endpoint 192.0.2.1 is there\u{1b}[2J"),
        ("eth1", "`overlay.uplinks` names it"),
        ("much-too-long-for-a-name", "nobody has this"),
    ]);
    let said = async |wanted: Value| {
        let end = Instant::now() + Duration::from_secs(20);
        loop {
            let router = controller.get("routers/a1").await;
            if router["reserved"] == wanted {
                return;
            }
            assert!(Instant::now() < end, "{router}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    said(json!({
        "eth0": "the tunnel endpoint 192.0.2.1 is there[2J",
        "eth1": "`overlay.uplinks` names it",
    }))
    .await;
    attach(&["eth1", "red0"]).await.unwrap();
    let refused = attach(&["red0", "eth0"]).await.unwrap_err().to_string();
    assert!(
        refused.contains("is no tenant's: the tunnel endpoint 192.0.2.1"),
        "{refused}"
    );
    let node = json!({ "attachments": [{ "router": "a1", "interface": "eth0", "node": ["169.254.1.2"] }] });
    let refused = controller.ask(Method::PUT, "tenants/red/services/fw", node);
    let refused = refused.await.unwrap_err().to_string();
    assert!(refused.contains("is no tenant's"), "{refused}");
    attach(&["red0"]).await.unwrap();
    assert!(attach(&["eth1"]).await.is_err());
    // It is away: as it said last. What it lives by no more may be a tenant's.
    reserve(&[("eth0", "the tunnel endpoint 192.0.2.1 is there")]);
    said(json!({ "eth0": "the tunnel endpoint 192.0.2.1 is there" })).await;
    drop(a1);
    attach(&["eth1"]).await.unwrap();
    assert!(attach(&["eth0"]).await.is_err());
}
