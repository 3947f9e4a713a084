//! Where a domain's records are kept: durable before anybody is told, all of a change or nothing.

mod etcd;
mod redb;

use std::collections::BTreeSet;
use std::future::Future;

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
        revisions: &[Revision],
    ) -> impl Future<Output = Result<(), StoreError>> + Send;

    /// At most `limit` revisions up to `before`, exclusive, the latest first. Old ones are forgotten.
    ///
    /// # Errors
    /// Where it cannot be read.
    fn history(
        &mut self,
        before: u64,
        limit: usize,
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
