//! Sends the difference between what is wanted and what the kernel holds.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Instant;

use tracing::{error, warn};

use super::{Actor, RETRY, RETRY_LONGEST, Refused};
use crate::DEVICE;
use crate::host::{self, Marked};
use crate::model::{
    Family, RULE_LAST, RULE_TENANT, RouteKey, RouteSpec, Rule, RuleMatch, gateway, mac,
};
use crate::netlink::objects::{
    NEW, RTM_DELNEXTHOP, RTM_DELROUTE, RTM_DELTUNNEL, RTM_NEWNEXTHOP, RTM_NEWROUTE, RTM_NEWTUNNEL,
    SET, put_neighbour, put_next_hop, put_next_hop_id, put_route, put_route_key, put_rule, put_vni,
};
use crate::netlink::socket::{Batch, Refusal};

/// What a request of a batch was about.
enum Operation {
    Vni(u32, bool),
    Neighbour(IpAddr),
    NextHop(u32, bool),
    Route(RouteKey, Option<RouteSpec>),
    Rule(Rule, bool),
}

/// How long nothing is sent after netlink failed, so that a failure that lasts costs little.
const HOLD_OFF: std::time::Duration = std::time::Duration::from_secs(1);

impl Actor {
    /// Sends what differs: what routes rest on first, then routes, then the rules that lead to them; removals the other
    /// way round.
    pub(super) fn flush(&mut self) {
        if self.held_until.is_some_and(|until| Instant::now() < until) {
            return;
        }
        self.held_until = None;
        let protocol = self.config.protocol;
        let mut batch = Batch::default();
        let mut operations = Vec::new();
        let vnis: BTreeSet<u32> = self
            .tenants
            .values()
            .flat_map(|tenant| &tenant.intent.vnis)
            .map(|vni| vni.get())
            .collect();
        let rules = self.wanted_rules();
        let device = self.device;
        if let Some(device) = device {
            for vni in vnis.difference(&self.vnis_held) {
                batch.push(RTM_NEWTUNNEL, 0, |out| put_vni(out, device, *vni));
                operations.push(Operation::Vni(*vni, true));
            }
            for (peer, family) in self.peers() {
                let gateway = gateway(peer, family);
                if !self.neighbours_held.contains(&gateway) {
                    batch.push(libc::RTM_NEWNEIGH, SET, |out| {
                        put_neighbour(out, device, gateway, mac(peer))
                    });
                    operations.push(Operation::Neighbour(gateway));
                }
            }
        }
        for id in self.next_hops.missing() {
            if let Some(next_hop) = self.next_hops.get(id) {
                batch.push(RTM_NEWNEXTHOP, SET, |out| {
                    put_next_hop(out, id, next_hop, protocol)
                });
                operations.push(Operation::NextHop(id, true));
            }
        }
        // A route may be queued twice, when its intent changed and the kernel was read again: it is sent once.
        let mut queue = std::mem::take(&mut self.queue);
        queue.sort_unstable();
        queue.dedup();
        for key in queue {
            match (self.wanted.get(&key).copied(), self.held.get(&key).copied()) {
                (wanted, held) if wanted == held => {}
                (Some(spec), held) => {
                    // What is not ours is never replaced.
                    let flags = if held.is_some() { SET } else { NEW };
                    batch.push(RTM_NEWROUTE, flags, |out| {
                        put_route(out, &key, &spec, protocol)
                    });
                    operations.push(Operation::Route(key, Some(spec)));
                }
                (None, _) => {
                    batch.push(RTM_DELROUTE, 0, |out| put_route_key(out, &key, protocol));
                    operations.push(Operation::Route(key, None));
                }
            }
        }
        for rule in rules.difference(&self.rules_held) {
            batch.push(libc::RTM_NEWRULE, NEW, |out| put_rule(out, rule, protocol));
            operations.push(Operation::Rule(rule.clone(), true));
        }
        if self.settled {
            for rule in self.rules_held.difference(&rules) {
                batch.push(libc::RTM_DELRULE, 0, |out| put_rule(out, rule, protocol));
                operations.push(Operation::Rule(rule.clone(), false));
            }
            for id in self.next_hops.unused() {
                batch.push(RTM_DELNEXTHOP, 0, |out| put_next_hop_id(out, id));
                operations.push(Operation::NextHop(id, false));
            }
            if let Some(device) = device {
                for vni in self.vnis_held.difference(&vnis) {
                    batch.push(RTM_DELTUNNEL, 0, |out| put_vni(out, device, *vni));
                    operations.push(Operation::Vni(*vni, false));
                }
            }
        }
        if batch.len() > 0 {
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
        self.load_ruleset();
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
                (Operation::Vni(vni, true), None) => drop(self.vnis_held.insert(vni)),
                (Operation::Vni(vni, false), None) => drop(self.vnis_held.remove(&vni)),
                (Operation::Neighbour(address), None) => drop(self.neighbours_held.insert(address)),
                (Operation::NextHop(id, true), None) => self.next_hops.made(id),
                (Operation::NextHop(id, false), _) => self.next_hops.removed(id),
                (Operation::Rule(rule, true), None) => drop(self.rules_held.insert(rule)),
                (Operation::Rule(rule, false), _) => drop(self.rules_held.remove(&rule)),
                (Operation::Vni(vni, add), Some(refusal)) => {
                    warn!(vni, add, kernel = %refusal, "the kernel refused a VNI");
                }
                (Operation::Neighbour(address), Some(refusal)) => {
                    warn!(%address, kernel = %refusal, "the kernel refused a neighbour entry");
                }
                (Operation::NextHop(id, true), Some(refusal)) => {
                    warn!(id, kernel = %refusal, "the kernel refused a next-hop object");
                }
                (Operation::Rule(rule, true), Some(refusal)) => {
                    if refusal.errno == libc::EEXIST {
                        self.rules_held.insert(rule);
                    } else {
                        warn!(?rule, kernel = %refusal, "the kernel refused a rule");
                    }
                }
            }
        }
    }

    fn note_refusal(&mut self, key: RouteKey, refusal: &Refusal) {
        let tries = self.refused.get(&key).map_or(0, |refused| refused.tries) + 1;
        if tries == 1 {
            warn!(table = key.table, prefix = %key.prefix, kernel = %refusal, "the kernel refused a route: tried again later");
        }
        let pause = RETRY
            .saturating_mul(1 << (tries - 1).min(6))
            .min(RETRY_LONGEST);
        let refused = Refused {
            error: refusal.to_string(),
            tries,
            retry_at: Instant::now() + pause,
        };
        self.refused.insert(key, refused);
    }

    fn wanted_rules(&self) -> BTreeSet<Rule> {
        let mut rules = BTreeSet::new();
        for family in [Family::V4, Family::V6] {
            for tenant in self.tenants.values() {
                let table = Some(tenant.table);
                let matches = tenant
                    .intent
                    .vnis
                    .iter()
                    .map(|vni| RuleMatch::Tunnel(vni.get()));
                let interfaces = tenant
                    .intent
                    .attachments
                    .iter()
                    .cloned()
                    .map(RuleMatch::Interface);
                let mark = [RuleMatch::Mark(tenant.table)];
                for of in matches.chain(interfaces).chain(mark) {
                    rules.insert(Rule {
                        family,
                        priority: RULE_TENANT,
                        of,
                        table,
                    });
                }
            }
            if self.device.is_some() {
                let of = RuleMatch::Interface(DEVICE.to_owned());
                rules.insert(Rule {
                    family,
                    priority: RULE_LAST,
                    of,
                    table: None,
                });
            }
        }
        rules
    }

    fn addresses_on(&self, name: &str) -> Vec<IpAddr> {
        let link = self
            .links
            .values()
            .find(|link| link.name == name)
            .map(|link| link.index);
        self.addresses
            .iter()
            .filter(|address| Some(address.link) == link)
            .map(|address| address.address)
            .collect()
    }

    /// Loads our nftables table where it is to say something else than before.
    fn load_ruleset(&mut self) {
        if self.device.is_none() {
            return;
        }
        let tenants: Vec<Marked> = self
            .tenants
            .values()
            .map(|tenant| Marked {
                mark: tenant.table,
                attachments: tenant
                    .intent
                    .attachments
                    .iter()
                    .map(|name| (name.clone(), self.addresses_on(name)))
                    .collect(),
            })
            .collect();
        // An earlier process's table says the same until we know better.
        if tenants.is_empty() && !self.settled {
            return;
        }
        let ruleset = host::ruleset(&tenants, DEVICE);
        if ruleset != self.ruleset {
            if let Err(error) = host::load(&ruleset) {
                warn!(%error, "nftables refused our table: the router's own answers to tenants may not find them");
            }
            self.ruleset = ruleset;
        }
    }
}
