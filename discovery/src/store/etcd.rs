//! etcd: the datastore of a domain that has outgrown one machine. Any number of controllers use it side by side.
//!
//! A commit is one transaction, which compares the number of the latest revision: it puts that, a key for each revision ([`log`]), and one
//! for each record that they change ([`records`]). etcd takes 128 operations and 1.5 MiB in one: what is more is written beside.

mod log;
mod records;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use tonic::Streaming;
use tonic::transport::Channel;
use tracing::warn;

use self::log::Entry;
use self::records::Mark;
use super::{Span, Store, StoreError};
use crate::etcd::kv_client::KvClient;
use crate::etcd::lease_client::LeaseClient;
use crate::etcd::{
    self, Compare, CompareTarget, EtcdTls, LARGEST, LeaseGrantRequest, LeaseKeepAliveRequest,
    PATIENCE, PutRequest, RangeRequest, RequestOp, SortOrder, TxnRequest, WatchResponse,
    compare::TargetUnion, request_op::Request,
};
use crate::model::{Revision, State};

/// Octets of one value at most, and of what one transaction puts; etcd takes 1.5 MiB in one request.
const PIECE: usize = 1 << 20;
/// Operations of one transaction, beside those that move numbers; etcd takes 128.
const PUTS: usize = 120;
/// A member of the cluster may go: so often is asked again, first at once, of another one, and then with such pauses.
const ATTEMPTS: u32 = 28;
const PAUSE: Duration = Duration::from_millis(250);
/// A controller that is not heard of for so long is away, s.
const PRESENCE: i64 = 10;

/// Asks, and again where a member has gone: what is asked so does no harm twice.
macro_rules! again {
    ($question:expr) => {{
        let mut attempt = 0;
        loop {
            match $crate::store::etcd::asked($question).await {
                Err(_) if attempt < $crate::store::etcd::ATTEMPTS => {
                    tokio::time::sleep($crate::store::etcd::pause(attempt)).await;
                    attempt += 1;
                }
                answer => break answer,
            }
        }
    }};
}

use again;

fn pause(attempt: u32) -> Duration {
    PAUSE.min(Duration::from_millis(1 << attempt.min(16)))
}

fn failed(error: impl std::fmt::Display) -> StoreError {
    StoreError::Failed(error.to_string())
}

/// A key has this value; with `None` it is not there.
fn compare(key: String, value: Option<String>) -> Compare {
    let (target, union) = match value {
        // Nothing has the version 0.
        None => (CompareTarget::Version, TargetUnion::Version(0)),
        Some(value) => (CompareTarget::Value, TargetUnion::Value(value.into())),
    };
    Compare {
        // Equal.
        result: 0,
        target: target.into(),
        key: key.into(),
        target_union: Some(union),
    }
}

fn put(key: String, value: Vec<u8>) -> RequestOp {
    RequestOp {
        request: Some(Request::RequestPut(PutRequest {
            key: key.into(),
            value,
            lease: 0,
        })),
    }
}

/// The datastore in a cluster.
pub struct Etcd {
    channel: Channel,
    prefix: String,
    /// The latest revision that this controller knows of, and the octets of all up to it; `None` where those are to be looked up.
    written: Option<(u64, u64)>,
    /// Where the records are, as far as is known.
    mark: Option<Mark>,
    watch: Option<Streaming<WatchResponse>>,
    /// What came before the watch began has been read.
    caught_up: bool,
    lease: Option<i64>,
}

impl Etcd {
    /// Connects to a cluster; `prefix` is what all of this domain's keys begin with.
    ///
    /// # Errors
    /// Where an endpoint is none, or a file of `tls` is not what it should be. That nobody answers is found out by the first question.
    pub fn connect(endpoints: &[String], tls: &EtcdTls, prefix: &str) -> Result<Self, StoreError> {
        Ok(Self {
            channel: etcd::connect(endpoints, tls).map_err(StoreError::Failed)?,
            prefix: prefix.trim_end_matches('/').to_owned(),
            written: None,
            mark: None,
            watch: None,
            caught_up: false,
            lease: None,
        })
    }

    fn kv(&self) -> KvClient<Channel> {
        KvClient::new(self.channel.clone()).max_decoding_message_size(LARGEST)
    }

    fn latest(&self) -> String {
        format!("{}/revision", self.prefix)
    }

    fn controllers(&self) -> String {
        format!("{}/controllers/", self.prefix)
    }

    /// Reads the values of a key, or of a range; asks again where a member has gone.
    async fn get(&mut self, request: RangeRequest) -> Result<Vec<Vec<u8>>, StoreError> {
        let answer = again!(self.kv().range(request.clone()))?;
        Ok(answer.kvs.into_iter().map(|each| each.value).collect())
    }

    async fn put(&mut self, key: String, value: Vec<u8>, lease: i64) -> Result<(), StoreError> {
        let request = PutRequest {
            key: key.into(),
            value,
            lease,
        };
        again!(self.kv().put(request.clone())).map(drop)
    }

    /// One transaction for all, with their records where it holds those too: `with` says so. Nothing, where somebody else was faster.
    async fn write(
        &mut self,
        at: u64,
        revisions: &[Revision],
        entries: &[Vec<u8>],
        with: bool,
    ) -> Result<TxnRequest, StoreError> {
        let last = revisions.last().map_or(at, |one| one.number);
        let number = (at > 0).then(|| at.to_string());
        let mut transaction = TxnRequest {
            compare: vec![compare(self.latest(), number)],
            success: vec![put(self.latest(), last.to_string().into())],
            failure: Vec::new(),
        };
        for (revision, entry) in revisions.iter().zip(entries) {
            let key = self.revision(revision.number);
            transaction.success.push(put(key, entry.clone()));
        }
        if !with {
            return Ok(transaction);
        }
        let mut octets: usize = entries.iter().map(Vec::len).sum();
        let mut whole = transaction.clone();
        for (key, record) in records::changed(revisions) {
            let (write, size) = self.write_record(&key, record.as_ref())?;
            octets += size;
            whole.success.push(write);
        }
        if octets > PIECE || whole.success.len() > PUTS {
            return Ok(transaction);
        }
        let mark = Mark {
            revision: last,
            ..Mark::default()
        };
        whole.compare.push(self.is_at(self.mark)?);
        whole.success.push(self.move_mark(mark)?);
        Ok(whole)
    }
}

impl Store for Etcd {
    async fn load(&mut self) -> Result<State, StoreError> {
        (self.written, self.mark) = (None, None);
        self.read_all().await
    }

    async fn commit(&mut self, at: u64, revisions: &Arc<Vec<Revision>>) -> Result<(), StoreError> {
        let Some(last) = revisions.last().map(|one| one.number) else {
            return Ok(());
        };
        let mut octets = match self.written {
            Some((known, octets)) if known == at => octets,
            _ => self.octets(at).await?,
        };
        let mut entries = Vec::with_capacity(revisions.len());
        for revision in revisions.iter() {
            let (entry, total) = self.entry(revision, octets).await?;
            entries.push(entry);
            octets = total;
        }
        let (mut attempt, mut looked) = (0, false);
        let with_records = loop {
            if self.mark.is_none_or(|mark| mark.revision != at) {
                self.mark = self.mark().await?;
            }
            let current = Mark {
                revision: at,
                ..Mark::default()
            };
            let current = self.mark == Some(current);
            let transaction = self.write(at, revisions, &entries, current).await?;
            // The latest revision, and with records their mark.
            let with_records = transaction.compare.len() > 1;
            match asked(self.kv().txn(transaction)).await {
                Ok(answer) if answer.succeeded => break with_records,
                Ok(_) => {
                    // After an attempt without an answer it may be our own that is there.
                    if attempt > 0 && self.revisions(at + 1).await?.starts_with(revisions) {
                        break with_records;
                    }
                    let latest = self.get(one(self.latest())).await?.pop();
                    let latest = latest.map_or_else(|| "0".to_owned(), text);
                    if looked || latest != at.to_string() {
                        self.mark = None;
                        self.discard(&entries).await;
                        return Err(StoreError::Conflict);
                    }
                    // It was the mark: somebody else has brought records further.
                    (self.mark, looked) = (None, true);
                }
                Err(error) if attempt == ATTEMPTS => return Err(error),
                Err(error) => {
                    warn!(%error, "etcd does not answer: asking again");
                    tokio::time::sleep(pause(attempt)).await;
                    attempt += 1;
                }
            }
        };
        self.written = Some((last, octets));
        match with_records {
            true => {
                self.mark = Some(Mark {
                    revision: last,
                    ..Mark::default()
                });
            }
            false => {
                self.mark = None;
                if let Err(error) = self.advance(last).await {
                    warn!(%error, "records are behind: a start takes longer");
                    return Ok(());
                }
            }
        }
        if let Err(error) = self.forget(at, last, octets).await {
            warn!(%error, "cannot forget old revisions");
        }
        Ok(())
    }

    async fn history(&mut self, span: Span, limit: usize) -> Result<Vec<Revision>, StoreError> {
        let (from, until, order) = match span {
            Span::Before(number) => (0, number, SortOrder::Descend),
            Span::After(number) => (number.saturating_add(1), u64::MAX, SortOrder::Ascend),
        };
        let range = RangeRequest {
            key: self.revision(from).into(),
            range_end: self.revision(until).into(),
            sort_order: order.into(),
            ..RangeRequest::default()
        };
        self.page(range, limit).await
    }

    async fn missed(&mut self, since: u64) -> Result<Vec<Revision>, StoreError> {
        self.revisions(since + 1).await
    }

    async fn changed(&mut self, since: u64) -> Vec<Revision> {
        loop {
            if self.watch.is_none() {
                self.caught_up = false;
                let (from, until) = (self.revision(0), self.revision(u64::MAX));
                match etcd::watch(&self.channel, from.into(), until.into()).await {
                    Ok(watch) => self.watch = Some(watch),
                    Err(_) => tokio::time::sleep(PAUSE).await,
                }
                continue;
            }
            if !self.caught_up {
                let missed = self.revisions(since + 1).await;
                if let Ok(missed) = missed {
                    self.caught_up = missed.is_empty();
                    if !missed.is_empty() {
                        return missed;
                    }
                }
            }
            let Some(watch) = &mut self.watch else {
                continue;
            };
            match watch.message().await {
                Ok(Some(answer)) if !answer.canceled => {
                    let values = answer.events.iter().filter_map(|event| event.kv.as_ref());
                    let entries = values.filter_map(|one| Entry::read(&one.value));
                    let read: Vec<Option<Revision>> = entries.map(Entry::into_revision).collect();
                    if read.iter().any(Option::is_none) {
                        // It is in pieces: read like what came before the watch.
                        self.caught_up = false;
                        continue;
                    }
                    let revisions = read.into_iter().flatten();
                    let mut revisions: Vec<Revision> =
                        revisions.filter(|one| one.number > since).collect();
                    revisions.sort_unstable_by_key(|one| one.number);
                    if !revisions.is_empty() {
                        return revisions;
                    }
                }
                _ => {
                    self.watch = None;
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    }

    async fn alive(&mut self, id: &str) -> Result<Option<BTreeSet<String>>, StoreError> {
        let renewed = match self.lease {
            None => false,
            Some(lease) => self.keep(lease).await.unwrap_or(false),
        };
        if !renewed {
            let request = LeaseGrantRequest { ttl: PRESENCE };
            let mut client = LeaseClient::new(self.channel.clone());
            let lease = again!(client.lease_grant(request))?.id;
            let key = format!("{}{id}", self.controllers());
            self.put(key, id.into(), lease).await?;
            self.lease = Some(lease);
        }
        let range = RangeRequest {
            range_end: format!("{}~", self.controllers()).into(),
            ..one(self.controllers())
        };
        let ids = self.get(range).await?.into_iter();
        Ok(Some(
            ids.filter_map(|id| String::from_utf8(id).ok()).collect(),
        ))
    }
}

fn text(value: Vec<u8>) -> String {
    String::from_utf8_lossy(&value).into_owned()
}

/// The value of one key.
fn one(key: String) -> RangeRequest {
    RangeRequest {
        key: key.into(),
        ..RangeRequest::default()
    }
}

/// An answer in good time.
async fn asked<T>(
    question: impl Future<Output = Result<tonic::Response<T>, tonic::Status>>,
) -> Result<T, StoreError> {
    etcd::asked(question).await.map_err(StoreError::Failed)
}

impl Etcd {
    /// Prolongs the lease; false where it has run out.
    async fn keep(&mut self, lease: i64) -> Result<bool, StoreError> {
        let request = LeaseKeepAliveRequest { id: lease };
        let mut client = LeaseClient::new(self.channel.clone());
        let mut answers = asked(client.lease_keep_alive(tokio_stream::once(request))).await?;
        let answer = tokio::time::timeout(PATIENCE, answers.message()).await;
        Ok(matches!(answer, Ok(Ok(Some(answer))) if answer.ttl > 0))
    }
}
