//! Answers of the REST API, from BGP, the overlay and the data plane.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::Instant;

use ipnet::IpNet;
use weft_api::types as api;
use weft_api::{
    KernelQuery, PrefixMatch, RouteQuery, RouterState, TenantRouteQuery, TraceQuery, Unavailable,
};
use weft_bgp::rib::{PeerId, Reason, RouteFilter, RoutePath};
use weft_bgp::{Bgp, DownReason, NeighborStatus, State};
use weft_bgp_wire::{Family, LargeCommunity};
use weft_dataplane::{Dataplane, KernelRoute, Packet, StepCounts};
use weft_overlay::chain::Flow;
use weft_overlay::intent::TenantId;
use weft_overlay::label::{self, Endpoint, LabelCommunity};
use weft_overlay::table::{self, Judged, TenantStatus};
use weft_overlay::{Encapsulation, Vni};

use super::chains::Known;
use super::core::Queries;
use super::endpoints::Endpoints;
use super::sites::SiteSpeakers;
use super::trace::{live, route_of, step_verdict, verdict};
use crate::config::Config;

/// The running router.
pub(super) struct LiveState {
    config: Config,
    started: Instant,
    bgp: Bgp,
    sites: SiteSpeakers,
    dataplane: Dataplane,
    overlay: Queries,
    endpoints: Endpoints,
}

/// Alarms in one answer.
const ALARMS: usize = 100;

fn ended() -> Unavailable {
    Unavailable("the router is shutting down".into())
}

fn family(family: Family) -> api::Family {
    match family {
        Family::Ipv4Unicast => api::Family::Ipv4Unicast,
        Family::Ipv6Unicast => api::Family::Ipv6Unicast,
    }
}

fn encapsulation(encapsulation: Encapsulation) -> api::Encapsulation {
    match encapsulation {
        Encapsulation::Vxlan => api::Encapsulation::Vxlan,
        Encapsulation::VxlanGpe => api::Encapsulation::VxlanGpe,
        Encapsulation::Gre => api::Encapsulation::Gre,
    }
}

fn families(which: [bool; 2]) -> Vec<api::Family> {
    Family::ALL
        .into_iter()
        .filter(|of| which[of.index()])
        .map(family)
        .collect()
}

/// A label community for the API; `None` for what is not ours or is ignored.
fn label(community: LargeCommunity, administrator: u32) -> Option<api::Label> {
    let decoded = LabelCommunity::decode(community, administrator)?.ok()?;
    let (kind, vni, encapsulated, endpoint) = match decoded {
        LabelCommunity::Label(label) => {
            let kind = match label.kind {
                label::LabelKind::Tenant => api::LabelKind::Tenant,
                label::LabelKind::Service => api::LabelKind::Service,
            };
            (kind, Some(label.vni), label.encapsulation, label.endpoint)
        }
        LabelCommunity::LocalNextHop(hop) => (
            api::LabelKind::LocalNextHop,
            hop.vni,
            hop.encapsulation,
            hop.endpoint,
        ),
        LabelCommunity::Locator(locator) => (
            api::LabelKind::Locator,
            None,
            locator.encapsulation,
            Endpoint::Id(locator.id),
        ),
    };
    let (address, id) = match endpoint {
        Endpoint::V4(address) => (Some(address), None),
        Endpoint::Id(id) => (None, Some(id.0)),
    };
    Some(api::Label {
        community: community.to_string(),
        kind,
        vni: vni.map(|vni| vni.get()),
        encapsulation: encapsulation(encapsulated),
        endpoint: address,
        endpoint_id: id,
    })
}

fn state(state: State) -> api::SessionState {
    match state {
        State::Idle => api::SessionState::Idle,
        State::Connect => api::SessionState::Connect,
        State::Active => api::SessionState::Active,
        State::OpenSent => api::SessionState::OpenSent,
        State::OpenConfirm => api::SessionState::OpenConfirm,
        State::Established => api::SessionState::Established,
    }
}

fn down(reason: &DownReason) -> api::Why<api::DownCode> {
    let code = match reason {
        DownReason::NeverUp => api::DownCode::NeverUp,
        DownReason::AdminDown => api::DownCode::AdminDown,
        DownReason::NotificationReceived(_) => api::DownCode::NotificationReceived,
        DownReason::NotificationSent(_) => api::DownCode::NotificationSent,
        DownReason::ConnectionLost(_) => api::DownCode::ConnectionLost,
        DownReason::ConnectFailed(_) => api::DownCode::ConnectFailed,
        DownReason::Restarted => api::DownCode::Restarted,
    };
    api::Why::new(code, reason.to_string())
}

fn lost(reason: Reason) -> api::Why<api::LostCode> {
    use api::LostCode as Code;
    let (code, text) = match reason {
        Reason::NextHopUnreachable => (Code::NextHopUnreachable, "the next hop does not resolve"),
        Reason::NotLocal => (Code::NotLocal, "another is this router's own"),
        Reason::LocalPref => (Code::LocalPref, "lower local preference"),
        Reason::AsPathLength => (Code::AsPathLength, "longer AS path"),
        Reason::Origin => (Code::Origin, "higher origin"),
        Reason::Med => (Code::Med, "higher MED"),
        Reason::Ibgp => (Code::Ibgp, "iBGP behind eBGP"),
        Reason::IgpMetric => (Code::IgpMetric, "farther next hop"),
        Reason::RouterId => (Code::RouterId, "higher router id"),
        Reason::ClusterListLength => (Code::ClusterListLength, "longer cluster list"),
        Reason::PeerAddress => (Code::PeerAddress, "higher neighbour address"),
        Reason::PathId => (Code::PathId, "higher path identifier"),
    };
    api::Why::new(code, text)
}

fn not_chosen(reason: table::Reason) -> api::Why<api::NotChosenCode> {
    use api::NotChosenCode as Code;
    let code = match reason {
        table::Reason::LocalPrefix => Code::LocalPrefix,
        table::Reason::OwnEndpoint => Code::OwnEndpoint,
        table::Reason::NoLocator => Code::NoLocator,
        table::Reason::ForwardingNextHopUnreachable => Code::ForwardingNextHopUnreachable,
        table::Reason::LocalPref => Code::LocalPref,
        table::Reason::AsPathLength => Code::AsPathLength,
        table::Reason::Origin => Code::Origin,
        table::Reason::Med => Code::Med,
        table::Reason::Ibgp => Code::Ibgp,
        table::Reason::UnderlayMetric => Code::UnderlayMetric,
        table::Reason::GroupFull => Code::GroupFull,
        table::Reason::NotTheOne => Code::NotTheOne,
    };
    api::Why::new(code, reason.to_string())
}

fn overlap_hidden(overlap: &table::Overlap, neighbors: &[(PeerId, IpAddr)]) -> api::Alarm {
    let source = neighbors
        .iter()
        .find(|(peer, _)| peer.0 == overlap.source)
        .map_or_else(String::new, |(_, address)| format!(" from {address}"));
    api::Alarm {
        code: "overlap-hidden".into(),
        text: format!(
            "{}: VNI {}{source} and a tenant here have this prefix, and the transit between passes one of the two on",
            overlap.prefix, overlap.vni
        ),
    }
}

/// Resident memory of this process in octets.
fn memory() -> u64 {
    let pages = std::fs::read_to_string("/proc/self/statm")
        .ok()
        .and_then(|text| text.split(' ').nth(1)?.parse::<u64>().ok())
        .unwrap_or(0);
    let page = nix::unistd::sysconf(nix::unistd::SysconfVar::PAGE_SIZE)
        .ok()
        .flatten();
    pages
        * page
            .and_then(|size| u64::try_from(size).ok())
            .unwrap_or(4096)
}

fn matches(net: &IpNet, wanted: Option<IpNet>, how: PrefixMatch) -> bool {
    wanted.is_none_or(|wanted| match how {
        PrefixMatch::Exact => *net == wanted,
        PrefixMatch::Longer => wanted.contains(net),
        PrefixMatch::Shorter => net.contains(&wanted),
    })
}

impl LiveState {
    pub(super) fn new(
        config: Config,
        bgp: Bgp,
        sites: SiteSpeakers,
        dataplane: Dataplane,
        overlay: Queries,
        endpoints: Endpoints,
    ) -> Self {
        Self {
            config,
            started: Instant::now(),
            bgp,
            sites,
            dataplane,
            overlay,
            endpoints,
        }
    }

    /// What is known of services and chains.
    async fn known(&self) -> Result<Known, Unavailable> {
        let found = self
            .overlay
            .ask(|overlay| (overlay.tenants(), overlay.services()))
            .await;
        let (tenants, services) = found.ok_or_else(ended)?;
        let has_chains = tenants.iter().any(|of| !of.config.services.is_empty());
        let counts = match has_chains {
            true => tokio::task::spawn_blocking(StepCounts::read).await,
            false => Ok(StepCounts::default()),
        };
        let refused = match has_chains {
            true => self
                .dataplane
                .status()
                .await
                .and_then(|of| of.chains_refused),
            false => None,
        };
        Ok(Known {
            tenants,
            services,
            counts: counts.unwrap_or_default(),
            reasons: self.overlay.reasons().clone(),
            refused,
        })
    }

    fn administrator(&self) -> Option<u32> {
        self.config
            .overlay
            .as_ref()
            .map(|overlay| overlay.global_administrator)
    }

    async fn addresses(&self) -> Result<HashMap<u16, IpAddr>, Unavailable> {
        self.bgp
            .with(|speaker, _| {
                let peers = speaker.addresses();
                peers
                    .into_iter()
                    .map(|(peer, address)| (peer.0, address))
                    .collect()
            })
            .await
            .ok_or_else(ended)
    }

    fn path(&self, path: &RoutePath, addresses: &HashMap<u16, IpAddr>) -> api::Path {
        let attributes = path.attributes.view();
        let local = path.source == PeerId::LOCAL;
        let administrator = self.administrator();
        api::Path {
            neighbor: addresses.get(&path.source.0).copied(),
            path_id: path.path_id,
            best: path.lost.is_none(),
            lost: path.lost.map(lost),
            stale: path.stale,
            next_hop: (!local).then(|| path.attributes.next_hop().address),
            origin: attributes.origin().to_string(),
            as_path: attributes.as_path().to_string(),
            local_pref: attributes.local_pref(),
            med: attributes.med(),
            communities: attributes.communities().map(|of| of.to_string()).collect(),
            extended_communities: attributes
                .extended_communities()
                .map(|of| of.to_string())
                .collect(),
            large_communities: attributes
                .large_communities()
                .map(|of| of.to_string())
                .collect(),
            labels: attributes
                .large_communities()
                .filter_map(|of| label(of, administrator?))
                .collect(),
            originator_id: attributes.originator_id().map(|id| id.0),
            cluster_list: attributes.cluster_list().collect(),
        }
    }

    fn neighbor(&self, tenant: Option<String>, status: NeighborStatus) -> api::Neighbor {
        let kind = match (
            status.config.asn == self.config.router.asn,
            status.config.route_reflector_client,
        ) {
            (false, _) => api::NeighborKind::Ebgp,
            (true, false) => api::NeighborKind::Ibgp,
            (true, true) => api::NeighborKind::IbgpClient,
        };
        let counters = status.counters;
        let prefixes = status
            .config
            .families
            .iter()
            .map(|of| api::NeighborPrefixes {
                family: family(*of),
                received: counters.accepted[of.index()].into(),
                advertised: counters.advertised[of.index()].into(),
            });
        api::Neighbor {
            address: status.config.address,
            tenant,
            asn: status.config.asn.0,
            kind,
            description: status.config.description.clone(),
            state: state(status.state),
            since: status.since.map(|since| since.elapsed().as_secs()),
            flaps: status.flaps,
            down: (status.last_reason != DownReason::NeverUp).then(|| down(&status.last_reason)),
            stale: status.stale,
            negotiated: status
                .negotiated
                .as_ref()
                .map(|negotiated| api::Negotiated {
                    router_id: negotiated.router_id.0,
                    hold_time: negotiated.hold_time.as_secs(),
                    families: negotiated.families.iter().map(|of| family(*of)).collect(),
                    add_path_send: families(negotiated.add_path_send),
                    add_path_receive: families(negotiated.add_path_receive),
                    four_octet_as: negotiated.four_octet_as,
                    max_message: negotiated.max_message_len as u64,
                    route_refresh: negotiated.route_refresh,
                    graceful_restart: negotiated
                        .graceful_restart
                        .as_ref()
                        .map(|of| of.restart_time.into()),
                }),
            prefixes: prefixes.collect(),
            updates: status.updates,
            rejected: counters.rejected,
            treat_as_withdraw: counters.treat_as_withdraw,
            attribute_discard: counters.attribute_discard,
            too_large: counters.too_large,
        }
    }

    async fn tenant_route(
        &self,
        tenant: TenantId,
        route: &table::TenantRouteStatus,
        addresses: &HashMap<u16, IpAddr>,
    ) -> api::TenantRoute {
        let routes = self.dataplane.routes(tenant).await;
        let kernel = routes.iter().find(|(prefix, _)| *prefix == route.prefix);
        self.described(route, kernel.map(|(_, kernel)| kernel), addresses)
    }

    fn described(
        &self,
        route: &table::TenantRouteStatus,
        kernel: Option<&KernelRoute>,
        addresses: &HashMap<u16, IpAddr>,
    ) -> api::TenantRoute {
        let paths = route.candidates.iter();
        api::TenantRoute {
            prefix: route.prefix,
            local: route.local,
            paths: paths
                .filter_map(|judged| self.tenant_path(judged, addresses))
                .collect(),
            kernel: kernel_state(route, kernel),
        }
    }

    fn tenant_path(
        &self,
        judged: &Judged,
        addresses: &HashMap<u16, IpAddr>,
    ) -> Option<api::TenantPath> {
        let administrator = self.administrator()?;
        let candidate = &judged.candidate;
        let community = LabelCommunity::Label(candidate.label).encode(administrator);
        let endpoint = match candidate.label.endpoint {
            Endpoint::V4(address) => Some(address.into()),
            Endpoint::Id(_) => candidate
                .forwarding
                .filter(|_| !candidate.stitched)
                .map(|hop| hop.address),
        };
        Some(api::TenantPath {
            neighbor: addresses.get(&candidate.source).copied(),
            label: label(community, administrator)?,
            endpoint,
            local_next_hop: candidate
                .forwarding
                .filter(|_| candidate.stitched)
                .map(|hop| hop.address),
            local_pref: candidate.preference.local_pref,
            as_path_length: candidate.preference.as_path_length.into(),
            chosen: judged.lost.is_none(),
            not_chosen: judged.lost.map(not_chosen),
        })
    }
}

fn kernel_state(
    route: &table::TenantRouteStatus,
    kernel: Option<&KernelRoute>,
) -> api::KernelState {
    let chosen = route
        .candidates
        .iter()
        .filter(|judged| judged.lost.is_none());
    let mut next_hops: Vec<api::KernelNextHop> = chosen
        .filter_map(|judged| judged.candidate.forwarding)
        .map(|hop| api::KernelNextHop {
            vni: hop.vni.get(),
            encapsulation: encapsulation(hop.encapsulation),
            address: hop.address,
        })
        .collect();
    next_hops.dedup();
    let (code, error) = match kernel {
        Some(KernelRoute::Installed { .. }) => (api::KernelCode::Installed, None),
        Some(KernelRoute::Pending) => (api::KernelCode::Pending, None),
        Some(KernelRoute::Refused { error }) => (api::KernelCode::Refused, Some(error.clone())),
        None => (api::KernelCode::None, None),
    };
    let installed = code == api::KernelCode::Installed;
    api::KernelState {
        code,
        error,
        next_hops: if installed { next_hops } else { Vec::new() },
    }
}

fn tenant(status: TenantStatus, table: Option<u32>) -> api::Tenant {
    let mut vnis: Vec<u32> = status
        .config
        .vnis
        .iter()
        .chain([&status.config.primary_vni])
        .map(|vni| vni.get())
        .collect();
    vnis.sort_unstable();
    let attachments = status
        .config
        .attachments
        .iter()
        .map(|name| api::Attachment {
            interface: name.clone(),
            up: status.up.contains(name),
        });
    api::Tenant {
        vni: status.config.primary_vni.get(),
        vnis,
        table,
        attachments: attachments.collect(),
        prefixes: status.announced,
        stitched: status.stitched,
        routes: status.routes as u64,
        name: status.config.name,
    }
}

impl RouterState for LiveState {
    async fn status(&self) -> Result<api::Status, Unavailable> {
        let (neighbors, addresses, prefixes, attribute_sets) = self
            .bgp
            .with(|speaker, _| {
                let states: Vec<State> = speaker.states();
                (
                    states,
                    speaker.addresses(),
                    speaker.rib.prefixes(),
                    speaker.rib.attribute_sets(),
                )
            })
            .await
            .ok_or_else(ended)?;
        let (tenants, overlaps) = self
            .overlay
            .ask(|overlay| {
                let overlaps: Vec<_> = overlay.overlaps().take(ALARMS).collect();
                (overlay.tenants(), overlaps)
            })
            .await
            .ok_or_else(ended)?;
        let kernel = self.dataplane.status().await.ok_or_else(ended)?;
        let established = neighbors
            .iter()
            .filter(|state| **state == State::Established)
            .count();
        Ok(api::Status {
            name: self.config.router.name.clone(),
            router_id: self.config.router.router_id.0,
            asn: self.config.router.asn.0,
            version: env!("CARGO_PKG_VERSION").into(),
            uptime: self.started.elapsed().as_secs(),
            converged: self.overlay.converged(),
            overlay: self
                .config
                .overlay
                .as_ref()
                .map(|overlay| api::OverlayStatus {
                    global_administrator: overlay.global_administrator,
                    endpoint: overlay.endpoint,
                    encapsulation: encapsulation(overlay.encapsulation),
                }),
            neighbors: neighbors.len() as u64,
            neighbors_established: established as u64,
            prefixes: Family::ALL
                .into_iter()
                .map(|of| api::FamilyCount {
                    family: family(of),
                    count: prefixes[of.index()] as u64,
                })
                .collect(),
            attribute_sets: attribute_sets as u64,
            tenants: tenants.len() as u64,
            tenant_routes: tenants.iter().map(|tenant| tenant.routes as u64).sum(),
            kernel_routes: kernel.routes as u64,
            kernel_refused: kernel.refused.len() as u64,
            memory: memory(),
            alarms: overlaps
                .iter()
                .map(|overlap| overlap_hidden(overlap, &addresses))
                .collect(),
        })
    }

    async fn neighbors(&self) -> Result<Vec<api::Neighbor>, Unavailable> {
        let mut neighbors: Vec<api::Neighbor> = self
            .bgp
            .neighbors()
            .await
            .into_iter()
            .map(|status| self.neighbor(None, status))
            .collect();
        let sites = self.sites.neighbors().await.into_iter();
        neighbors.extend(sites.map(|(tenant, status)| self.neighbor(Some(tenant), status)));
        neighbors.sort_by_key(|neighbor| (neighbor.tenant.clone(), neighbor.address));
        Ok(neighbors)
    }

    async fn routes(&self, query: RouteQuery) -> Result<api::Page<api::Route>, Unavailable> {
        let addresses = self.addresses().await?;
        let limit = query.limit;
        let peer = match query.neighbor {
            None => None,
            Some(wanted) => match addresses.iter().find(|(_, address)| **address == wanted) {
                Some((peer, _)) => Some(PeerId(*peer)),
                None => {
                    return Ok(api::Page {
                        items: Vec::new(),
                        total: 0,
                        next_cursor: None,
                    });
                }
            },
        };
        let filter = RouteFilter {
            family: query.family.map(|of| match of {
                api::Family::Ipv4Unicast => Family::Ipv4Unicast,
                api::Family::Ipv6Unicast => Family::Ipv6Unicast,
            }),
            prefix: query.prefix,
            longer: query.prefix_match == PrefixMatch::Longer,
            shorter: query.prefix_match == PrefixMatch::Shorter,
            peer,
            large_community: query.large_community,
            vni: query.vni,
            after: query.after,
        };
        // One more than asked for tells whether there is a next page.
        let page = self
            .bgp
            .with(move |speaker, _| speaker.rib.routes(&filter, limit + 1))
            .await
            .ok_or_else(ended)?;
        let mut items: Vec<api::Route> = page
            .routes
            .iter()
            .map(|route| api::Route {
                prefix: route.prefix,
                paths: route
                    .paths
                    .iter()
                    .map(|path| self.path(path, &addresses))
                    .collect(),
            })
            .collect();
        let more = items.len() > limit;
        items.truncate(limit);
        let next_cursor = items
            .last()
            .filter(|_| more)
            .map(|route| route.prefix.to_string());
        Ok(api::Page {
            items,
            total: page.total as u64,
            next_cursor,
        })
    }

    async fn tenants(&self) -> Result<Vec<api::Tenant>, Unavailable> {
        let statuses = self
            .overlay
            .ask(weft_overlay::table::Overlay::tenants)
            .await
            .ok_or_else(ended)?;
        let kernel = self.dataplane.status().await.ok_or_else(ended)?;
        let table = |name: &str| {
            kernel
                .tenants
                .iter()
                .find(|of| of.name == name)
                .map(|of| of.table)
        };
        let mut tenants: Vec<api::Tenant> = statuses
            .into_iter()
            .map(|status| {
                let table = table(&status.config.name);
                tenant(status, table)
            })
            .collect();
        tenants.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(tenants)
    }

    async fn tenant_routes(
        &self,
        name: String,
        query: TenantRouteQuery,
    ) -> Result<Option<api::Page<api::TenantRoute>>, Unavailable> {
        let addresses = self.addresses().await?;
        let limit = query.limit;
        let found = self
            .overlay
            .ask(move |overlay| {
                let id: TenantId = overlay
                    .tenants()
                    .into_iter()
                    .find(|tenant| tenant.config.name == name)?
                    .id;
                let wanted = |net: &IpNet| matches(net, query.prefix, query.prefix_match);
                Some((
                    id,
                    overlay.tenant_routes(id, query.after, limit + 1, &wanted),
                ))
            })
            .await
            .ok_or_else(ended)?;
        let Some((id, (routes, total))) = found else {
            return Ok(None);
        };
        let kernel: HashMap<IpNet, KernelRoute> =
            self.dataplane.routes(id).await.into_iter().collect();
        let more = routes.len() > limit;
        let items: Vec<api::TenantRoute> = routes
            .iter()
            .take(limit)
            .map(|route| self.described(route, kernel.get(&route.prefix), &addresses))
            .collect();
        let next_cursor = items
            .last()
            .filter(|_| more)
            .map(|route| route.prefix.to_string());
        Ok(Some(api::Page {
            items,
            total: total as u64,
            next_cursor,
        }))
    }

    async fn trace(
        &self,
        name: String,
        query: TraceQuery,
    ) -> Result<Option<api::Trace>, Unavailable> {
        let addresses = self.addresses().await?;
        let wanted = name.clone();
        let found = self
            .overlay
            .ask(move |overlay| {
                let id = overlay
                    .tenants()
                    .into_iter()
                    .find(|tenant| tenant.config.name == wanted)?
                    .id;
                Some((id, overlay.lookup(id, query.destination)))
            })
            .await
            .ok_or_else(ended)?;
        let Some((id, route)) = found else {
            return Ok(None);
        };
        let packet = Packet {
            destination: query.destination,
            source: query.from,
            dscp: query.dscp,
        };
        let Some(kernel) = self.dataplane.trace(id, packet).await else {
            return Err(Unavailable(format!(
                "the data plane does not know the tenant `{name}` yet"
            )));
        };
        let flow = Flow {
            source: query.from,
            destination: query.destination,
            protocol: query.protocol,
            source_port: query.source_port,
            destination_port: query.destination_port,
            dscp: query.dscp,
        };
        let (chain, chain_needs) = match self.known().await?.taken(&name, &flow) {
            Ok(chain) => (chain, None),
            Err(needs) => (None, Some(needs)),
        };
        let verdict = match &chain {
            Some(chain) => {
                let mut steps = chain.steps.iter();
                let step = steps.find(|step| step.way.code != api::StepCode::Skipped);
                let step = match step {
                    Some(step) => {
                        let reverse = chain.direction == "reverse";
                        let label = Vni::new(step.label).unwrap_or(Vni::MAX);
                        let asked = self.dataplane.trace_step(id, label, reverse, packet);
                        Some((step, asked.await))
                    }
                    None => None,
                };
                step_verdict(chain, step)
            }
            None => verdict(route.as_ref(), &kernel),
        };
        let live = match query.live {
            true => Some(live(packet, &kernel).await),
            false => None,
        };
        let route = match route {
            Some(route) => Some(self.tenant_route(id, &route, &addresses).await),
            None => None,
        };
        Ok(Some(api::Trace {
            tenant: name,
            destination: query.destination,
            route,
            table: kernel.table,
            error: kernel.route.as_ref().err().cloned(),
            kernel: kernel.route.ok().map(route_of),
            tunnels: kernel
                .tunnels
                .into_iter()
                .map(|tunnel| api::TraceTunnel {
                    next_hop: tunnel.next_hop,
                    vni: tunnel.vni,
                    encapsulation: encapsulation(tunnel.encapsulation),
                    device: tunnel.device.to_owned(),
                    router: tunnel.destination,
                    mtu: tunnel.mtu,
                    error: tunnel.underlay.as_ref().err().cloned(),
                    underlay: tunnel.underlay.ok().map(route_of),
                })
                .collect(),
            verdict,
            chain,
            chain_needs,
            live,
        }))
    }

    async fn labels(&self) -> Result<Vec<api::LabelUse>, Unavailable> {
        let Some(administrator) = self.administrator() else {
            return Ok(Vec::new());
        };
        let (labels, tenants) = self
            .overlay
            .ask(|overlay| (overlay.labels(), overlay.tenants()))
            .await
            .ok_or_else(ended)?;
        let uses = labels.into_iter().filter_map(|status| {
            let vni = status.label.vni;
            let tenant = tenants
                .iter()
                .find(|tenant| {
                    tenant.config.primary_vni == vni || tenant.config.vnis.contains(&vni)
                })
                .map(|tenant| tenant.config.name.clone());
            let community = LabelCommunity::Label(status.label).encode(administrator);
            Some(api::LabelUse {
                label: label(community, administrator)?,
                tenant,
                prefixes: status.prefixes as u64,
            })
        });
        Ok(uses.collect())
    }

    async fn services(&self, tenant: Option<String>) -> Result<Vec<api::Service>, Unavailable> {
        let addresses = self.addresses().await?;
        let known = self.known().await?;
        Ok(known.services(tenant.as_deref(), |judged| {
            self.tenant_path(judged, &addresses)
        }))
    }

    async fn chains(&self, tenant: Option<String>) -> Result<Vec<api::Chain>, Unavailable> {
        Ok(self.known().await?.chains(tenant.as_deref()))
    }

    async fn traffic(&self) -> Result<Vec<api::Traffic>, Unavailable> {
        let tenants = self
            .overlay
            .ask(weft_overlay::table::Overlay::tenants)
            .await
            .ok_or_else(ended)?;
        let mut names: HashMap<u32, &str> = HashMap::new();
        for tenant in &tenants {
            for vni in tenant
                .config
                .vnis
                .iter()
                .chain([&tenant.config.primary_vni])
            {
                names.insert(vni.get(), &tenant.config.name);
            }
        }
        let traffic = self.dataplane.traffic().await.into_iter();
        Ok(traffic
            .map(|one| api::Traffic {
                tenant: names.get(&one.vni).map(|name| (*name).to_owned()),
                vni: one.vni,
                endpoint: one.endpoint,
                received_packets: one.received_packets,
                received_octets: one.received_octets,
                sent_packets: one.sent_packets,
                sent_octets: one.sent_octets,
            })
            .collect())
    }

    async fn endpoints(&self, tenant: Option<String>) -> Result<Vec<api::Endpoint>, Unavailable> {
        let endpoints = self.overlay.ask(move |overlay| {
            let mut endpoints = overlay.endpoints();
            if let Some(name) = tenant {
                let tenants = overlay.tenants().into_iter();
                let mut ids = tenants.filter(|of| of.config.name == name).map(|of| of.id);
                let used = ids.next().map(|id| overlay.endpoints_of(id));
                let used = used.unwrap_or_default();
                endpoints.retain(|address, _| used.contains(address));
            }
            endpoints
        });
        let endpoints = endpoints.await.ok_or_else(ended)?.into_iter();
        Ok(endpoints
            .map(|(address, metric)| api::Endpoint {
                address,
                reachable: metric.is_some(),
                probes: self.endpoints.probes(address),
            })
            .collect())
    }

    async fn kernel(&self, query: KernelQuery) -> Result<api::Kernel, Unavailable> {
        let status = self.dataplane.status().await.ok_or_else(ended)?;
        let count = |object: &str, intended: usize, count: usize| api::ObjectCount {
            object: object.into(),
            intended: intended as u64,
            count: count as u64,
        };
        let intended = &status.intended;
        let name_of = |table: u32| {
            status
                .tenants
                .iter()
                .find(|of| of.table == table)
                .map(|of| of.name.clone())
        };
        let total = status.refused.len();
        let items: Vec<api::RefusedRoute> = status
            .refused
            .iter()
            .skip(query.offset)
            .take(query.limit)
            .map(|refused| api::RefusedRoute {
                tenant: name_of(refused.table),
                table: refused.table,
                prefix: refused.prefix,
                error: refused.error.clone(),
                tries: refused.tries,
            })
            .collect();
        let next = query.offset + items.len();
        let next_cursor = (next < total).then(|| next.to_string());
        Ok(api::Kernel {
            release: std::fs::read_to_string("/proc/sys/kernel/osrelease")
                .unwrap_or_default()
                .trim()
                .to_owned(),
            devices: status
                .devices
                .iter()
                .map(|device| api::Device {
                    name: device.name.clone(),
                    encapsulation: encapsulation(device.encapsulation),
                    mtu: device.mtu,
                    up: device.up,
                })
                .collect(),
            segmentation: if status.vrf {
                api::Segmentation::Vrf
            } else {
                api::Segmentation::Table
            },
            settled: status.settled,
            objects: vec![
                count("routes", intended.routes, status.routes),
                count(
                    "underlay routes",
                    intended.underlay_routes,
                    status.underlay_routes,
                ),
                count("next hops", intended.next_hops, status.next_hops),
                count("VNIs", intended.vnis, status.vnis),
                count("rules", intended.rules, status.rules),
            ],
            requests: status.requests,
            repairs: status.repairs,
            events_lost: status.events_lost,
            drops: status.drops.map(|drops| api::Drops {
                unknown_vni: drops.unknown_vni,
                foreign_address: drops.foreign_address,
                foreign_attachment: drops.foreign_attachment,
            }),
            tables: status
                .tenants
                .iter()
                .map(|of| api::KernelTable {
                    table: of.table,
                    tenant: of.name.clone(),
                    vrf: of.vrf.clone(),
                    intended: of.intended as u64,
                    routes: of.routes as u64,
                })
                .collect(),
            tracked: status
                .tracked
                .iter()
                .map(|(address, metric)| api::Tracked {
                    address: *address,
                    metric: *metric,
                })
                .collect(),
            refused: api::Page {
                items,
                total: total as u64,
                next_cursor,
            },
        })
    }
}
