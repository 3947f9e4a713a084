//! Neighbours that sources tell of: a file, DNS, etcd, the link.

use std::net::IpAddr;
use std::sync::Arc;

use anyhow::Context as _;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tracing::warn;
use weft_discovery::EtcdTls;
use weft_discovery::source::{
    Dns, EtcdPeers, Found, Mdns, Peer, PeerFile, Source, Standing, follow,
};

use super::core::Queries;
use super::told::{Publisher, Teller, Told, refused, silent};
use crate::config::parts::{Parts, Refused};
use crate::config::{self, Config};

/// The port of BGP (RFC 4271).
const BGP: u16 = 179;

/// The sources of a router.
pub(super) struct Sources {
    news: mpsc::Receiver<Standing>,
    /// What the file says.
    template: Config,
    known: Standing,
    told: Publisher,
}

impl Sources {
    /// Begins to follow the sources of a configuration; `None` where it has none.
    pub(super) fn start(config: &Config, told: Publisher) -> anyhow::Result<Option<Self>> {
        if config.discovery.is_empty() {
            return Ok(None);
        }
        let sources: anyhow::Result<Vec<Box<dyn Source>>> = config
            .discovery
            .iter()
            .map(|one| open(&one.source, config))
            .collect();
        Ok(Some(Self {
            news: follow(sources?),
            template: config.clone(),
            known: Standing::default(),
            told,
        }))
    }

    /// What they say next; never, where they say nothing any more.
    pub(super) async fn next(&mut self) -> Standing {
        match self.news.recv().await {
            Some(standing) => standing,
            None => std::future::pending().await,
        }
    }

    /// Speaks with these from now on.
    pub(super) async fn handle(&mut self, standing: Standing, queries: &Queries) {
        match composed(&self.template, &standing.peers) {
            Ok((config, refused)) => {
                let peers = |one: &Standing| -> Vec<(String, Peer)> {
                    let peers = one.peers.iter();
                    peers
                        .map(|one| (one.name.clone(), one.peer.clone()))
                        .collect()
                };
                // That one is stale changes no session.
                if peers(&standing) != peers(&self.known) {
                    queries.reload(config).await;
                }
                self.told.send_replace(Arc::new(told(&standing, &refused)));
                self.known = standing;
            }
            Err(error) => warn!("the neighbours stay as they are: {error:#}"),
        }
    }

    /// Another file: the same peers in it.
    pub(super) fn refile(&mut self, template: Config) -> anyhow::Result<Config> {
        if template.discovery != self.template.discovery {
            anyhow::bail!("other sources of discovery take a restart");
        }
        let (config, refused) = composed(&template, &self.known.peers)?;
        self.told
            .send_replace(Arc::new(told(&self.known, &refused)));
        self.template = template;
        Ok(config)
    }
}

fn told(standing: &Standing, parts: &[Refused]) -> Told {
    let neighbors = standing.peers.iter().map(|one| {
        let teller = Teller {
            source: one.source.clone(),
            stale: one.stale.clone(),
        };
        (one.peer.address, teller)
    });
    let silent = standing
        .silent
        .iter()
        .map(|one| silent(&one.source, &one.reason));
    let records = standing
        .refused
        .iter()
        .map(|one| refused(&format!("{} of {}", one.name, one.source), &one.reason));
    let parts = parts.iter().map(|one| refused(&one.item, &one.reason));
    Told {
        neighbors: neighbors.collect(),
        alarms: silent.chain(records).chain(parts).collect(),
        ..Told::default()
    }
}

fn open(one: &config::Source, config: &Config) -> anyhow::Result<Box<dyn Source>> {
    Ok(match one {
        config::Source::File(path) => Box::new(PeerFile::new(path)),
        config::Source::Dns { name, servers } => Box::new(Dns::new(name, servers)?),
        config::Source::Etcd {
            endpoints,
            prefix,
            cacert,
            cert,
            key,
        } => {
            let (cacert, cert, key) = (cacert.clone(), cert.clone(), key.clone());
            let tls = EtcdTls { cacert, cert, key };
            Box::new(EtcdPeers::new(endpoints, &tls, prefix)?)
        }
        config::Source::Mdns { interface } => {
            let router = &config.router;
            let source = Mdns::new(interface, &router.name, router.asn.0, router.listen.port);
            Box::new(source.with_context(|| format!("discovery on {interface}"))?)
        }
    })
}

/// The addresses of this network namespace, with their interfaces' names.
pub(super) fn own_addresses() -> nix::Result<Vec<(String, IpAddr)>> {
    let addresses = nix::ifaddrs::getifaddrs()?.filter_map(|one| {
        let address = one.address?;
        let v4 = address.as_sockaddr_in().map(|one| IpAddr::from(one.ip()));
        let address = v4.or_else(|| Some(address.as_sockaddr_in6()?.ip().into()))?;
        Some((one.interface_name, address))
    });
    Ok(addresses.collect())
}

fn composed(template: &Config, peers: &[Found]) -> anyhow::Result<(Config, Vec<Refused>)> {
    let own = own_addresses()?.into_iter();
    let own: Vec<IpAddr> = own.map(|(_, address)| address).collect();
    compose(template, peers, &own)
}

/// The file's configuration with the peers as neighbours, and those that cannot be; what the file says of one goes before. The router
/// itself, which has the addresses `own`, is none.
fn compose(
    template: &Config,
    peers: &[Found],
    own: &[IpAddr],
) -> anyhow::Result<(Config, Vec<Refused>)> {
    let mut document = serde_json::to_value(template)?;
    if let Some(document) = document.as_object_mut() {
        document.remove("discovery");
    }
    let configured = |peer: &Peer| {
        template
            .neighbors
            .iter()
            .any(|one| one.address == peer.address)
    };
    let others = peers.iter();
    let others = others.filter(|one| !own.contains(&one.peer.address) && !configured(&one.peer));
    let others: Vec<&Found> = others.collect();
    if let Some(neighbors) = document["neighbors"].as_array_mut() {
        neighbors.extend(others.iter().map(|one| neighbor(one, template)));
    }
    let file = template.neighbors.iter().map(|one| one.address.to_string());
    let told = others
        .iter()
        .map(|one| format!("{} of {}", one.name, one.source));
    let parts = Parts {
        document,
        neighbors: file.chain(told).collect(),
        tenants: template
            .tenants
            .iter()
            .map(|one| one.name.clone())
            .collect(),
    };
    let (mut config, refused) = parts.read("what discovery says", template)?;
    config.discovery.clone_from(&template.discovery);
    Ok((config, refused))
}

/// What it is to be: what the source says of it before what its group does, and that before what is usual.
fn neighbor(found: &Found, template: &Config) -> Value {
    let peer = &found.peer;
    let own = template.router.asn.0;
    let source = template.discovery.get(found.number);
    let group = source.and_then(|one| one.group.as_deref());
    let group = group.and_then(|name| template.groups.iter().find(|one| one.name == name));
    let says = |key: &str| group.is_some_and(|group| group.written.contains_key(key));
    let mut neighbor = json!({ "address": peer.address, "description": found.name });
    let mut set = |key: &str, value: Value| neighbor[key] = value;
    if let Some(group) = group {
        set("group", json!(group.name));
    }
    if peer.asn.is_some() || !says("asn") {
        set("asn", json!(peer.asn.unwrap_or(own)));
    }
    if peer.port != BGP || !says("port") {
        set("port", json!(peer.port));
    }
    if !says("connect_retry") {
        set("connect_retry", json!(5));
    }
    // Only inside of the own AS is anybody reflected for.
    if peer.route_reflector_client && peer.asn.is_none_or(|asn| asn == own) {
        set("route_reflector_client", json!(true));
    }
    if template.overlay.is_some() && source.is_none_or(config::Discovery::is_anybodys) {
        set("accept_vnis", json!("none"));
    }
    neighbor
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test: a panic is its verdict")]
    use weft_overlay::VniSet;

    use super::*;

    /// Whoever answers on a link, or to a question of DNS, is nobody who may draw tenants' packets, until an operator says who may.
    #[test]
    fn who_answers_says_nothing_of_tenants_unless_a_group_says_so() {
        let text = |more: &str| {
            format!(
                "router: {{ name: r1, router_id: 192.0.2.1, asn: 64601 }}
overlay: {{ global_administrator: 64512, endpoint: 192.0.2.1 }}
groups: [{{ name: mesh, hold_time: 30, connect_retry: 9, accept_vnis: [10001] }}]
discovery: [{{ dns: {{ name: _bgp._tcp.example.com }}{more} }}, {{ file: peers.yaml }}]
"
            )
        };
        let found = |number: usize| Found {
            name: format!("r{number}"),
            peer: Peer {
                address: [192, 0, 2, 8 + number as u8].into(),
                asn: None,
                port: 179,
                route_reflector_client: false,
            },
            source: "somebody".into(),
            number,
            stale: None,
        };
        let neighbors = |more: &str| {
            let template = Config::parse("r1.yaml", &text(more)).unwrap();
            let warned = template.warnings().join("").contains("anybody may answer");
            let (config, refused) = compose(&template, &[found(0), found(1)], &[]).unwrap();
            assert!(refused.is_empty(), "{refused:?}");
            assert_eq!(config.discovery, template.discovery);
            (config.neighbors, warned)
        };
        let (all, warned) = neighbors("");
        assert_eq!(all[0].accept_vnis, VniSet::none());
        assert_eq!(all[1].accept_vnis, VniSet::all());
        assert!(warned);
        let (all, warned) = neighbors(", group: mesh");
        assert_eq!(all[0].accept_vnis.ranges().len(), 1);
        assert_eq!(all[0].group.as_deref(), Some("mesh"));
        assert_eq!(
            (all[0].session.hold_time, all[0].session.connect_retry),
            (30, 9)
        );
        assert!(!warned);
    }

    #[test]
    fn one_peer_that_cannot_be_costs_that_peer() {
        let text = "router: { name: r1, router_id: 192.0.2.1, asn: 64601 }\n\
                    neighbors: [{ address: 192.0.2.9, asn: 64602 }]\n";
        let template = Config::parse("r1.yaml", text).unwrap();
        let found = |name: &str, number: u8, asn: u32| Found {
            name: name.into(),
            peer: Peer {
                address: [192, 0, 2, number].into(),
                asn: Some(asn),
                port: 179,
                route_reflector_client: false,
            },
            source: "peers.yaml".into(),
            number: 0,
            stale: None,
        };
        let control = format!("a{}b", '\u{1}');
        let peers = [
            found("r2", 2, 64601),
            found(&control, 3, 64601),
            found("r9", 9, 64601),
        ];
        let (config, refused) = compose(&template, &peers, &[[192, 0, 2, 1].into()]).unwrap();
        let addresses: Vec<String> = config
            .neighbors
            .iter()
            .map(|one| one.address.to_string())
            .collect();
        assert_eq!(addresses, ["192.0.2.9", "192.0.2.2"]);
        assert_eq!(refused.len(), 1, "{refused:?}");
        assert!(refused[0].item.ends_with("of peers.yaml"), "{refused:?}");
    }
}
