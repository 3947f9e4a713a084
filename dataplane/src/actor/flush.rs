//! Sends the difference between what is wanted and what the kernel holds.

use std::collections::{BTreeSet, HashMap};
use std::fmt::Write as _;
use std::net::IpAddr;
use std::time::Instant;

use tracing::{error, warn};

use super::links::{arms, is_host, vrf_name};
use super::{Actor, RETRY, RETRY_LONGEST, Refused};
use crate::model::{Carrier, Family, RULE_TENANT, RouteKey, RouteSpec, Rule, gateway, mac};
use crate::netlink::objects::{
    NEW, Question, RTM_DELNEXTHOP, RTM_DELROUTE, RTM_DELTUNNEL, RTM_NEWNEXTHOP, RTM_NEWROUTE,
    RTM_NEWTUNNEL, SET, put_neighbour, put_next_hop, put_next_hop_id, put_route, put_route_key,
    put_rule, put_vni,
};
use crate::netlink::socket::{Batch, Refusal};
use crate::nftables::{self, Duties, Entrance, Exit};

/// What a request of a batch was about.
enum Operation {
    Make(Object),
    Remove(Object),
    Route(RouteKey, Option<RouteSpec>),
}

/// What routes rest on, and what leads to them.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Object {
    Vni(Carrier, u32),
    Neighbour(IpAddr),
    NextHop(u32),
    Rule(Rule),
}

/// Of so many refused routes the kernel is asked whose stands in their place; more are one and the same trouble.
const OWNERS: usize = 1000;

/// Conntrack zones that are not everybody's.
const ZONES: u32 = 0xffff;

/// How long nothing is sent after netlink failed, so that a failure that lasts costs little.
const HOLD_OFF: std::time::Duration = std::time::Duration::from_secs(1);

fn push_route(
    batch: &mut Batch,
    operations: &mut Vec<Operation>,
    protocol: u8,
    key: RouteKey,
    spec: RouteSpec,
    held: Option<RouteSpec>,
) {
    // What is not ours is never replaced.
    let flags = if held.is_some() { SET } else { NEW };
    batch.push(RTM_NEWROUTE, flags, |out| {
        put_route(out, &key, &spec, protocol)
    });
    operations.push(Operation::Route(key, Some(spec)));
}

impl Actor {
    /// Sends what differs: what routes rest on first, then routes, then the rules that lead to them; removals the other
    /// way round.
    pub(super) fn flush(&mut self) {
        if self.held_until.is_some_and(|until| Instant::now() < until) {
            return;
        }
        self.held_until = None;
        self.flush_steps();
        let protocol = self.config.protocol;
        let mut batch = Batch::default();
        let mut operations = Vec::new();
        let now = Instant::now();
        self.later.retain(|_, retry_at| *retry_at > now);
        if self.policy_changed {
            self.rules_wanted = self.wanted_rules();
            self.vnis_wanted = self
                .tenants
                .values()
                .flat_map(|tenant| &tenant.intent.vnis)
                .copied()
                .chain(self.steps.labels())
                .map(|vni| vni.get())
                .collect();
        }
        for (carrier, device) in &self.devices {
            if !carrier.has_vni_filter() {
                continue;
            }
            for vni in &self.vnis_wanted {
                let object = Object::Vni(*carrier, *vni);
                if !self.vnis_held.contains(&(*carrier, *vni)) && self.is_due(&object) {
                    batch.push(RTM_NEWTUNNEL, 0, |out| put_vni(out, device.index, *vni));
                    operations.push(Operation::Make(object));
                }
            }
        }
        if let Some(device) = self.devices.get(&Carrier::Vxlan) {
            for (carrier, endpoint, id) in self.peers.keys() {
                for family in [Family::V4, Family::V6] {
                    let gateway = gateway(*endpoint, *id, family);
                    let object = Object::Neighbour(gateway);
                    if *carrier == Carrier::Vxlan
                        && !self.neighbours_held.contains(&gateway)
                        && self.is_due(&object)
                    {
                        batch.push(libc::RTM_NEWNEIGH, SET, |out| {
                            put_neighbour(out, device.index, gateway, mac(*endpoint, *id))
                        });
                        operations.push(Operation::Make(object));
                        self.neighbours_held.insert(gateway);
                    }
                }
            }
        }
        for id in self.next_hops.missing() {
            let object = Object::NextHop(id);
            if let Some(next_hop) = self.next_hops.get(id).filter(|_| self.is_due(&object)) {
                batch.push(RTM_NEWNEXTHOP, SET, |out| {
                    put_next_hop(out, id, next_hop, protocol)
                });
                operations.push(Operation::Make(object));
            }
        }
        // With IPv6 each rule costs the kernel a walk through all tables: rules come while there are none yet. No packet has
        // their marks before the routes are there.
        let rules_first = self.has_tree();
        if rules_first {
            self.push_rules(&mut batch, &mut operations, &|_| true);
        }
        // A route may be queued twice, when its intent changed and the kernel was read again: it is sent once.
        let mut queue = std::mem::take(&mut self.queue);
        queue.sort_unstable();
        queue.dedup();
        // A gateway is known by the route to its link.
        let mut behind = Vec::new();
        for key in queue {
            match (self.wanted.get(&key).copied(), self.held.get(&key).copied()) {
                (wanted, held) if wanted == held => {}
                (Some(spec @ RouteSpec::Via { .. }), held) => behind.push((key, spec, held)),
                (Some(spec), held) => {
                    push_route(&mut batch, &mut operations, protocol, key, spec, held)
                }
                (None, _) => {
                    batch.push(RTM_DELROUTE, 0, |out| put_route_key(out, &key, protocol));
                    operations.push(Operation::Route(key, None));
                }
            }
        }
        for (key, spec, held) in behind {
            push_route(&mut batch, &mut operations, protocol, key, spec, held);
        }
        if !rules_first {
            self.push_rules(&mut batch, &mut operations, &|_| true);
        }
        if self.settled {
            for rule in self.rules_held.difference(&self.rules_wanted) {
                batch.push(libc::RTM_DELRULE, 0, |out| put_rule(out, rule, protocol));
                operations.push(Operation::Remove(Object::Rule(rule.clone())));
            }
            for id in self.next_hops.unused() {
                batch.push(RTM_DELNEXTHOP, 0, |out| put_next_hop_id(out, id));
                operations.push(Operation::Remove(Object::NextHop(id)));
            }
            for (carrier, vni) in &self.vnis_held {
                if let Some(device) = self.devices.get(carrier)
                    && !self.vnis_wanted.contains(vni)
                {
                    batch.push(RTM_DELTUNNEL, 0, |out| put_vni(out, device.index, *vni));
                    operations.push(Operation::Remove(Object::Vni(*carrier, *vni)));
                }
            }
        }
        if batch.len() > 0 {
            let routes = operations
                .iter()
                .filter(|one| matches!(one, Operation::Route(..)));
            self.route_requests += routes.count() as u64;
            match self.netlink.send(batch) {
                Ok(refused) => self.settle_batch(operations, refused),
                Err(error) => {
                    // What became of the batch is not known: the kernel is asked.
                    error!(%error, "netlink failed in a batch: reading the kernel again");
                    self.pending.drift = true;
                    self.held_until = Some(Instant::now() + HOLD_OFF);
                    if let Err(error) = self.read_objects() {
                        error!(%error, "cannot read the kernel's tables");
                    }
                }
            }
        }
        if self.policy_changed {
            self.policy_changed = false;
            self.flush_marks();
            self.load_ruleset();
        }
    }

    /// Makes the rules of steps ahead of everything else: no packet gets a step's mark before they lead it.
    pub(super) fn send_step_rules(&mut self) {
        self.rules_wanted = self.wanted_rules();
        let (mut batch, mut operations) = (Batch::default(), Vec::new());
        self.push_rules(&mut batch, &mut operations, &|rule| {
            rule.priority < RULE_TENANT
        });
        if batch.len() == 0 {
            return;
        }
        match self.netlink.send(batch) {
            Ok(refused) => self.settle_batch(operations, refused),
            Err(error) => warn!(%error, "cannot make the rules of service chains"),
        }
    }

    fn push_rules(
        &self,
        batch: &mut Batch,
        operations: &mut Vec<Operation>,
        which: &dyn Fn(&Rule) -> bool,
    ) {
        // The last ones first: the kernel looks for a rule's place from the beginning, and a jump needs its target.
        let missing: Vec<&Rule> = self.rules_wanted.difference(&self.rules_held).collect();
        for rule in missing.into_iter().rev().filter(|rule| which(rule)) {
            let object = Object::Rule(rule.clone());
            if self.is_due(&object) {
                let protocol = self.config.protocol;
                batch.push(libc::RTM_NEWRULE, NEW, |out| put_rule(out, rule, protocol));
                operations.push(Operation::Make(object));
            }
        }
    }

    fn settle_batch(&mut self, operations: Vec<Operation>, refused: Vec<(usize, Refusal)>) {
        let mut refused = refused.into_iter().peekable();
        for (number, operation) in operations.into_iter().enumerate() {
            let refusal = refused
                .next_if(|(at, _)| *at == number)
                .map(|(_, refusal)| refusal);
            match (operation, refusal) {
                (Operation::Route(key, Some(spec)), None) => {
                    self.held.insert(key, spec);
                    self.refused.remove(&key);
                }
                (Operation::Route(key, Some(_)), Some(refusal)) => self.note_refusal(key, &refusal),
                // Gone already is gone too.
                (Operation::Route(key, None), _) => {
                    self.held.remove(&key);
                }
                (Operation::Make(object), None) => self.note_made(object),
                (Operation::Make(Object::Rule(rule)), Some(refusal))
                    if refusal.errno == libc::EEXIST =>
                {
                    self.rules_held.insert(rule);
                }
                (Operation::Make(object), Some(refusal)) => {
                    warn!(?object, kernel = %refusal, "the kernel refused an object: tried again later");
                    if let Object::Neighbour(address) = &object {
                        self.neighbours_held.remove(address);
                    }
                    self.later.insert(object, Instant::now() + RETRY);
                }
                (Operation::Remove(object), _) => self.note_removed(&object),
            }
        }
    }

    /// The kernel has not refused it just now.
    fn is_due(&self, object: &Object) -> bool {
        !self.later.contains_key(object)
    }

    fn note_made(&mut self, object: Object) {
        match object {
            Object::Vni(carrier, vni) => {
                self.vnis_held.insert((carrier, vni));
            }
            Object::NextHop(id) => self.next_hops.made(id),
            Object::Rule(rule) => {
                self.rules_held.insert(rule);
            }
            Object::Neighbour(_) => {}
        }
    }

    fn note_removed(&mut self, object: &Object) {
        match object {
            Object::Vni(carrier, vni) => {
                self.vnis_held.remove(&(*carrier, *vni));
            }
            Object::NextHop(id) => self.next_hops.removed(*id),
            Object::Rule(rule) => {
                self.rules_held.remove(rule);
            }
            Object::Neighbour(address) => {
                self.neighbours_held.remove(address);
            }
        }
    }

    /// The protocol of a route in the place of ours.
    fn owner(&mut self, key: &RouteKey) -> Option<u8> {
        let question = Question {
            mark: Some(key.table).filter(|table| *table != u32::from(libc::RT_TABLE_MAIN)),
            ..Question::from(key.prefix.addr())
        };
        let answer = self.ask(&question).ok()?;
        (answer.table == key.table && answer.prefix == Some(key.prefix)).then_some(answer.protocol)
    }

    fn note_refusal(&mut self, key: RouteKey, refusal: &Refusal) {
        let mut error = refusal.to_string();
        if refusal.errno == libc::EEXIST
            && self.refused.len() < OWNERS
            && let Some(owner) = self.owner(&key)
        {
            let _ = write!(
                error,
                ": a route of protocol {owner} stands there, which is not touched"
            );
        }
        let tries = self.refused.get(&key).map_or(0, |refused| refused.tries) + 1;
        if tries == 1 {
            warn!(table = key.table, prefix = %key.prefix, kernel = error, "the kernel refused a route: tried again later");
        }
        let pause = RETRY
            .saturating_mul(1 << (tries - 1).min(6))
            .min(RETRY_LONGEST);
        let refused = Refused {
            error,
            tries,
            retry_at: Instant::now() + pause,
        };
        self.refused.insert(key, refused);
    }

    /// Where tenants' packets leave for the Internet. A zone is found by the VNI, so that connections outlive a restart.
    fn exits(&self, devices: &[&str]) -> Vec<Exit> {
        let mut taken = BTreeSet::new();
        let mut exits = Vec::new();
        let mut tenants: Vec<&super::Tenant> = self.tenants.values().collect();
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

    /// Loads our nftables table where it is to say something else than before.
    fn load_ruleset(&mut self) {
        // An earlier process's table says the same until we know better.
        if self.devices.is_empty() || (self.tenants.is_empty() && !self.settled) {
            return;
        }
        let by_name: HashMap<&str, u32> = self
            .links
            .values()
            .map(|link| (link.name.as_str(), link.index))
            .collect();
        let mut on_link: HashMap<u32, Vec<IpAddr>> = HashMap::new();
        for address in &self.addresses {
            on_link
                .entry(address.link)
                .or_default()
                .push(address.address);
        }
        let mut entrances = Vec::new();
        for tenant in self.tenants.values() {
            for name in &tenant.intent.attachments {
                let link = by_name.get(name.as_str());
                entrances.push(Entrance {
                    interface: name.clone(),
                    input: if self.vrf {
                        vrf_name(&tenant.intent)
                    } else {
                        name.clone()
                    },
                    mark: tenant.table,
                    addresses: link
                        .and_then(|link| on_link.get(link).cloned())
                        .unwrap_or_default(),
                    service: false,
                });
            }
            for name in arms(&tenant.intent) {
                let link = by_name.get(name.as_str());
                entrances.push(Entrance {
                    interface: name.clone(),
                    input: name.clone(),
                    mark: tenant.table,
                    addresses: link
                        .and_then(|link| on_link.get(link).cloned())
                        .unwrap_or_default(),
                    service: true,
                });
            }
        }
        let devices: Vec<&str> = self.devices.keys().map(|carrier| carrier.name()).collect();
        let classify = self.classifier.is_none();
        let duties = Duties {
            part_tenants: !self.vrf && classify,
            // The classifier knows addresses, not networks of them.
            guard_router: classify || self.local_routes.iter().any(|net| !is_host(net)),
            classify,
        };
        let ruleset = nftables::ruleset(&entrances, &devices, duties, &self.exits(&devices));
        if ruleset != self.ruleset {
            if let Err(error) = nftables::load(&ruleset) {
                warn!(%error, "nftables refused our table: the router's own answers to tenants may not find them");
            }
            self.ruleset = ruleset;
        }
    }
}
