//! Neighbours that sources tell of: a file, DNS, etcd, the link.

use std::net::IpAddr;

use anyhow::Context as _;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tracing::warn;
use weft_discovery::EtcdTls;
use weft_discovery::source::{Dns, EtcdPeers, Mdns, Peer, PeerFile, Peers, Source, follow};

use super::core::Queries;
use crate::config::{Config, Discovery};

/// The sources of a router.
pub(super) struct Sources {
    peers: mpsc::Receiver<Peers>,
    /// What the file says.
    template: Config,
    known: Peers,
}

impl Sources {
    /// Begins to follow the sources of a configuration; `None` where it has none.
    pub(super) fn start(config: &Config) -> anyhow::Result<Option<Self>> {
        if config.discovery.is_empty() {
            return Ok(None);
        }
        let sources: anyhow::Result<Vec<Box<dyn Source>>> =
            config.discovery.iter().map(|of| open(of, config)).collect();
        Ok(Some(Self {
            peers: follow(sources?),
            template: config.clone(),
            known: Peers::new(),
        }))
    }

    /// What they say next; never, where they say nothing any more.
    pub(super) async fn next(&mut self) -> Peers {
        match self.peers.recv().await {
            Some(peers) => peers,
            None => std::future::pending().await,
        }
    }

    /// Speaks with these from now on.
    pub(super) async fn handle(&mut self, peers: Peers, queries: &Queries) {
        match compose(&self.template, &peers) {
            Ok(config) => {
                queries.reload(config).await;
                self.known = peers;
            }
            Err(error) => warn!("the neighbours stay as they are: {error:#}"),
        }
    }

    /// Another file: the same peers in it.
    pub(super) fn refile(&mut self, template: Config) -> anyhow::Result<Config> {
        if template.discovery != self.template.discovery {
            anyhow::bail!("other sources of discovery take a restart");
        }
        let config = compose(&template, &self.known)?;
        self.template = template;
        Ok(config)
    }
}

fn open(of: &Discovery, config: &Config) -> anyhow::Result<Box<dyn Source>> {
    Ok(match of {
        Discovery::File(path) => Box::new(PeerFile::new(path)),
        Discovery::Dns { name, servers } => Box::new(Dns::new(name, servers)?),
        Discovery::Etcd {
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
        Discovery::Mdns { interface } => {
            let router = &config.router;
            let source = Mdns::new(interface, &router.name, router.asn.0, router.listen.port);
            Box::new(source.with_context(|| format!("discovery on {interface}"))?)
        }
    })
}

/// The addresses of this network namespace, with their interfaces' names.
pub(super) fn own_addresses() -> nix::Result<Vec<(String, IpAddr)>> {
    let addresses = nix::ifaddrs::getifaddrs()?.filter_map(|of| {
        let address = of.address?;
        let v4 = address.as_sockaddr_in().map(|of| IpAddr::from(of.ip()));
        let address = v4.or_else(|| Some(address.as_sockaddr_in6()?.ip().into()))?;
        Some((of.interface_name, address))
    });
    Ok(addresses.collect())
}

/// The file's configuration with the peers as neighbours; what the file says of one goes before.
fn compose(template: &Config, peers: &Peers) -> anyhow::Result<Config> {
    let own = own_addresses()?;
    let mut document = serde_json::to_value(template)?;
    if let Some(document) = document.as_object_mut() {
        document.remove("discovery");
    }
    let configured = |peer: &Peer| {
        template
            .neighbors
            .iter()
            .any(|of| of.address == peer.address)
    };
    let others = peers.iter().filter(|(_, peer)| {
        own.iter().all(|(_, address)| *address != peer.address) && !configured(peer)
    });
    let found = others.map(|(name, peer)| neighbor(name, peer, template));
    let found: Vec<Value> = found.collect();
    if let Some(neighbors) = document["neighbors"].as_array_mut() {
        neighbors.extend(found);
    }
    let mut config = Config::parse("what discovery says", &document.to_string())?;
    config.discovery.clone_from(&template.discovery);
    Ok(config)
}

fn neighbor(name: &str, peer: &Peer, template: &Config) -> Value {
    let asn = peer.asn.unwrap_or(template.router.asn.0);
    // Only inside of the own AS is anybody reflected for.
    let reflects = peer.route_reflector_client && asn == template.router.asn.0;
    json!({
        "address": peer.address,
        "asn": asn,
        "port": peer.port,
        "description": name,
        "route_reflector_client": reflects,
        "connect_retry": 5,
    })
}
