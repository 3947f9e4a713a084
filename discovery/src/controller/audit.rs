//! Who did what from where, and what came of it, in the log: each change, and at a rate what was refused for who asks. Lines have the
//! target `weft_audit`.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, Method, header};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::Response;
use tonic::Code;
use tracing::{info, warn};
use weft_api::bounds::Rate;

use super::Controller;
use crate::model::{Scope, State as Records, Token, key};

/// Refused requests that are told at once; then one each [`REFUSED_EVERY`].
const REFUSED_BURST: u32 = 20;
const REFUSED_EVERY: Duration = Duration::from_secs(5);

/// Where a connection comes from.
#[derive(Clone, Copy, Debug)]
pub(super) struct Origin(pub(super) SocketAddr);

/// What is counted, and how often it is told.
#[derive(Debug)]
pub(super) struct Audit {
    rate: Rate,
    refused: AtomicU64,
}

impl Default for Audit {
    fn default() -> Self {
        Self {
            rate: Rate::new(REFUSED_BURST, REFUSED_EVERY),
            refused: AtomicU64::new(0),
        }
    }
}

impl Audit {
    /// Requests that were refused for who asked, since the start.
    pub(super) fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }

    /// Tells of a request.
    pub(super) fn note(&self, entry: &Entry) {
        let Entry {
            who,
            from,
            what,
            result,
            ..
        } = entry;
        match entry.outcome {
            Outcome::Looked => {}
            Outcome::Changed | Outcome::Failed => {
                info!(target: "weft_audit", who, from, what, result, "audit");
            }
            Outcome::Refused => {
                self.refused.fetch_add(1, Ordering::Relaxed);
                if let Some(left_out) = self.rate.pass() {
                    warn!(target: "weft_audit", who, from, what, result, left_out, "audit: refused");
                }
            }
        }
    }
}

/// What came of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// It asked for nothing else.
    Looked,
    /// It did something.
    Changed,
    /// It was to do something, and could not be.
    Failed,
    /// Who asks is not known, or may not.
    Refused,
}

/// A line of the audit log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) who: String,
    pub(super) from: String,
    pub(super) what: String,
    pub(super) result: String,
    pub(super) outcome: Outcome,
}

/// The API, with a line for each request that deserves one.
pub(super) fn audited(app: Router, controller: Arc<Controller>) -> Router {
    app.layer(from_fn_with_state(controller, audit))
}

async fn audit(
    State(controller): State<Arc<Controller>>,
    request: Request,
    next: Next,
) -> Response {
    let who = who(&controller.database.state(), request.headers());
    let from = from(request.extensions().get::<Origin>());
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    let response = next.run(request).await;
    // What routers and other domains ask has lines of its own: joining, attaching, following.
    if !is_routers(&path) {
        controller.audit.note(&Entry {
            who,
            from,
            what: what(&method, &path),
            result: result(&response),
            outcome: outcome(&method, &path, &response),
        });
    }
    response
}

pub(super) fn from(origin: Option<&Origin>) -> String {
    origin.map_or_else(|| "?".to_owned(), |Origin(from)| from.to_string())
}

fn is_routers(path: &str) -> bool {
    path.starts_with("/weft.discovery.v1.")
}

/// A token and what it is good for. What is shown is a stranger's word until it is known.
fn who(state: &Records, headers: &HeaderMap) -> String {
    let shown = headers.get(header::AUTHORIZATION);
    let Some(shown) = shown.map(|shown| shown.to_str().unwrap_or("?")) else {
        return "nobody".to_owned();
    };
    // `Bearer weft.ID.SECRET.FINGERPRINT`: the secret stays unsaid.
    let id = shown.split('.').nth(1).unwrap_or_default();
    named(id, state.token(&key::token(id)))
}

/// The same of a token's public part.
pub(super) fn named(id: &str, token: Option<&Token>) -> String {
    match token.map(|token| &token.scope) {
        Some(Scope::Operator) => format!("token {id} (operator)"),
        Some(Scope::Reader) => format!("token {id} (reader)"),
        Some(Scope::Tenant { tenant }) => format!("token {id} (tenant {tenant})"),
        Some(Scope::Join { name: None, .. }) => format!("token {id} (join)"),
        Some(Scope::Join {
            name: Some(name), ..
        }) => format!("token {id} (join as {name})"),
        None => format!("unknown token {}", cut(id)),
    }
}

/// What a stranger says, so far as a line has place for it.
fn cut(text: &str) -> String {
    let shown: String = text.chars().take(128).collect();
    shown.escape_debug().to_string()
}

fn what(method: &Method, path: &str) -> String {
    match path.strip_prefix("/weft.management.v1.Management/") {
        Some(call) => cut(call),
        None => cut(&format!("{method} {path}")),
    }
}

/// The code of gRPC, where it is one that is told at once.
fn code(response: &Response) -> Option<Code> {
    let code = response.headers().get("grpc-status")?;
    Some(Code::from_bytes(code.as_bytes()))
}

fn result(response: &Response) -> String {
    match code(response) {
        Some(code) => format!("{code:?}"),
        None => response.status().as_u16().to_string(),
    }
}

fn outcome(method: &Method, path: &str, response: &Response) -> Outcome {
    let status = response.status().as_u16();
    let code = code(response);
    let looks = match path.strip_prefix("/weft.management.v1.Management/") {
        Some(call) => ["Get", "List", "Watch"]
            .iter()
            .any(|word| call.starts_with(word)),
        None => *method == Method::GET || *method == Method::HEAD || path.starts_with("/grpc."),
    };
    match code {
        Some(Code::Unauthenticated | Code::PermissionDenied) => Outcome::Refused,
        None if matches!(status, 401 | 403) => Outcome::Refused,
        _ if looks => Outcome::Looked,
        None if status < 400 => Outcome::Changed,
        Some(Code::Ok) => Outcome::Changed,
        _ => Outcome::Failed,
    }
}

#[cfg(test)]
mod tests {
    use axum::body::Body;

    use super::*;

    fn answered(status: u16, code: Option<&str>) -> Response {
        let mut answer = axum::http::Response::builder().status(status);
        if let Some(code) = code {
            answer = answer.header("grpc-status", code);
        }
        answer.body(Body::empty()).expect("an answer")
    }

    #[test]
    fn what_changes_something_or_is_refused_has_a_line() {
        let rest = |method: &Method, status| {
            let path = "/api/v1/tenants/red";
            outcome(method, path, &answered(status, None))
        };
        assert_eq!(rest(&Method::GET, 200), Outcome::Looked);
        assert_eq!(rest(&Method::GET, 404), Outcome::Looked);
        assert_eq!(rest(&Method::GET, 401), Outcome::Refused);
        assert_eq!(rest(&Method::PATCH, 200), Outcome::Changed);
        assert_eq!(rest(&Method::DELETE, 409), Outcome::Failed);
        assert_eq!(rest(&Method::DELETE, 403), Outcome::Refused);
        let grpc = |call: &str, code| {
            let path = format!("/weft.management.v1.Management/{call}");
            outcome(&Method::POST, &path, &answered(200, code))
        };
        assert_eq!(grpc("ListTenants", None), Outcome::Looked);
        assert_eq!(grpc("ListTenants", Some("16")), Outcome::Refused);
        assert_eq!(grpc("DeleteTenant", None), Outcome::Changed);
        assert_eq!(grpc("DeleteTenant", Some("5")), Outcome::Failed);
        assert_eq!(grpc("DeleteTenant", Some("7")), Outcome::Refused);
    }

    #[test]
    fn a_secret_is_in_no_line_and_a_line_is_one() {
        let state = Records::default();
        let shown = |text: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::AUTHORIZATION, text.parse().expect("a header"));
            who(&state, &headers)
        };
        assert_eq!(shown("Bearer weft.id.secret.print"), "unknown token id");
        assert_eq!(shown("Bearer secret"), "unknown token ");
        assert!(shown(&format!("Bearer weft.{}.s", "a".repeat(10_000))).len() < 200);
        assert_eq!(what(&Method::PUT, "/a\nb"), "PUT /a\\nb");
    }

    #[test]
    fn refusals_are_counted_and_told_at_a_rate() {
        let audit = Audit::default();
        for _ in 0..100 {
            audit.note(&Entry {
                who: "nobody".to_owned(),
                from: "192.0.2.1:1".to_owned(),
                what: "GET /api/v1/tenants".to_owned(),
                result: "401".to_owned(),
                outcome: Outcome::Refused,
            });
        }
        assert_eq!(audit.refused(), 100);
        assert_eq!(audit.rate.pass(), None, "the burst is used up");
    }
}
