//! Interfaces that were tenants'. Whoever is behind one is still there when its tenant leaves it: as a part of the underlay it would
//! speak to the router as other routers do, and in their names. So nothing passes it until a tenant has it again, or the router lives by
//! it, or an operator says that it is an uplink.

use std::collections::BTreeSet;
use std::time::Instant;

use super::links::attachments_of;
use super::{Actor, Purpose};
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
    /// As conditions say.
    told: BTreeSet<String>,
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
        // Closed until the intent says who has them.
        self.former.closed = crate::nftables::closed();
        known.extend(self.former.closed.iter().cloned());
        for link in self.links.values() {
            if Classifier::was_attachment(&mut self.netlink, link.index) {
                known.insert(link.name.clone());
            }
        }
        for name in &self.config.uplinks {
            known.remove(name);
            self.former.closed.remove(name);
        }
        let freed = self.links.values();
        for link in freed.filter(|link| self.config.uplinks.contains(&link.name)) {
            if Classifier::was_attachment(&mut self.netlink, link.index)
                && let Err(error) = Classifier::detach(&mut self.netlink, link.index)
            {
                tracing::warn!(link = link.name, %error, "cannot open an uplink that was an attachment");
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
        let breakouts = self.tenants.values();
        let breakouts = breakouts.filter_map(|tenant| tenant.intent.breakout.as_ref());
        let outside: BTreeSet<&str> = breakouts.map(|one| one.interface.as_str()).collect();
        let is_freed = |name: &str| {
            self.unfit.contains_key(name)
                || self.config.uplinks.contains(name)
                || outside.contains(name)
        };
        let freed: Vec<String> = self
            .former
            .known
            .iter()
            .filter(|name| is_freed(name))
            .cloned()
            .collect();
        for name in &freed {
            self.former.known.remove(name);
        }
        if !freed.is_empty() {
            // Far ends that are reached there could not be before.
            let endpoints = self.tracked.keys();
            let endpoints = endpoints.filter(|(purpose, _)| *purpose == Purpose::Endpoint);
            self.outdated.extend(endpoints.copied());
        }
        let closed: BTreeSet<String> = match self.settled {
            true => self.former.known.difference(&attached).cloned().collect(),
            // Until the intent is whole nobody knows what is left; what was closed before stays so.
            false => {
                let known = &self.former.known;
                let closed = self.former.closed.iter();
                closed
                    .filter(|name| known.contains(*name) && !attached.contains(*name))
                    .cloned()
                    .collect()
            }
        };
        if before == 0 && closed.is_empty() && self.former.closed.is_empty() {
            return;
        }
        if closed == self.former.told && closed == self.former.closed {
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
                    "where it is the operator's now: `overlay.uplinks: [{name}]`, and a restart"
                )),
            );
        }
        self.conditions
            .retain(now, ConditionKind::FormerAttachment, |name| {
                closed.contains(name)
            });
        self.former.told = closed.clone();
        self.former.closed = closed;
        self.policy_changed = true;
    }
}
