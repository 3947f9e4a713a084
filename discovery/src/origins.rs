//! Where labels may lead to: which routers host what a VNI names, in this domain and, as they say it, in others.
//!
//! A router is told of the tenants that it has something of, so what it is told grows with the routers of these alone, 4 octets for each. The
//! routers of other domains are told to those that speak with other domains: behind them nobody tunnels there.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};

use crate::chains::view as chains;
use crate::exchange::peers;
use crate::model::{Record, Registration, RemoteOrigins, Role, Router, State, Tenant, key};
use crate::proto::{Beyond, Far, Host, Hosts, Origins};
use crate::state::{as_router, by};

/// Domains that a word about a far one may come by.
pub(crate) const LONGEST_PATH: usize = 16;
/// VNIs, counted for each domain that hosts them, of which another domain may say where their labels lead to.
pub(crate) const MOST_SAID: usize = 65_536;
/// Endpoints of one VNI in one domain.
pub(crate) const MOST_ENDPOINTS: usize = 16_384;
/// Domains that host one VNI, as one domain says it.
pub(crate) const MOST_DOMAINS: usize = 64;
/// Ways by which what one domain says of a third one's routers is told on.
const MOST_WAYS: usize = 4;
/// Endpoints of one VNI in all of these together.
pub(crate) const MOST_TOGETHER: usize = 65_536;
/// Octets of all that one domain says, 4 for each endpoint: half of the largest message, so that what else it says fits too.
pub(crate) const MOST_OCTETS: usize = 8 << 20;
/// Octets of a word besides its endpoints and the names of domains, at most.
const WORD: usize = 48;

/// What has been taken of a domain's words, or told to one.
#[derive(Default)]
pub(crate) struct Counted {
    /// For each VNI its domains and their endpoints.
    vnis: BTreeMap<u32, (usize, usize)>,
    words: usize,
    octets: usize,
}

impl Counted {
    /// Counts one more.
    ///
    /// # Errors
    /// What it would be too much of; then it is not counted.
    pub(crate) fn add(
        &mut self,
        vni: u32,
        path: &[String],
        endpoints: usize,
    ) -> Result<(), String> {
        let (domains, together) = self.vnis.get(&vni).copied().unwrap_or_default();
        let names: usize = path.iter().map(|name| name.len() + 2).sum();
        let origin = path.first().map_or(0, String::len);
        let octets = self.octets + 4 * endpoints + names + origin + WORD;
        let bounds = [
            (endpoints, MOST_ENDPOINTS, "endpoints in one domain"),
            (domains + 1, MOST_DOMAINS, "domains that host one VNI"),
            (together + endpoints, MOST_TOGETHER, "endpoints of one VNI"),
            (self.words + 1, MOST_SAID, "VNIs and domains that host them"),
            (octets, MOST_OCTETS, "octets of where labels lead to"),
        ];
        for (found, most, what) in bounds {
            if found > most {
                return Err(format!(
                    "with it there are {found} {what}, and at most {most} are taken"
                ));
            }
        }
        self.vnis.insert(vni, (domains + 1, together + endpoints));
        self.words += 1;
        self.octets = octets;
        Ok(())
    }
}

/// Routers that pass a tenant's packets on between domains.
fn passing<'a>(state: &'a State, tenant: &'a str) -> impl Iterator<Item = &'a Router> {
    let peers = state.by(&by::peer_of(tenant)).filter_map(as_router);
    let all = state.routers_as(Role::Edge).chain(peers);
    all.filter(move |router| peers::is_stitched(state, router, tenant))
}

/// Routers that speak with other domains for a tenant, or may come to.
pub(crate) fn outward<'a>(state: &'a State, tenant: &str) -> impl Iterator<Item = &'a Router> {
    let peers = state.by(&by::peer_of(tenant)).filter_map(as_router);
    state.routers_as(Role::Edge).chain(peers)
}

/// Whether a router keeps a table for a tenant, for its services or to pass its packets on.
pub(crate) fn concerns(state: &State, router: &Router, tenant: &str) -> bool {
    let attachment = key::attachment(tenant, &router.name);
    state.attachment(&attachment).is_some()
        || chains::has_node(state, tenant, &router.name)
        || peers::is_stitched(state, router, tenant)
}

/// The routers that labels of each VNI of a tenant may lead to, by name.
fn hosts<'a>(state: &'a State, tenant: &'a Tenant) -> BTreeMap<u32, BTreeMap<&'a str, &'a Router>> {
    let passing: Vec<&Router> = passing(state, &tenant.name).collect();
    let router = |name: &str| state.router(&key::router(name));
    let named = |routers: &mut dyn Iterator<Item = &'a Router>| -> BTreeMap<&'a str, &'a Router> {
        let all = routers.chain(passing.iter().copied());
        all.map(|router| (router.name.as_str(), router)).collect()
    };
    let attached = state.all_below(key::attachment(&tenant.name, ""));
    let mut attached = attached.filter_map(|one| match &one.record {
        Record::Attachment(one) => router(&one.router),
        _ => None,
    });
    let mut all = BTreeMap::from([(tenant.vni, named(&mut attached))]);
    for service in chains::services(state, &tenant.name) {
        let mut nodes = service
            .attachments
            .iter()
            .filter_map(|node| router(&node.router));
        all.insert(service.label, named(&mut nodes));
    }
    all
}

/// What the domain's routers are told of a tenant's.
pub(crate) fn told(state: &State, tenant: &Tenant) -> Origins {
    let hosts = hosts(state, tenant).into_iter().map(|(vni, routers)| {
        let mut told = Hosts {
            vni,
            ..Hosts::default()
        };
        for own in routers.values().filter_map(|one| one.registration.as_ref()) {
            match own.endpoint {
                IpAddr::V4(endpoint) if endpoint == own.router_id => {
                    told.addresses.push(endpoint.into());
                }
                endpoint => told.others.push(Host {
                    endpoint: match endpoint {
                        IpAddr::V4(one) => one.octets().to_vec(),
                        IpAddr::V6(one) => one.octets().to_vec(),
                    },
                    router_id: own.router_id.into(),
                }),
            }
        }
        told
    });
    Origins {
        hosts: hosts.collect(),
    }
}

/// What routers that speak with other domains are told of a tenant's there.
pub(crate) fn beyond(state: &State, tenant: &Tenant) -> Beyond {
    let manual = has_peers(state, &tenant.name);
    let domains: Vec<(&str, bool)> = exchanging(state).collect();
    let far = chains::vnis(state, tenant).map(|vni| {
        let (mut addresses, mut ids) = (BTreeSet::new(), BTreeSet::new());
        let mut open = manual;
        let theirs = domains.iter();
        for (domain, says) in theirs.filter(|(one, _)| peers::exchanges(state, one, tenant, vni)) {
            open |= !says;
            for said in said(state, domain, vni) {
                open |= said.open;
                addresses.extend(said.addresses.iter().copied().map(u32::from));
                ids.extend(said.ids.iter().copied().map(u32::from));
            }
        }
        Far {
            vni,
            addresses: addresses.into_iter().collect(),
            ids: ids.into_iter().collect(),
            open,
        }
    });
    Beyond { far: far.collect() }
}

/// An operator has entered neighbours in other domains by hand that may say anything of a tenant.
fn has_peers(state: &State, tenant: &str) -> bool {
    state.by(&by::peer_of(tenant)).next().is_some()
}

/// Trusted domains, and whether they say where labels lead to. One that has never been heard says nothing, and opens nothing.
fn exchanging(state: &State) -> impl Iterator<Item = (&str, bool)> {
    state.trusts().filter_map(|trust| {
        let remote = state.remote(&key::remote(&trust.name))?;
        Some((trust.name.as_str(), remote.origins))
    })
}

/// What a domain says of a VNI.
fn said<'a>(
    state: &'a State,
    domain: &str,
    vni: u32,
) -> impl Iterator<Item = &'a RemoteOrigins> + use<'a> {
    let records = state.all_below(key::remote_origins_of(domain, vni));
    records.filter_map(|one| match &one.record {
        Record::RemoteOrigins(one) => Some(one),
        _ => None,
    })
}

/// What another domain is told: of our routers, and of those of other domains whose packets come by us. The path says by whom, so that
/// nothing goes in circles. What one domain says of a third takes the place of nothing that another says of it: of each that tells
/// us, the shortest ways are told, [`MOST_WAYS`] of them. Not more than is taken there: our own first, and of what each of the others
/// says of a VNI the shortest ways. Gives how many are left out too.
pub(crate) fn public(state: &State, own: &str, domain: &str) -> (Vec<RemoteOrigins>, usize) {
    let (mut all, mut passed_on) = (Vec::new(), Vec::new());
    let others: Vec<(&str, bool, BTreeSet<u32>)> = exchanging(state)
        .filter(|(other, _)| *other != domain)
        .map(|(other, says)| (other, says, peers::vnis(state, other)))
        .collect();
    let shared = peers::vnis(state, domain);
    for tenant in peers::tenants(state, domain) {
        let hosts = hosts(state, tenant);
        for (vni, routers) in hosts.iter().filter(|(vni, _)| shared.contains(vni)) {
            let mut ours = RemoteOrigins {
                domain: own.to_owned(),
                vni: *vni,
                path: vec![own.to_owned()],
                addresses: Vec::new(),
                ids: Vec::new(),
                open: has_peers(state, &tenant.name),
            };
            let registered = routers.values();
            for one in registered.filter_map(|one| one.registration.as_ref()) {
                match endpoint(one) {
                    (address, true) => ours.addresses.push(address),
                    (id, false) => ours.ids.push(id),
                }
            }
            ours.addresses.sort_unstable();
            ours.ids.sort_unstable();
            let mut relayed: BTreeMap<(&str, &str), Vec<&RemoteOrigins>> = BTreeMap::new();
            for (other, says, _) in others.iter().filter(|(_, _, vnis)| vnis.contains(vni)) {
                ours.open |= !says;
                for said in said(state, other, *vni) {
                    if said.path.iter().any(|one| one == domain || one == own)
                        || said.path.len() >= LONGEST_PATH
                    {
                        continue;
                    }
                    let ways = relayed.entry((*other, said.origin())).or_default();
                    ways.push(said);
                }
            }
            all.push(ours);
            let mut by_teller: BTreeMap<&str, Vec<&RemoteOrigins>> = BTreeMap::new();
            for ((teller, _), mut ways) in relayed {
                ways.sort_by_key(|one| (one.path.len(), &one.path));
                ways.truncate(MOST_WAYS);
                by_teller.entry(teller).or_default().extend(ways);
            }
            for mut said in by_teller.into_values() {
                said.sort_by_key(|one| (one.path.len(), &one.path));
                passed_on.extend(said.into_iter().enumerate());
            }
        }
    }
    // One that says much takes nothing away from others that say little.
    passed_on.sort_by_key(|(rank, said)| (*rank, said.path.len(), said.vni, &said.path));
    all.extend(passed_on.into_iter().map(|(_, said)| {
        let mut path = said.path.clone();
        path.push(own.to_owned());
        RemoteOrigins {
            domain: own.to_owned(),
            path,
            ..said.clone()
        }
    }));
    let (before, mut counted) = (all.len(), Counted::default());
    all.retain(|one| {
        let endpoints = one.addresses.len() + one.ids.len();
        counted.add(one.vni, &one.path, endpoints).is_ok()
    });
    let left_out = before - all.len();
    (all, left_out)
}

/// What labels name an endpoint by, and whether that is its IPv4 address.
fn endpoint(own: &Registration) -> (Ipv4Addr, bool) {
    match own.endpoint {
        IpAddr::V4(address) => (address, true),
        IpAddr::V6(_) => (own.router_id, false),
    }
}
