//! The router as a whole.

use std::collections::HashSet;
use std::net::IpAddr;

use weft_api::Unavailable;
use weft_api::types as api;
use weft_bgp::State;
use weft_bgp::rib::PeerId;
use weft_bgp_wire::Family;
use weft_overlay::table;

use super::forwarding::forwarding;
use super::neighbor::refused_labels;
use super::{LiveState, bfd, encapsulation, ended, family, signatures};
use crate::cli::human::several;

/// Alarms in one answer.
const ALARMS: usize = 100;

/// What it is and how it does.
pub(super) async fn status(state: &LiveState) -> Result<api::Status, Unavailable> {
    let (neighbors, addresses, unheard, foreign, prefixes, attribute_sets, awaited) = state
        .bgp
        .with(|speaker, now| {
            let states: Vec<State> = speaker.states();
            let addresses = speaker.addresses();
            let signed: HashSet<IpAddr> = speaker.passwords().map(|(one, _)| one).collect();
            let unheard = states.iter().zip(&addresses);
            let unheard = unheard.filter(|(state, (_, address))| {
                **state != State::Established && signed.contains(address)
            });
            let unheard: Vec<IpAddr> = unheard.map(|(_, (_, address))| *address).collect();
            let foreign = addresses.iter().map(|(peer, address)| {
                let stripped = speaker.rib.counters(*peer).stripped;
                (*address, stripped.endpoint)
            });
            let foreign: Vec<(IpAddr, u64)> = foreign.filter(|(_, count)| *count > 0).collect();
            (
                states,
                addresses,
                unheard,
                foreign,
                speaker.rib.prefixes(),
                speaker.rib.attribute_sets(),
                speaker.awaited(now),
            )
        })
        .await
        .ok_or_else(ended)?;
    let (tenants, overlaps, conflicts) = state
        .overlay
        .ask(|overlay| {
            let overlaps: Vec<_> = overlay.overlaps().take(ALARMS).collect();
            let conflicts: Vec<_> = overlay.locator_conflicts().take(ALARMS).collect();
            (overlay.tenants(), overlaps, conflicts)
        })
        .await
        .ok_or_else(ended)?;
    let refused = refused_labels(state).await?;
    let kernel = state.dataplane.status().await.ok_or_else(ended)?;
    let bfd = state.bfd.snapshot().await;
    let signatures = signatures::counted();
    let told = state.told.borrow().clone();
    let troubles = state.secure.as_ref().map(|one| one.troubles());
    let troubles = troubles.unwrap_or_default();
    let established = neighbors
        .iter()
        .filter(|state| **state == State::Established)
        .count();
    Ok(api::Status {
        name: state.config.router.name.clone(),
        router_id: state.config.router.router_id.0,
        asn: state.config.router.asn.0,
        version: env!("CARGO_PKG_VERSION").into(),
        uptime: state.started.elapsed().as_secs(),
        converged: state.overlay.converged(),
        awaited: awaited.map(|awaited| api::Awaited {
            neighbors: awaited.neighbors,
            at_most: awaited.at_most.as_secs(),
        }),
        overlay: state
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
            .map(|one| api::FamilyCount {
                family: family(one),
                count: prefixes[one.index()] as u64,
            })
            .collect(),
        attribute_sets: attribute_sets as u64,
        tenants: tenants.len() as u64,
        tenant_routes: tenants.iter().map(|tenant| tenant.routes as u64).sum(),
        kernel_routes: kernel.routes as u64,
        kernel_refused: kernel.refused.len() as u64,
        bfd: bfd.as_ref().map(bfd::status),
        signatures,
        memory: memory(),
        forwarding: forwarding(state.conditions(&kernel)),
        alarms: told
            .alarms
            .iter()
            .cloned()
            .chain(troubles.into_iter().map(api_closed))
            .chain(signatures::alarms(
                &told,
                &unheard,
                state.signatures,
                signatures,
            ))
            .chain(
                conflicts
                    .iter()
                    .map(|one| locator_conflict(one, &addresses)),
            )
            .chain(
                foreign
                    .iter()
                    .filter(|(from, _)| told.neighbors.contains_key(from))
                    .map(|(from, count)| foreign_endpoint(*from, *count)),
            )
            .chain(
                refused
                    .iter()
                    .filter_map(|(from, one)| invalid_origin(*from, *one)),
            )
            .chain(overlaps.iter().map(|one| overlap_hidden(one, &addresses)))
            .take(ALARMS)
            .collect(),
    })
}

/// ` from ADDRESS`, of a neighbour that is still there.
fn from_neighbor(source: u16, neighbors: &[(PeerId, IpAddr)]) -> String {
    let neighbor = neighbors.iter().find(|(peer, _)| peer.0 == source);
    neighbor.map_or_else(String::new, |(_, address)| format!(" from {address}"))
}

fn locator_conflict(
    conflict: &table::LocatorConflict,
    neighbors: &[(PeerId, IpAddr)],
) -> api::Alarm {
    let source = from_neighbor(conflict.source, neighbors);
    let owner = conflict
        .owner
        .map_or_else(String::new, |owner| format!(": it is {owner}"));
    api::Alarm {
        code: "locator-conflict".into(),
        text: format!(
            "{}{source} is announced as the locator of endpoint id {}, which has an owner{owner}; one of the two is misconfigured, or lies",
            conflict.other, conflict.id
        ),
    }
}

/// A neighbour announces labels that lead where nobody hosts what they name.
fn invalid_origin(from: IpAddr, refused: api::RefusedLabels) -> Option<api::Alarm> {
    let count = refused.invalid;
    (count > 0).then(|| api::Alarm {
        code: "invalid-origin".into(),
        text: format!(
            "{} from {from} not used: by the domain's controller no router where they lead to hosts their VNI \
             (weft show routes --neighbor {from}); somebody is misconfigured, or lies",
            several(count, "label")
        ),
    })
}

/// A router of the domain names others' endpoints, or their ids.
fn foreign_endpoint(from: IpAddr, count: u64) -> api::Alarm {
    api::Alarm {
        code: "foreign-endpoint".into(),
        text: format!(
            "{count} labels, local next hops or locators were taken from the routes of {from}, since they name other routers than itself: it is misconfigured, or lies",
        ),
    }
}

/// The files of the API's port are not as they should be.
fn api_closed(why: String) -> api::Alarm {
    api::Alarm {
        code: "api-port".into(),
        text: format!("who asks at the API's port may not be answered: {why}"),
    }
}

fn overlap_hidden(overlap: &table::Overlap, neighbors: &[(PeerId, IpAddr)]) -> api::Alarm {
    let source = from_neighbor(overlap.source, neighbors);
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
