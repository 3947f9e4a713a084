//! A router that its domain's controller tells what to be: from what it says to a whole configuration.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, ToSocketAddrs as _, UdpSocket};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, bail};
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tracing::{info, warn};
use weft_discovery::client::{Client, ClientError, Event, Facts, Membership, PORT};
use weft_discovery::pki::TokenText;
use weft_discovery::proto::{Arm, Chain, Neighbor, Service, Tenant, item::Item};
use weft_discovery::view::View;

use super::core::Queries;
use super::performance::Reporter;
use super::sources::own_addresses;
use crate::config::Config;

/// Pauses between attempts to join: the first, and the longest.
const PAUSE: Duration = Duration::from_millis(250);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// The link with the controller.
pub(super) struct Managed {
    client: Client,
    events: mpsc::Receiver<Event>,
    /// What the file says.
    template: Config,
    facts: Facts,
    /// What the router runs.
    revision: u64,
    view: View,
}

/// The folder of a router's membership.
pub(crate) fn folder(state: &std::path::Path, name: &str) -> PathBuf {
    state.join(name)
}

impl Managed {
    /// Joins where that has not been done, registers, and waits until it is known what the router is to be: from the controller, or
    /// from the last time. Gives that too.
    pub(super) async fn start(template: Config) -> anyhow::Result<(Self, Config)> {
        let Some(controller) = &template.controller else {
            bail!("there is no controller in the configuration");
        };
        let folder = folder(&controller.state, &template.router.name);
        let membership = match Membership::load(&folder)? {
            Some(membership) => membership.at(&controller.address),
            None => join(&template, &folder).await?,
        };
        let facts = facts(&template, &controller.address)?;
        info!(
            domain = membership.domain(),
            controller = membership.controller(),
            endpoint = %facts.endpoint,
            "the controller says what this router is to be"
        );
        let known = membership.last_view();
        let (client, mut events) = Client::start(membership, facts.clone(), known.clone())?;
        let from_controller = known.is_none();
        let (revision, view) = match known {
            Some(known) => {
                info!(revision = known.0, "beginning with what was known last");
                known
            }
            None => loop {
                match events.recv().await {
                    Some(Event::View(revision, view)) => break (revision, view),
                    Some(Event::Question(_)) => {}
                    None => bail!("the link with the controller ended: this is a bug"),
                }
            },
        };
        let config = compose(&template, &facts, &view)?;
        if from_controller {
            client.applied(revision, Ok(view.clone())).await;
        }
        let managed = Self {
            client,
            events,
            template,
            facts,
            revision,
            view,
        };
        Ok((managed, config))
    }

    /// What the controller says next; never, where it says nothing any more.
    pub(super) async fn next(&mut self) -> Event {
        match self.events.recv().await {
            Some(event) => event,
            None => std::future::pending().await,
        }
    }

    /// Does what it says.
    pub(super) async fn handle(&mut self, event: Event, queries: &Queries, reporter: &Reporter) {
        match event {
            Event::View(revision, view) => {
                let result = self.run(&view, queries).await;
                if let Err(error) = &result {
                    warn!(
                        revision,
                        error, "the router cannot be what the controller says"
                    );
                } else {
                    (self.revision, self.view) = (revision, view.clone());
                }
                self.client.applied(revision, result.map(|()| view)).await;
            }
            Event::Question(question) => {
                tokio::spawn(reporter.clone().answer(question));
            }
        }
    }

    async fn run(&self, view: &View, queries: &Queries) -> Result<(), String> {
        let config = compose(&self.template, &self.facts, view);
        let config = config.map_err(|error| format!("{error:#}"))?;
        let reloaded = queries.reload(config).await;
        let reloaded = reloaded.ok_or("the router is shutting down")?;
        match reloaded.restart() {
            [] => Ok(()),
            sections => Err(format!(
                "it takes a restart of the router: {}",
                sections.join(", ")
            )),
        }
    }

    /// Another file: the same view in it.
    pub(super) fn refile(&mut self, template: Config) -> anyhow::Result<Config> {
        if template.controller != self.template.controller {
            bail!("another controller takes a restart");
        }
        let config = compose(&template, &self.facts, &self.view)?;
        self.template = template;
        Ok(config)
    }
}

/// Joins with the token of the configuration, for as long as it takes until the controller is there.
async fn join(template: &Config, folder: &std::path::Path) -> anyhow::Result<Membership> {
    let name = &template.router.name;
    let controller = template.controller.as_ref();
    let controller = controller.context("there is no controller in the configuration")?;
    let Some(token) = &controller.token else {
        bail!(
            "`{name}` has not joined a domain: add `token` to `controller`, from `weft token create --role router` at the controller, \
             or run `weft join {} TOKEN --name {name}`",
            controller.address
        );
    };
    let token: TokenText = token.parse()?;
    let mut pause = PAUSE;
    loop {
        match Membership::join(&controller.address, &token, name, folder).await {
            Ok(membership) => return Ok(membership),
            Err(error @ (ClientError::Unreachable { .. } | ClientError::Broken { .. })) => {
                warn!(%error, "waiting for the controller, to join");
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(LONGEST_PAUSE);
            }
            Err(error) => return Err(error.into()),
        }
    }
}

/// What the router says of itself: from the file, or as the kernel has it.
fn facts(template: &Config, controller: &str) -> anyhow::Result<Facts> {
    let overlay = template.overlay.as_ref();
    let configured = overlay
        .map(|of| of.endpoint)
        .filter(|of| !of.is_unspecified());
    let endpoint = match configured.or_else(own_address) {
        Some(endpoint) => endpoint,
        None => towards(controller).with_context(|| {
            format!("no address leads to the controller at {controller}: add `overlay: {{ endpoint: ADDRESS }}`")
        })?,
    };
    let id = template.router.router_id.0;
    Ok(Facts {
        router_id: (!id.is_unspecified()).then_some(id),
        bgp_address: endpoint,
        endpoint,
        encapsulations: vec![
            overlay
                .map_or(weft_overlay::Encapsulation::Vxlan, |of| of.encapsulation)
                .to_string(),
        ],
        capacity: overlay.and_then(|of| of.bandwidth).unwrap_or(0),
    })
}

/// The address of the loopback interface that others reach, IPv4 first.
fn own_address() -> Option<IpAddr> {
    let addresses = own_addresses().ok()?.into_iter();
    let own = addresses.filter_map(|(interface, address)| (interface == "lo").then_some(address));
    let reached = |address: &IpAddr| match address {
        IpAddr::V4(address) => !address.is_loopback() && !address.is_link_local(),
        IpAddr::V6(address) => !address.is_loopback() && !address.is_unicast_link_local(),
    };
    let mut own: Vec<IpAddr> = own.filter(reached).collect();
    own.sort_unstable_by_key(IpAddr::is_ipv6);
    own.first().copied()
}

/// The address that packets to the controller leave from.
fn towards(controllers: &str) -> Option<IpAddr> {
    let controller = controllers.split(',').next()?.trim();
    let address = controller
        .to_socket_addrs()
        .ok()
        .and_then(|mut all| all.next());
    let address = address.or_else(|| (controller, PORT).to_socket_addrs().ok()?.next())?;
    let any: SocketAddr = match address {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (std::net::Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    let socket = UdpSocket::bind(any).ok()?;
    socket.connect(address).ok()?;
    Some(socket.local_addr().ok()?.ip()).filter(|address| !address.is_loopback())
}

/// The whole configuration: what the file says, and what the controller says.
fn compose(template: &Config, facts: &Facts, view: &View) -> anyhow::Result<Config> {
    let mut document = serde_json::to_value(template)?;
    let settings = view.values().find_map(|item| match &item.item {
        Some(Item::Settings(settings)) => Some(settings),
        _ => None,
    });
    let settings = settings.context("the controller says nothing of the domain")?;
    let put = |document: &mut Value, section: &str, key: &str, value: Value| {
        if !document[section].is_object() {
            document[section] = json!({});
        }
        document[section][key] = value;
    };
    if let Some(document) = document.as_object_mut() {
        document.remove("controller");
    }
    put(&mut document, "router", "asn", settings.asn.into());
    put(
        &mut document,
        "router",
        "router_id",
        settings.router_id.clone().into(),
    );
    put(
        &mut document,
        "overlay",
        "global_administrator",
        settings.global_administrator.into(),
    );
    put(
        &mut document,
        "overlay",
        "endpoint",
        facts.endpoint.to_string().into(),
    );
    let mut neighbors = Vec::new();
    let mut tenants = Vec::new();
    for item in view.values() {
        match &item.item {
            Some(Item::Neighbor(of)) => neighbors.push(neighbor(of, facts, settings.hold_time)),
            Some(Item::Tenant(of)) => tenants.push(tenant(of)),
            _ => {}
        }
    }
    document["neighbors"] = neighbors.into();
    document["tenants"] = tenants.into();
    Ok(Config::parse(
        "what the controller says",
        &document.to_string(),
    )?)
}

fn neighbor(of: &Neighbor, facts: &Facts, hold_time: u32) -> Value {
    let mut neighbor = json!({
        "address": of.address,
        "asn": of.asn,
        "description": of.name,
        "hold_time": hold_time,
        "connect_retry": 5,
        "families": ["ipv4-unicast", "ipv6-unicast"],
    });
    // Tenants' IPv6 prefixes go over sessions between IPv4 addresses too: labels say where to, and the next hop is the IPv4 address.
    let own = of.local_address.parse().unwrap_or(facts.bgp_address);
    if let (IpAddr::V4(own), Ok(IpAddr::V4(_))) = (own, of.address.parse()) {
        neighbor["local_address_v6"] = own.to_ipv6_mapped().to_string().into();
    }
    if of.external {
        let shared: Value = match of.accept_vnis.as_slice() {
            [] => "none".into(),
            vnis => vnis.into(),
        };
        neighbor["accept_vnis"] = shared.clone();
        neighbor["announce_vnis"] = shared;
        if of.ttl > 0 {
            neighbor["ttl"] = of.ttl.into();
        }
        if !of.local_address.is_empty() {
            neighbor["local_address"] = of.local_address.clone().into();
        }
    } else {
        neighbor["local_address"] = facts.bgp_address.to_string().into();
        neighbor["route_reflector_client"] = of.route_reflector_client.into();
    }
    neighbor
}

fn tenant(of: &Tenant) -> Value {
    let redistribute: Vec<Value> = of
        .redistribute
        .iter()
        .map(|of| {
            of.parse::<u8>()
                .map_or_else(|_| of.clone().into(), Value::from)
        })
        .collect();
    json!({
        "name": of.name,
        "vni": of.vni,
        "interfaces": of.interfaces,
        "prefixes": of.prefixes,
        "redistribute": redistribute,
        "services": of.services.iter().map(service).collect::<Vec<_>>(),
        "chains": of.chains.iter().map(chain).collect::<Vec<_>>(),
    })
}

fn service(of: &Service) -> Value {
    let mut service = json!({
        "name": of.name,
        "label": of.label,
        "on_failure": of.on_failure,
        "rewrites": of.rewrites,
    });
    if !of.selection.is_empty() {
        service["selection"] = of.selection.clone().into();
    }
    let Some(attachment) = &of.attachment else {
        return service;
    };
    let arm = |of: &Arm| (of.interface.clone(), of.node.clone());
    if let Some((interface, node)) = attachment.inside.as_ref().map(arm) {
        service["interface"] = interface.into();
        service["node"] = node.into();
    }
    if let Some((interface, node)) = attachment.outside.as_ref().map(arm) {
        service["outside"] = json!({ "interface": interface, "node": node });
    }
    if let Some(of) = &attachment.probe {
        let mut probe = json!({ "kind": of.kind });
        let parts = [
            ("port", of.port.map(Value::from)),
            ("path", of.path.clone().map(Value::from)),
            ("interval", of.interval.map(Value::from)),
        ];
        for (key, value) in parts {
            if let Some(value) = value {
                probe[key] = value;
            }
        }
        service["probe"] = probe;
    }
    service
}

fn chain(of: &Chain) -> Value {
    let mut matches = json!({
        "source": of.source,
        "destination": of.destination,
        "source_ports": of.source_ports,
        "destination_ports": of.destination_ports,
    });
    if let Some(map) = matches.as_object_mut() {
        map.retain(|_, value| value.as_array().is_none_or(|list| !list.is_empty()));
    }
    if let Some(protocol) = &of.protocol {
        matches["protocol"] = protocol.clone().into();
    }
    if let Some(dscp) = of.dscp {
        matches["dscp"] = dscp.into();
    }
    json!({
        "name": of.name,
        "priority": of.priority,
        "match": matches,
        "services": of.services,
        "symmetric": of.symmetric,
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use weft_discovery::proto::{self, Item as Told, Settings};

    use super::*;

    #[test]
    fn what_the_controller_says_of_services_and_chains_is_a_configuration() {
        let settings = Settings {
            domain: "a".into(),
            asn: 64601,
            global_administrator: 64512,
            router_id: "192.0.2.1".into(),
            role: "router".into(),
            hold_time: 90,
        };
        let arm = |interface: &str, node: &str| Arm {
            interface: interface.into(),
            node: vec![node.into()],
        };
        let tenant = Tenant {
            name: "red".into(),
            vni: 10001,
            services: vec![
                Service {
                    name: "firewall".into(),
                    label: 20001,
                    on_failure: "over".into(),
                    rewrites: true,
                    selection: "pinned".into(),
                    attachment: Some(proto::ServiceAttachment {
                        inside: Some(arm("fw0", "169.254.1.2")),
                        outside: Some(arm("fw1", "169.254.2.2")),
                        probe: Some(proto::Probe {
                            kind: "http".into(),
                            port: Some(8080),
                            path: Some("/health".into()),
                            interval: Some(500),
                        }),
                    }),
                },
                Service {
                    name: "meter".into(),
                    label: 20002,
                    on_failure: "closed".into(),
                    ..Service::default()
                },
            ],
            chains: vec![Chain {
                name: "web".into(),
                priority: 10,
                source: vec!["10.0.1.0/24".into()],
                protocol: Some("tcp".into()),
                destination_ports: vec!["80".into(), "8000-8100".into()],
                dscp: Some(46),
                services: vec!["firewall".into(), "meter".into()],
                symmetric: true,
                ..Chain::default()
            }],
            ..Tenant::default()
        };
        let view: View = BTreeMap::from([
            (
                "settings".to_owned(),
                Told {
                    item: Some(Item::Settings(settings)),
                },
            ),
            (
                "tenant/red".to_owned(),
                Told {
                    item: Some(Item::Tenant(tenant)),
                },
            ),
        ]);
        let text = "router: { name: r1 }\ncontroller: { address: ctl.example }\n";
        let template = Config::parse("r1.yaml", text).unwrap();
        let facts = Facts {
            router_id: None,
            bgp_address: [192, 0, 2, 1].into(),
            endpoint: [192, 0, 2, 1].into(),
            encapsulations: vec!["vxlan".into()],
            capacity: 0,
        };
        let config = compose(&template, &facts, &view).unwrap();
        let services = crate::config::services(&config.tenants[0]);
        let firewall = services[0].attachment.as_ref().unwrap();
        let arms: Vec<&str> = firewall.arms().map(|of| of.interface.as_str()).collect();
        assert_eq!(arms, ["fw0", "fw1"]);
        assert!(services[0].rewrites && services[1].attachment.is_none());
        let chain = &crate::config::chains(&config.tenants[0])[0];
        assert_eq!(chain.matches.destination_ports, [80..=80, 8000..=8100]);
        assert_eq!(
            (chain.matches.protocol, chain.matches.dscp),
            (Some(6), Some(46))
        );
        assert!(chain.symmetric && chain.services.len() == 2);
    }
}
