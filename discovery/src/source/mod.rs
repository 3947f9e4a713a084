//! Where a router learns its neighbours without a controller: a file, DNS, etcd, or its link.
//!
//! What a source fails to say is not unsaid: its peers stay until it says others.

mod dns;
mod etcd;
mod file;
mod mdns;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::pin::Pin;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;
use tracing::{info, warn};

pub use self::dns::Dns;
pub use self::etcd::EtcdPeers;
pub use self::file::PeerFile;
pub use self::mdns::Mdns;

/// Pauses behind an error: the first, and the longest.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// A BGP speaker that a source tells of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Peer {
    /// Where it is.
    pub address: IpAddr,
    /// Its AS number; the router's own where the source does not say.
    #[serde(default)]
    pub asn: Option<u32>,
    /// Its TCP port.
    #[serde(default = "port")]
    pub port: u16,
    /// The router reflects routes for it.
    #[serde(default)]
    pub route_reflector_client: bool,
}

fn port() -> u16 {
    179
}

/// Peers by name.
pub type Peers = BTreeMap<String, Peer>;

/// Why a source says nothing now.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct SourceError(pub String);

/// A source of peers.
pub trait Source: Send + 'static {
    /// What it is, for people.
    fn name(&self) -> String;

    /// Its peers, the first time as soon as it knows them, and from then on when they may have changed.
    ///
    /// # Errors
    /// Where it cannot say; it is asked again.
    fn next(&mut self) -> Pin<Box<dyn Future<Output = Result<Peers, SourceError>> + Send + '_>>;
}

/// Follows sources, and tells what all of them say together whenever that changes. Of two that tell of one address the earlier is
/// right. Ends when the receiver is dropped.
pub fn follow(sources: Vec<Box<dyn Source>>) -> mpsc::Receiver<Peers> {
    let (news, mut said) = mpsc::channel::<(usize, Peers)>(16);
    for (number, source) in sources.into_iter().enumerate() {
        tokio::spawn(one(number, source, news.clone()));
    }
    drop(news);
    let (sender, receiver) = mpsc::channel(4);
    tokio::spawn(async move {
        let mut all: BTreeMap<usize, Peers> = BTreeMap::new();
        let mut last = None;
        while let Some((number, peers)) = said.recv().await {
            all.insert(number, peers);
            let together = together(&all);
            if last.as_ref() != Some(&together) {
                last = Some(together.clone());
                if sender.send(together).await.is_err() {
                    return;
                }
            }
        }
    });
    receiver
}

fn together(all: &BTreeMap<usize, Peers>) -> Peers {
    let mut together = Peers::new();
    for (name, peer) in all.values().flatten() {
        let known = together.values().any(|of| of.address == peer.address);
        if !known {
            together.insert(name.clone(), peer.clone());
        }
    }
    together
}

async fn one(number: usize, mut source: Box<dyn Source>, news: mpsc::Sender<(usize, Peers)>) {
    let mut pause = FIRST_PAUSE;
    let mut last: Option<Peers> = None;
    loop {
        let asked = tokio::select! {
            asked = source.next() => asked,
            () = news.closed() => return,
        };
        match asked {
            Ok(peers) => {
                pause = FIRST_PAUSE;
                if last.as_ref() != Some(&peers) {
                    info!(
                        source = source.name(),
                        peers = peers.len(),
                        "peers discovered"
                    );
                    last = Some(peers.clone());
                    if news.send((number, peers)).await.is_err() {
                        return;
                    }
                }
            }
            Err(error) => {
                warn!(source = source.name(), %error, "the peers stay as they are");
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(LONGEST_PAUSE);
            }
        }
    }
}
