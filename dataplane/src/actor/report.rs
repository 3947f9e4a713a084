//! What the data plane says of itself.

use std::collections::HashSet;
use std::time::Instant;

use std::collections::BTreeMap;

use ipnet::IpNet;
use weft_overlay::intent::TenantId;

use super::{Actor, Purpose, links};
use crate::model::{LAST_RESORT, RouteSpec};
use crate::{DataplaneStatus, DeviceStatus, Intended, KernelRoute, RefusedRoute, TenantTable};

impl Actor {
    pub(super) fn status(&self) -> DataplaneStatus {
        let main = u32::from(libc::RT_TABLE_MAIN);
        let names: HashSet<&str> = self.links.values().map(|link| link.name.as_str()).collect();
        let with_vnis = self.devices.keys().filter(|device| device.has_vni_filter());
        DataplaneStatus {
            devices: self
                .devices
                .iter()
                .map(|(carrier, device)| DeviceStatus {
                    name: carrier.name().into_owned(),
                    port: carrier.unusual_port(),
                    encapsulation: carrier.encapsulation(),
                    mtu: device.mtu,
                    up: device.up,
                })
                .collect(),
            ports: self
                .peers
                .keys()
                .filter_map(|(carrier, address, _)| Some((*address, carrier.unusual_port()?)))
                .collect(),
            vrf: self.vrf,
            settled: self.settled,
            tenants: self
                .tenants
                .values()
                .map(|tenant| TenantTable {
                    name: tenant.intent.name.clone(),
                    table: tenant.table,
                    vrf: self.vrf.then(|| links::vrf_name(&tenant.intent)),
                    routes: self.held.in_table(tenant.table),
                    intended: self.wanted.in_table(tenant.table),
                    missing: tenant
                        .intent
                        .attachments
                        .iter()
                        .filter(|name| !names.contains(name.as_str()))
                        .cloned()
                        .collect(),
                })
                .collect(),
            intended: Intended {
                routes: self.wanted.len(),
                underlay_routes: self.wanted.in_table(main),
                next_hops: self.next_hops.intended(),
                vnis: self.vnis_wanted.len() * with_vnis.count(),
                rules: self.rules_wanted.len(),
            },
            routes: self.held.len(),
            underlay_routes: self.held.in_table(main),
            next_hops: self.next_hops.in_kernel(),
            vnis: self.vnis_held.len(),
            rules: self.rules_held.len(),
            requests: self.netlink.sent,
            route_requests: self.route_requests,
            drops: self.drops(),
            repairs: self.repairs,
            events_lost: self.events_lost,
            conditions: self.conditions.list(Instant::now()),
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
            chains_refused: self.steps.refused.as_ref().map(|(error, _)| error.clone()),
            narrow_paths: self.narrow_paths(),
            tracked: self
                .tracked
                .iter()
                .filter(|((purpose, _), _)| matches!(purpose, Purpose::NextHop | Purpose::Endpoint))
                .map(|((_, address), tracked)| {
                    let reach = tracked.reach.flatten();
                    (*address, reach.map(|reach| reach.metric))
                })
                .collect::<BTreeMap<_, _>>()
                .into_iter()
                .collect(),
        }
    }

    pub(super) fn tenant_routes(&self, tenant: TenantId) -> Vec<(IpNet, KernelRoute)> {
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
                    (None, Some(held), Some(wanted)) if wanted.is_held_as(held) => {
                        KernelRoute::Installed {
                            next_hop: match held {
                                RouteSpec::NextHop { id, .. } => Some(*id),
                                _ => None,
                            },
                        }
                    }
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
