//! What an edge is told of the edges of other domains: whom to speak with, and whose labels to take.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use super::records::{RemoteRouter, RemoteTenant, Trust};
use crate::chains::view as chains;
use crate::model::{Registration, Role, Router, State, Tenant, key};
use crate::proto::Neighbor;

/// Tenants that other domains share with us, by domain and VNI.
pub type Offers<'a> = BTreeMap<(&'a str, u32), &'a RemoteTenant>;

/// What all domains share with us.
pub fn offers(state: &State) -> Offers<'_> {
    let told = state.remote_tenants();
    told.map(|one| ((one.domain.as_str(), one.vni), one))
        .collect()
}

/// Tenants whose packets go over to a domain and come from it: those that we share with it, and those that it shares with us, where we
/// have made a tenant of one. A VNI that its home has given to another tenant since is not that tenant's any more.
fn tenants<'a, 'o>(
    state: &'a State,
    domain: &'a str,
    offers: &'o Offers<'a>,
) -> impl Iterator<Item = &'a Tenant> + use<'a, 'o> {
    let ours = state.shares().filter(move |one| one.domain == domain);
    let ours = ours.filter_map(|one| state.tenant(&key::tenant(&one.tenant)));
    let taken = state.tenants().filter(move |tenant| {
        let home = tenant.home.as_deref() == Some(domain);
        home && offers.contains_key(&(domain, tenant.vni))
    });
    let all = ours.chain(taken);
    all.filter(move |tenant| mistaken(offers, tenant).is_none())
}

/// What its home says of the VNI of a tenant, where that is another tenant now.
pub fn mistaken<'a>(offers: &Offers<'a>, tenant: &Tenant) -> Option<&'a RemoteTenant> {
    let home = tenant.home.as_deref()?;
    let told = offers.get(&(home, tenant.vni)).copied()?;
    match (&tenant.id, &told.id) {
        (Some(own), Some(now)) if own != now => Some(told),
        _ => None,
    }
}

/// The VNIs that go over to a domain and come from it: of tenants, and the labels of their services. A label that the domain has given
/// to a service of another tenant since is not that service's any more.
pub fn vnis(state: &State, domain: &str) -> BTreeSet<u32> {
    let told = state.remote_services().filter(|one| one.domain == domain);
    let labels: BTreeMap<u32, u32> = told.map(|one| (one.label, one.vni)).collect();
    let offers = offers(state);
    let mut vnis = BTreeSet::new();
    for tenant in tenants(state, domain, &offers) {
        let own = |vni: &u32| labels.get(vni).is_none_or(|one| *one == tenant.vni);
        vnis.extend(chains::vnis(state, tenant).filter(own));
    }
    vnis
}

/// Names of the tenants whose packets a router takes from other domains and passes on to them.
pub(crate) fn stitched<'a>(state: &'a State, router: &'a Router) -> BTreeSet<&'a str> {
    let manual = router.peers.iter().flat_map(|peer| &peer.tenants);
    let mut names: BTreeSet<&str> = manual.map(String::as_str).collect();
    if router.role == Role::Edge {
        let trusts = state.trusts().filter(|trust| {
            let mut theirs = state
                .remote_routers()
                .filter(|one| one.domain == trust.name);
            theirs.any(|peer| speaks(trust, router, peer))
        });
        let offers = offers(state);
        for trust in trusts {
            let shared = tenants(state, &trust.name, &offers);
            names.extend(shared.map(|one| one.name.as_str()));
        }
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
    let routers = state.routers().filter_map(|one| one.registration.as_ref());
    let mut taken: BTreeSet<IpAddr> = manual.chain(routers.map(|one| one.bgp_address)).collect();
    for trust in state.trusts() {
        let accepted: Vec<u32> = vnis(state, &trust.name).into_iter().collect();
        let theirs = state
            .remote_routers()
            .filter(|one| one.domain == trust.name);
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
