//! The loop that owns the overlay: changed routes and reachability in, intent and originations out.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use ipnet::IpNet;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;
use tracing::{info, warn};
use weft_bfd_io::Bfd;
use weft_bgp::rib::{Origination, PeerId, ReportedPath, RouteBatch, Unforwardable};
use weft_bgp::{Bgp, BgpEvent, NeighborConfig};
use weft_bgp_wire::{
    Asn, AttributesBuilder, AttributesView, ExtendedCommunity, LargeCommunity, Origin, code, flags,
};
use weft_dataplane::{Dataplane, DataplaneEvent, Reach, RefusedIn};
use weft_overlay::intent::{Breakout, TenantId};
use weft_overlay::label::{Endpoint, leads_to_any};
use weft_overlay::origins::{Origins, judged_otherwise};
use weft_overlay::table::{Overlay, PathInput, Preference, TenantConfig};
use weft_overlay::{EndpointId, Vni, VniSet};

use super::bfd;
use super::health::{Health, Reasons};
use super::hook::{Classes, LabelHook};
use super::reload::Reloaded;
use super::setup::{self, SessionKeys};
use super::sites::{Progress, Sites};
use crate::config::{self, Config, Redistribute, Tenant};

/// When BGP has converged, next hops may still be looked up and routes follow from that: leftovers in the kernel go
/// once nothing has happened for this long, or at the latest after the other.
const QUIET: Duration = Duration::from_secs(1);
const QUIET_AT_LAST: Duration = Duration::from_secs(30);

/// Path identifier of the networks of the configuration; VNIs and 0 are the overlay's.
pub(super) const NETWORK_PATH: u32 = u32::MAX;

type Question = Box<dyn FnOnce(&Overlay) + Send>;

enum Request {
    Question(Question),
    Reload(Box<Config>, oneshot::Sender<Reloaded>),
    Origins(Option<Arc<Origins>>, oneshot::Sender<()>),
    Granted(BTreeSet<String>, oneshot::Sender<()>),
    Keys(SessionKeys, oneshot::Sender<()>),
}

/// Asks the loop questions about the overlay.
#[derive(Clone)]
pub(super) struct Queries {
    requests: mpsc::Sender<Request>,
    converged: Arc<AtomicBool>,
    reasons: Reasons,
}

impl Queries {
    /// Goes over to another configuration; `None` where the loop has ended.
    pub(super) async fn reload(&self, config: Config) -> Option<Reloaded> {
        let (reply, answer) = oneshot::channel();
        let request = Request::Reload(Box::new(config), reply);
        self.requests.send(request).await.ok()?;
        answer.await.ok()
    }

    /// Takes another word on where labels may lead; returns when it is in force.
    pub(super) async fn set_origins(&self, origins: Option<Arc<Origins>>) {
        let (reply, answer) = oneshot::channel();
        let request = Request::Origins(origins, reply);
        if self.requests.send(request).await.is_ok() {
            // Where the loop has ended, nothing is in force.
            let _ = answer.await;
        }
    }

    /// Tenants may attach other interfaces; returns when nothing passes those that none of them has.
    pub(super) async fn set_granted(&self, granted: BTreeSet<String>) {
        let (reply, answer) = oneshot::channel();
        let request = Request::Granted(granted, reply);
        if self.requests.send(request).await.is_ok() {
            // Where the loop has ended, nothing is in force.
            let _ = answer.await;
        }
    }

    /// Takes other secrets of sessions; returns when they are in force.
    pub(super) async fn set_keys(&self, keys: SessionKeys) {
        let (reply, answer) = oneshot::channel();
        if self.requests.send(Request::Keys(keys, reply)).await.is_ok() {
            // Where the loop has ended, nothing is in force.
            let _ = answer.await;
        }
    }

    /// What `question` says of the overlay; `None` where the loop has ended.
    pub(super) async fn ask<T: Send + 'static>(
        &self,
        question: impl FnOnce(&Overlay) -> T + Send + 'static,
    ) -> Option<T> {
        let (reply, answer) = oneshot::channel();
        let question: Question = Box::new(move |overlay| {
            // Who asked may have gone.
            let _ = reply.send(question(overlay));
        });
        self.requests.send(Request::Question(question)).await.ok()?;
        answer.await.ok()
    }

    /// Why service nodes do not work.
    pub(super) fn reasons(&self) -> &Reasons {
        &self.reasons
    }

    /// BGP has converged.
    pub(super) fn converged(&self) -> bool {
        self.converged.load(Ordering::Relaxed)
    }
}

/// The loop's state.
pub(super) struct Core {
    /// What is in force.
    pub(super) config: Config,
    pub(super) classes: Classes,
    /// What sessions are signed with, as the controller says it.
    pub(super) keys: SessionKeys,
    pub(super) overlay: Overlay,
    pub(super) bgp: Bgp,
    pub(super) bfd: Bfd,
    pub(super) dataplane: Dataplane,
    pub(super) sites: Sites,
    pub(super) health: Health,
    /// Speakers whose neighbours have not told everything yet, and those that have not converged.
    unheard: usize,
    waiting: usize,
    /// What is accepted from a neighbour, by its address.
    pub(super) accept: HashMap<IpAddr, VniSet>,
    /// Dynamic neighbours that there are, as BFD and the links know them.
    dynamic: Vec<config::Neighbor>,
    /// What is accepted by the neighbour's number, as it becomes known.
    pub(super) accept_of: HashMap<PeerId, VniSet>,
    /// Far ends that are not reached, as BGP knows.
    unreached: BTreeSet<Endpoint>,
    /// Endpoint ids that have an address, as BGP knows.
    known_ids: BTreeSet<EndpointId>,
    reach_changed: bool,
    /// Neighbours whose links are watched.
    watched: BTreeSet<IpAddr>,
    /// Whom the router lives by, as the data plane knows.
    lifelines: BTreeSet<IpAddr>,
    /// Interfaces that tenants may attach.
    granted: BTreeSet<String>,
    /// Who keeps our routes while we are away.
    helpers: watch::Sender<BTreeSet<IpAddr>>,
    requests: mpsc::Receiver<Request>,
    converged: Arc<AtomicBool>,
    /// Leftovers go then, unless something happens; and at the latest at the other.
    settle_at: Option<(Instant, Instant)>,
}

/// Makes the tenants, and waits until the kernel has said which of their attachments are up: the routes that this
/// router announces from the start follow from that.
pub(super) async fn prepare(
    config: &Config,
    overlay: &mut Overlay,
    dataplane: &Dataplane,
    events: &mut mpsc::Receiver<DataplaneEvent>,
) -> Vec<Origination> {
    // Before tenants: what leads to them is none of theirs.
    let lifelines = setup::lifelines(config);
    dataplane.live_by(lifelines.into_iter().collect()).await;
    let mut redistributed = Vec::new();
    for tenant in &config.tenants {
        let id = overlay.add_tenant(tenant_config(tenant));
        if !tenant.redistribute.is_empty() {
            redistributed.push((id, &tenant.redistribute));
        }
    }
    if let Some(intent) = overlay.poll_intent() {
        dataplane.apply(intent).await;
    }
    for (id, sources) in redistributed {
        redistribute(dataplane, id, sources).await;
    }
    // Commands are taken in order, and what follows from one is told before the next.
    dataplane.status().await;
    while let Ok(event) = events.try_recv() {
        handle_attachment(overlay, event);
    }
    let networks = config.networks.iter().map(|prefix| Origination {
        prefix: *prefix,
        path_id: NETWORK_PATH,
        attributes: Some(own_attributes().octets().to_vec()),
    });
    let bandwidth = announced_bandwidth(config);
    let changes = overlay.poll_originations().into_iter();
    let labelled = changes.map(|change| Origination {
        prefix: change.prefix,
        path_id: change.path_id,
        attributes: change
            .communities
            .map(|communities| labelled(own_attributes(), &communities, bandwidth)),
    });
    networks.chain(labelled).collect()
}

/// A tenant as the overlay wants it.
pub(super) fn tenant_config(tenant: &Tenant) -> TenantConfig {
    TenantConfig {
        name: tenant.name.clone(),
        primary_vni: tenant.vni,
        vnis: tenant.vnis.clone(),
        attachments: tenant.interfaces.clone(),
        prefixes: tenant.prefixes.clone(),
        breakout: tenant.breakout.as_ref().map(|breakout| Breakout {
            interface: breakout.interface.clone(),
            source_nat: breakout.source_nat,
        }),
        services: config::services(tenant),
        chains: config::chains(tenant),
    }
}

/// Has kernel routes of a tenant announced.
pub(super) async fn redistribute(dataplane: &Dataplane, id: TenantId, sources: &[Redistribute]) {
    let has = |what| sources.contains(&what);
    let protocols = sources.iter().filter_map(|source| match source {
        Redistribute::Protocol(number) => Some(*number),
        _ => None,
    });
    let protocols: Vec<u8> = protocols.collect();
    let (connected, statics) = (has(Redistribute::Connected), has(Redistribute::Static));
    dataplane
        .redistribute(id, connected, statics, &protocols)
        .await;
}

/// What happened to tenants on this router; gives reachability back, which is BGP's business too.
fn handle_attachment(
    overlay: &mut Overlay,
    event: DataplaneEvent,
) -> Option<Vec<(IpAddr, Option<Reach>)>> {
    match event {
        DataplaneEvent::EndpointReachability(changes) => overlay.handle_reachability(&changes),
        DataplaneEvent::Reachability(changes) => return Some(changes),
        // Nobody asked yet, where nobody takes it.
        DataplaneEvent::SiteReachability { .. }
        | DataplaneEvent::NeighborLink { .. }
        | DataplaneEvent::Refused(_) => {}
        DataplaneEvent::Attachment { name, up } => {
            info!(interface = name, up, "attachment");
            overlay.set_attachment(&name, up);
        }
        DataplaneEvent::Redistributed {
            tenant,
            prefix,
            present,
        } => {
            overlay.set_redistributed(tenant, prefix, present);
        }
    }
    None
}

impl Core {
    /// The loop around what [`prepare`] made.
    pub(super) fn new(
        config: Config,
        (classes, keys): (Classes, SessionKeys),
        (overlay, granted): (Overlay, BTreeSet<String>),
        (bgp, bfd): (Bgp, Bfd),
        dataplane: Dataplane,
        sites: Sites,
        helpers: watch::Sender<BTreeSet<IpAddr>>,
    ) -> (Self, Queries) {
        let (requests, inbox) = mpsc::channel(64);
        let converged = Arc::new(AtomicBool::new(false));
        let mut health = Health::new();
        health.watch(&config);
        let queries = Queries {
            requests,
            converged: converged.clone(),
            reasons: health.reasons(),
        };
        let core = Self {
            overlay,
            bgp,
            bfd,
            dataplane,
            unheard: 1 + sites.len(),
            waiting: 1 + sites.len(),
            sites,
            health,
            accept: config
                .neighbors
                .iter()
                .map(|one| (one.address, one.accept_vnis.clone()))
                .collect(),
            dynamic: Vec::new(),
            accept_of: HashMap::new(),
            unreached: BTreeSet::new(),
            known_ids: BTreeSet::new(),
            reach_changed: true,
            watched: BTreeSet::new(),
            // Told by `prepare`.
            lifelines: setup::lifelines(&config),
            granted,
            helpers,
            requests: inbox,
            converged,
            settle_at: None,
            config,
            classes,
            keys,
        };
        (core, queries)
    }

    /// Runs until BGP or the data plane ends.
    pub(super) async fn run(
        mut self,
        mut bgp: mpsc::Receiver<BgpEvent>,
        mut dataplane: mpsc::Receiver<DataplaneEvent>,
    ) {
        let links = self.bgp.clone();
        let tell = move |neighbor, lost: Option<&str>| {
            let lost = lost.map(str::to_owned);
            links.post(move |speaker, now| speaker.handle_link(neighbor, lost.as_deref(), now))
        };
        self.dataplane.tell_neighbor_links(Box::new(tell)).await;
        self.watch_links().await;
        self.watch_paths().await;
        loop {
            let settle_at = self.settle_at;
            let settle = async {
                match settle_at {
                    Some((quiet, last)) => tokio::time::sleep_until(quiet.min(last)).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                event = dataplane.recv() => match event {
                    Some(event) => self.handle_dataplane(event).await,
                    None => return,
                },
                Some(request) = self.requests.recv() => match request {
                    Request::Question(question) => {
                        question(&self.overlay);
                        continue;
                    }
                    Request::Reload(config, reply) => {
                        let reloaded = self.reload(*config).await;
                        self.watch_links().await;
                        self.watch_paths().await;
                        info!("reloaded: {reloaded}");
                        // Who asked may have gone.
                        let _ = reply.send(reloaded);
                    }
                    Request::Keys(keys, reply) => {
                        self.set_keys(keys).await;
                        // Who asked may have gone.
                        let _ = reply.send(());
                        continue;
                    }
                    Request::Granted(granted, reply) => {
                        self.granted = granted;
                        self.tell_interfaces().await;
                        // Who asked may have gone.
                        let _ = reply.send(());
                    }
                    Request::Origins(origins, reply) => {
                        self.set_origins(origins).await;
                        // Who asked may have gone.
                        let _ = reply.send(());
                    }
                },
                event = bgp.recv() => match event {
                    Some(event) => self.handle_bgp(event).await,
                    None => return,
                },
                Some((label, healthy)) = self.health.next() => {
                    self.overlay.set_health(label, healthy);
                }
                Some(event) = self.sites.next() => {
                    let (overlay, bgp) = (&mut self.overlay, &self.bgp);
                    let progress = self.sites.handle(event, overlay, bgp, &self.dataplane).await;
                    if matches!(progress, Some(Progress::Heard | Progress::HeardAndConverged)) {
                        self.handle_heard().await;
                    }
                    if matches!(progress, Some(Progress::Converged | Progress::HeardAndConverged)) {
                        self.handle_converged();
                    }
                }
                () = settle => {
                    self.settle_at = None;
                    self.dataplane.settle().await;
                    continue;
                }
            }
            if let Some((quiet, _)) = &mut self.settle_at {
                *quiet = Instant::now() + QUIET;
            }
            self.pass_on().await;
        }
    }

    async fn handle_bgp(&mut self, event: BgpEvent) {
        match event {
            BgpEvent::Routes(batch) => self.handle_routes(&batch).await,
            BgpEvent::NextHops { track, untrack } => {
                self.dataplane.track(track).await;
                self.dataplane.untrack(untrack).await;
            }
            BgpEvent::Heard => self.handle_heard().await,
            BgpEvent::Sessions => {
                let asked = self.bgp.with(|speaker, now| speaker.helpers(now)).await;
                if let Some(helpers) = asked {
                    self.helpers.send_if_modified(|known| {
                        let changed = *known != helpers;
                        *known = helpers;
                        changed
                    });
                }
                self.watch_dynamic().await;
            }
            BgpEvent::Converged { complete } => {
                self.converged.store(true, Ordering::Relaxed);
                if complete {
                    info!("the routes of all neighbours are there");
                } else {
                    warn!("some neighbours have not sent their routes: going on without them");
                }
                self.handle_converged();
            }
        }
    }

    /// The neighbours of one more speaker have told everything. When all have, everything that goes from one speaker to
    /// another is known.
    async fn handle_heard(&mut self) {
        self.unheard = self.unheard.saturating_sub(1);
        if self.unheard == 0 {
            self.pass_on().await;
            self.bgp
                .with(|speaker, now| speaker.routes_complete(now))
                .await;
            self.sites.complete().await;
        }
    }

    /// So many more speakers are to tell everything, and have not converged.
    pub(super) fn await_sites(&mut self, started: usize) {
        self.unheard += started;
        self.waiting += started;
    }

    /// One more speaker has converged.
    fn handle_converged(&mut self) {
        self.waiting = self.waiting.saturating_sub(1);
        if self.waiting == 0 {
            let now = Instant::now();
            self.settle_at = Some((now + QUIET, now + QUIET_AT_LAST));
        }
    }

    async fn handle_routes(&mut self, batch: &RouteBatch) {
        let unknown = |path: &ReportedPath| {
            path.source != PeerId::LOCAL && !self.accept_of.contains_key(&path.source)
        };
        if batch.paths.iter().any(unknown) {
            let accept = self.accept.clone();
            let groups = self.config.listening();
            let groups: HashMap<String, VniSet> = groups
                .map(|(group, one)| (group.name.clone(), one.accept_vnis.clone()))
                .collect();
            self.accept_of = self
                .bgp
                .with(move |speaker, _| {
                    let peers = speaker.addresses().into_iter();
                    peers
                        .map(|(peer, address)| {
                            let group = || {
                                let group = speaker.config_of(peer)?.group.as_deref()?;
                                groups.get(group)
                            };
                            let accepted = accept.get(&address).or_else(group);
                            (peer, accepted.cloned().unwrap_or_default())
                        })
                        .collect()
                })
                .await
                .unwrap_or_default();
            for (peer, accept) in &self.accept_of {
                self.overlay.set_accept(peer.0, accept);
            }
        }
        let nothing = VniSet::none();
        let mut communities: Vec<LargeCommunity> = Vec::new();
        let mut ranges = Vec::new();
        for (prefix, paths) in batch.iter() {
            communities.clear();
            ranges.clear();
            for path in paths {
                let start = communities.len();
                communities.extend(path.attributes.view().large_communities());
                ranges.push(start..communities.len());
            }
            let inputs: Vec<PathInput<'_>> = paths
                .iter()
                .zip(&ranges)
                .filter(|(path, _)| path.eligible)
                .map(|(path, range)| {
                    let key = path.attributes.key();
                    PathInput {
                        source: path.source.0,
                        path_id: path.path_id,
                        local: path.source == PeerId::LOCAL,
                        best: path.best,
                        add_path: path.add_path,
                        accept: self.accept_of.get(&path.source).unwrap_or(&nothing),
                        preference: Preference {
                            // Where packets may not arrive, any other way is better.
                            local_pref: if path.last_resort { 0 } else { key.local_pref },
                            med: key.med,
                            neighbor_as: key.neighbor_as,
                            as_path_length: key.as_path_length,
                            origin: key.origin as u8,
                            ebgp: path.ebgp,
                        },
                        next_hop: path.attributes.next_hop().address,
                        resolves: path.igp_metric < u32::MAX,
                        bandwidth: bandwidth(path),
                        communities: &communities[range.clone()],
                    }
                })
                .collect();
            self.overlay.handle_route(prefix, &inputs);
        }
        self.sites
            .note_prefixes(batch.prefixes.iter().map(|(prefix, _)| *prefix));
    }

    async fn handle_dataplane(&mut self, event: DataplaneEvent) {
        match event {
            DataplaneEvent::SiteReachability { tenant, changes } => {
                self.sites.set_next_hops(tenant, changes).await;
            }
            DataplaneEvent::Refused(changes) => self.handle_refused(changes).await,
            DataplaneEvent::NeighborLink { neighbor, lost } => {
                let told = self.bgp.with(move |speaker, now| {
                    speaker.handle_link(neighbor, lost.as_deref(), now);
                });
                told.await;
            }
            event => {
                self.reach_changed |= matches!(event, DataplaneEvent::EndpointReachability(_));
                if let Some(changes) = handle_attachment(&mut self.overlay, event) {
                    self.set_next_hops(changes).await;
                }
            }
        }
    }

    /// The kernel refuses routes, or does no longer.
    async fn handle_refused(&self, changes: Vec<(IpNet, Option<RefusedIn>)>) {
        if self.config.router.announce_refused {
            return;
        }
        let tables = |tables: RefusedIn| Unforwardable {
            underlay: tables.main,
            vnis: tables.vnis.into_iter().map(Vni::get).collect(),
        };
        let changes = changes.into_iter();
        let changes = changes
            .map(|(prefix, one)| (prefix, one.map(tables)))
            .collect();
        let told = self
            .bgp
            .with(move |speaker, _| speaker.set_unforwardable(changes));
        told.await;
    }

    /// Tells BGP how its next hops are reached.
    async fn set_next_hops(&self, changes: Vec<(IpAddr, Option<Reach>)>) {
        let floors: Vec<(IpAddr, u8)> = changes
            .iter()
            .filter_map(|(address, reach)| Some((*address, (*reach)?.floor)))
            .collect();
        let metrics: Vec<(IpAddr, Option<u32>)> = changes
            .into_iter()
            .map(|(address, reach)| (address, reach.map(|reach| reach.metric)))
            .collect();
        let told = self.bgp.with(move |speaker, now| {
            speaker.rib.set_floors(&floors);
            speaker.set_next_hops(&metrics, now);
        });
        told.await;
    }

    /// Watches the links to those neighbours whose sessions end with them.
    pub(super) async fn watch_links(&mut self) {
        let router = self.config.router.asn;
        let ends = |one: &config::Neighbor| {
            let on_link = one.session.ttl_security.unwrap_or(one.ttl) == 1;
            one.fast_external_fallover && one.asn != router && on_link
        };
        let neighbors = self.config.neighbors.iter().chain(&self.dynamic);
        let wanted: BTreeSet<IpAddr> = neighbors
            .filter(|one| ends(one))
            .map(|one| one.address)
            .collect();
        let new = wanted.difference(&self.watched).copied().collect();
        let gone = self.watched.difference(&wanted).copied().collect();
        self.dataplane.watch_neighbors(new).await;
        self.dataplane.unwatch_neighbors(gone).await;
        self.watched = wanted;
        let wanted = setup::lifelines(&self.config);
        let new = wanted.difference(&self.lifelines).copied().collect();
        let gone = self.lifelines.difference(&wanted).copied().collect();
        self.dataplane.live_by(new).await;
        self.dataplane.live_without(gone).await;
        self.lifelines = wanted;
    }

    /// Dynamic neighbours may have come or gone: their links and paths are watched as those of the others.
    async fn watch_dynamic(&mut self) {
        if self.config.listening().next().is_none() && self.dynamic.is_empty() {
            return;
        }
        let there = self.bgp.with(|speaker, _| speaker.dynamic()).await;
        let there = there.unwrap_or_default().into_iter();
        let dynamic = there.filter_map(|(address, group)| {
            let mut groups = self.config.listening();
            let (_, template) = groups.find(|(one, _)| one.name == *group)?;
            Some(config::Neighbor {
                address,
                ..template.clone()
            })
        });
        let mut dynamic: Vec<config::Neighbor> = dynamic.collect();
        dynamic.sort_by_key(|one| one.address);
        if dynamic != self.dynamic {
            self.dynamic = dynamic;
            self.watch_links().await;
            self.watch_paths().await;
        }
    }

    /// Has BFD watch the paths to those neighbours that it is configured for.
    async fn watch_paths(&self) {
        let sessions = bfd::sessions(&self.config, &self.dynamic);
        if let Err(error) = self.bfd.set(sessions).await {
            warn!(%error, "there is no BFD");
        }
    }

    /// Hands on what the overlay decided.
    pub(super) async fn pass_on(&mut self) {
        for overlap in self.overlay.poll_overlaps() {
            warn!(
                code = "overlap-hidden",
                prefix = %overlap.prefix,
                vni = overlap.vni.get(),
                "another domain's tenant has this prefix too, and the transit between passes one of the two on",
            );
        }
        for conflict in self.overlay.poll_locator_conflicts() {
            warn!(
                code = "locator-conflict",
                id = %conflict.id,
                address = %conflict.other,
                "another router announces this address as the locator of an endpoint id that is taken: it is not used",
            );
        }
        let (track, untrack) = self.overlay.poll_tracking();
        self.reach_changed |= !untrack.is_empty();
        if let Some(intent) = self.overlay.poll_intent() {
            self.sites.note(&intent.routes);
            self.dataplane.apply(intent).await;
        }
        if !track.is_empty() {
            self.dataplane.track_endpoints(track).await;
        }
        if !untrack.is_empty() {
            self.dataplane.untrack_endpoints(untrack).await;
        }
        let changes = self.overlay.poll_originations().into_iter();
        let originations: Vec<Origination> = changes
            .map(|change| self.sites.origination(change))
            .collect();
        if !originations.is_empty() {
            self.bgp.originate(originations).await;
        }
        self.sites.announce(&self.overlay, &self.bgp).await;
        self.reach_changed |= self.overlay.poll_ids_changed();
        if std::mem::take(&mut self.reach_changed) {
            self.export_again().await;
        }
    }

    /// Sessions are signed with other secrets from now on, and stay.
    async fn set_keys(&mut self, keys: SessionKeys) {
        self.keys = keys.clone();
        let neighbors = self.config.neighbors.iter();
        let filed = neighbors.filter(|one| one.session.password_file.is_some());
        let filed: HashSet<IpAddr> = filed.map(|one| one.address).collect();
        let told = self.bgp.with(move |speaker, now| {
            let secrets =
                |one: &NeighborConfig| setup::secrets(filed.contains(&one.address), &keys, one);
            speaker.set_passwords(&secrets, now);
        });
        told.await;
    }

    /// Says which interfaces are the operator's own, and which tenants may attach.
    pub(super) async fn tell_interfaces(&self) {
        let overlay = self.config.overlay.iter();
        let uplinks = overlay.flat_map(|overlay| overlay.uplinks.iter().cloned());
        let (uplinks, granted) = (uplinks.collect(), self.granted.clone());
        self.dataplane.set_interfaces(uplinks, granted).await;
    }

    /// Labels may lead elsewhere than before, or not where they do. The paths are kept, so no neighbour is asked for its routes again.
    async fn set_origins(&mut self, origins: Option<Arc<Origins>>) {
        let before = self.overlay.origins().cloned();
        let changed = self.overlay.set_origins(origins.clone());
        let Some(overlay) = self.config.overlay.as_ref().filter(|_| !changed.is_empty()) else {
            return;
        };
        let administrator = overlay.global_administrator;
        let hook = LabelHook::boxed(&self.config, &self.overlay, &self.classes);
        let told = self.bgp.with(move |speaker, _| {
            let otherwise = |attributes: AttributesView<'_>| {
                let words = (before.as_deref(), origins.as_deref());
                let communities: Vec<LargeCommunity> = attributes.large_communities().collect();
                judged_otherwise(words, &changed, &communities, administrator)
            };
            speaker.rib.set_hook(hook, &otherwise);
        });
        told.await;
    }

    /// What BGP announces of labels whose far ends are no longer reached, or are again.
    async fn export_again(&mut self) {
        let unreached = self.overlay.unreached();
        let known = self.overlay.known_ids();
        let ids = known.symmetric_difference(&self.known_ids);
        let changed: BTreeSet<Endpoint> = unreached
            .symmetric_difference(&self.unreached)
            .copied()
            .chain(ids.map(|id| Endpoint::Id(*id)))
            .collect();
        (self.unreached, self.known_ids) = (unreached, known);
        let Some(overlay) = self.config.overlay.as_ref().filter(|_| !changed.is_empty()) else {
            return;
        };
        let administrator = overlay.global_administrator;
        let hook = LabelHook::boxed(&self.config, &self.overlay, &self.classes);
        let told = self.bgp.with(move |speaker, _| {
            let otherwise = |attributes: AttributesView<'_>| {
                leads_to_any(attributes.large_communities(), administrator, |endpoint| {
                    changed.contains(&endpoint)
                })
            };
            speaker.rib.set_hook(hook, &otherwise);
        });
        told.await;
    }
}

/// What a path's Link Bandwidth community says, 1,000 octets a second; 0 without one.
fn bandwidth(path: &ReportedPath) -> u32 {
    let mut communities = path.attributes.view().extended_communities();
    let bandwidth = communities.find_map(ExtendedCommunity::as_link_bandwidth);
    // What is narrower counts as 1, what is wider as the most: `as` saturates.
    bandwidth.map_or(0, |bandwidth| ((bandwidth / 1000.0) as u32).max(1))
}

/// How wide this router says that it is.
pub(super) fn announced_bandwidth(config: &Config) -> Option<ExtendedCommunity> {
    const OCTETS_PER_MBIT: f32 = 125_000.0;
    let megabits = config.overlay.as_ref()?.bandwidth?;
    // The community has room for 2 octets of the AS number.
    let asn = u16::try_from(config.router.asn.0).unwrap_or(Asn::TRANS.0 as u16);
    let bandwidth = megabits as f32 * OCTETS_PER_MBIT;
    Some(ExtendedCommunity::link_bandwidth(asn, bandwidth))
}

/// Attributes of a route that begins here.
pub(super) fn own_attributes() -> AttributesBuilder {
    let mut builder = AttributesBuilder::new();
    builder.set_origin(Origin::Igp);
    builder.set_empty_as_path();
    builder
}

/// The same with labels, and how wide we are.
pub(super) fn labelled(
    mut builder: AttributesBuilder,
    communities: &[LargeCommunity],
    bandwidth: Option<ExtendedCommunity>,
) -> Vec<u8> {
    builder.set_large_communities(communities.iter().copied());
    if let Some(ExtendedCommunity(octets)) = bandwidth {
        let flags = flags::OPTIONAL | flags::TRANSITIVE;
        builder.set(flags, code::EXTENDED_COMMUNITIES, &octets);
    }
    builder.octets().to_vec()
}
