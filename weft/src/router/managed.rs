//! A router that its domain's controller tells what to be: from what it says to a whole configuration.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, ToSocketAddrs as _, UdpSocket};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use ipnet::IpNet;
use serde_json::{Value, json};
use tokio::sync::{mpsc, watch};
use tracing::{info, warn};
use weft_discovery::client::{Client, ClientError, Event, Facts, Membership, PORT};
use weft_discovery::pki::TokenText;
use weft_discovery::proto::{
    self, Arm, Chain, Neighbor, Service, SiteNeighbor, Tenant, item::Item,
};
use weft_discovery::view::View;
use weft_overlay::origins::Origins;

use super::core::Queries;
use super::performance::Reporter;
use super::setup::SessionKeys;
use super::sources::own_addresses;
use super::told::{self, Publisher, Teller, Told};
use crate::config::Config;
use crate::config::parts::{Parts, Refused};

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
    /// Addresses of interfaces that the router itself lives by, and what for.
    reserved: Vec<(IpAddr, &'static str)>,
    /// What the controller has said.
    view: View,
    /// What runs.
    config: Config,
    /// What of the view does not.
    refused: Vec<Refused>,
    /// What of the router itself waits for a restart.
    waiting: Option<Refused>,
    /// Where it says that labels may lead, `None` where it says nothing of that.
    origins: Option<Arc<Origins>>,
    /// Interfaces that tenants may attach.
    granted: BTreeSet<String>,
    /// What sessions with other routers of the domain are signed with.
    keys: SessionKeys,
    /// The controller is there, or why it is away.
    link: Result<(), String>,
    /// The state folder takes what a start needs, or why it does not.
    kept: Result<(), String>,
    told: Publisher,
}

/// The folder of a router's membership.
pub(crate) fn folder(state: &std::path::Path, name: &str) -> PathBuf {
    state.join(name)
}

impl Managed {
    /// Joins where that has not been done, registers, and waits until it is known what the router is to be: from the controller, or
    /// from the last time. Gives that too.
    pub(super) async fn start(template: Config, told: Publisher) -> anyhow::Result<(Self, Config)> {
        let Some(controller) = &template.controller else {
            bail!("there is no controller in the configuration");
        };
        let folder = folder(&controller.state, &template.router.name);
        let token = controller
            .token
            .as_ref()
            .map(|one| one.parse())
            .transpose()?;
        let membership = match Membership::load(&folder)? {
            Some(membership) => {
                check_authority(&membership, token.as_ref())?;
                membership.at(&controller.address)
            }
            None => join(&template, token.as_ref(), &folder).await?,
        };
        let way = towards(&controller.address);
        let facts = facts(&template, &controller.address, way)?;
        let endpoint = (facts.endpoint, "the router's tunnels end");
        let way = way.map(|address| (address, "the controller is reached from"));
        let reserved = [endpoint].into_iter().chain(way).collect();
        info!(
            domain = membership.domain(),
            controller = membership.controller(),
            endpoint = %facts.endpoint,
            "the controller says what this router is to be"
        );
        let known = membership.last_view();
        if let Some((revision, _)) = &known {
            info!(revision, "beginning with what was known last");
        }
        let (client, events) = Client::start(membership, facts.clone(), known.clone(), token);
        let mut managed = Self {
            client,
            events,
            config: template.clone(),
            template,
            facts,
            reserved,
            view: View::new(),
            refused: Vec::new(),
            waiting: None,
            origins: None,
            granted: BTreeSet::new(),
            keys: SessionKeys::new(),
            link: Ok(()),
            kept: Ok(()),
            told,
        };
        let config = managed.begin(known).await?;
        managed.config = config.clone();
        managed.origins = origins::read(&managed.view, &config);
        managed.granted = granted::read(&managed.view);
        managed.keys = keys::read(&managed.view);
        managed.publish();
        Ok((managed, config))
    }

    /// What the router is to be at its start: by what was known last, or by the first word of the controller of which it can be
    /// anything.
    async fn begin(&mut self, known: Option<(u64, View)>) -> anyhow::Result<Config> {
        if let Some((_, view)) = known {
            match self.compose(&view) {
                Ok((config, refused)) => {
                    (self.view, self.refused) = (view, refused);
                    return Ok(config);
                }
                Err(error) => warn!("what was known last cannot be: {error:#}"),
            }
        }
        loop {
            match self.events.recv().await {
                Some(Event::View(revision, view)) => {
                    let (config, refused) = match self.compose(&view) {
                        Ok((config, refused)) => (Some(config), refused),
                        Err(error) => (None, vec![everything(&error)]),
                    };
                    self.note(&refused);
                    let told = refused.iter().map(said).collect();
                    self.client.applied(revision, view.clone(), told).await;
                    (self.view, self.refused) = (view, refused);
                    if let Some(config) = config {
                        return Ok(config);
                    }
                }
                Some(Event::Link(link)) => self.link = link,
                Some(Event::Kept(kept)) => self.kept = kept,
                Some(Event::Question(_)) => {}
                None => bail!("the link with the controller ended: this is a bug"),
            }
        }
    }

    /// Where labels may lead, as the controller has said it last.
    pub(super) fn origins(&self) -> Option<Arc<Origins>> {
        self.origins.clone()
    }

    /// Tells the controller, from now on, which interfaces no tenant can have.
    pub(super) fn report(&self, mut reserved: watch::Receiver<BTreeMap<String, String>>) {
        let client = self.client.clone();
        tokio::spawn(async move {
            loop {
                client.reserve(reserved.borrow_and_update().clone());
                if reserved.changed().await.is_err() {
                    return;
                }
            }
        });
    }

    /// Interfaces that tenants may attach, as the controller has said it last.
    pub(super) fn granted(&self) -> BTreeSet<String> {
        self.granted.clone()
    }

    /// What sessions with other routers of the domain are signed with, as the controller has said it last.
    pub(super) fn keys(&self) -> SessionKeys {
        self.keys.clone()
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
            Event::View(revision, mut view) => {
                let refused = self.run(&mut view, queries).await;
                self.note(&refused);
                let told = refused.iter().map(said).collect();
                (self.view, self.refused) = (view.clone(), refused);
                self.client.applied(revision, view, told).await;
            }
            Event::Link(link) => self.link = link,
            Event::Kept(kept) => self.kept = kept,
            Event::Question(question) => {
                tokio::spawn(reporter.clone().answer(question));
            }
        }
        self.publish();
    }

    /// Goes over to a view; gives what of it cannot be. Where that is what it says of the router itself, this stays what it was.
    async fn run(&mut self, view: &mut View, queries: &Queries) -> Vec<Refused> {
        if keys::is_all_that_differs(view, &self.view) {
            self.set_keys(keys::read(view), queries).await;
            return self.refused.clone();
        }
        let mut refused = Vec::new();
        let mut composed = self.compose(view);
        if let Err(error) = &composed {
            refused.push(everything(error));
            match self.view.get(SETTINGS) {
                Some(settings) => view.insert(SETTINGS.to_owned(), settings.clone()),
                None => view.remove(SETTINGS),
            };
            composed = self.compose(view);
        }
        let config = match composed {
            Ok((config, parts)) => {
                refused.extend(parts);
                config
            }
            Err(_) => return refused,
        };
        // At once: the other ends of sessions go over to another key now.
        self.set_keys(keys::until_gone(view, &self.keys), queries)
            .await;
        // First, so that nothing of a tenant that is new is judged by what was said before.
        self.judge(view, &config, queries).await;
        let granted = granted::read(view);
        if granted != self.granted {
            self.granted.clone_from(&granted);
            queries.set_granted(granted).await;
        }
        if config == self.config {
            refused.extend(self.waiting.clone());
            return refused;
        }
        let Some(reloaded) = queries.reload(config.clone()).await else {
            return refused;
        };
        self.set_keys(keys::read(view), queries).await;
        self.config = config;
        let restart = reloaded.restart();
        self.waiting = (!restart.is_empty()).then(|| Refused {
            item: SETTINGS.to_owned(),
            reason: format!(
                "{} cannot change while the router runs: it begins with that when it is restarted",
                restart.join(", ")
            ),
        });
        refused.extend(self.waiting.clone());
        refused
    }

    /// Has labels judged by what a view says, and by what the file says of those of which it says nothing.
    async fn judge(&mut self, view: &View, config: &Config, queries: &Queries) {
        let origins = origins::read(view, config);
        if origins != self.origins {
            self.origins.clone_from(&origins);
            queries.set_origins(origins).await;
        }
    }

    /// The same after another file.
    pub(super) async fn judge_anew(&mut self, queries: &Queries) {
        let (view, config) = (self.view.clone(), self.config.clone());
        self.judge(&view, &config, queries).await;
    }

    async fn set_keys(&mut self, keys: SessionKeys, queries: &Queries) {
        if keys != self.keys {
            self.keys.clone_from(&keys);
            queries.set_keys(keys).await;
        }
    }

    /// Logs what is refused, each part once.
    fn note(&self, refused: &[Refused]) {
        for new in refused.iter().filter(|one| !self.refused.contains(one)) {
            let (item, reason) = (&new.item, &new.reason);
            warn!(item, reason, "a part of what the controller says cannot be");
        }
    }

    /// Another file: the same view in it.
    pub(super) fn refile(&mut self, template: Config) -> anyhow::Result<Config> {
        if !is_same_controller(&template, &self.template) {
            bail!("another controller takes a restart");
        }
        let before = std::mem::replace(&mut self.template, template);
        let view = self.view.clone();
        match self.compose(&view) {
            Ok((config, refused)) => {
                self.note(&refused);
                self.refused = refused;
                self.config = config.clone();
                self.publish();
                Ok(config)
            }
            Err(error) => {
                self.template = before;
                Err(error)
            }
        }
    }

    fn compose(&self, view: &View) -> anyhow::Result<(Config, Vec<Refused>)> {
        let own = own_addresses()?;
        let reserved = self.reserved.iter().flat_map(|(address, what)| {
            let interfaces = own.iter().filter(move |(_, one)| one == address);
            interfaces.map(move |(interface, _)| {
                let why = format!("it has the address {address}, which {what}");
                (interface.clone(), why)
            })
        });
        let reserved = reserved.collect();
        compose(&self.template, &self.facts, &reserved, view, &self.config)
    }

    /// For the API: who tells of neighbours, and what is refused.
    fn publish(&self) {
        let source = match &self.template.controller {
            Some(one) => format!("controller {}", one.address),
            None => "controller".to_owned(),
        };
        let neighbors = self.view.values().filter_map(|item| match &item.item {
            Some(Item::Neighbor(one)) => one.address.parse().ok(),
            _ => None,
        });
        let teller = Teller {
            source: source.clone(),
            stale: self.link.as_ref().err().cloned(),
        };
        let silent = self.link.as_ref().err();
        let silent = silent.map(|why| told::silent(&source, why));
        let unkept = self.kept.as_ref().err();
        let unkept = unkept.map(|why| told::unkept(why));
        let left_out = self
            .told
            .borrow()
            .left_out(&self.refused, std::time::Instant::now());
        self.told.send_replace(Arc::new(Told {
            neighbors: neighbors.map(|one| (one, teller.clone())).collect(),
            notes: self.view.values().flat_map(notes).collect(),
            unsigned: keys::unsigned(&self.view),
            alarms: silent.into_iter().chain(unkept).collect(),
            left_out,
        }));
    }
}

/// What is to be known of a tenant's chains, by its and their names.
fn notes(item: &proto::Item) -> Vec<((String, String), String)> {
    let Some(Item::Tenant(tenant)) = &item.item else {
        return Vec::new();
    };
    let noted = tenant.chains.iter().filter(|one| !one.note.is_empty());
    noted
        .map(|one| ((tenant.name.clone(), one.name.clone()), one.note.clone()))
        .collect()
}

/// What the view says of the router itself.
const SETTINGS: &str = "settings";

/// What is wrong with more than a part.
fn everything(error: &anyhow::Error) -> Refused {
    Refused {
        item: SETTINGS.to_owned(),
        reason: format!("{error:#}"),
    }
}

fn said(refused: &Refused) -> proto::Refused {
    proto::Refused {
        item: refused.item.clone(),
        reason: refused.reason.clone(),
    }
}

/// A token of another domain is not one to pass over in silence.
fn check_authority(membership: &Membership, token: Option<&TokenText>) -> anyhow::Result<()> {
    let fingerprint = membership.fingerprint();
    match token.filter(|one| one.fingerprint != fingerprint) {
        None => Ok(()),
        Some(token) => bail!(
            "{folder} holds the membership of `{name}` in domain `{domain}`, whose authority is {fingerprint}, and the token in the \
             configuration is of the authority {other}. To join the domain of the token, remove {folder}; to stay in `{domain}`, take \
             `token` out of `controller`",
            folder = membership.folder().display(),
            name = membership.name(),
            domain = membership.domain(),
            other = token.fingerprint,
        ),
    }
}

/// Secrets of sessions change while the router runs.
fn is_same_controller(one: &Config, other: &Config) -> bool {
    let but_secrets = |config: &Config| {
        let mut controller = config.controller.clone();
        if let Some(controller) = &mut controller {
            controller.password_files.clear();
        }
        controller
    };
    but_secrets(one) == but_secrets(other)
}

/// Joins with the token of the configuration, for as long as it takes until the controller is there.
async fn join(
    template: &Config,
    token: Option<&TokenText>,
    folder: &std::path::Path,
) -> anyhow::Result<Membership> {
    let name = &template.router.name;
    let controller = template.controller.as_ref();
    let controller = controller.context("there is no controller in the configuration")?;
    let Some(token) = token else {
        bail!(
            "`{name}` has not joined a domain: add `token` to `controller`, from `weft token create --role router` at the controller, \
             or run `weft join {} TOKEN --name {name}`",
            controller.address
        );
    };
    let mut pause = PAUSE;
    loop {
        match Membership::join(&controller.address, token, name, folder).await {
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

/// What the router says of itself: from the file, or as the kernel has it. Packets to the controller leave from `way`.
fn facts(template: &Config, controller: &str, way: Option<IpAddr>) -> anyhow::Result<Facts> {
    let overlay = template.overlay.as_ref();
    let configured = overlay
        .map(|one| one.endpoint)
        .filter(|one| !one.is_unspecified());
    let endpoint = match configured.or_else(own_address) {
        Some(endpoint) => endpoint,
        None => way.with_context(|| {
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
                .map_or(weft_overlay::Encapsulation::Vxlan, |one| one.encapsulation)
                .to_string(),
        ],
        capacity: overlay.and_then(|one| one.bandwidth).unwrap_or(0),
        session_keys: signs(template),
    })
}

/// Sessions with other routers of the domain are signed: the file allows it, and the kernel can.
fn signs(template: &Config) -> bool {
    let wanted = template.controller.as_ref();
    if wanted.is_some_and(|one| !one.sign_sessions) {
        return false;
    }
    match weft_bgp::can_sign() {
        Ok(()) => true,
        Err(error) => {
            warn!(%error, "sessions with other routers of the domain are not signed");
            false
        }
    }
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

/// The identifier that the router has: the controller chooses in the same way for one that does not say it. By this and not by the
/// view, a router whose address has changed begins as what it is now, before it has heard how its neighbours see that.
fn router_id(facts: &Facts, told: &str) -> String {
    match (facts.router_id, facts.endpoint) {
        (Some(id), _) => id.to_string(),
        (None, IpAddr::V4(endpoint)) => endpoint.to_string(),
        (None, IpAddr::V6(_)) => told.to_owned(),
    }
}

/// The whole configuration: what the file says, and what the controller says, and what of that cannot be. `reserved` are interfaces
/// that no tenant can have here, and why; `former` is what ran before.
fn compose(
    template: &Config,
    facts: &Facts,
    reserved: &BTreeMap<String, String>,
    view: &View,
    former: &Config,
) -> anyhow::Result<(Config, Vec<Refused>)> {
    let mut document = serde_json::to_value(template)?;
    let settings = view.values().find_map(|item| match &item.item {
        Some(Item::Settings(settings)) => Some(settings),
        _ => None,
    });
    let settings = settings.context("the controller says nothing of the domain")?;
    let mut put = |section: &str, key: &str, value: Value| {
        if !document[section].is_object() {
            document[section] = json!({});
        }
        document[section][key] = value;
    };
    put("router", "asn", settings.asn.into());
    let id = router_id(facts, &settings.router_id);
    put("router", "router_id", id.into());
    let administrator = settings.global_administrator.into();
    put("overlay", "global_administrator", administrator);
    put("overlay", "endpoint", facts.endpoint.to_string().into());
    // Far ends of tunnels are reached by what BGP says, where nothing else leads there.
    put("overlay", "install_underlay", true.into());
    if let Some(document) = document.as_object_mut() {
        document.remove("controller");
    }
    let mut refused = Vec::new();
    let mut parts = Parts {
        document,
        neighbors: Vec::new(),
        tenants: Vec::new(),
    };
    let (mut neighbors, mut tenants) = (Vec::new(), Vec::new());
    for (key, item) in view {
        match &item.item {
            Some(Item::Neighbor(one)) => {
                let mut told = neighbor(one, facts, settings.hold_time);
                let own = template.controller.as_ref();
                let address = one.address.parse::<IpAddr>().ok();
                let file = own.and_then(|own| own.password_files.get(&address?));
                if let Some(file) = file.filter(|_| one.external) {
                    told["password_file"] = file.display().to_string().into();
                }
                neighbors.push(told);
                parts.neighbors.push(key.clone());
            }
            Some(Item::Tenant(one)) => {
                let mut one = one.clone();
                one.interfaces.retain(|name| match reserved.get(name) {
                    Some(why) => {
                        refused.push(Refused {
                            item: key.clone(),
                            reason: format!("interface `{name}` is the router's own: {why}"),
                        });
                        false
                    }
                    None => true,
                });
                tenants.push(tenant(&one));
                parts.tenants.push(key.clone());
            }
            // Beside the configuration: a secret is in no part of it.
            Some(Item::Settings(_) | Item::Origins(_) | Item::Beyond(_) | Item::SessionKey(_)) => {}
            // Of a later controller.
            None => refused.push(Refused {
                item: key.clone(),
                reason: format!("weft {} does not know it", env!("CARGO_PKG_VERSION")),
            }),
        }
    }
    parts.document["neighbors"] = neighbors.into();
    parts.document["tenants"] = tenants.into();
    let (mut config, wrong) = parts.read("what the controller says", former)?;
    // The router lives by it.
    config.controller.clone_from(&template.controller);
    refused.extend(wrong);
    Ok((config, refused))
}

fn neighbor(one: &Neighbor, facts: &Facts, hold_time: u32) -> Value {
    let mut neighbor = json!({
        "address": one.address,
        "asn": one.asn,
        "description": one.name,
        "hold_time": hold_time,
        "connect_retry": 5,
        "families": ["ipv4-unicast", "ipv6-unicast"],
    });
    // Tenants' IPv6 prefixes go over sessions between IPv4 addresses too: labels say where to, and the next hop is the IPv4 address.
    let own = one.local_address.parse().unwrap_or(facts.bgp_address);
    if let (IpAddr::V4(own), Ok(IpAddr::V4(_))) = (own, one.address.parse()) {
        neighbor["local_address_v6"] = own.to_ipv6_mapped().to_string().into();
    }
    if one.external {
        let shared: Value = match one.accept_vnis.as_slice() {
            [] => "none".into(),
            vnis => vnis.into(),
        };
        neighbor["accept_vnis"] = shared.clone();
        neighbor["announce_vnis"] = shared;
        // Another domain that the operator trusts: what it may say of the overlay stands beside, and its number of prefixes has a bound.
        neighbor["import"] = "accept".into();
        neighbor["export"] = "accept".into();
        if one.ttl > 0 {
            neighbor["ttl"] = one.ttl.into();
        }
        if !one.local_address.is_empty() {
            neighbor["local_address"] = one.local_address.clone().into();
        }
    } else {
        neighbor["local_address"] = facts.bgp_address.to_string().into();
        neighbor["route_reflector_client"] = one.route_reflector_client.into();
        // A router that is nobody's reflector and no edge names itself: one that is seized leads no packets to others.
        if let Ok(endpoint) = one.endpoint.parse::<IpAddr>() {
            neighbor["accept_endpoints"] = json!([IpNet::from(endpoint).to_string()]);
            neighbor["accept_ids"] = json!([one.router_id]);
        }
    }
    neighbor
}

fn tenant(one: &Tenant) -> Value {
    let redistribute: Vec<Value> = one
        .redistribute
        .iter()
        .map(|one| {
            one.parse::<u8>()
                .map_or_else(|_| one.clone().into(), Value::from)
        })
        .collect();
    let mut tenant = json!({
        "name": one.name,
        "vni": one.vni,
        "interfaces": one.interfaces,
        "prefixes": one.prefixes,
        "redistribute": redistribute,
        "neighbors": one.neighbors.iter().map(site_neighbor).collect::<Vec<_>>(),
        "services": one.services.iter().map(service).collect::<Vec<_>>(),
        "chains": one.chains.iter().map(chain).collect::<Vec<_>>(),
    });
    if let Some(one) = &one.breakout {
        tenant["breakout"] = json!({ "interface": one.interface, "source_nat": one.source_nat });
    }
    tenant
}

/// A tenant's own router.
fn site_neighbor(one: &SiteNeighbor) -> Value {
    let mut neighbor = json!({
        "address": one.address,
        "asn": one.asn,
        "as_override": one.as_override,
    });
    let parts = [
        ("description", one.description.clone().map(Value::from)),
        ("ttl", one.ttl.map(Value::from)),
        ("max_prefixes", one.max_prefixes.map(Value::from)),
    ];
    for (key, value) in parts {
        if let Some(value) = value {
            neighbor[key] = value;
        }
    }
    neighbor
}

fn service(one: &Service) -> Value {
    let mut service = json!({
        "name": one.name,
        "label": one.label,
        "on_failure": one.on_failure,
        "rewrites": one.rewrites,
    });
    if !one.selection.is_empty() {
        service["selection"] = one.selection.clone().into();
    }
    let Some(attachment) = &one.attachment else {
        return service;
    };
    let arm = |one: &Arm| (one.interface.clone(), one.node.clone());
    if let Some((interface, node)) = attachment.inside.as_ref().map(arm) {
        service["interface"] = interface.into();
        service["node"] = node.into();
    }
    if let Some((interface, node)) = attachment.outside.as_ref().map(arm) {
        service["outside"] = json!({ "interface": interface, "node": node });
    }
    if let Some(one) = &attachment.probe {
        let mut probe = json!({ "kind": one.kind });
        let parts = [
            ("port", one.port.map(Value::from)),
            ("path", one.path.clone().map(Value::from)),
            ("interval", one.interval.map(Value::from)),
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

fn chain(one: &Chain) -> Value {
    let mut matches = json!({
        "source": one.source,
        "destination": one.destination,
        "source_ports": one.source_ports,
        "destination_ports": one.destination_ports,
    });
    if let Some(map) = matches.as_object_mut() {
        map.retain(|_, value| value.as_array().is_none_or(|list| !list.is_empty()));
    }
    if let Some(protocol) = &one.protocol {
        matches["protocol"] = protocol.clone().into();
    }
    if let Some(dscp) = one.dscp {
        matches["dscp"] = dscp.into();
    }
    json!({
        "name": one.name,
        "priority": one.priority,
        "match": matches,
        "services": one.services,
        "symmetric": one.symmetric,
    })
}

mod granted;
mod keys;
mod origins;
#[cfg(test)]
mod tests;
