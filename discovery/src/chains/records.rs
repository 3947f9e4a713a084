//! What a domain keeps of services and chains.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// A service that a tenant's packets may go through.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Service {
    /// The tenant's name.
    pub tenant: String,
    /// Unique in the tenant.
    pub name: String,
    /// The VNI that is its label, on every router that has it.
    pub label: u32,
    /// Whose label that is, where another domain gave it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub home: Option<String>,
    /// Its name there; the same where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub home_name: Option<String>,
    /// What becomes of its packets when its node fails.
    #[serde(default)]
    pub on_failure: OnFailure,
    /// It changes addresses or ports: conditions do not recognize a packet behind it.
    #[serde(default)]
    pub rewrites: bool,
    /// Which of several routers that have it is taken; `pinned` in symmetric chains, else `nearest`, where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub selection: Option<Selection>,
    /// Where its nodes are.
    #[serde(default)]
    pub attachments: Vec<ServiceAttachment>,
}

impl Service {
    /// One of which no more is known.
    pub(super) fn named(name: &str, label: u32) -> Self {
        Self {
            tenant: String::new(),
            name: name.to_owned(),
            label,
            home: None,
            home_name: None,
            on_failure: OnFailure::default(),
            rewrites: false,
            selection: None,
            attachments: Vec::new(),
        }
    }
}

/// What becomes of packets for a service whose node fails.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum OnFailure {
    /// They are dropped, and counted.
    #[default]
    Closed,
    /// They skip it.
    Open,
    /// They go to the next router that has its label.
    Over,
}

impl fmt::Display for OnFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Closed => "closed",
            Self::Open => "open",
            Self::Over => "over",
        })
    }
}

/// Which of several routers that have a service is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Selection {
    /// The nearest; one of several that are equally near.
    Nearest,
    /// All that are equally near, each flow by one of them.
    Share,
    /// The one with the lowest endpoint, whoever asks: both directions of a flow meet there.
    Pinned,
}

impl fmt::Display for Selection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Nearest => "nearest",
            Self::Share => "share",
            Self::Pinned => "pinned",
        })
    }
}

/// A node of a service at a router.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ServiceAttachment {
    /// The router's name.
    pub router: String,
    /// The interface to the node.
    pub interface: String,
    /// The node's addresses there, at most one of each family.
    #[schema(value_type = Vec<String>)]
    pub node: Vec<IpAddr>,
    /// A second arm, where packets come back; those of the other direction of a symmetric chain go in here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outside: Option<Outside>,
    /// How the node is asked whether it works; an ICMP echo a second where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub probe: Option<Probe>,
}

impl ServiceAttachment {
    /// The interfaces to the node.
    pub(crate) fn interfaces(&self) -> impl Iterator<Item = &str> {
        let outside = self.outside.iter().map(|arm| arm.interface.as_str());
        [self.interface.as_str()].into_iter().chain(outside)
    }
}

/// The second arm of a service node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Outside {
    /// The interface.
    pub interface: String,
    /// The node's addresses there.
    #[schema(value_type = Vec<String>)]
    pub node: Vec<IpAddr>,
}

/// How a service node is asked whether it works.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Probe {
    /// The question.
    #[serde(default)]
    pub kind: ProbeKind,
    /// TCP port; 80 by default for `http`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// Path of `http`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// Milliseconds from one to the next, 50 to 60000; 1000 where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interval: Option<u32>,
}

/// What a service node is asked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum ProbeKind {
    /// An ICMP echo.
    #[default]
    Icmp,
    /// A TCP connection.
    Tcp,
    /// `GET`, which is to be answered with a status of 2xx or 3xx.
    Http,
    /// Nothing: it works while its links are up.
    None,
}

/// Services that some of a tenant's packets go through, in order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Chain {
    /// The tenant's name.
    pub tenant: String,
    /// Unique in the tenant.
    pub name: String,
    /// Of several chains that match the one with the lowest number is taken.
    #[serde(default = "priority")]
    pub priority: u32,
    /// Which packets, of those that come in by the tenant's interfaces; all where it says nothing.
    #[serde(default, rename = "match")]
    pub matches: Match,
    /// Names of the tenant's services. None leads what matches past all chains behind this one.
    pub services: Vec<String>,
    /// Packets of the other direction go through the same services from the other end.
    #[serde(default)]
    pub symmetric: bool,
    /// What is to be known of it as things are: in answers alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
}

/// Chains that a tenant has had, as earlier versions kept them: all of them in one record.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PastChains {
    /// The tenant's name.
    pub tenant: String,
    /// The oldest first: those with a label that is still used.
    pub past: Vec<Past>,
}

/// What a tenant had at one time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Past {
    /// The labels of the services in its chains, by name.
    pub services: BTreeMap<String, u32>,
    /// Its chains, by priority.
    pub chains: Vec<Arc<Chain>>,
}

/// How chains that a tenant has had, and that routers may have which have not heard of it lately, differed from the next later ones,
/// the last of them from those that the tenant has now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PastDifference {
    /// The tenant's name.
    pub tenant: String,
    /// Grows from the oldest one to the latest one.
    pub number: u32,
    /// Services in its chains that had another label then, or, without one, were in no chain.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub services: BTreeMap<String, Option<u32>>,
    /// Chains that were others then, by name, or were not there.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub chains: BTreeMap<String, Option<Arc<Chain>>>,
}

/// A chain's priority where nothing is said.
pub(crate) fn priority() -> u32 {
    100
}

/// Which packets: all conditions hold.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Match {
    /// One of these has the source.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schema(value_type = Vec<String>)]
    pub source: Vec<IpNet>,
    /// One of these has the destination.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schema(value_type = Vec<String>)]
    pub destination: Vec<IpNet>,
    /// `tcp`, `udp`, `sctp`, `icmp`, `icmpv6`, or a number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub protocol: Option<Word>,
    /// Source ports, numbers and ranges such as `8000-8100`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub source_ports: Vec<Word>,
    /// Destination ports.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub destination_ports: Vec<Word>,
    /// Differentiated services code point, 0 to 63.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dscp: Option<u8>,
}

/// A number, or a word that stands for one or for several.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(untagged)]
pub enum Word {
    /// A number.
    Number(u16),
    /// A word.
    Text(String),
}

impl fmt::Display for Word {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(number) => number.fmt(f),
            Self::Text(text) => f.write_str(text),
        }
    }
}

/// A service that another domain offers to a tenant that it shares with ours, as that domain has it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RemoteService {
    /// Which domain offers it.
    pub domain: String,
    /// The tenant's VNI.
    pub vni: u32,
    /// Its name there.
    pub name: String,
    /// Its label.
    pub label: u32,
}
