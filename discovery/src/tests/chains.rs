//! Services and chains: made by people, told to the routers that they concern.

use super::*;
use crate::proto::Tenant;

fn tenant<'a>(view: &'a View, name: &str) -> &'a Tenant {
    match view[&format!("tenant/{name}")].item.as_ref().unwrap() {
        Item::Tenant(tenant) => tenant,
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn services_and_chains_reach_the_routers_that_they_concern_and_no_others() {
    let scratch = Scratch::new();
    let range = Domain {
        last_vni: 10_009,
        ..domain(30)
    };
    let controller = Running::of(&scratch, range, Vec::new()).await;
    let mut a1 = controller.router(&scratch, "a1", "router", 1).await;
    let mut a2 = controller.router(&scratch, "a2", "router", 2).await;
    let mut a3 = controller.router(&scratch, "a3", "router", 3).await;
    for router in [&mut a1, &mut a2, &mut a3] {
        router.until("settings", has("settings")).await;
    }
    let put = async |path: &str, body: Value| controller.ask(Method::PUT, path, body).await;
    controller
        .ask(Method::POST, "tenants", json!({ "name": "red" }))
        .await
        .unwrap();
    put(
        "tenants/red/attachments/a1",
        json!({ "interfaces": ["red0"] }),
    )
    .await
    .unwrap();
    // Its label is the next VNI of the domain's.
    let firewall = json!({
        "on_failure": "over",
        "attachments": [{
            "router": "a2", "interface": "fw0", "node": ["169.254.1.2"],
            "outside": { "interface": "fw1", "node": ["169.254.2.2"] },
            "probe": { "kind": "tcp", "port": 80, "interval": 200 },
        }],
    });
    let made = put("tenants/red/services/firewall", firewall.clone()).await;
    assert_eq!(made.unwrap()["label"], 10_001);
    put("tenants/red/services/meter", json!({})).await.unwrap();
    let web = json!({
        "match": { "destination": ["10.0.2.0/24"], "protocol": "tcp", "destination_ports": [80, "8000-8100"] },
        "services": ["firewall", "meter"],
        "symmetric": true,
    });
    put("tenants/red/chains/web", web.clone()).await.unwrap();
    // Who has the tenant is told the chain; who has a node is told where it is; the third router nothing.
    let whole =
        |view: &View| view.contains_key("tenant/red") && !tenant(view, "red").chains.is_empty();
    a1.until("the chain", whole).await;
    a2.until("the chain", whole).await;
    let at_a1 = tenant(&a1.view, "red");
    let at_a2 = tenant(&a2.view, "red");
    assert_eq!((at_a1.interfaces.len(), at_a2.interfaces.len()), (1, 0));
    assert!(at_a1.services[0].attachment.is_none());
    let attachment = at_a2.services[0].attachment.as_ref().unwrap();
    assert_eq!(attachment.inside.as_ref().unwrap().interface, "fw0");
    assert_eq!(attachment.probe.as_ref().unwrap().port, Some(80));
    assert_eq!(at_a1.chains, at_a2.chains);
    assert_eq!(at_a1.chains[0].destination_ports, ["80", "8000-8100"]);
    a3.quiet().await;
    assert!(!a3.view.contains_key("tenant/red"));

    // What cannot work is refused, and says what is missing.
    for (path, body, word) in [
        (
            "tenants/red/chains/twice",
            json!({ "services": ["firewall", "firewall"] }),
            "stands twice in the chain",
        ),
        (
            "tenants/red/chains/none",
            json!({ "services": ["cache"] }),
            "`cache` is no service of tenant `red`",
        ),
        (
            "tenants/red/chains/blind",
            json!({ "services": ["meter"], "symmetric": true }),
            "nothing tells the directions",
        ),
        (
            "tenants/red/services/other",
            json!({ "attachments": [{ "router": "a1", "interface": "red0", "node": ["169.254.1.2"] }] }),
            "interface `red0` of router `a1` is tenant `red`'s",
        ),
        (
            "tenants/red/services/other",
            json!({ "attachments": [{ "router": "a9", "interface": "fw0", "node": ["169.254.1.2"] }] }),
            "there is no router `a9`",
        ),
        (
            "tenants/red/services/firewall",
            json!({ "label": 77, "home": "b" }),
            "the label of `firewall` is 10001, and stays so",
        ),
    ] {
        let refused = put(path, body).await.unwrap_err();
        assert!(refused.contains(word), "{path}: {refused}");
    }
    let delete = async |path: &str| controller.ask(Method::DELETE, path, Value::Null).await;
    let refused = delete("tenants/red/services/meter").await.unwrap_err();
    assert!(refused.contains("chain `web` goes through it"), "{refused}");

    // A tenant's administrator has its own, and sees no other's.
    let scope = json!({ "kind": "tenant", "tenant": "red" });
    let red = controller.rest(&controller.token(scope).await);
    let cheap = json!({ "priority": 10, "services": [] });
    red.ask(Method::PUT, "tenants/red/chains/past", Some(&cheap))
        .await
        .unwrap();
    controller
        .ask(Method::POST, "tenants", json!({ "name": "blue" }))
        .await
        .unwrap();
    for path in ["tenants/blue/chains", "tenants/blue/services/x"] {
        let refused = red.ask(Method::GET, path, None).await.unwrap_err();
        assert!(
            refused.to_string().contains("no tenant `blue`"),
            "{refused}"
        );
    }

    // The node goes: the router that only had that is told nothing of the tenant any more.
    put(
        "tenants/red/services/firewall",
        json!({ "on_failure": "over" }),
    )
    .await
    .unwrap();
    a2.until("nothing of it", lacks("tenant/red")).await;
    // Back as it was, by history.
    let revision = controller.get("revisions").await["items"][0]["number"]
        .as_u64()
        .unwrap();
    let path = format!("revisions/{}/rollback", revision - 1);
    controller
        .ask(Method::POST, &path, Value::Null)
        .await
        .unwrap();
    a2.until("the node again", whole).await;
    // With its router a node goes, with the tenant everything does, and the labels rest.
    delete("routers/a2").await.unwrap();
    let service = controller.get("tenants/red/services/firewall").await;
    assert_eq!(service["attachments"], json!([]));
    delete("tenants/red").await.unwrap();
    a1.until("gone", lacks("tenant/red")).await;
    controller
        .ask(Method::POST, "tenants", json!({ "name": "red" }))
        .await
        .unwrap();
    let again = put("tenants/red/services/firewall", json!({}))
        .await
        .unwrap();
    assert_ne!(again["label"], 10_001);
}
