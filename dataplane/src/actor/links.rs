//! Links, addresses and the underlay: the device, attachments, reachability.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::IpNet;
use netlink_packet_core::Parseable;
use netlink_packet_route::route::{RouteAttribute, RouteMessage, RouteType};
use tracing::{info, warn};
use weft_overlay::intent::TenantId;

use super::{ALIAS, Actor};
use crate::model::{RouteKey, RouteSpec, mac};
use crate::netlink::objects::{NEW, put_link_alias, put_link_mtu, put_vxlan, route_query};
use crate::netlink::socket::Batch;
use crate::{DEVICE, DataplaneEvent, Error, host, snapshot};

/// Octets that VXLAN over IPv4 adds: Ethernet, VXLAN, UDP and IPv4 headers.
const VXLAN_OVERHEAD: u32 = 50;

impl Actor {
    pub(super) fn read_links(&mut self) -> std::io::Result<()> {
        self.links = snapshot::links(&mut self.netlink)?
            .into_iter()
            .map(|link| (link.index, link))
            .collect();
        self.addresses = snapshot::addresses(&mut self.netlink)?;
        self.device = self
            .links
            .values()
            .find(|link| link.name == DEVICE && link.alias.as_deref() == Some(ALIAS))
            .map(|link| link.index);
        Ok(())
    }

    /// Makes the device where it is not there, and sets the host up for it.
    pub(super) fn ensure_device(&mut self) -> Result<(), Error> {
        let Some(endpoint) = self.config.endpoint else {
            return Ok(());
        };
        if self.device.is_none() {
            if self.links.values().any(|link| link.name == DEVICE) {
                return Err(Error::ForeignDevice);
            }
            let mut batch = Batch::default();
            batch.push(libc::RTM_NEWLINK, NEW, |out| {
                put_vxlan(out, DEVICE, endpoint, mac(endpoint), self.device_mtu);
            });
            batch.push(libc::RTM_NEWLINK, 0, |out| {
                put_link_alias(out, DEVICE, ALIAS)
            });
            let refused = self
                .netlink
                .send(batch)
                .map_err(Error::kernel("cannot make the VXLAN device"))?;
            if let Some((_, refusal)) = refused.first() {
                let source = std::io::Error::from_raw_os_error(refusal.errno);
                return Err(Error::kernel("cannot make the VXLAN device")(source));
            }
            self.read_links()
                .map_err(Error::kernel("cannot read the links"))?;
            info!(device = DEVICE, %endpoint, "made the VXLAN device");
        }
        if let Some(link) = self.device.and_then(|device| self.links.get(&device)) {
            self.device_mtu = link.mtu;
        }
        host::set(&host::sysctls());
        host::set(&host::device_sysctls(DEVICE));
        Ok(())
    }

    /// Brings what tenants have on their attachments into their tables: networks of addresses, static routes.
    pub(super) fn attach(&mut self) {
        let by_name: BTreeMap<&str, u32> = self
            .links
            .values()
            .filter(|link| link.up)
            .map(|link| (link.name.as_str(), link.index))
            .collect();
        let attachments: BTreeSet<&String> = self
            .tenants
            .values()
            .flat_map(|tenant| &tenant.intent.attachments)
            .collect();
        for name in &attachments {
            if by_name.contains_key(name.as_str()) && self.attachments.get(*name) != Some(&true) {
                host::set(&host::device_sysctls(name));
            }
        }
        let indexes: Vec<u32> = attachments
            .iter()
            .filter_map(|name| by_name.get(name.as_str()))
            .copied()
            .collect();
        let statics = if indexes.is_empty() {
            Vec::new()
        } else {
            snapshot::static_routes(&mut self.netlink, &indexes).unwrap_or_else(|error| {
                warn!(%error, "cannot read static routes");
                Vec::new()
            })
        };
        let mut redistributed: BTreeSet<(TenantId, IpNet)> = BTreeSet::new();
        let mut changes: Vec<(RouteKey, Option<RouteSpec>)> = Vec::new();
        for (id, tenant) in &mut self.tenants {
            let mut local: BTreeMap<RouteKey, RouteSpec> = BTreeMap::new();
            let links: Vec<u32> = tenant
                .intent
                .attachments
                .iter()
                .filter_map(|name| by_name.get(name.as_str()))
                .copied()
                .collect();
            for address in self
                .addresses
                .iter()
                .filter(|address| links.contains(&address.link))
            {
                let link_local =
                    matches!(address.address, IpAddr::V6(v6) if v6.is_unicast_link_local());
                if link_local || address.network.prefix_len() == address.network.max_prefix_len() {
                    continue;
                }
                let key = RouteKey {
                    table: tenant.table,
                    prefix: address.network,
                    metric: 0,
                };
                local.insert(
                    key,
                    RouteSpec::Connected {
                        interface: address.link,
                        source: address.address,
                    },
                );
                if tenant.redistribute.0 {
                    redistributed.insert((*id, address.network));
                }
            }
            for (link, prefix, gateway) in statics.iter().filter(|(link, ..)| links.contains(link))
            {
                let Some(gateway) = gateway else { continue };
                let key = RouteKey {
                    table: tenant.table,
                    prefix: *prefix,
                    metric: 0,
                };
                local.insert(
                    key,
                    RouteSpec::Via {
                        gateway: *gateway,
                        interface: Some(*link),
                    },
                );
                if tenant.redistribute.1 {
                    redistributed.insert((*id, *prefix));
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
        }
        for (key, spec) in changes {
            match spec {
                Some(spec) => self.want(key, spec),
                // A route from the overlay may have taken its place already.
                None if self.set_of.contains_key(&key) => {}
                None => self.unwant(key),
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
        let addresses: Vec<IpAddr> = self.tracked.keys().copied().collect();
        for address in addresses {
            let (metric, link) = self.lookup(address);
            if let Some(tracked) = self.tracked.get_mut(&address) {
                tracked.link = link;
                if tracked.metric != Some(metric) {
                    tracked.metric = Some(metric);
                    self.reach_news.push((address, metric));
                }
            }
        }
        self.fit_mtu();
    }

    /// Metric of the route to an address, and the link that it leaves by.
    fn lookup(&mut self, address: IpAddr) -> (Option<u32>, Option<u32>) {
        let Ok(Ok(entry)) = self
            .netlink
            .get(libc::RTM_GETROUTE, &route_query(address, true))
        else {
            return (None, None);
        };
        let Ok(route) = RouteMessage::parse(&entry) else {
            return (None, None);
        };
        if !matches!(route.header.kind, RouteType::Unicast | RouteType::Local) {
            return (None, None);
        }
        let (mut metric, mut link) = (0, None);
        for attribute in route.attributes {
            match attribute {
                RouteAttribute::Priority(priority) => metric = priority,
                RouteAttribute::Oif(interface) => link = Some(interface),
                _ => {}
            }
        }
        (Some(metric), link)
    }

    /// The device's MTU follows the narrowest link that tunnels leave by.
    fn fit_mtu(&mut self) {
        let Some(device) = self.device else { return };
        let peers: BTreeSet<IpAddr> = self
            .peers()
            .into_iter()
            .map(|(peer, _)| IpAddr::from(peer))
            .collect();
        let narrowest = self
            .tracked
            .iter()
            .filter(|(address, _)| peers.contains(address))
            .filter_map(|(_, tracked)| self.links.get(&tracked.link?))
            .filter(|link| link.index != device)
            .map(|link| link.mtu)
            .min();
        let Some(mtu) = narrowest.map(|mtu| mtu.saturating_sub(VXLAN_OVERHEAD).clamp(576, 65_535))
        else {
            return;
        };
        if mtu == self.device_mtu {
            return;
        }
        let mut batch = Batch::default();
        batch.push(libc::RTM_NEWLINK, 0, |out| put_link_mtu(out, device, mtu));
        match self.netlink.send(batch) {
            Ok(refused) if refused.is_empty() => {
                info!(device = DEVICE, mtu, "MTU follows the underlay");
                self.device_mtu = mtu;
            }
            Ok(refused) => warn!(mtu, kernel = %refused[0].1, "the kernel refused the MTU"),
            Err(error) => warn!(mtu, %error, "cannot set the MTU"),
        }
    }
}

fn attachments_of(actor: &Actor) -> BTreeSet<String> {
    actor
        .tenants
        .values()
        .flat_map(|tenant| tenant.intent.attachments.iter().cloned())
        .collect()
}
