//! Following the controller: for as long as the router runs, whether or not the controller is there.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};
use tokio_stream::wrappers::ReceiverStream;
use tracing::{info, warn};

use super::backoff::{Backoff, LONGEST};
use super::{ClientError, Facts, Membership, failed};
use crate::pki::{TokenText, random};
use crate::proto::{
    Acknowledge, FromRouter, PerformanceAnswer, Refused, Register, Reserved, ToRouter, Update,
    from_router, item, to_router,
};
use crate::view::{View, digests};

/// What the controller says.
#[derive(Debug)]
pub enum Event {
    /// What the router is to be now, as of a revision. [`Client::applied`] answers.
    View(u64, View),
    /// The controller is there, or why it is away.
    Link(Result<(), String>),
    /// It asks how the router does.
    Question(Question),
    /// The folder takes what a start without the controller needs, or why it does not.
    Kept(Result<(), String>),
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

/// Between two words on which interfaces the router lives by.
const RESERVED_EVERY: Duration = Duration::from_secs(5);

struct Applied {
    revision: u64,
    view: View,
    refused: Vec<Refused>,
}

/// A handle to the task that follows; cheap to clone.
#[derive(Clone)]
pub struct Client {
    said: mpsc::Sender<Applied>,
    reserved: Arc<watch::Sender<BTreeMap<String, String>>>,
}

impl Client {
    /// Follows the controller from what the router runs already. Events come until the receiver is dropped. A router that the
    /// controller does not know any more joins again with `token`, where there is one. A folder that takes nothing more is told as
    /// [`Event::Kept`]: the router goes on with what it has in memory.
    pub fn start(
        membership: Membership,
        facts: Facts,
        runs: Option<(u64, View)>,
        token: Option<TokenText>,
    ) -> (Self, mpsc::Receiver<Event>) {
        let generation = membership.next_generation();
        let (events, inbox) = mpsc::channel(16);
        let (said, told) = mpsc::channel(16);
        let (reserved, reserves) = watch::channel(BTreeMap::new());
        let (revision, view) = runs.unwrap_or_default();
        let numbered = membership.keep_generation(generation);
        let follower = Follower {
            membership,
            facts,
            generation,
            revision,
            view,
            events,
            told,
            reserves,
            token,
            instance: random(8),
            numbered: numbered.is_ok(),
            kept: Ok(()),
            streams: 0,
            doubted: false,
            link: None,
        };
        tokio::spawn(follower.run(numbered));
        let reserved = Arc::new(reserved);
        (Self { said, reserved }, inbox)
    }

    /// The router runs a view but for what is refused of it, and begins with it the next time.
    pub async fn applied(&self, revision: u64, view: View, refused: Vec<Refused>) {
        let applied = Applied {
            revision,
            view,
            refused,
        };
        // Nobody listens any more where the router ends.
        let _ = self.said.send(applied).await;
    }

    /// The router lives by these interfaces, each with the reason: no tenant can have them.
    pub fn reserve(&self, interfaces: BTreeMap<String, String>) {
        self.reserved.send_if_modified(|held| {
            let differs = *held != interfaces;
            *held = interfaces;
            differs
        });
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
    told: mpsc::Receiver<Applied>,
    /// Interfaces that the router lives by, each with the reason.
    reserves: watch::Receiver<BTreeMap<String, String>>,
    /// The generation is on the disk.
    numbered: bool,
    /// What the router runs is on the disk too, or why it is not.
    kept: Result<(), String>,
    /// What it joins again with.
    token: Option<TokenText>,
    /// This start of the process.
    instance: String,
    /// Streams begun: each at another controller, where there are several.
    streams: usize,
    /// A controller was there and the last stream did not begin: it may not take the certificate, whatever the clock here says.
    doubted: bool,
    /// What was said of the link last.
    link: Option<Result<(), String>>,
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
    async fn run(mut self, numbered: Result<(), ClientError>) {
        let mut backoff = Backoff::new();
        // Attempts in a row that ended with the same words.
        let mut repeated: u32 = 0;
        if self.keep(numbered).await {
            return;
        }
        loop {
            backoff.begin();
            let error = match self.attach().await {
                End::Stop => return,
                End::Away(error) => self.explain(error).await,
            };
            repeated = match &self.link {
                Some(Err(before)) if *before == error => repeated + 1,
                _ => 1,
            };
            // At a falling rate: every time that it has been so twice as often.
            if repeated.is_power_of_two() {
                warn!(
                    error,
                    times = repeated,
                    "without the controller: the router goes on as it is"
                );
            }
            if self.say(Err(error)).await || self.wait(backoff.next()).await {
                return;
            }
        }
    }

    fn number(&mut self) -> Result<(), ClientError> {
        if !self.numbered {
            self.membership.keep_generation(self.generation)?;
            self.numbered = true;
        }
        Ok(())
    }

    /// Says whether the folder took what it has to hold, where that is something new; true where the router ends.
    async fn keep(&mut self, written: Result<(), ClientError>) -> bool {
        let kept = written.map_err(|error| error.to_string());
        if kept == self.kept {
            return self.events.is_closed();
        }
        match &kept {
            Ok(()) => info!("what the router runs is kept again"),
            Err(error) => {
                warn!(
                    error,
                    "what the router runs cannot be kept: a start without the controller would go back"
                );
            }
        }
        self.kept.clone_from(&kept);
        self.events.send(Event::Kept(kept)).await.is_err()
    }

    /// Says how the link is, where that is something new; true where the router ends.
    async fn say(&mut self, link: Result<(), String>) -> bool {
        if self.link.as_ref() == Some(&link) {
            return self.events.is_closed();
        }
        self.link = Some(link.clone());
        self.events.send(Event::Link(link)).await.is_err()
    }

    /// Why the controller is away, and what is to be done about it; a router that was removed joins again where it can.
    async fn explain(&mut self, error: ClientError) -> String {
        let folder = self.membership.folder().display().to_string();
        let name = self.membership.name().to_owned();
        let domain = self.membership.domain().to_owned();
        let how = format!("make a token (weft token create --role router --name {name})");
        match error {
            ClientError::Foreign { address, foreign } => format!(
                "the controller at {address} is another domain's: its authority is {}, and `{name}` is in domain `{domain}` with the \
                 authority {}. Where the domain was made anew, stop the router, remove {folder}, {how}, and join with it",
                foreign.shown, foreign.expected
            ),
            ClientError::Removed(error) => match self.token.take() {
                None => format!(
                    "{error}: to have it back, {how}, and put it into `controller` of its configuration"
                ),
                Some(token) => match self.membership.rejoin(&token).await {
                    Ok(()) => {
                        info!("joined the domain again");
                        format!("{error}; it has joined again with the token of its configuration")
                    }
                    Err(ClientError::Refused(why)) => format!(
                        "{error}, and the token of its configuration is good no more ({why}): {how}, and put it there"
                    ),
                    Err(why) => {
                        self.token = Some(token);
                        format!("{error}; it cannot join again yet: {why}")
                    }
                },
            },
            ClientError::Refused(error) => {
                format!("the controller refuses: {error} (state folder: {folder})")
            }
            error => error.to_string(),
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
                    Some(applied) => drop(self.applied(applied).await),
                    None => return true,
                },
            }
        }
    }

    /// Notes what the router runs; gives what is to be said of it.
    async fn applied(&mut self, applied: Applied) -> FromRouter {
        let Applied {
            revision,
            view,
            mut refused,
        } = applied;
        let written = self
            .number()
            .and_then(|()| self.membership.keep_view(revision, &view));
        // Where the router ends the next look at what it says finds that.
        self.keep(written).await;
        if let Err(error) = &self.kept {
            // Others would sign with it when this one has forgotten it.
            refused.extend(next_keys(&view).map(|item| Refused {
                item,
                reason: format!("the key cannot be kept: {error}"),
            }));
        }
        (self.revision, self.view) = (revision, view);
        FromRouter {
            message: Some(from_router::Message::Acknowledge(Acknowledge {
                revision,
                refused,
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
                held: match &self.kept {
                    Ok(()) => digests(&self.view),
                    // Whoever hears of a key here takes it for one that a start finds again.
                    Err(_) => {
                        let mut view = self.view.clone();
                        for key in next_keys(&self.view) {
                            view.remove(&key);
                        }
                        digests(&view)
                    }
                },
                instance: self.instance.clone(),
                origins: true,
                session_keys: facts.session_keys,
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
        if self.say(Ok(())).await {
            return Ok(End::Stop);
        }
        // What the router is to be, by what it was sent: it may not run it yet.
        let mut wanted = self.view.clone();
        let mut renew_again = Duration::from_secs(1);
        // At once where something is known, and then when it changes.
        self.reserves.mark_changed();
        let mut reserve_at = tokio::time::Instant::now();
        loop {
            let renew = tokio::time::sleep(self.membership.renew_in().max(renew_again));
            tokio::select! {
                message = stream.message() => {
                    let message = message.map_err(|status| self.failed(&status))?;
                    let ended = || ClientError::Refused("it ended the registration".into());
                    self.hear(message.ok_or_else(ended)?, &mut wanted, &sender).await?;
                }
                said = self.told.recv() => match said {
                    Some(applied) => {
                        let message = self.applied(applied).await;
                        // Where the stream is broken it says so itself.
                        let _ = sender.send(message).await;
                    }
                    None => return Ok(End::Stop),
                },
                changed = changed_after(&mut self.reserves, reserve_at) => {
                    if let Some(interfaces) = changed {
                        let interfaces = interfaces.into_iter().collect();
                        let message = from_router::Message::Reserved(Reserved { interfaces });
                        let message = FromRouter { message: Some(message) };
                        let _ = sender.send(message).await;
                    }
                    reserve_at = tokio::time::Instant::now() + RESERVED_EVERY;
                }
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

/// What has changed since, not before a time; `None` where it is as before a change that was none. Never where nobody says more.
async fn changed_after(
    reserves: &mut watch::Receiver<BTreeMap<String, String>>,
    at: tokio::time::Instant,
) -> Option<BTreeMap<String, String>> {
    tokio::time::sleep_until(at).await;
    if reserves.changed().await.is_err() {
        std::future::pending::<()>().await;
    }
    let interfaces = reserves.borrow_and_update().clone();
    (!interfaces.is_empty()).then_some(interfaces)
}

/// Items with keys that other routers will sign with.
fn next_keys(view: &View) -> impl Iterator<Item = String> {
    let keys = view.iter().filter(|(_, one)| match &one.item {
        Some(item::Item::SessionKey(key)) => !key.next.is_empty(),
        _ => false,
    });
    keys.map(|(key, _)| key.clone())
}

fn apply(view: &mut View, update: Update) {
    for key in update.removed {
        view.remove(&key);
    }
    view.extend(update.put);
}
