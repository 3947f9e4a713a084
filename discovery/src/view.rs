//! What one router sees of its domain: items that change one by one.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use crate::chains::view::{self as chains, Chains};
use crate::exchange::peers;
use crate::model::{Attachment, Revision, Role, Router, SiteNeighbor, State};
use crate::proto::{self, Item, Neighbor, Settings, Tenant, Update, item};

/// Items by key: `settings`, `neighbor/NAME`, `peer/NAME`, `peer/DOMAIN/NAME`, `tenant/NAME`.
pub type View = BTreeMap<String, Item>;

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

fn has_reflectors(state: &State) -> bool {
    state.routers().any(|router| router.role == Role::Reflector)
}

fn edges(state: &State) -> impl Iterator<Item = String> {
    let edges = state.routers().filter(|router| router.role == Role::Edge);
    edges.map(|router| router.name.clone())
}

/// A domain, made ready for many views.
pub struct Index<'a> {
    state: &'a State,
    reflectors: Vec<&'a Router>,
    attachments: HashMap<&'a str, Vec<&'a Attachment>>,
    chains: Chains<'a>,
}

impl<'a> Index<'a> {
    /// Of this state.
    pub fn new(state: &'a State) -> Self {
        let reflectors = state.routers().filter(|one| one.role == Role::Reflector);
        let mut attachments: HashMap<&str, Vec<&Attachment>> = HashMap::new();
        for attachment in state.attachments() {
            let one = attachments.entry(&attachment.router).or_default();
            one.push(attachment);
        }
        Self {
            state,
            reflectors: reflectors.collect(),
            attachments,
            chains: Chains::new(state),
        }
    }

    /// Whom a router speaks with inside the domain.
    fn neighbors(&self, router: &'a Router) -> Vec<&'a Router> {
        let all = self.reflectors.is_empty() || router.role == Role::Reflector;
        let others: Vec<&Router> = match all {
            true => self.state.routers().collect(),
            false => self.reflectors.clone(),
        };
        let others = others.into_iter();
        others.filter(|other| other.name != router.name).collect()
    }
}

/// What a router sees, `None` where there is no such router, or it has not registered. `held` says whether it has an item
/// now: a router whose lease has run out stays with those that know it.
pub fn view(index: &Index<'_>, name: &str, held: &dyn Fn(&str) -> bool) -> Option<View> {
    let state = index.state;
    let domain = state.domain()?;
    let router = state.router(&crate::model::key::router(name))?;
    let own = router.registration.as_ref()?;
    let mut view = View::new();
    let settings = Settings {
        domain: domain.name.clone(),
        asn: domain.asn,
        global_administrator: domain.global_administrator,
        router_id: own.router_id.to_string(),
        role: router.role.to_string(),
        hold_time: domain.hold_time.into(),
    };
    view.insert(
        "settings".into(),
        Item {
            item: Some(item::Item::Settings(settings)),
        },
    );
    for other in index.neighbors(router) {
        let key = format!("neighbor/{}", other.name);
        if other.expired && !held(&key) {
            continue;
        }
        let Some(registration) = &other.registration else {
            continue;
        };
        let neighbor = Neighbor {
            name: other.name.clone(),
            address: registration.bgp_address.to_string(),
            asn: domain.asn,
            route_reflector_client: router.role == Role::Reflector && other.role != Role::Reflector,
            ..Neighbor::default()
        };
        view.insert(
            key,
            Item {
                item: Some(item::Item::Neighbor(neighbor)),
            },
        );
    }
    for peer in &router.peers {
        let neighbor = Neighbor {
            name: peer.name.clone(),
            address: peer.address.to_string(),
            asn: peer.asn,
            accept_vnis: vnis(state, &peer.tenants),
            ttl: peer.ttl.into(),
            external: true,
            ..Neighbor::default()
        };
        let key = format!("peer/{}", peer.name);
        view.insert(
            key,
            Item {
                item: Some(item::Item::Neighbor(neighbor)),
            },
        );
    }
    for (key, neighbor) in peers::of(state, router, own, held) {
        let item = Some(item::Item::Neighbor(neighbor));
        view.insert(key, Item { item });
    }
    let attachments = index.attachments.get(name).map_or(&[][..], Vec::as_slice);
    let attached = attachments
        .iter()
        .map(|one| (one.tenant.as_str(), Some(*one)));
    // Where only a node of its services is, or a choice between their routers, a tenant has nothing else.
    let is_attached = |tenant: &str| attachments.iter().any(|one| one.tenant == tenant);
    let mut chained: BTreeSet<&str> = index.chains.tenants_at(name).collect();
    let stitched = peers::stitched(state, router).into_iter();
    chained.extend(stitched.filter(|tenant| index.chains.choose(tenant)));
    let chained = chained
        .into_iter()
        .filter(|tenant| !is_attached(tenant))
        .map(|tenant| (tenant, None));
    for (tenant, attachment) in attached.chain(chained) {
        let Some(tenant) = state.tenant(&crate::model::key::tenant(tenant)) else {
            continue;
        };
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
        index.chains.tell(name, &mut told);
        let key = format!("tenant/{}", tenant.name);
        let item = Some(item::Item::Tenant(told));
        view.insert(key, Item { item });
    }
    Some(view)
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
    let tenants = tenants.filter_map(|name| state.tenant(&crate::model::key::tenant(name)));
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

/// Who may see something else after some revisions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Affected {
    /// Everybody.
    All,
    /// These routers.
    Some(BTreeSet<String>),
}

impl Affected {
    /// By these revisions; `state` is how it is after them.
    pub fn by(revisions: &[Revision], state: &State) -> Self {
        let mut names = BTreeSet::new();
        for change in revisions.iter().flat_map(|revision| &revision.changes) {
            let mut parts = change.key.split('/');
            let (kind, first, second) = (parts.next(), parts.next(), parts.next());
            match (kind, first, second) {
                (Some("domain"), ..) => return Self::All,
                (Some("router"), Some(name), _) => {
                    let role = |record: &Option<crate::model::Record>| match record {
                        Some(crate::model::Record::Router(router)) => Some(router.role),
                        _ => None,
                    };
                    let (old, new) = (role(&change.old), role(&change.new));
                    if [old, new].contains(&Some(Role::Reflector)) || !has_reflectors(state) {
                        return Self::All;
                    }
                    names.insert(name.to_owned());
                    let reflectors = state.routers().filter(|one| one.role == Role::Reflector);
                    names.extend(reflectors.map(|one| one.name.clone()));
                }
                (Some("attachment"), Some(_), Some(router)) => {
                    names.insert(router.to_owned());
                }
                (Some("trust" | "share" | "remote-router" | "remote-tenant"), ..) => {
                    names.extend(edges(state));
                }
                (Some("service" | "chain" | "tenant"), Some(name), _) => {
                    names.extend(chains::routers(state, name));
                    for record in [&change.old, &change.new] {
                        if let Some(crate::model::Record::Service(one)) = record {
                            names.extend(one.attachments.iter().map(|one| one.router.clone()));
                        }
                    }
                    if state.trusts().next().is_some() {
                        names.extend(edges(state));
                    }
                    let edges = state.routers().filter(|one| {
                        let mut peers = one.peers.iter();
                        peers.any(|peer| peer.tenants.iter().any(|one| one == name))
                    });
                    names.extend(edges.map(|one| one.name.clone()));
                }
                _ => {}
            }
        }
        Self::Some(names)
    }

    /// Whether a router is among them.
    pub fn contains(&self, name: &str) -> bool {
        match self {
            Self::All => true,
            Self::Some(names) => names.contains(name),
        }
    }
}
