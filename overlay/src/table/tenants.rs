//! Tenants as they come, change and go, and what this router announces for them.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::IpNet;

use super::{OriginationChange, Overlay, TenantConfig};
use crate::export::OwnLabels;
use crate::intent::{SiteRoute, TenantId, TenantIntent};
use crate::label::{LabelCommunity, Locator, LocatorPort};
use crate::{Vni, VniSet};

/// A tenant with what is known of it now.
pub(super) struct Tenant {
    pub(super) config: TenantConfig,
    pub(super) stitched: bool,
    pub(super) up: BTreeSet<String>,
    pub(super) redistributed: BTreeSet<IpNet>,
    /// What the tenant's own routers told, with their addresses.
    pub(super) sites: BTreeMap<IpNet, IpAddr>,
    pub(super) announced: BTreeSet<IpNet>,
    pub(super) routes: usize,
}

impl Tenant {
    pub(super) fn intent(&self) -> TenantIntent {
        let mut vnis = self.config.vnis.clone();
        vnis.push(self.config.primary_vni);
        vnis.sort_unstable();
        vnis.dedup();
        let mut attachments = self.config.attachments.clone();
        attachments.sort_unstable();
        TenantIntent {
            name: self.config.name.clone(),
            primary_vni: self.config.primary_vni,
            vnis,
            attachments,
            breakout: self.config.breakout.clone(),
            services: self.config.services.clone(),
            chains: self.config.chains.clone(),
        }
    }

    /// Whether a prefix is one of [`Tenant::wanted`].
    pub(super) fn wants(&self, prefix: IpNet) -> bool {
        let configured = || self.config.prefixes.iter().any(|one| one.trunc() == prefix);
        self.redistributed.contains(&prefix)
            || self.sites.contains_key(&prefix)
            || (self.is_attached() && configured())
    }

    /// Somebody is there to receive the packets of configured prefixes.
    pub(super) fn is_attached(&self) -> bool {
        self.config.attachments.is_empty() || !self.up.is_empty()
    }

    /// The prefixes to announce: configured ones while somebody is there to receive their packets.
    pub(super) fn wanted(&self) -> BTreeSet<IpNet> {
        let mut prefixes = self.redistributed.clone();
        prefixes.extend(self.sites.keys());
        if self.is_attached() {
            prefixes.extend(self.config.prefixes.iter().map(IpNet::trunc));
        }
        prefixes
    }
}

impl Overlay {
    /// Adds a tenant. Names and VNIs are unique: the configuration sees to it. Routes with labels of its VNIs that have come before
    /// have to come again.
    pub fn add_tenant(&mut self, config: TenantConfig) -> TenantId {
        // An edge made one of its own for a VNI that nobody had configured.
        let vnis = config.vnis.iter().chain([&config.primary_vni]);
        let stitched: BTreeSet<TenantId> = vnis.filter_map(|vni| self.stitched_of(*vni)).collect();
        for id in stitched {
            self.remove_tenant(id);
        }
        self.insert_tenant(config, false)
    }

    pub(super) fn stitched_of(&self, vni: Vni) -> Option<TenantId> {
        let id = *self.by_vni.get(&vni)?;
        self.tenants.get(&id)?.stitched.then_some(id)
    }

    /// Changes a tenant; its name and primary VNI are what they were. Routes with labels of the VNIs that came or went have to come
    /// again.
    pub fn set_tenant(&mut self, id: TenantId, config: TenantConfig) {
        for vni in &config.vnis {
            if let Some(stitched) = self.stitched_of(*vni) {
                self.remove_tenant(stitched);
            }
        }
        self.unlink(id);
        let Some(tenant) = self.tenants.get_mut(&id) else {
            return;
        };
        tenant.config = config;
        self.link(id);
        self.announce(id);
    }

    /// Removes a tenant with its routes, and takes back what was announced for it.
    pub fn remove_tenant(&mut self, id: TenantId) {
        let Some(tenant) = self.tenants.get_mut(&id) else {
            return;
        };
        tenant.config.prefixes.clear();
        tenant.redistributed.clear();
        tenant.sites.clear();
        self.announce(id);
        let mut gone = Vec::new();
        let mut candidates = Vec::new();
        self.prefixes.retain(|_, slots| {
            slots.retain(|slot| {
                let its = slot.tenant == id;
                if its {
                    gone.extend(slot.list);
                    candidates.extend(slot.candidates.drain(..));
                }
                !its
            });
            !slots.is_empty()
        });
        self.name_senders(&candidates, false);
        for list in gone {
            self.lists.release(list);
        }
        self.unlink(id);
        self.tenants.remove(&id);
        self.link_services(id);
        self.intent.tenants.push((id, None));
    }

    /// Other VNIs get a table as soon as a label of them is accepted. Routes with labels of those that came have to come again.
    pub fn set_stitched(&mut self, stitched: VniSet) {
        let gone = self
            .tenants
            .iter()
            .filter(|(_, tenant)| tenant.stitched && !stitched.contains(tenant.config.primary_vni));
        let gone: Vec<TenantId> = gone.map(|(id, _)| *id).collect();
        for id in gone {
            self.remove_tenant(id);
        }
        if let Some(membership) = &mut self.config.membership {
            membership.stitched = stitched;
        }
        self.forget_services();
    }

    /// Makes a tenant known by its VNIs and attachments, and the data plane know of it.
    pub(super) fn link(&mut self, id: TenantId) {
        let Some(tenant) = self.tenants.get_mut(&id) else {
            return;
        };
        for vni in tenant
            .config
            .vnis
            .iter()
            .chain([&tenant.config.primary_vni])
        {
            self.by_vni.insert(*vni, id);
        }
        for attachment in &tenant.config.attachments {
            let tenants = self.by_attachment.entry(attachment.clone());
            tenants.or_default().push(id);
        }
        let attachments = tenant.config.attachments.iter();
        let up = attachments.filter(|name| self.up.contains(*name));
        tenant.up = up.cloned().collect();
        self.intent.tenants.push((id, Some(tenant.intent())));
        self.link_services(id);
    }

    /// Undoes [`Overlay::link`].
    pub(super) fn unlink(&mut self, id: TenantId) {
        self.by_vni.retain(|_, one| *one != id);
        self.by_attachment.retain(|_, tenants| {
            tenants.retain(|one| *one != id);
            !tenants.is_empty()
        });
    }

    /// Forgets which interfaces are up that nobody has any more: the data plane says nothing of them. It says nothing either of
    /// one that goes from a tenant to another within one change of the intent, so that this is for the end of the change.
    pub(super) fn forget_interfaces(&mut self) {
        let known = self
            .up
            .iter()
            .filter(|name| self.by_attachment.contains_key(*name) || self.is_arm(name));
        self.up = known.cloned().collect();
    }

    pub(super) fn insert_tenant(&mut self, config: TenantConfig, stitched: bool) -> TenantId {
        let id = TenantId(self.next_tenant);
        self.next_tenant += 1;
        let tenant = Tenant {
            config,
            stitched,
            up: BTreeSet::new(),
            redistributed: BTreeSet::new(),
            sites: BTreeMap::new(),
            announced: BTreeSet::new(),
            routes: 0,
        };
        self.tenants.insert(id, tenant);
        self.link(id);
        self.announce(id);
        id
    }

    /// An interface went up or down.
    pub fn set_attachment(&mut self, name: &str, up: bool) {
        let tenants = self.by_attachment.get(name).cloned().unwrap_or_default();
        if up && (!tenants.is_empty() || self.is_arm(name)) {
            self.up.insert(name.to_owned());
        } else {
            self.up.remove(name);
        }
        self.arm_changed(name);
        for id in tenants {
            let Some(tenant) = self.tenants.get_mut(&id) else {
                continue;
            };
            let changed = if up {
                tenant.up.insert(name.to_owned())
            } else {
                tenant.up.remove(name)
            };
            if changed {
                self.announce(id);
            }
        }
    }

    /// The kernel has, or no longer has, a route of the tenant that is to be announced.
    pub fn set_redistributed(&mut self, id: TenantId, prefix: IpNet, present: bool) {
        if let Some(tenant) = self.tenants.get_mut(&id) {
            let prefix = prefix.trunc();
            let changed = if present {
                tenant.redistributed.insert(prefix)
            } else {
                tenant.redistributed.remove(&prefix)
            };
            if changed {
                self.announce(id);
            }
        }
    }

    /// A router of the tenant's own site told of a prefix, or took it back: it is announced, and leads there.
    pub fn set_site_route(&mut self, id: TenantId, prefix: IpNet, via: Option<IpAddr>) {
        let Some(tenant) = self.tenants.get_mut(&id) else {
            return;
        };
        let prefix = prefix.trunc();
        let before = match via {
            Some(via) => tenant.sites.insert(prefix, via),
            None => tenant.sites.remove(&prefix),
        };
        if before == via {
            return;
        }
        self.intent.sites.push(SiteRoute {
            tenant: id,
            prefix,
            via,
        });
        if before.is_none() != via.is_none() {
            self.announce_prefix(id, prefix);
        }
    }

    /// Announces this router's endpoint with the services that it offers, where that is wanted.
    pub(super) fn announce_locator(&mut self) {
        let Some(own) = self.own_labels() else { return };
        let membership = self.config.membership.as_ref();
        if let Some(membership) = membership.filter(|one| one.announce_locator) {
            let locator = LabelCommunity::Locator(Locator {
                encapsulation: own.encapsulation,
                id: own.id,
            });
            let mut communities = vec![locator.encode(own.administrator)];
            communities.extend(membership.port.map(|port| {
                LabelCommunity::LocatorPort(LocatorPort {
                    encapsulation: own.encapsulation,
                    port,
                    id: own.id,
                })
                .encode(own.administrator)
            }));
            communities.extend(self.offered().map(|label| own.service(label)));
            communities.sort_unstable();
            if communities == self.locator {
                return;
            }
            self.locator.clone_from(&communities);
            self.originations.push(OriginationChange {
                prefix: own.endpoint.into(),
                path_id: 0,
                communities: Some(communities),
            });
        }
    }

    /// Brings what is announced for a tenant in line with it.
    pub(super) fn announce(&mut self, id: TenantId) {
        let Some(own) = self.own_labels() else { return };
        let Some(tenant) = self.tenants.get_mut(&id) else {
            return;
        };
        let wanted = tenant.wanted();
        let before = std::mem::replace(&mut tenant.announced, wanted.clone());
        let vni = tenant.config.primary_vni;
        for prefix in wanted.symmetric_difference(&before) {
            self.announce_change(&own, vni, *prefix, wanted.contains(prefix));
        }
    }

    /// The same for one prefix.
    pub(super) fn announce_prefix(&mut self, id: TenantId, prefix: IpNet) {
        let Some(own) = self.own_labels() else { return };
        let Some(tenant) = self.tenants.get_mut(&id) else {
            return;
        };
        let wanted = tenant.wants(prefix);
        let changed = if wanted {
            tenant.announced.insert(prefix)
        } else {
            tenant.announced.remove(&prefix)
        };
        let vni = tenant.config.primary_vni;
        if changed {
            self.announce_change(&own, vni, prefix, wanted);
        }
    }

    pub(super) fn announce_change(
        &mut self,
        own: &OwnLabels,
        vni: Vni,
        prefix: IpNet,
        wanted: bool,
    ) {
        self.originations.push(OriginationChange {
            prefix,
            path_id: vni.get(),
            communities: wanted.then(|| vec![own.label(vni)]),
        });
        // What is local here is not routed elsewhere, and what is no longer local may be.
        self.decide(prefix);
    }
}
