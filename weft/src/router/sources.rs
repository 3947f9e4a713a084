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
use crate::config::{Config, Discovery};

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
            .map(|one| open(one, config))
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

fn open(one: &Discovery, config: &Config) -> anyhow::Result<Box<dyn Source>> {
    Ok(match one {
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
        neighbors.extend(
            others
                .iter()
                .map(|one| neighbor(&one.name, &one.peer, template)),
        );
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test: a panic is its verdict")]
    use super::*;

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
