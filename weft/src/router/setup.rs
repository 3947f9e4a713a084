//! The configuration as the crates want it.

use std::collections::hash_map::RandomState;
use std::collections::{BTreeSet, HashMap};
use std::hash::BuildHasher as _;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use ipnet::{Ipv4Net, Ipv6Net};
use weft_api::{Listener, Secure};
use weft_bgp::policy::RoutePolicy;
use weft_bgp::rib::{AsPathEdit, LocalAs, Origination, PrivateAs};
use weft_bgp::{BgpConfig, DynamicGroup, NeighborConfig, Password, Scope, SpeakerConfig};
use weft_bgp_wire::Asn;
use weft_dataplane::{CodePoint, DataplaneConfig, Segmentation, TENANT_MARKS};
use weft_overlay::table::{Membership, Overlay, OverlayConfig};
use weft_overlay::{EndpointId, VniSet};

use super::helpers::Before;
use super::hook::Classes;
use crate::config::{self, Config, DefaultPolicy, Passing};

/// Secrets of sessions that the controller tells, by the neighbour's address: the one in force, and the one that follows it.
pub(super) type SessionKeys = HashMap<IpAddr, [Option<Password>; 2]>;

/// How long the routes of all neighbours are waited for after the start, where graceful restart is off.
const DEFERRAL: Duration = Duration::from_secs(30);

/// The same for tenants' own routers, which nobody else is to wait for long.
const DEFERRAL_OF_SITES: Duration = Duration::from_secs(15);

/// What the data plane is to know before any intent.
pub(super) fn dataplane(config: &Config) -> DataplaneConfig {
    let defaults = DataplaneConfig::default();
    let Some(overlay) = &config.overlay else {
        return defaults;
    };
    DataplaneConfig {
        endpoint: Some(overlay.endpoint),
        endpoint_id: EndpointId(config.router.router_id.0),
        encapsulation: overlay.encapsulation,
        port: overlay.other_port(),
        segmentation: match overlay.segmentation {
            config::Segmentation::Auto => Segmentation::Auto,
            config::Segmentation::Vrf => Segmentation::Vrf,
            config::Segmentation::Table => Segmentation::Table,
        },
        uplinks: overlay.uplinks.iter().cloned().collect(),
        installs_underlay: overlay.install_underlay,
        resilient: overlay.resilient,
        dont_fragment: overlay.dont_fragment,
        code_point: match overlay.code_point {
            config::CodePoint::Pipe => CodePoint::Pipe,
            config::CodePoint::Uniform => CodePoint::Uniform,
        },
        ..defaults
    }
}

/// Whom the router lives by: its neighbours, and its controllers where their addresses are configured.
pub(super) fn lifelines(config: &Config) -> BTreeSet<IpAddr> {
    let controllers = config.controller.iter();
    let controllers = controllers
        .flat_map(|one| one.address.split(','))
        .map(str::trim)
        .filter_map(|one| {
            let socket = one.parse().map(|socket: SocketAddr| socket.ip());
            socket.or_else(|_| one.parse()).ok()
        });
    let neighbors = config.neighbors.iter().map(|one| one.address);
    // What leads to a prefix leads to its first host.
    let listening = config.groups.iter().flat_map(|group| &group.listen);
    let first = listening.filter_map(|prefix| prefix.hosts().next());
    let all = neighbors.chain(first).chain(controllers);
    all.filter(|address| !address.is_loopback()).collect()
}

/// The overlay, without tenants yet.
pub(super) fn overlay(config: &Config) -> Overlay {
    let membership = config.overlay.as_ref().map(|overlay| Membership {
        administrator: overlay.global_administrator,
        endpoint: overlay.endpoint,
        id: EndpointId(config.router.router_id.0),
        encapsulation: overlay.encapsulation,
        port: overlay.other_port(),
        announce_locator: overlay.announce_locator,
        install_underlay: overlay.install_underlay,
        stitched: stitched(config),
    });
    Overlay::new(OverlayConfig {
        membership,
        install: config.install.clone(),
    })
}

/// An edge keeps a table for every VNI that it accepts from another domain.
pub(super) fn stitched(config: &Config) -> VniSet {
    let listening = config.listening().map(|(_, neighbor)| neighbor);
    let neighbors = config.neighbors.iter().chain(listening);
    neighbors
        .filter(|neighbor| neighbor.asn != config.router.asn)
        .fold(VniSet::none(), |set, neighbor| {
            set.union(&neighbor.accept_vnis)
        })
}

/// The speaker and its neighbours.
pub(super) fn bgp(
    config: &Config,
    classes: &mut Classes,
    keys: &SessionKeys,
    before: Before,
    routes: Vec<Origination>,
) -> BgpConfig {
    let overlay = config.overlay.as_ref();
    BgpConfig {
        speaker: SpeakerConfig {
            overlay_administrator: overlay.map(|overlay| overlay.global_administrator),
            report: config.install.clone(),
            helpers: before.helpers,
            ..speaker(config, before.restarting)
        },
        scope: Scope::default(),
        tenant_marks: TENANT_MARKS,
        listen: listen(config),
        neighbors: neighbors(config, classes, keys),
        dynamic: dynamic(config, classes),
        routes,
    }
}

/// What the API is asked at.
///
/// # Errors
/// Where one of its places cannot be had, with what is needed for it. A certificate or tokens that are not there keep nobody from starting.
pub(super) async fn api(api: &config::Api) -> anyhow::Result<Vec<Listener>> {
    let secure = match &api.tls {
        None => None,
        Some(tls) => {
            let tls = tls.clone();
            let secure = Secure::open(tls.certificate, tls.key, tls.tokens);
            Some(Arc::new(
                secure.context("cannot look after the API's files")?,
            ))
        }
    };
    let mut listeners = Vec::with_capacity(api.listen.len());
    for place in &api.listen {
        let listener = place.listen(api.group.as_deref(), secure.clone()).await;
        listeners.push(listener.with_context(|| {
            format!("cannot listen for the API at {place}; `api.listen` chooses another place")
        })?);
    }
    Ok(listeners)
}

/// Where the speaker is listened for.
pub(super) fn listen(config: &Config) -> Vec<SocketAddr> {
    let listen = &config.router.listen;
    let addresses = listen.addresses.iter();
    addresses
        .map(|address| SocketAddr::new(*address, listen.port))
        .collect()
}

/// The router's neighbours.
pub(super) fn neighbors(
    config: &Config,
    classes: &mut Classes,
    keys: &SessionKeys,
) -> Vec<NeighborConfig> {
    let neighbors = config.neighbors.iter();
    let neighbors = neighbors.map(|one| {
        let made = neighbor(config, classes.of(one), one);
        let filed = one.session.password_file.is_some();
        let [password, next_password] = secrets(filed, keys, &made);
        NeighborConfig {
            password,
            next_password,
            ..made
        }
    });
    neighbors.collect()
}

/// Groups that neighbours join by connecting.
pub(super) fn dynamic(config: &Config, classes: &mut Classes) -> Vec<DynamicGroup> {
    let groups = config.listening().map(|(group, one)| DynamicGroup {
        name: group.name.as_str().into(),
        prefixes: group.listen.clone(),
        limit: group.limit.unwrap_or_default(),
        template: neighbor(config, classes.of(one), one),
    });
    groups.collect()
}

/// What the session with a neighbour is signed with: what its file says where it has one, else the controller.
pub(super) fn secrets(
    filed: bool,
    keys: &SessionKeys,
    one: &NeighborConfig,
) -> [Option<Password>; 2] {
    match filed {
        true => [one.password.clone(), None],
        false => keys.get(&one.address).cloned().unwrap_or_default(),
    }
}

/// A tenant's speaker and the tenant's own routers.
pub(super) fn site(
    config: &Config,
    tenant: &config::Tenant,
    scope: Scope,
    restarting: bool,
) -> BgpConfig {
    BgpConfig {
        speaker: SpeakerConfig {
            deferral: DEFERRAL_OF_SITES,
            report: vec![Ipv4Net::default().into(), Ipv6Net::default().into()],
            ..speaker(config, restarting)
        },
        scope,
        tenant_marks: TENANT_MARKS,
        listen: Vec::new(),
        neighbors: site_neighbors(config, tenant),
        dynamic: Vec::new(),
        routes: Vec::new(),
    }
}

/// A tenant's own routers.
pub(super) fn site_neighbors(config: &Config, tenant: &config::Tenant) -> Vec<NeighborConfig> {
    let neighbors = tenant.neighbors.iter();
    neighbors.map(|one| site_neighbor(config, one)).collect()
}

fn speaker(config: &Config, restarting: bool) -> SpeakerConfig {
    let router = &config.router;
    SpeakerConfig {
        asn: router.asn,
        router_id: router.router_id,
        cluster_id: router.cluster_id.unwrap_or(router.router_id.0),
        overlay_administrator: None,
        report: Vec::new(),
        restarting,
        helpers: None,
        // What tenants' routers tell is announced by BGP, and what BGP tells goes to them.
        awaits_routes: config.tenants.iter().any(|one| !one.neighbors.is_empty()),
        deferral: router.graceful_restart.map_or(DEFERRAL, |restart| {
            Duration::from_secs(u64::from(restart.deferral_time))
        }),
        seed: RandomState::new().hash_one(0),
    }
}

/// What passes where the file says so, and where it does not.
fn passing(said: &Option<Passing>, unsaid: RoutePolicy) -> RoutePolicy {
    said.as_ref().map_or(unsaid, |said| said.policy.clone())
}

/// What passes between this router and a neighbour of which nothing is said (RFC 8212).
fn unsaid(config: &Config, asn: Asn) -> RoutePolicy {
    let external = asn != config.router.asn;
    match config.router.default_policy {
        DefaultPolicy::Reject if external => RoutePolicy::Missing,
        DefaultPolicy::Reject | DefaultPolicy::Accept => RoutePolicy::Accept,
    }
}

fn restart_time(config: &Config, wanted: bool) -> Option<u16> {
    let restart = config.router.graceful_restart.filter(|_| wanted);
    restart.map(|restart| restart.restart_time)
}

/// What stands in a neighbour's password file.
fn password(file: &Path) -> Password {
    let read = std::fs::read(file).map_err(|error| error.to_string());
    let key = read.and_then(|octets| {
        let line = octets.split(|octet| matches!(octet, b'\n' | b'\r')).next();
        match line.unwrap_or_default() {
            line if (1..=80).contains(&line.len()) => Ok(Arc::from(line)),
            line => Err(format!(
                "its first line has {} octets, and a secret has 1 to 80",
                line.len()
            )),
        }
    });
    match key {
        Ok(key) => Password::Key(key),
        Err(why) => {
            let why = format!("the password file {}: {why}", file.display());
            Password::Unreadable(why.into())
        }
    }
}

/// The session with a neighbour, where nothing but the session is configured of it.
fn session(
    config: &Config,
    (address, asn, ttl): (IpAddr, Asn, u8),
    one: &config::Session,
) -> NeighborConfig {
    let (ttl, least_ttl) = match one.ttl_security {
        Some(hops) => (u8::MAX, Some(u8::MAX - (hops - 1))),
        None => (ttl, None),
    };
    NeighborConfig {
        address,
        port: one.port,
        asn,
        description: one.description.clone(),
        group: None,
        local_address: one.local_address,
        local_address_v6: one.local_address_v6,
        passive: one.passive,
        ttl,
        least_ttl,
        password: one.password_file.as_deref().map(password),
        next_password: None,
        hold_time: Duration::from_secs(u64::from(one.hold_time)),
        connect_retry: Duration::from_secs(u64::from(one.connect_retry)),
        families: one.families.clone(),
        add_path_send: false,
        add_path_receive: false,
        graceful_restart: restart_time(config, one.graceful_restart),
        route_reflector_client: false,
        next_hop_self: true,
        import: passing(&one.import, RoutePolicy::Accept),
        export: passing(&one.export, RoutePolicy::Accept),
        max_prefixes: one.max_prefixes,
        max_paths: 1,
        allow_own_as: usize::from(one.allow_own_as),
        as_path: AsPathEdit::default(),
        enforce_first_as: one.enforce_first_as,
        accept_martians: one.martians == config::Martians::Accept,
        import_class: 0,
        export_class: 0,
        role: one.role.map(Into::into),
        role_strict: one.role_strict,
        shutdown: one.shutdown.clone(),
    }
}

fn site_neighbor(config: &Config, one: &config::SiteNeighbor) -> NeighborConfig {
    session(config, (one.address, one.asn, one.ttl), &one.session)
}

fn neighbor(
    config: &Config,
    (import_class, export_class): (u32, u32),
    one: &config::Neighbor,
) -> NeighborConfig {
    NeighborConfig {
        group: one.group.clone(),
        as_path: AsPathEdit {
            local_as: one.local_as.map(|local| LocalAs {
                asn: local.asn,
                replaces_own: local.hide_own,
            }),
            private: match one.private_as {
                config::PrivateAs::Keep => PrivateAs::Keep,
                config::PrivateAs::Remove => PrivateAs::Remove,
                config::PrivateAs::Replace => PrivateAs::Replace,
            },
            overrides: one.as_override,
        },
        add_path_send: one.add_path.send,
        add_path_receive: one.add_path.receive,
        max_paths: one.max_paths,
        route_reflector_client: one.route_reflector_client,
        next_hop_self: one.next_hop == config::NextHop::Own,
        import: passing(&one.session.import, unsaid(config, one.asn)),
        export: passing(&one.session.export, unsaid(config, one.asn)),
        import_class,
        export_class,
        ..session(config, (one.address, one.asn, one.ttl), &one.session)
    }
}
