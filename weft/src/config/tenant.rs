//! Tenants: what is attached, what they announce, whom they speak BGP with.

use ipnet::IpNet;
use schemars::JsonSchema;
use serde::Serialize;
use weft_overlay::{Vni, words};

use super::chains::{self, Chain, Service};
use super::neighbor::{self, SiteNeighbor};
use super::reader::{At, Cursor};
use super::session::Known;
use super::values::{interface, name, prefixes, unique, unique_list, unique_of, vni};
use super::{defaults, serial};

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
    /// Which of its packets go through which services. Every router that has the tenant or one of the services is to have the same, and so
    /// is an edge that passes its packets on between domains, where services are shared or pinned, or chains symmetric.
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

/// A tenant, with the places of what must be unique among all.
pub(super) struct ReadTenant<'a> {
    pub(super) tenant: Tenant,
    name: Cursor<'a>,
    vnis: Vec<At<'a, Vni>>,
    interfaces: Vec<At<'a, String>>,
    labels: Vec<At<'a, (String, Vni)>>,
}

pub(super) fn read<'a>(at: &Cursor<'a>, known: Known<'_>) -> Option<ReadTenant<'a>> {
    let mut fields = at.fields("a mapping with `name` and `vni`")?;
    let placed = |at: Cursor<'a>| name(&at).map(|value| At { value, at });
    let tenant_name = fields.required("name", "a name for humans, such as `red`", placed);
    let primary = fields.required(
        "vni",
        "the tenant's global VNI, 1 to 16777214, the same on every router",
        |at| vni(&at).map(|value| At { value, at }),
    );
    let extra = fields
        .optional("vnis", |at| at.list("a list of VNIs", |at| vni(&at)))
        .unwrap_or_default();
    let interfaces = fields
        .optional("interfaces", |at| {
            at.list("a list of interface names", |at| interface(&at))
        })
        .unwrap_or_default();
    let prefixes = fields.optional("prefixes", |at| prefixes(&at));
    let breakout = fields.optional("breakout", |at| breakout(&at));
    let redistribute = fields.optional("redistribute", |at| {
        unique_list(&at, "a list of `connected`, `static` and protocols", |at| {
            redistribute(&at)
        })
    });
    let neighbors = fields
        .optional("neighbors", |at| {
            at.list("a list of the tenant's routers", |at| {
                neighbor::read_site(&at, known)
            })
        })
        .unwrap_or_default();
    unique(
        neighbors.iter().map(|at| (at.value.0.address, &at.value.1)),
        |address| format!("the tenant's neighbour {address} stands here for a second time"),
    );
    let read = chains::read(&mut fields);
    fields.finish();
    let (tenant_name, primary) = (tenant_name?, primary?);
    let tenant = Tenant {
        name: tenant_name.value,
        vni: primary.value,
        vnis: extra.iter().map(|at| at.value).collect(),
        interfaces: interfaces.iter().map(|at| at.value.clone()).collect(),
        prefixes: prefixes.unwrap_or_default(),
        breakout,
        redistribute: redistribute.unwrap_or_default(),
        neighbors: neighbors.into_iter().map(|at| at.value.0).collect(),
        services: read.services,
        chains: read.chains,
    };
    Some(ReadTenant {
        tenant,
        name: tenant_name.at,
        vnis: std::iter::once(primary).chain(extra).collect(),
        interfaces: interfaces.into_iter().chain(read.interfaces).collect(),
        labels: read.labels,
    })
}

fn breakout(at: &Cursor<'_>) -> Option<Breakout> {
    let mut fields = at.fields("a mapping with `interface`")?;
    let interface = fields.required(
        "interface",
        "the interface towards the Internet, such as `eth0`",
        |at| interface(&at),
    );
    let source_nat = fields.optional("source_nat", |at| at.bool());
    fields.finish();
    Some(Breakout {
        interface: interface?,
        source_nat: source_nat.unwrap_or_else(defaults::yes),
    })
}

/// What a tenant announces of the kernel's routes.
fn redistribute(at: &Cursor<'_>) -> Option<Redistribute> {
    match at.scalar()? {
        "connected" => Some(Redistribute::Connected),
        "static" => Some(Redistribute::Static),
        word => match words::route_protocol(word) {
            Some(number) => Some(Redistribute::Protocol(number)),
            None => at.expected(words::redistributable()),
        },
    }
}

/// What may stand once among all tenants does.
pub(super) fn check(tenants: &[At<'_, ReadTenant<'_>>]) {
    let tenants = || tenants.iter().map(|at| &at.value);
    unique(
        tenants().map(|read| (&read.tenant.name, &read.name)),
        |name| format!("the tenant `{name}` stands here for a second time"),
    );
    let owned = |read: &ReadTenant<'_>| format!("tenant `{}`", read.tenant.name);
    unique_of(
        tenants().flat_map(|read| {
            read.vnis
                .iter()
                .map(move |at| (at.value, &at.at, owned(read)))
        }),
        |vni| format!("the VNI {vni} belongs to one tenant only"),
    );
    unique_of(
        tenants().flat_map(|read| {
            let interfaces = read.interfaces.iter();
            interfaces.map(move |at| (at.value.as_str(), &at.at, owned(read)))
        }),
        |name| format!("the interface `{name}` belongs to one tenant only"),
    );
    chains::check_labels(tenants().map(|read| {
        (
            read.tenant.name.as_str(),
            read.vnis.as_slice(),
            read.labels.as_slice(),
        )
    }));
}
