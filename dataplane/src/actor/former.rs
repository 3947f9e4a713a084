//! Interfaces that were tenants', or may become so. Whoever is behind one is there before a tenant has it, and still when its tenant leaves it:
//! as a part of the underlay it would speak to the router as other routers do, and in their names. So nothing passes it until a tenant has
//! it, or the router lives by it, or an operator says that it is an uplink.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::{Instant, SystemTime};

use super::links::attachments_of;
use super::{Actor, Purpose};
use crate::bpf::{Classifier, Found};
use crate::condition::{ConditionKind, Severity};
use crate::nftables;
use crate::snapshot::Link;

/// Days that one is remembered which is not there.
const KEPT: u64 = 90;
/// Interfaces that are remembered at most; of those that are not there the ones that have been away longest go first.
const MOST: usize = 16_384;

/// The day, since 1970.
fn today() -> u64 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    now.map_or(0, |now| now.as_secs() / (24 * 3600))
}

/// By name: one that is made again is the same.
#[derive(Debug, Default)]
pub(super) struct Former {
    /// Tenants' now, or once, with the last day on which they were there.
    known: BTreeMap<String, u64>,
    /// An earlier process had them attached: until the intent is whole nobody knows whether they are left.
    before: BTreeSet<String>,
    /// What nothing passes.
    closed: BTreeSet<String>,
    /// Conditions say so.
    told: bool,
}

impl Former {
    /// A tenant has it, or had it.
    pub(super) fn was_a_tenants(&self, name: &str) -> bool {
        self.known.contains_key(name)
    }

    /// What nothing passes.
    pub(super) fn closed(&self) -> &BTreeSet<String> {
        &self.closed
    }

    /// Something is closed that no table `stands` for.
    pub(super) fn closes_anew(&self, stands: bool) -> bool {
        !stands && !self.closed.is_empty()
    }

    /// What has another name than before is what it was: whoever is there has not changed.
    pub(super) fn rename(&mut self, before: &HashMap<u32, Link>, now: &HashMap<u32, Link>) {
        if self.known.is_empty() && self.closed.is_empty() {
            return;
        }
        for (index, link) in now {
            let renamed = before.get(index).filter(|old| old.name != link.name);
            let held =
                |old: &&Link| self.known.contains_key(&old.name) || self.closed.contains(&old.name);
            if renamed.filter(held).is_some() {
                self.known.entry(link.name.clone()).or_insert_with(today);
            }
        }
    }

    /// These are attached, and those are there; forgets what has not been there for long.
    fn note(&mut self, today: u64, attached: &BTreeSet<String>, there: &BTreeSet<&str>) {
        for name in attached {
            match self.known.get_mut(name) {
                Some(last) => *last = today.max(*last),
                None => drop(self.known.insert(name.clone(), today)),
            }
        }
        self.known.retain(|name, last| {
            if there.contains(name.as_str()) {
                *last = today.max(*last);
            }
            today.saturating_sub(*last) <= KEPT || attached.contains(name)
        });
        let mut away: Vec<(u64, String)> = Vec::new();
        if self.known.len() > MOST {
            let known = self.known.iter();
            let known = known
                .filter(|(name, _)| !there.contains(name.as_str()) && !attached.contains(*name));
            away.extend(known.map(|(name, last)| (*last, name.clone())));
            away.sort_unstable();
        }
        let many = self.known.len().saturating_sub(MOST);
        for (_, name) in away.into_iter().take(many) {
            self.known.remove(&name);
        }
    }
}

impl Actor {
    /// Those of the record, and those that an earlier process left in the kernel.
    pub(super) fn find_former_attachments(&mut self) {
        let today = today();
        let mut known = self.config.former.clone();
        let mut before = nftables::interfaces("inside");
        let mut names = nftables::interfaces("closed");
        names.extend(nftables::interfaces("marked"));
        for link in self.links.values() {
            match Classifier::found(&mut self.netlink, link.index) {
                Some(Found::Attachment) => drop(before.insert(link.name.clone())),
                Some(Found::Closed) => drop(names.insert(link.name.clone())),
                None => {}
            }
        }
        for name in names.iter().chain(&before) {
            known.entry(name.clone()).or_insert(today);
        }
        self.former = Former {
            known,
            before,
            ..Former::default()
        };
    }

    /// One of the links is a tenant's, or was.
    pub(super) fn lead_to_tenants(&self, links: &[u32]) -> bool {
        let links = links.iter().filter_map(|link| self.links.get(link));
        let mut names = links.map(|link| link.name.as_str());
        names.any(|name| self.former.was_a_tenants(name))
    }

    /// Closes what has just been left, and what no tenant has yet; opens what is in use.
    pub(super) fn close_former_attachments(&mut self) {
        let attached = attachments_of(self);
        if self.former.known.is_empty() && attached.is_empty() && self.config.granted.is_empty() {
            return;
        }
        let there = self.links.values().map(|link| link.name.as_str());
        let there: BTreeSet<&str> = there.collect();
        self.former.note(today(), &attached, &there);
        let breakouts = self.tenants.values();
        let breakouts = breakouts.filter_map(|tenant| tenant.intent.breakout.as_ref());
        let outside: BTreeSet<&str> = breakouts.map(|one| one.interface.as_str()).collect();
        let is_freed = |name: &str| {
            self.unfit.contains_key(name)
                || self.config.uplinks.contains(name)
                || outside.contains(name)
        };
        let before = self.former.known.len();
        self.former.known.retain(|name, _| !is_freed(name));
        if self.former.known.len() < before {
            // Far ends that are reached there could not be before.
            let endpoints = self.tracked.keys();
            let endpoints = endpoints.filter(|(purpose, _)| *purpose == Purpose::Endpoint);
            self.outdated.extend(endpoints.copied());
        }
        let known = self.former.known.keys();
        let granted = self.config.granted.iter().filter(|name| !is_freed(name));
        let held_back = known.chain(granted).filter(|name| {
            let early = !self.settled && self.former.before.contains(*name);
            !attached.contains(*name) && !early
        });
        let closed: BTreeSet<String> = held_back.cloned().collect();
        self.said.record.send_if_modified(|held| {
            let differs = *held != self.former.known;
            if differs {
                held.clone_from(&self.former.known);
            }
            differs
        });
        if self.former.told && closed == self.former.closed {
            return;
        }
        self.tell_closed(&closed);
        self.former.told = true;
        self.former.closed = closed;
        self.policy_changed = true;
    }

    fn tell_closed(&mut self, closed: &BTreeSet<String>) {
        let now = Instant::now();
        let was = |name: &str| self.former.was_a_tenants(name);
        for name in closed {
            let (kind, detail) = match was(name) {
                true => (
                    ConditionKind::FormerAttachment,
                    "it was a tenant's, and whoever is there still is: nothing passes it until a tenant has it again",
                ),
                false => (
                    ConditionKind::GrantedInterface,
                    "it is granted to a tenant, which has not attached it: nothing passes it until then",
                ),
            };
            self.conditions.set(
                now,
                (kind, name),
                Severity::Notice,
                detail,
                Some(format!(
                    "where it is the operator's: `overlay.uplinks: [{name}]`"
                )),
            );
        }
        for (kind, former) in [
            (ConditionKind::FormerAttachment, true),
            (ConditionKind::GrantedInterface, false),
        ] {
            self.conditions.retain(now, kind, |name| {
                closed.contains(name) && was(name) == former
            });
        }
    }

    /// The operator says which interfaces are his own, and which ones tenants may attach.
    pub(super) fn set_interfaces(&mut self, uplinks: BTreeSet<String>, granted: BTreeSet<String>) {
        if (&uplinks, &granted) != (&self.config.uplinks, &self.config.granted) {
            (self.config.uplinks, self.config.granted) = (uplinks, granted);
            self.attach();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_long_gone_is_forgotten_and_what_is_there_never() {
        let set = |names: &[&str]| -> BTreeSet<String> {
            names.iter().map(|name| (*name).to_owned()).collect()
        };
        let mut former = Former::default();
        former.note(100, &set(&["a", "b", "c"]), &BTreeSet::new());
        former.note(100 + KEPT, &set(&["a"]), &["b"].into());
        assert_eq!(former.known.len(), 3);
        former.note(101 + KEPT, &set(&["a"]), &BTreeSet::new());
        let left: Vec<&str> = former.known.keys().map(String::as_str).collect();
        assert_eq!(left, ["a", "b"]);
        // A clock that went back forgets nothing.
        former.note(3, &set(&["a"]), &BTreeSet::new());
        assert!(former.was_a_tenants("b"));
    }

    #[test]
    fn so_many_are_remembered_and_those_that_are_there_first() {
        let names: BTreeSet<String> = (0..MOST + 5).map(|one| format!("i{one:06}")).collect();
        let mut former = Former::default();
        former.note(5, &names, &BTreeSet::new());
        assert_eq!(former.known.len(), MOST + 5, "all are attached");
        former.note(6, &BTreeSet::new(), &["i000000"].into());
        assert_eq!(former.known.len(), MOST);
        assert!(former.was_a_tenants("i000000") && !former.was_a_tenants("i000001"));
    }
}
