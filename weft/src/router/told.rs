//! What others tell this router to be, and how that went, for the API: who tells of a neighbour, what is stale, what is refused.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use tokio::sync::watch;
use weft_api::types::Alarm;
use weft_dataplane::{Condition, ConditionKind, Severity};

use crate::config::parts::Refused;

/// Who tells of a neighbour.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Teller {
    /// For people.
    pub(super) source: String,
    /// Why what it said last stands, where it does not say it any more.
    pub(super) stale: Option<String>,
}

/// What others told, as it is in force.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Told {
    /// Who tells of a neighbour, by its address.
    pub(super) neighbors: HashMap<IpAddr, Teller>,
    /// What is to be known of a chain, by its tenant and name.
    pub(super) notes: HashMap<(String, String), String>,
    /// Why the sessions with neighbours are not signed that would be, by address.
    pub(super) unsigned: HashMap<IpAddr, String>,
    /// What an operator should look at.
    pub(super) alarms: Vec<Alarm>,
    /// What of the controller's word is left out, by its item: the reasons, and since when.
    pub(super) left_out: BTreeMap<String, LeftOut>,
}

/// A part that the controller tells of and that is left out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct LeftOut {
    reasons: String,
    since: Instant,
}

impl Told {
    /// The parts that are left out now, `since` when where that was so before.
    pub(super) fn left_out(&self, refused: &[Refused], now: Instant) -> BTreeMap<String, LeftOut> {
        let mut left_out: BTreeMap<String, LeftOut> = BTreeMap::new();
        for part in refused {
            match left_out.get_mut(&part.item) {
                Some(known) => {
                    known.reasons.push_str("; ");
                    known.reasons.push_str(&part.reason);
                }
                None => {
                    let reasons = part.reason.clone();
                    let before = self.left_out.get(&part.item);
                    let since = before.map_or(now, |before| before.since);
                    left_out.insert(part.item.clone(), LeftOut { reasons, since });
                }
            }
        }
        left_out
    }

    /// The same as conditions: packets of what is left out go nowhere.
    pub(super) fn conditions(&self) -> impl Iterator<Item = Condition> {
        self.left_out.iter().map(|(item, part)| Condition {
            kind: ConditionKind::ItemRefused,
            subject: item.clone(),
            tenants: Vec::new(),
            severity: Severity::Degraded,
            detail: part.reasons.clone(),
            remedy: Some("correct it at the controller, or what this router has".into()),
            lasts: part.since.elapsed(),
            count: 1,
        })
    }
}

/// Takes what is in force.
pub(super) type Publisher = watch::Sender<Arc<Told>>;
/// Has the latest.
pub(super) type Reader = watch::Receiver<Arc<Told>>;

/// Nothing has been told yet.
pub(super) fn channel() -> (Publisher, Reader) {
    watch::channel(Arc::default())
}

/// A record of a source that cannot be: anybody on the link may have said it.
pub(super) fn refused(item: &str, reason: &str) -> Alarm {
    Alarm {
        code: "record-refused".into(),
        text: format!("{item}: {reason}"),
    }
}

/// Somebody who says nothing.
pub(super) fn silent(source: &str, reason: &str) -> Alarm {
    Alarm {
        code: "source-silent".into(),
        text: format!("{source}: {reason}; what it said last stands"),
    }
}

/// The state folder takes nothing more.
pub(super) fn unkept(reason: &str) -> Alarm {
    Alarm {
        code: "state-not-kept".into(),
        text: format!(
            "what the controller says is held in memory alone, and a start without it would go back: {reason}; make room, or the folder writable"
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_out_stays_so_since_it_was_first() {
        let part = |item: &str, reason: &str| Refused {
            item: item.into(),
            reason: reason.into(),
        };
        let start = Instant::now();
        let mut told = Told::default();
        let later = start + std::time::Duration::from_secs(9);
        told.left_out = told.left_out(&[part("tenant/red", "no such interface")], start);
        let more = [
            part("tenant/red", "no such interface"),
            part("tenant/red", "a prefix twice"),
            part("neighbor/r2", "it is this router"),
        ];
        told.left_out = told.left_out(&more, later);
        let since: Vec<_> = told.left_out.values().map(|part| part.since).collect();
        assert_eq!(since, [later, start]);
        let conditions: Vec<Condition> = told.conditions().collect();
        assert_eq!(conditions[1].subject, "tenant/red");
        assert_eq!(conditions[1].detail, "no such interface; a prefix twice");
        assert!(told.left_out(&[], later).is_empty());
    }
}
