//! What may be changed of services and chains.

use std::net::IpAddr;
use std::ops::RangeInclusive;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use weft_overlay::Vni;
use weft_overlay::chain::{self as plan, words};

use super::records::{
    Chain, Match, OnFailure, Selection, Service, ServiceAttachment, Word, priority,
};
use crate::database::{Rejection, Transaction};
use crate::model::{Record, State, VniUse, key, now};
use crate::operations::{
    Done, check_interface, check_name, domain_of, foreign_vni, free_vni, router_of, tenant_of,
};

/// What a service is made from, or changed to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewService {
    /// Its label where another domain gave it and that is not trusted, so that it cannot say; else the next free VNI of this domain is
    /// taken. It stays what it was where the service is there.
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

/// The router's interfaces that somebody has, and who.
pub(crate) fn interfaces<'a>(
    state: &'a State,
    router: &'a str,
) -> impl Iterator<Item = (&'a str, String)> + 'a {
    let attachments = state.attachments().filter(move |of| of.router == router);
    let users = attachments.flat_map(|of| {
        let names = of.interfaces.iter();
        names.map(move |name| (name.as_str(), format!("tenant `{}`'s", of.tenant)))
    });
    let services = state.services().flat_map(move |service| {
        let here = service.attachments.iter();
        let here = here.filter(move |of| of.router == router);
        here.flat_map(move |of| {
            let outside = of.outside.iter().map(|of| of.interface.as_str());
            let names = [of.interface.as_str()].into_iter().chain(outside);
            let owner = format!(
                "the service `{}`'s of tenant `{}`",
                service.name, service.tenant
            );
            names.map(move |name| (name, owner.clone()))
        })
    });
    users.chain(services)
}

fn check_node(addresses: &[IpAddr]) -> Done<()> {
    let v4 = addresses.iter().filter(|of| of.is_ipv4()).count();
    match (addresses.len(), v4) {
        (0, _) => Err(Rejection::Invalid(
            "`node` has no address: one of the service node on the link".into(),
        )),
        (all, v4) if v4 > 1 || all - v4 > 1 => Err(Rejection::Invalid(
            "a node has one address of each family on a link at most".into(),
        )),
        _ => Ok(()),
    }
}

fn check_attachments(transaction: &Transaction<'_>, own: &Service) -> Done<()> {
    let mut routers = std::collections::BTreeSet::new();
    for of in &own.attachments {
        router_of(transaction, &of.router)?;
        if !routers.insert(&of.router) {
            return Err(Rejection::Invalid(format!(
                "a service has one attachment on a router, and `{}` stands here twice: another one is another service, with a label of its \
                 own",
                of.router
            )));
        }
        check_node(&of.node)?;
        let mut names = vec![&of.interface];
        if let Some(outside) = &of.outside {
            check_node(&outside.node)?;
            names.push(&outside.interface);
        }
        let state = transaction.state();
        let owner = format!("the service `{}`'s of tenant `{}`", own.name, own.tenant);
        for name in &names {
            check_interface(name)?;
            let mut others = interfaces(state, &of.router).filter(|(_, of)| *of != owner);
            if let Some((_, other)) = others.find(|(other, _)| other == name) {
                return Err(Rejection::Conflict(format!(
                    "interface `{name}` of router `{}` is {other}",
                    of.router
                )));
            }
        }
        if names.len() == 2 && names[0] == names[1] {
            return Err(Rejection::Invalid(format!(
                "both arms are `{}`: a node with one arm has no `outside`",
                of.interface
            )));
        }
        if let Some(probe) = &of.probe
            && probe
                .interval
                .is_some_and(|of| !(50..=60_000).contains(&of))
        {
            return Err(Rejection::Invalid(
                "a probe's interval is 50 to 60000 ms".into(),
            ));
        }
    }
    Ok(())
}

/// A label for a service that is not there yet.
fn label_of(
    transaction: &mut Transaction<'_>,
    tenant: &str,
    name: &str,
    new: &NewService,
) -> Done<u32> {
    let domain = domain_of(transaction)?;
    let label = match (new.label, &new.home) {
        (None, None) => {
            let vni = free_vni(transaction, &domain)?;
            transaction.put(Record::Vni(VniUse {
                vni,
                tenant: Some(tenant.to_owned()),
                service: Some(name.to_owned()),
                free_at: 0,
            }));
            return Ok(vni);
        }
        (Some(label), Some(home)) if *home != domain.name => label,
        (None, Some(home)) if *home != domain.name => {
            let vni = tenant_of(transaction, tenant)?.vni;
            let there = new.home_name.as_deref().unwrap_or(name);
            let mut offered = transaction.state().remote_services();
            let offered =
                offered.find(|of| of.domain == *home && of.vni == vni && of.name == there);
            let offered = offered.ok_or_else(|| {
                Rejection::Conflict(format!(
                    "domain `{home}` offers no service `{there}` to this tenant: it is to share the tenant with this domain (weft domain \
                     share) and to have the service"
                ))
            })?;
            offered.label
        }
        _ => {
            return Err(Rejection::Invalid(
                "a label is given together with the other domain that gave it (`label` and `home`), or not at all".into(),
            ));
        }
    };
    let home = new.home.as_deref().unwrap_or_default();
    let label = foreign_vni(transaction, &domain, home, label)?;
    let mut services = transaction.state().services();
    match services.find(|of| of.label == label) {
        Some(other) => Err(Rejection::Conflict(format!(
            "service `{}` of tenant `{}` has label {label}",
            other.name, other.tenant
        ))),
        None => Ok(label),
    }
}

/// Makes a service, or changes it. Its label stays what it is.
///
/// # Errors
/// Where there is no such tenant or router, no label for it, or a chain that it is in would not work.
pub fn put_service(
    transaction: &mut Transaction<'_>,
    tenant: &str,
    name: &str,
    new: &NewService,
) -> Done<Service> {
    check_name(name)?;
    tenant_of(transaction, tenant)?;
    let before = match transaction.get(&key::service(tenant, name)) {
        Some(Record::Service(of)) => Some(of.clone()),
        _ => None,
    };
    let (label, home) = match before {
        Some(of) => {
            let same = new.label.is_none_or(|label| label == of.label)
                && (new.home.is_none() || new.home == of.home);
            if !same {
                return Err(Rejection::Invalid(format!(
                    "the label of `{name}` is {}, and stays so: another one is another service",
                    of.label
                )));
            }
            (of.label, of.home)
        }
        None => (label_of(transaction, tenant, name, new)?, new.home.clone()),
    };
    let service = Service {
        tenant: tenant.to_owned(),
        name: name.to_owned(),
        label,
        home,
        on_failure: new.on_failure,
        rewrites: new.rewrites,
        selection: new.selection,
        attachments: new.attachments.clone(),
    };
    check_attachments(transaction, &service)?;
    transaction.put(Record::Service(service.clone()));
    check_chains(transaction, tenant)?;
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
    let mut chains = transaction.state().chains();
    let its = |of: &&Chain| of.tenant == tenant && of.services.iter().any(|of| of == name);
    if let Some(chain) = chains.find(its) {
        return Err(Rejection::Conflict(format!(
            "chain `{}` goes through it: take it from that chain first",
            chain.name
        )));
    }
    remove_service(transaction, &service)
}

fn remove_service(transaction: &mut Transaction<'_>, service: &Service) -> Done<()> {
    let domain = domain_of(transaction)?;
    if service.home.is_none() {
        transaction.put(Record::Vni(VniUse {
            vni: service.label,
            tenant: None,
            service: None,
            free_at: now() + u64::from(domain.quarantine) * 1000,
        }));
    }
    transaction.delete(&key::service(&service.tenant, &service.name));
    Ok(())
}

/// Makes a chain, or changes it.
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
    for net in new.matches.source.iter().chain(&new.matches.destination) {
        if net.trunc() != *net {
            return Err(Rejection::Invalid(format!(
                "{net} has bits behind its length: {}",
                net.trunc()
            )));
        }
    }
    matches(&new.matches)?;
    let chain = Chain {
        tenant: tenant.to_owned(),
        name: name.to_owned(),
        priority: new.priority,
        matches: new.matches.clone(),
        services: new.services.clone(),
        symmetric: new.symmetric,
    };
    transaction.put(Record::Chain(chain.clone()));
    check_chains(transaction, tenant)?;
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
    Ok(())
}

/// A tenant goes: its chains and services go with it.
pub(crate) fn forget_tenant(transaction: &mut Transaction<'_>, tenant: &str) -> Done<()> {
    let state = transaction.state();
    for (key, _) in state.below(&key::chain(tenant, "")) {
        transaction.delete(key);
    }
    for service in state.services().filter(|of| of.tenant == tenant) {
        remove_service(transaction, service)?;
    }
    Ok(())
}

/// A router goes: no service has a node there.
pub(crate) fn forget_router(transaction: &mut Transaction<'_>, router: &str) {
    let services = transaction.state().services();
    for service in services.filter(|of| of.attachments.iter().any(|of| of.router == router)) {
        let mut service = service.clone();
        service.attachments.retain(|of| of.router != router);
        transaction.put(Record::Service(service));
    }
}

fn ports(list: &[Word]) -> Done<Vec<RangeInclusive<u16>>> {
    let range = |word: &Word| {
        let text = word.to_string();
        words::ports(&text).ok_or_else(|| {
            Rejection::Invalid(format!(
                "`{text}` is no port, and no range such as 8000-8100"
            ))
        })
    };
    list.iter().map(range).collect()
}

/// Conditions, read.
fn matches(of: &Match) -> Done<plan::Match> {
    let number = |word: &Word| {
        let text = word.to_string();
        let number = words::protocol_number(&text);
        number.ok_or_else(|| {
            Rejection::Invalid(format!(
                "`{text}` is no protocol: tcp, udp, sctp, icmp, icmpv6, or a number up to 255"
            ))
        })
    };
    let protocol = of.protocol.as_ref().map(number).transpose()?;
    let (source_ports, destination_ports) =
        (ports(&of.source_ports)?, ports(&of.destination_ports)?);
    if (!source_ports.is_empty() || !destination_ports.is_empty())
        && !protocol.is_some_and(words::has_ports)
    {
        return Err(Rejection::Invalid(
            "ports are of a protocol that has them: add `protocol`: tcp, udp or sctp".into(),
        ));
    }
    if of.dscp.is_some_and(|dscp| dscp > 63) {
        return Err(Rejection::Invalid("a code point is 0 to 63".into()));
    }
    Ok(plan::Match {
        sources: of.source.clone(),
        destinations: of.destination.clone(),
        protocol,
        source_ports,
        destination_ports,
        dscp: of.dscp,
    })
}

/// The tenant's chains work on every router that has one of its services.
fn check_chains(transaction: &Transaction<'_>, tenant: &str) -> Done<()> {
    let (mut services, mut chains): (Vec<Service>, Vec<Chain>) = (Vec::new(), Vec::new());
    for record in transaction.below(&key::service(tenant, "")) {
        if let Record::Service(of) = record {
            services.push(of);
        }
    }
    for record in transaction.below(&key::chain(tenant, "")) {
        if let Record::Chain(of) = record {
            chains.push(of);
        }
    }
    chains.sort_by_key(|of| of.priority);
    for chain in chains.iter().filter(|of| of.symmetric) {
        let near = |of: &&Service| {
            chain.services.contains(&of.name)
                && matches!(of.selection, Some(Selection::Nearest | Selection::Share))
        };
        if let Some(service) = services.iter().find(near) {
            return Err(Rejection::Invalid(format!(
                "both directions of the symmetric chain `{}` meet in one place, and `{}` is taken where it is near: make its `selection` \
                 `pinned`, or leave it out",
                chain.name, service.name
            )));
        }
    }
    let planned: Vec<plan::Chain> = chains
        .iter()
        .map(|of| {
            let labels = of.services.iter().filter_map(|name| {
                let service = services.iter().find(|of| of.name == *name)?;
                Vni::new(service.label).ok()
            });
            Ok(plan::Chain {
                name: of.name.clone(),
                matches: matches(&of.matches)?,
                services: labels.collect(),
                symmetric: of.symmetric,
            })
        })
        .collect::<Done<_>>()?;
    let attachments = services.iter().flat_map(|of| &of.attachments);
    let mut routers: Vec<Option<&str>> = attachments.map(|of| Some(of.router.as_str())).collect();
    routers.push(None);
    for router in routers {
        let here: Vec<plan::Service> = services
            .iter()
            .filter_map(|of| planned_service(of, router))
            .collect();
        if let Some(problem) = plan::check(&here, &planned).into_iter().next() {
            let chain = chains.get(problem.chain).map_or("", |of| of.name.as_str());
            return Err(Rejection::Invalid(format!(
                "chain `{chain}`: {}; {}",
                problem.message, problem.help
            )));
        }
    }
    Ok(())
}

/// A service as a router sees it.
fn planned_service(of: &Service, router: Option<&str>) -> Option<plan::Service> {
    let here = of
        .attachments
        .iter()
        .find(|of| Some(of.router.as_str()) == router);
    let arm = |interface: &str, node: &[IpAddr]| plan::Arm {
        interface: interface.to_owned(),
        addresses: node.to_vec(),
    };
    Some(plan::Service {
        name: of.name.clone(),
        label: Vni::new(of.label).ok()?,
        attachment: here.map(|of| plan::NodeAttachment {
            inside: arm(&of.interface, &of.node),
            outside: of.outside.as_ref().map(|of| arm(&of.interface, &of.node)),
        }),
        on_failure: plan::OnFailure::Closed,
        rewrites: of.rewrites,
        selection: plan::Selection::Nearest,
    })
}
