//! Which routers may see something else after a change, and what of it.

use std::collections::{BTreeMap, BTreeSet};

use super::has_reflectors;
use crate::chains::view as chains;
use crate::model::{Change, Record, Revision, Role, Router, State, key};
use crate::origins;
use crate::state::{as_router, by};

/// Items of a router that may have changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Items {
    /// All of them.
    All,
    /// Those at these keys: `settings`, or of neighbours in the domain and of tenants.
    Some(BTreeSet<String>),
}

impl Default for Items {
    fn default() -> Self {
        Self::Some(BTreeSet::new())
    }
}

impl Items {
    fn add(&mut self, key: &str) {
        if let Self::Some(keys) = self {
            keys.insert(key.to_owned());
        }
    }

    fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    fn union(&self, other: &Self) -> Self {
        match (self, other) {
            (Self::Some(one), Self::Some(other)) => Self::Some(one | other),
            _ => Self::All,
        }
    }
}

/// Where labels may lead to, after a change of a router.
fn affected_origins(
    affected: &mut Affected,
    state: &State,
    name: &str,
    [old, new]: [&Option<Router>; 2],
) {
    let said = |one: &Option<Router>| {
        let one = one.as_ref()?;
        let own = one.registration.as_ref();
        let own = own.map(|own| (own.router_id, own.endpoint));
        Some((one.role, one.peers.clone(), own))
    };
    if said(old) == said(new) {
        return;
    }
    let here = state.by(&by::router(name));
    let here = here.filter_map(|one| match &one.record {
        Record::Attachment(attachment) => Some(attachment.tenant.clone()),
        Record::Service(service) => Some(service.tenant.clone()),
        _ => None,
    });
    let mut tenants: BTreeSet<String> = here.collect();
    let both = || [old, new].into_iter().flatten();
    let peers = both().flat_map(|one| &one.peers);
    tenants.extend(peers.flat_map(|peer| peer.tenants.clone()));
    for tenant in tenants {
        affected.origins(state, &tenant, name);
        affected.item(name, &format!("beyond/{tenant}"));
    }
    if both().any(|one| one.role == Role::Edge) {
        for trust in state.trusts() {
            affected.exchanged(state, &trust.name);
        }
    }
}

/// Who may see something else after some revisions, and what of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Affected {
    everybody: Items,
    routers: BTreeMap<String, Items>,
}

impl Affected {
    /// Everybody, by everything.
    pub fn all() -> Self {
        Self {
            everybody: Items::All,
            routers: BTreeMap::new(),
        }
    }

    /// By these revisions; `state` is how it is after them.
    pub fn by(revisions: &[Revision], state: &State) -> Self {
        let mut affected = Self::default();
        for change in revisions.iter().flat_map(|revision| &revision.changes) {
            let mut parts = change.key.split('/');
            let (kind, first, second) = (parts.next(), parts.next(), parts.next());
            match (kind, first, second) {
                (Some("domain"), ..) => return Self::all(),
                (Some("router"), Some(name), _) => affected.by_router(state, name, change),
                (Some("attachment"), Some(tenant), Some(router)) => {
                    affected.item(router, &format!("tenant/{tenant}"));
                    affected.origins(state, tenant, router);
                }
                (
                    Some("trust" | "remote-router" | "remote-tenant" | "remote-service"),
                    Some(domain),
                    _,
                ) => {
                    affected.edges(state);
                    affected.exchanged(state, domain);
                }
                (Some("remote"), Some(domain), _) => affected.by_remote(state, domain, change),
                (Some("remote-origins"), _, Some(vni)) => affected.beyond(state, vni),
                (Some("share"), Some(_), Some(tenant)) => {
                    affected.edges(state);
                    affected.tenant(state, tenant);
                    affected.origins(state, tenant, "");
                }
                (Some("session-key"), Some(one), Some(other)) => {
                    affected.item(one, &format!("key/{other}"));
                    affected.item(other, &format!("key/{one}"));
                }
                (Some("grant"), Some(_), Some(router)) => affected.item(router, "settings"),
                (Some("chain"), Some(tenant), _) => affected.tenant(state, tenant),
                (Some("service" | "tenant"), Some(tenant), _) => {
                    affected.tenant(state, tenant);
                    affected.origins(state, tenant, "");
                    for record in [&change.old, &change.new] {
                        if let Some(Record::Service(one)) = record {
                            for node in &one.attachments {
                                affected.item(&node.router, &format!("tenant/{tenant}"));
                                affected.origins(state, tenant, &node.router);
                            }
                        }
                    }
                    // Labels that neighbours may send.
                    if state.trusts().next().is_some() {
                        affected.edges(state);
                    }
                    for router in state.by(&by::peer_of(tenant)).filter_map(as_router) {
                        affected.whole(&router.name);
                    }
                }
                _ => {}
            }
        }
        affected
    }

    fn by_router(&mut self, state: &State, name: &str, change: &Change) {
        let router = |record: &'_ Option<Record>| match record {
            Some(Record::Router(router)) => Some(router.clone()),
            _ => None,
        };
        let (old, new) = (router(&change.old), router(&change.new));
        let was =
            |one: &Option<Router>| one.as_ref().is_some_and(|one| one.role == Role::Reflector);
        // With the first reflector, or without the last one, everybody speaks with others.
        if was(&old) != was(&new) {
            self.everybody = Items::All;
        }
        for key in [format!("neighbor/{name}"), format!("key/{name}")] {
            match was(&new) || !has_reflectors(state) {
                true => self.everybody.add(&key),
                false => {
                    for reflector in state.routers_as(Role::Reflector) {
                        self.item(&reflector.name, &key);
                    }
                }
            }
        }
        // Addresses that no other domain's edge may have.
        let own = |one: &Option<Router>| one.as_ref()?.registration.clone();
        if own(&old) != own(&new) && state.trusts().next().is_some() {
            self.edges(state);
        }
        affected_origins(self, state, name, [&old, &new]);
        let seen = |one: &Option<Router>| {
            let one = one.as_ref()?;
            let known = one.registration.is_some();
            known.then(|| (one.role, one.peers.clone(), one.external_address))
        };
        // What it says of itself is in its settings; what it sees of others stays.
        match seen(&old) == seen(&new) {
            true => self.item(name, "settings"),
            false => self.whole(name),
        }
    }

    /// Where a tenant's labels may lead to, at all routers that are told, and at one that was.
    fn origins(&mut self, state: &State, tenant: &str, former: &str) {
        let key = format!("origins/{tenant}");
        let here = chains::routers(state, tenant);
        let here = here.iter().map(String::as_str).chain([former]);
        for router in here.filter(|router| !router.is_empty()) {
            self.item(router, &key);
        }
        let beyond = format!("beyond/{tenant}");
        for router in origins::outward(state, tenant) {
            self.item(&router.name, &key);
            self.item(&router.name, &beyond);
        }
    }

    /// The same of all tenants whose packets go over to a domain, or did.
    fn exchanged(&mut self, state: &State, domain: &str) {
        let shared = state.all_below(key::share(domain, ""));
        let taken = state.by(&by::home(domain));
        let names = shared.chain(taken).filter_map(|one| match &one.record {
            Record::Share(share) => Some(share.tenant.as_str()),
            Record::Tenant(tenant) => Some(tenant.name.as_str()),
            _ => None,
        });
        for tenant in names {
            self.origins(state, tenant, "");
        }
    }

    /// What another domain says of a VNI.
    fn beyond(&mut self, state: &State, vni: &str) {
        let Ok(vni) = vni.parse() else { return };
        for one in state.by(&by::number(vni)) {
            let tenant = match &one.record {
                Record::Tenant(tenant) => &tenant.name,
                Record::Service(service) => &service.tenant,
                _ => continue,
            };
            for router in origins::outward(state, tenant) {
                self.item(&router.name, &format!("beyond/{tenant}"));
            }
        }
    }

    /// Another domain says, or says no longer, where labels may lead to there.
    fn by_remote(&mut self, state: &State, domain: &str, change: &Change) {
        let says = |record: &Option<Record>| match record {
            Some(Record::Remote(remote)) => Some(remote.origins),
            _ => None,
        };
        if says(&change.old) != says(&change.new) {
            self.exchanged(state, domain);
        }
    }

    /// A tenant's item at all routers that have one.
    fn tenant(&mut self, state: &State, tenant: &str) {
        let key = format!("tenant/{tenant}");
        for router in chains::routers(state, tenant) {
            self.item(&router, &key);
        }
        let peers = state.by(&by::peer_of(tenant)).filter_map(as_router);
        let edges = state.routers_as(Role::Edge);
        for router in peers.chain(edges) {
            self.item(&router.name, &key);
        }
    }

    fn edges(&mut self, state: &State) {
        for edge in state.routers_as(Role::Edge) {
            self.whole(&edge.name);
        }
    }

    fn whole(&mut self, router: &str) {
        self.routers.insert(router.to_owned(), Items::All);
    }

    fn item(&mut self, router: &str, key: &str) {
        match self.routers.get_mut(router) {
            Some(items) => items.add(key),
            None => {
                let items = Items::Some(BTreeSet::from([key.to_owned()]));
                self.routers.insert(router.to_owned(), items);
            }
        }
    }

    /// Whether it is not known who may see what else.
    pub fn is_all(&self) -> bool {
        self.everybody == Items::All
    }

    /// Whether every router may see something else.
    pub fn is_everybody(&self) -> bool {
        !self.everybody.is_empty()
    }

    /// The routers that may see more than what everybody may see changed.
    pub fn routers(&self) -> impl Iterator<Item = &str> {
        self.routers.keys().map(String::as_str)
    }

    /// What a router may see changed; `None` where that is nothing.
    pub fn items(&self, router: &str) -> Option<Items> {
        match self.routers.get(router) {
            Some(items) => Some(self.everybody.union(items)),
            None => self.is_everybody().then(|| self.everybody.clone()),
        }
    }
}
