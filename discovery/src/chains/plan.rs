//! A tenant's services and chains as routers plan by them.

use std::net::IpAddr;
use std::ops::RangeInclusive;

use weft_overlay::Vni;
use weft_overlay::chain::{self as plan, words};

use super::records::{Chain, Match, Selection, Service, Word};
use crate::database::{Rejection, Transaction};
use crate::model::{Record, key};
use crate::operations::Done;

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
pub(super) fn matches(one: &Match) -> Done<plan::Match> {
    let number = |word: &Word| {
        let text = word.to_string();
        let number = words::protocol_number(&text);
        number.ok_or_else(|| {
            Rejection::Invalid(format!(
                "`{text}` is no protocol: tcp, udp, sctp, icmp, icmpv6, or a number up to 255"
            ))
        })
    };
    let protocol = one.protocol.as_ref().map(number).transpose()?;
    let (source_ports, destination_ports) =
        (ports(&one.source_ports)?, ports(&one.destination_ports)?);
    if (!source_ports.is_empty() || !destination_ports.is_empty())
        && !protocol.is_some_and(words::has_ports)
    {
        return Err(Rejection::Invalid(
            "ports are of a protocol that has them: add `protocol`: tcp, udp or sctp".into(),
        ));
    }
    if one.dscp.is_some_and(|dscp| dscp > 63) {
        return Err(Rejection::Invalid("a code point is 0 to 63".into()));
    }
    Ok(plan::Match {
        sources: one.source.clone(),
        destinations: one.destination.clone(),
        protocol,
        source_ports,
        destination_ports,
        dscp: one.dscp,
    })
}

/// The tenant's services, with a transaction's own changes.
pub(super) fn services(transaction: &Transaction<'_>, tenant: &str) -> Vec<Service> {
    let records = transaction.below(&key::service(tenant, "")).into_iter();
    let services = records.filter_map(|one| match one {
        Record::Service(one) => Some(one),
        _ => None,
    });
    services.collect()
}

/// The tenant's chains by priority, with a transaction's own changes.
pub(super) fn chains(transaction: &Transaction<'_>, tenant: &str) -> Vec<Chain> {
    let records = transaction.below(&key::chain(tenant, "")).into_iter();
    let chains = records.filter_map(|one| match one {
        Record::Chain(one) => Some(one),
        _ => None,
    });
    let mut chains: Vec<Chain> = chains.collect();
    chains.sort_by_key(|one| one.priority);
    chains
}

/// The tenant's chains work on every router that has one of its services.
pub(super) fn check(transaction: &Transaction<'_>, tenant: &str) -> Done<()> {
    let (services, chains) = (services(transaction, tenant), chains(transaction, tenant));
    for chain in chains.iter().filter(|one| one.symmetric) {
        let near = |one: &&Service| {
            chain.services.contains(&one.name)
                && matches!(one.selection, Some(Selection::Nearest | Selection::Share))
        };
        if let Some(service) = services.iter().find(near) {
            return Err(Rejection::Invalid(format!(
                "both directions of the symmetric chain `{}` meet in one place, and `{}` is taken where it is near: make its `selection` \
                 `pinned`, or leave it out",
                chain.name, service.name
            )));
        }
    }
    let planned = planned_chains(&services, &chains)?;
    let attachments = services.iter().flat_map(|one| &one.attachments);
    let mut routers: Vec<Option<&str>> = attachments.map(|one| Some(one.router.as_str())).collect();
    routers.push(None);
    for router in routers {
        let here = planned_services(&services, router);
        if let Some(problem) = plan::check(&here, &planned).into_iter().next() {
            let chain = chains
                .get(problem.chain)
                .map_or("", |one| one.name.as_str());
            return Err(Rejection::Invalid(format!(
                "chain `{chain}`: {}; {}",
                problem.message, problem.help
            )));
        }
    }
    Ok(())
}

/// Chains, by the labels of their services.
pub(super) fn planned_chains<'a>(
    services: &[Service],
    chains: impl IntoIterator<Item = &'a Chain>,
) -> Done<Vec<plan::Chain>> {
    let planned = chains.into_iter().map(|one| {
        let labels = one.services.iter().filter_map(|name| {
            let service = services.iter().find(|one| one.name == *name)?;
            Vni::new(service.label).ok()
        });
        Ok(plan::Chain {
            name: one.name.clone(),
            matches: matches(&one.matches)?,
            services: labels.collect(),
            symmetric: one.symmetric,
        })
    });
    planned.collect()
}

/// Services as a router sees them.
pub(super) fn planned_services(services: &[Service], router: Option<&str>) -> Vec<plan::Service> {
    let planned = services
        .iter()
        .filter_map(|one| planned_service(one, router));
    planned.collect()
}

/// A service as a router sees it.
fn planned_service(one: &Service, router: Option<&str>) -> Option<plan::Service> {
    let here = one
        .attachments
        .iter()
        .find(|one| Some(one.router.as_str()) == router);
    let arm = |interface: &str, node: &[IpAddr]| plan::Arm {
        interface: interface.to_owned(),
        addresses: node.to_vec(),
    };
    Some(plan::Service {
        name: one.name.clone(),
        label: Vni::new(one.label).ok()?,
        attachment: here.map(|one| plan::NodeAttachment {
            inside: arm(&one.interface, &one.node),
            outside: one
                .outside
                .as_ref()
                .map(|one| arm(&one.interface, &one.node)),
        }),
        on_failure: plan::OnFailure::Closed,
        rewrites: one.rewrites,
        selection: plan::Selection::Nearest,
    })
}
