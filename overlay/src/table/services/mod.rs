//! Services: which routers have a service's label, and which of them this router sends its packets to.

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use ipnet::IpNet;
use rustc_hash::FxHashSet;
use smallvec::SmallVec;

use super::decision::judge;
use super::lists::{Sharing, Way};
use super::{Candidate, Judged, Overlay, Preference, Reason};
use crate::chain::{Selection, Service};
use crate::intent::{GroupId, ServiceState, TenantId};
use crate::label::Endpoint;
use crate::{EndpointId, Vni, VniSet};

/// What is known of one label.
#[derive(Default)]
pub(super) struct ServiceTable {
    /// Whose service it is, and what of it is configured; an edge knows nothing of one that it only stitches.
    config: Option<(TenantId, Service)>,
    /// Its node answers.
    healthy: bool,
    /// Routers that offer it, by the prefix of the route that says so.
    offers: BTreeMap<IpNet, SmallVec<[Candidate; 1]>>,
    list: Option<u32>,
    told: Option<ServiceState>,
}

impl ServiceTable {
    fn candidates(&self) -> impl Iterator<Item = &Candidate> {
        self.offers.values().flatten()
    }

    fn service(&self) -> Option<&Service> {
        self.config.as_ref().map(|(_, service)| service)
    }
}

/// A service as it is now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceStatus {
    /// Its label.
    pub label: Vni,
    /// Whose it is, and how it is configured; `None` where this router only leads others to it.
    pub config: Option<(TenantId, Service)>,
    /// Its node answers; of a node that is attached here.
    pub healthy: bool,
    /// Where its packets go.
    pub state: ServiceState,
    /// All routers that offer it, those in use first.
    pub offers: Vec<Judged>,
}

impl Overlay {
    /// Brings the services of a tenant in line with its configuration.
    pub(super) fn link_services(&mut self, id: TenantId) {
        let wanted: Vec<Service> = self
            .tenants
            .get(&id)
            .map(|tenant| tenant.config.services.clone())
            .unwrap_or_default();
        let mut changed = Vec::new();
        for (label, table) in &mut self.services {
            let its = table.config.as_ref().is_some_and(|(owner, _)| *owner == id);
            if its && !wanted.iter().any(|service| service.label == *label) {
                table.config = None;
                table.healthy = false;
                changed.push(*label);
            }
        }
        for service in wanted {
            let table = self.services.entry(service.label).or_default();
            changed.push(service.label);
            // Another node has to show first that it works.
            let same = table
                .service()
                .is_some_and(|before| before.attachment == service.attachment);
            table.healthy &= same;
            table.config = Some((id, service));
        }
        if changed.is_empty() {
            return;
        }
        self.forget_services();
        for label in changed {
            self.update_service(label);
        }
        self.announce_locator();
    }

    /// Forgets services that nobody configured and no edge stitches any more.
    pub(super) fn forget_services(&mut self) {
        let gone: Vec<Vni> = self
            .services
            .iter()
            .filter(|(label, table)| table.config.is_none() && !self.stitches(**label))
            .map(|(label, _)| *label)
            .collect();
        for label in gone {
            let Some(table) = self.services.remove(&label) else {
                continue;
            };
            self.intent.services.push((label, None));
            if let Some(list) = table.list {
                self.lists.release(list);
            }
            for (prefix, candidates) in &table.offers {
                self.name_senders(candidates, false);
                if let Some(labels) = self.services_of.get_mut(prefix) {
                    labels.retain(|one| *one != label);
                }
            }
        }
    }

    fn stitches(&self, label: Vni) -> bool {
        let membership = self.config.membership.as_ref();
        membership.is_some_and(|membership| membership.stitched.contains(label))
    }

    /// This router keeps a table for the service; made now where it stitches its label.
    pub(super) fn has_service(&mut self, label: Vni) -> bool {
        if self.services.contains_key(&label) {
            return true;
        }
        let stitched = self.stitches(label) && !self.by_vni.contains_key(&label);
        if stitched {
            self.services.insert(label, ServiceTable::default());
        }
        stitched
    }

    /// Which services the routes of a prefix offer.
    pub(super) fn set_offers(&mut self, prefix: IpNet, offers: SmallVec<[(Vni, Candidate); 1]>) {
        let before = self.services_of.remove(&prefix).unwrap_or_default();
        if before.is_empty() && offers.is_empty() {
            return;
        }
        for (_, candidate) in &offers {
            self.name_senders(std::slice::from_ref(candidate), true);
        }
        for label in &before {
            let table = self.services.get_mut(label);
            if let Some(candidates) = table.and_then(|table| table.offers.remove(&prefix)) {
                self.name_senders(&candidates, false);
            }
        }
        let mut labels: SmallVec<[Vni; 2]> = SmallVec::new();
        for (label, candidate) in offers {
            if let Some(table) = self.services.get_mut(&label) {
                table.offers.entry(prefix).or_default().push(candidate);
                labels.push(label);
            }
        }
        labels.sort_unstable();
        labels.dedup();
        let mut changed: SmallVec<[Vni; 2]> = before.into_iter().chain(labels.clone()).collect();
        changed.sort_unstable();
        changed.dedup();
        if !labels.is_empty() {
            self.services_of.insert(prefix, labels);
        }
        for label in changed {
            self.update_service(label);
        }
    }

    /// Endpoint ids resolve anew.
    pub(super) fn resolve_services(&mut self) {
        let mut resolved = Vec::new();
        for (label, table) in &self.services {
            for (prefix, candidates) in &table.offers {
                for (at, candidate) in candidates.iter().enumerate() {
                    let forwarding = self.resolve_again(candidate);
                    if forwarding != candidate.forwarding {
                        resolved.push((*label, *prefix, at, forwarding));
                    }
                }
            }
        }
        for (label, prefix, at, forwarding) in resolved {
            let table = self.services.get_mut(&label);
            let candidate = table.and_then(|table| table.offers.get_mut(&prefix)?.get_mut(at));
            if let Some(candidate) = candidate {
                candidate.forwarding = forwarding;
            }
            self.update_service(label);
        }
    }

    /// The controller says otherwise where labels of these VNIs may lead.
    pub(super) fn judge_offers_anew(&mut self, vnis: &VniSet) {
        let labels = self.services.keys().filter(|label| vnis.contains(**label));
        let labels: Vec<Vni> = labels.copied().collect();
        for label in labels {
            let Some(table) = self.services.get_mut(&label) else {
                continue;
            };
            let mut offers = std::mem::take(&mut table.offers);
            for candidates in offers.values_mut() {
                self.judge_anew(candidates);
            }
            if let Some(table) = self.services.get_mut(&label) {
                table.offers = offers;
            }
            self.update_service(label);
        }
    }

    /// These lists have become usable, or are no longer.
    pub(super) fn services_toggled(&mut self, toggled: &FxHashSet<u32>) {
        let its = |table: &ServiceTable| table.list.is_some_and(|list| toggled.contains(&list));
        let services = self.services.iter().filter(|(_, table)| its(table));
        let labels: Vec<Vni> = services.map(|(label, _)| *label).collect();
        for label in labels {
            self.update_service(label);
        }
    }

    /// An interface leads to a service node.
    pub(super) fn is_arm(&self, name: &str) -> bool {
        self.services_at(name).next().is_some()
    }

    fn services_at<'a>(&'a self, name: &'a str) -> impl Iterator<Item = Vni> + 'a {
        let services = self.services.iter().filter(move |(_, table)| {
            let attachment = table.service().and_then(|one| one.attachment.as_ref());
            attachment.is_some_and(|one| one.arms().any(|arm| arm.interface == name))
        });
        services.map(|(label, _)| *label)
    }

    /// The interface of a service went up or down.
    pub(super) fn arm_changed(&mut self, name: &str) {
        let labels: Vec<Vni> = self.services_at(name).collect();
        if labels.is_empty() {
            return;
        }
        for label in labels {
            self.update_service(label);
        }
        self.announce_locator();
    }

    /// A service node that is attached here answers, or does no longer.
    pub fn set_health(&mut self, label: Vni, healthy: bool) {
        let Some(table) = self.services.get_mut(&label) else {
            return;
        };
        if table.healthy != healthy {
            table.healthy = healthy;
            self.update_service(label);
            self.announce_locator();
        }
    }

    /// Its node is attached here, its links are up, and it answers.
    fn works_here(&self, table: &ServiceTable) -> bool {
        let attachment = table.service().and_then(|one| one.attachment.as_ref());
        table.healthy
            && attachment.is_some_and(|one| one.arms().all(|arm| self.up.contains(&arm.interface)))
    }

    /// Labels of services whose nodes do their work here.
    pub(super) fn offered(&self) -> impl Iterator<Item = Vni> + '_ {
        let services = self.services.iter();
        services
            .filter(|(_, table)| self.works_here(table))
            .map(|(label, _)| *label)
    }

    /// Chooses again, and tells the data plane where that changes something.
    fn update_service(&mut self, label: Vni) {
        let Some(table) = self.services.get(&label) else {
            return;
        };
        let local = self.works_here(table);
        let ways = self.service_ways(table, local);
        let before = table.list;
        // Flows stay where they are by the group: it has to stay too.
        let sticky = ways.iter().any(|way| way.sharing == Sharing::Sticky);
        let kept = before.filter(|list| sticky && self.lists.change(*list, &ways));
        let list = kept.or_else(|| (!ways.is_empty()).then(|| self.lists.acquire(&ways)));
        let remote = list.filter(|list| self.lists.is_usable(*list)).map(GroupId);
        let Some(table) = self.services.get_mut(&label) else {
            return;
        };
        let pinned = table
            .service()
            .is_some_and(|service| service.selection == Selection::Pinned);
        table.list = list;
        let state = ServiceState {
            local,
            prefer_remote: pinned && local && remote.is_some(),
            remote,
        };
        if table.told != Some(state) {
            table.told = Some(state);
            self.intent.services.push((label, Some(state)));
        }
        if let Some(before) = before.filter(|_| kept.is_none()) {
            self.lists.release(before);
        }
    }

    /// What the decision between other routers looks at.
    fn service_ways(&self, table: &ServiceTable, local: bool) -> SmallVec<[Way; 2]> {
        let selection = table
            .service()
            .map(|service| service.selection)
            .unwrap_or_default();
        let own = self.own_labels().map(|own| own.named());
        let mut ways: SmallVec<[Way; 2]> = table
            .candidates()
            .filter(|candidate| candidate.origin.permitted() && !self.is_own(candidate))
            // A service that is met in one place is met here, unless another place goes first.
            .filter(|candidate| {
                selection != Selection::Pinned
                    || !local
                    || own.is_none_or(|own| candidate.label.endpoint < own)
            })
            .filter_map(|candidate| {
                Some(Way {
                    forwarding: candidate.forwarding?,
                    preference: match selection {
                        Selection::Pinned => pinned(candidate.label.endpoint),
                        _ => candidate.preference,
                    },
                    bandwidth: candidate.bandwidth,
                    sharing: match selection {
                        Selection::Share => Sharing::Sticky,
                        Selection::Nearest | Selection::Pinned => Sharing::One,
                    },
                })
            })
            .collect();
        ways.sort_unstable();
        ways.dedup();
        ways
    }

    /// All services, by label.
    pub fn services(&self) -> Vec<ServiceStatus> {
        let services = self.services.iter();
        services
            .map(|(label, table)| ServiceStatus {
                label: *label,
                config: table.config.clone(),
                healthy: table.healthy,
                state: table.told.unwrap_or_default(),
                offers: self.judged_offers(table),
            })
            .collect()
    }

    fn judged_offers(&self, table: &ServiceTable) -> Vec<Judged> {
        let selection = table
            .service()
            .map(|service| service.selection)
            .unwrap_or_default();
        let candidates: Vec<Candidate> = table.candidates().cloned().collect();
        let mut ranked = candidates.clone();
        if selection == Selection::Pinned {
            for candidate in &mut ranked {
                candidate.preference = pinned(candidate.label.endpoint);
            }
        }
        let mut lost = judge(&ranked, &|candidate| self.metric(candidate, false));
        if selection != Selection::Share {
            let used = (0..lost.len()).filter(|at| lost[*at].is_none());
            let mut used: Vec<usize> = used.collect();
            used.sort_by_key(|at| candidates[*at].forwarding);
            for at in used.into_iter().skip(1) {
                lost[at] = Some(Reason::NotTheOne);
            }
        }
        let judged = candidates.into_iter().zip(lost);
        let mut judged: Vec<Judged> = judged
            .map(|(candidate, lost)| Judged { candidate, lost })
            .collect();
        judged.sort_by_key(|judged| (judged.lost.is_some(), judged.candidate.label.endpoint));
        judged
    }
}

/// The lowest endpoint goes before all others, whichever way it is reached.
fn pinned(endpoint: Endpoint) -> Preference {
    let (Endpoint::V4(address) | Endpoint::Id(EndpointId(address))) = endpoint;
    let rank = u32::from(address);
    Preference {
        local_pref: u32::MAX - rank,
        med: 0,
        neighbor_as: 0,
        as_path_length: 0,
        origin: 0,
        ebgp: false,
    }
}
