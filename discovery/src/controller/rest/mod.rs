//! REST: the API of people and their programs over HTTP. What is done is in [`super::management`]. Everything that changes something takes
//! `If-Match` and `Idempotency-Key`; every error is a problem document (RFC 9457).

mod chains;
mod domains;
mod paths;

use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::rejection::QueryRejection;
use axum::extract::{FromRequestParts, Query};
use axum::http::request::Parts;
use axum::http::{HeaderMap, Method, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post, put};
use axum::{Json, Router};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use utoipa::OpenApi as _;
use weft_api::{InvalidField, Problem};

use super::Controller;
use super::management::{Actor, Answer, Asking, Form, Listed};
use crate::database::Rejection;

/// The API over a controller.
pub(super) fn router(controller: Arc<Controller>) -> Router {
    let v1 = Router::new()
        .route("/domain", get(paths::domain))
        .route("/status", get(paths::status))
        .route("/resume", post(paths::resume))
        .route("/session-keys", get(paths::session_keys))
        .route("/session-keys/replace", post(paths::replace_session_keys))
        .route("/routers", get(paths::routers))
        .route(
            "/routers/{name}",
            get(paths::router_of)
                .patch(paths::change_router)
                .delete(paths::delete_router),
        )
        .route("/tenants", get(paths::tenants).post(paths::create_tenant))
        .route(
            "/tenants/{name}",
            get(paths::tenant)
                .patch(paths::change_tenant)
                .delete(paths::delete_tenant),
        )
        .route(
            "/tenants/{name}/quota",
            get(paths::quota)
                .put(paths::put_quota)
                .delete(paths::delete_quota),
        )
        .route("/tenants/{name}/grants", get(paths::grants))
        .route(
            "/tenants/{name}/grants/{router}",
            put(paths::put_grant).delete(paths::delete_grant),
        )
        .route("/tenants/{name}/attachments", get(paths::attachments))
        .route(
            "/tenants/{name}/attachments/{router}",
            get(paths::attachment)
                .put(paths::put_attachment)
                .delete(paths::delete_attachment),
        )
        .route("/tokens", get(paths::tokens).post(paths::create_token))
        .route("/tokens/{id}", axum::routing::delete(paths::delete_token))
        .route("/revisions", get(paths::revisions))
        .route("/revisions/{number}", get(paths::revision))
        .route("/revisions/{number}/rollback", post(paths::roll_back))
        .route("/performance", get(paths::performance))
        .route("/openapi.json", get(async || Json(document())))
        .merge(domains::router())
        .merge(chains::router());
    Router::new()
        .nest("/api/v1", v1)
        .route("/metrics", get(paths::metrics))
        .route("/healthz", get(paths::alive))
        .route("/readyz", get(paths::ready))
        .fallback(unknown)
        .method_not_allowed_fallback(async |method: Method, uri: Uri| {
            let detail = format!("{} does not take {method}", uri.path());
            Problem::new(StatusCode::METHOD_NOT_ALLOWED, detail)
        })
        .with_state(controller)
}

async fn unknown(uri: Uri, headers: HeaderMap) -> Response {
    let kind = headers.get(header::CONTENT_TYPE);
    if kind.is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc")) {
        return tonic::Status::unimplemented(uri.path().to_owned()).into_http();
    }
    let detail = format!(
        "{} is not a path of this API; /api/v1/openapi.json describes all of them",
        uri.path()
    );
    Problem::new(StatusCode::NOT_FOUND, detail).into_response()
}

/// The OpenAPI document, as served at `/api/v1/openapi.json` and kept in docs/controller-openapi.json.
pub fn document() -> Value {
    // Serializing what serde_json's own types can hold does not fail.
    let mut document = paths::Document::openapi();
    document.merge(domains::Document::openapi());
    document.merge(chains::Document::openapi());
    serde_json::to_value(document).unwrap_or_default()
}

impl From<Rejection> for Problem {
    fn from(rejection: Rejection) -> Self {
        let status = match &rejection {
            Rejection::NotFound(_) => StatusCode::NOT_FOUND,
            Rejection::Conflict(_) => StatusCode::CONFLICT,
            Rejection::Precondition(_) => StatusCode::PRECONDITION_FAILED,
            Rejection::Malformed(_) => StatusCode::BAD_REQUEST,
            Rejection::Invalid(_) | Rejection::Field { .. } => StatusCode::UNPROCESSABLE_ENTITY,
            Rejection::TooMany(_) => StatusCode::TOO_MANY_REQUESTS,
            Rejection::Unauthenticated(_) => StatusCode::UNAUTHORIZED,
            Rejection::Forbidden(_) => StatusCode::FORBIDDEN,
            Rejection::Unavailable(_) => StatusCode::SERVICE_UNAVAILABLE,
        };
        let mut problem = Self::new(status, rejection.to_string());
        if let Rejection::Field { field, detail } = rejection {
            problem.invalid_fields.push(InvalidField { field, detail });
        }
        problem
    }
}

fn text<'a>(parts: &'a Parts, name: &str) -> Option<&'a str> {
    parts.headers.get(name)?.to_str().ok()
}

impl FromRequestParts<Arc<Controller>> for Actor {
    type Rejection = Problem;

    async fn from_request_parts(
        parts: &mut Parts,
        controller: &Arc<Controller>,
    ) -> Result<Self, Problem> {
        Ok(controller.actor(text(parts, "authorization"))?)
    }
}

impl FromRequestParts<Arc<Controller>> for Asking {
    type Rejection = Problem;

    async fn from_request_parts(
        parts: &mut Parts,
        controller: &Arc<Controller>,
    ) -> Result<Self, Problem> {
        let expected = match text(parts, "if-match") {
            None | Some("*") => None,
            Some(tag) => Some(tag.trim_matches('"').parse().map_err(|_| {
                Rejection::Malformed(format!("If-Match: {tag} is no ETag of this API"))
            })?),
        };
        let key = parts.headers.get("idempotency-key");
        // What is no text is no key either.
        let key = key.map(|key| String::from_utf8_lossy(key.as_bytes()).into_owned());
        Ok(Self {
            actor: Actor::from_request_parts(parts, controller).await?,
            expected,
            key,
        })
    }
}

impl<T: DeserializeOwned> Form<T> for Bytes {
    fn read(self) -> Result<T, Rejection> {
        serde_json::from_slice(&self)
            .map_err(|error| Rejection::Invalid(format!("the body: {error}")))
    }
}

/// What stands behind the question mark.
fn query<T>(query: Result<Query<T>, QueryRejection>) -> Result<T, Problem> {
    let read = query.map(|Query(query)| query);
    Ok(read.map_err(|error| Rejection::Malformed(error.body_text()))?)
}

/// An answer with its revision, and its ETag where it has one.
fn reply<T: Serialize>(
    status: StatusCode,
    answer: Result<Answer<T>, Rejection>,
) -> Result<Response, Problem> {
    let answer = answer?;
    let body = serde_json::to_value(&answer.body).unwrap_or_default();
    let mut response = match body {
        Value::Null => StatusCode::NO_CONTENT.into_response(),
        body => (status, Json(body)).into_response(),
    };
    let headers = response.headers_mut();
    headers.insert("weft-revision", answer.revision.into());
    if let Some(tag) = answer.modified
        && let Ok(tag) = format!("\"{tag}\"").parse()
    {
        headers.insert(header::ETAG, tag);
    }
    Ok(response)
}

/// A list, as `items`.
fn items<T: Serialize>(answer: Result<Answer<Vec<T>>, Rejection>) -> Result<Response, Problem> {
    let items = answer.map(|answer| Answer {
        body: json!({ "items": answer.body }),
        revision: answer.revision,
        modified: None,
    });
    reply(StatusCode::OK, items)
}

/// A list of records.
fn records<T: Serialize>(
    answer: Result<Answer<Vec<Listed<T>>>, Rejection>,
) -> Result<Response, Problem> {
    items(answer.map(|answer| Answer {
        body: answer.body.into_iter().map(|(record, _)| record).collect(),
        revision: answer.revision,
        modified: None,
    }))
}
