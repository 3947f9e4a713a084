//! What BGP sessions with neighbours of the router and of its tenants have in common.

use std::net::{IpAddr, Ipv6Addr};
use std::path::PathBuf;

use ipnet::IpNet;
use schemars::JsonSchema;
use serde::Serialize;
use weft_bgp_wire::{Asn, Family, NextHop};

use super::policy::{Passing, Policies, Way, policy_of};
use super::reader::{At, Cursor, Fields};
use super::router::Router;
use super::values::{asn, hold_time, next_hop, number_of, prefix, unicast, unique_list};
use super::{defaults, serial};

/// What becomes of prefixes that no packet is routed to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Martians {
    /// They are not taken, and counted as rejected.
    #[default]
    Reject,
    /// They are taken as any other.
    Accept,
}

/// What this router is to a neighbour.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Role {
    /// It carries the neighbour's packets to everywhere.
    Provider,
    /// The neighbour carries this router's packets to everywhere.
    Customer,
    /// Both carry packets to their own customers.
    Peer,
    /// A route server.
    Rs,
    /// A client of a route server.
    RsClient,
}

impl From<Role> for weft_bgp_wire::Role {
    fn from(role: Role) -> Self {
        match role {
            Role::Provider => Self::Provider,
            Role::Customer => Self::Customer,
            Role::Peer => Self::Peer,
            Role::Rs => Self::RouteServer,
            Role::RsClient => Self::RouteServerClient,
        }
    }
}

/// What sessions with neighbours of the router and of its tenants have in common.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub(crate) struct Session {
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
    /// Hold time proposed to it, in seconds; the router's by default.
    #[serde(default = "defaults::hold_time")]
    #[schemars(with = "serial::HoldTime")]
    pub hold_time: u16,
    /// Longest pause between two attempts to connect, in seconds; the first ones follow faster.
    #[serde(default = "defaults::connect_retry")]
    #[schemars(range(min = 1))]
    pub connect_retry: u16,
    /// A file with the secret of TCP MD5 signatures (RFC 2385) on the session: its first line, 1 to 80 octets. Without it there is no
    /// connection.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password_file: Option<PathBuf>,
    /// Its packets may have come over so many hops (RFC 5082), 1 where it is on the link: `true`, or a number. Both ends send with TTL 255
    /// then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 254))]
    pub ttl_security: Option<u8>,
    /// Most prefixes of one family that are taken from it, or paths where it sends several a prefix: at four fifths there is a warning in
    /// the log, and more end the session (RFC 4486) for five minutes, or until this changes. By default 2,000,000 from eBGP neighbours,
    /// 100,000 from tenants' own routers, and no limit for iBGP ones.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub max_prefixes: Option<u32>,
    /// Keep the session down: `true`, or a text of at most 255 octets that the neighbour is told (RFC 9003).
    #[serde(default, serialize_with = "serial::shutdown")]
    #[schemars(with = "Option<serial::BoolOr<serial::Communication>>")]
    pub shutdown: Option<String>,
    /// eBGP: what this router is to the neighbour (RFC 9234), as `local role` in BIRD and `local-role` in FRR: `customer` of its provider,
    /// `provider` of its customer, `peer` of a peer, `rs-client` of a route server, `rs` of such a client. The neighbour has to say the other
    /// side, where it says any. Routes that it leaks are refused, and ours are marked as for customers only where they are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role: Option<Role>,
    /// With `role`: no session with a neighbour that does not say its role.
    #[serde(default)]
    pub role_strict: bool,
    /// How often our own AS may stand in its paths.
    #[serde(default)]
    #[schemars(range(max = 10))]
    pub allow_own_as: u8,
    /// eBGP: take only paths whose first AS is the neighbour's (RFC 4271 section 6.3); `false` for a route server.
    #[serde(default = "defaults::yes")]
    pub enforce_first_as: bool,
    /// What becomes of prefixes that no packet is routed to: unspecified, loopback, link-local, multicast, reserved.
    #[serde(default)]
    pub martians: Martians,
    /// Routes taken from it, and what is changed on them: `accept`, `reject`, a policy, several that stand one behind the other, or a list of
    /// prefixes. Where absent, everything is taken from iBGP neighbours and tenants' own routers, and what `router.default_policy` says, which is
    /// nothing by default, from eBGP neighbours (RFC 8212).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<serial::PassingSchema>")]
    pub import: Option<Passing>,
    /// Routes announced to it, and what is changed on them, in the same way.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<serial::PassingSchema>")]
    pub export: Option<Passing>,
    /// Offer graceful restart, where the router does.
    #[serde(default = "defaults::yes")]
    pub graceful_restart: bool,
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

/// A session as it stands in a neighbour, with what each kind of neighbour has its own defaults and meaning for.
pub(super) struct ReadSession<'a> {
    pub(super) address: Option<At<'a, IpAddr>>,
    pub(super) asn: Option<Asn>,
    pub(super) ttl: Option<u8>,
    pub(super) session: Session,
}

/// What stands before neighbours in a file.
#[derive(Clone, Copy)]
pub(super) struct Known<'k> {
    /// This router, where what is said of it could be read.
    pub(super) router: Option<&'k Router>,
    /// Policies that may be named.
    pub(super) policies: &'k Policies,
}

/// Whose the session is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Whose {
    /// A neighbour's.
    Neighbor,
    /// That of neighbours of a group.
    Group {
        /// They come by themselves, and have nothing but what it says.
        listens: bool,
    },
}

/// Reads what both kinds of neighbours have.
pub(super) fn read<'a>(fields: &mut Fields<'a>, known: Known<'_>, whose: Whose) -> ReadSession<'a> {
    let Known { router, policies } = known;
    let placed = match whose {
        Whose::Neighbor => fields.required("address", "the neighbour's IP address", address),
        Whose::Group { .. } => None,
    };
    let number = match whose {
        Whose::Group { listens: false } => fields.optional("asn", |at| asn(&at)),
        _ => fields.required("asn", "the neighbour's AS number", |at| asn(&at)),
    };
    let description = fields.optional("description", |at| match at.scalar() {
        Some(text) if text.chars().count() <= 128 && !text.chars().any(char::is_control) => {
            Some(text.to_owned())
        }
        _ => at.expected("a text of one line, at most 128 characters"),
    });
    let port = fields.optional("port", |at| number_of(&at, "a TCP port", 1, 65535));
    let local_address = fields.optional("local_address", |at| {
        let local = unicast(&at)?;
        match placed.as_ref().map(|placed| placed.value) {
            Some(remote) if remote == local => {
                at.expected("an address of this router, not the neighbour's own")
            }
            Some(remote) if remote.is_ipv4() != local.is_ipv4() => {
                let family = if remote.is_ipv4() { "IPv4" } else { "IPv6" };
                at.expected(format!("an {family} address, as the neighbour's is"))
            }
            _ => Some(local),
        }
    });
    let local_address_v6 = fields.optional("local_address_v6", |at| {
        let address: Ipv6Addr = at.parse("an IPv6 address of this router")?;
        // Between IPv4 addresses the next hop of IPv6 routes is the IPv4 one.
        match address.to_ipv4_mapped().map(IpAddr::V4) {
            Some(mapped) if NextHop::from(mapped).is_usable() => Some(address),
            _ => next_hop(&at).map(|_| address),
        }
    });
    let passive = fields.optional("passive", |at| at.bool());
    let families = fields.optional("families", |at| families(&at));
    let hold = fields.optional("hold_time", |at| hold_time(&at));
    let connect_retry = fields.optional("connect_retry", |at| number_of(&at, "seconds", 1, 65535));
    let ttl = fields.optional("ttl", |at| number_of(&at, "a TTL", 1, 255));
    let password_file = fields.optional("password_file", |at| match at.scalar() {
        Some(text) if text.starts_with('/') => Some(PathBuf::from(text)),
        _ => at.expected("the absolute path of a file with the secret"),
    });
    let ttl_security = fields.optional("ttl_security", |at| {
        if ttl.is_some() {
            at.problem(
                "with `ttl_security` the TTL is 255",
                Some("remove `ttl`; over several hops, say how many: `ttl_security: 2`".to_owned()),
            );
        }
        match at.scalar() {
            Some("true") => Some(1),
            _ => number_of(&at, "true, or a number of hops", 1, 254),
        }
    });
    let max_prefixes = fields.optional("max_prefixes", |at| {
        number_of(&at, "a number of prefixes", 1, u64::from(u32::MAX))
    });
    let shutdown = fields.optional("shutdown", |at| match at.scalar() {
        Some("true") => Some(Some(String::new())),
        Some("false") => Some(None),
        Some(text) if text.len() <= 255 && !text.chars().any(char::is_control) => {
            Some(Some(text.to_owned()))
        }
        _ => at.expected("true, false, or a text of one line, at most 255 octets"),
    });
    let role = fields.optional("role", |at| {
        let role = at.choice(&[
            ("provider", Role::Provider),
            ("customer", Role::Customer),
            ("peer", Role::Peer),
            ("rs", Role::Rs),
            ("rs-client", Role::RsClient),
        ])?;
        if number.is_some() && number == router.map(|router| router.asn) {
            at.problem(
                "routers of one AS have no roles towards each other (RFC 9234)",
                Some("remove it, or correct the neighbour's `asn`".to_owned()),
            );
        }
        Some(role)
    });
    let role_strict = fields.optional("role_strict", |at| {
        let strict = at.bool()?;
        if strict && role.is_none() {
            at.problem(
                "the neighbour has to say its role, and this router has none towards it",
                Some("add `role`, what this router is to the neighbour".to_owned()),
            );
        }
        Some(strict)
    });
    let allow_own_as = fields.optional("allow_own_as", |at| number_of(&at, "a count", 0, 10));
    let enforce_first_as = fields.optional("enforce_first_as", |at| at.bool());
    let martians = fields.optional("martians", |at| {
        at.choice(&[("reject", Martians::Reject), ("accept", Martians::Accept)])
    });
    let import = fields.optional("import", |at| policy_of(&at, policies, Way::Import));
    let export = fields.optional("export", |at| policy_of(&at, policies, Way::Export));
    let graceful_restart = fields.optional("graceful_restart", |at| at.bool());
    let session = Session {
        description,
        port: port.unwrap_or_else(defaults::bgp_port),
        local_address,
        local_address_v6,
        passive: passive.unwrap_or_default(),
        families: families.unwrap_or_else(defaults::families),
        hold_time: hold
            .unwrap_or_else(|| router.map_or_else(defaults::hold_time, |router| router.hold_time)),
        connect_retry: connect_retry.unwrap_or_else(defaults::connect_retry),
        password_file,
        ttl_security,
        max_prefixes,
        shutdown: shutdown.flatten(),
        role,
        role_strict: role_strict.unwrap_or_default(),
        allow_own_as: allow_own_as.unwrap_or_default(),
        enforce_first_as: enforce_first_as.unwrap_or_else(defaults::yes),
        martians: martians.unwrap_or_default(),
        import,
        export,
        graceful_restart: graceful_restart.unwrap_or_else(defaults::yes),
    };
    ReadSession {
        address: placed,
        asn: number,
        ttl,
        session,
    }
}

fn address(at: Cursor<'_>) -> Option<At<'_, IpAddr>> {
    let value = unicast(&at)?;
    if matches!(value, IpAddr::V6(address) if address.is_unicast_link_local()) {
        at.problem(
            format!("`{value}` is a link-local address, which does not say on which link the neighbour is"),
            Some("give the neighbour's global or unique local address".to_owned()),
        );
    }
    Some(At { value, at })
}

fn families(at: &Cursor<'_>) -> Option<Vec<Family>> {
    if at.is_empty_list() {
        return at.expected("at least one of `ipv4-unicast` and `ipv6-unicast`");
    }
    unique_list(at, "a list of address families", |at| {
        at.choice(&[
            ("ipv4-unicast", Family::Ipv4Unicast),
            ("ipv6-unicast", Family::Ipv6Unicast),
        ])
    })
}

pub(super) fn prefix_range(at: &Cursor<'_>) -> Option<PrefixRange> {
    if !at.is_mapping() {
        let prefix = prefix(at)?;
        return Some(PrefixRange {
            prefix,
            ge: prefix.prefix_len(),
            le: prefix.prefix_len(),
        });
    }
    let mut fields = at.fields("a prefix")?;
    let prefix = fields.required("prefix", "such as `prefix: 10.0.0.0/8`", |at| prefix(&at));
    let (shortest, longest) = match prefix {
        Some(prefix) => (prefix.prefix_len(), prefix.max_prefix_len()),
        None => (0, 128),
    };
    let length = |at: Cursor<'_>, from: u8| {
        number_of(&at, "a prefix length", u64::from(from), u64::from(longest))
    };
    let ge = fields.optional("ge", |at| length(at, shortest));
    let le = fields.optional("le", |at| length(at, ge.unwrap_or(shortest)));
    let le_given = fields.get("le").is_some();
    fields.finish();
    Some(PrefixRange {
        prefix: prefix?,
        ge: ge.unwrap_or(shortest),
        le: le.unwrap_or(match ge.is_some() && !le_given {
            true => longest,
            false => shortest,
        }),
    })
}
