//! A file: the datastore of one controller.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use redb::{
    Database, ReadableDatabase, ReadableTable, Table, TableDefinition, TableHandle as _,
    WriteTransaction,
};

use super::{History, PAGE_OCTETS, Span, Store, StoreError};
use crate::model::{Revision, State, Versioned, is_internal, now};

const RECORDS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("records");
/// Revisions: when they were made, ms since 1970, and what they are.
const REVISIONS: TableDefinition<'_, u64, (u64, &[u8])> = TableDefinition::new("revisions");
const NUMBERS: TableDefinition<'_, &str, u64> = TableDefinition::new("numbers");
const REVISION: &str = "revision";
/// Octets that all revisions take that are kept.
const OCTETS: &str = "octets";
/// Revisions as earlier versions kept them: by their number alone, with what is internal.
const FORMER: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("history");

/// Octets of the file that are held in memory: everything is there as records already.
const CACHE: usize = 16 << 20;

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
            .and_then(|file| {
                let mut builder = Database::builder();
                builder.set_cache_size(CACHE).create_with_backend(file)
            });
        let mut database = match opened {
            Ok(database) => database,
            Err(redb::DatabaseError::DatabaseAlreadyOpen) => return Ok(None),
            Err(error) => {
                return Err(StoreError::Failed(format!("{}: {error}", path.display())));
            }
        };
        let write = database.begin_write().map_err(failed)?;
        write.open_table(RECORDS).map_err(failed)?;
        write.open_table(REVISIONS).map_err(failed)?;
        write.open_table(NUMBERS).map_err(failed)?;
        let converted = convert(&write)?;
        write.commit().map_err(failed)?;
        if converted {
            // What the former history took goes back to the disk.
            database.compact().map_err(failed)?;
        }
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

/// Keeps the history of an earlier version as this one does, as far as it is kept; false where there is none.
fn convert(write: &WriteTransaction) -> Result<bool, StoreError> {
    let mut tables = write.list_tables().map_err(failed)?;
    if !tables.any(|table| table.name() == FORMER.name()) {
        return Ok(false);
    }
    {
        let former = write.open_table(FORMER).map_err(failed)?;
        let mut revisions = write.open_table(REVISIONS).map_err(failed)?;
        let mut numbers = write.open_table(NUMBERS).map_err(failed)?;
        let mut octets = 0;
        for entry in former.iter().map_err(failed)?.rev() {
            let (_, value) = entry.map_err(failed)?;
            let revision: Revision = serde_json::from_slice(value.value()).map_err(failed)?;
            octets += insert(&mut revisions, revision)?;
            if octets > History::OCTETS {
                break;
            }
        }
        numbers.insert(OCTETS, octets).map_err(failed)?;
    }
    write.delete_table(FORMER).map_err(failed)?;
    Ok(true)
}

/// Octets that a value takes in the file.
fn taken(octets: usize) -> u64 {
    octets.next_power_of_two() as u64
}

/// Adds a revision to the history, without what is internal; gives the octets that it takes.
fn insert(
    revisions: &mut Table<'_, u64, (u64, &[u8])>,
    mut revision: Revision,
) -> Result<u64, StoreError> {
    revision.changes.retain(|change| !is_internal(&change.key));
    let octets = serde_json::to_vec(&revision).map_err(failed)?;
    let value = (revision.at, octets.as_slice());
    revisions.insert(revision.number, value).map_err(failed)?;
    Ok(taken(octets.len()))
}

/// Forgets revisions that are too many, too large or too old; gives the octets of those that are left.
fn forget(
    revisions: &mut Table<'_, u64, (u64, &[u8])>,
    latest: u64,
    mut octets: u64,
) -> Result<u64, StoreError> {
    let now = now();
    loop {
        let first = revisions.first().map_err(failed)?;
        let Some((number, (at, size))) = first.map(|(number, value)| {
            let (at, value) = value.value();
            (number.value(), (at, taken(value.len())))
        }) else {
            return Ok(octets);
        };
        let history = History { number, at, octets };
        if !history.is_over(latest, now) {
            return Ok(octets);
        }
        revisions.remove(number).map_err(failed)?;
        octets = octets.saturating_sub(size);
    }
}

fn load(database: &Database) -> Result<State, StoreError> {
    let read = database.begin_read().map_err(failed)?;
    let numbers = read.open_table(NUMBERS).map_err(failed)?;
    let revision = numbers.get(REVISION).map_err(failed)?;
    let revision = revision.map_or(0, |revision| revision.value());
    let records = read.open_table(RECORDS).map_err(failed)?;
    let mut error = None;
    let all = records.iter().map_err(failed)?.map_while(|entry| {
        let read = entry.map_err(failed).and_then(|(_, value)| {
            serde_json::from_slice::<Versioned>(value.value()).map_err(failed)
        });
        read.map_err(|problem| error = Some(problem)).ok()
    });
    let state = State::new(revision, all);
    error.map_or(Ok(state), Err)
}

fn commit(database: &Database, at: u64, revisions: &[Revision]) -> Result<(), StoreError> {
    let write = database.begin_write().map_err(failed)?;
    {
        let mut numbers = write.open_table(NUMBERS).map_err(failed)?;
        let number = |numbers: &Table<'_, &str, u64>, name: &str| {
            let number = numbers.get(name).map_err(failed)?;
            Ok::<u64, StoreError>(number.map_or(0, |number| number.value()))
        };
        if number(&numbers, REVISION)? != at {
            return Err(StoreError::Conflict);
        }
        let mut octets = number(&numbers, OCTETS)?;
        let mut latest = at;
        let mut records = write.open_table(RECORDS).map_err(failed)?;
        let mut history = write.open_table(REVISIONS).map_err(failed)?;
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
            octets += insert(&mut history, revision.clone())?;
            latest = revision.number;
        }
        octets = forget(&mut history, latest, octets)?;
        numbers.insert(REVISION, latest).map_err(failed)?;
        numbers.insert(OCTETS, octets).map_err(failed)?;
    }
    write.commit().map_err(failed)
}

fn history(database: &Database, span: Span, limit: usize) -> Result<Vec<Revision>, StoreError> {
    let read = database.begin_read().map_err(failed)?;
    let revisions = read.open_table(REVISIONS).map_err(failed)?;
    let (range, backwards) = match span {
        Span::Before(number) => (revisions.range(..number), true),
        Span::After(number) => (revisions.range(number.saturating_add(1)..), false),
    };
    let mut range = range.map_err(failed)?;
    let (mut page, mut octets) = (Vec::new(), 0);
    while page.len() < limit {
        let next = match backwards {
            true => range.next_back(),
            false => range.next(),
        };
        let Some(entry) = next.transpose().map_err(failed)? else {
            break;
        };
        let (_, value) = entry.1.value();
        octets += value.len();
        if octets > PAGE_OCTETS && !page.is_empty() {
            break;
        }
        page.push(serde_json::from_slice(value).map_err(failed)?);
    }
    Ok(page)
}

impl Store for Redb {
    async fn load(&mut self) -> Result<State, StoreError> {
        self.with(load).await
    }

    async fn commit(&mut self, at: u64, revisions: &Arc<Vec<Revision>>) -> Result<(), StoreError> {
        let revisions = revisions.clone();
        self.with(move |database| commit(database, at, &revisions))
            .await
    }

    async fn history(&mut self, span: Span, limit: usize) -> Result<Vec<Revision>, StoreError> {
        self.with(move |database| history(database, span, limit))
            .await
    }

    async fn missed(&mut self, _: u64) -> Result<Vec<Revision>, StoreError> {
        Ok(Vec::new())
    }

    async fn changed(&mut self, _: u64) -> Vec<Revision> {
        // Nobody else has it open.
        std::future::pending().await
    }

    async fn alive(&mut self, _: &str) -> Result<Option<BTreeSet<String>>, StoreError> {
        Ok(None)
    }
}
