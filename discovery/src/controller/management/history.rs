//! Revisions: who changed what, going back to one, watching them come.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::mpsc;
use utoipa::ToSchema;

use super::resources::shown;
use super::{Actor, Answer, Answered, Asking};
use crate::controller::Controller;
use crate::database::Rejection;
use crate::model::{Change, Record, Revision, is_internal};
use crate::operations::{self, Undo};
use crate::store::Span;

/// Revisions in one answer.
const PAGE: usize = 100;
/// Revisions that wait for one who watches.
const QUEUE: usize = 64;

/// What a domain was made again.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub(in crate::controller) struct RolledBack {
    /// Tenants, attachments and VNIs are what they were at this revision.
    pub rolled_back_to: u64,
}

/// Secrets' hashes, and answers that were kept, are nobody's business.
fn public(mut revision: Revision) -> Revision {
    let public = |record: Option<Record>| match record {
        Some(Record::Token(token)) => Some(Record::Token(shown(&token))),
        other => other,
    };
    revision.changes.retain(|change| !is_internal(&change.key));
    revision.changes = revision
        .changes
        .into_iter()
        .map(|change| Change {
            key: change.key,
            old: public(change.old),
            new: public(change.new),
        })
        .collect();
    revision
}

fn forgotten(number: u64) -> Rejection {
    Rejection::NotFound(format!(
        "there is no revision {number}, or it is too old to be kept"
    ))
}

impl Controller {
    /// At most so many, 100, and 1 MiB, before one; the latest first. One is answered in any case.
    pub(in crate::controller) async fn list_revisions(
        &self,
        actor: &Actor,
        before: Option<u64>,
        limit: Option<usize>,
    ) -> Answered<Vec<Revision>> {
        actor.may_see(None)?;
        let limit = limit.unwrap_or(PAGE).min(PAGE);
        let before = before.unwrap_or(u64::MAX);
        let history = self.database.history(Span::Before(before), limit).await?;
        Ok(Answer {
            body: history.into_iter().map(public).collect(),
            revision: self.database.state().revision,
            modified: None,
        })
    }

    pub(in crate::controller) async fn get_revision(
        &self,
        actor: &Actor,
        number: u64,
    ) -> Answered<Revision> {
        actor.may_see(None)?;
        let span = Span::After(number.saturating_sub(1));
        let history = self.database.history(span, 1).await?;
        let revision = history.into_iter().find(|one| one.number == number);
        Ok(Answer {
            body: revision.map(public).ok_or_else(|| forgotten(number))?,
            revision: self.database.state().revision,
            modified: None,
        })
    }

    /// Some of the revisions behind one, in order: none where it is the latest.
    async fn behind(&self, number: u64) -> Result<Vec<Revision>, Rejection> {
        if number >= self.database.state().revision {
            return Ok(Vec::new());
        }
        let page = self.database.history(Span::After(number), PAGE).await?;
        match page.first() {
            Some(first) if first.number == number + 1 => Ok(page),
            _ => Err(forgotten(number + 1)),
        }
    }

    pub(in crate::controller) async fn roll_back(
        &self,
        asking: &Asking,
        number: u64,
    ) -> Answered<RolledBack> {
        asking.actor.may_change(None)?;
        let at = self.database.state().revision;
        let not_kept = || {
            Rejection::NotFound(format!(
                "revision {number} is not one of those that are kept"
            ))
        };
        if number > at {
            return Err(not_kept());
        }
        let mut undo = Undo::default();
        let mut last = number;
        while last < at {
            let page = self.behind(last).await;
            let page = page.map_err(|rejection| match rejection {
                Rejection::NotFound(_) => not_kept(),
                other => other,
            })?;
            for revision in page {
                last = revision.number;
                undo.add(revision);
            }
        }
        let what = format!("roll back to revision {number}");
        self.change(asking, what, &(), String::new(), move |transaction| {
            if transaction.state().revision != last {
                return Err(Rejection::Conflict(
                    "the domain has been changed meanwhile: look, and ask again".into(),
                ));
            }
            operations::roll_back(transaction, &undo)?;
            Ok(RolledBack {
                rolled_back_to: number,
            })
        })
        .await
    }

    /// Revisions behind one as they come, in order, for as long as `shown` is a token that may see them. Without one: from now on.
    pub(in crate::controller) fn watch(
        self: &Arc<Self>,
        shown: Option<String>,
        since: Option<u64>,
    ) -> Result<mpsc::Receiver<Result<Revision, Rejection>>, Rejection> {
        self.actor(shown.as_deref())?.may_see(None)?;
        let (revisions, inbox) = mpsc::channel(QUEUE);
        let controller = self.clone();
        tokio::spawn(async move {
            let sent = tokio::select! {
                sent = controller.send(shown.as_deref(), since, &revisions) => sent,
                () = revisions.closed() => Ok(()),
            };
            if let Err(rejection) = sent {
                // Who watches may have gone.
                let _ = revisions.send(Err(rejection)).await;
            }
        });
        Ok(inbox)
    }

    async fn send(
        &self,
        shown: Option<&str>,
        since: Option<u64>,
        revisions: &mpsc::Sender<Result<Revision, Rejection>>,
    ) -> Result<(), Rejection> {
        // Before what is there is read: nothing is missed between.
        let mut news = self.database.watch();
        let mut last = since.unwrap_or_else(|| self.database.state().revision);
        loop {
            loop {
                self.actor(shown)?.may_see(None)?;
                let page = self.behind(last).await?;
                let Some(end) = page.last() else { break };
                last = end.number;
                for revision in page {
                    if revisions.send(Ok(public(revision))).await.is_err() {
                        return Ok(());
                    }
                }
            }
            match news.recv().await {
                Ok(_) | Err(RecvError::Lagged(_)) => {}
                Err(RecvError::Closed) => {
                    return Err(Rejection::Unavailable(
                        "the controller is shutting down".into(),
                    ));
                }
            }
        }
    }
}
