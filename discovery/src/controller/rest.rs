//! The API of people and their programs. Everything that changes something takes `If-Match` and `Idempotency-Key`; every error is a
//! problem document (RFC 9457).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Bytes;
use axum::extract::{FromRequestParts, Path, Query, State as Of};
use axum::http::request::Parts;
use axum::http::{HeaderMap, Method, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use utoipa::{OpenApi, ToSchema};
use weft_api::Problem;

use super::hub::Attached;
use super::{Controller, domains};
use crate::database::{Rejection, Transaction};
use crate::model::{
    self, Attachment, Change, Domain, Record, Request, Revision, Scope, State, Tenant, Token, key,
    now,
};
use crate::operations::{
    self, NewAttachment, NewTenant, NewToken, RouterChange, TenantChange, check_token,
};
use crate::pki::{TokenText, sha256};

pub(super) type Shared = Of<Arc<Controller>>;

/// How long an answered request is remembered by its key.
const REMEMBERED: u64 = 24 * 3600 * 1000;
/// How long routers are waited for that are asked how they do.
const DEADLINE: Duration = Duration::from_secs(2);
/// Revisions in one answer.
const PAGE: usize = 100;

/// The API over a controller.
pub(super) fn router(controller: Arc<Controller>) -> Router {
    let v1 = Router::new()
        .route("/domain", get(domain))
        .route("/status", get(status))
        .route("/routers", get(routers))
        .route(
            "/routers/{name}",
            get(router_of).patch(change_router).delete(delete_router),
        )
        .route("/tenants", get(tenants).post(create_tenant))
        .route(
            "/tenants/{name}",
            get(tenant).patch(change_tenant).delete(delete_tenant),
        )
        .route("/tenants/{name}/attachments", get(attachments))
        .route(
            "/tenants/{name}/attachments/{router}",
            get(attachment)
                .put(put_attachment)
                .delete(delete_attachment),
        )
        .route("/tokens", get(tokens).post(create_token))
        .route("/tokens/{id}", axum::routing::delete(delete_token))
        .route("/revisions", get(revisions))
        .route("/revisions/{number}", get(revision))
        .route("/revisions/{number}/rollback", post(roll_back))
        .route("/performance", get(performance))
        .route("/openapi.json", get(async || Json(document())))
        .merge(domains::router());
    Router::new()
        .nest("/api/v1", v1)
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

pub(super) fn problem(rejection: &Rejection) -> Problem {
    let status = match rejection {
        Rejection::NotFound(_) => StatusCode::NOT_FOUND,
        Rejection::Conflict(_) => StatusCode::CONFLICT,
        Rejection::Precondition(_) => StatusCode::PRECONDITION_FAILED,
        Rejection::Invalid(_) => StatusCode::UNPROCESSABLE_ENTITY,
        Rejection::Forbidden(_) => StatusCode::FORBIDDEN,
        Rejection::Unavailable(_) => StatusCode::SERVICE_UNAVAILABLE,
    };
    Problem::new(status, rejection.to_string())
}

/// Who asks, by the token that they show.
pub(super) struct Actor {
    name: String,
    scope: Scope,
}

impl FromRequestParts<Arc<Controller>> for Actor {
    type Rejection = Problem;

    async fn from_request_parts(
        parts: &mut Parts,
        controller: &Arc<Controller>,
    ) -> Result<Self, Problem> {
        let unknown = |detail: &str| Problem::new(StatusCode::UNAUTHORIZED, detail);
        let shown = parts.headers.get(header::AUTHORIZATION);
        let shown = shown.and_then(|value| value.to_str().ok()?.strip_prefix("Bearer "));
        let shown = shown.ok_or_else(|| {
            unknown("this needs a token: Authorization: Bearer weft.ID.SECRET.FINGERPRINT")
        })?;
        let token: TokenText = shown
            .parse()
            .map_err(|error| unknown(&format!("{error}")))?;
        let state = controller.database.state();
        let known = state.token(&key::token(&token.id));
        let known = check_token(known, &sha256(token.secret.as_bytes()));
        let known = known.map_err(|rejection| unknown(&rejection.to_string()))?;
        if matches!(known.scope, Scope::Join { .. }) {
            return Err(unknown("this is a join token: it is for `weft join` alone"));
        }
        Ok(Self {
            name: known.id,
            scope: known.scope,
        })
    }
}

impl Actor {
    /// May look at a tenant; `None` asks for everything.
    pub(super) fn may_see(&self, tenant: Option<&str>) -> Result<(), Problem> {
        match (&self.scope, tenant) {
            (Scope::Tenant { tenant: own }, Some(tenant)) if own == tenant => Ok(()),
            (Scope::Operator | Scope::Reader, _) => Ok(()),
            // What exists is not said either.
            (Scope::Tenant { .. }, Some(tenant)) => Err(problem(&Rejection::NotFound(format!(
                "there is no tenant `{tenant}`"
            )))),
            _ => Err(self.refused("an operator's")),
        }
    }

    /// May change a tenant's own; `None` asks for everything.
    pub(super) fn may_change(&self, tenant: Option<&str>) -> Result<(), Problem> {
        self.may_see(tenant)?;
        match self.scope {
            Scope::Reader => Err(self.refused("an operator's, or the tenant's,")),
            _ => Ok(()),
        }
    }

    fn refused(&self, whose: &str) -> Problem {
        let detail = format!(
            "token {} may not do that: it takes {whose} token",
            self.name
        );
        problem(&Rejection::Forbidden(detail))
    }
}

/// What a request says besides its body.
pub(super) struct Asked {
    actor: String,
    /// Revision that the record is to have been changed by last.
    expected: Option<u64>,
    /// Its Idempotency-Key, and what was asked with it.
    idempotency: Option<(String, String)>,
}

impl Asked {
    fn new(
        actor: &Actor,
        method: &Method,
        uri: &Uri,
        headers: &HeaderMap,
        body: &[u8],
    ) -> Result<Self, Problem> {
        let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
        let expected = match text(header::IF_MATCH) {
            None | Some("*") => None,
            Some(tag) => Some(tag.trim_matches('"').parse().map_err(|_| {
                let detail = format!("If-Match: {tag} is no ETag of this API");
                Problem::new(StatusCode::BAD_REQUEST, detail)
            })?),
        };
        let idempotency = match headers.get("idempotency-key") {
            None => None,
            Some(value) => {
                let key = value.to_str().ok().filter(|key| {
                    let good = |char: char| char.is_ascii_graphic() && char != '/';
                    !key.is_empty() && key.len() <= 128 && key.chars().all(good)
                });
                let key = key.ok_or_else(|| {
                    let detail = "Idempotency-Key: 1 to 128 printable characters, no `/`";
                    Problem::new(StatusCode::BAD_REQUEST, detail)
                })?;
                let asked = [method.as_str().as_bytes(), uri.path().as_bytes(), body];
                Some((key.to_owned(), sha256(&asked.join(&b'\n'))))
            }
        };
        Ok(Self {
            actor: actor.name.clone(),
            expected,
            idempotency,
        })
    }

    /// The record is what it was when the client looked at it.
    fn check(&self, state: &State, key: &str) -> Result<(), Rejection> {
        let Some(expected) = self.expected else {
            return Ok(());
        };
        match state.get(key) {
            Some(of) if of.modified == expected => Ok(()),
            Some(of) => Err(Rejection::Precondition(format!(
                "it has been changed since: its ETag is \"{}\", not \"{expected}\"",
                of.modified
            ))),
            None => Err(Rejection::Precondition("it is no more".into())),
        }
    }
}

/// Does a change once, however often it is asked for with one key, and answers what it answers.
pub(super) async fn change<T: Serialize>(
    controller: &Controller,
    asked: Asked,
    what: String,
    (status, subject): (StatusCode, String),
    operation: impl Fn(&mut Transaction<'_>) -> Result<T, Rejection> + Send + 'static,
) -> Result<Response, Problem> {
    let actor = asked.actor.clone();
    let own = subject.clone();
    let run = move |transaction: &mut Transaction<'_>| {
        let state = transaction.state();
        let remembered = asked
            .idempotency
            .as_ref()
            .map(|(key, hash)| (key::request(&asked.actor, key), key.clone(), hash.clone()));
        if let Some((at, _, hash)) = &remembered
            && let Some(before) = state.request(at)
        {
            if before.hash != *hash {
                return Err(Rejection::Invalid(
                    "something else was asked for with this Idempotency-Key".into(),
                ));
            }
            return Ok((before.status, before.body.clone()));
        }
        asked.check(state, &own)?;
        let answer = operation(transaction)?;
        let body = serde_json::to_value(answer)
            .map_err(|error| Rejection::Unavailable(error.to_string()))?;
        if let Some((_, key, hash)) = remembered {
            let prefix = key::request(&asked.actor, "");
            for (old, of) in state.below(&prefix) {
                if let Record::Request(of) = &of.record
                    && of.at + REMEMBERED < now()
                {
                    transaction.delete(old);
                }
            }
            transaction.put(Record::Request(Request {
                actor: asked.actor.clone(),
                key,
                hash,
                status: status.as_u16(),
                body: body.clone(),
                at: now(),
            }));
        }
        Ok((status.as_u16(), body))
    };
    let changed = controller.database.change(&actor, what, run).await;
    let ((status, body), revision) = changed.map_err(|rejection| problem(&rejection))?;
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::OK);
    let state = controller.database.state();
    let tag = state.get(&subject).map(|of| of.modified);
    Ok(answer(status, body, revision, tag))
}

pub(super) fn answer(status: StatusCode, body: Value, revision: u64, tag: Option<u64>) -> Response {
    let mut response = match body {
        Value::Null => StatusCode::NO_CONTENT.into_response(),
        body => (status, Json(body)).into_response(),
    };
    let headers = response.headers_mut();
    headers.insert("weft-revision", revision.into());
    if let Some(tag) = tag
        && let Ok(tag) = format!("\"{tag}\"").parse()
    {
        headers.insert(header::ETAG, tag);
    }
    response
}

/// A record with its ETag.
fn found<T: Serialize>(
    state: &State,
    key: &str,
    record: Option<T>,
    what: &str,
) -> Result<Response, Problem> {
    let record = record.ok_or_else(|| problem(&Rejection::NotFound(what.to_owned())))?;
    let body = serde_json::to_value(record).unwrap_or_default();
    let tag = state.get(key).map(|of| of.modified);
    Ok(answer(StatusCode::OK, body, state.revision, tag))
}

pub(super) fn listed<T: Serialize>(state: &State, items: impl Iterator<Item = T>) -> Response {
    let items: Vec<T> = items.collect();
    let body = json!({ "items": items });
    answer(StatusCode::OK, body, state.revision, None)
}

/// The body, read whole.
pub(super) fn read<T: DeserializeOwned>(body: &[u8]) -> Result<T, Problem> {
    serde_json::from_slice(body).map_err(|error| {
        let detail = format!("the body: {error}");
        Problem::new(StatusCode::UNPROCESSABLE_ENTITY, detail)
    })
}

/// What is needed of every request that changes something.
pub(super) struct Writing {
    pub(super) actor: Actor,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
}

impl FromRequestParts<Arc<Controller>> for Writing {
    type Rejection = Problem;

    async fn from_request_parts(
        parts: &mut Parts,
        controller: &Arc<Controller>,
    ) -> Result<Self, Problem> {
        Ok(Self {
            actor: Actor::from_request_parts(parts, controller).await?,
            method: parts.method.clone(),
            uri: parts.uri.clone(),
            headers: parts.headers.clone(),
        })
    }
}

impl Writing {
    pub(super) fn asked(&self, body: &[u8]) -> Result<Asked, Problem> {
        Asked::new(&self.actor, &self.method, &self.uri, &self.headers, body)
    }
}

#[utoipa::path(get, path = "/api/v1/domain", tag = "domain",
    responses((status = 200, description = "The domain", body = Domain)))]
async fn domain(Of(controller): Shared, actor: Actor) -> Result<Response, Problem> {
    actor.may_see(None)?;
    let state = controller.database.state();
    found(
        &state,
        key::DOMAIN,
        state.domain(),
        "this controller has no domain",
    )
}

/// How the domain does.
#[derive(Serialize, ToSchema)]
pub struct Status {
    /// The domain's name.
    domain: String,
    /// Its latest revision.
    revision: u64,
    /// Its routers, by name.
    routers: Vec<RouterStatus>,
    /// Other domains that are trusted, by name.
    domains: Vec<domains::DomainStatus>,
}

/// How one router does.
#[derive(Serialize, ToSchema)]
pub struct RouterStatus {
    /// Its name.
    name: String,
    /// What it is in the mesh.
    role: model::Role,
    /// It is attached to this controller.
    attached: bool,
    /// Its lease has run out.
    expired: bool,
    /// Where its tunnels end.
    #[serde(skip_serializing_if = "Option::is_none")]
    endpoint: Option<String>,
    /// The revision that it runs.
    runs: u64,
    /// The latest revision that changed something for it.
    sent: u64,
    /// It does not run what it was sent, or not yet.
    lags: bool,
    /// Why it cannot.
    #[serde(skip_serializing_if = "String::is_empty")]
    error: String,
}

fn router_status(router: &model::Router, attached: Option<&Attached>) -> RouterStatus {
    let own = attached.cloned().unwrap_or_default();
    RouterStatus {
        name: router.name.clone(),
        role: router.role,
        attached: own.attached,
        expired: router.expired,
        endpoint: router
            .registration
            .as_ref()
            .map(|of| of.endpoint.to_string()),
        runs: own.runs,
        sent: own.sent,
        lags: own.runs < own.sent || !own.attached,
        error: own.error,
    }
}

#[utoipa::path(get, path = "/api/v1/status", tag = "domain",
    responses((status = 200, description = "How the domain does, and who lags", body = Status)))]
async fn status(Of(controller): Shared, actor: Actor) -> Result<Response, Problem> {
    actor.may_see(None)?;
    let state = controller.database.state();
    let attached = controller.hub.attached();
    let routers = state.routers();
    let status = Status {
        domain: state.domain().map(|of| of.name.clone()).unwrap_or_default(),
        revision: state.revision,
        routers: routers
            .map(|of| router_status(of, attached.get(&of.name)))
            .collect(),
        domains: domains::statuses(&controller, &state),
    };
    let body = serde_json::to_value(status).unwrap_or_default();
    Ok(answer(StatusCode::OK, body, state.revision, None))
}

#[utoipa::path(get, path = "/api/v1/routers", tag = "routers",
    responses((status = 200, description = "All routers, `items`")))]
async fn routers(Of(controller): Shared, actor: Actor) -> Result<Response, Problem> {
    actor.may_see(None)?;
    let state = controller.database.state();
    Ok(listed(&state, state.routers()))
}

#[utoipa::path(get, path = "/api/v1/routers/{name}", tag = "routers",
    params(("name" = String, Path, description = "The router's name")),
    responses((status = 200, description = "A router", body = model::Router)))]
async fn router_of(
    Of(controller): Shared,
    actor: Actor,
    Path(name): Path<String>,
) -> Result<Response, Problem> {
    actor.may_see(None)?;
    let state = controller.database.state();
    let key = key::router(&name);
    found(
        &state,
        &key,
        state.router(&key),
        &format!("there is no router `{name}`"),
    )
}

#[utoipa::path(patch, path = "/api/v1/routers/{name}", tag = "routers",
    params(("name" = String, Path, description = "The router's name")), request_body = RouterChange,
    responses((status = 200, description = "As it is now", body = model::Router)))]
async fn change_router(
    Of(controller): Shared,
    writing: Writing,
    Path(name): Path<String>,
    body: Bytes,
) -> Result<Response, Problem> {
    writing.actor.may_change(None)?;
    let new: RouterChange = read(&body)?;
    let subject = (StatusCode::OK, key::router(&name));
    change(
        &controller,
        writing.asked(&body)?,
        format!("change router {name}"),
        subject,
        move |transaction| operations::change_router(transaction, &name, &new),
    )
    .await
}

#[utoipa::path(delete, path = "/api/v1/routers/{name}", tag = "routers",
    params(("name" = String, Path, description = "The router's name")),
    responses((status = 204, description = "It is removed: its certificate is no longer good, its sessions end")))]
async fn delete_router(
    Of(controller): Shared,
    writing: Writing,
    Path(name): Path<String>,
) -> Result<Response, Problem> {
    writing.actor.may_change(None)?;
    let subject = (StatusCode::NO_CONTENT, key::router(&name));
    change(
        &controller,
        writing.asked(&[])?,
        format!("delete router {name}"),
        subject,
        move |transaction| operations::delete_router(transaction, &name),
    )
    .await
}

#[utoipa::path(get, path = "/api/v1/tenants", tag = "tenants",
    responses((status = 200, description = "The tenants that the token may see, `items`")))]
async fn tenants(Of(controller): Shared, actor: Actor) -> Result<Response, Problem> {
    let state = controller.database.state();
    let seen = state
        .tenants()
        .filter(|of| actor.may_see(Some(&of.name)).is_ok());
    Ok(listed(&state, seen))
}

#[utoipa::path(post, path = "/api/v1/tenants", tag = "tenants", request_body = NewTenant,
    responses((status = 201, description = "The tenant, with its VNI", body = Tenant)))]
async fn create_tenant(
    Of(controller): Shared,
    writing: Writing,
    body: Bytes,
) -> Result<Response, Problem> {
    writing.actor.may_change(None)?;
    let new: NewTenant = read(&body)?;
    let subject = (StatusCode::CREATED, key::tenant(&new.name));
    change(
        &controller,
        writing.asked(&body)?,
        format!("create tenant {}", new.name),
        subject,
        move |transaction| operations::create_tenant(transaction, &new),
    )
    .await
}

#[utoipa::path(get, path = "/api/v1/tenants/{name}", tag = "tenants",
    params(("name" = String, Path, description = "The tenant's name")),
    responses((status = 200, description = "A tenant", body = Tenant)))]
async fn tenant(
    Of(controller): Shared,
    actor: Actor,
    Path(name): Path<String>,
) -> Result<Response, Problem> {
    actor.may_see(Some(&name))?;
    let state = controller.database.state();
    let key = key::tenant(&name);
    found(
        &state,
        &key,
        state.tenant(&key),
        &format!("there is no tenant `{name}`"),
    )
}

#[utoipa::path(patch, path = "/api/v1/tenants/{name}", tag = "tenants",
    params(("name" = String, Path, description = "The tenant's name")), request_body = TenantChange,
    responses((status = 200, description = "As it is now", body = Tenant)))]
async fn change_tenant(
    Of(controller): Shared,
    writing: Writing,
    Path(name): Path<String>,
    body: Bytes,
) -> Result<Response, Problem> {
    writing.actor.may_change(Some(&name))?;
    let new: TenantChange = read(&body)?;
    let subject = (StatusCode::OK, key::tenant(&name));
    change(
        &controller,
        writing.asked(&body)?,
        format!("change tenant {name}"),
        subject,
        move |transaction| operations::change_tenant(transaction, &name, &new),
    )
    .await
}

#[utoipa::path(delete, path = "/api/v1/tenants/{name}", tag = "tenants",
    params(("name" = String, Path, description = "The tenant's name")),
    responses((status = 204, description = "It is removed with its attachments; its VNI rests")))]
async fn delete_tenant(
    Of(controller): Shared,
    writing: Writing,
    Path(name): Path<String>,
) -> Result<Response, Problem> {
    writing.actor.may_change(None)?;
    let subject = (StatusCode::NO_CONTENT, key::tenant(&name));
    change(
        &controller,
        writing.asked(&[])?,
        format!("delete tenant {name}"),
        subject,
        move |transaction| operations::delete_tenant(transaction, &name),
    )
    .await
}

#[utoipa::path(get, path = "/api/v1/tenants/{name}/attachments", tag = "tenants",
    params(("name" = String, Path, description = "The tenant's name")),
    responses((status = 200, description = "Where it is attached, `items`")))]
async fn attachments(
    Of(controller): Shared,
    actor: Actor,
    Path(name): Path<String>,
) -> Result<Response, Problem> {
    actor.may_see(Some(&name))?;
    let state = controller.database.state();
    if state.tenant(&key::tenant(&name)).is_none() {
        return Err(problem(&Rejection::NotFound(format!(
            "there is no tenant `{name}`"
        ))));
    }
    Ok(listed(
        &state,
        state.attachments().filter(|of| of.tenant == name),
    ))
}

#[utoipa::path(get, path = "/api/v1/tenants/{name}/attachments/{router}", tag = "tenants",
    params(("name" = String, Path, description = "The tenant's name"), ("router" = String, Path, description = "The router's name")),
    responses((status = 200, description = "What it has there", body = Attachment)))]
async fn attachment(
    Of(controller): Shared,
    actor: Actor,
    Path((name, router)): Path<(String, String)>,
) -> Result<Response, Problem> {
    actor.may_see(Some(&name))?;
    let state = controller.database.state();
    let key = key::attachment(&name, &router);
    let missing = format!("tenant `{name}` is not attached to router `{router}`");
    found(&state, &key, state.attachment(&key), &missing)
}

#[utoipa::path(put, path = "/api/v1/tenants/{name}/attachments/{router}", tag = "tenants",
    params(("name" = String, Path, description = "The tenant's name"), ("router" = String, Path, description = "The router's name")),
    request_body = NewAttachment,
    responses((status = 200, description = "What it has there now", body = Attachment)))]
async fn put_attachment(
    Of(controller): Shared,
    writing: Writing,
    Path((name, router)): Path<(String, String)>,
    body: Bytes,
) -> Result<Response, Problem> {
    writing.actor.may_change(Some(&name))?;
    let new: NewAttachment = read(&body)?;
    let subject = (StatusCode::OK, key::attachment(&name, &router));
    change(
        &controller,
        writing.asked(&body)?,
        format!("attach tenant {name} to router {router}"),
        subject,
        move |transaction| operations::put_attachment(transaction, &name, &router, &new),
    )
    .await
}

#[utoipa::path(delete, path = "/api/v1/tenants/{name}/attachments/{router}", tag = "tenants",
    params(("name" = String, Path, description = "The tenant's name"), ("router" = String, Path, description = "The router's name")),
    responses((status = 204, description = "It is not attached there any more")))]
async fn delete_attachment(
    Of(controller): Shared,
    writing: Writing,
    Path((name, router)): Path<(String, String)>,
) -> Result<Response, Problem> {
    writing.actor.may_change(Some(&name))?;
    let subject = (StatusCode::NO_CONTENT, key::attachment(&name, &router));
    change(
        &controller,
        writing.asked(&[])?,
        format!("detach tenant {name} from router {router}"),
        subject,
        move |transaction| operations::delete_attachment(transaction, &name, &router),
    )
    .await
}

/// Nobody sees what proves that one has it.
fn shown(token: &Token) -> Token {
    Token {
        hash: String::new(),
        ..token.clone()
    }
}

#[utoipa::path(get, path = "/api/v1/tokens", tag = "tokens",
    responses((status = 200, description = "All tokens without their secrets, `items`")))]
async fn tokens(Of(controller): Shared, actor: Actor) -> Result<Response, Problem> {
    actor.may_change(None)?;
    let state = controller.database.state();
    Ok(listed(&state, state.tokens().map(shown)))
}

/// A token that has just been made.
#[derive(Serialize, Deserialize, ToSchema)]
pub struct CreatedToken {
    /// What is to be carried to who will use it. It is not shown again.
    pub token: String,
    /// What it is good for.
    pub scope: Scope,
}

#[utoipa::path(post, path = "/api/v1/tokens", tag = "tokens", request_body = NewToken,
    responses((status = 201, description = "The token, for the only time", body = CreatedToken)))]
async fn create_token(
    Of(controller): Shared,
    writing: Writing,
    body: Bytes,
) -> Result<Response, Problem> {
    writing.actor.may_change(None)?;
    let new: NewToken = read(&body)?;
    if writing.headers.contains_key("idempotency-key") {
        // Its answer would have to be kept, and the secret with it.
        let detail =
            "a token is not made with an Idempotency-Key: one too many is taken back by its id";
        return Err(Problem::new(StatusCode::BAD_REQUEST, detail));
    }
    let scope = new.scope.clone();
    let created = super::create_token(
        &controller.database,
        &controller.authority,
        &writing.actor.name,
        new,
    )
    .await;
    let created = created.map_err(|rejection| problem(&rejection))?;
    let body = CreatedToken {
        token: created.to_string(),
        scope,
    };
    let body = serde_json::to_value(body).unwrap_or_default();
    Ok(answer(
        StatusCode::CREATED,
        body,
        controller.database.state().revision,
        None,
    ))
}

#[utoipa::path(delete, path = "/api/v1/tokens/{id}", tag = "tokens",
    params(("id" = String, Path, description = "The token's public part")),
    responses((status = 204, description = "It is good for nothing any more")))]
async fn delete_token(
    Of(controller): Shared,
    writing: Writing,
    Path(id): Path<String>,
) -> Result<Response, Problem> {
    writing.actor.may_change(None)?;
    let subject = (StatusCode::NO_CONTENT, key::token(&id));
    change(
        &controller,
        writing.asked(&[])?,
        format!("delete token {id}"),
        subject,
        move |transaction| operations::delete_token(transaction, &id),
    )
    .await
}

/// Which revisions.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RevisionQuery {
    before: Option<u64>,
    limit: Option<usize>,
}

/// Secrets' hashes, and answers that were kept, are nobody's business.
fn public(mut revision: Revision) -> Revision {
    let public = |record: Option<Record>| match record {
        Some(Record::Token(token)) => Some(Record::Token(shown(&token))),
        other => other,
    };
    revision
        .changes
        .retain(|change| !change.key.starts_with("request/"));
    revision.changes = revision
        .changes
        .into_iter()
        .map(|change| Change {
            key: change.key,
            old: public(change.old),
            new: public(change.new),
        })
        .collect();
    revision
}

#[utoipa::path(get, path = "/api/v1/revisions", tag = "revisions",
    params(("before" = Option<u64>, Query, description = "Only earlier ones"),
           ("limit" = Option<usize>, Query, description = "At most so many, 100 at most")),
    responses((status = 200, description = "Who changed what, the latest first, `items`")))]
async fn revisions(
    Of(controller): Shared,
    actor: Actor,
    query: Result<Query<RevisionQuery>, axum::extract::rejection::QueryRejection>,
) -> Result<Response, Problem> {
    actor.may_see(None)?;
    let Query(query) =
        query.map_err(|error| Problem::new(StatusCode::BAD_REQUEST, error.body_text()))?;
    let limit = query.limit.unwrap_or(PAGE).min(PAGE);
    let history = controller
        .database
        .history(query.before.unwrap_or(u64::MAX), limit)
        .await;
    let history = history.map_err(|rejection| problem(&rejection))?;
    Ok(listed(
        &controller.database.state(),
        history.into_iter().map(public),
    ))
}

#[utoipa::path(get, path = "/api/v1/revisions/{number}", tag = "revisions",
    params(("number" = u64, Path, description = "The revision")),
    responses((status = 200, description = "Who changed what, before and after")))]
async fn revision(
    Of(controller): Shared,
    actor: Actor,
    Path(number): Path<u64>,
) -> Result<Response, Problem> {
    actor.may_see(None)?;
    let history = controller
        .database
        .history(number.saturating_add(1), 1)
        .await;
    let history = history.map_err(|rejection| problem(&rejection))?;
    let revision = history
        .into_iter()
        .find(|of| of.number == number)
        .map(public);
    let missing = format!("there is no revision {number}, or it is too old to be kept");
    found(&controller.database.state(), "", revision, &missing)
}

#[utoipa::path(post, path = "/api/v1/revisions/{number}/rollback", tag = "revisions",
    params(("number" = u64, Path, description = "The revision")),
    responses((status = 200, description = "Tenants, attachments and VNIs are what they were at that revision")))]
async fn roll_back(
    Of(controller): Shared,
    writing: Writing,
    Path(number): Path<u64>,
) -> Result<Response, Problem> {
    writing.actor.may_change(None)?;
    let asked = writing.asked(&[])?;
    let at = controller.database.state().revision;
    let mut since: Vec<Revision> = Vec::new();
    while since.last().is_none_or(|of| of.number > number + 1) {
        let before = since.last().map_or(u64::MAX, |of| of.number);
        let page = controller.database.history(before, PAGE).await;
        let page = page.map_err(|rejection| problem(&rejection))?;
        let end = page.is_empty();
        since.extend(page.into_iter().filter(|of| of.number > number));
        if end || since.last().is_none_or(|of| of.number <= number + 1) {
            break;
        }
    }
    let whole = number == at || since.last().is_some_and(|of| of.number == number + 1);
    if number > at || !whole {
        let detail = format!("revision {number} is not one of those that are kept");
        return Err(problem(&Rejection::NotFound(detail)));
    }
    let subject = (StatusCode::OK, String::new());
    change(
        &controller,
        asked,
        format!("roll back to revision {number}"),
        subject,
        move |transaction| {
            if transaction.state().revision != at {
                return Err(Rejection::Conflict(
                    "the domain has been changed meanwhile: look, and ask again".into(),
                ));
            }
            operations::roll_back(transaction, &since)?;
            Ok(json!({ "rolled_back_to": number }))
        },
    )
    .await
}

/// Of whom.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PerformanceQuery {
    tenant: Option<String>,
    router: Option<String>,
}

/// How routers did when they were asked.
#[derive(Serialize, ToSchema)]
pub struct Performance {
    /// Somebody did not answer.
    partial: bool,
    /// Who did not: not attached, or silent until the deadline.
    missing: Vec<String>,
    /// What the others said, by name.
    #[schema(value_type = Object)]
    routers: BTreeMap<String, Value>,
}

#[utoipa::path(get, path = "/api/v1/performance", tag = "domain",
    params(("tenant" = Option<String>, Query, description = "Only this tenant's"),
           ("router" = Option<String>, Query, description = "Only this router's")),
    responses((status = 200, description = "How routers do, asked now", body = Performance)))]
async fn performance(
    Of(controller): Shared,
    actor: Actor,
    query: Result<Query<PerformanceQuery>, axum::extract::rejection::QueryRejection>,
) -> Result<Response, Problem> {
    let Query(query) =
        query.map_err(|error| Problem::new(StatusCode::BAD_REQUEST, error.body_text()))?;
    actor.may_see(query.tenant.as_deref())?;
    let state = controller.database.state();
    if let Some(tenant) = &query.tenant
        && state.tenant(&key::tenant(tenant)).is_none()
    {
        return Err(problem(&Rejection::NotFound(format!(
            "there is no tenant `{tenant}`"
        ))));
    }
    if let Some(router) = &query.router
        && state.router(&key::router(router)).is_none()
    {
        return Err(problem(&Rejection::NotFound(format!(
            "there is no router `{router}`"
        ))));
    }
    let asked = state.routers().map(|of| of.name.clone()).filter(|name| {
        let attached = |tenant: &String| state.attachment(&key::attachment(tenant, name)).is_some();
        query.router.as_ref().is_none_or(|only| only == name)
            && query.tenant.as_ref().is_none_or(attached)
    });
    let asked: Vec<String> = asked.collect();
    let tenant = query.tenant.unwrap_or_default();
    let routers = controller.hub.ask(&asked, &tenant, DEADLINE).await;
    let missing = asked.into_iter().filter(|name| !routers.contains_key(name));
    let missing: Vec<String> = missing.collect();
    let answered = Performance {
        partial: !missing.is_empty(),
        missing,
        routers,
    };
    let body = serde_json::to_value(answered).unwrap_or_default();
    Ok(answer(StatusCode::OK, body, state.revision, None))
}

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Weft controller",
        description = "The domain: its routers, tenants, tokens and history. Errors are problem documents (RFC 9457). What changes something takes If-Match with an ETag, and an Idempotency-Key. Authorization: Bearer TOKEN.",
        license(name = "Apache-2.0", identifier = "Apache-2.0"),
    ),
    paths(
        domain,
        status,
        routers,
        router_of,
        change_router,
        delete_router,
        tenants,
        create_tenant,
        tenant,
        change_tenant,
        delete_tenant,
        attachments,
        attachment,
        put_attachment,
        delete_attachment,
        tokens,
        create_token,
        delete_token,
        revisions,
        revision,
        roll_back,
        performance,
    )
)]
struct Document;

/// The OpenAPI document, as served at `/api/v1/openapi.json` and kept in docs/controller-openapi.json.
pub fn document() -> Value {
    // Serializing what serde_json's own types can hold does not fail.
    let mut document = Document::openapi();
    document.merge(domains::Document::openapi());
    serde_json::to_value(document).unwrap_or_default()
}
