//! Links, addresses and the underlay: the device, attachments, reachability.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;

use ipnet::IpNet;
use tracing::{info, warn};
use weft_overlay::intent::{TenantId, TenantIntent};

use super::{ALIAS, Actor, Device, TENANT_ALIAS};
use crate::model::{Carrier, Family, RouteKey, RouteSpec, mac};
use crate::netlink::links::{
    put_link, put_link_alias, put_link_master, put_link_mtu, put_tunnel_device, put_vrf,
};
use crate::netlink::objects::{NEW, Question, RouteAnswer, get_answer, route_query};
use crate::netlink::socket::Batch;
use crate::snapshot::{Address, ForeignRoute};
use crate::{DataplaneEvent, Error, host, snapshot};

/// MTU of the underlay until something is known of it.
const USUAL_MTU: u32 = 1500;

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
        self.links = snapshot::links(&mut self.netlink)?
            .into_iter()
            .map(|link| (link.index, link))
            .collect();
        self.addresses = snapshot::addresses(&mut self.netlink)?;
        self.local_routes = snapshot::local_routes(&mut self.netlink)?;
        self.devices = Carrier::ALL
            .into_iter()
            .filter_map(|carrier| {
                let link = self.links.values().find(|link| {
                    link.name == carrier.name() && link.alias.as_deref() == Some(ALIAS)
                })?;
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

    /// Makes the devices that are not there, and sets the host up for them.
    pub(super) fn ensure_devices(&mut self) -> Result<(), Error> {
        let Some(endpoint) = self.config.endpoint else {
            return Ok(());
        };
        // What is sent to this router comes in here; the others are made when somebody accepts nothing else.
        let own = Carrier::of(self.config.encapsulation, endpoint);
        self.make_device(own)?;
        let used: BTreeSet<Carrier> = self.peers.keys().map(|(carrier, ..)| *carrier).collect();
        for carrier in used {
            if let Err(error) = self.make_device(carrier) {
                warn!(device = carrier.name(), %error, "cannot make a tunnel device");
            }
        }
        host::set(&host::sysctls());
        self.classify();
        self.raise_devices();
        // A device that was made again has another number: what leads through it has to be made again.
        let moved = self.tunnel_links.iter().any(|(carrier, link)| {
            let device = self.devices.get(carrier);
            device.is_some_and(|device| device.index != *link)
        });
        if moved {
            let groups: Vec<_> = self.groups.keys().copied().collect();
            for group in groups {
                self.remake(group);
            }
        }
        Ok(())
    }

    /// Sets devices up that somebody took down: the kernel forgot what leads through them.
    fn raise_devices(&mut self) {
        let mut batch = Batch::default();
        for device in self.devices.values().filter(|device| !device.up) {
            let (index, mtu) = (device.index, device.mtu);
            batch.push(libc::RTM_NEWLINK, 0, |out| put_link_mtu(out, index, mtu));
        }
        if batch.len() > 0 && self.send_links(batch) {
            self.reread_links();
        }
    }

    /// The number of a device, made where there is none; why there is none otherwise.
    pub(super) fn device_index(&mut self, carrier: Carrier) -> Result<u32, String> {
        if let Some(device) = self.devices.get(&carrier) {
            self.tunnel_links.insert(carrier, device.index);
            return Ok(device.index);
        }
        if let Some(error) = self.missing_devices.get(&carrier) {
            return Err(error.clone());
        }
        if let Err(error) = self.make_device(carrier) {
            let error = format!("no {} device: {error}", carrier.encapsulation());
            warn!(device = carrier.name(), %error, "cannot make a tunnel device");
            self.missing_devices.insert(carrier, error.clone());
            return Err(error);
        }
        let device = self.devices.get(&carrier);
        let index = device.map(|device| device.index);
        self.tunnel_links
            .extend(index.map(|index| (carrier, index)));
        index.ok_or_else(|| "the device is gone again".into())
    }

    fn make_device(&mut self, carrier: Carrier) -> Result<(), Error> {
        let Some(endpoint) = self.config.endpoint else {
            return Err(Error::NoEndpoint);
        };
        if self.devices.contains_key(&carrier) {
            return Ok(());
        }
        let name = carrier.name();
        if self.links.values().any(|link| link.name == name) {
            return Err(Error::ForeignDevice(name));
        }
        let mut batch = Batch::default();
        let mtu = USUAL_MTU - carrier.overhead(endpoint);
        batch.push(libc::RTM_NEWLINK, NEW, |out| {
            let mac = mac(endpoint, Some(self.config.endpoint_id));
            put_tunnel_device(out, carrier, endpoint, mac, mtu);
        });
        batch.push(libc::RTM_NEWLINK, 0, |out| {
            put_link_alias(out, name, ALIAS);
        });
        let refused = self
            .netlink
            .send(batch)
            .map_err(Error::kernel("cannot make the tunnel device"))?;
        if let Some((_, refusal)) = refused.first() {
            return Err(match refusal.errno {
                libc::EPERM | libc::EACCES => Error::kernel("cannot make the tunnel device")(
                    std::io::Error::from_raw_os_error(refusal.errno),
                ),
                _ => Error::Refused {
                    what: name,
                    kernel: refusal.to_string(),
                },
            });
        }
        self.read_links()
            .map_err(Error::kernel("cannot read the links"))?;
        info!(device = name, %endpoint, "made a tunnel device");
        host::set(&host::device_sysctls(name));
        self.classify();
        self.policy_changed = true;
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

    fn reread_links(&mut self) {
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
    fn send_links(&mut self, batch: Batch) -> bool {
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

    /// Brings what tenants have on their attachments into their tables: networks of addresses, static routes.
    pub(super) fn attach(&mut self) {
        self.steps.changed = true;
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
        for name in &attachments {
            if by_name.contains_key(name.as_str()) && self.attachments.get(*name) != Some(&true) {
                host::set(&host::device_sysctls(name));
            }
        }
        let foreign = if attachments
            .iter()
            .any(|name| by_name.contains_key(name.as_str()))
        {
            let mut protocols = STATIC.to_vec();
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
        let mut on_link: HashMap<u32, Vec<Address>> = HashMap::new();
        for address in &self.addresses {
            on_link.entry(address.link).or_default().push(*address);
        }
        // Of a VRF's members the kernel keeps the routes in its table itself; without VRFs they are in the main table.
        let main = u32::from(libc::RT_TABLE_MAIN);
        let mut routes_of: HashMap<(u32, u32), Vec<ForeignRoute>> = HashMap::new();
        for route in foreign {
            let of = (route.table, route.interface);
            routes_of.entry(of).or_default().push(route);
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
    }

    fn redistribute_events(&mut self, now: BTreeSet<(TenantId, IpNet)>) {
        let gone = self.redistributed.difference(&now).map(|of| (*of, false));
        let come = now.difference(&self.redistributed).map(|of| (*of, true));
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

    /// Asks the kernel how tracked addresses are reached.
    pub(super) fn resolve(&mut self) {
        let addresses: Vec<(Option<TenantId>, IpAddr)> = self.tracked.keys().copied().collect();
        for of in addresses {
            let (metric, link) = match of {
                (None, address) => self.lookup(address),
                (Some(tenant), address) => self.lookup_on_link(tenant, address),
            };
            if let Some(tracked) = self.tracked.get_mut(&of) {
                tracked.link = link;
                if tracked.metric != Some(metric) {
                    tracked.metric = Some(metric);
                    let (tenant, address) = of;
                    let news = self.reach_news.entry(tenant).or_default();
                    news.push((address, metric));
                }
            }
        }
        self.fit_mtu();
    }

    /// 0 and the link, where an address is on a link of the tenant's.
    fn lookup_on_link(&mut self, tenant: TenantId, address: IpAddr) -> (Option<u32>, Option<u32>) {
        let Some(table) = self.tenants.get(&tenant).map(|tenant| tenant.table) else {
            return (None, None);
        };
        let question = Question {
            mark: Some(table),
            ..address.into()
        };
        match self.ask(&question) {
            Ok(answer)
                if answer.kind == libc::RTN_UNICAST
                    && answer.table == table
                    && answer.gateway.is_none()
                    && answer.next_hop.is_none() =>
            {
                (Some(0), answer.interface)
            }
            _ => (None, None),
        }
    }

    /// Metric of the route to an address, and the link that it leaves by.
    fn lookup(&mut self, address: IpAddr) -> (Option<u32>, Option<u32>) {
        match self.ask(&address.into()) {
            Ok(answer) if matches!(answer.kind, libc::RTN_UNICAST | libc::RTN_LOCAL) => {
                (Some(answer.metric), answer.interface)
            }
            _ => (None, None),
        }
    }

    /// What the kernel would do with a packet; its own words where it would drop it.
    pub(super) fn ask(&mut self, question: &Question) -> Result<RouteAnswer, String> {
        let answer = self.netlink.get(libc::RTM_GETROUTE, &route_query(question));
        match answer {
            Ok(Ok(entry)) => {
                get_answer(&entry).ok_or_else(|| "an answer that is not understood".into())
            }
            Ok(Err(refusal)) => Err(refusal.to_string()),
            Err(error) => Err(error.to_string()),
        }
    }

    /// Each device's MTU follows the narrowest link that its tunnels leave by.
    fn fit_mtu(&mut self) {
        let mut narrowest: BTreeMap<Carrier, u32> = BTreeMap::new();
        for (carrier, endpoint, _) in self.peers.keys() {
            let link = self
                .tracked
                .get(&(None, *endpoint))
                .and_then(|tracked| self.links.get(&tracked.link?));
            let Some(link) = link else { continue };
            let mtu = link.mtu.saturating_sub(carrier.overhead(*endpoint));
            let least = narrowest.entry(*carrier).or_insert(u32::MAX);
            *least = mtu.clamp(576, 65_000).min(*least);
        }
        for (carrier, mtu) in narrowest {
            let Some(device) = self.devices.get_mut(&carrier) else {
                continue;
            };
            if mtu == device.mtu {
                continue;
            }
            let index = device.index;
            let mut batch = Batch::default();
            batch.push(libc::RTM_NEWLINK, 0, |out| put_link_mtu(out, index, mtu));
            match self.netlink.send(batch) {
                Ok(refused) if refused.is_empty() => {
                    info!(device = carrier.name(), mtu, "MTU follows the underlay");
                    device.mtu = mtu;
                }
                Ok(refused) => warn!(mtu, kernel = %refused[0].1, "the kernel refused the MTU"),
                Err(error) => warn!(mtu, %error, "cannot set the MTU"),
            }
        }
    }
}

/// Protocols of routes that an administrator sets: `ip route add`, with and without a word about it.
pub(crate) const STATIC: [u8; 2] = [libc::RTPROT_BOOT, libc::RTPROT_STATIC];

/// Interfaces to service nodes of a tenant.
pub(super) fn arms(tenant: &TenantIntent) -> impl Iterator<Item = &String> {
    let attachments = tenant
        .services
        .iter()
        .filter_map(|of| of.attachment.as_ref());
    attachments.flat_map(|of| of.arms().map(|arm| &arm.interface))
}

pub(crate) fn is_tenant_vrf(link: &snapshot::Link) -> bool {
    let alias = link.alias.as_deref();
    alias.is_some_and(|alias| alias.starts_with(TENANT_ALIAS))
}

fn attachments_of(actor: &Actor) -> BTreeSet<String> {
    actor
        .tenants
        .values()
        .flat_map(|tenant| tenant.intent.attachments.iter().chain(arms(&tenant.intent)))
        .cloned()
        .collect()
}
