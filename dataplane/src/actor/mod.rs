//! The thread that owns the data plane's state.
//!
//! `wanted` is the intent as kernel objects, `held` is what the kernel has of them; a flush sends the difference. Keys
//! that may differ are queued, so a change costs what it changes, not a walk over a million routes.

mod attachments;
mod classify;
mod command;
mod devices;
mod drain;
mod flush;
mod former;
mod groups;
pub(crate) mod links;
pub(crate) mod paths;
mod reflections;
mod refusals;
mod report;
mod routes;
mod screen;
mod senders;
mod steps;
pub(crate) mod targets;
mod trace;
mod underlay;
mod upkeep;
mod walls;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use rustc_hash::FxHashMap;
use tokio::sync::{mpsc, oneshot, watch};
use tracing::{info, warn};
use weft_overlay::EndpointId;
use weft_overlay::intent::{GroupId, SiteRoute, TenantId, TenantIntent};

use self::paths::Paths;
use self::refusals::Unforwardable;
use self::routes::Routes;
use self::steps::Steps;
use self::walls::Walls;
use crate::bpf::{Classifier, OwnAddress, Place};
use crate::condition::{ConditionKind, Conditions, Severity};
use crate::model::{Carrier, Family, LAST_RESORT, RouteKey, RouteSpec, Rule};
use crate::monitor::{self, Changes};
use crate::netlink::socket::Netlink;
use crate::next_hops::NextHops;
use crate::resolver::Resolver;
use crate::ruleset_watch;
use crate::snapshot::{self, Address, Link};
use crate::upkeep::{Repairs, Seen};
use crate::ways::WaySets;
use crate::{
    Command, DataplaneConfig, DataplaneEvent, Error, Reach, Segmentation, TellNeighborLink, doctor,
};

/// Alias that marks a tunnel device as ours.
pub(crate) const ALIAS: &str = "weft overlay";
/// What the alias of a tenant's VRF begins with.
pub(crate) const TENANT_ALIAS: &str = "weft tenant ";
/// Events come in bursts: the first is handled at once, and what follows once in this time.
const SETTLE_EVENTS: Duration = Duration::from_millis(20);
/// So long everything else that follows from events waits for what BGP makes of a neighbour whose link is lost: another way comes first.
const OTHER_WAYS: Duration = Duration::from_millis(3);
/// First pause before a refused route is tried again; doubled up to the last.
const RETRY: Duration = Duration::from_secs(1);
const RETRY_LONGEST: Duration = Duration::from_secs(60);

struct Tenant {
    /// Without attachments that no tenant can have, see [`screen`].
    intent: TenantIntent,
    /// The attachments as the intent has them.
    told: Vec<String>,
    table: u32,
    redistribute: Redistribution,
    /// Routes of attachments, as they stand in the table.
    local: BTreeMap<RouteKey, RouteSpec>,
    /// What its own routers told.
    sites: BTreeMap<IpNet, IpAddr>,
    /// IPv6 routes that are wanted in the table: without any there is no table, since each costs the kernel time with
    /// every rule.
    v6_routes: usize,
    /// An attachment has an IPv6 address.
    v6_attached: bool,
}

impl Tenant {
    /// What ends its table: the way out, where it has one and the wall around that stands.
    fn end(&self, breakouts_open: bool) -> RouteSpec {
        match self.intent.breakout {
            Some(_) if breakouts_open => RouteSpec::Throw,
            _ => RouteSpec::Unreachable,
        }
    }

    fn has_table(&self, family: Family) -> bool {
        family == Family::V4 || self.v6_routes > 0 || self.v6_attached
    }
}

/// Routes of the kernel that a tenant announces.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Redistribution {
    /// Networks of its attachments' addresses.
    pub(crate) connected: bool,
    /// Routes of these protocols.
    pub(crate) protocols: BTreeSet<u8>,
}

/// A tunnel device of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Device {
    index: u32,
    mtu: u32,
    up: bool,
}

struct Refused {
    error: String,
    tries: u32,
    retry_at: Instant,
    /// A route of somebody else stands there.
    taken: bool,
}

/// What an address is tracked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Purpose {
    /// It is the next hop of routes.
    NextHop,
    /// It is the far end of tunnels.
    Endpoint,
    /// It is a neighbour that is to be on a link.
    Neighbor,
    /// It is a neighbour over several hops, or the controller.
    Lifeline,
    /// It is on a link of a tenant's.
    Site(TenantId),
}

struct Tracked {
    users: u32,
    /// As last reported.
    reach: Option<Option<Reach>>,
    /// The links that it is reached by.
    links: Vec<u32>,
}

pub(crate) struct Actor {
    config: DataplaneConfig,
    netlink: Netlink,
    events: mpsc::Sender<DataplaneEvent>,
    links: HashMap<u32, Link>,
    addresses: Vec<Address>,
    /// What else is the router's own.
    local_routes: Vec<IpNet>,
    devices: BTreeMap<Carrier, Device>,
    /// The numbers of devices that tunnels lead through.
    tunnel_links: BTreeMap<Carrier, u32>,
    /// Devices that the kernel refused, in its words.
    missing_devices: BTreeMap<Carrier, String>,
    /// Turns VNIs into marks, where the kernel lets it.
    classifier: Option<Classifier>,
    /// Devices that have the classifier, and which of its programs; `None` for an earlier process's that are not wanted.
    classified: BTreeMap<u32, Option<Place>>,
    /// The device that was looked at last for programs that somebody took away, and when others are.
    programs_seen: u32,
    watch_programs_at: Instant,
    /// The mark of each VNI, as the classifier knows it.
    marks_held: BTreeMap<u32, u32>,
    /// Who may send.
    senders: senders::Senders,
    /// Interfaces that no tenant can have, as tenants' attachments were screened by them.
    unfit: screen::Unfit,
    /// Interfaces that were tenants', and those of them that the next start is to know of.
    former: former::Former,
    said: Said,
    /// The router's addresses, as the classifier knows them.
    addresses_held: BTreeSet<OwnAddress>,
    /// Tenants are VRFs.
    vrf: bool,
    /// VRF devices of ours: link by table.
    vrfs: BTreeMap<u32, u32>,
    tenants: BTreeMap<TenantId, Tenant>,
    by_table: FxHashMap<u32, TenantId>,
    next_hops: NextHops,
    groups: FxHashMap<GroupId, groups::Shared>,
    /// Routers that tunnels lead to, with the number of groups that do.
    peers: BTreeMap<(Carrier, IpAddr, Option<EndpointId>), u32>,
    /// How large packets to them may be, where that is less than their devices say.
    paths: Paths,
    /// Far ends have come that no device was fitted to.
    new_peers: bool,
    wanted: Routes,
    held: Routes,
    /// What a tenant route leads to.
    group_of: FxHashMap<RouteKey, GroupId>,
    queue: Vec<RouteKey>,
    rules_wanted: BTreeSet<Rule>,
    rules_held: BTreeSet<Rule>,
    vnis_wanted: BTreeSet<u32>,
    vnis_held: BTreeSet<(Carrier, u32)>,
    neighbours_held: BTreeSet<(Carrier, IpAddr)>,
    refused: BTreeMap<RouteKey, Refused>,
    /// What of it is told of.
    unforwardable: Unforwardable,
    tell_neighbor_link: Option<TellNeighborLink>,
    /// How many there were when they were told last.
    refused_noted: usize,
    /// Objects that the kernel refused: tried again then.
    later: BTreeMap<flush::Object, Instant>,
    /// Netlink failed: nothing is sent before then.
    held_until: Option<Instant>,
    tracked: BTreeMap<(Purpose, IpAddr), Tracked>,
    /// Those that are to be asked about again, since a route of ours leads to them, or no longer.
    outdated: BTreeSet<(Purpose, IpAddr)>,
    /// Routes that the underlay is to have, and their next hops.
    resolver: Resolver,
    /// Sets of ways that routes lead over.
    way_sets: WaySets,
    attachments: BTreeMap<String, bool>,
    /// Probes of other routers that this one is to send back.
    reflections: reflections::Reflections,
    /// What they have had.
    had: BTreeMap<String, attachments::Had>,
    redistributed: BTreeSet<(TenantId, IpNet)>,
    /// To be told: reachability, and the rest.
    reach_news: BTreeMap<Purpose, Vec<(IpAddr, Option<Reach>)>>,
    news: Vec<DataplaneEvent>,
    /// It is known whose packets come in where, so that the host may forward.
    forwards: bool,
    walls: Walls,
    steps: Steps,
    /// Tenants, links or devices changed: rules and nftables are to be looked at again.
    policy_changed: bool,
    /// Neighbours, next hops or far ends changed: what breakouts must not reach.
    underlay_changed: bool,
    settled: bool,
    conditions: Conditions,
    /// Settings of the host that have been right, and what was put right of late.
    seen: Seen,
    repairs_made: Repairs,
    /// When something that somebody changes back is to be put right again.
    upkeep_at: Option<Instant>,
    /// When rules of others are to be looked at, since they, or what they may take, changed; and whether some may take something.
    watch_rules_at: Option<Instant>,
    rules_suspected: bool,
    pending: Changes,
    route_requests: u64,
    repairs: u64,
    events_lost: u64,
}

/// What others follow.
#[derive(Debug)]
pub(crate) struct Said {
    /// The version of what can be probed.
    pub(crate) targets: watch::Sender<u64>,
    /// Interfaces that were tenants', for the next start.
    pub(crate) record: watch::Sender<BTreeMap<String, u64>>,
    /// Interfaces that no tenant can have, and why.
    pub(crate) reserved: watch::Sender<BTreeMap<String, String>>,
}

/// Reads the kernel and starts the thread; says whether an earlier process left tenant routes.
pub(crate) async fn spawn(
    config: DataplaneConfig,
    inbox: mpsc::Receiver<Command>,
    events: mpsc::Sender<DataplaneEvent>,
    said: Said,
) -> Result<bool, Error> {
    let (ready, started) = oneshot::channel();
    std::thread::Builder::new()
        .name("weft-dataplane".into())
        .spawn(move || {
            let runtime = match tokio::runtime::Builder::new_current_thread()
                .enable_time()
                .build()
            {
                Ok(runtime) => runtime,
                Err(source) => {
                    let _ = ready.send(Err(Error::Kernel {
                        what: "cannot start a runtime",
                        source,
                    }));
                    return;
                }
            };
            runtime.block_on(async {
                match Actor::new(config, events, said) {
                    Ok((actor, changes, found)) => {
                        // Where nobody waits for the answer, nobody sends commands either.
                        let _ = ready.send(Ok(found));
                        actor.run(inbox, changes).await;
                    }
                    Err(error) => {
                        let _ = ready.send(Err(error));
                    }
                }
            });
        })
        .map_err(|source| Error::Kernel {
            what: "cannot start a thread",
            source,
        })?;
    started.await.unwrap_or_else(|_| {
        Err(Error::Kernel {
            what: "the data plane's thread ended",
            source: std::io::ErrorKind::Other.into(),
        })
    })
}

impl Actor {
    fn new(
        config: DataplaneConfig,
        events: mpsc::Sender<DataplaneEvent>,
        said: Said,
    ) -> Result<(Self, mpsc::Receiver<Changes>, bool), Error> {
        #[cfg_attr(not(test), expect(unused_mut, reason = "tests plan faults"))]
        let mut netlink = Netlink::open().map_err(Error::kernel("cannot open netlink"))?;
        #[cfg(test)]
        {
            netlink.faults = config.faults.clone();
        }
        let port = netlink
            .port()
            .map_err(Error::kernel("cannot open netlink"))?;
        // Before the first read, so that no change falls between.
        let changes = monitor::start(config.protocol, port, config.event_buffer)
            .map_err(Error::kernel("cannot watch the kernel"))?;
        let mut actor = Self {
            config,
            netlink,
            events,
            links: HashMap::new(),
            addresses: Vec::new(),
            local_routes: Vec::new(),
            devices: BTreeMap::new(),
            tunnel_links: BTreeMap::new(),
            missing_devices: BTreeMap::new(),
            classifier: None,
            classified: BTreeMap::new(),
            programs_seen: 0,
            watch_programs_at: Instant::now() + classify::LOOK,
            marks_held: BTreeMap::new(),
            senders: senders::Senders::default(),
            unfit: screen::Unfit::new(),
            former: former::Former::default(),
            said,
            addresses_held: BTreeSet::new(),
            vrf: false,
            vrfs: BTreeMap::new(),
            tenants: BTreeMap::new(),
            by_table: FxHashMap::default(),
            next_hops: NextHops::default(),
            groups: FxHashMap::default(),
            peers: BTreeMap::new(),
            paths: Paths::default(),
            new_peers: false,
            wanted: Routes::default(),
            held: Routes::default(),
            group_of: FxHashMap::default(),
            queue: Vec::new(),
            rules_wanted: BTreeSet::new(),
            rules_held: BTreeSet::new(),
            vnis_wanted: BTreeSet::new(),
            vnis_held: BTreeSet::new(),
            neighbours_held: BTreeSet::new(),
            refused: BTreeMap::new(),
            unforwardable: Unforwardable::default(),
            tell_neighbor_link: None,
            refused_noted: 0,
            later: BTreeMap::new(),
            held_until: None,
            tracked: BTreeMap::new(),
            outdated: BTreeSet::new(),
            resolver: Resolver::default(),
            way_sets: WaySets::default(),
            attachments: BTreeMap::new(),
            reflections: reflections::Reflections::default(),
            had: BTreeMap::new(),
            redistributed: BTreeSet::new(),
            reach_news: BTreeMap::new(),
            news: Vec::new(),
            forwards: false,
            walls: Walls::default(),
            steps: Steps::default(),
            policy_changed: true,
            underlay_changed: false,
            settled: false,
            conditions: Conditions::default(),
            seen: Seen::default(),
            repairs_made: Repairs::default(),
            upkeep_at: None,
            watch_rules_at: None,
            rules_suspected: false,
            pending: Changes::default(),
            route_requests: 0,
            repairs: 0,
            events_lost: 0,
        };
        actor
            .read_links()
            .map_err(Error::kernel("cannot read the links"))?;
        actor
            .read_objects()
            .map_err(Error::kernel("cannot read the routes"))?;
        if actor.config.endpoint.is_some() {
            actor.vrf = match actor.config.segmentation {
                Segmentation::Vrf => true,
                Segmentation::Table => false,
                Segmentation::Auto => doctor::has_vrf(),
            };
            actor.start_classifier();
            actor.find_former_attachments();
            actor.adopt_senders();
            actor.ensure_devices()?;
            actor.adopt_paths();
        }
        actor.conditions.set(
            Instant::now(),
            (ConditionKind::Starting, "router"),
            Severity::Degraded,
            "the routes of the neighbours are not all there yet",
            None,
        );
        let found = !actor.held.is_empty();
        if found {
            actor.steps.in_kernel = crate::steps::Loaded::found();
            actor.steps.inherited = actor.steps.in_kernel.is_some();
            actor.walls = Walls::inherited();
            info!(
                routes = actor.held.len(),
                next_hops = actor.next_hops.in_kernel(),
                "found the forwarding state of an earlier process: adopted"
            );
        }
        Ok((actor, changes, found))
    }

    /// Reads everything of ours; what differs from what is wanted is queued.
    fn read_objects(&mut self) -> std::io::Result<()> {
        let protocol = self.config.protocol;
        let next_hops = snapshot::next_hops(&mut self.netlink, protocol)?;
        self.next_hops.adopt_all(next_hops);
        self.held = snapshot::routes(&mut self.netlink, &mut self.way_sets, protocol)?
            .into_iter()
            .collect();
        self.rules_held = snapshot::rules(&mut self.netlink, protocol)?
            .into_iter()
            .collect();
        self.vnis_held.clear();
        for (carrier, device) in &self.devices {
            if carrier.has_vni_filter() {
                let vnis = snapshot::vnis(&mut self.netlink, device.index)?;
                self.vnis_held
                    .extend(vnis.into_iter().map(|vni| (*carrier, vni)));
            }
        }
        // Permanent entries are set again: that costs one message a router, and reading them costs as much.
        self.neighbours_held.clear();
        let differing: Vec<RouteKey> = self
            .wanted
            .iter()
            .filter(|(key, spec)| {
                let held = self.held.get(key);
                !held.is_some_and(|held| spec.is_held_as(held)) && !self.lacks_object(spec)
            })
            .map(|(key, _)| *key)
            .collect();
        self.queue.extend(differing);
        if self.settled {
            self.queue_leftovers();
        }
        Ok(())
    }

    fn queue_leftovers(&mut self) {
        self.queue.extend(
            self.held
                .keys()
                .filter(|key| !self.wanted.contains_key(key)),
        );
    }

    async fn run(
        mut self,
        mut inbox: mpsc::Receiver<Command>,
        mut changes: mpsc::Receiver<Changes>,
    ) {
        let mut due: Option<Instant> = None;
        let mut handled = Instant::now() - SETTLE_EVENTS;
        let events = self.events.clone();
        let mut audit_at = Instant::now() + self.config.audit;
        // What is closed is so before anything else is there.
        self.close_former_attachments();
        if !self.former.closed().is_empty() {
            self.classify();
            self.flush();
        }
        loop {
            let retry = self.refused.values().map(|refused| refused.retry_at).min();
            let later = self.later.values().min().copied();
            let next = due
                .into_iter()
                .chain([audit_at])
                .chain(retry)
                .chain(later)
                .chain(self.held_until)
                .chain(self.walls.retry)
                .chain(self.steps.next())
                .chain(self.upkeep_at)
                .chain(self.watch_rules_at)
                .chain(self.senders.next)
                .chain(self.next_paths())
                .chain(self.classifier.as_ref().map(|_| self.watch_programs_at))
                .min()
                .unwrap_or(audit_at);
            tokio::select! {
                biased;
                () = tokio::time::sleep_until(next.into()) => {}
                // The owner has room again.
                Ok(_) = events.reserve(), if self.has_news() => {}
                Some(mut change) = changes.recv() => {
                    // A carrier that is lost takes its link's neighbours along, and they are told of first: what is nothing to us is not
                    // to make the link wait.
                    change.neighbours.retain(|link| self.is_device(*link));
                    if change != Changes::default() {
                        self.pending.add(change);
                        due.get_or_insert_with(|| Instant::now().max(handled + SETTLE_EVENTS));
                    }
                }
                command = inbox.recv() => match command {
                    Some(command) => {
                        if self.handle(command) {
                            return;
                        }
                    }
                    None => return,
                },
            }
            let now = Instant::now();
            if due.take_if(|due| *due <= now).is_some() {
                if self.lose_neighbors() {
                    due = Some(now + OTHER_WAYS);
                } else {
                    self.handle_changes();
                    handled = Instant::now();
                }
            }
            if audit_at <= now {
                self.repair();
                // However large the tables are, looking at them takes a hundredth of the time at most.
                audit_at = Instant::now() + self.config.audit.max(now.elapsed() * 100);
            }
            if self.watch_programs_at <= now {
                self.watch_programs();
                self.watch_reflections(now);
                self.watch_programs_at = Instant::now() + classify::LOOK;
            }
            self.policy_changed |= self.walls.retry.take_if(|at| *at <= now).is_some();
            if self.upkeep_at.is_some_and(|at| at <= now) {
                self.keep_settings(None);
                self.keep_devices();
            }
            self.upkeep_at = self.repairs_made.next(now);
            self.look_at_paths();
            let ready: Vec<RouteKey> = self
                .refused
                .iter()
                .filter(|(_, refused)| refused.retry_at <= now)
                .map(|(key, _)| *key)
                .collect();
            self.queue.extend(ready);
            self.flush();
            if self.watch_rules_at.is_some_and(|at| at <= now) {
                self.watch_rules();
            }
            self.resolve_outdated();
            self.report();
        }
    }

    fn set_site_route(&mut self, route: &SiteRoute) {
        let Some(tenant) = self.tenants.get_mut(&route.tenant) else {
            return;
        };
        match route.via {
            Some(via) => tenant.sites.insert(route.prefix, via),
            None => tenant.sites.remove(&route.prefix),
        };
        let key = RouteKey {
            table: tenant.table,
            prefix: route.prefix,
            metric: 0,
        };
        // A route from the overlay may have taken its place already.
        if route.via.is_some() || !self.group_of.contains_key(&key) {
            self.group_of.remove(&key);
            self.want_local(key);
        }
    }

    /// What leads to a tenant's own site, if anything does: its links first, then what its routers told.
    fn want_local(&mut self, key: RouteKey) {
        let tenant = self.by_table.get(&key.table);
        let spec = tenant
            .and_then(|id| self.tenants.get(id))
            .and_then(|tenant| {
                let site = |via: &IpAddr| RouteSpec::Via {
                    gateway: *via,
                    interface: None,
                };
                let local = tenant.local.get(&key).copied();
                local.or_else(|| tenant.sites.get(&key.prefix).map(site))
            });
        match spec {
            Some(spec) => self.want(key, spec),
            None => self.unwant(key),
        }
    }

    fn want(&mut self, key: RouteKey, spec: RouteSpec) {
        self.forget_refusal(&key);
        if self.wanted.insert(key, spec).is_none() {
            self.count_v6(&key, true);
        }
        self.queue.push(key);
    }

    fn unwant(&mut self, key: RouteKey) {
        self.forget_refusal(&key);
        if self.wanted.remove(&key).is_some() {
            self.count_v6(&key, false);
        }
        self.queue.push(key);
    }

    /// Counts a tenant's IPv6 routes: its table comes with the first one and goes with the last.
    fn count_v6(&mut self, key: &RouteKey, more: bool) {
        if Family::of(key.prefix) == Family::V4 || key.metric != 0 {
            return;
        }
        let Some(id) = self.by_table.get(&key.table).copied() else {
            return;
        };
        let Some(tenant) = self.tenants.get_mut(&id) else {
            return;
        };
        let before = tenant.has_table(Family::V6);
        tenant.v6_routes = if more {
            tenant.v6_routes + 1
        } else {
            tenant.v6_routes.saturating_sub(1)
        };
        if before != tenant.has_table(Family::V6) {
            self.end_v6_table(id);
        }
    }

    /// The route that ends a tenant's IPv6 table is there as long as the table.
    fn end_v6_table(&mut self, id: TenantId) {
        let Some(tenant) = self.tenants.get(&id) else {
            return;
        };
        self.policy_changed = true;
        let key = last_resort(tenant.table, Family::V6);
        if tenant.has_table(Family::V6) {
            let end = tenant.end(self.walls.breakouts_open);
            self.want(key, end);
        } else {
            self.unwant(key);
        }
    }

    fn set_tenant(&mut self, id: TenantId, intent: TenantIntent) {
        // Screened with the links, before anything is sent.
        let told = intent.attachments.clone();
        let table = self.config.table_base + intent.primary_vni.get();
        self.policy_changed = true;
        self.drain(id, &intent);
        self.by_table.insert(table, id);
        match self.tenants.get_mut(&id) {
            Some(tenant) => (tenant.intent, tenant.told, tenant.table) = (intent, told, table),
            None => {
                let tenant = Tenant {
                    intent,
                    told,
                    table,
                    redistribute: Redistribution::default(),
                    local: BTreeMap::new(),
                    sites: BTreeMap::new(),
                    v6_routes: 0,
                    v6_attached: false,
                };
                self.tenants.insert(id, tenant);
            }
        }
        let Some(tenant) = self.tenants.get(&id) else {
            return;
        };
        let end = tenant.end(self.walls.breakouts_open);
        let has_v6 = tenant.has_table(Family::V6);
        self.want(last_resort(table, Family::V4), end);
        if has_v6 {
            self.want(last_resort(table, Family::V6), end);
        }
    }

    fn remove_tenant(&mut self, id: TenantId) {
        let Some(tenant) = self.tenants.remove(&id) else {
            return;
        };
        self.policy_changed = true;
        self.steps.changed = true;
        self.by_table.remove(&tenant.table);
        let keys: Vec<RouteKey> = self
            .wanted
            .keys()
            .filter(|key| key.table == tenant.table)
            .copied()
            .collect();
        for key in keys {
            self.unwant(key);
            self.group_of.remove(&key);
        }
    }

    fn handle_changes(&mut self) {
        let changes = std::mem::take(&mut self.pending);
        self.events_lost += changes.lost;
        if changes.walls {
            self.close_walls();
        }
        let mut ours_changed = false;
        if changes.links {
            let before = self.used_links();
            let in_the_way = self.links_in_the_way();
            if let Err(error) = self.read_links() {
                warn!(%error, "cannot read the links");
            }
            let mut in_the_way = in_the_way.iter();
            let made_way = in_the_way.any(|link| !self.links.contains_key(link));
            // A link that goes down takes routes and next hops along without a word, also where it is raised again at once.
            // So it is within one burst, where nothing looks otherwise than before.
            let mut shaken = changes.shaken.iter();
            let shaken = shaken.any(|link| self.next_hops.lead_through(*link));
            ours_changed = before != self.used_links() || made_way || shaken;
            self.keep_devices();
            ours_changed |= before != self.used_links();
            self.policy_changed = true;
        }
        if changes.links || changes.underlay {
            // First of all: what depends on it may have another way.
            self.follow_underlay();
            self.report();
            self.reread_routes(&changes.shaken);
            self.attach();
            if self
                .tracked
                .keys()
                .any(|(purpose, _)| matches!(purpose, Purpose::Site(_)))
            {
                // What is on a link is known by the route to it.
                self.flush();
                self.resolve_sites();
                self.report();
            }
        }
        if !changes.settings.is_empty() {
            self.keep_settings(Some(&changes.settings));
        }
        // What others' rules lead to may be in any table.
        if changes.rules || (changes.underlay || changes.links) && self.rules_suspected {
            self.watch_rules_at = Some(Instant::now());
        }
        let displaced = self.is_displaced(&changes);
        if ours_changed || changes.drift || displaced || !changes.neighbours.is_empty() {
            self.repair();
        }
    }

    /// Something of ours was replaced by what is signed as nobody's or another one's. Where such a thing has gone ours is tried again.
    fn is_displaced(&mut self, changes: &Changes) -> bool {
        for key in &changes.places {
            if let Some(refused) = self.refused.get_mut(key) {
                refused.retry_at = Instant::now();
            }
        }
        let mut places = changes.places.iter();
        let mut next_hops = changes.next_hops.iter();
        places.any(|key| self.held.contains_key(key))
            || next_hops.any(|id| self.next_hops.get(*id).is_some())
    }

    /// Whether the link of this index is one of our tunnel devices.
    fn is_device(&self, link: u32) -> bool {
        self.devices.values().any(|device| device.index == link)
    }

    /// Reads what the kernel holds of ours; what differs is sent with the next flush.
    fn repair(&mut self) {
        self.watch_rules_at = Some(Instant::now());
        self.check_classifier();
        // Without nf_tables there is none.
        if ruleset_watch::any_dormant().unwrap_or(false) {
            self.close_walls();
        }
        match self.ensure_devices() {
            Ok(()) => {
                self.conditions
                    .clear(Instant::now(), ConditionKind::Device, "tunnels");
            }
            Err(error) => self.conditions.set(
                Instant::now(),
                (ConditionKind::Device, "tunnels"),
                Severity::Down,
                format!("tunnels end nowhere: {error}"),
                None,
            ),
        }
        if let Err(error) = self.read_objects() {
            warn!(%error, "cannot read the kernel's tables");
        }
        let unknown_vnis = self
            .devices
            .keys()
            .filter(|carrier| carrier.has_vni_filter());
        let unknown_vnis = unknown_vnis
            .map(|carrier| {
                let vnis = self.vnis_wanted.iter();
                vnis.filter(|vni| !self.vnis_held.contains(&(*carrier, **vni)))
                    .count()
            })
            .sum::<usize>();
        let lost = self.queue.len()
            + self.next_hops.missing().len()
            + self.rules_wanted.difference(&self.rules_held).count()
            + unknown_vnis;
        if lost > 0 {
            self.repairs += 1;
            info!(objects = lost, "what was ours had been changed: repairing");
        }
    }

    /// The links that what is ours depends on, and whether they are set up: the loss of a carrier takes nothing along.
    fn used_links(&self) -> Vec<(u32, bool)> {
        let devices = self.devices.values().map(|device| device.index);
        let tracked = self.tracked.values();
        let tracked = tracked.flat_map(|tracked| tracked.links.iter().copied());
        let attachments = self.attachments.keys().filter_map(|name| {
            let link = self.links.values().find(|link| link.name == *name)?;
            Some(link.index)
        });
        let mut used: Vec<(u32, bool)> = devices
            .chain(tracked)
            .chain(attachments)
            .chain(self.vrfs.values().copied())
            .map(|index| {
                let up = self.links.get(&index).is_some_and(|link| link.admin);
                (index, up)
            })
            .collect();
        used.sort_unstable();
        used.dedup();
        used
    }

    /// Tells what there is to tell, as far as the owner has room: it may be waiting for us itself.
    fn report(&mut self) {
        while self.has_news() {
            let Ok(permit) = self.events.try_reserve() else {
                return;
            };
            permit.send(match self.reach_news.pop_first() {
                None => self.news.remove(0),
                Some((Purpose::NextHop | Purpose::Neighbor | Purpose::Lifeline, changes)) => {
                    DataplaneEvent::Reachability(changes)
                }
                Some((Purpose::Endpoint, changes)) => {
                    DataplaneEvent::EndpointReachability(metrics(changes))
                }
                Some((Purpose::Site(tenant), changes)) => DataplaneEvent::SiteReachability {
                    tenant,
                    changes: metrics(changes),
                },
            });
        }
    }

    fn has_news(&self) -> bool {
        !self.reach_news.is_empty() || !self.news.is_empty()
    }
}

fn metrics(changes: Vec<(IpAddr, Option<Reach>)>) -> Vec<(IpAddr, Option<u32>)> {
    let changes = changes.into_iter();
    changes
        .map(|(address, reach)| (address, reach.map(|reach| reach.metric)))
        .collect()
}

/// The route that ends a tenant's table: what has no other goes no further.
fn last_resort(table: u32, family: Family) -> RouteKey {
    let prefix = match family {
        Family::V4 => Ipv4Net::default().into(),
        Family::V6 => Ipv6Net::default().into(),
    };
    RouteKey {
        table,
        prefix,
        metric: LAST_RESORT,
    }
}
