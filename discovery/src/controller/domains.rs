//! The part of the API that is about other domains: whom an operator trusts, what is shared, what they say. Theirs is read-only.

use axum::body::Bytes;
use axum::extract::{Path, State as Of};
use axum::http::StatusCode;
use axum::response::Response;
use axum::routing::{get, put};
use axum::{Json, Router};
use serde::Serialize;
use serde_json::{Value, json};
use utoipa::{OpenApi, ToSchema};
use weft_api::Problem;

use super::rest::{Actor, Shared, Writing, answer, change, listed, problem, read};
use super::{Controller, exchange};
use crate::database::Rejection;
use crate::exchange::operations::{self, NewTrust, TrustChange};
use crate::model::{Pair, RemoteRouter, RemoteTenant, Share, State, Trust, key, now};

/// The paths.
pub(super) fn router() -> Router<std::sync::Arc<Controller>> {
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

/// What the exchange with another domain is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Exchanged {
    /// It has never been heard: it may not be there, or not trust this domain.
    Waiting,
    /// It is heard.
    Current,
    /// It is heard no more: what it said last stays.
    Stale,
}

/// How the exchange with another domain does.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct DomainStatus {
    /// The domain's name.
    name: String,
    /// Whether it is heard.
    exchange: Exchanged,
    /// It was heard, and is no more.
    stale: bool,
    /// The AS number of its routers.
    #[serde(skip_serializing_if = "Option::is_none")]
    asn: Option<u32>,
    /// Its revision that is held here: all that is public of it is as it was then.
    revision: u64,
    /// When it was last heard, ms since 1970.
    #[serde(skip_serializing_if = "Option::is_none")]
    last_heard: Option<u64>,
    /// How long ago that is, s.
    #[serde(skip_serializing_if = "Option::is_none")]
    lag: Option<u64>,
    /// Controllers of ours that hear it.
    followers: usize,
    /// Controllers of it that this one tells what is public here.
    followed: usize,
    /// Its edges.
    routers: usize,
    /// Tenants that it shares with this domain.
    tenants: usize,
    /// Tenants that this domain shares with it.
    shared: usize,
    /// Why this controller does not hear it.
    #[serde(skip_serializing_if = "String::is_empty")]
    error: String,
}

fn status_of(controller: &Controller, state: &State, name: &str) -> DomainStatus {
    let link = controller.exchange.link(name);
    let remote = state.remote(&key::remote(name));
    let exchange = match remote {
        None => Exchanged::Waiting,
        Some(remote) if remote.is_stale() => Exchanged::Stale,
        Some(_) => Exchanged::Current,
    };
    let last_heard = link.heard.max(remote.map(|of| of.heard));
    // What it says when nothing of it has changed is not written down.
    let revision = match link.follows {
        true => link.revision,
        false => 0,
    };
    DomainStatus {
        name: name.to_owned(),
        exchange,
        stale: exchange == Exchanged::Stale,
        asn: remote.map(|of| of.asn),
        revision: remote.map_or(0, |of| of.revision).max(revision),
        last_heard,
        lag: last_heard.map(|at| now().saturating_sub(at) / 1000),
        followers: remote.map_or(0, |of| of.followers.len()),
        followed: link.followed,
        routers: of_domain(state.remote_routers(), name, |of| &of.domain).count(),
        tenants: of_domain(state.remote_tenants(), name, |of| &of.domain).count(),
        shared: of_domain(state.shares(), name, |of| &of.domain).count(),
        error: link.error,
    }
}

fn of_domain<'a, T: 'a>(
    all: impl Iterator<Item = &'a T>,
    name: &str,
    domain: impl Fn(&T) -> &String,
) -> impl Iterator<Item = &'a T> {
    all.filter(move |of| domain(of) == name)
}

/// How the exchange with all of them does, by name.
pub(super) fn statuses(controller: &Controller, state: &State) -> Vec<DomainStatus> {
    let trusts = state.trusts();
    trusts
        .map(|of| status_of(controller, state, &of.name))
        .collect()
}

/// Another domain: what was decided of it, and what it says of itself, which is its own to change.
#[derive(Serialize, ToSchema)]
pub struct OtherDomain {
    /// How the exchange does.
    #[serde(flatten)]
    status: DomainStatus,
    /// Where its controllers are.
    controllers: Vec<String>,
    /// SHA-256 of its authority's certificate.
    fingerprint: String,
    /// Hops between the edges of both.
    ttl: u8,
    /// Which edges speak with which; every one with every one where there are none.
    pairs: Vec<Pair>,
}

/// A domain that asked, and is not trusted.
#[derive(Serialize, ToSchema)]
pub struct Asking {
    /// The name that it gave.
    name: String,
    /// SHA-256 of its authority's certificate.
    fingerprint: String,
    /// When it last asked, ms since 1970.
    at: u64,
}

/// All other domains.
#[derive(Serialize, ToSchema)]
pub struct OtherDomains {
    /// Those that are trusted, by name.
    items: Vec<OtherDomain>,
    /// Those that asked this controller and are not, the latest first. Anybody may claim a name: compare the fingerprint.
    asking: Vec<Asking>,
}

fn other(controller: &Controller, state: &State, trust: &Trust) -> OtherDomain {
    OtherDomain {
        status: status_of(controller, state, &trust.name),
        controllers: trust.controllers.clone(),
        fingerprint: trust.fingerprint.clone(),
        ttl: trust.ttl,
        pairs: trust.pairs.clone(),
    }
}

fn trusted<'a>(state: &'a State, name: &str) -> Result<&'a Trust, Problem> {
    let missing = || Rejection::NotFound(format!("there is no other domain `{name}`"));
    let trust = state.trust(&key::trust(name));
    trust.ok_or_else(|| problem(&missing()))
}

#[utoipa::path(get, path = "/api/v1/introduction", tag = "domains",
    responses((status = 200, description = "What another domain's operator trusts this one by; nothing of it is secret")))]
async fn introduction(Of(controller): Shared, actor: Actor) -> Result<Json<Value>, Problem> {
    actor.may_see(None)?;
    let introduction = controller.introduction.to_string();
    Ok(Json(json!({ "introduction": introduction })))
}

#[utoipa::path(get, path = "/api/v1/domains", tag = "domains",
    responses((status = 200, description = "Other domains", body = OtherDomains)))]
async fn domains(Of(controller): Shared, actor: Actor) -> Result<Response, Problem> {
    actor.may_see(None)?;
    let state = controller.database.state();
    let trusts = state.trusts();
    let strangers = controller.exchange.strangers().into_iter();
    let body = OtherDomains {
        items: trusts.map(|of| other(&controller, &state, of)).collect(),
        asking: strangers
            .map(|of: exchange::Stranger| Asking {
                name: of.domain,
                fingerprint: of.fingerprint,
                at: of.at,
            })
            .collect(),
    };
    let body = serde_json::to_value(body).unwrap_or_default();
    Ok(answer(StatusCode::OK, body, state.revision, None))
}

#[utoipa::path(get, path = "/api/v1/domains/{name}", tag = "domains",
    params(("name" = String, Path, description = "The domain's name")),
    responses((status = 200, description = "Another domain, and how the exchange with it does", body = OtherDomain)))]
async fn domain(
    Of(controller): Shared,
    actor: Actor,
    Path(name): Path<String>,
) -> Result<Response, Problem> {
    actor.may_see(None)?;
    let state = controller.database.state();
    let trust = trusted(&state, &name)?;
    let body = serde_json::to_value(other(&controller, &state, trust)).unwrap_or_default();
    let tag = state.get(&key::trust(&name)).map(|of| of.modified);
    Ok(answer(StatusCode::OK, body, state.revision, tag))
}

#[utoipa::path(post, path = "/api/v1/domains", tag = "domains", request_body = NewTrust,
    responses((status = 201, description = "It is trusted: with the same decision there both tell each other what is public", body = Trust)))]
async fn trust(Of(controller): Shared, writing: Writing, body: Bytes) -> Result<Response, Problem> {
    writing.actor.may_change(None)?;
    let new: NewTrust = read(&body)?;
    let introduction: Result<crate::exchange::Introduction, _> = new.introduction.parse();
    let name = introduction.map(|of| of.domain);
    let name = name.map_err(|error| problem(&Rejection::Invalid(error.to_string())))?;
    let subject = (StatusCode::CREATED, key::trust(&name));
    change(
        &controller,
        writing.asked(&body)?,
        format!("trust domain {name}"),
        subject,
        move |transaction| operations::trust(transaction, &new),
    )
    .await
}

#[utoipa::path(patch, path = "/api/v1/domains/{name}", tag = "domains",
    params(("name" = String, Path, description = "The domain's name")), request_body = TrustChange,
    responses((status = 200, description = "As it is now", body = Trust)))]
async fn change_trust(
    Of(controller): Shared,
    writing: Writing,
    Path(name): Path<String>,
    body: Bytes,
) -> Result<Response, Problem> {
    writing.actor.may_change(None)?;
    let new: TrustChange = read(&body)?;
    let subject = (StatusCode::OK, key::trust(&name));
    change(
        &controller,
        writing.asked(&body)?,
        format!("change what is decided of domain {name}"),
        subject,
        move |transaction| operations::change_trust(transaction, &name, &new),
    )
    .await
}

#[utoipa::path(delete, path = "/api/v1/domains/{name}", tag = "domains",
    params(("name" = String, Path, description = "The domain's name")),
    responses((status = 204, description = "It is trusted no more: what it said is forgotten, sessions with its edges end")))]
async fn distrust(
    Of(controller): Shared,
    writing: Writing,
    Path(name): Path<String>,
) -> Result<Response, Problem> {
    writing.actor.may_change(None)?;
    let subject = (StatusCode::NO_CONTENT, key::trust(&name));
    change(
        &controller,
        writing.asked(&[])?,
        format!("trust domain {name} no more"),
        subject,
        move |transaction| operations::distrust(transaction, &name),
    )
    .await
}

#[utoipa::path(get, path = "/api/v1/domains/{name}/routers", tag = "domains",
    params(("name" = String, Path, description = "The domain's name")),
    responses((status = 200, description = "Its edges, as it says, `items`", body = Vec<RemoteRouter>)))]
async fn routers(
    Of(controller): Shared,
    actor: Actor,
    Path(name): Path<String>,
) -> Result<Response, Problem> {
    actor.may_see(None)?;
    let state = controller.database.state();
    trusted(&state, &name)?;
    let all = of_domain(state.remote_routers(), &name, |of| &of.domain);
    Ok(listed(&state, all))
}

#[utoipa::path(get, path = "/api/v1/domains/{name}/tenants", tag = "domains",
    params(("name" = String, Path, description = "The domain's name")),
    responses((status = 200, description = "The tenants that it shares with this domain, as it says, `items`", body = Vec<RemoteTenant>)))]
async fn tenants(
    Of(controller): Shared,
    actor: Actor,
    Path(name): Path<String>,
) -> Result<Response, Problem> {
    actor.may_see(None)?;
    let state = controller.database.state();
    trusted(&state, &name)?;
    let all = of_domain(state.remote_tenants(), &name, |of| &of.domain);
    Ok(listed(&state, all))
}

#[utoipa::path(get, path = "/api/v1/domains/{name}/shared", tag = "domains",
    params(("name" = String, Path, description = "The domain's name")),
    responses((status = 200, description = "Our tenants that it may know of, `items`", body = Vec<Share>)))]
async fn shared(
    Of(controller): Shared,
    actor: Actor,
    Path(name): Path<String>,
) -> Result<Response, Problem> {
    actor.may_see(None)?;
    let state = controller.database.state();
    trusted(&state, &name)?;
    let all = of_domain(state.shares(), &name, |of| &of.domain);
    Ok(listed(&state, all))
}

#[utoipa::path(put, path = "/api/v1/domains/{name}/shared/{tenant}", tag = "domains",
    params(("name" = String, Path, description = "The domain's name"), ("tenant" = String, Path, description = "Our tenant's name")),
    responses((status = 200, description = "It may know of the tenant: its name and VNI", body = Share)))]
async fn share(
    Of(controller): Shared,
    writing: Writing,
    Path((name, tenant)): Path<(String, String)>,
) -> Result<Response, Problem> {
    writing.actor.may_change(None)?;
    let subject = (StatusCode::OK, key::share(&name, &tenant));
    change(
        &controller,
        writing.asked(&[])?,
        format!("share tenant {tenant} with domain {name}"),
        subject,
        move |transaction| operations::share(transaction, &name, &tenant),
    )
    .await
}

#[utoipa::path(delete, path = "/api/v1/domains/{name}/shared/{tenant}", tag = "domains",
    params(("name" = String, Path, description = "The domain's name"), ("tenant" = String, Path, description = "Our tenant's name")),
    responses((status = 204, description = "It may know of it no more, and its labels are not taken any more")))]
async fn unshare(
    Of(controller): Shared,
    writing: Writing,
    Path((name, tenant)): Path<(String, String)>,
) -> Result<Response, Problem> {
    writing.actor.may_change(None)?;
    let subject = (StatusCode::NO_CONTENT, key::share(&name, &tenant));
    change(
        &controller,
        writing.asked(&[])?,
        format!("share tenant {tenant} with domain {name} no more"),
        subject,
        move |transaction| operations::unshare(transaction, &name, &tenant),
    )
    .await
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
