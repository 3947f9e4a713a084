//! Which interfaces of which routers a tenant's own administrators may use: those that an operator grants them. For an operator there is
//! nothing to grant.

use std::collections::BTreeSet;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::attachments::{check_interface, twice};
use crate::database::{Rejection, Transaction};
use crate::model::{Record, Service, State, key};
use crate::operations::{Done, router_of, tenant_of};
use crate::state::{as_router, by};

/// What is granted to a tenant at a router.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewGrant {
    /// Interfaces that the tenant's administrators may attach to it, and to nodes of its services.
    pub interfaces: Vec<String>,
}

/// What an operator has granted to a tenant at a router.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Grant {
    /// The tenant's name.
    pub tenant: String,
    /// The router's name.
    pub router: String,
    /// Interfaces that the tenant's administrators may attach to it, and to nodes of its services.
    pub interfaces: Vec<String>,
}

/// Grants interfaces of a router to a tenant, in the place of those that were.
///
/// # Errors
/// Where there is no such tenant or router, or an interface that nobody may have.
pub fn put_grant(
    transaction: &mut Transaction<'_>,
    tenant: &str,
    router: &str,
    new: &NewGrant,
) -> Done<Grant> {
    tenant_of(transaction, tenant)?;
    router_of(transaction, router)?;
    let mut seen = BTreeSet::new();
    for (at, interface) in new.interfaces.iter().enumerate() {
        let field = format!("interfaces[{at}]");
        check_interface(&field, interface)?;
        if !seen.insert(interface) {
            return Err(twice(field, interface));
        }
    }
    let grant = Grant {
        tenant: tenant.to_owned(),
        router: router.to_owned(),
        interfaces: new.interfaces.clone(),
    };
    transaction.put(Record::Grant(grant.clone()));
    Ok(grant)
}

/// Takes them back. What uses them already stays, and may be changed by an operator.
///
/// # Errors
/// Where there are none.
pub fn delete_grant(transaction: &mut Transaction<'_>, tenant: &str, router: &str) -> Done<()> {
    let key = key::grant(tenant, router);
    if transaction.get(&key).is_none() {
        return Err(Rejection::NotFound(format!(
            "nothing of router `{router}` is granted to tenant `{tenant}`"
        )));
    }
    transaction.delete(&key);
    Ok(())
}

/// A tenant goes: nothing is granted to the next one of its name.
pub(crate) fn forget_tenant(transaction: &mut Transaction<'_>, tenant: &str) {
    for one in transaction.state().all_below(key::grant(tenant, "")) {
        transaction.delete(&one.record.key());
    }
}

/// Interfaces of a router that are granted to some tenant.
pub(crate) fn at(state: &State, router: &str) -> BTreeSet<String> {
    let here = state.by(&by::router(router));
    let grants = here.filter_map(|one| match &one.record {
        Record::Grant(grant) => Some(grant.interfaces.iter().cloned()),
        _ => None,
    });
    grants.flatten().collect()
}

/// What a tenant's administrator has changed uses no interface that was not granted, and asks no node that is somebody else. What was there
/// before may stay.
///
/// # Errors
/// [`Rejection::Forbidden`]: which interface or address, and what to do.
pub fn check(transaction: &Transaction<'_>, tenant: &str) -> Done<()> {
    let state = transaction.state();
    for key in transaction.changed_below(&key::attachment(tenant, "")) {
        let interfaces = |record: Option<&Record>| match record {
            Some(Record::Attachment(one)) => uses(&one.router, one.interfaces.iter()),
            _ => BTreeSet::new(),
        };
        let before = interfaces(state.get(key).map(|one| &one.record));
        granted(state, tenant, &interfaces(transaction.get(key)), &before)?;
    }
    for key in transaction.changed_below(&key::service(tenant, "")) {
        let service = |record: Option<&Record>| match record {
            Some(Record::Service(one)) => Some(one.clone()),
            _ => None,
        };
        let before = service(state.get(key).map(|one| &one.record));
        let now = service(transaction.get(key));
        let interfaces = |one: &Option<Service>| -> BTreeSet<(String, String)> {
            let nodes = one.iter().flat_map(|one| &one.attachments);
            nodes
                .flat_map(|node| uses(&node.router, node.interfaces()))
                .collect()
        };
        granted(state, tenant, &interfaces(&now), &interfaces(&before))?;
        let before = addresses(&before);
        for address in addresses(&now).difference(&before) {
            check_node(state, *address)?;
        }
    }
    Ok(())
}

/// Interfaces of a router.
fn uses(
    router: &str,
    interfaces: impl Iterator<Item = impl AsRef<str>>,
) -> BTreeSet<(String, String)> {
    interfaces
        .map(|name| (router.to_owned(), name.as_ref().to_owned()))
        .collect()
}

fn granted(
    state: &State,
    tenant: &str,
    now: &BTreeSet<(String, String)>,
    before: &BTreeSet<(String, String)>,
) -> Done<()> {
    for (router, interface) in now.difference(before) {
        let grant = state.grant(&key::grant(tenant, router));
        if !grant.is_some_and(|grant| grant.interfaces.contains(interface)) {
            return Err(Rejection::Forbidden(format!(
                "interface `{interface}` of router `{router}` is not granted to tenant `{tenant}`: an operator does that with PUT \
                 /api/v1/tenants/{tenant}/grants/{router}"
            )));
        }
    }
    Ok(())
}

/// Where a service's nodes are.
fn addresses(service: &Option<Service>) -> BTreeSet<IpAddr> {
    let nodes = service.iter().flat_map(|one| &one.attachments);
    nodes
        .flat_map(|node| {
            let outside = node.outside.iter().flat_map(|arm| &arm.node);
            node.node.iter().chain(outside).copied()
        })
        .collect()
}

/// An address that a tenant's administrator may have probed: not the router itself, and no router of the domain or of another one.
fn check_node(state: &State, address: IpAddr) -> Done<()> {
    // One of IPv4 written as one of IPv6 is the same node.
    let address = address.to_canonical();
    let router = [by::bgp_address(address), by::endpoint(address)];
    let router = router
        .iter()
        .any(|entry| state.by(entry).filter_map(as_router).next().is_some());
    match router || address.is_loopback() {
        true => Err(Rejection::Forbidden(format!(
            "{address} is no service node: it is a router's own address"
        ))),
        false => Ok(()),
    }
}
