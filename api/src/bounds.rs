//! What one connection, one request and all of them together may take, for every HTTP server of Weft.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::{Body, HttpBody as _, to_bytes};
use axum::extract::Request;
use axum::http::{StatusCode, header};
use axum::middleware::{Next, from_fn};
use axum::response::{IntoResponse as _, Response};

use crate::Problem;

/// The head of a request is there within this time, and a connection without one is closed after it.
pub const HEADERS: Duration = Duration::from_secs(10);
/// The body of a request is there within this time.
pub const BODY_TIME: Duration = Duration::from_secs(10);
/// Octets that the body of a request has at most.
pub const BODY: usize = 1 << 20;

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

/// Places for connections: so many in all, and so many for one address (IPv6: for one /64).
#[derive(Debug)]
pub struct Places {
    all: usize,
    each: usize,
    taken: Mutex<Taken>,
}

#[derive(Debug, Default)]
struct Taken {
    all: usize,
    by: HashMap<Option<IpAddr>, usize>,
}

impl Places {
    /// So many in all, so many for each address.
    pub fn new(all: usize, each: usize) -> Arc<Self> {
        Arc::new(Self {
            all,
            each,
            taken: Mutex::default(),
        })
    }

    /// A place for a connection from this address, `None` of a Unix socket, which shares what all have; `None` where all are taken.
    pub fn take(self: &Arc<Self>, from: Option<IpAddr>) -> Option<Place> {
        let by = from.map(|address| match address.to_canonical() {
            IpAddr::V6(address) => {
                Ipv6Addr::from_bits(address.to_bits() & (u128::MAX << 64)).into()
            }
            address => address,
        });
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let each = match by {
            Some(_) => self.each,
            None => self.all,
        };
        let own = taken.by.get(&by).copied().unwrap_or_default();
        if taken.all >= self.all || own >= each {
            return None;
        }
        taken.all += 1;
        taken.by.insert(by, own + 1);
        Some(Place {
            places: self.clone(),
            by,
        })
    }
}

/// A place, free again when this is dropped.
#[derive(Debug)]
pub struct Place {
    places: Arc<Places>,
    by: Option<IpAddr>,
}

impl Drop for Place {
    fn drop(&mut self) {
        let taken = self.places.taken.lock();
        let mut taken = taken.unwrap_or_else(PoisonError::into_inner);
        taken.all -= 1;
        if let Some(own) = taken.by.get_mut(&self.by) {
            *own -= 1;
            if *own == 0 {
                taken.by.remove(&self.by);
            }
        }
    }
}

/// A token bucket for lines of the log that strangers bring about.
#[derive(Debug)]
pub struct Rate {
    burst: u32,
    every: Duration,
    bucket: Mutex<Bucket>,
}

#[derive(Debug)]
struct Bucket {
    tokens: u32,
    filled: Instant,
    left_out: u64,
}

impl Rate {
    /// So many lines at once, and one more after each time like this.
    pub fn new(burst: u32, every: Duration) -> Self {
        Self {
            burst,
            every,
            bucket: Mutex::new(Bucket {
                tokens: burst,
                filled: Instant::now(),
                left_out: 0,
            }),
        }
    }

    /// How many lines were left out before this one; `None` where this one is left out, too.
    pub fn pass(&self) -> Option<u64> {
        self.pass_at(Instant::now())
    }

    fn pass_at(&self, now: Instant) -> Option<u64> {
        let mut bucket = self.bucket.lock().unwrap_or_else(PoisonError::into_inner);
        let passed = now.saturating_duration_since(bucket.filled);
        let new = u32::try_from(passed.as_nanos() / self.every.as_nanos()).unwrap_or(u32::MAX);
        if new > 0 {
            bucket.tokens = bucket.tokens.saturating_add(new).min(self.burst);
            bucket.filled = now;
        }
        match bucket.tokens.checked_sub(1) {
            Some(tokens) => {
                bucket.tokens = tokens;
                Some(std::mem::take(&mut bucket.left_out))
            }
            None => {
                bucket.left_out += 1;
                None
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_few_for_all_and_fewer_for_each_and_come_back() {
        let places = Places::new(3, 2);
        let from = |text: &str| Some(text.parse().unwrap());
        let first = places.take(from("2001:db8::1")).unwrap();
        let _second = places.take(from("2001:db8::2")).unwrap();
        assert!(places.take(from("2001:db8::3")).is_none(), "one /64");
        let _third = places.take(from("192.0.2.1")).unwrap();
        assert!(places.take(from("192.0.2.2")).is_none(), "all are taken");
        drop(first);
        let _fourth = places.take(from("::ffff:192.0.2.1")).unwrap();
        assert!(places.take(None).is_none());
    }

    #[test]
    fn lines_are_few_and_the_next_says_how_many_were_left_out() {
        let rate = Rate::new(2, Duration::from_secs(1));
        let start = Instant::now();
        let passed: Vec<Option<u64>> = (0..5).map(|_| rate.pass_at(start)).collect();
        assert_eq!(passed, [Some(0), Some(0), None, None, None]);
        let later = start + Duration::from_secs(2);
        assert_eq!(rate.pass_at(later), Some(3));
        assert_eq!(rate.pass_at(later), Some(0));
        assert_eq!(rate.pass_at(later), None);
    }
}
