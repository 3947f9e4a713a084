//! BGP neighbours: the router's, which carry the overlay, and those of its tenants.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use ipnet::IpNet;
use schemars::JsonSchema;
use serde::Serialize;
use weft_bgp_wire::Asn;
use weft_overlay::import::{ImportPolicy, Kind};
use weft_overlay::{EndpointId, VniSet};

use super::bfd::{self, Bfd};
use super::group::{self, Written};
use super::reader::{At, Cursor, Fields};
use super::session::{self, Known, Session, Whose};
use super::values::{asn, number_of, prefixes, unique_list, vni_set};
use super::{defaults, serial};

/// A BGP neighbour.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[schemars(deny_unknown_fields, extend("anyOf" = [{ "required": ["asn"] }, { "required": ["group"] }]))]
pub(crate) struct Neighbor {
    /// Where it is; connections from elsewhere are refused.
    pub address: IpAddr,
    /// The group that it has from what it does not say itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub group: Option<Arc<str>>,
    /// Its AS number; this router's own makes it an iBGP neighbour. Required where no group has it.
    #[serde(default = "defaults::no_asn", serialize_with = "serial::asn")]
    #[schemars(with = "Option<serial::AsNumber>")]
    pub asn: Asn,
    /// What sessions have in common.
    #[serde(flatten)]
    pub session: Session,
    /// TTL of packets to it. By default 1 for an eBGP neighbour, which must be on the link; 64 for an iBGP one.
    #[serde(default = "defaults::ttl")]
    #[schemars(range(min = 1))]
    pub ttl: u8,
    /// End the session with an eBGP neighbour of TTL 1 as soon as the link to it loses its carrier.
    #[serde(default = "defaults::yes")]
    pub fast_external_fallover: bool,
    /// Bidirectional Forwarding Detection (RFC 5880): `true`, or its timers. When it goes down the session ends at once.
    #[serde(default, serialize_with = "serial::bfd")]
    #[schemars(with = "Option<serial::BoolOr<Bfd>>")]
    pub bfd: Option<Bfd>,
    /// Another AS that this router is to an eBGP neighbour (RFC 7705): its number, or a mapping with `hide_own`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<serial::Either<serial::AsNumber, LocalAs>>")]
    pub local_as: Option<LocalAs>,
    /// AS numbers for private use (RFC 6996) in AS_PATH of what is announced to an eBGP neighbour. Its own stays.
    #[serde(default)]
    pub private_as: PrivateAs,
    /// Put our own AS in the place of an eBGP neighbour's AS in what it is told, so that several sites may have one AS number.
    #[serde(default)]
    pub as_override: bool,
    /// Several paths a prefix (RFC 7911): `true` or `false` for both directions, or each by itself.
    #[serde(default)]
    #[schemars(with = "serial::BoolOr<AddPath>")]
    pub add_path: AddPath,
    /// Most paths of one prefix that are taken from it; further ones are counted as rejected. By default 32 from eBGP neighbours, 256 from
    /// iBGP ones.
    #[serde(default = "defaults::max_paths")]
    #[schemars(range(min = 1, max = 65_535))]
    pub max_paths: u32,
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
    /// eBGP neighbours, `all` from iBGP ones. What is not accepted is taken from its routes, which go on without.
    #[serde(default = "VniSet::none", serialize_with = "serial::vni_set")]
    #[schemars(with = "serial::VniSetSchema")]
    pub accept_vnis: VniSet,
    /// What else of the overlay is accepted with them; by default all.
    #[serde(default = "all_kinds", skip_serializing_if = "is_all_kinds")]
    #[schemars(with = "Vec<KindSchema>")]
    pub accept_kinds: Vec<Kind>,
    /// Labels, local next hops and locators are accepted of endpoints inside these prefixes; by default of all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<Vec<serial::Prefix>>")]
    pub accept_endpoints: Option<Vec<IpNet>>,
    /// The same of these endpoint ids, by which endpoints with IPv6 addresses are named; by default of all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub accept_ids: Option<Vec<Ipv4Addr>>,
    /// What becomes of what is not accepted. `import`: it is taken from the neighbour's routes. `transit`: it is carried on to other
    /// neighbours, and not used here; they have to know themselves what they accept.
    #[serde(default)]
    pub overlay: Foreign,
    /// VNIs whose labels are announced to it, written in the same way: routes of other tenants are not. By default `all`.
    #[serde(default = "VniSet::all", serialize_with = "serial::vni_set")]
    #[schemars(with = "serial::VniSetSchema")]
    pub announce_vnis: VniSet,
}

/// An AS that this router is to one neighbour.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub(crate) struct LocalAs {
    /// Its number.
    #[serde(serialize_with = "serial::asn")]
    #[schemars(with = "serial::AsNumber")]
    pub asn: Asn,
    /// It stands in AS_PATH in the place of this router's own AS, and not in front of it.
    #[serde(default)]
    pub hide_own: bool,
}

/// What becomes of AS numbers for private use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum PrivateAs {
    /// They are announced.
    #[default]
    Keep,
    /// They are left out.
    Remove,
    /// This router's AS stands in their place.
    Replace,
}

/// What becomes of what is said of the overlay and not accepted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Foreign {
    /// It is taken from the neighbour's routes.
    #[default]
    Import,
    /// It is carried on, and not used here.
    Transit,
}

/// The words of [`Kind`].
#[derive(JsonSchema)]
#[schemars(rename_all = "kebab-case")]
#[expect(dead_code, reason = "for the schema")]
pub(super) enum KindSchema {
    /// Labels of tenants.
    Tenant,
    /// Labels of services.
    Service,
    /// Which router of the domain leads to the endpoints of a route.
    LocalNextHop,
    /// Which address an endpoint id stands for.
    Locator,
}

fn all_kinds() -> Vec<Kind> {
    Kind::ALL.to_vec()
}

fn is_all_kinds(kinds: &[Kind]) -> bool {
    kinds == Kind::ALL
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

impl Neighbor {
    /// What it may say of the overlay.
    pub(crate) fn import_policy(&self) -> ImportPolicy {
        ImportPolicy {
            vnis: self.accept_vnis.clone(),
            kinds: self.accept_kinds.clone(),
            endpoints: self.accept_endpoints.clone(),
            ids: self
                .accept_ids
                .as_ref()
                .map(|ids| ids.iter().map(|id| EndpointId(*id)).collect()),
            transit: self.overlay == Foreign::Transit,
        }
    }
}

/// A tenant's own router at this site. The session runs in the tenant: several tenants may have neighbours of one address.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub(crate) struct SiteNeighbor {
    /// Where it is, on the link of one of the tenant's interfaces.
    pub address: IpAddr,
    /// Its AS number, which is not this router's.
    #[serde(serialize_with = "serial::asn")]
    #[schemars(with = "serial::AsNumber")]
    pub asn: Asn,
    /// What sessions have in common.
    #[serde(flatten)]
    pub session: Session,
    /// TTL of packets to it.
    #[serde(default = "defaults::ttl")]
    #[schemars(range(min = 1))]
    pub ttl: u8,
    /// Put our own AS in the place of its AS in what it is told, so that several sites may have one AS number.
    #[serde(default)]
    pub as_override: bool,
}

/// A neighbour of the router.
pub(super) fn read<'a>(
    at: &Cursor<'a>,
    known: Known<'_>,
    groups: &Written<'a>,
    has_overlay: bool,
) -> Option<(Neighbor, Cursor<'a>)> {
    let mut fields = at.fields("a mapping with `address` and `asn`")?;
    let group = group::inherit(&mut fields, groups);
    let (neighbor, at) = read_fields((at, fields), known, has_overlay, Whose::Neighbor)?;
    Some((Neighbor { group, ..neighbor }, at))
}

/// What stands in a neighbour or a group of them; that of a group has no address.
pub(super) fn read_fields<'a>(
    (at, mut fields): (&Cursor<'a>, Fields<'a>),
    known: Known<'_>,
    has_overlay: bool,
    whose: Whose,
) -> Option<(Neighbor, Cursor<'a>)> {
    let router = known.router;
    let read = session::read(&mut fields, known, whose);
    let number = read.asn;
    let ibgp = number.is_some() && number == router.map(|router| router.asn);
    // What only makes sense on one side of the AS border, when the side is known.
    let known = number.is_some() && router.is_some();
    let fallover = fields.optional("fast_external_fallover", |at| at.bool());
    let bfd = fields.optional("bfd", |at| bfd::read(&at));
    let add_path = fields.optional("add_path", |at| add_path(&at));
    let max_paths = fields.optional("max_paths", |at| {
        number_of(&at, "a number of paths", 1, 65_535)
    });
    let client = fields.optional("route_reflector_client", |at| {
        let client = at.bool()?;
        if client && known && !ibgp {
            at.problem(
                "a route reflector's client is in the same AS",
                Some("remove it, or correct the neighbour's `asn`".to_owned()),
            );
        }
        Some(client)
    });
    let next_hop = fields.optional("next_hop", |at| {
        let next_hop = at.choice(&[("self", NextHop::Own), ("unchanged", NextHop::Unchanged)])?;
        if next_hop == NextHop::Unchanged && known && !ibgp {
            at.problem(
                "towards an eBGP neighbour the next hop is always `self`",
                None,
            );
        }
        Some(next_hop)
    });
    let local_next_hop = fields.optional("local_next_hop", |at| {
        at.choice(&[
            ("self", LocalNextHop::Own),
            ("keep", LocalNextHop::Keep),
            ("strip", LocalNextHop::Strip),
        ])
    });
    let external = |at: &Cursor<'_>, what: &str| {
        if known && ibgp {
            at.problem(
                format!("{what} is for eBGP neighbours"),
                Some("remove it, or correct the neighbour's `asn`".to_owned()),
            );
        }
    };
    let local_as = fields.optional("local_as", |at| {
        external(&at, "another AS of this router");
        local_as(&at, [number, router.map(|router| router.asn)])
    });
    let private_as = fields.optional("private_as", |at| {
        let chosen = at.choice(&[
            ("keep", PrivateAs::Keep),
            ("remove", PrivateAs::Remove),
            ("replace", PrivateAs::Replace),
        ])?;
        if chosen != PrivateAs::Keep {
            external(&at, "what becomes of private AS numbers");
        }
        Some(chosen)
    });
    let as_override = fields.optional("as_override", |at| {
        let chosen = at.bool()?;
        if chosen {
            external(&at, "an AS number in the place of its own");
        }
        Some(chosen)
    });
    let strip_overlay = fields.optional("strip_overlay", |at| at.bool());
    let accept_vnis = fields.optional("accept_vnis", |at| {
        let accept = vni_set(&at)?;
        if !accept.is_empty() && !has_overlay {
            at.problem(
                "labels are accepted into an overlay, and there is none",
                None,
            );
        }
        Some(accept)
    });
    let announce_vnis = fields.optional("announce_vnis", |at| vni_set(&at));
    let accept_kinds = fields.optional("accept_kinds", |at| {
        unique_list(&at, "a list of kinds", |at| {
            at.choice(&Kind::ALL.map(|kind| (kind.word(), kind)))
        })
    });
    let accept_endpoints = fields.optional("accept_endpoints", |at| prefixes(&at));
    let accept_ids = fields.optional("accept_ids", |at| {
        unique_list(&at, "a list of endpoint ids", |at| {
            at.parse::<Ipv4Addr>("an endpoint id, in the form of an IPv4 address")
        })
    });
    let foreign = fields.optional("overlay", |at| {
        at.choice(&[("import", Foreign::Import), ("transit", Foreign::Transit)])
    });
    if foreign == Some(Foreign::Transit) {
        for key in ["accept_kinds", "accept_endpoints", "accept_ids"] {
            if let Some(at) = fields.get(key) {
                at.problem(
                    "what is carried on whole is accepted by VNI only",
                    Some("leave this out, or `overlay: transit`".to_owned()),
                );
            }
        }
    }
    fields.finish();
    let nobody = || At {
        value: IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        at: at.clone(),
    };
    let placed = match whose {
        Whose::Neighbor => read.address?,
        Whose::Group { .. } => nobody(),
    };
    let asn = number?;
    let max_prefixes = read.session.max_prefixes;
    let neighbor = Neighbor {
        address: placed.value,
        group: None,
        asn,
        session: Session {
            max_prefixes: max_prefixes.or((!ibgp).then_some(defaults::MAX_PREFIXES)),
            ..read.session
        },
        fast_external_fallover: fallover.unwrap_or_else(defaults::yes),
        bfd: bfd.flatten(),
        local_as,
        private_as: private_as.unwrap_or_default(),
        as_override: as_override.unwrap_or_default(),
        add_path: add_path.unwrap_or_default(),
        max_paths: max_paths.unwrap_or(match ibgp {
            true => 256,
            false => defaults::max_paths(),
        }),
        route_reflector_client: client.unwrap_or_default(),
        next_hop: next_hop.unwrap_or_default(),
        local_next_hop,
        strip_overlay: strip_overlay.unwrap_or_default(),
        accept_vnis: accept_vnis.unwrap_or(match ibgp && has_overlay {
            true => VniSet::all(),
            false => VniSet::none(),
        }),
        accept_kinds: accept_kinds.map_or_else(all_kinds, |mut kinds| {
            kinds.sort_unstable();
            kinds
        }),
        accept_endpoints,
        accept_ids,
        overlay: foreign.unwrap_or_default(),
        announce_vnis: announce_vnis.unwrap_or_else(VniSet::all),
        ttl: read.ttl.unwrap_or(if ibgp { 64 } else { defaults::ttl() }),
    };
    Some((neighbor, placed.at))
}

/// Another AS of this router; `taken` are the neighbour's and its own.
fn local_as(at: &Cursor<'_>, taken: [Option<Asn>; 2]) -> Option<LocalAs> {
    let local = match at.is_mapping() {
        false => LocalAs {
            asn: asn(at)?,
            hide_own: false,
        },
        true => {
            let mut fields = at.fields("a mapping with `asn`")?;
            let number = fields.required("asn", "the AS that this router is", |at| asn(&at));
            let hide_own = fields.optional("hide_own", |at| at.bool());
            fields.finish();
            LocalAs {
                asn: number?,
                hide_own: hide_own.unwrap_or_default(),
            }
        }
    };
    match taken.contains(&Some(local.asn)) {
        true => at.expected("another AS number than the router's and the neighbour's"),
        false => Some(local),
    }
}

fn add_path(at: &Cursor<'_>) -> Option<AddPath> {
    if !at.is_mapping() {
        return match at.scalar() {
            Some("true") => Some(AddPath::default()),
            Some("false") => Some(AddPath {
                send: false,
                receive: false,
            }),
            _ => at.expected("true, false, or a mapping with `send` and `receive`"),
        };
    }
    let mut fields = at.fields("a mapping")?;
    let send = fields.optional("send", |at| at.bool());
    let receive = fields.optional("receive", |at| at.bool());
    fields.finish();
    Some(AddPath {
        send: send.unwrap_or_else(defaults::yes),
        receive: receive.unwrap_or_else(defaults::yes),
    })
}

/// A tenant's own router.
pub(super) fn read_site<'a>(
    at: &Cursor<'a>,
    known: Known<'_>,
) -> Option<(SiteNeighbor, Cursor<'a>)> {
    let router = known.router;
    let mut fields = at.fields("a mapping with `address` and `asn`")?;
    let read = session::read(&mut fields, known, Whose::Neighbor);
    let as_override = fields.optional("as_override", |at| at.bool());
    if read.asn.is_some()
        && read.asn == router.map(|router| router.asn)
        && let Some(at) = fields.get("asn")
    {
        at.problem(
            "a tenant's router has an AS number of its own, and this is this router's",
            Some("private AS numbers are 64512 to 65534 and 4200000000 to 4294967294".to_owned()),
        );
    }
    fields.finish();
    let (placed, asn) = (read.address?, read.asn?);
    let max_prefixes = read.session.max_prefixes;
    let neighbor = SiteNeighbor {
        address: placed.value,
        asn,
        session: Session {
            max_prefixes: max_prefixes.or(Some(defaults::SITE_MAX_PREFIXES)),
            ..read.session
        },
        as_override: as_override.unwrap_or_default(),
        ttl: read.ttl.unwrap_or_else(defaults::ttl),
    };
    Some((neighbor, placed.at))
}
