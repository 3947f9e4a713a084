//! Keys of sessions: which of them routers hold, and which are to be made. What routers hold is noted together, once a second: a
//! revision of the domain for all of them.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use tokio::sync::broadcast::error::RecvError;
use tracing::warn;

use super::Hub;
use crate::database::News;
use crate::model::{Change, Record, Role, State, key};
use crate::proto::{Acknowledge, Update, item};
use crate::session_keys::{self, Hold, Wanted};

/// What the keys of items begin with that say what sessions are signed with.
const ITEM: &str = "key/";

/// How often it is looked at whether keys are too old.
const LOOK: Duration = Duration::from_secs(60);

/// A next key that a router was sent.
pub(super) struct Handed {
    /// With which revision.
    revision: u64,
    /// The router that the session is with.
    other: String,
    number: u32,
}

/// Next keys that are in what a router is sent.
pub(super) fn handed(state: &State, name: &str, update: &Update) -> Vec<Handed> {
    let keys = update.put.iter().filter_map(|(key, one)| match &one.item {
        Some(item::Item::SessionKey(said)) if !said.next.is_empty() => key.strip_prefix(ITEM),
        _ => None,
    });
    let handed = keys.filter_map(|other| {
        Some(Handed {
            revision: update.revision,
            other: other.to_owned(),
            number: session_keys::next(state, name, other)?,
        })
    });
    handed.collect()
}

/// Next keys that a router held when it came: it was `before` what it is `now`.
pub(super) fn found(
    state: &State,
    name: &str,
    before: &BTreeMap<String, u64>,
    now: &BTreeMap<String, u64>,
) -> Vec<Hold> {
    let same = before
        .iter()
        .filter(|(key, one)| now.get(*key) == Some(one));
    let others = same.filter_map(|(key, _)| key.strip_prefix(ITEM));
    let holds = others.filter_map(|other| {
        Some(Hold {
            router: name.to_owned(),
            other: other.to_owned(),
            number: session_keys::next(state, name, other)?,
        })
    });
    holds.collect()
}

/// Next keys that a router says it holds.
pub(super) fn acknowledged(name: &str, handed: &mut Vec<Handed>, said: &Acknowledge) -> Vec<Hold> {
    let refused = |one: &Handed| {
        let mut items = said.refused.iter();
        items.any(|refused| refused.item.strip_prefix(ITEM) == Some(&one.other))
    };
    // What is refused now it may hold at a later word.
    let taken = handed.extract_if(.., |one| one.revision <= said.revision && !refused(one));
    let held = taken.map(|one| Hold {
        router: name.to_owned(),
        other: one.other,
        number: one.number,
    });
    held.collect()
}

fn note_change(wanted: &mut Wanted, change: &Change) {
    if change.key == key::REPLACED {
        wanted.old = true;
        return;
    }
    let Some(name) = change.key.strip_prefix("router/") else {
        return;
    };
    let reflects = |record: &Option<Record>| match record {
        Some(Record::Router(router)) => router.role == Role::Reflector,
        _ => false,
    };
    wanted.routers.insert(name.to_owned());
    wanted.anywhere |= reflects(&change.old) != reflects(&change.new);
}

impl Hub {
    /// With other routers, or when an operator wants other keys, some are to be made.
    pub(super) fn note_wanted(&self, news: &Result<News, RecvError>) {
        let mut wanted = Wanted::default();
        match news {
            Ok(News::Revisions(revisions)) => {
                for change in revisions.iter().flat_map(|one| &one.changes) {
                    note_change(&mut wanted, change);
                }
            }
            _ => (wanted.anywhere, wanted.old) = (true, true),
        }
        self.inner().keys_wanted.add(wanted);
    }

    /// Notes what routers hold, and makes keys that are wanted.
    pub(super) async fn see_to_keys(&self) {
        let (holds, wanted) = {
            let mut inner = self.inner();
            // Keys get old without a word of anybody.
            let mut wanted = std::mem::take(&mut inner.keys_wanted);
            wanted.old |= inner.keys_seen.is_none_or(|seen| seen.elapsed() >= LOOK);
            // What was there before this controller began, nobody tells it of.
            wanted.anywhere |= inner.keys_seen.is_none();
            if wanted.old {
                inner.keys_seen = Some(Instant::now());
            }
            (std::mem::take(&mut inner.holds), wanted)
        };
        if !holds.is_empty() {
            let noted = holds.clone();
            let what = format!("routers hold keys of sessions: {} times", holds.len());
            let noted = self
                .database
                .change("session keys", what, move |transaction| {
                    session_keys::held(transaction, &noted);
                    Ok(())
                });
            if let Err(error) = noted.await {
                warn!(%error, "cannot note which keys of sessions routers hold");
                self.inner().holds.extend(holds);
            }
        }
        if !wanted.is_empty() {
            self.make_keys(wanted).await;
        }
    }

    async fn make_keys(&self, wanted: Wanted) {
        let pairs = session_keys::wanting(&self.database.state(), &wanted);
        if pairs.is_empty() {
            return;
        }
        // There may be more of them, and these may fail.
        self.inner().keys_wanted.add(wanted);
        let what = format!("make keys for {} sessions", pairs.len());
        let made = self
            .database
            .change("session keys", what, move |transaction| {
                session_keys::make(transaction, &pairs)
            });
        if let Err(error) = made.await {
            warn!(%error, "cannot make keys for sessions");
        }
    }
}
