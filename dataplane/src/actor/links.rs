//! Links, addresses and the underlay: the device, attachments, reachability.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt::Write as _;
use std::net::IpAddr;
use std::time::Instant;

use ipnet::IpNet;
use tracing::warn;
use weft_overlay::intent::{TenantId, TenantIntent};

use super::{ALIAS, Actor, Device, TENANT_ALIAS, Tenant};
use crate::condition::{ConditionKind, Severity};
use crate::model::{Carrier, Family, RouteKey, RouteSpec};
use crate::netlink::links::{put_link, put_link_alias, put_link_master, put_vrf};
use crate::netlink::objects::NEW;
use crate::netlink::socket::Batch;
use crate::snapshot::{ADVERTISED, Address, ForeignRoute};
use crate::{DataplaneEvent, snapshot};

/// Name of a tenant's VRF device.
pub(super) fn vrf_name(tenant: &TenantIntent) -> String {
    crate::tenant_vrf(tenant.primary_vni)
}

/// The prefix is one address.
pub(super) fn is_host(prefix: &IpNet) -> bool {
    prefix.prefix_len() == prefix.max_prefix_len()
}

impl Actor {
    pub(super) fn read_links(&mut self) -> std::io::Result<()> {
        let links = snapshot::links(&mut self.netlink)?;
        let links = links.into_iter().map(|link| (link.index, link)).collect();
        let before = std::mem::replace(&mut self.links, links);
        self.former.rename(&before, &self.links);
        self.addresses = snapshot::addresses(&mut self.netlink)?;
        self.local_routes = snapshot::local_routes(&mut self.netlink)?;
        // Whatever somebody called it since, and whatever its alias says: a device that was ours stays ours.
        let known = |carrier: Carrier| self.devices.get(&carrier).map(|device| device.index);
        let carriers: BTreeSet<Carrier> =
            self.links.values().filter_map(|link| link.tunnel).collect();
        self.devices = carriers
            .into_iter()
            .filter_map(|carrier| {
                let of_kind = |link: &&snapshot::Link| link.tunnel == Some(carrier);
                let ours = |link: &&snapshot::Link| link.alias.as_deref() == Some(ALIAS);
                let all = || self.links.values().filter(of_kind);
                let link = all()
                    .find(|link| Some(link.index) == known(carrier))
                    .or_else(|| all().find(|link| ours(link) && link.name == carrier.name()))
                    .or_else(|| all().find(ours))?;
                let device = Device {
                    index: link.index,
                    mtu: link.mtu,
                    up: link.up,
                };
                Some((carrier, device))
            })
            .collect();
        let names: HashMap<String, u32> = self
            .tenants
            .values()
            .map(|tenant| (vrf_name(&tenant.intent), tenant.table))
            .collect();
        self.vrfs = self
            .links
            .values()
            .filter(|link| is_tenant_vrf(link))
            .filter_map(|link| Some((*names.get(&link.name)?, link.index)))
            .collect();
        Ok(())
    }

    /// Makes tenants VRFs with their attachments as members, or takes VRFs of an earlier process down.
    fn segment(&mut self) {
        let wanted: BTreeMap<String, (u32, &str)> = self
            .tenants
            .values()
            .filter(|_| self.vrf)
            .map(|tenant| {
                let name = tenant.intent.name.as_str();
                (vrf_name(&tenant.intent), (tenant.table, name))
            })
            .collect();
        let by_name: HashMap<&str, &snapshot::Link> = self
            .links
            .values()
            .map(|link| (link.name.as_str(), link))
            .collect();
        let mut batch = Batch::default();
        for (name, (table, tenant)) in &wanted {
            match by_name.get(name.as_str()) {
                Some(link) if is_tenant_vrf(link) => {}
                Some(_) => {
                    warn!(
                        device = name,
                        tenant, "a device of this name is not ours: rename or remove it"
                    );
                }
                None => {
                    batch.push(libc::RTM_NEWLINK, NEW, |out| put_vrf(out, name, *table));
                    let alias = format!("{TENANT_ALIAS}{tenant}");
                    batch.push(libc::RTM_NEWLINK, 0, |out| {
                        put_link_alias(out, name, &alias);
                    });
                }
            }
        }
        if self.settled {
            for link in self.links.values() {
                if is_tenant_vrf(link) && !wanted.contains_key(&link.name) {
                    batch.push(libc::RTM_DELLINK, 0, |out| put_link(out, link.index));
                }
            }
        }
        let known = self.vrfs.len() == wanted.len();
        if (batch.len() > 0 && self.send_links(batch)) || !known {
            self.reread_links();
        }
        self.enslave();
    }

    pub(super) fn reread_links(&mut self) {
        if let Err(error) = self.read_links() {
            warn!(%error, "cannot read the links");
        }
    }

    fn enslave(&mut self) {
        if self.vrfs.is_empty() {
            return;
        }
        let ours: BTreeSet<u32> = self.vrfs.values().copied().collect();
        let mut master_of: HashMap<&str, u32> = HashMap::new();
        for tenant in self.tenants.values() {
            let Some(vrf) = self.vrfs.get(&tenant.table) else {
                continue;
            };
            for name in &tenant.intent.attachments {
                master_of.insert(name, *vrf);
            }
        }
        let mut batch = Batch::default();
        for link in self.links.values() {
            match (master_of.get(link.name.as_str()), link.master) {
                (Some(vrf), Some(master)) if *vrf == master => {}
                (Some(_), Some(master)) if !ours.contains(&master) => {
                    warn!(
                        interface = link.name,
                        "the attachment has another master: `ip link set {} nomaster`", link.name
                    );
                }
                (Some(vrf), _) => batch.push(libc::RTM_NEWLINK, 0, |out| {
                    put_link_master(out, link.index, *vrf);
                }),
                (None, Some(master)) if ours.contains(&master) && self.settled => {
                    batch.push(libc::RTM_NEWLINK, 0, |out| {
                        put_link_master(out, link.index, 0);
                    });
                }
                (None, _) => {}
            }
        }
        if batch.len() > 0 && self.send_links(batch) {
            self.reread_links();
        }
    }

    /// Sends changes of links; true where something may have changed.
    pub(super) fn send_links(&mut self, batch: Batch) -> bool {
        match self.netlink.send(batch) {
            Ok(refused) => {
                for (_, refusal) in refused {
                    warn!(kernel = %refusal, "the kernel refused a change of a link");
                }
                true
            }
            Err(error) => {
                warn!(%error, "cannot change links");
                false
            }
        }
    }

    /// Says which routes of the host's own lead to tenants' hosts that drew them: before this router began, which listens to none.
    fn note_advertised(&mut self, routes: &[ForeignRoute]) {
        let now = Instant::now();
        let main = u32::from(libc::RT_TABLE_MAIN);
        let mut drawn: BTreeMap<String, String> = BTreeMap::new();
        for route in routes.iter().filter(|route| route.table == main) {
            let link = self.links.get(&route.interface);
            let link = link.filter(|link| self.former.was_a_tenants(&link.name));
            if let Some(link) = link {
                let prefixes = drawn.entry(link.name.clone()).or_default();
                let between = if prefixes.is_empty() { "" } else { ", " };
                let _ = write!(prefixes, "{between}{}", route.prefix);
            }
        }
        for (name, prefixes) in &drawn {
            self.conditions.set(
                now,
                (ConditionKind::AdvertisedRoute, name),
                Severity::Degraded,
                format!(
                    "the host's own packets to {prefixes} go to who is there: a router advertisement said so before this router began"
                ),
                Some(format!("`ip -6 route flush dev {name} proto ra`")),
            );
        }
        self.conditions
            .retain(now, ConditionKind::AdvertisedRoute, |name| {
                drawn.contains_key(name)
            });
    }

    /// Brings what tenants have on their attachments into their tables: networks of addresses, static routes.
    pub(super) fn attach(&mut self) {
        self.note_targets();
        self.steps.changed = true;
        self.screen_attachments();
        self.close_former_attachments();
        self.segment();
        self.classify();
        let by_name: HashMap<&str, u32> = self
            .links
            .values()
            .filter(|link| link.up)
            .map(|link| (link.name.as_str(), link.index))
            .collect();
        let attachments: BTreeSet<&String> = self
            .tenants
            .values()
            .flat_map(|tenant| tenant.intent.attachments.iter().chain(arms(&tenant.intent)))
            .collect();
        let come = attachments.iter().filter(|name| {
            by_name.contains_key(name.as_str()) && self.attachments.get(**name) != Some(&true)
        });
        let come: Vec<String> = come.map(|name| (*name).clone()).collect();
        let mut foreign = if attachments
            .iter()
            .any(|name| by_name.contains_key(name.as_str()))
        {
            let mut protocols = STATIC.to_vec();
            protocols.push(ADVERTISED);
            let redistributed = self.tenants.values();
            protocols.extend(redistributed.flat_map(|tenant| &tenant.redistribute.protocols));
            let protocols = protocols.into_iter().collect();
            snapshot::foreign_routes(&mut self.netlink, &protocols).unwrap_or_else(|error| {
                warn!(%error, "cannot read the routes of others");
                Vec::new()
            })
        } else {
            Vec::new()
        };
        let wants = |tenant: &super::Tenant| tenant.redistribute.protocols.contains(&ADVERTISED);
        let wanted = self.tenants.values().any(wants);
        let drawn = |route: &mut ForeignRoute| !wanted && route.protocol == ADVERTISED;
        let advertised: Vec<ForeignRoute> = foreign.extract_if(.., drawn).collect();
        let mut on_link: HashMap<u32, Vec<Address>> = HashMap::new();
        for address in &self.addresses {
            on_link.entry(address.link).or_default().push(*address);
        }
        // Of a VRF's members the kernel keeps the routes in its table itself; without VRFs they are in the main table.
        let main = u32::from(libc::RT_TABLE_MAIN);
        let mut routes_of: HashMap<(u32, u32), Vec<ForeignRoute>> = HashMap::new();
        for route in foreign {
            let one = (route.table, route.interface);
            routes_of.entry(one).or_default().push(route);
        }
        let mut redistributed: BTreeSet<(TenantId, IpNet)> = BTreeSet::new();
        let mut changes: Vec<(RouteKey, Option<RouteSpec>)> = Vec::new();
        let mut tables_changed: Vec<TenantId> = Vec::new();
        for (id, tenant) in &mut self.tenants {
            let had_table = tenant.has_table(Family::V6);
            tenant.v6_attached = false;
            let mut local: BTreeMap<RouteKey, RouteSpec> = BTreeMap::new();
            let table = tenant.table;
            let key = |prefix| RouteKey {
                table,
                prefix,
                metric: 0,
            };
            let links: BTreeSet<u32> = tenant
                .intent
                .attachments
                .iter()
                .filter_map(|name| by_name.get(name.as_str()))
                .copied()
                .collect();
            for link in links {
                for address in on_link.get(&link).into_iter().flatten() {
                    let link_local =
                        matches!(address.address, IpAddr::V6(v6) if v6.is_unicast_link_local());
                    let host = address.network.max_prefix_len();
                    tenant.v6_attached |= address.address.is_ipv6() && !link_local;
                    if link_local || address.network.prefix_len() == host {
                        continue;
                    }
                    let spec = RouteSpec::Connected {
                        interface: link,
                        source: address.address,
                    };
                    if !self.vrf {
                        local.insert(key(address.network), spec);
                    }
                    if tenant.redistribute.connected {
                        redistributed.insert((*id, address.network));
                    }
                }
                let from = if self.vrf { table } else { main };
                for route in routes_of.get(&(from, link)).into_iter().flatten() {
                    if let Some(gateway) = route.gateway.filter(|_| !self.vrf) {
                        let spec = RouteSpec::Via {
                            gateway,
                            interface: Some(link),
                        };
                        local.insert(key(route.prefix), spec);
                    }
                    if tenant.redistribute.protocols.contains(&route.protocol) {
                        redistributed.insert((*id, route.prefix));
                    }
                }
            }
            for (key, spec) in &local {
                if tenant.local.get(key) != Some(spec) {
                    changes.push((*key, Some(*spec)));
                }
            }
            changes.extend(
                tenant
                    .local
                    .keys()
                    .filter(|key| !local.contains_key(key))
                    .map(|key| (*key, None)),
            );
            tenant.local = local;
            if had_table != tenant.has_table(Family::V6) {
                tables_changed.push(*id);
            }
        }
        self.note_advertised(&advertised);
        for id in tables_changed {
            self.end_v6_table(id);
        }
        for (key, spec) in changes {
            match spec {
                Some(spec) => self.want(key, spec),
                // A route from the overlay may have taken its place already.
                None if self.group_of.contains_key(&key) => {}
                None => self.want_local(key),
            }
        }
        self.redistribute_events(redistributed);
        for name in come {
            self.keep_new_device(&name);
            self.announce_changes(&name);
        }
        let up: BTreeMap<String, bool> = attachments_of(self)
            .into_iter()
            .map(|name| {
                let up = self.links.values().any(|link| link.name == name && link.up);
                (name, up)
            })
            .collect();
        self.news.extend(
            up.iter()
                .filter(|(name, up)| self.attachments.get(*name) != Some(up))
                .map(|(name, up)| DataplaneEvent::Attachment {
                    name: name.clone(),
                    up: *up,
                }),
        );
        self.attachments = up;
        self.note_attachments();
    }

    fn redistribute_events(&mut self, now: BTreeSet<(TenantId, IpNet)>) {
        let gone = self.redistributed.difference(&now).map(|one| (*one, false));
        let come = now.difference(&self.redistributed).map(|one| (*one, true));
        let events =
            gone.chain(come).map(
                |((tenant, prefix), present)| DataplaneEvent::Redistributed {
                    tenant,
                    prefix,
                    present,
                },
            );
        self.news.extend(events);
        self.redistributed = now;
    }
}

/// Protocols of routes that an administrator sets: `ip route add`, with and without a word about it.
pub(crate) const STATIC: [u8; 2] = [libc::RTPROT_BOOT, libc::RTPROT_STATIC];

/// Interfaces to service nodes of a tenant.
pub(super) fn arms(tenant: &TenantIntent) -> impl Iterator<Item = &String> {
    let attachments = tenant
        .services
        .iter()
        .filter_map(|one| one.attachment.as_ref());
    attachments.flat_map(|one| one.arms().map(|arm| &arm.interface))
}

pub(crate) fn is_tenant_vrf(link: &snapshot::Link) -> bool {
    let alias = link.alias.as_deref();
    alias.is_some_and(|alias| alias.starts_with(TENANT_ALIAS))
}

/// The names of the tenants that an interface is an attachment of, or leads to a service node of.
pub(super) fn tenants_at(tenants: &BTreeMap<TenantId, Tenant>, name: &str) -> Vec<String> {
    let all = tenants.values().map(|tenant| &tenant.intent);
    let has = |one: &&TenantIntent| {
        one.attachments.iter().any(|held| held == name) || arms(one).any(|held| held == name)
    };
    all.filter(has).map(|one| one.name.clone()).collect()
}

pub(super) fn attachments_of(actor: &Actor) -> BTreeSet<String> {
    actor
        .tenants
        .values()
        .flat_map(|tenant| tenant.intent.attachments.iter().chain(arms(&tenant.intent)))
        .cloned()
        .collect()
}
