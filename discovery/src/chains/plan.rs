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
pub(super) fn matches(of: &Match) -> Done<plan::Match> {
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

/// The tenant's services, with a transaction's own changes.
pub(super) fn services(transaction: &Transaction<'_>, tenant: &str) -> Vec<Service> {
    let records = transaction.below(&key::service(tenant, "")).into_iter();
    let services = records.filter_map(|of| match of {
        Record::Service(of) => Some(of),
        _ => None,
    });
    services.collect()
}

/// The tenant's chains by priority, with a transaction's own changes.
pub(super) fn chains(transaction: &Transaction<'_>, tenant: &str) -> Vec<Chain> {
    let records = transaction.below(&key::chain(tenant, "")).into_iter();
    let chains = records.filter_map(|of| match of {
        Record::Chain(of) => Some(of),
        _ => None,
    });
    let mut chains: Vec<Chain> = chains.collect();
    chains.sort_by_key(|of| of.priority);
    chains
}

/// The tenant's chains work on every router that has one of its services.
pub(super) fn check(transaction: &Transaction<'_>, tenant: &str) -> Done<()> {
    let (services, chains) = (services(transaction, tenant), chains(transaction, tenant));
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
    let planned = planned_chains(&services, &chains)?;
    let attachments = services.iter().flat_map(|of| &of.attachments);
    let mut routers: Vec<Option<&str>> = attachments.map(|of| Some(of.router.as_str())).collect();
    routers.push(None);
    for router in routers {
        let here = planned_services(&services, router);
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

/// Chains, by the labels of their services.
pub(super) fn planned_chains(services: &[Service], chains: &[Chain]) -> Done<Vec<plan::Chain>> {
    let planned = chains.iter().map(|of| {
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
    });
    planned.collect()
}

/// Services as a router sees them.
pub(super) fn planned_services(services: &[Service], router: Option<&str>) -> Vec<plan::Service> {
    let planned = services.iter().filter_map(|of| planned_service(of, router));
    planned.collect()
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
