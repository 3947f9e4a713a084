//! What one connection, one request and all of them together may take, for every HTTP server of Weft.

use std::time::Duration;

use axum::Router;
use axum::body::{Body, HttpBody as _, to_bytes};
use axum::extract::Request;
use axum::http::{StatusCode, header};
use axum::middleware::{Next, from_fn};
use axum::response::{IntoResponse as _, Response};

use crate::Problem;

mod answers;
mod paced;
mod places;
mod rate;

pub use answers::{Answers, answers};
pub use paced::Paced;
pub use places::{Place, Places};
pub use rate::Rate;

/// The head of a request is there within this time, and a connection without one is closed after it.
pub const HEADERS: Duration = Duration::from_secs(10);
/// The body of a request is there within this time.
pub const BODY_TIME: Duration = Duration::from_secs(10);
/// Octets that the body of a request has at most.
pub const BODY: usize = 1 << 20;
/// Who takes nothing of an answer for this long is not waited for.
pub const STALL: Duration = Duration::from_secs(10);
/// Octets a second that who asks takes at least of an answer, after [`STALL`].
pub const PACE: u64 = 64 << 10;

/// The same, where bodies are bounded: each is read, within [`BODY_TIME`], before anything looks at the request. Those pass as they come
/// that `streams` says so of.
pub fn bodies(app: Router, streams: fn(&Request) -> bool) -> Router {
    app.layer(from_fn(move |request: Request, next: Next| async move {
        match streams(&request) {
            true => next.run(request).await,
            false => read_body(request, next).await,
        }
    }))
}

async fn read_body(request: Request, next: Next) -> Response {
    let (parts, body) = request.into_parts();
    let announced = body.size_hint().lower() > BODY as u64;
    let read = async {
        match announced {
            true => Err(()),
            false => to_bytes(body, BODY).await.map_err(drop),
        }
    };
    let problem = match tokio::time::timeout(BODY_TIME, read).await {
        Ok(Ok(octets)) => {
            return next
                .run(Request::from_parts(parts, Body::from(octets)))
                .await;
        }
        Ok(Err(())) => Problem::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            format!("the body breaks off, or has more than {BODY} octets"),
        ),
        Err(_) => Problem::new(
            StatusCode::REQUEST_TIMEOUT,
            format!("the body is not there after {} s", BODY_TIME.as_secs()),
        ),
    };
    // What is left of the body is not waited for.
    ([(header::CONNECTION, "close")], problem).into_response()
}
