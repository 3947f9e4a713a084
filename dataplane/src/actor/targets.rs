//! What probes inside the tunnels can be sent to, and from which addresses.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;

use weft_overlay::Vni;
use weft_overlay::intent::TenantId;

use super::Actor;
use crate::model::Carrier;
use crate::snapshot::Address;
use crate::tunnel_echo::{FarEnd, can_be_probed};

/// Far routers that tenants' routes lead to, and this router's own addresses in those tenants.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProbeTargets {
    /// It is another one when something changed.
    pub version: u64,
    /// Tenants, by each VNI that far routers know them by.
    pub tenants: BTreeMap<Vni, ProbedTenant>,
    /// Far routers, each with the VNIs of `tenants` that packets go there with; sorted, no duplicates.
    pub far_ends: BTreeMap<FarEnd, Vec<Vni>>,
    /// How large a packet to each may be.
    pub limits: BTreeMap<FarEnd, PathLimits>,
    /// Routers whose tunnel packets are taken here.
    pub senders: BTreeSet<IpAddr>,
}

/// Octets that a packet to a far router may have, outer headers included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PathLimits {
    /// As far as its device and the kernel know.
    pub known: u16,
    /// Where the kernel knows of less from a router on the way alone: as far as the device does.
    pub link: u16,
}

/// A tenant as far as probes go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProbedTenant {
    /// Its number.
    pub id: TenantId,
    /// Its name.
    pub name: String,
    /// The router's addresses on those of its attachments that are up, sorted: IPv4 first.
    pub addresses: Vec<IpAddr>,
}

impl Actor {
    /// What can be probed may be something else now.
    pub(super) fn note_targets(&self) {
        self.said.targets.send_modify(|version| *version += 1);
    }

    /// What can be probed, unless it is what `known` was.
    pub(super) fn probe_targets(&self, known: u64) -> Option<ProbeTargets> {
        let version = *self.said.targets.borrow();
        if known == version {
            return None;
        }
        let names = self.tenants.iter().flat_map(|(id, tenant)| {
            let attachments = tenant.intent.attachments.iter();
            attachments.map(|name| (name.as_str(), *id))
        });
        let tenant_at: HashMap<&str, TenantId> = names.collect();
        let mut addresses: BTreeMap<TenantId, BTreeSet<IpAddr>> = BTreeMap::new();
        for Address { link, address, .. } in &self.addresses {
            if let Some(link) = self.links.get(link).filter(|link| link.up)
                && let Some(tenant) = tenant_at.get(link.name.as_str())
                && can_be_probed(*address)
            {
                addresses.entry(*tenant).or_default().insert(*address);
            }
        }
        let mut tenants = BTreeMap::new();
        for (id, addresses) in addresses {
            let Some(tenant) = self.tenants.get(&id) else {
                continue;
            };
            for vni in &tenant.intent.vnis {
                let tenant = ProbedTenant {
                    id,
                    name: tenant.intent.name.clone(),
                    addresses: addresses.iter().copied().collect(),
                };
                tenants.insert(*vni, tenant);
            }
        }
        let mut far_ends: BTreeMap<FarEnd, Vec<Vni>> = BTreeMap::new();
        for hop in self.groups.values().flat_map(|shared| &shared.group.hops.0) {
            let carrier = Carrier::to(hop);
            let far_end = FarEnd {
                address: hop.address,
                encapsulation: hop.encapsulation,
                endpoint_id: hop.endpoint_id,
                port: carrier.port(),
            };
            let vnis = far_ends.entry(far_end).or_default();
            vnis.extend(tenants.contains_key(&hop.vni).then_some(hop.vni));
        }
        for vnis in far_ends.values_mut() {
            vnis.sort_unstable();
            vnis.dedup();
        }
        let limits = far_ends.keys().map(|far_end| {
            let carrier = Carrier::of(far_end.encapsulation, far_end.address, far_end.port);
            (*far_end, self.path_limits(carrier, far_end.address))
        });
        Some(ProbeTargets {
            limits: limits.collect(),
            senders: self.senders.addresses(),
            version,
            tenants,
            far_ends,
        })
    }
}
