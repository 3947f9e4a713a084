//! Interfaces that were tenants'. Whoever is behind one is still there when its tenant leaves it: as a part of the underlay it would
//! speak to the router as other routers do, and in their names. So nothing passes it until a tenant has it again, or the router lives by
//! it, or an operator says that it is an uplink.

use std::collections::BTreeSet;
use std::time::Instant;

use super::Actor;
use super::links::attachments_of;
use crate::bpf::Classifier;
use crate::condition::{ConditionKind, Severity};
use crate::model::{RuleAction, RuleMatch};

/// By name: one that is made again is the same.
#[derive(Debug, Default)]
pub(super) struct Former {
    /// Tenants' now, or once.
    known: BTreeSet<String>,
    /// What nothing passes.
    pub(super) closed: BTreeSet<String>,
}

impl Former {
    /// A tenant has it, or had it.
    pub(super) fn was_a_tenants(&self, name: &str) -> bool {
        self.known.contains(name)
    }
}

impl Actor {
    /// What an earlier process led into tenants' tables was theirs.
    pub(super) fn find_former_attachments(&mut self) {
        let ours = |name: &str| self.devices.keys().any(|carrier| carrier.name() == name);
        let by_rules =
            self.rules_held
                .iter()
                .filter_map(|rule| match (&rule.matches, rule.action) {
                    (RuleMatch::Interface(name), RuleAction::Table(_)) if !ours(name) => {
                        Some(name.clone())
                    }
                    _ => None,
                });
        let mut known: BTreeSet<String> = by_rules.collect();
        known.extend(crate::nftables::closed());
        for link in self.links.values() {
            if Classifier::was_attachment(&mut self.netlink, link.index) {
                known.insert(link.name.clone());
            }
        }
        self.former.known = known;
    }

    /// One of the links is a tenant's, or was.
    pub(super) fn lead_to_tenants(&self, links: &[u32]) -> bool {
        let links = links.iter().filter_map(|link| self.links.get(link));
        let mut names = links.map(|link| link.name.as_str());
        names.any(|name| self.former.was_a_tenants(name))
    }

    /// Closes what has just been left, and opens what is in use again.
    pub(super) fn close_former_attachments(&mut self) {
        let attached = attachments_of(self);
        let before = self.former.known.len();
        self.former.known.extend(attached.iter().cloned());
        // Until the intent is whole nobody knows what is left.
        if !self.settled || (before == 0 && self.former.closed.is_empty()) {
            return;
        }
        let mut closed = BTreeSet::new();
        self.former.known.retain(|name| {
            let freed = self.unfit.contains_key(name) || self.config.uplinks.contains(name);
            if !freed && !attached.contains(name) {
                closed.insert(name.clone());
            }
            !freed
        });
        if closed == self.former.closed {
            return;
        }
        let now = Instant::now();
        for name in &closed {
            self.conditions.set(
                now,
                (ConditionKind::FormerAttachment, name),
                Severity::Notice,
                "it was a tenant's, and whoever is there still is: nothing passes it until a tenant has it again",
                Some(format!(
                    "where it is the operator's now: `overlay.uplinks: [{name}]`"
                )),
            );
        }
        self.conditions
            .retain(now, ConditionKind::FormerAttachment, |name| {
                closed.contains(name)
            });
        self.former.closed = closed;
        self.policy_changed = true;
    }
}
