//! Each answer, errors too, is what the document says.

use std::collections::HashSet;
use std::sync::Arc;

use axum::body::{Body, to_bytes};
use axum::http::{Request, header};
use serde_json::{Value, json};
use tower::ServiceExt;

use super::Fake;
use crate::server::router;

/// What an answer to this path is to look like: of the documented path that it is one of.
fn documented<'d>(document: &'d Value, path: &str) -> &'d Value {
    let path = path.split('?').next().unwrap();
    let parts: Vec<&str> = path.split('/').collect();
    let fits = |template: &str| {
        let wanted: Vec<&str> = template.split('/').collect();
        let same = |(wanted, part): (&&str, &&str)| wanted.starts_with('{') || wanted == part;
        wanted.len() == parts.len() && wanted.iter().zip(&parts).all(same)
    };
    let paths = document["paths"].as_object().unwrap();
    let found = paths.iter().find(|(template, _)| fits(template));
    &found
        .unwrap_or_else(|| panic!("{path} is not documented"))
        .1["get"]
}

/// What of the answer contradicts its documented schema.
fn contradictions(document: &Value, schema: &Value, answer: &Value) -> Vec<String> {
    let mut schema = schema.clone();
    schema["components"] = document["components"].clone();
    let validator = jsonschema::validator_for(&schema).unwrap();
    let errors = validator.iter_errors(answer);
    errors
        .map(|error| format!("{}: {error}", error.instance_path()))
        .collect()
}

#[tokio::test]
async fn each_answer_is_as_documented() {
    let document = crate::document();
    let mut answered = HashSet::new();
    for (path, stopping) in [
        ("/api/v1/status", false),
        ("/api/v1/config", false),
        ("/api/v1/neighbors", false),
        ("/api/v1/neighbors/192.0.2.2", false),
        ("/api/v1/routes", false),
        ("/api/v1/tenants", false),
        ("/api/v1/tenants/red", false),
        ("/api/v1/tenants/red/routes", false),
        ("/api/v1/tenants/red/trace?destination=10.0.2.10", false),
        ("/api/v1/labels", false),
        ("/api/v1/services", false),
        ("/api/v1/chains", false),
        ("/api/v1/traffic", false),
        ("/api/v1/endpoints", false),
        ("/api/v1/kernel", false),
        // Errors.
        ("/api/v1/status?x=1", false),
        ("/api/v1/routes?match=near&vni=0", false),
        ("/api/v1/neighbors/192.0.2.9", false),
        ("/api/v1/neighbors/bob", false),
        ("/api/v1/neighbors/%ff", false),
        ("/api/v1/tenants/green", false),
        ("/api/v1/tenants/green/routes", false),
        ("/api/v1/tenants/green/trace?destination=10.0.2.10", false),
        ("/api/v1/tenants/red/trace", false),
        ("/api/v1/kernel", true),
        ("/metrics", true),
    ] {
        let request = Request::get(path).body(Body::empty()).unwrap();
        let response = router(Arc::new(Fake { stopping }))
            .oneshot(request)
            .await
            .unwrap();
        let status = response.status().as_u16().to_string();
        let kind = response.headers()[header::CONTENT_TYPE]
            .to_str()
            .unwrap()
            .to_owned();
        let body = to_bytes(response.into_body(), 1 << 20).await.unwrap();
        let answer: Value = serde_json::from_slice(&body).unwrap();
        let operation = documented(&document, path);
        let content = &operation["responses"][&status]["content"];
        let schema = &content[&kind]["schema"];
        assert!(
            !schema.is_null(),
            "{path}: {status} {kind} is not documented"
        );
        let wrong = contradictions(&document, schema, &answer);
        assert!(wrong.is_empty(), "{path}: {wrong:#?}\n{answer:#}");
        answered.insert(operation["operationId"].as_str().unwrap().to_owned());
    }
    // Metrics are no JSON; a test of their own has them.
    let all = document["paths"].as_object().unwrap().len();
    assert_eq!(answered.len(), all, "{answered:?}");
}

#[tokio::test]
async fn the_check_finds_what_is_not_documented() {
    let document = crate::document();
    let operation = documented(&document, "/api/v1/kernel");
    let schema = &operation["responses"]["200"]["content"]["application/json"]["schema"];
    let mut answer = serde_json::to_value(super::samples::kernel()).unwrap();
    assert_eq!(
        contradictions(&document, schema, &answer),
        [] as [String; 0]
    );
    answer["devices"][0]["encapsulation"] = json!("Vxlan");
    answer["settled"] = json!("yes");
    assert_eq!(contradictions(&document, schema, &answer).len(), 2);
}

#[test]
fn operations_have_names_of_their_own() {
    let document = crate::document();
    let paths = document["paths"].as_object().unwrap().values();
    let ids: Vec<&str> = paths
        .map(|path| path["get"]["operationId"].as_str().unwrap())
        .collect();
    let different: HashSet<&&str> = ids.iter().collect();
    assert_eq!(different.len(), ids.len(), "{ids:?}");
}
