//! The routers that are attached now: what each holds, what it is sent, how long it has been away.

mod claims;
mod keys;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{mpsc, oneshot};
use tracing::{info, warn};

use crate::database::{Database, News};
use crate::model::{State, key};
use crate::operations;
use crate::proto::{Acknowledge, PerformanceQuery, Refused, Register, ToRouter, Update, to_router};
use crate::session_keys::{Hold, Wanted};
use crate::view::{Affected, Common, Items, Reader, digest, update};

/// Messages that wait for a router. One that does not read is let go, and comes back for all that it has missed.
const QUEUE: usize = 64;

/// How long a router that has died may seem to be there.
const ANSWER: Duration = Duration::from_secs(2);
/// No tenant has this name: a router that is asked only whether it is there has little to say.
const NOBODY: &str = "-";

/// How a router does.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Attached {
    /// It is attached to this controller.
    pub attached: bool,
    /// The revision that it runs, as it last said.
    pub runs: u64,
    /// The latest revision that it was sent.
    pub sent: u64,
    /// What of it cannot be there.
    pub refused: Vec<Refused>,
    /// It checks where labels lead.
    pub origins: bool,
}

struct Connection {
    /// Tells apart those that come one behind the other.
    number: u64,
    generation: u64,
    /// The start of its process.
    instance: String,
    /// The key that it has joined with.
    key: String,
    messages: mpsc::Sender<ToRouter>,
    held: BTreeMap<String, u64>,
    /// It signs its sessions.
    session_keys: bool,
    /// Next keys that it was sent and has not acknowledged.
    handed: Vec<keys::Handed>,
    status: Attached,
}

/// Since when a router is away, in which generation it was, and where.
#[derive(Clone, Debug)]
struct Away {
    since: Instant,
    generation: u64,
    controller: Option<String>,
}

#[derive(Default)]
struct Inner {
    next: u64,
    connections: HashMap<String, Connection>,
    /// Routers that have gone, or whose controller has.
    away: HashMap<String, Away>,
    /// With the router that is asked: nobody answers for another.
    queries: HashMap<u64, (String, oneshot::Sender<serde_json::Value>)>,
    /// Starts of routers that ask at other controllers whether the one that is attached here answers, while that is found out.
    asked: HashSet<String>,
    /// Revisions later than any that is here, which routers were told of.
    ahead: BTreeMap<String, u64>,
    /// Next keys that routers hold, and of which the datastore does not know that.
    holds: Vec<Hold>,
    /// Where there may be sessions that are to have a key.
    keys_wanted: Wanted,
    /// When that was looked at last.
    keys_seen: Option<Instant>,
    /// When the certificates end that routers came with, or got here, s since 1970.
    certificates: BTreeMap<String, i64>,
}

/// The routers that are attached.
#[derive(Clone)]
pub struct Hub {
    database: Database,
    /// This controller's, as long as it runs.
    id: Arc<str>,
    inner: Arc<Mutex<Inner>>,
}

impl Hub {
    pub(super) fn new(database: Database) -> Self {
        Self {
            database,
            id: crate::pki::random(8).into(),
            inner: Arc::default(),
        }
    }

    /// What this controller is called among those of the domain, as long as it runs.
    pub(super) fn id(&self) -> &str {
        &self.id
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        // Nobody panics with it.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A registered router is here; gives what it is sent, first of all what it lacks.
    pub(super) fn attach(
        &self,
        name: &str,
        key: &str,
        register: Register,
    ) -> (u64, mpsc::Receiver<ToRouter>) {
        let (messages, inbox) = mpsc::channel(QUEUE);
        let mut inner = self.inner();
        // With the lock, so that no revision is missed between.
        let state = self.database.state();
        inner.next += 1;
        let number = inner.next;
        let mut connection = Connection {
            number,
            generation: register.generation,
            instance: register.instance,
            key: key.to_owned(),
            messages,
            held: register.held.into_iter().collect(),
            session_keys: register.session_keys,
            handed: Vec::new(),
            status: Attached {
                attached: true,
                runs: register.revision,
                origins: register.origins,
                ..Attached::default()
            },
        };
        let before = connection.held.clone();
        connection.send(&state, name, &Items::All, &mut Common::default(), true);
        inner
            .holds
            .extend(keys::found(&state, name, &before, &connection.held));
        inner.away.remove(name);
        inner.ahead.remove(name);
        inner.connections.insert(name.to_owned(), connection);
        (number, inbox)
    }

    /// A router is no longer here.
    pub(super) fn detach(&self, name: &str, number: u64) {
        let mut inner = self.inner();
        if inner
            .connections
            .get(name)
            .is_some_and(|one| one.number == number)
            && let Some(connection) = inner.connections.remove(name)
        {
            let away = self.away(connection.generation);
            inner.away.insert(name.to_owned(), away);
            info!(router = name, "router away");
        }
    }

    fn away(&self, generation: u64) -> Away {
        Away {
            since: Instant::now(),
            generation,
            controller: Some(self.id().to_owned()),
        }
    }

    pub(super) fn acknowledge(&self, name: &str, number: u64, said: Acknowledge) {
        let mut inner = self.inner();
        let connection = inner.connections.get_mut(name);
        if let Some(connection) = connection.filter(|one| one.number == number) {
            for refused in &said.refused {
                let (item, reason) = (&refused.item, &refused.reason);
                if !connection.status.refused.contains(refused) {
                    warn!(
                        router = name,
                        item, reason, "a router refuses a part of what it is sent"
                    );
                }
            }
            let holds = keys::acknowledged(name, &mut connection.handed, &said);
            connection.status.runs = said.revision;
            connection.status.refused = said.refused;
            inner.holds.extend(holds);
        }
    }

    /// Whether another start of a router's process than this one is attached, and answers. A connection of one that has died may
    /// stand for a while yet.
    pub(super) async fn is_taken(&self, name: &str, instance: &str) -> bool {
        let other = {
            let inner = self.inner();
            let connection = inner.connections.get(name);
            connection.is_some_and(|one| one.instance != instance)
        };
        if !other {
            return false;
        }
        let asked = [name.to_owned()];
        let answers = self.ask(&asked, NOBODY, None, ANSWER).await;
        answers.contains_key(name)
    }

    /// Whether a router is attached here.
    pub(super) fn has(&self, name: &str) -> bool {
        self.inner().connections.contains_key(name)
    }

    /// Notes when a router's certificate ends, s since 1970.
    pub(super) fn note_certificate(&self, name: &str, end: i64) {
        self.inner().certificates.insert(name.to_owned(), end);
    }

    /// When the certificates of attached routers end, by name, s since 1970.
    pub(super) fn certificates(&self) -> BTreeMap<String, i64> {
        let inner = self.inner();
        let known = inner.certificates.iter();
        let attached = known.filter(|(name, _)| inner.connections.contains_key(*name));
        attached.map(|(name, end)| (name.clone(), *end)).collect()
    }

    /// Notes that a router was told of a later revision than any that is here.
    pub(super) fn note_ahead(&self, name: &str, revision: u64) {
        self.inner().ahead.insert(name.to_owned(), revision);
    }

    /// The latest revision that routers were told of and that is not here; `None` where there is none.
    pub fn ahead(&self) -> Option<u64> {
        self.inner().ahead.values().copied().max()
    }

    /// What routers were told is no matter any more.
    pub(super) fn forget_ahead(&self) {
        self.inner().ahead.clear();
    }

    /// How all routers do, by name; who is not attached is missing.
    pub fn attached(&self) -> BTreeMap<String, Attached> {
        let inner = self.inner();
        let connections = inner.connections.iter();
        connections
            .map(|(name, one)| (name.clone(), one.status.clone()))
            .collect()
    }

    /// Asks routers how they do, and what they counted since so long ago; who does not answer before the deadline is missing.
    pub async fn ask(
        &self,
        routers: &[String],
        tenant: &str,
        since: Option<Duration>,
        deadline: Duration,
    ) -> BTreeMap<String, serde_json::Value> {
        let mut answers = Vec::new();
        let mut ids = Vec::new();
        {
            let mut inner = self.inner();
            for name in routers {
                inner.next += 1;
                let id = inner.next;
                let query = to_router::Message::Performance(PerformanceQuery {
                    id,
                    tenant: tenant.to_owned(),
                    since: since.map(|since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX)),
                });
                let asked = inner.connections.get(name).is_some_and(|connection| {
                    let message = ToRouter {
                        message: Some(query),
                    };
                    connection.messages.try_send(message).is_ok()
                });
                if asked {
                    let (reply, answer) = oneshot::channel();
                    inner.queries.insert(id, (name.clone(), reply));
                    ids.push(id);
                    answers.push((name.clone(), answer));
                }
            }
        }
        let end = tokio::time::Instant::now() + deadline;
        let mut all = BTreeMap::new();
        for (name, answer) in answers {
            if let Ok(Ok(answer)) = tokio::time::timeout_at(end, answer).await {
                all.insert(name, answer);
            }
        }
        let mut inner = self.inner();
        for id in ids {
            inner.queries.remove(&id);
        }
        all
    }

    /// A router answers what it has been asked.
    pub(super) fn answered(&self, router: &str, id: u64, answer: serde_json::Value) {
        let mut inner = self.inner();
        let is_asked = inner
            .queries
            .get(&id)
            .is_some_and(|(asked, _)| asked == router);
        if let Some((_, reply)) = is_asked.then(|| inner.queries.remove(&id)).flatten() {
            // Who asked may have gone.
            let _ = reply.send(answer);
        }
    }

    /// Sends routers what revisions change for them, and takes those out of discovery that are away for too long; for ever.
    pub(super) async fn follow(&self) {
        let mut revisions = self.database.watch();
        let mut tick = tokio::time::interval(Duration::from_secs(1));
        loop {
            tokio::select! {
                batch = revisions.recv() => {
                    let state = self.database.state();
                    let affected = match &batch {
                        Ok(News::Revisions(revisions)) => Affected::by(revisions, &state),
                        Ok(News::Everything) | Err(RecvError::Lagged(_)) => Affected::all(),
                        Err(RecvError::Closed) => return,
                    };
                    self.note_wanted(&batch);
                    self.push(&state, &affected);
                    self.answer_claims(&state, &affected);
                }
                _ = tick.tick() => {
                    self.expire().await;
                    self.see_to_keys().await;
                }
            }
        }
    }

    fn push(&self, state: &State, affected: &Affected) {
        let mut inner = self.inner();
        let (mut gone, mut common) = (Vec::new(), Common::default());
        let mut push = |name: &str, connection: &mut Connection, items: &Items| {
            if connection.is_replaced(state, name)
                || !connection.send(state, name, items, &mut common, false)
            {
                gone.push(name.to_owned());
            }
        };
        if affected.is_everybody() {
            for (name, connection) in &mut inner.connections {
                if let Some(items) = affected.items(name) {
                    push(name, connection, &items);
                }
            }
        } else {
            for name in affected.routers() {
                if let Some(connection) = inner.connections.get_mut(name)
                    && let Some(items) = affected.items(name)
                {
                    push(name, connection, &items);
                }
            }
        }
        for name in gone {
            // Its stream ends with the sender.
            if let Some(connection) = inner.connections.remove(&name) {
                let away = self.away(connection.generation);
                inner.away.insert(name, away);
            }
        }
    }

    /// Notes the routers of controllers that are no more, and those that registered here and broke off before they were attached:
    /// they may come back, or not.
    async fn adopt(&self) {
        let alive = match self.database.alive(&self.id).await {
            Ok(alive) => alive.unwrap_or_default(),
            Err(error) => {
                warn!(%error, "cannot say that this controller is here");
                return;
            }
        };
        let state = self.database.state();
        let mut inner = self.inner();
        for router in state.routers().filter(|router| !router.expired) {
            let Some(registration) = &router.registration else {
                continue;
            };
            let theirs = router
                .controller
                .as_deref()
                .is_some_and(|id| id != &*self.id && alive.contains(id));
            if theirs || inner.connections.contains_key(&router.name) {
                continue;
            }
            inner
                .away
                .entry(router.name.clone())
                .or_insert_with(|| Away {
                    since: Instant::now(),
                    generation: registration.generation,
                    controller: router.controller.clone(),
                });
        }
    }

    async fn expire(&self) {
        self.adopt().await;
        let state = self.database.state();
        let Some(domain) = state.domain() else { return };
        let lease = Duration::from_secs(domain.lease.into());
        let over: Vec<(String, Away)> = {
            let mut inner = self.inner();
            let over = inner
                .away
                .extract_if(|_, away| away.since.elapsed() >= lease);
            over.collect()
        };
        for (name, away) in over {
            let router = name.clone();
            let what = format!("the lease of router {name} has run out");
            let expire = move |transaction: &mut crate::database::Transaction<'_>| {
                let controller = away.controller.as_deref();
                operations::expire(transaction, &router, away.generation, controller)
            };
            match self.database.change("lease", what, expire).await {
                Ok(_) => info!(
                    router = name,
                    "its lease has run out: nobody new discovers it"
                ),
                Err(error) => {
                    warn!(router = name, %error, "cannot note that a lease has run out");
                }
            }
        }
    }
}

impl Connection {
    /// Another router has joined under the name since, with a key of its own.
    fn is_replaced(&self, state: &State, name: &str) -> bool {
        let router = state.router(&key::router(name));
        router.is_some_and(|router| router.key != self.key)
    }

    /// Sends what of these items differs, or at the beginning that nothing does; false where the router is to be let go.
    fn send(
        &mut self,
        state: &State,
        name: &str,
        items: &Items,
        common: &mut Common,
        first: bool,
    ) -> bool {
        let reader = Reader {
            name,
            origins: self.status.origins,
            session_keys: self.session_keys,
        };
        // Without a view the router has been removed.
        let Some(update) = update(state, reader, &self.held, items, common) else {
            return false;
        };
        if update.put.is_empty() && update.removed.is_empty() && !first {
            return true;
        }
        for (key, item) in &update.put {
            self.held.insert(key.clone(), digest(item));
        }
        for key in &update.removed {
            self.held.remove(key);
        }
        self.handed.extend(keys::handed(state, name, &update));
        self.status.sent = state.revision;
        self.messages.try_send(message(update)).is_ok()
    }
}

fn message(update: Update) -> ToRouter {
    ToRouter {
        message: Some(to_router::Message::Update(update)),
    }
}

#[cfg(test)]
mod tests;
