//! Answers that wait for who asked to take them: how many octets of them there are, and for how long.

use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes, HttpBody};
use axum::extract::Request;
use axum::http::{StatusCode, header};
use axum::middleware::{Next, from_fn};
use axum::response::{IntoResponse as _, Response};
use http_body::{Frame, SizeHint};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::sleep;

use super::{PACE, STALL};
use crate::Problem;

/// Answers of fewer octets are not counted: they are as small as the requests.
const SMALL: u64 = 16 << 10;
/// Octets that are handed to a connection at once: what it holds of an answer that nobody takes.
const PIECE: usize = 16 << 10;
/// What an answer counts whose length nobody knows before, and how long it may take.
const UNKNOWN: u64 = 64 << 10;
const UNKNOWN_TIME: Duration = Duration::from_secs(60);

/// Octets of answers that wait to be taken, at most.
#[derive(Clone, Debug)]
pub struct Answers {
    /// In pieces.
    room: Arc<Semaphore>,
    pieces: u32,
}

impl Answers {
    /// So many octets.
    pub fn new(octets: u32) -> Self {
        let pieces = octets / PIECE as u32;
        Self {
            room: Arc::new(Semaphore::new(pieces as usize)),
            pieces,
        }
    }

    /// Room for an answer; one that is larger than all there is takes all.
    fn take(&self, octets: u64) -> Option<OwnedSemaphorePermit> {
        let pieces = u32::try_from(octets.div_ceil(PIECE as u64)).unwrap_or(u32::MAX);
        let pieces = pieces.min(self.pieces);
        self.room.clone().try_acquire_many_owned(pieces).ok()
    }
}

/// The same, where answers have room in `room` until they are taken, and [`STALL`] and the time of [`PACE`] for that; those pass as they
/// come that `streams` says so of.
pub fn answers(app: Router, room: Answers, streams: fn(&Request) -> bool) -> Router {
    app.layer(from_fn(move |request: Request, next: Next| {
        let room = room.clone();
        async move {
            if streams(&request) {
                return next.run(request).await;
            }
            bounded(next.run(request).await, &room, STALL)
        }
    }))
}

fn bounded(answer: Response, room: &Answers, stall: Duration) -> Response {
    let exact = answer.body().size_hint().exact();
    let octets = exact.unwrap_or(UNKNOWN);
    if octets <= SMALL {
        return answer;
    }
    let Some(permit) = room.take(octets) else {
        let detail =
            "too many answers wait to be taken by who asked for them: ask again in a moment";
        let problem = Problem::new(StatusCode::SERVICE_UNAVAILABLE, detail);
        return ([(header::RETRY_AFTER, "1")], problem).into_response();
    };
    let (parts, body) = answer.into_parts();
    let time = match exact {
        Some(octets) => stall + Duration::from_secs(octets / PACE),
        None => UNKNOWN_TIME,
    };
    Response::from_parts(parts, Body::new(Held::new(body, permit, time)))
}

/// An answer's body, in pieces, until it has been taken or its time is over.
struct Held {
    held: Arc<Mutex<Option<Inner>>>,
    timer: tokio::task::AbortHandle,
}

/// What goes where nobody takes it.
struct Inner {
    body: Body,
    /// Of a frame, what has not been handed on.
    rest: Bytes,
    _room: OwnedSemaphorePermit,
}

impl Held {
    fn new(body: Body, room: OwnedSemaphorePermit, time: Duration) -> Self {
        let held = Arc::new(Mutex::new(Some(Inner {
            body,
            rest: Bytes::new(),
            _room: room,
        })));
        let late = held.clone();
        // A connection that nobody reads from asks for no piece: the time is looked at by somebody else.
        let timer = tokio::spawn(async move {
            sleep(time).await;
            late.lock().unwrap_or_else(PoisonError::into_inner).take();
        });
        Self {
            held,
            timer: timer.abort_handle(),
        }
    }

    fn held(&self) -> MutexGuard<'_, Option<Inner>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.timer.abort();
        // What the timer has of it goes later.
        self.held().take();
    }
}

impl HttpBody for Held {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let mut held = self.held();
        let Some(inner) = held.as_mut() else {
            let late = "the answer was not taken in time";
            return Poll::Ready(Some(Err(axum::Error::new(late))));
        };
        if inner.rest.is_empty() {
            match ready!(Pin::new(&mut inner.body).poll_frame(context)) {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => inner.rest = data,
                    Err(frame) => return Poll::Ready(Some(Ok(frame))),
                },
                other => return Poll::Ready(other),
            }
        }
        let length = inner.rest.len().min(PIECE);
        // A copy: a part of the whole would hold all of it.
        let piece = Bytes::copy_from_slice(&inner.rest.split_to(length));
        Poll::Ready(Some(Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        let held = self.held();
        held.as_ref()
            .is_some_and(|held| held.rest.is_empty() && held.body.is_end_stream())
    }

    fn size_hint(&self) -> SizeHint {
        let held = self.held();
        let hint = held
            .as_ref()
            .and_then(|held| Some(held.body.size_hint().exact()? + held.rest.len() as u64));
        hint.map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test: a panic is its verdict")]
    use std::future::poll_fn;

    use super::*;

    fn large() -> Response {
        Response::new(Body::from(vec![7; 100_000]))
    }

    #[tokio::test]
    async fn answers_that_nobody_takes_have_a_bound_and_go() {
        let room = Answers::new(256 << 10);
        let answer = |stall| bounded(large(), &room, stall);
        let (first, second) = (answer(STALL), answer(Duration::from_millis(100)));
        // No third one, until one has been taken; small ones pass.
        let full = answer(STALL);
        assert_eq!(full.status(), StatusCode::SERVICE_UNAVAILABLE);
        assert!(full.headers().contains_key(header::RETRY_AFTER));
        assert_eq!(bounded("small".into_response(), &room, STALL).status(), 200);
        let taken = axum::body::to_bytes(first.into_body(), usize::MAX).await;
        assert_eq!(taken.unwrap(), vec![7; 100_000]);
        let _third = answer(STALL);
        // One of which a piece was taken goes when its time is over, though nobody asks for more.
        let mut half = second.into_body();
        let frame = poll_fn(|context| Pin::new(&mut half).poll_frame(context)).await;
        assert_eq!(frame.unwrap().unwrap().into_data().unwrap().len(), PIECE);
        while answer(STALL).status() != StatusCode::OK {
            sleep(Duration::from_millis(5)).await;
        }
        let late = poll_fn(|context| Pin::new(&mut half).poll_frame(context)).await;
        assert!(late.unwrap().is_err(), "it breaks off");
    }

    #[tokio::test]
    async fn one_that_is_larger_than_all_room_passes_alone() {
        let room = Answers::new(32 << 10);
        let first = bounded(large(), &room, STALL);
        assert_eq!(first.status(), 200);
        assert_eq!(bounded(large(), &room, STALL).status(), 503);
        drop(first);
        assert_eq!(bounded(large(), &room, STALL).status(), 200);
    }
}
