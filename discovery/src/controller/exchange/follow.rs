//! Following another domain: for as long as it is trusted, whether or not it is there.

use std::convert::Infallible;
use std::sync::Arc;

use tracing::{info, warn};

use super::HEARTBEAT;
use crate::client::{Backoff, ClientError, connect_any, failed};
use crate::controller::Controller;
use crate::controller::grpc::LARGEST;
use crate::database::Transaction;
use crate::exchange::operations::{self, Heard};
use crate::exchange::public::{self, PublicView};
use crate::model::{Trust, key};
use crate::proto::exchange_client::ExchangeClient;
use crate::proto::{FollowRequest, PublicUpdate};
use crate::tls;
use crate::view::digests;

/// Follows a domain for ever.
pub(super) async fn follow(controller: Arc<Controller>, trust: Trust) {
    let mut backoff = Backoff::new();
    let wake = controller.exchange.wake(&trust.name);
    // Each attempt begins at another controller, where there are several.
    for attempt in 0.. {
        backoff.begin();
        let mut follower = Follower {
            controller: &controller,
            trust: &trust,
            accepted: false,
            clashes: false,
        };
        let error = match follower.listen(attempt).await {
            Ok(never) => match never {},
            Err(error) => error,
        };
        warn!(domain = trust.name, %error, "without the other domain: what it said last stays");
        controller.exchange.lost(&trust.name, error.to_string());
        let pause = tokio::time::sleep(backoff.next());
        tokio::select! {
            () = pause => {}
            // Who was taken and then broke off is not asked again for that: both would wake each other for ever.
            () = wake.notified(), if !follower.accepted => {}
        }
    }
}

struct Follower<'a> {
    controller: &'a Controller,
    trust: &'a Trust,
    /// The other domain has taken this one for a follower.
    accepted: bool,
    /// It said to have addresses that are others', which those may have given up since.
    clashes: bool,
}

impl Follower<'_> {
    /// What is held of the domain.
    fn held(&self) -> PublicView {
        let state = self.controller.database.state();
        match state.domain() {
            Some(own) => public::held(&state, own, &self.trust.name),
            None => PublicView::new(),
        }
    }

    /// One stream, from its beginning to its end.
    async fn listen(&mut self, attempt: usize) -> Result<Infallible, ClientError> {
        let authority = &self.controller.authority;
        let (certificate, key) = authority.controller()?;
        let trusted = tls::Trust::Fingerprint(self.trust.fingerprint.clone());
        let chain = [&*certificate, authority.certificate()];
        let tls = tls::client(&trusted, Some((&chain, &key)))?;
        let addresses = self.trust.controllers.join(",");
        let channel = connect_any(&addresses, attempt, &tls).await?;
        let mut client = ExchangeClient::new(channel)
            .max_decoding_message_size(LARGEST)
            .max_encoding_message_size(LARGEST);
        let mut view = self.held();
        let request = FollowRequest {
            held: digests(&view),
        };
        let stream = client.follow(request).await;
        let mut stream = stream
            .map_err(|status| failed(&self.trust.name, &status))?
            .into_inner();
        self.accepted = true;
        info!(domain = self.trust.name, "follows the other domain");
        loop {
            let silent = |_| ClientError::Refused("it says nothing any more".into());
            let ended = || ClientError::Refused("it has ended the exchange".into());
            let update = tokio::time::timeout(HEARTBEAT * 3, stream.message()).await;
            let update = update
                .map_err(silent)?
                .map_err(|status| failed(&self.trust.name, &status))?;
            self.hear(update.ok_or_else(ended)?, &mut view).await?;
        }
    }

    /// Takes in what was said, where it is something new.
    async fn hear(
        &mut self,
        update: PublicUpdate,
        view: &mut PublicView,
    ) -> Result<(), ClientError> {
        let database = &self.controller.database;
        let state = database.state();
        let id = self.controller.hub.id();
        let remote = state.remote(&key::remote(&self.trust.name));
        let counted = remote.is_some_and(|one| one.followers.contains(id));
        let silent = update.put.is_empty() && update.removed.is_empty();
        let revision = update.revision;
        if !counted || !silent || self.clashes {
            for key in update.removed {
                view.remove(&key);
            }
            view.extend(update.put);
            let own = state.domain();
            let own = own.ok_or_else(|| ClientError::Refused("there is no domain here".into()))?;
            let said = public::read(own, &self.trust.name, view).map_err(ClientError::Refused)?;
            let mut left_out = said.refused.clone();
            let heard = Heard {
                domain: self.trust.name.clone(),
                fingerprint: self.trust.fingerprint.clone(),
                revision,
                said,
                follower: id.to_owned(),
            };
            let actor = format!("domain {}", self.trust.name);
            let what = format!("domain {} says what it is at {revision}", self.trust.name);
            let take_in =
                move |transaction: &mut Transaction<'_>| operations::take_in(transaction, &heard);
            let taken = database.change(&actor, what, take_in).await;
            let (clashes, _) =
                taken.map_err(|rejection| ClientError::Refused(rejection.to_string()))?;
            self.clashes = !clashes.is_empty();
            left_out.extend(clashes);
            self.controller
                .exchange
                .left_out(&self.trust.name, left_out);
        }
        self.controller.exchange.heard(&self.trust.name, revision);
        Ok(())
    }
}
