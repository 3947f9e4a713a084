//! The (VNI, prefix) tables: routes and configuration in, forwarding intent and originations out.
//!
//! [`Overlay`] looks at every valid path of a prefix, not at the best one only: each label of each path is a candidate
//! in the table of its VNI, so that two tenants with one prefix never hide each other. After any input, drain
//! [`Overlay::poll_intent`], [`Overlay::poll_originations`] and [`Overlay::poll_tracking`].

mod decision;
mod overlap;
mod query;
#[cfg(test)]
mod tests;
mod types;

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use rustc_hash::{FxBuildHasher, FxHashMap};
use smallvec::SmallVec;

use crate::export::OwnLabels;
use crate::intent::{
    ForwardingNextHop, IntentDelta, NextHopSet, TenantId, TenantIntent, TenantRoute, UnderlayRoute,
};
use crate::label::{Endpoint, Ignored, Label, LabelCommunity, LabelKind, LocalNextHop, Locator};
use crate::{Encapsulation, EndpointId, Vni, VniSet};

use decision::judge;
pub use overlap::Overlap;
use overlap::Overlaps;
pub use types::*;

struct Tenant {
    config: TenantConfig,
    stitched: bool,
    up: BTreeSet<String>,
    redistributed: BTreeSet<IpNet>,
    announced: BTreeSet<IpNet>,
    routes: usize,
}

impl Tenant {
    fn intent(&self) -> TenantIntent {
        let mut vnis = self.config.vnis.clone();
        vnis.push(self.config.primary_vni);
        vnis.sort_unstable();
        vnis.dedup();
        let mut attachments = self.config.attachments.clone();
        attachments.sort_unstable();
        TenantIntent {
            name: self.config.name.clone(),
            primary_vni: self.config.primary_vni,
            vnis,
            attachments,
        }
    }

    /// The prefixes to announce: configured ones while somebody is there to receive their packets.
    fn wanted(&self) -> BTreeSet<IpNet> {
        let mut prefixes = self.redistributed.clone();
        if self.config.attachments.is_empty() || !self.up.is_empty() {
            prefixes.extend(self.config.prefixes.iter().map(IpNet::trunc));
        }
        prefixes
    }
}

/// The candidates of one prefix in one tenant.
struct Slot {
    tenant: TenantId,
    candidates: SmallVec<[Candidate; 1]>,
    installed: Option<Arc<NextHopSet>>,
}

struct Reach {
    users: u32,
    metric: Option<u32>,
}

/// The overlay of one router.
pub struct Overlay {
    config: OverlayConfig,
    tenants: BTreeMap<TenantId, Tenant>,
    by_vni: FxHashMap<Vni, TenantId>,
    next_tenant: u32,
    prefixes: FxHashMap<IpNet, SmallVec<[Slot; 1]>>,
    sets: HashSet<Arc<NextHopSet>, FxBuildHasher>,
    sets_limit: usize,
    reach: FxHashMap<IpAddr, Reach>,
    locators: FxHashMap<EndpointId, BTreeSet<IpAddr>>,
    locator_of: FxHashMap<IpNet, EndpointId>,
    underlay: FxHashMap<IpNet, IpAddr>,
    /// The tenants of an interface.
    by_attachment: FxHashMap<String, SmallVec<[TenantId; 1]>>,
    intent: IntentDelta,
    originations: Vec<OriginationChange>,
    track: Vec<IpAddr>,
    untrack: Vec<IpAddr>,
    counters: Counters,
    overlaps: Overlaps,
}

impl Overlay {
    /// One without tenants and routes.
    pub fn new(config: OverlayConfig) -> Self {
        let mut overlay = Self {
            config,
            tenants: BTreeMap::new(),
            by_vni: FxHashMap::default(),
            next_tenant: 0,
            prefixes: FxHashMap::default(),
            sets: HashSet::default(),
            sets_limit: 1024,
            reach: FxHashMap::default(),
            locators: FxHashMap::default(),
            locator_of: FxHashMap::default(),
            underlay: FxHashMap::default(),
            by_attachment: FxHashMap::default(),
            intent: IntentDelta::default(),
            originations: Vec::new(),
            track: Vec::new(),
            untrack: Vec::new(),
            counters: Counters::default(),
            overlaps: Overlaps::default(),
        };
        overlay.announce_locator();
        overlay
    }

    /// This router's labels, where it is part of an overlay.
    pub fn own_labels(&self) -> Option<OwnLabels> {
        let membership = self.config.membership.as_ref()?;
        Some(OwnLabels {
            administrator: membership.administrator,
            endpoint: membership.endpoint,
            id: membership.id,
            encapsulation: membership.encapsulation,
        })
    }

    /// Adds a tenant. Names and VNIs are unique: the configuration sees to it. Comes before routes of its VNIs.
    pub fn add_tenant(&mut self, config: TenantConfig) -> TenantId {
        self.insert_tenant(config, false)
    }

    fn insert_tenant(&mut self, config: TenantConfig, stitched: bool) -> TenantId {
        let id = TenantId(self.next_tenant);
        self.next_tenant += 1;
        for vni in config.vnis.iter().chain([&config.primary_vni]) {
            self.by_vni.insert(*vni, id);
        }
        for attachment in &config.attachments {
            let tenants = self.by_attachment.entry(attachment.clone());
            tenants.or_default().push(id);
        }
        let tenant = Tenant {
            config,
            stitched,
            up: BTreeSet::new(),
            redistributed: BTreeSet::new(),
            announced: BTreeSet::new(),
            routes: 0,
        };
        self.intent.tenants.push((id, Some(tenant.intent())));
        self.tenants.insert(id, tenant);
        self.announce(id);
        id
    }

    /// An interface went up or down.
    pub fn set_attachment(&mut self, name: &str, up: bool) {
        let tenants = self.by_attachment.get(name).cloned().unwrap_or_default();
        for id in tenants {
            let Some(tenant) = self.tenants.get_mut(&id) else {
                continue;
            };
            let changed = if up {
                tenant.up.insert(name.to_owned())
            } else {
                tenant.up.remove(name)
            };
            if changed {
                self.announce(id);
            }
        }
    }

    /// The kernel has, or no longer has, a route of the tenant that is to be announced.
    pub fn set_redistributed(&mut self, id: TenantId, prefix: IpNet, present: bool) {
        if let Some(tenant) = self.tenants.get_mut(&id) {
            let prefix = prefix.trunc();
            let changed = if present {
                tenant.redistributed.insert(prefix)
            } else {
                tenant.redistributed.remove(&prefix)
            };
            if changed {
                self.announce(id);
            }
        }
    }

    /// Announces this router's endpoint, where that is wanted.
    fn announce_locator(&mut self) {
        let Some(own) = self.own_labels() else { return };
        if self
            .config
            .membership
            .as_ref()
            .is_some_and(|membership| membership.announce_locator)
        {
            let locator = LabelCommunity::Locator(Locator {
                encapsulation: own.encapsulation,
                id: own.id,
            });
            self.originations.push(OriginationChange {
                prefix: IpAddr::from(own.endpoint).into(),
                path_id: 0,
                communities: Some(vec![locator.encode(own.administrator)]),
            });
        }
    }

    /// Brings what is announced for a tenant in line with it.
    fn announce(&mut self, id: TenantId) {
        let Some(own) = self.own_labels() else { return };
        let Some(tenant) = self.tenants.get_mut(&id) else {
            return;
        };
        let vni = tenant.config.primary_vni;
        let wanted = tenant.wanted();
        let before = std::mem::replace(&mut tenant.announced, wanted.clone());
        for prefix in wanted.symmetric_difference(&before) {
            self.originations.push(OriginationChange {
                prefix: *prefix,
                path_id: vni.get(),
                communities: wanted.contains(prefix).then(|| vec![own.label(vni)]),
            });
            // What is local here is not routed elsewhere, and what is no longer local may be.
            self.decide(*prefix);
        }
    }

    /// All valid paths of a prefix; none where it is gone.
    pub fn handle_route(&mut self, prefix: IpNet, paths: &[PathInput<'_>]) {
        self.handle_underlay(prefix, paths);
        let mut slots: SmallVec<[Slot; 1]> = SmallVec::new();
        if let Some(own) = self.own_labels() {
            self.overlaps.watch(own.administrator, prefix, paths);
            for path in paths.iter().filter(|path| !path.local) {
                self.candidates(&own, path, &mut slots);
            }
        }
        let old = self.prefixes.remove(&prefix).unwrap_or_default();
        // New ones first, so that an address in use is not untracked and tracked again.
        for candidate in slots.iter().flat_map(|slot| &slot.candidates) {
            if let Some(forwarding) = candidate.forwarding {
                self.use_address(forwarding.address);
            }
        }
        for slot in old {
            for candidate in &slot.candidates {
                if let Some(forwarding) = candidate.forwarding {
                    self.release_address(forwarding.address);
                }
            }
            match slots.iter_mut().find(|new| new.tenant == slot.tenant) {
                Some(new) => new.installed = slot.installed,
                None => {
                    if slot.installed.is_some() {
                        self.intent.routes.push(TenantRoute {
                            tenant: slot.tenant,
                            prefix,
                            next_hops: None,
                        });
                    }
                    if let Some(tenant) = self.tenants.get_mut(&slot.tenant) {
                        tenant.routes -= 1;
                    }
                    continue;
                }
            }
            if let Some(tenant) = self.tenants.get_mut(&slot.tenant) {
                tenant.routes -= 1;
            }
        }
        if slots.is_empty() {
            return;
        }
        for slot in &slots {
            if let Some(tenant) = self.tenants.get_mut(&slot.tenant) {
                tenant.routes += 1;
            }
        }
        self.prefixes.insert(prefix, slots);
        self.decide(prefix);
    }

    /// Every label of a path becomes a candidate in the table of its VNI.
    fn candidates(
        &mut self,
        own: &OwnLabels,
        path: &PathInput<'_>,
        slots: &mut SmallVec<[Slot; 1]>,
    ) {
        let mut labels: SmallVec<[Label; 4]> = SmallVec::new();
        let mut hops: SmallVec<[LocalNextHop; 2]> = SmallVec::new();
        for community in path.communities {
            match LabelCommunity::decode(*community, own.administrator) {
                None | Some(Ok(LabelCommunity::Locator(_))) => {}
                Some(Ok(LabelCommunity::Label(label))) => labels.push(label),
                Some(Ok(LabelCommunity::LocalNextHop(hop))) => hops.push(hop),
                Some(Err(Ignored::ReservedEncapsulation(_))) => {
                    self.counters.unsupported_encapsulation += 1
                }
                Some(Err(_)) => self.counters.reserved += 1,
            }
        }
        for label in labels
            .into_iter()
            .filter(|label| label.kind == LabelKind::Tenant)
        {
            if !path.accept.contains(label.vni) {
                self.counters.not_accepted += 1;
                continue;
            }
            let Some(tenant) = self.table_of(label.vni) else {
                self.counters.no_table += 1;
                continue;
            };
            // One for this label alone goes before one for all.
            let hop = hops
                .iter()
                .find(|hop| hop.vni == Some(label.vni))
                .or_else(|| hops.iter().find(|hop| hop.vni.is_none()));
            let (endpoint, encapsulation) = hop
                .map_or((label.endpoint, label.encapsulation), |hop| {
                    (hop.endpoint, hop.encapsulation)
                });
            let candidate = Candidate {
                label,
                forwarding: self.resolve(label.vni, endpoint, encapsulation),
                stitched: hop.is_some(),
                source: path.source,
                path_id: path.path_id,
                preference: path.preference,
            };
            match slots.iter_mut().find(|slot| slot.tenant == tenant) {
                Some(slot) => slot.candidates.push(candidate),
                None => slots.push(Slot {
                    tenant,
                    candidates: SmallVec::from_iter([candidate]),
                    installed: None,
                }),
            }
        }
    }

    /// The tenant of a VNI; made now where this router stitches it.
    fn table_of(&mut self, vni: Vni) -> Option<TenantId> {
        if let Some(tenant) = self.by_vni.get(&vni) {
            return Some(*tenant);
        }
        let stitched = self
            .config
            .membership
            .as_ref()
            .is_some_and(|membership| membership.stitched.contains(vni));
        stitched.then(|| {
            let config = TenantConfig {
                name: format!("vni-{vni}"),
                primary_vni: vni,
                vnis: Vec::new(),
                attachments: Vec::new(),
                prefixes: Vec::new(),
            };
            self.insert_tenant(config, true)
        })
    }

    fn resolve(
        &self,
        vni: Vni,
        endpoint: Endpoint,
        encapsulation: Encapsulation,
    ) -> Option<ForwardingNextHop> {
        let (address, endpoint_id) = match endpoint {
            Endpoint::V4(address) => (address.into(), None),
            Endpoint::Id(id) => (*self.locators.get(&id)?.first()?, Some(id)),
        };
        Some(ForwardingNextHop {
            vni,
            encapsulation,
            address,
            endpoint_id,
        })
    }

    /// Chooses again in every tenant that has the prefix.
    fn decide(&mut self, prefix: IpNet) {
        let Some(mut slots) = self.prefixes.remove(&prefix) else {
            return;
        };
        for slot in &mut slots {
            let wanted = self.choose(prefix, slot);
            if wanted != slot.installed {
                let route = TenantRoute {
                    tenant: slot.tenant,
                    prefix,
                    next_hops: wanted.clone(),
                };
                self.intent.routes.push(route);
                slot.installed = wanted;
            }
        }
        self.prefixes.insert(prefix, slots);
    }

    fn choose(&mut self, prefix: IpNet, slot: &Slot) -> Option<Arc<NextHopSet>> {
        let lost = self.judge(prefix, slot);
        let used = slot
            .candidates
            .iter()
            .zip(&lost)
            .filter(|(_, lost)| lost.is_none());
        let mut hops: Vec<ForwardingNextHop> = used
            .filter_map(|(candidate, _)| candidate.forwarding)
            .collect();
        if hops.is_empty() {
            return None;
        }
        hops.sort_unstable();
        hops.dedup();
        Some(self.intern(NextHopSet(hops)))
    }

    fn judge(&self, prefix: IpNet, slot: &Slot) -> SmallVec<[Option<Reason>; 4]> {
        let local = self.is_local(slot.tenant, prefix);
        judge(&slot.candidates, &|candidate| self.metric(candidate, local))
    }

    fn is_local(&self, tenant: TenantId, prefix: IpNet) -> bool {
        self.tenants
            .get(&tenant)
            .is_some_and(|tenant| tenant.announced.contains(&prefix))
    }

    /// Whether a candidate may be used, and how far its forwarding next hop is.
    fn metric(&self, candidate: &Candidate, local: bool) -> Result<u32, Reason> {
        if local {
            return Err(Reason::LocalPrefix);
        }
        let own = self
            .config
            .membership
            .as_ref()
            .map(|membership| (membership.endpoint, membership.id));
        let endpoint_is_own = own.is_some_and(|(address, id)| match candidate.label.endpoint {
            Endpoint::V4(endpoint) => endpoint == address,
            Endpoint::Id(endpoint) => endpoint == id,
        });
        let Some(forwarding) = candidate.forwarding else {
            return Err(Reason::NoLocator);
        };
        if endpoint_is_own
            || own.is_some_and(|(address, _)| forwarding.address == IpAddr::from(address))
        {
            return Err(Reason::OwnEndpoint);
        }
        self.reach
            .get(&forwarding.address)
            .and_then(|reach| reach.metric)
            .ok_or(Reason::ForwardingNextHopUnreachable)
    }

    /// One `Arc` for equal sets.
    fn intern(&mut self, set: NextHopSet) -> Arc<NextHopSet> {
        if let Some(known) = self.sets.get(&set) {
            return known.clone();
        }
        if self.sets.len() >= self.sets_limit {
            self.sets.retain(|set| Arc::strong_count(set) > 1);
            self.sets_limit = (self.sets.len() * 2).max(1024);
        }
        let set = Arc::new(set);
        self.sets.insert(set.clone());
        set
    }

    fn use_address(&mut self, address: IpAddr) {
        let reach = self.reach.entry(address).or_insert_with(|| {
            self.track.push(address);
            Reach {
                users: 0,
                metric: None,
            }
        });
        reach.users += 1;
    }

    fn release_address(&mut self, address: IpAddr) {
        if let Some(reach) = self.reach.get_mut(&address) {
            reach.users -= 1;
            if reach.users == 0 {
                self.reach.remove(&address);
                self.untrack.push(address);
            }
        }
    }

    /// How forwarding next hops are reached in the underlay: metric, or `None`.
    pub fn handle_reachability(&mut self, changes: &[(IpAddr, Option<u32>)]) {
        let mut changed: Vec<IpAddr> = Vec::new();
        for (address, metric) in changes {
            if let Some(reach) = self.reach.get_mut(address)
                && reach.metric != *metric
            {
                reach.metric = *metric;
                changed.push(*address);
            }
        }
        if changed.is_empty() {
            return;
        }
        let uses = |candidate: &Candidate| {
            candidate
                .forwarding
                .is_some_and(|hop| changed.contains(&hop.address))
        };
        let mut affected: Vec<IpNet> = self
            .prefixes
            .iter()
            .filter(|(_, slots)| slots.iter().any(|slot| slot.candidates.iter().any(uses)))
            .map(|(prefix, _)| *prefix)
            .collect();
        affected.sort_unstable();
        for prefix in affected {
            self.decide(prefix);
        }
    }

    /// Locators, and what goes to the main table.
    fn handle_underlay(&mut self, prefix: IpNet, paths: &[PathInput<'_>]) {
        let administrator = self
            .config
            .membership
            .as_ref()
            .map(|membership| membership.administrator);
        let locator_in = |path: &PathInput<'_>| {
            path.communities.iter().find_map(|community| {
                match LabelCommunity::decode(*community, administrator?)? {
                    Ok(LabelCommunity::Locator(locator)) => Some(locator.id),
                    _ => None,
                }
            })
        };
        let is_host = prefix.prefix_len() == prefix.max_prefix_len();
        let id = paths.iter().find_map(locator_in).filter(|_| is_host);
        if self.locator_of.get(&prefix).copied() != id {
            if let Some(old) = self.locator_of.remove(&prefix)
                && let Some(addresses) = self.locators.get_mut(&old)
            {
                addresses.remove(&prefix.addr());
            }
            if let Some(id) = id {
                self.locator_of.insert(prefix, id);
                self.locators.entry(id).or_default().insert(prefix.addr());
            }
            self.locators_changed();
        }
        let labelled = |path: &PathInput<'_>| {
            administrator.is_some_and(|administrator| {
                path.communities
                    .iter()
                    .any(|community| community.global_administrator == administrator)
            })
        };
        let installs_locators = self
            .config
            .membership
            .as_ref()
            .is_some_and(|membership| membership.install_underlay);
        let covered = || {
            self.config
                .install
                .iter()
                .any(|range| range.contains(&prefix))
        };
        let via = paths
            .iter()
            .find(|path| path.best && !path.local)
            .filter(|path| {
                if id.is_some() {
                    installs_locators || covered()
                } else {
                    !labelled(path) && covered()
                }
            })
            .map(|path| path.next_hop)
            // A route to its own next hop would resolve through itself.
            .filter(|via| !prefix.contains(via));
        let before = match via {
            Some(via) => self.underlay.insert(prefix, via),
            None => self.underlay.remove(&prefix),
        };
        if before != via {
            self.intent.underlay.push(UnderlayRoute {
                prefix,
                via: via.into_iter().collect(),
            });
        }
    }

    /// Endpoint ids resolve anew.
    fn locators_changed(&mut self) {
        let waiting = |candidate: &Candidate| {
            matches!(candidate.label.endpoint, Endpoint::Id(_))
                || candidate
                    .forwarding
                    .is_some_and(|forwarding| forwarding.endpoint_id.is_some())
        };
        let affected: Vec<IpNet> = self
            .prefixes
            .iter()
            .filter(|(_, slots)| slots.iter().any(|slot| slot.candidates.iter().any(waiting)))
            .map(|(prefix, _)| *prefix)
            .collect();
        for prefix in affected {
            let Some(mut slots) = self.prefixes.remove(&prefix) else {
                continue;
            };
            for candidate in slots.iter_mut().flat_map(|slot| &mut slot.candidates) {
                let before = candidate.forwarding;
                let (endpoint, encapsulation) =
                    match (before.and_then(|hop| hop.endpoint_id), before) {
                        (Some(id), Some(hop)) => (Endpoint::Id(id), hop.encapsulation),
                        (None, Some(_)) => continue,
                        (_, None) => (candidate.label.endpoint, candidate.label.encapsulation),
                    };
                candidate.forwarding = self.resolve(candidate.label.vni, endpoint, encapsulation);
                if let Some(hop) = candidate.forwarding {
                    self.use_address(hop.address);
                }
                if let Some(hop) = before {
                    self.release_address(hop.address);
                }
            }
            self.prefixes.insert(prefix, slots);
            self.decide(prefix);
        }
    }

    /// Changes of the forwarding intent since the last call.
    pub fn poll_intent(&mut self) -> Option<IntentDelta> {
        (!self.intent.is_empty()).then(|| std::mem::take(&mut self.intent))
    }

    /// Changes of what this router announces.
    pub fn poll_originations(&mut self) -> Vec<OriginationChange> {
        std::mem::take(&mut self.originations)
    }

    /// Forwarding next hops to resolve from now on, and those to forget.
    pub fn poll_tracking(&mut self) -> (Vec<IpAddr>, Vec<IpAddr>) {
        (
            std::mem::take(&mut self.track),
            std::mem::take(&mut self.untrack),
        )
    }

    /// Overlaps that came up since the last call.
    pub fn poll_overlaps(&mut self) -> Vec<Overlap> {
        self.overlaps.take_new()
    }

    /// The VNIs that this router keeps a table for, now or as soon as a label of them comes.
    pub fn tables(&self) -> VniSet {
        let configured = VniSet::from_ranges(self.by_vni.keys().map(|vni| (*vni, *vni)));
        match &self.config.membership {
            Some(membership) => configured.union(&membership.stitched),
            None => configured,
        }
    }
}
