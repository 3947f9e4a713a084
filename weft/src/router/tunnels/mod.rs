//! Whether tunnels carry: probes inside them, to each far router that routes lead to and in its tenants by turns.

mod record;
mod schedule;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::IpAddr;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::watch;
use weft_dataplane::{
    Condition, ConditionKind, Conditions, Dataplane, Echo, FarEnd, Heard, PATH_LASTS, ProbeTargets,
    ProbedTenant, STAMP_PORT, Severity, Stamp, TunnelEcho,
};
use weft_overlay::table::Overlay;
use weft_overlay::{EndpointId, Vni};

use self::record::{Answered, Record};
use self::schedule::{Ask, Schedule, Silent};
use super::core::Queries;
use crate::config::Config;

/// How often is looked at which tenants and far routers there are, and whether silent ones answer through the underlay. Looking may
/// take a hundredth of the time at most.
const LOOK: Duration = Duration::from_secs(1);
/// What can be probed has changed: it is looked at so long after the last look, and in a hundredth of the time at most, too.
const LOOK_AGAIN: Duration = Duration::from_millis(50);
/// How often is looked for labels without a locator, at least.
const LOCATORS: Duration = Duration::from_secs(2);
/// How often is written down who has answered.
const RECORD: Duration = Duration::from_secs(5);
/// How often is looked whether tenants send into tunnels.
const TRAFFIC: Duration = Duration::from_millis(250);
/// Between two questions of the kernel about one far router.
const ASK_KERNEL: Duration = Duration::from_millis(100);
/// Silent far routers that are asked through the underlay.
const ASKED: usize = 16;
/// The subject of what is wrong with all far routers at once.
const ALL: &str = "tunnels";
/// The subject of test packets that are not reflected.
const REFLECTOR: &str = "udp port 862";

/// What does not answer inside its tunnel.
#[derive(Clone, Default)]
pub(super) struct Tunnels(Arc<Mutex<Conditions>>);

impl Tunnels {
    /// Probes tunnels for ever; does not, where the configuration has no overlay or wants no probes.
    /// What a restart has to know of it is kept in the folder `state`.
    pub(super) fn start(
        config: &Config,
        state: Option<&Path>,
        dataplane: Dataplane,
        queries: Queries,
    ) -> Self {
        let tunnels = Self::default();
        let overlay = config.overlay.as_ref();
        if let Some(overlay) = overlay.filter(|overlay| overlay.probe_interval > 0) {
            let record = Record::new(config, state);
            let mut schedule = Schedule::default();
            schedule.remember(Instant::now(), record.read());
            let prober = Prober {
                record: record.keep(),
                record_at: Instant::now(),
                traffic_at: Instant::now(),
                octets: None,
                unlocated: BTreeSet::new(),
                locators_at: Instant::now(),
                own: (overlay.endpoint, EndpointId(config.router.router_id.0)),
                dont_fragment: overlay.dont_fragment,
                paths_told: BTreeMap::new(),
                kernel_asked: BTreeMap::new(),
                dataplane,
                queries,
                schedule,
                targets: ProbeTargets::default(),
                sources: BTreeMap::new(),
                refused: BTreeMap::new(),
                underlay: Underlay::default(),
                conditions: tunnels.clone(),
            };
            tokio::spawn(prober.run());
        }
        tunnels
    }

    /// What is wrong now.
    pub(super) fn conditions(&self) -> Vec<Condition> {
        self.all().list(Instant::now())
    }

    fn all(&self) -> MutexGuard<'_, Conditions> {
        // Nobody panics with it.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Echo requests through the underlay to far routers that are silent, to tell a tunnel that is cut from a router that is gone.
#[derive(Default)]
struct Underlay {
    echo: Option<Echo>,
    sequence: u16,
    asked: BTreeMap<IpAddr, UnderlayAnswer>,
}

#[derive(Clone, Copy, Default)]
struct UnderlayAnswer {
    /// Requests since it answered last.
    waiting: u32,
    answered: bool,
}

impl Underlay {
    /// Asks these, and forgets others.
    fn ask(&mut self, own: IpAddr, silent: &[IpAddr]) {
        if self.echo.is_none() {
            self.echo = Echo::open(own).ok();
        }
        self.asked.retain(|address, _| silent.contains(address));
        let Some(echo) = &self.echo else { return };
        for address in silent.iter().take(ASKED) {
            self.sequence = self.sequence.wrapping_add(1);
            let asked = self.asked.entry(*address).or_default();
            asked.waiting += 1;
            // One that cannot leave has no answer.
            let _ = echo.send(*address, self.sequence);
        }
    }

    fn handle_answer(&mut self, from: IpAddr) -> bool {
        let Some(asked) = self.asked.get_mut(&from) else {
            return false;
        };
        asked.waiting = 0;
        !std::mem::replace(&mut asked.answered, true)
    }

    /// Whether the underlay reaches a silent far router, as far as that is known.
    fn answers(&self, address: IpAddr) -> Option<bool> {
        let asked = self.asked.get(&address)?;
        match (asked.answered, asked.waiting) {
            (true, 0..=2) => Some(true),
            (_, 3..) => Some(false),
            (false, _) => None,
        }
    }
}

async fn next_echo(underlay: Option<&Echo>) -> IpAddr {
    match underlay {
        Some(echo) => echo.receive().await.0,
        None => std::future::pending().await,
    }
}

/// What probes go out by, and come back to.
struct Sockets {
    echo: TunnelEcho,
    stamp: Stamp,
}

async fn next_probe(sockets: Option<&Sockets>) -> Heard {
    match sockets {
        Some(sockets) => sockets.echo.receive().await,
        None => std::future::pending().await,
    }
}

/// Test packets of `known` routers are reflected meanwhile.
async fn next_reflection(sockets: Option<&Sockets>, known: &BTreeSet<IpAddr>) -> (IpAddr, u64) {
    match sockets {
        Some(sockets) => sockets.stamp.receive(known).await,
        None => std::future::pending().await,
    }
}

struct Prober {
    own: (IpAddr, EndpointId),
    dont_fragment: bool,
    /// How large packets to far routers may be, as the data plane was told last; when it was asked to ask the kernel.
    paths_told: BTreeMap<IpAddr, (Option<u16>, Instant)>,
    kernel_asked: BTreeMap<IpAddr, Instant>,
    dataplane: Dataplane,
    queries: Queries,
    schedule: Schedule,
    /// Who has answered, for the next process, and when it is told next.
    record: watch::Sender<Answered>,
    record_at: Instant,
    /// When is looked next how much tenants have sent into tunnels, and how much it was.
    traffic_at: Instant,
    octets: Option<u64>,
    /// Ids that labels named and nobody's locator when that was looked at last, and when it is next.
    unlocated: BTreeSet<EndpointId>,
    locators_at: Instant,
    /// As the data plane has them.
    targets: ProbeTargets,
    /// By VNI, the tenant's name and the address that comes back to this router and to no other.
    sources: BTreeMap<Vni, (String, IpAddr)>,
    /// Why this host did not let the last probe to a far router out.
    refused: BTreeMap<FarEnd, String>,
    underlay: Underlay,
    conditions: Tunnels,
}

impl Prober {
    async fn run(mut self) {
        let mut sockets: Option<Sockets> = None;
        let mut look_at = Instant::now();
        let mut look_again_at = look_at;
        let mut version = self.dataplane.probe_targets_version();
        loop {
            let next = self.schedule.next().filter(|_| sockets.is_some());
            let next = next.map_or(look_at, |next| next.min(look_at));
            let next = next.min(self.traffic_at);
            // What has come back is taken before anything is taken for lost.
            let received = tokio::select! {
                biased;
                heard = next_probe(sockets.as_ref()) => {
                    match heard {
                        Heard::Probe(token) => self.schedule.handle_answer(Instant::now(), token),
                        Heard::TooLarge(address) => self.ask_kernel(address).await,
                    }
                    true
                }
                (from, token) = next_reflection(sockets.as_ref(), &self.targets.senders) => {
                    self.schedule.handle_reflection(Instant::now(), from, token);
                    true
                }
                from = next_echo(self.underlay.echo.as_ref()) => {
                    if self.underlay.handle_answer(from) {
                        self.judge();
                    }
                    true
                }
                Ok(()) = version.changed() => {
                    look_at = look_at.min(look_again_at);
                    true
                }
                () = tokio::time::sleep_until(next.into()) => false,
            };
            let now = Instant::now();
            if !received && look_at <= now {
                self.open(&mut sockets);
                if !self.look().await {
                    return;
                }
                self.ask_underlay();
                let all = self.schedule.paths().collect();
                self.tell_paths(all).await;
                self.judge();
                self.record(now);
                if !self.look_for_locators(now).await {
                    return;
                }
                let pause = now.elapsed() * 100;
                look_at = now + LOOK.max(pause);
                look_again_at = now + LOOK_AGAIN.max(pause);
            }
            if !received && self.traffic_at <= now {
                let Some(octets) = self.dataplane.tunnel_octets().await else {
                    return;
                };
                let before = self.octets.replace(octets).unwrap_or(octets);
                let since = octets.saturating_sub(before);
                self.schedule.handle_traffic(now, since);
                self.traffic_at = now + TRAFFIC.max(now.elapsed() * 100);
            }
            if let Some(sockets) = sockets.as_mut().filter(|_| !received) {
                while let Some(ask) = self.schedule.poll(Instant::now()) {
                    self.send(sockets, &ask);
                }
            }
            for (address, octets) in self.schedule.take_exceeded() {
                self.dataplane.exceeded_path(address, octets).await;
            }
            let news = self.schedule.take_path_news();
            self.tell_paths(news).await;
            if self.schedule.take_changed() {
                // Nobody is called silent who was asked for what is no longer there.
                if !self.look().await {
                    return;
                }
                self.ask_underlay();
                self.judge();
                self.schedule.take_changed();
            }
        }
    }

    /// Opens what is not open yet.
    fn open(&mut self, sockets: &mut Option<Sockets>) {
        let (own, id) = self.own;
        let now = Instant::now();
        let mut conditions = self.conditions.all();
        if sockets.is_none() {
            let opened = TunnelEcho::open(own, id, self.dont_fragment);
            let opened = opened.and_then(|echo| {
                let stamp = Stamp::open(own, self.dont_fragment)?;
                Ok(Sockets { echo, stamp })
            });
            match opened {
                Ok(opened) => {
                    *sockets = Some(opened);
                    conditions.clear(now, ConditionKind::Probes, ALL);
                }
                Err(error) => conditions.set(
                    now,
                    (ConditionKind::Probes, ALL),
                    Severity::Notice,
                    format!(
                        "far routers are not probed, so nobody knows whether tunnels carry: {error}"
                    ),
                    Some(format!(
                        "the process needs CAP_NET_RAW, and {own} an interface"
                    )),
                ),
            }
        }
        let Some(sockets) = sockets else { return };
        match sockets.stamp.reflect() {
            Ok(()) => drop(conditions.clear(now, ConditionKind::Probes, REFLECTOR)),
            Err(error) => conditions.set(
                now,
                (ConditionKind::Probes, REFLECTOR),
                Severity::Notice,
                format!("test packets of other routers are not reflected: {error}; those that only stitch do not find out how large packets to this one may be"),
                Some(format!("`ss -ulnp sport = :{STAMP_PORT}` names who has the port; below 1024 it needs CAP_NET_BIND_SERVICE")),
            ),
        }
    }

    fn send(&mut self, sockets: &mut Sockets, ask: &Ask) {
        let Some(vni) = ask.vni else {
            let (to, size) = (ask.far_end.address, ask.size.unwrap_or_default());
            // One that cannot leave is lost like another.
            let _ = sockets.stamp.send(to, ask.token, size);
            return;
        };
        let Some((_, address)) = self.sources.get(&vni) else {
            return;
        };
        let sent = (sockets.echo).send(&ask.far_end, vni, *address, ask.token, ask.size);
        match sent {
            // What is too large for the kernel does not get there: it is lost like another.
            _ if ask.size.is_some() => {}
            Ok(()) => drop(self.refused.remove(&ask.far_end)),
            // One that waits for room in a queue is lost like another.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => {
                let words = error.to_string();
                let words = words.split(" (os error").next().unwrap_or_default();
                self.refused.insert(ask.far_end, words.to_owned());
            }
        }
    }

    /// Finds out which tenants and far routers there are; false where the router has ended.
    async fn look(&mut self) -> bool {
        if let Some(targets) = self.dataplane.probe_targets(self.targets.version).await {
            self.targets = targets;
        }
        let candidates = self.targets.tenants.clone();
        let Some(sources) = self
            .queries
            .ask(move |overlay| sources(overlay, candidates))
            .await
        else {
            return false;
        };
        self.sources = sources;
        let far_ends = self.targets.far_ends.iter();
        let far_ends: BTreeMap<FarEnd, Vec<Vni>> = far_ends
            .map(|(far_end, vnis)| {
                let vnis = vnis.iter().filter(|vni| self.sources.contains_key(vni));
                (*far_end, vnis.copied().collect())
            })
            .collect();
        self.schedule.adopt(Instant::now(), &far_ends);
        let limits = &self.targets.limits;
        self.schedule.set_limits(Instant::now(), limits);
        let known = |address: &IpAddr| far_ends.keys().any(|one| one.address == *address);
        self.paths_told.retain(|address, _| known(address));
        self.kernel_asked.retain(|address, _| known(address));
        self.refused
            .retain(|far_end, _| far_ends.contains_key(far_end));
        true
    }

    /// Has the kernel asked how large packets to a far router may be, of which it has just been told: not more often than it can be of use,
    /// whatever somebody sends.
    async fn ask_kernel(&mut self, address: IpAddr) {
        let mut far_ends = self.targets.far_ends.keys();
        let now = Instant::now();
        let asked = self.kernel_asked.get(&address);
        if far_ends.any(|one| one.address == address)
            && asked.is_none_or(|at| now.duration_since(*at) >= ASK_KERNEL)
        {
            self.kernel_asked.insert(address, now);
            self.dataplane.learned_path(address).await;
        }
    }

    /// Tells how large packets may be, where that is news, or was told long ago.
    async fn tell_paths(&mut self, found: Vec<(FarEnd, u16, u16)>) {
        let now = Instant::now();
        for (far_end, found, top) in found {
            let path = (found < top).then_some(found);
            let told = self.paths_told.get(&far_end.address);
            let holds = told.is_some_and(|(told, at)| {
                *told == path && (path.is_none() || now.duration_since(*at) < PATH_LASTS / 2)
            });
            if !holds {
                self.paths_told.insert(far_end.address, (path, now));
                self.dataplane.probed_path(far_end.address, path).await;
            }
        }
    }

    /// Says which labels lead nowhere, since nobody announces where their far ends are; false where the router has ended. A label may come
    /// a moment before the locator.
    async fn look_for_locators(&mut self, now: Instant) -> bool {
        if now < self.locators_at {
            return true;
        }
        let Some(unlocated) = self.queries.ask(Overlay::unlocated).await else {
            return false;
        };
        self.locators_at = now + LOCATORS.max(now.elapsed() * 100);
        let mut conditions = self.conditions.all();
        let kind = ConditionKind::NoLocator;
        conditions.retain(now, kind, |subject| {
            unlocated.keys().any(|id| id.to_string() == subject)
        });
        for (id, routes) in &unlocated {
            if self.unlocated.contains(id) {
                conditions.set(
                    now,
                    (kind, &id.to_string()),
                    Severity::Degraded,
                    format!("{routes} routes of tenants have no far end: no locator for #{id}"),
                    Some(format!(
                        "the router with the id {id} announces its endpoint as a route (`weft show neighbors` there says in which families); whoever is between has to pass it on: `weft show endpoints`"
                    )),
                );
            }
        }
        self.unlocated = unlocated.into_keys().collect();
        true
    }

    /// Tells the next process who has answered.
    fn record(&mut self, now: Instant) {
        if self.record_at <= now {
            self.record_at = now + RECORD;
            self.record.send_replace(self.schedule.answered());
        }
    }

    fn ask_underlay(&mut self) {
        let silent = self.schedule.silent().filter_map(|silent| match silent {
            Silent::FarEnd(far_end, _) => Some(far_end.address),
            Silent::Tenant(..) => None,
        });
        let never = self.schedule.never_answered(Instant::now());
        let silent: Vec<IpAddr> = silent.chain(never.map(|far_end| far_end.address)).collect();
        self.underlay.ask(self.own.0, &silent);
    }

    /// Says what is silent, and what no longer is.
    fn judge(&mut self) {
        let now = Instant::now();
        let mut found: Vec<(ConditionKind, String, Severity, String, String)> = Vec::new();
        for silent in self.schedule.silent() {
            match silent {
                Silent::FarEnd(far_end, _) => {
                    let (detail, remedy) = self.words(&far_end);
                    let subject = far_end.address.to_string();
                    let kind = ConditionKind::FarEnd;
                    found.push((kind, subject, Severity::Degraded, detail, remedy));
                }
                Silent::Tenant(far_end, vni, _) => {
                    let source = self.sources.get(&vni);
                    let Some((tenant, address)) = source else {
                        continue;
                    };
                    let far = far_end.address;
                    found.push((
                        ConditionKind::FarTenant,
                        format!("{tenant}, VNI {vni}, {far}"),
                        Severity::Degraded,
                        format!("packets of the tenant do not come back from {far}, those of others do"),
                        format!("at {far}: `weft show tenants` has VNI {vni}? `weft trace {tenant} {address}` leads back here?"),
                    ));
                }
            }
        }
        for far_end in self.schedule.never_answered(now) {
            let (detail, remedy) = self.words_of_never(&far_end);
            let subject = far_end.address.to_string();
            let kind = ConditionKind::FarEnd;
            found.push((kind, subject, Severity::Degraded, detail, remedy));
        }
        let (all, silent) = self.schedule.counts();
        if all > 0 && silent == all {
            found.push((
                ConditionKind::FarEnds,
                ALL.to_owned(),
                Severity::Down,
                format!("no far router answers inside its tunnel, of {all} that did"),
                "look at this router's own way out first: `ip link`, `ip route`, `nft list ruleset`"
                    .to_owned(),
            ));
        }
        let mut conditions = self.conditions.all();
        for kind in [
            ConditionKind::FarEnd,
            ConditionKind::FarTenant,
            ConditionKind::FarEnds,
        ] {
            conditions.retain(now, kind, |held| {
                (found.iter()).any(|(one, subject, ..)| *one == kind && subject == held)
            });
        }
        for (kind, subject, severity, detail, remedy) in found {
            conditions.set(now, (kind, &subject), severity, detail, Some(remedy));
        }
    }

    /// The same of one that has never answered.
    fn words_of_never(&self, far_end: &FarEnd) -> (String, String) {
        let address = far_end.address;
        if self.refused.contains_key(far_end) {
            return self.words(far_end);
        }
        let underlay = match self.underlay.answers(address) {
            Some(true) => ", and the underlay answers",
            Some(false) => ", nor through the underlay",
            None => "",
        };
        let encapsulation = far_end.encapsulation;
        (
            format!(
                "the far end has never answered: nothing has come back through its tunnel ({encapsulation}) since this router began to ask{underlay}"
            ),
            format!(
                "{} is filtered here, on the way or there; or {address} has no route back to this router's tenants (`weft show routes` there), does not forward (`weft show status` there), or is no router of labels at all",
                carried_in(far_end)
            ),
        )
    }

    /// What is wrong with a far router, and what to do.
    fn words(&self, far_end: &FarEnd) -> (String, String) {
        let address = far_end.address;
        let what = carried_in(far_end);
        if let Some(error) = self.refused.get(far_end) {
            return (
                format!("this host does not let packets to its tunnel out: {error}"),
                format!("`nft list ruleset` here: who drops {what}? `ip route get {address}`"),
            );
        }
        match self.underlay.answers(address) {
            Some(true) => (
                format!(
                    "nothing comes back through its tunnel ({}), and the underlay answers",
                    far_end.encapsulation
                ),
                format!(
                    "{what} is filtered here, on the way or there (`nft list ruleset`), or {address} no longer forwards: `weft show status` there"
                ),
            ),
            Some(false) => (
                "nothing comes back through its tunnel, nor through the underlay".to_owned(),
                format!(
                    "the router is gone or the way to it: `ping {address}`, `ip route get {address}`"
                ),
            ),
            None => (
                "nothing comes back through its tunnel".to_owned(),
                format!("`ping {address}` says whether the underlay reaches it"),
            ),
        }
    }
}

/// What a filter would have to let through.
fn carried_in(far_end: &FarEnd) -> String {
    match far_end.port {
        Some(port) => format!("UDP port {port}"),
        None => "IP protocol 47 (GRE)".to_owned(),
    }
}

/// The addresses that probes can come from: what goes there comes back to this router from wherever in the tenant. Its network is
/// announced, and no other router announces it, too.
fn sources(
    overlay: &Overlay,
    candidates: BTreeMap<Vni, ProbedTenant>,
) -> BTreeMap<Vni, (String, IpAddr)> {
    let comes_back = |tenant: &ProbedTenant, address: IpAddr| {
        let route = overlay.lookup(tenant.id, address);
        route.is_some_and(|route| route.local && route.candidates.is_empty())
    };
    let found = candidates.into_iter().filter_map(|(vni, tenant)| {
        let mut addresses = tenant.addresses.iter().copied();
        let address = addresses.find(|address| comes_back(&tenant, *address))?;
        Some((vni, (tenant.name, address)))
    });
    found.collect()
}
