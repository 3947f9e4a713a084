//! Where a domain's records are kept: durable before anybody is told, all of a change or nothing.

mod etcd;
mod redb;

use std::collections::BTreeSet;
use std::future::Future;
use std::sync::Arc;

pub use self::etcd::Etcd;
pub use self::redb::Redb;
use crate::model::{Revision, State};

/// Why the datastore did not do it.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Somebody else changed it since: read again.
    #[error("the domain has been changed by another controller")]
    Conflict,
    /// It cannot be read or written.
    #[error("the datastore: {0}")]
    Failed(String),
}

/// Octets of the revisions in one answer at most, where it is more than one revision.
pub const PAGE_OCTETS: usize = 1 << 20;

/// Some of the revisions that are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Span {
    /// Those before this one, the latest first.
    Before(u64),
    /// Those behind this one, in order.
    After(u64),
}

/// The oldest revision of a history that is kept, and how large the history is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct History {
    /// The revision's number.
    number: u64,
    /// When it was made, ms since 1970.
    at: u64,
    /// Octets of it and all behind it.
    octets: u64,
}

impl History {
    /// Revisions that are kept at most.
    const REVISIONS: u64 = 10_000;
    /// Octets of them at most.
    const OCTETS: u64 = 64 << 20;
    /// How long they are kept, ms: 90 days.
    const AGE: u64 = 90 * 24 * 3600 * 1000;

    /// Whether the oldest one is to be forgotten. The latest one never is.
    fn is_over(&self, latest: u64, now: u64) -> bool {
        self.number < latest
            && (self.number + Self::REVISIONS <= latest
                || self.octets > Self::OCTETS
                || self.at.saturating_add(Self::AGE) < now)
    }
}

/// A datastore. One writer uses it; another machine's may use the same one beside it.
pub trait Store: Send + 'static {
    /// Everything, at the latest revision.
    ///
    /// # Errors
    /// Where it cannot be read.
    fn load(&mut self) -> impl Future<Output = Result<State, StoreError>> + Send;

    /// Adds revisions behind `at`, if that is still the latest one; returns when they are durable.
    ///
    /// # Errors
    /// [`StoreError::Conflict`], or why it cannot be written: nothing is changed then.
    fn commit(
        &mut self,
        at: u64,
        revisions: &Arc<Vec<Revision>>,
    ) -> impl Future<Output = Result<(), StoreError>> + Send;

    /// Some revisions, without what is [internal](crate::model::is_internal): at most `limit`, and [`PAGE_OCTETS`]. Old ones are forgotten.
    ///
    /// # Errors
    /// Where it cannot be read.
    fn history(
        &mut self,
        span: Span,
        limit: usize,
    ) -> impl Future<Output = Result<Vec<Revision>, StoreError>> + Send;

    /// What another controller has written behind `since`, in order, whole: at most some hundred revisions.
    ///
    /// # Errors
    /// Where it cannot be read.
    fn missed(
        &mut self,
        since: u64,
    ) -> impl Future<Output = Result<Vec<Revision>, StoreError>> + Send;

    /// Waits until another controller has written something behind `since`, and gives that, in order. It may be dropped at any time.
    fn changed(&mut self, since: u64) -> impl Future<Output = Vec<Revision>> + Send;

    /// Says that the controller with this id is here, for the next some seconds; gives all that are, or `None` where there is only
    /// one at a time.
    ///
    /// # Errors
    /// Where the datastore does not answer.
    fn alive(
        &mut self,
        id: &str,
    ) -> impl Future<Output = Result<Option<BTreeSet<String>>, StoreError>> + Send;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_too_old_too_much_or_too_large_is_forgotten_and_the_latest_never() {
        let (now, day) = (History::AGE * 2, 24 * 3600 * 1000);
        let history = |number, at, octets| History { number, at, octets };
        assert!(!history(1, now, 100).is_over(10_000, now));
        assert!(history(1, now, 100).is_over(10_001, now));
        assert!(!history(1, now, 64 << 20).is_over(2, now));
        assert!(history(1, now, (64 << 20) + 1).is_over(2, now));
        assert!(!history(1, now - 89 * day, 100).is_over(2, now));
        assert!(history(1, now - 91 * day, 100).is_over(2, now));
        assert!(!history(2, 0, u64::MAX).is_over(2, now));
    }
}
