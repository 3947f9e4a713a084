//! The configuration of one router: one YAML file, read into types that hold nothing invalid.
//!
//! [`Config::read`] reports everything that is wrong with a file at once ([`ConfigErrors`]), each with file, line,
//! column, key, what was found and what is allowed. Serialized, a [`Config`] is YAML that reads back to itself, with
//! all defaults spelled out.

mod chains;
mod node;
mod read;
mod reader;
mod report;
mod serial;
#[cfg(test)]
mod tests;
mod values;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};

use ipnet::IpNet;
use schemars::JsonSchema;
use serde::Serialize;
use weft_bgp_wire::{Asn, Family, RouterId};
use weft_overlay::{Encapsulation, Vni, VniSet};

pub(crate) use chains::{Chain, ProbeKind, Service, chains, services};
pub(crate) use report::ConfigErrors;

/// The configuration of one Weft router.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Config {
    /// The domain's controller. With it, everything that is not said here is the controller's to say: `router_id`, `asn`, tenants,
    /// neighbours.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub controller: Option<Controller>,
    /// What this router is to BGP.
    pub router: Router,
    /// The overlay; without it the router is a plain BGP speaker.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub overlay: Option<Overlay>,
    /// The tenants that this router hosts.
    #[serde(default)]
    pub tenants: Vec<Tenant>,
    /// BGP neighbours.
    #[serde(default)]
    pub neighbors: Vec<Neighbor>,
    /// Where further neighbours are learned from, live.
    #[serde(
        default,
        skip_serializing_if = "Vec::is_empty",
        serialize_with = "serial::mappings"
    )]
    pub discovery: Vec<Discovery>,
    /// Prefixes to originate without a label.
    #[serde(default)]
    #[schemars(with = "Vec<serial::Prefix>")]
    pub networks: Vec<IpNet>,
    /// Unlabelled BGP routes to these prefixes, and to more specific ones, go into the main table.
    #[serde(default)]
    #[schemars(with = "Vec<serial::Prefix>")]
    pub install: Vec<IpNet>,
    /// The REST API.
    #[serde(default)]
    pub api: Api,
    /// The log, on standard error.
    #[serde(default)]
    pub log: Log,
}

/// What this router is to BGP.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Router {
    /// Its name, for humans: letters, digits, `-`, `_` and `.`, at most 63.
    #[schemars(regex(pattern = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$"))]
    pub name: String,
    /// BGP Identifier, unique in its AS (RFC 6286); also the id of its endpoint. Required without a controller.
    #[serde(
        default = "defaults::no_id",
        skip_serializing_if = "defaults::is_no_id",
        serialize_with = "serial::display"
    )]
    #[schemars(with = "Option<Ipv4Addr>")]
    pub router_id: RouterId,
    /// AS number. Required without a controller.
    #[serde(
        default = "defaults::no_asn",
        skip_serializing_if = "defaults::is_no_asn",
        serialize_with = "serial::asn"
    )]
    #[schemars(with = "Option<serial::AsNumber>")]
    pub asn: Asn,
    /// Cluster id as a route reflector (RFC 4456 section 7); the router id by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cluster_id: Option<Ipv4Addr>,
    /// Hold time proposed to neighbours, in seconds: 0 (no keepalives), or 3 to 65535.
    #[serde(default = "defaults::hold_time")]
    #[schemars(with = "serial::HoldTime")]
    pub hold_time: u16,
    /// Graceful restart (RFC 4724, RFC 8538): `true`, `false`, or its timers.
    #[serde(
        default = "defaults::graceful_restart",
        serialize_with = "serial::graceful_restart"
    )]
    #[schemars(with = "serial::GracefulRestartSchema")]
    pub graceful_restart: Option<GracefulRestart>,
    /// Where BGP connections are accepted.
    #[serde(default)]
    pub listen: Listen,
}

/// The controller of the domain.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Controller {
    /// Where it is: `HOST`, `HOST:PORT` or `[ADDRESS]:PORT`; port 8443 by default. Of a domain with several, all of them with commas
    /// between: one is taken, and another when it goes.
    pub address: String,
    /// The token to join with, where the router has not joined yet. It may be left out, and go, afterwards.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<String>,
    /// Where the router keeps its certificate and what it knows, in a folder of its name.
    #[serde(default = "defaults::state")]
    pub state: PathBuf,
}

/// A source of neighbours.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(crate) enum Discovery {
    /// A YAML file, looked at again when it changes: names, each with `address`, and `asn`, `port`, `route_reflector_client` where they are
    /// not the usual.
    File(PathBuf),
    /// SRV records, asked for again when their time to live is over; a TXT record at the target, `asn=64601`, says its AS number.
    Dns {
        /// The name that has them, such as `_bgp._tcp.example.com`.
        name: String,
        /// Name servers, ADDRESS:PORT; the system's by default.
        #[serde(default)]
        #[schemars(with = "Vec<String>")]
        servers: Vec<SocketAddr>,
    },
    /// Keys in etcd, live: `PREFIX/NAME`, each a JSON object as in a file.
    Etcd {
        /// Members of the cluster, `http://HOST:2379` or `https://HOST:2379`.
        endpoints: Vec<String>,
        /// What the keys begin with.
        #[serde(default = "defaults::peers")]
        prefix: String,
        /// The authority that has signed the certificates of members at https, PEM.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        cacert: Option<PathBuf>,
        /// The certificate that is shown to them, PEM.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        cert: Option<PathBuf>,
        /// Its key, PEM.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        key: Option<PathBuf>,
    },
    /// Routers on a link that look for each other, by multicast DNS. Anybody there is believed: for labs.
    Mdns {
        /// The interface.
        interface: String,
    },
}

/// Timers of graceful restart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct GracefulRestart {
    /// How long neighbours keep our routes while we are away, in seconds.
    #[serde(default = "defaults::restart_time")]
    #[schemars(range(min = 1, max = 4095))]
    pub restart_time: u16,
    /// How long we wait after a restart for the routes of all neighbours before we announce ours, in seconds.
    #[serde(default = "defaults::deferral_time")]
    #[schemars(range(min = 1, max = 4095))]
    pub deferral_time: u16,
}

impl Default for GracefulRestart {
    fn default() -> Self {
        Self {
            restart_time: defaults::restart_time(),
            deferral_time: defaults::deferral_time(),
        }
    }
}

/// Where BGP connections are accepted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Listen {
    /// Local addresses; an empty list accepts none.
    #[serde(default = "defaults::listen_addresses")]
    pub addresses: Vec<IpAddr>,
    /// TCP port.
    #[serde(default = "defaults::bgp_port")]
    #[schemars(range(min = 1))]
    pub port: u16,
}

impl Default for Listen {
    fn default() -> Self {
        Self {
            addresses: defaults::listen_addresses(),
            port: defaults::bgp_port(),
        }
    }
}

/// The overlay.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Overlay {
    /// Global Administrator of the label communities: one AS number, the same in every domain. Required without a controller.
    #[serde(default, skip_serializing_if = "defaults::is_zero")]
    #[schemars(with = "Option<serial::AsNumber>")]
    pub global_administrator: u32,
    /// The address at this router that ends tunnels; required without a controller, which is told of an address of the loopback
    /// interface that others reach, or else of the one that leads to it. An IPv6 address is named in labels by the router id, and announced
    /// as a locator in the family `ipv6-unicast`, which sessions have to exchange.
    #[serde(
        default = "defaults::no_endpoint",
        skip_serializing_if = "IpAddr::is_unspecified"
    )]
    #[schemars(with = "Option<IpAddr>")]
    pub endpoint: IpAddr,
    /// How packets are carried to this router; what others accept goes to them that way.
    #[serde(default = "defaults::encapsulation")]
    #[schemars(with = "serial::EncapsulationSchema")]
    pub encapsulation: Encapsulation,
    /// How tenants are kept apart in the kernel.
    #[serde(default)]
    pub segmentation: Segmentation,
    /// Whose differentiated services code point a packet has when it leaves the overlay (RFC 2983). On its way in its own is
    /// copied to the outer header either way.
    #[serde(default)]
    pub code_point: CodePoint,
    /// How wide this router's way into the underlay is, in Mbit/s. It is announced with the tenants' prefixes (Link Bandwidth), and
    /// who has several equal ways shares packets in proportion, where all of them say how wide they are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 10_000_000))]
    pub bandwidth: Option<u32>,
    /// Flows keep their way among equal ones when others come or go, unless it goes itself.
    #[serde(default)]
    pub resilient: bool,
    /// Install the endpoints that are learned as locators in the main table.
    #[serde(default)]
    pub install_underlay: bool,
    /// Announce the endpoint's own address as a locator.
    #[serde(default = "defaults::yes")]
    pub announce_locator: bool,
    /// Each other router that tunnels lead to is sent an echo request so often, in seconds, for round-trip times and loss; 0 for never.
    #[serde(default = "defaults::endpoint_probe_interval")]
    #[schemars(range(max = 3600))]
    pub probe_interval: u16,
}

/// How tenants are kept apart in the kernel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Segmentation {
    /// VRFs where the kernel has them, tables where it has not.
    #[default]
    Auto,
    /// A VRF device a tenant, with its interfaces as members.
    Vrf,
    /// A routing table a tenant, with policy rules that lead into it.
    Table,
}

/// Whose code point a packet has when it leaves the overlay.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum CodePoint {
    /// Its own, as it entered: what networks between do to the outer one stays outside.
    #[default]
    Pipe,
    /// The outer header's: where the underlay is one's own, and marks anew.
    Uniform,
}

/// A tenant on this router.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Tenant {
    /// Unique on this router: letters, digits, `-`, `_` and `.`, at most 63.
    #[schemars(regex(pattern = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$"))]
    pub name: String,
    /// The primary VNI: labels what this tenant announces.
    #[serde(serialize_with = "serial::vni")]
    #[schemars(with = "serial::VniNumber")]
    pub vni: Vni,
    /// Further VNIs whose packets are routed in this tenant's table.
    #[serde(
        default,
        skip_serializing_if = "Vec::is_empty",
        serialize_with = "serial::vnis"
    )]
    #[schemars(with = "Vec<serial::VniNumber>")]
    pub vnis: Vec<Vni>,
    /// Interfaces where the tenant's packets enter; they need not exist yet.
    #[serde(default)]
    #[schemars(inner(length(min = 1, max = 15)))]
    pub interfaces: Vec<String>,
    /// Prefixes that the tenant announces.
    #[serde(default)]
    #[schemars(with = "Vec<serial::Prefix>")]
    pub prefixes: Vec<IpNet>,
    /// Its way to the Internet past the overlay: packets that the tenant's table has nothing for leave here. Where other sites
    /// are to use it too, announce `0.0.0.0/0` in `prefixes`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub breakout: Option<Breakout>,
    /// Routes of the kernel, on the tenant's interfaces, that the tenant announces.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub redistribute: Vec<Redistribute>,
    /// The tenant's own routers, which tell what its site has and are told what the overlay knows for the tenant.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub neighbors: Vec<SiteNeighbor>,
    /// Services that its packets may go through, attached to this router or elsewhere.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub services: Vec<Service>,
    /// Which of its packets go through which services. Every router that has the tenant or one of the services is to have the same.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub chains: Vec<Chain>,
}

/// A tenant's way to the Internet past the overlay.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Breakout {
    /// The interface that packets leave by, as the main table leads them; what it leads elsewhere is dropped.
    #[schemars(length(min = 1, max = 15))]
    pub interface: String,
    /// Put the interface's address in the place of their source. Tenants with the same addresses do not get in each other's way.
    #[serde(default = "defaults::yes")]
    pub source_nat: bool,
}

/// A tenant's own router at this site. The session runs in the tenant: several tenants may have neighbours of one address.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct SiteNeighbor {
    /// Where it is, on the link of one of the tenant's interfaces.
    pub address: IpAddr,
    /// Its AS number, which is not this router's.
    #[serde(serialize_with = "serial::asn")]
    #[schemars(with = "serial::AsNumber")]
    pub asn: Asn,
    /// For humans.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 128))]
    pub description: Option<String>,
    /// Its TCP port.
    #[serde(default = "defaults::bgp_port")]
    #[schemars(range(min = 1))]
    pub port: u16,
    /// The address that we connect from; the kernel's choice by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub local_address: Option<IpAddr>,
    /// Next hop of IPv6 routes on a session over IPv4.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub local_address_v6: Option<Ipv6Addr>,
    /// Never connect, only accept.
    #[serde(default)]
    pub passive: bool,
    /// Address families to exchange.
    #[serde(
        default = "defaults::families",
        serialize_with = "serial::display_list"
    )]
    #[schemars(with = "Vec<serial::FamilySchema>", length(min = 1))]
    pub families: Vec<Family>,
    /// Put our own AS in the place of its AS in what it is told, so that several sites may have one AS number.
    #[serde(default)]
    pub as_override: bool,
    /// Hold time proposed to it, in seconds; the router's by default.
    #[serde(default = "defaults::hold_time")]
    #[schemars(with = "serial::HoldTime")]
    pub hold_time: u16,
    /// Longest pause between two attempts to connect, in seconds; the first ones follow faster.
    #[serde(default = "defaults::connect_retry")]
    #[schemars(range(min = 1))]
    pub connect_retry: u16,
    /// TTL of packets to it.
    #[serde(default = "defaults::ttl")]
    #[schemars(range(min = 1))]
    pub ttl: u8,
    /// Most prefixes of one family taken from it; more end the session (RFC 4486).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub max_prefixes: Option<u32>,
    /// How often our own AS may stand in its paths.
    #[serde(default)]
    #[schemars(range(max = 10))]
    pub allow_own_as: u8,
    /// Prefixes taken from it; everything where absent, nothing where empty.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub import: Option<Vec<PrefixRange>>,
    /// Prefixes announced to it; everything where absent, nothing where empty.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub export: Option<Vec<PrefixRange>>,
    /// Offer graceful restart, where the router does.
    #[serde(default = "defaults::yes")]
    pub graceful_restart: bool,
}

/// Kernel routes that a tenant announces.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, JsonSchema)]
#[schemars(with = "serial::RedistributeSchema")]
pub(crate) enum Redistribute {
    /// `connected`: the networks of its interfaces' addresses.
    Connected,
    /// `static`: routes that an administrator set through its interfaces.
    Static,
    /// Routes of another protocol through its interfaces, by the number that `ip route` shows or by name.
    Protocol(u8),
}

/// Route protocols by name, as in iproute2's `rt_protos`.
pub(crate) const PROTOCOLS: [(&str, u8); 12] = [
    ("ra", 9),
    ("zebra", 11),
    ("bird", 12),
    ("dhcp", 16),
    ("keepalived", 18),
    ("babel", 42),
    ("openr", 99),
    ("bgp", 186),
    ("isis", 187),
    ("ospf", 188),
    ("rip", 189),
    ("eigrp", 192),
];

/// A BGP neighbour.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Neighbor {
    /// Where it is; connections from elsewhere are refused.
    pub address: IpAddr,
    /// Its AS number; this router's own makes it an iBGP neighbour.
    #[serde(serialize_with = "serial::asn")]
    #[schemars(with = "serial::AsNumber")]
    pub asn: Asn,
    /// For humans.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 128))]
    pub description: Option<String>,
    /// Its TCP port.
    #[serde(default = "defaults::bgp_port")]
    #[schemars(range(min = 1))]
    pub port: u16,
    /// The address that we connect from; the kernel's choice by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub local_address: Option<IpAddr>,
    /// Next hop of IPv6 routes on a session over IPv4.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub local_address_v6: Option<Ipv6Addr>,
    /// Never connect, only accept.
    #[serde(default)]
    pub passive: bool,
    /// Address families to exchange.
    #[serde(
        default = "defaults::families",
        serialize_with = "serial::display_list"
    )]
    #[schemars(with = "Vec<serial::FamilySchema>", length(min = 1))]
    pub families: Vec<Family>,
    /// Several paths a prefix (RFC 7911): `true` or `false` for both directions, or each by itself.
    #[serde(default)]
    #[schemars(with = "serial::AddPathSchema")]
    pub add_path: AddPath,
    /// Reflect routes for it (RFC 4456). iBGP only.
    #[serde(default)]
    pub route_reflector_client: bool,
    /// Next hop of routes learned by eBGP when they go to this iBGP neighbour.
    #[serde(default)]
    pub next_hop: NextHop,
    /// Local next hops on labelled routes to this neighbour (docs/label-community.md, rule 5). By default `self` on
    /// what leaves or enters the domain, `keep` for all else.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub local_next_hop: Option<LocalNextHop>,
    /// Remove every label community of the overlay from what is announced to it.
    #[serde(default)]
    pub strip_overlay: bool,
    /// VNIs whose labels are accepted from it: `all`, `none`, or a list of numbers and ranges. By default `none` from
    /// eBGP neighbours, `all` from iBGP ones.
    #[serde(default = "VniSet::none", serialize_with = "serial::vni_set")]
    #[schemars(with = "serial::VniSetSchema")]
    pub accept_vnis: VniSet,
    /// VNIs whose labels are announced to it, written in the same way: routes of other tenants are not. By default `all`.
    #[serde(default = "VniSet::all", serialize_with = "serial::vni_set")]
    #[schemars(with = "serial::VniSetSchema")]
    pub announce_vnis: VniSet,
    /// Hold time proposed to it, in seconds; the router's by default.
    #[serde(default = "defaults::hold_time")]
    #[schemars(with = "serial::HoldTime")]
    pub hold_time: u16,
    /// Longest pause between two attempts to connect, in seconds; the first ones follow faster.
    #[serde(default = "defaults::connect_retry")]
    #[schemars(range(min = 1))]
    pub connect_retry: u16,
    /// TTL of packets to it. By default 1 for an eBGP neighbour, which must be on the link; 64 for an iBGP one.
    #[serde(default = "defaults::ttl")]
    #[schemars(range(min = 1))]
    pub ttl: u8,
    /// Most prefixes of one family taken from it; more end the session (RFC 4486).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub max_prefixes: Option<u32>,
    /// How often our own AS may stand in its paths.
    #[serde(default)]
    #[schemars(range(max = 10))]
    pub allow_own_as: u8,
    /// Prefixes taken from it; everything where absent, nothing where empty.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub import: Option<Vec<PrefixRange>>,
    /// Prefixes announced to it; everything where absent, nothing where empty.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub export: Option<Vec<PrefixRange>>,
    /// Offer graceful restart, where the router does.
    #[serde(default = "defaults::yes")]
    pub graceful_restart: bool,
}

/// Several paths a prefix, by direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct AddPath {
    /// Towards the neighbour.
    #[serde(default = "defaults::yes")]
    pub send: bool,
    /// From the neighbour.
    #[serde(default = "defaults::yes")]
    pub receive: bool,
}

impl Default for AddPath {
    fn default() -> Self {
        Self {
            send: true,
            receive: true,
        }
    }
}

/// NEXT_HOP of routes learned by eBGP towards an iBGP neighbour.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum NextHop {
    /// This router's address on the session.
    #[default]
    #[serde(rename = "self")]
    Own,
    /// As it was received.
    Unchanged,
}

/// What becomes of local next hops on routes to a neighbour.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum LocalNextHop {
    /// Replaced by this router's endpoint.
    #[serde(rename = "self")]
    Own,
    /// As they are.
    Keep,
    /// Removed.
    Strip,
}

/// A line of a prefix filter: `prefix` and what is inside it, with a length from `ge` to `le`. Without `ge` and `le`,
/// or as a bare text, exactly the prefix; with `ge` alone up to host routes; with `le` alone from the prefix itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[schemars(with = "serial::PrefixRangeSchema")]
pub(crate) struct PrefixRange {
    /// The covering prefix.
    pub prefix: IpNet,
    /// Shortest length that matches.
    pub ge: u8,
    /// Longest length that matches.
    pub le: u8,
}

/// The REST API.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Api {
    /// Address and port. The API has no authentication: keep it on the loopback, or behind a firewall.
    #[serde(default = "defaults::api_listen")]
    #[schemars(with = "String")]
    pub listen: SocketAddr,
}

impl Default for Api {
    fn default() -> Self {
        Self {
            listen: defaults::api_listen(),
        }
    }
}

/// The log, on standard error.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Log {
    /// The least important lines to write; the environment variable `WEFT_LOG` overrides it.
    #[serde(default)]
    pub level: LogLevel,
    /// How lines look.
    #[serde(default)]
    pub format: LogFormat,
}

/// How important a line of the log is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum LogLevel {
    /// Something that should work does not, and somebody must act.
    Error,
    /// Something is off, and handled.
    Warn,
    /// What an operator wants to see: sessions up and down, convergence.
    #[default]
    Info,
    /// What a developer wants to see.
    Debug,
    /// Everything, route by route.
    Trace,
}

/// How lines of the log look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum LogFormat {
    /// For humans.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

impl Config {
    /// Reads a file.
    ///
    /// # Errors
    /// The file cannot be read, or a [`ConfigErrors`] with everything that is wrong with it.
    pub(crate) fn read(path: &Path) -> anyhow::Result<Self> {
        use anyhow::Context;
        let text = std::fs::read_to_string(path)
            .with_context(|| format!("cannot read {}", path.display()))?;
        Ok(Self::parse(&path.display().to_string(), &text)?)
    }

    /// Reads a text; `file` is its name in errors.
    ///
    /// # Errors
    /// Everything that is wrong with it.
    pub(crate) fn parse(file: &str, text: &str) -> Result<Self, ConfigErrors> {
        read::config(text).map_err(|problems| ConfigErrors::new(file, text, problems))
    }

    /// As YAML that reads back to the same configuration.
    ///
    /// # Errors
    /// None that a configuration can cause; the serializer's own.
    pub(crate) fn to_yaml(&self) -> anyhow::Result<String> {
        Ok(serde_yaml::to_string(self)?)
    }

    /// The JSON Schema of a configuration file.
    pub(crate) fn json_schema() -> serde_json::Value {
        let mut schema = schemars::schema_for!(Self).to_value();
        serial::strip_null(&mut schema);
        schema["title"] = "Weft router configuration".into();
        schema
    }
}

/// What holds where the file says nothing.
pub(crate) mod defaults {
    use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

    use std::path::PathBuf;

    use weft_bgp_wire::{Asn, Family, RouterId};
    use weft_overlay::Encapsulation;

    use super::GracefulRestart;

    pub(crate) fn no_id() -> RouterId {
        RouterId(Ipv4Addr::UNSPECIFIED)
    }

    pub(crate) fn is_no_id(id: &RouterId) -> bool {
        *id == no_id()
    }

    pub(crate) fn no_asn() -> Asn {
        Asn(0)
    }

    pub(crate) fn is_no_asn(asn: &Asn) -> bool {
        *asn == no_asn()
    }

    pub(crate) fn is_zero(number: &u32) -> bool {
        *number == 0
    }

    pub(crate) fn no_endpoint() -> IpAddr {
        Ipv4Addr::UNSPECIFIED.into()
    }

    pub(crate) fn peers() -> String {
        "/weft/peers".to_owned()
    }

    pub(crate) fn state() -> PathBuf {
        PathBuf::from("/var/lib/weft")
    }

    pub(crate) fn probe_interval() -> u32 {
        1000
    }

    pub(crate) fn priority() -> u32 {
        100
    }

    pub(crate) fn yes() -> bool {
        true
    }

    pub(crate) fn endpoint_probe_interval() -> u16 {
        10
    }

    /// RFC 4271 section 10.
    pub(crate) fn hold_time() -> u16 {
        90
    }

    pub(crate) fn restart_time() -> u16 {
        120
    }

    pub(crate) fn deferral_time() -> u16 {
        60
    }

    pub(crate) fn graceful_restart() -> Option<GracefulRestart> {
        Some(GracefulRestart::default())
    }

    /// RFC 4271 section 10 suggests 120 s; an overlay wants its sessions back sooner.
    pub(crate) fn connect_retry() -> u16 {
        30
    }

    pub(crate) fn ttl() -> u8 {
        1
    }

    pub(crate) fn bgp_port() -> u16 {
        179
    }

    pub(crate) fn listen_addresses() -> Vec<IpAddr> {
        vec![Ipv4Addr::UNSPECIFIED.into(), Ipv6Addr::UNSPECIFIED.into()]
    }

    pub(crate) fn families() -> Vec<Family> {
        vec![Family::Ipv4Unicast]
    }

    pub(crate) fn encapsulation() -> Encapsulation {
        Encapsulation::Vxlan
    }

    pub(crate) fn api_listen() -> SocketAddr {
        SocketAddr::from((Ipv4Addr::LOCALHOST, 8179))
    }
}
