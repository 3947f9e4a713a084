//! Which way a packet takes, by the kernel's own answers.

use std::net::IpAddr;

use weft_overlay::Vni;
use weft_overlay::intent::TenantId;

use super::Actor;
use super::links::vrf_name;
use crate::model::{Carrier, NextHop};
use crate::netlink::objects::{Question, RouteAnswer};
use crate::{KernelMatch, KernelTrace, Packet, TunnelTrace};

impl Actor {
    /// `step` is the label of the service that is next, and whether by the other direction.
    pub(super) fn trace(
        &mut self,
        tenant: TenantId,
        step: Option<(Vni, bool)>,
        packet: Packet,
    ) -> Option<KernelTrace> {
        let one = self.tenants.get(&tenant)?;
        let table = match step {
            Some((label, reverse)) => self.step_mark(label, reverse),
            None => one.table,
        };
        let links: Vec<u32> = self
            .links
            .values()
            .filter(|link| one.intent.attachments.contains(&link.name))
            .map(|link| link.index)
            .collect();
        let is_own = |source| self.addresses.iter().any(|one| one.address == source);
        let (source, interface) = match step {
            // Only what comes in is on a chain. It has a source, whichever: the way to a service does not look at it.
            Some(_) => {
                let tunnels = self.devices.values().map(|device| device.index);
                let interface = links.iter().copied().chain(tunnels).next();
                (packet.source.or(Some(packet.destination)), interface)
            }
            // What is not the router's own comes in by an attachment.
            None => {
                let foreign = packet.source.filter(|source| !is_own(*source));
                let interface = foreign.and_then(|_| links.first().copied());
                (packet.source, interface)
            }
        };
        let question = Question {
            destination: packet.destination,
            source,
            interface,
            out: None,
            // What its packets are marked with, whichever way they come.
            mark: Some(table),
            dscp: packet.dscp,
            udp_port: None,
        };
        let answer = self.ask(&question);
        let tunnels = match &answer {
            Ok(answer) => self.tunnels(answer.next_hop),
            Err(_) => Vec::new(),
        };
        let tenant = self.tenants.get(&tenant)?;
        let addresses = self.addresses.iter();
        let own = addresses
            .filter(|one| links.contains(&one.link))
            .map(|one| one.address)
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
                None => (Carrier::VXLAN, 0),
            };
            let question = self.outer_question(tunnel.destination);
            let underlay = self.ask(&question);
            tunnels.push(TunnelTrace {
                next_hop: id,
                vni: tunnel.vni,
                encapsulation: carrier.encapsulation(),
                port: carrier.unusual_port(),
                device: carrier.name().into_owned(),
                destination: tunnel.destination,
                underlay: underlay.and_then(|answer| self.described(answer)),
                mtu: self
                    .inner_mtu(carrier, tunnel.destination)
                    .map_or(mtu, |narrow| narrow.get().into()),
            });
        }
        tunnels
    }
}
