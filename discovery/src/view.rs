//! What one router sees of its domain: items that change one by one.

mod affected;

use std::collections::{BTreeMap, BTreeSet, HashMap};

pub use self::affected::{Affected, Items};
use crate::chains::view as chains;
use crate::exchange::peers;
use crate::model::{Domain, Record, Registration, Role, Router, SiteNeighbor, State, key};
use crate::proto::{self, Item, Neighbor, Settings, Tenant, Update, item};
use crate::state::by;
use crate::{grants, origins, session_keys};

/// Items by key: `settings`, `neighbor/NAME`, `peer/NAME`, `peer/DOMAIN/NAME`, `key/NAME`, `tenant/NAME`, `origins/TENANT`, `beyond/TENANT`.
pub type View = BTreeMap<String, Item>;

/// Octets of a message to a router: with 4,000 tenants at 2,000 routers each a view has half of that.
pub(crate) const LARGEST: usize = 64 << 20;

/// What a copy of an item is compared by.
pub fn digest(item: &impl prost::Message) -> u64 {
    let digest = ring::digest::digest(&ring::digest::SHA256, &item.encode_to_vec());
    let octets = digest.as_ref().first_chunk::<8>();
    octets.map_or(0, |octets| u64::from_be_bytes(*octets))
}

/// The digests of a view.
pub fn digests<I: prost::Message>(view: &BTreeMap<String, I>) -> BTreeMap<String, u64> {
    let items = view.iter();
    items
        .map(|(key, item)| (key.clone(), digest(item)))
        .collect()
}

/// Items at one revision that are the same for all routers that see them, with their digests: made once, however many these are.
#[derive(Default)]
pub struct Common(HashMap<String, Option<(Item, u64)>>);

impl Common {
    fn get(&mut self, key: &str, make: impl FnOnce() -> Option<Item>) -> Option<(Item, u64)> {
        if let Some(known) = self.0.get(key) {
            return known.clone();
        }
        let made = make().map(|item| {
            let digest = digest(&item);
            (item, digest)
        });
        self.0.insert(key.to_owned(), made.clone());
        made
    }
}

/// A router that is told what it sees.
#[derive(Clone, Copy, Debug)]
pub struct Reader<'a> {
    /// Its name.
    pub name: &'a str,
    /// It checks who announces labels, and is told who may.
    pub origins: bool,
    /// It signs its sessions, and is told with which keys.
    pub session_keys: bool,
}

/// One router and its domain, made ready for the items that it sees.
struct Viewer<'a> {
    state: &'a State,
    domain: &'a Domain,
    router: &'a Router,
    own: &'a Registration,
    origins: bool,
    session_keys: bool,
}

impl<'a> Viewer<'a> {
    /// `None` where there is no such router, or it has not registered.
    fn new(state: &'a State, reader: Reader<'_>) -> Option<Self> {
        let router = state.router(&key::router(reader.name))?;
        Some(Self {
            state,
            domain: state.domain()?,
            router,
            own: router.registration.as_ref()?,
            origins: reader.origins,
            session_keys: reader.session_keys,
        })
    }

    fn settings(&self) -> Item {
        let (domain, router) = (self.domain, self.router);
        as_item(item::Item::Settings(Settings {
            domain: domain.name.clone(),
            asn: domain.asn,
            global_administrator: domain.global_administrator,
            router_id: self.own.router_id.to_string(),
            role: router.role.to_string(),
            hold_time: domain.hold_time.into(),
            origins: self.origins,
            granted: grants::at(self.state, &router.name).into_iter().collect(),
        }))
    }

    /// It speaks with all others: as a reflector, or where there are none.
    fn speaks_with_all(&self) -> bool {
        self.router.role == Role::Reflector || !has_reflectors(self.state)
    }

    /// Another router as a neighbour of this one. `held` says that this one knows it: one whose lease has run out stays with those.
    fn neighbor(&self, other: &Router, held: bool) -> Option<Item> {
        let speaks = self.speaks_with_all() || other.role == Role::Reflector;
        if other.name == self.router.name || !speaks || (other.expired && !held) {
            return None;
        }
        let reflects = self.router.role == Role::Reflector && other.role != Role::Reflector;
        let own = other.registration.as_ref()?;
        let alone = other.role == Role::Router;
        let (endpoint, router_id) = match alone {
            true => (own.endpoint.to_string(), own.router_id.to_string()),
            false => (String::new(), String::new()),
        };
        Some(as_item(item::Item::Neighbor(Neighbor {
            name: other.name.clone(),
            address: own.bgp_address.to_string(),
            asn: self.domain.asn,
            route_reflector_client: reflects,
            endpoint,
            router_id,
            ..Neighbor::default()
        })))
    }

    /// What the session with another router is signed with.
    fn session_key(&self, other: &Router, held: bool) -> Option<Item> {
        if !self.session_keys {
            return None;
        }
        self.neighbor(other, held)?;
        let told = session_keys::told(self.state, &self.router.name, other)?;
        Some(as_item(item::Item::SessionKey(told)))
    }

    fn neighbors(&self, held: &dyn Fn(&str) -> bool, view: &mut View) {
        let mut add = |other: &Router| {
            let key = format!("neighbor/{}", other.name);
            if let Some(item) = self.neighbor(other, held(&key)) {
                let known = held(&key);
                view.insert(key, item);
                if let Some(item) = self.session_key(other, known) {
                    view.insert(format!("key/{}", other.name), item);
                }
            }
        };
        match self.speaks_with_all() {
            true => self.state.routers().for_each(&mut add),
            false => self.state.routers_as(Role::Reflector).for_each(&mut add),
        }
    }

    fn peers(&self, held: &dyn Fn(&str) -> bool, view: &mut View) {
        for peer in &self.router.peers {
            let neighbor = Neighbor {
                name: peer.name.clone(),
                address: peer.address.to_string(),
                asn: peer.asn,
                accept_vnis: vnis(self.state, &peer.tenants),
                ttl: peer.ttl.into(),
                external: true,
                ..Neighbor::default()
            };
            let item = as_item(item::Item::Neighbor(neighbor));
            view.insert(format!("peer/{}", peer.name), item);
        }
        for (key, neighbor) in peers::neighbors(self.state, self.router, self.own, held) {
            view.insert(key, as_item(item::Item::Neighbor(neighbor)));
        }
    }

    /// Names of the tenants of which it may see something.
    fn tenants(&self) -> BTreeSet<&'a str> {
        let here = self.state.by(&by::router(&self.router.name));
        let here = here.filter_map(|one| match &one.record {
            Record::Attachment(attachment) => Some(attachment.tenant.as_str()),
            Record::Service(service) => Some(service.tenant.as_str()),
            _ => None,
        });
        let mut names: BTreeSet<&str> = here.collect();
        names.extend(peers::stitched(self.state, self.router));
        names
    }

    /// A tenant, where it is attached here. Where only a node of its services is, or a choice between their routers, it has nothing
    /// else.
    fn tenant(&self, name: &str) -> Option<Item> {
        let (state, router) = (self.state, &self.router.name);
        let tenant = state.tenant(&key::tenant(name))?;
        let attachment = state.attachment(&key::attachment(name, router));
        let here = attachment.is_some() || chains::has_node(state, name, router);
        let passes = || peers::is_stitched(state, self.router, name) && chains::choose(state, name);
        if !here && !passes() {
            return None;
        }
        let mut told = Tenant {
            name: tenant.name.clone(),
            vni: tenant.vni,
            ..Tenant::default()
        };
        if let Some(attachment) = attachment {
            told.interfaces.clone_from(&attachment.interfaces);
            let prefixes = attachment.prefixes.iter();
            told.prefixes = prefixes.map(ToString::to_string).collect();
            told.redistribute.clone_from(&attachment.redistribute);
            let neighbors = attachment.neighbors.iter();
            told.neighbors = neighbors.map(site_neighbor).collect();
            told.breakout = attachment.breakout.as_ref().map(|one| proto::Breakout {
                interface: one.interface.clone(),
                source_nat: one.source_nat,
            });
        }
        chains::tell(state, tenant, router, &mut told);
        Some(as_item(item::Item::Tenant(told)))
    }

    /// Where the labels of a tenant may lead to, in this domain or beyond; for a router that keeps a table for it.
    fn origins(&self, at: &str, common: &mut Common) -> Option<(Item, u64)> {
        let (kind, name) = at.split_once('/')?;
        let (state, router) = (self.state, self.router);
        let beyond = kind == "beyond";
        if !self.origins
            || !origins::concerns(state, router, name)
            || (beyond && !peers::is_stitched(state, router, name))
        {
            return None;
        }
        common.get(at, || {
            let tenant = state.tenant(&key::tenant(name))?;
            Some(as_item(match beyond {
                false => item::Item::Origins(origins::told(state, tenant)),
                true => item::Item::Beyond(origins::beyond(state, tenant)),
            }))
        })
    }

    /// The item at a key: settings, a neighbour in the domain, a tenant, where its labels may lead to; with its digest. `held` says that
    /// the router has it now.
    fn item(&self, at: &str, held: bool, common: &mut Common) -> Option<(Item, u64)> {
        let item = match at.split_once('/') {
            Some(("neighbor", name)) => {
                let other = self.state.router(&key::router(name))?;
                self.neighbor(other, held)
            }
            Some(("key", name)) => {
                let other = self.state.router(&key::router(name))?;
                self.session_key(other, held)
            }
            Some(("tenant", name)) => self.tenant(name),
            Some(("origins" | "beyond", _)) => return self.origins(at, common),
            None if at == "settings" => Some(self.settings()),
            _ => None,
        };
        item.map(|item| {
            let digest = digest(&item);
            (item, digest)
        })
    }
}

fn as_item(item: item::Item) -> Item {
    Item { item: Some(item) }
}

fn has_reflectors(state: &State) -> bool {
    state.routers_as(Role::Reflector).next().is_some()
}

/// What a router sees, `None` where there is no such router, or it has not registered. `held` says whether it has an item
/// now: a router whose lease has run out stays with those that know it.
pub fn view(
    state: &State,
    reader: Reader<'_>,
    held: &dyn Fn(&str) -> bool,
    common: &mut Common,
) -> Option<View> {
    let viewer = Viewer::new(state, reader)?;
    let mut view = View::new();
    view.insert("settings".into(), viewer.settings());
    viewer.neighbors(held, &mut view);
    viewer.peers(held, &mut view);
    for name in viewer.tenants() {
        if let Some(item) = viewer.tenant(name) {
            view.insert(format!("tenant/{name}"), item);
        }
        for key in [format!("origins/{name}"), format!("beyond/{name}")] {
            if let Some((item, _)) = viewer.origins(&key, common) {
                view.insert(key, item);
            }
        }
    }
    Some(view)
}

/// What has to be sent to a router that holds items with these digests, where these items may have changed; `None` as in [`view`].
pub fn update(
    state: &State,
    reader: Reader<'_>,
    held: &BTreeMap<String, u64>,
    items: &Items,
    common: &mut Common,
) -> Option<Update> {
    let keys = match items {
        Items::All => {
            let view = view(state, reader, &|key| held.contains_key(key), common)?;
            return Some(difference(state.revision, held, &view));
        }
        Items::Some(keys) => keys,
    };
    let viewer = Viewer::new(state, reader)?;
    let mut update = Update {
        revision: state.revision,
        ..Update::default()
    };
    for key in keys {
        let before = held.get(key).copied();
        match viewer.item(key, before.is_some(), common) {
            Some((item, digest)) if before != Some(digest) => {
                update.put.insert(key.clone(), item);
            }
            None if before.is_some() => update.removed.push(key.clone()),
            _ => {}
        }
    }
    Some(update)
}

fn site_neighbor(one: &SiteNeighbor) -> proto::SiteNeighbor {
    proto::SiteNeighbor {
        address: one.address.to_string(),
        asn: one.asn,
        as_override: one.as_override,
        description: one.description.clone(),
        ttl: one.ttl.map(u32::from),
        max_prefixes: one.max_prefixes,
    }
}

/// The VNIs of tenants, sorted.
fn vnis(state: &State, tenants: &[String]) -> Vec<u32> {
    let tenants = tenants.iter();
    let tenants = tenants.filter_map(|name| state.tenant(&key::tenant(name)));
    let vnis: BTreeSet<u32> = tenants
        .flat_map(|tenant| chains::vnis(state, tenant))
        .collect();
    vnis.into_iter().collect()
}

/// What has to be sent to a router that holds items with these digests.
pub fn difference(revision: u64, held: &BTreeMap<String, u64>, view: &View) -> Update {
    let (put, removed) = differing(held, view);
    Update {
        revision,
        put,
        removed,
    }
}

/// Items that somebody lacks who holds others with these digests, and keys of those that are too many.
pub fn differing<I: prost::Message + Clone>(
    held: &BTreeMap<String, u64>,
    view: &BTreeMap<String, I>,
) -> (BTreeMap<String, I>, Vec<String>) {
    let changed = view
        .iter()
        .filter(|(key, item)| held.get(*key) != Some(&digest(*item)));
    let put = changed.map(|(key, item)| (key.clone(), item.clone()));
    let removed = held.keys().filter(|key| !view.contains_key(*key));
    (put.collect(), removed.cloned().collect())
}
