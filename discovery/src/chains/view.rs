//! What a router is told of services and chains.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::records::{Chain, ProbeKind, Selection, Service, ServiceAttachment, Word};
use crate::model::{State, Tenant, key};
use crate::proto;

/// Services and chains, made ready for many views.
#[derive(Default)]
pub(crate) struct Chains<'a> {
    services: HashMap<&'a str, Vec<&'a Service>>,
    chains: HashMap<&'a str, Vec<&'a Chain>>,
    /// Tenants with a service node at a router.
    at: HashMap<&'a str, BTreeSet<&'a str>>,
    /// Other domains that a tenant's packets come from.
    others: HashMap<&'a str, BTreeSet<&'a str>>,
}

impl<'a> Chains<'a> {
    pub(crate) fn new(state: &'a State) -> Self {
        let mut chains = Self::default();
        for service in state.services() {
            let one = chains.services.entry(&service.tenant).or_default();
            one.push(service);
            for attachment in &service.attachments {
                let at = chains.at.entry(&attachment.router).or_default();
                at.insert(&service.tenant);
            }
        }
        for (tenant, domain) in others(state) {
            chains.others.entry(tenant).or_default().insert(domain);
        }
        for chain in state.chains() {
            chains.chains.entry(&chain.tenant).or_default().push(chain);
        }
        chains
    }

    /// Tenants with a service node at a router.
    pub(crate) fn tenants_at(&self, router: &str) -> impl Iterator<Item = &'a str> + '_ {
        self.at.get(router).into_iter().flatten().copied()
    }

    /// Whether it takes more than the distance to choose between the routers of a tenant's services. Who passes packets on from other
    /// domains has to choose as the domain's own routers do, then: both directions meet one node, and flows are shared.
    pub(crate) fn choose(&self, tenant: &str) -> bool {
        let services = self.services.get(tenant).into_iter().flatten();
        let mut selections = services.map(|one| one.selection);
        let chains = self.chains.get(tenant).into_iter().flatten();
        let mut symmetric = chains.map(|one| one.symmetric);
        symmetric.any(|symmetric| symmetric)
            || selections.any(|one| one.is_some_and(|one| one != Selection::Nearest))
    }

    /// Adds what a router is told of a tenant's services and chains.
    pub(crate) fn tell(&self, router: &str, tenant: &mut proto::Tenant) {
        let services = self.services.get(tenant.name.as_str());
        let services = services.into_iter().flatten();
        tenant.services = services.map(|one| service(one, router)).collect();
        let chains = self.chains.get(tenant.name.as_str());
        let none = BTreeSet::new();
        let others = self.others.get(tenant.name.as_str()).unwrap_or(&none);
        let chains = chains.into_iter().flatten();
        tenant.chains = chains.map(|one| chain(one, others)).collect();
    }
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

/// Tenants that are shared, each with another domain whose packets come in here.
fn others(state: &State) -> impl Iterator<Item = (&str, &str)> {
    let shared = state.shares();
    let shared = shared.map(|one| (one.tenant.as_str(), one.domain.as_str()));
    let from = state.tenants();
    let from = from.filter_map(|one| Some((one.name.as_str(), one.home.as_deref()?)));
    shared.chain(from)
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
    let all = others(state).filter(|(tenant, _)| *tenant == chain.tenant);
    half(chain, &all.map(|(_, domain)| domain).collect())
}

/// The VNIs that a tenant's packets may have: its own, and the labels of its services.
pub(crate) fn vnis<'a>(state: &'a State, tenant: &'a Tenant) -> impl Iterator<Item = u32> + 'a {
    let services = state.services().filter(|one| one.tenant == tenant.name);
    [tenant.vni]
        .into_iter()
        .chain(services.map(|one| one.label))
}

/// Routers that are told of a tenant's services and chains.
pub(crate) fn routers(state: &State, tenant: &str) -> BTreeSet<String> {
    let prefix = key::attachment(tenant, "");
    let attached = state.below(&prefix);
    let attached = attached.filter_map(|(key, _)| Some(key.strip_prefix(&prefix)?.to_owned()));
    let services = state.services().filter(|one| one.tenant == tenant);
    let nodes = services.flat_map(|one| one.attachments.iter().map(|one| one.router.clone()));
    attached.chain(nodes).collect()
}

/// Services of ours that a domain is offered with a tenant that is shared with it: those whose labels we gave.
pub(crate) fn offered<'a>(state: &'a State, tenant: &'a str) -> BTreeMap<&'a str, &'a Service> {
    let services = state.services().filter(|one| one.tenant == tenant);
    let own = services.filter(|one| one.home.is_none());
    own.map(|one| (one.name.as_str(), one)).collect()
}
