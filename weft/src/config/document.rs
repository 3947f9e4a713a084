//! From the text to a [`Config`]: the sections of the file, and what must fit together among them.

use std::collections::HashSet;
use std::sync::Arc;

use weft_bgp_wire::Family;

use super::group;
use super::neighbor::{self, Neighbor};
use super::node::{self, Position};
use super::policy::{self, Library, Policies, Sets};
use super::reader::{At, Cursor, Problems};
use super::report::Problem;
use super::session::Known;
use super::tenant::{self, ReadTenant};
use super::values::{prefixes, unique};
use super::{Config, discovery, management, overlay, router};

/// Reads a text; everything that is wrong with it otherwise.
pub(super) fn read(text: &str) -> Result<Config, Vec<Problem>> {
    let alone = |position, message| {
        vec![Problem {
            position,
            length: 1,
            path: String::new(),
            message,
            help: None,
        }]
    };
    let root = node::parse(text)
        .map_err(|error| {
            alone(
                error.position,
                format!("this is not YAML: {}", error.message),
            )
        })?
        .ok_or_else(|| {
            let start = Position { line: 1, column: 1 };
            alone(
                start,
                "the file is empty, expected a configuration".to_owned(),
            )
        })?;
    let problems = Problems::default();
    let config = config(&Cursor::root(&root, &problems));
    let mut problems = problems.into_inner();
    // What is wrong with a group comes up at each of its neighbours.
    let mut known = HashSet::new();
    problems.retain(|one| known.insert((one.position, one.message.clone())));
    match (config, problems) {
        (Some(config), problems) if problems.is_empty() => Ok(config),
        (_, problems) => Err(problems),
    }
}

/// Neighbours of a router, dynamic ones with them: their numbers have 16 bits.
const NEIGHBORS: u64 = 60_000;

fn config(root: &Cursor<'_>) -> Option<Config> {
    let mut fields = root.fields("a mapping with `router` and what else is configured")?;
    let managed = fields.get("controller").is_some();
    let controller = fields.optional("controller", |at| management::controller(&at));
    let router = fields.required(
        "router",
        "add `router: { name: NAME, router_id: ADDRESS, asn: NUMBER }`",
        |at| router::read(&at, managed),
    );
    let has_overlay = fields.get("overlay").is_some();
    let overlay = fields.optional("overlay", |at| overlay::read(&at, managed));
    for key in ["tenants", "neighbors", "groups", "networks", "discovery"] {
        if managed && let Some(at) = fields.get(key).filter(|at| !at.is_empty_list()) {
            at.problem(
                format!("with a controller, {key} are what it says"),
                Some("leave this out, and tell the controller".to_owned()),
            );
        }
    }
    let sets = Sets {
        prefixes: fields
            .optional("prefix_lists", |at| policy::prefix_lists(&at))
            .unwrap_or_default(),
        as_paths: fields
            .optional("as_paths", |at| policy::as_paths(&at))
            .unwrap_or_default(),
        communities: fields
            .optional("communities", |at| policy::communities(&at))
            .unwrap_or_default(),
        administrator: overlay.as_ref().map(|overlay| overlay.global_administrator),
    };
    let written = fields
        .optional("policies", |at| policy::policies(&at, &sets))
        .unwrap_or_default();
    let policies = Policies::new(Library::new(&written, &sets));
    let known = Known {
        router: router.as_ref(),
        policies: &policies,
    };
    let tenants = fields
        .optional("tenants", |at| {
            at.list("a list of tenants", |at| tenant::read(&at, known))
        })
        .unwrap_or_default();
    let (groups, written_groups) = fields
        .optional("groups", |at| group::read_all(&at, known, has_overlay))
        .unwrap_or_default();
    let discovery = fields
        .optional("discovery", |at| {
            at.list("a list of sources of neighbours", |at| {
                discovery::read(&at, &written_groups)
            })
        })
        .unwrap_or_default();
    let neighbors = fields
        .optional("neighbors", |at| {
            at.list("a list of neighbours", |at| {
                neighbor::read(&at, known, &written_groups, has_overlay)
            })
        })
        .unwrap_or_default();
    let networks = fields.optional("networks", |at| prefixes(&at));
    let install = fields.optional("install", |at| prefixes(&at));
    let api = fields.optional("api", |at| management::api(&at));
    let log = fields.optional("log", |at| management::log(&at));
    if !has_overlay && let Some(tenants) = fields.get("tenants").filter(|_| !tenants.is_empty()) {
        tenants.problem(
            "tenants need an overlay, and there is none",
            Some("add `overlay: { global_administrator: ASN, endpoint: ADDRESS }`".to_owned()),
        );
    }
    let v6_endpoint = overlay.as_ref().is_some_and(|one| one.endpoint.is_ipv6());
    let v6_session = |at: &At<'_, (Neighbor, Cursor<'_>)>| {
        let families = &at.value.0.session.families;
        families.contains(&Family::Ipv6Unicast)
    };
    if v6_endpoint
        && !neighbors.is_empty()
        && !neighbors.iter().any(v6_session)
        && let Some(at) = fields.get("neighbors")
    {
        at.problem(
            "the IPv6 endpoint is announced in ipv6-unicast, and no neighbour exchanges that",
            Some("add `families: [ipv4-unicast, ipv6-unicast]` to the neighbours".to_owned()),
        );
    }
    let attached = |at: &At<'_, ReadTenant<'_>>| {
        let mut services = at.value.tenant.services.iter();
        services.any(|one| one.interface.is_some())
    };
    if overlay.as_ref().is_some_and(|one| !one.announce_locator)
        && tenants.iter().any(attached)
        && let Some(at) = fields.get("overlay")
    {
        at.problem(
            "services that are attached here are announced with the locator, which is not announced",
            Some("leave `announce_locator` out, or set it to true".to_owned()),
        );
    }
    let dynamic = groups.iter().filter_map(|one| one.limit).map(u64::from);
    let all = neighbors.len() as u64 + dynamic.sum::<u64>();
    if all > NEIGHBORS
        && let Some(at) = fields.get("groups").or_else(|| fields.get("neighbors"))
    {
        at.problem(
            format!(
                "{all} neighbours, with those that groups let in: a router has {NEIGHBORS} at most"
            ),
            Some("lower the `limit` of groups, or take another router".to_owned()),
        );
    }
    fields.finish();
    let library = Arc::new(policies.library);
    tenant::check(&tenants);
    unique(
        neighbors.iter().map(|at| (at.value.0.address, &at.value.1)),
        |address| format!("the neighbour {address} stands here for a second time"),
    );
    Some(Config {
        controller,
        router: router?,
        overlay,
        tenants: tenants.into_iter().map(|at| at.value.tenant).collect(),
        neighbors: neighbors.into_iter().map(|at| at.value.0).collect(),
        groups,
        prefix_lists: sets.prefixes,
        as_paths: sets.as_paths,
        communities: sets.communities,
        policies: written,
        library,
        discovery: discovery.into_iter().map(|at| at.value).collect(),
        networks: networks.unwrap_or_default(),
        install: install.unwrap_or_default(),
        api: api.unwrap_or_default(),
        log: log.unwrap_or_default(),
    })
}
