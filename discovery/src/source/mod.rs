//! Where a router learns its neighbours without a controller: a file, DNS, etcd, or its link.
//!
//! What a source fails to say is not unsaid: its peers stay, marked stale, until it says others. What is wrong with one record costs
//! that record: a peer that was known by it stays as it was, marked stale, and the others are what the source says.

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

/// AS_TRANS (RFC 6793) and the last AS number (RFC 7300): nobody's.
const NOBODYS: [u32; 3] = [0, 23_456, u32::MAX];

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

impl Peer {
    /// Whether a session with it can be.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn check(&self) -> Result<(), String> {
        let address = self.address;
        let anywhere = match address {
            IpAddr::V4(each) => each.is_broadcast() || each.is_unspecified() || each.is_multicast(),
            IpAddr::V6(each) => each.is_unspecified() || each.is_multicast(),
        };
        if anywhere {
            return Err(format!("{address} is no unicast address"));
        }
        if matches!(address, IpAddr::V6(each) if each.is_unicast_link_local()) {
            return Err(format!(
                "{address} says nothing without its link: give an address that is routed"
            ));
        }
        match (self.port, self.asn) {
            (0, _) => Err("0 is no TCP port".into()),
            (_, Some(asn)) if NOBODYS.contains(&asn) => {
                Err(format!("{asn} is no neighbour's AS number"))
            }
            _ => Ok(()),
        }
    }
}

/// The records of a source by name: each a peer, or why it is none.
pub type Said = BTreeMap<String, Result<Peer, String>>;

/// Why a source says nothing now.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct SourceError(pub String);

/// A source of peers.
pub trait Source: Send + 'static {
    /// What it is, for people.
    fn name(&self) -> String;

    /// Its records, the first time as soon as it knows them, and from then on when they may have changed.
    ///
    /// # Errors
    /// Where it cannot say; it is asked again.
    fn next(&mut self) -> Pin<Box<dyn Future<Output = Result<Said, SourceError>> + Send + '_>>;
}

/// A peer, and who tells of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// What the source calls it.
    pub name: String,
    /// The peer.
    pub peer: Peer,
    /// The source.
    pub source: String,
    /// Which of those that are followed it is, from 0.
    pub number: usize,
    /// Why it is as it was known last, where the source does not say it any more.
    pub stale: Option<String>,
}

/// A record that is not taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// The source.
    pub source: String,
    /// What the source calls it.
    pub name: String,
    /// Why not.
    pub reason: String,
}

/// A source that says nothing now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Silent {
    /// The source.
    pub source: String,
    /// Why.
    pub reason: String,
}

/// What all sources say together.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    /// Peers, by source and name. Of two sources that tell of one address the earlier is right.
    pub peers: Vec<Found>,
    /// Records that are not taken.
    pub refused: Vec<Refused>,
    /// Sources that say nothing now.
    pub silent: Vec<Silent>,
}

/// What is known of one source.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Memory {
    source: String,
    /// Peers by name, and why one is stale.
    known: BTreeMap<String, (Peer, Option<String>)>,
    /// Records that are not taken, and why.
    refused: BTreeMap<String, String>,
    silent: Option<String>,
}

impl Memory {
    /// Takes in what the source says.
    fn hear(&mut self, said: Said) {
        self.silent = None;
        self.refused.clear();
        let mut before = std::mem::take(&mut self.known);
        let mut addresses: BTreeMap<IpAddr, String> = BTreeMap::new();
        for (name, record) in said {
            let (name, record) = match shown(&name) {
                Ok(()) => (name, record),
                Err(reason) => (name.escape_debug().to_string(), Err(reason)),
            };
            let checked = record.and_then(|peer| {
                peer.check()?;
                match addresses.get(&peer.address) {
                    Some(other) => Err(format!("`{other}` has {} too", peer.address)),
                    None => Ok(peer),
                }
            });
            let (peer, stale) = match checked {
                Ok(peer) => (Some(peer), None),
                Err(reason) => {
                    self.refused.insert(name.clone(), reason.clone());
                    (before.remove(&name).map(|(peer, _)| peer), Some(reason))
                }
            };
            if let Some(peer) = peer {
                addresses.insert(peer.address, name.clone());
                self.known.insert(name, (peer, stale));
            }
        }
    }

    /// The source says nothing: what it said stays.
    fn silence(&mut self, why: &str) {
        for (_, stale) in self.known.values_mut() {
            stale.get_or_insert_with(|| why.to_owned());
        }
        self.silent = Some(why.to_owned());
    }
}

/// What a source calls a peer reaches logs and terminals: it has no characters there that do something.
fn shown(name: &str) -> Result<(), String> {
    match name.len() <= 255 && name.chars().all(|c| c == ' ' || c.is_ascii_graphic()) {
        true => Ok(()),
        false => Err(
            "its name has other characters than visible ones of ASCII and blanks, or more than 255 of them"
                .to_owned(),
        ),
    }
}

fn together(all: &BTreeMap<usize, Memory>) -> Standing {
    let mut standing = Standing::default();
    for (number, memory) in all {
        let source = || memory.source.clone();
        for (name, (peer, stale)) in &memory.known {
            let mut known = standing.peers.iter();
            if known.any(|each| each.peer.address == peer.address) {
                continue;
            }
            standing.peers.push(Found {
                name: name.clone(),
                peer: peer.clone(),
                source: source(),
                number: *number,
                stale: stale.clone(),
            });
        }
        let refused = memory.refused.iter().map(|(name, reason)| Refused {
            source: source(),
            name: name.clone(),
            reason: reason.clone(),
        });
        standing.refused.extend(refused);
        let silent = memory.silent.iter().map(|reason| Silent {
            source: source(),
            reason: reason.clone(),
        });
        standing.silent.extend(silent);
    }
    standing
}

/// Follows sources, and tells what all of them say together whenever that changes. Ends when the receiver is dropped.
pub fn follow(sources: Vec<Box<dyn Source>>) -> mpsc::Receiver<Standing> {
    let (news, mut said) = mpsc::channel::<(usize, Memory)>(16);
    for (number, source) in sources.into_iter().enumerate() {
        tokio::spawn(one(number, source, news.clone()));
    }
    drop(news);
    let (sender, receiver) = mpsc::channel(4);
    tokio::spawn(async move {
        let mut all: BTreeMap<usize, Memory> = BTreeMap::new();
        let mut last = None;
        while let Some((number, memory)) = said.recv().await {
            all.insert(number, memory);
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

async fn one(number: usize, mut source: Box<dyn Source>, news: mpsc::Sender<(usize, Memory)>) {
    let mut pause = FIRST_PAUSE;
    let mut memory = Memory {
        source: source.name(),
        ..Memory::default()
    };
    let mut last: Option<Memory> = None;
    // Questions in a row without an answer.
    let mut failed: u32 = 0;
    loop {
        let asked = tokio::select! {
            asked = source.next() => asked,
            () = news.closed() => return,
        };
        let wait = match asked {
            Ok(said) => {
                memory.hear(said);
                (pause, failed) = (FIRST_PAUSE, 0);
                None
            }
            Err(error) => {
                failed += 1;
                // At a falling rate: every time that it has failed twice as often.
                if failed.is_power_of_two() {
                    let source = &memory.source;
                    warn!(source, failed, %error, "a source says nothing: its peers stay as they are, marked stale");
                }
                memory.silence(&error.to_string());
                let wait = pause;
                pause = (pause * 2).min(LONGEST_PAUSE);
                Some(wait)
            }
        };
        if last.as_ref() != Some(&memory) {
            report(last.as_ref(), &memory);
            last = Some(memory.clone());
            if news.send((number, memory.clone())).await.is_err() {
                return;
            }
        }
        if let Some(wait) = wait {
            tokio::time::sleep(wait).await;
        }
    }
}

/// Logs what has changed.
fn report(before: Option<&Memory>, now: &Memory) {
    let source = &now.source;
    for (name, reason) in &now.refused {
        if before.and_then(|each| each.refused.get(name)) != Some(reason) {
            warn!(source, name, reason, "a record is not taken");
        }
    }
    if now.silent.is_none() && before.is_none_or(|each| each.known != now.known) {
        info!(source, peers = now.known.len(), "peers discovered");
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test: a panic is its verdict")]
    use super::*;

    fn peer(number: u8) -> Peer {
        Peer {
            address: [192, 0, 2, number].into(),
            asn: None,
            port: 179,
            route_reflector_client: false,
        }
    }

    fn said(records: &[(&str, Result<Peer, &str>)]) -> Said {
        let records = records.iter();
        records
            .map(|(name, record)| {
                let record = record.clone().map_err(str::to_owned);
                ((*name).to_owned(), record)
            })
            .collect()
    }

    #[test]
    fn a_name_that_would_do_something_in_a_terminal_is_refused_as_it_is_written() {
        let mut memory = Memory::default();
        memory.hear(said(&[
            ("a", Ok(peer(1))),
            ("b\u{1b}[2J", Ok(peer(2))),
            ("c\nweft: all is well", Ok(peer(3))),
        ]));
        let known: Vec<&String> = memory.known.keys().collect();
        assert_eq!(known, ["a"]);
        let refused: Vec<&String> = memory.refused.keys().collect();
        assert_eq!(refused, ["b\\u{1b}[2J", "c\\nweft: all is well"]);
    }

    #[test]
    fn what_is_wrong_with_one_record_costs_that_record() {
        let mut memory = Memory::default();
        memory.hear(said(&[("a", Ok(peer(1))), ("b", Ok(peer(2)))]));
        assert_eq!(memory.known.len(), 2);
        // One that was known stays as it was and is stale; one that was not is not there; the others are what is said.
        let other = |edit: fn(&mut Peer)| {
            let mut peer = peer(9);
            edit(&mut peer);
            Ok(peer)
        };
        memory.hear(said(&[
            ("a", Err("SERVFAIL")),
            ("b", Ok(peer(3))),
            ("c", other(|each| each.asn = Some(0))),
            ("d", other(|each| each.port = 0)),
            ("e", other(|each| each.address = [0, 0, 0, 0].into())),
            ("f", Ok(peer(3))),
            ("g", other(|each| each.asn = Some(23_456))),
        ]));
        let known = |name: &str| memory.known.get(name).cloned();
        assert_eq!(known("a"), Some((peer(1), Some("SERVFAIL".into()))));
        assert_eq!(known("b"), Some((peer(3), None)));
        assert_eq!(memory.known.len(), 2);
        let refused: Vec<&str> = memory.refused.keys().map(String::as_str).collect();
        assert_eq!(refused, ["a", "c", "d", "e", "f", "g"]);
        assert_eq!(memory.refused["f"], "`b` has 192.0.2.3 too");
        // What is said no more is gone.
        memory.hear(said(&[("a", Ok(peer(1)))]));
        assert_eq!(memory.known.len(), 1);
        assert_eq!(memory.known["a"].1, None);
        assert!(memory.refused.is_empty());
    }

    #[test]
    fn silence_unsays_nothing() {
        let mut memory = Memory {
            source: "dns".into(),
            ..Memory::default()
        };
        memory.hear(said(&[("a", Ok(peer(1)))]));
        memory.silence("timed out");
        let mut standing = together(&BTreeMap::from([(0, memory.clone())]));
        assert_eq!(standing.silent[0].reason, "timed out");
        let found = standing.peers.pop().unwrap();
        assert_eq!(
            (found.peer, found.stale.as_deref()),
            (peer(1), Some("timed out"))
        );
        memory.hear(said(&[("a", Ok(peer(1)))]));
        let standing = together(&BTreeMap::from([(0, memory)]));
        assert!(standing.silent.is_empty() && standing.peers[0].stale.is_none());
    }

    #[test]
    fn of_two_sources_with_one_address_the_earlier_is_right_and_names_may_be_the_same() {
        let [mut first, mut second] = ["file", "dns"].map(|source| Memory {
            source: source.into(),
            ..Memory::default()
        });
        first.hear(said(&[("a", Ok(peer(1)))]));
        let elsewhere = Peer {
            port: 1179,
            ..peer(1)
        };
        second.hear(said(&[("a", Ok(peer(2))), ("b", Ok(elsewhere))]));
        let standing = together(&BTreeMap::from([(0, first), (1, second)]));
        let found = standing.peers.iter();
        let found: Vec<_> = found
            .map(|each| (each.source.as_str(), each.name.as_str(), each.peer.port))
            .collect();
        assert_eq!(found, [("file", "a", 179), ("dns", "a", 179)]);
    }
}
