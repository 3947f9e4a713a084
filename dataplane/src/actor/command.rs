//! What the data plane is told and asked.

use std::time::Instant;

use rustc_hash::FxHashMap;
use weft_overlay::intent::{Group, GroupId, IntentDelta};

use super::{Actor, RETRY};
use crate::Command;
use crate::condition::ConditionKind;
use crate::model::RouteKey;

impl Actor {
    /// True where the data plane is to end.
    pub(super) fn handle(&mut self, command: Command) -> bool {
        match command {
            Command::Apply(delta) => self.apply(delta),
            Command::Settle => {
                self.settled = true;
                self.conditions
                    .clear(Instant::now(), ConditionKind::Starting, "router");
                self.policy_changed = true;
                self.senders.changed = true;
                self.steps.changed = true;
                self.queue_leftovers();
                self.find_classified();
                self.watch_rules_at = Some(Instant::now());
                self.attach();
            }
            Command::Track(purpose, addresses) => {
                self.track(purpose, addresses);
                self.attach_anew(purpose);
            }
            Command::TellNeighborLinks(tell) => self.tell_neighbor_link = Some(tell),
            Command::Untrack(purpose, addresses) => {
                self.untrack(purpose, &addresses);
                self.attach_anew(purpose);
            }
            Command::Interfaces { uplinks, granted } => self.set_interfaces(uplinks, granted),
            Command::Redistribute(tenant, redistribute) => {
                if let Some(tenant) = self.tenants.get_mut(&tenant) {
                    tenant.redistribute = redistribute;
                }
                self.attach();
            }
            // Whoever asked and went away needs no answer, here and below.
            Command::Status(reply) => drop(reply.send(self.status())),
            Command::LearnedPath(address) => self.ask_path(address),
            Command::ProbedPath(address, path) => self.set_probed_path(address, path),
            Command::ExceededPath(address, octets) => self.exceed_path(address, octets),
            Command::TunnelOctets(reply) => drop(reply.send(self.tunnel_octets())),
            Command::Traffic(reply) => drop(reply.send(self.traffic())),
            Command::ProbeTargets(known, reply) => {
                drop(reply.send(self.probe_targets(known)));
            }
            Command::Trace(tenant, step, packet, reply) => {
                drop(reply.send(self.trace(tenant, step, packet)));
            }
            Command::Routes(tenant, reply) => drop(reply.send(self.tenant_routes(tenant))),
            Command::Stop(reply) => {
                let _ = reply.send(());
                return true;
            }
        }
        false
    }

    fn apply(&mut self, mut delta: IntentDelta) {
        let tenants_changed = !delta.tenants.is_empty();
        self.senders.apply(&mut delta);
        for (id, intent) in delta.tenants {
            match intent {
                Some(intent) => self.set_tenant(id, intent),
                None => self.remove_tenant(id),
            }
        }
        if tenants_changed {
            // Tenants may come one by one, and there may be many.
            let soon = Instant::now() + RETRY;
            self.watch_rules_at.get_or_insert(soon);
            self.attach();
        }
        let groups: FxHashMap<GroupId, Option<Group>> = delta.groups.into_iter().collect();
        let mut gone = Vec::new();
        for (id, group) in groups {
            match group {
                Some(group) => self.set_group(id, group),
                None => gone.push(id),
            }
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
            match route.group {
                Some(group) => self.want_via_group(key, group),
                None => {
                    self.group_of.remove(&key);
                    self.want_local(key);
                }
            }
        }
        for route in delta.sites {
            self.set_site_route(&route);
        }
        for (label, state) in delta.services {
            self.set_service(label, state);
        }
        if self.steps.changed {
            self.plan_ways();
        }
        for id in gone {
            self.remove_group(id);
        }
        self.set_underlay(delta.underlay);
        if std::mem::take(&mut self.new_peers) {
            self.fit_mtu();
        }
    }
}
