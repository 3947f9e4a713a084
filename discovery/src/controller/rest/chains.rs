//! What is asked for at the paths about services and chains, and the part of the document that says so.

use std::sync::Arc;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{Path, State as Of};
use axum::http::StatusCode;
use axum::response::Response;
use axum::routing::get;
use utoipa::OpenApi;
use weft_api::Problem;

use super::{records, reply};
use crate::chains::operations::{NewChain, NewService};
use crate::controller::Controller;
use crate::controller::management::{Actor, Asking};
use crate::model::{Chain, Service};

type Shared = Of<Arc<Controller>>;
type Answered = Result<Response, Problem>;

/// The paths.
pub(super) fn router() -> Router<Arc<Controller>> {
    Router::new()
        .route("/tenants/{name}/services", get(services))
        .route(
            "/tenants/{name}/services/{service}",
            get(service).put(put_service).delete(delete_service),
        )
        .route("/tenants/{name}/chains", get(chains))
        .route(
            "/tenants/{name}/chains/{chain}",
            get(chain).put(put_chain).delete(delete_chain),
        )
}

#[utoipa::path(get, path = "/api/v1/tenants/{name}/services", tag = "chains",
    params(("name" = String, Path, description = "The tenant's name")),
    responses((status = 200, description = "Its services, `items`", body = Vec<Service>)))]
async fn services(Of(controller): Shared, actor: Actor, Path(name): Path<String>) -> Answered {
    records(controller.list_services(&actor, &name))
}

#[utoipa::path(get, path = "/api/v1/tenants/{name}/services/{service}", tag = "chains",
    params(("name" = String, Path, description = "The tenant's name"), ("service" = String, Path, description = "The service's name")),
    responses((status = 200, description = "A service, with its label", body = Service)))]
async fn service(
    Of(controller): Shared,
    actor: Actor,
    Path((name, service)): Path<(String, String)>,
) -> Answered {
    reply(
        StatusCode::OK,
        controller.get_service(&actor, &name, &service),
    )
}

#[utoipa::path(put, path = "/api/v1/tenants/{name}/services/{service}", tag = "chains",
    params(("name" = String, Path, description = "The tenant's name"), ("service" = String, Path, description = "The service's name")),
    request_body = NewService,
    responses((status = 200, description = "The service, with its label: the next free VNI of the domain where it is new", body = Service)))]
async fn put_service(
    Of(controller): Shared,
    asking: Asking,
    Path((name, service)): Path<(String, String)>,
    body: Bytes,
) -> Answered {
    let put = controller.put_service(&asking, name, service, body);
    reply(StatusCode::OK, put.await)
}

#[utoipa::path(delete, path = "/api/v1/tenants/{name}/services/{service}", tag = "chains",
    params(("name" = String, Path, description = "The tenant's name"), ("service" = String, Path, description = "The service's name")),
    responses((status = 204, description = "It is removed; its label rests")))]
async fn delete_service(
    Of(controller): Shared,
    asking: Asking,
    Path((name, service)): Path<(String, String)>,
) -> Answered {
    let deleted = controller.delete_service(&asking, name, service);
    reply(StatusCode::NO_CONTENT, deleted.await)
}

#[utoipa::path(get, path = "/api/v1/tenants/{name}/chains", tag = "chains",
    params(("name" = String, Path, description = "The tenant's name")),
    responses((status = 200, description = "Its chains, `items`", body = Vec<Chain>)))]
async fn chains(Of(controller): Shared, actor: Actor, Path(name): Path<String>) -> Answered {
    records(controller.list_chains(&actor, &name))
}

#[utoipa::path(get, path = "/api/v1/tenants/{name}/chains/{chain}", tag = "chains",
    params(("name" = String, Path, description = "The tenant's name"), ("chain" = String, Path, description = "The chain's name")),
    responses((status = 200, description = "A chain", body = Chain)))]
async fn chain(
    Of(controller): Shared,
    actor: Actor,
    Path((name, chain)): Path<(String, String)>,
) -> Answered {
    reply(StatusCode::OK, controller.get_chain(&actor, &name, &chain))
}

#[utoipa::path(put, path = "/api/v1/tenants/{name}/chains/{chain}", tag = "chains",
    params(("name" = String, Path, description = "The tenant's name"), ("chain" = String, Path, description = "The chain's name")),
    request_body = NewChain,
    responses((status = 200, description = "The chain as it is now", body = Chain)))]
async fn put_chain(
    Of(controller): Shared,
    asking: Asking,
    Path((name, chain)): Path<(String, String)>,
    body: Bytes,
) -> Answered {
    let put = controller.put_chain(&asking, name, chain, body);
    reply(StatusCode::OK, put.await)
}

#[utoipa::path(delete, path = "/api/v1/tenants/{name}/chains/{chain}", tag = "chains",
    params(("name" = String, Path, description = "The tenant's name"), ("chain" = String, Path, description = "The chain's name")),
    responses((status = 204, description = "It is removed")))]
async fn delete_chain(
    Of(controller): Shared,
    asking: Asking,
    Path((name, chain)): Path<(String, String)>,
) -> Answered {
    let deleted = controller.delete_chain(&asking, name, chain);
    reply(StatusCode::NO_CONTENT, deleted.await)
}

/// This part of the document.
#[derive(OpenApi)]
#[openapi(paths(
    services,
    service,
    put_service,
    delete_service,
    chains,
    chain,
    put_chain,
    delete_chain,
))]
pub(super) struct Document;
