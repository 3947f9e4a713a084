//! What a router is told of services and chains.

use std::collections::BTreeSet;

use super::records::{Chain, ProbeKind, Selection, Service, ServiceAttachment, Word};
use crate::model::{Record, State, Tenant, key};
use crate::proto;
use crate::state::by;

/// A tenant's services, by name.
pub(crate) fn services<'a>(state: &'a State, tenant: &str) -> impl Iterator<Item = &'a Service> {
    let services = state.all_below(key::service(tenant, ""));
    services.filter_map(|one| match &one.record {
        Record::Service(service) => Some(service),
        _ => None,
    })
}

/// A tenant's chains, by name.
fn chains<'a>(state: &'a State, tenant: &str) -> impl Iterator<Item = &'a Chain> {
    let chains = state.all_below(key::chain(tenant, ""));
    chains.filter_map(|one| match &one.record {
        Record::Chain(chain) => Some(chain),
        _ => None,
    })
}

/// Whether a node of a tenant's services is at a router.
pub(crate) fn has_node(state: &State, tenant: &str, router: &str) -> bool {
    let mut nodes = services(state, tenant).flat_map(|service| &service.attachments);
    nodes.any(|node| node.router == router)
}

/// Whether it takes more than the distance to choose between the routers of a tenant's services. Who passes packets on from other
/// domains has to choose as the domain's own routers do, then: both directions meet one node, and flows are shared.
pub(crate) fn choose(state: &State, tenant: &str) -> bool {
    let mut selections = services(state, tenant).filter_map(|service| service.selection);
    chains(state, tenant).any(|chain| chain.symmetric)
        || selections.any(|selection| selection != Selection::Nearest)
}

/// Adds what a router is told of a tenant's services and chains.
pub(crate) fn tell(state: &State, tenant: &Tenant, router: &str, told: &mut proto::Tenant) {
    let services = services(state, &tenant.name);
    told.services = services.map(|one| service(one, router)).collect();
    let others = others(state, tenant);
    let chains = chains(state, &tenant.name);
    told.chains = chains.map(|one| chain(one, &others)).collect();
}

fn service(one: &Service, router: &str) -> proto::Service {
    let here = one.attachments.iter().find(|one| one.router == router);
    proto::Service {
        name: one.name.clone(),
        label: one.label,
        on_failure: one.on_failure.to_string(),
        rewrites: one.rewrites,
        selection: one.selection.map(|one| one.to_string()).unwrap_or_default(),
        attachment: here.map(attachment),
    }
}

fn attachment(one: &ServiceAttachment) -> proto::ServiceAttachment {
    let texts = |one: &[std::net::IpAddr]| one.iter().map(ToString::to_string).collect();
    let arm = |interface: &str, node: &[std::net::IpAddr]| proto::Arm {
        interface: interface.to_owned(),
        node: texts(node),
    };
    proto::ServiceAttachment {
        inside: Some(arm(&one.interface, &one.node)),
        outside: one
            .outside
            .as_ref()
            .map(|one| arm(&one.interface, &one.node)),
        probe: one.probe.as_ref().map(|one| proto::Probe {
            kind: match one.kind {
                ProbeKind::Icmp => "icmp",
                ProbeKind::Tcp => "tcp",
                ProbeKind::Http => "http",
                ProbeKind::None => "none",
            }
            .to_owned(),
            port: one.port.map(u32::from),
            path: one.path.clone(),
            interval: one.interval,
        }),
    }
}

fn chain(one: &Chain, others: &BTreeSet<&str>) -> proto::Chain {
    fn texts<T: ToString>(one: &[T]) -> Vec<String> {
        one.iter().map(ToString::to_string).collect()
    }
    proto::Chain {
        name: one.name.clone(),
        priority: one.priority,
        source: texts(&one.matches.source),
        destination: texts(&one.matches.destination),
        protocol: one.matches.protocol.as_ref().map(Word::to_string),
        source_ports: texts(&one.matches.source_ports),
        destination_ports: texts(&one.matches.destination_ports),
        dscp: one.matches.dscp.map(u32::from),
        services: one.services.clone(),
        symmetric: one.symmetric,
        note: half(one, others).unwrap_or_default(),
    }
}

/// Other domains that a tenant's packets come from.
fn others<'a>(state: &'a State, tenant: &'a Tenant) -> BTreeSet<&'a str> {
    let shared = state.by(&by::shared(&tenant.name));
    let shared = shared.filter_map(|one| match &one.record {
        Record::Share(share) => Some(share.domain.as_str()),
        _ => None,
    });
    shared.chain(tenant.home.as_deref()).collect()
}

/// What is to be known of a symmetric chain whose tenant other domains have too: packets of the other direction that come in there go
/// through its services where that domain has the chain.
fn half(one: &Chain, others: &BTreeSet<&str>) -> Option<String> {
    if !one.symmetric || others.is_empty() {
        return None;
    }
    let names: Vec<String> = others.iter().map(|name| format!("`{name}`")).collect();
    Some(format!(
        "packets that come in at routers of {} go through these services only where the same chain stands there too: each domain leads the \
         packets that come in at its own routers",
        names.join(", ")
    ))
}

/// The same of a chain in a state.
pub(crate) fn note(state: &State, chain: &Chain) -> Option<String> {
    let tenant = state.tenant(&key::tenant(&chain.tenant))?;
    half(chain, &others(state, tenant))
}

/// The VNIs that a tenant's packets may have: its own, and the labels of its services.
pub(crate) fn vnis<'a>(state: &'a State, tenant: &'a Tenant) -> impl Iterator<Item = u32> + 'a {
    let services = services(state, &tenant.name);
    [tenant.vni]
        .into_iter()
        .chain(services.map(|one| one.label))
}

/// Routers that are told of a tenant's services and chains.
pub(crate) fn routers(state: &State, tenant: &str) -> BTreeSet<String> {
    let attached = state.all_below(key::attachment(tenant, ""));
    let attached = attached.filter_map(|one| match &one.record {
        Record::Attachment(attachment) => Some(attachment.router.clone()),
        _ => None,
    });
    let nodes = services(state, tenant).flat_map(|service| &service.attachments);
    attached
        .chain(nodes.map(|node| node.router.clone()))
        .collect()
}

/// Services of ours that a domain is offered with a tenant that is shared with it: those whose labels we gave.
pub(crate) fn offered<'a>(
    state: &'a State,
    tenant: &str,
) -> impl Iterator<Item = (&'a str, &'a Service)> {
    let own = services(state, tenant).filter(|service| service.home.is_none());
    own.map(|service| (service.name.as_str(), service))
}
