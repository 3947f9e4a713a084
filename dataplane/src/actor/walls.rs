//! Our table of nftables: when it is loaded, and what goes nowhere while it does not stand.

use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use tracing::warn;

use super::links::{arms, attachments_of, is_host, vrf_name};
use super::{Actor, Purpose, RETRY, Tenant, last_resort};
use crate::condition::{ConditionKind, Severity};
use crate::model::Family;
use crate::nftables::{self, Duties, Entrance, Exit};

/// Conntrack zones that are not everybody's.
const ZONES: u32 = 0xffff;

/// The longest pause before a table that was refused is tried again; the first is [`RETRY`].
const LONGEST: Duration = Duration::from_secs(8);

/// Our table, as it was loaded last.
#[derive(Debug, Default)]
pub(super) struct Walls {
    /// Its words; none of an earlier process's.
    text: String,
    /// It stands in the kernel, ours or an earlier process's.
    stands: bool,
    /// Attachments that it knows of.
    around: BTreeSet<String>,
    /// Ways out that it sees to.
    exits: Vec<Exit>,
    /// The classifier does what matters, and the table may wait for what else comes.
    waits: bool,
    loaded_at: Option<Instant>,
    /// It has something else to say, or was refused: it is tried then.
    pub(super) retry: Option<Instant>,
    refused: u32,
    /// Without it tenants' packets would leave with their own sources.
    pub(super) breakouts_open: bool,
}

impl Walls {
    /// What an earlier process left.
    pub(super) fn inherited() -> Self {
        let stands = nftables::is_there();
        Self {
            stands,
            around: match stands {
                true => nftables::interfaces("inside"),
                false => BTreeSet::new(),
            },
            breakouts_open: stands,
            ..Self::default()
        }
    }
}

impl Actor {
    /// Somebody changed our tables of nftables: what must pass them goes nowhere until they stand again, which is tried at once.
    pub(super) fn close_walls(&mut self) {
        let now = Instant::now();
        self.repairs += 1;
        warn!("somebody changed our nftables tables: loading them again");
        self.steps.lose(now);
        self.walls.text.clear();
        self.walls.stands = false;
        self.policy_changed = true;
        self.open_breakouts(false);
        self.flush_objects();
    }

    /// Something keeps tenants from each other and from what is the router's: the classifier, or our table.
    pub(super) fn walls_stand(&self) -> bool {
        self.classifier.is_some() || self.walls.stands
    }

    /// It does so for a tenant: our table may be one that was loaded before the tenant had all that it has now.
    pub(super) fn walls_stand_around(&self, tenant: &Tenant) -> bool {
        let around = &self.walls.around;
        let mut entrances = tenant.intent.attachments.iter();
        self.classifier.is_some()
            || self.walls.stands
                && entrances.all(|name| around.contains(name))
                && arms(&tenant.intent).all(|name| around.contains(name))
    }

    /// Tenants' tables end with the way out, or with nothing.
    fn open_breakouts(&mut self, open: bool) {
        if std::mem::replace(&mut self.walls.breakouts_open, open) == open {
            return;
        }
        let mut ends = Vec::new();
        for tenant in self.tenants.values() {
            if tenant.intent.breakout.is_none() {
                continue;
            }
            for family in [Family::V4, Family::V6] {
                if tenant.has_table(family) {
                    ends.push((last_resort(tenant.table, family), tenant.end(open)));
                }
            }
        }
        for (key, end) in ends {
            self.want(key, end);
        }
    }

    /// Where tenants' packets leave for the Internet. A zone is found by the VNI, so that connections outlive a restart.
    fn exits(&self, devices: &[&str]) -> Vec<Exit> {
        let mut taken = BTreeSet::new();
        let mut exits = Vec::new();
        let mut tenants: Vec<&Tenant> = self.tenants.values().collect();
        tenants.sort_unstable_by_key(|tenant| tenant.table);
        for tenant in tenants {
            let Some(breakout) = &tenant.intent.breakout else {
                continue;
            };
            let start = tenant.intent.primary_vni.get();
            let mut zones = (0..ZONES).map(|step| 1 + ((start + step) % ZONES) as u16);
            let Some(zone) = zones.find(|zone| taken.insert(*zone)) else {
                warn!(
                    tenant = tenant.intent.name,
                    "no conntrack zone is left for its breakout"
                );
                continue;
            };
            let attachments = tenant.intent.attachments.iter().cloned();
            let devices = devices.iter().map(|name| (*name).to_owned());
            exits.push(Exit {
                mark: tenant.table,
                zone,
                interface: breakout.interface.clone(),
                source_nat: breakout.source_nat,
                ways: attachments
                    .chain(devices)
                    .chain(self.vrf.then(|| vrf_name(&tenant.intent)))
                    .collect(),
            });
        }
        exits
    }

    /// What the control and the data plane speak to.
    fn underlay_addresses(&self) -> BTreeSet<IpAddr> {
        let tracked = self.tracked.keys();
        let tracked = tracked.filter(|(purpose, _)| !matches!(purpose, Purpose::Site(_)));
        let tracked = tracked.map(|(_, address)| *address);
        let peers = self.peers.keys().map(|(_, address, _)| *address);
        tracked.chain(peers).collect()
    }

    /// The places where tenants' packets enter.
    fn entrances(&self) -> Vec<Entrance> {
        let by_name: HashMap<&str, u32> = self
            .links
            .values()
            .map(|link| (link.name.as_str(), link.index))
            .collect();
        let mut on_link: HashMap<u32, Vec<IpAddr>> = HashMap::new();
        for address in &self.addresses {
            let on_link = on_link.entry(address.link).or_default();
            on_link.push(address.address);
            on_link.extend(address.others());
        }
        let mut entrances = Vec::new();
        for tenant in self.tenants.values() {
            let mut add = |name: &String, input: String, service: bool| {
                let link = by_name.get(name.as_str());
                let addresses = link.and_then(|link| on_link.get(link).cloned());
                entrances.push(Entrance {
                    interface: name.clone(),
                    input,
                    mark: tenant.table,
                    addresses: addresses.unwrap_or_default(),
                    service,
                });
            };
            for name in &tenant.intent.attachments {
                let input = match self.vrf {
                    true => vrf_name(&tenant.intent),
                    false => name.clone(),
                };
                add(name, input, false);
            }
            for name in arms(&tenant.intent) {
                add(name, name.clone(), true);
            }
        }
        entrances
    }

    fn duties(&self, attached: &BTreeSet<String>) -> Duties {
        let classify = self.classifier.is_none();
        let closed = self.former.closed();
        Duties {
            // By name: what is made again has its wall before it is there. Where the classifier is, its programs do the rest.
            closed: match classify {
                true => closed.clone(),
                false => BTreeSet::new(),
            },
            marked: match classify {
                true => BTreeSet::new(),
                false => attached.union(closed).cloned().collect(),
            },
            members: self.vrf,
            part_tenants: !self.vrf && classify,
            // The classifier knows addresses, not networks of them.
            guard_router: classify || self.local_routes.iter().any(|net| !is_host(net)),
            classify,
        }
    }

    /// Loads our nftables table where it is to say something else than before.
    pub(super) fn load_ruleset(&mut self) {
        // An earlier process's table says the same until we know better.
        let knows = self.settled || !self.tenants.is_empty();
        if self.devices.is_empty() || !(knows || self.former.closes_anew(self.walls.stands)) {
            return;
        }
        let attached = attachments_of(self);
        let duties = self.duties(&attached);
        let devices: Vec<_> = self.devices.keys().map(|carrier| carrier.name()).collect();
        let devices: Vec<&str> = devices.iter().map(|name| &**name).collect();
        let ports = self.devices.keys().filter_map(|carrier| carrier.port());
        let ports: BTreeSet<u16> = ports.collect();
        let exits = self.exits(&devices);
        let underlay = match exits.is_empty() {
            true => BTreeSet::new(),
            false => self.underlay_addresses(),
        };
        // Until the intent is whole nobody knows who they are.
        let senders = (duties.classify && self.settled).then(|| self.senders.addresses());
        let senders = senders.filter(|all| all.iter().all(|address| !address.is_unspecified()));
        let text = nftables::ruleset(
            &self.entrances(),
            (&devices, &ports),
            &duties,
            &exits,
            &underlay,
            senders.as_ref(),
        );
        if text == self.walls.text {
            return;
        }
        // Tenants may come one by one, and there may be many.
        let now = Instant::now();
        let waits = !duties.classify && !duties.guard_router && exits.is_empty();
        let again = self.walls.loaded_at.map(|at| at + RETRY);
        if let Some(again) = again.filter(|again| waits && self.walls.waits && now < *again) {
            self.walls.retry = Some(again);
            return;
        }
        let loaded = nftables::load(&text);
        self.walls.loaded_at = Some(now);
        let before = (self.walls_stand(), self.walls.around.clone());
        match loaded {
            Ok(()) => {
                self.conditions.clear(now, ConditionKind::Ruleset, "table");
                // What opens comes after the table: its packets have their sources translated from the first on.
                self.open_breakouts(true);
                self.walls = Walls {
                    text,
                    stands: true,
                    around: attached,
                    exits,
                    waits,
                    loaded_at: Some(now),
                    retry: None,
                    refused: 0,
                    breakouts_open: true,
                };
            }
            Err(error) => self.handle_refused_ruleset(now, &duties, &exits, &error),
        }
        if before != (self.walls_stand(), self.walls.around.clone()) {
            self.policy_changed = true;
        }
        self.flush_objects();
    }

    /// Where the former table stands still, what it was made for goes on.
    fn handle_refused_ruleset(
        &mut self,
        now: Instant,
        duties: &Duties,
        exits: &[Exit],
        error: &str,
    ) {
        self.walls.stands = self.walls.stands && nftables::is_there();
        if !self.walls.stands {
            self.walls.text.clear();
            self.walls.around.clear();
        }
        let open = self.walls.stands && self.walls.exits == exits;
        self.open_breakouts(open);
        let closed = match (duties.classify, self.walls.stands, exits.is_empty()) {
            // Without the classifier nothing else keeps tenants apart.
            (true, false, _) => Some((Severity::Down, "all tenants are")),
            (true, true, _) => Some((
                Severity::Degraded,
                "the former one stands, and what is new since are",
            )),
            (false, _, false) if !open => Some((Severity::Degraded, "breakouts are")),
            (false, ..) => None,
        };
        let (severity, so) = match closed {
            Some((severity, what)) => (severity, format!("{what} closed until it takes it")),
            None => (
                Severity::Notice,
                "an attachment that is made again has no wall until BPF is there".to_owned(),
            ),
        };
        self.conditions.set(
            now,
            (ConditionKind::Ruleset, "table"),
            severity,
            format!("nftables refuses our table: {error}; {so}"),
            duties.classify.then(|| "`apt-get install nftables`, or let the router use BPF (CAP_BPF): either keeps tenants apart".into()),
        );
        let pause = RETRY * 2u32.saturating_pow(self.walls.refused.min(8));
        self.walls.refused += 1;
        self.walls.retry = Some(now + pause.min(LONGEST));
    }
}
