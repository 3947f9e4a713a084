//! The thread that owns the data plane's state.
//!
//! `wanted` is the intent as kernel objects, `held` is what the kernel has of them; a flush sends the difference. Keys
//! that may differ are queued, so a change costs what it changes, not a walk over a million routes.

mod flush;
mod links;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use ipnet::IpNet;
use rustc_hash::FxHashMap;
use tokio::sync::{mpsc, oneshot};
use tracing::{info, warn};
use weft_overlay::Encapsulation;
use weft_overlay::intent::{IntentDelta, NextHopSet, TenantId, TenantIntent};

use crate::model::{
    Family, LAST_RESORT, NextHop, NextHopKind, RouteKey, RouteSpec, Rule, UNDERLAY_METRIC,
};
use crate::monitor::{self, Changes};
use crate::netlink::socket::Netlink;
use crate::next_hops::NextHops;
use crate::snapshot::{self, Address, Link};
use crate::{
    Command, DEVICE, DataplaneConfig, DataplaneEvent, DataplaneStatus, Error, KernelRoute,
    RefusedRoute, TenantTable,
};

/// Alias that marks the device as ours.
pub(crate) const ALIAS: &str = "weft overlay";
/// Events come in bursts: what they are about is read once, this long after the first.
const SETTLE_EVENTS: Duration = Duration::from_millis(20);
/// First pause before a refused route is tried again; doubled up to the last.
const RETRY: Duration = Duration::from_secs(1);
const RETRY_LONGEST: Duration = Duration::from_secs(60);

struct Tenant {
    intent: TenantIntent,
    table: u32,
    redistribute: (bool, bool),
    /// Routes of attachments, as they stand in the table.
    local: BTreeMap<RouteKey, RouteSpec>,
}

/// A set of next hops by its address in memory, and the family of the routes that use it.
type SetKey = (usize, Family);

/// What a set came to: its object's id, or why it has none; and how many routes use it. Holding the set keeps its
/// address from being reused.
type SetObject = (Arc<NextHopSet>, Result<u32, String>, u32);

struct Refused {
    error: String,
    tries: u32,
    retry_at: Instant,
}

struct Tracked {
    users: u32,
    /// As last reported.
    metric: Option<Option<u32>>,
    /// The link that it is reached by.
    link: Option<u32>,
}

pub(crate) struct Actor {
    config: DataplaneConfig,
    netlink: Netlink,
    events: mpsc::Sender<DataplaneEvent>,
    links: HashMap<u32, Link>,
    addresses: Vec<Address>,
    device: Option<u32>,
    device_mtu: u32,
    tenants: BTreeMap<TenantId, Tenant>,
    next_hops: NextHops,
    /// The object of each set of next hops in use.
    sets: FxHashMap<SetKey, SetObject>,
    wanted: FxHashMap<RouteKey, RouteSpec>,
    held: FxHashMap<RouteKey, RouteSpec>,
    /// The set that a tenant route came with, to be released with it.
    set_of: FxHashMap<RouteKey, SetKey>,
    queue: Vec<RouteKey>,
    rules_held: BTreeSet<Rule>,
    vnis_held: BTreeSet<u32>,
    neighbours_held: BTreeSet<IpAddr>,
    refused: BTreeMap<RouteKey, Refused>,
    /// Netlink failed: nothing is sent before then.
    held_until: Option<Instant>,
    tracked: BTreeMap<IpAddr, Tracked>,
    attachments: BTreeMap<String, bool>,
    redistributed: BTreeSet<(TenantId, IpNet)>,
    /// To be told: reachability, and the rest.
    reach_news: Vec<(IpAddr, Option<u32>)>,
    news: Vec<DataplaneEvent>,
    ruleset: String,
    settled: bool,
    pending: Changes,
    repairs: u64,
}

/// Reads the kernel and starts the thread; says whether an earlier process left tenant routes.
pub(crate) async fn spawn(
    config: DataplaneConfig,
    inbox: mpsc::Receiver<Command>,
    events: mpsc::Sender<DataplaneEvent>,
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
                match Actor::new(config, events) {
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
    ) -> Result<(Self, mpsc::Receiver<Changes>, bool), Error> {
        let netlink = Netlink::open().map_err(Error::kernel("cannot open netlink"))?;
        let port = netlink
            .port()
            .map_err(Error::kernel("cannot open netlink"))?;
        // Before the first read, so that no change falls between.
        let changes = monitor::start(config.protocol, port)
            .map_err(Error::kernel("cannot watch the kernel"))?;
        let mut actor = Self {
            config,
            netlink,
            events,
            links: HashMap::new(),
            addresses: Vec::new(),
            device: None,
            device_mtu: 1450,
            tenants: BTreeMap::new(),
            next_hops: NextHops::default(),
            sets: FxHashMap::default(),
            wanted: FxHashMap::default(),
            held: FxHashMap::default(),
            set_of: FxHashMap::default(),
            queue: Vec::new(),
            rules_held: BTreeSet::new(),
            vnis_held: BTreeSet::new(),
            neighbours_held: BTreeSet::new(),
            refused: BTreeMap::new(),
            held_until: None,
            tracked: BTreeMap::new(),
            attachments: BTreeMap::new(),
            redistributed: BTreeSet::new(),
            reach_news: Vec::new(),
            news: Vec::new(),
            ruleset: String::new(),
            settled: false,
            pending: Changes::default(),
            repairs: 0,
        };
        actor
            .read_links()
            .map_err(Error::kernel("cannot read the links"))?;
        actor
            .read_objects()
            .map_err(Error::kernel("cannot read the routes"))?;
        if actor.config.endpoint.is_some() {
            actor.ensure_device()?;
        }
        let found = !actor.held.is_empty();
        if found {
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
        self.next_hops.forget_kernel();
        for (id, next_hop) in snapshot::next_hops(&mut self.netlink, protocol)? {
            self.next_hops.adopt(id, next_hop);
        }
        self.held = snapshot::routes(&mut self.netlink, protocol)?
            .into_iter()
            .collect();
        self.rules_held = snapshot::rules(&mut self.netlink, protocol)?
            .into_iter()
            .collect();
        self.vnis_held = match self.device {
            Some(device) => snapshot::vnis(&mut self.netlink, device)?
                .into_iter()
                .collect(),
            None => BTreeSet::new(),
        };
        // Permanent entries are set again: that costs one message a router, and reading them costs as much.
        self.neighbours_held.clear();
        let differing = self
            .wanted
            .iter()
            .filter(|(key, spec)| self.held.get(key) != Some(spec))
            .map(|(key, _)| *key);
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
        let events = self.events.clone();
        loop {
            let retry = self.refused.values().map(|refused| refused.retry_at).min();
            let next = due.into_iter().chain(retry).chain(self.held_until).min();
            let timer = async {
                match next {
                    Some(next) => tokio::time::sleep_until(next.into()).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                () = timer => {}
                // The owner has room again.
                Ok(_) = events.reserve(), if self.has_news() => {}
                Some(change) = changes.recv() => {
                    self.pending.links |= change.links;
                    self.pending.underlay |= change.underlay;
                    self.pending.drift |= change.drift;
                    due.get_or_insert_with(|| Instant::now() + SETTLE_EVENTS);
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
            if due.is_some_and(|due| due <= now) {
                due = None;
                self.handle_changes();
            }
            let ready: Vec<RouteKey> = self
                .refused
                .iter()
                .filter(|(_, refused)| refused.retry_at <= now)
                .map(|(key, _)| *key)
                .collect();
            self.queue.extend(ready);
            self.flush();
            self.report();
        }
    }

    /// True where the data plane is to end.
    fn handle(&mut self, command: Command) -> bool {
        match command {
            Command::Apply(delta) => self.apply(delta),
            Command::Settle => {
                self.settled = true;
                self.queue_leftovers();
            }
            Command::Track(addresses) => {
                for address in addresses {
                    let tracked = self.tracked.entry(address).or_insert(Tracked {
                        users: 0,
                        metric: None,
                        link: None,
                    });
                    tracked.users += 1;
                    // Who asks a second time wants an answer too.
                    tracked.metric = None;
                }
                self.resolve();
            }
            Command::Untrack(addresses) => {
                for address in addresses {
                    if let Some(tracked) = self.tracked.get_mut(&address) {
                        tracked.users -= 1;
                        if tracked.users == 0 {
                            self.tracked.remove(&address);
                        }
                    }
                }
            }
            Command::Redistribute(tenant, connected, static_) => {
                if let Some(tenant) = self.tenants.get_mut(&tenant) {
                    tenant.redistribute = (connected, static_);
                }
                self.attach();
            }
            // Whoever asked and went away needs no answer, here and below.
            Command::Status(reply) => drop(reply.send(self.status())),
            Command::Routes(tenant, reply) => drop(reply.send(self.tenant_routes(tenant))),
            Command::Stop(reply) => {
                let _ = reply.send(());
                return true;
            }
        }
        false
    }

    fn apply(&mut self, delta: IntentDelta) {
        let tenants_changed = !delta.tenants.is_empty();
        for (id, intent) in delta.tenants {
            match intent {
                Some(intent) => self.set_tenant(id, intent),
                None => self.remove_tenant(id),
            }
        }
        if tenants_changed {
            self.attach();
        }
        for route in delta.routes {
            let Some(table) = self.tenants.get(&route.tenant).map(|tenant| tenant.table) else {
                continue;
            };
            let key = RouteKey {
                table,
                prefix: route.prefix,
                metric: 0,
            };
            let old = self.set_of.remove(&key);
            match route.next_hops {
                Some(set) => self.want_via_set(key, set),
                None => self.unwant(key),
            }
            if let Some(old) = old {
                self.release_set(old);
            }
        }
        for route in delta.underlay {
            let key = RouteKey {
                table: u32::from(libc::RT_TABLE_MAIN),
                prefix: route.prefix,
                metric: UNDERLAY_METRIC,
            };
            match route.via.first() {
                Some(gateway) => self.want(
                    key,
                    RouteSpec::Via {
                        gateway: *gateway,
                        interface: None,
                    },
                ),
                None => self.unwant(key),
            }
        }
    }

    fn want(&mut self, key: RouteKey, spec: RouteSpec) {
        self.refused.remove(&key);
        self.wanted.insert(key, spec);
        self.queue.push(key);
    }

    fn unwant(&mut self, key: RouteKey) {
        self.refused.remove(&key);
        self.wanted.remove(&key);
        self.queue.push(key);
    }

    fn set_tenant(&mut self, id: TenantId, intent: TenantIntent) {
        let table = self.config.table_base + intent.primary_vni.get();
        let (redistribute, local) = self
            .tenants
            .remove(&id)
            .map_or(((false, false), BTreeMap::new()), |old| {
                (old.redistribute, old.local)
            });
        for prefix in ["0.0.0.0/0", "::/0"] {
            if let Ok(prefix) = prefix.parse() {
                self.want(
                    RouteKey {
                        table,
                        prefix,
                        metric: LAST_RESORT,
                    },
                    RouteSpec::Unreachable,
                );
            }
        }
        self.tenants.insert(
            id,
            Tenant {
                intent,
                table,
                redistribute,
                local,
            },
        );
    }

    fn remove_tenant(&mut self, id: TenantId) {
        let Some(tenant) = self.tenants.remove(&id) else {
            return;
        };
        let keys: Vec<RouteKey> = self
            .wanted
            .keys()
            .filter(|key| key.table == tenant.table)
            .copied()
            .collect();
        for key in keys {
            self.unwant(key);
            if let Some(set) = self.set_of.remove(&key) {
                self.release_set(set);
            }
        }
    }

    /// Wants a tenant route to a set of next hops; the objects are made once a set.
    fn want_via_set(&mut self, key: RouteKey, set: Arc<NextHopSet>) {
        let of = (Arc::as_ptr(&set) as usize, Family::of(key.prefix));
        if !self.sets.contains_key(&of) {
            let object = self.make_set(&set, of.1);
            self.sets.insert(of, (set, object, 0));
        }
        let Some((_, object, users)) = self.sets.get_mut(&of) else {
            return;
        };
        *users += 1;
        match object.clone() {
            Ok(id) => self.want(key, RouteSpec::NextHop(id)),
            Err(error) => {
                self.unwant(key);
                // No retry helps: it is tried again when the intent changes.
                let retry_at = Instant::now() + Duration::from_secs(86_400);
                self.refused.insert(
                    key,
                    Refused {
                        error,
                        tries: 1,
                        retry_at,
                    },
                );
            }
        }
        self.set_of.insert(key, of);
    }

    fn make_set(&mut self, set: &NextHopSet, family: Family) -> Result<u32, String> {
        let (Some(source), Some(interface)) = (self.config.endpoint, self.device) else {
            return Err("this router has no tunnel endpoint".into());
        };
        let mut tunnels = Vec::with_capacity(set.0.len());
        for hop in &set.0 {
            let IpAddr::V4(destination) = hop.address else {
                return Err(format!(
                    "tunnels over IPv6 are not supported yet: {}",
                    hop.address
                ));
            };
            if hop.encapsulation != Encapsulation::Vxlan {
                return Err(format!(
                    "encapsulation {} is not supported yet",
                    hop.encapsulation
                ));
            }
            let kind = NextHopKind::Tunnel {
                vni: hop.vni.get(),
                source,
                destination,
                interface,
            };
            tunnels.push(NextHop { family, kind });
        }
        let mut ids: Vec<u32> = tunnels
            .into_iter()
            .map(|tunnel| self.next_hops.acquire(tunnel))
            .collect();
        if let [id] = ids[..] {
            return Ok(id);
        }
        ids.sort_unstable();
        Ok(self.next_hops.acquire(NextHop {
            family: Family::V4,
            kind: NextHopKind::Group(ids),
        }))
    }

    fn release_set(&mut self, of: SetKey) {
        let Some((_, object, users)) = self.sets.get_mut(&of) else {
            return;
        };
        *users -= 1;
        if *users > 0 {
            return;
        }
        let object = object.clone();
        self.sets.remove(&of);
        if let Ok(id) = object {
            let members = match self.next_hops.get(id).map(|next_hop| next_hop.kind.clone()) {
                Some(NextHopKind::Group(members)) => members,
                _ => Vec::new(),
            };
            self.next_hops.release(id);
            for member in members {
                self.next_hops.release(member);
            }
        }
    }

    /// Routers that tunnels lead to.
    fn peers(&self) -> BTreeSet<(Ipv4Addr, Family)> {
        self.sets
            .values()
            .filter(|(_, object, _)| object.is_ok())
            .flat_map(|(set, ..)| &set.0)
            .filter_map(|hop| match hop.address {
                IpAddr::V4(address) => Some(address),
                IpAddr::V6(_) => None,
            })
            .flat_map(|address| [(address, Family::V4), (address, Family::V6)])
            .collect()
    }

    fn handle_changes(&mut self) {
        let changes = std::mem::take(&mut self.pending);
        if changes.links {
            let before = self
                .device
                .and_then(|device| self.links.get(&device))
                .map(|link| link.up);
            if let Err(error) = self.read_links() {
                warn!(%error, "cannot read the links");
            }
            let after = self
                .device
                .and_then(|device| self.links.get(&device))
                .map(|link| link.up);
            self.attach();
            // A link that goes down takes routes and next hops along without a word.
            self.pending.drift |= before != after;
        }
        if changes.links || changes.drift || self.pending.drift {
            self.pending.drift = false;
            if self.config.endpoint.is_some()
                && let Err(error) = self.ensure_device()
            {
                warn!(%error, "cannot make the device again");
            }
            if let Err(error) = self.read_objects() {
                warn!(%error, "cannot read the kernel's tables");
            }
            let lost = self.queue.len();
            if changes.drift && lost > 0 {
                self.repairs += 1;
                info!(objects = lost, "what was ours had been changed: repairing");
            }
        }
        if changes.links || changes.underlay {
            self.attach();
            self.resolve();
        }
    }

    /// Tells what there is to tell, as far as the owner has room: it may be waiting for us itself.
    fn report(&mut self) {
        while self.has_news() {
            let Ok(permit) = self.events.try_reserve() else {
                return;
            };
            permit.send(if self.reach_news.is_empty() {
                self.news.remove(0)
            } else {
                DataplaneEvent::Reachability(std::mem::take(&mut self.reach_news))
            });
        }
    }

    fn has_news(&self) -> bool {
        !self.reach_news.is_empty() || !self.news.is_empty()
    }

    fn status(&self) -> DataplaneStatus {
        let main = u32::from(libc::RT_TABLE_MAIN);
        let mut in_table: HashMap<u32, usize> = HashMap::new();
        for key in self.held.keys() {
            *in_table.entry(key.table).or_default() += 1;
        }
        DataplaneStatus {
            device: self.device.map(|_| DEVICE.to_owned()),
            mtu: self.device.map(|_| self.device_mtu),
            settled: self.settled,
            tenants: self
                .tenants
                .values()
                .map(|tenant| TenantTable {
                    name: tenant.intent.name.clone(),
                    table: tenant.table,
                    routes: in_table.get(&tenant.table).copied().unwrap_or(0),
                })
                .collect(),
            routes: self.held.len(),
            underlay_routes: in_table.get(&main).copied().unwrap_or(0),
            next_hops: self.next_hops.in_kernel(),
            vnis: self.vnis_held.len(),
            rules: self.rules_held.len(),
            requests: self.netlink.sent,
            repairs: self.repairs,
            refused: self
                .refused
                .iter()
                .map(|(key, refused)| RefusedRoute {
                    table: key.table,
                    prefix: key.prefix,
                    error: refused.error.clone(),
                    tries: refused.tries,
                })
                .collect(),
            tracked: self
                .tracked
                .iter()
                .map(|(address, tracked)| (*address, tracked.metric.flatten()))
                .collect(),
        }
    }

    fn tenant_routes(&self, tenant: TenantId) -> Vec<(IpNet, KernelRoute)> {
        let Some(table) = self.tenants.get(&tenant).map(|tenant| tenant.table) else {
            return Vec::new();
        };
        let wanted = self.wanted.keys().chain(self.refused.keys());
        let mut routes: Vec<(IpNet, KernelRoute)> = wanted
            .filter(|key| key.table == table && key.metric != LAST_RESORT)
            .map(|key| {
                let state = match (
                    self.refused.get(key),
                    self.held.get(key),
                    self.wanted.get(key),
                ) {
                    (Some(refused), ..) => KernelRoute::Refused {
                        error: refused.error.clone(),
                    },
                    (None, Some(held), Some(wanted)) if held == wanted => KernelRoute::Installed {
                        next_hop: match held {
                            RouteSpec::NextHop(id) => Some(*id),
                            _ => None,
                        },
                    },
                    _ => KernelRoute::Pending,
                };
                (key.prefix, state)
            })
            .collect();
        routes.sort_by_key(|(prefix, _)| *prefix);
        routes.dedup_by_key(|(prefix, _)| *prefix);
        routes
    }
}
