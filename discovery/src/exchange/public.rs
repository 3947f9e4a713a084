//! What another domain sees of this one, and how what it says is read. It follows from the state alone, so that every controller of a
//! domain says the same at a revision.

use std::collections::BTreeMap;
use std::net::IpAddr;

use super::records::{Remote, RemoteRouter, RemoteTenant};
use crate::attachments::{check_asn, check_unicast};
use crate::chains::view as chains;
use crate::model::{Domain, RemoteService, Role, State, key};
use crate::operations::check_name;
use crate::proto::public_item::Item;
use crate::proto::{PublicDomain, PublicItem, PublicRouter, PublicService, PublicTenant};

/// Items by key: `domain`, `router/NAME`, `tenant/NAME`, `service/VNI/NAME`.
pub type PublicView = BTreeMap<String, PublicItem>;

fn item(item: Item) -> PublicItem {
    PublicItem { item: Some(item) }
}

/// What a domain sees: our edges that may speak with its, and the tenants that are shared with it. Empty where it is not trusted.
pub fn view(state: &State, domain: &str) -> PublicView {
    let mut view = PublicView::new();
    let (Some(own), Some(trust)) = (state.domain(), state.trust(&key::trust(domain))) else {
        return view;
    };
    let of = PublicDomain {
        name: own.name.clone(),
        asn: own.asn,
        global_administrator: own.global_administrator,
    };
    view.insert("domain".into(), item(Item::Domain(of)));
    for router in state.routers().filter(|of| of.role == Role::Edge) {
        let pairs = trust.pairs.iter().filter(|of| of.edge == router.name);
        let peers: Vec<String> = pairs.map(|of| of.peer.clone()).collect();
        let Some(registration) = &router.registration else {
            continue;
        };
        if peers.is_empty() && !trust.pairs.is_empty() {
            continue;
        }
        let of = PublicRouter {
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
        view.insert(format!("router/{}", of.name), item(Item::Router(of)));
    }
    for share in state.shares().filter(|of| of.domain == domain) {
        let Some(tenant) = state.tenant(&key::tenant(&share.tenant)) else {
            continue;
        };
        let home = tenant.home.as_ref().unwrap_or(&own.name);
        let of = PublicTenant {
            name: tenant.name.clone(),
            vni: tenant.vni,
            home: home.clone(),
            id: tenant.id.clone().unwrap_or_default(),
        };
        view.insert(format!("tenant/{}", of.name), item(Item::Tenant(of)));
        for (name, service) in chains::offered(state, &tenant.name) {
            let of = PublicService {
                vni: tenant.vni,
                name: name.to_owned(),
                label: service.label,
            };
            let key = format!("service/{}/{name}", tenant.vni);
            view.insert(key, item(Item::Service(of)));
        }
    }
    view
}

/// What is held of a domain, as it said it.
pub fn held(state: &State, own: &Domain, domain: &str) -> PublicView {
    let mut view = PublicView::new();
    let Some(remote) = state.remote(&key::remote(domain)) else {
        return view;
    };
    let of = PublicDomain {
        name: remote.name.clone(),
        asn: remote.asn,
        global_administrator: own.global_administrator,
    };
    view.insert("domain".into(), item(Item::Domain(of)));
    for of in state.remote_routers().filter(|of| of.domain == domain) {
        let router = PublicRouter {
            name: of.name.clone(),
            asn: of.asn,
            router_id: of.router_id.to_string(),
            bgp_address: of.bgp_address.to_string(),
            endpoint: of.endpoint.to_string(),
            encapsulations: of.encapsulations.clone(),
            capacity: of.capacity,
            expired: of.expired,
            peers: of.peers.clone(),
        };
        view.insert(format!("router/{}", of.name), item(Item::Router(router)));
    }
    for of in state.remote_tenants().filter(|of| of.domain == domain) {
        let tenant = PublicTenant {
            name: of.name.clone(),
            vni: of.vni,
            home: of.home.clone(),
            id: of.id.clone().unwrap_or_default(),
        };
        view.insert(format!("tenant/{}", of.name), item(Item::Tenant(tenant)));
    }
    for of in state.remote_services().filter(|of| of.domain == domain) {
        let service = PublicService {
            vni: of.vni,
            name: of.name.clone(),
            label: of.label,
        };
        let key = format!("service/{}/{}", of.vni, of.name);
        view.insert(key, item(Item::Service(service)));
    }
    view
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
        refused: Vec::new(),
    };
    for (at, item) in view {
        let read = match &item.item {
            Some(Item::Domain(of)) => {
                said.asn = read_domain(own, domain, of)?;
                Ok(())
            }
            Some(Item::Router(of)) => {
                read_router(own, domain, of).map(|router| said.routers.push(router))
            }
            Some(Item::Tenant(of)) => {
                read_tenant(domain, of).map(|tenant| said.tenants.push(tenant))
            }
            Some(Item::Service(of)) => {
                read_service(domain, of).map(|service| said.services.push(service))
            }
            // Of a later controller.
            None => Ok(()),
        };
        said.refused
            .extend(read.err().map(|error| format!("{at}: {error}")));
    }
    match said.asn {
        0 => Err(format!("domain `{domain}` does not say who it is")),
        _ => Ok(said),
    }
}

fn read_domain(own: &Domain, domain: &str, of: &PublicDomain) -> Result<u32, String> {
    if of.name != domain {
        return Err(format!("this is domain `{}`, not `{domain}`", of.name));
    }
    if of.global_administrator != own.global_administrator {
        return Err(format!(
            "domain `{domain}` has labels of Global Administrator {}, this one of {}: it is the same in every domain \
             (weft controller init --administrator)",
            of.global_administrator, own.global_administrator
        ));
    }
    other_asn(own, of.asn)
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

fn read_router(own: &Domain, domain: &str, of: &PublicRouter) -> Result<RemoteRouter, String> {
    let router_id = of.router_id.parse();
    Ok(RemoteRouter {
        domain: domain.to_owned(),
        name: read_name(&of.name)?,
        asn: other_asn(own, of.asn)?,
        router_id: router_id.map_err(|_| "its router id is none".to_owned())?,
        bgp_address: read_address("BGP address", &of.bgp_address)?,
        endpoint: read_address("endpoint", &of.endpoint)?,
        encapsulations: of.encapsulations.clone(),
        capacity: of.capacity,
        expired: of.expired,
        peers: of.peers.clone(),
    })
}

fn read_tenant(domain: &str, of: &PublicTenant) -> Result<RemoteTenant, String> {
    let id = Some(of.id.clone()).filter(|id| !id.is_empty());
    Ok(RemoteTenant {
        domain: domain.to_owned(),
        name: read_name(&of.name)?,
        vni: read_vni(of.vni)?,
        home: read_name(&of.home)?,
        id: id.map(|id| read_name(&id)).transpose()?,
    })
}

fn read_service(domain: &str, of: &PublicService) -> Result<RemoteService, String> {
    Ok(RemoteService {
        domain: domain.to_owned(),
        vni: read_vni(of.vni)?,
        name: read_name(&of.name)?,
        label: read_vni(of.label)?,
    })
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
        }
    }
}
