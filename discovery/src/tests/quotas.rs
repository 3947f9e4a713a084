//! What a tenant's administrators may have of a domain: so much, and no more of what others need.

use super::*;

/// A domain with a tenant, a router, and the API as the tenant's administrator sees it.
async fn prepared(scratch: &Scratch) -> (Running, crate::client::Rest) {
    let range = Domain {
        last_vni: 10_999,
        ..domain(30)
    };
    let controller = Running::of(scratch, range, Vec::new()).await;
    for name in ["a1", "a2"] {
        let folder = scratch.path(name);
        controller.join(name, "router", &folder).await.unwrap();
    }
    let body = json!({ "name": "red" });
    controller.ask(Method::POST, "tenants", body).await.unwrap();
    for router in ["a1", "a2"] {
        let path = format!("tenants/red/grants/{router}");
        let body = json!({ "interfaces": ["x0", "x1", "fw0"] });
        controller.ask(Method::PUT, &path, body).await.unwrap();
    }
    let scope = json!({ "kind": "tenant", "tenant": "red" });
    let red = controller.rest(&controller.token(scope).await);
    (controller, red)
}

/// An attacker with a tenant's token takes services until there is no VNI left for others, deletes them so that those rest, and goes on.
#[tokio::test(flavor = "multi_thread")]
async fn a_tenant_takes_no_more_vnis_than_it_may() {
    let scratch = Scratch::new();
    let (controller, red) = prepared(&scratch).await;
    let put = async |number: u32| {
        let path = format!("tenants/red/services/s{number}");
        red.ask(Method::PUT, &path, Some(&json!({}))).await
    };
    let mut refused = String::new();
    for number in 0..100 {
        match put(number).await {
            Ok(_) => {
                let path = format!("tenants/red/services/s{number}");
                red.ask(Method::DELETE, &path, None).await.unwrap();
            }
            Err(error) => refused = error.to_string(),
        }
    }
    assert!(refused.contains("vnis: tenant `red`"), "{refused}");
    assert!(
        refused.contains("PUT /api/v1/tenants/red/quota"),
        "{refused}"
    );
    let quota = controller.get("tenants/red/quota").await;
    assert_eq!(
        (&quota["limits"]["vnis"], &quota["used"]["vnis"]),
        (&json!(64), &json!(64))
    );
    // Others have theirs, and an operator may give more, also to this one.
    let body = json!({ "name": "blue" });
    controller.ask(Method::POST, "tenants", body).await.unwrap();
    let operator = controller.ask(Method::PUT, "tenants/red/services/own", json!({}));
    operator.await.unwrap();
    let more = json!({ "vnis": 66 });
    let refused = red.ask(Method::PUT, "tenants/red/quota", Some(&more)).await;
    assert!(refused.unwrap_err().to_string().contains("may not do that"));
    controller
        .ask(Method::PUT, "tenants/red/quota", more)
        .await
        .unwrap();
    put(200).await.unwrap();
    assert!(put(201).await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn each_limit_is_told_with_its_field_and_what_is_there_may_be_made_less() {
    let scratch = Scratch::new();
    let (controller, red) = prepared(&scratch).await;
    let few = json!({
        "attachments": 1, "interfaces": 1, "prefixes": 2, "neighbors": 1, "services": 2, "nodes": 1, "chains": 1, "matches": 3,
    });
    controller
        .ask(Method::PUT, "tenants/red/quota", few)
        .await
        .unwrap();
    let node =
        |router: &str| json!({ "router": router, "interface": "fw0", "node": ["169.254.1.2"] });
    let neighbor = |host: u8| json!({ "address": format!("10.0.1.{host}"), "asn": 65001 });
    let chain = |ports: &[u16]| {
        let matches =
            json!({ "source": ["10.0.1.0/24"], "protocol": "tcp", "destination_ports": ports });
        json!({ "match": matches, "services": [] })
    };
    for (path, body, refused) in [
        (
            "attachments/a1",
            json!({ "prefixes": ["10.0.1.0/24", "10.0.2.0/24"] }),
            None,
        ),
        (
            "attachments/a1",
            json!({ "prefixes": ["10.0.1.0/24", "10.0.2.0/24", "10.0.3.0/24"] }),
            Some("prefixes"),
        ),
        (
            "attachments/a1",
            json!({ "interfaces": ["x0", "x1"] }),
            Some("interfaces"),
        ),
        (
            "attachments/a1",
            json!({ "neighbors": [neighbor(1), neighbor(2)] }),
            Some("neighbors"),
        ),
        ("attachments/a2", json!({}), Some("attachments")),
        ("services/one", json!({ "attachments": [node("a1")] }), None),
        (
            "services/one",
            json!({ "attachments": [node("a1"), node("a2")] }),
            Some("attachments"),
        ),
        ("services/two", json!({}), None),
        ("services/three", json!({}), Some("services")),
        ("chains/web", chain(&[80, 443]), None),
        ("chains/web", chain(&[80, 443, 8080]), Some("match")),
        ("chains/more", chain(&[80]), Some("chains")),
    ] {
        let path = format!("tenants/red/{path}");
        let done = red.ask(Method::PUT, &path, Some(&body)).await;
        match (done, refused) {
            (Ok(_), None) => {}
            (Err(error), Some(field)) => {
                let error = error.to_string();
                assert!(error.contains(&format!("{field}: ")), "{path}: {error}");
                assert!(
                    error.contains("ask an operator for more"),
                    "{path}: {error}"
                );
                // An operator's own is not refused; what is there then is put back by the next line.
            }
            (done, _) => panic!("{path}: {done:?}"),
        }
    }
    // A limit that is lowered takes nothing away, and keeps nobody from having less.
    let none = json!({ "prefixes": 0, "services": 0 });
    controller
        .ask(Method::PUT, "tenants/red/quota", none)
        .await
        .unwrap();
    let less = json!({ "prefixes": ["10.0.1.0/24"] });
    red.ask(Method::PUT, "tenants/red/attachments/a1", Some(&less))
        .await
        .unwrap();
    red.ask(Method::DELETE, "tenants/red/services/two", None)
        .await
        .unwrap();
    let again = red
        .ask(Method::PUT, "tenants/red/services/two", Some(&json!({})))
        .await;
    assert!(again.is_err());
    // With what everybody may it is there again; the next tenant of that name begins with that too.
    controller
        .ask(Method::DELETE, "tenants/red/quota", Value::Null)
        .await
        .unwrap();
    let seen = red
        .ask(Method::GET, "tenants/red/quota", None)
        .await
        .unwrap();
    assert_eq!(
        (&seen["limits"]["services"], &seen["used"]["services"]),
        (&json!(32), &json!(1))
    );
    let of_another = red
        .ask(Method::GET, "tenants/blue/quota", None)
        .await
        .unwrap_err();
    assert!(of_another.to_string().contains("there is no tenant `blue`"));
}

/// A tenant's token that asks without end is told to wait, and the operator is answered.
#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_asks_too_often_is_told_so() {
    let scratch = Scratch::new();
    let (controller, red) = prepared(&scratch).await;
    let mut connection = red.connect().await.unwrap();
    let mut refused = None;
    for _ in 0..20_000 {
        if let Err(error) = connection.ask(Method::GET, "tenants/red", None, None).await {
            refused = Some(error.to_string());
            break;
        }
    }
    let refused = refused.expect("an end");
    assert!(refused.contains("asks too often"), "{refused}");
    controller.get("tenants").await;
}
