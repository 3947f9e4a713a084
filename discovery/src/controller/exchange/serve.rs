//! What controllers of other domains are told.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::Arc;

use tokio::sync::broadcast::error::RecvError;
use tokio::sync::mpsc;
use tokio_stream::{Stream, wrappers::ReceiverStream};
use tonic::{Request, Response, Status};
use tracing::{info, warn};

use super::HEARTBEAT;
use crate::controller::Controller;
use crate::controller::grpc::LARGEST;
use crate::controller::listen::Caller;
use crate::exchange::public;
use crate::model::{State, key};
use crate::proto::exchange_server::{Exchange, ExchangeServer};
use crate::proto::{FollowRequest, PublicUpdate};
use crate::view::{differing, digests};

/// Messages that wait for a follower. One that does not read is waited for: it is told all at once later.
const QUEUE: usize = 4;

/// The service of a controller.
pub(in crate::controller) fn service(controller: Arc<Controller>) -> ExchangeServer<Server> {
    ExchangeServer::new(Server { controller })
        .max_decoding_message_size(LARGEST)
        .max_encoding_message_size(LARGEST)
}

pub(in crate::controller) struct Server {
    controller: Arc<Controller>,
}

/// A controller of another domain, by its certificate.
#[derive(Clone, Debug)]
struct Follower {
    domain: String,
    fingerprint: String,
}

impl Follower {
    /// It is trusted now.
    fn check(&self, state: &State) -> Result<(), Status> {
        let own = state.domain().map_or("", |one| one.name.as_str());
        let Self {
            domain,
            fingerprint,
        } = self;
        match state.trust(&key::trust(domain)) {
            Some(trust) if trust.fingerprint == *fingerprint => Ok(()),
            Some(trust) => Err(Status::permission_denied(format!(
                "domain `{own}` trusts another domain `{domain}`: its authority is {}, and this one is {fingerprint}",
                trust.fingerprint
            ))),
            None => Err(Status::permission_denied(format!(
                "domain `{own}` does not trust domain `{domain}`: its operator does that with `weft domain add` and the introduction \
                 of `{domain}` (authority {fingerprint})"
            ))),
        }
    }
}

#[tonic::async_trait]
impl Exchange for Server {
    type FollowStream = Pin<Box<dyn Stream<Item = Result<PublicUpdate, Status>> + Send>>;

    async fn follow(
        &self,
        request: Request<FollowRequest>,
    ) -> Result<Response<Self::FollowStream>, Status> {
        let caller = request.extensions().get::<Caller>().cloned();
        let Some(Caller::Controller {
            domain,
            fingerprint,
        }) = caller
        else {
            return Err(Status::unauthenticated(
                "this is for controllers of other domains: it needs the certificate of one",
            ));
        };
        let follower = Follower {
            domain,
            fingerprint,
        };
        let exchange = &self.controller.exchange;
        if let Err(status) = follower.check(&self.controller.database.state()) {
            warn!(
                domain = follower.domain,
                "another domain asks, and is refused: {}",
                status.message()
            );
            exchange.refused(&follower.domain, &follower.fingerprint);
            return Err(status);
        }
        info!(domain = follower.domain, "followed by the other domain");
        exchange.wake(&follower.domain).notify_one();
        let (sender, inbox) = mpsc::channel(QUEUE);
        let held = request.into_inner().held;
        tokio::spawn(tell(self.controller.clone(), follower, held, sender));
        Ok(Response::new(Box::pin(ReceiverStream::new(inbox))))
    }
}

/// Counts a follower for as long as it is told something.
struct Counted<'a>(&'a super::Exchange, &'a str);

impl<'a> Counted<'a> {
    fn new(exchange: &'a super::Exchange, domain: &'a str) -> Self {
        exchange.change(domain, |link| link.followed += 1);
        Self(exchange, domain)
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.change(self.1, |link| {
            link.followed = link.followed.saturating_sub(1);
        });
    }
}

/// Tells a follower what differs from what it holds, until it goes, or is trusted no more.
async fn tell(
    controller: Arc<Controller>,
    follower: Follower,
    mut held: BTreeMap<String, u64>,
    sender: mpsc::Sender<Result<PublicUpdate, Status>>,
) {
    let _counted = Counted::new(&controller.exchange, &follower.domain);
    let mut news = controller.database.watch();
    let mut heartbeat = tokio::time::interval(HEARTBEAT);
    // Something is said in any case: at the beginning, and when nothing was for a while.
    let mut due = true;
    loop {
        let state = controller.database.state();
        if let Err(status) = follower.check(&state) {
            // It may have gone.
            let _ = sender.send(Err(status)).await;
            return;
        }
        let (view, untold) = public::told(&state, &follower.domain);
        controller
            .exchange
            .change(&follower.domain, |link| link.untold = untold);
        let (put, removed) = differing(&held, &view);
        if due || !put.is_empty() || !removed.is_empty() {
            held = digests(&view);
            let update = PublicUpdate {
                revision: state.revision,
                put,
                removed,
            };
            if sender.send(Ok(update)).await.is_err() {
                return;
            }
            heartbeat.reset();
        }
        due = tokio::select! {
            changed = news.recv() => match changed {
                Err(RecvError::Closed) => return,
                // All that has come meanwhile is one difference.
                _ => { news = news.resubscribe(); false }
            },
            _ = heartbeat.tick() => true,
            () = sender.closed() => return,
        };
    }
}
