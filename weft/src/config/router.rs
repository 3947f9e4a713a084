//! What this router is to BGP.

use std::net::{IpAddr, Ipv4Addr};

use schemars::JsonSchema;
use serde::Serialize;
use weft_bgp_wire::{Asn, RouterId};

use super::reader::Cursor;
use super::values::{address, asn, hold_time, id, name, number, unique_list};
use super::{defaults, serial};

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
    #[schemars(with = "serial::BoolOr<GracefulRestart>")]
    pub graceful_restart: Option<GracefulRestart>,
    /// What passes between this router and eBGP neighbours of which nothing is said (`import`, `export`): `reject` as in RFC 8212, or `accept`.
    #[serde(default)]
    pub default_policy: DefaultPolicy,
    /// Announce a route also while the kernel refuses it, and packets that come for it cannot be forwarded.
    #[serde(default)]
    pub announce_refused: bool,
    /// Where BGP connections are accepted.
    #[serde(default)]
    pub listen: Listen,
}

/// What passes where nobody says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum DefaultPolicy {
    /// Nothing.
    #[default]
    Reject,
    /// Everything.
    Accept,
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

/// `managed` says that a controller tells what is missing.
pub(super) fn read(at: &Cursor<'_>, managed: bool) -> Option<Router> {
    let mut fields = at.fields("a mapping with `name`, `router_id` and `asn`")?;
    let router_name = fields.required("name", "a name for humans, such as `a1`", |at| name(&at));
    let router_id = fields.required_or(
        managed.then(|| defaults::no_id().0),
        "router_id",
        "an IPv4 address that no other router of this AS uses as its id",
        |at| id(&at),
    );
    let number = fields.required_or(
        managed.then(defaults::no_asn),
        "asn",
        "the AS number of this router",
        |at| asn(&at),
    );
    let cluster_id = fields.optional("cluster_id", |at| id(&at));
    let hold = fields.optional("hold_time", |at| hold_time(&at));
    let graceful_restart = match fields.get("graceful_restart") {
        Some(at) => graceful_restart(&at),
        None => defaults::graceful_restart(),
    };
    let default_policy = fields.optional("default_policy", |at| {
        at.choice(&[
            ("reject", DefaultPolicy::Reject),
            ("accept", DefaultPolicy::Accept),
        ])
    });
    let announce_refused = fields.optional("announce_refused", |at| at.bool());
    let listen = fields.optional("listen", |at| listen(&at));
    fields.finish();
    Some(Router {
        name: router_name?,
        router_id: RouterId(router_id?),
        asn: number?,
        cluster_id,
        hold_time: hold.unwrap_or_else(defaults::hold_time),
        graceful_restart,
        default_policy: default_policy.unwrap_or_default(),
        announce_refused: announce_refused.unwrap_or_default(),
        listen: listen.unwrap_or_default(),
    })
}

fn graceful_restart(at: &Cursor<'_>) -> Option<GracefulRestart> {
    if !at.is_mapping() {
        return match at.scalar() {
            Some("true") => Some(GracefulRestart::default()),
            Some("false") => None,
            _ => at.expected("true, false, or a mapping with `restart_time` and `deferral_time`"),
        };
    }
    let mut fields = at.fields("a mapping")?;
    let seconds = |at: Cursor<'_>| number(&at, "seconds", 1, 4095);
    let restart_time = fields.optional("restart_time", seconds);
    let deferral_time = fields.optional("deferral_time", seconds);
    fields.finish();
    Some(GracefulRestart {
        restart_time: restart_time.unwrap_or_else(defaults::restart_time),
        deferral_time: deferral_time.unwrap_or_else(defaults::deferral_time),
    })
}

fn listen(at: &Cursor<'_>) -> Option<Listen> {
    let mut fields = at.fields("a mapping with `addresses` and `port`")?;
    let addresses = fields.optional("addresses", |at| {
        unique_list(&at, "a list of IP addresses", |at| address(&at))
    });
    let port = fields.optional("port", |at| number(&at, "a TCP port", 1, 65535));
    fields.finish();
    Some(Listen {
        addresses: addresses.unwrap_or_else(defaults::listen_addresses),
        port: port.unwrap_or_else(defaults::bgp_port),
    })
}
