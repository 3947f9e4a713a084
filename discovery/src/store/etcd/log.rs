//! The history: a key for each revision. A large one is written beside, in pieces, before the transaction that refers to them: so the
//! transaction is small, whatever a revision changes.

use serde::{Deserialize, Serialize};
use tracing::warn;

use super::{Etcd, PIECE, PUTS, again, failed, one};
use crate::etcd::{DeleteRangeRequest, RangeRequest, SortOrder};
use crate::model::{Revision, is_internal, now};
use crate::pki::random;
use crate::store::{History, PAGE_OCTETS, StoreError};

/// Octets of a revision that is in its key itself.
const INLINE: usize = 16 << 10;
/// Revisions read at once.
const PAGE: usize = 64;
/// Old revisions are looked at after so many new ones, and so many at once.
const LOOK: u64 = 16;

/// The value of a revision's key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Entry {
    /// Octets of all revisions up to this one that were ever written.
    octets: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    revision: Option<Revision>,
    /// Where it is in pieces: how they are called, and how many they are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pieces: Option<(String, usize)>,
}

impl Entry {
    /// Reads one; `None` where it is none. Earlier versions wrote the revision alone.
    pub(super) fn read(value: &[u8]) -> Option<Self> {
        serde_json::from_slice(value).ok().or_else(|| {
            Some(Self {
                octets: 0,
                revision: Some(serde_json::from_slice(value).ok()?),
                pieces: None,
            })
        })
    }

    /// The revision, where it is not in pieces.
    pub(super) fn into_revision(self) -> Option<Revision> {
        self.revision
    }
}

impl Etcd {
    pub(super) fn revision(&self, number: u64) -> String {
        format!("{}/history/{number:020}", self.prefix)
    }

    fn pieces(&self, id: &str) -> String {
        format!("{}/pieces/{id}/", self.prefix)
    }

    /// The value of a revision's key; `before` is how many octets came before.
    pub(super) async fn entry(
        &mut self,
        revision: &Revision,
        before: u64,
    ) -> Result<(Vec<u8>, u64), StoreError> {
        let value = serde_json::to_vec(revision).map_err(failed)?;
        let octets = before + value.len() as u64;
        let mut entry = Entry {
            octets,
            revision: None,
            pieces: None,
        };
        if value.len() <= INLINE {
            entry.revision = Some(revision.clone());
        } else {
            let id = random(12);
            let pieces = value.chunks(PIECE);
            entry.pieces = Some((id.clone(), pieces.len()));
            for (number, piece) in pieces.enumerate() {
                let key = format!("{}{number:08}", self.pieces(&id));
                self.put(key, piece.to_vec(), 0).await?;
            }
        }
        Ok((serde_json::to_vec(&entry).map_err(failed)?, octets))
    }

    /// The octets of all revisions up to one.
    pub(super) async fn octets(&mut self, number: u64) -> Result<u64, StoreError> {
        let value = self.get(one(self.revision(number))).await?.pop();
        let entry = value.and_then(|value| Entry::read(&value));
        Ok(entry.map_or(0, |entry| entry.octets))
    }

    /// Removes the pieces of entries that are not written after all.
    pub(super) async fn discard(&mut self, entries: &[Vec<u8>]) {
        let entries = entries.iter().filter_map(|value| Entry::read(value));
        for (id, _) in entries.filter_map(|entry| entry.pieces) {
            let key = self.pieces(&id);
            if let Err(error) = self.delete(key.clone(), format!("{key}~")).await {
                warn!(%error, "pieces of a revision that was not written stay");
            }
        }
    }

    async fn whole(&mut self, entry: Entry) -> Result<Revision, StoreError> {
        if let Some(revision) = entry.revision {
            return Ok(revision);
        }
        let (id, count) = entry.pieces.ok_or_else(|| failed("an empty revision"))?;
        let mut value = Vec::new();
        for number in 0..count {
            let key = format!("{}{number:08}", self.pieces(&id));
            let piece = self.get(one(key)).await?.pop();
            value.extend(piece.ok_or_else(|| failed("a revision is incomplete"))?);
        }
        serde_json::from_slice(&value).map_err(failed)
    }

    /// Revisions from one on, in order, some at a time.
    pub(super) async fn revisions(&mut self, from: u64) -> Result<Vec<Revision>, StoreError> {
        let range = RangeRequest {
            key: self.revision(from).into(),
            range_end: self.revision(u64::MAX).into(),
            limit: PAGE as i64,
            sort_order: SortOrder::Ascend.into(),
            ..RangeRequest::default()
        };
        let mut revisions = Vec::new();
        for value in self.get(range).await? {
            let entry = Entry::read(&value).ok_or_else(|| failed("what is no revision"))?;
            revisions.push(self.whole(entry).await?);
        }
        Ok(revisions)
    }

    /// Revisions of a range without what is internal: at most `limit`, and [`PAGE_OCTETS`].
    pub(super) async fn page(
        &mut self,
        mut range: RangeRequest,
        limit: usize,
    ) -> Result<Vec<Revision>, StoreError> {
        let (mut page, mut octets) = (Vec::new(), 0);
        while page.len() < limit {
            range.limit = PAGE.min(limit - page.len()) as i64;
            let values = self.get(range.clone()).await?;
            if values.is_empty() {
                break;
            }
            for value in values {
                let entry = Entry::read(&value).ok_or_else(|| failed("what is no revision"))?;
                let mut revision = self.whole(entry).await?;
                revision.changes.retain(|change| !is_internal(&change.key));
                octets += serde_json::to_vec(&revision).map_err(failed)?.len();
                if octets > PAGE_OCTETS && !page.is_empty() {
                    return Ok(page);
                }
                match range.sort_order() {
                    SortOrder::Descend => range.range_end = self.revision(revision.number).into(),
                    _ => range.key = self.revision(revision.number + 1).into(),
                }
                page.push(revision);
            }
        }
        Ok(page)
    }

    /// Forgets the first revisions where they are too many, too large or too old; `at` is the latest one, which the records are at too.
    pub(super) async fn forget(
        &mut self,
        before: u64,
        at: u64,
        total: u64,
    ) -> Result<(), StoreError> {
        if before / LOOK == at / LOOK {
            return Ok(());
        }
        let range = RangeRequest {
            key: self.revision(0).into(),
            range_end: self.revision(at).into(),
            limit: PUTS as i64,
            sort_order: SortOrder::Ascend.into(),
            ..RangeRequest::default()
        };
        let mut until = None;
        for value in self.get(range).await? {
            let Some(entry) = Entry::read(&value) else {
                continue;
            };
            let pieces = entry.pieces.clone();
            let octets = total.saturating_sub(entry.octets);
            let revision = self.whole(entry).await?;
            let history = History {
                number: revision.number,
                at: revision.at,
                octets,
            };
            if !history.is_over(at, now()) {
                break;
            }
            if let Some((id, _)) = pieces {
                let key = self.pieces(&id);
                self.delete(key.clone(), format!("{key}~")).await?;
            }
            until = Some(revision.number + 1);
        }
        match until {
            Some(until) => self.delete(self.revision(0), self.revision(until)).await,
            None => Ok(()),
        }
    }

    pub(super) async fn delete(&mut self, from: String, until: String) -> Result<(), StoreError> {
        let range = DeleteRangeRequest {
            key: from.into(),
            range_end: until.into(),
        };
        again!(self.kv().delete_range(range.clone())).map(drop)
    }
}
