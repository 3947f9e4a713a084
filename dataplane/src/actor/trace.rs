//! Which way a packet takes, by the kernel's own answers.

use std::net::IpAddr;

use weft_overlay::intent::TenantId;

use super::Actor;
use super::links::vrf_name;
use crate::model::{Carrier, NextHop};
use crate::netlink::objects::{Question, RouteAnswer};
use crate::{KernelMatch, KernelTrace, Packet, TunnelTrace};

impl Actor {
    pub(super) fn trace(&mut self, tenant: TenantId, packet: Packet) -> Option<KernelTrace> {
        let table = self.tenants.get(&tenant)?.table;
        let question = Question {
            destination: packet.destination,
            source: packet.source,
            // What its packets are marked with, whichever way they come.
            mark: Some(table),
            dscp: packet.dscp,
        };
        let answer = self.ask(&question);
        let tunnels = match &answer {
            Ok(answer) => self.tunnels(answer.next_hop),
            Err(_) => Vec::new(),
        };
        let tenant = self.tenants.get(&tenant)?;
        let links: Vec<u32> = self
            .links
            .values()
            .filter(|link| tenant.intent.attachments.contains(&link.name))
            .map(|link| link.index)
            .collect();
        let addresses = self.addresses.iter();
        let own = addresses
            .filter(|of| links.contains(&of.link))
            .map(|of| of.address)
            .find(|address| match address {
                IpAddr::V4(_) => packet.destination.is_ipv4(),
                IpAddr::V6(own) => packet.destination.is_ipv6() && !own.is_unicast_link_local(),
            });
        Some(KernelTrace {
            table,
            vrf: self.vrf.then(|| vrf_name(&tenant.intent)),
            own,
            route: answer.and_then(|answer| self.described(answer)),
            tunnels,
        })
    }

    fn described(&self, answer: RouteAnswer) -> Result<KernelMatch, String> {
        match answer.kind {
            libc::RTN_UNICAST | libc::RTN_LOCAL => {}
            libc::RTN_UNREACHABLE => return Err("no route in the tenant's table".into()),
            _ => return Err("a route that drops".into()),
        }
        Ok(KernelMatch {
            table: answer.table,
            prefix: answer.prefix,
            local: answer.kind == libc::RTN_LOCAL,
            gateway: answer.gateway,
            interface: answer
                .interface
                .and_then(|index| Some(self.links.get(&index)?.name.clone())),
            next_hop: answer.next_hop,
        })
    }

    /// The tunnels of a next-hop object, each with the underlay's answer for its far end.
    fn tunnels(&mut self, next_hop: Option<u32>) -> Vec<TunnelTrace> {
        let Some(id) = next_hop else {
            return Vec::new();
        };
        let members = match self.next_hops.get(id) {
            Some(NextHop::Group { members, .. }) => {
                members.iter().map(|(member, _)| *member).collect()
            }
            Some(NextHop::Tunnel(_)) => vec![id],
            None => Vec::new(),
        };
        let mut tunnels = Vec::new();
        for id in members {
            let Some(NextHop::Tunnel(tunnel)) = self.next_hops.get(id).cloned() else {
                continue;
            };
            let device = self
                .devices
                .iter()
                .find(|(_, device)| device.index == tunnel.interface);
            let (carrier, mtu) = match device {
                Some((carrier, device)) => (*carrier, device.mtu),
                None => (Carrier::Vxlan, 0),
            };
            let underlay = self.ask(&tunnel.destination.into());
            tunnels.push(TunnelTrace {
                next_hop: id,
                vni: tunnel.vni,
                encapsulation: carrier.encapsulation(),
                device: carrier.name(),
                destination: tunnel.destination,
                underlay: underlay.and_then(|answer| self.described(answer)),
                mtu,
            });
        }
        tunnels
    }
}
