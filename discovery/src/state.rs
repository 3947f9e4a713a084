//! All records of a domain at a revision, and what they are looked up by.
//!
//! The maps share what has not changed with those of other revisions (persistent red-black trees): a copy costs nothing, and a change
//! costs the logarithm of their size, in time and in memory. What is looked up by something else than a key is in an index that changes
//! with the records, so that no change looks at records that it does not concern.

use std::ops::{Bound, RangeBounds};
use std::sync::Arc;

use rpds::RedBlackTreeMapSync;

use crate::model::{
    Attachment, Chain, Domain, Grant, Quota, Record, Remote, RemoteRouter, RemoteService,
    RemoteTenant, Request, Revision, Role, Router, Scope, Service, SessionKey, Share, Tenant,
    Token, Trust, Versioned, VniUse, key,
};

/// Records by key, or by what they are looked up by.
type Map = RedBlackTreeMapSync<Arc<str>, Arc<Versioned>>;

/// Everything that a domain is at a revision; cheap to clone.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct State {
    /// The revision, from 1; 0 where there is nothing.
    pub revision: u64,
    records: Map,
    /// By an entry of [`by`] with the record's key behind it.
    index: Map,
    /// How many records there are, by what their keys begin with, up to each `/`.
    tallies: RedBlackTreeMapSync<Arc<str>, Tally>,
    /// The first VNI of the domain's range that has no record: nobody ever had it.
    unused_vni: u32,
}

/// Records whose keys begin with the same.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// How many.
    pub count: usize,
    /// What they hold, where that is counted: octets of the answers of requests.
    pub octets: usize,
}

/// What records are looked up by, beside their keys.
pub(crate) mod by {
    use std::net::{IpAddr, Ipv4Addr};

    use crate::model::Role;

    /// Routers by what they are in the mesh.
    pub(crate) fn role(role: Role) -> String {
        format!("role/{role}")
    }

    /// Routers by BGP Identifier.
    pub(crate) fn router_id(id: Ipv4Addr) -> String {
        format!("router-id/{id}")
    }

    /// Routers by where their neighbours connect to.
    pub(crate) fn bgp_address(address: IpAddr) -> String {
        format!("bgp-address/{address}")
    }

    /// Routers by where their tunnels end.
    pub(crate) fn endpoint(address: IpAddr) -> String {
        format!("endpoint/{address}")
    }

    /// Routers with a peer that a tenant is shared with.
    pub(crate) fn peer_of(tenant: &str) -> String {
        format!("peer/{tenant}")
    }

    /// Attachments, services and grants at a router.
    pub(crate) fn router(router: &str) -> String {
        format!("at/{router}")
    }

    /// Keys of the sessions of a router.
    pub(crate) fn session_keys(router: &str) -> String {
        format!("session-keys/{router}")
    }

    /// Attachments and services that have an interface.
    pub(crate) fn interface(router: &str, interface: &str) -> String {
        format!("interface/{router}/{interface}")
    }

    /// Tenants, services, and those of other domains that have a number as VNI or label.
    pub(crate) fn number(number: u32) -> String {
        format!("number/{number:08}")
    }

    /// Tenants whose VNI a domain gave.
    pub(crate) fn home(domain: &str) -> String {
        format!("home/{domain}")
    }

    /// VNIs that nobody has, the one that has rested longest first.
    pub(crate) const RESTING: &str = "resting";

    /// One of them.
    pub(super) fn resting(free_at: u64) -> String {
        format!("{RESTING}/{free_at:020}")
    }

    /// VNIs that nobody has since a service of a tenant had them, by when they may be given again.
    pub(crate) fn rested(tenant: &str) -> String {
        format!("rested/{tenant}")
    }

    /// Tokens of a tenant's administrators.
    pub(crate) fn token_of(tenant: &str) -> String {
        format!("token/{tenant}")
    }

    /// Domains that a tenant is shared with.
    pub(crate) fn shared(tenant: &str) -> String {
        format!("shared/{tenant}")
    }

    /// Answered requests, the oldest first.
    pub(crate) const ASKED: &str = "asked";

    /// One of them.
    pub(super) fn asked(at: u64) -> String {
        format!("{ASKED}/{at:020}")
    }

    /// Answered requests of one who asks, the oldest first.
    pub(crate) fn asked_by(actor: &str) -> String {
        format!("asked-by/{actor}")
    }
}

/// Calls `with` for each entry that a record is looked up by.
fn entries(record: &Record, mut with: impl FnMut(String)) {
    match record {
        Record::Router(router) => {
            with(by::role(router.role));
            if let Some(own) = &router.registration {
                with(by::router_id(own.router_id));
                with(by::bgp_address(own.bgp_address));
                with(by::endpoint(own.endpoint));
            }
            let tenants = router.peers.iter().flat_map(|peer| &peer.tenants);
            tenants.for_each(|tenant| with(by::peer_of(tenant)));
        }
        Record::Tenant(tenant) => {
            with(by::number(tenant.vni));
            tenant.home.iter().for_each(|home| with(by::home(home)));
        }
        Record::Attachment(one) => {
            with(by::router(&one.router));
            let interfaces = one.interfaces.iter();
            interfaces.for_each(|name| with(by::interface(&one.router, name)));
        }
        Record::Service(service) => {
            with(by::number(service.label));
            for node in &service.attachments {
                with(by::router(&node.router));
                for name in node.interfaces() {
                    with(by::interface(&node.router, name));
                }
            }
        }
        Record::Vni(one) if one.tenant.is_none() => {
            with(by::resting(one.free_at));
            if let Some(tenant) = &one.last {
                with(format!("{}/{:020}", by::rested(tenant), one.free_at));
            }
        }
        Record::Token(token) => {
            if let Scope::Tenant { tenant } = &token.scope {
                with(by::token_of(tenant));
            }
        }
        Record::Grant(grant) => with(by::router(&grant.router)),
        Record::SessionKey(one) => {
            let routers = one.routers.iter();
            routers.for_each(|router| with(by::session_keys(router)));
        }
        Record::Share(share) => with(by::shared(&share.tenant)),
        Record::RemoteTenant(tenant) => with(by::number(tenant.vni)),
        Record::RemoteRouter(router) => with(by::bgp_address(router.bgp_address)),
        Record::RemoteService(service) => with(by::number(service.label)),
        Record::Request(request) => {
            with(by::asked(request.at));
            with(format!(
                "{}/{:020}",
                by::asked_by(&request.actor),
                request.at
            ));
        }
        _ => {}
    }
}

/// Octets that a record is counted with.
fn octets(record: &Record) -> usize {
    match record {
        Record::Request(request) => request.octets(),
        _ => 0,
    }
}

/// What a key begins with, up to each `/`.
fn families(key: &str) -> impl Iterator<Item = &str> {
    key.match_indices('/').map(|(at, _)| &key[..=at])
}

/// All from one on.
struct Onwards(String);

impl RangeBounds<str> for Onwards {
    fn start_bound(&self) -> Bound<&str> {
        Bound::Included(&self.0)
    }

    fn end_bound(&self) -> Bound<&str> {
        Bound::Unbounded
    }
}

/// What begins with a prefix, in order.
fn below<'a>(map: &'a Map, prefix: &'a str) -> impl Iterator<Item = (&'a str, &'a Arc<Versioned>)> {
    let from: (Bound<&str>, Bound<&str>) = (Bound::Included(prefix), Bound::Unbounded);
    let range = map.range::<str, _>(from);
    range
        .take_while(move |(key, _)| key.starts_with(prefix))
        .map(|(key, one)| {
            visited::one();
            (&**key, one)
        })
}

macro_rules! records {
    ($($one:ident $all:ident $kind:ident $prefix:literal)*) => {$(
        /// One of them.
        pub fn $one(&self, key: &str) -> Option<&$kind> {
            match &self.get(key)?.record {
                Record::$kind(record) => Some(record),
                _ => None,
            }
        }

        /// All of them, by key.
        pub fn $all(&self) -> impl Iterator<Item = &$kind> {
            self.below($prefix).filter_map(|(_, each)| match &each.record {
                Record::$kind(record) => Some(record),
                _ => None,
            })
        }
    )*};
}

impl State {
    /// One of these records at this revision.
    pub fn new(revision: u64, records: impl IntoIterator<Item = Versioned>) -> Self {
        let mut state = Self {
            revision,
            ..Self::default()
        };
        for one in records {
            state.put(&one.record.key(), one);
        }
        state.count_unused(std::iter::empty());
        state
    }

    /// The record at a key.
    pub fn get(&self, key: &str) -> Option<&Versioned> {
        visited::one();
        self.records.get(key).map(Arc::as_ref)
    }

    /// Records whose keys begin so, by key.
    pub fn below<'a>(&'a self, prefix: &'a str) -> impl Iterator<Item = (&'a str, &'a Versioned)> {
        below(&self.records, prefix).map(|(key, one)| (key, one.as_ref()))
    }

    /// The same, without their keys.
    pub fn all_below(&self, prefix: String) -> impl Iterator<Item = &Versioned> + use<'_> {
        let range = self.records.range::<str, _>(Onwards(prefix.clone()));
        range
            .take_while(move |(key, _)| key.starts_with(&prefix))
            .map(|(_, one)| {
                visited::one();
                one.as_ref()
            })
    }

    /// Records that are looked up by an entry of [`by`], in the order of what is behind it there, then by key.
    pub(crate) fn by(&self, entry: &str) -> impl Iterator<Item = &Versioned> + use<'_> {
        self.by_from(entry, "")
    }

    /// The same, from what is behind it on.
    pub(crate) fn by_from(
        &self,
        entry: &str,
        from: &str,
    ) -> impl Iterator<Item = &Versioned> + use<'_> {
        let prefix = format!("{entry}/");
        let range = self.index.range::<str, _>(Onwards(prefix.clone() + from));
        range
            .take_while(move |(key, _)| key.starts_with(&prefix))
            .map(|(_, one)| {
                visited::one();
                one.as_ref()
            })
    }

    /// How many records there are whose keys begin with this, which ends with `/`.
    pub fn tally(&self, family: &str) -> Tally {
        self.tallies.get(family).copied().unwrap_or_default()
    }

    /// The domain.
    pub fn domain(&self) -> Option<&Domain> {
        match &self.get(key::DOMAIN)?.record {
            Record::Domain(domain) => Some(domain),
            _ => None,
        }
    }

    records! {
        router routers Router "router/"
        tenant tenants Tenant "tenant/"
        attachment attachments Attachment "attachment/"
        token tokens Token "token/"
        request requests Request "request/"
        trust trusts Trust "trust/"
        share shares Share "share/"
        remote remotes Remote "remote/"
        remote_router remote_routers RemoteRouter "remote-router/"
        remote_tenant remote_tenants RemoteTenant "remote-tenant/"
        service services Service "service/"
        chain chains Chain "chain/"
        quota quotas Quota "quota/"
        grant grants Grant "grant/"
        session_key session_keys SessionKey "session-key/"
        remote_service remote_services RemoteService "remote-service/"
    }

    /// What a VNI of the domain's range is used for.
    pub fn vni(&self, number: u32) -> Option<&VniUse> {
        match &self.get(&key::vni(number))?.record {
            Record::Vni(each) => Some(each),
            _ => None,
        }
    }

    /// The first VNI of the domain's range that nobody ever had; one behind it where all have been given.
    pub fn unused_vni(&self) -> u32 {
        self.unused_vni
    }

    /// Routers with a role, by name.
    pub fn routers_as(&self, role: Role) -> impl Iterator<Item = &Router> {
        self.by(&by::role(role)).filter_map(as_router)
    }

    pub(crate) fn apply(&mut self, revision: &Revision) {
        self.revision = revision.number;
        for change in &revision.changes {
            match &change.new {
                Some(record) => {
                    let versioned = Versioned {
                        record: record.clone(),
                        modified: revision.number,
                    };
                    self.put(&change.key, versioned);
                }
                None => self.remove(&change.key),
            }
        }
        let removed = revision.changes.iter().filter(|one| one.new.is_none());
        let removed = removed.filter_map(|one| one.key.strip_prefix("vni/")?.parse().ok());
        self.count_unused(removed);
    }

    /// Looks for the first unused VNI, from the former one on, or from one whose record has been removed: each is passed once.
    fn count_unused(&mut self, removed: impl Iterator<Item = u32>) {
        let Some(first) = self.domain().map(|domain| domain.first_vni) else {
            return;
        };
        let mut next = self.unused_vni.max(first);
        next = removed
            .filter(|number| *number >= first)
            .fold(next, u32::min);
        while self.get(&key::vni(next)).is_some() {
            next += 1;
        }
        self.unused_vni = next;
    }

    fn put(&mut self, key: &str, record: Versioned) {
        self.remove(key);
        let (key, record): (Arc<str>, _) = (key.into(), Arc::new(record));
        entries(&record.record, |entry| {
            let entry = format!("{entry}/{key}");
            self.index.insert_mut(entry.into(), record.clone());
        });
        self.tell(&key, |tally| {
            tally.count += 1;
            tally.octets += octets(&record.record);
        });
        self.records.insert_mut(key, record);
    }

    fn remove(&mut self, key: &str) {
        let Some(old) = self.records.get(key).cloned() else {
            return;
        };
        entries(&old.record, |entry| {
            self.index.remove_mut(format!("{entry}/{key}").as_str());
        });
        self.tell(key, |tally| {
            tally.count -= 1;
            tally.octets -= octets(&old.record);
        });
        self.records.remove_mut(key);
    }

    fn tell(&mut self, key: &str, change: impl Fn(&mut Tally)) {
        for family in families(key) {
            let mut tally = self.tally(family);
            change(&mut tally);
            match tally.count {
                0 => drop(self.tallies.remove_mut(family)),
                _ => self.tallies.insert_mut(family.into(), tally),
            }
        }
    }
}

/// The edge of another domain that a record is.
pub(crate) fn as_edge(one: &Versioned) -> Option<&RemoteRouter> {
    match &one.record {
        Record::RemoteRouter(router) => Some(router),
        _ => None,
    }
}

/// The router of a record.
pub(crate) fn as_router(one: &Versioned) -> Option<&Router> {
    match &one.record {
        Record::Router(router) => Some(router),
        _ => None,
    }
}

/// Records that were looked at by this thread, for tests that count work instead of time.
pub(crate) mod visited {
    #[cfg(test)]
    thread_local! {
        static COUNT: std::cell::Cell<u64> = const { std::cell::Cell::new(0) };
    }

    #[inline]
    pub(super) fn one() {
        #[cfg(test)]
        COUNT.with(|count| count.set(count.get() + 1));
    }

    /// How many `work` looks at.
    #[cfg(test)]
    pub(crate) fn during<T>(work: impl FnOnce() -> T) -> (T, u64) {
        let before = COUNT.with(std::cell::Cell::get);
        let done = work();
        (done, COUNT.with(std::cell::Cell::get) - before)
    }
}
