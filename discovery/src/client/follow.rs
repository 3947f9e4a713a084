//! Following the controller: for as long as the router runs, whether or not the controller is there.

use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio_stream::wrappers::ReceiverStream;
use tracing::{info, warn};

use super::backoff::{Backoff, LONGEST};
use super::{ClientError, Facts, Membership, failed};
use crate::proto::{
    Acknowledge, FromRouter, PerformanceAnswer, Register, ToRouter, Update, from_router, to_router,
};
use crate::view::{View, digests};

/// What the controller says.
#[derive(Debug)]
pub enum Event {
    /// What the router is to be now, as of a revision. [`Client::applied`] answers.
    View(u64, View),
    /// It asks how the router does.
    Question(Question),
}

/// A question of how the router does.
#[derive(Debug)]
pub struct Question {
    /// Only this tenant's; empty for all.
    pub tenant: String,
    /// What was counted since so long ago; all of it where absent.
    pub since: Option<Duration>,
    /// Takes the answer.
    pub answer: oneshot::Sender<serde_json::Value>,
}

enum Said {
    Applied(u64, Result<View, String>),
}

/// A handle to the task that follows; cheap to clone.
#[derive(Clone)]
pub struct Client {
    said: mpsc::Sender<Said>,
}

impl Client {
    /// Follows the controller from what the router runs already. Events come until the receiver is dropped.
    ///
    /// # Errors
    /// Where the generation cannot be written.
    pub fn start(
        membership: Membership,
        facts: Facts,
        runs: Option<(u64, View)>,
    ) -> Result<(Self, mpsc::Receiver<Event>), ClientError> {
        let generation = membership.next_generation()?;
        let (events, inbox) = mpsc::channel(16);
        let (said, told) = mpsc::channel(16);
        let (revision, view) = runs.unwrap_or_default();
        let follower = Follower {
            membership,
            facts,
            generation,
            revision,
            view,
            events,
            told,
            streams: 0,
            doubted: false,
        };
        tokio::spawn(follower.run());
        Ok((Self { said }, inbox))
    }

    /// The router runs a view, or says why it cannot and runs what it ran before.
    pub async fn applied(&self, revision: u64, result: Result<View, String>) {
        // Nobody listens any more where the router ends.
        let _ = self.said.send(Said::Applied(revision, result)).await;
    }
}

struct Follower {
    membership: Membership,
    facts: Facts,
    generation: u64,
    /// What the router runs.
    revision: u64,
    view: View,
    events: mpsc::Sender<Event>,
    told: mpsc::Receiver<Said>,
    /// Streams begun: each at another controller, where there are several.
    streams: usize,
    /// A controller was there and the last stream did not begin: it may not take the certificate, whatever the clock here says.
    doubted: bool,
}

/// Why a stream ended.
enum End {
    /// The router ends.
    Stop,
    /// The controller is away.
    Away(ClientError),
}

impl From<ClientError> for End {
    fn from(error: ClientError) -> Self {
        Self::Away(error)
    }
}

impl Follower {
    async fn run(mut self) {
        let mut backoff = Backoff::new();
        loop {
            backoff.begin();
            match self.attach().await {
                End::Stop => return,
                End::Away(error) => {
                    warn!(%error, "without the controller: the router goes on as it is");
                }
            }
            if self.wait(backoff.next()).await {
                return;
            }
        }
    }

    /// Waits, and hears what the router says meanwhile; true where it ends.
    async fn wait(&mut self, time: Duration) -> bool {
        let end = tokio::time::sleep(time);
        tokio::pin!(end);
        loop {
            tokio::select! {
                () = &mut end => return self.events.is_closed(),
                said = self.told.recv() => match said {
                    Some(Said::Applied(revision, result)) => drop(self.applied(revision, result)),
                    None => return true,
                },
            }
        }
    }

    /// Notes what the router runs; gives what is to be said of it.
    fn applied(&mut self, revision: u64, result: Result<View, String>) -> FromRouter {
        let error = match result {
            Ok(view) => {
                if let Err(error) = self.membership.keep_view(revision, &view) {
                    warn!(%error, "what the router runs cannot be kept: a start without the controller would go back");
                }
                (self.revision, self.view) = (revision, view);
                String::new()
            }
            Err(error) => error,
        };
        FromRouter {
            message: Some(from_router::Message::Acknowledge(Acknowledge {
                revision,
                error,
            })),
        }
    }

    fn register(&self) -> FromRouter {
        let facts = &self.facts;
        let router_id = facts.router_id.map(|id| id.to_string());
        FromRouter {
            message: Some(from_router::Message::Register(Register {
                router_id: router_id.unwrap_or_default(),
                bgp_address: facts.bgp_address.to_string(),
                endpoint: facts.endpoint.to_string(),
                encapsulations: facts.encapsulations.clone(),
                capacity: facts.capacity,
                generation: self.generation,
                version: env!("CARGO_PKG_VERSION").to_owned(),
                revision: self.revision,
                held: digests(&self.view),
            })),
        }
    }

    fn failed(&self, status: &tonic::Status) -> ClientError {
        failed(self.membership.controller(), status)
    }

    /// A certificate that is not taken ends the connection, and not every such end says so.
    fn doubt(&mut self, error: ClientError) -> ClientError {
        self.doubted = matches!(error, ClientError::Broken { .. });
        error
    }

    /// One stream, from its beginning to its end.
    async fn attach(&mut self) -> End {
        match self.try_attach().await {
            Ok(end) | Err(end) => end,
        }
    }

    async fn try_attach(&mut self) -> Result<End, End> {
        if std::mem::take(&mut self.doubted) || self.membership.is_over() {
            self.membership.renew().await?;
            info!("the certificate may not be good any more, and is renewed");
        }
        let client = self.membership.connect(self.streams).await;
        let mut client = client.map_err(|error| self.doubt(error))?;
        let (sender, outgoing) = mpsc::channel(16);
        let register = self.register();
        // It has room for the first.
        let _ = sender.try_send(register);
        let stream = client.attach(ReceiverStream::new(outgoing)).await;
        let stream = stream.map_err(|status| self.failed(&status));
        let stream = stream.map_err(|error| self.doubt(error))?;
        let mut stream = stream.into_inner();
        self.streams += 1;
        info!(
            controller = self.membership.controller(),
            domain = self.membership.domain(),
            "registered with the controller"
        );
        // What the router is to be, by what it was sent: it may not run it yet.
        let mut wanted = self.view.clone();
        let mut renew_again = Duration::from_secs(1);
        loop {
            let renew = tokio::time::sleep(self.membership.renew_in().max(renew_again));
            tokio::select! {
                message = stream.message() => {
                    let message = message.map_err(|status| self.failed(&status))?;
                    let ended = || ClientError::Refused("it ended the registration".into());
                    self.hear(message.ok_or_else(ended)?, &mut wanted, &sender).await?;
                }
                said = self.told.recv() => match said {
                    Some(Said::Applied(revision, result)) => {
                        let message = self.applied(revision, result);
                        // Where the stream is broken it says so itself.
                        let _ = sender.send(message).await;
                    }
                    None => return Ok(End::Stop),
                },
                () = renew => match self.membership.renew().await {
                    Ok(()) => {
                        renew_again = Duration::from_secs(1);
                        info!("certificate renewed");
                    }
                    Err(error) => {
                        warn!(%error, "the certificate cannot be renewed yet");
                        renew_again = LONGEST;
                    }
                },
            }
        }
    }

    async fn hear(
        &mut self,
        message: ToRouter,
        wanted: &mut View,
        sender: &mpsc::Sender<FromRouter>,
    ) -> Result<(), End> {
        match message.message {
            Some(to_router::Message::Update(update)) => {
                let revision = update.revision;
                apply(wanted, update);
                let event = Event::View(revision, wanted.clone());
                self.events.send(event).await.map_err(|_| End::Stop)
            }
            Some(to_router::Message::Performance(query)) => {
                let (answer, answered) = oneshot::channel();
                let event = Event::Question(Question {
                    tenant: query.tenant,
                    since: query.since.map(Duration::from_millis),
                    answer,
                });
                self.events.send(event).await.map_err(|_| End::Stop)?;
                let sender = sender.clone();
                tokio::spawn(async move {
                    let Ok(answer) = answered.await else { return };
                    let answer = PerformanceAnswer {
                        id: query.id,
                        body: answer.to_string().into_bytes(),
                    };
                    let message = from_router::Message::Performance(answer);
                    // Who asked may have gone.
                    let _ = sender
                        .send(FromRouter {
                            message: Some(message),
                        })
                        .await;
                });
                Ok(())
            }
            // Of a later controller.
            None => Ok(()),
        }
    }
}

fn apply(view: &mut View, update: Update) {
    for key in update.removed {
        view.remove(&key);
    }
    view.extend(update.put);
}
