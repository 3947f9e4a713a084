//! Routes of BGP, and why a path is not the best.

use std::collections::HashMap;
use std::net::IpAddr;

use weft_api::types as api;
use weft_api::types::PrefixMatch;
use weft_api::{RouteQuery, Unavailable};
use weft_bgp::rib::{PeerId, PrefixSelection, Reason, RouteFilter, RoutePath};
use weft_bgp_wire::{Family, LargeCommunity};
use weft_overlay::origins::{Origins, states};

use super::label::{label, origin};
use super::{LiveState, ended, page};

/// A page of them, by family and prefix.
pub(super) async fn routes(
    state: &LiveState,
    query: RouteQuery,
) -> Result<api::Page<api::Route>, Unavailable> {
    let addresses = state.addresses().await?;
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
        family: query.family.map(|one| match one {
            api::Family::Ipv4Unicast => Family::Ipv4Unicast,
            api::Family::Ipv6Unicast => Family::Ipv6Unicast,
        }),
        prefix: query.prefix,
        select: match query.prefix_match {
            PrefixMatch::Exact => PrefixSelection::Exact,
            PrefixMatch::Longer => PrefixSelection::Longer,
            PrefixMatch::Shorter => PrefixSelection::Shorter,
            PrefixMatch::Longest => PrefixSelection::Longest,
        },
        peer,
        community: query.community,
        large_community: query.large_community,
        vni: query.vni,
        after: query.after,
    };
    let found = state
        .bgp
        .with(move |speaker, _| speaker.rib.routes(&filter, limit + 1))
        .await
        .ok_or_else(ended)?;
    let origins = state.overlay.ask(|overlay| overlay.origins().cloned());
    let origins = origins.await.ok_or_else(ended)?;
    let routes = found.routes.iter().map(|route| api::Route {
        prefix: route.prefix,
        paths: route
            .paths
            .iter()
            .map(|one| path(state, one, &addresses, origins.as_deref()))
            .collect(),
    });
    Ok(page(routes.collect(), limit, found.total, |one| one.prefix))
}

fn path(
    state: &LiveState,
    path: &RoutePath,
    addresses: &HashMap<u16, IpAddr>,
    origins: Option<&Origins>,
) -> api::Path {
    let attributes = path.attributes.view();
    let local = path.source == PeerId::LOCAL;
    let administrator = state.administrator();
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
        communities: attributes
            .communities()
            .map(|one| one.to_string())
            .collect(),
        extended_communities: attributes
            .extended_communities()
            .map(|one| one.to_string())
            .collect(),
        large_communities: attributes
            .large_communities()
            .map(|one| one.to_string())
            .collect(),
        labels: administrator.map_or_else(Vec::new, |administrator| {
            // Our own are what they are.
            labels(path, administrator, origins.filter(|_| !local))
        }),
        originator_id: attributes.originator_id().map(|id| id.0),
        cluster_list: attributes.cluster_list().collect(),
    }
}

fn labels(path: &RoutePath, administrator: u32, origins: Option<&Origins>) -> Vec<api::Label> {
    let communities = path.attributes.view().large_communities();
    let communities: Vec<LargeCommunity> = communities.collect();
    let known = origins.map_or_else(Vec::new, |origins| {
        states(origins, &communities, administrator, path.ebgp)
    });
    let labels = communities.into_iter().filter_map(|one| {
        let origin_of = known.iter().find(|(community, _)| *community == one);
        Some(api::Label {
            origin: origin_of.and_then(|(_, judged)| judged.state().map(origin)),
            ..label(one, administrator)?
        })
    });
    labels.collect()
}

fn lost(reason: Reason) -> api::Why<api::LostCode> {
    use api::LostCode as Code;
    let (code, text) = match reason {
        Reason::NextHopUnreachable => (Code::NextHopUnreachable, "the next hop does not resolve"),
        Reason::NotLocal => (Code::NotLocal, "another is this router's own"),
        Reason::LastResort => (Code::LastResort, "BFD to the neighbour is down"),
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
