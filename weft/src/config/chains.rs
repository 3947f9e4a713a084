//! Services and service chains of a tenant.

use std::collections::HashMap;
use std::net::IpAddr;
use std::ops::RangeInclusive;

use ipnet::IpNet;
use schemars::JsonSchema;
use serde::{Serialize, Serializer};
use weft_overlay::Vni;
use weft_overlay::chain::{self, words};

use super::reader::{At, Cursor, Fields};
use super::values::{interface, name, number, number_of, prefixes, unicast, unique, vni};
use super::{defaults, serial};

/// A service that a tenant's packets may go through: a firewall, an inspection, a cache. Its node sees plain IP packets.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Service {
    /// Unique in the tenant: letters, digits, `-`, `_` and `.`, at most 63.
    #[schemars(regex(pattern = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$"))]
    pub name: String,
    /// The VNI that is its label, on every router that has it: of this service alone.
    #[serde(serialize_with = "serial::vni")]
    #[schemars(with = "serial::VniNumber")]
    pub label: Vni,
    /// The interface to its node, where that is attached to this router; left out where the service is elsewhere.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 15))]
    pub interface: Option<String>,
    /// The node's addresses there, at most one of each family: packets of the other family do not get there.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(with = "serial::NodeSchema")]
    pub node: Vec<IpAddr>,
    /// A second arm, where packets come back; those of the other direction of a symmetric chain go in here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outside: Option<Outside>,
    /// What becomes of its packets when its node fails: dropped (`closed`), past it (`open`), to the next router with its label
    /// (`over`).
    #[serde(default)]
    pub on_failure: OnFailure,
    /// It changes addresses or ports, as source NAT does: conditions do not recognize a packet behind it.
    #[serde(default)]
    pub rewrites: bool,
    /// Which of several routers that have it is taken. `pinned` in symmetric chains, else `nearest`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub selection: Option<Selection>,
    /// How its node is asked whether it works.
    #[serde(default, skip_serializing_if = "Probe::is_default")]
    pub probe: Probe,
}

/// The second arm of a service node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Outside {
    /// The interface.
    #[schemars(length(min = 1, max = 15))]
    pub interface: String,
    /// The node's addresses there.
    #[schemars(with = "serial::NodeSchema")]
    pub node: Vec<IpAddr>,
}

/// What becomes of packets for a service whose node fails.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum OnFailure {
    /// They are dropped, and counted.
    #[default]
    Closed,
    /// They skip it.
    Open,
    /// They go to the next router that has its label.
    Over,
}

/// Which of several routers that have a service is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Selection {
    /// The nearest; one of several that are equally near.
    Nearest,
    /// All that are equally near, each flow by one of them.
    Share,
    /// The one with the lowest endpoint, whoever asks: both directions of a flow meet there.
    Pinned,
}

/// How a service node is asked whether it works. Three intervals after it stopped nobody sends it packets any more.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Probe {
    /// The question.
    #[serde(default)]
    pub kind: ProbeKind,
    /// TCP port; 80 by default for `http`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub port: Option<u16>,
    /// Path of `http`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// Milliseconds from one to the next, and to wait for an answer.
    #[serde(default = "defaults::probe_interval")]
    #[schemars(range(min = 50, max = 60_000))]
    pub interval: u32,
}

impl Probe {
    fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

impl Default for Probe {
    fn default() -> Self {
        Self {
            kind: ProbeKind::default(),
            port: None,
            path: None,
            interval: defaults::probe_interval(),
        }
    }
}

/// What a service node is asked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum ProbeKind {
    /// An ICMP echo of every address.
    #[default]
    Icmp,
    /// A TCP connection to the first address of each arm.
    Tcp,
    /// `GET` there, which is to be answered with a status of 2xx or 3xx.
    Http,
    /// Nothing: it works while its links are up.
    None,
}

/// Services that some of a tenant's packets go through, in order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Chain {
    /// Unique in the tenant: letters, digits, `-`, `_` and `.`, at most 63.
    #[schemars(regex(pattern = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$"))]
    pub name: String,
    /// Of several chains that match the one with the lowest number is taken; the first of equal ones.
    #[serde(default = "defaults::priority")]
    pub priority: u32,
    /// Which packets, of those that come in by the tenant's interfaces; all where it says nothing.
    #[serde(default, rename = "match", skip_serializing_if = "Match::is_all")]
    pub matches: Match,
    /// Names of the tenant's services. None leads what matches past all chains behind this one.
    #[schemars(length(max = 16))]
    pub services: Vec<String>,
    /// Packets of the other direction go through the same services from the other end.
    #[serde(default)]
    pub symmetric: bool,
}

/// Which packets: all conditions hold.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Match {
    /// One of these has the source.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(with = "Vec<serial::Prefix>")]
    pub source: Vec<IpNet>,
    /// One of these has the destination.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(with = "Vec<serial::Prefix>")]
    pub destination: Vec<IpNet>,
    /// `tcp`, `udp`, `sctp`, `icmp`, `icmpv6`, or a number.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        serialize_with = "protocol_name"
    )]
    #[schemars(with = "Option<serial::ProtocolSchema>")]
    pub protocol: Option<u8>,
    /// Source ports, numbers and ranges, of TCP, UDP or SCTP.
    #[serde(
        default,
        skip_serializing_if = "Vec::is_empty",
        serialize_with = "port_ranges"
    )]
    #[schemars(with = "Vec<serial::PortsSchema>")]
    pub source_ports: Vec<RangeInclusive<u16>>,
    /// Destination ports. A fragment that does not say its ports is taken for one that has them, and dropped where another chain may be meant.
    #[serde(
        default,
        skip_serializing_if = "Vec::is_empty",
        serialize_with = "port_ranges"
    )]
    #[schemars(with = "Vec<serial::PortsSchema>")]
    pub destination_ports: Vec<RangeInclusive<u16>>,
    /// Differentiated services code point.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(max = 63))]
    pub dscp: Option<u8>,
}

impl Match {
    fn is_all(&self) -> bool {
        *self == Self::default()
    }
}

#[expect(clippy::ref_option, reason = "serde asks so")]
fn protocol_name<S: Serializer>(protocol: &Option<u8>, to: S) -> Result<S::Ok, S::Error> {
    let number = protocol.unwrap_or_default();
    match words::protocol_name(number) {
        Some(name) => to.serialize_str(name),
        None => to.serialize_u8(number),
    }
}

fn port_ranges<S: Serializer>(ranges: &[RangeInclusive<u16>], to: S) -> Result<S::Ok, S::Error> {
    to.collect_seq(
        ranges
            .iter()
            .map(|range| match range.start() == range.end() {
                true => serde_json::Value::from(*range.start()),
                false => format!("{}-{}", range.start(), range.end()).into(),
            }),
    )
}

/// A tenant's services as the overlay wants them.
pub(crate) fn services(tenant: &super::Tenant) -> Vec<chain::Service> {
    let services = tenant.services.iter();
    services
        .map(|one| service_of(one, &tenant.chains))
        .collect()
}

/// A tenant's chains as the overlay wants them, by priority.
pub(crate) fn chains(tenant: &super::Tenant) -> Vec<chain::Chain> {
    chains_of(&tenant.services, &tenant.chains)
        .into_iter()
        .map(|(_, chain)| chain)
        .collect()
}

/// The same, each with its place in the configuration.
fn chains_of(services: &[Service], chains: &[Chain]) -> Vec<(usize, chain::Chain)> {
    let labels: HashMap<&str, Vni> = services
        .iter()
        .map(|one| (one.name.as_str(), one.label))
        .collect();
    let mut sorted: Vec<(usize, &Chain)> = chains.iter().enumerate().collect();
    sorted.sort_by_key(|(_, chain)| chain.priority);
    let sorted = sorted.into_iter();
    sorted
        .map(|(at, one)| {
            let names = one.services.iter();
            let chain = chain::Chain {
                name: one.name.clone(),
                matches: chain::Match {
                    sources: one.matches.source.clone(),
                    destinations: one.matches.destination.clone(),
                    protocol: one.matches.protocol,
                    source_ports: one.matches.source_ports.clone(),
                    destination_ports: one.matches.destination_ports.clone(),
                    dscp: one.matches.dscp,
                },
                services: names
                    .filter_map(|name| labels.get(name.as_str()).copied())
                    .collect(),
                symmetric: one.symmetric,
            };
            (at, chain)
        })
        .collect()
}

fn service_of(one: &Service, chains: &[Chain]) -> chain::Service {
    let symmetric = chains
        .iter()
        .any(|chain| chain.symmetric && chain.services.contains(&one.name));
    let selection = match one.selection {
        Some(Selection::Nearest) => chain::Selection::Nearest,
        Some(Selection::Share) => chain::Selection::Share,
        Some(Selection::Pinned) => chain::Selection::Pinned,
        None if symmetric => chain::Selection::Pinned,
        None => chain::Selection::Nearest,
    };
    chain::Service {
        name: one.name.clone(),
        label: one.label,
        attachment: one
            .interface
            .as_ref()
            .map(|interface| chain::NodeAttachment {
                inside: chain::Arm {
                    interface: interface.clone(),
                    addresses: one.node.clone(),
                },
                outside: one.outside.as_ref().map(|outside| chain::Arm {
                    interface: outside.interface.clone(),
                    addresses: outside.node.clone(),
                }),
            }),
        on_failure: match one.on_failure {
            OnFailure::Closed => chain::OnFailure::Closed,
            OnFailure::Open => chain::OnFailure::Open,
            OnFailure::Over => chain::OnFailure::Over,
        },
        rewrites: one.rewrites,
        selection,
    }
}

/// Services and chains as they stand in a tenant, with the places of what must be unique among all tenants.
pub(super) struct ReadChains<'a> {
    pub(super) services: Vec<Service>,
    pub(super) chains: Vec<Chain>,
    pub(super) labels: Vec<At<'a, (String, Vni)>>,
    pub(super) interfaces: Vec<At<'a, String>>,
}

struct ReadService<'a> {
    service: Service,
    name: Cursor<'a>,
    label: Cursor<'a>,
    interfaces: Vec<At<'a, String>>,
}

/// Reads `services` and `chains`.
pub(super) fn read<'a>(fields: &mut Fields<'a>) -> ReadChains<'a> {
    let services = fields
        .optional("services", |at| {
            at.list("a list of services", |at| service(&at))
        })
        .unwrap_or_default();
    unique(
        services
            .iter()
            .map(|at| (at.value.service.name.as_str(), &at.value.name)),
        |name| format!("the service `{name}` stands here for a second time"),
    );
    let known: Vec<&Service> = services.iter().map(|at| &at.value.service).collect();
    let chains = fields
        .optional("chains", |at| {
            at.list("a list of chains", |at| chain(&at, &known))
        })
        .unwrap_or_default();
    unique(
        chains
            .iter()
            .map(|at| (at.value.0.name.as_str(), &at.value.1)),
        |name| format!("the chain `{name}` stands here for a second time"),
    );
    let (mut labels, mut interfaces, mut plain) = (Vec::new(), Vec::new(), Vec::new());
    for at in services {
        let one = at.value;
        labels.push(At {
            value: (one.service.name.clone(), one.service.label),
            at: one.label,
        });
        interfaces.extend(one.interfaces);
        plain.push(one.service);
    }
    let places: Vec<Cursor<'a>> = chains.iter().map(|at| at.at.clone()).collect();
    let chains: Vec<Chain> = chains.into_iter().map(|at| at.value.0).collect();
    let resolved: Vec<chain::Service> = plain.iter().map(|one| service_of(one, &chains)).collect();
    let (numbers, sorted): (Vec<usize>, Vec<chain::Chain>) =
        chains_of(&plain, &chains).into_iter().unzip();
    for problem in chain::check(&resolved, &sorted) {
        let number = numbers.get(problem.chain).copied().unwrap_or_default();
        if let Some(at) = places.get(number) {
            at.problem(problem.message, Some(problem.help));
        }
    }
    ReadChains {
        services: plain,
        chains,
        labels,
        interfaces,
    }
}

fn node(at: &Cursor<'_>) -> Option<Vec<IpAddr>> {
    let addresses = match at.is_sequence() {
        true => {
            let list = at.list("a list of addresses", |at| unicast(&at))?;
            list.into_iter().map(|at| at.value).collect()
        }
        false => vec![unicast(at)?],
    };
    let v4 = addresses.iter().filter(|one| one.is_ipv4()).count();
    match (addresses.len(), v4) {
        (0, _) => at.expected("the address of the service node on the link"),
        (all, v4) if v4 > 1 || all - v4 > 1 => {
            at.problem("a node has one address of each family here at most", None);
            None
        }
        _ => Some(addresses),
    }
}

fn service<'a>(at: &Cursor<'a>) -> Option<ReadService<'a>> {
    let mut fields = at.fields("a mapping with `name` and `label`")?;
    let placed_name = fields.required("name", "a name for humans, such as `firewall`", |at| {
        name(&at).map(|value| At { value, at })
    });
    let label = fields.required(
        "label",
        "the VNI that is the service's label, 1 to 16777214, the same on every router that has it",
        |at| vni(&at).map(|value| At { value, at }),
    );
    let placed = |at: Cursor<'a>| interface(&at).map(|value| At { value, at });
    let inside = fields.optional("interface", placed);
    let attached = fields.get("interface").is_some();
    let addresses = match attached {
        true => fields.required(
            "node",
            "the address of the service node on the link",
            |at| node(&at),
        ),
        false => {
            for key in ["node", "outside", "probe"] {
                if let Some(at) = fields.get(key) {
                    at.problem(
                        "this is of a service that is attached here",
                        Some("add `interface`, or leave it out".to_owned()),
                    );
                }
            }
            Some(Vec::new())
        }
    };
    let outside = fields.optional("outside", |at| {
        let mut fields = at.fields("a mapping with `interface` and `node`")?;
        let interface = fields.required("interface", "the interface of the second arm", placed);
        let addresses = fields.required("node", "the node's address there", |at| node(&at));
        fields.finish();
        let interface = interface?;
        let outside = Outside {
            interface: interface.value.clone(),
            node: addresses?,
        };
        Some((outside, interface))
    });
    let on_failure = fields.optional("on_failure", |at| {
        at.choice(&[
            ("closed", OnFailure::Closed),
            ("open", OnFailure::Open),
            ("over", OnFailure::Over),
        ])
    });
    let rewrites = fields.optional("rewrites", |at| at.bool());
    let selection = fields.optional("selection", |at| {
        at.choice(&[
            ("nearest", Selection::Nearest),
            ("share", Selection::Share),
            ("pinned", Selection::Pinned),
        ])
    });
    let probe = fields.optional("probe", |at| probe(&at));
    fields.finish();
    let (placed_name, label) = (placed_name?, label?);
    let (outside, second) = outside.unzip();
    Some(ReadService {
        service: Service {
            name: placed_name.value,
            label: label.value,
            interface: inside.as_ref().map(|at| at.value.clone()),
            node: addresses?,
            outside,
            on_failure: on_failure.unwrap_or_default(),
            rewrites: rewrites.unwrap_or_default(),
            selection,
            probe: probe.unwrap_or_default(),
        },
        name: placed_name.at,
        label: label.at,
        interfaces: inside.into_iter().chain(second).collect(),
    })
}

fn probe(at: &Cursor<'_>) -> Option<Probe> {
    let mut fields = at.fields("a mapping such as `{ kind: tcp, port: 80 }`")?;
    let kind = fields.optional("kind", |at| {
        at.choice(&[
            ("icmp", ProbeKind::Icmp),
            ("tcp", ProbeKind::Tcp),
            ("http", ProbeKind::Http),
            ("none", ProbeKind::None),
        ])
    });
    let kind = kind.unwrap_or_default();
    let port = match kind {
        ProbeKind::Tcp => fields.required("port", "the TCP port to connect to", |at| {
            number(&at, "a TCP port", 1, 65535)
        }),
        _ => fields.optional("port", |at| number(&at, "a TCP port", 1, 65535)),
    };
    let path = fields.optional("path", |at| match at.scalar() {
        Some(path) => match weft_overlay::words::http_path(path) {
            Ok(()) => Some(path.to_owned()),
            Err(expected) => at.expected(expected),
        },
        None => at.expected("a path such as /health"),
    });
    let interval = fields.optional("interval", |at| number_of(&at, "milliseconds", 50, 60_000));
    for (key, fits) in [
        ("port", matches!(kind, ProbeKind::Tcp | ProbeKind::Http)),
        ("path", kind == ProbeKind::Http),
    ] {
        if let Some(at) = fields.get(key).filter(|_| !fits) {
            at.problem(format!("a probe of this kind has no `{key}`"), None);
        }
    }
    fields.finish();
    Some(Probe {
        kind,
        port,
        path,
        interval: interval.unwrap_or_else(defaults::probe_interval),
    })
}

fn chain<'a>(at: &Cursor<'a>, known: &[&Service]) -> Option<(Chain, Cursor<'a>)> {
    let mut fields = at.fields("a mapping with `name` and `services`")?;
    let placed = fields.required("name", "a name for humans, such as `web`", |at| {
        name(&at).map(|value| At { value, at })
    });
    let priority = fields.optional("priority", |at| {
        number_of(&at, "a priority", 0, u64::from(u32::MAX))
    });
    let matches = fields.optional("match", |at| conditions(&at));
    let symmetric = fields
        .optional("symmetric", |at| at.bool())
        .unwrap_or_default();
    let services = fields.required(
        "services",
        "names of the tenant's services, in order; `[]` leads packets past other chains",
        |at| {
            let names = at.list("a list of names of the tenant's services", |at| {
                let name = name(&at)?;
                let Some(service) = known.iter().find(|one| one.name == name) else {
                    let names: Vec<&str> = known.iter().map(|one| one.name.as_str()).collect();
                    at.problem(
                        format!("`{name}` is no service of this tenant"),
                        Some(match names.is_empty() {
                            true => "add it to the tenant's `services`, with its label".to_owned(),
                            false => format!("its services are {}", names.join(", ")),
                        }),
                    );
                    return None;
                };
                if symmetric
                    && matches!(
                        service.selection,
                        Some(Selection::Nearest | Selection::Share)
                    )
                {
                    at.problem(
                        format!(
                            "both directions of a symmetric chain meet in one place, and `{name}` is taken where it is near"
                        ),
                        Some("make its `selection` `pinned`, or leave it out".to_owned()),
                    );
                }
                Some(name)
            })?;
            Some(names.into_iter().map(|at| at.value).collect())
        },
    );
    fields.finish();
    let placed = placed?;
    let chain = Chain {
        name: placed.value,
        priority: priority.unwrap_or_else(defaults::priority),
        matches: matches.unwrap_or_default(),
        services: services?,
        symmetric,
    };
    Some((chain, placed.at))
}

fn conditions(at: &Cursor<'_>) -> Option<Match> {
    let mut fields = at.fields("a mapping of conditions such as `destination: [10.0.2.0/24]`")?;
    let source = fields.optional("source", |at| prefixes(&at));
    let destination = fields.optional("destination", |at| prefixes(&at));
    let protocol = fields.optional("protocol", |at| protocol(&at));
    let ports = |at: Cursor<'_>| {
        let ranges = at.list(
            "a list of ports and ranges, such as [80, 8000-8100]",
            |at| ports(&at),
        )?;
        Some(ranges.into_iter().map(|at| at.value).collect::<Vec<_>>())
    };
    let source_ports = fields.optional("source_ports", ports);
    let destination_ports = fields.optional("destination_ports", ports);
    let dscp = fields.optional("dscp", |at| number_of(&at, "a code point", 0, 63));
    let has_ports = protocol.is_some_and(words::has_ports);
    for key in ["source_ports", "destination_ports"] {
        if let Some(at) = fields.get(key)
            && !has_ports
        {
            at.problem(
                "ports are of a protocol that has them",
                Some("add `protocol: tcp`, `udp` or `sctp`".to_owned()),
            );
        }
    }
    fields.finish();
    Some(Match {
        source: source.unwrap_or_default(),
        destination: destination.unwrap_or_default(),
        protocol,
        source_ports: source_ports.unwrap_or_default(),
        destination_ports: destination_ports.unwrap_or_default(),
        dscp,
    })
}

fn protocol(at: &Cursor<'_>) -> Option<u8> {
    let number = at.scalar().and_then(words::protocol_number);
    number.or_else(|| at.expected("tcp, udp, sctp, icmp, icmpv6, or the number of a protocol"))
}

fn ports(at: &Cursor<'_>) -> Option<RangeInclusive<u16>> {
    let range = at.scalar().and_then(words::ports);
    range.or_else(|| at.expected("a port or a range such as 8000-8100, within 0 to 65535"))
}

/// A label is one service's, and no tenant's VNI.
pub(super) fn check_labels<'a>(
    tenants: impl Iterator<Item = (&'a str, &'a [At<'a, Vni>], &'a [At<'a, (String, Vni)>])> + Clone,
) {
    let mut owners: HashMap<Vni, String> = HashMap::new();
    for (tenant, vnis, _) in tenants.clone() {
        for vni in vnis {
            owners.insert(vni.value, format!("a VNI of the tenant `{tenant}`"));
        }
    }
    for (tenant, _, labels) in tenants {
        for label in labels {
            let (name, vni) = &label.value;
            match owners.get(vni) {
                Some(owner) => label.at.problem(
                    format!("label {vni} is {owner}"),
                    Some(
                        "a label names one service of one tenant; give the node an attachment and a label for each tenant"
                            .to_owned(),
                    ),
                ),
                None => {
                    owners.insert(
                        *vni,
                        format!("the service `{name}` of the tenant `{tenant}`"),
                    );
                }
            }
        }
    }
}
