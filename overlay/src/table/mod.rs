//! The (VNI, prefix) tables: routes and configuration in, forwarding intent and originations out.
//!
//! [`Overlay`] looks at every valid path of a prefix, not at the best one only: each label of each path is a candidate
//! in the table of its VNI, so that two tenants with one prefix never hide each other. After any input, drain
//! [`Overlay::poll_intent`], [`Overlay::poll_originations`] and [`Overlay::poll_tracking`].

mod decision;
mod lists;
mod locators;
mod origins;
mod overlap;
mod query;
mod senders;
mod services;
mod tenants;
#[cfg(test)]
mod tests;
mod types;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use rustc_hash::FxHashMap;
use smallvec::SmallVec;
use weft_bgp_wire::LargeCommunity;

use crate::export::OwnLabels;
use crate::intent::{
    ForwardingNextHop, GroupId, IntentDelta, TenantId, TenantRoute, UnderlayRoute,
};
use crate::label::{Endpoint, Ignored, Label, LabelCommunity, LabelKind, LocalNextHop};
use crate::origins::{Origin, Origins, hop_of};
use crate::{Encapsulation, EndpointId, Vni, VniSet};

use decision::judge;
use lists::{PathLists, Sharing, Way};
pub use locators::LocatorConflict;
use locators::{Change, Locators};
pub use origins::RefusedLabels;
pub use overlap::Overlap;
use overlap::Overlaps;
use senders::{Name, Senders};
pub use services::ServiceStatus;
use services::ServiceTable;
use tenants::Tenant;
pub use types::*;

/// The candidates of one prefix in one tenant.
struct Slot {
    tenant: TenantId,
    candidates: SmallVec<[Candidate; 1]>,
    /// Its path list, where there is a way; the route is installed while the list is usable.
    list: Option<u32>,
}

/// The overlay of one router.
pub struct Overlay {
    config: OverlayConfig,
    tenants: BTreeMap<TenantId, Tenant>,
    by_vni: FxHashMap<Vni, TenantId>,
    next_tenant: u32,
    prefixes: FxHashMap<IpNet, SmallVec<[Slot; 1]>>,
    /// Services by label.
    services: BTreeMap<Vni, ServiceTable>,
    /// Labels of services on the routes of a prefix.
    services_of: FxHashMap<IpNet, SmallVec<[Vni; 2]>>,
    lists: PathLists,
    /// What this router's locator says.
    locator: Vec<LargeCommunity>,
    locators: Locators,
    /// Endpoint ids are known, or are not, that were otherwise before.
    ids_changed: bool,
    senders: Senders,
    /// Which labels may lead where they do; `None` where nobody says so.
    origins: Option<Arc<Origins>>,
    /// Labels that are not used by that, by neighbour.
    refused: BTreeMap<u16, RefusedLabels>,
    underlay: FxHashMap<IpNet, IpAddr>,
    /// The tenants of an interface.
    by_attachment: FxHashMap<String, SmallVec<[TenantId; 1]>>,
    /// Which of them are up.
    up: BTreeSet<String>,
    intent: IntentDelta,
    originations: Vec<OriginationChange>,
    counters: Counters,
    overlaps: Overlaps,
}

impl Overlay {
    /// One without tenants and routes.
    pub fn new(config: OverlayConfig) -> Self {
        let membership = config.membership.as_ref();
        let own = membership.map(|membership| (membership.id, membership.endpoint));
        let mut overlay = Self {
            config,
            tenants: BTreeMap::new(),
            by_vni: FxHashMap::default(),
            next_tenant: 0,
            prefixes: FxHashMap::default(),
            services: BTreeMap::new(),
            services_of: FxHashMap::default(),
            lists: PathLists::default(),
            locator: Vec::new(),
            locators: Locators::new(own),
            ids_changed: false,
            senders: Senders::new(own.map(|(_, endpoint)| endpoint)),
            origins: None,
            refused: BTreeMap::new(),
            underlay: FxHashMap::default(),
            by_attachment: FxHashMap::default(),
            up: BTreeSet::new(),
            intent: IntentDelta::default(),
            originations: Vec::new(),
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

    /// All valid paths of a prefix; none where it is gone.
    pub fn handle_route(&mut self, prefix: IpNet, paths: &[PathInput<'_>]) {
        self.handle_underlay(prefix, paths);
        let mut slots: SmallVec<[Slot; 1]> = SmallVec::new();
        let mut services: SmallVec<[(Vni, Candidate); 1]> = SmallVec::new();
        if let Some(own) = self.own_labels() {
            self.overlaps.watch(own.administrator, prefix, paths);
            for path in paths.iter().filter(|path| !path.local) {
                if !path.communities.is_empty() {
                    self.senders.know(path.source, path.accept);
                }
                self.candidates(&own, path, &mut slots, &mut services);
            }
        }
        for slot in &slots {
            self.name_senders(&slot.candidates, true);
        }
        self.set_offers(prefix, services);
        let old = self.prefixes.remove(&prefix).unwrap_or_default();
        for slot in &old {
            self.name_senders(&slot.candidates, false);
            if let Some(tenant) = self.tenants.get_mut(&slot.tenant) {
                tenant.routes -= 1;
            }
        }
        let mut gone: SmallVec<[u32; 1]> = SmallVec::new();
        for slot in old {
            match slots.iter_mut().find(|new| new.tenant == slot.tenant) {
                Some(new) => new.list = slot.list,
                None => {
                    if let Some(list) = slot.list {
                        self.remove_route(slot.tenant, prefix, list);
                        gone.push(list);
                    }
                }
            }
        }
        for slot in &slots {
            if let Some(tenant) = self.tenants.get_mut(&slot.tenant) {
                tenant.routes += 1;
            }
        }
        if !slots.is_empty() {
            self.prefixes.insert(prefix, slots);
            self.decide(prefix);
        }
        // Last, so that an address that stays in use is not untracked and tracked again.
        for list in gone {
            self.lists.release(list);
        }
    }

    /// Where the route was installed, it goes.
    fn remove_route(&mut self, tenant: TenantId, prefix: IpNet, list: u32) {
        if self.lists.is_usable(list) {
            self.intent.routes.push(TenantRoute {
                tenant,
                prefix,
                group: None,
            });
        }
    }

    /// Every label of a path becomes a candidate in the table of its VNI.
    fn candidates(
        &mut self,
        own: &OwnLabels,
        path: &PathInput<'_>,
        slots: &mut SmallVec<[Slot; 1]>,
        services: &mut SmallVec<[(Vni, Candidate); 1]>,
    ) {
        let mut labels: SmallVec<[Label; 4]> = SmallVec::new();
        let mut hops: SmallVec<[LocalNextHop; 2]> = SmallVec::new();
        for community in path.communities {
            match LabelCommunity::decode(*community, own.administrator) {
                None | Some(Ok(LabelCommunity::Locator(_) | LabelCommunity::LocatorPort(_))) => {}
                Some(Ok(LabelCommunity::Label(label))) => labels.push(label),
                Some(Ok(LabelCommunity::LocalNextHop(hop))) => hops.push(hop),
                Some(Err(Ignored::ReservedEncapsulation(_))) => {
                    self.counters.unsupported_encapsulation += 1
                }
                Some(Err(_)) => self.counters.reserved += 1,
            }
        }
        for label in labels {
            if !path.accept.contains(label.vni) {
                self.counters.not_accepted += 1;
                continue;
            }
            let tenant = match label.kind {
                LabelKind::Tenant => self.table_of(label.vni),
                LabelKind::Service => None,
            };
            let is_service = label.kind == LabelKind::Service && self.has_service(label.vni);
            if tenant.is_none() && !is_service {
                self.counters.no_table += 1;
                continue;
            }
            let hop = hop_of(&hops, label.vni);
            let (endpoint, encapsulation) = hop
                .map_or((label.endpoint, label.encapsulation), |hop| {
                    (hop.endpoint, hop.encapsulation)
                });
            let candidate = Candidate {
                label,
                forwarding: self.resolve(label.vni, endpoint, encapsulation),
                via: endpoint,
                encapsulation,
                stitched: hop.is_some(),
                origin: self.judge_origin(&label, endpoint, path.preference.ebgp),
                source: path.source,
                path_id: path.path_id,
                preference: path.preference,
                bandwidth: path.bandwidth,
            };
            let Some(tenant) = tenant else {
                services.push((label.vni, candidate));
                continue;
            };
            match slots.iter_mut().find(|slot| slot.tenant == tenant) {
                Some(slot) => slot.candidates.push(candidate),
                None => slots.push(Slot {
                    tenant,
                    candidates: SmallVec::from_iter([candidate]),
                    list: None,
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
                breakout: None,
                services: Vec::new(),
                chains: Vec::new(),
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
            Endpoint::Id(id) => (self.locators.resolve(id)?, Some(id)),
        };
        Some(ForwardingNextHop {
            vni,
            encapsulation,
            port: self.locators.port_at(address, encapsulation),
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
            let ways = self.ways(prefix, slot);
            let list = (!ways.is_empty()).then(|| self.lists.acquire(&ways));
            let before = std::mem::replace(&mut slot.list, list);
            if list != before {
                match list.filter(|list| self.lists.is_usable(*list)) {
                    Some(list) => self.intent.routes.push(TenantRoute {
                        tenant: slot.tenant,
                        prefix,
                        group: Some(GroupId(list)),
                    }),
                    None => {
                        if let Some(before) = before {
                            self.remove_route(slot.tenant, prefix, before);
                        }
                    }
                }
            }
            if let Some(before) = before {
                self.lists.release(before);
            }
        }
        self.prefixes.insert(prefix, slots);
    }

    /// What the decision looks at, sorted, without duplicates: candidates that may be used once they are reachable.
    fn ways(&self, prefix: IpNet, slot: &Slot) -> SmallVec<[Way; 2]> {
        if self.is_local(slot.tenant, prefix) {
            return SmallVec::new();
        }
        let usable = slot.candidates.iter().filter_map(|candidate| {
            let forwarding = candidate.forwarding?;
            let used = candidate.origin.permitted() && !self.is_own(candidate);
            used.then_some(Way {
                forwarding,
                preference: candidate.preference,
                bandwidth: candidate.bandwidth,
                sharing: Sharing::Equal,
            })
        });
        let mut ways: SmallVec<[Way; 2]> = usable.collect();
        ways.sort_unstable();
        ways.dedup();
        ways
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
        if self.is_own(candidate) {
            return Err(Reason::OwnEndpoint);
        }
        match candidate.origin {
            Origin::Invalid => return Err(Reason::InvalidOrigin),
            Origin::Unknown { permitted: false } => return Err(Reason::UnknownOrigin),
            _ => {}
        }
        let forwarding = candidate.forwarding.ok_or(Reason::NoLocator)?;
        self.lists
            .metric(forwarding.address)
            .ok_or(Reason::ForwardingNextHopUnreachable)
    }

    /// The label, or its local next hop, names this router.
    fn is_own(&self, candidate: &Candidate) -> bool {
        let Some(membership) = &self.config.membership else {
            return false;
        };
        let named = match candidate.label.endpoint {
            Endpoint::V4(endpoint) => IpAddr::from(endpoint) == membership.endpoint,
            Endpoint::Id(endpoint) => endpoint == membership.id,
        };
        named
            || candidate
                .forwarding
                .is_some_and(|forwarding| forwarding.address == membership.endpoint)
    }

    /// How forwarding next hops are reached in the underlay: metric, or `None`.
    pub fn handle_reachability(&mut self, changes: &[(IpAddr, Option<u32>)]) {
        let toggled = self.lists.handle_reachability(changes);
        if toggled.is_empty() {
            return;
        }
        self.services_toggled(&toggled);
        // Routes come and go only where a list has become usable, or is no longer.
        let mut routes: Vec<TenantRoute> = Vec::new();
        for (prefix, slots) in &self.prefixes {
            for slot in slots {
                if let Some(list) = slot.list.filter(|list| toggled.contains(list)) {
                    let usable = self.lists.is_usable(list);
                    routes.push(TenantRoute {
                        tenant: slot.tenant,
                        prefix: *prefix,
                        group: usable.then_some(GroupId(list)),
                    });
                }
            }
        }
        routes.sort_unstable_by_key(|route| (route.prefix, route.tenant));
        self.intent.routes.append(&mut routes);
    }

    /// The far ends that labels lead to and that the underlay is known to have no route to, as labels name them.
    pub fn unreached(&self) -> BTreeSet<Endpoint> {
        let addresses: BTreeSet<IpAddr> = self.lists.unreached().collect();
        let by_id = self.locators.resolved();
        let by_id = by_id.filter(|(_, address)| addresses.contains(address));
        let by_id = by_id.map(|(id, _)| Endpoint::Id(id));
        let by_address = addresses.iter().filter_map(|address| match address {
            IpAddr::V4(address) => Some(Endpoint::V4(*address)),
            IpAddr::V6(_) => None,
        });
        by_address.chain(by_id).collect()
    }

    /// The endpoint ids that some locator gives an address.
    pub fn known_ids(&self) -> BTreeSet<EndpointId> {
        self.locators.resolved().map(|(id, _)| id).collect()
    }

    /// Whether [`Overlay::known_ids`] may have changed since this was asked last.
    pub fn poll_ids_changed(&mut self) -> bool {
        std::mem::take(&mut self.ids_changed)
    }

    /// Locators, and what goes to the main table.
    fn handle_underlay(&mut self, prefix: IpNet, paths: &[PathInput<'_>]) {
        let administrator = self
            .config
            .membership
            .as_ref()
            .map(|membership| membership.administrator);
        let change = self.locators.handle_route(
            prefix,
            paths,
            administrator,
            self.origins.as_deref(),
            &mut self.senders,
        );
        if change != Change::Nothing {
            let address = (change == Change::Port).then(|| prefix.addr());
            self.locators_changed(address);
        }
        let is_locator = self.locators.is_at(prefix);
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
        let is_own = paths.iter().any(|path| path.best && path.local);
        let via = paths
            .iter()
            .filter(|path| !path.local && !is_own && self.permits_locator(prefix, path))
            // A labelled path may be the best one though its next hop leads nowhere: another one may lead to the endpoint.
            .min_by_key(|path| {
                let Preference {
                    local_pref,
                    as_path_length,
                    origin,
                    ebgp,
                    ..
                } = path.preference;
                let preference = (Reverse(local_pref), as_path_length, origin, !ebgp);
                (!path.resolves, !path.best, preference, path.path_id)
            })
            .filter(|path| {
                if is_locator {
                    installs_locators || covered()
                } else {
                    !labelled(path) && covered()
                }
            })
            .map(|path| path.next_hop);
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

    /// The forwarding next hop of a candidate as endpoint ids resolve now.
    fn resolve_again(&self, candidate: &Candidate) -> Option<ForwardingNextHop> {
        self.resolve(candidate.label.vni, candidate.via, candidate.encapsulation)
    }

    /// Candidates name, or no longer name, the routers that they lead to. Those that may not lead there name nobody, and are counted.
    fn name_senders(&mut self, candidates: &[Candidate], named: bool) {
        for candidate in candidates {
            if !candidate.origin.permitted() {
                self.count_refused(candidate, named);
                continue;
            }
            let (far, near) = (candidate.label.endpoint, candidate.via);
            let near = (near != far).then_some(near);
            for endpoint in [Some(far), near].into_iter().flatten() {
                let name = Name::from(endpoint);
                match named {
                    true => self.senders.add(name, candidate.source),
                    false => self.senders.remove(name, candidate.source),
                }
            }
        }
    }

    /// What is accepted from a neighbour: the routers that it names may send these VNIs.
    pub fn set_accept(&mut self, source: u16, accept: &VniSet) {
        self.senders.set_accept(source, accept);
    }

    /// Endpoint ids resolve anew, and `address`, where there is one, has another UDP port.
    fn locators_changed(&mut self, address: Option<IpAddr>) {
        self.ids_changed = true;
        let waiting = |candidate: &Candidate| match candidate.via {
            Endpoint::Id(_) => true,
            Endpoint::V4(via) => address == Some(via.into()),
        };
        self.resolve_services();
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
                candidate.forwarding = self.resolve_again(candidate);
            }
            self.prefixes.insert(prefix, slots);
            self.decide(prefix);
        }
    }

    /// Changes of the forwarding intent since the last call.
    pub fn poll_intent(&mut self) -> Option<IntentDelta> {
        self.forget_interfaces();
        self.intent.groups = self.lists.poll_groups();
        self.intent.senders = self.senders.poll(&self.locators);
        (!self.intent.is_empty()).then(|| std::mem::take(&mut self.intent))
    }

    /// Changes of what this router announces.
    pub fn poll_originations(&mut self) -> Vec<OriginationChange> {
        std::mem::take(&mut self.originations)
    }

    /// Forwarding next hops to resolve from now on, and those to forget.
    pub fn poll_tracking(&mut self) -> (Vec<IpAddr>, Vec<IpAddr>) {
        self.lists.poll_tracking()
    }

    /// Overlaps that came up since the last call.
    pub fn poll_overlaps(&mut self) -> Vec<Overlap> {
        self.overlaps.take_new()
    }

    /// Endpoint ids that two routers announce as theirs, as they came up since the last call.
    pub fn poll_locator_conflicts(&mut self) -> Vec<LocatorConflict> {
        self.locators.take_new_conflicts()
    }

    /// The VNIs that this router keeps a table for, now or as soon as a label of them comes.
    pub fn tables(&self) -> VniSet {
        let vnis = self.by_vni.keys().chain(self.services.keys());
        let configured = VniSet::from_ranges(vnis.map(|vni| (*vni, *vni)));
        match &self.config.membership {
            Some(membership) => configured.union(&membership.stitched),
            None => configured,
        }
    }
}
