//! What the controller's word on where labels may lead makes of the tables.

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;

use ipnet::IpNet;
use serde::Serialize;

use super::locators::locator_in;
use super::{Candidate, Overlay, PathInput};
use crate::label::{Endpoint, Label};
use crate::origins::{Changed, Origin, Origins};

/// Labels of one neighbour's routes that are not used, since the controller does not say that they may lead where they do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct RefusedLabels {
    /// It says that they may not.
    pub invalid: u64,
    /// It says nothing.
    pub unknown: u64,
}

impl Overlay {
    /// The controller's word; `None` where there is no controller that says it.
    pub fn origins(&self) -> Option<&Arc<Origins>> {
        self.origins.as_ref()
    }

    /// Takes another word. What it changes of labels is changed here; routes with locators that it concerns are to be handed in again.
    pub fn set_origins(&mut self, origins: Option<Arc<Origins>>) -> Changed {
        let changed = Origins::changed(self.origins.as_deref(), origins.as_deref());
        self.origins = origins;
        if changed.vnis.is_empty() {
            return changed;
        }
        let concerned = |overlay: &Self, candidate: &Candidate| {
            changed.vnis.contains(candidate.label.vni)
                && overlay.judged_anew(candidate) != candidate.origin
        };
        let prefixes = self.prefixes.iter();
        let mut affected: Vec<IpNet> = prefixes
            .filter(|(_, slots)| {
                let mut candidates = slots.iter().flat_map(|slot| &slot.candidates);
                candidates.any(|one| concerned(self, one))
            })
            .map(|(prefix, _)| *prefix)
            .collect();
        affected.sort_unstable();
        for prefix in affected {
            let Some(mut slots) = self.prefixes.remove(&prefix) else {
                continue;
            };
            for slot in &mut slots {
                self.judge_anew(&mut slot.candidates);
            }
            self.prefixes.insert(prefix, slots);
            self.decide(prefix);
        }
        self.judge_offers_anew(&changed.vnis);
        changed
    }

    /// Whether a label may lead to `via`.
    pub(super) fn judge_origin(&self, label: &Label, via: Endpoint, ebgp: bool) -> Origin {
        let origins = self.origins.as_ref();
        origins.map_or(Origin::Unchecked, |one| one.judge(label, via, ebgp))
    }

    fn judged_anew(&self, candidate: &Candidate) -> Origin {
        self.judge_origin(&candidate.label, candidate.via, candidate.preference.ebgp)
    }

    /// Judges candidates again, which are in no table meanwhile.
    pub(super) fn judge_anew(&mut self, candidates: &mut [Candidate]) {
        for candidate in candidates {
            let origin = self.judged_anew(candidate);
            if origin != candidate.origin {
                self.name_senders(std::slice::from_ref(candidate), false);
                candidate.origin = origin;
                self.name_senders(std::slice::from_ref(candidate), true);
            }
        }
    }

    pub(super) fn count_refused(&mut self, candidate: &Candidate, named: bool) {
        let its = self.refused.entry(candidate.source).or_default();
        let count = match candidate.origin {
            Origin::Invalid => &mut its.invalid,
            _ => &mut its.unknown,
        };
        *count = match named {
            true => *count + 1,
            false => count.saturating_sub(1),
        };
        if *its == RefusedLabels::default() {
            self.refused.remove(&candidate.source);
        }
    }

    /// Labels that are not used, by the neighbour whose routes carry them.
    pub fn refused_labels(&self) -> &BTreeMap<u16, RefusedLabels> {
        &self.refused
    }

    /// The locator of a path to a prefix, where it has one, is its router's own.
    pub(super) fn permits_locator(&self, prefix: IpNet, path: &PathInput<'_>) -> bool {
        let membership = self.config.membership.as_ref();
        let (Some(origins), Some(membership)) = (&self.origins, membership) else {
            return true;
        };
        let locator = locator_in(path, membership.administrator);
        locator.is_none_or(|one| origins.permits_locator(one.id, prefix.addr()))
    }
}
