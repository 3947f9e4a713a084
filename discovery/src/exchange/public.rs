//! What another domain sees of this one, and how what it says is read. It follows from the state alone, so that every controller of a
//! domain says the same at a revision.

use std::collections::BTreeMap;
use std::net::IpAddr;

use super::records::{Remote, RemoteOrigins, RemoteRouter, RemoteTenant};
use crate::attachments::{check_asn, check_unicast};
use crate::chains::view as chains;
use crate::model::{Domain, Record, RemoteService, Role, State, key};
use crate::operations::check_name;
use crate::origins;
use crate::proto::public_item::Item;
use crate::proto::{
    PublicDomain, PublicItem, PublicOrigins, PublicRouter, PublicService, PublicTenant,
};

/// Items by key: `domain`, `router/NAME`, `tenant/NAME`, `service/VNI/NAME`, `origins/VNI/PATH`.
pub type PublicView = BTreeMap<String, PublicItem>;

/// Edges of another domain that are taken: ours speak with each of them.
const MOST_EDGES: usize = 128;

fn item(item: Item) -> PublicItem {
    PublicItem { item: Some(item) }
}

/// What a domain sees: our edges that may speak with its, and the tenants that are shared with it. Empty where it is not trusted.
pub fn view(state: &State, domain: &str) -> PublicView {
    told(state, domain).0
}

/// The same, and how many words of where labels lead to are left out of it, since they are more than are taken.
pub(crate) fn told(state: &State, domain: &str) -> (PublicView, usize) {
    let mut view = PublicView::new();
    let (Some(own), Some(trust)) = (state.domain(), state.trust(&key::trust(domain))) else {
        return (view, 0);
    };
    let one = PublicDomain {
        name: own.name.clone(),
        asn: own.asn,
        global_administrator: own.global_administrator,
        origins: true,
    };
    view.insert("domain".into(), item(Item::Domain(one)));
    let (said, left_out) = origins::public(state, &own.name, domain);
    for one in said {
        view.insert(origins_key(&one), item(Item::Origins(said_origins(one))));
    }
    for router in state.routers_as(Role::Edge) {
        let pairs = trust.pairs.iter().filter(|one| one.edge == router.name);
        let peers: Vec<String> = pairs.map(|one| one.peer.clone()).collect();
        let Some(registration) = &router.registration else {
            continue;
        };
        if peers.is_empty() && !trust.pairs.is_empty() {
            continue;
        }
        let one = PublicRouter {
            name: router.name.clone(),
            asn: own.asn,
            router_id: registration.router_id.to_string(),
            bgp_address: router.external(registration).to_string(),
            endpoint: registration.endpoint.to_string(),
            encapsulations: registration.encapsulations.clone(),
            capacity: registration.capacity,
            expired: router.expired,
            peers,
        };
        view.insert(format!("router/{}", one.name), item(Item::Router(one)));
    }
    for one in state.all_below(key::share(domain, "")) {
        let Record::Share(share) = &one.record else {
            continue;
        };
        let Some(tenant) = state.tenant(&key::tenant(&share.tenant)) else {
            continue;
        };
        let home = tenant.home.as_ref().unwrap_or(&own.name);
        let one = PublicTenant {
            name: tenant.name.clone(),
            vni: tenant.vni,
            home: home.clone(),
            id: tenant.id.clone().unwrap_or_default(),
        };
        view.insert(format!("tenant/{}", one.name), item(Item::Tenant(one)));
        for (name, service) in chains::offered(state, &tenant.name) {
            let one = PublicService {
                vni: tenant.vni,
                name: name.to_owned(),
                label: service.label,
            };
            let key = format!("service/{}/{name}", tenant.vni);
            view.insert(key, item(Item::Service(one)));
        }
    }
    (view, left_out)
}

/// What is held of a domain, as it said it.
pub fn held(state: &State, own: &Domain, domain: &str) -> PublicView {
    let mut view = PublicView::new();
    let Some(remote) = state.remote(&key::remote(domain)) else {
        return view;
    };
    let one = PublicDomain {
        name: remote.name.clone(),
        asn: remote.asn,
        global_administrator: own.global_administrator,
        origins: remote.origins,
    };
    view.insert("domain".into(), item(Item::Domain(one)));
    for one in state.all_below(key::remote_origins(domain)) {
        if let Record::RemoteOrigins(one) = &one.record {
            let said = said_origins(one.clone());
            view.insert(origins_key(one), item(Item::Origins(said)));
        }
    }
    for one in state.all_below(key::remote_router(domain, "")) {
        let Record::RemoteRouter(one) = &one.record else {
            continue;
        };
        let router = PublicRouter {
            name: one.name.clone(),
            asn: one.asn,
            router_id: one.router_id.to_string(),
            bgp_address: one.bgp_address.to_string(),
            endpoint: one.endpoint.to_string(),
            encapsulations: one.encapsulations.clone(),
            capacity: one.capacity,
            expired: one.expired,
            peers: one.peers.clone(),
        };
        view.insert(format!("router/{}", one.name), item(Item::Router(router)));
    }
    for one in state.all_below(key::remote_tenant(domain, "")) {
        let Record::RemoteTenant(one) = &one.record else {
            continue;
        };
        let tenant = PublicTenant {
            name: one.name.clone(),
            vni: one.vni,
            home: one.home.clone(),
            id: one.id.clone().unwrap_or_default(),
        };
        view.insert(format!("tenant/{}", one.name), item(Item::Tenant(tenant)));
    }
    for one in state.all_below(key::remote_services(domain)) {
        let Record::RemoteService(one) = &one.record else {
            continue;
        };
        let service = PublicService {
            vni: one.vni,
            name: one.name.clone(),
            label: one.label,
        };
        let key = format!("service/{}/{}", one.vni, one.name);
        view.insert(key, item(Item::Service(service)));
    }
    view
}

fn origins_key(one: &RemoteOrigins) -> String {
    format!("origins/{}/{}", one.vni, one.path.join("/"))
}

fn said_origins(one: RemoteOrigins) -> PublicOrigins {
    PublicOrigins {
        vni: one.vni,
        path: one.path,
        addresses: one.addresses.into_iter().map(u32::from).collect(),
        ids: one.ids.into_iter().map(u32::from).collect(),
        open: one.open,
    }
}

/// What another domain said, read whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Said {
    /// The AS number of its routers.
    pub asn: u32,
    /// Its edges.
    pub routers: Vec<RemoteRouter>,
    /// The tenants that it shares with us.
    pub tenants: Vec<RemoteTenant>,
    /// The services that it offers to them.
    pub services: Vec<RemoteService>,
    /// Where labels may lead to there.
    pub origins: Vec<RemoteOrigins>,
    /// It says that at all.
    pub says_origins: bool,
    /// What of it makes no sense, and is left out.
    pub refused: Vec<String>,
}

/// Reads what `domain` says to `own`. A record that makes no sense costs that record.
///
/// # Errors
/// Where it is not that domain, or has other labels: nothing of it is taken then.
pub fn read(own: &Domain, domain: &str, view: &PublicView) -> Result<Said, String> {
    let mut said = Said {
        asn: 0,
        routers: Vec::new(),
        tenants: Vec::new(),
        services: Vec::new(),
        origins: Vec::new(),
        says_origins: false,
        refused: Vec::new(),
    };
    let mut words = Vec::new();
    for (at, item) in view {
        let read = match &item.item {
            Some(Item::Domain(one)) => {
                said.asn = read_domain(own, domain, one)?;
                said.says_origins = one.origins;
                Ok(())
            }
            Some(Item::Router(_)) if said.routers.len() == MOST_EDGES => Err(format!(
                "it is one edge more than {MOST_EDGES}, which is what is taken of a domain: ours would speak with each"
            )),
            Some(Item::Router(one)) => {
                read_router(own, domain, one).map(|router| said.routers.push(router))
            }
            Some(Item::Tenant(one)) => {
                read_tenant(domain, one).map(|tenant| said.tenants.push(tenant))
            }
            Some(Item::Service(one)) => {
                read_service(domain, one).map(|service| said.services.push(service))
            }
            Some(Item::Origins(one)) => {
                words.push((at, one));
                Ok(())
            }
            // Of a later controller.
            None => Ok(()),
        };
        said.refused
            .extend(read.err().map(|error| format!("{at}: {error}")));
    }
    // What it says of its own routers first: what it has heard is not to take the place of that.
    words.sort_by_key(|(_, one)| one.path.len());
    let mut counted = origins::Counted::default();
    for (at, one) in words {
        match read_origins(own, domain, one, &mut counted) {
            Ok(origins) => said.origins.extend(origins),
            Err(error) => said.refused.push(format!("{at}: {error}")),
        }
    }
    match said.asn {
        0 => Err(format!("domain `{domain}` does not say who it is")),
        _ => Ok(said),
    }
}

fn read_domain(own: &Domain, domain: &str, one: &PublicDomain) -> Result<u32, String> {
    if one.name != domain {
        return Err(format!("this is domain `{}`, not `{domain}`", one.name));
    }
    if one.global_administrator != own.global_administrator {
        return Err(format!(
            "domain `{domain}` has labels of Global Administrator {}, this one of {}: it is the same in every domain \
             (weft controller init --administrator)",
            one.global_administrator, own.global_administrator
        ));
    }
    other_asn(own, one.asn)
        .map_err(|error| format!("domain `{domain}` says what makes no sense: {error}"))
}

/// An AS number of another domain.
fn other_asn(own: &Domain, asn: u32) -> Result<u32, String> {
    match check_asn("asn", asn) {
        Ok(()) if asn != own.asn => Ok(asn),
        _ => Err(format!("AS {asn} is no other domain's")),
    }
}

fn read_name(name: &str) -> Result<String, String> {
    check_name(name).map_err(|rejection| rejection.to_string())?;
    Ok(name.to_owned())
}

fn read_address(what: &str, text: &str) -> Result<IpAddr, String> {
    let address = text
        .parse()
        .map_err(|_| format!("{what} `{text}` is no address"))?;
    check_unicast(what, address).map_err(|rejection| rejection.to_string())?;
    Ok(address)
}

fn read_vni(number: u32) -> Result<u32, String> {
    match number {
        1..=16_777_214 => Ok(number),
        _ => Err(format!("{number} is no VNI")),
    }
}

fn read_router(own: &Domain, domain: &str, one: &PublicRouter) -> Result<RemoteRouter, String> {
    let router_id = one.router_id.parse();
    Ok(RemoteRouter {
        domain: domain.to_owned(),
        name: read_name(&one.name)?,
        asn: other_asn(own, one.asn)?,
        router_id: router_id.map_err(|_| "its router id is none".to_owned())?,
        bgp_address: read_address("BGP address", &one.bgp_address)?,
        endpoint: read_address("endpoint", &one.endpoint)?,
        encapsulations: one.encapsulations.clone(),
        capacity: one.capacity,
        expired: one.expired,
        peers: one.peers.clone(),
    })
}

fn read_tenant(domain: &str, one: &PublicTenant) -> Result<RemoteTenant, String> {
    let id = Some(one.id.clone()).filter(|id| !id.is_empty());
    Ok(RemoteTenant {
        domain: domain.to_owned(),
        name: read_name(&one.name)?,
        vni: read_vni(one.vni)?,
        home: read_name(&one.home)?,
        id: id.map(|id| read_name(&id)).transpose()?,
    })
}

fn read_service(domain: &str, one: &PublicService) -> Result<RemoteService, String> {
    Ok(RemoteService {
        domain: domain.to_owned(),
        vni: read_vni(one.vni)?,
        name: read_name(&one.name)?,
        label: read_vni(one.label)?,
    })
}

/// `None` for what our own domain has said, and comes back.
fn read_origins(
    own: &Domain,
    domain: &str,
    one: &PublicOrigins,
    counted: &mut origins::Counted,
) -> Result<Option<RemoteOrigins>, String> {
    let path: Result<Vec<String>, String> = one.path.iter().map(|name| read_name(name)).collect();
    let path = path?;
    if path.last().map(String::as_str) != Some(domain) || path.len() > origins::LONGEST_PATH {
        return Err(format!("it has not come by `{domain}`, or by too many"));
    }
    if path.contains(&own.name) {
        return Ok(None);
    }
    let vni = read_vni(one.vni)?;
    counted.add(vni, &path, one.addresses.len() + one.ids.len())?;
    let addresses = |numbers: &[u32]| {
        let mut addresses: Vec<_> = numbers.iter().map(|one| (*one).into()).collect();
        addresses.sort_unstable();
        addresses.dedup();
        addresses
    };
    Ok(Some(RemoteOrigins {
        domain: domain.to_owned(),
        vni,
        path,
        addresses: addresses(&one.addresses),
        ids: addresses(&one.ids),
        open: one.open,
    }))
}

impl Said {
    /// A domain that said this at a revision, and whom nobody follows yet.
    pub fn remote(&self, domain: &str, revision: u64) -> Remote {
        Remote {
            name: domain.to_owned(),
            asn: self.asn,
            revision,
            heard: 0,
            followers: std::collections::BTreeSet::new(),
            origins: self.says_origins,
        }
    }
}
