//! The decisions over other domains, and what those say, by REST and by gRPC.

use super::super::exchange::Side;
use super::*;
use crate::management_proto::record::Record;
use crate::pki::sha256;

/// Where nobody is.
fn introduction(name: &str) -> String {
    format!("weft://{name}@127.0.0.1:1/{}", sha256(name.as_bytes()))
}

fn ea(peer: &str) -> Vec<proto::Pair> {
    let (edge, peer) = ("ea".into(), peer.into());
    vec![proto::Pair { edge, peer }]
}

/// What is decided, and the history that led there, without what is random or a time.
async fn decided(controller: &Running) -> Vec<Value> {
    let mut domains = controller.get("domains").await;
    for domain in domains["items"].as_array_mut().unwrap() {
        // Nobody is there, which one controller may have seen before the other.
        domain.as_object_mut().unwrap().remove("error");
    }
    let mut all = vec![domains];
    let history = controller.get("revisions").await;
    let history = history["items"].as_array().unwrap().iter();
    let decisions = history.filter(|each| each["operation"].to_string().contains("domain"));
    all.extend(decisions.map(|each| json!([each["number"], each["operation"], each["changes"]])));
    all
}

/// The same decisions, one domain's by REST and the other's by gRPC, and the same mistakes.
#[tokio::test(flavor = "multi_thread")]
async fn other_domains_are_trusted_and_shared_with_alike_on_both() {
    let (one, other) = (Scratch::new(), Scratch::new());
    let (by_rest, by_grpc) = (Running::new(&one, 30).await, Running::new(&other, 30).await);
    for (scratch, controller) in [(&one, &by_rest), (&other, &by_grpc)] {
        let folder = scratch.path("ea");
        controller.join("ea", "edge", &folder).await.unwrap();
        let body = json!({ "name": "red" });
        controller.ask(Method::POST, "tenants", body).await.unwrap();
    }
    let rest = Both::operator(&by_rest).await;
    let grpc = Both::operator(&by_grpc).await;
    let mut api = grpc.grpc.clone();
    // Whom to trust, once with one key.
    let as_b = introduction("b").replace("weft://b@", "weft://c@");
    for (told, ttl, peer, key, status) in [
        ("nonsense", 1, "eb", None, 422),
        (&*introduction("lab"), 1, "eb", None, 422),
        (&*introduction("b"), 0, "eb", None, 422),
        (&*introduction("b"), 1, "?", None, 422),
        (&*introduction("b"), 1, "eb", Some("a/b"), 400),
        (&*introduction("b"), 1, "eb", Some("k"), 201),
        (&*introduction("b"), 1, "eb", Some("k"), 201),
        (&*introduction("b"), 2, "eb", Some("k"), 422),
        (&*introduction("b"), 1, "eb", None, 409),
        (&*as_b, 1, "eb", None, 409),
    ] {
        let pairs = json!([{ "edge": "ea", "peer": peer }]);
        let body = json!({ "introduction": told, "ttl": ttl, "pairs": pairs }).to_string();
        let header = key.map(|key| format!("Idempotency-Key: {key}"));
        let headers: Vec<&str> = header.iter().map(String::as_str).collect();
        let done = rest.curl("POST domains", &headers, &body).await;
        let trust = grpc.request(proto::TrustDomainRequest {
            introduction: told.into(),
            ttl: Some(ttl),
            pairs: ea(peer),
            if_modified: None,
            idempotency_key: key.map(ToOwned::to_owned),
        });
        same(&done, api.trust_domain(trust).await, status);
    }
    // What by REST is absent is absent by gRPC: with one key it is the same.
    let both = Both::operator(&by_grpc).await;
    let body = json!({ "introduction": introduction("d") }).to_string();
    let key = ["Idempotency-Key: shared"];
    assert_eq!(both.curl("POST domains", &key, &body).await.0, 201);
    let again = proto::TrustDomainRequest {
        introduction: introduction("d"),
        idempotency_key: Some("shared".into()),
        ..Default::default()
    };
    let again = api.trust_domain(grpc.request(again)).await.unwrap();
    let again = again.into_inner();
    assert_eq!((&*again.name, again.ttl), ("d", 1), "{again:?}");
    let done = rest.curl("POST domains", &key, &body).await;
    assert_eq!(done.0, 201);
    // What has been changed since is not overwritten, and a domain does not become another.
    let name = || "b".to_owned();
    let get = grpc.request(proto::GetOtherDomainRequest { name: name() });
    let b = api.get_other_domain(get).await.unwrap().into_inner();
    assert_eq!((b.ttl, b.pairs), (1, ea("eb")));
    let tag = format!("If-Match: \"{}\"", b.modified);
    for status in [200, 412] {
        let pairs = json!([{ "edge": "ea", "peer": "eb2" }]);
        let body = json!({ "ttl": 3, "pairs": pairs }).to_string();
        let done = rest.curl("PATCH domains/b", &[&tag], &body).await;
        let change = grpc.request(proto::ChangeTrustRequest {
            name: name(),
            ttl: Some(3),
            pairs: Some(proto::Pairs { pairs: ea("eb2") }),
            if_modified: Some(b.modified),
            ..Default::default()
        });
        same(&done, api.change_trust(change).await, status);
    }
    for (name, told, status) in [
        ("b", introduction("c"), 409),
        ("b", introduction("b").replace(":1/", ":2/"), 200),
        ("c", introduction("c"), 404),
    ] {
        let body = json!({ "introduction": told }).to_string();
        let line = format!("PATCH domains/{name}");
        let done = rest.curl(&line, &[], &body).await;
        let change = grpc.request(proto::ChangeTrustRequest {
            name: name.into(),
            introduction: Some(told),
            ..Default::default()
        });
        same(&done, api.change_trust(change).await, status);
    }
    for ttl in [0, 256] {
        let change = proto::ChangeTrustRequest {
            name: name(),
            ttl: Some(ttl),
            ..Default::default()
        };
        let refused = api.change_trust(grpc.request(change)).await.unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument, "{refused}");
        assert_eq!(refused.message(), "a TTL is 1 to 255");
    }
    // What it may know of.
    for (domain, tenant, status) in [
        ("b", "red", 200),
        ("b", "none", 404),
        ("c", "red", 404),
        ("d", "red", 200),
    ] {
        let line = format!("PUT domains/{domain}/shared/{tenant}");
        let done = rest.curl(&line, &[], "").await;
        let share = grpc.request(proto::ShareTenantRequest {
            domain: domain.into(),
            tenant: tenant.into(),
            ..Default::default()
        });
        same(&done, api.share_tenant(share).await, status);
    }
    for (name, status) in [("b", 200), ("c", 404)] {
        for what in ["shared", "routers", "tenants"] {
            let line = format!("GET domains/{name}/{what}");
            let done = rest.curl(&line, &[], "").await;
            let name = name.to_owned();
            match what {
                "shared" => {
                    let list = grpc.request(proto::ListSharesRequest { name });
                    same(&done, api.list_shares(list).await, status);
                }
                "routers" => {
                    let list = grpc.request(proto::ListRemoteRoutersRequest { name });
                    same(&done, api.list_remote_routers(list).await, status);
                }
                _ => {
                    let list = grpc.request(proto::ListRemoteTenantsRequest { name });
                    same(&done, api.list_remote_tenants(list).await, status);
                }
            }
        }
    }
    let before = decided(&by_rest).await;
    assert_eq!(before[0]["items"][0]["ttl"], 3, "{before:?}");
    assert_eq!(before[0]["items"][0]["shared"], 1, "{before:?}");
    assert_eq!(before, decided(&by_grpc).await);
    // No more of it.
    for (tenant, status) in [("red", 204), ("red", 404)] {
        let line = format!("DELETE domains/b/shared/{tenant}");
        let done = rest.curl(&line, &[], "").await;
        let unshare = grpc.request(proto::UnshareTenantRequest {
            domain: name(),
            tenant: tenant.into(),
            ..Default::default()
        });
        same(&done, api.unshare_tenant(unshare).await, status);
    }
    for (name, status) in [("b", 204), ("b", 404), ("d", 204)] {
        let done = rest.curl(&format!("DELETE domains/{name}"), &[], "").await;
        let distrust = grpc.request(proto::DistrustDomainRequest {
            name: name.into(),
            ..Default::default()
        });
        same(&done, api.distrust_domain(distrust).await, status);
    }
    let after = decided(&by_rest).await;
    assert_eq!(after[0]["items"], json!([]), "{after:?}");
    assert_eq!(after, decided(&by_grpc).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tenants_token_decides_and_sees_nothing_of_other_domains() {
    let scratch = Scratch::new();
    let controller = Running::new(&scratch, 30).await;
    let body = json!({ "name": "red" });
    controller.ask(Method::POST, "tenants", body).await.unwrap();
    let body = json!({ "introduction": introduction("b") });
    controller.ask(Method::POST, "domains", body).await.unwrap();
    let before = decided(&controller).await;
    let token = controller.token(json!({ "kind": "tenant", "tenant": "red" }));
    let red = Both::new(&controller, &token.await).await;
    let token = controller.token(json!({ "kind": "reader" }));
    let reader = Both::new(&controller, &token.await).await;
    let name = || "b".to_owned();
    for (who, seen) in [(&red, 403), (&reader, 200)] {
        let mut api = who.grpc.clone();
        let done = who.curl("GET introduction", &[], "").await;
        let get = who.request(proto::GetIntroductionRequest {});
        same(&done, api.get_introduction(get).await, seen);
        let done = who.curl("GET domains", &[], "").await;
        let list = who.request(proto::ListDomainsRequest {});
        same(&done, api.list_domains(list).await, seen);
        let done = who.curl("GET domains/b", &[], "").await;
        let get = who.request(proto::GetOtherDomainRequest { name: name() });
        same(&done, api.get_other_domain(get).await, seen);
        let done = who.curl("GET domains/b/routers", &[], "").await;
        let list = who.request(proto::ListRemoteRoutersRequest { name: name() });
        same(&done, api.list_remote_routers(list).await, seen);
        let done = who.curl("GET domains/b/tenants", &[], "").await;
        let list = who.request(proto::ListRemoteTenantsRequest { name: name() });
        same(&done, api.list_remote_tenants(list).await, seen);
        let done = who.curl("GET domains/b/shared", &[], "").await;
        let list = who.request(proto::ListSharesRequest { name: name() });
        same(&done, api.list_shares(list).await, seen);
        // The body is not looked at before it is known who asks.
        let done = who.curl("POST domains", &[], "{}").await;
        let trust = who.request(proto::TrustDomainRequest::default());
        same(&done, api.trust_domain(trust).await, 403);
        let done = who.curl("PATCH domains/b", &[], r#"{"ttl": 0}"#).await;
        let change = who.request(proto::ChangeTrustRequest {
            name: name(),
            ttl: Some(0),
            ..Default::default()
        });
        same(&done, api.change_trust(change).await, 403);
        let done = who.curl("DELETE domains/b", &[], "").await;
        let distrust = who.request(proto::DistrustDomainRequest {
            name: name(),
            ..Default::default()
        });
        same(&done, api.distrust_domain(distrust).await, 403);
        let done = who.curl("PUT domains/b/shared/red", &[], "").await;
        let share = who.request(proto::ShareTenantRequest {
            domain: name(),
            tenant: "red".into(),
            ..Default::default()
        });
        same(&done, api.share_tenant(share).await, 403);
        let done = who.curl("DELETE domains/b/shared/red", &[], "").await;
        let unshare = who.request(proto::UnshareTenantRequest {
            domain: name(),
            tenant: "red".into(),
            ..Default::default()
        });
        same(&done, api.unshare_tenant(unshare).await, 403);
    }
    assert_eq!(before, decided(&controller).await);
}

/// What a record is, as REST calls it.
fn kind(record: &Option<proto::Record>) -> Option<&'static str> {
    let record = record.as_ref()?.record.as_ref()?;
    Some(match record {
        Record::Trust(_) => "trust",
        Record::Share(_) => "share",
        Record::Remote(_) => "remote",
        Record::RemoteRouter(_) => "remote-router",
        Record::RemoteTenant(_) => "remote-tenant",
        _ => "ours",
    })
}

fn status(each: &proto::DomainStatus) -> Value {
    let exchange = match each.exchange() {
        proto::Exchange::Unspecified => "",
        proto::Exchange::Waiting => "waiting",
        proto::Exchange::Current => "current",
        proto::Exchange::Stale => "stale",
    };
    json!({
        "name": each.name, "exchange": exchange, "stale": each.stale, "asn": each.asn, "followers": each.followers,
        "followed": each.followed, "routers": each.routers, "tenants": each.tenants, "shared": each.shared,
    })
}

/// Without what goes on meanwhile.
fn still(mut each: Value) -> Value {
    let fields = each.as_object_mut().unwrap();
    for name in ["revision", "last_heard", "lag"] {
        assert!(fields.remove(name).unwrap().is_u64(), "{name}");
    }
    each
}

#[tokio::test(flavor = "multi_thread")]
async fn what_another_domain_says_is_the_same_on_both_and_so_is_its_history() {
    let (a, b) = (Side::new(1).await, Side::new(2).await);
    let (_ea, _eb) = (a.edge("e").await, b.edge("e").await);
    let grpc = Both::operator(&a.controller).await;
    let mut api = grpc.grpc.clone();
    let since = Some(0);
    let watched = api.watch(grpc.request(proto::WatchRequest { since }));
    let mut watched = watched.await.unwrap().into_inner();
    // Who asks, and by what it may be trusted.
    b.trust(&a).await;
    let asking = |each: &Value| each["asking"][0]["name"] == "b";
    let said = a.until_at("domains", "who asks", asking).await;
    let list = grpc.request(proto::ListDomainsRequest {});
    let listed = api.list_domains(list).await.unwrap().into_inner();
    assert!(listed.domains.is_empty(), "{listed:?}");
    let [stranger] = &listed.asking[..] else {
        panic!("{listed:?}")
    };
    let asked = &said["asking"][0];
    assert_eq!(
        (&*stranger.name, &*stranger.fingerprint),
        ("b", asked["fingerprint"].as_str().unwrap())
    );
    assert!(stranger.at >= asked["at"].as_u64().unwrap(), "{stranger:?}");
    let get = grpc.request(proto::GetIntroductionRequest {});
    let own = api.get_introduction(get).await.unwrap().into_inner();
    assert_eq!(own.introduction, a.introduction().await);
    a.trust(&b).await;
    a.current(&b).await;
    b.current(&a).await;
    for (side, other, tenant) in [(&a, "b", "red"), (&b, "a", "blue")] {
        let body = json!({ "name": tenant });
        side.ask(Method::POST, "tenants", body).await.unwrap();
        let path = format!("domains/{other}/shared/{tenant}");
        side.ask(Method::PUT, &path, Value::Null).await.unwrap();
    }
    let whole = |each: &Value| {
        let counts = ["tenants", "routers", "followers", "followed"];
        counts.iter().all(|count| each[count] == 1) && each["error"] == Value::Null
    };
    let said = a.until(&b, "its edge and its tenant", whole).await;
    // How the exchange does.
    let name = || "b".to_owned();
    let get = grpc.request(proto::GetOtherDomainRequest { name: name() });
    let told = api.get_other_domain(get).await.unwrap().into_inner();
    let mut found = status(told.status.as_ref().unwrap());
    let get = grpc.request(proto::GetStatusRequest {});
    let condition = api.get_status(get).await.unwrap().into_inner();
    assert_eq!(status(&condition.domains[0]), found);
    assert!(condition.domains[0].last_heard.is_some() && condition.domains[0].lag.is_some());
    found["controllers"] = json!(told.controllers);
    found["fingerprint"] = json!(told.fingerprint);
    found["ttl"] = json!(told.ttl);
    found["pairs"] = json!([]);
    assert!(told.pairs.is_empty());
    assert_eq!(found, still(said));
    let (_, text) = grpc.curl("GET domains/b", &[], "").await;
    let tag = format!("etag: \"{}\"", told.modified);
    assert!(text.contains(&tag), "{tag}: {text}");
    // What it says, and what it is told.
    let list = grpc.request(proto::ListRemoteRoutersRequest { name: name() });
    let routers = api.list_remote_routers(list).await.unwrap().into_inner();
    let routers = routers.routers.iter().map(|told| {
        assert!(told.modified > 0, "{told:?}");
        json!({
            "domain": told.domain, "name": told.name, "asn": told.asn, "router_id": told.router_id, "bgp_address": told.bgp_address,
            "endpoint": told.endpoint, "encapsulations": told.encapsulations, "capacity": told.capacity, "expired": told.expired,
            "peers": told.peers,
        })
    });
    let routers: Vec<Value> = routers.collect();
    assert_eq!(routers, a.items("domains/b/routers").await);
    let list = grpc.request(proto::ListRemoteTenantsRequest { name: name() });
    let tenants = api.list_remote_tenants(list).await.unwrap().into_inner();
    let [blue] = &tenants.tenants[..] else {
        panic!("{tenants:?}")
    };
    let found = json!({
        "domain": blue.domain, "name": blue.name, "vni": blue.vni, "home": blue.home, "id": blue.id,
    });
    assert_eq!([found], a.items("domains/b/tenants").await[..]);
    let list = grpc.request(proto::ListSharesRequest { name: name() });
    let shares = api.list_shares(list).await.unwrap().into_inner();
    let [red] = &shares.shares[..] else {
        panic!("{shares:?}")
    };
    let found = json!({ "domain": red.domain, "tenant": red.tenant });
    assert_eq!([found], a.items("domains/b/shared").await[..]);
    // Who is trusted no more is forgotten, and each change of that is told, by Watch too.
    let distrust = grpc.request(proto::DistrustDomainRequest {
        name: name(),
        ..Default::default()
    });
    api.distrust_domain(distrust).await.unwrap();
    let (mut came, mut went) = (Vec::new(), Vec::new());
    while !went.contains(&"trust") {
        let revision = watched.message().await.unwrap().unwrap();
        let path = format!("revisions/{}", revision.number);
        let said = a.controller.get(&path).await;
        let said = said["changes"].as_array().unwrap();
        assert_eq!(said.len(), revision.changes.len(), "{revision:?}");
        let get = grpc.request(proto::GetRevisionRequest {
            number: revision.number,
        });
        let kept = api.get_revision(get).await.unwrap().into_inner();
        assert_eq!(kept, revision);
        for (change, said) in revision.changes.iter().zip(said) {
            assert_eq!(change.key, said["key"].as_str().unwrap());
            for (record, said) in [(&change.old, &said["old"]), (&change.new, &said["new"])] {
                match kind(record) {
                    None => assert!(said.is_null(), "{change:?} {said}"),
                    Some("ours") => assert!(said.is_object(), "{change:?}"),
                    Some(kind) => assert!(said[kind].is_object(), "{change:?} {said}"),
                }
            }
            match (kind(&change.old), kind(&change.new)) {
                (None, Some(new)) => came.push(new),
                (Some(old), None) => went.push(old),
                _ => {}
            }
        }
    }
    for kind in ["trust", "share", "remote", "remote-router", "remote-tenant"] {
        assert!(came.contains(&kind), "{kind}: {came:?}");
        assert!(went.contains(&kind), "{kind}: {went:?}");
    }
}
