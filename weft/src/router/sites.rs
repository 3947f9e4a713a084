//! BGP with tenants' own routers: a speaker of its own for each tenant that has such neighbours, so that tenants may have
//! the same prefixes, the same neighbour addresses and the same AS numbers.
//!
//! What a tenant's router tells becomes a route of the site in the overlay, announced with the tenant's label; what the
//! overlay knows for the tenant is told to its routers. AS paths go through whole, in both directions, so that a site
//! recognizes what it told itself.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::Context as _;
use ipnet::IpNet;
use tokio::sync::mpsc;
use tokio::task::AbortHandle;
use tracing::info;
use weft_bgp::rib::{Origination, PeerId, PlainBgp, ReportedPath, RouteFilter};
use weft_bgp::{Bgp, BgpEvent, NeighborStatus, Scope, ShutdownMode};
use weft_bgp_wire::{Asn, AttributesBuilder, AttributesView, ExtendedCommunity, code};
use weft_dataplane::Dataplane;
use weft_overlay::intent::{TenantId, TenantRoute};
use weft_overlay::table::{OriginationChange, Overlay};

use super::core::{announced_bandwidth, labelled, own_attributes};
use super::setup;
use crate::config::{self, Config};

/// Path identifier of what the overlay knows, in a tenant's speaker.
const OVERLAY_PATH: u32 = 1;

/// The speakers of tenants, for whoever wants to know of them.
#[derive(Clone, Default)]
pub(super) struct SiteSpeakers(Arc<Mutex<BTreeMap<String, Bgp>>>);

impl SiteSpeakers {
    /// The neighbours of all tenants, with their tenants' names.
    pub(super) async fn neighbors(&self) -> Vec<(String, NeighborStatus)> {
        let mut all = Vec::new();
        for (tenant, bgp) in self.all() {
            let neighbors = bgp.neighbors().await.into_iter();
            all.extend(neighbors.map(|neighbor| (tenant.clone(), neighbor)));
        }
        all
    }

    fn map(&self) -> MutexGuard<'_, BTreeMap<String, Bgp>> {
        // Nobody panics with it.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn all(&self) -> Vec<(String, Bgp)> {
        let map = self.map();
        map.iter()
            .map(|(name, bgp)| (name.clone(), bgp.clone()))
            .collect()
    }

    pub(super) async fn shutdown(&self, mode: ShutdownMode) {
        for (_, bgp) in self.all() {
            bgp.shutdown(mode).await;
        }
    }
}

struct Site {
    name: String,
    bgp: Bgp,
    vni: u32,
    /// Our own AS stands in for these in what is told to the tenant's routers.
    overridden: Vec<Asn>,
    /// What the tenant's routers told: the attributes to announce it with, without the label.
    learned: HashMap<IpNet, Vec<u8>>,
    /// What the tenant's routers are told.
    told: HashSet<IpNet>,
    heard: bool,
    /// Another speaker of the same tenant has other events.
    events: AbortHandle,
}

impl Site {
    /// Notes that its routers have told everything.
    fn heard(&mut self) -> Option<Progress> {
        let first = !std::mem::replace(&mut self.heard, true);
        first.then_some(Progress::Heard)
    }
}

/// How far a tenant's speaker is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Progress {
    /// Its routers have told everything.
    Heard,
    /// They have been told everything.
    Converged,
    /// Both, or it waits no longer.
    HeardAndConverged,
}

/// All tenants with neighbours of their own.
pub(super) struct Sites {
    by_tenant: BTreeMap<TenantId, Site>,
    asn: Asn,
    /// How wide this router says that it is.
    bandwidth: Option<ExtendedCommunity>,
    events: mpsc::Receiver<(TenantId, BgpEvent)>,
    /// What is to be told to a tenant's routers anew.
    changed: BTreeSet<(TenantId, IpNet)>,
    /// Held so that `events` stays open where there are none.
    sender: mpsc::Sender<(TenantId, BgpEvent)>,
    speakers: SiteSpeakers,
}

impl Sites {
    /// Starts a speaker for every tenant that has neighbours, beside the router's own.
    pub(super) async fn start(
        config: &Config,
        overlay: &Overlay,
        dataplane: &Dataplane,
        bgp: &Bgp,
    ) -> anyhow::Result<(Self, SiteSpeakers)> {
        let (sender, events) = mpsc::channel(16);
        let mut sites = Self {
            by_tenant: BTreeMap::new(),
            asn: config.router.asn,
            bandwidth: announced_bandwidth(config),
            events,
            changed: BTreeSet::new(),
            sender,
            speakers: SiteSpeakers::default(),
        };
        let restarting = dataplane.found_state();
        for (id, tenant) in tenants_with_neighbors(config, overlay) {
            let start = sites.add(config, id, tenant, overlay, bgp, dataplane, restarting);
            start.await?;
        }
        if !sites.by_tenant.is_empty() {
            info!(
                tenants = sites.by_tenant.len(),
                "speaking BGP with tenants' own routers"
            );
        }
        let speakers = sites.speakers.clone();
        Ok((sites, speakers))
    }

    /// Starts a tenant's speaker.
    #[expect(
        clippy::too_many_arguments,
        reason = "everything that the router is made of"
    )]
    async fn add(
        &mut self,
        config: &Config,
        id: TenantId,
        tenant: &config::Tenant,
        overlay: &Overlay,
        bgp: &Bgp,
        dataplane: &Dataplane,
        restarting: bool,
    ) -> anyhow::Result<()> {
        let vrf = dataplane.status().await.is_some_and(|status| status.vrf);
        let scope = Scope {
            mark: weft_dataplane::tenant_mark(tenant.vni),
            device: vrf.then(|| weft_dataplane::tenant_vrf(tenant.vni)),
        };
        let speaker = setup::site(config, tenant, scope, restarting);
        let (instance, mut inbox) = bgp
            .start_instance(speaker, Box::new(PlainBgp))
            .await
            .with_context(|| format!("the neighbours of the tenant `{}`", tenant.name))?;
        let sender = self.sender.clone();
        let events = tokio::spawn(async move {
            while let Some(event) = inbox.recv().await {
                if sender.send((id, event)).await.is_err() {
                    return;
                }
            }
        });
        self.speakers
            .map()
            .insert(tenant.name.clone(), instance.clone());
        let site = Site {
            name: tenant.name.clone(),
            bgp: instance,
            vni: tenant.vni.get(),
            overridden: overridden(tenant),
            learned: HashMap::new(),
            told: HashSet::new(),
            heard: false,
            events: events.abort_handle(),
        };
        self.by_tenant.insert(id, site);
        let (routes, _) = overlay.tenant_routes(id, None, usize::MAX, &|_| true);
        let prefixes = routes.iter().map(|route| (id, route.prefix));
        self.changed.extend(prefixes);
        Ok(())
    }

    /// Ends a tenant's speaker, and what its routers told.
    pub(super) async fn remove(&mut self, id: TenantId, overlay: &mut Overlay) {
        let Some(site) = self.by_tenant.remove(&id) else {
            return;
        };
        site.events.abort();
        self.speakers.map().remove(&site.name);
        site.bgp.shutdown(ShutdownMode::Cease).await;
        for prefix in site.learned.keys() {
            overlay.set_site_route(id, *prefix, None);
        }
    }

    /// Brings the speakers in line with another configuration; says how many were started.
    pub(super) async fn reload(
        &mut self,
        config: &Config,
        overlay: &mut Overlay,
        bgp: &Bgp,
        dataplane: &Dataplane,
    ) -> anyhow::Result<usize> {
        let wanted = tenants_with_neighbors(config, overlay);
        let is_wanted = |id: &TenantId| wanted.iter().any(|(one, _)| one == id);
        let gone: Vec<TenantId> = self
            .by_tenant
            .keys()
            .filter(|id| !is_wanted(id))
            .copied()
            .collect();
        for id in gone {
            self.remove(id, overlay).await;
        }
        let mut started = 0;
        for (id, tenant) in wanted {
            if let Some(site) = self.by_tenant.get_mut(&id) {
                let neighbors = setup::site_neighbors(config, tenant);
                site.bgp
                    .with(move |speaker, now| speaker.set_neighbors(neighbors, now))
                    .await;
                let overridden = overridden(tenant);
                if overridden != site.overridden {
                    site.overridden = overridden;
                    self.changed
                        .extend(site.told.iter().map(|prefix| (id, *prefix)));
                }
            } else {
                self.add(config, id, tenant, overlay, bgp, dataplane, false)
                    .await?;
                started += 1;
            }
        }
        Ok(started)
    }

    /// How many speakers there are.
    pub(super) fn len(&self) -> usize {
        self.by_tenant.len()
    }

    /// What a tenant's speaker says next.
    pub(super) async fn next(&mut self) -> Option<(TenantId, BgpEvent)> {
        self.events.recv().await
    }

    /// Tells a tenant's routers that they know everything.
    pub(super) async fn complete(&self) {
        for site in self.by_tenant.values() {
            site.bgp
                .with(|speaker, now| speaker.routes_complete(now))
                .await;
        }
    }

    /// Brings what a tenant's routers told into the overlay; says how far the speaker is.
    pub(super) async fn handle(
        &mut self,
        (id, event): (TenantId, BgpEvent),
        overlay: &mut Overlay,
        bgp: &Bgp,
        dataplane: &Dataplane,
    ) -> Option<Progress> {
        let site = self.by_tenant.get_mut(&id)?;
        match event {
            BgpEvent::Heard => return site.heard(),
            BgpEvent::Sessions => {}
            BgpEvent::Converged { .. } => {
                return Some(match site.heard() {
                    Some(_) => Progress::HeardAndConverged,
                    None => Progress::Converged,
                });
            }
            BgpEvent::NextHops { track, untrack } => {
                dataplane.track_site(id, track).await;
                dataplane.untrack_site(id, untrack).await;
            }
            BgpEvent::Routes(batch) => {
                let mut again = Vec::new();
                for (prefix, paths) in batch.iter() {
                    let learned =
                        |path: &&ReportedPath| path.eligible && path.source != PeerId::LOCAL;
                    // The best of theirs: ours may be better by BGP's rules, and goes.
                    let best = paths.iter().find(learned);
                    let attributes = best.map(|path| announced(path.attributes.view()));
                    let before = match &attributes {
                        Some(attributes) => site.learned.insert(prefix, attributes.clone()),
                        None => site.learned.remove(&prefix),
                    };
                    let via = best.map(|path| path.attributes.next_hop().address);
                    overlay.set_site_route(id, prefix, via);
                    if before != attributes {
                        self.changed.insert((id, prefix));
                        // Announced already, by another path.
                        if before.is_some() && attributes.is_some() {
                            again.extend(overlay.origination(id, prefix));
                        }
                    }
                }
                let again: Vec<Origination> = again
                    .into_iter()
                    .map(|change| self.origination(change))
                    .collect();
                if !again.is_empty() {
                    bgp.originate(again).await;
                }
            }
        }
        None
    }

    /// How next hops in a tenant are reached.
    pub(super) async fn set_next_hops(
        &self,
        tenant: TenantId,
        changes: Vec<(IpAddr, Option<u32>)>,
    ) {
        if let Some(site) = self.by_tenant.get(&tenant) {
            site.bgp.set_next_hops(changes).await;
        }
    }

    /// A change of what the router announces, for BGP: what a tenant's routers told goes on with its AS path.
    pub(super) fn origination(&mut self, change: OriginationChange) -> Origination {
        let site = self
            .by_tenant
            .iter()
            .find(|(_, site)| site.vni == change.path_id);
        let learned = site.and_then(|(_, site)| site.learned.get(&change.prefix));
        let attributes = change.communities.map(|communities| {
            let mut builder = own_attributes();
            if let Some(attributes) = learned {
                builder.load(AttributesView::new(attributes));
            }
            labelled(builder, &communities, self.bandwidth)
        });
        if let Some((id, _)) = site {
            self.changed.insert((*id, change.prefix));
        }
        Origination {
            prefix: change.prefix,
            path_id: change.path_id,
            attributes,
        }
    }

    /// Routes of tenants that came, went, or got other attributes.
    pub(super) fn note(&mut self, routes: &[TenantRoute]) {
        if self.by_tenant.is_empty() {
            return;
        }
        let routes = routes.iter().map(|route| (route.tenant, route.prefix));
        let ours: Vec<_> = routes
            .filter(|(id, _)| self.by_tenant.contains_key(id))
            .collect();
        self.changed.extend(ours);
    }

    /// Prefixes that BGP told of anew.
    pub(super) fn note_prefixes(&mut self, prefixes: impl Iterator<Item = IpNet> + Clone) {
        for id in self.by_tenant.keys() {
            self.changed
                .extend(prefixes.clone().map(|prefix| (*id, prefix)));
        }
    }

    /// Tells tenants' routers what changed.
    pub(super) async fn announce(&mut self, overlay: &Overlay, bgp: &Bgp) {
        let changed = std::mem::take(&mut self.changed);
        let mut told: BTreeMap<TenantId, Vec<Origination>> = BTreeMap::new();
        let mut remote = Vec::new();
        for (id, prefix) in changed {
            let Some(site) = self.by_tenant.get(&id) else {
                continue;
            };
            let chosen = overlay.chosen(id, prefix);
            let attributes = if site.learned.contains_key(&prefix) {
                None
            } else if overlay.origination(id, prefix).is_some() {
                Some(own_attributes().octets().to_vec())
            } else if let Some(path) = chosen {
                remote.push((id, prefix, path));
                continue;
            } else {
                None
            };
            told.entry(id)
                .or_default()
                .push(of_overlay(prefix, attributes));
        }
        if !remote.is_empty() {
            let attributes = bgp
                .with(move |speaker, _| {
                    let attributes = |(id, prefix, (source, path_id))| {
                        let filter = RouteFilter {
                            prefix: Some(prefix),
                            ..RouteFilter::default()
                        };
                        let page = speaker.rib.routes(&filter, 1);
                        let mut paths = page.routes.iter().flat_map(|route| &route.paths);
                        let path = paths
                            .find(|path| path.source.0 == source && path.path_id == path_id)?;
                        Some((id, prefix, announced(path.attributes.view())))
                    };
                    remote
                        .into_iter()
                        .filter_map(attributes)
                        .collect::<Vec<_>>()
                })
                .await
                .unwrap_or_default();
            for (id, prefix, attributes) in attributes {
                if let Some(site) = self.by_tenant.get(&id) {
                    let attributes = override_as(&attributes, &site.overridden, self.asn);
                    told.entry(id)
                        .or_default()
                        .push(of_overlay(prefix, Some(attributes)));
                }
            }
        }
        for (id, originations) in told {
            let Some(site) = self.by_tenant.get_mut(&id) else {
                continue;
            };
            let told = &mut site.told;
            let news = originations.into_iter().filter(|one| match one.attributes {
                Some(_) => {
                    told.insert(one.prefix);
                    true
                }
                None => told.remove(&one.prefix),
            });
            let news: Vec<Origination> = news.collect();
            if !news.is_empty() {
                site.bgp.originate(news).await;
            }
        }
    }
}

/// The tenants that have routers of their own.
fn tenants_with_neighbors<'a>(
    config: &'a Config,
    overlay: &Overlay,
) -> Vec<(TenantId, &'a config::Tenant)> {
    let ids: HashMap<String, TenantId> = overlay
        .tenants()
        .into_iter()
        .map(|tenant| (tenant.config.name, tenant.id))
        .collect();
    let tenants = config
        .tenants
        .iter()
        .filter(|one| !one.neighbors.is_empty());
    tenants
        .filter_map(|tenant| Some((*ids.get(&tenant.name)?, tenant)))
        .collect()
}

/// The AS numbers that our own stands in for.
fn overridden(tenant: &config::Tenant) -> Vec<Asn> {
    let neighbors = tenant.neighbors.iter();
    neighbors
        .filter(|neighbor| neighbor.as_override)
        .map(|neighbor| neighbor.asn)
        .collect()
}

fn of_overlay(prefix: IpNet, attributes: Option<Vec<u8>>) -> Origination {
    Origination {
        prefix,
        path_id: OVERLAY_PATH,
        attributes,
    }
}

/// What goes on of the attributes of a route, from a tenant to the overlay and from the overlay to a tenant: ORIGIN and AS_PATH.
/// Communities do not: a tenant could name labels by them.
fn announced(attributes: AttributesView<'_>) -> Vec<u8> {
    let mut builder = AttributesBuilder::new();
    let keep = |one| matches!(one, code::ORIGIN | code::AS_PATH);
    builder.load_some(attributes, keep);
    builder.octets().to_vec()
}

/// Puts our own AS in the place of others in AS_PATH.
fn override_as(attributes: &[u8], others: &[Asn], own: Asn) -> Vec<u8> {
    let mut builder = AttributesBuilder::new();
    builder.load(AttributesView::new(attributes));
    if !others.is_empty() {
        builder.map_as_path(|asn| Some(if others.contains(&asn) { own } else { asn }));
    }
    builder.octets().to_vec()
}

#[cfg(test)]
mod tests {
    use weft_bgp_wire::Origin;

    use super::*;

    #[test]
    fn another_as_is_overridden_wherever_it_stands() {
        let mut builder = AttributesBuilder::new();
        builder.set_origin(Origin::Igp);
        builder.set_as_sequence(&[Asn(64601), Asn(65010), Asn(64602), Asn(65010)]);
        let octets = override_as(builder.octets(), &[Asn(65010)], Asn(64500));
        let path = AttributesView::new(&octets).as_path().to_string();
        assert_eq!(path, "64601 64500 64602 64500");
        let same = override_as(builder.octets(), &[], Asn(64500));
        assert_eq!(same, builder.octets());
    }
}
