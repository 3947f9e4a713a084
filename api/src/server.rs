//! The server: paths to [`RouterState`], answers and problems to HTTP.

use std::future::Future;
use std::net::IpAddr;
use std::sync::{Arc, LazyLock};

use axum::extract::{FromRequestParts, OriginalUri, Path, Query, State};
use axum::http::header::{ALLOW, CONTENT_TYPE};
use axum::http::request::Parts;
use axum::http::{HeaderName, Method, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use serde_json::Value;

use crate::problem::Problem;
use crate::query::{self, KernelQuery, RouteQuery, TenantRouteQuery, TraceQuery};
use crate::types::{
    Chain, Endpoint, Kernel, LabelUse, Neighbor, Page, Route, Service, Status, Tenant, TenantRoute,
    Trace, Traffic,
};

/// The router cannot answer now; the text says why.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{0}")]
pub struct Unavailable(pub String);

impl From<Unavailable> for Problem {
    fn from(error: Unavailable) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, error.0)
    }
}

/// What the server answers from. Lists are in a stable order.
pub trait RouterState: Send + Sync + 'static {
    /// What the router is and how it does.
    fn status(&self) -> impl Future<Output = Result<Status, Unavailable>> + Send;

    /// The configuration that the router was given last, without secrets.
    fn config(&self) -> impl Future<Output = Result<Value, Unavailable>> + Send;

    /// Its neighbours, by address.
    fn neighbors(&self) -> impl Future<Output = Result<Vec<Neighbor>, Unavailable>> + Send;

    /// BGP routes, by family and prefix.
    fn routes(
        &self,
        query: RouteQuery,
    ) -> impl Future<Output = Result<Page<Route>, Unavailable>> + Send;

    /// Its tenants, by name.
    fn tenants(&self) -> impl Future<Output = Result<Vec<Tenant>, Unavailable>> + Send;

    /// The table of a tenant, by family and prefix; `None` where no tenant has that name.
    fn tenant_routes(
        &self,
        tenant: String,
        query: TenantRouteQuery,
    ) -> impl Future<Output = Result<Option<Page<TenantRoute>>, Unavailable>> + Send;

    /// The way of a tenant's packet; `None` where no tenant has that name.
    fn trace(
        &self,
        tenant: String,
        query: TraceQuery,
    ) -> impl Future<Output = Result<Option<Trace>, Unavailable>> + Send;

    /// Labels in use, by value.
    fn labels(&self) -> impl Future<Output = Result<Vec<LabelUse>, Unavailable>> + Send;

    /// Services, by label.
    fn services(
        &self,
        tenant: Option<String>,
    ) -> impl Future<Output = Result<Vec<Service>, Unavailable>> + Send;

    /// Service chains, by tenant and priority, with packets a step.
    fn chains(
        &self,
        tenant: Option<String>,
    ) -> impl Future<Output = Result<Vec<Chain>, Unavailable>> + Send;

    /// What tunnels carried, by VNI and far end; nothing where the kernel does not count.
    fn traffic(&self) -> impl Future<Output = Result<Vec<Traffic>, Unavailable>> + Send;

    /// The routers that tunnels lead to, by address; with a tenant's name, that tenant's.
    fn endpoints(
        &self,
        tenant: Option<String>,
    ) -> impl Future<Output = Result<Vec<Endpoint>, Unavailable>> + Send;

    /// What the kernel holds.
    fn kernel(
        &self,
        query: KernelQuery,
    ) -> impl Future<Output = Result<Kernel, Unavailable>> + Send;
}

pub(crate) type Answer<T> = Result<Json<T>, Problem>;

/// The pairs of the query part, percent-decoded.
pub(crate) struct Pairs(Vec<(String, String)>);

impl<S: Sync> FromRequestParts<S> for Pairs {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        match Query::try_from_uri(&parts.uri) {
            Ok(Query(pairs)) => Ok(Self(pairs)),
            Err(_) => Err(Problem::new(
                StatusCode::BAD_REQUEST,
                "what stands behind the question mark is no list of NAME=VALUE, joined by `&`",
            )),
        }
    }
}

/// The part of the path that names something, percent-decoded.
pub(crate) struct Name(String);

impl<S: Send + Sync> FromRequestParts<S> for Name {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        match Path::from_request_parts(parts, state).await {
            Ok(Path(name)) => Ok(Self(name)),
            Err(_) => Err(Problem::new(
                StatusCode::BAD_REQUEST,
                format!(
                    "{} is not UTF-8 when it is percent-decoded",
                    parts.uri.path()
                ),
            )),
        }
    }
}

/// The API over `state`.
pub fn router<S: RouterState>(state: Arc<S>) -> Router {
    let v1 = Router::new()
        .route("/status", get(status::<S>))
        .route("/config", get(config::<S>))
        .route("/neighbors", get(neighbors::<S>))
        .route("/neighbors/{address}", get(neighbor::<S>))
        .route("/routes", get(routes::<S>))
        .route("/tenants", get(tenants::<S>))
        .route("/tenants/{name}", get(tenant::<S>))
        .route("/tenants/{name}/routes", get(tenant_routes::<S>))
        .route(
            "/tenants/{name}/trace",
            get(trace::<S>).post(trace_live::<S>),
        )
        .route("/labels", get(labels::<S>))
        .route("/services", get(services::<S>))
        .route("/chains", get(chains::<S>))
        .route("/traffic", get(traffic::<S>))
        .route("/endpoints", get(endpoints::<S>))
        .route("/kernel", get(kernel::<S>))
        .route("/openapi.json", get(openapi));
    Router::new()
        .nest("/api/v1", v1)
        .route("/metrics", get(metrics::<S>))
        .fallback(unknown)
        .method_not_allowed_fallback(wrong_method)
        .with_state(state)
}

async fn unknown(OriginalUri(uri): OriginalUri) -> Problem {
    Problem::not_found(format!(
        "{} is not a path of this API; /api/v1/openapi.json describes all of them",
        uri.path()
    ))
}

async fn wrong_method(method: Method, OriginalUri(uri): OriginalUri) -> Problem {
    let allowed = match uri.path().ends_with("/trace") {
        true => "GET, HEAD, POST",
        false => "GET, HEAD",
    };
    let detail = format!("{} does not take {method}, allowed: {allowed}", uri.path());
    Problem::new(StatusCode::METHOD_NOT_ALLOWED, detail)
}

async fn openapi(
    Pairs(pairs): Pairs,
) -> Result<([(HeaderName, &'static str); 1], &'static str), Problem> {
    // It is the same for ever, and takes more to make than other answers.
    static DOCUMENT: LazyLock<String> = LazyLock::new(|| crate::document().to_string());
    query::nothing(pairs)?;
    Ok(([(CONTENT_TYPE, "application/json")], &DOCUMENT))
}

#[utoipa::path(
    get, path = "/api/v1/status", tag = "router",
    responses(
        (status = 200, description = "What the router is and how it does", body = Status),
        (status = "default", description = "A problem", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(crate) async fn status<S: RouterState>(
    State(state): State<Arc<S>>,
    Pairs(pairs): Pairs,
) -> Answer<Status> {
    query::nothing(pairs)?;
    Ok(Json(state.status().await?))
}

#[utoipa::path(
    get, path = "/api/v1/config", tag = "router",
    responses(
        (status = 200, description = "The configuration that the router was given last: as its file says it (docs/config.schema.json), with all defaults, and without tokens", body = Object),
        (status = "default", description = "A problem", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(crate) async fn config<S: RouterState>(
    State(state): State<Arc<S>>,
    Pairs(pairs): Pairs,
) -> Answer<Value> {
    query::nothing(pairs)?;
    Ok(Json(state.config().await?))
}

#[utoipa::path(
    get, path = "/api/v1/neighbors", tag = "bgp",
    responses(
        (status = 200, description = "BGP neighbours, by address", body = Vec<Neighbor>),
        (status = "default", description = "A problem", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(crate) async fn neighbors<S: RouterState>(
    State(state): State<Arc<S>>,
    Pairs(pairs): Pairs,
) -> Answer<Vec<Neighbor>> {
    query::nothing(pairs)?;
    Ok(Json(state.neighbors().await?))
}

#[utoipa::path(
    get, path = "/api/v1/neighbors/{address}", tag = "bgp",
    params(
        ("address" = String, Path, description = "The neighbour's IP address"),
        ("tenant" = Option<String>, Query, description = "The tenant whose own router it is"),
    ),
    responses(
        (status = 200, description = "One neighbour", body = Neighbor),
        (status = 404, description = "No such neighbour", body = Problem, content_type = "application/problem+json"),
        (status = "default", description = "A problem", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(crate) async fn neighbor<S: RouterState>(
    State(state): State<Arc<S>>,
    Name(text): Name,
    Pairs(pairs): Pairs,
) -> Answer<Neighbor> {
    let tenant = query::tenant(pairs)?;
    let address: IpAddr = text.parse().map_err(|_| {
        let detail = format!("`{text}` is not an IP address");
        Problem::new(StatusCode::BAD_REQUEST, detail)
    })?;
    let neighbors = state.neighbors().await?;
    match neighbors
        .into_iter()
        .find(|neighbor| neighbor.address == address && neighbor.tenant == tenant)
    {
        Some(neighbor) => Ok(Json(neighbor)),
        None => Err(Problem::not_found(match tenant {
            Some(tenant) => format!("{address} is not a neighbour of the tenant `{tenant}`"),
            None => format!("{address} is not a neighbour"),
        })),
    }
}

#[utoipa::path(
    get, path = "/api/v1/routes", tag = "bgp",
    params(
        ("family" = Option<crate::types::Family>, Query, description = "Only this address family"),
        ("prefix" = Option<String>, Query, description = "Only this prefix, by `match`; an address stands for its /32 or /128"),
        ("match" = Option<crate::types::PrefixMatch>, Query, description = "`exact` (the default of a prefix), `longer` (it and its more specifics), `shorter` (it and what covers it) or `longest` (the most specific one that covers it, the default of an address)"),
        ("neighbor" = Option<String>, Query, description = "Only paths from this neighbour's address"),
        ("community" = Option<String>, Query, description = "Only paths with this community, `A:B` or a name such as `no-export`; each half may be a range such as `100-199`, or `*`. `A:B:C` is a large community"),
        ("large_community" = Option<String>, Query, description = "Only paths with this large community, `A:B:C`; each part may be a range such as `10001-10099`, or `*`"),
        ("vni" = Option<u32>, Query, description = "Only paths with a label of this VNI", minimum = 1, maximum = 16777214),
        ("limit" = Option<u32>, Query, description = "Routes on a page, 100 by default", minimum = 1, maximum = 1000),
        ("cursor" = Option<String>, Query, description = "`next_cursor` of the page before"),
    ),
    responses(
        (status = 200, description = "BGP routes, by family and prefix", body = Page<Route>),
        (status = 400, description = "A parameter is wrong", body = Problem, content_type = "application/problem+json"),
        (status = "default", description = "A problem", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(crate) async fn routes<S: RouterState>(
    State(state): State<Arc<S>>,
    Pairs(pairs): Pairs,
) -> Answer<Page<Route>> {
    Ok(Json(state.routes(RouteQuery::parse(pairs)?).await?))
}

#[utoipa::path(
    get, path = "/api/v1/tenants", tag = "overlay",
    responses(
        (status = 200, description = "Tenants, by name", body = Vec<Tenant>),
        (status = "default", description = "A problem", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(crate) async fn tenants<S: RouterState>(
    State(state): State<Arc<S>>,
    Pairs(pairs): Pairs,
) -> Answer<Vec<Tenant>> {
    query::nothing(pairs)?;
    Ok(Json(state.tenants().await?))
}

#[utoipa::path(
    get, path = "/api/v1/tenants/{name}", tag = "overlay",
    params(("name" = String, Path, description = "The tenant's name")),
    responses(
        (status = 200, description = "One tenant", body = Tenant),
        (status = 404, description = "No such tenant", body = Problem, content_type = "application/problem+json"),
        (status = "default", description = "A problem", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(crate) async fn tenant<S: RouterState>(
    State(state): State<Arc<S>>,
    Name(name): Name,
    Pairs(pairs): Pairs,
) -> Answer<Tenant> {
    query::nothing(pairs)?;
    let tenants = state.tenants().await?;
    match tenants.into_iter().find(|tenant| tenant.name == name) {
        Some(tenant) => Ok(Json(tenant)),
        None => Err(no_tenant(&name)),
    }
}

#[utoipa::path(
    get, path = "/api/v1/tenants/{name}/routes", tag = "overlay",
    params(
        ("name" = String, Path, description = "The tenant's name"),
        ("prefix" = Option<String>, Query, description = "Only this prefix, by `match`; an address stands for its /32 or /128"),
        ("match" = Option<crate::types::PrefixMatch>, Query, description = "`exact` (the default of a prefix), `longer`, `shorter` or `longest` (the default of an address)"),
        ("limit" = Option<u32>, Query, description = "Routes on a page, 100 by default", minimum = 1, maximum = 1000),
        ("cursor" = Option<String>, Query, description = "`next_cursor` of the page before"),
    ),
    responses(
        (status = 200, description = "The tenant's table: labels, endpoints, local next hops, the chosen path and why the others lost, what the kernel holds", body = Page<TenantRoute>),
        (status = 400, description = "A parameter is wrong", body = Problem, content_type = "application/problem+json"),
        (status = 404, description = "No such tenant", body = Problem, content_type = "application/problem+json"),
        (status = "default", description = "A problem", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(crate) async fn tenant_routes<S: RouterState>(
    State(state): State<Arc<S>>,
    Name(name): Name,
    Pairs(pairs): Pairs,
) -> Answer<Page<TenantRoute>> {
    let query = TenantRouteQuery::parse(pairs)?;
    match state.tenant_routes(name.clone(), query).await? {
        Some(page) => Ok(Json(page)),
        None => Err(no_tenant(&name)),
    }
}

#[utoipa::path(
    get, path = "/api/v1/tenants/{name}/trace", tag = "overlay",
    params(
        ("name" = String, Path, description = "The tenant's name"),
        ("destination" = String, Query, description = "Where the packet goes, an IP address"),
        ("from" = Option<String>, Query, description = "Where it comes from, an IP address"),
        ("dscp" = Option<u32>, Query, description = "Differentiated services code point", minimum = 0, maximum = 63),
        ("protocol" = Option<u32>, Query, description = "IP protocol, where a service chain looks at it", minimum = 0, maximum = 255),
        ("source_port" = Option<u32>, Query, description = "Source port, where a service chain looks at it", minimum = 0, maximum = 65535),
        ("destination_port" = Option<u32>, Query, description = "Destination port, where a service chain looks at it", minimum = 0, maximum = 65535),
    ),
    responses(
        (status = 200, description = "The way of the tenant's packet, as the overlay decided and as the kernel answers", body = Trace),
        (status = 400, description = "A parameter is wrong", body = Problem, content_type = "application/problem+json"),
        (status = 404, description = "No such tenant", body = Problem, content_type = "application/problem+json"),
        (status = 405, description = "`live=true` sends packets, which takes POST", body = Problem, content_type = "application/problem+json"),
        (status = "default", description = "A problem", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(crate) async fn trace<S: RouterState>(
    State(state): State<Arc<S>>,
    Name(name): Name,
    Pairs(pairs): Pairs,
) -> Result<Json<Trace>, Response> {
    let query = TraceQuery::parse(pairs).map_err(IntoResponse::into_response)?;
    if query.live || query.size.is_some() {
        let detail =
            "GET sends no packets, which `live` and `size` ask for: send the same request by POST";
        let problem = Problem::new(StatusCode::METHOD_NOT_ALLOWED, detail);
        return Err(([(ALLOW, "POST")], problem).into_response());
    }
    let traced = traced(&*state, name, query).await;
    traced.map_err(IntoResponse::into_response)
}

#[utoipa::path(
    post, path = "/api/v1/tenants/{name}/trace", tag = "overlay",
    params(
        ("name" = String, Path, description = "The tenant's name"),
        ("destination" = String, Query, description = "Where the packet goes, an IP address"),
        ("from" = Option<String>, Query, description = "Where it comes from, an IP address"),
        ("dscp" = Option<u32>, Query, description = "Differentiated services code point", minimum = 0, maximum = 63),
        ("protocol" = Option<u32>, Query, description = "IP protocol, where a service chain looks at it", minimum = 0, maximum = 255),
        ("source_port" = Option<u32>, Query, description = "Source port, where a service chain looks at it", minimum = 0, maximum = 65535),
        ("destination_port" = Option<u32>, Query, description = "Destination port, where a service chain looks at it", minimum = 0, maximum = 65535),
        ("size" = Option<u32>, Query, description = "Octets that each packet has, IP header included; what fits is found where they do not", minimum = 96, maximum = 65000),
        ("live" = Option<bool>, Query, description = "`true`, which is what POST means"),
    ),
    responses(
        (status = 200, description = "The way of the tenant's packet, as the overlay decided and as the kernel answers, and who answers to packets of the tenant that are sent; takes up to some seconds", body = Trace),
        (status = 400, description = "A parameter is wrong", body = Problem, content_type = "application/problem+json"),
        (status = 404, description = "No such tenant", body = Problem, content_type = "application/problem+json"),
        (status = "default", description = "A problem", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(crate) async fn trace_live<S: RouterState>(
    State(state): State<Arc<S>>,
    Name(name): Name,
    Pairs(pairs): Pairs,
) -> Answer<Trace> {
    if pairs
        .iter()
        .any(|(name, value)| name == "live" && value != "true")
    {
        let detail =
            "POST sends packets, which `live` says again or not at all: ask by GET to send none";
        return Err(Problem::new(StatusCode::BAD_REQUEST, detail));
    }
    let query = TraceQuery {
        live: true,
        ..TraceQuery::parse(pairs)?
    };
    traced(&*state, name, query).await
}

async fn traced<S: RouterState>(state: &S, name: String, query: TraceQuery) -> Answer<Trace> {
    match state.trace(name.clone(), query).await? {
        Some(trace) => Ok(Json(trace)),
        None => Err(no_tenant(&name)),
    }
}

fn no_tenant(name: &str) -> Problem {
    Problem::not_found(format!("`{name}` is not a tenant of this router"))
}

#[utoipa::path(
    get, path = "/api/v1/labels", tag = "overlay",
    responses(
        (status = 200, description = "Labels in use, decoded", body = Vec<LabelUse>),
        (status = "default", description = "A problem", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(crate) async fn labels<S: RouterState>(
    State(state): State<Arc<S>>,
    Pairs(pairs): Pairs,
) -> Answer<Vec<LabelUse>> {
    query::nothing(pairs)?;
    Ok(Json(state.labels().await?))
}

#[utoipa::path(
    get, path = "/api/v1/services", tag = "overlay",
    params(("tenant" = Option<String>, Query, description = "Only this tenant")),
    responses(
        (status = 200, description = "Services by label: their nodes here, how they do, and other routers that offer them", body = Vec<Service>),
        (status = 400, description = "A parameter is wrong", body = Problem, content_type = "application/problem+json"),
        (status = "default", description = "A problem", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(crate) async fn services<S: RouterState>(
    State(state): State<Arc<S>>,
    Pairs(pairs): Pairs,
) -> Answer<Vec<Service>> {
    Ok(Json(state.services(query::tenant(pairs)?).await?))
}

#[utoipa::path(
    get, path = "/api/v1/chains", tag = "overlay",
    params(("tenant" = Option<String>, Query, description = "Only this tenant")),
    responses(
        (status = 200, description = "Service chains, each direction for itself, with what this router does at each step and how many packets took it here", body = Vec<Chain>),
        (status = 400, description = "A parameter is wrong", body = Problem, content_type = "application/problem+json"),
        (status = "default", description = "A problem", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(crate) async fn chains<S: RouterState>(
    State(state): State<Arc<S>>,
    Pairs(pairs): Pairs,
) -> Answer<Vec<Chain>> {
    Ok(Json(state.chains(query::tenant(pairs)?).await?))
}

#[utoipa::path(
    get, path = "/api/v1/traffic", tag = "overlay",
    params(("tenant" = Option<String>, Query, description = "Only this tenant")),
    responses(
        (status = 200, description = "What tunnels carried, by VNI and far end; nothing where the kernel does not count", body = Vec<Traffic>),
        (status = 400, description = "A parameter is wrong", body = Problem, content_type = "application/problem+json"),
        (status = "default", description = "A problem", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(crate) async fn traffic<S: RouterState>(
    State(state): State<Arc<S>>,
    Pairs(pairs): Pairs,
) -> Answer<Vec<Traffic>> {
    let tenant = query::tenant(pairs)?;
    let mut traffic = state.traffic().await?;
    traffic.retain(|one| tenant.is_none() || one.tenant == tenant);
    Ok(Json(traffic))
}

#[utoipa::path(
    get, path = "/api/v1/endpoints", tag = "overlay",
    params(("tenant" = Option<String>, Query, description = "Only this tenant's")),
    responses(
        (status = 200, description = "The routers that tunnels lead to, with round-trip times and loss", body = Vec<Endpoint>),
        (status = 400, description = "A parameter is wrong", body = Problem, content_type = "application/problem+json"),
        (status = "default", description = "A problem", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(crate) async fn endpoints<S: RouterState>(
    State(state): State<Arc<S>>,
    Pairs(pairs): Pairs,
) -> Answer<Vec<Endpoint>> {
    Ok(Json(state.endpoints(query::tenant(pairs)?).await?))
}

#[utoipa::path(
    get, path = "/metrics", tag = "router",
    responses(
        (status = 200, description = "Everything that can be counted, in the OpenMetrics text format", body = String, content_type = "application/openmetrics-text"),
        (status = "default", description = "A problem", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(crate) async fn metrics<S: RouterState>(
    State(state): State<Arc<S>>,
    Pairs(pairs): Pairs,
) -> Result<([(HeaderName, &'static str); 1], String), Problem> {
    query::nothing(pairs)?;
    let query = KernelQuery {
        offset: 0,
        limit: 1,
    };
    let snapshot = crate::metrics::Snapshot {
        status: state.status().await?,
        neighbors: state.neighbors().await?,
        tenants: state.tenants().await?,
        kernel: state.kernel(query).await?,
        traffic: state.traffic().await?,
        endpoints: state.endpoints(None).await?,
        services: state.services(None).await?,
        chains: state.chains(None).await?,
    };
    let text = snapshot
        .encode()
        .map_err(|error| Problem::new(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()))?;
    Ok(([(CONTENT_TYPE, crate::metrics::CONTENT_TYPE)], text))
}

#[utoipa::path(
    get, path = "/api/v1/kernel", tag = "kernel",
    params(
        ("limit" = Option<u32>, Query, description = "Refused routes on a page, 100 by default", minimum = 1, maximum = 1000),
        ("cursor" = Option<String>, Query, description = "`next_cursor` of the page before"),
    ),
    responses(
        (status = 200, description = "What the kernel holds of ours, and what it refused, in its own words", body = Kernel),
        (status = 400, description = "A parameter is wrong", body = Problem, content_type = "application/problem+json"),
        (status = "default", description = "A problem", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(crate) async fn kernel<S: RouterState>(
    State(state): State<Arc<S>>,
    Pairs(pairs): Pairs,
) -> Answer<Kernel> {
    Ok(Json(state.kernel(KernelQuery::parse(pairs)?).await?))
}
