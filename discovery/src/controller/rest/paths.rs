//! What is asked for at each path, and the document that says so.

use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query, State as Of};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use serde::Deserialize;
use utoipa::OpenApi;
use weft_api::Problem;

use super::{items, query, records, reply};
use crate::controller::Controller;
use crate::controller::management::condition::{Performance, PerformanceQuery, Status};
use crate::controller::management::{Actor, Asking, CreatedToken, RolledBack};
use crate::controller::metrics::CONTENT_TYPE;
use crate::grants::{Grant, NewGrant};
use crate::model::{self, Attachment, Domain, Tenant};
use crate::operations::{NewAttachment, NewTenant, NewToken, RouterChange, TenantChange};
use crate::quotas::{NewQuota, QuotaUse};
use crate::session_keys::KeysStatus;

type Shared = Of<Arc<Controller>>;
type Answered = Result<Response, Problem>;

/// Which revisions.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RevisionQuery {
    before: Option<u64>,
    limit: Option<usize>,
}

#[utoipa::path(get, path = "/api/v1/domain", tag = "domain",
    responses((status = 200, description = "The domain", body = Domain)))]
pub(super) async fn domain(Of(controller): Shared, actor: Actor) -> Answered {
    reply(StatusCode::OK, controller.get_domain(&actor))
}

#[utoipa::path(get, path = "/metrics", tag = "domain",
    responses((status = 200, description = "What can be counted, as OpenMetrics; it takes a token as everything else does",
        content_type = "application/openmetrics-text", body = String)))]
pub(super) async fn metrics(Of(controller): Shared, actor: Actor) -> Answered {
    actor.may_see(None)?;
    let kind = [(header::CONTENT_TYPE, CONTENT_TYPE)];
    Ok((kind, controller.metrics()?).into_response())
}

#[utoipa::path(get, path = "/healthz", tag = "domain",
    responses((status = 200, description = "The process lives; it takes no token")))]
pub(super) async fn alive() -> &'static str {
    "alive\n"
}

#[utoipa::path(get, path = "/readyz", tag = "domain",
    responses((status = 200, description = "The datastore works; it takes no token"),
              (status = 503, description = "It does not, and why")))]
pub(super) async fn ready(Of(controller): Shared) -> Result<&'static str, Problem> {
    controller.check().await?;
    Ok("ready\n")
}

#[utoipa::path(get, path = "/api/v1/status", tag = "domain",
    responses((status = 200, description = "How the domain does, and who lags", body = Status)))]
pub(super) async fn status(Of(controller): Shared, actor: Actor) -> Answered {
    reply(StatusCode::OK, controller.get_status(&actor))
}

#[utoipa::path(post, path = "/api/v1/resume", tag = "domain",
    responses((status = 200, description = "Routers that were told of later revisions, by a datastore that was lost since, take what is here", body = Domain)))]
pub(super) async fn resume(Of(controller): Shared, asking: Asking) -> Answered {
    reply(StatusCode::OK, controller.resume(&asking).await)
}

#[utoipa::path(get, path = "/api/v1/session-keys", tag = "domain",
    responses((status = 200, description = "Which sessions between its routers are signed, and which are not; the keys are shown to nobody", body = KeysStatus)))]
pub(super) async fn session_keys(Of(controller): Shared, actor: Actor) -> Answered {
    reply(StatusCode::OK, controller.get_session_keys(&actor))
}

#[utoipa::path(post, path = "/api/v1/session-keys/replace", tag = "domain",
    responses((status = 204, description = "All keys that there are now are replaced, some of them at a time: each when both routers hold the next one")))]
pub(super) async fn replace_session_keys(Of(controller): Shared, asking: Asking) -> Answered {
    let replaced = controller.replace_session_keys(&asking);
    reply(StatusCode::NO_CONTENT, replaced.await)
}

#[utoipa::path(get, path = "/api/v1/routers", tag = "routers",
    responses((status = 200, description = "All routers, `items`")))]
pub(super) async fn routers(Of(controller): Shared, actor: Actor) -> Answered {
    records(controller.list_routers(&actor))
}

#[utoipa::path(get, path = "/api/v1/routers/{name}", tag = "routers",
    params(("name" = String, Path, description = "The router's name")),
    responses((status = 200, description = "A router", body = model::Router)))]
pub(super) async fn router_of(
    Of(controller): Shared,
    actor: Actor,
    Path(name): Path<String>,
) -> Answered {
    reply(StatusCode::OK, controller.get_router(&actor, &name))
}

#[utoipa::path(patch, path = "/api/v1/routers/{name}", tag = "routers",
    params(("name" = String, Path, description = "The router's name")), request_body = RouterChange,
    responses((status = 200, description = "As it is now", body = model::Router)))]
pub(super) async fn change_router(
    Of(controller): Shared,
    asking: Asking,
    Path(name): Path<String>,
    body: Bytes,
) -> Answered {
    reply(
        StatusCode::OK,
        controller.change_router(&asking, name, body).await,
    )
}

#[utoipa::path(delete, path = "/api/v1/routers/{name}", tag = "routers",
    params(("name" = String, Path, description = "The router's name")),
    responses((status = 204, description = "It is removed: its certificate is no longer good, its sessions end")))]
pub(super) async fn delete_router(
    Of(controller): Shared,
    asking: Asking,
    Path(name): Path<String>,
) -> Answered {
    reply(
        StatusCode::NO_CONTENT,
        controller.delete_router(&asking, name).await,
    )
}

#[utoipa::path(get, path = "/api/v1/tenants", tag = "tenants",
    responses((status = 200, description = "The tenants that the token may see, `items`")))]
pub(super) async fn tenants(Of(controller): Shared, actor: Actor) -> Answered {
    records(controller.list_tenants(&actor))
}

#[utoipa::path(post, path = "/api/v1/tenants", tag = "tenants", request_body = NewTenant,
    responses((status = 201, description = "The tenant, with its VNI", body = Tenant)))]
pub(super) async fn create_tenant(Of(controller): Shared, asking: Asking, body: Bytes) -> Answered {
    reply(
        StatusCode::CREATED,
        controller.create_tenant(&asking, body).await,
    )
}

#[utoipa::path(get, path = "/api/v1/tenants/{name}", tag = "tenants",
    params(("name" = String, Path, description = "The tenant's name")),
    responses((status = 200, description = "A tenant", body = Tenant)))]
pub(super) async fn tenant(
    Of(controller): Shared,
    actor: Actor,
    Path(name): Path<String>,
) -> Answered {
    reply(StatusCode::OK, controller.get_tenant(&actor, &name))
}

#[utoipa::path(patch, path = "/api/v1/tenants/{name}", tag = "tenants",
    params(("name" = String, Path, description = "The tenant's name")), request_body = TenantChange,
    responses((status = 200, description = "As it is now", body = Tenant)))]
pub(super) async fn change_tenant(
    Of(controller): Shared,
    asking: Asking,
    Path(name): Path<String>,
    body: Bytes,
) -> Answered {
    reply(
        StatusCode::OK,
        controller.change_tenant(&asking, name, body).await,
    )
}

#[utoipa::path(delete, path = "/api/v1/tenants/{name}", tag = "tenants",
    params(("name" = String, Path, description = "The tenant's name")),
    responses((status = 204, description = "It is removed with its attachments; its VNI rests")))]
pub(super) async fn delete_tenant(
    Of(controller): Shared,
    asking: Asking,
    Path(name): Path<String>,
) -> Answered {
    reply(
        StatusCode::NO_CONTENT,
        controller.delete_tenant(&asking, name).await,
    )
}

#[utoipa::path(get, path = "/api/v1/tenants/{name}/quota", tag = "tenants",
    params(("name" = String, Path, description = "The tenant's name")),
    responses((status = 200, description = "What it may have, and has", body = QuotaUse)))]
pub(super) async fn quota(
    Of(controller): Shared,
    actor: Actor,
    Path(name): Path<String>,
) -> Answered {
    reply(StatusCode::OK, controller.get_quota(&actor, &name))
}

#[utoipa::path(put, path = "/api/v1/tenants/{name}/quota", tag = "tenants",
    params(("name" = String, Path, description = "The tenant's name")), request_body = NewQuota,
    responses((status = 200, description = "What it may have now, and has", body = QuotaUse)))]
pub(super) async fn put_quota(
    Of(controller): Shared,
    asking: Asking,
    Path(name): Path<String>,
    body: Bytes,
) -> Answered {
    reply(
        StatusCode::OK,
        controller.put_quota(&asking, name, body).await,
    )
}

#[utoipa::path(delete, path = "/api/v1/tenants/{name}/quota", tag = "tenants",
    params(("name" = String, Path, description = "The tenant's name")),
    responses((status = 204, description = "It may have what everybody may")))]
pub(super) async fn delete_quota(
    Of(controller): Shared,
    asking: Asking,
    Path(name): Path<String>,
) -> Answered {
    reply(
        StatusCode::NO_CONTENT,
        controller.delete_quota(&asking, name).await,
    )
}

#[utoipa::path(get, path = "/api/v1/tenants/{name}/grants", tag = "tenants",
    params(("name" = String, Path, description = "The tenant's name")),
    responses((status = 200, description = "Which interfaces its administrators may use, by router, `items`")))]
pub(super) async fn grants(
    Of(controller): Shared,
    actor: Actor,
    Path(name): Path<String>,
) -> Answered {
    records(controller.list_grants(&actor, &name))
}

#[utoipa::path(put, path = "/api/v1/tenants/{name}/grants/{router}", tag = "tenants",
    params(("name" = String, Path, description = "The tenant's name"), ("router" = String, Path, description = "The router's name")),
    request_body = NewGrant,
    responses((status = 200, description = "Its administrators may use these interfaces", body = Grant)))]
pub(super) async fn put_grant(
    Of(controller): Shared,
    asking: Asking,
    Path((name, router)): Path<(String, String)>,
    body: Bytes,
) -> Answered {
    let granted = controller.put_grant(&asking, name, router, body);
    reply(StatusCode::OK, granted.await)
}

#[utoipa::path(delete, path = "/api/v1/tenants/{name}/grants/{router}", tag = "tenants",
    params(("name" = String, Path, description = "The tenant's name"), ("router" = String, Path, description = "The router's name")),
    responses((status = 204, description = "They may use none anew; what uses one stays")))]
pub(super) async fn delete_grant(
    Of(controller): Shared,
    asking: Asking,
    Path((name, router)): Path<(String, String)>,
) -> Answered {
    let taken = controller.delete_grant(&asking, name, router);
    reply(StatusCode::NO_CONTENT, taken.await)
}

#[utoipa::path(get, path = "/api/v1/tenants/{name}/attachments", tag = "tenants",
    params(("name" = String, Path, description = "The tenant's name")),
    responses((status = 200, description = "Where it is attached, `items`")))]
pub(super) async fn attachments(
    Of(controller): Shared,
    actor: Actor,
    Path(name): Path<String>,
) -> Answered {
    records(controller.list_attachments(&actor, &name))
}

#[utoipa::path(get, path = "/api/v1/tenants/{name}/attachments/{router}", tag = "tenants",
    params(("name" = String, Path, description = "The tenant's name"), ("router" = String, Path, description = "The router's name")),
    responses((status = 200, description = "What it has there", body = Attachment)))]
pub(super) async fn attachment(
    Of(controller): Shared,
    actor: Actor,
    Path((name, router)): Path<(String, String)>,
) -> Answered {
    reply(
        StatusCode::OK,
        controller.get_attachment(&actor, &name, &router),
    )
}

#[utoipa::path(put, path = "/api/v1/tenants/{name}/attachments/{router}", tag = "tenants",
    params(("name" = String, Path, description = "The tenant's name"), ("router" = String, Path, description = "The router's name")),
    request_body = NewAttachment,
    responses((status = 200, description = "What it has there now", body = Attachment)))]
pub(super) async fn put_attachment(
    Of(controller): Shared,
    asking: Asking,
    Path((name, router)): Path<(String, String)>,
    body: Bytes,
) -> Answered {
    let attached = controller.put_attachment(&asking, name, router, body);
    reply(StatusCode::OK, attached.await)
}

#[utoipa::path(delete, path = "/api/v1/tenants/{name}/attachments/{router}", tag = "tenants",
    params(("name" = String, Path, description = "The tenant's name"), ("router" = String, Path, description = "The router's name")),
    responses((status = 204, description = "It is not attached there any more")))]
pub(super) async fn delete_attachment(
    Of(controller): Shared,
    asking: Asking,
    Path((name, router)): Path<(String, String)>,
) -> Answered {
    let detached = controller.delete_attachment(&asking, name, router);
    reply(StatusCode::NO_CONTENT, detached.await)
}

#[utoipa::path(get, path = "/api/v1/tokens", tag = "tokens",
    responses((status = 200, description = "All tokens without their secrets, `items`")))]
pub(super) async fn tokens(Of(controller): Shared, actor: Actor) -> Answered {
    records(controller.list_tokens(&actor))
}

#[utoipa::path(post, path = "/api/v1/tokens", tag = "tokens", request_body = NewToken,
    responses((status = 201, description = "The token, for the only time", body = CreatedToken)))]
pub(super) async fn create_token(Of(controller): Shared, asking: Asking, body: Bytes) -> Answered {
    reply(
        StatusCode::CREATED,
        controller.create_token(&asking, body).await,
    )
}

#[utoipa::path(delete, path = "/api/v1/tokens/{id}", tag = "tokens",
    params(("id" = String, Path, description = "The token's public part")),
    responses((status = 204, description = "It is good for nothing any more")))]
pub(super) async fn delete_token(
    Of(controller): Shared,
    asking: Asking,
    Path(id): Path<String>,
) -> Answered {
    reply(
        StatusCode::NO_CONTENT,
        controller.delete_token(&asking, id).await,
    )
}

#[utoipa::path(get, path = "/api/v1/revisions", tag = "revisions",
    params(("before" = Option<u64>, Query, description = "Only earlier ones"),
           ("limit" = Option<usize>, Query, description = "At most so many, 100 at most; fewer where they are 1 MiB together")),
    responses((status = 200, description = "Who changed what, the latest first, `items`")))]
pub(super) async fn revisions(
    Of(controller): Shared,
    actor: Actor,
    asked: Result<Query<RevisionQuery>, QueryRejection>,
) -> Answered {
    let RevisionQuery { before, limit } = query(asked)?;
    items(controller.list_revisions(&actor, before, limit).await)
}

#[utoipa::path(get, path = "/api/v1/revisions/{number}", tag = "revisions",
    params(("number" = u64, Path, description = "The revision")),
    responses((status = 200, description = "Who changed what, before and after")))]
pub(super) async fn revision(
    Of(controller): Shared,
    actor: Actor,
    Path(number): Path<u64>,
) -> Answered {
    reply(
        StatusCode::OK,
        controller.get_revision(&actor, number).await,
    )
}

#[utoipa::path(post, path = "/api/v1/revisions/{number}/rollback", tag = "revisions",
    params(("number" = u64, Path, description = "The revision")),
    responses((status = 200, description = "Tenants, attachments and VNIs are what they were at that revision", body = RolledBack)))]
pub(super) async fn roll_back(
    Of(controller): Shared,
    asking: Asking,
    Path(number): Path<u64>,
) -> Answered {
    reply(StatusCode::OK, controller.roll_back(&asking, number).await)
}

#[utoipa::path(get, path = "/api/v1/performance", tag = "domain",
    params(("tenant" = Option<String>, Query, description = "Only this tenant's"),
           ("router" = Option<String>, Query, description = "Only this router's"),
           ("since" = Option<String>, Query, description = "Traffic, drops and probes since this time (RFC 3339), or since so long ago (90s, 15m, 1h, 7d): since the latest time at or before it that a router has kept its counters of; each says by `seconds` which. It keeps those of every answer about all tenants and of every minute, fewer of longer ago")),
    responses((status = 200, description = "How routers do, asked now", body = Performance)))]
pub(super) async fn performance(
    Of(controller): Shared,
    actor: Actor,
    asked: Result<Query<PerformanceQuery>, QueryRejection>,
) -> Answered {
    let performance = controller.get_performance(&actor, query(asked)?);
    reply(StatusCode::OK, performance.await)
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
        metrics,
        alive,
        ready,
        status,
        resume,
        session_keys,
        replace_session_keys,
        routers,
        router_of,
        change_router,
        delete_router,
        tenants,
        create_tenant,
        tenant,
        change_tenant,
        delete_tenant,
        grants,
        put_grant,
        delete_grant,
        quota,
        put_quota,
        delete_quota,
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
pub(super) struct Document;
