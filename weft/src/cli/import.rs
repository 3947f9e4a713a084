//! `weft controller import`: what a router has by its own file becomes the domain's to say.

use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context as _, bail};
use serde_json::{Map, Value, json};
use weft_bgp::policy::RoutePolicy;

use super::controller::Access;
use super::output::Output;
use crate::config::places::Places;
use crate::config::{Config, Neighbor, SiteNeighbor, Tenant, defaults};

/// What the domain has already that this is to fit with.
struct Domain {
    asn: u64,
    global_administrator: u64,
    /// The router is an edge.
    edge: bool,
    /// Tenants and their VNIs.
    tenants: Map<String, Value>,
    /// Services of those, by tenant: as the API has them.
    services: Map<String, Value>,
}

/// What is asked of the controller, and what is left.
#[derive(Debug, Default, PartialEq, Eq)]
struct Plan {
    /// Method, path and body.
    requests: Vec<(&'static str, String, Value)>,
    /// The path in the file, and why it is not carried.
    left: Vec<(String, String)>,
}

/// Asks the controller for all that can be carried, and says what cannot.
pub(super) fn run(access: &Access, file: &Path, name: Option<&str>) -> anyhow::Result<ExitCode> {
    let text =
        std::fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
    let config = Config::parse(&file.display().to_string(), &text)?;
    if config.controller.is_some() {
        bail!("{}: its controller says what it is already", file.display());
    }
    let name = name.unwrap_or(&config.router.name);
    let router = access
        .ask("GET", &format!("routers/{name}"), None)
        .with_context(|| {
            format!("`{name}` is to join first: weft token create --role router --name {name}, and weft join at the router")
        })?;
    let plan = plan(&config, name, &domain(access, &router)?);
    let mut refused = Vec::new();
    for (method, path, body) in &plan.requests {
        if let Err(error) = access.ask(method, path, Some(body)) {
            refused.push(format!("{path}: {error:#}"));
        }
    }
    let places = Places::new(&text);
    let mut lines: Vec<(usize, String)> = plan
        .left
        .iter()
        .map(|(path, why)| (places.line(path), format!("{path}: {why}")))
        .collect();
    lines.sort();
    let mut out = format!(
        "{}: {} of {} parts carried into the domain\n",
        file.display(),
        plan.requests.len() - refused.len(),
        plan.requests.len()
    );
    for (line, what) in &lines {
        out.push_str(&format!("{}:{line}: not carried: {what}\n", file.display()));
    }
    for what in &refused {
        out.push_str(&format!("refused: {what}\n"));
    }
    Output::stdout().write(&out)?;
    Ok(match refused.is_empty() {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    })
}

fn domain(access: &Access, router: &Value) -> anyhow::Result<Domain> {
    let one = access.ask("GET", "domain", None)?;
    let listed = access.ask("GET", "tenants", None)?;
    let (mut tenants, mut services) = (Map::new(), Map::new());
    for tenant in listed["items"].as_array().into_iter().flatten() {
        let name = tenant["name"].as_str().unwrap_or_default();
        let has = access.ask("GET", &format!("tenants/{name}/services"), None)?;
        services.insert(name.to_owned(), has["items"].clone());
        tenants.insert(name.to_owned(), tenant["vni"].clone());
    }
    Ok(Domain {
        asn: one["asn"].as_u64().unwrap_or_default(),
        global_administrator: one["global_administrator"].as_u64().unwrap_or_default(),
        edge: router["role"] == "edge",
        tenants,
        services,
    })
}

/// What becomes of a router's configuration in a domain.
fn plan(config: &Config, router: &str, domain: &Domain) -> Plan {
    let mut plan = Plan::default();
    if u64::from(config.router.asn.0) != domain.asn {
        let why = format!("the domain's routers are of AS {}", domain.asn);
        plan.leave("router.asn", why);
    }
    if let Some(overlay) = &config.overlay
        && u64::from(overlay.global_administrator) != domain.global_administrator
    {
        let why = format!(
            "the labels of the domain are of {}",
            domain.global_administrator
        );
        plan.leave("overlay.global_administrator", why);
    }
    if !config.networks.is_empty() {
        plan.leave(
            "networks",
            "a controller says nothing of prefixes without a label",
        );
    }
    if !config.discovery.is_empty() {
        plan.leave("discovery", "the controller says who the neighbours are");
    }
    for (at, group) in config.groups.iter().enumerate() {
        if !group.listen.is_empty() {
            let why = "the controller says who the neighbours are";
            plan.leave(format!("groups[{at}].listen"), why);
        }
    }
    for (at, tenant) in config.tenants.iter().enumerate() {
        plan.tenant(at, tenant, router, domain);
    }
    plan.neighbors(config, router, domain);
    plan
}

impl Plan {
    fn leave(&mut self, path: impl Into<String>, why: impl Into<String>) {
        self.left.push((path.into(), why.into()));
    }

    fn tenant(&mut self, at: usize, tenant: &Tenant, router: &str, domain: &Domain) {
        let (name, path) = (&tenant.name, format!("tenants[{at}]"));
        match domain.tenants.get(name) {
            None => {
                let body = json!({ "name": name, "vni": tenant.vni.get() });
                self.requests.push(("POST", "tenants".into(), body));
            }
            Some(vni) if *vni == tenant.vni.get() => {}
            Some(vni) => {
                return self.leave(path, format!("the domain's tenant `{name}` has VNI {vni}"));
            }
        }
        if !tenant.vnis.is_empty() {
            self.leave(
                format!("{path}.vnis"),
                "a tenant of a domain has one VNI: make tenants of them",
            );
        }
        let document = serde_json::to_value(tenant).unwrap_or_default();
        let neighbors = tenant.neighbors.iter().enumerate();
        let neighbors: Vec<Value> = neighbors
            .map(|(number, one)| {
                let (carried, lost) = site_neighbor(one);
                for key in lost {
                    self.leave(
                        format!("{path}.neighbors[{number}].{key}"),
                        "an attachment has no such setting of its routers",
                    );
                }
                carried
            })
            .collect();
        let list = |key: &str| match &document[key] {
            Value::Null => json!([]),
            list => list.clone(),
        };
        let words = list("redistribute");
        let words = words.as_array().into_iter().flatten();
        let words = words.map(|one| one.as_str().map_or_else(|| one.to_string(), str::to_owned));
        let body = json!({
            "interfaces": tenant.interfaces,
            "prefixes": tenant.prefixes,
            "redistribute": words.collect::<Vec<String>>(),
            "neighbors": neighbors,
            "breakout": document["breakout"],
        });
        let attachment = format!("tenants/{name}/attachments/{router}");
        self.requests.push(("PUT", attachment, body));
        for service in list("services").as_array().into_iter().flatten() {
            self.service(name, service, router, domain);
        }
        for chain in list("chains").as_array().into_iter().flatten() {
            let mut body = chain.clone();
            let own = body["name"].as_str().unwrap_or_default().to_owned();
            if let Some(body) = body.as_object_mut() {
                body.remove("name");
            }
            self.requests
                .push(("PUT", format!("tenants/{name}/chains/{own}"), body));
        }
    }

    /// A service: nodes at other routers stay.
    fn service(&mut self, tenant: &str, service: &Value, router: &str, domain: &Domain) {
        let name = service["name"].as_str().unwrap_or_default();
        let known = domain.services.get(tenant).and_then(Value::as_array);
        let known = known.into_iter().flatten();
        let known = known.into_iter().find(|one| one["name"] == name);
        let there = known.and_then(|one| one["attachments"].as_array());
        let there = there.into_iter().flatten();
        let mut attachments: Vec<Value> = there
            .filter(|one| one["router"] != router)
            .cloned()
            .collect();
        if service["interface"].is_string() {
            let mut attachment = json!({ "router": router });
            for key in ["interface", "node", "outside", "probe"] {
                if !service[key].is_null() {
                    attachment[key] = service[key].clone();
                }
            }
            attachments.push(attachment);
        }
        let mut body = json!({ "attachments": attachments, "label": service["label"] });
        for key in ["on_failure", "rewrites", "selection"] {
            if !service[key].is_null() {
                body[key] = service[key].clone();
            }
        }
        let path = format!("tenants/{tenant}/services/{name}");
        self.requests.push(("PUT", path, body));
    }

    fn neighbors(&mut self, config: &Config, router: &str, domain: &Domain) {
        let mut peers = Vec::new();
        for (at, neighbor) in config.neighbors.iter().enumerate() {
            let path = format!("neighbors[{at}]");
            if neighbor.asn == config.router.asn {
                self.leave(
                    path,
                    "routers of the domain are each other's neighbours by themselves",
                );
            } else if !domain.edge {
                self.leave(
                    path,
                    format!(
                        "an edge speaks with other domains, and `{router}` is none: PATCH /api/v1/routers/{router} {{\"role\": \"edge\"}}, \
                         and import it again"
                    ),
                );
            } else {
                peers.push(self.peer(&path, neighbor, config));
            }
        }
        if !peers.is_empty() {
            let body = json!({ "peers": peers });
            self.requests
                .push(("PATCH", format!("routers/{router}"), body));
        }
    }

    /// Another domain's router.
    fn peer(&mut self, path: &str, one: &Neighbor, config: &Config) -> Value {
        let shared = config.tenants.iter();
        let shared = shared.filter(|tenant| one.accept_vnis.contains(tenant.vni));
        let shared: Vec<&str> = shared.map(|tenant| tenant.name.as_str()).collect();
        let address = one.address.to_string();
        let name = address.replace([':', '.'], "-");
        let mut plain = json!({
            "address": address,
            "asn": one.asn.0,
            "ttl": one.ttl,
            "accept_vnis": serde_json::to_value(one).unwrap_or_default()["accept_vnis"],
        });
        // Everything passes between domains that trust each other.
        for (key, said) in [
            ("import", &one.session.import),
            ("export", &one.session.export),
        ] {
            if said
                .as_ref()
                .is_some_and(|said| said.policy == RoutePolicy::Accept)
            {
                plain[key] = "accept".into();
            }
        }
        for key in lost("neighbors", one, &plain) {
            self.leave(
                format!("{path}.{key}"),
                "a domain's peer has no such setting",
            );
        }
        json!({
            "name": format!("peer-{}", name.trim_matches('-')),
            "address": address,
            "asn": one.asn.0,
            "ttl": one.ttl,
            "tenants": shared,
        })
    }
}

/// A tenant's own router as an attachment has it, and the keys that it has not.
fn site_neighbor(one: &SiteNeighbor) -> (Value, Vec<String>) {
    let document = serde_json::to_value(one).unwrap_or_default();
    let mut carried = Map::new();
    for key in [
        "address",
        "asn",
        "as_override",
        "description",
        "ttl",
        "max_prefixes",
    ] {
        if let Some(value) = document.get(key).filter(|value| !value.is_null()) {
            carried.insert(key.to_owned(), value.clone());
        }
    }
    if one.session.max_prefixes == Some(defaults::SITE_MAX_PREFIXES) {
        carried.remove("max_prefixes");
    }
    let carried = Value::from(carried);
    let lost = lost("tenants", one, &carried);
    (carried, lost)
}

/// Keys of a neighbour that it would have otherwise if no more were said of it than `plain`. `list` says whose neighbour it is.
fn lost(list: &str, one: &impl serde::Serialize, plain: &Value) -> Vec<String> {
    let mut document = json!({
        "router": { "name": "r", "router_id": "192.0.2.1", "asn": 4_200_000_000_u32 },
        "overlay": { "global_administrator": 1, "endpoint": "192.0.2.1" },
    });
    document[list] = match list {
        "tenants" => json!([{ "name": "t", "vni": 1, "neighbors": [plain] }]),
        _ => json!([plain]),
    };
    let Ok(config) = Config::parse("import", &document.to_string()) else {
        return vec!["asn".into()];
    };
    let usual = match list {
        "tenants" => serde_json::to_value(&config.tenants[0].neighbors[0]),
        _ => serde_json::to_value(&config.neighbors[0]),
    };
    let (usual, full) = (
        usual.unwrap_or_default(),
        serde_json::to_value(one).unwrap_or_default(),
    );
    let keys = full.as_object().into_iter().flatten();
    let differing = keys.filter(|(key, value)| usual.get(*key) != Some(*value));
    let differing = differing.map(|(key, _)| key.clone());
    differing
        .filter(|key| !["description", "group"].contains(&key.as_str()))
        .collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test: a panic is its verdict")]
    use super::*;

    const FILE: &str = "\
router: { name: r1, router_id: 192.0.2.1, asn: 64601 }
overlay: { global_administrator: 64512, endpoint: 192.0.2.1 }
networks: [198.51.100.0/24]
tenants:
  - name: red
    vni: 777
    vnis: [778]
    interfaces: [red0]
    prefixes: [10.0.1.0/24]
    redistribute: [connected, bird, 77]
    neighbors:
      - { address: 10.0.1.2, asn: 65001, as_override: true, passive: true }
    breakout: { interface: eth0 }
    services:
      - { name: firewall, label: 888, interface: fw0, node: 169.254.1.2, probe: { kind: tcp, port: 80 } }
    chains:
      - { name: web, match: { source: [10.0.1.0/24], protocol: tcp, destination_ports: [80, 8000-8100] }, services: [firewall] }
  - { name: blue, vni: 5 }
neighbors:
  - { address: 192.0.2.2, asn: 64601 }
  - { address: 203.0.113.2, asn: 64999, accept_vnis: [777], export: [10.0.0.0/8] }
";

    fn domain(edge: bool) -> Domain {
        Domain {
            asn: 64601,
            global_administrator: 64512,
            edge,
            tenants: Map::from_iter([("blue".to_owned(), json!(6))]),
            services: Map::new(),
        }
    }

    #[test]
    fn a_static_router_is_carried_and_what_is_left_is_named() {
        let config = Config::parse("r1.yaml", FILE).unwrap();
        let plan = plan(&config, "a1", &domain(true));
        let (made, attached) = (&plan.requests[0], &plan.requests[1]);
        assert_eq!(made.2, json!({ "name": "red", "vni": 777 }));
        assert_eq!(attached.1, "tenants/red/attachments/a1");
        assert_eq!(
            attached.2,
            json!({
                "interfaces": ["red0"],
                "prefixes": ["10.0.1.0/24"],
                "redistribute": ["connected", "bird", "77"],
                "neighbors": [{ "address": "10.0.1.2", "asn": 65001, "as_override": true, "ttl": 1 }],
                "breakout": { "interface": "eth0", "source_nat": true },
            })
        );
        assert_eq!(plan.requests[2].1, "tenants/red/services/firewall");
        assert_eq!(plan.requests[2].2["attachments"][0]["router"], "a1");
        assert_eq!(plan.requests[3].1, "tenants/red/chains/web");
        let peers = &plan.requests[4].2["peers"];
        assert_eq!(peers[0]["tenants"], json!(["red"]), "{peers}");
        let places = Places::new(FILE);
        let mut left: Vec<(usize, &str)> = plan
            .left
            .iter()
            .map(|(path, _)| (places.line(path), path.as_str()))
            .collect();
        left.sort_unstable();
        assert_eq!(
            left,
            [
                (3, "networks"),
                (7, "tenants[0].vnis"),
                (12, "tenants[0].neighbors[0].passive"),
                (18, "tenants[1]"),
                (20, "neighbors[0]"),
                (21, "neighbors[1].export"),
            ],
            "{:#?}",
            plan.left
        );
    }

    #[test]
    fn who_is_no_edge_is_told_what_to_do() {
        let config = Config::parse("r1.yaml", FILE).unwrap();
        let plan = plan(&config, "a1", &domain(false));
        let (_, why) = plan
            .left
            .iter()
            .find(|(at, _)| at == "neighbors[1]")
            .unwrap();
        assert!(why.contains("\"role\": \"edge\""), "{why}");
    }
}
