//! What is asked for at the paths about other domains, and the part of the document that says so.

use std::sync::Arc;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{Path, State as Of};
use axum::http::StatusCode;
use axum::response::Response;
use axum::routing::{get, put};
use utoipa::OpenApi;
use weft_api::Problem;

use super::{records, reply};
use crate::controller::Controller;
use crate::controller::management::domains::{Introduced, OtherDomain, OtherDomains};
use crate::controller::management::{Actor, Asking};
use crate::exchange::operations::{NewTrust, TrustChange};
use crate::model::{RemoteRouter, RemoteTenant, Share, Trust};

type Shared = Of<Arc<Controller>>;
type Answered = Result<Response, Problem>;

/// The paths.
pub(super) fn router() -> Router<Arc<Controller>> {
    Router::new()
        .route("/introduction", get(introduction))
        .route("/domains", get(domains).post(trust))
        .route(
            "/domains/{name}",
            get(domain).patch(change_trust).delete(distrust),
        )
        .route("/domains/{name}/routers", get(routers))
        .route("/domains/{name}/tenants", get(tenants))
        .route("/domains/{name}/shared", get(shared))
        .route(
            "/domains/{name}/shared/{tenant}",
            put(share).delete(unshare),
        )
}

#[utoipa::path(get, path = "/api/v1/introduction", tag = "domains",
    responses((status = 200, description = "What another domain's operator trusts this one by; nothing of it is secret", body = Introduced)))]
async fn introduction(Of(controller): Shared, actor: Actor) -> Answered {
    reply(StatusCode::OK, controller.get_introduction(&actor))
}

#[utoipa::path(get, path = "/api/v1/domains", tag = "domains",
    responses((status = 200, description = "Other domains", body = OtherDomains)))]
async fn domains(Of(controller): Shared, actor: Actor) -> Answered {
    reply(StatusCode::OK, controller.list_domains(&actor))
}

#[utoipa::path(get, path = "/api/v1/domains/{name}", tag = "domains",
    params(("name" = String, Path, description = "The domain's name")),
    responses((status = 200, description = "Another domain, and how the exchange with it does", body = OtherDomain)))]
async fn domain(Of(controller): Shared, actor: Actor, Path(name): Path<String>) -> Answered {
    reply(StatusCode::OK, controller.get_other_domain(&actor, &name))
}

#[utoipa::path(post, path = "/api/v1/domains", tag = "domains", request_body = NewTrust,
    responses((status = 201, description = "It is trusted: with the same decision there both tell each other what is public", body = Trust)))]
async fn trust(Of(controller): Shared, asking: Asking, body: Bytes) -> Answered {
    reply(StatusCode::CREATED, controller.trust(&asking, body).await)
}

#[utoipa::path(patch, path = "/api/v1/domains/{name}", tag = "domains",
    params(("name" = String, Path, description = "The domain's name")), request_body = TrustChange,
    responses((status = 200, description = "As it is now", body = Trust)))]
async fn change_trust(
    Of(controller): Shared,
    asking: Asking,
    Path(name): Path<String>,
    body: Bytes,
) -> Answered {
    let changed = controller.change_trust(&asking, name, body);
    reply(StatusCode::OK, changed.await)
}

#[utoipa::path(delete, path = "/api/v1/domains/{name}", tag = "domains",
    params(("name" = String, Path, description = "The domain's name")),
    responses((status = 204, description = "It is trusted no more: what it said is forgotten, sessions with its edges end")))]
async fn distrust(Of(controller): Shared, asking: Asking, Path(name): Path<String>) -> Answered {
    reply(
        StatusCode::NO_CONTENT,
        controller.distrust(&asking, name).await,
    )
}

#[utoipa::path(get, path = "/api/v1/domains/{name}/routers", tag = "domains",
    params(("name" = String, Path, description = "The domain's name")),
    responses((status = 200, description = "Its edges, as it says, `items`", body = Vec<RemoteRouter>)))]
async fn routers(Of(controller): Shared, actor: Actor, Path(name): Path<String>) -> Answered {
    records(controller.list_remote_routers(&actor, &name))
}

#[utoipa::path(get, path = "/api/v1/domains/{name}/tenants", tag = "domains",
    params(("name" = String, Path, description = "The domain's name")),
    responses((status = 200, description = "The tenants that it shares with this domain, as it says, `items`", body = Vec<RemoteTenant>)))]
async fn tenants(Of(controller): Shared, actor: Actor, Path(name): Path<String>) -> Answered {
    records(controller.list_remote_tenants(&actor, &name))
}

#[utoipa::path(get, path = "/api/v1/domains/{name}/shared", tag = "domains",
    params(("name" = String, Path, description = "The domain's name")),
    responses((status = 200, description = "Our tenants that it may know of, `items`", body = Vec<Share>)))]
async fn shared(Of(controller): Shared, actor: Actor, Path(name): Path<String>) -> Answered {
    records(controller.list_shared(&actor, &name))
}

#[utoipa::path(put, path = "/api/v1/domains/{name}/shared/{tenant}", tag = "domains",
    params(("name" = String, Path, description = "The domain's name"), ("tenant" = String, Path, description = "Our tenant's name")),
    responses((status = 200, description = "It may know of the tenant: its name and VNI", body = Share)))]
async fn share(
    Of(controller): Shared,
    asking: Asking,
    Path((name, tenant)): Path<(String, String)>,
) -> Answered {
    reply(
        StatusCode::OK,
        controller.share(&asking, name, tenant).await,
    )
}

#[utoipa::path(delete, path = "/api/v1/domains/{name}/shared/{tenant}", tag = "domains",
    params(("name" = String, Path, description = "The domain's name"), ("tenant" = String, Path, description = "Our tenant's name")),
    responses((status = 204, description = "It may know of it no more, and its labels are not taken any more")))]
async fn unshare(
    Of(controller): Shared,
    asking: Asking,
    Path((name, tenant)): Path<(String, String)>,
) -> Answered {
    let unshared = controller.unshare(&asking, name, tenant);
    reply(StatusCode::NO_CONTENT, unshared.await)
}

/// This part of the document.
#[derive(OpenApi)]
#[openapi(paths(
    introduction,
    domains,
    domain,
    trust,
    change_trust,
    distrust,
    routers,
    tenants,
    shared,
    share,
    unshare,
))]
pub(super) struct Document;
