//! Sends the difference between what is wanted and what the kernel holds.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::{self, Write as _};
use std::net::IpAddr;
use std::time::Instant;

use tracing::{error, warn};

use super::steps::RULE_CLOSED;
use super::{Actor, RETRY, RETRY_LONGEST, Refused};
use crate::condition::{ConditionKind, Severity};
use crate::model::{
    Carrier, Family, RULE_TENANT, RouteKey, RouteSpec, Rule, RuleAction, gateway, mac,
};
use crate::netlink::objects::{
    NEW, Question, RTM_DELNEXTHOP, RTM_DELROUTE, RTM_DELTUNNEL, RTM_NEWNEXTHOP, RTM_NEWROUTE,
    RTM_NEWTUNNEL, SET, put_neighbour, put_next_hop, put_next_hop_id, put_route, put_route_key,
    put_rule, put_vni,
};
use crate::netlink::socket::{Batch, Refusal};
use crate::ways::WaySets;

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
    Neighbour(Carrier, IpAddr),
    NextHop(u32),
    Rule(Rule),
}

impl fmt::Display for Object {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Vni(carrier, vni) => write!(f, "VNI {vni} at {}", carrier.name()),
            Self::Neighbour(carrier, address) => {
                write!(f, "the neighbour entry of {address} at {}", carrier.name())
            }
            Self::NextHop(id) => write!(f, "next-hop object {id}"),
            Self::Rule(rule) => write!(f, "the rule of priority {}", rule.priority),
        }
    }
}

/// The kernel's words for a route whose next-hop object is not there.
const NO_NEXT_HOP: &str = "Nexthop id does not exist";
/// Of so many refused routes the kernel is asked whose stands in their place; more are one and the same trouble.
const OWNERS: usize = 1000;

/// How long nothing is sent after netlink failed, so that a failure that lasts costs little.
const HOLD_OFF: std::time::Duration = std::time::Duration::from_secs(1);

fn push_route(
    batch: &mut Batch,
    operations: &mut Vec<Operation>,
    protocol: u8,
    (sets, beside_narrow): (&WaySets, bool),
    (key, spec, held): (RouteKey, RouteSpec, Option<RouteSpec>),
) {
    // What is not ours is never replaced.
    let flags = if held.is_some() { SET } else { NEW };
    batch.push(RTM_NEWROUTE, flags, |out| {
        put_route(out, &key, &spec, sets, protocol, beside_narrow)
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
        if std::mem::take(&mut self.underlay_changed) {
            let mut tenants = self.tenants.values();
            self.policy_changed |= tenants.any(|tenant| tenant.intent.breakout.is_some());
        }
        // Another tenant, or another label: routers that may send some VNIs only are looked at again.
        self.senders.changed |= self.policy_changed;
        self.flush_senders();
        self.flush_steps();
        self.flush_objects();
        if self.policy_changed {
            self.policy_changed = false;
            self.flush_marks();
            self.load_ruleset();
        }
        if !self.forwards && (self.settled || !self.tenants.is_empty()) {
            self.forwards = true;
            self.keep_settings(None);
        }
    }

    /// The same without nftables.
    pub(super) fn flush_objects(&mut self) {
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
        for (carrier, endpoint, id) in self.peers.keys() {
            let Some(device) = self.devices.get(carrier).filter(|_| carrier.is_ethernet()) else {
                continue;
            };
            for family in [Family::V4, Family::V6] {
                let gateway = gateway(*endpoint, *id, family);
                let object = Object::Neighbour(*carrier, gateway);
                if !self.neighbours_held.contains(&(*carrier, gateway)) && self.is_due(&object) {
                    batch.push(libc::RTM_NEWNEIGH, SET, |out| {
                        put_neighbour(out, device.index, gateway, mac(*endpoint, *id))
                    });
                    operations.push(Operation::Make(object));
                    self.neighbours_held.insert((*carrier, gateway));
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
        let beside_narrow = self.paths.ever_narrow;
        // A gateway is known by the route to its link.
        let mut behind = Vec::new();
        for key in queue {
            match (self.wanted.get(&key).copied(), self.held.get(&key).copied()) {
                (Some(spec), Some(held)) if spec.is_held_as(&held) => {}
                (None, None) => {}
                (Some(spec @ RouteSpec::Via { .. }), held) => behind.push((key, spec, held)),
                (Some(spec), held) => push_route(
                    &mut batch,
                    &mut operations,
                    protocol,
                    (&self.way_sets, beside_narrow),
                    (key, spec, held),
                ),
                (None, _) => {
                    batch.push(RTM_DELROUTE, 0, |out| put_route_key(out, &key, protocol));
                    operations.push(Operation::Route(key, None));
                }
            }
        }
        for (key, spec, held) in behind {
            push_route(
                &mut batch,
                &mut operations,
                protocol,
                (&self.way_sets, beside_narrow),
                (key, spec, held),
            );
        }
        if !rules_first {
            self.push_rules(&mut batch, &mut operations, &|_| true);
        }
        for rule in self.rules_held.difference(&self.rules_wanted) {
            // What keeps packets back while there is no wall goes with its reason; an earlier process's other rules may be needed yet.
            let holds_back = rule.priority == RULE_CLOSED
                || (rule.priority == RULE_TENANT && rule.action == RuleAction::Unreachable);
            if self.settled || holds_back {
                batch.push(libc::RTM_DELRULE, 0, |out| put_rule(out, rule, protocol));
                operations.push(Operation::Remove(Object::Rule(rule.clone())));
            }
        }
        if self.settled {
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
                Ok(refused) => {
                    self.conditions
                        .clear(Instant::now(), ConditionKind::Netlink, "routes");
                    self.settle_batch(operations, refused);
                }
                Err(error) => {
                    // What became of the batch is not known: the kernel is asked.
                    self.conditions.set(
                        Instant::now(),
                        (ConditionKind::Netlink, "routes"),
                        Severity::Degraded,
                        format!("netlink failed in a batch: {error}; the kernel is read again"),
                        None,
                    );
                    self.pending.drift = true;
                    self.held_until = Some(Instant::now() + HOLD_OFF);
                    if let Err(error) = self.read_objects() {
                        error!(%error, "cannot read the kernel's tables");
                    }
                }
            }
        }
        self.note_refused_routes(now);
        self.tell_unforwardable();
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
        let mut next_hops_lost = false;
        let mut made = BTreeSet::new();
        let mut refused = refused.into_iter().peekable();
        for (number, operation) in operations.into_iter().enumerate() {
            let refusal = refused
                .next_if(|(at, _)| *at == number)
                .map(|(_, refusal)| refusal);
            match (operation, refusal) {
                (Operation::Route(key, Some(spec)), None) => {
                    self.held.insert(key, spec);
                    self.forget_refusal(&key);
                    self.outdate(&key);
                }
                (Operation::Route(key, Some(spec)), Some(refusal)) => {
                    self.note_refusal(key, &refusal);
                    // A link that was down for a moment took it along without a word.
                    next_hops_lost |=
                        !self.lacks_object(&spec) && refusal.to_string().contains(NO_NEXT_HOP);
                }
                // Gone already is gone too.
                (Operation::Route(key, None), _) => {
                    self.held.remove(&key);
                    self.outdate(&key);
                }
                (Operation::Make(object), None) => {
                    if let Object::NextHop(id) = object {
                        made.insert(id);
                    }
                    self.note_made(object);
                }
                (Operation::Make(Object::Rule(rule)), Some(refusal))
                    if refusal.errno == libc::EEXIST =>
                {
                    self.rules_held.insert(rule);
                }
                (Operation::Make(object), Some(refusal)) => {
                    self.conditions.set(
                        Instant::now(),
                        (ConditionKind::ObjectRefused, &object.to_string()),
                        Severity::Degraded,
                        format!("the kernel refuses {object}: {refusal}; it is tried again"),
                        None,
                    );
                    if let Object::Neighbour(carrier, address) = &object {
                        self.neighbours_held.remove(&(*carrier, *address));
                    }
                    self.later.insert(object, Instant::now() + RETRY);
                }
                (Operation::Remove(object), _) => self.note_removed(&object),
            }
        }
        if !made.is_empty() {
            self.retry_routes_by(&made);
        }
        if next_hops_lost && let Err(error) = self.read_objects() {
            warn!(%error, "cannot read the kernel's tables");
        }
    }

    /// The kernel has not refused it just now.
    fn is_due(&self, object: &Object) -> bool {
        !self.later.contains_key(object)
    }

    /// Routes that were refused for want of these next hops are tried again now.
    fn retry_routes_by(&mut self, made: &BTreeSet<u32>) {
        let now = Instant::now();
        for (key, refused) in &mut self.refused {
            if let Some(RouteSpec::NextHop { id, .. }) = self.wanted.get(key)
                && made.contains(id)
                && refused.error.contains(NO_NEXT_HOP)
            {
                refused.retry_at = now;
            }
        }
    }

    /// What a route rests on has been refused: it comes when that does, and not before.
    pub(super) fn lacks_object(&self, spec: &RouteSpec) -> bool {
        match spec {
            RouteSpec::NextHop { id, .. } => !self.is_due(&Object::NextHop(*id)),
            _ => false,
        }
    }

    fn note_made(&mut self, object: Object) {
        self.note_well(&object);
        match object {
            Object::Vni(carrier, vni) => {
                self.vnis_held.insert((carrier, vni));
            }
            Object::NextHop(id) => self.next_hops.made(id),
            Object::Rule(rule) => {
                self.rules_held.insert(rule);
            }
            Object::Neighbour(..) => {}
        }
    }

    /// It is in the kernel, or no longer wanted there.
    fn note_well(&mut self, object: &Object) {
        if self.conditions.any(ConditionKind::ObjectRefused) {
            let subject = object.to_string();
            self.conditions
                .clear(Instant::now(), ConditionKind::ObjectRefused, &subject);
        }
    }

    fn note_removed(&mut self, object: &Object) {
        self.note_well(object);
        match object {
            Object::Vni(carrier, vni) => {
                self.vnis_held.remove(&(*carrier, *vni));
            }
            Object::NextHop(id) => self.next_hops.removed(*id),
            Object::Rule(rule) => {
                self.rules_held.remove(rule);
            }
            Object::Neighbour(carrier, address) => {
                self.neighbours_held.remove(&(*carrier, *address));
            }
        }
    }

    /// Refused routes are one condition for each table.
    fn note_refused_routes(&mut self, now: Instant) {
        if std::mem::replace(&mut self.refused_noted, self.refused.len()) == self.refused.len() {
            return;
        }
        let mut by_table: BTreeMap<String, (usize, &RouteKey, &str)> = BTreeMap::new();
        for (key, refused) in &self.refused {
            let tenant = self.by_table.get(&key.table);
            let tenant = tenant.and_then(|id| self.tenants.get(id));
            let subject = match tenant {
                Some(tenant) => tenant.intent.name.clone(),
                None => "main table".to_owned(),
            };
            let first = (0, key, refused.error.as_str());
            by_table.entry(subject).or_insert(first).0 += 1;
        }
        for (subject, (count, key, error)) in &by_table {
            let more = match count {
                1 => String::new(),
                _ => format!(", and {} more routes", count - 1),
            };
            self.conditions.set(
                now,
                (ConditionKind::RouteRefused, subject),
                Severity::Degraded,
                format!("the kernel refuses {}: {error}{more}", key.prefix),
                Some("`weft show kernel` has all of them; each is tried again, and announced to nobody who would send packets here (`router.announce_refused`)".into()),
            );
            if self.by_table.contains_key(&key.table) {
                let whose = vec![subject.clone()];
                self.conditions
                    .narrow(ConditionKind::RouteRefused, subject, whose);
            }
        }
        self.conditions
            .retain(now, ConditionKind::RouteRefused, |subject| {
                by_table.contains_key(subject)
            });
    }

    /// The protocol of a route in the place of ours, where it can be told, and whether packets go on there.
    fn owner(&mut self, key: &RouteKey) -> (Option<u8>, bool) {
        let question = Question {
            mark: Some(key.table).filter(|table| *table != u32::from(libc::RT_TABLE_MAIN)),
            ..Question::from(key.prefix.addr())
        };
        // Asked for a route that drops packets, the kernel answers with the error that their sender would see.
        let Ok(answer) = self.ask(&question) else {
            return (None, false);
        };
        match answer.table == key.table && answer.prefix == Some(key.prefix) {
            true => {
                let forwards = matches!(answer.kind, libc::RTN_UNICAST | libc::RTN_LOCAL);
                (Some(answer.protocol), forwards)
            }
            false => (None, true),
        }
    }

    fn note_refusal(&mut self, key: RouteKey, refusal: &Refusal) {
        let mut error = refusal.to_string();
        let mut taken = refusal.errno == libc::EEXIST;
        if taken && self.refused.len() < OWNERS {
            let (owner, forwards) = self.owner(&key);
            if let Some(owner) = owner {
                let _ = write!(
                    error,
                    ": a route of protocol {owner} stands there, which is not touched"
                );
            } else if !forwards {
                error.push_str(": a route that drops packets stands there, which is not touched");
            }
            taken = forwards;
        }
        let tries = self.refused.get(&key).map_or(0, |refused| refused.tries) + 1;
        let pause = RETRY
            .saturating_mul(1 << (tries - 1).min(6))
            .min(RETRY_LONGEST);
        let refused = Refused {
            error,
            tries,
            retry_at: Instant::now() + pause,
            taken,
        };
        self.refuse(key, refused);
    }
}
