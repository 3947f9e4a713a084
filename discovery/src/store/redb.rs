//! A file: the datastore of one controller.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition};

use super::{Store, StoreError};
use crate::model::{Revision, State, Versioned};

const RECORDS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("records");
const HISTORY: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("history");
const NUMBERS: TableDefinition<'_, &str, u64> = TableDefinition::new("numbers");
const REVISION: &str = "revision";

/// Revisions that are kept.
const KEPT: u64 = 10_000;

/// The datastore in a file.
pub struct Redb {
    path: PathBuf,
    /// `None` after an error: it is opened anew, and brought in order, by the next question.
    database: Option<Arc<Database>>,
}

fn failed(error: impl std::fmt::Display) -> StoreError {
    StoreError::Failed(error.to_string())
}

/// Everything that a domain knows is in the file: nobody else may read it, whatever an earlier version made of it.
fn open_private(path: &Path) -> std::io::Result<std::fs::File> {
    use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
    let file = std::fs::OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path)?;
    file.set_permissions(std::fs::Permissions::from_mode(0o600))?;
    Ok(file)
}

impl Redb {
    /// Opens the file, or makes it.
    ///
    /// # Errors
    /// Where it cannot be opened: another process may have it open.
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        let opened = Self::try_open(path)?;
        opened.ok_or_else(|| {
            let path = path.display();
            StoreError::Failed(format!("{path}: another controller has it open"))
        })
    }

    /// The same; `None` where another process has it open.
    ///
    /// # Errors
    /// Where it cannot be opened for another reason.
    pub fn try_open(path: &Path) -> Result<Option<Self>, StoreError> {
        let opened = open_private(path)
            .map_err(redb::DatabaseError::from)
            .and_then(redb::backends::FileBackend::new)
            .and_then(|file| Database::builder().create_with_backend(file));
        let database = match opened {
            Ok(database) => database,
            Err(redb::DatabaseError::DatabaseAlreadyOpen) => return Ok(None),
            Err(error) => {
                return Err(StoreError::Failed(format!("{}: {error}", path.display())));
            }
        };
        let write = database.begin_write().map_err(failed)?;
        write.open_table(RECORDS).map_err(failed)?;
        write.open_table(HISTORY).map_err(failed)?;
        write.open_table(NUMBERS).map_err(failed)?;
        write.commit().map_err(failed)?;
        Ok(Some(Self {
            path: path.to_owned(),
            database: Some(Arc::new(database)),
        }))
    }

    /// Does something with the file where it may wait.
    async fn with<T: Send + 'static>(
        &mut self,
        work: impl FnOnce(&Database) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let known = self.database.take();
        let path = self.path.clone();
        let work = move || {
            let database = match known {
                Some(database) => database,
                None => Self::open(&path)?
                    .database
                    .ok_or_else(|| failed("not open"))?,
            };
            let done = work(&database)?;
            Ok::<_, StoreError>((database, done))
        };
        let (database, done) = tokio::task::spawn_blocking(work).await.map_err(failed)??;
        self.database = Some(database);
        Ok(done)
    }
}

fn load(database: &Database) -> Result<State, StoreError> {
    let read = database.begin_read().map_err(failed)?;
    let numbers = read.open_table(NUMBERS).map_err(failed)?;
    let revision = numbers.get(REVISION).map_err(failed)?;
    let revision = revision.map_or(0, |revision| revision.value());
    let records = read.open_table(RECORDS).map_err(failed)?;
    let mut all = Vec::new();
    for entry in records.iter().map_err(failed)? {
        let (_, value) = entry.map_err(failed)?;
        let record: Versioned = serde_json::from_slice(value.value()).map_err(failed)?;
        all.push(record);
    }
    Ok(State::new(revision, all))
}

fn commit(database: &Database, at: u64, revisions: &[Revision]) -> Result<(), StoreError> {
    let write = database.begin_write().map_err(failed)?;
    {
        let mut numbers = write.open_table(NUMBERS).map_err(failed)?;
        let latest = numbers.get(REVISION).map_err(failed)?;
        if latest.map_or(0, |latest| latest.value()) != at {
            return Err(StoreError::Conflict);
        }
        let mut records = write.open_table(RECORDS).map_err(failed)?;
        let mut history = write.open_table(HISTORY).map_err(failed)?;
        for revision in revisions {
            for change in &revision.changes {
                let key = change.key.as_str();
                match &change.new {
                    Some(record) => {
                        let versioned = Versioned {
                            record: record.clone(),
                            modified: revision.number,
                        };
                        let octets = serde_json::to_vec(&versioned).map_err(failed)?;
                        records.insert(key, octets.as_slice()).map_err(failed)?;
                    }
                    None => {
                        records.remove(key).map_err(failed)?;
                    }
                }
            }
            let octets = serde_json::to_vec(revision).map_err(failed)?;
            history
                .insert(revision.number, octets.as_slice())
                .map_err(failed)?;
            history
                .remove(revision.number.saturating_sub(KEPT))
                .map_err(failed)?;
            numbers.insert(REVISION, revision.number).map_err(failed)?;
        }
    }
    write.commit().map_err(failed)
}

impl Store for Redb {
    async fn load(&mut self) -> Result<State, StoreError> {
        self.with(load).await
    }

    async fn commit(&mut self, at: u64, revisions: &[Revision]) -> Result<(), StoreError> {
        let revisions = revisions.to_vec();
        self.with(move |database| commit(database, at, &revisions))
            .await
    }

    async fn history(&mut self, before: u64, limit: usize) -> Result<Vec<Revision>, StoreError> {
        self.with(move |database| {
            let read = database.begin_read().map_err(failed)?;
            let history = read.open_table(HISTORY).map_err(failed)?;
            let range = history.range(..before).map_err(failed)?;
            range
                .rev()
                .take(limit)
                .map(|entry| {
                    let (_, value) = entry.map_err(failed)?;
                    serde_json::from_slice(value.value()).map_err(failed)
                })
                .collect()
        })
        .await
    }

    async fn changed(&mut self, _: u64) -> Vec<Revision> {
        // Nobody else has it open.
        std::future::pending().await
    }

    async fn alive(&mut self, _: &str) -> Result<Option<BTreeSet<String>>, StoreError> {
        Ok(None)
    }
}
