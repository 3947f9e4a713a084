//! How a traced packet fares: what the overlay decided beside what the kernel answers.

use std::collections::BTreeSet;
use std::net::IpAddr;

use weft_api::types as api;
use weft_dataplane::{KernelMatch, KernelTrace, Packet, Probe, ProbeAnswer, ProbeHop};
use weft_overlay::table;

/// A route of the kernel, for the API.
pub(super) fn route_of(found: KernelMatch) -> api::TraceMatch {
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
pub(super) async fn live(packet: Packet, kernel: &KernelTrace) -> api::TraceLive {
    let mut live = api::TraceLive {
        source: packet.source.or(kernel.own),
        reached: false,
        error: None,
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
    };
    let answered = tokio::task::spawn_blocking(move || weft_dataplane::probe(&probe)).await;
    match answered.unwrap_or_else(|error| Err(std::io::Error::other(error))) {
        Ok(hops) => {
            live.reached = hops.iter().any(|hop| hop.answer == ProbeAnswer::Reply);
            live.hops = hops.into_iter().map(hop).collect();
        }
        Err(error) if error.raw_os_error() == Some(nix::libc::EADDRNOTAVAIL) => {
            live.error = Some(format!("{source} is no address of this router"));
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
        },
    }
}

/// Compares what the overlay decided with what the kernel answers.
pub(super) fn verdict(
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
    let lost = kernel
        .tunnels
        .iter()
        .find_map(|tunnel| Some((tunnel.destination, tunnel.underlay.as_ref().err()?)));
    if let Some((destination, error)) = lost {
        let text = format!("the underlay does not reach {destination}: {error}");
        return why(api::TraceCode::UnderlayUnreachable, text);
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
pub(super) fn step_verdict(
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
    let to: BTreeSet<IpAddr> = kernel.tunnels.iter().map(|of| of.destination).collect();
    let agrees = match step.way.code {
        api::StepCode::Local => {
            found.interface == step.interface
                && step.node.is_none_or(|node| found.gateway == Some(node))
        }
        _ => {
            to == step.routers.iter().copied().collect()
                && kernel.tunnels.iter().all(|of| of.vni == step.label)
        }
    };
    if !agrees {
        let text = format!(
            "the kernel does not send it to `{}`, as the chain says",
            step.service
        );
        return why(api::TraceCode::Differs, text);
    }
    let lost = kernel
        .tunnels
        .iter()
        .find_map(|of| Some((of.destination, of.underlay.as_ref().err()?)));
    if let Some((destination, error)) = lost {
        let text = format!("the underlay does not reach {destination}: {error}");
        return why(api::TraceCode::UnderlayUnreachable, text);
    }
    let text = format!(
        "the kernel sends it to `{}` first, as the chain `{}` says; what is above is the way of what comes out of the chain here",
        step.service, chain.name
    );
    why(api::TraceCode::Forwarded, text)
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use weft_dataplane::TunnelTrace;
    use weft_overlay::intent::ForwardingNextHop;
    use weft_overlay::label::{Endpoint, Label, LabelKind};
    use weft_overlay::table::{Candidate, Judged, Preference, TenantRouteStatus};
    use weft_overlay::{Encapsulation, Vni};

    use super::*;

    const FAR: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 21);

    fn intended(local: bool) -> TenantRouteStatus {
        let vni = Vni::new(10001).unwrap();
        let candidate = Candidate {
            label: Label {
                kind: LabelKind::Tenant,
                vni,
                encapsulation: Encapsulation::Vxlan,
                endpoint: Endpoint::V4(FAR),
            },
            forwarding: Some(ForwardingNextHop {
                vni,
                encapsulation: Encapsulation::Vxlan,
                address: FAR.into(),
                endpoint_id: None,
            }),
            stitched: false,
            source: 1,
            path_id: 1,
            preference: Preference {
                local_pref: 100,
                med: 0,
                neighbor_as: 0,
                as_path_length: 0,
                origin: 0,
                ebgp: false,
            },
            bandwidth: 0,
        };
        TenantRouteStatus {
            prefix: "10.0.2.0/24".parse().unwrap(),
            local,
            candidates: if local {
                Vec::new()
            } else {
                vec![Judged {
                    candidate,
                    lost: None,
                }]
            },
        }
    }

    fn found(table: u32) -> KernelMatch {
        KernelMatch {
            table,
            prefix: None,
            local: false,
            gateway: None,
            interface: Some("red0".into()),
            next_hop: None,
        }
    }

    fn kernel(route: Result<KernelMatch, String>, vnis: &[u32]) -> KernelTrace {
        let tunnels = vnis.iter().map(|vni| TunnelTrace {
            next_hop: 1,
            vni: *vni,
            encapsulation: Encapsulation::Vxlan,
            device: "vx0",
            destination: FAR.into(),
            underlay: Ok(found(254)),
            mtu: 1450,
        });
        KernelTrace {
            vrf: None,
            own: None,
            table: 7001,
            route,
            tunnels: tunnels.collect(),
        }
    }

    #[test]
    fn every_way_to_fare_has_its_word() {
        let drop = || Err("Network is unreachable".to_owned());
        let mut unreached = kernel(Ok(found(7001)), &[10001]);
        unreached.tunnels[0].underlay = drop();
        for (route, kernel, code) in [
            (
                Some(intended(false)),
                kernel(Ok(found(7001)), &[10001]),
                api::TraceCode::Forwarded,
            ),
            (
                Some(intended(true)),
                kernel(Ok(found(7001)), &[]),
                api::TraceCode::Delivered,
            ),
            (
                Some(intended(false)),
                unreached,
                api::TraceCode::UnderlayUnreachable,
            ),
            (None, kernel(drop(), &[]), api::TraceCode::NoRoute),
            (
                Some(intended(false)),
                kernel(drop(), &[]),
                api::TraceCode::Differs,
            ),
            (
                Some(intended(false)),
                kernel(Ok(found(7001)), &[10002]),
                api::TraceCode::Differs,
            ),
            (
                Some(intended(false)),
                kernel(Ok(found(7001)), &[]),
                api::TraceCode::Differs,
            ),
            // Through the main table: out of the tenant.
            (None, kernel(Ok(found(254)), &[]), api::TraceCode::Differs),
        ] {
            let verdict = verdict(route.as_ref(), &kernel);
            assert_eq!(verdict.code, code, "{}", verdict.text);
        }
    }
}
