//! The records: a key for each, at the revision that the mark says. They are written together with a revision where one transaction holds
//! both; else behind it, some at a time, each time with the mark, so that whoever does it goes on where it stands. A start reads them, and
//! the revisions behind the mark.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use tracing::info;

use super::{Etcd, PIECE, PUTS, again, compare, failed, one};
use crate::etcd::{
    Compare, DeleteRangeRequest, PutRequest, RangeRequest, RequestOp, SortOrder, TxnRequest,
    request_op::Request,
};
use crate::model::{Revision, State, Versioned};
use crate::store::StoreError;

/// Records read at once.
const PAGE: i64 = 500;

/// At which revision the records are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Mark {
    /// All that was changed up to this revision is in them.
    pub(super) revision: u64,
    /// And so many of the changes of the next one; or of the records of an earlier version's snapshot of this one.
    #[serde(default)]
    pub(super) done: usize,
    /// They are being written from an earlier version's snapshot.
    #[serde(default)]
    pub(super) converting: bool,
}

/// Where the snapshot of an earlier version is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Snapshot {
    revision: u64,
    parts: usize,
}

/// Changes of records, each key once.
pub(super) type Records = BTreeMap<String, Option<Versioned>>;

/// What revisions make of records.
pub(super) fn changed(revisions: &[Revision]) -> Records {
    let mut records = Records::new();
    for revision in revisions {
        for change in &revision.changes {
            let record = change.new.clone().map(|record| Versioned {
                record,
                modified: revision.number,
            });
            records.insert(change.key.clone(), record);
        }
    }
    records
}

impl Etcd {
    fn mark_key(&self) -> String {
        format!("{}/records", self.prefix)
    }

    fn record_key(&self, key: &str) -> String {
        format!("{}/record/{key}", self.prefix)
    }

    /// The mark is still this one; `None` where there is none.
    pub(super) fn is_at(&self, mark: Option<Mark>) -> Result<Compare, StoreError> {
        let text = mark.as_ref().map(serde_json::to_string).transpose();
        Ok(compare(self.mark_key(), text.map_err(failed)?))
    }

    /// Moves the mark.
    pub(super) fn move_mark(&self, mark: Mark) -> Result<RequestOp, StoreError> {
        let value = serde_json::to_vec(&mark).map_err(failed)?;
        Ok(super::put(self.mark_key(), value))
    }

    /// Writes a record, or removes it; and its octets.
    pub(super) fn write_record(
        &self,
        key: &str,
        record: Option<&Versioned>,
    ) -> Result<(RequestOp, usize), StoreError> {
        let key: Vec<u8> = self.record_key(key).into();
        let value = record.map(serde_json::to_vec).transpose();
        let value = value.map_err(failed)?;
        let octets = key.len() + value.as_ref().map_or(0, Vec::len);
        let request = match value {
            Some(value) => Request::RequestPut(PutRequest {
                key,
                value,
                lease: 0,
            }),
            None => Request::RequestDeleteRange(DeleteRangeRequest {
                key,
                range_end: Vec::new(),
            }),
        };
        Ok((
            RequestOp {
                request: Some(request),
            },
            octets,
        ))
    }

    /// Where the mark is.
    pub(super) async fn mark(&mut self) -> Result<Option<Mark>, StoreError> {
        let value = self.get(one(self.mark_key())).await?.pop();
        value
            .map(|value| serde_json::from_slice(&value).map_err(failed))
            .transpose()
    }

    /// Writes some of these changes, from one on, and moves the mark; gives how many are done. `None` where somebody else has moved it.
    async fn write_some(
        &mut self,
        changes: &[(&str, Option<&Versioned>)],
        from: Option<Mark>,
        to: impl Fn(usize) -> Mark,
    ) -> Result<Option<usize>, StoreError> {
        let mut done = from.map_or(0, |mark| mark.done);
        let (mut writes, mut octets) = (Vec::new(), 0);
        for (key, record) in changes.iter().skip(done) {
            let (write, size) = self.write_record(key, *record)?;
            octets += size;
            if writes.len() == PUTS || (octets > PIECE && !writes.is_empty()) {
                break;
            }
            writes.push(write);
            done += 1;
        }
        writes.push(self.move_mark(to(done))?);
        let transaction = TxnRequest {
            compare: vec![self.is_at(from)?],
            success: writes,
            failure: Vec::new(),
        };
        let answer = again!(self.kv().txn(transaction.clone()))?;
        // After an attempt without an answer it may be our own mark that is there.
        let moved = answer.succeeded || self.mark().await? == Some(to(done));
        Ok(moved.then_some(done))
    }

    /// Brings the records to a revision; they may be behind it by some that are in the history.
    pub(super) async fn advance(&mut self, until: u64) -> Result<(), StoreError> {
        while let Some(mark) = self.mark().await? {
            if mark.converting || mark.revision >= until {
                break;
            }
            let next = self.revisions(mark.revision + 1).await?;
            for revision in next {
                let records = changed(std::slice::from_ref(&revision));
                let changes = records.iter();
                let changes: Vec<_> = changes
                    .map(|(key, one)| (key.as_str(), one.as_ref()))
                    .collect();
                let mut at = Mark {
                    revision: revision.number - 1,
                    done: mark.done * usize::from(revision.number == mark.revision + 1),
                    converting: false,
                };
                let to = |done: usize| match done < changes.len() {
                    true => Mark {
                        revision: revision.number - 1,
                        done,
                        converting: false,
                    },
                    false => Mark {
                        revision: revision.number,
                        ..Mark::default()
                    },
                };
                while at.revision < revision.number {
                    match self.write_some(&changes, Some(at), to).await? {
                        Some(done) => at = to(done),
                        // Somebody else goes on.
                        None => return Ok(()),
                    }
                }
            }
        }
        Ok(())
    }

    /// All records at the mark, as they are at one moment; `None` where there is no mark.
    async fn read_records(&mut self) -> Result<Option<(Mark, Vec<Versioned>)>, StoreError> {
        let request = one(self.mark_key());
        let answer = again!(self.kv().range(request.clone()))?;
        let Some(value) = answer.kvs.first() else {
            return Ok(None);
        };
        let mark: Mark = serde_json::from_slice(&value.value).map_err(failed)?;
        let mut records = Vec::new();
        let mut range = RangeRequest {
            key: self.record_key("").into(),
            range_end: self.record_key("~").into(),
            limit: PAGE,
            revision: answer.header.map_or(0, |header| header.revision),
            sort_order: SortOrder::Ascend.into(),
        };
        loop {
            let answer = again!(self.kv().range(range.clone()))?;
            let Some(last) = answer.kvs.last() else {
                return Ok(Some((mark, records)));
            };
            range.key = [last.key.as_slice(), &[0]].concat();
            for one in &answer.kvs {
                records.push(serde_json::from_slice(&one.value).map_err(failed)?);
            }
        }
    }

    /// Everything, at the latest revision.
    pub(super) async fn read_all(&mut self) -> Result<State, StoreError> {
        let (mark, records) = loop {
            match self.read_records().await {
                Ok(Some((mark, records))) if !mark.converting => break (mark, records),
                Ok(mark) => self.convert(mark.map(|(mark, _)| mark)).await?,
                // What is read was compacted meanwhile.
                Err(_) => {
                    let again = self.read_records().await?;
                    break again.ok_or_else(|| failed("the records are gone"))?;
                }
            }
        };
        let mut state = State::new(mark.revision, records);
        loop {
            let revisions = self.revisions(state.revision + 1).await?;
            if revisions.is_empty() {
                return Ok(state);
            }
            for revision in &revisions {
                if revision.number != state.revision + 1 {
                    return Err(failed("the history has a gap"));
                }
                state.apply(revision);
            }
        }
    }

    /// Writes records from an earlier version's snapshot, and begins anew with those.
    async fn convert(&mut self, mark: Option<Mark>) -> Result<(), StoreError> {
        let Some((snapshot, records)) = self.read_snapshot().await? else {
            // There is none: this is the beginning of a domain, or of its history.
            let mark = mark.filter(|mark| mark.converting);
            self.write_some(&[], mark, |_| Mark::default()).await?;
            return Ok(());
        };
        info!(
            records = records.len(),
            "the records of the domain get keys of their own"
        );
        let keys: Vec<String> = records.iter().map(|one| one.record.key()).collect();
        let changes = keys.iter().zip(&records);
        let changes: Vec<_> = changes
            .map(|(key, one)| (key.as_str(), Some(one)))
            .collect();
        let to = |done: usize| Mark {
            revision: snapshot.revision,
            done: done % changes.len().max(1),
            converting: done < changes.len(),
        };
        let mut at = mark.filter(|mark| mark.revision == snapshot.revision);
        while at.is_none_or(|mark| mark.converting) {
            match self.write_some(&changes, at, to).await? {
                Some(done) => at = Some(to(done)),
                // Somebody else goes on.
                None => at = self.mark().await?,
            }
        }
        let snapshot = format!("{}/snapshot", self.prefix);
        self.delete(snapshot, format!("{}/snapshot~", self.prefix))
            .await?;
        let parts = format!("{}/parts/", self.prefix);
        self.delete(parts.clone(), format!("{parts}~")).await
    }

    /// What an earlier version wrote beside the history now and then.
    async fn read_snapshot(&mut self) -> Result<Option<(Snapshot, Vec<Versioned>)>, StoreError> {
        let key = format!("{}/snapshot", self.prefix);
        let Some(value) = self.get(one(key)).await?.pop() else {
            return Ok(None);
        };
        let snapshot: Snapshot = serde_json::from_slice(&value).map_err(failed)?;
        let mut records: Vec<Versioned> = Vec::new();
        for number in 0..snapshot.parts {
            let key = format!(
                "{}/parts/{:020}/{number:08}",
                self.prefix, snapshot.revision
            );
            let part = self.get(one(key)).await?.pop();
            let part = part.ok_or_else(|| failed("the snapshot is incomplete"))?;
            let part: Vec<Versioned> = serde_json::from_slice(&part).map_err(failed)?;
            records.extend(part);
        }
        Ok(Some((snapshot, records)))
    }
}
