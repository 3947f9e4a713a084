//! Who uses the API, and what becomes of it: tokens at a port with TLS, and the audit log.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::Request;
use axum::http::{HeaderMap, Method, StatusCode, header};
use axum::middleware::{Next, from_fn};
use axum::response::{IntoResponse as _, Response};
use tracing::{info, warn};

use crate::Problem;
use crate::bounds::Rate;
use crate::token::TokenText;

mod fresh;
mod keys;
mod secure;
mod tokens;

pub use keys::certificate_fingerprint;
pub use secure::Secure;
pub use tokens::{Known, Role, Tokens, share};

/// Refused requests that are told at once; then one each [`REFUSED_EVERY`].
const REFUSED_BURST: u32 = 20;
const REFUSED_EVERY: Duration = Duration::from_secs(5);

/// Lines about requests that were refused, and connections.
#[derive(Clone, Debug)]
pub(crate) struct Audit(Arc<Rate>);

impl Default for Audit {
    fn default() -> Self {
        Self(Arc::new(Rate::new(REFUSED_BURST, REFUSED_EVERY)))
    }
}

/// Where a connection comes from.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Peer {
    /// A process of this host, of this user.
    User(Option<u32>),
    /// An address.
    Address(SocketAddr),
}

impl Peer {
    fn from(self) -> String {
        match self {
            Self::User(_) => "this host".to_owned(),
            Self::Address(from) => from.to_string(),
        }
    }

    fn who(self) -> String {
        match self {
            Self::User(Some(uid)) => format!("uid {uid}"),
            Self::User(None) | Self::Address(_) => "anybody".to_owned(),
        }
    }
}

/// The API with a line in the log for each request that does something, and at a rate for those that are refused; with `tokens` only who
/// shows one is answered.
pub(crate) fn guarded(
    app: Router,
    tokens: Option<Arc<Secure>>,
    peer: Peer,
    audit: Audit,
) -> Router {
    app.layer(from_fn(move |request: Request, next: Next| {
        let (tokens, audit) = (tokens.clone(), audit.clone());
        async move {
            let does = !matches!(*request.method(), Method::GET | Method::HEAD);
            let what = cut(&format!("{} {}", request.method(), request.uri().path()));
            let (who, answer) = match admitted(
                tokens.as_deref(),
                request.method(),
                request.headers(),
                peer,
            )
            .await
            {
                Ok(who) => (who, next.run(request).await),
                Err((who, answer)) => (who, *answer),
            };
            audit.note(&who, peer, &what, answer.status(), does);
            answer
        }
    }))
}

impl Audit {
    fn note(&self, who: &str, peer: Peer, what: &str, result: StatusCode, does: bool) {
        let from = peer.from();
        let result = result.as_u16();
        if matches!(result, 401 | 403 | 421) {
            if let Some(left_out) = self.0.pass() {
                warn!(target: "weft_audit", who, from, what, result, left_out, "audit: refused");
            }
        } else if does {
            info!(target: "weft_audit", who, from, what, result, "audit");
        }
    }
}

type Refused = (String, Box<Response>);

/// Who asks, where that is permitted.
async fn admitted(
    tokens: Option<&Secure>,
    method: &Method,
    headers: &HeaderMap,
    peer: Peer,
) -> Result<String, Refused> {
    let Some(tokens) = tokens else {
        return Ok(peer.who());
    };
    let unknown = |who: String, detail: String| {
        let problem = Problem::new(StatusCode::UNAUTHORIZED, detail);
        let answer = ([(header::WWW_AUTHENTICATE, "Bearer")], problem).into_response();
        (who, Box::new(answer))
    };
    let shown = match bearer(headers) {
        None => {
            let detail = "this needs a token: Authorization: Bearer weft.ID.SECRET.FINGERPRINT";
            return Err(unknown("nobody".to_owned(), detail.to_owned()));
        }
        Some(shown) => shown,
    };
    let shown: TokenText = match shown.parse() {
        Ok(shown) => shown,
        Err(error) => return Err(unknown("unknown token".to_owned(), format!("{error}"))),
    };
    let Some(known) = tokens.check(&shown).await else {
        let detail = "this token is not known here: it may have been taken back";
        let who = format!("unknown token {}", cut(&shown.id));
        return Err(unknown(who, detail.to_owned()));
    };
    let who = known.to_string();
    let looks = matches!(*method, Method::GET | Method::HEAD);
    if !looks && known.role != Role::Operate {
        let detail = format!(
            "{who} may look, and this does something: it takes a token with the role `{}`",
            Role::Operate
        );
        let problem = Problem::new(StatusCode::FORBIDDEN, detail);
        return Err((who, Box::new(problem.into_response())));
    }
    Ok(who)
}

/// What is shown behind `Bearer`, where there is one header alone.
fn bearer(headers: &HeaderMap) -> Option<&str> {
    let mut all = headers.get_all(header::AUTHORIZATION).iter();
    let first = all.next()?.to_str().ok()?;
    let (scheme, token) = first.split_once(' ')?;
    (all.next().is_none() && scheme.eq_ignore_ascii_case("bearer")).then_some(token)
}

/// What a stranger says, so far as a line has place for it.
fn cut(text: &str) -> String {
    let shown: String = text.chars().take(128).collect();
    shown.escape_debug().to_string()
}
