//! What an edge is told of the edges of other domains: whom to speak with, and whose labels to take.

use std::collections::BTreeSet;
use std::net::IpAddr;

use super::operations::offer;
use super::records::{RemoteRouter, RemoteTenant, Trust};
use crate::chains::view as chains;
use crate::model::{Record, Registration, Role, Router, State, Tenant, key};
use crate::proto::Neighbor;
use crate::state::by;

/// Tenants whose packets go over to a domain and come from it: those that we share with it, and those that it shares with us, where we
/// have made a tenant of one. A VNI that its home has given to another tenant since is not that tenant's any more.
pub(crate) fn tenants<'a>(state: &'a State, domain: &'a str) -> impl Iterator<Item = &'a Tenant> {
    let ours = state.all_below(key::share(domain, ""));
    let ours = ours.filter_map(|one| match &one.record {
        Record::Share(share) => state.tenant(&key::tenant(&share.tenant)),
        _ => None,
    });
    let taken = state
        .by(&by::home(domain))
        .filter_map(|one| match &one.record {
            Record::Tenant(tenant) => offer(state, domain, tenant.vni).map(|_| tenant),
            _ => None,
        });
    let all = ours.chain(taken);
    all.filter(|tenant| mistaken(state, tenant).is_none())
}

/// What its home says of the VNI of a tenant, where that is another tenant now.
pub fn mistaken<'a>(state: &'a State, tenant: &Tenant) -> Option<&'a RemoteTenant> {
    let told = offer(state, tenant.home.as_deref()?, tenant.vni)?;
    match (&tenant.id, &told.id) {
        (Some(own), Some(now)) if own != now => Some(told),
        _ => None,
    }
}

/// The VNIs that go over to a domain and come from it: of tenants, and the labels of their services. One that the domain says is another
/// tenant's, or of a service of one, is not that tenant's there.
pub fn vnis(state: &State, domain: &str) -> BTreeSet<u32> {
    let mut vnis = BTreeSet::new();
    for tenant in tenants(state, domain) {
        let own = chains::vnis(state, tenant).filter(|vni| !anothers(state, domain, tenant, *vni));
        vnis.extend(own);
    }
    vnis
}

/// A domain says that a VNI of a tenant here is another tenant's.
fn anothers(state: &State, domain: &str, tenant: &Tenant, vni: u32) -> bool {
    let another = |record: &Record| match record {
        Record::RemoteService(one) => one.domain == domain && one.vni != tenant.vni,
        Record::RemoteTenant(one) if one.domain == domain => {
            let ids = one.id.as_ref().zip(tenant.id.as_ref());
            vni != tenant.vni || ids.is_some_and(|(told, own)| told != own)
        }
        _ => false,
    };
    state.by(&by::number(vni)).any(|one| another(&one.record))
}

/// Whether a VNI of a tenant is one of them.
pub(crate) fn exchanges(state: &State, domain: &str, tenant: &Tenant, vni: u32) -> bool {
    let home = tenant.home.as_deref() == Some(domain);
    let goes = state.share(&key::share(domain, &tenant.name)).is_some()
        || (home && offer(state, domain, tenant.vni).is_some());
    goes && mistaken(state, tenant).is_none() && !anothers(state, domain, tenant, vni)
}

/// A trusted domain's edges that a router speaks with.
fn spoken_with<'a>(
    state: &'a State,
    trust: &'a Trust,
    router: &'a Router,
) -> impl Iterator<Item = &'a RemoteRouter> {
    let theirs = state.all_below(key::remote_router(&trust.name, ""));
    theirs.filter_map(move |one| match &one.record {
        Record::RemoteRouter(peer) => speaks(trust, router, peer).then_some(peer),
        _ => None,
    })
}

/// Domains with edges that a router speaks with by its role.
fn reached<'a>(state: &'a State, router: &'a Router) -> impl Iterator<Item = &'a Trust> {
    let trusts = state.trusts().filter(|_| router.role == Role::Edge);
    trusts.filter(move |trust| spoken_with(state, trust, router).next().is_some())
}

/// Names of the tenants whose packets a router takes from other domains and passes on to them.
pub(crate) fn stitched<'a>(state: &'a State, router: &'a Router) -> BTreeSet<&'a str> {
    let manual = router.peers.iter().flat_map(|peer| &peer.tenants);
    let mut names: BTreeSet<&str> = manual.map(String::as_str).collect();
    for trust in reached(state, router) {
        names.extend(tenants(state, &trust.name).map(|tenant| tenant.name.as_str()));
    }
    names
}

/// Whether a tenant is among them.
pub(crate) fn is_stitched(state: &State, router: &Router, name: &str) -> bool {
    let mut manual = router.peers.iter().flat_map(|peer| &peer.tenants);
    if manual.any(|tenant| tenant == name) {
        return true;
    }
    let Some(tenant) = state.tenant(&key::tenant(name)) else {
        return false;
    };
    mistaken(state, tenant).is_none()
        && reached(state, router).any(|trust| {
            let home = tenant.home.as_deref() == Some(trust.name.as_str());
            state.share(&key::share(&trust.name, name)).is_some()
                || (home && offer(state, &trust.name, tenant.vni).is_some())
        })
}

/// Whom an edge speaks with in domains that are trusted, by the key of the view. `held` says whether it has an item now: an edge
/// whose lease has run out stays with those that know it. An address that an operator has entered by hand, or that a router of ours
/// has, is not taken from another domain.
pub fn neighbors(
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
        for peer in spoken_with(state, trust, router) {
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
