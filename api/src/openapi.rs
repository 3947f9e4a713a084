//! The OpenAPI 3.1 document, made from the handlers and the types.

use utoipa::OpenApi;

use crate::server;

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Weft router",
        description = "State of a Weft router. Read-only. Errors are problem documents (RFC 9457).",
        license(name = "Apache-2.0", identifier = "Apache-2.0"),
    ),
    paths(
        server::status,
        server::neighbors,
        server::neighbor,
        server::routes,
        server::tenants,
        server::tenant,
        server::tenant_routes,
        server::trace,
        server::labels,
        server::services,
        server::chains,
        server::traffic,
        server::endpoints,
        server::kernel,
        server::metrics,
    ),
    tags(
        (name = "router", description = "The router as a whole"),
        (name = "bgp", description = "Neighbours and routes"),
        (name = "overlay", description = "Tenants, labels and service chains"),
        (name = "kernel", description = "What forwards"),
    )
)]
struct Document;

/// The document, as served at `/api/v1/openapi.json` and kept in docs/openapi.json.
pub fn document() -> serde_json::Value {
    // Serializing what serde_json's own types can hold does not fail.
    serde_json::to_value(Document::openapi()).unwrap_or_default()
}
