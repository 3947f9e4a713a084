//! The one place where a domain changes: read at revision r, compute, compare and swap at r, or again.
//!
//! Changes that wait together are written together, each a revision of its own: a thousand of them need a few syncs of the
//! disk, and none is answered before it is there.

use std::any::Any;
use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::sync::{broadcast, mpsc, oneshot, watch};
use tracing::{error, warn};

use crate::model::{Change, Record, Revision, State, now};
use crate::store::{Store, StoreError};

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
    /// What is asked for makes no sense.
    #[error("{0}")]
    Invalid(String),
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
    /// What is there, without this transaction's own changes.
    pub fn state(&self) -> &'a State {
        self.state
    }

    /// The record at a key, with this transaction's own changes.
    pub fn get(&self, key: &str) -> Option<&Record> {
        match self.changed.get(key) {
            Some(changed) => changed.as_ref(),
            None => self.state.get(key).map(|of| &of.record),
        }
    }

    /// Puts a record.
    pub fn put(&mut self, record: Record) {
        self.changed.insert(record.key(), Some(record));
    }

    /// Removes what is at a key.
    pub fn delete(&mut self, key: &str) {
        self.changed.insert(key.to_owned(), None);
    }

    fn changes(self) -> Vec<Change> {
        let changes = self.changed.into_iter().map(|(key, new)| Change {
            old: self.state.get(&key).map(|of| of.record.clone()),
            new,
            key,
        });
        changes.filter(|change| change.old != change.new).collect()
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

enum Command {
    Change(Asked),
    Close(oneshot::Sender<()>),
    History(
        u64,
        usize,
        oneshot::Sender<Result<Vec<Revision>, StoreError>>,
    ),
}

/// A handle to the domain's records; cheap to clone.
#[derive(Clone)]
pub struct Database {
    commands: mpsc::Sender<Command>,
    state: watch::Receiver<Arc<State>>,
    revisions: broadcast::Sender<Arc<Vec<Revision>>>,
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
        let writer = Writer {
            store,
            publish,
            revisions: revisions.clone(),
        };
        tokio::spawn(writer.run(inbox));
        Ok(Self {
            commands,
            state: watched,
            revisions,
        })
    }

    /// Everything, now.
    pub fn state(&self) -> Arc<State> {
        self.state.borrow().clone()
    }

    /// Revisions from now on. Who falls behind looks at [`Database::state`] again.
    pub fn watch(&self) -> broadcast::Receiver<Arc<Vec<Revision>>> {
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

    /// Ends the writer; returns when the datastore is closed.
    pub async fn close(self) {
        let (reply, closed) = oneshot::channel();
        if self.commands.send(Command::Close(reply)).await.is_ok() {
            // It ends in either case.
            let _ = closed.await;
        }
    }

    /// At most `limit` revisions before `before`, the latest first.
    ///
    /// # Errors
    /// [`Rejection::Unavailable`].
    pub async fn history(&self, before: u64, limit: usize) -> Result<Vec<Revision>, Rejection> {
        let (reply, answer) = oneshot::channel();
        let ended = || Rejection::Unavailable("the controller is shutting down".into());
        let command = Command::History(before, limit, reply);
        self.commands.send(command).await.map_err(|_| ended())?;
        let history = answer.await.map_err(|_| ended())?;
        history.map_err(|error| Rejection::Unavailable(error.to_string()))
    }
}

struct Writer<S> {
    store: S,
    publish: watch::Sender<Arc<State>>,
    revisions: broadcast::Sender<Arc<Vec<Revision>>>,
}

impl<S: Store> Writer<S> {
    async fn run(mut self, mut inbox: mpsc::Receiver<Command>) {
        let mut commands = Vec::with_capacity(BATCH);
        while inbox.recv_many(&mut commands, BATCH).await > 0 {
            let mut asked = Vec::new();
            let mut close = None;
            for command in commands.drain(..) {
                match command {
                    Command::Change(change) => asked.push(change),
                    Command::Close(reply) => close = Some(reply),
                    Command::History(before, limit, reply) => {
                        // Who asked may have gone.
                        let _ = reply.send(self.store.history(before, limit).await);
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

    /// Computes and writes, and again where somebody else was faster.
    async fn write(&mut self, asked: Vec<Asked>) {
        loop {
            let before = self.publish.borrow().clone();
            let mut state = (*before).clone();
            let mut revisions = Vec::new();
            let mut answers = Vec::with_capacity(asked.len());
            for each in &asked {
                let mut transaction = Transaction {
                    state: &state,
                    changed: BTreeMap::new(),
                };
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
            let written = match revisions.is_empty() {
                true => Ok(()),
                false => self.store.commit(before.revision, &revisions).await,
            };
            match written {
                Ok(()) => {
                    if !revisions.is_empty() {
                        self.publish.send_replace(Arc::new(state));
                        // Nobody may be watching.
                        let _ = self.revisions.send(Arc::new(revisions));
                    }
                    for (each, answer) in asked.into_iter().zip(answers) {
                        // Who asked may have gone.
                        let _ = each.reply.send(answer);
                    }
                    return;
                }
                Err(StoreError::Conflict) => match self.store.load().await {
                    Ok(state) => {
                        warn!(revision = state.revision, "another controller was faster");
                        self.publish.send_replace(Arc::new(state));
                    }
                    Err(error) => return refuse(asked, &error),
                },
                Err(error) => return refuse(asked, &error),
            }
        }
    }
}

/// Nothing was written.
fn refuse(asked: Vec<Asked>, error: &StoreError) {
    error!(%error, changes = asked.len(), "cannot write");
    for each in asked {
        let rejection = Rejection::Unavailable(error.to_string());
        // Who asked may have gone.
        let _ = each.reply.send(Err(rejection));
    }
}
