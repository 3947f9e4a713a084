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

fn operator(controller: &Running) -> String {
    let token = std::fs::read_to_string(controller.folder.operator()).unwrap();
    token.trim().to_owned()
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
            r#"{"name": "x", "vni": 0}"#,
            422,
            "\"field\":\"vni\"",
        ),
        (
            "POST",
            "tenants",
            r#"{"name": "x", "home": "lab"}"#,
            422,
            "home: found `lab`, expected another domain",
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
    controller
        .ask(Method::PUT, "tenants/red/grants/a1", body.clone())
        .await
        .unwrap();
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
        .map(|one| one["name"].clone())
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

#[tokio::test(flavor = "multi_thread")]
async fn a_token_of_a_tenant_that_was_rolled_back_is_good_for_no_later_one() {
    let scratch = Scratch::new();
    let controller = Running::new(&scratch, 30).await;
    let create = async || {
        controller
            .ask(Method::POST, "tenants", json!({ "name": "red" }))
            .await
            .unwrap()
    };
    let before = controller.get("status").await["revision"].as_u64().unwrap();
    create().await;
    let scope = json!({ "kind": "tenant", "tenant": "red" });
    let former: TokenText = controller.token(scope).await.parse().unwrap();
    let back = format!("revisions/{before}/rollback");
    controller
        .ask(Method::POST, &back, Value::Null)
        .await
        .unwrap();
    create().await;
    let tokens = controller.get("tokens").await.to_string();
    assert!(!tokens.contains(&former.id), "{tokens}");
    use std::os::unix::fs::PermissionsExt as _;
    let mode = |path: &str| {
        let metadata = std::fs::metadata(scratch.path(path)).unwrap();
        metadata.permissions().mode() & 0o777
    };
    assert_eq!(mode("controller"), 0o700);
    assert_eq!(mode("controller/domain.redb"), 0o600);
}

#[tokio::test(flavor = "multi_thread")]
async fn files_that_others_could_read_are_their_owners_again_after_a_start() {
    use std::os::unix::fs::PermissionsExt as _;
    let scratch = Scratch::new();
    let mut controller = Running::new(&scratch, 30).await;
    controller
        .join("a1", "router", &scratch.path("a1"))
        .await
        .unwrap();
    controller.kill().await;
    let mode = |path: &str| {
        let metadata = std::fs::metadata(scratch.path(path)).unwrap();
        metadata.permissions().mode() & 0o777
    };
    let widen = |path: &str, mode| {
        let mode = std::fs::Permissions::from_mode(mode);
        std::fs::set_permissions(scratch.path(path), mode).unwrap();
    };
    let folders = ["controller", "a1"];
    let files = [
        "controller/domain.redb",
        "controller/authority.key",
        "controller/operator.token",
        "a1/router.key",
        "a1/member.json",
    ];
    for folder in folders {
        widen(folder, 0o755);
    }
    for file in files {
        widen(file, 0o664);
    }
    widen("controller/authority.pem", 0o644);
    controller.start().await;
    Membership::load(&scratch.path("a1")).unwrap().unwrap();
    for folder in folders {
        assert_eq!(mode(folder), 0o700, "{folder}");
    }
    for file in files {
        assert_eq!(mode(file), 0o600, "{file}");
    }
    assert_eq!(mode("controller/authority.pem"), 0o644, "no secret");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_refused_is_counted_and_bodies_are_bounded() {
    let scratch = Scratch::new();
    let controller = Running::new(&scratch, 30).await;
    let refused = async || {
        let metrics = tokio::process::Command::new("curl")
            .args(["-s", "--cacert"])
            .arg(controller.folder.authority())
            .arg("-H")
            .arg(format!("Authorization: Bearer {}", operator(&controller)))
            .arg(format!("https://{}/metrics", controller.address))
            .output()
            .await
            .unwrap();
        let text = String::from_utf8(metrics.stdout).unwrap();
        let mut lines = text.lines();
        let line =
            lines.find_map(|line| line.strip_prefix("weft_controller_refused_requests_total "));
        line.unwrap_or_else(|| panic!("{text}"))
            .parse::<u64>()
            .unwrap()
    };
    assert_eq!(refused().await, 0);
    let unknown = "weft.0000000000.00.00";
    let (status, _) = curl_with(&controller, unknown, "GET", "tenants", &[], "").await;
    assert_eq!((status, refused().await), (401, 1));
    let reader = controller.token(json!({ "kind": "reader" })).await;
    let (status, _) = curl_with(&controller, &reader, "POST", "tenants", &[], "{}").await;
    assert_eq!((status, refused().await), (403, 2));
    // Joining is asked for by gRPC.
    let nobody: TokenText = controller
        .token(json!({ "kind": "reader" }))
        .await
        .parse()
        .unwrap();
    let address = controller.address.to_string();
    let folder = scratch.path("a1");
    Membership::join(&address, &nobody, "a1", &folder)
        .await
        .unwrap_err();
    assert_eq!(refused().await, 3);
    controller.join("a1", "router", &folder).await.unwrap();
    assert_eq!(refused().await, 3);
    // Before anything is read of it.
    let large = ["Content-Length: 1048577"];
    let (status, _) = curl(&controller, "POST", "tenants", &large, "{}").await;
    assert_eq!(status, 413);
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

/// What a router would refuse is refused here, with the field; each of these was taken once, and cost a router all later changes.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_router_cannot_be_is_refused_with_its_field() {
    let scratch = Scratch::new();
    let controller = Running::new(&scratch, 30).await;
    controller
        .join("a1", "router", &scratch.path("a1"))
        .await
        .unwrap();
    let red = json!({ "name": "red" });
    controller.ask(Method::POST, "tenants", red).await.unwrap();
    let (attachment, service) = (
        "tenants/red/attachments/a1",
        "tenants/red/services/firewall",
    );
    let node = |more: &str| {
        format!(
            r#"{{"attachments": [{{"router": "a1", "interface": "fw0", "node": ["169.254.1.2"]{more}}}]}}"#
        )
    };
    for (path, body, field) in [
        (
            attachment,
            r#"{"redistribute": ["everything"]}"#.to_owned(),
            "redistribute[0]",
        ),
        (
            attachment,
            r#"{"prefixes": ["10.0.1.0/24", "10.0.1.0/24"]}"#.to_owned(),
            "prefixes[1]",
        ),
        (
            attachment,
            r#"{"interfaces": ["red0", "red:0"]}"#.to_owned(),
            "interfaces[1]",
        ),
        (
            attachment,
            r#"{"interfaces": ["lo"]}"#.to_owned(),
            "interfaces[0]",
        ),
        (
            attachment,
            r#"{"interfaces": ["vx0"]}"#.to_owned(),
            "interfaces[0]",
        ),
        (
            attachment,
            r#"{"breakout": {"interface": "a b"}}"#.to_owned(),
            "breakout.interface",
        ),
        (
            attachment,
            r#"{"neighbors": [{"address": "10.0.1.2", "asn": 64601}]}"#.to_owned(),
            "neighbors[0].asn",
        ),
        (
            service,
            node(r#", "probe": {"kind": "tcp"}"#),
            "attachments[0].probe.port",
        ),
        (
            service,
            node(r#", "probe": {"kind": "icmp", "port": 80}"#),
            "attachments[0].probe.port",
        ),
        (
            service,
            node("").replace("169.254.1.2", "0.0.0.0"),
            "attachments[0].node[0]",
        ),
        (
            service,
            node("").replace("fw0", "vrf-7"),
            "attachments[0].interface",
        ),
        (
            "tenants/red/chains/web",
            r#"{"services": [], "match": {"source": ["10.0.0.0/8", "10.0.0.0/8"]}}"#.to_owned(),
            "match.source[1]",
        ),
    ] {
        let (status, text) = curl(&controller, "PUT", path, &[], &body).await;
        assert_eq!(status, 422, "{body}: {text}");
        let named = format!("\"field\":\"{field}\"");
        assert!(text.contains(&named), "{body}: {text}");
    }
    // And what it can be is taken, to the last field.
    let whole = json!({
        "interfaces": ["red0"], "prefixes": ["10.0.1.0/24"], "redistribute": ["connected", "bird"],
        "neighbors": [{ "address": "10.0.1.2", "asn": 65001, "as_override": true, "max_prefixes": 100 }],
        "breakout": { "interface": "eth0", "source_nat": false },
    });
    controller
        .ask(Method::PUT, attachment, whole.clone())
        .await
        .unwrap();
    let mut told = controller.get(attachment).await;
    let told = told.as_object_mut().unwrap();
    told.remove("tenant");
    told.remove("router");
    assert_eq!(Value::from(told.clone()), whole);
    // A way to the Internet is not the tenant's own to take, and no reason to refuse it everything else.
    let token = controller
        .token(json!({ "kind": "tenant", "tenant": "red" }))
        .await;
    let mut other = whole.clone();
    other["breakout"]["source_nat"] = true.into();
    let rest = controller.rest(&token);
    let refused = rest.ask(Method::PUT, attachment, Some(&other)).await;
    assert!(
        refused
            .unwrap_err()
            .to_string()
            .contains("takes an operator's token")
    );
    other["breakout"]["source_nat"] = false.into();
    other["prefixes"] = json!(["10.0.7.0/24"]);
    rest.ask(Method::PUT, attachment, Some(&other))
        .await
        .unwrap();
}

/// A tenant keeps the VNI that it had before it came under a controller; who has one is named.
#[tokio::test(flavor = "multi_thread")]
async fn an_operator_chooses_a_vni_that_nobody_has() {
    let scratch = Scratch::new();
    let controller = Running::new(&scratch, 30).await;
    let make = |name: &str, vni: u32| {
        controller.ask(Method::POST, "tenants", json!({ "name": name, "vni": vni }))
    };
    // In the domain's range and out of it.
    assert_eq!(make("red", 10_001).await.unwrap()["vni"], 10_001);
    assert_eq!(make("blue", 777).await.unwrap()["vni"], 777);
    assert!(
        make("green", 777)
            .await
            .unwrap_err()
            .contains("tenant `blue` has VNI 777")
    );
    assert!(
        make("green", 16_777_215)
            .await
            .unwrap_err()
            .contains("1 to 16777214")
    );
    let label = json!({ "label": 888 });
    let path = "tenants/red/services/firewall";
    let service = controller.ask(Method::PUT, path, label).await.unwrap();
    assert_eq!(service["label"], 888, "{service}");
    assert!(
        make("green", 888)
            .await
            .unwrap_err()
            .contains("service `firewall`")
    );
    // Those that are given by themselves go past them, and one that has been given back rests.
    let given = async |name: &str| {
        let body = json!({ "name": name });
        let tenant = controller.ask(Method::POST, "tenants", body).await;
        tenant.map(|one| one["vni"].as_u64().unwrap())
    };
    assert_eq!(given("t1").await, Ok(10_000));
    assert_eq!(given("t2").await, Ok(10_002));
    assert!(
        given("t3")
            .await
            .unwrap_err()
            .contains("are given, or rest")
    );
    controller
        .ask(Method::DELETE, "tenants/blue", Value::Null)
        .await
        .unwrap();
    assert!(make("green", 777).await.unwrap_err().contains("rests for"));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_can_be_counted_and_whether_it_lives() {
    let scratch = Scratch::new();
    let controller = Running::new(&scratch, 30).await;
    let mut a1 = controller.router(&scratch, "a1", "router", 1).await;
    a1.until("settings", has("settings")).await;
    let root = |path: &str| format!("../../{path}");
    let mut bare = tokio::process::Command::new("curl");
    let one = |path: &str| format!("https://{}/{path}", controller.address);
    bare.args(["-s", "--path-as-is", "--cacert"])
        .arg(controller.folder.authority())
        .args([one("healthz"), one("readyz"), one("metrics")]);
    let said = bare.output().await.unwrap();
    let said = String::from_utf8(said.stdout).unwrap();
    // Without a token it says that it lives, and nothing of who is there.
    assert!(
        said.starts_with("alive\nready\n") && said.contains("this needs a token"),
        "{said}"
    );
    let (status, text) = curl(&controller, "GET", &root("metrics"), &[], "").await;
    assert_eq!(status, 200, "{text}");
    for line in [
        "weft_controller_routers_joined 1",
        "weft_controller_routers_connected 1",
        "weft_controller_router_connected{router=\"a1\"} 1",
        "weft_controller_certificate_end_timestamp_seconds{certificate=\"router a1\"} ",
        "weft_controller_certificate_end_timestamp_seconds{certificate=\"authority\"} ",
        "weft_controller_writes_total ",
        "# unit weft_controller_certificate_end_timestamp_seconds seconds",
        "# eof",
    ] {
        assert!(text.contains(line), "{line}: {text}");
    }
}

/// Who asks for much and takes nothing of it is not waited for, and others are answered meanwhile.
#[tokio::test(flavor = "multi_thread")]
async fn who_reads_nothing_of_what_he_asked_for_is_not_waited_for() {
    use tokio::io::AsyncWriteExt as _;
    let scratch = Scratch::new();
    let controller = Running::new(&scratch, 30).await;
    let fingerprint = operator(&controller)
        .parse::<TokenText>()
        .unwrap()
        .fingerprint;
    let trust = crate::tls::Trust::Fingerprint(fingerprint);
    let mut config = crate::tls::client(&trust, None).unwrap();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    let config = std::sync::Arc::new(config);
    let ask = b"GET /api/v1/openapi.json HTTP/1.1\r\nHost: a\r\n\r\n".repeat(200);
    let mut slow = Vec::new();
    for _ in 0..8 {
        let (host, port) = ("127.0.0.1", controller.address.port());
        let mut stream = crate::client::connect::dial(host, port, config.clone())
            .await
            .unwrap();
        stream.write_all(&ask).await.unwrap();
        stream.flush().await.unwrap();
        slow.push(stream);
    }
    let end = Instant::now() + Duration::from_secs(60);
    while !slow.is_empty() {
        assert!(Instant::now() < end, "{} are still there", slow.len());
        let status = controller.operator().ask(Method::GET, "status", None).await;
        assert_eq!(status.unwrap()["domain"], "lab");
        let mut still = Vec::new();
        for mut stream in slow {
            // What it does not read: where the other end has gone, that is an error.
            let wrote = async { stream.write_all(b" ").await.and(stream.flush().await) };
            match tokio::time::timeout(Duration::from_millis(100), wrote).await {
                Ok(Err(_)) => {}
                _ => still.push(stream),
            }
        }
        slow = still;
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}
