//! Requests that a browser sends for somebody else's page are refused: by a name that somebody pointed at this host (DNS rebinding),
//! and by a page of another origin.

use std::net::IpAddr;

use axum::Router;
use axum::extract::Request;
use axum::http::uri::Authority;
use axum::http::{StatusCode, header};
use axum::middleware::{Next, from_fn};
use axum::response::IntoResponse as _;

use crate::Problem;

/// The same for a port of the loopback: `Host` is one of its addresses or `localhost`, and `Origin` is absent or the same.
pub(crate) fn tcp(app: Router) -> Router {
    app.layer(from_fn(move |request: Request, next: Next| async move {
        match check(&request) {
            Ok(()) => next.run(request).await,
            Err(problem) => problem.into_response(),
        }
    }))
}

fn check(request: &Request) -> Result<(), Problem> {
    let text = |name| {
        let mut all = request.headers().get_all(name).iter();
        let first = all.next().map(|value| value.to_str().unwrap_or("?"));
        // More than one is none that can be believed.
        first.map(|first| if all.next().is_some() { "?" } else { first })
    };
    let host = text(header::HOST).unwrap_or_default();
    let authority: Option<Authority> = host.parse().ok().filter(|_| !host.contains('@'));
    let known = authority.as_ref().is_some_and(|authority| {
        let name = authority
            .host()
            .trim_start_matches('[')
            .trim_end_matches(']');
        match name.parse::<IpAddr>() {
            // A name that somebody points here is no address.
            Ok(address) => address.to_canonical().is_loopback(),
            Err(_) => name.eq_ignore_ascii_case("localhost"),
        }
    });
    if !known {
        let detail = format!(
            "the header `Host: {host}` is refused: a name may be pointed here by anybody. Ask by an address of the loopback, such as that in `api.listen`, or by `localhost`"
        );
        return Err(Problem::new(StatusCode::MISDIRECTED_REQUEST, detail));
    }
    match text(header::ORIGIN) {
        Some(origin) if !origin.eq_ignore_ascii_case(&format!("http://{host}")) => {
            let detail = format!(
                "a page of another site (`Origin: {origin}`) asks for this, which is refused: programs send no `Origin`"
            );
            Err(Problem::new(StatusCode::FORBIDDEN, detail))
        }
        _ => Ok(()),
    }
}
