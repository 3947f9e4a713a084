//! Tenants and their tables: what the overlay decided beside what the kernel holds.

use std::cell::Cell;
use std::collections::HashMap;
use std::net::IpAddr;
use std::num::NonZeroU16;

use ipnet::IpNet;
use weft_api::types as api;
use weft_api::types::PrefixMatch;
use weft_api::{TenantRouteQuery, Unavailable};
use weft_dataplane::{KernelRoute, TenantTable};
use weft_overlay::Vni;
use weft_overlay::intent::TenantId;
use weft_overlay::label::{Endpoint, LabelCommunity};
use weft_overlay::table::{self, Judged, Overlay, TenantStatus};

use super::forwarding::verdict_of;
use super::label::{label, origin};
use super::{LiveState, encapsulation, ended, page, tenant_id, vnis_of};

/// All of them, by name.
pub(super) async fn all(state: &LiveState) -> Result<Vec<api::Tenant>, Unavailable> {
    let statuses = state
        .overlay
        .ask(Overlay::tenants)
        .await
        .ok_or_else(ended)?;
    let kernel = state.dataplane.status().await.ok_or_else(ended)?;
    let conditions = state.conditions(&kernel);
    let tables: HashMap<&str, &TenantTable> = kernel
        .tenants
        .iter()
        .map(|one| (one.name.as_str(), one))
        .collect();
    let mut tenants: Vec<api::Tenant> = statuses
        .into_iter()
        .map(|status| {
            let table = tables.get(status.config.name.as_str()).copied();
            let verdict = verdict_of(&conditions, &status.config.name);
            tenant(status, table, verdict)
        })
        .collect();
    tenants.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(tenants)
}

fn tenant(
    status: TenantStatus,
    kernel: Option<&TenantTable>,
    verdict: api::Verdict,
) -> api::Tenant {
    let mut vnis: Vec<u32> = vnis_of(&status.config).map(Vni::get).collect();
    vnis.sort_unstable();
    let attachments = status
        .config
        .attachments
        .iter()
        .map(|name| api::Attachment {
            interface: name.clone(),
            up: status.up.contains(name),
            missing: kernel.is_some_and(|kernel| kernel.missing.contains(name)),
        });
    api::Tenant {
        vni: status.config.primary_vni.get(),
        vnis,
        table: kernel.map(|kernel| kernel.table),
        attachments: attachments.collect(),
        prefixes: status.announced,
        stitched: status.stitched,
        routes: status.routes as u64,
        verdict,
        name: status.config.name,
    }
}

/// A page of the table of one; `None` where no tenant has that name.
pub(super) async fn routes(
    state: &LiveState,
    name: String,
    query: TenantRouteQuery,
) -> Result<Option<api::Page<api::TenantRoute>>, Unavailable> {
    let addresses = state.addresses().await?;
    let limit = query.limit;
    let found = state
        .overlay
        .ask(move |overlay| {
            let id = tenant_id(overlay, &name)?;
            let (wanted, how) = match (query.prefix, query.prefix_match) {
                (Some(wanted), PrefixMatch::Longest) => {
                    let covering = longest(overlay, id, wanted).unwrap_or(wanted);
                    (Some(covering), PrefixMatch::Exact)
                }
                asked => asked,
            };
            let wanted = |net: &IpNet| wanted.is_none_or(|wanted| how.selects(net, &wanted));
            let routes = overlay.tenant_routes(id, query.after, limit + 1, &wanted);
            Some((id, routes))
        })
        .await
        .ok_or_else(ended)?;
    let Some((id, (routes, total))) = found else {
        return Ok(None);
    };
    let kernel: HashMap<IpNet, KernelRoute> =
        state.dataplane.routes(id).await.into_iter().collect();
    let routes = routes
        .iter()
        .map(|route| described(state, route, kernel.get(&route.prefix), &addresses));
    Ok(Some(page(routes.collect(), limit, total, |one| one.prefix)))
}

/// The longest prefix of a tenant's table that covers `wanted`.
fn longest(overlay: &Overlay, tenant: TenantId, wanted: IpNet) -> Option<IpNet> {
    let found: Cell<Option<IpNet>> = Cell::new(None);
    let look = |net: &IpNet| {
        let longer = found
            .get()
            .is_none_or(|one| net.prefix_len() > one.prefix_len());
        if longer && net.contains(&wanted) {
            found.set(Some(*net));
        }
        false
    };
    overlay.tenant_routes(tenant, None, 0, &look);
    found.get()
}

/// A route of its table.
pub(super) async fn route(
    state: &LiveState,
    tenant: TenantId,
    route: &table::TenantRouteStatus,
    addresses: &HashMap<u16, IpAddr>,
) -> api::TenantRoute {
    let routes = state.dataplane.routes(tenant).await;
    let kernel = routes.iter().find(|(prefix, _)| *prefix == route.prefix);
    described(state, route, kernel.map(|(_, kernel)| kernel), addresses)
}

fn described(
    state: &LiveState,
    route: &table::TenantRouteStatus,
    kernel: Option<&KernelRoute>,
    addresses: &HashMap<u16, IpAddr>,
) -> api::TenantRoute {
    let paths = route.candidates.iter();
    api::TenantRoute {
        prefix: route.prefix,
        local: route.local,
        paths: paths
            .filter_map(|judged| path(state, judged, addresses))
            .collect(),
        kernel: kernel_state(route, kernel),
    }
}

/// A path in the table of a tenant; `None` where there is no overlay.
pub(super) fn path(
    state: &LiveState,
    judged: &Judged,
    addresses: &HashMap<u16, IpAddr>,
) -> Option<api::TenantPath> {
    let administrator = state.administrator()?;
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
        label: api::Label {
            origin: candidate.origin.state().map(origin),
            ..label(community, administrator)?
        },
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
            port: hop.port.map(NonZeroU16::get),
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

fn not_chosen(reason: table::Reason) -> api::Why<api::NotChosenCode> {
    use api::NotChosenCode as Code;
    let code = match reason {
        table::Reason::LocalPrefix => Code::LocalPrefix,
        table::Reason::OwnEndpoint => Code::OwnEndpoint,
        table::Reason::InvalidOrigin => Code::InvalidOrigin,
        table::Reason::UnknownOrigin => Code::UnknownOrigin,
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
