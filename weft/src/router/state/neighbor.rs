//! Neighbours, the router's own and those of its tenants.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;

use weft_api::Unavailable;
use weft_api::types as api;
use weft_bgp::policy::RoutePolicy;
use weft_bgp::{DownReason, NeighborStatus, State};
use weft_bgp_wire::{Family, Role};

use super::{LiveState, bfd, ended, family};
use crate::router::told::Told;

/// All of them: the router's own, then those of tenants.
pub(super) async fn all(state: &LiveState) -> Result<Vec<api::Neighbor>, Unavailable> {
    // BGP first: an answer that says BGP ended with BFD has the BFD that ended it.
    let statuses = state.bgp.neighbors().await;
    let sessions = state.bfd.snapshot().await.map(|bfd| bfd.sessions);
    let sessions: HashMap<IpAddr, api::BfdSession> = sessions
        .iter()
        .flatten()
        .map(|one| (one.status.config.peer, bfd::session(one)))
        .collect();
    let mut neighbors: Vec<api::Neighbor> = statuses
        .into_iter()
        .map(|status| api::Neighbor {
            bfd: sessions.get(&status.config.address).cloned(),
            ..neighbor(state, None, status)
        })
        .collect();
    let refused = refused_labels(state).await?;
    for neighbor in &mut neighbors {
        let its = refused.get(&neighbor.address);
        neighbor.refused_labels = its.copied().unwrap_or_default();
    }
    let sites = state.sites.neighbors().await.into_iter();
    neighbors.extend(sites.map(|(tenant, status)| neighbor(state, Some(tenant), status)));
    neighbors.sort_by_key(|neighbor| (neighbor.tenant.clone(), neighbor.address));
    Ok(neighbors)
}

/// Labels that are not used, by the neighbour that sends them.
pub(super) async fn refused_labels(
    state: &LiveState,
) -> Result<BTreeMap<IpAddr, api::RefusedLabels>, Unavailable> {
    let refused = state
        .overlay
        .ask(|overlay| overlay.refused_labels().clone());
    let refused = refused.await.ok_or_else(ended)?;
    if refused.is_empty() {
        return Ok(BTreeMap::new());
    }
    let addresses = state.addresses().await?;
    let by_address = refused.into_iter().filter_map(|(source, labels)| {
        let refused = api::RefusedLabels {
            invalid: labels.invalid,
            unknown: labels.unknown,
        };
        Some((*addresses.get(&source)?, refused))
    });
    Ok(by_address.collect())
}

/// Why its connections are not signed that would be. The next key of two that are about to sign is the reason for as long as it takes.
fn unsigned(told: &Told, status: &NeighborStatus, of_tenant: bool) -> Option<String> {
    if status.signed || of_tenant {
        return None;
    }
    let handed = status.config.next_password.is_some();
    let handed = handed.then(|| "the neighbour does not hold the key yet".to_owned());
    handed.or_else(|| told.unsigned.get(&status.config.address).cloned())
}

fn neighbor(state: &LiveState, tenant: Option<String>, status: NeighborStatus) -> api::Neighbor {
    let kind = match (
        status.config.asn == state.config.router.asn,
        status.config.route_reflector_client,
    ) {
        (false, _) => api::NeighborKind::Ebgp,
        (true, false) => api::NeighborKind::Ibgp,
        (true, true) => api::NeighborKind::IbgpClient,
    };
    let counters = status.counters;
    let told = state.told.borrow().clone();
    let teller = told.neighbors.get(&status.config.address);
    let teller = teller.filter(|_| tenant.is_none());
    let prefixes = status
        .config
        .families
        .iter()
        .map(|one| api::NeighborPrefixes {
            family: family(*one),
            received: counters.accepted[one.index()].into(),
            advertised: counters.advertised[one.index()].into(),
        });
    api::Neighbor {
        address: status.config.address,
        unsigned: unsigned(&told, &status, tenant.is_some()),
        tenant,
        asn: status.config.asn.0,
        kind,
        description: status.config.description.clone(),
        source: teller.map(|one| one.source.clone()),
        source_stale: teller.and_then(|one| one.stale.clone()),
        signed: status.signed,
        ttl_security: status
            .config
            .least_ttl
            .map(|least| u8::MAX - least.max(1) + 1),
        bfd: None,
        state: session_state(status.state),
        since: status.since.map(|since| since.elapsed().as_secs()),
        flaps: status.flaps,
        down: (status.last_reason != DownReason::NeverUp).then(|| down(&status.last_reason)),
        local_as: status.config.as_path.local_as.map(|local| local.asn.0),
        group: status.config.group.as_deref().map(str::to_owned),
        dynamic: status.dynamic,
        shutdown: status.config.shutdown.clone(),
        max_prefixes: status.config.max_prefixes,
        role: status.config.role.map(role),
        stale: status.stale,
        negotiated: status
            .negotiated
            .as_ref()
            .map(|negotiated| api::Negotiated {
                router_id: negotiated.router_id.0,
                hold_time: negotiated.hold_time.as_secs(),
                families: negotiated.families.iter().map(|one| family(*one)).collect(),
                add_path_send: families(negotiated.add_path_send),
                add_path_receive: families(negotiated.add_path_receive),
                four_octet_as: negotiated.four_octet_as,
                max_message: negotiated.max_message_len as u64,
                route_refresh: negotiated.route_refresh,
                extended_next_hop: negotiated.extended_next_hop,
                graceful_restart: negotiated
                    .graceful_restart
                    .as_ref()
                    .map(|one| one.restart_time.into()),
                role: negotiated.role.map(role),
            }),
        mute: mute(&status),
        prefixes: prefixes.collect(),
        updates: status.updates,
        rejected: counters.rejected,
        route_leaks: counters.route_leaks,
        policy_rejected: counters.policy_rejected,
        import: policy(&status.config.import, &status.terms[0]),
        export: policy(&status.config.export, &status.terms[1]),
        treat_as_withdraw: counters.treat_as_withdraw,
        attribute_discard: counters.attribute_discard,
        stripped: api::Stripped {
            vni: counters.stripped.vni,
            kind: counters.stripped.kind,
            endpoint: counters.stripped.endpoint,
        },
        // Filled in by what the overlay knows.
        refused_labels: api::RefusedLabels::default(),
        too_large: counters.too_large,
    }
}

/// Families that were agreed on, and that the session has no next hop of ours for.
fn mute(status: &NeighborStatus) -> Vec<api::Family> {
    let config = &status.config;
    let agreed = status.negotiated.iter();
    let extended = agreed.clone().any(|one| one.extended_next_hop);
    let agreed = agreed.flat_map(|one| &one.families);
    let mute = agreed.filter(|one| match one {
        Family::Ipv4Unicast => config.address.is_ipv6() && !extended,
        Family::Ipv6Unicast => config.address.is_ipv4() && config.local_address_v6.is_none(),
    });
    mute.map(|one| family(*one)).collect()
}

fn policy(policy: &RoutePolicy, routes: &[u64]) -> api::PolicyUse {
    let policies = match policy {
        RoutePolicy::Accept => vec!["accept".to_owned()],
        RoutePolicy::Reject => vec!["reject".to_owned()],
        RoutePolicy::Missing => Vec::new(),
        RoutePolicy::Program(program) => program.names().iter().map(ToString::to_string).collect(),
    };
    let terms = policy.program().into_iter().flat_map(|program| {
        let terms = (0u16..).zip(routes);
        terms.map(|(at, routes)| {
            let name = program.term(at);
            api::PolicyTerm {
                policy: name.policy.to_string(),
                term: name.term.to_string(),
                routes: *routes,
            }
        })
    });
    api::PolicyUse {
        policies,
        missing: matches!(policy, RoutePolicy::Missing),
        terms: terms.collect(),
    }
}

fn families(which: [bool; 2]) -> Vec<api::Family> {
    Family::ALL
        .into_iter()
        .filter(|one| which[one.index()])
        .map(family)
        .collect()
}

fn role(one: Role) -> api::Role {
    match one {
        Role::Provider => api::Role::Provider,
        Role::Customer => api::Role::Customer,
        Role::Peer => api::Role::Peer,
        Role::RouteServer => api::Role::Rs,
        Role::RouteServerClient => api::Role::RsClient,
    }
}

fn session_state(state: State) -> api::SessionState {
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
        DownReason::LinkLost(_) => api::DownCode::LinkLost,
        DownReason::BfdDown { .. } => api::DownCode::BfdDown,
        DownReason::Restarted => api::DownCode::Restarted,
    };
    api::Why::new(code, reason.to_string())
}
