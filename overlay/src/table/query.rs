//! Questions about the tenant tables.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;

use ipnet::IpNet;

use super::{
    Counters, Judged, LabelStatus, OriginationChange, Overlay, Slot, TenantRouteStatus,
    TenantStatus,
};
use crate::EndpointId;
use crate::intent::TenantId;
use crate::label::Endpoint;

impl Overlay {
    /// All tenants.
    pub fn tenants(&self) -> Vec<TenantStatus> {
        self.tenants
            .iter()
            .map(|(id, tenant)| TenantStatus {
                id: *id,
                config: tenant.config.clone(),
                stitched: tenant.stitched,
                up: tenant.up.iter().cloned().collect(),
                announced: tenant.announced.iter().copied().collect(),
                routes: tenant.routes,
            })
            .collect()
    }

    /// Routes of tenants without any far end, by the id that the first of their labels names and that no locator gives an address. Costs a
    /// walk over all prefixes.
    pub fn unlocated(&self) -> BTreeMap<EndpointId, u64> {
        let mut unlocated = BTreeMap::new();
        for (prefix, slots) in &self.prefixes {
            for slot in slots {
                let mut candidates = slot.candidates.iter();
                let Some(Endpoint::Id(id)) = slot.candidates.first().map(|one| one.via) else {
                    continue;
                };
                if candidates.all(|one| one.forwarding.is_none())
                    && !self.is_local(slot.tenant, *prefix)
                {
                    *unlocated.entry(id).or_default() += 1;
                }
            }
        }
        unlocated
    }

    /// What is announced for a prefix of a tenant's own.
    pub fn origination(&self, tenant: TenantId, prefix: IpNet) -> Option<OriginationChange> {
        let own = self.own_labels()?;
        let one = self.tenants.get(&tenant)?;
        let vni = one.config.primary_vni;
        one.announced.contains(&prefix).then(|| OriginationChange {
            prefix,
            path_id: vni.get(),
            communities: Some(vec![own.label(vni)]),
        })
    }

    /// The path that a tenant's packets to a prefix take, by its neighbour and path identifier: the first, of several.
    pub fn chosen(&self, tenant: TenantId, prefix: IpNet) -> Option<(u16, u32)> {
        let slots = self.prefixes.get(&prefix)?;
        let slot = slots.iter().find(|slot| slot.tenant == tenant)?;
        let verdicts = self.judge(prefix, slot);
        let mut judged = slot.candidates.iter().zip(&verdicts);
        let (candidate, _) = judged.find(|(_, lost)| lost.is_none())?;
        Some((candidate.source, candidate.path_id))
    }

    /// At most `limit` prefixes of a tenant behind `after`, sorted, its own and those of others; and how many there are.
    /// Costs a walk over all prefixes.
    pub fn tenant_routes(
        &self,
        tenant: TenantId,
        after: Option<IpNet>,
        limit: usize,
        wanted: &dyn Fn(&IpNet) -> bool,
    ) -> (Vec<TenantRouteStatus>, usize) {
        let mut page: BTreeMap<IpNet, Option<&Slot>> = BTreeMap::new();
        let mut total = 0;
        let own = self
            .tenants
            .get(&tenant)
            .map(|tenant| tenant.announced.clone())
            .unwrap_or_default();
        let remote = self.prefixes.iter().filter_map(|(prefix, slots)| {
            Some((*prefix, slots.iter().find(|slot| slot.tenant == tenant)?))
        });
        let local = own.iter().filter(|prefix| {
            !self
                .prefixes
                .get(prefix)
                .is_some_and(|slots| slots.iter().any(|slot| slot.tenant == tenant))
        });
        let all = remote
            .map(|(prefix, slot)| (prefix, Some(slot)))
            .chain(local.map(|prefix| (*prefix, None)));
        for (prefix, slot) in all.filter(|(prefix, _)| wanted(prefix)) {
            total += 1;
            if after.is_none_or(|after| prefix > after) {
                page.insert(prefix, slot);
                if page.len() > limit {
                    page.pop_last();
                }
            }
        }
        let routes = page
            .into_iter()
            .map(|(prefix, slot)| TenantRouteStatus {
                prefix,
                local: own.contains(&prefix),
                candidates: slot
                    .map(|slot| self.judged(prefix, slot))
                    .unwrap_or_default(),
            })
            .collect();
        (routes, total)
    }

    /// The route that a tenant's packets to an address take: the longest prefix with a way, or else the longest one.
    pub fn lookup(&self, tenant: TenantId, address: IpAddr) -> Option<TenantRouteStatus> {
        let own = &self.tenants.get(&tenant)?.announced;
        let longest = if address.is_ipv4() { 32 } else { 128 };
        let mut without_way = None;
        for length in (0..=longest).rev() {
            let Ok(net) = IpNet::new(address, length) else {
                continue;
            };
            let prefix = net.trunc();
            let slots = self.prefixes.get(&prefix);
            let slot = slots.and_then(|slots| slots.iter().find(|slot| slot.tenant == tenant));
            let local = own.contains(&prefix);
            if slot.is_none() && !local {
                continue;
            }
            let status = TenantRouteStatus {
                prefix,
                local,
                candidates: slot
                    .map(|slot| self.judged(prefix, slot))
                    .unwrap_or_default(),
            };
            let has_way = status.candidates.iter().any(|judged| judged.lost.is_none());
            if local || has_way {
                return Some(status);
            }
            without_way.get_or_insert(status);
        }
        without_way
    }

    fn judged(&self, prefix: IpNet, slot: &Slot) -> Vec<Judged> {
        let mut judged: Vec<Judged> = slot
            .candidates
            .iter()
            .zip(self.judge(prefix, slot))
            .map(|(candidate, lost)| Judged {
                candidate: candidate.clone(),
                lost,
            })
            .collect();
        judged.sort_by_key(|judged| {
            (
                judged.lost.is_some(),
                judged.lost,
                judged.candidate.forwarding,
                judged.candidate.source,
            )
        });
        judged
    }

    /// Every label in use, sorted, with how many prefixes carry it.
    pub fn labels(&self) -> Vec<LabelStatus> {
        let mut count = HashMap::new();
        for slot in self.prefixes.values().flatten() {
            for candidate in &slot.candidates {
                *count.entry(candidate.label).or_insert(0usize) += 1;
            }
        }
        let mut labels: Vec<LabelStatus> = count
            .into_iter()
            .map(|(label, prefixes)| LabelStatus { label, prefixes })
            .collect();
        labels.sort_unstable();
        labels
    }

    /// The routers that tenants' packets are tunnelled to, or may be, by address; each with its metric in the underlay, `None` where
    /// that does not reach it.
    pub fn endpoints(&self) -> BTreeMap<IpAddr, Option<u32>> {
        self.lists.reached().collect()
    }

    /// Those of one tenant. Costs a walk over all prefixes.
    pub fn endpoints_of(&self, tenant: TenantId) -> BTreeSet<IpAddr> {
        let slots = self.prefixes.values().flatten();
        let lists = slots.filter(|slot| slot.tenant == tenant);
        let lists: BTreeSet<u32> = lists.filter_map(|slot| slot.list).collect();
        let addresses = lists.into_iter().map(|id| self.lists.addresses(id));
        addresses.flatten().collect()
    }

    /// Prefixes that a transit may hide, sorted.
    pub fn overlaps(&self) -> impl Iterator<Item = super::Overlap> {
        self.overlaps.all()
    }

    /// Endpoint ids that two routers announce as theirs, by id.
    pub fn locator_conflicts(&self) -> impl Iterator<Item = super::LocatorConflict> + '_ {
        self.locators.conflicts()
    }

    /// What was ignored.
    pub fn counters(&self) -> Counters {
        self.counters
    }
}
