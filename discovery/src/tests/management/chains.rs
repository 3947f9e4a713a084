//! Services and chains, by REST and by gRPC.

use std::collections::{BTreeMap, BTreeSet};

use super::super::exchange::Side;
use super::*;
use crate::management_proto::record::Record;

/// The tenant's services and chains, and the history that led there.
async fn kept(controller: &Running) -> Vec<Value> {
    let mut all = Vec::new();
    for path in ["tenants/red/services", "tenants/red/chains"] {
        all.push(controller.get(path).await);
    }
    let history = controller.get("revisions").await;
    let history = history["items"].as_array().unwrap().iter();
    all.extend(history.filter_map(|each| {
        let operation = each["operation"].as_str().unwrap();
        // When a label may be given again is a time.
        let changes = (!operation.starts_with("delete")).then_some(&each["changes"]);
        let ours = operation.contains("service") || operation.contains("chain");
        ours.then(|| json!([each["number"], operation, changes]))
    }));
    all
}

async fn prepared(scratch: &Scratch) -> Running {
    let range = Domain {
        last_vni: 10_009,
        ..domain(30)
    };
    let controller = Running::of(scratch, range, Vec::new()).await;
    for name in ["a1", "a2"] {
        let folder = scratch.path(name);
        controller.join(name, "router", &folder).await.unwrap();
    }
    for name in ["red", "blue"] {
        let body = json!({ "name": name });
        controller.ask(Method::POST, "tenants", body).await.unwrap();
    }
    let body = json!({ "interfaces": ["red0"] });
    let path = "tenants/red/attachments/a1";
    controller.ask(Method::PUT, path, body).await.unwrap();
    controller
}

/// A service with all that there is to say of one, as both say it.
fn firewall() -> (Value, proto::PutServiceRequest) {
    let body = json!({
        "on_failure": "over", "rewrites": false, "selection": "pinned",
        "attachments": [{
            "router": "a2", "interface": "fw0", "node": ["169.254.1.2", "fe80::2"],
            "outside": { "interface": "fw1", "node": ["169.254.2.2"] },
            "probe": { "kind": "http", "port": 8080, "path": "/up", "interval": 200 },
        }],
    });
    let attachment = proto::ServiceAttachment {
        router: "a2".into(),
        interface: "fw0".into(),
        node: vec!["169.254.1.2".into(), "fe80::2".into()],
        outside: Some(proto::Outside {
            interface: "fw1".into(),
            node: vec!["169.254.2.2".into()],
        }),
        probe: Some(proto::Probe {
            kind: proto::ProbeKind::Http.into(),
            port: Some(8080),
            path: Some("/up".into()),
            interval: Some(200),
        }),
    };
    let put = proto::PutServiceRequest {
        tenant: "red".into(),
        name: "firewall".into(),
        on_failure: proto::OnFailure::Over.into(),
        selection: Some(proto::Selection::Pinned.into()),
        attachments: vec![attachment],
        ..Default::default()
    };
    (body, put)
}

/// A chain with all that there is to say of one, as both say it.
fn web() -> (Value, proto::PutChainRequest) {
    let body = json!({
        "priority": 7, "services": ["firewall", "meter"], "symmetric": true,
        "match": {
            "source": ["10.0.1.0/24"], "destination": ["10.0.2.0/24"], "protocol": 6, "source_ports": ["1024-65535"],
            "destination_ports": [80, "8000-8100", "0443"], "dscp": 46,
        },
    });
    let matches = proto::Match {
        source: vec!["10.0.1.0/24".into()],
        destination: vec!["10.0.2.0/24".into()],
        protocol: Some("6".into()),
        source_ports: vec!["1024-65535".into()],
        destination_ports: vec!["80".into(), "8000-8100".into(), "0443".into()],
        dscp: Some(46),
    };
    let put = proto::PutChainRequest {
        tenant: "red".into(),
        name: "web".into(),
        priority: Some(7),
        r#match: Some(matches),
        services: vec!["firewall".into(), "meter".into()],
        symmetric: true,
        ..Default::default()
    };
    (body, put)
}

/// The same services and chains, one domain's by REST and the other's by gRPC, and the same mistakes.
#[tokio::test(flavor = "multi_thread")]
async fn services_and_chains_are_put_and_refused_alike_on_both() {
    let (one, other) = (Scratch::new(), Scratch::new());
    let (by_rest, by_grpc) = (prepared(&one).await, prepared(&other).await);
    let rest = Both::operator(&by_rest).await;
    let grpc = Both::operator(&by_grpc).await;
    let mut api = grpc.grpc.clone();
    let (body, whole) = firewall();
    // Once with one key.
    for _ in 0..2 {
        let key = ["Idempotency-Key: k"];
        let line = "PUT tenants/red/services/firewall";
        let done = rest.curl(line, &key, &body.to_string()).await;
        let mut put = whole.clone();
        put.idempotency_key = Some("k".into());
        same(&done, api.put_service(grpc.request(put)).await, 200);
    }
    let node = |router: &str, interface: &str, node: &str| proto::ServiceAttachment {
        router: router.into(),
        interface: interface.into(),
        node: vec![node.into()],
        ..Default::default()
    };
    for (tenant, name, label, router, interface, status) in [
        ("red", "meter", None, "a1", "m0", 200),
        ("red", "x!", None, "a1", "m1", 422),
        ("none", "cache", None, "a1", "m1", 404),
        ("red", "cache", None, "a9", "m1", 404),
        ("red", "cache", None, "a1", "red0", 409),
        ("blue", "cache", None, "a2", "fw1", 409),
        ("red", "cache", Some(0), "a1", "m1", 422),
        ("red", "cache", Some(10_000), "a1", "m1", 409),
        ("red", "meter", Some(77), "a1", "m0", 422),
    ] {
        let attachment =
            json!({ "router": router, "interface": interface, "node": ["169.254.3.2"] });
        let body = json!({ "label": label, "attachments": [attachment] }).to_string();
        let line = format!("PUT tenants/{tenant}/services/{name}");
        let done = rest.curl(&line, &[], &body).await;
        let put = grpc.request(proto::PutServiceRequest {
            tenant: tenant.into(),
            name: name.into(),
            label,
            attachments: vec![node(router, interface, "169.254.3.2")],
            ..Default::default()
        });
        same(&done, api.put_service(put).await, status);
    }
    // What is no address and no choice.
    let wrong = |change: &dyn Fn(&mut proto::PutServiceRequest)| {
        let mut put = whole.clone();
        change(&mut put);
        grpc.request(put)
    };
    for put in [
        wrong(&|each| each.attachments[0].node = vec!["fw".into()]),
        wrong(&|each| each.attachments[0].probe.as_mut().unwrap().port = Some(65_536)),
        wrong(&|each| each.attachments[0].probe.as_mut().unwrap().kind = 9),
        wrong(&|each| each.on_failure = 9),
        wrong(&|each| each.selection = Some(0)),
    ] {
        let refused = api.put_service(put).await.unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument, "{refused}");
    }
    // Chains.
    let (body, put) = web();
    let line = "PUT tenants/red/chains/web";
    let done = rest.curl(line, &[], &body.to_string()).await;
    same(&done, api.put_chain(grpc.request(put)).await, 200);
    for (name, services, symmetric, protocol, port, dscp, status) in [
        ("past", vec![], false, None, None, None, 200),
        ("one", vec!["meter"], false, None, None, Some(0), 200),
        ("none", vec!["cache"], false, None, None, None, 422),
        (
            "twice",
            vec!["meter", "meter"],
            false,
            None,
            None,
            None,
            422,
        ),
        ("blind", vec!["meter"], true, None, None, None, 422),
        ("x!", vec!["meter"], false, None, None, None, 422),
        ("ports", vec!["meter"], false, None, Some("80"), None, 422),
        (
            "ports",
            vec!["meter"],
            false,
            Some("tcp"),
            Some("x"),
            None,
            422,
        ),
        ("word", vec!["meter"], false, Some("tpc"), None, None, 422),
        ("point", vec!["meter"], false, None, None, Some(64), 422),
    ] {
        let ports: Vec<String> = port.into_iter().map(ToOwned::to_owned).collect();
        let matches = json!({ "protocol": protocol, "destination_ports": ports, "dscp": dscp });
        let body = json!({ "services": services, "symmetric": symmetric, "match": matches });
        let line = format!("PUT tenants/red/chains/{name}");
        let done = rest.curl(&line, &[], &body.to_string()).await;
        let matches = proto::Match {
            protocol: protocol.map(ToOwned::to_owned),
            destination_ports: ports,
            dscp,
            ..Default::default()
        };
        let put = grpc.request(proto::PutChainRequest {
            tenant: "red".into(),
            name: name.into(),
            r#match: Some(matches),
            services: services.into_iter().map(ToOwned::to_owned).collect(),
            symmetric,
            ..Default::default()
        });
        same(&done, api.put_chain(put).await, status);
    }
    let before = kept(&by_rest).await;
    assert_eq!(before[0]["items"].as_array().unwrap().len(), 2);
    assert_eq!(before[1]["items"].as_array().unwrap().len(), 3);
    assert_eq!(before, kept(&by_grpc).await);
    // What is put is what is answered, alone and in a list.
    let (tenant, name) = (|| "red".to_owned(), |each: &str| each.to_owned());
    let (_, asked) = web();
    let get = proto::GetChainRequest {
        tenant: tenant(),
        name: name("web"),
    };
    let chain = api.get_chain(grpc.request(get)).await.unwrap().into_inner();
    assert_eq!(chain.r#match, asked.r#match);
    assert_eq!((chain.priority, chain.services.len()), (7, 2), "{chain:?}");
    let list = grpc.request(proto::ListChainsRequest { tenant: tenant() });
    let chains = api.list_chains(list).await.unwrap().into_inner().chains;
    assert!(chains.len() == 3 && chains.contains(&chain), "{chains:?}");
    let get = grpc.request(proto::GetServiceRequest {
        tenant: tenant(),
        name: name("firewall"),
    });
    let service = api.get_service(get).await.unwrap().into_inner();
    assert_eq!(service.attachments, whole.attachments);
    assert_eq!(service.on_failure(), proto::OnFailure::Over);
    assert_eq!(service.selection(), proto::Selection::Pinned);
    let list = grpc.request(proto::ListServicesRequest { tenant: tenant() });
    let services = api.list_services(list).await.unwrap().into_inner().services;
    assert!(
        services.len() == 2 && services.contains(&service),
        "{services:?}"
    );
    // So does the history, with whose label a VNI is.
    let history = grpc.request(proto::ListRevisionsRequest::default());
    let history = api.list_revisions(history).await.unwrap().into_inner();
    let changes = history.revisions.into_iter().flat_map(|each| each.changes);
    let new: Vec<Record> = changes.filter_map(|each| each.new?.record).collect();
    let told = |wanted: &dyn Fn(&Record) -> bool| assert!(new.iter().any(wanted), "{new:?}");
    told(&|each| matches!(each, Record::Chain(each) if each.r#match == asked.r#match));
    told(&|each| matches!(each, Record::Service(each) if each.attachments == whole.attachments));
    told(
        &|each| matches!(each, Record::Vni(each) if each.vni == service.label && each.service.as_deref() == Some("firewall")),
    );
    // What has been changed since is not overwritten, and what a chain goes through stays.
    for (what, status) in [("meter", 409), ("cache", 404)] {
        let line = format!("DELETE tenants/red/services/{what}");
        let done = rest.curl(&line, &[], "").await;
        let delete = grpc.request(proto::DeleteServiceRequest {
            tenant: tenant(),
            name: what.into(),
            ..Default::default()
        });
        same(&done, api.delete_service(delete).await, status);
    }
    for (what, modified, status) in [
        ("web", chain.modified + 1, 412),
        ("web", chain.modified, 204),
        ("web", 0, 404),
        ("one", 0, 204),
    ] {
        let modified = (modified > 0).then_some(modified);
        let tag = modified.map(|each| format!("If-Match: \"{each}\""));
        let headers: Vec<&str> = tag.iter().map(String::as_str).collect();
        let line = format!("DELETE tenants/red/chains/{what}");
        let done = rest.curl(&line, &headers, "").await;
        let delete = grpc.request(proto::DeleteChainRequest {
            tenant: tenant(),
            name: what.into(),
            if_modified: modified,
            ..Default::default()
        });
        same(&done, api.delete_chain(delete).await, status);
    }
    let done = rest
        .curl("DELETE tenants/red/services/meter", &[], "")
        .await;
    let delete = grpc.request(proto::DeleteServiceRequest {
        tenant: tenant(),
        name: name("meter"),
        ..Default::default()
    });
    same(&done, api.delete_service(delete).await, 204);
    assert_eq!(kept(&by_rest).await, kept(&by_grpc).await);
    // With one key the same is asked for by both.
    let (body, mut put) = firewall();
    let key = ["Idempotency-Key: shared"];
    let both = Both::operator(&by_grpc).await;
    let line = "PUT tenants/red/services/firewall";
    let done = both.curl(line, &key, &body.to_string()).await;
    put.idempotency_key = Some("shared".into());
    same(&done, api.put_service(grpc.request(put)).await, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tenants_token_has_its_own_services_and_chains_on_both() {
    let scratch = Scratch::new();
    let controller = prepared(&scratch).await;
    let token = controller.token(json!({ "kind": "tenant", "tenant": "red" }));
    let red = Both::new(&controller, &token.await).await;
    let token = controller.token(json!({ "kind": "reader" }));
    let reader = Both::new(&controller, &token.await).await;
    for (who, tenant, seen, changed) in [
        (&red, "red", [200, 200], 200),
        (&red, "blue", [404, 404], 404),
        (&reader, "red", [200, 200], 403),
        (&reader, "blue", [200, 404], 403),
    ] {
        let mut api = who.grpc.clone();
        let name = || "x".to_owned();
        let tenant = || tenant.to_owned();
        let path = format!("tenants/{}", tenant());
        let line = |method: &str, what: &str| format!("{method} {path}/{what}");
        let done = who.curl(&line("PUT", "services/x"), &[], "{}").await;
        let put = who.request(proto::PutServiceRequest {
            tenant: tenant(),
            name: name(),
            ..Default::default()
        });
        same(&done, api.put_service(put).await, changed);
        let body = r#"{"services": []}"#;
        let done = who.curl(&line("PUT", "chains/x"), &[], body).await;
        let put = who.request(proto::PutChainRequest {
            tenant: tenant(),
            name: name(),
            ..Default::default()
        });
        same(&done, api.put_chain(put).await, changed);
        let [listed, found] = seen;
        let done = who.curl(&line("GET", "services"), &[], "").await;
        let list = who.request(proto::ListServicesRequest { tenant: tenant() });
        same(&done, api.list_services(list).await, listed);
        let done = who.curl(&line("GET", "chains"), &[], "").await;
        let list = who.request(proto::ListChainsRequest { tenant: tenant() });
        same(&done, api.list_chains(list).await, listed);
        let done = who.curl(&line("GET", "services/x"), &[], "").await;
        let get = who.request(proto::GetServiceRequest {
            tenant: tenant(),
            name: name(),
        });
        same(&done, api.get_service(get).await, found);
        let done = who.curl(&line("GET", "chains/x"), &[], "").await;
        let get = who.request(proto::GetChainRequest {
            tenant: tenant(),
            name: name(),
        });
        same(&done, api.get_chain(get).await, found);
        if changed == 200 {
            continue;
        }
        let done = who.curl(&line("DELETE", "chains/x"), &[], "").await;
        let delete = who.request(proto::DeleteChainRequest {
            tenant: tenant(),
            name: name(),
            ..Default::default()
        });
        same(&done, api.delete_chain(delete).await, changed);
        let done = who.curl(&line("DELETE", "services/x"), &[], "").await;
        let delete = who.request(proto::DeleteServiceRequest {
            tenant: tenant(),
            name: name(),
            ..Default::default()
        });
        same(&done, api.delete_service(delete).await, changed);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn history_tells_what_another_domain_offers() {
    let (a, b) = (Side::new(1).await, Side::new(2).await);
    a.trust(&b).await;
    b.trust(&a).await;
    a.current(&b).await;
    b.current(&a).await;
    let grpc = Both::operator(&a.controller).await;
    let mut api = grpc.grpc.clone();
    let since = Some(0);
    let watched = api.watch(grpc.request(proto::WatchRequest { since }));
    let mut watched = watched.await.unwrap().into_inner();
    let body = json!({ "name": "red" });
    b.ask(Method::POST, "tenants", body).await.unwrap();
    let share = b.ask(Method::PUT, "domains/a/shared/red", Value::Null);
    share.await.unwrap();
    let path = "tenants/red/services/firewall";
    let made = b.ask(Method::PUT, path, json!({})).await.unwrap();
    a.until(&b, "the tenant", |each| each["tenants"] == 1).await;
    let body = json!({ "name": "red", "home": "b" });
    a.ask(Method::POST, "tenants", body).await.unwrap();
    let share = a.ask(Method::PUT, "domains/b/shared/red", Value::Null);
    share.await.unwrap();
    let told = async {
        loop {
            let revision = watched.message().await.unwrap().unwrap();
            for record in revision
                .changes
                .into_iter()
                .filter_map(|each| each.new?.record)
            {
                if let Record::RemoteService(each) = record {
                    return each;
                }
            }
        }
    };
    let told = tokio::time::timeout(Duration::from_secs(30), told).await;
    let told = told.unwrap();
    assert_eq!((&*told.domain, &*told.name), ("b", "firewall"), "{told:?}");
    assert_eq!(json!(told.label), made["label"]);
}

/// Labels of a tenant's services, by name.
async fn labels(controller: &Running) -> BTreeMap<String, u64> {
    let services = controller.get("tenants/red/services").await;
    let services = services["items"].as_array().unwrap().iter();
    services
        .map(|each| {
            (
                each["name"].as_str().unwrap().to_owned(),
                each["label"].as_u64().unwrap(),
            )
        })
        .collect()
}

/// Puts what is refused until something is heard from the other domain.
async fn heard(side: &Side, path: &str, body: Value) {
    let end = Instant::now() + Duration::from_secs(30);
    while let Err(problem) = side.ask(Method::PUT, path, body.clone()).await {
        assert!(Instant::now() < end, "{problem}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn put_chain(controller: &Running, services: &[&str]) {
    let body = json!({ "services": services });
    controller
        .ask(Method::PUT, "tenants/red/chains/web", body)
        .await
        .unwrap();
}

/// A router that is cut off has the old chain, and does not know what comes with the labels of the new one.
#[tokio::test(flavor = "multi_thread")]
async fn services_that_change_places_get_other_labels() {
    let scratch = Scratch::new();
    let controller = prepared(&scratch).await;
    for name in ["firewall", "meter", "cache"] {
        let path = format!("tenants/red/services/{name}");
        controller.ask(Method::PUT, &path, json!({})).await.unwrap();
    }
    put_chain(&controller, &["firewall", "meter"]).await;
    let first = labels(&controller).await;
    // One more, and one less.
    put_chain(&controller, &["firewall", "cache", "meter"]).await;
    put_chain(&controller, &["firewall", "meter"]).await;
    assert_eq!(labels(&controller).await, first);
    put_chain(&controller, &["meter", "firewall"]).await;
    let second = labels(&controller).await;
    let used: BTreeSet<u64> = first.values().chain(second.values()).copied().collect();
    assert_eq!(used.len(), 5, "{first:?} {second:?}");
    assert_eq!(first["cache"], second["cache"]);
    // In two steps it is the same, to a router that has missed the one between.
    put_chain(&controller, &["firewall"]).await;
    assert_eq!(labels(&controller).await, second);
    put_chain(&controller, &["firewall", "meter"]).await;
    let third = labels(&controller).await;
    assert!(third["firewall"] != second["firewall"] && third["meter"] != second["meter"]);
    // The order of the past comes back, and its labels do not.
    let revisions = controller.get("revisions").await;
    let revisions = revisions["items"].as_array().unwrap().iter();
    let number = revisions.filter(|each| each["operation"] == "put chain web of tenant red");
    let numbers: Vec<u64> = number
        .map(|each| each["number"].as_u64().unwrap())
        .collect();
    let path = format!("revisions/{}/rollback", numbers.iter().max().unwrap() - 1);
    controller
        .ask(Method::POST, &path, Value::Null)
        .await
        .unwrap();
    let chain = controller.get("tenants/red/chains/web").await;
    assert_eq!(chain["services"], json!(["firewall"]));
    assert_eq!(labels(&controller).await, third);
    put_chain(&controller, &["firewall", "meter"]).await;
    assert_eq!(labels(&controller).await, third);
    // Nothing is left to give the next time, and the chain stays what it is.
    let body = json!({ "services": ["meter", "firewall"] });
    let refused = controller
        .ask(Method::PUT, "tenants/red/chains/web", body)
        .await;
    let problem = refused.unwrap_err();
    assert!(problem.contains("are given, or rest"), "{problem}");
    assert_eq!(labels(&controller).await, third);
    let chain = controller.get("tenants/red/chains/web").await;
    assert_eq!(chain["services"], json!(["firewall", "meter"]));
}

/// The order of services that both domains have changes in one of them: what comes by the other's old order is not led by it.
#[tokio::test(flavor = "multi_thread")]
async fn another_domains_label_is_taken_over_with_the_chain() {
    let (a, b) = (Side::new(1).await, Side::new(2).await);
    a.trust(&b).await;
    b.trust(&a).await;
    b.ask(Method::POST, "tenants", json!({ "name": "red" }))
        .await
        .unwrap();
    b.ask(Method::PUT, "domains/a/shared/red", Value::Null)
        .await
        .unwrap();
    for name in ["firewall", "meter"] {
        b.ask(
            Method::PUT,
            &format!("tenants/red/services/{name}"),
            json!({}),
        )
        .await
        .unwrap();
    }
    a.until(&b, "the tenant", |each| each["tenants"] == 1).await;
    a.ask(
        Method::POST,
        "tenants",
        json!({ "name": "red", "home": "b" }),
    )
    .await
    .unwrap();
    for (name, there) in [("wall", "firewall"), ("meter", "meter")] {
        let body = json!({ "home": "b", "home_name": there });
        heard(&a, &format!("tenants/red/services/{name}"), body).await;
    }
    put_chain(&b.controller, &["firewall", "meter"]).await;
    put_chain(&a.controller, &["wall", "meter"]).await;
    let first = labels(&a.controller).await;
    assert_eq!(first["wall"], labels(&b.controller).await["firewall"]);
    // This domain cannot give another domain's services labels.
    let body = json!({ "services": ["meter", "wall"] });
    let refused = a.ask(Method::PUT, "tenants/red/chains/web", body).await;
    let problem = refused.unwrap_err();
    assert!(problem.contains("for its domain `b` to give"), "{problem}");
    put_chain(&b.controller, &["meter", "firewall"]).await;
    let theirs = labels(&b.controller).await;
    assert_ne!(theirs["firewall"], first["wall"]);
    // Not before the order is said here too.
    assert_eq!(labels(&a.controller).await, first);
    let body = json!({ "services": ["meter", "wall"] });
    heard(&a, "tenants/red/chains/web", body).await;
    let now = labels(&a.controller).await;
    assert_eq!(
        (now["wall"], now["meter"]),
        (theirs["firewall"], theirs["meter"])
    );
}

async fn last_revision(controller: &Running) -> u64 {
    let revisions = controller.get("revisions").await;
    let revisions = revisions["items"].as_array().unwrap().iter();
    revisions
        .map(|each| each["number"].as_u64().unwrap())
        .max()
        .unwrap()
}

/// A router that has not heard of anything since has labels of then: nothing else comes with them.
#[tokio::test(flavor = "multi_thread")]
async fn a_rollback_gives_no_label_another_meaning() {
    let scratch = Scratch::new();
    let controller = prepared(&scratch).await;
    let put = async |tenant: &str, name: &str| {
        let path = format!("tenants/{tenant}/services/{name}");
        let put = controller.ask(Method::PUT, &path, json!({})).await.unwrap();
        put["label"].as_u64().unwrap()
    };
    let back_to = async |number: u64| {
        let path = format!("revisions/{number}/rollback");
        controller
            .ask(Method::POST, &path, Value::Null)
            .await
            .unwrap();
    };
    put("red", "firewall").await;
    let one = last_revision(&controller).await;
    let meter = put("red", "meter").await;
    back_to(one).await;
    // It rests.
    assert_ne!(put("blue", "cache").await, meter);
    put("red", "meter").await;
    put_chain(&controller, &["firewall", "meter"]).await;
    let first = labels(&controller).await;
    let ordered = last_revision(&controller).await;
    put_chain(&controller, &["meter", "firewall"]).await;
    let second = labels(&controller).await;
    let delete = controller.ask(Method::DELETE, "tenants/red/chains/web", Value::Null);
    delete.await.unwrap();
    back_to(ordered).await;
    let chain = controller.get("tenants/red/chains/web").await;
    assert_eq!(chain["services"], json!(["firewall", "meter"]));
    let now = labels(&controller).await;
    for name in ["firewall", "meter"] {
        assert!(
            now[name] != first[name] && now[name] != second[name],
            "{first:?} {second:?} {now:?}"
        );
    }
}
