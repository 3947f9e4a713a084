//! What an edge is told of the edges of other domains: whom to speak with, and whose labels to take.

use std::collections::BTreeSet;
use std::net::IpAddr;

use super::records::{RemoteRouter, Trust};
use crate::chains::view as chains;
use crate::model::{Registration, Role, Router, State, Tenant, key};
use crate::proto::Neighbor;

/// Tenants whose packets go over to a domain and come from it: those that we share with it, and those of its VNIs that it shares
/// with us, where we have made a tenant of one.
fn tenants<'a>(state: &'a State, domain: &'a str) -> impl Iterator<Item = &'a Tenant> {
    let ours = state.shares().filter(move |of| of.domain == domain);
    let ours = ours.filter_map(|of| state.tenant(&key::tenant(&of.tenant)));
    let theirs: BTreeSet<u32> = state
        .remote_tenants()
        .filter(|of| of.domain == domain)
        .map(|of| of.vni)
        .collect();
    let taken = state.tenants().filter(move |tenant| {
        tenant.home.as_deref() == Some(domain) && theirs.contains(&tenant.vni)
    });
    ours.chain(taken)
}

/// The VNIs that go over to a domain and come from it: of tenants, and the labels of their services.
pub fn vnis(state: &State, domain: &str) -> BTreeSet<u32> {
    let tenants = tenants(state, domain);
    tenants
        .flat_map(|tenant| chains::vnis(state, tenant))
        .collect()
}

/// Names of the tenants whose packets a router takes from other domains and passes on to them.
pub(crate) fn stitched<'a>(state: &'a State, router: &'a Router) -> BTreeSet<&'a str> {
    let manual = router.peers.iter().flat_map(|peer| &peer.tenants);
    let mut names: BTreeSet<&str> = manual.map(String::as_str).collect();
    if router.role == Role::Edge {
        let trusts = state.trusts().filter(|trust| {
            let mut theirs = state.remote_routers().filter(|of| of.domain == trust.name);
            theirs.any(|peer| speaks(trust, router, peer))
        });
        let shared = trusts.flat_map(|trust| tenants(state, &trust.name));
        names.extend(shared.map(|of| of.name.as_str()));
    }
    names
}

/// Whom an edge speaks with in domains that are trusted, by the key of the view. `held` says whether it has an item now: an edge
/// whose lease has run out stays with those that know it. An address that an operator has entered by hand, or that a router of ours
/// has, is not taken from another domain.
pub fn of(
    state: &State,
    router: &Router,
    own: &Registration,
    held: &dyn Fn(&str) -> bool,
) -> Vec<(String, Neighbor)> {
    let mut found = Vec::new();
    if router.role != Role::Edge || state.trusts().next().is_none() {
        return found;
    }
    let manual = router.peers.iter().map(|peer| peer.address);
    let routers = state.routers().filter_map(|of| of.registration.as_ref());
    let mut taken: BTreeSet<IpAddr> = manual.chain(routers.map(|of| of.bgp_address)).collect();
    for trust in state.trusts() {
        let accepted: Vec<u32> = vnis(state, &trust.name).into_iter().collect();
        let theirs = state.remote_routers().filter(|of| of.domain == trust.name);
        for peer in theirs.filter(|peer| speaks(trust, router, peer)) {
            let key = format!("peer/{}/{}", trust.name, peer.name);
            if (peer.expired && !held(&key)) || !taken.insert(peer.bgp_address) {
                continue;
            }
            let neighbor = Neighbor {
                name: format!("{} of domain {}", peer.name, trust.name),
                address: peer.bgp_address.to_string(),
                asn: peer.asn,
                accept_vnis: accepted.clone(),
                ttl: trust.ttl.into(),
                external: true,
                local_address: router.external(own).to_string(),
                ..Neighbor::default()
            };
            found.push((key, neighbor));
        }
    }
    found
}

/// Both domains want the two to speak with each other.
fn speaks(trust: &Trust, router: &Router, peer: &RemoteRouter) -> bool {
    let theirs = peer.peers.is_empty() || peer.peers.contains(&router.name);
    theirs && trust.pairs(&router.name, &peer.name)
}
