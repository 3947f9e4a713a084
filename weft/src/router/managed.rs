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
use weft_discovery::proto::{Neighbor, Tenant, item::Item};
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
    })
}
