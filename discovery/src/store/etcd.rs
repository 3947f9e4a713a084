//! etcd: the datastore of a domain that has outgrown one machine. Any number of controllers use it side by side.
//!
//! A revision is one key, and so is the number of the latest one: a commit is a transaction of a few puts, whatever it changes. Now and
//! then everything is written beside as a snapshot, so that a start reads that and what came behind it.

use std::collections::BTreeSet;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tonic::Streaming;
use tonic::transport::Channel;
use tracing::warn;

use super::{Store, StoreError};
use crate::etcd::kv_client::KvClient;
use crate::etcd::lease_client::LeaseClient;
use crate::etcd::{
    self, Compare, CompareTarget, DeleteRangeRequest, EtcdTls, LARGEST, LeaseGrantRequest,
    LeaseKeepAliveRequest, PATIENCE, PutRequest, RangeRequest, RequestOp, SortOrder, TxnRequest,
    WatchResponse, compare::TargetUnion, request_op::Request,
};
use crate::model::{Revision, State, Versioned};

/// Revisions between snapshots.
const SNAPSHOT: u64 = 1000;
/// Revisions that are kept behind the latest snapshot.
const KEPT: u64 = 10_000;
/// Octets of a part of a snapshot; etcd takes 1.5 MiB in one request.
const PART: usize = 512 << 10;
/// Revisions read at once.
const PAGE: i64 = 500;
/// A member of the cluster may go: so often, and with such pauses, is asked again.
const ATTEMPTS: usize = 20;
const PAUSE: Duration = Duration::from_millis(250);
/// A controller that is not heard of for so long is away, s.
const PRESENCE: i64 = 10;

/// Asks, and again where a member has gone: what is asked so does no harm twice.
macro_rules! again {
    ($question:expr) => {{
        let mut attempt = 0;
        loop {
            match asked($question).await {
                Err(_) if attempt < ATTEMPTS => {
                    attempt += 1;
                    tokio::time::sleep(PAUSE).await;
                }
                answer => break answer,
            }
        }
    }};
}

fn failed(error: impl std::fmt::Display) -> StoreError {
    StoreError::Failed(error.to_string())
}

/// Where the latest snapshot is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Snapshot {
    revision: u64,
    parts: usize,
}

/// The datastore in a cluster.
pub struct Etcd {
    channel: Channel,
    prefix: String,
    /// What it holds, for the next snapshot.
    state: State,
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
            state: State::default(),
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

    fn revision(&self, number: u64) -> String {
        format!("{}/history/{number:020}", self.prefix)
    }

    fn part(&self, revision: u64, part: usize) -> String {
        format!("{}/parts/{revision:020}/{part:08}", self.prefix)
    }

    fn snapshot(&self) -> String {
        format!("{}/snapshot", self.prefix)
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

    /// Revisions from one on, in order, some at a time.
    async fn revisions(&mut self, from: u64) -> Result<Vec<Revision>, StoreError> {
        let range = RangeRequest {
            key: self.revision(from).into(),
            range_end: self.revision(u64::MAX).into(),
            limit: PAGE,
            sort_order: SortOrder::Ascend.into(),
        };
        let values = self.get(range).await?;
        values
            .iter()
            .map(|each| serde_json::from_slice(each).map_err(failed))
            .collect()
    }

    /// Writes all that there is beside the revisions, and forgets old ones.
    async fn write_snapshot(&mut self) -> Result<(), StoreError> {
        let revision = self.state.revision;
        let mut parts: Vec<Vec<&Versioned>> = vec![Vec::new()];
        let mut octets = 0;
        for (_, record) in self.state.below("") {
            octets += serde_json::to_vec(record).map_err(failed)?.len();
            if octets > PART {
                parts.push(Vec::new());
                octets = 0;
            }
            if let Some(part) = parts.last_mut() {
                part.push(record);
            }
        }
        let parts: Result<Vec<Vec<u8>>, _> = parts.iter().map(serde_json::to_vec).collect();
        let parts = parts.map_err(failed)?;
        for (number, part) in parts.iter().enumerate() {
            let key = self.part(revision, number);
            self.put(key, part.clone(), 0).await?;
        }
        let snapshot = Snapshot {
            revision,
            parts: parts.len(),
        };
        let value = serde_json::to_vec(&snapshot).map_err(failed)?;
        let key = self.snapshot();
        self.put(key, value, 0).await?;
        // Who reads an older one now is told that it is gone, and begins again.
        for (from, until) in [
            (self.part(0, 0), self.part(revision, 0)),
            (
                self.revision(0),
                self.revision(revision.saturating_sub(KEPT)),
            ),
        ] {
            let range = DeleteRangeRequest {
                key: from.into(),
                range_end: until.into(),
            };
            again!(self.kv().delete_range(range.clone()))?;
        }
        Ok(())
    }

    async fn read_snapshot(&mut self) -> Result<State, StoreError> {
        let key = self.snapshot();
        let Some(value) = self.get(one(key)).await?.pop() else {
            return Ok(State::default());
        };
        let snapshot: Snapshot = serde_json::from_slice(&value).map_err(failed)?;
        let mut records: Vec<Versioned> = Vec::new();
        for number in 0..snapshot.parts {
            let key = self.part(snapshot.revision, number);
            let part = self.get(one(key)).await?.pop();
            let part =
                part.ok_or_else(|| StoreError::Failed("the snapshot is incomplete".into()))?;
            let part: Vec<Versioned> = serde_json::from_slice(&part).map_err(failed)?;
            records.extend(part);
        }
        Ok(State::new(snapshot.revision, records))
    }
}

impl Store for Etcd {
    async fn load(&mut self) -> Result<State, StoreError> {
        let mut state = match self.read_snapshot().await {
            Ok(state) => state,
            // It has been replaced while it was read.
            Err(_) => self.read_snapshot().await?,
        };
        loop {
            let revisions = self.revisions(state.revision + 1).await?;
            if revisions.is_empty() {
                break;
            }
            for revision in &revisions {
                state.apply(revision);
            }
        }
        self.state = state.clone();
        Ok(state)
    }

    async fn commit(&mut self, at: u64, revisions: &[Revision]) -> Result<(), StoreError> {
        let Some(last) = revisions.last() else {
            return Ok(());
        };
        // Nothing has the version 0.
        let (target, union) = match at {
            0 => (CompareTarget::Version, TargetUnion::Version(0)),
            at => (
                CompareTarget::Value,
                TargetUnion::Value(at.to_string().into()),
            ),
        };
        let compare = Compare {
            // Equal.
            result: 0,
            target: target.into(),
            key: self.latest().into(),
            target_union: Some(union),
        };
        let put = |key: String, value: Vec<u8>| RequestOp {
            request: Some(Request::RequestPut(PutRequest {
                key: key.into(),
                value,
                lease: 0,
            })),
        };
        let mut puts = vec![put(self.latest(), last.number.to_string().into())];
        for revision in revisions {
            let value = serde_json::to_vec(revision).map_err(failed)?;
            puts.push(put(self.revision(revision.number), value));
        }
        let transaction = TxnRequest {
            compare: vec![compare],
            success: puts,
            failure: Vec::new(),
        };
        let mut attempt = 0;
        loop {
            match asked(self.kv().txn(transaction.clone())).await {
                Ok(answer) if answer.succeeded => break,
                // After an attempt without an answer it may be our own that is there.
                Ok(_) if attempt == 0 => return Err(StoreError::Conflict),
                Ok(_) => {
                    let there = self.revisions(at + 1).await?;
                    match there.starts_with(revisions) {
                        true => break,
                        false => return Err(StoreError::Conflict),
                    }
                }
                Err(error) if attempt == ATTEMPTS => return Err(error),
                Err(error) => {
                    warn!(%error, "etcd does not answer: asking again");
                    attempt += 1;
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
        let before = self.state.revision;
        for revision in revisions {
            self.state.apply(revision);
        }
        if before / SNAPSHOT != self.state.revision / SNAPSHOT
            && let Err(error) = self.write_snapshot().await
        {
            warn!(%error, "no snapshot: a start takes longer");
        }
        Ok(())
    }

    async fn history(&mut self, before: u64, limit: usize) -> Result<Vec<Revision>, StoreError> {
        let range = RangeRequest {
            key: self.revision(0).into(),
            range_end: self.revision(before).into(),
            limit: i64::try_from(limit).unwrap_or(PAGE),
            sort_order: SortOrder::Descend.into(),
        };
        let values = self.get(range).await?;
        values
            .iter()
            .map(|each| serde_json::from_slice(each).map_err(failed))
            .collect()
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
                        return self.note(missed);
                    }
                }
            }
            let Some(watch) = &mut self.watch else {
                continue;
            };
            match watch.message().await {
                Ok(Some(answer)) if !answer.canceled => {
                    let values = answer.events.iter().filter_map(|event| event.kv.as_ref());
                    let revisions =
                        values.filter_map(|each| serde_json::from_slice(&each.value).ok());
                    let revisions = revisions.filter(|each: &Revision| each.number > since);
                    let mut revisions: Vec<Revision> = revisions.collect();
                    revisions.sort_unstable_by_key(|each| each.number);
                    if !revisions.is_empty() {
                        return self.note(revisions);
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

    /// Takes in what another controller has written, as far as it follows on what is known.
    fn note(&mut self, revisions: Vec<Revision>) -> Vec<Revision> {
        for revision in &revisions {
            if revision.number == self.state.revision + 1 {
                self.state.apply(revision);
            }
        }
        revisions
    }
}
