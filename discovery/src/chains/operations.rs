//! What may be changed of services and chains.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::records::{
    Chain, Match, OnFailure, Probe, ProbeKind, Selection, Service, ServiceAttachment, priority,
};
use super::{labels, past, plan};
use weft_overlay::words;

use crate::attachments::{check_interface, check_prefixes, check_unicast, unfit};
use crate::database::{Rejection, Transaction};
use crate::model::{Record, State, key};
use crate::operations::{Done, check_name, domain_of, router_of, tenant_of};
use crate::state::by;

/// What a service is made from, or changed to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewService {
    /// Its label: one that nobody has, of this domain's range or outside of it, where the service had it before; with `home`, one that
    /// this domain gave and does not tell, since it is not trusted. One that is not of this domain's range, or that nobody tells, is an
    /// operator's to choose; that of a trusted domain is the one that it tells. Where it is absent the next free VNI of this domain is taken. It stays
    /// what it was where the service is there.
    #[serde(default)]
    pub label: Option<u32>,
    /// The domain that gave it: a trusted one that shares the tenant says which it is.
    #[serde(default)]
    pub home: Option<String>,
    /// The service's name there; the same where absent.
    #[serde(default)]
    pub home_name: Option<String>,
    /// What becomes of its packets when its node fails.
    #[serde(default)]
    pub on_failure: OnFailure,
    /// It changes addresses or ports.
    #[serde(default)]
    pub rewrites: bool,
    /// Which of several routers that have it is taken.
    #[serde(default)]
    pub selection: Option<Selection>,
    /// Where its nodes are.
    #[serde(default)]
    pub attachments: Vec<ServiceAttachment>,
}

/// What a chain is made from, or changed to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewChain {
    /// Of several chains that match the one with the lowest number is taken; 100 where absent.
    #[serde(default = "priority")]
    pub priority: u32,
    /// Which packets.
    #[serde(default, rename = "match")]
    pub matches: Match,
    /// Names of the tenant's services, in order.
    pub services: Vec<String>,
    /// Packets of the other direction go through the same services from the other end.
    #[serde(default)]
    pub symmetric: bool,
}

/// No other record than `own` has this interface of the router.
///
/// # Errors
/// Whose it is.
pub(crate) fn check_free(state: &State, router: &str, interface: &str, own: &str) -> Done<()> {
    let mut holders = state.by(&by::interface(router, interface));
    let is_held = holders.any(|one| one.record.key() == own);
    let reserved = state.router(&key::router(router));
    let reserved = reserved.and_then(|one| one.reserved.get(interface));
    // What was there before stays, as the router leaves it out by itself: whoever changes something else need not mend that first.
    if let Some(reason) = reserved.filter(|_| !is_held) {
        return Err(Rejection::Invalid(format!(
            "interface `{interface}` of router `{router}` is no tenant's: {reason}"
        )));
    }
    for one in state.by(&by::interface(router, interface)) {
        let owner = match &one.record {
            other if other.key() == own => continue,
            Record::Attachment(other) => format!("tenant `{}`'s", other.tenant),
            Record::Service(other) => format!(
                "the service `{}`'s of tenant `{}`",
                other.name, other.tenant
            ),
            _ => continue,
        };
        return Err(Rejection::Conflict(format!(
            "interface `{interface}` of router `{router}` is {owner}"
        )));
    }
    Ok(())
}

fn check_node(field: &str, addresses: &[IpAddr]) -> Done<()> {
    for (at, address) in addresses.iter().enumerate() {
        check_unicast(format!("{field}[{at}]"), *address)?;
    }
    let v4 = addresses.iter().filter(|one| one.is_ipv4()).count();
    let wrong = |detail: &str| {
        Err(Rejection::Field {
            field: field.to_owned(),
            detail: detail.to_owned(),
        })
    };
    match (addresses.len(), v4) {
        (0, _) => wrong("it has no address: one of the service node on the link"),
        (all, v4) if v4 > 1 || all - v4 > 1 => {
            wrong("a node has one address of each family on a link at most")
        }
        _ => Ok(()),
    }
}

fn check_probe(field: &str, probe: &Probe) -> Done<()> {
    let wrong = |key: &str, detail: String| {
        Err(Rejection::Field {
            field: format!("{field}.{key}"),
            detail,
        })
    };
    match (probe.kind, probe.port) {
        (ProbeKind::Tcp, None) => {
            return wrong("port", "it is missing: the TCP port to connect to".into());
        }
        (_, Some(0)) => return Err(unfit(format!("{field}.port"), 0, "a TCP port, 1 to 65535")),
        (ProbeKind::Icmp | ProbeKind::None, Some(_)) => {
            return wrong("port", "a probe of this kind has no `port`".into());
        }
        _ => {}
    }
    match (probe.kind, &probe.path) {
        (ProbeKind::Http, Some(path)) => {
            if let Err(expected) = words::http_path(path) {
                let found = path.escape_default();
                return Err(unfit(format!("{field}.path"), found, expected));
            }
        }
        (_, Some(_)) => return wrong("path", "a probe of this kind has no `path`".into()),
        _ => {}
    }
    match probe.interval {
        Some(one) if !(50..=60_000).contains(&one) => {
            Err(unfit(format!("{field}.interval"), one, "50 to 60000 ms"))
        }
        _ => Ok(()),
    }
}

fn check_attachments(transaction: &Transaction<'_>, own: &Service) -> Done<()> {
    let mut routers = std::collections::BTreeSet::new();
    for (at, one) in own.attachments.iter().enumerate() {
        let field = |key: &str| format!("attachments[{at}].{key}");
        router_of(transaction, &one.router)?;
        if !routers.insert(&one.router) {
            return Err(Rejection::Field {
                field: field("router"),
                detail: format!(
                    "a service has one attachment on a router, and `{}` stands here twice: another one is another service, with a label \
                     of its own",
                    one.router
                ),
            });
        }
        check_node(&field("node"), &one.node)?;
        let mut names = vec![(field("interface"), &one.interface)];
        if let Some(outside) = &one.outside {
            check_node(&field("outside.node"), &outside.node)?;
            names.push((field("outside.interface"), &outside.interface));
        }
        let key = key::service(&own.tenant, &own.name);
        for (field, name) in &names {
            check_interface(field, name)?;
            check_free(transaction.state(), &one.router, name, &key)?;
        }
        if let Some(outside) = &one.outside
            && outside.interface == one.interface
        {
            return Err(Rejection::Field {
                field: field("outside.interface"),
                detail: format!(
                    "both arms are `{}`: a node with one arm has no `outside`",
                    one.interface
                ),
            });
        }
        if let Some(probe) = &one.probe {
            check_probe(&field("probe"), probe)?;
        }
    }
    Ok(())
}

/// Makes a service, or changes it. Its label stays what it is; that of another domain's service may be said anew. `operator`
/// says that an operator asks: an administrator of the tenant chooses no label that may be another tenant's.
///
/// # Errors
/// Where there is no such tenant or router, no label for it, or a chain that it is in would not work.
pub fn put_service(
    transaction: &mut Transaction<'_>,
    tenant: &str,
    name: &str,
    new: &NewService,
    operator: bool,
) -> Done<Service> {
    check_name(name)?;
    tenant_of(transaction, tenant)?;
    let before = match transaction.get(&key::service(tenant, name)) {
        Some(Record::Service(one)) => Some(one.clone()),
        _ => None,
    };
    let (label, home, home_name) = match before {
        Some(one) => {
            if new.home.is_some() && new.home != one.home {
                return Err(Rejection::Invalid(format!(
                    "the label of `{name}` is {}, and stays so: another one is another service",
                    one.label
                )));
            }
            let label = labels::kept(transaction, &one, new, operator)?;
            (label, one.home, new.home_name.clone().or(one.home_name))
        }
        None => (
            labels::given(transaction, tenant, name, new, operator)?,
            new.home.clone(),
            new.home_name.clone(),
        ),
    };
    let service = Service {
        tenant: tenant.to_owned(),
        name: name.to_owned(),
        label,
        home,
        home_name,
        on_failure: new.on_failure,
        rewrites: new.rewrites,
        selection: new.selection,
        attachments: new.attachments.clone(),
    };
    check_attachments(transaction, &service)?;
    transaction.put(Record::Service(service.clone()));
    plan::check(transaction, tenant)?;
    labels::renew(transaction, tenant)?;
    Ok(service)
}

/// Removes a service; its label rests.
///
/// # Errors
/// Where there is none, or a chain has it.
pub fn delete_service(transaction: &mut Transaction<'_>, tenant: &str, name: &str) -> Done<()> {
    let key = key::service(tenant, name);
    let Some(Record::Service(service)) = transaction.get(&key).cloned() else {
        return Err(Rejection::NotFound(format!(
            "tenant `{tenant}` has no service `{name}`"
        )));
    };
    let chains = key::chain(tenant, "");
    for (_, one) in transaction.state().below(&chains) {
        if let Record::Chain(chain) = &one.record
            && chain.services.iter().any(|one| one == name)
        {
            return Err(Rejection::Conflict(format!(
                "chain `{}` goes through it: take it from that chain first",
                chain.name
            )));
        }
    }
    remove_service(transaction, &service)
}

fn remove_service(transaction: &mut Transaction<'_>, service: &Service) -> Done<()> {
    if service.home.is_none() {
        let domain = domain_of(transaction)?;
        labels::rest(transaction, &domain, service.label, Some(&service.tenant));
    }
    transaction.delete(&key::service(&service.tenant, &service.name));
    Ok(())
}

/// Makes a chain, or changes it. Where its services are others, or in another order, those from other domains have the labels that
/// these say now. Services of this domain get
/// other labels where routers that are told one after the other would lead packets past one ([`labels`]).
///
/// # Errors
/// Where there is no such tenant or service, or it cannot work, with what is missing.
pub fn put_chain(
    transaction: &mut Transaction<'_>,
    tenant: &str,
    name: &str,
    new: &NewChain,
) -> Done<Chain> {
    check_name(name)?;
    tenant_of(transaction, tenant)?;
    for service in &new.services {
        if transaction.get(&key::service(tenant, service)).is_none() {
            return Err(Rejection::Invalid(format!(
                "`{service}` is no service of tenant `{tenant}`"
            )));
        }
    }
    check_prefixes("match.source", &new.matches.source)?;
    check_prefixes("match.destination", &new.matches.destination)?;
    plan::matches(&new.matches)?;
    let chain = Chain {
        tenant: tenant.to_owned(),
        name: name.to_owned(),
        priority: new.priority,
        matches: new.matches.clone(),
        services: new.services.clone(),
        symmetric: new.symmetric,
        note: None,
    };
    let before = match transaction.get(&key::chain(tenant, name)) {
        Some(Record::Chain(one)) => Some(one.services.clone()),
        _ => None,
    };
    transaction.put(Record::Chain(chain.clone()));
    if before.as_ref() != Some(&new.services) {
        labels::take_over(transaction, tenant, &new.services)?;
    }
    plan::check(transaction, tenant)?;
    labels::renew(transaction, tenant)?;
    Ok(chain)
}

/// Removes a chain.
///
/// # Errors
/// Where there is none.
pub fn delete_chain(transaction: &mut Transaction<'_>, tenant: &str, name: &str) -> Done<()> {
    let key = key::chain(tenant, name);
    if transaction.get(&key).is_none() {
        return Err(Rejection::NotFound(format!(
            "tenant `{tenant}` has no chain `{name}`"
        )));
    }
    transaction.delete(&key);
    labels::renew(transaction, tenant)
}

/// A tenant goes: its chains and services go with it.
pub(crate) fn forget_tenant(transaction: &mut Transaction<'_>, tenant: &str) -> Done<()> {
    let state = transaction.state();
    for (key, _) in state.below(&key::chain(tenant, "")) {
        transaction.delete(key);
    }
    past::forget(transaction, tenant);
    for (_, one) in state.below(&key::service(tenant, "")) {
        if let Record::Service(service) = &one.record {
            remove_service(transaction, service)?;
        }
    }
    Ok(())
}

/// A router goes: no service has a node there.
pub(crate) fn forget_router(transaction: &mut Transaction<'_>, router: &str) {
    for one in transaction.state().by(&by::router(router)) {
        if let Record::Service(service) = &one.record {
            let mut service = service.clone();
            service.attachments.retain(|node| node.router != router);
            transaction.put(Record::Service(service));
        }
    }
}
