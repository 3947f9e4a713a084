//! How a traced packet fares: what the overlay decided beside what the kernel answers.

#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::net::IpAddr;

use weft_api::types as api;
use weft_api::{TraceQuery, Unavailable};
use weft_dataplane::{KernelMatch, KernelTrace, Packet, Probe, ProbeAnswer, ProbeHop};
use weft_overlay::Vni;
use weft_overlay::chain::Flow;
use weft_overlay::table;

use super::chain::known;
use super::{LiveState, encapsulation, ended, tenant, tenant_id};

/// The way of a tenant's packet; `None` where no tenant has that name.
pub(super) async fn trace(
    state: &LiveState,
    name: String,
    query: TraceQuery,
) -> Result<Option<api::Trace>, Unavailable> {
    let addresses = state.addresses().await?;
    let wanted = name.clone();
    let found = state
        .overlay
        .ask(move |overlay| {
            let id = tenant_id(overlay, &wanted)?;
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
    let Some(kernel) = state.dataplane.trace(id, packet).await else {
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
    let (chain, chain_needs) = match known(state).await?.taken(&name, &flow) {
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
                    let asked = state.dataplane.trace_step(id, label, reverse, packet);
                    Some((step, asked.await))
                }
                None => None,
            };
            step_verdict(chain, step)
        }
        None => verdict(route.as_ref(), &kernel),
    };
    let live = match query.live {
        true => Some(live(packet, query.size, &kernel).await),
        false => None,
    };
    let route = match route {
        Some(route) => Some(tenant::route(state, id, &route, &addresses).await),
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
                port: tunnel.port,
                device: tunnel.device,
                router: tunnel.destination,
                mtu: tunnel.mtu,
                error: tunnel.underlay.as_ref().err().cloned(),
                underlay: tunnel.underlay.ok().map(route_of),
            })
            .collect(),
        verdict,
        forwarding: state.forwarding().await?,
        chain,
        chain_needs,
        live,
    }))
}

/// A route of the kernel, for the API.
fn route_of(found: KernelMatch) -> api::TraceMatch {
    api::TraceMatch {
        table: found.table,
        prefix: found.prefix,
        local: found.local,
        gateway: found.gateway,
        interface: found.interface,
        next_hop: found.next_hop,
    }
}

/// Sends packets as the tenant's and says who answered.
async fn live(packet: Packet, size: Option<u16>, kernel: &KernelTrace) -> api::TraceLive {
    let mut live = api::TraceLive {
        source: packet.source.or(kernel.own),
        reached: false,
        error: None,
        size,
        largest: None,
        hops: Vec::new(),
    };
    let Some(source) = live.source else {
        live.error = Some(
            "this router has no address on an attachment of the tenant; name one with `from`"
                .into(),
        );
        return live;
    };
    let probe = Probe {
        mark: kernel.table,
        device: kernel.vrf.clone(),
        source,
        destination: packet.destination,
        dscp: packet.dscp,
        size,
    };
    let sized = probe.clone();
    let answered = tokio::task::spawn_blocking(move || weft_dataplane::probe(&probe)).await;
    match answered.unwrap_or_else(|error| Err(std::io::Error::other(error))) {
        Ok(hops) => {
            live.reached = hops.iter().any(|hop| hop.answer == ProbeAnswer::Reply);
            live.largest = size.filter(|_| live.reached);
            if size.is_some() && !live.reached {
                let found = tokio::task::spawn_blocking(move || weft_dataplane::largest(&sized));
                live.largest = found.await.ok().and_then(Result::ok).flatten();
            }
            live.hops = hops.into_iter().map(hop).collect();
        }
        Err(error) if error.raw_os_error() == Some(nix::libc::EADDRNOTAVAIL) => {
            let own = kernel.own.map_or_else(
                || "one of its own".to_owned(),
                |own| format!("{own}, or none"),
            );
            live.error = Some(format!(
                "{source} is no address of this router, which cannot send from it and hear the answer: give {own}"
            ));
        }
        Err(error) => live.error = Some(format!("cannot send: {error}")),
    }
    live
}

fn hop(hop: ProbeHop) -> api::TraceHop {
    api::TraceHop {
        ttl: hop.ttl,
        address: hop.address,
        round_trip: hop
            .round_trip
            .and_then(|round_trip| u64::try_from(round_trip.as_micros()).ok()),
        answer: match hop.answer {
            ProbeAnswer::None => api::TraceAnswer::None,
            ProbeAnswer::TimeExceeded => api::TraceAnswer::TimeExceeded,
            ProbeAnswer::Reply => api::TraceAnswer::Reply,
            ProbeAnswer::Unreachable => api::TraceAnswer::Unreachable,
            ProbeAnswer::TooLarge(_) => api::TraceAnswer::TooLarge,
        },
        mtu: match hop.answer {
            ProbeAnswer::TooLarge(mtu) => Some(mtu),
            _ => None,
        },
    }
}

/// Compares what the overlay decided with what the kernel answers.
fn verdict(
    route: Option<&table::TenantRouteStatus>,
    kernel: &KernelTrace,
) -> api::Why<api::TraceCode> {
    let intended: BTreeSet<(u32, IpAddr)> = route
        .iter()
        .filter(|route| !route.local)
        .flat_map(|route| &route.candidates)
        .filter(|judged| judged.lost.is_none())
        .filter_map(|judged| judged.candidate.forwarding)
        .map(|hop| (hop.vni.get(), hop.address))
        .collect();
    let held: BTreeSet<(u32, IpAddr)> = kernel
        .tunnels
        .iter()
        .map(|tunnel| (tunnel.vni, tunnel.destination))
        .collect();
    let local = route.is_some_and(|route| route.local);
    let why = |code, text: String| api::Why::new(code, text);
    let found = match &kernel.route {
        Ok(found) => found,
        Err(error) if intended.is_empty() => {
            let text = match local {
                true => {
                    format!("the prefix is the tenant's own here, and the kernel says: {error}")
                }
                false => format!("the tenant has no way there: {error}"),
            };
            return why(api::TraceCode::NoRoute, text);
        }
        Err(error) => {
            return why(
                api::TraceCode::Differs,
                format!("the kernel drops it: {error}"),
            );
        }
    };
    if found.table != kernel.table && !found.local {
        let text = format!(
            "it leaves the tenant: the kernel answers from table {}, the tenant's is {}",
            found.table, kernel.table
        );
        return why(api::TraceCode::Differs, text);
    }
    if held.is_empty() && intended.is_empty() {
        let text = match (&found.interface, found.local) {
            (_, true) => "it is for this router itself".to_owned(),
            (Some(interface), _) => format!("it goes to the attachment {interface}"),
            (None, _) => "it stays on this router".to_owned(),
        };
        return why(api::TraceCode::Delivered, text);
    }
    if held != intended {
        let list = |ways: &BTreeSet<(u32, IpAddr)>| {
            let ways: Vec<String> = ways
                .iter()
                .map(|(vni, address)| format!("{vni}@{address}"))
                .collect();
            match ways.is_empty() {
                true => "no tunnel".to_owned(),
                false => ways.join(", "),
            }
        };
        let (intended, held) = (list(&intended), list(&held));
        let text = format!("the overlay decided for {intended}, the kernel has {held}");
        return why(api::TraceCode::Differs, text);
    }
    if let Some(unreachable) = unreachable(kernel) {
        return unreachable;
    }
    let ways: Vec<String> = held
        .iter()
        .map(|(vni, address)| format!("{address} with VNI {vni}"))
        .collect();
    why(
        api::TraceCode::Forwarded,
        format!(
            "the kernel sends it to {}, as the overlay decided",
            ways.join(" or ")
        ),
    )
}

/// The first of a chain's services that gets the packet from this router, in the kernel's own words.
fn step_verdict(
    chain: &api::Chain,
    step: Option<(&api::ChainStep, Option<KernelTrace>)>,
) -> api::Why<api::TraceCode> {
    let why = |code, text: String| api::Why::new(code, text);
    if chain.state.code == api::ChainCode::Broken {
        let text = format!("the chain `{}` is broken: {}", chain.name, chain.state.text);
        return why(api::TraceCode::ChainBroken, text);
    }
    let Some((step, kernel)) = step else {
        let text = format!(
            "the chain `{}` leads past every service: what is above is its way",
            chain.name
        );
        return why(api::TraceCode::Forwarded, text);
    };
    let Some(kernel) = kernel else {
        return why(
            api::TraceCode::Differs,
            "the data plane does not know the tenant yet".into(),
        );
    };
    let found = match &kernel.route {
        Ok(found) => found,
        Err(error) => {
            let text = format!(
                "the kernel drops it on its way to `{}`: {error}",
                step.service
            );
            return why(api::TraceCode::Differs, text);
        }
    };
    let to: BTreeSet<IpAddr> = kernel.tunnels.iter().map(|one| one.destination).collect();
    let agrees = match step.way.code {
        api::StepCode::Local => {
            found.interface == step.interface
                && step.node.is_none_or(|node| found.gateway == Some(node))
        }
        _ => {
            to == step.routers.iter().copied().collect()
                && kernel.tunnels.iter().all(|one| one.vni == step.label)
        }
    };
    if !agrees {
        let text = format!(
            "the kernel does not send it to `{}`, as the chain says",
            step.service
        );
        return why(api::TraceCode::Differs, text);
    }
    if let Some(unreachable) = unreachable(&kernel) {
        return unreachable;
    }
    let text = format!(
        "the kernel sends it to `{}` first, as the chain `{}` says; what is above is the way of what comes out of the chain here",
        step.service, chain.name
    );
    why(api::TraceCode::Forwarded, text)
}

/// The first of the tunnels whose far end the underlay does not reach.
fn unreachable(kernel: &KernelTrace) -> Option<api::Why<api::TraceCode>> {
    let mut tunnels = kernel.tunnels.iter();
    let (destination, error) =
        tunnels.find_map(|one| Some((one.destination, one.underlay.as_ref().err()?)))?;
    let text = format!("the underlay does not reach {destination}: {error}");
    Some(api::Why::new(api::TraceCode::UnderlayUnreachable, text))
}
