//! What the data plane says of itself.

use ipnet::IpNet;
use weft_overlay::intent::TenantId;

use super::{Actor, links};
use crate::model::{LAST_RESORT, RouteSpec};
use crate::{DataplaneStatus, DeviceStatus, Intended, KernelRoute, RefusedRoute, TenantTable};

impl Actor {
    pub(super) fn status(&self) -> DataplaneStatus {
        let main = u32::from(libc::RT_TABLE_MAIN);
        let with_vnis = self.devices.keys().filter(|device| device.has_vni_filter());
        DataplaneStatus {
            devices: self
                .devices
                .iter()
                .map(|(carrier, device)| DeviceStatus {
                    name: carrier.name().to_owned(),
                    encapsulation: carrier.encapsulation(),
                    mtu: device.mtu,
                    up: device.up,
                })
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
            tracked: self
                .tracked
                .iter()
                .filter(|((tenant, _), _)| tenant.is_none())
                .map(|((_, address), tracked)| (*address, tracked.metric.flatten()))
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
