//! The one place where a domain changes: read at revision r, compute, compare and swap at r, or again.
//!
//! Changes that wait together are written together, each a revision of its own: a thousand of them need a few syncs of the
//! disk, and none is answered before it is there.

use std::any::Any;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::{broadcast, mpsc, oneshot, watch};
use tracing::error;

use crate::chains::past;
use crate::model::{Change, Record, Revision, State, is_internal, now};
use crate::store::{Span, Store, StoreError};

/// Changes written together at most: what one transaction of etcd holds of ours.
const BATCH: usize = 64;
/// Batches that a watcher may be behind before it has to look at everything.
const BEHIND: usize = 1024;

/// Why a change is not made. Nothing is changed then.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Rejection {
    /// There is no such thing.
    #[error("{0}")]
    NotFound(String),
    /// There is one already, or something else is in the way.
    #[error("{0}")]
    Conflict(String),
    /// It is not what it was thought to be.
    #[error("{0}")]
    Precondition(String),
    /// The question itself makes no sense.
    #[error("{0}")]
    Malformed(String),
    /// What is asked for makes no sense.
    #[error("{0}")]
    Invalid(String),
    /// A field of what is asked for makes no sense.
    #[error("{field}: {detail}")]
    Field {
        /// Where it is in the body, such as `interfaces[0]`.
        field: String,
        /// What was found there, and what is allowed.
        detail: String,
    },
    /// Who asks does so too often.
    #[error("{0}")]
    TooMany(String),
    /// It is not known who asks.
    #[error("{0}")]
    Unauthenticated(String),
    /// Who asks may not.
    #[error("{0}")]
    Forbidden(String),
    /// The datastore does not work.
    #[error("{0}")]
    Unavailable(String),
}

/// What a change does, while it is computed.
pub struct Transaction<'a> {
    state: &'a State,
    changed: BTreeMap<String, Option<Record>>,
}

impl<'a> Transaction<'a> {
    /// Nothing has been changed yet.
    pub(crate) fn new(state: &'a State) -> Self {
        Self {
            state,
            changed: BTreeMap::new(),
        }
    }

    /// What is there, without this transaction's own changes.
    pub fn state(&self) -> &'a State {
        self.state
    }

    /// The record at a key, with this transaction's own changes.
    pub fn get(&self, key: &str) -> Option<&Record> {
        match self.changed.get(key) {
            Some(changed) => changed.as_ref(),
            None => self.state.get(key).map(|one| &one.record),
        }
    }

    /// The records whose keys begin so, by key, with this transaction's own changes.
    pub fn below(&self, prefix: &str) -> Vec<Record> {
        let there = self.state.below(prefix);
        let mut found: BTreeMap<&str, &Record> =
            there.map(|(key, one)| (key, &one.record)).collect();
        for key in self.changed_below(prefix) {
            match self.get(key) {
                Some(record) => found.insert(key, record),
                None => found.remove(key),
            };
        }
        found.into_values().cloned().collect()
    }

    /// The keys that begin so of what this transaction has put or removed.
    pub fn changed_below<'k>(&'k self, prefix: &'k str) -> impl Iterator<Item = &'k str> {
        let from = self
            .changed
            .range::<str, _>((Bound::Included(prefix), Bound::Unbounded));
        from.map(|(key, _)| key.as_str())
            .take_while(move |key| key.starts_with(prefix))
    }

    /// Puts a record.
    pub fn put(&mut self, record: Record) {
        self.changed.insert(record.key(), Some(record));
    }

    /// Removes what is at a key.
    pub fn delete(&mut self, key: &str) {
        self.changed.insert(key.to_owned(), None);
    }

    /// How much it takes to say in the history what it changes so far, about.
    pub(crate) fn octets(&self) -> usize {
        let changed = self.changed.iter().filter(|(key, _)| !is_internal(key));
        let size = |record: &Record| serde_json::to_vec(record).map_or(0, |octets| octets.len());
        let sizes = changed.map(|(key, new)| {
            let old = self.state.get(key).map_or(0, |one| size(&one.record));
            key.len() + old + new.as_ref().map_or(0, size)
        });
        sizes.sum()
    }

    /// What it changes.
    pub(crate) fn changes(self) -> Vec<Change> {
        let changes = self.changed.into_iter().filter_map(|(key, new)| {
            let old = self.state.get(&key).map(|one| &one.record);
            (old != new.as_ref()).then(|| Change {
                // Nobody goes back to what is kept for the controller alone.
                old: old.filter(|_| !is_internal(&key)).cloned(),
                new,
                key,
            })
        });
        changes.collect()
    }
}

type Answer = Box<dyn Any + Send>;
type Operation = Box<dyn Fn(&mut Transaction<'_>) -> Result<Answer, Rejection> + Send>;

struct Asked {
    actor: String,
    what: String,
    run: Operation,
    reply: oneshot::Sender<Result<(Answer, u64), Rejection>>,
}

/// What has changed.
#[derive(Clone, Debug)]
pub enum News {
    /// By these revisions.
    Revisions(Arc<Vec<Revision>>),
    /// More than is known by revisions.
    Everything,
}

enum Command {
    Change(Asked),
    Close(oneshot::Sender<()>),
    Alive(
        String,
        oneshot::Sender<Result<Option<BTreeSet<String>>, StoreError>>,
    ),
    History(
        Span,
        usize,
        oneshot::Sender<Result<Vec<Revision>, StoreError>>,
    ),
}

/// A handle to the domain's records; cheap to clone.
#[derive(Clone)]
pub struct Database {
    commands: mpsc::Sender<Command>,
    state: watch::Receiver<Arc<State>>,
    revisions: broadcast::Sender<News>,
    counts: Arc<Counts>,
}

/// Changes since the start.
#[derive(Debug, Default)]
struct Counts {
    written: AtomicU64,
    failed: AtomicU64,
}

impl Database {
    /// Reads everything, and starts the writer.
    ///
    /// # Errors
    /// Where the datastore cannot be read.
    pub async fn start(mut store: impl Store) -> Result<Self, StoreError> {
        let state = Arc::new(store.load().await?);
        let (publish, watched) = watch::channel(state);
        let (commands, inbox) = mpsc::channel(1024);
        let (revisions, _) = broadcast::channel(BEHIND);
        let counts: Arc<Counts> = Arc::default();
        let writer = Writer {
            store,
            publish,
            revisions: revisions.clone(),
            counts: counts.clone(),
        };
        tokio::spawn(writer.run(inbox));
        let database = Self {
            commands,
            state: watched,
            revisions,
            counts,
        };
        database.convert().await?;
        Ok(database)
    }

    /// Brings what an earlier version has written into the form of this one.
    async fn convert(&self) -> Result<(), StoreError> {
        for tenant in past::outdated(&self.state()) {
            let what = format!("keep the past chains of tenant {tenant} by their differences");
            let converted = self.change("upgrade", what, move |transaction| {
                past::convert(transaction, &tenant)
            });
            let converted = converted.await;
            converted.map_err(|rejection| StoreError::Failed(rejection.to_string()))?;
        }
        Ok(())
    }

    /// Everything, now.
    pub fn state(&self) -> Arc<State> {
        self.state.borrow().clone()
    }

    /// Changes that have been written since the start.
    pub fn written(&self) -> u64 {
        self.counts.written.load(Ordering::Relaxed)
    }

    /// Changes that the datastore did not take.
    pub fn failed(&self) -> u64 {
        self.counts.failed.load(Ordering::Relaxed)
    }

    /// Revisions from now on. Who falls behind looks at [`Database::state`] again.
    pub fn watch(&self) -> broadcast::Receiver<News> {
        self.revisions.subscribe()
    }

    /// Changes the domain; `operation` computes how, and may be asked again. Answers what it answered and the revision where
    /// that holds, when that is durable.
    ///
    /// # Errors
    /// The operation's own, and [`Rejection::Unavailable`].
    pub async fn change<T: Send + 'static>(
        &self,
        actor: &str,
        what: impl Into<String>,
        operation: impl Fn(&mut Transaction<'_>) -> Result<T, Rejection> + Send + 'static,
    ) -> Result<(T, u64), Rejection> {
        let (reply, answer) = oneshot::channel();
        let asked = Asked {
            actor: actor.to_owned(),
            what: what.into(),
            run: Box::new(move |transaction| Ok(Box::new(operation(transaction)?) as Answer)),
            reply,
        };
        let ended = || Rejection::Unavailable("the controller is shutting down".into());
        let command = Command::Change(asked);
        self.commands.send(command).await.map_err(|_| ended())?;
        let (answer, revision) = answer.await.map_err(|_| ended())??;
        let answer = answer.downcast::<T>().map_err(|_| ended())?;
        Ok((*answer, revision))
    }

    /// Says that the controller with this id is here; gives all that are, or `None` where there is only one at a time.
    ///
    /// # Errors
    /// [`Rejection::Unavailable`].
    pub async fn alive(&self, id: &str) -> Result<Option<BTreeSet<String>>, Rejection> {
        let (reply, answer) = oneshot::channel();
        let ended = || Rejection::Unavailable("the controller is shutting down".into());
        let command = Command::Alive(id.to_owned(), reply);
        self.commands.send(command).await.map_err(|_| ended())?;
        let alive = answer.await.map_err(|_| ended())?;
        alive.map_err(|error| Rejection::Unavailable(error.to_string()))
    }

    /// Ends the writer; returns when the datastore is closed.
    pub async fn close(self) {
        let (reply, closed) = oneshot::channel();
        if self.commands.send(Command::Close(reply)).await.is_ok() {
            // It ends in either case.
            let _ = closed.await;
        }
    }

    /// Some revisions, at most `limit`, and [`PAGE_OCTETS`](crate::store::PAGE_OCTETS).
    ///
    /// # Errors
    /// [`Rejection::Unavailable`].
    pub async fn history(&self, span: Span, limit: usize) -> Result<Vec<Revision>, Rejection> {
        let (reply, answer) = oneshot::channel();
        let ended = || Rejection::Unavailable("the controller is shutting down".into());
        let command = Command::History(span, limit, reply);
        self.commands.send(command).await.map_err(|_| ended())?;
        let history = answer.await.map_err(|_| ended())?;
        history.map_err(|error| Rejection::Unavailable(error.to_string()))
    }
}

struct Writer<S> {
    store: S,
    publish: watch::Sender<Arc<State>>,
    revisions: broadcast::Sender<News>,
    counts: Arc<Counts>,
}

impl<S: Store> Writer<S> {
    async fn run(mut self, mut inbox: mpsc::Receiver<Command>) {
        let mut commands = Vec::with_capacity(BATCH);
        loop {
            let since = self.publish.borrow().revision;
            let others = tokio::select! {
                biased;
                count = inbox.recv_many(&mut commands, BATCH) => match count {
                    0 => return,
                    _ => None,
                },
                others = self.store.changed(since) => Some(others),
            };
            if let Some(others) = others {
                self.take_in(others).await;
                continue;
            }
            let mut asked = Vec::new();
            let mut close = None;
            for command in commands.drain(..) {
                match command {
                    Command::Change(change) => asked.push(change),
                    Command::Close(reply) => close = Some(reply),
                    Command::Alive(id, reply) => {
                        // Who asked may have gone.
                        let _ = reply.send(self.store.alive(&id).await);
                    }
                    Command::History(span, limit, reply) => {
                        // Who asked may have gone.
                        let _ = reply.send(self.store.history(span, limit).await);
                    }
                }
            }
            if !asked.is_empty() {
                self.write(asked).await;
            }
            if let Some(reply) = close {
                drop(self);
                // Who asked may have gone.
                let _ = reply.send(());
                return;
            }
        }
    }

    /// Another controller has written these.
    async fn take_in(&mut self, revisions: Vec<Revision>) {
        let mut state = (**self.publish.borrow()).clone();
        let first = revisions.first().map(|one| one.number);
        if first != Some(state.revision + 1) {
            return self.reload().await;
        }
        for revision in &revisions {
            state.apply(revision);
        }
        self.publish.send_replace(Arc::new(state));
        // Nobody may be watching.
        let _ = self.revisions.send(News::Revisions(Arc::new(revisions)));
    }

    /// Takes in what another controller has written since.
    async fn catch_up(&mut self) {
        let since = self.publish.borrow().revision;
        match self.store.missed(since).await {
            Ok(missed) if !missed.is_empty() => self.take_in(missed).await,
            _ => self.reload().await,
        }
    }

    async fn reload(&mut self) {
        match self.store.load().await {
            Ok(state) => {
                self.publish.send_replace(Arc::new(state));
                // Nobody may be watching.
                let _ = self.revisions.send(News::Everything);
            }
            Err(error) => error!(%error, "cannot read what another controller has written"),
        }
    }

    /// Computes and writes, and again where somebody else was faster.
    async fn write(&mut self, asked: Vec<Asked>) {
        loop {
            let before = self.publish.borrow().clone();
            let mut state = (*before).clone();
            let mut revisions = Vec::new();
            let mut answers = Vec::with_capacity(asked.len());
            for each in &asked {
                let mut transaction = Transaction::new(&state);
                let answer = (each.run)(&mut transaction);
                let changes = transaction.changes();
                if answer.is_ok() && !changes.is_empty() {
                    let revision = Revision {
                        number: state.revision + 1,
                        // Revisions are in order even where the clock goes back.
                        at: now(),
                        actor: each.actor.clone(),
                        operation: each.what.clone(),
                        changes,
                    };
                    state.apply(&revision);
                    revisions.push(revision);
                }
                answers.push(answer.map(|answer| (answer, state.revision)));
            }
            let revisions = Arc::new(revisions);
            let written = match revisions.is_empty() {
                true => Ok(()),
                false => self.store.commit(before.revision, &revisions).await,
            };
            match written {
                Ok(()) => {
                    if !revisions.is_empty() {
                        let count = revisions.len() as u64;
                        self.counts.written.fetch_add(count, Ordering::Relaxed);
                        self.publish.send_replace(Arc::new(state));
                        // Nobody may be watching.
                        let _ = self.revisions.send(News::Revisions(revisions));
                    }
                    for (each, answer) in asked.into_iter().zip(answers) {
                        // Who asked may have gone.
                        let _ = each.reply.send(answer);
                    }
                    return;
                }
                Err(StoreError::Conflict) => {
                    let before = before.revision;
                    self.catch_up().await;
                    if self.publish.borrow().revision == before {
                        let error = StoreError::Failed("it changes and cannot be read".into());
                        return self.refuse(asked, &error);
                    }
                }
                Err(error) => return self.refuse(asked, &error),
            }
        }
    }
}

impl<S> Writer<S> {
    /// Nothing was written.
    fn refuse(&self, asked: Vec<Asked>, error: &StoreError) {
        error!(%error, changes = asked.len(), "cannot write");
        let count = asked.len() as u64;
        self.counts.failed.fetch_add(count, Ordering::Relaxed);
        for each in asked {
            let rejection = Rejection::Unavailable(error.to_string());
            // Who asked may have gone.
            let _ = each.reply.send(Err(rejection));
        }
    }
}
