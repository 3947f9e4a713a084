//! The API of people.

use super::*;

/// A raw question, with headers, as curl would ask it.
async fn curl(
    controller: &Running,
    method: &str,
    path: &str,
    headers: &[&str],
    body: &str,
) -> (u16, String) {
    let token = std::fs::read_to_string(controller.folder.operator()).unwrap();
    curl_with(controller, &token, method, path, headers, body).await
}

/// The same with another token.
pub(super) async fn curl_with(
    controller: &Running,
    token: &str,
    method: &str,
    path: &str,
    headers: &[&str],
    body: &str,
) -> (u16, String) {
    let mut curl = tokio::process::Command::new("curl");
    curl.args(["-s", "-i", "--http1.1", "--cacert"])
        .arg(controller.folder.authority());
    curl.args([
        "-X",
        method,
        "-H",
        &format!("Authorization: Bearer {}", token.trim()),
    ]);
    for header in headers {
        curl.args(["-H", header]);
    }
    if !body.is_empty() {
        curl.args(["-d", body]);
    }
    let output = curl
        .arg(format!("https://{}/api/v1/{path}", controller.address))
        .output()
        .await
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let status = text
        .split(' ')
        .nth(1)
        .and_then(|status| status.parse().ok());
    (
        status.unwrap_or_else(|| panic!("{text} {:?}", output.stderr)),
        text.to_lowercase(),
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn what_has_changed_since_is_not_overwritten_and_what_was_done_is_not_done_again() {
    let scratch = Scratch::new();
    let controller = Running::new(&scratch, 30).await;
    // The same request with one key is done once.
    let key = ["Idempotency-Key: one"];
    let (status, first) = curl(&controller, "POST", "tenants", &key, r#"{"name": "red"}"#).await;
    assert_eq!(status, 201, "{first}");
    let (status, again) = curl(&controller, "POST", "tenants", &key, r#"{"name": "red"}"#).await;
    assert_eq!(status, 201, "{again}");
    let (status, other) = curl(&controller, "POST", "tenants", &key, r#"{"name": "blue"}"#).await;
    assert!(
        status == 422 && other.contains("application/problem+json"),
        "{other}"
    );
    let (status, clash) = curl(&controller, "POST", "tenants", &[], r#"{"name": "red"}"#).await;
    assert!(
        status == 409 && clash.contains("there is a tenant `red`"),
        "{clash}"
    );
    // ETag and If-Match.
    let (_, text) = curl(&controller, "GET", "tenants/red", &[], "").await;
    let tag = text
        .lines()
        .find_map(|line| line.strip_prefix("etag: "))
        .unwrap()
        .trim();
    let matching = format!("If-Match: {tag}");
    let change = r#"{"description": "the reds"}"#;
    let (status, changed) = curl(&controller, "PATCH", "tenants/red", &[&matching], change).await;
    assert_eq!(status, 200, "{changed}");
    let (status, late) = curl(&controller, "PATCH", "tenants/red", &[&matching], change).await;
    assert!(
        status == 412 && late.contains("has been changed since"),
        "{late}"
    );
    // What makes no sense says so.
    for (method, path, body, status, word) in [
        (
            "POST",
            "tenants",
            r#"{"nome": "x"}"#,
            422,
            "unknown field `nome`",
        ),
        (
            "POST",
            "tenants",
            r#"{"name": "x", "vni": 10001}"#,
            422,
            "together with the other domain",
        ),
        (
            "POST",
            "tenants",
            r#"{"name": "x", "vni": 10001, "home": "b"}"#,
            422,
            "are this domain's",
        ),
        (
            "PUT",
            "tenants/red/attachments/a9",
            "{}",
            404,
            "there is no router `a9`",
        ),
        ("PATCH", "domain", "{}", 405, "does not take patch"),
        ("GET", "tenants/none", "", 404, "there is no tenant `none`"),
        ("GET", "performance?tennant=red", "", 400, "unknown field"),
        ("GET", "nothing", "", 404, "is not a path of this api"),
    ] {
        let (found, text) = curl(&controller, method, path, &[], body).await;
        assert!(
            found == status && text.contains(word),
            "{method} {path} {body}: {text}"
        );
    }
    let (status, text) = curl(&controller, "GET", "openapi.json", &[], "").await;
    assert!(
        status == 200 && text.contains("\"openapi\":\"3.1.0\""),
        "{status}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tenants_administrator_sees_and_changes_the_tenant_alone() {
    let scratch = Scratch::new();
    let controller = Running::new(&scratch, 30).await;
    controller
        .join("a1", "router", &scratch.path("a1"))
        .await
        .unwrap();
    for name in ["red", "blue"] {
        controller
            .ask(Method::POST, "tenants", json!({ "name": name }))
            .await
            .unwrap();
    }
    let red = controller
        .token(json!({ "kind": "tenant", "tenant": "red" }))
        .await;
    let red = controller.rest(&red);
    let seen = red.ask(Method::GET, "tenants", None).await.unwrap();
    assert_eq!(seen["items"].as_array().unwrap().len(), 1, "{seen}");
    let body = json!({ "interfaces": ["red0"] });
    red.ask(Method::PUT, "tenants/red/attachments/a1", Some(&body))
        .await
        .unwrap();
    red.ask(
        Method::PATCH,
        "tenants/red",
        Some(&json!({ "description": "ours" })),
    )
    .await
    .unwrap();
    red.ask(Method::GET, "performance?tenant=red", None)
        .await
        .unwrap();
    for (method, path, word) in [
        (Method::GET, "tenants/blue", "there is no tenant `blue`"),
        (
            Method::PUT,
            "tenants/blue/attachments/a1",
            "there is no tenant `blue`",
        ),
        (Method::DELETE, "tenants/red", "operator's"),
        (Method::GET, "routers", "operator's"),
        (Method::GET, "tokens", "operator's"),
        (Method::GET, "revisions", "operator's"),
        (Method::GET, "performance", "operator's"),
        (Method::POST, "tokens", "operator's"),
    ] {
        let body = json!({});
        let answer = red.ask(method.clone(), path, Some(&body)).await;
        let refused = answer.unwrap_err().to_string();
        assert!(refused.contains(word), "{method} {path}: {refused}");
    }
    // An interface is one tenant's.
    let clash = controller
        .ask(Method::PUT, "tenants/blue/attachments/a1", body)
        .await;
    assert!(clash.unwrap_err().contains("is tenant `red`'s"));
    // A reader looks at everything, and a token that was taken back at nothing.
    let reader = controller.token(json!({ "kind": "reader" })).await;
    let id = reader.parse::<TokenText>().unwrap().id;
    let reader = controller.rest(&reader);
    reader.ask(Method::GET, "routers", None).await.unwrap();
    let refused = reader.ask(Method::DELETE, "tenants/red", None).await;
    assert!(refused.unwrap_err().to_string().contains("operator's"));
    let listed = controller.get("tokens").await;
    assert!(!listed.to_string().contains("hash"), "{listed}");
    controller
        .ask(Method::DELETE, &format!("tokens/{id}"), Value::Null)
        .await
        .unwrap();
    let refused = reader.ask(Method::GET, "routers", None).await;
    assert!(refused.unwrap_err().to_string().contains("taken back"));
}

#[tokio::test(flavor = "multi_thread")]
async fn vnis_rest_before_another_tenant_gets_them_and_history_goes_back() {
    let scratch = Scratch::new();
    let controller = Running::new(&scratch, 30).await;
    controller
        .join("a1", "router", &scratch.path("a1"))
        .await
        .unwrap();
    let create = async |name: &str| {
        controller
            .ask(Method::POST, "tenants", json!({ "name": name }))
            .await
    };
    for (name, vni) in [("red", 10_000), ("blue", 10_001)] {
        assert_eq!(create(name).await.unwrap()["vni"], vni);
    }
    controller
        .ask(
            Method::PUT,
            "tenants/red/attachments/a1",
            json!({ "interfaces": ["red0"] }),
        )
        .await
        .unwrap();
    let before = controller.get("status").await["revision"].as_u64().unwrap();
    controller
        .ask(Method::DELETE, "tenants/red", Value::Null)
        .await
        .unwrap();
    // Three VNIs: the third is free, the first rests.
    assert_eq!(create("green").await.unwrap()["vni"], 10_002);
    let full = create("yellow").await.unwrap_err();
    assert!(full.contains("are given, or rest"), "{full}");
    // Another domain's VNI is none of these.
    let other = json!({ "name": "yellow", "vni": 20_000, "home": "b" });
    assert_eq!(
        controller
            .ask(Method::POST, "tenants", other)
            .await
            .unwrap()["vni"],
        20_000
    );
    // Who did what, before and after.
    let history = controller.get("revisions?limit=2").await;
    let last = &history["items"][0];
    assert_eq!(last["operation"], "create tenant yellow", "{last}");
    assert_eq!(last["changes"][0]["old"], Value::Null, "{last}");
    assert_eq!(last["changes"][0]["new"]["tenant"]["vni"], 20_000, "{last}");
    // Back: red is there again with its attachment, and what came later is not.
    controller
        .ask(
            Method::POST,
            &format!("revisions/{before}/rollback"),
            Value::Null,
        )
        .await
        .unwrap();
    let names: Vec<Value> = controller.get("tenants").await["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|of| of["name"].clone())
        .collect();
    assert_eq!(names, [json!("blue"), json!("red")]);
    assert_eq!(
        controller.get("tenants/red/attachments/a1").await["interfaces"],
        json!(["red0"])
    );
    // Its VNI rests too: a router may not have heard that it is green's no more.
    let full = create("green").await.unwrap_err();
    assert!(full.contains("are given, or rest"), "{full}");
    let never = controller
        .ask(Method::POST, "revisions/9999/rollback", Value::Null)
        .await;
    assert!(never.unwrap_err().contains("not one of those"));
}

/// `WEFT_UPDATE=1 cargo test -p weft-discovery` writes it.
#[test]
fn the_published_document_is_current() {
    let path = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../docs/controller-openapi.json"
    );
    let document = crate::controller::rest::document();
    let text = format!("{}\n", serde_json::to_string_pretty(&document).unwrap());
    if std::env::var_os("WEFT_UPDATE").is_some() {
        std::fs::write(path, &text).unwrap();
    }
    let published = std::fs::read_to_string(path).unwrap();
    assert!(
        published == text,
        "docs/controller-openapi.json is not current"
    );
}
