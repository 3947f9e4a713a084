//! The OpenAPI 3.1 document, made from the handlers and the types.

use utoipa::openapi::{Content, Ref, RefOr, Response, ResponseBuilder};
use utoipa::{Modify, OpenApi};

use crate::server;

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Weft router",
        description = "State of a Weft router. GET changes nothing and sends nothing; POST to a tenant's `trace` sends packets. Errors are problem documents (RFC 9457).",
        license(name = "Apache-2.0", identifier = "Apache-2.0"),
    ),
    paths(
        server::status,
        server::config,
        server::neighbors,
        server::neighbor,
        server::routes,
        server::tenants,
        server::tenant,
        server::tenant_routes,
        server::trace,
        server::trace_live,
        server::labels,
        server::services,
        server::chains,
        server::traffic,
        server::endpoints,
        server::kernel,
        server::metrics,
    ),
    components(schemas(crate::types::PrefixMatch)),
    modifiers(&Problems),
    tags(
        (name = "router", description = "The router as a whole"),
        (name = "bgp", description = "Neighbours and routes"),
        (name = "overlay", description = "Tenants, labels and service chains"),
        (name = "kernel", description = "What forwards"),
    )
)]
struct Document;

/// What may be answered everywhere: a parameter that is not known, and a router that is stopping.
struct Problems;

impl Modify for Problems {
    fn modify(&self, document: &mut utoipa::openapi::OpenApi) {
        let problem = |description: &str| -> Response {
            let schema = Ref::from_schema_name("Problem");
            ResponseBuilder::new()
                .description(description)
                .content("application/problem+json", Content::new(Some(schema)))
                .build()
        };
        let operations = document.paths.paths.values_mut();
        let operations = operations.flat_map(|path| [&mut path.get, &mut path.post]);
        for operation in operations.flatten() {
            for (status, description) in [
                ("400", "A parameter is wrong, or is not known"),
                ("503", "The router is starting or stopping; ask again"),
            ] {
                let responses = &mut operation.responses.responses;
                responses
                    .entry(status.to_owned())
                    .or_insert_with(|| RefOr::T(problem(description)));
            }
        }
    }
}

/// The document, as served at `/api/v1/openapi.json` and kept in docs/openapi.json.
pub fn document() -> serde_json::Value {
    // Serializing what serde_json's own types can hold does not fail.
    serde_json::to_value(Document::openapi()).unwrap_or_default()
}
