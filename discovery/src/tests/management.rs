//! The API of people over gRPC: what REST does, with the same words.

mod chains;
mod domains;

use std::fmt::Debug;

use tonic::transport::Channel;
use tonic::{Code, Request, Response, Status};

use super::api::curl_with;
use super::*;
use crate::management_proto::management_client::ManagementClient;
use crate::management_proto::{self as proto, Role, scope::Scope};
use crate::tls::{Trust, client};

/// A controller, asked over gRPC and with curl.
struct Both<'a> {
    controller: &'a Running,
    grpc: ManagementClient<Channel>,
    token: String,
}

impl<'a> Both<'a> {
    async fn new(controller: &'a Running, token: &str) -> Self {
        let fingerprint = token.parse::<TokenText>().unwrap().fingerprint;
        let tls = client(&Trust::Fingerprint(fingerprint), None).unwrap();
        let address = controller.address.to_string();
        let channel = crate::client::connect(&address, tls).await.unwrap();
        Self {
            controller,
            grpc: ManagementClient::new(channel),
            token: token.trim().to_owned(),
        }
    }

    async fn operator(controller: &'a Running) -> Self {
        let token = std::fs::read_to_string(controller.folder.operator()).unwrap();
        Self::new(controller, &token).await
    }

    fn request<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        let token = format!("Bearer {}", self.token).parse().unwrap();
        request.metadata_mut().insert("authorization", token);
        request
    }

    async fn curl(&self, line: &str, headers: &[&str], body: &str) -> (u16, String) {
        let (method, path) = line.split_once(' ').unwrap();
        curl_with(self.controller, &self.token, method, path, headers, body).await
    }
}

/// Both did it, or both refused it with the same words.
#[track_caller]
fn same<T: Debug>(rest: &(u16, String), grpc: Result<Response<T>, Status>, status: u16) {
    let (found, text) = rest;
    assert_eq!(*found, status, "{text}");
    let code = match status {
        200..=299 => Code::Ok,
        400 | 422 => Code::InvalidArgument,
        401 => Code::Unauthenticated,
        403 => Code::PermissionDenied,
        404 => Code::NotFound,
        409 => Code::AlreadyExists,
        412 => Code::FailedPrecondition,
        other => panic!("{other}"),
    };
    match grpc {
        Ok(answer) => assert_eq!(code, Code::Ok, "{answer:?}"),
        Err(refusal) => {
            assert_eq!(refusal.code(), code, "{refusal}");
            let words = refusal.message().to_lowercase().replace('"', "\\\"");
            assert!(text.contains(&words), "{words}: {text}");
        }
    }
}

/// What a domain is, without what is random or a time.
async fn everything(controller: &Running) -> Vec<Value> {
    let mut all = Vec::new();
    for path in [
        "domain",
        "tenants",
        "tenants/red/attachments",
        "tenants/blue/attachments",
    ] {
        let mut said = controller.get(path).await;
        for item in said["items"].as_array_mut().into_iter().flatten() {
            item.as_object_mut().unwrap().remove("id");
        }
        all.push(said);
    }
    let mut routers = controller.get("routers").await;
    for router in routers["items"].as_array_mut().unwrap() {
        router.as_object_mut().unwrap().remove("key");
    }
    all.push(routers);
    let mut tokens = controller.get("tokens").await;
    let tokens = tokens["items"].as_array_mut().unwrap();
    for token in tokens.iter_mut() {
        for random in ["id", "created_by", "expires_at"] {
            token.as_object_mut().unwrap().remove(random);
        }
    }
    tokens.sort_by_key(|token| token["scope"].to_string());
    all.push(tokens.clone().into());
    let history = controller.get("revisions").await;
    let history = history["items"].as_array().unwrap().iter();
    let named = history.filter(|each| !each["operation"].to_string().contains("token"));
    all.extend(named.map(|each| json!([each["number"], each["operation"]])));
    all
}

/// The same changes, one domain's by REST and the other's by gRPC, and the same mistakes.
#[tokio::test(flavor = "multi_thread")]
async fn what_rest_does_and_refuses_grpc_does_and_refuses_with_the_same_words() {
    let (one, other) = (Scratch::new(), Scratch::new());
    let (by_rest, by_grpc) = (Running::new(&one, 30).await, Running::new(&other, 30).await);
    for (scratch, controller) in [(&one, &by_rest), (&other, &by_grpc)] {
        for (name, role) in [("a1", "router"), ("e1", "edge")] {
            let folder = scratch.path(name);
            controller.join(name, role, &folder).await.unwrap();
        }
    }
    let rest = Both::operator(&by_rest).await;
    let grpc = Both::operator(&by_grpc).await;
    let mut api = grpc.grpc.clone();
    let create_tenant = |name: &str, key: Option<&str>| {
        grpc.request(proto::CreateTenantRequest {
            name: name.into(),
            idempotency_key: key.map(ToOwned::to_owned),
            ..Default::default()
        })
    };
    // Tenants, once with one key.
    let key = ["Idempotency-Key: k"];
    for _ in 0..2 {
        let done = rest.curl("POST tenants", &key, r#"{"name": "red"}"#).await;
        same(
            &done,
            api.create_tenant(create_tenant("red", Some("k"))).await,
            201,
        );
    }
    let done = rest.curl("POST tenants", &key, r#"{"name": "blue"}"#).await;
    same(
        &done,
        api.create_tenant(create_tenant("blue", Some("k"))).await,
        422,
    );
    let bad = ["Idempotency-Key: a/b"];
    let done = rest.curl("POST tenants", &bad, r#"{"name": "x"}"#).await;
    same(
        &done,
        api.create_tenant(create_tenant("x", Some("a/b"))).await,
        400,
    );
    let done = rest.curl("POST tenants", &[], r#"{"name": "red"}"#).await;
    same(
        &done,
        api.create_tenant(create_tenant("red", None)).await,
        409,
    );
    let done = rest.curl("POST tenants", &[], r#"{"name": "blue"}"#).await;
    same(
        &done,
        api.create_tenant(create_tenant("blue", None)).await,
        201,
    );
    let done = rest.curl("POST tenants", &[], r#"{"name": "?"}"#).await;
    same(
        &done,
        api.create_tenant(create_tenant("?", None)).await,
        422,
    );
    // What has been changed since is not overwritten.
    let get = grpc.request(proto::GetTenantRequest { name: "red".into() });
    let red = api.get_tenant(get).await.unwrap().into_inner();
    let tag = format!("If-Match: \"{}\"", red.modified);
    for status in [200, 412] {
        let body = r#"{"description": "the reds"}"#;
        let done = rest.curl("PATCH tenants/red", &[&tag], body).await;
        let change = grpc.request(proto::ChangeTenantRequest {
            name: "red".into(),
            description: Some("the reds".into()),
            if_modified: Some(red.modified),
            ..Default::default()
        });
        same(&done, api.change_tenant(change).await, status);
    }
    // Attachments.
    for (tenant, router, prefix, status) in [
        ("red", "a1", "10.0.1.0/24", 200),
        ("red", "a9", "10.0.1.0/24", 404),
        ("blue", "a1", "10.0.1.0/24", 409),
        ("blue", "e1", "10.0.1.1/24", 422),
        ("none", "e1", "10.0.1.0/24", 404),
        ("blue", "e1", "10.0.2.0/24", 200),
    ] {
        let body = json!({ "interfaces": ["eth9"], "prefixes": [prefix] }).to_string();
        let line = format!("PUT tenants/{tenant}/attachments/{router}");
        let done = rest.curl(&line, &[], &body).await;
        let put = grpc.request(proto::PutAttachmentRequest {
            tenant: tenant.into(),
            router: router.into(),
            interfaces: vec!["eth9".into()],
            prefixes: vec![prefix.into()],
            ..Default::default()
        });
        same(&done, api.put_attachment(put).await, status);
    }
    // Routers: an edge's peer, and one that no edge may have.
    let peer = json!({ "name": "b", "address": "198.51.100.2", "asn": 64602, "tenants": ["red"] });
    for (name, status) in [("e1", 200), ("a1", 422), ("a9", 404)] {
        let body = json!({ "peers": [peer] }).to_string();
        let done = rest
            .curl(&format!("PATCH routers/{name}"), &[], &body)
            .await;
        let change = grpc.request(proto::ChangeRouterRequest {
            name: name.into(),
            peers: Some(proto::Peers {
                peers: vec![proto::Peer {
                    name: "b".into(),
                    address: "198.51.100.2".into(),
                    asn: 64602,
                    tenants: vec!["red".into()],
                    ttl: None,
                }],
            }),
            ..Default::default()
        });
        same(&done, api.change_router(change).await, status);
    }
    let done = rest.curl("DELETE tenants/red", &[], "").await;
    let delete = proto::DeleteTenantRequest {
        name: "red".into(),
        ..Default::default()
    };
    same(&done, api.delete_tenant(grpc.request(delete)).await, 409);
    // Tokens.
    let body = r#"{"scope": {"kind": "join", "role": "reflector"}, "ttl": 60, "uses": 2}"#;
    let done = rest.curl("POST tokens", &[], body).await;
    assert_eq!(done.0, 201);
    let role = Role::Reflector.into();
    let join = Scope::Join(proto::Join { role, name: None });
    let create = |scope, ttl, uses| {
        grpc.request(proto::CreateTokenRequest {
            scope: Some(proto::Scope { scope: Some(scope) }),
            ttl,
            uses,
        })
    };
    let made = api.create_token(create(join, Some(60), Some(2))).await;
    let made = made.unwrap().into_inner().token;
    by_grpc.rest(&made);
    let missing = proto::TenantAdministrator {
        tenant: "no".into(),
    };
    let body = r#"{"scope": {"kind": "tenant", "tenant": "no"}}"#;
    let done = rest.curl("POST tokens", &[], body).await;
    let scope = Scope::Tenant(missing);
    same(
        &done,
        api.create_token(create(scope, None, None)).await,
        404,
    );
    // Back to before the attachments, and somewhere that never was.
    let status = api.get_status(grpc.request(proto::GetStatusRequest {}));
    let status = status.await.unwrap().into_inner();
    assert_eq!(
        status.revision,
        by_rest.get("status").await["revision"].as_u64().unwrap()
    );
    assert_eq!(everything(&by_rest).await, everything(&by_grpc).await);
    for (number, status) in [(9999, 404), (red.modified, 200)] {
        let line = format!("POST revisions/{number}/rollback");
        let done = rest.curl(&line, &[], "").await;
        let back = proto::RollBackRequest {
            number,
            idempotency_key: None,
        };
        same(&done, api.roll_back(grpc.request(back)).await, status);
    }
    for controller in [&by_rest, &by_grpc] {
        let tenants = controller.get("tenants").await;
        assert_eq!(tenants["items"].as_array().unwrap().len(), 1, "{tenants}");
    }
    // What was asked for by one and is asked for again by the other is done once.
    let both = Both::operator(&by_grpc).await;
    let body = r#"{"name": "violet"}"#;
    let (status, text) = both.curl("POST tenants", &key, body).await;
    assert_eq!(status, 422, "the key of another: {text}");
    let key = ["Idempotency-Key: shared"];
    let (_, text) = both.curl("POST tenants", &key, body).await;
    let again = api.create_tenant(create_tenant("violet", Some("shared")));
    let again = again.await.unwrap().into_inner();
    assert!(text.contains(&format!("\"vni\":{}", again.vni)), "{text}");
    // No token, a token that is none, and one to join with.
    for token in ["", "nonsense", &made] {
        let (mut rest, mut grpc) = (
            Both::operator(&by_grpc).await,
            Both::operator(&by_grpc).await,
        );
        (rest.token, grpc.token) = (token.to_owned(), token.to_owned());
        let done = rest.curl("GET tenants", &[], "").await;
        let list = grpc.request(proto::ListTenantsRequest {});
        same(&done, grpc.grpc.list_tenants(list).await, 401);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tenants_token_is_held_to_its_tenant_on_both() {
    let scratch = Scratch::new();
    let controller = Running::new(&scratch, 30).await;
    controller
        .join("a1", "router", &scratch.path("a1"))
        .await
        .unwrap();
    for name in ["red", "blue"] {
        let body = json!({ "name": name });
        controller.ask(Method::POST, "tenants", body).await.unwrap();
    }
    let token = controller.token(json!({ "kind": "tenant", "tenant": "red" }));
    let red = Both::new(&controller, &token.await).await;
    let mut api = red.grpc.clone();
    let seen = api.list_tenants(red.request(proto::ListTenantsRequest {}));
    let seen = seen.await.unwrap().into_inner().tenants;
    assert_eq!(seen.len(), 1);
    assert!(seen[0].name == "red" && seen[0].modified > 0, "{seen:?}");
    for (tenant, status) in [("red", 200), ("blue", 404)] {
        let done = red.curl(&format!("GET tenants/{tenant}"), &[], "").await;
        let get = red.request(proto::GetTenantRequest {
            name: tenant.into(),
        });
        same(&done, api.get_tenant(get).await, status);
        let line = format!("PUT tenants/{tenant}/attachments/a1");
        let done = red.curl(&line, &[], "{}").await;
        let put = red.request(proto::PutAttachmentRequest {
            tenant: tenant.into(),
            router: "a1".into(),
            ..Default::default()
        });
        same(&done, api.put_attachment(put).await, status);
        let line = format!("GET performance?tenant={tenant}");
        let done = red.curl(&line, &[], "").await;
        let asked = red.request(proto::GetPerformanceRequest {
            tenant: Some(tenant.into()),
            ..Default::default()
        });
        same(&done, api.get_performance(asked).await, status);
    }
    let done = red.curl("GET routers", &[], "").await;
    let list = red.request(proto::ListRoutersRequest {});
    same(&done, api.list_routers(list).await, 403);
    let done = red.curl("GET revisions", &[], "").await;
    let list = red.request(proto::ListRevisionsRequest::default());
    same(&done, api.list_revisions(list).await, 403);
    // The body is not looked at before it is known who asks.
    let done = red.curl("POST tokens", &[], "{}").await;
    let create = red.request(proto::CreateTokenRequest::default());
    same(&done, api.create_token(create).await, 403);
    let watch = red.request(proto::WatchRequest::default());
    let refusal = api.watch(watch).await.map(drop).unwrap_err();
    assert_eq!(refusal.code(), Code::PermissionDenied, "{refusal}");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_watches_sees_every_revision_once_until_the_token_is_taken_back() {
    let scratch = Scratch::new();
    let controller = Running::new(&scratch, 30).await;
    let token = controller.token(json!({ "kind": "reader" })).await;
    let id = token.parse::<TokenText>().unwrap().id;
    let reader = Both::new(&controller, &token).await;
    let mut api = reader.grpc.clone();
    let since = |since| reader.request(proto::WatchRequest { since });
    // From the first one on, and then as they come.
    let mut watched = api.watch(since(Some(0))).await.unwrap().into_inner();
    let rename = async |number: u32| {
        let body = json!({ "description": number.to_string() });
        let done = controller.ask(Method::PATCH, "tenants/red", body);
        done.await.unwrap();
    };
    let body = json!({ "name": "red" });
    controller.ask(Method::POST, "tenants", body).await.unwrap();
    for number in 0..250 {
        rename(number).await;
    }
    let last = controller.get("status").await["revision"].as_u64().unwrap();
    for number in 1..=last {
        let revision = watched.message().await.unwrap().unwrap();
        assert_eq!(revision.number, number);
        // Nobody sees a token's hash.
        assert!(!format!("{revision:?}").contains("hash"));
    }
    // From now on.
    let mut now = api.watch(since(None)).await.unwrap().into_inner();
    rename(1000).await;
    for watched in [&mut watched, &mut now] {
        let revision = watched.message().await.unwrap().unwrap();
        assert_eq!(revision.number, last + 1);
        let tenant = revision.changes[0].new.clone().unwrap().record.unwrap();
        assert!(format!("{tenant:?}").contains("1000"), "{tenant:?}");
    }
    let path = format!("tokens/{id}");
    controller
        .ask(Method::DELETE, &path, Value::Null)
        .await
        .unwrap();
    let end = watched.message().await.unwrap_err();
    assert_eq!(end.code(), Code::Unauthenticated, "{end}");
}

/// What grpcurl asks first.
#[tokio::test(flavor = "multi_thread")]
async fn programs_can_ask_what_there_is_to_ask_for() {
    use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
    use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
    use tonic_reflection::pb::v1::{
        ServerReflectionRequest, server_reflection_response::MessageResponse,
    };
    let scratch = Scratch::new();
    let controller = Running::new(&scratch, 30).await;
    let token = std::fs::read_to_string(controller.folder.operator()).unwrap();
    let fingerprint = token.parse::<TokenText>().unwrap().fingerprint;
    let tls = client(&Trust::Fingerprint(fingerprint), None).unwrap();
    let address = controller.address.to_string();
    let channel = crate::client::connect(&address, tls).await.unwrap();
    let ask = ServerReflectionRequest {
        host: String::new(),
        message_request: Some(MessageRequest::ListServices(String::new())),
    };
    let mut asking = ServerReflectionClient::new(channel);
    let answers = asking.server_reflection_info(tokio_stream::once(ask)).await;
    let answer = answers.unwrap().into_inner().message().await.unwrap();
    let Some(MessageResponse::ListServicesResponse(list)) = answer.unwrap().message_response else {
        panic!("no list")
    };
    let names: Vec<String> = list.service.into_iter().map(|each| each.name).collect();
    for name in [
        "weft.management.v1.Management",
        "weft.discovery.v1.Discovery",
    ] {
        assert!(names.iter().any(|each| each == name), "{names:?}");
    }
}
